//! Bodies: streamed, collected, paused, thrown away, larger than everything that is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{self, Handler, Header, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{CloseKind, Context, Note, Outcome, Timer};

use crate::answer::{all, only, take};
use crate::kit::{Step, converse, everywhere, narrow, serve};
use crate::site::Site;

const MIB: usize = 1 << 20;

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 197 + (at >> 8) * 31) as u8).collect()
}

fn sized(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunked(path: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut bytes = head.into_bytes();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn large_bodies_are_streamed_through_unchanged_on_every_driver() {
    let body = pattern(4 * MIB);
    everywhere(|driver, told| {
        let scripts = [sized("/echo", &body), chunked("/echo", &body, 70_001)];
        let scripts = scripts.map(|bytes| vec![Step::Send(bytes), Step::Finish]).to_vec();
        for heard in converse(driver, || Http::new(Site), scripts) {
            let answer = only(&heard);
            assert_eq!(answer.status, 200);
            assert!(answer.body == body, "the body has changed on {told}");
        }
    });
}

#[test]
fn an_upload_without_end_to_a_reader_that_does_not_read_is_bounded() {
    let mut sim = narrow();
    let addr = serve(&mut sim, || Http::new(Site));
    let client = sim.dial(addr);
    client.stop_reading();
    client.send(&sized("/echo", &pattern(16 * MIB)));
    sim.run_for(Duration::from_secs(5)).unwrap();
    let metrics = sim.metrics();
    assert!(metrics.held == 1 && metrics.buffered < MIB as u64, "{metrics:?}");
    // Once the client reads, everything comes.
    client.resume_reading();
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!(only(&client.take_received()).body.len(), 16 * MIB);
}

/// Takes a piece of a body a second.
struct Slow(Arc<Mutex<Vec<usize>>>);

const AGAIN: Timer = Timer::new(1);

impl Handler for Slow {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], _: &mut Response) -> Outcome {
        self.0.lock().unwrap().push(part.len());
        cx.pause_reading();
        cx.set_timer(AGAIN, Duration::from_secs(1));
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::TEXT], b"done\n");
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, _: &mut Response) -> Outcome {
        cx.resume_reading();
        Ok(())
    }
}

#[test]
fn a_paused_body_waits_and_its_wait_is_not_the_clients_fault() {
    let parts = Arc::new(Mutex::new(Vec::new()));
    let mut probe = Probe::new(Http::new(Slow(Arc::clone(&parts))));
    // Forty chunks, one a second: longer than a body may take at less than its least rate.
    probe.receive(&chunked("/", &[b'a'; 400], 10));
    assert_eq!(*parts.lock().unwrap(), [10], "a second piece came during the pause");
    probe.advance(Duration::from_millis(5500));
    assert_eq!(parts.lock().unwrap().len(), 6);
    assert_eq!(probe.sent(), b"");
    probe.advance(Duration::from_secs(60));
    assert_eq!(*parts.lock().unwrap(), [10; 40]);
    assert_eq!(only(&probe.sent()).status, 200);
    assert!(!probe.is_finished());
}

#[test]
fn an_answer_before_the_body_is_read_keeps_the_connection_while_the_rest_is_small() {
    let mut probe = Probe::new(Http::new(Site));
    let mut bytes = chunked("/early", &pattern(200_000), 1000);
    bytes.extend_from_slice(&sized("/", b"abc"));
    probe.receive(&bytes);
    let sent = probe.sent();
    let (answers, rest) = all(&sent);
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200]);
    assert!(rest.is_empty() && answers[1].body == b"3 bytes\n" && !probe.is_finished());
}

/// Answers at the first piece of a body.
struct Hasty;

impl Handler for Hasty {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, _: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::TEXT], b"enough\n");
        Ok(())
    }
}

#[test]
fn an_answer_in_the_middle_of_a_body_closes_at_once_if_the_connection_is_not_kept() {
    for (header, closes) in [("", false), ("Connection: close\r\n", true)] {
        for (method, path) in [("POST", "/"), ("HEAD", "/"), ("POST", "/early"), ("HEAD", "/early")]
        {
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 10\r\n\r\nabc"
            );
            let mut probe = match path {
                "/" => Probe::new(Http::new(Hasty)),
                _ => Probe::new(Http::new(Site)),
            };
            probe.receive(head.as_bytes());
            let sent = probe.sent();
            let answer = take(&mut &sent[..], method == "HEAD", false).unwrap();
            assert_eq!((answer.status, answer.closes()), (200, closes));
            assert_eq!(probe.is_finished(), closes, "{method} {path} {header}");
        }
    }
}

