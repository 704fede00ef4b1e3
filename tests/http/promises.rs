//! Sentences of the documentation that no other test holds to their word.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{
    ClientRequest, Event, Handler, Header, Http, Limits, Request, Response, Status,
};
use lariat::sim::Probe;
use lariat::{CloseKind, CloseReason, Context, Input, Note, Outcome, Protocol, Timer};

use crate::answer::only;
use crate::kit::{narrow, serve};
use crate::site::on;

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

struct Next;

impl Protocol for Next {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn an_upgrade_names_a_protocol_and_perhaps_its_version() {
    let begins = |name: &'static str| {
        let mut probe = Probe::new(Http::new(on(move |cx, _, response| {
            if let Err(refused) = response.upgrade(cx, name, &[], Next) {
                response.send(cx, Status::OK, &[Header::TEXT], refused.to_string());
            }
            Ok(())
        })));
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

/// Answers with the first part of a body.
struct First;

impl Handler for First {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, _: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::TEXT], "enough\n");
        Ok(())
    }
}

#[test]
fn a_whole_body_has_its_time_once_also_when_it_is_answered_on_its_way() {
    let mut limits = Limits::default();
    limits.body_total = Some(Duration::from_secs(20));
    let limits = limits.validate().unwrap();
    let mut probe = Probe::new(Http::with_limits(First, &limits));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n");
    probe.advance(Duration::from_secs(9));
    for second in 9..20 {
        assert!(!probe.is_finished(), "it ended after {second} s");
        probe.receive(&[b'a'; 4000]);
        probe.advance(Duration::from_secs(1));
    }
    assert_eq!(only(&probe.sent()).status, 200);
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Refused(408));
}

#[test]
fn each_of_two_requests_has_the_whole_time_for_its_answer() {
    let mut probe = Probe::new(Http::new(Later));
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    probe.receive(&[request.as_slice(), request].concat());
    probe.advance(Duration::from_secs(59));
    probe.notify(Note::new(()));
    assert_eq!(only(&probe.sent()).status, 200);
    probe.advance(Duration::from_millis(59_990));
    assert_eq!(probe.sent(), b"");
    probe.advance(Duration::from_millis(20));
    assert_eq!(only(&probe.sent()).status, 503);
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Refused(503));
}

/// Upgrades each request, and notes its own end.
struct Leaving(Calls);

impl Handler for Leaving {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        match request.upgrade() {
            Some(name) => response.upgrade(cx, name, &[], Next)?,
            None => response.send(cx, Status::OK, &[], ""),
        }
        Ok(())
    }

    fn timeout(&mut self, _: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        response.close_after();
        Ok(())
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_secs(1));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
        self.0.lock().unwrap().push("closed".to_owned());
    }
}

#[test]
fn a_handler_hears_of_the_end_unless_another_protocol_has_taken_over() {
    for (upgrade, expected) in [("", &["closed"][..]), ("Connection: upgrade\r\n", &[])] {
        let calls = Calls::default();
        let mut probe = Probe::new(Http::new(Leaving(Arc::clone(&calls))));
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: a\r\n{upgrade}\r\n");
        probe.receive(head.as_bytes());
        probe.finish();
        probe.advance(Duration::from_secs(20));
        assert!(probe.is_finished());
        assert_eq!(*calls.lock().unwrap(), expected, "{upgrade:?}");
    }
}

#[test]
fn close_after_does_nothing_between_requests() {
    let mut probe = Probe::new(Http::new(Leaving(Calls::default())));
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    probe.receive(request);
    assert_eq!(only(&probe.sent()).status, 200);
    probe.advance(Duration::from_secs(2));
    probe.receive(request);
    assert!(!only(&probe.sent()).closes() && !probe.is_finished());
}

#[test]
fn a_clients_request_line_is_one_that_a_server_takes() {
    let line = "GET /".len() + " HTTP/1.1\r\n".len();
    let made = |path: usize| ClientRequest::get("x", &format!("/{}", "a".repeat(path)));
    assert!(made(8192 - line).is_ok());
    assert!(made(8192 - line + 1).is_err());
    assert!(ClientRequest::get("x", "*").is_err());
    assert!(ClientRequest::new("OPTIONS", "x", "*").is_ok());
}

