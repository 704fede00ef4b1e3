//! Everything a connection may have to do in a turn but plain reading.

use super::EventLoop;
use super::send::flush;
use super::system::{Stream, System};
use crate::connection::{Consumed, Flags};
use crate::id::ConnId;
use crate::protocol::Callback;
use crate::timer::{Timer, TimerKey};

impl<S: System> EventLoop<S> {
    /// Does what is due, in the order of the contract: connected, faults, output, then callbacks.
    #[inline(never)]
    pub(super) fn attend(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let flags = entry.conn.flags();
        if flags.any(Flags::ENDED) {
            if flags.none(Flags::COUNTED_OUT) {
                // A read has ended it: gauges, holders and the socket come first, `closed` next
                // turn.
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
                flush(entry, &mut self.shared);
            }
        }
        self.call_if_due(id, Flags::OPENED_DUE, Self::call_opened);
        self.call_if_due(id, Flags::STOPPING_DUE, Self::call_stopping);
        self.call_if_due(id, Flags::DRAINED_DUE, Self::call_drained);
        self.call_if_due(id, Flags::NOTES_DUE, Self::call_notified);
        self.call_if_due(id, Flags::DATA_DUE, Self::call_data);
        self.call_if_due(id, Flags::EOF_DUE, Self::call_eof);
        self.finish(id);
    }

    /// Runs `call` when `due` is set and the connection may be called.
    fn call_if_due(&mut self, id: ConnId, due: Flags, call: fn(&mut Self, ConnId)) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let flags = entry.conn.flags();
        let input = due.any(Flags::DATA_DUE | Flags::EOF_DUE);
        let waits = (input && flags.any(Flags::PAUSED | Flags::HELD))
            || (due.any(Flags::EOF_DUE) && flags.any(Flags::DATA_DUE))
            // `opened` comes once and first.
            || (due.any(Flags::OPENED_DUE) == flags.any(Flags::OPENED))
            || flags.any(Flags::CLOSING | Flags::ENDED);
        if flags.any(due) && !waits {
            call(self, id);
        }
    }

    /// The system reported an error. Where the next read would not find it, it is asked for.
    fn look_at_fault(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.handle_fault_seen();
        let Some(stream) = entry.stream.as_mut() else { return };
        let unread = Flags::PAUSED | Flags::HELD | Flags::PEER_FIN;
        if entry.conn.flags().any(unread) {
            if let Ok(Some(error)) = stream.take_error() {
                entry.conn.handle_write_failed(error, &mut self.shared.chunks);
            }
        }
    }

    fn call_opened(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.called(&mut self.shared).opened();
        self.settle_after(id, Callback::Opened);
    }

    fn call_stopping(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.called(&mut self.shared).stopping();
        self.settle_after(id, Callback::Stopping);
    }

    pub(super) fn call_drained(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.poll_drained() {
            entry.called(&mut self.shared).drained();
            self.settle_after(id, Callback::Drained);
        } else {
            self.finish(id);
        }
    }

    /// Runs the notes that wait now; those that they cause wait for the next turn.
    fn call_notified(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.handle_called(Flags::NOTES_DUE);
        let waiting = entry.conn.rare().map_or(0, |rare| rare.notes.len());
        for _ in 0..waiting {
            let Some(entry) = self.table.get_mut(id) else { return };
            if !entry.conn.may_call() {
                // Another protocol has taken over: the rest is for it, once it has been opened.
                entry.conn.handle_notes_left();
                return self.finish(id);
            }
            let Some(note) = entry.conn.poll_note() else { return };
            entry.called(&mut self.shared).notified(note);
            self.settle_after(id, Callback::Notified);
        }
    }

    /// Shows unread input.
    fn call_data(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.handle_called(Flags::DATA_DUE);
        let unread = entry.conn.lend_unread();
        let consumed = entry.called(&mut self.shared).data::<true>(unread.as_slice(), true);
        self.send_own(id, unread.as_slice(), Callback::Data);
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.handle_unread_shown(unread, consumed);
        }
        self.settle(id);
    }

    fn call_eof(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let unread = entry.conn.lend_unread();
        let consumed = entry.called(&mut self.shared).eof(unread.as_slice());
        self.send_own(id, unread.as_slice(), Callback::Eof);
        let replaced = self.shared.effects.has_successor();
        if let Some(entry) = self.table.get_mut(id) {
            if replaced {
                entry.conn.handle_unread_shown(unread, Consumed { need: 0, ..consumed });
            } else {
                entry.conn.handle_eof_shown(unread, consumed);
            }
        }
        self.settle(id);
    }

    /// A timer of a protocol is due. It may have been cancelled or set anew since it was taken out.
    pub(super) fn fire(&mut self, id: ConnId, timer: Timer, key: TimerKey) {
        let Some(entry) = self.table.get_mut(id) else {
            self.shared.metrics.stale += 1;
            return;
        };
        if !entry.conn.has_timer(timer, key) {
            return;
        }
        entry.conn.take_timer(timer);
        if entry.conn.may_call() {
            self.shared.metrics.timers += 1;
            entry.called(&mut self.shared).timeout(timer);
            self.settle_after(id, Callback::Timeout);
        }
    }

    fn settle_after(&mut self, id: ConnId, callback: Callback) {
        self.send_own(id, &[], callback);
        if callback == Callback::Stopping {
            // Before the effects: one of them may finish this connection for another reason.
            self.finish_as(id, true);
        }
        self.settle(id);
    }

    /// After a callback whose own output has been sent: everything else it wished for.
    pub(super) fn settle(&mut self, id: ConnId) {
        if !self.shared.effects.is_empty() {
            self.apply_effects(Some(id));
        }
        self.finish(id);
    }
}
