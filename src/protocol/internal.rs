//! What ready protocols ask of a [`Context`] beyond its public part.

use super::{Boxed, Context, Effect, Successor};
use crate::connection::Flags;
use crate::endpoint::Endpoint;
use crate::reason::{Cause, CloseKind, Deadline};

impl Context<'_> {
    /// Whether a ready protocol may show the next message: its user has not asked for a pause, an
    /// end or another protocol, and the answers do not congest the output.
    pub(crate) fn takes_input(&self) -> bool {
        let over = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW;
        self.conn.flags().none(over | Flags::PAUSED | Flags::CONGESTED) && !self.is_replaced()
    }

    /// Notes are for the protocol that will take over, and wait for it.
    pub(crate) fn defer_notes(&mut self) {
        self.conn.defer_notes();
    }

    /// The peer has this address from now on: a balancer has announced it.
    pub(crate) fn put_peer(&mut self, peer: Endpoint) {
        self.conn.put_peer(peer);
    }

    /// Whether flow control holds the input for now.
    #[cfg(feature = "http")]
    pub(crate) fn is_held(&self) -> bool {
        self.conn.flags().any(Flags::HELD)
    }

    /// Whether the callback has asked for an end of its connection.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn is_ending(&self) -> bool {
        self.conn.flags().any(Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW)
    }

    /// Whether the callback has asked for another protocol to take over.
    pub(crate) fn is_replaced(&self) -> bool {
        self.shared.effects.has_successor()
    }

    /// Changes what the callback has asked to take over.
    pub(crate) fn wrap_successors(&mut self, wrap: impl Fn(Boxed) -> Boxed) {
        if !self.is_replaced() {
            return;
        }
        for effect in std::mem::take(&mut self.shared.effects.list) {
            self.shared.effects.list.push(match effect {
                Effect::Replace(Successor { protocol, feed }) => {
                    Effect::Replace(Successor { protocol: wrap(protocol), feed })
                }
                other => other,
            });
        }
    }

    /// Whether the driver is being shut down; cheaper than asking `driver`.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.stopping
    }

    /// Whether this connection has an idle deadline of its own, which new limits remove.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn has_own_idle(&self) -> bool {
        self.conn.has_own_idle()
    }

    /// Closes in order after what was written, with the reason [`CloseKind::Refused`].
    #[cfg(feature = "http")]
    #[cold]
    pub(crate) fn refuse(&mut self, status: u16, why: &'static str) {
        self.conn.handle_failure(CloseKind::Refused(status), Cause::new(why));
    }

    /// Closes in order: the peer has not said in time what it had to say first.
    #[cold]
    pub(crate) fn refuse_late(&mut self, why: impl std::error::Error + Send + Sync + 'static) {
        let late = CloseKind::TimedOut(Deadline::Handshake);
        self.conn.handle_failure(late, Cause::new(why));
    }

    /// Makes the end a reset, if this callback ends with an `Err` or [`Context::refuse`]. A close
    /// in order would tell the peer that the answer is whole.
    #[cfg(feature = "http")]
    #[cold]
    pub(crate) fn end_by_reset(&mut self) {
        self.conn.want_reset();
    }
}
