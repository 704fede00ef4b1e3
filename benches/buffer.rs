//! Bytes that wait: 1 MiB queued for a peer that does not read.
//!
//! The turn is one of the reactor's, run by the simulator, so that no kernel is in the times. That
//! the queue is emptied again is not: the made-up network would be most of it.
//!
//! - `64 B copied` and `16 KiB copied`: writes to another connection, copied twice: into the list
//!   of effects, then into the queue's chunks.
//! - `16 KiB shared`: the same as `Bytes`, which are not copied at all.
//!
//! How to read it: bytes per second of each row. The copied rows should differ by the cost of the
//! calls alone; the shared row should not depend on the size. `cargo bench --bench buffer`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use lariat::sim::{Link, Sim, Socket};
use lariat::{ConnId, Context, Input, ListenOptions, Outcome, Protocol};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Reads all, and answers nothing.
struct Quiet(Rc<Cell<Option<ConnId>>>);

impl Protocol for Quiet {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.set(Some(cx.id()));
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

struct Bench {
    sim: Sim,
    client: Socket,
    id: ConnId,
}

impl Bench {
    fn new() -> Bench {
        let mut sim = Sim::new(1);
        let mut link = Link::default();
        link.latency = Duration::ZERO;
        sim.set_link(link);
        let mut options = ListenOptions::default();
        options.limits.output_max = 16 * MIB;
        let id = Rc::new(Cell::new(None));
        let shared = Rc::clone(&id);
        let factory = move |_: &_| Some(Quiet(Rc::clone(&shared)));
        let listener = sim.listen_with("127.0.0.1:7000", options, factory).unwrap();
        let client = sim.dial(sim.addresses(listener)[0]);
        sim.run_for(Duration::from_millis(1)).unwrap();
        let id = id.get().expect("the connection is open");
        Bench { sim, client, id }
    }

    /// Fills the window, so that whatever comes then waits in the connection's own queue.
    fn block(&mut self) {
        self.client.stop_reading();
        self.sim.control().peer(self.id).push(vec![0; 512 * KIB]);
        self.sim.run_for(Duration::ZERO).unwrap();
        assert!(self.sim.metrics().buffered > 0, "the window is full");
    }

    fn turn(&mut self) {
        self.sim.turn(Some(Duration::ZERO)).unwrap();
    }

    fn drain(&mut self) {
        self.client.resume_reading();
        self.sim.run_until(|sim| sim.metrics().buffered == 0).unwrap();
        self.sim.run_for(Duration::ZERO).unwrap();
        self.client.take_received();
    }

    fn write(&mut self, piece: &Bytes, shared: bool) {
        for _ in 0..MIB / piece.len() {
            let mut control = self.sim.control();
            let mut peer = control.peer(self.id);
            if shared { peer.write_bytes(piece.clone()) } else { peer.write(piece) }
        }
    }

    /// The time that `timed` takes `times` times, each time after `before` and before `after`.
    fn time(
        &mut self,
        times: u64,
        before: impl Fn(&mut Bench),
        timed: impl Fn(&mut Bench),
        after: impl Fn(&mut Bench),
    ) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            before(self);
            let begun = Instant::now();
            timed(self);
            took += begun.elapsed();
            after(self);
        }
        took
    }
}

fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffer/queue");
    group.throughput(Throughput::Bytes(MIB as u64));
    let rows = [("64 B copied", 64, false), ("16 KiB copied", 16 * KIB, false)];
    for (name, size, shared) in rows.into_iter().chain([("16 KiB shared", 16 * KIB, true)]) {
        let mut bench = Bench::new();
        let piece = Bytes::from(vec![7; size]);
        let queue = |bench: &mut Bench| {
            bench.write(&piece, shared);
            bench.turn();
        };
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|times| bench.time(times, Bench::block, queue, Bench::drain));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    queue(&mut criterion);
    criterion.final_summary();
}
