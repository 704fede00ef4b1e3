//! What has once gone wrong, kept from coming back: what users' values do when they are dropped,
//! how far time moves, what a replacement gets, and whose turn it is to be accepted.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use lariat::sim::{Sim, Socket};
use lariat::{
    CloseKind, CloseReason, Context, Endpoint, ErrorKind, Filter, FilterResult, Handle, Input,
    Note, Outcome, Progress, Protocol, Timer,
};

use crate::kit::{Count, Echo, Reasons, Sink, add, ms, serve, sim_with};
use crate::quiet_planned_panics;

// ---- drops --------------------------------------------------------------------------------------

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("planned");
        }
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for Bomb {}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &[7; 10_000]
    }
}

impl Filter for Bomb {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }
    fn receive(&mut self, wire: &mut [u8], clear: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        clear.extend_from_slice(wire);
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

/// An echo beside the one that panics: it is served before and after.
struct Witness(Socket);

impl Witness {
    fn new(sim: &mut Sim) -> Witness {
        quiet_planned_panics();
        let addr = serve(sim, || Echo);
        let witness = Witness(sim.dial(addr));
        witness.check(sim);
        witness
    }

    #[track_caller]
    fn check(&self, sim: &mut Sim) {
        self.0.send(b"alive");
        sim.run_for(ms(200)).unwrap();
        assert_eq!(self.0.take_received(), b"alive");
        assert!(!self.0.is_reset() && !self.0.is_finished());
        assert_eq!(sim.metrics().open, 1, "only the witness is left");
    }
}

#[test]
fn a_note_that_panics_when_nobody_takes_it_ends_nobody_else() {
    let mut sim = Sim::new(1);
    let witness = Witness::new(&mut sim);
    let acceptor = sim.acceptor("127.0.0.1:99").unwrap();
    let id = sim.control().connect_local("127.0.0.1:99", Sink);
    sim.control().peer(id).notify(Note::new(Bomb));
    sim.control().peer(id).abort();
    // Nobody listens there: this one ends while the note waits for it to open.
    let id = sim.control().connect_local("127.0.0.1:98", Sink);
    sim.control().peer(id).notify(Note::new(Bomb));
    witness.check(&mut sim);
    assert_eq!(sim.metrics().closes.total(), 2);
    drop(acceptor);
}

struct Filtered;

impl Protocol for Filtered {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(Box::new(Bomb))
    }
}

#[test]
fn a_filter_that_panics_when_it_is_dropped_ends_nobody_else() {
    let mut sim = Sim::new(1);
    let witness = Witness::new(&mut sim);
    let addr = serve(&mut sim, || Filtered);
    let client = sim.dial(addr);
    sim.run_for(ms(5)).unwrap();
    client.finish();
    witness.check(&mut sim);
    assert_eq!(sim.metrics().closes.total(), 1);
}

struct Failing;

impl Protocol for Failing {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Err(Box::new(Bomb))
    }
}

#[test]
fn an_error_that_panics_when_it_is_dropped_ends_nobody_else() {
    let mut sim = Sim::new(1);
    let witness = Witness::new(&mut sim);
    let addr = serve(&mut sim, || Failing);
    let client = sim.dial(addr);
    client.send(b"x");
    client.finish();
    witness.check(&mut sim);
    assert_eq!(sim.metrics().closes.protocol, 1);
}

struct Lender;

impl Protocol for Lender {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write_bytes(Bytes::from_owner(Bomb));
        cx.close();
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn an_owner_of_shared_bytes_that_panics_when_they_are_sent_ends_nobody_else() {
    let mut sim = Sim::new(1);
    let witness = Witness::new(&mut sim);
    let addr = serve(&mut sim, || Lender);
    let client = sim.dial(addr);
    sim.run_for(ms(5)).unwrap();
    client.close();
    witness.check(&mut sim);
    assert_eq!(sim.metrics().closes.total(), 1);
}

// ---- time --------------------------------------------------------------------------------------

#[test]
fn running_for_a_tenth_of_a_millisecond_moves_time_by_exactly_as_much() {
    let mut sim = Sim::new(1);
    sim.keep_running(true);
    for turn in 1..=3 {
        sim.run_for(Duration::from_micros(100)).unwrap();
        assert_eq!(sim.now(), Duration::from_micros(100 * turn));
    }
}

// ---- replacing ----------------------------------------------------------------------------------

type Log = Rc<RefCell<Vec<String>>>;

fn log(log: &Log, line: impl Into<String>) {
    log.borrow_mut().push(line.into());
}

/// Is replaced by a `Second` at its first note or byte, when a shutdown may begin.
struct First(Log, Option<Handle>);

impl First {
    fn replace(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.replace_local(Second(Rc::clone(&self.0)));
        self.1.iter().for_each(Handle::shutdown);
        Ok(())
    }
}

impl Protocol for First {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        self.replace(cx)
    }
    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        log(&self.0, format!("first {}", note.downcast::<u32>().unwrap()));
        self.replace(cx)
    }
}

