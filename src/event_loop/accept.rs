//! Listeners: accepting within bounds, and waiting when a bound is reached.
//!
//! Edge-triggered readiness reports a waiting connection once. When accepting stops before the
//! queue is empty (budget, `connections_max`, no descriptor), the socket remembers that it is ready
//! and the loop comes back by itself: [`Admission`](crate::admission::Admission) says when.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::system::{Listener, Stream, System};
use super::table::Entry;
use super::{EventLoop, Released};
use crate::address::Address;
use crate::admission::{AcceptError, Answer, Pace, Place};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, Op, Result};
use crate::guard::{drop_guarded, guarded};
use crate::id::ListenerId;
use crate::limits::Limits;
use crate::options::ListenOptions;
use crate::protocol::{
    Bound, BoxedFactory, Incoming, Protocol, TimerOwner, adopts_no_more, stopped,
};
use crate::refused::Refused;

/// Makes protocols for accepted connections.
pub(crate) type Factory = Box<dyn FnMut(&Incoming) -> Option<Box<dyn Protocol>>>;

/// One call of `listen`.
pub(super) struct Listening<S: System> {
    id: ListenerId,
    sockets: Vec<Socket<S>>,
    factory: Factory,
    limits: Arc<Limits>,
}

struct Socket<S: System> {
    listener: S::Listener,
    addr: Endpoint,
    token: u32,
    ready: bool,
    pace: Pace,
}

/// A connection waits at the socket `number`.
pub(super) fn mark_ready<S: System>(listening: &mut [Listening<S>], number: u32) {
    for listener in listening {
        for socket in &mut listener.sockets {
            socket.ready |= socket.token == number;
        }
    }
}

impl<S: System> EventLoop<S> {
    /// Listens on `addr`.
    pub(crate) fn listen(
        &mut self,
        addr: &Address,
        options: ListenOptions,
        factory: Factory,
    ) -> Result<ListenerId> {
        if self.draining {
            return Err(stopped(addr));
        }
        let (id, sockets) = self.shared.binder.listen(addr, &options)?;
        self.adopt(id, sockets, Arc::new(options.limits), factory)?;
        Ok(id)
    }

    /// Listens with a socket that listens already.
    pub(crate) fn adopt_listener(
        &mut self,
        socket: OwnedFd,
        options: ListenOptions,
        factory: Factory,
    ) -> Result<ListenerId, Refused<OwnedFd>> {
        if self.draining {
            return Err(Refused { error: adopts_no_more(), payload: socket });
        }
        // Given back where the system cannot watch the socket.
        let kept = match socket.try_clone() {
            Ok(kept) => kept,
            Err(error) => {
                let error = Error::from_io(Op::Adopt, error);
                return Err(Refused { error, payload: socket });
            }
        };
        let (id, sockets) = self.shared.binder.adopt_listener(socket, &options)?;
        match self.adopt(id, sockets, Arc::new(options.limits), factory) {
            Ok(()) => Ok(id),
            Err(error) => Err(Refused { error, payload: kept }),
        }
    }

    /// Accepts from the sockets of the listener `id` from now on.
    pub(crate) fn adopt(
        &mut self,
        id: ListenerId,
        bound: Vec<Bound>,
        limits: Arc<Limits>,
        factory: Factory,
    ) -> Result<()> {
        let mut sockets = Vec::new();
        for Bound { addr, socket, .. } in bound {
            let Some(mut listener) = self.system.adopt(socket) else { continue };
            let token = self.next_socket;
            self.next_socket += 1;
            if let Err(error) = self.system.register_listener(&mut listener, token) {
                self.shared.binder.close(id);
                drop_guarded(factory);
                return Err(Error::from_io(Op::Listen, error).with_addr(addr));
            }
            // Connections may have come before the registration.
            sockets.push(Socket { listener, addr, token, ready: true, pace: Pace::default() });
        }
        self.listening.push(Listening { id, sockets, factory, limits });
        self.newcomers = true;
        Ok(())
    }

