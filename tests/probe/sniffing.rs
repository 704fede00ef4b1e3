//! The first bytes of a client: what they are taken for, however they arrive.

use std::sync::Arc;
use std::time::Duration;

use lariat::sim::{Probe, every_split};
use lariat::sniff::{self, Choice, ClientHello, Seen, Sniff, SniffError};
use lariat::{CloseKind, Context, Deadline, Input, Note, Outcome, Protocol};

// ---- recognisers ----------------------------------------------------------------------------

/// What is seen byte by byte. An answer holds whatever follows, and no yes comes too early.
#[track_caller]
fn slowly<T: Clone + PartialEq + std::fmt::Debug>(
    look: impl Fn(&[u8]) -> Seen<T>,
    bytes: &[u8],
) -> Seen<T> {
    let (mut needed, mut answer) = (0, None);
    for count in 0..=bytes.len() {
        match (look(&bytes[..count]), &answer) {
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
    answer.unwrap_or(Seen::More(needed))
}

#[test]
fn a_method_a_space_and_a_target_are_http() {
    for yes in ["GET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.0", "M-SEARCH * HTTP/1.1", "X y", "PRI /"] {
        assert_eq!(slowly(sniff::http, yes.as_bytes()), Seen::Yes(()), "{yes}");
    }
    for no in [
        "get / HTTP/1.1",
        " GET /",
        "GET  /",
        "GET\t/",
        "GET\r\n",
        "G@T /",
        "\x16\x03\x01",
        "PROXY TCP4",
        "GET \u{7F}",
    ] {
        assert_eq!(slowly(sniff::http, no.as_bytes()), Seen::No, "{no}");
    }
    for more in ["", "G", "GET", "GET ", "PRI ", "PRI * HTTP/"] {
        assert_eq!(slowly(sniff::http, more.as_bytes()), Seen::More(more.len() + 1), "{more}");
    }
    assert_eq!(slowly(sniff::http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Seen::No);
    assert_eq!(slowly(sniff::http, b"PRI * HTTP/1.1\r\n"), Seen::Yes(()));
    let method = |count| "M".repeat(count) + " /";
    assert_eq!(slowly(sniff::http, method(19).as_bytes()), Seen::Yes(()));
    assert_eq!(slowly(sniff::http, method(20).as_bytes()), Seen::No);
}

#[test]
fn headers_of_balancers_and_banners_of_ssh_are_known_by_their_beginning() {
    for yes in [&b"PROXY "[..], b"PROXY TCP4", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        assert_eq!(slowly(sniff::proxy, yes), Seen::Yes(()));
    }
    for no in [&b"PROXY\r\n"[..], b"POST /", b"\r\n\r\nGET /", b"proxy "] {
        assert_eq!(slowly(sniff::proxy, no), Seen::No);
    }
    for more in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(slowly(sniff::proxy, more), Seen::More(more.len() + 1));
    }
    assert_eq!(slowly(sniff::ssh, b"SSH-2.0-x"), Seen::Yes(()));
    assert_eq!(slowly(sniff::ssh, b"SSH"), Seen::More(4));
    for no in [&b"SSH 2"[..], b"ssh-2.0", b"S SH-"] {
        assert_eq!(slowly(sniff::ssh, no), Seen::No);
    }
}

/// A length of `size` bytes, and the bytes.
fn vector(size: usize, bytes: &[u8]) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[8 - size..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[&[0][..], &vector(2, name)].concat()))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|name| vector(1, name)).collect();
    extension(16, &vector(2, &names))
}

/// Up to the extensions.
fn start() -> Vec<u8> {
    let version_and_random = [&[3, 3][..], &[7; 32]].concat();
    let rest = [vector(1, &[9; 32]), vector(2, &[0x13, 1, 0x13, 2]), vector(1, &[0])].concat();
    [version_and_random, rest].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    [&[1][..], &vector(3, body)].concat()
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector(2, fragment)].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(&message(&[start(), vector(2, &extensions.concat())].concat()))
}

