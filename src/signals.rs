//! SIGINT and SIGTERM: the first drains, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

/// The signals that mean "stop".
pub(crate) const STOPPING: [i32; 2] = [SIGINT, SIGTERM];

/// Waits for the first signal on a thread of its own, for drivers that cannot wait for it
/// themselves.
pub(crate) fn wait_on_a_thread(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(STOPPING)?;
    let thread = std::thread::Builder::new().name("lariat signals".into());
    thread.spawn(move || signals.forever().for_each(|_| stop())).map(drop)
}

/// From the second signal on, the process ends with 128 and the signal's number, as shells expect.
///
/// The order of the two registrations matters: handlers run in the order they were registered, so
/// that the first signal finds the flag unset and then sets it for the second.
pub(crate) fn end_at_the_second() -> io::Result<()> {
    let first_seen = Arc::new(AtomicBool::new(false));
    for signal in STOPPING {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            128 + signal,
            Arc::clone(&first_seen),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&first_seen))?;
    }
    Ok(())
}
