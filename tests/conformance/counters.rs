//! The counters of a driver, from the driver and from other threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use lariat::{
    Closes, ConnId, Control, DatagramOptions, DriverLimits, Limits, ListenerId, Metrics, Note,
    Overload, Timer,
};

use crate::kit::{Play, Stage, echo, everywhere, everywhere_with, on_sockets, says};
use crate::node::Node;
use crate::patience::until;
use crate::toy::Toy;

const LOOK: Timer = Timer::new(1);

#[test]
fn another_thread_has_the_counters_of_right_now() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let handle = stage.driver.handle();
        stage.check(handle.metrics().turns == 0, "nothing has run");
        let asking = handle.clone();
        let mut asked: Option<mpsc::Receiver<Metrics>> = None;
        let client = Play::new()
            .opened(|cx| {
                cx.write(b"12345");
                cx.set_timer(LOOK, Duration::ZERO);
                Ok(())
            })
            .timeout(move |cx, timer| {
                // Not before the bytes are counted: a callback is over when its output is sent.
                let answer = asked.get_or_insert_with(|| {
                    let (tell, asked) = mpsc::channel();
                    let handle = asking.clone();
                    thread::spawn(move || tell.send(handle.metrics()).unwrap());
                    asked
                });
                // The loop has to go on, as it is asked.
                let Ok(metrics) = answer.try_recv() else {
                    cx.set_timer(timer, Duration::from_micros(10));
                    return Ok(());
                };
                if metrics.accepted == 0 || metrics.timers == 0 {
                    // The other end is accepted later, and a timer counts when its callback is
                    // over: asked once more.
                    asked = None;
                    cx.set_timer(timer, Duration::from_micros(10));
                    return Ok(());
                }
                assert_eq!((metrics.accepted, metrics.connects, metrics.open), (1, 1, 2));
                assert!(metrics.bytes_out == 5 && metrics.timers >= 1, "{metrics:?}");
                cx.close();
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        let mut after = handle.metrics();
        let now = stage.driver.metrics();
        stage.check(after.closes.total() == 2 && after.age <= now.age, "the end is counted");
        after.age = now.age;
        stage.check(after == now, "nothing has happened since");
    });
}

#[test]
fn another_thread_has_the_counters_of_messages_that_nobody_answers() {
    on_sockets(DriverLimits::default(), |stage| {
        let addr = stage.serve("server", Play::new);
        let handle = stage.driver.handle();
        let client = thread::spawn(move || {
            let mut client = std::net::TcpStream::connect(addr).unwrap();
            for count in 1..4 {
                std::io::Write::write_all(&mut client, b"12345").unwrap();
                until(|| handle.metrics().bytes_in == 5 * count, "the bytes are counted");
            }
        });
        stage.run();
        client.join().unwrap();
    });
}

#[test]
fn another_thread_has_the_counters_of_a_datagram_socket_that_does_nothing_any_more() {
    on_sockets(DriverLimits::default(), |stage| {
        let node = Node::new().opened(|cx| {
            cx.set_timer(LOOK, Duration::ZERO);
            Ok(())
        });
        stage.bind("node", node.timeout(|_, _| Ok(())));
        let handle = stage.driver.handle();
        let looking = thread::spawn(move || {
            until(|| handle.metrics().timers == 1, "the timer is counted");
            handle.shutdown();
        });
        stage.run();
        looking.join().unwrap();
    });
}

#[test]
fn a_callback_that_asks_a_handle_for_counters_does_not_wait_for_itself() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let handle = stage.driver.handle();
        let client = Play::new().opened(move |cx| {
            assert!(handle.metrics().callbacks <= cx.driver().metrics().callbacks);
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("client", &["opened", "closed finished by us"]);
    });
}

// ---- every kind of end --------------------------------------------------------------------------

/// Closes in its `opened`.
fn closing() -> Play {
    Play::new().opened(|cx| {
        cx.close();
        Ok(())
    })
}

/// A client and a server, and how both ended.
fn ends(stage: &mut Stage<'_>, limits: Limits, server: fn() -> Play, client: Play) {
    let addr = stage.serve_with("server", limits, server);
    stage.connect("client", addr, client);
    stage.run();
}

type Kind = (&'static str, fn(&mut Stage<'_>), fn(&mut Closes));

