//! Half-closes, resets and panics: the loop does not spin, and the others notice nothing.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{By, CloseKind, CloseReason, ConnId, Context, Input, Outcome, Protocol, Timer};

use crate::common::*;

/// Stays open after the peer's FIN until it is asked to close.
struct HalfOpen;

impl Protocol for HalfOpen {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn b7_b12_a_half_open_connection_still_sends_and_does_not_spin() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), HalfOpen);
    let mut peer = client(addr);
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    drive(&mut reactor, |_| trail.has_eof());
    let turns = turns_in(&mut reactor, Duration::from_millis(300));
    assert!(turns < 20, "{turns} turns while nothing happened");
    let id = trail.id();
    for _ in 0..3 {
        reactor.control().peer(id).write(b"answer");
        let mut answer = [0; 6];
        reactor.turn(Some(Duration::ZERO)).unwrap();
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }
    reactor.control().peer(id).close();
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::Finished);
    finish(reactor);
}

#[test]
fn b12_a_half_closed_peer_that_does_not_read_does_not_make_the_loop_spin() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Echo);
    let mut peer = client(addr);
    let block = vec![1; 256 * KIB];
    let mut taken = 1;
    while taken > 0 {
        taken = fill(&mut peer, &block);
        turns_in(&mut reactor, Duration::from_millis(50));
    }
    peer.shutdown(Shutdown::Write).unwrap();
    turns_in(&mut reactor, Duration::from_millis(100));
    assert!(reactor.metrics().buffered > 0);
    let turns = turns_in(&mut reactor, Duration::from_millis(500));
    assert!(turns < 20, "{turns} turns while nothing could happen");
    assert!(!trail.is_closed());
    reset(peer);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::Reset);
    finish(reactor);
}

#[test]
fn b9_a_reset_while_reading_is_paused_closes_at_once_and_counts_what_was_unread() {
    struct Pauser;
    impl Protocol for Pauser {
        fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.pause_reading();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Pauser);
    let mut peer = client(addr);
    peer.write_all(b"0123456789").unwrap();
    drive(&mut reactor, |reactor| reactor.metrics().paused == 1);
    peer.write_all(&[5; 50_000]).unwrap();
    reset(peer);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!((trail.kind(), trail.reason().by()), (CloseKind::Reset, By::Peer));
    assert_eq!((trail.reason().bytes_in(), trail.reason().unread()), (10, 10));
    finish(reactor);
}

#[test]
fn a_fin_waits_while_reading_is_paused_and_does_not_spin() {
    /// Pauses from the start; what it is asked for it tells through `finished`.
    struct Paused(Rc<Cell<bool>>);
    impl Protocol for Paused {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.pause_reading();
            cx.set_timer(Timer::new(1), Duration::from_millis(1));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
            self.0.set(cx.peer_finished());
            cx.set_timer(timer, Duration::from_millis(50));
            Ok(())
        }
        fn notified(&mut self, cx: &mut Context<'_>, _: lariat::Note) -> Outcome {
            cx.resume_reading();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let finished = Rc::new(Cell::new(false));
    let (addr, trail) = listen_once(&mut reactor, |_| (), Paused(finished.clone()));
    let mut peer = client(addr);
    peer.write_all(&[5; 1000]).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    drive(&mut reactor, |_| finished.get());
    let turns = turns_in(&mut reactor, Duration::from_millis(300));
    assert!(turns < 40, "{turns} turns for a timer of 50 ms");
    assert_eq!(trail.names(), "opened timeout");
    reactor.control().peer(trail.id()).notify(lariat::Note::new(()));
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "opened timeout notified data eof closed");
    assert_eq!((trail.data().len(), trail.kind()), (1000, CloseKind::Finished));
    finish(reactor);
}

#[test]
fn b13_a_stale_id_does_nothing_to_the_next_owner_of_its_slot() {
    let mut reactor = Reactor::new().unwrap();
    let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    struct Noting(Rc<RefCell<Vec<ConnId>>>);
    impl Protocol for Noting {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            self.0.borrow_mut().push(cx.id());
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(input);
            input.consume_all();
            Ok(())
        }
    }
    let noting = ids.clone();
    let addr = listen(&mut reactor, move || Noting(noting.clone()));
    drop(client(addr));
    settle_after(&mut reactor, &ids, 1);
    let mut second = client(addr);
    drive(&mut reactor, |_| ids.borrow().len() == 2);
    let old = ids.borrow()[0];
    let before = reactor.metrics().stale;
    assert!(!reactor.control().peer(old).is_open());
    reactor.control().peer(old).write(b"for nobody");
    reactor.control().peer(old).shutdown_write();
    reactor.control().peer(old).notify(lariat::Note::new(1));
    reactor.control().peer(old).close();
    reactor.control().peer(old).abort();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.metrics().stale - before, 5);
    let handle = reactor.handle();
    handle.close(old).unwrap();
    handle.abort(old);
    reactor.turn(Some(Duration::from_millis(10))).unwrap();
    let thread = thread::spawn(move || echo_once(&mut second, b"alive"));
    join(&mut reactor, thread);
    finish(reactor);
}

fn settle_after(reactor: &mut Reactor, ids: &Rc<RefCell<Vec<ConnId>>>, count: usize) {
    drive(reactor, |_| ids.borrow().len() == count);
    settle(reactor);
}

#[test]
fn c4_one_panic_in_a_hundred_costs_nobody_else_anything() {
    const EACH: u64 = 100;
    const ROUNDS: u64 = 10;
    struct Fragile;
    impl Protocol for Fragile {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            assert!(input[0] != 7, "the seventh of a hundred");
            cx.write(input);
            input.consume_all();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let panicked = Rc::new(Cell::new(0));
    let count = panicked.clone();
    struct Counting(Rc<Cell<u64>>);
    impl Protocol for Counting {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Fragile.data(cx, input)
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            if reason.kind() == CloseKind::Panicked {
                self.0.set(self.0.get() + 1);
            }
        }
    }
    let addr = listen(&mut reactor, move || Counting(count.clone()));
    let thread = thread::spawn(move || {
        for _ in 0..ROUNDS {
            let mut streams: Vec<_> = (0..EACH).map(|_| client(addr)).collect();
            for (number, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[number as u8; 8]).unwrap();
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 8];
                match stream.read_exact(&mut back) {
                    Ok(()) => assert_eq!((back, number == 7), ([number as u8; 8], false)),
                    Err(error) => assert!(number == 7, "{number}: {error}"),
                }
            }
        }
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    let metrics = reactor.metrics();
    assert_eq!((metrics.panics, metrics.closes.panicked, panicked.get()), (10, 10, 10));
    assert_eq!(metrics.closes.finished, ROUNDS * EACH - 10);
    finish(reactor);
}
