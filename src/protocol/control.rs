//! The driver, as callbacks, closures and code outside of `run` reach it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::listen::boxed;
use super::{Boxed, Effect, Incoming, Peer, Protocol, Shared, TimerId};
use crate::address::IntoAddress;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::guard::GuardedBytes;
use crate::id::{ConnId, ListenerId};
use crate::jobs::{JobError, Lane};
use crate::metrics::Metrics;
use crate::options::{ConnectOptions, ListenOptions};
use crate::refused::Refused;

/// The driver: connects, listeners, timers of its own, counters and shutdown.
///
/// [`Context::driver`](crate::Context::driver) lends it to callbacks. Closures on the driver's own
/// thread get it as their argument: those of [`Handle::call`] and
/// [`set_timer`](Control::set_timer). Code outside of `run` gets it from
/// [`Driver::control`](crate::Driver::control), which every driver also has as a method of its own.
///
/// Requests take effect when the callback or closure has returned; sockets are opened and closed at
/// once. Nothing here blocks, except `listen` and `bind` with a name before the driver runs. On the
/// blocking driver closures run one at a time, on the thread that called
/// [`run`](crate::blocking::Blocking::run).
///
/// ```
/// use std::time::Duration;
/// use lariat::{Control, sim::Sim};
///
/// fn tick(control: &mut Control<'_>, left: u32) {
///     println!("{} connections are open", control.metrics().open);
///     if left > 0 {
///         control.set_timer(Duration::from_secs(1), move |control| tick(control, left - 1));
///     }
/// }
///
/// let mut sim = Sim::new(1);
/// tick(&mut sim.control(), 3);
/// sim.run()?;
/// assert_eq!(sim.now(), Duration::from_secs(3));
/// # Ok::<(), lariat::Error>(())
/// ```
///
/// [`Handle::call`]: crate::Handle::call
pub struct Control<'a> {
    shared: Lent<'a>,
    /// The callback that asks; None for a closure of the driver and for code outside of `run`.
    asking: Option<Asking<'a>>,
}

/// The callback that asks something of the driver.
struct Asking<'a> {
    conn: &'a mut Connection,
    /// The input being shown to it.
    shown: &'a [u8],
    /// Whether its writes answer input.
    answering: bool,
}

/// What a `Control` stands on.
enum Lent<'a> {
    To(&'a mut Shared),
    /// Made for this `Control` alone, and handed back when it is dropped.
    Made(Made),
}

/// It borrows nothing. Otherwise a temporary `Control` would keep its driver borrowed until the end
/// of the statement, because its drop might use the borrow.
struct Made {
    shared: Box<Shared>,
    take_back: Box<dyn FnMut(&mut Shared)>,
}

impl Drop for Made {
    fn drop(&mut self) {
        (self.take_back)(&mut self.shared);
    }
}

impl Deref for Lent<'_> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        match self {
            Lent::To(shared) => shared,
            Lent::Made(made) => &made.shared,
        }
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Shared {
        match self {
            Lent::To(shared) => shared,
            Lent::Made(made) => &mut made.shared,
        }
    }
}

impl<'a> Control<'a> {
    pub(crate) fn new(shared: &'a mut Shared) -> Control<'a> {
        Control { shared: Lent::To(shared), asking: None }
    }

    /// The driver for code outside of it, where no thread can keep the driver's state. `take_back`
    /// gets the requests when the `Control` is dropped.
    pub(crate) fn outside(
        shared: Shared,
        take_back: impl FnMut(&mut Shared) + 'static,
    ) -> Control<'a> {
        let made = Made { shared: Box::new(shared), take_back: Box::new(take_back) };
        Control { shared: Lent::Made(made), asking: None }
    }

    /// The driver for a callback.
    pub(super) fn of_callback(
        shared: &'a mut Shared,
        conn: &'a mut Connection,
        shown: &'a [u8],
        answering: bool,
    ) -> Control<'a> {
        Control { shared: Lent::To(shared), asking: Some(Asking { conn, shown, answering }) }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn shared_mut(&mut self) -> &mut Shared {
        &mut self.shared
    }

    // ---- time and counters -------------------------------------------------------------------

    /// The time right now; virtual in the simulator.
    pub fn now(&self) -> Instant {
        self.shared.clock.instant()
    }

    /// The date and time right now; virtual in the simulator. It may jump.
    pub fn wall_clock(&self) -> SystemTime {
        self.shared.clock.wall()
    }

