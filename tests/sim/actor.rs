//! A protocol that behaves in one of many ways, and now and then does anything at all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::Choices;
use lariat::{
    CloseKind, CloseReason, ConnId, Context, Deadline, Filter, Input, Note, Outcome, Protocol,
    Timer,
};

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
    /// Answers each byte with many, as long as there is room for more, and leaves the rest.
    Patient,
    /// Ends in its own way after so many bytes.
    Aborter(usize),
    Panicker(usize),
    Failer(usize),
}

impl Kind {
    pub(crate) fn any(dice: &Choices, targets: &[Target]) -> Kind {
        let count = dice.within(0..3_000);
        match dice.below(19) {
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
            17 => Kind::Patient,
            _ => Kind::Echo,
        }
    }
}

const SEND: Timer = Timer::new(1);
const RESUME: Timer = Timer::new(2);
const ODD: u16 = 10;
/// Bytes of input that are answered.
const ECHOED: u64 = 100_000;
/// What a patient one answers to a byte.
const ANSWER: usize = 700;
/// Times are kept to this, but for stops of the process and clocks that stand still.
const SLACK: Duration = Duration::from_secs(1);

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
    /// When each timer may fire at the earliest, and how many were set before it.
    set: BTreeMap<Timer, (Instant, u64)>,
    sets: u64,
    /// Whether it has had other limits.
    limits_changed: bool,
    /// So many bytes must be there before it is shown any.
    needs: usize,
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
            sets: 0,
            limits_changed: false,
            needs: 0,
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
            let mut world = self.world.borrow_mut();
            world.ends[end].sent.extend_from_slice(bytes);
            world.ends[self.end].written_to.insert(end);
            drop(world);
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
            self.finish(cx);
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn set(&mut self, cx: &mut Context<'_>, timer: Timer, delay: Duration) {
        self.sets += 1;
        // Without a delay it is due with all that were due by the last whole millisecond.
        let since = cx.now() - self.world.borrow().began;
        let within = if delay.is_zero() { since.subsec_nanos() % 1_000_000 } else { 0 };
        let due = cx.now() + delay - Duration::from_nanos(within.into());
        self.set.insert(timer, (due, self.sets));
        cx.set_timer(timer, delay);
    }

    /// A timer has fired: not early, and behind those that were due before it.
    fn judge_timer(&mut self, cx: &Context<'_>, timer: Timer) {
        let Some(fired) = self.set.remove(&timer) else {
            return self.world.borrow_mut().fault(self.end, "a timer fired that was not set");
        };
        if cx.now() < fired.0 {
            self.world.borrow_mut().fault(self.end, "a timer fired early");
        }
        if self.set.values().any(|other| *other < fired) {
            self.world.borrow_mut().fault(self.end, "a timer fired before an earlier one");
        }
    }

    fn soon(&self) -> Duration {
        let micros = self.dice.pick(&[0, 1, 900, 5_000, 60_000, 400_000]);
        Duration::from_micros(micros)
    }

    // ---- anything at all ---------------------------------------------------------------------

    fn look(&self, cx: &mut Context<'_>) {
        let turn = cx.driver().metrics().turns;
        let mut world = self.world.borrow_mut();
        world.ends[self.end].last_turn = Some(turn);
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
        let mut world = self.world.borrow_mut();
        let end = &mut world.ends[self.end];
        end.greedy = greedy;
        // A limit that was ever shorter may have ended it.
        let idle = cx.limits().idle;
        end.silence = idle.map(|idle| end.silence.map_or(idle, |before| before.min(idle)));
    }

    /// What `data` and `eof` may show, and when.
    fn judge_input(&mut self, cx: &Context<'_>, input: &Input<'_>, last: bool) {
        let mut world = self.world.borrow_mut();
        let end = &mut world.ends[self.end];
        let there = end.received.len() + input.len();
        let before = std::mem::replace(&mut end.shown, there);
        // What is shown again is no sign of life.
        if there > before {
            end.heard_at = cx.age();
        }
        if last && there > before {
            world.fault(self.end, &format!("eof shows {} new bytes", there - before));
        }
        if !last && input.len() < self.needs && !cx.peer_finished() {
            let what = format!("shown {} bytes and needs {}", input.len(), self.needs);
            world.fault(self.end, &what);
        }
        self.needs = 0;
    }

    /// The protocol asks for its own close.
    fn close(&self, cx: &mut Context<'_>) {
        let most = cx.limits().close_deadline;
        self.world.borrow_mut().ends[self.end].closing.get_or_insert((cx.age(), most));
        cx.close();
    }

    fn finish(&self, cx: &mut Context<'_>) {
        self.world.borrow_mut().ends[self.end].says_fin = true;
        cx.shutdown_write();
    }

    /// What holds for every end and its times.
    fn judge_end(&self, reason: &CloseReason, turn: u64) {
        let mut world = self.world.borrow_mut();
        let end = &world.ends[self.end];
        let mut faults = Vec::new();
        // One that had ended before it was aborted hears of that in this turn.
        let aborted = reason.kind() == CloseKind::Aborted && end.aborted_turn == Some(turn);
        if aborted || end.last_turn == Some(turn) {
            faults.push("closed in the turn of its end".to_owned());
        }
        if let Some((began, most)) = end.closing {
            let took = reason.age().saturating_sub(began);
            if took > most + SLACK {
                faults.push(format!("its close took {took:?} of {most:?}"));
            }
        }
        if let (CloseKind::TimedOut(Deadline::Idle), Some(silence)) = (reason.kind(), end.silence) {
            let silent = reason.age().saturating_sub(end.heard_at);
            if end.opened > 0 && silent < silence {
                faults.push(format!("idle for {silent:?} of {silence:?}"));
            }
        }
        faults.iter().for_each(|what| world.fault(self.end, what));
    }

    fn oddity(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.look(cx);
        if self.odd > 0 && self.world.borrow().has_freed(cx.driver().metrics().turns) {
            // Who asks for a slot in the turn in which one was given back?
            if self.dice.chance(100) {
                self.connect(cx);
            }
        }
        let odd = self.dice.chance(self.odd);
        if !odd || !self.world.borrow().busy {
            return Ok(());
        }
        let what = self.dice.below(19);
        match what {
            0 => self.close(cx),
            1 => cx.abort(),
            2 => self.finish(cx),
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
                // One, or several that are due together.
                let soon = self.soon();
                let first = self.dice.below(3);
                for more in 0..1 + self.dice.below(3) {
                    let timer = Timer::new(ODD + ((first + more) % 3) as u16);
                    self.set(cx, timer, soon);
                }
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
                self.limits_changed = true;
                self.note_greed(cx);
                if let Some((_, most)) = &mut self.world.borrow_mut().ends[self.end].closing {
                    // The close that this callback has asked for begins when it is over.
                    *most = cx.limits().close_deadline;
                }
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
            12 => {
                for _ in 0..1 + self.dice.below(6) {
                    cx.peer(them.1).notify(Note::new(7u32));
                }
            }
            13 => cx.peer(them.1).close(),
            14 => cx.peer(them.1).shutdown_write(),
            15 => self.push_to(cx, (them.1, them.0), &bytes),
            16 => {
                let turn = cx.driver().metrics().turns;
                // The first abort is the end; another before `closed` changes nothing.
                self.world.borrow_mut().ends[them.0].aborted_turn.get_or_insert(turn);
                cx.peer(them.1).abort();
            }
            _ => {
                // Copies of its own bytes, one behind the other, to more than one.
                self.write_to(cx, (them.1, them.0), &bytes);
                for _ in 0..self.dice.below(3) {
                    let next = self.world.borrow().somebody(&self.dice);
                    let Some((end, id)) = next else { break };
                    let count = 1 + self.dice.within(0..60);
                    let bytes = self.world.borrow().stream(end, count);
                    self.write_to(cx, (id, end), &bytes);
                }
            }
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
        let id = cx.driver().connect_local(target.addr, client);
        let turn = cx.driver().metrics().turns;
        self.world.borrow_mut().judge_slot(self.end, id, turn);
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
        self.judge_input(cx, input, false);
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
                self.needs = length;
            }
            Kind::Patient => {
                let mut taken = 0;
                while taken < whole && !cx.is_congested() {
                    let bytes = self.world.borrow().stream(self.end, ANSWER);
                    if cx.bytes_in() <= ECHOED / 10 {
                        self.write(cx, &bytes);
                    }
                    taken += 1;
                }
                self.consume(input, taken);
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
        self.judge_input(cx, rest, true);
        if matches!(self.kind, Kind::Patient) && !rest.is_empty() {
            self.world.borrow_mut().fault(self.end, "eof before what congestion kept back");
        }
        // Consumed, so that a replacement is not shown it once more.
        let left = rest.len();
        self.consume(rest, left);
        self.world.borrow_mut().ends[self.end].eof = true;
        match self.kind {
            Kind::Relay(_) => match self.child {
                Some((child, _)) if cx.peer(child).is_open() => cx.peer(child).shutdown_write(),
                _ => self.close(cx),
            },
            Kind::RelayEnd(parent, _) => {
                cx.peer(parent).close();
                self.close(cx);
            }
            _ if self.left == 0 => self.close(cx),
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
        self.judge_timer(cx, timer);
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
        let turn = cx.driver().metrics().turns;
        let mut world = self.world.borrow_mut();
        let noted = &mut world.ends[self.end].noted;
        *noted = if noted.0 == turn { (turn, noted.1 + 1) } else { (turn, 1) };
        if noted.1 > cx.limits().notes_max && !self.limits_changed {
            let what = format!("{} notes in a turn", noted.1);
            world.fault(self.end, &what);
        }
        drop(world);
        self.oddity(cx)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let turn = cx.driver().metrics().turns;
        self.judge_end(reason, turn);
        let mut world = self.world.borrow_mut();
        world.note_ended(cx.id(), turn);
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
        self.look(cx);
        if !self.stays {
            self.close(cx);
        }
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
