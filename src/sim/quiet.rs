//! Panics that are recorded instead of printed: those of the runs that reduce a failure.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{PoisonError, RwLock};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// A panic: its place and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) place: String,
    pub(super) message: String,
}

thread_local! {
    /// The guards of this thread, and its last panic since there was one.
    static QUIET: RefCell<(usize, Option<Failure>)> = const { RefCell::new((0, None)) };
}

/// The earlier hook, and the threads for which it is replaced.
static BEFORE: RwLock<(usize, Option<Hook>)> = RwLock::new((0, None));

/// While it lives, panics of this thread are not printed; those of other threads are.
pub(super) struct Quiet(());

impl Quiet {
    pub(super) fn begin() -> Quiet {
        let mut before = BEFORE.write().unwrap_or_else(PoisonError::into_inner);
        if before.0 == 0 {
            before.1 = Some(panic::take_hook());
            panic::set_hook(Box::new(look));
        }
        before.0 += 1;
        QUIET.with_borrow_mut(|(guards, _)| *guards += 1);
        Quiet(())
    }

    /// Runs code that may panic.
    pub(super) fn run(&self, code: impl FnOnce()) -> Result<(), Failure> {
        QUIET.with_borrow_mut(|(_, last)| *last = None);
        let result = catch_unwind(AssertUnwindSafe(code));
        result.map_err(|payload| {
            let message = sentence(&*payload);
            let last = QUIET.with_borrow_mut(|(_, last)| last.take());
            let place = last.map_or_else(String::new, |last| last.place);
            // The payload is the user's, and so is its drop.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
            Failure { place, message }
        })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.with_borrow_mut(|(guards, _)| *guards -= 1);
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
    let quiet = QUIET.with_borrow_mut(|(guards, last)| {
        if *guards > 0 {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            *last = Some(Failure { place, message: sentence(info.payload()) });
        }
        *guards > 0
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

    // That other threads are heard, and this one again afterwards, is tested in a process of its
    // own: the hook is one for all tests.
    #[test]
    fn a_panic_becomes_its_place_and_its_sentence() {
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
        let failure = quiet.run(|| panic::panic_any(7u8)).unwrap_err();
        assert_eq!(failure.message, "a panic without a message");
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_does_no_harm() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let quiet = Quiet::begin();
        assert!(quiet.run(|| panic::panic_any(Bomb)).is_err());
        assert_eq!(quiet.run(|| ()), Ok(()));
    }
}
