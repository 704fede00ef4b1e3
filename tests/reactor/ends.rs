//! How connections end: half-closes, resets, deadlines, panics, and that the last words arrive.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{
    By, CloseKind, CloseReason, ConnId, Context, Deadline, Input, Limits, Outcome, Protocol, Timer,
};

use crate::common::*;

#[test]
fn b7_a_half_closed_peer_gets_everything_back() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Echo);
    let thread = thread::spawn(move || {
        let mut stream = client(addr);
        let sent = pattern(256 * KIB);
        let (mut writing, all) = (stream.try_clone().unwrap(), sent.clone());
        let writer = thread::spawn(move || {
            writing.write_all(&all).unwrap();
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let (back, error) = read_to_end(&mut stream);
        writer.join().unwrap();
        assert_eq!(error, None);
        assert!(back == sent);
    });
    join(&mut reactor, thread);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "opened data eof closed");
    assert_eq!((trail.kind(), trail.reason().by()), (CloseKind::Finished, By::Peer));
    assert!(trail.reason().peer_finished());
    finish(reactor);
}

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
fn b8_shutdown_write_is_a_fin_after_the_flush_and_input_goes_on() {
    struct Greeter;
    impl Protocol for Greeter {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(&vec![b'g'; 2 * MIB]);
            cx.shutdown_write();
            cx.shutdown_write();
            cx.write(b"too late");
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.shutdown_write();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Greeter);
    let thread = thread::spawn(move || {
        let mut stream = client(addr);
        let (greeting, error) = read_to_end(&mut stream);
        assert_eq!((greeting.len(), error), (2 * MIB, None));
        assert!(greeting.iter().all(|byte| *byte == b'g'));
        stream.write_all(&vec![1; 100_000]).unwrap();
    });
    join(&mut reactor, thread);
    drive(&mut reactor, |_| trail.is_closed());
    let reason = trail.reason();
    assert_eq!(reason.kind(), CloseKind::Finished);
    assert_eq!((reason.bytes_in(), reason.bytes_out()), (100_000, 2 * MIB as u64));
    assert_eq!(reason.refused(), 8);
    finish(reactor);
}

#[test]
fn b8_both_ends_shut_down_at_once() {
    struct Farewell;
    impl Protocol for Farewell {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"bye");
            cx.shutdown_write();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let (addr, accepted) = listen_once(&mut reactor, |_| (), Farewell);
    let connected = Trail::default();
    reactor.control().connect_local(addr, Watched(Farewell, connected.clone()));
    drive(&mut reactor, |_| accepted.is_closed() && connected.is_closed());
    for trail in [accepted, connected] {
        assert_eq!(trail.names(), "opened data eof closed");
        assert_eq!(trail.data(), b"bye");
        assert_eq!(trail.kind(), CloseKind::Finished);
    }
    finish(reactor);
}

#[test]
fn b9_data_before_a_reset_is_delivered_and_no_eof_is_told() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Sink);
    let mut peer = client(addr);
    drive(&mut reactor, |_| trail.has_opened());
    peer.write_all(&[5; 50_000]).unwrap();
    reset(peer);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!((trail.kind(), trail.reason().by()), (CloseKind::Reset, By::Peer));
    assert_eq!(trail.reason().bytes_in(), 50_000);
    assert!(!trail.reason().peer_finished());
    finish(reactor);
}

#[test]
fn b9_a_write_that_fails_first_neither_eats_the_data_nor_makes_the_reset_an_eof() {
    struct Greeter;
    impl Protocol for Greeter {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"welcome");
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Greeter);
    // All of it before the reactor accepts: its first call on the socket is the write.
    let mut peer = client(addr);
    peer.write_all(&[5; 50_000]).unwrap();
    reset(peer);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!((trail.kind(), trail.reason().by()), (CloseKind::Reset, By::Peer));
    assert_eq!((trail.reason().bytes_in(), trail.reason().bytes_out()), (50_000, 0));
    assert!(!trail.reason().peer_finished());
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
fn b9_a_reset_while_flow_control_holds_is_not_taken_for_an_eof() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Echo);
    let mut peer = client(addr);
    let block = vec![1; 256 * KIB];
    drive(&mut reactor, |reactor| {
        fill(&mut peer, &block);
        reactor.metrics().held == 1
    });
    reset(peer);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!(trail.kind(), CloseKind::Reset);
    assert!(trail.reason().unsent() > 0);
    assert!(!trail.reason().peer_finished());
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

/// Answers the first bytes of an upload and closes; the rest of the upload is never read by it.
struct Refuser;

const ANSWER: usize = 64 * KIB;

impl Protocol for Refuser {
    fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.write(&vec![b'!'; ANSWER]);
        cx.close();
        Ok(())
    }
}

