//! How the examples on the reactor turn it: with an eye on the clock, and the line of `--stats`.

use std::fmt;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{Metrics, Report};

use crate::common::{self, Options};

/// Runs until a signal, until `--duration` is over, or until nothing is left to do.
pub(crate) fn run(reactor: &mut Reactor, options: &Options) -> common::Result<Report> {
    let start = Instant::now();
    let mut end = options.duration.and_then(|duration| start.checked_add(duration));
    let mut stats = options.stats.map(|every| Stats::new(every, start, reactor.metrics()));
    // Without a clock to watch, `run` below does it all.
    while (end.is_some() || stats.is_some()) && !reactor.is_over() {
        let now = Instant::now();
        if end.is_some_and(|end| end <= now) {
            reactor.handle().shutdown();
            end = None;
        }
        if let Some(stats) = &mut stats {
            stats.print_if_due(now, || reactor.metrics());
        }
        let due = end.into_iter().chain(stats.as_ref().and_then(|stats| stats.due)).min();
        reactor.turn(due.map(|due| due.saturating_duration_since(now)))?;
    }
    Ok(reactor.run()?)
}

/// The line of `--stats`.
struct Stats {
    every: Duration,
    due: Option<Instant>,
    last: Metrics,
}

impl Stats {
    fn new(every: Duration, now: Instant, last: Metrics) -> Stats {
        Stats { every, due: now.checked_add(every), last }
    }

    fn print_if_due(&mut self, now: Instant, metrics: impl FnOnce() -> Metrics) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let metrics = metrics();
        let seconds = (metrics.age - self.last.age).as_secs_f64().max(1e-9);
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        common::tell(format_args!(
            "{} open, {} accepted, {} closed; {:.0} callbacks/s, {} in/s, {} out/s, {} queued",
            metrics.open,
            metrics.accepted,
            metrics.closes.total(),
            rate(metrics.callbacks, self.last.callbacks),
            Size(rate(metrics.bytes_in, self.last.bytes_in)),
            Size(rate(metrics.bytes_out, self.last.bytes_out)),
            Size(metrics.buffered as f64),
        ));
        self.last = metrics;
        self.due = now.checked_add(self.every);
    }
}

/// A number of bytes, for people.
struct Size(f64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let mut size = self.0;
        let mut unit = None;
        for larger in units {
            if size < 1024.0 {
                break;
            }
            size /= 1024.0;
            unit = Some(larger);
        }
        match unit {
            None => write!(f, "{size:.0} B"),
            Some(unit) => write!(f, "{size:.1} {unit}"),
        }
    }
}
