//! What callbacks and closures wished for beyond their own connection, carried out by the thread
//! that called them. No lock is held when an effect begins.

use std::mem;
use std::sync::Arc;

use super::accept::Acceptor;
use super::cell::Cell;
use super::hub::{Hub, Socket, lock};
use super::mail::{Queued, Tools};
use super::worker::Worker;
use super::{enter_connect, run_connect};
use crate::connection::{Connection, Flags, Written};
use crate::dispatch::Called;
use crate::endpoint::Endpoint;
use crate::guard::drop_guarded;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::options::Dial;
use crate::protocol::{Bound, Boxed, BoxedFactory, Effect, NoSocket, Outgoing, Protocol, Shared};
use crate::reason::{By, CloseKind, ConnectFailure};

/// Whose wishes these are: a callback's of a connection, or a closure's.
pub(super) struct Author<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) shared: &'a mut Shared,
    pub(super) cell: Option<&'a Arc<Cell>>,
}

/// What begins only when all effects of a callback have been applied, so that a connect, a write
/// and a close in one callback mean the same on every driver. It may block.
#[derive(Default)]
pub(super) struct Later {
    /// Receivers of what answers input, which its writer sends itself.
    drains: Vec<Arc<Cell>>,
    nudges: Vec<Arc<Cell>>,
    connects: Vec<(Arc<Cell>, Dial)>,
    acceptors: Vec<Acceptor>,
    locals: Vec<Local>,
}

/// A connect for a protocol that may not leave this thread, and so cannot have one of its own.
pub(super) type Local = Outgoing<Box<dyn Protocol>>;

/// Applies what the last callback wished for. It waits for nothing but the locks of others, one at
/// a time, so that the next callback need not wait long.
pub(super) fn apply(author: &mut Author<'_>) -> Later {
    let mut later = Later::default();
    apply_list(author, &mut later, true);
    // What their `closed` wishes for has lists of its own.
    for local in mem::take(&mut later.locals) {
        refuse_local(author, local);
        apply_list(author, &mut later, false);
    }
    later
}

/// Applies the list as it is now. `locals`: whether a protocol that may not leave this thread is
/// told why it cannot be connected. Whoever connects anew in that `closed` would do so for ever,
/// and is dropped untold.
fn apply_list(author: &mut Author<'_>, later: &mut Later, locals: bool) {
    let (mut list, bytes) = author.shared.effects.take();
    for effect in list.drain(..) {
        match effect {
            Effect::Write { to, content, caused } => {
                write_to(author, later, to, content.written(&[], &bytes), caused);
            }
            Effect::ShutdownWrite(id) => wish(author, later, id, Connection::want_fin),
            Effect::Close(id) => wish(author, later, id, Connection::want_close),
            Effect::Abort(id) => wish(author, later, id, Connection::want_abort),
            Effect::Notify { to, note } => notify(author, later, to, note),
            Effect::Connect(outgoing) => {
                let Outgoing { id, addr, limits, options, protocol } = *outgoing;
                match protocol {
                    Boxed::Here(protocol) if locals => {
                        later.locals.push(Local { id, addr, limits, options, protocol });
                    }
                    Boxed::Here(protocol) => {
                        author.hub.forget(id);
                        drop_guarded(protocol);
                    }
                    Boxed::Anywhere(protocol) => {
                        let outgoing = Outgoing { id, addr, limits, options, protocol };
                        connect(author, later, outgoing);
                    }
                }
            }
            Effect::Listen { id, sockets, limits, factory } => {
                later.acceptors.extend(listen(author.hub, id, sockets, limits, factory));
            }
            Effect::StopListening(listener) => author.hub.stop_listening(listener),
            Effect::Stop => author.hub.shutdown(),
            // Taken out before the lock was given up.
            Effect::Replace(next) => {
                drop_guarded(next.protocol.here());
            }
        }
    }
    // Nothing above calls a protocol, so that the lists are still empty.
    author.shared.effects.put_back((list, bytes));
}

impl Later {
    /// Begins what is new. Returns what is left: output that its writer sends.
    pub(super) fn begin(self, hub: &Arc<Hub>) -> Vec<Arc<Cell>> {
        for acceptor in self.acceptors {
            let id = acceptor.id;
            if let Err(error) = acceptor.start(hub) {
                log::error!(target: "lariat::blocking", "cannot accept: {error}");
                hub.stop_listening(id);
            }
        }
        for (cell, dial) in self.connects {
            run_connect(hub, cell, dial);
        }
        for cell in self.nudges {
            cell.nudge(hub);
        }
        self.drains
    }
}

