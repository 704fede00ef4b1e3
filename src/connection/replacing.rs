//! Another protocol takes the connection over.

use super::idle::Idle;
use super::{Connection, Flags};

impl Connection {
    /// The protocol will be replaced before it has a use for notes: they wait for the next one, as
    /// they wait for `opened`.
    pub(crate) fn defer_notes(&mut self) {
        self.flags.clear(Flags::NOTES_DUE);
        self.flags.set(Flags::NOTES_DEFERRED);
    }

    /// Makes notes that wait due, unless they are for the next protocol.
    pub(super) fn make_notes_due(&mut self) {
        let waits = self.queues().is_some_and(|queues| !queues.notes.is_empty());
        if waits && self.flags.none(Flags::NOTES_DEFERRED) {
            self.flags.set(Flags::NOTES_DUE);
        }
    }

    /// Another protocol takes over: it gets `opened`, then the unread input and a FIN.
    pub(crate) fn handle_replaced(&mut self) {
        self.flags.clear(Flags::DATA_DUE | Flags::EOF_DUE | Flags::NEEDY | Flags::PAUSED);
        self.flags.clear(Flags::LEFT);
        self.need = 0;
        if self.idle != Idle::AS_LIMITED {
            self.idle = Idle::AS_LIMITED;
            self.flags.set(Flags::LIMITS_CHANGED);
        }
        // The new protocol does not inherit the old one's congestion, unless it still lasts.
        self.flags.clear(Flags::CONGESTED | Flags::DRAINED_DUE);
        self.check_marks(0);
        if self.flags.any(Flags::CONNECTING) {
            return;
        }
        self.flags.clear(Flags::OPENED | Flags::EOF_DONE | Flags::NOTES_DEFERRED);
        self.make_notes_due();
        self.grammar = self.grammar.replaced();
        self.flags.set(Flags::OPENED_DUE | Flags::REPLACED);
        if self.flags.any(Flags::UNREAD) {
            self.flags.set(Flags::DATA_DUE);
        }
        if self.flags.any(Flags::PEER_FIN) {
            self.flags.set(Flags::EOF_DUE);
        }
    }
}
