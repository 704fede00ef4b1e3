//! The headers that decide where a message ends and whether its connection is kept. RFC 9112,
//! sections 6, 7 and 9. A message that two readers could understand differently is refused.

use super::Status;
use super::fault::Fault;
use super::limits::Limits;
use super::request::Version;
use super::target::is_authority;

/// The headers of one request that the library acts on.
#[derive(Debug, Default)]
pub(super) struct Fields {
    hosts: u32,
    length: Option<u64>,
    /// Some once a `transfer-encoding` was seen: whether `chunked` came last in it.
    chunked: Option<bool>,
    /// A coding other than `chunked` was named.
    other_coding: bool,
    close: bool,
    keep_alive: bool,
    upgrade_named: bool,
    upgrade: bool,
    expects: bool,
}

impl Fields {
    /// Takes a header into account.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        name: &[u8],
        value: &[u8],
        version: Version,
        limits: &Limits,
    ) -> Result<(), Fault> {
        // By length first: most headers are none of these.
        match name.len() {
            4 if is(name, b"host") => self.take_host(value),
            6 if is(name, b"expect") => self.take_expect(value, version),
            7 if is(name, b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if is(name, b"connection") => {
                self.take_connection(value);
                Ok(())
            }
            14 if is(name, b"content-length") => self.take_length(value, limits),
            17 if is(name, b"transfer-encoding") => self.take_coding(value),
            _ => Ok(()),
        }
    }

    #[inline(always)]
    fn take_host(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.hosts += 1;
        if is_authority(value) { Ok(()) } else { Err(Fault::bad("a host that is none")) }
    }

    fn take_expect(&mut self, value: &[u8], version: Version) -> Result<(), Fault> {
        if value.eq_ignore_ascii_case(b"100-continue") {
            self.expects = true;
        } else if version == Version::Http11 {
            return Err(Fault::new(Status::EXPECTATION_FAILED, "an unknown expectation"));
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in items(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade_named |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn take_length(&mut self, value: &[u8], limits: &Limits) -> Result<(), Fault> {
        let Some(length) = decimal(value) else {
            return Err(Fault::bad("a content-length that is no number"));
        };
        match self.length {
            Some(before) if !(limits.equal_lengths && before == length) => {
                Err(Fault::bad("a second content-length"))
            }
            _ => {
                self.length = Some(length);
                Ok(())
            }
        }
    }

    fn take_coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        for coding in items(value) {
            if self.chunked == Some(true) {
                return Err(Fault::bad("a transfer coding behind chunked"));
            }
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.other_coding |= !chunked;
            self.chunked = Some(chunked);
        }
        // Also for a header without a single coding.
        self.chunked.get_or_insert(false);
        Ok(())
    }

    /// Whether all of them together are consistent.
    #[inline]
    pub(super) fn check(&self, version: Version, limits: &Limits) -> Result<(), Fault> {
        if self.hosts != 1 {
            self.check_hosts(version, limits)?;
        }
        match self.chunked {
            None => Ok(()),
            Some(last) => self.check_coding(last, version, limits),
        }
    }

    fn check_hosts(&self, version: Version, limits: &Limits) -> Result<(), Fault> {
        match self.hosts {
            0 if version == Version::Http10 || limits.missing_host => Ok(()),
            0 => Err(Fault::bad("no host")),
            _ => Err(Fault::bad("a second host")),
        }
    }

    fn check_coding(&self, last: bool, version: Version, limits: &Limits) -> Result<(), Fault> {
        if version == Version::Http10 {
            return Err(Fault::bad("a transfer coding in HTTP/1.0"));
        }
        if !last {
            return Err(Fault::bad("chunked is not the last transfer coding"));
        }
        if self.length.is_some() && !limits.both_lengths {
            return Err(Fault::bad("both content-length and transfer-encoding"));
        }
        if self.other_coding {
            return Err(Fault::new(Status::NOT_IMPLEMENTED, "an unknown transfer coding"));
        }
        Ok(())
    }

    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.chunked.is_some()
    }

    /// Whether the request keeps the connection.
    pub(super) fn keeps(&self, version: Version) -> bool {
        let both = self.is_chunked() && self.length.is_some();
        !self.close && !both && (version == Version::Http11 || self.keep_alive)
    }

    pub(super) fn expects(&self, version: Version) -> bool {
        self.expects && version == Version::Http11
    }

    pub(super) fn upgrades(&self, version: Version) -> bool {
        self.upgrade && self.upgrade_named && version == Version::Http11
    }
}

/// Whether a token is this one in any case. All its letters are compared at once: the bit that
/// distinguishes the cases turns no other token character into one of them.
#[inline(always)]
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    <&[u8; N]>::try_from(name).is_ok_and(|name| name.map(|byte| byte | 0x20) == *lower)
}

