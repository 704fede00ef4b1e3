//! The PROXY protocol: every header that there is, every one that there is not, however it arrives.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::rc::Rc;
use std::time::Duration;

use lariat::proxy_protocol::{
    AcceptProxy, Header, HeaderError, Networks, Parsed, Receiving, SendProxy, Version,
};
use lariat::sim::{Probe, Sim, every_split};
use lariat::{
    CloseKind, Context, Deadline, Endpoint, Incoming, Input, Outcome, Protocol, UnixName,
};

const MAX: usize = 4096;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2: what is behind its signature.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &len, rest].concat()
}

const V4: &[u8] = &[203, 0, 113, 9, 192, 0, 2, 1, 0x9D, 0x78, 0x01, 0xBB];

fn ip(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn v4() -> Header {
    Header::proxied(ip("203.0.113.9:40312"), ip("192.0.2.1:443"))
}

/// Parses what arrives byte by byte, and checks that each answer holds.
#[track_caller]
fn parse_slowly(bytes: &[u8], max: usize) -> Result<Parsed, HeaderError> {
    let mut needed = 0;
    for count in 0..=bytes.len() {
        match Header::parse(&bytes[..count], max)? {
            Parsed::More(more) => {
                assert!(more > count && more <= max, "{more} of {max} after {count}");
                assert!(more >= needed, "{more} after {needed} were needed");
                needed = more;
            }
            found => {
                assert!(count >= needed, "found before the {needed} bytes that were needed");
                return Ok(found);
            }
        }
    }
    Ok(Parsed::More(needed))
}

#[track_caller]
fn finds(bytes: &[u8], header: Header) {
    let found = Ok(Parsed::Header { header, len: bytes.len() });
    assert_eq!(Header::parse(bytes, MAX), found);
    assert_eq!(parse_slowly(bytes, MAX), found);
    for trailing in [&b"GET / HTTP/1.1\r\n"[..], b"\0", b"\n", SIGNATURE, bytes] {
        assert_eq!(Header::parse(&[bytes, trailing].concat(), MAX), found);
    }
    // One byte less is never enough, and nothing is found in it.
    assert!(matches!(Header::parse(&bytes[..bytes.len() - 1], MAX), Ok(Parsed::More(_))));
}

#[track_caller]
fn refuses(bytes: &[u8], error: HeaderError) {
    assert_eq!(Header::parse(bytes, MAX), Err(error), "{:?}", bytes.escape_ascii().to_string());
    assert_eq!(parse_slowly(bytes, MAX), Err(error), "{:?}", bytes.escape_ascii().to_string());
}

#[test]
fn each_line_of_version_1_is_understood() {
    finds(b"PROXY TCP4 203.0.113.9 192.0.2.1 40312 443\r\n", v4());
    let loopback = Header::proxied(ip("[::1]:0"), ip("[2001:db8::2]:65535"));
    finds(b"PROXY TCP6 ::1 2001:db8::2 0 65535\r\n", loopback);
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    let both = ip(&format!("[{full}]:65535"));
    finds(longest.as_bytes(), Header::proxied(both, both));
    finds(b"PROXY UNKNOWN\r\n", Header::unknown());
    finds(b"PROXY UNKNOWN whatever that is\r\n", Header::unknown());
    assert_eq!((Header::unknown().source(), Header::unknown().destination()), (None, None));
    // The longest line has 107 bytes with its end.
    finds(&[b"PROXY UNKNOWN ", &[b'x'; 91][..], b"\r\n"].concat(), Header::unknown());
    refuses(&[b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat(), HeaderError::TooLong(107));
    refuses(&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(), HeaderError::TooLong(107));
}

#[test]
fn a_line_that_is_not_exactly_one_of_these_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN\n",
        "PROXY TCP4 1.2.3.4 1.2.3.\u{664} 1 2\r\n",
        "PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n",
    ] {
        refuses(line.as_bytes(), HeaderError::InvalidLine);
    }
    refuses(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xFF\r\n", HeaderError::InvalidLine);
}

#[test]
fn each_header_of_version_2_is_understood() {
    for family in [0x11, 0x12] {
        finds(&binary(0x21, family, V4), v4());
    }
    let mut v6 = Vec::new();
    v6.extend([0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    v6.extend([0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    v6.extend([0, 80, 1, 0]);
    let of_v6 = Header::proxied(ip("[2001:db8::1]:80"), ip("[2001:db8::2]:256"));
    for family in [0x21, 0x22] {
        finds(&binary(0x21, family, &v6), of_v6);
    }
    finds(&binary(0x21, 0x00, b""), Header::unknown());
    finds(&binary(0x21, 0x00, b"not even fields"), Header::unknown());
    // A LOCAL is to be ignored whatever else it says.
    for (family, rest) in [(0x00, &b""[..]), (0x11, V4), (0x11, b"xx"), (0xFF, b"y")] {
        finds(&binary(0x20, family, rest), Header::local());
    }
    assert!(Header::local().is_local() && !v4().is_local() && !Header::unknown().is_local());
}

#[test]
fn unix_addresses_are_paths_abstract_names_or_none() {
    let path = |text: &str| UnixName::from(&UnixAddr::from_pathname(text).unwrap()).into();
    let block = |source: &[u8], destination: &[u8]| {
        let mut block = vec![0; 216];
        block[..source.len()].copy_from_slice(source);
        block[108..108 + destination.len()].copy_from_slice(destination);
        block
    };
    let both = Header::proxied(path("/run/client"), path("/run/server"));
    for family in [0x31, 0x32] {
        finds(&binary(0x21, family, &block(b"/run/client", b"/run/server")), both);
    }
    let unnamed = UnixName::from(&unnamed()).into();
    let half = Header::proxied(unnamed, path("/s"));
    finds(&binary(0x21, 0x31, &block(b"", b"/s")), half);
    if cfg!(target_os = "linux") {
        let name = UnixName::from_abstract_name("name").unwrap().into();
        finds(&binary(0x21, 0x31, &block(b"\0name", b"/s")), Header::proxied(name, path("/s")));
    }
    for bad in [&[b'x'; 108][..], b"a\0b"] {
        refuses(&binary(0x21, 0x31, &block(bad, b"/s")), HeaderError::InvalidAddress);
        refuses(&binary(0x21, 0x31, &block(b"/s", bad)), HeaderError::InvalidAddress);
    }
    let most = "x".repeat(107);
    finds(
        &binary(0x21, 0x31, &block(b"/s", most.as_bytes())),
        Header::proxied(path("/s"), path(&most)),
    );
}

fn unnamed() -> UnixAddr {
    std::os::unix::net::UnixDatagram::unbound().unwrap().local_addr().unwrap()
}

#[test]
fn what_version_2_does_not_have_is_refused() {
    for version in [0x01, 0x11, 0x31, 0xF1] {
        refuses(&binary(version, 0x11, V4), HeaderError::InvalidVersion(version >> 4));
    }
    for command in [2, 3, 15] {
        refuses(&binary(0x20 | command, 0x11, V4), HeaderError::InvalidCommand(command));
    }
    for family in [0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41, 0xFF] {
        refuses(&binary(0x21, family, &[0; 216]), HeaderError::InvalidFamily(family));
    }
    for (family, least) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
        refuses(&binary(0x21, family, &vec![0; least - 1]), HeaderError::InvalidLength);
        assert!(Header::parse(&binary(0x21, family, &vec![0; least]), MAX).is_ok());
    }
    refuses(b"\r\n\r\n\0\r\nQUIT\r", HeaderError::Missing);
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PROXX",
        b"\r\n\r\nx",
        b"PROXYTCP4",
        b"proxy ",
        b"\x16\x03\x01",
    ] {
        refuses(other, HeaderError::Missing);
    }
    assert_eq!(Header::parse(b"", MAX), Ok(Parsed::More(1)));
}

#[test]
fn fields_behind_the_addresses_are_skipped_if_they_are_whole() {
    let with = |fields: &[u8]| binary(0x21, 0x11, &[V4, fields].concat());
    finds(&with(&[1, 0, 2, b'h', b'2', 0xEE, 0, 0]), v4());
    for cut in
        [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 3, b'h', b'2'], &[1, 0, 0, 2, 0], &[1, 1, 0, 9]]
    {
        refuses(&with(cut), HeaderError::InvalidLength);
    }
}

#[test]
fn a_checksum_is_verified() {
    let whole = v4().encode(Version::V2Checked);
    finds(&whole, v4());
    // Every single bit counts. Those of the beginning make it something else.
    for at in 16..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let found = Header::parse(&changed, MAX);
            // Without its type or its length the sum is another field.
            let expected = match at {
                28 => Ok(()),
                29 | 30 => Err(HeaderError::InvalidLength),
                _ => Err(HeaderError::WrongChecksum),
            };
            assert_eq!(found.map(|_| ()), expected, "bit {bit} of byte {at}");
        }
    }
    // Other fields stand on both sides of it.
    let before: &[u8] = &[0x05, 0, 3, b'i', b'd', b'1'];
    let rest = [V4, before, &[3, 0, 4, 0, 0, 0, 0], &[4, 0, 1, 0]].concat();
    let mut bytes = binary(0x21, 0x11, &rest);
    let sum = crc32c(&bytes).to_be_bytes();
    let at = 16 + V4.len() + before.len() + 3;
    bytes[at..at + 4].copy_from_slice(&sum);
    finds(&bytes, v4());
    bytes[at] ^= 1;
    refuses(&bytes, HeaderError::WrongChecksum);
    for wrong in [3, 5] {
        let field = [&[3, 0, wrong][..], &vec![0; usize::from(wrong)]].concat();
        let bytes = binary(0x21, 0x11, &[V4, &field].concat());
        refuses(&bytes, HeaderError::InvalidLength);
    }
}

