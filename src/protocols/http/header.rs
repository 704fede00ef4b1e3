//! Headers to send. A header that would break the head apart cannot be made.

use std::fmt;

/// A header to send. Every value of this type is safe to write: the name is a token, the value has
/// no control byte but the tab, and the header is none of those that frame messages.
///
/// Only the library writes `host`, `content-length`, `transfer-encoding`, `connection`,
/// `keep-alive`, `te`, `trailer`, `upgrade` and `date`.
///
/// ```
/// use lariat::http::Header;
///
/// const HTML: Header<'static> = Header::literal("content-type", "text/html; charset=utf-8");
/// assert_eq!(HTML.name(), "content-type");
///
/// let given = "/next\r\nset-cookie: stolen=1";
/// assert!(Header::new("location", given).is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    name: &'a str,
    value: &'a [u8],
    /// The whole line, for headers that nearly every answer has: writing one part is cheaper than
    /// writing four.
    line: Option<&'a [u8]>,
}

/// A header that is written often.
macro_rules! usual {
    ($name:literal, $value:literal) => {
        Header {
            line: Some(concat!($name, ": ", $value, "\r\n").as_bytes()),
            ..Header::literal($name, $value)
        }
    };
}

/// Written by the library only.
const RESERVED: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "date",
];

impl<'a> Header<'a> {
    /// `content-type: text/plain; charset=utf-8`.
    pub const TEXT: Header<'static> = usual!("content-type", "text/plain; charset=utf-8");
    /// `content-type: text/html; charset=utf-8`.
    pub const HTML: Header<'static> = usual!("content-type", "text/html; charset=utf-8");
    /// `content-type: application/json`.
    pub const JSON: Header<'static> = usual!("content-type", "application/json");
    /// `content-type: application/octet-stream`.
    pub const BYTES: Header<'static> = usual!("content-type", "application/octet-stream");

    /// A header that is known at compile time: as a `const`, an invalid one does not compile.
    ///
    /// # Panics
    ///
    /// Where [`Header::new`] returns an error.
    pub const fn literal(name: &'a str, value: &'a str) -> Header<'a> {
        match fault(name.as_bytes(), value.as_bytes()) {
            None => Header { name, value: value.as_bytes(), line: None },
            Some(_) => panic!("a header that cannot be sent"),
        }
    }

    /// A header from values known at run time.
    ///
    /// # Errors
    ///
    /// The name is not a token, or only the library writes it; the value has a control byte, such
    /// as CR, LF or NUL.
    pub fn new<V>(name: &'a str, value: &'a V) -> Result<Header<'a>, InvalidHeader>
    where
        V: AsRef<[u8]> + ?Sized,
    {
        let value = value.as_ref();
        match fault(name.as_bytes(), value) {
            None => Ok(Header { name, value, line: None }),
            Some(why) => Err(InvalidHeader { why }),
        }
    }

    /// The name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Appends the whole line.
    #[inline]
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if let Some(line) = self.line {
            return out.extend_from_slice(line);
        }
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.value);
        out.extend_from_slice(b"\r\n");
    }
}

impl PartialEq for Header<'_> {
    fn eq(&self, other: &Header<'_>) -> bool {
        (self.name, self.value) == (other.name, other.value)
    }
}

impl Eq for Header<'_> {}

/// Why a [`Header`] could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeader {
    why: &'static str,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for InvalidHeader {}

/// The fault, if there is one. Loops by hand: it also runs at compile time.
const fn fault(name: &[u8], value: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a header has no name");
    }
    let mut at = 0;
    while at < name.len() {
        if !is_token(name[at]) {
            return Some("the name of a header is not a token");
        }
        at += 1;
    }
    at = 0;
    while at < RESERVED.len() {
        if is_same(name, RESERVED[at].as_bytes()) {
            return Some("this header is written by the library alone");
        }
        at += 1;
    }
    at = 0;
    while at < value.len() {
        let byte = value[at];
        if (byte < b' ' && byte != b'\t') || byte == 0x7F {
            return Some("the value of a header has a control byte");
        }
        at += 1;
    }
    None
}

/// Whether a name is this one, in any case.
const fn is_same(name: &[u8], lower: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() && at < lower.len() && name[at].to_ascii_lowercase() == lower[at] {
        at += 1;
    }
    at == name.len() && at == lower.len()
}

/// `tchar` of RFC 9110.
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
        || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h13_nothing_that_splits_a_response_becomes_a_header() {
        for value in ["a\r\nb", "a\nb", "a\rb", "a\0b", "\x7F", "\u{1}"] {
            assert!(Header::new("x", value).is_err(), "{value:?}");
        }
        for name in ["", "a b", "a:", "a\r\n", "a\0", "ä", "a\n"] {
            assert!(Header::new(name, "v").is_err(), "{name:?}");
        }
        for name in ["Content-Length", "TRANSFER-encoding", "connection", "Date", "upgrade"] {
            assert!(Header::new(name, "1").is_err(), "{name:?}");
        }
        assert!(Header::new("x", "tab\tand ä").is_ok());
        assert!(Header::new("x", "").is_ok());
    }

    #[test]
    fn a_usual_header_is_written_as_any_other() {
        for usual in [Header::TEXT, Header::HTML, Header::JSON, Header::BYTES] {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            usual.put(&mut short);
            Header { line: None, ..usual }.put(&mut long);
            assert_eq!(short, long);
        }
    }

    #[test]
    #[should_panic(expected = "cannot be sent")]
    fn h13_a_wrong_literal_panics() {
        let _ = Header::literal("x", "a\r\nb");
    }
}
