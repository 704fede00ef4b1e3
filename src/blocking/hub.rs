//! The state that the threads of a blocking driver share: its connections, what each thread waits
//! for, and what has to stop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::alarms::Alarms;
use super::bell::lock;
use super::cell::{Cell, Signal};
use super::counters::Counters;
use super::outlet::Outlet;
use super::pool::{Job, Pool};
use super::system::{self, Listener};
use crate::admission::{Admission, Place};
use crate::clock::Clock;
use crate::driver::Report;
use crate::endpoint::Endpoint;
use crate::episode::CommonEpisode;
use crate::handle::Post;
use crate::id::{ConnId, IdSource, Ids, ListenerId};
use crate::jobs::Threads;
use crate::limits::{DriverLimits, OutputMax};
use crate::metrics::Metrics;
use crate::protocol::{Binder, Common, Home, Listeners, SendClosure, Shared, Watched, Workplace};
use crate::reason::CloseReason;
use crate::resolver::{Resolver, SystemResolver};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// One driver's shared state.
pub(super) struct Hub {
    pub(super) clock: Clock,
    pub(super) limits: DriverLimits,
    pub(super) outputs: OutputMax,
    pub(super) ids: Arc<Mutex<Ids>>,
    pub(super) state: Mutex<State>,
    /// The thread that called `run` waits here, for what [`State::awaited`] says.
    pub(super) runner: Condvar,
    /// Listening threads wait here, for a place, a thread or a descriptor.
    room: Condvar,
    /// Threads without work wait here.
    pub(super) work: Condvar,
    /// Shutdown has begun. Every callback asks for it, so it is outside of the lock.
    stopping: AtomicBool,
    pub(super) listeners: Listeners,
    /// Whether accepted connections are served by the thread that accepts them.
    pub(super) serial: AtomicBool,
    /// The stack of each thread, in bytes; 0 for that of the standard library.
    pub(super) stack_size: AtomicUsize,
    /// Requests of handles that no thread has taken yet.
    pub(super) posted: AtomicUsize,
    pub(super) watched: Mutex<Option<Watched>>,
    /// What looks up the names of connects.
    pub(super) resolver: Mutex<Arc<dyn Resolver>>,
    /// Threads for jobs and lookups.
    pub(super) job_threads: Arc<Threads>,
    /// Late writes of any thread, and threads that could not be started.
    pub(super) late_writes: CommonEpisode,
    pub(super) no_thread: CommonEpisode,
    /// Runs a thread's job. A value, because the hub's modules do not import the threads' code.
    pub(super) perform: Perform,
}

pub(super) type Perform = fn(&Arc<Hub>, &mut Desk, Job);

#[derive(Default)]
pub(super) struct State {
    pub(super) cells: BTreeMap<ConnId, Arc<Cell>>,
    pub(super) outlets: BTreeMap<ConnId, Arc<Outlet>>,
    /// Connections that count against the maximum.
    pub(super) open: u64,
    lingering: usize,
    /// Those that linger, the oldest first.
    lingerers: VecDeque<ConnId>,
    pub(super) listeners: Vec<Listening>,
    pub(super) admission: Admission,
    pub(super) pool: Pool,
    /// Connections that could get no thread: the thread that called `run` runs their `closed`.
    pub(super) orphans: Vec<Job>,
    /// Closures for the thread that called `run`.
    pub(super) calls: VecDeque<SendClosure>,
    /// Requests for connections that have an id, but have not been entered.
    pub(super) early: BTreeMap<ConnId, Early>,
    /// The counters of running threads, and the sum of those that have ended.
    workers: BTreeMap<u64, Arc<Counters>>,
    workers_made: u64,
    pub(super) metrics: Metrics,
    pub(super) keep_running: bool,
    /// What the thread that called `run` waits for, if it waits.
    pub(super) awaited: Option<Awaited>,
    /// Listening threads that wait.
    in_line: usize,
    /// Timers of the driver.
    pub(super) alarms: Alarms,
    /// The driver stops: `stopping` is due on every connection, and on those still to come.
    pub(super) draining: bool,
    pub(super) drain_over: bool,
    pub(super) ended: bool,
    pub(super) report: Report,
}

