//! Output that its receiver does not take, while something else is due: nothing waits for it. The
//! limits that could end a wait instead are so long that a scenario which needs them fails.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use lariat::{ConnId, Control, DriverLimits, Input, Limits, Note, Outcome, Timer};

use crate::kit::{Play, Stage, data, everywhere, everywhere_with, on_sockets};
use crate::patience::until;

const SOON: Timer = Timer::new(1);
const NEVER: Duration = Duration::from_secs(3600);
/// Long enough for what is under way to come to rest, so that threads sleep.
const AT_REST: Duration = Duration::from_millis(150);

/// More than sockets and a network take.
fn much(stage: &Stage<'_>) -> usize {
    if stage.is_real() { 20 << 20 } else { 1 << 20 }
}

fn patient() -> Limits {
    let mut limits = Limits::default();
    (limits.write_stall, limits.close_deadline) = (NEVER, NEVER);
    limits.output_max = 64 << 20;
    limits
}

type Id = Arc<OnceLock<ConnId>>;

/// Reads nothing until it is noted.
fn pausing() -> Play {
    Play::new()
        .opened(|cx| {
            cx.pause_reading();
            Ok(())
        })
        .notified(|cx, _| {
            cx.resume_reading();
            Ok(())
        })
}

/// Keeps its id, and writes `count` bytes when it opens.
fn writing(count: usize, id: Id) -> Play {
    Play::new().opened(move |cx| {
        let _ = id.set(cx.id());
        cx.write(&vec![7; count]);
        Ok(())
    })
}

#[test]
fn b18_a_timer_of_a_callback_fires_while_the_output_of_that_callback_is_stuck() {
    everywhere(|stage| {
        let (count, client) = (much(stage), Id::default());
        let peer = Arc::clone(&client);
        let addr = stage.serve_with("server", patient(), move || {
            let peer = Arc::clone(&peer);
            Play::new()
                .opened(move |cx| {
                    cx.write(&vec![7; count]);
                    cx.set_timer(SOON, Duration::from_millis(30));
                    Ok(())
                })
                // Without it the peer would never read.
                .timeout(move |cx, _| {
                    cx.peer(*peer.get().unwrap()).notify(Note::new(()));
                    cx.close();
                    Ok(())
                })
        });
        client.set(stage.connect("client", addr, pausing())).unwrap();
        stage.run();
        let all = data(&vec![7; count]);
        let lines = ["opened", "notified", &all, "eof", "closed finished by the peer"];
        stage.expect("client", &lines);
        stage.expect("server", &["opened", "timeout of timer 1", "closed finished by us"]);
    });
}

