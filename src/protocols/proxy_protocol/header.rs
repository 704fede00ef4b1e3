//! A header: what it says, how it is found, and what is wrong with one.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{binary, text};
use crate::endpoint::Endpoint;
use crate::protocol::Incoming;

/// What the balancer says of a connection.
///
/// ```
/// use lariat::proxy_protocol::{Header, Parsed, Version};
///
/// let client = ([203, 0, 113, 9], 40312).into();
/// let header = Header::proxied(client, ([192, 0, 2, 1], 443).into());
/// let line = header.encode(Version::V1);
/// assert_eq!(line, b"PROXY TCP4 203.0.113.9 192.0.2.1 40312 443\r\n");
/// assert_eq!(Header::parse(&line, 4096), Ok(Parsed::Header { header, len: line.len() }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    local: bool,
    addresses: Option<[Endpoint; 2]>,
}

impl Header {
    /// A header for a connection that is passed on: from the client at `source`, which had
    /// connected to `destination`.
    pub fn proxied(source: Endpoint, destination: Endpoint) -> Header {
        Header { local: false, addresses: Some([source, destination]) }
    }

    /// A header that passes an accepted client on, with its address and the local one that it
    /// connected to. Behind another balancer both are those that the balancer has announced.
    /// Without a local address the header is [`unknown`](Header::unknown).
    pub fn of(incoming: &Incoming) -> Header {
        match incoming.local_addr() {
            Some(local) => Header::proxied(incoming.peer(), local),
            None => Header::unknown(),
        }
    }

    /// A header for a connection that is passed on, without addresses: UNKNOWN of version 1, UNSPEC
    /// of version 2.
    pub fn unknown() -> Header {
        Header { local: false, addresses: None }
    }

    /// A header for a connection of the balancer's own, such as a check of health: LOCAL of version
    /// 2. Version 1 has UNKNOWN only.
    pub fn local() -> Header {
        Header { local: true, addresses: None }
    }

    /// Whether the balancer itself is the client.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The client's address; None where the header does not tell it.
    pub fn source(&self) -> Option<Endpoint> {
        self.addresses.map(|[source, _]| source)
    }

    /// The address that the client connected to; None where the header does not tell it.
    pub fn destination(&self) -> Option<Endpoint> {
        self.addresses.map(|[_, destination]| destination)
    }

    /// The bytes of the header. Addresses that the version has no form for are left out: Unix
    /// sockets in version 1, [`Endpoint::Other`] in both, and one of an IP address beside one of
    /// another kind. IPv4 beside IPv6 becomes an IPv4-mapped address.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => text::encode(self),
            Version::V2 => binary::encode(self, false),
            Version::V2Checked => binary::encode(self, true),
        }
    }

    /// Looks for a header of at most `max` bytes at the beginning of `bytes`. What follows it is
    /// not looked at. Fields of version 2 behind the addresses are skipped, but for a checksum,
    /// which is verified. What a header without addresses has behind its length is not looked at.
    ///
    /// # Errors
    ///
    /// `bytes` is not the beginning of a valid header. Version and command of version 2 are judged
    /// when they are there, family and length with the first 16 bytes, addresses and fields when
    /// the header is whole. A line of version 1 is judged when it is whole, or longer than it may
    /// be.
    pub fn parse(bytes: &[u8], max: usize) -> Result<Parsed, HeaderError> {
        match begins(bytes) {
            Beginning::V1 => text::parse(bytes, max),
            Beginning::V2 => binary::parse(bytes, max),
            Beginning::Short => Ok(Parsed::More(bytes.len() + 1)),
            Beginning::Other => Err(HeaderError::Missing),
        }
    }

    /// Both addresses, if both are IP addresses, in one family.
    pub(super) fn ips(&self) -> Option<[SocketAddr; 2]> {
        let [source, destination] = self.addresses?;
        let both = [source.socket_addr()?, destination.socket_addr()?];
        if both[0].is_ipv4() == both[1].is_ipv4() {
            return Some(both);
        }
        Some(both.map(|addr| match addr.ip() {
            IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), addr.port())),
            IpAddr::V6(_) => addr,
        }))
    }
}

