//! One connection of the blocking driver: the state that its threads share.

use std::io;
use std::mem;
use std::net::Shutdown;
// Nothing is called under it, so that the model check has no orders to try.
use std::sync::Mutex as ShortLock;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::bell::{Bell, lock};
use super::race::Race;
use super::system::Stream;
use crate::connection::{Connection, Flags, Gauges};
use crate::endpoint::Endpoint;
use crate::handle::Post;
use crate::id::ConnId;
use crate::protocol::{Protocol, TimerOwner};
use crate::reason::{By, CloseKind, ConnectFailure};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::timer::Timers;

/// A connection, its protocol and its socket.
///
/// `member` guards the state. Output is sent under this lock, because no send sleeps; two
/// connections' locks are never held together. It is held while user code runs. So code that a
/// callback may call, such as a [`Handle`](crate::Handle), must not wait for it: it leaves a
/// [`Signal`] or mail.
pub(super) struct Cell {
    pub(super) id: ConnId,
    pub(super) socket: SharedStream,
    pub(super) member: Mutex<Member>,
    /// Whether the connection's own thread waits for `member`: locks are not fair, and a busy
    /// companion would otherwise take it again before the waiting thread has woken up.
    pub(super) reader_waits: AtomicBool,
    /// What the connection's own thread sleeps on. It goes away under the lock of `member`.
    pub(super) reader: Bell,
    pub(super) companions: Bell,
    signals: AtomicU8,
    /// What the gauges count of it, as it was when it was last driven on: see [`Cell::account`].
    gauges: AtomicU64,
    /// Requests of handles, in order; None once the connection is gone.
    mail: Mutex<Option<Vec<Post>>>,
}

pub(super) struct Member {
    pub(super) conn: Connection,
    pub(super) protocol: Option<Box<dyn Protocol + Send>>,
    pub(super) timers: Timers<TimerOwner>,
    /// Whether a thread sleeps in a write, with the first byte of what is queued.
    pub(super) writing: bool,
    /// Whether that is the connection's own thread, which then does not read.
    pub(super) reader_writes: bool,
    /// Whether a thread applies the effects of a callback. The next callback waits, and so do bytes
    /// that arrive meanwhile, so that effects come in the order of the callbacks.
    pub(super) applying: bool,
    /// Whether the connection's own thread is in a connect, from which nothing wakes it.
    pub(super) connecting: bool,
    /// The attempts of a connect that has several addresses.
    pub(super) race: Option<Box<Race>>,
    pub(super) lingered: bool,
    /// How long a write to the socket may sleep.
    pub(super) write_timeout: Option<Duration>,
}

/// The socket of a connection, which its threads share. It leaves before `closed` runs, so that it
/// is closed by then, unless a thread is still in a call.
pub(super) struct SharedStream(ShortLock<Option<Arc<Stream>>>);

impl SharedStream {
    fn new(socket: Option<Stream>) -> SharedStream {
        SharedStream(ShortLock::new(socket.map(Arc::new)))
    }

    /// None before it is connected, and from the end on.
    #[inline]
    pub(super) fn get(&self) -> Option<Arc<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, socket: Stream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(socket));
    }

    /// Lets go of it. It is closed with the last that `get` has returned.
    pub(super) fn leave(&self) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(socket);
    }
}

/// Requests of others that need no lock of the connection and are never refused.
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
    /// No companion could be started: waiting for one would last for ever.
    Alone = 1 << 4,
    /// Other connections want to linger too.
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

impl Cell {
    pub(super) fn new(
        id: ConnId,
        conn: Connection,
        protocol: Box<dyn Protocol + Send>,
        socket: Option<Stream>,
    ) -> Arc<Cell> {
        Arc::new(Cell {
            id,
            socket: SharedStream::new(socket),
            member: Mutex::new(Member {
                conn,
                protocol: Some(protocol),
                timers: Timers::default(),
                writing: false,
                reader_writes: false,
                applying: false,
                connecting: false,
                race: None,
                lingered: false,
                write_timeout: None,
            }),
            reader_waits: AtomicBool::new(false),
            reader: Bell::attended(),
            companions: Bell::default(),
            signals: AtomicU8::new(0),
            gauges: AtomicU64::new(0),
            mail: Mutex::new(Some(Vec::new())),
        })
    }

    // ---- gauges ------------------------------------------------------------------------------

    /// Publishes what the gauges count of the connection. The lock is held.
    pub(super) fn account(&self, conn: &Connection) {
        let Gauges { unsent, paused, held, handshaking } = conn.gauges();
        let packed = (unsent as u64) << 3
            | u64::from(handshaking) << 2
            | u64::from(paused) << 1
            | u64::from(held);
        self.gauges.store(packed, Ordering::Relaxed);
    }

    /// What the gauges count of the connection, for a thread that cannot wait for its lock.
    pub(super) fn gauges(&self) -> Gauges {
        let packed = self.gauges.load(Ordering::Relaxed);
        Gauges {
            unsent: (packed >> 3) as usize,
            handshaking: packed & 0b100 != 0,
            paused: packed & 0b10 != 0,
            held: packed & 0b01 != 0,
        }
    }

