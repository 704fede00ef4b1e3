//! One socket of datagrams, without the socket: what is due, what waits, and why it ends.
//!
//! Methods are sorted by prefix as those of a connection are: `handle_*` takes in what happened,
//! `want_*` what the protocol asked for, `poll_*` says what is to be done and marks it as done.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::DatagramOptions;
use super::lack::Lack;
use super::queue::Queue;
use super::sending::Retry;
use super::socket::{Received, is_refusal};
use super::train::Train;
use crate::clock::{TICK, nanos};
use crate::endpoint::Endpoint;
use crate::guard::drop_each;
use crate::id::ConnId;
use crate::metrics::Metrics;
use crate::note::Note;
use crate::reason::{By, Cause, CloseKind, CloseReason, Deadline};
use crate::timer::{Timer, TimerKey};

/// Reads in a row that fail for no known reason before the socket ends.
const FAILURES_MAX: u32 = 64;

/// More than wait in a receive buffer of the default size.
const WAITING_MAX: u64 = 1024;

/// Receivers of which it is remembered, until the protocol is told, that they are not there.
const REFUSED_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    /// `opened` has not run.
    Fresh,
    Open,
    /// Datagrams that wait are sent; nothing is delivered.
    Closing,
    /// `closed` is due.
    Ended,
}

/// How it is going to end, or has.
#[derive(Debug)]
struct End {
    by: By,
    kind: CloseKind,
    cause: Option<Cause>,
}

/// What is due, in the order of the contract.
#[derive(Debug)]
pub(crate) enum Due {
    Opened,
    Stopping,
    Drained,
    Refused(Option<Endpoint>),
    Notified(Note),
}

/// What one turn has done for a socket.
#[derive(Debug, Default)]
pub(crate) struct Round {
    drained: bool,
    /// Refusals of which the protocol is still to be told in this turn.
    refused: Option<usize>,
    /// Notes that were there when the turn began are delivered in it.
    notes: Option<usize>,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Datagram {
        truncated: bool,
    },
    /// Nothing more is there.
    Nothing,
    /// An error was reported, and is handled.
    Told,
}

pub(crate) struct State {
    id: ConnId,
    pub(super) options: Arc<DatagramOptions>,
    pub(super) phase: Phase,
    end: Option<End>,
    pub(super) queue: Queue,
    pub(super) train: Train,
    timers: Vec<(Timer, TimerKey)>,
    notes: VecDeque<Note>,
    deadline: Option<TimerKey>,
    /// Datagrams that have come, and how many had when timers were first put off for those that
    /// wait.
    received: u64,
    put_off_since: Option<u64>,
    /// When it was bound, when a datagram has last come or gone, and when closing began.
    since: u64,
    pub(super) active: u64,
    closing: u64,
    readable: bool,
    pub(super) writable: bool,
    pub(super) retry: Retry,
    stopping_due: bool,
    pub(super) drained_due: bool,
    /// Who was refused, once each.
    refused: Vec<Option<Endpoint>>,
    pub(super) close_wanted: bool,
    pub(super) abort_wanted: bool,
    failures: u32,
    /// While receives fail for lack of a resource, and for a while after.
    pub(super) lack: Option<Box<Lack>>,
    bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) dropped: u64,
    pub(super) refused_bytes: u64,
    lost_bytes: u64,
    /// What is in the gauge of unsent bytes.
    accounted: usize,
    /// In a list of the loop; and whether it is served behind the others.
    pub(crate) listed: bool,
    pub(crate) bulk: bool,
    /// The turn in which it ended.
    pub(crate) end_turn: u64,
}

