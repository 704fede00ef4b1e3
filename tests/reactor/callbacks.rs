//! Everything that a callback may ask for, in every callback; and the loop around them: small
//! event lists, shutdown under load, other threads.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{
    CloseKind, CloseReason, ConnId, Context, DriverLimits, Input, ListenerId, Note, Outcome,
    Protocol, Timer,
};

use crate::common::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Opened,
    Data,
    Eof,
    Drained,
    Timeout,
    Notified,
    Stopping,
    Closed,
}

const CALLBACKS: [At; 8] = [
    At::Opened,
    At::Data,
    At::Eof,
    At::Drained,
    At::Timeout,
    At::Notified,
    At::Stopping,
    At::Closed,
];

impl At {
    /// What it looks like in a trail.
    fn step(self) -> fn(&Step) -> bool {
        match self {
            At::Opened => |step| matches!(step, Step::Opened(_)),
            At::Data => |step| matches!(step, Step::Data(..)),
            At::Eof => |step| matches!(step, Step::Eof),
            At::Drained => |step| matches!(step, Step::Drained),
            At::Timeout => |step| matches!(step, Step::Timeout),
            At::Notified => |step| matches!(step, Step::Notified),
            At::Stopping => |step| matches!(step, Step::Stopping),
            At::Closed => |step| matches!(step, Step::Closed(_)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Close,
    Abort,
    ShutdownWrite,
    Write,
    CloseOther,
    AbortOther,
    Connect,
    Replace,
    StopListening,
    Stop,
    Fail,
    Panic,
}

const ACTIONS: [Action; 13] = [
    Action::Nothing,
    Action::Close,
    Action::Abort,
    Action::ShutdownWrite,
    Action::Write,
    Action::CloseOther,
    Action::AbortOther,
    Action::Connect,
    Action::Replace,
    Action::StopListening,
    Action::Stop,
    Action::Fail,
    Action::Panic,
];

/// Sees to it that each callback runs, and does one thing in one of them.
struct Actor {
    at: At,
    action: Action,
    other: ConnId,
    listener: Rc<Cell<Option<ListenerId>>>,
    addr: Rc<Cell<Option<SocketAddr>>>,
}

impl Actor {
    fn act(&self, at: At, cx: &mut Context<'_>) -> Outcome {
        if at != self.at {
            return Ok(());
        }
        match self.action {
            Action::Nothing => {}
            Action::Close => cx.close(),
            Action::Abort => cx.abort(),
            Action::ShutdownWrite => cx.shutdown_write(),
            Action::Write => cx.write(&[0; 100_000]),
            Action::CloseOther => cx.peer(self.other).close(),
            Action::AbortOther => cx.peer(self.other).abort(),
            Action::Connect => {
                let addr = self.addr.get().unwrap();
                let id = cx.connect(addr, Sink);
                cx.peer(id).write(b"x");
            }
            Action::Replace => {
                cx.replace(Sink);
            }
            Action::StopListening => cx.driver().stop_listening(self.listener.get().unwrap()),
            Action::Stop => cx.driver().shutdown(),
            Action::Fail => return Err("on purpose".into()),
            Action::Panic => panic!("on purpose"),
        }
        Ok(())
    }
}

impl Protocol for Actor {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        // More than the kernel takes at once, so that `drained` follows.
        cx.write(&vec![0; 6 * MIB]);
        cx.set_timer(Timer::new(1), Duration::ZERO);
        let id = cx.id();
        cx.peer(id).notify(Note::new(()));
        self.act(At::Opened, cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        self.act(At::Data, cx)
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.act(At::Eof, cx)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.act(At::Drained, cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.act(At::Timeout, cx)
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        self.act(At::Notified, cx)
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.act(At::Stopping, cx)?;
        if self.at != At::Stopping || self.action == Action::Nothing {
            cx.close();
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        // What goes wrong here has nowhere to go.
        let _ = self.act(At::Closed, cx);
    }
}

/// Sends a little and a FIN, and reads until it ends in whichever way.
fn talk(addr: SocketAddr) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = client(addr);
        let _ = stream.write_all(b"hello");
        let _ = stream.shutdown(Shutdown::Write);
        read_to_end(&mut stream);
    })
}

fn act_in(at: At, action: Action) {
    let mut reactor = reactor_with(|limits| limits.drain = Duration::from_secs(2));
    // The other connection: it says nothing and stays until it is closed.
    let linger = |limits: &mut lariat::Limits| limits.linger_idle = Duration::from_millis(20);
    let (addr, other) = listen_once(&mut reactor, linger, Echo);
    let idle = client(addr);
    drive(&mut reactor, |_| other.has_opened());
    let id = other.id();

    let listener = Rc::new(Cell::new(None));
    let addr = Rc::new(Cell::new(None));
    let trail = Trail::default();
    let actor = Actor { at, action, other: id, listener: listener.clone(), addr: addr.clone() };
    let mut watched = Some(Watched(actor, trail.clone()));
    let own = reactor.listen("127.0.0.1:0", move |_| watched.take()).unwrap();
    listener.set(Some(own));
    addr.set(Some(reactor.addresses(own)[0].socket_addr().unwrap()));
    let thread = talk(addr.get().unwrap());

    let has_run = || trail.count(at.step()) > 0;
    drive(&mut reactor, |_| match at {
        At::Stopping | At::Closed => trail.has_eof(),
        _ => has_run() || trail.is_closed(),
    });
    turns_in(&mut reactor, Duration::from_millis(20));
    reactor.handle().shutdown();
    drive(&mut reactor, Reactor::is_over);
    join(&mut reactor, thread);
    drop(idle);
    settle(&mut reactor);

    // `reason` holds that `closed` ran once and last.
    let kind = match (action, trail.is_closed()) {
        (Action::Replace, false) => return, // The successor got it.
        _ => trail.kind(),
    };
    let ran = has_run();
    assert!(ran || at == At::Stopping, "{at:?} never ran: {}", trail.names());
    if ran && at != At::Closed && at != At::Stopping {
        match action {
            Action::Abort => assert_eq!(kind, CloseKind::Aborted),
            Action::Fail => assert_eq!(kind, CloseKind::Protocol),
            Action::Panic => assert_eq!(kind, CloseKind::Panicked),
            _ => {}
        }
    }
    let other = other.kind();
    match action {
        Action::CloseOther if ran && at != At::Closed => {
            assert!(matches!(other, CloseKind::Finished | CloseKind::Shutdown), "{other:?}");
        }
        Action::AbortOther if ran && at != At::Closed && at != At::Stopping => {
            assert_eq!(other, CloseKind::Aborted);
        }
        Action::CloseOther | Action::AbortOther => {}
        _ => assert_eq!(other, CloseKind::Shutdown),
    }
}

/// Each row of the matrix is a test of its own, so that a failure names the callback.
macro_rules! rows {
    ($($name:ident: $at:expr;)*) => {
        $(
            #[test]
            fn $name() {
                for action in ACTIONS {
                    act_in($at, action);
                }
            }
        )*
        const ROWS: &[At] = &[$($at),*];
    };
}

rows! {
    c2_c3_everything_in_opened: At::Opened;
    c2_c3_everything_in_data: At::Data;
    c2_c3_everything_in_eof: At::Eof;
    c2_c3_everything_in_drained: At::Drained;
    c2_c3_everything_in_timeout: At::Timeout;
    c2_c3_everything_in_notified: At::Notified;
    c2_c3_everything_in_stopping: At::Stopping;
    c2_c3_everything_in_closed: At::Closed;
}

#[test]
fn the_matrix_has_a_row_for_each_callback() {
    assert_eq!(ROWS, CALLBACKS);
}

#[test]
fn c13_an_event_list_of_one_loses_nothing() {
    const CLIENTS: usize = 200;
    let mut reactor = reactor_with(|limits| limits.events_max = 1);
    let addr = listen(&mut reactor, || Echo);
    let thread = thread::spawn(move || {
        let mut streams: Vec<_> = (0..CLIENTS).map(|_| client(addr)).collect();
        for round in 0..20_u8 {
            // All at once, so that all but one are left over at each poll.
            for (number, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[number as u8, round]).unwrap();
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 2];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, [number as u8, round]);
            }
        }
    });
    join(&mut reactor, thread);
    settle(&mut reactor);
    finish(reactor);
}

