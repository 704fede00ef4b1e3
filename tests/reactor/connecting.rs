//! Outgoing connections: too slow, cancelled, and written to before they are open.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{CloseKind, ConnectFailure, Deadline, Limits};
use socket2::{Domain, Socket, Type};

use crate::common::*;

fn connect(reactor: &mut Reactor, addr: SocketAddr) -> (lariat::ConnId, Trail) {
    let trail = Trail::default();
    (reactor.control().connect_local(addr, Watched(Echo, trail.clone())), trail)
}

/// An address of this machine at which nobody listens.
fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn what_is_written_before_a_connection_opens_is_sent_when_it_does() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, accepted) = listen_once(&mut reactor, |_| (), Sink);
    let (id, connected) = connect(&mut reactor, addr);
    reactor.control().peer(id).write(b"early ");
    reactor.control().peer(id).write_bytes(vec![b'b'; 100_000]);
    reactor.control().peer(id).write(b" late");
    reactor.control().peer(id).close();
    // A close before it opens cancels, whatever was written.
    drive(&mut reactor, |_| connected.is_closed());
    assert_eq!(connected.names(), "closed");
    assert_eq!(connected.kind(), CloseKind::Connect(ConnectFailure::Cancelled));

    let (id, connected) = connect(&mut reactor, addr);
    reactor.control().peer(id).write(b"early ");
    reactor.control().peer(id).write_bytes(vec![b'b'; 100_000]);
    reactor.control().peer(id).write(b" late");
    reactor.control().peer(id).shutdown_write();
    drive(&mut reactor, |_| connected.is_closed());
    // The first may have come to the listener before it was cancelled, which then has no second.
    if accepted.data().is_empty() {
        assert_eq!(accepted.reason().bytes_in(), 0);
    } else {
        let data = accepted.data();
        assert_eq!(data.len(), 6 + 100_000 + 5);
        assert!(data.starts_with(b"early b") && data.ends_with(b"b late"));
        assert_eq!(connected.kind(), CloseKind::Finished);
    }
    finish(reactor);
}

#[test]
fn a_connect_that_gets_no_answer_times_out() {
    // A listener that never accepts and whose queue is full does not answer.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap();
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&addr);
            socket
        })
        .collect();
    let mut reactor = Reactor::new().unwrap();
    let mut limits = Limits::default();
    limits.connect = Duration::from_millis(300);
    let trail = Trail::default();
    let watched = Watched(Echo, trail.clone());
    reactor
        .control()
        .connect_local_with(addr.as_socket().unwrap(), limits.into(), watched)
        .unwrap();
    drive(&mut reactor, |_| trail.is_closed());
    assert_eq!(trail.names(), "closed");
    assert_eq!(trail.kind(), CloseKind::TimedOut(Deadline::Connect));
    assert!(trail.reason().age() >= Duration::from_millis(300));
    drop(waiting);
    finish(reactor);
}

#[test]
fn shutdown_cancels_connects_and_refuses_new_ones() {
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Echo);
    let (_, before) = connect(&mut reactor, addr);
    reactor.handle().shutdown();
    drive(&mut reactor, |_| before.is_closed());
    let (_, after) = connect(&mut reactor, addr);
    drive(&mut reactor, |_| after.is_closed());
    assert_eq!(after.names(), "closed");
    assert_eq!(after.kind(), CloseKind::Connect(ConnectFailure::Cancelled));
    assert!(!before.names().contains("data"));
    finish(reactor);
}

#[test]
fn ten_thousand_connects_to_a_dead_port_leave_nothing_behind() {
    let mut reactor = Reactor::new().unwrap();
    let addr = dead_address();
    for failed in 1..=100 {
        for _ in 0..100 {
            reactor.connect(addr, Echo);
        }
        drive(&mut reactor, |reactor| reactor.metrics().closes.connect == failed * 100);
    }
    finish(reactor);
}
