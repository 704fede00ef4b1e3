//! What the threads of a blocking driver share: who is there, who is wanted, what is to stop.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cell::{Cell, Post};
use crate::clock::Clock;
use crate::driver::Report;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::handle::Remote;
use crate::id::{ConnId, Ids, ListenerId};
use crate::limits::{DriverLimits, Overload};
use crate::metrics::Metrics;

/// Locks, also when a thread panicked while it held the lock: user code runs under a guard of its
/// own, so that nothing is half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the end of a run waits for threads that have nothing more to do, or do not come back.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// One driver's shared state.
pub(super) struct Hub {
    pub(super) clock: Clock,
    pub(super) limits: DriverLimits,
    pub(super) ids: Arc<Mutex<Ids>>,
    pub(super) state: Mutex<State>,
    /// Anything in the state has changed that somebody may wait for.
    pub(super) changed: Condvar,
    /// Shutdown has begun; asked for by every callback, so outside of the lock.
    pub(super) stopping: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    cells: BTreeMap<ConnId, Arc<Cell>>,
    /// Connections that count against the maximum.
    open: usize,
    lingering: usize,
    /// Those that linger, the oldest first.
    lingerers: VecDeque<ConnId>,
    listeners: Vec<Listening>,
    next_listener: u32,
    /// Threads of acceptors.
    acceptors: usize,
    /// Threads of connections, without those that are away in a connect.
    threads: usize,
    /// The counters of running threads, and of those that have ended.
    workers: Vec<Arc<Mutex<Metrics>>>,
    pub(super) metrics: Metrics,
    pub(super) keep_running: bool,
    /// Every connection has been told that the driver stops; those to come have to be told as well.
    draining: bool,
    drain_over: bool,
    ended: bool,
    report: Report,
}

/// One call of `listen`.
pub(super) struct Listening {
    pub(super) id: ListenerId,
    pub(super) sockets: Vec<Arc<Socket>>,
}

/// One listening socket, which its acceptor thread sleeps in.
pub(super) struct Socket {
    pub(super) listener: TcpListener,
    stopped: AtomicBool,
}

/// How an outgoing connection was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Welcome,
    TooMany,
    /// The driver is stopping.
    Late,
}

/// A thread of a connection counts for as long as it has one. It goes last: whoever waits for a
/// descriptor finds that of the connection released.
pub(super) struct Presence(Arc<Hub>);

impl Presence {
    pub(super) fn new(hub: &Arc<Hub>) -> Presence {
        lock(&hub.state).threads += 1;
        Presence(Arc::clone(hub))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        lock(&self.0.state).threads -= 1;
        self.0.changed.notify_all();
    }
}

impl Socket {
    pub(super) fn new(listener: TcpListener) -> Socket {
        Socket { listener, stopped: AtomicBool::new(false) }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Wakes the thread out of `accept`: by a shutdown of the socket where that helps, by a
    /// connection to it elsewhere.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let woken = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        if woken.is_err() || !cfg!(target_os = "linux") {
            if let Ok(addr) = self.listener.local_addr() {
                drop(std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1)));
            }
        }
    }
}

