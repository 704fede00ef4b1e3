//! Connects by name and to several addresses, in virtual time.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use lariat::sim::{Call, Fault, Faults, Link, Sim};
use lariat::{
    AddressErrors, By, CloseKind, CloseReason, ConnectFailure, Context, Deadline, Endpoint, Input,
    Limits, Outcome, Protocol,
};

use crate::kit::{Sink, ms, serve};

/// How a connect went: which peer it has, and how long it took; or how it ended.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Facts>>);

#[derive(Default)]
struct Facts {
    peer: Option<Endpoint>,
    took: Duration,
    ended: Option<CloseReason>,
}

impl Protocol for Told {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.borrow_mut().peer = Some(cx.peer_addr());
        self.0.borrow_mut().took = cx.age();
        cx.close();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.borrow_mut().ended = Some(reason.clone());
    }
}

impl Told {
    fn kind(&self) -> CloseKind {
        self.0.borrow().ended.as_ref().expect("it has ended").kind()
    }
}

/// Connects, and waits for the end. Returns how long that took.
fn connect(sim: &mut Sim, addr: impl lariat::IntoAddress) -> (Told, Duration) {
    let (told, begun) = (Told::default(), sim.now());
    sim.control().connect_local(addr, told.clone());
    sim.run_until(|_| told.0.borrow().ended.is_some()).unwrap();
    (told, sim.now() - begun)
}

fn server(sim: &mut Sim) -> SocketAddr {
    serve(sim, || Sink)
}

#[test]
fn a_simulated_name_has_the_addresses_that_it_was_given() {
    let mut sim = Sim::new(1);
    let addr = server(&mut sim);
    let name = format!("server.test:{}", addr.port());
    let unknown = CloseKind::Connect(ConnectFailure::Name);
    assert_eq!(connect(&mut sim, &name).0.kind(), unknown);
    // IPv6 comes first, and refuses.
    let six: IpAddr = "2001:db8::1".parse().unwrap();
    sim.add_name("server.test", &[addr.ip(), six]);
    let (told, took) = connect(&mut sim, &name);
    assert_eq!(told.0.borrow().peer, Some(addr.into()));
    assert!(took >= ms(1) && took < ms(5), "a lookup takes a millisecond: {took:?}");
    sim.add_name("server.test", &[]);
    assert_eq!(connect(&mut sim, &name).0.kind(), unknown);
    sim.set_resolver(move |host: &str, port: u16| {
        assert_eq!((host, port), ("other.test", 1));
        Ok(vec![addr])
    });
    assert_eq!(connect(&mut sim, "other.test:1").0.0.borrow().peer, Some(addr.into()));
    let metrics = sim.metrics();
    assert_eq!((metrics.jobs, metrics.failed_jobs), (4, 0));
}

#[test]
fn d1_an_address_has_250_ms_for_itself_and_one_that_fails_has_none() {
    let (mut at_once, mut late) = (0, 0);
    for seed in 0..200 {
        let mut sim = Sim::new(seed);
        let mut faults = Faults::none();
        faults.connect_errors = 400;
        sim.set_faults(faults);
        let (first, second) = (server(&mut sim), server(&mut sim));
        let (told, took) = connect(&mut sim, [first, second]);
        let peer = told.0.borrow().peer;
        if peer == Some(second.into()) {
            let waited = (ms(250)..ms(252)).contains(&took);
            assert!(took < ms(2) || waited, "seed {seed}: {took:?}");
            (at_once, late) = (at_once + u32::from(!waited), late + u32::from(waited));
        } else if peer == Some(first.into()) {
            assert!(took < ms(2), "seed {seed}: {took:?}");
        } else {
            let kind = told.kind();
            let timed_out = kind == CloseKind::TimedOut(Deadline::Connect);
            assert!(timed_out || matches!(kind, CloseKind::Connect(_)), "{kind:?}");
            let facts = told.0.borrow();
            let error = facts.ended.as_ref().unwrap().error().unwrap();
            let errors: &AddressErrors = error.downcast_ref().unwrap();
            let mut addrs: Vec<Endpoint> = errors.iter().map(|(addr, _)| addr).collect();
            addrs.sort_by_key(|addr| addr.port());
            assert_eq!(addrs, [first, second].map(Endpoint::from), "each of them once");
            let silent = errors.iter().any(|(_, error)| error.kind() == io::ErrorKind::TimedOut);
            assert_eq!(silent, timed_out, "seed {seed}: {error}");
        }
    }
    assert!(at_once > 5 && late > 5, "both happen: {at_once} and {late}");
}

#[test]
fn the_sockets_of_those_that_lost_are_closed() {
    let mut sim = Sim::new(3);
    // Enough for one race, its server and what lingers.
    sim.set_descriptors_max(8);
    let mut faults = Faults::none();
    faults.connect_errors = 300;
    sim.set_faults(faults);
    let addrs = [server(&mut sim), server(&mut sim), server(&mut sim)];
    let mut opened = 0;
    for _ in 0..100 {
        let (told, _) = connect(&mut sim, addrs);
        opened += u32::from(told.0.borrow().peer.is_some());
        let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
        assert_ne!(told.kind(), exhausted);
        sim.run_for(ms(20_000)).unwrap();
    }
    assert!(opened > 60, "{opened}");
    assert_eq!(sim.metrics().open, 0);
}