fn upload_and_read_the_answer(addr: SocketAddr) {
    let mut stream = client(addr);
    let mut writing = stream.try_clone().unwrap();
    let upload = thread::spawn(move || {
        // Whether all of it is taken is up to the other side.
        let _ = writing.write_all(&vec![0; 8 * MIB]);
        let _ = writing.shutdown(Shutdown::Write);
    });
    let (answer, error) = read_to_end(&mut stream);
    assert_eq!((answer.len(), error), (ANSWER, None));
    upload.join().unwrap();
}

#[test]
fn b10_a_close_with_unread_input_does_not_destroy_the_answer() {
    const TIMES: u64 = 100;
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Refuser);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..TIMES / 4 {
                    upload_and_read_the_answer(addr);
                }
            })
        })
        .collect();
    for thread in threads {
        join(&mut reactor, thread);
    }
    settle(&mut reactor);
    assert_eq!(reactor.metrics().closes.finished, TIMES);
    finish(reactor);
}

#[test]
fn a_peer_that_never_closes_cannot_hold_a_close_beyond_its_deadline() {
    struct Leaver(usize);
    impl Protocol for Leaver {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(&vec![0; self.0]);
            cx.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    // It has read nothing but will: the kernel has it all.
    let mut reactor = Reactor::new().unwrap();
    let linger = |limits: &mut Limits| limits.linger_idle = Duration::from_millis(200);
    let (addr, trail) = listen_once(&mut reactor, linger, Leaver(10));
    let peer = client(addr);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::Finished);
    assert!(trail.reason().age() >= Duration::from_millis(200));
    drop(peer);

    // The kernel does not take it all.
    let deadline = |limits: &mut Limits| limits.close_deadline = Duration::from_millis(300);
    let (addr, trail) = listen_once(&mut reactor, deadline, Leaver(8 * MIB));
    let peer = client(addr);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::TimedOut(Deadline::Close));
    assert!(trail.reason().unsent() > 0);
    drop(peer);
    finish(reactor);
}

#[test]
fn b13_writes_after_close_and_second_closes_are_counted_no_ops() {
    struct Late;
    impl Protocol for Late {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(b"in time");
            cx.close();
            cx.close();
            cx.shutdown_write();
            cx.write(b"too late");
            let id = cx.id();
            cx.peer(id).write(b"too late as well");
            cx.peer(id).close();
            assert_eq!(cx.writer().write(b"x").unwrap_err().kind(), { ErrorKind::BrokenPipe });
            input.consume_all();
            Ok(())
        }
        fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
            cx.write(b"much too late");
            cx.close();
            cx.abort();
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let (addr, trail) = listen_once(&mut reactor, |_| (), Late);
    let thread = thread::spawn(move || {
        let mut stream = client(addr);
        stream.write_all(b"go").unwrap();
        read_to_end(&mut stream)
    });
    assert_eq!(join(&mut reactor, thread), (b"in time".to_vec(), None));
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::Finished);
    assert_eq!(trail.reason().refused(), 8 + 16 + 1);
    settle(&mut reactor);
    assert_eq!(reactor.metrics().refused_bytes, 8 + 16 + 1 + 13);
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
fn an_idle_connection_ends_not_before_its_time() {
    let mut reactor = Reactor::new().unwrap();
    let idle = |limits: &mut Limits| limits.idle = Some(Duration::from_millis(300));
    let (addr, trail) = listen_once(&mut reactor, idle, Echo);
    let mut stream = client(addr);
    let thread = thread::spawn(move || {
        echo_once(&mut stream, b"once");
        read_to_end(&mut stream)
    });
    assert_eq!(join(&mut reactor, thread), (Vec::new(), None));
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::TimedOut(Deadline::Idle));
    assert_eq!(trail.reason().by(), By::Runtime);
    assert!(trail.reason().age() >= Duration::from_millis(300));
    finish(reactor);
}

#[test]
fn a_connection_that_only_sends_is_not_idle() {
    /// Sends a byte every 50 ms, twenty times.
    struct Ticker(u32);
    impl Protocol for Ticker {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), Duration::from_millis(50));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
            cx.write(b".");
            self.0 += 1;
            if self.0 == 20 {
                cx.close();
            } else {
                cx.set_timer(timer, Duration::from_millis(50));
            }
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let idle = |limits: &mut Limits| limits.idle = Some(Duration::from_millis(400));
    let (addr, trail) = listen_once(&mut reactor, idle, Ticker(0));
    let thread = thread::spawn(move || read_to_end(&mut client(addr)).0.len());
    assert_eq!(join(&mut reactor, thread), 20);
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.kind(), CloseKind::Finished);
    finish(reactor);
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
