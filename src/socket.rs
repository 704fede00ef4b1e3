//! Sockets of the operating system: options, calls that std lacks, and the meaning of errors.

#[cfg(feature = "peer-credentials")]
mod credentials;
mod datagrams;
#[cfg(feature = "fd")]
mod descriptors;
mod device;
#[cfg(feature = "udp-offload")]
mod offload;
mod opening;
#[cfg(test)]
pub(crate) mod read_back;
mod unix;
mod unix_datagrams;
mod waiting;

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::{SockRef, Socket};

use crate::endpoint::Endpoint;
use crate::protocol::SocketInfo;

pub(crate) use datagrams::Datagrams;
#[cfg(feature = "fd")]
pub(crate) use descriptors::{Half, Pair};
#[cfg(not(all(test, lariat_model)))]
pub(crate) use opening::connect;
pub(crate) use opening::{Listener, Listens, SystemSockets, check_connected, give, start_connect};
pub(crate) use unix::SocketFile;

/// A stream of whatever family: reads, writes and the rest are the same calls for all.
impl SocketInfo for Socket {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Socket::local_addr(self).map(|addr| Endpoint::from(&addr))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn second(&self) -> io::Result<OwnedFd> {
        self.try_clone().map(OwnedFd::from)
    }

    #[cfg(feature = "peer-credentials")]
    fn peer_credentials(&self) -> Option<crate::credentials::PeerCredentials> {
        credentials::of_peer(self)
    }
}

/// Sends several slices with one call. `write_vectored` of std is `writev`, which raises SIGPIPE.
pub(crate) fn send_vectored(socket: &impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(socket).send_vectored_with_flags(slices, NO_SIGNAL)
}

#[cfg(not(target_vendor = "apple"))]
pub(crate) const NO_SIGNAL: i32 = libc::MSG_NOSIGNAL;
/// Apple's systems have a socket option instead, which std sets on every socket.
#[cfg(target_vendor = "apple")]
pub(crate) const NO_SIGNAL: i32 = 0;

/// Makes the close of `socket` a reset. Where that fails it is an ordinary close.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        log::debug!(target: "lariat::socket", "cannot make a close a reset: {error}");
    }
}

/// Makes a socket that leaves a driver sleep as one of std does.
pub(crate) fn prepare_detached(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    let set = socket
        .set_nonblocking(false)
        .and_then(|()| socket.set_read_timeout(None))
        .and_then(|()| socket.set_write_timeout(None));
    if let Err(error) = set {
        log::debug!(target: "lariat::socket", "cannot prepare a detached socket: {error}");
    }
}

/// Repeats a call that a signal interrupted.
#[inline(always)]
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A descriptor kept so that one connection can be accepted when no descriptor is left.
#[derive(Debug)]
pub(crate) struct Reserve(Option<File>);

impl Reserve {
    pub(crate) fn new() -> Reserve {
        Reserve(open_reserve())
    }

    /// Frees the descriptor for the next call that needs one.
    pub(crate) fn free(&mut self) {
        self.0 = None;
    }

    /// Opens the descriptor again; false when none is left.
    pub(crate) fn restore(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = open_reserve();
        }
        self.0.is_some()
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_hides_interruptions_and_nothing_else() {
        let mut left = 3;
        let result = retry(|| {
            left -= 1;
            if left > 0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(7) }
        });
        assert_eq!(result.unwrap(), 7);
        let blocked: io::Result<()> = retry(|| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
