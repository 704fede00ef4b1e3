//! Troubles that come in series: the first is logged, the rest are counted.

use std::fmt;
// Not those of the model check: nothing waits while it is held.
use std::sync::{Mutex, MutexGuard, PoisonError};

/// After this long without another the trouble is over, and the next one begins an episode.
pub(crate) const OVER: u64 = 2_000_000_000;

/// One kind of trouble. Times are nanoseconds of the driver's clock. When it is dropped, the
/// troubles that have not been logged are logged as a number.
#[derive(Debug, Default)]
pub(crate) struct Episode {
    /// What goes wrong, for the last line.
    what: &'static str,
    count: u64,
    last: u64,
}

/// What was not logged before a new episode began; `Display` is the end of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier(u64);

impl Episode {
    pub(crate) fn new(what: &'static str) -> Episode {
        Episode { what, count: 0, last: 0 }
    }

    /// One more. `Some` when it begins an episode and is to be logged.
    pub(crate) fn note(&mut self, now: u64) -> Option<Earlier> {
        let earlier = match self.count {
            0 => Some(Earlier(0)),
            _ => self.end(now).map(|count| Earlier(count - 1)),
        };
        self.count += 1;
        self.last = now;
        earlier
    }

    /// The driver ends: logs what has not been logged.
    pub(crate) fn close(&mut self) {
        if self.count > 1 {
            let more = self.count - 1;
            log::info!(target: "lariat::episode", "{}: {more} more times, not logged", self.what);
        }
        self.count = 0;
    }

    /// The operation has succeeded: returns how often it had failed, if the episode is over.
    #[inline]
    pub(crate) fn end(&mut self, now: u64) -> Option<u64> {
        let over = self.count > 0 && now.saturating_sub(self.last) >= OVER;
        over.then(|| std::mem::take(&mut self.count))
    }
}

/// A trouble that several threads may have.
#[derive(Debug)]
pub(crate) struct CommonEpisode(Mutex<Episode>);

impl CommonEpisode {
    pub(crate) fn new(what: &'static str) -> CommonEpisode {
        CommonEpisode(Mutex::new(Episode::new(what)))
    }

    fn lock(&self) -> MutexGuard<'_, Episode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Episode::note`].
    pub(crate) fn note(&self, now: u64) -> Option<Earlier> {
        self.lock().note(now)
    }

    /// As [`Episode::close`].
    pub(crate) fn close(&self) {
        self.lock().close();
    }
}

impl Drop for Episode {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} times before, not logged)"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
