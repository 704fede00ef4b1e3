//! Short runs under strace: system calls per request, the life of a client, and what each thread
//! does. strace makes every call slower, so no time of these runs stands in the table.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::calls;
use crate::child::End;
use crate::load::{BEGIN, END, Order, Special};
use crate::measure::{Programs, Server};
use crate::run::{Calls, Doing, Life, Plan, Run, Scene, Span, Window};

/// One run under strace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trace {
    pub(crate) server: &'static str,
    pub(crate) connections: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Calls,
    Life,
    Window,
}

/// Connections of the window, which together ask 2,000 times a second for 0.3 ms of computing.
const WINDOW_CONNECTIONS: usize = 12;
const WINDOW_RATE: f64 = 2000.0;
const WORK_MICROS: u64 = 300;
pub(crate) const WINDOW_US: f64 = 20_000.0;
/// Under strace a thread for each of more connections takes too long to start; CPython's threads
/// hand their lock round in so many calls that fewer are enough.
const CALLS_CONNECTIONS_MAX: usize = 1000;
const PYTHON_CONNECTIONS_MAX: usize = 100;
/// A run is over after so many requests of each connection, within these bounds.
const REQUESTS_EACH: u64 = 2;
const REQUESTS: std::ops::RangeInclusive<u64> = 300..=2000;

/// What a thread does once, when it starts. Where calls per request are counted, and not the life
/// of a thread drawn, these pass by strace: a thousand threads start three times as fast.
const LEAVING: [&str; 3] = [
    "--seccomp-bpf",
    "-e",
    "trace=!set_robust_list,rseq,sigaltstack,rt_sigprocmask,sched_getaffinity,prctl,gettid",
];

