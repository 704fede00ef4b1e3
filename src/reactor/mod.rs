//! The asynchronous driver: one thread, readiness, very many connections, on mio.
//!
//! [`serve`] is a whole server in one call; [`Reactor`] is for programs that need more.
//!
//! # More than one core
//!
//! A reactor is one thread. A server that needs more runs one per core. Each has a listener of its
//! own at the same address, by [`ListenOptions::reuse_port`], and the system spreads the clients
//! over them. Connections never move from one to another. What they share, the program shares: by
//! an `Arc`, or by notes through a [`Handle`]. The counters add up:
//!
//! ```
//! use std::net::SocketAddr;
//! use std::sync::mpsc;
//! use std::thread;
//! use std::time::Duration;
//!
//! use lariat::reactor::Reactor;
//! use lariat::{Context, Input, ListenOptions, Metrics, Outcome, Protocol};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         cx.write(input);
//!         input.consume(input.len());
//!         Ok(())
//!     }
//! }
//!
//! /// One of the reactors, and where it listens.
//! fn listen(addr: SocketAddr) -> lariat::Result<(Reactor, SocketAddr)> {
//!     let mut reactor = Reactor::new()?;
//!     let mut options = ListenOptions::default();
//!     options.reuse_port = true;
//!     let listener = reactor.listen_with(addr, options, |_| Some(Echo))?;
//!     let bound = reactor.addresses(listener)[0].socket_addr().unwrap();
//!     Ok((reactor, bound))
//! }
//!
//! // The system chooses a port for the first one, and the second one listens there as well.
//! let (mut first, addr) = listen(([127, 0, 0, 1], 0).into())?;
//! let (tell, told) = mpsc::channel();
//! let thread = thread::spawn(move || -> lariat::Result<Metrics> {
//!     // A reactor stays on the thread that made it. A handle reaches it from any other.
//!     let (mut second, _) = listen(addr)?;
//!     tell.send(second.handle()).unwrap();
//!     second.run()?;
//!     Ok(second.metrics())
//! });
//! let second = told.recv().unwrap();
//! // They serve for a moment.
//! first.control().set_timer(Duration::from_millis(10), move |control| {
//!     control.shutdown();
//!     second.shutdown();
//! });
//! first.run()?;
//! let mut sum = first.metrics();
//! sum += &thread.join().unwrap()?;
//! assert_eq!(sum.open, 0);
//! # Ok::<(), lariat::Error>(())
//! ```

mod listening;
mod mio_system;
#[cfg(feature = "fd")]
mod stream;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::address::IntoAddress;
use crate::client;
use crate::clock::{Clock, Readings};
use crate::datagram::{DatagramOptions, DatagramProtocol};
use crate::driver::sealed::Sealed;
use crate::driver::{Driver, Report};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::event_loop::{EventLoop, Factory, read_buffer};
use crate::handle::{Handle, Mailbox};
use crate::id::{ConnId, ListenerId};
use crate::jobs::Threads;
use crate::limits::DriverLimits;
use crate::metrics::Metrics;
use crate::options::{ConnectOptions, ListenOptions};
use crate::protocol::{Control, Incoming, Protocol, Watched, Workplace};
use crate::reason::CloseReason;
use crate::refused::Refused;
use crate::resolver::Resolver;

use mio_system::MioSystem;

/// Serves `factory`'s protocols on `addr` until Ctrl-C or SIGTERM (feature `signals`). The first
/// signal drains: the listener closes and [`stopping`](Protocol::stopping) runs on every
/// connection. A second signal ends the process at once.
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
///     lariat::reactor::serve("127.0.0.1:7000", || Echo)
/// }
/// ```
///
/// # Errors
///
/// The address cannot be listened on, or waiting for events failed.
pub fn serve<P: Protocol + 'static>(
    addr: impl IntoAddress,
    mut factory: impl FnMut() -> P + 'static,
) -> Result<()> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, move |_| Some(factory()))?;
    #[cfg(feature = "signals")]
    reactor.stop_on_signals()?;
    for addr in reactor.addresses(listener) {
        log::info!(target: "lariat::reactor", "listening on {addr}");
    }
    let report = reactor.run()?;
    log::info!(target: "lariat::reactor", "stopped: {report}");
    Ok(())
}

