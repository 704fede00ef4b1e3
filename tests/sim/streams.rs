//! Streams at their worst: spurious events, lost edges, slow peers, resets, and long goodbyes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lariat::sim::{Call, Fault, Faults, Link, Sim, Socket, Trace};
use lariat::{CloseReason, Context, Filter, Input, Limits, Outcome, Protocol, Timer};

use crate::kit::{Count, Echo, Reasons, Sink, add, ms, serve, serve_with, stream};
use crate::toy::Toy;

const LATER: Timer = Timer::new(1);

#[test]
fn b1_interrupted_calls_are_never_seen() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let mut faults = Faults::none();
        faults.interrupts = 500;
        sim.set_faults(faults);
        let addr = serve(&mut sim, || Echo);
        let client = sim.dial(addr);
        client.send(&stream(0, 50_000));
        client.finish();
        sim.run().unwrap();
        assert_eq!(client.take_received(), stream(0, 50_000));
        assert_eq!(sim.metrics().closes.finished, 1);
    }
}

#[test]
fn b2_spurious_events_cause_no_callback_and_no_spin() {
    let mut sim = Sim::new(2);
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..20).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(10)).unwrap();
    let mut faults = Faults::none();
    faults.spurious = 1000;
    sim.set_faults(faults);
    let before = sim.metrics();
    for _ in 0..500 {
        // Each poll has an event without a cause.
        sim.turn(Some(ms(1))).unwrap();
    }
    let after = sim.metrics();
    assert!(after.events - before.events >= 500, "there were spurious events");
    assert_eq!(after.callbacks, before.callbacks, "and nobody was told of them");
    assert!(after.turns - before.turns <= 501);
    drop(clients);
}

#[test]
fn b3_everything_arrives_though_only_the_first_edge_is_told() {
    // One burst, then silence: the kernel has no second event for what was left unread.
    let whole = if cfg!(debug_assertions) { 2 << 20 } else { 100 << 20 };
    let mut sim = Sim::new(3);
    let mut link = Link::default();
    link.window = whole;
    sim.set_link(link);
    let (heard, hears): (Count, Count) = Default::default();
    let hears = {
        drop(hears);
        Rc::clone(&heard)
    };
    struct Counts(Count);
    impl Protocol for Counts {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            add(&self.0, input.len() as u64);
            input.consume_all();
            Ok(())
        }
    }
    let change = |limits: &mut Limits| limits.read_budget = 10_000;
    let addr = serve_with(&mut sim, change, move || Counts(Rc::clone(&hears)));
    let client = sim.dial(addr);
    client.send(&vec![1; whole]);
    sim.run_for(ms(1)).unwrap();
    assert_eq!(heard.get(), whole as u64);
}

#[test]
fn b4_a_peer_that_takes_one_byte_at_a_time_gets_all_in_order() {
    let mut sim = Sim::new(4);
    let mut link = Link::default();
    link.window = 1;
    sim.set_link(link);
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    client.send(&stream(0, 3_000));
    client.finish();
    sim.run().unwrap();
    assert_eq!(client.take_received(), stream(0, 3_000));
}

#[test]
fn b4_writes_cut_by_script_keep_their_order() {
    let mut sim = Sim::new(4);
    let addr = serve(&mut sim, || Echo);
    for nth in 0..40 {
        sim.script(Call::Write, nth, Fault::Short(1 + nth as usize % 5));
    }
    let client = sim.dial(addr);
    client.send(&stream(0, 1_000));
    client.finish();
    sim.run().unwrap();
    assert_eq!(client.take_received(), stream(0, 1_000));
}

/// Keeps its reason; reads or not, closes at eof or not.
struct Watch {
    reasons: Reasons,
    filter: Option<Toy>,
}

impl Protocol for Watch {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.need(1_000);
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.reasons.keep(reason);
    }
    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.filter.take().map(|toy| Box::new(toy) as Box<dyn Filter>)
    }
}

