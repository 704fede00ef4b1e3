//! The first message of a TLS client (RFC 8446, 4.1.2), and what it asks for in clear.

use super::Seen;

/// Content type and message type of what a client says first.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Bytes before the fragment of a record.
const RECORD: usize = 5;
/// The longest fragment of a record in clear.
const FRAGMENT_MAX: usize = 1 << 14;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a TLS client says in clear: the ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    /// The host name that the client asks for (SNI), in small letters.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocols that the client offers (ALPN), in its order; empty without the extension.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.alpn
    }
}

/// Whether these bytes are the first message of a TLS client. It has to be whole, because the
/// server's name may stand at its end: mostly less than 2 KiB.
///
/// A message that breaks the format is `No`: no server would take it. What it means is not judged.
///
/// ```
/// use lariat::sniff::{Seen, tls};
/// assert_eq!(tls(b"GET / HTTP/1.1\r\n"), Seen::No);
/// assert_eq!(tls(&[22, 3, 1, 0, 200]), Seen::More(205));
/// ```
pub fn tls(bytes: &[u8]) -> Seen<ClientHello> {
    let mut message = Vec::new();
    let mut at = 0;
    loop {
        let record = &bytes[at..];
        let is_record = record.iter().zip([HANDSHAKE, 3]).all(|(byte, first)| *byte == first);
        if !is_record {
            return Seen::No;
        }
        let [_, _, _, high, low, fragment @ ..] = record else {
            // One byte more may show that it is none.
            let known = record.len() >= 2 || at > 0;
            return Seen::More(if known { at + RECORD } else { bytes.len() + 1 });
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len == 0 || len > FRAGMENT_MAX {
            return Seen::No;
        }
        message.extend_from_slice(&fragment[..fragment.len().min(len)]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Seen::No;
        }
        if fragment.len() < len {
            return Seen::More(at + RECORD + len);
        }
        at += RECORD + len;
        if let [_, high, mid, low, body @ ..] = &message[..] {
            let len = usize::from(*high) << 16 | usize::from(*mid) << 8 | usize::from(*low);
            if body.len() >= len {
                return hello(Reader(&body[..len])).map_or(Seen::No, Seen::Yes);
            }
        }
    }
}

/// Reads the body of the message; None where it breaks the format.
fn hello(mut body: Reader<'_>) -> Option<ClientHello> {
    // The version, and 32 random bytes.
    body.take(2 + 32)?;
    let session_id = body.short()?;
    let cipher_suites = body.long()?;
    let compressions = body.short()?;
    let fits = session_id.0.len() <= 32
        && cipher_suites.0.len() >= 2
        && cipher_suites.0.len() % 2 == 0
        && !compressions.0.is_empty();
    if !fits {
        return None;
    }
    let mut found = ClientHello::default();
    if body.0.is_empty() {
        return Some(found);
    }
    let mut extensions = body.long()?;
    let (mut named, mut offered) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.long()?;
        match kind {
            SERVER_NAME if std::mem::replace(&mut named, true) => return None,
            SERVER_NAME => found.server_name = server_name(content)?,
            ALPN if std::mem::replace(&mut offered, true) => return None,
            ALPN => found.alpn = alpn(content)?,
            _ => {}
        }
    }
    body.0.is_empty().then_some(found)
}

/// The first host name of the list; other kinds of names are skipped.
fn server_name(mut content: Reader<'_>) -> Option<Option<String>> {
    let mut names = content.long()?;
    let mut found = None;
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.long()?.0;
        if kind == 0 && found.is_none() {
            let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
            if name.is_empty() || !name.iter().all(is_host) {
                return None;
            }
            found = Some(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    content.0.is_empty().then_some(found)
}

fn alpn(mut content: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut names = content.long()?;
    let mut found = Vec::new();
    while !names.0.is_empty() {
        let name = names.short()?.0;
        if name.is_empty() {
            return None;
        }
        found.push(name.to_vec());
    }
    content.0.is_empty().then_some(found)
}

/// Bytes that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A length of one byte, and as many bytes.
    fn short(&mut self) -> Option<Reader<'a>> {
        let len = self.take(1)?[0];
        self.take(usize::from(len)).map(Reader)
    }

    /// A length of two bytes, and as many bytes.
    fn long(&mut self) -> Option<Reader<'a>> {
        let len = self.number()?;
        self.take(usize::from(len)).map(Reader)
    }
}
