//! One connection of the blocking driver: what its threads share, and how they wake one another.

use std::mem;
use std::net::Shutdown;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use super::companion;
use super::hub::{Hub, lock};
use super::system::{self, TcpStream};
use crate::connection::{Connection, Flags};
use crate::handle::Post;
use crate::id::ConnId;
use crate::protocol::{Protocol, TimerOwner};
use crate::reason::{By, CloseKind, ConnectFailure};
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::timer::Timers;

/// A connection, its protocol and its socket.
///
/// Two locks: `member` guards the state and is never held during I/O; `writer` is held by whoever
/// writes to the socket, and taken before output is taken from the queue, so that bytes leave in
/// order. Whoever holds `member` may only *try* for `writer`; two connections' locks are never held
/// together.
///
/// `member` is held while user code runs, so code that may be called from within a callback, a
/// [`Handle`](crate::Handle) above all, must not wait for it: it leaves a [`Signal`] or mail, and
/// rings.
pub(super) struct Cell {
    pub(super) id: ConnId,
    pub(super) socket: OnceLock<TcpStream>,
    pub(super) member: Mutex<Member>,
    pub(super) writer: Mutex<()>,
    /// Whether the reading thread wants `member`: locks are not fair, and a companion that is busy
    /// would otherwise have it again before the other has woken up.
    pub(super) reader_waits: AtomicBool,
    pub(super) reader: Bell,
    pub(super) companion: Bell,
    life: AtomicU8,
    signals: AtomicU8,
    /// Requests of handles, in order; None once the connection is gone.
    mail: Mutex<Option<Vec<Post>>>,
}

pub(super) struct Member {
    pub(super) conn: Connection,
    pub(super) protocol: Option<Box<dyn Protocol + Send>>,
    pub(super) timers: Timers<TimerOwner>,
    /// Whether a thread is writing to the socket.
    pub(super) writing: bool,
    /// Whether a thread carries out what a callback wished for: the next callback waits, so that
    /// wishes take effect in the order of the callbacks.
    pub(super) applying: bool,
    /// Whether the reading thread is away in a connect.
    pub(super) connecting: bool,
    pub(super) lingered: bool,
    /// How long a write to the socket may sleep.
    pub(super) write_timeout: Option<Duration>,
}

/// What others ask of a connection without waiting for its lock, and what is never refused.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Signal {
    /// There is mail.
    Mail = 1,
    Abort = 1 << 1,
    /// Shutdown has begun.
    Stop = 1 << 2,
    /// The time to drain is over.
    End = 1 << 3,
    /// No companion could be started: what waits for one would wait for ever.
    Alone = 1 << 4,
    /// Others want to linger as well.
    Cut = 1 << 5,
}

/// The signals that were taken at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Signals(u8);

impl Signals {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, signal: Signal) -> bool {
        self.0 & signal as u8 != 0
    }
}

/// The life of a companion thread.
const NOT_STARTED: u8 = 0;
const RUNNING: u8 = 1;
const GONE: u8 = 2;

impl Cell {
    pub(super) fn new(
        id: ConnId,
        conn: Connection,
        protocol: Box<dyn Protocol + Send>,
        socket: Option<TcpStream>,
    ) -> Arc<Cell> {
        let connecting = socket.is_none();
        Arc::new(Cell {
            id,
            socket: socket.map_or_else(OnceLock::new, OnceLock::from),
            member: Mutex::new(Member {
                conn,
                protocol: Some(protocol),
                timers: Timers::default(),
                writing: false,
                applying: false,
                connecting,
                lingered: false,
                write_timeout: None,
            }),
            writer: Mutex::new(()),
            reader_waits: AtomicBool::new(false),
            reader: Bell::default(),
            companion: Bell::default(),
            life: AtomicU8::new(NOT_STARTED),
            signals: AtomicU8::new(0),
            mail: Mutex::new(Some(Vec::new())),
        })
    }

    // ---- the companion -----------------------------------------------------------------------

    pub(super) fn has_companion(&self) -> bool {
        self.life.load(Ordering::Acquire) == RUNNING
    }

