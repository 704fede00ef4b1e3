//! How much moves between two polls.

use crate::connection::{BULK, Connection};
use crate::id::ConnId;

/// Bytes that move in one turn, in and out, for connections that move much at a time.
const TURN_BYTES: usize = 2 * 1024 * 1024;
/// Connections of that kind that one turn serves at most.
pub(super) const BULK_MAX: usize = 64;
/// Connections of that kind that one turn serves even if others have spent it: new connections that
/// each ask for much once would starve them otherwise.
pub(super) const BULK_MIN: usize = 8;
/// The bytes that one step of a handshake counts as: they take about as long.
const HANDSHAKE: usize = 128 * 1024;
/// The bytes that a due callback counts as: `opened`, `drained`, each note, input that is shown
/// again. The `data` of a plain read is none of them.
const CALLBACK: usize = 1024;
/// Bytes that one connection reads at most with one call, and that one datagram socket receives in
/// one turn.
pub(super) const SHARE: usize = 256 * 1024;

/// The rest of a turn's bytes.
///
/// Everything that moves [`BULK`] bytes or more at a time is charged, in any list, and so are each
/// step of a handshake and each due callback. A connection that is served when nothing is left may
/// still move [`BULK`] bytes: so the interactive ones are served in every turn.
pub(super) struct Budget {
    left: usize,
    /// The connection that has sent last, in which turn, and how much it has sent there since
    /// another one did.
    sender: (ConnId, u64),
    sent: usize,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { left: TURN_BYTES, sender: (ConnId::PLACEHOLDER, 0), sent: 0 }
    }

    /// A turn begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.left = TURN_BYTES;
    }

    pub(super) fn charge(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    pub(super) fn charge_handshake(&mut self) {
        self.charge(HANDSHAKE);
    }

    pub(super) fn charge_callback(&mut self) {
        self.charge(CALLBACK);
    }

    pub(super) fn charge_datagram(&mut self, bytes: usize) {
        self.charge(bytes.max(CALLBACK));
    }

    /// All is spent, and one connection may move some bytes in and as many out all the same: how
    /// many.
    pub(super) fn grant(&mut self) -> usize {
        self.left = 2 * BULK;
        BULK
    }

    #[inline(always)]
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// What `id` has sent in this turn, to be added to. Serving one connection takes several steps,
    /// and what they send is bounded together.
    pub(super) fn sent_by(&mut self, id: ConnId, turn: u64) -> &mut usize {
        if self.sender != (id, turn) {
            self.sender = (id, turn);
            self.sent = 0;
        }
        &mut self.sent
    }

    /// Whether an answer that leaves whole fits into what is left of the connection's own budget.
    pub(super) fn has_room_to_answer(&mut self, conn: &Connection, turn: u64) -> bool {
        let (limits, sent) = (conn.limits(), *self.sent_by(conn.id(), turn));
        sent <= limits.write_budget.saturating_sub(limits.high_mark)
    }

    /// How many of `wanted` bytes one connection may move now.
    pub(super) fn most(&self, wanted: usize) -> usize {
        wanted.min(self.left.max(BULK))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::id::Ids;
    use crate::limits::Limits;

    #[test]
    fn a_turn_moves_2_mib_and_then_16_kib_for_each_connection() {
        let mut budget = Budget::new();
        assert_eq!(budget.most(usize::MAX), 2_097_152);
        budget.charge(2_097_151);
        assert!(!budget.is_spent());
        assert_eq!((budget.most(usize::MAX), budget.most(7)), (16_384, 7));
        budget.charge(1);
        assert!(budget.is_spent());
        budget.charge(usize::MAX);
        assert_eq!(budget.most(usize::MAX), 16_384);
        assert_eq!(budget.grant(), 16_384);
        budget.charge(16_384);
        assert!(!budget.is_spent());
        assert_eq!(budget.most(usize::MAX), 16_384);
        budget.charge(16_384);
        assert!(budget.is_spent());
        budget.begin();
        assert_eq!(budget.most(usize::MAX), 2_097_152);
    }

    #[test]
    fn a_connection_has_room_to_answer_while_an_answer_of_its_high_mark_fits() {
        let limits = Limits { write_budget: 100, high_mark: 30, low_mark: 10, ..Limits::default() };
        let mut ids = Ids::default();
        let [one, other] = [(); 2].map(|()| {
            let limits = Arc::new(limits.clone());
            Connection::accepted(ids.reserve(), None, Endpoint::Other, limits, 0)
        });
        let mut budget = Budget::new();
        for (sent, room) in [(0, true), (69, true), (1, true), (1, false)] {
            *budget.sent_by(one.id(), 7) += sent;
            assert_eq!(budget.has_room_to_answer(&one, 7), room, "{sent} more");
        }
        assert!(budget.has_room_to_answer(&one, 8), "in the next turn");
        *budget.sent_by(one.id(), 8) += 71;
        assert!(budget.has_room_to_answer(&other, 8), "another one");
        // Where no answer fits, the first one goes.
        let small = Limits { write_budget: 10, ..limits };
        let conn = Connection::accepted(ids.reserve(), None, Endpoint::Other, Arc::new(small), 0);
        assert!(budget.has_room_to_answer(&conn, 8));
        *budget.sent_by(conn.id(), 8) += 1;
        assert!(!budget.has_room_to_answer(&conn, 8));
    }

    #[test]
    fn two_thousand_and_forty_eight_callbacks_are_a_turn() {
        let mut budget = Budget::new();
        for _ in 0..2047 {
            budget.charge_callback();
        }
        assert!(!budget.is_spent());
        budget.charge_callback();
        assert!(budget.is_spent());
    }

    #[test]
    fn sixteen_handshakes_are_a_turn() {
        let mut budget = Budget::new();
        for _ in 0..15 {
            budget.charge_handshake();
        }
        assert!(!budget.is_spent());
        budget.charge_handshake();
        assert!(budget.is_spent());
    }

    #[test]
    fn a_datagram_counts_its_bytes_and_at_least_as_much_as_a_callback() {
        let mut budget = Budget::new();
        for (bytes, counts) in [(0, 1024), (1023, 1024), (1024, 1024), (1025, 1025)] {
            let before = budget.left;
            budget.charge_datagram(bytes);
            assert_eq!(before - budget.left, counts);
        }
    }
}
