//! Unix sockets of datagrams: names, receivers that are gone or full, files, adopted sockets.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::datagram_peers::{PeerContext, PeerProtocol, Peers};
use lariat::sim::Sim;
use lariat::{
    CloseKind, Datagram, DatagramContext, DatagramOptions, Deadline, Driver, DriverLimits,
    DropPolicy, Endpoint, ErrorKind, Interface, Note, Op, Outcome, Timer, UnixName,
};

use crate::kit::{Stage, everywhere, on_sockets};
use crate::node::{Node, echo};
use crate::unix::Place;

const TICK: Timer = Timer::new(1);

fn with(change: impl FnOnce(&mut DatagramOptions)) -> DatagramOptions {
    let mut options = DatagramOptions::default();
    change(&mut options);
    options
}

fn close(cx: &mut DatagramContext<'_>) -> Outcome {
    cx.close();
    Ok(())
}

/// Binds `node` to a path of its own.
fn bind(stage: &mut Stage<'_>, who: &str, node: Node) -> Place {
    let place = Place::new();
    stage.bind_at(who, &place.0, DatagramOptions::default(), node);
    place
}

#[test]
fn d8_datagrams_come_from_a_path_and_go_to_a_path_also_empty_ones() {
    everywhere(|stage| {
        let own = Place::new();
        let from = own.endpoint();
        let mut left = 2;
        let server = Node::new().datagram(move |cx, datagram| {
            assert_eq!((datagram.from(), datagram.to()), (from, cx.local_addr()));
            left -= 1;
            cx.send_to(datagram, datagram.from())?;
            if left == 0 { close(cx) } else { Ok(()) }
        });
        let server = bind(stage, "server", server);
        let (to, mut left) = (server.endpoint(), 2);
        let client = Node::new()
            .opened(move |cx| {
                assert_eq!((cx.local_addr(), cx.peer_addr()), (Some(from), None));
                cx.send_to(b"", to)?;
                Ok(cx.send_to(b"x", to)?)
            })
            .datagram(move |cx, datagram| {
                assert_eq!(datagram.from(), to);
                left -= 1;
                if left == 0 { close(cx) } else { Ok(()) }
            });
        let id = stage.bind_at("client", &own.0, with(|_| {}), client);
        assert_eq!(stage.driver.bound_addr(id), Some(from));
        stage.run();
        let lines =
            ["opened", "datagram of 0 bytes", "datagram of 1 bytes", "closed finished by us"];
        stage.expect_node("server", &lines);
        stage.expect_node("client", &lines);
        let metrics = stage.driver.metrics();
        assert_eq!([metrics.datagrams_in, metrics.datagrams_out, metrics.binds], [4, 4, 2]);
        let lost =
            [metrics.datagrams_dropped, metrics.datagrams_truncated, metrics.datagrams_refused];
        assert_eq!(lost, [0; 3]);
        stage.check(!server.0.exists() && !own.0.exists(), "the files go with the sockets");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_is_bound_and_leaves_nothing() {
    everywhere(|stage| {
        let name = Place::new().0.file_name().unwrap().to_str().unwrap().to_owned();
        let text = format!("unix:@{name}");
        let id = stage.bind_at("server", &text, with(|_| {}), echo(1));
        let to = stage.driver.bound_addr(id).unwrap();
        assert_eq!(to.to_string(), format!("@{name}"));
        let client = Node::new()
            .opened(move |cx| Ok(cx.send_to(b"abstract", to)?))
            .datagram(|cx, _| close(cx));
        let _place = bind(stage, "client", client);
        stage.run();
        stage.expect_node("client", &["opened", "datagram of 8 bytes", "closed finished by us"]);
        stage.check(!std::path::Path::new(&name).exists(), "it is no file");
    });
}

#[test]
fn a_sender_without_a_name_is_heard_and_cannot_be_answered() {
    everywhere(|stage| {
        let server = Node::new().datagram(|cx, datagram| {
            assert!(datagram.from().unix().unwrap().is_unnamed());
            let error = cx.send_to(b"whom?", datagram.from()).unwrap_err();
            assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidAddress, Op::Send));
            let sentence = "cannot send to (unnamed): a socket without a name cannot be sent to";
            assert_eq!(error.to_string(), sentence);
            close(cx)
        });
        let server = bind(stage, "server", server);
        let to = server.endpoint();
        let client = Node::new().opened(move |cx| {
            assert_eq!(cx.local_addr(), Some(UnixName::unnamed().into()));
            let error = cx.send(b"to whom?").unwrap_err();
            assert_eq!(error.op(), Op::Send);
            cx.send_to(b"from nobody", to)?;
            close(cx)
        });
        stage.bind_at("client", Endpoint::from(UnixName::unnamed()), with(|_| {}), client);
        let second = Node::new().opened(close);
        stage.bind_at("second", Endpoint::from(UnixName::unnamed()), with(|_| {}), second);
        stage.run();
        stage.expect_node("server", &["opened", "datagram of 11 bytes", "closed finished by us"]);
        stage.expect_node("client", &["opened", "closed finished by us"]);
    });
}

#[test]
fn a_connected_socket_hears_its_peer_alone_and_a_stranger_is_told() {
    everywhere(|stage| {
        let server = bind(stage, "server", echo(1));
        let (to, place) = (server.endpoint(), Place::new());
        let own = place.endpoint();
        let client = Node::new()
            .notified(move |cx, _| {
                assert_eq!(cx.peer_addr(), Some(to));
                Ok(cx.send(b"ping")?)
            })
            .datagram(|cx, datagram| {
                assert_eq!(&datagram[..], b"ping");
                close(cx)
            });
        let options = with(|o| o.connect = Some(to));
        let id = stage.bind_at("client", &place.0, options, client);
        let stranger = Node::new().opened(move |cx| {
            let error = cx.send_to(b"spam", own).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(format!("{error:?}").contains("connected to another"), "{error:?}");
            cx.peer(id).notify(Note::new(()));
            close(cx)
        });
        let _place = bind(stage, "stranger", stranger);
        stage.run();
        stage.expect_node(
            "client",
            &["opened", "notified", "datagram of 4 bytes", "closed finished by us"],
        );
        stage.expect_node("stranger", &["opened", "closed finished by us"]);
    });
}

#[test]
fn d5_a_receiver_that_is_gone_is_told_and_the_socket_goes_on() {
    everywhere(|stage| {
        let (gone, other) = (Place::new(), Place::new());
        let (to, too) = (gone.endpoint(), other.endpoint());
        let path = gone.0.clone();
        let mut refused = 0;
        let client = Node::new()
            .opened(move |cx| {
                cx.send_to(b"anybody?", to)?;
                cx.send_to(b"anybody?", too)?;
                Ok(cx.send_to(b"anybody?", to)?)
            })
            .refused(move |cx| {
                refused += 1;
                if refused < 102 {
                    return Ok(cx.send_to(b"anybody?", to)?);
                }
                cx.driver().bind(&path, echo(1))?;
                cx.set_timer(TICK, Duration::from_millis(1));
                Ok(())
            })
            .timeout(move |cx, _| Ok(cx.send_to(b"hello", to)?))
            .datagram(|cx, _| close(cx));
        let _place = bind(stage, "client", client);
        stage.run();
        let lines = stage.log.of("client");
        assert_eq!(lines.iter().filter(|line| *line == "refused").count(), 102, "{lines:?}");
        assert_eq!(lines[103..], ["timer 1", "datagram of 5 bytes", "closed finished by us"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.datagrams_refused, metrics.datagrams_dropped), (104, 0));
        assert_eq!(metrics.datagrams_out, 2);
    });
}

#[test]
fn d5_each_receiver_that_is_gone_is_named() {
    everywhere(|stage| {
        let places: Vec<Place> = (0..70).map(|_| Place::new()).collect();
        let all: Vec<Endpoint> = places.iter().map(Place::endpoint).collect();
        let (sent, told) = (all.clone(), Arc::new(Mutex::new(Vec::new())));
        let tells = Arc::clone(&told);
        let client = Node::new()
            .opened(move |cx| {
                for to in &sent {
                    cx.send_to(b"?", *to)?;
                    cx.send_to(b"?", *to)?;
                }
                cx.set_timer(TICK, Duration::from_millis(20));
                Ok(())
            })
            .refused_by(move |_, to| {
                tells.lock().unwrap().push(to.unwrap());
                Ok(())
            });
        let _place = bind(stage, "client", client);
        stage.run();
        assert_eq!(*told.lock().unwrap(), all[..64], "as many as are remembered");
        assert_eq!(stage.driver.metrics().datagrams_refused, 140);
    });
}

#[test]
fn a_connected_socket_reaches_the_next_one_that_has_the_name() {
    everywhere(|stage| {
        let place = Place::new();
        let path = place.0.clone();
        let first = stage.bind_at("first", &place.0, with(|_| {}), Node::new());
        let (mut rounds, mut heard) = (0, 0);
        let client = Node::new()
            .opened(move |cx| {
                cx.peer(first).close();
                cx.set_timer(TICK, Duration::from_millis(1));
                Ok(())
            })
            .timeout(move |cx, timer| {
                if cx.driver().bound_addr(first).is_some() {
                    cx.set_timer(timer, Duration::from_millis(1));
                    return Ok(());
                }
                Ok(cx.send(b"there?")?)
            })
            .refused(move |cx| {
                rounds += 1;
                if rounds == 3 {
                    cx.driver().bind(&path, echo(2))?;
                }
                cx.send(b"there?")?;
                if rounds == 3 { Ok(cx.send(b"there?")?) } else { Ok(()) }
            })
            .datagram(move |cx, _| {
                heard += 1;
                if heard == 2 { close(cx) } else { Ok(()) }
            });
        let own = Place::new();
        let options = with(|o| o.connect = Some(place.endpoint()));
        stage.bind_at("client", &own.0, options, client);
        stage.run();
        let lines: Vec<String> =
            stage.log.of("client").into_iter().filter(|line| line != "timer 1").collect();
        let refused = ["refused"; 3];
        let end = ["datagram of 6 bytes", "datagram of 6 bytes", "closed finished by us"];
        assert_eq!(lines, [&["opened"][..], &refused, &end].concat());
        assert_eq!(stage.driver.metrics().datagrams_refused, 3);
    });
}

#[test]
fn to_connect_to_nobody_is_an_error() {
    everywhere(|stage| {
        let (place, nobody) = (Place::new(), Place::new());
        let options = with(|o| o.connect = Some(nobody.endpoint()));
        let error = stage.driver.control().bind_with(&place.0, options, Node::new()).unwrap_err();
        assert_eq!(error.op(), Op::Bind);
        assert!(!place.0.exists());
        stage.bind_at("after", &place.0, with(|_| {}), Node::new().opened(close));
        stage.run();
        stage.expect_node("after", &["opened", "closed finished by us"]);
    });
}

// ---- no room --------------------------------------------------------------------------------

#[test]
fn d7_what_a_receiver_has_no_room_for_waits_and_arrives_in_order() {
    const COUNT: u32 = 2000;
    everywhere(|stage| {
        let mut next = 0;
        let server = Node::new().datagram(move |cx, datagram| {
            assert_eq!(datagram[..], u32::to_be_bytes(next));
            next += 1;
            if next == COUNT { close(cx) } else { Ok(()) }
        });
        let server = bind(stage, "server", server);
        let (to, threads) = (server.endpoint(), stage.has_threads());
        let client = Node::new()
            .opened(move |cx| {
                for number in 0..COUNT {
                    cx.send_to(&number.to_be_bytes(), to)?;
                }
                assert!(threads || cx.is_congested());
                assert_eq!(cx.is_congested(), cx.unsent() > 0);
                // Where it is not congested any more, nothing follows.
                if cx.is_congested() { Ok(()) } else { close(cx) }
            })
            .drained(|cx| {
                assert!(!cx.is_congested() && cx.unsent() == 0);
                close(cx)
            });
        let place = Place::new();
        let options = with(|o| o.output_max = 1024 * 1024);
        stage.bind_at("client", &place.0, options, client);
        stage.run();
        let metrics = stage.driver.metrics();
        assert_eq!(metrics.datagrams_in, u64::from(COUNT));
        assert_eq!((metrics.datagrams_out, metrics.datagrams_dropped), (u64::from(COUNT), 0));
    });
}

/// A receiver that reads when the test says so, and all that it then has.
fn reads_later(place: &Place) -> UnixDatagram {
    let socket = UnixDatagram::bind(&place.0).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn read(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = [0; 10];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|_| buffer[0])).collect()
}

