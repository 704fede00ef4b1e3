//! Version 1: a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

use super::header::{Header, HeaderError, Parsed};

/// What every line begins with.
pub(super) const BEGIN: &[u8] = b"PROXY ";
/// The longest line, as the specification says, with its end.
const LINE_MAX: usize = 107;

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let Some([source, destination]) = header.ips() else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let ports = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
}

/// `bytes` begins as a line does.
pub(super) fn parse(bytes: &[u8], max: usize) -> Result<Parsed, HeaderError> {
    let max = max.min(LINE_MAX);
    let within = &bytes[..bytes.len().min(max)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        // One more byte would be the line's end at best.
        return match bytes.len() < max {
            true => Ok(Parsed::More(bytes.len() + 1)),
            false => Err(HeaderError::TooLong(max)),
        };
    };
    let line = within[BEGIN.len()..end].strip_suffix(b"\r").ok_or(HeaderError::InvalidLine)?;
    let header = header(line).ok_or(HeaderError::InvalidLine)?;
    Ok(Parsed::Header { header, len: end + 1 })
}

/// The rest of a line, behind its beginning and without its end.
fn header(line: &[u8]) -> Option<Header> {
    // What follows UNKNOWN is to be ignored, whatever it is.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Header::unknown());
    }
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let parse: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return None,
    };
    let (source, destination) = (parse(words.next()?)?, parse(words.next()?)?);
    let source = SocketAddr::from((source, port(words.next()?)?));
    let destination = SocketAddr::from((destination, port(words.next()?)?));
    words.next().is_none().then(|| Header::proxied(source.into(), destination.into()))
}

/// A number in decimal digits, without a sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word == "0" || !word.starts_with(['0', '+']);
    plain.then(|| word.parse().ok()).flatten()
}
