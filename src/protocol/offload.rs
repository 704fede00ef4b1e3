//! Work that blocks, done away from the driver, and its result on the way home.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{Control, SendClosure, Shared, TimerId};
use crate::guard::{drop_guarded, guarded};
use crate::jobs::{JobError, Lane, Threads};
use crate::limits::{DriverLimits, JobLimits};
use crate::resolver::{Resolver, SystemResolver};

/// Where the work of a driver is done, and what looks names up.
pub(crate) struct Workplace {
    jobs: JobLimits,
    lookups: JobLimits,
    pub(crate) resolver: Arc<dyn Resolver>,
    place: Place,
}

enum Place {
    /// Results come home from threads.
    Threads(Arc<Threads>, Arc<dyn Home>),
    /// On the driver's own thread, after some virtual time.
    Here(Virtual),
}

struct Virtual {
    /// How long the next job takes.
    time: Box<dyn FnMut() -> Duration>,
    /// Jobs and lookups under way.
    under_way: [usize; 2],
}

/// A driver, as the threads see it that work for it.
pub(crate) trait Home: Send + Sync {
    /// Has `closure` run on the driver's thread. It is not refused while the driver lives: no more
    /// results come than work was taken.
    fn bring(&self, closure: SendClosure);
}

impl Workplace {
    /// On `threads`, whose results go to `home`.
    pub(crate) fn on(
        threads: Arc<Threads>,
        home: Arc<dyn Home>,
        limits: &DriverLimits,
    ) -> Workplace {
        Workplace::at(Place::Threads(threads, home), limits)
    }

    /// On the driver's own thread: `time` says how long the next job takes.
    pub(crate) fn here(time: Box<dyn FnMut() -> Duration>, limits: &DriverLimits) -> Workplace {
        Workplace::at(Place::Here(Virtual { time, under_way: [0; 2] }), limits)
    }

    fn at(place: Place, limits: &DriverLimits) -> Workplace {
        let (jobs, lookups) = (limits.jobs.clone(), limits.lookups.clone());
        Workplace { jobs, lookups, resolver: Arc::new(SystemResolver), place }
    }

    fn limits(&self, lane: Lane) -> &JobLimits {
        match lane {
            Lane::Jobs => &self.jobs,
            Lane::Lookups => &self.lookups,
        }
    }

    /// Takes a place in virtual time, and says for how long; None when all are taken.
    fn take_place(&mut self, lane: Lane) -> Option<Duration> {
        let JobLimits { threads, queue, .. } = *self.limits(lane);
        let Place::Here(here) = &mut self.place else { return None };
        let taken = &mut here.under_way[lane as usize];
        if *taken >= threads.saturating_add(queue) {
            return None;
        }
        *taken += 1;
        Some((here.time)())
    }

    fn leave_place(&mut self, lane: Lane) {
        if let Place::Here(here) = &mut self.place {
            here.under_way[lane as usize] -= 1;
        }
    }
}

/// What is to be done with a result, once: the deadline and the result are rivals. A result waits
/// here while it is on its way home, so that a deadline that is noticed late finds it.
struct Receiver<T>(Arc<Mutex<Pending<T>>>);

struct Pending<T> {
    then: Option<Then<T>>,
    result: Option<Result<T, JobError>>,
}

type Then<T> = Box<dyn FnOnce(&mut Control<'_>, Result<T, JobError>) + Send>;

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver(Arc::clone(&self.0))
    }
}

impl<T> Receiver<T> {
    fn new(then: Then<T>) -> Receiver<T> {
        Receiver(Arc::new(Mutex::new(Pending { then: Some(then), result: None })))
    }

    /// User code never runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Pending<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work is done.
    fn put(&self, result: Result<T, JobError>) {
        self.lock().result = Some(result);
    }

    fn take(&self) -> (Option<Then<T>>, Option<Result<T, JobError>>) {
        let mut pending = self.lock();
        (pending.then.take(), pending.result.take())
    }

