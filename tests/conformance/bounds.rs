//! Limits and options at their bounds: one below, at, and one above.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{
    ConnectOptions, Context, Control, Driver, DriverLimits, ErrorKind, Limits, ListenOptions, Note,
    Overload,
};

use socket2::{Domain, Socket, Type};

use crate::kit::{
    Last, Play, Stage, closes_after, data, everywhere, everywhere_with, on_sockets, says,
};

// ---- limits -------------------------------------------------------------------------------------

#[test]
fn as_many_notes_wait_as_notes_max_says_and_the_others_are_refused() {
    for (sent, received) in [(2, 2), (3, 3), (4, 3), (7, 3)] {
        everywhere(|stage| {
            let addr = stage.serve("server", Play::new);
            let mut limits = Limits::default();
            limits.notes_max = 3;
            let left = received;
            let client = Play::new()
                .opened(move |cx| {
                    let own = cx.id();
                    (0..sent).for_each(|_| cx.peer(own).notify(Note::new(())));
                    Ok(())
                })
                .notified(closes_after(left));
            stage.connect_with("client", addr, limits, client);
            stage.run();
            let refused = stage.driver.metrics().refused_notes;
            stage.check(refused == sent - received, &format!("{refused} of {sent} are refused"));
        });
    }
}

#[test]
fn input_that_is_left_may_grow_to_one_below_input_max() {
    for (sent, end) in [(15, "finished by the peer"), (16, "input full by the runtime")] {
        everywhere(|stage| {
            let mut limits = Limits::default();
            limits.input_max = 16;
            let addr = stage.serve_with("server", limits, || Play::new().data(|_, _| Ok(())));
            let client = Play::new().opened(move |cx| {
                cx.write(&[7; 16][..sent]);
                cx.shutdown_write();
                Ok(())
            });
            stage.connect("client", addr, client);
            stage.run();
            let lines = stage.trace.of("server");
            let last = lines.last().unwrap();
            stage.check(*last == format!("closed {end}"), &format!("{sent}: {last}"));
        });
    }
}

const PAIRS: usize = 3;

/// Of so many clients of one address that connect and stay, so many are refused.
fn refused(limits: DriverLimits, refused: usize) {
    everywhere_with(limits.clone(), |stage| {
        let addr = stage.serve_many(PAIRS, Limits::default(), |number| {
            (format!("server {number}"), says(b"x"))
        });
        // Everybody stays until everybody knows.
        let left = Arc::new(AtomicUsize::new(PAIRS));
        for number in 0..PAIRS {
            let (known, lost) = (Arc::clone(&left), Arc::clone(&left));
            let mut served = false;
            let client = Play::new()
                .data(move |cx, input| {
                    input.consume_all();
                    if known.fetch_sub(1, Ordering::Relaxed) == 1 {
                        cx.driver().shutdown();
                    }
                    Ok(())
                })
                .closed(move |cx, reason| {
                    let first = !std::mem::replace(&mut served, true);
                    let shed = reason.bytes_in() == 0;
                    if first && shed && lost.fetch_sub(1, Ordering::Relaxed) == 1 {
                        cx.driver().shutdown();
                    }
                });
            stage.connect(&format!("client {number}"), addr, client);
        }
        stage.run();
        let metrics = stage.driver.metrics();
        let counted = (metrics.refused, metrics.accepted);
        let expected = (refused as u64, (PAIRS - refused) as u64);
        stage.check(counted == expected, &format!("{limits:?}: {metrics}"));
    });
}

#[test]
fn as_many_connections_are_open_as_connections_max_says_and_the_next_is_shed() {
    for (most, shed) in [(2 * PAIRS - 1, 1), (2 * PAIRS, 0), (2 * PAIRS + 1, 0)] {
        let mut limits = DriverLimits::default();
        (limits.connections_max, limits.overload) = (most, Overload::Shed);
        refused(limits, shed);
    }
}