/// Each kind of end of a server, and what its client makes of that.
const KINDS: [Kind; 10] = [
    (
        "finished",
        |stage| ends(stage, Limits::default(), Play::new, closing()),
        |closes| closes.finished = 2,
    ),
    (
        "aborted, and reset",
        |stage| {
            let aborting = || {
                Play::new().data(|cx, _| {
                    cx.abort();
                    Ok(())
                })
            };
            ends(stage, Limits::default(), aborting, says(b"x"));
        },
        |closes| (closes.aborted, closes.reset) = (1, 1),
    ),
    (
        "timed out",
        |stage| {
            let mut limits = Limits::default();
            limits.idle = Some(Duration::from_millis(20));
            ends(stage, limits, Play::new, Play::new());
        },
        |closes| (closes.timed_out, closes.finished) = (1, 1),
    ),
    (
        "input full",
        |stage| {
            let mut limits = Limits::default();
            limits.input_max = 4;
            ends(stage, limits, || Play::new().data(|_, _| Ok(())), says(b"12345"));
        },
        |closes| (closes.input_full, closes.finished) = (1, 1),
    ),
    (
        "output full",
        |stage| {
            let mut limits = Limits::default();
            (limits.low_mark, limits.high_mark, limits.output_max) = (1, 2, 4);
            let talkative = || {
                Play::new().data(|cx, _| {
                    cx.write(b"12345");
                    Ok(())
                })
            };
            ends(stage, limits, talkative, says(b"x"));
        },
        |closes| (closes.output_full, closes.reset) = (1, 1),
    ),
    (
        "connect",
        |stage| {
            let addr = stage.deserted();
            stage.connect("client", addr, Play::new());
            stage.run();
        },
        |closes| closes.connect = 1,
    ),
    (
        "filter",
        |stage| {
            let filtered = || Play::new().filter(|| Some(Box::new(Toy::server()) as _));
            ends(stage, Limits::default(), filtered, says(b"this is no toy"));
        },
        |closes| (closes.filter, closes.finished) = (1, 1),
    ),
    (
        "protocol",
        |stage| {
            ends(stage, Limits::default(), || Play::new().opened(|_| Err("no".into())), Play::new())
        },
        |closes| (closes.protocol, closes.finished) = (1, 1),
    ),
    (
        "panicked, and reset",
        |stage| {
            let panicking = || Play::new().data(|_, _| panic!("as it should"));
            ends(stage, Limits::default(), panicking, says(b"x"));
        },
        |closes| (closes.panicked, closes.reset) = (1, 1),
    ),
    (
        "shut down, and reset",
        |stage| {
            let staying = || {
                Play::new().stopping(|_| Ok(())).data(|cx, _| {
                    cx.driver().shutdown();
                    Ok(())
                })
            };
            ends(stage, Limits::default(), staying, says(b"x").stopping(|_| Ok(())));
        },
        |closes| closes.shutdown = 2,
    ),
];

#[test]
fn every_kind_of_end_is_counted_in_its_place() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_millis(20);
    for (kind, scenario, expect) in KINDS {
        everywhere_with(limits.clone(), |stage| {
            stage.panics();
            scenario(stage);
            let mut expected = Closes::default();
            expect(&mut expected);
            let found = stage.driver.metrics().closes;
            stage.check(found == expected, &format!("{kind}: {found}, not {expected}"));
        });
    }
}

#[test]
fn a_protocol_that_cannot_take_over_is_counted_as_unsupported() {
    everywhere(|stage| {
        let replacing = || {
            Play::new().data(|cx, _| {
                cx.replace_local(closing());
                Ok(())
            })
        };
        ends(stage, Limits::default(), replacing, says(b"x"));
        let unsupported = stage.driver.metrics().closes.unsupported;
        let expected = u64::from(stage.has_threads());
        stage.check(unsupported == expected, "only where it might have to leave its thread");
    });
}

// ---- every other counter ------------------------------------------------------------------------

