//! The idle deadline of one connection: that of its limits, its own, or none.

use std::time::Duration;

use super::{Connection, Flags};
use crate::limits::Limits;

/// The idle deadline of one connection, in milliseconds: four bytes that each connection has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Idle(u32);

impl Idle {
    /// As its limits say.
    pub(super) const AS_LIMITED: Idle = Idle(0);
    const OFF: Idle = Idle(u32::MAX);

    fn new(idle: Option<Duration>) -> Idle {
        let Some(idle) = idle else { return Idle::OFF };
        Idle(u32::try_from(idle.as_millis()).unwrap_or(u32::MAX - 1).clamp(1, u32::MAX - 1))
    }

    pub(super) fn under(self, limits: &Limits) -> Option<Duration> {
        match self {
            Idle::AS_LIMITED => limits.idle,
            Idle::OFF => None,
            Idle(millis) => Some(Duration::from_millis(u64::from(millis))),
        }
    }
}

impl Connection {
    /// Whether silence has a limit, so that the time of each byte matters.
    #[inline(always)]
    pub(crate) fn counts_silence(&self) -> bool {
        self.idle.under(&self.limits).is_some()
    }

    /// When a byte last moved, if the time was kept.
    #[inline(always)]
    pub(crate) fn last_active(&self) -> u64 {
        self.active
    }

    /// The connection has an idle deadline of its own from now on.
    pub(crate) fn put_idle(&mut self, idle: Option<Duration>) {
        let idle = Idle::new(idle);
        if self.idle != idle {
            self.idle = idle;
            self.flags.set(Flags::LIMITS_CHANGED);
        }
    }

    /// Whether an idle deadline was set that replaces the one of the limits.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn has_own_idle(&self) -> bool {
        self.idle != Idle::AS_LIMITED
    }
}
