//! Each mutant against the tests that reach it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::Result;
use crate::plant::Mutant;
use crate::store::{Outcome, Store};
use crate::suite::{End, Suite, Test};

/// Tests that run before the next look: the quickest few find most.
const BATCHES: &[usize] = &[10, 30, 100, usize::MAX];

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
    budget: Duration,
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
        let own = own_tests(&mutant.file);
        tests.sort_by_key(|test| {
            let others = REMEMBERED + usize::from(!test.title().starts_with(&own));
            finders.iter().position(|finder| *finder == test.title()).unwrap_or(others)
        });
        let began = Instant::now();
        let outcome = one(suite, number, &tests, budget)?;
        let Outcome { verdict, by, tests, left_out } = &outcome;
        println!(
            "{verdict} {}:{} {}: {} [{} of {tests} in {:.1} s: {by}]",
            mutant.file,
            mutant.line,
            mutant.function,
            mutant.what,
            tests - left_out,
            began.elapsed().as_secs_f64()
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

/// How the titles of a file's own tests begin, or those of its folder.
fn own_tests(file: &str) -> String {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    format!("lib {}::", path.replace('/', "::"))
}

/// The first of these tests, which take this long in all; one in any case.
fn within<'a>(tests: &'a [&'a Test], budget: Duration) -> &'a [&'a Test] {
    let mut took = Duration::ZERO;
    let count = tests.iter().take_while(|test| {
        took += test.took;
        took <= budget
    });
    &tests[..count.count().max(1).min(tests.len())]
}

fn one(suite: &Suite, number: u32, tests: &[&Test], budget: Duration) -> Result<Outcome> {
    let mut rest = within(tests, budget);
    let left_out = tests.len() - rest.len();
    let outcome = |verdict: &str, by: String| {
        Ok(Outcome { verdict: verdict.to_owned(), by, tests: tests.len(), left_out })
    };
    if tests.is_empty() {
        return outcome("unreached", String::new());
    }
    for size in BATCHES {
        let (batch, later) = rest.split_at(rest.len().min(*size));
        rest = later;
        if let Some((verdict, by)) = batch_fails(suite, number, batch)? {
            return outcome(verdict, by);
        }
    }
    outcome("survives", String::new())
}

/// What takes longer than this hangs, if the same without a change does not.
fn limit(took: Duration) -> Duration {
    Duration::from_secs(2) + took * 6
}

/// A time limit that a run without a change keeps on the machine as it is just now.
const TRIES: u32 = 4;

/// Runs tests with a mutant. What is too late is late only beside a control that was in time.
fn timed(suite: &Suite, tests: &[&Test], number: u32) -> Result<End> {
    let took: Duration = tests.iter().map(|test| test.took).sum();
    for attempt in 0..TRIES {
        let limit = limit(took) * 2u32.pow(attempt);
        match suite.run(tests, number, limit)? {
            End::TimedOut => {}
            end => return Ok(end),
        }
        if matches!(suite.run(tests, 0, limit)?, End::Passed) {
            return Ok(End::TimedOut);
        }
    }
    println!("too slow without a change: {} tests of {}", tests.len(), tests[0].binary);
    Ok(End::Passed)
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
            match timed(suite, &tests, number)? {
                End::Passed => break,
                End::TimedOut => return Ok(Some(("hangs", binary.to_owned()))),
                End::Failed(name) => {
                    let Some(at) = tests.iter().position(|test| test.name == name) else {
                        return Ok(Some(("caught", format!("{binary} ({name})"))));
                    };
                    // Once more alone: a test that fails now and then has found nothing.
                    let test = tests.remove(at);
                    if !matches!(timed(suite, &[test], number)?, End::Passed) {
                        return Ok(Some(("caught", test.title())));
                    }
                    println!("failed once and passed once: {}", test.title());
                }
            }
        }
    }
    Ok(None)
}
