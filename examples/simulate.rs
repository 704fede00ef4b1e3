//! A protocol with a bug, how the simulator finds it, and its repair. Read it from top to bottom.
//!
//! It shows how a protocol is tested without a network: a test that finds nothing, as one over
//! loopback would; `every_split`, which needs no seed; a network with faults, where some seed finds
//! the bug; and how that seed is had again. (In a test, `sim::check` does the last, and reduces
//! what it has found.) Time in the simulator is virtual: the 1,133 connections of parts 1, 3 and 4,
//! open for up to 10 s each, take less than 0.2 s.
//!
//! ```text
//! $ cargo run --example simulate
//! 1. The hasty till on a network without faults, as over loopback:
//!    100 days pass: nothing to see
//! 2. One input of it, cut in every way (every_split):
//!    the answer depends on how the input is cut (byte by byte: [1, 2, 3, 4, 5, 6])
//!     whole: finished, "5\n1205\n" before FIN, "" after it
//!       cut: finished, "5\n6\n8\n8\n8\n" before FIN, "" after it
//! 3. The days of 1, where one read in 200 returns less than there is:
//!    seed 31 finds it: the till has 29654, 3051 comes, and it answers "29959\n29960\n"
//!    to repeat it: LARIAT_SEED=31 cargo run --example simulate
//! 4. The patient till, cut in every way, and on rough networks:
//!    every_split: passes
//!    1000 of 1000 seeds pass
//! ```
//!
//! It exits with 0 if the bug was found both ways and the repaired protocol passes, else with 1:
//! `LARIAT_SEED=5` names a seed that does not find it.

use std::error::Error;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Duration;

use lariat::sim::{Faults, Sim, every_split, seeds_from_env};
use lariat::{Context, Input, Outcome, Protocol};

// ---- the protocol -------------------------------------------------------------------------------
//
// A till. Each line is an amount; the answer to each is the sum so far.
//
//     client: 5       till: 5
//     client: 1200    till: 1205

/// What a till does with a line. This part is right.
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
        let line = std::str::from_utf8(line)?;
        let sum = self.0.checked_add(line.parse()?).ok_or("the till is full")?;
        self.0 = sum;
        cx.write(format!("{sum}\n").as_bytes());
        Ok(())
    }
}

/// The bug is in how lines are found: it takes whatever has arrived for whole lines. A stream has
/// bytes, no lines; `1200` may come as `12` and `00`.
#[derive(Default)]
struct Hasty(Sum);

impl Protocol for Hasty {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let arrived = input.split_all();
        for line in arrived.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.0.add(cx, line)?;
        }
        Ok(())
    }
}

/// The repair: only what has its end is consumed. The rest is shown again when more has come.
#[derive(Default)]
struct Patient(Sum);

impl Protocol for Patient {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            self.0.add(cx, &input[..end])?;
            input.consume(end + 1);
        }
        Ok(())
    }
}

// ---- a scenario ---------------------------------------------------------------------------------

/// A day at the till, over the network of `sim`: amounts come one at a time, and each sum is waited
/// for. `Err` says what went wrong.
///
/// The amounts differ from seed to seed, and so does the network; both are the same again with the
/// same seed.
fn a_day<P: Protocol + Default + 'static>(sim: &mut Sim) -> Result<(), Box<dyn Error>> {
    let listener = sim.listen("127.0.0.1:7000", |_| Some(P::default()))?;
    let client = sim.dial(sim.addresses(listener)[0]);
    let mut sum = 0;
    for customer in 0..10 {
        let amount = 1 + (sim.seed() * 7919 + customer * 104_729) % 5000;
        client.send(format!("{amount}\n").as_bytes());
        // Virtual time: this takes as long as the events in it, not a second.
        sim.run_for(Duration::from_secs(1))?;
        let answer = client.take_received();
        let expected = format!("{}\n", sum + amount);
        if answer != expected {
            let fault = format!("the till has {sum}, {amount} comes, and it answers {answer:?}");
            return Err(fault.into());
        }
        sum += amount;
    }
    Ok(())
}

