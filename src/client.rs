//! One outgoing connection whose protocol is given back: the core of `connect` of a driver's
//! module.

use std::sync::{Arc, Mutex, PoisonError};

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::{CloseKind, CloseReason, Deadline};

/// Connects to the first of the addresses that answers, and runs `protocol` to its end. `run` makes
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
        let lent = Lent { protocol, nobody: Nobody, returned: Arc::clone(&returned), last };
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
/// A protocol that panicked is not returned. Neither is one that another has replaced: it is
/// dropped without `closed`.
pub(crate) struct Lent<P> {
    /// None once it has been returned, at the end.
    protocol: Option<P>,
    nobody: Nobody,
    returned: Arc<Mutex<Option<P>>>,
    /// Whether no other address is left to try: then the protocol learns of a failed connect.
    last: bool,
}

/// Stands for a protocol that has been returned: nothing is called after `closed`.
struct Nobody;

impl Protocol for Nobody {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

impl<P: Protocol> Lent<P> {
    fn inner(&mut self) -> &mut dyn Protocol {
        match &mut self.protocol {
            Some(protocol) => protocol,
            None => &mut self.nobody,
        }
    }
}

impl<P: Protocol> Protocol for Lent<P> {
    crate::forward_protocol! {
        self => self.inner();
        pass: opened data eof drained timeout notified stopping filter;
        own: closed name;
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

    fn name(&self) -> &str {
        self.protocol.as_ref().map_or(self.nobody.name(), Protocol::name)
    }
}
