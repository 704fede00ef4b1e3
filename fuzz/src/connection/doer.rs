//! A protocol that does what the script says, and watches what is done to it.

use std::io::Write;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use lariat::{CloseReason, Context, Filter, Input, Note, Outcome, Protocol, Timer};

use super::model::{Shared, Stage, byte_in, byte_out};
use crate::toy::Toy;

/// Requests in one callback.
const WISHES: usize = 4;

pub(super) struct Doer {
    model: Shared,
    stage: Stage,
    filter: Option<Toy>,
}

/// The simulator's own time.
fn now(cx: &mut Context<'_>) -> Duration {
    cx.driver().wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What a script may bring a callback to.
enum End {
    Fine,
    Error,
    Panic,
}

impl Doer {
    pub(super) fn new(model: &Shared, filter: Option<Toy>) -> Doer {
        Doer { model: Rc::clone(model), stage: Stage::Fresh, filter }
    }

    /// Every callback begins here.
    fn enter(&mut self, cx: &Context<'_>, callback: &str, next: Option<Stage>) {
        let model = &mut *self.model.borrow_mut();
        model.id = Some(cx.id());
        let stage = self.stage;
        model.tell(|| {
            format!(
                "{callback} in {stage:?}, {} unsent, congested {}",
                cx.unsent(),
                cx.is_congested()
            )
        });
        model.rule(next.is_some(), |_| format!("{callback} in {stage:?}"));
        self.stage = next.unwrap_or(stage);
        // The congestion of a broken connection ends with it.
        let breaks = model.cut || model.broken || callback == "closed";
        let settled = !model.congested || cx.is_congested() || callback == "drained";
        model.rule(settled || breaks, |_| {
            format!("{callback}: no longer congested, and drained has not run")
        });
        let most = cx.limits().output_max;
        let within = cx.unsent() <= most || model.filtered;
        model.rule(within, |_| format!("{} unsent of {most}", cx.unsent()));
    }

    fn open(&self) -> Option<Stage> {
        matches!(self.stage, Stage::Open | Stage::AfterEof).then_some(self.stage)
    }

    /// Every callback but `closed` ends here.
    fn act(&mut self, cx: &mut Context<'_>, input: Option<&mut Input<'_>>) -> Outcome {
        let end = self.wish(cx, input);
        self.model.borrow_mut().congested = cx.is_congested();
        match end {
            End::Fine => Ok(()),
            End::Error => Err("planned".into()),
            End::Panic => {
                self.model.borrow_mut().planned_panics += 1;
                // Past the panic hook, which stops the fuzzer.
                resume_unwind(Box::new("planned"))
            }
        }
    }

    // ---- wishes ------------------------------------------------------------------------------

    fn wish(&mut self, cx: &mut Context<'_>, mut input: Option<&mut Input<'_>>) -> End {
        if self.model.borrow().calm {
            cx.resume_reading();
            return End::Fine;
        }
        let wishes = self.model.borrow_mut().script.below(WISHES);
        for _ in 0..wishes {
            let what = self.model.borrow_mut().script.byte();
            self.model.borrow().tell(|| format!("    wish {} {}", what & 31, what >> 5));
            match what & 31 {
                0..3 => self.write(cx),
                3 => {
                    let shown = input.as_deref().map_or(&[][..], |input| &**input);
                    self.echo(cx, shown);
                }
                4 => {
                    if let Some(input) = &mut input {
                        self.consume(input);
                    }
                }
                5 => {
                    if let Some(input) = &mut input {
                        self.need(input);
                    }
                }
                6 | 7 => cx.pause_reading(),
                8 | 9 => cx.resume_reading(),
                10..13 => self.set_timer(cx),
                13 => self.cancel_timer(cx),
                14 => self.replace(cx),
                15 => self.change_limits(cx),
                16 => self.write_by_id(cx),
                17 => {
                    let id = cx.id();
                    cx.peer(id).notify(Note::new(()));
                }
                24..32 => return self.wish_for_an_end(cx, what >> 5),
                _ => {}
            }
        }
        End::Fine
    }

    fn wish_for_an_end(&mut self, cx: &mut Context<'_>, what: u8) -> End {
        self.model.borrow_mut().disturbed = true;
        let id = cx.id();
        match what {
            0 => cx.close(),
            1 => cx.shutdown_write(),
            2 => cx.abort(),
            3 => cx.peer(id).close(),
            4 => cx.peer(id).shutdown_write(),
            5 => cx.peer(id).abort(),
            6 => return End::Error,
            _ => return End::Panic,
        }
        End::Fine
    }

    /// The bytes that it would say next.
    fn speech(&self) -> Vec<u8> {
        let model = &mut *self.model.borrow_mut();
        let (count, from) = (model.length(), model.said.len());
        (from..from + count).map(byte_out).collect()
    }

    fn write(&self, cx: &mut Context<'_>) {
        let bytes = self.speech();
        let how = self.model.borrow_mut().script.below(3);
        self.written(cx, &bytes, |cx| match how {
            0 => cx.write(&bytes),
            1 => cx.write_bytes(bytes.clone()),
            _ => drop(cx.writer().write_all(&bytes)),
        });
    }

    fn write_by_id(&self, cx: &mut Context<'_>) {
        let bytes = self.speech();
        let how = self.model.borrow_mut().script.below(2);
        let id = cx.id();
        self.written(cx, &bytes, |cx| match how {
            0 => cx.peer(id).write(&bytes),
            _ => cx.peer(id).push(bytes.clone()),
        });
    }

    fn echo(&self, cx: &mut Context<'_>, shown: &[u8]) {
        let count = self.model.borrow_mut().script.length(shown.len());
        self.written(cx, &shown[..count], |cx| cx.write(&shown[..count]));
    }

    /// What was written is taken whole, or not at all.
    fn written(&self, cx: &mut Context<'_>, bytes: &[u8], write: impl FnOnce(&mut Context<'_>)) {
        let before = cx.unsent();
        write(cx);
        let took = cx.unsent() - before;
        let model = &mut *self.model.borrow_mut();
        let whole = took == bytes.len() || took == 0;
        model.rule(whole, |_| format!("{took} of {} bytes were taken", bytes.len()));
        model.rule(took == 0 || model.closed == 0, |_| "a write in closed was taken".into());
        if took > 0 {
            model.said.extend_from_slice(bytes);
        }
        if model.closed == 0 {
            model.written += bytes.len();
            model.disturbed |= took < bytes.len();
        }
    }

    fn consume(&self, input: &mut Input<'_>) {
        let whole = input.len();
        let model = &mut *self.model.borrow_mut();
        let count = match model.script.below(4) {
            0 => whole,
            1 => whole / 2,
            2 => whole.min(1),
            _ => model.script.length(whole),
        };
        if count % 2 == 0 {
            input.consume(count);
        } else {
            drop(input.split_to(count));
        }
        model.consumed += count;
    }

    fn need(&self, input: &mut Input<'_>) {
        let model = &mut *self.model.borrow_mut();
        let count = model.length();
        input.need(count);
        model.needed = count;
    }

    fn set_timer(&self, cx: &mut Context<'_>) {
        let model = &mut *self.model.borrow_mut();
        let timer = Timer::new(model.script.below(3) as u16);
        let delay = match model.script.below(8) {
            0 => Duration::ZERO,
            1 => Duration::MAX,
            2 => Duration::from_nanos(1),
            more => Duration::from_micros(1 << (more * 3)),
        };
        cx.set_timer(timer, delay);
        model.timers.insert(timer, now(cx).saturating_add(delay));
    }

    fn cancel_timer(&self, cx: &mut Context<'_>) {
        let model = &mut *self.model.borrow_mut();
        let timer = Timer::new(model.script.below(3) as u16);
        let was_set = cx.cancel_timer(timer);
        let known = model.timers.remove(&timer).is_some();
        // A connection that has ended has cancelled them itself.
        let right = was_set == known || model.closed > 0;
        model.rule(right, |_| format!("{timer} was set: {was_set}, and should be: {known}"));
    }

    fn replace(&self, cx: &mut Context<'_>) {
        let what = self.model.borrow_mut().script.below(8);
        let filter = (what & 3 == 3).then(Toy::server);
        let model = &mut *self.model.borrow_mut();
        if filter.is_some() {
            model.refiltered = true;
            model.honest = false;
            model.disturbed = true;
        }
        let mut successor = cx.replace_local(Doer::new(&self.model, filter));
        if what & 4 != 0 {
            successor.feed_unread();
        }
    }

    fn change_limits(&self, cx: &mut Context<'_>) {
        let model = &mut *self.model.borrow_mut();
        let mut limits = model.limits();
        // What is queued already stays within the bound.
        limits.output_max = limits.output_max.max(cx.limits().output_max);
        if let Err(error) = cx.set_limits(limits) {
            model.fault(error.to_string());
        }
    }

    // ---- input -------------------------------------------------------------------------------

    /// All that is unread is shown, from the first byte on.
    fn look_at(&self, input: &Input<'_>) {
        let model = &mut *self.model.borrow_mut();
        if !model.honest {
            return;
        }
        let from = model.consumed;
        let end = from + input.len();
        // A protocol that takes over after `eof` is not shown again what was lost there.
        model.shown = model.shown.max(end);
        model.rule(end <= model.offered, |m| format!("{end} bytes shown of {}", m.offered));
        let wrong = input.iter().zip(from..).find(|(byte, place)| **byte != byte_in(*place));
        model.rule(wrong.is_none(), |_| format!("a wrong byte is shown at {wrong:?}"));
    }

    /// What a `data` or `eof` leaves decides what may come next.
    fn leave(&self) {
        let model = &mut *self.model.borrow_mut();
        if model.needed > 0 {
            model.needed += model.consumed;
        }
    }
}