struct Second(Log);

impl Protocol for Second {
    fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
        log(&self.0, "opened");
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn notified(&mut self, _: &mut Context<'_>, note: Note) -> Outcome {
        log(&self.0, format!("second {}", note.downcast::<u32>().unwrap()));
        Ok(())
    }
    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        log(&self.0, "stopping");
        cx.write(b"bye");
        cx.close();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {
        log(&self.0, "closed");
    }
}

#[test]
fn notes_that_wait_behind_a_replacement_reach_the_successor() {
    let told = Log::default();
    let mut sim = Sim::new(1);
    let acceptor = sim.acceptor("127.0.0.1:99").unwrap();
    let id = sim.control().connect_local("127.0.0.1:99", First(Rc::clone(&told), None));
    sim.run_for(ms(5)).unwrap();
    for note in 1..=3_u32 {
        sim.control().peer(id).notify(Note::new(note));
    }
    sim.run_for(ms(5)).unwrap();
    assert_eq!(*told.borrow(), ["first 1", "opened", "second 2", "second 3"]);
    drop(acceptor);
}

#[test]
fn a_connection_that_is_being_replaced_when_shutdown_begins_is_told_of_both() {
    let told = Log::default();
    let mut sim = Sim::new(1);
    let (shared, handle) = (Rc::clone(&told), sim.handle());
    let addr = serve(&mut sim, move || First(Rc::clone(&shared), Some(handle.clone())));
    let client = sim.dial(addr);
    client.send(b"x");
    sim.run_for(ms(20)).unwrap();
    assert_eq!(client.take_received(), b"bye");
    client.close();
    sim.run().unwrap();
    assert_eq!(*told.borrow(), ["opened", "stopping", "closed"]);
}

// ---- accepting ----------------------------------------------------------------------------------

/// Lives for a millisecond.
struct Mayfly;

impl Protocol for Mayfly {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(0), ms(1));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.abort();
        Ok(())
    }
}

fn addrs() -> [SocketAddr; 2] {
    [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
}

/// One comes to the second address, and then a hundred to the first.
fn crowd(sim: &Sim) -> (Endpoint, Vec<Socket>) {
    let one = sim.dial(addrs()[1]);
    let addr = one.local_addr();
    let others = (0..100).map(|_| sim.dial(addrs()[0]));
    (addr, std::iter::once(one).chain(others).collect())
}

#[test]
fn two_listeners_take_turns_when_there_is_one_place() {
    let mut sim = sim_with(1, |limits| limits.connections_max = 1);
    let order: Rc<RefCell<Vec<Endpoint>>> = Rc::default();
    for addr in addrs() {
        let order = Rc::clone(&order);
        sim.listen(addr, move |incoming| {
            order.borrow_mut().push(incoming.peer());
            Some(Mayfly)
        })
        .unwrap();
    }
    let (one, _sockets) = crowd(&sim);
    sim.run_for(ms(1000)).unwrap();
    let place = order.borrow().iter().position(|peer| *peer == one).unwrap();
    assert_eq!(order.borrow().len(), 101);
    assert!(place < 20, "{place} were accepted before the only one of the second listener");
}

#[test]
fn two_addresses_of_one_listener_take_turns_within_the_budget() {
    let mut sim = sim_with(1, |limits| limits.accepts_max = 2);
    let order: Rc<RefCell<Vec<Endpoint>>> = Rc::default();
    let shared = Rc::clone(&order);
    sim.listen(&addrs()[..], move |incoming| {
        shared.borrow_mut().push(incoming.peer());
        Some(Sink)
    })
    .unwrap();
    let (one, _sockets) = crowd(&sim);
    sim.run_for(ms(20)).unwrap();
    let place = order.borrow().iter().position(|peer| *peer == one).unwrap();
    assert_eq!(order.borrow().len(), 101);
    assert!(place < 20, "{place} were accepted before the only one of the second address");
}

/// Says goodbye to the first byte, and keeps the reason.
struct Goodbye(Reasons);

impl Protocol for Goodbye {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        cx.write(b"bye");
        cx.close();
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.keep(reason);
    }
}