#[test]
fn a_nul_is_in_no_name_of_an_event_and_a_status_without_a_constant_has_no_words() {
    assert!(Event::new("").named("a\0b").is_err());
    assert!(Event::new("a\0b").named("tick").is_ok());
    for code in [102, 203, 402, 428, 599] {
        assert_eq!(Status::new(code).unwrap().reason(), "Unknown");
    }
    assert_eq!(Status::TOO_MANY_REQUESTS.reason(), "Too Many Requests");
}

/// Pauses for a while at the first part of a body.
struct Pausing(bool);

impl Handler for Pausing {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, _: &[u8], _: &mut Response) -> Outcome {
        if !std::mem::replace(&mut self.0, true) {
            cx.pause_reading();
            cx.set_timer(Timer::new(1), Duration::from_millis(9_500));
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, _: &mut Response) -> Outcome {
        cx.resume_reading();
        Ok(())
    }
}

#[test]
fn time_in_a_pause_that_is_over_does_not_count_against_the_client() {
    let mut probe = Probe::new(Http::new(Pausing(false)));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\na");
    // Its ten seconds begin with the end of the pause; a byte does not begin them again.
    probe.advance(Duration::from_millis(9_400));
    probe.advance(Duration::from_millis(5_000));
    probe.receive(b"b");
    probe.advance(Duration::from_millis(5_000));
    assert_eq!(probe.sent(), b"", "at 19.4 s");
    probe.advance(Duration::from_millis(300));
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn time_in_flow_control_that_is_over_does_not_count_against_the_client() {
    let mut limits = Limits::default();
    limits.body_rate = 1 << 20;
    let limits = limits.validate().unwrap();
    let mut sim = narrow();
    let addr = serve(&mut sim, move || Http::with_limits(crate::site::Site, &limits));
    let client = sim.dial(addr);
    client.stop_reading();
    client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n");
    client.send(&[b'a'; 400_000]);
    sim.run_for(Duration::from_millis(9_500)).unwrap();
    assert_eq!(sim.metrics().held, 1);
    client.resume_reading();
    sim.run_for(Duration::from_millis(1_500)).unwrap();
    assert!(sim.metrics().held == 0 && !client.is_finished(), "at 11 s");
    sim.run_for(Duration::from_secs(10)).unwrap();
    assert!(client.is_finished(), "at 21 s");
}

/// Answers at once, or later, and notes what it is told of the end of the driver.
struct Stopping(Calls, bool);

impl Handler for Stopping {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        if self.1 {
            response.send(cx, Status::OK, &[Header::TEXT], "at once\n");
        }
        Ok(())
    }

    fn stopping(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        self.0.lock().unwrap().push("stopping".to_owned());
        response.send(cx, Status::OK, &[Header::TEXT], "late\n");
        Ok(())
    }
}

#[test]
fn only_a_request_that_is_not_answered_is_told_that_the_driver_stops() {
    for (at_once, expected) in [(false, &["stopping"][..]), (true, &[])] {
        let calls = Calls::default();
        let mut probe = Probe::new(Http::new(Stopping(Arc::clone(&calls), at_once)));
        probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
        probe.shutdown();
        assert_eq!(*calls.lock().unwrap(), expected, "answered at once: {at_once}");
        let body: &[u8] = if at_once { b"at once\n" } else { b"late\n" };
        assert_eq!(only(&probe.sent()).body, body);
        assert!(probe.is_finished());
    }
}

#[test]
fn the_end_of_a_request_is_heard_once_unless_its_driver_is_dropped() {
    for runs in [true, false] {
        let calls = Calls::default();
        let heard = Arc::clone(&calls);
        let request = ClientRequest::get("x", "/").unwrap();
        let client = request.then(move |_, result| {
            heard.lock().unwrap().push(result.unwrap_err().to_string());
        });
        let mut sim = lariat::sim::Sim::new(1);
        sim.control().connect("10.0.0.1:80", client);
        if runs {
            sim.run_for(Duration::from_secs(60)).unwrap();
        }
        drop(sim);
        let calls = calls.lock().unwrap();
        assert_eq!(calls.len(), usize::from(runs), "{calls:?}");
        assert!(calls.iter().all(|said| said.starts_with("the connection ended first: ")));
    }
}