/// Connects to `addr`, runs `protocol` to its end and gives it back: a whole client in one call.
///
/// A failed connect is `Ok` too, with its reason. The protocol is None after a panic, or when
/// another has [replaced](crate::Context::replace) it. Of the addresses of a name, the first that
/// answers is used. The call also waits for the end of everything that the protocol began, such as
/// other connections.
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
/// let (asking, reason) = lariat::reactor::connect(addr, Asking::default())?;
/// assert_eq!(reason.kind(), CloseKind::Finished);
/// assert_eq!(asking.unwrap().answer, b"hello");
/// # server.join().unwrap();
/// # Ok::<(), lariat::Error>(())
/// ```
///
/// # Errors
///
/// The text is no address, or the driver could not be started or failed. A name without an address
/// is `Ok`, with [`Connect(Name)`](crate::ConnectFailure::Name).
pub fn connect<P: Protocol + 'static>(
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
pub fn connect_with<P: Protocol + 'static>(
    addr: impl IntoAddress,
    options: ConnectOptions,
    protocol: P,
) -> Result<(Option<P>, CloseReason)> {
    options.validate()?;
    let mut reactor = Reactor::new()?;
    client::connect(addr.into_address(), protocol, |addr, lent| {
        let id = reactor.control().connect_local_with(&addr, options, lent)?;
        reactor.inner.shared.watched = Some(Watched { id, reason: None });
        reactor.run()?;
        let watched = reactor.inner.shared.watched.take();
        let unfinished = || Error::new(ErrorKind::Stopped, Op::Connect).with_addr(&addr);
        watched.and_then(|watched| watched.reason).ok_or_else(unfinished)
    })
}

/// The readiness driver. All callbacks run on the thread that calls [`run`](Reactor::run) or
/// [`turn`](Reactor::turn).
///
/// Dropping it closes all sockets at once, without `closed`.
pub struct Reactor {
    inner: EventLoop<MioSystem>,
    buffer: Box<[u8]>,
}

impl Reactor {
    /// A reactor with the default [`DriverLimits`].
    ///
    /// # Errors
    ///
    /// The system gave it no poll or no descriptor.
    pub fn new() -> Result<Reactor> {
        Reactor::with_limits(DriverLimits::default())
    }

    /// A reactor with its own limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`], or the system gave it no poll or no descriptor.
    pub fn with_limits(limits: DriverLimits) -> Result<Reactor> {
        limits.validate()?;
        let started = |error| Error::from_io(Op::Start, error);
        let system = MioSystem::new(limits.events_max, limits.spin).map_err(started)?;
        let waker = system.waker().map_err(started)?;
        let wake = Box::new(move || {
            if let Err(error) = waker.wake() {
                log::warn!(target: "lariat::reactor", "cannot wake the loop: {error}");
            }
        });
        let mailbox = Arc::new(Mailbox::new(limits.posts_max, wake));
        let clock = Clock::system(Readings { monotonic: Instant::now, wall: SystemTime::now });
        let threads = Arc::new(Threads::new(&limits));
        let workplace = Workplace::on(threads, mailbox.clone(), &limits);
        let inner = EventLoop::new(system, clock, seed(), limits, mailbox, workplace);
        Ok(Reactor { inner, buffer: read_buffer() })
    }

