//! Listeners: limits, refusals, and a lack of descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{CloseReason, Context, Input, Limits, ListenOptions, Outcome, Overload, Protocol};
use socket2::{Domain, Socket, Type};

use crate::kit::*;

fn opened(step: &Step) -> bool {
    matches!(step, Step::Opened(_))
}

#[test]
fn a6_at_the_limit_newcomers_wait_and_the_next_is_accepted_when_one_leaves() {
    let mut driver = driver_with(|limits| limits.connections_max = 2);
    // Two listeners compete for the places.
    let (first, trail) = listen(&mut driver, || Echo);
    let (second, others) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut clients = vec![client(first), client(second)];
    for stream in &mut clients {
        echo_once(stream, b"in");
    }
    clients.extend([client(first), client(second), client(first), client(second)]);
    // Each with the questions that it has not been answered yet.
    let mut clients: Vec<_> = clients.into_iter().map(|stream| (stream, 0)).collect();
    for left in (2..=6).rev() {
        // Those that are in are served, those that wait are not.
        let (mut stream, asked) = clients.remove(0);
        stream.read_exact(&mut vec![0; asked]).unwrap();
        echo_once(&mut stream, b"in");
        let total = |trail: &Trail| trail.wait(|s| Some(s.iter().filter(|s| opened(s)).count()));
        assert!(total(&trail) + total(&others) <= 8 - left, "too many were accepted");
        drop(stream);
        if left > 2 {
            until(|| total(&trail) + total(&others) == 9 - left, "nobody was let in");
            // The client that is in comes first.
            let mut ask = |(stream, asked): &mut (TcpStream, usize)| {
                stream.write_all(b"?").unwrap();
                *asked += 1;
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let count = stream.read(&mut vec![0; *asked]).unwrap_or(0);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                *asked -= count;
                count > 0
            };
            let served = (0..100).find_map(|_| clients.iter_mut().position(&mut ask));
            let client = clients.remove(served.unwrap());
            clients.insert(0, client);
        }
    }
    drop(clients);
    let (metrics, _) = running.finish();
    assert_eq!(metrics.refused, 0);
}

#[test]
fn above_the_limit_a_shedding_listener_turns_newcomers_away() {
    let mut driver = driver_with(|limits| {
        limits.connections_max = 2;
        limits.overload = Overload::Shed;
    });
    let (addr, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut inside = [client(addr), client(addr)];
    for stream in &mut inside {
        echo_once(stream, b"in");
    }
    for _ in 0..3 {
        assert_eq!(client(addr).read(&mut [0]).unwrap_or(0), 0);
    }
    for stream in &mut inside {
        echo_once(stream, b"still in");
    }
    drop(inside);
    let (metrics, _) = running.finish();
    assert_eq!((metrics.accepted, metrics.refused), (2, 3));
}

#[test]
fn a6_a_connection_that_lingers_gives_its_place_back_at_once() {
    /// Answers with a word and closes, and so lingers until its peer has finished too.
    struct Brief;
    impl Protocol for Brief {
        fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.write(b"bye");
            cx.close();
            Ok(())
        }
    }
    let mut driver = driver_with(|limits| limits.connections_max = 1);
    // Lingering alone never ends here.
    let forever = |limits: &mut Limits| {
        limits.linger_idle = Duration::MAX;
        limits.linger_total = Duration::MAX;
        limits.close_deadline = Duration::MAX;
    };
    let (addr, _) = listen_with(&mut driver, forever, || Brief);
    let running = start(driver);
    let mut clients: Vec<_> = (0..3).map(|_| client(addr)).collect();
    for stream in &mut clients {
        stream.write_all(b"!").unwrap();
        stream.read_exact(&mut [0; 3]).unwrap();
    }
    drop(clients);
    running.finish();
}

