//! The protocol of a kept connection.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::keeping::Keeping;
use crate::note::Note;
use crate::protocol::{Boxed, Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::timer::Timer;

/// A protocol whose end is noticed.
pub(super) struct Kept<P> {
    inner: P,
    keeping: Arc<Keeping>,
}

impl<P: Protocol> Kept<P> {
    pub(super) fn new(inner: P, keeping: Arc<Keeping>) -> Kept<P> {
        Kept { inner, keeping }
    }

    /// Runs a callback. A protocol that is to take over is kept as well: this one is dropped then,
    /// and would not notice the end.
    fn run(
        &mut self,
        cx: &mut Context<'_>,
        code: impl FnOnce(&mut P, &mut Context<'_>) -> Outcome,
    ) -> Outcome {
        let outcome = code(&mut self.inner, cx);
        cx.wrap_successors(|protocol| match protocol {
            Boxed::Anywhere(next) => {
                Boxed::Anywhere(Box::new(Kept::new(next, Arc::clone(&self.keeping))))
            }
            Boxed::Here(next) => Boxed::Here(Box::new(Kept::new(next, Arc::clone(&self.keeping)))),
        });
        outcome
    }
}

impl<P: Protocol> Protocol for Kept<P> {
    crate::forward_protocol! {
        self => self.inner;
        pass: name filter;
        own: opened data eof drained timeout notified closed stopping;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.keeping.handle_opened(cx.now());
        self.run(cx, P::opened)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.run(cx, |inner, cx| inner.data(cx, input))
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.run(cx, |inner, cx| inner.eof(cx, rest))
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.run(cx, P::drained)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.run(cx, |inner, cx| inner.timeout(cx, timer))
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.run(cx, |inner, cx| inner.notified(cx, note))
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.run(cx, P::stopping)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let result = catch_unwind(AssertUnwindSafe(|| self.inner.closed(cx, reason)));
        self.keeping.handle_end(&mut cx.driver(), reason);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    }
}
