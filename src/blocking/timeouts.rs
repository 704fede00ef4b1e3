//! The time-outs of sockets that threads sleep in.

use std::io;
use std::time::Duration;

/// The shortest time that a thread sleeps.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// The time-out of a call that is to sleep until `until`. Zero would mean none to the system.
pub(super) fn timeout(until: u64, now: u64) -> Option<Duration> {
    let left = Duration::from_nanos(until.saturating_sub(now));
    (until < u64::MAX).then_some(left.max(SHORTEST))
}

/// Whether the socket's time-out is good enough: it may end a sleep early, but hardly late.
pub(super) fn fits(has: Option<Duration>, wanted: Option<Duration>) -> bool {
    match (has, wanted) {
        (None, None) => true,
        (Some(has), Some(wanted)) => has >= wanted / 2 && has <= wanted + SHORTEST,
        _ => false,
    }
}

pub(super) fn log_timeout(error: &io::Error) {
    log::debug!(target: "lariat::blocking", "cannot set a time-out: {error}");
}

/// The look at a socket before something that is due.
#[derive(Clone, Copy, Default)]
pub(super) struct Look {
    /// When that was due.
    due: u64,
    /// When a thread first looked, and the bytes that had come by then.
    pub(super) since: u64,
    pub(super) bytes_in: u64,
}

impl Look {
    /// Notes a look before what is due at `due`. True when it is the first.
    pub(super) fn note(&mut self, due: u64, now: u64, bytes_in: u64) -> bool {
        let first = self.due != due;
        if first {
            *self = Look { due, since: now, bytes_in };
        }
        first
    }
}

/// Whether a call ended before anything happened: its time-out has passed, or a signal came. Any
/// other error is the connection's, the system's own ETIMEDOUT above all.
pub(super) fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_sleep_ends_at_its_deadline_and_is_no_shorter_than_a_millisecond() {
        assert_eq!(timeout(u64::MAX, 0), None);
        assert_eq!(timeout(u64::MAX - 1, 0), Some(Duration::from_nanos(u64::MAX - 1)));
        for (until, most) in [(5_000_000, 5 * MS), (1_000_001, MS + Duration::from_nanos(1))] {
            assert_eq!(timeout(7 + until, 7), Some(most));
        }
        for until in [0, 6, 7, 8, 1_000_006, 1_000_007] {
            assert_eq!(timeout(until, 7), Some(MS), "until {until}");
        }
    }

    #[test]
    fn a_time_out_may_end_a_sleep_at_half_of_it_or_a_millisecond_late() {
        let ns = Duration::from_nanos(1);
        assert!(fits(None, None));
        assert!(!fits(None, Some(MS)) && !fits(Some(MS), None));
        for (has, wanted, good) in [
            (5 * MS - ns, 10 * MS, false),
            (5 * MS, 10 * MS, true),
            (11 * MS, 10 * MS, true),
            (11 * MS + ns, 10 * MS, false),
        ] {
            assert_eq!(fits(Some(has), Some(wanted)), good, "{has:?} for {wanted:?}");
        }
    }

    #[test]
    fn the_first_look_before_what_is_due_is_kept() {
        let mut look = Look::default();
        assert!(look.note(10, 20, 5));
        assert!(!look.note(10, 30, 6));
        assert_eq!((look.since, look.bytes_in), (20, 5));
        assert!(look.note(11, 40, 7));
        assert_eq!((look.since, look.bytes_in), (40, 7));
    }

    #[test]
    fn only_a_time_out_and_a_signal_end_a_call_early() {
        use io::ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
        for (kind, early) in
            [(WouldBlock, true), (Interrupted, true), (TimedOut, false), (ConnectionReset, false)]
        {
            assert_eq!(is_early(&kind.into()), early, "{kind:?}");
        }
    }
}