    /// Listens on `addr`: on all addresses that it stands for; port 0 picks a free port. `factory`
    /// makes a protocol for each incoming connection. If it returns None or panics, the connection
    /// is refused.
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// # }
    /// let mut reactor = lariat::reactor::Reactor::new()?;
    /// let listener = reactor.listen("127.0.0.1:0", |incoming| {
    ///     incoming.peer().ip().is_some_and(|ip| ip.is_loopback()).then(|| Echo)
    /// })?;
    /// println!("listening on {}", reactor.addresses(listener)[0]);
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The address cannot be listened on; nothing is left open. [`ErrorKind::Stopped`] once the
    /// reactor has been shut down.
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
    /// As [`listen`](Reactor::listen), and
    /// [`ErrorKind::InvalidLimits`].
    pub fn listen_with<P: Protocol + 'static>(
        &mut self,
        addr: impl IntoAddress,
        options: ListenOptions,
        factory: impl FnMut(&Incoming) -> Option<P> + 'static,
    ) -> Result<ListenerId> {
        self.inner.listen(&addr.into_address(), options, boxed(factory))
    }

    /// Serves a socket that is listening already, for instance one inherited from a supervisor; see
    /// [`Control::adopt_listener`].
    ///
    /// # Errors
    ///
    /// As [`Control::adopt_listener`], or the system cannot watch the socket.
    pub fn adopt_listener<P: Protocol + 'static>(
        &mut self,
        listener: impl Into<OwnedFd>,
        options: ListenOptions,
        factory: impl FnMut(&Incoming) -> Option<P> + 'static,
    ) -> Result<ListenerId, Refused<OwnedFd>> {
        self.inner.adopt_listener(listener.into(), options, boxed(factory))
    }

    /// The real addresses of a listener; none once it has stopped.
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

    /// Connects to `addr`. The id is valid at once: writes to it queue until it opens. After a
    /// failure `protocol` gets [`closed`](Protocol::closed) alone. Names and several addresses are
    /// tried as [`Control::connect`](crate::Control::connect) says. A protocol that is not `Send`
    /// connects by [`control().connect_local`](crate::Control::connect_local).
    pub fn connect(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.control().connect(addr, protocol)
    }

    /// Runs until [shutdown](Handle::shutdown), or until no listener, no connection and no
    /// [timer](Control::set_timer) is left.
    ///
    /// # Errors
    ///
    /// Waiting for events failed.
    pub fn run(&mut self) -> Result<Report> {
        let result = self.inner.run(&mut self.buffer);
        #[cfg(feature = "signals")]
        self.inner.system.end_watch();
        result.map_err(|error| Error::from_io(Op::Poll, error))
    }

    /// Runs one turn: waits for events, at most for `timeout` (None: until something happens), and
    /// handles them. [`next_deadline`](Reactor::next_deadline) and [`AsFd`] complete what another
    /// event loop needs to drive the reactor.
    ///
    /// # Errors
    ///
    /// Waiting for events failed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        let timeout = if self.is_over() { Some(Duration::ZERO) } else { timeout };
        let result = self.inner.turn(timeout, &mut self.buffer);
        #[cfg(feature = "signals")]
        self.inner.system.end_watch();
        result.map_err(|error| Error::from_io(Op::Poll, error))
    }

    /// Whether [`run`](Reactor::run) would return at once.
    pub fn is_over(&self) -> bool {
        self.inner.is_over()
    }

    /// When the next turn is due, even if the descriptor has not become readable by then. None:
    /// never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    /// A remote for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(self.inner.mailbox.clone())
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// The driver outside of `run`, mainly for its timers. Requests take effect in the next turn.
    pub fn control(&mut self) -> Control<'_> {
        Control::new(&mut self.inner.shared)
    }

    /// What looks up the names of connects from now on \[the system\].
    pub fn set_resolver(&mut self, resolver: impl Resolver) {
        self.inner.shared.workplace.resolver = Arc::new(resolver);
    }

    /// Whether a reactor with nothing to do goes on running and waits for handles \[off\].
    pub fn keep_running(&mut self, keep: bool) {
        self.inner.keep_running = keep;
    }

    /// Lets SIGINT and SIGTERM shut the reactor down. A second signal ends the process at once,
    /// with the status 130 or 143. When no driver is left to shut down, the next signal ends the
    /// process too. A driver that starts later gets a first signal of its own.
    ///
    /// # Errors
    ///
    /// The system did not let the program handle the signals; [`ErrorKind::Unsupported`] without
    /// the feature `signals`.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        #[cfg(not(feature = "signals"))]
        return crate::driver::without_signals();
        #[cfg(feature = "signals")]
        {
            let failed = |error| Error::from_io(Op::Signals, error);
            self.inner.system.watch_signals(self.handle()).map_err(failed)
        }
    }
}

