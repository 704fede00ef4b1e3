//! Bytes: that they are the right ones, and how many of them wait.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use lariat::blocking::Blocking;
use lariat::{By, CloseKind, ConnId, Context, Deadline, Input, Limits, Outcome, Protocol, Timer};

use crate::kit::*;

#[test]
fn twenty_megabytes_through_an_echo_are_byte_exact() {
    const COUNT: usize = 20 * MIB + 17;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut stream = client(addr);
    let sent = pattern(COUNT);
    let (mut writing, all) = (stream.try_clone().unwrap(), sent.clone());
    let writer = thread::spawn(move || {
        let mut at = 0;
        for size in (1..).map(|n| n * 37 % 70_001 + 1) {
            let end = (at + size).min(all.len());
            writing.write_all(&all[at..end]).unwrap();
            at = end;
            if at == all.len() {
                break;
            }
        }
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let (back, error) = read_to_end(&mut stream);
    writer.join().unwrap();
    assert_eq!(error, None);
    assert!(back == sent, "{} of {COUNT} bytes came back right", back.len());
    let reason = trail.reason();
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Peer));
    assert_eq!((reason.bytes_in(), reason.bytes_out()), (COUNT as u64, COUNT as u64));
    let (metrics, _) = running.finish();
    assert_eq!((metrics.bytes_in, metrics.bytes_out), (COUNT as u64, COUNT as u64));
}

/// Echoes, and says something by a timer now and then: both threads write.
struct Chatty;

impl Protocol for Chatty {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_millis(1));
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        cx.write(&[b'T'; 3000]);
        cx.set_timer(timer, Duration::from_millis(1));
        Ok(())
    }
}

#[test]
fn two_threads_that_write_do_not_tear_what_the_other_has_written() {
    const COUNT: usize = 4 * MIB;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Chatty);
    let running = start(driver);
    let mut stream = client(addr);
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        writing.write_all(&vec![b'e'; COUNT]).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let (back, error) = read_to_end(&mut stream);
    writer.join().unwrap();
    assert_eq!(error, None);
    let torn = back.split(|byte| *byte == b'e').filter(|run| run.len() % 3000 != 0).count();
    assert_eq!(torn, 0);
    assert_eq!(back.iter().filter(|byte| **byte == b'e').count(), COUNT);
    let reason = trail.reason();
    assert_eq!(reason.bytes_out(), back.len() as u64);
    running.finish();
}

#[test]
fn b5_peers_that_never_read_cost_the_marks_and_nobody_else_anything() {
    const PEERS: usize = 8;
    let mut driver = Blocking::new();
    let stall = |limits: &mut Limits| limits.write_stall = Duration::from_secs(2);
    let (addr, trail) = listen_with(&mut driver, stall, || Echo);
    let (echoing, _) = listen(&mut driver, || Echo);
    let running = start(driver);
    let writers: Vec<_> = (0..PEERS)
        .map(|_| {
            // Each offers whatever its socket takes, until it is given up.
            let mut peer = client(addr);
            thread::spawn(move || while peer.write_all(&[1; 256 * KIB]).is_ok() {})
        })
        .collect();
    let mut other = client(echoing);
    let mut rounds = 0_u64;
    trail.wait_for(1, |step| matches!(step, Step::Data(..)));
    while !writers.iter().all(thread::JoinHandle::is_finished) {
        echo_once(&mut other, &pattern(1000));
        rounds += 1;
    }
    assert!(rounds > 10, "{rounds} rounds while others did not read");
    for writer in writers {
        writer.join().unwrap();
    }
    let most = trail.most_unsent();
    let limit = Limits::default().high_mark + READ_BUFFER;
    assert!(most <= limit, "{most} bytes were unsent");
    trail.wait_for(PEERS, |step| match step {
        Step::Closed(reason) => reason.kind() == CloseKind::TimedOut(Deadline::Write),
        _ => false,
    });
    drop(other);
    running.finish();
}

/// The first client is the target of what all others send.
#[derive(Clone, Default)]
struct Relay {
    target: Arc<Mutex<Option<ConnId>>>,
    pushes: bool,
}

impl Protocol for Relay {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.target.lock().unwrap().get_or_insert(cx.id());
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let target = self.target.lock().unwrap().ok_or("there is no target")?;
        let bytes = input.split_all();
        if self.pushes {
            cx.peer(target).push(Bytes::from(bytes.to_vec()));
        } else {
            cx.peer(target).write(&bytes);
        }
        Ok(())
    }
}

