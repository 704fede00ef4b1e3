//! Rows of the failure catalogue that concern threads, and that no other test here holds off.
//!
//! Rows that do not apply to threads, and why:
//!
//! | row | why |
//! | --- | --- |
//! | A3 | the accept thread treats it as A1; injected into the process by `.ci/programs` |
//! | B2, B3, C13 | no thread waits for readiness: a thread sleeps in the call itself |
//! | B4 | a blocking write takes all, or what was taken when its time-out fired: B5 |
//! | B12 | there are no flags; what half-closed peers cost is measured by `.ci/programs` |
//! | B15 | each connection has a thread: the system shares the processor among them |
//! | C1, C11, C12 | there is no poll, no event and no registration |
//! | C3 | as C2: the list of conformance does both in every callback |
//! | C7, C10 | timers and posts of one connection only wake that connection's companion |
//! | C9 | the clock is the reactor's, and is tested with it |
//! | C16 | an idle connection owns its thread's stack, its read buffer and nothing else |
//!
//! A1, A6 are in `listening.rs`; B5, B7 to B10 in `ends.rs`, `streams.rs` and `stuck.rs`; C4, C5 in
//! `threads.rs`; C2, C3, C8, C14 in the list of conformance, which runs on this driver too; A1 to
//! A4, B1, B9 to B12, C14 and C15 against a process, in `.ci/programs`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{
    CloseKind, ConnId, ConnectFailure, Context, DriverLimits, ErrorKind, Input, Limits, Note,
    Outcome, Protocol, Timer,
};

use crate::kit::*;

// ---- accepting ----------------------------------------------------------------------------------

#[test]
fn a4_connections_that_are_reset_at_once_leave_no_thread_and_no_descriptor() {
    const COUNT: usize = 2000;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Echo);
    let running = start_alone(driver);
    echo_once(&mut client(addr), b"before");
    let before = descriptors();
    for _ in 0..COUNT {
        reset(TcpStream::connect(addr).unwrap());
    }
    echo_once(&mut client(addr), b"after");
    until(|| threads().len() == 1, "threads were left behind");
    until(|| descriptors() <= before, "descriptors were left behind");
    // The system may have forgotten some before they were accepted.
    let (metrics, _) = running.finish();
    assert_eq!(metrics.closes.finished, 2);
    assert!(metrics.closes.reset <= COUNT as u64);
    assert_eq!(trail.names().matches("closed").count() > 1, metrics.closes.reset > 0);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a5_a_burst_of_newcomers_waits_for_room_and_those_inside_are_served() {
    const NEWCOMERS: usize = 400;
    let mut driver = driver_with(|limits| limits.connections_max = 16);
    let (addr, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut inside = client(addr);
    echo_once(&mut inside, b"in");
    let served = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            let served = Arc::clone(&served);
            thread::spawn(move || {
                let burst: Vec<_> = (0..NEWCOMERS / 8).map(|_| client(addr)).collect();
                for mut newcomer in burst {
                    echo_once(&mut newcomer, b"at last");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut rounds = 0;
    while !crowd.iter().all(thread::JoinHandle::is_finished) {
        echo_once(&mut inside, b"still");
        rounds += 1;
    }
    crowd.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(served.load(Ordering::Relaxed), NEWCOMERS);
    assert!(rounds > 0);
    drop(inside);
    let (metrics, _) = running.finish();
    assert_eq!(metrics.accepted, NEWCOMERS as u64 + 1);
}

#[test]
fn a7_an_address_that_cannot_be_had_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = taken.local_addr().unwrap().to_string();
    // TEST-NET-1 belongs to no machine.
    let cases =
        [(&*in_use, ErrorKind::AddressInUse), ("192.0.2.1:0", ErrorKind::AddressUnavailable)];
    for (addr, kind) in cases {
        let mut driver = Blocking::new();
        let error = driver.listen(addr, |_| Some(Echo)).unwrap_err();
        assert_eq!((error.kind(), error.addr()), (kind, Some(addr)), "{error}");
        assert_eq!(driver.run().unwrap(), lariat::Report::default());
    }
}

// ---- reading and writing ------------------------------------------------------------------------

/// Gives a client so long for a line, whatever it sends meanwhile.
struct Line;

const LINE_TIME: Duration = Duration::from_millis(500);

impl Protocol for Line {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), LINE_TIME);
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.ends_with(b"\n") {
            cx.cancel_timer(Timer::new(1));
            cx.write(input);
            input.consume_all();
        }
        Ok(())
    }
    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        Err("no line in time".into())
    }
}

