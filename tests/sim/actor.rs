//! A protocol that behaves in one of many ways, and now and then does anything at all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::Choices;
use lariat::{CloseReason, ConnId, Context, Filter, Input, Note, Outcome, Protocol, Timer};

use crate::toy::Toy;
use crate::world::{Shared, Target, limits};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Answers every byte with the same byte.
    Echo,
    /// Answers whole pieces of this length, and waits with `need` for the rest.
    Frames(usize),
    /// Reads and says nothing.
    Sink,
    /// Reads one byte at a time.
    Nibbler,
    /// Consumes nothing.
    Hoarder,
    /// Answers with three bytes of four, from the third on.
    Skipper,
    /// Answers with one byte per `data`.
    Terse,
    /// Sends as soon as there is room, and finishes when all is sent.
    Producer,
    /// Says something, half-closes, and reads on.
    HalfCloser,
    /// Pauses at each `data` and goes on a little later.
    Pauser,
    /// Passes everything on to a connection of its own.
    Relay(Target),
    /// The far side of a relay.
    RelayEnd(ConnId, usize),
    /// Pushes what it hears to another.
    Caster,
    /// Hands over to another protocol.
    Replacer,
    /// Ends in its own way after so many bytes.
    Aborter(usize),
    Panicker(usize),
    Failer(usize),
}

impl Kind {
    pub(crate) fn any(dice: &Choices, targets: &[Target]) -> Kind {
        let count = dice.within(0..3_000);
        match dice.below(17) {
            0 | 1 => Kind::Echo,
            2 => Kind::Frames(1 + count % 60),
            3 => Kind::Sink,
            4 => Kind::Nibbler,
            5 => Kind::Terse,
            6 => Kind::Producer,
            7 => Kind::HalfCloser,
            8 => Kind::Pauser,
            9 if !targets.is_empty() => Kind::Relay(dice.pick(targets)),
            10 => Kind::Caster,
            11 => Kind::Replacer,
            12 => Kind::Aborter(count),
            13 => Kind::Panicker(count),
            14 => Kind::Failer(count),
            15 => Kind::Hoarder,
            16 => Kind::Skipper,
            _ => Kind::Echo,
        }
    }
}

const SEND: Timer = Timer::new(1);
const RESUME: Timer = Timer::new(2);
const ODD: u16 = 10;
/// Bytes of input that are answered.
const ECHOED: u64 = 100_000;

pub(crate) struct Actor {
    world: Shared,
    end: usize,
    kind: Kind,
    /// Bytes still to be sent by itself.
    left: usize,
    /// What it does by chance.
    dice: Choices,
    /// Chances of something odd in a callback, of a thousand.
    odd: u32,
    filter: Option<Toy>,
    /// Whether it stays when the driver stops.
    stays: bool,
    /// When each timer may fire at the earliest.
    set: BTreeMap<Timer, Instant>,
    child: Option<(ConnId, usize)>,
}

impl Actor {
    pub(crate) fn new(
        world: &Shared,
        who: &str,
        kind: Kind,
        filter: Option<Toy>,
        dice: Choices,
    ) -> Actor {
        let end = world.borrow_mut().born(who);
        Actor::at(world, end, kind, filter, dice)
    }

    fn at(world: &Shared, end: usize, kind: Kind, filter: Option<Toy>, dice: Choices) -> Actor {
        let mut inside = world.borrow_mut();
        inside.ends[end].filtered |= filter.is_some();
        let _ = write!(inside.ends[end].who, " {kind:?}");
        let left = match dice.below(10) {
            0..4 => 0,
            4..8 => dice.within(1..3_000),
            8 => dice.within(3_000..40_000),
            _ => dice.within(40_000..150_000),
        };
        let odd = dice.pick(&[0, 0, 0, 5, 20, 60]);
        let stays = dice.chance(150);
        drop(inside);
        Actor {
            world: Rc::clone(world),
            end,
            kind,
            left,
            dice,
            odd,
            filter,
            stays,
            set: BTreeMap::new(),
            child: None,
        }
    }

