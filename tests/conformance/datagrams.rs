//! Datagram sockets: what they are told, in which order, and how they end.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lariat::{
    CloseKind, ConnId, Control, DatagramContext, DatagramOptions, DriverLimits, DropPolicy,
    ErrorKind, Interface, Note, Op, Outcome, Timer,
};

use crate::kit::{self, Play, everywhere_with, on_sockets, with_datagrams as everywhere};
use crate::node::{Node, echo};

pub(crate) fn with(change: impl FnOnce(&mut DatagramOptions)) -> DatagramOptions {
    let mut options = DatagramOptions::default();
    change(&mut options);
    options
}

pub(crate) fn close(cx: &mut DatagramContext<'_>) -> Outcome {
    cx.close();
    Ok(())
}

/// A group of its own: Linux delivers what is sent to a group that any socket of the machine has
/// joined, to every socket that is bound to the port on all addresses.
pub(crate) fn group() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(239, high, low, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Where nobody receives: an address of this test's own, so that no other comes by. All of
/// 127.0.0.0/8 is this machine.
pub(crate) fn deserted() -> SocketAddr {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = 20_000 + COUNT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, 64 | high, middle, low], port))
}

#[test]
fn d8_an_empty_datagram_is_delivered_both_ways() {
    everywhere(|stage| {
        let (_, addr) = stage.bind("server", echo(2));
        let mut left = 2;
        let client = Node::new()
            .opened(move |cx| {
                cx.send_to(b"", addr)?;
                cx.send_to(b"x", addr)?;
                Ok(())
            })
            .datagram(move |cx, datagram| {
                assert_eq!(datagram.from(), addr);
                assert_eq!(datagram.to(), cx.local_addr());
                left -= 1;
                if left == 0 { close(cx) } else { Ok(()) }
            });
        stage.bind("client", client);
        stage.run();
        let lines =
            ["opened", "datagram of 0 bytes", "datagram of 1 bytes", "closed finished by us"];
        stage.expect_node("server", &lines);
        stage.expect_node("client", &lines);
        let metrics = stage.driver.metrics();
        let counted = [metrics.datagrams_in, metrics.datagrams_out, metrics.binds];
        assert_eq!(counted, [4, 4, 2]);
        assert_eq!((metrics.bytes_in, metrics.bytes_out), (2, 2));
        let lost =
            [metrics.datagrams_dropped, metrics.datagrams_truncated, metrics.datagrams_refused];
        assert_eq!(lost, [0; 3]);
    });
}

#[test]
fn d6_a_datagram_that_is_longer_than_is_kept_says_so() {
    everywhere(|stage| {
        let mut left = 3;
        let server = Node::new().datagram(move |cx, datagram| {
            assert!(datagram.iter().all(|byte| *byte == 7));
            left -= 1;
            if left == 0 { close(cx) } else { Ok(()) }
        });
        let (_, addr) = stage.bind_with("server", with(|o| o.datagram_max = 10), server);
        let client = Node::new().opened(move |cx| {
            for count in [9, 10, 11] {
                cx.send_to(&vec![7; count], addr)?;
            }
            close(cx)
        });
        stage.bind("client", client);
        stage.run();
        stage.expect_node(
            "server",
            &[
                "opened",
                "datagram of 9 bytes",
                "datagram of 10 bytes",
                "datagram of 10 bytes, truncated",
                "closed finished by us",
            ],
        );
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.datagrams_truncated, metrics.bytes_in), (1, 29));
    });
}

#[test]
fn d7_what_is_too_long_is_an_error_at_once_and_what_is_not_arrives() {
    everywhere(|stage| {
        let (_, addr) = stage.bind("server", echo(1));
        let client = Node::new()
            .opened(move |cx| {
                let error = cx.send_to(&[7; 65_508], addr).unwrap_err();
                assert_eq!((error.kind(), error.op()), (ErrorKind::TooLarge, Op::Send));
                let sentence = format!("cannot send to {addr}: it is too long for a datagram");
                assert_eq!(error.to_string(), sentence);
                cx.send_to(&[7; 65_507], addr)?;
                Ok(())
            })
            .datagram(|cx, datagram| {
                assert!(datagram.iter().all(|byte| *byte == 7));
                close(cx)
            });
        stage.bind("client", client);
        stage.run();
        let lines = ["opened", "datagram of 65507 bytes", "closed finished by us"];
        stage.expect_node("server", &lines);
        stage.expect_node("client", &lines);
    });
}

