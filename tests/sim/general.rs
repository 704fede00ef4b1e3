//! Random runs: servers and clients of all kinds in a network where everything goes wrong, then a
//! quiet end. The seed decides it all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::{Faults, Link, Sim, Socket, Trace, seeds_from_env};
use lariat::{Closes, DriverLimits, ListenOptions, Overload, Protocol};

use crate::actor::{Actor, Kind, place};
use crate::toy::Toy;
use crate::watchdog::Watchdog;
use crate::world::{Shared, Target, World};

/// Runs of the ordinary test. `LARIAT_SEEDS` asks for more.
const SEEDS: u64 = 120;

/// More connections than a run ever has.
const ROOMY: usize = 10_000;

fn driver_limits(world: &Shared) -> DriverLimits {
    let dice = &mut world.borrow_mut().dice;
    let mut limits = DriverLimits::default();
    limits.connections_max = dice.pick(&[3, 8, 30, ROOMY]);
    limits.overload = dice.pick(&[Overload::Pause, Overload::Shed]);
    limits.accepts_max = dice.pick(&[1, 3, 64]);
    limits.timers_max = dice.pick(&[1, 5, 1024]);
    limits.lingering_max = dice.pick(&[1, 4, 1024]);
    limits.events_max = dice.pick(&[1, 7, 1024]);
    limits.drain = Duration::from_millis(dice.pick(&[0, 100, 4_000, 20_000]));
    limits
}

fn boxed(trace: Option<&Trace>, actor: Actor) -> Box<dyn Protocol> {
    match trace {
        Some(trace) => Box::new(trace.wrap(&actor.who(), actor)),
        None => Box::new(actor),
    }
}

/// An end of the test's own.
struct Raw {
    socket: Option<Socket>,
    end: usize,
    finished: bool,
}

impl Raw {
    fn dial(sim: &Sim, world: &Shared) -> Raw {
        let target = {
            let world = &mut *world.borrow_mut();
            world.dice.pick(&world.targets)
        };
        let socket = sim.dial(target.addr);
        let end = world.borrow_mut().born("raw");
        let mut inside = world.borrow_mut();
        inside.ends[end].raw = true;
        inside.ends[end].addrs = Some((socket.local_addr(), socket.peer_addr()));
        drop(inside);
        Raw { socket: Some(socket), end, finished: false }
    }

    fn collect(&self, world: &mut World) {
        if let Some(socket) = &self.socket {
            let end = &mut world.ends[self.end];
            end.received.extend(socket.take_received());
            end.heard_fin = socket.is_finished();
        }
    }

    /// Once all faults are off, nobody waits at a listener that has room.
    fn judge_waiting(&self, world: &mut World) {
        let Some(socket) = &self.socket else { return };
        let over = socket.is_finished() || socket.is_reset() || world.ends[self.end].cut;
        if !over && !world.met_at_listeners.contains(&socket.local_addr()) {
            world.fault(self.end, "waits at a listener that has room");
        }
    }

    /// Reads everything from now on, and perhaps says a last word.
    fn end_quietly(&self, world: &mut World) {
        let Some(socket) = &self.socket else { return };
        socket.resume_reading();
        if self.finished || world.dice.chance(300) {
            return;
        }
        // All in one go: there is one event for the bytes and the end.
        let count = world.dice.within(0..50);
        let bytes = world.stream(self.end, count);
        socket.send(&bytes);
        world.ends[self.end].sent.extend(bytes);
        if world.dice.chance(700) {
            socket.finish();
            world.ends[self.end].finished = true;
        }
    }

    fn act(&mut self, world: &mut World) {
        self.collect(world);
        let Some(socket) = &self.socket else { return };
        match world.dice.below(24) {
            0..12 if !self.finished => {
                let most = world.dice.pick(&[1, 10, 2_000, 60_000]);
                let count = world.dice.within(0..most + 1);
                let bytes = world.stream(self.end, count);
                socket.send(&bytes);
                world.ends[self.end].sent.extend(bytes);
            }
            12 => {
                socket.finish();
                self.finished = true;
                world.ends[self.end].finished = true;
            }
            13 | 14 => socket.stop_reading(),
            15 | 16 => socket.resume_reading(),
            17 => socket.read(world.dice.within(0..5_000)),
            18 if world.dice.chance(300) => {
                world.ends[self.end].cut = true;
                socket.reset();
                self.socket = None;
            }
            19 if world.dice.chance(300) => {
                world.ends[self.end].cut = true;
                socket.vanish();
            }
            20 if world.dice.chance(300) => {
                world.ends[self.end].gone = true;
                self.socket = None;
            }
            _ => {}
        }
    }
}

