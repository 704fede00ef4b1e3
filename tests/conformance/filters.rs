//! A filter under the connection: the handshake comes first, nothing leaves in clear, and every end
//! is told apart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::sim::{Faults, Sim, Socket, Trace};
use lariat::{
    ConnId, Filter, FilterResult, Limits, ListenOptions, Note, Progress, Protocol, Timer,
};

use crate::handles::answered;
use crate::kit::{Play, data, echo, everywhere, says, says_all};
use crate::toy::{ALERT, Toy};

const LATER: Timer = Timer::new(2);
const KEY: u8 = 0x5A;

fn server(play: Play) -> Play {
    let mut toy = Some(Toy::server());
    play.filter(move || toy.take().map(|toy| Box::new(toy) as Box<dyn Filter>))
}

fn client(play: Play) -> Play {
    let mut toy = Some(Toy::client(KEY));
    play.filter(move || toy.take().map(|toy| Box::new(toy) as Box<dyn Filter>))
}

// ---- both ends filtered, on every driver -----------------------------------------------------

#[test]
fn filtered_ends_talk_in_clear_to_each_other() {
    everywhere(|stage| {
        let addr = stage.serve("server", || server(echo()));
        let play = Play::new().opened(|cx| {
            cx.write(&[7; 50_000]);
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, client(play));
        stage.run();
        let all = data(&[7; 50_000]);
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn writes_before_the_handshake_is_over_wait_for_it() {
    everywhere(|stage| {
        let addr = stage.serve("server", || server(Play::new()));
        let helper = stage.serve("helper", Play::new);
        let trace = stage.trace.clone();
        let parent = Play::new().opened(move |cx| {
            let child = client(Play::new()).opened(|cx| {
                cx.write(b"then");
                cx.shutdown_write();
                Ok(())
            });
            let child = cx.connect(addr, trace.wrap("child", child));
            cx.peer(child).write(b"early, ");
            cx.peer(child).notify(Note::new(()));
            cx.close();
            Ok(())
        });
        stage.connect("parent", helper, parent);
        stage.run();
        stage.expect(
            "server",
            &["opened", &data(b"early, then"), "eof", "closed finished by the peer"],
        );
        stage.expect("child", &["opened", "notified", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn half_close_under_a_filter_leaves_the_other_direction_open() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            server(Play::new())
                .eof(|cx, _| {
                    cx.set_timer(LATER, Duration::from_millis(20));
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.write(b"after your end");
                    cx.close();
                    Ok(())
                })
        });
        stage.connect("client", addr, client(says_all(b"the end")));
        stage.run();
        stage.expect(
            "server",
            &[
                "opened",
                &data(b"the end"),
                "eof",
                "timeout of timer 2",
                "closed finished by the peer",
            ],
        );
        let after = data(b"after your end");
        stage.expect("client", &["opened", &after, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_close_under_a_filter_finishes_it_in_order() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            server(says(b"bye").opened(|cx| {
                cx.write(b"bye");
                cx.close();
                Ok(())
            }))
        });
        stage.connect("client", addr, client(Play::new()));
        stage.run();
        stage.expect("server", &["opened", "closed finished by us"]);
        stage.expect("client", &["opened", &data(b"bye"), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn pausing_under_a_filter_stops_data_at_once() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            let mut took = false;
            server(
                Play::new()
                    .data(move |cx, input| {
                        if took {
                            input.consume_all();
                        } else {
                            input.consume(1);
                            took = true;
                            cx.pause_reading();
                            cx.set_timer(LATER, Duration::from_millis(30));
                        }
                        Ok(())
                    })
                    .timeout(|cx, _| {
                        cx.resume_reading();
                        Ok(())
                    }),
            )
        });
        stage.connect("client", addr, client(says_all(b"abc")));
        stage.run();
        stage.expect(
            "server",
            &[
                "opened",
                &data(b"a"),
                "timeout of timer 2",
                &data(b"bc"),
                "eof",
                "closed finished by the peer",
            ],
        );
    });
}

#[test]
fn a_peer_without_the_filter_ends_as_failed() {
    everywhere(|stage| {
        let addr = stage.serve("server", || server(says(b"never")));
        stage.connect("client", addr, says(b"GET / HTTP/1.1\r\n\r\n"));
        stage.run();
        stage.expect("server", &["closed filter failed by the peer"]);
        stage.expect("client", &["opened", &data(ALERT), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_stream_that_is_cut_is_truncated_and_not_finished() {
    everywhere(|stage| {
        let addr = stage.serve("server", || server(Play::new()));
        // A client that knows the handshake and forgets the end.
        let play = Play::new().opened(|cx| {
            let mut wire = Toy::hello(KEY);
            Toy::encode(KEY, b"half a mess", &mut wire);
            cx.write(&wire);
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        stage.expect("server", &["opened", &data(b"half a mess"), "closed truncated by the peer"]);
    });
}

#[test]
fn a_handshake_that_never_comes_times_out() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.handshake = Duration::from_millis(60);
        let addr = stage.serve_with("server", limits, || server(says(b"never")));
        stage.connect("client", addr, says(b"HEL"));
        stage.run();
        stage.expect("server", &["closed timed out (handshake) by the runtime"]);
        stage.expect("client", &["opened", "closed reset by the peer"]);
    });
}

#[test]
fn a_filter_that_panics_ends_its_connection_alone() {
    struct Bomb;
    impl Filter for Bomb {
        fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Open)
        }
        fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
            panic!("planned")
        }
        fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Open)
        }
        fn ends_with_stream(&self) -> bool {
            false
        }
    }
    everywhere(|stage| {
        let addr = stage.serve("server", || Play::new().filter(|| Some(Box::new(Bomb))));
        stage.connect("client", addr, says(b"x"));
        stage.run();
        stage.expect("server", &["opened", "closed panicked by us"]);
    });
}

#[test]
fn writing_late_into_a_filtered_connection_is_refused_like_any_other() {
    everywhere(|stage| {
        let ids: Arc<Mutex<Option<ConnId>>> = Arc::default();
        let kept = Arc::clone(&ids);
        let addr = stage.serve("server", move || {
            let kept = Arc::clone(&kept);
            server(Play::new().opened(move |cx| {
                *kept.lock().unwrap() = Some(cx.id());
                cx.shutdown_write();
                Ok(())
            }))
        });
        let play = Play::new().eof(move |cx, _| {
            let peer = ids.lock().unwrap().unwrap();
            cx.peer(peer).write(b"late");
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client(play));
        stage.run();
        stage.check(stage.driver.metrics().refused_bytes == 4, "refused and counted");
        stage.expect("server", &["opened", "eof", "closed finished by the peer"]);
    });
}

// ---- replace with a filter: STARTTLS ---------------------------------------------------------

/// Answers `STARTTLS` in clear and goes on filtered. With `feed`, what the client sent behind it is
/// taken for its handshake.
fn starts_tls(trace: &Trace, feed: bool) -> Play {
    let trace = trace.clone();
    Play::new().data(move |cx, input| {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
        assert_eq!(&input[..end], b"STARTTLS");
        input.consume(end + 1);
        cx.write(b"go ahead\n");
        let mut next = cx.replace(trace.wrap("secure", server(echo())));
        if feed {
            next.feed_unread();
        }
        Ok(())
    })
}

#[test]
fn a_queued_reply_leaves_in_clear_and_then_the_handshake_begins() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || starts_tls(&trace, false));
        let trace = stage.trace.clone();
        let play = says(b"STARTTLS\n").data(move |cx, input| {
            if input.ends_with(b"\n") {
                assert_eq!(&input[..], b"go ahead\n");
                input.consume_all();
                cx.replace(trace.wrap("secure client", client(says_all(b"secret"))));
            }
            Ok(())
        });
        stage.connect("client", addr, play);
        stage.run();
        stage.expect("server", &["opened", &data(b"STARTTLS\n")]);
        stage.expect("client", &["opened", &data(b"go ahead\n")]);
        let secret = data(b"secret");
        let ends = ["opened", &secret, "eof", "closed finished by the peer"];
        stage.expect("secure", &ends);
        stage.expect("secure client", &ends);
    });
}

