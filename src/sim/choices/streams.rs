//! The choices of a run, as data.

use std::collections::BTreeMap;

/// What is chosen. Each kind has streams of its own, so that leaving one choice out shifts no other
/// kind's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) enum Kind {
    /// What a scenario draws.
    Choice,
    ShortReads,
    ShortWrites,
    Interrupts,
    Spurious,
    Delays,
    Cuts,
    Resets,
    Vanishes,
    AcceptErrors,
    ConnectErrors,
    ClockStalls,
    SingleEvents,
    Stops,
    Losses,
    Duplicates,
    Reorders,
    Refusals,
}

impl Kind {
    pub(in crate::sim) const FAULTS: [Kind; 17] = [
        Kind::ShortReads,
        Kind::ShortWrites,
        Kind::Interrupts,
        Kind::Spurious,
        Kind::Delays,
        Kind::Cuts,
        Kind::Resets,
        Kind::Vanishes,
        Kind::AcceptErrors,
        Kind::ConnectErrors,
        Kind::ClockStalls,
        Kind::SingleEvents,
        Kind::Stops,
        Kind::Losses,
        Kind::Duplicates,
        Kind::Reorders,
        Kind::Refusals,
    ];

    /// The name of the field of [`Faults`](crate::sim::Faults).
    pub(in crate::sim) fn name(self) -> &'static str {
        match self {
            Kind::Choice => "choices",
            Kind::ShortReads => "short_reads",
            Kind::ShortWrites => "short_writes",
            Kind::Interrupts => "interrupts",
            Kind::Spurious => "spurious",
            Kind::Delays => "delays",
            Kind::Cuts => "cuts",
            Kind::Resets => "resets",
            Kind::Vanishes => "vanishes",
            Kind::AcceptErrors => "accept_errors",
            Kind::ConnectErrors => "connect_errors",
            Kind::ClockStalls => "clock_stalls",
            Kind::SingleEvents => "single_events",
            Kind::Stops => "stops",
            Kind::Losses => "losses",
            Kind::Duplicates => "duplicates",
            Kind::Reorders => "reorders",
            Kind::Refusals => "refusals",
        }
    }
}

/// The owner of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) enum Owner {
    /// No owner: all choices are 0. It results from a key that was left out.
    Nobody,
    Scenario,
    /// The network as a whole: polls, accepts, and the keys of the driver's connects.
    Network,
    /// A fork of the scenario, by its key.
    Fork(u32),
    /// The end of a connection that has begun to connect, by the key of the connection.
    Connecting(u32),
    /// The other end.
    Accepted(u32),
    /// A socket of datagrams, by its key.
    Bound(u32),
}

impl Owner {
    /// The same for a key that may be none.
    pub(super) fn of_key(self) -> Owner {
        match self {
            Owner::Fork(0) | Owner::Connecting(0) | Owner::Accepted(0) | Owner::Bound(0) => {
                Owner::Nobody
            }
            owner => owner,
        }
    }
}

/// The name of a stream.
pub(in crate::sim) type Name = (Owner, Kind);

/// The choices of a run by stream, each without the zeros at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) struct Streams(BTreeMap<Name, Vec<u64>>);

impl Streams {
    pub(in crate::sim) fn get(&self, name: Name) -> &[u64] {
        self.0.get(&name).map_or(&[], Vec::as_slice)
    }

    /// Puts a stream in the place of another.
    pub(in crate::sim) fn put(&mut self, name: Name, mut values: Vec<u64>) {
        values.truncate(values.iter().rposition(|value| *value != 0).map_or(0, |last| last + 1));
        if values.is_empty() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, values);
        }
    }

    /// Records one choice; earlier ones that were not recorded are 0.
    pub(super) fn set(&mut self, name: Name, index: usize, value: u64) {
        if value != 0 {
            let values = self.0.entry(name).or_default();
            if values.len() <= index {
                values.resize(index + 1, 0);
            }
            values[index] = value;
        }
    }

    pub(in crate::sim) fn names(&self) -> Vec<Name> {
        self.0.keys().copied().collect()
    }

    pub(in crate::sim) fn iter(&self) -> impl Iterator<Item = (Name, &[u64])> {
        self.0.iter().map(|(name, values)| (*name, values.as_slice()))
    }

    /// Without the streams for which `goes` is true.
    pub(in crate::sim) fn without(&self, goes: impl Fn(Name) -> bool) -> Streams {
        let stays = self.0.iter().filter(|(name, _)| !goes(**name));
        Streams(stays.map(|(name, values)| (*name, values.clone())).collect())
    }

    /// The number of choices that are not 0, of all choices, and their sum: smaller is simpler.
    pub(in crate::sim) fn size(&self) -> (usize, usize, u64) {
        let values = || self.0.values().flatten().filter(|value| **value != 0);
        let sum = values().fold(0u64, |sum, value| sum.saturating_add(*value));
        (values().count(), self.0.values().map(Vec::len).sum(), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = (Owner::Scenario, Kind::Choice);

    #[test]
    fn a_stream_ends_with_its_last_choice() {
        let mut streams = Streams::default();
        streams.set(NAME, 2, 7);
        streams.set(NAME, 4, 0);
        assert_eq!(streams.get(NAME), [0, 0, 7]);
        assert_eq!(streams.size(), (1, 3, 7));
        streams.put(NAME, vec![1, 0, 0]);
        assert_eq!(streams.get(NAME), [1]);
        streams.put(NAME, vec![0]);
        assert_eq!(streams, Streams::default());
        assert_eq!(streams.get(NAME), [0; 0]);
    }

    #[test]
    fn every_fault_has_a_field_of_its_name() {
        let shown = format!("{:?}", crate::sim::Faults::none());
        let fields = shown.trim_start_matches("Faults { ").trim_end_matches(" }").split(", ");
        let fields: Vec<&str> = fields.filter_map(|field| field.split(':').next()).collect();
        assert_eq!(fields, Kind::FAULTS.map(Kind::name));
    }
}
