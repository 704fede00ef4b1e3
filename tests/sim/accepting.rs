//! Failures of accept: the listener lives on, backs off, and comes back by itself.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use lariat::sim::{Call, Fault, Sim, Socket, Trace};
use lariat::{
    CloseReason, Context, Datagram, DatagramContext, DatagramProtocol, Input, Limits, Outcome,
    Overload, Protocol, Timer,
};

use crate::kit::{Count, Echo, Reasons, Sink, ms, serve, sim_with};

/// Dials and waits until the echo of one byte has come.
fn echoes(sim: &mut Sim, socket: &Socket) -> bool {
    socket.take_received();
    socket.send(b"?");
    sim.run_for(ms(5)).unwrap();
    socket.take_received() == b"?"
}

#[test]
fn a1_without_descriptors_accepts_are_few_and_the_served_go_on() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(10);
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..40).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(2)).unwrap();
    assert_eq!(sim.metrics().open, 10);
    for second in 0..5 {
        let before = sim.metrics();
        let until = sim.now() + ms(1000);
        while sim.now() < until {
            assert!(echoes(&mut sim, &clients[3]), "the served go on");
            sim.run_for(ms(45)).unwrap();
        }
        let failed = sim.metrics().accept_errors - before.accept_errors;
        assert!(failed <= 20, "{failed} accepts failed in second {second}");
        // Twenty echoes cost some turns; a loop that spins takes thousands.
        let turns = sim.metrics().turns - before.turns;
        assert!(turns < 200, "{turns} turns");
    }
}

#[test]
fn a1_the_back_off_doubles_from_10_ms_to_1_s() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(1);
    let addr = serve(&mut sim, || Echo);
    // What was released before mends nothing.
    let first = sim.dial(addr);
    sim.run_for(ms(10)).unwrap();
    drop(first);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(sim.metrics().closes.finished, 1);
    // The reserve sheds one client at each attempt, so that more must wait.
    let _clients: Vec<Socket> = (0..100).map(|_| sim.dial(addr)).collect();
    let mut failures = Vec::new();
    let mut seen = 0;
    for _ in 0..60_000 {
        sim.run_for(ms(1) / 10).unwrap();
        let errors = sim.metrics().accept_errors;
        if errors > seen {
            seen = errors;
            failures.push(sim.now());
        }
    }
    let gaps: Vec<u128> = failures.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
    let expected = [10u128, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000];
    assert!(gaps.len() >= expected.len() - 1, "{gaps:?}");
    for (gap, expected) in gaps.iter().zip(expected) {
        assert!(
            (expected..=expected + 3).contains(gap),
            "{gap} ms instead of {expected}: {gaps:?}"
        );
    }
}

#[test]
fn a1_a_released_descriptor_is_used_at_once() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(4);
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..4).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    let waiting: Vec<Socket> = (0..20).map(|_| sim.dial(addr)).collect();
    // Deep in the back-off: the next attempt by timer is most of a second away.
    sim.run_for(ms(1800)).unwrap();
    clients[0].close();
    sim.run_for(ms(2)).unwrap();
    let served = waiting.iter().filter(|socket| echoes(&mut sim, socket)).count();
    assert_eq!(served, 1, "one descriptor, one newcomer");
}

#[test]
fn a1_a_descriptor_freed_elsewhere_is_found_within_the_back_off() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(4);
    let addr = serve(&mut sim, || Echo);
    let _clients: Vec<Socket> = (0..30).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1500)).unwrap();
    assert_eq!(sim.metrics().open, 4);
    sim.set_descriptors_max(100);
    sim.run_for(ms(1010)).unwrap();
    assert!(sim.metrics().open > 4, "{:?}", sim.metrics());
}

/// Lives for 40 ms.
struct Short;
impl Protocol for Short {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), ms(40));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.abort();
        Ok(())
    }
}