#[track_caller]
fn found(bytes: &[u8]) -> ClientHello {
    match slowly(sniff::tls, bytes) {
        Seen::Yes(hello) => {
            let longer = [bytes, b"anything"].concat();
            assert_eq!(slowly(sniff::tls, &longer), Seen::Yes(hello.clone()));
            hello
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_name_and_the_protocols_that_a_tls_client_asks_for_are_found() {
    let both =
        [extension(43, &[2, 3, 4]), server_name(b"Mail.Example"), alpn(&[b"h2", b"http/1.1"])];
    let seen = found(&hello(&both));
    assert_eq!(seen.server_name(), Some("mail.example"));
    assert_eq!(seen.alpn(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let plain = found(&hello(&[extension(43, &[2, 3, 4])]));
    assert_eq!((plain.server_name(), plain.alpn().len()), (None, 0));
    assert_eq!(found(&record(&message(&start()))), ClientHello::default());
    // Names of a kind that is not known are skipped.
    let list = [&[9][..], &vector(2, b"?"), &[0], &vector(2, b"a.b"), &[0], &vector(2, b"c")];
    let seen = found(&hello(&[extension(0, &vector(2, &list.concat()))]));
    assert_eq!(seen.server_name(), Some("a.b"));
    assert_eq!(found(&hello(&[extension(0, &vector(2, b""))])).server_name(), None);
}

#[test]
fn a_message_in_several_records_is_put_together() {
    let whole = message(&[start(), vector(2, &server_name(b"a.example"))].concat());
    for cut in 1..whole.len() {
        let two = [record(&whole[..cut]), record(&whole[cut..])].concat();
        assert_eq!(found(&two).server_name(), Some("a.example"), "cut at {cut}");
    }
    let crumbs: Vec<u8> = whole.iter().flat_map(|byte| record(&[*byte])).collect();
    assert_eq!(found(&crumbs).server_name(), Some("a.example"));
    // Something else between two records.
    let mut other = record(&whole[..9]);
    other.extend([23, 3, 1, 0, 1, 0]);
    assert_eq!(slowly(sniff::tls, &other), Seen::No);
}

#[test]
fn a_fragment_has_at_most_16_kib_and_at_least_a_byte() {
    assert_eq!(sniff::tls(&[22, 3, 1, 0x40, 0]), Seen::More(5 + 16_384));
    assert_eq!(sniff::tls(&[22, 3, 1, 0x40, 1]), Seen::No);
    assert_eq!(sniff::tls(&[22, 3, 1, 0, 0]), Seen::No);
    assert_eq!(sniff::tls(b""), Seen::More(1));
    assert_eq!(sniff::tls(&[22]), Seen::More(2));
    assert_eq!(sniff::tls(&[22, 3]), Seen::More(5));
    assert_eq!(sniff::tls(&[22, 3, 1, 0, 1, 1]), Seen::More(6 + 5));
}

#[test]
fn what_no_tls_server_would_take_is_not_tls() {
    for no in [&[21, 3, 1][..], &[22, 2], &[22, 3, 1, 0, 9, 2], b"GET / HTTP/1.1", &[0x80, 0x2E, 1]]
    {
        assert_eq!(slowly(sniff::tls, no), Seen::No, "{no:?}");
    }
    let body = |body: &[u8]| record(&message(body));
    let bad_name = |name: &[u8]| hello(&[server_name(name)]);
    let twice = [server_name(b"a"), server_name(b"b")];
    let behind = |ext: Vec<u8>| [start(), vector(2, &ext), b"x".to_vec()].concat();
    let fields = |id: &[u8], suites: &[u8], methods: &[u8]| {
        let parts = [vec![3; 34], vector(1, id), vector(2, suites), vector(1, methods)];
        record(&message(&parts.concat()))
    };
    assert_eq!(found(&fields(&[1; 32], &[1; 2], &[0])), ClientHello::default());
    for no in [
        body(&[3; 33]),
        body(&start()[..40]),
        fields(&[1; 33], &[1; 2], &[0]),
        fields(&[], &[], &[0]),
        fields(&[], &[1; 3], &[0]),
        fields(&[], &[1; 2], &[]),
        body(&[start(), vec![0]].concat()),
        body(&[start(), vec![0, 9, 0]].concat()),
        body(&behind(Vec::new())),
        hello(&twice),
        hello(&[alpn(&[b"h2"]), alpn(&[b"h2"])]),
        hello(&[alpn(&[b""])]),
        hello(&[vec![0, 0, 0, 9, 1]]),
        hello(&[extension(0, b"")]),
        hello(&[extension(0, &[0, 9, 0])]),
        hello(&[extension(
            0,
            &[&vector(2, &[&[0][..], &vector(2, b"a")].concat())[..], b"x"].concat(),
        )]),
        hello(&[extension(16, &[0, 2, 5, b'x'])]),
        bad_name(b""),
        bad_name(b"a b"),
        bad_name("\u{e4}".as_bytes()),
        bad_name(b"a\0b"),
    ] {
        assert_eq!(slowly(sniff::tls, &no), Seen::No, "{no:?}");
    }
}

// ---- the protocol ---------------------------------------------------------------------------

/// Answers with its name and everything that comes.
struct Named(&'static str);

impl Protocol for Named {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(self.0.as_bytes());
        cx.write(b":");
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

fn sniff() -> Sniff {
    Sniff::new(|bytes| {
        let seen = [sniff::http(bytes), sniff::proxy(bytes), sniff::ssh(bytes)];
        let names = ["http", "proxy", "ssh"];
        if let Seen::Yes(hello) = sniff::tls(bytes) {
            let named = hello.server_name() == Some("a.example");
            return Choice::take(Named(if named { "a" } else { "tls" }));
        }
        if let Some(place) = seen.iter().position(|one| *one == Seen::Yes(())) {
            return Choice::take(Named(names[place]));
        }
        let more = |seen: &Seen<()>| match seen {
            Seen::More(count) => Some(*count),
            _ => None,
        };
        let tls = match sniff::tls(bytes) {
            Seen::More(count) => Some(count),
            _ => None,
        };
        match seen.iter().filter_map(more).chain(tls).min() {
            Some(count) => Choice::More(count),
            None => Choice::refuse("none of the four"),
        }
    })
}

#[test]
fn the_protocol_that_takes_over_sees_every_byte_however_they_arrive() {
    let cases = [
        ("http", b"GET / HTTP/1.1\r\n\r\nmore".to_vec()),
        ("http", b"PUT /".to_vec()),
        ("proxy", b"PROXY TCP4 1.2.3.4".to_vec()),
        ("ssh", b"SSH-2.0-x\r\n".to_vec()),
        ("a", [hello(&[server_name(b"a.example")]), b"more".to_vec()].concat()),
        ("tls", hello(&[])),
    ];
    for (name, bytes) in cases {
        every_split(sniff, &bytes);
        let mut whole = Probe::new(sniff());
        whole.receive(&bytes);
        let expected = [name.as_bytes(), b":", &bytes].concat();
        assert_eq!(whole.sent(), expected);
        // Half a second for each byte, which only the short ones can afford.
        let mut slow = Probe::new(sniff());
        for byte in &bytes {
            slow.receive(&[*byte]);
            slow.advance(Duration::from_millis(if bytes.len() < 50 { 500 } else { 10 }));
        }
        assert_eq!(slow.sent(), expected, "byte by byte");
    }
}

#[track_caller]
fn error(probe: &Probe) -> SniffError {
    let reason = probe.closed().expect("the connection has ended");
    reason.error().unwrap().downcast_ref::<SniffError>().unwrap().clone()
}

#[test]
fn a_client_that_nobody_wants_ends_with_the_reason() {
    every_split(sniff, b"what is this?");
    let mut probe = Probe::new(sniff());
    probe.receive(b"what is this?");
    assert_eq!(error(&probe), SniffError::Refused("none of the four".to_owned()));
    assert_eq!(error(&probe).to_string(), "none of the four");
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Protocol);
    for bytes in [&b""[..], b"GE"] {
        let mut probe = Probe::new(sniff());
        probe.receive(bytes);
        probe.finish();
        assert_eq!(error(&probe), SniffError::Incomplete);
    }
}

#[test]
fn as_many_bytes_are_looked_at_as_the_maximum_says() {
    let want = |count: usize| {
        move || {
            Sniff::new(move |bytes| {
                assert!(bytes.len() <= 8, "more than the maximum is shown");
                match bytes.len() < count {
                    true => Choice::More(count),
                    false => Choice::take(Named("found")),
                }
            })
            .max(8)
        }
    };
    for (count, fits) in [(7, true), (8, true), (9, false)] {
        every_split(want(count), b"0123456789");
        let mut probe = Probe::new(want(count)());
        probe.receive(b"0123456789");
        match fits {
            true => assert_eq!(probe.sent(), b"found:0123456789"),
            false => assert_eq!(error(&probe), SniffError::TooLong(8)),
        }
    }
    // By default 16 KiB, also for one that never asks for a number.
    let mut probe = Probe::new(Sniff::new(|_| Choice::More(0)));
    probe.receive(&[0; 16_383]);
    assert!(probe.closed().is_none());
    probe.receive(&[0]);
    assert_eq!(error(&probe), SniffError::TooLong(16_384));
}

#[test]
fn a_client_has_ten_seconds_or_what_was_asked_for() {
    for (sniff, millis) in [(sniff(), 10_000), (sniff().deadline(Duration::from_millis(300)), 300)]
    {
        let mut probe = Probe::new(sniff);
        for byte in b"PROPFIND " {
            probe.receive(&[*byte]);
            probe.advance(Duration::from_millis(millis / 10));
            assert!(probe.closed().is_none());
        }
        probe.advance(Duration::from_millis(millis / 10));
        assert_eq!(error(&probe), SniffError::TimedOut);
        let late = CloseKind::TimedOut(Deadline::Handshake);
        assert_eq!(probe.closed().unwrap().kind(), late);
    }
    let mut taken = Probe::new(sniff());
    taken.receive(b"GET /");
    taken.advance(Duration::from_secs(60));
    assert!(taken.closed().is_none(), "the deadline ends with the choice");
}

#[test]
fn a_silent_client_gets_the_protocol_whose_server_speaks_first() {
    let after = Duration::from_millis(500);
    let make = || sniff().when_silent(after, || Named("smtp"));
    let mut silent = Probe::new(make());
    silent.advance(after - Duration::from_millis(1));
    assert_eq!(silent.sent(), b"");
    silent.advance(Duration::from_millis(1));
    silent.receive(b"EHLO x");
    assert_eq!(silent.sent(), b"smtp:EHLO x");
    // One that has said something is not silent.
    let mut slow = Probe::new(make());
    slow.receive(b"G");
    slow.advance(after);
    slow.receive(b"ET /");
    assert_eq!(slow.sent(), b"http:GET /");
    let mut stuck = Probe::new(make());
    stuck.receive(b"G");
    stuck.advance(Duration::from_secs(10));
    assert_eq!(error(&stuck), SniffError::TimedOut);
}

/// Says how many notes it has got.
struct Counting(usize);

impl Protocol for Counting {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        self.0 += 1;
        write!(cx, "{} ", self.0)?;
        Ok(())
    }
}

#[test]
fn as_many_notes_wait_for_the_choice_as_for_a_connection() {
    for count in [0, 1, 63, 64, 65] {
        let choose = |bytes: &[u8]| match bytes {
            b"go" => Choice::take(Counting(0)),
            _ => Choice::More(2),
        };
        let mut probe = Probe::new(Sniff::new(choose));
        probe.receive(b"g");
        let owners = Arc::new(());
        (0..count).for_each(|_| probe.notify(Note::new(Arc::clone(&owners))));
        assert_eq!(Arc::strong_count(&owners) - 1, count.min(64), "no other one is kept");
        probe.receive(b"o");
        let expected: String = (1..=count.min(64)).map(|number| format!("{number} ")).collect();
        assert_eq!(probe.sent(), expected.as_bytes(), "{count} notes");
        assert!(probe.closed().is_none());
    }
    // Also for the protocol that a silent client gets.
    let sniff = Sniff::new(|_| Choice::refuse("it was to wait"));
    let mut probe = Probe::new(sniff.when_silent(Duration::from_secs(1), || Counting(0)));
    probe.notify(Note::new(()));
    probe.advance(Duration::from_secs(1));
    assert_eq!(probe.sent(), b"1 ");
}