#[test]
fn a6_a_connection_that_has_ended_gives_its_place_away_while_its_closed_runs() {
    /// Tells of its bytes. The first one waits in `closed` for those of the next one.
    struct Patient {
        tell: mpsc::Sender<()>,
        next: Option<(mpsc::Receiver<()>, mpsc::Sender<bool>)>,
    }
    impl Protocol for Patient {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume(input.len());
            self.tell.send(()).unwrap();
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
            if let Some((next, result)) = &self.next {
                result.send(next.recv_timeout(PATIENCE).is_ok()).unwrap();
            }
        }
    }
    let mut driver = driver_with(|limits| limits.connections_max = 1);
    let (tell_first, first) = mpsc::channel();
    let (tell_next, next) = mpsc::channel();
    let (result, went_on) = mpsc::channel();
    let (tells, waits) = ([tell_next, tell_first], Some((next, result)));
    let made = Mutex::new((tells.to_vec(), waits));
    let (addr, _) = listen(&mut driver, move || {
        let (tells, next) = &mut *made.lock().unwrap();
        Patient { tell: tells.pop().unwrap(), next: next.take() }
    });
    let running = start(driver);
    let mut stream = client(addr);
    stream.write_all(b"!").unwrap();
    first.recv_timeout(PATIENCE).unwrap();
    let mut waiting = client(addr);
    waiting.write_all(b"!").unwrap();
    drop(stream);
    assert!(went_on.recv().unwrap(), "the next one has to wait for the end of `closed`");
    drop(waiting);
    running.finish();
}

#[test]
fn a6_a_refused_connection_gives_its_place_to_one_that_waits_for_it() {
    let mut driver = driver_with(|limits| limits.connections_max = 1);
    // The place is taken while the factory thinks.
    let (think, thinks) = mpsc::channel::<()>();
    let thinks = Mutex::new(thinks);
    let refusing = driver
        .listen("127.0.0.1:0", move |_| {
            let _ = thinks.lock().unwrap().recv();
            None::<Echo>
        })
        .unwrap();
    let refusing = driver.addresses(refusing)[0].socket_addr().unwrap();
    let (addr, _) = listen(&mut driver, || Echo);
    let running = start_alone(driver);
    until(|| acceptors_asleep() == 2, "both accept");
    let mut refused = client(refusing);
    until(|| waiting(refusing) == 0 && acceptors_asleep() == 2, "the factory thinks");
    let mut stream = client(addr);
    // Its listener has accepted it, and sleeps until there is a place.
    until(|| waiting(addr) == 0 && acceptors_asleep() == 2, "it is accepted");
    drop(think);
    echo_once(&mut stream, b"in");
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    drop(stream);
    running.finish();
}

/// Accepting threads of this process that sleep.
fn acceptors_asleep() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
    stats
        .filter(|stat| stat.as_ref().is_ok_and(|s| s.contains("(lariat l") && s.contains(") S ")))
        .count()
}

/// Connections that the kernel holds until they are accepted at `addr`.
fn waiting(addr: SocketAddr) -> u32 {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", addr.port());
    let listening = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("0A")
    };
    let line = sockets.lines().find(listening).unwrap();
    let queues = line.split_whitespace().nth(4).unwrap();
    u32::from_str_radix(queues.split(':').nth(1).unwrap(), 16).unwrap()
}

#[test]
fn c4_a_factory_refuses_and_a_panicking_one_does_not_end_the_listener() {
    let mut driver = Blocking::new();
    let number = AtomicUsize::new(0);
    let listener = driver
        .listen("127.0.0.1:0", move |_| match number.fetch_add(1, Ordering::SeqCst) {
            0 => None,
            1 => panic!("in the factory"),
            _ => Some(Echo),
        })
        .unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let running = start(driver);
    for _ in 0..2 {
        assert_eq!(client(addr).read(&mut [0]).unwrap_or(0), 0);
    }
    echo_once(&mut client(addr), b"welcome");
    let (metrics, _) = running.finish();
    assert_eq!((metrics.accepted, metrics.refused, metrics.panics), (1, 2, 1));
}

const FEW_DESCRIPTORS: &str = "LARIAT_TEST_FEW_DESCRIPTORS";

#[test]
fn a1_without_descriptors_one_is_turned_away_and_the_rest_wait() {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        let mut driver = Blocking::new();
        let (addr, _) = listen(&mut driver, || Echo);
        return with_few_descriptors(driver, addr);
    }
    run_with_few_descriptors(
        "listening::a1_without_descriptors_one_is_turned_away_and_the_rest_wait",
    );
}

#[test]
fn a1_without_descriptors_a_shared_listener_turns_one_away_and_the_rest_wait() {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        let mut driver = Blocking::new();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let options = ListenOptions::default();
        driver.control().adopt_listener(socket, options, |_| Some(Echo)).unwrap();
        return with_few_descriptors(driver, addr);
    }
    run_with_few_descriptors(
        "listening::a1_without_descriptors_a_shared_listener_turns_one_away_and_the_rest_wait",
    );
}

