//! What a callback may do.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Boxed, Callback, Content, Control, Effect, Output, Protocol, Shared, Successor, TimerOwner,
};
use crate::address::IntoAddress;
use crate::connection::{Connection, Flags};
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::timer::Timer;

/// What can be asked of a socket, whatever the driver.
pub(crate) trait SocketInfo {
    fn local_addr(&self) -> io::Result<Endpoint>;
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

    /// The listener that accepted the connection; None for an outgoing one.
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

    // ---- output ------------------------------------------------------------------------------

    /// Queues a copy of `bytes`; slices of the input being shown are not even copied.
    ///
    /// Unsent bytes beyond [`Limits::output_max`] \[8 MiB\] are dropped and end the connection with
    /// [`OutputFull`](crate::CloseKind::OutputFull). After [`close`](Context::close) or
    /// [`shutdown_write`](Context::shutdown_write) they are dropped, counted in
    /// [`CloseReason::refused`](crate::CloseReason::refused) and logged once.
    #[inline(always)]
    pub fn write(&mut self, bytes: &[u8]) {
        // The straight path: nothing waits, and this is the callback's first write.
        let straight = self.conn.flags().none(Flags::NO_WRITES | Flags::QUEUED)
            && bytes.len() <= self.conn.limits().high_mark
            && self.shared.output.is_empty();
        if straight {
            self.shared.output.push_first(bytes, self.shown);
        } else {
            self.write_more(bytes);
        }
    }

    #[inline(never)]
    fn write_more(&mut self, bytes: &[u8]) {
        if self.conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, self.conn, bytes.len());
        } else if admit(self.shared, self.conn, bytes.len()) {
            self.shared.output.push(bytes, self.shown);
        }
    }

    /// Queues `bytes` without copying them, unless they are short.
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if self.conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, self.conn, bytes.len());
        } else if admit(self.shared, self.conn, bytes.len()) {
            self.shared.output.push_shared(bytes, self.shown);
        }
    }

    /// An [`io::Write`] for `write!` and serializers. It never blocks; it fails with
    /// [`io::ErrorKind::BrokenPipe`] where [`write`](Context::write) would drop.
    ///
    /// ```
    /// use std::io::Write;
    /// # use lariat::{Context, Outcome};
    /// fn greet(cx: &mut Context<'_>) -> Outcome {
    ///     write!(cx.writer(), "you are {}\r\n", 42)?;
    ///     Ok(())
    /// }
    /// ```
    pub fn writer(&mut self) -> Writer<'_> {
        Writer { shared: self.shared, conn: self.conn, shown: self.shown }
    }

    /// Bytes written and not yet taken by the kernel.
    pub fn unsent(&self) -> usize {
        self.conn.unsent() + self.shared.output.len()
    }

    /// Whether unsent bytes went above [`Limits::high_mark`] \[64 KiB\] and
    /// [`drained`](Protocol::drained) has not run since: a producer stops here.
    pub fn is_congested(&self) -> bool {
        self.conn.is_congested()
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
        let own = (id == self.conn.id()).then_some((&mut *self.conn, self.shown));
        Peer { id, caused: self.callback.answers_input(), shared: self.shared, own }
    }

    /// Connects to `addr`, as [`Control::connect`] does.
    pub fn connect(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.driver().connect(addr, protocol)
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

    /// Lets `next` take the connection over when this callback has returned: this protocol is
    /// dropped without `closed`, its timers are cancelled, and what it wrote is sent first. `next`
    /// is told `opened`, then shown what is unread. The last call in a callback wins; a close, an
    /// abort or an `Err` in the same callback beats it.
    pub fn replace(&mut self, next: impl Protocol + Send + 'static) -> Replacement<'_> {
        self.start_replacing(Boxed::Anywhere(Box::new(next)))
    }

    /// Replaces like [`replace`](Context::replace), with a protocol that may not leave this thread.
    pub fn replace_local(&mut self, next: impl Protocol + 'static) -> Replacement<'_> {
        self.start_replacing(Boxed::Here(Box::new(next)))
    }

    fn start_replacing(&mut self, protocol: Boxed) -> Replacement<'_> {
        let successor = Successor { protocol, feed: false };
        self.shared.effects.list.push(Effect::Replace(successor));
        Replacement { effect: self.shared.effects.list.last_mut() }
    }

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

/// Whether `count` more bytes may be written. Past `output_max` they are lost and the connection
/// ends after the callback.
fn admit(shared: &Shared, conn: &mut Connection, count: usize) -> bool {
    let fits = conn.check_marks(shared.output.len() + count);
    if !fits {
        conn.want_overflow();
        conn.lose_output(count);
    }
    fits
}

pub(super) fn refuse(shared: &mut Shared, conn: &mut Connection, count: usize) {
    if count == 0 {
        return;
    }
    if conn.flags().any(Flags::OVERFLOW) {
        return conn.lose_output(count);
    }
    shared.metrics.refused_bytes += count as u64;
    if conn.handle_refused(count) {
        log::warn!(
            target: "lariat::dispatch",
            "{count} bytes were written to {} after it was closed for writing; they are dropped",
            conn.peer(),
        );
    }
    if shared.strict {
        let peer = conn.peer();
        shared.late_write.get_or_insert_with(|| {
            format!("{count} bytes were written to {peer} after it was closed for writing")
        });
    }
}

/// What [`Context::replace`] returns, to say more about it.
pub struct Replacement<'a> {
    effect: Option<&'a mut Effect>,
}

impl Replacement<'_> {
    /// Feeds unread input to the new protocol's filter. Without this, unread input that meets a new
    /// filter ends the connection: after a plaintext STARTTLS it may be an attacker's.
    pub fn feed_unread(&mut self) {
        if let Some(Effect::Replace(successor)) = &mut self.effect {
            successor.feed = true;
        }
    }
}