/// Says everything at once: the request, and a handshake behind it.
fn eager() -> Play {
    Play::new().opened(|cx| {
        let mut wire = b"STARTTLS\n".to_vec();
        wire.extend(Toy::hello(KEY));
        Toy::encode(KEY, b"hi", &mut wire);
        wire.push(0);
        cx.write(&wire);
        Ok(())
    })
}

/// In one piece, so that the input behind the request is surely unread when the filter comes.
fn in_one_piece(feed: bool, play: Play) -> (Trace, u64) {
    let mut sim = Sim::new(1);
    let trace = Trace::new();
    let wrap = trace.clone();
    let listener = sim
        .listen("127.0.0.1:0", move |_| Some(wrap.wrap("server", starts_tls(&wrap, feed))))
        .unwrap();
    sim.connect(sim.addresses(listener)[0], trace.wrap("client", play));
    sim.run().unwrap();
    let filter = sim.metrics().closes.filter;
    (trace, filter)
}

#[test]
fn unread_input_that_meets_a_new_filter_is_refused_by_default() {
    let (trace, filter) = in_one_piece(false, eager());
    assert_eq!(trace.of("server"), ["opened", &data(b"STARTTLS\n")]);
    assert_eq!(trace.of("secure"), ["closed unread input met a new filter by us"]);
    assert_eq!(filter, 1);
    let clear = data(b"go ahead\n");
    assert_eq!(trace.of("client"), ["opened", &clear, "eof", "closed finished by the peer"]);
}

