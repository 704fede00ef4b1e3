//! The events of a simulated network, one line each.

use crate::endpoint::Endpoint;
use std::fmt;

/// The most lines that are shown: the last ones.
const SHOWN: usize = 40;

/// The events of a run, in their order.
#[derive(Debug, Default)]
pub(super) struct Log {
    events: Vec<(u64, What)>,
    /// A run with more events is not wanted.
    pub(super) most: Option<usize>,
}

#[derive(Debug)]
pub(super) enum What {
    /// From the first to the second.
    Connects(Endpoint, Endpoint),
    Bytes(Endpoint, Endpoint, usize),
    Fin(Endpoint, Endpoint),
    Reset(Endpoint, Endpoint),
    Datagram(Endpoint, Endpoint, usize),
    /// The first tells the second that a datagram found nobody.
    Refused(Endpoint, Endpoint),
    /// What the test does at its own end, or what an end does by itself.
    Does(Endpoint, &'static str),
    /// A fault, and its place.
    Fault(String),
}

impl Log {
    pub(super) fn push(&mut self, at: u64, what: What) {
        self.events.push((at, what));
    }

    /// Whether more has happened than is wanted.
    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.events.len() > most)
    }

    /// Events, and of them connects, bytes and faults.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { events: self.events.len(), ..Counts::default() };
        for (_, what) in &self.events {
            match what {
                What::Connects(..) => counts.connections += 1,
                What::Bytes(_, _, bytes) | What::Datagram(_, _, bytes) => counts.bytes += bytes,
                What::Fault(_) => counts.faults += 1,
                _ => {}
            }
        }
        counts
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let skipped = self.events.len().saturating_sub(SHOWN);
        let before = (skipped > 0).then(|| format!("({skipped} events before these)"));
        let shown = self.events[skipped..].iter();
        let lines = shown.map(|(at, what)| format!("{:.6} {what}", *at as f64 / 1e9));
        before.into_iter().chain(lines).collect()
    }
}

/// How much has happened. Less is easier to understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counts {
    pub(super) events: usize,
    pub(super) connections: usize,
    pub(super) faults: usize,
    pub(super) bytes: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        let Counts { events, connections, faults, bytes } = *self;
        let (events, connections) = (counted(events, "event"), counted(connections, "connection"));
        let (faults, bytes) = (counted(faults, "fault"), counted(bytes, "byte"));
        write!(f, "{events}, {connections}, {faults}, {bytes}")
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Connects(from, to) => write!(f, "{from} connects to {to}"),
            What::Bytes(from, to, 1) => write!(f, "{from} -> {to}: 1 byte"),
            What::Bytes(from, to, count) => write!(f, "{from} -> {to}: {count} bytes"),
            What::Fin(from, to) => write!(f, "{from} -> {to}: FIN"),
            What::Reset(from, to) => write!(f, "{from} -> {to}: reset"),
            What::Datagram(from, to, count) => {
                write!(f, "{from} -> {to}: a datagram of {count} bytes")
            }
            What::Refused(from, to) => write!(f, "{from} -> {to}: a datagram was refused"),
            What::Does(who, what) => write!(f, "{who} {what}"),
            What::Fault(what) => write!(f, "fault: {what}"),
        }
    }
}