fn link(latency: Duration) -> Link {
    let mut link = Link::default();
    link.latency = latency;
    link
}

#[test]
fn d1_behind_a_black_hole_a_connect_takes_250_ms_and_the_round_trip() {
    for round_trip in [2, 80, 300] {
        let mut sim = Sim::new(1);
        let (hole, addr) = (server(&mut sim), server(&mut sim));
        sim.set_link(link(Duration::from_secs(3600)));
        let told = Told::default();
        sim.control().connect_local([hole, addr], told.clone());
        // The first attempt has begun: what follows goes the short way.
        sim.run_for(ms(1)).unwrap();
        sim.set_link(link(ms(round_trip / 2)));
        sim.run_for(ms(1000)).unwrap();
        let facts = told.0.borrow();
        assert_eq!(facts.peer, Some(addr.into()));
        assert_eq!(facts.took, ms(250 + round_trip));
    }
}

#[test]
fn d1_each_failure_of_a_connect_is_a_plain_reason() {
    let cases = [
        (libc::ECONNREFUSED, By::Peer, "connect refused by the peer"),
        (libc::ENETUNREACH, By::Peer, "connect failed, unreachable by the peer"),
        (libc::EHOSTUNREACH, By::Peer, "connect failed, unreachable by the peer"),
        (libc::ETIMEDOUT, By::Runtime, "timed out (connect) by the runtime"),
        (libc::EADDRNOTAVAIL, By::Runtime, "connect failed, address unavailable by the runtime"),
        (libc::EMFILE, By::Runtime, "connect failed, no descriptor left by the runtime"),
    ];
    for (errno, by, sentence) in cases {
        let mut sim = Sim::new(1);
        let addr = server(&mut sim);
        sim.script(Call::Connect, 0, Fault::Error(errno));
        let (told, _) = connect(&mut sim, addr);
        let facts = told.0.borrow();
        let reason = facts.ended.as_ref().unwrap();
        assert_eq!((reason.by(), facts.peer), (by, None));
        assert!(reason.to_string().starts_with(sentence), "{reason}");
        let error = reason.error().unwrap().downcast_ref::<io::Error>();
        assert_eq!(error.unwrap().raw_os_error(), Some(errno), "the error of the system is kept");
    }
    let mut sim = Sim::new(1);
    let reason = connect(&mut sim, "nobody.test:1").0.0.borrow().ended.clone().unwrap();
    let sentence = "connect failed, no address found by the runtime (nobody.test:1: ";
    assert!(reason.to_string().starts_with(sentence), "{reason}");
}

#[test]
fn an_attempt_that_fails_takes_the_time_of_the_next_one_with_it() {
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    link.latency = ms(100);
    sim.set_link(link);
    // Nobody listens: each attempt is refused after 200 ms, which is before the next one's time.
    let addrs = [1, 2, 3, 4].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (told, took) = connect(&mut sim, addrs);
    assert_eq!(told.kind(), CloseKind::Connect(ConnectFailure::Refused));
    assert!((ms(800)..ms(805)).contains(&took), "one after the other: {took:?}");
}

#[test]
fn the_descriptors_of_a_race_that_is_given_up_go_to_a_listener_that_lacks_one() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(1);
    let addr = serve(&mut sim, || Sink);
    // So far away that no answer comes; who dials from now on is near.
    let mut far = Link::default();
    far.latency = Duration::from_secs(60);
    sim.set_link(far);
    let told = Told::default();
    let mut limits = Limits::default();
    limits.connect = ms(430);
    let addrs = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    sim.control().connect_local_with(addrs, limits.into(), told.clone()).unwrap();
    sim.run_for(ms(1)).unwrap();
    sim.set_link(Link::default());
    // Each is turned away, and the pause behind it is twice as long: 10, 20, 40, 80 ms.
    let mut began = ms(1);
    for at in [300, 320, 350, 400] {
        sim.run_for(ms(at) - began).unwrap();
        began = ms(at);
        let newcomer = sim.dial(addr);
        sim.run_for(ms(1)).unwrap();
        began += ms(1);
        assert!(newcomer.is_finished() || newcomer.is_reset());
    }
    let waits = sim.dial(addr);
    sim.run_for(ms(25)).unwrap();
    assert_eq!((sim.metrics().refused, sim.metrics().accepted), (4, 0));
    assert!(!waits.is_finished() && !waits.is_reset());
    sim.run_for(ms(25)).unwrap();
    assert_eq!(told.kind(), CloseKind::TimedOut(Deadline::Connect));
    assert_eq!((sim.metrics().refused, sim.metrics().accepted), (4, 1));
}
