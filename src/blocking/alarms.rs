//! Timers of the driver: any thread sets them, and the one that called `run` runs them.

use std::mem;
use std::time::Duration;

use super::hub::{Hub, lock};
use crate::clock::nanos;
use crate::guard::drop_guarded;
use crate::metrics::Metrics;
use crate::protocol::{Closures, Common, SendClosure, TimerId};
use crate::timer::Timers;

/// The timers that are set, and what each runs. They are part of the hub's state, so that the
/// thread that waits for the nearest of them hears of a nearer one.
#[derive(Default)]
pub(super) struct Alarms {
    timers: Timers<u64>,
    closures: Closures<SendClosure>,
}

impl Alarms {
    /// Whether no timer is set. One that has fired counts until its closure has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.closures.is_empty()
    }

    /// When the next timer fires.
    pub(super) fn next(&self) -> Option<u64> {
        self.timers.next().filter(|next| *next < u64::MAX)
    }

    /// The timers that have fired by now. Those that are set from here on wait for the next call,
    /// also when they have no delay.
    pub(super) fn fired(&mut self, now: u64) -> Vec<TimerId> {
        let mut fired = Vec::new();
        while let Some((number, _)) = self.timers.pop_due(now) {
            fired.push(TimerId(number));
        }
        fired
    }

    /// The closure of a timer that has fired, unless it was cancelled since.
    pub(super) fn take(&mut self, timer: TimerId) -> Option<SendClosure> {
        self.closures.take(timer).map(|(_, closure)| closure)
    }

    /// Takes out all closures: nothing runs them any more.
    pub(super) fn take_all(&mut self) -> Vec<SendClosure> {
        mem::take(&mut self.timers);
        self.closures.take_all()
    }
}

impl Common for Hub {
    fn metrics(&self) -> Metrics {
        Hub::metrics(self)
    }

    fn set_timer(&self, delay: Duration, closure: SendClosure) -> TimerId {
        let deadline = self.clock.exact().saturating_add(nanos(delay));
        let mut state = lock(&self.state);
        let Alarms { timers, closures } = &mut state.alarms;
        let timer = closures.add(closure, |number| timers.arm(deadline, number));
        // Nobody runs it any more, and it may hold what holds the hub.
        let late = if state.ended { state.alarms.take_all() } else { Vec::new() };
        drop(state);
        self.changed.notify_all();
        for closure in late {
            drop_guarded(closure);
        }
        timer
    }

    fn cancel_timer(&self, timer: TimerId) -> Option<SendClosure> {
        let mut state = lock(&self.state);
        let (key, closure) = state.alarms.closures.take(timer)?;
        state.alarms.timers.cancel(key);
        drop(state);
        // The last one may be what `run` has waited for.
        self.changed.notify_all();
        Some(closure)
    }
}
