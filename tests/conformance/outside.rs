//! What is asked of a driver before and between its runs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lariat::{CloseKind, ConnectFailure, Driver, DriverLimits, ErrorKind, Limits, Note};
use socket2::{Domain, Socket, Type};

use crate::kit::{Play, Stage, data, echo, everywhere, on_sockets};

/// Closes as soon as it is open.
fn closing() -> Play {
    Play::new().opened(|cx| {
        cx.close();
        Ok(())
    })
}

#[test]
fn requests_for_a_connection_take_effect_in_order_when_the_driver_runs() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let id = stage.connect("client", addr, Play::new());
        let mut control = stage.driver.control();
        assert!(control.peer(id).is_open());
        control.peer(id).write(b"one ");
        control.peer(id).write_bytes(&b"two "[..]);
        control.peer(id).push(&b"three "[..]);
        control.push_all(&[id, id], &b"four "[..]);
        control.peer(id).notify(Note::new(()));
        control.peer(id).shutdown_write();
        control.peer(id).write(b"too late");
        drop(control);
        stage.run();
        let all = data(b"one two three four four ");
        stage.expect("server", &["opened", &all, "eof", "closed finished by the peer"]);
        let found = stage.trace.of("client");
        stage.check(found[..2] == ["opened", "notified"], "the note waits for opened");
        stage.check(stage.driver.metrics().refused_bytes == 8, "what came late is counted");
    });
}

#[test]
fn a_connect_is_cancelled_before_the_driver_runs() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let closed = stage.connect("closed", addr, Play::new());
        let aborted = stage.connect("aborted", addr, Play::new());
        stage.driver.control().peer(closed).close();
        stage.driver.control().peer(aborted).abort();
        stage.run();
        let cancelled = CloseKind::Connect(ConnectFailure::Cancelled);
        let line = format!("closed {cancelled} by us");
        stage.expect("closed", &[&line]);
        stage.expect("aborted", &[&line]);
        let mut control = stage.driver.control();
        assert!(!control.peer(closed).is_open());
        control.peer(closed).write(b"to nobody");
        control.peer(aborted).abort();
        drop(control);
        stage.run();
        stage.check(stage.driver.metrics().stale == 2, "requests for the dead are counted");
    });
}

#[test]
fn a_protocol_that_may_not_leave_its_thread_connects_where_there_is_but_one() {
    everywhere(|stage| {
        let kind: Arc<Mutex<Option<CloseKind>>> = Arc::default();
        let told = Arc::clone(&kind);
        let local = closing().closed(move |_, reason| *told.lock().unwrap() = Some(reason.kind()));
        let addr = stage.serve("server", Play::new);
        if stage.has_threads() {
            // Somebody has to come, for the listener to be stopped.
            stage.connect("client", addr, closing());
        }
        let id = stage.driver.control().connect_local(addr, stage.trace.wrap("local", local));
        let expected = if stage.has_threads() {
            CloseKind::Connect(ConnectFailure::Unsupported)
        } else {
            CloseKind::Finished
        };
        let limits = Limits::default();
        let mut wrong = limits.clone();
        wrong.low_mark = wrong.high_mark + 1;
        let mut control = stage.driver.control();
        let refused = control.connect_local_with(addr, wrong.into(), echo()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidLimits);
        drop(control);
        stage.run();
        stage.check(*kind.lock().unwrap() == Some(expected), "how it ended");
        let open = stage.driver.control().peer(id).is_open();
        stage.check(!open, "the id is gone");
    });
}

#[test]
fn a_listener_that_is_stopped_before_the_driver_runs_keeps_nothing_running() {
    everywhere(|stage| {
        let mut control = stage.driver.control();
        let listener = control.listen("127.0.0.1:0", |_| Some(echo())).unwrap();
        assert_eq!(control.addresses(listener).len(), 1);
        control.stop_listening(listener);
        drop(control);
        stage.run();
        stage.check(stage.driver.addresses(listener).is_empty(), "it has no address any more");
    });
}

#[test]
fn a_driver_runs_again_with_what_was_asked_between() {
    everywhere(|stage| {
        for round in 0..3 {
            let server = format!("server {round}");
            let addr = stage.serve(&server, echo);
            let client = format!("client {round}");
            stage.connect(&client, addr, closing());
            stage.run();
            stage.expect(&client, &["opened", "closed finished by us"]);
        }
    });
}

#[test]
fn a_shutdown_before_the_driver_runs_ends_it_and_no_listener_comes_after() {
    everywhere(|stage| {
        let addr = stage.deserted();
        stage.connect("client", addr, Play::new());
        let listener = stage.driver.control().listen("127.0.0.1:0", |_| Some(echo())).unwrap();
        stage.driver.control().shutdown();
        stage.run();
        stage.check(stage.driver.handle().is_ended(), "it has ended");
        stage.check(stage.driver.addresses(listener).is_empty(), "nobody is accepted");
        let error = stage.driver.control().listen("127.0.0.1:0", |_| Some(echo())).unwrap_err();
        stage.check(error.kind() == ErrorKind::Stopped, "it says so");
        let stopping = stage.driver.control().is_stopping();
        stage.check(stopping, "here as well");
        stage.expect("client", &["closed connect cancelled by the runtime"]);
    });
}

/// All that a driver offers is on the trait, on the same terms.
#[test]
fn time_chance_and_counters_are_those_of_the_driver() {
    fn same(driver: &mut dyn Driver) {
        let mut control = driver.control();
        let (now, wall) = (control.now(), control.wall_clock());
        assert!(control.now() >= now && control.wall_clock() >= wall);
        let drawn: Vec<u64> = (0..4).map(|_| control.random()).collect();
        assert!(drawn.iter().any(|other| *other != drawn[0]), "{drawn:?}");
        assert_eq!(control.metrics().connects, 0);
        assert!(!control.is_stopping());
        control.connect("127.0.0.1:1", echo());
        drop(control);
        driver.run().unwrap();
        assert_eq!(driver.control().metrics().connects, 1);
        assert_eq!(driver.metrics().closes.connect, 1);
    }
    same(&mut lariat::sim::Sim::new(1));
    same(&mut lariat::reactor::Reactor::new().unwrap());
    same(&mut lariat::blocking::Blocking::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_listener_that_is_stopped_before_the_driver_runs_has_no_socket_any_more() {
    on_sockets(DriverLimits::default(), |stage| {
        let listen = |stage: &mut Stage<'_>, addr: SocketAddr| {
            let listener = stage.driver.control().listen(addr, |_| Some(echo())).unwrap();
            (listener, stage.driver.addresses(listener)[0].socket_addr().unwrap())
        };
        // Nobody else takes a port of this address.
        let (first, addr) = listen(stage, ([127, 0, 0, 77], 0).into());
        stage.driver.control().stop_listening(first);
        // A port that was asked for is kept as long as the socket, even if that no longer listens.
        let (second, again) = listen(stage, addr);
        assert_eq!(again, addr);
        let taken = || {
            // Without the option that lets a socket have an address that another still has.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&addr.into()).is_err()
        };
        assert!(taken());
        stage.driver.control().stop_listening(second);
        stage.check(!taken(), "the address is free");
        stage.run();
    });
}
