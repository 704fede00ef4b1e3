//! The turn: stale events, panics, timer storms, clocks, and what waits for the next one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::{Choices, Faults, Link, Sim, Socket, Trace};
use lariat::{
    CloseKind, CloseReason, ConnId, Context, Deadline, Input, Note, Outcome, Protocol, Timer,
};

use crate::kit::{Count, Echo, Sink, add, ms, serve, serve_with, sim_with};

type Ids = Rc<RefCell<Vec<ConnId>>>;
/// Whose callback ran, and in which turn.
type Told = Rc<RefCell<Vec<(ConnId, u64)>>>;

/// Puts its id among the others, and acts when it reads.
struct Member<F> {
    ids: Ids,
    act: F,
    closed: Told,
}

impl<F: FnMut(&mut Context<'_>, &[ConnId], &[u8])> Protocol for Member<F> {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.ids.borrow_mut().push(cx.id());
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        (self.act)(cx, &self.ids.borrow(), input);
        input.consume_all();
        Ok(())
    }
    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        self.closed.borrow_mut().push((cx.id(), cx.driver().metrics().turns));
        Ok(())
    }
    fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
        self.closed.borrow_mut().push((cx.id(), cx.driver().metrics().turns));
    }
}

/// `count` connections of members, all idle.
fn members<F: FnMut(&mut Context<'_>, &[ConnId], &[u8]) + 'static>(
    sim: &mut Sim,
    count: usize,
    make: impl Fn() -> F + 'static,
) -> (Ids, Told, Vec<Socket>) {
    let (ids, closed): (Ids, Told) = (Rc::default(), Rc::default());
    let (shared, ends) = (Rc::clone(&ids), Rc::clone(&closed));
    let addr = serve(sim, move || Member {
        ids: Rc::clone(&shared),
        act: make(),
        closed: Rc::clone(&ends),
    });
    let sockets = (0..count).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    (ids, closed, sockets)
}

#[test]
fn c1_an_event_for_a_connection_closed_earlier_in_the_batch_reaches_nobody() {
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("127.0.0.1:99").unwrap();
    let trace = Trace::new();
    let wrap = trace.clone();
    let heard: Count = Rc::default();
    let hears = Rc::clone(&heard);
    let (ids, closed, sockets) = members(&mut sim, 2, move || {
        let (wrap, hears) = (wrap.clone(), Rc::clone(&hears));
        move |cx: &mut Context<'_>, ids: &[ConnId], _: &[u8]| {
            add(&hears, 1);
            if cx.id() == ids[0] {
                cx.peer(ids[1]).abort();
                let new = cx.driver().connect_local("127.0.0.1:99", wrap.wrap("new", Sink));
                // The slot's number is before the dot.
                let slot = |id: ConnId| id.to_string().split('.').next().unwrap().to_owned();
                assert_ne!(slot(new), slot(ids[1]), "a slot is not reused within the turn");
            }
        }
    });
    // Both events arrive in one poll, the one of the first before the one of the second.
    sockets[0].send(b"x");
    sockets[1].send(b"y");
    let before = sim.metrics().turns;
    assert!(sim.run_until(|sim| sim.metrics().closes.total() == 1).unwrap());
    assert!(sim.metrics().turns - before <= 3);
    assert_eq!(heard.get(), 1, "only the first was told of its bytes");
    assert_eq!(closed.borrow()[0].0, ids.borrow()[1]);
    assert!(trace.of("new").is_empty(), "the newcomer got nothing of it: {trace:?}");
    sim.run_for(ms(1)).unwrap();
    assert_eq!(trace.of("new"), ["opened"]);
    drop(acceptor);
}

