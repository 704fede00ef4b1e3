//! Output on its way to the socket.

use std::io::{self, IoSlice};
use std::mem;

use super::EventLoop;
use super::budget::Budget;
use super::system::{Stream, System};
use super::table::Entry;
use crate::connection::{BULK, Connection};
use crate::id::ConnId;
use crate::protocol::{Callback, Shared};
use crate::sending;

impl<S: System> EventLoop<S> {
    /// Sends the output that the last callback wrote to its own connection, after what was queued.
    pub(super) fn send_own(&mut self, id: ConnId, shown: &[u8], callback: Callback) {
        if let Some(Entry { conn, stream, .. }) = self.table.get_mut(id) {
            let (tick, shared) = (self.shared.clock.tick(), &mut self.shared);
            let most = most_to_send(conn, shared, &mut self.budget);
            let sends = &mut |slices: &[IoSlice<'_>]| send(stream, slices);
            let sent = sending::send_own(conn, shared, shown, callback, tick, most, sends);
            note_sent(conn, shared, &mut self.budget, sent);
        }
        self.shared.output.clear();
    }

    /// After a direct write of the output that took only a part of it.
    pub(super) fn send_rest(
        &mut self,
        id: ConnId,
        shown: &[u8],
        result: io::Result<usize>,
        callback: Callback,
    ) {
        let Some(Entry { conn, .. }) = self.table.get_mut(id) else { return };
        let attempt = (self.shared.output.len(), result);
        let (tick, shared) = (self.shared.clock.tick(), &mut self.shared);
        let sent = sending::send_rest(conn, shared, shown, callback, tick, attempt);
        note_sent(conn, shared, &mut self.budget, sent);
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
        // A connection that is marked meanwhile waits for the next turn.
        mem::swap(&mut self.dirty, &mut dirty);
        self.dirty.append(&mut dirty);
    }
}

/// Sends queued output until all is sent, the socket takes no more, or a budget is used up: the
/// connection's own, or the turn's, which leaves large queues to the next turn.
pub(super) fn flush<S: System>(entry: &mut Entry<S>, shared: &mut Shared, turn: &mut Budget) {
    if turn.is_spent() && entry.conn.unsent() >= BULK {
        return entry.conn.handle_bulk();
    }
    let Entry { conn, stream, .. } = entry;
    let (most, tick) = (most_to_send(conn, shared, turn), shared.clock.tick());
    let sends = &mut |slices: &[IoSlice<'_>]| send(stream, slices);
    let sent = sending::flush(conn, shared, tick, most, sends);
    note_sent(conn, shared, turn, sent);
}

/// How much a connection may send now: what is left of its own budget, and of the turn's.
fn most_to_send(conn: &Connection, shared: &Shared, turn: &mut Budget) -> usize {
    let sent = *turn.sent_by(conn.id(), shared.metrics.turns);
    turn.most(conn.limits().write_budget.saturating_sub(sent))
}

fn note_sent(conn: &mut Connection, shared: &Shared, turn: &mut Budget, sent: usize) {
    *turn.sent_by(conn.id(), shared.metrics.turns) += sent;
    if sent >= BULK {
        conn.handle_bulk();
        turn.charge(sent);
    }
}

fn send<T: Stream>(stream: &mut Option<T>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    match (stream, slices) {
        (Some(stream), [one]) => stream.write(one),
        (Some(stream), many) => stream.write_vectored(many),
        // Its end is decided.
        (None, _) => Err(io::ErrorKind::NotConnected.into()),
    }
}
