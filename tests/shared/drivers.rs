//! A scenario on every driver, watched: a defect may mean that a run never ends.

#![allow(dead_code)]

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::sim::{Faults, Sim};
use lariat::{Driver, DriverLimits};

/// More than any scenario takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which driver a scenario runs on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) told: String,
    /// Whether its sockets are the system's.
    pub(crate) real: bool,
    /// Whether each connection has a thread of its own.
    pub(crate) threads: bool,
    /// Whether its UDP sockets are to have `DatagramOptions::offload`.
    pub(crate) offload: bool,
}

impl Place {
    pub(crate) fn reactor() -> Place {
        Place { told: "the reactor".to_owned(), real: true, threads: false, offload: false }
    }

    pub(crate) fn blocking() -> Place {
        Place { told: "blocking threads".to_owned(), real: true, threads: true, offload: false }
    }

    fn with_offload(self) -> Place {
        Place { told: format!("{} with udp-offload", self.told), offload: true, ..self }
    }
}

/// Runs `scenario` on every driver; in the simulator with each seed, over a network without faults
/// and over a rough one.
#[track_caller]
pub(crate) fn everywhere(
    seeds: Range<u64>,
    limits: DriverLimits,
    mut scenario: impl FnMut(&mut dyn Driver, &Place),
) {
    for seed in seeds {
        for faults in [Faults::none(), Faults::rough()] {
            let told = format!("the simulator with seed {seed} and {faults:?}");
            let mut sim = Sim::with_limits(seed, limits.clone()).unwrap();
            sim.set_faults(faults);
            let place = Place { told, real: false, threads: false, offload: false };
            watched(&mut sim, &place, &mut scenario);
        }
    }
    on_sockets(limits, scenario);
}

/// Runs `scenario` on the drivers that have the system's sockets.
#[track_caller]
pub(crate) fn on_sockets(limits: DriverLimits, mut scenario: impl FnMut(&mut dyn Driver, &Place)) {
    let mut reactor = Reactor::with_limits(limits.clone()).unwrap();
    watched(&mut reactor, &Place::reactor(), &mut scenario);
    let mut blocking = Blocking::with_limits(limits).unwrap();
    watched(&mut blocking, &Place::blocking(), &mut scenario);
}

/// Runs `scenario` on the same drivers, with UDP sockets of quinn-udp.
#[track_caller]
pub(crate) fn on_offload(limits: DriverLimits, mut scenario: impl FnMut(&mut dyn Driver, &Place)) {
    let mut reactor = Reactor::with_limits(limits.clone()).unwrap();
    watched(&mut reactor, &Place::reactor().with_offload(), &mut scenario);
    let mut blocking = Blocking::with_limits(limits).unwrap();
    watched(&mut blocking, &Place::blocking().with_offload(), &mut scenario);
}

/// Says where an assertion has failed.
struct Failing<'a>(&'a str);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on {}", self.0);
        }
    }
}

/// Runs `scenario`. A driver that does not come to its end is shut down; where it does not do that
/// either, the whole test ends.
pub(crate) fn watched(
    driver: &mut dyn Driver,
    place: &Place,
    scenario: &mut dyn FnMut(&mut dyn Driver, &Place),
) {
    let handle = driver.handle();
    let (done, watched) = mpsc::channel::<()>();
    let bitten = Arc::new(AtomicBool::new(false));
    let bites = Arc::clone(&bitten);
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let told = place.told.clone();
    let watchdog = std::thread::spawn(move || {
        let timed_out = Err(mpsc::RecvTimeoutError::Timeout);
        if watched.recv_timeout(PATIENCE) == timed_out {
            bites.store(true, Ordering::Release);
            handle.shutdown();
            if watched.recv_timeout(DriverLimits::default().drain + PATIENCE) == timed_out {
                // Not by a macro: what those print is captured, and lost with the process.
                let _ = writeln!(std::io::stderr(), "stuck: {test} on {told}");
                std::process::abort();
            }
        }
    });
    let failing = Failing(&place.told);
    scenario(driver, place);
    drop((failing, done));
    watchdog.join().unwrap();
    let told = &place.told;
    assert!(!bitten.load(Ordering::Acquire), "not over after {PATIENCE:?} on {told}");
}