#[test]
fn d5_a_refusal_is_told_once_and_the_socket_goes_on_for_a_thousand_rounds() {
    everywhere(|stage| {
        let addr = deserted();
        let mut rounds = 0;
        let client = Node::new()
            .opened(|cx| Ok(cx.send(b"anybody?")?))
            .refused(move |cx| {
                rounds += 1;
                if rounds == 1000 {
                    // Somebody comes after all: the socket is as good as new.
                    cx.driver().bind(addr, echo(1))?;
                }
                cx.set_timer(Timer::new(1), Duration::ZERO);
                Ok(())
            })
            .timeout(|cx, _| Ok(cx.send(b"anybody?")?))
            .datagram(|cx, _| close(cx));
        stage.bind_with("client", with(|o| o.connect = Some(addr.into())), client);
        stage.run();
        let mut expected = vec!["opened"];
        for _ in 0..1000 {
            expected.extend(["refused", "timer 1"]);
        }
        expected.extend(["datagram of 8 bytes", "closed finished by us"]);
        stage.expect_node("client", &expected);
        assert_eq!(stage.driver.metrics().datagrams_refused, 1000);
    });
}

#[test]
fn d5_a_send_that_is_told_of_an_earlier_refusal_leaves_all_the_same() {
    everywhere(|stage| {
        let addr = deserted();
        let client =
            Node::new()
                .opened(|cx| {
                    cx.send(b"one")?;
                    cx.set_timer(Timer::new(1), Duration::from_millis(50));
                    Ok(())
                })
                .refused(|cx| {
                    if cx.cancel_timer(Timer::new(1)) { Ok(cx.send(b"two")?) } else { close(cx) }
                });
        stage.bind_with("client", with(|o| o.connect = Some(addr.into())), client);
        stage.run();
        stage.expect_node("client", &["opened", "refused", "refused", "closed finished by us"]);
        assert_eq!(stage.driver.metrics().datagrams_out, 2);
    });
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    everywhere(|stage| {
        let (_, addr) = stage.bind("server", echo(1));
        let client = Node::new().datagram(|cx, datagram| {
            assert_eq!(&datagram[..], b"ping");
            close(cx)
        });
        let options = with(|o| o.connect = Some(addr.into()));
        let (id, own) =
            stage.bind_with("client", options, client.notified(|cx, _| Ok(cx.send(b"ping")?)));
        // The stranger is heard by nobody; only then does the client speak.
        let stranger = Node::new().opened(move |cx| {
            cx.send_to(b"spam", own)?;
            cx.peer(id).notify(Note::new(()));
            close(cx)
        });
        stage.bind("stranger", stranger);
        stage.run();
        stage.expect_node(
            "client",
            &["opened", "notified", "datagram of 4 bytes", "closed finished by us"],
        );
    });
}

#[test]
fn sending_without_a_peer_is_an_error_and_the_socket_goes_on() {
    everywhere(|stage| {
        let node = Node::new().opened(|cx| {
            assert_eq!(cx.peer_addr(), None);
            let error = cx.send(b"to whom?").unwrap_err();
            assert_eq!(error.op(), Op::Send);
            let own = cx.local_addr().unwrap();
            Ok(cx.send_to(b"to myself", own)?)
        });
        stage.bind("node", node.datagram(|cx, _| close(cx)));
        stage.run();
        stage.expect_node("node", &["opened", "datagram of 9 bytes", "closed finished by us"]);
    });
}