/// Bit by bit, as the standard defines it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |rest, byte| {
        (0..8).fold(rest ^ u32::from(*byte), |rest, _| {
            if rest & 1 == 1 { (rest >> 1) ^ 0x82F6_3B78 } else { rest >> 1 }
        })
    })
}

#[test]
fn a_header_is_as_long_as_the_maximum_and_no_longer() {
    let fits = binary(0x21, 0x11, &[V4, &[9, 0, 10], &[0; 10]].concat());
    let len = fits.len();
    let found = Ok(Parsed::Header { header: v4(), len });
    assert_eq!(Header::parse(&fits, len), found);
    assert_eq!(parse_slowly(&fits, len), found);
    for max in [len - 1, 16] {
        assert_eq!(Header::parse(&fits, max), Err(HeaderError::TooLong(max)));
        // It is known as soon as the length has come.
        assert_eq!(Header::parse(&fits[..16], max), Err(HeaderError::TooLong(max)));
    }
    let most = binary(0x20, 0x00, &[0; 65_535]);
    assert_eq!(Header::parse(&most[..16], 65_551), Ok(Parsed::More(65_551)));
    assert_eq!(Header::parse(&most[..16], 65_550), Err(HeaderError::TooLong(65_550)));
    let line = b"PROXY UNKNOWN\r\n";
    assert!(matches!(Header::parse(line, 15), Ok(Parsed::Header { len: 15, .. })));
    assert_eq!(Header::parse(line, 14), Err(HeaderError::TooLong(14)));
}

