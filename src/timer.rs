//! Timers: the key a protocol names them by, and the heap that keeps them in order.

use std::fmt;
use std::num::NonZeroU32;

use slab::Slab;

/// Names a timer of one connection. The protocol chooses the number; setting the same timer again
/// replaces it.
///
/// ```
/// use lariat::Timer;
/// const PING: Timer = Timer::new(1);
/// assert_eq!(PING.to_string(), "timer 1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timer(u32);

impl Timer {
    /// The timer with the number `key`.
    pub const fn new(key: u16) -> Timer {
        Timer(key as u32)
    }

    /// A timer of the library's own protocols, outside of the range of [`Timer::new`].
    pub(crate) const fn reserved(key: u16) -> Timer {
        Timer(1 << 16 | key as u32)
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer {}", self.0)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Finds one armed timer again, and no later one in the same node. The lower half of the sequence
/// number is enough for that, because no key is kept beyond the turn in which its timer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    /// Its number and one more: a key that may be missing takes no more than one that is not.
    node: NonZeroU32,
    seq: u32,
}

impl TimerKey {
    fn new(node: u32, seq: u64) -> TimerKey {
        TimerKey { node: NonZeroU32::MIN.saturating_add(node), seq: seq as u32 }
    }

    fn node(self) -> usize {
        (self.node.get() - 1) as usize
    }
}

/// One place in the heap. The deadline and the sequence number are here, not in the node, so that
/// comparing two places touches no other memory.
#[derive(Clone, Copy, Debug)]
struct Place {
    deadline: u64,
    seq: u64,
    node: u32,
}

impl Place {
    fn before(&self, other: &Place) -> bool {
        (self.deadline, self.seq) < (other.deadline, other.seq)
    }
}

#[derive(Debug)]
struct Node<T> {
    place: u32,
    owner: T,
}

/// Children of one place: four share a cache line or two, and the heap is half as deep as with two.
const ARITY: usize = 4;

/// A set of armed timers: nearest first, those with the same deadline in the order they were set.
///
/// Arming, moving and cancelling take O(log n) and leave nothing behind. Deadlines are nanoseconds
/// since the driver's start; `u64::MAX` is never reached.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: Vec<Place>,
    nodes: Slab<Node<T>>,
    seq: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { heap: Vec::new(), nodes: Slab::new(), seq: 0 }
    }
}

impl<T: Copy> Timers<T> {
    /// Arms a timer.
    pub(crate) fn arm(&mut self, deadline: u64, owner: T) -> TimerKey {
        let seq = self.seq;
        self.seq += 1;
        self.enter(deadline, seq, owner)
    }

    /// Arms a timer again that was taken out as `key`, in its place among those with its deadline.
    pub(crate) fn put_back(&mut self, deadline: u64, owner: T, key: TimerKey) -> TimerKey {
        // The number that ends so, of the last 2^32.
        let since = (self.seq as u32).wrapping_sub(key.seq);
        self.enter(deadline, self.seq - u64::from(since), owner)
    }

    fn enter(&mut self, deadline: u64, seq: u64, owner: T) -> TimerKey {
        let at = self.heap.len();
        let node = self.nodes.insert(Node { place: at as u32, owner }) as u32;
        self.heap.push(Place { deadline, seq, node });
        self.rise(at);
        TimerKey::new(node, seq)
    }

    /// Keeps the timer of a deadline in step with it, where `u64::MAX` is none. Returns the timer
    /// that is armed from now on. One that is too early stays, and corrects itself when it fires;
    /// so does one that was taken out, whose owner is about to look.
    pub(crate) fn sync(
        &mut self,
        armed: Option<TimerKey>,
        wanted: u64,
        owner: T,
    ) -> Option<TimerKey> {
        if let Some(key) = armed {
            match self.deadline(key) {
                None => return armed,
                Some(at) if at <= wanted && wanted < u64::MAX => return armed,
                Some(_) => self.cancel(key),
            };
        }
        (wanted < u64::MAX).then(|| self.arm(wanted, owner))
    }

