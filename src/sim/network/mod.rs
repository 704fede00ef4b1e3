//! The simulated network: endpoints, what is under way between them, and the order of events.

mod calls;
mod chance;
mod datagrams;
mod listening;
mod raw;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::listening::Listening;
use super::choices::{Choices, Kind, Owner, Source, Tape};
use super::faults::{Call, Fault, Faults, Link, Scripted};
use super::log::{Log, What};
use crate::clock::nanos;
use crate::connection::Flags;
#[cfg(feature = "peer-credentials")]
use crate::credentials::PeerCredentials;
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::timer::Timers;

use datagrams::Posts;

const MILLISECOND: u64 = 1_000_000;
/// Polls in a row that find time unchanged before it moves on by itself, and by how much it then
/// does.
const STANDSTILL: u32 = 100;
const STEP: u64 = 1000;
/// A stop of the process is shorter than this.
const STOP: u64 = 200 * MILLISECOND;

/// An event at a time.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The next segment on its way to this endpoint arrives.
    Arrive(usize),
    /// The handshake of this endpoint's connect reaches the other side.
    Handshake(usize),
    /// This endpoint becomes ready.
    Ready(usize, Flags),
    /// A connection reaches the listener with this number.
    Newcomer(u32),
    /// The datagram with this number arrives.
    Land(usize),
    /// This socket of datagrams becomes ready; or hears that one was refused.
    PostReady(usize, Flags),
    Refused(usize),
}

/// What is under way in one direction.
enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Connecting,
    Open,
    Failed,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    /// What the process of this end is to the other one.
    #[cfg(feature = "peer-credentials")]
    credentials: PeerCredentials,
    other: Option<usize>,
    token: Option<ConnId>,
    progress: Progress,
    link: Link,
    /// What is on its way here, and when the last of it arrives.
    under_way: VecDeque<Segment>,
    under_way_bytes: usize,
    last_arrival: u64,
    arrived: VecDeque<u8>,
    fin_arrived: bool,
    error: Option<i32>,
    /// A reset has been read or reported: reads return the end.
    reset_seen: bool,
    fin_sent: bool,
    /// A write was cut short: the driver waits for an event.
    write_blocked: bool,
    reset_on_close: bool,
    closed: bool,
    /// Holds a descriptor of the driver's process.
    counted: bool,
    /// The host is gone: nothing arrives, nothing leaves.
    vanished: bool,
    /// It is no socket: nothing resets it, and a close of the other end is heard by writing.
    pub(super) no_socket: bool,
    /// The source of its faults.
    source: Source,
    pub(super) raw: Option<Raw>,
}

/// State of an end that the test holds.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) received: Vec<u8>,
    outbox: VecDeque<u8>,
    finish: bool,
    /// The test has closed it while it was connecting, with something to send.
    closing: bool,
    pub(super) stopped: bool,
    pub(super) was_reset: bool,
}

/// The whole network, with its own clock.
pub(super) struct Network {
    now: u64,
    /// Polls since time last moved.
    standing: u32,
    /// The next poll is one that a signal has interrupted.
    interrupted: bool,
    /// The time that the driver sees: it may stand still for a while.
    pub(super) shown: Arc<AtomicU64>,
    pub(super) tape: Rc<RefCell<Tape>>,
    /// Where the scenario and what the test dials draw from.
    pub(super) choices: Choices,
    source: Source,
    /// The log of events, if it is going to be read.
    pub(super) log: Option<Log>,
    /// Calls left to a run that may have no end.
    pub(super) calls_left: Option<u64>,
    pub(super) faults: Faults,
    pub(super) link: Link,
    script: Vec<Scripted>,
    calls: [u64; 6],
    pub(super) endpoints: Vec<End>,
    pub(super) posts: Posts,
    listeners: BTreeMap<Endpoint, Listening>,
    events: Timers<Event>,
    edges: VecDeque<Edge>,
    next_port: u16,
    pub(super) descriptors_max: usize,
    descriptors: usize,
    /// What ends made from now on announce of their process.
    #[cfg(feature = "peer-credentials")]
    pub(super) credentials: PeerCredentials,
}

/// An event that waits for the driver's poll.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    Connection(ConnId, Flags),
    Listener(u32),
}

impl Network {
    pub(super) fn new(tape: Tape) -> Network {
        let log = tape.records().then(Log::default);
        let tape = Rc::new(RefCell::new(tape));
        Network {
            now: 0,
            standing: 0,
            interrupted: false,
            shown: Arc::default(),
            choices: Choices::root(&tape),
            tape,
            source: Source::new(Owner::Network),
            log,
            calls_left: None,
            faults: Faults::none(),
            link: Link::default(),
            script: Vec::new(),
            calls: [0; 6],
            endpoints: Vec::new(),
            posts: Posts::default(),
            listeners: BTreeMap::new(),
            events: Timers::default(),
            edges: VecDeque::new(),
            next_port: 49152,
            descriptors_max: usize::MAX,
            descriptors: 0,
            #[cfg(feature = "peer-credentials")]
            credentials: PeerCredentials::new(1000, 1000, 1000),
        }
    }

