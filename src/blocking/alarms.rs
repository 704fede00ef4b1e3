//! Timers of the driver: any thread sets them, and the thread that called `run` runs them.

use std::{iter, mem};

use crate::protocol::{Closures, SendClosure, TimerId};
use crate::timer::Timers;

/// The timers that are set, and their closures. They are part of the hub's state, so that the
/// thread that waits for the nearest one learns of a nearer one.
#[derive(Default)]
pub(super) struct Alarms {
    timers: Timers<u64>,
    closures: Closures<SendClosure>,
}

impl Alarms {
    /// Sets a timer.
    pub(super) fn set(&mut self, deadline: u64, closure: SendClosure) -> TimerId {
        let Alarms { timers, closures } = self;
        closures.add(closure, |number| timers.arm(deadline, number))
    }

    /// Takes the closure of a timer that has not fired yet.
    pub(super) fn cancel(&mut self, timer: TimerId) -> Option<SendClosure> {
        let (key, closure) = self.closures.take(timer)?;
        self.timers.cancel(key);
        Some(closure)
    }

    /// Whether no timer is set. One that has fired counts until its closure has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.closures.is_empty()
    }

    /// When the next timer fires.
    pub(super) fn next(&self) -> Option<u64> {
        self.timers.next().filter(|next| *next < u64::MAX)
    }

    /// The timers that have fired by `now`, at most so many. Timers set from here on wait for the
    /// next call, also those without a delay.
    pub(super) fn fired(&mut self, now: u64, most: usize) -> Vec<TimerId> {
        let timers = iter::from_fn(|| self.timers.pop_due(now));
        timers.take(most).map(|(number, _)| TimerId(number)).collect()
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
