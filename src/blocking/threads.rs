//! Threads: how they start, take one job after the other, and are called to a connection.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::bell::lock;
use super::cell::{Cell, Signal};
use super::hub::{Desk, Hub};
use super::outlet::Outlet;
use super::pool::{Hired, Job};
use super::system;
use crate::reason::{By, Cause, CloseKind, ConnectFailure};
use crate::sync::atomic::Ordering;
use crate::sync::thread;

/// How long a thread without work waits for some.
const PARKED: Duration = Duration::from_secs(1);

impl Hub {
    /// A thread of this driver, to be started.
    pub(super) fn thread(&self, name: String) -> thread::Builder {
        let thread = thread::Builder::new().name(name);
        match self.stack_size.load(Ordering::Relaxed) {
            0 => thread,
            size => thread.stack_size(size),
        }
    }

    /// Finds a thread for a job. What cannot be done without one ends.
    pub(super) fn begin(self: &Arc<Hub>, job: Job) {
        if let Err((error, job)) = self.start(job) {
            self.note_no_thread(&error);
            self.give_up(job, error);
        }
    }

    /// The job that comes back has no thread. It may be another one, whose thread took this one.
    fn start(self: &Arc<Hub>, job: Job) -> Result<(), (io::Error, Job)> {
        let kind = match job {
            Job::Accompany(_) | Job::AccompanyOutlet(_) => "lariat companion",
            Job::Serve(_) | Job::Connect(..) => "lariat connection",
            Job::Attempt(..) => "lariat connect",
            Job::Receive(_) => "lariat datagrams",
        };
        let mut state = lock(&self.state);
        let number = match state.pool.hire(job) {
            Hired::Parked => {
                drop(state);
                self.work.notify_one();
                return Ok(());
            }
            Hired::New(number) => number,
            Hired::None(job) => {
                let most = state.pool.limit();
                let error = format!("{most} threads are at work, as many as the system bears");
                return Err((io::Error::other(error), job));
            }
        };
        drop(state);
        let hub = Arc::clone(self);
        let Err(error) = self.thread(kind.to_owned()).spawn(move || work(&hub)) else {
            return Ok(());
        };
        match lock(&self.state).pool.take_back(number) {
            Some(job) => Err((error, job)),
            None => Ok(()),
        }
    }

    fn note_no_thread(&self, error: &io::Error) {
        if let Some(earlier) = self.no_thread.note(self.clock.exact()) {
            log::error!(target: "lariat::blocking", "cannot start a thread: {error}{earlier}");
        }
    }

    /// Without its own thread a connection or a socket ends, and the thread that called `run` tells
    /// it so. One without a companion ends by itself.
    fn give_up(self: &Arc<Hub>, job: Job, error: io::Error) {
        match &job {
            Job::Attempt(cell, dial, _) => {
                let cell = cell.upgrade();
                return cell.map_or((), |cell| cell.answer(dial.to, Err(error)));
            }
            Job::Serve(cell) | Job::Connect(cell, _) => {
                let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
                lock(&cell.member).conn.end(By::Runtime, exhausted, Some(Cause::new(error)));
            }
            Job::Receive(outlet) => outlet.ask_first(|requests| requests.alone = true),
            Job::Accompany(cell) => return self.leave_alone(cell),
            Job::AccompanyOutlet(outlet) => return outlet.stay_alone(),
        }
        let mut state = lock(&self.state);
        state.orphans.push(job);
        self.call_runner(&state);
    }

    fn leave_alone(&self, cell: &Arc<Cell>) {
        if cell.companions.leave() {
            cell.signal(Signal::Alone);
            // Wakes its thread out of any call on the socket; the thread finds the signal first.
            cell.wake(Shutdown::Both);
        }
        cell.reader.call();
    }

    /// Serves an accepted connection on this thread.
    pub(super) fn serve_here(self: &Arc<Hub>, desk: &mut Desk, cell: Arc<Cell>) {
        lock(&self.state).pool.unclaim();
        (self.perform)(self, desk, Job::Serve(cell));
        desk.publish();
        self.note_released();
    }

