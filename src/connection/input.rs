//! Input: from the socket through the filter to what `data` is shown.

use std::sync::Arc;

use super::{Connection, Flags};
use crate::buffer::Unread;
use crate::filter::{FilterResult, Progress};
use crate::guard::{Panic, guarded};
use crate::id::ConnId;
use crate::reason::{By, CloseKind, FilterFailure};

/// What a `data` or `eof` left behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumed {
    /// Bytes of what was shown that were not consumed.
    pub(crate) left: usize,
    /// Bytes that must be there before the next `data`; 0 and 1 mean any.
    pub(crate) need: usize,
}

impl Connection {
    /// Whether a read would be of use: to deliver, or to discard while closing.
    #[inline(always)]
    pub(crate) fn may_read(&self) -> bool {
        self.flags.passes(Flags::READ_GATE, Flags::READABLE)
    }

    /// `count` bytes were read where `room` were asked for. A short read means that nothing
    /// follows, and true is returned, unless the peer has hung up: then an end or an error follows.
    #[inline(always)]
    pub(crate) fn handle_read(&mut self, count: usize, room: usize, tick: u64) -> bool {
        self.active = tick;
        let drained = count < room && self.flags.none(Flags::HUNG);
        if drained {
            self.flags.clear(Flags::READABLE);
        }
        drained
    }

    /// Whether bytes from the socket can be shown where they are.
    #[inline(always)]
    pub(crate) fn shows_directly(&self) -> bool {
        self.flags.none(Flags::NOT_DIRECT)
    }

    /// The bytes of a direct showing were received.
    #[inline(always)]
    pub(crate) fn handle_shown(&mut self, count: usize) {
        self.bytes_in += count as u64;
    }

    /// Takes bytes from the socket that cannot be shown where they are: they are discarded, pass
    /// the filter, or join what is unread.
    pub(crate) fn handle_wire(&mut self, bytes: &[u8], tick: u64) {
        if self.flags.any(Flags::CLOSING) {
            let rare = self.rare_mut();
            rare.unread_lost += bytes.len() as u64;
            rare.linger_active = tick;
            return;
        }
        if self.flags.any(Flags::BROKEN) && !self.takes_last_words(bytes.len()) {
            return;
        }
        if self.flags.any(Flags::FILTERED) {
            return self.filter_input(bytes, tick);
        }
        self.bytes_in += bytes.len() as u64;
        self.rare_mut().unread.push(bytes);
        self.note_unread();
    }

    /// A broken connection delivers what had arrived, up to `input_max`: flow control no longer
    /// bounds it.
    fn takes_last_words(&mut self, count: usize) -> bool {
        let input_max = self.limits.input_max;
        let rare = self.rare_mut();
        rare.last_words += count;
        if rare.last_words > input_max {
            rare.unread_lost += count as u64;
            self.flags.clear(Flags::READABLE);
            return false;
        }
        true
    }

    pub(super) fn filter_input(&mut self, bytes: &[u8], tick: u64) {
        let rare = self.rare_mut();
        let Some(filtered) = rare.filtered.as_mut() else { return };
        let clear = rare.unread.make_room();
        let before = clear.len();
        let result = guarded(|| filtered.filter.receive(bytes, clear, &mut filtered.wire));
        let gained = clear.len().saturating_sub(before);
        self.bytes_in += gained as u64;
        self.note_wire(tick);
        if gained > 0 {
            self.note_unread();
        }
        self.handle_progress(result, tick);
    }

    fn note_unread(&mut self) {
        self.flags.set(Flags::UNREAD);
        let need = self.need as usize;
        // What a filter lets through before it is open waits for `opened`, and must not stop the
        // reading that the handshake needs.
        if self.rare_mut().unread.len() >= need && self.flags.none(Flags::HANDSHAKING) {
            self.flags.set(Flags::DATA_DUE);
        }
    }

    /// Nothing more can be read for now.
    pub(crate) fn handle_read_blocked(&mut self) {
        self.flags.clear(Flags::READABLE | Flags::HUNG | Flags::FIN_TOLD);
    }

    /// The peer's FIN was read.
    pub(crate) fn handle_fin(&mut self) {
        self.flags.clear(Flags::READABLE);
        if self.flags.any(Flags::BROKEN) {
            // The call that failed took the error with it. What a read finds then is no FIN.
            self.flags.clear(Flags::HUNG);
            return;
        }
        if self.flags.any(Flags::CLOSING) {
            self.flags.set(Flags::PEER_FIN);
            return;
        }
        if self.flags.any(Flags::FILTERED) && self.flags.none(Flags::PEER_FIN) {
            let rare = self.rare_mut();
            let Some(filtered) = rare.filtered.as_mut() else { return };
            match guarded(|| filtered.filter.peer_closed()) {
                // Before it is open there is nothing that the peer could have finished.
                Ok(Progress::PeerFinished) if self.flags.none(Flags::HANDSHAKING) => {}
                Ok(_) => {
                    self.flags.set(Flags::PEER_FIN);
                    let truncated = CloseKind::Filter(FilterFailure::Truncated);
                    return self.break_off(By::Peer, truncated, None);
                }
                Err(panic) => {
                    return self.end(By::Us, CloseKind::Panicked, Some(Arc::new(panic)));
                }
            }
        }
        self.handle_clear_fin();
    }

    /// The end of the clear bytes: a FIN, or what a filter takes for one.
    pub(super) fn handle_clear_fin(&mut self) {
        if self.flags.any(Flags::PEER_FIN) {
            return;
        }
        self.flags.set(Flags::PEER_FIN);
        // Bytes that `need` kept back are shown once, as no more will come.
        if self.flags.any(Flags::NEEDY) && self.flags.any(Flags::UNREAD) {
            self.flags.clear(Flags::NEEDY);
            self.need = 0;
            self.flags.set(Flags::DATA_DUE);
        }
        self.flags.set(Flags::EOF_DUE);
    }

