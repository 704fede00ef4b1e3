//! What a callback may ask about the socket of its connection.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

#[cfg(feature = "peer-credentials")]
use crate::credentials::PeerCredentials;
use crate::endpoint::Endpoint;

/// Facts about a socket, on any driver.
pub(crate) trait SocketInfo {
    fn local_addr(&self) -> io::Result<Endpoint>;

    /// The descriptor, if the system has one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// A second descriptor of the socket, for a program to which it goes.
    fn second(&self) -> io::Result<OwnedFd> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this driver has no sockets of the system"))
    }

    /// The credentials of the peer of a Unix stream. Others are not asked.
    #[cfg(feature = "peer-credentials")]
    fn peer_credentials(&self) -> Option<PeerCredentials> {
        None
    }
}

/// Stands for a socket that has been closed.
pub(crate) struct NoSocket;

impl SocketInfo for NoSocket {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Err(io::ErrorKind::NotConnected.into())
    }
}
