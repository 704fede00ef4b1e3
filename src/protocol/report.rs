//! What the log says of a callback that has failed.

use std::error::Error;
use std::fmt::Display;

use super::Callback;
use crate::guard::{Panic, guarded};
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
