//! Panics that are looked at instead of shown: those of the runs by which a failure is reduced.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{PoisonError, RwLock};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// A panic: where it was, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) place: String,
    pub(super) message: String,
}

thread_local! {
    /// The last panic of this thread, while those of this thread are quiet.
    static LAST: RefCell<Option<Option<Failure>>> = const { RefCell::new(None) };
}

/// The hook of before, and the threads for which it is replaced.
static BEFORE: RwLock<(usize, Option<Hook>)> = RwLock::new((0, None));

/// As long as it lives, panics of this thread are not shown; those of other threads are, as before.
pub(super) struct Quiet(());

impl Quiet {
    pub(super) fn begin() -> Quiet {
        let mut before = BEFORE.write().unwrap_or_else(PoisonError::into_inner);
        if before.0 == 0 {
            before.1 = Some(panic::take_hook());
            panic::set_hook(Box::new(look));
        }
        before.0 += 1;
        LAST.set(Some(None));
        Quiet(())
    }

    /// Runs code that may panic.
    pub(super) fn run(&self, code: impl FnOnce()) -> Result<(), Failure> {
        LAST.set(Some(None));
        let result = catch_unwind(AssertUnwindSafe(code));
        result.map_err(|payload| {
            let message = sentence(&*payload);
            // The payload is the user's, and so is its drop.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
            let last = LAST.replace(Some(None)).flatten();
            let place = last.map_or_else(String::new, |last| last.place);
            Failure { place, message }
        })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        LAST.set(None);
        let mut before = BEFORE.write().unwrap_or_else(PoisonError::into_inner);
        before.0 -= 1;
        if before.0 == 0 {
            if let Some(hook) = before.1.take() {
                panic::set_hook(hook);
            }
        }
    }
}

fn look(info: &PanicHookInfo<'_>) {
    let quiet = LAST.with_borrow_mut(|last| match last {
        Some(last) => {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            *last = Some(Failure { place, message: sentence(info.payload()) });
            true
        }
        None => false,
    });
    if !quiet {
        let before = BEFORE.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(hook) = &before.1 {
            hook(info);
        }
    }
}

fn sentence(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// One test, as the hook is one for all threads.
    #[test]
    fn panics_of_this_thread_are_looked_at_and_those_of_others_shown_as_before() {
        let shown = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&shown);
        let before = panic::take_hook();
        let others = "of another thread, for this test alone";
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() == Some(&others) {
                count.fetch_add(1, Ordering::Relaxed);
            } else {
                before(info);
            }
        }));
        let elsewhere = || thread::spawn(move || panic::panic_any(others)).join().is_err();
        {
            let quiet = Quiet::begin();
            let failure = quiet.run(|| panic!("number {}", 7)).unwrap_err();
            assert_eq!(failure.message, "number 7");
            assert!(failure.place.starts_with("src/sim/quiet.rs:"), "{}", failure.place);
            let nested = Quiet::begin();
            assert_eq!(nested.run(|| ()), Ok(()));
            drop(nested);
            // What is caught within leaves the last word to what is not.
            let failure = quiet.run(|| {
                let _ = catch_unwind(|| panic!("caught"));
                panic!("not caught")
            });
            assert_eq!(failure.unwrap_err().message, "not caught");
            assert!(elsewhere());
            assert_eq!(shown.load(Ordering::Relaxed), 1);
        }
        assert!(elsewhere());
        assert_eq!(shown.load(Ordering::Relaxed), 2);
        let own = catch_unwind(|| panic::panic_any(others));
        assert!(own.is_err());
        assert_eq!(shown.load(Ordering::Relaxed), 3, "this thread's are shown again");
    }
}