impl Protocol for Doer {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        // A protocol that takes over begins again.
        let next = (self.stage == Stage::Fresh).then_some(Stage::Open);
        {
            let model = &mut *self.model.borrow_mut();
            model.timers.clear();
            model.congested = cx.is_congested();
        }
        self.enter(cx, "opened", next);
        self.act(cx, None)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let next = (self.stage == Stage::Open).then_some(Stage::Open);
        self.enter(cx, "data", next);
        self.model.borrow_mut().needed = 0;
        self.model.borrow_mut().rule(!input.is_empty(), |_| "data without a byte".to_owned());
        self.look_at(input);
        if self.model.borrow().calm || self.model.borrow_mut().script.below(4) == 0 {
            self.model.borrow_mut().consumed += input.len();
            input.consume_all();
        }
        let outcome = self.act(cx, Some(input));
        self.leave();
        outcome
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        let next = (self.stage == Stage::Open).then_some(Stage::AfterEof);
        self.enter(cx, "eof", next);
        self.model.borrow_mut().heard = true;
        self.look_at(rest);
        if self.model.borrow().calm {
            self.model.borrow_mut().consumed += rest.len();
            rest.consume_all();
            cx.close();
        }
        self.act(cx, Some(rest))
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        let next = self.open();
        self.enter(cx, "drained", next);
        {
            let model = &mut *self.model.borrow_mut();
            model.rule(!cx.is_congested(), |_| "drained and congested".to_owned());
            let known = model.congested || model.outside > 0;
            model.rule(known, |_| "drained without congestion".to_owned());
        }
        self.act(cx, None)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        let next = self.open();
        self.enter(cx, "timeout", next);
        let (now, due) = (now(cx), self.model.borrow_mut().timers.remove(&timer));
        if due.is_none_or(|due| due > now) {
            let fault = format!("{timer} fired at {now:?}, due at {due:?}");
            self.model.borrow_mut().fault(fault);
        }
        self.act(cx, None)
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: Note) -> Outcome {
        let next = self.open();
        self.enter(cx, "notified", next);
        self.act(cx, None)
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        let next = self.open();
        self.enter(cx, "stopping", next);
        self.act(cx, None)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let next = (self.stage != Stage::Over).then_some(Stage::Over);
        self.enter(cx, "closed", next);
        {
            let model = &mut *self.model.borrow_mut();
            model.closed += 1;
            model.timers.clear();
            model.reason = Some(reason.clone());
        }
        drop(self.act(cx, None));
        self.model.borrow_mut().timers.clear();
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.filter.take().map(|toy| Box::new(toy) as Box<dyn Filter>)
    }
}
