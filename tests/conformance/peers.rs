//! Reaching other connections: write, push, close, abort, notes, and ids of the dead.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{ConnId, Context, Control, Limits, Note, Timer};

use crate::kit::{Play, Stage, data, everywhere, says};

const LATER: Timer = Timer::new(2);

/// Two servers, `first` and `second`; when both are open, `second` acts on `first`.
fn two(stage: &mut Stage<'_>, act: fn(&mut Context<'_>, ConnId), first: fn() -> Play) {
    let ids: Arc<Mutex<Vec<ConnId>>> = Arc::default();
    let trace = stage.trace.clone();
    let addr = stage.serve_many(2, Limits::default(), move |number| {
        let ids = Arc::clone(&ids);
        let name = ["first", "second"][number];
        let play = if number == 0 { first() } else { Play::new() };
        (
            name.to_owned(),
            play.opened(move |cx| {
                ids.lock().unwrap().push(cx.id());
                if let [first, _] = ids.lock().unwrap()[..] {
                    act(cx, first);
                    cx.close();
                }
                Ok(())
            }),
        )
    });
    // The second connects when the first is known to be open.
    let helper = stage.serve("helper", Play::new);
    let client = Play::new().opened(move |cx| {
        cx.set_timer(LATER, Duration::from_millis(60));
        Ok(())
    });
    let client = client.timeout(move |cx, _| {
        cx.connect(addr, trace.wrap("other", Play::new()));
        Ok(())
    });
    stage.connect("client", addr, client);
    stage.connect(
        "filler",
        helper,
        Play::new().opened(|cx| {
            cx.close();
            Ok(())
        }),
    );
    stage.run();
    stage.expect("second", &["opened", "closed finished by us"]);
}

#[test]
fn a_write_to_a_peer_reaches_its_socket() {
    everywhere(|stage| {
        two(
            stage,
            |cx, first| {
                assert!(cx.peer(first).is_open());
                cx.peer(first).write(b"from ");
                cx.peer(first).write_bytes(&b"the other "[..]);
                cx.peer(first).push(&b"side"[..]);
                cx.peer(first).close();
                cx.peer(first).write(b"too late");
            },
            Play::new,
        );
        let all = data(b"from the other side");
        stage.expect("first", &["opened", "closed finished by us"]);
        stage.expect(
            "client",
            &["opened", "timeout of timer 2", &all, "eof", "closed finished by the peer"],
        );
        let refused = stage.driver.metrics().refused_bytes;
        stage.check(refused == 8, "a write after the close is counted");
    });
}

#[test]
fn a_peer_can_be_closed_and_closed_again() {
    everywhere(|stage| {
        two(
            stage,
            |cx, first| {
                cx.peer(first).close();
                cx.peer(first).close();
            },
            Play::new,
        );
        stage.expect("first", &["opened", "closed finished by us"]);
    });
}

#[test]
fn a_peer_can_be_aborted() {
    everywhere(|stage| {
        two(
            stage,
            |cx, first| {
                cx.peer(first).abort();
                cx.peer(first).close();
                cx.peer(first).write(b"nothing");
            },
            Play::new,
        );
        stage.expect("first", &["opened", "closed aborted by us"]);
        stage.expect("client", &["opened", "timeout of timer 2", "closed reset by the peer"]);
    });
}

#[test]
fn a_peer_can_be_half_closed() {
    everywhere(|stage| {
        two(
            stage,
            |cx, first| {
                cx.peer(first).write(b"bye");
                cx.peer(first).shutdown_write();
                cx.peer(first).shutdown_write();
            },
            Play::new,
        );
        stage.expect("first", &["opened", "eof", "closed finished by the peer"]);
        stage.expect(
            "client",
            &["opened", "timeout of timer 2", &data(b"bye"), "eof", "closed finished by the peer"],
        );
    });
}