#[test]
fn b5_whoever_writes_to_a_peer_that_does_not_read_waits_for_it_and_goes_on_when_it_is_gone() {
    const COUNT: usize = 24 * MIB;
    let mut driver = Blocking::new();
    let relay = Relay::default();
    let (addr, trail) = listen(&mut driver, move || relay.clone());
    let running = start(driver);
    let silent = client(addr);
    trail.id();
    let mut source = client(addr);
    // It cannot send everything while nobody takes it.
    source.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![3; COUNT];
    let mut sent = 0;
    while let Ok(count) = source.write(&block[sent..]) {
        sent += count;
    }
    assert!(sent < COUNT, "all was taken");
    reset(silent);
    source.set_write_timeout(Some(PATIENCE)).unwrap();
    source.write_all(&block[sent..]).unwrap();
    source.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut source), (Vec::new(), None));
    trail.wait_for(2, |step| matches!(step, Step::Closed(_)));
    let (metrics, _) = running.finish();
    assert_eq!(metrics.bytes_in, COUNT as u64);
    assert_eq!((metrics.closes.reset, metrics.closes.finished), (1, 1));
    assert!(metrics.stale > 0);
}

/// A target whose companion is stuck in a write while its own thread sleeps in a read: it was
/// pushed more than the kernel takes, and no time-out comes to anybody's help.
fn push_to_a_silent_one(
    count: usize,
    change: impl FnOnce(&mut Limits),
) -> (Running, Trail, ConnId, TcpStream) {
    let mut driver = driver_with(|limits| limits.drain = Duration::from_millis(100));
    let relay = Relay { pushes: true, ..Relay::default() };
    let (addr, trail) = listen_with(
        &mut driver,
        |limits| {
            limits.write_stall = Duration::from_secs(3600);
            change(limits);
        },
        move || relay.clone(),
    );
    let running = start(driver);
    let silent = client(addr);
    let target = trail.id();
    let mut source = client(addr);
    source.write_all(&vec![3; count]).unwrap();
    source.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut source), (Vec::new(), None));
    (running, trail, target, silent)
}

#[test]
fn whoever_pushes_to_a_peer_that_does_not_read_never_waits_and_the_peer_is_given_up_at_once() {
    const COUNT: usize = 24 * MIB;
    let (running, trail, _, silent) = push_to_a_silent_one(COUNT, |_| {});
    trail.wait_for(2, |step| matches!(step, Step::Closed(_)));
    drop(silent);
    let (metrics, _) = running.finish();
    assert_eq!(metrics.bytes_in, COUNT as u64);
    assert_eq!((metrics.closes.output_full, metrics.closes.finished), (1, 1));
}

#[test]
fn a_connection_that_is_stuck_in_a_write_is_aborted_at_once() {
    let (running, trail, target, silent) = push_to_a_silent_one(24 * MIB, |limits| {
        limits.output_max = 32 * MIB;
    });
    running.handle.abort(target);
    trail.wait_for(2, |step| matches!(step, Step::Closed(_)));
    drop(silent);
    let (metrics, _) = running.finish();
    assert_eq!((metrics.closes.aborted, metrics.closes.finished), (1, 1));
}

#[test]
fn a_connection_that_is_stuck_in_a_write_ends_with_the_time_to_drain() {
    let (running, trail, _, silent) = push_to_a_silent_one(24 * MIB, |limits| {
        limits.output_max = 32 * MIB;
        limits.close_deadline = Duration::from_secs(3600);
    });
    let (metrics, report) = running.finish();
    trail.wait_for(2, |step| matches!(step, Step::Closed(_)));
    drop(silent);
    assert_eq!((report.aborted(), metrics.closes.finished), (1, 1), "{metrics:?}");
}
#[test]
fn what_a_handle_pushes_to_a_peer_that_does_not_read_is_bounded_at_once() {
    let (running, trail, target, silent) = push_to_a_silent_one(24 * MIB, |limits| {
        limits.output_max = 32 * MIB;
    });
    running.handle.write_bytes(target, vec![3; 32 * MIB]).unwrap();
    trail.wait_for(2, |step| matches!(step, Step::Closed(_)));
    drop(silent);
    let (metrics, _) = running.finish();
    assert_eq!((metrics.closes.output_full, metrics.closes.finished), (1, 1));
}
