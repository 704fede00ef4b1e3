//! Small changes of lariat's source, each of which a test is to find.
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

mod blame;
mod consts;
mod copy;
mod kinds;
mod modules;
mod plant;
mod run;
mod store;
mod suite;
mod table;

use copy::Copy;
use plant::Mutant;
use store::Store;
use suite::Suite;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
mutants [run|list|survivors|table] [options]

  run        builds a copy with all changes behind a switch, finds out which tests reach each, and
             runs these, the quickest first, up to the first that fails; goes on where it stopped
  list       the changes of the sample
  survivors  those that no test has found so far
  table      a row per module

  --root DIR     the project [the folder that holds measure/]
  --work DIR     the copy, its build and the results [ROOT/target/mutants]
  --seed N       of the sample [1]
  --only TEXT    files whose path contains one of these texts, separated by commas
  --again        those alone that survived before, and no others are planted: after tests were
                 added, in a copy of DIR, since what the new tests reach is not found out whole;
                 with --only also those of these files that were not run
  --same         what the last run has planted is planted, so that nothing is built
  --no-model     without the model check, whose build takes as long as that of all other tests
  --seconds N    of tests for one change: the quickest that take so long in all [20]
  --record       find out again which tests reach what: after tests were changed";

#[derive(Default)]
pub struct Options {
    mode: String,
    root: PathBuf,
    work: PathBuf,
    seed: u64,
    only: Vec<String>,
    again: bool,
    same: bool,
    no_model: bool,
    seconds: u64,
    record: bool,
}

fn options() -> Result<Options> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize()?;
    let mut options = Options { root, seed: 1, seconds: 20, ..Options::default() };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("root") => options.root = PathBuf::from(arguments.value()?).canonicalize()?,
            Long("work") => options.work = arguments.value()?.into(),
            Long("seed") => options.seed = arguments.value()?.parse()?,
            Long("only") => {
                let texts = arguments.value()?.string()?;
                options.only = texts.split(',').map(str::to_owned).collect();
            }
            Long("seconds") => options.seconds = arguments.value()?.parse()?,
            Long("again") => options.again = true,
            Long("same") => options.same = true,
            Long("no-model") => options.no_model = true,
            Long("record") => options.record = true,
            Long("help") | Short('h') => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            Value(mode) if options.mode.is_empty() => options.mode = mode.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if options.work.as_os_str().is_empty() {
        options.work = options.root.join("target/mutants");
    }
    Ok(options)
}

fn main() -> Result<()> {
    let options = options()?;
    let mut store = Store::open(&options.work)?;
    let copy = Copy::new(&options.root, &options.work)?;
    let mut sample = modules::sample(copy.all()?, options.seed);
    sample.retain(|mutant| !store.dropped.contains(&mutant.key));
    let chosen = |mutant: &&Mutant| {
        options.only.is_empty() || options.only.iter().any(|text| mutant.file.contains(text))
    };
    match options.mode.as_str() {
        "" | "run" => run(&options, &copy, &mut store, &sample),
        "list" => {
            for mutant in sample.iter().filter(chosen) {
                println!("{}:{} {}: {}", mutant.file, mutant.line, mutant.function, mutant.what);
            }
            Ok(())
        }
        "survivors" => {
            table::survivors(&store, sample.iter().filter(chosen));
            Ok(())
        }
        "table" => {
            table::table(&store, &sample);
            Ok(())
        }
        other => Err(format!("`{other}` is no mode\n{USAGE}").into()),
    }
}

fn run(options: &Options, copy: &Copy, store: &mut Store, sample: &[Mutant]) -> Result<()> {
    let mut numbers = HashMap::new();
    let named = |mutant: &Mutant| options.only.iter().any(|text| mutant.file.contains(text));
    let wanted = |mutant: &&Mutant| match store.outcomes.get(&mutant.key) {
        _ if !options.again => true,
        Some(known) => !known.is_caught(),
        None => named(mutant),
    };
    let sample: Vec<Mutant> = match options.same {
        true => {
            sample.iter().filter(|mutant| store.planted.contains(&mutant.key)).cloned().collect()
        }
        false => sample.iter().filter(wanted).cloned().collect(),
    };
    for mutant in &sample {
        numbers.insert(mutant.key.clone(), store.number(&mutant.key)?);
    }
    eprintln!("{} mutants in the sample", sample.len());
    store.plant(&sample)?;
    let mut binaries = copy.build(&mut numbers, &mut |key| store.drop_mutant(key))?;
    if !options.no_model {
        binaries.extend(copy.model()?);
    }
    let suite = Suite::new(&copy.folder, &binaries);
    if options.record {
        store.forget_tests()?;
    }
    run::reach(&suite, store)?;
    let planted = sample.iter().filter(|mutant| numbers.contains_key(&mutant.key));
    let chosen = planted.filter(|mutant| options.only.is_empty() || named(mutant));
    let budget = Duration::from_secs(options.seconds);
    run::mutants(&suite, store, chosen, options.again, budget)
}
