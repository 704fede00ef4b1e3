//! The turn, as the loop has it: attending, reading, and which callback runs when.

use std::io::ErrorKind;

use super::super::super::{Consumed, Due, Flags, Round};
use super::{Model, READ_BUFFER, Rig};
use crate::grammar::Callback;
use crate::reason::{By, Cause, CloseKind, ConnectFailure, FilterFailure};

impl Rig {
    /// The ready list's share of a turn.
    pub(in super::super) fn serve(&mut self) {
        self.conn.handle_unlisted();
        if self.is(Flags::ATTENTION) {
            self.attend();
        }
        if self.reason.is_none() {
            self.read(READ_BUFFER);
        }
    }

    /// One read and what follows from it; None at the end of what there is.
    pub(in super::super) fn read(&mut self, room: usize) -> Option<usize> {
        if !self.conn.may_read() || self.kernel.closed {
            return None;
        }
        let bytes = match self.kernel.read(room) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            Ok(_) => {
                self.fin();
                self.attend();
                return None;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.conn.handle_read_blocked();
                self.attend();
                return None;
            }
            Err(error) => {
                self.decide_break(CloseKind::Reset);
                self.conn.handle_read_failed(error, &mut self.chunks);
                self.attend();
                return None;
            }
        };
        self.model.active = self.now;
        self.conn.handle_read(bytes.len(), room, self.tick());
        if self.conn.shows_directly() {
            self.conn.handle_shown(bytes.len());
            self.model.received.extend(&bytes);
            let consumed = self.call_with_input(Callback::Data, &bytes);
            let settled = (consumed.left | consumed.need) == 0
                && self.model.wishes.is_empty()
                && self.conn.flags().passes(Flags::SETTLED_GATE, Flags::WRITABLE);
            self.send_own(Callback::Data);
            if settled && self.conn.flags().passes(Flags::SETTLED_GATE, Flags::WRITABLE) {
                // The straight path of the loop: nothing follows but the next read.
                self.conn.handle_ready(Flags::NONE);
                return Some(bytes.len());
            }
            self.conn.borrow_queues(&mut self.rares);
            self.decide_consumed(bytes.len(), consumed);
            self.conn.handle_left(&bytes, consumed, &mut self.chunks);
            self.settle_wishes();
            if self.conn.drains_at_once() {
                self.call_drained();
            } else {
                self.finish(false);
            }
        } else {
            self.wire(&bytes);
            self.attend();
        }
        Some(bytes.len())
    }

    /// Bytes that cannot be shown where they are.
    fn wire(&mut self, bytes: &[u8]) {
        self.conn.borrow_queues(&mut self.rares);
        if self.is(Flags::CLOSING) {
            self.model.discarded += bytes.len();
            if let Some((_, heard)) = &mut self.model.linger {
                *heard = self.now;
            }
        } else if self.is(Flags::BROKEN) && {
            self.model.last_words += bytes.len();
            self.model.last_words > self.conn.limits().input_max
        } {
            self.model.discarded += bytes.len();
        } else if self.is(Flags::FILTERED) {
            self.expect_filtered(bytes);
        } else {
            self.model.received.extend(bytes);
        }
        let tick = self.tick();
        let before = self.conn.flags();
        self.conn.handle_wire(&mut bytes.to_vec(), &mut self.chunks, tick);
        self.note_answers(before);
    }

    /// What a filter has answered by itself may be too much.
    pub(super) fn note_answers(&mut self, before: Flags) {
        if self.is(Flags::OVERFLOW) && before.none(Flags::OVERFLOW) {
            assert!(self.conn.unsent() > self.conn.limits().output_max && self.chatter > 0);
            self.model.overflowed = true;
        }
    }

    /// The clear bytes that the filter must make of these.
    pub(super) fn expect_filtered(&mut self, wire: &[u8]) {
        let Model { decoder, received, .. } = &mut self.model;
        let greeted = decoder.greeted;
        if decoder.decode(wire, received).is_err() {
            self.decide_close(CloseKind::Filter(FilterFailure::Failed));
        } else if self.model.decoder.greeted && !greeted {
            self.model.active = self.now;
            self.model.progress = self.now;
        }
    }

    fn fin(&mut self) {
        let flags = self.conn.flags();
        let cut = flags.any(Flags::FILTERED)
            && flags.none(Flags::PEER_FIN | Flags::CLOSING)
            && !self.model.decoder.ended;
        if cut {
            self.decide_break(CloseKind::Filter(FilterFailure::Truncated));
        }
        self.conn.handle_fin();
    }

    /// Everything but reading.
    pub(in super::super) fn attend(&mut self) {
        if self.reason.is_some() {
            return;
        }
        if self.is(Flags::ENDED) {
            // What a read has ended is finished first.
            let first = !self.is(Flags::COUNTED_OUT);
            return if first { self.finish(false) } else { self.tell_closed() };
        }
        if self.is(Flags::CONNECTING) {
            self.complete_connect();
        } else if self.is(Flags::FAULTY) {
            self.conn.handle_fault_seen();
            if self.is(Flags::PAUSED | Flags::HELD | Flags::PEER_FIN) {
                if let Some(error) = self.kernel.take_error() {
                    self.decide_break(CloseKind::Reset);
                    self.conn.handle_write_failed(error, &mut self.chunks);
                }
            }
        }
        if self.conn.has_output() {
            self.flush();
        }
        self.call_due();
        self.finish(false);
    }

    fn complete_connect(&mut self) {
        if !self.is(Flags::WRITABLE | Flags::FAULTY) {
            return;
        }
        if let Some(error) = self.kernel.take_error() {
            let refused = CloseKind::Connect(ConnectFailure::Refused);
            self.model.kind = Some(refused);
            return self.conn.end(By::Peer, refused, Some(Cause::new(error)));
        }
        let tick = self.tick();
        self.conn.handle_connected(tick);
        self.model.active = self.now;
        self.model.progress = self.now;
    }

    /// The callbacks that are due.
    pub(in super::super) fn call_due(&mut self) {
        let mut round = Round::default();
        while let Some(due) = self.conn.poll_due(&mut round) {
            self.call(match due {
                Due::Opened => Callback::Opened,
                Due::Stopping => Callback::Stopping,
                Due::Drained => Callback::Drained,
                Due::Notified(_) => Callback::Notified,
                Due::Data => Callback::Data,
                Due::Eof => Callback::Eof,
            });
        }
    }

    fn call_drained(&mut self) {
        if self.conn.poll_drained() {
            self.call(Callback::Drained);
        } else {
            self.finish(false);
        }
    }

    fn call(&mut self, callback: Callback) {
        match callback {
            Callback::Data => {
                let unread = self.conn.lend_unread();
                let consumed = self.call_with_input(callback, unread.as_slice());
                self.send_own(callback);
                self.decide_consumed(unread.len(), consumed);
                self.conn.handle_unread_shown(unread, consumed, &mut self.chunks);
            }
            Callback::Eof => {
                let unread = self.conn.lend_unread();
                let consumed = self.call_with_input(callback, unread.as_slice());
                self.send_own(callback);
                let replaced = self.model.next.is_some();
                if replaced {
                    let consumed = Consumed { need: 0, ..consumed };
                    self.decide_consumed(unread.len(), consumed);
                    self.conn.handle_unread_shown(unread, consumed, &mut self.chunks);
                } else {
                    self.model.consumed += consumed.left;
                    self.model.discarded += consumed.left;
                    self.conn.handle_eof_shown(unread, consumed, &mut self.chunks);
                }
            }
            _ => {
                if callback == Callback::Drained {
                    assert!(self.conn.unsent() <= self.conn.limits().low_mark);
                }
                self.run(callback, &[]);
                self.send_own(callback);
            }
        }
        if callback == Callback::Stopping {
            self.finish(true);
        }
        self.settle_wishes();
        self.finish(false);
    }
}
