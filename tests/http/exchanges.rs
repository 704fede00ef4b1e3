//! Requests and answers that need a story: late, streamed, upgraded, wrong, and the client side.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{Event, Handler, Header, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{CloseKind, Context, Note, Outcome, Timer};

use crate::answer::{all, only};
use crate::kit::{Step, converse, everywhere, narrow, says, serve};
use crate::site::{Site, on};

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

#[test]
fn h10_requests_without_end_are_held_while_their_answers_are_not_read() {
    let page = vec![b'x'; 10_000];
    let mut sim = narrow();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let addr = serve(&mut sim, move || {
        let (page, count) = (page.clone(), Arc::clone(&counted));
        Http::new(on(move |cx, _, response| {
            count.fetch_add(1, Ordering::Relaxed);
            response.send(cx, Status::OK, &[], &page);
            Ok(())
        }))
    });
    let client = sim.dial(addr);
    client.stop_reading();
    client.send(&get("/").repeat(2000));
    sim.run_for(Duration::from_secs(2)).unwrap();
    let answered = count.load(Ordering::Relaxed);
    assert!(answered < 100, "{answered} answers of 10,000 bytes for a client that reads none");
    assert!(sim.metrics().buffered < 1 << 20);
    client.resume_reading();
    sim.run_for(Duration::from_secs(60)).unwrap();
    let heard = client.take_received();
    assert_eq!(all(&heard).0.len(), 2000);
}

#[test]
fn h10_requests_stay_with_a_client_that_does_not_read_its_late_answers() {
    const LATER: Timer = Timer::new(1);
    struct Late;
    impl Handler for Late {
        fn request(&mut self, cx: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
            cx.set_timer(LATER, Duration::from_millis(1));
            Ok(())
        }

        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
            response.send(cx, Status::OK, &[], vec![b'x'; 10_000]);
            Ok(())
        }
    }
    let mut sim = narrow();
    let addr = serve(&mut sim, || Http::new(Late));
    let client = sim.dial(addr);
    client.stop_reading();
    // Twice what may be left unread.
    let padding = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(4000));
    client.send(padding.repeat(500).as_bytes());
    sim.run_for(Duration::from_secs(5)).unwrap();
    let metrics = sim.metrics();
    assert!(metrics.open == 1 && metrics.paused == 1, "{metrics:?}");
    assert!(metrics.bytes_in < 500_000, "{metrics:?}");
    client.resume_reading();
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(all(&client.take_received()).0.len(), 500);
}

#[test]
fn h10_requests_that_wait_for_room_are_answered_although_their_client_has_finished() {
    let page = vec![b'x'; 100_000];
    everywhere(|driver, told| {
        let page = page.clone();
        let make = move || {
            let page = page.clone();
            Http::new(on(move |cx, _, response| {
                response.send(cx, Status::OK, &[], &page);
                Ok(())
            }))
        };
        let heard = converse(driver, make, vec![says(&get("/").repeat(80))]);
        let (answers, rest) = all(&heard[0]);
        assert_eq!((answers.len(), rest), (80, &b""[..]), "on {told}");
        assert!(answers.iter().all(|answer| answer.body == vec![b'x'; 100_000]), "on {told}");
    });
}

#[test]
fn what_is_not_whole_waits_for_more_without_a_callback() {
    let partial: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5;a",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nB",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r",
    ];
    for bytes in partial {
        let mut sim = lariat::sim::Sim::new(0);
        let addr = serve(&mut sim, || Http::new(Site));
        let client = sim.dial(addr);
        client.send(bytes);
        sim.run_for(Duration::from_secs(1)).unwrap();
        let told = bytes.escape_ascii();
        // `opened`, and `data` once.
        assert_eq!(sim.metrics().callbacks, 2, "{told}");
        client.send(b"x");
        sim.run_for(Duration::from_secs(1)).unwrap();
        assert_eq!(sim.metrics().callbacks, 3, "{told}");
    }
}

#[test]
fn h10_the_answers_to_one_read_leave_in_one_write() {
    let mut sim = lariat::sim::Sim::new(0);
    let addr = serve(&mut sim, || Http::new(Site));
    let client = sim.dial(addr);
    sim.run_for(Duration::from_secs(1)).unwrap();
    let before = sim.metrics();
    client.send(&get("/").repeat(16));
    sim.run_for(Duration::from_secs(1)).unwrap();
    let after = sim.metrics();
    assert_eq!(all(&client.take_received()).0.len(), 16);
    assert_eq!((after.reads - before.reads, after.writes - before.writes), (1, 1));
}

