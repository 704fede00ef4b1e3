//! Threads that sleep in `accept`, or until there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{
    Echo, Quiet, check, check_books, check_in, client, dawdle, driver_with, join, read_to_end, run,
    send, spawn,
};
use crate::blocking::bell::lock;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::sync::model::{Rules, roll, thread};

#[test]
fn model_newcomers_wait_for_room_and_get_it() {
    check(|| {
        let mut driver = driver_with(|limits| limits.connections_max = 1);
        driver.serial(roll(2) == 0);
        let listener = driver.listen("10.0.0.1:1", |_| Some(Echo)).unwrap();
        let addr = driver.addresses(listener)[0];
        let clients: Vec<_> = (0..3)
            .map(|_| {
                spawn(move || {
                    dawdle();
                    let stream = client(addr).unwrap();
                    send(&stream, b"abc");
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    assert_eq!(read_to_end(&stream), (b"abc".to_vec(), None));
                })
            })
            .collect();
        let handle = driver.handle();
        let stopper = spawn(move || {
            join(clients);
            handle.stop_listening(listener).unwrap();
        });
        run(&mut driver);
        join([stopper]);
        check_books(&driver);
    });
}

#[test]
fn model_newcomers_wait_for_a_thread_and_get_it() {
    // One that accepts, and one or two for connections.
    for threads in [2, 3] {
        let rules = Rules { threads: Some(threads), ..Rules::default() };
        check_in(rules, || {
            let mut driver = driver_with(|_| ());
            let most = lock(&driver.hub.state).pool.limit();
            let inside = Arc::new(AtomicUsize::new(0));
            let listener = driver
                .listen("10.0.0.1:1", move |_| {
                    let before = inside.fetch_add(1, Ordering::SeqCst);
                    assert!(before + 1 < most, "more connections than threads");
                    Some(Inside(Arc::clone(&inside)))
                })
                .unwrap();
            let addr = driver.addresses(listener)[0];
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    spawn(move || {
                        dawdle();
                        let stream = client(addr).unwrap();
                        // What comes back in pieces may need a companion.
                        send(&stream, b"a");
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                        assert_eq!(read_to_end(&stream), (b"a".to_vec(), None));
                    })
                })
                .collect();
            let handle = driver.handle();
            let stopper = spawn(move || {
                join(clients);
                handle.stop_listening(listener).unwrap();
            });
            run(&mut driver);
            join([stopper]);
            check_books(&driver);
        });
    }
}

/// An [`Echo`] that counts how many there are at a time.
struct Inside(Arc<AtomicUsize>);

impl Protocol for Inside {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }

    fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn model_a_listener_may_stop_at_any_moment() {
    check(|| {
        let mut driver = driver_with(|limits| limits.connections_max = 1);
        driver.serial(roll(2) == 0);
        let listener = driver.listen("10.0.0.1:1", |_| Some(Echo)).unwrap();
        let addr = driver.addresses(listener)[0];
        let clients: Vec<_> = (0..2)
            .map(|_| {
                spawn(move || {
                    dawdle();
                    let Some(stream) = client(addr) else { return };
                    send(&stream, b"abc");
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    read_to_end(&stream);
                })
            })
            .collect();
        let handle = driver.handle();
        let shuts_down = roll(2) == 0;
        let stopper = spawn(move || {
            dawdle();
            if shuts_down {
                handle.shutdown();
            } else {
                handle.stop_listening(listener).unwrap();
            }
        });
        run(&mut driver);
        join(clients);
        join([stopper]);
        check_books(&driver);
    });
}

#[test]
fn model_a_listener_that_two_stop_is_stopped_for_both() {
    check(|| {
        let mut driver = driver_with(|_| ());
        let listener = driver.listen("10.0.0.1:1", |_| Some(Echo)).unwrap();
        let addr = driver.addresses(listener)[0];
        let hub = Arc::clone(&driver.hub);
        let user = spawn(move || {
            // Else it would not have begun.
            while lock(&hub.state).listeners.is_empty() {
                thread::yield_now();
            }
            let stop = move || {
                hub.stop_listening(listener);
                assert!(client(addr).is_none(), "it still listens");
            };
            let other = spawn(stop.clone());
            stop();
            join([other]);
        });
        run(&mut driver);
        join([user]);
        check_books(&driver);
    });
}

#[test]
fn model_who_finds_no_address_of_a_listener_finds_nobody_there() {
    check(|| {
        let mut driver = driver_with(|_| ());
        let listener = driver.listen("10.0.0.1:1", |_| Some(Echo)).unwrap();
        let addr = driver.addresses(listener)[0];
        let hub = Arc::clone(&driver.hub);
        let user = spawn(move || {
            // Else it would not have begun.
            while lock(&hub.state).listeners.is_empty() {
                thread::yield_now();
            }
            let stopping = Arc::clone(&hub);
            let stopper = spawn(move || stopping.stop_listening(listener));
            while !hub.listeners.addresses(listener).is_empty() {
                thread::yield_now();
            }
            assert!(client(addr).is_none(), "it still listens");
            join([stopper]);
        });
        run(&mut driver);
        join([user]);
        check_books(&driver);
    });
}

#[test]
fn model_a_listener_that_waits_for_room_stops_without_any() {
    check(|| {
        let mut driver = driver_with(|limits| limits.connections_max = 1);
        let quiet = |_: &crate::Incoming| Some(Quiet { companion: false });
        let listener = driver.listen("10.0.0.1:1", quiet).unwrap();
        let addr = driver.addresses(listener)[0];
        let (handle, hub) = (driver.handle(), Arc::clone(&driver.hub));
        let clients = spawn(move || {
            let stream = client(addr);
            dawdle();
            handle.stop_listening(listener).unwrap();
            // The one inside stays until nobody accepts.
            while lock(&hub.state).pool.acceptors > 0 {
                thread::yield_now();
            }
            handle.shutdown();
            stream.iter().for_each(|stream| drop(read_to_end(stream)));
        });
        run(&mut driver);
        join([clients]);
        check_books(&driver);
    });
}

#[test]
fn model_listeners_come_and_go_by_closures() {
    let rules = Rules { longest: Duration::ZERO, ..Rules::default() };
    check_in(rules, || {
        let mut driver = driver_with(|_| ());
        driver.keep_running(true);
        let handle = driver.handle();
        let user = spawn(move || {
            let (tell, told) = shuttle::sync::mpsc::channel();
            let options = crate::ListenOptions::default();
            let asked = handle.listen_with(
                "10.0.0.1:1",
                options,
                |_| Some(Echo),
                move |control, id| {
                    let id = id.unwrap();
                    tell.send((id, control.addresses(id)[0])).unwrap();
                },
            );
            asked.unwrap_or_else(|refused| panic!("{refused}"));
            let (listener, addr) = told.recv().unwrap();
            if roll(2) == 0 {
                handle.stop_listening(listener).unwrap();
            }
            if let Some(stream) = client(addr) {
                send(&stream, b"abc");
            }
            handle.shutdown();
        });
        run(&mut driver);
        join([user]);
        check_books(&driver);
    });
}

#[test]
fn model_without_a_thread_to_accept_on_run_fails_and_ends() {
    let no_acceptors = Rules { refused: Some("l0"), ..Rules::default() };
    check_in(no_acceptors, || {
        let mut driver = driver_with(|_| ());
        driver.listen("10.0.0.1:1", |_| Some(Echo)).unwrap();
        let handle = driver.handle();
        let stopper = spawn(move || handle.shutdown());
        assert!(driver.run().is_err());
        join([stopper]);
        check_books(&driver);
    });
}
