//! Datagrams with a value per peer: what game servers and gateways are made of.
//!
//! A socket of datagrams has no connections: all peers share it. [`Peers`] is the protocol of such
//! a socket that keeps a [`PeerProtocol`] for each address that it hears of. A value is made by a
//! factory for the first datagram of an address, and ends when the peer is silent for long, when it
//! asks for it, or when it fails; no end of one touches another.
//!
//! ```
//! use lariat::datagram_peers::{PeerContext, PeerProtocol, Peers};
//! use lariat::{Datagram, Outcome, sim::Sim};
//!
//! /// Counts what each peer has said.
//! #[derive(Default)]
//! struct Counting(u32);
//!
//! impl PeerProtocol for Counting {
//!     fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, _: &Datagram<'_>) -> Outcome {
//!         self.0 += 1;
//!         cx.send(self.0.to_string().as_bytes())?;
//!         Ok(())
//!     }
//! }
//!
//! let mut sim = Sim::new(1);
//! let id = sim.control().bind("10.0.0.1:9", Peers::new(|_| Some(Counting::default())))?;
//! let server = sim.bound_addr(id).unwrap();
//! let client = sim.datagram_socket("10.0.0.2:0")?;
//! client.send_to(b"one", server);
//! client.send_to(b"two", server);
//! sim.run_for(std::time::Duration::from_secs(1))?;
//! assert_eq!(client.take_received().last().unwrap().1, b"2");
//! # Ok::<(), lariat::Error>(())
//! ```
//!
//! **Bounds.** The sender of a datagram can be made up, and each made-up one costs a value. So
//! there are at most [`Peers::max`] \[1,024\] of them, and silent ones end after [`Peers::idle`]
//! \[60 s\]. [`Full`] says what happens to one more. A protocol that sends much should first make
//! sure that its peer is at its address, or others can be flooded through it.

mod context;
mod table;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::datagram::{Datagram, DatagramContext, DatagramProtocol};
use crate::endpoint::Endpoint;
use crate::note::Note;
use crate::protocol::Outcome;
use crate::reason::CloseReason;
use crate::timer::{Timer, TimerKey, Timers};

pub use context::PeerContext;

/// The one timer of the socket: the nearest of what any peer waits for.
const WAKE: Timer = Timer::reserved(0);
/// Timers and silent peers that are looked at before other work has its turn.
const BATCH: usize = 1024;

/// What one peer is to a socket of datagrams: one value per address.
///
/// An `Err` of a callback, or a panic, ends this peer alone.
pub trait PeerProtocol {
    /// The first datagram of this peer has come; [`datagram`](PeerProtocol::datagram) follows. The
    /// default does nothing.
    ///
    /// # Errors
    ///
    /// Ends the peer.
    fn opened(&mut self, cx: &mut PeerContext<'_, '_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// A datagram of this peer has come. It may be empty.
    ///
    /// # Errors
    ///
    /// Ends the peer.
    fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, datagram: &Datagram<'_>) -> Outcome;

    /// A timer of this peer fired, never early. The default ends the peer.
    ///
    /// # Errors
    ///
    /// Ends the peer.
    fn timeout(&mut self, cx: &mut PeerContext<'_, '_>, timer: Timer) -> Outcome {
        let _ = timer;
        cx.close();
        Ok(())
    }

    /// A note has come to the socket: every peer sees it, unless it is a [`ToPeer`]. The default
    /// ignores it.
    ///
    /// # Errors
    ///
    /// Ends the peer.
    fn notified(&mut self, cx: &mut PeerContext<'_, '_>, note: &Note) -> Outcome {
        let _ = (cx, note);
        Ok(())
    }

    /// The peer has ended. Runs last and exactly once. Datagrams can still be sent, unless the
    /// socket itself has ended.
    fn closed(&mut self, cx: &mut PeerContext<'_, '_>, end: &PeerEnd) {
        let _ = (cx, end);
    }
}

/// Why a peer has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerEnd {
    /// [`PeerContext::close`] was called.
    Closed,
    /// It was silent for [`Peers::idle`].
    Idle,
    /// Another one needed its place: see [`Full::Evict`].
    Evicted,
    /// A callback returned an `Err`.
    Failed(Box<dyn Error + Send + Sync>),
    /// A callback panicked, with this message.
    Panicked(String),
    /// The driver is being shut down.
    Shutdown,
    /// The socket has ended.
    SocketClosed,
}

impl fmt::Display for PeerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerEnd::Closed => f.write_str("closed"),
            PeerEnd::Idle => f.write_str("silent for too long"),
            PeerEnd::Evicted => f.write_str("evicted for another one"),
            PeerEnd::Failed(error) => write!(f, "failed: {error}"),
            PeerEnd::Panicked(message) => write!(f, "panicked: {message}"),
            PeerEnd::Shutdown => f.write_str("shut down"),
            PeerEnd::SocketClosed => f.write_str("the socket has ended"),
        }
    }
}

/// What happens to a peer for which there is no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Full {
    /// Its datagrams are dropped and counted (the default): those that are there stay.
    #[default]
    Refuse,
    /// The peer that was silent for longest ends. Many made-up senders then drive real ones out.
    Evict,
}

/// A note for one peer of a socket: `handle.notify(id, Note::new(ToPeer::new(addr, note)))`. One
/// for a peer that is not there is dropped.
#[derive(Debug)]
pub struct ToPeer {
    to: Endpoint,
    note: Note,
}

