//! Datagram sockets: how they are entered, and get their threads.

use std::sync::Arc;

use super::hub::Hub;
use super::outlet::{Inside, Outlet};
use super::pool::Job;
use super::system::Datagrams;
use crate::datagram::{Bound, Boxed, DatagramOptions, DatagramProtocol, State};
use crate::guard::drop_guarded;
use crate::id::ConnId;
use crate::reason::{By, CloseKind};

/// A socket that waits for a thread, in a form that may go to one.
pub(super) struct Waiting {
    id: ConnId,
    socket: Datagrams,
    options: Arc<DatagramOptions>,
    protocol: Box<dyn DatagramProtocol + Send>,
}

/// What was bound, as this driver can take it. Nothing else gets here: a protocol that may not
/// leave its thread, or a socket that is none of the system's, is refused where it is bound.
pub(super) fn waiting(hub: &Hub, bound: Bound) -> Option<Waiting> {
    let Bound { id, socket, options, protocol } = bound;
    match (socket.downcast(), protocol) {
        (Ok(socket), Boxed::Anywhere(protocol)) => {
            Some(Waiting { id, socket: *socket, options, protocol })
        }
        (_, protocol) => {
            hub.listeners.remove_bound(id);
            hub.give_place();
            hub.forget(id);
            drop_guarded(protocol.here());
            None
        }
    }
}

/// Enters a socket. What comes back is to begin.
pub(super) fn enter(hub: &Hub, waiting: Waiting) -> Job {
    let Waiting { id, socket, options, protocol } = waiting;
    let mut state = State::new(id, options, hub.clock.exact());
    let mut socket = Some(Arc::new(socket));
    if hub.is_stopping() {
        socket = None;
        state.end(By::Runtime, CloseKind::Shutdown, None);
    }
    let inside = Inside::new(state, Some(protocol), socket);
    let outlet = Outlet::new(id, inside);
    hub.enter_outlet(&outlet);
    Job::Receive(outlet)
}

/// Takes apart a socket that never had a thread.
pub(super) fn discard(hub: &Hub, outlet: &Outlet) -> Option<Box<dyn DatagramProtocol + Send>> {
    let (mut inside, posts) = outlet.close();
    hub.listeners.remove_bound(outlet.id);
    hub.give_place();
    hub.leave_outlet(outlet.id, 0);
    hub.drop_posts(posts);
    inside.protocol.take()
}
