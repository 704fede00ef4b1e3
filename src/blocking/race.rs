//! A connect with several addresses (RFC 8305), on threads: each attempt has a thread, which sleeps
//! in `connect`, and the connection's own thread waits for the first that answers.
//!
//! Nothing wakes a thread out of `connect`. So one whose address never answers is bound until the
//! deadline of the connect, also when another attempt was quicker, and counts towards the threads
//! of the driver. At most [`ATTEMPTS_MAX`] attempts are under way at a time: where so many
//! addresses never answer, those behind them are not tried.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::bell::lock;
use super::cell::{Cell, Member};
use super::hub::Hub;
use super::pool::Job;
use super::system::{self, Stream};
use super::worker::Worker;
use crate::address::{ATTEMPT_DELAY, Targets};
use crate::clock::nanos;
use crate::connection::Flags;
use crate::endpoint::Endpoint;
use crate::options::{Dial, SocketOptions};
use crate::protocol::RaceEvent;
use crate::reason::{AddressErrors, By, Cause, CloseKind, ConnectFailure, Deadline};

/// Attempts of one connect that may be under way at a time.
const ATTEMPTS_MAX: usize = 3;

/// What a connect is asked for.
pub(super) struct Start {
    pub(super) targets: Targets,
    pub(super) options: SocketOptions,
}

/// A connect that has not chosen its socket.
pub(super) struct Race {
    options: SocketOptions,
    /// Addresses that have not been tried.
    waiting: VecDeque<Endpoint>,
    /// Attempts that have not answered.
    running: Vec<Endpoint>,
    failed: AddressErrors,
    /// Answers that the connection's own thread has not seen.
    answers: Vec<(Endpoint, io::Result<Stream>)>,
    /// Whether the addresses are still being looked up.
    looking_up: bool,
    /// When the next address is tried.
    next: u64,
}

/// One attempt of a race.
pub(super) struct Attempt {
    cell: Arc<Cell>,
    dial: Dial,
    /// How long it may take.
    most: Duration,
}

/// What the connection's own thread does next.
enum Step {
    Try(Attempt),
    Wait(u64),
    Over,
}

impl Race {
    pub(super) fn new(options: SocketOptions, waiting: VecDeque<Endpoint>) -> Race {
        let looking_up = waiting.is_empty();
        Race {
            options,
            waiting,
            running: Vec::new(),
            failed: AddressErrors::default(),
            answers: Vec::new(),
            looking_up,
            next: 0,
        }
    }

    fn answer(&mut self, addr: Endpoint, result: io::Result<Stream>) {
        self.answers.push((addr, result));
    }

    /// Takes in the answers. Returns the first socket that is connected.
    fn judge(&mut self) -> Option<(Endpoint, Stream)> {
        for (addr, result) in self.answers.drain(..) {
            self.running.retain(|running| *running != addr);
            match result {
                Ok(stream) => return Some((addr, stream)),
                Err(error) => {
                    log::debug!(target: "lariat::connect", "{addr}: {error}");
                    self.failed.push(addr, error);
                    // The next address does not wait for its time.
                    self.next = 0;
                }
            }
        }
        None
    }

    fn is_lost(&self) -> bool {
        !self.looking_up && self.waiting.is_empty() && self.running.is_empty()
    }

    /// The address to try at `now`.
    fn take_next(&mut self, now: u64) -> Option<Endpoint> {
        if self.running.len() >= ATTEMPTS_MAX || now < self.next {
            return None;
        }
        let to = self.waiting.pop_front()?;
        self.running.push(to);
        self.next = now.saturating_add(nanos(ATTEMPT_DELAY));
        Some(to)
    }

    /// When there is something to do without an answer.
    fn next(&self) -> u64 {
        let tries = !self.waiting.is_empty() && self.running.len() < ATTEMPTS_MAX;
        if tries { self.next } else { u64::MAX }
    }

