//! Drawing choices: from the seed, or from a record.

use std::collections::BTreeSet;

use super::streams::{Kind, Name, Owner, Streams};
use crate::random::Random;

/// The source of all choices of a run.
#[derive(Debug)]
pub(in crate::sim) struct Tape {
    seed: u64,
    /// Choices that replace the seed's.
    given: Option<Streams>,
    /// The record of what has been drawn, if there is one.
    drawn: Option<Streams>,
    /// Keys given out, and where they are.
    keys: u32,
    keys_at: BTreeSet<(Name, usize)>,
}

/// A source of faults drawn one after another: a stream of each kind.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Source {
    owner: Owner,
    drawn: [u32; Kind::FAULTS.len() + 1],
}

impl Source {
    pub(in crate::sim) fn new(owner: Owner) -> Source {
        Source { owner: owner.of_key(), drawn: [0; Kind::FAULTS.len() + 1] }
    }

    /// The key of the connection whose end it is.
    pub(in crate::sim) fn key(&self) -> u32 {
        match self.owner {
            Owner::Connecting(key) | Owner::Accepted(key) => key,
            _ => 0,
        }
    }
}

impl Tape {
    /// The choices of `seed`.
    pub(in crate::sim) fn new(seed: u64) -> Tape {
        Tape { seed, given: None, drawn: None, keys: 0, keys_at: BTreeSet::new() }
    }

    /// The choices of `seed`, recorded.
    pub(in crate::sim) fn recording(seed: u64) -> Tape {
        Tape { drawn: Some(Streams::default()), ..Tape::new(seed) }
    }

    /// The given choices, and 0 where there is none; what is drawn is recorded.
    pub(in crate::sim) fn replaying(seed: u64, given: Streams) -> Tape {
        Tape { given: Some(given), ..Tape::recording(seed) }
    }

    pub(in crate::sim) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the run is recorded.
    pub(in crate::sim) fn records(&self) -> bool {
        self.drawn.is_some()
    }

    /// What was drawn. Of the given choices it has only those that were used.
    pub(in crate::sim) fn drawn(&self) -> Streams {
        self.drawn.clone().unwrap_or_default()
    }

    /// Where keys were drawn.
    pub(in crate::sim) fn keys_at(&self) -> BTreeSet<(Name, usize)> {
        self.keys_at.clone()
    }

    /// The choice with this number in its stream: what `fresh` makes of chance, at most `most`.
    pub(super) fn draw(
        &mut self,
        owner: Owner,
        kind: Kind,
        index: usize,
        most: u64,
        fresh: impl FnOnce(&mut Random) -> u64,
    ) -> u64 {
        let owner = owner.of_key();
        let value = match &self.given {
            _ if owner == Owner::Nobody => 0,
            Some(given) => given.get((owner, kind)).get(index).copied().unwrap_or(0).min(most),
            None => fresh(&mut self.chance(owner, kind, index)),
        };
        if let Some(drawn) = &mut self.drawn {
            drawn.set((owner, kind), index, value);
        }
        value
    }

    /// A key that no other stream has; 0, the key of no owner, where none is given.
    pub(super) fn draw_key(&mut self, owner: Owner, kind: Kind, index: usize) -> u32 {
        self.keys += 1;
        let next = u64::from(self.keys);
        if self.records() {
            self.keys_at.insert(((owner.of_key(), kind), index));
        }
        self.draw(owner, kind, index, u64::from(u32::MAX), |_| next) as u32
    }

    /// The key of a connection that the driver has begun.
    pub(in crate::sim) fn connect_key(&mut self, source: &mut Source) -> u32 {
        let index = source.next(Kind::Choice);
        self.draw_key(source.owner, Kind::Choice, index)
    }

    /// A fault that happens in `of_thousand` cases of a thousand, in one of `ways`: which one.
    pub(in crate::sim) fn fault(
        &mut self,
        source: &mut Source,
        kind: Kind,
        of_thousand: u32,
        ways: u64,
    ) -> Option<u64> {
        if of_thousand == 0 || ways == 0 {
            return None;
        }
        let index = source.next(kind);
        let drawn = self.draw(source.owner, kind, index, ways, |random| {
            if random.chance(of_thousand) { 1 + random.below(ways) } else { 0 }
        });
        drawn.checked_sub(1)
    }

