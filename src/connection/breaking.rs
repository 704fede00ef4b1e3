//! A failed socket: what had arrived is delivered, then the connection ends.

use super::ending::Ending;
use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::reason::{By, Cause, CloseKind, failed_transfer};

impl Connection {
    /// The system's error was noticed: the next read looks beyond the bytes that are there.
    pub(crate) fn handle_fault_seen(&mut self) {
        self.flags.clear(Flags::FAULTY);
        if self.flags.none(Flags::CONNECTING) {
            self.flags.set(Flags::READABLE | Flags::HUNG);
        }
    }

    /// A write failed: what the kernel still holds of the input is read first.
    pub(crate) fn handle_write_failed(&mut self, error: std::io::Error, pool: &mut ChunkPool) {
        if self.flags.none(Flags::PEER_FIN) {
            self.flags.set(Flags::READABLE | Flags::HUNG);
        }
        self.handle_failed_transfer(error, pool);
    }

    /// A read failed. Nothing more can come.
    pub(crate) fn handle_read_failed(&mut self, error: std::io::Error, pool: &mut ChunkPool) {
        self.flags.clear(Flags::READABLE | Flags::HUNG);
        self.handle_failed_transfer(error, pool);
    }

    fn handle_failed_transfer(&mut self, error: std::io::Error, pool: &mut ChunkPool) {
        let (by, kind) = failed_transfer(&error);
        if kind == CloseKind::SystemError {
            // The peer is still there: the lost bytes must not look like the end to it.
            self.flags.set(Flags::RESET);
        }
        self.break_off(by, kind, Some(Cause::new(error)));
        self.drop_output(pool);
    }

    /// The connection has failed at the socket. What the kernel still holds is delivered first,
    /// unless the protocol has paused reading or is closing.
    pub(crate) fn break_off(&mut self, by: By, kind: CloseKind, cause: Option<Cause>) {
        if self.flags.any(Flags::ENDED) {
            return;
        }
        let undeliverable = Flags::CLOSING | Flags::PAUSED | Flags::CONNECTING;
        if self.flags.any(Flags::HELD) {
            self.flags.clear(Flags::HELD);
            self.show_again();
        }
        if self.flags.any(Flags::LEFT) {
            // No `drained` will come for which it could wait.
            self.flags.clear(Flags::LEFT);
            self.show_again();
        }
        let undelivered = self.flags.any(Flags::DATA_DUE)
            || (self.flags.any(Flags::READABLE) && self.flags.none(Flags::PEER_FIN));
        if self.flags.any(undeliverable) || !undelivered {
            // The reason that broke the connection first, or made it close, says more than this
            // one.
            let first = self.take_ending(self.flags.any(Flags::BROKEN));
            let Ending { by, kind, cause } = first.unwrap_or(Ending { by, kind, cause });
            return self.end(by, kind, cause);
        }
        if self.flags.none(Flags::BROKEN) {
            self.flags.set(Flags::BROKEN);
            self.flags.clear(Flags::EOF_DUE | Flags::CONGESTED | Flags::DRAINED_DUE);
            if self.flags.none(Flags::FAILED) {
                self.end_mut().ending = Some(Ending { by, kind, cause });
            }
        }
    }

    /// Takes the end that was decided before; one in order only if `in_order` counts as well.
    fn take_ending(&mut self, in_order: bool) -> Option<Ending> {
        let decided = |ending: &mut Ending| in_order || !ending.is_in_order();
        self.rare.as_mut()?.end.as_mut()?.ending.take_if(decided)
    }

    /// Whether a broken connection has delivered what it could; it then ends with what broke it.
    pub(super) fn poll_broken_end(&mut self) -> bool {
        let over = self.flags.any(Flags::BROKEN)
            && self.flags.none(Flags::ENDED)
            && (self.flags.any(Flags::PAUSED)
                || (self.flags.none(Flags::DATA_DUE)
                    && (self.flags.any(Flags::PEER_FIN) || self.flags.none(Flags::READABLE))));
        if over {
            if let Some(Ending { by, kind, cause }) = self.take_any_ending() {
                self.end(by, kind, cause);
            }
        }
        over
    }
}
