//! Listeners: accepting within bounds, and waiting when a bound is reached.
//!
//! Edge-triggered readiness tells of a newcomer once. Whenever accepting stops before the queue is
//! empty (budget, `connections_max`, no descriptor), the listener remembers that it is ready and
//! the loop comes back by itself.

use std::io;
use std::mem;
use std::sync::Arc;

use super::system::{Listener, System};
use super::table::Entry;
use super::{EventLoop, Released};
use crate::address::Address;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, Op, Result};
use crate::guard::{drop_guarded, guarded};
use crate::id::ListenerId;
use crate::limits::{Limits, Overload};
use crate::protocol::{
    Bound, BoxedFactory, Incoming, ListenOptions, Protocol, TimerOwner, stopped,
};
use crate::socket::AcceptError;
use crate::timer::TimerKey;

const MILLISECOND: u64 = 1_000_000;
/// The back-off after a lack of descriptors: from the first to the second, doubling.
const BACKOFF_FIRST: u64 = 10 * MILLISECOND;
const BACKOFF_MAX: u64 = 1000 * MILLISECOND;
/// After so long without a failure the lack is over, and the next one begins anew.
const OVER: u64 = 2 * BACKOFF_MAX;

/// Makes protocols for newcomers.
pub(crate) type Factory = Box<dyn FnMut(&Incoming) -> Option<Box<dyn Protocol>>>;

/// One call of `listen`.
pub(super) struct Listening<S: System> {
    id: ListenerId,
    sockets: Vec<Socket<S>>,
    factory: Factory,
    limits: Arc<Limits>,
    wait: Wait,
    /// The length of the present back-off; 0 when no descriptors are lacking.
    backoff: u64,
    /// When an accept last failed for lack of a descriptor.
    failed: u64,
}

struct Socket<S: System> {
    listener: S::Listener,
    token: u32,
    ready: bool,
}

/// What a listener waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Newcomers,
    /// `connections_max` is reached.
    Room,
    /// Descriptors lack: until this timer, or until one of ours is released.
    Descriptors(TimerKey),
}

/// What one attempt to accept came to.
enum Attempt {
    Again,
    Empty,
    Wait,
}