    /// Does what is to be done with the result, or with `otherwise` where there is none.
    fn receive(&self, control: &mut Control<'_>, otherwise: JobError) {
        let (then, result) = self.take();
        let metrics = &mut control.shared_mut().metrics;
        metrics.panics += u64::from(matches!(result, Some(Err(JobError::Panicked))));
        let Some(then) = then else {
            // It comes after its deadline.
            drop_guarded(result);
            return;
        };
        let result = result.unwrap_or(Err(otherwise));
        metrics.failed_jobs += u64::from(result.is_err());
        then(control, result);
    }
}

impl Shared {
    /// Runs `job` away from the driver, and `then` on the driver's thread with what it returned.
    /// `then` runs once, unless the driver ends before, or the timer that is returned is cancelled.
    /// The job is dropped unrun if `wanted` is gone before its turn comes.
    pub(crate) fn offload<T: Send + 'static>(
        &mut self,
        lane: Lane,
        wanted: Option<Weak<()>>,
        job: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&mut Control<'_>, Result<T, JobError>) + Send + 'static,
    ) -> TimerId {
        self.metrics.jobs += 1;
        let receiver = Receiver::new(Box::new(then));
        let late = receiver.clone();
        // The timer also keeps the driver running until the result has come.
        let expire: SendClosure =
            Box::new(move |control| late.receive(control, JobError::TimedOut));
        let deadline = self.set_any_timer(self.workplace.limits(lane).deadline, expire);
        let begun = match &self.workplace.place {
            Place::Threads(threads, home) => {
                let (home, receiver) = (Arc::clone(home), receiver.clone());
                let work = Box::new(move || {
                    receiver.put(run(job));
                    home.bring(Box::new(move |control| bring_home(control, deadline, &receiver)));
                });
                threads.begin(lane, wanted, work).map_err(drop_guarded).is_ok()
            }
            Place::Here(_) => self.work_here(lane, wanted, deadline, job, receiver.clone()),
        };
        if begun {
            return deadline;
        }
        self.cancel_closure(deadline);
        let refuse: SendClosure =
            Box::new(move |control| receiver.receive(control, JobError::Full));
        self.set_any_timer(Duration::ZERO, refuse)
    }

    /// Does the work on this thread, after the time that it takes. False when too much is under
    /// way; the work is dropped then.
    fn work_here<T: Send + 'static>(
        &mut self,
        lane: Lane,
        wanted: Option<Weak<()>>,
        deadline: TimerId,
        job: impl FnOnce() -> T + Send + 'static,
        receiver: Receiver<T>,
    ) -> bool {
        let Some(takes) = self.workplace.take_place(lane) else {
            drop_guarded(job);
            return false;
        };
        let work = move |control: &mut Control<'_>| {
            control.shared_mut().workplace.leave_place(lane);
            if wanted.is_none_or(|wanted| wanted.strong_count() > 0) {
                receiver.put(run(job));
                bring_home(control, deadline, &receiver);
            } else {
                drop_guarded(job);
            }
        };
        self.set_closure(takes, Box::new(work));
        true
    }

    /// Sets a timer whose closure any thread may carry.
    pub(super) fn set_any_timer(&mut self, delay: Duration, closure: SendClosure) -> TimerId {
        match &self.common {
            Some(common) => common.set_timer(delay, closure),
            None => self.set_closure(delay, closure),
        }
    }
}

fn run<T>(job: impl FnOnce() -> T) -> Result<T, JobError> {
    guarded(job).map_err(|panic| {
        log::error!(target: "lariat::jobs", "a job panicked: {panic}");
        JobError::Panicked
    })
}

fn bring_home<T>(control: &mut Control<'_>, deadline: TimerId, receiver: &Receiver<T>) {
    control.cancel_timer(deadline);
    receiver.receive(control, JobError::TimedOut);
}
