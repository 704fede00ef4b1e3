//! Jobs that block or compute for long, on other threads.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lariat::{
    CloseKind, Context, Control, DriverLimits, ErrorKind, JobError, JobLimits, Limits, Note,
};

use crate::handles::Told;
use crate::kit::{Play, data, everywhere, everywhere_with, on_sockets, says_all};
use crate::node::Node;
use crate::patience::{PATIENCE, until};

/// Limits of a driver whose jobs have these bounds.
fn jobs(threads: usize, queue: usize, deadline: Duration) -> DriverLimits {
    let mut limits = DriverLimits::default();
    limits.jobs = JobLimits { threads, queue, deadline };
    limits
}

/// A job that lasts until `end` is dropped, and then returns what it is given.
fn lasting<T: Send>(value: T) -> (impl FnOnce() -> T + Send, mpsc::Sender<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let job = move || {
        let _ = ended.recv();
        value
    };
    (job, end)
}

type Results<T> = Arc<Mutex<Vec<Result<T, JobError>>>>;

#[test]
fn a_connection_gets_the_result_of_its_job_as_a_note() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .data(|cx, input| {
                    if input.len() < 5 {
                        return Ok(());
                    }
                    let bytes = input.split_all();
                    cx.offload(move || bytes.iter().rev().copied().collect::<Vec<u8>>());
                    Ok(())
                })
                .eof(|_, _| Ok(()))
                .notified(|cx, note| {
                    let result = note.downcast::<Result<Vec<u8>, JobError>>().unwrap();
                    cx.write(&result.unwrap());
                    cx.close();
                    Ok(())
                })
        });
        stage.connect("client", addr, says_all(b"olleh"));
        stage.run();
        let heard = data(b"hello");
        stage.expect("client", &["opened", &heard, "eof", "closed finished by the peer"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.jobs, metrics.failed_jobs), (1, 0));
    });
}

#[test]
fn results_are_not_counted_as_notes_and_arrive_each_once() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.notes_max = 0;
        let addr = stage.serve("server", Play::new);
        let results: Results<u32> = Arc::default();
        let told = Arc::clone(&results);
        let play = Play::new()
            .opened(|cx| {
                (0..10u32).for_each(|number| cx.offload(move || number));
                cx.peer(cx.id()).notify(Note::new("refused"));
                Ok(())
            })
            .notified(move |cx, note| {
                let mut told = told.lock().unwrap();
                told.push(note.downcast().unwrap());
                if told.len() == 10 {
                    cx.close();
                }
                Ok(())
            });
        stage.connect_with("client", addr, limits, play);
        stage.run();
        let mut results: Vec<u32> = results.lock().unwrap().drain(..).map(Result::unwrap).collect();
        results.sort_unstable();
        assert_eq!(results, (0..10).collect::<Vec<_>>());
        assert_eq!(stage.driver.metrics().refused_notes, 1);
    });
}

#[test]
fn a_driver_runs_until_the_result_of_its_job_has_come() {
    everywhere(|stage| {
        let results: Results<&str> = Arc::default();
        let told = Arc::clone(&results);
        let mut control = stage.driver.control();
        control.offload(|| "done", move |_, result| told.lock().unwrap().push(result));
        drop(control);
        stage.run();
        assert_eq!(*results.lock().unwrap(), [Ok("done")]);
    });
}

#[test]
fn a_job_that_panics_has_no_result_and_harms_nobody() {
    everywhere(|stage| {
        stage.panics();
        let results: Results<u8> = Arc::default();
        for job in [|| panic!("on purpose"), || 7u8] {
            let told = Arc::clone(&results);
            stage.driver.control().offload(job, move |_, r| told.lock().unwrap().push(r));
            stage.run();
        }
        assert_eq!(*results.lock().unwrap(), [Err(JobError::Panicked), Ok(7)]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.jobs, metrics.failed_jobs, metrics.panics), (2, 1, 1));
    });
}

