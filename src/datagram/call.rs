//! The only place that calls a protocol of datagrams: errors and panics contained.

use super::{Datagram, DatagramContext, DatagramProtocol, DatagramSocket, State};
use crate::endpoint::Endpoint;
use crate::guard::{Panic, guarded};
use crate::note::Note;
use crate::protocol::{Callback, Outcome, Shared, guarded_name, report_error, report_panic};
use crate::reason::{Cause, CloseKind, CloseReason};
use crate::timer::Timer;

/// A socket and its protocol, as a driver lends them for one callback.
pub(crate) struct Called<'a> {
    pub(crate) shared: &'a mut Shared,
    pub(crate) state: &'a mut State,
    pub(crate) protocol: &'a mut dyn DatagramProtocol,
    pub(crate) socket: &'a dyn DatagramSocket,
}

impl Called<'_> {
    pub(crate) fn opened(self) {
        self.run(Callback::Opened, |protocol, cx| protocol.opened(cx));
    }

    pub(crate) fn datagram(self, datagram: &Datagram<'_>) {
        self.run(Callback::Datagram, |protocol, cx| protocol.datagram(cx, datagram));
    }

    pub(crate) fn refused(self, to: Option<Endpoint>) {
        self.run(Callback::Refused, |protocol, cx| protocol.refused(cx, to));
    }

    pub(crate) fn drained(self) {
        self.run(Callback::Drained, |protocol, cx| protocol.drained(cx));
    }

    pub(crate) fn timeout(self, timer: Timer) {
        self.run(Callback::Timeout, |protocol, cx| protocol.timeout(cx, timer));
    }

    pub(crate) fn notified(self, note: Note) {
        self.run(Callback::Notified, |protocol, cx| protocol.notified(cx, note));
    }

    pub(crate) fn stopping(self) {
        self.run(Callback::Stopping, |protocol, cx| protocol.stopping(cx));
    }

    pub(crate) fn closed(self, reason: &CloseReason) {
        self.run(Callback::Closed, |protocol, cx| {
            protocol.closed(cx, reason);
            Ok(())
        });
    }

    fn run(
        self,
        callback: Callback,
        code: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramContext<'_>) -> Outcome,
    ) {
        let Called { shared, state, protocol, socket } = self;
        shared.metrics.callbacks += 1;
        let timed = shared.blame.turns > 0;
        let before = if timed { shared.clock.exact() } else { 0 };
        let mut cx = DatagramContext { shared, state, socket };
        let result = guarded(|| {
            if let Err(error) = code(&mut *protocol, &mut cx) {
                note_error(&mut cx, &*protocol, callback, error);
            }
        });
        if let Err(panic) = result {
            note_panic(&mut cx, &*protocol, callback, panic);
        }
        if timed {
            let now = cx.shared.clock.exact();
            let took = now.saturating_sub(before);
            let local = cx.local_addr().unwrap_or(Endpoint::Other);
            let Shared { blame, metrics, .. } = cx.shared;
            let name = guarded_name(|| protocol.name());
            blame.judge((took, now), callback, &name, local, metrics);
        }
    }
}

/// Stores the error with the socket, which ends once its requests have been applied.
#[cold]
fn note_error(
    cx: &mut DatagramContext<'_>,
    protocol: &dyn DatagramProtocol,
    callback: Callback,
    error: Box<dyn std::error::Error + Send + Sync>,
) {
    report_error(callback, protocol.name(), cx.id(), &*error);
    cx.state.handle_failure(CloseKind::Protocol, Cause::new(error));
}

#[cold]
fn note_panic(
    cx: &mut DatagramContext<'_>,
    protocol: &dyn DatagramProtocol,
    callback: Callback,
    panic: Panic,
) {
    let name = guarded_name(|| protocol.name());
    report_panic(callback, &name, cx.id(), &panic, &mut cx.shared.metrics);
    cx.state.handle_failure(CloseKind::Panicked, Cause::new(panic));
}