#[test]
fn c1_a_slot_given_back_in_a_turn_is_not_taken_again_in_it() {
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    link.latency = Duration::ZERO;
    sim.set_link(link);
    let connected: Told = Rc::default();
    let connects = Rc::clone(&connected);
    let (ids, closed, sockets) = members(&mut sim, 3, move || {
        let connects = Rc::clone(&connects);
        move |cx: &mut Context<'_>, ids: &[ConnId], _: &[u8]| {
            if cx.id() == ids[0] {
                cx.peer(ids[1]).abort();
            } else {
                let new = cx.driver().connect_local("127.0.0.1:1", Sink);
                connects.borrow_mut().push((new, cx.driver().metrics().turns));
            }
        }
    });
    // The first aborts the second. In the turn that tells the second, the third connects.
    sockets[0].send(b"x");
    let aborts = sim.metrics().callbacks + 1;
    assert!(sim.run_until(|sim| sim.metrics().callbacks == aborts).unwrap());
    sockets[2].send(b"x");
    assert!(sim.run_until(|_| !connected.borrow().is_empty()).unwrap());
    let (new, turn) = connected.borrow()[0];
    let slot = |id: ConnId| id.to_string().split('.').next().unwrap().to_owned();
    assert_eq!(*closed.borrow(), [(ids.borrow()[1], turn)], "both happened in one turn");
    assert_ne!(slot(new), slot(ids.borrow()[1]));
}

#[test]
fn c1_slots_are_reused_again_and_again_without_a_mistake() {
    /// Connects to nowhere, again and again.
    struct Again(u32, Rc<Cell<u32>>, ConnId);
    impl Protocol for Again {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
            assert_ne!(cx.id(), self.2);
            self.1.set(self.1.get() + 1);
            if self.0 > 0 {
                let next = Again(self.0 - 1, Rc::clone(&self.1), cx.id());
                cx.driver().connect_local("127.0.0.1:1", next);
            }
        }
    }
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    let mut sim = sim_with(1, |limits| limits.connections_max = 1);
    let ended: Rc<Cell<u32>> = Rc::default();
    // Above the limit: each fails in the next turn, without a socket.
    let addr = serve(&mut sim, || Sink);
    let client = sim.dial(addr);
    let mut first = None;
    let watch = serve(&mut sim, || Sink);
    let _ = watch;
    sim.run_for(ms(1)).unwrap();
    for _ in 0..8 {
        let id = sim.control().connect_local(addr, Sink);
        let start = Again(rounds, Rc::clone(&ended), id);
        first.get_or_insert(sim.control().connect_local(addr, start));
    }
    let all = 8 * (rounds + 1);
    assert!(sim.run_until(|_| ended.get() == all).unwrap());
    assert_eq!(sim.metrics().open, 1);
    assert!(!sim.control().peer(first.unwrap()).is_open());
    drop(client);
}

#[test]
fn what_a_callback_causes_for_others_is_told_in_a_later_turn() {
    for notes in [false, true] {
        let mut sim = Sim::new(1);
        let asked: Count = Rc::default();
        let asks = Rc::clone(&asked);
        let (_, told, sockets) = members(&mut sim, 3, move || {
            let asks = Rc::clone(&asks);
            move |cx: &mut Context<'_>, ids: &[ConnId], _: &[u8]| {
                if cx.id() == ids[0] {
                    asks.set(cx.driver().metrics().turns);
                    for id in &ids[1..] {
                        if notes {
                            cx.peer(*id).notify(Note::new(()));
                        } else {
                            cx.peer(*id).abort();
                        }
                    }
                }
            }
        });
        // All three have an event in the same poll; the first is the first to be served.
        for socket in &sockets {
            socket.send(b"x");
        }
        assert!(sim.run_until(|_| told.borrow().len() == 2).unwrap());
        for (id, turn) in told.borrow().iter() {
            assert!(*turn > asked.get(), "{id} was told in the turn it was asked in ({notes})");
        }
    }
}

