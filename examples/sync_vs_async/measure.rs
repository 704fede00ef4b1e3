//! Measures: starts a server and a load for each job, and collects what they say.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use lariat::Limits;

use crate::child::{Child, End};
use crate::game::Adding;
use crate::load::Order;
use crate::options::Options;
use crate::proc;
use crate::run::{FORM, Left, LeftOut, Point, Queue, Run, SERVERS, Sample, Scene};
use crate::scenes::{self, Job, Rate};
use crate::serve::Served;
use crate::strace;

/// Descriptors of a server or a load beside those of its connections.
const FILES_BESIDE: u64 = 32;
/// A process that has not answered for so long, beyond the time of its work, has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at the unsent bytes of a server.
const SAMPLE_MS: u64 = 5;

/// Where the programs are that a run starts.
pub(crate) struct Programs {
    own: PathBuf,
    python: Option<PathBuf>,
    pub(crate) strace: Option<PathBuf>,
    /// strace can leave calls alone, instead of looking at each and then printing none.
    pub(crate) strace_leaves: bool,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) addr: std::net::SocketAddr,
}

impl Programs {
    fn find() -> Result<Programs, String> {
        let own = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
        // A shim that starts another program would be measured instead of it.
        let real = |python: PathBuf| {
            let script = "import sys; print(sys.executable)";
            let said = Command::new(python).args(["-c", script]).output().ok()?.stdout;
            Some(PathBuf::from(String::from_utf8(said).ok()?.trim())).filter(|path| path.is_file())
        };
        let (python, strace) = (which("python3").and_then(real), which("strace"));
        let strace_leaves = strace.as_ref().is_some_and(|strace| strace::can_leave(strace));
        Ok(Programs { own, python, strace, strace_leaves })
    }

    /// Starts `server`, under `before` if there is something.
    pub(crate) fn serve(
        &self,
        server: &str,
        http: bool,
        sample: bool,
        before: &[OsString],
    ) -> Result<Server, End> {
        let mut line: Vec<OsString> = before.to_vec();
        match (server.strip_prefix("py-"), &self.python) {
            (Some(kind), Some(python)) => {
                let script = match kind {
                    "threads" => include_str!("python/threads.py"),
                    _ => include_str!("python/tasks.py"),
                };
                // Isolated and without `site`: what an installation adds is none of CPython.
                line.extend([python.into(), "-uIS".into(), "-c".into(), script.into()]);
            }
            _ => {
                line.extend([self.own.clone().into(), "serve".into(), server.into()]);
                line.extend(http.then(|| "--http".into()));
                line.extend(sample.then(|| format!("--sample={SAMPLE_MS}").into()));
            }
        }
        let child = Child::start(&line[0], &line[1..])?;
        let addr = child.line(PATIENCE)?;
        let addr = addr.parse().map_err(|_| End::Failed(format!("no address: {addr}")))?;
        Ok(Server { child, addr })
    }

    /// Runs a load to its end.
    pub(crate) fn load(&self, order: &Order) -> Result<Sample, End> {
        let text = serde_json::to_string(order).map_err(|error| End::Failed(error.to_string()))?;
        let load = Child::start(OsStr::new(&self.own), &["load".into(), text.into()])?;
        let time = Duration::from_millis(order.warm_ms + order.run_ms);
        let line = load.line(PATIENCE + time)?;
        let result: Result<Sample, String> =
            serde_json::from_str(&line).map_err(|error| End::Failed(error.to_string()))?;
        result.map_err(End::Failed)
    }
}

/// A program on the PATH.
fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The first line of what a program says of its version.
fn version_of(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.trim().to_owned())
}

/// Measures everything that was asked for. Ctrl-C ends it early.
pub(crate) fn measure(options: &Options) -> Result<Run, String> {
    let programs = Programs::find()?;
    let begun = Instant::now();
    let mut run = Run {
        form: FORM,
        began: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()),
        machine: machine(&programs),
        plan: options.plan.clone(),
        ..Run::default()
    };
    let servers = servers(options, &programs, &mut run);
    run.servers = servers.iter().map(|&server| server.to_owned()).collect();
    limit_connections(&mut run);
    let jobs = scenes::jobs(&run.plan, &servers);
    let traces = strace::traces(&run.plan, &servers);
    let traces = if programs.strace.is_some() { traces } else { Vec::new() };
    let mut progress = Progress::new(jobs.len() + traces.len(), options.quiet);

    let before = proc::machine_ticks();
    let mut ended = Ok(());
    for job in &jobs {
        progress.tell(job.scene, job.server, job.connections);
        ended = step(&mut run, &format!("{} {}", job.scene.name(), job.server), |run| {
            run_job(&programs, job, options, run)
        });
        if ended.is_err() {
            break;
        }
    }
    for trace in &traces {
        if ended.is_err() {
            break;
        }
        progress.tell(Scene::Trace, trace.server, trace.connections);
        ended = step(&mut run, &format!("trace {}", trace.server), |run| {
            strace::record(&programs, trace, run)
        });
    }
    progress.end();
    run.broken_off = ended.is_err();
    run.took_s = begun.elapsed().as_secs_f64();
    let after = proc::machine_ticks();
    let others = (after.0 - before.0).saturating_sub(after.1 - before.1);
    run.machine.others_cores = others as f64 / proc::TICKS_PER_SECOND / run.took_s;
    rounded(&run).map_err(|error| error.to_string())
}

