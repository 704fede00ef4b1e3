//! What connections share, without a driver: for unit tests, which move its time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{Binder, Bound, Listeners, Outcome, Shared, Sockets, Workplace};
use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::id::{IdSource, Ids};
use crate::limits::DriverLimits;
use crate::options::ListenOptions;

/// Listens wherever it is asked to.
struct Anywhere;

impl Sockets for Anywhere {
    fn listen(&self, addr: Endpoint, _: &ListenOptions) -> io::Result<Bound> {
        Ok(Bound { addr, socket: Box::new(()), close: None })
    }
}

/// The state, and its time in nanoseconds: 0 to begin with.
pub(crate) fn made_up() -> (Shared, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Clock::virtual_at(Arc::clone(&now), Instant::now(), SystemTime::UNIX_EPOCH);
    let binder = Binder::new(Listeners::default(), Box::new(Anywhere));
    let workplace = Workplace::here(Box::new(|| Duration::ZERO), &DriverLimits::default());
    (Shared::new(clock, IdSource::Own(Ids::default()), 1, binder, workplace), now)
}

/// A protocol, of a connection or of a datagram socket, that does the same in each callback.
pub(crate) struct Alike {
    pub(crate) now: Arc<AtomicU64>,
    /// Nanoseconds that a callback takes.
    pub(crate) takes: u64,
    /// Whether a callback fails, and whether by a panic.
    pub(crate) fails: Option<bool>,
}

impl Alike {
    pub(crate) fn act(&self) -> Outcome {
        self.now.fetch_add(self.takes, Ordering::Relaxed);
        match self.fails {
            None => Ok(()),
            Some(false) => Err("enough".into()),
            Some(true) => panic!("planned"),
        }
    }
}
