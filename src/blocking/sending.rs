//! Output: straight from the callback to the socket, or through the queue.

use std::io;
use std::mem;
use std::time::Duration;

use super::cell::{Cell, Member};
use super::hub::lock;
use super::worker::{READ_BUFFER, Role, SHORTEST, Worker, is_timeout};
use crate::clock::nanos;
use crate::connection::{Expired, Flags};
use crate::protocol::{Callback, Output, Part};
use crate::reason::{By, CloseKind, Deadline};
use crate::socket::retry;
use crate::sync::MutexGuard;

/// Parts of the write stall that a write may sleep: so much later than the limit a stall is noticed
/// at most, and a peer that reads slowly has its progress seen in time.
const STALL_PARTS: u32 = 4;

/// What came of an attempt to send what is queued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    Done,
    /// Another thread sends. Once it is through it rings, or nudges.
    Busy,
}

impl Worker {
    /// Decides where the output of a callback goes. Returns the writer's lock if it is to be sent
    /// from where it is; nothing can then overtake it.
    pub(super) fn place_output<'a>(
        &mut self,
        cell: &'a Cell,
        member: &mut Member,
        output: &Output,
        shown: &[u8],
        callback: Callback,
    ) -> Option<MutexGuard<'a, ()>> {
        if output.is_empty() {
            return None;
        }
        let flags = member.conn.flags();
        let lost = Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::ENDED | Flags::BROKEN;
        if flags.any(lost) || member.conn.has_panicked() {
            member.conn.lose_output(output.len());
            return None;
        }
        // The last words are bounded by the deadline of the close, which looks at the queue.
        let last = Flags::CLOSE_WANTED | Flags::FAILED | Flags::CLOSING;
        if flags.none(last) && member.conn.sends_directly() {
            if let Ok(writer) = cell.writer.try_lock() {
                member.writing = true;
                self.bound_write(cell, member, self.shared.clock.exact());
                return Some(writer);
            }
        }
        self.queue(member, output, shown);
        // Another thread is writing: what input causes, input waits for.
        let caused = callback.answers_input() && member.conn.handle_caused(output.len());
        if caused && member.conn.handle_held(cell.id) {
            member.conn.handle_holds(cell.id);
        }
        None
    }

    fn queue(&mut self, member: &mut Member, output: &Output, shown: &[u8]) {
        let tick = self.shared.clock.exact();
        let chunks = &mut self.shared.chunks;
        output.for_each(shown, |part| {
            match part {
                Part::Copied(bytes) => member.conn.queue(bytes, chunks, tick),
                Part::Shared(bytes) => member.conn.queue_shared(bytes.clone(), tick),
            };
        });
        if !member.writing {
            member.conn.handle_flushed();
        }
    }

    /// Sends what a callback wrote, from where it is; `first` is how the first write went, if that
    /// was made already. The writer's lock is held.
    pub(super) fn send_directly(
        &mut self,
        cell: &Cell,
        output: &Output,
        shown: &[u8],
        mut first: Option<io::Result<usize>>,
    ) {
        let mut going = true;
        let (mut sent, mut counted) = (0, 0);
        output.for_each(shown, |part| {
            let bytes = match &part {
                Part::Copied(bytes) => bytes,
                Part::Shared(bytes) => &bytes[..],
            };
            let mut left = bytes;
            let mut since = None;
            while going && !left.is_empty() {
                let result = first.take().unwrap_or_else(|| self.write_once(cell, left));
                if let Ok(count) = &result {
                    sent += count;
                    left = &left[*count..];
                }
                if !left.is_empty() {
                    let count = mem::replace(&mut counted, sent);
                    going = self.note_delay(cell, result, sent - count, &mut since);
                }
            }
        });
        let now = self.shared.clock.exact();
        let mut member = lock(&cell.member);
        member.writing = false;
        member.conn.handle_sent_ahead(sent - counted, now);
        member.conn.lose_output(output.len() - sent);
        member.conn.handle_flushed();
    }

    /// A write took less than it was given. `since` is when the last byte went. False when the rest
    /// is lost.
    fn note_delay(
        &mut self,
        cell: &Cell,
        result: io::Result<usize>,
        sent: usize,
        since: &mut Option<u64>,
    ) -> bool {
        let now = self.shared.clock.exact();
        let mut member = lock(&cell.member);
        member.conn.handle_sent_ahead(sent, now);
        match result {
            Err(error) => member.conn.handle_write_failed(error, &mut self.shared.chunks),
            Ok(0) => {
                let stall = nanos(member.conn.limits().write_stall);
                if now.saturating_sub(*since.get_or_insert(now)) >= stall {
                    let kind = CloseKind::TimedOut(Deadline::Write);
                    member.conn.handle_reset(By::Runtime, kind);
                }
            }
            Ok(_) => *since = Some(now),
        }
        self.bound_write(cell, &mut member, now);
        member.conn.flags().none(Flags::ENDED | Flags::BROKEN)
    }

    /// Writes what is queued for this thread's connection, unless somebody else is at it, whose
    /// write may not come back before this thread has looked at what others ask for.
    pub(super) fn try_drain(&mut self, cell: &Cell) -> Drained {
        let Ok(writer) = cell.writer.try_lock() else { return Drained::Busy };
        self.drain_locked(cell, writer, usize::MAX);
        Drained::Done
    }

    /// Writes what is queued for another connection. Whoever calls it blocks: that is the
    /// back-pressure of this driver.
    pub(super) fn drain(&mut self, cell: &Cell) {
        // What others add meanwhile is not this thread's to wait for.
        let most = lock(&cell.member).conn.unsent();
        self.drain_locked(cell, lock(&cell.writer), most);
    }

    /// Writes until nothing is left, `most` bytes have gone, or a callback of this thread's
    /// connection is due.
    fn drain_locked(&mut self, cell: &Cell, writer: MutexGuard<'_, ()>, most: usize) {
        let mut gone = 0;
        let mut scratch = mem::take(&mut self.scratch);
        while self.take_output(cell, &mut scratch) {
            let result = self.write_once(cell, &scratch);
            let now = self.shared.clock.exact();
            let mut member = lock(&cell.member);
            member.writing = false;
            let (sent, error) = match result {
                Ok(sent) => (sent, None),
                Err(error) => (0, Some(error)),
            };
            if member.conn.flags().any(Flags::ENDED | Flags::BROKEN) {
                // What was being written has been dropped from the queue meanwhile, or is now.
                member.conn.handle_wishes(&mut self.shared.chunks, now, false);
                member.conn.handle_sent_late(sent);
            } else if sent > 0 {
                member.conn.handle_sent(sent, &mut self.shared.chunks, now);
            }
            if let Some(error) = error {
                member.conn.handle_write_failed(error, &mut self.shared.chunks);
            }
            member.conn.handle_flushed();
            gone += sent;
            let own = cell.id == self.cell.id;
            if gone >= most || (own && self.is_due(&member, now)) {
                break;
            }
        }
        scratch.clear();
        scratch.shrink_to(READ_BUFFER);
        self.scratch = scratch;
        drop(writer);
        // What follows from an empty queue (FIN, `drained`) is for the connection's own threads.
        cell.ring();
    }

    /// Copies the next bytes of the queue into `scratch`. They stay queued until they are sent, so
    /// that the marks count them. False when there is nothing to send.
    fn take_output(&mut self, cell: &Cell, scratch: &mut Vec<u8>) -> bool {
        let now = self.shared.clock.exact();
        let mut member = lock(&cell.member);
        if cell.id == self.cell.id && self.take_requests(cell, &mut member) {
            self.finish(&mut member);
        }
        member.conn.handle_ready(Flags::WRITABLE);
        if member.conn.has_output() && member.conn.poll_deadline() <= now {
            let expired = member.conn.handle_deadline(now, &mut self.shared.chunks);
            self.shared.metrics.timers += u64::from(expired == Expired::Something);
        }
        if !member.conn.has_output() {
            return false;
        }
        self.bound_write(cell, &mut member, now);
        let mut slices = [io::IoSlice::new(&[]); 16];
        let budget = member.conn.limits().write_budget;
        let count = member.conn.poll_output(&mut slices, budget, &mut self.shared.chunks, now);
        scratch.clear();
        for slice in &slices[..count] {
            scratch.extend_from_slice(slice);
        }
        if scratch.is_empty() {
            // A filter has made nothing of it.
            member.conn.handle_flushed();
            return false;
        }
        member.writing = true;
        true
    }

    /// Sets how long the next write may sleep: not beyond the deadline of a close, and where the
    /// companion writes, not beyond the next timer, which nobody else would run.
    pub(super) fn bound_write(&self, cell: &Cell, member: &mut Member, now: u64) {
        let Some(socket) = cell.socket.get() else { return };
        let mut most = member.conn.limits().write_stall / STALL_PARTS;
        let mut until = u64::MAX;
        if member.conn.flags().any(Flags::CLOSING) {
            until = member.conn.poll_deadline();
        }
        if self.role == Role::Companion && cell.id == self.cell.id {
            until = until.min(member.timers.next().unwrap_or(u64::MAX));
        }
        if until < u64::MAX {
            most = most.min(Duration::from_nanos(until.saturating_sub(now)));
        }
        let most = most.max(SHORTEST);
        if member.write_timeout == Some(most) {
            return;
        }
        match socket.set_write_timeout(Some(most)) {
            Ok(()) => member.write_timeout = Some(most),
            Err(error) => {
                log::debug!(target: "lariat::blocking", "cannot set a time-out: {error}");
            }
        }
    }

    /// One write; `Ok(0)` when nothing could be written for as long as the socket may sleep.
    fn write_once(&mut self, cell: &Cell, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = cell.socket.get() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if cell.is_asked() {
            self.hub.carry_mail(cell);
        }
        let result = retry(|| io::Write::write(&mut &*socket, bytes));
        self.count_write(result)
    }

    /// Counts a write that was made.
    pub(super) fn count_write(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        self.shared.metrics.writes += 1;
        match result {
            Ok(count) => {
                self.shared.metrics.bytes_out += count as u64;
                Ok(count)
            }
            Err(error) if is_timeout(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }
}