#[test]
fn one_address_has_as_many_connections_as_connections_per_address_says() {
    for (most, more) in [(1, 2), (PAIRS - 1, 1), (PAIRS, 0), (PAIRS + 1, 0)] {
        let mut limits = DriverLimits::default();
        limits.connections_per_address = Some(most);
        refused(limits, more);
    }
}

/// At most one connection of an address.
fn one_per_address() -> DriverLimits {
    let mut limits = DriverLimits::default();
    limits.connections_per_address = Some(1);
    limits
}

/// Connects to `addr` until it is served, and runs `then`. The end that is served stays open, so
/// that the end of the server lingers if it closes.
fn served_at_last(cx: &mut Control<'_>, addr: SocketAddr, then: Then) {
    let then = Arc::new(Mutex::new(Some(then)));
    let (run, refused) = (Arc::clone(&then), Arc::clone(&then));
    let client = Play::new()
        .data(move |cx, input| {
            input.consume_all();
            cx.write(b"y");
            let then = run.lock().unwrap().take();
            then.into_iter().for_each(|then| then(&mut cx.driver()));
            Ok(())
        })
        .eof(move |cx, _| {
            if refused.lock().unwrap().is_some() {
                cx.close();
            }
            Ok(())
        })
        .closed(move |cx, _| {
            if let Some(then) = then.lock().unwrap().take() {
                served_at_last(&mut cx.driver(), addr, then);
            }
        });
    cx.connect(addr, client);
}

type Then = Box<dyn FnOnce(&mut Control<'_>) + Send>;

#[test]
fn a_connection_that_lingers_or_has_ended_leaves_the_next_of_its_address_a_place() {
    for lingers in [true, false] {
        everywhere_with(one_per_address(), |stage| {
            let mut limits = Limits::default();
            (limits.linger_idle, limits.linger_total) = (Duration::MAX, Duration::MAX);
            let addr = stage.serve_many(4, limits, move |number| {
                let play = Play::new()
                    .opened(move |cx| {
                        cx.write(b"x");
                        if lingers {
                            cx.close();
                        }
                        Ok(())
                    })
                    .data(|cx, input| {
                        input.consume_all();
                        cx.abort();
                        Ok(())
                    });
                (format!("server {number}"), play)
            });
            let stop: Then = Box::new(|cx| cx.shutdown());
            let chain = (0..3)
                .fold(stop, |then: Then, _| Box::new(move |cx| served_at_last(cx, addr, then)));
            served_at_last(&mut stage.driver.control(), addr, chain);
            stage.run();
            let metrics = stage.driver.metrics();
            stage.check(metrics.accepted == 4, &format!("lingers: {lingers}; {metrics}"));
        });
    }
}

#[test]
fn a_client_that_the_factory_refuses_takes_no_place_of_its_address() {
    everywhere_with(one_per_address(), |stage| {
        let made = AtomicUsize::new(0);
        let factory = move |incoming: &lariat::Incoming| {
            let accepts = made.fetch_add(1, Ordering::Relaxed) == 2;
            accepts.then(|| Last::new(says(b"x"), incoming))
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        let addr = stage.driver.addresses(listener)[0].socket_addr().unwrap();
        served_at_last(&mut stage.driver.control(), addr, Box::new(|cx| cx.shutdown()));
        stage.run();
        let metrics = stage.driver.metrics();
        stage.check((metrics.refused, metrics.accepted) == (2, 1), &format!("{metrics}"));
    });
}

#[test]
fn each_address_has_its_own_maximum_at_all_listeners_together() {
    everywhere_with(one_per_address(), |stage| {
        let factory = |_: &lariat::Incoming| Some(says(b"x"));
        let [one, two] = [(); 2].map(|()| {
            let addr = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = stage.driver.control().listen(addr, factory).unwrap();
            stage.driver.addresses(listener)[0].socket_addr().unwrap()
        });
        // Who waits for a second place of its address hears nothing, on either listener.
        let refused = move |cx: &mut Control<'_>, addr: SocketAddr, then: Then| {
            let mut then = Some(then);
            let client = Play::new().closed(move |cx, reason| {
                assert_eq!(reason.bytes_in(), 0, "{reason}");
                then.take().into_iter().for_each(|then| then(&mut cx.driver()));
            });
            cx.connect(addr, client);
        };
        let elsewhere: Then = Box::new(move |cx| {
            let mut options = ConnectOptions::default();
            options.bind = Some(SocketAddr::from(([127, 0, 0, 2], 0)).into());
            let client = Play::new().data(|cx, input| {
                input.consume_all();
                cx.driver().shutdown();
                Ok(())
            });
            cx.connect_with(two, options, client).unwrap();
        });
        let second: Then = Box::new(move |cx| refused(cx, two, elsewhere));
        let first: Then = Box::new(move |cx| refused(cx, one, second));
        served_at_last(&mut stage.driver.control(), one, first);
        stage.run();
        let metrics = stage.driver.metrics();
        stage.check((metrics.refused, metrics.accepted) == (2, 2), &format!("{metrics}"));
    });
}

// ---- options of listeners -----------------------------------------------------------------------

/// Listens for one connection, which is answered with the address of its peer.
fn listen(
    driver: &mut dyn Driver,
    addr: SocketAddr,
    options: ListenOptions,
) -> lariat::Result<SocketAddr> {
    let factory = move |incoming: &lariat::Incoming| {
        let play = Play::new().opened(|cx| {
            let peer = cx.peer_addr().to_string();
            cx.write(peer.as_bytes());
            cx.close();
            Ok(())
        });
        Some(Last::new(play, incoming))
    };
    let listener = driver.control().listen_with(addr, options, factory)?;
    Ok(driver.addresses(listener)[0].socket_addr().unwrap())
}

/// What a client of `addr` hears, and its own address.
fn heard(addr: SocketAddr) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect(addr)?;
    let (own, mut heard) = (stream.local_addr()?, String::new());
    stream.read_to_string(&mut heard)?;
    stream.flush()?;
    Ok((heard, own.to_string()))
}

