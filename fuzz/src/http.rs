//! HTTP: bytes that may be requests, given whole and in pieces to a handler that answers in every
//! way there is.
//!
//! The rules: nothing panics; what is answered does not depend on how the bytes arrived (but for
//! `100 Continue`, which nobody needs whose body is here already); every answer can be read by a
//! client; and the connection ends.

use std::time::Duration;

use lariat::http::{self, Handler, Header, Http, Request, Response, Status};
use lariat::sim::Probe;
use lariat::{CloseKind, Context, Input, Outcome, Protocol, Timer};

use crate::Script;

/// Pieces of requests, right ones first. One byte of the script picks each.
const PIECES: [&[u8]; 64] = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"/",
    b"/b",
    b"/c",
    b"/d",
    b"/e",
    b"/f",
    b"/g",
    b"?x",
    b"*",
    b"http://x/c",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b" HTTP/2.0\r\n",
    b"Host: x\r\n",
    b"Host: y\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 17\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: coffee\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: echo\r\n",
    b"A: b\r\n",
    b"A b\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"hello",
    b"5\r\nhello\r\n",
    b"5\r\n",
    b"5;a=b\r\n",
    b"5 \r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"0\r\nA: b\r\n\r\n",
    b"FFFFFFFFFFFFFFFF\r\n",
    b"10000000000000000\r\n",
    b"-1\r\n",
    b"+5",
    b"CONNECT x:1",
    b"\xFF",
    b"\x7F",
    b"{|}",
    b"a",
    b"OPTIONS ",
    b"G",
    b"/h",
    b"#",
    b"\x16\x03\x01",
];

const SOON: Timer = Timer::new(1);

/// The last letter of the path says how it answers.
#[derive(Default)]
struct Site {
    page: u8,
    bytes: usize,
}

impl Handler for Site {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        self.page = request.path().bytes().next_back().unwrap_or_default();
        self.bytes = 0;
        if request.method() == "CONNECT" {
            return Ok(response.tunnel(cx, &[], Hole)?);
        }
        match self.page {
            b'b' => response.send(cx, Status::OK, &[Header::TEXT], b"early"),
            b'c' => response.collect(),
            b'd' => {
                response.start(cx, Status::OK, &[]);
                response.write(cx, b"one ");
                response.write(cx, b"two");
                response.finish(cx);
            }
            b'e' => return Err("as it was asked to".into()),
            b'h' => {
                response.start_sized(cx, Status::RESET_CONTENT, &[], 5);
                response.write(cx, b"hello");
                response.finish(cx);
            }
            _ => {}
        }
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], _: &mut Response) -> Outcome {
        self.bytes += part.len();
        if self.page == b'f' {
            cx.pause_reading();
            cx.set_timer(SOON, Duration::from_millis(1));
        }
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        match self.page {
            b'g' => cx.set_timer(SOON, Duration::from_millis(1)),
            _ => response.send(cx, Status::OK, &[], format!("{} bytes", self.bytes)),
        }
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::CREATED, &[Header::BYTES], body);
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        match self.page {
            b'g' if response.is_due() => response.send(cx, Status::ACCEPTED, &[], b"late"),
            _ => cx.resume_reading(),
        }
        Ok(())
    }
}

/// What a tunnel leads to: nothing comes back.
struct Hole;

impl Protocol for Hole {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

/// The input that the script stands for.
fn input(script: &mut Script) -> Vec<u8> {
    let mut input = Vec::new();
    while !script.is_over() {
        let byte = script.byte();
        match PIECES.get(usize::from(byte)) {
            Some(piece) => input.extend_from_slice(piece),
            // The upper bytes stand for right requests most of the time, else for themselves.
            None if byte < 160 => input.extend_from_slice(PIECES[usize::from(byte) % 3]),
            None => input.push(byte & 0x7F),
        }
    }
    input
}

/// What comes back, without the `100 Continue`s, and how the connection ended: of one that a tunnel
/// took over, nothing is known but that it did.
fn ask(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, Option<CloseKind>, bool) {
    let mut limits = http::Limits::default();
    limits.connect = true;
    let limits = limits.validate().unwrap_or_else(|error| panic!("{error}"));
    let mut probe = Probe::new(Http::with_limits(Site::default(), &limits));
    let mut sent = Vec::new();
    for piece in pieces {
        probe.receive(&piece);
        sent.extend(probe.sent());
    }
    // Late answers and slow bodies have their time, and every deadline too.
    probe.advance(Duration::from_secs(5));
    probe.finish();
    probe.advance(Duration::from_secs(200));
    sent.extend(probe.sent());
    let kind = probe.closed().map(|reason| reason.kind());
    (without_continue(&sent), kind, kind.is_some() || probe.is_finished())
}

fn without_continue(sent: &[u8]) -> Vec<u8> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < sent.len() {
        if sent[at..].starts_with(CONTINUE) {
            at += CONTINUE.len();
        } else {
            kept.push(sent[at]);
            at += 1;
        }
    }
    kept
}

/// Every answer has a status line, headers, and an end that a client can find.
fn check(sent: &[u8]) {
    let mut rest = sent;
    while !rest.is_empty() {
        let told = || sent.escape_ascii().to_string();
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("a head without an end: {}", told()));
        let head = std::str::from_utf8(&rest[..end]).unwrap_or_else(|_| panic!("{}", told()));
        assert!(head.starts_with("HTTP/1.1 "), "no status line: {}", told());
        let behind = &rest[end + 4..];
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let used = match (header("content-length: "), header("transfer-encoding: ")) {
            // An answer to HEAD is followed by another one, or by nothing.
            (Some(_), None) if behind.is_empty() || behind.starts_with(b"HTTP/1.1 ") => 0,
            (Some(length), None) => length.parse().unwrap_or_else(|_| panic!("{}", told())),
            (None, Some("chunked")) if behind.starts_with(b"4\r\n") => {
                let whole = b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n";
                assert!(behind.starts_with(whole), "{}", told());
                whole.len()
            }
            (None, Some("chunked")) => 0,
            (None, None) => behind.len(),
            _ => panic!("two lengths: {}", told()),
        };
        assert!(used <= behind.len(), "a body that is cut: {}", told());
        rest = &behind[used..];
    }
}

/// Runs a script.
///
/// # Panics
///
/// When a rule is broken.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let step = 1 + script.below(7);
    let input = input(&mut script);
    if std::env::var_os("LARIAT_TELL").is_some() {
        eprintln!("{}", input.escape_ascii());
    }
    let whole = ask(std::iter::once(input.clone()));
    check(&whole.0);
    assert!(whole.2, "still open: {}", input.escape_ascii());
    let cut = ask(input.chunks(step).map(<[u8]>::to_vec));
    assert!(
        whole == cut,
        "the answer depends on how the input is cut (by {step}): {}\n whole: {:?} {}\n   cut: {:?} {}",
        input.escape_ascii(),
        whole.1,
        whole.0.escape_ascii(),
        cut.1,
        cut.0.escape_ascii(),
    );
}
