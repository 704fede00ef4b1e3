//! Step 6: every connection with work is served, interactive ones first.

use super::EventLoop;
use super::budget::{BULK_MAX, BULK_MIN};
use super::system::System;
use crate::connection::{Flags, Listing};
use crate::id::ConnId;

/// Budgets that a connection may read in a turn that it has to itself.
const LONE_BUDGETS: usize = 4;

impl<S: System> EventLoop<S> {
    #[inline(always)]
    pub(super) fn run_ready(&mut self, buffer: &mut [u8]) {
        // What becomes ready from now on goes behind the snapshot and waits for the next turn.
        let (snapshot, bulk) = (self.ready.len(), self.bulk.len());
        if self.shared.blame.turns > 0 {
            self.shared.blame.turns -= 1;
            self.shared.blame.note_turn(&self.shared.metrics);
            self.serve_rest(0, snapshot, buffer);
        } else {
            for at in 0..snapshot {
                let id = self.ready[at];
                if self.serve::<false>(id, buffer) && self.budget.is_spent() {
                    self.serve_rest(at + 1, snapshot, buffer);
                    break;
                }
            }
        }
        if self.ready.len() == snapshot {
            self.ready.clear();
        } else {
            self.ready.drain(..snapshot);
        }
        if !self.bulk.is_empty() {
            self.run_bulk(snapshot + bulk == 1, bulk, buffer);
        }
    }

    /// Serves the rest of the snapshot, with what is left of the turn.
    #[cold]
    #[inline(never)]
    fn serve_rest(&mut self, from: usize, to: usize, buffer: &mut [u8]) {
        for at in from..to {
            let (id, room) = (self.ready[at], self.budget.most(buffer.len()));
            self.serve::<true>(id, &mut buffer[..room]);
        }
    }

    /// Serves the connections that move much at a time and waited when the turn began, after all
    /// others: as many of them, and as many bytes, as a turn may; [`BULK_MIN`] of them even when
    /// others have spent the turn's bytes.
    #[inline(never)]
    fn run_bulk(&mut self, lone: bool, waiting: usize, buffer: &mut [u8]) {
        for served in 0..waiting.min(BULK_MAX) {
            let spent = self.budget.is_spent();
            if spent && served >= BULK_MIN {
                return;
            }
            let Some(id) = self.bulk.pop_front() else { return };
            let room = if spent { self.budget.grant() } else { self.budget.most(buffer.len()) };
            self.serve::<true>(id, &mut buffer[..room]);
        }
        if lone {
            self.serve_lone(buffer);
        }
    }

    /// A connection that is alone and has more to read goes on at once: a poll between its reads
    /// would find nothing, and would cost a bulk transfer one call in six.
    fn serve_lone(&mut self, buffer: &mut [u8]) {
        let turn = self.shared.metrics.turns;
        for _ in 1..LONE_BUDGETS {
            let (&[], Some(&id), 1) = (&self.ready[..], self.bulk.front(), self.bulk.len()) else {
                return;
            };
            match self.table.get_mut(id) {
                Some(entry)
                    if entry.conn.may_read()
                        && entry.conn.flags().none(Flags::ATTENTION)
                        && self.budget.has_room_to_answer(&entry.conn, turn)
                        && !self.budget.is_spent() =>
                {
                    self.bulk.clear();
                    let room = self.budget.most(buffer.len());
                    self.serve::<true>(id, &mut buffer[..room]);
                }
                _ => return,
            }
        }
    }

    /// Puts a connection that has work at the end of its list, once.
    pub(super) fn list(&mut self, id: ConnId) {
        if let Some(entry) = self.table.get_mut(id) {
            match entry.conn.handle_ready(Flags::NONE) {
                Listing::Ready => self.ready.push(id),
                Listing::Bulk => self.bulk.push_back(id),
                Listing::No => {}
            }
        }
    }
}
