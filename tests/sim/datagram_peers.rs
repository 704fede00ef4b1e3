//! The table of peers, to the datagram and to the millisecond.

use std::time::Duration;

use lariat::datagram_peers::{Full, PeerContext, PeerEnd, PeerProtocol, Peers, ToPeer};
use lariat::sim::{DatagramSocket, Sim};
use lariat::{Datagram, Endpoint, Note, Outcome, Timer};

use crate::kit::ms;

const TICK: Timer = Timer::new(7);

/// Answers with how many datagrams its peer has sent, and `end` when it ends.
struct Counting(u32);

impl PeerProtocol for Counting {
    fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, datagram: &Datagram<'_>) -> Outcome {
        self.0 += 1;
        if &**datagram == b"tick" {
            cx.set_timer(TICK, ms(100));
        }
        if &**datagram == b"now" {
            cx.set_timer(TICK, Duration::ZERO);
        }
        cx.send(self.0.to_string().as_bytes())?;
        Ok(())
    }

    fn timeout(&mut self, cx: &mut PeerContext<'_, '_>, _: Timer) -> Outcome {
        cx.send(b"tick")?;
        if self.0 > 100 {
            cx.set_timer(TICK, Duration::ZERO);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut PeerContext<'_, '_>, end: &PeerEnd) {
        let _ = cx.send(end.to_string().as_bytes());
    }
}

type Made = Peers<Counting, fn(Endpoint) -> Option<Counting>>;

fn counting() -> Made {
    Peers::new(|addr| (addr.port() != Some(6)).then_some(Counting(0)))
}

fn serve(sim: &mut Sim, made: Made) -> Endpoint {
    let id = sim.control().bind("10.0.0.1:9", made).unwrap();
    sim.bound_addr(id).unwrap()
}

fn client(sim: &Sim, port: u16) -> DatagramSocket {
    sim.datagram_socket(format!("10.0.0.2:{port}").as_str()).unwrap()
}

fn heard(socket: &DatagramSocket) -> Vec<String> {
    let received = socket.take_received().into_iter();
    received.map(|(_, bytes)| String::from_utf8(bytes.into_vec()).unwrap()).collect()
}

#[test]
fn as_many_peers_as_there_are_places_and_no_more() {
    for (max, port) in [(None, 1024), (Some(3), 3)] {
        let mut sim = Sim::new(1);
        let made = max.into_iter().fold(counting(), Peers::max);
        let counters = made.counters();
        let server = serve(&mut sim, made);
        let clients: Vec<_> = (0..=port).map(|n| client(&sim, 1000 + n)).collect();
        for one in &clients {
            one.send_to(b"x", server);
            sim.run_for(ms(1)).unwrap();
        }
        let (last, others) = clients.split_last().unwrap();
        assert!(others.iter().all(|one| heard(one) == ["1"]));
        assert_eq!(heard(last), [""; 0], "there is no place for it");
        let counts = counters.get();
        assert_eq!((counts.open, counts.refused), (u64::from(port), 1));
        // A place that is free is taken.
        sim.run_for(Duration::from_secs(61)).unwrap();
        last.send_to(b"x", server);
        sim.run_for(ms(1)).unwrap();
        assert_eq!(heard(last), ["1"]);
        let counts = counters.get();
        assert_eq!((counts.open, counts.idle), (1, u64::from(port)));
    }
}

#[test]
fn a_peer_that_the_factory_refuses_takes_no_place_and_drives_none_out() {
    let mut sim = Sim::new(1);
    let made = counting().max(1).when_full(Full::Evict);
    let counters = made.counters();
    let server = serve(&mut sim, made);
    let (good, bad) = (client(&sim, 1000), client(&sim, 6));
    good.send_to(b"x", server);
    sim.run_for(ms(1)).unwrap();
    bad.send_to(b"x", server);
    sim.run_for(ms(1)).unwrap();
    good.send_to(b"x", server);
    sim.run_for(ms(1)).unwrap();
    assert_eq!((heard(&good), heard(&bad)), (vec!["1".to_owned(), "2".to_owned()], vec![]));
    let counts = counters.get();
    assert_eq!((counts.refused, counts.evicted, counts.open), (1, 0, 1));
}

