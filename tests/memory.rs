//! What connections keep: bytes that are allocated and not freed, in the simulator; over sockets of
//! the system in `memory/peaks.rs`.

#[path = "memory/peaks.rs"]
mod peaks;

use std::alloc::System;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lariat::sim::{Link, Sim, Socket};
use lariat::{
    CloseKind, CloseReason, ConnId, Context, Filter, FilterResult, Input, Limits, ListenOptions,
    Outcome, Progress, Protocol, Timer,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The count is the whole process's: tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that live now and did not when the region began; below 0 where fewer do. What a buffer has
/// grown by counts as allocated.
fn lives(region: &Region<'_, System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

fn grown(region: &Region<'_, System>) -> usize {
    lives(region).max(0) as usize
}

// ---- filters ------------------------------------------------------------------------------------

/// Changes nothing, and answers each byte of the peer with `answers` bytes of its own.
#[derive(Clone, Copy, Default)]
struct Plain {
    answers: usize,
}

impl Filter for Plain {
    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> FilterResult {
        clear.extend_from_slice(bytes);
        wire.resize(wire.len() + bytes.len() * self.answers, b'.');
        Ok(Progress::Open)
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend_from_slice(clear);
        Ok(Progress::Open)
    }

    fn ends_with_stream(&self) -> bool {
        true
    }
}

// ---- protocols ----------------------------------------------------------------------------------

/// An echo of whole messages of `size` bytes, with or without a filter and a distant timer.
#[derive(Clone, Default)]
struct Echo {
    size: usize,
    filter: Option<Plain>,
    timer: bool,
    reasons: Rc<Cell<Option<CloseKind>>>,
}

impl Protocol for Echo {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.timer {
            cx.set_timer(Timer::new(1), Duration::from_secs(86_400));
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.len() < self.size {
            input.need(self.size);
            return Ok(());
        }
        cx.write(input);
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.reasons.set(Some(reason.kind()));
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(Box::new(self.filter?))
    }
}

fn serve(sim: &mut Sim, limits: Limits, echo: Echo) -> lariat::Endpoint {
    let mut options = ListenOptions::default();
    options.limits = limits;
    let listener = sim.listen_with("127.0.0.1:0", options, move |_| Some(echo.clone())).unwrap();
    sim.addresses(listener)[0]
}

/// Everybody sends a message of `size` bytes in two parts and reads it back.
fn exchange(sim: &mut Sim, clients: &[Socket], size: usize) {
    let message = vec![7; size];
    for client in clients {
        client.send(&message[..size / 2]);
    }
    sim.run_for(Duration::from_secs(1)).unwrap();
    for client in clients {
        client.send(&message[size / 2..]);
        sim.run_for(Duration::from_millis(10)).unwrap();
        assert_eq!(client.take_received().len(), size);
    }
    sim.run_for(Duration::from_secs(1)).unwrap();
}

/// Bytes that each of 200 connections keeps after a message of `size` bytes. The made-up network
/// keeps some as well, so that only the difference of two kinds means something.
fn kept_after(size: usize, echo: Echo) -> usize {
    const CLIENTS: usize = 200;
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, Limits::default(), Echo { size, ..echo });
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| sim.dial(addr)).collect();
    sim.run_for(Duration::from_secs(1)).unwrap();
    // The first ones fill the pools, and what the made-up sockets keep.
    exchange(&mut sim, &clients[..1], size);
    let region = Region::new(GLOBAL);
    exchange(&mut sim, &clients[1..], size);
    grown(&region) / CLIENTS
}

/// How much more connections of the one kind keep than those without anything.
#[track_caller]
fn assert_keeps_nothing(size: usize, echo: Echo) {
    let _alone = alone();
    let plain = kept_after(size, Echo::default());
    let kept = kept_after(size, echo);
    // The pools may have grown by 2 MiB, which is 10 KiB for each.
    assert!(kept <= plain + 12_000, "{kept} bytes are kept, and {plain} without");
}

#[test]
fn a_connection_with_a_timer_keeps_no_buffer_of_its_last_message() {
    assert_keeps_nothing(60_000, Echo { timer: true, ..Echo::default() });
}

#[test]
fn a_connection_with_a_filter_keeps_no_buffer_of_its_last_message() {
    assert_keeps_nothing(64 * 1024, Echo { filter: Some(Plain::default()), ..Echo::default() });
}