#[test]
fn b18_a_timer_set_while_output_is_stuck_already_fires() {
    everywhere(|stage| {
        let (count, server) = (much(stage), Id::default());
        let id = Arc::clone(&server);
        let addr = stage.serve_with("server", patient(), move || {
            writing(count, Arc::clone(&id))
                .data(|cx, input| {
                    input.consume_all();
                    cx.set_timer(SOON, Duration::from_millis(30));
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.abort();
                    Ok(())
                })
        });
        let client = pausing().timeout(|cx, _| {
            cx.write(b"?");
            Ok(())
        });
        let client = client.opened(|cx| {
            cx.pause_reading();
            cx.set_timer(SOON, AT_REST);
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let lines =
            ["opened", &data(b"?"), "timeout of timer 1", "closed aborted by us"].map(String::from);
        stage.expect("server", &lines);
    });
}

#[test]
fn a_note_arrives_while_output_is_stuck_and_nothing_comes() {
    everywhere(|stage| {
        let (count, server) = (much(stage), Id::default());
        let id = Arc::clone(&server);
        let addr = stage.serve_with("server", patient(), move || {
            writing(count, Arc::clone(&id)).notified(|cx, _| {
                cx.abort();
                Ok(())
            })
        });
        stage.connect("client", addr, pausing());
        at_rest(stage, [Arc::clone(&server)], move |control| {
            control.peer(*server.get().unwrap()).notify(Note::new(()));
        });
        stage.run();
        stage.expect("server", &["opened", "notified", "closed aborted by us"]);
    });
}

#[test]
fn c17_room_that_came_during_a_long_callback_puts_the_end_of_a_stall_off() {
    on_sockets(DriverLimits::default(), |stage| {
        let count = much(stage);
        let mut limits = patient();
        // Longer than the client may need for its turn on a busy machine.
        limits.write_stall = Duration::from_millis(500);
        let (reads, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (starts, counted) = (Arc::clone(&reads), Arc::clone(&read));
        let addr = stage.serve_with("server", limits, move || {
            let (starts, counted) = (Arc::clone(&starts), Arc::clone(&counted));
            Play::new()
                .opened(move |cx| {
                    cx.write(&vec![7; count]);
                    let own = cx.id();
                    cx.peer(own).notify(Note::new(()));
                    Ok(())
                })
                // What it has written is stuck. Until long after the end of a stall nobody looks at
                // the socket, in which there is room again.
                .notified(move |cx, _| {
                    let began = Instant::now();
                    assert!(cx.unsent() > 0);
                    starts.store(true, Ordering::SeqCst);
                    until(|| counted.load(Ordering::SeqCst) > 0, "the client does not read");
                    let late = Duration::from_millis(1500);
                    std::thread::sleep(late.saturating_sub(began.elapsed()));
                    cx.close();
                    Ok(())
                })
        });
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            until(|| reads.load(Ordering::SeqCst), "the server does not write");
            let mut buffer = vec![0; 1 << 16];
            while let Ok(got @ 1..) = stream.read(&mut buffer) {
                read.fetch_add(got, Ordering::SeqCst);
            }
            read.load(Ordering::SeqCst)
        });
        stage.run();
        stage.check(client.join().unwrap() == count, "everything arrives");
        stage.expect("server", &["opened", "notified", "closed finished by us"]);
    });
}

#[test]
fn b19_two_ends_that_both_write_first_and_much_get_everything() {
    everywhere(|stage| {
        let count = much(stage);
        let heard = Arc::new(AtomicUsize::new(0));
        let sum = Arc::clone(&heard);
        let talks = move |own: u8, other: u8| {
            let sum = Arc::clone(&sum);
            Play::new()
                .opened(move |cx| {
                    cx.write(&vec![own; count]);
                    cx.shutdown_write();
                    Ok(())
                })
                .data(move |_, input| {
                    assert!(input.iter().all(|byte| *byte == other));
                    sum.fetch_add(input.len(), Ordering::Relaxed);
                    input.consume_all();
                    Ok(())
                })
        };
        let server = talks.clone();
        let addr = stage.serve_with("server", patient(), move || server(1, 2));
        stage.connect_with("client", addr, patient(), talks(2, 1));
        stage.run();
        for who in ["server", "client"] {
            let lines = stage.trace.of(who);
            let last = lines.last().is_some_and(|line| line.starts_with("closed finished"));
            stage.check(last, &format!("{who} ends in order"));
        }
        stage.check(heard.load(Ordering::Relaxed) == 2 * count, "everything arrives");
    });
}

/// Passes on what comes.
fn relay(own: Id, to: Id) -> Play {
    Play::new()
        .opened(move |cx| {
            let _ = own.set(cx.id());
            Ok(())
        })
        .data(move |cx, input: &mut Input<'_>| -> Outcome {
            cx.peer(*to.get().unwrap()).write(input);
            input.consume_all();
            Ok(())
        })
}

/// A source, a relay that it writes to, and a receiver that the relay writes to, whose own peer
/// takes nothing. Returns the ids of the relay and the receiver.
fn stuck_relay(stage: &mut Stage<'_>) -> (Id, Id) {
    let count = 2 * much(stage);
    let (relaying, receiving) = (Id::default(), Id::default());
    let own = Arc::clone(&receiving);
    let addr = stage.serve_with("receiver", patient(), move || writing(1, Arc::clone(&own)));
    stage.connect("silent", addr, pausing());
    let (own, to) = (Arc::clone(&relaying), Arc::clone(&receiving));
    let addr =
        stage.serve_with("relay", patient(), move || relay(Arc::clone(&own), Arc::clone(&to)));
    let source = Play::new().opened(|cx| {
        cx.set_timer(SOON, Duration::from_millis(20));
        Ok(())
    });
    let source = source.timeout(move |cx, _| {
        cx.write(&vec![7; count]);
        Ok(())
    });
    stage.connect_with("source", addr, patient(), source);
    (relaying, receiving)
}

