//! The threads of a driver, as numbers: how many there are, how many are parked, and the jobs that
//! wait for one.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::cell::Cell;
use super::outlet::Outlet;
use super::race::Start;
use crate::options::Dial;

/// Threads that wait for another connection after theirs has ended, at most.
const PARKED_MAX: usize = 64;
/// Read buffers that are kept for the next threads, at most.
const BUFFERS_MAX: usize = 64;

/// What a thread does.
pub(super) enum Job {
    /// Serves an accepted connection.
    Serve(Arc<Cell>),
    /// Connects, and serves the connection.
    Connect(Arc<Cell>, Box<Start>),
    /// Connects to one of several addresses, for another thread. What it is for may end before:
    /// nothing wakes a thread out of a connect.
    Attempt(Weak<Cell>, Box<Dial>, Duration),
    Accompany(Arc<Cell>),
    /// Serves a datagram socket.
    Receive(Arc<Outlet>),
    AccompanyOutlet(Arc<Outlet>),
}

/// How a job gets its thread.
pub(super) enum Hired {
    /// One that is parked takes it.
    Parked,
    /// One has to be started, which takes a job when it runs. The number names this one.
    New(u64),
    /// There are too many.
    None(Job),
}

/// All threads of one driver but that which called `run`.
#[derive(Default)]
pub(super) struct Pool {
    /// How many may be at work, of every kind. An eighth is kept for the companions of those that
    /// are: a connection ends that cannot have one.
    limit: usize,
    /// Threads of listeners.
    pub(super) acceptors: usize,
    /// Threads that work for a connection, without those that are away in a connect.
    pub(super) busy: usize,
    pub(super) away: usize,
    /// Places for threads of connections that are being accepted.
    claimed: usize,
    parked: usize,
    /// Whether a thread without work may wait for some.
    pub(super) parking: bool,
    /// What waits for a thread, by its number.
    jobs: VecDeque<(u64, Job)>,
    hired: u64,
    buffers: Vec<Box<[u8]>>,
}

