//! Handshakes of filters in the counters: those that go on, those that are complete, those that
//! are not.

use std::time::Duration;

use lariat::{Filter, FilterResult, Limits, Progress};

use crate::counters::when;
use crate::kit::{Play, echo, everywhere, says, says_all};
use crate::toy::Toy;

fn filtered(play: Play, toy: Toy) -> Play {
    let mut toy = Some(toy);
    play.filter(move || toy.take().map(|toy| Box::new(toy) as Box<dyn Filter>))
}

#[test]
fn handshakes_are_counted_while_they_go_on_and_by_how_they_end() {
    everywhere(|stage| {
        let addr = stage.serve("server", || filtered(Play::new(), Toy::server()));
        // It says nothing until both of its handshakes are seen to wait, and then something wrong.
        let silent = Play::new().opened(|cx| {
            let own = cx.id();
            when(
                &mut cx.driver(),
                |m| (m.handshaking, m.handshakes, m.open) == (1, 0, 2),
                move |control| control.peer(own).write(b"nonsense"),
            );
            Ok(())
        });
        stage.connect("silent", addr, silent);
        stage.run();
        let metrics = stage.driver.metrics();
        let counts = (metrics.handshaking, metrics.handshakes, metrics.failed_handshakes);
        stage.check(counts == (0, 0, 1), "a handshake that fails");
        stage.expect("server", &["closed filter failed by the peer"]);
    });
    everywhere(|stage| {
        let addr = stage.serve("server", || filtered(echo(), Toy::server()));
        stage.connect("client", addr, filtered(says_all(b"x"), Toy::client(7)));
        stage.run();
        let metrics = stage.driver.metrics();
        let counts = (metrics.handshaking, metrics.handshakes, metrics.failed_handshakes);
        stage.check(counts == (0, 2, 0), "both ends of one that is complete");
    });
}

#[test]
fn handshakes_that_are_late_or_cut_or_closed_by_another_count_as_failed() {
    type Silent = fn() -> Play;
    let mut late = Limits::default();
    late.handshake = Duration::from_millis(60);
    let ends: [(Limits, Silent, &str); 3] = [
        (late, || says(b"HEL"), "closed timed out (handshake) by the runtime"),
        (Limits::default(), || says_all(b"HEL"), "closed truncated by the peer"),
        (
            Limits::default(),
            || {
                says(b"HEL").opened(|cx| {
                    cx.abort();
                    Ok(())
                })
            },
            "closed reset by the peer",
        ),
    ];
    for (limits, silent, told) in ends {
        everywhere(|stage| {
            let serve = || filtered(Play::new(), Toy::server());
            let addr = stage.serve_with("server", limits.clone(), serve);
            stage.connect("client", addr, silent());
            stage.run();
            stage.expect("server", &[told]);
            let metrics = stage.driver.metrics();
            let counts = (metrics.handshaking, metrics.handshakes, metrics.failed_handshakes);
            stage.check(counts == (0, 0, 1), told);
        });
    }
}

#[test]
fn a_filter_that_is_open_at_once_has_no_handshake_to_count() {
    struct Open;
    impl Filter for Open {
        fn receive(&mut self, b: &mut [u8], c: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
            c.extend_from_slice(b);
            Ok(Progress::Open)
        }
        fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
            wire.extend_from_slice(clear);
            Ok(Progress::Open)
        }
        fn ends_with_stream(&self) -> bool {
            true
        }
    }
    everywhere(|stage| {
        let addr = stage.serve("server", || echo().filter(|| Some(Box::new(Open))));
        stage.connect("client", addr, says_all(b"x"));
        stage.run();
        let metrics = stage.driver.metrics();
        let counts = (metrics.handshaking, metrics.handshakes, metrics.failed_handshakes);
        stage.check(counts == (0, 0, 0), "no handshake");
    });
}
