//! A connect with several addresses (RFC 8305), on threads: each attempt has a thread, which sleeps
//! in `connect`, and the connection's own thread waits for the first that answers.
//!
//! Nothing wakes a thread out of `connect`. So one whose address never answers is bound until the
//! deadline of the connect, also when another attempt was quicker, and counts towards the threads
//! of the driver. At most three attempts are under way at a time: where so many addresses never
//! answer, those behind them are not tried.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::bell::lock;
use super::cell::{Cell, Member};
use super::due::PATIENCE;
use super::hub::Hub;
use super::pool::Job;
use super::system;
use super::worker::Worker;
use crate::connection::Flags;
use crate::options::Dial;
use crate::protocol::RaceEvent;
use crate::reason::{By, Cause, CloseKind, ConnectFailure, Deadline, is_late, no_answer};

/// What the connection's own thread does next.
enum Step {
    /// Try this, for so long.
    Try(Box<Dial>, Duration),
    Wait(u64),
    Over,
}

impl Worker<'_> {
    /// Connects to one of several addresses. Afterwards the connection is open, or has ended.
    pub(super) fn race(&mut self) {
        let (hub, cell) = (self.hub, self.cell);
        loop {
            match self.race_step() {
                Step::Try(dial, most) => {
                    hub.begin(Job::Attempt(Arc::downgrade(cell), dial, most));
                }
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
            cell.socket.set(socket);
            conn.put_peer(addr);
            conn.handle_connected(now);
            self.ask_for_filter(&mut member, false);
            return Step::Over;
        }
        let deadline = conn.poll_deadline();
        if now >= deadline {
            // A process that was stopped may have a connection of which no thread has told. Else
            // attempts end with their deadline.
            let patience = deadline.saturating_add(PATIENCE);
            if running.is_under_way() && now < patience {
                return Step::Wait(patience);
            }
            conn.end(By::Runtime, CloseKind::TimedOut(Deadline::Connect), None);
            drop(member);
            return self.race_step();
        }
        if let Some(to) = running.take_next(now) {
            let most = Duration::from_nanos(deadline - now);
            let dial = Dial { to, options: running.options };
            return Step::Try(Box::new(dial), most);
        }
        if running.is_lost() {
            let (by, kind, cause) = running.take_errors().into_end();
            *race = None;
            conn.end(by, kind, cause);
            return Step::Over;
        }
        Step::Wait(deadline.min(running.next()))
    }
}

/// Makes one attempt, on this thread, and says how it went. A socket that nobody waits for any more
/// is closed.
pub(super) fn attempt(hub: &Hub, cell: &Weak<Cell>, dial: &Dial, most: Duration) {
    hub.thread_away();
    let result = system::connect(dial, most);
    hub.thread_back();
    let result = result.map_err(|error| if is_late(&error) { no_answer() } else { error });
    if let Some(cell) = cell.upgrade() {
        cell.answer(dial.to, result);
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
            match found {
                Ok(found) => running.found(found),
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