    /// A pseudo-random number from the driver; the same for the same seed in the simulator. Not for
    /// secrets.
    pub fn random(&mut self) -> u64 {
        self.shared.random.next()
    }

    /// The driver's counters up to now. On blocking threads, what each thread is doing at this
    /// moment is missing, the running callback included.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    /// Whether the driver is being shut down.
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping
    }

    // ---- connections -------------------------------------------------------------------------

    /// A connection of the driver. For writes of a callback the rules of
    /// [`Context::peer`](crate::Context::peer) hold.
    pub fn peer(&mut self, id: ConnId) -> Peer<'_> {
        let caused = self.asking.as_ref().is_some_and(|asking| asking.answering);
        let shown = self.asking.as_ref().map_or(&[][..], |asking| asking.shown);
        let own = self.asking.as_mut().filter(|asking| asking.conn.id() == id);
        let own = own.map(|asking| &mut *asking.conn);
        Peer { id, caused, shared: &mut self.shared, shown, own }
    }

    /// Queues `bytes` for each of `ids`, without copying and without ever holding the writer. A
    /// receiver that then has more than [`Limits::output_max`](crate::Limits::output_max) \[8 MiB\]
    /// unsent ends with [`OutputFull`](crate::CloseKind::OutputFull).
    pub fn push_all(&mut self, ids: &[ConnId], bytes: impl Into<Bytes>) {
        let bytes = GuardedBytes::new(bytes);
        for id in ids {
            self.peer(*id).push_guarded(bytes.clone());
        }
    }

    /// Connects to `addr`. The id is valid at once: writes queue until the connection opens, and a
    /// close cancels the connect. A failed connect runs `closed` of `protocol`, in a later turn.
    ///
    /// A name is looked up on another thread, by the driver's [`Resolver`](crate::Resolver).
    /// Several addresses are tried one after the other, 250 ms apart, or as soon as one has failed;
    /// the first that answers is used, and the others are given up (RFC 8305). Those of a name take
    /// turns by their family, IPv6 first; those of a list come in its order. On blocking threads at
    /// most three are under way at a time, each on a thread that only its own end sets free: where
    /// three addresses never answer, those behind them are not tried.
    /// [`Limits::connect`](crate::Limits::connect) \[30 s\] is for all of this together. When all
    /// have failed, the reason is that of the address that came furthest (a refusal, then a
    /// time-out, then the first), with [`AddressErrors`](crate::AddressErrors) as its error.
    ///
    /// A driver that is stopping cancels a connect at once. If the `closed` of that connect
    /// connects again, the new protocol is dropped without a callback: a client that never gives up
    /// would otherwise keep the driver from stopping.
    pub fn connect(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.shared.connect(addr.into_address(), None, Boxed::Anywhere(Box::new(protocol)))
    }

    /// Connects like [`connect`](Control::connect), with options.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits).
    pub fn connect_with(
        &mut self,
        addr: impl IntoAddress,
        options: ConnectOptions,
        protocol: impl Protocol + Send + 'static,
    ) -> Result<ConnId> {
        options.validate()?;
        let protocol = Boxed::Anywhere(Box::new(protocol));
        Ok(self.shared.connect(addr.into_address(), Some(options), protocol))
    }

    /// Connects like [`connect`](Control::connect); `protocol` need not be `Send`. On the blocking
    /// driver, where each connection has a thread of its own, the connect fails with
    /// [`ConnectFailure::Unsupported`](crate::ConnectFailure::Unsupported).
    pub fn connect_local(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + 'static,
    ) -> ConnId {
        self.shared.connect(addr.into_address(), None, Boxed::Here(Box::new(protocol)))
    }

    /// Connects like [`connect_local`](Control::connect_local), with options.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits).
    pub fn connect_local_with(
        &mut self,
        addr: impl IntoAddress,
        options: ConnectOptions,
        protocol: impl Protocol + 'static,
    ) -> Result<ConnId> {
        options.validate()?;
        let protocol = Boxed::Here(Box::new(protocol));
        Ok(self.shared.connect(addr.into_address(), Some(options), protocol))
    }

    /// Takes over a stream that other code or another process has connected: a `TcpStream`, a
    /// `UnixStream`, one of a socketpair, or the `OwnedFd` of any stream socket. A family without a
    /// variant of its own, such as vsock, has [`Endpoint::Other`] as its addresses. From then on it
    /// is like an accepted one. `opened` runs after the callback has returned; bytes that arrived
    /// before are read.
    ///
    /// [`bind`](ConnectOptions::bind) is ignored, the other options are set. The stream need not be
    /// nonblocking.
    ///
    /// What fails only when the driver takes the stream over ends it by `closed`:
    /// [`Connect(Limit)`](crate::ConnectFailure::Limit) when there are too many connections,
    /// [`Shutdown`](crate::CloseKind::Shutdown) when the driver stops.
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use lariat::{ConnectOptions, Context, Input, Outcome, Protocol, reactor::Reactor};
    ///
    /// struct Greeter;
    /// impl Protocol for Greeter {
    ///     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
    ///         cx.write(b"hello");
    ///         cx.close();
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// }
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    /// let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    /// let (stream, _) = listener.accept().unwrap();
    /// let mut reactor = Reactor::new()?;
    /// reactor.control().adopt_stream(stream, ConnectOptions::default(), Greeter)?;
    /// # drop(client);
    /// reactor.run()?;
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSocket`](crate::ErrorKind::InvalidSocket) for a stream that is not
    /// connected, or has been reset, and for what is no stream;
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits) for options that cannot work;
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) once the driver is being shut down;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in the simulator.
    /// [`Refused::into_payload`] gives the stream back; `protocol` is dropped.
    pub fn adopt_stream(
        &mut self,
        stream: impl Into<OwnedFd>,
        options: ConnectOptions,
        protocol: impl Protocol + Send + 'static,
    ) -> Result<ConnId, Refused<OwnedFd>> {
        self.shared.adopt_stream(stream.into(), options, Boxed::Anywhere(Box::new(protocol)))
    }

    /// Takes a stream over like [`adopt_stream`](Control::adopt_stream); `protocol` need not be
    /// `Send`. On the blocking driver it ends as in [`connect_local`](Control::connect_local).
    ///
    /// # Errors
    ///
    /// As [`adopt_stream`](Control::adopt_stream).
    pub fn adopt_stream_local(
        &mut self,
        stream: impl Into<OwnedFd>,
        options: ConnectOptions,
        protocol: impl Protocol + 'static,
    ) -> Result<ConnId, Refused<OwnedFd>> {
        self.shared.adopt_stream(stream.into(), options, Boxed::Here(Box::new(protocol)))
    }

    // ---- listeners ---------------------------------------------------------------------------

    /// Listens on `addr`. The socket is open when this returns: [`addresses`](Control::addresses)
    /// has the port that 0 stood for. Connections are accepted from the next turn on.
    ///
    /// Before the driver runs, the system looks a name up, and the calling thread waits for it.
    /// A callback or a closure of a running driver would keep everybody waiting, so a name is an
    /// error there: [`Handle::listen`](crate::Handle::listen) looks it up on another thread.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the driver is being shut down; nothing is left open.
    /// [`ErrorKind::Unsupported`] for a name while the driver runs.
    pub fn listen<P: Protocol + Send + 'static>(
        &mut self,
        addr: impl IntoAddress,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        self.listen_with(addr, ListenOptions::default(), factory)
    }

    /// Listens with options.
    ///
    /// # Errors
    ///
    /// As [`listen`](Control::listen), and
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits).
    pub fn listen_with<P: Protocol + Send + 'static>(
        &mut self,
        addr: impl IntoAddress,
        options: ListenOptions,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        self.shared.listen(&addr.into_address(), options, boxed(factory))
    }

    /// Serves a socket that is listening already, for instance one inherited from a supervisor: a
    /// `TcpListener`, a `UnixListener` or the `OwnedFd` of one. Clients that wait in its queue are
    /// accepted too, and all accepted connections get the options.
    /// [`backlog`](ListenOptions::backlog), [`reuse_port`](ListenOptions::reuse_port),
    /// [`v6_only`](ListenOptions::v6_only) and [`mode`](ListenOptions::mode) are ignored: the
    /// socket has them already. The file of a Unix socket stays when the listener is stopped.
    ///
    /// **Other owners.** A clone of the socket, another driver or another process may have it as
    /// well. Each client comes to one of them. When the listener is stopped, the socket goes on
    /// listening for the others, and the clients in its queue are left to them; a client that was
    /// accepted before is served. O_NONBLOCK counts for all owners: every driver sets it and leaves
    /// it set, and no owner may clear it while a driver has the socket, whose accept would sleep.
    ///
    /// On the blocking driver an adopted listener costs two descriptors more.
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// # }
    /// use lariat::{ListenOptions, reactor::Reactor};
    ///
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// let addr = socket.local_addr().unwrap();
    /// let mut reactor = Reactor::new()?;
    /// let mut control = reactor.control();
    /// let listener = control.adopt_listener(socket, ListenOptions::default(), |_| Some(Echo))?;
    /// assert_eq!(control.addresses(listener), [addr]);
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSocket`](crate::ErrorKind::InvalidSocket) for a socket that is neither
    /// TCP nor Unix, or does not listen, where the system can tell (Linux and FreeBSD);
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits) for options that cannot work;
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) once the driver is being shut down;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in the simulator.
    /// [`Refused::into_payload`] gives the socket back.
    pub fn adopt_listener<P: Protocol + Send + 'static>(
        &mut self,
        listener: impl Into<OwnedFd>,
        options: ListenOptions,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId, Refused<OwnedFd>> {
        self.shared.adopt_listener(listener.into(), options, boxed(factory))
    }

    /// The real addresses of a listener; none once it has stopped.
    pub fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        self.shared.binder.listeners.addresses(listener)
    }

    /// Closes a listener at once: clients are refused from now on. Its connections stay. Its
    /// addresses are free for another listener, also in the same callback.
    ///
    /// An adopted socket goes on listening for its other owners: see
    /// [`adopt_listener`](Control::adopt_listener).
    pub fn stop_listening(&mut self, listener: ListenerId) {
        self.shared.stop_listening(listener);
    }

    // ---- timers ------------------------------------------------------------------------------

    /// Runs `code` on the driver's thread after `delay`, never early. The timer belongs to no
    /// connection. It keeps the driver running, but shutdown does not wait for it. Zero runs `code`
    /// in the next turn; a delay too long to count never does.
    ///
    /// On the blocking driver `code` runs on the thread that called
    /// [`run`](crate::blocking::Blocking::run), also when another thread has set the timer.
    pub fn set_timer(
        &mut self,
        delay: Duration,
        code: impl FnOnce(&mut Control<'_>) + Send + 'static,
    ) -> TimerId {
        self.shared.set_any_timer(delay, Box::new(code))
    }

    /// Runs `code` like [`set_timer`](Control::set_timer); `code` need not be `Send`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] on the blocking driver, where another thread would run it.
    pub fn set_timer_local(
        &mut self,
        delay: Duration,
        code: impl FnOnce(&mut Control<'_>) + 'static,
    ) -> Result<TimerId> {
        if self.shared.common.is_some() {
            let error = Error::new(ErrorKind::Unsupported, Op::Timer);
            return Err(error.with_detail("another thread would run the closure"));
        }
        Ok(self.shared.set_closure(delay, Box::new(code)))
    }

    /// Cancels a timer of [`set_timer`](Control::set_timer); false when it has run or was cancelled
    /// before.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.shared.cancel_closure(timer)
    }

    // ---- jobs --------------------------------------------------------------------------------

    /// Runs `job`, which may block or compute for long, on a thread of a small pool, then `then` on
    /// the driver's thread with what `job` has returned. The pool has
    /// [`DriverLimits::jobs`](crate::DriverLimits::jobs) \[4 threads, 1,024 jobs waiting, 30 s\].
    /// The driver runs until the result has come; shutdown does not wait for it.
    ///
    /// In the simulator `job` runs on the simulator's thread, a millisecond of virtual time later,
    /// and up to 20 ms more with [`Faults::delays`](crate::sim::Faults::delays).
    ///
    /// `then` gets a [`JobError`] when too many jobs wait, when the deadline has passed or when the
    /// job has panicked. See [`Context::offload`](crate::Context::offload) for a job of one
    /// connection.
    ///
    /// ```
    /// use lariat::{Control, reactor::Reactor};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let sum = || (1..=1_000_000u64).sum::<u64>();
    /// reactor.control().offload(sum, |control, sum| {
    ///     assert_eq!(sum, Ok(500_000_500_000));
    ///     control.shutdown();
    /// });
    /// reactor.run()?;
    /// # Ok::<(), lariat::Error>(())
    /// ```
    pub fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&mut Control<'_>, std::result::Result<T, JobError>) + Send + 'static,
    ) {
        self.shared.offload(Lane::Jobs, None, job, then);
    }

    // ---- the driver --------------------------------------------------------------------------

    /// Shuts the driver down, as [`Handle::shutdown`](crate::Handle::shutdown) does.
    pub fn shutdown(&mut self) {
        self.shared.effects.list.push(Effect::Stop);
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
