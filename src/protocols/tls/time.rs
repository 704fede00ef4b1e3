//! The time that certificates are judged by.

use std::cell::RefCell;
use std::time::UNIX_EPOCH;

use rustls::pki_types::UnixTime;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use crate::clock::WallClock;

/// The clock of the driver that a session runs on, as rustls' [`TimeProvider`]: the system's, or in
/// the simulator the virtual one ([`Sim::set_wall_clock`](crate::sim::Sim::set_wall_clock)), so
/// that a test may go on until a certificate has expired, and gives the same result in every year.
///
/// [`ServerConfig::new`](super::ServerConfig::new) and
/// [`ClientConfig::new`](super::ClientConfig::new) use it. A configuration of rustls itself does so
/// with `builder_with_details`:
///
/// ```
/// use std::sync::Arc;
/// use lariat::tls::{DriverTime, rustls};
///
/// let provider = Arc::new(rustls::crypto::ring::default_provider());
/// let builder = rustls::ClientConfig::builder_with_details(provider, Arc::new(DriverTime));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverTime;

// One configuration serves many drivers, and rustls asks it without saying for which session: the
// filter shows the clock of its driver to its thread while it calls rustls.
thread_local! {
    static SHOWN: RefCell<Option<WallClock>> = const { RefCell::new(None) };
}

impl TimeProvider for DriverTime {
    fn current_time(&self) -> Option<UnixTime> {
        match SHOWN.with_borrow(|shown| shown.as_ref().map(WallClock::now)) {
            None => DefaultTimeProvider.current_time(),
            Some(time) => time.duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch),
        }
    }
}

/// While it lives, [`DriverTime`] shows this clock to this thread.
pub(super) struct Shown;

impl Shown {
    pub(super) fn new(clock: &WallClock) -> Shown {
        SHOWN.set(Some(clock.clone()));
        Shown
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        SHOWN.set(None);
    }
}
