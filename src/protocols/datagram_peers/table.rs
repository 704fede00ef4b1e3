//! The peers of a socket: who has a place, whose turn it is, who ends.

use std::time::{Duration, Instant};

use super::{Entry, Full, PeerContext, PeerEnd, PeerProtocol, Peers, WAKE};
use crate::clock::nanos;
use crate::datagram::DatagramContext;
use crate::endpoint::Endpoint;
use crate::guard::guarded;
use crate::protocol::Outcome;

impl<P: PeerProtocol, F: FnMut(Endpoint) -> Option<P>> Peers<P, F> {
    /// When this socket was first called.
    fn start(&mut self, cx: &DatagramContext<'_>) -> Instant {
        *self.start.get_or_insert_with(|| cx.now())
    }

    /// Nanoseconds since then.
    pub(super) fn now(&mut self, cx: &DatagramContext<'_>) -> u64 {
        let start = self.start(cx);
        nanos(cx.now().saturating_duration_since(start))
    }

    /// The peers there are, in the order of their last datagrams.
    pub(super) fn slots(&self) -> Vec<usize> {
        self.by_silence.values().copied().collect()
    }

    /// The place of a sender, which is given one if there is none; None when it is refused.
    pub(super) fn place(&mut self, cx: &mut DatagramContext<'_>, addr: Endpoint) -> Option<usize> {
        if let Some(slot) = self.by_addr.get(&addr) {
            return Some(*slot);
        }
        let full = self.peers.len() >= self.max;
        if full && self.full == Full::Refuse {
            return None;
        }
        let protocol = match guarded(|| (self.factory)(addr)) {
            Ok(protocol) => protocol?,
            Err(panic) => {
                note_failure(cx, addr, &PeerEnd::Panicked(panic.to_string()));
                return None;
            }
        };
        if full {
            let (slot, _) = self.longest_silent()?;
            self.end(cx, slot, PeerEnd::Evicted);
        }
        let heard_at = self.now(cx);
        let heard = self.heard;
        self.heard += 1;
        let entry = Entry { addr, protocol, heard, heard_at, timers: Vec::new() };
        let slot = self.peers.insert(entry);
        self.by_addr.insert(addr, slot);
        self.by_silence.insert(heard, slot);
        self.counters.note(|counts| {
            counts.open += 1;
            counts.opened += 1;
        });
        self.call(cx, slot, |protocol, cx| protocol.opened(cx));
        Some(slot)
    }

    /// The peer has sent a datagram.
    pub(super) fn hear(&mut self, cx: &DatagramContext<'_>, slot: usize) {
        let now = self.now(cx);
        if let Some(peer) = self.peers.get_mut(slot) {
            self.by_silence.remove(&peer.heard);
            (peer.heard, peer.heard_at) = (self.heard, now);
            self.by_silence.insert(self.heard, slot);
            self.heard += 1;
        }
    }

    /// The peer that is silent for longest, and since when.
    fn longest_silent(&self) -> Option<(usize, u64)> {
        let slot = *self.by_silence.values().next()?;
        self.peers.get(slot).map(|peer| (slot, peer.heard_at))
    }

    /// The peer that ends for its silence next, and when.
    pub(super) fn silent(&self) -> Option<(usize, u64)> {
        let idle = nanos(self.idle?);
        self.longest_silent().map(|(slot, since)| (slot, since.saturating_add(idle)))
    }

    /// Runs a callback of a peer, and ends the peer if it asks for that or fails.
    pub(super) fn call(
        &mut self,
        cx: &mut DatagramContext<'_>,
        slot: usize,
        code: impl FnOnce(&mut P, &mut PeerContext<'_, '_>) -> Outcome,
    ) {
        let start = self.start(cx);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let mut context = PeerContext {
            socket: cx,
            addr: peer.addr,
            slot,
            start,
            own: &mut peer.timers,
            timers: &mut self.timers,
            ending: false,
        };
        let result = guarded(|| code(&mut peer.protocol, &mut context));
        let end = match result {
            Ok(Ok(())) if !context.ending => return,
            Ok(Ok(())) => PeerEnd::Closed,
            Ok(Err(error)) => PeerEnd::Failed(error),
            Err(panic) => PeerEnd::Panicked(panic.to_string()),
        };
        self.end(cx, slot, end);
    }

