//! Everything a callback may do, done in every callback; and what happens when a callback fails.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::sim::Trace;
use lariat::{CloseKind, Context, Limits, Note, Outcome, Timer};

use crate::kit::{Play, Stage, data, everywhere, says, says_all};

const TIMER: Timer = Timer::new(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callback {
    Opened,
    Data,
    Eof,
    Drained,
    Timeout,
    Notified,
    Stopping,
    Closed,
}
use Callback::*;

const ALL: [Callback; 8] = [Opened, Data, Eof, Drained, Timeout, Notified, Stopping, Closed];

/// A protocol that gets into `callback` and acts there.
fn actor(
    callback: Callback,
    mut act: impl FnMut(&mut Context<'_>) -> Outcome + Clone + Send + 'static,
) -> Play {
    let mut in_data = act.clone();
    let mut in_eof = act.clone();
    let mut in_drained = act.clone();
    let mut in_timeout = act.clone();
    let mut in_notified = act.clone();
    let mut in_stopping = act.clone();
    let mut in_closed = act.clone();
    let mut play = Play::new()
        .opened(move |cx| {
            match callback {
                Opened => return act(cx),
                Timeout => cx.set_timer(TIMER, Duration::ZERO),
                Notified => {
                    let own = cx.id();
                    cx.peer(own).notify(Note::new(()));
                }
                Closed => cx.close(),
                Data | Eof | Drained | Stopping => {}
            }
            Ok(())
        })
        .data(move |cx, input| {
            input.consume_all();
            match callback {
                Data => in_data(cx),
                // Above the high mark of these scenarios.
                Drained => {
                    cx.write(b"..");
                    Ok(())
                }
                Stopping => {
                    cx.driver().shutdown();
                    Ok(())
                }
                _ => Ok(()),
            }
        })
        .drained(move |cx| in_drained(cx))
        .timeout(move |cx, _| in_timeout(cx))
        .notified(move |cx, _| in_notified(cx));
    if callback == Eof {
        play = play.eof(move |cx, _| in_eof(cx));
    }
    if callback == Stopping {
        play = play.stopping(move |cx| in_stopping(cx));
    }
    if callback == Closed {
        play = play.closed(move |cx, _| {
            let _ = in_closed(cx);
        });
    }
    play
}

/// Says what gets the actor into `callback`, and closes when a `w` says so.
fn partner(callback: Callback) -> Play {
    Play::new()
        .opened(move |cx| {
            if matches!(callback, Data | Eof | Drained | Stopping) {
                cx.write(b"x");
            }
            if callback == Eof {
                cx.shutdown_write();
            }
            Ok(())
        })
        .data(|cx, input| {
            if input.contains(&b'w') {
                cx.close();
            }
            input.consume_all();
            Ok(())
        })
        // The shutdown is the actor's affair.
        .stopping(|_| Ok(()))
}

/// What the actor's trace begins with, up to the callback in which it acts.
fn before(callback: Callback) -> Vec<String> {
    let mut lines = vec!["opened".to_owned()];
    match callback {
        Opened => {}
        Data => lines.push(data(b"x")),
        Eof => lines.extend([data(b"x"), "eof".into()]),
        Drained => lines.extend([data(b"x"), "drained".into()]),
        Timeout => lines.push("timeout of timer 1".into()),
        Notified => lines.push("notified".into()),
        Stopping => lines.extend([data(b"x"), "stopping".into()]),
        Closed => lines.push("closed finished by us".into()),
    }
    lines
}

fn tight() -> Limits {
    let mut limits = Limits::default();
    limits.high_mark = 1;
    limits.low_mark = 0;
    limits
}

/// Plays `act` in `callback`; `after` is what the actor's trace must end with.
#[track_caller]
fn act_in(
    stage: &mut Stage<'_>,
    callback: Callback,
    act: impl FnMut(&mut Context<'_>) -> Outcome + Clone + Send + Sync + 'static,
    after: &[&str],
) {
    let addr = stage.serve_with("actor", tight(), move || actor(callback, act.clone()));
    stage.connect("partner", addr, partner(callback));
    stage.run();
    let mut lines = before(callback);
    lines.extend(after.iter().map(|line| (*line).to_owned()));
    stage.expect("actor", &lines);
}

macro_rules! in_every_callback {
    ($($name:ident: $scenario:ident;)*) => {
        $(#[test]
        fn $name() {
            everywhere(|stage| $scenario(stage, Opened));
            everywhere(|stage| $scenario(stage, Data));
            everywhere(|stage| $scenario(stage, Eof));
            everywhere(|stage| $scenario(stage, Drained));
            everywhere(|stage| $scenario(stage, Timeout));
            everywhere(|stage| $scenario(stage, Notified));
            everywhere(|stage| $scenario(stage, Stopping));
            everywhere(|stage| $scenario(stage, Closed));
        })*
    };
}

in_every_callback! {
    c2_close_inside_any_callback_ends_the_connection_once: closes;
    c2_close_twice_inside_any_callback_is_the_same_as_once: closes_twice;
    c2_abort_inside_any_callback_ends_the_connection_once: aborts;
    c2_write_inside_any_callback_but_closed_reaches_the_peer: writes;
    c2_shutdown_write_inside_any_callback_finishes_one_direction: finishes;
    c2_connect_inside_any_callback_connects: connects;
    c2_replace_inside_any_callback_but_closed_lets_the_next_take_over: replaces;
    c3_stopping_the_driver_inside_any_callback_is_told_to_its_own_connection_too: stops;
    c3_stopping_the_listener_inside_any_callback_leaves_connections_alone: stops_listening;
    an_error_from_any_callback_closes_in_order_with_the_reason_protocol: fails;
    c4_a_panic_in_any_callback_ends_that_connection_and_closed_still_runs: panics;
}

fn closed_in_order(callback: Callback) -> &'static [&'static str] {
    match callback {
        Eof => &["closed finished by the peer"],
        Stopping => &["closed shut down by the runtime"],
        Closed => &[],
        _ => &["closed finished by us"],
    }
}

/// The partner closes when it has read the `w`.
fn closed_by_partner(callback: Callback) -> &'static [&'static str] {
    match callback {
        Closed => &[],
        Eof => &["closed finished by the peer"],
        _ => &["eof", "closed finished by the peer"],
    }
}

fn closes(stage: &mut Stage<'_>, callback: Callback) {
    let close = |cx: &mut Context<'_>| {
        cx.close();
        Ok(())
    };
    act_in(stage, callback, close, closed_in_order(callback));
}

