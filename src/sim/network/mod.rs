//! The made-up network: endpoints, what is under way between them, and the order of events.

mod calls;
mod raw;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::faults::{Call, Fault, Faults, Link, Scripted};
use crate::clock::nanos;
use crate::connection::Flags;
use crate::id::ConnId;
use crate::random::Random;
use crate::timer::Timers;

const MILLISECOND: u64 = 1_000_000;
/// Polls in a row that find time where it was, before it moves on by itself; and by how much then.
const STANDSTILL: u32 = 100;
const STEP: u64 = 1000;

/// What happens at a time.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The next segment on its way to this endpoint arrives.
    Arrive(usize),
    /// The handshake of this endpoint's connect reaches the other side.
    Handshake(usize),
    /// This endpoint becomes ready.
    Ready(usize, Flags),
    /// A newcomer is told to the listener with this number.
    Newcomer(u32),
}

/// What is under way in one direction.
enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// A listening socket.
pub(super) struct Listening {
    number: Option<u32>,
    backlog_max: usize,
    backlog: VecDeque<usize>,
    /// Held by the test: newcomers are not told to the driver.
    raw: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Connecting,
    Open,
    Failed,
}

/// One end of a connection.
pub(super) struct Endpoint {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
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
    pub(super) raw: Option<Raw>,
}

/// What the test does with its own end.
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
    /// The time that the driver sees: it may stand still for a while.
    shown: Arc<AtomicU64>,
    random: Random,
    pub(super) faults: Faults,
    pub(super) link: Link,
    script: Vec<Scripted>,
    calls: [u64; 6],
    pub(super) endpoints: Vec<Endpoint>,
    listeners: BTreeMap<SocketAddr, Listening>,
    events: Timers<Event>,
    edges: VecDeque<Edge>,
    next_port: u16,
    pub(super) descriptors_max: usize,
    descriptors: usize,
}

/// An event that waits for the driver's poll.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    Connection(ConnId, Flags),
    Listener(u32),
}

impl Network {
    pub(super) fn new(seed: u64, shown: Arc<AtomicU64>) -> Network {
        Network {
            now: 0,
            standing: 0,
            shown,
            random: Random::new(seed ^ 0x6E65_7477_6F72_6B00),
            faults: Faults::none(),
            link: Link::default(),
            script: Vec::new(),
            calls: [0; 6],
            endpoints: Vec::new(),
            listeners: BTreeMap::new(),
            events: Timers::default(),
            edges: VecDeque::new(),
            next_port: 49152,
            descriptors_max: usize::MAX,
            descriptors: 0,
        }
    }

    pub(super) fn script(&mut self, call: Call, nth: u64, fault: Fault) {
        self.script.push(Scripted { call, nth: self.calls[call as usize] + nth, fault });
    }