    /// Ends a peer: its timers are gone, and then it is.
    pub(super) fn end(&mut self, cx: &mut DatagramContext<'_>, slot: usize, end: PeerEnd) {
        let start = self.start(cx);
        let Some(mut peer) = self.peers.try_remove(slot) else { return };
        self.by_addr.remove(&peer.addr);
        self.by_silence.remove(&peer.heard);
        for (_, key) in peer.timers.drain(..) {
            self.timers.cancel(key);
        }
        self.counters.note(|counts| {
            counts.open -= 1;
            match end {
                PeerEnd::Evicted => counts.evicted += 1,
                PeerEnd::Idle => counts.idle += 1,
                PeerEnd::Failed(_) | PeerEnd::Panicked(_) => counts.failed += 1,
                _ => {}
            }
        });
        note_failure(cx, peer.addr, &end);
        let Entry { addr, mut protocol, timers: mut own, .. } = peer;
        let timers = &mut self.timers;
        let mut context =
            PeerContext { socket: cx, addr, slot, start, own: &mut own, timers, ending: true };
        let result = guarded(|| protocol.closed(&mut context, &end));
        for panic in [result.err(), guarded(|| drop(protocol)).err()].into_iter().flatten() {
            note_failure(cx, addr, &PeerEnd::Panicked(panic.to_string()));
        }
    }

    /// Sets the socket's timer for what is due next, unless it fires before that anyway.
    pub(super) fn arm(&mut self, cx: &mut DatagramContext<'_>) {
        let next = [self.timers.next(), self.silent().map(|(_, due)| due)];
        let Some(due) = next.into_iter().flatten().min() else { return };
        if self.armed.is_none_or(|armed| due < armed) {
            let now = self.now(cx);
            cx.set_timer(WAKE, Duration::from_nanos(due.saturating_sub(now)));
            self.armed = Some(due);
        }
    }
}

/// A peer's own failure is nothing to the socket: it is said in the log.
fn note_failure(cx: &mut DatagramContext<'_>, addr: Endpoint, end: &PeerEnd) {
    match end {
        PeerEnd::Panicked(panic) => {
            cx.shared.metrics.panics += 1;
            log::error!(target: "lariat::dispatch", "a callback for {addr} panicked: {panic}");
        }
        PeerEnd::Failed(error) => {
            log::debug!(target: "lariat::dispatch", "a callback for {addr} failed: {error}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::datagram::{Called, Datagram, NoSocket, Round, State};
    use crate::id::Ids;
    use crate::protocol::made_up;
    use crate::timer::Timer;

    /// Each callback takes 300 ns, and then sets a timer of this many.
    struct Slow(Arc<AtomicU64>, u64);

    impl Slow {
        fn act(&self, cx: &mut PeerContext<'_, '_>) -> Outcome {
            self.0.fetch_add(300, Ordering::Relaxed);
            cx.set_timer(Timer::new(1), Duration::from_nanos(self.1));
            Ok(())
        }
    }

    impl PeerProtocol for Slow {
        fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, _: &Datagram<'_>) -> Outcome {
            self.act(cx)
        }

        fn timeout(&mut self, cx: &mut PeerContext<'_, '_>, _: Timer) -> Outcome {
            self.act(cx)
        }
    }

    #[test]
    fn a_timer_counts_from_when_it_is_set_and_not_from_the_beginning_of_the_callback() {
        for (delay, waits) in [(200, 200), (0, 1), (u64::MAX, u64::MAX)] {
            let (mut shared, now) = made_up();
            let mut state = State::new(Ids::default().reserve(), Arc::default(), 0);
            while state.poll_due(&mut Round::default()).is_some() {}
            let moved = Arc::clone(&now);
            let mut peers = Peers::new(move |_| Some(Slow(Arc::clone(&moved), delay)));
            let mut call = |peers: &mut Peers<Slow, _>, timer: Option<Timer>| {
                let called = Called {
                    shared: &mut shared,
                    state: &mut state,
                    protocol: peers,
                    socket: &NoSocket,
                };
                let from = Endpoint::from(([10, 0, 0, 1], 1));
                let datagram =
                    Datagram { bytes: b"x", from, to: None, ecn: None, truncated: false };
                match timer {
                    Some(timer) => called.timeout(timer),
                    None => called.datagram(&datagram),
                }
            };
            call(&mut peers, None);
            let due = waits.saturating_add(300);
            assert_eq!(peers.timers.next(), Some(due), "{delay}");
            if delay == u64::MAX {
                continue;
            }
            now.store(due - 1, Ordering::Relaxed);
            call(&mut peers, Some(WAKE));
            assert_eq!(peers.timers.next(), Some(due), "it is not due");
            // One that sets itself again does not fire twice in one turn.
            now.store(due, Ordering::Relaxed);
            call(&mut peers, Some(WAKE));
            assert_eq!(peers.timers.next(), Some(due + 300 + waits), "{delay}");
        }
    }
}
