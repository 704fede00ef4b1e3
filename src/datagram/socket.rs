//! What a driver's sockets of datagrams can do, and what their errors mean.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::Interface;
use crate::endpoint::Endpoint;

/// A socket of datagrams of a driver. EINTR never gets out.
pub(crate) trait DatagramSocket {
    fn local_addr(&self) -> io::Result<Endpoint>;
    /// Sends one datagram, to the connected peer without an address.
    fn send(&self, bytes: &[u8], to: Option<SocketAddr>) -> io::Result<()>;
    /// Receives one datagram, as much of it as fits, with its sender.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Endpoint)>;
    /// Joins or leaves a multicast group.
    fn set_member(&self, group: IpAddr, interface: Interface, member: bool) -> io::Result<()>;
}

/// Stands for a socket that has been closed.
pub(crate) struct NoSocket;

impl DatagramSocket for NoSocket {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn send(&self, _: &[u8], _: Option<SocketAddr>) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn receive(&self, _: &mut [u8]) -> io::Result<(usize, Endpoint)> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn set_member(&self, _: IpAddr, _: Interface, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// Whether an error is about an earlier datagram, which did not arrive as the network has reported.
/// The next call returns it, whichever call that is, and only once.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    ) || matches!(error.raw_os_error(), Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN))
}
