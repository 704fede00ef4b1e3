//! Each leniency forgives one thing, and nothing else is forgiven with it.

use std::sync::Arc;

use lariat::http::{Http, Rules};
use lariat::sim::{Probe, every_split};

use crate::answer::all;
use crate::site::Site;

type Change = fn(&mut Rules);

const CASES: [(Change, &str, &[u8]); 6] = [
    (|r| r.bare_lf = true, "bare_lf in a head", b"GET / HTTP/1.1\nHost: x\n\n"),
    (
        |r| r.bare_lf = true,
        "bare_lf in chunks",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    ),
    (
        |r| r.both_lengths = true,
        "both_lengths",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        |r| r.equal_lengths = true,
        "equal_lengths",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (|r| r.missing_host = true, "missing_host", b"GET / HTTP/1.1\r\n\r\n"),
    (|r| r.odd_targets = true, "odd_targets", b"GET /{a|b}#\" HTTP/1.1\r\nHost: x\r\n\r\n"),
];

fn lenient(change: Change) -> Http<Site> {
    let mut rules = Rules::default();
    change(&mut rules);
    Http::with_rules(Site, Arc::new(rules)).unwrap()
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

#[test]
fn rules_that_cannot_work_are_refused() {
    let mut rules = Rules::default();
    rules.line_max = rules.head_max + 1;
    let refused = Http::with_rules(Site, Arc::new(rules)).unwrap_err();
    assert!(refused.to_string().contains("line_max"), "{refused}");
}
