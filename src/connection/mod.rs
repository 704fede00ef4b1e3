//! One connection without a socket: bytes, time and events in, bytes and requests out.
//!
//! `handle_*` takes in what happened, `want_*` records what the protocol asked for, `poll_*` and
//! the getters say what a driver has to do. No method does I/O, reads a clock or runs a callback.
//!
//! An idle connection is the fixed part alone. State that few connections have (queues, timers, a
//! filter, the end) lies behind one box, [`Rare`], each part in a box of its own that exists only
//! while it is needed.

mod due;
mod ending;
mod filtering;
mod flags;
mod input;
mod output;
mod rare;
mod steps;
mod tapping;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{Endpoint, SmallEndpoint};
use crate::grammar::{Callback, Grammar};
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::reason::{By, CloseKind};
use crate::timer::TimerKey;

pub(crate) use ending::Expired;
pub(crate) use flags::Flags;
pub(crate) use input::{BULK, Consumed};
pub(crate) use output::{Queued, Written};
use rare::Rare;
pub(crate) use rare::{Gauges, RarePool};
pub(crate) use steps::{Due, Round, Step, Steps};

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

/// Which list a connection enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// None: it has nothing to do, or is in one.
    No,
    Ready,
    /// That of the connections that move much at a time, or are in a handshake: others come first.
    Bulk,
}

/// The idle deadline of one connection, in milliseconds: four bytes that each connection has.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Idle(u32);

impl Idle {
    /// As its limits say.
    const AS_LIMITED: Idle = Idle(0);
    const OFF: Idle = Idle(u32::MAX);

    fn new(idle: Option<Duration>) -> Idle {
        let Some(idle) = idle else { return Idle::OFF };
        Idle(u32::try_from(idle.as_millis()).unwrap_or(u32::MAX - 1).clamp(1, u32::MAX - 1))
    }

    fn under(self, limits: &Limits) -> Option<Duration> {
        match self {
            Idle::AS_LIMITED => limits.idle,
            Idle::OFF => None,
            Idle(millis) => Some(Duration::from_millis(u64::from(millis))),
        }
    }
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
        connection.flags.set(Flags::CONNECTING);
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

    /// Whether a callback other than `opened` and `closed` may run.
    pub(crate) fn may_call(&self) -> bool {
        self.flags.any(Flags::OPENED)
            && self.flags.none(Flags::CLOSING | Flags::ENDED | Flags::OPENED_DUE)
    }

    /// Whether a turn has something to do for this connection. A driver keeps exactly these
    /// connections in its ready list.
    pub(crate) fn has_work(&self) -> bool {
        self.may_read() || self.has_rare_work()
    }

    fn has_rare_work(&self) -> bool {
        let flags = self.flags;
        if flags.any(Flags::ENDED) {
            return flags.none(Flags::CLOSED);
        }
        if flags.any(Flags::CONNECTING) {
            return flags.any(Flags::WRITABLE | Flags::FAULTY);
        }
        flags.any(Flags::FAULTY) || self.has_output() || self.has_due()
    }

    /// Whether a flush would be of use. Clear bytes wait for a filter that is not open.
    pub(crate) fn has_output(&self) -> bool {
        self.flags.any(Flags::WRITABLE) && self.has_queued()
    }

    /// Whether output waits for nothing but room at the socket.
    pub(crate) fn is_stuck(&self) -> bool {
        self.flags.none(Flags::WRITABLE) && self.has_queued()
    }

    /// Whether nothing is read before output has left: the peer has finished, or the connection's
    /// own queue holds it.
    pub(crate) fn reads_behind_output(&self) -> bool {
        let holds_itself = |queues: &rare::Queues| queues.holding.contains(&self.id);
        self.flags.any(Flags::PEER_FIN | Flags::FIN_TOLD)
            || (self.flags.any(Flags::HELD) && self.queues().is_some_and(holds_itself))
    }

    fn has_queued(&self) -> bool {
        let flags = self.flags;
        flags.any(Flags::QUEUED)
            && flags.none(Flags::CONNECTING | Flags::ENDED)
            && (flags.none(Flags::HANDSHAKING) || self.wire_len() > 0)
    }

    // ---- what the driver says ----------------------------------------------------------------

    /// Readiness as the system reported it. Says which list the connection has to enter now, if
    /// there is work and it is in none.
    #[inline(always)]
    pub(crate) fn handle_ready(&mut self, ready: Flags) -> Listing {
        let flags = self.flags | ready;
        if flags.passes(Flags::LISTING_GATE, Flags::READABLE) {
            self.flags = flags | Flags::LISTED;
            return Listing::Ready;
        }
        self.flags = flags;
        self.rare_listing()
    }

