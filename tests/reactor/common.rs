//! What the tests share: protocols, clients, and what drives a reactor until something holds.

use std::cell::{Ref, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{
    CloseKind, CloseReason, ConnId, Context, DriverLimits, Input, Limits, ListenOptions,
    ListenerId, Note, Outcome, Protocol, Report, Timer,
};
use socket2::SockRef;

/// More than any test takes on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
/// The reactor's read buffer: what one read can add to a queue.
pub(crate) const READ_BUFFER: usize = 256 * KIB;

// ---- driving ------------------------------------------------------------------------------------

/// Turns until `done` holds.
#[track_caller]
pub(crate) fn drive(reactor: &mut Reactor, mut done: impl FnMut(&Reactor) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(reactor) {
        assert!(Instant::now() < deadline, "not done in {PATIENCE:?}: {:?}", reactor.metrics());
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
}

/// Turns until the thread has ended.
#[track_caller]
pub(crate) fn join<T>(reactor: &mut Reactor, thread: JoinHandle<T>) -> T {
    drive(reactor, |_| thread.is_finished());
    thread.join().unwrap()
}

/// Turns until every connection that ever was has been told `closed`, and looks for leaks.
#[track_caller]
pub(crate) fn settle(reactor: &mut Reactor) {
    drive(reactor, |reactor| {
        let metrics = reactor.metrics();
        metrics.closes.total() == metrics.accepted + metrics.connects + metrics.binds
    });
    let metrics = reactor.metrics();
    let gauges = [metrics.open, metrics.lingering, metrics.paused, metrics.held, metrics.buffered];
    assert_eq!((gauges, metrics.bound), ([0; 5], 0), "{metrics:?}");
}

/// Shuts the reactor down, as the end of a test: nothing may be left behind.
#[track_caller]
pub(crate) fn finish(mut reactor: Reactor) -> Report {
    reactor.handle().shutdown();
    drive(&mut reactor, Reactor::is_over);
    settle(&mut reactor);
    reactor.run().unwrap()
}

/// How many turns the reactor takes in `time` when it is left alone: a loop that spins takes
/// thousands.
pub(crate) fn turns_in(reactor: &mut Reactor, time: Duration) -> u64 {
    let before = reactor.metrics().turns;
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|t| !t.is_zero()) {
        reactor.turn(Some(left)).unwrap();
    }
    reactor.metrics().turns - before
}

pub(crate) fn listen<P: Protocol + 'static>(
    reactor: &mut Reactor,
    mut make: impl FnMut() -> P + 'static,
) -> SocketAddr {
    let listener = reactor.listen("127.0.0.1:0", move |_| Some(make())).unwrap();
    reactor.addresses(listener)[0].socket_addr().unwrap()
}

pub(crate) fn listen_with<P: Protocol + 'static>(
    reactor: &mut Reactor,
    change: impl FnOnce(&mut Limits),
    mut make: impl FnMut() -> P + 'static,
) -> (ListenerId, SocketAddr) {
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let listener = reactor.listen_with("127.0.0.1:0", options, move |_| Some(make())).unwrap();
    (listener, reactor.addresses(listener)[0].socket_addr().unwrap())
}

pub(crate) fn reactor_with(change: impl FnOnce(&mut DriverLimits)) -> Reactor {
    let mut limits = DriverLimits::default();
    change(&mut limits);
    Reactor::with_limits(limits).unwrap()
}

// ---- bytes --------------------------------------------------------------------------------------

/// The byte at a place of the endless stream that the tests send. Its period is a prime, so that a
/// lost, repeated or exchanged block shows.
const PERIOD: usize = 65_521;

pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Pattern {
        let mut state = 0x9e37_79b9_u32;
        let mut period = Vec::with_capacity(PERIOD);
        for _ in 0..PERIOD {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            period.push((state >> 24) as u8);
        }
        let mut twice = period.clone();
        twice.extend_from_slice(&period);
        Pattern(twice)
    }

    /// At most `most` bytes from `at` on.
    pub(crate) fn piece(&self, at: usize, most: usize) -> &[u8] {
        let from = at % PERIOD;
        &self.0[from..from + most.min(PERIOD)]
    }

    #[track_caller]
    pub(crate) fn check(&self, at: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let piece = self.piece(at + done, bytes.len() - done);
            assert!(bytes[done..done + piece.len()] == *piece, "wrong bytes after {}", at + done);
            done += piece.len();
        }
    }

    pub(crate) fn bytes(&self, count: usize) -> Vec<u8> {
        (0..count).map(|at| self.0[at % PERIOD]).collect()
    }
}

// ---- clients ------------------------------------------------------------------------------------

pub(crate) fn client(addr: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One exchange over a blocking socket.
#[track_caller]
pub(crate) fn echo_once(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "the echo differs");
}

