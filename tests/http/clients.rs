//! The client side: what it sends, what it takes, and how it says that there is no response.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::http::{
    Client, ClientError, ClientRequest, ClientResponse, Handler, Header, Http, Length, Request,
    Response, Status,
};
use lariat::sim::{Probe, Sim};
use lariat::{CloseKind, ConnectFailure, Context, Driver, Input, Limits, Outcome, Protocol};

use crate::kit::{everywhere, narrow, serve};
use crate::site::Site;

type Heard = Arc<Mutex<Vec<Option<Result<ClientResponse, ClientError>>>>>;

fn sentence(result: &Result<ClientResponse, ClientError>) -> String {
    match result {
        Ok(response) => format!("{}: {}", response.status(), response.body().escape_ascii()),
        Err(ClientError::Ended(reason)) => format!("ended: {}", reason.kind()),
        Err(error) => error.to_string(),
    }
}

/// Sends all requests at once, each on a connection of its own, and waits for what comes of them.
fn ask(
    driver: &mut dyn Driver,
    addr: std::net::SocketAddr,
    limits: &Limits,
    requests: Vec<ClientRequest>,
) -> Vec<Result<ClientResponse, ClientError>> {
    let heard = Heard::default();
    let count = requests.len();
    heard.lock().unwrap().resize_with(count, || None);
    let left = Arc::new(AtomicU64::new(count as u64));
    for (number, request) in requests.into_iter().enumerate() {
        let (heard, left) = (Arc::clone(&heard), Arc::clone(&left));
        let client = request.then(move |cx, result| {
            let before = heard.lock().unwrap()[number].replace(result);
            assert!(before.is_none(), "told twice");
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                cx.driver().shutdown();
            }
        });
        driver.control().connect_with(addr, limits.clone().into(), client).unwrap();
    }
    driver.run().unwrap();
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    heard.into_iter().map(Option::unwrap).collect()
}

fn get(path: &str) -> ClientRequest {
    ClientRequest::get("x", path).unwrap()
}

fn post(path: &str) -> ClientRequest {
    ClientRequest::new("POST", "x", path).unwrap()
}

#[test]
fn a_client_asks_once_and_hears_once_on_every_driver() {
    everywhere(|driver, told| {
        let addr = serve(driver, || Http::new(Site));
        let requests = vec![
            get("/"),
            get("/chunks"),
            get("/hints"),
            get("/late").header(Header::literal("accept", "*/*")),
            ClientRequest::new("HEAD", "x", "/").unwrap(),
            get("/204"),
            get("/205"),
            post("/").body(&b"12345"[..]),
            post("/echo").chunked_body(&b"12345"[..]),
            post("/echo").chunked_body(&b""[..]),
            get("/never").timeout(Duration::from_millis(300)),
            get("/missing").body_max(9),
            get("/missing").body_max(8),
            get("/chunks").body_max(7),
            get("/chunks").body_max(6),
        ];
        let heard = ask(driver, addr, &Limits::default(), requests);
        let expected = [
            "200 OK: ok\\n",
            "200 OK: one two",
            "200 OK: hinted\\n",
            "202 Accepted: late\\n",
            "200 OK: ",
            "204 No Content: ",
            "205 Reset Content: ",
            "200 OK: 5 bytes\\n",
            "200 OK: 12345",
            "200 OK: ",
            "the response did not come in time",
            "404 Not Found: not here\\n",
            "the body of the response is too large",
            "200 OK: one two",
            "the body of the response is too large",
        ];
        let heard: Vec<String> = heard.iter().map(sentence).collect();
        assert_eq!(heard, expected, "on {told}");
    });
}

/// Answers with the method, the lengths and the count of bytes that came.
#[derive(Default)]
struct Tells {
    line: String,
    count: usize,
}

