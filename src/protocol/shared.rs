//! What all connections of a driver share, lent to each callback.

use std::sync::Arc;

use super::{Callback, Effects, Output};
use crate::buffer::ChunkPool;
use crate::clock::Clock;
use crate::connection::RarePool;
use crate::id::{ConnId, IdSource, ListenerId};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::random::Random;
use crate::timer::{Timer, Timers};

/// What a timer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerOwner {
    /// A timer of a protocol.
    Protocol(ConnId, Timer),
    /// The built-in deadlines of a connection.
    Deadline(ConnId),
    /// The back-off of a listener.
    Listener(ListenerId),
    /// The end of draining.
    Drain,
}

/// The state that one thread's connections have in common.
///
/// A callback holds one reference to it: every further field in its context would be a store on
/// every message.
pub(crate) struct Shared {
    pub(crate) output: Output,
    pub(crate) effects: Effects,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) ids: IdSource,
    pub(crate) timers: Timers<TimerOwner>,
    pub(crate) random: Random,
    pub(crate) chunks: ChunkPool,
    pub(crate) rares: RarePool,
    pub(crate) limits: Arc<Limits>,
    /// Whether shutdown has begun.
    pub(crate) stopping: bool,
    /// Panic on late writes instead of dropping them.
    pub(crate) strict: bool,
    pub(crate) blame: Blame,
}

impl Shared {
    pub(crate) fn new(clock: Clock, ids: IdSource, seed: u64) -> Shared {
        Shared {
            output: Output::default(),
            effects: Effects::default(),
            clock,
            metrics: Metrics::default(),
            ids,
            timers: Timers::default(),
            random: Random::new(seed),
            chunks: ChunkPool::default(),
            rares: RarePool::default(),
            limits: Arc::new(Limits::default()),
            stopping: false,
            strict: false,
            blame: Blame::default(),
        }
    }
}

/// The search for a slow callback. A clock reading per callback costs more than the rest of the
/// message, so it is on only for a while after a slow turn.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    /// Turns for which callbacks are still timed.
    pub(crate) turns: u32,
    /// Nanoseconds that a callback may take.
    pub(crate) limit: u64,
}

impl Blame {
    /// How long callbacks are timed after a slow turn.
    const TURNS: u32 = 1000;

    pub(crate) fn start(&mut self) {
        self.turns = Blame::TURNS;
    }

    /// A timed callback of `protocol` for `conn` is over.
    #[cold]
    pub(crate) fn judge(
        &self,
        took: u64,
        callback: Callback,
        protocol: &str,
        peer: std::net::SocketAddr,
        metrics: &mut Metrics,
    ) {
        if took > self.limit {
            metrics.slow_callbacks += 1;
            log::warn!(
                target: "lariat::dispatch",
                "{} of {protocol} for {peer} took {} ms and kept every other connection waiting",
                callback.name(),
                took / 1_000_000,
            );
        }
    }
}
