//! The one guard around user code: callbacks, factories, filters, closures and drops.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The message of a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panic {}

/// Runs user code; `Err` holds the sentence of the panic it ended with.
///
/// Unwind safety is asserted because nothing that the code could have left half changed is used
/// again: the connection it belonged to is aborted and its protocol only told `closed`.
#[inline(always)]
pub(crate) fn guarded<R>(code: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(code)).map_err(sentence)
}

/// Drops a value of the user's; false if its `drop` panicked.
pub(crate) fn drop_guarded<T>(value: T) -> bool {
    guarded(move || drop(value)).is_ok()
}

#[cold]
fn sentence(payload: Box<dyn Any + Send>) -> Panic {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    };
    // The payload is the user's too, and its drop may panic in turn; that one has no further drop
    // worth running.
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
    }
    Panic(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_sentence() {
        assert_eq!(guarded(|| 5), Ok(5));
        assert_eq!(guarded(|| -> () { panic!("one") }), Err(Panic("one".to_owned())));
        assert_eq!(guarded(|| -> () { panic!("two {}", 2) }), Err(Panic("two 2".to_owned())));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_no_harm() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let result = guarded(|| -> () { std::panic::panic_any(Bomb) });
        assert_eq!(result, Err(Panic("a panic without a message".to_owned())));
        assert!(!drop_guarded(Bomb));
    }
}
