//! Running an example to its end, on whichever driver: signals, `--duration`, `--stats`, the ready
//! lines and the summary.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Driver, ListenerId, Metrics, Report};

use super::{Options, Result, ready, summary, tell};

/// A driver, with what the library's `Driver` leaves to each: signals, and running with an eye on
/// the clock.
pub(crate) trait Runner: Driver {
    /// Lets Ctrl-C and SIGTERM drain.
    fn stop_on_signals(&mut self) -> lariat::Result<()>;

    /// Runs until a signal, until `--duration` is over, or until nothing is left to do.
    fn run_as_told(&mut self, options: &Options) -> Result<Report>;
}

/// Says where `driver` listens, runs it, and says how it went.
pub(crate) fn run(driver: &mut impl Runner, listeners: &[ListenerId], options: &Options) -> Result {
    // Only now: until here, Ctrl-C ends the process as it does any other.
    driver.stop_on_signals()?;
    for listener in listeners {
        for addr in driver.addresses(*listener) {
            ready(addr, &options.how)?;
        }
    }
    let report = driver.run_as_told(options)?;
    summary(options, &driver.metrics(), &report);
    Ok(())
}

impl Runner for Reactor {
    fn stop_on_signals(&mut self) -> lariat::Result<()> {
        #[cfg(feature = "signals")]
        Reactor::stop_on_signals(self)?;
        Ok(())
    }

    fn run_as_told(&mut self, options: &Options) -> Result<Report> {
        let start = Instant::now();
        let mut end = options.duration.and_then(|duration| start.checked_add(duration));
        let mut stats = options.stats.map(|every| Stats::new(every, start, self.metrics()));
        // Without a clock to watch, `run` below does it all.
        while (end.is_some() || stats.is_some()) && !self.is_over() {
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                self.handle().shutdown();
                end = None;
            }
            if let Some(stats) = &mut stats {
                stats.print_if_due(now, || self.metrics());
            }
            let due = end.into_iter().chain(stats.as_ref().and_then(|stats| stats.due)).min();
            self.turn(due.map(|due| due.saturating_duration_since(now)))?;
        }
        Ok(Reactor::run(self)?)
    }
}

impl Runner for Blocking {
    fn stop_on_signals(&mut self) -> lariat::Result<()> {
        #[cfg(feature = "signals")]
        Blocking::stop_on_signals(self)?;
        Ok(())
    }

    /// The thread that runs it waits for all others, so one of its own keeps the time.
    fn run_as_told(&mut self, options: &Options) -> Result<Report> {
        let Some(duration) = options.duration else { return Ok(Blocking::run(self)?) };
        let handle = self.handle();
        let (over, waits) = mpsc::channel::<()>();
        let timer = thread::spawn(move || {
            if waits.recv_timeout(duration) == Err(mpsc::RecvTimeoutError::Timeout) {
                handle.shutdown();
            }
        });
        let report = Blocking::run(self);
        drop(over);
        // It has nothing to panic about.
        let _ = timer.join();
        Ok(report?)
    }
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
        tell(format_args!(
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
