//! The rules of the source tree, held by reading it: who may import whom, where the clock and mio
//! may appear, how long a file may be. Each message names the file, the line and what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/scan.rs"]
mod scan;

use scan::{CratePath, Scan};

/// One row of the table of layers.
struct Layer {
    what: &'static str,
    /// The modules directly under `src/`, as a file or as a folder.
    modules: &'static [&'static str],
    /// The layers these modules may import from. A module may always use its own parts.
    sees: &'static [usize],
}

/// The layers, top first: imports run upward. `lib.rs` stands outside and re-exports from all.
#[rustfmt::skip]
const LAYERS: [Layer; 9] = [
    /* 0 */ Layer { what: "plain data", sees: &[0],
        modules: &["id", "error", "limits", "buffer", "timer", "filter", "tap", "reason", "clock",
            "metrics", "note", "random", "date", "guard", "grammar", "refused", "credentials",
            "detached", "descriptors",
            "address", "endpoint", "options", "sync", "admission", "episode", "jobs", "resolver"] },
    /* 1 */ Layer { what: "the sans-IO machine", sees: &[0, 1],
        modules: &["connection"] },
    /* 2 */ Layer { what: "the contract with the user", sees: &[0, 1, 2],
        modules: &["protocol", "dispatch", "sending", "datagram"] },
    /* 3 */ Layer { what: "what every driver offers", sees: &[0, 1, 2, 3],
        modules: &["driver", "handle", "client"] },
    /* 4 */ Layer { what: "what touches the system", sees: &[0, 1, 2, 3, 4],
        modules: &["socket", "signals", "hand_over"] },
    /* 5 */ Layer { what: "one turn over many connections", sees: &[0, 1, 2, 3, 4, 5],
        modules: &["event_loop"] },
    // Ready protocols see what a user's protocol sees: neither the system nor the turn.
    /* 6 */ Layer { what: "ready protocols", sees: &[0, 1, 2, 3, 6],
        modules: &["protocols"] },
    // Their own layer is missing on purpose: drivers never see each other.
    /* 7 */ Layer { what: "drivers", sees: &[0, 1, 2, 3, 4, 5],
        modules: &["reactor", "blocking", "sim"] },
    /* 8 */ Layer { what: "pages of the documentation", sees: &[],
        modules: &["coming_from", "guide"] },
];
const DRIVERS: usize = 7;

/// Macros that stand at the root of the crate wherever they are written, with their modules.
const EXPORTED_MACROS: &[(&str, &str)] = &[("forward_protocol", "protocol")];

/// Where mio may be named, and what comes with it: in its driver, and in the wait of a thread for a
/// socket that it may not sleep in, which std has not.
const MIO_PLACES: &[&str] = &["src/reactor/", "src/socket/waiting.rs"];
const MIO_CRATES: &[&str] = &["mio", "signal_hook_mio"];

/// Where the clock is read. Everywhere else time is an argument, which is what lets the simulator
/// replace it.
const CLOCK_FOLDERS: &[&str] = &["src/reactor/", "src/blocking/"];

/// Virtual time is counted from some `Instant`, and only the system makes one: the simulator may
/// take it in one place, from where nothing but differences can reach a run.
const VIRTUAL_CLOCK_FOLDER: &str = "src/sim/";

/// Layers whose behaviour must not depend on the random state of a hash map, besides the simulator.
const DETERMINISTIC_LAYERS: &[usize] = &[0, 1, 2, 3, 4, 5];
const DETERMINISTIC_DRIVERS: &[&str] = &["sim"];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Names that say nothing of what is inside, so that anything could be.
const VAGUE_NAMES: &[&str] = &["utils", "util", "helpers", "manager", "misc", "common"];