/// Echoes until the connection ends; returns the echoes it got.
fn echo_until_the_end(addr: SocketAddr) -> JoinHandle<u64> {
    thread::spawn(move || {
        let Ok(mut stream) = TcpStream::connect(addr) else { return 0 };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut echoes = 0;
        let mut buffer = [0; 64];
        loop {
            if stream.write_all(&[1; 64]).is_err() || stream.read_exact(&mut buffer).is_err() {
                return echoes;
            }
            echoes += 1;
        }
    })
}

#[test]
fn c14_shutdown_under_load_ends_every_connection() {
    const CLIENTS: usize = 30;
    let mut reactor = reactor_with(|limits| limits.drain = Duration::from_secs(30));
    let addr = listen(&mut reactor, || Echo);
    let threads: Vec<_> = (0..CLIENTS).map(|_| echo_until_the_end(addr)).collect();
    drive(&mut reactor, |reactor| {
        let metrics = reactor.metrics();
        metrics.accepted == CLIENTS as u64 && metrics.bytes_out > 64 * 20 * CLIENTS as u64
    });
    let handle = reactor.handle();
    thread::spawn(move || handle.shutdown()).join().unwrap();
    let report = reactor.run().unwrap();
    assert_eq!((report.drained(), report.aborted()), (CLIENTS as u64, 0));
    assert!(TcpStream::connect(addr).is_err());
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(reactor.metrics().closes.shutdown, CLIENTS as u64);
    assert!(reactor.handle().is_ended());
    settle(&mut reactor);
}

