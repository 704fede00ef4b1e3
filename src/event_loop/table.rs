//! The connections of a loop, by slot.

use super::system::{Stream, System};
use crate::connection::Connection;
use crate::dispatch::Called;
use crate::id::ConnId;
use crate::protocol::{NoSocket, Protocol, Shared};

/// One connection with its socket and its protocol.
pub(super) struct Entry<S: System> {
    pub(super) conn: Connection,
    /// None once the end is decided: the descriptor is released before `closed` runs.
    pub(super) stream: Option<S::Stream>,
    pub(super) protocol: Box<dyn Protocol>,
}

impl<S: System> Entry<S> {
    /// What a slot of the table takes, with an entry or without.
    #[cfg(test)]
    pub(super) const SIZE: usize = size_of::<Option<Entry<S>>>();

    /// Lends everything for one callback.
    #[inline(always)]
    pub(super) fn called<'a>(&'a mut self, shared: &'a mut Shared) -> Called<'a> {
        Called {
            shared,
            conn: &mut self.conn,
            protocol: &mut *self.protocol,
            socket: self.stream.as_ref().map_or(&NoSocket, Stream::as_info),
        }
    }
}

/// A slot may be empty although its id is reserved: a connect is recorded before its entry exists.
pub(super) struct Table<S: System> {
    entries: Vec<Option<Entry<S>>>,
    len: usize,
}

impl<S: System> Table<S> {
    pub(super) fn new() -> Table<S> {
        Table { entries: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry<S>> {
        match self.entries.get_mut(id.slot()) {
            Some(Some(entry)) if entry.conn.id() == id => Some(entry),
            _ => None,
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Entry<S>> {
        self.entries.get(id.slot())?.as_ref().filter(|entry| entry.conn.id() == id)
    }

    pub(super) fn insert(&mut self, entry: Entry<S>) {
        let slot = entry.conn.id().slot();
        if slot >= self.entries.len() {
            self.entries.resize_with(slot + 1, || None);
        }
        debug_assert!(self.entries[slot].is_none(), "slot {slot} has two owners");
        self.entries[slot] = Some(entry);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Entry<S>> {
        let place = self.entries.get_mut(id.slot())?;
        if place.as_ref().is_some_and(|entry| entry.conn.id() == id) {
            self.len -= 1;
            place.take()
        } else {
            None
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<S>> {
        self.entries.iter().flatten()
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|entry| entry.conn.id()).collect()
    }
}