    /// A client of `target`, with its filter if need be.
    pub(crate) fn client(world: &Shared, kind: Kind, target: Target, dice: Choices) -> Actor {
        let key = dice.below(256) as u8;
        Actor::new(world, "client", kind, target.filtered.then(|| Toy::client(key)), dice)
    }

    pub(crate) fn who(&self) -> String {
        self.world.borrow().ends[self.end].who.clone()
    }

    // ---- bytes -------------------------------------------------------------------------------

    fn write(&self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.world.borrow_mut().ends[self.end].sent.extend_from_slice(bytes);
        cx.write(bytes);
    }

    fn took(&self, bytes: &[u8]) {
        self.world.borrow_mut().ends[self.end].received.extend_from_slice(bytes);
    }

    /// Consumes the first `count` bytes.
    fn consume(&self, input: &mut Input<'_>, count: usize) {
        self.took(&input[..count]);
        input.consume(count);
    }

    fn write_to(&self, cx: &mut Context<'_>, (id, end): (ConnId, usize), bytes: &[u8]) {
        if cx.peer(id).is_open() {
            self.world.borrow_mut().ends[end].sent.extend_from_slice(bytes);
            cx.peer(id).write(bytes);
        }
    }

    fn push_to(&self, cx: &mut Context<'_>, (id, end): (ConnId, usize), bytes: &[u8]) {
        if cx.peer(id).is_open() {
            self.world.borrow_mut().ends[end].sent.extend_from_slice(bytes);
            cx.peer(id).push(bytes.to_vec());
        }
    }

