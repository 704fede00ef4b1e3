//! A thread of a connection, whichever it is: what it has at hand, and the end that both see to.
//!
//! Both threads run whatever callback is due, under the connection's lock; the reading thread
//! sleeps in `read`, the companion until the nearest deadline or until it is told of a change. An
//! echo has no companion: it is started by the first timer, note, push or request of another
//! thread.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Member, Signal};
use super::counters::Counters;
use super::effects::{self, Author};
use super::hub::{Hub, lock};
use super::system;
use crate::connection::{Flags, Step, Steps};
use crate::guard::{drop_guarded, guarded};
use crate::id::ConnId;
use crate::protocol::Shared;

/// What a thread reads into. A large one costs each thread its memory only once it is used.
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// The shortest time that a thread sleeps.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// A write that takes longer when the end is decided is one that the peer does not take.
const STUCK: Duration = Duration::from_millis(250);

/// Which of a connection's two threads this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reader,
    Companion,
}

/// What a thread does next.
pub(super) enum Next {
    Read(Option<Duration>),
    Wait(Option<Duration>),
    /// The other thread carries out what a callback wished for, and rings when it has done so.
    OtherFirst,
    End,
}

/// One thread's view of a connection.
pub(super) struct Worker {
    pub(super) hub: Arc<Hub>,
    pub(super) cell: Arc<Cell>,
    pub(super) shared: Shared,
    pub(super) role: Role,
    published: Arc<Counters>,
    /// The read time-out that the socket has.
    pub(super) timeout: Option<Duration>,
    pub(super) scratch: Vec<u8>,
    /// A connection that has to end its lingering because of this one.
    cut: Option<ConnId>,
}

impl Worker {
    pub(super) fn new(hub: &Arc<Hub>, cell: &Arc<Cell>, role: Role) -> Worker {
        let seed = hub.clock.exact() ^ cell.id.bits() ^ u64::from(role == Role::Companion);
        let shared = hub.shared(seed);
        Worker {
            hub: Arc::clone(hub),
            cell: Arc::clone(cell),
            shared,
            role,
            published: hub.add_worker(),
            timeout: None,
            scratch: Vec::new(),
            cut: None,
        }
    }

    pub(super) fn publish(&mut self) {
        self.published.publish(&self.shared.metrics);
    }

    #[inline(always)]
    pub(super) fn publish_message(&self) {
        self.published.publish_message(&self.shared.metrics);
    }

    pub(super) fn author(&mut self) -> Author<'_> {
        Author { hub: &self.hub, shared: &mut self.shared, cell: Some(&self.cell) }
    }

    /// Wakes the other thread of the connection: the state has changed.
    pub(super) fn ring_other(&self) {
        match self.role {
            Role::Companion => self.cell.reader.ring(),
            Role::Reader if self.cell.has_companion() => self.cell.companion.ring(),
            Role::Reader => {}
        }
    }

    /// Asks the protocol for a filter, before `opened`.
    pub(super) fn ask_for_filter(&mut self, member: &mut Member, feed: bool) {
        let now = self.shared.clock.exact();
        if member.conn.flags().any(Flags::CONNECTING | Flags::ENDED) {
            return;
        }
        let filter = self.call(member, |called| called.filter());
        if let Some(Some(Some(filter))) = filter {
            member.conn.handle_filter(filter, feed, &mut self.shared.chunks, now);
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Drives the connection's state on, as far as it goes without a callback or output.
    pub(super) fn finish(&mut self, member: &mut Member) {
        // The only queue that holds a connection here is its own.
        let _ = member.conn.poll_unheld();
        if !member.conn.poll_released().is_empty() {
            member.conn.handle_released(self.cell.id);
        }
        let now = self.shared.clock.exact();
        let mut steps = Steps::beside(member.writing);
        loop {
            match member.conn.poll_step(&mut steps, &mut self.shared.chunks, now) {
                // The threads of the connection see to its output and to its end.
                Step::Flush | Step::Close => {}
                Step::Fin => self.send_fin(member, now),
                Step::Linger => {
                    member.lingered = true;
                    self.cut = self.hub.linger(self.cell.id);
                }
                Step::Settled => break,
            }
        }
        if member.conn.flags().any(Flags::CLOSING | Flags::ENDED) {
            for key in member.conn.take_timers() {
                member.timers.cancel(key);
            }
        }
    }

    /// Shuts the socket's write side.
    fn send_fin(&mut self, member: &mut Member, now: u64) {
        let result = match self.cell.socket.get() {
            Some(socket) => socket.shutdown(Shutdown::Write),
            None => Ok(()),
        };
        member.conn.handle_fin_sent(now);
        if let Err(error) = result {
            if error.kind() != io::ErrorKind::NotConnected {
                member.conn.handle_write_failed(error, &mut self.shared.chunks);
            }
        }
    }

    /// The end is decided: wakes the connection's threads out of the socket.
    ///
    /// A read is woken by shutting the read side alone, which sends nothing: the reset that an
    /// abort owes the peer must not come behind a FIN. A write that is stuck needs more, and then
    /// the FIN waits behind what the peer does not take; but one that has gone through, and whose
    /// thread has not come round to say so, is not stuck.
    pub(super) fn wake_sleepers(&self) {
        let mut how = Shutdown::Read;
        let until = system::now() + STUCK;
        loop {
            let member = lock(&self.cell.member);
            if how == Shutdown::Read || member.writing {
                self.cell.wake_io(&member, how);
            }
            let left = until.saturating_duration_since(system::now());
            if how == Shutdown::Both || !member.writing {
                return;
            }
            drop(member);
            match self.role {
                Role::Reader => self.cell.reader.wait(Some(left)),
                Role::Companion => self.cell.companion.wait(Some(left)),
            }
            if left.is_zero() {
                how = Shutdown::Both;
            }
        }
    }

    /// Ends the lingering of another connection, if this one's was too much. No lock is held.
    pub(super) fn cut_lingering(&mut self) {
        if let Some(cell) = self.cut.take().and_then(|id| self.hub.cell(id)) {
            cell.signal(Signal::Cut);
            cell.nudge(&self.hub);
        }
    }

    /// Tells the protocol that its connection has ended, and removes it.
    pub(super) fn tell_closed(&mut self) {
        let cell = Arc::clone(&self.cell);
        let mut member = lock(&cell.member);
        let Some(reason) = member.conn.poll_closed(self.shared.clock.exact()) else { return };
        debug_assert!(!member.writing, "whoever writes counts what has gone");
        if let (Some(socket), true) = (cell.socket.get(), member.conn.flags().any(Flags::RESET)) {
            system::reset_on_close(socket);
        }
        let peer = member.conn.peer();
        // The error in the reason is the user's, also in how it is displayed and dropped.
        let _ = guarded(|| log::debug!(target: "lariat::close", "{} {peer}: {reason}", cell.id));
        self.call(&mut member, |called| called.closed(&reason));
        self.hub.note_end(cell.id, &reason);
        self.shared.output.clear();
        self.shared.metrics.closes.count(reason.kind());
        let (protocol, lingered) = (member.protocol.take(), member.lingered);
        drop(member);
        if !drop_guarded(protocol) {
            self.shared.metrics.panics += 1;
        }
        let later = effects::apply(&mut self.author());
        let receivers = later.begin(&self.hub);
        self.drain_others(receivers);
        self.cut_lingering();
        self.publish();
        self.hub.leave(cell.id, lingered, reason.unsent());
        drop_guarded(reason);
        self.hub.drop_posts(cell.close_mail());
        cell.ring();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.publish();
        self.hub.remove_worker(&self.published);
    }
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