#[test]
fn an_unwanted_body_that_is_known_to_be_long_is_not_waited_for() {
    for path in ["/early", "/early/bytes", "/early/chunks", "/early/sized"] {
        for (length, waits) in [(256 * 1024, true), (256 * 1024 + 1, false)] {
            let mut probe = Probe::new(Http::new(Site));
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            probe.receive(head.as_bytes());
            assert_eq!(only(&probe.sent()).body, b"early\n");
            assert_eq!(probe.is_finished(), !waits, "{path}, {length}");
        }
    }
}

#[test]
fn chunks_without_end_after_the_answer_are_read_only_so_far() {
    let mut probe = Probe::new(Http::new(Site));
    let endless = chunked("/early", &pattern(300_000), 1000);
    probe.receive(&endless[..endless.len() - 100]);
    assert_eq!(only(&probe.sent()).body, b"early\n");
    assert!(probe.is_finished(), "although its end may still come");
}

/// Answers when so many bytes of a body have come.
struct Enough {
    came: usize,
    enough: usize,
}

impl Handler for Enough {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        self.came = 0;
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        self.came += part.len();
        if self.came >= self.enough {
            response.send(cx, Status::OK, &[Header::TEXT], b"enough\n");
        }
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::TEXT], b"all\n");
        Ok(())
    }
}

#[test]
fn what_was_wanted_of_a_body_does_not_count_as_thrown_away() {
    let mut limits = http::Limits::default();
    limits.discard_max = 1000;
    let limits = limits.validate().unwrap();
    for (unwanted, kept) in [(0, true), (999, true), (1000, true), (1001, false)] {
        let mut probe = Probe::new(Http::with_limits(Enough { came: 0, enough: 900 }, &limits));
        let body = vec![b'a'; 900 + unwanted];
        let bytes = sized("/", &body);
        let (wanted, rest) = bytes.split_at(bytes.len() - unwanted);
        probe.receive(wanted);
        assert_eq!(only(&probe.sent()).body, b"enough\n");
        rest.chunks(100).for_each(|part| probe.receive(part));
        assert_eq!(probe.is_finished(), !kept, "{unwanted}");
        if kept {
            probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(only(&probe.sent()).body, b"all\n", "{unwanted}");
        }
    }
}

#[test]
fn the_answer_to_a_refused_upload_arrives_on_every_driver() {
    // B10: what is unread must not turn the close into a reset that eats the answer.
    let body = pattern(7 * MIB);
    everywhere(|driver, told| {
        let script = vec![Step::Send(sized("/", &body))];
        let heard = converse(driver, || Http::new(Site), vec![script]);
        let answer = only(&heard[0]);
        assert!(answer.status == 413 && answer.closes(), "{answer:?} on {told}");
    });
}

/// Answers when a part of the body has come.
struct SoonDone;

impl Handler for SoonDone {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
        Ok(())
    }
    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        if part.len() > 1 {
            response.send(cx, Status::OK, &[], b"");
        }
        Ok(())
    }
}

#[test]
fn of_a_body_only_what_comes_behind_its_answer_counts_as_unwanted() {
    let mut limits = http::Limits::default();
    limits.discard_max = 100;
    let limits = limits.validate().unwrap();
    // The lines between the chunks have six bytes.
    for (wanted, unwanted, kept) in [(1000, 94, true), (2, 94, true), (1000, 95, false)] {
        let mut probe = Probe::new(Http::with_limits(SoonDone, &limits));
        let end = b"0\r\n\r\n".len();
        let part = |byte, count| chunked("/", &vec![byte; count], count);
        let (first, second) = (part(b'w', wanted), part(b'u', unwanted));
        let (first, last) = first.split_at(first.len() - end);
        // Behind its head.
        let begins = second.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let rest = &second[begins..];
        assert!(rest.ends_with(last));
        probe.receive(first);
        assert_eq!(only(&probe.sent()).status, 200);
        probe.receive(rest);
        probe.receive(&part(b'w', 2));
        assert_eq!(!probe.sent().is_empty(), kept, "{wanted} and {unwanted}");
    }
}

#[test]
fn a_client_that_finishes_within_a_body_that_nobody_wants_has_finished_in_order() {
    for path in ["/early", "/early/bytes", "/early/chunks", "/early/sized"] {
        for whole in [sized(path, &[b'a'; 100]), chunked(path, &[b'a'; 100], 40)] {
            let mut probe = Probe::new(Http::new(Site));
            probe.receive(&whole[..whole.len() - 20]);
            assert_eq!(only(&probe.sent()).body, b"early\n");
            assert!(!probe.is_finished());
            probe.finish();
            let reason = probe.closed().unwrap();
            assert_eq!(reason.kind(), CloseKind::Finished, "{path}");
            assert!(reason.age() < Duration::from_secs(1), "{path}: {reason}");
            assert!(probe.sent().is_empty(), "{path}");
        }
    }
}