impl Pool {
    pub(super) fn new(limit: usize) -> Pool {
        Pool { limit, ..Pool::default() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// At how many threads at work no further connection has one.
    pub(super) fn newcomers_limit(&self) -> usize {
        self.limit - self.limit / 8
    }

    /// Threads at work. Those that are parked do not count: they take the work.
    fn working(&self) -> usize {
        self.acceptors + self.busy + self.away + self.claimed
    }

    /// Whether one more connection may have a thread.
    pub(super) fn has_room(&self) -> bool {
        self.working() < self.newcomers_limit()
    }

    /// Keeps a thread for a connection that is being accepted.
    pub(super) fn claim(&mut self) {
        self.claimed += 1;
    }

    pub(super) fn unclaim(&mut self) {
        self.claimed -= 1;
    }

    /// Takes a job for a thread; an accepted connection has claimed it.
    pub(super) fn hire(&mut self, job: Job) -> Hired {
        let room = match job {
            Job::Serve(_) => {
                self.claimed -= 1;
                self.working() < self.limit
            }
            Job::Connect(..) | Job::Attempt(..) | Job::Receive(_) => self.has_room(),
            Job::Accompany(_) | Job::AccompanyOutlet(_) => self.working() < self.limit,
        };
        if !room {
            return Hired::None(job);
        }
        let parked = self.parked > self.jobs.len();
        self.busy += 1;
        self.hired += 1;
        self.jobs.push_back((self.hired, job));
        if parked { Hired::Parked } else { Hired::New(self.hired) }
    }

    /// The thread for the job of this number could not be started. A job that has none comes back:
    /// this one, or where another thread has taken it, one that is left in its place.
    pub(super) fn take_back(&mut self, number: u64) -> Option<Job> {
        let own = self.jobs.iter().position(|(hired, _)| *hired == number);
        let at = own.or(self.jobs.len().checked_sub(1))?;
        self.busy -= 1;
        self.jobs.remove(at).map(|(_, job)| job)
    }

    pub(super) fn next_job(&mut self) -> Option<Job> {
        self.jobs.pop_front().map(|(_, job)| job)
    }

    /// Parks a thread that has no work; false when it has to leave.
    pub(super) fn park(&mut self) -> bool {
        let parks = self.parking && self.parked < PARKED_MAX;
        self.parked += usize::from(parks);
        parks
    }

    pub(super) fn unpark(&mut self) {
        self.parked -= 1;
    }

    #[cfg(all(test, not(lariat_model)))]
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// The read buffer of a thread that has ended, if there is one; its memory is resident already.
    pub(super) fn take_buffer(&mut self) -> Box<[u8]> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn keep_buffer(&mut self, buffer: Box<[u8]>) {
        if !buffer.is_empty() && self.buffers.len() < BUFFERS_MAX {
            self.buffers.push(buffer);
        }
    }
}

// A cell has locks, which the model check gives to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;
    use crate::address::Targets;
    use crate::connection::Connection;
    use crate::endpoint::Endpoint;
    use crate::id::Ids;
    use crate::limits::Limits;
    use crate::options::SocketOptions;
    use crate::protocol::{Context, Input, Outcome, Protocol};

    struct Idle;

    impl Protocol for Idle {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }

    fn job() -> Job {
        let id = Ids::default().reserve();
        let conn = Connection::connecting(id, Endpoint::Other, Arc::new(Limits::default()), 0);
        Job::Accompany(Cell::new(id, conn, Box::new(Idle), None))
    }

    fn is_new(hired: &Hired) -> bool {
        matches!(hired, Hired::New(_))
    }

    #[test]
    fn threads_of_every_kind_count_up_to_the_bound_and_no_further() {
        let mut pool = Pool::new(4);
        (pool.acceptors, pool.away) = (1, 1);
        pool.claim();
        assert!(pool.has_room() && is_new(&pool.hire(job())));
        assert!(!pool.has_room(), "one accepts, one connects, one is claimed, one works");
        assert!(matches!(pool.hire(job()), Hired::None(_)));
        pool.unclaim();
        let Hired::New(number) = pool.hire(job()) else { panic!("a place was given back") };
        assert!(matches!(pool.hire(job()), Hired::None(_)));
        assert!(pool.take_back(number).is_some());
        assert!(pool.has_room(), "its thread did not start");
    }

    #[test]
    fn where_another_thread_took_the_job_the_one_left_in_its_place_is_given_up() {
        let mut pool = Pool::new(4);
        let Hired::New(number) = pool.hire(job()) else { panic!("there is room") };
        assert!(is_new(&pool.hire(job())));
        // The thread of the second job takes the first, whose own does not start.
        assert!(pool.next_job().is_some());
        assert!(pool.take_back(number).is_some() && pool.take_back(number).is_none());
        assert_eq!(pool.busy, 1);
    }

    #[test]
    fn of_two_jobs_that_wait_for_their_threads_the_one_without_comes_back() {
        let mut pool = Pool::new(4);
        let ids = |job: Option<Job>| match job {
            Some(Job::Accompany(cell)) => cell.id,
            _ => panic!("there is a job"),
        };
        let mut all = Ids::default();
        let [first, second] = [(); 2].map(|()| {
            let id = all.reserve();
            let conn = Connection::connecting(id, Endpoint::Other, Arc::new(Limits::default()), 0);
            let Hired::New(number) =
                pool.hire(Job::Accompany(Cell::new(id, conn, Box::new(Idle), None)))
            else {
                panic!("there is room")
            };
            (id, number)
        });
        assert_eq!(ids(pool.take_back(first.1)), first.0);
        assert_eq!(ids(pool.next_job()), second.0);
    }

    #[test]
    fn an_eighth_of_the_threads_is_kept_for_companions_and_for_what_was_claimed() {
        let mut pool = Pool::new(16);
        let connect = || match job() {
            Job::Accompany(cell) => {
                let targets = Targets::One(Endpoint::Other);
                let start = Start { targets, options: SocketOptions::default() };
                Job::Connect(cell, Box::new(start))
            }
            other => other,
        };
        assert!((0..13).all(|_| is_new(&pool.hire(connect()))) && pool.has_room());
        pool.claim();
        assert!(!pool.has_room() && matches!(pool.hire(connect()), Hired::None(_)));
        assert!(is_new(&pool.hire(job())));
        let Job::Accompany(cell) = job() else { return };
        assert!(is_new(&pool.hire(Job::Serve(cell))), "it was claimed while there was room");
        assert!(is_new(&pool.hire(job())) && matches!(pool.hire(job()), Hired::None(_)));
    }

    #[test]
    fn a_parked_thread_takes_a_job_and_a_second_job_has_a_thread_of_its_own() {
        let mut pool = Pool::new(4);
        assert!(!pool.park(), "nobody parks while the driver does not run");
        pool.parking = true;
        assert!(pool.park());
        assert!(matches!(pool.hire(job()), Hired::Parked));
        assert!(is_new(&pool.hire(job())));
        assert!(
            pool.next_job().is_some() && pool.next_job().is_some() && pool.next_job().is_none()
        );
    }

    #[test]
    fn as_many_threads_are_parked_and_buffers_kept_as_the_bounds_say() {
        let mut pool = Pool { parking: true, ..Pool::new(usize::MAX) };
        assert!((0..PARKED_MAX).all(|_| pool.park()) && !pool.park());
        pool.unpark();
        assert!(pool.park() && !pool.park());
        (0..=BUFFERS_MAX).for_each(|_| pool.keep_buffer(vec![0; 1].into()));
        assert!((0..BUFFERS_MAX).all(|_| pool.take_buffer().len() == 1));
        assert!(pool.take_buffer().is_empty());
        pool.keep_buffer(Box::default());
        assert!(pool.buffers.is_empty(), "a thread that never read has none to keep");
    }
}
