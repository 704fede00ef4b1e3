//! System calls of an echo of datagrams, counted by strace in a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::reactor::Reactor;
use lariat::{
    ConnId, Datagram, DatagramContext, DatagramOptions, DatagramProtocol, Driver, DriverLimits,
    Outcome,
};

use crate::kit::*;

/// Datagrams that wait together.
const BATCH: usize = 32;
/// What the difference of two runs is made of: what is done once cancels.
const FEW: usize = 10;
const MANY: usize = 60;

/// Waits for one datagram.
struct Once;

impl DatagramProtocol for Once {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        cx.close();
        Ok(())
    }
}

#[test]
fn a3_receives_that_lack_memory_are_tried_again_after_a_pause() {
    let Some(part) = part() else {
        let name = "datagrams::a3_receives_that_lack_memory_are_tried_again_after_a_pause";
        for (driver, error) in DRIVERS.into_iter().zip(["ENOMEM", "ENOBUFS"]) {
            let inject = format!("recvfrom:error={error}:when=1..5");
            let Some(strace) = strace(&inject) else { return };
            let before: Vec<&str> = strace.iter().map(String::as_str).collect();
            again(&before, name, driver);
        }
        return;
    };
    let begun = Instant::now();
    let mut driver = driver(&part, DriverLimits::default());
    let id = driver.control().bind("127.0.0.1:0", Once).unwrap();
    let to = driver.control().bound_addr(id).unwrap().socket_addr().unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", to).unwrap();
    driver.run().unwrap();
    let metrics = driver.metrics();
    assert_eq!((metrics.datagrams_in, metrics.closes.finished), (1, 1));
    assert!(begun.elapsed() >= Duration::from_millis(10 + 20 + 40 + 80 + 160));
}

struct Answers;

impl DatagramProtocol for Answers {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        Ok(cx.send_to(datagram, datagram.from())?)
    }
}

/// Binds the server, and tells the parent where.
fn bind(driver: &mut dyn Driver, offload: bool) -> ConnId {
    let mut options = DatagramOptions::default();
    options.offload = offload;
    let id = driver.control().bind_with("127.0.0.1:0", options, Answers).unwrap();
    println!("bound to {}", driver.bound_addr(id).unwrap());
    id
}

/// The server. On the reactor it sleeps outside of it until a batch waits.
fn serve(part: &str) {
    let mut lines = std::io::stdin().lines();
    match part {
        "blocking" => {
            let mut driver = Blocking::new();
            bind(&mut driver, false);
            let handle = driver.handle();
            let runs = std::thread::spawn(move || driver.run().unwrap());
            assert_eq!(lines.next().unwrap().unwrap(), "end");
            handle.shutdown();
            runs.join().unwrap();
        }
        part => {
            let mut reactor = Reactor::new().unwrap();
            bind(&mut reactor, part == "offload");
            let mut expected = 0;
            while lines.next().unwrap().unwrap() == "batch" {
                expected += BATCH as u64;
                while reactor.metrics().datagrams_out < expected {
                    reactor.turn(Some(PATIENCE)).unwrap();
                }
                println!("answered");
            }
        }
    }
}

/// The calls of a server that has answered so many batches, by name.
fn calls(name: &str, part: &str, batches: usize) -> Option<BTreeMap<String, usize>> {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: strace is missing, or may not trace here");
        return None;
    }
    let file = format!("lariat-calls-{}-{part}-{batches}", std::process::id());
    let file = std::env::temp_dir().join(file);
    let traced = "trace=recvfrom,recvmsg,recvmmsg,sendto,sendmsg,sendmmsg,epoll_wait,epoll_pwait";
    let before = ["strace", "-f", "-qq", "-o", file.to_str().unwrap(), "-e", traced];
    let mut server = command(&before, name, part);
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = server.stdin.take().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let bound = said
        .find_map(|line| line.unwrap().split_once("bound to ").map(|(_, addr)| addr.to_owned()));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(bound.unwrap()).unwrap();
    for _ in 0..batches {
        for number in 0..BATCH {
            client.send(&[number as u8; 100]).unwrap();
        }
        if part != "blocking" {
            writeln!(stdin, "batch").unwrap();
        }
        for number in 0..BATCH {
            let mut buffer = [0; 200];
            assert_eq!((client.recv(&mut buffer).unwrap(), buffer[99]), (100, number as u8));
        }
        // The turn is over: else it would read the next batch as well.
        assert!(part == "blocking" || said.any(|line| line.unwrap().contains("answered")));
    }
    writeln!(stdin, "end").unwrap();
    assert!(said.any(|line| line.unwrap().contains("1 passed")), "{name} {part}");
    assert!(server.wait().unwrap().success());
    let trace = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        // A call of one thread that another interrupts is told in two lines.
        let Some((call, _)) = line.split_once('(').filter(|_| !line.contains("resumed>")) else {
            continue;
        };
        *counts.entry(call.rsplit(' ').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    Some(counts)
}

/// Calls per batch.
fn per_batch(name: &str, part: &str) -> Option<BTreeMap<String, f64>> {
    let (few, many) = (calls(name, part, FEW)?, calls(name, part, MANY)?);
    let each = |(call, count): (String, usize)| {
        let more = count - few.get(&call).copied().unwrap_or(0);
        // To a tenth: a machine that is busy interrupts a call now and then, which is repeated.
        (call, (10.0 * more as f64 / (MANY - FEW) as f64).round() / 10.0)
    };
    let calls: BTreeMap<String, f64> = many.into_iter().map(each).collect();
    println!("{part}: {:.2} calls per batch of {BATCH}: {calls:?}", calls.values().sum::<f64>());
    Some(calls)
}

#[test]
fn an_echo_of_datagrams_costs_two_calls_each_and_two_for_the_batch() {
    const NAME: &str = "datagrams::an_echo_of_datagrams_costs_two_calls_each_and_two_for_the_batch";
    if let Some(part) = part() {
        return serve(&part);
    }
    let Some(calls) = per_batch(NAME, "reactor") else { return };
    let expected = [("epoll_wait", 1.0), ("recvfrom", 33.0), ("sendto", 32.0)];
    assert_eq!(calls, expected.map(|(call, count)| (call.to_owned(), count)).into());
    // A thread sleeps in a call of its own, and nothing finds out that a batch is over.
    let Some(calls) = per_batch(NAME, "blocking") else { return };
    let expected = [("recvfrom", 64.0), ("sendto", 32.0)];
    let calls = calls.into_iter().filter(|(_, count)| *count > 0.0).collect::<BTreeMap<_, _>>();
    assert_eq!(calls, expected.map(|(call, count)| (call.to_owned(), count)).into());
}

#[test]
fn with_offload_equal_datagrams_cost_fewer_than_one_call_each() {
    const NAME: &str = "datagrams::with_offload_equal_datagrams_cost_fewer_than_one_call_each";
    if let Some(part) = part() {
        return serve(&part);
    }
    let Some(calls) = per_batch(NAME, "offload") else { return };
    if !calls.contains_key("sendmsg") {
        return eprintln!("skipped: this system does not take datagrams apart (GSO)");
    }
    // The first of a batch leaves alone, the others together.
    let expected = [("epoll_wait", 1.0), ("recvmmsg", 2.0), ("sendmsg", 1.0), ("sendto", 1.0)];
    assert_eq!(calls, expected.map(|(call, count)| (call.to_owned(), count)).into());
}
