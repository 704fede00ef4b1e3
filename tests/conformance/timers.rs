//! Timers: never early, replaced, cancelled, in order.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lariat::{Context, DriverLimits, Timer};

use crate::kit::{Play, Stage, data, everywhere, everywhere_with, says};

const A: Timer = Timer::new(1);
const B: Timer = Timer::new(2);
const C: Timer = Timer::new(3);

/// A server with timers, and a client that waits for its end.
fn alone(stage: &mut Stage<'_>, make: impl Fn() -> Play + Send + Sync + 'static) {
    let addr = stage.serve("server", make);
    stage.connect("client", addr, Play::new());
    stage.run();
}

fn closing(cx: &mut Context<'_>, timer: Timer, last: Timer) {
    if timer == last {
        cx.close();
    }
}

#[test]
fn the_default_answer_to_a_timeout_is_to_close() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new().opened(|cx| {
                cx.set_timer(A, Duration::from_millis(1));
                Ok(())
            })
        });
        stage.expect("server", &["opened", "timeout of timer 1", "closed finished by us"]);
    });
}

#[test]
fn a_timer_never_fires_early() {
    everywhere(|stage| {
        alone(stage, || {
            let set: Arc<Mutex<Option<(Instant, Duration)>>> = Arc::default();
            let seen = Arc::clone(&set);
            let mut round = 0;
            Play::new()
                .opened(move |cx| {
                    *set.lock().unwrap() = Some((cx.now(), Duration::from_micros(1)));
                    cx.set_timer(A, Duration::from_micros(1));
                    Ok(())
                })
                .timeout(move |cx, timer| {
                    let (since, delay) = seen.lock().unwrap().unwrap();
                    let waited = cx.now().saturating_duration_since(since);
                    assert!(waited >= delay, "fired after {waited:?} instead of {delay:?}");
                    round += 1;
                    if round == 20 {
                        cx.close();
                        return Ok(());
                    }
                    let delay = Duration::from_micros(round * 317);
                    *seen.lock().unwrap() = Some((cx.now(), delay));
                    cx.set_timer(timer, delay);
                    Ok(())
                })
        });
        let fired = stage.trace.of("server").len();
        stage.check(fired == 22, "every round fired once");
    });
}

#[test]
fn timers_fire_by_deadline_and_ties_in_the_order_they_were_set() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    cx.set_timer(C, Duration::from_millis(30));
                    cx.set_timer(B, Duration::ZERO);
                    cx.set_timer(A, Duration::ZERO);
                    Ok(())
                })
                .timeout(|cx, timer| {
                    closing(cx, timer, C);
                    Ok(())
                })
        });
        stage.expect(
            "server",
            &[
                "opened",
                "timeout of timer 2",
                "timeout of timer 1",
                "timeout of timer 3",
                "closed finished by us",
            ],
        );
    });
}

#[test]
fn a_timer_that_waits_for_input_keeps_its_place_among_those_of_its_deadline() {
    let mut limits = DriverLimits::default();
    // The last of three is taken out in a turn of its own.
    limits.timers_max = 2;
    everywhere_with(limits, |stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    for timer in [A, B, C] {
                        cx.set_timer(timer, Duration::from_millis(5));
                    }
                    Ok(())
                })
                .timeout(|cx, timer| {
                    if timer == A {
                        // Input might have come before the others were due: they wait for a look.
                        cx.resume_reading();
                    }
                    closing(cx, timer, C);
                    Ok(())
                })
        });
        let [a, b, c] = ["timeout of timer 1", "timeout of timer 2", "timeout of timer 3"];
        stage.expect("server", &["opened", a, b, c, "closed finished by us"]);
    });
}

#[test]
fn setting_a_timer_again_replaces_it() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    cx.set_timer(A, Duration::from_secs(3600));
                    cx.set_timer(A, Duration::from_millis(20));
                    cx.set_timer(B, Duration::ZERO);
                    cx.set_timer(B, Duration::from_millis(40));
                    Ok(())
                })
                .timeout(|cx, timer| {
                    closing(cx, timer, B);
                    Ok(())
                })
        });
        stage.expect(
            "server",
            &["opened", "timeout of timer 1", "timeout of timer 2", "closed finished by us"],
        );
    });
}

