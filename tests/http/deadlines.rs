//! Slow peers and slow handlers, on the simulator's clock.

use std::sync::Arc;
use std::time::Duration;

use lariat::http::{Http, Rules};
use lariat::sim::Probe;
use lariat::{CloseKind, Deadline, DriverLimits};

use crate::answer::{all, only};
use crate::kit::serve;
use crate::site::Site;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn h15_a_head_that_drips_is_cut_at_its_deadline() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(b"G");
    for _ in 0..9 {
        probe.advance(SECOND);
        probe.receive(b"E");
    }
    assert_eq!(probe.sent(), b"");
    probe.advance(SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn h15_the_second_head_has_its_own_deadline() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(GET);
    probe.advance(30 * SECOND);
    probe.receive(b"GET");
    assert_eq!(only(&probe.sent()).status, 200);
    probe.advance(9 * SECOND);
    assert!(probe.sent().is_empty());
    probe.advance(2 * SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn h15_each_request_gives_an_idle_connection_new_time() {
    let mut probe = Probe::new(Http::new(Site));
    for _ in 0..5 {
        probe.receive(GET);
        probe.advance(59 * SECOND);
    }
    assert_eq!(all(&probe.sent()).0.len(), 5);
    assert!(probe.closed().is_none());
    probe.advance(2 * SECOND);
    assert_eq!(probe.sent(), b"");
    probe.advance(10 * SECOND);
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::TimedOut(Deadline::Idle));
}

#[test]
fn h15_a_body_may_take_its_time_as_long_as_it_keeps_its_rate() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    // 2,000 bytes a second is enough: for 50 s.
    for _ in 0..50 {
        probe.advance(SECOND);
        assert!(probe.sent().is_empty());
        probe.receive(&[b'a'; 2000]);
    }
    assert_eq!(only(&probe.sent()).body, b"100000 bytes\n");
    // 500 a second is not: after 10 s it owes 1,024 more each.
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    let mut seconds = 0;
    let answer = loop {
        probe.advance(SECOND);
        seconds += 1;
        let sent = probe.sent();
        if !sent.is_empty() {
            break only(&sent);
        }
        probe.receive(&[b'a'; 500]);
    };
    assert!(answer.status == 408 && (18..=21).contains(&seconds), "{seconds} s, {answer:?}");
}

#[test]
fn h15_a_whole_body_can_have_a_deadline_too() {
    let mut rules = Rules::default();
    rules.body_total = Some(20 * SECOND);
    let mut probe = Probe::new(Http::with_rules(Site, Arc::new(rules)).unwrap());
    probe.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    for _ in 0..19 {
        probe.advance(SECOND);
        probe.receive(&[b'a'; 10_000]);
    }
    assert!(probe.sent().is_empty());
    probe.advance(2 * SECOND);
    assert_eq!(only(&probe.sent()).status, 408);
}

#[test]
fn a_handler_that_never_answers_is_answered_for_and_others_are_served() {
    let mut probe = Probe::new(Http::new(Site));
    probe.receive(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
    probe.advance(59 * SECOND);
    assert!(probe.sent().is_empty());
    probe.advance(2 * SECOND);
    let answer = only(&probe.sent());
    assert!(answer.status == 503 && answer.closes());
}

#[test]
fn h15_b6_a_thousand_slow_heads_are_cut_while_another_client_is_served() {
    let mut limits = DriverLimits::default();
    limits.connections_max = 2000;
    let mut sim = lariat::sim::Sim::with_limits(3, limits).unwrap();
    let addr = serve(&mut sim, || Http::new(Site));
    let slow: Vec<_> = (0..1000).map(|_| sim.dial(addr)).collect();
    let healthy = sim.dial(addr);
    let mut answers = 0;
    for _ in 0..25 {
        for client in &slow {
            client.send(b"G");
        }
        healthy.send(GET);
        sim.run_for(SECOND).unwrap();
        answers += all(&healthy.take_received()).0.len();
    }
    assert_eq!(answers, 25);
    for client in &slow {
        assert!(client.is_finished());
        assert_eq!(only(&client.take_received()).status, 408);
    }
    assert_eq!(sim.metrics().open, 1);
}
