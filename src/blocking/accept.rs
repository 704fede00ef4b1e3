//! A thread per listening socket, which sleeps in `accept`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cell::Cell;
use super::hub::{Hub, Socket, lock};
use super::system::TcpStream;
use super::{reading, start_thread};
use crate::connection::Connection;
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

/// What a listening thread needs.
pub(super) struct Acceptor {
    pub(super) id: ListenerId,
    pub(super) socket: Arc<Socket>,
    pub(super) factory: Arc<BoxedFactory>,
    pub(super) limits: Arc<Limits>,
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
        let mut backoff = Duration::ZERO;
        while !self.socket.is_stopped() {
            if hub.limits.overload == Overload::Pause {
                hub.wait_for_room(&self.socket);
            }
            let accepted = match self.accept(hub) {
                Err(error) if AcceptError::of(&error) == AcceptError::Exhausted => {
                    self.accept_exhausted(hub, &mut reserve, &mut backoff, error)
                }
                other => other,
            };
            if self.socket.is_stopped() {
                return;
            }
            match accepted {
                Ok((stream, peer)) => {
                    if !backoff.is_zero() {
                        log::info!(target: "lariat::accept", "accepting again");
                        backoff = Duration::ZERO;
                    }
                    if hub.claim(&self.socket) {
                        self.admit(hub, stream, peer, serial);
                    } else {
                        hub.count(|metrics| metrics.refused += 1);
                    }
                }
                Err(error) => self.handle_failure(hub, &mut backoff, &error),
            }
        }
    }

    fn accept(&self, hub: &Hub) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = retry(|| self.socket.listener.accept());
        // The last one fails because it was woken.
        if accepted.is_err() && !self.socket.is_stopped() {
            hub.count(|metrics| metrics.accept_errors += 1);
        }
        accepted
    }

    /// No descriptor is left, which the system says also when nobody waits. The next newcomer is
    /// accepted with the reserve; if there still is no other descriptor then, it is turned away.
    fn accept_exhausted(
        &self,
        hub: &Hub,
        reserve: &mut Reserve,
        backoff: &mut Duration,
        error: io::Error,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        reserve.free();
        let accepted = self.accept(hub);
        if reserve.restore() {
            return accepted;
        }
        if accepted.is_ok() {
            hub.count(|metrics| metrics.refused += 1);
            if backoff.is_zero() {
                log::warn!(target: "lariat::accept", "{error}; a newcomer was turned away");
            }
        }
        drop(accepted);
        reserve.restore();
        Err(error)
    }

    /// Waits where the next accept would fail as well: it is tried again when a descriptor of ours
    /// is released, and after a while in any case.
    fn handle_failure(&self, hub: &Hub, backoff: &mut Duration, error: &io::Error) {
        match AcceptError::of(error) {
            AcceptError::Empty | AcceptError::Next => {
                log::debug!(target: "lariat::accept", "{error}");
            }
            AcceptError::Exhausted | AcceptError::Broken => {
                if backoff.is_zero() {
                    log::warn!(target: "lariat::accept", "{error}; newcomers have to wait");
                }
                *backoff = (*backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
                hub.wait_for_descriptor(*backoff, &self.socket);
            }
        }
    }

    /// A newcomer, which has a place: the factory decides.
    fn admit(&self, hub: &Arc<Hub>, stream: TcpStream, peer: SocketAddr, serial: bool) {
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
        } else {
            start_thread(hub, cell, reading::run);
        }
    }

    fn make(&self, hub: &Hub, peer: SocketAddr) -> Option<Box<dyn Protocol + Send>> {
        let incoming = Incoming { peer, listener: self.id };
        guarded(|| (self.factory)(&incoming)).unwrap_or_else(|panic| {
            log::error!(target: "lariat::accept", "a factory panicked: {panic}");
            hub.count(|metrics| metrics.panics += 1);
            None
        })
    }
}
