//! Connections and datagram sockets enter a driver, and leave it.

use std::sync::Arc;

use super::bell::lock;
use super::cell::{Cell, Signal};
use super::hub::Hub;
use super::outlet::Outlet;
use crate::admission::Place;
use crate::id::ConnId;
use crate::reason::CloseReason;

/// How a connection was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Welcome,
    TooMany,
    /// The driver is stopping.
    Late,
}

impl Hub {
    // ---- connections -------------------------------------------------------------------------

    pub(super) fn cell(&self, id: ConnId) -> Option<Arc<Cell>> {
        lock(&self.state).cells.get(&id).cloned()
    }

    /// Enters a connection that was asked for or adopted, also when there are too many.
    pub(super) fn enter_asked(&self, cell: &Arc<Cell>, adopted: bool) -> Entered {
        let mut state = lock(&self.state);
        state.metrics.connects += u64::from(!adopted);
        state.metrics.accepted += u64::from(adopted);
        let full = state.place() != Place::Free;
        state.open += 1;
        if adopted {
            state.pool.claim();
        }
        state.cells.insert(cell.id, Arc::clone(cell));
        if let Some(early) = state.early.remove(&cell.id) {
            for post in early.posts {
                // Nobody has closed its mail yet.
                let _ = cell.deliver(post);
            }
            if early.abort {
                cell.signal(Signal::Abort);
            }
        }
        if state.draining || self.is_stopping() {
            Entered::Late
        } else if full {
            Entered::TooMany
        } else {
            Entered::Welcome
        }
    }

    /// Enters an accepted connection, which has its place.
    pub(super) fn enter_claimed(&self, cell: &Arc<Cell>) {
        let mut state = lock(&self.state);
        state.metrics.accepted += 1;
        state.cells.insert(cell.id, Arc::clone(cell));
        if state.draining {
            cell.signal(Signal::Stop);
        }
        if state.drain_over {
            // All others have been ended while its factory ran.
            cell.signal(Signal::End);
        }
    }

    /// A connection lingers: it no longer counts against the maximum. When too many do, the oldest
    /// is returned, to be ended.
    pub(super) fn linger(&self, id: ConnId) -> Option<ConnId> {
        let mut state = lock(&self.state);
        state.open -= 1;
        state.admission.leave(id);
        state.lingering += 1;
        state.lingerers.push_back(id);
        self.tell_acceptors(&state);
        let too_many = state.lingerers.len() > self.limits.lingering_max;
        if too_many { state.lingerers.pop_front() } else { None }
    }

    /// From now on the id is stale.
    pub(super) fn release(&self, id: ConnId) {
        let mut ids = lock(&self.ids);
        if ids.is_current(id) {
            ids.release(id);
            ids.end_turn();
        }
    }

    /// A connection has ended: its place is free, also for what its `closed` begins.
    pub(super) fn free_place(&self, id: ConnId, lingered: bool) {
        let mut state = lock(&self.state);
        if lingered {
            state.lingering -= 1;
            state.lingerers.retain(|lingerer| *lingerer != id);
        } else {
            state.open -= 1;
            state.admission.leave(id);
        }
        self.tell_acceptors(&state);
    }

    /// Removes a connection whose `closed` has run, and whose place is free.
    pub(super) fn leave(&self, id: ConnId, unsent: u64) {
        // First, so that no request is left for an id that is gone.
        self.release(id);
        let mut state = lock(&self.state);
        if state.cells.remove(&id).is_none() {
            return;
        }
        state.count_left(self.is_stopping(), unsent);
        self.tell_runner(&state);
    }

    // ---- datagram sockets --------------------------------------------------------------------

    pub(super) fn outlet(&self, id: ConnId) -> Option<Arc<Outlet>> {
        lock(&self.state).outlets.get(&id).cloned()
    }

    /// Takes a place for a datagram socket; false when there is none.
    pub(super) fn take_place(&self) -> bool {
        let mut state = lock(&self.state);
        let free = state.place() == Place::Free;
        state.bound += u64::from(free);
        free
    }

    /// A datagram socket has no descriptor any more, and no place.
    pub(super) fn give_place(&self) {
        let mut state = lock(&self.state);
        state.bound -= 1;
        state.admission.note_released();
        self.tell_acceptors(&state);
    }

