//! A request as its handler sees it, borrowed from the bytes that were read.

use std::fmt;

use super::scan::FieldLines;

/// The version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: closes unless the client asks otherwise, and has no chunked coding.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    #[inline(always)]
    pub(super) fn new(is_http10: bool) -> Version {
        if is_http10 { Version::Http10 } else { Version::Http11 }
    }
}

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    None,
    /// This many bytes, at least one.
    Known(u64),
    /// Chunked: known only at its end.
    Unknown,
}

/// The head of a request. It lasts as long as the callback: copy what is needed later.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(super) method: &'a str,
    /// Any bytes but space, control bytes and `#`.
    pub(super) target: &'a [u8],
    pub(super) version: Version,
    /// The lines of its headers, all of them valid.
    pub(super) fields: &'a [u8],
    pub(super) length: Length,
    pub(super) keep: bool,
    pub(super) expects: bool,
    pub(super) upgrades: bool,
    pub(super) is_connect: bool,
}

impl<'a> Request<'a> {
    /// The method, as it was sent: `GET`, `POST` or any other token. Methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The whole target, as it was sent: `/path?query`, `http://host/path?query`, `*` for `OPTIONS`
    /// or `host:port` for `CONNECT`. Percent-encoded bytes stay as they are, and so do characters
    /// that should have been encoded: `/a|b`, `/ä`.
    ///
    /// If the bytes are not UTF-8, this returns `"\u{FFFD}"`, which is no valid target. So do
    /// [`path`](Request::path) and [`query`](Request::query), each for its own part.
    /// [`target_bytes`](Request::target_bytes) has the bytes that were sent.
    pub fn target(&self) -> &'a str {
        text(self.target)
    }

    /// The bytes of the whole target, as they were sent.
    pub fn target_bytes(&self) -> &'a [u8] {
        self.target
    }

    /// The path of the target, from its slash up to the query. It is `/` for `http://host` without
    /// a path, and the target itself for `*` and for `CONNECT`.
    #[inline]
    pub fn path(&self) -> &'a str {
        let path = self.without_authority();
        let end = path.iter().position(|byte| *byte == b'?');
        text(end.map_or(path, |end| &path[..end]))
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        let mark = self.target.iter().position(|byte| *byte == b'?')?;
        Some(text(&self.target[mark + 1..]))
    }

    fn without_authority(&self) -> &'a [u8] {
        let Some(rest) = self.behind_scheme() else { return self.target };
        match rest.iter().position(|byte| matches!(byte, b'/' | b'?')) {
            Some(at) if rest[at] == b'/' => &rest[at..],
            _ => b"/",
        }
    }

    /// What follows `http://`, if the target names its host.
    #[inline]
    fn behind_scheme(&self) -> Option<&'a [u8]> {
        if self.target.first() == Some(&b'/') {
            return None;
        }
        let at = self.target.windows(3).position(|three| three == b"://")?;
        Some(&self.target[at + 3..])
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The value of the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut fields = FieldLines(self.fields);
        fields
            .find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// All headers, in the order they were sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        FieldLines(self.fields).map(|(name, value)| (text(name), value))
    }

    /// The host and port that the request is for: of the target if that names them, else of `host`.
    pub fn host(&self) -> Option<&'a str> {
        if self.is_connect {
            return Some(self.target());
        }
        match self.behind_scheme() {
            Some(rest) => {
                let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
                Some(text(&rest[..end.unwrap_or(rest.len())]))
            }
            None => self.header("host").map(text),
        }
    }

    /// How long the body is.
    pub fn length(&self) -> Length {
        self.length
    }

    /// Whether the client waits for `100 Continue` before it sends the body. The library sends it
    /// when the handler has returned from [`request`](super::Handler::request) without an answer,
    /// unless there is no body or a part of it is there already. A client that is answered in
    /// `request` is not asked for its body, and the connection closes after the answer.
    pub fn expects_continue(&self) -> bool {
        self.expects
    }

    /// What the client wants to [upgrade](super::Response::upgrade) to, the value of its first
    /// `upgrade` header; None if it does not, or if that is not UTF-8.
    pub fn upgrade(&self) -> Option<&'a str> {
        // A request for a tunnel is no request for an upgrade.
        if !self.upgrades || self.is_connect {
            return None;
        }
        std::str::from_utf8(self.header("upgrade")?).ok()
    }

    /// Whether the client wants to keep the connection.
    pub fn keeps_alive(&self) -> bool {
        self.keep
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("target", &self.target())
            .field("version", &self.version)
            .field("headers", &self.headers().count())
            .field("length", &self.length)
            .finish()
    }
}

/// Bytes as text. Scanned bytes are ASCII, except in targets, which clients send as they like.
#[inline]
fn text(bytes: &[u8]) -> &str {
    match bytes {
        // The most common path needs no look at its bytes.
        b"/" => "/",
        // Not a path that a router knows, and not the empty string, which it may take for the root.
        _ => std::str::from_utf8(bytes).unwrap_or("\u{FFFD}"),
    }
}