    /// Takes over a listener that a callback has begun, unless it was stopped since.
    pub(super) fn adopt_wished(
        &mut self,
        id: ListenerId,
        sockets: Vec<Bound>,
        limits: Arc<Limits>,
        factory: BoxedFactory,
    ) {
        let binder = &mut self.shared.binder;
        if self.draining || !binder.listeners.has(id) {
            binder.close(id);
            drop_guarded((sockets, factory));
            return;
        }
        let factory: Factory = Box::new(move |incoming| Some(factory(incoming)?));
        if let Err(error) = self.adopt(id, sockets, limits, factory) {
            log::error!(target: "lariat::accept", "{error}");
        }
    }

    /// Looks whether a socket may accept, and when those may that have to wait.
    pub(super) fn look_for_newcomers(&mut self) {
        let mut next = u64::MAX;
        if self.place() != Place::Wait {
            let sockets = self.listening.iter().flat_map(|listener| &listener.sockets);
            for socket in sockets.filter(|socket| socket.ready) {
                next = next.min(self.next_try(&socket.pace));
            }
        }
        self.newcomers = next == 0;
        self.set_retry(if next == 0 { u64::MAX } else { next });
    }

    /// When a socket may be tried; 0 when at once.
    fn next_try(&self, pace: &Pace) -> u64 {
        if !self.admission.may_wait(pace) {
            return 0;
        }
        let now = self.shared.clock.exact();
        let next = self.admission.next_try(pace, now);
        if next <= now { 0 } else { next }
    }

    fn set_retry(&mut self, at: u64) {
        match self.retry {
            Some((_, armed)) if armed == at => return,
            Some((key, _)) => {
                self.shared.timers.cancel(key);
            }
            None => {}
        }
        let arms = at < u64::MAX;
        self.retry = arms.then(|| (self.shared.timers.arm(at, TimerOwner::Accept), at));
    }

    /// The timer of the postponed accepts has fired: its turn looks again at its end.
    pub(super) fn retry_accepts(&mut self) {
        self.retry = None;
    }

    // ---- step 4 ------------------------------------------------------------------------------

    #[cold]
    pub(super) fn accept(&mut self) {
        // Callbacks may stop listeners meanwhile: they are only marked while the list is away.
        let mut listening = mem::take(&mut self.listening);
        self.accepting = true;
        // The first socket changes from turn to turn, so that a place that becomes free, or a
        // budget, does not always go to the same one.
        let turn = self.shared.metrics.turns as usize;
        let first = turn % listening.len().max(1);
        let (before, from) = listening.split_at_mut(first);
        for listener in from.iter_mut().chain(before) {
            let mut budget = self.limits.accepts_max;
            let sockets = listener.sockets.len();
            for at in (0..sockets).map(|at| (at + turn) % sockets) {
                while budget > 0 && self.may_accept(listener, at) {
                    budget -= 1;
                    if self.accept_one(listener, at) == Answer::Empty {
                        listener.sockets[at].ready = false;
                    }
                }
            }
        }
        self.accepting = false;
        listening.append(&mut self.listening);
        self.listening = listening;
        self.look_for_newcomers();
        for id in mem::take(&mut self.stopped) {
            self.stop_listening(id);
        }
        if self.draining {
            self.stop_all_listening();
        }
    }

    fn may_accept(&self, listener: &Listening<S>, at: usize) -> bool {
        let Socket { ready, pace, .. } = &listener.sockets[at];
        *ready
            && !self.draining
            && !self.stopped.contains(&listener.id)
            && self.place() != Place::Wait
            && self.next_try(pace) == 0
    }

    fn accept_one(&mut self, listener: &mut Listening<S>, at: usize) -> Answer {
        let place = self.place();
        let Socket { listener: socket, pace, .. } = &mut listener.sockets[at];
        let accepted = match socket.accept() {
            Err(error) if AcceptError::of(&error) == AcceptError::Exhausted => {
                self.admission.note_lack(pace);
                self.accept_exhausted(socket, error)
            }
            other => other,
        };
        match accepted {
            Ok((stream, peer)) => {
                let now = self.shared.clock.tick();
                self.admission.note_accepted(pace, now);
                if place == Place::Free && self.admission.admit(peer, now) {
                    self.admit(listener, at, stream, peer);
                } else {
                    self.shared.metrics.refused += 1;
                }
                Answer::Again
            }
            Err(error) => {
                let answer = self.admission.note_failed(pace, &error, self.shared.clock.exact());
                self.shared.metrics.accept_errors += u64::from(answer != Answer::Empty);
                answer
            }
        }
    }