#[test]
fn d7_a_receiver_that_does_not_read_costs_what_the_policy_says_and_no_other_receiver() {
    for policy in [DropPolicy::Newest, DropPolicy::Oldest] {
        on_sockets(DriverLimits::default(), |stage| {
            let stuck = Place::new();
            let socket = Arc::new(reads_later(&stuck));
            let reader = Arc::clone(&socket);
            let server = bind(stage, "server", echo(1));
            let (to, other) = (stuck.endpoint(), server.endpoint());
            let got = Arc::new(Mutex::new(Vec::new()));
            let (gets, told) = (Arc::clone(&got), Arc::new(Mutex::new((0, 0))));
            let tells = Arc::clone(&told);
            let client = Node::new()
                .opened(move |cx| {
                    for number in 0..100 {
                        cx.send_to(&[number], to)?;
                    }
                    assert!(cx.is_congested());
                    *tells.lock().unwrap() = (cx.dropped(), cx.unsent());
                    Ok(cx.send_to(b"in between", other)?)
                })
                .datagram(move |cx, datagram| {
                    assert_eq!(&datagram[..], b"in between");
                    let own = cx.id();
                    assert_eq!((cx.peer(own).unsent(), cx.unsent()), (5, 5));
                    assert_eq!(cx.driver().metrics().buffered, 5);
                    gets.lock().unwrap().extend(read(&reader));
                    Ok(())
                })
                .drained(close);
            let options = with(|o| (o.output_max, o.drop_policy) = (5 * 257, policy));
            let place = Place::new();
            stage.bind_at("client", &place.0, options, client);
            stage.run();
            let lines = stage.log.of("client");
            let end = ["opened", "datagram of 10 bytes", "drained", "closed finished by us"];
            assert_eq!(lines, end);
            let (dropped, unsent) = *told.lock().unwrap();
            let mut got = got.lock().unwrap();
            got.extend(read(&socket));
            assert_eq!(unsent, 5, "as many as have room in the queue");
            assert_eq!(got.len() as u64 + dropped, 100);
            let held = 100 - dropped as u8 - 5;
            let last = if policy == DropPolicy::Newest { held..held + 5 } else { 95..100 };
            assert_eq!(*got, (0..held).chain(last).collect::<Vec<u8>>());
            assert_eq!(stage.driver.metrics().datagrams_dropped, dropped);
        });
    }
}

