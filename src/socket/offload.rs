//! UDP by quinn-udp: many datagrams a call, joined and taken apart by the system.

use std::array;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};

use crate::datagram::{DatagramOptions, Ecn, Received};
use crate::endpoint::Endpoint;

/// The place for one datagram, or for those that the system has joined.
const SLOT: usize = 1 << 16;

/// What a socket needs beside itself.
#[derive(Debug)]
pub(super) struct Offload {
    state: UdpSocketState,
    /// The port that datagrams are sent to.
    port: u16,
    /// The mark of what is sent; None where the system's own calls have to set more than that.
    mark: Option<Option<EcnCodepoint>>,
    /// Locked while its thread sleeps in a call.
    inbox: Mutex<Inbox>,
    /// Whether the inbox has one more.
    more: AtomicBool,
}

/// What has been received together. One thread at a time receives.
#[derive(Debug)]
struct Inbox {
    /// How many places a call may fill. A call that may sleep would sleep until all are full.
    places: usize,
    /// Empty until the first call.
    buffer: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    filled: usize,
    /// The place of the next datagram, and its first byte there.
    place: usize,
    at: usize,
}

impl Offload {
    pub(super) fn new(
        socket: &UdpSocket,
        options: &DatagramOptions,
        nonblocking: bool,
    ) -> io::Result<Offload> {
        let state = UdpSocketState::new(socket.into())?;
        // It has made the socket nonblocking.
        socket.set_nonblocking(nonblocking)?;
        let tos = options.tos.unwrap_or(0);
        let inbox = Inbox {
            places: if nonblocking { BATCH_SIZE } else { 1 },
            buffer: Vec::new(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            place: 0,
            at: 0,
        };
        Ok(Offload {
            state,
            port: socket.local_addr()?.port(),
            // What it sends has no more of this byte than the mark.
            mark: (tos & !0b11 == 0).then(|| EcnCodepoint::from_bits(tos)),
            inbox: Mutex::new(inbox),
            more: AtomicBool::new(false),
        })
    }

    pub(super) fn has_more(&self) -> bool {
        self.more.load(Ordering::Relaxed)
    }

    pub(super) fn segments_max(&self) -> usize {
        if self.mark.is_some() { self.state.max_gso_segments() } else { 1 }
    }

    pub(super) fn send_many(
        &self,
        socket: &UdpSocket,
        bytes: &[u8],
        size: usize,
        to: SocketAddr,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: self.mark.flatten(),
            contents: bytes,
            segment_size: Some(size),
            src_ip: None,
        };
        self.state.try_send(socket.into(), &transmit)
    }

    /// The next datagram, out of a place or by a call.
    pub(super) fn receive(&self, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = inbox.place == inbox.filled;
        if empty {
            inbox.fill(&self.state, socket)?;
        }
        let mut received = inbox.next(buffer).ok_or(io::ErrorKind::WouldBlock)?;
        self.more.store(inbox.place < inbox.filled, Ordering::Relaxed);
        received.calls = u64::from(empty);
        if let Some(Endpoint::Ip(to)) = &mut received.to {
            to.set_port(self.port);
        }
        Ok(received)
    }
}

impl Inbox {
    fn fill(&mut self, state: &UdpSocketState, socket: &UdpSocket) -> io::Result<()> {
        (self.filled, self.place, self.at) = (0, 0, 0);
        if self.buffer.is_empty() {
            self.buffer = vec![0; self.places * SLOT];
        }
        let mut parts = self.buffer.chunks_exact_mut(SLOT);
        let mut slots: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
        let places = self.places.min(BATCH_SIZE);
        self.filled = state.recv(socket.into(), &mut slots[..places], &mut self.metas[..places])?;
        Ok(())
    }

    /// Copies as much of the next datagram as fits.
    fn next(&mut self, buffer: &mut [u8]) -> Option<Received> {
        let meta = self.metas[..self.filled].get(self.place)?;
        let len = meta.stride.min(meta.len - self.at);
        let start = self.place * SLOT + self.at;
        let kept = len.min(buffer.len());
        buffer[..kept].copy_from_slice(&self.buffer[start..start + kept]);
        let received = Received {
            len: kept,
            from: meta.addr.into(),
            to: meta.dst_ip.map(|ip| Endpoint::from((ip, 0))),
            ecn: meta.ecn.map(|mark| match mark {
                EcnCodepoint::Ect0 => Ecn::Ect0,
                EcnCodepoint::Ect1 => Ecn::Ect1,
                EcnCodepoint::Ce => Ecn::Ce,
            }),
            calls: 0,
        };
        self.at += len;
        if len == 0 || self.at >= meta.len {
            (self.place, self.at) = (self.place + 1, 0);
        }
        Some(received)
    }
}
