//! What a run has found out, in files that the next run reads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::plant::Mutant;
use crate::suite::Test;

#[derive(Clone, Debug)]
pub struct Outcome {
    /// `caught`, `hangs`, `survives` or `unreached`.
    pub verdict: String,
    /// The test that failed.
    pub by: String,
    /// How many tests reach it.
    pub tests: usize,
    /// How many of these were not run, as they take long.
    pub left_out: usize,
}

impl Outcome {
    pub fn is_caught(&self) -> bool {
        self.verdict == "caught" || self.verdict == "hangs"
    }
}

pub struct Store {
    folder: PathBuf,
    pub numbers: HashMap<String, u32>,
    pub dropped: HashSet<String>,
    /// What the last run has planted.
    pub planted: HashSet<String>,
    pub outcomes: HashMap<String, Outcome>,
    pub tests: HashMap<String, Test>,
}

impl Store {
    pub fn open(folder: &Path) -> Result<Store> {
        fs::create_dir_all(folder)?;
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let lines = |name: &str| -> Vec<String> { read(name).lines().map(Into::into).collect() };
        let numbers = (1..).zip(lines("numbers")).map(|(number, key)| (key, number)).collect();
        let dropped = lines("dropped").into_iter().collect();
        let planted = lines("planted").into_iter().collect();
        let values = |name: &str| -> Vec<Value> {
            // A line that a stopped run has left half written counts as not there.
            read(name).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let outcomes = values("outcomes").into_iter().map(|one| {
            let count = |name: &str| one[name].as_u64().unwrap_or(0) as usize;
            let (tests, left_out) = (count("tests"), count("left_out"));
            let (verdict, by) = (text(&one["verdict"]), text(&one["by"]));
            (text(&one["key"]), Outcome { verdict, by, tests, left_out })
        });
        let tests = values("tests").iter().map(test).map(|test| (test.title(), test)).collect();
        let outcomes = outcomes.collect();
        Ok(Store { folder: folder.to_owned(), numbers, dropped, planted, outcomes, tests })
    }

    fn append(&self, name: &str, line: &str) -> Result<()> {
        let path = self.folder.join(name);
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }

    /// The number of a mutant, which no other ever gets.
    pub fn number(&mut self, key: &str) -> Result<u32> {
        if let Some(number) = self.numbers.get(key) {
            return Ok(*number);
        }
        let number = self.numbers.len() as u32 + 1;
        self.append("numbers", key)?;
        self.numbers.insert(key.to_owned(), number);
        Ok(number)
    }

    pub fn drop_mutant(&mut self, key: &str) -> Result<()> {
        self.dropped.insert(key.to_owned());
        self.append("dropped", key)
    }

    pub fn plant(&mut self, mutants: &[Mutant]) -> Result<()> {
        self.planted = mutants.iter().map(|mutant| mutant.key.clone()).collect();
        let lines: String = mutants.iter().map(|mutant| format!("{}\n", mutant.key)).collect();
        Ok(fs::write(self.folder.join("planted"), lines)?)
    }

    pub fn outcome(&mut self, key: &str, outcome: Outcome) -> Result<()> {
        let Outcome { verdict, by, tests, left_out } = &outcome;
        let line = json!({
            "key": key,
            "verdict": verdict,
            "by": by,
            "tests": tests,
            "left_out": left_out,
        });
        self.append("outcomes", &line.to_string())?;
        self.outcomes.insert(key.to_owned(), outcome);
        Ok(())
    }

    pub fn test(&mut self, test: Test) -> Result<()> {
        let line = json!({
            "binary": test.binary,
            "name": test.name,
            "ms": test.took.as_millis() as u64,
            "passes": test.passes,
            "reached": test.reached,
        });
        self.append("tests", &line.to_string())?;
        self.tests.insert(test.title(), test);
        Ok(())
    }

    /// What the tests reach is to be found out again.
    pub fn forget_tests(&mut self) -> Result<()> {
        self.tests.clear();
        Ok(fs::write(self.folder.join("tests"), "")?)
    }
}

fn test(value: &Value) -> Test {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let no_numbers = Vec::new();
    let numbers = value["reached"].as_array().unwrap_or(&no_numbers);
    let reached: BTreeSet<u32> = numbers.iter().filter_map(|n| Some(n.as_u64()? as u32)).collect();
    Test {
        binary: text("binary"),
        name: text("name"),
        took: Duration::from_millis(value["ms"].as_u64().unwrap_or(0)),
        passes: value["passes"] == true,
        reached,
    }
}
