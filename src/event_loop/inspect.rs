//! What the simulator looks at from outside: nothing here is on the way of a message.

use super::EventLoop;
use super::system::System;
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::reason::CloseReason;

impl<S: System> EventLoop<S> {
    /// Why the connection ends, if that is decided and `closed` has not been told yet.
    pub(crate) fn decided(&self, id: ConnId) -> Option<CloseReason> {
        self.table.get(id)?.conn.decided(self.shared.clock.exact())
    }

    /// Every connection, with its peer and the end that is decided.
    pub(crate) fn connections(&self) -> Vec<(ConnId, Endpoint, Option<CloseReason>)> {
        let now = self.shared.clock.exact();
        let conns = self.table.iter().map(|entry| &entry.conn);
        conns.map(|conn| (conn.id(), conn.peer(), conn.decided(now))).collect()
    }
}
