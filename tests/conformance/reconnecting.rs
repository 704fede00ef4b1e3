//! A connection that is kept: `lariat::reconnect`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lariat::reconnect::{Attempt, Backoff, Ended, Keeper, Reconnect};
use lariat::{CloseKind, ConnectFailure, Control, Endpoint, ErrorKind, IntoAddress, Limits};

use crate::kit::{Play, Stage, data, everywhere, on_sockets, says};
use crate::silence::{has_silence, silent};

const REFUSED: CloseKind = CloseKind::Connect(ConnectFailure::Refused);
const CANCELLED: CloseKind = CloseKind::Connect(ConnectFailure::Cancelled);

/// Short delays.
fn backoff() -> Backoff {
    let mut backoff = Backoff::default();
    (backoff.first, backoff.cap) = (Duration::from_millis(2), Duration::from_millis(5));
    backoff
}

/// Delays of which a test sees no end.
fn endless() -> Backoff {
    let mut backoff = Backoff::default();
    (backoff.first, backoff.cap) = (Duration::MAX, Duration::MAX);
    backoff
}

/// What an attempt has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct End {
    attempt: u64,
    failures: u32,
    kind: CloseKind,
    again: bool,
}

fn end(attempt: u64, failures: u32, kind: CloseKind, again: bool) -> End {
    End { attempt, failures, kind, again }
}

/// The ends and the attempts of a kept connection, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    ends: Vec<End>,
    delays: Vec<Duration>,
    attempts: Vec<Attempt>,
    keeper: Option<Keeper>,
}

impl Log {
    fn note_end(&self, ended: &Ended<'_>) {
        let mut facts = self.0.lock().unwrap();
        facts.ends.push(End {
            attempt: ended.attempt(),
            failures: ended.failures(),
            kind: ended.reason().kind(),
            again: ended.delay().is_some(),
        });
        facts.delays.extend(ended.delay());
    }

    fn ends(&self) -> Vec<End> {
        self.0.lock().unwrap().ends.clone()
    }

    fn attempts(&self) -> Vec<Attempt> {
        self.0.lock().unwrap().attempts.clone()
    }

    /// Keeps a connection to `addr` and notes what becomes of it, under the name `client`.
    fn start(
        &self,
        stage: &mut Stage<'_>,
        addr: impl IntoAddress,
        backoff: Backoff,
        mut on_end: impl FnMut(&mut Control<'_>, &Keeper, &Ended<'_>) + Send + 'static,
        make: impl Fn() -> Play + Send + 'static,
    ) -> Keeper {
        let (ends, attempts, trace) = (self.clone(), self.clone(), stage.trace.clone());
        let reconnect = Reconnect::to(addr)
            .with_backoff(backoff)
            .until(|end| end.kind() == CloseKind::Finished)
            .on_end(move |control, ended| {
                ends.note_end(ended);
                let keeper = ends.0.lock().unwrap().keeper.clone().unwrap();
                on_end(control, &keeper, ended);
            });
        let make = move |attempt: &Attempt| {
            attempts.0.lock().unwrap().attempts.push(attempt.clone());
            trace.wrap("client", make())
        };
        let keeper = reconnect.start(&mut stage.driver.control(), make).unwrap();
        self.0.lock().unwrap().keeper = Some(keeper.clone());
        keeper
    }
}

/// Reads a word and closes.
fn listens_for(word: &'static [u8]) -> Play {
    Play::new().data(move |cx, input| {
        if input.len() == word.len() {
            input.consume_all();
            cx.close();
        }
        Ok(())
    })
}

/// The path of a Unix socket that nobody else uses; gone with this.
struct Path(std::path::PathBuf);

