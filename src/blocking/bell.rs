//! What a connection's threads sleep on when they do not sleep in its socket.

use std::mem;
use std::sync::PoisonError;
use std::time::Duration;

use crate::clock::Clock;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Locks, also when a thread panicked while it held the lock: user code runs under a guard of its
/// own, so that nothing is half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads of one kind sleep on: the connection's own one, or its companions.
///
/// At most one of them listens: it waits for a call, or will look before it sleeps. A thread that
/// goes to sleep in the socket does not listen, and a call goes unheard: it is for a thread of the
/// other kind. A call that comes before its listener sleeps is remembered.
#[derive(Default)]
pub(super) struct Bell {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Default)]
struct Inside {
    /// Threads that exist, whether they listen or not.
    present: u8,
    listening: bool,
    asleep: bool,
    called: bool,
    /// When the sleeping one looks without a call.
    until: u64,
    /// The connection is over: no companion is started any more.
    closed: bool,
}

impl Bell {
    /// That of the connection's own thread, which listens from the start.
    pub(super) fn attended() -> Bell {
        let inside = Inside { present: 1, listening: true, ..Inside::default() };
        Bell { inside: Mutex::new(inside), changed: Condvar::new() }
    }

    fn ring(&self, inside: &mut Inside) {
        inside.called = true;
        // Without a sleeper there is no reason to ask the system to wake one.
        if inside.asleep {
            self.changed.notify_one();
        }
    }

    /// Lets the thread that listens look. False when none listens.
    pub(super) fn call(&self) -> bool {
        let mut inside = lock(&self.inside);
        self.ring(&mut inside);
        inside.listening
    }

    /// Lets a companion look at `at` or sooner. True when one has to be started, and is counted.
    #[must_use]
    pub(super) fn call_or_hire(&self, at: u64) -> bool {
        let mut inside = lock(&self.inside);
        let comes = inside.listening && inside.asleep && inside.until <= at;
        if inside.closed || comes {
            return false;
        }
        self.ring(&mut inside);
        if mem::replace(&mut inside.listening, true) {
            return false;
        }
        inside.present += 1;
        true
    }

    /// Waits for a call until `until`, a time of `clock`. False when there was none.
    pub(super) fn wait(&self, until: u64, clock: &Clock) -> bool {
        let mut inside = lock(&self.inside);
        (inside.asleep, inside.until) = (true, until);
        while !inside.called {
            let left = until.saturating_sub(clock.exact());
            if until == u64::MAX {
                inside = self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
            } else if left > 0 {
                let woken = self.changed.wait_timeout(inside, Duration::from_nanos(left));
                inside = woken.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                break;
            }
        }
        inside.asleep = false;
        mem::take(&mut inside.called)
    }

    /// The thread that listens is about to sleep in the socket. False when it was called: it has to
    /// look first.
    #[must_use]
    pub(super) fn go_away(&self) -> bool {
        let mut inside = lock(&self.inside);
        inside.listening = mem::take(&mut inside.called);
        !inside.listening
    }

    /// Whether no thread listens: the existing ones sleep in the socket.
    pub(super) fn is_away(&self) -> bool {
        !lock(&self.inside).listening
    }

    /// A thread is back from the socket, and will look. False when another one listens, which looks
    /// instead: this one then has left.
    pub(super) fn come_back(&self) -> bool {
        let mut inside = lock(&self.inside);
        let stays = !mem::replace(&mut inside.listening, true);
        if !stays {
            inside.present -= 1;
            self.ring(&mut inside);
        }
        stays
    }

    /// The one that listens leaves, or could not be started. True when no other is left.
    pub(super) fn leave(&self) -> bool {
        let mut inside = lock(&self.inside);
        inside.present -= 1;
        inside.listening = false;
        inside.present == 0
    }

    /// The connection is over. True when no companion is left, and none is started from now on.
    #[must_use]
    pub(super) fn close(&self) -> bool {
        let mut inside = lock(&self.inside);
        inside.closed = inside.present == 0;
        self.ring(&mut inside);
        inside.closed
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::clock::Readings;

    const NEVER: u64 = u64::MAX;

    fn clock() -> Clock {
        Clock::system(Readings { monotonic: Instant::now, wall: SystemTime::now })
    }

    #[test]
    fn a_call_before_the_wait_is_not_lost() {
        let bell = Bell::attended();
        assert!(bell.call() && bell.call());
        assert!(bell.wait(NEVER, &clock()));
        assert!(!bell.wait(1, &clock()), "both calls were heard at once");
        assert!(bell.call() && !bell.go_away(), "it has to look first");
        assert!(bell.go_away() && bell.is_away() && !bell.call());
    }

    #[test]
    fn ten_thousand_calls_between_two_threads_are_all_heard() {
        let bells = Arc::new((Bell::attended(), Bell::attended()));
        let other = Arc::clone(&bells);
        let thread = std::thread::spawn(move || {
            for _ in 0..10_000 {
                other.0.wait(NEVER, &clock());
                other.1.call();
            }
        });
        for _ in 0..10_000 {
            bells.0.call();
            bells.1.wait(NEVER, &clock());
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_call_that_is_not_heard_starts_a_companion_and_each_later_one_is_heard() {
        let bell = Bell::default();
        assert!(bell.call_or_hire(0) && !bell.call_or_hire(0));
        // It looks first, and then sleeps in a write: it no longer listens.
        assert!(!bell.go_away() && bell.go_away());
        assert!(bell.call_or_hire(0));
        // The second one listens, so that the first one leaves when it comes back.
        assert!(!bell.come_back());
        assert!(!bell.call_or_hire(0) && !bell.close());
        assert!(bell.leave() && bell.close());
        assert!(!bell.call_or_hire(0), "a connection that is over needs no companion");
    }

    #[test]
    fn a_companion_that_looks_in_time_is_not_called() {
        for (asleep, until, called) in
            [(true, 4, false), (true, 5, false), (true, 6, true), (false, 4, true)]
        {
            let bell = Bell::default();
            assert!(bell.call_or_hire(0) && bell.wait(0, &clock()));
            (lock(&bell.inside).asleep, lock(&bell.inside).until) = (asleep, until);
            assert!(!bell.call_or_hire(5));
            assert_eq!(lock(&bell.inside).called, called, "asleep: {asleep}, until {until}");
        }
    }

    #[test]
    fn a_companion_that_leaves_to_another_has_it_look() {
        let bell = Bell::default();
        assert!(bell.call_or_hire(0) && !bell.go_away() && bell.go_away());
        assert!(bell.call_or_hire(0) && bell.wait(0, &clock()));
        assert!(!bell.come_back());
        assert!(bell.wait(0, &clock()), "what the first has changed");
    }

    #[test]
    fn a_companion_that_could_not_be_started_is_missed_where_there_is_no_other() {
        let bell = Bell::default();
        assert!(bell.call_or_hire(0) && bell.leave());
        assert!(bell.call_or_hire(0) && !bell.go_away() && bell.go_away());
        assert!(bell.call_or_hire(0) && !bell.leave());
        assert!(bell.come_back());
    }
}