/// Debug builds watch that no more timers are armed than somebody knows of.
#[test]
fn a_timer_that_is_set_again_and_again_is_armed_once() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    (1..=50).for_each(|more| cx.set_timer(A, Duration::from_millis(more)));
                    Ok(())
                })
                .timeout(|cx, timer| {
                    closing(cx, timer, A);
                    Ok(())
                })
        });
        stage.expect("server", &["opened", "timeout of timer 1", "closed finished by us"]);
        stage.check(stage.driver.metrics().timers == 1, "it fires once");
    });
}

#[test]
fn a_cancelled_timer_does_not_fire_even_if_it_is_due() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    assert!(!cx.cancel_timer(A));
                    // All three are due together; the first to fire cancels the second.
                    cx.set_timer(A, Duration::ZERO);
                    cx.set_timer(B, Duration::ZERO);
                    cx.set_timer(C, Duration::ZERO);
                    Ok(())
                })
                .timeout(|cx, timer| {
                    if timer == A {
                        assert!(!cx.cancel_timer(A), "a timer that fires is no longer set");
                        assert!(cx.cancel_timer(B));
                        assert!(!cx.cancel_timer(B));
                    }
                    closing(cx, timer, C);
                    Ok(())
                })
        });
        stage.expect(
            "server",
            &["opened", "timeout of timer 1", "timeout of timer 3", "closed finished by us"],
        );
    });
}

#[test]
fn a_timer_set_anew_by_a_tie_before_it_fires_once_and_later() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    cx.set_timer(A, Duration::ZERO);
                    cx.set_timer(B, Duration::ZERO);
                    cx.set_timer(C, Duration::ZERO);
                    Ok(())
                })
                .timeout(|cx, timer| {
                    if timer == A {
                        cx.set_timer(B, Duration::from_millis(10));
                    }
                    closing(cx, timer, B);
                    Ok(())
                })
        });
        stage.expect(
            "server",
            &[
                "opened",
                "timeout of timer 1",
                "timeout of timer 3",
                "timeout of timer 2",
                "closed finished by us",
            ],
        );
    });
}

#[test]
fn c6_huge_delays_never_fire() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new().opened(|cx| {
                let never = [
                    Duration::MAX,
                    Duration::from_secs(u64::MAX / 10),
                    Duration::from_nanos(u64::MAX),
                ];
                for (key, delay) in (10..).zip(never) {
                    cx.set_timer(Timer::new(key), delay);
                }
                cx.set_timer(A, Duration::from_millis(20));
                Ok(())
            })
        });
        stage.expect("server", &["opened", "timeout of timer 1", "closed finished by us"]);
    });
}

