//! What a callback learns of its connection, and what it may change for it alone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lariat::{By, CloseKind, Context, Deadline, ErrorKind, Limits, Timer};

use crate::kit::{Play, data, everywhere, says};

const LATER: Timer = Timer::new(1);

#[test]
fn both_ends_are_told_the_same_addresses_and_who_accepted() {
    everywhere(|stage| {
        type Told = (Option<lariat::Endpoint>, lariat::Endpoint, bool);
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let tell = |told: &Arc<Mutex<Vec<Told>>>| {
            let told = Arc::clone(told);
            move |cx: &mut Context<'_>| {
                let line = (cx.local_addr(), cx.peer_addr(), cx.listener().is_some());
                told.lock().unwrap().push(line);
                let own = cx.id();
                assert!(cx.peer(own).is_open());
                cx.write(b"x");
                Ok(())
            }
        };
        let kept = Arc::clone(&told);
        let addr = stage.serve("server", move || Play::new().opened(tell(&kept)));
        let client = Play::new().opened(tell(&told)).data(|cx, input| {
            input.consume_all();
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
        let told = told.lock().unwrap();
        let of = |accepted| *told.iter().find(|told| told.2 == accepted).unwrap();
        let (server, client) = (of(true), of(false));
        stage.check(server.0 == Some(client.1), "the server's own address");
        stage.check(client.0 == Some(server.1), "the client's own address");
        stage.check(server.0 == Some(addr.into()), "the listener's address");
    });
}

#[test]
fn bytes_are_counted_as_they_come_and_go() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .data(|cx, input| {
                    if input.len() < 5 {
                        input.need(5);
                        return Ok(());
                    }
                    assert_eq!((cx.bytes_in(), cx.bytes_out(), cx.unsent()), (5, 0, 0));
                    cx.write(input);
                    cx.write(b"!");
                    assert_eq!((cx.bytes_out(), cx.unsent()), (0, 6), "written, and not sent");
                    input.consume_all();
                    cx.set_timer(LATER, Duration::ZERO);
                    Ok(())
                })
                .timeout(|cx, _| {
                    assert_eq!((cx.bytes_in(), cx.bytes_out(), cx.unsent()), (5, 6, 0));
                    cx.close();
                    Ok(())
                })
                .closed(|_, reason| assert_eq!((reason.bytes_in(), reason.bytes_out()), (5, 6)))
        });
        stage.connect("client", addr, says(b"hello"));
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
        let all = data(b"hello!");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn time_goes_on_and_chance_is_the_drivers() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let mut began: Option<(Instant, Duration)> = None;
        let client = Play::new()
            .opened(|cx| {
                cx.set_timer(LATER, Duration::from_millis(20));
                Ok(())
            })
            .timeout(move |cx, timer| {
                let now = (cx.now(), cx.age());
                let Some(before) = began.replace(now) else {
                    cx.set_timer(timer, Duration::from_millis(20));
                    return Ok(());
                };
                assert!(now.0.duration_since(before.0) >= Duration::from_millis(20));
                assert!(now.1 >= before.1 + Duration::from_millis(19), "{now:?}, {before:?}");
                assert!(now.1 >= Duration::from_millis(40));
                let drawn: Vec<u64> = (0..4).map(|_| cx.random()).collect();
                assert!(drawn.iter().any(|other| *other != drawn[0]), "{drawn:?}");
                cx.close();
                Ok(())
            })
            .closed(|cx, reason| assert!(reason.age() <= cx.age()));
        stage.connect("client", addr, client);
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
    });
}

#[test]
fn a_pause_is_told_until_reading_goes_on_and_so_is_the_peers_fin() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .opened(|cx| {
                    assert!(!cx.is_paused() && !cx.peer_finished());
                    cx.pause_reading();
                    cx.pause_reading();
                    assert!(cx.is_paused());
                    cx.set_timer(LATER, Duration::from_millis(5));
                    Ok(())
                })
                .timeout(|cx, _| {
                    assert!(cx.is_paused());
                    cx.resume_reading();
                    assert!(!cx.is_paused());
                    Ok(())
                })
                .eof(|cx, _| {
                    assert!(cx.peer_finished());
                    cx.close();
                    Ok(())
                })
        });
        let client = says(b"hello").opened(|cx| {
            cx.write(b"hello");
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
        let all = data(b"hello");
        let lines = ["opened", "timeout of timer 1", &all, "eof", "closed finished by the peer"];
        stage.expect("server", &lines);
    });
}

// ---- limits of its own --------------------------------------------------------------------------

