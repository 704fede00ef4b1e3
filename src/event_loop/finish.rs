//! After anything happened to a connection: the one place that advances its state.

use super::send::flush;
use super::system::{Stream, System};
use super::table::Entry;
use super::{EventLoop, Released};
use crate::connection::{Flags, Step, Steps};
use crate::guard::{drop_guarded, guarded};
use crate::id::ConnId;
use crate::protocol::{Shared, TimerId};
use crate::reason::CloseReason;

impl<S: System> EventLoop<S> {
    /// Applies the requests of the connection itself and their consequences: FIN, the end,
    /// releases, deadlines, the ready list.
    pub(super) fn finish(&mut self, id: ConnId) {
        self.finish_as(id, false);
    }

    /// As [`EventLoop::finish`]; `stopping` says that the callback was `stopping`.
    #[inline(never)]
    pub(super) fn finish_as(&mut self, id: ConnId, stopping: bool) {
        let tick = self.shared.clock.tick();
        let mut steps = Steps::after(stopping);
        loop {
            let Some(entry) = self.table.get_mut(id) else { return };
            match entry.conn.poll_step(&mut steps, &mut self.shared.chunks, tick) {
                Step::Flush => flush(entry, &mut self.shared, &mut self.budget),
                Step::Fin => send_fin(entry, &mut self.shared),
                Step::Linger => self.begin_lingering(id),
                Step::Detach => self.detach(id),
                Step::Close => self.close_socket(id),
                Step::Settled => break,
            }
        }
        self.release_held(id);
        self.sync_deadline(id);
        if let Some(entry) = self.table.get_mut(id) {
            if entry.conn.flags().any(Flags::CLOSING | Flags::ENDED) {
                for key in entry.conn.take_timers() {
                    self.shared.timers.cancel(key);
                }
            }
            self.shared.account(&mut entry.conn);
            entry.conn.return_rare(&mut self.shared.rares);
        }
        self.list(id);
    }

    /// The connection no longer counts as open; it waits for the peer's FIN within bounds.
    fn begin_lingering(&mut self, id: ConnId) {
        self.shared.metrics.open -= 1;
        self.shared.metrics.lingering += 1;
        self.admission.leave(id);
        self.note_released(Released::Place);
        self.lingering.push_back(id);
        self.bound_lingering();
    }

    /// The end is decided: the descriptor is free at once, `closed` runs in a later turn.
    fn close_socket(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.put_end_turn(self.shared.metrics.turns);
        let flags = entry.conn.flags();
        let gauge = match flags.any(Flags::LINGERING) {
            true => &mut self.shared.metrics.lingering,
            false => &mut self.shared.metrics.open,
        };
        *gauge -= 1;
        self.admission.leave(id);
        let Some(mut stream) = entry.stream.take() else {
            let descriptor = self.give_up_race(id);
            return self.note_released(match descriptor {
                true => Released::Descriptor,
                false => Released::Place,
            });
        };
        if flags.any(Flags::RESET) {
            stream.reset_on_close();
        }
        self.system.forget_stream(&stream, id);
        drop(stream);
        self.note_released(Released::Descriptor);
    }

    /// Keeps the number of lingering connections within its bound: the oldest goes first.
    fn bound_lingering(&mut self) {
        // There is one more than there was, and no bound has changed since.
        if self.shared.metrics.lingering > self.limits.lingering_max as u64 {
            self.cut_oldest_lingering();
        }
        // Those that ended by themselves are removed from the list now and then.
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

    /// Connections that waited for this queue go on.
    fn release_held(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        for queue in entry.conn.poll_unheld() {
            if let Some(entry) = self.table.get_mut(queue) {
                entry.conn.handle_writer_gone(id);
                entry.conn.return_rare(&mut self.shared.rares);
            }
        }
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.queues().is_none_or(|queues| queues.holders.is_empty()) {
            return;
        }
        let mut holders = entry.conn.poll_released();
        for holder in holders.drain(..) {
            if let Some(entry) = self.table.get_mut(holder) {
                entry.conn.handle_released(id);
                self.shared.account(&mut entry.conn);
                if holder != id {
                    entry.conn.return_rare(&mut self.shared.rares);
                }
                self.list(holder);
            }
        }
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.put_holders(holders);
        }
    }

    /// Runs `closed`, and removes the connection.
    pub(super) fn tell_closed(&mut self, id: ConnId) {
        let now = self.shared.clock.exact();
        let Some(entry) = self.table.get_mut(id) else { return };
        let Some(reason) = entry.conn.poll_closed(now) else { return };
        let peer = entry.conn.peer();
        // The error in the reason is the user's, also in how it is displayed and dropped.
        let _ = guarded(|| log::debug!(target: "lariat::close", "{id} {peer}: {reason}"));
        entry.called(&mut self.shared).closed(&reason);
        self.shared.note_end(id, &reason);
        self.system.ended(id, peer, &reason);
        self.shared.output.clear();
        let successor = self.apply_effects(Some(id), &[]);
        drop_guarded(successor.map(|successor| successor.protocol.here()));
        self.remove(id, &reason);
        drop_guarded(reason);
    }

    fn remove(&mut self, id: ConnId, reason: &CloseReason) {
        let Some(mut entry) = self.table.remove(id) else { return };
        if let Some(key) = entry.conn.deadline_key() {
            self.shared.timers.cancel(key);
        }
        for deadline in entry.conn.take_jobs() {
            self.shared.cancel_closure(TimerId(deadline));
        }
        self.shared.account(&mut entry.conn);
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

/// Shuts the socket's write side. A failure is one of sending.
fn send_fin<S: System>(entry: &mut Entry<S>, shared: &mut Shared) {
    let result = entry.stream.as_mut().map_or(Ok(()), Stream::shutdown_write);
    entry.conn.handle_fin_sent(shared.clock.tick());
    if let Err(error) = result {
        entry.conn.handle_write_failed(error, &mut shared.chunks);
    }
}