#[test]
fn broadcast_has_to_be_allowed() {
    everywhere(|stage| {
        let server = Node::new().datagram(|cx, _| close(cx));
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let id = stage.bind_at("server", addr, with(|_| {}), server);
        let port = stage.driver.bound_addr(id).unwrap().port().unwrap();
        let all = (Ipv4Addr::new(127, 255, 255, 255), port);
        let shy = Node::new().opened(move |cx| {
            let error = cx.send_to(b"all", all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            close(cx)
        });
        stage.bind("shy", shy);
        let loud = Node::new().opened(move |cx| {
            cx.send_to(b"everybody", all)?;
            close(cx)
        });
        stage.bind_with("loud", with(|o| o.broadcast = true), loud);
        stage.run();
        stage.expect_node("server", &["opened", "datagram of 9 bytes", "closed finished by us"]);
        stage.expect_node("shy", &["opened", "closed finished by us"]);
    });
}

#[test]
fn a_group_is_heard_from_joining_to_leaving() {
    everywhere(|stage| {
        let (group, lo) = (group(), Ipv4Addr::LOCALHOST);
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let speaker = Node::new()
            .notified(move |cx, note| {
                let port: u16 = note.downcast().unwrap();
                Ok(cx.send_to(b"first", (group, port))?)
            })
            .datagram(move |cx, datagram| {
                let port = datagram.from().port().unwrap();
                cx.send_to(b"nobody is there", (group, port))?;
                cx.send_to(b"end", (lo, port))?;
                close(cx)
            });
        let options = with(|o| o.multicast_interface = Interface::Addr(lo));
        let (speaker, _) = stage.bind_with("speaker", options, speaker);
        let member = Node::new()
            .opened(move |cx| {
                let error = cx.join(Ipv4Addr::new(10, 0, 0, 1), lo).unwrap_err();
                assert_eq!((error.op(), error.addr()), (Op::Join, Some("10.0.0.1")));
                let error = cx.leave(group, lo).unwrap_err();
                assert_eq!((error.kind(), error.op()), (ErrorKind::AddressUnavailable, Op::Leave));
                cx.join(group, lo)?;
                let port = cx.local_addr().unwrap().port().unwrap();
                cx.peer(speaker).notify(Note::new(port));
                Ok(())
            })
            .datagram(move |cx, datagram| {
                if &datagram[..] == b"end" {
                    return close(cx);
                }
                cx.leave(group, lo)?;
                Ok(cx.send_to(b"heard", datagram.from())?)
            });
        stage.bind_at("member", addr, with(|_| {}), member);
        stage.run();
        stage.expect_node(
            "member",
            &["opened", "datagram of 5 bytes", "datagram of 3 bytes", "closed finished by us"],
        );
    });
}

#[test]
fn notes_closes_and_aborts_reach_a_socket_by_its_id_and_writes_do_not() {
    everywhere(|stage| {
        let noted = Node::new().notified(|cx, note| {
            assert_eq!(note.downcast::<u32>().unwrap(), 7);
            close(cx)
        });
        let (one, _) = stage.bind("noted", noted);
        let (two, _) = stage.bind("shut", Node::new());
        let (three, _) = stage.bind("cut", Node::new());
        let asking = Node::new()
            .opened(move |cx| {
                cx.peer(one).write(b"lost");
                cx.peer(one).notify(Note::new(7u32));
                assert!(cx.peer(two).is_open());
                cx.peer(two).close();
                cx.peer(three).abort();
                cx.set_timer(Timer::new(1), Duration::from_millis(100));
                Ok(())
            })
            .timeout(move |cx, timer| {
                // They end on threads of their own, in their own time.
                if [one, two, three].into_iter().any(|id| cx.peer(id).is_open()) {
                    cx.set_timer(timer, Duration::from_millis(5));
                    return Ok(());
                }
                close(cx)
            });
        stage.bind("asking", asking);
        stage.run();
        stage.expect_node("noted", &["opened", "notified", "closed finished by us"]);
        stage.expect_node("shut", &["opened", "closed finished by us"]);
        stage.expect_node("cut", &["opened", "closed aborted by us"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.stale, metrics.closes.aborted, metrics.closes.finished), (1, 1, 3));
    });
}

#[test]
fn notes_beyond_the_bound_are_refused() {
    everywhere(|stage| {
        for (bound, sent) in [(3, 2), (3, 3), (3, 4)] {
            let who = format!("{sent} of {bound}");
            let (before, mut heard) = (stage.driver.metrics().refused_notes, 0);
            // From its own callback: none of them can be taken before all of them are sent.
            let handle = stage.driver.handle();
            let node = Node::new()
                .opened(move |cx| {
                    (0..sent).for_each(|_| handle.notify(cx.id(), Note::new(())).unwrap());
                    Ok(())
                })
                .notified(move |cx, _| {
                    heard += 1;
                    if heard == sent.min(bound) { close(cx) } else { Ok(()) }
                });
            stage.bind_with(&who, with(|o| o.notes_max = bound), node);
            stage.run();
            let refused = stage.driver.metrics().refused_notes - before;
            assert_eq!(refused, (sent - sent.min(bound)) as u64);
            let notes = stage.log.of(&who).iter().filter(|line| *line == "notified").count();
            assert_eq!(notes, sent.min(bound));
        }
    });
}

#[test]
fn a_note_that_a_socket_has_taken_leaves_its_place_in_the_queue() {
    let mut limits = DriverLimits::default();
    limits.posts_max = 2;
    everywhere_with(limits, |stage| {
        let handle = stage.driver.handle();
        let mut heard = 0;
        let node = Node::new();
        let first = handle.clone();
        let node = node.opened(move |cx| Ok(first.notify(cx.id(), Note::new(()))?));
        let node = node.notified(move |cx, _| {
            heard += 1;
            if heard == 10 { close(cx) } else { Ok(handle.notify(cx.id(), Note::new(()))?) }
        });
        stage.bind("node", node);
        stage.run();
        assert_eq!(stage.log.of("node").last().unwrap(), "closed finished by us");
        assert_eq!(stage.log.of("node").len(), 12);
    });
}

#[test]
fn timers_fire_in_their_order_unless_they_are_cancelled() {
    everywhere(|stage| {
        let ms = Duration::from_millis;
        let node = Node::new()
            .opened(move |cx| {
                for (number, delay) in [(1, ms(40)), (2, ms(20)), (3, ms(30)), (4, Duration::MAX)] {
                    cx.set_timer(Timer::new(number), delay);
                }
                cx.set_timer(Timer::new(1), Duration::ZERO);
                assert!(cx.cancel_timer(Timer::new(3)) && !cx.cancel_timer(Timer::new(3)));
                Ok(())
            })
            .timeout(|cx, timer| if timer == Timer::new(2) { close(cx) } else { Ok(()) });
        stage.bind("node", node);
        stage.run();
        stage.expect_node("node", &["opened", "timer 1", "timer 2", "closed finished by us"]);
        assert_eq!(stage.driver.metrics().timers, 2);
    });
}

#[test]
fn a_timer_that_nobody_handles_closes() {
    everywhere(|stage| {
        let node = Node::new().opened(|cx| {
            cx.set_timer(Timer::new(5), Duration::from_millis(1));
            Ok(())
        });
        stage.bind("node", node);
        stage.run();
        stage.expect_node("node", &["opened", "timer 5", "closed finished by us"]);
    });
}

#[test]
fn c4_a_panic_ends_its_socket_and_no_other() {
    everywhere(|stage| {
        stage.panics();
        let (_, calm) = stage.bind("calm", echo(1));
        let wild = Node::new().datagram(|_, _| panic!("planned"));
        let (_, wild) = stage.bind("wild", wild);
        let client = Node::new()
            .opened(move |cx| Ok(cx.send_to(b"boo", wild)?))
            .notified(move |cx, _| Ok(cx.send_to(b"hello", calm)?))
            .datagram(|cx, _| close(cx));
        let (client, _) = stage.bind("client", client);
        let watch = Node::new().opened(|cx| {
            cx.set_timer(Timer::new(1), Duration::from_millis(50));
            Ok(())
        });
        let watch = watch.timeout(move |cx, _| {
            cx.peer(client).notify(Note::new(()));
            close(cx)
        });
        stage.bind("watch", watch);
        stage.run();
        stage.expect_node("wild", &["opened", "datagram of 3 bytes", "closed panicked by us"]);
        stage.expect_node("calm", &["opened", "datagram of 5 bytes", "closed finished by us"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.panics, metrics.closes.panicked), (1, 1));
    });
}

#[test]
fn an_error_closes_behind_what_was_asked_for_before_it() {
    everywhere(|stage| {
        let server = Node::new().datagram(|cx, _| close(cx));
        let (_, addr) = stage.bind("server", server);
        let failing = Node::new()
            .opened(move |cx| {
                cx.send_to(b"last words", addr)?;
                Err("enough".into())
            })
            .closed(|cx, reason| {
                assert_eq!(reason.kind(), CloseKind::Protocol);
                assert_eq!(reason.error().unwrap().to_string(), "enough");
                assert_eq!((reason.bytes_in(), reason.bytes_out(), reason.unsent()), (0, 10, 0));
                assert_eq!(cx.local_addr(), None);
                let error = cx.send(b"too late").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidSocket);
                assert!(cx.join(Ipv4Addr::new(239, 1, 2, 3), Interface::Any).is_err());
            });
        stage.bind("failing", failing);
        stage.run();
        stage.expect_node("failing", &["opened", "closed protocol error by us"]);
        stage.expect_node("server", &["opened", "datagram of 10 bytes", "closed finished by us"]);
        assert_eq!(stage.driver.metrics().refused_bytes, 8);
    });
}