/// The run with three digits behind the point: nothing here is known better, and a page that is
/// drawn from its JSON is the same page.
fn rounded(run: &Run) -> serde_json::Result<Run> {
    fn round(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(values) => values.iter_mut().for_each(round),
            serde_json::Value::Object(values) => values.values_mut().for_each(round),
            serde_json::Value::Number(number) if number.is_f64() => {
                let number = number.as_f64().unwrap_or_default();
                // Shares of requests need more: 0.99999.
                let unit = if number.abs() < 1.0 { 1e7 } else { 1e3 };
                *value = serde_json::json!((number * unit).round() / unit);
            }
            _ => {}
        }
    }
    let mut value = serde_json::to_value(run)?;
    round(&mut value);
    serde_json::from_value(value)
}

/// Goes on after a failure, which the run keeps; `Err` is Ctrl-C.
fn step(
    run: &mut Run,
    what: &str,
    work: impl FnOnce(&mut Run) -> Result<(), End>,
) -> Result<(), ()> {
    match work(run) {
        Ok(()) => Ok(()),
        Err(End::Stopped) => Err(()),
        Err(End::Failed(why)) => {
            let detail = format!("{what}: {why}");
            run.left_out.push(LeftOut { what: Left::Failed, detail });
            Ok(())
        }
    }
}

