//! Every bound in one place: [`Limits`] of one connection, [`DriverLimits`] of a whole driver.
//!
//! All are on by default except `idle` and `spin`. All can be printed with `{:?}`. A combination
//! that cannot work is refused with an [`Error`] where it is handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Op, Result};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The bounds of one connection. All connections of a listener share one copy.
///
/// ```
/// use std::time::Duration;
/// let mut limits = lariat::Limits::default();
/// limits.idle = Some(Duration::from_secs(60));
/// limits.input_max = 64 * 1024;
/// assert!(limits.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes read from one connection in a turn before the others have their turn \[256 KiB\]. More
    /// than 256 KiB has no effect: that is the size of the read buffer. A connection with a
    /// [`Filter`](crate::Filter), for instance TLS, reads at most 48 KiB. A connection that has a
    /// turn to itself may read four budgets. No meaning on blocking threads, which read 64 KiB at a
    /// time.
    pub read_budget: usize,
    /// Bytes that a protocol may leave unread \[1 MiB, at most 1 GiB\]. A `data` that consumes
    /// nothing while this much is unread ends the connection with
    /// [`InputFull`](crate::CloseKind::InputFull).
    pub input_max: usize,
    /// Unsent bytes above which a connection is congested \[64 KiB\]. Input is not read while more
    /// than this of what it has caused is unsent.
    pub high_mark: usize,
    /// Unsent bytes at or below which a congested connection gets `drained` \[16 KiB\].
    pub low_mark: usize,
    /// Bytes written to one connection in a turn before the others have their turn \[1 MiB\].
    /// Timers and the writes of other connections come later in the turn, each with as much again.
    /// An answer of at most `high_mark` bytes leaves whole. On blocking threads: bytes sent before
    /// the thread looks whether anything else is due.
    pub write_budget: usize,
    /// The most unsent bytes \[8 MiB\]; more ends the connection with
    /// [`OutputFull`](crate::CloseKind::OutputFull).
    pub output_max: usize,
    /// Notes that may wait for one connection \[64\]; one more is refused.
    pub notes_max: usize,
    /// Time for a connect to succeed \[30 s\]: for the lookup of a name, all attempts, and the
    /// handshake of the filter that the connection begins with.
    pub connect: Duration,
    /// Time for a filter's handshake \[10 s\]. Where the connection begins with it, `connect`
    /// bounds it as well.
    pub handshake: Duration,
    /// Time without a byte in either direction after which the connection ends \[off\]. It counts
    /// from the end of a callback that took long.
    pub idle: Option<Duration>,
    /// Time without progress in sending while bytes are unsent \[30 s\].
    pub write_stall: Duration,
    /// Time for the whole close: flushing, FIN and lingering \[10 s\]. If output is left then, the
    /// peer gets a reset, and [`Finished`](crate::CloseKind::Finished) or
    /// [`Shutdown`](crate::CloseKind::Shutdown) becomes `TimedOut(Close)`; any other reason stays.
    pub close_deadline: Duration,
    /// While lingering, time without a byte from the peer \[2 s\].
    pub linger_idle: Duration,
    /// Time for the whole of lingering \[5 s\].
    pub linger_total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            read_budget: 256 * KIB,
            input_max: MIB,
            high_mark: 64 * KIB,
            low_mark: 16 * KIB,
            write_budget: MIB,
            output_max: 8 * MIB,
            notes_max: 64,
            connect: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            idle: None,
            write_stall: Duration::from_secs(30),
            close_deadline: Duration::from_secs(10),
            linger_idle: Duration::from_secs(2),
            linger_total: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Checks whether these bounds can work together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`] names the field when a budget, `input_max` or `output_max` is
    /// 0, `low_mark` is above `high_mark`, `high_mark` is above `output_max`, `input_max` is above
    /// 1 GiB, or `idle` is zero.
    pub fn validate(&self) -> Result<()> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        if self.read_budget == 0 || self.write_budget == 0 {
            return fault("read_budget and write_budget must be at least 1 byte");
        }
        if self.input_max == 0 || self.output_max == 0 {
            return fault("input_max and output_max must be at least 1 byte");
        }
        if self.input_max > 1024 * MIB {
            return fault("input_max must be at most 1 GiB");
        }
        if self.low_mark > self.high_mark {
            return fault("low_mark must not be above high_mark");
        }
        if self.high_mark > self.output_max {
            return fault("high_mark must not be above output_max");
        }
        if self.idle == Some(Duration::ZERO) {
            return fault("idle must be longer than zero; None turns it off");
        }
        Ok(())
    }
}

/// What happens to connections beyond [`DriverLimits::connections_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// The listener pauses; further connections wait in the kernel's queue (the default).
    Pause,
    /// Further connections are accepted and closed at once.
    Shed,
}

