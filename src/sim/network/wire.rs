//! What is under way between two ends, and the effect of its arrival.

use std::collections::VecDeque;

use super::{Edge, Event, Network, Segment};
use crate::clock::nanos;
use crate::connection::Flags;
use crate::sim::choices::Kind;
use crate::sim::log::What;

/// Takes the first `count` bytes. Slices are copied: byte by byte it is most of a run's time.
pub(super) fn take(queue: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    let (front, back) = queue.as_slices();
    let first = front.len().min(count);
    let bytes = [&front[..first], &back[..count - first]].concat();
    queue.drain(..count);
    bytes
}

impl Network {
    pub(super) fn send(&mut self, end: usize, bytes: Vec<u8>) {
        let mut rest = bytes;
        let places = (rest.len() as u64).saturating_sub(1);
        if let Some(place) = self.roll(Some(end), Kind::Cuts, places) {
            let tail = rest.split_off(1 + place as usize);
            self.transmit(end, Segment::Bytes(rest));
            rest = tail;
        }
        self.transmit(end, Segment::Bytes(rest));
        if !self.endpoints[end].no_socket && self.roll(Some(end), Kind::Resets, 1).is_some() {
            self.transmit(end, Segment::Reset);
            // The end that was reset by the network learns of it as well.
            self.break_end(end, libc::ECONNRESET);
        }
    }

    pub(super) fn transmit(&mut self, from: usize, segment: Segment) {
        let Some(to) = self.endpoints[from].other else { return };
        let delay = self.delay(Some(from));
        let endpoint = &mut self.endpoints[to];
        let bytes = match &segment {
            Segment::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        endpoint.under_way_bytes += bytes;
        let sending = match endpoint.link.bandwidth {
            Some(rate) => bytes as u64 * 1_000_000_000 / rate.max(1),
            None => 0,
        };
        let earliest = self.now + nanos(endpoint.link.latency) + delay;
        endpoint.last_arrival = earliest.max(endpoint.last_arrival) + sending;
        endpoint.under_way.push_back(segment);
        self.events.arm(endpoint.last_arrival, Event::Arrive(to));
    }

    pub(super) fn arrive(&mut self, to: usize) {
        let from = self.endpoints[to].other;
        let vanished =
            self.endpoints[to].vanished || from.is_some_and(|from| self.endpoints[from].vanished);
        if vanished {
            // Bytes to a host that is gone are never acknowledged, so the window stays taken.
            return;
        }
        let endpoint = &mut self.endpoints[to];
        let Some(segment) = endpoint.under_way.pop_front() else { return };
        let (from, here) = (endpoint.remote, endpoint.local);
        self.note(match &segment {
            Segment::Bytes(bytes) => What::Bytes(from, here, bytes.len()),
            Segment::Fin => What::Fin(from, here),
            Segment::Reset => What::Reset(from, here),
        });
        let endpoint = &mut self.endpoints[to];
        match segment {
            Segment::Bytes(bytes) => {
                endpoint.under_way_bytes -= bytes.len();
                if endpoint.closed && endpoint.no_socket {
                    return;
                }
                if endpoint.closed {
                    return self.answer_with_reset(to);
                }
                if endpoint.error.is_some() || endpoint.reset_seen {
                    return;
                }
                endpoint.arrived.extend(bytes);
                self.receive_raw(to);
                self.tell(to, Flags::READABLE);
            }
            Segment::Fin => {
                endpoint.fin_arrived = true;
                self.tell(to, Flags::READABLE | Flags::HUNG | Flags::FIN_TOLD);
            }
            Segment::Reset => self.break_end(to, libc::ECONNRESET),
        }
    }

    fn answer_with_reset(&mut self, end: usize) {
        if !self.endpoints[end].reset_seen {
            self.endpoints[end].reset_seen = true;
            if let Some(raw) = &mut self.endpoints[end].raw {
                raw.outbox.clear();
            }
            self.transmit(end, Segment::Reset);
        }
    }

    pub(super) fn break_end(&mut self, end: usize, errno: i32) {
        let endpoint = &mut self.endpoints[end];
        if endpoint.closed || endpoint.error.is_some() || endpoint.reset_seen {
            return;
        }
        endpoint.error = Some(errno);
        if let Some(raw) = &mut endpoint.raw {
            raw.was_reset = true;
            raw.outbox.clear();
        }
        self.tell(end, Flags::READABLE | Flags::WRITABLE | Flags::HUNG | Flags::FAULTY);
    }

    pub(super) fn tell(&mut self, end: usize, flags: Flags) {
        if self.endpoints[end].token.is_some() {
            let delay = self.delay(Some(end));
            if delay == 0 {
                self.edge(end, flags);
            } else {
                self.events.arm(self.now + delay, Event::Ready(end, flags));
            }
        }
    }

    pub(super) fn edge(&mut self, end: usize, flags: Flags) {
        let endpoint = &mut self.endpoints[end];
        if flags.any(Flags::WRITABLE) {
            endpoint.write_blocked = false;
        }
        if let (Some(id), false) = (endpoint.token, endpoint.closed) {
            self.edges.push_back(Edge::Connection(id, flags));
        }
    }
}
