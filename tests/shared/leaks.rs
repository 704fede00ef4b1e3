//! What the counters of a driver say when nothing is left behind.

use std::fmt::Display;

use lariat::Metrics;

/// Whether every connection and every datagram socket that has begun has ended.
#[allow(dead_code)]
pub(crate) fn all_have_ended(metrics: &Metrics) -> bool {
    metrics.closes.total() == metrics.accepted + metrics.connects + metrics.binds
}

/// Each of them has ended once, and no gauge counts it any more.
#[track_caller]
pub(crate) fn nothing_is_left(metrics: &Metrics, told: impl Display) {
    let Metrics { open, handshaking, lingering, paused, held, buffered, bound, .. } = metrics;
    let gauges = [open, handshaking, lingering, paused, held, buffered, bound];
    assert_eq!(gauges, [&0; 7], "{told}: {metrics:?}");
    assert!(all_have_ended(metrics), "{told}: {metrics:?}");
}
