//! The threads of a driver, as numbers: how many there are, which of them are parked, and what
//! waits for one of them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cell::Cell;
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
    Connect(Arc<Cell>, Box<Dial>),
    Accompany(Arc<Cell>),
}

impl Job {
    pub(super) fn cell(&self) -> &Arc<Cell> {
        match self {
            Job::Serve(cell) | Job::Connect(cell, _) | Job::Accompany(cell) => cell,
        }
    }
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
    /// How many may be at work, of every kind.
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

    /// Whether one more thread may work. Those that are parked do not count: they take the work.
    pub(super) fn has_room(&self) -> bool {
        self.acceptors + self.busy + self.away + self.claimed < self.limit
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
        self.claimed -= usize::from(matches!(job, Job::Serve(_)));
        if !self.has_room() {
            return Hired::None(job);
        }
        let parked = self.parked > self.jobs.len();
        self.busy += 1;
        self.hired += 1;
        self.jobs.push_back((self.hired, job));
        if parked { Hired::Parked } else { Hired::New(self.hired) }
    }

    /// The thread for the job of this number could not be started. The job comes back, unless
    /// another thread has taken it.
    pub(super) fn take_back(&mut self, number: u64) -> Option<Job> {
        let at = self.jobs.iter().position(|(hired, _)| *hired == number)?;
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

    /// What a thread read into that has ended, if there is one; it is resident already.
    pub(super) fn take_buffer(&mut self) -> Box<[u8]> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn keep_buffer(&mut self, buffer: Box<[u8]>) {
        if !buffer.is_empty() && self.buffers.len() < BUFFERS_MAX {
            self.buffers.push(buffer);
        }
    }
}
