//! Version 2: binary.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

use super::checksum::Crc32c;
use super::header::{Header, HeaderError, Parsed};
use crate::endpoint::{Endpoint, UnixName};

/// What every header begins with.
pub(super) const BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, two bytes of what it is, and two of the length of the rest.
const FIXED: usize = 16;
/// Bytes of a Unix address.
const UNIX: usize = 108;
/// The type of the field that holds the checksum.
const CRC32C: u8 = 3;

const LOCAL: u8 = 0;
const PROXY: u8 = 1;

/// The families of addresses, in the upper half of a byte. The lower half is the transport, which
/// means nothing here.
const UNSPEC: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX_FAMILY: u8 = 3;

pub(super) fn encode(header: &Header, checked: bool) -> Vec<u8> {
    let command = if header.is_local() { LOCAL } else { PROXY };
    let (family, addresses) = addresses(header).unwrap_or((UNSPEC << 4, Vec::new()));
    let field = if checked { 7 } else { 0 };
    let len = (addresses.len() + field) as u16;
    let mut bytes = [BEGIN, &[0x20 | command, family], &len.to_be_bytes(), &addresses].concat();
    if checked {
        // The sum is that of the whole header with zeros in its place.
        bytes.extend([CRC32C, 0, 4, 0, 0, 0, 0]);
        let sum = Crc32c::default().add(&bytes).sum();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn addresses(header: &Header) -> Option<(u8, Vec<u8>)> {
    if let Some([source, destination]) = header.ips() {
        let octets = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let family = if source.is_ipv4() { INET } else { INET6 };
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        return Some((family << 4 | 1, [octets(source), octets(destination), ports].concat()));
    }
    let mut bytes = Vec::with_capacity(2 * UNIX);
    for name in [header.source()?.unix()?, header.destination()?.unix()?] {
        let from = bytes.len();
        if let Some(path) = name.as_pathname() {
            bytes.extend(path.as_os_str().as_encoded_bytes());
        } else if let Some(name) = name.as_abstract_name() {
            bytes.push(0);
            bytes.extend(name);
        }
        bytes.resize(from + UNIX, 0);
    }
    Some((UNIX_FAMILY << 4 | 1, bytes))
}

/// `bytes` begins as a header of version 2 does.
pub(super) fn parse(bytes: &[u8], max: usize) -> Result<Parsed, HeaderError> {
    let what = &bytes[BEGIN.len()..];
    let command = match what.first() {
        None => return Ok(Parsed::More(FIXED)),
        Some(byte) if byte >> 4 != 2 => return Err(HeaderError::InvalidVersion(byte >> 4)),
        Some(byte) if byte & 0xF > PROXY => return Err(HeaderError::InvalidCommand(byte & 0xF)),
        Some(byte) => byte & 0xF,
    };
    let [_, family, high, low, ..] = *what else { return Ok(Parsed::More(FIXED)) };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > max {
        return Err(HeaderError::TooLong(max));
    }
    if command == LOCAL {
        // Whatever else it says is to be ignored.
        return Ok(match bytes.len() < len {
            true => Parsed::More(len),
            false => Parsed::Header { header: Header::local(), len },
        });
    }
    let addresses = match family {
        0x00 => 0,
        0x11 | 0x12 => 2 * (4 + 2),
        0x21 | 0x22 => 2 * (16 + 2),
        0x31 | 0x32 => 2 * UNIX,
        other => return Err(HeaderError::InvalidFamily(other)),
    };
    if len < FIXED + addresses {
        return Err(HeaderError::InvalidLength);
    }
    if bytes.len() < len {
        return Ok(Parsed::More(len));
    }
    let whole = &bytes[..len];
    let (block, _) = whole[FIXED..].split_at(addresses);
    let header = match family >> 4 {
        // How long an address of no family would be is not known, so there may be no field.
        UNSPEC => return Ok(Parsed::Header { header: Header::unknown(), len }),
        INET => {
            let octets = |at| [block[at], block[at + 1], block[at + 2], block[at + 3]];
            let source = (Ipv4Addr::from(octets(0)), port(block, 8));
            Header::proxied(source.into(), (Ipv4Addr::from(octets(4)), port(block, 10)).into())
        }
        INET6 => {
            let octets = |at| std::array::from_fn::<u8, 16, _>(|place| block[at + place]);
            let source = (Ipv6Addr::from(octets(0)), port(block, 32));
            Header::proxied(source.into(), (Ipv6Addr::from(octets(16)), port(block, 34)).into())
        }
        _ => Header::proxied(unix(&block[..UNIX])?, unix(&block[UNIX..])?),
    };
    check_fields(whole, FIXED + addresses)?;
    Ok(Parsed::Header { header, len })
}

fn port(block: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([block[at], block[at + 1]])
}

/// A path, up to a zero byte; an abstract name behind one, up to the zeros at its end; or none.
fn unix(bytes: &[u8]) -> Result<Endpoint, HeaderError> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let name = match &bytes[..used] {
        [] => Ok(UnixName::unnamed()),
        [0, name @ ..] => UnixName::from_abstract_name(name),
        path => UnixName::from_pathname(OsStr::from_bytes(path)),
    };
    name.map(Endpoint::from).map_err(|_| HeaderError::InvalidAddress)
}

/// Goes through the fields from `at` to the end of the header. Only the checksum means something
/// here.
fn check_fields(whole: &[u8], mut at: usize) -> Result<(), HeaderError> {
    while at < whole.len() {
        let [kind, high, low, ..] = whole[at..] else { return Err(HeaderError::InvalidLength) };
        let from = at + 3;
        let to = from + usize::from(u16::from_be_bytes([high, low]));
        let value = whole.get(from..to).ok_or(HeaderError::InvalidLength)?;
        if kind == CRC32C {
            let sum = value.try_into().map_err(|_| HeaderError::InvalidLength)?;
            let (before, after) = (&whole[..from], &whole[to..]);
            let found = Crc32c::default().add(before).add(&[0; 4]).add(after).sum();
            if found != u32::from_be_bytes(sum) {
                return Err(HeaderError::WrongChecksum);
            }
        }
        at = to;
    }
    Ok(())
}
