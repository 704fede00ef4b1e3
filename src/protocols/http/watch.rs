//! The deadlines of a connection: which one holds, and since when.

use std::time::Duration;

use super::rules::Rules;
use crate::protocol::Context;
use crate::timer::Timer;

/// What a connection waits for, which decides its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of a fresh connection.
    Fresh,
    /// The first byte of a further request.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// The beginning of an answer.
    Answer,
    /// Our own side: the rest of an answer, or room in the output.
    Own,
}

/// The one timer of the deadlines.
pub(super) const DEADLINE: Timer = Timer::reserved(0);

/// Waiting for a first byte is left to the idle deadline, which costs a request nothing; a timer is
/// set only when a head, a body or an answer is not there at once.
#[derive(Debug)]
pub(super) struct Watch {
    phase: Phase,
    /// Milliseconds of the body that lie before `since`.
    before: u32,
    /// Milliseconds of the connection's age from which the body's rate counts.
    since: u64,
    /// Bytes of the body that came since it began.
    received: u64,
    /// Those that came before `since`.
    counted: u64,
}

/// What a deadline that has passed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Nothing,
    Head,
    Body,
    Answer,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { phase: Phase::Fresh, before: 0, since: 0, received: 0, counted: 0 }
    }

    /// The connection is open.
    pub(super) fn open(&mut self, cx: &mut Context<'_>, rules: &Rules) {
        cx.set_idle(Some(rules.head));
    }

    /// Bytes of a body have come.
    #[inline]
    pub(super) fn receive(&mut self, count: usize) {
        self.received += count as u64;
    }

    /// Bytes of the body since it began.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// A head is whole: the deadline of the next begins with its own first byte.
    #[inline(always)]
    pub(super) fn end_head(&mut self) {
        if self.phase == Phase::Head {
            self.phase = Phase::Own;
        }
    }

    /// A body begins: its rate counts from here.
    pub(super) fn begin_body(&mut self) {
        self.received = 0;
        self.counted = 0;
        if self.phase == Phase::Body {
            // Two bodies in a row: the timer belongs to the first.
            self.phase = Phase::Own;
        }
    }

    /// The connection waits for this now.
    #[inline(always)]
    pub(super) fn turn_to(&mut self, phase: Phase, cx: &mut Context<'_>, rules: &Rules) {
        if self.phase != phase {
            self.change(phase, cx, rules);
        }
    }

    #[inline(never)]
    fn change(&mut self, phase: Phase, cx: &mut Context<'_>, rules: &Rules) {
        cx.cancel_timer(DEADLINE);
        self.phase = phase;
        match phase {
            Phase::Fresh => return cx.set_idle(Some(rules.head)),
            Phase::Idle => {
                let limit = cx.limits().idle.unwrap_or(Duration::MAX);
                return cx.set_idle(Some(rules.keep_alive.min(limit)));
            }
            Phase::Head => cx.set_timer(DEADLINE, rules.head),
            Phase::Body => {
                self.before = 0;
                self.since = millis(cx.age());
                self.counted = self.received;
                cx.set_timer(DEADLINE, self.body_wait(0, rules));
            }
            Phase::Answer => cx.set_timer(DEADLINE, rules.answer),
            Phase::Own => {}
        }
        cx.set_idle(cx.limits().idle);
    }

    /// Milliseconds for which what has come since `since` is enough.
    fn earned(&self, rules: &Rules) -> u64 {
        (self.received - self.counted).saturating_mul(1000) / u64::from(rules.body_rate)
    }

    /// How long from now a body may go on, `elapsed` milliseconds after `since`.
    fn body_wait(&self, elapsed: u64, rules: &Rules) -> Duration {
        let rate = millis(rules.body_grace).saturating_add(self.earned(rules));
        let total = rules.body_total.map_or(u64::MAX, millis);
        let left = total.saturating_sub(u64::from(self.before));
        Duration::from_millis(rate.min(left).saturating_sub(elapsed))
    }

    /// The timer has fired.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>, rules: &Rules) -> Passed {
        match self.phase {
            Phase::Head => Passed::Head,
            Phase::Answer => Passed::Answer,
            Phase::Body => {
                let now = millis(cx.age());
                let elapsed = now.saturating_sub(self.since);
                let total = rules.body_total.map_or(u64::MAX, millis);
                if u64::from(self.before).saturating_add(elapsed) >= total {
                    return Passed::Body;
                }
                // Where it is not the client who keeps the body back, and where it has kept the
                // rate, its time begins anew: what came fast earlier buys no silence later.
                let kept_back = cx.is_paused() || cx.is_held() || cx.unsent() > 0;
                if kept_back || self.earned(rules) >= elapsed {
                    let before = u64::from(self.before).saturating_add(elapsed);
                    self.before = u32::try_from(before).unwrap_or(u32::MAX);
                    self.since = now;
                    self.counted = self.received;
                    cx.set_timer(DEADLINE, self.body_wait(0, rules));
                    return Passed::Nothing;
                }
                let wait = self.body_wait(elapsed, rules);
                if wait.is_zero() {
                    return Passed::Body;
                }
                cx.set_timer(DEADLINE, wait);
                Passed::Nothing
            }
            Phase::Fresh | Phase::Idle | Phase::Own => Passed::Nothing,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