    /// Enters a datagram socket, with what was asked of it before.
    pub(super) fn enter_outlet(&self, outlet: &Arc<Outlet>) {
        let mut state = lock(&self.state);
        state.metrics.binds += 1;
        let early = state.early.remove(&outlet.id).unwrap_or_default();
        let (draining, drain_over) = (state.draining, state.drain_over);
        // Its threads have not begun, and will look.
        outlet.ask_first(|requests| {
            requests.posts = early.posts;
            requests.abort = early.abort;
            requests.stop = draining;
            requests.end = drain_over;
        });
        state.outlets.insert(outlet.id, Arc::clone(outlet));
    }

    /// Removes a datagram socket that has been told `closed`.
    pub(super) fn leave_outlet(&self, id: ConnId, unsent: u64) {
        // First, so that no request is left for an id that is gone.
        self.release(id);
        let mut state = lock(&self.state);
        if state.outlets.remove(&id).is_some() {
            state.count_left(self.is_stopping(), unsent);
            self.tell_runner(&state);
        }
    }

    /// The end of a connection, for the thread that waits for it.
    pub(super) fn note_end(&self, id: ConnId, reason: &CloseReason) {
        if let Some(watched) = lock(&self.watched).as_mut().filter(|watched| watched.id == id) {
            watched.reason = Some(reason.clone());
        }
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::blocking::outlet::Inside;
    use crate::clock::{Clock, Readings};
    use crate::connection::{Connection, Flags};
    use crate::endpoint::Endpoint;
    use crate::limits::DriverLimits;
    use crate::protocol::{Context, Input, Outcome, Protocol};

    struct Nobody;

    impl Protocol for Nobody {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }

    #[test]
    fn a_connection_that_comes_when_the_drain_is_over_ends_like_the_others() {
        let readings = Readings { monotonic: Instant::now, wall: SystemTime::now };
        let hub = Hub::new(Clock::system(readings), DriverLimits::default(), |_, _, _| ());
        for (drain_over, ends) in [(false, false), (true, true)] {
            let mut state = lock(&hub.state);
            (state.draining, state.drain_over) = (true, drain_over);
            drop(state);
            let id = lock(&hub.ids).reserve();
            let conn = Connection::accepted(id, None, Endpoint::Other, Arc::default(), 0);
            let cell = Cell::new(id, conn, Box::new(Nobody), None);
            hub.enter_claimed(&cell);
            let mut member = lock(&cell.member);
            assert!(cell.has_requests());
            // Its `stopping` may come first.
            while !cell.take_signals(&mut member.conn).is_empty() {}
            assert_eq!(member.conn.flags().any(Flags::CLOSING | Flags::ENDED), ends);
        }
    }

    #[test]
    fn a_datagram_socket_that_comes_when_the_drain_is_over_ends_like_the_others() {
        let readings = Readings { monotonic: Instant::now, wall: SystemTime::now };
        let hub = Hub::new(Clock::system(readings), DriverLimits::default(), |_, _, _| ());
        for (draining, drain_over) in [(false, false), (true, false), (true, true)] {
            let mut state = lock(&hub.state);
            (state.draining, state.drain_over) = (draining, drain_over);
            drop(state);
            let id = lock(&hub.ids).reserve();
            let state = crate::datagram::State::new(id, Arc::default(), 0);
            let outlet = Outlet::new(id, Inside::new(state, None, None));
            hub.enter_outlet(&outlet);
            let requests = outlet.take_requests();
            assert_eq!((requests.stop, requests.end), (draining, drain_over));
        }
    }

    #[test]
    fn a_connection_that_has_ended_takes_no_place_among_those_that_linger() {
        let readings = Readings { monotonic: Instant::now, wall: SystemTime::now };
        let limits = DriverLimits { lingering_max: 2, ..DriverLimits::default() };
        let hub = Hub::new(Clock::system(readings), limits, |_, _, _| ());
        let enter = || {
            let id = lock(&hub.ids).reserve();
            let conn = Connection::accepted(id, None, Endpoint::Other, Arc::default(), 0);
            hub.enter_claimed(&Cell::new(id, conn, Box::new(Nobody), None));
            lock(&hub.state).open += 1;
            id
        };
        let ids: Vec<ConnId> = (0..5).map(|_| enter()).collect();
        assert_eq!([hub.linger(ids[0]), hub.linger(ids[1])], [None, None]);
        hub.free_place(ids[1], true);
        hub.leave(ids[1], 0);
        assert_eq!(hub.linger(ids[2]), None, "two of them linger");
        assert_eq!(hub.linger(ids[3]), Some(ids[0]), "the oldest goes");
        hub.free_place(ids[0], true);
        hub.leave(ids[0], 0);
        assert_eq!(hub.linger(ids[4]), Some(ids[2]));
        assert_eq!(lock(&hub.state).lingering, 3);
    }
}