#[test]
fn a1_descriptors_that_come_and_go_do_not_make_accepts_fail_often() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(8);
    let addr = serve(&mut sim, || Short);
    // Always more clients than descriptors, and each of them short-lived.
    let mut clients: Vec<Socket> = Vec::new();
    for second in 0..3 {
        let before = sim.metrics();
        for _ in 0..200 {
            for _ in 0..3 {
                clients.push(sim.dial(addr));
            }
            sim.run_for(ms(5)).unwrap();
        }
        let failed = sim.metrics().accept_errors - before.accept_errors;
        let accepted = sim.metrics().accepted - before.accepted;
        assert!(failed <= 20, "{failed} accepts failed, {accepted} did not, in second {second}");
        assert!(accepted >= 100, "only {accepted} were accepted in second {second}");
        clients.clear();
    }
}

#[test]
fn a1_lingering_connections_yield_their_descriptors_first() {
    struct Brief;
    impl Protocol for Brief {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"bye");
            cx.close();
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(3);
    let addr = serve(&mut sim, || Brief);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        assert_eq!(client.take_received(), b"bye");
        // It never finishes, so that the server's end lingers.
        clients.push(client);
    }
    assert_eq!(sim.metrics().refused, 0, "{:?}", sim.metrics());
}

#[test]
fn a2_errors_of_one_newcomer_do_not_concern_the_next() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Echo);
    let errnos = [
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::EHOSTUNREACH,
        libc::EPERM,
        libc::ENOPROTOOPT,
        libc::ETIMEDOUT,
        libc::EINTR,
    ];
    for (nth, errno) in errnos.iter().enumerate() {
        sim.script(Call::Accept, nth as u64, Fault::Error(*errno));
    }
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    assert!(echoes(&mut sim, &client), "served in the same turn as the errors");
    assert_eq!(sim.metrics().accept_errors, 7, "all but EINTR are counted");
}

const RESOURCES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

#[test]
fn a3_a_lack_of_memory_pauses_the_listener_like_a_lack_of_descriptors() {
    for errno in RESOURCES {
        let mut sim = Sim::new(1);
        let addr = serve(&mut sim, || Echo);
        sim.run_for(ms(1)).unwrap();
        // The first accept, and the one with the reserve.
        sim.script(Call::Accept, 0, Fault::Error(errno));
        sim.script(Call::Accept, 1, Fault::Error(errno));
        let (first, second) = (sim.dial(addr), sim.dial(addr));
        sim.run_for(ms(9)).unwrap();
        assert_eq!((sim.metrics().open, sim.metrics().accept_errors), (0, 1));
        sim.run_for(ms(3)).unwrap();
        assert!(echoes(&mut sim, &first) && echoes(&mut sim, &second), "served after 10 ms");
        assert_eq!(sim.metrics().refused, 0);
    }
}

#[test]
fn a8_a_lack_that_is_over_at_once_turns_no_connection_away_and_pauses_nothing() {
    for errno in RESOURCES {
        let mut sim = Sim::new(1);
        let addr = serve(&mut sim, || Echo);
        sim.run_for(ms(1)).unwrap();
        for nth in 0..100 {
            sim.script(Call::Accept, 2 * nth, Fault::Error(errno));
        }
        let clients: Vec<Socket> = (0..20).map(|_| sim.dial(addr)).collect();
        sim.run_for(ms(1)).unwrap();
        assert_eq!((sim.metrics().open, sim.metrics().refused), (20, 0));
        assert!(clients.iter().all(|client| echoes(&mut sim, client)));
        assert_eq!(sim.metrics().accept_errors, 20);
    }
}

