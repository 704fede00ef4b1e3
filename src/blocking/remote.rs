//! Requests of other threads: where they wait, and that each is carried out, given back or counted.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::bell::lock;
use super::cell::Signal;
use super::hub::Hub;
use super::outlet::Outlet;
use crate::clock::nanos;
use crate::episode::Earlier;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::guard::drop_guarded;
use crate::handle::{Post, Remote};
use crate::id::{ConnId, ListenerId};
use crate::metrics::Metrics;
use crate::protocol::{Common, Home, SendClosure, TimerId};
use crate::sync::atomic::Ordering;

impl Hub {
    /// Takes a request of a handle, or says why not. What `make` makes is the user's: no lock that
    /// is held here is ever held while user code runs.
    fn post(self: &Arc<Hub>, make: &mut dyn FnMut() -> Option<Post>) -> Result<()> {
        let mut state = lock(&self.state);
        if state.ended {
            return Err(Error::new(ErrorKind::Stopped, Op::Post));
        }
        if self.posted.load(Ordering::Acquire) >= self.limits.posts_max {
            return Err(Error::new(ErrorKind::Full, Op::Post));
        }
        let Some(post) = make() else { return Ok(()) };
        self.posted.fetch_add(1, Ordering::AcqRel);
        let to = match post {
            Post::Call(call) => {
                state.calls.push_back(call);
                self.call_runner(&state);
                return Ok(());
            }
            Post::Write { to, .. } | Post::Notify { to, .. } => to,
            Post::ShutdownWrite(to) | Post::Close(to) => to,
        };
        if let Some(outlet) = state.outlets.get(&to).cloned() {
            drop(state);
            self.ask_outlet(&outlet, post);
            return Ok(());
        }
        match state.cells.get(&to).cloned() {
            Some(cell) => {
                let back = cell.deliver(post).err();
                drop(state);
                self.drop_posts(back);
                self.nudge(&cell);
            }
            None if lock(&self.ids).is_current(to) => {
                state.early.entry(to).or_default().posts.push(post);
            }
            None => {
                drop(state);
                self.drop_posts([post]);
            }
        }
        Ok(())
    }

    pub(super) fn abort(self: &Arc<Hub>, id: ConnId) {
        let mut state = lock(&self.state);
        if let Some(cell) = state.cells.get(&id).cloned() {
            drop(state);
            cell.signal(Signal::Abort);
            self.nudge(&cell);
        } else if let Some(outlet) = state.outlets.get(&id).cloned() {
            drop(state);
            if outlet.ask(|requests| requests.abort = true) {
                self.accompany_outlet(&outlet);
            }
        } else if lock(&self.ids).is_current(id) {
            state.early.entry(id).or_default().abort = true;
        } else {
            state.metrics.stale += 1;
        }
    }

    /// Hands a request, which is counted, to a datagram socket. No lock is held.
    pub(super) fn ask_outlet(self: &Arc<Hub>, outlet: &Arc<Outlet>, post: Post) {
        match outlet.deliver(post) {
            Ok(true) => self.accompany_outlet(outlet),
            Ok(false) => {}
            Err(back) => self.drop_posts([back]),
        }
    }

    /// Requests have been taken.
    pub(super) fn count_taken(&self, count: usize) {
        self.posted.fetch_sub(count, Ordering::AcqRel);
    }

    /// Requests for a connection that is gone. No lock is held.
    pub(super) fn drop_posts(&self, posts: impl IntoIterator<Item = Post>) {
        for post in posts {
            self.count_taken(1);
            self.count(|metrics| metrics.stale += 1);
            drop_guarded(post);
        }
    }

    /// An id whose connection never was. No lock is held.
    pub(super) fn forget(&self, id: ConnId) {
        self.release(id);
        let early = lock(&self.state).early.remove(&id);
        self.drop_posts(early.unwrap_or_default().posts);
    }

    /// From now on nothing is taken.
    pub(super) fn end(&self) {
        self.job_threads.close();
        let mut state = lock(&self.state);
        state.ended = true;
        let calls = mem::take(&mut state.calls);
        let early = mem::take(&mut state.early);
        let alarms = state.alarms.take_all();
        drop(state);
        for closure in alarms {
            drop_guarded(closure);
        }
        for call in calls {
            self.count_taken(1);
            drop_guarded(call);
        }
        self.drop_posts(early.into_values().flat_map(|early| early.posts));
    }
}

impl Home for Hub {
    fn bring(&self, closure: SendClosure) {
        let mut state = lock(&self.state);
        if state.ended {
            drop(state);
            drop_guarded(closure);
            return;
        }
        self.posted.fetch_add(1, Ordering::AcqRel);
        state.calls.push_back(closure);
        self.call_runner(&state);
    }
}

impl Common for Hub {
    fn metrics(&self) -> Metrics {
        Hub::metrics(self)
    }

    fn set_timer(&self, delay: Duration, closure: SendClosure) -> TimerId {
        let deadline = self.clock.exact().saturating_add(nanos(delay));
        let mut state = lock(&self.state);
        let timer = state.alarms.set(deadline, closure);
        // Nobody runs it any more, and it may hold what holds the hub.
        let late = if state.ended { state.alarms.take_all() } else { Vec::new() };
        self.call_runner(&state);
        drop(state);
        for closure in late {
            drop_guarded(closure);
        }
        timer
    }

    fn stop_listening(&self, listener: ListenerId) {
        Hub::stop_listening(self, listener);
    }

    fn note_late_write(&self, now: u64) -> Option<Earlier> {
        self.late_writes.note(now)
    }

    fn cancel_timer(&self, timer: TimerId) -> Option<SendClosure> {
        let mut state = lock(&self.state);
        let closure = state.alarms.cancel(timer);
        // The last one may be what `run` has waited for.
        self.call_runner(&state);
        closure
    }

    fn unsent(&self, id: ConnId) -> usize {
        let of_outlet = || self.outlet(id).map(|outlet| outlet.unsent.load(Ordering::Relaxed));
        self.cell(id).map(|cell| cell.gauges().unsent).or_else(of_outlet).unwrap_or(0)
    }

    fn take_place(&self) -> bool {
        Hub::take_place(self)
    }

    fn give_place(&self) {
        Hub::give_place(self);
    }
}

/// The remote keeps the hub, not the other way round.
pub(super) struct HubRemote(pub(super) Arc<Hub>);

impl Remote for HubRemote {
    fn post(&self, make: &mut dyn FnMut() -> Option<Post>) -> Result<()> {
        self.0.post(make)
    }

    fn abort(&self, id: ConnId) {
        self.0.abort(id);
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn metrics(&self) -> Metrics {
        self.0.metrics()
    }

    fn is_ended(&self) -> bool {
        lock(&self.0.state).ended
    }
}
