//! What a callback of one peer may do.

use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::nanos;
use crate::datagram::DatagramContext;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::timer::{Timer, TimerKey, Timers};

/// Lent to each callback of a peer: ways to answer it, and to everything that its socket can do.
pub struct PeerContext<'a, 'b> {
    pub(super) socket: &'a mut DatagramContext<'b>,
    pub(super) addr: Endpoint,
    pub(super) slot: usize,
    /// Times are counted in nanoseconds from here.
    pub(super) start: Instant,
    pub(super) own: &'a mut Vec<(Timer, TimerKey)>,
    pub(super) timers: &'a mut Timers<(usize, Timer)>,
    /// Whether the peer ends after this callback, or has ended.
    pub(super) ending: bool,
}

impl<'b> PeerContext<'_, 'b> {
    /// The peer's address.
    pub fn peer_addr(&self) -> Endpoint {
        self.addr
    }

    /// The time right now; virtual in the simulator.
    pub fn now(&self) -> Instant {
        self.socket.now()
    }

    /// Sends a datagram to the peer, as
    /// [`DatagramContext::send_to`](crate::DatagramContext::send_to) does.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.send_to(bytes, self.addr)
    }

    /// Ends the peer when this callback has returned: `closed` runs, and its place is free. A later
    /// datagram from its address makes a new one.
    pub fn close(&mut self) {
        self.ending = true;
    }

    /// Sets a timer of this peer to fire after `delay`, or again if it is set. It never fires
    /// early; zero fires in the next turn. It ends with the peer.
    pub fn set_timer(&mut self, timer: Timer, delay: Duration) {
        if self.ending {
            return;
        }
        self.cancel_timer(timer);
        // From now on, however long this callback has taken.
        let now = nanos(self.now().saturating_duration_since(self.start));
        // One that was set while timers fire waits for the next time.
        let deadline = now.saturating_add(nanos(delay).max(1));
        self.own.push((timer, self.timers.arm(deadline, (self.slot, timer))));
    }

    /// Cancels a timer of this peer; false when it was not set.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        let Some(at) = self.own.iter().position(|(of, _)| *of == timer) else { return false };
        let (_, key) = self.own.swap_remove(at);
        self.timers.cancel(key)
    }

    /// The socket: other peers, notes, the driver. Its timers belong to the table of peers:
    /// [`set_timer`](PeerContext::set_timer) is the way to one.
    pub fn socket(&mut self) -> &mut DatagramContext<'b> {
        self.socket
    }
}

impl fmt::Debug for PeerContext<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerContext").field("peer", &self.addr).finish_non_exhaustive()
    }
}