    #[inline(never)]
    fn rare_listing(&mut self) -> Listing {
        let works = self.may_read() || self.has_rare_work();
        if self.flags.any(Flags::LISTED) || !works {
            return Listing::No;
        }
        self.flags.set(Flags::LISTED);
        match self.flags.any(Flags::BULK | Flags::HANDSHAKING) {
            true => Listing::Bulk,
            false => Listing::Ready,
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn handle_reset(&mut self, by: By, kind: CloseKind) {
        self.flags.set(Flags::RESET);
        self.end(by, kind, None);
    }

    /// Has left the ready list.
    #[inline(always)]
    pub(crate) fn handle_unlisted(&mut self) {
        self.flags.clear(Flags::LISTED);
    }

    /// Marks the connection as having output queued by others; false if it was marked already.
    pub(crate) fn handle_dirty(&mut self, dirty: bool) -> bool {
        let was = self.flags.any(Flags::DIRTY);
        if dirty {
            self.flags.set(Flags::DIRTY)
        } else {
            self.flags.clear(Flags::DIRTY)
        }
        was != dirty
    }

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

    /// Checks that `callback` may run now.
    pub(crate) fn handle_grammar(&mut self, callback: Callback) {
        self.grammar = self.grammar.after(callback);
    }

    /// The driver is being shut down.
    pub(crate) fn handle_stopping(&mut self) {
        if self.flags.none(Flags::CLOSING | Flags::ENDED) {
            self.flags.set(Flags::STOPPING_DUE);
        }
    }

    /// The connect was asked for while the driver was stopping.
    pub(crate) fn handle_late(&mut self) {
        self.flags.set(Flags::LATE);
        self.begin_close(By::Runtime, CloseKind::Shutdown, None);
    }

    /// The end was decided in this turn of the loop; `closed` waits for a later one.
    pub(crate) fn put_end_turn(&mut self, turn: u64) {
        self.end_mut().turn = turn;
    }

    /// Whether the end was decided in this turn.
    pub(crate) fn has_ended_in(&self, turn: u64) -> bool {
        self.rare().and_then(|rare| rare.end.as_ref()).is_some_and(|end| end.turn == turn)
    }

    /// The system's error was noticed: the next read looks beyond the bytes that are there.
    pub(crate) fn handle_fault_seen(&mut self) {
        self.flags.clear(Flags::FAULTY);
        if self.flags.none(Flags::CONNECTING) {
            self.flags.set(Flags::READABLE | Flags::HUNG);
        }
    }

    /// A note has come. It is returned if too many are waiting or no callback will receive it.
    pub(crate) fn handle_note(&mut self, note: Note) -> Result<(), Note> {
        if self.flags.any(Flags::CLOSING | Flags::ENDED) {
            return Err(note);
        }
        let most = self.limits.notes_max;
        let notes = &mut self.queues_mut().notes;
        if notes.len() >= most {
            return Err(note);
        }
        notes.push_back(note);
        self.flags.set(Flags::NOTES_DUE);
        Ok(())
    }

    pub(crate) fn deadline_key(&self) -> Option<TimerKey> {
        self.deadline
    }

    pub(crate) fn put_deadline(&mut self, key: Option<TimerKey>) {
        self.deadline = key;
    }

    // ---- settings ----------------------------------------------------------------------------

    /// Whether silence has a limit, so that the time of each byte matters.
    #[inline(always)]
    pub(crate) fn counts_silence(&self) -> bool {
        self.idle.under(&self.limits).is_some()
    }

    /// When a byte last moved, if the time was kept.
    #[inline(always)]
    pub(crate) fn last_active(&self) -> u64 {
        self.active
    }

    pub(crate) fn put_limits(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
        self.idle = Idle::AS_LIMITED;
        self.flags.set(Flags::LIMITS_CHANGED);
    }

    /// The connection has an idle deadline of its own from now on.
    pub(crate) fn put_idle(&mut self, idle: Option<Duration>) {
        let idle = Idle::new(idle);
        if self.idle != idle {
            self.idle = idle;
            self.flags.set(Flags::LIMITS_CHANGED);
        }
    }

    /// Whether an idle deadline was set that replaces the one of the limits.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn has_own_idle(&self) -> bool {
        self.idle != Idle::AS_LIMITED
    }

    /// Another protocol takes over: it gets `opened`, then the unread input and a FIN.
    pub(crate) fn handle_replaced(&mut self) {
        self.flags.clear(Flags::DATA_DUE | Flags::EOF_DUE | Flags::NEEDY | Flags::PAUSED);
        self.flags.clear(Flags::LEFT);
        self.need = 0;
        if self.idle != Idle::AS_LIMITED {
            self.idle = Idle::AS_LIMITED;
            self.flags.set(Flags::LIMITS_CHANGED);
        }
        // The new protocol does not inherit the old one's congestion, unless it still lasts.
        self.flags.clear(Flags::CONGESTED | Flags::DRAINED_DUE);
        self.check_marks(0);
        if self.flags.any(Flags::CONNECTING) {
            return;
        }
        self.flags.clear(Flags::OPENED | Flags::EOF_DONE);
        self.grammar = self.grammar.replaced();
        self.flags.set(Flags::OPENED_DUE | Flags::REPLACED);
        if self.flags.any(Flags::UNREAD) {
            self.flags.set(Flags::DATA_DUE);
        }
        if self.flags.any(Flags::PEER_FIN) {
            self.flags.set(Flags::EOF_DUE);
        }
    }
}
