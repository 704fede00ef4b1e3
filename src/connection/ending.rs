//! The end: closing, half-closing, breaking, deadlines, and the reason.

use std::sync::Arc;
use std::time::Duration;

use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::clock::nanos;
use crate::guard::drop_guarded;
use crate::reason::{By, Cause, CloseKind, CloseReason, ConnectFailure, Deadline, failed_transfer};

/// The tick lags by less than this: deadlines counted from a tick are rounded up by it.
const TICK: u64 = 1_000_000;

/// Who ended the connection and how, stored as soon as it is decided.
pub(crate) struct Ending {
    by: By,
    kind: CloseKind,
    cause: Option<Cause>,
}

/// Facts about an end: the reason once it is decided, and what was lost.
#[derive(Default)]
pub(crate) struct End {
    ending: Option<Ending>,
    /// When lingering began, and when a byte last came during it.
    linger: u64,
    linger_active: u64,
    /// The turn in which the end was decided.
    pub(super) turn: u64,
    /// Bytes that arrived before the connection broke and were read after it.
    pub(super) last_words: usize,
    /// Bytes that were not sent, not consumed, and written too late.
    pub(super) unsent: u64,
    pub(super) unread: u64,
    refused: u64,
}

impl Ending {
    /// Whether the connection was closed only because it was over.
    fn is_in_order(&self) -> bool {
        matches!(self.kind, CloseKind::Finished | CloseKind::Shutdown)
    }
}

/// The meaning of a passed deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Nothing,
    Something,
}

impl Connection {
    pub(super) fn end_mut(&mut self) -> &mut End {
        self.rare_mut().end.get_or_insert_with(Box::default)
    }

    fn end_box(&self) -> Option<&End> {
        self.rare()?.end.as_deref()
    }

    fn ending(&self) -> Option<&Ending> {
        self.end_box()?.ending.as_ref()
    }

    fn take_any_ending(&mut self) -> Option<Ending> {
        self.rare.as_mut()?.end.as_mut()?.ending.take()
    }

    // ---- requests ----------------------------------------------------------------------------

    pub(crate) fn want_close(&mut self) {
        self.flags.set(Flags::CLOSE_WANTED);
    }

    pub(crate) fn want_abort(&mut self) {
        self.flags.set(Flags::ABORT_WANTED);
    }

    pub(crate) fn want_fin(&mut self) {
        self.flags.set(Flags::FIN_WANTED);
    }

    pub(crate) fn want_overflow(&mut self) {
        self.flags.set(Flags::OVERFLOW);
    }

    /// Counts bytes written too late.
    pub(crate) fn handle_refused(&mut self, count: usize) {
        self.end_mut().refused += count as u64;
    }

    /// A callback failed. Its requests are applied first, then [`Connection::handle_wishes`] ends
    /// the connection.
    pub(crate) fn handle_failure(&mut self, kind: CloseKind, cause: Cause) {
        self.flags.set(Flags::FAILED);
        if self.flags.none(Flags::CLOSING | Flags::ENDED) {
            self.end_mut().ending = Some(Ending { by: By::Us, kind, cause: Some(cause) });
        }
    }

    /// The end that this callback brings by failing is to be a reset.
    #[cfg(feature = "http")]
    pub(crate) fn want_reset(&mut self) {
        self.flags.set(Flags::RESET);
    }

    /// Whether the failed callback panicked: its own writes are then dropped.
    pub(crate) fn has_panicked(&self) -> bool {
        self.flags.any(Flags::FAILED)
            && self.ending().is_some_and(|ending| ending.kind == CloseKind::Panicked)
    }