impl ToPeer {
    /// `note` for the peer at `to`.
    pub fn new(to: impl Into<Endpoint>, note: Note) -> ToPeer {
        ToPeer { to: to.into(), note }
    }
}

/// How many peers there are, and what became of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Peers that are there.
    pub open: u64,
    /// Peers that there have been.
    pub opened: u64,
    /// Datagrams that were dropped: the factory refused their sender or panicked, there was no
    /// place for it, or it is a Unix socket without a name.
    pub refused: u64,
    /// Peers that ended for another one.
    pub evicted: u64,
    /// Peers that ended for their silence.
    pub idle: u64,
    /// Peers of which a callback failed or panicked.
    pub failed: u64,
}

/// The counters of a [`Peers`], which can be read while the driver has it.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<Counts>>);

impl Counters {
    /// The counts up to now.
    pub fn get(&self) -> Counts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The protocol of a socket that keeps a value per peer.
pub struct Peers<P, F> {
    factory: F,
    max: usize,
    full: Full,
    idle: Option<Duration>,
    counters: Counters,
    /// Times are counted in nanoseconds from here.
    start: Option<Instant>,
    by_addr: BTreeMap<Endpoint, usize>,
    /// The peers by the number of their last datagram: those that are silent for longest first.
    by_silence: BTreeMap<u64, usize>,
    peers: Slab<Entry<P>>,
    /// Numbers the datagrams.
    heard: u64,
    timers: Timers<(usize, Timer)>,
    /// For when the socket's timer is set.
    armed: Option<u64>,
}

/// One peer.
struct Entry<P> {
    addr: Endpoint,
    protocol: P,
    /// The number and the time of its last datagram.
    heard: u64,
    heard_at: u64,
    timers: Vec<(Timer, TimerKey)>,
}

impl<P: PeerProtocol, F: FnMut(Endpoint) -> Option<P>> Peers<P, F> {
    /// `factory` makes the value of each new peer, and refuses one by None.
    pub fn new(factory: F) -> Peers<P, F> {
        Peers {
            factory,
            max: 1024,
            full: Full::default(),
            idle: Some(Duration::from_secs(60)),
            counters: Counters::default(),
            start: None,
            by_addr: BTreeMap::new(),
            by_silence: BTreeMap::new(),
            peers: Slab::new(),
            heard: 0,
            timers: Timers::default(),
            armed: None,
        }
    }

    /// The most peers at a time \[1,024\].
    ///
    /// # Panics
    ///
    /// For 0.
    pub fn max(mut self, max: usize) -> Peers<P, F> {
        assert!(max > 0, "there is no peer at most");
        self.max = max;
        self
    }

    /// What happens to one peer more \[[`Full::Refuse`]\].
    pub fn when_full(mut self, full: Full) -> Peers<P, F> {
        self.full = full;
        self
    }

    /// Time without a datagram of a peer after which it ends \[60 s\]; None: never. What is sent to
    /// it does not count, as nothing says that it arrives.
    pub fn idle(mut self, idle: Option<Duration>) -> Peers<P, F> {
        self.idle = idle;
        self
    }

    /// The counters, to be read later.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }
}

impl<P, F> fmt::Debug for Peers<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("max", &self.max)
            .field("full", &self.full)
            .field("idle", &self.idle)
            .field("counts", &self.counters.get())
            .finish_non_exhaustive()
    }
}

impl<P: PeerProtocol, F: FnMut(Endpoint) -> Option<P>> DatagramProtocol for Peers<P, F> {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        // All senders without a name look alike, and none can be answered.
        let from = Some(datagram.from());
        let from = from.filter(|from| from.unix().is_none_or(|name| !name.is_unnamed()));
        match from.and_then(|addr| self.place(cx, addr)) {
            Some(slot) => {
                self.hear(cx, slot);
                self.call(cx, slot, |protocol, cx| protocol.datagram(cx, datagram));
            }
            None => self.counters.note(|counts| counts.refused += 1),
        }
        self.arm(cx);
        Ok(())
    }

    fn timeout(&mut self, cx: &mut DatagramContext<'_>, _: Timer) -> Outcome {
        self.armed = None;
        let now = self.now(cx);
        for _ in 0..BATCH {
            let Some(((slot, timer), _)) = self.timers.pop_due(now) else { break };
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.timers.retain(|(of, _)| *of != timer);
            }
            self.call(cx, slot, |protocol, cx| protocol.timeout(cx, timer));
        }
        for _ in 0..BATCH {
            match self.silent() {
                Some((slot, due)) if due <= now => self.end(cx, slot, PeerEnd::Idle),
                _ => break,
            }
        }
        self.arm(cx);
        Ok(())
    }

    fn notified(&mut self, cx: &mut DatagramContext<'_>, note: Note) -> Outcome {
        match note.downcast::<ToPeer>() {
            Ok(ToPeer { to, note }) => {
                if let Some(slot) = self.by_addr.get(&to).copied() {
                    self.call(cx, slot, |protocol, cx| protocol.notified(cx, &note));
                }
            }
            Err(note) => {
                for slot in self.slots() {
                    self.call(cx, slot, |protocol, cx| protocol.notified(cx, &note));
                }
            }
        }
        self.arm(cx);
        Ok(())
    }

    fn stopping(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        for slot in self.slots() {
            self.end(cx, slot, PeerEnd::Shutdown);
        }
        cx.close();
        Ok(())
    }

    fn closed(&mut self, cx: &mut DatagramContext<'_>, _: &CloseReason) {
        for slot in self.slots() {
            self.end(cx, slot, PeerEnd::SocketClosed);
        }
    }
}