/// The bounds of a whole driver.
///
/// ```
/// let mut limits = lariat::DriverLimits::default();
/// limits.connections_max = 100;
/// let reactor = lariat::reactor::Reactor::with_limits(limits)?;
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverLimits {
    /// Open connections, accepted and outgoing, and datagram sockets \[10,000;
    /// [`blocking`](DriverLimits::blocking): 256\]. Lingering connections are not counted. To bind
    /// one datagram socket more is an error of the kind [`Limit`](crate::ErrorKind::Limit), a
    /// connect ends with [`ConnectFailure::Limit`](crate::ConnectFailure::Limit).
    pub connections_max: usize,
    /// What happens above `connections_max` \[[`Overload::Pause`]\].
    pub overload: Overload,
    /// Open connections of one client's address, accepted by all listeners together \[off\]. One
    /// more is closed as soon as it is accepted, counted in
    /// [`Metrics::refused`](crate::Metrics::refused); the first of a series is logged. All
    /// addresses of an IPv6 network of 64 bits are one, but for link-local ones. Lingering and
    /// outgoing connections, adopted streams and Unix sockets are not counted. Behind a balancer
    /// the address is the balancer's.
    pub connections_per_address: Option<usize>,
    /// Connections accepted per turn and listener \[64\]. No meaning on blocking threads.
    pub accepts_max: usize,
    /// Requests from other threads that may wait \[1,024\]; one more is refused. Shutdown and abort
    /// are flags and never refused.
    pub posts_max: usize,
    /// Timers run per turn \[1,024\]. On blocking threads it is for those of the driver: so many
    /// run in a row, before closures have their turn.
    pub timers_max: usize,
    /// Connections that linger after their close \[1,024\]; beyond that the oldest is closed at
    /// once, with its reason.
    pub lingering_max: usize,
    /// Readiness events taken from the system per turn \[1,024\]. No meaning on blocking threads.
    pub events_max: usize,
    /// Time that shutdown leaves connections to finish before the rest are aborted \[30 s\]. When
    /// it is zero `stopping` still runs.
    pub drain: Duration,
    /// A turn longer than this starts the search for a slow callback \[100 ms\]; None turns it off.
    /// Turns that take less than a millisecond may go unnoticed.
    /// No meaning on blocking threads, where a slow callback keeps no other connection waiting.
    pub slow_callback: Option<Duration>,
    /// The threads of [`Control::offload`](crate::Control::offload) \[4 threads, 1,024 jobs
    /// waiting, 30 s\].
    pub jobs: JobLimits,
    /// The threads that look names up for a connect \[2 threads, 256 lookups waiting, 5 s\].
    pub lookups: JobLimits,
    /// Time to poll without sleeping before each sleep \[off\]. It burns a core and lowers the
    /// latency of a lone client. No meaning on blocking threads.
    pub spin: Option<Duration>,
}

impl Default for DriverLimits {
    fn default() -> DriverLimits {
        DriverLimits {
            connections_max: 10_000,
            overload: Overload::Pause,
            connections_per_address: None,
            accepts_max: 64,
            posts_max: 1024,
            timers_max: 1024,
            lingering_max: 1024,
            events_max: 1024,
            drain: Duration::from_secs(30),
            slow_callback: Some(Duration::from_millis(100)),
            spin: None,
            jobs: JobLimits { threads: 4, queue: 1024, deadline: Duration::from_secs(30) },
            lookups: JobLimits { threads: 2, queue: 256, deadline: Duration::from_secs(5) },
        }
    }
}

