//! The same for servers of HTTP: one request, over and over, and one answer of the same length.
use crate::Result;
use crate::client::{Leave, connect};
use crate::idle::hold;
use crate::options::Options;
use crate::system::{Line, allow_descriptors, cpu_time, wait};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{Error, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// A connection: what it still has to send, and how far its answers are.
struct Lane {
    socket: TcpStream,
    /// Bytes that may be sent by now, and that were.
    goal: u64,
    sent: u64,
    received: u64,
    ended: bool,
}

/// The request as often as one write may take it, and the length of its answer.
struct Talk {
    request: Vec<u8>,
    length: u64,
    answer: u64,
}

const START: &[u8] = b"HTTP/1.1 200 ";

impl Talk {
    /// Asks once, to learn how long the answer is.
    fn learn(o: &Options) -> Result<Talk> {
        let mut socket = connect(o, 0, Leave::Finish)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(&o.request)?;
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let n = socket.read(&mut buffer)?;
            if n == 0 {
                return Err("the server closed before it had answered".into());
            }
            got.extend_from_slice(&buffer[..n]);
            if !got.starts_with(&START[..got.len().min(START.len())]) {
                let text = String::from_utf8_lossy(&got);
                return Err(format!("not answered with 200: {text}").into());
            }
            let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
            let body = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let body: usize = body.ok_or("the answer has no content-length")?.trim().parse()?;
            if got.len() >= end + 4 + body {
                let length = o.request.len() as u64;
                let request = o.request.repeat(4096 / o.request.len() + 1);
                return Ok(Talk { request, length, answer: (end + 4 + body) as u64 });
            }
        }
    }
}

impl Lane {
    fn open(poll: &Poll, o: &Options, number: usize, leave: Leave) -> Result<Lane> {
        let socket = connect(o, number, leave)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(number), both)?;
        Ok(Lane { socket, goal: 0, sent: 0, received: 0, ended: false })
    }

    /// Sends up to the goal, or until it would block.
    fn send(&mut self, talk: &Talk) -> std::io::Result<()> {
        while self.sent < self.goal {
            let from = (self.sent % talk.length) as usize;
            let most = (self.goal - self.sent).min((talk.request.len() - from) as u64) as usize;
            match self.socket.write(&talk.request[from..from + most]) {
                Ok(n) => self.sent += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what is there; how many answers became whole. Each has to begin as the first did.
    fn receive(&mut self, talk: &Talk, buffer: &mut [u8]) -> std::io::Result<u64> {
        let before = self.received / talk.answer;
        loop {
            let n = match self.socket.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let mut at = (talk.answer - self.received % talk.answer) % talk.answer;
            while at < n as u64 {
                let start = &buffer[at as usize..n];
                if !start.starts_with(&START[..start.len().min(START.len())]) {
                    return Err(Error::other("an answer that is not 200, or of another length"));
                }
                at += talk.answer;
            }
            self.received += n as u64;
            if n < buffer.len() {
                break;
            }
        }
        Ok(self.received / talk.answer - before)
    }
}

/// Closed loop: every connection keeps `--pipeline` requests under way.
pub fn run(o: &Options) -> Result<String> {
    let talk = Talk::learn(o)?;
    allow_descriptors(o.connections)?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 * 1024];
    let limit = Instant::now() + o.limit;
    let mut lanes = Vec::with_capacity(o.connections);
    for number in 0..o.connections {
        lanes.push(Lane::open(&poll, o, number, Leave::Reset)?);
    }
    let mut left = o.messages.unwrap_or(u64::MAX);
    let mut start = |lane: &mut Lane, wanted: u64| {
        let given = wanted.min(left);
        left -= given;
        lane.goal += given * talk.length;
        lane.send(&talk)
    };
    for lane in &mut lanes {
        start(lane, o.pipeline)?;
    }
    let begun = Instant::now();
    let (server, own) = (o.pid.map_or(Ok(Duration::ZERO), cpu_time)?, cpu_time(std::process::id())?);
    let mut answers = 0;
    while o.messages.map_or(begun.elapsed() < o.seconds, |all| answers < all) {
        if Instant::now() >= limit {
            return Err(format!("{answers} answers came within --limit").into());
        }
        wait(&mut poll, &mut events, limit.min(begun + o.seconds.max(Duration::from_secs(1))))?;
        for event in &events {
            let lane = &mut lanes[event.token().0];
            let whole = lane.receive(&talk, &mut buffer)?;
            if lane.ended {
                return Err(format!("connection {} was closed", event.token().0).into());
            }
            answers += whole;
            start(lane, whole)?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut line = Line::new("http")
        .whole("connections", o.connections as u64)
        .whole("pipeline", o.pipeline)
        .whole("answer_bytes", talk.answer)
        .whole("messages", answers)
        .number("seconds", seconds)
        .number("messages_per_s", answers as f64 / seconds)
        .number("load_cpu_s", (cpu_time(std::process::id())? - own).as_secs_f64());
    if let Some(pid) = o.pid {
        let used = (cpu_time(pid)? - server).as_secs_f64();
        line = line.number("server_cpu_us_per_message", used * 1e6 / (answers as f64).max(1.0));
    }
    Ok(line.finish())
}

/// Asks once on each of many connections, and holds them until stdin closes.
pub fn idle(o: &Options) -> Result<String> {
    let talk = Talk::learn(o)?;
    allow_descriptors(o.connections)?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    let limit = Instant::now() + o.limit;
    let mut lanes = Vec::with_capacity(o.connections);
    for number in 0..o.connections {
        lanes.push(Lane::open(&poll, o, number, Leave::Finish)?);
        if lanes.len() % 64 != 0 && lanes.len() != o.connections {
            continue;
        }
        let first = lanes.len().saturating_sub(64);
        for lane in lanes[first..].iter_mut().filter(|lane| lane.goal == 0) {
            lane.goal = talk.length;
            lane.send(&talk)?;
        }
        while lanes[first..].iter().any(|lane| lane.received < talk.answer) {
            if Instant::now() >= limit {
                return Err("not all answers came within --limit".into());
            }
            wait(&mut poll, &mut events, limit)?;
            for event in &events {
                lanes[event.token().0].receive(&talk, &mut buffer)?;
            }
        }
    }
    println!("{}", Line::new("ready").whole("connections", lanes.len() as u64).finish());
    hold(limit)?;
    let mut lost = 0;
    for lane in &mut lanes {
        lost += u64::from(lane.receive(&talk, &mut buffer).is_err() || lane.ended);
    }
    if lost > 0 {
        return Err(format!("{lost} of {} connections were closed meanwhile", o.connections).into());
    }
    Ok(Line::new("held").whole("connections", o.connections as u64).finish())
}
