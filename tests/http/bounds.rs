//! Each size among the limits: one below it, at it, and one above it, on every driver.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lariat::http::{self, Handler, Http, Request, Response, Status};
use lariat::sim::Sim;
use lariat::{CloseKind, Context, Input, Limits, Outcome, Protocol, forward_protocol};

use crate::answer::all;
use crate::kit::{converse, everywhere, says, serve, talk};
use crate::site::Site;

/// A limit, and a request that has as much of what it bounds as one likes.
struct Bound {
    field: &'static str,
    bound: usize,
    set: fn(&mut http::Limits, usize),
    make: fn(usize) -> Vec<u8>,
    /// What one too much is answered with.
    over: u16,
}

const HEAD: &str = "POST / HTTP/1.1\r\nHost: x\r\n";

fn padded(before: &str, after: &str, length: usize) -> Vec<u8> {
    let count = length - before.len() - after.len();
    [before.as_bytes(), &vec![b'a'; count], after.as_bytes()].concat()
}

/// `parts` as the chunked body of a request.
fn chunked(path: &str, parts: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    [head.as_bytes(), parts].concat()
}

fn sized(path: &str, length: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b'a'; length]].concat()
}

/// A chunked body of so many bytes as they are sent, up to the last byte of data.
fn chunks(path: &str, length: usize) -> Vec<u8> {
    let small = b"3\r\nabc\r\n".repeat(12);
    // Behind its own line: three digits and a line break.
    let last = length - small.len() - 5;
    let parts = [&small[..], format!("{last:03x}\r\n").as_bytes(), &vec![b'a'; last]].concat();
    assert_eq!(parts.len(), length);
    chunked(path, &[&parts[..], b"\r\n0\r\n\r\n"].concat())
}

const BOUNDS: [Bound; 8] = [
    Bound {
        field: "line_max",
        bound: 64,
        set: |limits, bound| limits.line_max = bound,
        make: |n| [&padded("GET /", " HTTP/1.1\r\n", n)[..], b"Host: x\r\n\r\n"].concat(),
        over: 414,
    },
    Bound {
        field: "head_max",
        bound: 300,
        set: |limits, bound| (limits.head_max, limits.line_max) = (bound, 64),
        make: |n| padded("GET / HTTP/1.1\r\nHost: x\r\nA: ", "\r\n\r\n", n),
        over: 431,
    },
    Bound {
        field: "fields_max",
        bound: 5,
        set: |limits, bound| limits.fields_max = bound,
        make: |n| format!("{HEAD}{}\r\n", "A: b\r\n".repeat(n - 1)).into_bytes(),
        over: 431,
    },
    Bound {
        field: "chunk_line_max",
        bound: 20,
        set: |limits, bound| limits.chunk_line_max = bound,
        make: |n| chunked("/", &[&padded("3;", "\r\n", n)[..], b"abc\r\n0\r\n\r\n"].concat()),
        over: 400,
    },
    Bound {
        field: "extensions_max",
        bound: 100,
        set: |limits, bound| limits.extensions_max = bound,
        make: |n| {
            // Two extensions, with their semicolons.
            let chunk = |n: usize| [b"3;", &vec![b'a'; n - 1][..], b"\r\nabc\r\n"].concat();
            chunked("/", &[&chunk(60)[..], &chunk(n - 60), b"0\r\n\r\n"].concat())
        },
        over: 400,
    },
    Bound {
        field: "trailers_max",
        bound: 50,
        set: |limits, bound| limits.trailers_max = bound,
        make: |n| {
            let trailers = padded("A: b\r\nB: ", "\r\n\r\n", n);
            chunked("/", &[b"3\r\nabc\r\n0\r\n", &trailers[..]].concat())
        },
        over: 431,
    },
    Bound {
        field: "collect_max, of a known length",
        bound: 1000,
        set: |limits, bound| limits.collect_max = bound,
        make: |n| sized("/", n),
        over: 413,
    },
    Bound {
        field: "collect_max, of chunks",
        bound: 1000,
        set: |limits, bound| limits.collect_max = bound,
        make: |n| {
            let last = format!("\r\n{:x}\r\n", n - 400);
            let data = [&b"190\r\n"[..], &[b'a'; 400], last.as_bytes(), &vec![b'b'; n - 400]];
            chunked("/", &[&data.concat()[..], b"\r\n0\r\n\r\n"].concat())
        },
        over: 413,
    },
];

