//! A thread of a connection, of either kind: it does what is due, under the connection's lock, and
//! decides what it does next.
//!
//! The connection's own thread, the reader, sleeps in `read`; a companion waits for timers and for
//! requests of others. Both run any callback that is due. An echo has no companion: the first timer
//! starts it, or a request of others while the reader sleeps in the socket.
//!
//! Sends do not sleep. Output that the socket does not take is queued, and one thread sleeps in a
//! write of its first byte until there is room: the reader for a moment, or if it cannot read
//! before that; otherwise a companion. Nothing else wakes a thread out of a write, while a paused
//! reader may be resumed and a held one be released.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::bell::lock;
use super::cell::{Cell, Member, Signal, Signals};
use super::drive::sends;
use super::effects::{self, Author};
use super::hub::{Desk, Hub};
use super::system::Stream;
use super::timeouts::Look;
use crate::buffer::{ByteQueue, ChunkPool};
use crate::connection::{Connection, Consumed, Due, Expired, Flags, Queued, Round};
use crate::dispatch::Called;
use crate::guard::{drop_guarded, guarded};
use crate::handle::Post;
use crate::protocol::{
    Boxed, Callback, NoSocket, Protocol, SocketInfo, Successor, TimerId, TimerOwner, drop_protocol,
};
use crate::reason::{By, CloseKind};
use crate::sending;
use crate::socket::prepare_detached;
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, thread};
use crate::timer::{Timer, TimerKey};

pub(super) const MILLISECOND: u64 = 1_000_000;

/// What kind of thread this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reader,
    Companion,
}

/// What a thread does next. Times are those of the clock; `u64::MAX` is never.
pub(super) enum Next {
    /// The reader reads at most so many bytes.
    Read {
        until: u64,
        most: usize,
    },
    /// Sleeps until the socket takes this byte, the first of the queue.
    Write {
        byte: u8,
    },
    Wait {
        until: u64,
    },
    End,
}

/// The input of a callback, and what it left of that.
pub(super) enum Shown<'a> {
    Nothing,
    /// Bytes where they were read.
    Direct(&'a [u8], Consumed),
    Unread(ByteQueue, Consumed),
}

