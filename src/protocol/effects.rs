//! What a callback wished for beyond its own output, in the order it did.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Protocol;
use super::listen::{Bound, BoxedFactory};
use crate::address::Address;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;

/// Bytes for another connection.
#[derive(Debug)]
pub(crate) enum Content {
    /// A range of [`Effects::bytes`].
    Copied(Range<usize>),
    Shared(Bytes),
}

/// A protocol on its way to a connection: some may go to another thread, some may not.
pub(crate) enum Boxed {
    Anywhere(Box<dyn Protocol + Send>),
    Here(Box<dyn Protocol>),
}

impl Boxed {
    /// The protocol, to be used on this thread.
    pub(crate) fn here(self) -> Box<dyn Protocol> {
        match self {
            Boxed::Anywhere(protocol) => protocol,
            Boxed::Here(protocol) => protocol,
        }
    }
}

/// A wish that concerns anything but the own connection.
pub(crate) enum Effect {
    Write {
        to: ConnId,
        content: Content,
        caused: bool,
    },
    ShutdownWrite(ConnId),
    Close(ConnId),
    Abort(ConnId),
    Notify {
        to: ConnId,
        note: Note,
    },
    Connect {
        id: ConnId,
        addr: Address,
        limits: Option<Arc<Limits>>,
        protocol: Boxed,
    },
    Listen {
        id: ListenerId,
        sockets: Vec<Bound>,
        limits: Arc<Limits>,
        factory: BoxedFactory,
    },
    StopListening(ListenerId),
    Stop,
    /// The own connection's, applied after all others; the last one counts.
    Replace(Successor),
}

/// The protocol that is to take over.
pub(crate) struct Successor {
    pub(crate) protocol: Boxed,
    /// Whether unread input is fed to its filter.
    pub(crate) feed: bool,
}

/// The wishes of one callback, or of code outside of callbacks, in order.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) list: Vec<Effect>,
    /// The bytes that the list's writes have copied.
    pub(crate) bytes: Vec<u8>,
}

impl Effects {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the running callback wants another protocol to take over.
    pub(crate) fn has_successor(&self) -> bool {
        self.list.iter().any(|effect| matches!(effect, Effect::Replace(_)))
    }

    /// Takes out the protocol that the running callback wants to take over, and those it wanted
    /// before.
    pub(crate) fn take_successors(&mut self) -> Vec<Successor> {
        if !self.has_successor() {
            return Vec::new();
        }
        let mut successors = Vec::new();
        for effect in std::mem::take(&mut self.list) {
            match effect {
                Effect::Replace(successor) => successors.push(successor),
                other => self.list.push(other),
            }
        }
        successors
    }

    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Content {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Content::Copied(from..self.bytes.len())
    }
}