#[test]
fn nothing_is_delivered_after_a_close() {
    everywhere(|stage| {
        let server = Node::new().datagram(|cx, datagram| {
            cx.close();
            cx.close();
            let error = cx.send_to(b"too late", datagram.from()).unwrap_err();
            assert_eq!(error.to_string().split(": ").last(), Some("the socket is closed"));
            cx.set_timer(Timer::new(1), Duration::ZERO);
            Ok(())
        });
        let server = server.closed(|_, reason| assert_eq!(reason.refused(), 8));
        let (_, addr) = stage.bind("server", server);
        let client = Node::new().opened(move |cx| {
            for _ in 0..3 {
                cx.send_to(b"hello", addr)?;
            }
            close(cx)
        });
        stage.bind("client", client);
        stage.run();
        stage.expect_node("server", &["opened", "datagram of 5 bytes", "closed finished by us"]);
    });
}

#[test]
fn shutdown_tells_each_socket_once() {
    everywhere(|stage| {
        stage.bind("plain", Node::new());
        let busy = Node::new()
            .stopping(|cx| {
                assert!(cx.driver().is_stopping());
                cx.set_timer(Timer::new(1), Duration::from_millis(20));
                let error = cx.driver().bind("127.0.0.1:0", Node::new()).unwrap_err();
                assert_eq!((error.kind(), error.op()), (ErrorKind::Stopped, Op::Bind));
                Ok(())
            })
            .timeout(|cx, _| close(cx));
        stage.bind("busy", busy);
        let stopper = Node::new().opened(|cx| {
            cx.driver().set_timer(Duration::from_millis(20), |driver| driver.shutdown());
            Ok(())
        });
        stage.bind("stopper", stopper);
        let report = stage.run();
        assert_eq!((report.drained(), report.aborted()), (3, 0));
        stage.expect_node("plain", &["opened", "stopping", "closed finished by us"]);
        stage.expect_node("busy", &["opened", "stopping", "timer 1", "closed finished by us"]);
    });
}

