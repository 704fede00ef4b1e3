//! The load: a process of its own that plays the clients, checks every byte of every answer, and
//! measures the server from outside. It is built on mio alone, not on what it measures.

mod crew;
mod lane;
mod tally;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::proc::Usage;
use crate::run::Sample;
use crew::Crew;
use lane::{Pace, Talk};
use tally::Tally;

/// What a load is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) addr: SocketAddr,
    /// The process of the server.
    pub(crate) pid: u32,
    pub(crate) http: bool,
    /// The server is an echo: an answer is its request. So the load is checked against others.
    #[serde(default)]
    pub(crate) echo: bool,
    /// Connections that ask, and others that are only there.
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    /// How many of them get no answer while the others stay: all but one, where a server serves one
    /// client at a time. Nothing waits for their answers.
    #[serde(default)]
    pub(crate) unserved: usize,
    /// Clients beside those that are measured.
    pub(crate) flooders: usize,
    pub(crate) slow_readers: usize,
    /// Bytes of a request of the game; shorter than it can be means as short as it can be.
    pub(crate) size: usize,
    /// Requests per second of all connections together: an open loop. None: a closed one.
    pub(crate) rate: Option<f64>,
    /// What one in so many requests asks for.
    pub(crate) special: Option<Special>,
    pub(crate) warm_ms: u64,
    pub(crate) run_ms: u64,
    /// A closed loop ends after so many requests, if that is earlier.
    pub(crate) requests: Option<u64>,
    /// Ask once with [`BEGIN`] before the run and with [`END`] after it, for strace.
    pub(crate) marks: bool,
    pub(crate) heat: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Special {
    pub(crate) verb: String,
    pub(crate) micros: u64,
    pub(crate) one_in: u64,
}

/// Numbers that no other request has, to be found in a trace.
pub(crate) const BEGIN: i64 = 1_000_001;
pub(crate) const END: i64 = 1_000_002;

/// A slow reader reads so much every 50 ms, and keeps its kernel from storing more.
const SLOW_BYTES: usize = 128 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(50);
const SMALL_BUFFER: usize = 16 * 1024;
/// Requests that a flooder has under way, and their size.
const FLOOD_DEPTH: usize = 256;
const FLOOD_SIZE: usize = 256;

/// Answers that have not come for so long will not come.
const PATIENCE: Duration = Duration::from_millis(150);

/// Runs the order, and returns what was measured.
pub(crate) fn load(order: &Order) -> Result<Sample, Failure> {
    let talk = Talk::new(order)?;
    let before = Usage::read(order.pid)?;
    let mut crew = Crew::connect(order, &talk, order.connections + order.idle, None)?;
    // Each connection has asked once before its cost is looked at.
    crew.ask_all(&talk)?;
    crew.settle(&talk, PATIENCE.saturating_mul(2))?;
    let connected = Usage::read(order.pid)?;

    let stop = Arc::new(AtomicBool::new(false));
    let bytes = Arc::new(AtomicU64::new(0));
    let others = others(order, &talk, &stop, &bytes)?;
    let patience = PATIENCE + longest_wait(order);
    if order.warm_ms > 0 {
        let mut unused = Tally::new(order);
        crew.run(&talk, order, Duration::from_millis(order.warm_ms), &mut unused)?;
        crew.settle(&talk, patience)?;
    }
    if order.marks {
        crew.mark(&talk, BEGIN)?;
    }
    let (at_begin, own_begin) = (Usage::read(order.pid)?, Usage::read(std::process::id())?);
    let bytes_begin = bytes.load(Ordering::Relaxed);
    crew.begin();
    let begun = Instant::now();
    let mut tally = Tally::new(order);
    crew.run(&talk, order, Duration::from_millis(order.run_ms), &mut tally)?;
    let seconds = begun.elapsed().as_secs_f64();
    let own_end = Usage::read(std::process::id())?;
    let bytes_end = bytes.load(Ordering::Relaxed);
    crew.drain(&talk, patience, &mut tally)?;
    let at_end = Usage::read(order.pid)?;
    if order.marks {
        crew.mark(&talk, END)?;
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.join().map_err(|_| Failure::Sentence("the load has panicked".to_owned()))??;
    }

    let mut sample = tally.sample(crew.shares(), seconds);
    let done = tally.answers().max(1) as f64;
    let count = (order.connections + order.idle).max(1) as f64;
    let per_connection = |now: u64, then: u64| now.saturating_sub(then) as f64 / count / 1024.0;
    sample.cpu_us = at_end.cpu_ns.saturating_sub(at_begin.cpu_ns) as f64 / 1e3 / done;
    sample.switches = at_end.switches.saturating_sub(at_begin.switches) as f64 / done;
    // One of them waits for the end of standard input and serves nobody.
    sample.threads = connected.threads.saturating_sub(1);
    sample.resident_kb = per_connection(connected.resident, before.resident);
    sample.virtual_kb = per_connection(connected.virtual_size, before.virtual_size);
    sample.load_cpu = own_end.cpu_ns.saturating_sub(own_begin.cpu_ns) as f64 / 1e9 / seconds;
    sample.others_bytes_per_s = (bytes_end - bytes_begin) as f64 / seconds;
    Ok(sample)
}

/// How long an answer may take without that the server has given up.
fn longest_wait(order: &Order) -> Duration {
    let special = order.special.as_ref();
    // On one thread all connections may wait in turn.
    let turns = (order.connections as u64).min(20);
    special.map_or(Duration::ZERO, |special| Duration::from_micros(special.micros * turns))
}

type Other = thread::JoinHandle<Result<(), Failure>>;

/// Flooders and slow readers, on threads of their own: what is measured must not wait for them.
fn others(
    order: &Order,
    talk: &Talk,
    stop: &Arc<AtomicBool>,
    bytes: &Arc<AtomicU64>,
) -> Result<Vec<Other>, Failure> {
    let mut threads = Vec::new();
    let slow = Pace { bytes: SLOW_BYTES, pause: SLOW_PAUSE };
    let kinds = [
        (order.flooders, FLOOD_DEPTH, None, None),
        (order.slow_readers, usize::MAX, Some(SMALL_BUFFER), Some(slow)),
    ];
    for (count, depth, buffer, pace) in kinds {
        if count == 0 {
            continue;
        }
        let talk = talk.sized(FLOOD_SIZE);
        let mut crew = Crew::connect(order, &talk, count, buffer)?;
        let (stop, bytes) = (Arc::clone(stop), Arc::clone(bytes));
        threads.push(thread::spawn(move || crew.flood(&talk, depth, pace, &stop, &bytes)));
    }
    Ok(threads)
}