    /// Lets the connection's own threads look at it; starts the companion if there is none, as the
    /// other may be asleep in the socket.
    pub(super) fn nudge(self: &Arc<Cell>, hub: &Arc<Hub>) {
        let was = self.change_life(NOT_STARTED, RUNNING);
        if was && companion::start(hub, self).is_err() {
            self.signal(Signal::Alone);
            self.companion_gone();
            if let Some(socket) = self.socket.get() {
                // Out of whatever it sleeps in; it finds the signal before it asks what this meant.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.ring();
    }

    /// The companion has left; from now on the reading thread is alone.
    pub(super) fn companion_gone(&self) {
        self.life.store(GONE, Ordering::Release);
        self.reader.ring();
    }

    /// Whether there is no companion and never will be one: the reading thread may tell `closed`.
    pub(super) fn stays_alone(&self) -> bool {
        self.change_life(NOT_STARTED, GONE) || !self.has_companion()
    }

    fn change_life(&self, from: u8, to: u8) -> bool {
        self.life.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The state has changed in a way that a waiting thread of this connection has to look at.
    pub(super) fn ring(&self) {
        self.reader.ring();
        self.companion.ring();
    }

    // ---- requests ----------------------------------------------------------------------------

    /// Leaves a signal for whichever thread looks next.
    pub(super) fn signal(&self, signal: Signal) {
        self.signals.fetch_or(signal as u8, Ordering::AcqRel);
    }

    /// Leaves a signal that ends the connection. Its companion may be stuck in a write, and what
    /// wakes it is the other thread, out of its read.
    pub(super) fn signal_end(&self, signal: Signal) {
        self.signal(signal);
        if let Some(socket) = self.socket.get() {
            // Where that fails, the peer has woken them already.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Leaves a request for whichever thread looks next. It comes back when the connection is gone.
    pub(super) fn deliver(&self, post: Post) -> Result<(), Post> {
        match &mut *lock(&self.mail) {
            Some(mail) => mail.push(post),
            None => return Err(post),
        }
        self.signal(Signal::Mail);
        Ok(())
    }

    /// Whether somebody has asked for something that no thread has looked at.
    pub(super) fn has_requests(&self) -> bool {
        self.signals.load(Ordering::Acquire) != 0
    }

    /// Whether there is mail that nobody has taken.
    pub(super) fn has_mail(&self) -> bool {
        lock(&self.mail).as_ref().is_some_and(|mail| !mail.is_empty())
    }

    /// Takes the mail that has come so far.
    pub(super) fn take_mail(&self) -> Vec<Post> {
        lock(&self.mail).as_mut().map(mem::take).unwrap_or_default()
    }

    /// From now on no mail is taken. What nobody has looked at is returned.
    pub(super) fn close_mail(&self) -> Vec<Post> {
        lock(&self.mail).take().unwrap_or_default()
    }

    /// Applies the signals. Returns them: empty when there was none.
    pub(super) fn take_signals(&self, conn: &mut Connection) -> Signals {
        if !self.has_requests() {
            return Signals(0);
        }
        let signals = Signals(self.signals.swap(0, Ordering::AcqRel));
        if signals.has(Signal::Stop) {
            conn.handle_shutdown();
        }
        if signals.has(Signal::Abort) {
            conn.want_abort();
        }
        if signals.has(Signal::Cut) {
            conn.handle_linger_cut();
        }
        if signals.has(Signal::End) {
            conn.handle_drain_over();
        }
        if signals.has(Signal::Alone) {
            // Only a connect that has not succeeded can fail.
            let opened = conn.flags().any(Flags::OPENED);
            let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
            let kind = if opened { CloseKind::Aborted } else { exhausted };
            conn.handle_reset(By::Runtime, kind);
        }
        signals
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Another connection's thread has applied a wish. If that was the end, the reading thread is
    /// woken, which wakes a companion that is stuck in a write.
    pub(super) fn wake_if_ended(&self, member: &Member) {
        if member.conn.flags().any(Flags::ENDED) {
            self.wake_io(member, Shutdown::Read);
        }
    }

    /// The end is decided: wakes the threads that sleep in the socket.
    pub(super) fn wake_io(&self, member: &Member, how: Shutdown) {
        let Some(socket) = self.socket.get() else { return };
        if member.conn.flags().any(Flags::RESET) {
            system::reset_on_close(socket);
        }
        if let Err(error) = socket.shutdown(how) {
            log::debug!(target: "lariat::blocking", "{}: {error}", member.conn.peer());
        }
    }
}

/// What one thread sleeps on. A ring is remembered until that thread waits, so that none is lost
/// between its look at the state and its sleep, whatever locks the ringer holds.
#[derive(Default)]
pub(super) struct Bell {
    inside: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Default)]
struct Rung {
    rung: bool,
    /// Without a sleeper there is nobody to ask the system to wake.
    asleep: bool,
}

impl Bell {
    pub(super) fn ring(&self) {
        let mut inside = lock(&self.inside);
        inside.rung = true;
        if inside.asleep {
            self.changed.notify_one();
        }
    }

    /// Waits for a ring, at most for `most`.
    pub(super) fn wait(&self, most: Option<Duration>) {
        let until = most.and_then(|most| system::now().checked_add(most));
        let mut inside = lock(&self.inside);
        inside.asleep = true;
        while !inside.rung {
            let Some(until) = until else {
                inside = self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(system::now());
            if left.is_zero() {
                break;
            }
            let woken = self.changed.wait_timeout(inside, left);
            inside = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *inside = Rung::default();
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        bell.wait(None);
        bell.wait(Some(Duration::from_millis(1)));
    }

    #[test]
    fn ten_thousand_rings_between_two_threads_are_all_heard() {
        let bells = Arc::new((Bell::default(), Bell::default()));
        let other = Arc::clone(&bells);
        let thread = std::thread::spawn(move || {
            for _ in 0..10_000 {
                other.0.wait(None);
                other.1.ring();
            }
        });
        for _ in 0..10_000 {
            bells.0.ring();
            bells.1.wait(None);
        }
        thread.join().unwrap();
    }
}