#[test]
fn limits_that_cannot_work_leave_the_old_ones() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                let old = cx.limits().clone();
                let mut wrong = old.clone();
                wrong.low_mark = wrong.high_mark + 1;
                let error = cx.set_limits(wrong).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidLimits);
                assert_eq!(*cx.limits(), old);
                let mut narrow = old;
                (narrow.low_mark, narrow.high_mark, narrow.output_max) = (1, 2, 3);
                cx.set_limits(narrow.clone()).unwrap();
                assert_eq!(*cx.limits(), narrow);
                cx.write(b"1234");
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed output full by the runtime"]);
    });
}

const SILENCE: Duration = Duration::from_millis(60);
const IDLE: Duration = Duration::from_millis(50);

/// A connection that has been silent for longer than the idle limit it is then given.
fn silent(stage: &mut crate::kit::Stage<'_>, give: fn(&mut Context<'_>)) {
    let given: Arc<Mutex<Option<Instant>>> = Arc::default();
    let addr = stage.serve("server", move || {
        let (gives, given) = (Arc::clone(&given), Arc::clone(&given));
        Play::new()
            .opened(|cx| {
                cx.set_timer(LATER, SILENCE);
                Ok(())
            })
            .timeout(move |cx, _| {
                *gives.lock().unwrap() = Some(cx.now());
                give(cx);
                Ok(())
            })
            .closed(move |cx, reason| {
                let kind = CloseKind::TimedOut(Deadline::Idle);
                assert_eq!((reason.kind(), reason.by()), (kind, By::Runtime));
                let waited = cx.now().duration_since(given.lock().unwrap().unwrap());
                assert!(waited >= IDLE, "cut after {waited:?}");
            })
    });
    stage.connect("client", addr, Play::new());
    stage.run();
    stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
    let lines = ["opened", "timeout of timer 1", "closed timed out (idle) by the runtime"];
    stage.expect("server", &lines);
}

#[test]
fn silence_before_an_idle_limit_is_given_does_not_count() {
    everywhere(|stage| silent(stage, |cx| cx.set_idle(Some(IDLE))));
    everywhere(|stage| {
        silent(stage, |cx| {
            let mut limits = cx.limits().clone();
            limits.idle = Some(IDLE);
            cx.set_limits(limits).unwrap();
        });
    });
}

#[test]
fn an_idle_limit_below_a_millisecond_is_one_and_limits_that_come_later_replace_it() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                cx.set_idle(Some(Duration::from_nanos(1)));
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed timed out (idle) by the runtime"]);
    });
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                let mut limits = cx.limits().clone();
                limits.idle = Some(IDLE);
                cx.set_idle(None);
                Ok(cx.set_limits(limits)?)
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed timed out (idle) by the runtime"]);
    });
}

#[test]
fn an_idle_limit_is_turned_off_for_one_connection() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.idle = Some(IDLE);
        let addr = stage.serve_with("server", limits, || {
            Play::new()
                .opened(|cx| {
                    cx.set_idle(None);
                    cx.set_timer(LATER, IDLE + SILENCE);
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.close();
                    Ok(())
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "timeout of timer 1", "closed finished by us"]);
    });
}

// ---- what is written ----------------------------------------------------------------------------

#[test]
fn the_input_written_around_other_bytes_is_written_whole_and_twice() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().data(|cx, input| {
                if input.len() < 5 {
                    input.need(5);
                    return Ok(());
                }
                cx.write(input);
                cx.write(b"|");
                cx.write(input);
                cx.write(&input[1..3]);
                cx.write(&input[3..]);
                input.consume_all();
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"hello"));
        stage.run();
        let all = data(b"hello|helloello");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

/// Shorter ones are copied, longer ones are kept, and the next callback finds nothing of them.
#[test]
fn shared_bytes_of_any_length_are_sent_once() {
    const LENGTHS: [usize; 6] = [1, 4_095, 4_096, 4_097, 8_192, 70_000];
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let mut lengths = LENGTHS.iter();
            Play::new()
                .opened(|cx| {
                    cx.set_timer(LATER, Duration::ZERO);
                    Ok(())
                })
                .timeout(move |cx, timer| {
                    match lengths.next() {
                        Some(length) => {
                            cx.write_bytes(vec![*length as u8; *length]);
                            cx.set_timer(timer, Duration::from_millis(1));
                        }
                        None => cx.close(),
                    }
                    Ok(())
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let all: Vec<u8> = LENGTHS.iter().flat_map(|length| vec![*length as u8; *length]).collect();
        let all = data(&all);
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}
