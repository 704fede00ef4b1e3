//! Flow control: what input causes, input waits for. Each of these broke a first version somewhere.

use std::cell::Cell;
use std::rc::Rc;

use lariat::sim::{Faults, Link, Sim, Socket};
use lariat::{CloseReason, ConnId, Context, Input, Limits, Outcome, Protocol};

use crate::kit::{Count, Echo, Reasons, Sink, add, byte_at, ms, serve, serve_with, stream};

const READ_BUFFER: usize = 256 * 1024;
/// What is streamed: the whole of it only where it does not take long.
const WHOLE: usize = if cfg!(debug_assertions) { 1_000_000 } else { 20_000_000 };

/// Sends its stream as fast as it is taken, and checks what comes back.
struct Streamer {
    sent: usize,
    heard: Count,
    /// Also answers each `data` with one byte of the stream.
    chatty: bool,
}

impl Streamer {
    fn produce(&mut self, cx: &mut Context<'_>) {
        while self.sent < WHOLE && !cx.is_congested() {
            let count = 16_384.min(WHOLE - self.sent);
            cx.write(&stream(self.sent, count));
            self.sent += count;
        }
    }
}

impl Protocol for Streamer {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.produce(cx);
        Ok(())
    }
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let from = self.heard.get() as usize;
        if input.iter().enumerate().any(|(at, byte)| *byte != byte_at(from + at)) {
            return Err("not what was sent".into());
        }
        add(&self.heard, input.len() as u64);
        input.consume_all();
        if self.chatty && self.sent < WHOLE {
            cx.write(&[byte_at(self.sent)]);
            self.sent += 1;
        }
        if self.heard.get() as usize == WHOLE {
            cx.close();
        }
        Ok(())
    }
    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.produce(cx);
        Ok(())
    }
}

/// Runs to the end; the bytes that were queued at most.
fn peak(sim: &mut Sim) -> u64 {
    let mut peak = 0;
    while !sim.is_quiet() && !sim.is_over() {
        sim.turn(None).unwrap();
        peak = peak.max(sim.metrics().buffered);
    }
    peak
}

fn link(window: usize) -> Link {
    let mut link = Link::default();
    link.window = window;
    link
}

#[test]
fn b5_a_client_that_streams_through_an_echo_gets_everything_back() {
    for (chatty, rough) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut sim = Sim::new(5);
        sim.set_link(link(100_000));
        if rough {
            sim.set_faults(Faults::rough());
        }
        let addr = serve(&mut sim, || Echo);
        let heard: Count = Rc::default();
        sim.control().connect_local(addr, Streamer { sent: 0, heard: Rc::clone(&heard), chatty });
        let peak = peak(&mut sim) as usize;
        assert_eq!(heard.get() as usize, WHOLE, "chatty {chatty}, rough {rough}");
        // Two ends, each with its mark and one read beyond it.
        let most = 2 * (64 * 1024 + READ_BUFFER);
        assert!(peak <= most, "{peak} bytes were queued (chatty {chatty}, rough {rough})");
        assert_eq!(sim.metrics().closes.finished, 2);
    }
}

#[test]
fn b5_an_echo_to_a_peer_that_does_not_read_queues_its_mark_and_one_read() {
    let mut sim = Sim::new(5);
    sim.set_link(link(1_000_000));
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..20).map(|_| sim.dial(addr)).collect();
    for client in &clients {
        client.stop_reading();
        client.send(&vec![1; 8_000_000]);
    }
    let mut peak = 0;
    for _ in 0..2_000 {
        sim.turn(Some(ms(10))).unwrap();
        peak = peak.max(sim.metrics().buffered);
    }
    assert!(peak <= 20 * (64 * 1024 + READ_BUFFER) as u64, "{peak}");
    assert_eq!(sim.metrics().held, 20);
    assert_eq!(sim.metrics().open, 20);
    // A client that reads again is served again.
    clients[7].resume_reading();
    clients[7].finish();
    let mut got = 0;
    assert!(
        sim.run_until(|_| {
            got += clients[7].take_received().len();
            got == 8_000_000
        })
        .unwrap()
    );
}

