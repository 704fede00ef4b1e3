//! What is due for a connection, in the order of the contract, on whichever of its threads looks.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Member};
use super::effects;
use super::hub::lock;
use super::sending::Drained;
use super::worker::{Next, Role, Worker};
use crate::buffer::ChunkPool;
use crate::connection::{Connection, Consumed, Due, Expired, Flags, Round};
use crate::dispatch::Called;
use crate::guard::drop_guarded;
use crate::protocol::{Boxed, Callback, NoSocket, Protocol, SocketInfo, Successor, TimerOwner};
use crate::reason::{By, CloseKind};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, thread};
use crate::timer::{Timer, TimerKey};

const MILLISECOND: u64 = 1_000_000;

impl Worker {
    /// Does everything that is due, and says what this thread does next. Whatever changes after its
    /// last look rings the bell that it then waits for.
    pub(super) fn advance(&mut self) -> Next {
        let cell = Arc::clone(&self.cell);
        // What came of the last attempt to send, until something else has been done.
        let mut sending = None;
        // One that is set again without a delay would always be due.
        let mut timer_ran = false;
        loop {
            self.shared.metrics.turns += 1;
            self.publish();
            self.cut_lingering();
            while self.role == Role::Companion && cell.reader_waits.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let mut member = lock(&cell.member);
            let now = self.shared.clock.exact();
            self.look_at(&cell, &mut member, now);
            if member.conn.flags().any(Flags::ENDED) {
                drop(member);
                self.cut_lingering();
                return Next::End;
            }
            // A peer that reads slowly must not keep everything else waiting: something that is due
            // comes between two writes.
            let others_first = match sending.take() {
                None => member.writing,
                Some(Drained::Done) => member.writing || self.is_due(&member, now),
                Some(Drained::Busy) => true,
            };
            if member.conn.has_output() && !others_first {
                drop(member);
                sending = Some(self.try_drain(&cell));
            } else if member.applying {
                return Next::OtherFirst;
            } else if mem::take(&mut timer_ran) && member.conn.has_due() {
                self.call_due(member);
            } else if let Some((timer, key)) = self.due_timer(&mut member, now) {
                timer_ran = true;
                self.call_timer(member, timer, key);
            } else if member.conn.has_due() {
                self.call_due(member);
            } else {
                let next = self.next(&member, now);
                drop(member);
                self.cut_lingering();
                return next;
            }
        }
    }

    /// What has happened to the connection since somebody last looked.
    fn look_at(&mut self, cell: &Cell, member: &mut Member, now: u64) {
        self.shared.stopping = self.hub.is_stopping();
        self.take_requests(cell, member);
        if member.conn.flags().none(Flags::BROKEN | Flags::CONNECTING) {
            // Readiness means nothing here: a socket may always be tried.
            member.conn.handle_ready(Flags::READABLE | Flags::WRITABLE);
        }
        if member.conn.poll_deadline() <= now {
            let expired = member.conn.handle_deadline(now, &mut self.shared.chunks);
            self.shared.metrics.timers += u64::from(expired == Expired::Something);
        }
        self.finish(member);
    }

    /// Nothing is due: how long this thread may sleep, and in what.
    fn next(&self, member: &Member, now: u64) -> Next {
        let mut nearest = member.conn.poll_deadline();
        if self.role == Role::Companion {
            nearest = nearest.min(member.timers.next().unwrap_or(u64::MAX));
        }
        let left = (nearest < u64::MAX)
            .then(|| Duration::from_nanos(nearest.saturating_sub(now).max(MILLISECOND)));
        if self.role == Role::Reader && member.conn.may_read() {
            Next::Read(left)
        } else {
            Next::Wait(left)
        }
    }

    // ---- callbacks ---------------------------------------------------------------------------

    /// Whether this thread could call the protocol right now.
    pub(super) fn is_due(&self, member: &Member, now: u64) -> bool {
        let timer =
            self.role == Role::Companion && member.timers.next().is_some_and(|at| at <= now);
        !member.applying && (timer || member.conn.has_due())
    }

    /// Timers are the companion's: the reading thread has the socket to look after.
    fn due_timer(&self, member: &mut Member, now: u64) -> Option<(Timer, TimerKey)> {
        if self.role == Role::Reader {
            return None;
        }
        while let Some((owner, key)) = member.timers.pop_due(now) {
            if let TimerOwner::Protocol(_, timer) = owner {
                return Some((timer, key));
            }
        }
        None
    }

    fn call_timer(&mut self, mut member: MutexGuard<'_, Member>, timer: Timer, key: TimerKey) {
        if !member.conn.has_timer(timer, key) {
            return;
        }
        member.conn.take_timer(timer);
        if member.conn.may_call() {
            self.shared.metrics.timers += 1;
            self.call(&mut member, |called| called.timeout(timer));
            self.settle(member, &[], Callback::Timeout, |_, _, _| {});
        }
    }

    fn call_due(&mut self, mut member: MutexGuard<'_, Member>) {
        let callback = match member.conn.poll_due(&mut Round::default()) {
            Some(Due::Opened) => {
                self.call(&mut member, |called| called.opened());
                Callback::Opened
            }
            Some(Due::Stopping) => {
                self.call(&mut member, |called| called.stopping());
                Callback::Stopping
            }
            Some(Due::Drained) => {
                self.call(&mut member, |called| called.drained());
                Callback::Drained
            }
            Some(Due::Notified(note)) => {
                self.call(&mut member, |called| called.notified(note));
                Callback::Notified
            }
            Some(Due::Data) => return self.call_input(member, false),
            Some(Due::Eof) => return self.call_input(member, true),
            None => return,
        };
        self.settle(member, &[], callback, |_, _, _| {});
    }