impl Hub {
    pub(super) fn new(clock: Clock, limits: DriverLimits) -> Hub {
        Hub {
            clock,
            limits,
            ids: Arc::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    // ---- connections -------------------------------------------------------------------------

    pub(super) fn cell(&self, id: ConnId) -> Option<Arc<Cell>> {
        lock(&self.state).cells.get(&id).cloned()
    }

    /// Enters an outgoing connection, also when there are too many.
    pub(super) fn enter_connect(&self, cell: &Arc<Cell>) -> Entered {
        let mut state = lock(&self.state);
        let full = state.open >= self.limits.connections_max;
        state.open += 1;
        state.cells.insert(cell.id, Arc::clone(cell));
        if state.draining || self.is_stopping() {
            Entered::Late
        } else if full {
            Entered::TooMany
        } else {
            Entered::Welcome
        }
    }

    /// Takes a place for a newcomer, which counts from now on. False when it has to be refused.
    ///
    /// Several listeners and outgoing connections compete for places, so that one seen to be free
    /// before an accept may be taken after it: whoever pauses when it is full waits here once more.
    pub(super) fn claim(&self, socket: &Socket) -> bool {
        let mut state = lock(&self.state);
        while state.open >= self.limits.connections_max {
            if self.limits.overload != Overload::Pause || socket.is_stopped() {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.open += 1;
        true
    }

    /// Gives a place back.
    pub(super) fn unclaim(&self) {
        lock(&self.state).open -= 1;
        self.changed.notify_all();
    }

    /// Enters an accepted connection, which has its place.
    pub(super) fn enter_claimed(&self, cell: &Arc<Cell>) {
        let mut state = lock(&self.state);
        state.metrics.accepted += 1;
        state.cells.insert(cell.id, Arc::clone(cell));
        if state.draining {
            cell.post(Post::Stop);
        }
    }

    /// A connection lingers: it no longer counts against the maximum. When too many do, the oldest
    /// is returned, to be ended.
    pub(super) fn linger(&self, id: ConnId) -> Option<ConnId> {
        let mut state = lock(&self.state);
        state.open -= 1;
        state.lingering += 1;
        state.lingerers.push_back(id);
        self.changed.notify_all();
        let too_many = state.lingerers.len() > self.limits.lingering_max;
        if too_many { state.lingerers.pop_front() } else { None }
    }

    /// Removes a connection that has been told `closed`.
    pub(super) fn leave(&self, id: ConnId, lingered: bool, unsent: u64) {
        let mut state = lock(&self.state);
        if state.cells.remove(&id).is_none() {
            return;
        }
        if lingered {
            state.lingering -= 1;
            state.lingerers.retain(|lingerer| *lingerer != id);
        } else {
            state.open -= 1;
        }
        if state.drain_over {
            state.report.aborted += 1;
            state.report.unsent += unsent;
        } else if self.is_stopping() {
            state.report.drained += 1;
            state.report.unsent += unsent;
        }
        self.forget(id);
        self.changed.notify_all();
    }

    /// An id whose connection never was.
    pub(super) fn forget(&self, id: ConnId) {
        let mut ids = lock(&self.ids);
        if ids.is_current(id) {
            ids.release(id);
            ids.end_turn();
        }
    }

    /// Waits until a newcomer may be accepted, or `socket` has stopped.
    pub(super) fn wait_for_room(&self, socket: &Socket) {
        let mut state = lock(&self.state);
        while state.open >= self.limits.connections_max && !socket.is_stopped() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a descriptor: until something ends, at most for `most`.
    pub(super) fn wait_for_descriptor(&self, most: Duration, socket: &Socket) {
        let state = lock(&self.state);
        if !socket.is_stopped() {
            drop(self.changed.wait_timeout(state, most));
        }
    }

    // ---- listeners ---------------------------------------------------------------------------

    pub(super) fn add_listener(&self, sockets: Vec<Arc<Socket>>) -> ListenerId {
        let mut state = lock(&self.state);
        let id = ListenerId::new(state.next_listener);
        state.next_listener += 1;
        state.listeners.push(Listening { id, sockets });
        id
    }

    pub(super) fn addresses(&self, id: ListenerId) -> Vec<SocketAddr> {
        let state = lock(&self.state);
        let sockets = state.listeners.iter().filter(|l| l.id == id).flat_map(|l| &l.sockets);
        sockets.filter_map(|socket| socket.listener.local_addr().ok()).collect()
    }

    pub(super) fn stop_listening(&self, id: ListenerId) {
        let mut state = lock(&self.state);
        let Some(at) = state.listeners.iter().position(|l| l.id == id) else { return };
        let gone = state.listeners.remove(at);
        drop(state);
        for socket in &gone.sockets {
            socket.stop();
        }
        // Under the lock, so that no acceptor is between looking and waiting for room.
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    pub(super) fn acceptor_started(&self) {
        lock(&self.state).acceptors += 1;
    }

    pub(super) fn acceptor_ended(&self) {
        lock(&self.state).acceptors -= 1;
        self.changed.notify_all();
    }

    // ---- threads -----------------------------------------------------------------------------

    /// A thread of a connection begins to sleep in a call that nothing can wake it from.
    pub(super) fn thread_away(&self) {
        lock(&self.state).threads -= 1;
        self.changed.notify_all();
    }

    pub(super) fn thread_back(&self) {
        lock(&self.state).threads += 1;
    }

    // ---- counters ----------------------------------------------------------------------------

    pub(super) fn add_worker(&self) -> Arc<Mutex<Metrics>> {
        let published = Arc::new(Mutex::new(Metrics::default()));
        lock(&self.state).workers.push(Arc::clone(&published));
        published
    }

    pub(super) fn remove_worker(&self, published: &Arc<Mutex<Metrics>>) {
        let mut state = lock(&self.state);
        state.workers.retain(|worker| !Arc::ptr_eq(worker, published));
        let counted = lock(published).clone();
        state.metrics.add(&counted);
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Metrics)) {
        count(&mut lock(&self.state).metrics);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let state = lock(&self.state);
        let mut metrics = state.metrics.clone();
        for worker in &state.workers {
            metrics.add(&lock(worker));
        }
        metrics.open = state.open as u64;
        metrics.lingering = state.lingering as u64;
        metrics.age = Duration::from_nanos(self.clock.exact());
        metrics
    }

    // ---- running and stopping ----------------------------------------------------------------

    /// Waits until shutdown, or until nothing is left.
    pub(super) fn wait_until_over(&self) {
        let mut state = lock(&self.state);
        loop {
            let idle = state.cells.is_empty() && state.listeners.is_empty() && state.acceptors == 0;
            if self.is_stopping() {
                return;
            }
            if idle && !state.keep_running {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.wait_gone(Some(Instant::now() + LAST_WAIT));
    }

    /// Stops accepting, tells every connection, and waits; what is left after the time to drain is
    /// aborted.
    pub(super) fn drain(self: &Arc<Hub>) -> Report {
        let listeners: Vec<ListenerId> = lock(&self.state).listeners.iter().map(|l| l.id).collect();
        for id in listeners {
            self.stop_listening(id);
        }
        lock(&self.state).draining = true;
        self.post_to_all(Post::Stop);
        let until = Instant::now().checked_add(self.limits.drain);
        self.wait_empty(until);
        lock(&self.state).drain_over = true;
        self.post_to_all(Post::End);
        // Whoever is still in a callback now is not waited for.
        let until = Some(Instant::now() + LAST_WAIT);
        self.wait_empty(until);
        self.wait_gone(until);
        let mut state = lock(&self.state);
        state.ended = true;
        state.report.clone()
    }

    fn post_to_all(self: &Arc<Hub>, post: Post) {
        let cells: Vec<Arc<Cell>> = lock(&self.state).cells.values().cloned().collect();
        for cell in cells {
            cell.post(post);
            cell.nudge(self);
        }
    }

    /// Waits until no connection and no acceptor is left.
    fn wait_empty(&self, until: Option<Instant>) {
        self.wait_while(until, |state| !state.cells.is_empty() || state.acceptors > 0);
    }

    /// Waits until the threads of the connections have let go of everything.
    fn wait_gone(&self, until: Option<Instant>) {
        self.wait_while(until, |state| state.threads > 0);
    }

    fn wait_while(&self, until: Option<Instant>, holds: impl Fn(&State) -> bool) {
        let mut state = lock(&self.state);
        while holds(&state) {
            let Some(until) = until else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn shutdown(&self) {
        self.stopping.store(true, Ordering::Release);
        // Under the lock, so that nobody is between looking and waiting.
        drop(lock(&self.state));
        self.changed.notify_all();
    }
}

/// The remote keeps the hub, not the other way round.
pub(super) struct HubRemote(pub(super) Arc<Hub>);

impl Remote for HubRemote {
    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn close(&self, id: ConnId) -> Result<()> {
        if self.is_ended() {
            return Err(Error::new(ErrorKind::Stopped, Op::Post));
        }
        match self.0.cell(id) {
            Some(cell) => {
                cell.post(Post::Close);
                cell.nudge(&self.0);
            }
            None => self.0.count(|metrics| metrics.stale += 1),
        }
        Ok(())
    }

    fn abort(&self, id: ConnId) {
        match self.0.cell(id) {
            Some(cell) => {
                cell.post(Post::Abort);
                cell.nudge(&self.0);
            }
            None => self.0.count(|metrics| metrics.stale += 1),
        }
    }

    fn is_ended(&self) -> bool {
        lock(&self.0.state).ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Readings;

    #[test]
    fn c5_a_poisoned_lock_does_not_stop_the_driver() {
        let readings = Readings { monotonic: Instant::now, wall: std::time::SystemTime::now };
        let hub = Arc::new(Hub::new(Clock::system(readings), DriverLimits::default()));
        let poisoner = Arc::clone(&hub);
        let result = std::thread::spawn(move || {
            let _state = poisoner.state.lock();
            let _ids = poisoner.ids.lock();
            panic!("poison");
        })
        .join();
        assert!(result.is_err() && hub.state.is_poisoned() && hub.ids.is_poisoned());
        let remote = HubRemote(Arc::clone(&hub));
        let id = lock(&hub.ids).reserve();
        remote.close(id).unwrap();
        remote.shutdown();
        hub.wait_until_over();
        assert_eq!(hub.drain(), Report::default());
        assert!(remote.is_ended());
    }
}
