//! Why a connection of HTTP ended: what was refused has a reason of its own, on every driver.

use std::time::Duration;

use lariat::http::{self, Handler, Header, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{By, CloseKind, Context, Limits, Outcome};

use crate::answer::{all, only};
use crate::kit::{Step, everywhere, says, talk};
use crate::site::{Site, on};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Wrong requests, with the status and the words that each is refused with.
const WRONG: [(&str, u16, &str); 30] = [
    ("GET / HTTP/1.1\r\n\r\n", 400, "no host"),
    ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "a second host"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "a host that is none"),
    ("GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "a target that this method cannot have"),
    ("GET / HTTP/1.1\r\nHost x\r\n\r\n", 400, "a head that cannot be parsed"),
    ("GET / HTTP/1.x\r\nHost: x\r\n\r\n", 400, "a version that is none"),
    ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "a version other than 1.0 and 1.1"),
    ("GET / HTTP/1.1\r\nHost", 400, "the connection ended within a head"),
    ("\x16\x03\x01", 400, "this does not begin a request"),
    ("GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417, "an unknown expectation"),
    ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "CONNECT, which is not allowed"),
    ("L: 5x", 400, "a content-length that is no number"),
    ("L: 5\r\nContent-Length: 5", 400, "a second content-length"),
    ("L: 5\r\nTransfer-Encoding: chunked", 400, "both content-length and transfer-encoding"),
    ("T: gzip", 400, "chunked is not the last transfer coding"),
    ("T: chunked, gzip", 400, "a transfer coding behind chunked"),
    ("T: gzip, chunked", 501, "an unknown transfer coding"),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "a transfer coding in HTTP/1.0"),
    ("L: 5\r\n\r\nabc", 400, "the connection ended within a body"),
    ("L: 2000000", 413, "a body too large to collect"),
    ("C: x\r\n", 400, "a chunk size that is no number, or too large"),
    ("C: 3\nabc", 400, "a line of a chunked body ends in LF alone"),
    ("C: 3\r\nabcd\r\n", 400, "a chunk that is longer than its size"),
    ("C: 3 x\r\n", 400, "a chunk extension that is none"),
    ("C: 0\r\n: x\r\n", 400, "a trailer that is none"),
    ("longline", 414, "a request line that is too long"),
    ("longhead", 431, "a head that is too long"),
    ("many", 431, "too many headers"),
    ("longchunk", 400, "a chunk line that is too long"),
    ("longtrailers", 431, "trailers that are too long"),
];

fn request(short: &str) -> Vec<u8> {
    let post = "POST / HTTP/1.1\r\nHost: x\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let text = match short.split_once(": ") {
        Some(("L", rest)) if rest.contains("\r\n\r\n") => format!("{post}Content-Length: {rest}"),
        Some(("L", rest)) => format!("{post}Content-Length: {rest}\r\n\r\n"),
        Some(("T", rest)) => format!("{post}Transfer-Encoding: {rest}\r\n\r\n"),
        Some(("C", rest)) => format!("{chunked}{rest}"),
        _ => match short {
            "longline" => format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000)),
            "longhead" => format!("{post}A: {}\r\n\r\n", "a".repeat(33_000)),
            "many" => format!("{post}{}\r\n", "A: b\r\n".repeat(100)),
            "longchunk" => format!("{chunked}3;{}", "a".repeat(300)),
            "longtrailers" => format!("{chunked}0\r\nA: {}", "a".repeat(9000)),
            whole => whole.to_owned(),
        },
    };
    text.into_bytes()
}

#[test]
fn what_is_refused_has_its_status_and_its_words_for_a_reason_on_every_driver() {
    everywhere(|driver, told| {
        let before = driver.metrics().closes;
        let scripts = WRONG.iter().map(|(short, ..)| says(&request(short))).collect();
        let talks = talk(driver, &Limits::default(), || Http::new(Site), scripts);
        for (talk, (short, status, words)) in talks.iter().zip(WRONG) {
            let answer = only(&talk.heard);
            let reason = talk.reason();
            assert!(answer.status == status && answer.closes(), "{short:?} on {told}: {answer:?}");
            assert_eq!(reason.kind(), CloseKind::Refused(status), "{short:?} on {told}");
            assert_eq!(reason.by(), By::Us, "{short:?} on {told}");
            assert_eq!(reason.error().unwrap().to_string(), words, "on {told}");
            let sentence = format!("refused with {status} by us ({words}): ");
            assert!(reason.to_string().starts_with(&sentence), "{reason} on {told}");
            // The client sees an orderly end.
            assert_eq!(talk.client().kind(), CloseKind::Finished, "{short:?} on {told}");
        }
        let after = driver.metrics().closes;
        assert_eq!(after.refused - before.refused, WRONG.len() as u64, "on {told}");
        // Of the clients.
        assert_eq!(after.finished - before.finished, WRONG.len() as u64, "on {told}");
        assert_eq!(after.total() - before.total(), 2 * WRONG.len() as u64, "on {told}");
    });
}

