//! Random runs: servers and clients of all kinds in a network where everything goes wrong, then a
//! quiet end. The seed decides it all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::{Choices, Faults, Link, Sim, Socket, Trace, check};
use lariat::{Closes, DriverLimits, ListenOptions, Overload, Protocol};

use crate::actor::{Actor, Kind, place};
use crate::toy::Toy;
use crate::watchdog::Watchdog;
use crate::world::{Shared, Target, World, limits};

/// Runs of the ordinary test. `LARIAT_SEEDS` asks for more.
const SEEDS: u64 = 120;

/// More connections than a run ever has.
const ROOMY: usize = 10_000;

/// The first of each are the roomiest.
fn driver_limits(dice: &Choices) -> DriverLimits {
    let mut limits = DriverLimits::default();
    limits.connections_max = dice.pick(&[ROOMY, 30, 8, 3]);
    limits.overload = dice.pick(&[Overload::Pause, Overload::Shed]);
    limits.accepts_max = dice.pick(&[64, 3, 1]);
    limits.timers_max = dice.pick(&[1024, 5, 1]);
    limits.lingering_max = dice.pick(&[1024, 4, 1]);
    limits.events_max = dice.pick(&[1024, 7, 1]);
    limits.drain = Duration::from_millis(dice.pick(&[20_000, 4_000, 100, 0]));
    limits
}

fn link(dice: &Choices) -> Link {
    let mut link = Link::default();
    link.latency = Duration::from_micros(dice.pick(&[50, 20_000, 0]));
    link.window = dice.pick(&[256 << 10, 64 << 10, 1_000, 1]);
    if dice.chance(300) && link.window >= 1_000 {
        link.bandwidth = Some(dice.pick(&[1_000_000, 20_000]));
    }
    link
}

fn boxed(trace: Option<&Trace>, actor: Actor) -> Box<dyn Protocol> {
    match trace {
        Some(trace) => Box::new(trace.wrap(&actor.who(), actor)),
        None => Box::new(actor),
    }
}

/// An end of the test's own.
struct Raw {
    dice: Choices,
    socket: Option<Socket>,
    end: usize,
    finished: bool,
}

impl Raw {
    fn dial(sim: &Sim, world: &Shared, dice: Choices) -> Raw {
        let target = dice.pick(&world.borrow().targets);
        let socket = sim.dial(target.addr);
        let end = world.borrow_mut().born("raw");
        let mut inside = world.borrow_mut();
        inside.ends[end].raw = true;
        inside.ends[end].addrs = Some((socket.local_addr(), socket.peer_addr()));
        drop(inside);
        Raw { dice, socket: Some(socket), end, finished: false }
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
        if self.finished || self.dice.chance(300) {
            return;
        }
        // All in one go: there is one event for the bytes and the end.
        let count = self.dice.within(0..50);
        let bytes = world.stream(self.end, count);
        socket.send(&bytes);
        world.ends[self.end].sent.extend(bytes);
        if self.dice.chance(700) {
            socket.finish();
            world.ends[self.end].finished = true;
        }
    }

