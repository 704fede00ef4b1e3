//! The tap of a connection: above its filter, below its protocol.

use std::time::{Duration, SystemTime};

use super::{Connection, Flags};
use crate::endpoint::Endpoint;
use crate::guard::{drop_guarded, guarded};
use crate::reason::{By, Cause, CloseKind, CloseReason};
use crate::tap::{Tap, Tapped};

/// A tap, and the facts of each call.
pub(super) struct Tapping {
    tap: Box<dyn Tap>,
    local: Option<Endpoint>,
    /// The same moment by both clocks of the driver.
    since: u64,
    wall: SystemTime,
}

impl Connection {
    /// Sets a tap, in the place of an earlier one. It sees the unread bytes at once.
    pub(crate) fn put_tap(
        &mut self,
        tap: Box<dyn Tap>,
        local: Option<Endpoint>,
        since: u64,
        wall: SystemTime,
    ) {
        self.flags.set(Flags::TAPPED);
        let tapping = Box::new(Tapping { tap, local, since, wall });
        drop_guarded(self.rare_mut().tap.replace(tapping));
        let unread = self.queues().map_or(0, |queues| queues.unread.len());
        self.tap_unread(unread, since);
    }

    /// Shows the last `count` unread bytes: they are new.
    pub(super) fn tap_unread(&mut self, count: usize, tick: u64) {
        if count == 0 || self.flags.none(Flags::TAPPED) {
            return;
        }
        // The queue is put back at once: the tap has no access to it.
        let unread = self.lend_unread();
        let from = unread.len().saturating_sub(count);
        self.tap_received(&unread.as_slice()[from..], tick);
        self.queues_mut().unread = unread;
        if self.flags.any(Flags::ENDED) {
            self.lose_unread();
        }
    }

    /// Bytes have arrived from the peer.
    pub(super) fn tap_received(&mut self, bytes: &[u8], tick: u64) {
        self.call_tap(tick, |tap, at| tap.received(at, bytes));
    }

    /// Bytes were written to the peer.
    pub(crate) fn tap_sent(&mut self, bytes: &[u8], tick: u64) {
        self.call_tap(tick, |tap, at| tap.sent(at, bytes));
    }

    /// The end was decided.
    pub(crate) fn tap_closed(&mut self, reason: &CloseReason, tick: u64) {
        self.call_tap(tick, |tap, at| tap.closed(at, reason));
    }

    fn call_tap(&mut self, tick: u64, call: impl FnOnce(&mut dyn Tap, &Tapped)) {
        if self.flags.none(Flags::TAPPED) {
            return;
        }
        let (id, listener, peer) = (self.id, self.listener(), self.peer());
        let Some(tapping) = self.rare.as_mut().and_then(|rare| rare.tap.as_deref_mut()) else {
            return;
        };
        let Tapping { tap, local, since, wall } = tapping;
        let time = *wall + Duration::from_nanos(tick.saturating_sub(*since));
        let at = Tapped { id, listener, local: *local, peer, time };
        if let Err(panic) = guarded(|| call(&mut **tap, &at)) {
            self.flags.clear(Flags::TAPPED);
            drop_guarded(self.rare_mut().tap.take());
            self.end(By::Us, CloseKind::Panicked, Some(Cause::new(panic)));
        }
    }
}
