//! Accepting: within the budget and the limit, never forgetting who waits, and refusing politely.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{Context, ErrorKind, Input, Limits, ListenOptions, Op, Outcome, Overload};

use crate::common::*;

#[test]
fn a5_a_turn_accepts_as_many_as_the_budget_allows_and_comes_back_for_the_rest() {
    let mut reactor = reactor_with(|limits| limits.accepts_max = 3);
    let addr = listen(&mut reactor, || Echo);
    let clients: Vec<_> = (0..10).map(|_| client(addr)).collect();
    for accepted in [3, 6, 9, 10] {
        // No new event comes for those that wait: the reactor must come back by itself.
        reactor.turn(None).unwrap();
        assert_eq!(reactor.metrics().accepted, accepted);
    }
    drop(clients);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn a6_at_the_limit_newcomers_wait_and_the_next_is_accepted_when_one_leaves() {
    let mut reactor = reactor_with(|limits| limits.connections_max = 2);
    let addr = listen(&mut reactor, || Echo);
    let mut clients: Vec<_> = (0..5).map(|_| client(addr)).collect();
    for accepted in 2..=5 {
        drive(&mut reactor, |reactor| reactor.metrics().accepted == accepted);
        turns_in(&mut reactor, Duration::from_millis(20));
        let metrics = reactor.metrics();
        assert_eq!((metrics.accepted, metrics.open), (accepted, 2));
        // Those that are in are served, those that wait are not.
        let mut stream = clients.remove(0);
        let thread = thread::spawn(move || echo_once(&mut stream, b"in"));
        join(&mut reactor, thread);
    }
    settle_all(&mut reactor, 5, clients);
    assert_eq!(reactor.metrics().refused, 0);
    finish(reactor);
}

fn settle_all<T>(reactor: &mut Reactor, accepted: u64, clients: Vec<T>) {
    drop(clients);
    drive(reactor, |reactor| reactor.metrics().accepted == accepted);
    settle(reactor);
}

#[test]
fn a6_a_full_listener_does_not_spin() {
    let mut reactor = reactor_with(|limits| limits.connections_max = 1);
    let addr = listen(&mut reactor, || Echo);
    let clients: Vec<_> = (0..3).map(|_| client(addr)).collect();
    drive(&mut reactor, |reactor| reactor.metrics().accepted == 1);
    let turns = turns_in(&mut reactor, Duration::from_millis(300));
    assert!(turns < 20, "{turns} turns while nothing could happen");
    settle_all(&mut reactor, 3, clients);
    finish(reactor);
}

#[test]
fn above_the_limit_a_shedding_listener_turns_newcomers_away() {
    let mut reactor = reactor_with(|limits| {
        limits.connections_max = 2;
        limits.overload = Overload::Shed;
    });
    let addr = listen(&mut reactor, || Echo);
    let mut clients: Vec<_> = (0..5).map(|_| client(addr)).collect();
    drive(&mut reactor, |reactor| reactor.metrics().refused == 3);
    assert_eq!(reactor.metrics().accepted, 2);
    let outside = clients.split_off(2);
    for mut stream in outside {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    let thread = thread::spawn(move || {
        for stream in &mut clients {
            echo_once(stream, b"in");
        }
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn lingering_connections_do_not_count_against_the_limit() {
    struct Leaver;
    impl lariat::Protocol for Leaver {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let mut reactor = reactor_with(|limits| {
        limits.connections_max = 1;
        limits.lingering_max = 3;
    });
    let addr = listen(&mut reactor, || Leaver);
    let clients: Vec<_> = (0..10).map(|_| client(addr)).collect();
    drive(&mut reactor, |reactor| reactor.metrics().accepted == 10);
    // Beyond the cap, the oldest went at once.
    drive(&mut reactor, |reactor| reactor.metrics().open == 0);
    assert!(reactor.metrics().lingering <= 3);
    drop(clients);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn a6_a_connection_that_lingers_gives_its_place_back_at_once() {
    let mut reactor = reactor_with(|limits| limits.connections_max = 1);
    // Lingering alone never ends here.
    let forever = |limits: &mut Limits| {
        limits.linger_idle = Duration::MAX;
        limits.linger_total = Duration::MAX;
        limits.close_deadline = Duration::MAX;
    };
    let (_, addr) = listen_with(&mut reactor, forever, || Brief);
    let mut clients: Vec<_> = (0..3).map(|_| client(addr)).collect();
    for (client, lingering) in clients.iter_mut().zip(1..) {
        client.write_all(b"!").unwrap();
        drive(&mut reactor, |reactor| reactor.metrics().lingering == lingering);
        assert_eq!(client.read(&mut [0; 9]).unwrap(), 3);
    }
    settle_all(&mut reactor, 3, clients);
    finish(reactor);
}

/// Answers with a word and closes, and so lingers until its peer has finished too.
struct Brief;
impl lariat::Protocol for Brief {
    fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.write(b"bye");
        cx.close();
        Ok(())
    }
}

#[test]
fn a6_the_loop_does_not_wait_while_connections_are_left_over() {
    let mut reactor = reactor_with(|limits| limits.accepts_max = 1);
    // Refused at once: nothing of them is registered, so that no event of theirs ends a wait.
    let listener = reactor.listen("127.0.0.1:0", |_| None::<Echo>).unwrap();
    let addr = reactor.addresses(listener)[0];
    let clients: Vec<_> = (0..5).map(|_| client(addr)).collect();
    let began = Instant::now();
    for refused in 1..=5 {
        reactor.turn(Some(PATIENCE)).unwrap();
        assert_eq!(reactor.metrics().refused, refused);
    }
    assert!(began.elapsed() < PATIENCE, "the loop has slept");
    drop(clients);
    finish(reactor);
}

#[test]
fn a_factory_refuses_and_a_panicking_one_does_not_end_the_listener() {
    let mut reactor = Reactor::new().unwrap();
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    let listener = reactor
        .listen("127.0.0.1:0", move |incoming| {
            assert!(incoming.peer().ip().unwrap().is_loopback());
            count.set(count.get() + 1);
            match count.get() {
                1 => None,
                2 => panic!("in the factory"),
                _ => Some(Echo),
            }
        })
        .unwrap();
    let addr = reactor.addresses(listener)[0];
    let thread = thread::spawn(move || {
        for _ in 0..2 {
            assert_eq!(client(addr).read(&mut [0]).unwrap_or(0), 0);
        }
        echo_once(&mut client(addr), b"third time lucky");
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    let metrics = reactor.metrics();
    assert_eq!((metrics.refused, metrics.panics, metrics.accepted), (2, 1, 1));
    finish(reactor);
}

#[test]
fn a4_connections_reset_before_they_are_accepted_leave_nothing_behind() {
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Echo);
    let thread = thread::spawn(move || {
        for _ in 0..1000 {
            reset(client(addr));
        }
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    let mut stream = client(addr);
    let thread = thread::spawn(move || echo_once(&mut stream, b"after the storm"));
    join(&mut reactor, thread);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn a7_a_port_in_use_is_an_error_that_names_it() {
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Echo);
    let error = reactor.listen(addr, |_| Some(Echo)).unwrap_err();
    assert_eq!((error.kind(), error.op()), (ErrorKind::AddressInUse, Op::Listen));
    assert_eq!(error.addr(), Some(addr.to_string().as_str()));
    assert_eq!(
        format!("{error:?}"),
        format!(
            "cannot listen on {addr}: the address is already in use\n\
             hint: another program has this port; try port 0"
        )
    );
    // Of several addresses, all or none are listened on.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(reactor.listen(&[free, addr][..], |_| Some(Echo)).is_err());
    let rebound = TcpListener::bind(free);
    assert!(rebound.is_ok(), "the first address stayed open: {rebound:?}");
    finish(reactor);
}

#[test]
fn a7_an_address_of_another_machine_is_an_error_that_names_it() {
    let mut reactor = Reactor::new().unwrap();
    // TEST-NET-1 belongs to no machine.
    let error = reactor.listen("192.0.2.1:7000", |_| Some(Echo)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddressUnavailable);
    assert!(error.to_string().starts_with("cannot listen on 192.0.2.1:7000: "), "{error}");
    finish(reactor);
}

#[test]
fn an_adopted_listener_serves_also_those_who_came_before() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut early = client(addr);
    let mut reactor = Reactor::new().unwrap();
    let id = reactor.adopt_listener(listener, ListenOptions::default(), |_| Some(Echo)).unwrap();
    assert_eq!(reactor.addresses(id), [addr]);
    let thread = thread::spawn(move || {
        echo_once(&mut early, b"early");
        echo_once(&mut client(addr), b"late");
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    finish(reactor);
}

#[test]
fn a_stopped_listener_refuses_and_its_connections_stay() {
    let mut reactor = Reactor::new().unwrap();
    let (listener, addr) = listen_with(&mut reactor, |_| (), || Echo);
    let mut stream = client(addr);
    drive(&mut reactor, |reactor| reactor.metrics().accepted == 1);
    reactor.control().stop_listening(listener);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(reactor.addresses(listener).is_empty());
    assert!(std::net::TcpStream::connect(addr).is_err());
    let thread = thread::spawn(move || echo_once(&mut stream, b"still here"));
    join(&mut reactor, thread);
    drive(&mut reactor, Reactor::is_over);
    finish(reactor);
}

#[test]
fn a_driver_that_drains_refuses_clients() {
    struct Stays;
    impl lariat::Protocol for Stays {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Stays);
    let stream = client(addr);
    drive(&mut reactor, |reactor| reactor.metrics().accepted == 1);
    reactor.handle().shutdown();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(!reactor.is_over());
    let refused = std::net::TcpStream::connect(addr).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(stream);
    finish(reactor);
}

#[test]
fn one_listen_call_serves_all_the_addresses_it_names() {
    let mut reactor = Reactor::new().unwrap();
    let any = ["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let free: Vec<_> = any
        .iter()
        .map(|addr: &std::net::SocketAddr| TcpListener::bind(addr).unwrap().local_addr().unwrap())
        .collect();
    let listener = reactor.listen(&free[..], |_| Some(Echo)).unwrap();
    let mut addrs = reactor.addresses(listener);
    addrs.dedup();
    let thread = thread::spawn(move || {
        for addr in addrs {
            echo_once(&mut client(addr), b"here");
        }
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    finish(reactor);
}