    /// Lets a thread of the connection look at it. Call it after the change was made or the signal
    /// was left.
    pub(super) fn nudge(self: &Arc<Hub>, cell: &Arc<Cell>) {
        if !cell.reader.call() {
            self.call_companion(cell, 0);
        }
    }

    /// Lets a companion look at the connection at `at` or sooner; starts one if none listens.
    pub(super) fn call_companion(self: &Arc<Hub>, cell: &Arc<Cell>, at: u64) {
        if cell.companions.call_or_hire(at) {
            self.begin(Job::Accompany(Arc::clone(cell)));
        }
    }

    /// Leaves a signal for every connection.
    pub(super) fn signal_all(self: &Arc<Hub>, signal: Signal) {
        let cells: Vec<Arc<Cell>> = lock(&self.state).cells.values().cloned().collect();
        // All of them before any acts on it: one that closes at once may be another's peer, which
        // would hear the FIN before its own signal.
        for cell in &cells {
            cell.signal(signal);
        }
        for cell in cells {
            self.nudge(&cell);
        }
        let outlets: Vec<Arc<Outlet>> = lock(&self.state).outlets.values().cloned().collect();
        for outlet in outlets {
            let hires = outlet.ask(|requests| match signal {
                Signal::End => requests.end = true,
                _ => requests.stop = true,
            });
            if hires {
                self.accompany_outlet(&outlet);
            }
        }
    }

    /// Starts a companion of a datagram socket, which has been counted.
    pub(super) fn accompany_outlet(self: &Arc<Hub>, outlet: &Arc<Outlet>) {
        self.begin(Job::AccompanyOutlet(Arc::clone(outlet)));
    }

    /// The thread of a connection is about to sleep in a connect, from which nothing wakes it: a
    /// driver that ends does not wait for it.
    pub(super) fn thread_away(&self) {
        let mut state = lock(&self.state);
        state.pool.busy -= 1;
        state.pool.away += 1;
        self.tell_runner(&state);
    }

    pub(super) fn thread_back(&self) {
        let mut state = lock(&self.state);
        state.pool.away -= 1;
        state.pool.busy += 1;
    }

    /// The next job of a thread; `done` says whether it has had one. Waits for a while.
    pub(super) fn wait_for_job(&self, done: bool) -> Option<Job> {
        let mut state = lock(&self.state);
        if done {
            // The connection's descriptor is released, if this was the last thread to use it.
            state.pool.busy -= 1;
            state.admission.note_released();
            self.tell_runner(&state);
            self.tell_acceptors(&state);
        }
        let mut job = state.pool.next_job();
        if job.is_some() || !state.pool.park() {
            return job;
        }
        let until = system::now() + PARKED;
        let mut left = PARKED;
        while job.is_none() && !left.is_zero() && state.pool.parking {
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            left = until.saturating_duration_since(system::now());
            job = state.pool.next_job();
        }
        state.pool.unpark();
        job
    }

    /// From now on threads without work wait for some, or leave.
    pub(super) fn park_threads(&self, parking: bool) {
        lock(&self.state).pool.parking = parking;
        self.work.notify_all();
    }
}

