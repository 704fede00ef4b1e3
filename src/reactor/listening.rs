//! Listening sockets of the reactor, which a callback closes at once.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, Socket};

use super::mio_system::{MioStream, stream_of};
use crate::datagram::{DatagramOptions, Opened};
#[cfg(feature = "fd")]
use crate::descriptors::Descriptors;
use crate::endpoint::{Endpoint, UnixName};
use crate::event_loop::Listener;
use crate::options::{ListenOptions, SocketOptions};
#[cfg(feature = "fd")]
use crate::protocol::AdoptedDescriptors;
use crate::protocol::{AdoptedListener, Bound, Close, Sockets};
use crate::socket::{self, Listens, SocketFile, SystemSockets, retry};

/// A listening socket, and the options for accepted streams.
struct MioListener {
    file: Option<SocketFile>,
    socket: Accepts,
    /// None for a socket that is the driver's own.
    gives: Option<SocketOptions>,
    /// Where a socket is registered that was adopted.
    registry: Option<Rc<Registry>>,
}

impl Drop for MioListener {
    fn drop(&mut self) {
        // The file goes before the socket.
        drop(self.file.take());
        if let Some(registry) = &self.registry {
            // Another may have the same socket, which the poll would go on watching.
            let _ = registry.deregister(self.socket.source());
        }
        // A child that this process has just forked has the socket until its `exec`, and it would
        // go on listening for as long.
        if self.gives.is_none() && cfg!(target_os = "linux") {
            if let Err(error) = SockRef::from(&self.socket).shutdown(Shutdown::Both) {
                log::debug!(target: "lariat::accept", "cannot shut a listener: {error}");
            }
        }
    }
}

/// A socket that listens, as its family has it.
enum Accepts {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepts {
    fn accept(&self) -> io::Result<(Socket, Endpoint)> {
        match self {
            Accepts::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((OwnedFd::from(stream).into(), peer.into()))
            }
            Accepts::Unix(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((OwnedFd::from(stream).into(), UnixName::from(&peer).into()))
            }
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Accepts::Tcp(socket) => socket,
            Accepts::Unix(socket) => socket,
        }
    }
}

impl AsFd for Accepts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Accepts::Tcp(socket) => socket.as_fd(),
            Accepts::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A listening socket, until a callback closes it.
#[derive(Clone)]
pub(super) struct Listening(Rc<Cell<Option<MioListener>>>);

impl Listening {
    /// Runs `code` with the socket; `closed` is the result for a closed one.
    fn with<T>(&self, closed: T, code: impl FnOnce(&mut MioListener) -> T) -> T {
        let Some(mut socket) = self.0.take() else { return closed };
        let result = code(&mut socket);
        self.0.set(Some(socket));
        result
    }

    /// Whether the socket came from other code, which may have it as well.
    pub(super) fn is_adopted(&self) -> bool {
        self.with(false, |listener| listener.gives.is_some())
    }

    /// Watches the socket; `shared` is the registry of one that was adopted.
    pub(super) fn register(
        &self,
        registry: &Registry,
        shared: Option<Rc<Registry>>,
        token: Token,
    ) -> io::Result<()> {
        self.with(Ok(()), |listener| {
            registry.register(listener.socket.source(), token, Interest::READABLE)?;
            listener.registry = shared;
            Ok(())
        })
    }
}

impl Listener for Listening {
    type Stream = MioStream;

    fn accept(&mut self) -> io::Result<(MioStream, Endpoint)> {
        let closed = Err(io::ErrorKind::WouldBlock.into());
        self.with(closed, |listener| {
            let (stream, peer) = retry(|| listener.socket.accept())?;
            socket::give(&stream, peer, listener.gives.as_ref());
            Ok((stream_of(stream), peer))
        })
    }
}

/// The sockets of the system, whose listeners a callback can close.
pub(super) struct MioSockets(pub(super) SystemSockets);