impl Path {
    fn new(stage: &Stage<'_>, name: &str) -> Path {
        let threads = if stage.has_threads() { "threads" } else { "loop" };
        let file = format!("lariat-{}-{name}-{threads}.sock", std::process::id());
        Path(std::env::temp_dir().join(file))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_server_that_refuses_and_then_lives_is_reached_by_the_attempt_after() {
    everywhere(|stage| {
        let path = Path::new(stage, "late");
        let (log, trace, addr) = (Log::default(), stage.trace.clone(), path.0.clone());
        let serve = move |control: &mut Control<'_>, _: &Keeper, ended: &Ended<'_>| {
            if ended.attempt() == 3 {
                let trace = trace.clone();
                let factory = move |incoming: &lariat::Incoming| {
                    let last = crate::kit::Last::new(says(b"hello"), incoming);
                    Some(trace.wrap("server", last))
                };
                control.listen(&*addr, factory).unwrap();
            }
        };
        let keeper = log.start(stage, &*path.0, backoff(), serve, || listens_for(b"hello"));
        stage.run();
        stage.expect("server", &["opened", "eof", "closed finished by the peer"]);
        let mut lines = vec!["closed connect refused by the peer"; 3];
        let heard = data(b"hello");
        lines.extend(["opened", &heard, "closed finished by us"]);
        stage.expect("client", &lines);
        let finished = CloseKind::Finished;
        let ends = [
            end(1, 1, REFUSED, true),
            end(2, 2, REFUSED, true),
            end(3, 3, REFUSED, true),
            end(4, 4, finished, false),
        ];
        assert_eq!(log.ends(), ends);
        assert!(keeper.is_over() && keeper.conn().is_none());
        let attempts = log.attempts();
        let numbers: Vec<(u64, u32)> =
            attempts.iter().map(|a| (a.number(), a.failures())).collect();
        assert_eq!(numbers, [(1, 0), (2, 1), (3, 2), (4, 3)]);
        let last: Vec<_> = attempts.iter().map(|a| a.last().map(|last| last.kind())).collect();
        assert_eq!(last, [None, Some(REFUSED), Some(REFUSED), Some(REFUSED)]);
        let bounds = [2, 4, 5].map(Duration::from_millis);
        let delays = log.0.lock().unwrap().delays.clone();
        assert!(delays.iter().zip(bounds).all(|(delay, bound)| *delay <= bound), "{delays:?}");
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.connects, metrics.timers), (4, 3));
    });
}

#[test]
fn a_connection_that_opens_and_ends_soon_is_one_more_failure() {
    everywhere(|stage| {
        let log = Log::default();
        let flapping = |_| {
            (
                "server".to_owned(),
                Play::new().opened(|cx| {
                    cx.close();
                    Ok(())
                }),
            )
        };
        let addr = stage.serve_many(4, Limits::default(), flapping);
        let mut backoff = backoff();
        backoff.failures_max = Some(4);
        // The protocol ends by an error, so that no end is one in order.
        let failing = || Play::new().eof(|_, _| Err("it went".into()));
        let keeper = log.start(stage, addr, backoff, |_, _, _| (), failing);
        stage.run();
        let ends = log.ends();
        let told: Vec<_> = ends.iter().map(|end| (end.attempt, end.failures, end.again)).collect();
        assert_eq!(told, [(1, 1, true), (2, 2, true), (3, 3, true), (4, 4, false)]);
        assert!(keeper.is_over());
        assert_eq!(stage.driver.metrics().connects, 4);
    });
}

#[test]
fn every_connection_that_opens_is_healthy_where_the_period_is_zero() {
    everywhere(|stage| {
        let log = Log::default();
        let hello = |_| ("server".to_owned(), says(b"hello"));
        let addr = stage.serve_many(3, Limits::default(), hello);
        let mut backoff = backoff();
        (backoff.healthy, backoff.failures_max) = (Duration::ZERO, Some(2));
        let stop = |control: &mut Control<'_>, keeper: &Keeper, ended: &Ended<'_>| {
            if ended.attempt() == 3 {
                keeper.stop(control);
            }
        };
        let failing = || Play::new().data(|_, _| Err("it is enough".into()));
        log.start(stage, addr, backoff, stop, failing);
        stage.run();
        let kind = CloseKind::Protocol;
        let ends = [end(1, 1, kind, true), end(2, 1, kind, true), end(3, 1, kind, true)];
        assert_eq!(log.ends(), ends);
        assert_eq!(stage.driver.metrics().connects, 3, "it was stopped in the call");
    });
}

