//! Effects: requests of callbacks beyond their own connection, applied in order.

use std::mem;

use super::system::System;
use super::{EventLoop, Released};
use crate::connection::{Flags, Queued, Written};
use crate::datagram::State;
use crate::guard::drop_guarded;
use crate::id::ConnId;
use crate::note::Note;
use crate::protocol::{Boxed, Effect, Protocol, Successor, TimerOwner, drop_protocol};

impl<S: System> EventLoop<S> {
    /// Step 1: requests of code outside of callbacks. The loop may have been left for a while:
    /// timers and deadlines that begin here count from now.
    #[cold]
    pub(super) fn apply_outside(&mut self) {
        if self.shared.timers.next().is_some() || !self.shared.effects.is_empty() {
            let now = self.system.now();
            self.shared.clock.update(now);
        }
        if !self.shared.effects.is_empty() {
            self.apply_driver_effects();
            self.send_dirty();
            self.deliver_notes();
        }
    }

    /// Applies the effects of the callback of `by`, which saw the input `shown`. Returns the
    /// protocol that is to take over.
    #[inline]
    pub(super) fn apply_effects(&mut self, by: Option<ConnId>, shown: &[u8]) -> Option<Successor> {
        // Most callbacks have none.
        if self.shared.effects.is_empty() {
            return None;
        }
        self.apply_each(by, shown)
    }

    #[inline(never)]
    fn apply_each(&mut self, by: Option<ConnId>, shown: &[u8]) -> Option<Successor> {
        let (mut list, bytes) = self.shared.effects.take();
        let mut successor = None;
        for effect in list.drain(..) {
            match effect {
                Effect::Write { to, content, caused } => {
                    let written = content.written(shown, &bytes);
                    self.write_to(to, written, by.filter(|_| caused));
                }
                Effect::ShutdownWrite(id) => self.wish(id, |conn| conn.want_fin()),
                Effect::Close(id) => self.close(id),
                Effect::Abort(id) => self.abort(id),
                Effect::Notify { to, note } => self.notify(to, None, note),
                Effect::Deliver { to, job, note } => self.notify(to, Some(job), note),
                Effect::Race(id, event) => self.handle_race(id, *event),
                Effect::Connect(outgoing) if self.is_hopeless(by) => {
                    self.shared.ids.release(outgoing.id);
                    self.note_released(Released::Place);
                    self.drop_protocol(outgoing.protocol.here());
                }
                Effect::Connect(outgoing) => self.connect_now(outgoing.map(Boxed::here)),
                Effect::Adopt(adopted) => self.adopt_stream(adopted.map(Boxed::here)),
                Effect::Bind(bound) => self.bind_now(*bound),
                Effect::Listen { id, sockets, limits, factory } => {
                    self.adopt_wished(id, sockets, limits, factory);
                }
                Effect::StopListening(listener) => self.stop_listening(listener),
                Effect::Stop => self.shutdown(),
                Effect::Replace(next) => {
                    if let Some(Successor { protocol, .. }) = successor.replace(next) {
                        self.drop_protocol(protocol.here());
                    }
                }
            }
        }
        // Nothing above calls user code, so the lists are still empty.
        self.shared.effects.put_back((list, bytes));
        successor
    }

    /// Applies the effects of code that belongs to no connection.
    pub(super) fn apply_driver_effects(&mut self) {
        let successor = self.apply_effects(None, &[]);
        debug_assert!(successor.is_none(), "only a connection's protocol can be replaced");
    }

    /// Lets a protocol take over, if a callback asked for that.
    pub(super) fn succeed(&mut self, id: ConnId, successor: Option<Successor>) {
        if let Some(successor) = successor {
            self.replace(id, successor);
        }
    }

    fn wish(&mut self, id: ConnId, wish: impl FnOnce(&mut crate::connection::Connection)) {
        match self.table.get_mut(id) {
            Some(entry) => {
                wish(&mut entry.conn);
                self.finish(id);
            }
            None => self.shared.metrics.stale += 1,
        }
    }

    pub(super) fn close(&mut self, id: ConnId) {
        if self.table.get(id).is_none() {
            return self.wish_datagrams(id, State::want_close);
        }
        self.wish(id, |conn| conn.want_close());
    }

