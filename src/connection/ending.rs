//! The end, the same for every way to it, and its reason.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::detached::Detached;
use crate::guard::drop_guarded;
use crate::reason::{By, Cause, CloseKind, CloseReason, Deadline};

/// Who ended the connection and how, stored as soon as it is decided.
pub(crate) struct Ending {
    pub(super) by: By,
    pub(super) kind: CloseKind,
    pub(super) cause: Option<Cause>,
}

/// Facts about an end: the reason once it is decided, and what was lost.
#[derive(Default)]
pub(crate) struct End {
    pub(super) ending: Option<Ending>,
    /// When lingering began, and when a byte last came during it.
    pub(super) linger: u64,
    pub(super) linger_active: u64,
    /// The turn in which the end was decided.
    pub(super) turn: u64,
    /// Bytes that arrived before the connection broke and were read after it.
    pub(super) last_words: usize,
    /// Bytes that were not sent, not consumed, and written too late.
    pub(super) unsent: u64,
    pub(super) unread: u64,
    pub(super) refused: u64,
    /// The socket on its way out of the driver, and where it has left.
    pub(super) leaving: Option<OwnedFd>,
    pub(super) detached: Option<Detached>,
}

impl Ending {
    /// Whether the connection was closed only because it was over.
    pub(super) fn is_in_order(&self) -> bool {
        matches!(self.kind, CloseKind::Finished | CloseKind::Shutdown)
    }
}

impl Connection {
    pub(super) fn end_mut(&mut self) -> &mut End {
        self.rare_mut().end.get_or_insert_with(Box::default)
    }

    pub(super) fn end_box(&self) -> Option<&End> {
        self.rare()?.end.as_deref()
    }

    pub(super) fn ending(&self) -> Option<&Ending> {
        self.end_box()?.ending.as_ref()
    }

    pub(super) fn take_any_ending(&mut self) -> Option<Ending> {
        self.rare.as_mut()?.end.as_mut()?.ending.take()
    }

    /// Ends the connection at once. The first end is the one that counts.
    pub(crate) fn end(&mut self, by: By, kind: CloseKind, cause: Option<Cause>) {
        if self.flags.any(Flags::ENDED) {
            return;
        }
        if kind == CloseKind::Panicked {
            self.flags.set(Flags::RESET);
        }
        self.end_mut().ending = Some(Ending { by, kind, cause });
        self.conclude();
    }

    /// Ends the connection with a reset.
    pub(crate) fn handle_reset(&mut self, by: By, kind: CloseKind) {
        self.flags.set(Flags::RESET);
        self.end(by, kind, None);
    }

    /// Whether this deadline has ended the connection.
    pub(crate) fn has_timed_out(&self, deadline: Deadline) -> bool {
        self.ending().is_some_and(|ending| ending.kind == CloseKind::TimedOut(deadline))
    }

    /// Says why the connection ended, where its end has no cause of its own.
    pub(crate) fn put_cause(&mut self, cause: Cause) {
        if let Some(ending) = self.end_mut().ending.as_mut() {
            ending.cause.get_or_insert(cause);
        }
    }

    /// The only way to the end, when its reason is stored: nothing is delivered or sent any more.
    pub(super) fn conclude(&mut self) {
        self.stop_callbacks();
        self.lose_unread();
        self.flags.set(Flags::ENDED);
        if self.flags.any(Flags::DETACHING) {
            // Another end came first: the peer must not wait for a second descriptor.
            self.end_mut().leaving = None;
        }
    }

    pub(super) fn stop_callbacks(&mut self) {
        self.flags
            .clear(Flags::DUE | Flags::PAUSED | Flags::HELD | Flags::NEEDY | Flags::CONGESTED);
        self.flags.clear(Flags::LEFT);
        self.need = 0;
        if let Some(queues) = self.get_queues() {
            // A note is the user's, and so is its drop.
            queues.notes_counted = 0;
            for (note, _) in queues.notes.drain(..) {
                drop_guarded(note);
            }
        }
    }

    pub(super) fn lose_unread(&mut self) {
        self.flags.clear(Flags::UNREAD);
        let unread = self.lend_unread();
        if !unread.is_empty() {
            self.end_mut().unread += unread.len() as u64;
        }
    }

    pub(super) fn drop_output(&mut self, pool: &mut ChunkPool) {
        let mut lost = 0;
        if let Some(filtered) = self.get_filtered() {
            lost += filtered.wire.clear(pool);
        }
        if let Some(queues) = self.get_queues() {
            lost += queues.queue.clear(pool);
            queues.caused = 0;
        }
        self.lose_output(lost);
        self.flags.clear(Flags::QUEUED);
    }

    /// The end was decided in this turn of the loop; `closed` waits for a later one.
    pub(crate) fn put_end_turn(&mut self, turn: u64) {
        self.end_mut().turn = turn;
    }

    /// Whether the end was decided in this turn.
    pub(crate) fn has_ended_in(&self, turn: u64) -> bool {
        self.rare().and_then(|rare| rare.end.as_ref()).is_some_and(|end| end.turn == turn)
    }

    /// The reason for `closed`, once: marks `closed` as run.
    pub(crate) fn poll_closed(&mut self, now: u64) -> Option<CloseReason> {
        if self.flags.none(Flags::ENDED) || self.flags.any(Flags::CLOSED) {
            return None;
        }
        self.flags.set(Flags::CLOSED);
        let reason = self.reason(now);
        // The error is the user's: it is dropped where the reason is, and nowhere else.
        self.end_mut().ending = None;
        Some(reason)
    }

    /// The reason as soon as it is decided, before `closed` runs. That of a close in order may
    /// still become the deadline that it misses.
    pub(crate) fn decided(&self, now: u64) -> Option<CloseReason> {
        let decided = self.flags.any(Flags::CLOSING | Flags::BROKEN | Flags::ENDED);
        decided.then(|| self.reason(now))
    }

    fn reason(&self, now: u64) -> CloseReason {
        let ending = self.ending();
        let (by, kind) =
            ending.map_or((By::Us, CloseKind::Finished), |ending| (ending.by, ending.kind));
        let (unsent, unread, refused) =
            self.end_box().map_or((0, 0, 0), |end| (end.unsent, end.unread, end.refused));
        CloseReason {
            by,
            kind,
            cause: ending.and_then(|ending| ending.cause.clone()),
            unsent,
            unread,
            refused,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            age: Duration::from_nanos(now.saturating_sub(self.since)),
            peer_finished: self.flags.any(Flags::PEER_FIN),
        }
    }
}
