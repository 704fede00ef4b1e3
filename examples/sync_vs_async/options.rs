//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::labels::Lang;
use crate::run::{Plan, SERVERS, Scene};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    Measure,
    Redraw(PathBuf),
    Compare(PathBuf, PathBuf),
    /// Something to print, and nothing to do.
    Text(String),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) task: Task,
    pub(crate) plan: Plan,
    /// Servers that were asked for; empty: all there are.
    pub(crate) servers: Vec<String>,
    /// Requests per second of the open loop at [`Scene::Loops`]; None: what all servers can do.
    pub(crate) rate: Option<f64>,
    pub(crate) lang: Lang,
    /// `-` in these is standard output.
    pub(crate) page: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) csv: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) picture: Option<PathBuf>,
    pub(crate) quiet: bool,
}

pub(crate) const PAGE: &str = "sync_vs_async.html";

pub(crate) const HELP: &str = "\
sync_vs_async: one protocol on threads and on a reactor, measured and drawn

usage: sync_vs_async [options]                     measures; about a minute
       sync_vs_async --redraw PAGE | --compare PAGE PAGE  a page again; two runs

      --quick, --thorough  about 15 s; about 10 minutes
      --http               HTTP/1.1 and a page instead of the adding game
  -c, --connections LIST   numbers of connections [1,100,1000]
      --idle PERCENT       how many of them only wait [0]
      --size BYTES         a request, and about its answer [as short as can be]
      --rounds N, --seconds T  measure each load N times, each T long [3, 0.5]
      --rate N             requests per second of the open loop [60 % of what
                           the slowest server does]
      --servers LIST       [serial,threads,reactor,offload,timer,py-threads,
                           py-asyncio]
      --scenes LIST        [steady,loops,slow,waiting,readers,idle,beside,trace]
      --lang LANG          en or es [en]
      --page FILE          the page [sync_vs_async.html]; --no-page for none
      --json, --csv, --trace (Perfetto), --picture (SVG)  FILE, or - for stdout
  -q, --quiet              no progress and no table
  -h, --help, -V, --version  print this, print the version
Only on the loopback interface; Ctrl-C ends it early, with a page of that much.

sync_vs_async --quick --page run.html";

/// A rule for a whole run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Quick,
    Usual,
    Thorough,
}

impl Effort {
    fn plan(self) -> Plan {
        let (connections, rounds, seconds) = match self {
            Effort::Quick => (vec![1, 10], 1, 0.1),
            Effort::Usual => (vec![1, 100, 1000], 3, 0.5),
            Effort::Thorough => (vec![1, 2, 5, 10, 30, 100, 300, 1000, 3000], 5, 1.5),
        };
        let scenes = Scene::ALL.to_vec();
        Plan { connections, rounds, seconds, scenes, ..Plan::default() }
    }
}

/// Reads the command line; `Err` is the sentence that says what is wrong with it.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Options, String> {
    let mut effort = Effort::Usual;
    let mut given = Given::default();
    let mut options = Options {
        task: Task::Measure,
        plan: Plan::default(),
        servers: Vec::new(),
        rate: None,
        lang: Lang::En,
        page: Some(PAGE.into()),
        json: None,
        csv: None,
        trace: None,
        picture: None,
        quiet: false,
    };
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("quick") => effort = Effort::Quick,
            Long("thorough") => effort = Effort::Thorough,
            Long("http") => given.http = true,
            Short('c') | Long("connections") => given.connections = Some(counts(&mut parser)?),
            Long("idle") => given.idle = Some(number(&mut parser, "--idle", 0, 99)?),
            Long("size") => given.size = Some(number(&mut parser, "--size", 1, 60_000)?),
            Long("rounds") => given.rounds = Some(number(&mut parser, "--rounds", 1, 100)?),
            Long("seconds") => given.seconds = Some(seconds(&mut parser)?),
            Long("rate") => {
                options.rate = Some(number(&mut parser, "--rate", 1, 10_000_000)? as f64);
            }
            Long("servers") => options.servers = servers(&mut parser)?,
            Long("scenes") => given.scenes = Some(scenes(&mut parser)?),
            Long("lang") => options.lang = lang(&mut parser)?,
            Long("page") => options.page = Some(file(&mut parser, "--page")?),
            Long("no-page") => options.page = None,
            Long("json") => options.json = Some(file(&mut parser, "--json")?),
            Long("csv") => options.csv = Some(file(&mut parser, "--csv")?),
            Long("trace") => options.trace = Some(file(&mut parser, "--trace")?),
            Long("picture") => options.picture = Some(file(&mut parser, "--picture")?),
            Long("redraw") => {
                let page = file(&mut parser, "--redraw")?;
                options.task = Task::Redraw(page);
            }
            Long("compare") => {
                let first = file(&mut parser, "--compare")?;
                options.task = Task::Compare(first, file(&mut parser, "--compare")?);
            }
            Short('q') | Long("quiet") => options.quiet = true,
            Short('h') | Long("help") => options.task = Task::Text(HELP.to_owned()),
            Short('V') | Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                options.task = Task::Text(format!("sync_vs_async (lariat {version})"));
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    // What is named overrules the effort, in whichever order they stand.
    options.plan = given.plan(effort);
    Ok(options)
}