#[test]
fn a_note_from_elsewhere_may_bring_the_answer() {
    struct Waits;
    impl Handler for Waits {
        fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
            Ok(())
        }

        fn notified(
            &mut self,
            cx: &mut Context<'_>,
            note: Note,
            response: &mut Response,
        ) -> Outcome {
            if let (Ok(text), true) = (note.downcast::<String>(), response.is_due()) {
                response.send(cx, Status::OK, &[Header::TEXT], text);
            }
            Ok(())
        }
    }
    let mut probe = Probe::new(Http::new(Waits));
    probe.notify(Note::new("too early".to_owned()));
    probe.receive(&[get("/a"), get("/b")].concat());
    assert_eq!(probe.sent(), b"");
    probe.notify(Note::new("first".to_owned()));
    assert_eq!(only(&probe.sent()).body, b"first");
    probe.notify(Note::new("second".to_owned()));
    assert_eq!(only(&probe.sent()).body, b"second");
}

#[test]
fn each_answer_has_the_date_of_its_own_second() {
    const LATER: Timer = Timer::new(1);
    struct Waits;
    impl Handler for Waits {
        fn request(
            &mut self,
            cx: &mut Context<'_>,
            request: &Request<'_>,
            response: &mut Response,
        ) -> Outcome {
            if request.path() == "/" {
                response.send(cx, Status::OK, &[], b"");
            } else {
                cx.set_timer(LATER, Duration::from_millis(1100));
            }
            Ok(())
        }

        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
            response.send(cx, Status::OK, &[], b"");
            Ok(())
        }
    }
    everywhere(|driver, told| {
        let late = [get("/"), get("/later"), get("/")].concat();
        let wait = Step::Wait(Duration::from_millis(1100));
        let apart = vec![Step::Send(get("/")), wait, Step::Send(get("/")), Step::Finish];
        let heard = converse(driver, || Http::new(Waits), vec![says(&late), apart]);
        for (heard, count) in heard.iter().zip([3, 2]) {
            let (answers, _) = all(heard);
            let dates: Vec<_> = answers.iter().map(|answer| answer.header("date")).collect();
            assert_eq!(dates.len(), count, "on {told}");
            assert_ne!(dates[0], dates[1], "on {told}");
        }
    });
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_late_answer() {
    everywhere(|driver, told| {
        let heard = converse(driver, || Http::new(Site), vec![says(&get("/late"))]);
        let answer = only(&heard[0]);
        assert!(answer.status == 202 && answer.body == b"late\n", "{answer:?} on {told}");
    });
}

#[test]
fn h14_an_upgrade_loses_no_byte() {
    everywhere(|driver, told| {
        let mut bytes =
            b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
                .to_vec();
        bytes.extend_from_slice(b"early ");
        let script = vec![
            Step::Send(bytes),
            Step::Until(b"early "),
            Step::Send(b"and late".to_vec()),
            Step::Until(b"and late"),
            Step::Finish,
        ];
        let heard = converse(driver, || Http::new(Site), vec![script]);
        let (answers, rest) = all(&heard[0]);
        assert_eq!(answers[0].status, 101);
        assert_eq!(answers[0].header("upgrade"), Some("echo"));
        assert_eq!(rest, b"early and late", "on {told}");
    });
}

#[test]
fn events_are_streamed_and_finished_at_shutdown() {
    struct Events;
    impl Handler for Events {
        fn request(
            &mut self,
            cx: &mut Context<'_>,
            _: &Request<'_>,
            response: &mut Response,
        ) -> Outcome {
            response.start_events(cx);
            response.event(cx, Event::new("one\ntwo").named("tick")?);
            response.event_comment(cx);
            Ok(())
        }

        fn stopping(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
            response.finish(cx);
            Ok(())
        }
    }
    let mut probe = Probe::new(Http::new(Events));
    probe.receive(&get("/"));
    // A stream has no deadline of its own.
    probe.advance(Duration::from_secs(600));
    assert!(!probe.is_finished());
    probe.shutdown();
    let answer = only(&probe.sent());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.body, b"event: tick\ndata: one\ndata: two\n\n:\n\n");
    assert!(probe.is_finished());
}

#[test]
fn shutdown_lets_the_present_answer_go_first_and_says_that_it_closes() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(&[get("/late"), get("/")].concat());
    probe.shutdown();
    assert!(!probe.is_finished());
    probe.advance(Duration::from_secs(1));
    let answer = only(&probe.sent());
    assert!(answer.status == 202 && answer.closes(), "{answer:?}");
    let mut idle = Probe::new(Http::new(Site));
    idle.receive(&get("/"));
    idle.shutdown();
    assert!(idle.is_finished());
}

