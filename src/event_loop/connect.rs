//! Outgoing connections.

use std::collections::VecDeque;
use std::io;

use super::EventLoop;
use super::race::Race;
use super::system::{Stream, System};
use super::table::Entry;
use crate::address::{Targets, named};
use crate::admission::Place;
use crate::connection::{Connection, Flags};
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::options::{Dial, SocketOptions};
use crate::protocol::{Outgoing, Protocol};
use crate::reason::{By, Cause, CloseKind, ConnectFailure, failed_connect};

impl<S: System> EventLoop<S> {
    /// Begins a connect. Every failure becomes a `closed`, in a later turn.
    pub(super) fn connect_now(&mut self, outgoing: Outgoing<Box<dyn Protocol>>) {
        let Outgoing { id, addr, limits, options, protocol } = outgoing;
        let targets = addr.targets();
        let peer = match targets {
            Ok(Targets::One(to)) => to,
            _ => Endpoint::Other,
        };
        let now = self.shared.clock.exact();
        let mut conn = Connection::connecting(id, peer, limits, now);
        self.shared.metrics.connects += 1;
        let full = self.place_for_asked() != Place::Free;
        self.shared.metrics.open += 1;
        if self.draining {
            conn.handle_late();
        } else if full {
            let limit = CloseKind::Connect(ConnectFailure::Limit);
            conn.end(By::Runtime, limit, None);
        }
        let begins = !self.draining && !full;
        self.table.insert(Entry { conn, stream: None, protocol });
        if begins {
            let targets = targets.map_err(|error| named(&addr, &error));
            self.begin_connect(id, targets, options);
        }
        self.finish(id);
    }

    fn begin_connect(&mut self, id: ConnId, targets: io::Result<Targets>, options: SocketOptions) {
        match targets {
            Ok(Targets::One(to)) => {
                let started = self.start_connect(&Dial { to, options }, id);
                let Some(entry) = self.table.get_mut(id) else { return };
                match started {
                    Ok(stream) => entry.stream = Some(stream),
                    Err(error) => fail(&mut entry.conn, error),
                }
            }
            Ok(Targets::Several(waiting)) => {
                self.races.insert(id, Race::new(options, waiting));
                self.try_next(id);
            }
            Ok(Targets::Name { host, port }) => {
                self.races.insert(id, Race::new(options, VecDeque::new()));
                let Some(entry) = self.table.get_mut(id) else { return };
                self.shared.look_up(&mut entry.conn, host, port);
            }
            Err(error) => {
                let Some(entry) = self.table.get_mut(id) else { return };
                let name = CloseKind::Connect(ConnectFailure::Name);
                entry.conn.end(By::Runtime, name, Some(Cause::new(error)));
            }
        }
    }

    /// Whether a connect that `by` asks for is not even begun: a client that reconnects whenever it
    /// ends would keep a driver from stopping.
    pub(super) fn is_hopeless(&mut self, by: Option<ConnId>) -> bool {
        let asks = by.and_then(|by| self.table.get_mut(by));
        self.draining && asks.is_some_and(|entry| entry.conn.flags().any(Flags::LATE))
    }

    pub(super) fn start_connect(&mut self, dial: &Dial, id: ConnId) -> io::Result<S::Stream> {
        let mut stream = match self.system.connect(dial) {
            Err(error) if is_exhausted(&error) && self.cut_oldest_lingering() => {
                self.system.connect(dial)?
            }
            other => other?,
        };
        self.system.register_stream(&mut stream, id)?;
        Ok(stream)
    }

    /// Writable does not mean connected: look at the socket's error, then whether it has a peer.
    pub(super) fn complete_connect(&mut self, id: ConnId) {
        let tick = self.shared.clock.tick();
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.conn.flags().none(Flags::WRITABLE | Flags::FAULTY) {
            return;
        }
        let Some(stream) = entry.stream.as_mut() else { return self.judge_race(id) };
        let result = match stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => stream.check_connected(),
        };
        match result {
            Ok(()) => {
                entry.conn.handle_connected(tick);
                self.ask_for_filter(id, false);
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                // A spurious event: the connect is still under way.
                entry.conn.handle_write_blocked();
                entry.conn.handle_fault_seen();
            }
            Err(error) => fail(&mut entry.conn, error),
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    ConnectFailure::of(error) == ConnectFailure::Exhausted
}

fn fail(conn: &mut Connection, error: io::Error) {
    log::debug!(target: "lariat::connect", "{}: {error}", conn.peer());
    let (by, kind) = failed_connect(&error);
    conn.end(by, kind, Some(Cause::new(error)));
}