#[test]
fn a_receiver_that_goes_while_datagrams_wait_for_it_is_told() {
    on_sockets(DriverLimits::default(), |stage| {
        let stuck = Place::new();
        let socket = Mutex::new(Some(reads_later(&stuck)));
        let to = stuck.endpoint();
        let client = Node::new()
            .opened(move |cx| {
                for _ in 0..1000 {
                    cx.send_to(b"?", to)?;
                }
                cx.set_timer(TICK, Duration::from_millis(5));
                Ok(())
            })
            .timeout(move |cx, _| {
                assert!(cx.is_congested());
                drop(socket.lock().unwrap().take());
                Ok(())
            })
            .refused_by(move |_, gone| {
                assert_eq!(gone, Some(to));
                Ok(())
            })
            .drained(close);
        let options = with(|o| o.output_max = 1024 * 1024);
        let place = Place::new();
        stage.bind_at("client", &place.0, options, client);
        stage.run();
        let lines = stage.log.of("client");
        assert_eq!(lines[..2], ["opened", "timer 1"]);
        assert!(lines[2..].contains(&"refused".to_owned()), "{lines:?}");
        let metrics = stage.driver.metrics();
        assert_eq!(metrics.datagrams_out + metrics.datagrams_refused, 1000);
        assert_eq!(metrics.datagrams_dropped, 0);
    });
}

