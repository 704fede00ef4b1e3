//! Listening sockets that others have as well: clones, another driver, another process. Each client
//! is served by one of them, and the end of one is not seen by the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{Control, Driver, DriverLimits, Handle, ListenOptions, ListenerId, Metrics};
use socket2::SockRef;

use crate::kit::{Play, Stage, on_sockets};
use crate::unix::Place;

/// Until all threads sleep.
const LATER: Duration = Duration::from_millis(50);

fn bind() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Greets each client with one byte, and counts it.
fn greet(driver: &mut dyn Driver, socket: impl Into<OwnedFd>) -> (ListenerId, Arc<AtomicUsize>) {
    let greeted = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&greeted);
    let factory = move |_: &_| {
        counts.fetch_add(1, Ordering::SeqCst);
        Some(Play::new().opened(|cx| {
            cx.write(b"!");
            cx.close();
            Ok(())
        }))
    };
    let options = ListenOptions::default();
    (driver.control().adopt_listener(socket, options, factory).unwrap(), greeted)
}

type MakeDriver = fn() -> Box<dyn Driver>;

const DRIVERS: [MakeDriver; 2] =
    [|| Box::new(Reactor::new().unwrap()), || Box::new(Blocking::new())];

/// Another driver that accepts from the socket, on a thread of its own, until it is shut down.
fn beside(make: MakeDriver, socket: TcpListener) -> (Handle, JoinHandle<(Metrics, usize)>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut driver = make();
        let (_, greeted) = greet(&mut *driver, socket);
        tell.send(driver.handle()).unwrap();
        driver.run().unwrap();
        (driver.metrics(), greeted.load(Ordering::SeqCst))
    });
    (told.recv().unwrap(), thread)
}

/// What a client hears until the end.
fn heard(addr: SocketAddr) -> Vec<u8> {
    let mut heard = Vec::new();
    TcpStream::connect(addr).unwrap().read_to_end(&mut heard).unwrap();
    heard
}

/// Clients at a time, and one after the other.
const CLIENTS: usize = 4;
const EACH: usize = 20;

#[test]
fn each_client_of_two_drivers_is_served_once_also_when_one_of_them_stops() {
    for make in DRIVERS {
        on_sockets(DriverLimits::default(), |stage| {
            let (socket, addr) = bind();
            let (other, running) = beside(make, socket.try_clone().unwrap());
            let mut here = 0;
            let rounds: [TcpListener; 5] = std::array::from_fn(|_| socket.try_clone().unwrap());
            let clients_of_all = rounds.len() * (CLIENTS * EACH + EACH / 2);
            for socket in rounds {
                let (listener, greeted) = greet(stage.driver, socket);
                let handle = stage.driver.handle();
                let clients = thread::spawn(move || {
                    thread::scope(|scope| {
                        for _ in 0..CLIENTS {
                            scope.spawn(|| (0..EACH).for_each(|_| assert_eq!(heard(addr), b"!")));
                        }
                        // In the midst of them.
                        (0..EACH / 2).for_each(|_| assert_eq!(heard(addr), b"!"));
                        handle.stop_listening(listener).unwrap();
                    });
                });
                stage.run();
                clients.join().unwrap();
                here += greeted.load(Ordering::SeqCst);
            }
            other.shutdown();
            let (metrics, there) = running.join().unwrap();
            assert_eq!(here + there, clients_of_all);
            for metrics in [metrics, stage.driver.metrics()] {
                assert_eq!((metrics.refused, metrics.accept_errors), (0, 0), "{metrics:?}");
            }
        });
    }
}

#[test]
fn an_adopted_listener_sleeps_on_no_driver_and_for_none_of_its_owners() {
    on_sockets(DriverLimits::default(), |stage| {
        let (socket, _) = bind();
        let sleeps = || !SockRef::from(&socket).nonblocking().unwrap();
        assert!(sleeps());
        let (listener, _) = greet(stage.driver, socket.try_clone().unwrap());
        assert!(!sleeps());
        for make in DRIVERS {
            let mut other = make();
            greet(&mut *other, socket.try_clone().unwrap());
            assert!(!sleeps());
        }
        // A loop that slept in it would not come to this.
        stage.driver.control().set_timer(LATER, move |control| control.stop_listening(listener));
        stage.run();
        assert!(!sleeps());
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.accepted, metrics.accept_errors), (0, 0));
    });
}

