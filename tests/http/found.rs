//! What was found by attacking it, and stays mended.

use std::time::Duration;

use lariat::http::{self, ClientRequest, Handler, Header, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{Context, Outcome, Timer};

/// Answers `/late` after 200 ms, for which it does not want to read; `/pause` at once, but paused;
/// anything else at once. A timer that fires with no request there fails.
struct Moody;

const LATER: Timer = Timer::new(1);
const FAIL: Timer = Timer::new(2);

impl Handler for Moody {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        match request.path() {
            "/late" => {
                cx.pause_reading();
                cx.set_timer(LATER, Duration::from_millis(200));
            }
            "/big" => cx.set_timer(LATER, Duration::from_millis(1)),
            "/fail" => {
                cx.set_timer(FAIL, Duration::from_millis(1));
                response.send(cx, Status::OK, &[], b"fine");
            }
            "/pause" => {
                cx.pause_reading();
                response.send(cx, Status::OK, &[], b"paused");
            }
            _ => response.send(cx, Status::OK, &[], b"ok"),
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer, response: &mut Response) -> Outcome {
        if timer == FAIL {
            return Err("nobody asked".into());
        }
        response.send(cx, Status::UNAUTHORIZED, &[], vec![b'x'; 100_000]);
        Ok(())
    }
}

fn answers(probe: &mut Probe) -> String {
    String::from_utf8_lossy(&probe.sent()).into_owned()
}

#[test]
fn h13_a_target_cannot_split_the_request_of_a_client() {
    for target in
        ["/ HTTP/1.1\r\nx: y\r\nz:", "/x HTTP/1.1\r\nhost: q\r\n\r\nGET /admin", "/a b", "/a\r\n"]
    {
        assert!(ClientRequest::get("h", target).is_err(), "{target:?}");
    }
    assert!(ClientRequest::get("h", "/a?b=c").is_ok());
    assert!(Header::new("host", "other").is_err());
}

#[test]
fn h15_each_head_has_a_deadline_of_its_own() {
    let mut probe = Probe::new(Http::new(Moody));
    probe.receive(b"G");
    for _ in 0..50 {
        probe.advance(Duration::from_secs(1));
        // The end of one head and the beginning of the next in one read.
        probe.receive(b"ET / HTTP/1.1\r\nHost: x\r\n\r\nG");
        assert!(answers(&mut probe).starts_with("HTTP/1.1 200 "));
    }
    probe.advance(Duration::from_secs(11));
    assert!(answers(&mut probe).starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_pause_ends_with_the_answer_although_the_body_is_not_read() {
    for path in ["/late", "/pause"] {
        let mut probe = Probe::new(Http::new(Moody));
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
        probe.receive(head.as_bytes());
        probe.advance(Duration::from_secs(1));
        probe.receive(b"helloGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let answers = answers(&mut probe);
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{path}: {answers}");
        assert!(answers.ends_with("ok"), "{path}");
    }
}

#[test]
fn h10_late_answers_wait_for_room_as_well() {
    use lariat::sim::Sim;
    let mut sim = Sim::new(1);
    let listener = sim.listen("127.0.0.1:80", |_| Some(Http::new(Moody))).unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    client.stop_reading();
    client.send(&b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200));
    sim.run_for(Duration::from_secs(5)).unwrap();
    let most = sim.metrics().buffered;
    assert!(most < 400_000, "{most} bytes wait for a client that does not read");
    client.resume_reading();
    sim.run_for(Duration::from_secs(5)).unwrap();
    let received = client.take_received();
    let answers = received.windows(13).filter(|bytes| *bytes == b"HTTP/1.1 401 ").count();
    assert_eq!(answers, 200);
}

#[test]
fn h15_what_came_fast_buys_no_silence() {
    let mut probe = Probe::new(Http::new(Moody));
    probe.receive(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    probe.receive(&[b'x'; 200_000]);
    probe.advance(Duration::from_secs(25));
    // It is answered already; the connection is what must not stay.
    assert!(probe.closed().is_some() || !answers(&mut probe).is_empty());
    probe.advance(Duration::from_secs(10));
    assert!(probe.closed().is_some(), "it is still open");
}

#[test]
fn h15_a_total_is_a_total_however_often_reading_pauses() {
    /// Reads with pauses, and never answers.
    struct Pausing;
    impl Handler for Pausing {
        fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
            Ok(())
        }
        fn body(&mut self, cx: &mut Context<'_>, _: &[u8], _: &mut Response) -> Outcome {
            cx.pause_reading();
            cx.set_timer(LATER, Duration::from_millis(900));
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, _: &mut Response) -> Outcome {
            cx.resume_reading();
            Ok(())
        }
    }
    let mut limits = http::Limits::default();
    limits.body_total = Some(Duration::from_secs(4));
    limits.body_grace = Duration::from_secs(1);
    let mut probe = Probe::new(Http::with_limits(Pausing, &limits.validate().unwrap()));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    for _ in 0..8 {
        probe.receive(&[b'x'; 2048]);
        probe.advance(Duration::from_secs(1));
    }
    assert!(answers(&mut probe).starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_error_while_nobody_waits_is_no_answer() {
    let mut probe = Probe::new(Http::new(Moody));
    probe.receive(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n");
    probe.advance(Duration::from_secs(1));
    let answers = answers(&mut probe);
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
}

#[test]
fn an_empty_line_behind_a_body_begins_nothing() {
    for cut in [false, true] {
        let mut probe = Probe::new(Http::new(Moody));
        probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        if cut {
            probe.receive(b"\r");
            probe.receive(b"\n");
        } else {
            probe.receive(b"\r\n");
        }
        probe.advance(Duration::from_secs(30));
        assert!(probe.closed().is_none(), "a head has been waited for");
        probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(answers(&mut probe).matches("HTTP/1.1 200 ").count(), 2);
        probe.receive(b"\r\n");
        probe.finish();
        assert_eq!(answers(&mut probe), "");
    }
}

#[test]
fn an_empty_line_behind_each_of_many_bodies_begins_nothing() {
    let mut probe = Probe::new(Http::new(Moody));
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\r\n";
    for _ in 0..40 {
        probe.receive(request);
        probe.advance(Duration::from_secs(30));
        assert!(probe.closed().is_none(), "a head has been waited for");
    }
    assert_eq!(answers(&mut probe).matches("HTTP/1.1 200 ").count(), 40);
    // Many at once are the beginning of a head, which has a deadline.
    probe.receive(&b"\r\n".repeat(16));
    probe.advance(Duration::from_secs(11));
    assert_eq!(answers(&mut probe).matches("HTTP/1.1 408 ").count(), 1);
}

#[test]
fn what_is_no_request_is_answered_whole_whatever_the_request_before_it_was() {
    let before = ["HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"];
    for (before, is_head) in before.into_iter().zip([true, false]) {
        let mut probe = Probe::new(Http::new(Moody));
        probe.receive(format!("{before}no request\r\n\r\n").as_bytes());
        let sent = probe.sent();
        let mut rest = &sent[..];
        assert_eq!(crate::answer::take(&mut rest, is_head, false).unwrap().status, 200);
        let refusal = crate::answer::only(rest);
        assert_eq!((refusal.status, refusal.closes()), (400, true));
        assert_eq!(refusal.body, b"400 Bad Request\n");
    }
}
