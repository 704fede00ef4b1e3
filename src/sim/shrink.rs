//! Makes a failure small: the same failure with fewer choices and smaller ones, found by trying.
//!
//! The choices of the failing run are recorded. Then some are left out or lowered, and the scenario
//! runs with the rest. A candidate that fails at the same place, and in which less happens, becomes
//! the best one. A choice of 0 stands for the first alternative, and for a fault that does not
//! happen.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Sim;
use super::choices::{Kind, Name, Owner, Streams, Tape};
use super::log::Counts;
use super::quiet::{Failure, Quiet};
use super::real::real_now;
use crate::limits::DriverLimits;

/// Milliseconds that another thread has between its post and its wake-up, in a candidate.
const GRACE: u32 = 20;
/// Spans of at least this length are deleted first.
const LONG: usize = 4;
/// When a failure has more than this many events, other seeds may fail with fewer: at each of these
/// numbers, `OTHER_SEEDS` of them are tried.
const MANY: [usize; 3] = [200, 1_000, 5_000];
const OTHER_SEEDS: usize = 30;

/// A run that failed.
pub(super) struct Failed {
    pub(super) seed: u64,
    pub(super) failure: Failure,
    pub(super) streams: Streams,
    pub(super) counts: Counts,
    pub(super) events: Vec<String>,
    pub(super) connections: Vec<String>,
    pub(super) now: Duration,
    /// Where keys stand among the choices: lowering one makes nothing smaller.
    keys: BTreeSet<(Name, usize)>,
    calls: u64,
}

/// Smaller is better: first in events.
type Cost = (Counts, (usize, usize, u64));

impl Failed {
    fn cost(&self) -> Cost {
        (self.counts, self.streams.size())
    }
}

/// The result, and its cost.
pub(super) struct Reduced {
    pub(super) failed: Failed,
    pub(super) runs: u32,
    pub(super) took: Duration,
    /// Events of the original run.
    pub(super) before: usize,
}

/// Reduces the failure of the first of `seeds` for at most `time`; None if it does not fail again.
pub(super) fn shrink(
    seeds: Range<u64>,
    scenario: &mut dyn FnMut(&mut Sim),
    time: Duration,
) -> Option<Reduced> {
    let quiet = Quiet::begin();
    let began = real_now();
    let best = run(&quiet, Tape::recording(seeds.start), None, scenario)?;
    let before = best.counts.events;
    let (until, tried) = (began.checked_add(time)?, BTreeSet::new());
    let mut search = Search { scenario, quiet, until, best, runs: 1, tried };
    search.look_at_other_seeds(seeds);
    search.reduce();
    let Search { best, runs, .. } = search;
    let took = real_now().saturating_duration_since(began);
    Some(Reduced { failed: best, runs, took, before })
}

/// Runs the scenario with at most so many events and calls; None if it does not fail.
fn run(
    quiet: &Quiet,
    tape: Tape,
    most: Option<(usize, u64)>,
    scenario: &mut dyn FnMut(&mut Sim),
) -> Option<Failed> {
    let mut sim = Sim::build(tape, DriverLimits::default());
    sim.grace = GRACE;
    if let Some((events, calls)) = most {
        let mut network = sim.network.borrow_mut();
        network.calls_left = Some(calls);
        if let Some(log) = &mut network.log {
            log.most = Some(events);
        }
    }
    let result = quiet.run(|| scenario(&mut sim));
    let failed = result.err().and_then(|failure| {
        let network = sim.network.borrow();
        let log = network.log.as_ref()?;
        let tape = network.tape.borrow();
        Some(Failed {
            seed: tape.seed(),
            failure,
            streams: tape.drawn(),
            counts: log.counts(),
            events: log.lines(),
            connections: sim.connection_lines(),
            now: sim.now(),
            keys: tape.keys_at(),
            calls: network.calls_made(),
        })
    });
    // The values dropped are the user's.
    let dropped = quiet.run(|| drop(sim));
    failed.filter(|_| dropped.is_ok())
}