#[test]
fn b6_a_silent_peer_and_a_slow_handshake_meet_their_deadlines() {
    let mut sim = Sim::new(6);
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let change = |limits: &mut Limits| limits.idle = Some(Duration::from_secs(5));
    let idle = serve_with(&mut sim, change, move || Watch { reasons: keep.clone(), filter: None });
    let silent = sim.dial(idle);
    sim.run_for(ms(4_999)).unwrap();
    assert!(reasons.sentences().is_empty());
    sim.run_for(ms(10)).unwrap();
    assert!(silent.is_finished());

    let keep = reasons.clone();
    let change = |limits: &mut Limits| limits.handshake = Duration::from_secs(10);
    let addr = serve_with(&mut sim, change, move || Watch {
        reasons: keep.clone(),
        filter: Some(Toy::server()),
    });
    // A byte of the handshake every three seconds: activity does not put the deadline off.
    let slow = sim.dial(addr);
    let began = sim.now();
    for byte in Toy::hello(1) {
        sim.run_for(ms(3_000)).unwrap();
        slow.send(&[byte]);
    }
    assert!(slow.is_reset());
    assert_eq!(
        reasons.sentences(),
        ["timed out (idle) by the runtime", "timed out (handshake) by the runtime"]
    );
    let age = reasons.0.borrow()[1].age();
    assert!(age >= Duration::from_secs(10) && age < ms(10_010), "{age:?}, {began:?}");
}

#[test]
fn b6_a_byte_now_and_then_keeps_an_idle_deadline_away() {
    let mut sim = Sim::new(6);
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let change = |limits: &mut Limits| limits.idle = Some(ms(1_000));
    let addr = serve_with(&mut sim, change, move || Watch { reasons: keep.clone(), filter: None });
    let slow = sim.dial(addr);
    for _ in 0..20 {
        slow.send(b".");
        sim.run_for(ms(900)).unwrap();
    }
    assert!(reasons.sentences().is_empty());
    sim.run_for(ms(200)).unwrap();
    assert_eq!(sim.metrics().closes.total() + sim.metrics().lingering, 1);
    // An idle deadline costs nothing per message: about one timer per second of it.
    assert!(sim.metrics().turns < 100, "{:?}", sim.metrics());
}

/// Says much and keeps its reason.
struct Talker(Reasons, usize);

impl Protocol for Talker {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write_bytes(vec![7; self.1]);
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.keep(reason);
    }
}

#[test]
fn a_peer_that_stops_reading_is_stalled_only_after_the_last_progress() {
    let mut sim = Sim::new(7);
    let mut link = Link::default();
    link.window = 1_000;
    sim.set_link(link);
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let change = |limits: &mut Limits| limits.write_stall = ms(2_000);
    let addr = serve_with(&mut sim, change, move || Talker(keep.clone(), 100_000));
    let slow = sim.dial(addr);
    slow.stop_reading();
    for _ in 0..10 {
        sim.run_for(ms(1_900)).unwrap();
        slow.read(10);
    }
    assert!(reasons.sentences().is_empty(), "{:?}", reasons.sentences());
    sim.run_for(ms(2_010)).unwrap();
    assert_eq!(reasons.sentences(), ["timed out (write) by the runtime"]);
    assert!(reasons.0.borrow()[0].unsent() > 90_000);
}

#[test]
fn a_vanished_peer_costs_no_more_than_the_deadline_of_its_state() {
    let mut sim = Sim::new(8);
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let addr = serve(&mut sim, move || Talker(keep.clone(), 1_000_000));
    let client = sim.dial(addr);
    client.stop_reading();
    sim.run_for(ms(10)).unwrap();
    client.vanish();
    let report = {
        sim.handle().shutdown();
        sim.run().unwrap()
    };
    assert!(sim.is_over());
    assert_eq!(reasons.sentences(), ["timed out (close) by the runtime"]);
    assert!(sim.now() < Duration::from_secs(11), "{:?}", sim.now());
    assert!(report.unsent() > 0);
}

// ---- closing ------------------------------------------------------------------------------------

/// Half-closes at once, closes after a while, and keeps its reason.
struct Leaver {
    reasons: Reasons,
    half: bool,
    after: Duration,
}

impl Protocol for Leaver {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"last words");
        if self.half {
            cx.shutdown_write();
        }
        cx.set_timer(LATER, self.after);
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.reasons.keep(reason);
    }
}

