//! After anything happened to a connection: the one place that drives its state on.

use super::send::flush;
use super::system::{Stream, System};
use super::table::Entry;
use super::{EventLoop, Released};
use crate::connection::Flags;
use crate::guard::{drop_guarded, guarded};
use crate::id::ConnId;
use crate::reason::CloseReason;

impl<S: System> EventLoop<S> {
    /// Applies the wishes of the connection itself and does what follows from its new state: FIN,
    /// the end, releases, deadlines, the ready list.
    pub(super) fn finish(&mut self, id: ConnId) {
        self.finish_as(id, false);
    }

    /// As [`EventLoop::finish`]; `stopping` tells that the callback was told of the shutdown.
    #[inline(never)]
    pub(super) fn finish_as(&mut self, id: ConnId, stopping: bool) {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else { return };
        let shared = &mut self.shared;
        entry.conn.handle_wishes(&mut shared.chunks, tick, stopping);
        entry.conn.poll_broken_end();
        let mut fin = entry.conn.poll_fin(tick);
        if !fin && entry.conn.has_output() {
            // A filter's last words stand between the output and the FIN.
            flush(entry, shared);
            fin = entry.conn.poll_fin(tick);
        }
        if fin {
            // Whoever has the peer's FIN and closes sends its own by closing the socket.
            let closing = entry.conn.flags().any(Flags::CLOSING);
            let implied = closing && entry.conn.flags().any(Flags::PEER_FIN);
            let result = match &mut entry.stream {
                Some(stream) if !implied => stream.shutdown_write(),
                _ => Ok(()),
            };
            entry.conn.handle_fin_sent(tick);
            if let Err(error) = result {
                entry.conn.handle_write_failed(error, &mut shared.chunks);
            }
        }
        entry.conn.poll_finished();
        entry.conn.handle_wishes(&mut shared.chunks, tick, stopping);
        entry.conn.poll_broken_end();
        let flags = entry.conn.flags();
        if flags.any(Flags::CLOSING | Flags::ENDED) {
            self.finish_ending(id);
        }
        self.release_held(id);
        self.sync_deadline(id);
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.account(&mut self.shared.metrics);
            entry.conn.return_rare(&mut self.shared.rares);
        }
        self.list(id);
    }

    /// A connection that is closing or has ended.
    fn finish_ending(&mut self, id: ConnId) {
        self.drop_timers(id);
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.is_lingering() && entry.conn.handle_lingering() {
            self.shared.metrics.open -= 1;
            self.shared.metrics.lingering += 1;
            self.note_released(Released::Place);
            self.lingering.push_back(id);
            self.bound_lingering();
        }
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.flags().any(Flags::ENDED) {
            if let Some(mut stream) = entry.stream.take() {
                if entry.conn.flags().any(Flags::RESET) {
                    stream.reset_on_close();
                }
                drop(stream);
                self.note_released(Released::Descriptor);
            }
            self.count_closed_out(id);
            self.note_released(Released::Place);
        }
    }

    /// Keeps the number of lingering connections within its bound: the oldest goes first.
    fn bound_lingering(&mut self) {
        while self.shared.metrics.lingering > self.limits.lingering_max as u64 {
            if !self.cut_oldest_lingering() {
                return;
            }
        }
        // Those that ended by themselves are dropped from the list now and then.
        if self.lingering.len() > 2 * self.limits.lingering_max + 16 {
            let table = &mut self.table;
            self.lingering
                .retain(|id| table.get_mut(*id).is_some_and(|entry| entry.conn.is_lingering()));
        }
    }

    /// Ends the connection that has lingered for longest; false when there is none.
    pub(super) fn cut_oldest_lingering(&mut self) -> bool {
        while let Some(id) = self.lingering.pop_front() {
            if let Some(entry) = self.table.get_mut(id) {
                if entry.conn.is_lingering() {
                    entry.conn.handle_linger_cut();
                    self.finish(id);
                    return true;
                }
            }
        }
        false
    }

    /// The gauges of open and lingering connections, once per connection.
    fn count_closed_out(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if !entry.conn.handle_counted_out() {
            return;
        }
        entry.conn.put_end_turn(self.shared.metrics.turns);
        if entry.conn.flags().any(Flags::LINGERING) {
            self.shared.metrics.lingering -= 1;
        } else {
            self.shared.metrics.open -= 1;
        }
    }

    /// Connections that waited for this queue go on.
    fn release_held(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.rare().is_none_or(|rare| rare.holders.is_empty()) {
            return;
        }
        let mut holders = entry.conn.poll_released();
        for holder in holders.drain(..) {
            if let Some(entry) = self.table.get_mut(holder) {
                entry.conn.handle_released(id);
                entry.conn.account(&mut self.shared.metrics);
                self.list(holder);
            }
        }
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.put_holders(holders);
        }
    }

    /// Tells the protocol that its connection has ended, and removes it.
    pub(super) fn tell_closed(&mut self, id: ConnId) {
        let now = self.shared.clock.exact();
        let Some(entry) = self.table.get_mut(id) else { return };
        let Some(reason) = entry.conn.poll_closed(now) else { return };
        let peer = entry.conn.peer();
        // The error in the reason is the user's, also in how it is displayed and dropped.
        let _ = guarded(|| log::debug!(target: "lariat::close", "{id} {peer}: {reason}"));
        entry.called(&mut self.shared).closed(&reason);
        self.shared.note_end(id, &reason);
        self.shared.output.clear();
        self.apply_effects(Some(id));
        self.remove(id, &reason);
        drop_guarded(reason);
    }

    fn remove(&mut self, id: ConnId, reason: &CloseReason) {
        self.drop_timers(id);
        let Some(mut entry) = self.table.remove(id) else { return };
        if let Some(key) = entry.conn.deadline_key() {
            self.shared.timers.cancel(key);
        }
        entry.conn.account(&mut self.shared.metrics);
        self.shared.ids.release(id);
        self.note_released(Released::Place);
        self.shared.metrics.closes.count(reason.kind());
        self.count_drained(reason.unsent());
        let Entry { conn, stream, protocol } = entry;
        self.drop_protocol(protocol);
        if !drop_guarded((conn, stream)) {
            self.shared.metrics.panics += 1;
        }
    }
}
