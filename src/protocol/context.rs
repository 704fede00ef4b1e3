//! What a callback may do.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Callback, Control, Peer, Protocol, Shared, TimerId, TimerOwner};
use crate::address::IntoAddress;
use crate::connection::{Connection, Flags};
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
#[cfg(feature = "http")]
use crate::reason::{Cause, CloseKind};
use crate::tap::Tap;
use crate::timer::Timer;

/// What can be asked of a socket, whatever the driver.
pub(crate) trait SocketInfo {
    fn local_addr(&self) -> io::Result<Endpoint>;

    /// The socket itself, if it is the system's.
    #[cfg(test)]
    fn stream(&self) -> Option<&std::net::TcpStream> {
        None
    }
}

/// Stands for a socket that has been closed.
pub(crate) struct NoSocket;

impl SocketInfo for NoSocket {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// Lent to each callback: its own connection, and ways to reach everything else.
///
/// What is wished for takes effect when the callback has returned. Nothing here blocks, calls back
/// or does I/O.
pub struct Context<'a> {
    pub(crate) shared: &'a mut Shared,
    pub(crate) conn: &'a mut Connection,
    /// The input being shown: writes of its slices need no copy.
    pub(crate) shown: &'a [u8],
    pub(crate) socket: &'a dyn SocketInfo,
    pub(crate) callback: Callback,
}

