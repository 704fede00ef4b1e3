//! What the tests share: a driver on a thread of its own, protocols that are watched, and clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{
    CloseKind, CloseReason, ConnId, Context, DriverLimits, Handle, Input, Limits, ListenOptions,
    Metrics, Note, Outcome, Protocol, Report, Timer,
};
use socket2::{Domain, SockRef, Socket, Type};

/// More than any test takes on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
/// What one read can add to a queue.
pub(crate) const READ_BUFFER: usize = 64 * KIB;

// ---- driving ------------------------------------------------------------------------------------

/// Tests that count threads run alone: all tests share one process.
static PROCESS: RwLock<()> = RwLock::new(());

enum Share {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A driver that runs on a thread of its own.
pub(crate) struct Running {
    thread: Option<JoinHandle<(Blocking, Report)>>,
    pub(crate) handle: Handle,
    share: Share,
}

/// Runs `driver`.
pub(crate) fn start(driver: Blocking) -> Running {
    let guard = PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    run(driver, Share::Shared { _guard: guard })
}

/// Nobody counts threads as long as this is kept: for a driver that is run by the test itself.
pub(crate) fn not_alone() -> RwLockReadGuard<'static, ()> {
    PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `driver` while no other test does, so that its threads can be counted.
pub(crate) fn start_alone(driver: Blocking) -> Running {
    let guard = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The system takes a moment to bury those that have ended.
    until(|| threads().is_empty(), "threads of other tests are left");
    run(driver, Share::Alone { _guard: guard })
}

fn run(mut driver: Blocking, share: Share) -> Running {
    let handle = driver.handle();
    let thread = thread::spawn(move || {
        let report = driver.run().unwrap();
        (driver, report)
    });
    Running { thread: Some(thread), handle, share }
}

impl Running {
    /// Shuts the driver down, as the end of a test: nothing may be left behind.
    #[track_caller]
    pub(crate) fn finish(self) -> (Metrics, Report) {
        self.handle.shutdown();
        self.join()
    }

    /// Waits for the driver to end by itself, and looks for leaks.
    #[track_caller]
    pub(crate) fn join(mut self) -> (Metrics, Report) {
        let thread = self.thread.take().unwrap();
        until(|| thread.is_finished(), "the driver did not end");
        let (driver, report) = thread.join().unwrap();
        let metrics = driver.metrics();
        let gauges =
            [metrics.open, metrics.lingering, metrics.paused, metrics.held, metrics.buffered];
        assert_eq!(gauges, [0; 5], "{metrics:?}");
        let began = metrics.accepted + metrics.connects + metrics.binds;
        assert_eq!((metrics.closes.total(), metrics.bound), (began, 0), "{metrics:?}");
        if let Share::Alone { .. } = self.share {
            until(|| threads().is_empty(), "threads were left behind");
        }
        (metrics, report)
    }
}

impl Drop for Running {
    /// A test that fails must not make others fail, which count threads.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            let _ = thread.join();
        }
    }
}

/// The names of the threads that the library has started in this process, as far as the system
/// keeps them.
pub(crate) fn threads() -> Vec<String> {
    let mut names = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // A thread may be gone before its name is read.
        if let Ok(name) = std::fs::read_to_string(task.unwrap().path().join("comm")) {
            if name.starts_with("lariat ") {
                names.push(name.trim_end().to_owned());
            }
        }
    }
    names
}

/// Waits for what only looking again and again can tell.
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool, otherwise: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise} within {PATIENCE:?}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

pub(crate) fn driver_with(change: impl FnOnce(&mut DriverLimits)) -> Blocking {
    let mut limits = DriverLimits::default();
    limits.connections_max = 256;
    change(&mut limits);
    Blocking::with_limits(limits).unwrap()
}

/// Listens with watched protocols, which share a trail.
pub(crate) fn listen<P: Protocol + Send + 'static>(
    driver: &mut Blocking,
    make: impl Fn() -> P + Send + Sync + 'static,
) -> (SocketAddr, Trail) {
    listen_with(driver, |_| (), make)
}

