//! The one place that advances a connection's state: output, FIN, the end, the writers it holds.
//! Each thread that has changed a connection calls it, under the connection's lock; nothing here
//! sleeps.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

use super::bell::lock;
use super::cell::{Cell, Member, Signal};
use super::hub::Hub;
use super::system;
use crate::connection::{Flags, Step, Steps};
use crate::id::ConnId;
use crate::protocol::Shared;
use crate::sending;
use crate::socket::retry;

/// Consequences for other connections, which wait until the lock has been released.
#[must_use]
#[derive(Default)]
pub(super) struct After {
    /// Connections that the queue no longer holds.
    released: Vec<ConnId>,
    /// Queues that held the connection, which is over.
    unheld: Vec<ConnId>,
    /// The connection that has to end its lingering, because too many linger.
    cut: Option<ConnId>,
}

impl After {
    pub(super) fn is_empty(&self) -> bool {
        self.released.is_empty() && self.unheld.is_empty() && self.cut.is_none()
    }

    /// Carries them out; `of` is the connection that was advanced. No lock is held.
    pub(super) fn carry_out(self, of: ConnId, hub: &Arc<Hub>) {
        for holder in self.released {
            if let Some(cell) = hub.cell(holder) {
                lock(&cell.member).conn.handle_released(of);
                hub.nudge(&cell);
            }
        }
        for queue in self.unheld {
            if let Some(cell) = hub.cell(queue) {
                lock(&cell.member).conn.handle_writer_gone(of);
            }
        }
        if let Some(cell) = self.cut.and_then(|id| hub.cell(id)) {
            cell.signal(Signal::Cut);
            hub.nudge(&cell);
        }
    }
}

impl Hub {
    /// Advances the connection as far as that is possible without a callback and without sleeping.
    pub(super) fn drive(&self, cell: &Cell, member: &mut Member, shared: &mut Shared) -> After {
        let now = shared.clock.exact();
        let mut after = After::default();
        let mut steps = Steps::default();
        loop {
            match member.conn.poll_step(&mut steps, &mut shared.chunks, now) {
                Step::Flush => flush(cell, member, shared, now),
                Step::Fin => send_fin(cell, member, shared, now),
                Step::Linger => {
                    member.lingered = true;
                    after.cut = self.linger(cell.id);
                }
                Step::Close => end(cell, member),
                // The connection's own thread does that: it alone knows that it is in no call.
                Step::Detach | Step::Settled => break,
            }
        }
        if member.conn.flags().any(Flags::BROKEN) {
            // What has arrived is read; nothing more can come, and no thread may sleep for it.
            cell.wake(Shutdown::Read);
        }
        if member.conn.flags().any(Flags::CLOSING | Flags::ENDED) {
            for key in member.conn.take_timers() {
                member.timers.cancel(key);
            }
        }
        after.released = member.conn.poll_released();
        if let Some(own) = after.released.iter().position(|holder| *holder == cell.id) {
            after.released.swap_remove(own);
            member.conn.handle_released(cell.id);
            cell.reader.call();
        }
        after.unheld = member.conn.poll_unheld();
        after.unheld.retain(|queue| *queue != cell.id);
        member.conn.count_handshake(&mut shared.metrics);
        cell.account(&member.conn);
        after
    }
}

/// Holds `writer` until the queue of `queue` has drained. No lock is held.
///
/// The writer is marked as held first and entered in the queue second: a queue that drained in
/// between would otherwise release it before it is held. A queue that has drained by now releases
/// it when it is advanced next.
pub(super) fn hold(writer: &Cell, queue: &Cell) {
    if lock(&writer.member).conn.handle_held(queue.id) {
        lock(&queue.member).conn.handle_holds(writer.id);
    }
}

/// Sends by the socket of `cell`, without sleeping.
pub(super) fn sends(cell: &Cell) -> impl FnMut(&[IoSlice<'_>]) -> io::Result<usize> {
    move |slices| {
        let Some(socket) = cell.socket.get() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        retry(|| match slices {
            [one] => system::send(&socket, one),
            many => system::send_vectored(&socket, many),
        })
    }
}

/// Sends what is queued, as far as the socket takes it.
pub(super) fn flush(cell: &Cell, member: &mut Member, shared: &mut Shared, now: u64) {
    let most = member.conn.limits().write_budget;
    sending::flush(&mut member.conn, shared, now, most, &mut sends(cell));
}

/// Shuts the socket's write side.
fn send_fin(cell: &Cell, member: &mut Member, shared: &mut Shared, now: u64) {
    let result = cell.socket.get().map_or(Ok(()), |socket| socket.shutdown(Shutdown::Write));
    member.conn.handle_fin_sent(now);
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
            member.conn.handle_write_failed(error, &mut shared.chunks);
        }
        _ => {}
    }
}

