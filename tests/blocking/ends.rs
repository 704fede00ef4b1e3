//! Deadlines of a close and of silence, which cost a thread nothing.

use std::io::Read;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{CloseKind, Context, Deadline, Input, Limits, Outcome, Protocol};

use crate::kit::*;

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
