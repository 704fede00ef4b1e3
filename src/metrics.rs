//! Counters of a driver.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use crate::reason::CloseKind;

/// A snapshot of a driver's counters since its start. Taking one costs a copy of this struct; on
/// blocking threads, a copy for each of them.
///
/// Blocking threads have no loop: there `turns` counts how often a thread has looked for due work,
/// and `events`, `late_timers`, `wakeups`, `slow_turns`, `slow_callbacks`, `longest_turn` and
/// `busy` stay 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Turns of the loop.
    pub turns: u64,
    /// Readiness events from the system.
    pub events: u64,
    /// Events, writes, closes, notes and timers for connections that had ended.
    pub stale: u64,
    /// Calls that read from the socket of a connection, or received a datagram.
    pub reads: u64,
    /// Calls that wrote to the socket of a connection, or sent a datagram.
    pub writes: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Callbacks run.
    pub callbacks: u64,
    /// Connections accepted from listeners for which there is a protocol, and streams adopted.
    pub accepted: u64,
    /// Further ones, which a factory refused, also by a panic, or which were shed or too many of
    /// one client.
    pub refused: u64,
    /// Failed accepts.
    pub accept_errors: u64,
    /// Connects asked for.
    pub connects: u64,
    /// Connections open now, accepted and outgoing, without those that linger.
    pub open: u64,
    /// Those of the open connections whose filter's handshake goes on now, as that of TLS:
    /// [`Limits::handshake`](crate::Limits::handshake) bounds it. `opened` has not run.
    pub handshaking: u64,
    /// Handshakes of filters that took a round trip and are complete.
    pub handshakes: u64,
    /// Handshakes that have ended without success: failed, cut or too late.
    pub failed_handshakes: u64,
    /// Connections that linger after their close now.
    pub lingering: u64,
    /// Connections now paused by their protocol.
    pub paused: u64,
    /// Connections now held by flow control: not read, because of unsent output they caused.
    pub held: u64,
    /// Unsent bytes now queued over all connections and datagram sockets.
    pub buffered: u64,
    /// Bytes that were written after `close` or `shutdown_write`.
    pub refused_bytes: u64,
    /// Notes refused because too many were waiting, or the connection was closing.
    pub refused_notes: u64,
    /// Datagram sockets bound.
    pub binds: u64,
    /// Datagram sockets that are open now.
    pub bound: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Datagrams that were to be sent and were dropped: too many waited, or the system did not take
    /// them later on. What the system or the network drops nobody tells.
    pub datagrams_dropped: u64,
    /// Datagrams received of which the end was cut off.
    pub datagrams_truncated: u64,
    /// Times that the network has said that a datagram did not arrive.
    pub datagrams_refused: u64,
    /// Jobs and lookups of names that were handed to threads.
    pub jobs: u64,
    /// Those of them without a result: refused, too late, or panicked.
    pub failed_jobs: u64,
    /// Timers fired.
    pub timers: u64,
    /// Timers fired more than 10 ms late.
    pub late_timers: u64,
    /// Wake-ups by other threads.
    pub wakeups: u64,
    /// Callbacks, factories and drops that panicked.
    pub panics: u64,
    /// Turns longer than [`DriverLimits::slow_callback`](crate::DriverLimits::slow_callback).
    pub slow_turns: u64,
    /// Callbacks found to be slow; the log names them.
    pub slow_callbacks: u64,
    /// The longest turn. One that takes less than a millisecond may go unnoticed.
    pub longest_turn: Duration,
    /// Time spent working, estimated from one turn in sixteen.
    pub busy: Duration,
    /// Time since the driver's start.
    pub age: Duration,
    /// Connections and datagram sockets ended, by the kind of their reason.
    pub closes: Closes,
}

/// Adds each counter of `$other` to that of `$sum`. A counter that is not listed does not compile.
macro_rules! sum {
    ($kind:ident, $sum:ident, $other:ident, rest: $($rest:ident)*, each: $($each:ident)*) => {
        let $kind { $($rest: _,)* $($each,)* } = $other;
        $($sum.$each += $each;)*
    };
}