#[test]
fn bytes_calls_and_callbacks_of_an_exchange_are_counted() {
    everywhere(|stage| {
        let addr = stage.serve("server", echo);
        // Bytes that are missing, and the timer: whichever comes last ends it.
        let missing = Arc::new(AtomicUsize::new(1001));
        let left = Arc::clone(&missing);
        let client = Play::new()
            .opened(|cx| {
                cx.write(&[7; 1000]);
                cx.set_timer(LOOK, Duration::ZERO);
                Ok(())
            })
            .timeout(move |cx, _| {
                if missing.fetch_sub(1, Ordering::Relaxed) == 1 {
                    cx.close();
                }
                Ok(())
            })
            .data(move |cx, input| {
                let count = input.len();
                input.consume_all();
                if left.fetch_sub(count, Ordering::Relaxed) == count {
                    cx.close();
                }
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        let metrics = stage.driver.metrics();
        let Metrics { bytes_in, bytes_out, reads, writes, callbacks, timers, .. } = metrics;
        stage.check((bytes_in, bytes_out) == (2000, 2000), &format!("{metrics}"));
        stage.check(reads >= 2 && writes >= 2, &format!("{metrics}"));
        let lines = stage.trace.of("client").len() + stage.trace.of("server").len();
        stage.check(callbacks >= lines as u64, &format!("{metrics}"));
        stage.check(timers == 1, &format!("{metrics}"));
        stage.check((metrics.accepted, metrics.connects) == (1, 1), &format!("{metrics}"));
        let nothing = [
            metrics.stale,
            metrics.refused,
            metrics.accept_errors,
            metrics.refused_bytes,
            metrics.refused_notes,
            metrics.panics,
        ];
        // A simulator with faults makes accepts fail.
        let calm = nothing == [0; 6] || !stage.is_real() && metrics.accept_errors > 0;
        stage.check(calm, &format!("{metrics}"));
        let loops = [metrics.events > 0, metrics.busy > Duration::ZERO];
        stage.check(metrics.turns > 0 && metrics.age > Duration::ZERO, &format!("{metrics}"));
        let counts = [metrics.slow_turns, metrics.slow_callbacks, metrics.late_timers];
        let loops_alone = loops == [false; 2]
            && counts == [0; 3]
            && (metrics.wakeups, metrics.longest_turn) == (0, Duration::ZERO);
        stage.check(!stage.has_threads() || loops_alone, &format!("{metrics}"));
        stage.check(stage.has_threads() || loops[0], &format!("{metrics}"));
    });
}

#[test]
fn a_deadline_that_ends_a_connection_is_one_timer() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.idle = Some(Duration::from_millis(50));
        let addr = stage.serve_with("server", limits, Play::new);
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed timed out (idle) by the runtime"]);
        let metrics = stage.driver.metrics();
        stage.check(metrics.timers == 1, &format!("{metrics}"));
    });
}

#[test]
fn a_datagram_socket_is_counted_with_its_turns_and_the_deadline_that_ends_it() {
    everywhere(|stage| {
        let mut options = DatagramOptions::default();
        options.idle = Some(Duration::from_millis(50));
        let node = Node::new().opened(|cx| {
            assert_eq!(cx.driver().metrics().bound, 1);
            Ok(())
        });
        stage.bind_with("node", options, node);
        stage.run();
        stage.expect_node("node", &["opened", "closed timed out (idle) by the runtime"]);
        let metrics = stage.driver.metrics();
        stage.check(metrics.turns > 0 && metrics.bound == 0, &format!("{metrics}"));
        stage.check(metrics.timers == 1, &format!("{metrics}"));
    });
}

#[test]
fn each_of_many_timers_of_a_datagram_socket_is_counted() {
    everywhere(|stage| {
        let mut left = 8;
        let node = Node::new()
            .opened(move |cx| {
                (0..left).for_each(|number| cx.set_timer(Timer::new(number), Duration::ZERO));
                Ok(())
            })
            .timeout(move |cx, _| {
                left -= 1;
                if left == 0 {
                    cx.close();
                }
                Ok(())
            });
        stage.bind("node", node);
        stage.run();
        let metrics = stage.driver.metrics();
        stage.check(metrics.timers == 8, &format!("{metrics}"));
    });
}

/// Connects to `addr`, and stops that listener when it is over.
fn turned_away(stage: &mut Stage<'_>, listener: ListenerId) {
    let addr = stage.driver.addresses(listener)[0];
    let client = Play::new().closed(move |cx, _| cx.driver().stop_listening(listener));
    stage.driver.control().connect(addr, stage.trace.wrap("client", client));
    stage.run();
}

#[test]
fn a_newcomer_that_the_factory_refuses_is_counted_and_so_is_one_that_is_shed() {
    let mut shedding = DriverLimits::default();
    (shedding.connections_max, shedding.overload) = (1, Overload::Shed);
    for limits in [DriverLimits::default(), shedding] {
        everywhere_with(limits, |stage| {
            let listener = stage.driver.control().listen("127.0.0.1:0", |_| None::<Play>).unwrap();
            turned_away(stage, listener);
            let metrics = stage.driver.metrics();
            stage.check((metrics.refused, metrics.accepted) == (1, 0), &format!("{metrics}"));
            stage.check(metrics.panics == 0, &format!("{metrics}"));
        });
    }
    everywhere(|stage| {
        stage.panics();
        let panicking = |_: &lariat::Incoming| -> Option<Play> { panic!("in a factory") };
        let listener = stage.driver.control().listen("127.0.0.1:0", panicking).unwrap();
        turned_away(stage, listener);
        let metrics = stage.driver.metrics();
        let counted = (metrics.refused, metrics.accepted, metrics.panics);
        stage.check(counted == (1, 0, 1), &format!("{metrics}"));
    });
}

