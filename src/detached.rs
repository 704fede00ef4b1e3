//! A socket that has left its driver.

use std::os::fd::OwnedFd;

/// A socket that [`Context::detach`](crate::Context::detach) has taken out of its driver, with the
/// bytes on both sides of it. It belongs to the program alone: the driver has forgotten it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Detached {
    /// The socket. It sleeps in reads and writes, without a time-out, as those of std do.
    pub socket: OwnedFd,
    /// What was received and not consumed: it comes before the next read of the socket.
    pub unread: Vec<u8>,
    /// What was written and not sent: it has to go before the next write to the socket.
    pub unsent: Vec<u8>,
}

impl Detached {
    pub(crate) fn new(socket: OwnedFd, unread: Vec<u8>, unsent: Vec<u8>) -> Detached {
        Detached { socket, unread, unsent }
    }
}
