//! The way out: the socket leaves the driver alive, with what waits on both sides of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::detached::Detached;
use crate::reason::{By, CloseKind};

impl Connection {
    /// Why the socket cannot leave, if it cannot.
    pub(crate) fn stays(&self) -> Option<&'static str> {
        let ending = Flags::CLOSING | Flags::ENDED | Flags::BROKEN | Flags::CONNECTING;
        let wanted = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::FAILED;
        match self.flags {
            flags if flags.any(ending | wanted) => Some("the connection is ending"),
            flags if flags.any(Flags::FILTERED | Flags::HANDSHAKING) => Some("it has a filter"),
            _ => None,
        }
    }

    /// The protocol gives the connection up: nothing is read or called any more, and `socket`, a
    /// second descriptor, is what the program will get.
    pub(crate) fn want_detach(&mut self, socket: OwnedFd) {
        self.end_mut().leaving = Some(socket);
        self.flags.set(Flags::DETACHING | Flags::PAUSED);
    }

    /// Whether the socket is to leave. An end of another kind comes first.
    pub(crate) fn is_detaching(&self) -> bool {
        self.flags.any(Flags::DETACHING)
            && self.flags.none(Flags::CLOSING | Flags::ENDED | Flags::BROKEN)
    }

    /// The descriptor on its way to the program.
    pub(crate) fn leaving(&self) -> Option<BorrowedFd<'_>> {
        self.rare()?.end.as_ref()?.leaving.as_ref().map(AsFd::as_fd)
    }

    /// No thread uses the socket, and the driver watches it no more: ends the connection, and keeps
    /// what `closed` takes.
    pub(crate) fn handle_detached(&mut self, pool: &mut ChunkPool) {
        let Some(socket) = self.end_mut().leaving.take() else { return };
        let mut unread = self.lend_unread();
        let unsent = self.get_queues().map_or_else(Vec::new, |queues| {
            queues.caused = 0;
            queues.queue.take_all(pool)
        });
        self.flags.clear(Flags::QUEUED | Flags::UNREAD);
        let detached = Detached::new(socket, unread.as_slice().to_vec(), unsent);
        unread.clear(pool);
        self.end_mut().detached = Some(detached);
        self.end(By::Us, CloseKind::Detached, None);
    }

    /// Whether the socket has left, so that it must be neither shut down nor reset.
    pub(crate) fn has_detached(&self) -> bool {
        self.ending().is_some_and(|ending| ending.kind == CloseKind::Detached)
    }

    /// The socket that has left, once.
    pub(crate) fn take_detached(&mut self) -> Option<Detached> {
        self.rare.as_mut()?.end.as_mut()?.detached.take()
    }
}
