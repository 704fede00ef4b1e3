//! Turns that took long. What happens in a turn is stamped with its beginning: no message pays for
//! another look at the clock. Behind a slow callback that is long ago, and a deadline that counts
//! from there would be early.

use super::MILLISECOND;

/// Shorter ones make no difference that counts.
const LONG: u64 = 10 * MILLISECOND;
/// How many are remembered.
const COUNT: usize = 16;

/// The last long turns, each with the time of its beginning and of its end.
#[derive(Debug, Default)]
pub(super) struct LongTurns {
    last: [(u64, u64); COUNT],
    next: usize,
}

impl LongTurns {
    /// A turn is over.
    pub(super) fn note(&mut self, began: u64, ended: u64) {
        if ended.saturating_sub(began) >= LONG {
            self.last[self.next % COUNT] = (began, ended);
            self.next += 1;
        }
    }

    /// When at the latest that has happened which has this stamp.
    pub(super) fn latest(&self, stamp: u64) -> u64 {
        let ends = self.last.iter().filter(|(began, _)| *began == stamp).map(|(_, ended)| *ended);
        ends.max().map_or(stamp, |ended| ended.max(stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_stamp_of_a_long_turn_may_have_happened_at_its_end() {
        let mut turns = LongTurns::default();
        assert_eq!([turns.latest(0), turns.latest(5)], [0, 5]);
        let began = 7 * MILLISECOND;
        turns.note(began, began + LONG - 1);
        assert_eq!(turns.latest(began), began, "it was short");
        turns.note(began, began + LONG);
        assert_eq!(turns.latest(began), began + LONG);
        assert_eq!(turns.latest(began - 1), began - 1);
        // Another one began within the same millisecond, and took longer.
        turns.note(began, began + 3 * LONG);
        turns.note(began, began + 2 * LONG);
        assert_eq!(turns.latest(began), began + 3 * LONG);
    }

    #[test]
    fn sixteen_are_remembered() {
        let mut turns = LongTurns::default();
        let began = |number: u64| (1 + number) * 100 * MILLISECOND;
        for number in 0..17 {
            turns.note(began(number), began(number) + LONG);
        }
        assert_eq!(turns.latest(began(0)), began(0));
        for number in 1..17 {
            assert_eq!(turns.latest(began(number)), began(number) + LONG);
        }
    }
}
