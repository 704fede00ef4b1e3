//! Each leniency forgives one thing, and nothing else is forgiven with it. Each strictness refuses
//! one thing.

use lariat::CloseKind;
use lariat::http::{self, Http};
use lariat::sim::{Probe, every_split};

use crate::answer::{all, only};
use crate::kit::{converse, everywhere, says};
use crate::site::Site;

type Change = fn(&mut http::Limits);

const CASES: [(Change, &str, &[u8]); 5] = [
    (|l| l.bare_lf = true, "bare_lf in a head", b"GET / HTTP/1.1\nHost: x\n\n"),
    (
        |l| l.bare_lf = true,
        "bare_lf in chunks",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    ),
    (
        |l| l.both_lengths = true,
        "both_lengths",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        |l| l.equal_lengths = true,
        "equal_lengths",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (|l| l.missing_host = true, "missing_host", b"GET / HTTP/1.1\r\n\r\n"),
];

fn lenient(change: Change) -> Http<Site> {
    let mut limits = http::Limits::default();
    change(&mut limits);
    Http::with_limits(Site, &limits.validate().unwrap())
}

fn status(http: Http<Site>, bytes: &[u8]) -> u16 {
    let mut probe = Probe::new(http);
    probe.receive(bytes);
    all(&probe.sent()).0.last().map_or(0, |answer| answer.status)
}

#[test]
fn each_leniency_forgives_what_it_is_named_after() {
    for (change, name, bytes) in CASES {
        assert_eq!(status(Http::new(Site), bytes), 400, "{name}, without it");
        assert_eq!(status(lenient(change), bytes), 200, "{name}");
        every_split(|| lenient(change), bytes);
    }
}

#[test]
fn each_leniency_forgives_the_same_on_every_driver() {
    for (change, name, bytes) in CASES {
        everywhere(|driver, told| {
            let heard = converse(driver, move || lenient(change), vec![says(bytes)]);
            assert_eq!(only(&heard[0]).status, 200, "{name} on {told}");
        });
    }
    everywhere(|driver, told| {
        let scripts = CASES.map(|(_, _, bytes)| says(bytes)).to_vec();
        let heard = converse(driver, || Http::new(Site), scripts);
        for (heard, (_, name, _)) in heard.iter().zip(CASES) {
            assert_eq!(only(heard).status, 400, "without {name} on {told}");
        }
    });
}

#[test]
fn no_leniency_forgives_what_another_one_does() {
    for (change, name, _) in CASES {
        for (_, other, bytes) in CASES {
            let same = name.split(' ').next() == other.split(' ').next();
            assert!(same || status(lenient(change), bytes) == 400, "{name} forgives {other}");
        }
    }
}

#[test]
fn a_request_with_both_lengths_is_read_as_chunked_and_closes() {
    let (change, _, bytes) = CASES[2];
    let mut probe = Probe::new(lenient(change));
    probe.receive(&bytes.repeat(2));
    let sent = probe.sent();
    let (answers, _) = all(&sent);
    assert_eq!((answers.len(), &answers[0].body[..]), (1, &b"5 bytes\n"[..]));
    assert!(answers[0].closes() && probe.is_finished());
}

/// Every byte but those that end a target: space, line breaks and controls, and `#`.
fn odd_targets() -> Vec<Vec<u8>> {
    let odd = br##""<>\^`{|}"##.iter().copied().chain(0x80..=0xFF);
    odd.map(|byte| [b"/a", &[byte][..], b"b?c=", &[byte][..]].concat()).collect()
}

fn request(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat()
}

#[test]
fn h16_targets_that_clients_really_send_are_taken_unless_strictness_is_wanted() {
    everywhere(|driver, told| {
        let scripts = odd_targets().iter().map(|target| says(&request(target))).collect();
        for heard in converse(driver, || Http::new(Site), scripts) {
            assert_eq!(only(&heard).status, 200, "on {told}");
        }
    });
    let strict = || lenient(|limits| limits.strict_targets = true);
    for target in odd_targets() {
        let mut probe = Probe::new(strict());
        probe.receive(&request(&target));
        let answer = only(&probe.sent());
        assert!(answer.status == 400 && answer.closes(), "{}", target.escape_ascii());
        probe.finish();
        assert_eq!(probe.closed().unwrap().kind(), CloseKind::Refused(400));
    }
    // What RFC 3986 has is right either way, and what ends a target is never a part of it.
    let right = b"/-._~!$&'()*+,;=:@/%20?[azAZ09]";
    assert_eq!(
        (status(Http::new(Site), &request(right)), status(strict(), &request(right))),
        (200, 200)
    );
    for wrong in [0, b'\t', b'#', 0x1F, 0x7F] {
        assert_eq!(status(Http::new(Site), &request(&[b'/', wrong])), 400, "{wrong:#x}");
        assert_eq!(status(strict(), &request(&[b'/', wrong])), 400, "{wrong:#x}, strictly");
    }
}
