//! Sockets of the standard library, taken over by the drivers that have some.

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lariat::sim::Sim;
use lariat::{
    CloseKind, ConnectFailure, ConnectOptions, Driver, DriverLimits, ErrorKind, Input,
    ListenOptions, Op, Outcome, Protocol, Refused,
};
use socket2::{Domain, Socket, Type};

use crate::kit::{Play, data, echo, on_sockets, says};
use crate::toy::Toy;

/// The two ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn unconnected() -> TcpStream {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().into()
}

#[test]
fn an_adopted_stream_is_served_from_the_bytes_that_came_before() {
    on_sockets(DriverLimits::default(), |stage| {
        let (mut client, stream) = pair();
        let addr = client.local_addr().unwrap();
        client.write_all(b"before").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.peek(&mut [0; 6]).unwrap(), 6);
        let own = stream.local_addr().unwrap();
        let server = echo().opened(move |cx| {
            assert_eq!((cx.peer_addr(), cx.local_addr()), (addr.into(), Some(own.into())));
            assert_eq!(cx.listener(), None);
            Ok(())
        });
        let server = stage.trace.wrap("server", server);
        let options = ConnectOptions::default();
        stage.driver.control().adopt_stream(stream, options, server).unwrap();
        stage.run();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "before");
        let all = data(b"before");
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.accepted, metrics.connects), (1, 0));
    });
}

#[test]
fn an_adopted_stream_is_opened_although_its_silence_has_lasted_too_long_already() {
    on_sockets(DriverLimits::default(), |stage| {
        let (_client, stream) = pair();
        let mut options = ConnectOptions::default();
        options.limits.idle = Some(Duration::from_millis(20));
        // The client does not close.
        options.limits.linger_idle = Duration::from_millis(20);
        let server = stage.trace.wrap("server", Play::new());
        stage.driver.control().adopt_stream(stream, options, server).unwrap();
        // On threads the connection is there from now on.
        thread::sleep(Duration::from_millis(60));
        stage.run();
        stage.expect("server", &["opened", "closed timed out (idle) by the runtime"]);
    });
}

#[test]
fn an_adopted_stream_waits_for_input_like_any_other() {
    on_sockets(DriverLimits::default(), |stage| {
        let (mut client, stream) = pair();
        // A time-out that is left on it would be taken for the end of the wait.
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        stream.set_nonblocking(true).unwrap();
        let peer = thread::spawn(move || {
            let mut buffer = [0; 5];
            client.read_exact(&mut buffer).unwrap();
            // Long enough for what does not sleep to show.
            thread::sleep(Duration::from_millis(50));
            client.write_all(&buffer).unwrap();
            client.read(&mut buffer).unwrap()
        });
        let server = says(b"hello").data(|cx, input| {
            input.consume_all();
            cx.close();
            Ok(())
        });
        let server = stage.trace.wrap("server", server);
        let options = ConnectOptions::default();
        stage.driver.control().adopt_stream(stream, options, server).unwrap();
        stage.run();
        assert_eq!(peer.join().unwrap(), 0);
        stage.expect("server", &["opened", &data(b"hello"), "closed finished by us"]);
        let reads = stage.driver.metrics().reads;
        stage.check(reads < 10, &format!("it slept between the reads: {reads}"));
    });
}

#[test]
fn a_callback_hands_a_stream_over_and_writes_to_it_at_once() {
    on_sockets(DriverLimits::default(), |stage| {
        let (mut client, stream) = pair();
        let trace = stage.trace.clone();
        let mut stream = Some(stream);
        let parent = Play::new().opened(move |cx| {
            let options = ConnectOptions::default();
            let child = trace.wrap("child", Play::new());
            let child = cx.driver().adopt_stream(stream.take().unwrap(), options, child)?;
            cx.peer(child).write(b"at once");
            cx.peer(child).close();
            cx.close();
            Ok(())
        });
        let addr = stage.serve("server", Play::new);
        stage.connect("parent", addr, parent);
        let peer = thread::spawn(move || {
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            said
        });
        stage.run();
        assert_eq!(peer.join().unwrap(), "at once");
        let last = stage.trace.of("child").pop().unwrap();
        stage.check(last == "closed finished by us", "the child was closed");
        stage.expect("parent", &["opened", "closed finished by us"]);
    });
}

#[test]
fn an_adopted_stream_has_the_filter_of_its_protocol() {
    on_sockets(DriverLimits::default(), |stage| {
        let (client, stream) = pair();
        for (who, end, filter) in [("client", client, false), ("server", stream, true)] {
            let play = if filter { echo() } else { says(b"in secret") };
            let play = play.filter(move || {
                let toy = if filter { Toy::server() } else { Toy::client(7) };
                Some(Box::new(toy))
            });
            let play = play.eof(|cx, _| {
                cx.close();
                Ok(())
            });
            let play = if filter { play } else { play.data(closes_after_all) };
            let play = stage.trace.wrap(who, play);
            stage.driver.control().adopt_stream(end, ConnectOptions::default(), play).unwrap();
        }
        stage.run();
        let all = data(b"in secret");
        stage.expect("client", &["opened", &all, "closed finished by us"]);
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
    });
}