#[test]
fn c3_the_rest_of_the_batch_is_served_after_a_stop_inside_a_callback() {
    let mut sim = Sim::new(1);
    let heard: Count = Rc::default();
    let hears = Rc::clone(&heard);
    let (_, closed, sockets) = members(&mut sim, 5, move || {
        let hears = Rc::clone(&hears);
        move |cx: &mut Context<'_>, ids: &[ConnId], _: &[u8]| {
            add(&hears, 1);
            if cx.id() == ids[0] {
                if let Some(listener) = cx.listener() {
                    cx.driver().stop_listening(listener);
                }
                cx.driver().shutdown();
            }
        }
    });
    for socket in &sockets {
        socket.send(b"x");
    }
    let report = sim.run().unwrap();
    assert!(sim.is_over());
    assert_eq!(closed.borrow().len(), 5);
    assert_eq!((report.drained(), report.aborted()), (5, 0));
    assert!(heard.get() >= 1);
}

#[test]
fn c4_one_callback_in_a_hundred_panics_and_the_others_lose_nothing() {
    crate::quiet_planned_panics();
    struct Shaky {
        dice: Choices,
        panicked: Rc<RefCell<Vec<ConnId>>>,
        closed: Count,
    }
    impl Shaky {
        fn shake(&self, cx: &Context<'_>) {
            if self.dice.chance(10) {
                self.panicked.borrow_mut().push(cx.id());
                panic!("planned");
            }
        }
    }
    impl Protocol for Shaky {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            self.shake(cx);
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            self.shake(cx);
            cx.write(input);
            input.consume_all();
            Ok(())
        }
        fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            self.shake(cx);
            cx.close();
            Ok(())
        }
        fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
            add(&self.closed, 1);
            self.shake(cx);
        }
    }
    let count = if cfg!(debug_assertions) { 300 } else { 1_000 };
    let mut sim = Sim::new(4);
    sim.set_faults(Faults::rough());
    let dice = sim.choices();
    let (panicked, closed): (Rc<RefCell<Vec<ConnId>>>, Count) = (Rc::default(), Rc::default());
    let (all, ends) = (Rc::clone(&panicked), Rc::clone(&closed));
    let addr = serve(&mut sim, move || Shaky {
        dice: dice.clone(),
        panicked: Rc::clone(&all),
        closed: Rc::clone(&ends),
    });
    let clients: Vec<Socket> = (0..count).map(|_| sim.dial(addr)).collect();
    for client in &clients {
        client.send(&[9; 3_000]);
        client.finish();
    }
    sim.run().unwrap();
    let whole = clients.iter().filter(|client| client.take_received() == [9; 3_000]).count();
    let spoiled = panicked.borrow().len();
    assert!(spoiled > count / 100, "{spoiled} panics");
    assert!(whole >= count - spoiled, "{whole} whole, {spoiled} panics");
    assert_eq!(closed.get(), count as u64, "closed ran once for each");
    assert_eq!(sim.metrics().panics, spoiled as u64);
    assert_eq!(sim.metrics().open, 0);
}

#[test]
fn c7_a_timer_storm_fires_in_slices_and_input_is_served_between() {
    const TIMERS: u64 = 100_000;
    struct Storm(Count, Rc<RefCell<Vec<u64>>>);
    impl Protocol for Storm {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            for key in 0..1_000 {
                cx.set_timer(Timer::new(key), ms(50));
            }
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            assert!(cx.age() >= ms(50));
            add(&self.0, 1);
            let turn = cx.driver().metrics().turns as usize;
            let mut turns = self.1.borrow_mut();
            if turns.len() <= turn {
                turns.resize(turn + 1, 0);
            }
            turns[turn] += 1;
            Ok(())
        }
    }
    let mut sim = sim_with(1, |limits| limits.timers_max = 700);
    let mut link = Link::default();
    link.latency = Duration::ZERO;
    sim.set_link(link);
    let (fired, turns): (Count, Rc<RefCell<Vec<u64>>>) = (Rc::default(), Rc::default());
    let (fires, counts) = (Rc::clone(&fired), Rc::clone(&turns));
    let storm = serve(&mut sim, move || Storm(Rc::clone(&fires), Rc::clone(&counts)));
    let echo = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..TIMERS / 1_000).map(|_| sim.dial(storm)).collect();
    let ping = sim.dial(echo);
    sim.run_for(ms(1)).unwrap();
    for client in &clients {
        client.send(b"!");
    }
    sim.run_for(ms(49)).unwrap();
    assert_eq!(fired.get(), 0, "none is early");
    assert!(sim.run_until(|_| fired.get() > 0).unwrap());
    // The storm has begun: a ping comes back after a slice or two, not at its end.
    ping.send(b"?");
    assert!(sim.run_until(|_| ping.take_received() == b"?").unwrap());
    assert!(fired.get() <= 5 * 700, "{} timers fired before the echo", fired.get());
    sim.run_for(ms(10)).unwrap();
    assert_eq!(fired.get(), TIMERS);
    assert!(turns.borrow().iter().all(|count| *count <= 700));
}

