//! What was found by reading, and stays mended: each differed from the reactor.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{
    CloseKind, CloseReason, ConnId, Context, Handle, Input, Note, Outcome, Protocol, Timer,
};

use crate::kit::*;

/// The ids of those who have opened.
type Ids = Arc<Mutex<Vec<ConnId>>>;

/// Enters its id, and does nothing else.
struct Entering(Ids);

impl Protocol for Entering {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.lock().unwrap().push(cx.id());
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }
}

fn entered(ids: &Ids, count: usize) -> Vec<ConnId> {
    until(|| ids.lock().unwrap().len() == count, "somebody has not come in");
    ids.lock().unwrap().clone()
}

/// Tells another connection why it ended.
struct Telling(ConnId);

impl Protocol for Telling {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let unsupported = CloseKind::Connect(lariat::ConnectFailure::Unsupported);
        assert_eq!(reason.kind(), unsupported);
        cx.peer(self.0).write(b"refused");
        // For ever, if its `closed` ran.
        cx.driver().connect_local("127.0.0.1:1", Telling(self.0));
    }
}

#[test]
fn what_a_refused_local_connect_wishes_for_is_done_at_once_and_with_its_own_bytes() {
    let ids = Ids::default();
    let mut driver = Blocking::new();
    let own = Arc::clone(&ids);
    let (addr, _) = listen(&mut driver, move || Entering(Arc::clone(&own)));
    let running = start(driver);
    let mut stream = client(addr);
    let id = entered(&ids, 1)[0];
    running
        .handle
        .call(move |control| {
            control.peer(id).write(b"one ");
            control.connect_local("127.0.0.1:1", Telling(id));
            control.peer(id).write(b"two ");
        })
        .unwrap();
    running.handle.call(move |control| control.peer(id).write(b" three")).unwrap();
    let mut heard = [0; 21];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"one two refused three");
    running.finish();
}

/// Writes to a connection when it is dropped.
struct Guard(Handle, ConnId);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.write(self.1, b"dropped").unwrap();
    }
}

#[test]
fn a_note_whose_drop_uses_a_handle_stops_nobody() {
    let ids = Ids::default();
    let mut driver = Blocking::new();
    let own = Arc::clone(&ids);
    let (addr, _) = listen(&mut driver, move || Entering(Arc::clone(&own)));
    let running = start(driver);
    let clients = (client(addr), client(addr));
    let ids = entered(&ids, 2);
    // The order in which they came in is not known.
    for (noted, told) in [(ids[0], ids[1]), (ids[1], ids[0])] {
        let guard = Guard(running.handle.clone(), told);
        running.handle.notify(noted, Note::new(guard)).unwrap();
        running.handle.close(noted).unwrap();
    }
    drop(clients);
    running.finish();
}

#[test]
fn a_driver_that_is_dropped_leaves_its_port_although_a_handle_is_kept() {
    let mut driver = Blocking::new();
    let (addr, _) = listen(&mut driver, || Echo);
    let handle = driver.handle();
    drop(driver);
    assert!(handle.is_ended());
    assert!(TcpStream::connect(addr).is_err(), "somebody still listens");
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct Nasty;

impl std::fmt::Display for Nasty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nasty")
    }
}

impl std::error::Error for Nasty {}

impl Drop for Nasty {
    fn drop(&mut self) {
        panic!("an error that is dropped");
    }
}

struct Throwing;

impl Protocol for Throwing {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.starts_with(b"nasty") {
            return Err(Box::new(Nasty));
        }
        input.consume_all();
        Ok(())
    }
}

#[test]
fn an_error_that_panics_when_it_is_dropped_does_not_end_the_listener() {
    let mut driver = Blocking::new();
    driver.serial(true);
    // Nobody else may keep the reason, and be the one who drops the error.
    let listener = driver.listen("127.0.0.1:0", |_| Some(Throwing)).unwrap();
    let addr = driver.addresses(listener)[0].socket_addr().unwrap();
    let running = start(driver);
    for _ in 0..3 {
        let mut stream = client(addr);
        stream.write_all(b"nasty").unwrap();
        read_to_end(&mut stream);
    }
    let (metrics, _) = running.finish();
    assert_eq!(metrics.accepted, 3);
}

/// Writes much on its own initiative, and echoes meanwhile.
struct Pouring {
    poured: bool,
}

impl Protocol for Pouring {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if !self.poured {
            self.poured = true;
            cx.set_timer(Timer::new(1), Duration::from_millis(1));
        }
        Echo.data(cx, input)
    }
    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.write(&vec![b'p'; 4 * MIB]);
        Ok(())
    }
}

/// The companion writes while the other thread echoes: what input causes waits for room.
#[test]
fn an_echo_beside_a_large_write_is_held_and_loses_nothing() {
    const SENT: usize = 24 * MIB;
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Pouring { poured: false });
    let running = start(driver);
    let stream = client(addr);
    let mut sending = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        sending.write_all(&vec![b'e'; SENT]).unwrap();
        sending.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let (heard, error) = read_late(stream);
    sender.join().unwrap();
    assert_eq!((heard, error), (SENT + 4 * MIB, None));
    let most = trail.most_unsent();
    assert!(most < 6 * MIB, "{most} bytes were unsent");
    running.finish();
}

/// Reads nothing until both sides are stuck, and then everything.
fn read_late(mut stream: TcpStream) -> (usize, Option<std::io::ErrorKind>) {
    std::thread::sleep(Duration::from_millis(300));
    let (bytes, error) = read_to_end(&mut stream);
    (bytes.len(), error)
}

/// Posts a connect when the run is about to end.
struct Late(Handle, SocketAddr, Trail);

impl Drop for Late {
    fn drop(&mut self) {
        let (addr, trail) = (self.1, self.2.clone());
        let _ = self.0.call(move |control| {
            control.connect(addr, Watched(Echo, trail));
        });
    }
}

impl Protocol for Late {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_run_does_not_return_while_a_late_closure_has_begun_something() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let deserted = Deserted::new();
    let mut driver = Blocking::new();
    let trail = Trail::default();
    driver.connect(deserted.addr(), Late(driver.handle(), addr, trail.clone()));
    let running = start(driver);
    let (mut accepted, _) = listener.accept().unwrap();
    echo_once(&mut accepted, b"still here");
    drop(accepted);
    running.join();
    assert_eq!(trail.kind(), CloseKind::Finished);
}

/// Sets a timer again whenever it fires, without a delay.
struct Restless;

impl Protocol for Restless {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::ZERO);
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        cx.set_timer(timer, Duration::ZERO);
        Ok(())
    }
}

#[test]
fn c8_a_timer_that_is_always_due_keeps_neither_notes_nor_shutdown_away() {
    let mut driver = Blocking::new();
    let (addr, trail) = listen(&mut driver, || Restless);
    let running = start(driver);
    let mut stream = client(addr);
    echo_once(&mut stream, b"served");
    running.handle.notify(trail.id(), Note::new(())).unwrap();
    trail.wait_for(1, |step| matches!(step, Step::Notified));
    drop(stream);
    let (_, report) = running.finish();
    assert_eq!(report.aborted(), 0);
}