/// One thread's view of a connection.
pub(super) struct Worker<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) cell: &'a Arc<Cell>,
    pub(super) desk: &'a mut Desk,
    pub(super) role: Role,
    /// The socket, which the connection's own thread keeps at hand until it leaves.
    pub(super) stream: Option<Arc<Stream>>,
    /// The read time-out that the socket has.
    pub(super) read_timeout: Option<Duration>,
    /// Whether the reader has slept for room in vain, and leaves that to its companion.
    impatient: bool,
    /// When a companion has to look at the latest, while the reader does what comes next.
    pub(super) companion_at: u64,
    /// The looks at the socket before the last deadline, and before the last timer.
    pub(super) looked: Look,
    pub(super) looked_for_timer: Look,
    /// Whether this thread has changed anything since it last rang for the reader.
    pub(super) changed: bool,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        hub: &'a Arc<Hub>,
        cell: &'a Arc<Cell>,
        desk: &'a mut Desk,
        role: Role,
    ) -> Worker<'a> {
        Worker {
            hub,
            cell,
            desk,
            role,
            stream: None,
            read_timeout: None,
            impatient: false,
            companion_at: u64::MAX,
            looked: Look::default(),
            looked_for_timer: Look::default(),
            changed: false,
        }
    }

    /// The socket, if there is one, for the connection's own thread. A companion must not be what
    /// keeps the socket open.
    #[inline]
    pub(super) fn stream(&mut self) -> Option<&Stream> {
        debug_assert!(self.role == Role::Reader, "its socket would stay open");
        if self.stream.is_none() {
            self.stream = self.cell.socket.get();
        }
        self.stream.as_deref()
    }

    fn leave_stream(&mut self) {
        self.stream = None;
        self.cell.socket.leave();
    }

    // ---- what is due -------------------------------------------------------------------------

    /// Does everything that is due, and says what this thread does next. What changes after its
    /// last look wakes it from that, or another thread looks.
    pub(super) fn advance(&mut self) -> Next {
        let cell = self.cell;
        // They take turns: data that is shown bit by bit would always be due, and so would a timer
        // that is set again without a delay.
        let mut timer_next = false;
        self.companion_at = u64::MAX;
        loop {
            self.desk.shared.metrics.turns += 1;
            self.desk.publish();
            while self.role == Role::Companion && cell.reader_waits.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let mut member = lock(&cell.member);
            let now = self.desk.shared.clock.exact();
            if member.applying && member.conn.flags().none(Flags::ENDED) {
                // The other thread rings when it has applied them.
                return Next::Wait { until: u64::MAX };
            }
            self.changed |= self.look(&mut member, now);
            let after = self.hub.drive(cell, &mut member, &mut self.desk.shared);
            if !after.is_empty() {
                drop(member);
                after.carry_out(cell.id, self.hub);
                continue;
            }
            if member.conn.flags().any(Flags::ENDED) {
                return Next::End;
            }
            // Input that was read comes before a timer, as on a loop.
            let due = member.conn.has_due();
            if due && !mem::take(&mut timer_next) {
                timer_next = true;
                self.call_due(member);
            } else if let Some((timer, key)) = self.due_timer(&mut member, now) {
                self.call_timer(member, timer, key);
            } else if due {
                self.call_due(member);
            } else if member.conn.flags().any(Flags::ENDED) {
                // The look for input has found an error in its place.
                self.changed = true;
            } else if let Some(next) = self.next(&mut member, now) {
                drop(member);
                if mem::take(&mut self.changed) && self.role == Role::Companion {
                    cell.reader.call();
                }
                return next;
            }
        }
    }

    /// What has happened to the connection since a thread last looked. True if anything has.
    fn look(&mut self, member: &mut Member, now: u64) -> bool {
        self.desk.shared.stopping = self.hub.is_stopping();
        let asked = !self.take_requests(member).is_empty();
        if member.conn.flags().none(Flags::BROKEN | Flags::CONNECTING) {
            // Readiness to read means nothing here: a socket may always be tried.
            member.conn.handle_ready(Flags::READABLE);
        }
        let deadline = member.conn.poll_deadline_beside(member.writing);
        if deadline > now || self.is_put_off(member, deadline, now) {
            return asked || member.conn.flags().any(Flags::ENDED);
        }
        let expired = member.conn.handle_deadline(now, &mut self.desk.shared.chunks);
        self.desk.shared.metrics.timers += u64::from(expired == Expired::Something);
        true
    }

    /// Applies what others have asked for since a thread last looked.
    pub(super) fn take_requests(&mut self, member: &mut Member) -> Signals {
        let signals = self.cell.take_signals(&mut member.conn);
        if !signals.has(Signal::Mail) {
            return signals;
        }
        let mail = self.cell.take_mail();
        self.hub.count_taken(mail.len());
        let shared = &mut self.desk.shared;
        let now = shared.clock.exact();
        for post in mail {
            match post {
                Post::Write { content, .. } => {
                    let written = content.written(&[], &[]);
                    let count = written.len();
                    let queued = member.conn.take_queued(written, false, &mut shared.chunks, now);
                    let refused = u64::from(queued == Queued::Refused);
                    shared.metrics.refused_bytes += count as u64 * refused;
                }
                Post::ShutdownWrite(_) => member.conn.want_fin(),
                Post::Close(_) => member.conn.want_close(),
                Post::Notify { note, .. } => {
                    if let Err(refused) = member.conn.handle_note(note) {
                        shared.metrics.refused_notes += 1;
                        drop_guarded(refused);
                    }
                }
                // The thread that called `run` does that.
                Post::Call(_) => {}
            }
            // At once: what comes behind a close must find the connection closed.
            member.conn.handle_wishes(&mut shared.chunks, now, false);
        }
        signals
    }

    /// Nothing is due: what this thread does next. None when it has to look again.
    fn next(&mut self, member: &mut Member, now: u64) -> Option<Next> {
        if member.conn.has_output() {
            // The budget of one look was used up.
            return None;
        }
        let stuck = member.conn.is_stuck() && !member.writing;
        let until = member.conn.poll_deadline_beside(member.writing).max(now + MILLISECOND);
        let timer = member.timers.next().unwrap_or(u64::MAX);
        if member.conn.is_detaching() {
            return self.detach_or_wait(member, until);
        }
        let reads_later = member.conn.reads_behind_output();
        if self.role == Role::Companion {
            // Beyond the next timer another companion would have to be started for it.
            let until = until.min(timer.max(now + MILLISECOND));
            if !stuck || (reads_later && !self.cell.reader.is_away()) {
                return Some(Next::Wait { until });
            }
            return self.go_writing(member, until, now);
        }
        self.companion_at = timer;
        if stuck && (reads_later || !mem::replace(&mut self.impatient, true)) {
            let until = if reads_later { until } else { now + MILLISECOND };
            return self.go_writing(member, until, now);
        }
        self.impatient &= stuck;
        if stuck {
            self.companion_at = 0;
        }
        let most = if member.conn.may_read() { usize::MAX } else { room(member) };
        if most == 0 {
            return Some(Next::Wait { until });
        }
        self.cell.reader.go_away().then_some(Next::Read { until, most })
    }

    /// Lets the socket leave, if this is the connection's own thread and no other is in a write.
    fn detach_or_wait(&mut self, member: &mut Member, until: u64) -> Option<Next> {
        if self.role == Role::Companion || member.writing {
            return Some(Next::Wait { until });
        }
        if let Some(socket) = member.conn.leaving() {
            prepare_detached(&socket);
        }
        member.conn.handle_detached(&mut self.desk.shared.chunks);
        // Nothing that wakes the threads of a connection shuts it from here on.
        self.leave_stream();
        None
    }

    // ---- callbacks ---------------------------------------------------------------------------

    /// Timers are the companion's: the reader has the socket to look after.
    fn due_timer(&mut self, member: &mut Member, now: u64) -> Option<(Timer, TimerKey)> {
        if self.role == Role::Reader {
            return None;
        }
        let at = member.timers.next().filter(|at| *at <= now)?;
        if self.is_input_first(member, at, now) {
            return None;
        }
        while let Some((owner, key)) = member.timers.pop_due(now) {
            if let TimerOwner::Protocol(_, timer) = owner {
                return Some((timer, key));
            }
        }
        None
    }

    fn call_timer(&mut self, mut member: MutexGuard<'a, Member>, timer: Timer, key: TimerKey) {
        if !member.conn.has_timer(timer, key) {
            return;
        }
        member.conn.take_timer(timer);
        if member.conn.may_call() {
            self.desk.shared.metrics.timers += 1;
            self.call(&mut member, |called| called.timeout(timer));
            self.settle(member, Shown::Nothing, Callback::Timeout, None);
        }
    }

    fn call_due(&mut self, mut member: MutexGuard<'a, Member>) {
        let callback = match member.conn.poll_due(&mut Round::default()) {
            Some(Due::Opened) => {
                self.call(&mut member, |called| called.opened());
                Callback::Opened
            }
            Some(Due::Stopping) => {
                self.call(&mut member, |called| called.stopping());
                Callback::Stopping
            }
            Some(Due::Drained) => {
                self.call(&mut member, |called| called.drained());
                Callback::Drained
            }
            Some(Due::Notified(note)) => {
                self.call(&mut member, |called| called.notified(note));
                Callback::Notified
            }
            Some(Due::Data) => return self.call_input(member, Callback::Data),
            Some(Due::Eof) => return self.call_input(member, Callback::Eof),
            None => return,
        };
        self.settle(member, Shown::Nothing, callback, None);
    }

    /// Shows unread input to `data` or `eof`.
    fn call_input(&mut self, mut member: MutexGuard<'a, Member>, callback: Callback) {
        let unread = member.conn.lend_unread();
        let consumed = self.call(&mut member, |called| match callback {
            Callback::Eof => called.eof(unread.as_slice()),
            _ => called.data::<true>(unread.as_slice(), true),
        });
        if let Some(consumed) = consumed {
            self.settle(member, Shown::Unread(unread, consumed), callback, None);
        }
    }

    /// Runs one callback, to which the timers of the connection are lent. None when the protocol's
    /// `closed` has run.
    #[inline(always)]
    pub(super) fn call<R>(
        &mut self,
        member: &mut Member,
        call: impl FnOnce(Called<'_>) -> R,
    ) -> Option<R> {
        let Member { conn, protocol, timers, .. } = member;
        let protocol = &mut **protocol.as_mut()?;
        // The connection's own thread has it at hand.
        let other = if self.stream.is_none() { self.cell.socket.get() } else { None };
        let socket: &dyn SocketInfo = match self.stream.as_ref().or(other.as_ref()) {
            Some(socket) => &**socket,
            None => &NoSocket,
        };
        let shared = &mut self.desk.shared;
        // Most connections have none, and a message is not to pay for that.
        let lent = timers.next().is_some();
        if lent {
            mem::swap(&mut shared.timers, timers);
        }
        let result = call(Called { shared: &mut *shared, conn, protocol, socket });
        if shared.timers.next().is_some() {
            mem::swap(&mut shared.timers, timers);
        }
        Some(result)
    }

    // ---- after a callback --------------------------------------------------------------------

    /// After a callback: its own output is sent or queued, its effects are applied without the
    /// lock, then its own requests.
    ///
    /// `sent` is how the first attempt to send went, if that was made already.
    pub(super) fn settle(
        &mut self,
        mut member: MutexGuard<'a, Member>,
        shown: Shown<'_>,
        callback: Callback,
        sent: Option<io::Result<usize>>,
    ) {
        self.changed = true;
        let shared = &mut self.desk.shared;
        let (bytes, now) = (shown.bytes(), shared.clock.exact());
        let most = member.conn.limits().write_budget;
        match sent {
            None => {
                let sends = &mut sends(self.cell);
                sending::send_own(&mut member.conn, shared, bytes, callback, now, most, sends);
            }
            Some(sent) => {
                let attempt = (shared.output.len(), sent);
                sending::send_rest(&mut member.conn, shared, bytes, callback, now, attempt);
            }
        }
        if callback == Callback::Stopping {
            // Before the effects: one of them may close this connection for another reason.
            member.conn.handle_wishes(&mut shared.chunks, now, true);
        }
        let successors = shared.effects.take_successors();
        let applies = !shared.effects.is_empty();
        if applies {
            member.applying = true;
            drop(member);
            effects::apply(
                &mut Author { hub: self.hub, shared, cell: Some(self.cell) },
                shown.bytes(),
            );
            member = lock(&self.cell.member);
            member.applying = false;
        }
        shown.keep(&mut member.conn, !successors.is_empty(), &mut self.desk.shared.chunks);
        let dropped = self.apply_successors(&mut member, successors);
        let shared = &mut self.desk.shared;
        let after = self.hub.drive(self.cell, &mut member, shared);
        drop(member);
        after.carry_out(self.cell.id, self.hub);
        shared.output.clear();
        for protocol in dropped {
            drop_protocol(protocol, &mut shared.metrics);
        }
        if applies {
            self.cell.reader.call();
            self.cell.companions.call();
        }
    }

    /// Lets the last of the protocols that a callback asked for take over, before any other thread
    /// can call the old one. Returns what has to be dropped without a lock.
    fn apply_successors(
        &mut self,
        member: &mut Member,
        mut successors: Vec<Successor>,
    ) -> Vec<Box<dyn Protocol>> {
        let Some(Successor { protocol, feed }) = successors.pop() else { return Vec::new() };
        let mut dropped: Vec<Box<dyn Protocol>> =
            successors.into_iter().map(|successor| successor.protocol.here()).collect();
        let wished = Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::FAILED;
        let ends = member.conn.flags().any(wished | Flags::CLOSING | Flags::ENDED);
        match protocol {
            Boxed::Anywhere(next) if !ends => {
                for key in member.conn.take_timers() {
                    member.timers.cancel(key);
                }
                let old = member.protocol.replace(next);
                member.conn.handle_replaced();
                self.ask_for_filter(member, feed);
                dropped.extend(old.map(|old| old as Box<dyn Protocol>));
            }
            protocol => {
                if !ends {
                    member.conn.end(By::Runtime, CloseKind::Unsupported, None);
                }
                dropped.push(protocol.here());
            }
        }
        dropped
    }

    /// Asks the protocol for a filter, before `opened`.
    pub(super) fn ask_for_filter(&mut self, member: &mut Member, feed: bool) {
        let now = self.desk.shared.clock.exact();
        if member.conn.flags().any(Flags::CONNECTING | Flags::ENDED) {
            return;
        }
        let filter = self.call(member, |called| called.filter());
        if let Some(Some(Some(filter))) = filter {
            member.conn.handle_filter(filter, feed, &mut self.desk.shared.chunks, now);
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Runs `closed`, and removes the connection.
    pub(super) fn tell_closed(&mut self) {
        let (hub, cell) = (self.hub, self.cell);
        let mut member = lock(&cell.member);
        let Some(reason) = member.conn.poll_closed(self.desk.shared.clock.exact()) else { return };
        debug_assert!(!member.writing, "a thread that writes counts what has gone");
        self.leave_stream();
        hub.free_place(cell.id, member.lingered);
        let peer = member.conn.peer();
        // The error in the reason is the user's, also in how it is displayed and dropped.
        let _ = guarded(|| log::debug!(target: "lariat::close", "{} {peer}: {reason}", cell.id));
        self.call(&mut member, |called| called.closed(&reason));
        hub.note_end(cell.id, &reason);
        let shared = &mut self.desk.shared;
        shared.output.clear();
        shared.metrics.closes.count(reason.kind());
        let protocol = member.protocol.take();
        for deadline in member.conn.take_jobs() {
            shared.cancel_closure(TimerId(deadline));
        }
        drop(member);
        drop_protocol(protocol, &mut shared.metrics);
        effects::apply(&mut Author { hub, shared, cell: Some(cell) }, &[]);
        self.desk.publish();
        hub.leave(cell.id, reason.unsent());
        drop_guarded(reason);
        hub.drop_posts(cell.close_mail());
    }
}

impl Shown<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Shown::Nothing => &[],
            Shown::Direct(bytes, _) => bytes,
            Shown::Unread(unread, _) => unread.as_slice(),
        }
    }

    /// Keeps what was left of it. `eof` keeps nothing, unless another protocol takes over.
    fn keep(self, conn: &mut Connection, replaced: bool, chunks: &mut ChunkPool) {
        match self {
            Shown::Nothing => {}
            Shown::Direct(bytes, consumed) => {
                if (consumed.left | consumed.need) != 0 {
                    conn.handle_left(bytes, consumed, chunks);
                }
            }
            Shown::Unread(unread, consumed) if conn.flags().none(Flags::EOF_DONE) => {
                conn.handle_unread_shown(unread, consumed, chunks);
            }
            Shown::Unread(unread, consumed) if replaced => {
                let consumed = Consumed { need: 0, ..consumed };
                conn.handle_unread_shown(unread, consumed, chunks);
            }
            Shown::Unread(unread, consumed) => conn.handle_eof_shown(unread, consumed, chunks),
        }
    }
}

/// How much a thread that may not deliver input may keep of it: it sleeps in `read` all the same,
/// where a reset of the peer shows at once. A connection that is held, or whose output waits for
/// room, waits for that instead.
fn room(member: &Member) -> usize {
    let flags = member.conn.flags();
    let over = Flags::HELD | Flags::PEER_FIN | Flags::FIN_TOLD | Flags::BROKEN | Flags::CONNECTING;
    if flags.none(Flags::PAUSED) || flags.any(over) || member.writing {
        return 0;
    }
    let unread = member.conn.queues().map_or(0, |queues| queues.unread.len());
    member.conn.limits().input_max.saturating_sub(unread)
}