/// Adds the counters of another driver, gauges included: for a server that runs several, as one
/// [`Reactor`](crate::reactor::Reactor) per core. The longest turn is the longer of the two, and
/// the age stays.
///
/// ```
/// use lariat::Metrics;
///
/// let each = [Metrics::default(), Metrics::default()];
/// let mut sum = Metrics::default();
/// for metrics in &each {
///     sum += metrics;
/// }
/// assert_eq!(sum, Metrics::default());
/// ```
impl AddAssign<&Metrics> for Metrics {
    fn add_assign(&mut self, other: &Metrics) {
        // Listed one by one, so that a new counter cannot be forgotten.
        sum!(Metrics, self, other, rest: longest_turn busy age closes, each:
            turns events stale reads writes bytes_in bytes_out callbacks accepted refused
            accept_errors connects open handshaking handshakes failed_handshakes lingering paused
            held buffered refused_bytes refused_notes binds bound datagrams_in datagrams_out
            datagrams_dropped datagrams_truncated datagrams_refused jobs failed_jobs timers
            late_timers wakeups panics slow_turns slow_callbacks);
        self.longest_turn = self.longest_turn.max(other.longest_turn);
        self.busy += other.busy;
        self.closes += &other.closes;
    }
}

/// All counters, one line per topic:
///
/// ```
/// let metrics = lariat::Metrics::default();
/// assert_eq!(
///     metrics.to_string(),
///     "\
/// connections: 0 open, 0 lingering, 0 paused, 0 held; 0 accepted, 0 refused, 0 connects
/// handshakes: 0 going on, 0 complete, 0 failed
/// closed: 0
/// bytes: 0 in by 0 reads, 0 out by 0 writes, 0 unsent
/// datagrams: 0 in, of them 0 truncated, 0 out, 0 dropped, 0 refused; 0 of 0 sockets open
/// callbacks: 0, of them 0 slow; 0 timers, of them 0 late; 0 jobs, of them 0 failed; 0 panics
/// turns: 0, of them 0 slow, the longest 0ns; 0 events, 0 wake-ups; busy 0ns of 0ns
/// lost: 0 bytes and 0 notes refused, 0 requests for ended connections, 0 failed accepts"
/// );
/// ```
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metrics {
            turns,
            events,
            stale,
            reads,
            writes,
            bytes_in,
            bytes_out,
            callbacks,
            accepted,
            refused,
            accept_errors,
            connects,
            open,
            handshaking,
            handshakes,
            failed_handshakes,
            lingering,
            paused,
            held,
            buffered,
            refused_bytes,
            refused_notes,
            binds,
            bound,
            datagrams_in,
            datagrams_out,
            datagrams_dropped,
            datagrams_truncated,
            datagrams_refused,
            jobs,
            failed_jobs,
            timers,
            late_timers,
            wakeups,
            panics,
            slow_turns,
            slow_callbacks,
            longest_turn,
            busy,
            age,
            closes,
        } = self;
        writeln!(
            f,
            "connections: {open} open, {lingering} lingering, {paused} paused, {held} held; \
             {accepted} accepted, {refused} refused, {connects} connects"
        )?;
        writeln!(
            f,
            "handshakes: {handshaking} going on, {handshakes} complete, {failed_handshakes} failed"
        )?;
        writeln!(f, "closed: {closes}")?;
        writeln!(
            f,
            "bytes: {bytes_in} in by {reads} reads, {bytes_out} out by {writes} writes, \
             {buffered} unsent"
        )?;
        writeln!(
            f,
            "datagrams: {datagrams_in} in, of them {datagrams_truncated} truncated, \
             {datagrams_out} out, {datagrams_dropped} dropped, {datagrams_refused} refused; \
             {bound} of {binds} sockets open"
        )?;
        writeln!(
            f,
            "callbacks: {callbacks}, of them {slow_callbacks} slow; {timers} timers, of them \
             {late_timers} late; {jobs} jobs, of them {failed_jobs} failed; {panics} panics"
        )?;
        writeln!(
            f,
            "turns: {turns}, of them {slow_turns} slow, the longest {longest_turn:?}; {events} \
             events, {wakeups} wake-ups; busy {busy:?} of {age:?}"
        )?;
        write!(
            f,
            "lost: {refused_bytes} bytes and {refused_notes} notes refused, {stale} requests for \
             ended connections, {accept_errors} failed accepts"
        )
    }
}

