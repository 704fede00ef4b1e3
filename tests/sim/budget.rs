//! What moves between two polls: at most 2 MiB for connections that move much at a time, and the
//! interactive ones come first.

use std::cell::Cell;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lariat::sim::{Link, Sim, Socket};
use lariat::{
    CloseReason, ConnId, Context, Filter, FilterResult, Incoming, Input, Limits, ListenOptions,
    Outcome, Progress, Protocol,
};

use crate::kit::{Echo, ms, serve, serve_with};

const TURN_BYTES: u64 = 2 * 1024 * 1024;
/// One connection's read and write beyond the budget.
const ONE: u64 = 2 * 256 * 1024;
/// What a connection may still move when the budget is spent.
const LITTLE: u64 = 16 * 1024;
const FLOODERS: usize = 60;
/// What each of them sends: together many turns of it.
const FLOOD: usize = 600_000;

fn sim() -> Sim {
    let mut sim = Sim::new(7);
    let mut link = Link::default();
    link.latency = ms(0);
    link.window = 4_000_000;
    sim.set_link(link);
    sim
}

/// Bytes that the loop has read and written.
fn moved(sim: &Sim) -> u64 {
    let metrics = sim.metrics();
    metrics.bytes_in + metrics.bytes_out
}

/// The most bytes that one of the next turns moves.
fn most_in_a_turn(sim: &mut Sim, turns: usize, mut between: impl FnMut(&mut Sim)) -> u64 {
    let mut most = 0;
    for _ in 0..turns {
        let before = moved(sim);
        sim.turn(Some(ms(1))).unwrap();
        most = most.max(moved(sim) - before);
        between(sim);
    }
    most
}

fn flood(clients: &[Socket], reads: bool) {
    for client in clients {
        if !reads {
            client.stop_reading();
        }
        client.send(&vec![7; FLOOD]);
    }
}

#[test]
fn c22_a_turn_moves_2_mib_for_those_that_flood() {
    for reads in [true, false] {
        let mut sim = sim();
        let addr = serve(&mut sim, || Echo);
        let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(addr)).collect();
        sim.run_for(ms(1)).unwrap();
        flood(&clients, reads);
        // The first turns find out who floods: each of those moves little once the rest is spent.
        let first = most_in_a_turn(&mut sim, 3, |_| {});
        let little = FLOODERS as u64 * 2 * LITTLE;
        assert!(first <= TURN_BYTES + ONE + little, "{first} bytes, reads {reads}");
        let later = most_in_a_turn(&mut sim, 60, |_| {
            for client in clients.iter().filter(|_| reads) {
                client.take_received();
            }
        });
        assert!(later <= TURN_BYTES + ONE, "{later} bytes in one turn, reads {reads}");
        assert!(later >= TURN_BYTES / 2, "{later} bytes: it does work");
    }
}

#[test]
fn a_lone_connection_moves_no_more_than_a_turn_may() {
    let mut sim = sim();
    let addr = serve(&mut sim, || Echo);
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(&vec![7; 4_000_000]);
    let most = most_in_a_turn(&mut sim, 50, |_| {
        client.take_received();
    });
    assert!((1024 * 1024..=TURN_BYTES + ONE).contains(&most), "{most} bytes");
}

/// Reads, and says nothing.
struct Quiet;

impl Protocol for Quiet {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn a_connection_that_is_alone_reads_four_budgets_in_a_turn() {
    let mut sim = sim();
    let budget = 20_000;
    let addr = serve_with(&mut sim, |limits| limits.read_budget = budget, || Quiet);
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(&vec![7; 1_000_000]);
    assert_eq!(most_in_a_turn(&mut sim, 20, |_| {}), 4 * budget as u64);
}

#[test]
fn c22_an_interactive_client_is_served_in_the_turn_that_hears_of_it() {
    let mut sim = sim();
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(addr)).collect();
    let pinger = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    flood(&clients, true);
    most_in_a_turn(&mut sim, 5, |_| {});
    for round in 0..20 {
        pinger.send(b"ping");
        sim.turn(Some(ms(1))).unwrap();
        sim.turn(Some(ms(1))).unwrap();
        assert_eq!(pinger.take_received(), b"ping", "round {round}");
        for client in &clients {
            client.take_received();
        }
    }
}