#[test]
fn a_socket_that_stays_is_ended_when_the_time_to_drain_is_over() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_millis(50);
    everywhere_with(limits, |stage| {
        let stayer = Node::new().stopping(|_| Ok(()));
        let opened = stayer.opened(|cx| {
            cx.driver().shutdown();
            Ok(())
        });
        stage.bind("stayer", opened);
        let report = stage.run();
        assert_eq!((report.drained(), report.aborted()), (0, 1));
        let lines = ["opened", "stopping", "closed shut down by the runtime"];
        stage.expect_node("stayer", &lines);
    });
}

#[test]
fn an_abort_of_a_handle_overtakes_what_waits() {
    everywhere(|stage| {
        let (id, _) = stage.bind("node", Node::new());
        let handle = stage.driver.handle();
        handle.notify(id, Note::new(())).unwrap();
        handle.close(id).unwrap();
        handle.abort(id);
        stage.run();
        stage.expect_node("node", &["closed aborted by us"]);
        assert_eq!(stage.driver.metrics().refused_notes, 1);
    });
}

#[test]
fn a_datagram_that_waits_behind_a_slow_callback_puts_the_end_of_a_silence_off() {
    // A timer of a busy machine is not so late.
    const IDLE: Duration = Duration::from_millis(200);
    for by_timer in [false, true] {
        on_sockets(DriverLimits::default(), |stage| {
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            let sender = peer.try_clone().unwrap();
            // The next one comes while this runs, for longer than the socket may be idle.
            let slow = move |cx: &mut DatagramContext<'_>| {
                let addr = cx.local_addr().unwrap().socket_addr().unwrap();
                sender.send_to(b"!", addr).unwrap();
                std::thread::sleep(IDLE + IDLE / 2);
            };
            let slow = Arc::new(slow);
            let (timed, mut number) = (Arc::clone(&slow), 0);
            let node = Node::new()
                .datagram(move |cx, _| {
                    number += 1;
                    match (number, by_timer) {
                        (2, _) => {}
                        (_, true) => cx.set_timer(Timer::new(1), Duration::from_millis(2)),
                        (_, false) => slow(cx),
                    }
                    Ok(())
                })
                .timeout(move |cx, _| {
                    timed(cx);
                    Ok(())
                });
            let (_, addr) = stage.bind_with("node", with(|o| o.idle = Some(IDLE)), node);
            peer.send_to(b"!", addr).unwrap();
            stage.run();
            // The second one was shown, and the silence behind it has its end.
            let lines = stage.log.of("node");
            let shown = lines.iter().filter(|line| line.starts_with("datagram")).count();
            let told = format!("by a timer: {by_timer}, {lines:?}");
            stage.check(shown == 2, &told);
            stage.check(lines.last().unwrap() == "closed timed out (idle) by the runtime", &told);
        });
    }
}

