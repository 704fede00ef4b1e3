//! The counters of one thread, for others to read at any time.

use super::bell::lock;
use crate::metrics::Metrics;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The counters of one thread, up to when it last published them. The few that every message
/// changes are apart, so that a message costs no lock.
#[derive(Default)]
pub(super) struct Counters {
    whole: Mutex<Metrics>,
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    callbacks: AtomicU64,
}

impl Counters {
    pub(super) fn publish(&self, metrics: &Metrics) {
        lock(&self.whole).clone_from(metrics);
        self.publish_message(metrics);
    }

    /// Publishes what a message that took the straight path has changed.
    #[inline(always)]
    pub(super) fn publish_message(&self, metrics: &Metrics) {
        self.reads.store(metrics.reads, Ordering::Relaxed);
        self.writes.store(metrics.writes, Ordering::Relaxed);
        self.bytes_in.store(metrics.bytes_in, Ordering::Relaxed);
        self.bytes_out.store(metrics.bytes_out, Ordering::Relaxed);
        self.callbacks.store(metrics.callbacks, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Metrics {
        let mut metrics = lock(&self.whole).clone();
        metrics.reads = self.reads.load(Ordering::Relaxed);
        metrics.writes = self.writes.load(Ordering::Relaxed);
        metrics.bytes_in = self.bytes_in.load(Ordering::Relaxed);
        metrics.bytes_out = self.bytes_out.load(Ordering::Relaxed);
        metrics.callbacks = self.callbacks.load(Ordering::Relaxed);
        metrics
    }
}
