//! How long a test waits before it fails.

use std::thread;
use std::time::{Duration, Instant};

/// More than any test takes on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for what only looking again and again can tell.
#[allow(dead_code)]
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool, otherwise: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise} within {PATIENCE:?}");
        thread::park_timeout(Duration::from_millis(1));
    }
}