#[test]
fn silence_is_counted_from_the_last_datagram_of_the_peer_alone() {
    let mut sim = Sim::new(1);
    let server = serve(&mut sim, counting().idle(Some(ms(1000))));
    let (one, two) = (client(&sim, 1), client(&sim, 2));
    one.send_to(b"x", server);
    two.send_to(b"tick", server);
    sim.run_for(ms(600)).unwrap();
    one.send_to(b"x", server);
    // What was sent to the other one in the meantime does not keep it.
    sim.run_for(ms(399)).unwrap();
    assert_eq!(heard(&two), ["1", "tick"]);
    sim.run_for(ms(3)).unwrap();
    assert_eq!(heard(&two), ["silent for too long"]);
    assert_eq!(heard(&one), ["1", "2"]);
    sim.run_for(ms(597)).unwrap();
    assert_eq!(heard(&one), [""; 0]);
    sim.run_for(ms(3)).unwrap();
    assert_eq!(heard(&one), ["silent for too long"]);
    let mut sim = Sim::new(1);
    let server = serve(&mut sim, counting().idle(None));
    let one = client(&sim, 1);
    one.send_to(b"x", server);
    sim.run_for(Duration::from_secs(100_000)).unwrap();
    assert_eq!(heard(&one), ["1"]);
}

#[test]
fn a_timer_that_is_set_again_at_once_fires_once_a_turn() {
    let mut sim = Sim::new(1);
    let server = serve(&mut sim, counting());
    let one = client(&sim, 1);
    for _ in 0..100 {
        one.send_to(b"x", server);
    }
    one.send_to(b"now", server);
    sim.run_until(|sim| sim.metrics().datagrams_in == 101).unwrap();
    let mut fired = 0;
    for _ in 0..40 {
        let before = sim.metrics().datagrams_out;
        sim.turn(Some(ms(1))).unwrap();
        let sent = sim.metrics().datagrams_out - before;
        assert!(sent <= 1, "{sent} times in one turn");
        fired += sent;
    }
    assert!(fired >= 10, "{fired} times in all");
}

#[test]
fn a_timer_of_a_peer_that_has_ended_is_not_that_of_the_next_one() {
    let mut sim = Sim::new(1);
    let server = serve(&mut sim, counting().max(1).when_full(Full::Evict));
    let (one, two) = (client(&sim, 1), client(&sim, 2));
    one.send_to(b"tick", server);
    sim.run_for(ms(1)).unwrap();
    two.send_to(b"x", server);
    sim.run_for(ms(500)).unwrap();
    assert_eq!(heard(&one), ["1", "evicted for another one"]);
    assert_eq!(heard(&two), ["1"]);
}

#[test]
fn a_note_for_a_peer_that_is_not_there_is_dropped() {
    let mut sim = Sim::new(1);
    let id = sim.control().bind("10.0.0.1:9", counting()).unwrap();
    let nobody: Endpoint = std::net::SocketAddr::from(([10, 0, 0, 2], 5)).into();
    sim.control().peer(id).notify(Note::new(ToPeer::new(nobody, Note::new(1))));
    sim.run_for(ms(1)).unwrap();
    assert_eq!((sim.metrics().panics, sim.metrics().bound), (0, 1));
}

#[test]
fn a_factory_that_panics_refuses_that_peer_alone() {
    crate::quiet_planned_panics();
    let mut sim = Sim::new(1);
    let made = Peers::new(|addr: Endpoint| match addr.port() {
        Some(6) => std::panic::panic_any("planned"),
        _ => Some(Counting(0)),
    });
    let counters = made.counters();
    let id = sim.control().bind("10.0.0.1:9", made).unwrap();
    let server = sim.bound_addr(id).unwrap();
    let (bad, good) = (client(&sim, 6), client(&sim, 7));
    for one in [&bad, &good] {
        one.send_to(b"x", server);
        sim.run_for(ms(1)).unwrap();
    }
    assert_eq!((heard(&bad), heard(&good)), (vec![], vec!["1".to_owned()]));
    assert_eq!((counters.get().refused, sim.metrics().panics), (1, 1));
}

/// Sets a timer when a note comes, and tells what can be cancelled when it fires.
struct Noted;

impl PeerProtocol for Noted {
    fn datagram(&mut self, cx: &mut PeerContext<'_, '_>, datagram: &Datagram<'_>) -> Outcome {
        if &**datagram == b"twice" {
            cx.set_timer(TICK, ms(500));
            cx.set_timer(TICK, ms(50));
            assert!(cx.cancel_timer(TICK) && !cx.cancel_timer(TICK));
            cx.set_timer(TICK, ms(70));
        }
        Ok(())
    }

    fn notified(&mut self, cx: &mut PeerContext<'_, '_>, _: &Note) -> Outcome {
        cx.set_timer(TICK, ms(100));
        Ok(())
    }

    fn timeout(&mut self, cx: &mut PeerContext<'_, '_>, timer: Timer) -> Outcome {
        let cancelled = cx.cancel_timer(timer);
        cx.send(if cancelled { b"cancelled" } else { b"fired" }).map_err(Into::into)
    }
}