#[test]
fn a_listener_whose_address_leads_to_another_server_stops_and_the_other_sees_nothing_of_it() {
    on_sockets(DriverLimits::default(), |stage| {
        let place = Place::new();
        let (listener, _) = greet(stage.driver, UnixListener::bind(&place.0).unwrap());
        std::fs::remove_file(&place.0).unwrap();
        let next = UnixListener::bind(&place.0).unwrap();
        stage.driver.control().set_timer(LATER, move |control| control.stop_listening(listener));
        stage.run();
        no_client_waits(&next);
        assert!(place.0.exists(), "the file is the other's");
    });
}

#[test]
fn a_driver_that_is_dropped_without_a_run_leaves_nothing_in_the_queue() {
    for make in DRIVERS {
        let (socket, addr) = bind();
        let waiting = TcpStream::connect(addr).unwrap();
        let mut driver = make();
        let (_, greeted) = greet(&mut *driver, socket.try_clone().unwrap());
        drop(driver);
        assert_eq!(next_client(&socket), waiting.local_addr().unwrap());
        no_client_waits(&socket);
        assert_eq!(greeted.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_socket_that_another_has_as_well_goes_on_listening_when_the_driver_stops() {
    on_sockets(DriverLimits::default(), |stage| {
        let (socket, addr) = bind();
        greet(stage.driver, socket.try_clone().unwrap());
        stage.driver.handle().shutdown();
        stage.run();
        let client = TcpStream::connect(addr).unwrap();
        assert_eq!(next_client(&socket), client.local_addr().unwrap());
    });
}

/// Who is the first in the queue, or comes into it.
fn next_client(socket: &TcpListener) -> SocketAddr {
    socket.set_nonblocking(false).unwrap();
    socket.accept().unwrap().1
}

#[track_caller]
fn no_client_waits(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true).unwrap();
    let none = socket.accept().map(|_| ()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
}

/// Another thread sleeps in the socket's `accept`, for longer than the driver's. `stop` has the
/// driver stop the listener.
#[track_caller]
fn ends_beside_a_sleeper(stop: impl Fn(&mut Stage<'_>, ListenerId)) {
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_secs(600);
    on_sockets(limits, |stage| {
        let (socket, addr) = bind();
        let sleeper = socket.try_clone().unwrap();
        let accepted = thread::spawn(move || {
            if let Ok((mut stream, _)) = sleeper.accept() {
                assert_eq!(stream.read(&mut [0]).unwrap(), 1, "nobody else has come");
            }
        });
        let options = ListenOptions::default();
        let factory = |_: &_| Some(Play::new());
        let listener = stage.driver.control().adopt_listener(socket, options, factory).unwrap();
        stop(stage, listener);
        stage.run();
        // The socket does not block any more: only a wait that had begun goes on.
        while !accepted.is_finished() {
            // It may have ended meanwhile.
            let _ = TcpStream::connect(addr).and_then(|mut it| it.write_all(b"x"));
        }
        accepted.join().unwrap();
    });
}

#[test]
fn a_socket_that_another_sleeps_in_delays_no_end() {
    ends_beside_a_sleeper(|stage, listener| {
        stage.driver.control().set_timer(LATER, move |control| control.stop_listening(listener));
    });
}

#[test]
fn a_socket_that_another_sleeps_in_is_stopped_by_a_callback() {
    ends_beside_a_sleeper(|stage, listener| {
        let addr = stage.serve("server", move || {
            Play::new().opened(move |cx| {
                cx.driver().stop_listening(listener);
                cx.close();
                Ok(())
            })
        });
        let connect = move |control: &mut Control<'_>| {
            control.connect(addr, Play::new());
        };
        stage.driver.control().set_timer(LATER, connect);
    });
}
