//! The state that the threads of a blocking driver share: its connections, what each thread waits
//! for, and what has to stop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::alarms::Alarms;
use super::bell::lock;
use super::cell::Cell;
use super::counters::Counters;
use super::listening::Listening;
use super::outlet::Outlet;
use super::pool::{Job, Pool};
use super::system;
use crate::admission::{Admission, Place};
use crate::buffer::ChunkPool;
use crate::clock::Clock;
use crate::driver::Report;
use crate::episode::CommonEpisode;
use crate::handle::Post;
use crate::id::{ConnId, IdSource, Ids};
use crate::jobs::Threads;
use crate::limits::{DriverLimits, OutputMax};
use crate::metrics::Metrics;
use crate::protocol::{
    Binder, Common, Home, Listeners, Output, SendClosure, Shared, Watched, Workplace,
};
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
    /// Datagram sockets, which count as well.
    pub(super) bound: u64,
    pub(super) lingering: usize,
    /// Those that linger, the oldest first.
    pub(super) lingerers: VecDeque<ConnId>,
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
        let mut shared = hub.shared(hub.clock.exact() ^ number);
        shared.running = true;
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
            state.metrics += &published.read();
        }
        state.pool.keep_buffer(std::mem::take(&mut self.buffer));
    }
}

impl State {
    /// Whether there is a place for one more connection or datagram socket.
    pub(super) fn place(&self) -> Place {
        self.admission.place(self.open + self.bound)
    }

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
    pub(super) fn count_left(&mut self, stopping: bool, unsent: u64) {
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
        // A thread has one connection at a time, and is there as long as that is.
        shared.chunks = ChunkPool::of_one_connection();
        shared.output = Output::of_one_connection();
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

    // ---- counters ----------------------------------------------------------------------------

    pub(super) fn count(&self, count: impl FnOnce(&mut Metrics)) {
        count(&mut lock(&self.state).metrics);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let state = lock(&self.state);
        let mut metrics = state.metrics.clone();
        for worker in state.workers.values() {
            metrics += &worker.read();
        }
        for cell in state.cells.values() {
            let gauges = cell.gauges();
            metrics.buffered += gauges.unsent as u64;
            metrics.paused += u64::from(gauges.paused);
            metrics.held += u64::from(gauges.held);
            metrics.handshaking += u64::from(gauges.handshaking);
        }
        for outlet in state.outlets.values() {
            metrics.buffered += outlet.unsent.load(Ordering::Relaxed) as u64;
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

#[cfg(all(test, not(lariat_model)))]
impl State {
    /// Listening threads that wait.
    pub(super) fn in_line(&self) -> usize {
        self.in_line
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
