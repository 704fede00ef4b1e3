//! Datagram sockets count towards `DriverLimits::connections_max`, as connections do.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lariat::{ConnectOptions, DatagramOptions, DriverLimits, ErrorKind, Note, Op, Timer};

use crate::kit::{Play, data, echo, everywhere_with, on_sockets, says_all, with_datagrams};
use crate::node::Node;

#[test]
fn a_datagram_socket_takes_a_place_and_one_more_than_there_are_is_an_error() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 3;
    everywhere_with(limits, |stage| {
        let (first, _) = stage.bind("first", Node::new());
        stage.bind("second", Node::new());
        let refused = Arc::new(AtomicBool::new(false));
        let (sees, mut asked) = (Arc::clone(&refused), false);
        let third = Node::new()
            .opened(|cx| {
                cx.set_timer(Timer::new(1), Duration::from_millis(5));
                Ok(())
            })
            .timeout(move |cx, timer| {
                if sees.load(Ordering::Acquire) && !asked {
                    asked = true;
                    let full = cx.driver().bind("127.0.0.1:0", Node::new()).unwrap_err();
                    assert_eq!((full.kind(), full.op()), (ErrorKind::Limit, Op::Bind));
                    cx.peer(first).close();
                }
                // The client is refused and the first socket ends in their own time.
                if !asked || cx.driver().bound_addr(first).is_some() {
                    cx.set_timer(timer, Duration::from_millis(5));
                    return Ok(());
                }
                cx.driver().bind("127.0.0.1:0", Node::new()).unwrap();
                let full = cx.driver().bind("127.0.0.1:0", Node::new()).unwrap_err();
                assert_eq!(full.kind(), ErrorKind::Limit);
                cx.driver().shutdown();
                Ok(())
            });
        stage.bind("third", third);
        let error = stage.driver.control().bind("127.0.0.1:0", Node::new()).unwrap_err();
        assert_eq!((error.kind(), error.op()), (ErrorKind::Limit, Op::Bind));
        assert_eq!(error.to_string(), "cannot bind to 127.0.0.1:0: connections_max is reached");
        assert!(format!("{error:?}").ends_with("hint: raise DriverLimits::connections_max"));
        // An address that cannot be bound keeps no place.
        let addr = stage.deserted();
        let client = Play::new().closed(move |_, _| refused.store(true, Ordering::Release));
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("client", &["closed connect failed, too many connections by the runtime"]);
        let third = stage.log.of("third");
        assert!(third.ends_with(&["stopping".into(), "closed finished by us".into()]), "{third:?}");
        assert_eq!(stage.driver.metrics().binds, 4);
    });
}

#[test]
fn a_socket_that_cannot_be_bound_keeps_no_place_and_a_listener_waits_for_one() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 2;
    everywhere_with(limits, |stage| {
        let ended = Arc::new(AtomicBool::new(false));
        let (ends, looks) = (Arc::clone(&ended), Arc::clone(&ended));
        let guard = Node::new()
            .opened(|cx| {
                cx.set_timer(Timer::new(1), Duration::from_millis(50));
                Ok(())
            })
            .timeout(move |cx, _| {
                ends.store(true, Ordering::SeqCst);
                cx.close();
                Ok(())
            });
        let (_, taken) = stage.bind("guard", guard);
        for _ in 0..3 {
            let error = stage.driver.control().bind(taken, Node::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddressInUse);
            let mut options = DatagramOptions::default();
            options.output_max = 0;
            stage.driver.control().bind_with(taken, options, Node::new()).unwrap_err();
        }
        let addr = stage.serve("server", move || {
            let looks = Arc::clone(&looks);
            echo().opened(move |_| {
                assert!(looks.load(Ordering::SeqCst), "there was no place for it");
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"hello"));
        stage.run();
        stage.expect("client", &["opened", &data(b"hello"), "eof", "closed finished by the peer"]);
    });
}

#[test]
fn of_several_addresses_the_first_that_can_be_bound_is_and_the_first_error_is_told() {
    on_sockets(DriverLimits::default(), |stage| {
        // Addresses of documents, which no machine has.
        let none = [1, 2].map(|last| SocketAddr::from(([198, 51, 100, last], 0)));
        let error = stage.driver.control().bind(none, Node::new()).unwrap_err();
        let told = (error.kind(), error.addr());
        assert_eq!(told, (ErrorKind::AddressUnavailable, Some("198.51.100.1:0")));
        let own = SocketAddr::from(([127, 0, 0, 1], 0));
        let node = Node::new().opened(|cx| {
            cx.close();
            Ok(())
        });
        let id = stage.driver.control().bind([none[0], own, none[1]], node).unwrap();
        let bound = stage.driver.bound_addr(id).unwrap();
        assert_eq!(bound.ip(), Some(own.ip()));
        stage.run();
    });
}

#[test]
fn a_socket_that_is_bound_in_the_same_callback_has_its_place_before_a_connect() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1;
    everywhere_with(limits, |stage| {
        let addr = stage.deserted();
        let client = stage.trace.wrap("client", Play::new());
        let node = Node::new().opened(|cx| {
            cx.close();
            Ok(())
        });
        let node = node.under("node", &stage.log);
        let mut control = stage.driver.control();
        control.connect(addr, client);
        control.bind("127.0.0.1:0", node).unwrap();
        drop(control);
        stage.run();
        stage.expect("client", &["closed connect failed, too many connections by the runtime"]);
        stage.expect_node("node", &["opened", "closed finished by us"]);
    });
}