/// The items of a comma-separated list, without the white space around them and without empty ones.
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// A number of decimal digits and nothing else; None also when it is too large.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::super::limits::DEFAULT;
    use super::*;

    fn check(headers: &[(&'static str, &'static str)], limits: &Limits) -> Result<Fields, u16> {
        let mut fields = Fields::default();
        let take = |fields: &mut Fields| {
            for (name, value) in headers {
                fields.take(name.as_bytes(), value.as_bytes(), Version::Http11, limits)?;
            }
            fields.check(Version::Http11, limits)
        };
        match take(&mut fields) {
            Ok(()) => Ok(fields),
            Err(fault) => Err(fault.status.code()),
        }
    }

    #[test]
    fn headers_that_are_as_long_as_those_of_the_framing_are_none_of_them() {
        let others = ["Date", "Accept", "Referer", "User-Agent", "Accept-Charset"];
        let headers = others.iter().chain(&["If-Modified-Since", "Hos", "Hosts", "upgrade-"]);
        for name in headers {
            // No value of any of them.
            let fields = check(&[("host", "x"), (name, "a b @;, close")], &DEFAULT).unwrap();
            assert_eq!((fields.length(), fields.is_chunked()), (None, false), "{name}");
            assert!(fields.keeps(Version::Http11) && !fields.expects(Version::Http11), "{name}");
            assert!(!fields.upgrades(Version::Http11) && fields.hosts == 1, "{name}");
        }
        let upgrades = |name: &'static str| {
            let headers = [("host", "x"), ("connection", "upgrade"), (name, "a")];
            check(&headers, &DEFAULT).unwrap().upgrades(Version::Http11)
        };
        assert!(upgrades("UPGRADE") && !upgrades("Referer"));
    }

    #[test]
    fn each_option_of_a_connection_counts_in_any_case_and_wherever_it_stands() {
        // Whether HTTP/1.1 and HTTP/1.0 keep the connection, and whether an upgrade is named.
        let cases = [
            (&[""][..], true, false, false),
            (&["close"], false, false, false),
            (&["a, CLOSE ,b"], false, false, false),
            (&["a", "close", "b"], false, false, false),
            (&["close", "keep-alive"], false, false, false),
            (&["keep-alive", "close"], false, false, false),
            (&["close", "close"], false, false, false),
            (&["keep-alive"], true, true, false),
            (&["Keep-Alive", "keep-alive"], true, true, false),
            (&["a", "x,keep-ALIVE"], true, true, false),
            (&["closed, keepalive"], true, false, false),
            (&["Upgrade"], true, false, true),
            (&["upgrade", "upgrade"], true, false, true),
            (&["keep-alive, Upgrade", "x"], true, true, true),
            (&["upgrades"], true, false, false),
        ];
        for (values, keeps_11, keeps_10, upgrade) in cases {
            let mut headers = vec![("host", "x"), ("upgrade", "a")];
            headers.extend(values.iter().map(|value| ("connection", *value)));
            let fields = check(&headers, &DEFAULT).unwrap();
            assert_eq!(fields.keeps(Version::Http11), keeps_11, "{values:?}");
            assert_eq!(fields.keeps(Version::Http10), keeps_10, "{values:?}");
            assert_eq!(fields.upgrades(Version::Http11), upgrade, "{values:?}");
            assert!(!fields.upgrades(Version::Http10), "{values:?}");
        }
    }

    #[test]
    fn h2_a_content_length_is_one_number() {
        let lengths = |values: &[&'static str], limits: &Limits| {
            let mut headers = vec![("host", "x")];
            headers.extend(values.iter().map(|value| ("Content-Length", *value)));
            check(&headers, limits).map(|fields| fields.length())
        };
        assert_eq!(lengths(&["5"], &DEFAULT), Ok(Some(5)));
        assert_eq!(lengths(&["18446744073709551615"], &DEFAULT), Ok(Some(u64::MAX)));
        for wrong in ["", "+5", "-1", "0x5", "5, 5", "5 5", "18446744073709551616", "٥"] {
            assert_eq!(lengths(&[wrong], &DEFAULT), Err(400), "{wrong:?}");
        }
        assert_eq!(lengths(&["5", "5"], &DEFAULT), Err(400));
        let lenient = Limits { equal_lengths: true, ..DEFAULT.clone() };
        assert_eq!(lengths(&["5", "5"], &lenient), Ok(Some(5)));
        assert_eq!(lengths(&["5", "6"], &lenient), Err(400));
    }

    #[test]
    fn h1_h3_a_transfer_coding_is_chunked_alone() {
        let coding = |values: &[&'static str]| {
            let mut headers = vec![("host", "x")];
            headers.extend(values.iter().map(|value| ("transfer-encoding", *value)));
            check(&headers, &DEFAULT).map(|fields| fields.is_chunked())
        };
        assert_eq!(coding(&["chunked"]), Ok(true));
        assert_eq!(coding(&[" Chunked , "]), Ok(true));
        assert_eq!(coding(&["gzip, chunked"]), Err(501));
        assert_eq!(coding(&["gzip", "chunked"]), Err(501));
        assert_eq!(coding(&["gzip, deflate, chunked"]), Err(501));
        assert_eq!(coding(&["gzip", "deflate", "gzip", "chunked"]), Err(501));
        for wrong in ["", "gzip", "identity", "chunked, gzip", "chunked, chunked", "xchunked"] {
            assert_eq!(coding(&[wrong]), Err(400), "{wrong:?}");
        }
        assert_eq!(coding(&["chunked", "chunked"]), Err(400));
        let both = [("host", "x"), ("content-length", "5"), ("transfer-encoding", "chunked")];
        assert!(check(&both, &DEFAULT).is_err());
        let lenient = Limits { both_lengths: true, ..DEFAULT.clone() };
        let fields = check(&both, &lenient).unwrap();
        assert!(fields.is_chunked() && !fields.keeps(Version::Http11));
    }
}
