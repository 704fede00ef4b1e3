//! Connects by name and to several addresses: which address is used, and what is said when none is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lariat::{
    Address, AddressErrors, By, CloseKind, CloseReason, ConnectFailure, Control, Deadline,
    DriverLimits, Endpoint, Error, ErrorKind, JobLimits, Limits, ListenerId, Resolver,
};

use crate::kit::{
    Last, Play, Stage, data, echo, everywhere, everywhere_with, on_sockets, says, says_all,
};
use crate::node::Node;
use crate::silence::{has_silence, silent};
use crate::toy::Toy;

/// What a connection ended with.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<CloseReason>>>);

impl Ends {
    fn noted_by(&self, play: Play) -> Play {
        let ends = self.clone();
        play.closed(move |_, reason| ends.0.lock().unwrap().push(reason.clone()))
    }

    #[track_caller]
    fn only(&self) -> CloseReason {
        let ends = self.0.lock().unwrap();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends[0].clone()
    }

    /// The addresses that failed, and what is said of each.
    #[track_caller]
    fn errors(&self) -> Vec<(SocketAddr, io::ErrorKind)> {
        let reason = self.only();
        let error = reason.error().expect("an error");
        let errors = error.downcast_ref::<AddressErrors>().expect("one for each address");
        errors.iter().map(|(addr, error)| (addr.socket_addr().unwrap(), error.kind())).collect()
    }
}

/// A resolver that knows one name, and counts its lookups.
fn knows(addrs: Vec<SocketAddr>, asked: &Arc<AtomicUsize>) -> Box<dyn Resolver> {
    let asked = Arc::clone(asked);
    Box::new(move |host: &str, port: u16| {
        asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(port, 7000);
        match host {
            "server.test" => Ok(addrs.clone()),
            "empty.test" => Ok(Vec::new()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
        }
    })
}

/// A client that says which peer it has.
fn tells_peer(peer: &Arc<Mutex<Option<Endpoint>>>) -> Play {
    let peer = Arc::clone(peer);
    Play::new().opened(move |cx| {
        *peer.lock().unwrap() = Some(cx.peer_addr());
        cx.close();
        Ok(())
    })
}

#[test]
fn a_name_is_looked_up_once_and_what_was_written_before_is_sent() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let asked = Arc::default();
        stage.driver.set_resolver(knows(vec![addr], &asked));
        let peer = Arc::default();
        let id = stage.connect("client", "server.test:7000", tells_peer(&peer));
        stage.driver.control().peer(id).write(b"early");
        stage.run();
        let early = data(b"early");
        stage.expect("server", &["opened", &early, "eof", "closed finished by the peer"]);
        assert_eq!(*peer.lock().unwrap(), Some(addr.into()));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.jobs, metrics.failed_jobs), (1, 0));
    });
}

#[test]
fn the_address_behind_one_that_refuses_is_tried_at_once() {
    everywhere(|stage| {
        for several in [false, true] {
            let (nobody, addr) = (stage.deserted(), stage.serve("server", Play::new));
            let address = match several {
                true => Address::from([nobody, addr]),
                false => Address::from("server.test:7000"),
            };
            stage.driver.set_resolver(knows(vec![nobody, addr], &Arc::default()));
            let peer = Arc::default();
            stage.connect("client", address, tells_peer(&peer));
            let begun = stage.driver.control().now();
            stage.run();
            assert_eq!(*peer.lock().unwrap(), Some(addr.into()));
            let took = stage.driver.control().now() - begun;
            stage.check(stage.is_real() || took < Duration::from_millis(250), "it waits for none");
        }
    });
}

#[test]
fn a_connect_with_a_choice_of_addresses_has_the_filter_of_its_protocol() {
    everywhere(|stage| {
        for several in [false, true] {
            let serve = || echo().filter(|| Some(Box::new(Toy::server())));
            let (nobody, addr) = (stage.deserted(), stage.serve("server", serve));
            let address = match several {
                true => Address::from([nobody, addr]),
                false => Address::from("server.test:7000"),
            };
            stage.driver.set_resolver(knows(vec![nobody, addr], &Arc::default()));
            let client = says(b"in secret").filter(|| Some(Box::new(Toy::client(7))));
            let client = client.data(|cx, input| {
                if input.len() == b"in secret".len() {
                    input.consume_all();
                    cx.close();
                }
                Ok(())
            });
            let who = format!("client with several: {several}");
            stage.connect(&who, address, client);
            stage.run();
            stage.expect(&who, &["opened", &data(b"in secret"), "closed finished by us"]);
        }
    });
}