#[test]
fn v6_only_decides_whether_an_ipv4_client_is_served() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    for v6_only in [true, false] {
        on_sockets(DriverLimits::default(), |stage| {
            let mut options = ListenOptions::default();
            options.v6_only = v6_only;
            // Of IPv4 the port is taken, and nobody listens there: no other test can.
            let v4 = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            v4.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
            let port = v4.local_addr().unwrap().as_socket().unwrap().port();
            let any = SocketAddr::from(([0u16; 8], port));
            let beside = listen(stage.driver, any, options.clone());
            stage.check(beside.is_ok() == v6_only, "whether another has the port");
            let _kept = if v6_only {
                Some(v4)
            } else {
                drop(v4);
                listen(stage.driver, any, options).unwrap();
                None
            };
            let clients = std::thread::spawn(move || {
                let v4 = heard(([127, 0, 0, 1], port).into());
                match v6_only {
                    true => (v4.map_err(|error| error.kind()), Some(heard_v6(port))),
                    false => (v4.map_err(|error| error.kind()), None),
                }
            });
            stage.run();
            match clients.join().unwrap() {
                (Err(kind), Some((peer, own))) => {
                    stage.check(v6_only && kind == io::ErrorKind::ConnectionRefused, "refused");
                    stage.check(peer == own && own.starts_with("[::1]:"), "IPv6 is served");
                }
                (Ok((peer, own)), None) => {
                    stage.check(!v6_only && peer == own, "IPv4 is served, and shown as such");
                    stage.check(own.starts_with("127.0.0.1:"), "it is IPv4");
                }
                other => panic!("{other:?}"),
            }
        });
    }
}