#[test]
fn unread_input_is_fed_to_the_new_filter_by_choice() {
    let (trace, _) = in_one_piece(true, eager());
    assert_eq!(trace.of("secure"), ["opened", &data(b"hi"), "eof", "closed finished by the peer"]);
    let mut wire = b"go ahead\nOLEH".to_vec();
    Toy::encode(KEY, b"hi", &mut wire);
    wire.push(0);
    assert_eq!(trace.of("client")[1], data(&wire));
}

#[test]
fn a_second_filter_is_refused() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            server(Play::new().opened(move |cx| {
                cx.write(b"first");
                cx.replace(trace.wrap("second", server(Play::new())));
                Ok(())
            }))
        });
        stage.connect("client", addr, client(Play::new()));
        stage.run();
        stage.expect("second", &["closed a second filter was refused by us"]);
        let first = data(b"first");
        stage.expect("client", &["opened", &first, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_successor_without_a_filter_keeps_the_one_of_the_connection() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            server(Play::new().data(move |cx, input| {
                input.consume_all();
                cx.write(b"one ");
                cx.replace(trace.wrap("next", says(b"two")));
                Ok(())
            }))
        });
        stage.connect("client", addr, client(says_all(b"!")));
        stage.run();
        stage.expect("next", &["opened", "eof", "closed finished by the peer"]);
        let all = data(b"one two");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_replace_before_the_connect_is_over_brings_its_filter_along() {
    everywhere(|stage| {
        let addr = stage.serve("server", || server(echo()));
        let play = says_all(b"filtered from the start");
        stage.connect("client", addr, client(play));
        stage.run();
        let all = data(b"filtered from the start");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

// ---- the wire, seen from a raw end -----------------------------------------------------------

/// A server with `play` behind a filter, and a raw end that has said `first`.
fn raw<P: Protocol + 'static>(
    sim: &mut Sim,
    mut make: impl FnMut() -> P + 'static,
    first: &[u8],
) -> Socket {
    let listener =
        sim.listen_with("127.0.0.1:0", ListenOptions::default(), move |_| Some(make())).unwrap();
    let socket = sim.dial(sim.addresses(listener)[0]);
    socket.send(first);
    socket
}

#[test]
fn nothing_is_in_clear_on_the_wire_whoever_writes_it() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let ids: Arc<Mutex<Option<ConnId>>> = Arc::default();
        let kept = Arc::clone(&ids);
        let play = move || {
            let kept = Arc::clone(&kept);
            server(Play::new().opened(move |cx| {
                *kept.lock().unwrap() = Some(cx.id());
                cx.write(b"secret");
                Ok(())
            }))
        };
        let socket = raw(&mut sim, play, &Toy::hello(KEY));
        let opened = Arc::clone(&ids);
        assert!(sim.run_until(move |_| opened.lock().unwrap().is_some()).unwrap());
        let id = ids.lock().unwrap().unwrap();
        sim.control().peer(id).write(b"secret");
        sim.control().peer(id).push(&b"secret"[..]);
        sim.control().peer(id).close();
        sim.run().unwrap();
        let mut wire = socket.take_received().to_vec();
        let clear = b"secret";
        assert!(!wire.windows(6).any(|window| window == clear), "seed {seed}: {wire:?}");
        // Frames may be cut anywhere; what is in them may not.
        let mut filter = Toy::client(KEY);
        let mut heard = Vec::new();
        let progress = filter.receive(&mut wire, &mut heard, &mut Vec::new()).unwrap();
        assert_eq!(heard, b"secretsecretsecret", "seed {seed}");
        assert_eq!(progress, Progress::PeerFinished, "seed {seed}");
    }
}

