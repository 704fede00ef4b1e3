//! Everything a connection may have to do in a turn except plain reading.

use super::EventLoop;
use super::send::flush;
use super::system::{Stream, System};
use crate::connection::{Consumed, Due, Flags, Round};
use crate::id::ConnId;
use crate::protocol::Callback;

impl<S: System> EventLoop<S> {
    /// Does what is due, in the order of the contract: connected, faults, output, then callbacks.
    #[inline(never)]
    pub(super) fn attend(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let flags = entry.conn.flags();
        if flags.any(Flags::ENDED) {
            if flags.none(Flags::COUNTED_OUT) {
                // A read has ended it: gauges, holders and the socket come first, `closed` in the
                // next turn.
                return self.finish(id);
            }
            if entry.conn.has_ended_in(self.shared.metrics.turns) {
                // Another connection's callback has ended it before it was served.
                return self.list(id);
            }
            return self.tell_closed(id);
        }
        if flags.any(Flags::CONNECTING) {
            self.complete_connect(id);
        } else if flags.any(Flags::FAULTY) {
            self.look_at_fault(id);
        }
        if let Some(entry) = self.table.get_mut(id) {
            if entry.conn.has_output() {
                flush(entry, &mut self.shared, &mut self.budget);
            }
        }
        let mut round = Round::default();
        let mut settled = false;
        while let Some(entry) = self.table.get_mut(id) {
            let Some(due) = entry.conn.poll_due(&mut round) else { break };
            self.call(id, due);
            settled = true;
        }
        if !settled {
            self.finish(id);
        }
    }

    /// Runs one callback and what follows from it.
    fn call(&mut self, id: ConnId, due: Due) {
        let Some(entry) = self.table.get_mut(id) else { return };
        self.budget.charge_callback();
        let called = entry.called(&mut self.shared);
        let callback = match due {
            Due::Opened => {
                called.opened();
                Callback::Opened
            }
            Due::Stopping => {
                called.stopping();
                Callback::Stopping
            }
            Due::Drained => {
                called.drained();
                Callback::Drained
            }
            Due::Notified(note) => {
                called.notified(note);
                Callback::Notified
            }
            Due::Data => return self.call_data(id),
            Due::Eof => return self.call_eof(id),
        };
        self.settle_after(id, callback);
    }

    /// The system reported an error. If the next read would not find it, the socket is asked for
    /// it.
    fn look_at_fault(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.handle_fault_seen();
        let Some(stream) = entry.stream.as_mut() else { return };
        let mut unread = Flags::PAUSED | Flags::HELD | Flags::PEER_FIN;
        if !stream.is_socket() {
            // Nobody reads what is written. What is to be read may go on.
            unread = Flags::PEER_FIN;
            entry.conn.handle_tried();
        }
        if entry.conn.flags().any(unread) {
            if let Ok(Some(error)) = stream.take_error() {
                entry.conn.handle_write_failed(error, &mut self.shared.chunks);
            }
        }
    }

    /// `drained`, right after the callback that congested the output.
    pub(super) fn call_drained(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.poll_drained() {
            self.call(id, Due::Drained);
        } else {
            self.finish(id);
        }
    }

    /// Shows unread input.
    fn call_data(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let unread = entry.conn.lend_unread();
        let consumed = entry.called(&mut self.shared).data::<true>(unread.as_slice(), true);
        self.send_own(id, unread.as_slice(), Callback::Data);
        let successor = self.apply_effects(Some(id), unread.as_slice());
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.handle_unread_shown(unread, consumed, &mut self.shared.chunks);
        }
        self.succeed(id, successor);
        self.finish(id);
    }

    fn call_eof(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let unread = entry.conn.lend_unread();
        let consumed = entry.called(&mut self.shared).eof(unread.as_slice());
        self.send_own(id, unread.as_slice(), Callback::Eof);
        let successor = self.apply_effects(Some(id), unread.as_slice());
        if let Some(entry) = self.table.get_mut(id) {
            let chunks = &mut self.shared.chunks;
            if successor.is_some() {
                let consumed = Consumed { need: 0, ..consumed };
                entry.conn.handle_unread_shown(unread, consumed, chunks);
            } else {
                entry.conn.handle_eof_shown(unread, consumed, chunks);
            }
        }
        self.succeed(id, successor);
        self.finish(id);
    }

    pub(super) fn settle_after(&mut self, id: ConnId, callback: Callback) {
        self.send_own(id, &[], callback);
        if callback == Callback::Stopping {
            // Before the effects: one of them may finish this connection for another reason.
            self.finish_as(id, true);
        }
        let successor = self.apply_effects(Some(id), &[]);
        self.succeed(id, successor);
        self.finish(id);
    }
}