impl Handler for Tells {
    fn request(&mut self, _: &mut Context<'_>, request: &Request<'_>, _: &mut Response) -> Outcome {
        let length = request.header("content-length").map(|value| value.escape_ascii().to_string());
        let chunked = request.length() == Length::Unknown;
        self.line = format!("{} {length:?} {chunked}", request.method());
        Ok(())
    }

    fn body(&mut self, _: &mut Context<'_>, part: &[u8], _: &mut Response) -> Outcome {
        assert!(part.iter().all(|byte| *byte == b'a'));
        self.count += part.len();
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[], format!("{} {}", self.line, self.count));
        Ok(())
    }
}

#[test]
fn an_empty_body_says_its_length_where_a_body_is_expected() {
    let sent = |method: &str, with: fn(ClientRequest) -> ClientRequest| {
        let request = with(ClientRequest::new(method, "x", "/").unwrap());
        let mut probe = Probe::new(request.then(|_, _| ()));
        String::from_utf8(probe.sent().into_vec()).unwrap()
    };
    let zero = "\r\ncontent-length: 0\r\n\r\n";
    for method in ["POST", "PUT", "PATCH"] {
        assert!(sent(method, |request| request).ends_with(zero), "{method}");
        assert!(sent(method, |request| request.body("abc")).ends_with("length: 3\r\n\r\nabc"));
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "OTHER"] {
        let bare = sent(method, |request| request);
        assert!(bare.ends_with("\r\nconnection: close\r\n\r\n"), "{bare}");
        assert!(!bare.contains("content-length"), "{bare}");
        assert!(sent(method, |request| request.body("")).ends_with(zero), "{method}, on purpose");
    }
    let chunked = sent("PUT", |request| request.chunked_body("abc"));
    assert!(chunked.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
    let empty = sent("PUT", |request| request.chunked_body(""));
    assert!(empty.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), "{empty}");
    // The last word counts.
    let changed = sent("PUT", |request| request.chunked_body("abc").body("d"));
    assert!(changed.ends_with("\r\ncontent-length: 1\r\n\r\nd"), "{changed}");
}

#[test]
fn a_body_may_be_larger_than_the_output_holds() {
    let mut limits = Limits::default();
    (limits.output_max, limits.high_mark, limits.low_mark) = (40_000, 20_000, 10_000);
    everywhere(|driver, told| {
        let addr = serve(driver, || Http::new(Tells::default()));
        let body = bytes::Bytes::from(vec![b'a'; 3_000_000]);
        let requests = vec![
            post("/").body(body.clone()),
            post("/").chunked_body(body.clone()),
            post("/"),
            ClientRequest::new("PUT", "x", "/").unwrap().body(body.slice(..40_001)),
        ];
        let heard = ask(driver, addr, &limits, requests);
        let heard: Vec<String> = heard.iter().map(sentence).collect();
        let expected = [
            "200 OK: POST Some(\\\"3000000\\\") false 3000000",
            "200 OK: POST None true 3000000",
            "200 OK: POST Some(\\\"0\\\") false 0",
            "200 OK: PUT Some(\\\"40001\\\") false 40001",
        ];
        assert_eq!(heard, expected, "on {told}");
    });
}

#[test]
fn a_response_may_be_larger_than_anything_else_that_is_kept() {
    /// Streams nine MiB.
    struct Large {
        left: usize,
    }
    impl Handler for Large {
        fn request(
            &mut self,
            cx: &mut Context<'_>,
            _: &Request<'_>,
            response: &mut Response,
        ) -> Outcome {
            response.start_sized(cx, Status::OK, &[], self.left as u64);
            self.drained(cx, response)
        }

        fn drained(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
            while self.left > 0 && !cx.is_congested() {
                let count = self.left.min(50_000);
                response.write(cx, vec![b'x'; count]);
                self.left -= count;
            }
            if self.left == 0 && response.is_streaming() {
                response.finish(cx);
            }
            Ok(())
        }
    }
    const SIZE: usize = 9 << 20;
    everywhere(|driver, told| {
        let addr = serve(driver, || Http::new(Large { left: SIZE }));
        let requests = vec![get("/").body_max(SIZE), get("/").body_max(SIZE - 1)];
        let heard = ask(driver, addr, &Limits::default(), requests);
        let whole = heard[0].as_ref().unwrap();
        assert!(whole.body().len() == SIZE && whole.body().iter().all(|byte| *byte == b'x'));
        for heard in &heard[1..] {
            assert!(matches!(heard, Err(ClientError::BodyTooLarge)), "{heard:?} on {told}");
        }
    });
}