fn closes_twice(stage: &mut Stage<'_>, callback: Callback) {
    let close = |cx: &mut Context<'_>| {
        cx.close();
        let own = cx.id();
        cx.peer(own).close();
        cx.close();
        Ok(())
    };
    let after = match callback {
        Closed => &[][..],
        Eof => &["closed finished by the peer"],
        Stopping => &["closed shut down by the runtime"],
        _ => &["closed finished by us"],
    };
    act_in(stage, callback, close, after);
}

fn aborts(stage: &mut Stage<'_>, callback: Callback) {
    let abort = |cx: &mut Context<'_>| {
        cx.write(b"lost");
        cx.abort();
        Ok(())
    };
    let after: &[&str] = if callback == Closed { &[] } else { &["closed aborted by us"] };
    act_in(stage, callback, abort, after);
}

fn writes(stage: &mut Stage<'_>, callback: Callback) {
    let write = move |cx: &mut Context<'_>| {
        cx.write(b"w");
        if callback == Eof {
            cx.close();
        }
        Ok(())
    };
    act_in(stage, callback, write, closed_by_partner(callback));
    let heard = stage.trace.of("partner").iter().any(|line| line.starts_with("data"));
    stage.check(heard == (callback != Closed), "the partner hears what is written before the end");
}

fn finishes(stage: &mut Stage<'_>, callback: Callback) {
    let finish = |cx: &mut Context<'_>| {
        cx.shutdown_write();
        Ok(())
    };
    let after: &[&str] = match callback {
        Closed => &[],
        // Both directions have ended: there is nothing left to wait for.
        Eof => &["closed finished by us"],
        _ => &["eof", "closed finished by the peer"],
    };
    act_in(stage, callback, finish, after);
}

