//! Turns: what a slow one is blamed on, spinning instead of sleeping, and life in another loop.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{
    ConnId, Context, Datagram, DatagramContext, DatagramProtocol, DriverLimits, Input, Note,
    Outcome, Protocol,
};
use mio::unix::SourceFd;

use crate::common::{Echo, PATIENCE, client, drive, finish, join, listen, listen_with};
use crate::common::{reactor_with, settle};

/// Answers each byte after it has kept everybody waiting.
struct Slow(Duration);

impl Protocol for Slow {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        std::thread::sleep(self.0);
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Takes its time over each note.
struct Slowly;

impl Protocol for Slowly {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn notified(&mut self, _: &mut Context<'_>, _: Note) -> Outcome {
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }
}

impl DatagramProtocol for Slowly {
    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }
    fn notified(&mut self, _: &mut DatagramContext<'_>, _: Note) -> Outcome {
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }
}

fn ping(stream: &mut TcpStream) {
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_slow_turn_is_noticed_and_the_next_slow_callback_is_found() {
    let mut limits = DriverLimits::default();
    limits.slow_callback = Some(Duration::from_millis(20));
    let mut reactor = Reactor::with_limits(limits).unwrap();
    let addr = listen(&mut reactor, || Slow(Duration::from_millis(40)));
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        ping(&mut stream);
        ping(&mut stream);
    });
    join(&mut reactor, client);
    let metrics = reactor.metrics();
    assert!(metrics.slow_turns >= 2, "{metrics:?}");
    // The first is what the search begins with; the second is caught.
    assert!(metrics.slow_callbacks >= 1, "{metrics:?}");
    assert!(metrics.longest_turn >= Duration::from_millis(40), "{metrics:?}");
    finish(reactor);
}

#[test]
fn the_longest_turn_is_known_also_where_none_is_called_slow() {
    for limit in [None, Some(PATIENCE)] {
        let mut limits = DriverLimits::default();
        limits.slow_callback = limit;
        let mut reactor = Reactor::with_limits(limits).unwrap();
        let addr = listen(&mut reactor, || Slow(Duration::from_millis(40)));
        let client = std::thread::spawn(move || ping(&mut TcpStream::connect(addr).unwrap()));
        join(&mut reactor, client);
        let metrics = reactor.metrics();
        assert!(metrics.longest_turn >= Duration::from_millis(40), "{metrics:?}");
        assert_eq!((metrics.slow_turns, metrics.slow_callbacks), (0, 0));
        finish(reactor);
    }
}

#[test]
fn callbacks_are_timed_for_a_thousand_turns_after_a_slow_one() {
    let mut limits = DriverLimits::default();
    limits.slow_callback = Some(Duration::from_millis(200));
    let mut reactor = Reactor::with_limits(limits).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = reactor.control().bind("127.0.0.1:0", Slowly).unwrap();
    let connected = reactor.control().connect(listener.local_addr().unwrap(), Slowly);
    let handle = reactor.handle();
    let slow = |reactor: &mut Reactor, id: ConnId, turns: usize| {
        for _ in 0..turns {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        let before = reactor.metrics();
        handle.notify(id, Note::new(())).unwrap();
        // The note may have to wait for the turn behind the one that hears of it.
        let after = loop {
            reactor.turn(Some(Duration::ZERO)).unwrap();
            let after = reactor.metrics();
            if after.slow_turns > before.slow_turns {
                break after;
            }
        };
        (before.slow_turns, after.slow_callbacks - before.slow_callbacks)
    };
    while reactor.metrics().callbacks < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    assert_eq!(slow(&mut reactor, connected, 0).1, 0, "nothing was slow before");
    for id in [connected, bound] {
        assert_eq!(slow(&mut reactor, id, 900).1, 1, "it is still looked for");
        // A machine that has no time makes turns slow by itself, which begins the search again.
        let found = loop {
            let slow_turns = reactor.metrics().slow_turns;
            let (before, found) = slow(&mut reactor, id, 1001);
            if before == slow_turns {
                break found;
            }
        };
        assert_eq!(found, 0, "the search goes on for ever");
    }
}

#[test]
fn the_time_spent_working_is_estimated_from_one_turn_in_sixteen() {
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Slow(Duration::from_millis(2)));
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        (0..64).for_each(|_| ping(&mut stream));
    });
    join(&mut reactor, client);
    let metrics = reactor.metrics();
    // Of 64 turns with 2 ms of work at least one counts, and it counts for sixteen.
    assert!(metrics.turns >= 64 && metrics.busy >= Duration::from_millis(32), "{metrics}");
    assert!(metrics.busy <= 2 * metrics.age, "{metrics}");
    finish(reactor);
}