#[test]
fn b6_a_thousand_deadlines_at_once_are_worked_off_in_slices() {
    struct Idle(Count);
    impl Protocol for Idle {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            assert_eq!(reason.kind(), CloseKind::TimedOut(Deadline::Idle));
            add(&self.0, 1);
        }
    }
    let mut sim = sim_with(1, |limits| limits.timers_max = 100);
    let ended: Count = Rc::default();
    let ends = Rc::clone(&ended);
    let change = |limits: &mut lariat::Limits| limits.idle = Some(ms(100));
    let addr = serve_with(&mut sim, change, move || Idle(Rc::clone(&ends)));
    let clients: Vec<Socket> = (0..1_000).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(90)).unwrap();
    assert_eq!(sim.metrics().open, 1_000);
    let first = sim.metrics().turns;
    while sim.metrics().timers < 1_000 {
        let before = sim.metrics().timers;
        assert!(sim.metrics().turns - first < 1_000, "{before} of 1,000 timers");
        sim.turn(None).unwrap();
        assert!(sim.metrics().timers - before <= 100, "more timers than a turn may run");
    }
    drop(clients);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(ended.get(), 1_000);
}

#[test]
fn c8_a_zero_timer_set_again_in_timeout_fires_once_per_turn_and_starves_nobody() {
    struct Eager(Count);
    impl Protocol for Eager {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), Duration::ZERO);
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
            add(&self.0, 1);
            cx.set_timer(timer, Duration::ZERO);
            Ok(())
        }
    }
    let mut sim = Sim::new(1);
    let fired: Count = Rc::default();
    let fires = Rc::clone(&fired);
    let eager = serve(&mut sim, move || Eager(Rc::clone(&fires)));
    let echo = serve(&mut sim, || Echo);
    let _storm = sim.dial(eager);
    let ping = sim.dial(echo);
    assert!(sim.run_until(|_| fired.get() > 0).unwrap());
    for _ in 0..10 {
        let (turns, before) = (sim.metrics().turns, fired.get());
        ping.send(b"?");
        assert!(sim.run_until(|_| ping.take_received() == b"?").unwrap());
        let turns = sim.metrics().turns - turns;
        assert!(fired.get() - before <= turns, "more than once per turn");
        assert!(turns < 1_000, "{turns} turns for one echo");
    }
}

#[test]
fn c9_a_clock_that_stands_still_or_jumps_makes_no_timer_early() {
    struct Careful {
        dice: Choices,
        due: Option<Instant>,
        fired: Count,
        early: Count,
    }
    impl Careful {
        fn set(&mut self, cx: &mut Context<'_>) {
            let delay = Duration::from_micros(self.dice.below(30_000));
            self.due = Some(cx.now() + delay);
            cx.set_timer(Timer::new(3), delay);
        }
    }
    impl Protocol for Careful {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            self.set(cx);
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            add(&self.fired, 1);
            add(&self.early, u64::from(self.due.is_some_and(|due| cx.now() < due)));
            self.set(cx);
            Ok(())
        }
    }
    for seed in 0..10 {
        let mut sim = Sim::new(seed);
        let mut faults = Faults::rough();
        faults.clock_stalls = 700;
        sim.set_faults(faults);
        let (fired, early): (Count, Count) = (Rc::default(), Rc::default());
        let (fires, earlies) = (Rc::clone(&fired), Rc::clone(&early));
        let dice = sim.choices();
        let addr = serve(&mut sim, move || Careful {
            dice: dice.fork(),
            due: None,
            fired: Rc::clone(&fires),
            early: Rc::clone(&earlies),
        });
        let _clients: Vec<Socket> = (0..5).map(|_| sim.dial(addr)).collect();
        sim.run_for(ms(2_000)).unwrap();
        assert!(fired.get() > 100, "only {} fired", fired.get());
        assert_eq!(early.get(), 0, "seed {seed}");
    }
}