struct Search<'a> {
    scenario: &'a mut dyn FnMut(&mut Sim),
    quiet: Quiet,
    until: Instant,
    best: Failed,
    runs: u32,
    /// Candidates that were run.
    tried: BTreeSet<Streams>,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        real_now() >= self.until
    }

    /// Runs a candidate, and keeps it if it is the same failure with less in it.
    fn attempt(&mut self, candidate: Streams) -> bool {
        if candidate == self.best.streams || self.is_over() || !self.tried.insert(candidate.clone())
        {
            return false;
        }
        let tape = Tape::replaying(self.best.seed, candidate);
        self.keep_if_better(tape, self.best.counts.events)
    }

    fn keep_if_better(&mut self, tape: Tape, events: usize) -> bool {
        self.runs += 1;
        let most = (events, 2 * self.best.calls + 1_000);
        let failed = run(&self.quiet, tape, Some(most), self.scenario);
        let better = |failed: &Failed| {
            failed.failure.place == self.best.failure.place && failed.cost() < self.best.cost()
        };
        match failed.filter(better) {
            Some(failed) => {
                self.tried.insert(failed.streams.clone());
                self.best = failed;
                true
            }
            None => false,
        }
    }

    /// When much happens, another seed may show the same failure with less.
    fn look_at_other_seeds(&mut self, seeds: Range<u64>) {
        for most in MANY {
            for seed in seeds.clone().skip(1).take(OTHER_SEEDS) {
                if self.is_over() || self.best.counts.events <= most {
                    return;
                }
                self.keep_if_better(Tape::recording(seed), most);
            }
        }
    }

    fn reduce(&mut self) {
        loop {
            let before = self.best.cost();
            self.drop_kinds_of_faults();
            let root = (Owner::Scenario, Kind::Choice);
            self.truncate(root);
            self.zero_quarters(root);
            self.each_stream(Self::drop_stream);
            self.each_stream(|search, name| search.delete_spans(name, LONG));
            self.drop_faults_of_owners();
            self.each_stream(|search, name| search.delete_spans(name, 1));
            self.each_stream(|search, name| {
                search.zero_span(name, 0, search.best.streams.get(name).len());
            });
            self.each_stream(Self::lower);
            if self.best.cost() == before || self.is_over() {
                return;
            }
        }
    }

    /// Makes long spans of choices 0, before anything is tried in detail.
    fn zero_quarters(&mut self, name: Name) {
        for parts in [2, 4, 8] {
            for part in (0..parts).rev() {
                let mut values = self.best.streams.get(name).to_vec();
                let (start, end) = (values.len() * part / parts, values.len() * (part + 1) / parts);
                values[start..end].fill(0);
                self.attempt_with(name, values);
            }
        }
    }

    /// The streams that exist now: first what the scenario draws, and the longest of those first.
    fn each_stream(&mut self, mut pass: impl FnMut(&mut Self, Name)) {
        let mut names = self.best.streams.names();
        names.sort_by_key(|name| {
            let length = self.best.streams.get(*name).len();
            (name.1, name.0 != Owner::Scenario, std::cmp::Reverse(length))
        });
        for name in names {
            if !self.best.streams.get(name).is_empty() && !self.is_over() {
                pass(self, name);
            }
        }
    }

    fn drop_kinds_of_faults(&mut self) {
        let candidate = self.best.streams.without(|(_, kind)| kind != Kind::Choice);
        if !self.attempt(candidate) {
            for fault in Kind::FAULTS {
                let candidate = self.best.streams.without(|(_, kind)| kind == fault);
                self.attempt(candidate);
            }
        }
    }

    fn drop_faults_of_owners(&mut self) {
        let owners: BTreeSet<Owner> =
            self.best.streams.names().into_iter().map(|(owner, _)| owner).collect();
        for faulty in owners {
            let gone = |(owner, kind): Name| owner == faulty && kind != Kind::Choice;
            let candidate = self.best.streams.without(gone);
            self.attempt(candidate);
        }
    }

    fn drop_stream(&mut self, name: Name) {
        let candidate = self.best.streams.without(|other| other == name);
        self.attempt(candidate);
    }

    fn attempt_with(&mut self, name: Name, values: Vec<u64>) -> bool {
        let mut candidate = self.best.streams.clone();
        candidate.put(name, values);
        self.attempt(candidate)
    }

    /// Deletes spans, long ones first and from the end, so that the following ones move up.
    fn delete_spans(&mut self, name: Name, shortest: usize) {
        self.truncate(name);
        let mut size = self.best.streams.get(name).len() / 2;
        while size >= shortest.max(1) && !self.is_over() {
            let mut end = self.best.streams.get(name).len();
            while end >= size {
                let start = end - size;
                let mut values = self.best.streams.get(name).to_vec();
                values.drain(start..end);
                let deleted = self.attempt_with(name, values);
                // Where a span of several choices begins, none of them shows.
                let step = if deleted || size > LONG { size } else { 1 };
                end = end.saturating_sub(step).min(self.best.streams.get(name).len());
            }
            size = if size > LONG { size / 2 } else { size - 1 };
        }
    }

    /// Leaves out the end of a stream, as much as possible.
    fn truncate(&mut self, name: Name) {
        let (mut fails, mut whole) = (0, self.best.streams.get(name).len());
        if self.attempt_with(name, Vec::new()) {
            return;
        }
        while fails + 1 < whole && !self.is_over() {
            let half = (fails + whole) / 2;
            let values = self.best.streams.get(name);
            let values = values[..half.min(values.len())].to_vec();
            if self.attempt_with(name, values) {
                whole = half.min(self.best.streams.get(name).len());
            } else {
                fails = half;
            }
        }
    }

    /// Makes every choice of a span 0, or of its halves.
    fn zero_span(&mut self, name: Name, start: usize, end: usize) {
        let mut values = self.best.streams.get(name).to_vec();
        let end = end.min(values.len());
        if start >= end || values[start..end].iter().all(|value| *value == 0) {
            return;
        }
        values[start..end].fill(0);
        if !self.attempt_with(name, values) && end - start > 1 && !self.is_over() {
            let middle = (start + end) / 2;
            self.zero_span(name, middle, end);
            self.zero_span(name, start, middle);
        }
    }

    /// Lowers each choice as far as the failure allows.
    fn lower(&mut self, name: Name) {
        let mut index = 0;
        while let Some(&value) = self.best.streams.get(name).get(index) {
            if value > 1 && !self.best.keys.contains(&(name, index)) {
                self.lower_one(name, index, value);
            }
            index += 1;
        }
    }

    fn lower_one(&mut self, name: Name, index: usize, value: u64) {
        let (mut fails, mut holds) = (0, value);
        while fails + 1 < holds && !self.is_over() {
            let middle = fails + (holds - fails) / 2;
            let mut values = self.best.streams.get(name).to_vec();
            let Some(place) = values.get_mut(index) else { return };
            *place = middle;
            if self.attempt_with(name, values) {
                holds = middle;
            } else {
                fails = middle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Context, Input, Outcome, Protocol};
    use crate::sim::Faults;

    const TIME: Duration = Duration::from_secs(20);

    /// The first seed that fails, reduced.
    fn reduced(scenario: &mut dyn FnMut(&mut Sim)) -> Reduced {
        let found = (0..500).find_map(|seed| shrink(seed..seed + 1, scenario, TIME));
        let reduced = found.expect("a seed fails");
        assert!(reduced.took < TIME, "{:?}", reduced.took);
        reduced
    }

    #[test]
    fn a_number_is_lowered_to_the_least_that_fails() {
        let reduced = reduced(&mut |sim| {
            let number = sim.choices().below(100_000);
            assert!(number < 1_037, "{number} is too much");
        });
        assert_eq!(reduced.failed.failure.message, "1037 is too much");
        assert!(reduced.failed.failure.place.starts_with("src/sim/shrink.rs:"));
    }

    #[test]
    fn of_a_list_only_what_matters_is_left() {
        let reduced = reduced(&mut |sim| {
            let choices = sim.choices();
            let mut list = Vec::new();
            while list.len() < 50 && choices.chance(950) {
                let own = choices.fork();
                list.push((own.below(3), own.below(100), own.chance(500)));
            }
            let bad = list.iter().filter(|(kind, size, on)| *kind == 1 && *size > 9 && *on);
            assert!(bad.count() < 2, "{list:?}");
        });
        assert_eq!(reduced.failed.failure.message, "[(1, 10, true), (1, 10, true)]");
    }

    struct Echo;
    impl Protocol for Echo {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(input);
            input.consume_all();
            Ok(())
        }
    }

    /// Clients that send a little now and then; whether one of them was reset.
    fn has_reset(sim: &mut Sim) -> bool {
        sim.set_faults(Faults::harsh());
        sim.listen("127.0.0.1:1", |_| Some(Echo)).unwrap();
        let choices = sim.choices();
        let mut clients = Vec::new();
        while clients.len() < 9 && choices.chance(850) {
            clients.push(sim.dial("127.0.0.1:1"));
        }
        while !clients.is_empty() && choices.chance(900) {
            let sent = vec![b'x'; choices.within(1..2_000)];
            choices.pick(&clients.iter().collect::<Vec<_>>()).send(&sent);
            sim.run_for(Duration::from_micros(choices.below(10_000))).unwrap();
        }
        sim.run_for(Duration::from_secs(1)).unwrap();
        clients.iter().any(|client| client.is_reset())
    }

    #[test]
    fn of_faults_bytes_and_connections_only_what_matters_is_left() {
        let reduced = reduced(&mut |sim| assert!(!has_reset(sim), "reset"));
        let Counts { events, connections, faults, bytes } = reduced.failed.counts;
        // It connects, its one byte comes, and the answer ends in the reset of the network.
        assert_eq!((connections, faults, bytes), (1, 1, 2), "{:#?}", reduced.failed.events);
        assert!(events <= 5 && reduced.before > 20, "{events} of {}", reduced.before);
    }

    #[test]
    fn what_was_reduced_fails_the_same_way_again_and_from_its_text() {
        let mut scenario = |sim: &mut Sim| assert!(!has_reset(sim), "reset");
        let first = reduced(&mut scenario).failed;
        let text = first.streams.write(first.seed);
        let (seed, streams) = Streams::read(&text).unwrap();
        let quiet = Quiet::begin();
        let again = run(&quiet, Tape::replaying(seed, streams), None, &mut scenario).unwrap();
        assert_eq!((again.failure, again.events), (first.failure, first.events));
        assert_eq!((again.streams, again.connections), (first.streams, first.connections));
    }

    #[test]
    fn a_run_that_does_not_fail_again_is_not_reduced() {
        let mut failures = 1;
        let mut flaky = |_: &mut Sim| {
            failures -= 1;
            assert!(failures < 0, "once");
        };
        assert!(shrink(0..1, &mut flaky, TIME).is_some());
        assert!(shrink(0..1, &mut flaky, TIME).is_none());
    }

    #[test]
    fn another_failure_does_not_take_the_place_of_the_first() {
        let reduced = reduced(&mut |sim| {
            let choices = sim.choices();
            let (first, second) = (choices.below(1_000), choices.below(1_000));
            assert!(first > 3, "an artefact of less");
            assert!(second < 500, "{first}, {second}");
        });
        assert_eq!(reduced.failed.failure.message, "4, 500");
    }

    #[test]
    fn candidates_without_an_end_are_given_up() {
        let reduced = reduced(&mut |sim| {
            let choices = sim.choices();
            let number = choices.below(1_000);
            loop {
                if number >= 20 {
                    break;
                }
                sim.turn(Some(Duration::from_millis(1))).unwrap();
            }
            assert!(number < 300, "{number}");
        });
        assert_eq!(reduced.failed.failure.message, "300");
    }

    #[test]
    fn where_much_happens_another_seed_may_be_the_better_one() {
        let mut scenario = |sim: &mut Sim| {
            // Nothing of it can be left out: it is not drawn.
            let dials = if sim.seed() == 4 { 250 } else { 20 };
            for _ in 0..dials {
                sim.dial("127.0.0.1:1");
            }
            assert!(sim.seed() < 4, "{dials}");
        };
        let reduced = shrink(4..9, &mut scenario, TIME).unwrap();
        assert_eq!((reduced.before, reduced.failed.counts.events), (250, 20));
        assert_eq!(reduced.failed.seed, 5);
        let reduced = shrink(4..5, &mut scenario, TIME).unwrap();
        assert_eq!((reduced.failed.seed, reduced.failed.counts.events), (4, 250));
    }

    #[test]
    fn the_time_for_it_is_kept() {
        let mut scenario = |sim: &mut Sim| {
            std::thread::sleep(Duration::from_millis(5));
            let choices = sim.choices();
            let sum: u64 = (0..500).map(|_| choices.below(1 << 40)).sum();
            assert!(sum < 1 << 40, "{sum}");
        };
        // All of it would take 173 runs.
        let time = Duration::from_millis(300);
        let reduced = shrink(1..2, &mut scenario, time).unwrap();
        assert!(reduced.took >= time && reduced.runs > 1, "{} runs", reduced.runs);
        // One more run is begun at most.
        assert!(reduced.runs <= 61, "{} runs", reduced.runs);
        let none = shrink(1..2, &mut scenario, Duration::ZERO).unwrap();
        assert_eq!(none.runs, 1);
    }
}