pub(crate) fn listen_with<P: Protocol + Send + 'static>(
    driver: &mut Blocking,
    change: impl FnOnce(&mut Limits),
    make: impl Fn() -> P + Send + Sync + 'static,
) -> (SocketAddr, Trail) {
    let trail = Trail::default();
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let kept = trail.clone();
    let factory = move |_: &lariat::Incoming| Some(Watched(make(), kept.clone()));
    let listener = driver.listen_with("127.0.0.1:0", options, factory).unwrap();
    (driver.addresses(listener)[0].socket_addr().unwrap(), trail)
}

// ---- clients ------------------------------------------------------------------------------------

pub(crate) fn client(addr: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

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

/// Bytes whose period is a prime, so that a lost, repeated or exchanged block shows.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut period = Vec::with_capacity(65_521);
    for _ in 0..65_521 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        period.push((state >> 24) as u8);
    }
    period.iter().copied().cycle().take(count).collect()
}

/// An address at which nobody listens, and for as long as this lives nobody will.
pub(crate) struct Deserted(Socket);

impl Deserted {
    pub(crate) fn new() -> Deserted {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Deserted(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
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
    Data(usize),
    Eof,
    Drained,
    Timeout,
    Notified,
    Stopping,
    Closed(CloseReason),
}

/// What has happened to the connections of one listener, in order.
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<(Mutex<Vec<Step>>, Condvar)>);

impl Trail {
    fn add(&self, step: Step) {
        self.0.0.lock().unwrap().push(step);
        self.0.1.notify_all();
    }

    /// Waits until the steps are such that `tell` has something to say.
    #[track_caller]
    pub(crate) fn wait<T>(&self, mut tell: impl FnMut(&[Step]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut steps = self.0.0.lock().unwrap();
        loop {
            if let Some(told) = tell(&steps) {
                return told;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {PATIENCE:?}: {steps:?}");
            steps = self.0.1.wait_timeout(steps, left).unwrap().0;
        }
    }

    /// Waits for so many steps of a kind.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize, which: fn(&Step) -> bool) {
        self.wait(|steps| (steps.iter().filter(|step| which(step)).count() >= count).then_some(()));
    }

    /// The id of the connection opened last, once there is one.
    #[track_caller]
    pub(crate) fn id(&self) -> ConnId {
        self.wait(|steps| {
            steps.iter().rev().find_map(|step| match step {
                Step::Opened(id) => Some(*id),
                _ => None,
            })
        })
    }

    /// The reason of the only connection, once it has ended.
    #[track_caller]
    pub(crate) fn reason(&self) -> CloseReason {
        self.wait(|steps| match steps.last() {
            Some(Step::Closed(reason)) => Some(reason.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn kind(&self) -> CloseKind {
        self.reason().kind()
    }

    /// The names of the callbacks. Neighbouring `data` are one, as their cuts are the network's;
    /// `drained` is left out, as it depends on how much the kernel took.
    pub(crate) fn names(&self) -> String {
        let steps = self.0.0.lock().unwrap();
        let mut names: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Opened(_) => Some("opened"),
                Step::Data(_) => Some("data"),
                Step::Eof => Some("eof"),
                Step::Drained => None,
                Step::Timeout => Some("timeout"),
                Step::Notified => Some("notified"),
                Step::Stopping => Some("stopping"),
                Step::Closed(_) => Some("closed"),
            })
            .collect();
        names.dedup();
        names.join(" ")
    }

    /// The most bytes that were unsent after a callback with input.
    pub(crate) fn most_unsent(&self) -> usize {
        let steps = self.0.0.lock().unwrap();
        let unsent = steps.iter().filter_map(|step| match step {
            Step::Data(unsent) => Some(*unsent),
            _ => None,
        });
        unsent.max().unwrap_or(0)
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
        let result = self.0.opened(cx);
        self.1.add(Step::Opened(cx.id()));
        result
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let result = self.0.data(cx, input);
        self.1.add(Step::Data(cx.unsent()));
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
        self.0.closed(cx, reason);
        self.1.add(Step::Closed(reason.clone()));
    }
}
