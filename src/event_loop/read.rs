//! Step 6 for one connection: read, call, send. The straight path of every message is here.

use std::io;

use super::EventLoop;
use super::system::{Stream, System};
use super::table::Entry;
use crate::connection::{BULK, Consumed, Flags};
use crate::dispatch::Called;
use crate::id::ConnId;
use crate::protocol::Callback;

impl<S: System> EventLoop<S> {
    /// Reads once, as much as the connection's budget and `buffer` allow, shows the bytes and sends
    /// the answer, if nothing else is due. A connection that may have more goes to the end of a
    /// list. True when more was done than a small message, so that the turn may have moved enough.
    #[inline(always)]
    pub(super) fn serve<const TIMED: bool>(&mut self, id: ConnId, buffer: &mut [u8]) -> bool {
        let Some(entry) = self.table.get_mut(id) else { return self.serve_datagrams(id) };
        entry.conn.handle_unlisted();
        if !entry.conn.is_straight() {
            return self.serve_unusual(id, buffer);
        }
        let Entry { conn, stream, protocol } = entry;
        let Some(stream) = stream.as_mut().and_then(Stream::straight) else {
            return self.serve_unusual(id, buffer);
        };
        let room = conn.limits().read_budget.min(buffer.len());
        self.shared.metrics.reads += 1;
        let count = match stream.read(&mut buffer[..room]) {
            Ok(count) if count > 0 => count,
            end => return self.handle_read_end(id, end),
        };
        self.shared.metrics.bytes_in += count as u64;
        conn.handle_read(count, room, self.shared.clock.tick());
        let shown = &buffer[..count];
        conn.handle_shown(count);
        let shared = &mut self.shared;
        let called = Called { shared, conn, protocol: &mut **protocol, socket: stream.as_info() };
        let consumed = called.data::<TIMED>(shown, S::CHECKED);
        let settled = (consumed.left | consumed.need) == 0
            && self.shared.effects.is_empty()
            && conn.flags().passes(Flags::SETTLED_GATE, Flags::WRITABLE);
        let output = match self.shared.output.slice(shown) {
            Some(output) if settled => output,
            _ => return self.settle_data(id, shown, consumed),
        };
        // Only sending is left, from where the bytes are.
        let sent = output.len();
        if sent > 0 {
            self.shared.metrics.writes += 1;
            let result = stream.write(output);
            if !matches!(result, Ok(all) if all == sent) {
                return self.settle_short(id, shown, result);
            }
            self.shared.metrics.bytes_out += sent as u64;
            conn.handle_sent_directly(sent);
            self.shared.output.clear();
        }
        // Whether either was much: the mark is a power of two.
        if (count | sent) >= BULK {
            self.note_bulk(id, count, sent);
            return true;
        }
        false
    }

    /// A connection has moved much: it is charged, and served after the others from now on.
    #[inline(never)]
    fn note_bulk(&mut self, id: ConnId, read: usize, sent: usize) {
        self.budget.charge(read + sent);
        *self.budget.sent_by(id, self.shared.metrics.turns) += sent;
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.handle_bulk();
        }
    }

    /// Serves a connection that has more to do than to read, or whose input cannot be shown in
    /// place.
    #[inline(never)]
    fn serve_unusual(&mut self, id: ConnId, buffer: &mut [u8]) -> bool {
        let Some(mut entry) = self.table.get_mut(id) else { return true };
        if entry.conn.flags().any(Flags::ATTENTION) {
            self.attend(id);
            entry = match self.table.get_mut(id) {
                Some(entry) => entry,
                None => return true,
            };
        }
        if !entry.conn.may_read() {
            return true;
        }
        let Entry { conn, stream: Some(stream), protocol } = entry else { return true };
        let room = conn.room_to_read(buffer.len());
        self.shared.metrics.reads += 1;
        let count = match stream.read(&mut buffer[..room]) {
            Ok(count) if count > 0 => count,
            end => return self.handle_read_end(id, end),
        };
        self.shared.metrics.bytes_in += count as u64;
        conn.handle_read(count, room, self.shared.clock.tick());
        if !conn.shows_directly() {
            return self.receive(id, &mut buffer[..count]);
        }
        let shown = &buffer[..count];
        conn.handle_shown(count);
        let shared = &mut self.shared;
        let called = Called { shared, conn, protocol: &mut **protocol, socket: stream.as_info() };
        let consumed = called.data::<true>(shown, S::CHECKED);
        self.settle_data(id, shown, consumed)
    }

    /// After a direct write that did not take everything.
    #[cold]
    fn settle_short(&mut self, id: ConnId, shown: &[u8], result: io::Result<usize>) -> bool {
        if shown.len() >= BULK {
            self.note_bulk(id, shown.len(), 0);
        }
        self.send_rest(id, shown, result, Callback::Data);
        self.shared.output.clear();
        self.finish(id);
        true
    }

    /// After a `data` that left more to do than to send.
    #[inline(never)]
    fn settle_data(&mut self, id: ConnId, shown: &[u8], consumed: Consumed) -> bool {
        if shown.len() >= BULK {
            self.note_bulk(id, shown.len(), 0);
        }
        self.send_own(id, shown, Callback::Data);
        if let Some(entry) = self.table.get_mut(id) {
            if consumed.left > 0 {
                entry.conn.borrow_queues(&mut self.shared.rares);
            }
            entry.conn.handle_left(shown, consumed, &mut self.shared.chunks);
        }
        let successor = self.apply_effects(Some(id), shown);
        self.succeed(id, successor);
        // A large echo that the socket took at once: delaying `drained` to the next turn would cost
        // it a poll. Another one, for what this one writes, does wait.
        match self.table.get_mut(id) {
            Some(entry) if entry.conn.drains_at_once() => self.call_drained(id),
            _ => self.finish(id),
        }
        true
    }

    /// The read found nothing, the end, or an error.
    #[cold]
    fn handle_read_end(&mut self, id: ConnId, end: io::Result<usize>) -> bool {
        let Some(entry) = self.table.get_mut(id) else { return true };
        match end {
            Ok(_) => entry.conn.handle_fin(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.conn.handle_read_blocked();
            }
            Err(error) => {
                log::debug!(target: "lariat::read", "{}: {error}", entry.conn.peer());
                entry.conn.handle_read_failed(error, &mut self.shared.chunks);
            }
        }
        self.attend(id);
        true
    }

    /// Takes bytes that cannot be shown in place, and shows the result.
    fn receive(&mut self, id: ConnId, bytes: &mut [u8]) -> bool {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else { return true };
        if entry.conn.flags().any(Flags::HANDSHAKING) {
            self.budget.charge_handshake();
        }
        if bytes.len() >= BULK {
            self.budget.charge(bytes.len());
            entry.conn.handle_bulk();
        }
        entry.conn.borrow_queues(&mut self.shared.rares);
        entry.conn.handle_wire(bytes, &mut self.shared.chunks, tick);
        self.attend(id);
        true
    }
}
