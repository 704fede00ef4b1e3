//! Connections whose peer does not take what is written, while something else is due: the writing
//! thread sleeps in the socket, and must not keep the rest from being seen.

use std::io::Read;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lariat::blocking::Blocking;
use lariat::{
    CloseKind, ConnId, Context, Deadline, Input, Limits, ListenOptions, Note, Outcome, Protocol,
    Timer,
};
use socket2::{Domain, Socket, Type};

use crate::kit::*;

/// What no socket takes at once.
const MUCH: usize = 6 * MIB;
/// So long that a test which waits for it has failed.
const NEVER: Duration = Duration::from_secs(3600);

fn patient(limits: &mut Limits) {
    limits.write_stall = NEVER;
    limits.close_deadline = NEVER;
}

/// Aborts the connection whose id it is sent.
struct Aborter;

impl Protocol for Aborter {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        if let Ok(other) = note.downcast::<ConnId>() {
            cx.peer(other).abort();
        }
        Ok(())
    }
}

#[test]
fn another_connection_aborts_one_whose_companion_sleeps_in_a_write() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen_with(&mut driver, patient, || Sink);
    let (aborting, aborter) = listen(&mut driver, || Aborter);
    let running = start(driver);
    let (silent, other) = (client(addr), client(aborting));
    let id = trail.id();
    running.handle.write_bytes(id, vec![1; MUCH]).unwrap();
    (&silent).read_exact(&mut [0]).unwrap();
    running.handle.notify(aborter.id(), Note::new(id)).unwrap();
    assert_eq!(trail.kind(), CloseKind::Aborted);
    drop(other);
    running.finish();
}

/// Tells when it is called.
struct Telling {
    told: mpsc::Sender<&'static str>,
    delay: Option<Duration>,
}

impl Protocol for Telling {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if let Some(delay) = self.delay {
            cx.set_timer(Timer::new(1), delay);
        }
        cx.write(&[1; 2 * MIB]);
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        self.told.send("timeout")?;
        Ok(())
    }
    fn notified(&mut self, _: &mut Context<'_>, _: Note) -> Outcome {
        self.told.send("notified")?;
        Ok(())
    }
}

#[test]
fn a_timer_runs_while_the_peer_takes_nothing() {
    let mut driver = Blocking::new();
    let (tell, told) = mpsc::channel();
    let delay = Some(Duration::from_millis(300));
    let make = move || Telling { told: tell.clone(), delay };
    let (addr, trail) = listen_with(&mut driver, patient, make);
    let running = start(driver);
    let silent = client(addr);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("timeout"));
    running.handle.abort(trail.id());
    assert_eq!(trail.kind(), CloseKind::Aborted);
    drop(silent);
    running.finish();
}

#[test]
fn a_note_arrives_while_the_peer_takes_little_by_little() {
    let mut driver = Blocking::new();
    let (tell, told) = mpsc::channel();
    let make = move || Telling { told: tell.clone(), delay: None };
    let (addr, trail) = listen_with(&mut driver, |_| (), make);
    let running = start(driver);
    let mut slow = client(addr);
    let id = trail.id();
    running.handle.write_bytes(id, vec![2; MUCH]).unwrap();
    running.handle.notify(id, Note::new(())).unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        // The pace is the point: every read makes room for another write. All of it would take
        // longer than anybody waits.
        let mut bytes = vec![0; 16 * KIB];
        let pace = Duration::from_millis(200);
        while stopped.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
            if slow.read(&mut bytes).unwrap_or(0) == 0 {
                return;
            }
        }
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok("notified"));
    running.handle.abort(id);
    assert_eq!(trail.kind(), CloseKind::Aborted);
    drop(stop);
    reader.join().unwrap();
    running.finish();
}

/// Takes nothing of what it is offered; `opened` offers more than a socket takes.
fn offers() -> Telling {
    Telling { told: mpsc::channel().0, delay: None }
}

#[test]
fn a_write_stall_is_noticed_on_time() {
    const STALL: Duration = Duration::from_secs(2);
    struct Pouring;
    impl Protocol for Pouring {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.write(&vec![1; MIB]);
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    // Everything that the socket takes it takes at once, if the machine has the time: a busy one
    // has more than one try, and no more to copy than fills the buffers. These have their size, so
    // that a window which grows later is no progress. A quarter more would be 2.5 s.
    let mut ages = Vec::new();
    while ages.len() < 6 {
        let mut driver = Blocking::new();
        let mut options = ListenOptions::default();
        options.limits.write_stall = STALL;
        options.send_buffer = Some(64 * 1024);
        let trail = Trail::default();
        let kept = trail.clone();
        let factory = move |_: &lariat::Incoming| Some(Watched(Pouring, kept.clone()));
        let listener = driver.listen_with("127.0.0.1:0", options, factory).unwrap();
        let addr = driver.addresses(listener)[0].socket_addr().unwrap();
        let running = start(driver);
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.set_recv_buffer_size(16 * 1024).unwrap();
        silent.connect(&addr.into()).unwrap();
        let reason = trail.reason();
        assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Write));
        drop(silent);
        running.finish();
        assert!(reason.age() >= STALL, "after {:?}", reason.age());
        if reason.age() < STALL + STALL / 5 {
            return;
        }
        ages.push(reason.age());
    }
    panic!("never on time: {ages:?}");
}

#[test]
fn a_peer_that_reads_slowly_is_not_taken_for_one_that_has_stalled() {
    const STALL: Duration = Duration::from_millis(1500);
    let mut driver = Blocking::new();
    let trail = Trail::default();
    let mut options = ListenOptions::default();
    options.limits.write_stall = STALL;
    options.send_buffer = Some(8 * KIB);
    let kept = trail.clone();
    let factory = move |_: &lariat::Incoming| Some(Watched(offers(), kept.clone()));
    let listener = driver.listen_with("127.0.0.1:0", options, factory).unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let running = start(driver);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 * KIB).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut slow = TcpStream::from(socket);
    let began = Instant::now();
    let (mut block, mut left) = (vec![0; 8 * KIB], 2 * MIB);
    // The pace is the point: each of these reads makes room, and none of them makes much.
    while began.elapsed() < 3 * STALL {
        slow.read_exact(&mut block).unwrap();
        left -= block.len();
        thread::sleep(STALL / 5);
    }
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.read_exact(&mut vec![0; left]).unwrap();
    assert_eq!(trail.names(), "opened");
    drop(slow);
    running.finish();
}
