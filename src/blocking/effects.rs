//! Requests of callbacks and closures beyond their own connection, carried out by the thread that
//! ran them. No lock is held when an effect begins, and no effect sleeps.

use std::mem;
use std::sync::Arc;

use super::accept::Acceptor;
use super::bell::lock;
use super::bind;
use super::cell::{Cell, Member};
use super::drive::hold;
use super::hub::Hub;
use super::listening::Socket;
use super::pool::Job;
use super::race::Start;
use super::roster::Entered;
use super::system;
use crate::address::{Targets, named};
use crate::connection::{Connection, Flags, Queued, Written};
use crate::dispatch::Called;
use crate::endpoint::Endpoint;
use crate::guard::drop_guarded;
use crate::handle::Post;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::protocol::{
    Adopted, Bound, Boxed, BoxedFactory, Effect, NoSocket, Outgoing, Protocol, Shared,
    drop_protocol,
};
use crate::reason::{By, Cause, CloseKind, ConnectFailure};
use crate::sync::atomic::Ordering;

/// The author of effects: a callback of a connection, or a closure.
pub(super) struct Author<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) shared: &'a mut Shared,
    pub(super) cell: Option<&'a Arc<Cell>>,
}

/// Effects that begin only when all effects of a callback have been applied, so that a connect, a
/// write and a close in one callback mean the same on every driver.
#[derive(Default)]
struct Later {
    /// Connections that were changed: each is advanced once.
    changed: Vec<Arc<Cell>>,
    locals: Vec<Local>,
    starts: Starts,
}

/// What needs threads. Outside of `run`, it waits until `run` is called.
#[derive(Default)]
pub(super) struct Starts {
    /// Connections that were entered.
    pub(super) jobs: Vec<Job>,
    pub(super) acceptors: Vec<Acceptor>,
}

/// A connection for a protocol that is not `Send`, which cannot have one here.
struct Local {
    id: ConnId,
    peer: Endpoint,
    limits: Arc<Limits>,
    protocol: Box<dyn Protocol>,
}

/// Applies the requests of the last callback, which saw the input `shown`. It waits only for the
/// locks of other connections, one at a time, so that the next callback need not wait long.
pub(super) fn apply(author: &mut Author<'_>, shown: &[u8]) {
    collect(author, shown).begin(author.hub);
}

/// As [`apply`], but returns what needs threads instead of starting it.
pub(super) fn collect(author: &mut Author<'_>, shown: &[u8]) -> Starts {
    let mut later = Later::default();
    apply_list(author, &mut later, shown, true);
    // Requests of their `closed` have lists of their own.
    for local in mem::take(&mut later.locals) {
        refuse_local(author, local);
        apply_list(author, &mut later, &[], false);
    }
    later.drive_on(author);
    later.starts
}

/// Applies the list as it is now. `locals`: whether a protocol that is not `Send`, and so cannot be
/// connected here, gets `closed`. One that connects again in that `closed` would do so for ever,
/// and is dropped without a callback.
fn apply_list(author: &mut Author<'_>, later: &mut Later, shown: &[u8], locals: bool) {
    let (mut list, bytes) = author.shared.effects.take();
    for effect in list.drain(..) {
        match effect {
            Effect::Write { to, content, caused } => {
                write_to(author, later, to, content.written(shown, &bytes), caused);
            }
            Effect::ShutdownWrite(id) => {
                let found = change(author, later, id, Connection::want_fin);
                author.shared.metrics.stale += u64::from(!found);
            }
            Effect::Close(id) => {
                if !change(author, later, id, Connection::want_close) {
                    ask(author, id, Post::Close(id));
                }
            }
            Effect::Abort(id) => {
                if !change(author, later, id, Connection::want_abort) {
                    author.hub.abort(id);
                }
            }
            Effect::Notify { to, note } => notify(author, later, to, note),
            Effect::Deliver { to, job, note } => deliver(author, later, to, job, note),
            Effect::Race(id, event) => {
                if let Some(cell) = author.hub.cell(id) {
                    author.hub.handle_race(&cell, *event);
                }
            }
            Effect::Connect(outgoing) => connect(author, later, *outgoing, locals),
            Effect::Adopt(adopted) => adopt(author, later, *adopted, locals),
            Effect::Bind(bound) => {
                let waiting = bind::waiting(author.hub, *bound);
                let entered = waiting.map(|waiting| bind::enter(author.hub, waiting));
                later.starts.jobs.extend(entered);
            }
            Effect::Listen { id, sockets, limits, factory } => {
                later.starts.acceptors.extend(listen(author.hub, id, sockets, limits, factory));
            }
            Effect::StopListening(listener) => author.hub.stop_listening(listener),
            Effect::Stop => author.hub.shutdown(),
            // Taken out before the lock was given up.
            Effect::Replace(next) => {
                drop_protocol(next.protocol.here(), &mut author.shared.metrics);
            }
        }
    }
    // Nothing above calls a protocol, so that the lists are still empty.
    author.shared.effects.put_back((list, bytes));
}

