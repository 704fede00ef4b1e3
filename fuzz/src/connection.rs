//! One connection whose callbacks and whose peer do anything at all, in any order.
//!
//! The rules, each held against a model that knows nothing of the library's own state:
//!
//! - The order of callbacks is that of the contract; `closed` runs once and last.
//! - Input is shown in order, whole, from the first unread byte on; output leaves in order.
//! - `drained` follows every congestion, and nothing else.
//! - A timer fires when it was set, once, never early, and not late either.
//! - Every byte is accounted for in the reason of the end.
//! - Whatever happened, a calm end follows: what was sent is read, and nothing is left.

mod doer;
mod model;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lariat::sim::{Call, Fault, Link, Sim, Socket};
use lariat::{ListenOptions, Note};

use crate::script::Script;
use crate::toy::Toy;
use doer::Doer;
use model::{Model, Shared, byte_in};

/// Steps of one script: more would make a run slow, not thorough.
const STEPS: usize = 200;
/// Bytes that are sent or written at once, at most.
const MOST: usize = 150_000;

/// Runs one script.
///
/// # Panics
///
/// When a rule is broken.
pub fn run(bytes: &[u8]) {
    let model: Shared = Rc::new(RefCell::new(Model::new(Script::new(bytes))));
    let mut run = Run::start(&model);
    for _ in 0..STEPS {
        if model.borrow().script.is_over() {
            break;
        }
        run.step();
    }
    run.calm_down();
    run.end();
}

struct Run {
    sim: Sim,
    model: Shared,
    client: Option<Socket>,
}

impl Run {
    fn start(model: &Shared) -> Run {
        let mut sim = Sim::new(1);
        let mut link = Link::default();
        link.latency = Duration::ZERO;
        let mut options = ListenOptions::default();
        {
            let model = &mut *model.borrow_mut();
            link.window = model.script.pick(&[usize::MAX / 2, 1, 700, 65_536]);
            // What passes byte by byte takes as many turns.
            model.most = if link.window < 700 { 1_000 } else { MOST };
            options.limits = model.limits();
            model.filtered = model.script.below(4) == 1;
        }
        sim.set_link(link);
        let shared = Rc::clone(model);
        let listener = sim
            .listen_with("127.0.0.1:1", options, move |_| {
                let filter = shared.borrow().filtered.then(Toy::server);
                Some(Doer::new(&shared, filter))
            })
            .unwrap_or_else(|error| panic!("a fresh simulator listens: {error}"));
        let client = sim.dial(sim.addresses(listener)[0]);
        let mut run = Run { sim, model: Rc::clone(model), client: Some(client) };
        if model.borrow_mut().script.below(2) == 0 {
            run.settle();
        }
        if model.borrow().filtered {
            run.send_wire(&Toy::hello(model::KEY));
        }
        run
    }

    /// Lets everything happen that takes no time.
    fn settle(&mut self) {
        self.run_for(Duration::ZERO);
    }

    fn run_for(&mut self, time: Duration) {
        self.sim.run_for(time).unwrap_or_else(|error| panic!("the simulator failed: {error}"));
        self.collect();
        self.model.borrow_mut().judge_timers(self.sim.now());
    }

    fn collect(&mut self) {
        if let Some(client) = &self.client {
            self.model.borrow_mut().received.extend(client.take_received());
        }
    }

    // ---- what the peer and the rest of the world do ------------------------------------------

    fn step(&mut self) {
        let what = self.model.borrow_mut().script.byte();
        self.model.borrow().tell(|| format!("{:?}: step {}", self.sim.now(), what & 31));
        match what & 31 {
            0..4 => self.send(),
            4 => self.finish(),
            5 => self.cut(|client| client.reset()),
            6 => self.cut(drop),
            7 => self.with_client(Socket::stop_reading),
            8 => self.with_client(Socket::resume_reading),
            9 => {
                let count = self.model.borrow_mut().length();
                self.with_client(|client| client.read(count));
            }
            10 => {
                let time = self.model.borrow_mut().script.below(256) as u64;
                self.run_for(Duration::from_millis(time));
            }
            11 => {
                let time = self.model.borrow_mut().script.below(20) as u64;
                self.run_for(Duration::from_secs(time));
            }
            12..14 => self.write_from_outside(),
            14..16 => self.wish_from_outside(),
            16 => self.script_fault(),
            17 => self.send_garbage(),
            18 => {
                self.model.borrow_mut().cut = true;
                self.with_client(Socket::vanish);
            }
            _ => self.turn(),
        }
        // Half of the steps meet the next one in the same turn.
        if what & 32 == 0 {
            self.settle();
        }
    }

    fn turn(&mut self) {
        let turned = self.sim.turn(Some(Duration::ZERO));
        turned.unwrap_or_else(|error| panic!("the simulator failed: {error}"));
    }

    fn with_client(&self, act: impl FnOnce(&Socket)) {
        if let Some(client) = &self.client {
            act(client);
        }
    }

    fn cut(&mut self, act: impl FnOnce(Socket)) {
        self.collect();
        if let Some(client) = self.client.take() {
            self.model.borrow_mut().cut = true;
            act(client);
        }
    }

