//! The chapter for learners: its two languages are one text, and its programs are what it says they
//! are. That they compile and run is for the documentation tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LANGUAGES: [&str; 2] = ["en", "es"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the pages of a language, without `.md`.
fn pages(language: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join(language)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(".md")?.to_owned())).collect()
}

fn page(language: &str, name: &str) -> String {
    read(&folder().join(language).join(format!("{name}.md")))
}

/// One part of a page.
#[derive(Debug, PartialEq)]
enum Part {
    /// How many `#`, and the title.
    Heading(usize, String),
    /// What stands behind the fence, and the lines.
    Code(String, Vec<String>),
    /// The rows of a table.
    Table(Vec<String>),
    /// The lines of a list or a paragraph.
    Text(Vec<String>),
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(tag) = line.strip_prefix("```") {
            let code = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned);
            parts.push(Part::Code(tag.to_owned(), code.collect()));
        } else if line.starts_with('#') {
            let level = line.bytes().take_while(|&byte| byte == b'#').count();
            parts.push(Part::Heading(level, line[level..].trim().to_owned()));
        } else if !line.is_empty() {
            let mut together = vec![line.to_owned()];
            while let Some(next) = lines.next_if(|next| !next.is_empty()) {
                together.push(next.to_owned());
            }
            let table = line.starts_with('|');
            parts.push(if table { Part::Table(together) } else { Part::Text(together) });
        }
    }
    parts
}

/// A program without its comments, which are translated.
fn program(lines: &[String]) -> Vec<String> {
    let code = lines.iter().map(|line| line.split("//").next().unwrap().trim_end().to_owned());
    // A line that was a comment alone.
    code.zip(lines)
        .filter(|(code, line)| !code.is_empty() || line.is_empty())
        .map(|it| it.0)
        .collect()
}

fn programs(text: &str) -> Vec<Vec<String>> {
    let parts = parts(text).into_iter();
    parts
        .filter_map(|part| if let Part::Code(_, lines) = part { Some(lines) } else { None })
        .collect()
}

/// What has to be the same in a translation.
fn shape(part: &Part) -> String {
    match part {
        Part::Heading(level, title) => {
            let number: String = title.chars().take_while(|c| *c != ' ').collect();
            let numbered = number.ends_with('.') && number.len() > 1;
            format!("heading {level} {}", if numbered { &number } else { "" })
        }
        Part::Code(tag, lines) => format!("{tag} {:#?}", program(lines)),
        Part::Table(rows) => {
            let cells: Vec<_> = rows.iter().map(|row| row.matches('|').count()).collect();
            format!("table {cells:?} {:?}", links(rows))
        }
        Part::Text(lines) => {
            let items = lines.iter().filter(|line| line.starts_with(['-', '1', '2', '3'])).count();
            let bold = lines[0].starts_with("**");
            format!("text, {items} items, bold {bold}, {:?}", links(lines))
        }
    }
}