#[derive(Default)]
struct Given {
    http: bool,
    connections: Option<Vec<usize>>,
    idle: Option<u64>,
    size: Option<u64>,
    rounds: Option<u64>,
    seconds: Option<f64>,
    scenes: Option<Vec<Scene>>,
}

impl Given {
    fn plan(self, effort: Effort) -> Plan {
        let plan = effort.plan();
        Plan {
            http: self.http,
            connections: self.connections.unwrap_or(plan.connections),
            idle_percent: self.idle.unwrap_or(0) as usize,
            size: self.size.unwrap_or(0) as usize,
            rounds: self.rounds.map_or(plan.rounds, |rounds| rounds as usize),
            seconds: self.seconds.unwrap_or(plan.seconds),
            scenes: self.scenes.unwrap_or(plan.scenes),
        }
    }
}

fn text(parser: &mut lexopt::Parser, flag: &str) -> Result<String, String> {
    let value = parser.value().map_err(|_| format!("{flag} needs a value"))?;
    Ok(value.to_string_lossy().into_owned())
}

fn file(parser: &mut lexopt::Parser, flag: &str) -> Result<PathBuf, String> {
    Ok(parser.value().map_err(|_| format!("{flag} needs a file"))?.into())
}

fn number(parser: &mut lexopt::Parser, flag: &str, low: u64, high: u64) -> Result<u64, String> {
    let text = text(parser, flag)?;
    let number = text.trim_end_matches('%').parse().ok();
    number
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| format!("{flag} {text}: not a number from {low} to {high}"))
}

fn seconds(parser: &mut lexopt::Parser) -> Result<f64, String> {
    let text = text(parser, "--seconds")?;
    let number: Option<f64> = text.trim_end_matches('s').parse().ok();
    number
        .filter(|number| (0.05..=600.0).contains(number))
        .ok_or_else(|| format!("--seconds {text}: not a number from 0.05 to 600"))
}

fn counts(parser: &mut lexopt::Parser) -> Result<Vec<usize>, String> {
    let text = text(parser, "--connections")?;
    let wrong = || format!("--connections {text}: not numbers from 1 to 100000, with commas");
    let mut counts = Vec::new();
    for word in text.split(',') {
        let count: usize = word.trim().parse().map_err(|_| wrong())?;
        if !(1..=100_000).contains(&count) {
            return Err(wrong());
        }
        counts.push(count);
    }
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}

fn servers(parser: &mut lexopt::Parser) -> Result<Vec<String>, String> {
    let text = text(parser, "--servers")?;
    let known = |name: &str| SERVERS.contains(&name);
    match text.split(',').find(|name| !known(name.trim())) {
        Some(name) => Err(format!("--servers {name}: there are {}", SERVERS.join(", "))),
        None => Ok(text.split(',').map(|name| name.trim().to_owned()).collect()),
    }
}

fn scenes(parser: &mut lexopt::Parser) -> Result<Vec<Scene>, String> {
    let text = text(parser, "--scenes")?;
    let scene = |name: &str| {
        let found = Scene::ALL.into_iter().find(|scene| scene.name() == name.trim());
        found.ok_or_else(|| {
            format!("--scenes {name}: there are {}", Scene::ALL.map(Scene::name).join(", "))
        })
    };
    let mut scenes = text.split(',').map(scene).collect::<Result<Vec<_>, _>>()?;
    scenes.sort_unstable();
    scenes.dedup();
    Ok(scenes)
}

