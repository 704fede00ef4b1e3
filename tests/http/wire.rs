//! Answers to the byte: the whole text of each kind, bodies of every size, empty lines by number.

use std::time::Duration;

use lariat::http::{self, Event, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{Context, Note, Outcome};

use crate::answer::{only, take};
use crate::plain::Echo;
use crate::site::{Site, on};

const SECOND: Duration = Duration::from_secs(1);

/// What was sent, with `D` for each date.
fn text(probe: &mut Probe) -> String {
    let mut text = String::from_utf8(probe.sent().into_vec()).unwrap();
    let mut from = 0;
    while let Some(at) = text[from..].find("date: ") {
        let at = from + at + "date: ".len();
        assert!(text[at..].find(" GMT\r\n") == Some(25), "{text}");
        text.replace_range(at..at + 29, "D");
        from = at;
    }
    text
}

fn answers(cx: &mut Context<'_>, request: &Request<'_>, response: &mut Response) -> Outcome {
    let own = http::Header::literal("x-own", "1");
    match request.path() {
        "/send" => response.send(cx, Status::OK, &[http::Header::TEXT, own], "ok\n"),
        "/bytes" => response.send_bytes(cx, Status::NOT_FOUND, &[], "no\n"),
        "/odd" => response.send(cx, Status::new(299).unwrap(), &[], ""),
        "/204" => response.send(cx, Status::NO_CONTENT, &[own], "dropped"),
        "/205" => response.send(cx, Status::RESET_CONTENT, &[own], "dropped"),
        "/304" => response.send(cx, Status::NOT_MODIFIED, &[own], "dropped"),
        "/chunks" => {
            response.start(cx, Status::OK, &[own]);
            response.write(cx, "0123456789abcdefg");
            response.write(cx, "");
            response.write(cx, "hi");
            response.finish(cx);
        }
        "/sized" => {
            response.start_sized(cx, Status::CREATED, &[own], 5);
            response.write(cx, "he");
            response.write(cx, "llo");
            response.finish(cx);
        }
        "/events" => {
            response.start_events(cx);
            response.event(cx, Event::new("a\nb").with_retry(SECOND));
            response.event_comment(cx);
            response.finish(cx);
        }
        "/inform" => {
            response.inform(cx, Status::EARLY_HINTS, &[own]);
            response.inform(cx, Status::new(102).unwrap(), &[]);
            response.send(cx, Status::OK, &[], "");
        }
        "/upgrade" => response.upgrade(cx, "echo", &[own], Echo)?,
        _ => response.tunnel(cx, &[own], Echo)?,
    }
    Ok(())
}

#[test]
fn the_text_of_each_answer_is_this_and_nothing_else() {
    let mut limits = http::Limits::default();
    limits.connect = true;
    let limits = limits.validate().unwrap();
    let ok = "HTTP/1.1 200 OK\r\ndate: D\r\n";
    let events = "content-type: text/event-stream\r\ncache-control: no-store\r\n";
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let plain = "content-type: text/plain; charset=utf-8\r\n";
    let cases = [
        ("GET /send", format!("{ok}{plain}x-own: 1\r\ncontent-length: 3\r\n\r\nok\n")),
        ("HEAD /send", format!("{ok}{plain}x-own: 1\r\ncontent-length: 3\r\n\r\n")),
        (
            "GET /bytes",
            "HTTP/1.1 404 Not Found\r\ndate: D\r\ncontent-length: 3\r\n\r\nno\n".to_owned(),
        ),
        ("GET /odd", "HTTP/1.1 299 \r\ndate: D\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("GET /204", "HTTP/1.1 204 No Content\r\ndate: D\r\nx-own: 1\r\n\r\n".to_owned()),
        (
            "GET /205",
            "HTTP/1.1 205 Reset Content\r\ndate: D\r\nx-own: 1\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
        ),
        ("GET /304", "HTTP/1.1 304 Not Modified\r\ndate: D\r\nx-own: 1\r\n\r\n".to_owned()),
        (
            "GET /chunks",
            format!("{ok}x-own: 1\r\n{chunked}11\r\n0123456789abcdefg\r\n2\r\nhi\r\n0\r\n\r\n"),
        ),
        ("HEAD /chunks", format!("{ok}x-own: 1\r\n{chunked}")),
        (
            "GET /sized",
            "HTTP/1.1 201 Created\r\ndate: D\r\nx-own: 1\r\ncontent-length: 5\r\n\r\nhello"
                .to_owned(),
        ),
        (
            "GET /events",
            format!(
                "{ok}{events}{chunked}1d\r\nretry: 1000\ndata: a\ndata: b\n\n\r\n\
                 3\r\n:\n\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "GET /inform",
            format!(
                "HTTP/1.1 103 Early Hints\r\nx-own: 1\r\n\r\nHTTP/1.1 102 \r\n\r\n\
                 {ok}content-length: 0\r\n\r\n"
            ),
        ),
        (
            "GET /upgrade",
            "HTTP/1.1 101 Switching Protocols\r\ndate: D\r\nconnection: upgrade\r\n\
             upgrade: echo\r\nx-own: 1\r\n\r\n"
                .to_owned(),
        ),
        ("CONNECT far:1", format!("{ok}x-own: 1\r\n\r\n")),
    ];
    for (line, expected) in cases {
        for version in ["1.1", "1.0"] {
            let mut probe = Probe::new(Http::with_limits(on(answers), &limits));
            let upgrade = "Connection: keep-alive, upgrade\r\nUpgrade: echo\r\n";
            if version == "1.0" && line == "GET /upgrade" {
                continue;
            }
            let head = format!("{line} HTTP/{version}\r\nHost: x\r\n{upgrade}\r\n");
            probe.receive(head.as_bytes());
            let until_close = version == "1.0" && ["GET /chunks", "GET /events"].contains(&line);
            let expected = match (version, line) {
                ("1.1", _) | (_, "CONNECT far:1") => expected.clone(),
                // It has neither informational answers nor chunks.
                (_, "GET /inform") => {
                    format!("{ok}connection: keep-alive\r\ncontent-length: 0\r\n\r\n")
                }
                (_, "GET /chunks") => {
                    format!("{ok}x-own: 1\r\nconnection: close\r\n\r\n0123456789abcdefghi")
                }
                (_, "HEAD /chunks") => {
                    format!("{ok}x-own: 1\r\nconnection: keep-alive\r\n\r\n")
                }
                (_, "GET /events") => {
                    let body = "retry: 1000\ndata: a\ndata: b\n\n:\n\n";
                    format!("{ok}{events}connection: close\r\n\r\n{body}")
                }
                // It stands behind the headers of the handler.
                _ => match expected.split_once("content-length") {
                    Some((before, behind)) => {
                        format!("{before}connection: keep-alive\r\ncontent-length{behind}")
                    }
                    None => expected.replace("\r\n\r\n", "\r\nconnection: keep-alive\r\n\r\n"),
                },
            };
            assert_eq!(text(&mut probe), expected, "{line} {version}");
            assert_eq!(probe.is_finished(), until_close, "{line} {version}");
        }
    }
}

#[test]
fn a_body_of_each_size_is_sent_whole_and_once() {
    for size in [0, 1, 15, 16, 17, 255, 256, 4095, 4096, 4097, 16_383, 16_384, 16_385, 100_000] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for way in ["send", "send_bytes", "start", "start_sized", "in pieces", "pieces of size"] {
            let given = body.clone();
            let mut probe = Probe::new(Http::new(on(move |cx, _, response| {
                let ok = Status::OK;
                match way {
                    "send" => response.send(cx, ok, &[], &given),
                    "send_bytes" => response.send_bytes(cx, ok, &[], given.clone()),
                    "start" => {
                        response.start(cx, ok, &[]);
                        response.write(cx, &given);
                    }
                    "start_sized" => {
                        response.start_sized(cx, ok, &[], given.len() as u64);
                        response.write(cx, &given);
                    }
                    "in pieces" => {
                        response.start(cx, ok, &[]);
                        given.chunks(4096).for_each(|piece| response.write(cx, piece));
                    }
                    _ => {
                        response.start_sized(cx, ok, &[], given.len() as u64);
                        given.chunks(4096).for_each(|piece| response.write(cx, piece));
                    }
                }
                if response.is_streaming() {
                    response.finish(cx);
                }
                Ok(())
            })));
            // A byte too many or too few spoils the second answer.
            probe.receive(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
            let sent = probe.sent();
            let mut rest = &sent[..];
            for _ in 0..2 {
                let answer = take(&mut rest, false, false).unwrap();
                assert!(answer.body == body, "{size} bytes by {way}");
            }
            assert!(rest.is_empty(), "{size} bytes by {way}");
        }
    }
}

#[test]
fn sixteen_empty_lines_are_nothing_and_one_more_is_the_beginning_of_a_head() {
    for (count, begins) in
        [(0, false), (1, false), (15, false), (16, false), (17, true), (40, true)]
    {
        for (line, bare_lf) in [("\r\n", false), ("\r\n", true), ("\n", true)] {
            for step in [1, 2, 100] {
                let mut limits = http::Limits::default();
                limits.bare_lf = bare_lf;
                let limits = limits.validate().unwrap();
                let mut probe = Probe::new(Http::with_limits(Site, &limits));
                probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                assert_eq!(only(&probe.sent()).status, 200);
                for piece in line.repeat(count).as_bytes().chunks(step) {
                    probe.receive(piece);
                }
                // A note begins nothing either.
                probe.notify(Note::new(()));
                probe.advance(SECOND * 11);
                let told = format!("{count} of {line:?} by {step}");
                assert_eq!(probe.is_finished(), begins, "{told}");
                if begins {
                    assert_eq!(only(&probe.sent()).status, 408, "{told}");
                } else {
                    // Behind the next request there may be as many again.
                    probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                    assert_eq!(only(&probe.sent()).status, 200, "{told}");
                    probe.receive(line.repeat(16).as_bytes());
                    probe.advance(SECOND * 11);
                    assert!(!probe.is_finished(), "{told}");
                }
            }
        }
    }
}

#[test]
fn an_empty_line_that_ends_in_lf_alone_is_none_unless_that_is_forgiven() {
    for (bare_lf, status) in [(false, 408), (true, 200)] {
        let mut limits = http::Limits::default();
        limits.bare_lf = bare_lf;
        let limits = limits.validate().unwrap();
        let mut probe = Probe::new(Http::with_limits(Site, &limits));
        probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\n");
        assert_eq!(only(&probe.sent()).status, 200);
        probe.advance(SECOND * 11);
        assert_eq!(probe.is_finished(), !bare_lf);
        if bare_lf {
            probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        assert_eq!(only(&probe.sent()).status, status);
    }
}