#[test]
fn a_job_that_takes_too_long_is_given_up_and_its_result_is_dropped() {
    on_sockets(jobs(1, 1, Duration::from_millis(50)), |stage| {
        let results: Results<Arc<()>> = Arc::default();
        let (told, value) = (Arc::clone(&results), Arc::new(()));
        let (job, end) = lasting(Arc::clone(&value));
        let begun = Instant::now();
        stage.driver.control().offload(job, move |_, r| told.lock().unwrap().push(r));
        stage.run();
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(*results.lock().unwrap(), [Err(JobError::TimedOut)]);
        assert_eq!(stage.driver.metrics().failed_jobs, 1);
        drop(end);
        // Its result still comes to the driver, which drops it.
        stage.driver.keep_running(true);
        let (handle, waits) = (stage.driver.handle(), Arc::clone(&value));
        let waiting = std::thread::spawn(move || {
            while Arc::strong_count(&waits) > 2 {
                std::thread::yield_now();
            }
            handle.shutdown();
        });
        stage.run();
        waiting.join().unwrap();
        assert_eq!((Arc::strong_count(&value), results.lock().unwrap().len()), (1, 1));
    });
}

#[test]
fn jobs_beyond_the_bound_are_refused_unrun() {
    for (asked, refused) in [(2, 0), (3, 0), (4, 1)] {
        on_sockets(jobs(1, 2, Duration::from_secs(20)), |stage| {
            let results: Results<usize> = Arc::default();
            let (ends, ran) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
            for number in 0..asked {
                let (job, end) = lasting(number);
                ends.lock().unwrap().push(end);
                let (told, ran) = (Arc::clone(&results), Arc::clone(&ran));
                let counted = move || {
                    ran.fetch_add(1, Ordering::Relaxed);
                    job()
                };
                let mut control = stage.driver.control();
                control.offload(counted, move |_, result| told.lock().unwrap().push(result));
            }
            // Those that were taken end when all have been asked for.
            stage.driver.control().set_timer(Duration::ZERO, move |_| ends.lock().unwrap().clear());
            stage.run();
            let results = results.lock().unwrap();
            let full = results.iter().filter(|result| **result == Err(JobError::Full)).count();
            assert_eq!((results.len(), full), (asked, refused));
            assert_eq!(ran.load(Ordering::Relaxed), asked - refused);
            assert_eq!(stage.driver.metrics().failed_jobs, refused as u64);
        });
    }
}

/// Closes its connection, which asked for jobs that have not begun.
fn leaves(cx: &mut Context<'_>) {
    cx.abort();
}

