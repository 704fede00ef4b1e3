//! The filter of a connection: between its queues and the wire.

use std::any::Any;
use std::mem;

use super::{Connection, Flags};
use crate::buffer::{ByteQueue, ChunkPool};
use crate::filter::{Filter, FilterResult, Progress};
use crate::guard::{Panic, drop_guarded, guarded};
use crate::reason::{By, Cause, CloseKind, FilterFailure};

/// Clear bytes given to a filter at a time.
const STEP: usize = 16 * 1024;
/// Wire bytes above which a filter gets no more clear ones.
const WIRE_MARK: usize = 64 * 1024;

/// A filter and the wire bytes it has made.
pub(super) struct Filtered {
    filter: Box<dyn Filter>,
    pub(super) wire: ByteQueue,
}

/// Takes the place of a filter that is dropped.
struct NoFilter;

impl Filter for NoFilter {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }
}

impl Drop for Filtered {
    fn drop(&mut self) {
        drop_guarded(mem::replace(&mut self.filter, Box::new(NoFilter)));
    }
}

impl Connection {
    /// Wire bytes that a filter has made and that are not sent.
    pub(super) fn wire_len(&self) -> usize {
        self.filtered().map_or(0, |filtered| filtered.wire.len())
    }

    /// The session of the filter.
    pub(crate) fn session(&self) -> Option<&dyn Any> {
        self.filtered()?.filter.session()
    }

    /// Puts a filter under the queues. Output that an earlier protocol has queued leaves unchanged.
    /// Output queued for a connect is the protocol's own and waits for the handshake.
    pub(crate) fn handle_filter(
        &mut self,
        filter: Box<dyn Filter>,
        feed: bool,
        pool: &mut ChunkPool,
        tick: u64,
    ) {
        if self.flags.any(Flags::FILTERED) {
            drop_guarded(filter);
            let second = CloseKind::Filter(FilterFailure::Second);
            return self.begin_close(By::Us, second, None);
        }
        if self.flags.any(Flags::UNREAD) && !feed {
            drop_guarded(filter);
            let unread = CloseKind::Filter(FilterFailure::UnreadInput);
            return self.begin_close(By::Us, unread, None);
        }
        let mut wire = ByteQueue::default();
        let replaced = self.flags.any(Flags::REPLACED);
        if let Some(queues) = self.get_queues().filter(|_| replaced) {
            while !queues.queue.is_empty() {
                let front = queues.queue.front();
                let count = front.len();
                wire.push(front, pool);
                queues.queue.advance(count, pool);
            }
        }
        let mut unread = self.lend_unread();
        self.bytes_out += wire.len() as u64;
        self.flags.clear(Flags::UNREAD | Flags::OPENED_DUE | Flags::DATA_DUE);
        self.flags.set(Flags::FILTERED | Flags::HANDSHAKING);
        let rare = self.rare_mut();
        rare.phase = tick;
        let filtered = rare.filtered.insert(Box::new(Filtered { filter, wire }));
        let Filtered { filter, wire } = &mut **filtered;
        let result = guarded(|| filter.start(wire.tail(0, pool)));
        wire.trim(pool);
        self.note_wire(tick);
        self.handle_progress(result, By::Us, tick);
        // A FIN from before the filter counts after the bytes that are fed to it.
        let had_fin = self.flags.any(Flags::EOF_DUE) && self.flags.any(Flags::PEER_FIN);
        if had_fin {
            self.flags.clear(Flags::EOF_DUE | Flags::PEER_FIN);
        }
        // Bytes fed to the filter count as what it makes of them.
        self.bytes_in -= unread.len() as u64;
        if !unread.is_empty() && self.flags.none(Flags::ENDED | Flags::CLOSING) {
            self.filter_input(unread.as_mut_slice(), pool, tick);
        }
        unread.clear(pool);
        if had_fin {
            self.handle_fin();
        }
    }

    // ---- input -------------------------------------------------------------------------------

    /// Takes bytes from the wire. The filter's own answers (a handshake, a key update) count as
    /// caused by the peer: its input waits while too much of that is unsent.
    pub(super) fn filter_input(&mut self, bytes: &mut [u8], pool: &mut ChunkPool, tick: u64) {
        let count = bytes.len();
        let rare = self.rare_mut();
        let queues = rare.queues.get_or_insert_with(Box::default);
        let Some(filtered) = rare.filtered.as_mut() else { return };
        let Filtered { filter, wire } = &mut **filtered;
        let (unread, waiting) = (queues.unread.len(), wire.len());
        let clear = queues.unread.tail(count, pool);
        let result = guarded(|| filter.receive(bytes, clear, wire.tail(0, pool)));
        queues.unread.trim(pool);
        wire.trim(pool);
        let gained = queues.unread.len().saturating_sub(unread);
        let made = wire.len().saturating_sub(waiting);
        self.bytes_in += gained as u64;
        self.note_wire(tick);
        if made > 0 && self.flags.any(Flags::QUEUED) {
            if self.unsent() > self.limits.output_max {
                self.want_overflow();
            } else if self.handle_caused(made) {
                self.hold_itself();
            }
        }
        if gained > 0 {
            self.tap_unread(gained, tick);
        }
        if gained > 0 && self.flags.none(Flags::ENDED) {
            self.note_unread();
        }
        self.handle_progress(result, By::Peer, tick);
    }

