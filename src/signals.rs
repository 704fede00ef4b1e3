//! SIGINT and SIGTERM: the first drains, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};

/// The signals that mean "stop".
pub(crate) const STOPPING: [i32; 2] = [SIGINT, SIGTERM];

/// The drivers of this process that a signal drains.
struct Drivers {
    count: usize,
    /// Whether the next signal ends the process. None until the program handles signals, which it
    /// then does for good.
    ends_at_once: Option<Arc<AtomicBool>>,
}

static DRIVERS: Mutex<Drivers> = Mutex::new(Drivers { count: 0, ends_at_once: None });

fn drivers() -> MutexGuard<'static, Drivers> {
    DRIVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One driver that a signal drains, until the driver has ended. While there is one, it handles the
/// first signal. A second signal, and any signal when no driver is left, ends the process with 128
/// and the signal's number, as shells expect.
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn begin() -> io::Result<Watch> {
        let mut drivers = drivers();
        let ends_at_once = match drivers.ends_at_once.take() {
            Some(ends_at_once) => ends_at_once,
            None => take_over()?,
        };
        // While another driver drains, the next signal is its second.
        if drivers.count == 0 {
            ends_at_once.store(false, Ordering::SeqCst);
        }
        drivers.count += 1;
        drivers.ends_at_once = Some(ends_at_once);
        Ok(Watch(()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut drivers = drivers();
        drivers.count -= 1;
        if let (0, Some(ends_at_once)) = (drivers.count, &drivers.ends_at_once) {
            ends_at_once.store(true, Ordering::SeqCst);
        }
    }
}

/// The order of the two registrations matters: handlers run in the order they were registered, so
/// that the first signal finds the flag unset and then sets it for the second.
fn take_over() -> io::Result<Arc<AtomicBool>> {
    let ends_at_once = Arc::new(AtomicBool::new(false));
    for signal in STOPPING {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ends_at_once))?;
        flag::register(signal, Arc::clone(&ends_at_once))?;
    }
    Ok(ends_at_once)
}

/// A thread that waits for the signals, for drivers that cannot wait for them themselves. It ends
/// when this is dropped.
pub(crate) struct Waiting {
    signals: Handle,
    _watch: Watch,
}

impl Waiting {
    pub(crate) fn start(stop: impl Fn() + Send + 'static) -> io::Result<Waiting> {
        let watch = Watch::begin()?;
        let mut signals = Signals::new(STOPPING)?;
        let waiting = Waiting { signals: signals.handle(), _watch: watch };
        let thread = std::thread::Builder::new().name("lariat signals".into());
        thread.spawn(move || signals.forever().for_each(|_| stop()))?;
        Ok(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.signals.close();
    }
}
