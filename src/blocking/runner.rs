//! The thread that called `run`: it waits for the others, and runs what belongs to the driver as a
//! whole, closures and timers.

use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::cell::Signal;
use super::counters::Counters;
use super::effects::{self, Author};
use super::hub::{Call, Hub, State, lock};
use super::system;
use crate::driver::Report;
use crate::protocol::{Closure, Shared, TimerOwner};

/// How long the end of a run waits for threads that have nothing more to do, or do not come back.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// One call of `run`.
pub(super) struct Runner {
    hub: Arc<Hub>,
    shared: Shared,
    published: Arc<Counters>,
}

impl Runner {
    pub(super) fn new(hub: &Arc<Hub>) -> Runner {
        let mut shared = hub.shared(hub.clock.exact());
        shared.closures.begin_at(lock(&hub.state).next_closure);
        Runner { hub: Arc::clone(hub), shared, published: hub.add_worker() }
    }

    /// Waits until shutdown, or until nothing is left.
    pub(super) fn run(&mut self) -> Report {
        let hub = Arc::clone(&self.hub);
        let idle = |state: &State, busy: bool| {
            state.cells.is_empty()
                && state.listeners.is_empty()
                && state.acceptors == 0
                && !busy
                && !state.keep_running
        };
        loop {
            self.wait(None, |state, busy| hub.is_stopping() || idle(state, busy));
            if hub.is_stopping() {
                return self.drain();
            }
            self.wait_gone(Some(system::now() + LAST_WAIT));
            // A closure that ran meanwhile may have begun something new.
            let state = lock(&hub.state);
            if idle(&state, !state.calls.is_empty() || self.shared.closures.len() > 0) {
                return Report::default();
            }
        }
    }

    /// Stops accepting, tells every connection, and waits; what is left after the time to drain is
    /// aborted.
    pub(super) fn drain(&mut self) -> Report {
        let hub = Arc::clone(&self.hub);
        hub.stop_all_listening();
        lock(&hub.state).draining = true;
        hub.signal_all(|cell| cell.signal(Signal::Stop));
        self.wait_empty(system::now().checked_add(hub.limits.drain));
        lock(&hub.state).drain_over = true;
        hub.signal_all(|cell| cell.signal_end(Signal::End));
        // Whoever is still in a callback now is not waited for.
        let until = Some(system::now() + LAST_WAIT);
        self.wait_empty(until);
        self.wait_gone(until);
        hub.end();
        lock(&hub.state).report.clone()
    }

    /// Waits until no connection and no acceptor is left.
    fn wait_empty(&mut self, until: Option<Instant>) {
        self.wait(until, |state, _| state.cells.is_empty() && state.acceptors == 0);
    }

    /// Waits until the threads of the connections have let go of everything.
    fn wait_gone(&mut self, until: Option<Instant>) {
        self.wait(until, |state, _| state.threads == 0);
    }

    /// Waits until `over`, which is told whether closures wait or timers are set, at most until
    /// `until`. They run meanwhile.
    fn wait(&mut self, until: Option<Instant>, over: impl Fn(&State, bool) -> bool) {
        let hub = Arc::clone(&self.hub);
        loop {
            self.run_timers();
            // Those that they post in turn wait for the next time: shutdown must be seen.
            let calls = mem::take(&mut lock(&hub.state).calls);
            calls.into_iter().for_each(|call| self.run_call(call));
            let state = lock(&hub.state);
            let busy = !state.calls.is_empty();
            if over(&state, busy || self.shared.closures.len() > 0) {
                return;
            }
            let timer = self.shared.timers.next().filter(|next| *next < u64::MAX);
            let timer = if busy { Some(0) } else { timer };
            let now = hub.clock.exact();
            let timer = timer.map(|timer| Duration::from_nanos(timer.saturating_sub(now)));
            let left = until.map(|until| until.saturating_duration_since(system::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            let Some(most) = timer.into_iter().chain(left).min() else {
                drop(hub.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            drop(hub.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn run_call(&mut self, call: Call) {
        self.hub.count_taken(1);
        self.shared.stopping = self.hub.is_stopping();
        self.shared.run_closure(call as Closure);
        self.apply();
    }

    /// Runs the timers that are due. Those set meanwhile wait for the next time, also when they
    /// have no delay.
    fn run_timers(&mut self) {
        let now = self.hub.clock.exact();
        let mut due = Vec::new();
        while let Some((owner, _)) = self.shared.timers.pop_due(now) {
            if let TimerOwner::Closure(number) = owner {
                due.push(number);
            }
        }
        for number in due {
            self.shared.stopping = self.hub.is_stopping();
            self.shared.run_timer(number);
            self.apply();
        }
    }

    fn apply(&mut self) {
        let author = &mut Author { hub: &self.hub, shared: &mut self.shared, cell: None };
        let later = effects::apply(author);
        // Nothing here answers input, so that no output is left for this thread to send.
        later.begin(&self.hub);
        self.publish();
    }

    fn publish(&self) {
        self.published.publish(&self.shared.metrics);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        lock(&self.hub.state).next_closure = self.shared.closures.next_number();
        self.publish();
        self.hub.remove_worker(&self.published);
    }
}