impl DriverLimits {
    /// The defaults of the blocking driver: at most 256 connections, as each costs a thread or two;
    /// everything else as on the others.
    ///
    /// ```
    /// let mut limits = lariat::DriverLimits::blocking();
    /// limits.drain = std::time::Duration::from_secs(5);
    /// assert_eq!(limits.connections_max, 256);
    /// let driver = lariat::blocking::Blocking::with_limits(limits)?;
    /// # Ok::<(), lariat::Error>(())
    /// ```
    pub fn blocking() -> DriverLimits {
        DriverLimits { connections_max: 256, ..DriverLimits::default() }
    }

    /// Tells whether these bounds can work.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`] names the field when a maximum is 0 (`connections_per_address`
    /// too), `connections_max` or `lingering_max` is above 2^30, `events_max` is above 2^20,
    /// `threads` of `jobs` or `lookups` is above 1,024, or a time of them, `slow_callback` or
    /// `spin` is zero.
    pub fn validate(&self) -> Result<()> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        let least = [
            (self.connections_max, "connections_max must be at least 1"),
            (self.accepts_max, "accepts_max must be at least 1"),
            (self.posts_max, "posts_max must be at least 1"),
            (self.timers_max, "timers_max must be at least 1"),
            (self.lingering_max, "lingering_max must be at least 1"),
            (self.events_max, "events_max must be at least 1"),
        ];
        for (value, sentence) in least {
            if value == 0 {
                return fault(sentence);
            }
        }
        if self.connections_per_address == Some(0) {
            return fault("connections_per_address must be at least 1; None turns it off");
        }
        if self.connections_max > 1 << 30 {
            return fault("connections_max must be at most 2^30");
        }
        if self.lingering_max > 1 << 30 {
            return fault("lingering_max must be at most 2^30");
        }
        if self.events_max > 1 << 20 {
            return fault("events_max must be at most 2^20");
        }
        if self.slow_callback == Some(Duration::ZERO) {
            return fault("slow_callback must be longer than zero; None turns it off");
        }
        if self.spin == Some(Duration::ZERO) {
            return fault("spin must be longer than zero; None turns it off");
        }
        self.jobs.validate("jobs")?;
        self.lookups.validate("lookups")?;
        Ok(())
    }
}

/// The bounds of threads that do what blocks, away from the driver. The simulator has no such
/// threads; there as many jobs as `threads` and `queue` together may be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLimits {
    /// The most threads. They start when there is work, and end after ten seconds without any.
    pub threads: usize,
    /// Jobs that may wait for a thread; one more is refused.
    pub queue: usize,
    /// Time from the request to the result. A job that takes longer fails; its thread cannot be
    /// interrupted and is free when the job has ended.
    pub deadline: Duration,
}

impl JobLimits {
    fn validate(&self, name: &str) -> Result<()> {
        let wrong = if self.threads == 0 {
            "threads must be at least 1"
        } else if self.threads > 1024 {
            "threads must be at most 1024"
        } else if self.queue == 0 {
            "queue must be at least 1"
        } else if self.deadline.is_zero() {
            "deadline must be longer than zero"
        } else {
            return Ok(());
        };
        let error = Error::new(ErrorKind::InvalidLimits, Op::Limits);
        Err(error.with_detail(format!("{name}.{wrong}")))
    }
}

/// The largest [`Limits::output_max`] that any connection of a driver has had: more bytes for one
/// connection can never be kept.
#[derive(Clone, Debug)]
pub(crate) struct OutputMax(Arc<AtomicUsize>);

impl Default for OutputMax {
    fn default() -> OutputMax {
        OutputMax(Arc::new(AtomicUsize::new(Limits::default().output_max)))
    }
}

impl OutputMax {
    /// A connection has these limits from now on.
    pub(crate) fn note(&self, limits: &Limits) {
        if self.get() < limits.output_max {
            self.0.fetch_max(limits.output_max, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
