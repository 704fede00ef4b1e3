//! What the loop reads and writes: a socket, or descriptors that are none (feature `fd`).
//!
//! The straight path takes sockets only, by [`Stream::straight`]: its one comparison tells a socket
//! from everything else, as it tells a stream from none without the feature.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use crate::endpoint::Endpoint;
use crate::event_loop::Stream;
use crate::protocol::SocketInfo;
use crate::socket::{Half, Pair, retry};

pub(super) enum MioStream {
    Socket(Socket),
    Other(Box<Other>),
}

/// Descriptors that are no socket, each registered under the token of the connection.
pub(super) struct Other {
    registry: Rc<Registry>,
    read: Half,
    write: Option<Half>,
    /// `read` is written to as well.
    both: bool,
}

impl Other {
    pub(super) fn new(pair: Pair, registry: Rc<Registry>) -> Other {
        let both = pair.write.is_none();
        Other { registry, read: pair.read, write: pair.write, both }
    }

    fn register(&self, token: Token) -> io::Result<()> {
        let reads = match self.both {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let fd = self.read.fd()?.as_raw_fd();
        self.registry.register(&mut SourceFd(&fd), token, reads)?;
        match &self.write {
            Some(write) => {
                let fd = write.fd()?.as_raw_fd();
                self.registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE)
            }
            None => Ok(()),
        }
    }

    /// The poll would go on watching a descriptor that is closed, as long as another process has
    /// the same open file.
    fn forget(&self, half: &Half) {
        if let Ok(fd) = half.fd() {
            // One that was never registered is none.
            let _ = self.registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }

    fn writes(&self) -> io::Result<&Half> {
        let half = if self.both { Some(&self.read) } else { self.write.as_ref() };
        half.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.forget(&self.read);
        if let Some(write) = &self.write {
            self.forget(write);
        }
    }
}

impl MioStream {
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            MioStream::Socket(socket) => super::mio_system::register(socket, registry, token),
            MioStream::Other(other) => other.register(token),
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            MioStream::Socket(socket) => registry.deregister(&mut SourceFd(&socket.as_raw_fd())),
            MioStream::Other(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl SocketInfo for Other {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Other)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.read.fd().ok()
    }

    fn second(&self) -> io::Result<OwnedFd> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "it is no socket"))
    }
}

impl SocketInfo for MioStream {
    fn local_addr(&self) -> io::Result<Endpoint> {
        self.as_info().local_addr()
    }
}

impl Stream for MioStream {
    type Straight = Socket;

    #[inline(always)]
    fn straight(&mut self) -> Option<&mut Socket> {
        match self {
            MioStream::Socket(socket) => Some(socket),
            MioStream::Other(_) => None,
        }
    }

    fn is_socket(&self) -> bool {
        matches!(self, MioStream::Socket(_))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            MioStream::Socket(socket) => Stream::read(socket, buffer),
            MioStream::Other(other) => retry(|| other.read.read(buffer)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            MioStream::Socket(socket) => Stream::write(socket, bytes),
            MioStream::Other(other) => retry(|| other.writes()?.write(&[IoSlice::new(bytes)])),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            MioStream::Socket(socket) => Stream::write_vectored(socket, slices),
            MioStream::Other(other) => retry(|| other.writes()?.write(slices)),
        }
    }

    /// The reader of a pipe learns of its end when the last descriptor to write to it is closed.
    fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            MioStream::Socket(socket) => Stream::shutdown_write(socket),
            MioStream::Other(other) => {
                if let Some(write) = other.write.take() {
                    other.forget(&write);
                }
                Ok(())
            }
        }
    }

    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        match self {
            MioStream::Socket(socket) => Stream::take_error(socket),
            MioStream::Other(other) => {
                let deserted = other.writes().is_ok_and(Half::is_deserted);
                Ok(deserted.then(|| io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    fn check_connected(&mut self) -> io::Result<()> {
        match self {
            MioStream::Socket(socket) => Stream::check_connected(socket),
            MioStream::Other(_) => Ok(()),
        }
    }

    fn reset_on_close(&mut self) {
        if let MioStream::Socket(socket) = self {
            Stream::reset_on_close(socket);
        }
    }

    fn as_info(&self) -> &dyn SocketInfo {
        match self {
            MioStream::Socket(socket) => socket,
            MioStream::Other(other) => &**other,
        }
    }
}
