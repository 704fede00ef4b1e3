//! The state of a connection that is kept, and the only code that changes it.
//!
//! It belongs to all of its users together: the protocol of the connection, the timer of the delay,
//! and the remotes. Each of them may be on a thread of its own, so a lock is around it. The user's
//! code never runs under that lock; it is taken out of the state while it runs.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::kept::Kept;
use super::{Attempt, Backoff, Ended, OnEnd, Until};
use crate::address::Address;
use crate::guard::drop_guarded;
use crate::id::ConnId;
use crate::options::ConnectOptions;
use crate::protocol::{Control, Protocol, TimerId};
use crate::reason::CloseReason;
use crate::sync::{Mutex, MutexGuard};

/// The code of the user.
pub(super) struct Code {
    pub(super) make: Make,
    pub(super) until: Option<Until>,
    pub(super) on_end: Option<OnEnd>,
}

pub(super) type Make = Box<dyn FnMut(&Attempt) -> Box<dyn Protocol + Send> + Send>;

/// One kept connection.
pub(super) struct Keeping(Mutex<State>);

struct State {
    phase: Phase,
    addr: Address,
    options: ConnectOptions,
    backoff: Backoff,
    /// Attempts begun.
    attempts: u64,
    /// Failures in a row.
    failures: u32,
    /// When the connection of now has opened.
    opened: Option<Instant>,
    last: Option<CloseReason>,
    /// None while it runs, and in the end.
    code: Option<Code>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The user's code runs, which decides what comes next.
    Deciding,
    /// A connection is open or being made.
    Connection(ConnId),
    /// This timer begins the next attempt.
    Waiting(TimerId),
    /// There will be no further attempt.
    Over,
}

impl State {
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The next attempt begins: it needs the code, which is put back afterwards.
    fn begin(&mut self) -> Option<(Attempt, Code)> {
        let code = self.code.take()?;
        self.phase = Phase::Deciding;
        self.attempts += 1;
        let State { attempts: number, failures, .. } = *self;
        Some((Attempt { number, failures, last: self.last.clone() }, code))
    }

    /// The connection has ended.
    fn end(&mut self, reason: &CloseReason, now: Instant) -> Option<Code> {
        let healthy = |opened| now.saturating_duration_since(opened) >= self.backoff.healthy;
        self.failures = match self.opened.take() {
            Some(opened) if healthy(opened) => 1,
            _ => self.failures.saturating_add(1),
        };
        self.last = Some(reason.clone());
        if !self.is_over() {
            self.phase = Phase::Deciding;
        }
        self.code.take()
    }

    /// There will be no further attempt. Returns the code, to be dropped without the lock.
    fn finish(&mut self) -> Option<Code> {
        self.phase = Phase::Over;
        self.code.take()
    }
}

/// Without this, code that panics would leave a state in which nothing happens any more.
struct Finishing<'a>(&'a Keeping);

impl Drop for Finishing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().phase = Phase::Over;
        }
    }
}

/// What the timer of a delay does; or what becomes of it if it never fires, because the driver has
/// ended.
struct Due(Arc<Keeping>);

impl Drop for Due {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let code = if matches!(state.phase, Phase::Waiting(_)) { state.finish() } else { None };
        drop(state);
        drop_guarded(code);
    }
}

