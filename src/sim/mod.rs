//! The deterministic driver: a virtual clock, a simulated network, faults from a seed.
//!
//! [`Sim`] runs the same turns as the reactor over sockets that do not exist. So every order of
//! events can occur, and can be repeated: the same seed gives the same trace, byte for byte, on
//! every machine. [`Probe`] tests one protocol alone. [`every_split`] finds the commonest bug of
//! hand-written protocols. [`check`] runs a scenario over many seeds and reduces a failure: what
//! the scenario draws from [`Sim::choices`] and all faults shrink to the least that still fails,
//! which is printed with its events as a test of [`replay`].
//!
//! ```
//! use lariat::sim::{Faults, Sim};
//! # use lariat::{Context, Input, Outcome, Protocol};
//! # struct Echo;
//! # impl Protocol for Echo {
//! #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//! #         cx.write(input);
//! #         input.consume(input.len());
//! #         Ok(())
//! #     }
//! # }
//! lariat::sim::check(0..100, |sim| {
//!     sim.set_faults(Faults::rough());
//!     let listener = sim.listen("127.0.0.1:7000", |_| Some(Echo)).unwrap();
//!     let client = sim.dial(sim.addresses(listener)[0]);
//!     client.send(&[7; 100_000]);
//!     client.finish();
//!     sim.run().unwrap();
//!     assert_eq!(client.take_received(), [7; 100_000]);
//! });
//! ```

mod check;
mod choices;
mod datagram_socket;
mod ends;
mod faults;
mod log;
mod names;
mod network;
mod outside;
mod probe;
mod quiet;
mod real;
mod shrink;
mod socket;
mod system;
mod text;
mod trace;
mod wakes;
mod wall;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::{IntoAddress, Targets};
use crate::clock::{Clock, nanos};
use crate::datagram::{DatagramOptions, DatagramProtocol};
use crate::driver::sealed::Sealed;
use crate::driver::{Driver, Report};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::event_loop::{EventLoop, Factory, read_buffer};
use crate::handle::{Handle, Mailbox};
use crate::id::{ConnId, ListenerId};
use crate::limits::DriverLimits;
use crate::metrics::Metrics;
use crate::options::ListenOptions;
use crate::protocol::{Control, Incoming, Protocol, Workplace};
use crate::resolver::Resolver;

pub use check::{check, replay, seeds_from_env};
pub use choices::Choices;
pub use datagram_socket::DatagramSocket;
pub use faults::{Call, Fault, Faults, Link};
pub use probe::{Probe, every_split};
pub use socket::{Acceptor, Socket};
pub use text::ByteText;
pub use trace::{Trace, Traced};

use choices::Tape;
use ends::Ends;
use names::Names;
use network::Network;
use real::real_now;
use system::{Shared, SimSystem};
use wakes::{GRACE, Watch};

/// The deterministic simulator. It has the reactor's methods, and methods that move time and the
/// network.
pub struct Sim {
    seed: u64,
    network: Shared,
    names: Names,
    inner: EventLoop<SimSystem>,
    buffer: Box<[u8]>,
    /// Milliseconds that another thread has between its post and its wake-up.
    grace: u32,
}

impl Sim {
    /// A simulator with the default [`DriverLimits`].
    pub fn new(seed: u64) -> Sim {
        Sim::build(Tape::new(seed), DriverLimits::default())
    }

    /// A simulator with its own limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`].
    pub fn with_limits(seed: u64, limits: DriverLimits) -> Result<Sim> {
        limits.validate()?;
        Ok(Sim::build(Tape::new(seed), limits))
    }

    fn build(tape: Tape, limits: DriverLimits) -> Sim {
        let seed = tape.seed();
        let network = Rc::new(RefCell::new(Network::new(tape)));
        // An `Instant` cannot be constructed; only differences to this one are ever used.
        let mut inner = driver(seed, limits, &network, real_now());
        let names = Names::default();
        inner.shared.workplace.resolver = Arc::new(names.clone());
        Sim { seed, network, names, inner, buffer: read_buffer(), grace: GRACE }
    }

    /// Gives other limits to a simulator that has not begun: those of a scenario that [`check`]
    /// runs, or that the scenario draws itself. Earlier handles reach no driver any more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`], also once the simulator
    /// listens, has connected, or has made a turn.
    pub fn set_limits(&mut self, limits: DriverLimits) -> Result<()> {
        limits.validate()?;
        if self.inner.has_begun() {
            let late = Error::new(ErrorKind::InvalidLimits, Op::Limits);
            return Err(late.with_detail("the simulator has begun"));
        }
        // Instants that a scenario has taken before stay comparable.
        let inner = driver(self.seed, limits, &self.network, self.inner.system.start);
        let before = std::mem::replace(&mut self.inner, inner);
        self.inner.shared.workplace.resolver = Arc::clone(&before.shared.workplace.resolver);
        self.inner.shared.strict = before.shared.strict;
        self.inner.shared.clock.set_wall(before.shared.clock.wall());
        self.inner.keep_running = before.keep_running;
        Ok(())
    }

