//! What HTTP logs: a misused answer, and what is refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lariat::http::{self, Handler, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{Context, Outcome};
use log::Level;

use crate::logs::{DETAILS, expect, is_child, take};

/// Writes what fits no answer, often; a request for `/right` is answered rightly.
struct Misuses;

impl Handler for Misuses {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        if request.path() != "/right" {
            (0..50).for_each(|_| response.write(cx, b"too early"));
        }
        response.send(cx, Status::OK, &[], b"ok");
        if request.path() != "/right" {
            (0..50).for_each(|_| response.send(cx, Status::OK, &[], b"twice"));
        }
        Ok(())
    }
}

#[test]
fn a_misused_answer_is_one_warning() {
    if is_child("http_logs::a_misused_answer_is_one_warning", &["probe"]).is_none() {
        return;
    }
    let mut probe = Probe::new(Http::new(Misuses));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let warning = "an answer was misused, which is dropped: write: no answer was started";
    for _ in 0..3 {
        probe.receive(&get("/"));
        expect(Level::Warn, &[warning]);
        probe.receive(&get("/right"));
        expect(Level::Warn, &[]);
    }
}

/// Misuses its answer in the way of the path.
struct Way;

impl Handler for Way {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        let ok = Status::OK;
        match request.path() {
            "/early/write" => response.write(cx, b"a"),
            "/early/finish" => response.finish(cx),
            "/more" => {
                response.start_sized(cx, ok, &[], 1);
                response.write(cx, b"ab");
                response.finish(cx);
            }
            "/less" => {
                response.start_sized(cx, ok, &[], 2);
                response.write(cx, b"a");
                response.finish(cx);
            }
            "/right/sized" => {
                response.inform(cx, Status::EARLY_HINTS, &[]);
                response.start_sized(cx, ok, &[], 3);
                ["a", "", "bc"].iter().for_each(|part| response.write(cx, part));
                response.finish(cx);
            }
            "/right/chunks" => {
                response.start(cx, ok, &[]);
                ["a", "", "bc"].iter().for_each(|part| response.write(cx, part));
                response.finish(cx);
            }
            "/final" => response.inform(cx, ok, &[]),
            "/first" => response.send(cx, Status::EARLY_HINTS, &[], b""),
            "/never" => return Ok(()),
            _ => {}
        }
        if !response.is_finished() {
            response.send(cx, ok, &[], b"");
        }
        match request.path() {
            "/late/collect" => response.collect(),
            "/late/send" => response.send(cx, ok, &[], b""),
            "/late/send_bytes" => response.send_bytes(cx, ok, &[], &b""[..]),
            "/late/start" => response.start(cx, ok, &[]),
            "/late/start_sized" => response.start_sized(cx, ok, &[], 0),
            "/late/write" => response.write(cx, b"a"),
            "/late/finish" => response.finish(cx),
            "/late/inform" => response.inform(cx, Status::EARLY_HINTS, &[]),
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn each_misuse_of_an_answer_has_its_words() {
    if is_child("http_logs::each_misuse_of_an_answer_has_its_words", &["probe"]).is_none() {
        return;
    }
    let ways = [
        ("/early/write", "write: no answer was started (answer Due)"),
        ("/early/finish", "finish: no answer was started (answer Due)"),
        ("/more", "write: more bytes than start_sized had announced (answer Sized)"),
        ("/less", "finish: fewer bytes than start_sized had announced (answer Sized)"),
        ("/final", "inform: not before a final answer, or not 1xx (answer Due)"),
        ("/first", "send (answer Due)"),
        ("/late/collect", "collect: the answer has begun (answer Done)"),
        ("/late/send", "send (answer Done)"),
        ("/late/send_bytes", "send_bytes (answer Done)"),
        ("/late/start", "start (answer Done)"),
        ("/late/start_sized", "start_sized (answer Done)"),
        ("/late/write", "write: no answer was started (answer Done)"),
        ("/late/finish", "finish: no answer was started (answer Done)"),
        ("/late/inform", "inform: not before a final answer, or not 1xx (answer Done)"),
    ];
    for ((path, words), method) in ways.iter().flat_map(|way| [(way, "GET"), (way, "HEAD")]) {
        if method == "HEAD" && words.contains("announced") {
            // Of a body that is not sent, no byte is too many.
            continue;
        }
        let mut probe = Probe::new(Http::new(Way));
        probe.receive(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let line = format!("an answer was misused, which is dropped: {words}");
        assert_eq!(take(Level::Warn), [line], "{method} {path}");
    }
    for (path, method) in ["/right/sized", "/right/chunks", "/right"]
        .into_iter()
        .flat_map(|path| [(path, "GET"), (path, "HEAD"), (path, "POST")])
    {
        let mut probe = Probe::new(Http::new(Way));
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab");
        probe.receive(head.repeat(2).as_bytes());
        assert_eq!(take(Level::Warn), [""; 0], "{method} {path}");
    }
}

#[test]
fn what_http_refuses_is_one_line_with_its_reason_and_its_answer() {
    let name = "http_logs::what_http_refuses_is_one_line_with_its_reason_and_its_answer";
    if is_child(name, &["probe"]).is_none() {
        return;
    }
    DETAILS.store(true, Ordering::Relaxed);
    let mut limits = http::Limits::default();
    limits.answer = Duration::from_secs(1);
    let limits = limits.validate().unwrap();
    let refused = |bytes: &[u8], level: Level, seconds: u64| {
        let mut probe = Probe::new(Http::with_limits(Way, &limits));
        probe.receive(bytes);
        probe.advance(Duration::from_secs(seconds));
        take(level).into_iter().filter(|line| line.contains("answered")).collect::<Vec<_>>()
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let post = "POST /never HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n";
    let lines = refused(b"\0", Level::Debug, 0);
    let line = "a head of 127.0.0.1:49153: this does not begin a request, answered 400 Bad Request";
    assert_eq!(lines, [line]);
    let lines = refused(post.as_bytes(), Level::Debug, 0);
    let line = "a request of 127.0.0.1:49153: a chunk size that is no number, or too large, \
        answered 400 Bad Request";
    assert_eq!(lines, [line]);
    let lines = refused(get("/never").as_bytes(), Level::Debug, 2);
    let line = "a request of 127.0.0.1:49153: no answer of the handler in time, \
        answered 503 Service Unavailable";
    assert_eq!(lines, [line]);
    let lines = refused(get("/never").as_bytes(), Level::Warn, 2);
    let handler = std::any::type_name::<Way>();
    assert_eq!(lines, [format!("the handler {handler} has not answered 127.0.0.1:49153 in time")]);
    assert!(refused(get("/").as_bytes(), Level::Debug, 2).is_empty());
}
