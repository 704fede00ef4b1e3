//! A driver on a thread of its own.

use std::net::SocketAddr;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use lariat::blocking::Blocking;
use lariat::{DriverLimits, Handle, Limits, ListenOptions, Metrics, Protocol, Report};

use crate::leaks::nothing_is_left;
pub(crate) use crate::patience::{PATIENCE, until};
pub(crate) use crate::plain::{Echo, Sink};
pub(crate) use crate::sockets::*;
pub(crate) use crate::trail::{Step, Trail, Watched};

/// What one read can add to a queue.
pub(crate) const READ_BUFFER: usize = 64 * KIB;

/// Tests that count threads run alone: all tests share one process.
static PROCESS: RwLock<()> = RwLock::new(());

enum Share {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A driver that runs on a thread of its own.
pub(crate) struct Running {
    thread: Option<JoinHandle<(Blocking, Report)>>,
    pub(crate) handle: Handle,
    share: Share,
}

/// Runs `driver`.
pub(crate) fn start(driver: Blocking) -> Running {
    let guard = PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    run(driver, Share::Shared { _guard: guard })
}

/// Nobody counts threads as long as this is kept: for a driver that is run by the test itself.
pub(crate) fn not_alone() -> RwLockReadGuard<'static, ()> {
    PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `driver` while no other test does, so that its threads can be counted.
pub(crate) fn start_alone(driver: Blocking) -> Running {
    let guard = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The system takes a moment to bury those that have ended.
    until(|| threads().is_empty(), "threads of other tests are left");
    run(driver, Share::Alone { _guard: guard })
}

fn run(mut driver: Blocking, share: Share) -> Running {
    let handle = driver.handle();
    let thread = thread::spawn(move || {
        let report = driver.run().unwrap();
        (driver, report)
    });
    Running { thread: Some(thread), handle, share }
}

impl Running {
    /// Shuts the driver down, as the end of a test: nothing may be left behind.
    #[track_caller]
    pub(crate) fn finish(self) -> (Metrics, Report) {
        self.handle.shutdown();
        self.join()
    }

    /// Waits for the driver to end by itself, and looks for leaks.
    #[track_caller]
    pub(crate) fn join(mut self) -> (Metrics, Report) {
        let thread = self.thread.take().unwrap();
        until(|| thread.is_finished(), "the driver did not end");
        let (driver, report) = thread.join().unwrap();
        let metrics = driver.metrics();
        nothing_is_left(&metrics, "blocking threads");
        if let Share::Alone { .. } = self.share {
            until(|| threads().is_empty(), "threads were left behind");
        }
        (metrics, report)
    }
}

impl Drop for Running {
    /// A test that fails must not make others fail, which count threads.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown();
            let _ = thread.join();
        }
    }
}

/// The names of the threads that the library has started in this process, as far as the system
/// keeps them.
pub(crate) fn threads() -> Vec<String> {
    let mut names = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // A thread may be gone before its name is read.
        if let Ok(name) = std::fs::read_to_string(task.unwrap().path().join("comm")) {
            if name.starts_with("lariat ") {
                names.push(name.trim_end().to_owned());
            }
        }
    }
    names
}

pub(crate) fn driver_with(change: impl FnOnce(&mut DriverLimits)) -> Blocking {
    let mut limits = DriverLimits::default();
    limits.connections_max = 256;
    change(&mut limits);
    Blocking::with_limits(limits).unwrap()
}

/// Listens with watched protocols, which share a trail.
pub(crate) fn listen<P: Protocol + Send + 'static>(
    driver: &mut Blocking,
    make: impl Fn() -> P + Send + Sync + 'static,
) -> (SocketAddr, Trail) {
    listen_with(driver, |_| (), make)
}

pub(crate) fn listen_with<P: Protocol + Send + 'static>(
    driver: &mut Blocking,
    change: impl FnOnce(&mut Limits),
    make: impl Fn() -> P + Send + Sync + 'static,
) -> (SocketAddr, Trail) {
    let trail = Trail::default();
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let kept = trail.clone();
    let factory = move |_: &lariat::Incoming| Some(Watched(make(), kept.clone()));
    let listener = driver.listen_with("127.0.0.1:0", options, factory).unwrap();
    (driver.addresses(listener)[0].socket_addr().unwrap(), trail)
}
