//! The README keeps what it says: its code compiles, its commands exist, its table is the truth.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lariat::{CloseKind, ConnectFailure, Deadline, DriverLimits, Limits};

/// The server of the README, letter by letter, so that the compiler reads it as well; and what the
/// README runs the same protocol on besides.
#[allow(dead_code)]
mod echo {
    include!("readme/echo.rs");

    mod on_threads {
        use super::Echo;
        include!("readme/blocking.rs");
    }

    mod simulated {
        use super::Echo;
        include!("readme/simulated.rs");
    }
}

/// Its web server.
#[allow(dead_code)]
#[path = "readme/hello.rs"]
mod hello;

/// Its test of a protocol, which runs with the others here.
#[path = "readme/lengths.rs"]
mod lengths;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contents of the README's code blocks in `language`.
fn blocks(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let mut blocks = Vec::new();
    let mut inside: Option<(bool, String)> = None;
    for line in readme.lines() {
        inside = match (inside, line.strip_prefix("```")) {
            (None, Some(tag)) => Some((tag == language, String::new())),
            (None, None) => None,
            (Some((wanted, text)), Some(_)) => {
                blocks.extend(wanted.then_some(text));
                None
            }
            (Some((wanted, text)), None) => Some((wanted, text + line + "\n")),
        };
    }
    assert!(inside.is_none(), "a code block of README.md has no end");
    blocks
}

#[test]
fn every_rust_block_is_compiled() {
    let files = ["echo", "blocking", "simulated", "hello", "lengths"];
    assert_eq!(blocks("rust"), files.map(|name| read(&format!("tests/readme/{name}.rs"))));
}

#[test]
fn the_protocol_of_the_readme_is_that_of_both_examples() {
    let block = &blocks("rust")[0];
    let from = block.find("struct Echo;").unwrap();
    let to = block.find("fn main()").unwrap();
    let protocol = block[from..to].trim();
    for example in ["examples/echo_reactor.rs", "examples/echo_blocking.rs"] {
        assert!(read(example).contains(protocol), "not in {example}:\n{protocol}");
    }
}

#[test]
fn the_advice_on_the_release_profile_is_followed_here() {
    let [advice] = blocks("toml").try_into().unwrap();
    let profile = "[profile.release]\nlto = \"thin\"\n";
    assert!(advice.contains(profile));
    assert!(read("Cargo.toml").contains(profile));
}

#[test]
fn every_file_that_is_linked_exists() {
    let readme = read("README.md");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in links.filter(|link| !link.starts_with("https://")) {
        assert!(root.join(link).exists(), "README.md links to {link}, which does not exist");
    }
}

struct Row {
    default: String,
    then: String,
}

/// The table in `file` whose first heading is `name`, by the name of the field.
fn table(file: &str, name: &str) -> BTreeMap<String, Row> {
    let text = read(file);
    let heading = format!("| `{name}` |");
    let lines = text.lines().map(|line| line.strip_prefix("//! ").unwrap_or(line));
    let rows = lines.skip_while(|line| !line.starts_with(&heading)).skip(2);
    let mut table = BTreeMap::new();
    for line in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [field, _, default, then] = cells[..] else { panic!("not four cells: {line}") };
        let row = Row { default: default.to_owned(), then: then.to_owned() };
        let old = table.insert(field.trim_matches('`').to_owned(), row);
        assert!(old.is_none(), "{field} is listed twice");
    }
    assert!(!table.is_empty(), "{file} has no table of {name}");
    table
}

/// The fields of a struct and their values, as `{:?}` prints them.
fn fields(printed: &str) -> BTreeMap<String, String> {
    let inside = printed.split_once(" { ").unwrap().1.strip_suffix(" }").unwrap();
    let pairs = inside.split(", ").map(|pair| pair.split_once(": ").unwrap());
    let value = |value: &str| {
        let some = value.strip_prefix("Some(").and_then(|value| value.strip_suffix(')'));
        some.unwrap_or(value).to_owned()
    };
    pairs.map(|(field, printed)| (field.to_owned(), value(printed))).collect()
}

/// What the table says, as `{:?}` would print the value it means.
fn as_printed(default: &str) -> Vec<String> {
    let number = |text: &str| text.replace(',', "").parse::<u64>().unwrap().to_string();
    let times = |text: &str, unit: u64| (text.parse::<u64>().unwrap() * unit).to_string();
    vec![match default.split_once(' ') {
        Some((size, "KiB")) => times(size, 1024),
        Some((size, "MiB")) => times(size, 1024 * 1024),
        Some((time, unit @ ("s" | "ms"))) => format!("{time}{unit}"),
        None if default == "off" => return ["None", "0ns", "false"].map(str::to_owned).to_vec(),
        None if default == "pause" => "Pause".to_owned(),
        None => number(default),
        Some(_) => panic!("{default} is no size, time or number"),
    }]
}

#[track_caller]
fn compare(file: &str, name: &str, printed: &str) {
    let (table, fields) = (table(file, name), fields(printed));
    let names = |map: Vec<&String>| map.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(table.keys().collect()), names(fields.keys().collect()), "fields of {name}");
    for (field, row) in &table {
        let (said, real) = (as_printed(&row.default), &fields[field]);
        assert!(said.contains(real), "{name}::{field} is {real}, not {}", row.default);
    }
}

#[test]
fn each_table_has_every_limit_with_its_default() {
    compare("README.md", "Limits", &format!("{:?}", Limits::default()));
    compare("README.md", "DriverLimits", &format!("{:?}", DriverLimits::default()));
    let http = format!("{:?}", lariat::http::Limits::default());
    compare("src/protocols/http/mod.rs", "http::Limits", &http);
}

#[test]
fn the_table_names_the_reason_that_each_limit_ends_with() {
    // The names come from the code: a variant that is renamed breaks this, and then the table.
    let reasons = [
        ("input_max", CloseKind::InputFull),
        ("output_max", CloseKind::OutputFull),
        ("connect", CloseKind::TimedOut(Deadline::Connect)),
        ("handshake", CloseKind::TimedOut(Deadline::Handshake)),
        ("idle", CloseKind::TimedOut(Deadline::Idle)),
        ("write_stall", CloseKind::TimedOut(Deadline::Write)),
        ("close_deadline", CloseKind::TimedOut(Deadline::Close)),
        ("connections_max", CloseKind::Connect(ConnectFailure::Limit)),
        ("drain", CloseKind::Shutdown),
    ];
    let mut tables = table("README.md", "Limits");
    tables.append(&mut table("README.md", "DriverLimits"));
    for (field, kind) in reasons {
        let name = format!("`{kind:?}`");
        assert!(tables[field].then.contains(&name), "{field} ends with {name}");
    }
    // And no other row claims to end a connection.
    let ending: Vec<&str> = tables
        .iter()
        .filter(|(_, row)| {
            let quoted = row.then.split('`').skip(1).step_by(2);
            quoted
                .into_iter()
                .any(|name| name.starts_with(char::is_uppercase) && !name.contains("::"))
        })
        .map(|(field, _)| field.as_str())
        .collect();
    let mut expected: Vec<&str> = reasons.iter().map(|(field, _)| *field).collect();
    expected.sort_unstable();
    assert_eq!(ending, expected);
}