fn closes_after_all(cx: &mut lariat::Context<'_>, input: &mut Input<'_>) -> Outcome {
    if input.len() == b"in secret".len() {
        input.consume_all();
        cx.close();
    }
    Ok(())
}

#[test]
fn a_stream_above_the_connection_limit_is_closed_and_says_so() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 1;
    on_sockets(limits, |stage| {
        let mut clients = Vec::new();
        for who in ["first", "second"] {
            let (client, stream) = pair();
            clients.push(client);
            let play = Box::new(stage.trace.wrap(who, Play::new()));
            stage.driver.control().adopt_stream(stream, ConnectOptions::default(), play).unwrap();
        }
        let (first, mut second) = (clients.remove(0), clients.remove(0));
        let peer = thread::spawn(move || {
            let end = second.read(&mut [0]);
            drop(first);
            end.unwrap_or(0)
        });
        stage.run();
        assert_eq!(peer.join().unwrap(), 0);
        stage.expect("first", &["opened", "eof", "closed finished by the peer"]);
        let limit = "closed connect failed, too many connections by the runtime";
        stage.expect("second", &[limit]);
    });
}

#[test]
fn a_driver_that_stops_adopts_nothing() {
    on_sockets(DriverLimits::default(), |stage| {
        let (client, stream) = pair();
        let mut sockets = Some((stream, TcpListener::bind("127.0.0.1:0").unwrap()));
        let errors = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&errors);
        let asks = Play::new()
            .opened(|cx| {
                cx.driver().shutdown();
                Ok(())
            })
            .stopping(move |cx| {
                let (stream, listener) = sockets.take().unwrap();
                let stream = cx.driver().adopt_stream(stream, ConnectOptions::default(), Silent);
                let options = ListenOptions::default();
                let listener = cx.driver().adopt_listener(listener, options, |_| Some(Silent));
                let errors = [stream.unwrap_err(), listener.unwrap_err()];
                *told.lock().unwrap() = Vec::from(errors.map(lariat::Error::from));
                cx.abort();
                Ok(())
            });
        let (peer, asked) = pair();
        let asks = stage.trace.wrap("asks", asks);
        stage.driver.control().adopt_stream(asked, ConnectOptions::default(), asks).unwrap();
        stage.run();
        for error in errors.lock().unwrap().iter() {
            assert_eq!((error.kind(), error.op()), (ErrorKind::Stopped, Op::Adopt));
            assert_eq!(error.to_string(), "cannot adopt the socket: it has ended");
        }
        assert_eq!(errors.lock().unwrap().len(), 2);
        drop((client, peer));
    });
}

#[test]
fn a_stream_that_was_handed_over_before_the_shutdown_is_closed_by_it() {
    on_sockets(DriverLimits::default(), |stage| {
        let (mut client, stream) = pair();
        let play = stage.trace.wrap("late", Play::new());
        stage.driver.control().adopt_stream(stream, ConnectOptions::default(), play).unwrap();
        stage.driver.handle().shutdown();
        let peer = thread::spawn(move || client.read(&mut [0]).unwrap_or(0));
        stage.run();
        assert_eq!(peer.join().unwrap(), 0);
        let lines = stage.trace.of("late");
        stage.check(lines.last().unwrap().starts_with("closed shut down"), "it is told");
    });
}

#[test]
fn an_adopted_listener_serves_the_clients_in_its_queue_and_those_to_come() {
    on_sockets(DriverLimits::default(), |stage| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let mut waiting = TcpStream::connect(addr).unwrap();
        waiting.write_all(b"waits").unwrap();
        let (trace, served) = (stage.trace.clone(), AtomicUsize::new(0));
        let factory = move |incoming: &lariat::Incoming| {
            let listener = incoming.listener();
            let number = served.fetch_add(1, Ordering::Relaxed);
            let play = echo().opened(move |cx| {
                if number == 1 {
                    cx.driver().stop_listening(listener);
                }
                Ok(())
            });
            Some(trace.wrap(["waiting", "later"][number], play))
        };
        let options = ListenOptions::default();
        let listener = stage.driver.control().adopt_listener(socket, options, factory).unwrap();
        assert_eq!(stage.driver.addresses(listener), [addr]);
        let clients = thread::spawn(move || {
            let mut answer = [0; 5];
            waiting.read_exact(&mut answer).unwrap();
            let mut later = TcpStream::connect(addr).unwrap();
            later.write_all(&answer).unwrap();
            later.read_exact(&mut answer).unwrap();
            answer
        });
        stage.run();
        assert_eq!(&clients.join().unwrap(), b"waits");
        for who in ["waiting", "later"] {
            stage.expect(who, &["opened", &data(b"waits"), "eof", "closed finished by the peer"]);
        }
    });
}