#[test]
fn closing_waits_for_a_receiver_that_does_not_read_until_the_deadline() {
    on_sockets(DriverLimits::default(), |stage| {
        let stuck = Place::new();
        let socket = reads_later(&stuck);
        let to = stuck.endpoint();
        let client = Node::new()
            .opened(move |cx| {
                for _ in 0..100 {
                    cx.send_to(b"12345", to)?;
                }
                close(cx)
            })
            .closed(|_, reason| {
                assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Close));
                assert_eq!(reason.unsent() + reason.bytes_out(), 500);
            });
        let place = Place::new();
        let options = with(|o| o.close_deadline = Duration::from_millis(50));
        stage.bind_at("client", &place.0, options, client);
        stage.run();
        stage.expect_node("client", &["opened", "closed timed out (close) by the runtime"]);
        let metrics = stage.driver.metrics();
        assert_eq!(metrics.datagrams_out, read(&socket).len() as u64);
        assert_eq!(metrics.datagrams_out + metrics.datagrams_dropped, 100);
    });
}

#[test]
fn nothing_is_delivered_while_a_closing_socket_waits_for_room() {
    on_sockets(DriverLimits::default(), |stage| {
        let (stuck, place) = (Place::new(), Place::new());
        let socket = Mutex::new(reads_later(&stuck));
        let (to, own) = (stuck.endpoint(), place.endpoint());
        let closing = Node::new().opened(move |cx| {
            for _ in 0..100 {
                cx.send_to(b"12345", to)?;
            }
            close(cx)
        });
        let options = with(|o| o.close_deadline = Duration::from_secs(20));
        stage.bind_at("closing", &place.0, options, closing);
        let talker = Node::new()
            .opened(move |cx| {
                cx.set_timer(TICK, Duration::from_millis(20));
                Ok(cx.send_to(b"early", own)?)
            })
            .timeout(move |cx, timer| {
                // The file goes with the socket: then it is refused.
                cx.send_to(b"still there?", own)?;
                read(&socket.lock().unwrap());
                cx.set_timer(timer, Duration::from_millis(1));
                Ok(())
            })
            .refused(close);
        let options = with(|o| o.close_deadline = Duration::from_millis(10));
        let other = Place::new();
        stage.bind_at("talker", &other.0, options, talker);
        stage.run();
        stage.expect_node("closing", &["opened", "closed finished by us"]);
    });
}