#[derive(Default)]
pub(super) struct Early {
    pub(super) posts: Vec<Post>,
    pub(super) abort: bool,
}

/// What ends a wait of the thread that called `run`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Nothing is left to do.
    Idle,
    /// No connection and no listener is left.
    Empty,
    /// No thread works any more.
    Gone,
}

/// One call of `listen`.
pub(super) struct Listening {
    pub(super) id: ListenerId,
    pub(super) sockets: Vec<Arc<Socket>>,
}

/// One listening socket, which its acceptor thread sleeps in.
pub(super) struct Socket {
    pub(super) addr: Endpoint,
    pub(super) listener: Listener,
    stopped: AtomicBool,
}

/// How a connection was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Welcome,
    TooMany,
    /// The driver is stopping.
    Late,
}

/// What a thread has at hand for one connection after the other.
pub(super) struct Desk {
    pub(super) hub: Arc<Hub>,
    pub(super) shared: Shared,
    pub(super) published: Arc<Counters>,
    number: u64,
    /// What is read into; empty until the thread serves a connection.
    pub(super) buffer: Box<[u8]>,
}

impl Desk {
    pub(super) fn new(hub: &Arc<Hub>) -> Desk {
        let mut state = lock(&hub.state);
        state.workers_made += 1;
        let (number, published) = (state.workers_made, Arc::new(Counters::default()));
        state.workers.insert(number, Arc::clone(&published));
        let buffer = state.pool.take_buffer();
        drop(state);
        let shared = hub.shared(hub.clock.exact() ^ number);
        Desk { hub: Arc::clone(hub), shared, published, number, buffer }
    }

    pub(super) fn publish(&self) {
        self.published.publish(&self.shared.metrics);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.publish();
        let mut state = lock(&self.hub.state);
        if let Some(published) = state.workers.remove(&self.number) {
            state.metrics.add(&published.read());
        }
        state.pool.keep_buffer(std::mem::take(&mut self.buffer));
    }
}

impl Socket {
    pub(super) fn new(addr: Endpoint, listener: Listener) -> Socket {
        Socket { addr, listener, stopped: AtomicBool::new(false) }
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

impl State {
    /// Whether what the thread that called `run` waits for is so.
    pub(super) fn is(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Idle => {
                let waiting = self.calls.is_empty() && self.alarms.is_empty();
                let open = self.keep_running || !self.listeners.is_empty();
                waiting && !open && self.is(Awaited::Empty)
            }
            Awaited::Empty => {
                self.cells.is_empty() && self.outlets.is_empty() && self.pool.acceptors == 0
            }
            Awaited::Gone => self.pool.busy == 0,
        }
    }

    /// A connection or a datagram socket is gone: the report says how many went in time.
    fn count_left(&mut self, stopping: bool, unsent: u64) {
        if self.drain_over {
            self.report.aborted += 1;
            self.report.unsent += unsent;
        } else if stopping {
            self.report.drained += 1;
            self.report.unsent += unsent;
        }
    }
}

impl Hub {
    pub(super) fn new(clock: Clock, limits: DriverLimits, perform: Perform) -> Hub {
        let admission = Admission::new(&limits);
        let pool = Pool::new(system::threads_max());
        let job_threads = Arc::new(Threads::new(&limits));
        let state = State { admission, pool, ..State::default() };
        Hub {
            clock: clock.unkept(),
            limits,
            outputs: OutputMax::default(),
            ids: Arc::default(),
            state: Mutex::new(state),
            runner: Condvar::new(),
            room: Condvar::new(),
            work: Condvar::new(),
            stopping: AtomicBool::new(false),
            listeners: Listeners::default(),
            serial: AtomicBool::new(false),
            stack_size: AtomicUsize::new(0),
            posted: AtomicUsize::new(0),
            watched: Mutex::default(),
            resolver: Mutex::new(Arc::new(SystemResolver)),
            job_threads,
            late_writes: CommonEpisode::new("late writes"),
            no_thread: CommonEpisode::new("threads that do not start"),
            perform,
        }
    }

