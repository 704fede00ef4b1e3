//! Step 6 for one connection: read, call, send. The straight path of every message is here.

use std::io;

use super::EventLoop;
use super::system::{Stream, System};
use crate::connection::{Consumed, Flags};
use crate::id::ConnId;
use crate::protocol::Callback;

impl<S: System> EventLoop<S> {
    /// Attends to the connection if it needs it, then reads while there is something and the budget
    /// lasts. Whoever has used it up goes to the back of the ready list.
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
        let mut budget = entry.conn.limits().read_budget;
        while entry.conn.may_read() && budget > 0 {
            let Some(stream) = entry.stream.as_mut() else { break };
            let room = budget.min(buffer.len());
            self.shared.metrics.reads += 1;
            let count = match stream.read(&mut buffer[..room]) {
                Ok(count) if count > 0 => count,
                end => return self.handle_read_end(id, end),
            };
            budget -= count;
            self.shared.metrics.bytes_in += count as u64;
            entry.conn.handle_read(count, room, self.shared.clock.tick());
            let shown = &buffer[..count];
            if !entry.conn.shows_directly() {
                self.receive(id, shown);
            } else {
                entry.conn.handle_shown(count);
                let consumed = entry.called(&mut self.shared).data::<TIMED>(shown);
                let settled = consumed.left == 0
                    && consumed.need == 0
                    && self.shared.effects.is_empty()
                    && entry.conn.flags().passes(Flags::SETTLED_GATE, Flags::WRITABLE);
                match (self.shared.output.slice(shown), &mut entry.stream) {
                    (Some(output), Some(stream)) if settled => {
                        // Nothing to do but to send, from where the bytes are.
                        if output.is_empty() {
                            continue;
                        }
                        self.shared.metrics.writes += 1;
                        match stream.write(output) {
                            Ok(sent) if sent == output.len() => {
                                self.shared.metrics.bytes_out += sent as u64;
                                entry.conn.handle_sent_directly(sent);
                                self.shared.output.clear();
                                continue;
                            }
                            result => {
                                self.send_rest(id, shown, result, Callback::Data);
                                self.shared.output.clear();
                                self.finish(id);
                            }
                        }
                    }
                    _ => self.settle_data(id, shown, consumed),
                }
            }
            entry = match self.table.get_mut(id) {
                Some(entry) => entry,
                None => return,
            };
        }
        if entry.conn.may_read() {
            self.list(id);
        }
    }

    /// After a `data` that left more to do than to send.
    #[inline(never)]
    fn settle_data(&mut self, id: ConnId, shown: &[u8], consumed: Consumed) {
        self.send_own(id, shown, Callback::Data);
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.borrow_rare(&mut self.shared.rares);
            entry.conn.handle_left(&shown[shown.len() - consumed.left..], consumed);
        }
        self.settle(id);
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
    fn receive(&mut self, id: ConnId, bytes: &[u8]) {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.borrow_rare(&mut self.shared.rares);
        entry.conn.handle_wire(bytes, tick);
        self.attend(id);
    }
}
