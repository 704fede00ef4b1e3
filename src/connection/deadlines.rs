//! The built-in deadlines: connect, handshake, write, idle, close and linger.

use std::sync::Arc;
use std::time::Duration;

use super::ending::Ending;
use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::clock::{TICK, nanos};
use crate::reason::{By, CloseKind, Deadline};
use crate::timer::TimerKey;

/// The meaning of a passed deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Nothing,
    Something,
}

impl Connection {
    pub(crate) fn deadline_key(&self) -> Option<TimerKey> {
        self.deadline
    }

    pub(crate) fn put_deadline(&mut self, key: Option<TimerKey>) {
        self.deadline = key;
    }

    /// `latest` says when at the latest that has happened which has a stamp: no deadline counts
    /// from earlier.
    pub(crate) fn handle_stamps(&mut self, latest: impl Fn(u64) -> u64) {
        self.active = latest(self.active);
        let Some(rare) = &mut self.rare else { return };
        if rare.phase < u64::MAX {
            rare.phase = latest(rare.phase);
        }
        if let Some(queues) = &mut rare.queues {
            queues.progress = latest(queues.progress);
        }
        if let Some(end) = &mut rare.end {
            end.linger = latest(end.linger);
            end.linger_active = latest(end.linger_active);
        }
    }

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
                if self.handshake_is_part_of_connect() {
                    by(self.since, limits.connect);
                }
            }
            if self.flags.any(Flags::QUEUED) && self.flags.none(Flags::HANDSHAKING) && !writing {
                by(self.progress(), limits.write_stall);
            }
        }
        if let Some(idle) = self.idle.under(limits) {
            // On threads `opened` may run late: silence is judged after it.
            if self.flags.none(Flags::CLOSING | Flags::HANDSHAKING | Flags::OPENED_DUE) {
                by(self.active, idle);
            }
        }
        nearest
    }

    /// Whether the time for a connect goes on: its connection begins with this handshake.
    fn handshake_is_part_of_connect(&self) -> bool {
        self.flags.any(Flags::DIALLED) && self.flags.none(Flags::REPLACED)
    }

    /// Whether input puts off the deadline that passes next. Most of those of a close are for all
    /// of it, however much still comes: only lingering ends by silence too.
    fn waits_for_input(&self, now: u64) -> bool {
        if self.flags.none(Flags::CLOSING) {
            return true;
        }
        let Some(end) = self.end_box().filter(|_| self.flags.any(Flags::FIN_SENT)) else {
            return false;
        };
        let phase = self.rare().map_or(0, |rare| rare.phase);
        let limits = &self.limits;
        [(phase, limits.close_deadline), (end.linger, limits.linger_total)]
            .into_iter()
            .all(|(from, limit)| from.saturating_add(nanos(limit)).saturating_add(TICK) > now)
    }

    /// Whether the deadline that has passed by `now` has to wait until the socket was tried.
    pub(crate) fn is_untried(&self, now: u64) -> bool {
        let deadline = self.poll_deadline();
        if deadline > now {
            return false;
        }
        let input = self.waits_for_input(now) && self.has_input_since(deadline);
        input || (self.has_output() && self.progress() < deadline)
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
            let end = |from: u64, limit| from.saturating_add(nanos(limit));
            let first = end(self.since, limits.connect) < end(phase, limits.handshake);
            let of_connect = first && self.handshake_is_part_of_connect();
            let deadline = if of_connect { Deadline::Connect } else { Deadline::Handshake };
            self.flags.set(Flags::RESET);
            self.end(By::Runtime, timed_out(deadline), None);
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
}
