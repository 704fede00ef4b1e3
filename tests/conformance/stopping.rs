//! Shutdown: `stopping` runs once on each, most drain, the rest are aborted.

use std::net::SocketAddr;
use std::time::Duration;

use lariat::{Context, DriverLimits, Timer};

use crate::kit::{Play, data, echo, everywhere, everywhere_with, says};

const LATER: Timer = Timer::new(2);

/// Stops the driver when it reads something.
fn stopper() -> Play {
    Play::new().data(|cx, input| {
        input.consume_all();
        cx.driver().shutdown();
        cx.driver().shutdown();
        Ok(())
    })
}

#[test]
fn c14_stopping_closes_by_default() {
    everywhere(|stage| {
        let addr = stage.serve("server", stopper);
        stage.connect("client", addr, says(b"x"));
        let report = stage.run();
        let closed = "closed shut down by the runtime";
        stage.expect("server", &["opened", &data(b"x"), "stopping", closed]);
        stage.expect("client", &["opened", "stopping", closed]);
        stage.check(report.drained() == 2 && report.aborted() == 0, "both drained");
    });
}

#[test]
fn data_that_comes_after_shutdown_has_begun_is_told_so() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            echo().stopping(|_| Ok(())).data(|cx, input| {
                // Of the last byte, without any other callback on the way to it.
                assert_eq!(cx.driver().is_stopping(), input.starts_with(b"3"));
                cx.write(input);
                if input.starts_with(b"3") {
                    cx.close();
                }
                input.consume_all();
                Ok(())
            })
        });
        let client = says(b"1").stopping(|cx| {
            cx.write(b"3");
            Ok(())
        });
        let client = client.data(|cx, input| {
            if input.starts_with(b"1") {
                cx.write(b"2");
            } else if input.starts_with(b"2") {
                cx.driver().shutdown();
            }
            input.consume_all();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let closed = "closed finished by the peer";
        stage.expect("client", &["opened", &data(b"12"), "stopping", &data(b"3"), "eof", closed]);
    });
}

#[test]
fn c14_a_protocol_may_finish_its_work_after_stopping() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            stopper()
                .stopping(|cx| {
                    assert!(cx.driver().is_stopping());
                    cx.set_timer(LATER, Duration::from_millis(20));
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.write(b"goodbye");
                    cx.close();
                    Ok(())
                })
        });
        stage.connect("client", addr, says(b"x").stopping(|_| Ok(())));
        let report = stage.run();
        stage.expect(
            "server",
            &["opened", &data(b"x"), "stopping", "timeout of timer 2", "closed finished by us"],
        );
        stage.expect(
            "client",
            &["opened", "stopping", &data(b"goodbye"), "eof", "closed finished by the peer"],
        );
        stage.check(report.aborted() == 0, "nobody was aborted");
    });
}

#[test]
fn c14_whoever_stays_open_is_aborted_when_the_time_to_drain_is_over() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_millis(80);
    everywhere_with(limits, |stage| {
        let addr = stage.serve("server", || stopper().stopping(|_| Ok(())));
        stage.connect("client", addr, says(b"x").stopping(|_| Ok(())));
        let report = stage.run();
        let closed = "closed shut down by the runtime";
        stage.expect("server", &["opened", &data(b"x"), "stopping", closed]);
        stage.expect("client", &["opened", "stopping", closed]);
        stage.check(report.drained() == 0 && report.aborted() == 2, "both were aborted");
    });
}

#[test]
fn c14_a_handle_shuts_the_driver_down_and_connects_under_way_are_cancelled() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        stage.connect("client", addr, Play::new());
        stage.driver.handle().shutdown();
        stage.driver.handle().shutdown();
        stage.run();
        stage.expect("client", &["closed connect cancelled by the runtime"]);
        stage.check(stage.driver.handle().is_ended(), "the driver has ended");
    });
}

#[test]
fn connects_during_shutdown_are_cancelled() {
    everywhere(|stage| {
        let addr = stage.serve("server", stopper);
        let trace = stage.trace.clone();
        let client = says(b"x").stopping(move |cx| {
            cx.connect(addr, trace.wrap("late", Play::new()));
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("late", &["closed connect cancelled by the runtime"]);
    });
}

/// Connects again whenever it ends: the usual client that must not be lost.
fn stubborn(addr: SocketAddr) -> Play {
    fn again(cx: &mut Context<'_>, addr: SocketAddr, left: u32) {
        if left > 0 {
            let next = Play::new().closed(move |cx, _| again(cx, addr, left - 1));
            cx.connect(addr, next);
        }
    }
    Play::new().closed(move |cx, _| again(cx, addr, 3))
}

#[test]
fn a_client_that_connects_anew_in_closed_is_cancelled_once() {
    everywhere(|stage| {
        let addr = stage.serve("server", stopper);
        let client = stubborn(addr).opened(|cx| {
            cx.write(b"x");
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.check(stage.driver.metrics().connects == 2, "the second connect was cancelled");
        stage.check(stage.driver.metrics().closes.connect == 1, "and the third not even begun");
    });
}

#[test]
fn the_end_of_a_drain_leaves_the_reason_of_a_connection_that_was_closing_already() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_millis(50);
    everywhere_with(limits, |stage| {
        // Ends with an error, and lingers, as its peer does not close.
        let addr = stage.serve("server", || {
            Play::new().data(|cx, _| {
                cx.write(b"sorry");
                Err("no such thing".into())
            })
        });
        let client = says(b"?").eof(|cx, _| {
            cx.driver().shutdown();
            Ok(())
        });
        stage.connect("client", addr, client.stopping(|_| Ok(())));
        stage.run();
        stage.expect("server", &["opened", "closed protocol error by us"]);
        // Not reset: the last words may still be on their way.
        let closed = "closed shut down by the runtime";
        stage.expect("client", &["opened", &data(b"sorry"), "eof", "stopping", closed]);
    });
}

#[test]
fn a_successor_is_told_opened_before_stopping() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().data(move |cx, input| {
                input.consume_all();
                cx.driver().shutdown();
                cx.replace(trace.wrap("next", echo()));
                Ok(())
            })
        });
        stage.connect("client", addr, says(b"?"));
        stage.run();
        stage.expect("next", &["opened", "stopping", "closed shut down by the runtime"]);
    });
}