#[test]
fn an_abort_of_a_relay_whose_receiver_is_stuck_is_at_once() {
    everywhere(|stage| {
        let (relaying, receiving) = stuck_relay(stage);
        let handle = stage.driver.handle();
        at_rest(stage, [Arc::clone(&relaying), Arc::clone(&receiving)], move |control| {
            handle.abort(*relaying.get().unwrap());
            control.set_timer(AT_REST, move |control| {
                control.peer(*receiving.get().unwrap()).abort();
            });
        });
        stage.run();
        let lines = stage.trace.of("relay");
        let aborted = lines.last().is_some_and(|line| line == "closed aborted by us");
        stage.check(aborted, "the relay is aborted");
        let lines = stage.trace.of("receiver");
        let aborted = lines.last().is_some_and(|line| line == "closed aborted by us");
        stage.check(aborted, "the receiver is aborted");
    });
}

/// Runs `then` as soon as `ready` says so, looking now and then.
fn when(
    control: &mut Control<'_>,
    ready: impl Fn(&mut Control<'_>) -> bool + Send + 'static,
    then: impl FnOnce(&mut Control<'_>) + Send + 'static,
) {
    if ready(control) {
        return then(control);
    }
    control.set_timer(Duration::from_millis(20), move |control| when(control, ready, then));
}

/// Runs `then` when all of `ids` are open, and have had time to fill what there is to fill.
fn at_rest<const N: usize>(
    stage: &mut Stage<'_>,
    ids: [Id; N],
    then: impl FnOnce(&mut Control<'_>) + Send + 'static,
) {
    let open = move |_: &mut Control<'_>| ids.iter().all(|id| id.get().is_some());
    when(&mut stage.driver.control(), open, move |control| {
        control.set_timer(2 * AT_REST, then);
    });
}

#[test]
fn a_relay_goes_on_when_its_receiver_is_gone() {
    everywhere(|stage| {
        let (relaying, receiving) = stuck_relay(stage);
        let (trace, before) = (stage.trace.clone(), stage.trace.clone());
        let relays = move |_: &mut Control<'_>| before.of("relay").len() > 1;
        let over = move |control: &mut Control<'_>| {
            control.metrics().stale > 0 && trace.of("relay").contains(&"notified".to_owned())
        };
        when(&mut stage.driver.control(), relays, move |control| {
            control.peer(*receiving.get().unwrap()).abort();
            // It is no longer held: what has come is read, and what it writes is for nobody.
            control.peer(*relaying.get().unwrap()).notify(Note::new(()));
            when(control, over, |control| control.shutdown());
        });
        stage.run();
        stage.check(stage.driver.metrics().stale > 0, "what the relay writes is for nobody");
    });
}

#[test]
fn a_connection_that_has_paused_reads_no_more_than_input_max() {
    everywhere(|stage| {
        let (count, input_max) = (much(stage), 100_000);
        let mut limits = patient();
        limits.input_max = input_max;
        let real = stage.is_real();
        let addr = stage.serve_with("server", limits, move || {
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    cx.set_timer(SOON, 2 * AT_REST);
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.abort();
                    Ok(())
                })
                .closed(move |_, reason| {
                    let unread = reason.unread();
                    assert!(unread <= input_max as u64, "{unread} bytes were read");
                    assert!(real || unread == 0, "{unread} bytes were read");
                })
        });
        let client = Play::new().opened(move |cx| {
            cx.write(&vec![7; count]);
            Ok(())
        });
        stage.connect_with("client", addr, patient(), client);
        stage.run();
        let panics = stage.driver.metrics().panics;
        stage.check(panics == 0, "it reads too much");
        stage.expect("server", &["opened", "timeout of timer 1", "closed aborted by us"]);
    });
}

/// Writes `count` bytes, and reads when all of them have left.
fn writing_first(count: usize) -> Play {
    let mut left = count;
    Play::new()
        .opened(move |cx| {
            cx.pause_reading();
            cx.write(&vec![7; count]);
            Ok(())
        })
        .drained(|cx| {
            cx.resume_reading();
            Ok(())
        })
        .data(move |cx, input| {
            left -= input.len();
            input.consume_all();
            if left == 0 {
                cx.close();
            }
            Ok(())
        })
}

