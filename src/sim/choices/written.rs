//! The choices of a run as text, for a test to keep.
//!
//! The seed, then each stream as `owner.kind=values`: `s` is the scenario, `n` the network, `3` a
//! fork of the scenario, `c3` and `a3` the two ends of a connection, `d3` a datagram socket. `z4`
//! stands for four zeros in a row.

use std::fmt::Write;

use super::streams::{Kind, Name, Owner, Streams};

impl Streams {
    /// One word for the seed and one for each stream.
    pub(in crate::sim) fn write(&self, seed: u64) -> String {
        let mut text = seed.to_string();
        for ((owner, kind), values) in self.iter() {
            let _ = match owner {
                Owner::Nobody => continue,
                Owner::Scenario => write!(text, " s"),
                Owner::Network => write!(text, " n"),
                Owner::Fork(key) => write!(text, " {key}"),
                Owner::Connecting(key) => write!(text, " c{key}"),
                Owner::Accepted(key) => write!(text, " a{key}"),
                Owner::Bound(key) => write!(text, " d{key}"),
            };
            if kind != Kind::Choice {
                let _ = write!(text, ".{}", kind.name());
            }
            text.push('=');
            write_values(&mut text, values);
        }
        text
    }

    /// Parses a text into the seed and the streams; an error names the word that is invalid.
    pub(in crate::sim) fn read(text: &str) -> Result<(u64, Streams), String> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let seed = first.parse().map_err(|_| format!("`{first}` is no seed"))?;
        let mut streams = Streams::default();
        for word in words {
            let (name, values) = read_stream(word).ok_or(format!("`{word}` is no stream"))?;
            streams.put(name, values);
        }
        Ok((seed, streams))
    }
}

fn write_values(text: &mut String, values: &[u64]) {
    let mut rest = values;
    while let Some(first) = rest.first() {
        let zeros = rest.iter().take_while(|value| **value == 0).count();
        let comma = if rest.len() < values.len() { "," } else { "" };
        let _ = match zeros {
            0 | 1 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}z{zeros}"),
        };
        rest = &rest[zeros.max(1)..];
    }
}

fn read_stream(word: &str) -> Option<(Name, Vec<u64>)> {
    let (name, values) = word.split_once('=')?;
    let (owner, kind) = name.split_once('.').unwrap_or((name, Kind::Choice.name()));
    let key = |digits: &str| digits.parse::<u32>().ok().filter(|key| *key > 0);
    let owner = match owner.split_at_checked(1)? {
        ("s", "") => Owner::Scenario,
        ("n", "") => Owner::Network,
        ("c", digits) => Owner::Connecting(key(digits)?),
        ("a", digits) => Owner::Accepted(key(digits)?),
        ("d", digits) => Owner::Bound(key(digits)?),
        _ => Owner::Fork(key(owner)?),
    };
    let mut kinds = Kind::FAULTS.into_iter().chain([Kind::Choice]);
    let kind = kinds.find(|known| known.name() == kind)?;
    let mut read: Vec<u64> = Vec::new();
    for value in values.split(',') {
        match value.strip_prefix('z') {
            // More than any run draws is a typing error.
            Some(zeros) => {
                let zeros = zeros.parse::<usize>().ok().filter(|zeros| *zeros <= 1 << 20)?;
                read.resize(read.len() + zeros, 0);
            }
            None => read.push(value.parse().ok()?),
        }
    }
    Some(((owner, kind), read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut streams = Streams::default();
        streams.put((Owner::Scenario, Kind::Choice), vec![1, 0, 0, 0, 12, 0, 3]);
        streams.put((Owner::Network, Kind::SingleEvents), vec![0, 1]);
        streams.put((Owner::Network, Kind::Choice), vec![4]);
        streams.put((Owner::Fork(7), Kind::Choice), vec![u64::MAX]);
        streams.put((Owner::Connecting(3), Kind::Cuts), vec![0, 0, 5]);
        streams.put((Owner::Accepted(3), Kind::Delays), vec![9]);
        streams.put((Owner::Bound(5), Kind::Losses), vec![1]);
        let text = streams.write(54);
        assert_eq!(
            text,
            "54 s=1,z3,12,0,3 n=4 n.single_events=0,1 7=18446744073709551615 c3.cuts=z2,5 \
             a3.delays=9 d5.losses=1"
        );
        assert_eq!(Streams::read(&text), Ok((54, streams)));
        assert_eq!(Streams::read("7"), Ok((7, Streams::default())));
        assert_eq!(Streams::read(" 7\n  s=1  "), Streams::read("7 s=1"));
    }

    #[test]
    fn a_word_that_means_nothing_is_named() {
        for word in
            ["s", "=1", "s=", "s=x", "x3=1", "c=1", "c0=1", "0=1", "s.cut=1", "s=z", "ss=1", "d=1"]
        {
            let text = format!("1 n=2 {word}");
            assert_eq!(Streams::read(&text), Err(format!("`{word}` is no stream")));
        }
        assert_eq!(Streams::read("s=1"), Err("`s=1` is no seed".to_owned()));
        assert_eq!(Streams::read(""), Err("`` is no seed".to_owned()));
        assert!(Streams::read("1 s=z99999999").is_err());
    }
}
