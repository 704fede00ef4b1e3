//! What it costs to bring something to a protocol, in a turn over 256 connections, without the
//! kernel: the turns are those of the reactor, run by the simulator.
//!
//! - `notified`: a note for each connection. Recording the request, the ready list, the callback
//!   and its consequences; no byte moves.
//! - `data, unread`: each connection has input left and is shown it once more, consuming 64 bytes.
//!   The ready list, the callback, what follows, and keeping the rest.
//!
//! How to read it: the time is of one turn; elements per second are callbacks. A turn with nothing
//! to do is `empty turn`: take it off first. `cargo bench --bench dispatch`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use lariat::sim::{Sim, Socket};
use lariat::{ConnId, Context, Input, ListenOptions, Note, Outcome, Protocol};

const CONNECTIONS: usize = 256;
const MESSAGE: usize = 64;
/// Turns until the input of `data, unread` is used up.
const TURNS: usize = 200;

/// Consumes one message, leaves the rest, and tells its id.
struct OneByOne(Rc<RefCell<Vec<ConnId>>>);

impl Protocol for OneByOne {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.borrow_mut().push(cx.id());
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume(MESSAGE.min(input.len()));
        Ok(())
    }
}

/// A simulator with connections of the protocol that `make` makes.
fn connected<P: Protocol + 'static>(
    options: ListenOptions,
    mut make: impl FnMut() -> P + 'static,
) -> (Sim, Vec<Socket>) {
    let mut sim = Sim::new(1);
    let listener = sim.listen_with("127.0.0.1:7000", options, move |_| Some(make())).unwrap();
    let addr = sim.addresses(listener)[0];
    let clients = (0..CONNECTIONS).map(|_| sim.dial(addr)).collect();
    sim.run_for(Duration::from_millis(10)).unwrap();
    assert_eq!(sim.metrics().accepted, CONNECTIONS as u64);
    (sim, clients)
}

fn turn(sim: &mut Sim) {
    sim.turn(Some(Duration::ZERO)).unwrap();
}

fn notified(criterion: &mut Criterion) {
    let ids = Rc::new(RefCell::new(Vec::new()));
    let shared = Rc::clone(&ids);
    let options = ListenOptions::default();
    let (mut sim, _clients) = connected(options, move || OneByOne(Rc::clone(&shared)));
    let ids = ids.borrow().clone();
    let mut group = criterion.benchmark_group("dispatch");
    group.bench_function("empty turn", |bencher| bencher.iter(|| turn(&mut sim)));
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("notified", |bencher| {
        bencher.iter(|| {
            for id in &ids {
                sim.control().peer(*id).notify(Note::new(()));
            }
            turn(&mut sim);
        });
    });
    group.finish();
}

fn data_unread(criterion: &mut Criterion) {
    let mut options = ListenOptions::default();
    // A protocol that leaves this much and consumes some is shown the rest in the next turn.
    options.limits.input_max = 1;
    let (mut sim, clients) = connected(options, || OneByOne(Rc::default()));
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("data, unread", |bencher| {
        bencher.iter_custom(|turns| {
            let mut took = Duration::ZERO;
            let mut left = turns;
            while left > 0 {
                for client in &clients {
                    client.send(&vec![7; (TURNS + 8) * MESSAGE]);
                }
                // The time of the link, in which the first turns pass.
                let before = sim.metrics().callbacks;
                while sim.metrics().callbacks < before + 2 * CONNECTIONS as u64 {
                    sim.turn(Some(Duration::from_millis(1))).unwrap();
                }
                let turns = left.min(TURNS as u64);
                let before = sim.metrics().callbacks;
                let begun = Instant::now();
                for _ in 0..turns {
                    turn(&mut sim);
                }
                took += begun.elapsed();
                let calls = sim.metrics().callbacks - before;
                assert_eq!(calls, turns * CONNECTIONS as u64, "a callback each, in each turn");
                left -= turns;
                sim.run_for(Duration::from_millis(1)).unwrap();
            }
            took
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    notified(&mut criterion);
    data_unread(&mut criterion);
    criterion.final_summary();
}
