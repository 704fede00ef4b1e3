//! Datagram sockets on threads: how many there are, and what wakes them.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{
    Datagram, DatagramContext, DatagramOptions, DatagramProtocol, Endpoint, ErrorKind, Note,
    Outcome, Timer, UnixName,
};

use crate::kit::*;
use crate::node::{Log, Node, echo};

fn peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask(peer: &UdpSocket, addr: Endpoint) {
    let mut buffer = [0; 10];
    peer.send_to(b"ping", addr).unwrap();
    assert_eq!(peer.recv(&mut buffer).unwrap(), 4);
}

#[test]
fn an_echo_of_datagrams_costs_one_thread_and_a_note_a_second_one() {
    let mut driver = Blocking::new();
    let id = driver.bind("127.0.0.1:0", echo(usize::MAX)).unwrap();
    let addr = driver.bound_addr(id).unwrap();
    let running = start_alone(driver);
    let peer = peer();
    (0..10).for_each(|_| ask(&peer, addr));
    assert_eq!(threads(), ["lariat datagram"], "as much of a name as the system keeps");
    // Its own thread receives those that come while it is not asleep.
    let notify = || running.handle.notify(id, Note::new(())).unwrap();
    until(
        || {
            notify();
            threads().len() == 2
        },
        "nobody else receives a note",
    );
    ask(&peer, addr);
    let (metrics, report) = running.finish();
    assert_eq!((metrics.datagrams_in, metrics.datagrams_out), (11, 11));
    assert_eq!((report.drained(), report.aborted()), (1, 0));
}

#[test]
fn handles_reach_a_socket_that_hears_nothing() {
    let path = std::env::temp_dir().join(format!("lariat-hears-{}", std::process::id()));
    let path = UnixName::from_pathname(path).unwrap();
    let addrs = [([127, 0, 0, 1], 0).into(), Endpoint::from(path), UnixName::unnamed().into()];
    let ways = [
        ("close", "closed finished by us"),
        ("abort", "closed aborted by us"),
        ("shutdown", "closed finished by us"),
        ("note", "closed finished by us"),
    ];
    for (addr, (way, last)) in addrs.iter().flat_map(|addr| ways.map(|way| (*addr, way))) {
        let (mut driver, log) = (Blocking::new(), Log::default());
        let node = Node::new().notified(|cx, _| {
            cx.close();
            Ok(())
        });
        let id = driver.bind(addr, node.under("node", &log)).unwrap();
        let running = start(driver);
        until(|| !log.of("node").is_empty(), "it does not open");
        match way {
            "close" => running.handle.close(id).unwrap(),
            "abort" => running.handle.abort(id),
            "note" => running.handle.notify(id, Note::new(())).unwrap(),
            _ => running.handle.shutdown(),
        }
        let (metrics, _) = running.join();
        assert_eq!(log.of("node").last().unwrap(), last, "{addr} after {way}");
        assert_eq!(metrics.datagrams_in, 0, "nothing was mistaken for a datagram");
    }
}

#[test]
fn a_flood_of_datagrams_puts_no_timer_off() {
    let (mut driver, log) = (Blocking::new(), Log::default());
    let mut left = 20;
    let node = Node::new()
        .opened(|cx| {
            cx.set_timer(Timer::new(1), Duration::from_millis(5));
            Ok(())
        })
        .timeout(move |cx, timer| {
            left -= 1;
            match left {
                0 => cx.close(),
                _ => cx.set_timer(timer, Duration::from_millis(5)),
            }
            Ok(())
        });
    let id = driver.bind("127.0.0.1:0", node.under("node", &log)).unwrap();
    let addr = driver.bound_addr(id).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let flooder = thread::spawn(move || {
        let socket = peer();
        while !ends.load(Ordering::Relaxed) {
            let _ = socket.send_to(&[7; 100], addr);
        }
    });
    let begun = Instant::now();
    start(driver).join();
    assert!(begun.elapsed() < PATIENCE / 3);
    over.store(true, Ordering::Relaxed);
    flooder.join().unwrap();
    let timers = log.of("node").iter().filter(|line| *line == "timer 1").count();
    assert_eq!(timers, 20);
}

#[test]
fn what_is_asked_before_the_run_waits_for_it() {
    let (mut driver, log) = (Blocking::new(), Log::default());
    let noted = Node::new().notified(|cx, _| {
        cx.close();
        Ok(())
    });
    let one = driver.bind("127.0.0.1:0", noted.under("noted", &log)).unwrap();
    let two = driver.bind("127.0.0.1:0", Node::new().under("shut", &log)).unwrap();
    driver.control().peer(one).notify(Note::new(()));
    driver.control().peer(two).close();
    assert!(log.of("noted").is_empty());
    start(driver).join();
    assert_eq!(log.of("noted"), ["opened", "notified", "closed finished by us"]);
    assert_eq!(log.of("shut"), ["closed finished by us"]);
}

#[test]
fn a_driver_that_is_dropped_before_it_runs_leaves_no_address_taken() {
    let mut driver = Blocking::new();
    let id = driver.bind("127.0.0.1:0", Node::new()).unwrap();
    let addr = driver.bound_addr(id).unwrap();
    let handle = driver.handle();
    handle.notify(id, Note::new(())).unwrap();
    drop(driver);
    UdpSocket::bind(addr).unwrap();
    assert_eq!(handle.notify(id, Note::new(())).unwrap_err().error().kind(), ErrorKind::Stopped);
}

#[test]
fn c4_a_protocol_that_panics_in_closed_and_as_it_is_dropped_ends_all_the_same() {
    struct Bomb;
    impl DatagramProtocol for Bomb {
        fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
            cx.close();
            Ok(())
        }
        fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
            Ok(())
        }
        fn closed(&mut self, _: &mut DatagramContext<'_>, _: &lariat::CloseReason) {
            panic!("planned");
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("planned");
        }
    }
    let mut driver = Blocking::new();
    driver.bind("127.0.0.1:0", Bomb).unwrap();
    let (metrics, _) = start(driver).join();
    assert_eq!((metrics.panics, metrics.closes.finished), (2, 1));
}

#[test]
fn a_protocol_that_may_not_leave_its_thread_is_refused() {
    let mut driver = Blocking::new();
    let options = DatagramOptions::default();
    let error = driver.control().bind_local_with("127.0.0.1:0", options, Node::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    driver.run().unwrap();
}
