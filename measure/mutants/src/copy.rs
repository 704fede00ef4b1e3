//! The copy of the project, with the mutants in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::blame::blame;
use crate::consts::Constants;
use crate::modules;
use crate::plant::{Mutant, plant};

/// What the copy leaves out: other workspaces, and what no test of the list needs.
const NOT_COPIED: &[&str] = &["measure/", "fuzz/", "interposed/", ".ci/"];

pub struct Copy {
    pub folder: PathBuf,
    target: PathBuf,
    sources: BTreeMap<String, String>,
    constants: Constants,
}

/// A test binary of the copy.
#[derive(Clone, Debug)]
pub struct Binary {
    pub name: String,
    pub path: PathBuf,
}

fn is_test_code(file: &str) -> bool {
    file.ends_with("/tests.rs")
        || file.ends_with("/read_back.rs")
        || ["/tests/", "/model/", "sync/model.rs"].iter().any(|part| file.contains(part))
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    // What has not changed keeps its time, so that cargo builds less.
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, contents)?)
}

impl Copy {
    /// Copies what git knows of the project.
    pub fn new(root: &Path, work: &Path) -> Result<Copy> {
        let folder = work.join("copy");
        let listed = Command::new("git").arg("-C").arg(root).arg("ls-files").output()?;
        let (mut sources, mut constants) = (BTreeMap::new(), Constants::default());
        let mut kept = BTreeSet::new();
        for file in String::from_utf8(listed.stdout)?.lines() {
            if NOT_COPIED.iter().any(|left_out| file.starts_with(left_out)) {
                continue;
            }
            let Ok(contents) = fs::read(root.join(file)) else { continue };
            kept.insert(folder.join(file));
            if file.starts_with("src/") && file.ends_with(".rs") && !is_test_code(file) {
                let source = String::from_utf8(contents)?;
                constants.look(&syn::parse_file(&source)?);
                sources.insert(file.to_owned(), source);
            } else {
                write(&folder.join(file), &contents)?;
            }
        }
        kept.insert(folder.join("src/mutant.rs"));
        remove_others(&folder.join("src"), &kept)?;
        remove_others(&folder.join("tests"), &kept)?;
        Ok(Copy { folder, target: work.join("target"), sources, constants })
    }

    /// Every mutant of the source.
    pub fn all(&self) -> Result<Vec<Mutant>> {
        let mut all = Vec::new();
        for (file, source) in &self.sources {
            let mut parsed = syn::parse_file(source)?;
            plant(file, &mut parsed, &self.constants, &mut |mutant| {
                all.push(mutant);
                None
            });
        }
        Ok(all)
    }

    /// Writes the source with these mutants, by their keys.
    pub fn plant(&self, numbers: &HashMap<String, u32>) -> Result<()> {
        for (file, source) in &self.sources {
            let mut parsed = syn::parse_file(source)?;
            let mut choose = |mutant: Mutant| numbers.get(&mutant.key).copied();
            plant(file, &mut parsed, &self.constants, &mut choose);
            if file == "src/lib.rs" {
                parsed.items.push(syn::parse_quote!(
                    mod mutant;
                ));
            }
            write(&self.folder.join(file), prettyplease::unparse(&parsed).as_bytes())?;
        }
        let most = numbers.values().max().map_or(1, |most| most + 1);
        let switch = include_str!("switch.rs.txt").replace("MOST", &most.to_string());
        write(&self.folder.join("src/mutant.rs"), switch.as_bytes())
    }

    fn cargo(&self, arguments: &[&str]) -> Result<(bool, String)> {
        self.cargo_with(arguments, "", "")
    }

    /// Runs cargo with more flags for the compiler, in a target directory of their own.
    fn cargo_with(&self, arguments: &[&str], flags: &str, suffix: &str) -> Result<(bool, String)> {
        let target = format!("{}{suffix}", self.target.display());
        let output = Command::new("cargo")
            .args(arguments)
            .arg("--message-format=json")
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // Without it the switches alone make most tests several times as long.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .env("RUSTFLAGS", format!("--cap-lints=allow {flags}"))
            .stderr(Stdio::inherit())
            .output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Builds the tests; what does not compile is dropped, until the rest does.
    pub fn build(
        &self,
        numbers: &mut HashMap<String, u32>,
        dropped: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Vec<Binary>> {
        // The library's own tests as well: what does not compile in these alone is found here.
        let check: &[&str] = &["check", "--quiet", "--lib", "--tests", "--all-features"];
        let mut tests = vec!["test", "--quiet", "--no-run", "--all-features", "--lib"];
        for name in crate::suite::BINARIES {
            tests.extend(["--test", name]);
        }
        loop {
            self.plant(numbers)?;
            let (passed, mut messages) = self.cargo(check)?;
            if passed {
                let (passed, built) = self.cargo(&tests)?;
                if passed {
                    return Ok(binaries(&built));
                }
                messages = built;
            }
            let (wrong, unclear) = blame(&self.folder, &messages);
            if wrong.is_empty() {
                return Err(unclear.join("\n").into());
            }
            eprintln!("{} mutants do not compile", wrong.len());
            let keys: Vec<String> = numbers
                .iter()
                .filter(|(_, number)| wrong.contains(number))
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                numbers.remove(&key);
                dropped(&key)?;
            }
        }
    }
}

impl Copy {
    /// The model check of the blocking driver, which is the library's tests built once more.
    pub fn model(&self) -> Result<Vec<Binary>> {
        let tests = ["test", "--quiet", "--no-run", "--lib"];
        let (passed, built) = self.cargo_with(&tests, "--cfg lariat_model", "-model")?;
        if !passed {
            return Err("the model check does not compile".into());
        }
        let name = crate::suite::MODEL.to_owned();
        Ok(binaries(&built).into_iter().map(|one| Binary { name: name.clone(), ..one }).collect())
    }
}

fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn binaries(messages: &str) -> Vec<Binary> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            let path = PathBuf::from(message["executable"].as_str()?);
            let name = message["target"]["name"].as_str()?;
            let name = if message["target"]["kind"][0] == "lib" { "lib" } else { name };
            Some(Binary { name: name.to_owned(), path })
        })
        .collect()
}

/// The modules in the order of their first mutant, for tables.
pub fn in_order(mutants: &[Mutant]) -> Vec<&str> {
    let mut modules: Vec<&str> = Vec::new();
    for mutant in mutants {
        let module = modules::module(&mutant.file);
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    modules
}
