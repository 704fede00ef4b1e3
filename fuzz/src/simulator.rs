//! A network of well-behaved servers and clients, in which the bytes decide what goes wrong.
//!
//! The first bytes are the seed, the faults, the link and the limits; the rest is what the clients
//! do. Four servers answer in ways that can be foretold to the byte: an echo, the lengths of lines,
//! a relay to the echo, and a hub that pushes what one says to all. What anybody hears must be a
//! beginning of what it should hear; and where nothing was lost on the way, all of it.

mod clients;
mod servers;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use lariat::sim::{Faults, Link, Sim};
use lariat::{DriverLimits, Limits, ListenOptions};

use crate::script::Script;
use clients::{Caller, Dialled, Outcomes};
use servers::{Echo, Hub, Lines, Members, Relay};

/// Steps of one script.
const STEPS: usize = 60;
/// Ends that the script itself holds.
const DIALLED: usize = 6;
/// Protocols that connect.
const CALLERS: usize = 3;

/// What a server is, and so what its clients hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Echo,
    Lines,
    Relay,
    Hub,
}

const KINDS: [Kind; 4] = [Kind::Echo, Kind::Lines, Kind::Relay, Kind::Hub];

/// Runs one script.
///
/// # Panics
///
/// When a rule is broken.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut run = Run::start(&mut script);
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        run.step(&mut script);
    }
    run.calm_down();
    run.end();
}

struct Run {
    sim: Sim,
    /// Where each kind listens.
    addrs: Vec<(Kind, SocketAddr)>,
    dialled: Vec<Dialled>,
    outcomes: Outcomes,
    callers: u64,
    /// Bytes that one client sends at most.
    most: usize,
    /// Nothing is lost on the way.
    exact: bool,
}

impl Run {
    fn start(script: &mut Script) -> Run {
        let seed = script.number();
        let mut limits = DriverLimits::default();
        limits.accepts_max = script.pick(&[64, 1, 3]);
        limits.events_max = script.pick(&[1024, 1, 5]);
        limits.timers_max = script.pick(&[1024, 1]);
        let mut sim = Sim::with_limits(seed, limits)
            .unwrap_or_else(|error| panic!("these limits can work: {error}"));
        sim.strict(true);
        let faults = faults(script);
        let lossless =
            [faults.resets, faults.vanishes, faults.accept_errors, faults.connect_errors];
        let exact = lossless == [0; 4];
        sim.set_faults(faults);
        let mut link = Link::default();
        link.latency = Duration::from_micros(script.pick(&[50, 0, 3_000]));
        link.window = script.pick(&[256 << 10, 1, 700, 65_536]);
        // What passes byte by byte takes as many round trips.
        let most = if link.window < 700 { 300 } else { 40_000 };
        sim.set_link(link);
        let mut run = Run {
            sim,
            addrs: Vec::new(),
            dialled: Vec::new(),
            outcomes: Outcomes::default(),
            callers: 0,
            most,
            exact,
        };
        run.listen(script);
        run
    }

    fn listen(&mut self, script: &mut Script) {
        let mut echo = None;
        for (kind, port) in KINDS.into_iter().zip(7000..) {
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            let mut options = ListenOptions::default();
            options.limits = limits(script);
            let members: Members = Rc::default();
            let target = *echo.get_or_insert(addr);
            let listened = match kind {
                Kind::Echo => self.sim.listen_with(addr, options, |_| Some(Echo)),
                Kind::Lines => self.sim.listen_with(addr, options, |_| Some(Lines)),
                Kind::Relay => {
                    self.sim.listen_with(addr, options, move |_| Some(Relay::new(target)))
                }
                Kind::Hub => self.sim.listen_with(addr, options, move |_| Some(Hub::new(&members))),
            };
            listened.unwrap_or_else(|error| panic!("a fresh simulator listens: {error}"));
            self.addrs.push((kind, addr));
        }
    }

    // ---- what happens ------------------------------------------------------------------------

    fn step(&mut self, script: &mut Script) {
        let what = script.byte();
        let client = usize::from(what >> 5);
        match what & 31 {
            0..5 => self.dial(script),
            5 | 6 => self.call(script),
            7..16 => self.with(client, |client| client.send(script.length(9_000))),
            16 => self.with(client, Dialled::stop_reading),
            17 | 18 => self.with(client, Dialled::resume_reading),
            19 => self.with(client, |client| client.read(script.length(9_000))),
            20 => self.with(client, Dialled::finish),
            21 => self.with(client, Dialled::reset),
            22 => self.with(client, Dialled::drop_it),
            23 => self.with(client, Dialled::vanish),
            _ => {}
        }
        // Never as long as a deadline, even if every step takes it.
        let micros = script.pick(&[0, 10, 1_000, 20_000, 100_000]);
        self.run_for(Duration::from_micros(micros));
    }

