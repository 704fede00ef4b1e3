//! What the simulator inspects from outside: nothing here is on the path of a message.

use super::EventLoop;
use super::system::System;
use crate::connection::Flags;
use crate::datagram::State;
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::reason::CloseReason;

/// Connections up to which all are looked at before each wait.
const FEW: usize = 32;

impl<S: System> EventLoop<S> {
    /// Why the connection ends, if that is decided and `closed` has not run yet.
    pub(crate) fn decided(&self, id: ConnId) -> Option<CloseReason> {
        let now = self.shared.clock.exact();
        match self.table.get(id) {
            Some(entry) => entry.conn.decided(now),
            None => self.table.outlets.get(&id)?.state.decided(now),
        }
    }

    /// Whether it was asked for anything yet.
    pub(crate) fn has_begun(&self) -> bool {
        self.shared.metrics.turns > 0 || self.is_busy() || !self.listening.is_empty()
    }

    /// Every connection and datagram socket, with its peer and the decided end.
    pub(crate) fn connections(&self) -> Vec<(ConnId, Endpoint, Option<CloseReason>)> {
        let now = self.shared.clock.exact();
        let conns = self.table.iter().map(|entry| &entry.conn);
        let conns = conns.map(|conn| (conn.id(), conn.peer(), conn.decided(now)));
        let outlets = self.table.outlets.values().map(|outlet| &outlet.state);
        let peer = |state: &State| state.options().connect.unwrap_or(Endpoint::Other);
        conns.chain(outlets.map(|state| (state.id(), peer(state), state.decided(now)))).collect()
    }

    /// What waits although the loop is about to sleep, so that nothing would wake it: a sentence
    /// about the first such thing. If there are many connections, only `all` looks at each one.
    ///
    /// Used between turns, when requests from outside of callbacks have been applied.
    pub(crate) fn forgotten(&self, all: bool) -> Option<String> {
        if !self.notes.is_empty() {
            return Some(format!("{} notes have not been delivered", self.notes.len()));
        }
        if !self.due.is_empty() {
            return Some(format!("{} timers were taken out and have not run", self.due.len()));
        }
        let lists = [
            (self.ready.first(), "has something to do"),
            (self.bulk.front(), "has more to move"),
            (self.dirty.first(), "has output"),
        ];
        for (id, what) in lists {
            if let Some(id) = id {
                return Some(format!("{id} {what} and is in a list that nobody looks at"));
            }
        }
        if let Some(forgotten) = self.forgotten_listener() {
            return Some(forgotten);
        }
        if self.table.len() > FEW && !all {
            return None;
        }
        // No list holds anything, so a connection with work, or marked as listed, is lost.
        let lost = |flags: Flags| flags.any(Flags::LISTED | Flags::DIRTY);
        let mut conns = self.table.iter().map(|entry| &entry.conn);
        let mut outlets = self.table.outlets.values().map(|outlet| &outlet.state);
        if let Some(state) = outlets.find(|state| state.has_work() || state.listed) {
            return Some(format!("{} has something to do and is in no list", state.id()));
        }
        let conn = conns.find(|conn| conn.has_work() || lost(conn.flags()))?;
        Some(format!("{} has something to do and is in no list: {:?}", conn.id(), conn.flags()))
    }

    /// Marks a connection as listed although no list has it, as a defect might.
    #[cfg(test)]
    pub(crate) fn lose_lists(&mut self, id: ConnId) {
        self.list(id);
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.handle_ready(Flags::READABLE);
        }
        self.ready.clear();
        self.bulk.clear();
    }

    /// Applies requests from outside of callbacks, as the next turn would.
    pub(crate) fn settle_outside(&mut self) {
        self.apply_outside();
    }
}