#[test]
fn each_size_holds_to_the_byte_and_one_more_is_refused() {
    for Bound { field, bound, set, make, over } in BOUNDS {
        let mut limits = http::Limits::default();
        set(&mut limits, bound);
        let limits = limits.validate().unwrap();
        everywhere(|driver, told| {
            let limits = limits.clone();
            let scripts = [bound - 1, bound, bound + 1].map(|count| says(&make(count)));
            let http = move || Http::with_limits(Site, &limits);
            let talks = talk(driver, &Limits::default(), http, scripts.to_vec());
            let ends = [
                (200, CloseKind::Finished),
                (200, CloseKind::Finished),
                (over, CloseKind::Refused(over)),
            ];
            for (talk, end) in talks.iter().zip(ends) {
                let (answers, rest) = all(&talk.heard);
                assert_eq!((answers.len(), rest), (1, &b""[..]), "{field} on {told}");
                let found = (answers[0].status, talk.reason().kind());
                assert_eq!(found, end, "{field} of {bound} on {told}: {answers:?}");
            }
        });
    }
}

#[test]
fn so_much_of_an_unwanted_body_is_read_and_one_byte_more_closes() {
    const MAX: usize = 1000;
    let mut limits = http::Limits::default();
    limits.discard_max = MAX as u64;
    let limits = limits.validate().unwrap();
    let next = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for (make, is_sized) in [(sized as fn(&str, usize) -> Vec<u8>, true), (chunks, false)] {
        for path in ["/early", "/early/bytes", "/early/chunks", "/early/sized"] {
            everywhere(|driver, told| {
                let limits = limits.clone();
                let with_next = |bytes: Vec<u8>| says(&[&bytes[..], next].concat());
                let mut scripts: Vec<_> =
                    [MAX - 1, MAX, MAX + 1].map(|count| with_next(make(path, count))).to_vec();
                // Each body counts by itself.
                scripts.push(with_next(make(path, MAX).repeat(3)));
                let http = move || Http::with_limits(Site, &limits);
                let heard = converse(driver, http, scripts);
                for (heard, count) in heard.iter().zip([2, 2, 1, 4]) {
                    let (answers, rest) = all(heard);
                    assert_eq!((answers.len(), rest), (count, &b""[..]), "{path} on {told}");
                    assert_eq!(answers[0].body, b"early\n", "{path} on {told}");
                    // Of a length that is known it is said in the answer, unless its head has gone.
                    let says = is_sized && count == 1 && matches!(path, "/early" | "/early/bytes");
                    assert_eq!(answers[0].closes(), says, "{path} on {told}");
                }
            });
        }
    }
}

/// Tells how many requests were taken in each `data`.
struct Counted<P> {
    inner: P,
    now: Arc<AtomicUsize>,
    each: Arc<Mutex<Vec<usize>>>,
}

impl<P: Protocol> Protocol for Counted<P> {
    forward_protocol! {
        self => self.inner;
        pass: opened eof drained timeout notified stopping closed name filter;
        own: data;
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let before = self.now.load(Ordering::Acquire);
        let outcome = self.inner.data(cx, input);
        self.each.lock().unwrap().push(self.now.load(Ordering::Acquire) - before);
        outcome
    }
}

struct Counts(Arc<AtomicUsize>);

impl Handler for Counts {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        self.0.fetch_add(1, Ordering::AcqRel);
        response.send(cx, Status::NO_CONTENT, &[], b"");
        Ok(())
    }
}

#[test]
fn so_many_requests_are_answered_in_one_go_and_the_next_ones_in_the_next() {
    const MAX: usize = 8;
    let mut limits = http::Limits::default();
    limits.pipeline_max = MAX;
    let limits = limits.validate().unwrap();
    let server = |each: &Arc<Mutex<Vec<usize>>>| {
        let (limits, each) = (limits.clone(), Arc::clone(each));
        move || {
            let now = Arc::new(AtomicUsize::new(0));
            let inner = Http::with_limits(Counts(Arc::clone(&now)), &limits);
            Counted { inner, now, each: Arc::clone(&each) }
        }
    };
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for (count, goes) in [(MAX - 1, &[7][..]), (MAX, &[8]), (MAX + 1, &[8, 1]), (20, &[8, 8, 4])] {
        let each = Arc::default();
        let mut sim = Sim::new(0);
        let addr = serve(&mut sim, server(&each));
        sim.dial(addr).send(&get.repeat(count));
        sim.run_for(std::time::Duration::from_secs(1)).unwrap();
        let each: Vec<usize> = each.lock().unwrap().iter().copied().filter(|n| *n > 0).collect();
        assert_eq!(each, goes, "{count} at once");
        // However they arrive elsewhere: never more, and all of them.
        everywhere(|driver, told| {
            let each = Arc::default();
            let heard = converse(driver, server(&each), vec![says(&get.repeat(count))]);
            assert_eq!(all(&heard[0]).0.len(), count, "on {told}");
            let each = each.lock().unwrap();
            let most = each.iter().max().copied();
            assert!(most <= Some(MAX), "{each:?} on {told}");
        });
    }
}
