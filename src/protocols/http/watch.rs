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
    /// Milliseconds of the connection's age at which the phase began.
    since: u64,
    /// Bytes of the body that came in this phase.
    received: u64,
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
        Watch { phase: Phase::Fresh, since: 0, received: 0 }
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

    /// A body begins: its rate counts from here.
    pub(super) fn begin_body(&mut self) {
        self.received = 0;
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
                self.since = millis(cx.age());
                cx.set_timer(DEADLINE, self.body_wait(0, rules));
            }
            Phase::Answer => cx.set_timer(DEADLINE, rules.answer),
            Phase::Own => {}
        }
        cx.set_idle(cx.limits().idle);
    }

    /// How long from now a body may go on, `elapsed` milliseconds after it began.
    fn body_wait(&self, elapsed: u64, rules: &Rules) -> Duration {
        let earned = self.received.saturating_mul(1000) / u64::from(rules.body_rate);
        let rate = millis(rules.body_grace).saturating_add(earned);
        let total = rules.body_total.map_or(u64::MAX, millis);
        Duration::from_millis(rate.min(total).saturating_sub(elapsed))
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
                if elapsed < total && (cx.is_paused() || cx.is_held() || cx.unsent() > 0) {
                    // It is not the client who keeps the body back: its time begins anew.
                    self.since = now;
                    self.received = 0;
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