#[test]
fn b6_writers_that_trickle_are_cut_at_their_deadline_and_another_is_served() {
    const TRICKLERS: usize = 40;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Line);
    let running = start(driver);
    let mut healthy = client(addr);
    echo_once(&mut healthy, b"in time\n");
    let tricklers: Vec<_> = (0..TRICKLERS)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = client(addr);
                stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                // A byte at a time, each a sign of life.
                let mut end = [0];
                while stream.write_all(b"x").is_ok() {
                    match stream.read(&mut end) {
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        _ => break,
                    }
                }
            })
        })
        .collect();
    while !tricklers.iter().all(thread::JoinHandle::is_finished) {
        echo_once(&mut healthy, b"in time\n");
    }
    tricklers.into_iter().for_each(|thread| thread.join().unwrap());
    trail.wait_for(TRICKLERS, |step| match step {
        Step::Closed(reason) => reason.kind() == CloseKind::Protocol && reason.age() >= LINE_TIME,
        _ => false,
    });
    drop(healthy);
    let (metrics, _) = running.finish();
    assert_eq!(metrics.closes.protocol, TRICKLERS as u64);
}

#[test]
fn b11_a_write_behind_a_reset_ends_the_connection_and_nothing_else() {
    /// Answers until it is ended.
    struct Chatty;
    impl Protocol for Chatty {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), Duration::from_millis(1));
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
            cx.write(&[7; 1000]);
            cx.set_timer(timer, Duration::from_millis(1));
            Ok(())
        }
    }
    const COUNT: usize = 50;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Chatty);
    let (echoing, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    for _ in 0..COUNT {
        let mut stream = client(addr);
        stream.read_exact(&mut [0; 10]).unwrap();
        reset(stream);
    }
    trail.wait_for(COUNT, |step| matches!(step, Step::Closed(_)));
    echo_once(&mut client(echoing), b"still here");
    let (metrics, _) = running.finish();
    assert_eq!(metrics.closes.reset, COUNT as u64, "{:?}", metrics.closes);
}

#[test]
fn b13_what_is_asked_of_an_old_id_does_not_reach_the_slots_new_owner() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut old: Vec<ConnId> = Vec::new();
    // A slot is free again a little after `closed`.
    let (mut stream, before) = loop {
        let mut stream = client(addr);
        echo_once(&mut stream, b"first");
        let current = trail.id();
        if let Some(before) = old.iter().find(|id| slot(**id) == slot(current)) {
            break (stream, *before);
        }
        assert!(old.len() < 2_000, "no slot is used again");
        old.push(current);
        drop(stream);
        trail.wait_for(old.len(), |step| matches!(step, Step::Closed(_)));
    };
    running.handle.write(before, b"lost").unwrap();
    running.handle.notify(before, Note::new(())).unwrap();
    running.handle.shutdown_write(before).unwrap();
    running.handle.close(before).unwrap();
    running.handle.abort(before);
    echo_once(&mut stream, b"untouched");
    drop(stream);
    trail.wait_for(old.len() + 1, |step| matches!(step, Step::Closed(_)));
    let (metrics, _) = running.finish();
    assert_eq!(metrics.stale, 5);
    assert_eq!(metrics.closes.finished, old.len() as u64 + 1);
}

/// The part of an id that names its place in the table.
fn slot(id: ConnId) -> String {
    id.to_string().split('.').next().unwrap().to_owned()
}

#[test]
fn an_abort_before_run_cancels_the_connect() {
    let deserted = Deserted::new();
    let mut driver = Blocking::new();
    let trail = Trail::default();
    let id = driver.connect(deserted.addr(), Watched(Echo, trail.clone()));
    driver.handle().abort(id);
    let (metrics, _) = start(driver).join();
    assert_eq!(trail.kind(), CloseKind::Connect(ConnectFailure::Cancelled));
    assert_eq!(metrics.stale, 0);
}

