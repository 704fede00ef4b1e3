//! The synchronous driver: a thread per connection, blocking sockets of std.
//!
//! It runs the same protocols as the [`reactor`](crate::reactor), with the same limits and the same
//! reasons. What differs is the cost of a connection: a thread, and a second one (its *companion*)
//! when it needs one: for a timer, for a note, a close or a shutdown from elsewhere, or for output
//! that waits for room while the first thread reads or may have to. [`serve`] is a whole server in
//! one call.
//!
//! # What a thread costs
//!
//! A connection that has read nothing holds about 28 KiB of resident memory, and 79 KiB once its
//! read buffer of 64 KiB has been used; a companion adds 15 KiB. Each keeps at most 128 KiB of what
//! its output has needed. The kernel's own memory for a thread and the address space of its stack
//! ([`Blocking::stack_size`]) come on top. A thread whose connection has ended waits a second for
//! the next one, with its buffer, at most 64 threads at a time. At most 64 buffers of other threads
//! are kept.
//!
//! # How many threads there are
//!
//! At most [`connections_max`](DriverLimits::connections_max) connections and datagram sockets are
//! open, by default 256.
//! On Linux the threads of all kinds number at most three quarters of the smaller of
//! `vm.max_map_count` / 4 and `kernel.threads-max`: 12,285 on most systems. An eighth of these is
//! kept for companions. Further connections wait or are turned away, as they do above
//! `connections_max`; a connect ends with [`Exhausted`](crate::ConnectFailure::Exhausted). A
//! connection that needs a companion when there is no thread left ends with
//! [`Aborted`](crate::CloseKind::Aborted).
//!
//! There are no turns, and a thread serves one connection at a time: limits per turn, such as
//! [`read_budget`](crate::Limits::read_budget), have no meaning; only
//! [`timers_max`](DriverLimits::timers_max) is for the timers of the driver. One read takes at most
//! 64 KiB.

mod accept;
mod alarms;
mod attempts;
mod bell;
mod bind;
#[cfg(not(all(test, lariat_model)))]
mod calls;
mod cell;
mod companion;
mod counters;
mod datagrams;
mod drive;
mod due;
mod effects;
mod hub;
mod listening;
mod outlet;
mod pool;
mod race;
mod reader;
mod remote;
mod room;
mod roster;
mod runner;
#[cfg(all(feature = "fd", not(all(test, lariat_model))))]
mod stream;
mod system;
mod threads;
mod timeouts;
mod worker;

#[cfg(all(test, lariat_model))]
mod model;
#[cfg(test)]
#[cfg(not(lariat_model))]
mod tests;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

use crate::address::IntoAddress;
use crate::client;
use crate::clock::{Clock, Readings};
use crate::datagram::{DatagramOptions, DatagramProtocol};
use crate::driver::sealed::Sealed;
use crate::driver::{Driver, Report};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::guard::{drop_each, drop_guarded};
use crate::handle::Handle;
use crate::id::{ConnId, ListenerId};
use crate::limits::DriverLimits;
use crate::metrics::Metrics;
use crate::options::{ConnectOptions, ListenOptions};
use crate::protocol::{Control, Incoming, Protocol, Watched};
use crate::reason::CloseReason;
use crate::resolver::Resolver;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;

use bell::lock;
use cell::Signal;
use effects::{Author, Starts};
use hub::{Desk, Hub};
use pool::Job;
use remote::HubRemote;
use runner::Runner;

/// Serves `factory`'s protocols on `addr`, with a thread for each connection, until Ctrl-C or
/// SIGTERM (feature `signals`). The first signal drains; a second one ends the process at once.
///
/// ```no_run
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         cx.write(input);
/// #         input.consume(input.len());
/// #         Ok(())
/// #     }
/// # }
/// fn main() -> lariat::Result<()> {
///     lariat::blocking::serve("127.0.0.1:7000", || Echo)
/// }
/// ```
///
/// # Errors
///
/// The address cannot be listened on.
pub fn serve<P: Protocol + Send + 'static>(
    addr: impl IntoAddress,
    factory: impl Fn() -> P + Send + Sync + 'static,
) -> Result<()> {
    let mut driver = Blocking::new();
    let listener = driver.listen(addr, move |_| Some(factory()))?;
    #[cfg(feature = "signals")]
    driver.stop_on_signals()?;
    for addr in driver.addresses(listener) {
        log::info!(target: "lariat::blocking", "listening on {addr}");
    }
    let report = driver.run()?;
    log::info!(target: "lariat::blocking", "stopped: {report}");
    Ok(())
}