impl Worker {
    /// Sends what answers input, for its receivers.
    pub(super) fn drain_others(&mut self, receivers: Vec<Arc<Cell>>) {
        let hub = Arc::clone(&self.hub);
        for cell in receivers {
            self.drain(&cell);
            // `drained`, a FIN that waited and the end are for the receiver's own threads.
            let due = Flags::DRAINED_DUE
                | Flags::FIN_WANTED
                | Flags::CLOSING
                | Flags::BROKEN
                | Flags::ENDED;
            let member = lock(&cell.member);
            // Its threads may have left to this one what was queued since.
            let left = member.conn.has_output() || member.conn.flags().any(due);
            drop(member);
            if left {
                cell.nudge(&hub);
            }
        }
    }
}

fn wish(
    author: &mut Author<'_>,
    later: &mut Later,
    id: ConnId,
    wish: impl FnOnce(&mut Connection),
) {
    let Some(cell) = author.hub.cell(id) else {
        author.shared.metrics.stale += 1;
        return;
    };
    let mut member = lock(&cell.member);
    wish(&mut member.conn);
    // At once: a callback that runs before its threads look must find the connection closed.
    let now = author.shared.clock.exact();
    member.conn.handle_wishes(&mut author.shared.chunks, now, false);
    cell.wake_if_ended(&member);
    drop(member);
    author.hub.carry_mail(&cell);
    later.nudges.push(cell);
}

fn notify(author: &mut Author<'_>, later: &mut Later, to: ConnId, note: Note) {
    let mut back = None;
    wish(author, later, to, |conn| back = conn.handle_note(note).err());
    if let Some(note) = back {
        author.shared.metrics.refused_notes += 1;
        drop_guarded(note);
    }
}

/// Queues bytes for another connection. A writer that answers input writes them out itself, and so
/// is slowed down by a slow receiver; else the receiver's companion does.
fn write_to(
    author: &mut Author<'_>,
    later: &mut Later,
    to: ConnId,
    written: Written<'_>,
    caused: bool,
) {
    let Some(cell) = author.hub.cell(to) else {
        author.shared.metrics.stale += 1;
        return;
    };
    let mut member = lock(&cell.member);
    let Shared { chunks, metrics, clock, .. } = &mut *author.shared;
    let now = clock.exact();
    let queued = Tools { chunks, metrics, now }.queue(&mut member, written);
    if queued == Queued::TooMuch {
        cell.wake_if_ended(&member);
    }
    let open = member.conn.flags().none(Flags::CONNECTING | Flags::HANDSHAKING);
    drop(member);
    author.hub.carry_mail(&cell);
    match queued {
        Queued::Refused => {}
        Queued::Waiting if caused && open => later.drains.push(cell),
        Queued::Waiting | Queued::TooMuch => later.nudges.push(cell),
    }
}

/// Takes over what a callback has begun to listen on, unless it was stopped since.
pub(super) fn listen(
    hub: &Hub,
    id: ListenerId,
    bound: Vec<Bound>,
    limits: Arc<Limits>,
    factory: BoxedFactory,
) -> Vec<Acceptor> {
    let sockets: Vec<Arc<Socket>> = bound
        .into_iter()
        .filter_map(|bound| bound.socket.downcast().ok())
        .map(|listener| Arc::new(Socket::new(*listener)))
        .collect();
    let factory = Arc::new(factory);
    if !hub.add_listener(id, sockets.clone()) {
        drop_guarded(factory);
        return Vec::new();
    }
    let acceptor = |socket| Acceptor {
        id,
        socket,
        factory: Arc::clone(&factory),
        limits: Arc::clone(&limits),
    };
    sockets.into_iter().map(acceptor).collect()
}

fn connect(
    author: &mut Author<'_>,
    later: &mut Later,
    outgoing: Outgoing<Box<dyn Protocol + Send>>,
) {
    // Whoever connects anew in the `closed` of a connect that came too late would do so for ever.
    let late = |cell: &Arc<Cell>| lock(&cell.member).conn.flags().any(Flags::LATE);
    if author.cell.is_some_and(late) {
        author.hub.forget(outgoing.id);
        drop_guarded(outgoing.protocol);
        return;
    }
    later.connects.push(enter_connect(author.hub, outgoing));
}

/// Tells a protocol that may not leave this thread that it cannot be connected.
pub(super) fn refuse_local(author: &mut Author<'_>, local: Local) {
    let peer = local.dial().map_or(Endpoint::Other, |dial| dial.to);
    let Local { id, limits, mut protocol, .. } = local;
    let Author { hub, shared, .. } = author;
    let mut conn = Connection::connecting(id, peer, limits, shared.clock.exact());
    conn.end(By::Runtime, CloseKind::Connect(ConnectFailure::Unsupported), None);
    if let Some(reason) = conn.poll_closed(shared.clock.exact()) {
        let called =
            Called { shared, conn: &mut conn, protocol: &mut *protocol, socket: &NoSocket };
        called.closed(&reason);
        shared.output.clear();
        shared.metrics.connects += 1;
        shared.metrics.closes.count(reason.kind());
    }
    drop_guarded(protocol);
    hub.forget(id);
}
