//! The running callback's own connection, and the ways from it to everything else.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Callback, Control, Effect, Peer, Protocol, Shared, SocketInfo, TimerId, TimerOwner};
use crate::address::IntoAddress;
use crate::connection::{Connection, Flags};
#[cfg(feature = "peer-credentials")]
use crate::credentials::PeerCredentials;
use crate::detached::Detached;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::id::{ConnId, ListenerId};
use crate::jobs::{JobError, Lane};
use crate::limits::Limits;
use crate::note::Note;
use crate::tap::Tap;
use crate::timer::Timer;

/// Lent to each callback: its own connection, and the ways to everything else.
///
/// Writes, closes, connects and messages take effect when the callback has returned. Nothing here
/// blocks, and nothing calls back.
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

    /// The listener that accepted the connection; None for an outgoing or adopted one.
    pub fn listener(&self) -> Option<ListenerId> {
        self.conn.listener()
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> Endpoint {
        self.conn.peer()
    }

    /// The local address, asked from the system; None once the socket is closed.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.socket.local_addr().ok()
    }

    /// The process at the other end of a Unix stream. None for any other stream, for a socket that
    /// is closed, and where the system does not tell: it does on Linux, unless the process is in a
    /// pid namespace that this one cannot see. Feature `peer-credentials`.
    #[cfg(feature = "peer-credentials")]
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.conn.peer().unix()?;
        self.socket.peer_credentials()
    }

    /// The descriptor of the connection's socket, for what lariat has no call for: options of the
    /// system, or what the socket tells of itself. None once it is closed, and in the simulator.
    /// What is read from it or written to it here is missing in the connection.
    ///
    /// ```
    /// use lariat::{Context, Input, Outcome, Protocol};
    ///
    /// struct Marked;
    ///
    /// impl Protocol for Marked {
    ///     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
    ///         if let Some(socket) = cx.descriptor() {
    ///             socket2::SockRef::from(&socket).set_tcp_quickack(true)?;
    ///         }
    ///         Ok(())
    ///     }
    ///     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// }
    /// ```
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.descriptor()
    }

    /// Shows the clear bytes of this connection to `tap` from now on, for capture. It replaces an
    /// earlier tap and stays when another protocol takes over. A tap set in
    /// [`opened`](Protocol::opened) sees all bytes; the input of the running `data` is not shown to
    /// a tap set there.
    pub fn set_tap(&mut self, tap: impl Tap + 'static) {
        let local = self.local_addr();
        let (since, wall) = (self.shared.clock.exact(), self.shared.clock.wall());
        self.conn.put_tap(Box::new(tap), local, since, wall);
    }

    /// The session of the filter under this connection, if it is a `T`: the peer's identity, for
    /// instance. None without a filter.
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

    /// Closes in order. No more callbacks run but `closed`; queued output is sent, then FIN, then
    /// input is discarded until the peer's FIN, at most until it is silent for
    /// [`Limits::linger_idle`] \[2 s\] or for [`Limits::linger_total`] \[5 s\] in all. A second
    /// call does nothing. A connect that is under way is cancelled.
    pub fn close(&mut self) {
        self.conn.want_close();
    }

    /// Ends the connection without flushing: queued output is dropped and the peer sees a reset.
    /// `closed` runs in a later turn.
    pub fn abort(&mut self) {
        self.conn.want_abort();
    }

    /// Finishes sending: FIN follows the queued output. Input goes on. A second call does nothing.
    pub fn shutdown_write(&mut self) {
        self.conn.want_fin();
    }

    /// Takes the socket out of the driver, alive. The driver first tries to send what this callback
    /// has written; then [`closed`](Protocol::closed) runs with
    /// [`CloseKind::Detached`](crate::CloseKind::Detached), and
    /// [`take_detached`](Context::take_detached) gives the socket there, with the bytes that are
    /// neither consumed nor sent. No other callback runs before that. A
    /// [`close`](Context::close), an [`abort`](Context::abort), an `Err` or a failure of the
    /// connection comes first, and the socket is closed then.
    ///
    /// On the reactor that is in the next turn. On blocking threads the socket leaves when none of
    /// its threads is in a call on it: at once from `opened`, `data` and `eof`; from the other
    /// callbacks, which another thread may run, not before the connection's own thread comes back
    /// from its `read`, with bytes, with the end or at a deadline. A byte that waits for room goes
    /// first.
    ///
    /// What is detached is a second descriptor of the socket; the first is closed.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::net::TcpStream;
    /// use lariat::{CloseReason, Context, Input, Outcome, Protocol};
    ///
    /// /// Reads a line, and leaves the rest of the conversation to a thread.
    /// struct Greeted;
    ///
    /// impl Protocol for Greeted {
    ///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         if let Some(end) = input.iter().position(|byte| *byte == b'\n') {
    ///             input.consume(end + 1);
    ///             cx.write(b"welcome\n");
    ///             cx.detach()?;
    ///         }
    ///         Ok(())
    ///     }
    ///     fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
    ///         let Some(detached) = cx.take_detached() else { return };
    ///         std::thread::spawn(move || {
    ///             let mut stream = TcpStream::from(detached.socket);
    ///             stream.write_all(&detached.unsent)?;
    ///             stream.write_all(&detached.unread)
    ///         });
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSocket`] for a connection that is ending or has a
    /// [`Filter`](crate::Filter), whose state would be lost; [`ErrorKind::Unsupported`] in the
    /// simulator; [`ErrorKind::Exhausted`] when no descriptor is left. The connection goes on.
    pub fn detach(&mut self) -> Result<()> {
        if self.conn.is_detaching() {
            return Ok(());
        }
        if let Some(why) = self.conn.stays() {
            return Err(Error::new(ErrorKind::InvalidSocket, Op::Detach).with_detail(why));
        }
        match self.socket.second() {
            Ok(socket) => self.conn.want_detach(socket),
            Err(error) => {
                let sentence = error.to_string();
                return Err(Error::from_io(Op::Detach, error).with_detail(sentence));
            }
        }
        Ok(())
    }

    /// The socket that [`detach`](Context::detach) has taken out of the driver: in
    /// [`closed`](Protocol::closed), once. If nobody takes it, it is closed.
    pub fn take_detached(&mut self) -> Option<Detached> {
        self.conn.take_detached()
    }

    /// Whether the peer's FIN has arrived, also while unread input still precedes it.
    pub fn peer_finished(&self) -> bool {
        self.conn.peer_finished()
    }

    // ---- input -------------------------------------------------------------------------------

    /// Stops `data` and `eof` until [`resume_reading`](Context::resume_reading). Bytes that were
    /// read are kept; further ones stay with the kernel. On blocking threads they are read and kept
    /// up to [`Limits::input_max`], so that a reset is noticed. A second call does nothing.
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

    /// Sets `timer` to fire after `delay`; a timer that is already set is moved. It never fires
    /// early. Zero fires in the next turn; a delay too long to count never fires.
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

    /// Runs `job`, which may block or compute for long, on another thread, as [`Control::offload`]
    /// does. [`notified`](Protocol::notified) gets the result, as a note that holds a `Result<T,
    /// JobError>`. It is not counted in [`Limits::notes_max`]. When the connection has ended, a job
    /// that has not begun is dropped, and so is a result.
    ///
    /// ```
    /// use lariat::{Context, Input, JobError, Note, Outcome, Protocol, sim::Sim};
    ///
    /// /// Answers with a number that takes long to find.
    /// struct Slow;
    ///
    /// impl Protocol for Slow {
    ///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         let question = input.split_all();
    ///         cx.pause_reading();
    ///         cx.offload(move || question.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    ///         Ok(())
    ///     }
    ///     fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
    ///         if let Ok(answer) = note.downcast::<Result<u64, JobError>>() {
    ///             cx.write(answer?.to_string().as_bytes());
    ///             cx.resume_reading();
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(1);
    /// let listener = sim.listen("10.0.0.1:80", |_| Some(Slow))?;
    /// let client = sim.dial(sim.addresses(listener)[0]);
    /// client.send(&[100, 100]);
    /// sim.run_for(std::time::Duration::from_secs(1))?;
    /// assert_eq!(client.take_received(), b"200");
    /// # Ok::<(), lariat::Error>(())
    /// ```
    pub fn offload<T: Send + 'static>(&mut self, job: impl FnOnce() -> T + Send + 'static) {
        let to = self.id();
        let (number, wanted) = self.conn.begin_job();
        let deliver = move |control: &mut Control<'_>, result: std::result::Result<T, JobError>| {
            let note = Note::new(result);
            control.shared_mut().effects.list.push(Effect::Deliver { to, job: number, note });
        };
        let deadline = self.shared.offload(Lane::Jobs, Some(wanted), job, deliver);
        self.conn.put_job(number, deadline.0);
    }

    /// Runs `code` on the driver's thread after `delay`, as [`Control::set_timer`] does, also when
    /// this connection has ended by then. `cx.driver().cancel_timer(..)` cancels it.
    ///
    /// A client that reconnects a second after its connection has ended. For delays that grow there
    /// is [`reconnect`](crate::reconnect).
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

    /// Runs `code` like [`after`](Context::after); `code` need not be `Send`.
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

    /// The driver: connects, listeners, timers that outlive this connection, counters, shutdown.
    ///
    /// A write through it counts as a write of this callback: in `data` and `eof`,
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

    /// Sets the time without a byte in either direction after which this connection ends. It
    /// replaces [`Limits::idle`] \[off\]; None turns it off. It is counted in whole milliseconds,
    /// at least one and at most 49 days, from now or from a later byte.
    pub fn set_idle(&mut self, idle: Option<Duration>) {
        self.conn.put_idle(idle);
    }

    /// Sets new limits for this connection alone. The time of [`Limits::idle`] counts from now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits); the old limits stay.
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