/// Connects to `addr`, runs `protocol` to its end and gives it back: a whole client in one call.
///
/// A failed connect is `Ok` too, with its reason. The protocol is None after a panic, or when
/// another has [replaced](crate::Context::replace) it. Of the addresses of a name, the first that
/// answers is used; at most three are tried at a time, so behind three that never answer none is
/// tried ([`Control::connect`]). The call also waits for the end of everything that the protocol
/// began, such as other connections.
///
/// ```
/// use lariat::{CloseKind, Context, Input, Outcome, Protocol};
///
/// /// Sends a word and keeps the answer.
/// #[derive(Default)]
/// struct Asking {
///     answer: Vec<u8>,
/// }
///
/// impl Protocol for Asking {
///     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
///         cx.write(b"hello");
///         cx.shutdown_write();
///         Ok(())
///     }
///     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         self.answer.extend_from_slice(&input.split_all());
///         Ok(())
///     }
/// }
///
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// # let addr = listener.local_addr().unwrap();
/// # let server = std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
/// # });
/// let (asking, reason) = lariat::blocking::connect(addr, Asking::default())?;
/// assert_eq!(reason.kind(), CloseKind::Finished);
/// assert_eq!(asking.unwrap().answer, b"hello");
/// # server.join().unwrap();
/// # Ok::<(), lariat::Error>(())
/// ```
///
/// # Errors
///
/// The text is no address; or [`ErrorKind::Stopped`] when the protocol has shut the driver
/// down and a callback had not returned when the drain time was over. A thread that cannot be
/// started is `Ok`, with [`Connect(Exhausted)`](crate::ConnectFailure::Exhausted), and so is a name
/// without an address, with [`Connect(Name)`](crate::ConnectFailure::Name).
pub fn connect<P: Protocol + Send + 'static>(
    addr: impl IntoAddress,
    protocol: P,
) -> Result<(Option<P>, CloseReason)> {
    connect_with(addr, ConnectOptions::default(), protocol)
}

/// Connects like [`connect`], with options, such as the time that a connect may take.
///
/// # Errors
///
/// As [`connect`], and [`ErrorKind::InvalidLimits`].
pub fn connect_with<P: Protocol + Send + 'static>(
    addr: impl IntoAddress,
    options: ConnectOptions,
    protocol: P,
) -> Result<(Option<P>, CloseReason)> {
    options.validate()?;
    let mut driver = Blocking::new();
    client::connect(addr.into_address(), protocol, |addr, lent| {
        let id = driver.control().connect_with(&addr, options, lent)?;
        *lock(&driver.hub.watched) = Some(Watched { id, reason: None });
        driver.run()?;
        let watched = lock(&driver.hub.watched).take();
        let unfinished = || Error::new(ErrorKind::Stopped, Op::Connect).with_addr(&addr);
        watched.and_then(|watched| watched.reason).ok_or_else(unfinished)
    })
}

/// The blocking driver. [`run`](Blocking::run) starts its threads and waits for them.
pub struct Blocking {
    hub: Arc<Hub>,
    /// What waits for `run`.
    outside: Arc<Mutex<Starts>>,
    #[cfg(feature = "signals")]
    signals: Option<crate::signals::Waiting>,
}

impl Default for Blocking {
    fn default() -> Blocking {
        Blocking::new()
    }
}

impl Blocking {
    /// A driver with the limits of [`DriverLimits::blocking`]: at most 256 connections.
    pub fn new() -> Blocking {
        Blocking::build(DriverLimits::blocking())
    }

    /// A driver with its own limits. Begin with those of [`DriverLimits::blocking`]:
    /// [`DriverLimits::default`] allows 10,000 connections, and so as many threads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`].
    pub fn with_limits(limits: DriverLimits) -> Result<Blocking> {
        limits.validate()?;
        Ok(Blocking::build(limits))
    }

    fn build(limits: DriverLimits) -> Blocking {
        let clock = Clock::system(Readings { monotonic: system::now, wall: SystemTime::now });
        let hub = Arc::new(Hub::new(clock, limits, perform));
        Blocking {
            hub,
            outside: Arc::default(),
            #[cfg(feature = "signals")]
            signals: None,
        }
    }