#[test]
fn a9_accepts_that_always_fail_are_few_after_the_64th_and_the_listener_recovers() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut sim = sim_with(1, |limits| limits.accepts_max = 5);
        let addr = serve(&mut sim, || Echo);
        let other = serve(&mut sim, || Echo);
        sim.run_for(ms(1)).unwrap();
        for nth in 0..64 + 7 {
            sim.script(Call::Accept, nth, Fault::Error(errno));
        }
        let client = sim.dial(addr);
        for (after, errors) in [(2, 64), (11, 65), (21, 66), (41, 67), (81, 68), (161, 69)] {
            sim.run_for(ms(after)).unwrap();
            assert_eq!(sim.metrics().accept_errors, errors);
        }
        let turns = sim.metrics().turns;
        sim.run_for(ms(300)).unwrap();
        assert!(sim.metrics().turns - turns < 5, "a listener that pauses does not spin");
        sim.run_for(ms(700)).unwrap();
        assert_eq!(sim.metrics().accept_errors, 71);
        let elsewhere = sim.dial(other);
        assert!(echoes(&mut sim, &elsewhere), "another listener is not concerned");
        assert!(!echoes(&mut sim, &client));
        sim.run_for(ms(1000)).unwrap();
        assert_eq!(client.take_received(), b"?", "the same connection, without another");
    }
}

#[test]
fn a5_accepts_per_turn_are_bounded_and_the_rest_follow() {
    let mut sim = sim_with(1, |limits| limits.accepts_max = 5);
    let addr = serve(&mut sim, || Sink);
    let _clients: Vec<Socket> = (0..23).map(|_| sim.dial(addr)).collect();
    let mut before = 0;
    while sim.metrics().accepted < 23 {
        assert!(sim.metrics().turns < 100, "{} of 23 accepted", sim.metrics().accepted);
        sim.turn(None).unwrap();
        let accepted = sim.metrics().accepted;
        assert!(accepted - before <= 5, "{} accepted in one turn", accepted - before);
        before = accepted;
    }
}

#[test]
fn a6_the_listener_comes_back_by_itself_when_room_is_made() {
    let mut sim = sim_with(1, |limits| limits.connections_max = 2);
    let addr = serve(&mut sim, || Echo);
    let (first, second) = (sim.dial(addr), sim.dial(addr));
    sim.run_for(ms(1)).unwrap();
    let third = sim.dial(addr);
    sim.run_for(ms(100)).unwrap();
    assert_eq!(sim.metrics().open, 2);
    let turns = sim.metrics().turns;
    sim.run_for(ms(1000)).unwrap();
    assert!(sim.metrics().turns - turns < 5, "a full listener does not spin");
    drop(first);
    sim.run_for(ms(2)).unwrap();
    assert!(echoes(&mut sim, &third), "no new client was needed");
    drop(second);
}

/// Answers with a word and closes, and so lingers until its peer has finished too.
struct Brief;
impl Protocol for Brief {
    fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.write(b"bye");
        cx.close();
        Ok(())
    }
}

#[test]
fn a6_a_connection_that_lingers_gives_its_place_back_at_once() {
    let mut sim = sim_with(1, |limits| limits.connections_max = 1);
    let addr = serve(&mut sim, || Brief);
    let clients: Vec<Socket> = (0..3).map(|_| sim.dial(addr)).collect();
    for (at, client) in clients.iter().enumerate() {
        client.send(b"!");
        sim.run_for(ms(1)).unwrap();
        assert_eq!(client.take_received(), b"bye");
        assert_eq!(sim.metrics().lingering, at as u64 + 1);
    }
}

#[test]
fn a6_the_loop_does_not_wait_while_connections_are_left_over() {
    let mut sim = sim_with(1, |limits| limits.accepts_max = 1);
    // Refused at once: nothing of them is registered, so that no event of theirs ends a wait.
    let listener = sim.listen("127.0.0.1:0", |_| None::<Echo>).unwrap();
    let addr = sim.addresses(listener)[0];
    let _clients: Vec<Socket> = (0..5).map(|_| sim.dial(addr)).collect();
    sim.run_until(|sim| sim.metrics().refused == 1).unwrap();
    let began = sim.now();
    for refused in 2..=5 {
        sim.turn(Some(ms(1000))).unwrap();
        assert_eq!((sim.metrics().refused, sim.now()), (refused, began));
    }
}