impl Later {
    fn note_changed(&mut self, cell: Arc<Cell>) {
        if !self.changed.iter().any(|other| other.id == cell.id) {
            self.changed.push(cell);
        }
    }

    fn drive_on(&mut self, author: &mut Author<'_>) {
        let hub = author.hub;
        for cell in self.changed.drain(..) {
            let mut member = lock(&cell.member);
            let after = hub.drive(&cell, &mut member, author.shared);
            let looks = is_due(&member);
            drop(member);
            after.carry_out(cell.id, hub);
            if looks {
                hub.nudge(&cell);
            }
        }
    }
}

impl Starts {
    fn begin(self, hub: &Arc<Hub>) {
        for acceptor in self.acceptors {
            let id = acceptor.id;
            if let Err(error) = acceptor.start(hub) {
                log::error!(target: "lariat::blocking", "cannot accept: {error}");
                hub.stop_listening(id);
            }
        }
        for job in self.jobs {
            hub.begin(job);
        }
    }

    pub(super) fn append(&mut self, other: Starts) {
        self.jobs.extend(other.jobs);
        self.acceptors.extend(other.acceptors);
    }

    /// Takes out the listeners that have been stopped.
    pub(super) fn take_stopped(&mut self) -> Vec<Acceptor> {
        let all = mem::take(&mut self.acceptors).into_iter();
        let (stopped, kept) = all.partition(|acceptor| acceptor.socket.is_stopped());
        self.acceptors = kept;
        stopped
    }
}

/// Whether a thread of the connection has to look at it: to run a callback, to wait for a new
/// deadline, or to sleep until its output leaves.
fn is_due(member: &Member) -> bool {
    let ending = Flags::FIN_WANTED | Flags::CLOSING | Flags::BROKEN | Flags::ENDED;
    let conn = &member.conn;
    let waits = conn.has_output() || (conn.is_stuck() && !member.writing);
    waits || conn.has_due() || conn.flags().any(ending)
}

fn change(
    author: &mut Author<'_>,
    later: &mut Later,
    id: ConnId,
    change: impl FnOnce(&mut Connection),
) -> bool {
    let Some(cell) = author.hub.cell(id) else { return false };
    let mut member = lock(&cell.member);
    change(&mut member.conn);
    // At once: a callback that runs before its threads look must find the connection closed.
    let now = author.shared.clock.exact();
    member.conn.handle_wishes(&mut author.shared.chunks, now, false);
    drop(member);
    later.note_changed(cell);
    true
}

fn notify(author: &mut Author<'_>, later: &mut Later, to: ConnId, note: Note) {
    let (mut note, mut back) = (Some(note), None);
    let found = change(author, later, to, |conn| {
        back = note.take().and_then(|note| conn.handle_note(note).err());
    });
    if let Some(refused) = back {
        author.shared.metrics.refused_notes += 1;
        drop_guarded(refused);
    }
    if let (false, Some(note)) = (found, note) {
        ask(author, to, Post::Notify { to, note });
    }
}

/// The result of a job comes to the connection that asked for it.
fn deliver(author: &mut Author<'_>, later: &mut Later, to: ConnId, job: u64, note: Note) {
    let mut note = Some(note);
    let found = change(author, later, to, |conn| {
        conn.end_job(job);
        note = note.take().and_then(|note| conn.handle_result(note).err());
    });
    author.shared.metrics.stale += u64::from(!found);
    if let Some(note) = note {
        author.shared.metrics.refused_notes += u64::from(found);
        drop_guarded(note);
    }
}

/// Asks something of what is no connection: a datagram socket, or nothing that is there any more.
fn ask(author: &mut Author<'_>, to: ConnId, post: Post) {
    let hub = author.hub;
    match hub.outlet(to) {
        Some(outlet) => {
            hub.posted.fetch_add(1, Ordering::AcqRel);
            hub.ask_outlet(&outlet, post);
        }
        None => {
            author.shared.metrics.stale += 1;
            drop_guarded(post);
        }
    }
}