/// Runs the test `name` in a process of its own, whose limit is its own.
fn run_with_few_descriptors(name: &str) {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(FEW_DESCRIPTORS, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stdout));
}

fn with_few_descriptors(driver: Blocking, addr: SocketAddr) {
    let running = start(driver);
    let mut inside = client(addr);
    echo_once(&mut inside, b"in");
    // Everything that is left is taken; the clients have their own ends already.
    let outside: Vec<Socket> =
        (0..4).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    for newcomer in &outside {
        newcomer.connect(&addr.into()).unwrap();
    }
    // At most one has a descriptor waiting for it, and at most one is turned away at a time.
    let mut outside: Vec<TcpStream> = outside.into_iter().map(TcpStream::from).collect();
    let mut answered = 0;
    for stream in &mut outside {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let written = stream.write_all(b"in").is_ok();
        answered += usize::from(written && stream.read(&mut [0; 2]).is_ok_and(|count| count == 2));
    }
    assert!(answered <= 1, "{answered} were served");
    echo_once(&mut inside, b"still in");
    // With descriptors there is room again, for those who waited and for others.
    drop(taken);
    echo_once(&mut client(addr), b"in at last");
    drop((inside, outside));
    let (metrics, _) = running.finish();
    assert!((1..100).contains(&metrics.accept_errors), "{metrics:?}");
}

#[test]
fn a1_requests_and_threads_do_not_turn_those_away_who_wait_for_a_descriptor() {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        return with_many_requests();
    }
    run_with_few_descriptors(
        "listening::a1_requests_and_threads_do_not_turn_those_away_who_wait_for_a_descriptor",
    );
}

fn with_many_requests() {
    let mut driver = Blocking::new();
    let (addr, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    let outside: Vec<Socket> =
        (0..10).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    // What was released before mends nothing.
    echo_once(&mut client(addr), b"in and out");
    until(|| threads().len() == 1, "it is gone");
    let mut inside = client(addr);
    echo_once(&mut inside, b"in");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let began = Instant::now();
    for newcomer in &outside {
        newcomer.connect(&addr.into()).unwrap();
    }
    // Each of them wakes the threads that wait for a change, and none of them brings a descriptor.
    let mut calls = 0;
    while began.elapsed() < Duration::from_millis(600) {
        let (tell, told) = mpsc::channel();
        running.handle.call(move |_| tell.send(()).unwrap()).unwrap();
        told.recv().unwrap();
        calls += 1;
    }
    let (tell, told) = mpsc::channel();
    running.handle.call(move |control| tell.send(control.metrics()).unwrap()).unwrap();
    let metrics = told.recv().unwrap();
    // The back-off alone allows one at 0, 10, 30, 70, 150, 310 and 630 ms; time that the machine
    // took for itself allows more.
    let most = 7 + began.elapsed().as_millis() as u64 / 1000;
    assert!((1..=most).contains(&metrics.accept_errors), "{calls} calls: {metrics:?}");
    // Everyone else is let in when there is room again.
    drop((taken, inside));
    let served = outside.into_iter().map(TcpStream::from).filter(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let written = stream.write_all(b"in").is_ok();
        written && stream.read(&mut [0; 2]).is_ok_and(|count| count == 2)
    });
    let served = served.count() as u64;
    let (metrics, _) = running.finish();
    assert_eq!(served, 10 - metrics.refused, "{metrics:?}");
}

#[test]
fn a_listener_that_waits_for_a_place_hears_that_it_is_stopped() {
    let mut driver = driver_with(|limits| limits.connections_max = 1);
    let made = Arc::new(());
    let held = Arc::downgrade(&made);
    let factory = move |_: &lariat::Incoming| {
        let _held = &made;
        Some(Echo)
    };
    let listener = driver.listen("127.0.0.1:0", factory).unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let running = start(driver);
    let mut stream = client(addr);
    echo_once(&mut stream, b"in");
    running.handle.stop_listening(listener).unwrap();
    until(|| held.strong_count() == 0, "its thread waits for a place, and keeps its factory");
    echo_once(&mut stream, b"still in");
    drop(stream);
    running.join();
}