/// The end is decided: wakes the connection's threads out of the socket, which is closed when they
/// have let go of it.
///
/// A read is woken by shutting the read side alone, which sends nothing: the reset that an abort
/// owes the peer must not come behind a FIN. A write that sleeps needs more, and then the FIN waits
/// behind what the peer does not take.
fn end(cell: &Cell, member: &Member) {
    if member.conn.has_detached() {
        return;
    }
    if let (Some(socket), true) = (cell.socket.get(), member.conn.flags().any(Flags::RESET)) {
        system::reset_on_close(&socket);
    }
    cell.wake(if member.writing { Shutdown::Both } else { Shutdown::Read });
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;
    use crate::blocking::tests::rig::Rig;
    use crate::limits::{DriverLimits, Limits};
    use crate::reason::{By, CloseKind};

    /// Drives a connection on, and carries out what follows for others.
    fn drive(rig: &mut Rig) {
        let after = rig.hub.drive(&rig.cell, &mut lock(&rig.cell.member), &mut rig.desk.shared);
        after.carry_out(rig.cell.id, &rig.hub);
    }

    /// A worker that advances a connection does so as well.
    #[test]
    fn what_follows_for_others_is_carried_out_whichever_it_is() {
        use crate::blocking::worker::Role;
        // What the queue no longer holds.
        let mut queue = Rig::open(Limits::default());
        let writer = queue.beside(Limits::default());
        queue.queue_stuck(&[7; 100]);
        hold(&writer.cell, &queue.cell);
        queue.member().conn.handle_ready(Flags::WRITABLE);
        queue.worker(Role::Reader).advance();
        assert!(!writer.member().conn.flags().any(Flags::HELD));
        // What held a writer that is over.
        let mut queue = Rig::open(Limits::default());
        let mut writer = queue.beside(Limits::default());
        queue.queue_stuck(&[7; 100]);
        hold(&writer.cell, &queue.cell);
        writer.member().conn.want_abort();
        writer.member().conn.handle_wishes(&mut Default::default(), 0, false);
        writer.worker(Role::Reader).advance();
        assert!(queue.member().conn.poll_released().is_empty());
        // Who lingers too long.
        let limits = DriverLimits { lingering_max: 1, ..DriverLimits::default() };
        let mut first = Rig::of(limits, Limits::default());
        let mut second = first.beside(Limits::default());
        for rig in [&mut first, &mut second] {
            rig.member().conn.begin_close(By::Us, CloseKind::Finished, None);
            rig.worker(Role::Reader).advance();
        }
        assert!(first.cell.has_requests() && !second.cell.has_requests());
        drop(queue);
    }

    /// The reset itself is found by a read, which says whose it is.
    #[test]
    fn a_fin_that_finds_the_connection_reset_is_no_error_of_its_own() {
        use std::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let mut rig = Rig::open(Limits::default());
        let socket = system::adopted(Box::new(std::os::fd::OwnedFd::from(stream))).unwrap();
        let id = lock(&rig.hub.ids).reserve();
        let conn = crate::connection::Connection::accepted(
            id,
            None,
            crate::endpoint::Endpoint::Other,
            Arc::default(),
            0,
        );
        let quiet = Box::new(crate::blocking::tests::rig::Quiet);
        rig.cell = Cell::new(id, conn, quiet, Some(socket));
        rig.member().conn.begin_close(By::Us, CloseKind::Finished, None);
        drive(&mut rig);
        let flags = rig.member().conn.flags();
        assert!(flags.any(Flags::FIN_SENT) && !flags.any(Flags::ENDED | Flags::BROKEN));
    }

    #[test]
    fn of_too_many_that_linger_the_oldest_is_cut() {
        let limits = DriverLimits { lingering_max: 1, ..DriverLimits::default() };
        let mut first = Rig::of(limits, Limits::default());
        let mut second = first.beside(Limits::default());
        for rig in [&mut first, &mut second] {
            rig.member().conn.begin_close(By::Us, CloseKind::Finished, None);
            assert!(!rig.member().lingered && !rig.calls().0);
            drive(rig);
            assert!(rig.member().lingered);
        }
        assert!(first.cell.has_requests() && !second.cell.has_requests());
        assert!(first.calls().0, "its thread looks");
        let mut member = first.member();
        first.cell.take_signals(&mut member.conn);
        assert!(member.conn.flags().any(Flags::ENDED));
    }

    #[test]
    fn a_queue_that_has_drained_releases_its_writers_and_one_that_ends_forgets_them() {
        for ends in [false, true] {
            let mut queue = Rig::open(Limits::default());
            let mut writer = queue.beside(Limits::default());
            queue.queue_stuck(&[7; 100]);
            hold(&writer.cell, &queue.cell);
            assert!(writer.member().conn.flags().any(Flags::HELD));
            if ends {
                // The writer is over: the queue has nothing to release.
                writer.member().conn.end(By::Us, CloseKind::Aborted, None);
                drive(&mut writer);
                assert!(queue.member().conn.poll_released().is_empty());
                continue;
            }
            queue.member().conn.handle_ready(Flags::WRITABLE);
            drive(&mut queue);
            assert!(!writer.member().conn.flags().any(Flags::HELD));
            assert!(writer.calls().0, "its thread reads on");
        }
        // Its own writer is released where it stands.
        let mut rig = Rig::open(Limits::default());
        rig.queue_stuck(&[7; 100]);
        rig.member().conn.hold_itself();
        rig.member().conn.handle_ready(Flags::WRITABLE);
        let after = rig.hub.drive(&rig.cell, &mut lock(&rig.cell.member), &mut rig.desk.shared);
        assert!(after.is_empty() && !rig.member().conn.flags().any(Flags::HELD));
        assert!(rig.calls().0);
    }
}