impl Sealed for Reactor {}

impl Driver for Reactor {
    fn control(&mut self) -> Control<'_> {
        Reactor::control(self)
    }

    fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        Reactor::addresses(self, listener)
    }

    fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        Reactor::bound_addr(self, id)
    }

    fn run(&mut self) -> Result<Report> {
        Reactor::run(self)
    }

    fn handle(&self) -> Handle {
        Reactor::handle(self)
    }

    fn metrics(&self) -> Metrics {
        Reactor::metrics(self)
    }

    fn keep_running(&mut self, keep: bool) {
        Reactor::keep_running(self, keep);
    }

    fn set_resolver(&mut self, resolver: Box<dyn Resolver>) {
        self.inner.shared.workplace.resolver = Arc::from(resolver);
    }

    fn stop_on_signals(&mut self) -> Result<()> {
        Reactor::stop_on_signals(self)
    }
}

/// The descriptor that is readable while [`turn`](Reactor::turn) has events to handle, for a loop
/// that drives the reactor beside its own work. Such a loop waits for it, at most until
/// [`next_deadline`](Reactor::next_deadline), and then calls `turn`:
///
/// ```
/// use std::time::{Duration, Instant};
/// use lariat::reactor::Reactor;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// let mut reactor = Reactor::new()?;
/// reactor.control().set_timer(Duration::from_millis(5), |control| control.shutdown());
/// while !reactor.is_over() {
///     let wait = reactor.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
///     let wait = wait.map(|wait| Timespec::try_from(wait).unwrap());
///     // Descriptors of the program's own stand beside it.
///     let mut watched = [PollFd::new(&reactor, PollFlags::IN)];
///     poll(&mut watched, wait.as_ref()).unwrap();
///     reactor.turn(Some(Duration::ZERO))?;
/// }
/// # Ok::<(), lariat::Error>(())
/// ```
///
/// A loop that is told of changes only (edge-triggered `epoll`) calls `turn` until
/// `next_deadline` is in the future.
impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.system.as_fd()
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

fn boxed<P: Protocol + 'static>(
    mut factory: impl FnMut(&Incoming) -> Option<P> + 'static,
) -> Factory {
    Box::new(move |incoming| Some(Box::new(factory(incoming)?) as Box<dyn Protocol>))
}

/// A seed that differs from run to run: std's hasher is the only source of randomness in std.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::read_back;

    /// With the timer of an idle deadline, the figure is 200 bytes in all.
    #[test]
    fn a_connection_takes_at_most_136_bytes_of_the_table() {
        let size = EventLoop::<MioSystem>::ENTRY_SIZE;
        assert!(size <= 136, "{size} bytes: what is rare belongs into the rare part");
    }

    #[test]
    fn a_turn_is_slow_that_takes_longer_than_it_may() {
        let limit = Duration::from_millis(100);
        let limits = DriverLimits { slow_callback: Some(limit), ..DriverLimits::default() };
        let mut reactor = Reactor::with_limits(limits).unwrap();
        let begun = Instant::now();
        for (took, slow) in [(limit / 2, 0), (limit, 0), (limit + Duration::from_nanos(1), 1)] {
            reactor.inner.judge_turn(begun, begun + took);
            let metrics = reactor.metrics();
            assert_eq!((metrics.slow_turns, metrics.longest_turn), (slow, took));
        }
    }

    #[test]
    fn every_option_of_a_socket_is_read_back() {
        read_back::every_option_is_read_back(|| Reactor::new().unwrap());
    }

    #[test]
    fn what_is_adopted_is_given_its_options() {
        read_back::what_is_adopted_is_given_its_options(|| Reactor::new().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_option_that_the_system_rejects_is_named() {
        read_back::what_the_system_rejects_is_named(|| Reactor::new().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_is_bound_to_its_device() {
        read_back::a_socket_is_bound_to_its_device(|| Reactor::new().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connect_leaves_from_the_address_it_is_bound_to() {
        read_back::a_connect_leaves_from_the_address_it_is_bound_to(|| Reactor::new().unwrap());
    }
}
