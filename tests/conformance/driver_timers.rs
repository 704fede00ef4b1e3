//! Timers of the driver: they belong to no connection, and outlive each.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::sim::{Trace, Traced};
use lariat::{Control, DriverLimits, Endpoint, ErrorKind, Limits, TimerId};

use crate::handles::{Told, answered};
use crate::kit::{Play, data, echo, everywhere, everywhere_with};

const SOON: Duration = Duration::from_millis(20);

#[test]
fn timers_of_the_driver_run_in_order_never_early_and_keep_it_running() {
    everywhere(|stage| {
        let told = Told::default();
        let tells = told.clone();
        let call = move |control: &mut Control<'_>| {
            let began = control.now();
            for (line, delay) in [("last", 3 * SOON), ("first", SOON), ("second", SOON)] {
                let tells = tells.clone();
                control.set_timer(delay, move |control| {
                    assert!(control.now().duration_since(began) >= delay, "{line} was early");
                    tells.tell(line);
                });
            }
            let cancelled = control.set_timer(SOON, |_| panic!("it was cancelled"));
            assert!(control.cancel_timer(cancelled) && !control.cancel_timer(cancelled));
            let never = control.set_timer(Duration::MAX, |_| panic!("it is too long to count"));
            control.set_timer(4 * SOON, move |control| assert!(control.cancel_timer(never)));
        };
        stage.driver.handle().call(call).unwrap();
        stage.run();
        told.expect(stage, &["first", "second", "last"]);
    });
}

#[test]
fn c8_a_timer_without_delay_that_sets_itself_starves_nobody() {
    fn again(control: &mut Control<'_>, left: u32, told: Told) {
        if left == 0 {
            return told.tell("over");
        }
        control.set_timer(Duration::ZERO, move |control| again(control, left - 1, told));
    }
    everywhere(|stage| {
        let told = Told::default();
        let tells = told.clone();
        let handle = stage.driver.handle();
        handle.call(move |control| again(control, 2_000, tells)).unwrap();
        let addr = stage.serve("server", echo);
        stage.connect("client", addr, answered(b"ping"));
        stage.run();
        told.expect(stage, &["over"]);
        stage.expect("client", &["opened", &data(b"ping"), "closed finished by us"]);
    });
}

#[test]
fn a_timer_of_the_driver_reaches_connections_and_shutdown_does_not_wait_for_others() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let id = stage.connect("client", addr, Play::new());
        let call = move |control: &mut Control<'_>| {
            control.set_timer(SOON, move |control| {
                control.push_all(&[id], "tick");
                control.shutdown();
                assert!(!control.is_stopping());
            });
            control.set_timer(Duration::from_secs(3600), |_| panic!("nobody waits for it"));
        };
        stage.driver.handle().call(call).unwrap();
        stage.run();
        let found = stage.trace.of("client");
        stage.check(found.contains(&"stopping".to_owned()), "it was told");
    });
}

// ---- set by a callback --------------------------------------------------------------------------

/// A client that comes back until it has been answered `left` times.
fn reconnecting(trace: &Trace, addr: Endpoint, left: usize) -> Traced<Play> {
    let again = trace.clone();
    let client = Play::new()
        .opened(|cx| {
            cx.write(b"ping");
            Ok(())
        })
        .data(|cx, input| {
            if input.len() == 4 {
                input.consume_all();
                cx.close();
            }
            Ok(())
        })
        .closed(move |cx, _| {
            if left > 1 {
                let trace = again.clone();
                cx.after(SOON, move |driver| {
                    assert_eq!(driver.metrics().open, 0, "every connection is gone");
                    driver.connect(addr, reconnecting(&trace, addr, left - 1));
                });
            }
        });
    trace.wrap(&format!("client {left}"), client)
}

#[test]
fn a_client_reconnects_from_closed_when_no_connection_and_no_listener_is_left() {
    everywhere(|stage| {
        let addr = stage.serve_many(3, Limits::default(), |number| (format!("{number}"), echo()));
        let first = reconnecting(&stage.trace, addr.into(), 3);
        stage.driver.control().connect(addr, first);
        stage.run();
        for left in 1..=3 {
            let lines = ["opened", &data(b"ping"), "closed finished by us"];
            stage.expect(&format!("client {left}"), &lines);
        }
        stage.check(stage.driver.metrics().timers == 2, "two timers of the driver have fired");
    });
}

/// Only a client's: nothing but the timer keeps the driver running.
#[test]
fn a_timer_set_in_closed_keeps_a_driver_with_nothing_else_running() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let told = Told::default();
        let tells = told.clone();
        let client = Play::new().closed(move |cx, _| {
            let (began, tells) = (cx.now(), tells.clone());
            cx.after(SOON, move |driver| {
                assert!(driver.now().duration_since(began) >= SOON);
                tells.tell("fired");
            });
        });
        stage.connect("client", addr, client);
        stage.run();
        told.expect(stage, &["fired"]);
    });
}

