//! What a callback asks for the end of its own connection, applied when it has returned.

use super::ending::Ending;
use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::reason::{By, Cause, CloseKind, ConnectFailure};

impl Connection {
    pub(crate) fn want_close(&mut self) {
        self.flags.set(Flags::CLOSE_WANTED);
    }

    pub(crate) fn want_abort(&mut self) {
        self.flags.set(Flags::ABORT_WANTED);
    }

    pub(crate) fn want_fin(&mut self) {
        self.flags.set(Flags::FIN_WANTED);
    }

    pub(crate) fn want_overflow(&mut self) {
        self.flags.set(Flags::OVERFLOW);
    }

    /// Counts bytes written too late.
    pub(crate) fn handle_refused(&mut self, count: usize) {
        self.end_mut().refused += count as u64;
    }

    /// A callback failed. Its requests are applied first, then [`Connection::handle_wishes`] ends
    /// the connection.
    pub(crate) fn handle_failure(&mut self, kind: CloseKind, cause: Cause) {
        self.flags.set(Flags::FAILED);
        if self.flags.none(Flags::CLOSING | Flags::ENDED) {
            let by = if matches!(kind, CloseKind::TimedOut(_)) { By::Runtime } else { By::Us };
            self.end_mut().ending = Some(Ending { by, kind, cause: Some(cause) });
        }
    }

    /// The end that this callback brings by failing is to be a reset.
    #[cfg(feature = "http")]
    pub(crate) fn want_reset(&mut self) {
        self.flags.set(Flags::RESET);
    }

    /// Whether the failed callback panicked: its own writes are then dropped.
    pub(crate) fn has_panicked(&self) -> bool {
        self.flags.any(Flags::FAILED)
            && self.ending().is_some_and(|ending| ending.kind == CloseKind::Panicked)
    }

    /// Applies the requests of callbacks. `shutdown` says that the request to close came from
    /// `stopping`.
    pub(crate) fn handle_wishes(&mut self, pool: &mut ChunkPool, tick: u64, shutdown: bool) {
        let wishes = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::FAILED;
        if self.flags.any(wishes) {
            if self.flags.any(Flags::FAILED) {
                self.flags.clear(Flags::FAILED);
                if self.flags.none(Flags::CLOSING | Flags::ENDED) {
                    self.apply_failure(tick);
                }
            }
            if self.flags.any(Flags::ABORT_WANTED) {
                self.flags.set(Flags::RESET);
                let kind = if self.flags.any(Flags::CONNECTING) {
                    CloseKind::Connect(ConnectFailure::Cancelled)
                } else {
                    CloseKind::Aborted
                };
                self.end(By::Us, kind, None);
            } else if self.flags.any(Flags::OVERFLOW) && self.flags.none(Flags::ENDED) {
                self.flags.set(Flags::RESET);
                self.end(By::Runtime, CloseKind::OutputFull, None);
            } else if self.flags.any(Flags::CLOSE_WANTED) {
                let by = match (shutdown, self.flags.any(Flags::PEER_FIN)) {
                    (true, _) => By::Runtime,
                    (_, true) => By::Peer,
                    _ => By::Us,
                };
                let kind = if shutdown { CloseKind::Shutdown } else { CloseKind::Finished };
                self.begin_close(by, kind, None);
            }
            self.flags.clear(wishes);
        }
        if self.flags.any(Flags::LIMITS_CHANGED) {
            self.flags.clear(Flags::LIMITS_CHANGED);
            // Silence counts from now: without a limit the time of the last byte may be missing.
            self.active = self.active.max(tick);
        }
        if self.flags.any(Flags::ENDED) {
            self.drop_output(pool);
        } else {
            self.start_phase(tick);
        }
    }

    fn apply_failure(&mut self, tick: u64) {
        let Some(ending) = self.take_any_ending() else { return };
        if ending.kind == CloseKind::Panicked || self.flags.any(Flags::RESET) {
            self.end(ending.by, ending.kind, ending.cause);
        } else {
            self.begin_close(ending.by, ending.kind, ending.cause);
            self.start_phase(tick);
        }
    }
}
