//! A driver for one connection: a made-up socket below, a scripted protocol above, and beside them
//! a model that knows in plain terms what must be true.
//!
//! It does with the connection what the loop does, in the loop's order, and checks the model at
//! every byte that passes.

mod kernel;
mod steps;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::kernel::Kernel;
use super::super::{Connection, Expired, Flags, Queued, RarePool, Written};
use super::toy::{Decoder, Toy, encode};
use crate::buffer::ChunkPool;
use crate::grammar::Callback;
use crate::guard::GuardedBytes;
use crate::id::{ConnId, Ids, ListenerId};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::note::Note;
use crate::reason::{By, CloseKind, CloseReason, Deadline, FilterFailure};

pub(super) const MILLISECOND: u64 = 1_000_000;
/// What one read of the rig's takes at most.
const READ_BUFFER: usize = 96;

/// Small enough that every bound is reached by a few calls.
pub(super) fn small_limits() -> Limits {
    Limits {
        read_budget: 128,
        input_max: 100,
        high_mark: 32,
        low_mark: 8,
        write_budget: 50,
        output_max: 200,
        notes_max: 3,
        connect: Duration::from_millis(50),
        handshake: Duration::from_millis(40),
        idle: Some(Duration::from_millis(90)),
        write_stall: Duration::from_millis(30),
        close_deadline: Duration::from_millis(60),
        linger_idle: Duration::from_millis(10),
        linger_total: Duration::from_millis(25),
    }
}

/// What one callback does.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Bytes of the input to leave unread, at most.
    pub(super) keep: usize,
    pub(super) need: usize,
    pub(super) write: usize,
    pub(super) shared: bool,
    pub(super) wishes: Vec<Wish>,
    pub(super) failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Close,
    Abort,
    Finish,
    Pause,
    Resume,
    Replace,
    /// `replace` with a protocol that has a filter; `true` feeds it what is unread.
    ReplaceFiltered(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Err,
    Panic,
}

/// What must be true, without the flags.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Clear bytes received, and how many of them the protocols consumed.
    pub(super) received: Vec<u8>,
    pub(super) consumed: usize,
    /// Bytes read from the socket and thrown away.
    pub(super) discarded: usize,
    last_words: usize,
    decoder: Decoder,
    /// Bytes that were accepted for sending, and those that were written but not accepted.
    pub(super) written: Vec<u8>,
    lost: usize,
    pub(super) refused: usize,
    /// Bytes written before the filter came: they leave as they are.
    unfiltered: Option<usize>,
    pub(super) kind: Option<CloseKind>,
    /// As good as `kind`, where two deadlines passed within the same millisecond.
    or: Option<CloseKind>,
    wishes: Vec<Wish>,
    /// The next protocol, with a filter that unread input is fed to or not.
    next: Option<Option<bool>>,
    failed: Option<Failure>,
    overflowed: bool,
    /// Times of the last byte in or out, of progress in sending, and of the present phase.
    active: u64,
    progress: u64,
    queued: bool,
    phase: u64,
    linger: Option<(u64, u64)>,
}

pub(super) struct Rig {
    pub(super) conn: Connection,
    pub(super) kernel: Kernel,
    pub(super) model: Model,
    /// What the next callbacks do. Without a plan they consume everything, and `eof` closes.
    pub(super) plan: VecDeque<Answer>,
    pub(super) calls: Vec<Callback>,
    /// What each `data` and `eof` was shown.
    pub(super) shown: Vec<Vec<u8>>,
    pub(super) reason: Option<CloseReason>,
    pub(super) now: u64,
    pub(super) others: Vec<ConnId>,
    /// Others that this queue holds.
    pub(super) holds: Vec<ConnId>,
    pub(super) chunks: ChunkPool,
    pub(super) metrics: Metrics,
    pub(super) chatter: usize,
    rares: RarePool,
    output: Vec<u8>,
    output_shared: bool,
    armed: Option<u64>,
    /// A byte that differs from the last ones, so that nothing passes for its neighbour.
    next_in: u8,
    next_out: u8,
}

impl Rig {
    pub(super) fn accepted(limits: Limits) -> Rig {
        let mut rig = Rig::unopened(limits);
        rig.attend();
        rig
    }

    fn unopened(limits: Limits) -> Rig {
        let mut ids = Ids::default();
        let (id, listener) = (ids.reserve(), ListenerId::new(0));
        let peer = ([127, 0, 0, 1], 7000).into();
        let now = 1000 * MILLISECOND;
        Rig::new(Connection::accepted(id, Some(listener), peer, Arc::new(limits), now), ids, now)
    }

    /// A connection whose protocol has a filter from the start.
    pub(super) fn filtered(limits: Limits, chatter: usize) -> Rig {
        let mut rig = Rig::unopened(limits);
        rig.chatter = chatter;
        rig.put_filter(false, false);
        rig.attend();
        rig
    }

    pub(super) fn connecting(limits: Limits) -> Rig {
        let mut ids = Ids::default();
        let id = ids.reserve();
        let peer = ([127, 0, 0, 1], 7000).into();
        let now = 1000 * MILLISECOND;
        let conn = Connection::connecting(id, peer, Arc::new(limits), now);
        let mut rig = Rig::new(conn, ids, now);
        rig.finish(false);
        rig
    }

