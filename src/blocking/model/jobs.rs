//! Jobs on the threads of the pool: each runs once or is dropped, and its result comes home once or
//! is not wanted any more, whatever ends first.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::JobError;
use crate::jobs::{Lane, Threads};
use crate::limits::JobLimits;

const DEADLINE: Duration = Duration::from_secs(30);

fn jobs(threads: usize, queue: usize) -> impl Fn(&mut DriverLimits) {
    move |limits| limits.jobs = JobLimits { threads, queue, deadline: DEADLINE }
}

/// Time-outs up to the deadline of a job may fire.
fn with_deadlines() -> Rules {
    Rules { longest: DEADLINE, ..Rules::default() }
}

/// Counts what happens, and what is still there.
#[derive(Clone, Default)]
struct Tally {
    ran: Arc<AtomicUsize>,
    came: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
    alive: Arc<()>,
}

impl Tally {
    /// A job, which takes its time.
    fn job(&self) -> impl FnOnce() -> Arc<()> + Send + 'static {
        let Tally { ran, alive, .. } = self.clone();
        move || {
            dawdle();
            ran.fetch_add(1, Ordering::SeqCst);
            alive
        }
    }

    fn note(&self, result: Result<Arc<()>, JobError>) {
        match result {
            Ok(_) => self.came.fetch_add(1, Ordering::SeqCst),
            Err(_) => self.late.fetch_add(1, Ordering::SeqCst),
        };
    }

    fn offload(&self, driver: &mut Blocking) {
        let tally = self.clone();
        driver.control().offload(self.job(), move |_, result| tally.note(result));
    }

    fn counts(&self) -> [usize; 3] {
        [&self.ran, &self.came, &self.late].map(|count| count.load(Ordering::SeqCst))
    }

    /// No job, no result and no code that waits for one is left.
    #[track_caller]
    fn check_gone(&self) {
        assert_eq!(Arc::strong_count(&self.alive), 1, "{:?}", self.counts());
    }
}

#[test]
fn model_every_result_comes_home_once_and_the_driver_waits_for_it() {
    check(|| {
        let mut driver = driver_with(jobs(2, 8));
        let tally = Tally::default();
        for _ in 0..4 {
            tally.offload(&mut driver);
        }
        run(&mut driver);
        assert_eq!(tally.counts(), [4, 4, 0]);
        check_books(&driver);
        drop(driver);
        tally.check_gone();
    });
}

#[test]
fn model_a_deadline_and_the_result_are_rivals_and_one_of_them_comes() {
    check_in(with_deadlines(), || {
        let mut driver = driver_with(jobs(1, 8));
        let tally = Tally::default();
        for _ in 0..3 {
            tally.offload(&mut driver);
        }
        driver.run().unwrap();
        let [_, came, late] = tally.counts();
        assert_eq!(came + late, 3, "{:?}", tally.counts());
        let metrics = driver.metrics();
        assert_eq!((metrics.jobs, metrics.failed_jobs), (3, late as u64));
        drop(driver);
        // A thread may still be at work for nobody.
        while Arc::strong_count(&tally.alive) > 1 {
            model::thread::yield_now();
        }
    });
}

/// Asks for two jobs, and closes when it has both results; or when it has asked, if it does not
/// wait.
struct Asking {
    tally: Tally,
    waits: bool,
    results: usize,
}

impl Protocol for Asking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.offload(self.tally.job());
        cx.offload(self.tally.job());
        if !self.waits {
            cx.close();
        }
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let result = note.downcast::<Result<Arc<()>, JobError>>();
        self.tally.note(result.unwrap_or_else(|_| unreachable!("another note")));
        self.results += 1;
        if self.results == 2 {
            cx.close();
        }
        Ok(())
    }
}

fn connect(driver: &mut Blocking, addr: SocketAddr, waits: bool) -> (Tally, Trail) {
    let tally = Tally::default();
    let (asking, trail) = watch(Asking { tally: tally.clone(), waits, results: 0 });
    driver.control().connect(addr, asking);
    (tally, trail)
}

#[test]
fn model_a_sleeping_connection_is_woken_by_its_results() {
    check(|| {
        let (peers, addr) = Peers::start(echo);
        let mut driver = driver_with(jobs(2, 8));
        let (tally, trail) = connect(&mut driver, addr, true);
        run(&mut driver);
        assert_eq!(trail.ended(), CloseKind::Finished);
        let notes = trail.steps().into_iter().filter(|step| *step == Step::Notified).count();
        assert_eq!((notes, tally.counts()), (2, [2, 2, 0]));
        check_books(&driver);
        drop(driver);
        tally.check_gone();
        peers.end();
    });
}

#[test]
fn model_a_connection_that_ends_wants_no_result_and_none_comes_behind_closed() {
    check(|| {
        let (peers, addr) = Peers::start(echo);
        let mut driver = driver_with(jobs(1, 8));
        let (tally, trail) = connect(&mut driver, addr, false);
        run(&mut driver);
        assert_eq!(trail.ended(), CloseKind::Finished);
        let [ran, came, late] = tally.counts();
        assert!(came <= ran && ran <= 2 && late == 0);
        drop(driver);
        while Arc::strong_count(&tally.alive) > 1 {
            model::thread::yield_now();
        }
        peers.end();
    });
}

#[test]
fn model_shutdown_waits_for_no_job_and_leaves_none() {
    check(|| {
        let (peers, addr) = Peers::start(echo);
        let mut driver = driver_with(jobs(1, 8));
        driver.keep_running(true);
        let (asked, trail) = connect(&mut driver, addr, true);
        let tally = Tally::default();
        tally.offload(&mut driver);
        let handle = driver.handle();
        let stopping = spawn(move || {
            dawdle();
            handle.shutdown();
        });
        driver.run().unwrap();
        join([stopping]);
        trail.ended();
        let [ran, came, late] = tally.counts();
        assert!(came <= ran && ran <= 1 && late == 0);
        drop(driver);
        for tally in [tally, asked] {
            while Arc::strong_count(&tally.alive) > 1 {
                model::thread::yield_now();
            }
        }
        peers.end();
    });
}

