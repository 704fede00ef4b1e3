//! Output on its way to the socket.

use std::io::{self, IoSlice};
use std::mem;

use super::EventLoop;
use super::budget::Budget;
use super::system::{Stream, System};
use super::table::Entry;
use crate::connection::{BULK, Flags};
use crate::id::ConnId;
use crate::protocol::{Callback, Part, Shared};

/// Slices that one call sends. A chunk is 64 KiB, so that a call takes up to 1 MiB.
const SLICES: usize = 16;

impl<S: System> EventLoop<S> {
    /// Sends what the callback that has returned wrote to its own connection, behind what was
    /// queued.
    pub(super) fn send_own(&mut self, id: ConnId, shown: &[u8], callback: Callback) {
        if self.shared.output.is_empty() {
            return self.shared.output.clear();
        }
        let Some(entry) = self.table.get_mut(id) else { return self.shared.output.clear() };
        self.shared.output.tap(shown, &mut entry.conn, self.shared.clock.tick());
        let lost = Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::ENDED | Flags::BROKEN;
        if entry.conn.flags().any(lost) || entry.conn.has_panicked() {
            entry.conn.lose_output(self.shared.output.len());
            return self.shared.output.clear();
        }
        let slice = self.shared.output.slice(shown);
        match (slice, &mut entry.stream) {
            (Some(output), Some(stream)) if entry.conn.sends_directly() => {
                self.shared.metrics.writes += 1;
                let most = self.budget.most(entry.conn.limits().write_budget);
                let output = &output[..output.len().min(most)];
                let offered = output.len();
                let result = stream.write(output);
                self.send_rest(id, shown, offered, result, callback);
            }
            (Some(output), _) if entry.conn.filters_directly() => {
                let (chunks, tick) = (&mut self.shared.chunks, self.shared.clock.tick());
                let given = entry.conn.filter_output(output, chunks, tick);
                flush(entry, &mut self.shared, &mut self.budget);
                if given < self.shared.output.len() {
                    queue_output(entry, &mut self.shared, shown, given);
                    flush(entry, &mut self.shared, &mut self.budget);
                }
                self.note_caused(id, callback);
            }
            _ => {
                queue_output(entry, &mut self.shared, shown, 0);
                flush(entry, &mut self.shared, &mut self.budget);
                self.note_caused(id, callback);
            }
        }
        self.shared.output.clear();
    }

    /// After a direct write of `offered` bytes: counts what was sent and queues the rest.
    #[inline(never)]
    pub(super) fn send_rest(
        &mut self,
        id: ConnId,
        shown: &[u8],
        offered: usize,
        result: io::Result<usize>,
        callback: Callback,
    ) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let whole = self.shared.output.len();
        let sent = match result {
            Ok(sent) => {
                self.shared.metrics.bytes_out += sent as u64;
                entry.conn.handle_sent_at(sent, self.shared.clock.tick());
                if sent < offered {
                    entry.conn.handle_write_blocked();
                }
                if sent >= BULK {
                    entry.conn.handle_bulk();
                    self.budget.charge(sent);
                }
                sent
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.conn.handle_write_blocked();
                0
            }
            Err(error) => {
                log::debug!(target: "lariat::send", "{}: {error}", entry.conn.peer());
                entry.conn.handle_write_failed(error, &mut self.shared.chunks);
                0
            }
        };
        if sent < whole {
            queue_output(entry, &mut self.shared, shown, sent);
        }
        self.note_caused(id, callback);
    }

    /// Flow control for the connection's own queue.
    fn note_caused(&mut self, id: ConnId, callback: Callback) {
        let whole = self.shared.output.len();
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.handle_flushed();
        if callback.answers_input() && entry.conn.handle_caused(whole) {
            entry.conn.hold_itself();
        }
    }

    /// Holds `writer` until the queue of `target` has drained.
    pub(super) fn hold(&mut self, writer: ConnId, target: ConnId) {
        let Some(entry) = self.table.get_mut(writer) else { return };
        if entry.conn.handle_held(target) {
            if let Some(entry) = self.table.get_mut(target) {
                entry.conn.handle_holds(writer);
            }
        }
    }

    /// Step 8: output that connections queued for others.
    pub(super) fn send_dirty(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(entry) = self.table.get_mut(id) {
                entry.conn.handle_dirty(false);
                flush(entry, &mut self.shared, &mut self.budget);
                self.finish(id);
            }
        }
        // Whoever was marked meanwhile waits for the next turn.
        mem::swap(&mut self.dirty, &mut dirty);
        self.dirty.append(&mut dirty);
    }
}

/// Queues the output without its first `skip` bytes.
fn queue_output<S: System>(
    entry: &mut Entry<S>,
    shared: &mut Shared,
    shown: &[u8],
    mut skip: usize,
) {
    let tick = shared.clock.tick();
    let Shared { output, chunks, rares, .. } = shared;
    entry.conn.borrow_queues(rares);
    output.for_each(shown, |part| match part {
        Part::Copied(bytes) => {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            entry.conn.queue(&bytes[skipped..], chunks, tick);
        }
        Part::Shared(bytes) => {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            entry.conn.queue_shared(bytes.slice_from(skipped), tick);
        }
    });
}

/// Sends queued output until it is all gone, the socket takes no more, or a budget is used up: the
/// connection's own, or that of the turn, which leaves large queues to the next turn.
pub(super) fn flush<S: System>(entry: &mut Entry<S>, shared: &mut Shared, turn: &mut Budget) {
    if turn.is_spent() && entry.conn.unsent() >= BULK {
        return entry.conn.handle_bulk();
    }
    let tick = shared.clock.tick();
    let whole = turn.most(entry.conn.limits().write_budget);
    let mut budget = whole;
    while budget > 0 && entry.conn.has_output() {
        let Some(stream) = entry.stream.as_mut() else { break };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = entry.conn.poll_output(&mut slices, budget, &mut shared.chunks, tick);
        let wanted: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            break;
        }
        shared.metrics.writes += 1;
        let result = match &slices[..count] {
            [one] => stream.write(one),
            many => stream.write_vectored(many),
        };
        match result {
            Ok(sent) => {
                shared.metrics.bytes_out += sent as u64;
                budget -= sent;
                entry.conn.handle_sent(sent, &mut shared.chunks, tick);
                if sent < wanted {
                    entry.conn.handle_write_blocked();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.conn.handle_write_blocked();
            }
            Err(error) => {
                log::debug!(target: "lariat::send", "{}: {error}", entry.conn.peer());
                entry.conn.handle_write_failed(error, &mut shared.chunks);
            }
        }
        entry.conn.handle_flushed();
    }
    let sent = whole - budget;
    if sent >= BULK {
        entry.conn.handle_bulk();
        turn.charge(sent);
    }
    entry.conn.handle_flushed();
}
