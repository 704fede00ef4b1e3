//! Threads for work that blocks: jobs of a program, and lookups of names. The driver's own threads
//! never wait for it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use crate::guard::drop_guarded;
use crate::limits::{DriverLimits, JobLimits};
use crate::sync::thread;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How long a thread waits for work before it ends; [`JobLimits::threads`] names it.
const IDLE: Duration = Duration::from_secs(10);

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobError {
    /// As many jobs wait as [`JobLimits::queue`] says, or no thread could be started. The job was
    /// dropped without having run.
    Full,
    /// [`JobLimits::deadline`] passed. The job may still run; its result is dropped.
    TimedOut,
    /// The job panicked; the log has the message.
    Panicked,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobError::Full => "too many jobs wait for a thread",
            JobError::TimedOut => "the job took longer than its deadline",
            JobError::Panicked => "the job panicked",
        })
    }
}

impl std::error::Error for JobError {}

/// What a thread runs. It guards the user's code itself.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// Which threads work: those of jobs, or those of lookups, so that slow jobs delay no connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Jobs,
    Lookups,
}

/// The threads of a driver for work that blocks. When it is dropped, work that waits is dropped,
/// and each thread ends after the work that it is doing.
pub(crate) struct Threads {
    jobs: Arc<Pool>,
    lookups: Arc<Pool>,
}

impl Threads {
    pub(crate) fn new(limits: &DriverLimits) -> Threads {
        Threads {
            jobs: Pool::new("lariat job", &limits.jobs, IDLE),
            lookups: Pool::new("lariat lookup", &limits.lookups, IDLE),
        }
    }

    /// Hands work to a thread. It comes back if too much waits already, or no thread can be
    /// started. Work whose `wanted` is gone is dropped when its turn comes, or when its place is
    /// needed.
    pub(crate) fn begin(
        &self,
        lane: Lane,
        wanted: Option<Weak<()>>,
        work: Work,
    ) -> Result<(), Work> {
        match lane {
            Lane::Jobs => self.jobs.begin(Waiting { wanted, work }),
            Lane::Lookups => self.lookups.begin(Waiting { wanted, work }),
        }
    }

    /// Drops what waits, and lets the threads end.
    pub(crate) fn close(&self) {
        self.jobs.close();
        self.lookups.close();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

struct Waiting {
    /// Gone with what waits for the result; None when that cannot go away.
    wanted: Option<Weak<()>>,
    work: Work,
}

impl Waiting {
    fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.strong_count() > 0)
    }
}

/// At most so many threads, which start when there is work, and a queue with a bound.
struct Pool {
    name: &'static str,
    threads_max: usize,
    queue_max: usize,
    /// How long a thread waits for work before it ends.
    idle: Duration,
    inside: Mutex<Inside>,
    /// Idle threads wait here.
    work: Condvar,
}

#[derive(Default)]
struct Inside {
    queue: VecDeque<Waiting>,
    threads: usize,
    /// Those of them that have work.
    busy: usize,
    closed: bool,
}

impl Pool {
    fn new(name: &'static str, limits: &JobLimits, idle: Duration) -> Arc<Pool> {
        Arc::new(Pool {
            name,
            threads_max: limits.threads,
            queue_max: limits.queue,
            idle,
            inside: Mutex::default(),
            work: Condvar::new(),
        })
    }

    /// User code never runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Pool>, waiting: Waiting) -> Result<(), Work> {
        self.begin_with(waiting, || self.start())
    }

    /// `start` starts a thread, under the lock: what comes meanwhile would count on a thread that
    /// may never be.
    fn begin_with(
        &self,
        waiting: Waiting,
        start: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Work> {
        let mut inside = self.lock();
        if inside.closed {
            drop(inside);
            return Err(waiting.work);
        }
        let starts = !inside.has_free() && inside.threads < self.threads_max;
        let started = if starts { start() } else { Ok(()) };
        inside.threads += usize::from(starts && started.is_ok());
        let mut unwanted = Vec::new();
        if !self.has_room(&inside) {
            unwanted = inside.take_unwanted();
        }
        let result = if self.has_room(&inside) {
            inside.queue.push_back(waiting);
            Ok(())
        } else {
            Err(waiting.work)
        };
        drop(inside);
        drop_all(unwanted);
        if let Err(error) = started {
            log_no_thread(self.name, &error);
        }
        if result.is_ok() && !starts {
            self.work.notify_one();
        }
        result
    }

    /// Whether one more may wait for a thread that there is.
    fn has_room(&self, inside: &Inside) -> bool {
        inside.has_free() || (inside.threads > 0 && inside.backlog() < self.queue_max)
    }

    fn start(self: &Arc<Pool>) -> io::Result<()> {
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name(self.name.to_owned());
        thread.spawn(move || pool.run()).map(drop)
    }

    /// The life of a thread.
    fn run(&self) {
        let mut inside = self.lock();
        loop {
            match inside.queue.pop_front() {
                Some(waiting) => {
                    inside.busy += 1;
                    drop(inside);
                    if waiting.is_wanted() {
                        (waiting.work)();
                    } else {
                        drop_guarded(waiting.work);
                    }
                    inside = self.lock();
                    inside.busy -= 1;
                }
                None if inside.closed => break,
                None => {
                    let woken = self.work.wait_timeout(inside, self.idle);
                    inside = woken.unwrap_or_else(PoisonError::into_inner).0;
                    // Also when another thread was quicker: the next job starts one if need be.
                    if inside.queue.is_empty() {
                        break;
                    }
                }
            }
        }
        inside.threads -= 1;
    }

    fn close(&self) {
        let mut inside = self.lock();
        inside.closed = true;
        let queue = std::mem::take(&mut inside.queue);
        drop(inside);
        self.work.notify_all();
        drop_all(queue);
    }
}