#[test]
fn c11_an_error_of_the_wait_ends_run_with_it_and_an_interruption_does_not() {
    use lariat::sim::{Call, Fault};
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    client.send(b"?");
    for nth in 0..3 {
        sim.script(Call::Poll, nth, Fault::Error(libc::EINTR));
    }
    assert!(sim.run_until(|_| client.take_received() == b"?").unwrap());
    sim.script(Call::Poll, 0, Fault::Error(libc::EBADF));
    client.send(b"?");
    let error = sim.run().unwrap_err();
    assert!(error.to_string().contains("wait"), "{error}");
}

#[test]
fn c13_few_events_per_poll_lose_nothing() {
    for events_max in [1, 2] {
        let mut sim = sim_with(1, |limits| limits.events_max = events_max);
        let mut faults = Faults::none();
        faults.single_events = 1000;
        sim.set_faults(faults);
        let addr = serve(&mut sim, || Echo);
        let clients: Vec<Socket> = (0..500).map(|_| sim.dial(addr)).collect();
        for client in &clients {
            client.send(b"round and round");
            client.finish();
        }
        sim.run().unwrap();
        assert!(clients.iter().all(|client| client.take_received() == b"round and round"));
    }
}

#[test]
fn an_idle_loop_takes_no_turns() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..100).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(10)).unwrap();
    // Half of them half-closed by the peer while paused is the business of the next test.
    let before = sim.metrics().turns;
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert!(sim.metrics().turns - before <= 3);
    drop(clients);
}

#[test]
fn b12_half_open_and_paused_connections_never_make_the_loop_spin() {
    struct Stubborn(bool);
    impl Protocol for Stubborn {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            if self.0 {
                cx.pause_reading();
            }
            cx.write(&[1; 300_000]);
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn eof(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    for paused in [false, true] {
        let mut sim = Sim::new(1);
        let addr = serve(&mut sim, move || Stubborn(paused));
        let clients: Vec<Socket> = (0..20).map(|_| sim.dial(addr)).collect();
        for client in &clients {
            client.stop_reading();
            client.send(b"half");
            client.finish();
        }
        sim.run_for(ms(100)).unwrap();
        let before = sim.metrics().turns;
        sim.run_for(Duration::from_secs(20)).unwrap();
        let turns = sim.metrics().turns - before;
        assert!(turns <= 40, "{turns} turns in 20 idle seconds (paused: {paused})");
        assert_eq!(sim.metrics().open, 20);
    }
}

#[test]
fn an_abort_and_a_shutdown_of_a_handle_overtake_what_waits() {
    let mut sim = Sim::new(1);
    let (ids, _, clients) =
        members(&mut sim, 2, || |_: &mut Context<'_>, _: &[ConnId], _: &[u8]| ());
    let (id, handle) = (ids.borrow()[0], sim.handle());
    handle.write(id, b"late").unwrap();
    handle.close(id).unwrap();
    handle.abort(id);
    let (tell, told) = std::sync::mpsc::channel();
    handle.call(move |control| tell.send(control.is_stopping()).unwrap()).unwrap();
    handle.shutdown();
    sim.run().unwrap();
    assert_eq!(clients[0].take_received(), b"");
    assert!(clients[0].is_reset() && !clients[1].is_reset());
    let metrics = sim.metrics();
    assert_eq!((metrics.closes.aborted, metrics.closes.shutdown), (1, 1));
    assert_eq!(metrics.refused_bytes, 4);
    assert_eq!(told.recv(), Ok(true));
}
