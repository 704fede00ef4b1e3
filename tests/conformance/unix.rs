//! Unix sockets: what TCP does, at a path or an abstract name.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lariat::{
    Address, ConnectOptions, Control, DriverLimits, Endpoint, ErrorKind, Incoming, IntoAddress,
    Keepalive, Limits, ListenOptions, ListenerId, Op,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::handles::Told;
use crate::kit::{Last, Play, Stage, data, echo, everywhere, on_sockets, says_all};

/// A path of its own for each run of a scenario, removed at its end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Place {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lariat-unix-{}-{number}", std::process::id());
        Place(std::env::temp_dir().join(name))
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        lariat::UnixName::from_pathname(&self.0).unwrap().into()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves one connection at `addr`.
fn serve(stage: &mut Stage<'_>, addr: impl IntoAddress, make: fn() -> Play) -> ListenerId {
    let trace = stage.trace.clone();
    let factory = move |incoming: &Incoming| {
        assert!(incoming.peer().unix().is_some(), "{}", incoming.peer());
        Some(Last::new(trace.wrap("server", make()), incoming))
    };
    stage.driver.control().listen(addr, factory).unwrap()
}

#[test]
fn a_client_is_served_at_a_path_and_each_end_knows_its_address() {
    everywhere(|stage| {
        let (place, told) = (Place::new(), Told::default());
        let tells = told.clone();
        let trace = stage.trace.clone();
        let expected = place.endpoint();
        let factory = move |incoming: &Incoming| {
            assert_eq!(incoming.local_addr(), Some(expected));
            let tells = tells.clone();
            let play = echo().opened(move |cx| {
                let unnamed = cx.peer_addr().unix().is_some_and(|name| name.is_unnamed());
                tells.tell(format!("{}", unnamed && cx.local_addr() == Some(expected)));
                Ok(())
            });
            Some(Last::new(trace.wrap("server", play), incoming))
        };
        let listener = stage.driver.control().listen(&place.0, factory).unwrap();
        assert_eq!(stage.driver.addresses(listener), [place.endpoint()]);
        let client = says_all(b"over a path").data(move |cx, input| {
            assert_eq!(cx.peer_addr(), expected);
            if input.len() == 11 {
                input.consume_all();
            }
            Ok(())
        });
        stage.connect("client", Address::from(place.0.as_path()), client);
        stage.run();
        told.expect(stage, &["true"]);
        let all = data(b"over a path");
        stage.expect("client", &["opened", &all, "eof", "closed finished by the peer"]);
        stage.check(!place.0.exists(), "the file goes with its socket");
    });
}

#[test]
fn a_megabyte_each_way_is_whole_although_the_sockets_hold_less() {
    const SIZE: usize = 1_000_000;
    everywhere(|stage| {
        let (place, told) = (Place::new(), Told::default());
        serve(stage, &place.0, echo);
        let (tells, mut left) = (told.clone(), SIZE);
        let client = Play::new().opened(|cx| {
            let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
            cx.write_bytes(bytes);
            cx.shutdown_write();
            Ok(())
        });
        let client = client.data(move |_, input| {
            for byte in input.iter() {
                assert_eq!(*byte, ((SIZE - left) % 251) as u8);
                left -= 1;
            }
            input.consume_all();
            Ok(())
        });
        let client = client.closed(move |_, reason| tells.tell(format!("{}", reason.bytes_in())));
        stage.connect("client", place.0.as_path(), client);
        stage.run();
        told.expect(stage, &["1000000"]);
    });
}

#[test]
fn a_path_at_which_nobody_listens_refuses() {
    everywhere(|stage| {
        let place = Place::new();
        stage.connect("client", place.0.as_path(), Play::new());
        stage.run();
        stage.expect("client", &["closed connect refused by the peer"]);
        assert_eq!(stage.driver.metrics().closes.connect, 1);
    });
}

#[test]
fn a_path_that_is_too_long_is_an_error_that_says_so() {
    everywhere(|stage| {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let error = stage.driver.control().listen(&path, |_| Some(echo())).unwrap_err();
        assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidAddress, Op::Listen));
        assert!(error.to_string().contains("205 bytes"), "{error}");
        stage.connect("client", &path, Play::new());
        stage.run();
        stage.check(stage.trace.of("client").len() == 1, "the client has its reason");
    });
}

#[test]
fn an_abort_is_the_end_to_the_peer_of_a_unix_socket() {
    everywhere(|stage| {
        let place = Place::new();
        serve(stage, &place.0, || {
            Play::new().data(|cx, input| {
                input.consume_all();
                cx.abort();
                Ok(())
            })
        });
        stage.connect("client", place.0.as_path(), crate::kit::says(b"hello"));
        stage.run();
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
    });
}

