//! The README keeps what it says: its code compiles, its commands exist, its table is the truth.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lariat::{CloseKind, ConnectFailure, Deadline, DriverLimits, Limits};

/// The server of the README, letter by letter, so that the compiler reads it as well, and its test.
#[allow(dead_code)]
mod echo {
    include!("readme/echo.rs");

    mod simulated {
        use super::Echo;
        include!("readme/simulated.rs");
    }
}

/// Its producer.
mod producer {
    use std::time::Duration;

    use lariat::sim::Sim;
    use lariat::{Context, Input, Outcome, Protocol};

    include!("readme/produce.rs");

    struct Numbers(u32);

    impl Protocol for Numbers {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            produce(cx, &mut self.0)
        }
        fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
            produce(cx, &mut self.0)
        }
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }

    #[test]
    fn the_producer_stops_at_the_high_mark_and_goes_on_when_its_client_reads() {
        let mut sim = Sim::new(1);
        let listener = sim.listen("127.0.0.1:7000", |_| Some(Numbers(0))).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.stop_reading();
        sim.run_for(Duration::from_secs(1)).unwrap();
        let waiting = sim.metrics().buffered;
        assert!((65_537..65_545).contains(&waiting), "{waiting} bytes wait");
        client.resume_reading();
        sim.run_for(Duration::from_secs(10)).unwrap();
        let all: String = (0..100_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(client.take_received(), all);
    }
}

/// Its client that reconnects.
mod reconnecting {
    use std::time::Duration;

    use lariat::reconnect::{Keeper, Reconnect};
    use lariat::sim::Sim;
    use lariat::{Context, Control, Input, Outcome, Protocol};

    include!("readme/reconnect.rs");

    struct Client;

    impl Protocol for Client {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }

    #[test]
    fn the_client_is_there_soon_after_its_server() {
        let mut sim = Sim::new(1);
        let keeper = keep(&mut sim.control(), "10.0.0.1:7000").unwrap();
        sim.run_for(Duration::from_secs(10)).unwrap();
        assert!(sim.metrics().connects >= 5, "{}", sim.metrics().connects);
        let acceptor = sim.acceptor("10.0.0.1:7000").unwrap();
        sim.run_for(Duration::from_secs(31)).unwrap();
        assert!(acceptor.accept().is_some() && !keeper.is_over());
    }
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contents of the README's code blocks in `language`.
fn blocks(language: &str) -> Vec<String> {
    blocks_of("README.md", language)
}

fn blocks_of(file: &str, language: &str) -> Vec<String> {
    let readme = read(file);
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
    assert!(inside.is_none(), "a code block of {file} has no end");
    blocks
}

#[test]
fn every_rust_block_is_compiled() {
    let files = ["echo", "simulated", "produce", "reconnect"];
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
    for file in ["README.md", "README.es.md"] {
        let readme = read(file);
        let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for link in links.filter(|link| !link.starts_with("https://")) {
            assert!(root.join(link).exists(), "{file} links to {link}, which does not exist");
        }
    }
}

#[test]
fn the_spanish_readme_has_the_same_server_test_profile_and_commands() {
    let spanish = |language| blocks_of("README.es.md", language);
    assert_eq!(spanish("rust"), blocks("rust")[..2]);
    assert_eq!(spanish("toml"), blocks("toml"));
    let without_comment = |text: &String| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap().trim_end().to_owned()).collect()
    };
    let sessions: Vec<_> = blocks("text").iter().map(without_comment).collect();
    for session in spanish("text").iter().map(without_comment) {
        assert!(sessions.contains(&session), "{session:?}");
    }
    for (file, other) in [("README.md", "README.es.md"), ("README.es.md", "README.md")] {
        assert!(read(file).contains(&format!("]({other})")), "{file} does not name {other}");
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

/// The limits of jobs and lookups as `{:?}` prints them, and as the table has them without its
/// commas and spaces.
const JOBS: [[&str; 2]; 2] = [
    ["JobLimits { threads: 4, queue: 1024, deadline: 30s }", "4//1/024//30/s"],
    ["JobLimits { threads: 2, queue: 256, deadline: 5s }", "2//256//5/s"],
];

/// The fields of a struct and their values, as `{:?}` prints them.
fn fields(printed: &str) -> BTreeMap<String, String> {
    let inside = printed.split_once(" { ").unwrap().1.strip_suffix(" }").unwrap();
    // Those of a field that has fields itself are one value.
    let inside = JOBS.iter().fold(inside.to_owned(), |text, [from, to]| text.replace(from, to));
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
    if let Some([_, to]) = JOBS.iter().find(|[_, to]| *to == default.replace([',', ' '], "/")) {
        return vec![(*to).to_owned()];
    }
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
        ("lookups", CloseKind::Connect(ConnectFailure::Name)),
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