#[test]
fn c8_a_timer_set_again_at_zero_inside_timeout_lets_others_be_served() {
    everywhere(|stage| {
        // Fires for ever, until the client has had all its answers.
        let addr = stage.serve("server", || {
            Play::new()
                .opened(|cx| {
                    cx.set_timer(A, Duration::ZERO);
                    Ok(())
                })
                .timeout(|cx, timer| {
                    cx.set_timer(timer, Duration::ZERO);
                    Ok(())
                })
                .data(|cx, input| {
                    cx.write(input);
                    input.consume_all();
                    Ok(())
                })
        });
        let mut left = 20;
        let client = says(b"!").data(move |cx, input| {
            left -= 1;
            cx.write(input);
            input.consume_all();
            if left == 0 {
                cx.close();
            }
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let turns = stage.driver.metrics().turns;
        let fired = stage.trace.of("server").iter().filter(|l| l.starts_with("timeout")).count();
        stage.check(fired <= turns as usize, "at most once per turn");
        let lines = stage.trace.of("client");
        stage.check(lines[1] == data(&[b'!'; 20]), "twenty answers");
    });
}

#[test]
fn timers_die_with_their_connection() {
    everywhere(|stage| {
        alone(stage, || {
            Play::new()
                .opened(|cx| {
                    cx.set_timer(A, Duration::ZERO);
                    cx.set_timer(B, Duration::from_millis(1));
                    cx.abort();
                    cx.set_timer(C, Duration::ZERO);
                    Ok(())
                })
                .closed(|cx, _| cx.set_timer(A, Duration::ZERO))
        });
        stage.expect("server", &["opened", "closed aborted by us"]);
    });
}

#[test]
fn c18_time_that_passes_before_the_run_counts() {
    everywhere(|stage| {
        // Virtual time passes only while the simulator runs.
        let before = Duration::from_millis(if stage.is_real() { 1500 } else { 0 });
        const DELAY: Duration = Duration::from_secs(2);
        let (tell, told) = mpsc::channel();
        let set = stage.driver.control().now();
        stage.driver.control().set_timer(DELAY, move |control| {
            tell.send(control.now()).unwrap();
        });
        thread::sleep(before);
        stage.run();
        let took = told.recv().unwrap() - set;
        stage.check(took >= DELAY, "not early");
        stage.check(took < DELAY + Duration::from_millis(1400), "as if no time had passed before");
    });
}

#[test]
fn c18_a_timer_that_is_set_late_in_a_callback_is_not_early() {
    everywhere(|stage| {
        alone(stage, || {
            let set: Arc<Mutex<Option<Instant>>> = Arc::default();
            let seen = Arc::clone(&set);
            Play::new()
                .opened(move |cx| {
                    thread::sleep(Duration::from_millis(60));
                    let began = cx.now();
                    *set.lock().unwrap() = Some(began);
                    // That of the driver is the first to fire.
                    cx.after(Duration::from_millis(30), move |control| {
                        let waited = control.now().duration_since(began);
                        assert!(waited >= Duration::from_millis(30), "early: {waited:?}");
                    });
                    cx.set_timer(A, Duration::from_millis(40));
                    Ok(())
                })
                .timeout(move |cx, _| {
                    let waited = cx.now().duration_since(seen.lock().unwrap().unwrap());
                    assert!(waited >= Duration::from_millis(40), "early: {waited:?}");
                    cx.close();
                    Ok(())
                })
        });
        stage.expect("server", &["opened", "timeout of timer 1", "closed finished by us"]);
    });
}

#[test]
fn a_timer_that_closed_sets_is_none() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .opened(|cx| {
                    cx.set_timer(Timer::new(1), Duration::from_millis(1));
                    cx.close();
                    Ok(())
                })
                .closed(|cx, _| {
                    cx.set_timer(Timer::new(1), Duration::ZERO);
                    cx.set_timer(Timer::new(2), Duration::from_millis(1));
                    assert!(!cx.cancel_timer(Timer::new(1)) && !cx.cancel_timer(Timer::new(2)));
                    // The driver runs until it would have fired.
                    cx.after(Duration::from_millis(20), |_| ());
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed finished by us"]);
        let metrics = stage.driver.metrics();
        stage.check(metrics.timers == 1 && metrics.stale == 0, "that of the driver alone fired");
    });
}

#[test]
fn c8_a_timer_set_again_at_zero_goes_in_front_of_no_other_of_its_connection() {
    everywhere(|stage| {
        alone(stage, || {
            let mut left = 1_000_000;
            Play::new()
                .opened(|cx| {
                    cx.set_timer(A, Duration::ZERO);
                    cx.set_timer(B, Duration::from_millis(5));
                    Ok(())
                })
                .timeout(move |cx, timer| {
                    closing(cx, timer, B);
                    left -= 1;
                    if left == 0 {
                        return Err("the other one does not fire".into());
                    }
                    cx.set_timer(A, Duration::ZERO);
                    Ok(())
                })
        });
        let lines = stage.trace.of("server");
        let last = &lines[lines.len() - 2..];
        stage.check(last == ["timeout of timer 2", "closed finished by us"], &format!("{last:?}"));
    });
}