impl State {
    pub(crate) fn new(id: ConnId, options: Arc<DatagramOptions>, now: u64) -> State {
        State {
            id,
            options,
            phase: Phase::Fresh,
            end: None,
            queue: Queue::default(),
            train: Train::default(),
            timers: Vec::new(),
            notes: VecDeque::new(),
            deadline: None,
            received: 0,
            put_off_since: None,
            since: now,
            active: now,
            closing: 0,
            // Edges before the registration are not reported: the first read finds out.
            readable: true,
            writable: true,
            retry: Retry::default(),
            stopping_due: false,
            drained_due: false,
            refused: Vec::new(),
            close_wanted: false,
            abort_wanted: false,
            failures: 0,
            lack: None,
            bytes_in: 0,
            bytes_out: 0,
            dropped: 0,
            refused_bytes: 0,
            lost_bytes: 0,
            accounted: 0,
            listed: false,
            bulk: false,
            end_turn: 0,
        }
    }

    // ---- what it is --------------------------------------------------------------------------

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    pub(crate) fn options(&self) -> &DatagramOptions {
        &self.options
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    pub(crate) fn unsent(&self) -> usize {
        self.queue.bytes()
    }

    pub(crate) fn is_congested(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether a timer or a note may run a callback.
    pub(crate) fn may_call(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn may_read(&self) -> bool {
        self.phase == Phase::Open && self.readable && self.paused_until().is_none()
    }

    /// When it may be received from again, if it pauses because the system lacks a resource.
    pub(crate) fn paused_until(&self) -> Option<u64> {
        self.lack.as_ref().filter(|_| self.phase == Phase::Open)?.until()
    }

    /// Whether it has something to do without any further event.
    pub(crate) fn has_work(&self) -> bool {
        self.has_due() || self.may_read() || self.has_output_to_move()
    }

    /// Whether a callback is due.
    pub(crate) fn has_due(&self) -> bool {
        match self.phase {
            Phase::Fresh | Phase::Ended => true,
            Phase::Open => {
                let due = self.stopping_due || self.drained_due;
                due || !self.refused.is_empty() || !self.notes.is_empty()
            }
            Phase::Closing => false,
        }
    }

    /// Whether datagrams wait that the system may take.
    pub(crate) fn has_output_to_move(&self) -> bool {
        !self.train.is_empty() || (self.writable && !self.queue.is_empty())
    }

    // ---- what happens ------------------------------------------------------------------------

    pub(super) fn note_dropped(&mut self, dropped: u64, metrics: &mut Metrics) {
        self.dropped += dropped;
        metrics.datagrams_dropped += dropped;
    }

    /// Datagrams to `to` have not arrived.
    pub(super) fn note_refused(
        &mut self,
        count: u64,
        to: Option<&Endpoint>,
        metrics: &mut Metrics,
    ) {
        metrics.datagrams_refused += count;
        let to = to.copied().or(self.options.connect);
        if count > 0 && self.refused.len() < REFUSED_MAX && !self.refused.contains(&to) {
            self.refused.push(to);
        }
    }

    /// The system tells what the socket is ready for.
    pub(crate) fn handle_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Notes whether datagrams wait that have come and were not shown. Returns whether timers that
    /// are due wait for these: a process that was stopped, or busy, finds both. A flood puts
    /// nothing off for ever: they wait for as many as a socket may have had waiting.
    pub(crate) fn note_waiting(&mut self, waits: bool) -> bool {
        if !waits || self.phase != Phase::Open {
            self.put_off_since = None;
            return false;
        }
        self.received - *self.put_off_since.get_or_insert(self.received) < WAITING_MAX
    }

    /// What a read has brought. A datagram is one byte longer than is kept when it was cut short.
    pub(crate) fn handle_read(
        &mut self,
        result: &io::Result<Received>,
        metrics: &mut Metrics,
        now: u64,
    ) -> Read {
        let error = match result {
            Ok(received) => {
                metrics.reads += received.calls;
                let kept = received.len.min(self.options.datagram_max);
                let truncated = kept < received.len;
                self.failures = 0;
                self.received += 1;
                self.active = now;
                self.bytes_in += kept as u64;
                metrics.bytes_in += kept as u64;
                metrics.datagrams_in += 1;
                metrics.datagrams_truncated += u64::from(truncated);
                if self.lack.as_mut().is_some_and(|lack| lack.end(self.id, now)) {
                    self.lack = None;
                }
                return Read::Datagram { truncated };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                metrics.reads += 1;
                self.readable = false;
                self.put_off_since = None;
                return Read::Nothing;
            }
            Err(error) => error,
        };
        metrics.reads += 1;
        if is_refusal(error) {
            self.note_refused(1, None, metrics);
            return Read::Told;
        }
        if Lack::is_told_by(error) {
            let end = self.end_at();
            self.lack.get_or_insert_default().note(self.id, error, now, end);
            return Read::Told;
        }
        self.failures += 1;
        log::debug!(target: "lariat::datagram", "{}: cannot receive: {error}", self.id);
        if self.failures >= FAILURES_MAX {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.end(By::Runtime, CloseKind::SystemError, Some(Cause::new(copy)));
        }
        Read::Told
    }

    /// A note arrives; it comes back when too many wait.
    pub(crate) fn handle_note(&mut self, note: Note) -> Result<(), Note> {
        if self.phase >= Phase::Closing || self.notes.len() >= self.options.notes_max {
            return Err(note);
        }
        self.notes.push_back(note);
        Ok(())
    }

    /// The driver stops.
    pub(crate) fn handle_shutdown(&mut self) {
        self.stopping_due = true;
    }

    /// A callback failed: its requests are applied first.
    pub(crate) fn handle_failure(&mut self, kind: CloseKind, cause: Cause) {
        let end = || End { by: By::Us, kind, cause: Some(cause) };
        self.end.get_or_insert_with(end);
    }

    /// Whether its end is due.
    pub(crate) fn is_overdue(&self, now: u64) -> bool {
        self.end_at() <= now && self.phase != Phase::Ended
    }

    /// `latest` says when at the latest that has happened which has a stamp: no deadline counts
    /// from earlier.
    pub(crate) fn handle_stamps(&mut self, latest: impl Fn(u64) -> u64) {
        self.active = latest(self.active);
        self.closing = latest(self.closing);
    }

    /// Looks whether its end is due. True when it is.
    pub(crate) fn handle_deadline(&mut self, now: u64) -> bool {
        if !self.is_overdue(now) {
            return false;
        }
        let deadline = if self.phase == Phase::Closing { Deadline::Close } else { Deadline::Idle };
        self.end(By::Runtime, CloseKind::TimedOut(deadline), None);
        true
    }

    /// Applies what the callback asked for, and moves on where nothing is left to wait for.
    pub(crate) fn handle_wishes(&mut self, metrics: &mut Metrics, now: u64) {
        let failed = self.phase < Phase::Closing && self.end.is_some();
        let panicked = failed && self.end.as_ref().is_some_and(|e| e.kind == CloseKind::Panicked);
        if panicked {
            self.phase = Phase::Ended;
        } else if self.abort_wanted {
            if failed {
                // What a callback asked for comes before how it ended.
                self.end = None;
            }
            self.end(By::Us, CloseKind::Aborted, None);
        } else if failed {
            self.begin_close(now);
        } else if self.close_wanted && self.phase < Phase::Closing {
            self.end = Some(End { by: By::Us, kind: CloseKind::Finished, cause: None });
            self.begin_close(now);
        }
        if self.phase == Phase::Closing && self.queue.is_empty() && self.train.is_empty() {
            self.phase = Phase::Ended;
        }
        if self.phase == Phase::Ended {
            self.lost_bytes += (self.queue.bytes() + self.train.bytes().len()) as u64;
            let lost = self.queue.clear() + self.train.clear();
            self.note_dropped(lost, metrics);
            self.retry = Retry::default();
        }
        if self.phase >= Phase::Closing {
            drop_each(self.notes.drain(..));
        }
    }

    fn begin_close(&mut self, now: u64) {
        self.phase = Phase::Closing;
        self.closing = now;
    }

    /// Ends it at once. The first reason counts, but a close that is cut is no longer finished.
    pub(crate) fn end(&mut self, by: By, kind: CloseKind, cause: Option<Cause>) {
        if self.phase != Phase::Ended {
            if self.end.as_ref().is_some_and(|end| end.kind == CloseKind::Finished) {
                self.end = None;
            }
            self.end.get_or_insert(End { by, kind, cause });
            self.phase = Phase::Ended;
        }
    }

    // ---- what is wanted ----------------------------------------------------------------------

    pub(crate) fn want_close(&mut self) {
        self.close_wanted = true;
    }

    pub(crate) fn want_abort(&mut self) {
        self.abort_wanted = true;
    }

    // ---- timers ------------------------------------------------------------------------------

    /// Notes an armed timer. Returns the one in whose place it comes.
    pub(crate) fn put_timer(&mut self, timer: Timer, key: TimerKey) -> Option<TimerKey> {
        let old = self.take_timer(timer);
        self.timers.push((timer, key));
        old
    }

    pub(crate) fn take_timer(&mut self, timer: Timer) -> Option<TimerKey> {
        let at = self.timers.iter().position(|(armed, _)| *armed == timer)?;
        Some(self.timers.swap_remove(at).1)
    }

    pub(crate) fn has_timer(&self, timer: Timer, key: TimerKey) -> bool {
        self.timers.contains(&(timer, key))
    }

    pub(crate) fn take_timers(&mut self) -> Vec<(Timer, TimerKey)> {
        std::mem::take(&mut self.timers)
    }

    /// Timers that are armed for it, those of deadlines among them.
    #[cfg(debug_assertions)]
    pub(crate) fn timers_len(&self) -> usize {
        self.timers.len() + usize::from(self.deadline.is_some())
    }

    /// When it has to be looked at: `u64::MAX` for never.
    pub(crate) fn deadline_at(&self) -> u64 {
        self.end_at().min(self.retry.at())
    }

    fn end_at(&self) -> u64 {
        let after =
            |from: u64, time: Duration| from.saturating_add(nanos(time)).saturating_add(TICK);
        match (self.phase, self.options.idle) {
            (Phase::Closing, _) => after(self.closing, self.options.close_deadline),
            (Phase::Open, Some(idle)) => after(self.active, idle),
            _ => u64::MAX,
        }
    }

    pub(crate) fn deadline_key(&self) -> Option<TimerKey> {
        self.deadline
    }

    pub(crate) fn put_deadline(&mut self, key: Option<TimerKey>) {
        self.deadline = key;
    }

    // ---- what is to be done ------------------------------------------------------------------

    /// The next callback that is due, which is then no longer.
    pub(crate) fn poll_due(&mut self, round: &mut Round) -> Option<Due> {
        if self.phase == Phase::Fresh {
            self.phase = Phase::Open;
            return Some(Due::Opened);
        }
        if self.phase != Phase::Open {
            return None;
        }
        if std::mem::take(&mut self.stopping_due) {
            return Some(Due::Stopping);
        }
        // What these two send may bring them about again: in the next turn.
        if self.drained_due && !std::mem::replace(&mut round.drained, true) {
            self.drained_due = false;
            return Some(Due::Drained);
        }
        if !self.refused.is_empty() {
            let left = round.refused.get_or_insert(self.refused.len());
            if let Some(fewer) = left.checked_sub(1) {
                *left = fewer;
                return Some(Due::Refused(self.refused.remove(0)));
            }
        }
        let notes = round.notes.get_or_insert(self.notes.len());
        *notes = notes.checked_sub(1)?;
        self.notes.pop_front().map(Due::Notified)
    }

    /// Unsent bytes before and now; None where nothing has changed.
    pub(crate) fn poll_unsent(&mut self) -> Option<(usize, usize)> {
        let unsent = self.queue.bytes();
        let before = std::mem::replace(&mut self.accounted, unsent);
        (before != unsent).then_some((before, unsent))
    }

    /// Why it ends, once that is decided.
    pub(crate) fn decided(&self, now: u64) -> Option<CloseReason> {
        let End { by, kind, cause } = self.end.as_ref()?;
        Some(CloseReason {
            by: *by,
            kind: *kind,
            cause: cause.clone(),
            unsent: self.lost_bytes,
            unread: 0,
            refused: self.refused_bytes,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            age: Duration::from_nanos(now.saturating_sub(self.since)),
            peer_finished: false,
        })
    }
}
