//! Echo servers on threads of their own, and a client for all of them.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Context, Handle, Input, Outcome, Protocol};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

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

/// Starts an echo server on bare mio, as sparing as mio allows: no limits, no deadlines, no
/// counters. It ends with the process.
pub(crate) fn start_bare_mio() -> SocketAddr {
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    thread::spawn(move || serve(&mut poll, &listener));
    addr
}

/// Starts an echo server on plain threads of the standard library, one for each connection. It ends
/// with the process.
pub(crate) fn start_std_threads() -> SocketAddr {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || echo_blocking(stream));
        }
    });
    addr
}

fn echo_blocking(mut stream: StdStream) {
    // Of the size that lariat's blocking driver has.
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    socket: TcpStream,
    /// What could not be written yet, from `sent` on. While there is some, nothing is read.
    rest: Vec<u8>,
    sent: usize,
}

fn serve(poll: &mut Poll, listener: &TcpListener) {
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::new();
    // One read buffer for all, of the size that lariat's reactor has.
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(listener, poll.registry(), &mut connections);
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            if !event.is_readable() && connection.rest.is_empty() {
                continue;
            }
            if !matches!(connection.echo(&mut buffer, event.is_read_closed()), Ok(true)) {
                connections.remove(event.token().0);
            }
        }
    }
}

fn accept(listener: &TcpListener, registry: &Registry, connections: &mut Slab<Connection>) {
    while let Ok((mut socket, _)) = listener.accept() {
        socket.set_nodelay(true).unwrap();
        let place = connections.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut socket, Token(place.key()), both).unwrap();
        place.insert(Connection { socket, rest: Vec::new(), sent: 0 });
    }
}

impl Connection {
    /// Echoes until nothing more can be read or written; false at the end of the stream.
    fn echo(&mut self, buffer: &mut [u8], closing: bool) -> Result<bool> {
        if !self.rest.is_empty() {
            self.sent += write(&mut self.socket, &self.rest[self.sent..])?;
            if self.sent < self.rest.len() {
                return Ok(true);
            }
            // The memory is kept, which lariat does not do per connection.
            self.rest.clear();
            self.sent = 0;
        }
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let written = write(&mut self.socket, &buffer[..count])?;
            if written < count {
                self.rest.extend_from_slice(&buffer[written..count]);
                return Ok(true);
            }
            // A short read has drained the socket, unless the end of the stream follows.
            if count < buffer.len() && !closing {
                return Ok(true);
            }
        }
    }
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// One connection, used by one thread for both directions at once.
pub(crate) struct Client(StdStream);

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = StdStream::connect(addr).unwrap();
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
