//! Sockets of datagrams: a table that is looked at where that of connections has no such id, so
//! that a connection pays nothing for it.
//!
//! They have their turn in the same lists as connections, and what they move is charged to the same
//! budget.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::budget::SHARE;
use super::system::System;
use super::{EventLoop, Released};
use crate::connection::{BULK, Flags};
use crate::datagram::{
    Bound, Called, Datagram, DatagramProtocol, DatagramSocket, Due, NoSocket, Phase, Read,
    Received, Round, State,
};
use crate::guard::{drop_guarded, guarded};
use crate::id::ConnId;
use crate::note::Note;
use crate::protocol::{Shared, TimerOwner, drop_protocol};
use crate::reason::{By, Cause, CloseKind, ConnectFailure};
use crate::timer::{Timer, TimerKey};

/// One socket with its protocol.
pub(super) struct Outlet<S: System> {
    pub(super) state: State,
    /// None once the end is decided: the descriptor is released before `closed` runs.
    socket: Option<S::Datagrams>,
    protocol: Box<dyn DatagramProtocol>,
}

/// By id, in its order.
pub(super) type Outlets<S> = BTreeMap<ConnId, Box<Outlet<S>>>;

impl<S: System> Outlet<S> {
    fn called<'a>(&'a mut self, shared: &'a mut Shared) -> Called<'a> {
        let socket = self.socket.as_ref().map_or(&NoSocket as &dyn DatagramSocket, |s| s);
        Called { shared, state: &mut self.state, protocol: &mut *self.protocol, socket }
    }

    /// Puts a socket that has work at the end of its list, once.
    pub(super) fn list(&mut self, ready: &mut Vec<ConnId>, bulk: &mut VecDeque<ConnId>) {
        if !self.state.listed && self.state.has_work() {
            self.state.listed = true;
            if self.state.bulk {
                bulk.push_back(self.state.id());
            } else {
                ready.push(self.state.id());
            }
        }
    }

    /// Takes in an event of the system.
    pub(super) fn handle_ready(&mut self, ready: Flags) {
        // The next call returns the error, whichever call that is.
        let readable = ready.any(Flags::READABLE | Flags::HUNG | Flags::FAULTY);
        self.state.handle_ready(readable, ready.any(Flags::WRITABLE));
    }

    /// Sends what the callbacks have sent, if it is to leave together.
    fn send_train(&mut self, shared: &mut Shared) {
        if let Some(socket) = &self.socket {
            self.state.send_train(socket, &mut shared.metrics, shared.clock.tick());
        }
    }

    fn flush(&mut self, shared: &mut Shared) {
        if let Some(socket) = &self.socket {
            self.state.flush(socket, &mut shared.metrics, shared.clock.tick());
        }
    }
}

