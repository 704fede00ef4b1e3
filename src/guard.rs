//! The one guard around user code: callbacks, factories, filters, closures and drops.

use std::any::Any;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, Bytes};

/// The message of a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panic {}

/// Runs user code; `Err` holds the message of the panic it ended with.
///
/// Unwind safety is asserted because nothing that the code could have left half changed is used
/// again: its connection is aborted, and its protocol gets only `closed`.
#[inline(always)]
pub(crate) fn guarded<R>(code: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(code)).map_err(sentence)
}

/// Drops a value of the user; false if its `drop` panicked.
pub(crate) fn drop_guarded<T>(value: T) -> bool {
    guarded(move || drop(value)).is_ok()
}

/// Drops values of the user one by one. If one panics, the others are still dropped. False if any
/// drop panicked.
pub(crate) fn drop_each<T>(values: impl IntoIterator<Item = T>) -> bool {
    let mut all = true;
    for value in values {
        all &= drop_guarded(value);
    }
    all
}

/// Bytes of the user. Their owner's drop may panic, so every drop of them is guarded.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuardedBytes(Bytes);

impl GuardedBytes {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> GuardedBytes {
        GuardedBytes(bytes.into())
    }

    /// The bytes from `at` on, which are shared.
    pub(crate) fn slice_from(&self, at: usize) -> GuardedBytes {
        GuardedBytes(self.0.slice(at..))
    }

    /// Drops the first `count` bytes.
    pub(crate) fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

impl Deref for GuardedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for GuardedBytes {
    fn drop(&mut self) {
        drop_guarded(mem::take(&mut self.0));
    }
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
        mem::forget(second);
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

    #[test]
    fn a_payload_whose_drop_panics_with_another_such_payload_does_no_harm() {
        struct Bomb(u32);
        impl Drop for Bomb {
            fn drop(&mut self) {
                if let Some(left) = self.0.checked_sub(1) {
                    std::panic::panic_any(Bomb(left));
                }
            }
        }
        let result = guarded(|| -> () { std::panic::panic_any(Bomb(2)) });
        assert_eq!(result, Err(Panic("a panic without a message".to_owned())));
    }

    /// Panics when it is dropped, and counts the panics.
    struct Counts<'a>(&'a std::cell::Cell<u32>);
    impl Drop for Counts<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("planned");
        }
    }

    #[test]
    fn each_of_several_that_panic_is_dropped() {
        let count = std::cell::Cell::new(0);
        assert!(!drop_each((0..3).map(|_| Counts(&count))));
        assert_eq!(count.get(), 3);
        assert!(drop_each([1, 2]));
        assert!(!drop_each([Some(Counts(&count)), None]), "whichever it is");
    }

    #[test]
    fn bytes_whose_owner_panics_are_dropped_anywhere() {
        struct Owner;
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                b"abc"
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                panic!("planned");
            }
        }
        let mut bytes = GuardedBytes::new(Bytes::from_owner(Owner));
        let part = bytes.slice_from(2);
        bytes.advance(1);
        assert_eq!((&bytes[..], &part[..]), (&b"bc"[..], &b"c"[..]));
        drop((bytes, part));
    }
}