    // ---- requests ----------------------------------------------------------------------------

    /// Leaves a signal for the thread that looks next.
    pub(super) fn signal(&self, signal: Signal) {
        self.signals.fetch_or(signal as u8, Ordering::SeqCst);
    }

    /// Leaves a request for the thread that looks next. It is returned when the connection is gone.
    pub(super) fn deliver(&self, post: Post) -> Result<(), Post> {
        match &mut *lock(&self.mail) {
            Some(mail) => mail.push(post),
            None => return Err(post),
        }
        self.signal(Signal::Mail);
        Ok(())
    }

    /// Whether there are requests that no thread has looked at.
    #[inline(always)]
    pub(super) fn has_requests(&self) -> bool {
        self.signals.load(Ordering::Acquire) != 0
    }

    /// Takes the mail that has come so far.
    pub(super) fn take_mail(&self) -> Vec<Post> {
        lock(&self.mail).as_mut().map(mem::take).unwrap_or_default()
    }

    /// Takes no mail from now on. Returns the mail that no thread has taken.
    pub(super) fn close_mail(&self) -> Vec<Post> {
        lock(&self.mail).take().unwrap_or_default()
    }

    /// The answer to an attempt to connect. A socket that comes too late is closed.
    pub(super) fn answer(&self, addr: Endpoint, result: io::Result<Stream>) {
        if let Some(race) = lock(&self.member).race.as_mut() {
            race.answer(addr, result);
        }
        self.reader.call();
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
            if signals.has(Signal::Stop) && conn.has_due() {
                // There is no time to drain. `stopping` runs first all the same, and then the
                // thread looks again.
                self.signals.fetch_or(Signal::End as u8, Ordering::AcqRel);
            } else {
                conn.handle_drain_over();
            }
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

    /// Wakes threads that sleep in the socket.
    pub(super) fn wake(&self, how: Shutdown) {
        if let Some(socket) = self.socket.get() {
            // Where that fails, the peer has woken them already.
            let _ = socket.shutdown(how);
        }
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;
    use crate::blocking::tests::rig::Rig;
    use crate::filter::{Filter, FilterResult, Progress};
    use crate::limits::Limits;

    /// Its handshake has no end.
    struct Endless;

    impl Filter for Endless {
        fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Handshaking)
        }
        fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Handshaking)
        }
        fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Handshaking)
        }
    }

    #[test]
    fn stopping_comes_before_the_end_of_a_drain_that_has_no_time() {
        let rig = Rig::open(Limits::default());
        let mut member = rig.member();
        rig.cell.signal(Signal::Stop);
        rig.cell.signal(Signal::End);
        rig.cell.take_signals(&mut member.conn);
        assert!(member.conn.has_due() && member.conn.flags().none(Flags::ENDED));
        assert!(rig.cell.has_requests(), "and looks once more");
        rig.cell.take_signals(&mut member.conn);
        assert!(member.conn.flags().any(Flags::ENDED) && !rig.cell.has_requests());
        drop(member);
        // In a handshake there is no `stopping`, and the thread would not look once more.
        let rig = Rig::open(Limits::default());
        let mut member = rig.member();
        member.conn.handle_filter(Box::new(Endless), false, &mut Default::default(), 0);
        rig.cell.signal(Signal::Stop);
        rig.cell.signal(Signal::End);
        rig.cell.take_signals(&mut member.conn);
        assert!(member.conn.flags().any(Flags::ENDED) && !rig.cell.has_requests());
    }

    #[test]
    fn each_gauge_is_read_as_it_was_published_and_no_other() {
        type Change = fn(&mut Connection, ConnId);
        let changes: [(&str, Change); 5] = [
            ("nothing", |_, _| ()),
            ("paused", |conn, _| conn.want_pause()),
            ("held", |conn, id| assert!(conn.handle_held(id))),
            ("handshaking", |conn, _| {
                conn.handle_filter(Box::new(Endless), false, &mut Default::default(), 0);
            }),
            ("unsent", |conn, _| assert!(conn.queue(&[7; 1001], &mut Default::default(), 0))),
        ];
        for (name, change) in changes {
            let rig = Rig::open(Limits::default());
            let mut member = rig.member();
            change(&mut member.conn, rig.id());
            rig.cell.account(&member.conn);
            let expected = Gauges {
                unsent: if name == "unsent" { 1001 } else { 0 },
                paused: name == "paused",
                held: name == "held",
                handshaking: name == "handshaking",
            };
            assert_eq!(rig.cell.gauges(), expected, "{name}");
            drop(member);
            let metrics = rig.hub.metrics();
            let gauges = [metrics.buffered, metrics.paused, metrics.held, metrics.handshaking];
            let Gauges { unsent, paused, held, handshaking } = expected;
            assert_eq!(gauges, [unsent as u64, paused.into(), held.into(), handshaking.into()]);
        }
    }
}
