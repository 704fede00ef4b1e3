//! Ctrl-C: what was measured so far is printed and drawn. A second one ends at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lariat::reactor::Reactor;

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Watches for the signal from now on. A reactor does it: its `run` returns at the first signal.
/// Where it cannot watch, the signal ends this process as usual, and its children with it.
pub(crate) fn watch() {
    thread::spawn(|| {
        let Ok(mut reactor) = Reactor::new() else { return };
        reactor.keep_running(true);
        if reactor.stop_on_signals().is_ok() && reactor.run().is_ok() {
            STOPPED.store(true, Ordering::Relaxed);
        }
    });
}

pub(crate) fn is_asked_for() -> bool {
    STOPPED.load(Ordering::Relaxed)
}