// ---- sizes, options, errors -----------------------------------------------------------------

#[test]
fn d6_d7_long_datagrams_arrive_whole_or_cut_and_what_is_too_long_is_an_error() {
    everywhere(|stage| {
        let whole = Place::new();
        let node = Node::new().datagram(|cx, datagram| {
            assert!(datagram.iter().all(|byte| *byte == 7));
            close(cx)
        });
        stage.bind_at("whole", &whole.0, with(|o| o.datagram_max = 200_000), node);
        let cut = bind(stage, "cut", Node::new().datagram(|cx, _| close(cx)));
        let (to, too) = (whole.endpoint(), cut.endpoint());
        let client = Node::new().opened(move |cx| {
            let error = cx.send_to(&vec![7; 1024 * 1024], to).unwrap_err();
            assert_eq!((error.kind(), error.op()), (ErrorKind::TooLarge, Op::Send));
            let sentence = format!("cannot send to {to}: it is too long for a datagram");
            assert_eq!(error.to_string(), sentence);
            cx.send_to(&vec![7; 100_000], to)?;
            cx.send_to(&vec![7; 100_000], too)?;
            close(cx)
        });
        let _place = bind(stage, "client", client);
        stage.run();
        let lines = ["opened", "datagram of 100000 bytes", "closed finished by us"];
        stage.expect_node("whole", &lines);
        let lines = ["opened", "datagram of 65535 bytes, truncated", "closed finished by us"];
        stage.expect_node("cut", &lines);
    });
}