/// Whether `strace` knows [`LEAVING`], and may trace at all.
pub(crate) fn can_leave(strace: &Path) -> bool {
    let mut probe = Command::new(strace);
    probe.args(["-f", "-qq", "-o", "/dev/null"]).args(LEAVING).arg("true");
    let probe = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

pub(crate) fn traces(plan: &Plan, servers: &[&'static str]) -> Vec<Trace> {
    if !plan.scenes.contains(&Scene::Trace) {
        return Vec::new();
    }
    let mut traces = Vec::new();
    let plain = servers.iter().filter(|server| !matches!(**server, "offload" | "timer"));
    for &server in plain.clone() {
        traces.push(Trace { server, connections: 1, what: What::Life });
    }
    for &server in plain.clone().filter(|server| **server != "serial") {
        traces.push(Trace { server, connections: WINDOW_CONNECTIONS, what: What::Window });
    }
    for &connections in plan.connections.iter().filter(|&&c| c <= CALLS_CONNECTIONS_MAX) {
        // One client at a time makes the same calls for one and for a thousand.
        let takes_part = |server: &&&str| match **server {
            "serial" => connections == 1,
            "py-threads" => connections <= PYTHON_CONNECTIONS_MAX,
            _ => true,
        };
        for &server in plain.clone().filter(takes_part) {
            traces.push(Trace { server, connections, what: What::Calls });
        }
    }
    traces
}

/// A file that is gone when this is.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) fn record(programs: &Programs, trace: &Trace, run: &mut Run) -> Result<(), End> {
    let Some(strace) = &programs.strace else { return Ok(()) };
    let name = format!("sync_vs_async.{}.{}", std::process::id(), trace.server);
    let file = Scratch(std::env::temp_dir().join(name));
    let mut before: Vec<OsString> = vec![strace.into(), "-f".into(), "-qq".into()];
    before.extend(["-ttt", "-T", "-s", "48", "-o"].map(OsString::from));
    before.push(file.0.clone().into());
    if trace.what == What::Calls && programs.strace_leaves {
        before.extend(LEAVING.map(OsString::from));
    }
    let server = programs.serve(trace.server, run.plan.http, false, &before)?;
    match trace.what {
        What::Life => live(&server, run.plan.http)?,
        What::Calls | What::Window => {
            programs.load(&order(trace, &server, run))?;
        }
    }
    server.child.end();
    let text = fs::read_to_string(&file.0)
        .map_err(|error| End::Failed(format!("strace wrote nothing: {error}")))?;
    keep(trace, &calls::parse(&text), run)
        .ok_or_else(|| End::Failed("the trace lacks the marked requests".to_owned()))
}

fn order(trace: &Trace, server: &Server, run: &Run) -> Order {
    let window = trace.what == What::Window;
    let work = Special { verb: "work".to_owned(), micros: WORK_MICROS, one_in: 1 };
    let each = trace.connections as u64 * REQUESTS_EACH;
    Order {
        addr: server.addr,
        pid: server.child.pid(),
        http: run.plan.http,
        echo: false,
        connections: trace.connections,
        idle: 0,
        unserved: 0,
        flooders: 0,
        slow_readers: 0,
        size: run.plan.size,
        rate: window.then_some(WINDOW_RATE),
        special: window.then_some(work),
        warm_ms: 0,
        run_ms: if window { 300 } else { 3000 },
        requests: Some(each.clamp(*REQUESTS.start(), *REQUESTS.end())),
        marks: true,
        heat: false,
    }
}

/// Puts into the run what the calls show.
fn keep(trace: &Trace, calls: &[calls::Call], run: &mut Run) -> Option<()> {
    let server = trace.server.to_owned();
    let (from, to) = calls::marks(calls, BEGIN, END)?;
    match trace.what {
        What::Calls => {
            let counts = calls::count(calls, from, to);
            let answers = calls.iter().filter(|c| c.writes() && c.ended > from && c.ended <= to);
            let requests = answers.count() as u64;
            run.calls.push(Calls {
                server,
                connections: trace.connections,
                requests,
                calls: counts,
            });
        }
        What::Life => {
            let steps = calls::steps(calls, BEGIN, END)?;
            let mut threads: Vec<_> = calls.iter().map(|call| call.thread).collect();
            threads.sort_unstable();
            threads.dedup();
            run.lives.push(Life { server, threads: threads.len(), steps });
        }
        What::Window => {
            let lanes = quietest(calls, from, to);
            run.windows.push(Window { server, width_us: WINDOW_US, lanes });
        }
    }
    Some(())
}

/// Of all windows of the recording that have their full number of answers, the one in which the
/// threads ran least: what else the machine did stretched the others.
fn quietest(calls: &[calls::Call], from: f64, to: f64) -> Vec<Vec<Span>> {
    let expected = (WINDOW_RATE * WINDOW_US / 1e6) as usize - 2;
    let score = |lanes: &Vec<Vec<Span>>| {
        let time = |wanted: fn(Doing) -> bool| -> (usize, f64) {
            let spans = lanes.iter().flatten().filter(|span| wanted(span.doing));
            (spans.clone().count(), spans.map(|span| span.took_us).sum())
        };
        let (answers, wrote) = time(|doing| doing == Doing::Writing);
        let (_, ran) = time(|doing| doing == Doing::Running);
        (expected.saturating_sub(answers), (wrote + ran) as u64)
    };
    let steps = ((to - from) / WINDOW_US * 4.0) as usize;
    // The first and the last moments are those of the marks.
    let starts = (2..steps.saturating_sub(5).max(3)).map(|s| from + s as f64 * WINDOW_US / 4.0);
    let windows = starts.map(|start| calls::lanes(calls, start, WINDOW_US));
    windows.min_by_key(score).unwrap_or_default()
}

/// The client whose life is recorded: it connects, asks twice, and closes.
fn live(server: &Server, http: bool) -> Result<(), End> {
    // The server is then asleep, as it would be.
    thread::sleep(Duration::from_millis(50));
    let failed = |error: std::io::Error| End::Failed(format!("the client: {error}"));
    let mut stream = TcpStream::connect(server.addr).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    for number in [BEGIN, END] {
        let request = match http {
            true => format!("GET /{number} HTTP/1.1\r\nHost: lariat\r\n\r\n"),
            false => format!("{number}\n"),
        };
        // Long enough for the accept, or for the thread of the connection, to have its sleep.
        thread::sleep(Duration::from_millis(20));
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let (mut answer, until) = (Vec::new(), Instant::now() + Duration::from_secs(5));
        while !answer.ends_with(b"\n") || (http && !answer.ends_with(crate::web::HELLO)) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).map_err(failed)?;
            answer.extend_from_slice(&buffer[..count]);
            if count == 0 || Instant::now() > until {
                return Err(End::Failed("the client got no answer".to_owned()));
            }
        }
    }
    drop(stream);
    thread::sleep(Duration::from_millis(50));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plain_server_is_traced_and_one_client_at_a_time_without_a_crowd() {
        let plan = Plan {
            connections: vec![1, 100, 5000],
            scenes: Scene::ALL.to_vec(),
            ..Plan::default()
        };
        let traces = traces(&plan, &["serial", "threads", "timer"]);
        let of = |what| {
            let chosen = traces.iter().filter(move |trace| trace.what == what);
            chosen.map(|trace| (trace.server, trace.connections)).collect::<Vec<_>>()
        };
        assert_eq!(of(What::Life), [("serial", 1), ("threads", 1)]);
        assert_eq!(of(What::Window), [("threads", 12)]);
        assert_eq!(of(What::Calls), [("serial", 1), ("threads", 1), ("threads", 100)]);
        assert_eq!(super::traces(&Plan { scenes: vec![], ..plan }, &["threads"]), []);
    }
}