/// The life of a thread.
fn work(hub: &Arc<Hub>) {
    let mut desk = None;
    while let Some(job) = hub.wait_for_job(desk.is_some()) {
        let desk = desk.get_or_insert_with(|| Desk::new(hub));
        (hub.perform)(hub, desk, job);
        desk.publish();
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;
    use crate::admission::Pace;
    use crate::blocking::tests::rig::{Rig, hub};
    use crate::limits::{DriverLimits, Limits};

    fn parked(hub: &Hub) -> usize {
        lock(&hub.state).pool.parked()
    }

    /// The lock is free once the acceptor waits.
    #[test]
    fn a_thread_that_is_done_calls_the_acceptors_that_wait_for_one() {
        let (hub, _) = hub(DriverLimits::default());
        let (tell, waits) = std::sync::mpsc::channel();
        let acceptor = thread::spawn({
            let hub = Arc::clone(&hub);
            move || {
                let state = lock(&hub.state);
                tell.send(()).unwrap();
                drop(hub.stand_in_line(state, None));
                tell.send(()).unwrap();
            }
        });
        waits.recv().unwrap();
        lock(&hub.state).pool.busy = 1;
        assert!(hub.wait_for_job(true).is_none());
        waits.recv_timeout(Duration::from_secs(20)).expect("there is a thread for a newcomer");
        acceptor.join().unwrap();
    }

    #[test]
    fn a_driver_that_ends_does_not_wait_for_a_thread_that_goes_away_into_a_connect() {
        let (hub, _) = hub(DriverLimits::default());
        let (tell, waits) = std::sync::mpsc::channel();
        let runner = thread::spawn({
            let hub = Arc::clone(&hub);
            move || {
                let mut state = lock(&hub.state);
                state.awaited = Some(crate::blocking::hub::Awaited::Gone);
                tell.send(()).unwrap();
                drop(hub.runner.wait(state));
                tell.send(()).unwrap();
            }
        });
        waits.recv().unwrap();
        lock(&hub.state).pool.busy = 1;
        hub.thread_away();
        waits.recv_timeout(Duration::from_secs(20)).expect("no thread is left that comes back");
        runner.join().unwrap();
    }

    #[test]
    fn an_acceptor_that_serves_gives_the_place_of_a_thread_back_and_counts_for_all() {
        let rig = Rig::open(Limits::default());
        let Rig { hub, mut desk, cell, .. } = rig;
        let mut state = lock(&hub.state);
        state.pool = crate::blocking::pool::Pool::new(1);
        state.pool.claim();
        assert!(!state.pool.has_room());
        drop(state);
        desk.shared.metrics.reads = 3;
        assert_eq!(hub.metrics().reads, 0);
        hub.serve_here(&mut desk, cell);
        assert!(lock(&hub.state).pool.has_room());
        assert_eq!(hub.metrics().reads, 3);
    }

    #[test]
    fn a_thread_without_work_waits_for_some_while_the_driver_runs() {
        let (hub, _) = hub(DriverLimits::default());
        assert!(hub.wait_for_job(false).is_none(), "it does not run");
        hub.park_threads(true);
        let rig = Rig::open(Limits::default());
        lock(&hub.state).pool.claim();
        // One that takes the next job, and one that is sent away.
        for taken in [true, false] {
            let waiting = thread::spawn({
                let hub = Arc::clone(&hub);
                move || hub.wait_for_job(false).is_some()
            });
            while parked(&hub) == 0 {
                assert!(!waiting.is_finished(), "it did not wait");
                thread::yield_now();
            }
            match taken {
                true => assert!(hub.start(Job::Serve(Arc::clone(&rig.cell))).is_ok()),
                false => hub.park_threads(false),
            }
            assert_eq!((waiting.join().unwrap(), parked(&hub)), (taken, 0));
        }
        assert_eq!(lock(&hub.state).pool.busy, 1, "no thread was started");
    }

    #[test]
    fn a1_a_connection_that_was_served_where_it_was_accepted_releases_its_descriptor() {
        let Rig { hub, mut desk, cell, .. } = Rig::open(Limits::default());
        let mut pace = Pace::default();
        let lack = io::Error::from_raw_os_error(libc::EMFILE);
        let now = hub.clock.exact();
        let mut state = lock(&hub.state);
        state.admission.note_lack(&mut pace);
        state.admission.note_failed(&mut pace, &lack, now);
        assert!(state.admission.next_try(&pace, now) > 0, "it waits");
        state.pool.claim();
        drop(state);
        hub.serve_here(&mut desk, cell);
        assert_eq!(lock(&hub.state).admission.next_try(&pace, hub.clock.exact()), 0);
    }
}