impl Inside {
    /// Whether a thread is free for one more.
    fn has_free(&self) -> bool {
        self.queue.len() < self.threads - self.busy
    }

    /// What waits beyond the threads that are free.
    fn backlog(&self) -> usize {
        self.queue.len().saturating_sub(self.threads - self.busy)
    }

    fn take_unwanted(&mut self) -> Vec<Waiting> {
        let all = std::mem::take(&mut self.queue).into_iter();
        let (wanted, unwanted) = all.partition(Waiting::is_wanted);
        self.queue = wanted;
        unwanted.into()
    }
}

fn drop_all(waiting: impl IntoIterator<Item = Waiting>) {
    for one in waiting {
        drop_guarded(one.work);
    }
}

fn log_no_thread(name: &str, error: &io::Error) {
    log::error!(target: "lariat::jobs", "cannot start a thread ({name}): {error}");
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Work that lasts until the other end is dropped, and has begun.
    fn busy(threads: &Threads) -> mpsc::Sender<()> {
        busy_in(threads, Lane::Jobs)
    }

    fn busy_in(threads: &Threads, lane: Lane) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let work = Box::new(move || {
            begin.send(()).unwrap();
            let _ = ended.recv();
        });
        assert!(threads.begin(lane, None, work).is_ok());
        begun.recv().unwrap();
        end
    }

    /// One thread, and a queue for as much work as that.
    fn threads(queue: usize) -> Arc<Threads> {
        let mut limits = DriverLimits::default();
        (limits.jobs.threads, limits.jobs.queue) = (1, queue);
        limits.lookups = limits.jobs.clone();
        Arc::new(Threads::new(&limits))
    }

    /// Runs its code when it is dropped.
    struct AtLast<F: FnMut()>(F);

    impl<F: FnMut()> Drop for AtLast<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    /// Work that nobody wants, with something in it that is dropped.
    fn unwanted(threads: &Threads, at_last: impl FnMut() + Send + 'static) {
        let at_last = AtLast(at_last);
        let work = Box::new(move || drop(at_last));
        assert!(threads.begin(Lane::Jobs, Some(Weak::new()), work).is_ok());
    }

    #[test]
    fn what_waits_is_dropped_unrun_with_the_driver() {
        for lane in [Lane::Jobs, Lane::Lookups] {
            let threads = threads(1);
            let end = busy_in(&threads, lane);
            let (tell, told) = mpsc::channel();
            let work = Box::new(move || tell.send(()).unwrap());
            assert!(threads.begin(lane, None, work).is_ok());
            drop(threads);
            drop(end);
            assert_eq!(told.recv(), Err(mpsc::RecvError), "it was dropped, and did not run");
        }
    }

    /// Waits until what the threads of `pool` do is as `holds` says.
    #[track_caller]
    fn wait_for(pool: &Pool, what: &str, holds: impl Fn(&Inside) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(&pool.lock()) {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_is_free_takes_the_next_work_and_no_other_starts() {
        let threads = Threads::new(&DriverLimits::default());
        for _ in 0..3 {
            drop(busy(&threads));
            wait_for(&threads.jobs, "the work has an end", |inside| inside.busy == 0);
        }
        assert_eq!(threads.jobs.lock().threads, 1);
        let ends = [busy(&threads), busy(&threads)];
        assert_eq!(threads.jobs.lock().threads, 2, "one more, as the first has work");
        drop(ends);
    }

    #[test]
    fn a_thread_without_work_ends_after_ten_seconds_and_work_starts_another() {
        let limits = DriverLimits::default();
        let mut threads = Threads::new(&limits);
        let ten = Duration::from_secs(10);
        assert_eq!((threads.jobs.idle, threads.lookups.idle), (ten, ten));
        threads.jobs = Pool::new("lariat job", &limits.jobs, Duration::from_millis(1));
        for _ in 0..2 {
            drop(busy(&threads));
            wait_for(&threads.jobs, "the thread ends", |inside| inside.threads == 0);
        }
    }

    #[test]
    fn a_drop_that_panics_in_work_that_makes_room_harms_nobody() {
        let threads = threads(1);
        let end = busy(&threads);
        unwanted(&threads, || panic!("planned"));
        assert!(threads.begin(Lane::Jobs, None, Box::new(|| ())).is_ok());
        drop(end);
    }

    #[test]
    fn work_that_makes_room_may_hand_out_work_as_it_is_dropped() {
        let threads = threads(1);
        let end = busy(&threads);
        let (again, (tell, told)) = (Arc::clone(&threads), mpsc::channel());
        // Its place has been given away by then, so that there is none for what it hands out.
        unwanted(&threads, move || {
            let refused = again.begin(Lane::Jobs, None, Box::new(|| ())).is_err();
            tell.send(refused).unwrap();
        });
        // On a thread of its own, which would wait for itself if the drop ran under the lock.
        let begins = Arc::clone(&threads);
        thread::spawn(move || begins.begin(Lane::Jobs, None, Box::new(|| ())).is_ok());
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true));
        drop(end);
    }

    #[test]
    fn a_driver_that_is_gone_takes_no_work_but_drops_what_nobody_wants() {
        let threads = threads(1);
        let end = busy(&threads);
        let dropped = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let drops = Arc::clone(&dropped);
        unwanted(&threads, move || {
            drops.store(true, std::sync::atomic::Ordering::Relaxed);
            panic!("planned");
        });
        threads.close();
        assert!(dropped.load(std::sync::atomic::Ordering::Relaxed));
        assert!(threads.begin(Lane::Jobs, None, Box::new(|| ())).is_err());
        drop(end);
    }

    fn no_thread() -> io::Result<()> {
        Err(io::Error::other("planned"))
    }

    /// Work that is told of when it runs.
    fn telling(tell: &mpsc::Sender<u32>, number: u32) -> Waiting {
        let tell = tell.clone();
        Waiting { wanted: None, work: Box::new(move || tell.send(number).unwrap()) }
    }

    #[test]
    fn a_start_that_fails_gives_back_the_work_that_asked_for_it_and_leaves_none() {
        let threads = Threads::new(&DriverLimits::default());
        let (tell, told) = mpsc::channel();
        let work = threads.jobs.begin_with(telling(&tell, 1), no_thread).unwrap_err();
        let inside = threads.jobs.lock();
        assert_eq!((inside.threads, inside.queue.len()), (0, 0));
        drop(inside);
        work();
        assert_eq!(told.recv(), Ok(1), "it is the caller's own");
        // A thread that starts later finds nothing of it.
        assert!(threads.begin(Lane::Jobs, None, telling(&tell, 2).work).is_ok());
        assert_eq!(told.recv(), Ok(2));
        drop(tell);
        assert_eq!(told.recv(), Err(mpsc::RecvError), "nothing else runs");
    }

    #[test]
    fn nobody_counts_on_a_thread_that_has_not_started() {
        let threads = threads(1);
        let (tell, told) = mpsc::channel();
        let start = || {
            assert!(threads.jobs.inside.try_lock().is_err(), "others wait for what becomes of it");
            no_thread()
        };
        drop(threads.jobs.begin_with(telling(&tell, 1), start).unwrap_err());
        drop(tell);
        assert_eq!(told.recv(), Err(mpsc::RecvError));
    }

    #[test]
    fn behind_a_start_that_fails_work_waits_for_a_thread_that_there_is_within_the_bound() {
        let mut limits = DriverLimits::default();
        (limits.jobs.threads, limits.jobs.queue) = (3, 2);
        let threads = Threads::new(&limits);
        let end = busy(&threads);
        let (tell, told) = mpsc::channel();
        for number in [1, 2] {
            assert!(threads.jobs.begin_with(telling(&tell, number), no_thread).is_ok());
        }
        let third = threads.jobs.begin_with(telling(&tell, 3), no_thread);
        drop(third.expect_err("two wait already"));
        drop((end, tell));
        assert_eq!(told.iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn each_reason_has_its_sentence() {
        let said = [JobError::Full, JobError::TimedOut, JobError::Panicked].map(|e| e.to_string());
        assert_eq!(
            said,
            [
                "too many jobs wait for a thread",
                "the job took longer than its deadline",
                "the job panicked",
            ]
        );
    }
}