#[test]
fn those_that_flood_all_have_their_turn() {
    let mut sim = sim();
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(1)).unwrap();
    flood(&clients, true);
    let mut heard = vec![0; FLOODERS];
    most_in_a_turn(&mut sim, 120, |_| {
        for (client, heard) in clients.iter().zip(&mut heard) {
            *heard += client.take_received().len();
        }
    });
    assert!(heard.iter().all(|heard| *heard == FLOOD), "{heard:?}");
}

/// Writes `bytes` when it opens, and more each time that has drained.
struct Source {
    bytes: usize,
    left: usize,
}

impl Protocol for Source {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.drained(cx)
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.left > 0 {
            self.left -= 1;
            cx.write(&vec![7; self.bytes]);
        }
        Ok(())
    }
}

#[test]
fn output_that_nobody_asked_for_is_within_the_turns_bytes() {
    let mut sim = sim();
    let addr = serve(&mut sim, || Source { bytes: FLOOD, left: 2 });
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(addr)).collect();
    let mut heard = 0;
    let most = most_in_a_turn(&mut sim, 200, |_| {
        heard += clients.iter().map(|client| client.take_received().len()).sum::<usize>();
    });
    // Those that were accepted in one turn may each move little.
    assert!(most <= TURN_BYTES + ONE + 64 * LITTLE, "{most} bytes in one turn");
    assert_eq!(heard, FLOODERS * 2 * FLOOD, "all of it arrives");
}

/// Sends what it hears to everybody.
struct Broadcast(Rc<Cell<Vec<ConnId>>>);

impl Protocol for Broadcast {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let mut everybody = self.0.take();
        everybody.push(cx.id());
        self.0.set(everybody);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let everybody = self.0.take();
        let own = cx.id();
        for id in everybody.iter().filter(|id| **id != own) {
            cx.peer(*id).write(input);
        }
        self.0.set(everybody);
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {}
}

#[test]
fn output_for_others_is_within_the_turns_bytes_and_small_output_leaves_at_once() {
    let mut sim = sim();
    let everybody: Rc<Cell<Vec<ConnId>>> = Rc::default();
    let addr = serve(&mut sim, move || Broadcast(Rc::clone(&everybody)));
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(addr)).collect();
    sim.run_for(ms(5)).unwrap();
    clients[0].send(&vec![7; 100_000]);
    let mut heard = 0;
    let most = most_in_a_turn(&mut sim, 100, |_| {
        heard += clients.iter().map(|client| client.take_received().len()).sum::<usize>();
    });
    assert!(most <= TURN_BYTES + ONE, "{most} bytes in one turn");
    assert_eq!(heard, (FLOODERS - 1) * 100_000);
    clients[1].send(b"small");
    sim.turn(Some(ms(1))).unwrap();
    sim.turn(Some(ms(1))).unwrap();
    let heard = clients.iter().filter(|client| client.take_received() == b"small").count();
    assert_eq!(heard, FLOODERS - 1, "each in the turn that it was written in");
}

/// Writes `.0` bytes when it opens, and closes.
struct Download(usize);

impl Protocol for Download {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(&vec![7; self.0]);
        cx.close();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn those_that_flood_move_on_in_each_turn_even_if_new_connections_spend_it() {
    let mut sim = sim();
    let flooded = serve(&mut sim, || Echo);
    let downloads = serve(&mut sim, || Download(200_000));
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(flooded)).collect();
    sim.run_for(ms(1)).unwrap();
    flood(&clients, true);
    most_in_a_turn(&mut sim, 10, |_| {});
    for turn in 0..16 {
        // Together more than a turn may move, and each of them is new.
        let new: Vec<Socket> = (0..16).map(|_| sim.dial(downloads)).collect();
        let before = sim.metrics();
        sim.turn(Some(ms(1))).unwrap();
        drop(new);
        let after = sim.metrics();
        let (read, sent) = (after.bytes_in - before.bytes_in, after.bytes_out - before.bytes_out);
        // Only those that flood send anything.
        assert!(read >= 8 * LITTLE, "turn {turn}: {read} bytes read");
        if after.accepted > before.accepted {
            // The downloads are given a turn's bytes, and the last of them little beyond it.
            assert!(sent > TURN_BYTES + 6 * LITTLE, "turn {turn}: {sent} bytes sent");
        }
        for client in &clients {
            client.take_received();
        }
    }
}