#[test]
fn what_comes_late_or_without_end_has_its_words_for_a_reason() {
    let mut limits = http::Limits::default();
    (limits.head_max, limits.line_max, limits.extensions_max) = (300, 64, 9);
    limits.connect = true;
    let limits = limits.validate().unwrap();
    let chunks = "1;abcd\r\nx\r\n".repeat(2);
    let cases = [
        (request(&format!("C: {chunks}")), 0, 400, "chunk extensions without end"),
        (b"\r\n".repeat(170), 0, 431, "empty lines without end"),
        (
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na".to_vec(),
            0,
            400,
            "a CONNECT with a body",
        ),
        (b"GET / HT".to_vec(), 11, 408, "a head that did not come in time"),
        (request("L: 5"), 11, 408, "a body that did not come in time"),
        (
            b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            61,
            503,
            "no answer of the handler in time",
        ),
    ];
    for (bytes, seconds, status, words) in cases {
        let mut probe = Probe::new(Http::with_limits(Site, &limits));
        probe.receive(&bytes);
        probe.advance(Duration::from_secs(seconds));
        let answer = only(&probe.sent());
        assert!(answer.status == status && answer.closes(), "{words}: {answer:?}");
        probe.finish();
        let reason = probe.closed().unwrap();
        assert_eq!(reason.kind(), CloseKind::Refused(status), "{words}");
        assert_eq!(reason.error().unwrap().to_string(), words);
    }
}

#[test]
fn what_is_wrong_behind_right_requests_is_refused_after_their_answers() {
    everywhere(|driver, told| {
        let bytes = [GET, GET, "bad\r\n", GET].concat();
        let talks =
            talk(driver, &Limits::default(), || Http::new(Site), vec![says(bytes.as_bytes())]);
        let (answers, _) = all(&talks[0].heard);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 200, 400], "on {told}");
        assert_eq!(talks[0].reason().kind(), CloseKind::Refused(400), "on {told}");
    });
}

#[test]
fn an_end_in_order_and_one_of_the_handlers_are_not_refusals() {
    let fails = || {
        Http::new(on(|cx, request, response| {
            if request.path() == "/fail" {
                return Err("as it was asked to".into());
            }
            response.close_after();
            response.send(cx, Status::BAD_REQUEST, &[Header::TEXT], "the handler says so\n");
            Ok(())
        }))
    };
    everywhere(|driver, told| {
        let fail = b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n";
        let scripts = vec![says(GET.as_bytes()), says(fail)];
        let talks = talk(driver, &Limits::default(), fails, scripts);
        let ends: Vec<_> =
            talks.iter().map(|talk| (only(&talk.heard).status, talk.reason().kind())).collect();
        assert_eq!(ends, [(400, CloseKind::Finished), (500, CloseKind::Protocol)], "on {told}");
        assert_eq!(driver.metrics().closes.refused, 0, "on {told}");
    });
}

/// Begins its answer when a part of the body comes, and fails at `!`.
struct Streams;

impl Handler for Streams {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        if response.is_due() {
            response.start(cx, Status::OK, &[]);
        }
        response.write(cx, part);
        if part.contains(&b'!') { Err("as it was asked to".into()) } else { Ok(()) }
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_never_ended_in_order_when_it_is_cut() {
    everywhere(|driver, told| {
        let old = |body: &str| {
            let head = "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n";
            let began = vec![Step::Send(head.into()), Step::Send(body.into())];
            [began, vec![Step::Until(b"ab"), Step::Finish]].concat()
        };
        let new =
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n";
        let mut fails = old("ab");
        fails.truncate(3);
        fails.push(Step::Send(b"!".to_vec()));
        let scripts = vec![old("ab"), fails, says(new)];
        let talks = talk(driver, &Limits::default(), || Http::new(Streams), scripts);
        let kinds = |at: usize| (talks[at].reason().kind(), talks[at].client().kind());
        assert_eq!(kinds(0), (CloseKind::Refused(400), CloseKind::Reset), "on {told}");
        assert_eq!(kinds(1), (CloseKind::Protocol, CloseKind::Reset), "on {told}");
        // Chunks say themselves that their end is missing.
        assert_eq!(kinds(2), (CloseKind::Refused(400), CloseKind::Finished), "on {told}");
        assert!(talks[2].heard.ends_with(b"\r\n\r\n2\r\nab\r\n"), "on {told}");
    });
}

#[test]
fn shutdown_is_the_reason_of_who_waits_for_a_request() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(GET.as_bytes());
    probe.shutdown();
    probe.finish();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Shutdown);
}