#[test]
fn a_close_lingers_as_long_as_promised_also_after_a_half_close() {
    for half in [false, true] {
        let mut sim = Sim::new(9);
        // Long after the start, so that no time is mistaken for another.
        sim.run_for(Duration::from_secs(100)).unwrap();
        let reasons = Reasons::default();
        let keep = reasons.clone();
        let addr = serve(&mut sim, move || Leaver {
            reasons: keep.clone(),
            half,
            after: Duration::from_secs(7),
        });
        let client = sim.dial(addr);
        sim.run_for(ms(7_005)).unwrap();
        assert_eq!(client.take_received(), b"last words");
        assert!(client.is_finished());
        // Talks on, more often than every 2 s: 5 s in all are waited.
        for second in 0..4 {
            sim.run_for(ms(1_000)).unwrap();
            client.send(b"and another thing");
            sim.run_for(ms(10)).unwrap();
            assert!(!client.is_reset(), "reset in second {second} (half: {half})");
            assert_eq!(sim.metrics().lingering, 1, "second {second} (half: {half})");
        }
        sim.run_for(ms(1_100)).unwrap();
        assert_eq!(reasons.sentences(), ["finished by us"], "half: {half}");
        assert_eq!(sim.metrics().lingering, 0);

        // A silent one is waited for 2 s.
        let client = sim.dial(addr);
        sim.run_for(ms(8_900)).unwrap();
        assert_eq!(reasons.sentences().len(), 1, "half: {half}");
        sim.run_for(ms(200)).unwrap();
        assert_eq!(reasons.sentences().len(), 2, "half: {half}");
        drop(client);
    }
}

#[test]
fn lingering_connections_are_bounded_and_the_oldest_goes_first() {
    let mut limits = lariat::DriverLimits::default();
    limits.lingering_max = 3;
    let mut sim = Sim::with_limits(1, limits).unwrap();
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let addr = serve(&mut sim, move || Leaver {
        reasons: keep.clone(),
        half: false,
        after: Duration::ZERO,
    });
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(sim.dial(addr));
        sim.run_for(ms(5)).unwrap();
        assert!(sim.metrics().lingering <= 3);
    }
    assert_eq!(reasons.sentences(), ["finished by us"; 7]);
    assert!(clients.iter().all(|client| client.take_received() == b"last words"));
}

#[test]
fn a_reset_while_lingering_does_not_hide_why_the_connection_was_closed() {
    struct Strict(Reasons);
    impl Protocol for Strict {
        fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.write(b"bad request");
            Err("bad request".into())
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            self.0.keep(reason);
        }
    }
    let mut sim = Sim::new(10);
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let addr = serve(&mut sim, move || Strict(keep.clone()));
    let client = sim.dial(addr);
    client.send(b"nonsense");
    sim.run_for(ms(1)).unwrap();
    assert_eq!(client.take_received(), b"bad request");
    client.reset();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(reasons.sentences(), ["protocol error by us"]);
}

#[test]
fn b10_the_last_reply_survives_an_upload_in_full_swing() {
    struct Refuses;
    impl Protocol for Refuses {
        fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.write(b"413");
            cx.close();
            Ok(())
        }
    }
    for seed in 0..100 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let addr = serve(&mut sim, || Refuses);
        let client = sim.dial(addr);
        client.send(&vec![1; 1 << 20]);
        client.finish();
        sim.run().unwrap();
        assert_eq!(client.take_received(), b"413", "seed {seed}");
        assert!(!client.is_reset(), "seed {seed}");
    }
}

#[test]
fn what_a_socket_has_sent_before_it_is_dropped_still_arrives() {
    let mut sim = Sim::new(12);
    let mut link = Link::default();
    link.window = 1_000;
    sim.set_link(link);
    let trace = Trace::new();
    let wrap = trace.clone();
    let addr = serve(&mut sim, move || wrap.wrap("server", Sink));
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(&stream(0, 50_000));
    drop(client);
    sim.run().unwrap();
    assert_eq!(sim.metrics().bytes_in, 50_000);
    let lines = trace.of("server");
    assert_eq!(lines[2..], ["eof", "closed finished by the peer"]);
}

