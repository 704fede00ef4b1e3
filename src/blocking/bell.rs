//! What the threads of a connection sleep on when they do not sleep in its socket.

use std::sync::PoisonError;
use std::time::Duration;

use crate::clock::Clock;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Locks, also when a thread panicked while it held the lock: user code runs under a guard of its
/// own, so that nothing is half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a change until `until`, a time of `clock`; false when that has come.
fn wait_until<'a, T>(
    changed: &Condvar,
    guard: MutexGuard<'a, T>,
    until: u64,
    clock: &Clock,
) -> (MutexGuard<'a, T>, bool) {
    if until == u64::MAX {
        return (changed.wait(guard).unwrap_or_else(PoisonError::into_inner), true);
    }
    let left = until.saturating_sub(clock.exact());
    if left == 0 {
        return (guard, false);
    }
    let woken = changed.wait_timeout(guard, Duration::from_nanos(left));
    (woken.unwrap_or_else(PoisonError::into_inner).0, true)
}

/// What the reading thread sleeps on. A ring is remembered until that thread waits, so that none is
/// lost between its look at the state and its sleep.
#[derive(Default)]
pub(super) struct Bell {
    inside: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Default)]
struct Rung {
    rung: bool,
    /// Without a sleeper there is nobody to ask the system to wake.
    asleep: bool,
}

impl Bell {
    pub(super) fn ring(&self) {
        let mut inside = lock(&self.inside);
        inside.rung = true;
        if inside.asleep {
            self.changed.notify_one();
        }
    }

    /// Waits for a ring until `until`, a time of `clock`. False when there was none.
    pub(super) fn wait(&self, until: u64, clock: &Clock) -> bool {
        let mut inside = lock(&self.inside);
        inside.asleep = true;
        let mut going = true;
        while going && !inside.rung {
            (inside, going) = wait_until(&self.changed, inside, until, clock);
        }
        std::mem::take(&mut *inside).rung
    }
}

/// The companions of a connection, and what they sleep on.
///
/// At most one of them listens: it waits for a call, or will look before it does. One that goes to
/// sleep in a write no longer listens, and a call then has another one started.
#[derive(Default)]
pub(super) struct Company {
    inside: Mutex<Seats>,
    changed: Condvar,
}

#[derive(Default)]
struct Seats {
    present: u8,
    listening: bool,
    asleep: bool,
    called: bool,
    /// When the one that is asleep looks in any case.
    until: u64,
    /// The connection is over: none is started any more.
    closed: bool,
}

impl Seats {
    /// Calls the one that listens. True when none does: one is to be started, and is counted.
    fn call(&mut self, changed: &Condvar) -> bool {
        if self.closed {
            return false;
        }
        self.called = true;
        if self.listening {
            if self.asleep {
                changed.notify_one();
            }
            return false;
        }
        self.listening = true;
        self.present += 1;
        true
    }
}

impl Company {
    /// Lets a companion look. True when one has to be started for it.
    #[must_use]
    pub(super) fn call(&self) -> bool {
        lock(&self.inside).call(&self.changed)
    }

    /// Lets a companion look at `at` or sooner. True when one has to be started for it.
    #[must_use]
    pub(super) fn call_by(&self, at: u64) -> bool {
        let mut seats = lock(&self.inside);
        let comes = seats.listening && seats.asleep && seats.until <= at;
        !comes && seats.call(&self.changed)
    }

    /// Lets a companion look if there is one.
    pub(super) fn call_present(&self) {
        let mut seats = lock(&self.inside);
        if seats.present > 0 && seats.listening {
            let _ = seats.call(&self.changed);
        }
    }

    /// The one that was to be started could not be. True when there is no other: the call is heard
    /// once that one is back from its write.
    #[must_use]
    pub(super) fn miss(&self) -> bool {
        let mut seats = lock(&self.inside);
        seats.present -= 1;
        seats.listening = false;
        seats.present == 0
    }

    /// Waits for a call until `until`, a time of `clock`.
    pub(super) fn wait(&self, until: u64, clock: &Clock) {
        let mut seats = lock(&self.inside);
        seats.asleep = true;
        seats.until = until;
        let mut going = true;
        while going && !seats.called {
            (seats, going) = wait_until(&self.changed, seats, until, clock);
        }
        seats.asleep = false;
        seats.called = false;
    }

    /// The companion is about to sleep in a write. False when it was called: it has to look first.
    #[must_use]
    pub(super) fn stop_listening(&self) -> bool {
        let mut seats = lock(&self.inside);
        seats.listening = std::mem::take(&mut seats.called);
        !seats.listening
    }

    /// A companion is back from a write. False when another one listens: it then has left.
    #[must_use]
    pub(super) fn listen_again(&self) -> bool {
        let mut seats = lock(&self.inside);
        if seats.listening {
            seats.present -= 1;
            // It looks at what the write has changed.
            let _ = seats.call(&self.changed);
            return false;
        }
        seats.listening = true;
        true
    }

    /// The companion that listens leaves.
    pub(super) fn leave(&self) {
        let mut seats = lock(&self.inside);
        seats.present -= 1;
        seats.listening = false;
    }

    /// The connection is over. True when no companion is left, and from now on none is started.
    #[must_use]
    pub(super) fn close(&self) -> bool {
        let mut seats = lock(&self.inside);
        if seats.present > 0 {
            if seats.listening {
                let _ = seats.call(&self.changed);
            }
            return false;
        }
        seats.closed = true;
        true
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Readings;

    fn clock() -> Clock {
        Clock::system(Readings {
            monotonic: std::time::Instant::now,
            wall: std::time::SystemTime::now,
        })
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        assert!(bell.wait(u64::MAX, &clock()));
        assert!(!bell.wait(1, &clock()), "both rings were heard at once");
    }

    #[test]
    fn ten_thousand_rings_between_two_threads_are_all_heard() {
        let bells = Arc::new((Bell::default(), Bell::default()));
        let other = Arc::clone(&bells);
        let thread = std::thread::spawn(move || {
            for _ in 0..10_000 {
                other.0.wait(u64::MAX, &clock());
                other.1.ring();
            }
        });
        for _ in 0..10_000 {
            bells.0.ring();
            bells.1.wait(u64::MAX, &clock());
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_call_that_nobody_hears_starts_a_companion_and_each_later_one_is_heard() {
        let company = Company::default();
        assert!(company.call());
        assert!(!company.call() && !company.call_by(0));
        // It looks first, and then sleeps in a write: nobody listens.
        assert!(!company.stop_listening());
        assert!(company.stop_listening());
        assert!(company.call());
        // The second one listens, so that the first one leaves when it comes back.
        assert!(!company.listen_again());
        assert!(!company.call() && !company.close());
        company.leave();
        assert!(company.close());
        assert!(!company.call(), "a connection that is over needs no companion");
    }

    #[test]
    fn a_companion_that_could_not_be_started_is_missed_only_where_there_is_no_other() {
        let company = Company::default();
        assert!(company.call());
        assert!(company.miss());
        assert!(company.call() && !company.stop_listening() && company.stop_listening());
        assert!(company.call());
        assert!(!company.miss());
        assert!(company.listen_again());
    }
}