#[test]
fn notes_arrive_in_order_and_whole() {
    everywhere(|stage| {
        two(
            stage,
            |cx, first| {
                for number in 0..3u32 {
                    cx.peer(first).notify(Note::new(number));
                }
            },
            || {
                let mut next = 0;
                Play::new().notified(move |cx, note| {
                    assert_eq!(note.downcast::<u32>().unwrap(), next);
                    next += 1;
                    if next == 3 {
                        cx.close();
                    }
                    Ok(())
                })
            },
        );
        stage.expect(
            "first",
            &["opened", "notified", "notified", "notified", "closed finished by us"],
        );
    });
}

#[test]
fn notes_wait_for_opened() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let helper = stage.serve("helper", Play::new);
        let trace = stage.trace.clone();
        let parent = Play::new().opened(move |cx| {
            let child = Play::new().notified(|cx, note| {
                if note.is::<&str>() {
                    cx.close();
                }
                Ok(())
            });
            let child = cx.connect(addr, trace.wrap("child", child));
            cx.peer(child).notify(Note::new(1u8));
            cx.peer(child).notify(Note::new("last"));
            cx.close();
            Ok(())
        });
        stage.connect("parent", helper, parent);
        stage.run();
        stage.expect("child", &["opened", "notified", "notified", "closed finished by us"]);
    });
}

#[test]
fn notes_beyond_notes_max_are_refused_and_counted() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.notes_max = 3;
        let addr = stage.serve_with("server", limits, || {
            Play::new().opened(|cx| {
                for _ in 0..5 {
                    let own = cx.id();
                    cx.peer(own).notify(Note::new(()));
                }
                cx.set_timer(LATER, Duration::from_millis(5));
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect(
            "server",
            &[
                "opened",
                "notified",
                "notified",
                "notified",
                "timeout of timer 2",
                "closed finished by us",
            ],
        );
        stage.check(stage.driver.metrics().refused_notes == 2, "two notes were refused");
    });
}

#[test]
fn b13_a_stale_id_takes_everything_and_does_nothing() {
    everywhere(|stage| {
        let ids: Arc<Mutex<Vec<ConnId>>> = Arc::default();
        let kept = Arc::clone(&ids);
        let old = stage.serve("old", move || {
            let kept = Arc::clone(&kept);
            Play::new().opened(move |cx| {
                kept.lock().unwrap().push(cx.id());
                cx.abort();
                Ok(())
            })
        });
        let addr =
            stage.serve("new", || Play::new().notified(|_, _| Err("a note for another".into())));
        let trace = stage.trace.clone();
        let first = Play::new().closed(move |cx, _| {
            let ids = Arc::clone(&ids);
            let stale = move |cx: &mut Context<'_>| {
                let old = ids.lock().unwrap()[0];
                assert!(!cx.peer(old).is_open());
                cx.peer(old).write(b"ghost");
                cx.peer(old).push(&b"ghost"[..]);
                cx.driver().push_all(&[old, old], &b"ghost"[..]);
                cx.peer(old).notify(Note::new(()));
                cx.peer(old).shutdown_write();
                cx.peer(old).close();
                cx.peer(old).abort();
                cx.close();
                Ok(())
            };
            // Opened by what reuses the slots of the dead.
            cx.connect(
                addr,
                trace.wrap(
                    "client",
                    says(b"hello")
                        .opened(|cx| {
                            cx.write(b"hello");
                            cx.set_timer(LATER, Duration::from_millis(10));
                            Ok(())
                        })
                        .timeout(move |cx, _| stale(cx)),
                ),
            );
        });
        stage.connect("first", old, first);
        stage.run();
        stage.expect("new", &["opened", &data(b"hello"), "eof", "closed finished by the peer"]);
        stage.check(stage.driver.metrics().stale >= 8, "stale wishes are counted");
    });
}

