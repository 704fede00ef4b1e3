//! What a callback may ask about the socket of its connection.

use std::io;

use crate::endpoint::Endpoint;

/// Facts about a socket, on any driver.
pub(crate) trait SocketInfo {
    fn local_addr(&self) -> io::Result<Endpoint>;

    /// The socket itself, if it is the system's.
    #[cfg(test)]
    fn socket(&self) -> Option<&socket2::Socket> {
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
