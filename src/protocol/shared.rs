//! State that all connections of a driver share, lent to each callback.

use std::sync::Arc;
use std::time::Duration;

use super::blame::Blame;
use super::listen::{Binder, BoxedFactory, stopped};
use super::offload::Workplace;
use super::{
    Backlogs, Boxed, Closure, Closures, Effect, Effects, Outgoing, Output, SendClosure, TimerId,
};
use crate::address::Address;
use crate::buffer::ChunkPool;
use crate::clock::Clock;
use crate::connection::{Connection, RarePool};
use crate::episode::{Earlier, Episode};
use crate::error::{Op, Result};
use crate::id::{ConnId, IdSource, ListenerId};
use crate::limits::{Limits, OutputMax};
use crate::metrics::Metrics;
use crate::options::{ConnectOptions, ListenOptions, SocketOptions};
use crate::random::Random;
use crate::reason::CloseReason;
use crate::timer::{Timer, Timers};

/// What a timer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerOwner {
    /// A timer of a protocol.
    Protocol(ConnId, Timer),
    /// The built-in deadlines of a connection.
    Deadline(ConnId),
    /// An accept that was postponed.
    Accept,
    /// The end of draining.
    Drain,
    /// A closure of the driver's, by its number.
    Closure(u64),
}

/// The state that the connections of one thread have in common.
///
/// A callback holds one reference to it: every further field in its context would be a store on
/// every message.
pub(crate) struct Shared {
    pub(crate) output: Output,
    pub(crate) effects: Effects,
    pub(crate) outputs: OutputMax,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) ids: IdSource,
    pub(crate) timers: Timers<TimerOwner>,
    pub(crate) random: Random,
    pub(crate) chunks: ChunkPool,
    pub(crate) rares: RarePool,
    pub(crate) limits: Arc<Limits>,
    /// How many connections and datagram sockets there may be, where one thread is the whole
    /// driver.
    pub(crate) places: u64,
    /// Whether shutdown has begun.
    pub(crate) stopping: bool,
    /// Whether the driver runs. Nothing may block then: it would hold everybody up.
    pub(crate) running: bool,
    /// Whether a late write is not only dropped, but remembered, for the driver to report.
    pub(crate) strict: bool,
    pub(crate) late_write: Option<String>,
    pub(crate) blame: Blame,
    /// Late writes, where one thread is the whole driver.
    pub(crate) late_writes: Episode,
    #[cfg(feature = "http")]
    pub(crate) date: crate::date::DateLine,
    pub(crate) binder: Binder,
    pub(crate) backlogs: Backlogs,
    pub(crate) closures: Closures<Closure>,
    /// None where one thread is the whole driver.
    pub(crate) common: Option<Arc<dyn Common>>,
    pub(crate) watched: Option<Watched>,
    pub(crate) workplace: Workplace,
}

/// What the threads of a driver have in common.
pub(crate) trait Common {
    /// The counters of all of them.
    fn metrics(&self) -> Metrics;
    /// Sets a timer, whose closure one of the threads runs.
    fn set_timer(&self, delay: Duration, closure: SendClosure) -> TimerId;
    /// Notes a write that came too late. `Some` when it is to be logged.
    fn note_late_write(&self, now: u64) -> Option<Earlier>;
    /// Closes the sockets of a listener.
    fn stop_listening(&self, listener: ListenerId);
    /// Takes back the closure of a timer, unless it has run.
    fn cancel_timer(&self, timer: TimerId) -> Option<SendClosure>;
    /// The unsent bytes of a connection.
    fn unsent(&self, id: ConnId) -> usize;
    /// Takes a place for a datagram socket; false when there is none.
    fn take_place(&self) -> bool;
    /// Gives it back.
    fn give_place(&self);
}

/// A connection whose end is waited for.
pub(crate) struct Watched {
    pub(crate) id: ConnId,
    pub(crate) reason: Option<CloseReason>,
}

