//! Ends the test when a run does not come to its end: a loop that spins moves no virtual time, so
//! that nothing inside it would ever notice.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// More than any run takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bites when it is not dropped in time.
pub(crate) struct Watchdog {
    leash: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// `told` is what it says of the run.
    pub(crate) fn new(told: String) -> Watchdog {
        let (leash, held): (Sender<()>, Receiver<()>) = channel();
        let thread = std::thread::spawn(move || {
            if held.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // Not by a macro: what those print is captured, and lost with the process.
                let _ = writeln!(std::io::stderr(), "{told}: not over after {PATIENCE:?}");
                std::process::abort();
            }
        });
        Watchdog { leash: Some(leash), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.leash.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
