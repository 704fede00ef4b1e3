//! The head of a request: whether it is whole and valid, and its consequences. RFC 9112, sections
//! 2, 3 and 5.

use super::fault::Fault;
use super::framing::Fields;
use super::header::is_token;
use super::limits::Limits;
use super::request::{Length, Request, Version};
use super::scan::{Form, Lack, scan};
use super::{Status, target};

/// Looks for a whole head at the beginning of `bytes`. Returns the request and the length of its
/// head, or None when more has to arrive; with `last` no more will.
///
/// The answer must not depend on how the bytes arrived. So an incomplete head is parsed only when a
/// line has ended, a bound is reached, or no more will arrive; `looked` is how many bytes were
/// searched for that before. And an invalid value of a header counts only when the whole head has
/// arrived and is well-formed.
#[inline]
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    last: bool,
    looked: &mut u32,
    limits: &Limits,
) -> Result<Option<(Request<'a>, usize)>, Fault> {
    if *looked != 0 && !deserves_look(bytes, last, looked, limits) {
        return Ok(None);
    }
    let window = &bytes[..bytes.len().min(limits.head_max)];
    let form = Form { bare_lf: limits.bare_lf, strict_targets: limits.strict_targets };
    let mut fields = Fields::default();
    let mut fault = None;
    let found = scan(window, limits.fields_max, form, |name, value, is_http10| {
        if let Err(first) = fields.take(name, value, Version::new(is_http10), limits) {
            fault.get_or_insert(first);
        }
        Ok::<(), Lack>(())
    });
    let parts = match found {
        Ok(parts) => parts,
        Err(lack) => {
            *looked = bytes.len() as u32;
            return incomplete(window, last, lack, limits);
        }
    };
    let line = parts.method.len() + parts.target.len() + " HTTP/1.1\r\n".len() + 1;
    if line > limits.line_max && request_line(window) > limits.line_max {
        return Err(Fault::new(Status::URI_TOO_LONG, "a request line that is too long"));
    }
    let mut is_connect = false;
    if parts.target.first() != Some(&b'/') || parts.method == b"CONNECT" {
        target::check_rare(parts.method, parts.target)?;
        is_connect = parts.method == b"CONNECT";
    }
    if let Some(fault) = fault {
        return Err(fault);
    }
    let version = Version::new(parts.is_http10);
    fields.check(version, limits)?;
    let request = Request {
        method: method_name(parts.method),
        target: parts.target,
        version,
        fields: parts.fields,
        length: match fields.length() {
            _ if fields.is_chunked() => Length::Unknown,
            Some(0) | None => Length::None,
            Some(length) => Length::Known(length),
        },
        keep: fields.keeps(version),
        expects: fields.expects(version),
        upgrades: fields.upgrades(version),
        is_connect,
    };
    Ok(Some((request, parts.length)))
}