    /// Lends the unread input for a callback; [`Connection::handle_unread_shown`] takes it back.
    pub(crate) fn lend_unread(&mut self) -> Unread {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.unread)).unwrap_or_default()
    }

    /// Takes the lent input back, without what was consumed of it.
    pub(crate) fn handle_unread_shown(&mut self, mut unread: Unread, consumed: Consumed) {
        let shown = unread.len();
        unread.consume(shown - consumed.left);
        self.rare_mut().unread = unread;
        self.handle_consumed(shown, consumed);
    }

    /// Keeps what a direct showing left over.
    pub(crate) fn handle_left(&mut self, shown: &[u8], consumed: Consumed) {
        if consumed.left > 0 {
            self.rare_mut().unread.push(&shown[shown.len() - consumed.left..]);
        }
        self.handle_consumed(shown.len(), consumed);
    }

    fn handle_consumed(&mut self, shown: usize, consumed: Consumed) {
        let Consumed { left, need } = consumed;
        if self.flags.any(Flags::CLOSING | Flags::ENDED) {
            // Sending the answer has ended it.
            return self.lose_unread();
        }
        if left > 0 {
            self.flags.set(Flags::UNREAD)
        } else {
            self.flags.clear(Flags::UNREAD)
        }
        self.need = 0;
        // A pause that was taken back within this very callback shows nothing again.
        self.flags.clear(Flags::NEEDY | Flags::DATA_DUE | Flags::LEFT);
        if left > 0 && self.flags.any(Flags::CONGESTED) {
            self.flags.set(Flags::LEFT);
        }
        let failed = self.flags.any(Flags::FAILED);
        if need > self.limits.input_max && !failed {
            return self.begin_close(By::Runtime, CloseKind::InputFull, None);
        }
        if need > left {
            self.need = need as u32;
            self.flags.set(Flags::NEEDY);
        }
        if left == 0 {
            return;
        }
        if left < shown && (need == 0 || left >= self.limits.input_max) {
            // It moves on: the rest has its turn behind other connections.
            self.flags.set(Flags::DATA_DUE);
        } else if left < self.limits.input_max {
            // It waits for more.
        } else if !failed && self.flags.none(Flags::PAUSED | Flags::HELD | Flags::CLOSE_WANTED) {
            self.begin_close(By::Runtime, CloseKind::InputFull, None);
        } else {
            self.flags.set(Flags::DATA_DUE);
        }
    }

    /// After `eof`: what is left is lost.
    pub(crate) fn handle_eof_shown(&mut self, unread: Unread, consumed: Consumed) {
        let rare = self.rare_mut();
        rare.unread_lost += consumed.left as u64;
        rare.unread = unread;
        rare.unread.clear();
        self.flags.clear(Flags::UNREAD | Flags::NEEDY);
        self.need = 0;
    }

    // ---- pausing -----------------------------------------------------------------------------

    pub(crate) fn want_pause(&mut self) {
        if self.flags.none(Flags::CLOSING | Flags::ENDED) {
            self.flags.set(Flags::PAUSED);
        }
    }

    pub(crate) fn want_resume(&mut self) {
        if self.flags.any(Flags::PAUSED) {
            self.flags.clear(Flags::PAUSED);
            self.show_again();
        }
    }

    /// Unread bytes are shown once more: the protocol, or flow control, has stopped them before.
    pub(super) fn show_again(&mut self) {
        if self.flags.any(Flags::UNREAD) && self.flags.none(Flags::NEEDY | Flags::EOF_DONE) {
            self.flags.set(Flags::DATA_DUE);
        }
    }

    /// Flow control: input waits until `queue` has drained.
    pub(crate) fn handle_held(&mut self, queue: ConnId) -> bool {
        if self.flags.any(Flags::CLOSING | Flags::ENDED | Flags::BROKEN) {
            return false;
        }
        let rare = self.rare_mut();
        if rare.holding.contains(&queue) {
            return false;
        }
        rare.holding.push(queue);
        self.flags.set(Flags::HELD);
        true
    }

    /// Flow control: `queue` no longer holds this connection.
    pub(crate) fn handle_released(&mut self, queue: ConnId) {
        let Some(rare) = self.rare.as_mut() else { return };
        rare.holding.retain(|id| *id != queue);
        if rare.holding.is_empty() && self.flags.any(Flags::HELD) {
            self.flags.clear(Flags::HELD);
            self.show_again();
        }
    }

    // ---- the filter --------------------------------------------------------------------------

    pub(super) fn handle_progress(&mut self, result: Result<FilterResult, Panic>, tick: u64) {
        match result {
            Ok(Ok(Progress::Handshaking)) => {}
            Ok(Ok(progress)) if self.flags.none(Flags::CLOSING | Flags::ENDED) => {
                if self.flags.any(Flags::HANDSHAKING) {
                    self.flags.clear(Flags::HANDSHAKING);
                    self.flags.set(Flags::OPENED_DUE);
                    self.active = tick;
                    // What is queued could not leave before.
                    self.rare_mut().progress = tick;
                    self.show_again();
                }
                if progress == Progress::PeerFinished {
                    self.handle_clear_fin();
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                self.give_up_filter();
                let failed = CloseKind::Filter(FilterFailure::Failed);
                self.begin_close(By::Peer, failed, Some(error.into()));
            }
            Err(panic) => self.end(By::Us, CloseKind::Panicked, Some(Arc::new(panic))),
        }
    }
}
