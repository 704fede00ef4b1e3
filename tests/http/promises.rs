//! Sentences of the documentation that no other test holds to their word.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{Handler, Header, Http, Limits, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{CloseKind, Context, Input, Note, Outcome, Protocol};

use crate::answer::only;

type Calls = Arc<Mutex<Vec<String>>>;

/// Collects each body, when it is asked to, and notes what it is shown.
struct Collecting {
    calls: Calls,
    when: When,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    /// In `request`, and then an answer begins.
    BeforeStart,
    /// With each part of the body.
    InBody,
    /// In `request`, of every second request.
    EverySecond,
}

impl Handler for Collecting {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        if self.when == When::BeforeStart {
            response.collect();
            response.start(cx, Status::OK, &[Header::TEXT]);
        }
        if self.when == When::EverySecond && response.number() % 2 == 0 {
            response.collect();
        }
        Ok(())
    }

    fn body(&mut self, _: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        if self.when == When::InBody {
            response.collect();
        }
        self.calls.lock().unwrap().push(format!("part {}", part.escape_ascii()));
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        self.calls.lock().unwrap().push("complete".to_owned());
        response.send(cx, Status::OK, &[Header::TEXT], "parts");
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        self.calls.lock().unwrap().push(format!("collected {}", body.escape_ascii()));
        if response.is_due() {
            response.send(cx, Status::OK, &[Header::TEXT], body);
        } else {
            response.write(cx, body);
            response.finish(cx);
        }
        Ok(())
    }
}

fn calls_of(when: When) -> (Vec<String>, Vec<u8>) {
    let calls = Calls::default();
    let handler = Collecting { calls: Arc::clone(&calls), when };
    let mut probe = Probe::new(Http::new(handler));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n");
    probe.receive(b"abc");
    probe.receive(b"def");
    let body = only(&probe.sent()).body.clone();
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    (calls, body)
}

#[test]
fn a_body_is_collected_whole_though_its_answer_has_begun() {
    let (calls, body) = calls_of(When::BeforeStart);
    assert_eq!(calls, ["collected abcdef"]);
    assert_eq!(body, b"abcdef");
}

#[test]
fn collect_is_dropped_once_the_body_comes_in_parts() {
    let (calls, body) = calls_of(When::InBody);
    assert_eq!(calls, ["part abc", "part def", "complete"]);
    assert_eq!(body, b"parts");
}

#[test]
fn after_a_body_in_parts_the_next_one_can_be_collected() {
    let calls = Calls::default();
    let handler = Collecting { calls: Arc::clone(&calls), when: When::EverySecond };
    let mut probe = Probe::new(Http::new(handler));
    for body in ["abc", "def", "ghi"] {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        probe.receive(format!("{head}{body}").as_bytes());
    }
    let expected = ["part abc", "complete", "collected def", "part ghi", "complete"];
    assert_eq!(*calls.lock().unwrap(), expected);
}

/// Streams a body in, and answers when a note comes.
struct Later;

impl Handler for Later {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note, response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::TEXT], "enough\n");
        Ok(())
    }
}

#[test]
fn bytes_that_came_before_a_late_answer_do_not_count_as_unwanted() {
    let unwanted = Limits::default().discard_max as usize;
    // As many as are dropped at most, and one more. The head of the answer says which.
    for (rest, kept) in [(1, true), (unwanted, true), (unwanted + 1, false)] {
        let mut probe = Probe::new(Http::new(Later));
        let length = 2 * unwanted + rest;
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        probe.receive(head.as_bytes());
        probe.receive(&vec![b'a'; 2 * unwanted]);
        probe.notify(Note::new(()));
        let answer = probe.sent();
        assert_eq!(only(&answer).body, b"enough\n");
        let says_close = answer.windows(17).any(|part| part == b"connection: close");
        assert_eq!(says_close, !kept, "{rest} bytes to come");
        probe.receive(&vec![b'a'; rest]);
        assert_eq!(probe.is_finished(), !kept, "{rest} bytes to come");
    }
}

#[test]
fn bytes_that_came_before_a_late_answer_still_pay_for_the_rate() {
    let mut probe = Probe::new(Http::new(Later));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n");
    probe.receive(&[b'a'; 100_000]);
    probe.notify(Note::new(()));
    probe.receive(b"a");
    assert_eq!(only(&probe.sent()).status, 200);
    probe.advance(Duration::from_millis(10_500));
    assert!(!probe.is_finished(), "the first ten seconds have brought enough");
    probe.advance(Duration::from_secs(10));
    assert!(probe.is_finished());
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Refused(408));
    assert_eq!(probe.sent(), b"", "a second answer");
}

#[test]
fn of_a_chunked_body_the_bytes_after_a_late_answer_are_bounded() {
    let unwanted = Limits::default().discard_max as usize;
    let chunk = [b"1000\r\n".as_slice(), &[b'a'; 0x1000], b"\r\n"].concat();
    let mut probe = Probe::new(Http::new(Later));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..2 * unwanted / chunk.len() {
        probe.receive(&chunk);
    }
    probe.notify(Note::new(()));
    let mut dropped = 0;
    while !probe.is_finished() {
        dropped += chunk.len();
        assert!(dropped < unwanted + 2 * chunk.len(), "{dropped} bytes were read and dropped");
        probe.receive(&chunk);
    }
    assert!(dropped > unwanted, "it closed after {dropped} bytes");
}

/// Upgrades to a protocol of this name.
struct To(&'static str);

struct Next;

impl Protocol for Next {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

impl Handler for To {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        if let Err(refused) = response.upgrade(cx, self.0, &[], Next) {
            response.send(cx, Status::OK, &[Header::TEXT], refused.to_string());
        }
        Ok(())
    }
}

#[test]
fn an_upgrade_names_a_protocol_and_perhaps_its_version() {
    let begins = |name: &'static str| {
        let mut probe = Probe::new(Http::new(To(name)));
        probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n");
        probe.sent()[9..12].to_vec()
    };
    for right in ["websocket", "irc/6.9", "a/b"] {
        assert_eq!(begins(right), b"101", "{right:?}");
    }
    for wrong in ["", "/", "a/", "/b", "a//b", "a/b/c", "a b", "a\r\nb"] {
        assert_eq!(begins(wrong), b"200", "{wrong:?}");
    }
}

#[test]
fn a_request_line_that_ends_in_lf_alone_has_its_whole_bound() {
    let mut limits = Limits::default();
    (limits.line_max, limits.bare_lf) = (40, true);
    let limits = limits.validate().unwrap();
    for (end, fits) in [("\r\n", 40 - "GET / HTTP/1.1\r\n".len()), ("\n", 40 - 15)] {
        for (extra, status) in [(fits, 200), (fits + 1, 414)] {
            for begins in ["", "\r\n"] {
                let path = "a".repeat(extra);
                let head = format!("{begins}GET /{path} HTTP/1.1{end}Host: x{end}{end}");
                let mut probe = Probe::new(Http::with_limits(crate::site::Site, &limits));
                probe.receive(head.as_bytes());
                assert_eq!(only(&probe.sent()).status, status, "{}", head.escape_debug());
            }
        }
    }
}
