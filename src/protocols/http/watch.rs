//! The deadlines of a connection: which one holds, and since when.

use std::time::Duration;

use super::Response;
use super::limits::Limits;
use crate::protocol::Context;
use crate::timer::Timer;

/// What a connection waits for; it decides the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of a new connection.
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

/// The idle deadline covers waiting for a first byte, which costs a request nothing. A timer is set
/// only when a head, a body or an answer is not there at once.
#[derive(Debug)]
pub(super) struct Watch {
    phase: Phase,
    /// Milliseconds of the body that lie before `since`.
    before: u32,
    /// Milliseconds of the connection's age from which the body's rate counts.
    since: u64,
    /// Bytes of bodies that have come, counted from 0 again when the rest of one is dropped.
    received: u64,
    /// `received` at `since`; it wraps when counting begins again.
    counted: u64,
    /// The request is answered: the rest of the body is dropped.
    drops: bool,
    /// The body was held back by our own side, by a pause or by flow control.
    kept_back: bool,
}

/// The meaning of a deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Nothing,
    Head,
    Body,
    Answer,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch {
            phase: Phase::Fresh,
            before: 0,
            since: 0,
            received: 0,
            counted: 0,
            drops: false,
            kept_back: false,
        }
    }

    /// The connection is open.
    pub(super) fn open(&mut self, cx: &mut Context<'_>, limits: &Limits) {
        set_idle(cx, limits.head);
    }

    /// Bytes of a body have arrived.
    #[inline]
    pub(super) fn receive(&mut self, count: usize) {
        self.received += count as u64;
    }

    /// The rest of the body is dropped. What has come so far was wanted, and does not count for
    /// that; the deadline stays as it is.
    pub(super) fn drop_body(&mut self) {
        if !self.drops {
            self.drops = true;
            self.counted = self.counted.wrapping_sub(self.received);
            self.received = 0;
        }
    }

    /// Bytes of the body that came since it is dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.received
    }

    /// A head is whole: the deadline of the next one begins with its own first byte.
    #[inline(always)]
    pub(super) fn end_head(&mut self) {
        if self.phase == Phase::Head {
            self.phase = Phase::Own;
        }
    }

    /// A body begins: its rate counts from here.
    pub(super) fn begin_body(&mut self) {
        self.drops = false;
        if self.phase == Phase::Body {
            // Two bodies in a row: the timer belongs to the first.
            self.phase = Phase::Own;
        }
    }

    /// Flow control has ended: it may have held a body back.
    pub(super) fn end_congestion(&mut self) {
        self.kept_back = true;
    }

    /// Time in a pause or in flow control does not count against the client: its time begins again
    /// when that ends. The timer stays; when it fires, it is set for what is left.
    fn notice_pause(&mut self, cx: &Context<'_>) {
        let paused = cx.is_paused();
        if self.kept_back && !paused && self.phase == Phase::Body {
            self.begin_again(millis(cx.age()));
        }
        self.kept_back = paused;
    }

    /// The rate of the body counts from now on.
    fn begin_again(&mut self, now: u64) {
        let before = u64::from(self.before).saturating_add(now.saturating_sub(self.since));
        self.before = u32::try_from(before).unwrap_or(u32::MAX);
        self.since = now;
        self.counted = self.received;
    }

    /// The connection waits for this now.
    #[inline(always)]
    pub(super) fn turn_to(&mut self, phase: Phase, cx: &mut Context<'_>, response: &Response) {
        if phase == Phase::Body {
            self.notice_pause(cx);
        }
        // New limits of the handler removed the deadline of a first byte.
        if self.phase != phase || (phase == Phase::Idle && !cx.has_own_idle()) {
            self.change(phase, cx, response);
        }
    }

    #[inline(never)]
    fn change(&mut self, phase: Phase, cx: &mut Context<'_>, response: &Response) {
        let limits = response.limits();
        let phase = match phase {
            // A note or a timer of the handler does not replace a first request.
            Phase::Idle if response.number() == 0 => Phase::Fresh,
            phase => phase,
        };
        cx.cancel_timer(DEADLINE);
        self.phase = phase;
        match phase {
            Phase::Fresh => return set_idle(cx, limits.head),
            Phase::Idle => return set_idle(cx, limits.keep_alive),
            Phase::Head => cx.set_timer(DEADLINE, limits.head),
            Phase::Body => {
                self.before = 0;
                self.since = millis(cx.age());
                self.counted = self.received;
                cx.set_timer(DEADLINE, self.body_wait(0, limits));
            }
            Phase::Answer => cx.set_timer(DEADLINE, limits.answer),
            Phase::Own => {}
        }
        cx.set_idle(cx.limits().idle);
    }

    /// Milliseconds that the bytes since `since` pay for.
    fn earned(&self, limits: &Limits) -> u64 {
        self.received.wrapping_sub(self.counted).saturating_mul(1000) / u64::from(limits.body_rate)
    }

    /// How long from now a body may go on, `elapsed` milliseconds after `since`.
    fn body_wait(&self, elapsed: u64, limits: &Limits) -> Duration {
        let rate = millis(limits.body_grace).saturating_add(self.earned(limits));
        let total = limits.body_total.map_or(u64::MAX, millis);
        let left = total.saturating_sub(u64::from(self.before));
        Duration::from_millis(rate.min(left).saturating_sub(elapsed))
    }

    /// The timer has fired.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>, limits: &Limits) -> Passed {
        match self.phase {
            Phase::Head => Passed::Head,
            Phase::Answer => Passed::Answer,
            Phase::Body => {
                let now = millis(cx.age());
                let elapsed = now.saturating_sub(self.since);
                let total = limits.body_total.map_or(u64::MAX, millis);
                if u64::from(self.before).saturating_add(elapsed) >= total {
                    return Passed::Body;
                }
                // If the client is not the one who holds the body back, or if it has kept the rate,
                // its time begins again: fast bytes earlier do not excuse silence later.
                let kept_back = cx.is_paused() || cx.is_held() || cx.unsent() > 0;
                if kept_back || self.earned(limits) >= elapsed {
                    self.begin_again(now);
                    cx.set_timer(DEADLINE, self.body_wait(0, limits));
                    return Passed::Nothing;
                }
                let wait = self.body_wait(elapsed, limits);
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

/// Waits for a first byte, for no longer than the connection may be idle.
fn set_idle(cx: &mut Context<'_>, time: Duration) {
    let idle = cx.limits().idle.map_or(time, |idle| idle.min(time));
    cx.set_idle(Some(idle));
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