#[test]
fn a_producer_on_drained_to_a_fast_reader_leaves_the_others_their_turn() {
    struct Endless;
    impl Endless {
        fn produce(cx: &mut Context<'_>) {
            while !cx.is_congested() {
                cx.write(&[3; 30_000]);
            }
        }
    }
    impl Protocol for Endless {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            Endless::produce(cx);
            Ok(())
        }
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
            Endless::produce(cx);
            Ok(())
        }
    }
    let mut sim = Sim::new(5);
    let mut fast = link(1 << 30);
    fast.latency = std::time::Duration::ZERO;
    sim.set_link(fast);
    let endless = serve(&mut sim, || Endless);
    let echo = serve(&mut sim, || Echo);
    let (greedy, ping) = (sim.dial(endless), sim.dial(echo));
    assert!(sim.run_until(|_| !greedy.take_received().is_empty()).unwrap());
    for _ in 0..20 {
        let before = (sim.metrics().turns, sim.metrics().bytes_out);
        ping.send(b"?");
        assert!(
            sim.run_until(|_| {
                greedy.take_received();
                ping.take_received() == b"?"
            })
            .unwrap()
        );
        let turns = sim.metrics().turns - before.0;
        assert!(turns <= 110, "{turns} turns for a ping");
        let bytes = sim.metrics().bytes_out - before.1;
        assert!(bytes <= turns * (1 << 20), "{bytes} bytes in {turns} turns");
    }
}

/// Passes its input to another connection.
struct Relay(Rc<Cell<Option<ConnId>>>);

impl Protocol for Relay {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if let Some(to) = self.0.get() {
            cx.peer(to).write(input);
            input.consume_all();
        }
        Ok(())
    }
}

/// Tells its id.
struct Known(Rc<Cell<Option<ConnId>>>, Reasons);

impl Protocol for Known {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.set(Some(cx.id()));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.1.keep(reason);
    }
}

/// A relay from `sources` clients to one that does not read.
fn relay(sim: &mut Sim, sources: usize) -> (Vec<Socket>, Socket, Rc<Cell<Option<ConnId>>>) {
    sim.set_link(link(50_000));
    let id: Rc<Cell<Option<ConnId>>> = Rc::default();
    let (tells, knows) = (Rc::clone(&id), Rc::clone(&id));
    let target = serve(sim, move || Known(Rc::clone(&tells), Reasons::default()));
    let source = serve(sim, move || Relay(Rc::clone(&knows)));
    let reader = sim.dial(target);
    reader.stop_reading();
    sim.run_for(ms(1)).unwrap();
    let writers: Vec<Socket> = (0..sources).map(|_| sim.dial(source)).collect();
    (writers, reader, id)
}

#[test]
fn a_relay_is_bounded_and_goes_on_when_its_target_reads() {
    let mut sim = Sim::new(5);
    let (writers, reader, _) = relay(&mut sim, 3);
    for writer in &writers {
        writer.send(&vec![1; 3_000_000]);
    }
    let mut peak = 0;
    for _ in 0..1_000 {
        sim.turn(Some(ms(1))).unwrap();
        peak = peak.max(sim.metrics().buffered);
    }
    // Each writer can add one read beyond the mark before it is held.
    assert!(peak <= (64 * 1024 + 3 * READ_BUFFER) as u64, "{peak}");
    assert_eq!(sim.metrics().held, 3, "every writer waits");
    reader.resume_reading();
    let mut got = 0;
    assert!(
        sim.run_until(|_| {
            got += reader.take_received().len();
            got == 9_000_000
        })
        .unwrap()
    );
    assert_eq!((sim.metrics().held, sim.metrics().buffered), (0, 0));
}

#[test]
fn held_writers_go_on_when_their_target_closes_resets_or_is_aborted() {
    for how in 0..4 {
        let mut sim = Sim::new(5);
        let (writers, reader, id) = relay(&mut sim, 2);
        for writer in &writers {
            writer.send(&vec![1; 1_000_000]);
        }
        sim.run_for(ms(20)).unwrap();
        assert_eq!(sim.metrics().held, 2, "{how}");
        match how {
            0 => reader.reset(),
            1 => sim.control().peer(id.get().unwrap()).abort(),
            2 => sim.control().peer(id.get().unwrap()).close(),
            _ => drop(reader),
        }
        sim.run_for(ms(20)).unwrap();
        assert_eq!(sim.metrics().held, 0, "{how}");
        // What they write now is a counted no-op: all of it is read.
        sim.run_for(ms(11_000)).unwrap();
        assert!(sim.metrics().bytes_in >= 2_000_000, "{how}: {:?}", sim.metrics());
    }
}

