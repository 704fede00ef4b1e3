//! A thread per listening socket, which sleeps in `accept`.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::cell::Cell;
use super::hub::{Hub, Socket, lock};
use super::system::TcpStream;
use super::{reading, start_thread};
use crate::clock::nanos;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, Op, Result};
use crate::guard::{drop_guarded, guarded};
use crate::id::ListenerId;
use crate::limits::{Limits, Overload};
use crate::protocol::{BoxedFactory, Incoming, Protocol};
use crate::socket::{AcceptError, Reserve, retry};
use crate::sync::atomic::Ordering;
use crate::sync::thread;

/// The back-off after a lack of descriptors: from the first to the second, doubling.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After so long without a failure the lack is over, and the next one begins anew.
const OVER: u64 = 2 * 1_000_000_000;

/// What a listening thread needs.
pub(super) struct Acceptor {
    pub(super) id: ListenerId,
    pub(super) socket: Arc<Socket>,
    pub(super) factory: Arc<BoxedFactory>,
    pub(super) limits: Arc<Limits>,
}

/// A lack of descriptors, as one listening thread knows it.
#[derive(Default)]
struct Lack {
    /// The length of the present back-off; zero when no descriptors are lacking.
    backoff: Duration,
    /// When an accept last failed.
    failed: u64,
    /// When an accept was noted as one that may fail, for which the next that fails stands.
    noted: Option<u64>,
    /// How many descriptors of ours had been released when the accept failed.
    released: u64,
}

impl Acceptor {
    pub(super) fn start(self, hub: &Arc<Hub>) -> Result<()> {
        hub.acceptor_started();
        let serial = hub.serial.load(Ordering::Relaxed);
        let owned = Arc::clone(hub);
        let started = thread::Builder::new().name(format!("lariat {}", self.id)).spawn(move || {
            self.accept_all(&owned, serial);
            drop_guarded(self);
            owned.acceptor_ended();
        });
        if started.is_err() {
            hub.acceptor_ended();
        }
        started.map(drop).map_err(|error| Error::from_io(Op::Start, error))
    }

    fn accept_all(&self, hub: &Arc<Hub>, serial: bool) {
        let mut reserve = Reserve::new();
        let mut lack = Lack::default();
        while !self.socket.is_stopped() {
            if hub.limits.overload == Overload::Pause {
                hub.wait_for_room(&self.socket);
            }
            let accepted = match self.accept() {
                Err(error) if AcceptError::of(&error) == AcceptError::Exhausted => {
                    self.accept_exhausted(hub, &mut reserve, &mut lack, error)
                }
                other => other,
            };
            if self.socket.is_stopped() {
                return;
            }
            match accepted {
                Ok((stream, peer)) => {
                    lack.note_accepting(hub.clock.exact());
                    if hub.claim(&self.socket) {
                        self.admit(hub, stream, peer, serial);
                    } else {
                        hub.count(|metrics| metrics.refused += 1);
                    }
                }
                Err(error) => self.handle_failure(hub, &mut lack, &error),
            }
        }
    }

    fn accept(&self) -> io::Result<(TcpStream, Endpoint)> {
        let (stream, peer) = retry(|| self.socket.listener.accept())?;
        Ok((stream, peer.into()))
    }

    /// No descriptor is left, which the system says also when nobody waits. The next newcomer is
    /// accepted with the reserve; if there still is no other descriptor then, it is turned away.
    fn accept_exhausted(
        &self,
        hub: &Hub,
        reserve: &mut Reserve,
        lack: &mut Lack,
        error: io::Error,
    ) -> io::Result<(TcpStream, Endpoint)> {
        reserve.free();
        let accepted = self.accept();
        // Whatever is released before this serves as the reserve.
        lack.released = lock(&hub.state).released;
        if reserve.restore() {
            return accepted;
        }
        if accepted.is_ok() {
            hub.count(|metrics| metrics.refused += 1);
            if lack.backoff.is_zero() {
                log::warn!(target: "lariat::accept", "{error}; a newcomer was turned away");
            }
        }
        drop(accepted);
        reserve.restore();
        Err(error)
    }

    /// Waits where the next accept would fail as well: it is tried again when a descriptor of ours
    /// is released, and after a while in any case.
    fn handle_failure(&self, hub: &Hub, lack: &mut Lack, error: &io::Error) {
        hub.count(|metrics| metrics.accept_errors += 1);
        match AcceptError::of(error) {
            AcceptError::Empty | AcceptError::Next => {
                log::debug!(target: "lariat::accept", "{error}");
            }
            kind @ (AcceptError::Exhausted | AcceptError::Broken) => {
                if kind == AcceptError::Broken {
                    lack.released = lock(&hub.state).released;
                }
                if lack.backoff.is_zero() {
                    log::warn!(target: "lariat::accept", "{error}; newcomers have to wait");
                }
                lack.backoff = (lack.backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
                hub.wait_for_descriptor(lack, &self.socket);
            }
        }
    }

    /// A newcomer, which has a place: the factory decides.
    fn admit(&self, hub: &Arc<Hub>, stream: TcpStream, peer: Endpoint, serial: bool) {
        let Some(protocol) = self.make(hub, peer) else {
            hub.count(|metrics| metrics.refused += 1);
            return hub.unclaim();
        };
        let id = lock(&hub.ids).reserve();
        let limits = Arc::clone(&self.limits);
        let conn = Connection::accepted(id, self.id, peer, limits, hub.clock.exact());
        let cell = Cell::new(id, conn, protocol, Some(stream));
        hub.enter_claimed(&cell);
        if serial {
            reading::run(hub, &cell);
            drop(cell);
            hub.note_released();
        } else {
            start_thread(hub, cell, reading::run);
        }
    }

    fn make(&self, hub: &Hub, peer: Endpoint) -> Option<Box<dyn Protocol + Send>> {
        let incoming = Incoming { peer, listener: self.id };
        guarded(|| (self.factory)(&incoming)).unwrap_or_else(|panic| {
            log::error!(target: "lariat::accept", "a factory panicked: {panic}");
            hub.count(|metrics| metrics.panics += 1);
            None
        })
    }
}

impl Lack {
    /// An accept has succeeded. Only when none has failed for a while is the lack over: as long as
    /// descriptors come and go, the back-off keeps its length and the log its peace.
    fn note_accepting(&mut self, now: u64) {
        if !self.backoff.is_zero() && now.saturating_sub(self.failed) >= OVER {
            log::info!(target: "lariat::accept", "accepting again");
            self.backoff = Duration::ZERO;
        }
    }
}

impl Hub {
    /// Waits after a failed accept until a descriptor of ours is released, at most for the
    /// back-off; longer only when too many accepts have failed lately. What is tried next is noted
    /// before it can fail: several listeners may wait.
    fn wait_for_descriptor(&self, lack: &mut Lack, socket: &Socket) {
        let mut state = lock(&self.state);
        let mut now = self.clock.exact();
        if let Some(noted) = lack.noted {
            state.failures.forget(noted);
        }
        state.failures.note(now);
        lack.failed = now;
        let until = now.saturating_add(nanos(lack.backoff));
        while !socket.is_stopped() {
            let sooner = state.failures.next(now);
            let next = if state.released == lack.released { sooner.max(until) } else { sooner };
            if next <= now {
                break;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_nanos(next - now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            now = self.clock.exact();
        }
        state.failures.note(now);
        lack.noted = Some(now);
    }

    /// A descriptor has been released, and not by the thread of a connection.
    pub(super) fn note_released(&self) {
        lock(&self.state).released += 1;
        self.changed.notify_all();
    }
}