#[test]
fn what_is_written_is_read_again() {
    let mapped = Header::proxied(ip("203.0.113.9:1"), ip("[2001:db8::1]:2"));
    let local = UnixName::from_pathname("/run/s").unwrap().into();
    let unix = Header::proxied(local, local);
    let mixed = Header::proxied(local, ip("203.0.113.9:1"));
    let cases = [
        (v4(), v4(), v4()),
        (mapped, mapped, mapped),
        (unix, Header::unknown(), unix),
        (mixed, Header::unknown(), Header::unknown()),
        (Header::unknown(), Header::unknown(), Header::unknown()),
        (Header::local(), Header::unknown(), Header::local()),
        (Header::proxied(Endpoint::Other, local), Header::unknown(), Header::unknown()),
    ];
    for (header, first, second) in cases {
        finds(&header.encode(Version::V1), first);
        finds(&header.encode(Version::V2), second);
        finds(&header.encode(Version::V2Checked), second);
    }
    assert_eq!(v4().encode(Version::V2), binary(0x21, 0x11, V4));
    let text = String::from_utf8(mapped.encode(Version::V1)).unwrap();
    assert_eq!(text, "PROXY TCP6 ::ffff:203.0.113.9 2001:db8::1 1 2\r\n");
    assert_eq!(Header::local().encode(Version::V2), binary(0x20, 0x00, b""));
}