#[test]
fn a_silent_socket_ends_when_it_may_not_be_idle() {
    everywhere(|stage| {
        let idle = with(|o| o.idle = Some(Duration::from_millis(600)));
        let (_, addr) = stage.bind_with("idle", idle, Node::new());
        let mut left = 4;
        let client = Node::new()
            .opened(|cx| {
                cx.set_timer(Timer::new(1), Duration::from_millis(150));
                Ok(())
            })
            .timeout(move |cx, timer| {
                cx.send_to(b"still here", addr)?;
                cx.set_timer(timer, Duration::from_millis(150));
                left -= 1;
                if left == 0 { close(cx) } else { Ok(()) }
            });
        stage.bind("client", client);
        stage.run();
        let lines = stage.log.of("idle");
        assert_eq!(lines.iter().filter(|line| *line == "datagram of 10 bytes").count(), 4);
        assert_eq!(lines.last().unwrap(), "closed timed out (idle) by the runtime");
        assert_eq!(stage.driver.metrics().timers, 5, "the client's, and the deadline");
    });
}

#[test]
fn what_only_a_connection_does_is_stale_for_a_datagram_socket() {
    everywhere(|stage| {
        let (id, _) = stage.bind("node", Node::new().notified(|cx, _| close(cx)));
        let handle = stage.driver.handle();
        handle.write(id, b"bytes").unwrap();
        handle.shutdown_write(id).unwrap();
        handle.notify(id, Note::new(())).unwrap();
        stage.run();
        stage.expect_node("node", &["opened", "notified", "closed finished by us"]);
        assert_eq!(stage.driver.metrics().stale, 2);
    });
}