    /// Sends of its own stream until it is congested.
    fn produce(&mut self, cx: &mut Context<'_>) {
        while self.left > 0 && !cx.is_congested() {
            let most = 9_000 - self.dice.within(0..9_000);
            let chunk = self.world.borrow().stream(self.end, self.left.min(most));
            self.left -= chunk.len();
            self.write(cx, &chunk);
        }
        self.world.borrow_mut().ends[self.end].left = self.left;
        if self.left == 0 && matches!(self.kind, Kind::Producer | Kind::HalfCloser) {
            cx.shutdown_write();
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn set(&mut self, cx: &mut Context<'_>, timer: Timer, delay: Duration) {
        self.set.insert(timer, cx.now() + delay);
        cx.set_timer(timer, delay);
    }

    fn soon(&self) -> Duration {
        let micros = self.dice.pick(&[0, 1, 900, 5_000, 60_000, 400_000]);
        Duration::from_micros(micros)
    }

    // ---- anything at all ---------------------------------------------------------------------

    fn look(&self, cx: &mut Context<'_>) {
        let mut world = self.world.borrow_mut();
        // A filter has made wire bytes of at most two steps, and frames of them.
        let slack = if world.ends[self.end].filtered { 40_000 } else { 0 };
        if cx.unsent() > cx.limits().output_max + slack {
            let what = format!("{} unsent of {}", cx.unsent(), cx.limits().output_max);
            world.fault(self.end, &what);
        }
        if world.ends[self.end].closed > 0 {
            world.fault(self.end, "a callback after closed");
        }
        if let Some(ended) = world.ended.filter(|ended| cx.peer(*ended).is_open()) {
            world.fault(self.end, &format!("{ended} has ended and is called open"));
        }
    }

    /// Whether it reads everything, and soon.
    fn note_greed(&self, cx: &Context<'_>) {
        let greedy = match self.kind {
            Kind::Frames(_) | Kind::Hoarder | Kind::Nibbler => false,
            Kind::Pauser => cx.limits().read_budget >= 20_000,
            _ => true,
        };
        self.world.borrow_mut().ends[self.end].greedy = greedy;
    }

    fn oddity(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.look(cx);
        let odd = self.dice.chance(self.odd);
        if !odd || !self.world.borrow().busy {
            return Ok(());
        }
        let what = self.dice.below(17);
        match what {
            0 => cx.close(),
            1 => cx.abort(),
            2 => cx.shutdown_write(),
            3 => {
                self.world.borrow_mut().planned_panics += 1;
                panic!("planned");
            }
            4 => return Err("planned".into()),
            5 => {
                cx.pause_reading();
                let soon = self.soon();
                self.set(cx, RESUME, soon);
            }
            6 => {
                let timer = Timer::new(ODD + self.dice.below(3) as u16);
                let soon = self.soon();
                self.set(cx, timer, soon);
            }
            7 => {
                let timer = Timer::new(ODD);
                if cx.cancel_timer(timer) != self.set.remove(&timer).is_some() {
                    self.world.borrow_mut().fault(self.end, "cancel knows another state");
                }
            }
            8 => self.connect(cx),
            9 => {
                let mut limits = limits(&self.dice);
                // What is queued already stays within the bound.
                limits.output_max = limits.output_max.max(cx.limits().output_max);
                cx.set_limits(limits)?;
                self.note_greed(cx);
            }
            10 => self.replace(cx),
            11 => cx.resume_reading(),
            _ => self.bother(cx, what),
        }
        Ok(())
    }

    /// Does something to another.
    fn bother(&self, cx: &mut Context<'_>, what: u64) {
        let Some(them) = self.world.borrow().somebody(&self.dice) else { return };
        let bytes = self.world.borrow().stream(them.0, 100);
        match what {
            12 => cx.peer(them.1).notify(Note::new(7u32)),
            13 => cx.peer(them.1).close(),
            14 => cx.peer(them.1).shutdown_write(),
            15 => self.push_to(cx, (them.1, them.0), &bytes),
            _ => self.write_to(cx, (them.1, them.0), &bytes),
        }
    }

    fn connect(&self, cx: &mut Context<'_>) {
        let world = self.world.borrow();
        if world.ends.len() > 60 || world.targets.is_empty() {
            return;
        }
        let target = self.dice.pick(&world.targets);
        drop(world);
        let kind = Kind::any(&self.dice, &[]);
        let client = Actor::client(&self.world, kind, target, self.dice.fork());
        cx.driver().connect_local(target.addr, client);
    }

    fn replace(&self, cx: &mut Context<'_>) {
        let kind = Kind::any(&self.dice, &[]);
        if matches!(self.kind, Kind::Relay(_) | Kind::RelayEnd(..)) {
            return;
        }
        let dice = self.dice.clone();
        cx.replace_local(Actor::at(&self.world, self.end, kind, None, dice));
    }
}

impl Protocol for Actor {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        {
            let mut world = self.world.borrow_mut();
            world.meet(self.end, cx.id());
            let end = &mut world.ends[self.end];
            end.opened += 1;
            end.addrs = cx.local_addr().map(|own| (own, cx.peer_addr()));
        }
        self.note_greed(cx);
        if let Kind::Relay(target) = self.kind {
            let kind = Kind::RelayEnd(cx.id(), self.end);
            let child = Actor::client(&self.world, kind, target, self.dice.fork());
            let end = child.end;
            self.child = Some((cx.driver().connect_local(target.addr, child), end));
        }
        self.produce(cx);
        self.oddity(cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if input.is_empty() {
            self.world.borrow_mut().fault(self.end, "data without a byte");
        }
        let whole = input.len();
        match self.kind {
            Kind::Echo | Kind::Replacer => {
                // Two of them would never come to an end.
                if cx.bytes_in() <= ECHOED {
                    self.write(cx, input);
                }
                self.consume(input, whole);
                if matches!(self.kind, Kind::Replacer) && self.dice.below(8) == 7 {
                    self.replace(cx);
                }
            }
            Kind::Frames(length) => {
                while input.len() >= length {
                    if cx.bytes_in() <= ECHOED {
                        self.write(cx, &input[..length]);
                    }
                    self.consume(input, length);
                }
                input.need(length);
            }
            Kind::Skipper => {
                if cx.bytes_in() <= ECHOED {
                    for at in (2..whole).step_by(4) {
                        self.write(cx, &input[at..whole.min(at + 3)]);
                    }
                }
                self.consume(input, whole);
            }
            Kind::Hoarder => {}
            Kind::Nibbler => {
                self.consume(input, 1);
                if !input.is_empty() {
                    cx.pause_reading();
                    cx.resume_reading();
                }
            }
            Kind::Terse => {
                if cx.bytes_in() <= ECHOED {
                    self.write(cx, &input[..1]);
                }
                self.consume(input, whole);
            }
            Kind::Pauser => {
                // What it leaves is shown again when it resumes, without an event.
                self.consume(input, whole.div_ceil(2));
                cx.pause_reading();
                let micros = self.dice.pick(&[0, 1, 900]);
                self.set(cx, RESUME, Duration::from_micros(micros));
            }
            Kind::Relay(_) => {
                if let Some(child) = self.child {
                    self.write_to(cx, child, input);
                }
                self.consume(input, whole);
            }
            Kind::RelayEnd(parent, end) => {
                self.write_to(cx, (parent, end), input);
                self.consume(input, whole);
            }
            Kind::Caster => {
                let them = self.world.borrow().somebody(&self.dice);
                if let Some((end, id)) = them.filter(|_| cx.bytes_in() <= ECHOED) {
                    self.push_to(cx, (id, end), input);
                }
                self.consume(input, whole);
            }
            Kind::Aborter(count) | Kind::Panicker(count) | Kind::Failer(count) => {
                self.consume(input, whole);
                if self.world.borrow().ends[self.end].received.len() >= count {
                    return self.end_badly(cx);
                }
            }
            Kind::Sink | Kind::Producer | Kind::HalfCloser => self.consume(input, whole),
        }
        self.oddity(cx)
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        // Consumed, so that a replacement is not shown it once more.
        let left = rest.len();
        self.consume(rest, left);
        self.world.borrow_mut().ends[self.end].eof = true;
        match self.kind {
            Kind::Relay(_) => match self.child {
                Some((child, _)) if cx.peer(child).is_open() => cx.peer(child).shutdown_write(),
                _ => cx.close(),
            },
            Kind::RelayEnd(parent, _) => {
                cx.peer(parent).close();
                cx.close();
            }
            _ if self.left == 0 => cx.close(),
            // The rest of the stream follows, and then the end.
            _ => self.kind = Kind::Producer,
        }
        self.oddity(cx)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        if cx.is_congested() {
            self.world.borrow_mut().fault(self.end, "drained and congested");
        }
        self.produce(cx);
        self.oddity(cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        match self.set.remove(&timer) {
            Some(earliest) if cx.now() >= earliest => {}
            Some(_) => self.world.borrow_mut().fault(self.end, "a timer fired early"),
            None => self.world.borrow_mut().fault(self.end, "a timer fired that was not set"),
        }
        match timer {
            RESUME => cx.resume_reading(),
            SEND => self.produce(cx),
            _ => {}
        }
        self.oddity(cx)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        if note.get::<u32>() != Some(&7) {
            self.world.borrow_mut().fault(self.end, "a note of another kind");
        }
        self.oddity(cx)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let mut world = self.world.borrow_mut();
        world.ended = Some(cx.id());
        let end = &mut world.ends[self.end];
        end.closed += 1;
        end.reason = Some(reason.clone());
        drop(world);
        match self.kind {
            Kind::Relay(_) => {
                if let Some((child, _)) = self.child {
                    cx.peer(child).close();
                }
            }
            Kind::RelayEnd(parent, _) => cx.peer(parent).close(),
            _ => {}
        }
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        if !self.stays {
            cx.close();
        }
        self.look(cx);
        Ok(())
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.filter.take().map(|toy| Box::new(toy) as Box<dyn Filter>)
    }
}

impl Actor {
    fn end_badly(&self, cx: &mut Context<'_>) -> Outcome {
        match self.kind {
            Kind::Panicker(_) => {
                self.world.borrow_mut().planned_panics += 1;
                panic!("planned");
            }
            Kind::Failer(_) => Err("planned".into()),
            _ => {
                cx.abort();
                Ok(())
            }
        }
    }
}

/// Where a run may listen.
pub(crate) fn place(number: u16) -> SocketAddr {
    ([127, 0, 0, 1], 7000 + number).into()
}
