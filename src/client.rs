//! One outgoing connection whose protocol is given back: the core of `connect` of a driver's
//! module.

use std::sync::{Arc, Mutex, PoisonError};

use crate::address::Address;
use crate::error::{Error, Op, Result};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::{CloseKind, CloseReason};

/// Connects and runs `protocol` to its end. `run` has a driver do it.
pub(crate) fn connect<P: Protocol>(
    addr: Address,
    protocol: P,
    run: impl FnOnce(Address, Lent<P>) -> Result<CloseReason>,
) -> Result<(Option<P>, CloseReason)> {
    if let Err(error) = addr.targets() {
        return Err(Error::from_io(Op::Connect, error).with_addr(&addr));
    }
    let returned = Arc::new(Mutex::new(None));
    let protocol = Some(protocol);
    let lent = Lent { protocol, nobody: Nobody, returned: Arc::clone(&returned) };
    let reason = run(addr, lent)?;
    let protocol = returned.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok((protocol, reason))
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
        protocol.closed(cx, reason);
        if reason.kind() != CloseKind::Panicked {
            *self.returned.lock().unwrap_or_else(PoisonError::into_inner) = Some(protocol);
        }
    }

    fn name(&self) -> &str {
        self.protocol.as_ref().map_or(self.nobody.name(), Protocol::name)
    }
}