fn lang(parser: &mut lexopt::Parser) -> Result<Lang, String> {
    match text(parser, "--lang")?.as_str() {
        "en" => Ok(Lang::En),
        "es" => Ok(Lang::Es),
        other => Err(format!("--lang {other}: there are en and es")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Options, String> {
        let words = std::iter::once("sync_vs_async").chain(line.split_whitespace());
        parse(lexopt::Parser::from_iter(words))
    }

    #[test]
    fn without_options_it_measures_three_rounds_of_half_a_second() {
        let options = of("").unwrap();
        assert!(matches!(options.task, Task::Measure));
        assert_eq!(options.plan.connections, [1, 100, 1000]);
        assert_eq!((options.plan.rounds, options.plan.seconds), (3, 0.5));
        assert_eq!(options.plan.scenes, Scene::ALL);
        assert_eq!(options.page, Some(PAGE.into()));
        assert_eq!((options.lang, options.quiet, options.plan.http), (Lang::En, false, false));
    }

    #[test]
    fn what_is_named_overrules_the_effort_in_any_order() {
        for line in ["--quick -c 5 --rounds 2", "-c 5 --rounds 2 --quick"] {
            let plan = of(line).unwrap().plan;
            assert_eq!((plan.connections, plan.rounds, plan.seconds), (vec![5], 2, 0.1));
        }
    }

    #[test]
    fn lists_are_sorted_and_each_thing_stands_once() {
        let options = of("-c 100,1,100 --scenes trace,slow --servers reactor,threads").unwrap();
        assert_eq!(options.plan.connections, [1, 100]);
        assert_eq!(options.plan.scenes, [Scene::Slow, Scene::Trace]);
        assert_eq!(options.servers, ["reactor", "threads"]);
    }

    #[test]
    fn the_other_options_arrive() {
        let options = of("--http --idle 90% --size 512 --seconds 2s --rate 500 --lang es -q \
                          --no-page --json - --csv a --trace b --picture c")
        .unwrap();
        let plan = &options.plan;
        assert_eq!((plan.http, plan.idle_percent, plan.size, plan.seconds), (true, 90, 512, 2.0));
        assert_eq!((options.rate, options.lang, options.quiet), (Some(500.0), Lang::Es, true));
        let files = [options.page, options.json, options.csv, options.trace, options.picture];
        let names = files.map(|file| file.map(|file| file.display().to_string()));
        assert_eq!(names.map(|n| n.unwrap_or_default()), ["", "-", "a", "b", "c"]);
        let compare = of("--compare a b").unwrap().task;
        assert!(
            matches!(compare, Task::Compare(a, b) if a.as_os_str() == "a" && b.as_os_str() == "b")
        );
        assert!(matches!(of("--redraw a").unwrap().task, Task::Redraw(_)));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (line, sentence) in [
            ("-c 0", "--connections 0: not numbers from 1 to 100000, with commas"),
            ("-c 1,x", "--connections 1,x: not numbers from 1 to 100000, with commas"),
            ("--idle 100", "--idle 100: not a number from 0 to 99"),
            ("--seconds 0", "--seconds 0: not a number from 0.05 to 600"),
            ("--lang fr", "--lang fr: there are en and es"),
            ("--size", "--size needs a value"),
            ("--compare a", "--compare needs a file"),
            ("--nonsense", "invalid option '--nonsense'"),
        ] {
            assert_eq!(of(line).unwrap_err(), sentence);
        }
        assert!(of("--servers perl").unwrap_err().starts_with("--servers perl: there are serial"));
        assert!(of("--scenes x").unwrap_err().starts_with("--scenes x: there are steady"));
    }

    #[test]
    fn the_help_fits_a_terminal_and_names_every_server_and_scene() {
        assert!(HELP.lines().count() <= 24);
        assert!(HELP.lines().all(|line| line.chars().count() <= 80));
        for name in SERVERS.into_iter().chain(Scene::ALL.map(Scene::name)) {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
