//! Echo servers on threads of their own, and a client for all of them.

mod bare_mio;
mod std_threads;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Context, Handle, Input, Outcome, Protocol};

/// Answers every byte with the same byte.
pub(crate) struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// A driver of lariat's with [`Echo`], until it is dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn reactor() -> Server {
        Server::start(|| {
            let mut reactor = Reactor::new().unwrap();
            let listener = reactor.listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
            let addr = reactor.addresses(listener)[0].socket_addr().unwrap();
            (addr, reactor.handle(), move || reactor.run().map(drop).unwrap())
        })
    }

    pub(crate) fn blocking() -> Server {
        Server::start(|| {
            let mut driver = Blocking::new();
            let listener = driver.listen("127.0.0.1:0", |_| Some(Echo)).unwrap();
            let addr = driver.addresses(listener)[0].socket_addr().unwrap();
            (addr, driver.handle(), move || driver.run().map(drop).unwrap())
        })
    }

    /// Makes a driver on a thread of its own, where it then runs.
    fn start<R: FnOnce()>(
        make: impl FnOnce() -> (SocketAddr, Handle, R) + Send + 'static,
    ) -> Server {
        let (started, addr) = mpsc::channel();
        let thread = thread::spawn(move || {
            let (addr, handle, run) = make();
            started.send((addr, handle)).unwrap();
            run();
        });
        let (addr, handle) = addr.recv().unwrap();
        Server { addr, handle, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Starts the echo server on bare mio. It ends with the process.
pub(crate) fn start_bare_mio() -> SocketAddr {
    let listener = mio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || bare_mio::serve(listener).unwrap());
    addr
}

/// Starts the echo server on plain threads. It ends with the process.
pub(crate) fn start_std_threads() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    // Without a pool: only one connection comes.
    thread::spawn(move || std_threads::serve(&listener, false).unwrap());
    addr
}

/// One connection, used by one thread for both directions at once.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// Sends `message` and waits for as many bytes.
    pub(crate) fn round_trip(&mut self, message: &[u8], answer: &mut [u8]) {
        self.0.write_all(message).unwrap();
        self.0.read_exact(answer).unwrap();
    }

    /// Sends `bytes` and reads as many, whichever is possible. More is sent than the kernel holds.
    pub(crate) fn stream(&mut self, bytes: &[u8], buffer: &mut [u8]) {
        self.0.set_nonblocking(true).unwrap();
        let (mut sent, mut received) = (0, 0);
        while received < bytes.len() {
            let out = if sent < bytes.len() { self.0.write(&bytes[sent..]).ok() } else { None };
            sent += out.unwrap_or(0);
            let back = match self.0.read(buffer) {
                Ok(0) => panic!("the connection has ended"),
                Ok(count) => Some(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            };
            received += back.unwrap_or(0);
            if out.is_none() && back.is_none() {
                thread::yield_now();
            }
        }
        self.0.set_nonblocking(false).unwrap();
    }
}