#[test]
fn d1_when_every_address_fails_the_reason_has_the_error_of_each() {
    everywhere(|stage| {
        let addrs = [stage.deserted(), stage.deserted(), stage.deserted()];
        let addrs = if stage.is_real() {
            addrs
        } else {
            [1, 2, 3].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let ends = Ends::default();
        stage.connect("client", addrs, ends.noted_by(Play::new()));
        stage.run();
        let reason = ends.only();
        let refused = CloseKind::Connect(ConnectFailure::Refused);
        assert_eq!((reason.kind(), reason.by()), (refused, By::Peer));
        assert_eq!(ends.errors(), addrs.map(|addr| (addr, io::ErrorKind::ConnectionRefused)));
        let sentence = reason.to_string();
        assert!(addrs.iter().all(|addr| sentence.contains(&format!("{addr}: "))), "{sentence}");
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.connects, metrics.closes.connect), (1, 1));
    });
}

#[test]
fn d3_a_name_without_an_address_is_named_in_the_reason() {
    everywhere(|stage| {
        stage.driver.set_resolver(knows(Vec::new(), &Arc::default()));
        let cases = [
            ("unknown.test:7000", "there is no such name"),
            ("empty.test:7000", "the name has no address"),
            ("nonsense", "there is no port"),
            (":7000", "there is no host"),
        ];
        for (name, what) in cases {
            let ends = Ends::default();
            stage.connect(name, name, ends.noted_by(Play::new()));
            stage.run();
            let reason = ends.only();
            let kind = CloseKind::Connect(ConnectFailure::Name);
            assert_eq!((reason.kind(), reason.by()), (kind, By::Runtime));
            let error = reason.error().unwrap().to_string();
            assert_eq!(error.trim_start_matches(&format!("{name}: ")), what);
            assert!(error.starts_with(name), "{error}");
        }
    });
}

#[test]
fn a_resolver_that_panics_fails_its_connect_alone() {
    everywhere(|stage| {
        stage.panics();
        let panics = |_: &str, _: u16| -> io::Result<Vec<SocketAddr>> { panic!("on purpose") };
        stage.driver.set_resolver(Box::new(panics));
        let ends = Ends::default();
        stage.connect("client", "server.test:7000", ends.noted_by(Play::new()));
        let addr = stage.serve("server", Play::new);
        stage.connect("other", addr, says_all(b"hello"));
        stage.run();
        assert_eq!(ends.only().kind(), CloseKind::Connect(ConnectFailure::Name));
        let error = ends.only().error().unwrap().to_string();
        assert_eq!(error, "server.test:7000: the lookup panicked");
        stage.expect("other", &["opened", "eof", "closed finished by the peer"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.panics, metrics.failed_jobs), (1, 1));
    });
}

/// Limits of a driver whose lookups have these bounds.
fn lookups(threads: usize, queue: usize, deadline: Duration) -> DriverLimits {
    let mut limits = DriverLimits::default();
    limits.lookups = JobLimits { threads, queue, deadline };
    limits
}

/// A resolver that waits until the sender is dropped.
fn stuck() -> (Box<dyn Resolver>, mpsc::Sender<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let ended = Mutex::new(ended);
    let resolver = move |_: &str, _: u16| {
        let _ = ended.lock().unwrap().recv();
        Err(io::Error::other("never asked again"))
    };
    (Box::new(resolver), end)
}

#[test]
fn d3_a_lookup_that_hangs_disturbs_nobody_and_ends_at_its_deadline() {
    let limits = lookups(1, 1, Duration::from_millis(100));
    on_sockets(limits, |stage| {
        let (resolver, end) = stuck();
        stage.driver.set_resolver(resolver);
        let ends = Ends::default();
        stage.connect("client", "slow.test:7000", ends.noted_by(Play::new()));
        let addr = stage.serve("server", Play::new);
        stage.connect("other", addr, says_all(b"hello"));
        stage.run();
        let reason = ends.only();
        assert_eq!(reason.kind(), CloseKind::Connect(ConnectFailure::Name));
        let error = reason.error().unwrap().to_string();
        assert_eq!(error, "slow.test:7000: the lookup took too long");
        stage.expect("other", &["opened", "eof", "closed finished by the peer"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.jobs, metrics.failed_jobs), (1, 1));
        drop(end);
    });
}

