//! A failure of `check` is reduced before it is printed, and can be kept as a test.

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use lariat::sim::{Choices, Faults, Sim, check, replay, seeds_from_env};
use lariat::{Context, Input, Outcome, Protocol};

use crate::planned::{failure_of, is_planned};

/// Adds up the numbers of its lines, and answers with the sum so far. The hasty one takes whatever
/// arrives for a whole line.
struct Till {
    hasty: bool,
    sum: u64,
}

impl Protocol for Till {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            self.add(cx, &input[..end])?;
            input.consume(end + 1);
        }
        if self.hasty && !input.is_empty() {
            let rest = input.split_all();
            self.add(cx, &rest)?;
        }
        Ok(())
    }
}

impl Till {
    fn add(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
        let number = if line.is_empty() { 0 } else { std::str::from_utf8(line)?.parse::<u64>()? };
        self.sum += number;
        cx.write(format!("{}\n", self.sum).as_bytes());
        Ok(())
    }
}

/// Customers come and go, and the sum that each hears is to be its own.
fn a_day(sim: &mut Sim, hasty: bool) {
    sim.set_faults(Faults::rough());
    let listener = sim.listen("127.0.0.1:7000", move |_| Some(Till { hasty, sum: 0 })).unwrap();
    let addr = sim.addresses(listener)[0];
    let choices = sim.choices();
    let mut customers = Vec::new();
    while customers.len() < 12 && choices.chance(900) {
        customers.push((sim.dial(addr), choices.fork(), 0u64));
    }
    while !customers.is_empty() && choices.chance(950) {
        let number = choices.within(0..customers.len());
        let (client, own, sum): &mut (_, Choices, _) = &mut customers[number];
        let amount = own.below(100_000);
        client.send(format!("{amount}\n").as_bytes());
        *sum += amount;
        sim.run_for(Duration::from_millis(100)).unwrap();
        let expected = format!("{sum}\n");
        assert_eq!(client.take_received(), expected.as_str(), "after {amount}");
    }
}

#[test]
#[ignore = "fails for another test"]
fn planned_hasty_day() {
    if is_planned() {
        check(0..50, |sim| a_day(sim, true));
    }
}

/// The text between the quotes of a printed `replay`.
fn kept(printed: &str) -> String {
    let from = printed.split("lariat::sim::replay(\n        \"").nth(1).expect("it is printed");
    let text = from.split("\",\n        scenario,\n    );").next().expect("it ends");
    text.replace("\\\n", " ")
}

#[test]
fn a_failure_is_reduced_and_what_is_printed_fails_again() {
    let printed = failure_of("shrinking::planned_hasty_day", &[("LARIAT_REDUCE", "60")]);
    let line = printed.lines().find(|line| line.starts_with("reduced from ")).expect(&printed);
    // The least line is a digit and its end, and one read between them takes it for two.
    assert!(line.ends_with(" runs to 5 events, 1 connection, 1 fault, 6 bytes"), "{printed}");
    assert_eq!(printed.matches("panicked at").count(), 1, "the runs between are quiet: {printed}");
    assert_eq!(printed.matches("127.0.0.1:49153 connects to 127.0.0.1:7000").count(), 1);
    assert!(printed.contains("    assertion `left == right` failed: after "), "{printed}");
    assert!(printed.contains("its connections:\n    c0.1 at 127.0.0.1:7000, peer "), "{printed}");

    let text = kept(&printed);
    assert!(text.len() < 80, "{text}");
    let again = catch_unwind(|| replay(&text, |sim| a_day(sim, true))).expect_err("it fails again");
    let message = again.downcast_ref::<String>().expect("a message");
    assert!(printed.contains(message.lines().next().expect("a line")), "{message}\n{printed}");
    // And it passes once the protocol is mended.
    replay(&text, |sim| a_day(sim, false));
}

#[test]
#[ignore = "fails for another test"]
fn planned_replay() {
    if is_planned() {
        replay("7 s=1 c1.short_reads=1", |sim| {
            let addr = "127.0.0.1:7000";
            sim.set_faults(Faults::rough());
            sim.listen(addr, |_| Some(Till { hasty: true, sum: 0 })).unwrap();
            let client = sim.dial(addr);
            client.send(b"12\n");
            sim.run().unwrap();
            panic!("here");
        });
    }
}

#[test]
fn a_replay_that_fails_prints_what_happened() {
    let printed = failure_of("shrinking::planned_replay", &[]);
    let expected = "failed at 150\u{b5}s
its events:
    0.000000 127.0.0.1:49153 connects to 127.0.0.1:7000
    0.000100 127.0.0.1:49153 -> 127.0.0.1:7000: 3 bytes
    0.000150 127.0.0.1:7000 -> 127.0.0.1:49153: 3 bytes
its connections:
    c0.1 at 127.0.0.1:7000, peer 127.0.0.1:49153: is open
";
    assert!(printed.contains(expected), "{printed}");
}

