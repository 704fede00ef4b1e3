//! Closing in order: flush, FIN, linger. Half-closing on the way.

use super::ending::Ending;
use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::reason::{By, Cause, CloseKind, ConnectFailure};

impl Connection {
    /// Begins to close in order: no more callbacks but `closed`; flush, FIN, linger.
    pub(crate) fn begin_close(&mut self, by: By, kind: CloseKind, cause: Option<Cause>) {
        if self.flags.any(Flags::CLOSING | Flags::ENDED) {
            return;
        }
        if self.flags.any(Flags::CONNECTING) {
            let kind = match kind {
                CloseKind::Finished | CloseKind::Shutdown => {
                    CloseKind::Connect(ConnectFailure::Cancelled)
                }
                other => other,
            };
            return self.end(by, kind, cause);
        }
        if self.flags.any(Flags::BROKEN) {
            // There is nothing left to flush, and what broke the connection stays the reason.
            let broken = self.take_any_ending();
            let ending = broken.unwrap_or(Ending { by, kind, cause });
            return self.end(ending.by, ending.kind, ending.cause);
        }
        self.flags.set(Flags::CLOSING);
        self.stop_callbacks();
        self.lose_unread();
        self.end_mut().ending = Some(Ending { by, kind, cause });
        self.rare_mut().phase = u64::MAX;
    }

    /// `begin_close` knows no time; the first call after it does.
    pub(super) fn start_phase(&mut self, tick: u64) {
        if self.flags.any(Flags::CLOSING) {
            let rare = self.rare_mut();
            if rare.phase == u64::MAX {
                rare.phase = tick;
                // Where the FIN is gone already, after a half-close, lingering begins here.
                self.note_linger(tick);
            }
        }
    }

    fn note_linger(&mut self, tick: u64) {
        let end = self.end_mut();
        end.linger = tick;
        end.linger_active = tick;
    }

    /// Ignores bytes that arrive while the connection is closing.
    pub(super) fn discard(&mut self, count: usize, tick: u64) {
        let end = self.end_mut();
        end.unread += count as u64;
        end.linger_active = tick;
    }

    /// Whether our FIN is to be sent now. Ends the filter's direction first.
    pub(super) fn poll_fin(&mut self, pool: &mut ChunkPool, tick: u64) -> bool {
        let wanted = self.flags.any(Flags::CLOSING | Flags::FIN_WANTED);
        let hindered = Flags::FIN_SENT | Flags::CONNECTING | Flags::ENDED | Flags::BROKEN;
        if !wanted || self.flags.any(hindered) {
            return false;
        }
        if self.flags.any(Flags::HANDSHAKING) && self.flags.none(Flags::CLOSING) {
            return false;
        }
        let clear_left = self.queues().map_or(0, |queues| queues.queue.len());
        if self.flags.any(Flags::HANDSHAKING) {
            // Clear bytes that wait for a filter that will never open.
            self.lose_queue();
        } else if clear_left > 0 {
            return false;
        }
        if self.flags.any(Flags::FILTERED) && self.flags.none(Flags::FILTER_FINISHED) {
            self.finish_filter(pool, tick);
        }
        if self.unsent() == 0 {
            self.flags.clear(Flags::QUEUED);
        }
        self.flags.none(Flags::QUEUED | Flags::ENDED)
    }

    /// Our FIN is on its way.
    pub(crate) fn handle_fin_sent(&mut self, tick: u64) {
        self.flags.set(Flags::FIN_SENT);
        if self.flags.any(Flags::CLOSING) {
            self.note_linger(tick);
        }
    }

    /// Whether the connection is over because both directions have ended.
    pub(super) fn poll_finished(&mut self) -> bool {
        let alone = self.flags.any(Flags::NO_SOCKET) && self.flags.any(Flags::CLOSING);
        let heard = alone || self.flags.any(Flags::PEER_FIN);
        let both = self.flags.any(Flags::FIN_SENT) && heard;
        if !both || self.flags.any(Flags::ENDED) {
            return false;
        }
        if self.flags.none(Flags::CLOSING) {
            if self.flags.none(Flags::EOF_DONE) || self.flags.any(Flags::DUE) {
                return false;
            }
            self.begin_close(By::Us, CloseKind::Finished, None);
        }
        // The end that closing began with stays.
        self.conclude();
        true
    }

    /// The stream is no socket.
    pub(crate) fn handle_no_socket(&mut self) {
        self.flags.set(Flags::NO_SOCKET);
    }

    /// What waits may be tried: its failure is found by that alone.
    pub(crate) fn handle_tried(&mut self) {
        self.flags.set(Flags::WRITABLE);
    }

    /// Whether the connection is closing and waits for nothing but the peer's FIN.
    pub(crate) fn is_lingering(&self) -> bool {
        self.flags.any(Flags::CLOSING)
            && self.flags.any(Flags::FIN_SENT)
            && self.flags.none(Flags::ENDED)
    }

    /// Ends lingering early, because places or descriptors are needed.
    pub(crate) fn handle_linger_cut(&mut self) {
        if self.is_lingering() {
            self.conclude();
        }
    }
}