    fn act(&mut self, world: &mut World) {
        self.collect(world);
        let Some(socket) = &self.socket else { return };
        match self.dice.below(24) {
            1..13 if !self.finished => {
                let most = self.dice.pick(&[1, 10, 2_000, 60_000]);
                let count = self.dice.within(0..most + 1);
                let bytes = world.stream(self.end, count);
                socket.send(&bytes);
                world.ends[self.end].sent.extend(bytes);
            }
            13 => {
                socket.finish();
                self.finished = true;
                world.ends[self.end].finished = true;
            }
            14 | 15 => socket.stop_reading(),
            16 | 17 => socket.resume_reading(),
            18 => socket.read(self.dice.within(0..5_000)),
            19 if self.dice.chance(300) => {
                world.ends[self.end].cut = true;
                socket.reset();
                self.socket = None;
            }
            20 if self.dice.chance(300) => {
                world.ends[self.end].cut = true;
                socket.vanish();
            }
            21 if self.dice.chance(300) => {
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
    /// Whether flow control held a connection, as far as was looked.
    held: u64,
}

/// Whether there is one more, of at most so many.
fn one_more(dice: &Choices, count: usize, most: usize, of_thousand: u32) -> bool {
    count < most && dice.chance(of_thousand)
}

fn run(sim: &mut Sim, traced: bool) -> Ran {
    let dice = sim.choices();
    let elapsed = sim.now();
    let began = sim.control().now() - elapsed;
    let world: Shared = Rc::new(RefCell::new(World::new(began)));
    let trace = traced.then(Trace::new);
    let limits = driver_limits(&dice);
    let (drain, bounds) = (limits.drain, (limits.connections_max, limits.lingering_max));
    let roomy = limits.connections_max == ROOMY;
    sim.set_limits(limits).unwrap();
    let harsh = dice.chance(500);
    sim.set_faults(if harsh { Faults::harsh() } else { Faults::rough() });
    let link = link(&dice);
    let slow = link.bandwidth.is_some() || link.window < 64 << 10;
    sim.set_link(link);

    serve(sim, &world, 0, dice.fork(), trace.as_ref());
    for number in 1.. {
        if !one_more(&dice, number as usize, 3, 550) {
            break;
        }
        serve(sim, &world, number, dice.fork(), trace.as_ref());
    }
    let mut clients = 0;
    while one_more(&dice, clients, 10, 850) {
        clients += 1;
        connect(sim, &world, dice.fork(), trace.as_ref());
    }
    let mut raws: Vec<Raw> = Vec::new();
    while one_more(&dice, raws.len(), 8, 820) {
        raws.push(Raw::dial(sim, &world, dice.fork()));
    }

    // Faults on: nothing may be wrong.
    let (mut held, mut slices) = (0, 0);
    while one_more(&dice, slices, 40, 970) {
        slices += 1;
        for raw in &mut raws {
            raw.act(&mut world.borrow_mut());
        }
        let micros = dice.pick(&[10, 1_000, 30_000, 700_000]);
        sim.run_for(Duration::from_micros(micros)).unwrap();
        let metrics = sim.metrics();
        held += metrics.held;
        let (open, lingering) = (metrics.open as usize, metrics.lingering as usize);
        assert!(open <= bounds.0 && lingering <= bounds.1, "{open}, {lingering} of {bounds:?}");
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
    if roomy && !harsh {
        raws.iter().for_each(|raw| raw.judge_waiting(&mut world.borrow_mut()));
    }
    // Without resets, vanished hosts and narrow links, all has arrived by now.
    if !harsh && !slow {
        raws.iter().for_each(|raw| raw.collect(&mut world.borrow_mut()));
        world.borrow_mut().judge_progress();
    }
    for raw in &mut raws {
        raw.collect(&mut world.borrow_mut());
        if raw.dice.chance(250) {
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
    assert_eq!((gauges, metrics.handshaking), ([0; 5], 0), "{metrics:?}");
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

/// A protocol that connects.
fn connect(sim: &mut Sim, world: &Shared, dice: Choices, trace: Option<&Trace>) {
    let targets = world.borrow().targets.clone();
    let target = dice.pick(&targets);
    let (kind, limits) = (Kind::any(&dice, &targets), limits(&dice));
    let actor = boxed(trace, Actor::client(world, kind, target, dice));
    sim.control().connect_local_with(target.addr, limits.into(), actor).unwrap();
}

fn serve(sim: &mut Sim, world: &Shared, number: u16, dice: Choices, trace: Option<&Trace>) {
    let mut options = ListenOptions::default();
    options.limits = limits(&dice);
    options.backlog = dice.pick(&[1024, 5, 1]);
    let filtered = dice.chance(250);
    let kind = Kind::any(&dice, &world.borrow().targets);
    let (shared, trace) = (Rc::clone(world), trace.cloned());
    let listener = sim
        .listen_with(place(number), options, move |incoming| {
            shared.borrow_mut().met_at_listeners.insert(incoming.peer());
            // A factory may refuse, and may panic.
            match dice.below(100) {
                98 => return None,
                99 => {
                    shared.borrow_mut().planned_panics += 1;
                    panic!("planned");
                }
                _ => {}
            }
            let filter = filtered.then(Toy::server);
            let actor = Actor::new(&shared, "server", kind, filter, dice.fork());
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
    // A seed that is repeated alone is to be looked at.
    let alone = std::env::var_os("LARIAT_SEED").is_some();
    check(0..SEEDS, |sim| {
        let _watchdog = Watchdog::new(format!("seed {} failed", sim.seed()));
        let ran = run(sim, alone);
        seeds += 1;
        time += ran.virtual_time;
        connections += ran.connections;
        bytes += ran.bytes;
        held += ran.held;
        for (kind, count) in counts(&ran.closes) {
            *ends.entry(kind).or_insert(0) += count;
        }
    });
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
        let [first, second] = [Sim::new(seed), Sim::new(seed)].map(|mut sim| run(&mut sim, true));
        assert_eq!(first, second, "seed {seed}");
    }
}
