//! Slow peers and slow handlers, on the simulator's clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{self, Handler, Http, Request, Response, Status, ValidLimits};
use lariat::sim::{Probe, Sim};
use lariat::{
    CloseKind, ConnId, Context, Deadline, DriverLimits, Input, Limits, ListenOptions, Note,
    Outcome, Protocol,
};

use crate::answer::{all, only};
use crate::kit::{Step, everywhere, narrow, serve, serve_with, talk};
use crate::site::{Site, on};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn h15_a_head_that_drips_is_cut_at_its_deadline() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(b"G");
    for _ in 0..9 {
        probe.advance(SECOND);
        probe.receive(b"E");
    }
    assert_eq!(probe.sent(), b"");
    probe.advance(SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn h15_the_second_head_has_its_own_deadline() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(GET);
    probe.advance(30 * SECOND);
    probe.receive(b"GET");
    assert_eq!(only(&probe.sent()).status, 200);
    probe.advance(9 * SECOND);
    assert!(probe.sent().is_empty());
    probe.advance(2 * SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn h15_each_request_gives_an_idle_connection_new_time() {
    let mut probe = Probe::new(Http::new(Site));
    for _ in 0..5 {
        probe.receive(GET);
        probe.advance(59 * SECOND);
    }
    assert_eq!(all(&probe.sent()).0.len(), 5);
    assert!(probe.closed().is_none());
    probe.advance(2 * SECOND);
    assert_eq!(probe.sent(), b"");
    probe.advance(10 * SECOND);
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::TimedOut(Deadline::Idle));
}

#[test]
fn h15_a_body_may_take_its_time_as_long_as_it_keeps_its_rate() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    // 2,000 bytes a second is enough: for 50 s.
    for _ in 0..50 {
        probe.advance(SECOND);
        assert!(probe.sent().is_empty());
        probe.receive(&[b'a'; 2000]);
    }
    assert_eq!(only(&probe.sent()).body, b"100000 bytes\n");
    // 500 a second is not: after 10 s it owes 1,024 more each.
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    let mut seconds = 0;
    let answer = loop {
        probe.advance(SECOND);
        seconds += 1;
        let sent = probe.sent();
        if !sent.is_empty() {
            break only(&sent);
        }
        probe.receive(&[b'a'; 500]);
    };
    assert!(answer.status == 408 && (18..=21).contains(&seconds), "{seconds} s, {answer:?}");
}

