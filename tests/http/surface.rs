//! What the types of the module say of themselves: every status line, every fact of a request, the
//! state of an answer at each moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{
    Event, Handler, Header, Http, InvalidEvent, Length, Request, Response, Status, Version,
};
use lariat::sim::Probe;
use lariat::{CloseReason, Context, Note, Outcome, Protocol, Timer};

use crate::answer::{all, only};
use crate::site::on;

/// The names of RFC 9110, section 15, and of RFC 8297 and RFC 6585 for what they add.
const NAMED: [(u16, &str); 43] = [
    (100, "Continue"),
    (101, "Switching Protocols"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Content Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Range Not Satisfiable"),
    (417, "Expectation Failed"),
    (421, "Misdirected Request"),
    (422, "Unprocessable Content"),
    (426, "Upgrade Required"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
    (299, ""),
];

#[test]
fn every_status_has_its_line_and_every_other_code_an_empty_reason() {
    let mut probe = Probe::new(Http::new(on(|cx, request, response| {
        let status = Status::new(request.path()[1..].parse()?).ok_or("no status")?;
        if status.is_informational() {
            response.inform(cx, status, &[]);
            response.send(cx, Status::OK, &[], b"");
        } else {
            response.send(cx, status, &[], b"");
        }
        Ok(())
    })));
    for code in 100..=999u16 {
        probe.receive(format!("GET /{code} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let sent = probe.sent();
        let line = sent.split(|byte| *byte == b'\r').next().unwrap();
        let reason = NAMED.iter().find(|(named, _)| *named == code).map_or("", |(_, name)| name);
        // 101 is no answer that a handler may send.
        let expected = match code {
            101 => "HTTP/1.1 200 OK".to_owned(),
            code => format!("HTTP/1.1 {code} {reason}"),
        };
        assert_eq!(String::from_utf8_lossy(line), expected);
        let status = Status::new(code).unwrap();
        let shown = if reason.is_empty() { "Unknown" } else { reason };
        assert_eq!((status.code(), status.reason()), (code, shown));
        assert_eq!(status.to_string(), format!("{code} {shown}"));
        assert_eq!(format!("{status:?}"), format!("{code} {shown}"));
        assert_eq!(status.is_informational(), code < 200);
        assert_eq!(status.is_success(), (200..300).contains(&code));
    }
    assert!([0, 99, 1000, u16::MAX].into_iter().all(|code| Status::new(code).is_none()));
}

#[test]
fn every_constant_is_the_status_of_its_name() {
    let constants = [
        (Status::CONTINUE, 100),
        (Status::SWITCHING_PROTOCOLS, 101),
        (Status::EARLY_HINTS, 103),
        (Status::OK, 200),
        (Status::CREATED, 201),
        (Status::ACCEPTED, 202),
        (Status::NO_CONTENT, 204),
        (Status::RESET_CONTENT, 205),
        (Status::PARTIAL_CONTENT, 206),
        (Status::MOVED_PERMANENTLY, 301),
        (Status::FOUND, 302),
        (Status::SEE_OTHER, 303),
        (Status::NOT_MODIFIED, 304),
        (Status::TEMPORARY_REDIRECT, 307),
        (Status::PERMANENT_REDIRECT, 308),
        (Status::BAD_REQUEST, 400),
        (Status::UNAUTHORIZED, 401),
        (Status::FORBIDDEN, 403),
        (Status::NOT_FOUND, 404),
        (Status::METHOD_NOT_ALLOWED, 405),
        (Status::NOT_ACCEPTABLE, 406),
        (Status::REQUEST_TIMEOUT, 408),
        (Status::CONFLICT, 409),
        (Status::GONE, 410),
        (Status::LENGTH_REQUIRED, 411),
        (Status::PRECONDITION_FAILED, 412),
        (Status::CONTENT_TOO_LARGE, 413),
        (Status::URI_TOO_LONG, 414),
        (Status::UNSUPPORTED_MEDIA_TYPE, 415),
        (Status::RANGE_NOT_SATISFIABLE, 416),
        (Status::EXPECTATION_FAILED, 417),
        (Status::MISDIRECTED_REQUEST, 421),
        (Status::UNPROCESSABLE_CONTENT, 422),
        (Status::UPGRADE_REQUIRED, 426),
        (Status::TOO_MANY_REQUESTS, 429),
        (Status::HEADERS_TOO_LARGE, 431),
        (Status::INTERNAL_SERVER_ERROR, 500),
        (Status::NOT_IMPLEMENTED, 501),
        (Status::BAD_GATEWAY, 502),
        (Status::SERVICE_UNAVAILABLE, 503),
        (Status::GATEWAY_TIMEOUT, 504),
        (Status::VERSION_NOT_SUPPORTED, 505),
    ];
    let codes: Vec<u16> = constants.iter().map(|(status, _)| status.code()).collect();
    let named: Vec<u16> = NAMED.iter().filter(|(_, name)| !name.is_empty()).map(|n| n.0).collect();
    assert_eq!(codes, named);
    assert!(constants.iter().all(|(status, code)| status.code() == *code));
}

/// What a handler sees of a request.
#[derive(Debug, PartialEq)]
struct Seen {
    target: String,
    path: String,
    query: Option<String>,
    host: Option<String>,
    bytes: Vec<u8>,
}

fn seen(line_and_headers: &[&[u8]]) -> Seen {
    let seen = Arc::new(Mutex::new(None));
    let sees = Arc::clone(&seen);
    let mut probe = Probe::new(Http::new(on(move |cx, request, response| {
        *sees.lock().unwrap() = Some(Seen {
            target: request.target().to_owned(),
            path: request.path().to_owned(),
            query: request.query().map(str::to_owned),
            host: request.host().map(str::to_owned),
            bytes: request.target_bytes().to_vec(),
        });
        response.send(cx, Status::OK, &[], b"");
        Ok(())
    })));
    probe.receive(&line_and_headers.concat());
    assert_eq!(only(&probe.sent()).status, 200);
    let seen = seen.lock().unwrap().take();
    seen.unwrap()
}

#[test]
fn h16_a_target_is_text_where_it_is_utf8_and_bytes_in_any_case() {
    let get = |target: &[u8]| seen(&[b"GET ", target, b" HTTP/1.1\r\nHost: x:1\r\n\r\n"]);
    let expected = |target: &str, path: &str, query: Option<&str>, host: &str, bytes: &[u8]| Seen {
        target: target.to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        host: Some(host.to_owned()),
        bytes: bytes.to_vec(),
    };
    let text = "/{é}|^?`\"<>\\=€?b";
    let found = get(text.as_bytes());
    let (path, query) = ("/{é}|^", Some("`\"<>\\=€?b"));
    assert_eq!(found, expected(text, path, query, "x:1", text.as_bytes()));
    // Each part by itself.
    let none = "\u{FFFD}";
    let bytes = b"/a?\xE9";
    assert_eq!(get(bytes), expected(none, "/a", Some(none), "x:1", bytes));
    let bytes = b"/\xE9?a";
    assert_eq!(get(bytes), expected(none, none, Some("a"), "x:1", bytes));
    let bytes = b"http://y:2/\xFF";
    assert_eq!(get(bytes), expected(none, none, None, "y:2", bytes));
    assert_eq!(get(b"/"), expected("/", "/", None, "x:1", b"/"));
}

#[test]
fn h16_each_form_of_a_target_has_its_path_its_query_and_its_host() {
    // The host of the target holds, and not that of the header.
    let cases = [
        ("/a?b?c", "/a", Some("b?c"), "x:1"),
        ("/?", "/", Some(""), "x:1"),
        ("//a/b", "//a/b", None, "x:1"),
        ("/http://a?b", "/http://a", Some("b"), "x:1"),
        ("http://y", "/", None, "y"),
        ("http://y/", "/", None, "y"),
        ("http://y:2/a/b?c", "/a/b", Some("c"), "y:2"),
        ("http://y?a", "/", Some("a"), "y"),
        ("http://y?a=/b", "/", Some("a=/b"), "y"),
        ("http://y/?a=http://z/b", "/", Some("a=http://z/b"), "y"),
        ("HTTPS://[::1]:3?", "/", Some(""), "[::1]:3"),
        ("http://y//a", "//a", None, "y"),
    ];
    for (target, path, query, host) in cases {
        let found = seen(&[b"GET ", target.as_bytes(), b" HTTP/1.1\r\nHost: x:1\r\n\r\n"]);
        let query = query.map(str::to_owned);
        let (target, host, bytes) = (target.to_owned(), Some(host.to_owned()), target.into());
        assert_eq!(found, Seen { target, path: path.to_owned(), query, host, bytes });
    }
    let found = seen(&[b"OPTIONS * HTTP/1.1\r\nHost: x:1\r\n\r\n"]);
    assert_eq!((&found.path[..], found.query, found.host.as_deref()), ("*", None, Some("x:1")));
    let found = seen(&[b"GET /a HTTP/1.0\r\n\r\n"]);
    assert_eq!((&found.path[..], found.host), ("/a", None));
}

#[test]
fn a_request_tells_all_that_its_head_says() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let mut probe = Probe::new(Http::new(on(move |cx, request, response| {
        let headers: Vec<String> = request
            .headers()
            .map(|(name, value)| format!("{name}={}", value.escape_ascii()))
            .collect();
        tells.lock().unwrap().push(format!(
            "{:?} {:?} keep {} expects {} upgrade {:?} [{}] | {request:?}",
            request.version(),
            request.length(),
            request.keeps_alive(),
            request.expects_continue(),
            request.upgrade(),
            headers.join(" "),
        ));
        response.send(cx, Status::OK, &[], b"");
        Ok(())
    })));
    probe.receive(
        b"POST /a?b HTTP/1.1\r\nHost: x\r\nA: \t1 \xFF \r\na:\r\nExpect: 100-Continue\r\n\
          Content-Length: 3\r\n\r\n",
    );
    assert_eq!(only(&probe.sent()).status, 200);
    assert_eq!(
        told.lock().unwrap()[0],
        "Http11 Known(3) keep true expects true upgrade None \
         [Host=x A=1 \\xff a= Expect=100-Continue Content-Length=3] | \
         Request { method: \"POST\", target: \"/a?b\", version: Http11, headers: 5, \
         length: Known(3) }"
    );
    let expected = Arc::new(Mutex::new(false));
    let probe = |bytes: &[u8]| {
        told.lock().unwrap().clear();
        let (tells, expects) = (Arc::clone(&told), Arc::clone(&expected));
        let mut probe = Probe::new(Http::new(on(move |cx, request, response| {
            tells.lock().unwrap().push(format!(
                "{:?} {:?} {} {:?}",
                request.version(),
                request.length(),
                request.keeps_alive(),
                request.upgrade(),
            ));
            *expects.lock().unwrap() |= request.expects_continue();
            response.send(cx, Status::OK, &[], b"");
            Ok(())
        })));
        probe.receive(bytes);
        told.lock().unwrap().concat()
    };
    assert_eq!(probe(b"GET / HTTP/1.0\r\n\r\n"), "Http10 None false None");
    let keep = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(probe(keep), "Http10 None true None");
    let expects = b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(probe(expects), "Http10 None false None");
    let chunked = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(probe(chunked), "Http11 Unknown true None");
    let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: a\r\n\r\n";
    assert_eq!(probe(upgrade), "Http11 None false Some(\"a\")");
    assert!(!*expected.lock().unwrap(), "none of these waits for an invitation");
    assert!(Version::Http10 < Version::Http11 && Length::None != Length::Known(1));
}

// ---- the state of an answer ---------------------------------------------------------------------

const LATE: Timer = Timer::new(1);

/// Tells the state of the answer in every callback there is.
struct States(Arc<Mutex<Vec<String>>>);

impl States {
    fn tell(&self, callback: &str, response: &Response) {
        self.0.lock().unwrap().push(format!(
            "{callback} {} due {} streaming {} finished {}",
            response.number(),
            response.is_due(),
            response.is_streaming(),
            response.is_finished(),
        ));
    }
}

impl Handler for States {
    fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
        self.0.lock().unwrap().push("opened".to_owned());
        Ok(())
    }

    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        self.tell("request", response);
        cx.set_timer(LATE, Duration::from_secs(1));
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        self.tell("body", response);
        response.start(cx, Status::OK, &[]);
        response.write(cx, part);
        Ok(())
    }

    fn complete(&mut self, _: &mut Context<'_>, response: &mut Response) -> Outcome {
        self.tell("complete", response);
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer, response: &mut Response) -> Outcome {
        assert_eq!(timer, LATE);
        self.tell("timeout", response);
        response.finish(cx);
        self.tell("finished", response);
        cx.set_timer(LATE, Duration::from_secs(1000));
        Ok(())
    }

    fn notified(&mut self, _: &mut Context<'_>, _: Note, response: &mut Response) -> Outcome {
        self.tell("notified", response);
        Ok(())
    }

    fn stopping(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        self.tell("stopping", response);
        response.finish(cx);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.lock().unwrap().push(format!("closed {}", reason.kind()));
    }
}

#[test]
fn an_answer_knows_how_far_it_is_in_every_callback() {
    let told = Arc::default();
    let mut probe = Probe::new(Http::new(States(Arc::clone(&told))));
    probe.notify(Note::new(()));
    let post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
    probe.receive(post);
    probe.receive(b"abc");
    probe.advance(Duration::from_secs(2));
    probe.notify(Note::new(()));
    probe.receive(&[&post[..], b"abc"].concat());
    probe.shutdown();
    probe.finish();
    let expected = [
        "opened",
        "notified 0 due false streaming false finished true",
        "request 1 due true streaming false finished false",
        "body 1 due true streaming false finished false",
        "complete 1 due false streaming true finished false",
        "timeout 1 due false streaming true finished false",
        "finished 1 due false streaming false finished true",
        "notified 1 due false streaming false finished true",
        "request 2 due true streaming false finished false",
        "body 2 due true streaming false finished false",
        "complete 2 due false streaming true finished false",
        "stopping 2 due false streaming true finished false",
        "closed shut down",
    ];
    assert_eq!(*told.lock().unwrap(), expected);
    let sent = probe.sent();
    assert_eq!(all(&sent).0.iter().filter(|answer| answer.body == b"abc").count(), 2);
}

#[test]
fn http_is_named_after_its_handler() {
    let http = Http::new(States(Arc::default()));
    assert_eq!(http.name(), std::any::type_name::<States>());
}

#[test]
fn an_answer_may_end_the_connection_behind_it() {
    let make = |sized: bool| {
        Http::new(on(move |cx, _, response| {
            if sized {
                response.start_sized(cx, Status::OK, &[], 3);
                response.close_after();
                response.write(cx, b"bye");
                response.finish(cx);
            } else {
                response.close_after();
                response.send(cx, Status::OK, &[], b"bye");
            }
            assert!(format!("{response:?}").starts_with("Response { number: 1, stage: Done"));
            Ok(())
        }))
    };
    for sized in [false, true] {
        let http = make(sized);
        assert!(
            format!("{http:?}").starts_with("Http { response: Response { number: 0, stage: Idle")
        );
        let mut probe = Probe::new(http);
        probe.receive(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
        let answer = only(&probe.sent());
        // Its head is gone when it is said too late.
        assert_eq!((&answer.body[..], answer.closes()), (&b"bye"[..], !sized));
        assert!(probe.is_finished());
    }
}

#[test]
fn collect_is_refused_once_the_answer_has_begun() {
    let mut probe = Probe::new(Http::new(on(|cx, _, response| {
        response.start_sized(cx, Status::OK, &[], 0);
        response.collect();
        response.finish(cx);
        Ok(())
    })));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n");
    assert_eq!(only(&probe.sent()).status, 200);
}

#[test]
fn events_have_names_ids_and_a_time_to_come_back() {
    let mut probe = Probe::new(Http::new(on(|cx, _, response| {
        response.start_events(cx);
        let event = Event::new("a\nb").named("tick")?.with_id("7")?;
        response.event(cx, event.with_retry(Duration::from_millis(1500)));
        response.event_comment(cx);
        response.finish(cx);
        assert_eq!(Event::new("").with_id("\n").unwrap_err(), InvalidEvent);
        Ok(())
    })));
    probe.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = only(&probe.sent());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let events = "event: tick\nid: 7\nretry: 1500\ndata: a\ndata: b\n\n:\n\n";
    assert_eq!(String::from_utf8(answer.body).unwrap(), events);
    let sentence = "the name or id of an event has a line break or a NUL";
    assert_eq!(InvalidEvent.to_string(), sentence);
}

#[test]
fn a_header_that_cannot_be_sent_says_why() {
    let why =
        |name: &'static str, value: &'static str| Header::new(name, value).unwrap_err().to_string();
    assert_eq!(why("", "a"), "a header has no name");
    assert_eq!(why("a b", "a"), "the name of a header is not a token");
    assert_eq!(why("Content-Length", "1"), "this header is written by the library alone");
    assert_eq!(why("a", "\r\n"), "the value of a header has a control byte");
    let value = vec![0xFF, b'a'];
    let header = Header::new("x-any", &value).unwrap();
    assert_eq!((header.name(), header.value()), ("x-any", &value[..]));
    assert!(header == Header::new("x-any", &value).unwrap() && header != Header::TEXT);
}
