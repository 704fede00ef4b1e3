//! What has been found so far, as text.

use crate::copy::in_order;
use crate::modules::module;
use crate::plant::Mutant;
use crate::store::Store;

/// Mutants that no test can find, each with the reason: `file | function | change | why`.
const EQUIVALENT: &str = include_str!("../equivalent.txt");

fn is_equivalent(mutant: &Mutant) -> bool {
    EQUIVALENT.lines().filter(|line| !line.starts_with('#')).any(|line| {
        // A change may have a bar in it.
        let parts = line.split_once(" | ").and_then(|(file, rest)| {
            let (function, rest) = rest.split_once(" | ")?;
            Some((file, function, rest.rsplit_once(" | ")?.0.trim()))
        });
        parts == Some((mutant.file.as_str(), mutant.function.as_str(), mutant.what.trim()))
    })
}

pub fn survivors<'a>(store: &Store, mutants: impl Iterator<Item = &'a Mutant>) {
    for mutant in mutants.filter(|mutant| !is_equivalent(mutant)) {
        let Some(outcome) = store.outcomes.get(&mutant.key) else { continue };
        if !outcome.is_caught() {
            let Mutant { file, line, function, what, .. } = mutant;
            let (verdict, tests) = (&outcome.verdict, outcome.tests);
            let run = tests - outcome.left_out;
            println!("{file}:{line} | {function} | {what} | {verdict}, {run} of {tests} tests");
        }
    }
}

#[derive(Clone, Default)]
struct Row {
    run: usize,
    caught: usize,
    equivalent: usize,
    unreached: usize,
}

pub fn table(store: &Store, mutants: &[Mutant]) {
    println!(
        "| module | mutants | run | caught | equivalent | left | of these reached by no test |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let (mut planted, mut sum) = (0, Row::default());
    for name in in_order(mutants) {
        let (mut row, mut count) = (Row::default(), 0);
        for mutant in mutants.iter().filter(|mutant| module(&mutant.file) == name) {
            count += 1;
            let Some(outcome) = store.outcomes.get(&mutant.key) else { continue };
            row.run += 1;
            if outcome.is_caught() {
                row.caught += 1;
            } else if is_equivalent(mutant) {
                row.equivalent += 1;
            } else if outcome.verdict == "unreached" {
                row.unreached += 1;
            }
        }
        line(&format!("`{name}`"), count, &row);
        planted += count;
        sum.run += row.run;
        sum.caught += row.caught;
        sum.equivalent += row.equivalent;
        sum.unreached += row.unreached;
    }
    line("all", planted, &sum);
}

fn line(name: &str, planted: usize, row: &Row) {
    let Row { run, caught, equivalent, unreached } = row;
    let left = run - caught - equivalent;
    println!("| {name} | {planted} | {run} | {caught} | {equivalent} | {left} | {unreached} |");
}