#[test]
fn a_seed_that_is_repeated_alone_and_one_without_time_are_not_reduced() {
    for (name, value) in [("LARIAT_SEED", "1"), ("LARIAT_REDUCE", "0")] {
        let printed = failure_of("shrinking::planned_hasty_day", &[(name, value)]);
        assert!(printed.contains("to repeat it alone"), "{printed}");
        assert!(!printed.contains("reduced"), "{name}: {printed}");
    }
}

#[test]
#[ignore = "fails for another test"]
fn planned_flaky() {
    if is_planned() {
        let mut runs = 0;
        check(0..50, |_| {
            runs += 1;
            assert!(runs != 3);
        });
    }
}

#[test]
fn a_run_that_chance_outside_of_the_simulator_decides_is_called_so() {
    let printed = failure_of("shrinking::planned_flaky", &[]);
    assert!(printed.contains("seed 2 failed at 0ns"), "{printed}");
    assert!(printed.contains("did not fail again: something besides the seed"), "{printed}");
}

#[test]
#[ignore = "fails for another test"]
fn planned_with_a_hook() {
    if !is_planned() {
        return;
    }
    panic::set_hook(Box::new(|info| {
        if let Some(message) = info.payload().downcast_ref::<&str>() {
            eprintln!("the hook was told: {message}");
        }
    }));
    let checked = catch_unwind(|| {
        check(0..1, |sim| {
            let number = sim.choices().below(1_000);
            let _ = thread::spawn(|| panic!("in another thread")).join();
            assert!(number > 1_000, "in the scenario");
        });
    });
    assert!(checked.is_err());
    panic!("afterwards");
}

#[test]
fn while_a_failure_is_reduced_only_panics_of_other_threads_are_shown() {
    let printed = failure_of("shrinking::planned_with_a_hook", &[]);
    let told = |what: &str| printed.matches(&format!("the hook was told: {what}")).count();
    assert_eq!((told("in the scenario"), told("afterwards")), (1, 1), "{printed}");
    assert!(told("in another thread") > 2, "{printed}");
}

#[test]
fn choices_that_cannot_be_read_are_named() {
    let unread = catch_unwind(|| replay("7 s=1 what", |_| ())).expect_err("no choices");
    let message = unread.downcast_ref::<String>().expect("a message");
    assert_eq!(message, "these choices cannot be read: `what` is no stream");
}

#[test]
fn a_replay_has_the_given_choices_and_then_the_first_ones() {
    let mut drawn = Vec::new();
    replay("7 s=3,z2,1,5 5=2 c9.cuts=1", |sim| {
        let choices = sim.choices();
        assert_eq!(sim.seed(), 7);
        drawn = vec![choices.below(10), choices.below(10), u64::from(choices.chance(999))];
        drawn.push(u64::from(choices.chance(1)));
        let fork = choices.fork();
        drawn.extend([fork.below(10), fork.below(10), choices.below(10)]);
        assert_eq!(choices.fork().within(4..9), 4);
    });
    assert_eq!(drawn, [3, 0, 0, 1, 2, 0, 0]);
}

#[test]
fn the_same_seed_draws_the_same_and_another_something_else() {
    let draw = |seed| {
        let sim = Sim::new(seed);
        let (choices, fork) = (sim.choices(), sim.choices().fork());
        let word = choices.pick(&["a", "b", "c", "d"]);
        (choices.below(1 << 40), choices.within(3..1_000), word, fork.below(1 << 40))
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let sim = Sim::new(1);
    let none = catch_unwind(AssertUnwindSafe(|| sim.choices().pick::<u8>(&[]))).unwrap_err();
    assert_eq!(none.downcast_ref::<&str>(), Some(&"there is nothing to pick from"));
}

#[test]
#[ignore = "runs for another test"]
fn planned_range_of_seeds() {
    if is_planned() {
        let seeds = seeds_from_env(3..9);
        let mut ran = Vec::new();
        check(3..9, |sim| ran.push(sim.seed()));
        assert!(ran.iter().copied().eq(seeds.clone()), "{ran:?} ran");
        panic!("the seeds {seeds:?}");
    }
}

#[test]
fn the_range_of_seeds_is_the_given_one_unless_the_environment_has_another() {
    let name = "shrinking::planned_range_of_seeds";
    for (variables, expected) in [
        (&[][..], "the seeds 3..9"),
        (&[("LARIAT_SEED", "7")], "the seeds 7..8"),
        (&[("LARIAT_SEEDS", "20")], "the seeds 0..20"),
        (&[("LARIAT_SEEDS", "20..30")], "the seeds 20..30"),
        // One seed is named to be looked at alone.
        (&[("LARIAT_SEED", "7"), ("LARIAT_SEEDS", "20")], "the seeds 7..8"),
        (&[("LARIAT_SEED", "seven")], "LARIAT_SEED is not a number: seven"),
        (&[("LARIAT_SEEDS", "20..")], "LARIAT_SEEDS is not a number: "),
        (&[("LARIAT_SEEDS", "many")], "LARIAT_SEEDS is not a number: many"),
    ] {
        let text = failure_of(name, variables);
        assert!(text.contains(expected), "{variables:?}: {text}");
    }
}
