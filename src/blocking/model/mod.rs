//! The model check of this driver: its own threads, locks and wake-ups, over made-up sockets, in
//! orders that a seed makes up.
//!
//! Each seed is a schedule of every lock, wait, atomic and socket call. What is looked for: threads
//! that nobody wakes (nothing can run, and something has not ended), threads that never sleep,
//! locks that are taken in two orders, callbacks after `closed` or none at all, and requests that
//! are neither carried out nor counted. `mailbox` does the same for the loop's mailbox, and `jobs`
//! for the threads that jobs run on.
//! `crate::sync::model` has the rules of time; atomics are sequentially consistent here, whatever
//! order the code asks for.

mod connections;
mod datagrams;
mod ending;
mod jobs;
mod listening;
mod mailbox;
mod messages;
pub(super) mod net;
pub(super) mod udp;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::JoinHandle;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::Blocking;
use super::bell::lock;
use crate::endpoint::Endpoint;
use crate::limits::DriverLimits;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::{CloseKind, CloseReason};
use crate::socket::retry;
use crate::sync::model::{self, Rules};
use crate::{Note, Timer};
use net::{Listener, TcpStream};

/// Schedules of one scenario, unless `LARIAT_SEEDS` gives a number or `LARIAT_SEED` names one.
const SEEDS: u64 = 100;
/// A schedule that takes more steps than this never ends.
const STEPS_MAX: usize = 200_000;

/// Runs `scenario` once for each seed.
fn check(scenario: fn()) {
    check_in(Rules::default(), scenario);
}

/// Runs `scenario` once for each seed, with rules of its own.
fn check_in(rules: Rules, scenario: fn()) {
    let test = std::thread::current().name().unwrap_or("TEST").to_owned();
    for seed in seeds() {
        let failure = Failure { test: &test, seed };
        let run = move || {
            net::begin();
            udp::begin();
            model::begin(rules);
            scenario();
        };
        // Half of the seeds choose again at each step. The others let one thread run on for as long
        // as it can, but for a few changes: some mistakes show only where another is far behind.
        if seed % 2 == 0 {
            run_seed(RandomScheduler::new_from_seed(seed, 1), run);
        } else {
            run_seed(PctScheduler::new_from_seed(seed, 4, 2), run);
        }
        std::mem::forget(failure);
    }
}

fn seeds() -> Range<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
    };
    match number("LARIAT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LARIAT_SEEDS").unwrap_or(SEEDS),
    }
}

fn run_seed(scheduler: impl Scheduler + 'static, run: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    // What is still running after a failure may fail as well, and would end the whole process.
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(scheduler, config).run(run);
}

/// Tells the seed of a schedule that failed.
struct Failure<'a> {
    test: &'a str,
    seed: u64,
}

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        let Failure { test, seed } = self;
        eprintln!("schedule {seed} failed; to repeat it alone:");
        eprintln!(
            "    LARIAT_SEED={seed} RUSTFLAGS=\"--cfg lariat_model\" cargo test --lib {test}"
        );
    }
}

// ---- drivers ------------------------------------------------------------------------------------

fn driver_with(change: impl FnOnce(&mut DriverLimits)) -> Blocking {
    let mut limits = DriverLimits { connections_max: 8, ..DriverLimits::default() };
    change(&mut limits);
    Blocking::with_limits(limits).unwrap()
}

/// Runs `driver` to its end, which must have waited for all of its threads.
#[track_caller]
fn run(driver: &mut Blocking) {
    driver.run().unwrap();
    assert!(driver.hub.has_no_threads());
}

/// Runs `driver` to its end, which does not wait for a thread that is away in a connect.
#[track_caller]
fn run_and_leave(driver: &mut Blocking) {
    driver.run().unwrap();
    assert!(lock(&driver.hub.state).cells.is_empty());
}

/// Waits for the threads that were left in a connect.
fn bury(driver: &Blocking) {
    while !driver.hub.has_no_threads() {
        model::thread::yield_now();
    }
}

