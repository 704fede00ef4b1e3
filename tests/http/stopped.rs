//! C17: deadlines that passed while the process was stopped, and what had come in time.

use std::time::Duration;

use lariat::DriverLimits;
use lariat::http::{self, Http};
use lariat::sim::{Sim, Socket};

use crate::answer::{all, only};
use crate::site::Site;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);
/// More than the events and the timers of a turn.
const CLIENTS: usize = 40;

/// Everybody says `first` and what else has to be said; then the process is stopped, for longer
/// than any deadline, while everybody says `rest`, the last first.
fn stopped(first: &[u8], rest: &[u8]) -> (Sim, Vec<Socket>) {
    let mut limits = DriverLimits::default();
    (limits.events_max, limits.timers_max) = (7, 10);
    let mut sim = Sim::with_limits(1, limits).unwrap();
    let mut limits = http::Limits::default();
    (limits.head, limits.keep_alive, limits.body_grace) = (SECOND, SECOND, SECOND);
    let limits = limits.validate().unwrap();
    let make = move |_: &_| Some(Http::with_limits(Site, &limits));
    let listener = sim.listen("127.0.0.1:0", make).unwrap();
    let addr = sim.addresses(listener)[0];
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| sim.dial(addr)).collect();
    clients.iter().for_each(|client| client.send(first));
    sim.run_for(SECOND / 10).unwrap();
    clients.iter().rev().for_each(|client| client.send(rest));
    sim.stop_for(3 * SECOND);
    sim.run_for(SECOND / 2).unwrap();
    (sim, clients)
}

/// The statuses of what `client` has heard.
fn statuses(client: &Socket) -> Vec<u16> {
    all(&client.take_received()).0.iter().map(|answer| answer.status).collect()
}

#[test]
fn c17_a_first_request_that_came_in_time_is_answered() {
    let (_sim, clients) = stopped(b"", GET);
    assert!(clients.iter().all(|client| statuses(client) == [200]));
}

#[test]
fn c17_the_rest_of_a_head_that_came_in_time_is_answered() {
    let (head, rest) = GET.split_at(7);
    let (_sim, clients) = stopped(head, rest);
    assert!(clients.iter().all(|client| statuses(client) == [200]));
    // One that is still not whole is cut.
    let (_sim, clients) = stopped(head, &rest[..5]);
    assert!(clients.iter().all(|client| statuses(client) == [408]));
}

#[test]
fn c17_a_further_request_that_came_in_time_is_answered() {
    let (_sim, clients) = stopped(GET, GET);
    assert!(clients.iter().all(|client| statuses(client) == [200, 200]));
    let (mut sim, clients) = stopped(GET, b"");
    sim.run_for(5 * SECOND).unwrap();
    assert!(clients.iter().all(Socket::is_finished));
    assert_eq!(sim.metrics().closes.timed_out, CLIENTS as u64);
}

#[test]
fn c17_a_body_that_came_in_time_is_answered_however_long_it_is() {
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n";
    let (_sim, clients) = stopped(head, &[b'a'; 200_000]);
    for client in &clients {
        assert_eq!(only(&client.take_received()).body, b"200000 bytes\n");
    }
    let (mut sim, clients) = stopped(head, b"");
    assert!(clients.iter().all(|client| statuses(client) == [408]));
    sim.run_for(10 * SECOND).unwrap();
    assert_eq!(sim.metrics().closes.refused, CLIENTS as u64);
}

#[test]
fn c17_who_has_said_nothing_by_then_is_closed_without_a_word() {
    let (mut sim, clients) = stopped(b"", b"");
    sim.run_for(5 * SECOND).unwrap();
    assert!(clients.iter().all(|client| statuses(client).is_empty() && client.is_finished()));
    assert_eq!(sim.metrics().closes.timed_out, CLIENTS as u64);
}