impl<S: System> EventLoop<S> {
    /// Takes a socket over. A failure runs `closed`, in a later turn.
    pub(super) fn bind_now(&mut self, bound: Bound) {
        let Bound { id, socket, options, protocol } = bound;
        let now = self.shared.clock.exact();
        self.shared.metrics.binds += 1;
        self.shared.metrics.bound += 1;
        // One byte more than is kept shows that a datagram was longer.
        let room = self.datagram.len().max(options.datagram_max + 1);
        self.datagram.resize(room, 0);
        let mut state = State::new(id, options, now);
        let mut socket = match self.system.adopt_datagrams(socket, id) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!(target: "lariat::datagram", "cannot watch {id}: {error}");
                let kind = CloseKind::Connect(ConnectFailure::of(&error));
                state.end(By::Runtime, kind, Some(Cause::new(error)));
                None
            }
        };
        if self.draining {
            state.end(By::Runtime, CloseKind::Shutdown, None);
            if let Some(socket) = socket.take() {
                self.system.close_datagrams(socket);
            }
        }
        if socket.is_none() {
            self.note_datagrams_closed(id);
            self.note_released(Released::Place);
            state.end_turn = self.shared.metrics.turns;
        }
        let protocol = protocol.here();
        self.table.insert_outlet(Box::new(Outlet { state, socket, protocol }));
        self.list_datagrams(id);
    }

    /// Serves what is in a list and is no connection. True: see [`EventLoop::serve`].
    #[cold]
    #[inline(never)]
    pub(super) fn serve_datagrams(&mut self, id: ConnId) -> bool {
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return true };
        outlet.state.listed = false;
        if outlet.state.phase() == Phase::Ended {
            if outlet.state.end_turn == self.shared.metrics.turns {
                // It has ended before it was served: `closed` runs in a later turn.
                self.list_datagrams(id);
            } else {
                self.tell_datagrams_closed(id);
            }
            return true;
        }
        let before = (self.shared.metrics.bytes_in, self.shared.metrics.bytes_out);
        outlet.flush(&mut self.shared);
        let mut round = Round::default();
        while let Some(outlet) = self.table.outlets.get_mut(&id) {
            let Some(due) = outlet.state.poll_due(&mut round) else { break };
            self.call_datagrams(id, due);
        }
        self.receive_datagrams(id);
        if let Some(outlet) = self.table.outlets.get_mut(&id) {
            outlet.send_train(&mut self.shared);
        }
        let metrics = &self.shared.metrics;
        let sent = (metrics.bytes_out - before.1) as usize;
        let moved = sent + (metrics.bytes_in - before.0) as usize;
        // What was received has been charged.
        self.budget.charge(sent);
        if let Some(outlet) = self.table.outlets.get_mut(&id) {
            outlet.state.bulk = moved >= BULK;
        }
        self.settle_datagrams(id);
        true
    }

    fn call_datagrams(&mut self, id: ConnId, due: Due) {
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return };
        self.budget.charge_callback();
        let called = outlet.called(&mut self.shared);
        match due {
            Due::Opened => called.opened(),
            Due::Stopping => called.stopping(),
            Due::Drained => called.drained(),
            Due::Refused(to) => called.refused(to),
            Due::Notified(note) => called.notified(note),
        }
        self.settle_datagrams(id);
    }

    /// Receives as many datagrams as one socket may in one turn: fewer where these, or all that the
    /// turn has moved, are enough bytes, but at least one.
    fn receive_datagrams(&mut self, id: ConnId) {
        let mut buffer = mem::take(&mut self.datagram);
        let (mut received, mut bytes_in) = (0, 0);
        while let Some(outlet) = self.table.outlets.get_mut(&id) {
            let most = outlet.state.options().datagrams_max;
            let spent = received > 0 && (self.budget.is_spent() || bytes_in >= SHARE);
            if !outlet.state.may_read() || received == most || spent {
                break;
            }
            received += 1;
            let Some(socket) = &outlet.socket else { break };
            let kept = outlet.state.options().datagram_max;
            let result = socket.receive(&mut buffer[..kept + 1]);
            let tick = self.shared.clock.tick();
            let read = outlet.state.handle_read(&result, &mut self.shared.metrics, tick);
            match (read, result) {
                (Read::Datagram { truncated }, Ok(received)) => {
                    let Received { len, from, to, ecn, .. } = received;
                    let bytes = &buffer[..len.min(kept)];
                    self.budget.charge_datagram(bytes.len());
                    bytes_in += bytes.len();
                    let called = outlet.called(&mut self.shared);
                    called.datagram(&Datagram { bytes, from, to, ecn, truncated });
                }
                (Read::Nothing, _) => break,
                _ => {}
            }
            self.settle_datagrams(id);
        }
        self.datagram = buffer;
    }

    /// After a callback, or anything else that happened to a socket: its requests, the end,
    /// the deadline, the list.
    pub(super) fn settle_datagrams(&mut self, id: ConnId) {
        self.apply_driver_effects();
        let tick = self.shared.clock.tick();
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return };
        outlet.state.handle_wishes(&mut self.shared.metrics, tick);
        if let Some((before, unsent)) = outlet.state.poll_unsent() {
            let buffered = self.shared.metrics.buffered;
            self.shared.metrics.buffered = buffered + unsent as u64 - before as u64;
            self.shared.note_unsent(id, unsent);
        }
        if outlet.state.phase() >= Phase::Closing {
            for (_, key) in outlet.state.take_timers() {
                self.shared.timers.cancel(key);
            }
        }
        if outlet.state.phase() == Phase::Ended {
            if let Some(socket) = outlet.socket.take() {
                self.system.close_datagrams(socket);
                outlet.state.end_turn = self.shared.metrics.turns;
                self.note_datagrams_closed(id);
                self.note_released(Released::Descriptor);
            }
        }
        self.sync_datagram_deadline(id);
        self.list_datagrams(id);
    }

    fn note_datagrams_closed(&mut self, id: ConnId) {
        self.shared.metrics.bound -= 1;
        self.shared.binder.listeners.remove_bound(id);
    }

    /// As [`EventLoop::sync_deadline`] does for a connection.
    fn sync_datagram_deadline(&mut self, id: ConnId) {
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return };
        let paused_until = outlet.state.paused_until().unwrap_or(u64::MAX);
        let wanted = outlet.state.deadline_at().min(paused_until);
        let armed = outlet.state.deadline_key();
        let key = self.shared.timers.sync(armed, wanted, TimerOwner::Deadline(id));
        outlet.state.put_deadline(key);
    }

    pub(super) fn list_datagrams(&mut self, id: ConnId) {
        if let Some(outlet) = self.table.outlets.get_mut(&id) {
            outlet.list(&mut self.ready, &mut self.bulk);
        }
    }

    // ---- what others ask for ----------------------------------------------------------------

    /// Closes or aborts a socket; an id that is none is stale.
    pub(super) fn wish_datagrams(&mut self, id: ConnId, wish: impl FnOnce(&mut State)) {
        match self.table.outlets.get_mut(&id) {
            Some(outlet) => {
                wish(&mut outlet.state);
                // The callback that asks may be the socket's own: its other requests come later.
                let tick = self.shared.clock.tick();
                outlet.state.handle_wishes(&mut self.shared.metrics, tick);
                self.settle_datagrams(id);
            }
            None => self.shared.metrics.stale += 1,
        }
    }

    pub(super) fn deliver_to_datagrams(&mut self, to: ConnId, note: Note) {
        let Some(outlet) = self.table.outlets.get_mut(&to) else {
            self.shared.metrics.stale += 1;
            drop_guarded(note);
            return;
        };
        if let Err(note) = outlet.state.handle_note(note) {
            self.shared.metrics.refused_notes += 1;
            drop_guarded(note);
        }
        self.list_datagrams(to);
    }

    /// What is due for a socket makes it look first: see `due.rs`.
    pub(super) fn try_datagrams(&mut self, id: ConnId) {
        if let Some(outlet) = self.table.outlets.get_mut(&id) {
            outlet.state.handle_ready(true, true);
            outlet.list(&mut self.ready, &mut self.bulk);
        }
    }

    /// Whether a timer has to wait for a later turn, as not all that had come was shown in this
    /// one. A deadline is judged by when a datagram has last come.
    pub(super) fn put_off_datagrams(&mut self, owner: TimerOwner, key: TimerKey, at: u64) -> bool {
        let TimerOwner::Protocol(id, timer) = owner else { return false };
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return false };
        let state = &mut outlet.state;
        let waits = state.has_timer(timer, key) && state.note_waiting(state.may_read());
        if waits {
            let key = self.shared.timers.put_back(at, owner, key);
            state.put_timer(timer, key);
        }
        waits
    }

    /// A timer of a protocol is due. It may have been cancelled or set again since it was taken
    /// out.
    pub(super) fn fire_datagrams(&mut self, id: ConnId, timer: Timer, key: TimerKey) {
        let Some(outlet) = self.table.outlets.get_mut(&id) else {
            self.shared.metrics.stale += 1;
            return;
        };
        if !outlet.state.has_timer(timer, key) {
            return;
        }
        outlet.state.take_timer(timer);
        if outlet.state.may_call() {
            self.shared.metrics.timers += 1;
            outlet.called(&mut self.shared).timeout(timer);
            self.settle_datagrams(id);
        }
    }

    pub(super) fn check_datagram_deadline(&mut self, id: ConnId, key: TimerKey) {
        let now = self.shared.clock.tick();
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return };
        if outlet.state.deadline_key() != Some(key) {
            return;
        }
        outlet.state.put_deadline(None);
        outlet.state.handle_stamps(|stamp| self.long_turns.latest(stamp));
        outlet.state.handle_retry(now);
        if outlet.state.may_read() && outlet.state.is_overdue(now) {
            // It has not had its turn to look, or a pause is over: what it finds may put the
            // deadline off.
            let key = self.shared.timers.arm(now, TimerOwner::Deadline(id));
            outlet.state.put_deadline(Some(key));
            return self.list_datagrams(id);
        }
        if outlet.state.handle_deadline(now) {
            self.shared.metrics.timers += 1;
        }
        self.settle_datagrams(id);
    }

    /// The driver stops, or has waited long enough.
    pub(super) fn stop_datagrams(&mut self, over: bool) {
        let ids: Vec<ConnId> = self.table.outlets.keys().copied().collect();
        for id in ids {
            if let Some(outlet) = self.table.outlets.get_mut(&id) {
                if over {
                    outlet.state.end(By::Runtime, CloseKind::Shutdown, None);
                } else {
                    outlet.state.handle_shutdown();
                }
            }
            self.settle_datagrams(id);
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    fn tell_datagrams_closed(&mut self, id: ConnId) {
        let now = self.shared.clock.exact();
        let Some(outlet) = self.table.outlets.get_mut(&id) else { return };
        let Some(reason) = outlet.state.decided(now) else { return };
        let peer = outlet.state.options().connect.unwrap_or(crate::endpoint::Endpoint::Other);
        // The error in the reason is the user's, also in how it is displayed and dropped.
        let _ = guarded(|| log::debug!(target: "lariat::close", "{id}: {reason}"));
        outlet.called(&mut self.shared).closed(&reason);
        self.shared.note_end(id, &reason);
        self.system.ended(id, peer, &reason);
        self.apply_driver_effects();
        let Some(outlet) = self.table.remove_outlet(id) else { return };
        let Outlet { state, protocol, .. } = *outlet;
        if let Some(key) = state.deadline_key() {
            self.shared.timers.cancel(key);
        }
        self.shared.ids.release(id);
        self.shared.metrics.closes.count(reason.kind());
        self.count_drained(reason.unsent());
        drop_protocol(protocol, &mut self.shared.metrics);
        drop_guarded((state, reason));
    }
}