#[test]
fn every_module_under_src_has_a_layer() {
    let unknown = sources(&["src"]).into_iter().filter_map(|file| {
        let module = file.module.first()?;
        layer_of(module).is_none().then(|| {
            format!(
                "{}:1: the module `{module}` is in no layer: put it into the table LAYERS of \
                 tests/architecture.rs, at the highest place its imports allow",
                file.name
            )
        })
    });
    none(unknown);
}

#[test]
fn the_table_of_layers_names_each_module_once_and_points_upward() {
    let mut seen = BTreeSet::new();
    for (number, layer) in LAYERS.iter().enumerate() {
        assert!(layer.sees.iter().all(|&above| above <= number), "`{}` sees downward", layer.what);
        for module in layer.modules {
            assert!(seen.insert(module), "`{module}` stands twice in the table of layers");
        }
    }
}

#[test]
fn imports_run_upward_through_the_layers() {
    none(Tree::read().imports().iter().filter_map(objection));
}

/// What is wrong with an import, if something is.
///
/// Unit tests may borrow anything of the crate to set a scene, except a driver that is not their
/// own: what needs a driver tests the whole, and belongs in tests/ where it runs on all of them.
fn objection(import: &Import) -> Option<String> {
    let Import { place, from, to, in_test } = import;
    let below = layer_of(from)?;
    let Some(above) = layer_of(to) else {
        // The scenarios of the model check are written as a user's code.
        return (!in_test).then(|| {
            format!("{place}: `crate::{to}` is no module: import it from the one that defines it")
        });
    };
    if from == to || LAYERS[below].sees.contains(&above) || (*in_test && above != DRIVERS) {
        return None;
    }
    let advice = if *in_test {
        "a unit test may not name a driver: move the test to tests/"
    } else {
        "imports run upward: move what it needs up, pass it in, or turn the dependency around"
    };
    let (below, above) = (LAYERS[below].what, LAYERS[above].what);
    Some(format!("{place}: `{from}` ({below}) imports `{to}` ({above}); {advice}"))
}

#[test]
fn no_driver_names_another() {
    let tree = Tree::read();
    let drivers = LAYERS[DRIVERS].modules;
    none(tree.imports().into_iter().filter_map(|import| {
        let between = drivers.contains(&import.from.as_str())
            && drivers.contains(&import.to.as_str())
            && import.from != import.to;
        between.then(|| {
            format!(
                "{}: the driver `{}` names the driver `{}`: what both need belongs above them, in \
                 `driver` or `event_loop`",
                import.place, import.from, import.to
            )
        })
    }));
}

/// The files of the blocking driver, each of which may import those above it.
const BLOCKING: &[&str] = &[
    "calls",
    "bell",
    "stream",
    "system",
    "timeouts",
    "counters",
    "alarms",
    "race",
    "cell",
    "outlet",
    "pool",
    "listening",
    "hub",
    "roster",
    "threads",
    "remote",
    "drive",
    "accept",
    "bind",
    "effects",
    "runner",
    "worker",
    "room",
    "due",
    "attempts",
    "companion",
    "reader",
    "datagrams",
];

#[test]
fn the_files_of_the_blocking_driver_import_one_another_in_one_direction() {
    none(blocking_circles(&Tree::read()));
}

fn blocking_circles(tree: &Tree) -> Vec<String> {
    let place = |name: &str| BLOCKING.iter().position(|file| *file == name);
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !tree.is_test(file)) {
        let [folder, name] = &file.module[..] else { continue };
        if folder != "blocking" {
            continue;
        }
        let Some(own) = place(name) else {
            found.push(format!("{}:1: `{name}` has no place in BLOCKING", file.name));
            continue;
        };
        for path in Scan::new(&file.text).crate_paths(&file.module) {
            let [folder, to, ..] = &path.segments[..] else { continue };
            let upward = place(to).is_some_and(|to| to < own) || to == name;
            if folder == "blocking" && !path.in_test && !upward {
                found.push(format!(
                    "{}:{}: `{name}` imports `{to}`: what both need belongs above them, in the \
                     order of BLOCKING",
                    file.name, path.line
                ));
            }
        }
    }
    found
}