fn heard_v6(port: u16) -> (String, String) {
    heard(([0, 0, 0, 0, 0, 0, 0, 1u16], port).into()).unwrap()
}

#[test]
fn reuse_port_lets_several_sockets_have_one_port_if_all_of_them_say_so() {
    for (first, second, works) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        on_sockets(DriverLimits::default(), |stage| {
            let option = |reuse_port| {
                let mut options = ListenOptions::default();
                options.reuse_port = reuse_port;
                options
            };
            let free = ([127, 0, 0, 1], 0).into();
            let addr = listen(stage.driver, free, option(first)).unwrap();
            let again = listen(stage.driver, addr, option(second));
            let kind = again.as_ref().err().map(lariat::Error::kind);
            let expected = if works { None } else { Some(ErrorKind::AddressInUse) };
            stage.check(kind == expected, &format!("{first} {second}: {again:?}"));
            stage.driver.handle().shutdown();
            stage.run();
        });
    }
}

/// Linux lets one more wait than it is told, and does not answer the next.
#[cfg(target_os = "linux")]
#[test]
fn as_many_newcomers_wait_as_the_backlog_says() {
    for backlog in [0, 1, 2, 7] {
        on_sockets(DriverLimits::default(), |stage| {
            let mut options = ListenOptions::default();
            options.backlog = backlog;
            let addr = listen(stage.driver, ([127, 0, 0, 1], 0).into(), options).unwrap();
            // Nobody accepts before the driver runs.
            let patient = Duration::from_secs(20);
            let waiting: Vec<io::Result<TcpStream>> =
                (0..=backlog).map(|_| TcpStream::connect_timeout(&addr, patient)).collect();
            stage.check(waiting.iter().all(Result::is_ok), "all of these wait");
            let next = TcpStream::connect_timeout(&addr, Duration::from_millis(150));
            let kind = next.err().map(|error| error.kind());
            stage.check(kind == Some(io::ErrorKind::TimedOut), "there is no room for another");
            stage.driver.handle().shutdown();
            stage.run();
        });
    }
}