    fn new(conn: Connection, mut ids: Ids, now: u64) -> Rig {
        let others = (0..3).map(|_| ids.reserve()).collect();
        let kernel = Kernel { room: 1 << 20, ..Kernel::default() };
        let model = Model { active: now, progress: now, phase: now, ..Model::default() };
        Rig {
            conn,
            kernel,
            model,
            plan: VecDeque::new(),
            calls: Vec::new(),
            shown: Vec::new(),
            reason: None,
            now,
            others,
            holds: Vec::new(),
            chunks: ChunkPool::default(),
            metrics: Metrics::default(),
            chatter: 0,
            rares: RarePool::default(),
            output: Vec::new(),
            output_shared: false,
            armed: None,
            next_in: 0,
            next_out: 0,
        }
    }

    pub(super) fn is(&self, flags: Flags) -> bool {
        self.conn.flags().any(flags)
    }

    pub(super) fn tick(&self) -> u64 {
        self.now - self.now % MILLISECOND
    }

    // ---- what the peer does ------------------------------------------------------------------

    /// Clear bytes of the peer's arrive, encoded where a filter is to decode them.
    pub(super) fn peer_sends(&mut self, count: usize) {
        let clear: Vec<u8> = (0..count)
            .map(|_| {
                self.next_in = self.next_in.wrapping_add(3);
                self.next_in
            })
            .collect();
        let wire = if self.is(Flags::FILTERED) { encode(&clear) } else { clear };
        self.peer_sends_wire(&wire);
    }

    pub(super) fn peer_sends_wire(&mut self, wire: &[u8]) {
        if !self.kernel.fin && !self.kernel.reset && !self.kernel.reset_seen {
            self.kernel.arrived.extend(wire);
            self.event(Flags::READABLE);
        }
    }

    pub(super) fn peer_finishes(&mut self) {
        self.kernel.fin = true;
        self.event(Flags::READABLE | Flags::HUNG | Flags::FIN_TOLD);
    }

    pub(super) fn peer_resets(&mut self) {
        if !self.kernel.reset_seen {
            self.kernel.reset = true;
            self.event(Flags::READABLE | Flags::WRITABLE | Flags::HUNG | Flags::FAULTY);
        }
    }

    /// The peer reads: the socket takes `room` more bytes.
    pub(super) fn peer_reads(&mut self, room: usize) {
        self.kernel.room += room;
        self.event(Flags::WRITABLE);
    }

    /// Readiness, as an event tells of it.
    pub(super) fn event(&mut self, ready: Flags) {
        if !self.kernel.closed {
            self.conn.handle_ready(ready);
        }
    }

    // ---- what others do ----------------------------------------------------------------------

    /// Another connection writes to this one; `by` tells who, if input caused it.
    pub(super) fn other_writes(&mut self, count: usize, shared: bool, by: Option<ConnId>) {
        if count == 0 {
            return;
        }
        let late = self.is(Flags::NO_WRITES);
        let broken = self.is(Flags::BROKEN);
        let bytes = self.next_output(count);
        let written = match shared {
            true => Written::Shared(GuardedBytes::new(bytes.clone())),
            false => Written::Copied(&bytes),
        };
        self.conn.borrow_queues(&mut self.rares);
        let tick = self.tick();
        let queued = self.conn.take_queued(written, by.is_some(), &mut self.chunks, tick);
        match queued {
            Queued::Refused => {
                assert!(late);
                self.model.refused += count;
            }
            Queued::Lost => {
                self.model.lost += count;
                self.model.overflowed = self.is(Flags::OVERFLOW);
                assert!(broken || self.model.overflowed);
                self.finish(false);
            }
            Queued::Waiting | Queued::Held => self.model.written.extend(&bytes),
        }
        if let (Queued::Held, Some(writer)) = (queued, by) {
            if !self.holds.contains(&writer) {
                self.conn.handle_holds(writer);
                self.holds.push(writer);
            }
        }
    }

    /// Step 8 of a turn.
    pub(super) fn send_for_others(&mut self) {
        self.flush();
        self.finish(false);
    }

    pub(super) fn other_wishes(&mut self, wish: Wish) {
        match wish {
            Wish::Close => self.conn.want_close(),
            Wish::Abort => self.conn.want_abort(),
            Wish::Finish => self.conn.want_fin(),
            _ => return,
        }
        self.model.wishes.push(wish);
        self.finish(false);
    }

    pub(super) fn note(&mut self) -> bool {
        self.conn.borrow_queues(&mut self.rares);
        let taken = self.conn.handle_note(Note::new(1u8)).is_ok();
        self.conn.handle_ready(Flags::NONE);
        taken
    }

    /// Flow control: the queue of `other` holds this connection.
    pub(super) fn hold(&mut self, other: ConnId) -> bool {
        self.conn.handle_held(other)
    }