#[test]
fn jobs_that_wait_are_dropped_with_the_connection_that_asked_for_them() {
    on_sockets(jobs(1, 100, Duration::from_secs(20)), |stage| {
        let (busy, end) = lasting(());
        let end = Arc::new(Mutex::new(Some(end)));
        stage.driver.control().offload(busy, |_, _| ());
        let ran = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&ran);
        let addr = stage.serve("server", Play::new);
        let play = Play::new()
            .opened(move |cx| {
                for _ in 0..5 {
                    let counts = Arc::clone(&counts);
                    cx.offload(move || counts.fetch_add(1, Ordering::Relaxed));
                }
                leaves(cx);
                Ok(())
            })
            .closed(move |cx, _| {
                let end = Arc::clone(&end);
                // After the connection has gone.
                cx.after(Duration::from_millis(20), move |_| drop(end.lock().unwrap().take()));
            });
        stage.connect("client", addr, play);
        let begun = Instant::now();
        stage.run();
        assert!(begun.elapsed() < Duration::from_secs(10), "no deadline of theirs is waited for");
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn the_result_of_a_job_comes_too_late_for_a_connection_that_has_ended() {
    on_sockets(DriverLimits::default(), |stage| {
        let addr = stage.serve("server", Play::new);
        let (job, end) = lasting(());
        let (begin, begun) = mpsc::channel();
        let mut job = Some(move || {
            begin.send(()).unwrap();
            job();
        });
        let (begun, end) = (Mutex::new(begun), Arc::new(Mutex::new(Some(end))));
        let play = Play::new()
            .opened(move |cx| {
                cx.offload(job.take().unwrap());
                begun.lock().unwrap().recv().unwrap();
                cx.abort();
                Ok(())
            })
            .closed(move |cx, _| {
                let end = Arc::clone(&end);
                // After the connection has gone.
                cx.after(Duration::from_millis(20), move |_| drop(end.lock().unwrap().take()));
            });
        stage.connect("client", addr, play);
        stage.driver.keep_running(true);
        let handle = stage.driver.handle();
        let waiting = std::thread::spawn(move || {
            until(|| handle.metrics().stale == 1, "the result is counted");
            handle.shutdown();
        });
        stage.run();
        waiting.join().unwrap();
        assert_eq!(stage.driver.metrics().refused_notes, 0);
    });
}

#[test]
fn a_place_in_the_queue_is_taken_from_a_job_that_nobody_wants() {
    on_sockets(jobs(1, 5, Duration::from_secs(20)), |stage| {
        let (busy, end) = lasting(());
        stage.driver.control().offload(busy, |_, _| ());
        let addr = stage.serve("server", Play::new);
        let results: Results<u8> = Arc::default();
        let (told, end) = (Arc::clone(&results), Arc::new(Mutex::new(Some(end))));
        let play = Play::new()
            .opened(|cx| {
                (0..5).for_each(|_| cx.offload(|| ()));
                leaves(cx);
                Ok(())
            })
            .closed(move |cx, _| {
                let (told, end) = (Arc::clone(&told), Arc::clone(&end));
                cx.after(Duration::from_millis(20), move |control| {
                    control.offload(|| 7, move |_, result| told.lock().unwrap().push(result));
                    drop(end.lock().unwrap().take());
                });
            });
        stage.connect("client", addr, play);
        stage.run();
        assert_eq!(*results.lock().unwrap(), [Ok(7)]);
    });
}

#[test]
fn shutdown_waits_for_no_job() {
    on_sockets(DriverLimits::default(), |stage| {
        let (job, end) = lasting(());
        let called = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&called);
        let mut control = stage.driver.control();
        control.offload(job, move |_, _| {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        control.set_timer(Duration::from_millis(20), |control| control.shutdown());
        drop(control);
        let begun = Instant::now();
        stage.run();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(called.load(Ordering::Relaxed), 0);
        drop(end);
    });
}

#[test]
fn slow_jobs_delay_no_lookup() {
    on_sockets(jobs(1, 1, Duration::from_secs(20)), |stage| {
        let (job, end) = lasting(());
        let end = Arc::new(Mutex::new(Some(end)));
        stage.driver.control().offload(job, |_, _| ());
        let kind = Arc::new(Mutex::new(None));
        let told = Arc::clone(&kind);
        let none = |_: &str, _: u16| Ok(Vec::new());
        stage.driver.set_resolver(Box::new(none));
        let play = Play::new().closed(move |_, reason| {
            *told.lock().unwrap() = Some(reason.kind());
            end.lock().unwrap().take();
        });
        stage.connect("client", "server.test:7000", play);
        stage.run();
        let name = CloseKind::Connect(lariat::ConnectFailure::Name);
        assert_eq!(*kind.lock().unwrap(), Some(name));
    });
}

#[test]
fn as_many_jobs_run_beside_one_another_as_there_are_threads() {
    on_sockets(jobs(3, 100, Duration::from_secs(20)), |stage| {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let barrier = Arc::new(std::sync::Barrier::new(3));
        for _ in 0..9 {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            let barrier = Arc::clone(&barrier);
            let job = move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // Three of them have to be here together, three times.
                barrier.wait();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            stage.driver.control().offload(job, |_, result| assert_eq!(result, Ok(())));
        }
        stage.run();
        assert_eq!(most.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn in_the_simulator_as_many_jobs_are_under_way_as_threads_and_queue_hold() {
    everywhere_with(jobs(1, 2, Duration::from_secs(20)), |stage| {
        if stage.is_real() {
            // There the first may have ended before the last is asked for.
            stage.run();
            return;
        }
        let results: Results<()> = Arc::default();
        for _ in 0..4 {
            let told = Arc::clone(&results);
            stage.driver.control().offload(|| (), move |_, r| told.lock().unwrap().push(r));
        }
        stage.run();
        let results = results.lock().unwrap();
        assert_eq!(*results, [Err(JobError::Full), Ok(()), Ok(()), Ok(())]);
    });
}

#[test]
fn a_job_that_nobody_waits_for_keeps_no_place_from_others() {
    let bounds = jobs(1, 1, Duration::from_secs(30));
    everywhere_with(bounds, |stage| {
        let addr = stage.serve_many(5, Limits::default(), |number| {
            let play = Play::new().data(move |cx, input| {
                input.consume_all();
                cx.offload(move || number);
                if number < 4 {
                    cx.abort();
                }
                Ok(())
            });
            let play = play.notified(|cx, note| {
                let result = note.downcast::<Result<usize, JobError>>().unwrap();
                assert_eq!(result, Ok(4));
                cx.close();
                Ok(())
            });
            (format!("server {number}"), play)
        });
        one_after_another(&mut stage.driver.control(), addr, 5);
        stage.run();
        stage.expect("server 4", &["opened", &data(b"x"), "notified", "closed finished by us"]);
    });
}

/// Connects so often, each time a moment after the one before has ended: a job of the simulator
/// lasts for a millisecond.
fn one_after_another(control: &mut Control<'_>, addr: SocketAddr, left: usize) {
    let client = Play::new().opened(|cx| {
        cx.write(b"x");
        Ok(())
    });
    let client = client.closed(move |cx, _| {
        if left > 1 {
            let next = move |control: &mut Control<'_>| one_after_another(control, addr, left - 1);
            cx.after(Duration::from_millis(30), next);
        }
    });
    control.connect(addr, client);
}

#[test]
fn c17_a_result_that_came_in_time_is_not_late_when_it_is_noticed_late() {
    const DEADLINE: Duration = Duration::from_millis(300);
    for events_max in [1, 1024] {
        let mut limits = jobs(2, 10, DEADLINE);
        limits.events_max = events_max;
        on_sockets(limits, |stage| {
            // A client that comes meanwhile is one more event.
            let addr = stage.serve("server", Play::new);
            let results: Results<u8> = Arc::default();
            let kept = Arc::clone(&results);
            let slow = move |control: &mut Control<'_>| {
                let (done, is_done) = mpsc::channel::<()>();
                let job = move || {
                    // As this is dropped, the job is over.
                    let _done = done;
                    7
                };
                control.offload(job, move |control, result| {
                    kept.lock().unwrap().push(result);
                    control.shutdown();
                });
                let _client = std::net::TcpStream::connect(addr).unwrap();
                let _ = is_done.recv();
                std::thread::sleep(DEADLINE + DEADLINE / 2);
            };
            stage.driver.handle().call(slow).unwrap();
            stage.run();
            assert_eq!(*results.lock().unwrap(), [Ok(7)]);
            assert_eq!(stage.driver.metrics().failed_jobs, 0);
        });
    }
}

#[test]
fn a_handle_has_a_job_done_for_a_connection_and_for_a_datagram_socket() {
    fn answer(note: Note) -> String {
        note.downcast::<Result<u8, JobError>>().map(|result| format!("{result:?}")).unwrap()
    }
    everywhere(|stage| {
        let (told, tells) = (Told::default(), Told::default());
        let (stream, socket) = (told.clone(), tells.clone());
        let addr = stage.serve("server", Play::new);
        let id = stage.connect(
            "client",
            addr,
            Play::new().notified(move |cx, note| {
                stream.tell(answer(note));
                cx.close();
                Ok(())
            }),
        );
        let node = Node::new().notified(move |cx, note| {
            socket.tell(answer(note));
            cx.close();
            Ok(())
        });
        let (bound, _) = stage.bind("node", node);
        let handle = stage.driver.handle();
        handle.offload(id, || 7_u8).unwrap();
        handle.offload(bound, || 8_u8).unwrap();
        stage.run();
        told.expect(stage, &["Ok(7)"]);
        tells.expect(stage, &["Ok(8)"]);
        stage.driver.handle().shutdown();
        stage.driver.run().unwrap();
        let error = stage.driver.handle().offload(id, || 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stopped);
    });
}

#[test]
fn what_is_done_with_a_late_result_keeps_no_thread_of_jobs_waiting() {
    on_sockets(jobs(1, 10, Duration::from_millis(50)), |stage| {
        let (go, goes) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let went_on = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&went_on);
        let mut control = stage.driver.control();
        let late = move || {
            let _ = goes.recv();
        };
        control.offload(late, move |_, result| {
            assert_eq!(result, Err(JobError::TimedOut));
            // The thread is done with the first job, and has to take the second.
            go.send(()).unwrap();
            let next = is_done.recv_timeout(PATIENCE).is_ok();
            counts.fetch_add(usize::from(next), Ordering::Relaxed);
        });
        control.offload(move || done.send(()).unwrap(), |_, _| ());
        drop(control);
        stage.run();
        assert_eq!(went_on.load(Ordering::Relaxed), 1);
    });
}