    /// The peer's FIN has come from the wire. True when it cuts the filter's stream, which ends the
    /// connection.
    pub(super) fn is_cut(&mut self) -> bool {
        let Some(filtered) = self.filtered() else { return false };
        match guarded(|| filtered.filter.ends_with_stream()) {
            // Before it is open, the peer cannot have finished anything.
            Ok(true) if self.flags.none(Flags::HANDSHAKING) => false,
            Ok(_) => {
                self.flags.set(Flags::PEER_FIN);
                let truncated = CloseKind::Filter(FilterFailure::Truncated);
                self.break_off(By::Peer, truncated, None);
                true
            }
            Err(panic) => {
                self.end(By::Us, CloseKind::Panicked, Some(Cause::new(panic)));
                true
            }
        }
    }

    // ---- output ------------------------------------------------------------------------------

    /// Whether clear bytes may go to the filter from where they are: nothing waits before them.
    pub(crate) fn filters_directly(&self) -> bool {
        let not_yet = Flags::HANDSHAKING | Flags::CONNECTING | Flags::BROKEN | Flags::ENDED;
        self.flags.any(Flags::FILTERED)
            && self.flags.none(not_yet | Flags::FILTER_FINISHED)
            && self.queues().is_none_or(|queues| queues.queue.is_empty())
    }

    /// Gives clear bytes to the filter, as many as the wire may hold now, and returns how many.
    pub(crate) fn filter_output(&mut self, clear: &[u8], pool: &mut ChunkPool, tick: u64) -> usize {
        let mut given = 0;
        while given < clear.len() && self.wire_len() < WIRE_MARK {
            let step = &clear[given..clear.len().min(given + STEP)];
            if !self.filters_directly() {
                break;
            }
            given += step.len();
            self.encode(step, pool, tick);
        }
        given
    }

    /// Encodes queued clear bytes, as many as the wire may hold for now.
    pub(super) fn fill_wire(&mut self, pool: &mut ChunkPool, tick: u64) {
        while self.flags.none(Flags::HANDSHAKING | Flags::ENDED) && self.wire_len() < WIRE_MARK {
            // The queue is put back at once: the filter has no access to it.
            let Some(queues) = self.get_queues() else { return };
            let mut queue = mem::take(&mut queues.queue);
            let clear = queue.front();
            let clear = &clear[..clear.len().min(STEP)];
            let count = clear.len();
            let result = if count > 0 { Some(self.call_send(clear, pool)) } else { None };
            queue.advance(count, pool);
            self.queues_mut().queue = queue;
            let Some(result) = result else { return };
            self.handle_encoded(count, result, tick);
        }
    }

    fn encode(&mut self, clear: &[u8], pool: &mut ChunkPool, tick: u64) {
        let result = self.call_send(clear, pool);
        self.handle_encoded(clear.len(), result, tick);
    }

    fn call_send(&mut self, clear: &[u8], pool: &mut ChunkPool) -> Result<FilterResult, Panic> {
        let Some(Filtered { filter, wire }) = self.get_filtered() else {
            return Ok(Ok(Progress::Open));
        };
        let result = guarded(|| filter.send(clear, wire.tail(clear.len(), pool)));
        wire.trim(pool);
        result
    }

    fn handle_encoded(&mut self, count: usize, result: Result<FilterResult, Panic>, tick: u64) {
        self.bytes_out += count as u64;
        self.note_wire(tick);
        self.handle_progress(result, By::Us, tick);
    }

    fn note_wire(&mut self, tick: u64) {
        if self.wire_len() == 0 || self.flags.any(Flags::QUEUED) {
            return;
        }
        if self.flags.any(Flags::FIN_SENT) {
            // A filter may go on answering what it reads; after our FIN no answer can be sent.
            if let Some(filtered) = self.get_filtered() {
                filtered.wire.clear(&mut ChunkPool::default());
            }
            return;
        }
        self.flags.set(Flags::QUEUED);
        self.queues_mut().progress = tick;
    }

    // ---- progress and end --------------------------------------------------------------------

    /// The result of a call of the filter. A failure is that of `by`.
    fn handle_progress(&mut self, result: Result<FilterResult, Panic>, by: By, tick: u64) {
        match result {
            Ok(Ok(Progress::Handshaking)) => {}
            Ok(Ok(progress)) if self.flags.none(Flags::CLOSING | Flags::ENDED) => {
                if self.flags.any(Flags::HANDSHAKING) {
                    self.flags.clear(Flags::HANDSHAKING);
                    self.flags.set(Flags::OPENED_DUE);
                    self.active = tick;
                    // What is queued could not leave before.
                    if self.flags.any(Flags::QUEUED) {
                        self.queues_mut().progress = tick;
                    }
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
                self.begin_close(by, failed, Some(Cause::new(error)));
            }
            Err(panic) => self.end(By::Us, CloseKind::Panicked, Some(Cause::new(panic))),
        }
    }

    /// The filter has failed: its output is sent, and it is not called again.
    fn give_up_filter(&mut self) {
        self.flags.set(Flags::FILTER_FINISHED);
        self.lose_queue();
    }

    /// Drops the clear bytes that will never pass the filter.
    pub(super) fn lose_queue(&mut self) {
        if let Some(queues) = self.get_queues() {
            let lost = queues.queue.clear(&mut ChunkPool::default());
            self.lose_output(lost);
        }
        self.handle_flushed();
    }

    /// Ends the filter's direction once everything clear has passed it.
    pub(super) fn finish_filter(&mut self, pool: &mut ChunkPool, tick: u64) {
        self.flags.set(Flags::FILTER_FINISHED);
        let Some(Filtered { filter, wire }) = self.get_filtered() else { return };
        let result = guarded(|| filter.finish(wire.tail(0, pool)));
        wire.trim(pool);
        match result {
            Ok(()) => self.note_wire(tick),
            Err(panic) => self.end(By::Us, CloseKind::Panicked, Some(Cause::new(panic))),
        }
    }
}