#[test]
fn as_many_failures_as_allowed_are_the_end_of_it() {
    everywhere(|stage| {
        for most in [1, 2] {
            let log = Log::default();
            let mut backoff = backoff();
            backoff.failures_max = Some(most);
            let addr = stage.deserted();
            let keeper = log.start(stage, addr, backoff, |_, _, _| (), Play::new);
            stage.run();
            let ends: Vec<bool> = log.ends().iter().map(|end| end.again).collect();
            let expected: &[bool] = if most == 1 { &[false] } else { &[true, false] };
            assert_eq!(ends, expected);
            assert!(keeper.is_over());
        }
    });
}

#[test]
fn a_stop_ends_a_delay_at_once_and_nothing_is_called() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.deserted();
        let soon = |control: &mut Control<'_>, keeper: &Keeper, _: &Ended<'_>| {
            let keeper = keeper.clone();
            control.set_timer(Duration::from_millis(2), move |control| {
                assert!(keeper.conn().is_none() && !keeper.is_over());
                keeper.stop(control);
                assert!(keeper.is_over());
                keeper.stop(control);
            });
        };
        let keeper = log.start(stage, addr, endless(), soon, Play::new);
        stage.run();
        assert_eq!(log.ends(), [end(1, 1, REFUSED, true)]);
        assert!(keeper.is_over());
        assert_eq!(log.attempts().len(), 1);
    });
}

#[test]
fn a_driver_that_is_shut_down_does_not_wait_for_a_delay() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.deserted();
        let soon = |control: &mut Control<'_>, _: &Keeper, _: &Ended<'_>| control.shutdown();
        let keeper = log.start(stage, addr, endless(), soon, Play::new);
        let begun = stage.driver.control().now();
        stage.driver.keep_running(true);
        stage.run();
        assert_eq!(log.ends(), [end(1, 1, REFUSED, true)]);
        let took = stage.driver.control().now() - begun;
        stage.check(took < Duration::from_secs(20), "it waited");
        assert!(keeper.is_over(), "the driver has ended");
    });
}

#[test]
fn a_delay_that_ends_while_the_driver_drains_begins_no_attempt() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.deserted();
        // It keeps the driver draining until the delay is over.
        let drains = Arc::new(AtomicBool::new(false));
        let opened = Arc::clone(&drains);
        let busy = stage.serve("busy", move || {
            let opened = Arc::clone(&opened);
            Play::new()
                .opened(move |_| {
                    opened.store(true, Ordering::Release);
                    Ok(())
                })
                .stopping(|cx| {
                    cx.set_timer(lariat::Timer::new(1), Duration::from_millis(30));
                    Ok(())
                })
        });
        stage.connect("other", busy, Play::new().stopping(|_| Ok(())));
        let last = Arc::new(AtomicU64::new(0));
        let stopped_at = Arc::clone(&last);
        let soon = move |control: &mut Control<'_>, _: &Keeper, ended: &Ended<'_>| {
            if drains.load(Ordering::Acquire) && ended.attempt() >= 2 && !control.is_stopping() {
                stopped_at.store(ended.attempt(), Ordering::Relaxed);
                control.shutdown();
            }
        };
        let keeper = log.start(stage, addr, backoff(), soon, Play::new);
        stage.run();
        let last = last.load(Ordering::Relaxed);
        assert_eq!(
            log.ends().last().map(|end| end.attempt),
            Some(last),
            "the last before it stops"
        );
        assert!(keeper.is_over());
        assert_eq!(stage.driver.metrics().connects, last + 1);
    });
}

#[test]
fn a_stop_before_the_driver_runs_cancels_the_connect() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.deserted();
        let keeper = log.start(stage, addr, backoff(), |_, _, _| (), Play::new);
        assert!(keeper.conn().is_some());
        keeper.stop(&mut stage.driver.control());
        stage.run();
        let ends = log.ends();
        assert_eq!((ends.len(), ends[0].again), (1, false), "{ends:?}");
        assert!(keeper.is_over());
    });
}

#[test]
fn a_stop_cancels_a_connect_that_nobody_answers() {
    if !has_silence() {
        return;
    }
    on_sockets(lariat::DriverLimits::default(), |stage| {
        let (hole, other, log) = (silent(), silent(), Log::default());
        let addrs = [hole.addr, other.addr];
        let keeper = log.start(stage, addrs, backoff(), |_, _, _| (), Play::new);
        let remote = keeper.clone();
        stage.driver.control().set_timer(Duration::from_millis(20), move |control| {
            remote.stop(control);
        });
        let begun = Instant::now();
        stage.run();
        assert_eq!(log.ends(), [end(1, 1, CANCELLED, false)]);
        assert!(begun.elapsed() < Duration::from_secs(20) && keeper.is_over());
    });
}

