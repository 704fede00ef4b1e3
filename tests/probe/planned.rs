//! Tests that fail because another one wants to read what they print.

use std::env;
use std::process::Command;

/// Set for a test that is to fail.
const PLANNED: &str = "LARIAT_PLANNED_FAILURE";

pub(crate) fn is_planned() -> bool {
    env::var_os(PLANNED).is_some()
}

/// What the test `name` of this binary prints when it runs alone and fails.
pub(crate) fn failure_of(name: &str, vars: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    for name in ["LARIAT_SEED", "LARIAT_SEEDS", "LARIAT_REDUCE"] {
        command.env_remove(name);
    }
    command.env("RUST_BACKTRACE", "0").env(PLANNED, "1").envs(vars.iter().copied());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{name} was to fail: {text}");
    assert!(summary.contains("0 passed; 1 failed"), "{summary}");
    text
}