#[test]
fn a_connect_that_is_too_late_for_its_lookup_knows_no_address_that_failed() {
    on_sockets(DriverLimits::default(), |stage| {
        let (resolver, end) = stuck();
        stage.driver.set_resolver(resolver);
        let ends = Ends::default();
        let mut limits = Limits::default();
        limits.connect = Duration::from_millis(50);
        stage.connect_with("client", "slow.test:7000", limits, ends.noted_by(Play::new()));
        stage.run();
        let reason = ends.only();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Connect));
        assert!(reason.error().is_none(), "{reason}");
        drop(end);
    });
}

#[test]
fn lookups_beyond_the_bound_fail_and_the_ones_below_it_wait() {
    // One thread and a queue of two: the fourth lookup is one too many.
    let limits = lookups(1, 2, Duration::from_secs(20));
    on_sockets(limits, |stage| {
        let (resolver, end) = stuck();
        stage.driver.set_resolver(resolver);
        let ends: Vec<Ends> = (0..4).map(|_| Ends::default()).collect();
        let end = Arc::new(Mutex::new(Some(end)));
        for (at, ends) in ends.iter().enumerate() {
            let (told, end) = (ends.clone(), Arc::clone(&end));
            let play = Play::new().closed(move |_, reason| {
                told.0.lock().unwrap().push(reason.clone());
                // The refused one has been told: the others need wait no longer.
                end.lock().unwrap().take();
            });
            stage.connect(&format!("client {at}"), "slow.test:7000", play);
        }
        stage.run();
        let mut said: Vec<String> =
            ends.iter().map(|ends| ends.only().error().unwrap().to_string()).collect();
        said.sort();
        let mut expected = vec!["slow.test:7000: never asked again"; 3];
        expected.push("slow.test:7000: too many lookups are waiting");
        assert_eq!(said, expected);
        assert_eq!(stage.driver.metrics().failed_jobs, 1);
    });
}

#[test]
fn the_connect_deadline_covers_the_lookup() {
    on_sockets(lookups(1, 1, Duration::from_secs(20)), |stage| {
        let (resolver, end) = stuck();
        stage.driver.set_resolver(resolver);
        let mut limits = Limits::default();
        limits.connect = Duration::from_millis(50);
        let ends = Ends::default();
        stage.connect_with("client", "slow.test:7000", limits, ends.noted_by(Play::new()));
        let begun = Instant::now();
        stage.run();
        assert_eq!(ends.only().kind(), CloseKind::TimedOut(Deadline::Connect));
        assert!(begun.elapsed() >= Duration::from_millis(50));
        drop(end);
    });
}

#[test]
fn a_connect_is_cancelled_while_its_name_is_looked_up_and_nothing_waits_for_that() {
    on_sockets(lookups(1, 1, Duration::from_secs(20)), |stage| {
        for aborts in [false, true] {
            let (resolver, end) = stuck();
            stage.driver.set_resolver(resolver);
            let ends = Ends::default();
            let id = stage.connect("client", "slow.test:7000", ends.noted_by(Play::new()));
            stage.driver.control().set_timer(
                Duration::from_millis(20),
                move |control| match aborts {
                    true => control.peer(id).abort(),
                    false => control.peer(id).close(),
                },
            );
            let begun = Instant::now();
            stage.run();
            let cancelled = CloseKind::Connect(ConnectFailure::Cancelled);
            assert_eq!(ends.only().kind(), cancelled);
            assert!(begun.elapsed() < Duration::from_secs(10), "a run waits for no lookup");
            drop(end);
        }
    });
}