/// Once nobody asks for anything any more: nothing is left of any connection or request.
#[track_caller]
fn check_books(driver: &Blocking) {
    driver.hub.check_empty();
    let metrics = driver.metrics();
    let wrong = [metrics.open, metrics.lingering, metrics.panics, metrics.accept_errors];
    assert_eq!(wrong, [0; 4], "{metrics:?}");
    let began = metrics.accepted + metrics.connects + metrics.binds;
    assert_eq!(metrics.closes.total(), began, "{metrics:?}");
}

fn spawn(code: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    shuttle::thread::spawn(code)
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Lets others run for a while, or not.
fn dawdle() {
    for _ in 0..model::roll(12) {
        model::thread::yield_now();
    }
}

// ---- protocols ----------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Opened,
    Data(Vec<u8>),
    Eof,
    Notified,
    Stopping,
    Closed(CloseKind),
    Other,
}

/// What has happened to one connection, in order.
#[derive(Clone, Default)]
struct Trail(Arc<Mutex<Vec<Step>>>);

impl Trail {
    fn add(&self, step: Step) {
        self.0.lock().unwrap().push(step);
    }

    fn steps(&self) -> Vec<Step> {
        self.0.lock().unwrap().clone()
    }

    /// `closed` has run once, and nothing behind it.
    #[track_caller]
    fn ended(&self) -> CloseKind {
        let steps = self.steps();
        let closes = steps.iter().filter(|step| matches!(step, Step::Closed(_))).count();
        match steps.last() {
            Some(Step::Closed(kind)) if closes == 1 => *kind,
            _ => panic!("`closed` ran {closes} times: {steps:?}"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let steps = self.steps();
        let data = steps.iter().filter_map(|step| match step {
            Step::Data(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        data.flatten().copied().collect()
    }
}

/// `P`, with everything that happens to it written down.
struct Watched<P>(P, Trail);

fn watch<P>(protocol: P) -> (Watched<P>, Trail) {
    let trail = Trail::default();
    (Watched(protocol, trail.clone()), trail)
}

impl<P: Protocol> Protocol for Watched<P> {
    crate::forward_protocol! {
        self => self.0;
        pass: name filter;
        own: opened data eof drained timeout notified closed stopping;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.1.add(Step::Opened);
        self.0.opened(cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.1.add(Step::Data(input.to_vec()));
        self.0.data(cx, input)
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.1.add(Step::Eof);
        self.0.eof(cx, rest)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.1.add(Step::Other);
        self.0.drained(cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.1.add(Step::Other);
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
        self.1.add(Step::Closed(reason.kind()));
    }
}

/// Sends back what comes.
struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Takes everything and says nothing. A companion is there from the start if asked for.
struct Quiet {
    companion: bool,
}

impl Protocol for Quiet {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.companion {
            // It never fires: time stands still.
            cx.set_timer(Timer::new(1), Duration::from_secs(3600));
        }
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

// ---- peers --------------------------------------------------------------------------------------

/// Others that the driver connects to: each of their connections is served in turn by `serve`, on a
/// thread, until [`Peers::end`].
struct Peers {
    listener: Arc<Listener>,
    thread: JoinHandle<()>,
}

impl Peers {
    fn start(serve: impl Fn(TcpStream) + Send + 'static) -> (Peers, SocketAddr) {
        let listener = Arc::new(net::listen());
        let addr = listener.local_addr();
        let accepting = Arc::clone(&listener);
        let thread = spawn(move || {
            while let Ok((stream, _)) = retry(|| accepting.accept()) {
                serve(stream);
            }
        });
        (Peers { listener, thread }, addr)
    }

    fn end(self) {
        net::wake_accept(&self.listener);
        self.thread.join().unwrap();
    }
}

fn client(addr: impl Into<Endpoint>) -> Option<TcpStream> {
    TcpStream::connect_timeout(&addr.into().need_ip().ok()?, Duration::ZERO).ok()
}

/// Reads what is there, or waits for it.
fn read_some(mut stream: &TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    retry(|| stream.read(buffer))
}

/// Reads to the end; returns the bytes, and the error if that was a reset.
fn read_to_end(mut stream: &TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).err();
    (all, error.map(|error| error.kind()))
}

/// Writes as far as the other end lets it.
fn send(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Sends back what comes, until the end or an error.
fn echo(stream: TcpStream) {
    let mut buffer = [0; 16];
    while let Ok(count) = read_some(&stream, &mut buffer) {
        if count == 0 || (&stream).write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