#[test]
fn a_reactor_that_spins_serves_as_one_that_sleeps() {
    let mut limits = DriverLimits::default();
    limits.spin = Some(Duration::from_micros(200));
    let mut reactor = Reactor::with_limits(limits).unwrap();
    let addr = listen(&mut reactor, || Slow(Duration::ZERO));
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        (0..100).for_each(|_| ping(&mut stream));
    });
    join(&mut reactor, client);
    finish(reactor);
}

#[test]
fn another_loop_can_wait_for_the_reactor() {
    const REACTOR: mio::Token = mio::Token(7);
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Slow(Duration::ZERO));
    let mut outer = mio::Poll::new().unwrap();
    let fd = reactor.as_fd().as_raw_fd();
    outer.registry().register(&mut SourceFd(&fd), REACTOR, mio::Interest::READABLE).unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        (0..20).for_each(|_| ping(&mut stream));
    });
    let mut events = mio::Events::with_capacity(8);
    let deadline = Instant::now() + PATIENCE;
    while !client.is_finished() {
        assert!(Instant::now() < deadline);
        let wait = reactor.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        // The client may end without a word to the reactor's descriptor, so not for ever.
        let wait = wait.unwrap_or(Duration::MAX).min(Duration::from_millis(100));
        match outer.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        // Edge-triggered outside, so everything inside is taken.
        while reactor.next_deadline().is_some_and(|at| at <= Instant::now()) || !events.is_empty() {
            events.clear();
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    }
    client.join().unwrap();
    drive(&mut reactor, |reactor| reactor.metrics().closes.total() == 1);
    finish(reactor);
}

#[test]
fn a_loop_around_poll_drives_the_reactor_with_sockets_and_timers_of_its_own() {
    let mut reactor = Reactor::new().unwrap();
    let addr = listen(&mut reactor, || Slow(Duration::ZERO));
    let (client, handle) = (TcpStream::connect(addr).unwrap(), reactor.handle());
    let fired = Rc::new(Cell::new(false));
    let fires = Rc::clone(&fired);
    let (tell, told) = std::sync::mpsc::channel();
    let begun = Instant::now();
    let delay = Duration::from_millis(30);
    let timer = move |_: &mut lariat::Control<'_>| {
        fires.set(true);
        tell.send(()).unwrap();
    };
    reactor.control().set_timer_local(delay, timer).unwrap();
    let thread = std::thread::spawn(move || {
        let mut client = client;
        (0..20).for_each(|_| ping(&mut client));
        drop(client);
        // A driver that ends drops its timers.
        told.recv().unwrap();
        handle.shutdown();
    });
    let mut turns = 0;
    while !reactor.is_over() {
        assert!(begun.elapsed() < PATIENCE);
        let wait = reactor.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let mut watched = [rustix::event::PollFd::new(&reactor, rustix::event::PollFlags::IN)];
        let wait = wait.map(|wait| rustix::event::Timespec::try_from(wait).unwrap());
        let ready = rustix::event::poll(&mut watched, wait.as_ref()).unwrap();
        // Nothing to do is a sleep: neither an event nor a deadline is left over.
        let due = reactor.next_deadline().is_some_and(|at| at <= Instant::now());
        assert!(ready == 1 || due, "woken without a reason");
        reactor.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
    }
    thread.join().unwrap();
    assert!(fired.get() && begun.elapsed() >= delay && turns < 200, "{turns} turns");
    assert_eq!(reactor.metrics().bytes_in, 20);
}