#[test]
fn a_name_is_looked_up_where_no_place_is_left_for_nobody() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1;
    everywhere_with(limits, |stage| {
        let asked = Arc::default();
        let addr = stage.deserted();
        stage.driver.set_resolver(knows(vec![addr], &asked));
        let (first, second) = (Ends::default(), Ends::default());
        stage.connect("first", "server.test:7000", first.noted_by(Play::new()));
        stage.connect("second", "server.test:7000", second.noted_by(Play::new()));
        stage.run();
        assert_eq!(first.only().kind(), CloseKind::Connect(ConnectFailure::Refused));
        assert_eq!(second.only().kind(), CloseKind::Connect(ConnectFailure::Limit));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn d1_behind_a_black_hole_the_next_address_is_tried_after_250_ms() {
    if !has_silence() {
        return;
    }
    on_sockets(DriverLimits::default(), |stage| {
        let hole = silent();
        let addr = stage.serve("server", Play::new);
        let peer = Arc::default();
        let begun = Instant::now();
        stage.connect("client", [hole.addr, addr], tells_peer(&peer));
        stage.run();
        assert_eq!(*peer.lock().unwrap(), Some(addr.into()));
        assert!(begun.elapsed() >= Duration::from_millis(250), "the first had its time");
    });
}

#[test]
fn d1_of_addresses_that_never_answer_each_is_named_at_the_deadline() {
    if !has_silence() {
        return;
    }
    on_sockets(DriverLimits::default(), |stage| {
        let (hole, other, nobody) = (silent(), silent(), stage.deserted());
        let mut limits = Limits::default();
        limits.connect = Duration::from_millis(600);
        let ends = Ends::default();
        let play = ends.noted_by(Play::new());
        stage.connect_with("client", [hole.addr, nobody, other.addr], limits, play);
        stage.run();
        let reason = ends.only();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Connect));
        let reason = ends.only();
        let said: &AddressErrors = reason.error().unwrap().downcast_ref().unwrap();
        let silent = said.iter().filter(|(_, error)| error.to_string() == "no answer").count();
        assert_eq!(silent, 2, "{said}");
        let mut errors = ends.errors();
        errors.sort();
        let mut expected = [
            (hole.addr, io::ErrorKind::TimedOut),
            (nobody, io::ErrorKind::ConnectionRefused),
            (other.addr, io::ErrorKind::TimedOut),
        ];
        expected.sort();
        assert_eq!(errors, expected);
    });
}

#[test]
fn d1_one_address_that_never_answers_is_a_time_out_and_no_error_of_the_system() {
    if !has_silence() {
        return;
    }
    on_sockets(DriverLimits::default(), |stage| {
        let hole = silent();
        let mut limits = Limits::default();
        limits.connect = Duration::from_millis(100);
        let ends = Ends::default();
        stage.connect_with("client", hole.addr, limits, ends.noted_by(Play::new()));
        stage.run();
        let reason = ends.only();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Connect));
        assert_eq!(reason.by(), By::Runtime);
        assert!(reason.error().is_none(), "{reason}");
    });
}

#[test]
fn a_race_is_cancelled_with_its_connection() {
    if !has_silence() {
        return;
    }
    let run = |stage: &mut Stage<'_>| {
        let (hole, other) = (silent(), silent());
        let ends = Ends::default();
        let mut limits = Limits::default();
        limits.connect = Duration::from_secs(1);
        let play = ends.noted_by(Play::new());
        let id = stage.connect_with("client", [hole.addr, other.addr], limits, play);
        stage.driver.control().set_timer(Duration::from_millis(20), move |control| {
            control.peer(id).close();
        });
        let begun = Instant::now();
        stage.run();
        assert_eq!(ends.only().kind(), CloseKind::Connect(ConnectFailure::Cancelled));
        assert!(begun.elapsed() < Duration::from_millis(900), "nothing waits for the losers");
    };
    on_sockets(DriverLimits::default(), run);
}

#[test]
fn the_system_looks_localhost_up() {
    on_sockets(DriverLimits::default(), |stage| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let peer = Arc::default();
        stage.connect("client", ("localhost", addr.port()), tells_peer(&peer));
        let server = std::thread::spawn(move || listener.accept().unwrap());
        stage.run();
        server.join().unwrap();
        assert_eq!(*peer.lock().unwrap(), Some(addr.into()));
    });
}

#[test]
fn d3_an_echo_goes_on_for_as_long_as_a_resolver_sleeps() {
    on_sockets(DriverLimits::default(), |stage| {
        let (resolver, end) = stuck();
        stage.driver.set_resolver(resolver);
        // It wakes only when the echo has gone its thousand rounds.
        let mut end = Some(end);
        let mut rounds = 0;
        let pinger = Play::new()
            .opened(|cx| {
                cx.write(b"ping");
                Ok(())
            })
            .data(move |cx, input| {
                if input.len() == 4 {
                    input.consume_all();
                    rounds += 1;
                    if rounds == 1000 {
                        end.take();
                        cx.close();
                    } else {
                        cx.write(b"ping");
                    }
                }
                Ok(())
            });
        let ends = Ends::default();
        stage.connect("client", "slow.test:7000", ends.noted_by(Play::new()));
        let addr = stage.serve("server", echo);
        stage.connect("pinger", addr, pinger);
        stage.run();
        let error = ends.only().error().unwrap().to_string();
        assert_eq!(error, "slow.test:7000: never asked again");
        let told = stage.trace.of("pinger");
        assert!(told.iter().any(|line| line.starts_with("data 4000 bytes")), "{told:?}");
    });
}