impl fmt::Debug for Replacement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").finish_non_exhaustive()
    }
}

/// An [`io::Write`] into a connection's output.
pub struct Writer<'a> {
    shared: &'a mut Shared,
    conn: &'a mut Connection,
    shown: &'a [u8],
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, self.conn, bytes.len());
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !admit(self.shared, self.conn, bytes.len()) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.shared.output.push(bytes, self.shown);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("id", &self.conn.id()).finish_non_exhaustive()
    }
}

/// Another connection of the same driver. A connection that has ended takes everything and does
/// nothing with it; that is counted in
/// [`Metrics::stale`](crate::Metrics::stale).
pub struct Peer<'a> {
    pub(super) id: ConnId,
    /// Whether what is written answers input, so that the writer can be held.
    pub(super) caused: bool,
    pub(super) shared: &'a mut Shared,
    /// The connection and the shown input, if the callback writes to its own connection.
    pub(super) own: Option<(&'a mut Connection, &'a [u8])>,
}

impl Peer<'_> {
    /// Whether the connection exists: its `closed` has not run. It may be closing, when what is
    /// written is dropped and counted.
    pub fn is_open(&self) -> bool {
        self.shared.ids.is_current(self.id)
    }

    /// Queues a copy of `bytes`. In `data` and `eof`, a receiver above its high mark holds the
    /// writer: it is not read until the receiver has drained to its low mark. So a relay is
    /// bounded.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.own.is_some() {
            return self.write_own(bytes.len(), |output, shown| output.push(bytes, shown));
        }
        let content = self.shared.effects.copy(bytes);
        let write = Effect::Write { to: self.id, content, caused: self.caused };
        self.shared.effects.list.push(write);
    }

    /// Queues `bytes` as [`write`](Peer::write) does, without copying.
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if self.own.is_some() {
            return self.write_own(bytes.len(), |output, shown| output.push_shared(bytes, shown));
        }
        let content = Content::Shared(bytes);
        let write = Effect::Write { to: self.id, content, caused: self.caused };
        self.shared.effects.list.push(write);
    }

    /// Queues `bytes` without copying and never holds the writer: for broadcast. A receiver over
    /// [`Limits::output_max`] ends with [`OutputFull`](crate::CloseKind::OutputFull).
    pub fn push(&mut self, bytes: impl Into<Bytes>) {
        self.caused = false;
        self.write_bytes(bytes);
    }

    /// A write to the own connection by its id keeps its place among its other writes.
    fn write_own(&mut self, count: usize, write: impl FnOnce(&mut Output, &[u8])) {
        let Some((conn, shown)) = &mut self.own else { return };
        if conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, conn, count);
        } else if admit(self.shared, conn, count) {
            write(&mut self.shared.output, shown);
        }
    }

    /// Finishes sending on that connection, as [`Context::shutdown_write`] does.
    pub fn shutdown_write(&mut self) {
        self.shared.effects.list.push(Effect::ShutdownWrite(self.id));
    }

    /// Closes that connection in order, as [`Context::close`] does. Its `closed` runs in a later
    /// turn.
    pub fn close(&mut self) {
        self.shared.effects.list.push(Effect::Close(self.id));
    }

    /// Ends that connection at once, as [`Context::abort`] does. Its `closed` runs in a later turn.
    pub fn abort(&mut self) {
        self.shared.effects.list.push(Effect::Abort(self.id));
    }

    /// Sends a note, received by [`Protocol::notified`] in a later turn, not before `opened`.
    /// Beyond [`Limits::notes_max`] \[64\] waiting ones it is dropped and counted in
    /// [`Metrics::refused_notes`](crate::Metrics::refused_notes).
    pub fn notify(&mut self, note: Note) {
        self.shared.effects.list.push(Effect::Notify { to: self.id, note });
    }
}

impl fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}