// ---- the protocol ---------------------------------------------------------------------------

/// Answers with who it is told to serve, and with everything that comes.
struct Inner(Incoming);

impl Protocol for Inner {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let Inner(incoming) = self;
        let via = incoming.via().map(|via| via.to_string()).unwrap_or_default();
        write!(cx, "{} {} via {via}>", cx.peer_addr(), incoming.peer())?;
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

type Made = Receiving<Inner, fn(&Incoming) -> Option<Inner>>;

/// A maker of what a listener would make of each connection.
fn receiving(accept: AcceptProxy) -> impl Fn() -> Made {
    let seen: Rc<Cell<Option<Incoming>>> = Rc::default();
    let mut sim = Sim::new(1);
    let sees = Rc::clone(&seen);
    let look = move |incoming: &Incoming| {
        sees.set(Some(*incoming));
        Some(Inner(*incoming))
    };
    let listener = sim.listen("127.0.0.1:80", look).unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    sim.run_for(Duration::from_secs(1)).unwrap();
    drop(client);
    let incoming = seen.get().unwrap();
    let make: fn(&Incoming) -> Option<Inner> = |incoming| {
        let refused = incoming.peer() == ip("192.0.2.66:6");
        (!refused).then_some(Inner(*incoming))
    };
    let factory = accept.factory(make);
    move || factory(&incoming).unwrap()
}

fn accept() -> AcceptProxy {
    AcceptProxy::trusting(|_| true)
}

/// The error that ends a connection on which `bytes` arrive and then FIN.
#[track_caller]
fn fails(make: &dyn Fn() -> Made, bytes: &[u8], finish: bool) -> HeaderError {
    let errors = [bytes.len().max(1), 1].map(|step| {
        let mut probe = Probe::new(make());
        bytes.chunks(step).for_each(|part| probe.receive(part));
        if finish {
            probe.finish();
        }
        let reason = probe.closed().expect("the connection has ended");
        assert_eq!((reason.kind(), &*probe.sent()), (CloseKind::Protocol, &b""[..]));
        *reason.error().unwrap().downcast_ref::<HeaderError>().unwrap()
    });
    assert_eq!(errors[0], errors[1], "whole, and byte by byte");
    errors[0]
}

#[test]
fn the_protocol_behind_a_header_has_the_announced_peer_and_all_that_follows() {
    let make = receiving(accept());
    for header in [v4().encode(Version::V1), v4().encode(Version::V2Checked)] {
        let bytes = [&header[..], b"hello, world"].concat();
        every_split(&make, &bytes);
        let mut probe = Probe::new(make());
        probe.receive(&bytes);
        let sent = probe.sent();
        let text = String::from_utf8_lossy(&sent);
        assert!(text.starts_with("203.0.113.9:40312 203.0.113.9:40312 via 127.0.0.1:"), "{text}");
        assert!(text.ends_with(">hello, world"), "{text}");
    }
    for header in [Header::local(), Header::unknown()] {
        let bytes = [&header.encode(Version::V2)[..], b"hi"].concat();
        every_split(&make, &bytes);
        let mut probe = Probe::new(make());
        probe.receive(&bytes);
        let sent = probe.sent();
        let text = String::from_utf8_lossy(&sent);
        assert!(!text.contains("203.0.113") && text.ends_with(" via >hi"), "{text}");
    }
}

#[test]
fn what_is_no_header_ends_the_connection_with_its_error() {
    let make = receiving(accept());
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY nonsense\r\n", SIGNATURE] {
        every_split(&make, bytes);
    }
    assert_eq!(fails(&make, b"hello", false), HeaderError::Missing);
    assert_eq!(fails(&make, b"PROXY TCP4\r\n", false), HeaderError::InvalidLine);
    assert_eq!(fails(&make, b"", true), HeaderError::Incomplete);
    assert_eq!(fails(&make, b"PROXY TCP4 ", true), HeaderError::Incomplete);
    assert_eq!(fails(&make, SIGNATURE, true), HeaderError::Incomplete);
    let refused = b"PROXY TCP4 192.0.2.66 192.0.2.1 6 7\r\n";
    assert_eq!(fails(&make, refused, false), HeaderError::Refused);
    let long = binary(0x20, 0, &[0; 4081]);
    assert_eq!(fails(&make, &long, false), HeaderError::TooLong(4096));
    let mut fits = Probe::new(make());
    fits.receive(&binary(0x20, 0, &[0; 4080]));
    assert!(fits.closed().is_none());
    let narrow = receiving(accept().header_max(20));
    assert_eq!(fails(&narrow, b"PROXY UNKNOWN 1234567\r\n", false), HeaderError::TooLong(20));
}