    fn run_for(&mut self, time: Duration) {
        self.sim.run_for(time).unwrap_or_else(|error| panic!("the simulator failed: {error}"));
        for client in &mut self.dialled {
            client.collect();
        }
    }

    fn with(&mut self, number: usize, act: impl FnOnce(&mut Dialled)) {
        let count = self.dialled.len().max(1);
        if let Some(client) = self.dialled.get_mut(number % count) {
            act(client);
        }
    }

    fn dial(&mut self, script: &mut Script) {
        if self.dialled.len() < DIALLED {
            let (kind, addr) = script.pick(&self.addrs);
            let number = self.dialled.len();
            self.dialled.push(Dialled::new(self.sim.dial(addr), kind, number, self.most));
        }
    }

    fn call(&mut self, script: &mut Script) {
        if (self.callers as usize) < CALLERS {
            let (_, addr) = script.pick(&[self.addrs[0], self.addrs[2]]);
            let limits = limits(script);
            let count = script.length(self.most);
            let caller = Caller::new(self.callers as usize, count, &self.outcomes);
            self.sim
                .control()
                .connect_local_with(addr, limits.into(), caller)
                .unwrap_or_else(|error| panic!("these limits can work: {error}"));
            self.callers += 1;
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Faults off: what is under way arrives, then everybody finishes.
    fn calm_down(&mut self) {
        self.sim.set_faults(Faults::none());
        for client in &mut self.dialled {
            client.resume_reading();
        }
        self.run_for(Duration::from_secs(20));
        for client in &mut self.dialled {
            client.finish();
        }
        self.run_for(Duration::from_secs(30));
    }

    fn end(mut self) {
        let mut faults: Vec<String> = Vec::new();
        for client in &self.dialled {
            client.judge(self.exact, &self.dialled, &mut faults);
        }
        self.sim.handle().shutdown();
        self.run_for(Duration::from_secs(120));
        let outcomes = self.outcomes.take();
        if outcomes.len() as u64 != self.callers {
            faults.push(format!("{} of {} callers have ended", outcomes.len(), self.callers));
        }
        for outcome in outcomes {
            outcome.judge(self.exact, &mut faults);
        }
        let metrics = self.sim.metrics();
        assert!(faults.is_empty(), "{faults:#?}\n{metrics:?}");
        assert!(self.sim.is_over(), "not over: {metrics:?}");
        let gauges =
            [metrics.open, metrics.lingering, metrics.paused, metrics.held, metrics.buffered];
        assert_eq!(gauges, [0; 5], "{metrics:?}");
        assert_eq!(metrics.panics, 0, "{metrics:?}");
        assert_eq!(metrics.closes.total(), metrics.accepted + metrics.connects, "{metrics:?}");
    }
}

fn faults(script: &mut Script) -> Faults {
    let mut faults = match script.below(4) {
        0 => return Faults::none(),
        1 | 2 => Faults::rough(),
        _ => Faults::harsh(),
    };
    let chances = [
        &mut faults.short_reads,
        &mut faults.short_writes,
        &mut faults.interrupts,
        &mut faults.spurious,
        &mut faults.delays,
        &mut faults.cuts,
        &mut faults.clock_stalls,
        &mut faults.single_events,
        &mut faults.stops,
    ];
    for chance in chances {
        // Up to half of all calls.
        *chance = u32::from(script.byte()) * 2;
    }
    faults
}

/// Limits that nobody here meets who is not cut off: small marks and budgets, long deadlines.
fn limits(script: &mut Script) -> Limits {
    let mut limits = Limits::default();
    limits.high_mark = script.pick(&[65_536, 0, 1, 100, 3_000]);
    limits.low_mark = limits.high_mark / script.pick(&[4, 1, 1_000_000]);
    limits.read_budget = script.pick(&[256 << 10, 7, 100, 20_000]);
    limits.write_budget = script.pick(&[1 << 20, 7, 100, 20_000]);
    limits.input_max = script.pick(&[1 << 20, 1_000, 70_000]);
    limits.write_stall = Duration::from_secs(60);
    limits.close_deadline = Duration::from_secs(60);
    limits
}

/// What is shared by protocols of one thread.
type Common<T> = Rc<RefCell<T>>;
