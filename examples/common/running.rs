//! Running an example to its end, on one driver or several: signals, `--duration`, `--stats`, the
//! ready lines and the summary.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lariat::{Address, ConnId, Driver, Endpoint, Handle, ListenerId, Metrics, Report};

use super::{Failure, Options, Result, ready, summary, tell};

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

/// How a driver has ended.
type Ended = Result<(Metrics, Report)>;

/// Serves at each address on as many drivers as `--threads` says, each on a thread of its own.
/// `open` listens, or binds, at an address; when it is passed true, the driver shares the address
/// with others, by `reuse_port`.
#[allow(dead_code)] // Not every example has `--threads`.
pub(crate) fn serve<S: Served>(
    options: &Options,
    open: impl Fn(&mut dyn Driver, &Address, bool) -> Result<S> + Sync,
) -> Result {
    let open_all = |shares| -> Result<_> {
        let mut driver = options.driver()?;
        let open = |addr| open(&mut *driver, addr, shares);
        let served = options.addrs.iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok((driver, served))
    };
    let shares = options.threads > 1;
    if shares {
        // A port in use is an error here too. Once it is shared, the system lets each process of
        // this user in, and two servers would divide the clients between them.
        drop(open_all(false)?);
    }
    let (mut driver, served) = open_all(shares)?;
    // The others listen where this one does, also at a port that the system has chosen.
    let addrs = served.iter().flat_map(|served| served.addresses(&*driver)).map(Address::from);
    let addrs: Vec<Address> = addrs.collect();
    let run_further = |is_ready: Sender<()>| -> Ended {
        let mut driver = options.driver()?;
        for addr in &addrs {
            open(&mut *driver, addr, true)?;
        }
        prepare(&mut *driver, options)?;
        let _ = is_ready.send(());
        drop(is_ready);
        run_to_end(&mut *driver)
    };
    let ended = thread::scope(|scope| {
        let (is_ready, are_ready) = mpsc::channel();
        let start = |_| {
            let (is_ready, run_further) = (is_ready.clone(), &run_further);
            thread::Builder::new().spawn_scoped(scope, move || run_further(is_ready))
        };
        let threads: Vec<_> = (1..options.threads).map(start).collect();
        drop(is_ready);
        // It ends when each of them is ready or has failed.
        let all = are_ready.iter().count() == threads.len();
        let first = all.then(|| run_first(&mut *driver, &served, options));
        stop_all();
        let others = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(Failure::Sentence(format!("cannot start a thread: {error}"))),
        });
        first.into_iter().chain(others).collect::<Result<Vec<_>>>()
    })?;
    let sum = ended.into_iter().reduce(|(mut metrics, mut report), other| {
        metrics += &other.0;
        report += &other.1;
        (metrics, report)
    });
    let (metrics, report) = sum.unwrap_or_default();
    summary(options, &metrics, &report);
    Ok(())
}

/// Says where `driver` listens, runs it until a signal or the end of `--duration`, and says how it
/// went.
#[allow(dead_code)] // Those with `--threads` call `serve`.
pub(crate) fn run(driver: &mut dyn Driver, served: &[impl Served], options: &Options) -> Result {
    let (metrics, report) = run_first(driver, served, options)?;
    summary(options, &metrics, &report);
    Ok(())
}

/// Runs the driver that speaks for all.
fn run_first(driver: &mut dyn Driver, served: &[impl Served], options: &Options) -> Ended {
    // As late as it can be: until here, Ctrl-C ends the process as it does any other.
    prepare(driver, options)?;
    // The rates begin before the first client.
    let stats = options.stats.map(|every| {
        let stats = Stats { every, udp: options.udp, counted: options.counted };
        let last = stats.look();
        (stats, last)
    });
    for addr in served.iter().flat_map(|served| served.addresses(driver)).collect::<Vec<_>>() {
        ready(addr, options)?;
    }
    let Some((stats, last)) = stats else { return run_to_end(driver) };
    let (stop, is_stopped) = mpsc::channel();
    thread::scope(|scope| {
        // It waits for the counters of each driver, so it is the thread of none.
        scope.spawn(move || stats.print(last, &is_stopped));
        let ended = run_to_end(driver);
        drop(stop);
        ended
    })
}

/// What ends a driver: signals, and `--duration`.
fn prepare(driver: &mut dyn Driver, options: &Options) -> Result {
    if cfg!(feature = "signals") {
        driver.stop_on_signals()?;
    }
    if let Some(duration) = options.duration {
        driver.control().set_timer(duration, |control| control.shutdown());
    }
    let mut drivers = drivers();
    if drivers.stopped {
        driver.handle().shutdown();
    }
    drivers.handles.push(driver.handle());
    Ok(())
}

/// Runs a driver. When one has ended, all do.
fn run_to_end(driver: &mut dyn Driver) -> Ended {
    let report = driver.run();
    stop_all();
    Ok((driver.metrics(), report?))
}

/// The drivers of this process.
struct Drivers {
    handles: Vec<Handle>,
    stopped: bool,
}

static DRIVERS: Mutex<Drivers> = Mutex::new(Drivers { handles: Vec::new(), stopped: false });

fn drivers() -> MutexGuard<'static, Drivers> {
    DRIVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stop_all() {
    let mut drivers = drivers();
    drivers.stopped = true;
    drivers.handles.iter().for_each(Handle::shutdown);
}

/// The counters of all drivers, added up. It waits for them, so it is not for a callback.
pub(crate) fn metrics() -> Metrics {
    let handles = drivers().handles.clone();
    let sum = handles.iter().map(Handle::metrics).reduce(|mut sum, other| {
        sum += &other;
        sum
    });
    sum.unwrap_or_default()
}

/// What `--stats` prints.
struct Stats {
    every: Duration,
    udp: bool,
    counted: Option<(&'static str, &'static AtomicU64)>,
}

/// The counters at one moment.
struct Look {
    at: Instant,
    metrics: Metrics,
    /// Of [`Stats::counted`].
    count: u64,
}

impl Stats {
    fn look(&self) -> Look {
        let count = self.counted.map_or(0, |(_, count)| count.load(Ordering::Relaxed));
        Look { at: Instant::now(), metrics: metrics(), count }
    }

    /// A line each `every`, until the other end of `is_stopped` is dropped.
    fn print(&self, mut last: Look, is_stopped: &Receiver<()>) {
        while is_stopped.recv_timeout(self.every) == Err(RecvTimeoutError::Timeout) {
            let now = self.look();
            tell(format_args!("{}", self.line(&now, &last)));
            last = now;
        }
    }

    /// What has happened since `last`, per second of the time that it took.
    fn line(&self, now: &Look, last: &Look) -> String {
        let (metrics, before) = (&now.metrics, &last.metrics);
        let seconds = (now.at - last.at).as_secs_f64().max(1e-9);
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