    /// What the script and chance have for this call: an error, or a bound on its bytes.
    fn fault(&mut self, call: Call) -> Result<Option<usize>, io::Error> {
        let nth = self.calls[call as usize];
        self.calls[call as usize] += 1;
        let scripted = self.script.iter().position(|s| s.call == call && s.nth == nth);
        match scripted.map(|at| self.script.swap_remove(at).fault) {
            Some(Fault::Error(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Short(bytes)) => return Ok(Some(bytes)),
            None => {}
        }
        if call != Call::Register && self.random.chance(self.faults.interrupts) {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        Ok(None)
    }

    fn delay(&mut self) -> u64 {
        if self.random.chance(self.faults.delays) { self.random.below(20 * MILLISECOND) } else { 0 }
    }

    fn free_port(&mut self) -> u16 {
        self.next_port = if self.next_port == u16::MAX { 49152 } else { self.next_port + 1 };
        self.next_port
    }

    // ---- listening ---------------------------------------------------------------------------

    pub(super) fn listen(
        &mut self,
        mut addr: SocketAddr,
        backlog: usize,
        raw: bool,
    ) -> io::Result<SocketAddr> {
        if addr.port() == 0 {
            addr.set_port(self.free_port());
        }
        if self.listeners.contains_key(&addr) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let backlog_max = backlog.max(1);
        let listening = Listening { number: None, backlog_max, backlog: VecDeque::new(), raw };
        self.listeners.insert(addr, listening);
        Ok(addr)
    }

    pub(super) fn register_listener(&mut self, addr: SocketAddr, number: u32) {
        if let Some(listener) = self.listeners.get_mut(&addr) {
            listener.number = Some(number);
        }
    }

    pub(super) fn close_listener(&mut self, addr: SocketAddr) {
        let Some(listener) = self.listeners.remove(&addr) else { return };
        for end in listener.backlog {
            self.endpoints[end].reset_on_close = true;
            self.close(end);
        }
    }

    /// The accept of a driver, with everything that can go wrong, and with so many descriptors in
    /// reserve.
    pub(super) fn accept(&mut self, addr: SocketAddr, reserve: usize) -> io::Result<usize> {
        self.fault(Call::Accept)?;
        // As Linux does: the descriptor is looked for before the newcomer.
        if self.descriptors >= self.descriptors_max.saturating_add(reserve) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let waiting = self.listeners.get(&addr).is_some_and(|l| !l.backlog.is_empty());
        if !waiting {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.random.chance(self.faults.accept_errors) {
            if self.random.chance(500) {
                let lacking = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
                let errno = lacking[self.random.below(4) as usize];
                return Err(io::Error::from_raw_os_error(errno));
            }
            if let Some(end) = self.take_newcomer(addr) {
                // The newcomer itself has failed: it is gone from the queue.
                self.endpoints[end].reset_on_close = true;
                self.close(end);
            }
            let fleeting = [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EPERM];
            let errno = fleeting[self.random.below(4) as usize];
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.take_newcomer(addr).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Whether a descriptor is left for the reserve.
    pub(super) fn has_descriptor(&self) -> bool {
        self.descriptors <= self.descriptors_max
    }

    pub(super) fn take_newcomer(&mut self, addr: SocketAddr) -> Option<usize> {
        let end = self.listeners.get_mut(&addr)?.backlog.pop_front()?;
        self.count(end);
        Some(end)
    }

    // ---- connecting --------------------------------------------------------------------------

    /// The connect of a driver.
    pub(super) fn connect(
        &mut self,
        addr: SocketAddr,
        from: Option<SocketAddr>,
    ) -> io::Result<usize> {
        self.fault(Call::Connect)?;
        if self.descriptors >= self.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let failure = self.random.chance(self.faults.connect_errors);
        let end = self.start_connect(addr, from, None);
        self.count(end);
        if failure {
            let errno = match self.random.below(3) {
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
    /// given; another may have it already.
    pub(super) fn start_connect(
        &mut self,
        remote: SocketAddr,
        from: Option<SocketAddr>,
        raw: Option<Raw>,
    ) -> usize {
        let ip = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { remote.ip() };
        let mut local = from.unwrap_or_else(|| SocketAddr::new(ip, 0));
        if local.port() == 0 {
            local.set_port(self.free_port());
        }
        let latency = nanos(self.link.latency);
        let end = self.add(local, remote, Progress::Connecting, raw);
        let at = self.now + latency + self.delay();
        self.events.arm(at, Event::Handshake(end));
        end
    }

    fn count(&mut self, end: usize) {
        self.endpoints[end].counted = true;
        self.descriptors += 1;
    }

    fn uncount(&mut self, end: usize) {
        if std::mem::take(&mut self.endpoints[end].counted) {
            self.descriptors -= 1;
        }
    }

    fn add(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        progress: Progress,
        raw: Option<Raw>,
    ) -> usize {
        self.endpoints.push(Endpoint {
            local,
            remote,
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
            raw,
        });
        self.endpoints.len() - 1
    }

    fn fail_connect(&mut self, end: usize, errno: i32) {
        let endpoint = &mut self.endpoints[end];
        endpoint.progress = Progress::Failed;
        endpoint.error = Some(errno);
        let flags = Flags::READABLE | Flags::WRITABLE | Flags::HUNG | Flags::FAULTY;
        let at = self.now + nanos(self.link.latency) + self.delay();
        self.events.arm(at, Event::Ready(end, flags));
    }

    fn handshake(&mut self, end: usize) {
        let (closed, vanished) = (self.endpoints[end].closed, self.endpoints[end].vanished);
        if closed || vanished || self.endpoints[end].progress != Progress::Connecting {
            return;
        }
        let (local, remote) = (self.endpoints[end].local, self.endpoints[end].remote);
        let room = self.listeners.get(&remote).map(|l| l.backlog.len() < l.backlog_max);
        match room {
            None => self.fail_connect(end, libc::ECONNREFUSED),
            // A full queue drops the handshake; it is tried again.
            Some(false) => {
                self.events.arm(self.now + 100 * MILLISECOND, Event::Handshake(end));
            }
            Some(true) => {
                let other = self.add(remote, local, Progress::Open, None);
                self.endpoints[other].other = Some(end);
                self.endpoints[end].other = Some(other);
                self.endpoints[end].progress = Progress::Open;
                let at = self.now + nanos(self.link.latency) + self.delay();
                self.events.arm(at, Event::Ready(end, Flags::WRITABLE));
                if let Some(listener) = self.listeners.get_mut(&remote) {
                    listener.backlog.push_back(other);
                    if let (Some(number), false) = (listener.number, listener.raw) {
                        let at = self.now + self.delay();
                        self.events.arm(at, Event::Newcomer(number));
                    }
                }
                if self.random.chance(self.faults.vanishes) {
                    self.endpoints[end].vanished = true;
                }
                self.send_raw(end);
                if self.endpoints[end].raw.as_ref().is_some_and(|raw| raw.closing) {
                    self.close(end);
                }
            }
        }
    }

    // ---- time --------------------------------------------------------------------------------

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// When the next event happens; None: nothing is under way.
    pub(super) fn next_event(&self) -> Option<u64> {
        if self.edges.is_empty() { self.events.next() } else { Some(self.now) }
    }

    /// Waits for events: moves time to the next one, at most to `until`, and hands over what waits.
    pub(super) fn poll(&mut self, until: Option<u64>) -> io::Result<Vec<Edge>> {
        if let Err(error) = self.fault(Call::Poll) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            return Ok(Vec::new());
        }
        if self.standing >= STANDSTILL {
            // Turns that never wait take time all the same: a timer set again at zero must not keep
            // the rest of the world from going on.
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
        if !self.random.chance(self.faults.clock_stalls) {
            self.shown.store(self.now, Ordering::Relaxed);
        }
        if self.random.chance(self.faults.spurious) {
            self.add_spurious();
        }
        let count =
            if self.random.chance(self.faults.single_events) { 1 } else { self.edges.len() };
        let count = count.min(self.edges.len());
        Ok(self.edges.drain(..count).collect())
    }

    fn run_events(&mut self) {
        while let Some((event, _)) = self.events.pop_due(self.now) {
            match event {
                Event::Arrive(end) => self.arrive(end),
                Event::Handshake(end) => self.handshake(end),
                Event::Ready(end, flags) => self.edge(end, flags),
                Event::Newcomer(number) => self.edges.push_back(Edge::Listener(number)),
            }
        }
    }

    fn add_spurious(&mut self) {
        let tokens: Vec<ConnId> = self.endpoints.iter().filter_map(|end| end.token).collect();
        if tokens.is_empty() {
            return;
        }
        let id = tokens[self.random.below(tokens.len() as u64) as usize];
        let flags = match self.random.below(3) {
            0 => Flags::READABLE,
            1 => Flags::WRITABLE,
            _ => Flags::READABLE | Flags::WRITABLE,
        };
        self.edges.push_back(Edge::Connection(id, flags));
    }
}
