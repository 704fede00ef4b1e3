//! Streams that other code has connected.

use std::sync::Arc;

use super::bell::lock;
use super::cell::Cell;
use super::hub::{Entered, Hub};
use super::pool::Job;
use super::system;
use crate::connection::Connection;
use crate::guard::drop_guarded;
use crate::protocol::{Adopted, Protocol};
use crate::reason::{By, CloseKind, ConnectFailure};

/// Enters a stream, which [`begin`] gives a thread.
pub(super) fn enter(hub: &Hub, adopted: Adopted<Box<dyn Protocol + Send>>) -> Option<Arc<Cell>> {
    let Adopted { id, peer, limits, socket, protocol } = adopted;
    let Ok(stream) = system::adopted(socket) else {
        drop_guarded(protocol);
        hub.forget(id);
        return None;
    };
    let conn = Connection::accepted(id, None, peer, limits, hub.clock.exact());
    let cell = Cell::new(id, conn, protocol, Some(stream));
    let kind = match hub.enter_asked(&cell, true) {
        Entered::Welcome => return Some(cell),
        Entered::TooMany => CloseKind::Connect(ConnectFailure::Limit),
        Entered::Late => CloseKind::Shutdown,
    };
    lock(&cell.member).conn.end(By::Runtime, kind, None);
    Some(cell)
}

/// Starts the thread of a stream that has been entered.
pub(super) fn begin(hub: &Arc<Hub>, cell: Arc<Cell>) {
    lock(&hub.state).pool.claim();
    hub.begin(Job::Serve(cell));
}