fn connects(stage: &mut Stage<'_>, callback: Callback) {
    let helper = stage.serve("helper", Play::new);
    let trace = stage.trace.clone();
    let connect = move |cx: &mut Context<'_>| {
        let child = Play::new().opened(|cx| {
            cx.close();
            Ok(())
        });
        cx.connect(helper, trace.wrap("child", child));
        cx.write(b"w");
        if callback == Eof {
            cx.close();
        }
        Ok(())
    };
    act_in(stage, callback, connect, closed_by_partner(callback));
    if callback == Stopping {
        stage.expect("child", &["closed connect cancelled by the runtime"]);
    } else {
        stage.expect("child", &["opened", "closed finished by us"]);
        stage.expect("helper", &["opened", "eof", "closed finished by the peer"]);
    }
}

fn replaces(stage: &mut Stage<'_>, callback: Callback) {
    let trace = stage.trace.clone();
    let replace = move |cx: &mut Context<'_>| {
        cx.replace(trace.wrap("first", Play::new()));
        cx.replace(trace.wrap("next", says(b"w")));
        Ok(())
    };
    act_in(stage, callback, replace, &[]);
    let next: &[&str] = match callback {
        Closed => &[],
        _ => &["opened", "eof", "closed finished by the peer"],
    };
    stage.expect("next", next);
    stage.expect::<&str>("first", &[]);
}

fn stops_listening(stage: &mut Stage<'_>, callback: Callback) {
    let stop = move |cx: &mut Context<'_>| {
        if let Some(listener) = cx.listener() {
            cx.driver().stop_listening(listener);
            cx.driver().stop_listening(listener);
        }
        cx.write(b"w");
        if callback == Eof {
            cx.close();
        }
        Ok(())
    };
    act_in(stage, callback, stop, closed_by_partner(callback));
}

fn stops(stage: &mut Stage<'_>, callback: Callback) {
    let stop = move |cx: &mut Context<'_>| {
        cx.driver().shutdown();
        cx.driver().shutdown();
        if callback == Stopping {
            cx.close();
        }
        Ok(())
    };
    let after: &[&str] = match callback {
        Closed => &[],
        Stopping => &["closed shut down by the runtime"],
        _ => &["stopping", "closed shut down by the runtime"],
    };
    act_in(stage, callback, stop, after);
}

fn fails(stage: &mut Stage<'_>, callback: Callback) {
    let fail = |cx: &mut Context<'_>| {
        cx.write(b"w");
        Err("this protocol has had enough".into())
    };
    let after: &[&str] = if callback == Closed { &[] } else { &["closed protocol error by us"] };
    act_in(stage, callback, fail, after);
    let heard = stage.trace.of("partner").contains(&data(b"w"))
        || stage.trace.of("partner").contains(&data(b"..w"));
    stage.check(heard == (callback != Closed), "the peer reads the last words");
}

fn panics(stage: &mut Stage<'_>, callback: Callback) {
    stage.panics();
    let panic = |cx: &mut Context<'_>| -> Outcome {
        cx.write(b"lost");
        panic!("planned");
    };
    let after: &[&str] = if callback == Closed { &[] } else { &["closed panicked by us"] };
    act_in(stage, callback, panic, after);
    let panics = stage.driver.metrics().panics;
    stage.check(panics == 1, "the panic is counted");
}

// ---- several requests in one callback --------------------------------------------------------

#[test]
fn all_callbacks_are_in_the_matrix() {
    assert_eq!(ALL.map(|callback| before(callback).len()), [1, 2, 3, 3, 2, 2, 3, 2]);
}

#[test]
fn b13_writes_after_close_are_refused_and_counted() {
    everywhere(|stage| {
        let refused = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&refused);
        let addr = stage.serve("server", move || {
            let counted = Arc::clone(&counted);
            Play::new()
                .opened(|cx| {
                    use std::io::Write;
                    cx.write(b"before");
                    cx.close();
                    cx.close();
                    cx.shutdown_write();
                    let own = cx.id();
                    cx.peer(own).write(b"after");
                    cx.peer(own).close();
                    cx.write_bytes(&b"too late"[..]);
                    let error = cx.writer().write(b"!").unwrap_err();
                    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
                    cx.write(b"");
                    Ok(())
                })
                .closed(move |_, reason| *counted.lock().unwrap() = reason.refused())
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed finished by us"]);
        let heard = data(b"before");
        stage.expect("client", &["opened", &heard, "eof", "closed finished by the peer"]);
        stage.check(*refused.lock().unwrap() == 14, "the reason counts what was refused");
        let counted = stage.driver.metrics().refused_bytes;
        stage.check(counted == 14, "the metrics count what was refused");
    });
}

#[test]
fn writes_in_closed_are_dropped() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            says(b"bye")
                .opened(|cx| {
                    cx.close();
                    Ok(())
                })
                .closed(|cx, _| {
                    cx.write(b"ghost");
                    cx.close();
                    cx.abort();
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
        let refused = stage.driver.metrics().refused_bytes;
        stage.check(refused == 5, "the metrics count what was dropped");
    });
}

