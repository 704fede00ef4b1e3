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
use crate::protocol::{Closure, Shared};

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
        let shared = hub.shared(hub.clock.exact());
        Runner { hub: Arc::clone(hub), shared, published: hub.add_worker() }
    }

    /// Waits until shutdown, or until nothing is left.
    pub(super) fn run(&mut self) -> Report {
        let hub = Arc::clone(&self.hub);
        let idle = |state: &State| {
            state.cells.is_empty()
                && state.listeners.is_empty()
                && state.acceptors == 0
                && state.calls.is_empty()
                && state.alarms.is_empty()
                && !state.keep_running
        };
        loop {
            self.wait(None, |state| hub.is_stopping() || idle(state));
            if hub.is_stopping() {
                return self.drain();
            }
            self.wait_gone(Some(system::now() + LAST_WAIT));
            // A closure that ran meanwhile may have begun something new.
            if idle(&lock(&hub.state)) {
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
        self.wait(until, |state| state.cells.is_empty() && state.acceptors == 0);
    }

    /// Waits until the threads of the connections have let go of everything.
    fn wait_gone(&mut self, until: Option<Instant>) {
        self.wait(until, |state| state.threads == 0);
    }

    /// Waits until `over`, at most until `until`. Closures and timers run meanwhile.
    fn wait(&mut self, until: Option<Instant>, over: impl Fn(&State) -> bool) {
        let hub = Arc::clone(&self.hub);
        loop {
            self.run_timers();
            // Those that they post in turn wait for the next time: shutdown must be seen.
            let calls = mem::take(&mut lock(&hub.state).calls);
            calls.into_iter().for_each(|call| self.run_call(call));
            let state = lock(&hub.state);
            if over(&state) {
                return;
            }
            let timer = if state.calls.is_empty() { state.alarms.next() } else { Some(0) };
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
        self.run_closure(call);
    }

    /// Runs the timers that are due. Those set meanwhile wait for the next time.
    fn run_timers(&mut self) {
        let hub = Arc::clone(&self.hub);
        let fired = lock(&hub.state).alarms.fired(hub.clock.exact());
        for timer in fired {
            // Looked for one at a time: the one before may have cancelled it.
            let Some(closure) = lock(&hub.state).alarms.take(timer) else { continue };
            self.shared.metrics.timers += 1;
            self.run_closure(closure);
        }
    }

    fn run_closure(&mut self, closure: Closure) {
        self.shared.stopping = self.hub.is_stopping();
        self.shared.run_closure(closure);
        self.apply();
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
        self.publish();
        self.hub.remove_worker(&self.published);
    }
}