#[test]
fn a_socket_of_one_family_cannot_send_to_one_of_the_other() {
    everywhere(|stage| {
        let ip: Endpoint = ([127, 0, 0, 1], 9).into();
        let path = Place::new().endpoint();
        let wrong = move |to: Endpoint, sentence: &'static str| {
            Node::new().opened(move |cx| {
                let error = cx.send_to(b"x", to).unwrap_err();
                assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidAddress, Op::Send));
                assert_eq!(error.to_string(), format!("cannot send to {to}: {sentence}"));
                close(cx)
            })
        };
        let of_unix = wrong(ip, "it is no Unix socket");
        let _place = bind(stage, "unix", of_unix);
        stage.bind("udp", wrong(path, "it is no IP address"));
        let member = Node::new().opened(|cx| {
            let group = std::net::Ipv4Addr::new(239, 1, 2, 3);
            assert!(cx.join(group, Interface::Any).is_err());
            close(cx)
        });
        let _place = bind(stage, "member", member);
        stage.run();
        for who in ["unix", "udp", "member"] {
            stage.expect_node(who, &["opened", "closed finished by us"]);
        }
    });
}

#[test]
fn d10_a_path_in_use_or_too_long_is_an_error_that_says_so() {
    everywhere(|stage| {
        let place = bind(stage, "first", Node::new().opened(close));
        let error = stage.driver.control().bind(&place.0, Node::new()).unwrap_err();
        assert_eq!((error.kind(), error.op()), (ErrorKind::AddressInUse, Op::Bind));
        assert!(format!("{error:?}").contains("hint: another program has a socket there"));
        let path = std::path::PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let error = stage.driver.control().bind(&path, Node::new()).unwrap_err();
        assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidAddress, Op::Bind));
        assert!(error.to_string().contains("205 bytes"), "{error}");
        stage.run();
    });
}

#[test]
fn d10_a_stale_file_is_replaced_and_goes_with_the_socket_unless_another_has_its_place() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        drop(UnixDatagram::bind(&place.0).unwrap());
        assert!(place.0.exists(), "nobody removes it");
        let options = with(|o| o.mode = Some(0o640));
        stage.bind_at("first", &place.0, options, Node::new().opened(close));
        let mode = std::fs::metadata(&place.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let other = Place::new();
        stage.bind_at("second", &other.0, with(|_| {}), Node::new().opened(close));
        std::fs::remove_file(&other.0).unwrap();
        let _owner = UnixDatagram::bind(&other.0).unwrap();
        stage.run();
        assert!(!place.0.exists() && other.0.exists());
    });
}

#[test]
fn d10_what_is_alive_or_no_socket_keeps_its_path() {
    on_sockets(DriverLimits::default(), |stage| {
        let (listening, connected, file) = (Place::new(), Place::new(), Place::new());
        let _listener = std::os::unix::net::UnixListener::bind(&listening.0).unwrap();
        let socket = UnixDatagram::bind(&connected.0).unwrap();
        let peer = Place::new();
        let _peer = UnixDatagram::bind(&peer.0).unwrap();
        socket.connect(&peer.0).unwrap();
        std::fs::write(&file.0, "kept").unwrap();
        for place in [&listening, &connected, &file] {
            let error = stage.driver.control().bind(&place.0, Node::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddressInUse);
            assert!(place.0.exists());
        }
        stage.run();
    });
}