    fn send(&mut self) {
        let clear = {
            let model = &mut *self.model.borrow_mut();
            if model.finished || self.client.is_none() {
                return;
            }
            let count = model.length();
            let from = model.offered;
            model.offered += count;
            (from..from + count).map(byte_in).collect::<Vec<u8>>()
        };
        if self.model.borrow().filtered {
            let mut wire = Vec::new();
            Toy::encode(model::KEY, &clear, &mut wire);
            self.send_wire(&wire);
        } else {
            self.send_wire(&clear);
        }
    }

    fn send_wire(&self, wire: &[u8]) {
        self.with_client(|client| client.send(wire));
    }

    /// Half a message of the filter's, or bytes that nobody knows of.
    fn send_garbage(&mut self) {
        let count = {
            let model = &mut *self.model.borrow_mut();
            if model.finished || self.client.is_none() {
                return;
            }
            model.honest = false;
            model.script.below(10)
        };
        self.send_wire(&vec![3; count]);
    }

    fn finish(&mut self) {
        let properly = {
            let model = &mut *self.model.borrow_mut();
            if model.finished || self.client.is_none() {
                return;
            }
            model.finished = true;
            let properly = model.script.below(4) != 3;
            model.honest &= properly || !model.filtered;
            properly
        };
        if properly && self.model.borrow().filtered {
            self.send_wire(&[0]);
        }
        self.with_client(Socket::finish);
    }

    fn id(&mut self) -> Option<lariat::ConnId> {
        let id = self.model.borrow().id?;
        self.sim.control().peer(id).is_open().then_some(id)
    }

    fn write_from_outside(&mut self) {
        let Some(id) = self.id() else { return };
        let (count, how) = {
            let model = &mut *self.model.borrow_mut();
            let count = model.length();
            model.outside += count;
            (count, model.script.below(4))
        };
        let bytes = vec![model::OUTSIDE; count];
        let taken = match how {
            0 => {
                self.sim.control().peer(id).push(bytes);
                true
            }
            1 => {
                self.sim.control().peer(id).write(&bytes);
                true
            }
            2 => self.sim.handle().write(id, &bytes).is_ok(),
            _ => self.sim.handle().write_bytes(id, bytes).is_ok(),
        };
        // Of very many requests, some are refused.
        if !taken {
            self.model.borrow_mut().outside -= count;
        }
    }

    fn wish_from_outside(&mut self) {
        let Some(id) = self.id() else { return };
        let what = self.model.borrow_mut().script.below(16);
        self.model.borrow_mut().disturbed |= !matches!(what, 0..8);
        match what {
            0..4 => self.sim.control().peer(id).notify(Note::new(())),
            4..8 => drop(self.sim.handle().notify(id, Note::new(()))),
            8 => self.sim.control().peer(id).close(),
            9 => self.sim.control().peer(id).abort(),
            10 => self.sim.control().peer(id).shutdown_write(),
            11 => self.sim.handle().shutdown(),
            12 => self.sim.handle().abort(id),
            13 => drop(self.sim.handle().shutdown_write(id)),
            // Refused only when very many wait.
            _ => drop(self.sim.handle().close(id)),
        }
    }

    fn script_fault(&mut self) {
        let model = &mut *self.model.borrow_mut();
        let call = model.script.pick(&[Call::Read, Call::Write, Call::Accept, Call::Register]);
        let nth = model.script.below(6) as u64;
        let fault = match model.script.below(8) {
            0..3 => Fault::Short(1 + model.script.below(256)),
            3..5 => Fault::Error(EINTR),
            5 => Fault::Error(ECONNRESET),
            6 => Fault::Error(EPIPE),
            _ => Fault::Error(EMFILE),
        };
        let survived = matches!(fault, Fault::Short(_) | Fault::Error(EINTR));
        // To register is never interrupted, and so not tried again.
        model.broken |= !survived || call == Call::Register;
        self.sim.script(call, nth, fault);
    }

    // ---- the end -----------------------------------------------------------------------------

    /// From now on callbacks read everything and ask for nothing, and so does the peer.
    fn calm_down(&mut self) {
        self.settle();
        self.model.borrow_mut().calm = true;
        self.with_client(Socket::resume_reading);
        self.settle();
        if let Some(id) = self.id() {
            // A paused protocol learns of it by a note.
            self.sim.control().peer(id).notify(Note::new(()));
        }
        self.run_for(Duration::from_secs(1));
        let hears_end = self.client.as_ref().is_some_and(Socket::is_finished);
        self.model.borrow_mut().judge_progress(hears_end);
        self.finish();
        self.run_for(Duration::from_secs(1));
        self.model.borrow_mut().judge_finish(hears_end);
    }

    fn end(&mut self) {
        self.run_for(Duration::from_secs(60));
        self.sim.handle().shutdown();
        self.run_for(Duration::from_secs(60));
        assert!(self.sim.is_over(), "not over: {:?}", self.sim.metrics());
        let metrics = self.sim.metrics();
        let gauges =
            [metrics.open, metrics.lingering, metrics.paused, metrics.held, metrics.buffered];
        assert_eq!(gauges, [0; 5], "{metrics:?}");
        let mut model = self.model.borrow_mut();
        assert_eq!(metrics.closes.total(), metrics.accepted + metrics.connects, "{metrics:?}");
        assert_eq!(metrics.panics, model.planned_panics, "{metrics:?}");
        model.judge_end(metrics.accepted);
        assert!(model.faults.is_empty(), "{:#?}\n{:?}", model.faults, model.reason);
    }
}

/// The numbers of Linux; elsewhere they are other errors, and as good.
const EINTR: i32 = 4;
const EMFILE: i32 = 24;
const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
