//! What the system tells about processes, and the rest that is not networking.
use crate::Result;
use mio::{Events, Poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// CPU time of all threads of a process. Nanoseconds from the scheduler: the clock-tick counts in
/// `stat` are too coarse for runs of a second.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|e| format!("process {pid} cannot be looked at: {e}"))?;
    for task in tasks {
        // A thread may end between the listing and the reading.
        let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let on_cpu = line.split_whitespace().next().unwrap_or("0");
        sum += on_cpu.parse::<u64>().map_err(|e| format!("schedstat {line:?}: {e}"))?;
    }
    Ok(Duration::from_nanos(sum))
}

/// CPU time of a process, with that of its threads that have ended, in steps of 10 ms.
pub fn process_time(pid: u32) -> Result<Duration> {
    /// In which the kernel tells times to programs, on every usual architecture.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|e| format!("process {pid} cannot be looked at: {e}"))?;
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident bytes of a process, now and at its highest.
pub fn resident(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|e| format!("process {pid} cannot be looked at: {e}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("");
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}

/// Raises the soft limit of descriptors to the hard one, and says if that is still too few.
pub fn allow_descriptors(needed: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    match limit.maximum {
        Some(maximum) if maximum < needed as u64 + 16 => Err(format!(
            "{needed} connections need a higher limit of open files than {maximum} (ulimit -Hn)"
        )
        .into()),
        _ => Ok(()),
    }
}

/// Waits for events, at most until `until`. A signal counts as no event.
pub fn wait(poll: &mut Poll, events: &mut Events, until: Instant) -> Result<()> {
    match poll.poll(events, Some(until.saturating_duration_since(Instant::now()))) {
        Err(e) if e.kind() != ErrorKind::Interrupted => Err(e.into()),
        _ => Ok(()),
    }
}

/// One flat JSON object, built in order.
pub struct Line(String);

impl Line {
    pub fn new(mode: &str) -> Line {
        Line(format!("{{\"mode\":\"{mode}\""))
    }

    pub fn whole(mut self, name: &str, value: u64) -> Line {
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    pub fn number(mut self, name: &str, value: f64) -> Line {
        let _ = write!(self.0, ",\"{name}\":{value:.3}");
        self
    }

    pub fn numbers(mut self, name: &str, values: &[f64]) -> Line {
        let list: Vec<String> = values.iter().map(|v| format!("{v:.3}")).collect();
        let _ = write!(self.0, ",\"{name}\":[{}]", list.join(","));
        self
    }

    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