#[test]
fn an_address_is_read_back_while_the_socket_is_open_and_free_once_it_is_closed() {
    everywhere(|stage| {
        let (id, addr) = stage.bind("first", Node::new());
        assert_ne!(addr.port(), 0);
        let error = stage.driver.control().bind(addr, Node::new()).unwrap_err();
        assert_eq!((error.kind(), error.op()), (ErrorKind::AddressInUse, Op::Bind));
        assert_eq!(
            error.to_string(),
            format!("cannot bind to {addr}: the address is already in use")
        );
        let second = Node::new().opened(close);
        let log = stage.log.clone();
        let mut second = Some(second.under("second", &log));
        let closer = Node::new()
            .opened(move |cx| {
                assert_eq!(cx.driver().bound_addr(id).unwrap(), addr);
                cx.peer(id).close();
                cx.set_timer(Timer::new(1), Duration::from_millis(50));
                Ok(())
            })
            .timeout(move |cx, _| {
                assert_eq!(cx.driver().bound_addr(id), None);
                let second = cx.driver().bind(addr, second.take().unwrap())?;
                assert_eq!(cx.driver().bound_addr(second).unwrap(), addr);
                close(cx)
            });
        stage.bind("closer", closer);
        stage.run();
        stage.expect_node("second", &["opened", "closed finished by us"]);
    });
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_opened() {
    everywhere(|stage| {
        let options = with(|o| o.datagram_max = (1 << 20) + 1);
        let error = stage.driver.control().bind_with("127.0.0.1:0", options, Node::new());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidLimits);
        let error = stage.driver.control().bind("nonsense", Node::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        stage.bind("node", Node::new().opened(close));
        stage.run();
        assert_eq!(stage.driver.metrics().binds, 1);
    });
}

#[test]
fn streams_and_datagrams_reach_each_other() {
    everywhere(|stage| {
        // A datagram becomes a note of a connection, which asks its peer whom to answer.
        let addr = stage.serve("server", kit::echo);
        let known = Arc::new(OnceLock::new());
        let relay = Arc::clone(&known);
        let gate = Node::new()
            .datagram(move |cx, datagram| {
                let relay: ConnId = *relay.get().unwrap();
                cx.peer(relay).notify(Note::new(datagram.from().to_string()));
                Ok(())
            })
            .notified(|cx, note| {
                let to: SocketAddr = note.downcast::<String>().unwrap().parse()?;
                cx.send_to(b"answer", to)?;
                close(cx)
            });
        let (id, gate) = stage.bind("gate", gate);
        let play = Play::new()
            .notified(|cx, note| {
                cx.write(note.downcast::<String>().unwrap().as_bytes());
                cx.write(b"\n");
                Ok(())
            })
            .data(move |cx, input| {
                if let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                    let to = std::str::from_utf8(&input[..end])?.to_owned();
                    input.consume_all();
                    cx.peer(id).notify(Note::new(to));
                    cx.close();
                }
                Ok(())
            });
        known.set(stage.connect("relay", addr, play)).unwrap();
        let client = Node::new().opened(move |cx| Ok(cx.send_to(b"question", gate)?)).datagram(
            |cx, datagram| {
                assert_eq!(&datagram[..], b"answer");
                close(cx)
            },
        );
        stage.bind("client", client);
        stage.run();
        let lines = ["opened", "datagram of 6 bytes", "closed finished by us"];
        stage.expect_node("client", &lines);
    });
}

#[test]
fn each_policy_has_a_default_that_is_documented() {
    let options = DatagramOptions::default();
    assert_eq!((options.datagram_max, options.output_max), (65_535, 256 * 1024));
    assert_eq!((options.datagrams_max, options.notes_max), (64, 64));
    assert_eq!((options.drop_policy, options.idle), (DropPolicy::Newest, None));
    assert_eq!(options.close_deadline, Duration::from_secs(1));
    assert!(options.v6_only && options.multicast_loop);
    assert!(!options.broadcast && !options.reuse_port && !options.reuse_address);
}