/// What a run was.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    text: String,
    metrics: String,
    virtual_time: Duration,
    connections: u64,
    bytes: u64,
    closes: Closes,
    /// Whether flow control held somebody, as far as was looked.
    held: u64,
}

fn run(seed: u64, traced: bool) -> Ran {
    let world: Shared = Rc::new(RefCell::new(World::new(seed)));
    let trace = traced.then(Trace::new);
    let limits = driver_limits(&world);
    let drain = limits.drain;
    let roomy = limits.connections_max == ROOMY;
    let mut sim = Sim::with_limits(seed, limits).unwrap();
    sim.set_faults(if seed % 2 == 0 { Faults::rough() } else { Faults::harsh() });
    let mut link = Link::default();
    {
        let dice = &mut world.borrow_mut().dice;
        link.latency = Duration::from_micros(dice.pick(&[0, 50, 20_000]));
        link.window = dice.pick(&[1, 1_000, 64 << 10, 256 << 10]);
        if dice.chance(300) {
            link.bandwidth = Some(dice.pick(&[20_000, 1_000_000]));
        }
    }
    if link.window < 1_000 {
        link.bandwidth = None;
    }
    let slow = link.bandwidth.is_some() || link.window < 64 << 10;
    sim.set_link(link);

    let servers = world.borrow_mut().dice.within(1..4) as u16;
    for number in 0..servers {
        serve(&mut sim, &world, number, trace.as_ref());
    }
    let clients = world.borrow_mut().dice.within(0..10);
    for _ in 0..clients {
        let (target, kind, limits) = {
            let world = &mut *world.borrow_mut();
            let target = world.dice.pick(&world.targets);
            (target, Kind::any(&mut world.dice, &world.targets), world.limits())
        };
        let actor = Actor::client(&world, kind, target);
        sim.control()
            .connect_local_with(target.addr, limits.into(), boxed(trace.as_ref(), actor))
            .unwrap();
    }
    let raws = world.borrow_mut().dice.within(0..8);
    let mut raws: Vec<Raw> = (0..raws).map(|_| Raw::dial(&sim, &world)).collect();

    // Faults on: nothing may be wrong.
    let mut held = 0;
    let slices = world.borrow_mut().dice.within(5..40);
    for _ in 0..slices {
        for raw in &mut raws {
            raw.act(&mut world.borrow_mut());
        }
        let micros = world.borrow_mut().dice.pick(&[10, 1_000, 30_000, 700_000]);
        sim.run_for(Duration::from_micros(micros)).unwrap();
        let metrics = sim.metrics();
        held += metrics.held;
        let most = (metrics.open + metrics.lingering) * ((8 << 20) + 40_000);
        assert!(metrics.buffered <= most, "{} bytes are buffered", metrics.buffered);
    }

    // Faults off: everything must end.
    sim.set_faults(Faults::none());
    world.borrow_mut().busy = false;
    for raw in &raws {
        raw.end_quietly(&mut world.borrow_mut());
    }
    sim.run_for(Duration::from_secs(5)).unwrap();
    if roomy && seed % 2 == 0 {
        raws.iter().for_each(|raw| raw.judge_waiting(&mut world.borrow_mut()));
    }
    // Without resets, vanished hosts and narrow links, all has arrived by now.
    if seed % 2 == 0 && !slow {
        raws.iter().for_each(|raw| raw.collect(&mut world.borrow_mut()));
        world.borrow_mut().judge_progress();
    }
    for raw in &mut raws {
        raw.collect(&mut world.borrow_mut());
        if world.borrow_mut().dice.chance(250) {
            world.borrow_mut().ends[raw.end].gone = true;
            raw.socket = None;
        }
    }
    let stopped = sim.now();
    sim.handle().shutdown();
    sim.run().unwrap();
    assert!(sim.is_over(), "not over at {:?}: {:?}", sim.now(), sim.metrics());
    let took = sim.now() - stopped;
    assert!(took <= drain + Duration::from_secs(1), "stopping took {took:?} of {drain:?}");
    for raw in &raws {
        raw.collect(&mut world.borrow_mut());
    }

    let metrics = sim.metrics();
    let gauges = [metrics.open, metrics.lingering, metrics.paused, metrics.held, metrics.buffered];
    assert_eq!(gauges, [0; 5], "{metrics:?}");
    let connections = metrics.accepted + metrics.connects;
    assert_eq!(metrics.closes.total(), connections, "{metrics:?}");
    let mut world = world.borrow_mut();
    assert_eq!(metrics.panics, world.planned_panics, "{metrics:?}");
    world.judge();
    let happened = trace.as_ref().map(Trace::text).unwrap_or_default();
    assert!(world.faults.is_empty(), "{happened}\n{:#?}", world.faults);
    Ran {
        text: happened,
        metrics: format!("{metrics:?}"),
        virtual_time: sim.now(),
        connections,
        bytes: metrics.bytes_in,
        closes: metrics.closes,
        held,
    }
}