    /// A resource is lacking. With the reserve one connection is accepted all the same. It is
    /// admitted if the reserve can be restored, in place of the longest lingering connection if
    /// there is one; otherwise it is turned away, and the others wait.
    fn accept_exhausted(
        &mut self,
        socket: &mut S::Listener,
        error: io::Error,
    ) -> io::Result<(S::Stream, Endpoint)> {
        let accepted = self.system.accept_with_reserve(socket);
        let restored = self.system.restore_reserve();
        match accepted {
            Ok(_) if restored || self.cut_oldest_lingering() => {
                self.system.restore_reserve();
                self.shared.metrics.accept_errors += 1;
                accepted
            }
            Ok(turned_away) => {
                drop(turned_away);
                self.system.restore_reserve();
                self.shared.metrics.refused += 1;
                Err(error)
            }
            // The system looks for a descriptor before it looks for a connection.
            Err(other) if restored || AcceptError::of(&other) == AcceptError::Empty => Err(other),
            Err(_) => Err(error),
        }
    }

    /// An accepted connection: the factory decides.
    fn admit(
        &mut self,
        listener: &mut Listening<S>,
        at: usize,
        mut stream: S::Stream,
        peer: Endpoint,
    ) {
        let bound = listener.sockets[at].addr;
        let incoming = Incoming::new(peer, listener.id, bound, stream.as_info());
        let protocol = match guarded(|| (listener.factory)(&incoming)) {
            Ok(Some(protocol)) => protocol,
            Ok(None) => {
                self.shared.metrics.refused += 1;
                return;
            }
            Err(panic) => {
                self.shared.metrics.panics += 1;
                self.shared.metrics.refused += 1;
                log::error!(target: "lariat::accept", "a factory panicked: {panic}");
                return;
            }
        };
        let id = self.shared.ids.reserve();
        if let Err(error) = self.system.register_stream(&mut stream, id) {
            self.admission.note_unwatched(peer, &error, self.shared.clock.exact());
            self.shared.metrics.accept_errors += 1;
            self.shared.ids.release(id);
            self.note_released(Released::Place);
            return self.drop_protocol(protocol);
        }
        let now = self.shared.clock.tick();
        self.admission.note_watched(now);
        let limits = Arc::clone(&listener.limits);
        self.shared.outputs.note(&limits);
        let conn = Connection::accepted(id, Some(listener.id), peer, limits, now);
        self.table.insert(Entry { conn, stream: Some(stream), protocol });
        self.shared.metrics.accepted += 1;
        self.shared.metrics.open += 1;
        self.admission.enter(id, peer);
        self.ask_for_filter(id, false);
        self.attend(id);
    }

    /// A listener to which the loop would not come back although it could accept.
    pub(super) fn forgotten_listener(&self) -> Option<String> {
        let place = self.place() != Place::Wait;
        let ready = |listener: &&Listening<S>| listener.sockets.iter().any(|socket| socket.ready);
        let listener = self.listening.iter().find(ready)?;
        let lost = place && (self.newcomers || self.retry.is_none());
        lost.then(|| format!("{} could accept and nobody tries", listener.id))
    }

    // ---- stopping ----------------------------------------------------------------------------

    pub(crate) fn stop_listening(&mut self, id: ListenerId) {
        self.shared.binder.close(id);
        let Some(at) = self.listening.iter().position(|listener| listener.id == id) else {
            if self.accepting {
                self.stopped.push(id);
            }
            return;
        };
        let listener = self.listening.remove(at);
        if guarded(move || drop(listener)).is_err() {
            self.shared.metrics.panics += 1;
        }
        self.note_released(Released::Descriptor);
    }

    pub(super) fn stop_all_listening(&mut self) {
        let ids: Vec<ListenerId> = self.listening.iter().map(|listener| listener.id).collect();
        for id in ids {
            self.stop_listening(id);
        }
    }
}