    pub(super) fn abort(&mut self, id: ConnId) {
        if self.table.get(id).is_none() {
            return self.wish_datagrams(id, State::want_abort);
        }
        self.wish(id, |conn| conn.want_abort());
    }

    fn write_to(&mut self, to: ConnId, written: Written<'_>, caused_by: Option<ConnId>) {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(to) else {
            self.shared.metrics.stale += 1;
            return;
        };
        let count = written.len();
        if count == 0 {
            return;
        }
        entry.conn.borrow_queues(&mut self.shared.rares);
        let caused = caused_by.is_some();
        let queued = entry.conn.take_queued(written, caused, &mut self.shared.chunks, tick);
        self.shared.account(&mut entry.conn);
        match queued {
            Queued::Refused => {
                self.shared.metrics.refused_bytes += count as u64;
                entry.conn.return_rare(&mut self.shared.rares);
                return;
            }
            Queued::Lost => return self.finish(to),
            Queued::Waiting | Queued::Held if entry.conn.handle_dirty(true) => {
                self.dirty.push(to);
                self.chores = true;
            }
            Queued::Waiting | Queued::Held => {}
        }
        if let (Queued::Held, Some(writer)) = (queued, caused_by) {
            self.hold(writer, to);
        }
    }

    /// A note waits for the end of the turn: its receiver may still be served in this one.
    fn notify(&mut self, to: ConnId, job: Option<u64>, note: Note) {
        self.notes.push((to, job, note));
        self.chores = true;
    }

    /// Step 9: the notes of this turn arrive, and are received in the next.
    pub(super) fn deliver_notes(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        let mut notes = mem::take(&mut self.notes);
        for (to, job, note) in notes.drain(..) {
            self.deliver(to, job, note);
        }
        // A note that is refused is dropped, and no drop can send another.
        self.notes = notes;
    }

    fn deliver(&mut self, to: ConnId, job: Option<u64>, note: Note) {
        let Some(entry) = self.table.get_mut(to) else {
            return self.deliver_to_datagrams(to, note);
        };
        entry.conn.borrow_queues(&mut self.shared.rares);
        let taken = match job {
            Some(job) => {
                entry.conn.end_job(job);
                entry.conn.handle_result(note)
            }
            None => entry.conn.handle_note(note),
        };
        if let Err(note) = taken {
            self.shared.metrics.refused_notes += 1;
            drop_guarded(note);
        }
        self.list(to);
    }

    /// Lets another protocol take over.
    fn replace(&mut self, id: ConnId, successor: Successor) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let hopeless = Flags::CLOSING | Flags::ENDED | Flags::CLOSE_WANTED | Flags::ABORT_WANTED;
        if entry.conn.flags().any(hopeless | Flags::FAILED | Flags::OVERFLOW) {
            return self.drop_protocol(successor.protocol.here());
        }
        for key in entry.conn.take_timers() {
            self.shared.timers.cancel(key);
        }
        let old = mem::replace(&mut entry.protocol, successor.protocol.here());
        entry.conn.handle_replaced();
        self.drop_protocol(old);
        self.ask_for_filter(id, successor.feed);
    }

    /// Asks the protocol for a filter, before `opened`.
    pub(super) fn ask_for_filter(&mut self, id: ConnId, feed: bool) {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.flags().any(Flags::CONNECTING) {
            return;
        }
        if let Some(Some(filter)) = entry.called(&mut self.shared).filter() {
            entry.conn.handle_filter(filter, feed, &mut self.shared.chunks, tick);
        }
    }

    /// Drops a protocol of the user's.
    pub(super) fn drop_protocol(&mut self, protocol: Box<dyn Protocol>) {
        drop_protocol(protocol, &mut self.shared.metrics);
    }

    /// Keeps the one timer for a connection's built-in deadlines in step with them. One that was
    /// taken out in this turn is looked at in step 7, which comes here again.
    pub(super) fn sync_deadline(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let (wanted, armed) = (entry.conn.poll_deadline(), entry.conn.deadline_key());
        let key = self.shared.timers.sync(armed, wanted, TimerOwner::Deadline(id));
        if key != armed {
            entry.conn.put_deadline(key);
        }
    }
}