/// What [`Header::parse`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// It is made once per connection, and never kept.
#[allow(clippy::large_enum_variant)]
pub enum Parsed {
    /// A whole header.
    Header {
        /// What it says.
        header: Header,
        /// How long it is.
        len: usize,
    },
    /// The beginning of one: at least this many bytes are needed, with those that are there.
    More(usize),
}

/// A version of the protocol, to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// Version 1: a line of text (`send-proxy` of haproxy).
    V1,
    /// Version 2: binary (`send-proxy-v2`).
    V2,
    /// Version 2 with a checksum, CRC32c (`proxy-v2-options crc32c`).
    V2Checked,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    V1,
    V2,
    /// Too few to tell.
    Short,
    Other,
}

/// Looks at the first bytes of a connection: those by which a receiver knows a header.
pub(crate) fn begins(bytes: &[u8]) -> Beginning {
    for (beginning, signature) in [(Beginning::V1, text::BEGIN), (Beginning::V2, binary::BEGIN)] {
        if bytes.starts_with(signature) {
            return beginning;
        }
        if signature.starts_with(bytes) {
            return Beginning::Short;
        }
    }
    Beginning::Other
}

/// What is wrong with a header, or with a peer that sends none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The connection begins with something else.
    Missing,
    /// The header is longer than the maximum, which is this many bytes.
    TooLong(usize),
    /// The line of version 1 is not one of those that there are.
    InvalidLine,
    /// The version is not 2, behind the signature of that version.
    InvalidVersion(u8),
    /// There is no such command.
    InvalidCommand(u8),
    /// There is no such family of addresses, or no such transport.
    InvalidFamily(u8),
    /// An address is not valid in its family.
    InvalidAddress,
    /// The length is less than that of the addresses, or a field does not end where it says.
    InvalidLength,
    /// The checksum is that of other bytes.
    WrongChecksum,
    /// The peer has finished before the header was whole.
    Incomplete,
    /// The header was not whole in time.
    TimedOut,
    /// The factory of the protocol behind the header refused the client.
    Refused,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the PROXY header ")?;
        match self {
            HeaderError::Missing => f.write_str("is missing"),
            HeaderError::TooLong(max) => write!(f, "is longer than {max} bytes"),
            HeaderError::InvalidLine => f.write_str("is not a valid line"),
            HeaderError::InvalidVersion(found) => write!(f, "has version {found}"),
            HeaderError::InvalidCommand(found) => write!(f, "has command {found}"),
            HeaderError::InvalidFamily(found) => write!(f, "has family {found:#04x}"),
            HeaderError::InvalidAddress => f.write_str("has an invalid address"),
            HeaderError::InvalidLength => f.write_str("has an invalid length in it"),
            HeaderError::WrongChecksum => f.write_str("has a wrong checksum"),
            HeaderError::Incomplete => f.write_str("ended before it was whole"),
            HeaderError::TimedOut => f.write_str("did not come in time"),
            HeaderError::Refused => f.write_str("names a client that is refused"),
        }
    }
}

impl Error for HeaderError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ListenerId;
    use crate::protocol::NoSocket;

    #[test]
    fn a_client_without_a_local_address_is_passed_on_without_addresses() {
        let [peer, any] = ["192.0.2.1:1", "0.0.0.0:2"].map(|text| {
            let addr: SocketAddr = text.parse().unwrap();
            Endpoint::from(addr)
        });
        let incoming = Incoming::new(peer, ListenerId::new(0), any, &NoSocket);
        assert_eq!(Header::of(&incoming), Header::unknown());
        let destination: SocketAddr = "192.0.2.9:443".parse().unwrap();
        let announced = incoming.announced(peer, destination.into());
        assert_eq!(Header::of(&announced), Header::proxied(peer, destination.into()));
    }
}