#[test]
fn who_has_flooded_is_interactive_again_once_it_moves_little() {
    let mut sim = sim();
    let addr = serve(&mut sim, || Echo);
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(addr)).collect();
    let former = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    former.send(&vec![7; 100_000]);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(former.take_received().len(), 100_000);
    former.send(b"little");
    sim.run_for(ms(10)).unwrap();
    assert_eq!(former.take_received(), b"little");
    flood(&clients, true);
    most_in_a_turn(&mut sim, 5, |_| {});
    for round in 0..20 {
        former.send(b"ping");
        sim.turn(Some(ms(1))).unwrap();
        sim.turn(Some(ms(1))).unwrap();
        assert_eq!(former.take_received(), b"ping", "round {round}");
        for client in &clients {
            client.take_received();
        }
    }
}

/// Counts its notes, and does nothing else.
struct Noted(Arc<AtomicUsize>);

impl Protocol for Noted {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, _: &mut Context<'_>, _: lariat::Note) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The most bytes that flooders move in a turn in which 40 connections get `notes` notes each.
fn moved_beside_notes(notes: usize) -> u64 {
    let mut sim = sim();
    let flooded = serve(&mut sim, || Echo);
    let count = Arc::new(AtomicUsize::new(0));
    let quiet = sim.acceptor("10.0.0.1:80").unwrap();
    let noted: Vec<ConnId> =
        (0..40).map(|_| sim.connect("10.0.0.1:80", Noted(Arc::clone(&count)))).collect();
    let clients: Vec<Socket> = (0..FLOODERS).map(|_| sim.dial(flooded)).collect();
    sim.run_for(ms(1)).unwrap();
    let _held: Vec<Socket> = std::iter::from_fn(|| quiet.accept()).collect();
    flood(&clients, false);
    most_in_a_turn(&mut sim, 10, |_| {});
    let mut most = 0;
    for _ in 0..20 {
        for id in &noted {
            for _ in 0..notes {
                sim.control().peer(*id).notify(lariat::Note::new(()));
            }
        }
        for client in &clients {
            client.take_received();
        }
        let (before, told) = (moved(&sim), count.load(Ordering::Relaxed));
        sim.turn(Some(ms(1))).unwrap();
        if count.load(Ordering::Relaxed) == told + 40 * notes {
            most = most.max(moved(&sim) - before);
        }
    }
    assert_eq!(count.load(Ordering::Relaxed) > 0, notes > 0);
    most
}

#[test]
fn callbacks_count_towards_the_turns_budget() {
    let (beside_none, beside_many) = (moved_beside_notes(0), moved_beside_notes(60));
    assert!(beside_none > TURN_BYTES / 2, "{beside_none} bytes");
    // 2,400 callbacks are a turn: what is left is the few that are served in any case.
    assert!(0 < beside_many && beside_many <= 8 * 2 * LITTLE, "{beside_many} bytes");
}

/// Notes how many bytes of the wire it is given at a time.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<usize>>>);

impl Filter for Ledger {
    fn receive(&mut self, bytes: &mut [u8], clear: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        self.0.lock().unwrap().push(bytes.len());
        clear.extend_from_slice(bytes);
        Ok(Progress::Open)
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend_from_slice(clear);
        Ok(Progress::Open)
    }
}

struct Filtered(Ledger);

impl Protocol for Filtered {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(Box::new(self.0.clone()))
    }
}

#[test]
fn a_filter_is_given_at_most_48_kib_of_the_wire_at_a_time() {
    const MOST: usize = 48 * 1024;
    for (read_budget, sent, given) in [
        (1 << 20, MOST - 1, &[MOST - 1][..]),
        (1 << 20, MOST, &[MOST]),
        (1 << 20, MOST + 1, &[MOST, 1]),
        (1 << 20, 3 * MOST, &[MOST, MOST, MOST]),
        // The connection's own budget counts as well.
        (MOST - 1, MOST, &[MOST - 1, 1]),
    ] {
        let mut sim = sim();
        let ledger = Ledger::default();
        let mut options = ListenOptions::default();
        options.limits.read_budget = read_budget;
        let filter = ledger.clone();
        let listener = sim
            .listen_with("127.0.0.1:0", options, move |_| Some(Filtered(filter.clone())))
            .unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        sim.run_for(ms(10)).unwrap();
        client.send(&vec![7; sent]);
        sim.run_for(ms(10)).unwrap();
        assert_eq!(mem::take(&mut *ledger.0.lock().unwrap()), given, "of {sent}, {read_budget}");
    }
}

/// Answers each byte with `bytes`, through a filter or not, and a note as well.
struct Lavish {
    bytes: usize,
    filter: Option<Ledger>,
    id: Rc<Cell<Option<ConnId>>>,
}