/// The largest that there is; the system caps it.
#[test]
fn the_largest_backlog_is_taken() {
    for backlog in [i32::MAX as u32 - 1, i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX] {
        on_sockets(DriverLimits::default(), |stage| {
            let mut options = ListenOptions::default();
            options.backlog = backlog;
            let addr = listen(stage.driver, ([127, 0, 0, 1], 0).into(), options).unwrap();
            let waiting: Vec<TcpStream> =
                (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
            stage.driver.handle().shutdown();
            stage.run();
            drop(waiting);
        });
    }
}

// ---- what is written ----------------------------------------------------------------------------

#[test]
fn output_is_congested_above_the_high_mark_and_drained_once() {
    for (written, congested) in [(99, false), (100, false), (101, true)] {
        everywhere(|stage| {
            let mut limits = Limits::default();
            (limits.low_mark, limits.high_mark) = (10, 100);
            let addr = stage.serve_with("server", limits, move || {
                Play::new().opened(move |cx| {
                    cx.write(&[7; 101][..written]);
                    assert_eq!((cx.is_congested(), cx.unsent()), (congested, written));
                    Ok(())
                })
            });
            let mut left = written;
            let client = Play::new().data(move |cx, input| {
                left -= input.len();
                input.consume_all();
                if left == 0 {
                    cx.close();
                }
                Ok(())
            });
            stage.connect("client", addr, client);
            stage.run();
            let lines = stage.trace.of("server");
            let drained = lines.iter().filter(|line| *line == "drained").count();
            stage.check(drained == usize::from(congested), &format!("{written}: {lines:?}"));
            stage.check(stage.driver.metrics().panics == 0, "it is congested just above");
            stage.check(lines[0] == "opened" && data(b"") != lines[0], "it opens");
        });
    }
}

#[test]
fn a_writer_fails_where_output_max_is_reached_and_takes_what_fits() {
    everywhere(|stage| {
        let mut limits = Limits::default();
        (limits.low_mark, limits.high_mark, limits.output_max) = (10, 100, 1000);
        let addr = stage.serve_with("server", limits, || {
            Play::new().opened(|cx| {
                assert_eq!(cx.writer().write(&[b'x'; 1000]).unwrap(), 1000);
                assert_eq!(cx.writer().write(b"").unwrap(), 0);
                let error = cx.writer().write(b"!").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                let error = write!(cx, "!").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                Ok(())
            })
        });
        stage.connect("client", addr, Play::new());
        stage.run();
        stage.expect("server", &["opened", "closed output full by the runtime"]);
    });
}

/// More than any connection may have unsent by default.
const MUCH: &[u8] = &[7; 9 << 20];

/// What is too much by default is written to it, by a closure, which then aborts it.
fn strained(prepare: impl Fn(&mut Context<'_>) + Send + 'static) -> Play {
    Play::new().opened(move |cx| {
        prepare(cx);
        let id = cx.id();
        cx.after(Duration::ZERO, move |control| {
            control.peer(id).write_bytes(MUCH);
            control.peer(id).abort();
        });
        Ok(())
    })
}

#[test]
fn output_max_of_one_connection_holds_for_what_others_write_however_it_has_it() {
    let ways: [fn(&mut Stage<'_>, Limits); 3] = [
        |stage, limits| {
            let itself = move |cx: &mut Context<'_>| cx.set_limits(limits.clone()).unwrap();
            let addr = stage.serve("other", Play::new);
            stage.connect("one", addr, strained(itself));
        },
        |stage, limits| {
            let addr = stage.serve("other", Play::new);
            stage.connect_with("one", addr, limits, strained(|_| ()));
        },
        |stage, limits| {
            let addr = stage.serve_with("one", limits, || strained(|_| ()));
            stage.connect("other", addr, Play::new());
        },
    ];
    for way in ways {
        judged(MUCH.len(), "closed aborted by us", |scenario| everywhere(scenario), way);
        let full = "closed output full by the runtime";
        judged(MUCH.len() - 1, full, |scenario| everywhere(scenario), way);
    }
    let adopted = |stage: &mut Stage<'_>, limits: Limits| {
        let (stream, other) = UnixStream::pair().unwrap();
        let keeps = move |_: &mut Context<'_>| assert!(other.peer_addr().is_ok());
        let one = stage.trace.wrap("one", strained(keeps));
        stage.driver.control().adopt_stream(stream, limits.into(), one).unwrap();
    };
    let on_sockets = |scenario: &dyn Fn(&mut Stage<'_>)| on_sockets(Default::default(), scenario);
    judged(MUCH.len(), "closed aborted by us", on_sockets, adopted);
}

/// How the connection "one" ends where it has this output_max.
#[track_caller]
fn judged(
    output_max: usize,
    closed: &str,
    drivers: impl Fn(&dyn Fn(&mut Stage<'_>)),
    way: impl Fn(&mut Stage<'_>, Limits),
) {
    drivers(&|stage| {
        let mut limits = Limits::default();
        limits.output_max = output_max;
        way(stage, limits);
        stage.run();
        stage.expect("one", &["opened", closed]);
    });
}

#[test]
fn a_connection_that_has_ended_leaves_its_place_to_what_its_closed_begins() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1;
    everywhere_with(limits, |stage| {
        let nobody = stage.deserted();
        let trace = stage.trace.clone();
        let first = Play::new().closed(move |cx, _| {
            assert_eq!(cx.driver().metrics().open, 0);
            cx.connect(nobody, trace.wrap("second", Play::new()));
        });
        stage.connect("first", nobody, first);
        stage.run();
        stage.expect("first", &["closed connect refused by the peer"]);
        stage.expect("second", &["closed connect refused by the peer"]);
    });
}