#[test]
fn a_header_has_ten_seconds_or_what_was_asked_for() {
    for (accept, millis) in
        [(accept(), 10_000), (accept().deadline(Duration::from_millis(300)), 300)]
    {
        let make = receiving(accept);
        let mut probe = Probe::new(make());
        let step = Duration::from_millis(millis / 10);
        // A byte now and then does not help.
        for byte in b"PROXY TCP" {
            probe.receive(&[*byte]);
            probe.advance(step);
            assert!(probe.closed().is_none());
        }
        probe.advance(step);
        let reason = probe.closed().expect("in time");
        let error = reason.error().unwrap().downcast_ref::<HeaderError>();
        assert_eq!(error, Some(&HeaderError::TimedOut));
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Handshake));
        // Behind the header it no longer matters.
        let mut probe = Probe::new(make());
        probe.receive(b"PROXY UNKNOWN\r\n");
        probe.advance(Duration::from_secs(60));
        assert!(probe.closed().is_none());
    }
}

#[test]
fn a_header_is_sent_before_the_clients_own_bytes() {
    struct Client;
    impl Protocol for Client {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"hello");
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(input);
            input.consume_all();
            Ok(())
        }
    }
    for version in [Version::V1, Version::V2, Version::V2Checked] {
        let make = || SendProxy::new(&v4(), version, Client);
        every_split(make, b"an answer");
        let mut probe = Probe::new(make());
        probe.receive(b"?");
        assert_eq!(probe.sent(), [&v4().encode(version)[..], b"hello?"].concat());
    }
}

