//! Timers of the driver: they belong to no connection, and outlive each.

use std::time::Duration;

use lariat::Control;

use crate::handles::{Told, answered};
use crate::kit::{Play, data, echo, everywhere};

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
