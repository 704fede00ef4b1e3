//! Outgoing connections, and how they fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{By, CloseKind, ConnectFailure, Deadline, Limits};
use socket2::{Domain, Socket, Type};

use crate::kit::*;

#[test]
fn d1_a_refused_connect_is_told_by_closed_alone() {
    let deserted = Deserted::new();
    let mut driver = Blocking::new();
    let trail = Trail::default();
    driver.connect(deserted.addr(), Watched(Echo, trail.clone()));
    start(driver).join();
    assert_eq!(trail.names(), "closed");
    let reason = trail.reason();
    assert_eq!(reason.kind(), CloseKind::Connect(ConnectFailure::Refused));
    assert_eq!(reason.by(), By::Peer);
}

#[test]
fn a_connect_above_the_limit_gets_an_id_and_then_the_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut driver = driver_with(|limits| limits.connections_max = 1);
    let (first, second) = (Trail::default(), Trail::default());
    let one = driver.connect(addr, Watched(Echo, first.clone()));
    let two = driver.connect(addr, Watched(Echo, second.clone()));
    assert_ne!(one, two);
    let running = start(driver);
    assert_eq!(second.kind(), CloseKind::Connect(ConnectFailure::Limit));
    assert_eq!(second.names(), "closed");
    let (mut accepted, _) = listener.accept().unwrap();
    echo_once(&mut accepted, b"the first is fine");
    drop(accepted);
    running.join();
    assert_eq!(first.kind(), CloseKind::Finished);
}

/// A listener that never accepts and whose queue is full does not answer.
struct Silent {
    addr: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Silent {
    fn new() -> Silent {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let addr = full.local_addr().unwrap();
        let mut sockets = vec![full];
        for _ in 0..16 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&addr);
            sockets.push(socket);
        }
        Silent { addr: addr.as_socket().unwrap(), _sockets: sockets }
    }
}

#[test]
fn a_connect_that_gets_no_answer_times_out() {
    const CONNECT: Duration = Duration::from_millis(300);
    let silent = Silent::new();
    let mut driver = Blocking::new();
    let mut limits = Limits::default();
    limits.connect = CONNECT;
    let trail = Trail::default();
    driver
        .control()
        .connect_with(silent.addr, limits.into(), Watched(Echo, trail.clone()))
        .unwrap();
    start(driver).join();
    assert_eq!(trail.names(), "closed");
    assert_eq!(trail.kind(), CloseKind::TimedOut(Deadline::Connect));
    assert!(trail.reason().age() >= CONNECT);
}

#[test]
fn a_connect_under_way_is_cancelled_by_its_id_or_by_shutdown_without_waiting_for_it() {
    const CONNECT: Duration = Duration::from_secs(6);
    let silent = Silent::new();
    let mut driver = Blocking::new();
    let (closed, aborted, stopped) = (Trail::default(), Trail::default(), Trail::default());
    let mut connect = |trail: &Trail| {
        let mut limits = Limits::default();
        limits.connect = CONNECT;
        driver
            .control()
            .connect_with(silent.addr, limits.into(), Watched(Echo, trail.clone()))
            .unwrap()
    };
    let (closing, aborting, _) = (connect(&closed), connect(&aborted), connect(&stopped));
    // Only once it runs there is something to cancel.
    let deserted = Deserted::new();
    let runs = Trail::default();
    driver.connect(deserted.addr(), Watched(Echo, runs.clone()));
    // Their threads come back later, and must not be counted by others.
    let running = start_alone(driver);
    runs.reason();
    let began = Instant::now();
    running.handle.close(closing).unwrap();
    running.handle.abort(aborting);
    let cancelled = CloseKind::Connect(ConnectFailure::Cancelled);
    assert_eq!((closed.kind(), aborted.kind()), (cancelled, cancelled));
    assert_eq!(stopped.names(), "");
    running.handle.shutdown();
    assert_eq!((stopped.kind(), stopped.names()), (cancelled, "closed".into()));
    until(|| running.handle.is_ended(), "the driver did not end");
    assert!(began.elapsed() < CONNECT / 2, "it took {:?}", began.elapsed());
    let (metrics, report) = running.finish();
    assert_eq!((metrics.closes.connect, report.aborted()), (4, 0));
}