#[test]
fn networks_are_written_as_everywhere() {
    let of = |text: &str| Networks::new([text]);
    for (text, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1:1", "11.0.0.0:1"),
        ("10.1.2.3/8", "10.255.0.1:1", "9.255.255.255:1"),
        ("192.0.2.7", "192.0.2.7:9", "192.0.2.6:9"),
        ("192.0.2.6/31", "192.0.2.7:9", "192.0.2.8:9"),
        ("0.0.0.0/0", "255.255.255.255:1", "[::1]:1"),
        ("::/0", "[2001:db8::1]:1", "1.2.3.4:1"),
        ("fd00::/8", "[fdff::1]:1", "[fe00::1]:1"),
        ("::1", "[::1]:1", "[::2]:1"),
        ("::ffff:10.0.0.0/104", "10.9.9.9:1", "11.0.0.0:1"),
        ("::ffff:192.0.2.7", "[::ffff:192.0.2.7]:1", "192.0.2.8:1"),
        ("::ffff:0:0/96", "1.2.3.4:1", "[::1]:1"),
        ("::fffe:0:0/95", "[::fffe:1.2.3.4]:1", "1.2.3.4:1"),
    ] {
        let networks = of(text).unwrap();
        assert!(networks.contains(ip(inside)), "{inside} in {text}");
        assert!(!networks.contains(ip(outside)), "{outside} in {text}");
        assert!(!networks.contains(UnixName::from(&unnamed()).into()));
    }
    for bad in [
        "",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0/8",
        "10.0.0.0/+8",
        "host",
        "10.0.0.0/8/8",
    ] {
        let error = of(bad).unwrap_err().to_string();
        assert!(error.starts_with(&format!("\"{bad}\" is no network; ")), "{error}");
    }
    let several = Networks::new(["10.0.0.0/8", "::1"]).unwrap();
    assert!(several.contains(ip("10.0.0.1:1")) && several.contains(ip("[::1]:1")));
    assert!(!Networks::default().contains(ip("10.0.0.1:1")));
}

#[test]
fn a_header_that_is_cut_at_any_byte_is_incomplete_and_one_byte_more_reaches_the_protocol() {
    let make = receiving(accept());
    let with_fields = binary(0x21, 0x11, &[V4, &[1, 0, 2, b'h', b'2', 0xEE, 0, 0]].concat());
    let headers = [
        v4().encode(Version::V1),
        v4().encode(Version::V2),
        v4().encode(Version::V2Checked),
        with_fields,
        Header::unknown().encode(Version::V1),
        Header::unknown().encode(Version::V2),
        Header::local().encode(Version::V2Checked),
    ];
    for header in headers {
        for cut in 0..header.len() {
            assert_eq!(fails(&make, &header[..cut], true), HeaderError::Incomplete, "at {cut}");
        }
        for behind in [&b""[..], b"\n", b"PROXY UNKNOWN\r\n"] {
            let mut probe = Probe::new(make());
            probe.receive(&[&header, behind].concat());
            let sent = probe.sent();
            let at = sent.iter().position(|byte| *byte == b'>').expect("it has opened");
            assert_eq!(&sent[at + 1..], behind);
        }
    }
}

#[test]
fn the_header_of_an_incoming_client_is_the_one_that_was_announced() {
    let seen: Rc<Cell<Option<Incoming>>> = Rc::default();
    let make = |seen: Rc<Cell<Option<Incoming>>>| {
        move |incoming: &Incoming| {
            seen.set(Some(*incoming));
            Some(Inner(*incoming))
        }
    };
    let mut sim = Sim::new(1);
    let factory = accept().factory_local(make(Rc::clone(&seen)));
    let listener = sim.listen("127.0.0.1:80", factory).unwrap();
    let balancer = sim.dial(sim.addresses(listener)[0]);
    balancer.send(&v4().encode(Version::V2));
    sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(Header::of(&seen.get().unwrap()), v4());
    let balancer = sim.dial(sim.addresses(listener)[0]);
    balancer.send(&Header::local().encode(Version::V2));
    sim.run_for(Duration::from_secs(1)).unwrap();
    let own = seen.get().unwrap();
    let both = Header::proxied(own.peer(), ip("127.0.0.1:80"));
    assert_eq!((Header::of(&own), own.via()), (both, None));
}