/// How many connections ended in which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closes {
    /// [`CloseKind::Finished`].
    pub finished: u64,
    /// [`CloseKind::Reset`].
    pub reset: u64,
    /// [`CloseKind::Aborted`].
    pub aborted: u64,
    /// [`CloseKind::TimedOut`], for any deadline.
    pub timed_out: u64,
    /// [`CloseKind::InputFull`].
    pub input_full: u64,
    /// [`CloseKind::OutputFull`].
    pub output_full: u64,
    /// [`CloseKind::Connect`], for any failure.
    pub connect: u64,
    /// [`CloseKind::Filter`], for any failure.
    pub filter: u64,
    /// [`CloseKind::Protocol`].
    pub protocol: u64,
    /// [`CloseKind::Refused`], for any status.
    pub refused: u64,
    /// [`CloseKind::Panicked`].
    pub panicked: u64,
    /// [`CloseKind::Shutdown`].
    pub shutdown: u64,
    /// [`CloseKind::Unsupported`].
    pub unsupported: u64,
    /// [`CloseKind::SystemError`].
    pub system_error: u64,
    /// [`CloseKind::Detached`].
    pub detached: u64,
}

impl AddAssign<&Closes> for Closes {
    fn add_assign(&mut self, other: &Closes) {
        sum!(Closes, self, other, rest:, each:
            finished reset aborted timed_out input_full output_full connect filter protocol
            refused panicked shutdown unsupported system_error detached);
    }
}

impl Closes {
    /// All connections that ended.
    pub fn total(&self) -> u64 {
        self.by_kind().iter().map(|(_, count)| count).sum()
    }

    /// Each counter under its name.
    fn by_kind(&self) -> [(&'static str, u64); 15] {
        let Closes {
            finished,
            reset,
            aborted,
            timed_out,
            input_full,
            output_full,
            connect,
            filter,
            protocol,
            refused,
            panicked,
            shutdown,
            unsupported,
            system_error,
            detached,
        } = *self;
        [
            ("finished", finished),
            ("reset", reset),
            ("aborted", aborted),
            ("timed out", timed_out),
            ("input full", input_full),
            ("output full", output_full),
            ("failed to connect", connect),
            ("failed in a filter", filter),
            ("failed in a protocol", protocol),
            ("refused by a protocol", refused),
            ("panicked", panicked),
            ("shut down", shutdown),
            ("unsupported", unsupported),
            ("failed in the system", system_error),
            ("detached", detached),
        ]
    }

    pub(crate) fn count(&mut self, kind: CloseKind) {
        *match kind {
            CloseKind::Finished => &mut self.finished,
            CloseKind::Reset => &mut self.reset,
            CloseKind::Aborted => &mut self.aborted,
            CloseKind::TimedOut(_) => &mut self.timed_out,
            CloseKind::InputFull => &mut self.input_full,
            CloseKind::OutputFull => &mut self.output_full,
            CloseKind::Connect(_) => &mut self.connect,
            CloseKind::Filter(_) => &mut self.filter,
            CloseKind::Protocol => &mut self.protocol,
            CloseKind::Refused(_) => &mut self.refused,
            CloseKind::Panicked => &mut self.panicked,
            CloseKind::Shutdown => &mut self.shutdown,
            CloseKind::Unsupported => &mut self.unsupported,
            CloseKind::SystemError => &mut self.system_error,
            CloseKind::Detached => &mut self.detached,
        } += 1;
    }
}

/// How many ended, and how. Kinds that have not occurred are left out.
///
/// ```
/// let mut closes = lariat::Closes::default();
/// (closes.finished, closes.timed_out) = (40, 2);
/// assert_eq!(closes.to_string(), "42, of them 40 finished, 2 timed out");
/// ```
impl fmt::Display for Closes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        let mut before = ", of them";
        for (name, count) in self.by_kind() {
            if count > 0 {
                write!(f, "{before} {count} {name}")?;
                before = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