/// A newcomer waits at the socket `number`.
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

    /// Accepts from the sockets of the listener `id` from now on.
    pub(crate) fn adopt(
        &mut self,
        id: ListenerId,
        bound: Vec<Bound>,
        limits: Arc<Limits>,
        factory: Factory,
    ) -> Result<()> {
        let mut sockets = Vec::new();
        for Bound { addr, socket } in bound {
            let Some(mut listener) = self.system.adopt(socket) else { continue };
            let token = self.next_socket;
            self.next_socket += 1;
            self.system.register_listener(&mut listener, token).map_err(|error| {
                self.shared.binder.listeners.remove(id);
                Error::from_io(Op::Listen, error).with_addr(addr)
            })?;
            // Newcomers may have come before the registration.
            sockets.push(Socket { listener, token, ready: true });
        }
        self.listening.push(Listening {
            id,
            sockets,
            factory,
            limits,
            wait: Wait::Newcomers,
            backoff: 0,
            failed: 0,
        });
        self.newcomers = true;
        Ok(())
    }

    /// Takes over what a callback has begun to listen on, unless it was stopped since.
    pub(super) fn adopt_wished(
        &mut self,
        id: ListenerId,
        sockets: Vec<Bound>,
        limits: Arc<Limits>,
        factory: BoxedFactory,
    ) {
        let listeners = &self.shared.binder.listeners;
        if self.draining || !listeners.has(id) {
            listeners.remove(id);
            drop_guarded((sockets, factory));
            return;
        }
        let factory: Factory = Box::new(move |incoming| Some(factory(incoming)?));
        if let Err(error) = self.adopt(id, sockets, limits, factory) {
            log::error!(target: "lariat::accept", "{error}");
        }
    }

    fn look_for_newcomers(&mut self) {
        self.newcomers = self.listening.iter().any(|listener| {
            listener.wait == Wait::Newcomers && listener.sockets.iter().any(|socket| socket.ready)
        });
    }

    // ---- step 4 ------------------------------------------------------------------------------

    #[cold]
    pub(super) fn accept(&mut self) {
        // Callbacks may stop listeners meanwhile: they are only marked while the list is away.
        let mut listening = mem::take(&mut self.listening);
        self.accepting = true;
        // Who comes first changes from turn to turn, so that a place that becomes free, or a
        // budget, is not always that of the same.
        let turn = self.shared.metrics.turns as usize;
        let first = turn % listening.len().max(1);
        let (before, from) = listening.split_at_mut(first);
        for listener in from.iter_mut().chain(before) {
            let mut budget = self.limits.accepts_max;
            let sockets = listener.sockets.len();
            for at in (0..sockets).map(|at| (at + turn) % sockets) {
                while listener.sockets[at].ready && budget > 0 {
                    let stopped = self.draining || self.stopped.contains(&listener.id);
                    if stopped || listener.wait != Wait::Newcomers {
                        break;
                    }
                    budget -= 1;
                    match self.accept_one(listener, at) {
                        Attempt::Again => {}
                        Attempt::Empty => listener.sockets[at].ready = false,
                        Attempt::Wait => break,
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

    fn accept_one(&mut self, listener: &mut Listening<S>, at: usize) -> Attempt {
        let full = self.shared.metrics.open >= self.limits.connections_max as u64;
        if full && self.limits.overload == Overload::Pause {
            log::debug!(
                target: "lariat::accept",
                "{} connections are open; newcomers wait", self.limits.connections_max,
            );
            listener.wait = Wait::Room;
            return Attempt::Wait;
        }
        match listener.sockets[at].listener.accept() {
            Ok((stream, peer)) => {
                if listener.backoff > 0 {
                    self.note_accepting(listener);
                }
                if full {
                    self.shared.metrics.refused += 1;
                } else {
                    self.admit(listener, stream, peer);
                }
                Attempt::Again
            }
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Empty => Attempt::Empty,
                AcceptError::Next => {
                    log::debug!(target: "lariat::accept", "{error}");
                    self.shared.metrics.accept_errors += 1;
                    Attempt::Again
                }
                AcceptError::Exhausted => self.handle_exhausted(listener, at, &error),
                AcceptError::Broken => {
                    self.back_off(listener, &error, "this listener cannot accept any more");
                    Attempt::Wait
                }
            },
        }
    }

    /// A newcomer: the factory decides.
    fn admit(&mut self, listener: &mut Listening<S>, mut stream: S::Stream, peer: Endpoint) {
        let incoming = Incoming { peer, listener: listener.id };
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
            log::warn!(target: "lariat::accept", "cannot watch the connection of {peer}: {error}");
            self.shared.metrics.accept_errors += 1;
            self.shared.ids.release(id);
            self.note_released(Released::Place);
            return self.drop_protocol(protocol);
        }
        let now = self.shared.clock.tick();
        let limits = Arc::clone(&listener.limits);
        let conn = Connection::accepted(id, listener.id, peer, limits, now);
        self.table.insert(Entry { conn, stream: Some(stream), protocol });
        self.shared.metrics.accepted += 1;
        self.shared.metrics.open += 1;
        self.ask_for_filter(id, false);
        self.attend(id);
    }

    /// No descriptor, or no memory. With the reserve one newcomer is accepted all the same: it gets
    /// the descriptor of the connection that has lingered for longest, or is turned away; the
    /// others wait.
    fn handle_exhausted(
        &mut self,
        listener: &mut Listening<S>,
        at: usize,
        error: &io::Error,
    ) -> Attempt {
        match self.system.accept_with_reserve(&mut listener.sockets[at].listener) {
            // The system looks for a descriptor before it looks for a newcomer.
            Err(empty) if AcceptError::of(&empty) == AcceptError::Empty => {
                self.system.restore_reserve();
                return Attempt::Empty;
            }
            Ok((stream, peer)) if self.cut_oldest_lingering() => {
                self.system.restore_reserve();
                self.admit(listener, stream, peer);
                return Attempt::Again;
            }
            Ok(turned_away) => {
                drop(turned_away);
                self.shared.metrics.refused += 1;
            }
            Err(_) => {}
        }
        self.system.restore_reserve();
        self.back_off(listener, error, "newcomers are turned away or wait for a descriptor");
        Attempt::Wait
    }

    fn back_off(&mut self, listener: &mut Listening<S>, error: &io::Error, meaning: &str) {
        self.shared.metrics.accept_errors += 1;
        if listener.backoff == 0 {
            log::warn!(target: "lariat::accept", "{error}; {meaning}");
        }
        let now = self.shared.clock.exact();
        self.failures.note(now);
        listener.failed = now;
        listener.backoff = (listener.backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
        let until = now.saturating_add(listener.backoff);
        let key = self.shared.timers.arm(until, TimerOwner::Listener(listener.id));
        listener.wait = Wait::Descriptors(key);
    }

    /// An accept has succeeded. Only when none has failed for a while is the lack over: as long as
    /// descriptors come and go, the back-off keeps its length and the log its peace.
    fn note_accepting(&self, listener: &mut Listening<S>) {
        if self.shared.clock.tick().saturating_sub(listener.failed) >= OVER {
            log::info!(target: "lariat::accept", "accepting again");
            listener.backoff = 0;
        }
    }

    pub(super) fn end_backoff(&mut self, id: ListenerId) {
        for listener in self.listening.iter_mut().filter(|listener| listener.id == id) {
            listener.wait = Wait::Newcomers;
        }
        self.look_for_newcomers();
    }

    /// A place or a descriptor was released: whoever waited for one tries again, in this turn's
    /// successor, which does not sleep.
    pub(super) fn retry_listeners(&mut self) {
        let released = mem::replace(&mut self.released, Released::Nothing);
        let room = self.shared.metrics.open < self.limits.connections_max as u64;
        let sooner = self.failures.next(self.shared.clock.exact());
        for listener in &mut self.listening {
            match listener.wait {
                Wait::Room if room => listener.wait = Wait::Newcomers,
                Wait::Descriptors(key) if released == Released::Descriptor => {
                    if sooner <= self.shared.clock.exact() {
                        self.shared.timers.cancel(key);
                        listener.wait = Wait::Newcomers;
                    } else if self.shared.timers.deadline(key).is_some_and(|at| at > sooner) {
                        self.shared.timers.cancel(key);
                        let owner = TimerOwner::Listener(listener.id);
                        listener.wait = Wait::Descriptors(self.shared.timers.arm(sooner, owner));
                    }
                }
                _ => {}
            }
        }
        self.look_for_newcomers();
    }

    // ---- stopping ----------------------------------------------------------------------------

    pub(crate) fn stop_listening(&mut self, id: ListenerId) {
        self.shared.binder.listeners.remove(id);
        let Some(at) = self.listening.iter().position(|listener| listener.id == id) else {
            if self.accepting {
                self.stopped.push(id);
            }
            return;
        };
        let listener = self.listening.remove(at);
        if let Wait::Descriptors(key) = listener.wait {
            self.shared.timers.cancel(key);
        }
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
