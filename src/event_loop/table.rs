//! The connections of a loop, by slot.

use std::mem;
use std::sync::Arc;

use super::datagrams::{Outlet, Outlets};
use super::system::{Stream, System};
use crate::connection::Connection;
use crate::dispatch::Called;
use crate::id::ConnId;
use crate::limits::Limits;
use crate::protocol::{Context, Input, NoSocket, Outcome, Protocol, Shared};

/// One connection with its socket and its protocol.
pub(super) struct Entry<S: System> {
    pub(super) conn: Connection,
    /// None once the end is decided: the descriptor is released before `closed` runs.
    pub(super) stream: Option<S::Stream>,
    pub(super) protocol: Box<dyn Protocol>,
}

impl<S: System> Entry<S> {
    /// What a slot of the table takes, with a connection or without.
    #[cfg(test)]
    pub(super) const SIZE: usize = size_of::<Entry<S>>();

    fn vacant(limits: &Arc<Limits>) -> Entry<S> {
        let conn = Connection::vacant(Arc::clone(limits));
        Entry { conn, stream: None, protocol: Box::new(Nobody) }
    }

    fn is_vacant(&self) -> bool {
        self.conn.id() == ConnId::PLACEHOLDER
    }

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

/// The protocol of a vacant slot; no callback of it runs.
struct Nobody;

impl Protocol for Nobody {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

/// A slot may be vacant although its id is reserved: a connect is recorded before its entry exists.
/// A vacant slot has an id that no connection has, so that a look-up is one comparison.
pub(super) struct Table<S: System> {
    entries: Vec<Entry<S>>,
    /// Sockets of datagrams, which are looked at where there is no connection.
    pub(super) outlets: Outlets<S>,
    /// Connections and sockets of datagrams.
    len: usize,
    limits: Arc<Limits>,
}

impl<S: System> Table<S> {
    pub(super) fn new() -> Table<S> {
        Table { entries: Vec::new(), outlets: Outlets::new(), len: 0, limits: Arc::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry<S>> {
        match self.entries.get_mut(id.slot()) {
            Some(entry) if entry.conn.id() == id => Some(entry),
            _ => None,
        }
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Entry<S>> {
        self.entries.get(id.slot()).filter(|entry| entry.conn.id() == id)
    }

    pub(super) fn insert(&mut self, entry: Entry<S>) {
        let slot = entry.conn.id().slot();
        if slot >= self.entries.len() {
            let Table { entries, limits, .. } = self;
            entries.resize_with(slot + 1, || Entry::vacant(limits));
        }
        debug_assert!(self.entries[slot].is_vacant(), "slot {slot} has two owners");
        self.entries[slot] = entry;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Entry<S>> {
        let Table { entries, limits, .. } = self;
        let entry = entries.get_mut(id.slot()).filter(|entry| entry.conn.id() == id)?;
        self.len -= 1;
        Some(mem::replace(entry, Entry::vacant(limits)))
    }

    pub(super) fn insert_outlet(&mut self, outlet: Box<Outlet<S>>) {
        self.outlets.insert(outlet.state.id(), outlet);
        self.len += 1;
    }

    pub(super) fn remove_outlet(&mut self, id: ConnId) -> Option<Box<Outlet<S>>> {
        let outlet = self.outlets.remove(&id)?;
        self.len -= 1;
        Some(outlet)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<S>> {
        self.entries.iter().filter(|entry| !entry.is_vacant())
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|entry| entry.conn.id()).collect()
    }
}
