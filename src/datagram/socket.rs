//! What a driver's sockets of datagrams can do, and what their errors mean.

use std::io;
use std::net::IpAddr;

use super::{Ecn, Interface};
use crate::endpoint::Endpoint;

/// A datagram that a socket has received.
pub(crate) struct Received {
    /// Its length, as much of it as fits.
    pub(crate) len: usize,
    pub(crate) from: Endpoint,
    /// The local address that it was sent to, where that is known.
    pub(crate) to: Option<Endpoint>,
    pub(crate) ecn: Option<Ecn>,
    /// Calls of the system that were made for it: one may bring many.
    pub(crate) calls: u64,
}

/// A socket of datagrams of a driver. EINTR never gets out.
pub(crate) trait DatagramSocket {
    fn local_addr(&self) -> io::Result<Endpoint>;
    /// Sends one datagram, to the connected peer without an address.
    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()>;
    /// Receives one datagram.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received>;
    /// Joins or leaves a multicast group.
    fn set_member(&self, group: IpAddr, interface: Interface, member: bool) -> io::Result<()>;
    /// How many equal datagrams may leave with one call, beside the first.
    fn segments_max(&self) -> usize {
        1
    }
    /// Sends several datagrams of this size, of which the last may be shorter.
    fn send_many(&self, _bytes: &[u8], _size: usize, _to: Option<&Endpoint>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Whether the next call that receives brings what has been received already.
    fn has_more(&self) -> bool {
        false
    }
    /// Whether it is a Unix socket. Its datagrams go straight into the queue of their receiver. So
    /// the call that sends one is told that the receiver is gone, which is a refusal, or has no
    /// room, of which no event tells the end.
    fn is_unix(&self) -> bool {
        false
    }
}

/// Whether a socket of this family can send to `to` at all: else a sentence.
pub(crate) fn check_family(is_unix: bool, to: &Endpoint) -> io::Result<()> {
    let sentence = match to {
        Endpoint::Unix(name) if is_unix && !name.is_unnamed() => return Ok(()),
        Endpoint::Ip(_) if !is_unix => return Ok(()),
        Endpoint::Unix(_) if is_unix => "a socket without a name cannot be sent to",
        _ if is_unix => "it is no Unix socket",
        _ => "it is no IP address",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}

/// Stands for a socket that has been closed.
pub(crate) struct NoSocket;

impl DatagramSocket for NoSocket {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn send(&self, _: &[u8], _: Option<&Endpoint>) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn receive(&self, _: &mut [u8]) -> io::Result<Received> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn set_member(&self, _: IpAddr, _: Interface, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// Whether the system has no room for a datagram now. Where it says so as ENOBUFS, no event tells
/// when it has.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || is_out_of_buffers(error)
}

pub(super) fn is_out_of_buffers(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Whether an error is, or may be, a report of the network (ICMP): an earlier datagram did not
/// arrive. The next call returns it, whichever call that is, and only once (udp(7)).
///
/// These are the errors into which Linux turns ICMP and ICMPv6: a port, a protocol, a host or a
/// network that is not there, one that is cut off (ENONET), a router that forbids it (EHOSTUNREACH,
/// but EACCES for ICMPv6), a datagram that is too long for its path (EMSGSIZE), a source route that
/// failed (EOPNOTSUPP), a header that was not understood (EPROTO). ECONNRESET is other systems'.
///
/// A call that receives looks at nothing else, so it can return them for no other reason. A call
/// that sends may find them by itself: no route, a `prohibit` route, a broadcast without
/// permission, a datagram that is too long for the interface (ip(7)). What it finds itself it finds
/// again when it is repeated, and a report it does not.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    use libc::{EACCES, EHOSTDOWN, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP, EPROTO};
    let known = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    );
    known
        || error.raw_os_error().is_some_and(|errno| {
            [EACCES, EHOSTDOWN, EMSGSIZE, ENOPROTOOPT, EOPNOTSUPP, EPROTO].contains(&errno)
                || is_nonet(errno)
        })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_nonet(errno: i32) -> bool {
    errno == libc::ENONET
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_nonet(_: i32) -> bool {
    false
}

/// Whether a call that has sent nothing cannot have found it by itself: it is a report, however
/// often it comes.
pub(super) fn is_surely_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::UnixName;

    #[test]
    fn what_an_error_of_a_call_means_is_known_by_its_number() {
        use libc::*;
        let others = [EBADF, EINVAL, EIO, ENETDOWN, ENOMEM, EPERM, EPIPE, ETIMEDOUT];
        let refusals = crate::datagram::tests::REPORTS;
        for errno in refusals.iter().copied().chain(others).chain([EAGAIN, ENOBUFS]) {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_refusal(&error), refusals.contains(&errno), "{error}");
            assert_eq!(is_surely_refusal(&error), errno == ECONNREFUSED, "{error}");
            assert_eq!(is_no_room(&error), [EAGAIN, ENOBUFS].contains(&errno), "{error}");
            assert_eq!(is_out_of_buffers(&error), errno == ENOBUFS, "{error}");
        }
    }

    #[test]
    fn a_socket_sends_to_its_own_family_and_to_those_who_have_a_name() {
        let ip = Endpoint::from(([10, 0, 0, 1], 1));
        let named = Endpoint::from(UnixName::from_pathname("/name").unwrap());
        let unnamed = Endpoint::from(UnixName::unnamed());
        let said =
            |is_unix, to: &Endpoint| check_family(is_unix, to).err().map(|error| error.to_string());
        for (is_unix, to, sentence) in [
            (true, named, None),
            (true, unnamed, Some("a socket without a name cannot be sent to")),
            (true, ip, Some("it is no Unix socket")),
            (true, Endpoint::Other, Some("it is no Unix socket")),
            (false, ip, None),
            (false, named, Some("it is no IP address")),
            (false, unnamed, Some("it is no IP address")),
            (false, Endpoint::Other, Some("it is no IP address")),
        ] {
            assert_eq!(said(is_unix, &to).as_deref(), sentence, "{is_unix} {to}");
        }
    }
}
