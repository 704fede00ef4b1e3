//! Whatever the simulator offers is used by its tests.

use std::fs;
use std::path::Path;

/// The text of all Rust files below a folder.
fn text_of(folder: &Path) -> String {
    let mut text = String::new();
    let mut entries: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            text += &text_of(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn every_public_function_of_the_simulator_is_called_by_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = text_of(&root.join("src/sim"));
    let tests = text_of(&root.join("tests/sim")) + &text_of(&root.join("tests/probe"));
    let names = source.lines().filter_map(|line| line.trim_start().strip_prefix("pub fn "));
    let names: Vec<&str> = names.filter_map(|line| line.split(['(', '<']).next()).collect();
    assert!(names.len() > 50, "{names:?}");
    let called = |name: &&str| {
        let calls = [".", "::", " ", "("].map(|before| format!("{before}{name}("));
        calls.iter().any(|call| tests.contains(call))
    };
    let never: Vec<&str> = names.into_iter().filter(|name| !called(name)).collect();
    assert!(never.is_empty(), "no test calls {never:?}");
}