// ---- callbacks and time -------------------------------------------------------------------------

/// Panics in one callback of a hundred.
struct Unlucky(Arc<AtomicUsize>);

impl Unlucky {
    fn call(&self) {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(number % 100 != 99, "the hundredth");
    }
}

impl Protocol for Unlucky {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.call();
        cx.set_timer(Timer::new(1), Duration::from_millis(1));
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.call();
        Echo.data(cx, input)
    }
    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        self.call();
        Ok(())
    }
    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.call();
        cx.close();
        Ok(())
    }
}

#[test]
fn c4_one_callback_of_a_hundred_panics_on_a_thousand_connections() {
    const CONNECTIONS: usize = 1000;
    let calls = Arc::new(AtomicUsize::new(0));
    let mut driver = Blocking::new();
    let counted = Arc::clone(&calls);
    let (addr, trail) = listen(&mut driver, move || Unlucky(Arc::clone(&counted)));
    let running = start(driver);
    let talk = move |_| {
        let mut stream = client(addr);
        let mut lucky = true;
        for _ in 0..3 {
            let mut back = [0; 5];
            lucky &= stream.write_all(b"hello").is_ok() && stream.read_exact(&mut back).is_ok();
        }
        lucky
    };
    let clients: Vec<_> = (0..20)
        .map(|_| thread::spawn(move || (0..CONNECTIONS / 20).filter(|_| talk(())).count()))
        .collect();
    let lucky: usize = clients.into_iter().map(|thread| thread.join().unwrap()).sum();
    trail.wait_for(CONNECTIONS, |step| matches!(step, Step::Closed(_)));
    let (metrics, _) = running.finish();
    let panics = metrics.panics as usize;
    assert_eq!(panics, calls.load(Ordering::Relaxed) / 100);
    assert_eq!(metrics.closes.panicked as usize, panics);
    assert_eq!(metrics.closes.total() as usize, CONNECTIONS);
    // Each panic costs its own connection and no other.
    assert!(lucky >= CONNECTIONS - panics, "{lucky} were served with {panics} panics");
}

#[test]
fn c6_the_longest_times_are_never_and_the_shortest_do_no_harm() {
    let longest =
        [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX / 10)];
    for time in longest {
        let limits = with_times(time);
        let mut drivers = DriverLimits::default();
        (drivers.drain, drivers.slow_callback, drivers.connections_max) = (time, Some(time), 16);
        echoes(Blocking::with_limits(drivers).unwrap(), limits, time);
    }
    // A deadline of zero ends a connection, and nothing else.
    let mut driver = Blocking::new();
    let mut limits = with_times(Duration::ZERO);
    limits.idle = None;
    let deserted = Deserted::new();
    driver.control().connect_with(deserted.addr(), limits.into(), Echo).unwrap();
    let (metrics, _) = start(driver).join();
    assert_eq!(metrics.closes.total(), 1);
}

fn with_times(time: Duration) -> Limits {
    let mut limits = Limits::default();
    (limits.connect, limits.handshake, limits.idle) = (time, time, Some(time));
    (limits.write_stall, limits.close_deadline) = (time, time);
    (limits.linger_idle, limits.linger_total) = (time, time);
    limits
}

fn echoes(mut driver: Blocking, limits: Limits, time: Duration) {
    /// Sets a timer that never fires.
    struct Waits(Duration);
    impl Protocol for Waits {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), self.0);
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            Echo.data(cx, input)
        }
        fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
            panic!("it never fires")
        }
    }
    let (addr, trail): (SocketAddr, Trail) =
        listen_with(&mut driver, |old| *old = limits, move || Waits(time));
    let running = start(driver);
    let mut stream = client(addr);
    echo_once(&mut stream, &pattern(300 * KIB));
    drop(stream);
    assert_eq!(trail.kind(), CloseKind::Finished);
    let (metrics, _) = running.finish();
    assert_eq!(metrics.panics, 0);
}
