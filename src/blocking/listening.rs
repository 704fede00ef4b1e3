//! Listening sockets, as the threads of a driver share them.

use std::sync::Arc;

use super::system::{self, Listener};
use crate::endpoint::Endpoint;
use crate::id::ListenerId;
use crate::sync::atomic::{AtomicBool, Ordering};

/// One call of `listen`.
pub(super) struct Listening {
    pub(super) id: ListenerId,
    pub(super) sockets: Vec<Arc<Socket>>,
}

/// One listening socket, which its acceptor thread sleeps in.
pub(super) struct Socket {
    pub(super) addr: Endpoint,
    pub(super) listener: Listener,
    stopped: AtomicBool,
}

impl Socket {
    pub(super) fn new(addr: Endpoint, listener: Listener) -> Socket {
        Socket { addr, listener, stopped: AtomicBool::new(false) }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Wakes the thread out of `accept`. False if it may have to be woken once more.
    pub(super) fn stop(&self) -> bool {
        self.stopped.store(true, Ordering::Release);
        system::wake_accept(&self.listener)
    }
}