    /// Chance for one choice. It depends on nothing that was drawn elsewhere.
    fn chance(&self, owner: Owner, kind: Kind, index: usize) -> Random {
        let (family, key) = match owner {
            Owner::Nobody => (0, 0),
            Owner::Scenario => (1, 0),
            Owner::Network => (2, 0),
            Owner::Fork(key) => (3, key),
            Owner::Connecting(key) => (4, key),
            Owner::Accepted(key) => (5, key),
            Owner::Bound(key) => (6, key),
        };
        // Four bits were enough for the kinds once; streams of those stay what they are.
        let (low, high) = (kind as u64 & 15, kind as u64 >> 4);
        let stream = high << 40 | u64::from(key) << 8 | family << 4 | low;
        let stream = Random::new(self.seed ^ Random::new(stream).next()).next();
        Random::new(Random::new(stream ^ index as u64).next())
    }
}

impl Source {
    fn next(&mut self, kind: Kind) -> usize {
        let drawn = &mut self.drawn[kind as usize];
        *drawn += 1;
        *drawn as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::Choices;
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn root(tape: Tape) -> (Choices, Rc<RefCell<Tape>>) {
        let tape = Rc::new(RefCell::new(tape));
        (Choices::root(&tape), tape)
    }

    fn draws(choices: &Choices) -> (u64, usize, bool, char, u64) {
        let fork = choices.fork();
        let word = choices.pick(&['a', 'b', 'c']);
        (choices.below(100), fork.within(5..50), fork.chance(500), word, choices.below(1 << 40))
    }

    #[test]
    fn what_was_drawn_from_a_seed_is_drawn_again_from_what_was_written_down() {
        for seed in 0..50 {
            let (fresh, recorded) = (root(Tape::new(seed)), root(Tape::recording(seed)));
            assert!(!fresh.1.borrow().records() && recorded.1.borrow().records());
            let expected = [draws(&fresh.0), draws(&fresh.0)];
            assert_eq!([draws(&recorded.0), draws(&recorded.0)], expected);
            let written = recorded.1.borrow().drawn();
            let again = root(Tape::replaying(seed, written.clone()));
            assert_eq!([draws(&again.0), draws(&again.0)], expected);
            assert_eq!(again.1.borrow().drawn(), written);
        }
    }

    #[test]
    fn without_anything_given_every_choice_is_the_first() {
        let (choices, tape) = root(Tape::replaying(7, Streams::default()));
        assert_eq!(draws(&choices), (0, 5, false, 'a', 0));
        assert_eq!(tape.borrow().drawn(), Streams::default());
        let mut source = Source::new(Owner::Connecting(3));
        assert_eq!(tape.borrow_mut().fault(&mut source, Kind::Cuts, 1000, 9), None);
    }

    #[test]
    fn a_choice_beyond_what_there_is_becomes_the_last() {
        let mut given = Streams::default();
        given.put((Owner::Scenario, Kind::Choice), vec![50, 50, 50]);
        let (choices, tape) = root(Tape::replaying(7, given));
        assert_eq!((choices.below(10), choices.chance(1), choices.pick(&[1, 2])), (9, true, 2));
        assert_eq!(tape.borrow().drawn().get((Owner::Scenario, Kind::Choice)), [9, 1, 1]);
    }

    #[test]
    fn a_fork_draws_without_moving_what_others_draw() {
        let (busy, _) = root(Tape::new(5));
        let (calm, _) = root(Tape::new(5));
        let (fork, _) = (busy.fork(), calm.fork());
        assert!((0..100).map(|_| fork.below(10)).all(|drawn| drawn < 10));
        assert_eq!(busy.below(1 << 40), calm.below(1 << 40));
        // A clone draws from the same stream.
        let clone = busy.clone();
        assert_eq!(clone.below(1 << 40), calm.below(1 << 40));
        assert_eq!(busy.below(1 << 40), calm.below(1 << 40));
        assert_ne!(busy.fork().below(1 << 40), busy.fork().below(1 << 40));
    }

    #[test]
    fn faults_happen_as_often_as_they_are_to() {
        let mut tape = Tape::new(1);
        let mut source = Source::new(Owner::Network);
        let mut count = |of: u32, ways: u64| {
            let drawn = (0..2_000).filter_map(|_| tape.fault(&mut source, Kind::Cuts, of, ways));
            drawn.inspect(|way| assert!(*way < ways)).count()
        };
        assert_eq!((count(0, 5), count(1000, 0), count(1000, 5)), (0, 0, 2_000));
        let some = count(250, 5);
        assert!((400..600).contains(&some), "{some}");
    }

    #[test]
    fn nobody_has_no_faults() {
        let mut tape = Tape::new(1);
        let mut source = Source::new(Owner::Accepted(0));
        assert_eq!(tape.fault(&mut source, Kind::Resets, 1000, 1), None);
        assert_eq!(source.key(), 0);
    }
}