impl Sockets for MioSockets {
    fn listen(&self, addr: Endpoint, options: &ListenOptions) -> io::Result<Bound> {
        self.0.listen(addr, options).map(closable)
    }

    fn bind(&self, addr: Endpoint, options: &DatagramOptions) -> io::Result<Opened> {
        self.0.bind(addr, options)
    }

    fn adopt_datagrams(&self, socket: OwnedFd, options: &DatagramOptions) -> io::Result<Opened> {
        self.0.adopt_datagrams(socket, options)
    }

    fn adopt_listener(&self, socket: OwnedFd, options: &ListenOptions) -> AdoptedListener {
        self.0.adopt_listener(socket, options).map(closable)
    }

    fn adopt_stream(&self, socket: &OwnedFd, options: &SocketOptions) -> io::Result<Endpoint> {
        self.0.adopt_stream(socket, options)
    }

    #[cfg(feature = "fd")]
    fn adopt_descriptors(&self, from: Descriptors) -> AdoptedDescriptors {
        self.0.adopt_descriptors(from)
    }
}

/// A listening socket of the system on its way to the loop.
fn closable(bound: Bound) -> Bound {
    match bound.socket.downcast::<socket::Listener>() {
        Ok(listener) => {
            let socket::Listener { file, socket, gives, .. } = *listener;
            let socket = match socket {
                Listens::Tcp(socket) => Accepts::Tcp(TcpListener::from_std(socket)),
                Listens::Unix(socket) => Accepts::Unix(UnixListener::from_std(socket)),
            };
            let listener = MioListener { file, socket, gives, registry: None };
            let listening = Listening(Rc::new(Cell::new(Some(listener))));
            let closed = listening.clone();
            let close: Close = Box::new(move || drop(closed.0.take()));
            Bound { addr: bound.addr, socket: Box::new(listening), close: Some(close) }
        }
        Err(socket) => Bound { socket, ..bound },
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A listening socket, and another descriptor of it, as a child has it between `fork` and
    /// `exec`.
    fn listen(addr: Endpoint) -> (Bound, OwnedFd) {
        let sockets = MioSockets(SystemSockets { nonblocking: true });
        let bound = sockets.listen(addr, &ListenOptions::default()).unwrap();
        let listening = bound.socket.downcast_ref::<Listening>().unwrap();
        let second = listening
            .with(None, |listener| Some(listener.socket.as_fd().try_clone_to_owned().unwrap()));
        (bound, second.unwrap())
    }

    fn close(mut bound: Bound) {
        bound.close.take().unwrap()();
    }

    #[test]
    fn a_port_is_free_as_soon_as_its_listener_is_closed_also_beside_a_fork() {
        // An address that no other test listens at.
        let (bound, child) = listen(Endpoint::Ip(([127, 0, 0, 73], 0).into()));
        let addr = bound.addr;
        let waiting = TcpStream::connect(addr.socket_addr().unwrap()).unwrap();
        close(bound);
        assert!(TcpStream::connect(addr.socket_addr().unwrap()).is_err());
        let error = waiting.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let (again, _) = listen(addr);
        TcpStream::connect(addr.socket_addr().unwrap()).unwrap();
        drop((child, again));
    }

    #[test]
    fn a_unix_listener_refuses_as_soon_as_it_is_closed_also_beside_a_fork() {
        let path = std::env::temp_dir().join(format!("lariat-forked-{}", std::process::id()));
        let addr = UnixName::from_pathname(&path).unwrap().into();
        let (bound, child) = listen(addr);
        let other = path.with_extension("link");
        std::fs::hard_link(&path, &other).unwrap();
        close(bound);
        assert!(!path.exists());
        let error = UnixStream::connect(&other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let (again, _) = listen(addr);
        UnixStream::connect(&path).unwrap();
        std::fs::remove_file(&other).unwrap();
        drop((child, again));
        assert!(!path.exists());
    }
}