#[test]
fn a_relay_written_with_peers_carries_everything_both_ways() {
    everywhere(|stage| {
        const WHOLE: usize = 500_000;
        let server = stage.serve("server", || {
            Play::new().data(|cx, input| {
                cx.write(input);
                input.consume_all();
                Ok(())
            })
        });
        let trace = stage.trace.clone();
        let mut limits = Limits::default();
        limits.high_mark = 4000;
        limits.low_mark = 1000;
        let relay = stage.serve_with("relay", limits, move || {
            let trace = trace.clone();
            let out: Arc<Mutex<Option<ConnId>>> = Arc::default();
            let to = Arc::clone(&out);
            let to_end = Arc::clone(&out);
            Play::new()
                .opened(move |cx| {
                    let back = cx.id();
                    let child = Play::new()
                        .data(move |cx, input| {
                            cx.peer(back).write(input);
                            input.consume_all();
                            Ok(())
                        })
                        .eof(move |cx, _| {
                            cx.peer(back).shutdown_write();
                            cx.close();
                            Ok(())
                        });
                    *out.lock().unwrap() = Some(cx.connect(server, trace.wrap("child", child)));
                    Ok(())
                })
                .data(move |cx, input| {
                    let to = to.lock().unwrap().unwrap();
                    cx.peer(to).write(input);
                    input.consume_all();
                    Ok(())
                })
                .eof(move |cx, _| {
                    let to = to_end.lock().unwrap().unwrap();
                    cx.peer(to).shutdown_write();
                    Ok(())
                })
        });
        let mut limits = Limits::default();
        limits.high_mark = 1 << 20;
        let client = Play::new().opened(|cx| {
            cx.write(&[9; WHOLE]);
            cx.shutdown_write();
            Ok(())
        });
        stage.connect_with("client", relay, limits, client);
        stage.run();
        let all = data(&[9; WHOLE]);
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

/// Carries much more than a receiver's `output_max` to a client that reads late, and lets
/// `relayed` write it.
fn relay_to_a_late_reader(stage: &mut Stage<'_>, relayed: fn(&mut Context<'_>, ConnId, &[u8])) {
    let whole = if stage.is_real() { 16 << 20 } else { 1500 << 10 };
    let far: Arc<Mutex<Option<ConnId>>> = Arc::default();
    let to = Arc::clone(&far);
    let near = stage.serve("near", move || {
        let (to, to_end) = (Arc::clone(&to), Arc::clone(&to));
        Play::new()
            .data(move |cx, input| {
                relayed(cx, to.lock().unwrap().unwrap(), input);
                input.consume_all();
                Ok(())
            })
            .eof(move |cx, _| {
                cx.peer(to_end.lock().unwrap().unwrap()).close();
                cx.close();
                Ok(())
            })
    });
    let mut limits = Limits::default();
    (limits.high_mark, limits.low_mark, limits.output_max) = (4000, 1000, 1 << 20);
    let late = stage.serve_with("far", limits, move || {
        let far = Arc::clone(&far);
        Play::new().opened(move |cx| {
            *far.lock().unwrap() = Some(cx.id());
            let mut limits = Limits::default();
            limits.output_max = 64 << 20;
            let writer = Play::new().opened(move |cx| {
                cx.write_bytes(vec![9; whole]);
                cx.shutdown_write();
                Ok(())
            });
            cx.driver().connect_with(near, limits.into(), writer)?;
            Ok(())
        })
    });
    let reader = Play::new()
        .opened(|cx| {
            cx.pause_reading();
            cx.set_timer(LATER, Duration::from_millis(60));
            Ok(())
        })
        .timeout(|cx, _| {
            cx.resume_reading();
            Ok(())
        });
    stage.connect("reader", late, reader);
    stage.run();
    let all = data(&vec![9; whole]);
    let end = ["opened", "timeout of timer 2", &all, "eof", "closed finished by the peer"];
    stage.expect("reader", &end);
}

#[test]
fn a_write_through_the_driver_holds_its_writer_as_one_to_a_peer_does() {
    everywhere(|stage| {
        relay_to_a_late_reader(stage, |cx, to, bytes| cx.driver().peer(to).write(bytes));
    });
    everywhere(|stage| {
        relay_to_a_late_reader(stage, |cx, to, bytes| cx.peer(to).write_bytes(bytes.to_vec()));
    });
}

#[test]
fn a_write_through_the_driver_to_the_own_connection_keeps_its_place() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                let own = cx.id();
                cx.write(b"one ");
                cx.driver().peer(own).write(b"two ");
                cx.write(b"three ");
                cx.driver().push_all(&[own], &b"four "[..]);
                cx.write(b"five");
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let all = data(b"one two three four five");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_push_reaches_everybody_and_holds_nobody() {
    everywhere(|stage| {
        let ids: Arc<Mutex<Vec<ConnId>>> = Arc::default();
        let addr = stage.serve_many(3, Limits::default(), move |number| {
            let ids = Arc::clone(&ids);
            (
                format!("server {number}"),
                Play::new().opened(move |cx| {
                    let mut ids = ids.lock().unwrap();
                    ids.push(cx.id());
                    if ids.len() == 3 {
                        cx.driver().push_all(&ids, vec![b'!'; 100_000]);
                        for id in ids.iter() {
                            cx.peer(*id).close();
                        }
                    }
                    Ok(())
                }),
            )
        });
        for number in 0..3 {
            stage.connect(&format!("client {number}"), addr, Play::new());
        }
        stage.run();
        let all = data(&[b'!'; 100_000]);
        for number in 0..3 {
            let who = format!("client {number}");
            stage.expect(&who, &["opened", &all, "eof", "closed finished by the peer"]);
        }
        stage.check(stage.driver.metrics().held == 0, "nobody is held");
    });
}

#[test]
fn a_receiver_pushed_above_its_output_max_ends_with_output_full() {
    everywhere(|stage| {
        two(stage, |cx, first| cx.peer(first).push(vec![0; 9 << 20]), Play::new);
        stage.expect("first", &["opened", "closed output full by the runtime"]);
    });
}

#[test]
fn the_unsent_bytes_of_a_peer_are_known_from_the_write_until_they_have_gone() {
    everywhere(|stage| {
        let whole = if stage.is_real() { 16 << 20 } else { 1 << 20 };
        let far: Arc<Mutex<Option<ConnId>>> = Arc::default();
        let to = Arc::clone(&far);
        let mut limits = Limits::default();
        limits.output_max = 64 << 20;
        let late = stage.serve_with("far", limits, move || {
            let far = Arc::clone(&far);
            Play::new().opened(move |cx| {
                *far.lock().unwrap() = Some(cx.id());
                Ok(())
            })
        });
        // The reader reads when the test says so.
        let reader = Play::new()
            .opened(|cx| {
                cx.pause_reading();
                Ok(())
            })
            .notified(|cx, _| {
                cx.resume_reading();
                Ok(())
            });
        let reader = stage.connect("reader", late, reader);
        let (mut far, mut resumed) = (None, false);
        let addr = stage.serve("server", Play::new);
        let writer = Play::new()
            .opened(|cx| {
                cx.set_timer(LATER, Duration::ZERO);
                Ok(())
            })
            .timeout(move |cx, timer| {
                let Some(to) = *to.lock().unwrap() else {
                    cx.set_timer(timer, Duration::from_millis(1));
                    return Ok(());
                };
                let own = cx.id();
                if far.replace(to).is_none() {
                    assert_eq!((cx.peer(to).unsent(), cx.peer(own).unsent()), (0, 0));
                    cx.peer(to).write(b"12345");
                    cx.peer(to).write_bytes(vec![7; whole]);
                    assert_eq!(cx.peer(to).unsent(), 5 + whole);
                    cx.peer(to).push(&b"!"[..]);
                    assert_eq!(cx.driver().peer(to).unsent(), 6 + whole);
                    cx.write(b"own");
                    assert_eq!((cx.peer(own).unsent(), cx.unsent()), (3, 3));
                    cx.set_timer(timer, Duration::from_millis(1));
                    return Ok(());
                }
                let left = cx.peer(to).unsent();
                assert!(left <= 6 + whole);
                if !std::mem::replace(&mut resumed, true) {
                    assert!(left > 0, "nobody reads");
                    cx.peer(reader).notify(Note::new(()));
                }
                if left > 0 {
                    cx.set_timer(timer, Duration::from_millis(1));
                } else {
                    cx.peer(to).close();
                    cx.peer(to).write(b"too late");
                    cx.close();
                }
                Ok(())
            })
            .closed(move |cx, _| assert_eq!(cx.peer(reader).unsent(), 0));
        stage.connect("writer", addr, writer);
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
        let mut all = b"12345".to_vec();
        all.resize(5 + whole, 7);
        all.push(b'!');
        stage.check(stage.trace.of("reader").contains(&data(&all)), "everything came");
    });
}

#[test]
fn what_a_callback_wrote_to_a_peer_is_known_to_the_next_one() {
    everywhere(|stage| {
        let whole = if stage.is_real() { 16 << 20 } else { 1 << 20 };
        let addr = stage.serve("server", Play::new);
        let mut limits = Limits::default();
        limits.output_max = 64 << 20;
        let far = stage.serve("silent", silent_server);
        let trace = stage.trace.clone();
        // A connect that is cancelled would leave the silent server without a client.
        let play = Play::new().opened(move |cx| {
            let to = cx.id();
            let writer = Play::new()
                .opened(|cx| {
                    // Both arrive in one turn.
                    let own = cx.id();
                    cx.driver().peer(own).notify(Note::new(1u8));
                    cx.driver().peer(own).notify(Note::new(2u8));
                    Ok(())
                })
                .notified(move |cx, note| {
                    if note.downcast::<u8>().unwrap() == 1 {
                        cx.peer(to).write_bytes(vec![7; whole]);
                    } else {
                        assert!(cx.peer(to).unsent() > 0);
                        cx.peer(to).abort();
                        cx.close();
                    }
                    Ok(())
                });
            cx.connect(addr, trace.wrap("writer", writer));
            Ok(())
        });
        stage.connect_with("far", far, limits, play);
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
    });
}

#[test]
fn an_id_of_the_dead_has_nothing_unsent_whatever_the_next_owner_of_its_slot_has() {
    everywhere(|stage| {
        let whole = if stage.is_real() { 16 << 20 } else { 1 << 20 };
        let silent = stage.serve_many(4, Limits::default(), |number| {
            (format!("silent {number}"), silent_server())
        });
        let next = move |control: &mut Control<'_>, dead| {
            let mut limits = Limits::default();
            limits.output_max = 64 << 20;
            let next = Play::new()
                .opened(move |cx| {
                    cx.write_bytes(vec![7; whole]);
                    cx.set_timer(LATER, Duration::from_millis(20));
                    Ok(())
                })
                .timeout(move |cx, _| {
                    assert!(cx.unsent() > 0);
                    assert_eq!(cx.peer(dead).unsent(), 0);
                    cx.abort();
                    Ok(())
                });
            control.connect_with(silent, limits.into(), next).unwrap();
        };
        let old = stage.serve("old", Play::new);
        let first = Play::new()
            .opened(|cx| {
                cx.close();
                Ok(())
            })
            .closed(move |cx, _| {
                let dead = cx.id();
                // When its slot is free.
                cx.after(Duration::from_millis(20), move |control| {
                    (0..4).for_each(|_| next(control, dead));
                });
            });
        stage.connect("first", old, first);
        stage.run();
        stage.check(stage.driver.metrics().panics == 0, "nothing was wrong");
    });
}

/// Never reads.
fn silent_server() -> Play {
    Play::new().opened(|cx| {
        cx.pause_reading();
        Ok(())
    })
}
