//! Many seeds, and how to repeat the one that failed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Sim;

/// Runs `scenario` in a fresh simulator for every seed of `seeds`. When it panics, the seed is
/// printed with the way to repeat it alone and how each connection ended, and the panic goes on.
///
/// ```text
/// seed 54 failed at 1.000123s; to repeat it alone:
///     LARIAT_SEED=54 cargo test a_day_at_the_till
/// its connections:
///     c0.1 at 127.0.0.1:7000, peer 127.0.0.1:49153: finished by the peer: 12 bytes in, 12 bytes \
/// out, open for 1.0 s
/// ```
///
/// The environment variable `LARIAT_SEED` replaces the range by one seed, `LARIAT_SEEDS` by as many
/// from 0.
///
/// # Panics
///
/// When `scenario` does.
pub fn check(seeds: Range<u64>, mut scenario: impl FnMut(&mut Sim)) {
    for seed in seeds_from_env(seeds) {
        let mut sim = Sim::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(&mut sim))) {
            eprint!("{}", told(&sim));
            resume_unwind(panic);
        }
    }
}

/// What is said of a run that has failed.
fn told(sim: &Sim) -> String {
    let test = std::thread::current().name().unwrap_or("TEST").to_owned();
    let seed = sim.seed();
    let mut text = format!("seed {seed} failed at {:?}; to repeat it alone:\n", sim.now());
    text.push_str(&format!("    LARIAT_SEED={seed} cargo test {test}\n"));
    let lines = sim.connection_lines();
    text.push_str(if lines.is_empty() { "it had no connections\n" } else { "its connections:\n" });
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// The seeds to run: `default`, unless the environment variable `LARIAT_SEED` names one or
/// `LARIAT_SEEDS` a number of them.
///
/// # Panics
///
/// When the variable is no number.
pub fn seeds_from_env(default: Range<u64>) -> Range<u64> {
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| match text.parse::<u64>() {
            Ok(number) => number,
            Err(_) => panic!("{name} is not a number: {text}"),
        })
    };
    match (number("LARIAT_SEED"), number("LARIAT_SEEDS")) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(count)) => 0..count,
        (None, None) => default,
    }
}
