//! Counters of a driver.

use std::time::Duration;

use crate::reason::CloseKind;

/// A snapshot of a driver's counters since its start. Taking one costs a copy of this struct; on
/// blocking threads, one for each of them.
///
/// On blocking threads there is no loop: `turns` counts how often a thread has looked for what is
/// due, and `events`, `late_timers`, `wakeups`, `slow_turns`, `slow_callbacks`, `longest_turn` and
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
    /// Calls that read from a connection's socket.
    pub reads: u64,
    /// Calls that wrote to a connection's socket.
    pub writes: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Callbacks run.
    pub callbacks: u64,
    /// Connections accepted from listeners.
    pub accepted: u64,
    /// Accepted connections that a factory refused or that were shed.
    pub refused: u64,
    /// Failed accepts.
    pub accept_errors: u64,
    /// Connects asked for.
    pub connects: u64,
    /// Connections open now, accepted and outgoing, without those that linger.
    pub open: u64,
    /// Connections that linger after their close now.
    pub lingering: u64,
    /// Connections now paused by their protocol.
    pub paused: u64,
    /// Connections now held by flow control.
    pub held: u64,
    /// Unsent bytes now queued over all connections.
    pub buffered: u64,
    /// Bytes that were written after `close` or `shutdown_write`.
    pub refused_bytes: u64,
    /// Notes refused because too many were waiting, or the connection was closing.
    pub refused_notes: u64,
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
    /// The longest turn, to the millisecond.
    pub longest_turn: Duration,
    /// Time spent working, estimated from one turn in sixteen.
    pub busy: Duration,
    /// Time since the driver's start.
    pub age: Duration,
    /// Connections ended, by the kind of their reason.
    pub closes: Closes,
}

impl Metrics {
    /// Adds the counters of another part of the same driver. Gauges and ages add up as well, but
    /// for the longest turn.
    pub(crate) fn add(&mut self, other: &Metrics) {
        let longest = self.longest_turn.max(other.longest_turn);
        let sums: [(&mut u64, u64); 25] = [
            (&mut self.turns, other.turns),
            (&mut self.events, other.events),
            (&mut self.stale, other.stale),
            (&mut self.reads, other.reads),
            (&mut self.writes, other.writes),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.callbacks, other.callbacks),
            (&mut self.accepted, other.accepted),
            (&mut self.refused, other.refused),
            (&mut self.accept_errors, other.accept_errors),
            (&mut self.connects, other.connects),
            (&mut self.open, other.open),
            (&mut self.lingering, other.lingering),
            (&mut self.paused, other.paused),
            (&mut self.held, other.held),
            (&mut self.buffered, other.buffered),
            (&mut self.refused_bytes, other.refused_bytes),
            (&mut self.refused_notes, other.refused_notes),
            (&mut self.timers, other.timers),
            (&mut self.late_timers, other.late_timers),
            (&mut self.wakeups, other.wakeups),
            (&mut self.panics, other.panics),
            (&mut self.slow_turns, other.slow_turns),
            (&mut self.slow_callbacks, other.slow_callbacks),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        self.longest_turn = longest;
        self.busy += other.busy;
        self.closes.add(&other.closes);
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
    /// [`CloseKind::TimedOut`], whatever the deadline.
    pub timed_out: u64,
    /// [`CloseKind::InputFull`].
    pub input_full: u64,
    /// [`CloseKind::OutputFull`].
    pub output_full: u64,
    /// [`CloseKind::Connect`], whatever the failure.
    pub connect: u64,
    /// [`CloseKind::Filter`], whatever the failure.
    pub filter: u64,
    /// [`CloseKind::Protocol`].
    pub protocol: u64,
    /// [`CloseKind::Panicked`].
    pub panicked: u64,
    /// [`CloseKind::Shutdown`].
    pub shutdown: u64,
    /// [`CloseKind::Unsupported`].
    pub unsupported: u64,
}

impl Closes {
    /// All connections that ended.
    pub fn total(&self) -> u64 {
        self.finished
            + self.reset
            + self.aborted
            + self.timed_out
            + self.input_full
            + self.output_full
            + self.connect
            + self.filter
            + self.protocol
            + self.panicked
            + self.shutdown
            + self.unsupported
    }

    fn add(&mut self, other: &Closes) {
        self.finished += other.finished;
        self.reset += other.reset;
        self.aborted += other.aborted;
        self.timed_out += other.timed_out;
        self.input_full += other.input_full;
        self.output_full += other.output_full;
        self.connect += other.connect;
        self.filter += other.filter;
        self.protocol += other.protocol;
        self.panicked += other.panicked;
        self.shutdown += other.shutdown;
        self.unsupported += other.unsupported;
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
            CloseKind::Panicked => &mut self.panicked,
            CloseKind::Shutdown => &mut self.shutdown,
            CloseKind::Unsupported => &mut self.unsupported,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::{ConnectFailure, Deadline, FilterFailure};

    #[test]
    fn each_kind_is_counted_once() {
        let kinds = [
            CloseKind::Finished,
            CloseKind::Reset,
            CloseKind::Aborted,
            CloseKind::TimedOut(Deadline::Idle),
            CloseKind::InputFull,
            CloseKind::OutputFull,
            CloseKind::Connect(ConnectFailure::Refused),
            CloseKind::Filter(FilterFailure::Failed),
            CloseKind::Protocol,
            CloseKind::Panicked,
            CloseKind::Shutdown,
            CloseKind::Unsupported,
        ];
        let mut closes = Closes::default();
        for (before, kind) in kinds.into_iter().enumerate() {
            assert_eq!(closes.total(), before as u64);
            closes.count(kind);
        }
        assert_eq!(closes.timed_out, 1);
    }
}
