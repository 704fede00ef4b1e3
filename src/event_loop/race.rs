//! A connect with several addresses (RFC 8305): one after the other, 250 ms apart, until one
//! answers. All sockets have the id of the connection, so an event says only that one of them may
//! have something to tell.

use std::collections::VecDeque;
use std::io;
use std::mem;

use super::EventLoop;
use super::system::{Stream, System};
use crate::address::ATTEMPT_DELAY;
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::options::{Dial, SocketOptions};
use crate::protocol::{Effect, RaceEvent, TimerId};
use crate::reason::{AddressErrors, By, Cause, CloseKind, ConnectFailure, Deadline};

/// A connect that has not chosen its socket.
pub(super) struct Race<S> {
    options: SocketOptions,
    /// Addresses that have not been tried.
    waiting: VecDeque<Endpoint>,
    /// Sockets that have not answered.
    running: Vec<(Endpoint, S)>,
    failed: AddressErrors,
    /// Starts the next one.
    next: Option<TimerId>,
}

impl<S> Race<S> {
    pub(super) fn new(options: SocketOptions, waiting: VecDeque<Endpoint>) -> Race<S> {
        let failed = AddressErrors::default();
        Race { options, waiting, running: Vec::new(), failed, next: None }
    }

    /// Whether there is an address.
    fn has_begun(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty() || self.failed.iter().next().is_some()
    }

    /// Why a connect failed that was still waiting for answers.
    fn into_errors(self) -> AddressErrors {
        let mut failed = self.failed;
        failed.push_late(self.running.iter().map(|(addr, _)| *addr), self.waiting);
        failed
    }
}

impl<S: System> EventLoop<S> {
    pub(super) fn handle_race(&mut self, id: ConnId, event: RaceEvent) {
        let Some(race) = self.races.get_mut(&id) else { return };
        match event {
            RaceEvent::Next => race.next = None,
            RaceEvent::Found(job, found) => {
                if let Some(entry) = self.table.get_mut(id) {
                    entry.conn.end_job(job);
                }
                match found {
                    Ok(found) => race.waiting = found,
                    Err(error) => return self.fail_lookup(id, error),
                }
            }
        }
        self.try_next(id);
        self.finish(id);
    }

    fn fail_lookup(&mut self, id: ConnId, error: io::Error) {
        self.races.remove(&id);
        let Some(entry) = self.table.get_mut(id) else { return };
        log::debug!(target: "lariat::connect", "{error}");
        let kind = CloseKind::Connect(ConnectFailure::Name);
        entry.conn.end(By::Runtime, kind, Some(Cause::new(error)));
        self.finish(id);
    }

    /// Tries the next address that a socket can be opened for. Without any left, and without an
    /// answer to wait for, the connect has failed.
    pub(super) fn try_next(&mut self, id: ConnId) {
        while let Some(race) = self.races.get_mut(&id) {
            let Some(to) = race.waiting.pop_front() else {
                if race.running.is_empty() {
                    self.lose_race(id);
                }
                return;
            };
            let options = race.options;
            let started = self.start_connect(&Dial { to, options }, id);
            let Some(race) = self.races.get_mut(&id) else { return };
            match started {
                Ok(stream) => {
                    race.running.push((to, stream));
                    if !race.waiting.is_empty() {
                        race.next = Some(self.shared.set_closure(
                            ATTEMPT_DELAY,
                            Box::new(move |control| {
                                let event = Box::new(RaceEvent::Next);
                                control.shared_mut().effects.list.push(Effect::Race(id, event));
                            }),
                        ));
                    }
                    return;
                }
                Err(error) => race.failed.push(to, error),
            }
        }
    }

    /// One of the sockets may be connected, or have failed.
    pub(super) fn judge_race(&mut self, id: ConnId) {
        let tick = self.shared.clock.tick();
        let Some(race) = self.races.get_mut(&id) else { return };
        let (mut winner, mut failures) = (None, false);
        for (addr, mut stream) in mem::take(&mut race.running) {
            if winner.is_some() {
                // Dropped: one answer is enough.
                continue;
            }
            match check(&mut stream) {
                Ok(true) => winner = Some((addr, stream)),
                Ok(false) => race.running.push((addr, stream)),
                Err(error) => {
                    log::debug!(target: "lariat::connect", "{addr}: {error}");
                    race.failed.push(addr, error);
                    failures = true;
                }
            }
        }
        let Some(entry) = self.table.get_mut(id) else { return };
        if let Some((addr, stream)) = winner {
            entry.conn.handle_race_won(addr, tick);
            entry.stream = Some(stream);
            self.end_race(id);
            return self.ask_for_filter(id, false);
        }
        entry.conn.handle_write_blocked();
        entry.conn.handle_fault_seen();
        if failures {
            // The next address does not wait for its time.
            self.stop_waiting(id);
            self.try_next(id);
        }
    }

    /// Every address has failed.
    fn lose_race(&mut self, id: ConnId) {
        let Some(race) = self.end_race(id) else { return };
        let Some(entry) = self.table.get_mut(id) else { return };
        let (by, kind, cause) = race.failed.into_end();
        entry.conn.end(by, kind, cause);
    }

    /// The connection has ended, or has its socket: the sockets that are left are closed.
    fn end_race(&mut self, id: ConnId) -> Option<Race<S::Stream>> {
        self.stop_waiting(id);
        self.races.remove(&id)
    }

    fn stop_waiting(&mut self, id: ConnId) {
        if let Some(next) = self.races.get_mut(&id).and_then(|race| race.next.take()) {
            self.shared.cancel_closure(next);
        }
    }

    /// A connection has ended before it had a socket. If nothing answered in time, its reason says
    /// what became of each address. False when there was no race.
    pub(super) fn give_up_race(&mut self, id: ConnId) -> bool {
        let Some(race) = self.end_race(id) else { return false };
        if let Some(entry) = self.table.get_mut(id) {
            if entry.conn.has_timed_out(Deadline::Connect) && race.has_begun() {
                entry.conn.put_cause(Cause::new(race.into_errors()));
            }
        }
        true
    }
}

/// Whether a socket is connected; false while that is open.
fn check<S: Stream>(stream: &mut S) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.check_connected() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        other => other.map(|()| true),
    }
}
