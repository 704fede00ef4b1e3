//! Streams that other code has connected, and those that it gets.

use super::EventLoop;
use super::system::{Stream, System};
use super::table::Entry;
use crate::admission::Place;
use crate::connection::Connection;
use crate::id::ConnId;
use crate::protocol::{Adopted, Protocol};
use crate::reason::{By, Cause, CloseKind, ConnectFailure};
use crate::socket::prepare_detached;

impl<S: System> EventLoop<S> {
    /// Takes a stream over. A failure becomes a `closed`, in a later turn.
    pub(super) fn adopt_stream(&mut self, adopted: Adopted<Box<dyn Protocol>>) {
        let Adopted { id, peer, limits, socket, protocol } = adopted;
        let now = self.shared.clock.exact();
        let mut conn = Connection::accepted(id, None, peer, limits, now);
        let full = self.place_for_asked() != Place::Free;
        self.shared.metrics.accepted += 1;
        self.shared.metrics.open += 1;
        let mut stream = None;
        if self.draining {
            conn.end(By::Runtime, CloseKind::Shutdown, None);
        } else if full {
            conn.end(By::Runtime, CloseKind::Connect(ConnectFailure::Limit), None);
        } else {
            match self.system.adopt_stream(socket, id) {
                Ok(adopted) => {
                    if !adopted.is_socket() {
                        conn.handle_no_socket();
                    }
                    stream = Some(adopted);
                }
                Err(error) => {
                    log::warn!(target: "lariat::accept", "cannot watch {peer}: {error}");
                    let kind = CloseKind::Connect(ConnectFailure::of(&error));
                    conn.end(By::Runtime, kind, Some(Cause::new(error)));
                }
            }
        }
        let watched = stream.is_some();
        self.table.insert(Entry { conn, stream, protocol });
        if watched {
            self.ask_for_filter(id, false);
        }
        self.finish(id);
    }

    /// The socket leaves: from here on the loop hears nothing of it.
    pub(super) fn detach(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if let Some(stream) = &mut entry.stream {
            if let Err(error) = self.system.deregister_stream(stream) {
                log::warn!(target: "lariat::reactor", "cannot stop watching {id}: {error}");
            }
        }
        if let Some(socket) = entry.conn.leaving() {
            prepare_detached(&socket);
        }
        entry.conn.handle_detached(&mut self.shared.chunks);
    }
}
