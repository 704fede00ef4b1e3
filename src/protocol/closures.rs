//! Closures that run on the driver's thread, at once or by a timer of the driver.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::{Control, Shared, TimerOwner};
use crate::clock::nanos;
use crate::guard::{drop_guarded, guarded};
use crate::timer::TimerKey;

/// A closure that runs on the driver's thread.
pub(crate) type Closure = Box<dyn FnOnce(&mut Control<'_>)>;

/// A closure that another thread may hand to the driver's thread.
pub(crate) type SendClosure = Box<dyn FnOnce(&mut Control<'_>) + Send>;

/// Names a timer of a driver, for [`Control::cancel_timer`]. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId(pub(crate) u64);

/// The closures that timers of the driver run, by the number of their timer.
pub(crate) struct Closures<C> {
    next: u64,
    waiting: BTreeMap<u64, (TimerKey, C)>,
}

impl<C> Default for Closures<C> {
    fn default() -> Closures<C> {
        Closures { next: 0, waiting: BTreeMap::new() }
    }
}

impl<C> Closures<C> {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    #[cfg(debug_assertions)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps a closure until its timer fires. `arm` sets the timer for the number it is given.
    pub(crate) fn add(&mut self, closure: C, arm: impl FnOnce(u64) -> TimerKey) -> TimerId {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, (arm(number), closure));
        TimerId(number)
    }

    /// Takes out the closure of a timer and the key that cancels it; None when it was taken before.
    pub(crate) fn take(&mut self, timer: TimerId) -> Option<(TimerKey, C)> {
        self.waiting.remove(&timer.0)
    }

    /// Takes out all closures: their timers run nothing.
    pub(crate) fn take_all(&mut self) -> Vec<C> {
        self.take_timers().map(|(_, closure)| closure).collect()
    }

    /// Takes out all closures with the keys that cancel their timers.
    fn take_timers(&mut self) -> impl Iterator<Item = (TimerKey, C)> + use<C> {
        mem::take(&mut self.waiting).into_values()
    }
}

impl<C> Drop for Closures<C> {
    fn drop(&mut self) {
        for closure in self.take_all() {
            drop_guarded(closure);
        }
    }
}

impl Shared {
    pub(crate) fn set_closure(&mut self, delay: Duration, closure: Closure) -> TimerId {
        let deadline = self.deadline_after(delay);
        let Shared { closures, timers, .. } = self;
        closures.add(closure, |number| timers.arm(deadline, TimerOwner::Closure(number)))
    }

    /// Cancels a timer of the driver; false when it has run or was cancelled before.
    pub(crate) fn cancel_closure(&mut self, timer: TimerId) -> bool {
        if let Some(common) = &self.common {
            return common.cancel_timer(timer).map(drop_guarded).is_some();
        }
        let Some((key, closure)) = self.closures.take(timer) else { return false };
        self.timers.cancel(key);
        drop_guarded(closure);
        true
    }

    /// Cancels all timers of the driver: it has ended.
    pub(crate) fn drop_closures(&mut self) {
        for (key, closure) in self.closures.take_timers() {
            self.timers.cancel(key);
            drop_guarded(closure);
        }
    }

    /// The deadline of a timer that is set now.
    pub(crate) fn deadline_after(&self, delay: Duration) -> u64 {
        match nanos(delay) {
            // It lies in the past, so the next turn finds it due; and behind what was due before,
            // so that a timer that is set again and again goes in front of no other.
            0 => self.clock.recent(),
            delay => self.clock.exact().saturating_add(delay),
        }
    }

    /// Runs the closure of a timer that has fired, unless it was cancelled meanwhile.
    pub(crate) fn run_timer(&mut self, number: u64) {
        if let Some((_, closure)) = self.closures.take(TimerId(number)) {
            self.metrics.timers += 1;
            self.run_closure(closure);
        }
    }

    /// Runs a closure. Its requests remain to be applied, also when it panicked.
    pub(crate) fn run_closure(&mut self, closure: Closure) {
        let mut control = Control::new(self);
        if let Err(panic) = guarded(|| closure(&mut control)) {
            drop(control);
            self.metrics.panics += 1;
            log::error!(target: "lariat::dispatch", "a closure on the driver panicked: {panic}");
        }
    }
}