#[test]
fn h15_each_body_has_a_deadline_of_its_own() {
    let mut probe = Probe::new(Http::new(Site));
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n";
    probe.receive(&[&head[..], b"a"].concat());
    for _ in 0..5 {
        probe.advance(9 * SECOND);
        // The end of one body and the beginning of the next in one read.
        probe.receive(&[b"b", &head[..], b"a"].concat());
        assert_eq!(only(&probe.sent()).body, b"2 bytes\n");
    }
    probe.advance(11 * SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn h15_the_time_in_which_an_answer_is_not_read_is_not_the_clients_fault() {
    let mut sim = narrow();
    let addr = serve(&mut sim, || Http::new(Site));
    let client = sim.dial(addr);
    client.stop_reading();
    let count = 4 << 20;
    client.send(
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {count}\r\n\r\n").as_bytes(),
    );
    client.send(&vec![b'a'; count]);
    // The server has stopped reading, because the client has. It reads a little now and then.
    for _ in 0..8 {
        sim.run_for(25 * SECOND).unwrap();
        client.resume_reading();
        sim.run_for(MS / 5).unwrap();
        client.stop_reading();
    }
    let (metrics, sent) = (sim.metrics(), 3 << 20);
    assert!(metrics.open == 1 && metrics.bytes_in < sent, "{metrics:?}");
    client.resume_reading();
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(only(&client.take_received()).body.len(), count);
}

#[test]
fn h15_a_body_is_not_late_while_what_was_answered_before_it_is_not_read() {
    // Less than stops reading, and more than the link takes in.
    for (count, unread) in [(1000, false), (200_000, true)] {
        let mut sim = narrow();
        let mut options = ListenOptions::default();
        (options.limits.high_mark, options.limits.write_stall) = (1 << 20, 1000 * SECOND);
        let answers = move |cx: &mut Context<'_>, _: &Request<'_>, response: &mut Response| {
            response.start(cx, Status::OK, &[]);
            response.write(cx, vec![b'a'; count]);
            Ok(())
        };
        let addr = serve_with(&mut sim, options, move || Http::new(on(answers)));
        let client = sim.dial(addr);
        client.stop_reading();
        client.send(POST);
        sim.run_for(SECOND).unwrap();
        let metrics = sim.metrics();
        assert_eq!((metrics.buffered > 0, metrics.held, metrics.paused), (unread, 0, 0));
        sim.run_for(50 * SECOND).unwrap();
        assert_eq!(sim.metrics().open, u64::from(unread), "{count} bytes");
        client.resume_reading();
        sim.run_for(9 * SECOND).unwrap();
        assert_eq!(sim.metrics().open, u64::from(unread), "{count} bytes: it has its time again");
        sim.run_for(12 * SECOND).unwrap();
        assert_eq!(sim.metrics().open, 0, "{count} bytes");
    }
}

#[test]
fn h15_a_whole_body_can_have_a_deadline_too() {
    let mut limits = http::Limits::default();
    limits.body_total = Some(20 * SECOND);
    let mut probe = Probe::new(Http::with_limits(Site, &limits.validate().unwrap()));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    for _ in 0..19 {
        probe.advance(SECOND);
        probe.receive(&[b'a'; 10_000]);
    }
    assert!(probe.sent().is_empty());
    probe.advance(2 * SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn h15_each_whole_body_has_a_deadline_of_its_own() {
    let mut limits = http::Limits::default();
    (limits.body_total, limits.body_grace) = (Some(20 * SECOND), 2 * SECOND);
    let mut probe = Probe::new(Http::with_limits(Site, &limits.validate().unwrap()));
    for _ in 0..3 {
        probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n");
        for _ in 0..15 {
            probe.advance(SECOND);
            probe.receive(&[b'a'; 10_000]);
        }
        assert_eq!(only(&probe.sent()).body, b"150000 bytes\n");
        // Nor does its time begin before it.
        probe.advance(30 * SECOND);
    }
}

#[test]
fn a_handler_that_never_answers_is_answered_for_and_others_are_served() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
    probe.advance(59 * SECOND);
    assert!(probe.sent().is_empty());
    probe.advance(2 * SECOND);
    let answer = only(&probe.sent());
    assert!(answer.status == 503 && answer.closes());
}

// ---- each time among the limits -----------------------------------------------------------------

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
const NEVER: &[u8] = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n";
const IDLE: CloseKind = CloseKind::TimedOut(Deadline::Idle);

/// A time, what begins it, and how it ends.
struct Time {
    field: &'static str,
    set: fn(&mut http::Limits, Duration),
    /// What is sent first, apart from what is answered at once.
    sent: &'static [&'static [u8]],
    end: CloseKind,
}

const TIMES: [Time; 9] = [
    Time { field: "head, of nothing", set: |l, time| l.head = time, sent: &[], end: IDLE },
    Time {
        field: "head",
        set: |l, time| l.head = time,
        sent: &[b"GET / HT"],
        end: CloseKind::Refused(408),
    },
    Time {
        field: "head, of a second request",
        set: |l, time| l.head = time,
        sent: &[GET, b"G"],
        end: CloseKind::Refused(408),
    },
    Time {
        field: "head, behind a request in the same read",
        set: |l, time| l.head = time,
        sent: &[b"GET / HTTP/1.1\r\nHost: x\r\n\r\nG"],
        end: CloseKind::Refused(408),
    },
    Time { field: "keep_alive", set: |l, time| l.keep_alive = time, sent: &[GET], end: IDLE },
    Time {
        field: "body_grace",
        set: |l, time| l.body_grace = time,
        sent: &[POST],
        end: CloseKind::Refused(408),
    },
    Time {
        field: "body_grace, of chunks",
        set: |l, time| l.body_grace = time,
        sent: &[b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"],
        end: CloseKind::Refused(408),
    },
    Time {
        field: "body_total",
        set: |l, time| l.body_total = Some(time),
        sent: &[POST, &[b'a'; 50_000]],
        end: CloseKind::Refused(408),
    },
    Time {
        field: "answer",
        set: |l, time| l.answer = time,
        sent: &[NEVER],
        end: CloseKind::Refused(503),
    },
];

impl Time {
    fn limits(&self, time: Duration) -> ValidLimits {
        let mut limits = http::Limits::default();
        (self.set)(&mut limits, time);
        limits.validate().unwrap()
    }

    /// The status of the last answer, if its end has one.
    fn check(&self, heard: &[u8], told: &str) {
        let (answers, rest) = all(heard);
        let last = answers.last().map_or(0, |answer| answer.status);
        match self.end {
            CloseKind::Refused(status) => assert_eq!(last, status, "{} {told}", self.field),
            _ => assert!(last == 0 || last == 200, "{} {told}", self.field),
        }
        assert_eq!(rest, b"", "{} {told}", self.field);
    }
}

#[test]
fn h15_each_time_holds_to_the_millisecond() {
    let limit = Duration::from_millis(700);
    for time in TIMES {
        let mut probe = Probe::new(Http::with_limits(Site, &time.limits(limit)));
        for bytes in time.sent {
            probe.receive(bytes);
        }
        probe.advance(limit - MS);
        assert!(!probe.is_finished(), "{}: cut too early", time.field);
        probe.advance(3 * MS);
        assert!(probe.is_finished(), "{}: not cut", time.field);
        time.check(&probe.sent(), "in a probe");
        probe.finish();
        assert_eq!(probe.closed().unwrap().kind(), time.end, "{}", time.field);
    }
}

#[test]
fn h15_no_time_holds_where_another_one_counts() {
    let (long, short) = (5 * SECOND, SECOND / 2);
    let all_short = || {
        let mut limits = http::Limits::default();
        (limits.head, limits.keep_alive, limits.body_grace) = (short, short, short);
        limits.answer = short;
        limits
    };
    // With a request before it, and as the first.
    for time in TIMES.iter().filter(|time| time.field != "body_total") {
        for before in [&[][..], &[GET]] {
            let mut limits = all_short();
            (time.set)(&mut limits, long);
            let limits = limits.validate().unwrap();
            if time.sent.is_empty() && !before.is_empty() {
                // Only before the first request is a head waited for without a byte of it.
                continue;
            }
            let mut probe = Probe::new(Http::with_limits(Site, &limits));
            before.iter().chain(time.sent).for_each(|bytes| probe.receive(bytes));
            probe.advance(long - MS);
            assert!(!probe.is_finished(), "{}: cut by another time", time.field);
            probe.advance(3 * MS);
            assert!(probe.is_finished(), "{}: not cut", time.field);
            time.check(&probe.sent(), "in a probe");
        }
    }
}

#[test]
fn h15_each_time_is_kept_on_every_driver() {
    for time in TIMES {
        // That of a head also begins before the first byte, which may be late on a busy machine.
        let short = if time.field.starts_with("head") { SECOND } else { 80 * MS };
        let limits = time.limits(short);
        everywhere(|driver, told| {
            let limits = limits.clone();
            let script = time.sent.iter().map(|bytes| Step::Send(bytes.to_vec())).collect();
            let make = move || Http::with_limits(Site, &limits);
            let talks = talk(driver, &Limits::default(), make, vec![script]);
            let reason = talks[0].reason();
            assert_eq!(reason.kind(), time.end, "{} on {told}", time.field);
            // All the others are longer.
            assert!(reason.age() < 8 * SECOND, "{} on {told}: {reason}", time.field);
            time.check(&talks[0].heard, told);
        });
    }
}

#[test]
fn h15_a_body_has_the_time_that_its_bytes_are_worth() {
    let mut limits = http::Limits::default();
    limits.body_grace = Duration::from_millis(300);
    limits.body_rate = 1000;
    let limits = limits.validate().unwrap();
    // A byte is worth a millisecond; bytes that were enough for all of the grace are worth another.
    for (bytes, worth) in [(0, 300), (1, 301), (299, 599), (300, 600), (301, 600), (5000, 600)] {
        let mut probe = Probe::new(Http::with_limits(Site, &limits));
        probe.receive(POST);
        probe.receive(&vec![b'a'; bytes]);
        probe.advance(MS * worth - MS);
        assert!(!probe.is_finished(), "{bytes} bytes: cut too early");
        probe.advance(3 * MS);
        assert_eq!(only(&probe.sent()).status, 408, "{bytes} bytes");
        // What comes with the head has taken no time, and is worth none.
        let mut probe = Probe::new(Http::with_limits(Site, &limits));
        probe.receive(&[POST, &vec![b'a'; bytes]].concat());
        probe.advance(299 * MS);
        assert!(!probe.is_finished(), "{bytes} bytes at once: cut too early");
        probe.advance(3 * MS);
        assert_eq!(only(&probe.sent()).status, 408, "{bytes} bytes at once");
    }
}

#[test]
fn the_idle_limit_of_the_connection_holds_before_and_between_requests_where_it_is_shorter() {
    let short = Duration::from_millis(80);
    let mut keep = http::Limits::default();
    keep.keep_alive = short;
    let keep = keep.validate().unwrap();
    let long = http::Limits::default().validate().unwrap();
    everywhere(|driver, told| {
        let mut idle = Limits::default();
        idle.idle = Some(short);
        let late = [GET, NEVER].concat();
        let scripts = vec![
            vec![],
            vec![Step::Send(GET.to_vec())],
            vec![Step::Send(GET.to_vec()), Step::Until(b"ok\n"), Step::Send(GET.to_vec())],
            // While an answer is due and while a head is, nothing is sent either.
            vec![Step::Send(late)],
            vec![Step::Send(b"GET".to_vec())],
        ];
        let make = |limits: &ValidLimits| {
            let limits = limits.clone();
            move || Http::with_limits(Site, &limits)
        };
        for talk in talk(driver, &idle, make(&long), scripts) {
            let reason = talk.reason();
            assert_eq!(reason.kind(), IDLE, "on {told}");
            assert!(reason.age() < 8 * SECOND, "on {told}: {reason}");
        }
    });
    // And where it is longer, that of HTTP holds.
    everywhere(|driver, told| {
        let mut idle = Limits::default();
        idle.idle = Some(50 * SECOND);
        let limits = keep.clone();
        let make = move || Http::with_limits(Site, &limits);
        let talks = talk(driver, &idle, make, vec![vec![Step::Send(GET.to_vec())]]);
        let reason = talks[0].reason();
        assert!(reason.kind() == IDLE && reason.age() < 8 * SECOND, "on {told}: {reason}");
    });
}

#[test]
fn the_idle_limit_between_requests_holds_to_the_millisecond() {
    // 20 s of the connection, 60 s of HTTP.
    let mut sim = Sim::new(0);
    let mut options = ListenOptions::default();
    options.limits.idle = Some(20 * SECOND);
    let addr = serve_with(&mut sim, options, || Http::new(Site));
    let client = sim.dial(addr);
    for _ in 0..3 {
        client.send(GET);
        sim.run_for(20 * SECOND - 50 * MS).unwrap();
        assert!(!client.is_finished(), "cut too early");
    }
    sim.run_for(100 * MS).unwrap();
    assert!(client.is_finished(), "not cut");
    assert_eq!(all(&client.take_received()).0.len(), 3);
}

/// Does what another handler does, but for its answers.
struct Slow<H>(H);

impl<H: Handler> Handler for Slow<H> {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        self.0.body(cx, part, response)
    }
}

#[test]
fn h15_new_limits_of_the_handlers_take_no_deadline_away() {
    /// Sets limits in this callback.
    struct Sets(&'static str);
    impl Sets {
        fn set(&self, callback: &str, cx: &mut Context<'_>) -> Outcome {
            if self.0 == callback {
                cx.set_limits(Limits::default())?;
            }
            Ok(())
        }
    }
    impl Handler for Sets {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            self.set("opened", cx)
        }

        fn request(
            &mut self,
            cx: &mut Context<'_>,
            _: &Request<'_>,
            response: &mut Response,
        ) -> Outcome {
            response.send(cx, Status::OK, &[], b"ok");
            self.set("request", cx)
        }

        fn notified(&mut self, cx: &mut Context<'_>, _: Note, _: &mut Response) -> Outcome {
            self.set("notified", cx)
        }

        fn body(&mut self, cx: &mut Context<'_>, _: &[u8], _: &mut Response) -> Outcome {
            self.set("body", cx)
        }
    }
    let mut drips = Probe::new(Http::new(Slow(Sets("body"))));
    drips.receive(POST);
    for second in 1..20 {
        drips.advance(SECOND);
        drips.receive(b"a");
        assert_eq!(drips.is_finished(), second > 10, "after {second} s");
    }
    for callback in ["opened", "request", "notified", "none"] {
        let mut fresh = Probe::new(Http::new(Sets(callback)));
        fresh.advance(5 * SECOND);
        // A note is no request: the time for the first byte goes on.
        fresh.notify(Note::new(()));
        fresh.advance(if callback == "notified" { 11 * SECOND } else { 6 * SECOND });
        fresh.finish();
        assert_eq!(fresh.closed().map(|reason| reason.kind()), Some(IDLE), "{callback}, fresh");
        let mut kept = Probe::new(Http::new(Sets(callback)));
        kept.receive(GET);
        kept.receive(GET);
        kept.notify(Note::new(()));
        kept.advance(59 * SECOND);
        assert!(kept.closed().is_none(), "{callback}, kept");
        kept.advance(2 * SECOND);
        kept.finish();
        assert_eq!(kept.closed().map(|reason| reason.kind()), Some(IDLE), "{callback}, kept");
    }
}

#[test]
fn h15_a_note_within_a_head_leaves_its_deadline_and_a_pause_suspends_it() {
    /// Pauses and resumes as it is told.
    struct Told;
    impl Handler for Told {
        fn request(
            &mut self,
            cx: &mut Context<'_>,
            _: &Request<'_>,
            response: &mut Response,
        ) -> Outcome {
            response.send(cx, Status::OK, &[], b"ok");
            Ok(())
        }

        fn notified(&mut self, cx: &mut Context<'_>, note: Note, _: &mut Response) -> Outcome {
            match note.downcast::<bool>() {
                Ok(true) => cx.pause_reading(),
                Ok(false) => cx.resume_reading(),
                Err(_) => {}
            }
            Ok(())
        }
    }
    for before in [&b""[..], GET] {
        let begun = || {
            let mut probe = Probe::new(Http::new(Told));
            probe.receive(&[before, b"GET / HT"].concat());
            probe.advance(5 * SECOND);
            probe.sent();
            probe
        };
        let mut probe = begun();
        probe.notify(Note::new(()));
        probe.advance(5 * SECOND - MS);
        assert!(probe.sent().is_empty() && !probe.is_finished());
        probe.advance(3 * MS);
        assert_eq!(only(&probe.sent()).status, 408);
        // Who is not read cannot be late.
        let mut probe = begun();
        probe.notify(Note::new(true));
        probe.advance(500 * SECOND);
        assert!(probe.sent().is_empty() && probe.closed().is_none());
        probe.notify(Note::new(false));
        probe.receive(b"TP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(only(&probe.sent()).status, 200);
    }
}

#[test]
fn h15_b6_a_thousand_slow_heads_are_cut_while_another_client_is_served() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 2000;
    let mut sim = Sim::with_limits(3, limits).unwrap();
    let addr = serve(&mut sim, || Http::new(Site));
    let slow: Vec<_> = (0..1000).map(|_| sim.dial(addr)).collect();
    let healthy = sim.dial(addr);
    let mut answers = 0;
    for _ in 0..25 {
        for client in &slow {
            client.send(b"G");
        }
        healthy.send(GET);
        sim.run_for(SECOND).unwrap();
        answers += all(&healthy.take_received()).0.len();
    }
    assert_eq!(answers, 25);
    for client in &slow {
        assert!(client.is_finished());
        assert_eq!(only(&client.take_received()).status, 408);
    }
    assert_eq!(sim.metrics().open, 1);
}

/// Passes bodies on to a connection that may not take them.
struct PassesOn(Arc<Mutex<Option<ConnId>>>);

impl Handler for PassesOn {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }
    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], _: &mut Response) -> Outcome {
        let to = self.0.lock().unwrap().ok_or("nobody takes it")?;
        cx.peer(to).write(part);
        Ok(())
    }
    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[], b"");
        Ok(())
    }
}