#[test]
fn model_a_pool_without_any_thread_refuses_in_words() {
    check_in(Rules { refused: Some("lariat job"), ..Rules::default() }, || {
        let mut driver = driver_with(jobs(2, 8));
        driver.keep_running(true);
        let tally = Tally::default();
        tally.offload(&mut driver);
        let (handle, other) = (driver.handle(), tally.clone());
        let asking = spawn(move || {
            dawdle();
            let asks = handle.call(move |control| {
                control.offload(other.job(), move |control, result| {
                    other.note(result);
                    control.shutdown();
                });
            });
            asks.unwrap();
        });
        run(&mut driver);
        join([asking]);
        assert_eq!(tally.counts(), [0, 0, 2]);
        assert_eq!(driver.metrics().failed_jobs, 2);
        drop(driver);
        tally.check_gone();
    });
}

// ---- the pool alone -----------------------------------------------------------------------------

/// A pool of so many threads and places.
fn pool(threads: usize, queue: usize) -> Arc<Threads> {
    let mut limits = DriverLimits::default();
    jobs(threads, queue)(&mut limits);
    Arc::new(Threads::new(&limits))
}

/// Hands `count` jobs over. Returns how many came back.
fn post(pool: &Threads, tally: &Tally, count: usize) -> usize {
    let posts = (0..count).map(|_| {
        let job = tally.job();
        let work = Box::new(move || drop(job()));
        usize::from(pool.begin(Lane::Jobs, None, work).is_err())
    });
    posts.sum()
}

#[test]
fn model_without_any_thread_each_poster_gets_its_own_work_back() {
    check_in(Rules { refused: Some("lariat job"), ..Rules::default() }, || {
        let pool = pool(2, 8);
        let posters: Vec<_> = (0..3)
            .map(|_| {
                let (pool, tally) = (Arc::clone(&pool), Tally::default());
                spawn(move || {
                    assert_eq!(post(&pool, &tally, 2), 2);
                    // None of it is in another's hands.
                    tally.check_gone();
                    assert_eq!(tally.counts(), [0, 0, 0]);
                })
            })
            .collect();
        join(posters);
    });
}

#[test]
fn model_work_that_comes_as_an_idle_thread_ends_is_done() {
    // The idle time of the pool's threads may pass at any moment.
    check_in(Rules { longest: Duration::from_secs(10), ..Rules::default() }, || {
        let (pool, tally) = (pool(2, 8), Tally::default());
        let posters: Vec<_> = (0..3)
            .map(|_| {
                let (pool, tally) = (Arc::clone(&pool), tally.clone());
                spawn(move || {
                    for _ in 0..2 {
                        assert_eq!(post(&pool, &tally, 1), 0);
                        dawdle();
                    }
                })
            })
            .collect();
        join(posters);
        while tally.counts()[0] < 6 {
            model::thread::yield_now();
        }
        drop(pool);
        while Arc::strong_count(&tally.alive) > 1 {
            model::thread::yield_now();
        }
    });
}

#[test]
fn model_a_sleeping_thread_is_woken_for_each_piece_of_work() {
    // No idle time passes: without a wake-up, nothing would be done any more.
    check(|| {
        let (pool, tally) = (pool(2, 8), Tally::default());
        let posters: Vec<_> = (0..3)
            .map(|_| {
                let (pool, tally) = (Arc::clone(&pool), tally.clone());
                spawn(move || {
                    assert_eq!(post(&pool, &tally, 1), 0);
                    dawdle();
                    assert_eq!(post(&pool, &tally, 1), 0);
                })
            })
            .collect();
        join(posters);
        while tally.counts()[0] < 6 {
            model::thread::yield_now();
        }
    });
}

#[test]
fn model_what_is_posted_beside_the_end_of_the_pool_runs_comes_back_or_is_dropped() {
    check(|| {
        let (pool, tally) = (pool(1, 2), Tally::default());
        let posters: Vec<_> = (0..3)
            .map(|_| {
                let (pool, tally) = (Arc::clone(&pool), tally.clone());
                spawn(move || {
                    dawdle();
                    post(&pool, &tally, 2);
                })
            })
            .collect();
        dawdle();
        pool.close();
        join(posters);
        assert_eq!(post(&pool, &tally, 1), 1, "a pool that is closed takes no more");
        while Arc::strong_count(&tally.alive) > 1 {
            model::thread::yield_now();
        }
    });
}

#[test]
fn model_no_more_waits_than_the_queue_has_places() {
    check(|| {
        let (pool, tally) = (pool(1, 2), Tally::default());
        let refused = Arc::new(AtomicUsize::new(0));
        let posters: Vec<_> = (0..3)
            .map(|_| {
                let (pool, tally) = (Arc::clone(&pool), tally.clone());
                let refused = Arc::clone(&refused);
                spawn(move || {
                    refused.fetch_add(post(&pool, &tally, 2), Ordering::SeqCst);
                })
            })
            .collect();
        join(posters);
        let refused = refused.load(Ordering::SeqCst);
        // One at work and two that wait, if nothing was done meanwhile.
        assert!(refused <= 3, "{refused}");
        while tally.counts()[0] + refused < 6 {
            model::thread::yield_now();
        }
        drop(pool);
        while Arc::strong_count(&tally.alive) > 1 {
            model::thread::yield_now();
        }
    });
}
