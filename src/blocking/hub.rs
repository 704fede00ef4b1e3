//! What the threads of a blocking driver share: who is there, who is wanted, what is to stop.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::alarms::Alarms;
use super::cell::{Cell, Signal};
use super::counters::Counters;
use super::system::{self, TcpListener};
use crate::admission::{Admission, Place};
use crate::clock::Clock;
use crate::driver::Report;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::guard::drop_guarded;
use crate::handle::{Post, Remote};
use crate::id::{ConnId, IdSource, Ids, ListenerId};
use crate::limits::{DriverLimits, OutputMax};
use crate::metrics::Metrics;
use crate::options::ListenOptions;
use crate::protocol::{Binder, Bound, Common, Listeners, SendClosure, Shared, Watched};
use crate::reason::CloseReason;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Locks, also when a thread panicked while it held the lock: user code runs under a guard of its
/// own, so that nothing is half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One driver's shared state.
pub(super) struct Hub {
    pub(super) clock: Clock,
    pub(super) limits: DriverLimits,
    pub(super) outputs: OutputMax,
    pub(super) ids: Arc<Mutex<Ids>>,
    pub(super) state: Mutex<State>,
    /// Anything in the state has changed that somebody may wait for.
    pub(super) changed: Condvar,
    /// Shutdown has begun; asked for by every callback, so outside of the lock.
    stopping: AtomicBool,
    pub(super) listeners: Listeners,
    /// Whether accepted connections are served by the thread that accepts them.
    pub(super) serial: AtomicBool,
    /// Requests of handles that nobody has taken yet.
    posted: AtomicUsize,
    pub(super) watched: Mutex<Option<Watched>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) cells: BTreeMap<ConnId, Arc<Cell>>,
    /// Connections that count against the maximum.
    pub(super) open: u64,
    lingering: usize,
    /// Those that linger, the oldest first.
    lingerers: VecDeque<ConnId>,
    pub(super) listeners: Vec<Listening>,
    pub(super) admission: Admission,
    /// Threads of acceptors.
    pub(super) acceptors: usize,
    /// Threads of connections, without those that are away in a connect.
    pub(super) threads: usize,
    /// Closures for the thread that calls `run`.
    pub(super) calls: VecDeque<Call>,
    /// Requests for connections that have an id, but have not been entered.
    early: BTreeMap<ConnId, Early>,
    /// The counters of running threads, and of those that have ended.
    workers: Vec<Arc<Counters>>,
    pub(super) metrics: Metrics,
    pub(super) keep_running: bool,
    /// Timers of the driver.
    pub(super) alarms: Alarms,
    /// Every connection has been told that the driver stops; those to come have to be told as well.
    pub(super) draining: bool,
    pub(super) drain_over: bool,
    pub(super) ended: bool,
    pub(super) report: Report,
}

#[derive(Default)]
struct Early {
    posts: Vec<Post>,
    abort: bool,
}

/// A closure of a handle's.
pub(super) type Call = SendClosure;

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
        let mut state = lock(&self.0.state);
        state.threads -= 1;
        state.admission.note_released();
        drop(state);
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

    /// Wakes the thread out of `accept`.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        system::wake_accept(&self.listener);
    }
}

impl Hub {
    pub(super) fn new(clock: Clock, limits: DriverLimits) -> Hub {
        let state = State { admission: Admission::new(&limits), ..State::default() };
        Hub {
            clock: clock.unkept(),
            limits,
            outputs: OutputMax::default(),
            ids: Arc::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            listeners: Listeners::default(),
            serial: AtomicBool::new(false),
            posted: AtomicUsize::new(0),
            watched: Mutex::default(),
        }
    }

    /// What opens listening sockets, which threads sleep in.
    pub(super) fn binder(&self) -> Binder {
        let bind = |addr, options: &ListenOptions| {
            let listener = system::listen(addr, options)?;
            Ok(Bound { addr: listener.local_addr()?.into(), socket: Box::new(listener) })
        };
        Binder::new(self.listeners.clone(), Box::new(bind))
    }

