//! Output: from the callbacks through the filter to the socket.

use std::io::IoSlice;

use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::guard::GuardedBytes;
use crate::id::ConnId;

/// Bytes that other connections have written.
pub(crate) enum Written<'a> {
    Copied(&'a [u8]),
    Shared(GuardedBytes),
    /// More than the connection may have unsent.
    TooMany(usize),
}

impl Written<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Written::Copied(bytes) => bytes.len(),
            Written::Shared(bytes) => bytes.len(),
            Written::TooMany(count) => *count,
        }
    }
}

/// The result of a write by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// They are queued.
    Waiting,
    /// They are queued, and input caused them: the writer is to be held until the queue has
    /// drained.
    Held,
    /// The connection takes no more writes. They are dropped and counted as refused.
    Refused,
    /// They are dropped, and the connection ends because they were too much, or had broken before.
    Lost,
}

impl Connection {
    /// Takes in what others have written; `caused` says whether the writer's input caused it.
    pub(crate) fn take_queued(
        &mut self,
        written: Written<'_>,
        caused: bool,
        pool: &mut ChunkPool,
        tick: u64,
    ) -> Queued {
        let count = written.len();
        if self.flags.any(Flags::NO_WRITES) {
            self.handle_refused(count);
            return Queued::Refused;
        }
        let fits = !matches!(written, Written::TooMany(_)) && self.check_marks(count);
        match &written {
            Written::Copied(bytes) if fits => self.tap_sent(bytes, tick),
            Written::Shared(bytes) if fits => self.tap_sent(bytes, tick),
            _ => {}
        }
        let queued = match written {
            Written::Copied(bytes) if fits => self.queue(bytes, pool, tick),
            Written::Shared(bytes) if fits => self.queue_shared(bytes, tick),
            _ => {
                self.want_overflow();
                self.lose_output(count);
                false
            }
        };
        match queued {
            false => Queued::Lost,
            true if caused && self.handle_caused(count) => Queued::Held,
            true => Queued::Waiting,
        }
    }

    /// Unsent bytes, without those that the running callback has written.
    #[inline(always)]
    pub(crate) fn unsent(&self) -> usize {
        if self.flags.none(Flags::QUEUED) {
            return 0;
        }
        self.queues().map_or(0, |queues| queues.queue.len()) + self.wire_len()
    }

    /// Whether a slice may go to the socket without passing the queue.
    #[inline(always)]
    pub(crate) fn sends_directly(&self) -> bool {
        self.flags.passes(
            Flags::WRITABLE
                | Flags::QUEUED
                | Flags::FILTERED
                | Flags::CONNECTING
                | Flags::BROKEN
                | Flags::ENDED,
            Flags::WRITABLE,
        )
    }

    /// `count` bytes went to the socket without passing the queue, in answer to bytes that were
    /// read in the same turn.
    #[inline(always)]
    pub(crate) fn handle_sent_directly(&mut self, count: usize) {
        self.bytes_out += count as u64;
    }

    /// As [`Connection::handle_sent_directly`], for bytes sent for any reason.
    pub(crate) fn handle_sent_at(&mut self, count: usize, tick: u64) {
        self.bytes_out += count as u64;
        if count > 0 {
            self.active = tick;
        }
    }

    /// `count` bytes went to the socket while another thread dropped the queue that held them.
    pub(crate) fn handle_sent_late(&mut self, count: usize) {
        if self.flags.none(Flags::FILTERED) {
            self.bytes_out += count as u64;
        }
        let end = self.end_mut();
        end.unsent = end.unsent.saturating_sub(count as u64);
    }

    /// Queues a copy of `bytes`. Returns false when they are lost, as the connection has broken.
    pub(crate) fn queue(&mut self, bytes: &[u8], pool: &mut ChunkPool, tick: u64) -> bool {
        if !self.takes_output(bytes.len(), tick) {
            return false;
        }
        self.queues_mut().queue.push(bytes, pool);
        true
    }

    /// Queues `bytes` without copying. Returns false as [`Connection::queue`] does.
    pub(crate) fn queue_shared(&mut self, bytes: GuardedBytes, tick: u64) -> bool {
        if !self.takes_output(bytes.len(), tick) {
            return false;
        }
        self.queues_mut().queue.push_shared(bytes);
        true
    }

    fn takes_output(&mut self, count: usize, tick: u64) -> bool {
        if self.flags.any(Flags::BROKEN | Flags::ENDED) {
            self.lose_output(count);
            return false;
        }
        if count > 0 && self.flags.none(Flags::QUEUED) {
            self.flags.set(Flags::QUEUED);
            self.queues_mut().progress = tick;
        }
        true
    }

    /// Counts bytes that will never be sent.
    pub(crate) fn lose_output(&mut self, count: usize) {
        if count > 0 {
            self.end_mut().unsent += count as u64;
        }
    }

    /// Whether `more` bytes fit within `output_max`. If they do and exceed the high mark, marks the
    /// connection as congested.
    pub(crate) fn check_marks(&mut self, more: usize) -> bool {
        let unsent = self.unsent() + more;
        if unsent > self.limits.output_max {
            return false;
        }
        if unsent > self.limits.high_mark {
            self.flags.set(Flags::CONGESTED);
        }
        true
    }