#[test]
fn a_handle_closes_and_aborts_from_another_thread() {
    let mut reactor = Reactor::new().unwrap();
    let (addr, first) = listen_once(&mut reactor, |_| (), Echo);
    let closing = client(addr);
    let (addr, second) = listen_once(&mut reactor, |_| (), Echo);
    let aborted = client(addr);
    drive(&mut reactor, |_| first.has_opened() && second.has_opened());
    let (handle, ids) = (reactor.handle(), (first.id(), second.id()));
    let thread = thread::spawn(move || {
        handle.close(ids.0).unwrap();
        handle.abort(ids.1);
        let (mut closing, mut aborted) = (closing, aborted);
        (closing.read(&mut [0]).ok(), aborted.read(&mut [0]).map_err(|error| error.kind()).err())
    });
    let (closed, reset) = join(&mut reactor, thread);
    assert_eq!((closed, reset), (Some(0), Some(std::io::ErrorKind::ConnectionReset)));
    drive(&mut reactor, |_| first.is_closed() && second.is_closed());
    assert_eq!((first.kind(), second.kind()), (CloseKind::Finished, CloseKind::Aborted));
    finish(reactor);
}

#[test]
fn a_sleeping_reactor_is_woken_by_its_handle() {
    let mut reactor = Reactor::new().unwrap();
    listen(&mut reactor, || Echo);
    let handle = reactor.handle();
    let thread = thread::spawn(move || handle.shutdown());
    // Without a deadline: only the handle can end it.
    let report = reactor.run().unwrap();
    thread.join().unwrap();
    assert_eq!((report.drained(), report.aborted()), (0, 0));
    assert!(reactor.handle().is_ended());
}

/// Takes too long in `opened` and in each of two timeouts, and not in two more. Keeps how many slow
/// turns and slow callbacks had been counted before each.
struct Slow(Rc<RefCell<Vec<(u64, u64)>>>);

impl Slow {
    fn dawdle(&self, cx: &mut Context<'_>) {
        let metrics = cx.driver().metrics();
        self.0.borrow_mut().push((metrics.slow_turns, metrics.slow_callbacks));
        let count = self.0.borrow().len();
        if count == 5 {
            return cx.close();
        }
        cx.set_timer(Timer::new(1), Duration::ZERO);
        if count < 4 {
            thread::sleep(Duration::from_millis(60));
        }
    }
}

impl Protocol for Slow {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.dawdle(cx);
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.dawdle(cx);
        Ok(())
    }
}

#[test]
fn callbacks_are_timed_from_the_first_slow_turn_on_and_a_short_one_is_not_slow() {
    // Where the machine itself made a turn slow, once more.
    for _ in 0..100 {
        let mut limits = DriverLimits::default();
        limits.slow_callback = Some(Duration::from_millis(50));
        let mut reactor = Reactor::with_limits(limits).unwrap();
        let counts: Rc<RefCell<Vec<(u64, u64)>>> = Rc::default();
        let kept = Rc::clone(&counts);
        let listener =
            reactor.listen("127.0.0.1:0", move |_| Some(Slow(Rc::clone(&kept)))).unwrap();
        let addr = reactor.addresses(listener)[0].socket_addr().unwrap();
        let client = TcpStream::connect(addr).unwrap();
        drive(&mut reactor, |_| counts.borrow().len() == 5);
        drop(client);
        finish(reactor);
        let counts = counts.borrow();
        // Neither before it, nor in the short callback.
        let alone = counts[0].0 == 0 && counts[4].0 == 3;
        if alone {
            let slow: Vec<u64> = counts.iter().map(|(_, callbacks)| *callbacks).collect();
            assert_eq!(slow, [0, 0, 1, 2, 2]);
            return;
        }
    }
    panic!("every machine has a turn of less than 50 ms");
}