#[test]
fn wishes_for_others_before_an_error_are_applied_in_order() {
    everywhere(|stage| {
        relays_then(stage, |_| Err("enough".into()));
        stage.expect("relay", &["opened", &data(b"!"), "closed protocol error by us"]);
    });
}

#[test]
fn wishes_for_others_before_a_panic_are_applied() {
    everywhere(|stage| {
        stage.panics();
        relays_then(stage, |_| panic!("planned"));
        stage.expect("relay", &["opened", &data(b"!"), "closed panicked by us"]);
    });
}

/// A server that writes to another connection and then ends in its own way.
fn relays_then(stage: &mut Stage<'_>, end: fn(&mut Context<'_>) -> Outcome) {
    let helper = stage.serve("helper", || {
        Play::new().data(|cx, input| {
            if input.contains(&b'.') {
                cx.close();
            }
            Ok(())
        })
    });
    let out = stage.connect("out", helper, Play::new());
    let addr = stage.serve("relay", move || {
        Play::new().data(move |cx, input| {
            input.consume_all();
            cx.peer(out).write(b"one ");
            cx.peer(out).write(b"two.");
            end(cx)
        })
    });
    stage.connect("client", addr, says(b"!"));
    stage.run();
    let heard = stage.trace.of("helper");
    stage.check(heard[1] == "closed finished by us", "the helper closes when it has the full stop");
}

#[test]
fn a_write_in_opened_is_the_first_thing_the_peer_reads() {
    everywhere(|stage| {
        let addr = stage.serve("server", || says_all(b"welcome"));
        stage.connect("client", addr, Play::new());
        stage.run();
        let heard = data(b"welcome");
        stage.expect("client", &["opened", &heard, "eof", "closed finished by the peer"]);
        stage.expect("server", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn writes_before_a_connect_has_succeeded_wait_for_it() {
    everywhere(|stage| {
        let addr = stage.serve("server", || Play::new().opened(|_| Ok(())));
        connects_and_writes(stage, addr);
        stage.expect(
            "server",
            &["opened", &data(b"early words, then more"), "eof", "closed finished by the peer"],
        );
    });
}

/// A connection that is written to in the callback that asked for it.
fn connects_and_writes(stage: &mut Stage<'_>, addr: SocketAddr) {
    let helper = stage.serve("helper", Play::new);
    let trace: Trace = stage.trace.clone();
    let play = Play::new().opened(move |cx| {
        let child = Play::new().opened(|cx| {
            cx.write(b", then more");
            cx.shutdown_write();
            Ok(())
        });
        let child = cx.connect(addr, trace.wrap("child", child));
        cx.peer(child).write(b"early words");
        cx.close();
        Ok(())
    });
    stage.connect("parent", helper, play);
    stage.run();
    stage.expect("child", &["opened", "eof", "closed finished by the peer"]);
}

#[test]
fn a_failed_callback_gives_its_error_to_closed() {
    everywhere(|stage| {
        let told = Arc::new(Mutex::new(String::new()));
        let tells = Arc::clone(&told);
        let addr = stage.serve("server", move || {
            let tells = Arc::clone(&tells);
            Play::new().opened(|_| Err("the moon is full".into())).closed(move |_, reason| {
                assert_eq!(reason.kind(), CloseKind::Protocol);
                *tells.lock().unwrap() =
                    reason.error().map(ToString::to_string).unwrap_or_default();
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.check(*told.lock().unwrap() == "the moon is full", "the reason has the error");
    });
}