fn machine(programs: &Programs) -> crate::run::Machine {
    let mut machine = proc::machine();
    machine.files_max = proc::files_limits().1;
    machine.state_bytes = size_of::<Adding>();
    machine.versions = vec![("lariat".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    let rustc = which("rustc").and_then(|rustc| version_of(&rustc, "--version"));
    let python = programs.python.as_ref().and_then(|python| version_of(python, "--version"));
    let strace = programs.strace.as_ref().and_then(|strace| version_of(strace, "--version"));
    for (name, said) in [("rustc", rustc), ("CPython", python), ("strace", strace)] {
        let number = said.as_deref().and_then(|said| {
            said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        });
        machine.versions.extend(number.map(|number| (name.to_owned(), number.to_owned())));
    }
    machine
}

/// The servers that take part; those that cannot are named in the run.
fn servers(options: &Options, programs: &Programs, run: &mut Run) -> Vec<&'static str> {
    let asked =
        |name: &str| options.servers.is_empty() || options.servers.iter().any(|s| s == name);
    let python = SERVERS.iter().any(|name| name.starts_with("py-") && asked(name));
    if options.plan.scenes.contains(&Scene::Trace) && programs.strace.is_none() {
        run.left_out.push(LeftOut { what: Left::Strace, detail: String::new() });
    }
    let missing = match (&programs.python, options.plan.http) {
        _ if !python => None,
        (_, true) => Some(Left::PythonHttp),
        (None, false) => Some(Left::Python),
        (Some(_), false) => None,
    };
    run.left_out.extend(missing.map(|what| LeftOut { what, detail: String::new() }));
    let there = |name: &str| !name.starts_with("py-") || missing.is_none();
    SERVERS.into_iter().filter(|name| asked(name) && there(name)).collect()
}

/// Takes out what the limit of open files does not allow.
fn limit_connections(run: &mut Run) {
    let most = run.machine.files_max.saturating_sub(FILES_BESIDE) as usize;
    let (allowed, too_many): (Vec<_>, Vec<_>) =
        run.plan.connections.iter().partition(|&&count| count <= most);
    run.plan.connections = allowed;
    if run.plan.connections.is_empty() {
        run.plan.connections.push(most.max(1));
    }
    for count in too_many {
        let detail = format!("{count}");
        run.left_out.push(LeftOut { what: Left::Files, detail });
    }
}

fn run_job(programs: &Programs, job: &Job, options: &Options, run: &mut Run) -> Result<(), End> {
    let plan = &run.plan;
    let rate = match job.rate {
        Rate::Closed => None,
        Rate::Open(rate) => Some(rate),
        Rate::ShareOfSlowest(share) => {
            Some(options.rate.unwrap_or_else(|| share * slowest(run, job.connections)))
        }
    };
    let own = !job.server.starts_with("py-");
    let sample = own && job.scene == Scene::Readers;
    let server = programs.serve(job.server, plan.http, sample, &[])?;
    let order = Order {
        addr: server.addr,
        pid: server.child.pid(),
        http: plan.http,
        echo: false,
        connections: job.connections - job.idle,
        idle: job.idle,
        unserved: if scenes::is_concurrent(job.server) { 0 } else { job.connections - 1 },
        flooders: job.flooders,
        slow_readers: job.slow_readers,
        size: plan.size,
        rate,
        special: job.special.clone(),
        warm_ms: job.warm_ms,
        run_ms: (job.seconds * 1e3) as u64,
        requests: None,
        marks: false,
        heat: job.heat,
    };
    let measured = programs.load(&order)?;
    let told = server.child.end();
    if sample {
        let served: Option<Served> = told.and_then(|line| serde_json::from_str(&line).ok());
        let limits = Limits::default();
        run.queues.retain(|queue| queue.server != job.server);
        run.queues.extend(served.map(|served| Queue {
            server: job.server.to_owned(),
            readers: job.slow_readers,
            high_mark: limits.high_mark as u64,
            low_mark: limits.low_mark as u64,
            samples: served.unsent,
        }));
    }
    let known = run.points.iter_mut().find(|point| {
        (point.scene, point.connections) == (job.scene, job.connections)
            && point.server == job.server
            && point.rate.is_some() == rate.is_some()
    });
    match known {
        Some(point) => point.rounds.push(measured),
        None => run.points.push(Point {
            scene: job.scene,
            server: job.server.to_owned(),
            connections: job.connections,
            rate,
            rounds: vec![measured],
        }),
    }
    Ok(())
}

/// The lowest throughput of the steady load at as many connections, to two digits.
fn slowest(run: &Run, connections: usize) -> f64 {
    let measured = run.points(Scene::Steady).filter(|point| point.connections == connections);
    let lowest = measured
        .filter(|point| point.server != "serial")
        .map(|point| point.spread(|sample| sample.per_s).middle)
        .fold(f64::INFINITY, f64::min);
    // Without the steady load: what every server can do.
    if lowest.is_finite() { lowest } else { 3000.0 }
}

/// One line on a terminal, and nothing elsewhere.
struct Progress {
    all: usize,
    done: usize,
    begun: Instant,
    shown: bool,
}

impl Progress {
    fn new(all: usize, quiet: bool) -> Progress {
        let shown = !quiet && std::io::stderr().is_terminal();
        Progress { all, done: 0, begun: Instant::now(), shown }
    }

    fn tell(&mut self, scene: Scene, server: &str, connections: usize) {
        self.done += 1;
        if self.shown {
            let (done, all, seconds) = (self.done, self.all, self.begun.elapsed().as_secs());
            let scene = scene.name();
            let line = format!("[{done}/{all}, {seconds} s] {scene}: {server}, {connections}");
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K{line}");
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_limit_of_files_are_left_out_and_named() {
        let mut run = Run::default();
        run.plan.connections = vec![1, 1000, 5000];
        run.machine.files_max = 1024;
        limit_connections(&mut run);
        assert_eq!(run.plan.connections, [1]);
        let details: Vec<_> = run.left_out.iter().map(|left| &left.detail[..]).collect();
        assert_eq!(details, ["1000", "5000"]);
        run.plan.connections = vec![5000];
        limit_connections(&mut run);
        assert_eq!(run.plan.connections, [992]);
        // As many as there is room for are not too many.
        run.left_out.clear();
        run.plan.connections = vec![991, 992, 993];
        limit_connections(&mut run);
        assert_eq!((run.plan.connections, run.left_out.len()), (vec![991, 992], 1));
    }

    #[test]
    fn what_is_written_has_three_digits_behind_the_point_and_a_share_seven() {
        let sample = |per_s, curve| Sample { per_s, curve, ..Sample::default() };
        let point = |sample| Point {
            scene: Scene::Steady,
            server: "reactor".to_owned(),
            connections: 1,
            rate: None,
            rounds: vec![sample],
        };
        let share = 0.999_990_04;
        let run = Run {
            points: vec![point(sample(1_234.567_89, vec![(share, 1.000_06), (1.0, 0.5)]))],
            ..Run::default()
        };
        let rounded = rounded(&run).unwrap();
        let expected = sample(1_234.568, vec![(0.99999, 1.0), (1.0, 0.5)]);
        assert_eq!(rounded, Run { points: vec![point(expected)], ..Run::default() });
    }

    #[test]
    fn the_open_loop_goes_by_the_slowest_server_that_serves_all() {
        let point = |server: &str, per_s| Point {
            scene: Scene::Steady,
            server: server.to_owned(),
            connections: 100,
            rate: None,
            rounds: vec![Sample { per_s, ..Sample::default() }],
        };
        let points = vec![point("serial", 5.0), point("reactor", 900.0), point("threads", 700.0)];
        let run = Run { points, ..Run::default() };
        assert_eq!(slowest(&run, 100), 700.0);
        assert_eq!(slowest(&run, 1), 3000.0);
    }
}
