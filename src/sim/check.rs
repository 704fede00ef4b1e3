//! Many seeds, and how to repeat the one that failed.

use std::fmt::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use super::Sim;
use super::choices::{Streams, Tape};
use super::shrink::{Reduced, shrink};
use crate::limits::DriverLimits;

/// Seconds for reducing a failure, unless `LARIAT_REDUCE` says otherwise.
const REDUCE_SECONDS: u64 = 5;
/// Columns of a line of choices.
const COLUMNS: usize = 88;

/// Runs `scenario` in a fresh simulator for every seed of `seeds`. When it panics, `check` prints
/// the seed, the command that repeats it alone, and how each connection ended. Then it reduces the
/// failure: it runs the scenario again and again with less of what was drawn from [`Sim::choices`],
/// and with fewer faults, while the scenario still fails at the same place. It prints the smallest
/// failure and its events as a test of [`replay`], to keep, and the panic goes on.
///
/// ```text
/// seed 54 failed at 10.0003s; to repeat it alone:
///     LARIAT_SEED=54 cargo test a_day_at_the_till
/// its connections:
///     c0.1 at 127.0.0.1:7000, peer 127.0.0.1:49153: is open
/// reduced from 63 events in 0.1 s by 40 runs to 3 events, 1 connection, 1 fault, 3 bytes
/// ```
///
/// Environment variables: `LARIAT_SEED` replaces the range by one seed, which is not reduced.
/// `LARIAT_SEEDS` replaces it by that number of seeds from 0, or by a range such as `1000..2000`,
/// so that a long check can go on where it stopped. `LARIAT_REDUCE` is the time for reducing
/// \[5 seconds\].
///
/// # Panics
///
/// When `scenario` does.
pub fn check(seeds: Range<u64>, mut scenario: impl FnMut(&mut Sim)) {
    let seeds = seeds_from_env(seeds);
    for seed in seeds.clone() {
        let mut sim = Sim::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(&mut sim))) {
            let test = thread::current().name().unwrap_or("TEST").to_owned();
            eprintln!("seed {seed} failed at {:?}; to repeat it alone:", sim.now());
            eprintln!("    LARIAT_SEED={seed} cargo test {test}");
            eprint!("{}", listed("its connections", &sim.connection_lines()));
            drop(sim);
            // A seed that is repeated alone is run to be looked at, perhaps with output of its own.
            let seconds = number_from_env("LARIAT_REDUCE").unwrap_or(REDUCE_SECONDS);
            if number_from_env("LARIAT_SEED").is_none() && seconds > 0 && !thread::panicking() {
                match shrink(seed..seeds.end, &mut scenario, Duration::from_secs(seconds)) {
                    Some(reduced) => eprint!("{}", told(&reduced)),
                    None => eprintln!("it did not fail again: something besides the seed decides"),
                }
            }
            resume_unwind(panic);
        }
    }
}

/// Runs `scenario` with the choices of a failure that [`check`] has reduced, as `check` printed
/// them. When it panics, `replay` prints the events, and the panic goes on.
///
/// ```
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         cx.write(input);
/// #         input.consume(input.len());
/// #         Ok(())
/// #     }
/// # }
/// lariat::sim::replay("54 s=3,1 c1.cuts=2", |sim| {
///     sim.set_faults(lariat::sim::Faults::rough());
///     let listener = sim.listen("127.0.0.1:7000", |_| Some(Echo)).unwrap();
///     let bytes = vec![7; 1 + sim.choices().within(0..100)];
///     let client = sim.dial(sim.addresses(listener)[0]);
///     client.send(&bytes);
///     sim.run().unwrap();
///     assert_eq!(client.take_received(), bytes);
/// });
/// ```
///
/// # Panics
///
/// When `scenario` does, and when the choices cannot be read.
pub fn replay(choices: &str, scenario: impl FnOnce(&mut Sim)) {
    let (seed, streams) = match Streams::read(choices) {
        Ok(read) => read,
        Err(error) => panic!("these choices cannot be read: {error}"),
    };
    let mut sim = Sim::build(Tape::replaying(seed, streams), DriverLimits::default());
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(&mut sim))) {
        let events = sim.network.borrow().log.as_ref().map(|log| log.lines());
        eprintln!("failed at {:?}", sim.now());
        eprint!("{}", listed("its events", &events.unwrap_or_default()));
        eprint!("{}", listed("its connections", &sim.connection_lines()));
        resume_unwind(panic);
    }
}

/// What is said of a failure that was reduced.
fn told(reduced: &Reduced) -> String {
    let Reduced { failed, runs, took, before } = reduced;
    let (seconds, counts) = (took.as_secs_f64(), failed.counts);
    let mut text = if counts.events < *before {
        format!("reduced from {before} events in {seconds:.1} s by {runs} runs to {counts}\n")
    } else {
        format!("no event could be left out of {counts}, tried in {seconds:.1} s by {runs} runs\n")
    };
    let _ = writeln!(text, "it then fails at {:?}, {}:", failed.now, failed.failure.place);
    for line in failed.failure.message.lines().take(20) {
        let _ = writeln!(text, "    {line}");
    }
    text += &listed("its events", &failed.events);
    text += &listed("its connections", &failed.connections);
    text += "to keep it as a test, with the same scenario:\n    lariat::sim::replay(\n        \"";
    text += &folded(&failed.streams.write(failed.seed));
    text += "\",\n        scenario,\n    );\n";
    text
}

fn listed(title: &str, lines: &[String]) -> String {
    let mut text = format!("{title}:{}\n", if lines.is_empty() { " none" } else { "" });
    for line in lines {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// Words as the text of a string over several lines.
fn folded(words: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words.split(' ') {
        if column > 0 && column + word.len() > COLUMNS {
            text.push_str(" \\\n         ");
            column = 0;
        } else if column > 0 {
            text.push(' ');
        }
        text.push_str(word);
        column += word.len() + 1;
    }
    text
}

/// The seeds to run: `default`, unless the environment variable `LARIAT_SEED` names one, or
/// `LARIAT_SEEDS` a number of them from 0 or a range, `1000..2000` for instance.
///
/// # Panics
///
/// When one of them is set to anything else.
pub fn seeds_from_env(default: Range<u64>) -> Range<u64> {
    if let Some(seed) = number_from_env("LARIAT_SEED") {
        return seed..seed.saturating_add(1);
    }
    match std::env::var("LARIAT_SEEDS") {
        Ok(text) => match text.split_once("..") {
            Some((start, end)) => number("LARIAT_SEEDS", start)..number("LARIAT_SEEDS", end),
            None => 0..number("LARIAT_SEEDS", &text),
        },
        Err(_) => default,
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| number(name, &text))
}

fn number(name: &str, text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}