#[test]
fn an_error_of_the_handler_is_answered_500_and_ends_the_connection_with_its_reason() {
    let fails = || Http::new(on(|_, _, _| Err("oh".into())));
    let mut probe = Probe::new(fails());
    probe.receive(&get("/").repeat(2));
    let answer = only(&probe.sent());
    assert!(answer.status == 500 && answer.closes(), "{answer:?}");
    probe.finish();
    let reason = probe.closed().unwrap();
    assert_eq!(reason.kind(), CloseKind::Protocol);
    assert_eq!(reason.error().unwrap().to_string(), "oh");
}

#[test]
fn a_handler_that_panics_resets_its_connection_and_no_other() {
    everywhere(|driver, told| {
        let make = || {
            Http::new(on(|cx, request, response| {
                assert_ne!(request.path(), "/panic", "as it was asked to");
                response.send(cx, Status::OK, &[Header::TEXT], b"ok\n");
                Ok(())
            }))
        };
        let scripts = vec![says(&get("/panic")), says(&get("/")), says(&get("/"))];
        let heard = converse(driver, make, scripts);
        assert_eq!(heard[0], b"", "on {told}");
        assert!(heard[1..].iter().all(|heard| only(heard).status == 200), "on {told}");
    });
}

#[test]
fn a_handler_that_closes_is_asked_nothing_more() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let mut probe = Probe::new(Http::new(on(move |cx, _, response| {
        counted.fetch_add(1, Ordering::Relaxed);
        response.send(cx, Status::OK, &[], b"bye");
        cx.close();
        Ok(())
    })));
    probe.receive(&get("/").repeat(3));
    assert_eq!(only(&probe.sent()).body, b"bye");
    assert!(probe.is_finished());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn the_end_of_an_answer_without_a_length_is_the_end_of_an_http_1_0_connection() {
    for wish in ["", "Connection: keep-alive\r\n"] {
        let mut probe = Probe::new(Http::new(Site));
        let asked = format!("GET /chunks HTTP/1.0\r\n{wish}\r\n");
        probe.receive(asked.repeat(2).as_bytes());
        let sent = String::from_utf8(probe.sent().to_vec()).unwrap();
        assert_eq!(sent.matches("one two").count(), 1, "{sent}");
        assert!(
            sent.contains("connection: close\r\n") && sent.ends_with("\r\n\r\none two"),
            "{sent}"
        );
        assert!(probe.is_finished(), "{wish:?}");
    }
}

#[test]
fn what_does_not_fit_the_state_of_an_answer_is_dropped() {
    let mut probe = Probe::new(Http::new(on(|cx, _, response| {
        response.write(cx, b"too early");
        response.finish(cx);
        response.start_sized(cx, Status::OK, &[], 3);
        response.send(cx, Status::OK, &[], b"twice");
        response.write(cx, b"abcd");
        response.finish(cx);
        response.write(cx, b"too late");
        response.send(cx, Status::OK, &[], b"twice");
        Ok(())
    })));
    probe.receive(&get("/"));
    assert_eq!(only(&probe.sent()).body, b"abc");
    assert!(!probe.is_finished());
}

#[test]
fn an_answer_shorter_than_announced_closes_the_connection() {
    let mut probe = Probe::new(Http::new(on(|cx, _, response| {
        response.start_sized(cx, Status::OK, &[], 10);
        response.write(cx, b"abc");
        response.finish(cx);
        Ok(())
    })));
    probe.receive(&get("/"));
    assert!(probe.sent().ends_with(b"\r\n\r\nabc") && probe.is_finished());
}

#[test]
fn a_request_says_what_it_is() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let mut probe = Probe::new(Http::new(on(move |cx, request, response| {
        let line = format!(
            "{} {} {:?} {:?} {:?}",
            request.method(),
            request.path(),
            request.query(),
            request.host(),
            request.header("a"),
        );
        tells.lock().unwrap().push(line);
        response.send(cx, Status::NO_CONTENT, &[], b"");
        Ok(())
    })));
    probe.receive(b"GET /a?b?c HTTP/1.1\r\nHost: x:1\r\nA: 1\r\nA: 2\r\n\r\n");
    probe.receive(b"GET http://y/a/b?c HTTP/1.1\r\nHost: x\r\n\r\n");
    probe.receive(b"GET http://y?c HTTP/1.1\r\nHost: x\r\n\r\n");
    let expected = [
        "GET /a Some(\"b?c\") Some(\"x:1\") Some([49])",
        "GET /a/b Some(\"c\") Some(\"y\") None",
        "GET / Some(\"c\") Some(\"y\") None",
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}