#[test]
fn a_callback_cancels_a_timer_that_another_connection_has_set() {
    everywhere(|stage| {
        let set: Arc<Mutex<Option<TimerId>>> = Arc::default();
        let addr = stage.deserted();
        let sets = Arc::clone(&set);
        let first = Play::new().closed(move |cx, _| {
            let never = cx.after(Duration::from_secs(3600), |_| panic!("it was cancelled"));
            *sets.lock().unwrap() = Some(never);
        });
        stage.connect("first", addr, first);
        let second = Play::new().closed(move |cx, _| {
            let set = Arc::clone(&set);
            // Not in order on threads: it waits for the other.
            fn cancel(driver: &mut Control<'_>, set: Arc<Mutex<Option<TimerId>>>) {
                let Some(timer) = set.lock().unwrap().take() else {
                    driver.set_timer(Duration::from_millis(1), |driver| cancel(driver, set));
                    return;
                };
                assert!(driver.cancel_timer(timer), "it was set");
                assert!(!driver.cancel_timer(timer), "it was cancelled");
            }
            cancel(&mut cx.driver(), set);
        });
        stage.connect("second", addr, second);
        stage.run();
    });
}

#[test]
fn a_closure_that_may_not_leave_its_thread_is_for_drivers_of_one_thread() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let told = Told::default();
        let tells = told.clone();
        let one_thread = !stage.has_threads();
        let client = Play::new().closed(move |cx, _| {
            let (local, tells) = (Rc::new(()), tells.clone());
            let set = cx.after_local(Duration::ZERO, move |_| {
                drop(local);
                tells.tell("fired");
            });
            match set {
                Ok(_) => assert!(one_thread),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unsupported);
                    let sentence = "cannot set the timer: another thread would run the closure";
                    assert_eq!(error.to_string(), sentence);
                }
            }
        });
        stage.connect("client", addr, client);
        let outside = Rc::new(Cell::new(false));
        let fired = Rc::clone(&outside);
        let set = stage.driver.control().set_timer_local(SOON, move |_| fired.set(true));
        stage.check(set.is_ok() == one_thread, "outside of callbacks as well");
        stage.run();
        stage.check(outside.get() == one_thread, "it has fired");
        told.expect(stage, if one_thread { &["fired"] } else { &[] });
    });
}

#[test]
fn shutdown_drops_timers_that_wait_and_those_that_come_later() {
    everywhere(|stage| {
        let kept = Arc::new(());
        let (first, second) = (Arc::clone(&kept), Arc::clone(&kept));
        let hour = Duration::from_secs(3600);
        let mut control = stage.driver.control();
        control.set_timer(hour, move |_| drop(first));
        control.set_timer(SOON, move |control| {
            control.shutdown();
            control.set_timer(hour, move |_| drop(second));
        });
        drop(control);
        stage.run();
        if stage.has_threads() {
            // A loop keeps them as long as it lives, and no thread can reach it any more.
            stage.check(Arc::strong_count(&kept) == 1, "they were dropped");
            let late = Arc::clone(&kept);
            stage.driver.control().set_timer(SOON, move |_| drop(late));
            stage.check(Arc::strong_count(&kept) == 1, "it came too late");
        }
    });
}

#[test]
fn the_id_of_a_timer_is_not_given_out_again_by_the_next_run() {
    everywhere(|stage| {
        let handle = stage.driver.handle();
        let kept = Arc::new(Mutex::new(None));
        let own = Arc::clone(&kept);
        let call = move |control: &mut Control<'_>| {
            *own.lock().unwrap() = Some(control.set_timer(Duration::ZERO, |_| {}));
        };
        handle.call(call).unwrap();
        stage.run();
        let told = Told::default();
        let tells = told.clone();
        let call = move |control: &mut Control<'_>| {
            control.set_timer(SOON, move |_| tells.tell("ran"));
            let old = kept.lock().unwrap().take().unwrap();
            assert!(!control.cancel_timer(old));
        };
        handle.call(call).unwrap();
        stage.run();
        told.expect(stage, &["ran"]);
    });
}

#[test]
fn c7_closures_do_not_wait_for_all_timers_that_are_due() {
    let mut limits = DriverLimits::default();
    limits.timers_max = 2;
    everywhere_with(limits, |stage| {
        let told = Told::default();
        let (handle, tells) = (stage.driver.handle(), told.clone());
        let set = move |control: &mut Control<'_>| {
            for number in 0..9 {
                let (handle, told) = (handle.clone(), tells.clone());
                control.set_timer(Duration::ZERO, move |_| {
                    told.tell(number.to_string());
                    if number == 0 {
                        let _ = handle.call(move |_| told.tell("closure"));
                    }
                });
            }
        };
        stage.driver.handle().call(set).unwrap();
        stage.run();
        let all = told.all();
        let at = all.iter().position(|line| line == "closure").unwrap();
        stage.check(all.len() == 10 && at < 6, &format!("{all:?}"));
    });
}