    pub(super) fn script(&mut self, call: Call, nth: u64, fault: Fault) {
        self.script.push(Scripted { call, nth: self.calls[call as usize] + nth, fault });
    }

    /// The same IP address with a port that nobody has had for long.
    fn with_port(&mut self, addr: Endpoint) -> Endpoint {
        let port = self.free_port();
        addr.ip().map_or(addr, |ip| (ip, port).into())
    }

    fn free_port(&mut self) -> u16 {
        self.next_port = if self.next_port == u16::MAX { 49152 } else { self.next_port + 1 };
        self.next_port
    }

    // ---- connecting --------------------------------------------------------------------------

    /// The connect of a driver.
    pub(super) fn connect(&mut self, addr: Endpoint, from: Option<Endpoint>) -> io::Result<usize> {
        self.fault(Call::Connect, None)?;
        if self.descriptors >= self.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let key = self.tape.borrow_mut().connect_key(&mut self.source);
        let end = self.start_connect(addr, from, None, key);
        self.count(end);
        if let Some(way) = self.roll(Some(end), Kind::ConnectErrors, 3) {
            let errno = match way {
                0 => libc::ECONNREFUSED,
                1 => libc::EHOSTUNREACH,
                _ => {
                    self.endpoints[end].vanished = true;
                    return Ok(end);
                }
            };
            self.fail_connect(end, errno);
        }
        Ok(end)
    }

    /// Begins a connect, for the driver or for a test's own end. A local address is taken as it is
    /// given; another end may have it already.
    pub(super) fn start_connect(
        &mut self,
        remote: Endpoint,
        from: Option<Endpoint>,
        raw: Option<Raw>,
        key: u32,
    ) -> usize {
        let remote = listening::destination(remote);
        let mut local = from.unwrap_or_else(|| listening::source(remote));
        if local.port() == Some(0) {
            local = self.with_port(local);
        }
        let latency = nanos(self.link.latency);
        let source = Source::new(Owner::Connecting(key));
        let end = self.add(local, remote, Progress::Connecting, raw, source);
        self.note(What::Connects(local, remote));
        let at = self.now + latency + self.delay(Some(end));
        self.events.arm(at, Event::Handshake(end));
        end
    }

    /// Two ends of a stream that is no socket: the driver's and the test's.
    #[cfg(feature = "fd")]
    pub(super) fn open_pipe(&mut self) -> (usize, usize) {
        let key = self.tape.borrow_mut().connect_key(&mut self.source);
        let (here, there) = (Owner::Accepted(key), Owner::Connecting(key));
        let raw = Some(Raw::default());
        let other = Endpoint::Other;
        let here = self.add(other, other, Progress::Open, None, Source::new(here));
        let there = self.add(other, other, Progress::Open, raw, Source::new(there));
        for (end, other) in [(here, there), (there, here)] {
            self.endpoints[end].other = Some(other);
            self.endpoints[end].no_socket = true;
        }
        (here, there)
    }

    pub(super) fn count(&mut self, end: usize) {
        self.endpoints[end].counted = true;
        self.descriptors += 1;
    }

    fn uncount(&mut self, end: usize) {
        if mem::take(&mut self.endpoints[end].counted) {
            self.descriptors -= 1;
        }
    }

    fn add(
        &mut self,
        local: Endpoint,
        remote: Endpoint,
        progress: Progress,
        raw: Option<Raw>,
        source: Source,
    ) -> usize {
        self.endpoints.push(End {
            local,
            remote,
            #[cfg(feature = "peer-credentials")]
            credentials: self.credentials,
            other: None,
            token: None,
            progress,
            link: self.link.clone(),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            last_arrival: 0,
            arrived: VecDeque::new(),
            fin_arrived: false,
            error: None,
            reset_seen: false,
            fin_sent: false,
            write_blocked: false,
            reset_on_close: false,
            closed: false,
            counted: false,
            vanished: false,
            no_socket: false,
            source,
            raw,
        });
        self.endpoints.len() - 1
    }

    fn fail_connect(&mut self, end: usize, errno: i32) {
        let endpoint = &mut self.endpoints[end];
        endpoint.progress = Progress::Failed;
        endpoint.error = Some(errno);
        let flags = Flags::READABLE | Flags::WRITABLE | Flags::HUNG | Flags::FAULTY;
        let at = self.now + nanos(self.link.latency) + self.delay(Some(end));
        self.events.arm(at, Event::Ready(end, flags));
    }

