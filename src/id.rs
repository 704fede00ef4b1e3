//! Names of connections and listeners, and the slots behind them.
//!
//! A [`ConnId`] is a slot number and a generation. The slot finds the connection in a table; the
//! generation tells an old id from the slot's new owner. So an event, a message or a write meant
//! for a connection that has ended never reaches another one.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, PoisonError};

use crate::sync::Mutex;

use slab::Slab;

/// Names one connection of one driver. Ids are not reused while the program runs.
///
/// Using the id of a connection that has ended is safe and has no effect: it is counted in
/// [`Metrics::stale`](crate::Metrics::stale).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(NonZeroU64);

impl ConnId {
    /// Names no connection: no driver hands out this slot.
    pub(crate) const PLACEHOLDER: ConnId = ConnId(NonZeroU64::MAX);

    fn new(slot: u32, generation: u32) -> ConnId {
        debug_assert!(generation != 0);
        let bits = (u64::from(generation) << 32) | u64::from(slot);
        // A generation starts at 1 and never returns to 0, so the bits are never all zero.
        ConnId(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// The slot: an index into a driver's table of connections.
    pub(crate) fn slot(self) -> usize {
        self.0.get() as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    /// The id as one number, which is also the token the operating system hands back.
    pub(crate) fn bits(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn from_bits(bits: u64) -> Option<ConnId> {
        if bits >> 32 == 0 { None } else { NonZeroU64::new(bits).map(ConnId) }
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}", self.slot(), self.generation())
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one call of `listen`, also when it opened several sockets. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(
    /// The number and one more: then an id that may be missing takes no more than one that is not.
    NonZeroU32,
);

impl ListenerId {
    pub(crate) fn new(number: u32) -> ListenerId {
        ListenerId(NonZeroU32::MIN.saturating_add(number))
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{}", self.0.get() - 1)
    }
}

impl fmt::Debug for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hands out connection ids, also before the connection exists.
///
/// A released slot keeps its place until [`Ids::end_turn`], so that an event which was already
/// waiting for the old owner cannot meet a new one. A slot whose generation would return to its
/// first value is retired for good.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    slots: Slab<()>,
    /// The generation of each slot: of its owner while taken, of the next owner while free.
    generations: Vec<u32>,
    released: Vec<u32>,
}

impl Ids {
    /// Takes a slot. The id is current from now on.
    pub(crate) fn reserve(&mut self) -> ConnId {
        let slot = self.slots.insert(());
        if slot == self.generations.len() {
            self.generations.push(1);
        }
        ConnId::new(slot as u32, self.generations[slot])
    }

    pub(crate) fn is_current(&self, id: ConnId) -> bool {
        self.generations.get(id.slot()) == Some(&id.generation()) && self.slots.contains(id.slot())
    }

    /// Ends an id. Its slot is free again after [`Ids::end_turn`].
    pub(crate) fn release(&mut self, id: ConnId) {
        debug_assert!(self.is_current(id), "{id} released twice");
        if !self.is_current(id) {
            return;
        }
        let generation = &mut self.generations[id.slot()];
        *generation = generation.wrapping_add(1);
        if *generation != 0 {
            self.released.push(id.slot() as u32);
        }
    }

    /// Gives the slots released since the last call back for use.
    pub(crate) fn end_turn(&mut self) {
        for slot in self.released.drain(..) {
            self.slots.remove(slot as usize);
        }
    }
}

/// Where a thread gets its ids from: its own source, or one shared with other threads.
#[derive(Debug)]
pub(crate) enum IdSource {
    Own(Ids),
    Common(Arc<Mutex<Ids>>),
}

impl IdSource {
    fn with<R>(&mut self, call: impl FnOnce(&mut Ids) -> R) -> R {
        match self {
            IdSource::Own(ids) => call(ids),
            IdSource::Common(ids) => call(&mut ids.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    pub(crate) fn reserve(&mut self) -> ConnId {
        self.with(Ids::reserve)
    }

    pub(crate) fn is_current(&self, id: ConnId) -> bool {
        match self {
            IdSource::Own(ids) => ids.is_current(id),
            IdSource::Common(ids) => {
                ids.lock().unwrap_or_else(PoisonError::into_inner).is_current(id)
            }
        }
    }

    pub(crate) fn release(&mut self, id: ConnId) {
        self.with(|ids| ids.release(id));
    }

    pub(crate) fn end_turn(&mut self) {
        self.with(Ids::end_turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_slot_is_not_reused_before_the_turn_ends() {
        let mut ids = Ids::default();
        let first = ids.reserve();
        ids.release(first);
        let second = ids.reserve();
        assert_ne!(first.slot(), second.slot());
        ids.end_turn();
        let third = ids.reserve();
        assert_eq!(first.slot(), third.slot());
        assert_ne!(first, third);
    }

    #[test]
    fn an_old_id_is_not_current_once_released() {
        let mut ids = Ids::default();
        let old = ids.reserve();
        assert!(ids.is_current(old));
        ids.release(old);
        assert!(!ids.is_current(old));
        ids.end_turn();
        let new = ids.reserve();
        assert!(ids.is_current(new) && !ids.is_current(old));
    }

    #[test]
    fn a_slot_whose_generation_would_wrap_is_retired() {
        let mut ids = Ids::default();
        let id = ids.reserve();
        ids.release(id);
        ids.end_turn();
        ids.generations[0] = u32::MAX;
        let last = ids.reserve();
        assert_eq!(last.slot(), 0);
        ids.release(last);
        ids.end_turn();
        assert_eq!(ids.reserve().slot(), 1);
        assert!(!ids.is_current(last));
    }

    #[test]
    fn ten_million_reuses_never_repeat_an_id() {
        let mut ids = Ids::default();
        let mut before = ids.reserve();
        for _ in 0..10_000_000u32 {
            ids.release(before);
            ids.end_turn();
            let next = ids.reserve();
            assert!(next > before && !ids.is_current(before));
            before = next;
        }
    }

    #[test]
    fn ids_come_and_go_alike_whether_a_thread_has_its_own_or_shares_them() {
        let shared = Arc::new(Mutex::new(Ids::default()));
        for mut ids in [IdSource::Own(Ids::default()), IdSource::Common(Arc::clone(&shared))] {
            let first = ids.reserve();
            assert!(ids.is_current(first));
            ids.release(first);
            assert!(!ids.is_current(first));
            let second = ids.reserve();
            assert_ne!(first.slot(), second.slot());
            ids.end_turn();
            assert_eq!(ids.reserve().slot(), first.slot());
        }
    }

    #[test]
    fn an_id_survives_the_way_through_a_token() {
        let mut ids = Ids::default();
        let id = ids.reserve();
        assert_eq!(ConnId::from_bits(id.bits()), Some(id));
        assert_eq!(ConnId::from_bits(7), None);
        assert_eq!(id.to_string(), "c0.1");
        assert_eq!(format!("{id:?} {:?}", ListenerId::new(3)), "c0.1 l3");
    }
}
