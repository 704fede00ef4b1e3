//! Jobs that a connection waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::Connection;

/// Jobs under way for one connection.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Lives as long as a result is wanted: a job that has not begun looks for it.
    wanted: Arc<()>,
    begun: u64,
    /// The number of the timer of each job's deadline.
    deadlines: BTreeMap<u64, u64>,
}

impl Connection {
    /// Begins a job. Returns its number, and what is gone once its result is no longer wanted.
    pub(crate) fn begin_job(&mut self) -> (u64, Weak<()>) {
        let jobs = self.rare_mut().jobs.get_or_insert_with(Box::default);
        jobs.begun += 1;
        (jobs.begun, Arc::downgrade(&jobs.wanted))
    }

    /// The timer of a job's deadline.
    pub(crate) fn put_job(&mut self, job: u64, deadline: u64) {
        if let Some(jobs) = &mut self.rare_mut().jobs {
            jobs.deadlines.insert(job, deadline);
        }
    }

    /// A job has its result.
    pub(crate) fn end_job(&mut self, job: u64) {
        if let Some(jobs) = self.rare.as_mut().and_then(|rare| rare.jobs.as_mut()) {
            jobs.deadlines.remove(&job);
        }
    }

    /// Gives up all jobs. Returns the timers of their deadlines, to be cancelled.
    pub(crate) fn take_jobs(&mut self) -> Vec<u64> {
        let jobs = self.rare.as_mut().and_then(|rare| rare.jobs.take());
        jobs.map_or_else(Vec::new, |jobs| jobs.deadlines.into_values().collect())
    }
}

impl Jobs {
    pub(super) fn is_vacant(&self) -> bool {
        self.deadlines.is_empty()
    }
}