#[test]
fn a_server_that_cannot_be_reached_is_an_end_with_that_reason() {
    everywhere(|driver, told| {
        // Nobody listens there any more.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let heard = ask(driver, addr, &Limits::default(), vec![get("/")]);
        let Err(ClientError::Ended(reason)) = &heard[0] else { panic!("{heard:?} on {told}") };
        assert_eq!(reason.kind(), CloseKind::Connect(ConnectFailure::Refused), "on {told}");
    });
}

// ---- responses that are wrong -------------------------------------------------------------------

fn client() -> (Client, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    (get("/").then(move |_, result| hears.lock().unwrap().push(sentence(&result))), heard)
}

/// What a client makes of this response, whole and in single bytes.
#[track_caller]
fn hears(response: &[u8]) -> String {
    let mut told = Vec::new();
    for step in [response.len().max(1), 1] {
        let (client, heard) = client();
        let mut probe = Probe::new(client);
        response.chunks(step).for_each(|piece| probe.receive(piece));
        probe.finish();
        probe.advance(Duration::from_secs(20));
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 1, "told once: {heard:?}");
        told.push(heard[0].clone());
    }
    assert_eq!(told[0], told[1]);
    told.remove(0)
}

#[test]
fn a_client_is_told_when_there_is_no_response() {
    let headed = |headers: &str, body: &str| {
        hears(format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}").as_bytes())
    };
    assert_eq!(headed("", "until the end"), "200 OK: until the end");
    assert_eq!(headed("Content-Length: 5\r\n", "ab"), "ended: finished");
    assert_eq!(headed("Content-Length: 2\r\nContent-Length: 2\r\n", "ab"), "200 OK: ab");
    assert_eq!(hears(b""), "ended: finished");
    assert_eq!(hears(b"HTTP/1.1 200 O"), "ended: finished");
    assert_eq!(
        hears(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        "304 Not Modified: "
    );
    assert_eq!(
        hears(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\n\r\n\
              HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n"
        ),
        "201 Created: "
    );
    let wrong = [
        (hears(b"SSH-2.0-x\r\n"), "its head cannot be parsed"),
        (hears(b"HTTP/1.1 099 x\r\n\r\n"), "its status is none"),
        (hears(b"HTTP/1.1 101 x\r\n\r\n"), "an upgrade that was not asked for"),
        (headed("Content-Length: 5, 5\r\n", "hello"), "its content-length is not one number"),
        (
            headed("Content-Length: 5\r\nContent-Length: 6\r\n", ""),
            "its content-length is not one number",
        ),
        (headed("Transfer-Encoding: gzip\r\n", ""), "its transfer coding is not chunked alone"),
        (
            headed("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            "it has both lengths",
        ),
        (
            headed("Transfer-Encoding: chunked\r\n", "x\r\n"),
            "a chunk size that is no number, or too large",
        ),
    ];
    for (found, why) in wrong {
        assert_eq!(found, format!("what came is no response: {why}"));
    }
}

#[test]
fn the_head_of_a_response_has_a_bound_and_an_error_of_its_own() {
    let too_large = "the head of the response is too large: 128 headers and 32 KiB may come";
    for (count, expected) in [(127, "200 OK: "), (128, "200 OK: "), (129, too_large)] {
        let headers = format!("Content-Length: 0\r\n{}", "a: b\r\n".repeat(count - 1));
        let response = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        assert_eq!(hears(response.as_bytes()), expected, "{count} headers");
    }
    const MAX: usize = 32 * 1024;
    for (size, expected) in [(MAX - 1, "200 OK: "), (MAX, "200 OK: "), (MAX + 1, too_large)] {
        let begins = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: ";
        let value = "a".repeat(size - begins.len() - 4);
        let response = format!("{begins}{value}\r\n\r\n");
        assert_eq!(response.len(), size);
        assert_eq!(hears(response.as_bytes()), expected, "{size} bytes");
    }
}

#[test]
fn what_is_not_whole_of_a_response_waits_for_more_without_a_callback() {
    /// Sends this at once, and reads nothing.
    struct Says(&'static [u8]);
    impl Protocol for Says {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(self.0);
            cx.pause_reading();
            Ok(())
        }

        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let partial: [&[u8]; 3] = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5;a",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nB",
    ];
    for bytes in partial {
        let mut sim = Sim::new(0);
        let addr = serve(&mut sim, move || Says(bytes));
        let (client, heard) = client();
        sim.connect(addr, client);
        sim.run_for(Duration::from_secs(1)).unwrap();
        // `opened` of both, and `data` once.
        assert_eq!(sim.metrics().callbacks, 3, "{}", bytes.escape_ascii());
        assert!(heard.lock().unwrap().is_empty());
    }
}

#[test]
fn the_time_for_a_response_is_counted_from_the_connection_and_not_from_its_last_byte() {
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    for begins in [&response[..20], &response[..]] {
        let (client, heard) = client();
        let mut probe = Probe::new(client);
        probe.receive(begins);
        for _ in 0..29 {
            probe.advance(Duration::from_secs(1));
            probe.receive(b"a");
        }
        assert!(heard.lock().unwrap().is_empty());
        probe.advance(Duration::from_millis(999));
        assert!(heard.lock().unwrap().is_empty());
        probe.advance(Duration::from_millis(2));
        assert_eq!(*heard.lock().unwrap(), ["the response did not come in time"]);
        assert_eq!(probe.closed().unwrap().kind(), CloseKind::Aborted);
    }
}

#[test]
fn a_body_that_will_be_too_large_is_not_waited_for() {
    let (client, heard) = client();
    let mut probe = Probe::new(client);
    probe.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n");
    assert_eq!(*heard.lock().unwrap(), ["the body of the response is too large"]);
    assert!(probe.is_finished());
    // To HEAD there will be none.
    let heard = Arc::new(Mutex::new(None));
    let hears = Arc::clone(&heard);
    let head = ClientRequest::new("HEAD", "x", "/").unwrap();
    let mut probe = Probe::new(head.then(move |_, result| {
        *hears.lock().unwrap() = Some(sentence(&result));
    }));
    probe.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n");
    assert_eq!(heard.lock().unwrap().as_deref(), Some("200 OK: "));
}

#[test]
fn the_headers_of_a_response_are_in_order_and_found_in_any_case() {
    let heard = Arc::new(Mutex::new(None));
    let hears = Arc::clone(&heard);
    let mut probe = Probe::new(get("/").then(move |_, result| {
        *hears.lock().unwrap() = Some(result);
    }));
    probe.receive(b"HTTP/1.1 404 x\r\nB: 1\r\na: \xFF\r\nb: 2\r\nContent-Length: 0\r\n\r\n");
    let response = heard.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(response.status(), Status::NOT_FOUND);
    assert_eq!(response.header("b"), Some(&b"1"[..]));
    assert_eq!((response.header("A"), response.header("c")), (Some(&b"\xFF"[..]), None));
    let names: Vec<&str> = response.headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["B", "a", "b", "Content-Length"]);
    assert_eq!(response.body(), b"");
}

#[test]
fn a_client_can_be_shown_and_its_request_sent_again() {
    let request = post("/a").header(Header::JSON).body("{}");
    let sent = |request: ClientRequest| {
        let client = request.then(|_, _| ());
        assert!(format!("{client:?}").starts_with("Client { request: ClientRequest {"));
        Probe::new(client).sent().into_vec()
    };
    let first = sent(request.clone());
    assert_eq!(first, sent(request));
    let head = "POST /a HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        connection: close\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(String::from_utf8(first).unwrap(), head);
}

#[test]
fn a_request_that_cannot_be_sent_says_why() {
    let why = |method: &str, host: &str, target: &str| {
        ClientRequest::new(method, host, target).unwrap_err().to_string()
    };
    let sentences = [
        (why("G T", "x", "/"), "the method is not a token"),
        (why("", "x", "/"), "the method is not a token"),
        (why("CONNECT", "x", "x:1"), "CONNECT asks for a tunnel, and not for a response"),
        (why("GET", "x\r\n", "/"), "the host is not a name or address"),
        (why("GET", "x", "/a b"), "the target is not one of this method"),
        (why("GET", "x", "/a|b"), "the target is not one of this method"),
        (why("GET", "x", "/é"), "the target is not one of this method"),
        (why("GET", "x", "*"), "the target is not one of this method"),
    ];
    for (found, why) in sentences {
        assert_eq!(found, format!("this request cannot be sent: {why}"));
    }
    assert!(ClientRequest::new("OPTIONS", "x", "*").is_ok());
}

#[test]
fn the_length_of_what_has_no_body_bounds_nothing() {
    for (method, status) in [("HEAD", "200 OK"), ("GET", "304 Not Modified")] {
        for length in ["11", "18446744073709551615"] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let hears = Arc::clone(&heard);
            let request = ClientRequest::new(method, "x", "/").unwrap().body_max(10);
            let mut probe = Probe::new(request.then(move |_, result| {
                hears.lock().unwrap().push(sentence(&result));
            }));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            probe.receive(head.as_bytes());
            assert_eq!(*heard.lock().unwrap(), [format!("{status}: ")], "{method}, {length}");
        }
    }
}

