//! The first thread of a connection: it connects, reads, and tells `closed`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Member};
use super::hub::{Hub, lock};
use super::system::{self, TcpStream};
use super::worker::{Next, READ_BUFFER, Role, SHORTEST, Worker, is_timeout};
use crate::connection::Flags;
use crate::options::Dial;
use crate::reason::{By, CloseKind, ConnectFailure, Deadline};
use crate::socket::retry;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

/// How often a thread that may not read looks whether its peer is still there.
const PAUSED_LOOK: Duration = Duration::from_secs(1);

/// Runs an accepted connection to its end, on this thread.
pub(super) fn run(hub: &Arc<Hub>, cell: &Arc<Cell>) {
    Worker::new(hub, cell, Role::Reader).serve();
}

/// Connects and runs the connection to its end, on this thread.
pub(super) fn run_connect(hub: &Arc<Hub>, cell: &Arc<Cell>, dial: &Dial) {
    let mut worker = Worker::new(hub, cell, Role::Reader);
    worker.connect(dial);
    worker.serve();
}

impl Worker {
    fn connect(&mut self, dial: &Dial) {
        let cell = Arc::clone(&self.cell);
        let mut member = lock(&cell.member);
        self.finish(&mut member);
        if member.conn.flags().any(Flags::ENDED) {
            member.connecting = false;
            return;
        }
        let most = member.conn.limits().connect.max(SHORTEST);
        drop(member);
        // A connect cannot be woken, so that a driver that ends does not wait for this thread.
        self.hub.thread_away();
        let connected = system::connect(dial, most);
        self.hub.thread_back();
        let mut member = lock(&cell.member);
        member.connecting = false;
        // A close that came meanwhile is a cancelled connect, whether it succeeded or not.
        self.take_requests(&cell, &mut member);
        self.finish(&mut member);
        if member.conn.flags().any(Flags::ENDED) {
            return;
        }
        match connected {
            Ok(socket) => {
                let _ = cell.socket.set(socket);
                member.conn.handle_connected(self.shared.clock.exact());
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let kind = CloseKind::TimedOut(Deadline::Connect);
                member.conn.end(By::Runtime, kind, Some(Arc::new(error)));
            }
            Err(error) => {
                let failure = ConnectFailure::of(&error);
                member.conn.end(failure.by(), CloseKind::Connect(failure), Some(Arc::new(error)));
            }
        }
    }

    fn serve(mut self) {
        let cell = Arc::clone(&self.cell);
        if cell.socket.get().is_some() {
            let mut member = lock(&cell.member);
            let now = self.shared.clock.exact();
            self.bound_write(&cell, &mut member, now);
            self.ask_for_filter(&mut member, false);
        }
        let mut buffer = vec![0; READ_BUFFER].into_boxed_slice();
        // Whoever is about to wait looks first what has come.
        let mut looked = false;
        loop {
            match self.advance() {
                Next::Read(timeout) => {
                    if let Some(socket) = cell.socket.get() {
                        self.set_timeout(socket, timeout);
                    }
                    while self.read(&cell, &mut buffer) {}
                    looked = false;
                }
                Next::Wait(_) if !looked => {
                    self.look(&mut buffer);
                    looked = true;
                }
                Next::Wait(timeout) => {
                    let most = timeout.map_or(PAUSED_LOOK, |timeout| timeout.min(PAUSED_LOOK));
                    cell.reader.wait(Some(most));
                    looked = false;
                }
                Next::OtherFirst => cell.reader.wait(None),
                Next::End => break,
            }
        }
        self.wait_alone();
        self.tell_closed();
    }

    /// The end is decided. Waits until no other thread writes for this connection or calls it, so
    /// that `closed` is the last of it and the counters are whole.
    fn wait_alone(&self) {
        let cell = &self.cell;
        loop {
            if lock(&cell.member).writing {
                self.wake_sleepers();
            }
            // Looked at anew: whoever stops from here on rings.
            if !lock(&cell.member).writing && cell.stays_alone() {
                return;
            }
            cell.companion.ring();
            cell.reader.wait(None);
        }
    }

    /// Locks the connection when a callback may run: whatever the companion has begun comes first.
    #[inline(always)]
    pub(super) fn lock_after_read<'a>(&mut self, cell: &'a Cell) -> MutexGuard<'a, Member> {
        loop {
            cell.reader_waits.store(true, Ordering::Release);
            let mut member = lock(&cell.member);
            cell.reader_waits.store(false, Ordering::Release);
            if cell.has_requests() && self.take_requests(cell, &mut member) {
                self.finish(&mut member);
            }
            if !member.applying || member.conn.flags().any(Flags::ENDED) {
                return member;
            }
            drop(member);
            cell.reader.wait(None);
        }
    }

    /// Sets the read time-out, if what the socket has would be wrong by much.
    fn set_timeout(&mut self, socket: &TcpStream, wanted: Option<Duration>) {
        let fits = match (self.timeout, wanted) {
            (None, None) => true,
            (Some(has), Some(wanted)) => has >= wanted / 2 && has <= wanted + wanted / 8,
            _ => false,
        };
        if fits {
            return;
        }
        // Zero is refused by std, and would mean no time-out to the system.
        let timeout = wanted.map(|wanted| wanted.max(SHORTEST));
        match socket.set_read_timeout(timeout) {
            Ok(()) => self.timeout = wanted,
            Err(error) => {
                log::debug!(target: "lariat::blocking", "cannot set a time-out: {error}");
            }
        }
    }

    /// Looks what has come while input has to wait: bytes are kept, up to `input_max`; a FIN is
    /// remembered; a reset ends the connection.
    fn look(&mut self, buffer: &mut [u8]) {
        let cell = Arc::clone(&self.cell);
        let member = lock(&cell.member);
        let unread = member.conn.queues().map_or(0, |queues| queues.unread.len());
        let room = member.conn.limits().input_max.saturating_sub(unread).min(buffer.len());
        let flags = member.conn.flags();
        drop(member);
        let closed = Flags::CONNECTING | Flags::PEER_FIN | Flags::FIN_TOLD | Flags::ENDED;
        let Some(socket) = cell.socket.get() else { return };
        if flags.any(Flags::CONNECTING | Flags::ENDED) {
            return;
        }
        if flags.any(closed) || room == 0 {
            // Nothing can be read any more that would tell of a reset.
            if let Ok(Some(error)) = socket.take_error() {
                let mut member = lock(&cell.member);
                member.conn.handle_read_failed(error, &mut self.shared.chunks);
            }
            return;
        }
        self.set_timeout(socket, Some(SHORTEST));
        self.shared.metrics.reads += 1;
        let result = retry(|| io::Read::read(&mut &*socket, &mut buffer[..room]));
        let tick = self.shared.clock.exact();
        let mut member = lock(&cell.member);
        if self.take_requests(&cell, &mut member) {
            self.finish(&mut member);
        }
        if member.conn.flags().any(Flags::ENDED) {
            return;
        }
        match result {
            Ok(0) => {
                member.conn.handle_ready(Flags::FIN_TOLD);
            }
            Ok(count) => {
                self.shared.metrics.bytes_in += count as u64;
                member.conn.handle_wire(&mut buffer[..count], &mut self.shared.chunks, tick);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => {
                member.conn.handle_read_failed(error, &mut self.shared.chunks);
            }
        }
    }
}
