//! One connection of the driver, without its threads: the test is each of them in turn, at the time
//! that it says.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use crate::blocking::bell::lock;
use crate::blocking::cell::{Cell, Member};
use crate::blocking::hub::{Desk, Hub};
use crate::blocking::system;
use crate::blocking::worker::{Role, Worker};
use crate::clock::Clock;
use crate::connection::{Connection, Flags, Round};
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::limits::{DriverLimits, Limits};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::sync::MutexGuard;

/// Takes everything and says nothing.
pub(in crate::blocking) struct Quiet;

impl Protocol for Quiet {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}

/// A driver's shared state, and its time in nanoseconds: 0 to begin with.
pub(in crate::blocking) fn hub(limits: DriverLimits) -> (Arc<Hub>, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Clock::virtual_at(Arc::clone(&now), Instant::now(), SystemTime::UNIX_EPOCH);
    (Arc::new(Hub::new(clock, limits, |_, _, _| ())), now)
}

pub(in crate::blocking) struct Rig {
    pub(in crate::blocking) hub: Arc<Hub>,
    pub(in crate::blocking) desk: Desk,
    pub(in crate::blocking) cell: Arc<Cell>,
    pub(in crate::blocking) peer: UnixStream,
}

impl Rig {
    /// A connection that has been accepted.
    pub(in crate::blocking) fn accepted(
        limits: Limits,
        protocol: impl Protocol + Send + 'static,
    ) -> Rig {
        Rig::of_hub(hub(DriverLimits::default()).0, limits, protocol)
    }

    fn of_hub(hub: Arc<Hub>, limits: Limits, protocol: impl Protocol + Send + 'static) -> Rig {
        let (socket, peer) = UnixStream::pair().unwrap();
        let socket = system::adopted(Box::new(OwnedFd::from(socket))).unwrap();
        let id = lock(&hub.ids).reserve();
        let conn = Connection::accepted(id, None, Endpoint::Other, Arc::new(limits), 0);
        let cell = Cell::new(id, conn, Box::new(protocol), Some(socket));
        lock(&hub.state).open += 1;
        hub.enter_claimed(&cell);
        let desk = Desk::new(&hub);
        Rig { hub, desk, cell, peer }
    }

    /// The same behind `opened`.
    pub(in crate::blocking) fn open(limits: Limits) -> Rig {
        Rig::of(DriverLimits::default(), limits)
    }

    /// The same, of a driver with these limits.
    pub(in crate::blocking) fn of(driver: DriverLimits, limits: Limits) -> Rig {
        Rig::of_hub(hub(driver).0, limits, Quiet).opened()
    }

    /// Another one of the same driver.
    pub(in crate::blocking) fn beside(&self, limits: Limits) -> Rig {
        Rig::of_hub(Arc::clone(&self.hub), limits, Quiet).opened()
    }

    fn opened(self) -> Rig {
        let rig = self;
        let mut member = rig.member();
        assert!(member.conn.poll_due(&mut Round::default()).is_some());
        member.conn.handle_ready(Flags::READABLE);
        drop(member);
        rig
    }

    pub(in crate::blocking) fn id(&self) -> ConnId {
        self.cell.id
    }

    pub(in crate::blocking) fn member(&self) -> MutexGuard<'_, Member> {
        lock(&self.cell.member)
    }

    pub(in crate::blocking) fn worker(&mut self, role: Role) -> Worker<'_> {
        Worker::new(&self.hub, &self.cell, &mut self.desk, role)
    }

    /// The peer sends this, which waits in the socket.
    pub(in crate::blocking) fn send(&self, bytes: &[u8]) {
        (&self.peer).write_all(bytes).unwrap();
    }

    /// Queues output as if the socket had said that it has no room. It has.
    pub(in crate::blocking) fn queue_stuck(&mut self, bytes: &[u8]) {
        let mut member = lock(&self.cell.member);
        let now = self.desk.shared.clock.exact();
        assert!(member.conn.queue(bytes, &mut self.desk.shared.chunks, now));
        member.conn.handle_write_blocked();
        assert!(member.conn.is_stuck());
    }

    /// Whether the connection's own thread was called, and a companion.
    pub(in crate::blocking) fn calls(&self) -> (bool, bool) {
        let clock = &self.hub.clock;
        (self.cell.reader.wait(0, clock), self.cell.companions.wait(0, clock))
    }
}