    /// The choices that a scenario draws from the seed: see [`Choices`].
    pub fn choices(&self) -> Choices {
        self.network.borrow().choices.clone()
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    // ---- the network -------------------------------------------------------------------------

    /// The faults that happen by chance from now on. Connections that vanished stay so.
    pub fn set_faults(&mut self, faults: Faults) {
        self.network.borrow_mut().faults = faults;
    }

    /// The link of connections made from now on.
    pub fn set_link(&mut self, link: Link) {
        self.network.borrow_mut().link = link;
    }

    /// Lets the `nth` call of its kind from now on (0: the next) fail or fall short, on every seed.
    ///
    /// ```
    /// use lariat::sim::{Call, Fault, Sim};
    /// let mut sim = Sim::new(1);
    /// sim.script(Call::Read, 0, Fault::Short(1));
    /// sim.script(Call::Accept, 2, Fault::Error(24)); // EMFILE on Linux
    /// ```
    pub fn script(&mut self, call: Call, nth: u64, fault: Fault) {
        self.network.borrow_mut().script(call, nth, fault);
    }

    /// The most descriptors for the driver's connections \[unlimited\]; one more fails with EMFILE.
    pub fn set_descriptors_max(&mut self, most: usize) {
        self.network.borrow_mut().descriptors_max = most;
    }

    /// Makes late writes fail the test \[off\]. A late write, one to a connection that the protocol
    /// has closed for writing, is otherwise dropped and counted. With this on, the turn that
    /// contains one panics at its end.
    ///
    /// ```should_panic
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// struct Talkative;
    /// impl Protocol for Talkative {
    ///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         cx.close();
    ///         cx.write(&input.split_all());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut sim = lariat::sim::Sim::new(1);
    /// sim.strict(true);
    /// let listener = sim.listen("127.0.0.1:1", |_| Some(Talkative)).unwrap();
    /// sim.dial(sim.addresses(listener)[0]).send(b"hello");
    /// sim.run().unwrap();
    /// ```
    pub fn strict(&mut self, strict: bool) {
        self.inner.shared.strict = strict;
    }

    // ---- time --------------------------------------------------------------------------------

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.network.borrow().now())
    }

    /// Runs until shutdown, until nothing is left, or until nothing can happen any more: no byte is
    /// under way and no timer is set. A protocol that always sets its next timer, or always
    /// reconnects, runs for ever: use [`run_for`](Sim::run_for) or [`run_until`](Sim::run_until).
    ///
    /// # Errors
    ///
    /// A script made the wait for events fail; or a wake-up was lost: the driver was about to sleep
    /// although something waits that nothing would wake it for. The error says what waits.
    pub fn run(&mut self) -> Result<Report> {
        self.run_until(|_| false)?;
        if self.inner.is_over() {
            return self.inner.run(&mut self.buffer).map_err(|e| Error::from_io(Op::Poll, e));
        }
        Ok(Report::default())
    }

    /// Runs until `done`, checked after every turn, or as [`run`](Sim::run) does. True when `done`
    /// ended it.
    ///
    /// # Errors
    ///
    /// As [`run`](Sim::run).
    pub fn run_until(&mut self, mut done: impl FnMut(&mut Sim) -> bool) -> Result<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            if self.is_over() {
                return self.judge_mail().map(|()| false);
            }
            if self.is_quiet() {
                return self.judge_quiet().map(|()| false);
            }
            self.turn(None)?;
        }
    }

    /// Runs for `time`. Virtual time moves on by exactly that much.
    ///
    /// # Errors
    ///
    /// As [`run`](Sim::run).
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let until = self.network.borrow().now().saturating_add(nanos(time));
        self.inner.system.bound = Some(until);
        let mut result = Ok(());
        while result.is_ok() && (self.network.borrow().now() < until || self.has_work_now()) {
            result = self.turn(None);
        }
        self.inner.system.bound = None;
        result
    }

    /// Stops the process for `time`, as SIGSTOP does: the network goes on, no turn is made, and the
    /// next wait for events is one that a signal has interrupted. Deadlines pass meanwhile.
    pub fn stop_for(&mut self, time: Duration) {
        let until = self.now().saturating_add(time);
        self.network.borrow_mut().stop(nanos(until));
    }

    fn has_work_now(&self) -> bool {
        let now = self.network.borrow().now();
        self.inner.is_busy()
            || self.inner.system.woken.load(Ordering::Acquire)
            || self.network.borrow().next_event().is_some_and(|next| next <= now)
    }

    /// Whether nothing can happen any more: no byte is under way and no timer is set.
    pub fn is_quiet(&self) -> bool {
        !self.inner.is_busy()
            && self.inner.shared.timers.next().is_none_or(|next| next == u64::MAX)
            && self.network.borrow().next_event().is_none()
            && !self.inner.system.woken.load(Ordering::Acquire)
    }

    /// One turn; virtual time moves to the next event, at most by `timeout`.
    ///
    /// # Errors
    ///
    /// As [`run`](Sim::run).
    ///
    /// # Panics
    ///
    /// After a late write, if [`strict`](Sim::strict) says so.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.watch_wait()?;
        let result = self.inner.turn(timeout, &mut self.buffer);
        if let Some(error) = self.lost_in_turn() {
            return Err(error);
        }
        if let Some(late) = self.inner.shared.late_write.take() {
            panic!("{late} (Sim::strict, seed {})", self.seed);
        }
        result.map_err(|error| Error::from_io(Op::Poll, error))
    }

    /// Whether no listener, no connection and no timer of the driver is left.
    pub fn is_over(&self) -> bool {
        self.inner.is_over()
    }

    // ---- what every driver has ---------------------------------------------------------------

    /// Listens on `addr`; see [`Reactor::listen`](crate::reactor::Reactor::listen). No real socket
    /// is opened, so any IP address and any name of a Unix socket works.
    ///
    /// # Errors
    ///
    /// The address is in use in this simulator, or is invalid; [`ErrorKind::Stopped`] once the
    /// simulator has been shut down.
    pub fn listen<P: Protocol + 'static>(
        &mut self,
        addr: impl IntoAddress,
        factory: impl FnMut(&Incoming) -> Option<P> + 'static,
    ) -> Result<ListenerId> {
        self.listen_with(addr, ListenOptions::default(), factory)
    }

    /// Listens with options.
    ///
    /// # Errors
    ///
    /// As [`listen`](Sim::listen), and
    /// [`ErrorKind::InvalidLimits`].
    pub fn listen_with<P: Protocol + 'static>(
        &mut self,
        addr: impl IntoAddress,
        options: ListenOptions,
        mut factory: impl FnMut(&Incoming) -> Option<P> + 'static,
    ) -> Result<ListenerId> {
        let factory: Factory =
            Box::new(move |incoming| Some(Box::new(factory(incoming)?) as Box<dyn Protocol>));
        self.inner.listen(&addr.into_address(), options, factory)
    }

    /// The addresses of a listener; none once it has stopped.
    pub fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        self.inner.shared.binder.listeners.addresses(listener)
    }

    /// Binds a datagram socket to `addr`; see [`Control::bind`](crate::Control::bind). `protocol`
    /// may not leave this thread.
    ///
    /// # Errors
    ///
    /// As [`Control::bind`](crate::Control::bind).
    pub fn bind(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<ConnId> {
        self.bind_with(addr, DatagramOptions::default(), protocol)
    }

    /// Binds with options.
    ///
    /// # Errors
    ///
    /// As [`Control::bind_with`](crate::Control::bind_with).
    pub fn bind_with(
        &mut self,
        addr: impl IntoAddress,
        options: DatagramOptions,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<ConnId> {
        self.control().bind_local_with(addr, options, protocol)
    }

    /// The real address of a datagram socket; None once it is closed.
    pub fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        self.inner.shared.binder.listeners.bound_addr(id)
    }

    /// Connects to `addr`; see [`Reactor::connect`](crate::reactor::Reactor::connect). For a
    /// protocol that is not `Send` there is
    /// [`control().connect_local`](crate::Control::connect_local).
    pub fn connect(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.control().connect(addr, protocol)
    }

    /// The driver outside of `run`. Requests take effect in the next turn.
    pub fn control(&mut self) -> Control<'_> {
        Control::new(&mut self.inner.shared)
    }

    /// A remote for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(self.inner.mailbox.clone())
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// Whether [`is_over`](Sim::is_over) stays false without listeners and connections \[off\].
    pub fn keep_running(&mut self, keep: bool) {
        self.inner.keep_running = keep;
    }
}

