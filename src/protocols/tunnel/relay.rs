//! One end of a tunnel: what comes here goes to the other one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ConnectError, End, OnEnd, Summary};
use crate::address::Address;
use crate::id::ConnId;
use crate::note::Note;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::{CloseKind, CloseReason};

/// The client's end, and the target's.
const NEAR: usize = 0;
const FAR: usize = 1;

/// Tells the client's end that there is no connection to the target.
pub(super) struct Unreached(pub(super) ConnectError);

/// One end. That of the target is a protocol of its own; [`Tunnel`](super::Tunnel) has the other.
pub(super) struct Relay {
    side: usize,
    other: ConnId,
    opened: bool,
    /// Bytes that came here and were handed to the other end.
    received: u64,
    /// Bytes that had been written to this connection before.
    before: u64,
    both: Arc<Mutex<Both>>,
}

/// What both ends have in common. It is looked at when something opens, finishes or ends, and never
/// for a message.
struct Both {
    target: Address,
    /// Which ends have got a FIN and passed it on.
    finished: [bool; 2],
    ended: [Option<End>; 2],
    on_end: Option<OnEnd>,
}

impl Relay {
    /// Both ends; `header` bytes are written to the target first. The id of the target's connection
    /// is known only when that end is handed over: see [`Relay::joined_with`].
    pub(super) fn pair(cx: &mut Context<'_>, target: Address, header: usize) -> (Relay, Relay) {
        let both = Both { target, finished: [false; 2], ended: [None, None], on_end: None };
        let both = Arc::new(Mutex::new(both));
        let before = cx.bytes_out() + cx.unsent() as u64;
        let end = |side, opened, before| Relay {
            side,
            other: cx.id(),
            opened,
            received: 0,
            before,
            both: Arc::clone(&both),
        };
        (end(NEAR, true, before), end(FAR, false, header as u64))
    }

    pub(super) fn joined_with(self, other: ConnId, on_end: Option<OnEnd>) -> Relay {
        self.both().on_end = on_end;
        Relay { other, ..self }
    }

    fn both(&self) -> MutexGuard<'_, Both> {
        // Nothing that could panic runs under the lock.
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the end of this connection means to the other one.
    fn end_other(&self, cx: &mut Context<'_>, reason: &CloseReason, finished: [bool; 2]) {
        let mut other = cx.peer(self.other);
        match reason.kind() {
            _ if !self.opened => {
                let error = ConnectError::new(self.both().target.clone(), reason.clone());
                other.notify(Note::new(Unreached(error)));
            }
            // The other one is sending its last bytes, for which it has all the time it needs.
            CloseKind::Finished if finished == [true, true] => {}
            CloseKind::Finished => other.close(),
            _ => other.abort(),
        }
    }
}

impl Protocol for Relay {
    fn opened(&mut self, _: &mut Context<'_>) -> Outcome {
        self.opened = true;
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.peer(self.other).write(input);
        self.received += input.len() as u64;
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        self.both().finished[self.side] = true;
        cx.peer(self.other).shutdown_write();
        Ok(())
    }

    fn stopping(&mut self, _: &mut Context<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let sent = reason.bytes_out().saturating_sub(self.before);
        let end = End::new(cx.peer_addr(), reason, self.received, sent);
        let mut both = self.both();
        both.ended[self.side] = Some(end);
        let finished = both.finished;
        let [Some(_), Some(_)] = both.ended else {
            drop(both);
            return self.end_other(cx, reason, finished);
        };
        let [client, target] = std::mem::take(&mut both.ended);
        let (addr, on_end) = (both.target.clone(), both.on_end.take());
        drop(both);
        if let (Some(client), Some(code)) = (client, on_end) {
            code(&mut cx.driver(), &Summary::new(addr, client, target));
        }
    }

    fn name(&self) -> &str {
        "the target's end of a tunnel"
    }
}