#[test]
fn panics_are_counted_in_callbacks_closures_timers_and_drops() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    everywhere(|stage| {
        stage.panics();
        let addr = stage.deserted();
        let bomb = Bomb;
        let client = Play::new().closed(move |_, _| {
            let _ = &bomb;
            panic!("in closed");
        });
        stage.connect("client", addr, client);
        stage.driver.handle().call(|_| panic!("in a closure")).unwrap();
        stage.driver.control().set_timer(Duration::ZERO, |_| panic!("in a timer"));
        stage.run();
        let panics = stage.driver.metrics().panics;
        stage.check(panics == 4, &format!("{panics} panics were counted"));
    });
}

#[test]
fn a_wake_up_is_counted_on_a_loop_and_many_requests_make_one() {
    everywhere(|stage| {
        let handle = stage.driver.handle();
        for _ in 0..3 {
            handle.call(|_| {}).unwrap();
        }
        stage.run();
        let wakeups = stage.driver.metrics().wakeups;
        let expected = u64::from(!stage.has_threads());
        stage.check(wakeups == expected, &format!("{wakeups} wake-ups"));
    });
}

// ---- gauges -------------------------------------------------------------------------------------

/// Runs on the driver until `seen`, and then lets `then` run.
pub(crate) fn when(
    control: &mut Control<'_>,
    seen: fn(&Metrics) -> bool,
    then: impl FnOnce(&mut Control<'_>) + Send + 'static,
) {
    if seen(&control.metrics()) {
        then(control);
    } else {
        control.set_timer(Duration::from_micros(200), move |control| when(control, seen, then));
    }
}

#[test]
fn connections_that_are_paused_are_counted_until_they_go_on() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    // A temporary `Control` stands beside another use of the context.
                    assert_eq!((cx.driver().metrics().paused, cx.is_paused()), (0, true));
                    let own = cx.id();
                    when(
                        &mut cx.driver(),
                        |m| m.paused == 1,
                        move |control| {
                            control.peer(own).notify(Note::new(()));
                        },
                    );
                    Ok(())
                })
                .notified(|cx, _| {
                    cx.resume_reading();
                    let own = cx.id();
                    when(
                        &mut cx.driver(),
                        |m| m.paused == 0,
                        move |control| {
                            control.peer(own).close();
                        },
                    );
                    Ok(())
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "notified", "closed finished by us"]);
    });
}

#[test]
fn unsent_bytes_and_the_writer_that_is_held_are_counted_until_they_have_gone() {
    everywhere(|stage| {
        let whole = if stage.is_real() { 16 << 20 } else { 1 << 20 };
        let far: Arc<Mutex<Option<ConnId>>> = Arc::default();
        let to = Arc::clone(&far);
        // What comes here goes to the one that is far.
        let near = stage.serve("near", move || {
            let (to, to_end) = (Arc::clone(&to), Arc::clone(&to));
            Play::new()
                .data(move |cx, input| {
                    let to = to.lock().unwrap().unwrap();
                    cx.peer(to).write(input);
                    input.consume_all();
                    Ok(())
                })
                .eof(move |cx, _| {
                    let to = to_end.lock().unwrap().unwrap();
                    cx.peer(to).close();
                    cx.close();
                    Ok(())
                })
        });
        let addr = stage.serve("far", move || {
            let far = Arc::clone(&far);
            Play::new().opened(move |cx| {
                *far.lock().unwrap() = Some(cx.id());
                let mut limits = Limits::default();
                limits.output_max = 64 << 20;
                let writer = Play::new().opened(move |cx| {
                    cx.write_bytes(vec![7; whole]);
                    cx.shutdown_write();
                    Ok(())
                });
                cx.driver().connect_with(near, limits.into(), writer)?;
                Ok(())
            })
        });
        // It reads when the one that is near is held.
        let reader = Play::new()
            .opened(move |cx| {
                cx.pause_reading();
                let own = cx.id();
                when(
                    &mut cx.driver(),
                    |metrics| metrics.held == 1 && metrics.buffered > 64 << 10,
                    move |control| control.peer(own).notify(Note::new(())),
                );
                Ok(())
            })
            .notified(|cx, _| {
                cx.resume_reading();
                Ok(())
            })
            .closed(move |_, reason| assert_eq!(reason.bytes_in(), whole as u64));
        stage.connect("reader", addr, reader);
        stage.run();
        let metrics = stage.driver.metrics();
        stage.check(metrics.panics == 0, "nothing was wrong");
        stage.check((metrics.held, metrics.buffered, metrics.paused) == (0, 0, 0), "all is over");
    });
}

#[test]
fn connections_that_linger_and_those_that_are_open_are_counted() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|cx, _| {
                cx.close();
                Ok(())
            })
        });
        // It does not finish, so that the server has to wait for it.
        let client = says(b"x").eof(|cx, _| {
            let own = cx.id();
            when(
                &mut cx.driver(),
                |m| (m.lingering, m.open) == (1, 1),
                move |control| {
                    control.peer(own).close();
                },
            );
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
    });
}
