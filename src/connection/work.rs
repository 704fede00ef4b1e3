//! Whether a connection has something to do, and which of a driver's lists it enters for that.

use super::rare::Queues;
use super::{Connection, Flags};

/// Which list a connection enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// None: it has nothing to do, or is in one.
    No,
    Ready,
    /// That of the connections that move much at a time, or are in a handshake: others come first.
    Bulk,
}

impl Connection {
    /// Whether a callback other than `opened` and `closed` may run.
    pub(crate) fn may_call(&self) -> bool {
        self.flags.any(Flags::OPENED)
            && self.flags.none(Flags::CLOSING | Flags::ENDED | Flags::OPENED_DUE | Flags::DETACHING)
    }

    /// Whether a turn has something to do for this connection. A driver keeps exactly these
    /// connections in its ready list.
    pub(crate) fn has_work(&self) -> bool {
        self.may_read() || self.has_rare_work()
    }

    fn has_rare_work(&self) -> bool {
        let flags = self.flags;
        if flags.any(Flags::ENDED) {
            return flags.none(Flags::CLOSED);
        }
        if flags.any(Flags::CONNECTING) {
            return flags.any(Flags::WRITABLE | Flags::FAULTY);
        }
        flags.any(Flags::FAULTY) || self.has_output() || self.has_due()
    }

    /// Whether a flush would be of use. Clear bytes wait for a filter that is not open.
    pub(crate) fn has_output(&self) -> bool {
        self.flags.any(Flags::WRITABLE) && self.has_queued()
    }

    /// Whether input may wait at the socket which nobody has looked at since `time`.
    pub(crate) fn has_input_since(&self, time: u64) -> bool {
        self.may_read() && self.active < time
    }

    /// Whether output waits for nothing but room at the socket.
    pub(crate) fn is_stuck(&self) -> bool {
        self.flags.none(Flags::WRITABLE) && self.has_queued()
    }

    /// Whether nothing is read before output has left: the peer has finished, or the connection's
    /// own queue holds it.
    pub(crate) fn reads_behind_output(&self) -> bool {
        let holds_itself = |queues: &Queues| queues.holding.contains(&self.id);
        self.flags.any(Flags::PEER_FIN | Flags::FIN_TOLD)
            || (self.flags.any(Flags::HELD) && self.queues().is_some_and(holds_itself))
    }

    fn has_queued(&self) -> bool {
        let flags = self.flags;
        flags.any(Flags::QUEUED)
            && flags.none(Flags::CONNECTING | Flags::ENDED)
            && (flags.none(Flags::HANDSHAKING) || self.wire_len() > 0)
    }

    /// Readiness as the system reported it. Says which list the connection has to enter now, if
    /// there is work and it is in none.
    #[inline(always)]
    pub(crate) fn handle_ready(&mut self, ready: Flags) -> Listing {
        let flags = self.flags | ready;
        if flags.passes(Flags::LISTING_GATE, Flags::READABLE) {
            self.flags = flags | Flags::LISTED;
            return Listing::Ready;
        }
        self.flags = flags;
        self.rare_listing()
    }

    #[inline(never)]
    fn rare_listing(&mut self) -> Listing {
        let works = self.may_read() || self.has_rare_work();
        if self.flags.any(Flags::LISTED) || !works {
            return Listing::No;
        }
        self.flags.set(Flags::LISTED);
        match self.flags.any(Flags::BULK | Flags::HANDSHAKING) {
            true => Listing::Bulk,
            false => Listing::Ready,
        }
    }

    /// Has left the ready list.
    #[inline(always)]
    pub(crate) fn handle_unlisted(&mut self) {
        self.flags.clear(Flags::LISTED);
    }

    /// Marks the connection as having output queued by others; false if it was marked already.
    pub(crate) fn handle_dirty(&mut self, dirty: bool) -> bool {
        let was = self.flags.any(Flags::DIRTY);
        if dirty {
            self.flags.set(Flags::DIRTY)
        } else {
            self.flags.clear(Flags::DIRTY)
        }
        was != dirty
    }
}