/// Bytes of the request line, its line break included: LF alone is a shorter one.
#[cold]
fn request_line(window: &[u8]) -> usize {
    let empty = window.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    window[empty..].iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// The name of a method, a token. The common ones need no look at each byte.
#[inline]
fn method_name(method: &[u8]) -> &str {
    match method {
        b"GET" => "GET",
        b"HEAD" => "HEAD",
        b"POST" => "POST",
        b"PUT" => "PUT",
        other => std::str::from_utf8(other).unwrap_or_default(),
    }
}

/// Whether more is known than at the last parse: a line has ended, a bound is reached, or this is
/// all. Without this, every single byte of a slow client would cost a whole parse.
fn deserves_look(bytes: &[u8], last: bool, looked: &mut u32, limits: &Limits) -> bool {
    let before = (*looked as usize).min(bytes.len());
    *looked = bytes.len() as u32;
    let reaches = |bound: usize| before < bound && bound <= bytes.len();
    last || reaches(limits.line_max) || reaches(limits.head_max) || bytes[before..].contains(&b'\n')
}

/// The fault of a head that is invalid or too long; None if it is only incomplete.
#[cold]
#[inline(never)]
fn incomplete<T>(
    window: &[u8],
    last: bool,
    lack: Lack,
    limits: &Limits,
) -> Result<Option<T>, Fault> {
    // A first byte that cannot begin a request is answered at once: a TLS client has come to this
    // port. After empty lines it waits for the end of its line, because no parse happens before
    // that.
    if window.first().is_some_and(|first| !is_token(*first) && !matches!(first, b'\r' | b'\n')) {
        return Err(Fault::bad("this does not begin a request"));
    }
    let whole = window;
    let empty = window.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let window = &window[empty..];
    if window.is_empty() && whole.len() == limits.head_max {
        return Err(Fault::new(Status::HEADERS_TOO_LARGE, "empty lines without end"));
    }
    let line = &window[..window.len().min(limits.line_max)];
    if !line.contains(&b'\n') {
        if line.len() == limits.line_max {
            return Err(Fault::new(Status::URI_TOO_LONG, "a request line that is too long"));
        }
        if !last {
            return Ok(None);
        }
    }
    match lack {
        Lack::TooMany => Err(Fault::new(Status::HEADERS_TOO_LARGE, "too many headers")),
        Lack::Version => Err(version_fault(window)),
        Lack::Malformed => Err(Fault::bad("a head that cannot be parsed")),
        Lack::Partial if whole.len() == limits.head_max => {
            Err(Fault::new(Status::HEADERS_TOO_LARGE, "a head that is too long"))
        }
        Lack::Partial if last => Err(Fault::bad("the connection ended within a head")),
        Lack::Partial => Ok(None),
    }
}

/// 505 for a well-formed version, 400 for anything else.
fn version_fault(window: &[u8]) -> Fault {
    let line = window.split(|byte| *byte == b'\n').find(|line| !matches!(*line, b"" | b"\r"));
    let line = line.unwrap_or_default().strip_suffix(b"\r").unwrap_or_default();
    // After the method and the target: a space in the target does not make it another version.
    let version = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Fault::new(Status::VERSION_NOT_SUPPORTED, "a version other than 1.0 and 1.1")
        }
        _ => Fault::bad("a version that is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::DEFAULT;
    use super::*;

    fn status(bytes: &[u8]) -> Result<bool, u16> {
        parse(bytes, false, &mut 0, &DEFAULT)
            .map(|found| found.is_some())
            .map_err(|fault| fault.status.code())
    }

    #[test]
    fn a_whole_head_is_found_and_its_end_too() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\nrest";
        let found = parse(bytes, false, &mut 0, &DEFAULT).unwrap();
        let (request, length) = found.unwrap();
        assert_eq!(&bytes[length..], b"rest");
        assert_eq!((request.method(), request.path()), ("GET", "/a"));
        assert_eq!((request.query(), request.host()), (Some("b"), Some("x")));
        assert_eq!((request.header("a"), request.header("b")), (Some(&b"1"[..]), None));
    }

    #[test]
    fn what_is_not_whole_waits_for_the_end_of_its_line() {
        assert_eq!(status(b"GET / HT"), Ok(false));
        assert_eq!(status(b"GET / XX"), Ok(false), "the line has not ended");
        assert_eq!(status(b"GET / XX\r\n"), Err(400));
        for partial in [&b"G"[..], b"GET", b"GET / HT", b"GET / XX", b"GET / HTTP/1.1\r"] {
            assert_eq!(status(partial), Ok(false));
            let fault = parse(partial, true, &mut 0, &DEFAULT).unwrap_err();
            assert_eq!(fault.status, Status::BAD_REQUEST, "no more will come");
        }
        assert_eq!(status(b"\x16\x03\x01"), Err(400));
    }

    #[test]
    fn what_is_not_whole_is_looked_at_again_only_where_it_may_have_become_so() {
        let limits = Limits { line_max: 30, head_max: 40, ..DEFAULT.clone() };
        // Wrong, as anybody finds who looks.
        let bytes = [&b"GET / HTTP/1.1\r\nA B"[..], &[b'a'; 30]].concat();
        let looks = |bytes: &[u8], last: bool, mut looked: u32| {
            let found = parse(bytes, last, &mut looked, &limits);
            assert_eq!(looked as usize, bytes.len());
            match found {
                Ok(None) => false,
                Err(fault) => fault.status == Status::BAD_REQUEST,
                Ok(Some(_)) => panic!("taken for whole"),
            }
        };
        // How many bytes there are, how many were looked at, and whether this is all.
        let cases = [
            (20, 0, false, true),
            (20, 1, false, true),
            (20, 15, false, true),
            (20, 16, false, false),
            (20, 19, false, false),
            (20, 20, false, false),
            (20, 20, true, true),
            // More than there are now.
            (20, 99, false, false),
            (20, 99, true, true),
            (29, 20, false, false),
            (30, 20, false, true),
            (30, 29, false, true),
            (31, 29, false, true),
            (31, 30, false, false),
            (39, 30, false, false),
            (40, 39, false, true),
            (41, 39, false, true),
            (41, 40, false, false),
            (45, 31, false, true),
        ];
        for (length, looked, last, expected) in cases {
            assert_eq!(looks(&bytes[..length], last, looked), expected, "{looked} of {length}");
        }
    }

    #[test]
    fn the_first_of_several_faults_is_answered() {
        let faults = ["Expect: tea\r\n", "Host: a b\r\n", "Content-Length: x\r\n"];
        let head = |lines: &[&str]| format!("POST / HTTP/1.1\r\n{}\r\n", lines.concat());
        for (first, expected) in faults.iter().zip([417, 400, 400]) {
            for second in faults.iter().filter(|second| *second != first) {
                assert_eq!(status(head(&[first, second]).as_bytes()), Err(expected));
            }
        }
        // What a header says wrong counts before what the headers lack together.
        assert_eq!(status(head(&[faults[0]]).as_bytes()), Err(417));
        // And a head that cannot be parsed has no headers.
        assert_eq!(status(head(&[faults[0], "a b: c\r\n"]).as_bytes()), Err(400));
    }

    #[test]
    fn h5_a_bare_lf_anywhere_in_the_head_is_refused() {
        assert_eq!(status(b"GET / HTTP/1.1\nHost: x\r\n\r\n"), Err(400));
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: x\n\r\n"), Err(400));
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: x\r\n\n"), Err(400));
        assert_eq!(status(b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), Err(400));
        assert_eq!(status(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), Ok(true));
    }

    #[test]
    fn h8_versions_are_told_apart() {
        assert_eq!(status(b"GET / HTTP/2.0\r\n\r\n"), Err(505));
        assert_eq!(status(b"GET / HTTP/1.2\r\n\r\n"), Err(505));
        for version in ["HTTP/1.", "http/1.1", "HTTP/1.10", "HTTP/11", "HTTP 1.1", "b HTTP/1.1"] {
            assert_eq!(status(format!("GET / {version}\r\n\r\n").as_bytes()), Err(400));
        }
    }
}