impl Shared {
    pub(crate) fn new(
        clock: Clock,
        ids: IdSource,
        seed: u64,
        binder: Binder,
        workplace: Workplace,
    ) -> Shared {
        Shared {
            output: Output::default(),
            effects: Effects::default(),
            outputs: OutputMax::default(),
            clock,
            metrics: Metrics::default(),
            ids,
            timers: Timers::default(),
            random: Random::new(seed),
            chunks: ChunkPool::default(),
            rares: RarePool::default(),
            limits: Arc::new(Limits::default()),
            places: u64::MAX,
            stopping: false,
            running: false,
            strict: false,
            late_write: None,
            blame: Blame::default(),
            late_writes: Episode::new("late writes"),
            #[cfg(feature = "http")]
            date: crate::date::DateLine::default(),
            binder,
            backlogs: Backlogs::default(),
            closures: Closures::default(),
            common: None,
            watched: None,
            workplace,
        }
    }

    /// The driver's counters up to now.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = match &self.common {
            Some(common) => common.metrics(),
            None => self.metrics.clone(),
        };
        metrics.age = Duration::from_nanos(self.clock.exact());
        metrics
    }

    /// Brings the gauges, and what others may know of a connection, up to date.
    pub(crate) fn account(&mut self, conn: &mut Connection) {
        if let Some(unsent) = conn.account(&mut self.metrics) {
            self.backlogs.set(conn.id(), unsent);
        }
    }

    /// The unsent bytes of a datagram socket, for others to know.
    pub(crate) fn note_unsent(&mut self, id: ConnId, unsent: usize) {
        self.backlogs.set(id, unsent);
    }

    /// The unsent bytes of a connection, as far as this thread knows.
    pub(super) fn unsent(&self, id: ConnId) -> usize {
        if !self.ids.is_current(id) {
            return 0;
        }
        self.common.as_ref().map_or_else(|| self.backlogs.get(id), |common| common.unsent(id))
    }

    /// Asks for an outgoing connection. The id is valid at once.
    pub(crate) fn connect(
        &mut self,
        addr: Address,
        options: Option<ConnectOptions>,
        protocol: Boxed,
    ) -> ConnId {
        let id = self.ids.reserve();
        let (limits, options) = match options {
            None => (Arc::clone(&self.limits), SocketOptions::default()),
            Some(options) => {
                // What is written to it before it exists is bounded by these.
                self.outputs.note(&options.limits);
                (Arc::new(options.limits.clone()), options.socket())
            }
        };
        let outgoing = Outgoing { id, addr, limits, options, protocol };
        self.effects.list.push(Effect::Connect(Box::new(outgoing)));
        id
    }

    /// Opens listening sockets, which the driver takes over when the callback has returned.
    pub(crate) fn listen(
        &mut self,
        addr: &Address,
        options: ListenOptions,
        factory: BoxedFactory,
    ) -> Result<ListenerId> {
        if self.stopping {
            return Err(stopped(addr));
        }
        self.refuse_lookup(addr, Op::Listen)?;
        let (id, sockets) = self.binder.listen(addr, &options)?;
        let limits = Arc::new(options.limits);
        self.effects.list.push(Effect::Listen { id, sockets, limits, factory });
        Ok(id)
    }

    /// Closes the sockets of a listener at once, so that another can have its addresses; the driver
    /// drops the rest of the listener when the callback has returned.
    pub(crate) fn stop_listening(&mut self, id: ListenerId) {
        for effect in &mut self.effects.list {
            match effect {
                Effect::Listen { id: new, sockets, .. } if *new == id => sockets.clear(),
                _ => {}
            }
        }
        match &self.common {
            Some(common) => common.stop_listening(id),
            None => self.binder.close(id),
        }
        self.effects.list.push(Effect::StopListening(id));
    }

    /// Notes the end of a connection that is waited for.
    pub(crate) fn note_end(&mut self, id: ConnId, reason: &CloseReason) {
        if let Some(watched) = self.watched.as_mut().filter(|watched| watched.id == id) {
            watched.reason = Some(reason.clone());
        }
    }
}