#[test]
fn a_timer_that_a_note_sets_fires_without_another_datagram() {
    for to_all in [false, true] {
        let mut sim = Sim::new(1);
        let id = sim.control().bind("10.0.0.1:9", Peers::new(|_| Some(Noted))).unwrap();
        let addr = sim.bound_addr(id).unwrap();
        let ann = client(&sim, 7);
        ann.send_to(b"hello", addr);
        sim.run_for(ms(10)).unwrap();
        let to: Endpoint = std::net::SocketAddr::from(([10, 0, 0, 2], 7)).into();
        let note = if to_all { Note::new(()) } else { Note::new(ToPeer::new(to, Note::new(()))) };
        sim.control().peer(id).notify(note);
        sim.run_for(ms(99)).unwrap();
        assert!(heard(&ann).is_empty());
        sim.run_for(ms(3)).unwrap();
        // It has fired, and so there is nothing to cancel.
        assert_eq!(heard(&ann), ["fired"]);
        ann.send_to(b"twice", addr);
        sim.run_for(ms(1000)).unwrap();
        assert_eq!(heard(&ann), ["fired"]);
    }
}

#[test]
fn any_number_of_peers_that_fall_silent_together_end_without_more_traffic() {
    let mut sim = Sim::new(1);
    let made = counting().max(2000).idle(Some(ms(1000)));
    let counters = made.counters();
    let addr = serve(&mut sim, made);
    let clients: Vec<_> = (0..1100).map(|at| client(&sim, 1000 + at)).collect();
    clients.iter().for_each(|client| client.send_to(b"x", addr));
    sim.run_for(ms(900)).unwrap();
    assert_eq!((counters.get().open, counters.get().opened), (1100, 1100));
    sim.run_for(ms(150)).unwrap();
    assert_eq!((counters.get().open, counters.get().idle), (0, 1100));
}

/// Sets a timer when a note comes, which it does not handle.
struct Least;

impl PeerProtocol for Least {
    fn datagram(&mut self, _: &mut PeerContext<'_, '_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }

    fn notified(&mut self, cx: &mut PeerContext<'_, '_>, _: &Note) -> Outcome {
        cx.set_timer(TICK, ms(100));
        Ok(())
    }

    fn closed(&mut self, cx: &mut PeerContext<'_, '_>, end: &PeerEnd) {
        let _ = cx.send(end.to_string().as_bytes());
    }
}

#[test]
fn a_timer_that_a_note_sets_fires_and_ends_a_peer_that_says_no_more() {
    let mut sim = Sim::new(1);
    let id = sim.control().bind("10.0.0.1:9", Peers::new(|_| Some(Least))).unwrap();
    let one = client(&sim, 7);
    one.send_to(b"x", sim.bound_addr(id).unwrap());
    sim.run_for(ms(1)).unwrap();
    sim.control().peer(id).notify(Note::new(()));
    sim.run_for(ms(99)).unwrap();
    assert_eq!(heard(&one), [""; 0]);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(heard(&one), ["closed"]);
}

#[test]
fn a_timer_that_has_fired_is_not_that_of_another_peer() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, counting());
    let (ann, bob) = (client(&sim, 7), client(&sim, 8));
    ann.send_to(b"tick", addr);
    sim.run_for(ms(150)).unwrap();
    assert_eq!(heard(&ann), ["1", "tick"]);
    // Bob's takes the place of Ann's, who sets one again.
    bob.send_to(b"tick", addr);
    sim.run_for(ms(50)).unwrap();
    ann.send_to(b"tick", addr);
    sim.run_for(ms(200)).unwrap();
    assert_eq!(
        (heard(&bob), heard(&ann)),
        (vec!["1".into(), "tick".into()], vec!["2".into(), "tick".into()])
    );
}

#[test]
fn c17_peers_whose_datagrams_came_while_the_process_was_stopped_are_not_silent() {
    // More than one turn shows of a socket.
    const PEERS: u16 = 500;
    let mut sim = Sim::new(1);
    let server = serve(&mut sim, counting().idle(Some(ms(200))));
    let clients: Vec<_> = (100..100 + PEERS).map(|port| client(&sim, port)).collect();
    let say = || clients.iter().for_each(|client| client.send_to(b"x", server));
    say();
    sim.run_for(ms(100)).unwrap();
    assert!(clients.iter().all(|client| heard(client) == ["1"]));
    say();
    sim.stop_for(ms(400));
    sim.run_for(ms(100)).unwrap();
    for client in &clients {
        assert_eq!(heard(client), ["2"]);
    }
    // Then they are.
    sim.run_for(ms(200)).unwrap();
    assert!(clients.iter().all(|client| heard(client) == ["silent for too long"]));
}
