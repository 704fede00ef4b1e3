//! Faults of a simulated network.

use std::time::Duration;

use super::choices::Kind;

/// How a simulated link carries bytes. Each direction is first in, first out.
///
/// ```
/// use std::time::Duration;
/// let mut link = lariat::sim::Link::default();
/// link.latency = Duration::from_millis(40);
/// link.bandwidth = Some(1_000_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Time from one end to the other \[50 us\].
    pub latency: Duration,
    /// Bytes per second in each direction \[unlimited\].
    pub bandwidth: Option<u64>,
    /// Bytes that may be under way or unread in each direction before a write blocks \[256 KiB\].
    pub window: usize,
}

impl Default for Link {
    fn default() -> Link {
        Link { latency: Duration::from_micros(50), bandwidth: None, window: 256 * 1024 }
    }
}

/// How often faults happen by chance, in thousandths of the calls or events concerned. The seed
/// decides which ones; the default is never.
///
/// ```
/// let mut sim = lariat::sim::Sim::new(7);
/// let mut faults = lariat::sim::Faults::harsh();
/// faults.resets = 0;
/// sim.set_faults(faults);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Reads that return less than has arrived; an event announces the rest later.
    pub short_reads: u32,
    /// Writes that take less than fits; an event announces when more is taken.
    pub short_writes: u32,
    /// Calls that a signal interrupts.
    pub interrupts: u32,
    /// Polls with an event that has no cause.
    pub spurious: u32,
    /// Events and segments that come late, by up to 20 ms.
    pub delays: u32,
    /// Segments that the network cuts in two.
    pub cuts: u32,
    /// Segments followed by a reset.
    pub resets: u32,
    /// Connections whose peer vanishes without FIN or reset.
    pub vanishes: u32,
    /// Accepts that fail, half of them for lack of descriptors.
    pub accept_errors: u32,
    /// Connects that are refused, unreachable, or never answered.
    pub connect_errors: u32,
    /// Polls at which the clock stands still.
    pub clock_stalls: u32,
    /// Polls that report only one of the events that wait.
    pub single_events: u32,
    /// Polls in which the process is stopped, for up to 200 ms: the network goes on, and the poll
    /// tells of nothing, as one that a signal interrupts.
    pub stops: u32,
    /// Datagrams that are lost.
    pub losses: u32,
    /// Datagrams that come twice.
    pub duplicates: u32,
    /// Datagrams that are overtaken by those behind them, for up to 5 ms.
    pub reorders: u32,
    /// Datagrams that are refused although somebody has the port: a connected socket is told.
    pub refusals: u32,
}

impl Faults {
    /// No faults: the same as the default.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// How often this kind happens.
    pub(super) fn of(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Choice => 0,
            Kind::ShortReads => self.short_reads,
            Kind::ShortWrites => self.short_writes,
            Kind::Interrupts => self.interrupts,
            Kind::Spurious => self.spurious,
            Kind::Delays => self.delays,
            Kind::Cuts => self.cuts,
            Kind::Resets => self.resets,
            Kind::Vanishes => self.vanishes,
            Kind::AcceptErrors => self.accept_errors,
            Kind::ConnectErrors => self.connect_errors,
            Kind::ClockStalls => self.clock_stalls,
            Kind::SingleEvents => self.single_events,
            Kind::Stops => self.stops,
            Kind::Losses => self.losses,
            Kind::Duplicates => self.duplicates,
            Kind::Reorders => self.reorders,
            Kind::Refusals => self.refusals,
        }
    }

    /// Everything that a connection survives: bytes are cut and late, calls are short and
    /// interrupted, events are spurious and single, the clock stalls, the process is stopped.
    pub fn rough() -> Faults {
        Faults {
            short_reads: 200,
            short_writes: 200,
            interrupts: 100,
            spurious: 300,
            delays: 150,
            cuts: 400,
            clock_stalls: 50,
            single_events: 200,
            stops: 10,
            ..Faults::default()
        }
    }

    /// As [`rough`](Faults::rough), and connections break: resets, peers that vanish, accepts and
    /// connects that fail; and datagrams are lost, come twice, out of order, or are refused.
    pub fn harsh() -> Faults {
        Faults {
            resets: 10,
            vanishes: 5,
            accept_errors: 150,
            connect_errors: 100,
            losses: 50,
            duplicates: 50,
            reorders: 100,
            refusals: 20,
            ..Faults::rough()
        }
    }
}

/// A call to the system, for [`Sim::script`](crate::sim::Sim::script).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Reading from a connection of the driver, or receiving a datagram.
    Read,
    /// Writing to a connection of the driver, or sending a datagram.
    Write,
    /// Accepting.
    Accept,
    /// Connecting.
    Connect,
    /// Registering a connection for events.
    Register,
    /// Waiting for events.
    Poll,
}

/// A fault of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails with this error number (errno).
    Error(i32),
    /// The call reads or writes at most this many bytes.
    Short(usize),
}

/// A fault for the n-th call of a kind, counted from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scripted {
    pub(super) call: Call,
    pub(super) nth: u64,
    pub(super) fault: Fault,
}