    /// What opens listening sockets, which threads sleep in.
    pub(super) fn binder(&self) -> Binder {
        Binder::new(self.listeners.clone(), system::sockets())
    }

    /// What one thread lends to the code that it calls.
    pub(super) fn shared(self: &Arc<Hub>, seed: u64) -> Shared {
        let binder = self.binder();
        let ids = IdSource::Common(Arc::clone(&self.ids));
        let home = Arc::clone(self) as Arc<dyn Home>;
        let workplace = Workplace::on(Arc::clone(&self.job_threads), home, &self.limits);
        let mut shared = Shared::new(self.clock.clone(), ids, seed, binder, workplace);
        shared.outputs = self.outputs.clone();
        shared.blame.limit = self.limits.slow_callback.map_or(u64::MAX, crate::clock::nanos);
        shared.common = Some(Arc::clone(self) as Arc<dyn Common>);
        shared
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    // ---- who waits -----------------------------------------------------------------------------

    /// Wakes the thread that called `run`, if what it waits for is so.
    pub(super) fn tell_runner(&self, state: &State) {
        if state.awaited.is_some_and(|awaited| state.is(awaited)) {
            self.runner.notify_one();
        }
    }

    /// Wakes the thread that called `run`, if it waits: there is something for it to run.
    pub(super) fn call_runner(&self, state: &State) {
        if state.awaited.is_some() {
            self.runner.notify_one();
        }
    }

    /// Wakes the listening threads that wait: there may be room.
    pub(super) fn tell_acceptors(&self, state: &State) {
        if state.in_line > 0 {
            self.room.notify_all();
        }
    }

    /// Waits for room or a descriptor, at most for `most`.
    pub(super) fn stand_in_line<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        most: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        state.in_line += 1;
        let mut state = match most {
            None => self.room.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(most) => {
                let woken = self.room.wait_timeout(state, most);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.in_line -= 1;
        state
    }

    // ---- connections -------------------------------------------------------------------------

    pub(super) fn cell(&self, id: ConnId) -> Option<Arc<Cell>> {
        lock(&self.state).cells.get(&id).cloned()
    }

    /// Enters a connection that was asked for or adopted, also when there are too many.
    pub(super) fn enter_asked(&self, cell: &Arc<Cell>, adopted: bool) -> Entered {
        let mut state = lock(&self.state);
        state.metrics.connects += u64::from(!adopted);
        state.metrics.accepted += u64::from(adopted);
        let full = state.admission.place(state.open) != Place::Free;
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
    }

    /// A connection lingers: it no longer counts against the maximum. When too many do, the oldest
    /// is returned, to be ended.
    pub(super) fn linger(&self, id: ConnId) -> Option<ConnId> {
        let mut state = lock(&self.state);
        state.open -= 1;
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

    /// Removes a connection whose `closed` has run.
    pub(super) fn leave(&self, id: ConnId, lingered: bool, unsent: u64) {
        // First, so that no request is left for an id that is gone.
        self.release(id);
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
        state.count_left(self.is_stopping(), unsent);
        self.tell_runner(&state);
        self.tell_acceptors(&state);
    }

    // ---- datagram sockets --------------------------------------------------------------------

    pub(super) fn outlet(&self, id: ConnId) -> Option<Arc<Outlet>> {
        lock(&self.state).outlets.get(&id).cloned()
    }

    /// Enters a datagram socket, with what was asked of it before.
    pub(super) fn enter_outlet(&self, outlet: &Arc<Outlet>) {
        let mut state = lock(&self.state);
        state.metrics.binds += 1;
        let early = state.early.remove(&outlet.id).unwrap_or_default();
        let draining = state.draining;
        // Its threads have not begun, and will look.
        outlet.ask_first(|requests| {
            requests.posts = early.posts;
            requests.abort = early.abort;
            requests.stop = draining;
        });
        state.outlets.insert(outlet.id, Arc::clone(outlet));
    }

    /// Removes a datagram socket that has been told `closed`.
    pub(super) fn leave_outlet(&self, id: ConnId, unsent: u64) {
        // First, so that no request is left for an id that is gone.
        let mut ids = lock(&self.ids);
        if ids.is_current(id) {
            ids.release(id);
            ids.end_turn();
        }
        drop(ids);
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

    // ---- listeners ---------------------------------------------------------------------------

    /// Enters a listener; false when the driver stops, or it was stopped since it was made.
    pub(super) fn add_listener(&self, id: ListenerId, sockets: Vec<Arc<Socket>>) -> bool {
        // Under the lock: a stop looks at the list after it has said so.
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
        let state = lock(&self.state);
        self.tell_runner(&state);
        self.tell_acceptors(&state);
    }

    pub(super) fn stop_all_listening(&self) {
        let listeners: Vec<ListenerId> = lock(&self.state).listeners.iter().map(|l| l.id).collect();
        for id in listeners {
            self.stop_listening(id);
        }
    }

    pub(super) fn acceptor_started(&self) {
        lock(&self.state).pool.acceptors += 1;
    }

    pub(super) fn acceptor_ended(&self) {
        let mut state = lock(&self.state);
        state.pool.acceptors -= 1;
        self.tell_runner(&state);
        drop(state);
        self.note_released();
    }

    /// A descriptor has been released, and not by the thread of a connection.
    pub(super) fn note_released(&self) {
        let mut state = lock(&self.state);
        state.admission.note_released();
        self.tell_acceptors(&state);
    }

    // ---- counters ----------------------------------------------------------------------------

    pub(super) fn count(&self, count: impl FnOnce(&mut Metrics)) {
        count(&mut lock(&self.state).metrics);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let state = lock(&self.state);
        let mut metrics = state.metrics.clone();
        for worker in state.workers.values() {
            metrics.add(&worker.read());
        }
        for cell in state.cells.values() {
            let gauges = cell.gauges();
            metrics.buffered += gauges.unsent as u64;
            metrics.paused += u64::from(gauges.paused);
            metrics.held += u64::from(gauges.held);
        }
        metrics.open = state.open;
        metrics.bound = state.outlets.len() as u64;
        metrics.lingering = state.lingering as u64;
        metrics.age = Duration::from_nanos(self.clock.exact());
        metrics
    }

    // ---- running and stopping ----------------------------------------------------------------

    pub(super) fn shutdown(&self) {
        self.stopping.store(true, Ordering::Release);
        // Under the lock, so that no thread is between looking and waiting.
        self.call_runner(&lock(&self.state));
    }
}

#[cfg(all(test, lariat_model))]
impl Hub {
    pub(super) fn has_no_threads(&self) -> bool {
        let pool = &lock(&self.state).pool;
        pool.busy + pool.away + pool.acceptors == 0
    }

    /// Nothing is left of any connection or request.
    #[track_caller]
    pub(super) fn check_empty(&self) {
        let state = lock(&self.state);
        assert!(state.cells.is_empty() && state.lingerers.is_empty(), "connections are left");
        assert!(state.outlets.is_empty(), "datagram sockets are left");
        assert!(state.early.is_empty() && state.calls.is_empty(), "requests are left");
        assert!(state.orphans.is_empty() && !state.pool.parking, "threads are left");
        drop(state);
        assert_eq!(self.posted.load(Ordering::SeqCst), 0, "requests are counted, but gone");
    }
}
