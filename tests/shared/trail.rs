//! What happens to connections, written down as it happens.

#![allow(dead_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use lariat::{CloseKind, CloseReason, ConnId, Context, Input, Note, Outcome, Protocol, Timer};

use crate::patience::PATIENCE;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Opened(ConnId),
    /// The bytes that were consumed, and how many were unsent afterwards.
    Data(Vec<u8>, usize),
    Eof,
    Drained,
    Timeout,
    Notified,
    Stopping,
    Closed(CloseReason),
}

/// What has happened to the connections that share it, in order.
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<(Mutex<Vec<Step>>, Condvar)>);

impl Trail {
    /// Waits until the steps are such that `tell` has something to say.
    #[track_caller]
    pub(crate) fn wait<T>(&self, mut tell: impl FnMut(&[Step]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut steps = self.0.0.lock().unwrap();
        loop {
            if let Some(told) = tell(&steps) {
                return told;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {PATIENCE:?}: {steps:?}");
            steps = self.0.1.wait_timeout(steps, left).unwrap().0;
        }
    }

    /// Waits for so many steps of a kind.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize, which: fn(&Step) -> bool) {
        self.wait(|steps| (steps.iter().filter(|step| which(step)).count() >= count).then_some(()));
    }

    /// Waits for the id of the connection opened last.
    #[track_caller]
    pub(crate) fn id(&self) -> ConnId {
        self.wait(last_opened)
    }

    /// Waits for the end of the last connection; its reason. No connection was closed twice.
    #[track_caller]
    pub(crate) fn reason(&self) -> CloseReason {
        let (reason, closed, opened) = self.wait(|steps| match steps.last() {
            Some(Step::Closed(reason)) => {
                let opened = count(steps, |step| matches!(step, Step::Opened(_)));
                Some((reason.clone(), count(steps, is_closed), opened))
            }
            _ => None,
        });
        assert!(closed <= opened.max(1), "closed {closed} times: {}", self.names());
        reason
    }

    #[track_caller]
    pub(crate) fn kind(&self) -> CloseKind {
        self.reason().kind()
    }

    // ---- as far as it has come ---------------------------------------------------------------

    /// The id of the connection opened last, if there is one.
    pub(crate) fn opened(&self) -> Option<ConnId> {
        self.look(last_opened)
    }

    pub(crate) fn has_opened(&self) -> bool {
        self.opened().is_some()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.look(|steps| steps.last().is_some_and(is_closed))
    }

    pub(crate) fn has_eof(&self) -> bool {
        self.count(|step| matches!(step, Step::Eof)) > 0
    }

    pub(crate) fn count(&self, which: fn(&Step) -> bool) -> usize {
        self.look(|steps| count(steps, which))
    }

    /// The bytes that were consumed.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.look(|steps| {
            let bytes = steps.iter().filter_map(|step| match step {
                Step::Data(bytes, _) => Some(bytes.as_slice()),
                _ => None,
            });
            bytes.flatten().copied().collect()
        })
    }

    /// The most bytes that were unsent after a callback with input.
    pub(crate) fn most_unsent(&self) -> usize {
        self.look(|steps| {
            let unsent = steps.iter().filter_map(|step| match step {
                Step::Data(_, unsent) => Some(*unsent),
                _ => None,
            });
            unsent.max().unwrap_or(0)
        })
    }

    /// The names of the callbacks. Neighbouring `data` are one, as their cuts are the network's;
    /// `drained` is left out, as it depends on how much the kernel took.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<_> = self.look(|steps| steps.iter().filter_map(name).collect());
        names.dedup();
        names.join(" ")
    }

    fn entry(&self, step: Step) -> Entry<'_> {
        Entry(self, Some(step))
    }

    fn look<T>(&self, look: impl FnOnce(&[Step]) -> T) -> T {
        look(&self.0.0.lock().unwrap())
    }
}

fn name(step: &Step) -> Option<&'static str> {
    match step {
        Step::Opened(_) => Some("opened"),
        Step::Data(..) => Some("data"),
        Step::Eof => Some("eof"),
        Step::Drained => None,
        Step::Timeout => Some("timeout"),
        Step::Notified => Some("notified"),
        Step::Stopping => Some("stopping"),
        Step::Closed(_) => Some("closed"),
    }
}

fn is_closed(step: &Step) -> bool {
    matches!(step, Step::Closed(_))
}

fn count(steps: &[Step], which: fn(&Step) -> bool) -> usize {
    steps.iter().filter(|step| which(step)).count()
}

fn last_opened(steps: &[Step]) -> Option<ConnId> {
    steps.iter().rev().find_map(|step| match step {
        Step::Opened(id) => Some(*id),
        _ => None,
    })
}

/// Writes its step down when its callback is over: whoever waits for the step sees what the
/// callback has done. A callback that panics has run as well.
struct Entry<'a>(&'a Trail, Option<Step>);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let (steps, changed) = &*self.0.0;
        steps.lock().unwrap_or_else(PoisonError::into_inner).extend(self.1.take());
        changed.notify_all();
    }
}

/// `P`, with everything that happens to it written down.
pub(crate) struct Watched<P>(pub(crate) P, pub(crate) Trail);

impl<P: Protocol> Protocol for Watched<P> {
    lariat::forward_protocol! {
        self => self.0;
        pass: name filter;
        own: opened data eof drained timeout notified closed stopping;
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _entry = self.1.entry(Step::Opened(cx.id()));
        self.0.opened(cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut entry = self.1.entry(Step::Data(Vec::new(), 0));
        let mut shown = input.to_vec();
        let result = self.0.data(cx, input);
        shown.truncate(shown.len() - input.len());
        entry.1 = Some(Step::Data(shown, cx.unsent()));
        result
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        let _entry = self.1.entry(Step::Eof);
        self.0.eof(cx, rest)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _entry = self.1.entry(Step::Drained);
        self.0.drained(cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        let _entry = self.1.entry(Step::Timeout);
        self.0.timeout(cx, timer)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let _entry = self.1.entry(Step::Notified);
        self.0.notified(cx, note)
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _entry = self.1.entry(Step::Stopping);
        self.0.stopping(cx)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let _entry = self.1.entry(Step::Closed(reason.clone()));
        self.0.closed(cx, reason);
    }
}
