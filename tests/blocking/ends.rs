//! How connections end: half-closes, resets, deadlines, and that the last words arrive.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{By, CloseKind, Context, Deadline, Input, Limits, Outcome, Protocol};

use crate::kit::*;

#[test]
fn b7_a_half_closed_peer_gets_everything_back() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Echo);
    let running = start(driver);
    let mut stream = client(addr);
    let sent = pattern(256 * KIB);
    let (mut writing, all) = (stream.try_clone().unwrap(), sent.clone());
    let writer = thread::spawn(move || {
        writing.write_all(&all).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let (back, error) = read_to_end(&mut stream);
    writer.join().unwrap();
    assert_eq!(error, None);
    assert!(back == sent);
    assert_eq!((trail.kind(), trail.reason().by()), (CloseKind::Finished, By::Peer));
    assert_eq!(trail.names(), "opened data eof closed");
    assert!(trail.reason().peer_finished());
    running.finish();
}

#[test]
fn b8_shutdown_write_is_a_fin_after_the_flush_and_input_goes_on() {
    struct Greeter;
    impl Protocol for Greeter {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(&vec![b'g'; 2 * MIB]);
            cx.shutdown_write();
            cx.shutdown_write();
            cx.write(b"too late");
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.shutdown_write();
            Ok(())
        }
    }
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Greeter);
    let running = start(driver);
    let mut stream = client(addr);
    let (greeting, error) = read_to_end(&mut stream);
    assert_eq!((greeting.len(), error), (2 * MIB, None));
    stream.write_all(&[1; 100_000]).unwrap();
    drop(stream);
    let reason = trail.reason();
    assert_eq!(reason.kind(), CloseKind::Finished);
    assert_eq!((reason.bytes_in(), reason.bytes_out()), (100_000, 2 * MIB as u64));
    assert_eq!(reason.refused(), 8);
    running.finish();
}

#[test]
fn b9_data_before_a_reset_is_delivered_and_no_eof_is_told() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Sink);
    let running = start(driver);
    let mut peer = client(addr);
    trail.id();
    peer.write_all(&[5; 50_000]).unwrap();
    reset(peer);
    let reason = trail.reason();
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer));
    assert_eq!(reason.bytes_in(), 50_000);
    assert!(!reason.peer_finished());
    running.finish();
}

#[test]
fn b9_a_write_that_fails_first_neither_eats_the_data_nor_makes_the_reset_an_eof() {
    struct Greeter;
    impl Protocol for Greeter {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(b"welcome");
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            Ok(())
        }
    }
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Greeter);
    // All of it before the driver accepts: its first call on the socket is the write.
    let mut peer = client(addr);
    peer.write_all(&[5; 50_000]).unwrap();
    reset(peer);
    let running = start(driver);
    let reason = trail.reason();
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer));
    assert_eq!((reason.bytes_in(), reason.bytes_out()), (50_000, 0));
    assert!(!reason.peer_finished());
    running.finish();
}

#[test]
fn b9_a_reset_while_reading_is_paused_ends_the_connection_and_counts_what_was_unread() {
    struct Pauser;
    impl Protocol for Pauser {
        fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.pause_reading();
            Ok(())
        }
    }
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Pauser);
    let running = start(driver);
    let mut peer = client(addr);
    peer.write_all(b"0123456789").unwrap();
    trail.wait_for(1, |step| matches!(step, Step::Data(..)));
    reset(peer);
    let reason = trail.reason();
    assert_eq!(trail.names(), "opened data closed");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Reset, By::Peer));
    assert_eq!((reason.bytes_in(), reason.unread()), (10, 10));
    running.finish();
}

/// Answers the first bytes of an upload and closes; the rest of the upload is never read by it.
struct Refuser;

const ANSWER: usize = 64 * KIB;

impl Protocol for Refuser {
    fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.write(&[b'!'; ANSWER]);
        cx.close();
        Ok(())
    }
}

fn upload_and_read_the_answer(addr: SocketAddr) {
    let mut stream = client(addr);
    let mut writing = stream.try_clone().unwrap();
    let upload = thread::spawn(move || {
        // Whether all of it is taken is up to the other side.
        let _ = writing.write_all(&vec![0; 8 * MIB]);
        let _ = writing.shutdown(Shutdown::Write);
    });
    let (answer, error) = read_to_end(&mut stream);
    assert_eq!((answer.len(), error), (ANSWER, None));
    upload.join().unwrap();
}

#[test]
fn b10_a_close_with_unread_input_does_not_destroy_the_answer() {
    const TIMES: usize = 100;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Refuser);
    let running = start(driver);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..TIMES / 4 {
                    upload_and_read_the_answer(addr);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    trail.wait_for(TIMES, |step| matches!(step, Step::Closed(_)));
    let (metrics, _) = running.finish();
    assert_eq!(metrics.closes.finished, TIMES as u64);
}

/// Says so many bytes and closes.
struct Leaver(usize);

impl Protocol for Leaver {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(&vec![0; self.0]);
        cx.close();
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_peer_that_never_closes_cannot_hold_a_close_beyond_its_deadline() {
    // It has read nothing but will: the kernel has it all.
    let mut driver = Blocking::new();
    let linger = |limits: &mut Limits| limits.linger_idle = Duration::from_millis(200);
    let (few, lingered) = listen_with(&mut driver, linger, || Leaver(10));
    // The kernel does not take it all.
    let deadline = |limits: &mut Limits| limits.close_deadline = Duration::from_millis(300);
    let (many, expired) = listen_with(&mut driver, deadline, || Leaver(8 * MIB));
    let running = start(driver);
    let peers = (client(few), client(many));
    let reason = lingered.reason();
    assert_eq!(reason.kind(), CloseKind::Finished);
    assert!(reason.age() >= Duration::from_millis(200));
    let reason = expired.reason();
    assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Close));
    assert!(reason.unsent() > 0);
    assert_eq!(reason.unsent() + reason.bytes_out(), 8 * MIB as u64);
    drop(peers);
    running.finish();
}

#[test]
fn a_peer_that_reads_a_little_at_a_time_cannot_hold_a_close_beyond_its_deadline() {
    let mut driver = Blocking::new();
    let deadline = |limits: &mut Limits| limits.close_deadline = Duration::from_millis(500);
    let (addr, trail) = listen_with(&mut driver, deadline, || Leaver(8 * MIB));
    let running = start(driver);
    let mut peer = client(addr);
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        // The pace is the point: every read makes room for another write.
        let mut bytes = vec![0; 16 * KIB];
        let pace = Duration::from_millis(20);
        while stopped.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
            if peer.read(&mut bytes).unwrap_or(0) == 0 {
                return;
            }
        }
    });
    let reason = trail.reason();
    drop(stop);
    reader.join().unwrap();
    assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Close));
    assert!(reason.age() < PATIENCE / 6, "it took {:?}", reason.age());
    running.finish();
}

#[test]
fn an_idle_connection_ends_by_the_time_out_of_its_socket_and_not_before() {
    const IDLE: Duration = Duration::from_millis(200);
    let mut driver = Blocking::new();
    let (addr, trail) = listen_with(&mut driver, |limits| limits.idle = Some(IDLE), || Echo);
    let running = start_alone(driver);
    let mut peer = client(addr);
    echo_once(&mut peer, b"last sign of life");
    assert_eq!(threads().len(), 2, "a deadline costs no thread: {:?}", threads());
    assert_eq!(read_to_end(&mut peer), (Vec::new(), None));
    drop(peer);
    let reason = trail.reason();
    assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Idle));
    assert!(reason.age() >= IDLE);
    running.finish();
}
