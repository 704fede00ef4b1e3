//! Bytes that may be the beginning of a connection: a PROXY header, a ClientHello of TLS, a request,
//! or nearly one of these.
//!
//! Whatever they are, what is found does not depend on how they arrive, nothing is asked for beyond
//! the maximum, and a PROXY header that was found is found again when it is written.

use lariat::proxy_protocol::{Header, HeaderError, Parsed, Version};
use lariat::sniff::{self, Seen};

use crate::Script;

const MAX: usize = 300;

/// Runs one script.
///
/// # Panics
///
/// When a rule is broken.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let shown = shown(&mut script);
    let max = match script.below(4) {
        0 => script.below(200),
        _ => MAX,
    };
    if std::env::var_os("LARIAT_TELL").is_some() {
        eprintln!("at most {max}: {}", shown.escape_ascii());
    }
    recognised(sniff::tls, &shown);
    recognised(sniff::http, &shown);
    recognised(sniff::proxy, &shown);
    recognised(sniff::ssh, &shown);
    let whole = Header::parse(&shown, max);
    assert_eq!(slowly(&shown, max), whole, "byte by byte");
    let Ok(Parsed::Header { header, len }) = whole else { return };
    assert!(len <= max && len <= shown.len());
    // What follows is not looked at, and nothing less is enough.
    assert_eq!(Header::parse(&shown[..len], max), whole);
    assert!(matches!(Header::parse(&shown[..len - 1], max), Ok(Parsed::More(_))));
    for version in [Version::V1, Version::V2, Version::V2Checked] {
        let written = header.encode(version);
        let Ok(Parsed::Header { header: again, len }) = Header::parse(&written, MAX) else {
            panic!("{header:?} is not found in {}", written.escape_ascii());
        };
        assert_eq!(len, written.len());
        let ip = header.source().is_some_and(|addr| addr.ip().is_some());
        if version != Version::V1 || ip {
            assert_eq!(again, header);
        }
    }
}

/// What is found when one byte comes after the other.
fn slowly(shown: &[u8], max: usize) -> Result<Parsed, HeaderError> {
    let mut needed = 0;
    for count in 0..=shown.len() {
        match Header::parse(&shown[..count], max)? {
            Parsed::More(more) => {
                assert!(more > count && more >= needed, "{more} after {count} and {needed}");
                needed = more;
            }
            found => return Ok(found),
        }
    }
    Ok(Parsed::More(needed))
}

/// A header made of parts, most of them good, with some bytes changed, and something behind it.
fn shown(script: &mut Script) -> Vec<u8> {
    let mut bytes = match script.below(8) {
        0 => (0..script.length(120)).map(|_| script.byte()).collect(),
        5 | 6 => hello(script),
        7 => script.pick(&[&b"GET /"[..], b"PRI * HTTP/2.0", b"SSH-2.0", b"PUT  x"]).to_vec(),
        1 | 2 => line(script),
        _ => binary(script),
    };
    for _ in 0..script.below(3) {
        let at = script.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = script.byte();
        }
    }
    if script.below(3) == 0 {
        let cut = script.below(bytes.len() + 1);
        bytes.truncate(cut);
    }
    bytes.extend((0..script.below(8)).map(|_| script.byte()));
    bytes
}

fn line(script: &mut Script) -> Vec<u8> {
    let words = ["TCP4", "TCP6", "UNKNOWN", "1.2.3.4", "255.255.255.255", "::1", "fe80::1:2", "0"];
    let mut line = "PROXY".to_owned();
    let count = if script.below(4) == 0 { script.below(7) } else { 5 };
    for place in 0..count {
        let word = match (place, script.below(8)) {
            (_, 0) => script.pick(&words),
            (0, _) => script.pick(&words[..3]),
            (1 | 2, _) => script.pick(&words[3..7]),
            _ => script.pick(&["0", "1", "65535", "65536", "007", ""]),
        };
        line = format!("{line} {word}");
    }
    line += script.pick(&["\r\n", "\r\n", "\r\n", "\n", "\r"]);
    line.into_bytes()
}

fn binary(script: &mut Script) -> Vec<u8> {
    let family = script.pick(&[0x11, 0x21, 0x31, 0x00, 0x12, 0x41, 0x10]);
    let addresses = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let mut rest: Vec<u8> = match family >> 4 {
        3 => vec![b'/'; addresses],
        _ => (0..addresses).map(|_| script.byte()).collect(),
    };
    if family >> 4 == 3 {
        rest[1 + script.below(100)..108].fill(0);
        rest[109 + script.below(100)..].fill(0);
    }
    for _ in 0..script.below(3) {
        let len = script.below(6);
        rest.extend([script.pick(&[1, 2, 3, 5, 0xEE]), 0, len as u8]);
        rest.extend((0..len).map(|_| script.byte()));
    }
    let len = (rest.len() + script.pick(&[0, 0, 0, 0, 1, 7])) as u16;
    let what = [script.pick(&[0x21, 0x21, 0x20, 0x22, 0x11]), family];
    [b"\r\n\r\n\0\r\nQUIT\n", &what[..], &len.to_be_bytes(), &rest].concat()
}

/// What a recogniser says byte by byte: an answer holds whatever follows.
fn recognised<T: PartialEq + std::fmt::Debug>(look: impl Fn(&[u8]) -> Seen<T>, shown: &[u8]) {
    let (mut needed, mut answer) = (0, None);
    for count in 0..=shown.len() {
        match (look(&shown[..count]), &answer) {
            (Seen::More(more), None) => {
                assert!(more > count && more >= needed, "{more} after {count} and {needed}");
                needed = more;
            }
            (found, None) => {
                assert!(found == Seen::No || count >= needed, "{found:?} after {count} bytes");
                answer = Some(found);
            }
            (found, Some(before)) => assert_eq!(&found, before, "after {count} bytes"),
        }
    }
}

/// The first message of a TLS client, in one record or several.
fn hello(script: &mut Script) -> Vec<u8> {
    let mut extensions = Vec::new();
    for _ in 0..script.below(3) {
        let name = script.pick(&[&b"a.example"[..], b"", b"\xFF", b"B"]);
        let len = name.len() as u8;
        match script.below(3) {
            0 => extensions.extend([&[0, 0, 0, len + 5, 0, len + 3, 0, 0, len], name].concat()),
            1 => extensions.extend([&[0, 16, 0, len + 3, 0, len + 1, len], name].concat()),
            _ => extensions.extend([&[0xFF, 1, 0, len], name].concat()),
        }
    }
    let mut body = [&[3; 34][..], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let message = [&[1, 0, 0, body.len() as u8], &body[..]].concat();
    let size = script.pick(&[200, 200, 60, 7, 1]);
    let record = |part: &[u8]| [&[22, 3, 1, 0, part.len() as u8], part].concat();
    message.chunks(size).flat_map(record).collect()
}
