//! A million timers, armed, moved, cancelled and fired, as protocols do it: 10,000 connections with
//! 100 timers each, in the simulator's virtual time.
//!
//! - `armed`: none is set before.
//! - `moved`: each is set again, to another time.
//! - `cancelled`: each is cancelled; none is left.
//! - `fired`: all of them, spread over ten virtual seconds, each with its `timeout`. The turns they
//!   need, at most 1,024 timers each, are in it.
//!
//! The first three contain a note for each connection, one in a hundred of what is counted, and the
//! search among the connection's own timers.
//!
//! How to read it: timers per second. A million and a thousand (in brackets) differ by the depth of
//! the heap and by what no longer fits into the caches. `cargo bench --bench timer`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use lariat::sim::{Sim, Socket};
use lariat::{ConnId, Context, Input, Note, Outcome, Protocol, Timer};

const EACH: u16 = 100;

#[derive(Clone, Copy)]
enum Do {
    /// Set all timers, to times that differ with this number.
    Arm(u64),
    Cancel,
}

struct Timed(Rc<RefCell<Vec<ConnId>>>);

impl Protocol for Timed {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.borrow_mut().push(cx.id());
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        match note.get() {
            Some(Do::Arm(number)) => {
                for key in 0..EACH {
                    // Scattered over ten seconds, the same in every run.
                    let at = (u64::from(key) + number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let delay = Duration::from_nanos(1 + at % 10_000_000_000);
                    cx.set_timer(Timer::new(key), delay);
                }
            }
            Some(Do::Cancel) => {
                for key in 0..EACH {
                    assert!(cx.cancel_timer(Timer::new(key)));
                }
            }
            None => {}
        }
        Ok(())
    }

    fn timeout(&mut self, _: &mut Context<'_>, _: Timer) -> Outcome {
        Ok(())
    }
}

struct Bench {
    sim: Sim,
    ids: Vec<ConnId>,
    _clients: Vec<Socket>,
    number: u64,
}

impl Bench {
    fn new(connections: usize) -> Bench {
        let mut sim = Sim::new(1);
        let ids = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&ids);
        let listener =
            sim.listen("127.0.0.1:7000", move |_| Some(Timed(Rc::clone(&told)))).unwrap();
        let addr = sim.addresses(listener)[0];
        let mut clients = Vec::new();
        while clients.len() < connections {
            // No more at once than the backlog takes.
            let more = (connections - clients.len()).min(500);
            clients.extend((0..more).map(|_| sim.dial(addr)));
            sim.run_for(Duration::from_millis(10)).unwrap();
        }
        let ids = ids.borrow().clone();
        assert_eq!(ids.len(), connections);
        Bench { sim, ids, _clients: clients, number: 0 }
    }

    fn tell(&mut self, what: impl Fn(u64) -> Do) -> Duration {
        let begun = Instant::now();
        for id in &self.ids {
            self.number += u64::from(EACH);
            self.sim.control().peer(*id).notify(Note::new(what(self.number)));
        }
        // No time passes, so that nothing fires.
        self.sim.turn(Some(Duration::ZERO)).unwrap();
        begun.elapsed()
    }

    fn arm(&mut self) -> Duration {
        self.tell(Do::Arm)
    }

    fn cancel(&mut self) -> Duration {
        self.tell(|_| Do::Cancel)
    }

    fn fire(&mut self) -> Duration {
        let all = self.sim.metrics().timers + self.ids.len() as u64 * u64::from(EACH);
        let begun = Instant::now();
        while self.sim.metrics().timers < all {
            self.sim.turn(None).unwrap();
        }
        begun.elapsed()
    }
}

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for connections in [10, 10_000] {
        let mut bench = Bench::new(connections);
        let count = connections * usize::from(EACH);
        group.throughput(Throughput::Elements(count as u64));
        let mut row = |name: &str, timed: &mut dyn FnMut(&mut Bench) -> Duration| {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| timed(&mut bench)).sum());
            });
        };
        row("armed", &mut |bench| {
            let took = bench.arm();
            bench.cancel();
            took
        });
        row("moved", &mut |bench| {
            bench.arm();
            let took = bench.arm();
            bench.cancel();
            took
        });
        row("cancelled", &mut |bench| {
            bench.arm();
            bench.cancel()
        });
        row("fired", &mut |bench| {
            bench.arm();
            bench.fire()
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    timers(&mut criterion);
    criterion.final_summary();
}