#[test]
fn a_handle_wakes_an_idle_loop_whatever_it_asks() {
    let mut reactor = Reactor::new().unwrap();
    let ids = Rc::new(RefCell::new(Vec::new()));
    let opened = Rc::clone(&ids);
    let make = move || Opens(Rc::clone(&opened));
    let (listener, addr) = listen_with(&mut reactor, |_| (), make);
    let streams: Vec<_> = (0..2).map(|_| TcpStream::connect(addr).unwrap()).collect();
    drive(&mut reactor, |reactor| reactor.metrics().accepted == 2);
    // That they can be written to is an event too.
    drive(&mut reactor, |reactor| reactor.metrics().events >= 3);
    let (handle, ids) = (reactor.handle(), ids.take());
    let began = Instant::now();
    handle.abort(ids[0]);
    reactor.turn(Some(PATIENCE)).unwrap();
    assert_eq!(reactor.metrics().open, 1);
    handle.close(ids[1]).unwrap();
    reactor.turn(Some(PATIENCE)).unwrap();
    assert_eq!(reactor.metrics().open, 0);
    handle.shutdown();
    reactor.turn(Some(PATIENCE)).unwrap();
    assert!(reactor.addresses(listener).is_empty());
    assert!(began.elapsed() < PATIENCE, "the loop has slept");
    drop(streams);
    finish(reactor);
}

/// Tells its id.
struct Opens(Rc<RefCell<Vec<ConnId>>>);

impl Protocol for Opens {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.borrow_mut().push(cx.id());
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn c18_a_timer_does_not_wait_again_for_time_that_passed_outside_of_turns() {
    const DELAY: Duration = Duration::from_secs(2);
    let mut reactor = Reactor::new().unwrap();
    let ran = Rc::new(Cell::new(false));
    let runs = Rc::clone(&ran);
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.control().set_timer_local(DELAY, move |_| runs.set(true)).unwrap();
    let due = reactor.next_deadline().unwrap();
    // Other work.
    std::thread::sleep(DELAY + Duration::from_millis(100));
    assert_eq!(reactor.next_deadline(), Some(due));
    let began = Instant::now();
    assert!(due <= began);
    reactor.turn(None).unwrap();
    assert!(ran.get() && began.elapsed() < DELAY, "it slept for {:?}", began.elapsed());
    finish(reactor);
}

#[test]
fn a_turn_of_a_reactor_that_has_nothing_left_does_not_wait() {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.turn(None).unwrap();
        tell.send(reactor.is_over()).unwrap();
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
    thread.join().unwrap();
}

#[test]
fn a_turn_takes_no_more_events_than_events_max_and_none_is_lost() {
    for most in [1, 2] {
        let mut reactor = reactor_with(|limits| limits.events_max = most);
        let addr = listen(&mut reactor, || Echo);
        let mut clients: Vec<TcpStream> = (0..6).map(|_| client(addr)).collect();
        while reactor.metrics().accepted < 6 {
            reactor.turn(Some(PATIENCE)).unwrap();
        }
        while reactor.next_deadline().is_some_and(|at| at <= Instant::now()) {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
        let mut before = reactor.metrics();
        while reactor.metrics().bytes_out < 6 {
            reactor.turn(Some(PATIENCE)).unwrap();
            let metrics = reactor.metrics();
            let events = metrics.events - before.events;
            assert!(events <= most as u64, "{events} events in a turn of at most {most}");
            before = metrics;
        }
        drop(clients);
        settle(&mut reactor);
        finish(reactor);
    }
}

#[test]
fn a_timer_is_due_at_the_deadline_that_the_reactor_names() {
    let mut reactor = Reactor::new().unwrap();
    for round in 1..=20 {
        let fired = Rc::new(Cell::new(false));
        let fires = Rc::clone(&fired);
        let delay = Duration::from_micros(1000 + 37 * round);
        reactor.control().set_timer_local(delay, move |_| fires.set(true)).unwrap();
        let at = reactor.next_deadline().unwrap();
        while Instant::now() < at {
            std::hint::spin_loop();
        }
        // One turn: a loop around it would come back at once, and again, until it is due.
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(fired.get(), "it was not due, {delay:?} after it was set");
    }
    finish(reactor);
}

#[test]
fn between_turns_nobody_is_kept_waiting_by_the_lookup_of_a_name() {
    let mut reactor = Reactor::new().unwrap();
    for _ in 0..2 {
        let listener = reactor.control().listen("localhost:0", |_| None::<Slowly>).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(!reactor.addresses(listener).is_empty());
    }
    finish(reactor);
}