#[test]
fn a_circle_in_the_blocking_driver_is_found() {
    let tree = Tree::of(&[
        ("src/blocking/mod.rs", "mod bell;\nmod hub;\nmod late;\n#[cfg(test)]\nmod model;\n"),
        ("src/blocking/bell.rs", "use super::hub::Hub; use super::Blocking;"),
        (
            "src/blocking/hub.rs",
            "use super::bell::Bell;\n#[cfg(test)]\nmod t {\n    use super::*;\n}\n",
        ),
        ("src/blocking/late.rs", "use super::hub::Hub;"),
        ("src/blocking/model.rs", "use super::hub::Hub;"),
    ]);
    let found = blocking_circles(&tree);
    let places: Vec<_> = found.iter().filter_map(|found| found.split(": ").next()).collect();
    let expected = ["src/blocking/bell.rs:1", "src/blocking/bell.rs:1", "src/blocking/late.rs:1"];
    assert_eq!(places, expected);
}

#[test]
fn mio_is_named_only_in_the_reactor_and_where_a_thread_waits() {
    let elsewhere = |file: &&Source| !MIO_PLACES.iter().any(|place| file.name.starts_with(place));
    none(sources(&["src"]).iter().filter(elsewhere).flat_map(|file| {
        let scan = Scan::new(&file.text);
        let lines = MIO_CRATES.iter().flat_map(move |name| scan.lines_with(&[name]));
        file.complain(lines, "mio is named outside src/reactor/: keep its types behind it")
    }));
}

#[test]
fn the_clock_is_read_only_by_drivers_on_real_time() {
    none(clock_readings(&Tree::read()));
}

/// Unit tests are left out: they too have no other source for the `Instant` they start from.
fn clock_readings(tree: &Tree) -> Vec<String> {
    let what = "the clock is read outside a driver on real time: let the driver pass time in";
    let mut found = Vec::new();
    let mut starts_of_virtual_time = Vec::new();
    for file in tree.files.iter().filter(|file| !tree.is_test(file)) {
        if CLOCK_FOLDERS.iter().any(|folder| file.name.starts_with(folder)) {
            continue;
        }
        let scan = Scan::new(&file.text);
        let instants = scan.lines_with_outside_tests(&["Instant", "::", "now"]);
        let in_sim = file.name.starts_with(VIRTUAL_CLOCK_FOLDER);
        let list = if in_sim { &mut starts_of_virtual_time } else { &mut found };
        list.extend(file.complain(instants, what));
        let walls = scan.lines_with_outside_tests(&["SystemTime", "::", "now"]);
        found.extend(file.complain(walls, what));
    }
    found.extend(starts_of_virtual_time.into_iter().skip(1));
    found
}

#[test]
fn the_simulator_takes_the_start_of_its_time_in_one_place() {
    let tree = Tree::of(&[
        ("src/reactor/mod.rs", "fn f() { Instant::now(); SystemTime::now() }"),
        ("src/sim/clock.rs", "let start = Instant::now();\nlet wall = SystemTime::now();"),
        ("src/sim/run.rs", "#[cfg(test)]\nmod tests;\nlet again = Instant::now();"),
        ("src/sim/run/tests.rs", "let start = Instant::now();"),
        ("src/timer.rs", "#[cfg(test)]\nmod tests {\n    fn f() { Instant::now() }\n}\n"),
    ]);
    let readings = clock_readings(&tree);
    let places: Vec<_> = readings.iter().filter_map(|found| found.split(": ").next()).collect();
    assert_eq!(places, ["src/sim/clock.rs:2", "src/sim/run.rs:3"]);
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    none(sources(&["src"]).iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| {
            format!(
                "{}:{lines}: {lines} lines, at most {LINES_MAX}: give one of its ideas a file of \
                 its own",
                file.name
            )
        })
    }));
}