    /// Applies the requests of callbacks. `shutdown` says that the request to close came from
    /// `stopping`.
    pub(crate) fn handle_wishes(&mut self, pool: &mut ChunkPool, tick: u64, shutdown: bool) {
        let wishes = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::FAILED;
        if self.flags.any(wishes) {
            if self.flags.any(Flags::FAILED) {
                self.flags.clear(Flags::FAILED);
                if self.flags.none(Flags::CLOSING | Flags::ENDED) {
                    self.apply_failure(tick);
                }
            }
            if self.flags.any(Flags::ABORT_WANTED) {
                self.flags.set(Flags::RESET);
                let kind = if self.flags.any(Flags::CONNECTING) {
                    CloseKind::Connect(ConnectFailure::Cancelled)
                } else {
                    CloseKind::Aborted
                };
                self.end(By::Us, kind, None);
            } else if self.flags.any(Flags::OVERFLOW) && self.flags.none(Flags::ENDED) {
                self.flags.set(Flags::RESET);
                self.end(By::Runtime, CloseKind::OutputFull, None);
            } else if self.flags.any(Flags::CLOSE_WANTED) {
                let by = match (shutdown, self.flags.any(Flags::PEER_FIN)) {
                    (true, _) => By::Runtime,
                    (_, true) => By::Peer,
                    _ => By::Us,
                };
                let kind = if shutdown { CloseKind::Shutdown } else { CloseKind::Finished };
                self.begin_close(by, kind, None);
            }
            self.flags.clear(wishes);
        }
        if self.flags.any(Flags::LIMITS_CHANGED) {
            self.flags.clear(Flags::LIMITS_CHANGED);
            // Silence counts from now: without a limit the time of the last byte may be missing.
            self.active = self.active.max(tick);
        }
        if self.flags.any(Flags::ENDED) {
            self.drop_output(pool);
        } else {
            self.start_phase(tick);
        }
    }

    fn apply_failure(&mut self, tick: u64) {
        let Some(ending) = self.take_any_ending() else { return };
        if ending.kind == CloseKind::Panicked || self.flags.any(Flags::RESET) {
            self.end(ending.by, ending.kind, ending.cause);
        } else {
            self.begin_close(ending.by, ending.kind, ending.cause);
            self.start_phase(tick);
        }
    }

    /// `begin_close` knows no time; the first call after it does.
    fn start_phase(&mut self, tick: u64) {
        if self.flags.any(Flags::CLOSING) {
            let rare = self.rare_mut();
            if rare.phase == u64::MAX {
                rare.phase = tick;
                // Where the FIN is gone already, after a half-close, lingering begins here.
                self.note_linger(tick);
            }
        }
    }

    fn note_linger(&mut self, tick: u64) {
        let end = self.end_mut();
        end.linger = tick;
        end.linger_active = tick;
    }

    /// Ignores bytes that arrive while the connection is closing.
    pub(super) fn discard(&mut self, count: usize, tick: u64) {
        let end = self.end_mut();
        end.unread += count as u64;
        end.linger_active = tick;
    }

    /// Begins to close in order: no more callbacks but `closed`; flush, FIN, linger.
    pub(crate) fn begin_close(&mut self, by: By, kind: CloseKind, cause: Option<Cause>) {
        if self.flags.any(Flags::CLOSING | Flags::ENDED) {
            return;
        }
        if self.flags.any(Flags::CONNECTING) {
            let kind = match kind {
                CloseKind::Finished | CloseKind::Shutdown => {
                    CloseKind::Connect(ConnectFailure::Cancelled)
                }
                other => other,
            };
            return self.end(by, kind, cause);
        }
        if self.flags.any(Flags::BROKEN) {
            // There is nothing left to flush, and what broke the connection stays the reason.
            let broken = self.take_any_ending();
            let ending = broken.unwrap_or(Ending { by, kind, cause });
            return self.end(ending.by, ending.kind, ending.cause);
        }
        self.flags.set(Flags::CLOSING);
        self.stop_callbacks();
        self.lose_unread();
        self.end_mut().ending = Some(Ending { by, kind, cause });
        self.rare_mut().phase = u64::MAX;
    }

    pub(super) fn lose_unread(&mut self) {
        self.flags.clear(Flags::UNREAD);
        let unread = self.lend_unread();
        if !unread.is_empty() {
            self.end_mut().unread += unread.len() as u64;
        }
    }