/// Where the links lead, in the order of the alphabet: a sentence may turn them around.
fn links(lines: &[String]) -> BTreeSet<String> {
    let text = lines.join(" ");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

fn titles(text: &str) -> Vec<String> {
    let parts = parts(text).into_iter();
    parts
        .filter_map(|part| if let Part::Heading(_, title) = part { Some(title) } else { None })
        .collect()
}

#[test]
fn both_languages_have_the_same_pages_and_show_all_of_them() {
    assert_eq!(pages("en"), pages("es"));
    assert!(pages("en").len() >= 10);
    for (language, module) in [("en", "mod.rs"), ("es", "es.rs")] {
        let source = read(&folder().join(module));
        let contents = page(language, "guide");
        for name in pages(language) {
            assert!(source.contains(&format!("\"{language}/{name}.md\"")), "{module}: {name}");
            if name != "guide" {
                assert!(contents.contains(&format!("| [`{name}`] |")), "{language}: {name}");
            }
        }
    }
}

#[test]
fn both_languages_have_the_same_sections_tables_links_and_programs() {
    for name in pages("en") {
        let [english, spanish] = LANGUAGES.map(|language| parts(&page(language, &name)));
        for (english, spanish) in english.iter().zip(&spanish) {
            assert_eq!(shape(english), shape(spanish), "{name}");
        }
        assert_eq!(english.len(), spanish.len(), "{name}");
    }
}

#[test]
fn what_is_not_code_is_translated() {
    for name in pages("en") {
        let [english, spanish] = LANGUAGES.map(|language| parts(&page(language, &name)));
        for (english, spanish) in english.iter().zip(&spanish) {
            match (english, spanish) {
                (Part::Code(..), _) => {}
                (Part::Heading(_, one), Part::Heading(_, other)) => {
                    assert!(one != other || one.ends_with("TLS"), "{name}: {one}");
                }
                (one, other) => assert_ne!(one, other, "{name}"),
            }
        }
        let comments = |language| -> BTreeSet<String> {
            let programs = programs(&page(language, &name)).into_iter().flatten();
            programs.filter_map(|line| Some(line.split_once("// ")?.1.to_owned())).collect()
        };
        let same: Vec<_> = comments("en").intersection(&comments("es")).cloned().collect();
        assert!(same.is_empty(), "{name}: {same:?}");
    }
}

#[test]
fn every_program_is_compiled_and_run_and_none_sleeps_for_a_time() {
    for name in pages("en") {
        for part in parts(&page("en", &name)) {
            let Part::Code(tag, lines) = part else { continue };
            assert_eq!(tag, "rust", "{name}: a program that is not run");
            let program = lines.join("\n");
            assert!(!program.contains("sleep("), "{name}: {program}");
            // Every address that is listened on or bound is a free port.
            for call in ["listen(\"", "bind(\"", "bind_with(\""] {
                for rest in program.split(call).skip(1) {
                    assert!(rest.starts_with("127.0.0.1:0\""), "{name}: {call}{rest}");
                }
            }
        }
    }
}

#[test]
fn each_step_has_its_synchronous_and_its_asynchronous_form_and_pythons() {
    let says = |name: &str, words: &str| page("en", name).contains(words);
    for name in pages("en").iter().filter(|name| *name != "guide") {
        assert!(says(name, "**Synchronous"), "{name}");
        assert!(says(name, "synchronous** ") || says(name, "**Asynchronous"), "{name}");
        let sections = titles(&page("en", name)).len();
        assert_eq!(page("en", name).matches("**In Python:**").count(), sections, "{name}");
        assert_eq!(page("es", name).matches("**En Python:**").count(), sections, "{name}");
    }
}

#[test]
fn programs_with_a_protocol_run_on_threads_and_on_the_reactor() {
    let mut count = 0;
    for name in pages("en") {
        for lines in programs(&page("en", &name)) {
            let text = lines.join("\n");
            if !text.contains("Protocol for") {
                continue;
            }
            count += 1;
            let both = ["Blocking::new()", "Reactor::new()?"].iter().all(|it| text.contains(it));
            let clients = ["blocking::connect", "reactor::connect"];
            assert!(both || clients.iter().all(|it| text.contains(it)), "{name}:\n{text}");
        }
    }
    assert_eq!(count, 11, "protocols");
}

#[test]
fn the_pages_lead_from_one_to_the_next() {
    let contents = page("en", "guide");
    let order: Vec<_> = contents
        .lines()
        .filter_map(|line| line.strip_prefix("| [`")?.split_once('`').map(|it| it.0.to_owned()))
        .collect();
    assert_eq!(order.len(), pages("en").len() - 1);
    for pair in order.windows(2) {
        for (language, word) in [("en", "Next: ["), ("es", "Sigue: [")] {
            let text = page(language, &pair[0]);
            let last = text.lines().last().unwrap_or_default();
            let leads = last.starts_with(word) && last.ends_with(&format!("]({}).", pair[1]));
            assert!(leads, "{language}/{}: {last}", pair[0]);
        }
    }
}