/// Answers when a note comes, wherever the body is then.
struct OnNote(&'static str);

impl Handler for OnNote {
    fn request(
        &mut self,
        _: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        if request.path() == "/collected" {
            response.collect();
            response.collect();
        }
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note, response: &mut Response) -> Outcome {
        match self.0 {
            "send" => response.send(cx, Status::OK, &[], "note"),
            "send_bytes" => response.send_bytes(cx, Status::OK, &[], "note"),
            "start" => {
                response.start(cx, Status::OK, &[]);
                response.write(cx, "note");
                response.finish(cx);
            }
            _ => {
                response.start_sized(cx, Status::OK, &[], 4);
                response.write(cx, "note");
                response.finish(cx);
            }
        }
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        if part == b"streamed" {
            response.send(cx, Status::OK, &[], part);
        }
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[], body);
        Ok(())
    }
}

#[test]
fn an_answer_that_comes_between_two_parts_of_a_body_leaves_the_rest_a_body() {
    for way in ["send", "send_bytes", "start", "start_sized"] {
        let digits = b"0123456789";
        for bytes in [
            sized("/", digits),
            chunked("/", digits, 4),
            sized("/collected", digits),
            chunked("/collected", digits, 4),
        ] {
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            for cut in head..bytes.len() {
                let mut probe = Probe::new(Http::new(OnNote(way)));
                probe.receive(&bytes[..cut]);
                assert!(probe.sent().is_empty());
                probe.notify(Note::new(()));
                assert_eq!(only(&probe.sent()).body, b"note", "{way}, {cut}");
                probe.receive(&bytes[cut..]);
                assert!(probe.sent().is_empty() && !probe.is_finished(), "{way}, {cut}");
                // And the next requests are some, with bodies of their own.
                probe.receive(&sized("/", b"streamed"));
                assert_eq!(only(&probe.sent()).body, b"streamed", "{way}, {cut}");
                probe.receive(&sized("/collected", b"next"));
                assert_eq!(only(&probe.sent()).body, b"next", "{way}, {cut}");
            }
        }
    }
}

#[test]
fn an_answer_that_is_the_last_closes_although_the_rest_of_the_body_has_not_come() {
    for way in ["send", "send_bytes", "start", "start_sized"] {
        for method in ["POST", "HEAD"] {
            let mut probe = Probe::new(Http::new(OnNote(way)));
            let head = format!("{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
            probe.receive(format!("{head}Content-Length: 10\r\n\r\n0123").as_bytes());
            assert!(probe.sent().is_empty());
            probe.notify(Note::new(()));
            let sent = probe.sent();
            assert!(take(&mut &sent[..], method == "HEAD", false).unwrap().closes());
            assert!(probe.is_finished(), "{method}, {way}");
        }
    }
}

/// Collects the first body, and answers it when a note comes; counts the bytes of the others.
#[derive(Default)]
struct CollectsOnce {
    count: usize,
}

impl Handler for CollectsOnce {
    fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, answer: &mut Response) -> Outcome {
        if answer.number() == 1 {
            answer.collect();
        }
        Ok(())
    }
    fn notified(&mut self, cx: &mut Context<'_>, _: Note, answer: &mut Response) -> Outcome {
        answer.send(cx, Status::OK, &[], b"");
        Ok(())
    }
    fn body(&mut self, _: &mut Context<'_>, part: &[u8], _: &mut Response) -> Outcome {
        self.count += part.len();
        Ok(())
    }
    fn complete(&mut self, cx: &mut Context<'_>, answer: &mut Response) -> Outcome {
        answer.send(cx, Status::OK, &[], self.count.to_string());
        Ok(())
    }
}

#[test]
fn what_was_collected_for_an_answer_that_came_before_does_not_take_the_next_body() {
    let mut probe = Probe::new(Http::new(CollectsOnce::default()));
    let (first, rest) = (sized("/", b"0123456789"), b"456789");
    probe.receive(first.strip_suffix(rest).unwrap());
    probe.notify(Note::new(()));
    assert_eq!(only(&probe.sent()).status, 200);
    probe.receive(rest);
    probe.receive(&sized("/", b"12345"));
    assert_eq!(only(&probe.sent()).body, b"5");
}