    fn handshake(&mut self, end: usize) {
        let (closed, vanished) = (self.endpoints[end].closed, self.endpoints[end].vanished);
        if closed || vanished || self.endpoints[end].progress != Progress::Connecting {
            return;
        }
        let (local, remote) = (self.endpoints[end].local, self.endpoints[end].remote);
        match self.find_listener(remote) {
            None => self.fail_connect(end, listening::nobody(remote)),
            // A full queue drops the handshake; it is tried again.
            Some(listener) if listener.is_full() => {
                self.events.arm(self.now + 100 * MILLISECOND, Event::Handshake(end));
            }
            Some(_) => {
                let source = Source::new(Owner::Accepted(self.endpoints[end].source.key()));
                let other = self.add(remote, local, Progress::Open, None, source);
                // Of the time when it was dialled, at both ends.
                self.endpoints[other].link = self.endpoints[end].link.clone();
                #[cfg(feature = "peer-credentials")]
                {
                    self.endpoints[other].credentials = self.endpoints[end].credentials;
                }
                self.endpoints[other].other = Some(end);
                self.endpoints[end].other = Some(other);
                self.endpoints[end].progress = Progress::Open;
                let at = self.now + nanos(self.link.latency) + self.delay(Some(end));
                self.events.arm(at, Event::Ready(end, Flags::WRITABLE));
                let told = self.now + self.delay(Some(other));
                if let Some(number) = self.find_listener(remote).and_then(|l| l.take_in(other)) {
                    self.events.arm(told, Event::Newcomer(number));
                }
                if self.roll(Some(end), Kind::Vanishes, 1).is_some() {
                    self.endpoints[end].vanished = true;
                }
                self.send_raw(end);
                if self.endpoints[end].raw.as_ref().is_some_and(|raw| raw.closing) {
                    self.close(end);
                }
            }
        }
    }

    /// What the process at the other end announces.
    #[cfg(feature = "peer-credentials")]
    pub(super) fn peer_credentials(&self, end: usize) -> Option<PeerCredentials> {
        Some(self.endpoints[self.endpoints[end].other?].credentials)
    }

    // ---- time --------------------------------------------------------------------------------

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// When the next event happens; None: nothing is under way.
    pub(super) fn next_event(&self) -> Option<u64> {
        if self.edges.is_empty() { self.events.next() } else { Some(self.now) }
    }

    /// The process is stopped until `until`: the network goes on without it.
    pub(super) fn stop(&mut self, until: u64) {
        while let Some(next) = self.events.next().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.run_events();
        }
        self.now = self.now.max(until);
        self.shown.store(self.now, Ordering::Relaxed);
        self.interrupted = true;
    }

    /// Waits for events: moves time to the next one, at most to `until`, and returns the events.
    /// Time never moves beyond `bound`.
    pub(super) fn poll(&mut self, until: Option<u64>, bound: Option<u64>) -> io::Result<Vec<Edge>> {
        if let Err(error) = self.fault(Call::Poll, None) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            return Ok(Vec::new());
        }
        if let Some(time) = self.roll(None, Kind::Stops, STOP) {
            let until = self.now.saturating_add(time);
            self.stop(bound.map_or(until, |bound| until.min(bound)));
        }
        if mem::take(&mut self.interrupted) {
            return Ok(Vec::new());
        }
        if self.standing >= STANDSTILL {
            // Turns that never wait take time too: a timer that is set again at zero must not keep
            // the rest of the network from going on.
            self.now += STEP;
            self.run_events();
        }
        let before = self.now;
        while self.edges.is_empty() {
            match (self.events.next(), until) {
                (Some(next), until) if until.is_none_or(|until| next <= until) => {
                    self.now = self.now.max(next);
                    self.run_events();
                }
                (_, Some(until)) => {
                    self.now = self.now.max(until);
                    break;
                }
                _ => break,
            }
        }
        self.standing = if self.now > before { 0 } else { self.standing.saturating_add(1) };
        if self.roll(None, Kind::ClockStalls, 1).is_none() {
            self.shown.store(self.now, Ordering::Relaxed);
        }
        self.add_spurious();
        let single = self.edges.len() > 1 && self.roll(None, Kind::SingleEvents, 1).is_some();
        let count = if single { 1 } else { self.edges.len() };
        Ok(self.edges.drain(..count).collect())
    }

    fn run_events(&mut self) {
        while let Some((event, _)) = self.events.pop_due(self.now) {
            match event {
                Event::Arrive(end) => self.arrive(end),
                Event::Handshake(end) => self.handshake(end),
                Event::Ready(end, flags) => self.edge(end, flags),
                Event::Newcomer(number) => self.edges.push_back(Edge::Listener(number)),
                Event::Land(number) => self.land(number),
                Event::PostReady(post, flags) => self.post_edge(post, flags),
                Event::Refused(post) => self.hear_refusal(post),
            }
        }
    }

    fn add_spurious(&mut self) {
        if self.faults.spurious == 0 {
            return;
        }
        let tokens = self.endpoints.iter().filter_map(|end| end.token);
        let tokens: Vec<ConnId> = tokens.chain(self.post_tokens()).collect();
        let ways = 3 * tokens.len() as u64;
        if let Some(way) = self.roll(None, Kind::Spurious, ways) {
            let flags = match way % 3 {
                0 => Flags::READABLE,
                1 => Flags::WRITABLE,
                _ => Flags::READABLE | Flags::WRITABLE,
            };
            self.edges.push_back(Edge::Connection(tokens[way as usize / 3], flags));
        }
    }
}