#[test]
fn a_filter_whose_every_send_is_partial_keeps_what_is_unsent_and_no_more() {
    const WHOLE: usize = 4_000_000;
    let _alone = alone();
    let mut sim = Sim::new(1);
    let mut link = Link::default();
    link.window = 5_000;
    sim.set_link(link);
    let filter = Some(Plain::default());
    let addr = serve(&mut sim, Limits::default(), Echo { filter, ..Echo::default() });
    let client = sim.dial(addr);
    sim.run_for(Duration::from_secs(1)).unwrap();
    let region = Region::new(GLOBAL);
    let (mut sent, mut heard, mut most) = (0, 0, 0);
    while heard < WHOLE {
        // One message is always under way, so that the queue is never empty.
        while sent < WHOLE && sent < heard + 20_000 {
            client.send(&[7; 1_000]);
            sent += 1_000;
        }
        sim.turn(Some(Duration::from_millis(5))).unwrap();
        heard += client.take_received().len();
        most = most.max(grown(&region));
    }
    assert!(most <= 100_000, "{most} bytes live at one time");
}

#[test]
fn what_a_filter_answers_by_itself_is_held_above_the_high_mark() {
    let _alone = alone();
    let mut sim = Sim::new(1);
    let mut limits = Limits::default();
    limits.read_budget = 64 * 1024;
    let filter = Some(Plain { answers: 10 });
    let echo = Echo { filter, size: usize::MAX / 2, ..Echo::default() };
    let reasons = Rc::clone(&echo.reasons);
    let addr = serve(&mut sim, limits, echo);
    let client = sim.dial(addr);
    client.stop_reading();
    client.send(&vec![7; 20_000_000]);
    let mut most = 0;
    for _ in 0..2_000 {
        sim.turn(Some(Duration::from_millis(1))).unwrap();
        most = most.max(sim.metrics().buffered);
    }
    // The mark, and what one read makes.
    assert!(most <= 64 * 1024 + 10 * 64 * 1024, "{most} bytes were buffered");
    assert_eq!(sim.metrics().held, 1);
    assert_eq!(reasons.get(), None);
}

#[test]
fn what_a_filter_answers_by_itself_counts_towards_output_max() {
    let _alone = alone();
    for (answers, full) in [(9, false), (11, true)] {
        let mut sim = Sim::new(1);
        let mut link = Link::default();
        link.window = 1_000_000;
        sim.set_link(link);
        let mut limits = Limits::default();
        // One read makes the answers of 40,000 bytes.
        limits.output_max = 400_000;
        let echo = Echo { filter: Some(Plain { answers }), ..Echo::default() };
        let reasons = Rc::clone(&echo.reasons);
        let addr = serve(&mut sim, limits, Echo { size: usize::MAX / 2, ..echo });
        let client = sim.dial(addr);
        client.stop_reading();
        client.send(&vec![7; 40_000]);
        sim.run_for(Duration::from_secs(1)).unwrap();
        let ended = reasons.get() == Some(CloseKind::OutputFull);
        assert_eq!(ended, full, "{answers} for each byte: {:?}", reasons.get());
    }
}

/// Answers each byte with 250,000.
#[derive(Clone, Copy)]
struct Lavish(Option<Plain>);

impl Protocol for Lavish {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(&[7; 250_000][..]);
        input.consume_all();
        Ok(())
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(Box::new(self.0?))
    }
}

#[test]
fn a_large_answer_passes_a_filter_without_a_copy_in_the_queue() {
    let _alone = alone();
    let allocated = |filter| {
        let mut sim = Sim::new(1);
        let mut link = Link::default();
        link.window = 1_000_000;
        sim.set_link(link);
        let listener = sim.listen("127.0.0.1:0", move |_| Some(Lavish(filter))).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        sim.run_for(Duration::from_secs(1)).unwrap();
        let region = Region::new(GLOBAL);
        client.send(b"?");
        sim.run_for(Duration::from_secs(1)).unwrap();
        assert_eq!(client.take_received().len(), 250_000);
        region.change().bytes_allocated
    };
    let (plain, filtered) = (allocated(None), allocated(Some(Plain::default())));
    // What the wire holds at a time, as it grows. The queue would hold 186,000 bytes more.
    assert!(filtered <= plain + 50_000, "{filtered} bytes allocated, and {plain} without");
}

// ---- writers to others --------------------------------------------------------------------------

/// Writes what it reads to another connection.
struct Relay(Rc<Cell<Option<ConnId>>>);

impl Protocol for Relay {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if let Some(to) = self.0.get() {
            cx.peer(to).write(input);
        }
        input.consume_all();
        Ok(())
    }
}