#[test]
fn options_that_a_kind_of_datagram_socket_does_not_have_are_errors() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        let path = || lariat::Address::from(&place.0);
        let group = Interface::Index(1);
        let wrong: Vec<(lariat::Address, DatagramOptions, &str)> = vec![
            (path(), with(|o| o.reuse_port = true), "reuse_port"),
            (path(), with(|o| o.broadcast = true), "broadcast"),
            (path(), with(|o| o.ttl = Some(9)), "ttl"),
            (path(), with(|o| o.multicast_ttl = Some(9)), "multicast_ttl"),
            (path(), with(|o| o.multicast_loop = false), "multicast_loop"),
            (path(), with(|o| o.multicast_interface = group), "multicast_interface"),
            ("127.0.0.1:0".into(), with(|o| o.mode = Some(0o600)), "mode"),
            (UnixName::unnamed().into(), with(|o| o.mode = Some(0o600)), "mode"),
        ];
        for (addr, options, named) in wrong {
            let error = stage.driver.control().bind_with(addr, options, Node::new()).unwrap_err();
            assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidLimits, Op::Bind));
            assert!(error.to_string().contains(named), "{error}");
            assert!(!place.0.exists(), "nothing is left of {named}");
        }
        stage.run();
    });
}

// ---- adopted sockets ------------------------------------------------------------------------

#[test]
fn sockets_of_std_are_adopted() {
    on_sockets(DriverLimits::default(), |stage| {
        // One of a pair: connected, without a name.
        let (one, other) = UnixDatagram::pair().unwrap();
        other.send(b"before").unwrap();
        let node = Node::new().datagram(|cx, datagram| {
            assert!(cx.peer_addr().unwrap().unix().unwrap().is_unnamed());
            assert_eq!((datagram.from(), datagram.to()), (cx.peer_addr().unwrap(), None));
            cx.send(datagram)?;
            close(cx)
        });
        let log = stage.log.clone();
        let mut control = stage.driver.control();
        control.adopt_datagrams(one, with(|_| {}), node.under("pair", &log)).unwrap();
        // One with a name, whose file stays, and one of UDP.
        let place = Place::new();
        let named = UnixDatagram::bind(&place.0).unwrap();
        let id =
            control.adopt_datagrams(named, with(|_| {}), echo(1).under("named", &log)).unwrap();
        assert_eq!(control.bound_addr(id), Some(place.endpoint()));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (id_udp, to) = (echo(1).under("udp", &log), udp.local_addr().unwrap());
        let id = control.adopt_datagrams(udp, with(|o| o.ttl = Some(9)), id_udp).unwrap();
        assert_eq!(control.bound_addr(id).unwrap(), to);
        drop(control);
        let unix_to = place.endpoint();
        let client = Node::new()
            .opened(move |cx| Ok(cx.send_to(b"path", unix_to)?))
            .datagram(|cx, _| close(cx));
        let _place = bind(stage, "client", client);
        let client =
            Node::new().opened(move |cx| Ok(cx.send_to(b"port", to)?)).datagram(|cx, _| close(cx));
        stage.bind("udp client", client);
        stage.run();
        let mut buffer = [0; 10];
        assert_eq!(other.recv(&mut buffer).unwrap(), 6);
        assert!(other.send(b"x").is_err(), "it is closed");
        stage.expect_node("pair", &["opened", "datagram of 6 bytes", "closed finished by us"]);
        for who in ["named", "udp", "client", "udp client"] {
            stage.expect_node(who, &["opened", "datagram of 4 bytes", "closed finished by us"]);
        }
        assert!(place.0.exists(), "the file is not ours");
    });
}