#[test]
fn a_writer_that_ends_while_it_is_held_leaves_its_target_alone() {
    for reset in [false, true] {
        let mut sim = Sim::new(5);
        let (mut writers, reader, _) = relay(&mut sim, 2);
        for writer in &writers {
            writer.send(&vec![1; 200_000]);
        }
        sim.run_for(ms(20)).unwrap();
        assert_eq!(sim.metrics().held, 2);
        let gone = writers.pop().unwrap();
        if reset {
            gone.reset();
        } else {
            gone.finish();
        }
        sim.run_for(ms(20)).unwrap();
        reader.resume_reading();
        sim.run_for(ms(1_000)).unwrap();
        assert_eq!((sim.metrics().held, sim.metrics().buffered), (0, 0));
        let got = reader.take_received().len();
        let expected = if reset { 200_000..=400_000 } else { 400_000..=400_000 };
        assert!(expected.contains(&got), "{got} (reset: {reset})");
    }
}

#[test]
fn bytes_of_its_own_never_hold_a_connection_and_are_bounded_by_output_max() {
    /// Writes a block at each byte, by a timer and not in answer.
    struct Generous(Reasons);
    impl Protocol for Generous {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.set_timer(lariat::Timer::new(1), std::time::Duration::ZERO);
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: lariat::Timer) -> Outcome {
            cx.write(&[0; 100_000]);
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            self.0.keep(reason);
        }
    }
    let mut sim = Sim::new(5);
    let reasons = Reasons::default();
    let keep = reasons.clone();
    let change = |limits: &mut Limits| limits.output_max = 1_000_000;
    let addr = serve_with(&mut sim, change, move || Generous(keep.clone()));
    let client = sim.dial(addr);
    client.stop_reading();
    for _ in 0..20 {
        client.send(b"!");
        sim.run_for(ms(5)).unwrap();
        assert_eq!(sim.metrics().held, 0);
        assert!(sim.metrics().buffered <= 1_000_000);
    }
    assert_eq!(reasons.sentences(), ["output full by the runtime"]);
    assert!(client.is_reset());
}

#[test]
fn held_by_flow_control_what_arrived_before_a_reset_is_delivered() {
    struct Counting(Count, Reasons);
    impl Protocol for Counting {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            add(&self.0, input.len() as u64);
            cx.write(input);
            input.consume_all();
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
            self.1.keep(reason);
        }
    }
    let mut sim = Sim::new(5);
    sim.set_link(link(120_000));
    let (heard, reasons): (Count, Reasons) = Default::default();
    let (hears, keep) = (Rc::clone(&heard), reasons.clone());
    let change = |limits: &mut Limits| {
        limits.high_mark = 1_000;
        limits.low_mark = 100;
        limits.read_budget = 1_000;
    };
    let addr = serve_with(&mut sim, change, move || Counting(Rc::clone(&hears), keep.clone()));
    let client = sim.dial(addr);
    client.stop_reading();
    client.send(&vec![1; 200_000]);
    sim.run_for(ms(20)).unwrap();
    assert_eq!(sim.metrics().held, 1);
    let before = heard.get();
    assert!(before < 130_000, "{before}");
    // What is in the driver's socket when the reset comes is still there afterwards.
    client.reset();
    sim.run_for(ms(20)).unwrap();
    assert_eq!(reasons.sentences(), ["reset by the peer"]);
    assert!(heard.get() > before, "{before} before the reset, {} after it", heard.get());
    let unread = reasons.0.borrow()[0].unread();
    assert_eq!(unread, 0, "everything that arrived was delivered");
}

#[test]
fn a_sink_is_never_held() {
    let mut sim = Sim::new(5);
    let addr = serve(&mut sim, || Sink);
    let client = sim.dial(addr);
    client.send(&vec![1; 1_000_000]);
    client.finish();
    assert_eq!(peak(&mut sim), 0);
    assert_eq!(sim.metrics().bytes_in, 1_000_000);
}