/// An address of the simulated network.
fn address(addr: impl IntoAddress) -> Result<Endpoint> {
    let addr = addr.into_address();
    let wrong = |error| Error::from_io(Op::Connect, error).with_addr(&addr);
    match addr.targets().map_err(wrong)? {
        Targets::One(one) => Ok(one),
        Targets::Several(several) => Ok(several[0]),
        Targets::Name { .. } => {
            let error = Error::new(ErrorKind::InvalidAddress, Op::Connect).with_addr(&addr);
            Err(error.with_detail("only connects of the driver look names up"))
        }
    }
}

/// The least time that a job or a lookup takes.
const JOB: Duration = Duration::from_millis(1);

/// A driver over the network.
fn driver(
    seed: u64,
    limits: DriverLimits,
    network: &Shared,
    start: Instant,
) -> EventLoop<SimSystem> {
    let shown = Arc::clone(&network.borrow().shown);
    let woken = Arc::new(AtomicBool::new(false));
    let wake = Arc::clone(&woken);
    let wake = Box::new(move || wake.store(true, Ordering::Release));
    let mailbox = Arc::new(Mailbox::new(limits.posts_max, wake));
    let clock = Clock::virtual_at(Arc::clone(&shown), start, wall::start());
    let system = SimSystem {
        network: Rc::clone(network),
        start,
        shown,
        woken,
        bound: None,
        ends: Ends::default(),
        watch: Watch::default(),
    };
    let paths = Rc::clone(network);
    let time = move || JOB + Duration::from_nanos(paths.borrow_mut().delay_of_job());
    let workplace = Workplace::here(Box::new(time), &limits);
    EventLoop::new(system, clock, seed, limits, mailbox, workplace)
}

