//! Locks and threads of the model check, on top of shuttle's.
//!
//! - Each lock is known by the type that it guards, and the order in which types are taken must
//!   be the same everywhere: two of one type are never held together, and no type is taken under
//!   another in one place and over it in another. This is checked over all schedules together, so
//!   that an inversion is found also where no schedule has deadlocked.
//! - Time stands still until a wait with a time-out fires. Only those of at most
//!   [`Rules::longest`] do, at any moment; a logic that needs a longer one to go on is stuck, and
//!   shuttle reports that.
//! - A thread can be refused, as a system does that has no more of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use shuttle::rand::Rng;

pub(crate) use shuttle::sync::atomic;

/// What a system does in a schedule.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rules {
    /// The longest time-out that may fire [zero].
    pub(crate) longest: Duration,
    /// Threads whose name ends so cannot be started [none].
    pub(crate) refused: Option<&'static str>,
    /// Threads that the system bears, by what it says [any number].
    pub(crate) threads: Option<usize>,
}

/// The state of one schedule.
#[derive(Default)]
struct World {
    rules: Rules,
    elapsed: Duration,
    /// The types of the locks that each thread holds.
    held: BTreeMap<usize, Vec<&'static str>>,
}

thread_local! {
    // One test is one thread of the system, on which shuttle runs all threads of the model.
    static WORLD: RefCell<World> = RefCell::default();
}

/// Which lock was taken while which was held, in any schedule of any test.
static ORDER: std::sync::Mutex<BTreeSet<(&str, &str)>> = std::sync::Mutex::new(BTreeSet::new());

/// Begins a schedule.
pub(crate) fn begin(rules: Rules) {
    WORLD.set(World { rules, ..World::default() });
}

/// The time since the schedule began.
pub(crate) fn elapsed() -> Duration {
    WORLD.with_borrow(|world| world.elapsed)
}

/// How many threads the system bears, by what it says.
pub(crate) fn threads_max() -> usize {
    WORLD.with_borrow(|world| world.rules.threads.unwrap_or(usize::MAX))
}

/// A number below `end`, of the schedule's own.
pub(crate) fn roll(end: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..end)
}

/// Whether a wait of `most` may end by its time-out.
pub(crate) fn may_fire(most: Duration) -> bool {
    WORLD.with_borrow(|world| most <= world.rules.longest)
}

/// Lets others run for a while, after which a time-out of `most` may have fired. True if it has.
pub(crate) fn sleep(most: Duration) -> bool {
    for _ in 0..=roll(8) {
        thread::yield_now();
    }
    let fires = roll(4) == 0;
    if fires {
        WORLD.with_borrow_mut(|world| world.elapsed += most);
    }
    fires
}

// ---- the order of locks -------------------------------------------------------------------------

fn me() -> usize {
    shuttle::current::me().into()
}

/// A thread is about to wait for a lock.
fn check_order(kind: &'static str) {
    let held = WORLD.with_borrow(|world| world.held.get(&me()).cloned().unwrap_or_default());
    let mut order = ORDER.lock().unwrap_or_else(PoisonError::into_inner);
    for under in held {
        assert!(under != kind, "two locks of {kind} are held together");
        if order.insert((under, kind)) {
            assert!(!leads(&order, kind, under), "{under} and {kind} are taken in both orders");
        }
    }
}

fn leads(order: &BTreeSet<(&str, &str)>, from: &str, to: &str) -> bool {
    let mut next: Vec<&str> = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(from) = next.pop() {
        if from == to {
            return true;
        }
        if seen.insert(from) {
            next.extend(order.iter().filter(|(under, _)| *under == from).map(|(_, over)| *over));
        }
    }
    false
}

fn note_taken(kind: &'static str) {
    WORLD.with_borrow_mut(|world| world.held.entry(me()).or_default().push(kind));
}

fn note_released(kind: &'static str) {
    // After a failure nothing is checked any more.
    if std::thread::panicking() {
        return;
    }
    WORLD.with_borrow_mut(|world| {
        let held = world.held.entry(me()).or_default();
        if let Some(at) = held.iter().rposition(|held| *held == kind) {
            held.remove(at);
        }
    });
}

// ---- locks --------------------------------------------------------------------------------------

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    /// None only while a condition variable has it.
    inner: Option<shuttle::sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        check_order(kind::<T>());
        Ok(self.taken(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn taken<'a>(&'a self, inner: shuttle::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        note_taken(kind::<T>());
        MutexGuard { inner: Some(inner), mutex: self }
    }
}

fn kind<T>() -> &'static str {
    std::any::type_name::<T>()
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("a guard that is in use")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a guard that is in use")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            note_released(kind::<T>());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        // Between the look at what is waited for and the sleep, others may run: shuttle's own would
        // be asleep at once.
        atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
        let mutex = guard.mutex;
        note_released(kind::<T>());
        let Some(inner) = guard.inner.take() else { unreachable!("a guard that is in use") };
        Ok(mutex.taken(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner)))
    }

    /// Callers look again when this returns: a time-out that may fire is a wait that ends at any
    /// moment.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        if !may_fire(most) {
            return Ok((self.wait(guard).unwrap_or_else(PoisonError::into_inner), false));
        }
        let mutex = guard.mutex;
        drop(guard);
        let fired = sleep(most);
        Ok((mutex.lock().unwrap_or_else(PoisonError::into_inner), fired))
    }
}

// ---- threads ------------------------------------------------------------------------------------

pub(crate) mod thread {
    use super::{WORLD, io};
    use shuttle::thread::JoinHandle;

    pub(crate) use shuttle::thread::yield_now;

    #[derive(Default)]
    pub(crate) struct Builder {
        name: String,
    }

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder::default()
        }

        pub(crate) fn name(self, name: String) -> Builder {
            Builder { name }
        }

        pub(crate) fn stack_size(self, _: usize) -> Builder {
            self
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            code: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            let refused = WORLD.with_borrow(|world| world.rules.refused);
            if refused.is_some_and(|refused| self.name.ends_with(refused)) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            shuttle::thread::Builder::new().name(self.name).spawn(code)
        }
    }
}
