//! How connections end: FIN and reset from either side, in every order, and deadlines.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{CloseReason, ConnectOptions, Context, DriverLimits, Input, Limits, Outcome, Timer};

use crate::kit::{
    Play, Stage, data, echo, everywhere, everywhere_with, on_sockets, says, says_all,
};
use crate::patience::PATIENCE;

const LATER: Timer = Timer::new(2);

fn stay(_: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
    Ok(())
}

/// Keeps the reason of a connection.
pub(crate) fn keeping(play: Play, reason: &Arc<Mutex<Option<CloseReason>>>) -> Play {
    let reason = Arc::clone(reason);
    play.closed(move |_, told| *reason.lock().unwrap() = Some(told.clone()))
}

#[test]
fn b7_the_default_answer_to_eof_is_to_close() {
    everywhere(|stage| {
        let addr = stage.serve("server", echo);
        stage.connect("client", addr, says_all(b"hello"));
        stage.run();
        let hello = data(b"hello");
        stage.expect("server", &["opened", &hello, "eof", "closed finished by the peer"]);
        stage.expect("client", &["opened", &hello, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn b7_after_the_peers_fin_everything_queued_still_leaves() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new().eof(|cx, _| {
                cx.write(&vec![b'x'; 256 * 1024]);
                cx.close();
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"all?").eof(stay));
        stage.run();
        let all = data(&vec![b'x'; 256 * 1024]);
        stage.expect("client", &["opened", &all, "eof", "closed finished by us"]);
    });
}

#[test]
fn b7_a_server_may_go_on_after_eof_and_end_when_it_likes() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .eof(|cx, _| {
                    cx.set_timer(LATER, Duration::from_millis(20));
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.write(b"late");
                    cx.close();
                    Ok(())
                })
        });
        stage.connect("client", addr, says_all(b"hello"));
        stage.run();
        stage.expect(
            "server",
            &[
                "opened",
                &data(b"hello"),
                "eof",
                "timeout of timer 2",
                "closed finished by the peer",
            ],
        );
        stage.expect("client", &["opened", &data(b"late"), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn b8_after_its_own_fin_a_client_still_reads() {
    everywhere(|stage| {
        let addr = stage.serve("server", echo);
        let client = Play::new().opened(|cx| {
            cx.write(&[7; 60_000]);
            cx.shutdown_write();
            cx.shutdown_write();
            let own = cx.id();
            cx.peer(own).shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let sent = data(&[7; 60_000]);
        stage.expect("client", &["opened", &sent, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn b8_two_ends_that_half_close_at_once_both_finish() {
    everywhere(|stage| {
        let addr = stage.serve("server", || says_all(b"from the server").eof(stay));
        stage.connect("client", addr, says_all(b"from the client").eof(stay));
        stage.run();
        let (a, b) = (data(b"from the client"), data(b"from the server"));
        stage.expect("server", &["opened", &a, "eof", "closed finished by us"]);
        stage.expect("client", &["opened", &b, "eof", "closed finished by us"]);
    });
}

#[test]
fn two_ends_that_close_at_once_both_finish() {
    everywhere(|stage| {
        let close = || {
            Play::new().opened(|cx| {
                cx.set_timer(LATER, Duration::from_millis(50));
                Ok(())
            })
        };
        let addr = stage.serve("server", close);
        stage.connect("client", addr, close());
        stage.run();
        for who in ["server", "client"] {
            let lines = stage.trace.of(who);
            stage.check(lines.len() >= 2 && lines[0] == "opened", "everybody opens");
            let end = lines.last().map(String::as_str);
            let ends = ["closed finished by us", "closed finished by the peer"];
            stage.check(end.is_some_and(|end| ends.contains(&end)), "everybody finishes");
        }
    });
}

#[test]
fn a_fin_while_paused_waits_for_resume() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    cx.set_timer(LATER, Duration::from_millis(60));
                    Ok(())
                })
                .timeout(|cx, _| {
                    cx.resume_reading();
                    Ok(())
                })
        });
        stage.connect("client", addr, says_all(b"hello"));
        stage.run();
        stage.expect(
            "server",
            &[
                "opened",
                "timeout of timer 2",
                &data(b"hello"),
                "eof",
                "closed finished by the peer",
            ],
        );
    });
}

#[test]
fn a_paused_protocol_can_tell_that_the_peer_has_finished() {
    everywhere(|stage| {
        let addr = stage.serve("server", || {
            Play::new()
                .opened(|cx| {
                    cx.pause_reading();
                    cx.set_timer(LATER, Duration::from_millis(1));
                    Ok(())
                })
                .timeout(|cx, _| {
                    if cx.peer_finished() {
                        cx.close();
                    } else {
                        cx.set_timer(LATER, Duration::from_millis(1));
                    }
                    Ok(())
                })
                .closed(|_, reason| assert!(reason.age() < Duration::from_secs(60)))
        });
        stage.connect("client", addr, says_all(b"hello"));
        stage.run();
        let lines = stage.trace.of("server");
        let (last, timeouts) = lines.split_last().unwrap();
        stage.check(last.starts_with("closed finished"), "it ends by its own close");
        let waited = timeouts[1..].iter().all(|line| line == "timeout of timer 2");
        stage.check(waited, "neither data nor eof came while it was paused");
    });
}

#[test]
fn data_and_fin_in_one_go_are_data_then_eof() {
    everywhere(|stage| {
        let addr = stage.serve("server", echo);
        let client = Play::new().opened(|cx| {
            cx.write(b"all at once");
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let all = data(b"all at once");
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        stage.expect("client", &["opened", "closed finished by us"]);
    });
}

/// The peer sends and aborts; `server` has no part in the end.
fn aborted(stage: &mut Stage<'_>, server: fn() -> Play) {
    let addr = stage.serve("server", server);
    let client = says(b"last words").timeout(|cx, _| {
        cx.abort();
        Ok(())
    });
    let client = client.opened(|cx| {
        cx.write(b"last words");
        cx.set_timer(LATER, Duration::from_millis(60));
        Ok(())
    });
    stage.connect("client", addr, client);
    stage.run();
    stage.expect("client", &["opened", "timeout of timer 2", "closed aborted by us"]);
}

#[test]
fn b9_data_before_a_reset_is_delivered_and_the_reset_is_no_eof() {
    everywhere(|stage| {
        aborted(stage, Play::new);
        stage.expect("server", &["opened", &data(b"last words"), "closed reset by the peer"]);
    });
}

#[test]
fn b9_data_and_reset_at_once_are_data_then_closed() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        // The write is on its way when the callback has returned; only then comes the abort.
        let client = Play::new().opened(|cx| {
            cx.write(b"x");
            let own = cx.id();
            cx.peer(own).abort();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("client", &["opened", "closed aborted by us"]);
        let lines = stage.trace.of("server");
        stage.check(lines.last().unwrap() == "closed reset by the peer", "the reset is told");
        stage.check(!lines.contains(&"eof".to_owned()), "a reset is no end of input");
    });
}

#[test]
fn b9_a_reset_while_paused_closes_at_once_with_the_unread_count() {
    everywhere(|stage| {
        let reason = Arc::default();
        let kept = Arc::clone(&reason);
        let addr = stage.serve("server", move || {
            // Four bytes are read and wait; the rest stays in the kernel.
            keeping(Play::new(), &kept).data(|cx, input| {
                assert!(input.starts_with(b"l"));
                cx.pause_reading();
                Ok(())
            })
        });
        let client = says(b"last words")
            .opened(|cx| {
                cx.write(b"last words");
                cx.set_timer(LATER, Duration::from_millis(60));
                Ok(())
            })
            .timeout(|cx, _| {
                cx.abort();
                Ok(())
            });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("server", &["opened", "closed reset by the peer"]);
        let reason: Option<CloseReason> = reason.lock().unwrap().take();
        let unread = reason.unwrap().unread();
        stage.check((1..=10).contains(&unread), "the reason counts what was read and not consumed");
    });
}

#[test]
fn b10_unread_input_does_not_destroy_the_last_reply() {
    everywhere(|stage| {
        let reason = Arc::default();
        let kept = Arc::clone(&reason);
        let addr = stage.serve("server", move || {
            keeping(Play::new(), &kept).data(|cx, _| {
                cx.write(b"413 too large");
                cx.close();
                Ok(())
            })
        });
        let client = Play::new().opened(|cx| {
            cx.write(&vec![1; 4 << 20]);
            cx.shutdown_write();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let reply = data(b"413 too large");
        // When the socket has taken everything depends on its buffers.
        let mut lines = stage.trace.of("client");
        lines.retain(|line| line != "drained");
        stage.check(lines[1..=2] == [reply, "eof".into()], "the reply");
        stage.expect("server", &["opened", "closed finished by us"]);
        let reason: Option<CloseReason> = reason.lock().unwrap().take();
        stage.check(reason.unwrap().unread() > 0, "what was discarded is counted");
    });
}

#[test]
fn d1_a_refused_connect_is_closed_without_opened() {
    everywhere(|stage| {
        let nobody = stage.deserted();
        let client = says(b"never").closed(|_, reason| {
            assert_eq!(reason.unsent(), 10);
            assert!(reason.error().is_some());
        });
        let id = stage.connect("client", nobody, client);
        stage.driver.control().peer(id).write(b"never sent");
        stage.run();
        stage.expect("client", &["closed connect refused by the peer"]);
    });
}

#[test]
fn a_connect_that_is_closed_before_it_opens_is_cancelled() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let trace = stage.trace.clone();
        let parent = Play::new().opened(move |cx| {
            let child = cx.connect(addr, trace.wrap("child", says(b"never")));
            cx.peer(child).close();
            cx.close();
            Ok(())
        });
        stage.connect("parent", addr, parent);
        stage.run();
        stage.expect("child", &["closed connect cancelled by us"]);
        stage.expect("parent", &["opened", "closed finished by us"]);
    });
}

#[test]
fn a_connect_above_the_connection_limit_fails_and_says_so() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 2;
    everywhere_with(limits, |stage| {
        // Which of the two is accepted when there is room again, the system decides.
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                cx.close();
                Ok(())
            })
        });
        let trace = stage.trace.clone();
        let client = Play::new().data(|_, _| Ok(())).opened(move |cx| {
            let third = cx.connect(addr, trace.wrap("third", Play::new()));
            assert!(cx.peer(third).is_open());
            cx.set_timer(LATER, Duration::from_millis(20));
            Ok(())
        });
        let client = client.timeout(|cx, _| {
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.connect("second", addr, Play::new());
        stage.run();
        stage.expect("third", &["closed connect failed, too many connections by the runtime"]);
    });
}