impl Protocol for Lavish {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.id.set(Some(cx.id()));
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        for _ in 0..input.len() {
            cx.write(&vec![7; self.bytes]);
        }
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: lariat::Note) -> Outcome {
        cx.write(&vec![7; self.bytes]);
        Ok(())
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(Box::new(self.filter.take()?))
    }
}

/// What one connection of `Lavish` may send in a turn, in these tests.
const WRITE_BUDGET: usize = 100_000;

/// A connection that answers with `bytes` each time, its id, and its peer.
fn lavish(sim: &mut Sim, bytes: usize, filtered: bool) -> (Rc<Cell<Option<ConnId>>>, Socket) {
    let mut options = ListenOptions::default();
    options.limits.write_budget = WRITE_BUDGET;
    let id = Rc::<Cell<Option<ConnId>>>::default();
    let opened = Rc::clone(&id);
    let make = move |_: &Incoming| {
        let filter = filtered.then(Ledger::default);
        Some(Lavish { bytes, filter, id: Rc::clone(&opened) })
    };
    let listener = sim.listen_with("127.0.0.1:0", options, make).unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    sim.run_for(ms(10)).unwrap();
    if filtered {
        // The handshake is over with the first byte.
        client.send(b"");
    }
    (id, client)
}

/// How many bytes the next turn sends.
fn sent_in_a_turn(sim: &mut Sim) -> u64 {
    let before = sim.metrics().bytes_out;
    sim.turn(Some(ms(1))).unwrap();
    sim.metrics().bytes_out - before
}

/// The most bytes that one of the next turns sends, and what all of them do.
fn sent(sim: &mut Sim) -> (usize, usize) {
    let (mut most, first) = (0, sim.metrics().bytes_out);
    for _ in 0..20 {
        most = most.max(sent_in_a_turn(sim));
    }
    (most as usize, (sim.metrics().bytes_out - first) as usize)
}

#[test]
fn a_turn_sends_no_more_than_the_write_budget_of_a_connection() {
    for filtered in [false, true] {
        for bytes in [WRITE_BUDGET - 1, WRITE_BUDGET, WRITE_BUDGET + 1, 3 * WRITE_BUDGET] {
            let mut sim = sim();
            let (_, client) = lavish(&mut sim, bytes, filtered);
            client.send(b"?");
            assert_eq!(sent(&mut sim), (bytes.min(WRITE_BUDGET), bytes), "filtered {filtered}");
            assert_eq!(client.take_received().len(), bytes);
        }
    }
}

#[test]
fn callbacks_of_one_turn_share_the_write_budget() {
    for filtered in [false, true] {
        let mut sim = sim();
        let bytes = 60_000;
        let (id, client) = lavish(&mut sim, bytes, filtered);
        for _ in 0..3 {
            sim.control().peer(id.get().unwrap()).notify(lariat::Note::new(()));
        }
        client.send(b"?");
        assert_eq!(sent(&mut sim), (WRITE_BUDGET, 4 * bytes), "filtered {filtered}");
    }
}

#[test]
fn the_reads_of_a_connection_that_is_alone_share_the_write_budget() {
    let mut sim = sim();
    let change = |limits: &mut Limits| {
        limits.read_budget = 20_000;
        limits.high_mark = 40_000;
        limits.write_budget = WRITE_BUDGET - 30_000;
    };
    let addr = serve_with(&mut sim, change, || Echo);
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(&vec![7; 200_000]);
    // A third read might be answered with as much as the high mark.
    assert_eq!(sent(&mut sim), (40_000, 200_000));
}

/// Writes 100,000 bytes for what it reads, and as many for each of the first `.0` times that this
/// has drained.
struct Refilling(usize);

impl Protocol for Refilling {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        cx.write(&[7; 100_000]);
        Ok(())
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.0 > 0 {
            self.0 -= 1;
            cx.write(&[7; 100_000]);
        }
        Ok(())
    }
}

#[test]
fn drained_runs_once_in_the_turn_that_congested_the_connection() {
    let mut sim = sim();
    let addr = serve(&mut sim, || Refilling(3));
    let client = sim.dial(addr);
    sim.run_for(ms(1)).unwrap();
    client.send(b"?");
    // The answer and what the first `drained` writes, then that of the others.
    let turns: Vec<u64> =
        (0..5).map(|_| sent_in_a_turn(&mut sim)).filter(|sent| *sent > 0).collect();
    assert_eq!(turns, [200_000, 100_000, 100_000]);
}
