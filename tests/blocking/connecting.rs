//! Outgoing connections, and how they fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{CloseKind, ConnectFailure, Deadline, Limits};
use socket2::{Domain, Socket, Type};

use crate::kit::*;

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