/// Remembers itself as the receiver.
struct Receiver(Rc<Cell<Option<ConnId>>>, Rc<Cell<Option<CloseKind>>>);

impl Protocol for Receiver {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.set(Some(cx.id()));
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.1.set(Some(reason.kind()));
    }
}

/// What a protocol tells the test.
type Told<T> = Rc<Cell<Option<T>>>;

/// A simulator with a receiver whose peer does not read.
fn stuck_receiver() -> (Sim, Socket, Told<ConnId>, Told<CloseKind>) {
    let mut sim = Sim::new(1);
    let (receiver, reason) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
    let (id, end) = (Rc::clone(&receiver), Rc::clone(&reason));
    let mut options = ListenOptions::default();
    options.limits.write_stall = Duration::from_secs(1_000_000);
    let listener = sim
        .listen_with("127.0.0.1:0", options, move |_| {
            Some(Receiver(Rc::clone(&id), Rc::clone(&end)))
        })
        .unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    client.stop_reading();
    sim.run_for(Duration::from_secs(1)).unwrap();
    (sim, client, receiver, reason)
}

/// Bytes that are kept of writers that were held by one queue, and have gone.
fn kept_of_writers(writers: usize, write: bool) -> usize {
    let (mut sim, _client, receiver, _) = stuck_receiver();
    let to = Rc::new(Cell::new(receiver.get()));
    let relayed = Rc::clone(&to);
    let listener = sim.listen("127.0.0.1:0", move |_| Some(Relay(Rc::clone(&relayed)))).unwrap();
    let addr = sim.addresses(listener)[0];
    let one = |sim: &mut Sim, bytes: usize| {
        let writer = sim.dial(addr);
        writer.send(&vec![7; bytes]);
        sim.run_for(Duration::from_millis(50)).unwrap();
        let held = sim.metrics().held;
        writer.reset();
        sim.run_for(Duration::from_millis(50)).unwrap();
        held
    };
    // Whatever the made-up link holds, and more than the high mark.
    while one(&mut sim, 300_000) == 0 {}
    to.set(receiver.get().filter(|_| write));
    let region = Region::new(GLOBAL);
    for _ in 0..writers {
        assert_eq!(one(&mut sim, 1), u64::from(write));
    }
    assert_eq!(sim.metrics().held, 0);
    grown(&region)
}

#[test]
fn a_congested_queue_forgets_the_writers_that_have_gone() {
    const WRITERS: usize = 4_000;
    let _alone = alone();
    let without = kept_of_writers(WRITERS, false);
    let with = kept_of_writers(WRITERS, true);
    // Each writer's byte is queued, in buffers that double; its id would be eight more bytes, in a
    // vector that doubles.
    let more = with.saturating_sub(without + WRITERS);
    assert!(more < 11 * WRITERS, "{more} bytes for {WRITERS} writers that have gone");
}

/// Writes 300 MiB to another connection in one callback.
struct Flood {
    to: Rc<Cell<Option<ConnId>>>,
    shared: bool,
    grown: Rc<Cell<usize>>,
}

impl Protocol for Flood {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        let Some(to) = self.to.get() else { return Ok(()) };
        let region = Region::new(GLOBAL);
        for _ in 0..300 {
            let bytes = vec![7; 1024 * 1024];
            match self.shared {
                true => cx.peer(to).write_bytes(bytes),
                false => cx.peer(to).write(&bytes),
            }
        }
        self.grown.set(grown(&region));
        Ok(())
    }
}

#[test]
fn writes_to_another_connection_are_bounded_within_one_callback() {
    let _alone = alone();
    for shared in [false, true] {
        let (mut sim, _client, receiver, reason) = stuck_receiver();
        let memory = Rc::new(Cell::new(0));
        let (to, kept) = (Rc::clone(&receiver), Rc::clone(&memory));
        let make = move |_: &_| Some(Flood { to: Rc::clone(&to), shared, grown: Rc::clone(&kept) });
        let listener = sim.listen("127.0.0.1:0", make).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        client.send(b"x");
        sim.run_for(Duration::from_secs(1)).unwrap();
        assert_eq!(reason.get(), Some(CloseKind::OutputFull));
        // `output_max` is 8 MiB.
        assert!(memory.get() > 4_000_000, "{} bytes: it did write", memory.get());
        assert!(memory.get() < 9_000_000, "{} bytes, shared {shared}", memory.get());
    }
}