fn serve(sim: &mut Sim, world: &Shared, number: u16, trace: Option<&Trace>) {
    let mut options = ListenOptions::default();
    let filtered = {
        let world = &mut *world.borrow_mut();
        options.limits = world.limits();
        options.backlog = world.dice.pick(&[1, 5, 1024]);
        world.dice.chance(250)
    };
    let (shared, trace) = (Rc::clone(world), trace.cloned());
    let kind = {
        let world = &mut *world.borrow_mut();
        Kind::any(&mut world.dice, &world.targets)
    };
    let listener = sim
        .listen_with(place(number), options, move |incoming| {
            shared.borrow_mut().met_at_listeners.insert(incoming.peer());
            // A factory may refuse, and may panic.
            let chance = shared.borrow_mut().dice.below(100);
            match chance {
                0 => return None,
                1 => {
                    shared.borrow_mut().planned_panics += 1;
                    panic!("planned");
                }
                _ => {}
            }
            let actor = Actor::new(&shared, "server", kind, filtered.then(Toy::server));
            Some(boxed(trace.as_ref(), actor))
        })
        .unwrap();
    let addr = sim.addresses(listener)[0];
    world.borrow_mut().targets.push(Target { addr, filtered });
}

#[test]
fn random_runs_keep_every_rule_and_end() {
    crate::quiet_planned_panics();
    let (began, mut seeds, mut time) = (Instant::now(), 0u32, Duration::ZERO);
    let (mut connections, mut bytes, mut held) = (0, 0, 0);
    let mut ends = BTreeMap::new();
    for seed in seeds_from_env(0..SEEDS) {
        // A seed that is repeated alone is to be looked at.
        let alone = std::env::var_os("LARIAT_SEED").is_some();
        let _watchdog = Watchdog::new(format!("seed {seed} failed"));
        let ran = std::panic::catch_unwind(|| run(seed, alone)).unwrap_or_else(|panic| {
            eprintln!("seed {seed} failed; to repeat it alone:");
            eprintln!("    LARIAT_SEED={seed} cargo test --test sim random_runs");
            std::panic::resume_unwind(panic)
        });
        seeds += 1;
        time += ran.virtual_time;
        connections += ran.connections;
        bytes += ran.bytes;
        held += ran.held;
        for (kind, count) in counts(&ran.closes) {
            *ends.entry(kind).or_insert(0) += count;
        }
    }
    let real = began.elapsed().as_secs_f64().max(1e-9);
    println!(
        "{seeds} seeds in {real:.1} s: {:.0} seeds per second; {connections} connections, {bytes} \
         bytes; virtual time {:.0} s, {:.0} times real time",
        f64::from(seeds) / real,
        time.as_secs_f64(),
        time.as_secs_f64() / real,
    );
    println!("ends: {ends:?}");
    if u64::from(seeds) >= SEEDS {
        // A generator that no longer gets everywhere proves nothing.
        assert!(ends.values().all(|count| *count > 0), "an end that never happened: {ends:?}");
        assert!(held > 0, "flow control never held anybody");
    }
}

/// The ends that random runs must come to.
fn counts(closes: &Closes) -> [(&'static str, u64); 11] {
    [
        ("finished", closes.finished),
        ("reset", closes.reset),
        ("aborted", closes.aborted),
        ("timed out", closes.timed_out),
        ("input full", closes.input_full),
        ("output full", closes.output_full),
        ("connect", closes.connect),
        ("filter", closes.filter),
        ("protocol", closes.protocol),
        ("panicked", closes.panicked),
        ("shutdown", closes.shutdown),
    ]
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    crate::quiet_planned_panics();
    for seed in 0..12 {
        let (first, second) = (run(seed, true), run(seed, true));
        assert_eq!(first, second, "seed {seed}");
    }
}