/// The first of `seeds` with which the scenario fails, and how.
fn first_failure<P: Protocol + Default + 'static>(
    seeds: impl IntoIterator<Item = u64>,
    faults: &Faults,
) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| {
        let mut sim = Sim::new(seed);
        sim.set_faults(faults.clone());
        a_day::<P>(&mut sim).err().map(|fault| (seed, fault.to_string()))
    })
}

// ---- the search ---------------------------------------------------------------------------------

const HELP: &str = "\
simulate: a protocol with a bug, how the simulator finds it, and its repair

usage: simulate

LARIAT_SEED=N runs part 3 and the rough networks of part 4 with that seed alone,
LARIAT_SEEDS=N with as many. -h, --help prints this, -V, --version the version.

LARIAT_SEED=31 cargo run --example simulate";

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let done = match std::env::args().nth(1).as_deref() {
        None => search(&mut out),
        Some("-h" | "--help") => writeln!(out, "{HELP}").map(|()| true),
        Some("-V" | "--version") => {
            writeln!(out, "simulate (lariat {})", env!("CARGO_PKG_VERSION")).map(|()| true)
        }
        Some(other) => {
            let _ = writeln!(io::stderr(), "simulate: unexpected '{other}' (try --help)");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Nobody reads standard output.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "Error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True when everything is as the title of this file says.
fn search(out: &mut impl Write) -> io::Result<bool> {
    writeln!(out, "1. The hasty till on a network without faults, as over loopback:")?;
    let unseen = first_failure::<Hasty>(0..100, &Faults::none()).is_none();
    writeln!(out, "   {}", if unseen { "100 days pass: nothing to see" } else { "fails" })?;

    writeln!(out, "2. One input of it, cut in every way (every_split):")?;
    let split = message_of_every_split::<Hasty>();
    let message = split.as_deref().unwrap_or("passes").replace('\n', "\n   ");
    writeln!(out, "   {message}")?;

    writeln!(out, "3. The days of 1, where one read in 200 returns less than there is:")?;
    // As in tests, LARIAT_SEED names one seed, and LARIAT_SEEDS a number of them.
    let seeds = seeds_from_env(0..1000);
    let mut faults = Faults::none();
    faults.short_reads = 5;
    let found = first_failure::<Hasty>(seeds.clone(), &faults);
    match &found {
        Some((seed, sentence)) => {
            writeln!(out, "   seed {seed} finds it: {sentence}")?;
            writeln!(out, "   to repeat it: LARIAT_SEED={seed} cargo run --example simulate")?;
        }
        None => writeln!(out, "   none of {} seeds finds it", seeds.clone().count())?,
    }
    // The same seed is the same run, to the byte.
    let repeats =
        found.as_ref().is_some_and(|(seed, _)| first_failure::<Hasty>([*seed], &faults) == found);

    writeln!(out, "4. The patient till, cut in every way, and on rough networks:")?;
    let whole = message_of_every_split::<Patient>();
    writeln!(out, "   every_split: {}", whole.as_deref().unwrap_or("passes"))?;
    let failure = first_failure::<Patient>(seeds.clone(), &Faults::rough());
    match &failure {
        Some((seed, sentence)) => writeln!(out, "   seed {seed} fails: {sentence}")?,
        None => writeln!(out, "   {} of {0} seeds pass", seeds.count())?,
    }
    Ok(unseen && split.is_some() && repeats && whole.is_none() && failure.is_none())
}

/// `every_split` panics, as tests do; here its message is wanted.
fn message_of_every_split<P: Protocol + Default + 'static>() -> Option<String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let split = AssertUnwindSafe(|| every_split(P::default, b"5\n1200\n"));
    let result = panic::catch_unwind(split);
    panic::set_hook(hook);
    result.err().and_then(|payload| payload.downcast_ref::<String>().cloned())
}