    /// Whether accepted connections are served one after another, on the thread that accepts them,
    /// as Python's `TCPServer` does \[off\]. Outgoing connections still have threads of their own.
    pub fn serial(&mut self, serial: bool) {
        self.hub.serial.store(serial, Ordering::Relaxed);
    }

    /// The stack of each thread, in bytes \[that of the standard library: 2 MiB\]. Much less is
    /// enough where no callback needs more. Threads that run already keep their stack.
    pub fn stack_size(&mut self, bytes: usize) {
        self.hub.stack_size.store(bytes, Ordering::Relaxed);
    }

    /// Listens on `addr`, as [`Control::listen`] does. Connections are accepted while
    /// [`run`](Blocking::run) runs.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on; nothing is left open. [`ErrorKind::Stopped`] once the
    /// driver has been shut down.
    pub fn listen<P: Protocol + Send + 'static>(
        &mut self,
        addr: impl IntoAddress,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        self.control().listen(addr, factory)
    }

    /// Listens with options.
    ///
    /// # Errors
    ///
    /// As [`listen`](Blocking::listen), and
    /// [`ErrorKind::InvalidLimits`].
    pub fn listen_with<P: Protocol + Send + 'static>(
        &mut self,
        addr: impl IntoAddress,
        options: ListenOptions,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        self.control().listen_with(addr, options, factory)
    }

    /// The real addresses of a listener; none once it has stopped.
    pub fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        self.hub.listeners.addresses(listener)
    }

    /// Binds a datagram socket, as [`Control::bind`] does, with a thread of its own once
    /// [`run`](Blocking::run) runs; and a second one for timers and what others ask.
    ///
    /// # Errors
    ///
    /// As [`Control::bind`].
    pub fn bind(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl DatagramProtocol + Send + 'static,
    ) -> Result<ConnId> {
        self.control().bind(addr, protocol)
    }

    /// Binds with options.
    ///
    /// # Errors
    ///
    /// As [`Control::bind_with`].
    pub fn bind_with(
        &mut self,
        addr: impl IntoAddress,
        options: DatagramOptions,
        protocol: impl DatagramProtocol + Send + 'static,
    ) -> Result<ConnId> {
        self.control().bind_with(addr, options, protocol)
    }

    /// The real address of a datagram socket; None once it is closed.
    pub fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        self.hub.listeners.bound_addr(id)
    }

    /// Connects to `addr`, as [`Control::connect`] does, on a thread of its own once
    /// [`run`](Blocking::run) runs.
    pub fn connect(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.control().connect(addr, protocol)
    }

    /// The driver outside of `run`, for connects with limits, timers, counters and shutdown.
    /// Requests take effect when [`run`](Blocking::run) is called; timers count from now.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lariat::blocking::Blocking;
    ///
    /// let mut driver = Blocking::new();
    /// driver.control().set_timer(Duration::from_millis(5), |control| control.shutdown());
    /// driver.keep_running(true);
    /// driver.run()?;
    /// # Ok::<(), lariat::Error>(())
    /// ```
    pub fn control(&mut self) -> Control<'_> {
        let (hub, outside) = (Arc::clone(&self.hub), Arc::clone(&self.outside));
        let mut shared = hub.shared(hub.clock.exact());
        shared.stopping = hub.is_stopping();
        Control::outside(shared, move |shared| {
            let new = effects::collect(&mut Author { hub: &hub, shared, cell: None }, &[]);
            hub.count(|metrics| *metrics += &shared.metrics);
            let mut outside = lock(&outside);
            outside.append(new);
            let stopped = outside.take_stopped();
            drop(outside);
            drop_each(stopped);
        })
    }

    /// Runs until [shutdown](Handle::shutdown), or until no listener, no connection and no
    /// [timer](crate::Control::set_timer) is left.
    ///
    /// # Errors
    ///
    /// A thread for a listener could not be started.
    pub fn run(&mut self) -> Result<Report> {
        let result = self.run_threads();
        // Also where it has failed: nobody is left whom a signal would stop.
        #[cfg(feature = "signals")]
        if self.handle().is_ended() {
            self.signals = None;
        }
        result
    }

    fn run_threads(&mut self) -> Result<Report> {
        let hub = &self.hub;
        self.warn_of_threads();
        let mut runner = Runner::new(hub);
        if hub.is_stopping() {
            hub.signal_all(Signal::Stop);
        }
        // All have been entered before the first of them runs: their number decides which are too
        // many.
        let Starts { jobs, acceptors, .. } = mem::take(&mut *lock(&self.outside));
        for job in jobs {
            hub.begin(job);
        }
        let mut acceptors = acceptors.into_iter();
        while let Some(acceptor) = acceptors.next() {
            if let Err(error) = acceptor.start(&self.hub) {
                drop_each(acceptors);
                self.hub.shutdown();
                runner.drain();
                return Err(error);
            }
        }
        Ok(runner.run())
    }

    fn warn_of_threads(&self) {
        let wanted = self.hub.limits.connections_max;
        let most = lock(&self.hub.state).pool.newcomers_limit();
        if wanted > most {
            log::warn!(
                target: "lariat::blocking",
                "{wanted} connections may be open, but the system bears threads for {most}",
            );
        }
    }

    /// A remote for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::new(HubRemote(Arc::clone(&self.hub))))
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.hub.metrics()
    }

    /// What looks up the names of connects from now on \[the system\].
    pub fn set_resolver(&mut self, resolver: impl Resolver) {
        *lock(&self.hub.resolver) = Arc::new(resolver);
    }

    /// Whether a driver with nothing to do goes on running and waits for handles \[off\].
    pub fn keep_running(&mut self, keep: bool) {
        lock(&self.hub.state).keep_running = keep;
    }

    /// Lets SIGINT and SIGTERM shut the driver down. A second signal ends the process at once, with
    /// the status 130 or 143. When no driver is left to shut down, the next signal ends the process
    /// too. A driver that starts later gets a first signal of its own.
    ///
    /// # Errors
    ///
    /// The system did not let the program handle the signals, or gave no thread to wait for them;
    /// [`ErrorKind::Unsupported`] without the feature `signals`.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        #[cfg(not(feature = "signals"))]
        return crate::driver::without_signals();
        #[cfg(feature = "signals")]
        {
            let failed = |error| Error::from_io(Op::Signals, error);
            let handle = self.handle();
            let waiting = crate::signals::Waiting::start(move || handle.shutdown());
            self.signals = Some(waiting.map_err(failed)?);
            Ok(())
        }
    }
}

