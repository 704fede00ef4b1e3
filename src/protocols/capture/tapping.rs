//! The tap: bytes of a connection as segments.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::pcapng::{Direction, Packet};
use super::segment::{ACK, FIN, PSH, RST, SYN, Segment};
use super::sink::Sink;
use crate::endpoint::Endpoint;
use crate::reason::{By, CloseKind, CloseReason};
use crate::tap::{Tap, Tapped};

/// The most bytes of a segment: with its headers it fits into an IP packet.
const SEGMENT: usize = 16 * 1024;

pub(super) struct CaptureTap {
    sink: Arc<Sink>,
    /// From the first call on.
    flow: Option<Flow>,
}

/// How far both directions have come.
#[derive(Clone, Copy)]
struct Flow {
    local: SocketAddr,
    peer: SocketAddr,
    /// The number of the next byte of the local end, and of the peer.
    sent: u32,
    received: u32,
}

impl CaptureTap {
    pub(super) fn new(sink: Arc<Sink>) -> CaptureTap {
        CaptureTap { sink, flow: None }
    }

    /// Captures `payload` in segments; one without a payload for its flags.
    fn segments(
        &mut self,
        at: &Tapped,
        direction: Direction,
        flags: u8,
        payload: &[u8],
        mut comment: Option<String>,
    ) {
        let mut rest = payload;
        loop {
            let (payload, left) = rest.split_at(rest.len().min(SEGMENT));
            self.segment(at, direction, flags, payload, comment.take());
            rest = left;
            if rest.is_empty() {
                return;
            }
        }
    }

    fn segment(
        &mut self,
        at: &Tapped,
        direction: Direction,
        flags: u8,
        payload: &[u8],
        comment: Option<String>,
    ) {
        let flow = self.flow.get_or_insert_with(|| Flow::new(at));
        // Each of these flags takes a number, as a byte does.
        let count = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let (from, to, seq, ack) = match direction {
            Direction::Out => (flow.local, flow.peer, &mut flow.sent, flow.received),
            Direction::In => (flow.peer, flow.local, &mut flow.received, flow.sent),
        };
        let ack = if flags & ACK != 0 { ack } else { 0 };
        let segment = Segment { from, to, seq: *seq, ack, flags, payload };
        *seq = seq.wrapping_add(count);
        let (bytes, length) = segment.packet(!self.sink.options.payload);
        let since = at.time().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.sink.take(Packet { time, direction, bytes, length, comment });
    }

    /// The three segments that a connection begins with, before its first byte.
    fn begin(&mut self, at: &Tapped) {
        if self.flow.is_some() {
            return;
        }
        let client = if at.listener().is_some() { Direction::In } else { Direction::Out };
        let server = other(client);
        self.segment(at, client, SYN, &[], None);
        self.segment(at, server, SYN | ACK, &[], None);
        self.segment(at, client, ACK, &[], None);
    }
}

fn other(direction: Direction) -> Direction {
    match direction {
        Direction::In => Direction::Out,
        Direction::Out => Direction::In,
    }
}

impl Tap for CaptureTap {
    fn received(&mut self, at: &Tapped, bytes: &[u8]) {
        self.begin(at);
        self.segments(at, Direction::In, PSH | ACK, bytes, None);
    }

    fn sent(&mut self, at: &Tapped, bytes: &[u8]) {
        self.begin(at);
        self.segments(at, Direction::Out, PSH | ACK, bytes, None);
    }

    fn closed(&mut self, at: &Tapped, reason: &CloseReason) {
        self.begin(at);
        let comment = Some(reason.to_string());
        let first = if reason.by() == By::Peer { Direction::In } else { Direction::Out };
        if matches!(reason.kind(), CloseKind::Finished | CloseKind::Shutdown) {
            self.segment(at, first, FIN | ACK, &[], comment);
            self.segment(at, other(first), FIN | ACK, &[], None);
            self.segment(at, first, ACK, &[], None);
        } else {
            self.segment(at, first, RST | ACK, &[], comment);
        }
    }
}

impl Flow {
    fn new(at: &Tapped) -> Flow {
        // What has no port gets one that tells its connections apart.
        let port = 1024 + (at.id().slot() % 60_000) as u16;
        let made_up = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (local_port, peer_port) = if at.listener().is_some() { (1, port) } else { (port, 1) };
        let addr = |endpoint: Option<Endpoint>, port| {
            endpoint.and_then(|endpoint| endpoint.socket_addr()).unwrap_or_else(|| made_up(port))
        };
        Flow {
            local: addr(at.local_addr(), local_port),
            peer: addr(Some(at.peer_addr()), peer_port),
            sent: 0,
            received: 0,
        }
    }
}
