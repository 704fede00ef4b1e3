//! Datagrams that wait until the system has room for them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::DropPolicy;

/// What a waiting datagram counts beyond its bytes: so the bound also holds for empty ones.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) to: Option<SocketAddr>,
    pub(super) bytes: Box<[u8]>,
}

impl Waiting {
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// In the order they were sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of all datagrams, without what they count beyond.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn cost(&self) -> usize {
        self.bytes + self.waiting.len() * OVERHEAD
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.bytes.len();
        if self.waiting.is_empty() {
            // An empty queue owns no buffer.
            self.waiting = VecDeque::new();
        }
        Some(first)
    }

    /// Puts a datagram back that was taken out last.
    pub(super) fn put_back(&mut self, first: Waiting) {
        self.bytes += first.bytes.len();
        self.waiting.push_front(first);
    }

    /// Adds a datagram, within `most`. Returns how many were dropped.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        to: Option<SocketAddr>,
        most: usize,
        policy: DropPolicy,
    ) -> u64 {
        let cost = bytes.len() + OVERHEAD;
        let mut dropped = 0;
        if policy == DropPolicy::Oldest && cost <= most {
            while self.cost() > most - cost {
                self.pop();
                dropped += 1;
            }
        } else if cost > most.saturating_sub(self.cost()) {
            return 1;
        }
        let waiting = Waiting { to, bytes: bytes.into() };
        debug_assert_eq!(waiting.cost(), cost);
        self.bytes += bytes.len();
        self.waiting.push_back(waiting);
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
        queue.pop().unwrap();
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
        while queue.pop().is_some() {}
        assert_eq!(queue.waiting.capacity(), 0);
    }
}