#[test]
fn another_address_is_used_from_the_next_attempt_on() {
    everywhere(|stage| {
        let log = Log::default();
        let (nobody, addr) = (stage.deserted(), stage.serve("server", || says(b"hello")));
        let replace = move |_: &mut Control<'_>, keeper: &Keeper, ended: &Ended<'_>| {
            if ended.attempt() == 2 {
                keeper.set_addr(addr);
            }
        };
        log.start(stage, nobody, backoff(), replace, || listens_for(b"hello"));
        stage.run();
        let finished = CloseKind::Finished;
        let ends = [end(1, 1, REFUSED, true), end(2, 2, REFUSED, true), end(3, 3, finished, false)];
        assert_eq!(log.ends(), ends);
    });
}

#[test]
fn a_stop_closes_an_open_connection_in_order() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.serve("server", || says(b"hello"));
        let stops = log.clone();
        let make = move || {
            let stops = stops.clone();
            Play::new().data(move |cx, input| {
                if input.len() == 5 {
                    input.consume_all();
                    let keeper = stops.0.lock().unwrap().keeper.clone().unwrap();
                    assert_eq!(keeper.conn(), Some(cx.id()));
                    cx.write(b"bye");
                    keeper.stop(&mut cx.driver());
                    assert!(keeper.is_over());
                }
                Ok(())
            })
        };
        log.start(stage, addr, backoff(), |_, _, _| (), make);
        stage.run();
        let bye = data(b"bye");
        stage.expect("server", &["opened", &bye, "eof", "closed finished by the peer"]);
        assert_eq!(log.ends(), [end(1, 1, CloseKind::Finished, false)]);
    });
}

#[test]
fn shutdown_of_the_driver_is_the_last_end() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.serve("server", || says(b"hello"));
        let make = || {
            Play::new().data(|cx, input| {
                input.consume_all();
                cx.driver().shutdown();
                Ok(())
            })
        };
        // Not `Finished`, so that nothing but the shutdown is in the way of another attempt.
        let make = move || make().stopping(|_| Err("not in order".into()));
        let keeper = log.start(stage, addr, backoff(), |_, _, _| (), make);
        stage.run();
        let ends = log.ends();
        assert_eq!((ends.len(), ends[0].again), (1, false), "{ends:?}");
        assert_ne!(ends[0].kind, CloseKind::Finished);
        assert!(keeper.is_over());
        assert_eq!(stage.driver.metrics().connects, 1);
    });
}

#[test]
fn a_protocol_that_takes_over_is_kept_as_well() {
    everywhere(|stage| {
        let log = Log::default();
        let addr = stage.serve_many(2, Limits::default(), |number| {
            (format!("server {number}"), says(b"hello"))
        });
        let trace = stage.trace.clone();
        let make = move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                let next = Play::new().data(|_, _| Err("it is enough".into()));
                cx.replace(trace.wrap("next", next));
                Ok(())
            })
        };
        let mut backoff = backoff();
        backoff.failures_max = Some(2);
        log.start(stage, addr, backoff, |_, _, _| (), make);
        stage.run();
        let kind = CloseKind::Protocol;
        assert_eq!(log.ends(), [end(1, 1, kind, true), end(2, 2, kind, false)]);
        let told = stage.trace.of("next");
        assert_eq!(told.iter().filter(|line| line.starts_with("closed")).count(), 2);
    });
}

#[test]
fn a_panic_in_the_protocol_is_an_end_like_any_other() {
    everywhere(|stage| {
        stage.panics();
        let log = Log::default();
        let addr = stage.serve_many(2, Limits::default(), |number| {
            (format!("server {number}"), says(b"hello"))
        });
        let make = || {
            let play = Play::new().data(|_, _| panic!("planned"));
            play.closed(|_, _| panic!("planned, too"))
        };
        let mut backoff = backoff();
        backoff.failures_max = Some(2);
        log.start(stage, addr, backoff, |_, _, _| (), make);
        stage.run();
        let kind = CloseKind::Panicked;
        assert_eq!(log.ends(), [end(1, 1, kind, true), end(2, 2, kind, false)]);
        assert_eq!(stage.driver.metrics().panics, 4);
    });
}

