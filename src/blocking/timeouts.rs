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
