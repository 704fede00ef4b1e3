//! Handing a connection over to its next protocol.

use std::fmt;

use super::{Boxed, Context, Effect, Protocol, Successor};

impl Context<'_> {
    /// Lets `next` take the connection over when this callback has returned. This protocol is
    /// dropped without `closed`, its timers are cancelled, and its output is sent first. `next`
    /// gets `opened` and then the unread input. The last call in a callback counts; a close, an
    /// abort or an `Err` in the same callback prevails over it.
    pub fn replace(&mut self, next: impl Protocol + Send + 'static) -> Replacement<'_> {
        self.start_replacing(Boxed::Anywhere(Box::new(next)))
    }

    /// Replaces like [`replace`](Context::replace); `next` need not be `Send`. On the blocking
    /// driver the connection ends with [`CloseKind::Unsupported`](crate::CloseKind::Unsupported).
    pub fn replace_local(&mut self, next: impl Protocol + 'static) -> Replacement<'_> {
        self.start_replacing(Boxed::Here(Box::new(next)))
    }

    fn start_replacing(&mut self, protocol: Boxed) -> Replacement<'_> {
        let successor = Successor { protocol, feed: false };
        self.shared.effects.list.push(Effect::Replace(successor));
        Replacement { effect: self.shared.effects.list.last_mut() }
    }
}

/// Options of [`Context::replace`].
pub struct Replacement<'a> {
    effect: Option<&'a mut Effect>,
}

impl Replacement<'_> {
    /// Feeds unread input to the new protocol's filter. Without this, unread input ends the
    /// connection when the new protocol brings a filter: what precedes a STARTTLS may be an
    /// attacker's.
    pub fn feed_unread(&mut self) {
        if let Some(Effect::Replace(successor)) = &mut self.effect {
            successor.feed = true;
        }
    }
}

impl fmt::Debug for Replacement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").finish_non_exhaustive()
    }
}