    /// Shows unread input to `data` or `eof`.
    fn call_input(&mut self, mut member: MutexGuard<'_, Member>, eof: bool) {
        let unread = member.conn.lend_unread();
        let called = self.call(&mut member, |called| {
            if eof {
                called.eof(unread.as_slice())
            } else {
                called.data::<true>(unread.as_slice(), true)
            }
        });
        let Some(consumed) = called else { return };
        let callback = if eof { Callback::Eof } else { Callback::Data };
        // Where the output is a range of the unread bytes: they are given back before it is sent.
        self.shared.effects.copy_shown(unread.as_slice());
        let range = self.shared.output.is_range();
        let copy = if range { unread.as_slice().to_vec() } else { Vec::new() };
        self.settle(member, &copy, callback, move |conn, replaced, chunks| {
            if eof && !replaced {
                conn.handle_eof_shown(unread, consumed, chunks);
            } else if eof {
                let consumed = Consumed { need: 0, ..consumed };
                conn.handle_unread_shown(unread, consumed, chunks);
            } else {
                conn.handle_unread_shown(unread, consumed, chunks);
            }
        });
    }

    /// Runs one callback, to which the timers of the connection are lent. None when the protocol
    /// has been told `closed` and is gone.
    #[inline(always)]
    pub(super) fn call<R>(
        &mut self,
        member: &mut Member,
        call: impl FnOnce(Called<'_>) -> R,
    ) -> Option<R> {
        let Member { conn, protocol, timers, .. } = member;
        let protocol = &mut **protocol.as_mut()?;
        let socket: &dyn SocketInfo = match self.cell.socket.get() {
            Some(socket) => socket,
            None => &NoSocket,
        };
        // Most connections have none, and a message is not to pay for that.
        let lent = timers.next().is_some();
        if lent {
            mem::swap(&mut self.shared.timers, timers);
        }
        let result = call(Called { shared: &mut self.shared, conn, protocol, socket });
        if lent || self.shared.timers.next().is_some() {
            mem::swap(&mut self.shared.timers, timers);
        }
        Some(result)
    }

    // ---- after a callback --------------------------------------------------------------------

    /// After a callback: its own wishes are applied before any other thread can look, then its
    /// output is sent and its wishes for others are carried out, both without the lock.
    pub(super) fn settle(
        &mut self,
        mut member: MutexGuard<'_, Member>,
        shown: &[u8],
        callback: Callback,
        keep: impl FnOnce(&mut Connection, bool, &mut ChunkPool),
    ) {
        let cell = Arc::clone(&self.cell);
        let replaced = self.shared.effects.has_successor();
        keep(&mut member.conn, replaced, &mut self.shared.chunks);
        self.shared.effects.copy_shown(shown);
        let output = mem::take(&mut self.shared.output);
        let direct = self.place_output(&cell, &mut member, &output, shown, callback);
        let dropped = self.apply_successors(&mut member);
        let now = self.shared.clock.exact();
        let stopping = callback == Callback::Stopping;
        member.conn.handle_wishes(&mut self.shared.chunks, now, stopping);
        let applying = !self.shared.effects.is_empty();
        member.applying = applying;
        let timed = member.timers.next().is_some();
        drop(member);
        // What it wished for others does not wait for a peer that takes its own bytes slowly.
        let drains = if applying {
            let later = effects::apply(&mut self.author());
            lock(&cell.member).applying = false;
            self.ring_other();
            later.begin(&self.hub)
        } else {
            Vec::new()
        };
        if let Some(writer) = direct {
            self.send_directly(&cell, &output, shown, None);
            drop(writer);
        }
        self.shared.output = output;
        self.shared.output.clear();
        if !drop_guarded(dropped) {
            self.shared.metrics.panics += 1;
        }
        if timed {
            cell.nudge(&self.hub);
        } else {
            self.ring_other();
        }
        self.drain_others(drains);
    }

    /// Lets the last of the protocols that a callback wished for take over. Returns what is to be
    /// dropped, for which no lock may be held.
    fn apply_successors(&mut self, member: &mut Member) -> Vec<Box<dyn Protocol>> {
        let mut successors = self.shared.effects.take_successors();
        let Some(last) = successors.pop() else { return Vec::new() };
        let mut dropped: Vec<Box<dyn Protocol>> =
            successors.into_iter().map(|successor| successor.protocol.here()).collect();
        dropped.extend(self.replace(member, last));
        dropped
    }

    /// Lets another protocol take over, before any other thread can call the old one. Returns what
    /// is to be dropped.
    fn replace(&mut self, member: &mut Member, successor: Successor) -> Option<Box<dyn Protocol>> {
        let wished = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::FAILED;
        if member.conn.flags().any(wished | Flags::CLOSING | Flags::ENDED) {
            return Some(successor.protocol.here());
        }
        let Boxed::Anywhere(next) = successor.protocol else {
            member.conn.end(By::Runtime, CloseKind::Unsupported, None);
            return Some(successor.protocol.here());
        };
        for key in member.conn.take_timers() {
            member.timers.cancel(key);
        }
        let old = member.protocol.replace(next);
        member.conn.handle_replaced();
        self.ask_for_filter(member, successor.feed);
        old.map(|old| old as Box<dyn Protocol>)
    }
}