    pub(super) fn release(&mut self, other: ConnId) {
        self.conn.handle_released(other);
        self.conn.handle_ready(Flags::NONE);
    }

    pub(super) fn stop(&mut self) {
        if self.is(Flags::OPENED) {
            self.conn.handle_stopping();
        } else {
            self.begin_close(By::Runtime, CloseKind::Shutdown);
        }
        self.finish(false);
    }

    /// The time that shutdown leaves is over.
    pub(super) fn end_drain(&mut self) {
        if !self.conn.is_lingering() && self.model.kind.is_none_or(in_order) {
            self.model.kind = Some(CloseKind::Shutdown);
        }
        self.conn.handle_drain_over();
        self.finish(false);
    }

    pub(super) fn begin_close(&mut self, by: By, kind: CloseKind) {
        self.decide_close(kind);
        self.conn.begin_close(by, kind, None);
    }

    /// A filter goes under the queues.
    pub(super) fn put_filter(&mut self, panics: bool, feed: bool) {
        let flags = self.conn.flags();
        if flags.any(Flags::FILTERED) {
            self.decide_close(CloseKind::Filter(FilterFailure::Second));
        } else if flags.any(Flags::UNREAD) && !feed {
            self.decide_close(CloseKind::Filter(FilterFailure::UnreadInput));
        } else {
            self.model.unfiltered = Some(self.model.written.len());
            self.model.phase = self.now;
            // What is fed to the filter counts as received from it, not from the socket.
            let fed = self.model.received.split_off(self.model.consumed);
            self.expect_filtered(&fed);
            if flags.any(Flags::PEER_FIN) && self.model.kind.is_none() && !self.model.decoder.ended
            {
                self.decide_break(CloseKind::Filter(FilterFailure::Truncated));
            }
        }
        let toy = Toy::new(self.chatter, panics);
        let tick = self.tick();
        self.conn.handle_filter(Box::new(toy), feed, &mut self.chunks, tick);
        self.note_answers(flags);
    }

    // ---- time --------------------------------------------------------------------------------

    /// Time passes, with the deadlines in it as the loop's timer has them.
    pub(super) fn advance(&mut self, by: u64) {
        let until = self.now + by;
        let queued = self.is(Flags::QUEUED);
        if queued && !std::mem::replace(&mut self.model.queued, queued) {
            self.model.progress = self.now;
        }
        self.model.queued = queued;
        while let Some(at) = self.armed.filter(|at| *at <= until) {
            self.now = self.now.max(at.next_multiple_of(MILLISECOND));
            self.armed = None;
            self.check_deadline();
            if self.reason.is_some() {
                break;
            }
        }
        self.now = self.now.max(until);
    }

    fn check_deadline(&mut self) {
        let (tick, before) = (self.tick(), self.conn.poll_deadline());
        let expected = self.model_deadline();
        match self.conn.handle_deadline(tick, &mut self.chunks) {
            Expired::Nothing => assert!(before > tick, "a deadline was passed over"),
            Expired::Something => {
                assert!(before <= tick, "a deadline came early");
                let kind = expected.expect("nothing was due by the model's watch");
                if self.model.kind.is_none_or(in_order) && kind != CloseKind::Finished {
                    self.model.kind = Some(kind);
                    let both = kind == CloseKind::TimedOut(Deadline::Close);
                    self.model.or = both.then_some(CloseKind::TimedOut(Deadline::Write));
                }
            }
        }
        self.finish(false);
    }

    /// What is due now, by the model's own watch. `Finished` stands for the end of lingering.
    fn model_deadline(&self) -> Option<CloseKind> {
        let limits = self.conn.limits();
        let (flags, model) = (self.conn.flags(), &self.model);
        let over = |since: u64, limit: Duration| self.now - since >= limit.as_nanos() as u64;
        let timed_out = |deadline| Some(CloseKind::TimedOut(deadline));
        if flags.any(Flags::CONNECTING) {
            let waited = over(model.phase, limits.connect);
            return if waited { timed_out(Deadline::Connect) } else { None };
        }
        if flags.any(Flags::CLOSING) {
            let closing = over(model.phase, limits.close_deadline);
            if let Some((began, heard)) = model.linger {
                let lingered = over(began, limits.linger_total) || over(heard, limits.linger_idle);
                return (closing || lingered).then_some(CloseKind::Finished);
            }
            let stalled = over(model.progress, limits.write_stall);
            return match (closing, stalled) {
                (true, _) => timed_out(Deadline::Close),
                (_, true) => timed_out(Deadline::Write),
                _ => None,
            };
        }
        if flags.any(Flags::HANDSHAKING) {
            let waited = over(model.phase, limits.handshake);
            return if waited { timed_out(Deadline::Handshake) } else { None };
        }
        if flags.any(Flags::QUEUED) && over(model.progress, limits.write_stall) {
            return timed_out(Deadline::Write);
        }
        limits.idle.filter(|idle| over(model.active, *idle)).and(timed_out(Deadline::Idle))
    }
}

pub(super) fn in_order(kind: CloseKind) -> bool {
    matches!(kind, CloseKind::Finished | CloseKind::Shutdown)
}