    /// Cancels a timer; false when it has fired or was cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> bool {
        match self.place_of(key) {
            Some(at) => {
                self.remove_at(at);
                true
            }
            None => false,
        }
    }

    /// The deadline of an armed timer.
    pub(crate) fn deadline(&self, key: TimerKey) -> Option<u64> {
        self.place_of(key).map(|at| self.heap[at].deadline)
    }

    /// The nearest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.first().map(|place| place.deadline)
    }

    /// Takes out the first timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(T, TimerKey)> {
        let first = *self.heap.first()?;
        if first.deadline > now || first.deadline == u64::MAX {
            return None;
        }
        let owner = self.remove_at(0);
        Some((owner, TimerKey::new(first.node, first.seq)))
    }

    /// How many timers are armed.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    fn place_of(&self, key: TimerKey) -> Option<usize> {
        let at = self.nodes.get(key.node())?.place as usize;
        (self.heap[at].seq as u32 == key.seq).then_some(at)
    }

    fn remove_at(&mut self, at: usize) -> T {
        let gone = self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.nodes[self.heap[at].node as usize].place = at as u32;
            self.sink(at);
            self.rise(at);
        }
        self.nodes.remove(gone.node as usize).owner
    }

    fn rise(&mut self, mut at: usize) {
        let moving = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if !moving.before(&self.heap[parent]) {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, moving);
    }

    fn sink(&mut self, mut at: usize) {
        let moving = self.heap[at];
        loop {
            let first = at * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let Some(least) =
                (first..last).reduce(|a, b| if self.heap[b].before(&self.heap[a]) { b } else { a })
            else {
                break;
            };
            if !self.heap[least].before(&moving) {
                break;
            }
            self.put(at, self.heap[least]);
            at = least;
        }
        self.put(at, moving);
    }

    fn put(&mut self, at: usize, place: Place) {
        self.heap[at] = place;
        self.nodes[place.node as usize].place = at as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fire_all(timers: &mut Timers<u32>, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop_due(now)).map(|(owner, _)| owner).collect()
    }

    #[test]
    fn timers_fire_by_deadline_and_ties_in_set_order() {
        let mut timers = Timers::default();
        for (deadline, owner) in [(30, 1), (10, 2), (20, 3), (10, 4), (10, 5)] {
            timers.arm(deadline, owner);
        }
        assert_eq!(fire_all(&mut timers, 9), [] as [u32; 0]);
        assert_eq!(fire_all(&mut timers, 20), [2, 4, 5, 3]);
        assert_eq!(fire_all(&mut timers, 30), [1]);
    }

    #[test]
    fn a_cancelled_timer_is_gone_and_its_key_never_cancels_another() {
        let mut timers = Timers::default();
        let old = timers.arm(5, 1);
        assert!(timers.cancel(old));
        let new = timers.arm(5, 2);
        assert!(!timers.cancel(old));
        assert_eq!(timers.deadline(new), Some(5));
        assert_eq!(timers.deadline(old), None);
        assert_eq!(fire_all(&mut timers, 5), [2]);
        assert!(!timers.cancel(new));
        assert_eq!((timers.len(), timers.nodes.len()), (0, 0));
    }

    #[test]
    fn thousands_of_timers_fire_in_order_though_every_third_is_cancelled() {
        let mut timers = Timers::default();
        let mut keys = Vec::new();
        let mut at = 7u64;
        for owner in 0..3_000u32 {
            at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let deadline = at >> 53;
            keys.push((deadline, owner, timers.arm(deadline, owner)));
        }
        for (_, _, key) in keys.iter().step_by(3) {
            assert!(timers.cancel(*key));
        }
        let mut left: Vec<(u64, u32)> =
            keys.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, k)| (k.0, k.1)).collect();
        left.sort();
        let left: Vec<u32> = left.into_iter().map(|(_, owner)| owner).collect();
        assert_eq!(fire_all(&mut timers, u64::MAX), left);
    }

    #[test]
    fn a_timer_that_is_put_back_has_its_old_place_among_ties_also_where_numbers_repeat() {
        let wrap = u64::from(u32::MAX);
        for first in [0, 7, wrap - 3, wrap - 2, wrap - 1, wrap, wrap + 1, 5 * wrap] {
            let mut timers = Timers { seq: first, ..Timers::default() };
            for owner in 1..=4 {
                timers.arm(10, owner);
            }
            let (one, first) = timers.pop_due(10).unwrap();
            let (two, second) = timers.pop_due(10).unwrap();
            timers.arm(10, 5);
            let back = timers.put_back(10, two, second);
            timers.put_back(10, one, first);
            assert_eq!(timers.deadline(back), Some(10));
            assert_eq!(fire_all(&mut timers, 10), [1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn the_timer_of_a_deadline_moves_only_to_an_earlier_one() {
        let mut timers = Timers::default();
        assert_eq!(timers.sync(None, u64::MAX, 1), None);
        let armed = timers.sync(None, 10, 1);
        assert_eq!(timers.sync(armed, 10, 1), armed);
        assert_eq!(timers.sync(armed, 20, 1), armed, "it corrects itself when it fires");
        assert_eq!(timers.next(), Some(10));
        let earlier = timers.sync(armed, 5, 1);
        assert_ne!(earlier, armed);
        assert_eq!((timers.next(), timers.len()), (Some(5), 1));
        assert_eq!(timers.sync(earlier, u64::MAX, 1), None);
        assert_eq!(timers.len(), 0);
        assert_eq!(timers.sync(earlier, 7, 1), earlier, "it was taken out, and its owner looks");
    }

    #[test]
    fn a_timer_is_named_by_its_number() {
        assert_eq!(format!("{} {:?}", Timer::new(7), Timer::new(8)), "timer 7 timer 8");
    }

    #[test]
    fn a_deadline_at_the_end_of_time_never_fires() {
        let mut timers = Timers::default();
        timers.arm(u64::MAX, 1);
        assert!(timers.pop_due(u64::MAX).is_none());
    }

    #[test]
    fn c7_ten_million_timers_are_armed_moved_and_cancelled() {
        let mut timers = Timers::default();
        let mut keys: Vec<TimerKey> =
            (0..100_000u32).map(|n| timers.arm(u64::from(n), n)).collect();
        let mut at = 7u64;
        for n in 0..10_000_000u32 {
            at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let which = (at >> 33) as usize % keys.len();
            assert!(timers.cancel(keys[which]));
            keys[which] = timers.arm(at >> 40, n);
        }
        assert_eq!(timers.len(), keys.len());
        assert!(timers.nodes.capacity() <= 2 * keys.len(), "cancelled timers leave nothing behind");
    }

    proptest! {
        #[test]
        fn any_order_of_calls_agrees_with_a_sorted_list(
            // More are set than fire, so that the heap grows a few levels deep.
            calls in prop::collection::vec((0u8..8, 0u64..40, any::<prop::sample::Index>()), 1..300)
        ) {
            let mut timers = Timers::default();
            let mut model: Vec<(u64, u32, TimerKey)> = Vec::new();
            for (number, (call, time, pick)) in calls.into_iter().enumerate() {
                match call {
                    0..5 => {
                        let owner = number as u32;
                        model.push((time, owner, timers.arm(time, owner)));
                    }
                    5 | 6 if !model.is_empty() => {
                        let (_, _, key) = model.remove(pick.index(model.len()));
                        prop_assert!(timers.cancel(key));
                    }
                    _ => {
                        let time = time / 4;
                        let mut due: Vec<_> =
                            model.iter().filter(|t| t.0 <= time).copied().collect();
                        due.sort_by_key(|t| (t.0, t.1));
                        model.retain(|t| t.0 > time);
                        let due: Vec<u32> = due.into_iter().map(|t| t.1).collect();
                        prop_assert_eq!(fire_all(&mut timers, time), due);
                    }
                }
                prop_assert_eq!(timers.next(), model.iter().map(|t| t.0).min());
                prop_assert_eq!(timers.len(), model.len());
            }
        }
    }
}
