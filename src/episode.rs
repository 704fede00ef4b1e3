//! Troubles that come many at a time: the first is logged, the rest are counted.

use std::fmt;

/// After so long without another the trouble is over, and the next one begins an episode.
pub(crate) const OVER: u64 = 2_000_000_000;

/// One kind of trouble. Times are nanoseconds of the driver's clock.
#[derive(Debug, Default)]
pub(crate) struct Episode {
    count: u64,
    last: u64,
}

/// What nobody was told of before a new episode began; `Display` is the end of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier(u64);

impl Episode {
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

    /// What failed has succeeded: how often it had failed, if the episode is over.
    pub(crate) fn end(&mut self, now: u64) -> Option<u64> {
        let over = self.count > 0 && now.saturating_sub(self.last) >= OVER;
        over.then(|| std::mem::take(&mut self.count))
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

    #[test]
    fn the_first_of_an_episode_is_logged_and_the_rest_are_counted() {
        let mut episode = Episode::default();
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
        let mut episode = Episode::default();
        assert!(episode.note(0).is_some());
        assert_eq!(episode.note(OVER - 1), None);
        assert_eq!(episode.note(2 * OVER - 2), None);
        let earlier = episode.note(3 * OVER - 2).unwrap();
        assert_eq!(earlier.to_string(), " (and 2 times before, not logged)");
        assert_eq!(episode.note(3 * OVER - 1), None);
    }

    #[test]
    fn a_lone_trouble_says_nothing_of_others() {
        let mut episode = Episode::default();
        assert_eq!(episode.note(0).unwrap().to_string(), "");
        assert_eq!(episode.note(OVER).unwrap().to_string(), "");
    }
}
