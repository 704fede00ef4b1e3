//! The shutdown of the driver, as one connection goes through it.

use super::{Connection, Flags};
use crate::reason::{By, CloseKind};

impl Connection {
    /// The driver is being shut down: an open connection gets `stopping`, a connect under way is
    /// cancelled.
    pub(crate) fn handle_shutdown(&mut self) {
        let open = Flags::OPENED | Flags::OPENED_DUE;
        if self.flags.any(open) && self.flags.none(Flags::CONNECTING | Flags::HANDSHAKING) {
            // A protocol that takes over gets `opened` first.
            self.handle_stopping();
        } else {
            self.begin_close(By::Runtime, CloseKind::Shutdown, None);
        }
    }

    /// The driver is being shut down.
    pub(crate) fn handle_stopping(&mut self) {
        if self.flags.none(Flags::CLOSING | Flags::ENDED) {
            self.flags.set(Flags::STOPPING_DUE);
        }
    }

    /// The connect was asked for while the driver was stopping.
    pub(crate) fn handle_late(&mut self) {
        self.flags.set(Flags::LATE);
        self.begin_close(By::Runtime, CloseKind::Shutdown, None);
    }

    /// The drain time is over. An earlier reason stays.
    pub(crate) fn handle_drain_over(&mut self) {
        if self.is_lingering() {
            // Everything was sent, which a reset could destroy.
            return self.handle_linger_cut();
        }
        if self.closes_for_cause() {
            self.flags.set(Flags::RESET);
            self.conclude();
        } else {
            self.handle_reset(By::Runtime, CloseKind::Shutdown);
        }
    }

    /// Whether the connection is closing for a reason of its own.
    fn closes_for_cause(&self) -> bool {
        self.flags.any(Flags::CLOSING) && self.ending().is_some_and(|ending| !ending.is_in_order())
    }
}
