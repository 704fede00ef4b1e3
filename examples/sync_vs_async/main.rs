//! One protocol on blocking threads and on a reactor: measured, drawn, explained.
//!
//! ```text
//! $ cargo run --release --example sync_vs_async
//! ```
//!
//! plays an adding game (`game.rs`) against the same protocol under one client at a time, a thread
//! per connection and the reactor, and against CPython's `socketserver` and `asyncio` if `python3`
//! is there. It prints a table and what to notice in it, and writes a page with pictures,
//! `sync_vs_async.html`. `--help` has the options.
//!
//! Each server and each load is a process of its own: this program, started with a hidden first
//! argument. `scenes.rs` has the loads, `load/` plays the clients, `serve.rs` is the server,
//! `run.rs` the data that comes of it.

mod amounts;
mod calls;
mod child;
mod compare;
mod csv;
mod game;
mod labels;
mod load;
mod measure;
mod notes;
mod options;
mod page;
mod proc;
mod run;
mod scenes;
mod serve;
mod stop;
mod strace;
mod table;
mod trace;
mod web;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use labels::{Label, Lang, fill};
use options::{Options, Task};
use run::{Run, Sample};

/// Why the program ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    Sentence(String),
    /// Standard output is closed: no reason to say anything.
    NobodyReads,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::Sentence(error.to_string()),
        }
    }
}

impl From<lariat::Error> for Failure {
    fn from(error: lariat::Error) -> Failure {
        Failure::Sentence(error.to_string())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("serve") => serve(&arguments[1..]),
        Some("load") => load(&arguments[1..]),
        _ => match options::parse(lexopt::Parser::from_env()) {
            Ok(options) => run(&options),
            Err(sentence) => {
                tell(format_args!("sync_vs_async: {sentence} (try --help)"));
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Sentence(sentence)) => {
            tell(format_args!("sync_vs_async: {sentence}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for people, on standard error; dropped where that is closed.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The hidden server: `serve KIND [--http] [--sample=MS]`.
fn serve(arguments: &[String]) -> Result<(), Failure> {
    let kind = arguments.first().map_or("", String::as_str);
    let http = arguments.iter().any(|argument| argument == "--http");
    let sample = arguments.iter().find_map(|argument| argument.strip_prefix("--sample="));
    let sample = sample.and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
    serve::serve(kind, http, sample)
}

/// The hidden load: `load ORDER`. It prints what it measured, or what is wrong.
fn load(arguments: &[String]) -> Result<(), Failure> {
    let order = arguments.first().map_or("", String::as_str);
    let order = serde_json::from_str(order).map_err(|e| Failure::Sentence(e.to_string()))?;
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
    let result: Result<Sample, String> = load::load(&order).map_err(|failure| match failure {
        Failure::Sentence(sentence) => sentence,
        Failure::NobodyReads => "the server has closed a connection".to_owned(),
    });
    let text = serde_json::to_string(&result).map_err(|e| Failure::Sentence(e.to_string()))?;
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

fn run(options: &Options) -> Result<(), Failure> {
    match &options.task {
        Task::Text(text) => Ok(writeln!(io::stdout().lock(), "{text}")?),
        Task::Measure => {
            stop::watch();
            let run = measure::measure(options).map_err(Failure::Sentence)?;
            finish(&run, options, options.page.as_deref())
        }
        Task::Redraw(file) => {
            let run = read(file)?;
            // The page itself, unless another place is named.
            let named = options.page.as_deref().filter(|page| page.as_os_str() != options::PAGE);
            finish(&run, options, Some(named.unwrap_or(file)))
        }
        Task::Compare(first, second) => {
            let text = compared(first, second, options.lang)?;
            Ok(io::stdout().lock().write_all(text.as_bytes())?)
        }
    }
}

fn compared(first: &Path, second: &Path, lang: Lang) -> Result<String, Failure> {
    let [a, b] = [first, second].map(|file| file.display().to_string());
    Ok(compare::compare(&read(first)?, &read(second)?, [&a, &b], lang))
}

/// The run in a page, or in a file of `--json`.
fn read(file: &Path) -> Result<Run, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Sentence(format!("{name}: {error}")))?;
    page::run_in(&text).map_err(|sentence| Failure::Sentence(format!("{name}: {sentence}")))
}

/// Everything that is made from a run.
fn finish(run: &Run, options: &Options, page: Option<&Path>) -> Result<(), Failure> {
    let lang = options.lang;
    if !options.quiet {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let table = table::table(run, lang, colour);
        print(&table)?;
    }
    let unfit = |error: serde_json::Error| Failure::Sentence(error.to_string());
    if let Some(file) = page {
        put(file, &page::page(run, lang).map_err(unfit)?)?;
        if !options.quiet {
            let file = file.display().to_string();
            tell(format_args!("{}", fill(Label::PageWritten.text(lang), &[("file", file)])));
        }
    }
    if let Some(file) = &options.json {
        put(file, &serde_json::to_string_pretty(run).map_err(unfit)?)?;
    }
    if let Some(file) = &options.csv {
        put(file, &csv::csv(run))?;
    }
    if let Some(file) = &options.trace {
        put(file, &trace::trace(run, lang))?;
    }
    if let Some(file) = &options.picture {
        let picture = page::picture(run, lang);
        let missing = || Failure::Sentence(Label::LeftStrace.text(lang).to_owned());
        put(file, &picture.ok_or_else(missing)?)?;
    }
    Ok(())
}

/// Writes `text` to standard output. Where that is closed, the files are still written.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes `text` to `file`; `-` is standard output.
fn put(file: &Path, text: &str) -> Result<(), Failure> {
    if file.as_os_str() == "-" {
        return print(text);
    }
    std::fs::write(file, text)
        .map_err(|error| Failure::Sentence(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{FORM, Point, Scene};

    #[test]
    fn the_first_file_is_the_first_column() {
        let mut files = Vec::new();
        for (name, per_s) in [("first", 100.0), ("second", 300.0)] {
            let sample = Sample { per_s, ..Sample::default() };
            let (scene, server) = (Scene::Steady, "reactor".to_owned());
            let point = Point { scene, server, connections: 1, rate: None, rounds: vec![sample] };
            let run = Run { form: FORM, points: vec![point], ..Run::default() };
            let id = std::process::id();
            let file = std::env::temp_dir().join(format!("sync_vs_async.{id}.{name}"));
            put(&file, &page::page(&run, Lang::En).unwrap()).unwrap();
            files.push(file);
        }
        let text = compared(&files[0], &files[1], Lang::En);
        files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let text = text.unwrap();
        let row = text.lines().find(|line| line.contains("req/s")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells, ["reactor", "req/s", "100", "300", "3.00*"]);
        let names = text.lines().next().unwrap();
        assert!(names.contains("first (first)") && names.contains("second (second)"), "{names}");
    }
}
