//! The counters of a driver, from the driver and from other threads.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lariat::{Metrics, Timer};

use crate::kit::{Play, everywhere};

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
                let asked = asked.get_or_insert_with(|| {
                    let (tell, asked) = mpsc::channel();
                    let handle = asking.clone();
                    thread::spawn(move || tell.send(handle.metrics()).unwrap());
                    asked
                });
                // The loop has to go on, as it is asked.
                let Ok(metrics) = asked.try_recv() else {
                    cx.set_timer(timer, Duration::from_micros(10));
                    return Ok(());
                };
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
