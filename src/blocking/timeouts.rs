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

/// Whether a call ended before anything happened: its time-out has passed, or a signal came. Any
/// other error is the connection's, the system's own ETIMEDOUT above all.
pub(super) fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