#[test]
fn writes_queued_for_a_connect_leave_filtered() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let acceptor = sim.acceptor("127.0.0.1:0").unwrap();
        let id = sim.connect(acceptor.local_addr(), client(Play::new()));
        sim.control().peer(id).write(b"secret");
        sim.run_for(Duration::from_millis(500)).unwrap();
        let socket = acceptor.accept().unwrap();
        sim.run_for(Duration::from_millis(500)).unwrap();
        assert_eq!(socket.take_received(), Toy::hello(KEY), "seed {seed}: the handshake alone");
        socket.send(b"OLEH");
        sim.run_for(Duration::from_millis(500)).unwrap();
        let mut wire = Vec::new();
        Toy::encode(KEY, b"secret", &mut wire);
        assert_eq!(socket.take_received(), wire, "seed {seed}");
    }
}

#[test]
fn the_end_of_a_filtered_stream_waits_for_the_data_before_it() {
    let mut sim = Sim::new(1);
    let trace = Trace::new();
    let wrap = trace.clone();
    let make = move || {
        // Each byte that is consumed makes another `data` due.
        let play = server(Play::new()).data(|_, input| {
            input.consume(1);
            Ok(())
        });
        wrap.wrap("server", play)
    };
    let listener = sim.listen("127.0.0.1:0", move |_| Some(make())).unwrap();
    let socket = sim.dial(sim.addresses(listener)[0]);
    let mut wire = Toy::hello(KEY);
    Toy::encode(KEY, &[b'n'; 1_000], &mut wire);
    wire.push(0);
    socket.send(&wire);
    sim.run().unwrap();
    assert_eq!(
        trace.of("server"),
        ["opened", &data(&[b'n'; 1_000]), "eof", "closed finished by the peer"]
    );
}

#[test]
fn a_filter_that_answers_after_our_fin_does_not_break_the_connection() {
    /// Acknowledges every byte that comes.
    struct Chatty;
    impl Filter for Chatty {
        fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
            Ok(Progress::Open)
        }
        fn receive(&mut self, b: &mut [u8], c: &mut Vec<u8>, wire: &mut Vec<u8>) -> FilterResult {
            c.extend_from_slice(b);
            wire.resize(wire.len() + b.len(), b'.');
            Ok(if c.ends_with(b"!") { Progress::PeerFinished } else { Progress::Open })
        }
        fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
            wire.extend_from_slice(clear);
            Ok(Progress::Open)
        }
        fn ends_with_stream(&self) -> bool {
            false
        }
    }
    let mut sim = Sim::new(1);
    let trace = Trace::new();
    let wrap = trace.clone();
    let make = move || {
        let play = Play::new().filter(|| Some(Box::new(Chatty))).opened(|cx| {
            cx.write(b"mine");
            cx.shutdown_write();
            Ok(())
        });
        wrap.wrap("server", play)
    };
    let socket = raw(&mut sim, make, b"");
    sim.run().unwrap();
    socket.send(b"abc!");
    sim.run().unwrap();
    assert_eq!(
        trace.of("server"),
        ["opened", &data(b"abc!"), "eof", "closed finished by the peer"]
    );
    assert_eq!(socket.take_received(), b"mine");
}