/// Reads until the end of the stream or an error, which it returns.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).err();
    (all, error.map(|error| error.kind()))
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Writes until the socket takes no more for now; returns how much it took.
pub(crate) fn fill(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    while let Ok(count) = stream.write(bytes) {
        taken += count;
    }
    stream.set_nonblocking(false).unwrap();
    taken
}

// ---- protocols ----------------------------------------------------------------------------------

pub(crate) struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Takes everything and says nothing.
pub(crate) struct Sink;

impl Protocol for Sink {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Opened(ConnId),
    Data(Vec<u8>),
    Eof,
    Drained,
    Timeout,
    Notified,
    Stopping,
    Closed(CloseReason),
}

/// What has happened to one connection, in order.
#[derive(Clone, Default)]
pub(crate) struct Trail(Rc<RefCell<Vec<Step>>>);

impl Trail {
    fn add(&self, step: Step) {
        self.0.borrow_mut().push(step);
    }

    pub(crate) fn steps(&self) -> Ref<'_, Vec<Step>> {
        self.0.borrow()
    }

    pub(crate) fn id(&self) -> Option<ConnId> {
        self.steps().iter().find_map(|step| match step {
            Step::Opened(id) => Some(*id),
            _ => None,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.steps().last(), Some(Step::Closed(_)))
    }

    /// The reason, which came once and last.
    #[track_caller]
    pub(crate) fn reason(&self) -> CloseReason {
        let steps = self.steps();
        let closed = steps.iter().filter(|step| matches!(step, Step::Closed(_))).count();
        match steps.last() {
            Some(Step::Closed(reason)) if closed == 1 => reason.clone(),
            _ => panic!("closed {closed} times, or not last: {}", self.names()),
        }
    }

    #[track_caller]
    pub(crate) fn kind(&self) -> CloseKind {
        self.reason().kind()
    }

    pub(crate) fn count(&self, which: fn(&Step) -> bool) -> usize {
        self.steps().iter().filter(|step| which(step)).count()
    }

    pub(crate) fn has_eof(&self) -> bool {
        self.count(|step| matches!(step, Step::Eof)) > 0
    }

    /// The bytes that were consumed.
    pub(crate) fn data(&self) -> Vec<u8> {
        let steps = self.steps();
        let bytes = steps.iter().filter_map(|step| match step {
            Step::Data(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        bytes.flatten().copied().collect()
    }

    /// The names of the callbacks. Neighbouring `data` are one, as their cuts are the network's;
    /// `drained` is left out, as it depends on how much the kernel took.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<_> = self
            .steps()
            .iter()
            .filter(|step| !matches!(step, Step::Drained))
            .map(|step| match step {
                Step::Opened(_) => "opened",
                Step::Data(_) => "data",
                Step::Eof => "eof",
                Step::Drained => unreachable!("left out"),
                Step::Timeout => "timeout",
                Step::Notified => "notified",
                Step::Stopping => "stopping",
                Step::Closed(_) => "closed",
            })
            .collect();
        names.dedup();
        names.join(" ")
    }
}

/// `P`, with everything that happens to it written down.
pub(crate) struct Watched<P>(pub(crate) P, pub(crate) Trail);

impl<P: Protocol> Protocol for Watched<P> {
    lariat::forward_protocol! {
        self => self.0;
        pass: name filter;
        own: opened data eof drained timeout notified closed stopping;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.1.add(Step::Opened(cx.id()));
        self.0.opened(cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut shown = input.to_vec();
        self.1.add(Step::Data(Vec::new()));
        let result = self.0.data(cx, input);
        shown.truncate(shown.len() - input.len());
        if let Some(Step::Data(consumed)) = self.1.0.borrow_mut().last_mut() {
            *consumed = shown;
        }
        result
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.1.add(Step::Eof);
        self.0.eof(cx, rest)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.1.add(Step::Drained);
        self.0.drained(cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.1.add(Step::Timeout);
        self.0.timeout(cx, timer)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.1.add(Step::Notified);
        self.0.notified(cx, note)
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.1.add(Step::Stopping);
        self.0.stopping(cx)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.1.add(Step::Closed(reason.clone()));
        self.0.closed(cx, reason);
    }
}

/// Listens with one protocol value, which is watched; further newcomers are refused.
pub(crate) fn listen_once<P: Protocol + 'static>(
    reactor: &mut Reactor,
    change: impl FnOnce(&mut Limits),
    protocol: P,
) -> (SocketAddr, Trail) {
    let trail = Trail::default();
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let mut watched = Some(Watched(protocol, trail.clone()));
    let listener = reactor.listen_with("127.0.0.1:0", options, move |_| watched.take()).unwrap();
    (reactor.addresses(listener)[0].socket_addr().unwrap(), trail)
}
