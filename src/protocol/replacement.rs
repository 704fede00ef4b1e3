//! Handing a connection over to its next protocol.

use std::fmt;

use super::{Boxed, Context, Effect, Protocol, Successor};

impl Context<'_> {
    /// Lets `next` take the connection over when this callback has returned: this protocol is
    /// dropped without `closed`, its timers are cancelled, and what it wrote is sent first. `next`
    /// is told `opened`, then shown what is unread. The last call in a callback wins; a close, an
    /// abort or an `Err` in the same callback beats it.
    pub fn replace(&mut self, next: impl Protocol + Send + 'static) -> Replacement<'_> {
        self.start_replacing(Boxed::Anywhere(Box::new(next)))
    }

    /// Replaces like [`replace`](Context::replace), with a protocol that may not leave this thread.
    pub fn replace_local(&mut self, next: impl Protocol + 'static) -> Replacement<'_> {
        self.start_replacing(Boxed::Here(Box::new(next)))
    }

    fn start_replacing(&mut self, protocol: Boxed) -> Replacement<'_> {
        let successor = Successor { protocol, feed: false };
        self.shared.effects.list.push(Effect::Replace(successor));
        Replacement { effect: self.shared.effects.list.last_mut() }
    }
}

/// What [`Context::replace`] returns, to say more about it.
pub struct Replacement<'a> {
    effect: Option<&'a mut Effect>,
}

impl Replacement<'_> {
    /// Feeds unread input to the new protocol's filter. Without this, unread input that meets a new
    /// filter ends the connection: after a plaintext STARTTLS it may be an attacker's.
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