#[test]
fn a6_overload_by_shedding_turns_the_rest_away_at_once() {
    let mut sim = sim_with(1, |limits| {
        limits.connections_max = 2;
        limits.overload = Overload::Shed;
    });
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..5).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    assert_eq!((sim.metrics().open, sim.metrics().refused), (2, 3));
    let gone = clients.iter().filter(|c| c.is_finished() || c.is_reset()).count();
    assert_eq!(gone, 3);
}

#[test]
fn c12_a_failed_registration_refuses_that_connection_alone() {
    for errno in [libc::ENOMEM, libc::ENOSPC] {
        let mut sim = Sim::new(1);
        let addr = serve(&mut sim, || Echo);
        sim.script(Call::Register, 0, Fault::Error(errno));
        let first = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        assert!(first.is_finished() || first.is_reset());
        assert_eq!((sim.metrics().open, sim.metrics().accepted), (0, 0));
        let second = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        assert!(echoes(&mut sim, &second));

        let trace = Trace::new();
        sim.script(Call::Register, 0, Fault::Error(errno));
        sim.control().connect_local(addr, trace.wrap("client", Sink));
        sim.run_for(ms(1)).unwrap();
        assert_eq!(
            trace.of("client"),
            ["closed connect failed, no descriptor left by the runtime"]
        );
        drop((first, second));
        sim.run_for(ms(1)).unwrap();
        assert_eq!(sim.metrics().open, 0);
    }
}

/// Tells its id.
struct Named(Rc<RefCell<Vec<String>>>);

impl Protocol for Named {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.borrow_mut().push(cx.id().to_string());
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn the_slot_of_a_connection_that_could_not_be_watched_is_given_out_again() {
    let mut sim = Sim::new(1);
    let names = Rc::new(RefCell::new(Vec::new()));
    let tells = Rc::clone(&names);
    let addr = serve(&mut sim, move || Named(Rc::clone(&tells)));
    for _ in 0..3 {
        sim.script(Call::Register, 0, Fault::Error(libc::ENOSPC));
        let refused = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        assert!(refused.is_finished() || refused.is_reset());
    }
    let _client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    assert_eq!(*names.borrow(), ["c0.4"]);
    let metrics = sim.metrics();
    assert_eq!((metrics.accept_errors, metrics.accepted, metrics.refused), (3, 1, 0));
}

#[test]
fn a_factory_that_panics_refuses_one_newcomer_and_the_listener_lives() {
    crate::quiet_planned_panics();
    let mut sim = Sim::new(1);
    let made: Count = Rc::default();
    let counted = Rc::clone(&made);
    let listener = sim
        .listen("127.0.0.1:0", move |_| {
            counted.set(counted.get() + 1);
            match counted.get() {
                1 => panic!("planned"),
                2 => None,
                _ => Some(Echo),
            }
        })
        .unwrap();
    let addr = sim.addresses(listener)[0];
    for refused in [true, true, false] {
        let client = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        assert_eq!(!echoes(&mut sim, &client), refused);
    }
    assert_eq!((sim.metrics().panics, sim.metrics().refused), (1, 2));
}

/// Closes at once, and keeps the reason.
struct Leaver(Reasons);

impl Protocol for Leaver {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.close();
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.keep(reason);
    }
}

#[test]
fn of_those_that_linger_the_oldest_makes_room() {
    let (mut sim, reasons) = (sim_with(1, |limits| limits.lingering_max = 2), Reasons::default());
    let told = reasons.clone();
    let addr = serve(&mut sim, move || Leaver(told.clone()));
    let clients: Vec<Socket> = (0..4)
        .map(|_| {
            let client = sim.dial(addr);
            sim.run_for(ms(1)).unwrap();
            client
        })
        .collect();
    assert_eq!(sim.metrics().lingering, 2);
    assert_eq!(reasons.sentences(), ["finished by us"; 2]);
    // What comes to a closed socket is answered with a reset.
    clients.iter().for_each(|client| client.send(b"late"));
    sim.run_for(ms(1)).unwrap();
    let cut: Vec<bool> = clients.iter().map(Socket::is_reset).collect();
    assert_eq!(cut, [true, true, false, false]);
}