#[test]
fn no_line_is_wider_than_the_page() {
    none(sources(&["src", "tests", "examples", "benches"]).iter().flat_map(|file| {
        let wide = |line: &str| line.chars().count() > COLUMNS_MAX;
        file.complain(file.lines_where(wide), "more than 100 columns: break the line")
    }));
}

#[test]
fn the_manifest_forbids_unsafe_code() {
    let manifest = read("Cargo.toml").expect("Cargo.toml can be read");
    let lints = manifest.split("[lints.rust]").nth(1).unwrap_or_default();
    let lints = lints.split("\n[").next().unwrap_or_default();
    assert!(
        lints.lines().any(|line| line.trim() == "unsafe_code = \"forbid\""),
        "Cargo.toml: `unsafe_code = \"forbid\"` is missing from [lints.rust]: put it back"
    );
}

#[test]
fn every_example_is_named_in_the_readme() {
    let readme = read("README.md").unwrap_or_default();
    let words: BTreeSet<_> = words(&readme).collect();
    none(examples().into_iter().filter(|(_, name)| !words.contains(name.as_str())).map(
        |(file, name)| {
            format!(
                "{file}:1: README.md does not name the example `{name}`: say there what it shows"
            )
        },
    ));
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    none(sources(&["src"]).iter().filter_map(|file| {
        let vague = file.module.iter().find(|part| VAGUE_NAMES.contains(&part.as_str()))?;
        Some(format!("{}:1: `{vague}` says nothing: name it after its one idea", file.name))
    }));
}

#[test]
fn no_hash_map_with_random_state_where_runs_must_repeat() {
    let deterministic = |file: &&Source| {
        let Some(module) = file.module.first() else { return false };
        DETERMINISTIC_DRIVERS.contains(&module.as_str())
            || layer_of(module).is_some_and(|layer| DETERMINISTIC_LAYERS.contains(&layer))
    };
    none(sources(&["src"]).iter().filter(deterministic).flat_map(|file| {
        let scan = Scan::new(&file.text);
        let names = ["HashMap", "HashSet", "RandomState"];
        let lines = names.into_iter().flat_map(move |name| scan.lines_with(&[name]));
        file.complain(
            lines,
            "a hash map's order differs from run to run: take a BTreeMap, a slab or a Vec",
        )
    }));
}

#[test]
fn a_file_is_the_module_its_path_says() {
    let module = |name| module_of(name).join("::");
    assert_eq!(module("src/lib.rs"), "");
    assert_eq!(module("src/buffer.rs"), "buffer");
    assert_eq!(module("src/reactor/mod.rs"), "reactor");
    assert_eq!(module("src/reactor/turn.rs"), "reactor::turn");
}

#[test]
fn the_import_rules_catch_what_they_are_for() {
    let tree = Tree::of(&[
        ("src/lib.rs", "mod reactor;\npub use error::Error;\n"),
        ("src/id.rs", "use crate::Error;\nuse super::connection::Connection;\n"),
        ("src/sim/mod.rs", "use crate::{reactor::Reactor, id};\n#[cfg(test)]\nmod tests;\n"),
        ("src/sim/tests.rs", "use super::Link;\nuse crate::{ConnId, protocols, reactor};\n"),
        ("src/timer.rs", "#[cfg(test)]\nmod t {\n    use super::super::{dispatch, sim::Sim};\n}\n"),
        ("src/limits.rs", "use crate::error;\n"),
    ]);
    let imports = tree.imports();
    let refused = imports.iter().filter(|import| objection(import).is_some());
    let refused: Vec<_> = refused.map(|import| format!("{} {}", import.from, import.to)).collect();
    assert_eq!(refused, ["id Error", "id connection", "sim reactor", "sim reactor", "timer sim"]);
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.modules.contains(&module))
}

/// One module under `src/` that names another, or a name of the crate root.
struct Import {
    place: String,
    from: String,
    to: String,
    in_test: bool,
}

