//! Requests of handles for one connection, and who carries them out: whoever has the connection's
//! lock next.
//!
//! Both threads of a connection may be asleep in the socket, one in `read` and one in a `write`
//! that the peer does not take, and nothing of this may wait for that. So whoever leaves a request
//! tries for the lock behind it; and a thread that is about to sleep in the socket looks for
//! requests once more after it has given up the lock. One of the two finds it, whatever the order.

use std::sync::{PoisonError, TryLockError};

use super::cell::{Cell, Member, Signal};
use super::hub::Hub;
use super::worker::Worker;
use crate::buffer::ChunkPool;
use crate::connection::{self, Written};
use crate::guard::drop_guarded;
use crate::handle::Post;
use crate::metrics::Metrics;
use crate::note::Note;
use crate::sync::atomic::{Ordering, fence};

/// What it takes to change a connection for somebody else.
pub(super) struct Tools<'a> {
    pub(super) chunks: &'a mut ChunkPool,
    pub(super) metrics: &'a mut Metrics,
    pub(super) now: u64,
}

/// What became of bytes for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    Refused,
    /// The connection ends of it.
    TooMuch,
    Waiting,
}

impl Tools<'_> {
    /// Queues bytes for a connection.
    pub(super) fn queue(&mut self, member: &mut Member, written: Written<'_>) -> Queued {
        let count = written.len();
        if count == 0 {
            return Queued::Refused;
        }
        match member.conn.take_queued(written, false, self.chunks, self.now) {
            connection::Queued::Refused => {
                self.metrics.refused_bytes += count as u64;
                Queued::Refused
            }
            connection::Queued::Lost => {
                member.conn.handle_wishes(self.chunks, self.now, false);
                Queued::TooMuch
            }
            connection::Queued::Waiting | connection::Queued::Held => Queued::Waiting,
        }
    }

    /// Carries out what has come by mail. Gives back the notes that were too many: their drop is
    /// the user's.
    fn take_mail(&mut self, cell: &Cell, member: &mut Member, hub: &Hub) -> Vec<Note> {
        let mail = cell.take_mail();
        hub.count_taken(mail.len());
        let mut back = Vec::new();
        for post in mail {
            match post {
                Post::Write { content, .. } => {
                    self.queue(member, content.written(&[], &[]));
                }
                Post::ShutdownWrite(_) => member.conn.want_fin(),
                Post::Close(_) => member.conn.want_close(),
                Post::Notify { note, .. } => back.extend(member.conn.handle_note(note).err()),
                // The thread that called `run` does that.
                Post::Call(_) => {}
            }
            // At once: what comes behind a close must find the connection closed.
            member.conn.handle_wishes(self.chunks, self.now, false);
        }
        self.metrics.refused_notes += back.len() as u64;
        back
    }
}

impl Worker {
    /// Applies what others have asked for since somebody last looked. True when there was anything.
    pub(super) fn take_requests(&mut self, cell: &Cell, member: &mut Member) -> bool {
        let signals = cell.take_signals(&mut member.conn);
        if signals.has(Signal::Mail) {
            let now = self.shared.clock.exact();
            let (chunks, metrics) = (&mut self.shared.chunks, &mut self.shared.metrics);
            let back = Tools { chunks, metrics, now }.take_mail(cell, member, &self.hub);
            for note in back {
                drop_guarded(note);
            }
        }
        !signals.is_empty()
    }
}

impl Cell {
    /// Whether there are requests that nobody has looked at: for a thread that holds no lock and is
    /// about to sleep in the socket.
    #[inline(always)]
    pub(super) fn is_asked(&self) -> bool {
        fence(Ordering::SeqCst);
        self.has_requests()
    }
}

impl Hub {
    /// Carries out the mail of a connection, unless a thread has its lock, which looks then.
    pub(super) fn carry_mail(&self, cell: &Cell) {
        fence(Ordering::SeqCst);
        while cell.has_mail() {
            let mut member = match cell.member.try_lock() {
                Ok(member) => member,
                Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
                Err(TryLockError::WouldBlock) => return,
            };
            // Nothing that others wait for may be held: notes and bytes that are dropped with a
            // queue may ask for something themselves.
            let (mut counted, mut chunks) = (Metrics::default(), ChunkPool::default());
            let now = self.clock.exact();
            let mut tools = Tools { chunks: &mut chunks, metrics: &mut counted, now };
            let back = tools.take_mail(cell, &mut member, self);
            cell.wake_if_ended(&member);
            drop(member);
            self.count(|metrics| metrics.add(&counted));
            for note in back {
                drop_guarded(note);
            }
            // The lock has been given up: others may have tried for it in vain.
            fence(Ordering::SeqCst);
        }
    }
}