    fn stop_callbacks(&mut self) {
        self.flags
            .clear(Flags::DUE | Flags::PAUSED | Flags::HELD | Flags::NEEDY | Flags::CONGESTED);
        self.flags.clear(Flags::LEFT);
        self.need = 0;
        if let Some(queues) = self.get_queues() {
            // A note is the user's, and so is its drop.
            for note in queues.notes.drain(..) {
                drop_guarded(note);
            }
        }
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

    /// The only way to the end, when its reason is stored: nothing is delivered or sent any more.
    fn conclude(&mut self) {
        self.stop_callbacks();
        self.lose_unread();
        self.flags.set(Flags::ENDED);
    }

    /// The connection has failed at the socket. What the kernel still holds is delivered first,
    /// unless the protocol has paused reading or is closing.
    pub(crate) fn break_off(&mut self, by: By, kind: CloseKind, cause: Option<Cause>) {
        if self.flags.any(Flags::ENDED) {
            return;
        }
        let undeliverable = Flags::CLOSING | Flags::PAUSED | Flags::CONNECTING;
        if self.flags.any(Flags::HELD) {
            self.flags.clear(Flags::HELD);
            self.show_again();
        }
        if self.flags.any(Flags::LEFT) {
            // No `drained` will come for which it could wait.
            self.flags.clear(Flags::LEFT);
            self.show_again();
        }
        let undelivered = self.flags.any(Flags::DATA_DUE)
            || (self.flags.any(Flags::READABLE) && self.flags.none(Flags::PEER_FIN));
        if self.flags.any(undeliverable) || !undelivered {
            // The reason that broke the connection first, or made it close, says more than this
            // one.
            let first = self.take_ending(self.flags.any(Flags::BROKEN));
            let Ending { by, kind, cause } = first.unwrap_or(Ending { by, kind, cause });
            return self.end(by, kind, cause);
        }
        if self.flags.none(Flags::BROKEN) {
            self.flags.set(Flags::BROKEN);
            self.flags.clear(Flags::EOF_DUE | Flags::CONGESTED | Flags::DRAINED_DUE);
            if self.flags.none(Flags::FAILED) {
                self.end_mut().ending = Some(Ending { by, kind, cause });
            }
        }
    }

    /// Takes the end that was decided before; one in order only if `in_order` counts as well.
    fn take_ending(&mut self, in_order: bool) -> Option<Ending> {
        let decided = |ending: &mut Ending| in_order || !ending.is_in_order();
        self.rare.as_mut()?.end.as_mut()?.ending.take_if(decided)
    }

    /// A write failed: what the kernel still holds of the input is read first.
    pub(crate) fn handle_write_failed(&mut self, error: std::io::Error, pool: &mut ChunkPool) {
        if self.flags.none(Flags::PEER_FIN) {
            self.flags.set(Flags::READABLE | Flags::HUNG);
        }
        self.handle_failed_transfer(error, pool);
    }

    /// A read failed. Nothing more can come.
    pub(crate) fn handle_read_failed(&mut self, error: std::io::Error, pool: &mut ChunkPool) {
        self.flags.clear(Flags::READABLE | Flags::HUNG);
        self.handle_failed_transfer(error, pool);
    }

    fn handle_failed_transfer(&mut self, error: std::io::Error, pool: &mut ChunkPool) {
        let (by, kind) = failed_transfer(&error);
        if kind == CloseKind::SystemError {
            // The peer is still there: the lost bytes must not look like the end to it.
            self.flags.set(Flags::RESET);
        }
        self.break_off(by, kind, Some(Cause::new(error)));
        self.drop_output(pool);
    }

    /// The driver is being shut down: an open connection gets `stopping`, a connect under way is
    /// cancelled.
    pub(crate) fn handle_shutdown(&mut self) {
        let open = Flags::OPENED | Flags::OPENED_DUE;
        if self.flags.any(open) && self.flags.none(Flags::CONNECTING | Flags::HANDSHAKING) {
            // A protocol that takes over gets `opened` first.
            self.handle_stopping();
        } else {
            self.begin_close(By::Runtime, CloseKind::Shutdown, None);
        }
    }

    /// The drain time is over. An earlier reason stays.
    pub(crate) fn handle_drain_over(&mut self) {
        if self.is_lingering() {
            // Everything was sent, which a reset could destroy.
            return self.handle_linger_cut();
        }
        if self.closes_for_cause() {
            self.flags.set(Flags::RESET);
            self.conclude();
        } else {
            self.handle_reset(By::Runtime, CloseKind::Shutdown);
        }
    }

    /// Whether the connection is closing for a reason of its own.
    fn closes_for_cause(&self) -> bool {
        self.flags.any(Flags::CLOSING) && self.ending().is_some_and(|ending| !ending.is_in_order())
    }

    /// Whether a broken connection has delivered what it could; it then ends with what broke it.
    pub(super) fn poll_broken_end(&mut self) -> bool {
        let over = self.flags.any(Flags::BROKEN)
            && self.flags.none(Flags::ENDED)
            && (self.flags.any(Flags::PAUSED)
                || (self.flags.none(Flags::DATA_DUE)
                    && (self.flags.any(Flags::PEER_FIN) || self.flags.none(Flags::READABLE))));
        if over {
            if let Some(Ending { by, kind, cause }) = self.take_any_ending() {
                self.end(by, kind, cause);
            }
        }
        over
    }

    fn drop_output(&mut self, pool: &mut ChunkPool) {
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

    // ---- FIN ---------------------------------------------------------------------------------

    /// Whether our FIN is to be sent now. Ends the filter's direction first.
    pub(super) fn poll_fin(&mut self, pool: &mut ChunkPool, tick: u64) -> bool {
        let wanted = self.flags.any(Flags::CLOSING | Flags::FIN_WANTED);
        let hindered = Flags::FIN_SENT | Flags::CONNECTING | Flags::ENDED | Flags::BROKEN;
        if !wanted || self.flags.any(hindered) {
            return false;
        }
        if self.flags.any(Flags::HANDSHAKING) && self.flags.none(Flags::CLOSING) {
            return false;
        }
        let clear_left = self.queues().map_or(0, |queues| queues.queue.len());
        if self.flags.any(Flags::HANDSHAKING) {
            // Clear bytes that wait for a filter that will never open.
            self.lose_queue();
        } else if clear_left > 0 {
            return false;
        }
        if self.flags.any(Flags::FILTERED) && self.flags.none(Flags::FILTER_FINISHED) {
            self.finish_filter(pool, tick);
        }
        if self.unsent() == 0 {
            self.flags.clear(Flags::QUEUED);
        }
        self.flags.none(Flags::QUEUED | Flags::ENDED)
    }

    /// Our FIN is on its way.
    pub(crate) fn handle_fin_sent(&mut self, tick: u64) {
        self.flags.set(Flags::FIN_SENT);
        if self.flags.any(Flags::CLOSING) {
            self.note_linger(tick);
        }
    }

    /// Whether the connection is over because both directions have ended.
    pub(super) fn poll_finished(&mut self) -> bool {
        let both = self.flags.any(Flags::FIN_SENT) && self.flags.any(Flags::PEER_FIN);
        if !both || self.flags.any(Flags::ENDED) {
            return false;
        }
        if self.flags.none(Flags::CLOSING) {
            if self.flags.none(Flags::EOF_DONE) || self.flags.any(Flags::DUE) {
                return false;
            }
            self.begin_close(By::Us, CloseKind::Finished, None);
        }
        // The end that closing began with stays.
        self.conclude();
        true
    }

    /// Whether the connection is closing and waits for nothing but the peer's FIN.
    pub(crate) fn is_lingering(&self) -> bool {
        self.flags.any(Flags::CLOSING)
            && self.flags.any(Flags::FIN_SENT)
            && self.flags.none(Flags::ENDED)
    }

    /// Ends lingering early, because places or descriptors are needed.
    pub(crate) fn handle_linger_cut(&mut self) {
        if self.is_lingering() {
            self.conclude();
        }
    }

    // ---- deadlines ---------------------------------------------------------------------------

    /// The nearest built-in deadline; `u64::MAX` when there is none.
    pub(crate) fn poll_deadline(&self) -> u64 {
        self.poll_deadline_beside(false)
    }

    /// As [`Connection::poll_deadline`]. While a thread sleeps in a write, it alone judges whether
    /// the write has stalled: other threads cannot know what the socket has taken.
    pub(crate) fn poll_deadline_beside(&self, writing: bool) -> u64 {
        // What has broken ends by itself, as soon as what had arrived is read.
        if self.flags.any(Flags::ENDED | Flags::BROKEN) {
            return u64::MAX;
        }
        let limits = &self.limits;
        let mut nearest = u64::MAX;
        let mut by = |from: u64, limit: Duration| {
            nearest = nearest.min(from.saturating_add(nanos(limit)).saturating_add(TICK));
        };
        if let Some(rare) = self.rare() {
            if self.flags.any(Flags::CONNECTING) {
                by(rare.phase, limits.connect);
                return nearest;
            }
            if self.flags.any(Flags::CLOSING) {
                by(rare.phase, limits.close_deadline);
                if let (Some(end), true) = (&rare.end, self.flags.any(Flags::FIN_SENT)) {
                    by(end.linger, limits.linger_total);
                    by(end.linger_active, limits.linger_idle);
                }
            } else if self.flags.any(Flags::HANDSHAKING) {
                by(rare.phase, limits.handshake);
            }
            if self.flags.any(Flags::QUEUED) && self.flags.none(Flags::HANDSHAKING) && !writing {
                by(self.progress(), limits.write_stall);
            }
        }
        if let Some(idle) = self.idle.under(limits) {
            if self.flags.none(Flags::CLOSING | Flags::HANDSHAKING) {
                by(self.active, idle);
            }
        }
        nearest
    }

    /// Applies the deadlines that have passed at `now`.
    pub(crate) fn handle_deadline(&mut self, now: u64, pool: &mut ChunkPool) -> Expired {
        if self.poll_deadline() > now {
            return Expired::Nothing;
        }
        let limits = Arc::clone(&self.limits);
        let passed = |from: u64, limit: Duration| {
            from.saturating_add(nanos(limit)).saturating_add(TICK) <= now
        };
        let timed_out = |deadline| CloseKind::TimedOut(deadline);
        let (phase, progress) = (self.rare().map_or(0, |rare| rare.phase), self.progress());
        if self.flags.any(Flags::CONNECTING) {
            self.end(By::Runtime, timed_out(Deadline::Connect), None);
        } else if self.flags.any(Flags::CLOSING) {
            self.close_expired(
                passed(phase, limits.close_deadline),
                passed(progress, limits.write_stall),
            );
        } else if self.flags.any(Flags::HANDSHAKING) {
            self.flags.set(Flags::RESET);
            self.end(By::Runtime, timed_out(Deadline::Handshake), None);
        } else if self.flags.any(Flags::QUEUED) && passed(progress, limits.write_stall) {
            self.flags.set(Flags::RESET);
            self.end(By::Runtime, timed_out(Deadline::Write), None);
        } else {
            self.begin_close(By::Runtime, timed_out(Deadline::Idle), None);
            self.start_phase(now);
        }
        if self.flags.any(Flags::ENDED) {
            self.drop_output(pool);
        }
        Expired::Something
    }

    fn close_expired(&mut self, closing: bool, stalled: bool) {
        if self.flags.any(Flags::FIN_SENT) {
            // Everything was sent; the peer has had its time to read it.
            return self.conclude();
        }
        let deadline = match (closing, stalled) {
            (true, _) => Deadline::Close,
            (_, true) => Deadline::Write,
            _ => return,
        };
        self.flags.set(Flags::RESET);
        if self.ending().is_none_or(Ending::is_in_order) {
            self.end(By::Runtime, CloseKind::TimedOut(deadline), None);
        } else {
            // What began the close says more than the missed deadline.
            self.conclude();
        }
    }

    // ---- the reason --------------------------------------------------------------------------

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
