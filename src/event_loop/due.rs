//! Steps 3 and 7: timers and deadlines that are due.
//!
//! What has happened comes before what has not. A process that was stopped, or busy with other
//! work, finds deadlines passed and input waiting that no poll has reported: a poll takes a limited
//! number of events, and it may be interrupted. So a connection with something due tries its socket
//! in step 6 first, and step 7 waits for that. What is not due costs nothing.

use std::mem;

use super::system::System;
use super::{EventLoop, MILLISECOND};
use crate::connection::{Expired, Flags, Listing};
use crate::id::ConnId;
use crate::protocol::{Callback, TimerOwner};
use crate::timer::{Timer, TimerKey};

/// A timer that fires later than this is counted as late.
const LATE: u64 = 10 * MILLISECOND;

impl<S: System> EventLoop<S> {
    #[inline(always)]
    pub(super) fn take_due(&mut self, tick: u64) {
        if self.shared.timers.next().is_some_and(|next| next <= tick) {
            self.take_all_due(tick);
        }
    }

    /// Timers that are set from here on are not due before the next turn, also those with no delay.
    #[cold]
    fn take_all_due(&mut self, tick: u64) {
        self.chores = true;
        while self.due.len() < self.limits.timers_max {
            let at = self.shared.timers.next().unwrap_or(u64::MAX);
            let Some((owner, key)) = self.shared.timers.pop_due(tick) else { break };
            self.due.push((owner, key, at));
            self.try_socket(owner, tick);
        }
    }

    /// The connection for which this is due tries its socket in step 6.
    fn try_socket(&mut self, owner: TimerOwner, tick: u64) {
        let (TimerOwner::Protocol(id, _) | TimerOwner::Deadline(id)) = owner else { return };
        let Some(entry) = self.table.get_mut(id) else { return self.try_datagrams(id) };
        if matches!(owner, TimerOwner::Deadline(_)) {
            entry.conn.handle_stamps(|stamp| self.long_turns.latest(stamp));
        }
        let moved = matches!(owner, TimerOwner::Deadline(_)) && entry.conn.poll_deadline() > tick;
        if moved {
            // Activity has moved the deadline since it was armed.
            return;
        }
        // What would have put it off may have happened without a word of the system.
        match entry.conn.handle_ready(Flags::READABLE | Flags::WRITABLE) {
            Listing::Ready => self.ready.push(id),
            Listing::Bulk => self.bulk.push_back(id),
            Listing::No => {}
        }
    }

    pub(super) fn run_due(&mut self) {
        let mut due = mem::take(&mut self.due);
        for (owner, key, at) in due.drain(..) {
            if self.put_off(owner, key, at) {
                continue;
            }
            let fired = self.shared.metrics.timers;
            match owner {
                TimerOwner::Protocol(id, timer) => self.fire(id, timer, key),
                TimerOwner::Deadline(id) => self.check_deadline(id, key),
                TimerOwner::Accept => self.retry_accepts(),
                TimerOwner::Drain => self.end_drain(),
                TimerOwner::Closure(number) => {
                    self.shared.run_timer(number);
                    self.apply_driver_effects();
                }
            }
            // One that was cancelled meanwhile, or whose deadline has moved, has not fired.
            let late = self.shared.clock.tick().saturating_sub(at) > LATE;
            let metrics = &mut self.shared.metrics;
            metrics.late_timers += u64::from(late && metrics.timers > fired);
        }
        self.due = due;
    }

    /// Whether what is due has to wait for a later turn, as the connection has not had its own to
    /// try the socket: there were others in front of it, or the bytes of this turn are used up.
    fn put_off(&mut self, owner: TimerOwner, key: TimerKey, at: u64) -> bool {
        let (TimerOwner::Protocol(id, _) | TimerOwner::Deadline(id)) = owner else { return false };
        let now = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else {
            return self.put_off_datagrams(owner, key, at);
        };
        match owner {
            TimerOwner::Protocol(_, timer) => {
                let waits = entry.conn.has_timer(timer, key) && entry.conn.has_input_since(at);
                if waits {
                    let key = self.shared.timers.put_back(at, owner, key);
                    entry.conn.put_timer(timer, key);
                }
                waits
            }
            _ => {
                let waits = entry.conn.is_untried(now);
                if waits {
                    entry.conn.put_deadline(Some(self.shared.timers.put_back(at, owner, key)));
                }
                waits
            }
        }
    }

    /// A timer of a protocol is due. It may have been cancelled or set again since it was taken
    /// out.
    fn fire(&mut self, id: ConnId, timer: Timer, key: TimerKey) {
        let Some(entry) = self.table.get_mut(id) else {
            return self.fire_datagrams(id, timer, key);
        };
        if !entry.conn.has_timer(timer, key) {
            return;
        }
        entry.conn.take_timer(timer);
        if entry.conn.may_call() {
            self.shared.metrics.timers += 1;
            entry.called(&mut self.shared).timeout(timer);
            self.settle_after(id, Callback::Timeout);
        }
    }

    fn check_deadline(&mut self, id: ConnId, key: TimerKey) {
        let now = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else {
            return self.check_datagram_deadline(id, key);
        };
        debug_assert_eq!(entry.conn.deadline_key(), Some(key), "it is armed again from here alone");
        entry.conn.put_deadline(None);
        if entry.conn.handle_deadline(now, &mut self.shared.chunks) == Expired::Something {
            self.shared.metrics.timers += 1;
        }
        // Arms the next one, also when activity has moved the deadline since it was armed.
        self.finish(id);
    }
}
