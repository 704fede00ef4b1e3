//! What callbacks wished for beyond their own connection, carried out by the thread that called
//! them. No lock is held when an effect begins.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use super::cell::Cell;
use super::hub::{Hub, lock};
use super::worker::Worker;
use super::{enter_connect, run_connect};
use crate::connection::{Connection, Flags};
use crate::dispatch::Called;
use crate::guard::drop_guarded;
use crate::id::ConnId;
use crate::limits::Limits;
use crate::note::Note;
use crate::protocol::{Boxed, Content, Effect, NoSocket, Protocol, Shared};
use crate::reason::{By, CloseKind, ConnectFailure};

/// What begins only when all effects of a callback have been applied, so that a connect, a write
/// and a close in one callback mean the same on every driver. It may block.
#[derive(Default)]
pub(super) struct Later {
    /// Receivers of what answers input, which its writer sends itself.
    drains: Vec<Arc<Cell>>,
    nudges: Vec<Arc<Cell>>,
    connects: Vec<(Arc<Cell>, SocketAddr)>,
}

/// Applies what the last callback wished for. It waits for nothing but the locks of others, one at
/// a time, so that the next callback need not wait long.
pub(super) fn apply(worker: &mut Worker) -> Later {
    let mut later = Later::default();
    let (_, _, shared) = worker.parts();
    let mut list = mem::take(&mut shared.effects.list);
    let mut bytes = mem::take(&mut shared.effects.bytes);
    for effect in list.drain(..) {
        match effect {
            Effect::Write { to, content, caused } => {
                write_to(worker, &mut later, to, content, &bytes, caused);
            }
            Effect::ShutdownWrite(id) => wish(worker, &mut later, id, Connection::want_fin),
            Effect::Close(id) => wish(worker, &mut later, id, Connection::want_close),
            Effect::Abort(id) => wish(worker, &mut later, id, Connection::want_abort),
            Effect::Notify { to, note } => notify(worker, &mut later, to, note),
            Effect::Connect { id, addr, limits, protocol } => {
                let limits = limits.unwrap_or_else(|| worker.limits());
                connect(worker, &mut later, id, addr, limits, protocol);
            }
            Effect::StopListening(listener) => worker.parts().0.stop_listening(listener),
            Effect::Stop => worker.parts().0.shutdown(),
            // Taken out before the lock was given up.
            Effect::Replace(next) => {
                drop_guarded(next.protocol.here());
            }
        }
    }
    bytes.clear();
    let (_, _, shared) = worker.parts();
    // What a local connect's `closed` wished for comes behind.
    list.append(&mut shared.effects.list);
    shared.effects.list = list;
    shared.effects.bytes = bytes;
    later
}

/// Carries out what may block, or begins something new.
pub(super) fn carry_out(worker: &mut Worker, later: Later) {
    let hub = Arc::clone(worker.parts().0);
    for (cell, addr) in later.connects {
        run_connect(&hub, cell, addr);
    }
    for cell in later.nudges {
        cell.nudge(&hub);
    }
    for cell in later.drains {
        worker.drain(&cell);
        // `drained`, a FIN that waited and the end are for the receiver's own threads.
        let due =
            Flags::DRAINED_DUE | Flags::FIN_WANTED | Flags::CLOSING | Flags::BROKEN | Flags::ENDED;
        if lock(&cell.member).conn.flags().any(due) {
            cell.nudge(&hub);
        }
    }
}

fn wish(worker: &mut Worker, later: &mut Later, id: ConnId, wish: impl FnOnce(&mut Connection)) {
    let (hub, _, shared) = worker.parts();
    let Some(cell) = hub.cell(id) else {
        shared.metrics.stale += 1;
        return;
    };
    let mut member = lock(&cell.member);
    wish(&mut member.conn);
    // At once: a callback that runs before its threads look must find the connection closed.
    member.conn.handle_wishes(&mut shared.chunks, shared.clock.exact(), false);
    drop(member);
    later.nudges.push(cell);
}

fn notify(worker: &mut Worker, later: &mut Later, to: ConnId, note: Note) {
    let mut back = None;
    wish(worker, later, to, |conn| back = conn.handle_note(note).err());
    if let Some(note) = back {
        worker.parts().2.metrics.refused_notes += 1;
        drop_guarded(note);
    }
}

/// Queues bytes for another connection. A writer that answers input writes them out itself, and so
/// is slowed down by a slow receiver; else the receiver's companion does.
fn write_to(
    worker: &mut Worker,
    later: &mut Later,
    to: ConnId,
    content: Content,
    bytes: &[u8],
    caused: bool,
) {
    let (hub, _, shared) = worker.parts();
    let Some(cell) = hub.cell(to) else {
        shared.metrics.stale += 1;
        return;
    };
    let count = match &content {
        Content::Copied(range) => range.len(),
        Content::Shared(bytes) => bytes.len(),
    };
    if count == 0 {
        return;
    }
    let mut member = lock(&cell.member);
    if member.conn.flags().any(Flags::NO_WRITES) {
        shared.metrics.refused_bytes += count as u64;
        member.conn.handle_refused(count);
        return;
    }
    if !member.conn.check_marks(count) {
        member.conn.want_overflow();
        member.conn.lose_output(count);
        member.conn.handle_wishes(&mut shared.chunks, shared.clock.exact(), false);
        drop(member);
        return later.nudges.push(cell);
    }
    let tick = shared.clock.exact();
    match content {
        Content::Copied(range) => member.conn.queue(&bytes[range], &mut shared.chunks, tick),
        Content::Shared(bytes) => member.conn.queue_shared(bytes, tick),
    };
    let open = member.conn.flags().none(Flags::CONNECTING | Flags::HANDSHAKING);
    drop(member);
    let later = if caused && open { &mut later.drains } else { &mut later.nudges };
    later.push(cell);
}

fn connect(
    worker: &mut Worker,
    later: &mut Later,
    id: ConnId,
    addr: SocketAddr,
    limits: Arc<Limits>,
    protocol: Boxed,
) {
    let (hub, cell, shared) = worker.parts();
    // Whoever connects anew in the `closed` of a connect that came too late would do so for ever.
    if lock(&cell.member).conn.flags().any(Flags::LATE) {
        hub.forget(id);
        drop_guarded(protocol.here());
        return;
    }
    match protocol {
        Boxed::Anywhere(protocol) => {
            later.connects.push((enter_connect(hub, id, addr, limits, protocol), addr));
        }
        Boxed::Here(protocol) => refuse_local(hub, shared, id, addr, limits, protocol),
    }
}

/// A protocol that may not leave this thread cannot have one of its own.
fn refuse_local(
    hub: &Arc<Hub>,
    shared: &mut Shared,
    id: ConnId,
    addr: SocketAddr,
    limits: Arc<Limits>,
    mut protocol: Box<dyn Protocol>,
) {
    let mut conn = Connection::connecting(id, addr, limits, shared.clock.exact());
    conn.end(By::Runtime, CloseKind::Connect(ConnectFailure::Unsupported), None);
    if let Some(reason) = conn.poll_closed(shared.clock.exact()) {
        let called =
            Called { shared, conn: &mut conn, protocol: &mut *protocol, socket: &NoSocket };
        called.closed(&reason);
        shared.output.clear();
        shared.metrics.closes.count(reason.kind());
    }
    drop_guarded(protocol);
    hub.forget(id);
}
