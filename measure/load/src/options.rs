//! The command line.
use crate::Result;
use lexopt::prelude::*;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub const USAGE: &str = "\
load MODE --addr 127.0.0.1:PORT [options]      one line of JSON on stdout; loopback only

  echo         closed loop; every connection keeps --pipeline messages under way
  idle         opens connections, prints a line when ready, holds them until stdin closes
  lives        connects, sends a message, resets the connection when it is back, and again
  never-read   connections that send until it would block and read nothing; one client that behaves
  crowd        more clients than the server has descriptors for, then frees some
  http         as echo, with one request of HTTP over and over; each answer is to be 200
  http-idle    as idle, with one request on each connection
  free-port    prints a port that nothing listens on

  --connections N   [1]            --pid PID       report this process's CPU time (and memory)
  --size BYTES      [64]           --sources N     source addresses 127.0.0.x [one per 4000]
  --pipeline N      [1]            --limit SECONDS end with an error after this long [120]
  --seconds S       [1]            --warmup S      echo, lives: not counted before [0.2]
  --messages N      echo, lives: exactly this many, instead of --seconds
  --replies echo|own   own: as many bytes as were sent, each of them 'o' [echo]
  --touch BYTES     idle: echoed on each connection before it is held [0]
  --offer BYTES     never-read: what each peer has to send [64 MiB]
  --every S         never-read: time between two rows [2]
  --request TEXT    http: with \\r and \\n for line breaks [GET / with a host]
  --frees N         crowd: how many descriptors are freed, one after the other [5]";

#[derive(Clone, Copy, PartialEq)]
pub enum Replies {
    Echo,
    Own,
}

pub struct Options {
    pub mode: String,
    pub addr: SocketAddr,
    pub connections: usize,
    pub size: u64,
    pub pipeline: u64,
    pub seconds: Duration,
    pub warmup: Duration,
    pub messages: Option<u64>,
    pub pid: Option<u32>,
    pub sources: usize,
    pub limit: Duration,
    pub replies: Replies,
    pub touch: u64,
    pub offer: u64,
    pub every: Duration,
    pub frees: usize,
    pub request: Vec<u8>,
}

/// More connections than this from one address come near the range of ephemeral ports when runs
/// follow each other within the minute that a closed connection keeps its port.
const PER_SOURCE: usize = 4_000;

impl Options {
    pub fn parse() -> Result<Options> {
        let mut o = Options {
            mode: String::new(),
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            connections: 1,
            size: 64,
            pipeline: 1,
            seconds: Duration::from_secs(1),
            warmup: Duration::from_millis(200),
            messages: None,
            pid: None,
            sources: 0,
            limit: Duration::from_secs(120),
            replies: Replies::Echo,
            touch: 0,
            offer: 64 << 20,
            every: Duration::from_secs(2),
            frees: 5,
            request: b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec(),
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("addr") => o.addr = args.value()?.parse()?,
                Long("connections") => o.connections = args.value()?.parse()?,
                Long("size") => o.size = args.value()?.parse()?,
                Long("pipeline") => o.pipeline = args.value()?.parse()?,
                Long("seconds") => o.seconds = seconds(&mut args)?,
                Long("warmup") => o.warmup = seconds(&mut args)?,
                Long("messages") => o.messages = Some(args.value()?.parse()?),
                Long("pid") => o.pid = Some(args.value()?.parse()?),
                Long("sources") => o.sources = args.value()?.parse()?,
                Long("limit") => o.limit = seconds(&mut args)?,
                Long("replies") => {
                    o.replies = match args.value()?.string()?.as_str() {
                        "echo" => Replies::Echo,
                        "own" => Replies::Own,
                        other => return Err(format!("--replies {other}: echo or own").into()),
                    }
                }
                Long("touch") => o.touch = args.value()?.parse()?,
                Long("offer") => o.offer = args.value()?.parse()?,
                Long("every") => o.every = seconds(&mut args)?,
                Long("request") => {
                    let text = args.value()?.string()?.replace("\\r", "\r").replace("\\n", "\n");
                    o.request = text.into_bytes();
                }
                Long("frees") => o.frees = args.value()?.parse()?,
                Value(mode) if o.mode.is_empty() => o.mode = mode.string()?,
                other => return Err(other.unexpected().into()),
            }
        }
        if !o.addr.ip().is_loopback() {
            return Err(format!("{} is not a loopback address", o.addr.ip()).into());
        }
        if o.request.is_empty() {
            return Err("--request must not be empty".into());
        }
        if o.connections == 0 || o.size == 0 || o.pipeline == 0 {
            return Err("--connections, --size and --pipeline must be at least 1".into());
        }
        if o.sources == 0 {
            o.sources = o.connections.div_ceil(PER_SOURCE);
        }
        if o.sources > 200 {
            return Err("at most 200 source addresses".into());
        }
        Ok(o)
    }
}

fn seconds(args: &mut lexopt::Parser) -> Result<Duration> {
    let value: f64 = args.value()?.parse()?;
    Duration::try_from_secs_f64(value).map_err(|e| format!("{value} seconds: {e}").into())
}
