//! `replace`: another protocol takes the connection over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lariat::{Limits, Note, Protocol, Timer};

use crate::kit::{Play, data, echo, everywhere, says, says_all};

const LATER: Timer = Timer::new(2);

/// Reads `greeting`, then hands over.
fn hands_over<P: Protocol + Send + 'static>(
    greeting: &'static [u8],
    next: impl Fn() -> P + Send + 'static,
) -> Play {
    Play::new().data(move |cx, input| {
        if input.len() < greeting.len() {
            input.need(greeting.len());
            return Ok(());
        }
        assert!(input.starts_with(greeting));
        input.consume(greeting.len());
        cx.write(b"over to you;");
        cx.replace(next());
        Ok(())
    })
}

#[test]
fn the_next_protocol_gets_the_unread_input_and_the_fin() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            hands_over(b"hello", move || {
                trace.wrap(
                    "next",
                    Play::new()
                        .opened(|cx| {
                            cx.write(b"opened;");
                            Ok(())
                        })
                        .data(|cx, input| {
                            cx.write(input);
                            input.consume_all();
                            Ok(())
                        }),
                )
            })
        });
        stage.connect("client", addr, says_all(b"hello and more"));
        stage.run();
        stage.expect("server", &["opened", &data(b"hello")]);
        stage
            .expect("next", &["opened", &data(b" and more"), "eof", "closed finished by the peer"]);
        let heard = data(b"over to you;opened; and more");
        stage.expect("client", &["opened", &heard, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn the_old_protocol_is_dropped_without_closed_and_its_timers_die() {
    struct Dropped(Arc<AtomicU32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    everywhere(|stage| {
        let drops = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&drops);
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let (trace, mine) = (trace.clone(), Dropped(Arc::clone(&counted)));
            let counted = Arc::clone(&counted);
            Play::new().opened(move |cx| {
                let _ = &mine;
                cx.set_timer(LATER, Duration::from_millis(1));
                cx.set_timer(Timer::new(9), Duration::ZERO);
                let counted = Arc::clone(&counted);
                cx.replace(trace.wrap(
                    "next",
                    Play::new().opened(move |cx| {
                        assert_eq!(
                            counted.load(Ordering::Relaxed),
                            1,
                            "dropped before the next opens"
                        );
                        cx.set_timer(Timer::new(5), Duration::from_millis(20));
                        Ok(())
                    }),
                ));
                cx.set_timer(Timer::new(8), Duration::ZERO);
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened"]);
        stage.expect("next", &["opened", "timeout of timer 5", "closed finished by us"]);
        stage.check(drops.load(Ordering::Relaxed) == 1, "dropped once");
    });
}

#[test]
fn the_last_replace_in_a_callback_wins() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                cx.replace(trace.wrap("one", Play::new()));
                cx.replace(trace.wrap("two", Play::new()));
                cx.replace(trace.wrap("three", Play::new()));
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b""));
        stage.run();
        stage.expect::<&str>("one", &[]);
        stage.expect::<&str>("two", &[]);
        stage.expect("three", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_replace_beside_a_close_or_an_error_does_not_happen() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve_many(3, Limits::default(), move |number| {
            let trace = trace.clone();
            let play = Play::new().opened(move |cx| {
                cx.replace(trace.wrap("next", Play::new()));
                match number {
                    0 => cx.close(),
                    1 => cx.abort(),
                    _ => return Err("no".into()),
                }
                Ok(())
            });
            (format!("server {number}"), play)
        });
        for number in 0..3 {
            stage.connect(&format!("client {number}"), addr, Play::new());
        }
        stage.run();
        stage.expect::<&str>("next", &[]);
        stage.expect("server 0", &["opened", "closed finished by us"]);
        stage.expect("server 1", &["opened", "closed aborted by us"]);
        stage.expect("server 2", &["opened", "closed protocol error by us"]);
    });
}

#[test]
fn a_replace_in_eof_gives_the_next_the_rest_and_the_fin_again() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().data(|_, _| Ok(())).eof(move |cx, rest| {
                rest.consume(2);
                cx.replace(trace.wrap("next", Play::new()));
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"abcd"));
        stage.run();
        stage.expect("server", &["opened", "eof with 4 bytes left"]);
        stage.expect("next", &["opened", &data(b"cd"), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_replace_lifts_the_pause_of_the_old_protocol() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    cx.set_timer(LATER, Duration::from_millis(20));
                    Ok(())
                })
                .timeout(move |cx, _| {
                    cx.replace(trace.wrap("next", Play::new()));
                    Ok(())
                })
        });
        stage.connect("client", addr, says_all(b"abc"));
        stage.run();
        stage.expect("next", &["opened", &data(b"abc"), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn notes_for_the_connection_reach_the_next_protocol() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                let own = cx.id();
                cx.peer(own).notify(Note::new(()));
                cx.replace(trace.wrap(
                    "next",
                    Play::new().notified(|cx, _| {
                        cx.close();
                        Ok(())
                    }),
                ));
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("next", &["opened", "notified", "closed finished by us"]);
    });
}

#[test]
fn a_successor_may_be_replaced_when_it_opens() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                cx.write(b"1");
                let inner = trace.clone();
                cx.replace(trace.wrap(
                    "two",
                    Play::new().opened(move |cx| {
                        cx.write(b"2");
                        cx.replace(inner.wrap("three", says(b"3")));
                        Ok(())
                    }),
                ));
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"to the last"));
        stage.run();
        stage.expect("two", &["opened"]);
        stage.expect(
            "three",
            &["opened", &data(b"to the last"), "eof", "closed finished by the peer"],
        );
        stage.expect("client", &["opened", &data(b"123"), "eof", "closed finished by the peer"]);
    });
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("planned");
    }
}

#[test]
fn a_protocol_that_panics_as_it_is_dropped_for_another_costs_that_one_nothing() {
    everywhere(|stage| {
        stage.panics();
        let addr = stage.serve("server", || {
            let bomb = Bomb;
            hands_over(b"hello", move || {
                let _ = &bomb;
                echo()
            })
        });
        stage.connect("client", addr, says_all(b"hello and more"));
        stage.run();
        let heard = data(b"over to you; and more");
        stage.expect("client", &["opened", &heard, "eof", "closed finished by the peer"]);
        assert_eq!(stage.driver.metrics().panics, 1);
    });
}

#[test]
fn an_idle_limit_of_its_own_ends_with_the_protocol_that_set_it() {
    const IDLE: Duration = Duration::from_millis(50);
    // The limits have none, the first protocol has one, and the next one outlives it.
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                let next = Play::new().opened(|cx| {
                    cx.set_timer(LATER, 3 * IDLE);
                    Ok(())
                });
                cx.set_idle(Some(IDLE));
                cx.replace(trace.wrap("next", next));
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("next", &["opened", "timeout of timer 2", "closed finished by us"]);
    });
    // The limits have one, the first protocol has turned it off, and the next one meets it.
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let mut limits = Limits::default();
        limits.idle = Some(IDLE);
        let addr = stage.serve_with("server", limits, move || {
            let trace = trace.clone();
            Play::new().opened(move |cx| {
                cx.set_idle(None);
                cx.replace(trace.wrap("next", Play::new()));
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("next", &["opened", "closed timed out (idle) by the runtime"]);
    });
}