#[test]
fn a_response_before_the_whole_request_is_sent_ends_the_sending() {
    /// Answers the first bytes, and reads the rest.
    struct Early(Arc<AtomicU64>);
    impl Protocol for Early {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            if self.0.fetch_add(input.len() as u64, Ordering::AcqRel) == 0 {
                cx.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
            }
            input.consume_all();
            Ok(())
        }
    }
    for chunked in [false, true] {
        let mut sim = narrow();
        let got = Arc::new(AtomicU64::new(0));
        let gets = Arc::clone(&got);
        let addr = serve(&mut sim, move || Early(Arc::clone(&gets)));
        let mut limits = Limits::default();
        (limits.output_max, limits.high_mark, limits.low_mark) = (40_000, 20_000, 10_000);
        let body = bytes::Bytes::from(vec![b'a'; 8 << 20]);
        let request = if chunked { post("/").chunked_body(body) } else { post("/").body(body) };
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let client = request.then(move |_, result| hears.lock().unwrap().push(sentence(&result)));
        sim.control().connect_with(addr, limits.into(), client).unwrap();
        sim.run_for(Duration::from_secs(5)).unwrap();
        assert_eq!(*heard.lock().unwrap(), ["413 Content Too Large: "]);
        let got = got.load(Ordering::Acquire);
        assert!((1..1 << 20).contains(&got), "{got} bytes were sent");
        assert_eq!((sim.metrics().open, sim.metrics().closes.finished), (0, 2));
    }
}

#[test]
fn what_comes_behind_a_response_is_thrown_away_and_not_missed() {
    let (client, heard) = client();
    let mut probe = Probe::new(client);
    probe.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabwhat else");
    probe.finish();
    assert_eq!(*heard.lock().unwrap(), ["200 OK: ab"]);
    let reason = probe.closed().unwrap();
    assert_eq!((reason.kind(), reason.unread()), (CloseKind::Finished, 0));
}