#[cfg(feature = "fd")]
#[test]
fn c12_a_stream_that_is_adopted_and_cannot_be_watched_is_told_why() {
    let (mut sim, reasons) = (Sim::new(1), Reasons::default());
    sim.script(Call::Register, 0, Fault::Error(libc::ENOSPC));
    let _end = sim.pipe(Limits::default(), Leaver(reasons.clone())).unwrap();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(reasons.sentences(), ["connect failed, no descriptor left by the runtime"]);
    let reasons = reasons.0.borrow();
    let error = reasons[0].error().and_then(|error| error.downcast_ref::<std::io::Error>());
    assert_eq!(error.and_then(std::io::Error::raw_os_error), Some(libc::ENOSPC));
}

#[test]
fn accepts_max_is_for_each_listener_with_all_its_sockets() {
    let mut sim = sim_with(1, |limits| limits.accepts_max = 3);
    let two = |port| ["10.0.0.1", "10.0.0.2"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    let mut clients = Vec::new();
    for port in [1, 2] {
        let listener = sim.listen(two(port), |_| Some(Echo)).unwrap();
        assert_eq!(sim.addresses(listener).len(), 2);
        // All of them come in the same turn.
        clients.extend(two(port).iter().flat_map(|addr| [addr; 5]).map(|addr| sim.dial(*addr)));
    }
    let mut accepted = Vec::new();
    while sim.metrics().accepted < 20 {
        let before = sim.metrics().accepted;
        sim.turn(None).unwrap();
        accepted.push(sim.metrics().accepted - before);
    }
    accepted.retain(|count| *count > 0);
    assert!(accepted[0] == 6 && accepted.iter().all(|count| *count <= 6), "{accepted:?}");
}

struct Idle;
impl DatagramProtocol for Idle {
    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a1_the_descriptor_of_a_datagram_socket_is_used_at_once() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(4);
    let addr = serve(&mut sim, || Echo);
    let bound = sim.bind("127.0.0.1:0", Idle).unwrap();
    let _clients: Vec<Socket> = (0..3).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    let waiting: Vec<Socket> = (0..20).map(|_| sim.dial(addr)).collect();
    // Deep in the back-off: the next attempt by timer is most of a second away.
    sim.run_for(ms(1800)).unwrap();
    sim.control().peer(bound).close();
    sim.run_for(ms(2)).unwrap();
    let served = waiting.iter().filter(|socket| echoes(&mut sim, socket)).count();
    assert_eq!(served, 1, "one descriptor, one newcomer");
}

/// Closes at once.
struct Leaving;
impl Protocol for Leaving {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.close();
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a1_a_connect_without_a_descriptor_takes_that_of_the_oldest_that_lingers() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(2);
    let addr = serve(&mut sim, || Leaving);
    let acceptor = sim.acceptor("10.0.0.9:1").unwrap();
    // They keep their side open.
    let (oldest, other) = (sim.dial(addr), sim.dial(addr));
    sim.run_for(ms(2)).unwrap();
    assert_eq!(sim.metrics().lingering, 2);
    sim.connect("10.0.0.9:1", Sink);
    sim.run_for(ms(2)).unwrap();
    assert!(acceptor.accept().is_some());
    let metrics = sim.metrics();
    assert_eq!((metrics.lingering, metrics.open, metrics.closes.connect), (1, 1, 0));
    // What comes too late is answered with a reset.
    oldest.send(b"x");
    other.send(b"x");
    sim.run_for(ms(2)).unwrap();
    assert!(oldest.is_reset() && !other.is_reset());
}
