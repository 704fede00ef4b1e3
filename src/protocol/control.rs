//! What code that runs on a driver outside of any connection may do.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::listen::boxed;
use super::{Boxed, Effect, Incoming, Peer, Protocol, Shared, TimerOwner};
use crate::address::IntoAddress;
use crate::clock::nanos;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::guard::{drop_guarded, guarded};
use crate::id::{ConnId, ListenerId};
use crate::metrics::Metrics;
use crate::options::{ConnectOptions, ListenOptions};
use crate::timer::TimerKey;

/// A closure that runs on the driver's thread.
pub(crate) type Closure = Box<dyn FnOnce(&mut Control<'_>)>;

/// The driver, for connects, listeners, timers of its own, counters and shutdown.
///
/// It is lent to callbacks by [`Context::driver`](crate::Context::driver); to closures that run on
/// the driver's own thread, those of [`Handle::call`] and of [`set_timer`](Control::set_timer); and
/// to code outside of `run` by [`Reactor::control`](crate::reactor::Reactor::control) and
/// [`Sim::control`](crate::sim::Sim::control).
///
/// What is asked for takes effect when the callback or closure has returned. Nothing here blocks,
/// but for a name that `listen` has to look up. On the blocking driver closures run one at a time,
/// on the thread that called [`run`](crate::blocking::Blocking::run).
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
    shared: &'a mut Shared,
    /// The callback that asks; None for a closure of the driver and for code outside of `run`.
    asking: Option<Asking<'a>>,
}

/// The callback that asks something of the driver.
struct Asking<'a> {
    conn: &'a mut Connection,
    /// The input being shown to it.
    shown: &'a [u8],
    /// Whether what it writes answers input.
    answering: bool,
}

/// Names a timer of a driver, to cancel it. Never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId {
    key: TimerKey,
    number: u64,
}

impl<'a> Control<'a> {
    pub(crate) fn new(shared: &'a mut Shared) -> Control<'a> {
        Control { shared, asking: None }
    }

    /// The driver as a callback sees it.
    pub(super) fn of_callback(
        shared: &'a mut Shared,
        conn: &'a mut Connection,
        shown: &'a [u8],
        answering: bool,
    ) -> Control<'a> {
        Control { shared, asking: Some(Asking { conn, shown, answering }) }
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

    /// The driver's counters up to now.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    /// Whether the driver is being shut down.
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping
    }

    // ---- connections -------------------------------------------------------------------------

    /// A connection of the driver. What a callback writes through it is as with
    /// [`Context::peer`](crate::Context::peer).
    pub fn peer(&mut self, id: ConnId) -> Peer<'_> {
        let caused = self.asking.as_ref().is_some_and(|asking| asking.answering);
        let shown = self.asking.as_ref().map_or(&[][..], |asking| asking.shown);
        let own = self.asking.as_mut().filter(|asking| asking.conn.id() == id);
        let own = own.map(|asking| &mut *asking.conn);
        Peer { id, caused, shared: self.shared, shown, own }
    }

    /// Queues `bytes` for each of `ids` without copying and without ever holding the writer. A
    /// receiver over [`Limits::output_max`](crate::Limits::output_max) \[8 MiB\] ends with
    /// [`OutputFull`](crate::CloseKind::OutputFull).
    pub fn push_all(&mut self, ids: &[ConnId], bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        for id in ids {
            self.peer(*id).push(bytes.clone());
        }
    }

    /// Connects to `addr`. The id is valid at once: writes queue until the connection opens, and
    /// closing it cancels. Failure is told to `protocol` by `closed`, in a later turn.
    ///
    /// Of several addresses the first is taken. A name is not looked up, since that would keep
    /// every other connection waiting: the connect fails with
    /// [`ConnectFailure::Name`](crate::ConnectFailure::Name).
    ///
    /// While the driver stops, a connect is cancelled at once. When the `closed` of one that was
    /// cancelled like this connects anew, that protocol is dropped untold: otherwise a client that
    /// never gives up would keep the driver from stopping.
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

    /// Connects like [`connect`](Control::connect), with a protocol that may not leave this thread.
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

    // ---- listeners ---------------------------------------------------------------------------

    /// Listens on `addr`, whose socket is open when this returns: [`addresses`](Control::addresses)
    /// knows the port that 0 stood for. Newcomers are accepted from the next turn on. A name is
    /// looked up by this thread, which may take a while; an address is not.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the driver is being shut down; nothing is left open.
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

    /// The real addresses of a listener; none once it has stopped.
    pub fn addresses(&self, listener: ListenerId) -> Vec<Endpoint> {
        self.shared.binder.listeners.addresses(listener)
    }

    /// Closes a listener: newcomers are refused, its connections stay.
    pub fn stop_listening(&mut self, listener: ListenerId) {
        self.shared.stop_listening(listener);
    }

    // ---- timers ------------------------------------------------------------------------------

    /// Runs `code` on the driver's thread after `delay`, never early. It keeps the driver running
    /// until then; shutdown does not wait for it. Zero runs it in the next turn, a delay too long
    /// to count never.
    pub fn set_timer(
        &mut self,
        delay: Duration,
        code: impl FnOnce(&mut Control<'_>) + 'static,
    ) -> TimerId {
        self.shared.set_closure(delay, Box::new(code))
    }

    /// Cancels a timer of [`set_timer`](Control::set_timer); false when it has run or was cancelled
    /// before.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.shared.take_closure(timer.number, Some(timer.key)).is_some_and(|closure| {
            drop_guarded(closure);
            true
        })
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

/// The closures that timers of the driver run, by number.
#[derive(Default)]
pub(crate) struct Closures {
    next: u64,
    waiting: std::collections::BTreeMap<u64, Closure>,
}

impl Closures {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Goes on where the closures of an earlier run ended.
    pub(crate) fn begin_at(&mut self, number: u64) {
        self.next = number;
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }
}

impl Drop for Closures {
    fn drop(&mut self) {
        for (_, closure) in std::mem::take(&mut self.waiting) {
            drop_guarded(closure);
        }
    }
}

impl Shared {
    fn set_closure(&mut self, delay: Duration, closure: Closure) -> TimerId {
        let number = self.closures.next;
        self.closures.next += 1;
        self.closures.waiting.insert(number, closure);
        let key = self.timers.arm(self.deadline_after(delay), TimerOwner::Closure(number));
        TimerId { key, number }
    }

    fn take_closure(&mut self, number: u64, armed: Option<TimerKey>) -> Option<Closure> {
        let closure = self.closures.waiting.remove(&number)?;
        if let Some(key) = armed {
            self.timers.cancel(key);
        }
        Some(closure)
    }

    /// The deadline of a timer that is set now.
    pub(crate) fn deadline_after(&self, delay: Duration) -> u64 {
        match nanos(delay) {
            // The tick lies in the past, so the next turn finds it due.
            0 => self.clock.tick(),
            delay => self.clock.exact().saturating_add(delay),
        }
    }

    /// Runs the closure of a timer that has fired, unless it was cancelled meanwhile.
    pub(crate) fn run_timer(&mut self, number: u64) {
        if let Some(closure) = self.take_closure(number, None) {
            self.metrics.timers += 1;
            self.run_closure(closure);
        }
    }

    /// Runs a closure; what it wished for is left to be applied, also when it panicked.
    pub(crate) fn run_closure(&mut self, closure: Closure) {
        let mut control = Control::new(self);
        if let Err(panic) = guarded(|| closure(&mut control)) {
            self.metrics.panics += 1;
            log::error!(target: "lariat::dispatch", "a closure on the driver panicked: {panic}");
        }
    }
}
