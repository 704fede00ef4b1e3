//! Running an example to its end, on whichever driver: signals, `--duration`, `--stats`, the ready
//! lines and the summary.

use std::fmt;
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
        let last = control.metrics();
        control.set_timer(every, move |control| print_stats(control, every, &last));
    }
    drop(control);
    let report = driver.run()?;
    summary(options, &driver.metrics(), &report);
    Ok(())
}

/// The line of `--stats`, and the next one `every` later.
fn print_stats(control: &mut Control<'_>, every: Duration, last: &Metrics) {
    let metrics = control.metrics();
    let seconds = (metrics.age - last.age).as_secs_f64().max(1e-9);
    let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
    tell(format_args!(
        "{} open, {} accepted, {} closed; {:.0} callbacks/s, {} in/s, {} out/s, {} queued",
        metrics.open,
        metrics.accepted,
        metrics.closes.total(),
        rate(metrics.callbacks, last.callbacks),
        Size(rate(metrics.bytes_in, last.bytes_in)),
        Size(rate(metrics.bytes_out, last.bytes_out)),
        Size(metrics.buffered as f64),
    ));
    control.set_timer(every, move |control| print_stats(control, every, &metrics));
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
