//! What threads read and write: a socket, or descriptors that are none (feature `fd`).
//!
//! No shutdown wakes a thread out of a read of a pipe or a terminal. So a thread waits in `poll(2)`
//! for the descriptor and for a pipe of the stream's own, which is written to once and never read:
//! no wait lasts from then on.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use super::bell::lock;
use super::calls;
use crate::clock::nanos;
use crate::endpoint::Endpoint;
use crate::protocol::SocketInfo;
use crate::socket::{Half, Pair, retry};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) enum Stream {
    Socket(Socket),
    Other(Box<Other>),
}

/// Descriptors that are no socket.
pub(crate) struct Other {
    read: Arc<Half>,
    /// None once it is closed. A thread in a call keeps it until it is back. The lock is held for a
    /// moment only.
    write: Mutex<Option<Arc<Half>>>,
    /// `read` is written to as well.
    both: bool,
    /// What threads wait for beside the descriptor, and its other end.
    wake: (OwnedFd, OwnedFd),
    /// Nothing more is waited for.
    over: AtomicBool,
    /// A read has found the end.
    ended: AtomicBool,
    /// In nanoseconds; `u64::MAX` is none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

/// What a wait has come to.
enum Woken {
    Ready,
    Late,
    /// Nothing more is waited for.
    Over,
}

impl Other {
    pub(super) fn new(pair: Pair) -> Option<Other> {
        let Pair { read, write, wake } = pair;
        let (read, both) = (Arc::new(read), write.is_none());
        let write = write.map_or_else(|| Arc::clone(&read), Arc::new);
        Some(Other {
            read,
            write: Mutex::new(Some(write)),
            both,
            wake: wake?,
            over: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            read_timeout: AtomicU64::new(u64::MAX),
            write_timeout: AtomicU64::new(u64::MAX),
        })
    }

    /// Waits until `fd` is ready, at most for `timeout`, or until nothing is waited for any more. A
    /// signal may interrupt it.
    fn wait(&self, fd: BorrowedFd<'_>, what: PollFlags, timeout: u64) -> io::Result<Woken> {
        let mut polled = [
            PollFd::from_borrowed_fd(fd, what),
            PollFd::from_borrowed_fd(self.wake.0.as_fd(), PollFlags::IN),
        ];
        let limit = Timespec::try_from(Duration::from_nanos(timeout)).ok();
        let limit = limit.filter(|_| timeout < u64::MAX);
        rustix::event::poll(&mut polled, limit.as_ref())?;
        Ok(if !polled[0].revents().is_empty() {
            Woken::Ready
        } else if polled[1].revents().is_empty() {
            Woken::Late
        } else {
            Woken::Over
        })
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.read.fd()?;
        let count = match self.wait(fd, PollFlags::IN, self.read_timeout.load(Ordering::Relaxed))? {
            Woken::Ready => self.read.read(buffer)?,
            Woken::Late => return Err(ErrorKind::WouldBlock.into()),
            // As a socket whose read side is shut: nothing more comes.
            Woken::Over => 0,
        };
        if count == 0 {
            self.ended.store(true, Ordering::Relaxed);
        }
        Ok(count)
    }

    fn writes(&self) -> io::Result<Arc<Half>> {
        lock(&self.write).clone().ok_or_else(|| ErrorKind::BrokenPipe.into())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let half = self.writes()?;
        let timeout = self.write_timeout.load(Ordering::Relaxed);
        match self.wait(half.fd()?, PollFlags::OUT, timeout)? {
            Woken::Ready => half.write(&[IoSlice::new(bytes)]),
            Woken::Late => Err(ErrorKind::WouldBlock.into()),
            Woken::Over => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    /// Wakes every thread out of its wait.
    fn wake(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            // The pipe is empty, and takes a byte.
            let _ = rustix::io::write(&self.wake.1, &[0]);
        }
    }

    fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read && !self.both {
            *lock(&self.write) = None;
        }
        if how != Shutdown::Write {
            self.wake();
        }
    }
}

impl Stream {
    pub(super) fn is_socket(&self) -> bool {
        matches!(self, Stream::Socket(_))
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Socket(socket) => socket.shutdown(how),
            Stream::Other(other) => {
                other.shutdown(how);
                Ok(())
            }
        }
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Socket(socket) => socket.set_read_timeout(timeout),
            Stream::Other(other) => {
                other.read_timeout.store(timeout.map_or(u64::MAX, nanos), Ordering::Relaxed);
                Ok(())
            }
        }
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Socket(socket) => socket.set_write_timeout(timeout),
            Stream::Other(other) => {
                other.write_timeout.store(timeout.map_or(u64::MAX, nanos), Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// The error of a socket. That nobody reads any more is one where nothing comes any more
    /// either: before that, a write may never be tried.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Stream::Socket(socket) => socket.take_error(),
            Stream::Other(other) => {
                let deserted = other.ended.load(Ordering::Relaxed)
                    && other.writes().is_ok_and(|half| half.is_deserted());
                Ok(deserted.then(|| ErrorKind::BrokenPipe.into()))
            }
        }
    }

    pub(super) fn reset_on_close(&self) {
        if let Stream::Socket(socket) = self {
            crate::socket::reset_on_close(socket);
        }
    }

    /// Sends, and sleeps until there is room.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => calls::write(socket, bytes),
            Stream::Other(other) => other.write(bytes),
        }
    }

    /// Sends without sleeping.
    #[inline(always)]
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => calls::send(socket, bytes),
            Stream::Other(other) => other.writes()?.write(&[IoSlice::new(bytes)]),
        }
    }

    pub(super) fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => calls::send_vectored(socket, slices),
            Stream::Other(other) => other.writes()?.write(slices),
        }
    }

    pub(super) fn has_input(&self) -> io::Result<bool> {
        match self {
            Stream::Socket(socket) => calls::has_input(socket),
            Stream::Other(other) => {
                let fd = other.read.fd()?;
                let woken = retry(|| other.wait(fd, PollFlags::IN, 0))?;
                Ok(matches!(woken, Woken::Ready))
            }
        }
    }
}

impl Read for &Stream {
    #[inline(always)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => Read::read(&mut { socket }, buffer),
            Stream::Other(other) => other.read(buffer),
        }
    }
}

impl SocketInfo for Stream {
    fn local_addr(&self) -> io::Result<Endpoint> {
        match self {
            Stream::Socket(socket) => SocketInfo::local_addr(socket),
            Stream::Other(_) => Ok(Endpoint::Other),
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stream::Socket(socket) => SocketInfo::descriptor(socket),
            Stream::Other(other) => other.read.fd().ok(),
        }
    }

    fn second(&self) -> io::Result<OwnedFd> {
        match self {
            Stream::Socket(socket) => SocketInfo::second(socket),
            Stream::Other(_) => Err(io::Error::new(ErrorKind::Unsupported, "it is no socket")),
        }
    }

    #[cfg(feature = "peer-credentials")]
    fn peer_credentials(&self) -> Option<crate::credentials::PeerCredentials> {
        match self {
            Stream::Socket(socket) => SocketInfo::peer_credentials(socket),
            Stream::Other(_) => None,
        }
    }
}
