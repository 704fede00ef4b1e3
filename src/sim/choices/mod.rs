//! Chance in a scenario: every choice of a run is drawn here, can be recorded, and repeated.

mod streams;
mod tape;
mod written;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

pub(super) use streams::{Kind, Name, Owner, Streams};
pub(super) use tape::{Source, Tape};

/// A stream of choices that the seed makes. When a scenario of [`check`](crate::sim::check) fails,
/// the choices that it drew are reduced: some are left out, others become 0, which is the first
/// alternative. So let the first alternative be the smallest, and decide repetition by asking each
/// time whether there is one more.
///
/// Clones draw from the same stream. A [`fork`](Choices::fork) has a stream of its own, so that its
/// draws do not change what others draw: use one for each client and one for each protocol.
///
/// ```
/// lariat::sim::check(0..20, |sim| {
///     let choices = sim.choices();
///     let mut clients = Vec::new();
///     while clients.len() < 5 && choices.chance(700) {
///         let own = choices.fork();
///         clients.push((own.pick(&[1, 10, 1_000]), own.chance(500), own.below(9)));
///     }
/// });
/// ```
#[derive(Clone)]
pub struct Choices {
    tape: Rc<RefCell<Tape>>,
    owner: Owner,
    drawn: Rc<Cell<usize>>,
}

impl Choices {
    pub(super) fn root(tape: &Rc<RefCell<Tape>>) -> Choices {
        Choices { tape: Rc::clone(tape), owner: Owner::Scenario, drawn: Rc::default() }
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&self, bound: u64) -> u64 {
        let index = self.next();
        let most = bound.saturating_sub(1);
        self.tape
            .borrow_mut()
            .draw(self.owner, Kind::Choice, index, most, |random| random.below(bound))
    }

    /// A number of `range`, whose start is the smallest; the start when the range is empty.
    pub fn within(&self, range: Range<usize>) -> usize {
        range.start + self.below(range.len() as u64) as usize
    }

    /// True in `of_thousand` cases of a thousand.
    pub fn chance(&self, of_thousand: u32) -> bool {
        let index = self.next();
        let drawn = self.tape.borrow_mut().draw(self.owner, Kind::Choice, index, 1, |random| {
            u64::from(random.chance(of_thousand))
        });
        drawn == 1
    }

    /// One of `from`.
    ///
    /// # Panics
    ///
    /// When `from` is empty.
    pub fn pick<T: Clone>(&self, from: &[T]) -> T {
        assert!(!from.is_empty(), "there is nothing to pick from");
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// A new stream.
    pub fn fork(&self) -> Choices {
        let owner = Owner::Fork(self.new_key());
        Choices { tape: Rc::clone(&self.tape), owner, drawn: Rc::default() }
    }

    /// A key for new streams. The key is itself a choice, so that a stream goes with the place
    /// where it was made.
    pub(super) fn new_key(&self) -> u32 {
        let index = self.next();
        self.tape.borrow_mut().draw_key(self.owner, Kind::Choice, index)
    }

    fn next(&self) -> usize {
        self.drawn.replace(self.drawn.get() + 1)
    }
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let drawn = self.drawn.get();
        f.debug_struct("Choices").field("of", &self.owner).field("drawn", &drawn).finish()
    }
}
