//! The tests: which there are, what each reaches, and whether they pass.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Result;
use crate::copy::Binary;

/// The test binaries beside the library's own tests.
pub const BINARIES: &[&str] = &[
    "conformance",
    "sim",
    "probe",
    "http",
    "reactor",
    "blocking",
    "memory",
    "tls",
    "auth",
    "system",
];

/// The model check: of its binary the tests with such names.
pub const MODEL: &str = "model";

/// A test alone may take this long, which is far more than any does.
const ALONE: Duration = Duration::from_secs(90);

/// What the tests may allocate: a change that lets something grow must not take the machine along.
const MEMORY_KIB: u64 = 6 << 20;

#[derive(Clone, Debug)]
pub struct Test {
    pub binary: String,
    pub name: String,
    pub took: Duration,
    pub reached: BTreeSet<u32>,
    /// What does not pass alone without a change is not used.
    pub passes: bool,
}

impl Test {
    pub fn title(&self) -> String {
        format!("{} {}", self.binary, self.name)
    }
}

pub enum End {
    Passed,
    /// The first test that failed, or what else ended the run.
    Failed(String),
    TimedOut,
}

struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

pub struct Suite {
    folder: PathBuf,
    paths: HashMap<String, PathBuf>,
}

impl Suite {
    pub fn new(folder: &Path, binaries: &[Binary]) -> Suite {
        let paths = binaries.iter().map(|one| (one.name.clone(), one.path.clone())).collect();
        Suite { folder: folder.to_owned(), paths }
    }

    /// The tests of all binaries, by their names.
    pub fn list(&self) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for (binary, path) in &self.paths {
            let listed = Command::new(path)
                .args(["--list", "--format", "terse"])
                .current_dir(&self.folder)
                .output()?;
            let listed = String::from_utf8(listed.stdout)?;
            let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
            let names = names.filter(|name| binary != MODEL || name.contains("::model_"));
            all.extend(names.map(|name| (binary.clone(), name.to_owned())));
        }
        all.sort();
        Ok(all)
    }

    fn command(&self, binary: &str, names: &[&str], threads: usize, mutant: &str) -> Command {
        // `ulimit` is the shell's; the shell becomes the test.
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -c 0; ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""))
            .arg(&self.paths[binary])
            .args(["--exact", "--include-ignored", "--test-threads", &threads.to_string()])
            .args(names)
            .current_dir(&self.folder)
            .env("LARIAT_MUTANT", mutant)
            .env("LARIAT_REDUCE", "0")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs one test alone: which mutants it reaches, how long it takes, whether it passes.
    pub fn alone(&self, binary: &str, name: &str) -> Result<Test> {
        let mut command = self.command(binary, &[name], 1, "tells");
        let log = std::env::temp_dir().join(format!("lariat-mutants-{}", std::process::id()));
        std::fs::write(&log, "")?;
        command.env("LARIAT_MUTANT_LOG", &log).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut running = Running { child: command.spawn()? };
        let told = reader(running.child.stderr.take());
        let (mut text, mut passes) = (Vec::new(), false);
        while let Ok(part) = told.recv_timeout(ALONE.saturating_sub(began.elapsed())) {
            match part {
                Some(part) => text.extend(part),
                None => {
                    passes = running.child.wait()?.success();
                    break;
                }
            }
        }
        drop(running);
        text.extend(std::fs::read(&log)?);
        std::fs::remove_file(&log)?;
        let (took, text) = (began.elapsed(), String::from_utf8_lossy(&text));
        let numbers =
            text.split("@reached ").skip(1).filter_map(|rest| rest.get(..7)?.parse().ok());
        let (binary, name) = (binary.to_owned(), name.to_owned());
        Ok(Test { binary, name, took, reached: numbers.collect(), passes })
    }

    /// Runs tests of one binary with a mutant, up to the first that fails.
    pub fn run(&self, tests: &[&Test], mutant: u32, limit: Duration) -> Result<End> {
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        let threads = if names.len() > 1 { 2 } else { 1 };
        let mut command = self.command(&tests[0].binary, &names, threads, &mutant.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        let mut running = Running { child: command.spawn()? };
        let told = reader(running.child.stdout.take());
        let mut text = String::new();
        loop {
            match told.recv_timeout(limit.saturating_sub(began.elapsed())) {
                Ok(Some(part)) => {
                    text.push_str(&String::from_utf8_lossy(&part));
                    if let Some(failed) = failed(&text) {
                        return Ok(End::Failed(failed));
                    }
                }
                Ok(None) => {
                    let status = running.child.wait()?;
                    let passed = status.success() && text.contains("test result: ok");
                    return Ok(if passed { End::Passed } else { End::Failed(status.to_string()) });
                }
                Err(_) => return Ok(End::TimedOut),
            }
        }
    }
}

/// The name of the first test that failed.
fn failed(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix("test ")?;
        let (name, verdict) = rest.split_once(" ... ")?;
        verdict.contains("FAILED").then(|| name.trim_end_matches(" - should panic").to_owned())
    })
}

/// Reads on a thread, so that the caller can give up: parts of what came, then nothing.
fn reader(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Option<Vec<u8>>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        if let Some(mut source) = source {
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let _ = send.send(Some(buffer[..count].to_vec()));
            }
        }
        let _ = send.send(None);
    });
    receive
}
