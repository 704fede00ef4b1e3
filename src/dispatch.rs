//! The only place that runs a protocol's callbacks: events in, requests out, errors and panics
//! contained.

use crate::connection::{Connection, Consumed};
use crate::filter::Filter;
use crate::guard::{Panic, guarded};
use crate::note::Note;
use crate::protocol::{Callback, Context, Input, Outcome, Protocol, Shared, SocketInfo};
use crate::protocol::{guarded_name, report_error, report_panic};
use crate::reason::{By, Cause, CloseKind, CloseReason};
use crate::timer::Timer;

#[cfg(test)]
mod tests;

/// A connection and its protocol, as a driver lends them for one callback.
pub(crate) struct Called<'a> {
    pub(crate) shared: &'a mut Shared,
    pub(crate) conn: &'a mut Connection,
    pub(crate) protocol: &'a mut dyn Protocol,
    pub(crate) socket: &'a dyn SocketInfo,
}

impl Called<'_> {
    /// Shows `shown` to `data`. Inlined into the read path: it is the hot one.
    #[inline(always)]
    pub(crate) fn data<const TIMED: bool>(self, shown: &[u8], checked: bool) -> Consumed {
        if checked {
            self.conn.handle_grammar(Callback::Data);
        }
        let mut input = Input::new(shown);
        self.run::<TIMED>(Callback::Data, shown, |protocol, cx| protocol.data(cx, &mut input));
        Consumed { left: input.left(), need: input.needed() }
    }

    /// Shows what is left to `eof`.
    pub(crate) fn eof(self, shown: &[u8]) -> Consumed {
        self.conn.handle_grammar(Callback::Eof);
        let mut input = Input::new(shown);
        self.run::<true>(Callback::Eof, shown, |protocol, cx| protocol.eof(cx, &mut input));
        Consumed { left: input.left(), need: 0 }
    }

    pub(crate) fn opened(self) {
        self.run_cold(Callback::Opened, &mut |protocol, cx| protocol.opened(cx));
    }

    pub(crate) fn drained(self) {
        self.run_cold(Callback::Drained, &mut |protocol, cx| protocol.drained(cx));
    }

    pub(crate) fn timeout(self, timer: Timer) {
        self.run_cold(Callback::Timeout, &mut |protocol, cx| protocol.timeout(cx, timer));
    }

    pub(crate) fn notified(self, note: Note) {
        let mut note = Some(note);
        self.run_cold(Callback::Notified, &mut |protocol, cx| match note.take() {
            Some(note) => protocol.notified(cx, note),
            None => Ok(()),
        });
    }

    pub(crate) fn stopping(self) {
        self.run_cold(Callback::Stopping, &mut |protocol, cx| protocol.stopping(cx));
    }

    pub(crate) fn closed(self, reason: &CloseReason) {
        let now = self.shared.clock.exact();
        self.conn.tap_closed(reason, now);
        self.run_cold(Callback::Closed, &mut |protocol, cx| {
            protocol.closed(cx, reason);
            Ok(())
        });
    }

    /// Asks the protocol for a filter, before `opened`. None ends the connection: it panicked.
    pub(crate) fn filter(self) -> Option<Option<Box<dyn Filter>>> {
        let Called { shared, conn, protocol, .. } = self;
        let asked = guarded(|| {
            let mut filter = protocol.filter()?;
            filter.set_clock(shared.clock.wall_clock());
            Some(filter)
        });
        match asked {
            Ok(filter) => Some(filter),
            Err(panic) => {
                shared.metrics.panics += 1;
                let peer = conn.peer();
                log::error!(target: "lariat::dispatch", "filter for {peer} panicked: {panic}");
                conn.end(By::Us, CloseKind::Panicked, Some(Cause::new(panic)));
                None
            }
        }
    }

    /// All callbacks but `data` share one copy of [`Called::run`].
    #[inline(never)]
    fn run_cold(
        self,
        callback: Callback,
        code: &mut dyn FnMut(&mut dyn Protocol, &mut Context<'_>) -> Outcome,
    ) {
        // Off the hot path the order is checked in every build.
        self.conn.handle_grammar(callback);
        self.run::<true>(callback, &[], code);
    }

    /// With `TIMED`, a callback is timed while a slow one is searched for. The hot path is compiled
    /// with and without it, so that a message does not pay for the question.
    #[inline(always)]
    fn run<const TIMED: bool>(
        self,
        callback: Callback,
        shown: &[u8],
        code: impl FnOnce(&mut dyn Protocol, &mut Context<'_>) -> Outcome,
    ) {
        let Called { shared, conn, protocol, socket } = self;
        shared.metrics.callbacks += 1;
        let timed = TIMED && shared.blame.turns > 0;
        let before = if timed { shared.clock.exact() } else { 0 };
        let mut cx = Context { shared, conn, shown, socket, callback };
        // An error is handled inside the guard, so that the straight way out has nothing to look at
        // or drop.
        let result = guarded(|| {
            if let Err(error) = code(&mut *protocol, &mut cx) {
                note_error(&mut cx, &*protocol, error);
            }
        });
        if let Err(panic) = result {
            note_panic(&mut cx, &*protocol, panic);
        }
        if timed {
            let now = cx.shared.clock.exact();
            let took = now.saturating_sub(before);
            let Shared { blame, metrics, .. } = cx.shared;
            let name = guarded_name(|| protocol.name());
            blame.judge((took, now), callback, &name, cx.conn.peer(), metrics);
        }
    }
}

/// Stores the error with the connection, which ends once its requests have been applied.
#[cold]
#[inline(never)]
fn note_error(
    cx: &mut Context<'_>,
    protocol: &dyn Protocol,
    error: Box<dyn std::error::Error + Send + Sync>,
) {
    report_error(cx.callback, protocol.name(), cx.conn.peer(), &*error);
    cx.conn.handle_failure(CloseKind::Protocol, Cause::new(error));
}

#[cold]
#[inline(never)]
fn note_panic(cx: &mut Context<'_>, protocol: &dyn Protocol, panic: Panic) {
    let name = guarded_name(|| protocol.name());
    report_panic(cx.callback, &name, cx.conn.peer(), &panic, &mut cx.shared.metrics);
    cx.conn.handle_failure(CloseKind::Panicked, Cause::new(panic));
}
