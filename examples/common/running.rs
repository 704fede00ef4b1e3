//! Running an example to its end, on whichever driver: signals, `--duration`, `--stats`, the ready
//! lines and the summary.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lariat::{ConnId, Control, Driver, Endpoint, ListenerId, Metrics};

use super::{Options, Result, ready, summary, tell};

/// What is served, and where: a listener, or a datagram socket.
pub(crate) trait Served {
    fn addresses(&self, driver: &dyn Driver) -> Vec<Endpoint>;
}

impl Served for ListenerId {
    fn addresses(&self, driver: &dyn Driver) -> Vec<Endpoint> {
        driver.addresses(*self)
    }
}

impl Served for ConnId {
    fn addresses(&self, driver: &dyn Driver) -> Vec<Endpoint> {
        driver.bound_addr(*self).into_iter().collect()
    }
}

/// Says where `driver` listens, runs it until a signal or the end of `--duration`, and says how it
/// went.
pub(crate) fn run(driver: &mut dyn Driver, served: &[impl Served], options: &Options) -> Result {
    // Only now: until here, Ctrl-C ends the process as it does any other.
    if cfg!(feature = "signals") {
        driver.stop_on_signals()?;
    }
    for addr in served.iter().flat_map(|served| served.addresses(driver)).collect::<Vec<_>>() {
        ready(addr, options)?;
    }
    let mut control = driver.control();
    if let Some(duration) = options.duration {
        control.set_timer(duration, |control| control.shutdown());
    }
    if let Some(every) = options.stats {
        let stats = Stats { every, udp: options.udp, counted: options.counted };
        let last = stats.look(&control);
        control.set_timer(every, move |control| stats.print(control, &last));
    }
    drop(control);
    let report = driver.run()?;
    summary(options, &driver.metrics(), &report);
    Ok(())
}

/// What `--stats` prints.
#[derive(Clone, Copy)]
struct Stats {
    every: Duration,
    udp: bool,
    counted: Option<(&'static str, &'static AtomicU64)>,
}

/// The counters at one moment.
struct Look {
    metrics: Metrics,
    /// Of [`Stats::counted`].
    count: u64,
}

impl Stats {
    fn look(&self, control: &Control<'_>) -> Look {
        let count = self.counted.map_or(0, |(_, count)| count.load(Ordering::Relaxed));
        Look { metrics: control.metrics(), count }
    }

    /// One line, and the next one `every` later.
    fn print(self, control: &mut Control<'_>, last: &Look) {
        let now = self.look(control);
        tell(format_args!("{}", self.line(&now, last)));
        control.set_timer(self.every, move |control| self.print(control, &now));
    }

    /// What has happened since `last`, per second of the time that it took.
    fn line(&self, now: &Look, last: &Look) -> String {
        let (metrics, before) = (&now.metrics, &last.metrics);
        let seconds = (metrics.age - before.age).as_secs_f64().max(1e-9);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let bytes = format!(
            "{} in/s, {} out/s, {} queued",
            Size(rate(metrics.bytes_in, before.bytes_in)),
            Size(rate(metrics.bytes_out, before.bytes_out)),
            Size(metrics.buffered as f64),
        );
        if self.udp {
            return format!(
                "{:.0} datagrams in/s, {:.0} out/s, {:.0} dropped/s; {bytes}",
                rate(metrics.datagrams_in, before.datagrams_in),
                rate(metrics.datagrams_out, before.datagrams_out),
                rate(metrics.datagrams_dropped, before.datagrams_dropped),
            );
        }
        let counted = match self.counted {
            Some((name, _)) => format!("{:.0} {name}/s, ", rate(now.count, last.count)),
            None => String::new(),
        };
        format!(
            "{} open, {:.1} accepted/s, {:.1} closed/s; {counted}{bytes}",
            metrics.open,
            rate(metrics.accepted, before.accepted),
            rate(metrics.closes.total(), before.closes.total()),
        )
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
