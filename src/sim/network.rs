//! The made-up network: endpoints, what is under way between them, and the order of events.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

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
    pub(super) stopped: bool,
    pub(super) was_reset: bool,
}

/// The whole network, with its own clock.
pub(super) struct Network {
    now: u64,
    /// Polls since time last moved.
    standing: u32,
    /// The time that the driver sees: it may stand still for a while.
    shown: Rc<Cell<u64>>,
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
    pub(super) fn new(seed: u64, shown: Rc<Cell<u64>>) -> Network {
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

    /// The accept of a driver, with everything that can go wrong.
    pub(super) fn accept(&mut self, addr: SocketAddr) -> io::Result<usize> {
        self.fault(Call::Accept)?;
        let waiting = self.listeners.get(&addr).is_some_and(|l| !l.backlog.is_empty());
        if !waiting {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.descriptors >= self.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
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

    pub(super) fn take_newcomer(&mut self, addr: SocketAddr) -> Option<usize> {
        let end = self.listeners.get_mut(&addr)?.backlog.pop_front()?;
        self.count(end);
        Some(end)
    }

    // ---- connecting --------------------------------------------------------------------------

    /// The connect of a driver.
    pub(super) fn connect(&mut self, addr: SocketAddr) -> io::Result<usize> {
        self.fault(Call::Connect)?;
        if self.descriptors >= self.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let failure = self.random.chance(self.faults.connect_errors);
        let end = self.start_connect(addr, None);
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

    /// Begins a connect, for the driver or for a test's own end.
    pub(super) fn start_connect(&mut self, remote: SocketAddr, raw: Option<Raw>) -> usize {
        let ip = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { remote.ip() };
        let local = SocketAddr::new(ip, self.free_port());
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
            }
        }
    }

    // ---- the calls of a driver ---------------------------------------------------------------

    pub(super) fn register(&mut self, end: usize, token: ConnId) -> io::Result<()> {
        self.fault(Call::Register)?;
        self.endpoints[end].token = Some(token);
        // As the kernel does: what is ready at the registration is told.
        let endpoint = &self.endpoints[end];
        let mut flags = Flags::NONE;
        if endpoint.progress == Progress::Open {
            flags.set(Flags::WRITABLE);
        }
        if !endpoint.arrived.is_empty() {
            flags.set(Flags::READABLE);
        }
        if endpoint.fin_arrived || endpoint.error.is_some() {
            flags.set(Flags::READABLE | Flags::HUNG);
        }
        if endpoint.error.is_some() {
            flags.set(Flags::FAULTY);
        }
        if flags != Flags::NONE {
            self.tell(end, flags);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, end: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let bound = self.fault(Call::Read)?;
        let available = self.endpoints[end].arrived.len().min(buffer.len());
        if available == 0 {
            return self.read_end(end);
        }
        let mut count = available;
        if self.random.chance(self.faults.short_reads) {
            count = 1 + self.random.below(available as u64) as usize;
        }
        count = count.min(bound.unwrap_or(usize::MAX)).max(1);
        if count < available && count < buffer.len() {
            // To the driver a short read means that nothing follows: the rest arrives later.
            let at = self.now + 1 + self.delay();
            self.events.arm(at, Event::Ready(end, Flags::READABLE));
        }
        let endpoint = &mut self.endpoints[end];
        for (place, byte) in buffer.iter_mut().zip(endpoint.arrived.drain(..count)) {
            *place = byte;
        }
        self.open_window(end);
        Ok(count)
    }

    fn read_end(&mut self, end: usize) -> io::Result<usize> {
        let endpoint = &mut self.endpoints[end];
        if let Some(errno) = endpoint.error.take() {
            endpoint.reset_seen = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        if endpoint.fin_arrived || endpoint.reset_seen {
            return Ok(0);
        }
        if endpoint.progress != Progress::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Space has become free at `end`: whoever writes to it goes on.
    fn open_window(&mut self, end: usize) {
        let Some(other) = self.endpoints[end].other else { return };
        if self.endpoints[other].write_blocked {
            let at = self.now + nanos(self.endpoints[end].link.latency) + self.delay();
            self.events.arm(at, Event::Ready(other, Flags::WRITABLE));
        }
        self.send_raw(other);
    }

    fn window(&self, end: usize) -> usize {
        let Some(other) = self.endpoints[end].other else { return 0 };
        let other = &self.endpoints[other];
        other.link.window.saturating_sub(other.under_way_bytes + other.arrived.len())
    }

    pub(super) fn write(&mut self, end: usize, bytes: &[&[u8]]) -> io::Result<usize> {
        let bound = self.fault(Call::Write)?;
        let endpoint = &mut self.endpoints[end];
        if let Some(errno) = endpoint.error.take() {
            endpoint.reset_seen = true;
            return Err(io::Error::from_raw_os_error(errno));
        }
        if endpoint.fin_sent || endpoint.reset_seen || endpoint.progress != Progress::Open {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let wanted: usize = bytes.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Ok(0);
        }
        let mut count = wanted.min(self.window(end));
        if count > 0 && self.random.chance(self.faults.short_writes) {
            count = 1 + self.random.below(count as u64) as usize;
        }
        count = count.min(bound.unwrap_or(usize::MAX));
        if count < wanted {
            self.endpoints[end].write_blocked = true;
            if self.window(end) > count {
                // Nobody will read to make room: the network has some by itself, a little later.
                let at = self.now + 1 + self.delay();
                self.events.arm(at, Event::Ready(end, Flags::WRITABLE));
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let whole: Vec<u8> =
            bytes.iter().flat_map(|slice| slice.iter()).take(count).copied().collect();
        self.send(end, whole);
        Ok(count)
    }

    pub(super) fn shutdown_write(&mut self, end: usize) {
        let endpoint = &mut self.endpoints[end];
        if !endpoint.fin_sent && endpoint.progress == Progress::Open {
            endpoint.fin_sent = true;
            self.transmit(end, Segment::Fin);
        }
    }

    pub(super) fn take_error(&mut self, end: usize) -> Option<io::Error> {
        let endpoint = &mut self.endpoints[end];
        let errno = endpoint.error.take()?;
        endpoint.reset_seen = true;
        Some(io::Error::from_raw_os_error(errno))
    }

    pub(super) fn check_connected(&self, end: usize) -> io::Result<()> {
        match self.endpoints[end].progress {
            Progress::Open => Ok(()),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn reset_on_close(&mut self, end: usize) {
        self.endpoints[end].reset_on_close = true;
    }

    /// Closes an end, as dropping a socket does: a FIN, or a reset when input is unread.
    pub(super) fn close(&mut self, end: usize) {
        let endpoint = &mut self.endpoints[end];
        if endpoint.closed {
            return;
        }
        endpoint.closed = true;
        endpoint.token = None;
        self.uncount(end);
        let endpoint = &mut self.endpoints[end];
        let broken = endpoint.reset_seen || endpoint.error.is_some();
        if endpoint.progress != Progress::Open || broken {
            return;
        }
        let unread = !endpoint.arrived.is_empty();
        endpoint.arrived.clear();
        if endpoint.reset_on_close || unread {
            self.transmit(end, Segment::Reset);
        } else {
            self.shutdown_write(end);
        }
    }

    // ---- the wire ----------------------------------------------------------------------------

    fn send(&mut self, end: usize, bytes: Vec<u8>) {
        let mut rest = bytes;
        if rest.len() > 1 && self.random.chance(self.faults.cuts) {
            let at = 1 + self.random.below(rest.len() as u64 - 1) as usize;
            let tail = rest.split_off(at);
            self.transmit(end, Segment::Bytes(rest));
            rest = tail;
        }
        self.transmit(end, Segment::Bytes(rest));
        if self.random.chance(self.faults.resets) {
            self.transmit(end, Segment::Reset);
            // The end that was reset by the network learns of it as well.
            self.break_end(end, libc::ECONNRESET);
        }
    }

    fn transmit(&mut self, from: usize, segment: Segment) {
        let Some(to) = self.endpoints[from].other else { return };
        let delay = self.delay();
        let endpoint = &mut self.endpoints[to];
        let bytes = match &segment {
            Segment::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        endpoint.under_way_bytes += bytes;
        let sending = match endpoint.link.bandwidth {
            Some(rate) => bytes as u64 * 1_000_000_000 / rate.max(1),
            None => 0,
        };
        let earliest = self.now + nanos(endpoint.link.latency) + delay;
        endpoint.last_arrival = earliest.max(endpoint.last_arrival) + sending;
        endpoint.under_way.push_back(segment);
        self.events.arm(endpoint.last_arrival, Event::Arrive(to));
    }

    fn arrive(&mut self, to: usize) {
        let from = self.endpoints[to].other;
        let vanished =
            self.endpoints[to].vanished || from.is_some_and(|from| self.endpoints[from].vanished);
        if vanished {
            // Bytes to a host that is gone are never acknowledged, so the window stays taken.
            return;
        }
        let endpoint = &mut self.endpoints[to];
        let Some(segment) = endpoint.under_way.pop_front() else { return };
        match segment {
            Segment::Bytes(bytes) => {
                endpoint.under_way_bytes -= bytes.len();
                if endpoint.closed {
                    return self.answer_with_reset(to);
                }
                if endpoint.error.is_some() || endpoint.reset_seen {
                    return;
                }
                endpoint.arrived.extend(bytes);
                self.receive_raw(to);
                self.tell(to, Flags::READABLE);
            }
            Segment::Fin => {
                endpoint.fin_arrived = true;
                self.tell(to, Flags::READABLE | Flags::HUNG);
            }
            Segment::Reset => self.break_end(to, libc::ECONNRESET),
        }
    }

    fn answer_with_reset(&mut self, end: usize) {
        if !self.endpoints[end].reset_seen {
            self.endpoints[end].reset_seen = true;
            self.transmit(end, Segment::Reset);
        }
    }

    fn break_end(&mut self, end: usize, errno: i32) {
        let endpoint = &mut self.endpoints[end];
        if endpoint.closed || endpoint.error.is_some() || endpoint.reset_seen {
            return;
        }
        endpoint.error = Some(errno);
        if let Some(raw) = &mut endpoint.raw {
            raw.was_reset = true;
            raw.outbox.clear();
        }
        self.tell(end, Flags::READABLE | Flags::WRITABLE | Flags::HUNG | Flags::FAULTY);
    }

    fn tell(&mut self, end: usize, flags: Flags) {
        if self.endpoints[end].token.is_some() {
            let delay = self.delay();
            if delay == 0 {
                self.edge(end, flags);
            } else {
                self.events.arm(self.now + delay, Event::Ready(end, flags));
            }
        }
    }

    fn edge(&mut self, end: usize, flags: Flags) {
        let endpoint = &mut self.endpoints[end];
        if flags.any(Flags::WRITABLE) {
            endpoint.write_blocked = false;
        }
        if let (Some(id), false) = (endpoint.token, endpoint.closed) {
            self.edges.push_back(Edge::Connection(id, flags));
        }
    }

    // ---- the test's own ends -----------------------------------------------------------------

    pub(super) fn queue_raw(&mut self, end: usize, bytes: &[u8]) {
        if let Some(raw) = &mut self.endpoints[end].raw {
            raw.outbox.extend(bytes);
        }
        self.send_raw(end);
    }

    pub(super) fn finish_raw(&mut self, end: usize) {
        if let Some(raw) = &mut self.endpoints[end].raw {
            raw.finish = true;
        }
        self.send_raw(end);
    }

    pub(super) fn vanish(&mut self, end: usize) {
        self.endpoints[end].vanished = true;
    }

    pub(super) fn is_finished(&self, end: usize) -> bool {
        self.endpoints[end].fin_arrived
    }

    /// Turns a newcomer at a listener of the test's into an end of the test's.
    pub(super) fn adopt_raw(&mut self, end: usize) {
        self.uncount(end);
        self.endpoints[end].raw = Some(Raw::default());
        self.receive_raw(end);
    }

    /// Sends what the test has queued, as far as the window goes.
    fn send_raw(&mut self, end: usize) {
        if self.endpoints[end].progress != Progress::Open || self.endpoints[end].fin_sent {
            return;
        }
        let window = self.window(end);
        let Some(raw) = &mut self.endpoints[end].raw else { return };
        if !raw.outbox.is_empty() && window > 0 {
            let count = raw.outbox.len().min(window);
            let bytes: Vec<u8> = raw.outbox.drain(..count).collect();
            self.send(end, bytes);
        }
        let done =
            self.endpoints[end].raw.as_ref().is_some_and(|raw| raw.finish && raw.outbox.is_empty());
        if done {
            self.shutdown_write(end);
        }
    }

    /// The test reads at once what arrives, unless it has stopped.
    pub(super) fn receive_raw(&mut self, end: usize) {
        let endpoint = &mut self.endpoints[end];
        let Some(raw) = &mut endpoint.raw else { return };
        if !raw.stopped && !endpoint.arrived.is_empty() {
            raw.received.extend(endpoint.arrived.drain(..));
            self.open_window(end);
        }
    }

    /// The test reads at most `count` bytes although it has stopped.
    pub(super) fn read_raw(&mut self, end: usize, count: usize) {
        let endpoint = &mut self.endpoints[end];
        let Some(raw) = &mut endpoint.raw else { return };
        let count = count.min(endpoint.arrived.len());
        raw.received.extend(endpoint.arrived.drain(..count));
        self.open_window(end);
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
            self.shown.set(self.now);
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
