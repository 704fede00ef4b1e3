//! What the log says of a callback that has failed, and of a protocol that fails as it is dropped.

use std::error::Error;
use std::fmt::Display;

use super::Callback;
use crate::guard::{Panic, drop_guarded, guarded};
use crate::metrics::Metrics;

/// The name of a protocol. A protocol that panics in a callback may panic in `name` as well.
pub(crate) fn guarded_name<'a>(name: impl FnOnce() -> &'a str) -> String {
    guarded(|| name().to_owned()).unwrap_or_default()
}

/// `callback` of the protocol `name`, at `place`, has returned `error`.
#[cold]
pub(crate) fn report_error(callback: Callback, name: &str, place: impl Display, error: &dyn Error) {
    let callback = callback.name();
    log::debug!(target: "lariat::dispatch", "{callback} of {name} for {place} failed: {error}");
}

/// `callback` of the protocol `name`, at `place`, has panicked.
#[cold]
pub(crate) fn report_panic(
    callback: Callback,
    name: &str,
    place: impl Display,
    panic: &Panic,
    metrics: &mut Metrics,
) {
    let callback = callback.name();
    log::error!(target: "lariat::dispatch", "{callback} of {name} for {place} panicked: {panic}");
    metrics.panics += 1;
}

/// Drops a protocol of the user's.
pub(crate) fn drop_protocol<P>(protocol: P, metrics: &mut Metrics) {
    if !drop_guarded(protocol) {
        metrics.panics += 1;
        log::error!(target: "lariat::dispatch", "a protocol panicked while it was dropped");
    }
}
