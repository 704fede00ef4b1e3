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
mod tests {
    use super::*;
    use std::sync::Once;

    /// Keeps the last lines of the episodes of these tests.
    struct Kept(Mutex<Vec<String>>);

    static KEPT: Kept = Kept(Mutex::new(Vec::new()));

    impl log::Log for Kept {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == "lariat::episode"
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                self.0.lock().unwrap().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }

    /// The lines of an episode of this name.
    fn lines_of(what: &str) -> Vec<String> {
        let lines = KEPT.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(&format!("{what}: "))).cloned().collect()
    }

    #[test]
    fn what_was_not_logged_is_logged_as_a_number_at_the_end_and_once() {
        static BEGIN: Once = Once::new();
        BEGIN.call_once(|| {
            let _ = log::set_logger(&KEPT);
            log::set_max_level(log::LevelFilter::Info);
        });
        for (what, count) in [("nothing at all", 0), ("one", 1)] {
            let mut episode = Episode::new(what);
            (0..count).for_each(|now| {
                let _ = episode.note(now);
            });
            drop(episode);
            assert_eq!(lines_of(what), [] as [&str; 0]);
        }
        for (what, count) in [("two", 2), ("three", 3)] {
            let more = format!("{what}: {} more times, not logged", count - 1);
            let mut episode = Episode::new(what);
            (0..count).for_each(|now| {
                let _ = episode.note(now);
            });
            episode.close();
            drop(episode);
            assert_eq!(lines_of(what), [more.as_str()]);
            let common = CommonEpisode::new(what);
            (0..count).for_each(|now| {
                let _ = common.note(now);
            });
            common.close();
            assert_eq!(lines_of(what), [more.as_str(); 2]);
            drop(common);
            assert_eq!(lines_of(what), [more.as_str(); 2]);
        }
        drop(CommonEpisode::new("four"));
        let dropped = CommonEpisode::new("five");
        (0..5).for_each(|now| {
            let _ = dropped.note(now);
        });
        drop(dropped);
        assert_eq!(lines_of("five"), ["five: 4 more times, not logged"]);
    }

    #[test]
    fn the_first_of_an_episode_is_logged_and_the_rest_are_counted() {
        let mut episode = Episode::new("a test");
        assert_eq!(episode.note(5), Some(Earlier(0)));
        for now in 6..100 {
            assert_eq!(episode.note(now), None);
        }
        assert_eq!(episode.end(99 + OVER - 1), None);
        assert_eq!(episode.end(99 + OVER), Some(95));
        assert_eq!(episode.end(u64::MAX), None);
    }

    #[test]
    fn an_episode_lasts_as_long_as_the_pauses_are_short() {
        let mut episode = Episode::new("a test");
        assert!(episode.note(0).is_some());
        assert_eq!(episode.note(OVER - 1), None);
        assert_eq!(episode.note(2 * OVER - 2), None);
        let earlier = episode.note(3 * OVER - 2).unwrap();
        assert_eq!(earlier.to_string(), " (and 2 times before, not logged)");
        assert_eq!(episode.note(3 * OVER - 1), None);
    }

    #[test]
    fn a_lone_trouble_says_nothing_of_others() {
        let mut episode = Episode::new("a test");
        assert_eq!(episode.note(0).unwrap().to_string(), "");
        assert_eq!(episode.note(OVER).unwrap().to_string(), "");
    }
}
