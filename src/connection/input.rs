//! Input: from the socket through the filter to `data`.

use super::{Connection, Flags};
use crate::buffer::{ByteQueue, ChunkPool};
use crate::id::ConnId;
use crate::reason::{By, CloseKind};

/// A connection that reads or sends this many bytes at a time is served after the others.
pub(crate) const BULK: usize = 16 * 1024;

/// Wire bytes given to a filter at a time. TLS copies what it reads several times: this much stays
/// in the processor's nearest caches, and its clear bytes fit into a chunk.
const FILTERED_READ: usize = 48 * 1024;

/// What a `data` or `eof` left behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumed {
    /// Bytes of what was shown that were not consumed.
    pub(crate) left: usize,
    /// Bytes that must be unread before the next `data`; 0 and 1 mean any.
    pub(crate) need: usize,
}

impl Connection {
    /// Whether a read would be of use: to deliver, or to discard while closing.
    #[inline(always)]
    pub(crate) fn may_read(&self) -> bool {
        self.flags.passes(Flags::READ_GATE, Flags::READABLE)
    }

    /// Whether the connection is open and nothing is due or unusual: input can be shown and output
    /// be sent.
    #[inline(always)]
    pub(crate) fn is_straight(&self) -> bool {
        self.flags.passes(Flags::STRAIGHT_GATE, Flags::READABLE | Flags::WRITABLE)
    }

    /// How many bytes to read at a time into a buffer of `len` bytes.
    pub(crate) fn room_to_read(&self, len: usize) -> usize {
        let most = if self.flags.any(Flags::FILTERED) { FILTERED_READ } else { usize::MAX };
        len.min(self.limits.read_budget).min(most)
    }

    /// `count` bytes were read where `room` were asked for. A short read means that nothing
    /// follows, unless the peer has hung up: then an end or an error follows.
    #[inline(always)]
    pub(crate) fn handle_read(&mut self, count: usize, room: usize, tick: u64) {
        self.active = tick;
        if count < room && self.flags.none(Flags::HUNG) {
            self.flags.clear(Flags::READABLE | Flags::BULK);
        }
    }

    /// Much was read or sent at a time: when it is served again, others come first.
    pub(crate) fn handle_bulk(&mut self) {
        self.flags.set(Flags::BULK);
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
    pub(crate) fn handle_wire(&mut self, bytes: &mut [u8], pool: &mut ChunkPool, tick: u64) {
        if self.flags.any(Flags::CLOSING) {
            return self.discard(bytes.len(), tick);
        }
        if self.flags.any(Flags::BROKEN) && !self.takes_last_words(bytes.len()) {
            return;
        }
        if self.flags.any(Flags::FILTERED) {
            return self.filter_input(bytes, pool, tick);
        }
        self.bytes_in += bytes.len() as u64;
        self.tap_received(bytes, tick);
        if self.flags.any(Flags::ENDED) {
            return self.discard(bytes.len(), tick);
        }
        self.queues_mut().unread.push(bytes, pool);
        self.note_unread();
    }

    /// A broken connection delivers what had arrived, up to `input_max`: flow control no longer
    /// bounds it.
    fn takes_last_words(&mut self, count: usize) -> bool {
        let input_max = self.limits.input_max;
        let end = self.end_mut();
        end.last_words += count;
        if end.last_words > input_max {
            end.unread += count as u64;
            self.flags.clear(Flags::READABLE);
            return false;
        }
        true
    }

    pub(super) fn note_unread(&mut self) {
        self.flags.set(Flags::UNREAD);
        let need = self.need as usize;
        // What a filter lets through before it is open waits for `opened`, and must not stop the
        // reading that the handshake needs.
        if self.queues_mut().unread.len() >= need && self.flags.none(Flags::HANDSHAKING) {
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
            // The call that failed took the error with it. The end that a read finds then is not a
            // FIN.
            self.flags.clear(Flags::HUNG);
            return;
        }
        if self.flags.any(Flags::CLOSING) {
            self.flags.set(Flags::PEER_FIN);
            return;
        }
        if self.flags.any(Flags::FILTERED) && self.flags.none(Flags::PEER_FIN) && self.is_cut() {
            return;
        }
        self.handle_clear_fin();
    }

    /// The end of the clear bytes: a FIN, or what a filter reports as one.
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
    pub(crate) fn lend_unread(&mut self) -> ByteQueue {
        self.get_queues().map(|queues| std::mem::take(&mut queues.unread)).unwrap_or_default()
    }

    /// Takes the lent input back, without the consumed part.
    pub(crate) fn handle_unread_shown(
        &mut self,
        mut unread: ByteQueue,
        consumed: Consumed,
        pool: &mut ChunkPool,
    ) {
        let shown = unread.len();
        unread.consume(shown - consumed.left, pool);
        if !unread.is_empty() {
            self.queues_mut().unread = unread;
        }
        self.handle_consumed(shown, consumed);
    }

    /// Keeps what a direct showing left over.
    pub(crate) fn handle_left(&mut self, shown: &[u8], consumed: Consumed, pool: &mut ChunkPool) {
        if consumed.left > 0 {
            let left = &shown[shown.len() - consumed.left..];
            self.queues_mut().unread.push(left, pool);
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
        // A pause that was taken back within this callback shows nothing again.
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
        if left < shown && need <= left {
            // The protocol makes progress: the rest has its turn after other connections.
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
    pub(crate) fn handle_eof_shown(
        &mut self,
        mut unread: ByteQueue,
        consumed: Consumed,
        pool: &mut ChunkPool,
    ) {
        if consumed.left > 0 {
            self.end_mut().unread += consumed.left as u64;
        }
        unread.clear(pool);
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
        if self.flags.any(Flags::PAUSED) && self.flags.none(Flags::DETACHING) {
            self.flags.clear(Flags::PAUSED);
            self.show_again();
        }
    }

    /// Shows unread bytes once more, which a pause or flow control had stopped.
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
        let holding = &mut self.queues_mut().holding;
        if holding.contains(&queue) {
            return false;
        }
        holding.push(queue);
        self.flags.set(Flags::HELD);
        true
    }

    /// Flow control: input waits until the connection's own queue has drained.
    pub(crate) fn hold_itself(&mut self) {
        let id = self.id;
        if self.handle_held(id) {
            self.handle_holds(id);
        }
    }

    /// The queues that hold a connection which will write to them no more, so that they forget it.
    pub(crate) fn poll_unheld(&mut self) -> Vec<ConnId> {
        if self.flags.none(Flags::CLOSING | Flags::ENDED | Flags::BROKEN) {
            return Vec::new();
        }
        self.get_queues().map(|queues| std::mem::take(&mut queues.holding)).unwrap_or_default()
    }

    /// Flow control: `queue` no longer holds this connection.
    pub(crate) fn handle_released(&mut self, queue: ConnId) {
        let Some(queues) = self.get_queues() else { return };
        queues.holding.retain(|id| *id != queue);
        if queues.holding.is_empty() && self.flags.any(Flags::HELD) {
            self.flags.clear(Flags::HELD);
            self.show_again();
        }
    }
}