/// Takes what comes.
struct Far;

impl Protocol for Far {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn h15_time_in_flow_control_of_another_connection_does_not_count_against_the_client() {
    let mut limits = http::Limits::default();
    // What comes at once pays for a third of a second.
    (limits.body_grace, limits.body_rate) = (SECOND, 1 << 20);
    let limits = limits.validate().unwrap();
    let mut sim = Sim::new(1);
    let to = Arc::new(Mutex::new(None));
    let passes = Arc::clone(&to);
    let factory = move |_: &_| Some(Http::with_limits(PassesOn(Arc::clone(&passes)), &limits));
    let listener = sim.listen("10.0.0.1:80", factory).unwrap();
    let acceptor = sim.acceptor("10.0.0.9:7").unwrap();
    *to.lock().unwrap() = Some(sim.connect("10.0.0.9:7", Far));
    sim.run_for(MS).unwrap();
    let far = acceptor.accept().unwrap();
    far.stop_reading();
    let client = sim.dial(sim.addresses(listener)[0]);
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n");
    client.send(&vec![b'x'; 1 << 20]);
    sim.run_for(10 * SECOND).unwrap();
    assert_eq!(sim.metrics().held, 1);
    assert!(client.take_received().is_empty() && !client.is_finished());
    far.resume_reading();
    sim.run_for(SECOND).unwrap();
    assert_eq!(only(&client.take_received()).status, 200);
    assert_eq!(far.take_received().len(), 1 << 20);
}
