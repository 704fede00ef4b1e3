//! Datagrams that wait until the system has room for them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::DropPolicy;
use crate::endpoint::{Endpoint, SmallEndpoint};

/// What a waiting datagram counts beyond its bytes: so the bound also holds for empty ones. The
/// name of a Unix socket has its place in memory, too.
const OVERHEAD: usize = 64;
const OVERHEAD_UNIX: usize = 256;

fn overhead(to: Option<&Endpoint>) -> usize {
    if matches!(to, Some(Endpoint::Unix(_))) { OVERHEAD_UNIX } else { OVERHEAD }
}

struct Waiting {
    to: Option<SmallEndpoint>,
    bytes: Box<[u8]>,
}

impl Waiting {
    fn to(&self) -> Option<Endpoint> {
        self.to.as_ref().map(SmallEndpoint::get)
    }
}

/// In the order they were sent.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// With what they count beyond.
    cost: usize,
    /// How many wait for each Unix socket: those for one wait for no other.
    receivers: BTreeMap<Endpoint, usize>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of all datagrams, without what they count beyond.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one waits for this Unix socket; for a connected one, whether any waits.
    pub(super) fn has_for(&self, to: Option<&Endpoint>) -> bool {
        to.map_or(!self.is_empty(), |to| self.receivers.contains_key(to))
    }

    /// For whom the one at this place is.
    pub(super) fn receiver(&self, at: usize) -> Option<Option<Endpoint>> {
        self.waiting.get(at).map(Waiting::to)
    }

    /// Takes the bytes of the one at this place, which has to have them back.
    pub(super) fn lend(&mut self, at: usize) -> Box<[u8]> {
        self.waiting.get_mut(at).map(|waiting| mem::take(&mut waiting.bytes)).unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, at: usize, bytes: Box<[u8]>) {
        if let Some(waiting) = self.waiting.get_mut(at) {
            waiting.bytes = bytes;
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        let Some(gone) = self.waiting.remove(at) else { return };
        let to = gone.to();
        self.bytes -= gone.bytes.len();
        self.cost -= gone.bytes.len() + overhead(to.as_ref());
        if let Some(to @ Endpoint::Unix(_)) = to {
            match self.receivers.get_mut(&to) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.receivers.remove(&to)),
            }
        }
        if self.waiting.is_empty() {
            // An empty queue owns no buffer.
            self.waiting = VecDeque::new();
        }
    }

    /// Adds a datagram, within `most`. Returns how many were dropped.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        to: Option<&Endpoint>,
        most: usize,
        policy: DropPolicy,
    ) -> u64 {
        let cost = bytes.len() + overhead(to);
        let mut dropped = 0;
        if policy == DropPolicy::Oldest && cost <= most {
            while self.cost > most - cost {
                self.remove(0);
                dropped += 1;
            }
        } else if cost > most.saturating_sub(self.cost) {
            return 1;
        }
        if let Some(to @ Endpoint::Unix(_)) = to {
            *self.receivers.entry(*to).or_insert(0) += 1;
        }
        let to = to.map(|to| SmallEndpoint::from(*to));
        self.bytes += bytes.len();
        self.cost += cost;
        self.waiting.push_back(Waiting { to, bytes: bytes.into() });
        dropped
    }

    /// Drops everything. Returns how many were dropped.
    pub(super) fn clear(&mut self) -> u64 {
        let dropped = self.waiting.len() as u64;
        *self = Queue::default();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::UnixName;

    fn numbers(queue: &Queue) -> Vec<u8> {
        queue.waiting.iter().map(|waiting| waiting.bytes[0]).collect()
    }

    #[test]
    fn the_newest_is_dropped_when_it_does_not_fit() {
        let mut queue = Queue::default();
        let most = 3 * (10 + OVERHEAD);
        for number in 0..3 {
            assert_eq!(queue.push(&[number; 10], None, most, DropPolicy::Newest), 0);
        }
        assert_eq!(queue.push(&[3], None, most, DropPolicy::Newest), 1);
        assert_eq!((numbers(&queue), queue.bytes()), (vec![0, 1, 2], 30));
        queue.remove(0);
        assert_eq!(queue.push(&[4; 11], None, most, DropPolicy::Newest), 1, "one byte above");
        assert_eq!(queue.push(&[5; 10], None, most, DropPolicy::Newest), 0, "at the bound");
        assert_eq!(numbers(&queue), [1, 2, 5]);
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let mut queue = Queue::default();
        let most = 3 * (10 + OVERHEAD);
        for number in 0..3 {
            assert_eq!(queue.push(&[number; 10], None, most, DropPolicy::Oldest), 0);
        }
        assert_eq!(queue.push(&[3; 10], None, most, DropPolicy::Oldest), 1);
        assert_eq!(numbers(&queue), [1, 2, 3]);
        assert_eq!(queue.push(&[4; 11], None, most, DropPolicy::Oldest), 2, "one byte above");
        assert_eq!(numbers(&queue), [3, 4]);
        assert_eq!(queue.push(&vec![5; most], None, most, DropPolicy::Oldest), 1, "never fits");
        assert_eq!(numbers(&queue), [3, 4], "and takes nobody's place");
        assert_eq!((queue.clear(), queue.bytes(), queue.is_empty()), (2, 0, true));
    }

    #[test]
    fn empty_datagrams_are_bounded_too() {
        let mut queue = Queue::default();
        let dropped: u64 =
            (0..100).map(|_| queue.push(b"", None, 10 * OVERHEAD, DropPolicy::Newest)).sum();
        assert_eq!((dropped, queue.waiting.len(), queue.bytes()), (90, 10, 0));
        (0..10).for_each(|_| queue.remove(0));
        assert_eq!((queue.waiting.capacity(), queue.cost), (0, 0));
    }

    #[test]
    fn one_that_takes_all_the_room_is_kept_where_the_oldest_go() {
        let most = 10 + OVERHEAD;
        for (policy, kept) in [(DropPolicy::Newest, 1), (DropPolicy::Oldest, 2)] {
            let mut queue = Queue::default();
            assert_eq!(queue.push(&[1], None, most, policy), 0);
            assert_eq!(queue.push(&[2; 10], None, most, policy), 1);
            assert_eq!(numbers(&queue), [kept]);
            assert_eq!(queue.push(&[3; 11], None, most, policy), 1, "one byte above");
            assert_eq!(numbers(&queue), [kept]);
        }
    }

    #[test]
    fn a_datagram_counts_64_bytes_beyond_its_own_and_256_with_a_name() {
        let name = Endpoint::from(UnixName::from_pathname("/name").unwrap());
        let addr = Endpoint::from(([10, 0, 0, 1], 1));
        for policy in [DropPolicy::Newest, DropPolicy::Oldest] {
            for (to, cost) in [(None, 10 + 64), (Some(&addr), 10 + 64), (Some(&name), 10 + 256)] {
                let mut queue = Queue::default();
                assert_eq!(queue.push(&[7; 10], to, cost - 1, policy), 1, "one byte below");
                assert_eq!(queue.push(&[7; 10], to, cost, policy), 0, "at the bound");
                // Either of two goes where there is room for one.
                assert_eq!(queue.push(&[7; 10], to, 2 * cost - 1, policy), 1, "one byte below");
                assert_eq!((queue.bytes(), queue.cost), (10, cost));
                assert_eq!(queue.push(&[7; 10], to, 2 * cost, policy), 0, "at the bound");
                assert_eq!((queue.bytes(), queue.cost), (20, 2 * cost));
            }
        }
    }

    #[test]
    fn a_queue_knows_for_which_unix_sockets_datagrams_wait() {
        let name = |name| Endpoint::from(UnixName::from_pathname(name).unwrap());
        let (one, two) = (name("/one"), name("/two"));
        let most = 3 * (1 + OVERHEAD_UNIX);
        let mut queue = Queue::default();
        for to in [&one, &two, &one] {
            assert_eq!(queue.push(b"1", Some(to), most, DropPolicy::Newest), 0);
        }
        assert_eq!(queue.push(b"", Some(&one), most, DropPolicy::Newest), 1, "names count");
        assert!(queue.has_for(Some(&one)) && queue.has_for(Some(&two)) && queue.has_for(None));
        queue.remove(1);
        assert!(queue.has_for(Some(&one)) && !queue.has_for(Some(&two)));
        queue.remove(0);
        assert!(queue.has_for(Some(&one)));
        assert_eq!(queue.receiver(0), Some(Some(one)));
        let lent = queue.lend(0);
        queue.give_back(0, lent);
        queue.remove(0);
        assert!(!queue.has_for(Some(&one)) && !queue.has_for(None) && queue.receiver(0).is_none());
    }
}