/// Queues bytes for another connection. A writer that answers input is held while they are too
/// many.
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
    let count = written.len();
    if count == 0 {
        return;
    }
    let holder = author.cell.filter(|_| caused);
    let Shared { chunks, metrics, clock, .. } = &mut *author.shared;
    let mut member = lock(&cell.member);
    let now = clock.exact();
    let queued = member.conn.take_queued(written, holder.is_some(), chunks, now);
    if queued == Queued::Lost {
        // At once, as on a loop: too much is the reason, whatever is asked for behind it.
        member.conn.handle_wishes(chunks, now, false);
    }
    drop(member);
    match (queued, holder) {
        (Queued::Refused, _) => {
            metrics.refused_bytes += count as u64;
            return;
        }
        (Queued::Held, Some(writer)) => hold(writer, &cell),
        _ => {}
    }
    later.note_changed(cell);
}

/// Takes over a listener that a callback has begun, unless it was stopped since.
fn listen(
    hub: &Hub,
    id: ListenerId,
    bound: Vec<Bound>,
    limits: Arc<Limits>,
    factory: BoxedFactory,
) -> Vec<Acceptor> {
    let sockets: Vec<Arc<Socket>> = bound
        .into_iter()
        .filter_map(|bound| Some(Socket::new(bound.addr, *bound.socket.downcast().ok()?)))
        .map(Arc::new)
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

/// The protocol of a requested connection, if it can have a thread of its own. One that is not
/// `Send` is kept for its `closed` if `locals`, and is dropped otherwise.
fn sendable(
    author: &mut Author<'_>,
    later: &mut Later,
    (id, peer, limits): (ConnId, Endpoint, &Arc<Limits>),
    protocol: Boxed,
    locals: bool,
) -> Option<Box<dyn Protocol + Send>> {
    // One that connects in the `closed` of a connect that came too late would do so for ever.
    let late = |cell: &Arc<Cell>| lock(&cell.member).conn.flags().any(Flags::LATE);
    match protocol {
        Boxed::Anywhere(protocol) if !author.cell.is_some_and(late) => return Some(protocol),
        Boxed::Here(protocol) if locals => {
            later.locals.push(Local { id, peer, limits: Arc::clone(limits), protocol });
        }
        dropped => {
            author.hub.forget(id);
            drop_protocol(dropped.here(), &mut author.shared.metrics);
        }
    }
    None
}

fn connect(author: &mut Author<'_>, later: &mut Later, outgoing: Outgoing<Boxed>, locals: bool) {
    let Outgoing { id, addr, limits, options, protocol } = outgoing;
    let targets = addr.targets();
    let peer = match targets {
        Ok(Targets::One(to)) => to,
        _ => Endpoint::Other,
    };
    let Some(protocol) = sendable(author, later, (id, peer, &limits), protocol, locals) else {
        return;
    };
    let hub = author.hub;
    hub.outputs.note(&limits);
    let conn = Connection::connecting(id, peer, limits, hub.clock.exact());
    let cell = Cell::new(id, conn, protocol, None);
    let entered = hub.enter_asked(&cell, false);
    let failed = |failure, cause| {
        lock(&cell.member).conn.end(By::Runtime, CloseKind::Connect(failure), cause);
    };
    // A connection that has ended already needs no address.
    let mut start = Start { targets: Targets::One(peer), options };
    match (entered, targets) {
        (Entered::Welcome, Ok(targets)) => start.targets = targets,
        (Entered::Welcome, Err(error)) => {
            failed(ConnectFailure::Name, Some(Cause::new(named(&addr, &error))));
        }
        (Entered::TooMany, _) => failed(ConnectFailure::Limit, None),
        (Entered::Late, _) => lock(&cell.member).conn.handle_late(),
    }
    later.starts.jobs.push(Job::Connect(cell, Box::new(start)));
}

fn adopt(author: &mut Author<'_>, later: &mut Later, adopted: Adopted<Boxed>, locals: bool) {
    let Adopted { id, peer, limits, socket, protocol } = adopted;
    let Some(protocol) = sendable(author, later, (id, peer, &limits), protocol, locals) else {
        return;
    };
    let hub = author.hub;
    let mut conn = Connection::accepted(id, None, peer, limits, hub.clock.exact());
    let stream = system::adopted(socket);
    #[cfg(all(feature = "fd", not(all(test, lariat_model))))]
    if stream.as_ref().is_some_and(|stream| !stream.is_socket()) {
        conn.handle_no_socket();
    }
    if stream.is_none() {
        conn.end(By::Runtime, CloseKind::Connect(ConnectFailure::Unsupported), None);
    }
    let cell = Cell::new(id, conn, protocol, stream);
    let end = |kind| lock(&cell.member).conn.end(By::Runtime, kind, None);
    match hub.enter_asked(&cell, true) {
        Entered::Welcome => {}
        Entered::TooMany => end(CloseKind::Connect(ConnectFailure::Limit)),
        Entered::Late => end(CloseKind::Shutdown),
    }
    later.starts.jobs.push(Job::Serve(cell));
}

/// Removes a connection that was entered and never had a thread. Returns its protocol.
pub(super) fn discard(hub: &Hub, cell: &Cell) -> Option<Box<dyn Protocol + Send>> {
    hub.free_place(cell.id, false);
    hub.leave(cell.id, 0);
    hub.drop_posts(cell.close_mail());
    let mut member = lock(&cell.member);
    member.conn.end(By::Us, CloseKind::Aborted, None);
    member.protocol.take()
}

/// Runs `closed` on a protocol that is not `Send`: it cannot have a connection.
fn refuse_local(author: &mut Author<'_>, local: Local) {
    let Local { id, peer, limits, mut protocol } = local;
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
    drop_protocol(protocol, &mut shared.metrics);
    hub.forget(id);
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;
    use crate::blocking::tests::rig::{Quiet, Rig};
    use crate::connection::Connection;
    use crate::episode::tests::kept::lines_of;
    use crate::note::Note;
    use crate::protocol::{Context, Input, Outcome};

    /// Panics when it is dropped.
    struct Heavy;

    impl Drop for Heavy {
        fn drop(&mut self) {
            panic!("planned");
        }
    }

    impl Protocol for Heavy {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }

    #[test]
    fn a_protocol_that_may_not_leave_its_thread_is_kept_for_its_closed_or_dropped() {
        let rig = Rig::open(Limits::default());
        let Rig { hub, mut desk, cell, .. } = rig;
        let limits = Arc::default();
        let mut ask = |protocol, locals| {
            let id = lock(&hub.ids).reserve();
            hub.abort(id);
            let mut author = Author { hub: &hub, shared: &mut desk.shared, cell: Some(&cell) };
            let mut later = Later::default();
            let place = (id, Endpoint::Other, &limits);
            let kept = sendable(&mut author, &mut later, place, protocol, locals).is_some();
            let known = lock(&hub.ids).is_current(id);
            assert_eq!(lock(&hub.state).early.contains_key(&id), known);
            hub.forget(id);
            (kept, later.locals.len(), known, mem::take(&mut desk.shared.metrics.panics))
        };
        assert_eq!(ask(Boxed::Anywhere(Box::new(Quiet)), false), (true, 0, true, 0));
        assert_eq!(ask(Boxed::Here(Box::new(Quiet)), true), (false, 1, true, 0));
        assert_eq!(ask(Boxed::Here(Box::new(Quiet)), false), (false, 0, false, 0));
        let (lines, asked) = lines_of(|| ask(Boxed::Here(Box::new(Heavy)), false));
        assert_eq!(asked, (false, 0, false, 1));
        let line = "a protocol panicked while it was dropped".to_owned();
        assert_eq!(lines, [(log::Level::Error, line)]);
    }

    #[test]
    fn a_thread_has_to_look_where_output_waits_a_callback_is_due_or_it_is_to_end() {
        let mut rig = Rig::open(Limits::default());
        assert!(!is_due(&rig.member()));
        rig.queue_stuck(b"output");
        assert!(is_due(&rig.member()), "no thread sleeps for room");
        rig.member().writing = true;
        assert!(!is_due(&rig.member()), "a thread does");
        rig.member().conn.handle_ready(Flags::WRITABLE);
        assert!(is_due(&rig.member()), "there is room, and more than one byte waits");
        type Change = fn(&mut Connection);
        let changes: [Change; 4] = [
            |conn| drop(conn.handle_note(Note::new(()))),
            |conn| conn.begin_close(By::Us, CloseKind::Finished, None),
            |conn| conn.break_off(By::Peer, CloseKind::Reset, None),
            |conn| conn.end(By::Us, CloseKind::Aborted, None),
        ];
        for change in changes {
            let rig = Rig::open(Limits::default());
            change(&mut rig.member().conn);
            assert!(is_due(&rig.member()));
        }
        let rig = Rig::open(Limits::default());
        rig.member().conn.want_fin();
        assert!(is_due(&rig.member()));
    }
}
