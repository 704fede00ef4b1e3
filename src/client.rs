//! One outgoing connection whose protocol is given back: what `connect` of a driver is made of.

use std::sync::{Arc, Mutex, PoisonError};

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::filter::Filter;
use crate::note::Note;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::{CloseKind, CloseReason, Deadline};
use crate::timer::Timer;

/// Connects to the first of the addresses that answers, and runs `protocol` to its end. `run` is
/// one attempt.
pub(crate) fn connect<P: Protocol>(
    addr: &Address,
    protocol: P,
    mut run: impl FnMut(Endpoint, Lent<P>) -> Result<CloseReason>,
) -> Result<(Option<P>, CloseReason)> {
    let addrs = addr.resolve(Op::Connect)?;
    let returned = Arc::new(Mutex::new(None));
    let mut protocol = Some(protocol);
    for (at, next) in addrs.iter().enumerate() {
        let last = at + 1 == addrs.len();
        let lent = Lent { protocol, returned: Arc::clone(&returned), last };
        let reason = run(*next, lent)?;
        protocol = returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        if last || !is_failed_connect(&reason) {
            return Ok((protocol, reason));
        }
    }
    Err(Error::new(ErrorKind::InvalidAddress, Op::Connect).with_addr(addr))
}

fn is_failed_connect(reason: &CloseReason) -> bool {
    matches!(reason.kind(), CloseKind::Connect(_) | CloseKind::TimedOut(Deadline::Connect))
}

/// Lends a protocol to a driver, until `closed`.
///
/// A protocol that panicked is not returned, nor one that another has replaced: it is dropped
/// without `closed`.
pub(crate) struct Lent<P> {
    /// None once it has been returned.
    protocol: Option<P>,
    returned: Arc<Mutex<Option<P>>>,
    /// Whether no other address is left to try: then a failed connect is the protocol's to know.
    last: bool,
}

impl<P: Protocol> Lent<P> {
    fn call(&mut self, call: impl FnOnce(&mut P) -> Outcome) -> Outcome {
        self.protocol.as_mut().map_or(Ok(()), call)
    }
}

impl<P: Protocol> Protocol for Lent<P> {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.call(|protocol| protocol.opened(cx))
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.call(|protocol| protocol.data(cx, input))
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.call(|protocol| protocol.eof(cx, rest))
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.call(|protocol| protocol.drained(cx))
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.call(|protocol| protocol.timeout(cx, timer))
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.call(|protocol| protocol.notified(cx, note))
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let Some(mut protocol) = self.protocol.take() else { return };
        if self.last || !is_failed_connect(reason) {
            protocol.closed(cx, reason);
        }
        if reason.kind() != CloseKind::Panicked {
            *self.returned.lock().unwrap_or_else(PoisonError::into_inner) = Some(protocol);
        }
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.call(|protocol| protocol.stopping(cx))
    }

    fn name(&self) -> &str {
        self.protocol.as_ref().map_or("a protocol that has been returned", Protocol::name)
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.protocol.as_mut().and_then(Protocol::filter)
    }
}
