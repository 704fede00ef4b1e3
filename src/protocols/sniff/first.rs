//! Protocols that a few first bytes tell.

use super::Seen;
use crate::protocols::proxy_protocol::{Beginning, begins};

/// A word of so many bytes is no method of HTTP; VERSION-CONTROL has 15.
const METHOD_MAX: usize = 20;
/// HTTP/2 without TLS begins so (RFC 9113, 3.4), and is not HTTP/1.
const HTTP_2: &[u8] = b"PRI * HTTP/2";
/// A header of a balancer begins so, and could be a method.
const PROXY: &[u8] = b"PROXY ";

/// Whether these bytes are the beginning of a request of HTTP/1: a method in capitals, a space, and
/// the first byte of a target. The rest is for the server to judge.
///
/// ```
/// use lariat::sniff::{Seen, http};
/// assert_eq!(http(b"GET /"), Seen::Yes(()));
/// assert_eq!(http(b"PO"), Seen::More(3));
/// assert_eq!(http(b"EHLO mail.example\r\n"), Seen::Yes(()));
/// assert_eq!(http(b"helo mail.example\r\n"), Seen::No);
/// ```
///
/// As the third line shows, it takes other protocols of capital words for HTTP; a closure asks for
/// those first.
pub fn http(bytes: &[u8]) -> Seen<()> {
    if HTTP_2.starts_with(bytes) && bytes.len() > b"PRI ".len() && bytes.len() < HTTP_2.len() {
        return Seen::More(bytes.len() + 1);
    }
    if bytes.starts_with(HTTP_2) || bytes.starts_with(PROXY) {
        return Seen::No;
    }
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let method = bytes.iter().take_while(|byte| is_method(byte)).count();
    match (method, &bytes[method..]) {
        (METHOD_MAX.., _) => Seen::No,
        (_, []) => Seen::More(bytes.len() + 1),
        (0, _) => Seen::No,
        (_, [b' ']) => Seen::More(bytes.len() + 1),
        (_, [b' ', target, ..]) if target.is_ascii_graphic() => Seen::Yes(()),
        _ => Seen::No,
    }
}

/// Whether these bytes are the beginning of a [PROXY header](crate::proxy_protocol), of version 1
/// or 2. [`AcceptProxy::factory`](crate::proxy_protocol::AcceptProxy::factory) makes a protocol
/// that takes over.
///
/// ```
/// use lariat::sniff::{Seen, proxy};
/// assert_eq!(proxy(b"PROXY TCP4 "), Seen::Yes(()));
/// assert_eq!(proxy(b"POST / HTTP/1.1"), Seen::No);
/// ```
pub fn proxy(bytes: &[u8]) -> Seen<()> {
    match begins(bytes) {
        Beginning::V1 | Beginning::V2 => Seen::Yes(()),
        Beginning::Short => Seen::More(bytes.len() + 1),
        Beginning::Other => Seen::No,
    }
}

/// Whether these bytes are the identification of an SSH client (RFC 4253, 4.2). Some clients wait
/// for that of the server first: see [`Sniff::when_silent`](super::Sniff::when_silent).
///
/// ```
/// use lariat::sniff::{Seen, ssh};
/// assert_eq!(ssh(b"SSH-2.0-OpenSSH_9.2\r\n"), Seen::Yes(()));
/// assert_eq!(ssh(b"SS"), Seen::More(3));
/// ```
pub fn ssh(bytes: &[u8]) -> Seen<()> {
    const BEGIN: &[u8] = b"SSH-";
    if bytes.starts_with(BEGIN) {
        Seen::Yes(())
    } else if BEGIN.starts_with(bytes) {
        Seen::More(bytes.len() + 1)
    } else {
        Seen::No
    }
}