/// Runs a thread's job for a connection.
fn perform(hub: &Arc<Hub>, desk: &mut Desk, job: Job) {
    match &job {
        Job::Serve(cell) => reader::serve(hub, desk, cell),
        Job::Connect(cell, start) => reader::connect(hub, desk, cell, start),
        Job::Attempt(cell, dial, most) => attempts::attempt(hub, cell, dial, *most),
        Job::Accompany(cell) => companion::accompany(hub, desk, cell),
        Job::Receive(outlet) => datagrams::receive(hub, desk, outlet),
        Job::AccompanyOutlet(outlet) => datagrams::accompany(hub, desk, outlet),
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // Handles keep the hub alive, which must not keep its ports.
        self.hub.stop_all_listening();
        self.hub.end();
        let Starts { jobs, acceptors, .. } = mem::take(&mut *lock(&self.outside));
        drop_each(acceptors);
        for job in jobs {
            match &job {
                Job::Serve(cell) | Job::Connect(cell, _) | Job::Accompany(cell) => {
                    drop_guarded(effects::discard(&self.hub, cell));
                }
                Job::Attempt(..) => {}
                Job::Receive(outlet) | Job::AccompanyOutlet(outlet) => {
                    drop_guarded(bind::discard(&self.hub, outlet));
                }
            }
        }
        for episode in [&self.hub.late_writes, &self.hub.no_thread] {
            episode.close();
        }
    }
}

impl Sealed for Blocking {}

impl Driver for Blocking {
    fn control(&mut self) -> Control<'_> {
        Blocking::control(self)
    }

    fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        Blocking::addresses(self, listener)
    }

    fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        Blocking::bound_addr(self, id)
    }

    fn run(&mut self) -> Result<Report> {
        Blocking::run(self)
    }

    fn handle(&self) -> Handle {
        Blocking::handle(self)
    }

    fn metrics(&self) -> Metrics {
        Blocking::metrics(self)
    }

    fn keep_running(&mut self, keep: bool) {
        Blocking::keep_running(self, keep);
    }

    fn set_resolver(&mut self, resolver: Box<dyn Resolver>) {
        *lock(&self.hub.resolver) = Arc::from(resolver);
    }

    fn stop_on_signals(&mut self) -> Result<()> {
        Blocking::stop_on_signals(self)
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}