impl Context<'_> {
    // ---- who and when ------------------------------------------------------------------------

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.conn.id()
    }

    /// The listener that accepted the connection; None for one that was asked for or adopted.
    pub fn listener(&self) -> Option<ListenerId> {
        self.conn.listener()
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> Endpoint {
        self.conn.peer()
    }

    /// The local address, asked from the system; None once the socket is gone.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.socket.local_addr().ok()
    }

    /// Shows the clear bytes of this connection to `tap` from now on, in the place of an earlier
    /// tap: for capture. A tap that is set in [`opened`](Protocol::opened) sees all of them; what
    /// the running `data` is shown is not shown to it. It stays when another protocol takes over.
    pub fn set_tap(&mut self, tap: impl Tap + 'static) {
        let local = self.local_addr();
        let (since, wall) = (self.shared.clock.exact(), self.shared.clock.wall());
        self.conn.put_tap(Box::new(tap), local, since, wall);
    }

    /// What the filter under this connection tells of its session, if it is a `T`: who the peer is,
    /// say. None without a filter.
    pub fn session<T: 'static>(&self) -> Option<&T> {
        self.conn.session()?.downcast_ref()
    }

    /// The time right now; virtual in the simulator.
    pub fn now(&self) -> Instant {
        self.shared.clock.instant()
    }

    /// Time since the connection was accepted, or the connect was asked for.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.shared.clock.exact().saturating_sub(self.conn.since()))
    }

    /// Bytes received so far.
    pub fn bytes_in(&self) -> u64 {
        self.conn.bytes_in()
    }

    /// Bytes sent so far.
    pub fn bytes_out(&self) -> u64 {
        self.conn.bytes_out()
    }

    /// A pseudo-random number from the driver; the same for the same seed in the simulator. Not for
    /// secrets.
    pub fn random(&mut self) -> u64 {
        self.shared.random.next()
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Closes in order: no more callbacks but `closed`; what is queued is sent, then FIN, then
    /// input is discarded until the peer's FIN or [`Limits::linger_total`] \[5 s\]. Calling it
    /// again does nothing. While a connect is under way, it is cancelled.
    pub fn close(&mut self) {
        self.conn.want_close();
    }

    /// Ends at once: what is queued is dropped and the peer sees a reset.
    pub fn abort(&mut self) {
        self.conn.want_abort();
    }

    /// Finishes sending: FIN follows what is queued. Input goes on. Calling it again does nothing.
    pub fn shutdown_write(&mut self) {
        self.conn.want_fin();
    }

    /// Whether the peer has finished sending, also when that was not delivered yet.
    pub fn peer_finished(&self) -> bool {
        self.conn.peer_finished()
    }

    /// Whether the callback has wished for an end of its connection.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn is_ending(&self) -> bool {
        self.conn.flags().any(Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW)
    }

    /// Closes in order behind what was written, with [`CloseKind::Refused`] for a reason.
    #[cfg(feature = "http")]
    #[cold]
    pub(crate) fn refuse(&mut self, status: u16, why: &'static str) {
        self.conn.handle_failure(CloseKind::Refused(status), Cause::new(why));
    }

    /// Lets the end be a reset that an `Err` of this callback or [`Context::refuse`] brings: one in
    /// order would say that what was sent is whole.
    #[cfg(feature = "http")]
    #[cold]
    pub(crate) fn end_by_reset(&mut self) {
        self.conn.want_reset();
    }

    /// Whether the driver is being shut down, as `driver` says at more cost.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.stopping
    }

    /// Whether the callback lets another protocol take over.
    #[cfg(feature = "http")]
    pub(crate) fn is_replaced(&self) -> bool {
        self.shared.effects.has_successor()
    }

    // ---- input -------------------------------------------------------------------------------

    /// Stops `data` and `eof` from now on. What has been read is kept.
    pub fn pause_reading(&mut self) {
        self.conn.want_pause();
    }

    /// Lets `data` and `eof` go on; unread bytes are shown once more.
    pub fn resume_reading(&mut self) {
        self.conn.want_resume();
    }

    /// Whether reading is paused.
    pub fn is_paused(&self) -> bool {
        self.conn.flags().any(Flags::PAUSED)
    }

    /// Whether flow control keeps input away for now.
    #[cfg(feature = "http")]
    pub(crate) fn is_held(&self) -> bool {
        self.conn.flags().any(Flags::HELD)
    }

    /// Whether this connection has an idle deadline of its own, which new limits take away.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn has_own_idle(&self) -> bool {
        self.conn.has_own_idle()
    }

    // ---- timers ------------------------------------------------------------------------------

    /// Sets `timer` to fire after `delay`, or anew if it is set. It never fires early; zero fires
    /// in the next turn, a delay too long to count never.
    pub fn set_timer(&mut self, timer: Timer, delay: Duration) {
        if self.conn.flags().any(Flags::CLOSING | Flags::ENDED) {
            return;
        }
        let deadline = self.shared.deadline_after(delay);
        let owner = TimerOwner::Protocol(self.conn.id(), timer);
        self.conn.borrow_rare(&mut self.shared.rares);
        let key = self.shared.timers.arm(deadline, owner);
        if let Some(old) = self.conn.put_timer(timer, key) {
            self.shared.timers.cancel(old);
        }
    }

    /// Cancels `timer`; false when it was not set.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        match self.conn.take_timer(timer) {
            Some(key) => {
                self.shared.timers.cancel(key);
                true
            }
            None => false,
        }
    }

    // ---- others ------------------------------------------------------------------------------

    /// Another connection of the same driver (or this one).
    pub fn peer(&mut self, id: ConnId) -> Peer<'_> {
        let own = (id == self.conn.id()).then_some(&mut *self.conn);
        let caused = self.callback.answers_input();
        Peer { id, caused, shared: self.shared, shown: self.shown, own }
    }

    /// Connects to `addr`, as [`Control::connect`] does.
    pub fn connect(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.driver().connect(addr, protocol)
    }

    /// Runs `code` on the driver's thread after `delay`, as [`Control::set_timer`] does: it
    /// outlives this connection. `cx.driver().cancel_timer(..)` takes it back.
    ///
    /// A client that comes back, a second after its connection has ended:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lariat::{CloseReason, Context, Endpoint, Input, Outcome, Protocol};
    /// struct Client(Endpoint);
    ///
    /// impl Protocol for Client {
    ///     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         input.consume_all();
    ///         Ok(())
    ///     }
    ///     fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
    ///         let addr = self.0;
    ///         cx.after(Duration::from_secs(1), move |driver| {
    ///             driver.connect(addr, Client(addr));
    ///         });
    ///     }
    /// }
    /// ```
    pub fn after(
        &mut self,
        delay: Duration,
        code: impl FnOnce(&mut Control<'_>) + Send + 'static,
    ) -> TimerId {
        self.driver().set_timer(delay, code)
    }

    /// Runs `code` like [`after`](Context::after), which may not leave this thread.
    ///
    /// # Errors
    ///
    /// As [`Control::set_timer_local`].
    pub fn after_local(
        &mut self,
        delay: Duration,
        code: impl FnOnce(&mut Control<'_>) + 'static,
    ) -> Result<TimerId> {
        self.driver().set_timer_local(delay, code)
    }

    /// What can be asked of the driver: other connects, listeners, timers that outlive this
    /// connection, counters, shutdown.
    ///
    /// A write through it is a write of this callback's: in `data` and `eof`,
    /// `cx.driver().peer(id).write(..)` holds the writer as `cx.peer(id).write(..)` does.
    ///
    /// ```
    /// use lariat::{Context, Input, Outcome, Protocol};
    ///
    /// /// Shuts the driver down when the peer asks for it.
    /// struct Admin;
    ///
    /// impl Protocol for Admin {
    ///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         if input.starts_with(b"stop\n") {
    ///             cx.driver().shutdown();
    ///         }
    ///         input.consume_all();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn driver(&mut self) -> Control<'_> {
        let answering = self.callback.answers_input();
        Control::of_callback(self.shared, self.conn, self.shown, answering)
    }

    // ---- this connection's rules -------------------------------------------------------------

    /// The limits of this connection.
    pub fn limits(&self) -> &Limits {
        self.conn.limits()
    }

    /// Sets the time without a byte in either direction after which this connection ends, in the
    /// place of [`Limits::idle`] \[off\]; None turns it off. Counted in whole milliseconds, at
    /// least one and at most 49 days, from here or from the last byte after it.
    pub fn set_idle(&mut self, idle: Option<Duration>) {
        self.conn.put_idle(idle);
    }

    /// Sets new limits for this connection alone. Silence for [`Limits::idle`] counts from here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits): the old ones stay.
    pub fn set_limits(&mut self, limits: Limits) -> Result<()> {
        limits.validate()?;
        self.shared.outputs.note(&limits);
        self.conn.put_limits(Arc::new(limits));
        Ok(())
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id())
            .field("peer", &self.peer_addr())
            .field("callback", &self.callback)
            .finish_non_exhaustive()
    }
}
