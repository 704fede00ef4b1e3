//! Each mutant against the tests that reach it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::Result;
use crate::plant::Mutant;
use crate::store::{Outcome, Store};
use crate::suite::{End, Suite, Test};

/// Tests that run before the next look: the quickest few find most.
const BATCHES: &[usize] = &[12, 40, 150, usize::MAX];

/// Tests that found something in a file are tried first on its next mutant.
const REMEMBERED: usize = 6;

/// Runs each test alone that has not been run so.
pub fn reach(suite: &Suite, store: &mut Store) -> Result<()> {
    let listed = suite.list()?;
    let titles: Vec<String> =
        listed.iter().map(|(binary, name)| format!("{binary} {name}")).collect();
    store.tests.retain(|title, _| titles.contains(title));
    for (title, (binary, name)) in titles.iter().zip(&listed) {
        if store.tests.contains_key(title) {
            continue;
        }
        let test = suite.alone(binary, name)?;
        let (seconds, reached) = (test.took.as_secs_f64(), test.reached.len());
        let passes = if test.passes { "" } else { ", DOES NOT PASS" };
        println!("{title}: {reached} in {seconds:.2} s{passes}");
        store.test(test)?;
    }
    Ok(())
}

pub fn mutants<'a>(
    suite: &Suite,
    store: &mut Store,
    mutants: impl Iterator<Item = &'a Mutant>,
    again: bool,
) -> Result<()> {
    let mut all: Vec<Test> = store.tests.values().filter(|test| test.passes).cloned().collect();
    all.sort_by_key(|test| (test.took, test.title()));
    let mut found_by: HashMap<String, VecDeque<String>> = HashMap::new();
    for mutant in mutants {
        let known = store.outcomes.get(&mutant.key);
        if known.is_some_and(|known| known.is_caught() || !again) {
            continue;
        }
        let number = store.numbers[&mutant.key];
        let mut tests: Vec<&Test> =
            all.iter().filter(|test| test.reached.contains(&number)).collect();
        let finders = found_by.entry(mutant.file.clone()).or_default();
        tests.sort_by_key(|test| {
            finders.iter().position(|finder| *finder == test.title()).unwrap_or(REMEMBERED)
        });
        let outcome = one(suite, number, &tests)?;
        let Outcome { verdict, by, tests } = &outcome;
        println!(
            "{verdict} {}:{} {}: {} [{tests}: {by}]",
            mutant.file, mutant.line, mutant.function, mutant.what
        );
        if verdict == "caught" {
            finders.retain(|finder| finder != by);
            finders.push_front(by.clone());
            finders.truncate(REMEMBERED);
        }
        store.outcome(&mutant.key, outcome)?;
    }
    Ok(())
}

fn one(suite: &Suite, number: u32, tests: &[&Test]) -> Result<Outcome> {
    let outcome = |verdict: &str, by: String| {
        Ok(Outcome { verdict: verdict.to_owned(), by, tests: tests.len() })
    };
    if tests.is_empty() {
        return outcome("unreached", String::new());
    }
    let mut rest = tests;
    for size in BATCHES {
        let (batch, later) = rest.split_at(rest.len().min(*size));
        rest = later;
        if let Some((verdict, by)) = batch_fails(suite, number, batch)? {
            return outcome(verdict, by);
        }
    }
    outcome("survives", String::new())
}

/// What takes longer than this hangs.
fn limit(took: Duration) -> Duration {
    Duration::from_secs(10) + took * 3
}

/// Runs a batch, one process for each binary, and says what has failed.
fn batch_fails(
    suite: &Suite,
    number: u32,
    batch: &[&Test],
) -> Result<Option<(&'static str, String)>> {
    let mut binaries: Vec<&str> = Vec::new();
    for test in batch {
        if !binaries.contains(&test.binary.as_str()) {
            binaries.push(&test.binary);
        }
    }
    for binary in binaries {
        let mut tests: Vec<&Test> =
            batch.iter().filter(|test| test.binary == binary).copied().collect();
        while !tests.is_empty() {
            let took: Duration = tests.iter().map(|test| test.took).sum();
            match suite.run(&tests, number, limit(took))? {
                End::Passed => break,
                End::TimedOut => return Ok(Some(("hangs", binary.to_owned()))),
                End::Failed(name) => {
                    let Some(at) = tests.iter().position(|test| test.name == name) else {
                        return Ok(Some(("caught", format!("{binary} ({name})"))));
                    };
                    // Once more alone: a test that fails now and then has found nothing.
                    let test = tests.remove(at);
                    if !matches!(suite.run(&[test], number, limit(test.took))?, End::Passed) {
                        return Ok(Some(("caught", test.title())));
                    }
                    println!("failed once and passed once: {}", test.title());
                }
            }
        }
    }
    Ok(None)
}