    /// Why a connect failed that was still waiting for answers; None while it had no address.
    fn into_errors(self) -> Option<AddressErrors> {
        if self.looking_up {
            return None;
        }
        let late = |what| io::Error::new(io::ErrorKind::TimedOut, what);
        let mut failed = self.failed;
        for addr in self.running {
            failed.push(addr, late("no answer"));
        }
        for addr in self.waiting {
            failed.push(addr, late("not tried in time"));
        }
        Some(failed)
    }
}

impl Worker<'_> {
    /// Connects to one of several addresses. Afterwards the connection is open, or has ended.
    pub(super) fn race(&mut self) {
        let (hub, cell) = (self.hub, self.cell);
        loop {
            match self.race_step() {
                Step::Try(attempt) => hub.begin(Job::Attempt(Box::new(attempt))),
                Step::Wait(until) => {
                    cell.reader.wait(until, &self.desk.shared.clock);
                }
                Step::Over => return,
            }
        }
    }

    fn race_step(&mut self) -> Step {
        let cell = self.cell;
        let mut member = lock(&cell.member);
        // A close that came meanwhile is a cancelled connect.
        self.drive_on(&mut member);
        let now = self.desk.shared.clock.exact();
        let Member { conn, race, .. } = &mut *member;
        let Some(running) = race.as_mut().filter(|_| conn.flags().none(Flags::ENDED)) else {
            let race = race.take();
            if conn.has_timed_out(Deadline::Connect) {
                if let Some(errors) = race.and_then(|race| race.into_errors()) {
                    conn.put_cause(Cause::new(errors));
                }
            }
            return Step::Over;
        };
        if let Some((addr, socket)) = running.judge() {
            *race = None;
            let _ = cell.socket.set(socket);
            conn.put_peer(addr);
            conn.handle_connected(now);
            self.ask_for_filter(&mut member, false);
            return Step::Over;
        }
        let deadline = conn.poll_deadline();
        if now >= deadline {
            conn.end(By::Runtime, CloseKind::TimedOut(Deadline::Connect), None);
            drop(member);
            return self.race_step();
        }
        if let Some(to) = running.take_next(now) {
            let most = Duration::from_nanos(deadline - now);
            let dial = Dial { to, options: running.options };
            return Step::Try(Attempt { cell: Arc::clone(cell), dial, most });
        }
        if running.is_lost() {
            let (by, kind, cause) = std::mem::take(&mut running.failed).into_end();
            *race = None;
            conn.end(by, kind, cause);
            return Step::Over;
        }
        Step::Wait(deadline.min(running.next()))
    }
}

impl Attempt {
    /// Connects, on this thread, and says how it went.
    pub(super) fn run(&self, hub: &Hub) {
        hub.thread_away();
        let result = system::connect(&self.dial, self.most);
        hub.thread_back();
        self.answer(result);
    }

    /// A socket that comes too late is closed.
    pub(super) fn answer(&self, result: io::Result<Stream>) {
        if let Some(race) = lock(&self.cell.member).race.as_mut() {
            race.answer(self.dial.to, result);
        }
        self.cell.reader.call();
    }
}

impl Hub {
    /// The lookup for a connect is over.
    pub(super) fn handle_race(&self, cell: &Cell, event: RaceEvent) {
        let RaceEvent::Found(job, found) = event else { return };
        let mut member = lock(&cell.member);
        let Member { conn, race, .. } = &mut *member;
        conn.end_job(job);
        if let Some(running) = race.as_mut() {
            running.looking_up = false;
            match found {
                Ok(found) => running.waiting = found,
                Err(error) => {
                    *race = None;
                    log::debug!(target: "lariat::connect", "{error}");
                    let name = CloseKind::Connect(ConnectFailure::Name);
                    conn.end(By::Runtime, name, Some(Cause::new(error)));
                }
            }
        }
        drop(member);
        cell.reader.call();
    }
}