#[test]
fn b16_a_read_that_timed_out_in_the_system_is_no_end_in_order() {
    let mut sim = Sim::new(1);
    let trace = Trace::new();
    let kept = trace.clone();
    let addr = serve(&mut sim, move || kept.wrap("server", Echo));
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    sim.script(Call::Read, 0, Fault::Error(libc::ETIMEDOUT));
    client.send(b"part of an upload");
    sim.run_for(ms(1)).unwrap();
    assert_eq!(trace.of("server"), ["opened", "closed reset by the peer"]);
}

#[test]
fn b20_what_fails_at_home_resets_the_connection_and_is_not_called_the_peers() {
    for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EACCES, libc::EPERM] {
        for call in [Call::Read, Call::Write] {
            let mut sim = Sim::new(1);
            let addr = serve(&mut sim, || Echo);
            let client = sim.dial(addr);
            sim.run_for(ms(1)).unwrap();
            sim.script(call, 0, Fault::Error(errno));
            client.send(b"hello");
            sim.run_for(ms(1)).unwrap();
            assert!(client.is_reset(), "to the peer it must not look like the end");
            let closes = sim.metrics().closes;
            assert_eq!((closes.system_error, closes.total()), (1, 1));
        }
    }
}

#[test]
fn b9_data_before_a_reset_is_delivered_wherever_it_is_cut() {
    for seed in 0..100 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let trace = Trace::new();
        let wrap = trace.clone();
        let heard: Rc<RefCell<Vec<u8>>> = Rc::default();
        let hears = Rc::clone(&heard);
        struct Keeps(Rc<RefCell<Vec<u8>>>);
        impl Protocol for Keeps {
            fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
                self.0.borrow_mut().extend_from_slice(input);
                input.consume_all();
                Ok(())
            }
        }
        let addr = serve(&mut sim, move || wrap.wrap("server", Keeps(Rc::clone(&hears))));
        let client = sim.dial(addr);
        client.send(&stream(0, 20_000));
        sim.run_for(ms(seed)).unwrap();
        client.reset();
        sim.run_for(ms(2_000)).unwrap();
        let lines = trace.of("server");
        if lines.is_empty() {
            continue; // Reset before it was accepted.
        }
        assert_eq!(lines.last().unwrap(), "closed reset by the peer", "seed {seed}");
        assert!(!lines.contains(&"eof".to_owned()), "seed {seed}");
        assert_eq!(*heard.borrow(), stream(0, 20_000), "seed {seed}");
    }
}

#[test]
fn a_client_that_connects_anew_in_closed_does_not_keep_a_driver_from_stopping() {
    struct Anew(std::net::SocketAddr, Count);
    impl Protocol for Anew {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn closed(&mut self, cx: &mut Context<'_>, _: &CloseReason) {
            add(&self.1, 1);
            cx.driver().connect_local(self.0, Anew(self.0, Rc::clone(&self.1)));
        }
    }
    let mut sim = Sim::new(11);
    let addr = serve(&mut sim, || Sink);
    let ended: Count = Rc::default();
    sim.control().connect_local(addr, Anew(addr, Rc::clone(&ended)));
    sim.run_for(ms(10)).unwrap();
    sim.handle().shutdown();
    let over = sim.run_until(|sim| sim.metrics().turns > 1_000).unwrap();
    assert!(!over, "still going after {} connects", ended.get());
    assert!(sim.is_over());
    assert_eq!(sim.metrics().open, 0);
}

#[test]
fn a_pipe_under_faults_loses_nothing_and_ends_with_its_last_byte() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults::rough());
        let pipe = sim.pipe(Limits::default(), Echo).unwrap();
        pipe.send(&stream(0, 200_000));
        pipe.finish();
        sim.run_for(Duration::from_secs(30)).unwrap();
        assert_eq!(pipe.take_received(), stream(0, 200_000), "seed {seed}");
        assert!(pipe.is_finished() && !pipe.is_reset(), "seed {seed}");
        assert_eq!(sim.metrics().closes.finished, 1, "seed {seed}");
        assert_eq!(sim.metrics().lingering, 0);
    }
}