/// All files under `src/`, with what is needed to resolve paths between them.
struct Tree {
    files: Vec<Source>,
    test_modules: Vec<Vec<String>>,
}

impl Tree {
    fn read() -> Self {
        Tree::new(sources(&["src"]))
    }

    fn of(files: &[(&str, &str)]) -> Self {
        Tree::new(files.iter().map(|(name, text)| Source::new(name, (*text).to_owned())).collect())
    }

    fn new(files: Vec<Source>) -> Self {
        let test_modules =
            files.iter().flat_map(|file| Scan::new(&file.text).test_modules(&file.module));
        Tree { test_modules: test_modules.collect(), files }
    }

    fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for file in &self.files {
            let Some(from) = file.module.first() else { continue };
            let test_file = self.is_test(file);
            for path in Scan::new(&file.text).crate_paths(&file.module) {
                imports.push(Import {
                    place: format!("{}:{}", file.name, path.line),
                    from: from.clone(),
                    to: module_behind(&path),
                    in_test: path.in_test || test_file,
                });
            }
        }
        imports
    }

    /// Whether the whole file is part of a module under `#[cfg(test)]`.
    fn is_test(&self, file: &Source) -> bool {
        self.test_modules.iter().any(|module| file.module.starts_with(module))
    }
}

/// The module that a path leads to: its first name, and for an exported macro its place.
fn module_behind(path: &CratePath) -> String {
    let first = path.segments.first().map_or("", String::as_str);
    let exported = EXPORTED_MACROS.iter().find(|(name, _)| *name == first);
    exported.map_or(first, |(_, module)| module).to_owned()
}

struct Source {
    /// From the root of the repository, with `/` between the parts.
    name: String,
    module: Vec<String>,
    text: String,
}

impl Source {
    fn new(name: &str, text: String) -> Self {
        Source { name: name.to_owned(), module: module_of(name), text }
    }

    fn read(name: &str) -> Option<Self> {
        Some(Source::new(name, read(name)?))
    }

    /// The numbers of the lines, from 1, that the test holds for.
    fn lines_where(&self, holds: impl Fn(&str) -> bool) -> Vec<usize> {
        let numbered = self.text.lines().zip(1..);
        numbered.filter(|(line, _)| holds(line)).map(|(_, number)| number).collect()
    }

    fn complain(&self, lines: impl IntoIterator<Item = usize>, what: &str) -> Vec<String> {
        lines.into_iter().map(|line| format!("{}:{line}: {what}", self.name)).collect()
    }
}

fn module_of(name: &str) -> Vec<String> {
    let path = name.strip_prefix("src/").unwrap_or(name);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// All Rust files below the folders, in the order of their names. A missing folder holds none.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut names = Vec::new();
    for folder in folders {
        collect(folder, &mut names);
    }
    names.sort();
    names
        .iter()
        .filter(|name| name.ends_with(".rs"))
        .filter_map(|name| Source::read(name))
        .collect()
}

fn collect(folder: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(root().join(folder)).into_iter().flatten().flatten() {
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&name, names);
        } else {
            names.push(name);
        }
    }
}

/// Each example's file and name: `examples/name.rs` or `examples/name/main.rs`.
fn examples() -> Vec<(String, String)> {
    let files = sources(&["examples"]).into_iter().filter_map(|file| {
        let path = file.name.strip_prefix("examples/")?.strip_suffix(".rs")?;
        let name = path.strip_suffix("/main").unwrap_or(path).to_owned();
        (!name.contains('/')).then_some((file.name, name))
    });
    files.collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(root().join(name)).ok()
}

/// Cargo says where the manifest is; without Cargo it is the current directory.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| Path::new(".").to_owned(), PathBuf::from)
}

/// Fails with all complaints at once, so that one run shows the whole work.
#[track_caller]
fn none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<_> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n\n{}\n", complaints.join("\n"));
}