#[test]
fn what_is_no_datagram_socket_is_not_adopted_and_one_above_the_limit_neither() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1;
    on_sockets(limits, |stage| {
        let (stream, _other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let wrong: [(OwnedFd, &str); 2] =
            [(stream.into(), "it is no datagram socket"), (file.into(), "it is no socket")];
        let mut control = stage.driver.control();
        for (socket, sentence) in wrong {
            let refused = control.adopt_datagrams(socket, with(|_| {}), Node::new());
            let error = lariat::Error::from(refused.unwrap_err());
            assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidSocket, Op::Adopt));
            assert_eq!(error.to_string(), format!("cannot adopt the socket: {sentence}"));
        }
        let udp = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mode = with(|o| o.mode = Some(0o600));
        let refused = control.adopt_datagrams(udp(), mode, Node::new());
        let error = lariat::Error::from(refused.unwrap_err());
        assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidLimits, Op::Adopt));
        let node = Node::new().opened(|cx| {
            cx.driver().shutdown();
            Ok(())
        });
        control.adopt_datagrams(udp(), with(|_| {}), node).unwrap();
        let refused = control.adopt_datagrams(udp(), with(|_| {}), Node::new());
        let error = lariat::Error::from(refused.unwrap_err());
        assert_eq!((error.kind(), error.op()), (ErrorKind::Limit, Op::Adopt));
        drop(control);
        stage.run();
        let mut control = stage.driver.control();
        let refused = control.adopt_datagrams(udp(), with(|_| {}), Node::new());
        let error = lariat::Error::from(refused.unwrap_err());
        assert_eq!((error.kind(), error.op()), (ErrorKind::Stopped, Op::Adopt));
    });
    let mut sim = Sim::new(1);
    let driver: &mut dyn Driver = &mut sim;
    let (one, _other) = UnixDatagram::pair().unwrap();
    let refused = driver.control().adopt_datagrams(one, with(|_| {}), Node::new());
    let error = lariat::Error::from(refused.unwrap_err());
    assert_eq!((error.kind(), error.op()), (ErrorKind::Unsupported, Op::Adopt));
}

// ---- a value per peer -----------------------------------------------------------------------

struct Counting(u8);

impl PeerProtocol for Counting {
    fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, datagram: &Datagram<'_>) -> Outcome {
        assert_eq!(cx.peer_addr(), datagram.from());
        self.0 += 1;
        cx.send(&[self.0])?;
        if datagram.is_empty() {
            cx.socket().close();
        }
        Ok(())
    }
}

#[test]
fn named_unix_sockets_are_peers_and_those_without_a_name_are_refused() {
    everywhere(|stage| {
        let server = Place::new();
        let peers = Peers::new(|_| Some(Counting(0)));
        let counters = peers.counters();
        stage.driver.control().bind(&server.0, peers).unwrap();
        let to = server.endpoint();
        let nobody = Node::new().opened(move |cx| {
            cx.send_to(b"x", to)?;
            close(cx)
        });
        stage.bind_at("nobody", UnixName::unnamed(), with(|_| {}), nobody);
        let mut heard = 0;
        let client = Node::new()
            .opened(|cx| {
                cx.set_timer(TICK, Duration::from_millis(20));
                Ok(())
            })
            .timeout(move |cx, _| Ok(cx.send_to(b"x", to)?))
            .datagram(move |cx, datagram| {
                heard += 1;
                assert_eq!(datagram[..], [heard]);
                match heard {
                    1 => Ok(cx.send_to(b"x", to)?),
                    2 => Ok(cx.send_to(b"", to)?),
                    _ => close(cx),
                }
            });
        let _place = bind(stage, "client", client);
        stage.run();
        let counts = counters.get();
        assert_eq!((counts.opened, counts.refused), (1, 1));
        assert_eq!(stage.log.of("client").last().unwrap(), "closed finished by us");
    });
}