#[test]
fn c4_a_protocol_that_panics_when_it_is_asked_for_its_filter_ends_alone() {
    everywhere(|stage| {
        stage.panics();
        let panicking = || Play::new().filter(|| panic!("planned: no filter"));
        let addr = stage.serve_many(2, Limits::default(), move |number| match number {
            0 => ("first".to_owned(), panicking()),
            _ => ("second".to_owned(), echo()),
        });
        let trace = stage.trace.clone();
        // However the reset is noticed: the next client comes behind it.
        let client = Play::new().closed(move |cx, _| {
            cx.driver().connect(addr, trace.wrap("other client", answered(b"hello")));
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("first", &["closed panicked by us"]);
        let hello = data(b"hello");
        stage.expect("second", &["opened", &hello, "eof", "closed finished by the peer"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.panics, metrics.closes.panicked), (1, 1));
    });
}

/// Answers one byte with as many as it says, all of them made at once.
struct Answers(usize);

impl Filter for Answers {
    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, wire: &mut Vec<u8>) -> FilterResult {
        wire.extend(std::iter::repeat_n(b'x', self.0));
        Ok(Progress::Open)
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn ends_with_stream(&self) -> bool {
        true
    }
}

#[test]
fn what_a_filter_answers_by_itself_may_be_as_much_as_output_max() {
    for (count, last) in [
        (999, "closed finished by the peer"),
        (1000, "closed finished by the peer"),
        (1001, "closed output full by the runtime"),
    ] {
        everywhere(|stage| {
            let mut limits = Limits::default();
            (limits.low_mark, limits.high_mark, limits.output_max) = (0, 1000, 1000);
            let answers = move || Play::new().filter(move || Some(Box::new(Answers(count))));
            let addr = stage.serve_with("server", limits, answers);
            let client = says(b"?").data(move |cx, input| {
                if input.len() == count {
                    input.consume_all();
                    cx.close();
                }
                Ok(())
            });
            stage.connect("client", addr, client);
            stage.run();
            stage.check(stage.trace.of("server").last().is_some_and(|line| line == last), last);
        });
    }
}

#[test]
fn a_fin_that_came_before_the_filter_is_a_cut_for_it() {
    everywhere(|stage| {
        let trace = stage.trace.clone();
        let addr = stage.serve("server", move || {
            let trace = trace.clone();
            Play::new().eof(move |cx, _| {
                cx.replace(trace.wrap("secure", server(echo())));
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"in clear"));
        stage.run();
        stage.expect("server", &["opened", &data(b"in clear"), "eof"]);
        stage.expect("secure", &["closed truncated by the peer"]);
    });
}

/// Keeps what it is given until it has to finish.
struct Hoards(Vec<u8>);

impl Filter for Hoards {
    fn receive(&mut self, wire: &mut [u8], clear: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        clear.extend_from_slice(wire);
        Ok(Progress::Open)
    }

    fn send(&mut self, clear: &[u8], _: &mut Vec<u8>) -> FilterResult {
        self.0.extend_from_slice(clear);
        Ok(Progress::Open)
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        wire.append(&mut self.0);
    }

    fn ends_with_stream(&self) -> bool {
        true
    }
}

#[test]
fn what_a_filter_keeps_back_is_not_unsent_and_leaves_with_its_end() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let mut hoards = Some(Hoards(Vec::new()));
        let client = Play::new()
            .filter(move || hoards.take().map(|hoards| Box::new(hoards) as Box<dyn Filter>))
            .opened(|cx| {
                cx.write(b"one ");
                let own = cx.id();
                cx.driver().peer(own).push("two");
                cx.set_timer(LATER, Duration::from_millis(20));
                Ok(())
            })
            .timeout(|cx, _| {
                assert_eq!((cx.unsent(), cx.driver().metrics().buffered), (0, 0));
                cx.close();
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("client", &["opened", "timeout of timer 2", "closed finished by us"]);
        let heard = data(b"one two");
        stage.expect("server", &["opened", &heard, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_handshake_that_never_comes_ends_with_the_time_for_the_connect() {
    everywhere(|stage| {
        let addr = stage.serve("server", || Play::new().data(|_, _| Ok(())));
        let mut limits = Limits::default();
        limits.connect = Duration::from_secs(1);
        stage.connect_with("client", addr, limits, server(says(b"never")));
        stage.run();
        stage.expect("client", &["closed timed out (connect) by the runtime"]);
        assert_eq!(stage.driver.metrics().failed_handshakes, 1);
    });
}