#[test]
fn a_panic_in_the_factory_ends_the_attempts_and_nothing_else() {
    everywhere(|stage| {
        stage.panics();
        let nobody = stage.deserted();
        let make = |attempt: &Attempt| {
            assert!(attempt.number() < 2, "planned");
            Play::new()
        };
        let reconnect = Reconnect::to(nobody).with_backoff(backoff());
        let keeper = reconnect.start(&mut stage.driver.control(), make).unwrap();
        stage.run();
        assert!(keeper.is_over());
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.connects, metrics.panics), (1, 1));
    });
}

#[test]
fn a_panic_of_the_code_that_is_told_of_ends_ends_the_attempts() {
    everywhere(|stage| {
        stage.panics();
        for until in [false, true] {
            let nobody = stage.deserted();
            let reconnect = Reconnect::to(nobody).with_backoff(backoff());
            let reconnect = match until {
                true => reconnect.until(|_| panic!("planned")),
                false => reconnect.on_end(|_, _| panic!("planned")),
            };
            let keeper = reconnect.start(&mut stage.driver.control(), |_| Play::new()).unwrap();
            stage.run();
            assert!(keeper.is_over());
        }
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.connects, metrics.panics), (2, 2));
    });
}

#[test]
fn a_name_is_looked_up_for_each_attempt() {
    everywhere(|stage| {
        let (nobody, addr) = (stage.deserted(), stage.serve("server", || says(b"hello")));
        let asked = Arc::new(Mutex::new(0));
        let resolver = move |_: &str, _: u16| {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            Ok(vec![if *asked < 3 { nobody } else { addr }])
        };
        stage.driver.set_resolver(Box::new(resolver));
        let log = Log::default();
        log.start(stage, "server.test:7000", backoff(), |_, _, _| (), || listens_for(b"hello"));
        stage.run();
        let ends: Vec<u64> = log.ends().iter().map(|end| end.attempt).collect();
        assert_eq!(ends, [1, 2, 3]);
        assert_eq!(stage.driver.metrics().jobs, 3);
    });
}

#[test]
fn it_is_started_by_a_handle_and_stopped_by_one() {
    everywhere(|stage| {
        stage.driver.keep_running(true);
        let addr = stage.serve("server", || says(b"hello"));
        let handle = stage.driver.handle();
        let make = move |_: &Attempt| {
            let handle = handle.clone();
            Play::new().data(move |_, input| {
                input.consume_all();
                let handle = handle.clone();
                handle
                    .call(|control| {
                        KEEPER.with_borrow(|keeper| {
                            keeper.as_ref().unwrap().stop(control);
                        })
                    })
                    .unwrap();
                Ok(())
            })
        };
        let finished = Arc::new(Mutex::new(None));
        let told = Arc::clone(&finished);
        let reconnect = Reconnect::to(addr).on_end(move |control, ended| {
            *told.lock().unwrap() = Some((ended.reason().kind(), ended.delay()));
            control.shutdown();
        });
        let start = move |control: &mut Control<'_>| {
            let keeper = reconnect.start(control, make).unwrap();
            KEEPER.set(Some(keeper));
        };
        stage.driver.handle().call(start).unwrap();
        stage.run();
        assert_eq!(*finished.lock().unwrap(), Some((CloseKind::Finished, None)));
    });
}

std::thread_local! {
    /// Closures of handles run on one thread.
    static KEEPER: std::cell::RefCell<Option<Keeper>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn what_cannot_work_is_an_error_and_begins_nothing() {
    everywhere(|stage| {
        let addr: Endpoint = SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let mut limits = Limits::default();
        limits.read_budget = 0;
        let mut zero = Backoff::default();
        zero.first = Duration::ZERO;
        for reconnect in [
            Reconnect::to(addr).with_options(limits.into()),
            Reconnect::to(addr).with_backoff(zero),
        ] {
            let make = |_: &Attempt| -> Play { unreachable!("it is not asked for") };
            let error = reconnect.start(&mut stage.driver.control(), make).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidLimits);
        }
        stage.run();
        assert_eq!(stage.driver.metrics().connects, 0);
    });
}