#[test]
fn a_listener_at_a_path_moves_within_one_callback() {
    everywhere(|stage| {
        let place = Place::new();
        let (first, told) = (serve(stage, &place.0, echo), Told::default());
        let (path, tells) = (place.0.clone(), told.clone());
        let moves = move |control: &mut Control<'_>| {
            let taken = control.listen(&path, |_| Some(echo())).unwrap_err();
            tells.tell(format!("{:?}", taken.kind()));
            control.stop_listening(first);
            let again = control.listen(&path, |_| Some(echo())).unwrap();
            tells.tell(format!("{:?}", control.addresses(again).len()));
            control.stop_listening(again);
        };
        stage.driver.handle().call(moves).unwrap();
        stage.run();
        told.expect(stage, &["AddressInUse", "1"]);
        stage.check(!place.0.exists(), "no file is left");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_is_served_and_leaves_nothing() {
    everywhere(|stage| {
        let name = Place::new().0.file_name().unwrap().to_str().unwrap().to_owned();
        let text = format!("unix:@{name}");
        let listener = serve(stage, &text, echo);
        assert_eq!(stage.driver.addresses(listener)[0].to_string(), format!("@{name}"));
        stage.connect("client", &text, says_all(b"abstract"));
        stage.run();
        let all = data(b"abstract");
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        stage.check(!Path::new(&name).exists(), "it is no file");
    });
}

/// What both ends of a connection at a path know of each other; on sockets this process is both.
#[cfg(target_os = "linux")]
#[test]
fn each_end_knows_the_process_of_the_other() {
    everywhere(|stage| {
        let (place, told) = (Place::new(), Told::default());
        let expected = match stage.is_real() {
            true => lariat::PeerCredentials::new(
                std::process::id(),
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            false => lariat::PeerCredentials::new(1000, 1000, 1000),
        };
        let (trace, tells) = (stage.trace.clone(), told.clone());
        let factory = move |incoming: &Incoming| {
            let (tells, known) = (tells.clone(), incoming.peer_credentials());
            let play = echo().opened(move |cx| {
                let same = [known, cx.peer_credentials()] == [Some(expected); 2];
                tells.tell(format!("server: {same}"));
                Ok(())
            });
            Some(Last::new(trace.wrap("server", play), incoming))
        };
        stage.driver.control().listen(&place.0, factory).unwrap();
        let tells = told.clone();
        let client = says_all(b"who am I").closed(move |_, _| tells.tell("closed".to_owned()));
        let tells = told.clone();
        let client = client.data(move |cx, input| {
            if input.len() == 8 {
                tells.tell(format!("client: {}", cx.peer_credentials() == Some(expected)));
                input.consume_all();
            }
            Ok(())
        });
        stage.connect("client", place.0.as_path(), client);
        stage.run();
        told.expect(stage, &["server: true", "client: true", "closed"]);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_stream_of_tcp_has_no_process_at_its_other_end() {
    everywhere(|stage| {
        let told = Told::default();
        let tells = told.clone();
        let addr = stage.serve("server", move || {
            let tells = tells.clone();
            echo().opened(move |cx| {
                tells.tell(format!("{:?}", cx.peer_credentials()));
                Ok(())
            })
        });
        stage.connect("client", addr, says_all(b"who am I"));
        stage.run();
        told.expect(stage, &["None"]);
    });
}

#[test]
fn options_that_a_kind_of_socket_does_not_have_are_errors() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        let mut wrong: Vec<(Address, ListenOptions, &str)> = Vec::new();
        let mut options = ListenOptions::default();
        options.reuse_port = true;
        wrong.push((Address::from(&place.0), options, "reuse_port"));
        let mut options = ListenOptions::default();
        options.keepalive = Some(Keepalive::default());
        wrong.push((Address::from(&place.0), options, "keepalive"));
        let mut options = ListenOptions::default();
        options.device = Some("lo".to_owned());
        wrong.push((Address::from(&place.0), options, "device"));
        let mut options = ListenOptions::default();
        options.ttl = Some(9);
        wrong.push((Address::from(&place.0), options, "ttl"));
        let mut options = ListenOptions::default();
        options.tos = Some(0xB8);
        wrong.push((Address::from(&place.0), options, "tos"));
        let mut options = ListenOptions::default();
        options.mode = Some(0o600);
        wrong.push((Address::from("127.0.0.1:0"), options, "mode"));
        for (addr, options, named) in wrong {
            let made = stage.driver.control().listen_with(addr, options, |_| Some(echo()));
            let error = made.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidLimits);
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(!place.0.exists(), "nothing is left of them");
        let mut options = ConnectOptions::default();
        options.keepalive = Some(Keepalive::default());
        let client = stage.trace.wrap("client", Play::new());
        let _listening = UnixListener::bind(&place.0).unwrap();
        stage.driver.control().connect_with(place.0.as_path(), options, client).unwrap();
        stage.run();
        let rejected = "closed connect failed, an option was rejected by the runtime";
        stage.expect("client", &[rejected]);
    });
}

#[test]
fn a_full_backlog_refuses_at_once_or_lets_a_thread_wait_until_its_deadline() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        let listening = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listening.bind(&SockAddr::unix(&place.0).unwrap()).unwrap();
        listening.listen(1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            if socket.connect(&SockAddr::unix(&place.0).unwrap()).is_err() {
                break;
            }
            waiting.push(socket);
        }
        let mut limits = Limits::default();
        limits.connect = Duration::from_millis(100);
        stage.connect_with("client", place.0.as_path(), limits, Play::new());
        stage.run();
        let end = match stage.has_threads() {
            true => "closed timed out (connect) by the runtime",
            false => "closed connect refused by the peer",
        };
        stage.expect("client", &[end]);
    });
}