    /// What one thread lends to the code that it calls.
    pub(super) fn shared(self: &Arc<Hub>, seed: u64) -> Shared {
        let binder = self.binder();
        let ids = IdSource::Common(Arc::clone(&self.ids));
        let mut shared = Shared::new(self.clock.clone(), ids, seed, binder);
        shared.outputs = self.outputs.clone();
        shared.blame.limit = self.limits.slow_callback.map_or(u64::MAX, crate::clock::nanos);
        shared.common = Some(Arc::clone(self) as Arc<dyn Common>);
        shared
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
        let full = state.admission.place(state.open) != Place::Free;
        state.open += 1;
        state.cells.insert(cell.id, Arc::clone(cell));
        if let Some(early) = state.early.remove(&cell.id) {
            for post in early.posts {
                // Nobody has closed its mail yet.
                let _ = cell.deliver(post);
            }
            if early.abort {
                cell.signal_end(Signal::Abort);
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
        drop(state);
        self.forget(id);
        self.changed.notify_all();
    }

    /// An id whose connection is gone, or never was.
    pub(super) fn forget(&self, id: ConnId) {
        let mut ids = lock(&self.ids);
        if ids.is_current(id) {
            ids.release(id);
            ids.end_turn();
        }
        drop(ids);
        let early = lock(&self.state).early.remove(&id);
        self.drop_posts(early.unwrap_or_default().posts);
    }

    /// The end of a connection, for whoever waits for it.
    pub(super) fn note_end(&self, id: ConnId, reason: &CloseReason) {
        if let Some(watched) = lock(&self.watched).as_mut().filter(|watched| watched.id == id) {
            watched.reason = Some(reason.clone());
        }
    }

    // ---- requests of handles -----------------------------------------------------------------

    /// Takes a request of a handle, or says why not. What `make` makes is the user's: no lock that
    /// is held here is ever held while user code runs.
    pub(super) fn post(self: &Arc<Hub>, make: &mut dyn FnMut() -> Option<Post>) -> Result<()> {
        let state = lock(&self.state);
        if state.ended {
            return Err(Error::new(ErrorKind::Stopped, Op::Post));
        }
        if self.posted.load(Ordering::Acquire) >= self.limits.posts_max {
            return Err(Error::new(ErrorKind::Full, Op::Post));
        }
        if let Some(post) = make() {
            self.place(state, post);
        }
        Ok(())
    }

    /// Takes a request of code outside of `run`, of which there may be any number.
    pub(super) fn take_post(self: &Arc<Hub>, post: Post) {
        self.place(lock(&self.state), post);
    }

    fn place(self: &Arc<Hub>, mut state: MutexGuard<'_, State>, post: Post) {
        self.posted.fetch_add(1, Ordering::AcqRel);
        let to = match post {
            Post::Call(call) => {
                state.calls.push_back(call);
                drop(state);
                return self.changed.notify_all();
            }
            Post::Write { to, .. } | Post::Notify { to, .. } => to,
            Post::ShutdownWrite(to) | Post::Close(to) => to,
        };
        match state.cells.get(&to).cloned() {
            Some(cell) => {
                let back = cell.deliver(post).err();
                drop(state);
                self.drop_posts(back);
                self.carry_mail(&cell);
                cell.nudge(self);
            }
            None if lock(&self.ids).is_current(to) => {
                state.early.entry(to).or_default().posts.push(post);
            }
            None => {
                drop(state);
                self.drop_posts([post]);
            }
        }
    }

    /// Requests have been taken.
    pub(super) fn count_taken(&self, count: usize) {
        self.posted.fetch_sub(count, Ordering::AcqRel);
    }

    /// Requests for a connection that is gone. No lock is held.
    pub(super) fn drop_posts(&self, posts: impl IntoIterator<Item = Post>) {
        for post in posts {
            self.count_taken(1);
            self.count(|metrics| metrics.stale += 1);
            drop_guarded(post);
        }
    }

    /// From now on nothing is taken.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        let calls = mem::take(&mut state.calls);
        let early = mem::take(&mut state.early);
        let alarms = state.alarms.take_all();
        drop(state);
        for closure in alarms {
            drop_guarded(closure);
        }
        for call in calls {
            self.count_taken(1);
            drop_guarded(call);
        }
        self.drop_posts(early.into_values().flat_map(|early| early.posts));
    }

    pub(super) fn abort(self: &Arc<Hub>, id: ConnId) {
        let mut state = lock(&self.state);
        if let Some(cell) = state.cells.get(&id).cloned() {
            drop(state);
            cell.signal_end(Signal::Abort);
            cell.nudge(self);
        } else if lock(&self.ids).is_current(id) {
            state.early.entry(id).or_default().abort = true;
        } else {
            state.metrics.stale += 1;
        }
    }

    // ---- listeners ---------------------------------------------------------------------------

    /// Enters a listener; false when the driver stops, or it was stopped since it was made.
    pub(super) fn add_listener(&self, id: ListenerId, sockets: Vec<Arc<Socket>>) -> bool {
        // Under the lock: whoever stops looks at the list after it has said so.
        let mut state = lock(&self.state);
        if self.is_stopping() || !self.listeners.has(id) {
            self.listeners.remove(id);
            return false;
        }
        state.listeners.push(Listening { id, sockets });
        true
    }

    pub(super) fn stop_listening(&self, id: ListenerId) {
        self.listeners.remove(id);
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

    pub(super) fn stop_all_listening(&self) {
        let listeners: Vec<ListenerId> = lock(&self.state).listeners.iter().map(|l| l.id).collect();
        for id in listeners {
            self.stop_listening(id);
        }
    }

    pub(super) fn acceptor_started(&self) {
        lock(&self.state).acceptors += 1;
    }

    pub(super) fn acceptor_ended(&self) {
        lock(&self.state).acceptors -= 1;
        self.note_released();
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

    pub(super) fn add_worker(&self) -> Arc<Counters> {
        let published = Arc::new(Counters::default());
        lock(&self.state).workers.push(Arc::clone(&published));
        published
    }

    pub(super) fn remove_worker(&self, published: &Arc<Counters>) {
        let mut state = lock(&self.state);
        state.workers.retain(|worker| !Arc::ptr_eq(worker, published));
        state.metrics.add(&published.read());
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Metrics)) {
        count(&mut lock(&self.state).metrics);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let state = lock(&self.state);
        let mut metrics = state.metrics.clone();
        for worker in &state.workers {
            metrics.add(&worker.read());
        }
        metrics.open = state.open;
        metrics.lingering = state.lingering as u64;
        metrics.age = Duration::from_nanos(self.clock.exact());
        metrics
    }

    // ---- running and stopping ----------------------------------------------------------------

    /// Tells every connection.
    pub(super) fn signal_all(self: &Arc<Hub>, signal: impl Fn(&Cell)) {
        let cells: Vec<Arc<Cell>> = lock(&self.state).cells.values().cloned().collect();
        // All of them before anyone acts on it: whoever closes at once may be another's peer, which
        // would hear the FIN before its own signal.
        for cell in &cells {
            signal(cell);
        }
        for cell in cells {
            cell.nudge(self);
        }
    }

    pub(super) fn shutdown(&self) {
        self.stopping.store(true, Ordering::Release);
        // Under the lock, so that nobody is between looking and waiting.
        drop(lock(&self.state));
        self.changed.notify_all();
    }
}

#[cfg(all(test, lariat_model))]
impl Hub {
    pub(super) fn has_no_threads(&self) -> bool {
        let state = lock(&self.state);
        state.workers.is_empty() && state.threads == 0 && state.acceptors == 0
    }

    /// Nothing is left of any connection or request.
    #[track_caller]
    pub(super) fn check_empty(&self) {
        let state = lock(&self.state);
        assert!(state.cells.is_empty() && state.lingerers.is_empty(), "connections are left");
        assert!(state.early.is_empty() && state.calls.is_empty(), "requests are left");
        drop(state);
        assert_eq!(self.posted.load(Ordering::SeqCst), 0, "requests are counted, but gone");
    }
}

/// The remote keeps the hub, not the other way round.
pub(super) struct HubRemote(pub(super) Arc<Hub>);

impl Remote for HubRemote {
    fn post(&self, make: &mut dyn FnMut() -> Option<Post>) -> Result<()> {
        self.0.post(make)
    }

    fn abort(&self, id: ConnId) {
        self.0.abort(id);
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn metrics(&self) -> Metrics {
        self.0.metrics()
    }

    fn is_ended(&self) -> bool {
        lock(&self.0.state).ended
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;
    use crate::clock::Readings;

    #[test]
    fn c5_a_poisoned_lock_does_not_stop_the_driver() {
        let readings =
            Readings { monotonic: std::time::Instant::now, wall: std::time::SystemTime::now };
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
        remote.post(&mut || Some(Post::Close(id))).unwrap();
        remote.shutdown();
        assert_eq!(super::super::runner::Runner::new(&hub).run(), Report::default());
        assert!(remote.is_ended());
    }
}