#[test]
fn a_socket_that_is_bound_in_the_same_callback_has_its_place_before_an_adopted_stream() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1;
    on_sockets(limits, |stage| {
        let (stream, mut other) = UnixStream::pair().unwrap();
        let adopted = stage.trace.wrap("adopted", Play::new());
        let node = Node::new().opened(|cx| {
            cx.close();
            Ok(())
        });
        let node = node.under("node", &stage.log);
        let mut control = stage.driver.control();
        control.adopt_stream(stream, ConnectOptions::default(), adopted).unwrap();
        control.bind("127.0.0.1:0", node).unwrap();
        drop(control);
        stage.run();
        stage.expect("adopted", &["closed connect failed, too many connections by the runtime"]);
        stage.expect_node("node", &["opened", "closed finished by us"]);
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "it is closed");
    });
}

#[test]
fn what_is_asked_of_a_socket_that_its_closure_has_just_bound_is_not_forgotten() {
    with_datagrams(|stage| {
        let (log, handle) = (stage.log.clone(), stage.driver.handle());
        stage.driver.control().set_timer(Duration::ZERO, move |control| {
            let mut bind = |who| {
                let node = Node::new().notified(|cx, note| {
                    assert_eq!(note.get(), Some(&7));
                    cx.close();
                    Ok(())
                });
                control.bind("127.0.0.1:0", node.under(who, &log)).unwrap()
            };
            handle.abort(bind("aborted"));
            handle.notify(bind("noted"), Note::new(7)).unwrap();
            handle.close(bind("closed")).unwrap();
        });
        stage.run();
        let found = stage.log.of("aborted");
        assert_eq!(found.last().unwrap(), "closed aborted by us", "{found:?}");
        stage.expect_node("noted", &["opened", "notified", "closed finished by us"]);
        let found = stage.log.of("closed");
        assert_eq!(found.last().unwrap(), "closed finished by us", "{found:?}");
    });
}

#[test]
fn a_socket_beside_one_that_keeps_less_keeps_as_much_as_it_may() {
    with_datagrams(|stage| {
        for (who, most) in [("small", 10), ("large", 100)] {
            let mut options = DatagramOptions::default();
            options.datagram_max = most;
            let mut left = 2;
            let node = Node::new().datagram(move |cx, _| {
                left -= 1;
                if left == 0 {
                    cx.close();
                }
                Ok(())
            });
            let (_, addr) = stage.bind_with(who, options, node);
            let sender = Node::new().opened(move |cx| {
                cx.send_to(&vec![7; most], addr)?;
                cx.send_to(&vec![7; most + 1], addr)?;
                cx.close();
                Ok(())
            });
            // It keeps less than both.
            let mut options = DatagramOptions::default();
            options.datagram_max = 1;
            stage.bind_with("sender", options, sender);
        }
        stage.run();
        for (who, most) in [("small", 10), ("large", 100)] {
            let whole = format!("datagram of {most} bytes");
            let cut = format!("{whole}, truncated");
            let end = "closed finished by us".to_owned();
            stage.expect_node(who, &["opened".to_owned(), whole, cut, end]);
        }
    });
}
