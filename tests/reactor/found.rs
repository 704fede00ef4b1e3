//! What has once gone wrong on real sockets, kept from coming back: sockets and names of the
//! user's that are out of order, what a reset looks like, and when a driver turns and ends.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{CloseKind, Context, ErrorKind, Input, ListenOptions, Outcome, Protocol, Timer};
use socket2::SockRef;

use crate::common::*;

/// Keeps everybody waiting, and has a name that cannot be had.
struct Nameless;

impl Protocol for Nameless {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        thread::sleep(Duration::from_millis(10));
        cx.write(input);
        input.consume_all();
        Ok(())
    }
    fn name(&self) -> &str {
        panic!("planned: no name")
    }
}

#[test]
fn a_name_that_panics_when_a_slow_turn_asks_for_it_ends_nobody_else() {
    let mut reactor = reactor_with(|limits| limits.slow_callback = Some(Duration::from_millis(2)));
    let addr = listen(&mut reactor, || Nameless);
    let served = listen(&mut reactor, || Echo);
    let clients = thread::spawn(move || {
        let (mut slow, mut other) = (client(addr), client(served));
        for _ in 0..5 {
            // It may be ended for its name, but nobody else.
            let _ = slow.write_all(b"x");
            echo_once(&mut other, b"alive");
        }
        slow.shutdown(Shutdown::Write).ok();
        read_to_end(&mut slow);
    });
    join(&mut reactor, clients);
    assert!(reactor.metrics().slow_turns > 0);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn a_listener_whose_socket_was_shut_down_does_not_spin() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let twin = listener.try_clone().unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.adopt_listener(listener, ListenOptions::default(), |_| Some(Sink)).unwrap();
    let served = listen(&mut reactor, || Echo);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    SockRef::from(&twin).shutdown(Shutdown::Both).unwrap();
    let turns = turns_in(&mut reactor, Duration::from_millis(300));
    let errors = reactor.metrics().accept_errors;
    assert!(turns < 40, "{turns} turns");
    assert!((1..=20).contains(&errors), "{errors} errors");
    // The other listener is none the worse for it.
    let client = thread::spawn(move || echo_once(&mut client(served), b"alive"));
    join(&mut reactor, client);
    settle(&mut reactor);
    finish(reactor);
}

/// Whether the peer had finished, for every `data`, with how much there was.
struct Ears(Rc<RefCell<Vec<(bool, usize)>>>);

impl Protocol for Ears {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.0.borrow_mut().push((cx.peer_finished(), input.len()));
        input.consume_all();
        Ok(())
    }
}

#[test]
fn bytes_before_a_reset_do_not_come_from_a_peer_that_has_finished() {
    let heard: Rc<RefCell<Vec<(bool, usize)>>> = Rc::default();
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| {}, Ears(Rc::clone(&heard)));
    let mut stream = client(addr);
    drive(&mut reactor, |_| trail.has_opened());
    // Both have arrived before the reactor looks.
    stream.write_all(b"x").unwrap();
    reset(stream);
    settle(&mut reactor);
    let finished = heard.borrow().iter().any(|(finished, _)| *finished);
    assert!(!finished, "{:?}", heard.borrow());
    assert_eq!(trail.kind(), CloseKind::Reset);
    finish(reactor);
}

#[test]
fn a_reactor_that_has_ended_in_turns_says_so_and_listens_no_more() {
    let mut reactor = Reactor::new().unwrap();
    listen(&mut reactor, || Sink);
    let handle = reactor.handle();
    assert!(!handle.is_ended());
    handle.shutdown();
    drive(&mut reactor, Reactor::is_over);
    assert!(handle.is_ended());
    let error = reactor.listen("127.0.0.1:0", |_| Some(Sink)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    reactor.run().unwrap();
}

/// Sets one timer, not of a whole number of milliseconds.
struct Once;

impl Protocol for Once {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_micros(20_300));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn who_turns_when_the_next_deadline_is_due_finds_the_timer_due() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| {}, Once);
    let stream = client(addr);
    drive(&mut reactor, |_| trail.has_opened());
    while reactor.next_deadline().is_some_and(|at| at <= Instant::now()) {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        if reactor.metrics().timers > 0 {
            break;
        }
    }
    let mut turns = 0;
    let patience = Instant::now() + PATIENCE;
    while trail.count(|step| matches!(step, Step::Timeout)) == 0 {
        assert!(Instant::now() < patience);
        if reactor.next_deadline().is_some_and(|at| at <= Instant::now()) {
            reactor.turn(Some(Duration::ZERO)).unwrap();
            turns += 1;
        }
        thread::yield_now();
    }
    assert!(turns <= 3, "{turns} turns for one timer");
    drop(stream);
    settle(&mut reactor);
    finish(reactor);
}
