//! Another protocol takes the connection over.

use super::idle::Idle;
use super::{Connection, Flags};

impl Connection {
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
        self.flags.clear(Flags::OPENED | Flags::EOF_DONE);
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