#[test]
fn a_socket_of_the_wrong_kind_is_refused_and_closed() {
    on_sockets(DriverLimits::default(), |stage| {
        stage.run();
        let (datagrams, other) = UnixDatagram::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let streams: [(OwnedFd, &str); 4] = [
            (unconnected().into(), "the stream is not connected"),
            (listening.into(), LISTENS),
            (datagrams.into(), "it is no stream"),
            (file.into(), "it is no socket"),
        ];
        for (stream, sentence) in streams {
            let options = ConnectOptions::default();
            refused(stage.driver.control().adopt_stream(stream, options, Silent), sentence);
        }
        assert!(other.send(b"x").is_err(), "it was dropped with the error");
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut listeners: Vec<(OwnedFd, &str)> = vec![(datagrams.into(), "it is no stream")];
        if cfg!(target_os = "linux") {
            listeners.push((unconnected().into(), "the socket does not listen"));
        }
        for (listener, sentence) in listeners {
            let (options, factory) = (ListenOptions::default(), |_: &_| None::<Silent>);
            refused(stage.driver.control().adopt_listener(listener, options, factory), sentence);
        }
    });
}

/// What is said of a listener that is given as a stream.
const LISTENS: &str = match cfg!(target_os = "linux") {
    true => "it listens; adopt_listener takes it",
    false => "the stream is not connected",
};

#[test]
fn a_socket_that_is_refused_comes_back_as_it_was() {
    on_sockets(DriverLimits::default(), |stage| {
        stage.run();
        let (mut client, stream) = pair();
        client.write_all(b"kept").unwrap();
        let mut options = ConnectOptions::default();
        options.send_buffer = Some(0);
        let refused = stage.driver.control().adopt_stream(stream, options, Silent).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::InvalidLimits);
        let mut stream = TcpStream::from(refused.into_payload());
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"kept");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut options = ListenOptions::default();
        options.send_buffer = Some(0);
        let factory = |_: &_| None::<Silent>;
        let refused = stage.driver.control().adopt_listener(listener, options, factory);
        let listener = TcpListener::from(refused.unwrap_err().into_payload());
        let client = TcpStream::connect(addr).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());

        // What one call refuses another takes.
        let options = ConnectOptions::default();
        let refused = stage.driver.control().adopt_stream(listener, options, Silent).unwrap_err();
        let (options, factory) = (ListenOptions::default(), |_: &_| None::<Silent>);
        let listener = refused.into_payload();
        let listener = stage.driver.control().adopt_listener(listener, options, factory).unwrap();
        stage.driver.control().stop_listening(listener);
        stage.run();
    });
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Refused<OwnedFd>>, sentence: &str) {
    let error = lariat::Error::from(result.unwrap_err());
    assert_eq!((error.kind(), error.op()), (ErrorKind::InvalidSocket, Op::Adopt));
    assert_eq!(error.to_string(), format!("cannot adopt the socket: {sentence}"));
    let error: std::io::Error = error.into();
    assert_eq!(error.kind(), IoErrorKind::InvalidInput);
}

#[test]
fn a_protocol_that_may_not_leave_its_thread_adopts_on_the_reactor_alone() {
    on_sockets(DriverLimits::default(), |stage| {
        let (mut client, stream) = pair();
        let kinds = Arc::new(Mutex::new(None));
        let told = Arc::clone(&kinds);
        let asked = stage.driver.handle().call(move |control| {
            let local = Play::new()
                .opened(|cx| {
                    cx.close();
                    Ok(())
                })
                .closed(move |_, reason| *told.lock().unwrap() = Some(reason.kind()));
            control.adopt_stream_local(stream, ConnectOptions::default(), local).unwrap();
        });
        assert!(asked.is_ok());
        let peer = thread::spawn(move || client.read(&mut [0]).unwrap_or(0));
        stage.run();
        assert_eq!(peer.join().unwrap(), 0);
        let unsupported = CloseKind::Connect(ConnectFailure::Unsupported);
        let expected = if stage.has_threads() { unsupported } else { CloseKind::Finished };
        assert_eq!(*kinds.lock().unwrap(), Some(expected));
    });
}

#[test]
fn the_simulator_has_no_sockets_of_the_system() {
    let mut sim = Sim::new(1);
    let driver: &mut dyn Driver = &mut sim;
    let (_client, stream) = pair();
    let stream = driver.control().adopt_stream(stream, ConnectOptions::default(), Silent);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let factory = |_: &_| Some(Silent);
    let listener = driver.control().adopt_listener(socket, ListenOptions::default(), factory);
    for refused in [stream.unwrap_err(), listener.unwrap_err()] {
        let error = refused.error();
        assert_eq!((error.kind(), error.op()), (ErrorKind::Unsupported, Op::Adopt));
        let sentence = "cannot adopt the socket: this driver has no sockets of the system";
        assert_eq!(error.to_string(), sentence);
    }
}

struct Silent;

impl Protocol for Silent {
    fn data(&mut self, _: &mut lariat::Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}