#[test]
fn an_idle_connection_times_out() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.idle = Some(Duration::from_millis(80));
        let addr = stage.serve_with("server", limits, || {
            Play::new().closed(|_, reason| assert!(reason.age() >= Duration::from_millis(80)))
        });
        stage.connect("client", addr, says(b"x"));
        stage.run();
        stage.expect("server", &["opened", &data(b"x"), "closed timed out (idle) by the runtime"]);
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn an_idle_deadline_of_its_own_takes_the_place_of_the_limit() {
    everywhere(|stage| {
        // Shorter than the limit, which is off; and the limit taken away.
        let addr = stage.serve("server", || {
            Play::new().opened(|cx| {
                cx.set_idle(Some(Duration::from_millis(700)));
                Ok(())
            })
        });
        let mut limits = Limits::default();
        limits.idle = Some(Duration::from_millis(300));
        let client = Play::new().opened(|cx| {
            cx.set_idle(None);
            cx.write(b"x");
            Ok(())
        });
        stage.connect_with("client", addr, limits, client);
        stage.run();
        stage.expect("server", &["opened", &data(b"x"), "closed timed out (idle) by the runtime"]);
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn bytes_in_either_direction_put_the_idle_deadline_off() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        limits.idle = Some(Duration::from_millis(900));
        let addr = stage.serve_with("server", limits, || {
            let mut left = 20;
            Play::new()
                .opened(|cx| {
                    cx.set_timer(LATER, Duration::from_millis(60));
                    Ok(())
                })
                .timeout(move |cx, timer| {
                    cx.write(b".");
                    left -= 1;
                    if left == 0 {
                        cx.close();
                    } else {
                        cx.set_timer(timer, Duration::from_millis(60));
                    }
                    Ok(())
                })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        let all = data(&[b'.'; 20]);
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

#[test]
fn the_socket_is_closed_when_closed_runs() {
    on_sockets(DriverLimits::default(), |stage| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(None));
        let hears = Arc::clone(&heard);
        let client = Play::new()
            .opened(|cx| {
                cx.abort();
                Ok(())
            })
            .closed(move |cx, _| {
                assert_eq!(cx.local_addr(), None);
                let (mut peer, _) = listener.accept().unwrap();
                peer.set_read_timeout(Some(PATIENCE)).unwrap();
                let end = peer.read(&mut [0]).map_err(|error| error.kind());
                *hears.lock().unwrap() = Some(end);
            });
        stage.connect("client", addr, client);
        stage.run();
        assert_eq!(*heard.lock().unwrap(), Some(Err(ErrorKind::ConnectionReset)));
    });
}

#[test]
fn what_closed_begins_has_the_port_of_a_connection_that_was_aborted() {
    fn again(
        addr: SocketAddr,
        options: ConnectOptions,
        left: u32,
        reached: Arc<AtomicU32>,
    ) -> Play {
        let counts = Arc::clone(&reached);
        Play::new()
            .opened(move |cx| {
                counts.fetch_add(1, Ordering::Relaxed);
                cx.abort();
                Ok(())
            })
            .closed(move |cx, _| {
                if left > 0 {
                    let next = again(addr, options.clone(), left - 1, Arc::clone(&reached));
                    cx.driver().connect_with(addr, options.clone(), next).unwrap();
                }
            })
    }
    on_sockets(DriverLimits::default(), |stage| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let mut options = ConnectOptions::default();
        options.bind = Some(port.into());
        let reached = Arc::new(AtomicU32::new(0));
        let first = again(addr, options.clone(), 20, Arc::clone(&reached));
        stage.driver.control().connect_with(addr, options, first).unwrap();
        stage.run();
        assert_eq!(reached.load(Ordering::Relaxed), 21);
    });
}
