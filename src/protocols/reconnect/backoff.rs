//! How long to wait before an attempt.

use std::time::Duration;

use crate::clock::nanos;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::random::Random;

/// How long [`Reconnect`](super::Reconnect) waits before an attempt, and when it gives up.
///
/// After the n-th failure in a row the delay is drawn evenly from nothing up to the smaller of
/// `cap` and `first` * 2^(n - 1).
///
/// ```
/// use std::time::Duration;
/// use lariat::reconnect::Backoff;
///
/// let backoff = Backoff::default();
/// assert_eq!(backoff.first, Duration::from_millis(500));
/// assert_eq!(backoff.cap, Duration::from_secs(30));
/// assert_eq!(backoff.healthy, Duration::from_secs(10));
/// assert_eq!(backoff.failures_max, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The longest delay after a first failure, more than zero \[500 ms\]. It doubles with each
    /// further failure.
    pub first: Duration,
    /// The longest delay, at least `first` \[30 s\].
    pub cap: Duration,
    /// How long a connection has to be open, from `opened` to its end, for its end to count as a
    /// first failure \[10 s\]. Zero: each connection that opens.
    pub healthy: Duration,
    /// Failures in a row after which no attempt is made any more, at least 1 \[no limit\].
    pub failures_max: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            healthy: Duration::from_secs(10),
            failures_max: None,
        }
    }
}

impl Backoff {
    pub(super) fn validate(&self) -> Result<()> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        if self.first.is_zero() {
            return fault("backoff.first must be more than zero");
        }
        if self.cap < self.first {
            return fault("backoff.cap must be at least backoff.first");
        }
        if self.failures_max == Some(0) {
            return fault("backoff.failures_max must be at least 1");
        }
        Ok(())
    }

    /// The longest delay after this many failures in a row, in nanoseconds.
    fn bound(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(63);
        let bound = u128::from(nanos(self.first)) << doublings;
        u64::try_from(bound).unwrap_or(u64::MAX).min(nanos(self.cap))
    }

    /// The delay after this many failures in a row.
    pub(super) fn delay(&self, failures: u32, random: &mut Random) -> Duration {
        // The bound itself is one of the delays.
        Duration::from_nanos(random.below(self.bound(failures).saturating_add(1)))
    }

    pub(super) fn gives_up(&self, failures: u32) -> bool {
        self.failures_max.is_some_and(|most| failures >= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_an_error_that_names_the_field() {
        let (one, two) = (Duration::from_nanos(1), Duration::from_nanos(2));
        let default = Backoff::default();
        let good = [
            default.clone(),
            Backoff { first: one, cap: one, healthy: Duration::ZERO, failures_max: Some(1) },
            Backoff { first: Duration::MAX, cap: Duration::MAX, ..default.clone() },
        ];
        assert!(good.iter().all(|backoff| backoff.validate().is_ok()));
        let bad = [
            (Backoff { first: Duration::ZERO, ..default.clone() }, "first"),
            (Backoff { first: two, cap: one, ..default.clone() }, "cap"),
            (Backoff { failures_max: Some(0), ..default }, "failures_max"),
        ];
        for (backoff, field) in bad {
            let error = backoff.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidLimits);
            let start = format!("these limits cannot work: backoff.{field} ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_never_overflows() {
        let backoff = Backoff::default();
        let bounds: Vec<u64> = (1..=9).map(|n| backoff.bound(n) / 1_000_000).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.bound(u32::MAX), 30_000_000_000);
        let endless = Backoff { first: Duration::MAX, cap: Duration::MAX, ..backoff };
        assert_eq!(endless.bound(u32::MAX), u64::MAX);
        endless.delay(u32::MAX, &mut Random::new(1));
    }

    #[test]
    fn both_ends_of_the_interval_are_drawn() {
        let one = Duration::from_nanos(1);
        let backoff = Backoff { first: one, cap: one, ..Backoff::default() };
        let mut random = Random::new(1);
        let drawn: Vec<u128> = (0..64).map(|_| backoff.delay(1, &mut random).as_nanos()).collect();
        assert!(drawn.contains(&0) && drawn.contains(&1) && drawn.iter().all(|d| *d <= 1));
    }
}