    pub(crate) fn is_congested(&self) -> bool {
        self.flags.any(Flags::CONGESTED)
    }

    /// Fills `slices` with the next bytes for the socket, at most `most`.
    ///
    /// With a filter, clear bytes are encoded here, a bounded number at a time.
    pub(crate) fn poll_output<'a>(
        &'a mut self,
        slices: &mut [IoSlice<'a>],
        most: usize,
        pool: &mut ChunkPool,
        tick: u64,
    ) -> usize {
        if self.flags.any(Flags::FILTERED) {
            self.fill_wire(pool, tick);
        }
        let Some(filtered) = self.filtered() else {
            return self.queues().map_or(0, |queues| queues.queue.gather(slices, most));
        };
        let wire = filtered.wire.as_slice();
        let wire = &wire[..wire.len().min(most)];
        match slices.first_mut() {
            Some(first) if !wire.is_empty() => {
                *first = IoSlice::new(wire);
                1
            }
            _ => 0,
        }
    }

    /// `count` bytes of what [`Connection::poll_output`] gave went to the socket.
    pub(crate) fn handle_sent(&mut self, count: usize, pool: &mut ChunkPool, tick: u64) {
        self.active = tick;
        let clear = self.flags.none(Flags::FILTERED);
        let Some(queues) = self.get_queues() else { return };
        queues.progress = tick;
        if clear {
            queues.queue.advance(count, pool);
            self.bytes_out += count as u64;
        } else if let Some(filtered) = self.get_filtered() {
            filtered.wire.consume(count, pool);
        }
    }

    /// The socket takes no more for now.
    pub(crate) fn handle_write_blocked(&mut self) {
        self.flags.clear(Flags::WRITABLE);
    }

    /// After sending: brings the count of caused bytes and the marks up to date.
    pub(crate) fn handle_flushed(&mut self) {
        let unsent = self.unsent();
        if let Some(queues) = self.get_queues() {
            queues.caused = queues.caused.min(unsent);
        }
        if unsent == 0 {
            self.flags.clear(Flags::QUEUED);
        }
        if self.flags.any(Flags::CONGESTED)
            && unsent <= self.limits.low_mark
            && self.flags.none(Flags::CLOSING | Flags::ENDED | Flags::BROKEN)
        {
            self.flags.set(Flags::DRAINED_DUE);
        }
    }

    /// Whether `drained` may run right after the callback that wrote, if that asked for no end.
    pub(crate) fn drains_at_once(&self) -> bool {
        let ending = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::FAILED;
        self.flags.any(Flags::DRAINED_DUE) && self.may_call() && self.flags.none(ending)
    }

    /// Whether `drained` is to run now; it no longer is when output has grown again since.
    pub(crate) fn poll_drained(&mut self) -> bool {
        self.flags.clear(Flags::DRAINED_DUE);
        let drained = self.unsent() <= self.limits.low_mark;
        if drained {
            self.flags.clear(Flags::CONGESTED);
            if self.flags.any(Flags::LEFT) {
                self.flags.clear(Flags::LEFT);
                self.show_again();
            }
        }
        drained
    }

    // ---- flow control ------------------------------------------------------------------------

    /// `count` of the queued bytes were caused by input. True when their number is now above the
    /// high mark: their writer is to be held.
    pub(crate) fn handle_caused(&mut self, count: usize) -> bool {
        let (unsent, high) = (self.unsent(), self.limits.high_mark);
        if unsent == 0 {
            return false;
        }
        let queues = self.queues_mut();
        queues.caused = (queues.caused + count).min(unsent);
        queues.caused > high
    }

    /// This queue holds `writer` from now on.
    pub(crate) fn handle_holds(&mut self, writer: ConnId) {
        self.queues_mut().holders.push(writer);
    }

    /// `writer` has ended: this queue has nothing to release any more.
    pub(crate) fn handle_writer_gone(&mut self, writer: ConnId) {
        if let Some(queues) = self.get_queues() {
            queues.holders.retain(|holder| *holder != writer);
        }
    }

    /// The connections that this queue has no reason to hold any more.
    pub(crate) fn poll_released(&mut self) -> Vec<ConnId> {
        // A closing connection takes no more bytes, so that there is nothing to wait for.
        let over = self.flags.any(Flags::CLOSING | Flags::ENDED | Flags::BROKEN);
        let low = self.limits.low_mark;
        match self.get_queues() {
            Some(queues) if !queues.holders.is_empty() && (over || queues.caused <= low) => {
                std::mem::take(&mut queues.holders)
            }
            _ => Vec::new(),
        }
    }

    /// Takes the list of [`Connection::poll_released`] back, empty, so that the next hold allocates
    /// nothing.
    pub(crate) fn put_holders(&mut self, holders: Vec<ConnId>) {
        if let Some(queues) = self.get_queues() {
            if queues.holders.is_empty() {
                queues.holders = holders;
            }
        }
    }
}