#[test]
fn the_file_has_its_mode_before_anybody_can_connect() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        let mut options = ListenOptions::default();
        options.mode = Some(0o640);
        let mut control = stage.driver.control();
        let listener = control.listen_with(&place.0, options, |_| Some(echo())).unwrap();
        let mode = std::fs::metadata(&place.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        control.stop_listening(listener);
        drop(control);
        stage.run();
    });
}

#[test]
fn one_of_a_pair_and_a_listener_of_std_are_adopted() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        let (one, other) = UnixStream::pair().unwrap();
        let options = ConnectOptions::default;
        let hello = stage.trace.wrap("one", says_all(b"to the other"));
        stage.driver.control().adopt_stream(one, options(), hello).unwrap();
        let echo_there = stage.trace.wrap("other", echo());
        stage.driver.control().adopt_stream(other, options(), echo_there).unwrap();
        let socket = UnixListener::bind(&place.0).unwrap();
        let trace = stage.trace.clone();
        let factory =
            move |incoming: &Incoming| Some(Last::new(trace.wrap("server", echo()), incoming));
        let mut control = stage.driver.control();
        let listener = control.adopt_listener(socket, ListenOptions::default(), factory).unwrap();
        assert_eq!(control.addresses(listener), [place.endpoint()]);
        drop(control);
        stage.connect("client", place.0.as_path(), says_all(b"to the server"));
        stage.run();
        let echoed = data(b"to the other");
        stage.expect("one", &["opened", &echoed, "eof", "closed finished by the peer"]);
        let all = data(b"to the server");
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        assert!(place.0.exists(), "its file is not ours");
    });
}

#[test]
fn a_link_at_the_path_is_no_file_of_a_server_that_is_gone() {
    on_sockets(DriverLimits::default(), |stage| {
        let (left, link) = (Place::new(), Place::new());
        // Its file stays.
        drop(UnixListener::bind(&left.0).unwrap());
        std::os::unix::fs::symlink(&left.0, &link.0).unwrap();
        let listen = |stage: &mut Stage<'_>, place: &Place| {
            stage.driver.control().listen(place.0.as_path(), |_| None::<Play>)
        };
        let error = listen(stage, &link).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(link.0.is_symlink() && left.0.exists(), "neither is touched");
        listen(stage, &left).unwrap();
        stage.driver.handle().shutdown();
        stage.run();
    });
}

/// Linux lets one more wait than it is told.
#[cfg(target_os = "linux")]
#[test]
fn as_many_newcomers_wait_at_a_path_as_the_backlog_says() {
    for backlog in [1, 2, 7] {
        on_sockets(DriverLimits::default(), |stage| {
            let place = Place::new();
            let mut options = ListenOptions::default();
            options.backlog = backlog;
            let mut control = stage.driver.control();
            control.listen_with(place.0.as_path(), options, |_| None::<Play>).unwrap();
            drop(control);
            // Nobody accepts before the driver runs.
            let mut waiting = Vec::new();
            let refused = loop {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                match socket.connect(&SockAddr::unix(&place.0).unwrap()) {
                    Ok(()) if waiting.len() < 100 => waiting.push(socket),
                    other => break other.err(),
                }
            };
            assert_eq!(refused.map(|e| e.kind()), Some(std::io::ErrorKind::WouldBlock));
            assert_eq!(waiting.len(), backlog as usize + 1);
            stage.driver.handle().shutdown();
            stage.run();
        });
    }
}
