//! The thread that called `run`: it waits for the others, and runs the driver's closures and
//! timers.

use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::bell::lock;
use super::cell::Signal;
use super::effects::{self, Author};
use super::hub::{Awaited, Desk, Hub};
use super::system;
use crate::driver::Report;
use crate::protocol::Closure;

/// How long the end of a run waits for threads that have nothing more to do, or do not come back.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// One call of `run`.
pub(super) struct Runner {
    hub: Arc<Hub>,
    desk: Desk,
}

impl Runner {
    pub(super) fn new(hub: &Arc<Hub>) -> Runner {
        hub.park_threads(true);
        Runner { hub: Arc::clone(hub), desk: Desk::new(hub) }
    }

    /// Waits until shutdown, or until nothing is left.
    pub(super) fn run(&mut self) -> Report {
        let hub = Arc::clone(&self.hub);
        loop {
            self.wait(None, Awaited::Idle);
            if hub.is_stopping() {
                return self.drain();
            }
            self.wait(Some(system::now() + LAST_WAIT), Awaited::Gone);
            // A closure that ran meanwhile may have begun something new.
            if lock(&hub.state).is(Awaited::Idle) {
                return Report::default();
            }
        }
    }

    /// Stops accepting, lets `stopping` run on every connection, and waits; aborts what is left
    /// after the drain time.
    pub(super) fn drain(&mut self) -> Report {
        let hub = Arc::clone(&self.hub);
        hub.stop_all_listening();
        lock(&hub.state).draining = true;
        hub.signal_all(Signal::Stop);
        self.wait(system::now().checked_add(hub.limits.drain), Awaited::Empty);
        let mut state = lock(&hub.state);
        state.drain_over = true;
        // A client that waits for a place gets none any more.
        hub.tell_acceptors(&state);
        drop(state);
        hub.signal_all(Signal::End);
        // A thread that is still in a callback then delays the end no longer.
        let until = Some(system::now() + LAST_WAIT);
        self.wait(until, Awaited::Empty);
        self.wait(until, Awaited::Gone);
        hub.end();
        lock(&hub.state).report.clone()
    }

    /// Waits until `awaited` has happened, at most until `until`. Meanwhile it serves closures,
    /// timers and connections without a thread. Shutdown ends a wait for [`Awaited::Idle`] as well.
    fn wait(&mut self, until: Option<Instant>, awaited: Awaited) {
        let hub = Arc::clone(&self.hub);
        loop {
            self.run_timers();
            // Their own requests wait for the next round: shutdown must be noticed.
            let mut state = lock(&hub.state);
            let (calls, orphans) = (mem::take(&mut state.calls), mem::take(&mut state.orphans));
            drop(state);
            for call in calls {
                hub.count_taken(1);
                self.run_closure(call);
            }
            for job in orphans {
                (hub.perform)(&hub, &mut self.desk, job);
            }
            let mut state = lock(&hub.state);
            if state.is(awaited) || (awaited == Awaited::Idle && hub.is_stopping()) {
                return;
            }
            let busy = !state.calls.is_empty() || !state.orphans.is_empty();
            let timer = if busy { Some(0) } else { state.alarms.next() };
            let now = hub.clock.exact();
            let timer = timer.map(|timer| Duration::from_nanos(timer.saturating_sub(now)));
            let left = until.map(|until| until.saturating_duration_since(system::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            state.awaited = Some(awaited);
            let mut state = match timer.into_iter().chain(left).min() {
                None => hub.runner.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(most) => {
                    let woken = hub.runner.wait_timeout(state, most);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.awaited = None;
        }
    }

    /// Runs the timers that are due, as many as a turn of a loop would: closures and shutdown must
    /// not wait for all of them. Those set meanwhile wait for the next round.
    fn run_timers(&mut self) {
        let hub = Arc::clone(&self.hub);
        let fired = lock(&hub.state).alarms.fired(hub.clock.exact(), hub.limits.timers_max);
        for timer in fired {
            // Looked for one at a time: the one before may have cancelled it.
            let Some(closure) = lock(&hub.state).alarms.take(timer) else { continue };
            self.desk.shared.metrics.timers += 1;
            self.run_closure(closure);
        }
    }

    fn run_closure(&mut self, closure: Closure) {
        let shared = &mut self.desk.shared;
        shared.stopping = self.hub.is_stopping();
        shared.run_closure(closure);
        effects::apply(&mut Author { hub: &self.hub, shared, cell: None }, &[]);
        self.desk.publish();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.hub.park_threads(false);
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::super::remote::HubRemote;
    use super::*;
    use crate::clock::{Clock, Readings};
    use crate::handle::{Post, Remote};
    use crate::limits::DriverLimits;
    use crate::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn c5_a_poisoned_lock_does_not_stop_the_driver() {
        let readings = Readings { monotonic: Instant::now, wall: std::time::SystemTime::now };
        let hub =
            Arc::new(Hub::new(Clock::system(readings), DriverLimits::default(), |_, _, _| ()));
        let poisoner = Arc::clone(&hub);
        let result = std::thread::spawn(move || {
            let _state = poisoner.state.lock();
            let _ids = poisoner.ids.lock();
            panic!("poison");
        })
        .join();
        assert!(result.is_err() && hub.state.is_poisoned() && hub.ids.is_poisoned());
        let remote = HubRemote(Arc::clone(&hub));
        let id = lock(&hub.ids).reserve();
        remote.post(&mut || Some(Post::Close(id))).unwrap();
        remote.shutdown();
        assert_eq!(Runner::new(&hub).run(), Report::default());
        assert!(remote.is_ended());
    }

    static LOOKS: AtomicU64 = AtomicU64::new(0);

    /// A clock that counts its readings: a thread that waits reads it once for each round.
    fn counted() -> Instant {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    }

    #[test]
    fn the_thread_that_called_run_sleeps_until_it_is_called() {
        let readings = Readings { monotonic: counted, wall: std::time::SystemTime::now };
        let hub =
            Arc::new(Hub::new(Clock::system(readings), DriverLimits::default(), |_, _, _| ()));
        lock(&hub.state).keep_running = true;
        let running = Arc::clone(&hub);
        let runner = std::thread::spawn(move || Runner::new(&running).run());
        let deadline = Instant::now() + Duration::from_secs(60);
        while lock(&hub.state).awaited != Some(Awaited::Idle) {
            let looks = LOOKS.load(Ordering::Relaxed);
            assert!(looks < 1000 && Instant::now() < deadline, "{looks} looks, and no sleep");
            std::thread::yield_now();
        }
        HubRemote(Arc::clone(&hub)).shutdown();
        assert_eq!(runner.join().unwrap(), Report::default());
    }
}
