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

impl Drivers {
    fn set_ends_at_once(&self, ends: bool) {
        if let Some(ends_at_once) = &self.ends_at_once {
            ends_at_once.store(ends, Ordering::SeqCst);
        }
    }
}

fn drivers() -> MutexGuard<'static, Drivers> {
    DRIVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One driver that a signal drains, with its handlers, until the driver has ended. While there is
/// one, it handles the first signal. A second signal, and any signal when no driver is left, ends
/// the process with 128 and the signal's number, as shells expect.
pub(crate) struct Watch<T> {
    /// Dropped first: a signal that comes in between would find nobody whom it stops, and not end
    /// the process either.
    _counted: Counted,
    pub(crate) handlers: T,
}

impl<T> Watch<T> {
    /// `make` makes the driver's handlers. Until they are there, and where it fails, a signal ends
    /// the process, unless another driver handles it.
    pub(crate) fn begin(make: impl FnOnce() -> io::Result<T>) -> io::Result<Watch<T>> {
        let mut drivers = drivers();
        if drivers.ends_at_once.is_none() {
            drivers.ends_at_once = Some(take_over()?);
        }
        drop(drivers);
        let handlers = make()?;
        Ok(Watch { _counted: Counted::begin(), handlers })
    }
}

struct Counted(());

impl Counted {
    fn begin() -> Counted {
        let mut drivers = drivers();
        // While another driver drains, the next signal is its second.
        if drivers.count == 0 {
            drivers.set_ends_at_once(false);
        }
        drivers.count += 1;
        Counted(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut drivers = drivers();
        drivers.count -= 1;
        if drivers.count == 0 {
            drivers.set_ends_at_once(true);
        }
    }
}

/// The order of the two registrations matters: handlers run in the order they were registered, so
/// that the first signal finds the flag unset and then sets it for the second. It is set until a
/// driver handles signals.
fn take_over() -> io::Result<Arc<AtomicBool>> {
    let ends_at_once = Arc::new(AtomicBool::new(true));
    for signal in STOPPING {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ends_at_once))?;
        flag::register(signal, Arc::clone(&ends_at_once))?;
    }
    Ok(ends_at_once)
}

/// A thread that waits for the signals, for drivers that cannot wait for them themselves. It ends
/// when this is dropped.
pub(crate) struct Waiting {
    _watch: Watch<Listening>,
}

impl Waiting {
    pub(crate) fn start(stop: impl Fn() + Send + 'static) -> io::Result<Waiting> {
        let watch = Watch::begin(|| {
            let mut signals = Signals::new(STOPPING)?;
            let listening = Listening(signals.handle());
            let thread = std::thread::Builder::new().name("lariat signals".into());
            thread.spawn(move || signals.forever().for_each(|_| stop()))?;
            Ok(listening)
        })?;
        Ok(Waiting { _watch: watch })
    }
}

/// The thread's handlers.
struct Listening(Handle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Whether the next signal would end the process.
    fn ends_at_once() -> bool {
        let drivers = drivers();
        drivers.ends_at_once.as_ref().is_none_or(|ends_at_once| ends_at_once.load(Ordering::SeqCst))
    }

    /// Tells at its drop what a signal would do then.
    struct Handlers(Sender<bool>);

    impl Drop for Handlers {
        fn drop(&mut self) {
            self.0.send(ends_at_once()).unwrap();
        }
    }

    // The one test of this process that touches signals.
    #[test]
    fn c21_a_signal_ends_the_process_whenever_there_is_no_handler() {
        let (tell, told) = channel();
        let begin = |ends: bool| {
            Watch::begin(|| {
                assert_eq!(ends_at_once(), ends, "before the handlers are there");
                Ok(Handlers(tell.clone()))
            })
        };
        let failed = || Watch::<()>::begin(|| Err(io::ErrorKind::OutOfMemory.into())).is_err();
        assert!(failed() && ends_at_once());
        for _ in 0..2 {
            let first = begin(true).unwrap();
            assert!(!ends_at_once());
            assert!(failed() && !ends_at_once(), "the first driver is there");
            let second = begin(false).unwrap();
            drop(first);
            assert!(!told.recv().unwrap(), "the second driver handles it");
            drop(second);
            assert!(told.recv().unwrap(), "the last driver is gone before its handlers are");
            assert!(ends_at_once());
        }
    }
}
