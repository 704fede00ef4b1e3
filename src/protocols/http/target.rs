//! The target and the host of a request. RFC 9112, section 3.2; RFC 3986.

use super::fault::Fault;

/// Whether a target without a leading slash fits its method; `scan` has checked its bytes.
#[cold]
pub(super) fn check_rare(method: &[u8], target: &[u8]) -> Result<(), Fault> {
    let right = match (method, target) {
        (b"CONNECT", target) => {
            is_authority(target) && has_port(target) && !target.starts_with(b":")
        }
        (b"OPTIONS", b"*") => true,
        (_, target) => [&b"http://"[..], b"https://"].iter().any(|scheme| {
            let (begins, rest) = target.split_at_checked(scheme.len()).unwrap_or_default();
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let host = &rest[..end.unwrap_or(rest.len())];
            begins.eq_ignore_ascii_case(scheme) && !host.is_empty() && is_authority(host)
        }),
    };
    if right { Ok(()) } else { Err(Fault::bad("a target that this method cannot have")) }
}

fn has_port(target: &[u8]) -> bool {
    target
        .rsplit(|byte| *byte == b':')
        .next()
        .is_some_and(|port| port.iter().all(u8::is_ascii_digit))
        && !target.ends_with(b":")
        && target.contains(&b':')
}

/// The bytes of a host name: `reg-name` of RFC 3986.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_in = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!'
            | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        table[byte] = is_in;
        byte += 1;
    }
    table
};

/// `uri-host [ ":" port ]`, without user information. A name may be empty: a client says so that
/// its target has no host.
#[inline]
pub(super) fn is_authority(value: &[u8]) -> bool {
    // One look at each byte of a name; the byte that stops it decides what may follow.
    match value.iter().position(|byte| !NAME[usize::from(*byte)]) {
        None => true,
        Some(0) if value[0] == b'[' => is_address(value),
        Some(end) => is_port(&value[end..]),
    }
}

/// `":" port`: a port may be empty.
fn is_port(value: &[u8]) -> bool {
    matches!(value, [b':', port @ ..] if port.len() <= 5 && port.iter().all(u8::is_ascii_digit))
}

/// An address of IPv6 in brackets, and perhaps a port.
fn is_address(value: &[u8]) -> bool {
    let Some(end) = value.iter().position(|byte| *byte == b']') else { return false };
    let (address, port) = (&value[1..end], &value[end + 1..]);
    let is_in = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    !address.is_empty() && address.iter().all(is_in) && (port.is_empty() || is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_target_belongs_to_its_methods() {
        let right = [
            ("GET", "http://example.org/a"),
            ("GET", "HTTP://[::1]:80"),
            ("OPTIONS", "*"),
            ("CONNECT", "example.org:443"),
            ("CONNECT", "[::1]:443"),
            ("GET", "https://a:1?b"),
            ("POST", "hTTpS://a"),
        ];
        for (method, target) in right {
            let checked = check_rare(method.as_bytes(), target.as_bytes());
            assert!(checked.is_ok(), "{method} {target}");
        }
        let wrong = [
            ("GET", "*"),
            ("GET", "example.org:443"),
            ("GET", "ftp://example.org/"),
            ("GET", "http:///a"),
            ("GET", "http://user@host/"),
            ("CONNECT", "/"),
            ("CONNECT", "example.org"),
            ("CONNECT", "[::1]"),
            ("CONNECT", "example.org:"),
            ("CONNECT", ":443"),
            ("CONNECT", "http://example.org:443"),
            ("CONNECT", "*"),
            ("CONNECT", "a:1:2"),
            ("CONNECT", "a@b:1"),
            ("CONNECT", "[::1]:"),
            ("CONNECT", ":"),
            ("OPTIONS", "**"),
            ("options", "*"),
            ("GET", "http://"),
            ("GET", "http:/a"),
            ("GET", "http://?a"),
            ("GET", "https://a b/"),
            ("GET", "xttp://a/"),
        ];
        for (method, target) in wrong {
            let checked = check_rare(method.as_bytes(), target.as_bytes());
            assert!(checked.is_err(), "{method} {target}");
        }
    }

    #[test]
    fn h6_a_host_is_a_name_or_address_and_perhaps_a_port() {
        let right = [
            "",
            "a",
            "a:",
            "a:80",
            "a:65535",
            "127.0.0.1:8080",
            "a_b-c.d",
            ":",
            ":80",
            "[::1]",
            "[::1]:",
            "[::1]:80",
            "[::ffff:1.2.3.4]",
            "[FE80::A]",
            "%41",
            "a~!$&'()*+,;=",
        ];
        for right in right {
            assert!(is_authority(right.as_bytes()), "{right}");
        }
        let wrong = [
            "a b",
            "a/b",
            "u@a",
            "a:b",
            "a:80:80",
            "a:123456",
            "ä",
            "@",
            "@a",
            "/",
            "[",
            "]",
            "[::1",
            "[]",
            "[]:80",
            "[g]",
            "[::1]a",
            "[::1]80",
            "[::1]:b",
            "[::1]:123456",
            "a[::1]",
            "::1",
            "a:8 0",
            "[:: 1]",
        ];
        for wrong in wrong {
            assert!(!is_authority(wrong.as_bytes()), "{wrong}");
        }
    }
}