#[test]
fn b18_a_paused_connection_whose_output_is_stuck_reads_on_when_it_is_resumed() {
    everywhere(|stage| {
        let (count, server) = (much(stage), Id::default());
        let id = Arc::clone(&server);
        let addr = stage.serve_with("server", patient(), move || {
            let id = Arc::clone(&id);
            pausing()
                .opened(move |cx| {
                    id.set(cx.id()).unwrap();
                    cx.pause_reading();
                    cx.write(&vec![7; count]);
                    Ok(())
                })
                .closed(move |_, reason| {
                    assert_eq!(
                        (reason.bytes_in(), reason.bytes_out()),
                        (count as u64, count as u64)
                    );
                })
        });
        stage.connect_with("client", addr, patient(), writing_first(count));
        at_rest(stage, [Arc::clone(&server)], move |control| {
            control.peer(*server.get().unwrap()).notify(Note::new(()));
        });
        stage.run();
        let trace = stage.trace.of("server");
        let [first, .., last] = &trace[..] else { panic!("{trace:?}") };
        stage.check(
            (first.as_str(), last.as_str()) == ("opened", "closed finished by the peer"),
            "",
        );
        stage.check(stage.driver.metrics().panics == 0, "everything came and went");
    });
}

#[test]
fn b18_a_held_connection_whose_output_is_stuck_reads_on_when_it_is_released() {
    everywhere(|stage| {
        let (count, far) = (much(stage), Id::default());
        // What comes here goes to the one that is far, which does not take it at first.
        let to = Arc::clone(&far);
        let near = stage.serve_with("near", patient(), move || {
            let (to, to_end) = (Arc::clone(&to), Arc::clone(&to));
            writing(count, Id::default())
                .data(move |cx, input| {
                    cx.peer(*to.get().unwrap()).write(input);
                    input.consume_all();
                    Ok(())
                })
                .eof(move |cx, _| {
                    cx.peer(*to_end.get().unwrap()).close();
                    cx.close();
                    Ok(())
                })
        });
        let trace = stage.trace.clone();
        let late = stage.serve_with("far", patient(), move || {
            let (far, trace) = (Arc::clone(&far), trace.clone());
            Play::new().opened(move |cx| {
                far.set(cx.id()).unwrap();
                let client = trace.wrap("client", writing_first(count));
                cx.driver().connect_with(near, patient().into(), client)?;
                Ok(())
            })
        });
        let reader = stage.connect("reader", late, pausing());
        stage.driver.control().set_timer(AT_REST, move |control| {
            control.peer(reader).notify(Note::new(()));
        });
        stage.run();
        let all = data(&vec![7; count]);
        let lines = ["opened", "notified", &all, "eof", "closed finished by the peer"];
        stage.expect("reader", &lines);
    });
}

#[test]
fn what_is_asked_for_others_does_not_wait_for_a_slow_reader() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::ZERO;
    everywhere_with(limits, |stage| {
        let (ids, count) = (Arc::new(Mutex::new(Vec::new())), much(stage));
        let known = Arc::clone(&ids);
        let addr = stage.serve_many(2, patient(), move |number| {
            let (own, ids) = (Arc::clone(&ids), Arc::clone(&ids));
            let server = Play::new().opened(move |cx| {
                own.lock().unwrap().push(cx.id());
                Ok(())
            });
            // Answers with more than its peer takes, and tells the other one.
            let server = server.data(move |cx, input| {
                input.consume_all();
                let mut others = ids.lock().unwrap().clone();
                others.retain(|other| *other != cx.id());
                cx.write(&vec![7; count]);
                cx.driver().push_all(&others, "hello");
                Ok(())
            });
            (format!("server {number}"), server)
        });
        let silent = Play::new().opened(|cx| {
            cx.pause_reading();
            cx.set_timer(SOON, Duration::from_millis(1));
            Ok(())
        });
        let silent = silent.timeout(move |cx, timer| {
            if known.lock().unwrap().len() == 2 {
                cx.write(b"?");
            } else {
                cx.set_timer(timer, Duration::from_millis(1));
            }
            Ok(())
        });
        stage.connect("silent", addr, silent);
        let other = Play::new().data(|cx, input| {
            if input.len() == 5 {
                input.consume_all();
                cx.driver().shutdown();
            }
            Ok(())
        });
        stage.connect("other", addr, other);
        stage.run();
        stage.check(stage.trace.of("other").contains(&data(b"hello")), "the other one is told");
    });
}