#[test]
fn at_the_descriptor_limit_who_lingers_is_cut_for_a_newcomer_only() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(2);
    let reasons = Reasons::default();
    let shared = reasons.clone();
    let addr = serve(&mut sim, move || Goodbye(shared.clone()));
    let lingering = sim.dial(addr);
    lingering.send(b"q");
    sim.run_for(ms(10)).unwrap();
    assert_eq!((sim.metrics().lingering, lingering.take_received()), (1, b"bye"[..].into()));
    // The last descriptor goes to a new client; none waits behind it.
    let second = sim.dial(addr);
    sim.run_for(ms(100)).unwrap();
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.lingering), (1, 1));
    assert_eq!((metrics.refused, metrics.accept_errors), (0, 0));
    assert!(!lingering.is_reset());
    // The next one needs a descriptor.
    let third = sim.dial(addr);
    sim.run_for(ms(100)).unwrap();
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.lingering, metrics.refused), (2, 0, 0));
    assert!(!second.is_finished() && !third.is_finished() && !third.is_reset());
}

// ---- ends ---------------------------------------------------------------------------------------

/// Has last words, and then fails.
struct Complaint(Reasons);

impl Protocol for Complaint {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        cx.write(b"last words");
        Err("no".into())
    }
    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        self.0.keep(reason);
    }
}

#[test]
fn the_end_of_the_drain_neither_resets_who_lingers_nor_forgets_why_it_ended() {
    let mut sim = sim_with(1, |limits| limits.drain = ms(500));
    let reasons = Reasons::default();
    let shared = reasons.clone();
    let addr = serve(&mut sim, move || Complaint(shared.clone()));
    let client = sim.dial(addr);
    client.send(b"x");
    sim.run_for(ms(5)).unwrap();
    assert_eq!(sim.metrics().lingering, 1);
    sim.handle().shutdown();
    sim.run().unwrap();
    sim.run_for(ms(5)).unwrap();
    assert!(client.is_finished() && !client.is_reset());
    assert_eq!(client.take_received(), b"last words");
    let reasons = reasons.0.borrow();
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].kind(), CloseKind::Protocol);
    assert_eq!(reasons[0].error().unwrap().to_string(), "no");
}

/// Counts the data that came with the word that the peer has finished.
struct Ears {
    heard: Count,
    finished: Count,
}

impl Protocol for Ears {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        add(&self.heard, 1);
        add(&self.finished, u64::from(cx.peer_finished()));
        Ok(())
    }
}

#[test]
fn bytes_before_a_reset_do_not_come_from_a_peer_that_has_finished() {
    let mut sim = Sim::new(1);
    let (heard, finished): (Count, Count) = Default::default();
    let (hears, ends) = (Rc::clone(&heard), Rc::clone(&finished));
    let addr =
        serve(&mut sim, move || Ears { heard: Rc::clone(&hears), finished: Rc::clone(&ends) });
    let client = sim.dial(addr);
    sim.run_for(ms(5)).unwrap();
    client.send(b"x");
    client.reset();
    sim.run_for(ms(50)).unwrap();
    assert!(heard.get() <= 1);
    assert_eq!(finished.get(), 0);
    assert_eq!(sim.metrics().closes.reset, 1);
}

#[test]
fn a_driver_that_has_ended_in_turns_says_so_and_listens_no_more() {
    let mut sim = Sim::new(1);
    serve(&mut sim, || Sink);
    let handle = sim.handle();
    handle.shutdown();
    for _ in 0..10 {
        sim.turn(Some(ms(1))).unwrap();
    }
    assert!(sim.is_over() && handle.is_ended());
    let error = sim.listen("127.0.0.1:5", |_| Some(Sink)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
}

// ---- output -------------------------------------------------------------------------------------

/// Answers what follows the fourth byte.
struct Tail;

impl Protocol for Tail {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input.get(4..).unwrap_or_default());
        input.consume_all();
        Ok(())
    }
}

#[test]
fn an_answer_from_the_middle_of_its_input_leaves_nothing_to_a_shorter_one() {
    let mut sim = Sim::new(1);
    let addr = serve(&mut sim, || Tail);
    let client = sim.dial(addr);
    for (said, heard) in [(&b"longer"[..], &b"er"[..]), (b"abc", b""), (b"again", b"n")] {
        client.send(said);
        sim.run_for(ms(1)).unwrap();
        assert_eq!(client.take_received(), heard);
    }
}
