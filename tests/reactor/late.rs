//! C17: the loop is left for so long that every deadline has passed, while input has come for more
//! connections than one poll tells of.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lariat::http::{self, Handler, Http, Request, Response, Status};
use lariat::reactor::Reactor;
use lariat::{Context, DriverLimits, Incoming, ListenOptions, Outcome, Protocol};

use crate::common::*;

/// Every deadline, where everybody can connect in half of it.
const TIME: Duration = Duration::from_secs(2);
const MANY: usize = 4_000;

/// How many connections this process may have both ends of: [`MANY`], where it may open files
/// enough.
fn many() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let files = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    // The other tests of this process need some as well.
    let most = files.map_or(MANY, |files| files.saturating_sub(600) / 2);
    if most < MANY {
        eprintln!("{most} connections instead of {MANY}: no more files can be opened here");
    }
    most.min(MANY)
}

struct Page;

impl Handler for Page {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        _: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        response.send(cx, Status::OK, &[], b"page");
        Ok(())
    }
}

/// Connects everybody, who says `first`. None when that took so long that deadlines of `time` may
/// have passed.
fn enter(
    reactor: &mut Reactor,
    addr: SocketAddr,
    first: &[u8],
    time: Duration,
) -> Option<Vec<TcpStream>> {
    let (count, began) = (many(), Instant::now());
    let mut clients = Vec::new();
    while clients.len() < count {
        // No more than wait at a listener.
        let next = (count - clients.len()).min(500);
        for _ in 0..next {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.write_all(first).unwrap();
            clients.push(stream);
        }
        let (all, bytes) = (clients.len() as u64, (clients.len() * first.len()) as u64);
        drive(reactor, |reactor| {
            let metrics = reactor.metrics();
            metrics.accepted == all && metrics.bytes_in == bytes
        });
    }
    (began.elapsed() < time / 2).then_some(clients)
}

/// Plays it: `first`, then `rest` from the last to the first while the loop does nothing, until all
/// deadlines have passed. Everybody is to be answered with what ends with `last`.
///
/// One at a time: together they would need more files than a process may open.
#[track_caller]
fn play<P: Protocol + 'static>(first: &[u8], rest: &[u8], last: &[u8], make: fn(Duration) -> P) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut time = TIME;
    let (mut reactor, mut clients) = loop {
        let mut limits = DriverLimits::default();
        limits.connections_max = 2 * MANY;
        let mut reactor = Reactor::with_limits(limits).unwrap();
        let mut options = ListenOptions::default();
        options.limits.idle = Some(time);
        let made = move |_: &Incoming| Some(make(time));
        let listener = reactor.listen_with("127.0.0.1:0", options, made).unwrap();
        let addr = reactor.addresses(listener)[0].socket_addr().unwrap();
        if let Some(clients) = enter(&mut reactor, addr, first, time) {
            break (reactor, clients);
        }
        // A machine that does other work needs longer.
        time *= 2;
        assert!(time < 60 * TIME, "this machine does not let {MANY} clients in within {time:?}");
    };
    let before = reactor.metrics();
    for stream in clients.iter_mut().rev() {
        stream.write_all(rest).unwrap();
    }
    std::thread::sleep(time + time / 8);
    let all = before.bytes_in + (clients.len() * rest.len()) as u64;
    drive(&mut reactor, |reactor| {
        let metrics = reactor.metrics();
        metrics.bytes_in == all || metrics.closes.total() > 0 || metrics.lingering > 0
    });
    let metrics = reactor.metrics();
    assert_eq!((metrics.open, metrics.bytes_in), (clients.len() as u64, all), "{metrics}");
    // Nothing is lost on the way back either.
    let mut heard = vec![0; 4096];
    for stream in &mut clients {
        let count = stream.read(&mut heard).unwrap();
        assert!(heard[..count].ends_with(last), "{:?}", heard[..count].escape_ascii().to_string());
    }
    drop(clients);
    finish(reactor);
}

fn site(time: Duration) -> Http<Page> {
    let mut limits = http::Limits::default();
    (limits.head, limits.keep_alive) = (time, time);
    Http::with_limits(Page, &limits.validate().unwrap())
}

#[test]
fn c17_none_of_4000_idle_connections_whose_bytes_came_in_time_is_cut() {
    play(b"x", b"y", b"y", |_| Echo);
}

#[test]
fn c17_none_of_4000_heads_of_http_that_came_in_time_is_cut() {
    play(b"GET / HTTP/1.1\r\nHo", b"st: x\r\n\r\n", b"page", site);
}

#[test]
fn c17_none_of_4000_connections_of_http_that_are_kept_and_used_in_time_is_cut() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    play(GET, GET, b"page", site);
}