#[test]
fn c8_a_timer_set_again_at_zero_keeps_nothing_waiting() {
    everywhere(|stage| {
        let mut left = 1_000_000;
        let node = Node::new()
            .opened(|cx| {
                let own = cx.local_addr().unwrap();
                cx.set_timer(Timer::new(1), Duration::ZERO);
                cx.set_timer(Timer::new(2), Duration::from_millis(5));
                cx.send_to(b"!", own)?;
                Ok(())
            })
            .timeout(move |cx, timer| {
                left -= 1;
                if left == 0 {
                    return Err("something waits".into());
                }
                if timer == Timer::new(2) {
                    cx.driver().shutdown();
                } else {
                    cx.set_timer(timer, Duration::ZERO);
                }
                Ok(())
            });
        stage.bind("node", node);
        stage.run();
        let mut lines = stage.log.of("node");
        lines.retain(|line| line != "timer 1");
        let expected =
            ["opened", "datagram of 1 bytes", "timer 2", "stopping", "closed finished by us"];
        stage.check(lines == expected, &format!("{lines:?}"));
    });
}

#[test]
fn c17_a_datagram_that_came_during_a_slow_callback_is_shown_before_a_timer_that_it_cancels() {
    const TIME: Duration = Duration::from_millis(50);
    for by_timer in [false, true] {
        on_sockets(DriverLimits::default(), |stage| {
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            let sender = peer.try_clone().unwrap();
            // The next one comes in time, and this goes on for longer.
            let slow = move |cx: &mut DatagramContext<'_>| {
                let addr = cx.local_addr().unwrap().socket_addr().unwrap();
                cx.set_timer(Timer::new(2), TIME);
                sender.send_to(b"!", addr).unwrap();
                std::thread::sleep(2 * TIME);
            };
            let slow = Arc::new(slow);
            let (timed, mut number) = (Arc::clone(&slow), 0);
            let node = Node::new()
                .datagram(move |cx, _| {
                    number += 1;
                    match (number, by_timer) {
                        (2, _) => {
                            cx.cancel_timer(Timer::new(2));
                            cx.close();
                        }
                        (_, true) => cx.set_timer(Timer::new(1), Duration::from_millis(1)),
                        (_, false) => slow(cx),
                    }
                    Ok(())
                })
                .timeout(move |cx, timer| {
                    if timer == Timer::new(1) {
                        timed(cx);
                    }
                    Ok(())
                });
            let (_, addr) = stage.bind("node", node);
            peer.send_to(b"!", addr).unwrap();
            stage.run();
            let mut lines = stage.log.of("node");
            lines.retain(|line| line != "timer 1");
            let datagram = "datagram of 1 bytes";
            let expected = ["opened", datagram, datagram, "closed finished by us"];
            stage.check(lines == expected, &format!("by a timer: {by_timer}, {lines:?}"));
        });
    }
}

#[test]
fn stopping_runs_where_there_is_no_time_to_drain() {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::ZERO;
    everywhere_with(limits, |stage| {
        // It begins when all three are open.
        let opened = Arc::new(AtomicU8::new(0));
        let count = move |mut control: Control<'_>| {
            if opened.fetch_add(1, Ordering::Relaxed) == 2 {
                control.shutdown();
            }
            Ok(())
        };
        let counts = count.clone();
        let addr = stage.serve("server", move || {
            let counts = counts.clone();
            Play::new().stopping(|_| Ok(())).opened(move |cx| counts(cx.driver()))
        });
        let counts = count.clone();
        let bound = Node::new().stopping(|_| Ok(())).opened(move |cx| counts(cx.driver()));
        stage.bind("node", bound);
        let client = Play::new().stopping(|_| Ok(())).opened(move |cx| count(cx.driver()));
        stage.connect("client", addr, client);
        stage.run();
        let lines = ["opened", "stopping", "closed shut down by the runtime"];
        stage.expect_node("node", &lines);
        stage.expect("client", &lines);
        stage.expect("server", &lines);
    });
}