impl Sealed for Sim {}

impl Driver for Sim {
    fn control(&mut self) -> Control<'_> {
        Sim::control(self)
    }

    fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        Sim::addresses(self, listener)
    }

    fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        Sim::bound_addr(self, id)
    }

    fn run(&mut self) -> Result<Report> {
        Sim::run(self)
    }

    fn handle(&self) -> Handle {
        Sim::handle(self)
    }

    fn metrics(&self) -> Metrics {
        Sim::metrics(self)
    }

    fn keep_running(&mut self, keep: bool) {
        Sim::keep_running(self, keep);
    }

    fn set_resolver(&mut self, resolver: Box<dyn Resolver>) {
        self.inner.shared.workplace.resolver = Arc::from(resolver);
    }

    fn stop_on_signals(&mut self) -> Result<()> {
        let error = Error::new(ErrorKind::Unsupported, Op::Signals);
        Err(error.with_detail("the simulator has none"))
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("now", &self.now())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::protocol::{Context, Input, Outcome};

    /// Time passes outside of turns: the caller does other work.
    fn pass(sim: &mut Sim, time: Duration) {
        let until = sim.network.borrow().now() + nanos(time);
        assert!(sim.network.borrow_mut().poll(Some(until), None).unwrap().is_empty());
    }

    #[test]
    fn c18_a_timer_does_not_wait_again_for_time_that_passed_outside_of_turns() {
        let mut sim = Sim::new(1);
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        sim.turn(Some(Duration::ZERO)).unwrap();
        sim.control().set_timer_local(Duration::from_secs(1), move |_| runs.set(true)).unwrap();
        pass(&mut sim, Duration::from_secs(3));
        sim.turn(None).unwrap();
        assert_eq!((ran.get(), sim.now()), (true, Duration::from_secs(3)));
    }

    #[test]
    fn c18_what_is_written_outside_of_turns_stalls_from_then_on() {
        struct Quiet(Rc<Cell<Option<ConnId>>>);
        impl Protocol for Quiet {
            fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
                self.0.set(Some(cx.id()));
                Ok(())
            }
            fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
                Ok(())
            }
        }
        let mut sim = Sim::new(1);
        let id = Rc::new(Cell::new(None));
        let opened = Rc::clone(&id);
        let listener = sim.listen("127.0.0.1:1", move |_| Some(Quiet(Rc::clone(&opened)))).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.stop_reading();
        sim.run_for(Duration::from_millis(1)).unwrap();
        // Longer than a write may stall.
        pass(&mut sim, Duration::from_secs(60));
        sim.control().peer(id.get().unwrap()).write(&[7; 1024 * 1024]);
        sim.run_for(Duration::from_secs(29)).unwrap();
        assert_eq!(sim.metrics().open, 1);
        sim.run_for(Duration::from_secs(2)).unwrap();
        assert_eq!(sim.metrics().closes.timed_out, 1);
    }
}