impl Keeping {
    pub(super) fn new(
        addr: Address,
        options: ConnectOptions,
        backoff: Backoff,
        code: Code,
    ) -> Keeping {
        Keeping(Mutex::new(State {
            phase: Phase::Deciding,
            addr,
            options,
            backoff,
            attempts: 0,
            failures: 0,
            opened: None,
            last: None,
            code: Some(code),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an attempt.
    pub(super) fn connect(self: &Arc<Keeping>, control: &mut Control<'_>) {
        let Some((attempt, mut code)) = self.lock().begin() else { return };
        let finishing = Finishing(self);
        let protocol = (code.make)(&attempt);
        drop(finishing);
        let mut state = self.lock();
        if state.is_over() {
            drop(state);
            drop_guarded((code, protocol));
            return;
        }
        state.code = Some(code);
        let (addr, options) = (state.addr.clone(), state.options.clone());
        // It only queues the request, so it may be made under the lock.
        let kept = Kept::new(protocol, Arc::clone(self));
        state.phase = match control.connect_with(addr, options, kept) {
            Ok(id) => Phase::Connection(id),
            Err(_) => Phase::Over,
        };
    }

    pub(super) fn handle_opened(&self, now: Instant) {
        self.lock().opened.get_or_insert(now);
    }

    /// The connection has ended, or was never made.
    pub(super) fn handle_end(self: &Arc<Keeping>, control: &mut Control<'_>, reason: &CloseReason) {
        let now = control.now();
        let mut state = self.lock();
        let over = state.is_over() || control.is_stopping();
        let Some(mut code) = state.end(reason, now) else { return };
        let (attempt, failures) = (state.attempts, state.failures);
        let gives_up = over || state.backoff.gives_up(failures);
        let backoff = state.backoff.clone();
        drop(state);

        let finishing = Finishing(self);
        let last = code.until.as_mut().is_some_and(|until| until(reason));
        let random = &mut control.shared_mut().random;
        let delay = (!gives_up && !last).then(|| backoff.delay(failures, random));
        if let Some(on_end) = &mut code.on_end {
            on_end(control, &Ended { attempt, failures, reason, delay });
        }
        drop(finishing);

        let mut state = self.lock();
        match delay {
            Some(delay) if !state.is_over() => {
                state.code = Some(code);
                let due = Due(Arc::clone(self));
                // Under the lock: another thread may run it at once.
                let timer = control.set_timer(delay, move |control| due.0.handle_timer(control));
                state.phase = Phase::Waiting(timer);
            }
            _ => {
                state.phase = Phase::Over;
                drop(state);
                drop_guarded(code);
            }
        }
    }

    fn handle_timer(self: &Arc<Keeping>, control: &mut Control<'_>) {
        let waits = matches!(self.lock().phase, Phase::Waiting(_));
        if waits && !control.is_stopping() {
            self.connect(control);
        }
    }

    pub(super) fn stop(&self, control: &mut Control<'_>) {
        let mut state = self.lock();
        let phase = std::mem::replace(&mut state.phase, Phase::Over);
        let code = match phase {
            Phase::Waiting(_) => state.finish(),
            // It is called once more.
            _ => None,
        };
        drop(state);
        match phase {
            Phase::Waiting(timer) => {
                control.cancel_timer(timer);
            }
            Phase::Connection(id) => control.peer(id).close(),
            Phase::Deciding | Phase::Over => {}
        }
        drop_guarded(code);
    }

    pub(super) fn put_addr(&self, addr: Address) {
        self.lock().addr = addr;
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.lock().phase {
            Phase::Connection(id) => Some(id),
            _ => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::{By, CloseKind};
    use std::time::Duration;

    fn reason() -> CloseReason {
        CloseReason {
            by: By::Peer,
            kind: CloseKind::Reset,
            cause: None,
            unsent: 0,
            unread: 0,
            refused: 0,
            bytes_in: 0,
            bytes_out: 0,
            age: Duration::ZERO,
            peer_finished: false,
        }
    }

    fn keeping() -> Keeping {
        let code = Code { make: Box::new(|_| unreachable!()), until: None, on_end: None };
        Keeping::new("10.0.0.1:1".into(), ConnectOptions::default(), Backoff::default(), code)
    }

    #[test]
    fn a_connection_that_was_open_for_the_healthy_period_counts_as_a_first_failure() {
        let (keeping, begun) = (keeping(), Instant::now());
        let healthy = Backoff::default().healthy;
        let nanosecond = Duration::from_nanos(1);
        for (open, failures) in [
            (None, 1),
            (Some(healthy - nanosecond), 2),
            (None, 3),
            (Some(healthy), 1),
            (Some(Duration::ZERO), 2),
            (Some(healthy + nanosecond), 1),
            (None, 2),
        ] {
            if open.is_some() {
                keeping.handle_opened(begun);
                // A protocol that takes over opens again: the connection is no younger for that.
                keeping.handle_opened(begun + Duration::from_secs(5));
            }
            let mut state = keeping.lock();
            let code = state.end(&reason(), begun + open.unwrap_or(healthy * 9));
            state.code = code;
            assert_eq!(state.failures, failures, "after {open:?}");
        }
    }

    #[test]
    fn failures_are_counted_without_an_overflow() {
        let keeping = keeping();
        let mut state = keeping.lock();
        state.failures = u32::MAX;
        state.end(&reason(), Instant::now());
        assert_eq!(state.failures, u32::MAX);
    }
}
