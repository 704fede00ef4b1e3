//! One connection without a socket: bytes, time and events in, bytes and requests out.
//!
//! `handle_*` takes in what happened, `want_*` records what the protocol asked for, `poll_*` and
//! the getters say what a driver has to do. No method does I/O, reads a clock or runs a callback.
//!
//! An idle connection is the fixed part alone. State that few connections have (queues, timers, a
//! filter, the end) lies behind one box, [`Rare`], each part in a box of its own that exists only
//! while it is needed.

mod breaking;
mod closing;
mod deadlines;
mod detaching;
mod ending;
mod filtering;
mod flags;
mod idle;
mod input;
mod jobs;
mod output;
mod rare;
mod replacing;
mod requests;
mod steps;
mod stopping;
mod tapping;
#[cfg(test)]
mod tests;
mod timers;
mod work;

use std::sync::Arc;

use crate::endpoint::{Endpoint, SmallEndpoint};
use crate::grammar::{Callback, Grammar};
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::timer::TimerKey;

pub(crate) use deadlines::Expired;
pub(crate) use flags::Flags;
use idle::Idle;
pub(crate) use input::{BULK, Consumed};
pub(crate) use output::{Queued, Written};
use rare::Rare;
pub(crate) use rare::{Gauges, RarePool};
pub(crate) use steps::{Due, Round, Step, Steps};
pub(crate) use work::Listing;

/// The sans-IO state of one stream.
pub(crate) struct Connection {
    flags: Flags,
    id: ConnId,
    limits: Arc<Limits>,
    bytes_in: u64,
    bytes_out: u64,
    /// The tick at which a byte last moved.
    active: u64,
    /// The time of the accept, or of the request to connect.
    since: u64,
    peer: SmallEndpoint,
    rare: Option<Box<Rare>>,
    /// The driver's one timer for all built-in deadlines of this connection.
    deadline: Option<TimerKey>,
    listener: Option<ListenerId>,
    /// Bytes that `data` waits for.
    need: u32,
    idle: Idle,
    grammar: Grammar,
}

impl Connection {
    /// A connection whose socket is open.
    pub(crate) fn accepted(
        id: ConnId,
        listener: Option<ListenerId>,
        peer: Endpoint,
        limits: Arc<Limits>,
        now: u64,
    ) -> Connection {
        let mut connection = Connection::new(id, peer, limits, now);
        connection.listener = listener;
        connection.flags.set(Flags::OPENED_DUE | Flags::WRITABLE);
        connection
    }

    /// A connection whose connect is about to begin.
    pub(crate) fn connecting(
        id: ConnId,
        peer: Endpoint,
        limits: Arc<Limits>,
        now: u64,
    ) -> Connection {
        let mut connection = Connection::new(id, peer, limits, now);
        connection.flags.set(Flags::CONNECTING | Flags::DIALLED);
        connection.rare_mut().phase = now;
        connection
    }

    /// Fills a place without a connection: no id finds it.
    pub(crate) fn vacant(limits: Arc<Limits>) -> Connection {
        Connection::new(ConnId::PLACEHOLDER, Endpoint::Other, limits, 0)
    }

    fn new(id: ConnId, peer: Endpoint, limits: Arc<Limits>, now: u64) -> Connection {
        Connection {
            flags: Flags::NONE,
            id,
            limits,
            bytes_in: 0,
            bytes_out: 0,
            active: now,
            since: now,
            peer: peer.into(),
            rare: None,
            deadline: None,
            listener: None,
            need: 0,
            idle: Idle::AS_LIMITED,
            grammar: Grammar::default(),
        }
    }

    // ---- getters -----------------------------------------------------------------------------

    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        self.flags
    }

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    pub(crate) fn listener(&self) -> Option<ListenerId> {
        self.listener
    }

    pub(crate) fn peer(&self) -> Endpoint {
        self.peer.get()
    }

    /// The peer is said to have this address.
    pub(crate) fn put_peer(&mut self, peer: Endpoint) {
        self.peer = peer.into();
    }

    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// Whether the peer is known to have finished sending.
    pub(crate) fn peer_finished(&self) -> bool {
        self.flags.any(Flags::PEER_FIN | Flags::FIN_TOLD)
    }

    // ---- what the driver says ----------------------------------------------------------------

    /// The socket is connected.
    pub(crate) fn handle_connected(&mut self, tick: u64) {
        // A hang-up stays: the peer may have answered and finished before this side looked.
        self.flags.clear(Flags::CONNECTING | Flags::FAULTY);
        self.flags.set(Flags::OPENED_DUE | Flags::WRITABLE);
        self.active = tick;
        if self.flags.any(Flags::QUEUED) {
            self.queues_mut().progress = tick;
        }
    }

    /// Of several sockets this connection's is the one that is connected to `peer`. Events of the
    /// others have left flags, so it is looked at once more.
    pub(crate) fn handle_race_won(&mut self, peer: Endpoint, tick: u64) {
        self.put_peer(peer);
        self.flags.clear(Flags::FIN_TOLD);
        self.flags.set(Flags::READABLE | Flags::HUNG);
        self.handle_connected(tick);
    }

    /// Checks that `callback` may run now.
    pub(crate) fn handle_grammar(&mut self, callback: Callback) {
        self.grammar = self.grammar.after(callback);
    }

    /// A note has come. It is returned if too many are waiting or no callback will receive it.
    pub(crate) fn handle_note(&mut self, note: Note) -> Result<(), Note> {
        let waiting = self.queues().map_or(0, |queues| queues.notes_counted);
        if waiting >= self.limits.notes_max {
            return Err(note);
        }
        self.keep_note(note, true)
    }

    /// The result of a job has come. Only a connection that is closing returns it: the number of
    /// jobs has a bound of its own.
    pub(crate) fn handle_result(&mut self, note: Note) -> Result<(), Note> {
        self.keep_note(note, false)
    }

    fn keep_note(&mut self, note: Note, counts: bool) -> Result<(), Note> {
        if self.flags.any(Flags::CLOSING | Flags::ENDED) {
            return Err(note);
        }
        let queues = self.queues_mut();
        queues.notes.push_back((note, counts));
        queues.notes_counted += usize::from(counts);
        self.make_notes_due();
        Ok(())
    }

    // ---- settings ----------------------------------------------------------------------------

    pub(crate) fn put_limits(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
        self.idle = Idle::AS_LIMITED;
        self.flags.set(Flags::LIMITS_CHANGED);
    }
}
