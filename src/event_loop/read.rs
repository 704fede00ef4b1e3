//! Step 6 for one connection: read, call, send. The straight path of every message is here.

use std::io;

use super::EventLoop;
use super::system::{Stream, System};
use super::table::Entry;
use crate::connection::{Consumed, Flags};
use crate::dispatch::Called;
use crate::id::ConnId;
use crate::protocol::Callback;

impl<S: System> EventLoop<S> {
    /// Attends to the connection if it needs it, then reads once, as much as its budget allows.
    /// Whoever may have more goes to the back of the ready list.
    #[inline(always)]
    pub(super) fn serve<const TIMED: bool>(&mut self, id: ConnId, buffer: &mut [u8]) {
        let Some(mut entry) = self.table.get_mut(id) else { return };
        entry.conn.handle_unlisted();
        if entry.conn.flags().any(Flags::ATTENTION) {
            self.attend(id);
            entry = match self.table.get_mut(id) {
                Some(entry) => entry,
                None => return,
            };
        }
        if !entry.conn.may_read() {
            return;
        }
        let Entry { conn, stream: Some(stream), protocol } = entry else { return };
        let room = conn.limits().read_budget.min(buffer.len());
        self.shared.metrics.reads += 1;
        let count = match stream.read(&mut buffer[..room]) {
            Ok(count) if count > 0 => count,
            end => return self.handle_read_end(id, end),
        };
        self.shared.metrics.bytes_in += count as u64;
        let drained = conn.handle_read(count, room, self.shared.clock.tick());
        if !conn.shows_directly() {
            return self.receive(id, &mut buffer[..count]);
        }
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
        // Nothing to do but to send, from where the bytes are.
        if !output.is_empty() {
            self.shared.metrics.writes += 1;
            let result = stream.write(output);
            if !matches!(result, Ok(sent) if sent == output.len()) {
                return self.settle_short(id, shown, result);
            }
            self.shared.metrics.bytes_out += output.len() as u64;
            conn.handle_sent_directly(output.len());
            self.shared.output.clear();
        }
        if !drained {
            self.list(id);
        }
    }

    /// After a direct write that did not take everything.
    #[cold]
    fn settle_short(&mut self, id: ConnId, shown: &[u8], result: io::Result<usize>) {
        self.send_rest(id, shown, result, Callback::Data);
        self.shared.output.clear();
        self.finish(id);
    }

    /// After a `data` that left more to do than to send.
    #[inline(never)]
    fn settle_data(&mut self, id: ConnId, shown: &[u8], consumed: Consumed) {
        self.send_own(id, shown, Callback::Data);
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.borrow_queues(&mut self.shared.rares);
            entry.conn.handle_left(shown, consumed, &mut self.shared.chunks);
        }
        if !self.shared.effects.is_empty() {
            let successor = self.apply_effects(Some(id), shown);
            self.succeed(id, successor);
        }
        // A large echo that the socket took at once: waiting for the next turn to say `drained`
        // would cost it a poll. What `drained` writes in turn does wait.
        match self.table.get_mut(id) {
            Some(entry) if entry.conn.drains_at_once() => self.call_drained(id),
            _ => self.finish(id),
        }
    }

    /// The read found nothing, the end, or an error.
    #[cold]
    fn handle_read_end(&mut self, id: ConnId, end: io::Result<usize>) {
        let Some(entry) = self.table.get_mut(id) else { return };
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
    }

    /// Takes bytes that cannot be shown where they are, and shows what became of them.
    fn receive(&mut self, id: ConnId, bytes: &mut [u8]) {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.borrow_queues(&mut self.shared.rares);
        entry.conn.handle_wire(bytes, &mut self.shared.chunks, tick);
        self.attend(id);
    }
}