/// What a driver that runs says of a name.
const REFUSED: &str = "a running driver does not wait for the lookup of a name";

#[test]
fn a_running_driver_takes_no_name_to_listen_on_where_it_would_have_to_wait() {
    everywhere(|stage| {
        let judge = |control: &mut Control<'_>| {
            let error = control.listen("localhost:0", |_| Some(Play::new())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(error.to_string(), format!("cannot listen on localhost:0: {REFUSED}"));
            assert!(format!("{error:?}").contains("\nhint: give an IP address, or use Handle"));
            let error = control.bind("localhost:0", Node::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(error.to_string(), format!("cannot bind to localhost:0: {REFUSED}"));
            // What has nothing to look up is as before the run.
            let listener = control.listen("127.0.0.1:0", |_| Some(Play::new())).unwrap();
            control.stop_listening(listener);
            let error = control.listen("nonsense", |_| Some(Play::new())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        };
        let addr = stage.serve("server", Play::new);
        let client = Play::new().opened(move |cx| {
            judge(&mut cx.driver());
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let closure = move |control: &mut Control<'_>| {
            judge(control);
            count.fetch_add(1, Ordering::Relaxed);
        };
        stage.driver.handle().call(closure.clone()).unwrap();
        stage.driver.control().set_timer(Duration::from_millis(1), closure);
        stage.run();
        assert_eq!(done.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_driver_that_does_not_run_yet_or_any_more_looks_a_name_up_at_once() {
    on_sockets(DriverLimits::default(), |stage| {
        for _ in 0..2 {
            let mut control = stage.driver.control();
            let listener = control.listen("localhost:0", |_| Some(Play::new())).unwrap();
            assert!(!control.addresses(listener).is_empty());
            control.stop_listening(listener);
            let id = control.bind("localhost:0", Node::new()).unwrap();
            control.peer(id).close();
            drop(control);
            stage.run();
        }
        assert_eq!(stage.driver.metrics().jobs, 0);
    });
}

#[test]
fn a_handle_listens_on_a_name_that_another_thread_looks_up() {
    everywhere(|stage| {
        let handle = stage.driver.handle();
        let (addrs, told) = (Arc::new(Mutex::new(Vec::new())), stage.trace.clone());
        let found = Arc::clone(&addrs);
        let factory = move |incoming: &lariat::Incoming| {
            Some(Last::new(told.wrap("server", Play::new()), incoming))
        };
        handle
            .listen("localhost:0", factory, move |control, listener| {
                let listener = listener.unwrap();
                *found.lock().unwrap() = control.addresses(listener);
                let addr = control.addresses(listener)[0];
                control.connect(addr, says_all(b""));
            })
            .unwrap();
        stage.run();
        let addrs = addrs.lock().unwrap();
        assert!(addrs.iter().all(|addr| addr.ip().unwrap().is_loopback()) && !addrs.is_empty());
        stage.expect("server", &["opened", "eof", "closed finished by the peer"]);
        assert_eq!(stage.driver.metrics().jobs, 1);
    });
}

#[test]
fn d3_a_lookup_to_listen_on_waits_for_its_turn_and_disturbs_nobody() {
    on_sockets(lookups(1, 1, Duration::from_secs(1)), |stage| {
        let (end, ended) = mpsc::channel::<()>();
        let ended = Mutex::new(ended);
        let handle = stage.driver.handle();
        let error = Arc::new(Mutex::new(None));
        let told = Arc::clone(&error);
        // The lookup of the connect has the only thread: the driver is asked to listen from there.
        stage.driver.set_resolver(Box::new(move |_: &str, _: u16| {
            let told = Arc::clone(&told);
            let done = move |_: &mut Control<'_>, result: Result<ListenerId, Error>| {
                *told.lock().unwrap() = result.err();
            };
            handle.listen("localhost:0", |_| Some(Play::new()), done).unwrap();
            let _ = ended.lock().unwrap().recv();
            Err(io::Error::other("never asked again"))
        }));
        let ends = Ends::default();
        stage.connect("client", "slow.test:7000", ends.noted_by(Play::new()));
        let addr = stage.serve("server", Play::new);
        stage.connect("other", addr, says_all(b"hello"));
        stage.run();
        stage.expect("other", &["opened", "eof", "closed finished by the peer"]);
        let error = error.lock().unwrap().take().expect("nobody looked it up in time");
        let sentence = error.to_string();
        assert_eq!(sentence, "cannot listen on localhost:0: the lookup took too long");
        drop(end);
    });
}
