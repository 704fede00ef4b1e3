//! The connection's own thread: it connects, reads, and runs `closed`.
//!
//! A message takes the straight path: read, call, send, and read again, because nothing else is
//! due. The path skips [`Worker::advance`], so it is taken only while `advance` would find nothing:
//! no flag but those of an open connection, no timer, no effect. A companion handles what another
//! thread changes meanwhile, as if this thread slept in `read` already. The read time-out stays as
//! it is, which is never too long: the only deadline that runs meanwhile is the idle one, and each
//! message moves it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::bell::lock;
use super::cell::{Cell, Member};
use super::hub::{Desk, Hub};
use super::race::{Race, Start};
use super::system;
use super::timeouts::{SHORTEST, fits, is_early, log_timeout, timeout};
use super::worker::{Next, Role, Shown, Worker};
use crate::address::Targets;
use crate::clock::nanos;
use crate::connection::{Connection, Flags};
use crate::options::{Dial, SocketOptions};
use crate::protocol::Callback;
use crate::reason::{Cause, failed_connect, is_late};
use crate::socket::retry;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

/// What a thread reads into. A large one costs each thread its memory only once it is used.
const READ_BUFFER: usize = 64 * 1024;

/// How often a thread that cannot sleep in `read` looks whether its peer is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Runs an accepted connection to its end, on this thread.
pub(super) fn serve(hub: &Arc<Hub>, desk: &mut Desk, cell: &Arc<Cell>) {
    let mut worker = Worker::new(hub, cell, desk, Role::Reader);
    worker.ask_for_filter(&mut lock(&cell.member), false);
    worker.serve();
}

/// Connects and runs the connection to its end, on this thread.
pub(super) fn connect(hub: &Arc<Hub>, desk: &mut Desk, cell: &Arc<Cell>, start: &Start) {
    let mut worker = Worker::new(hub, cell, desk, Role::Reader);
    let options = start.options;
    match start.targets.clone() {
        Targets::One(to) => worker.connect(&Dial { to, options }),
        Targets::Several(waiting) => {
            lock(&cell.member).race = Some(Box::new(Race::new(options, waiting)));
            worker.race();
        }
        Targets::Name { host, port } => {
            worker.look_up(options, host, port);
            worker.race();
        }
    }
    worker.serve();
}

impl<'a> Worker<'a> {
    fn connect(&mut self, dial: &Dial) {
        let cell = self.cell;
        let most = loop {
            let mut member = lock(&cell.member);
            // A connection whose end is decided comes here as well, and one that was cancelled.
            self.drive_on(&mut member);
            if member.conn.flags().any(Flags::ENDED) {
                return;
            }
            if cell.reader.go_away() {
                member.connecting = true;
                break member.conn.limits().connect.max(SHORTEST);
            }
        };
        self.hub.thread_away();
        let connected = system::connect(dial, most);
        self.hub.thread_back();
        let mut member = lock(&cell.member);
        cell.reader.come_back();
        member.connecting = false;
        // A close that came meanwhile is a cancelled connect, whether it succeeded or not.
        self.drive_on(&mut member);
        if member.conn.flags().any(Flags::ENDED) {
            return;
        }
        match connected {
            Ok(socket) => {
                cell.socket.set(socket);
                member.conn.handle_connected(self.desk.shared.clock.exact());
                self.ask_for_filter(&mut member, false);
            }
            Err(error) => {
                let (by, kind) = failed_connect(&error);
                // As on a loop, where nothing fails at the deadline but the connection.
                let cause = (!is_late(&error)).then(|| {
                    log::debug!(target: "lariat::connect", "{}: {error}", member.conn.peer());
                    Cause::new(error)
                });
                member.conn.end(by, kind, cause);
            }
        }
    }

    fn look_up(&mut self, options: SocketOptions, host: String, port: u16) {
        let mut member = lock(&self.cell.member);
        member.race = Some(Box::new(Race::new(options, VecDeque::new())));
        // A thread that was parked may know an earlier one.
        self.desk.shared.workplace.resolver = Arc::clone(&lock(&self.hub.resolver));
        self.desk.shared.look_up(&mut member.conn, host, port);
    }

    /// Applies what others have asked for, before the connection has a socket.
    pub(super) fn drive_on(&mut self, member: &mut Member) {
        self.take_requests(member);
        // It does not linger, and holds nothing.
        let _ = self.hub.drive(self.cell, member, &mut self.desk.shared);
    }

    fn serve(mut self) {
        let cell = self.cell;
        let mut buffer = mem::take(&mut self.desk.buffer);
        loop {
            let next = self.advance();
            if self.companion_at < u64::MAX {
                self.hub.call_companion(cell, self.companion_at);
            }
            match next {
                Next::Read { until, most } => {
                    if buffer.is_empty() {
                        buffer = vec![0; READ_BUFFER].into_boxed_slice();
                    }
                    self.set_read_timeout(until);
                    let most = most.min(buffer.len());
                    while self.read(&mut buffer[..most]) {}
                    cell.reader.come_back();
                }
                Next::Write { byte } => {
                    self.sleep_for_room(byte);
                    cell.reader.come_back();
                }
                Next::Wait { until } => {
                    let clock = &self.desk.shared.clock;
                    let look = clock.exact().saturating_add(nanos(LOOK));
                    if !cell.reader.wait(until.min(look), clock) {
                        self.look_for_fault();
                    }
                }
                Next::End => break,
            }
        }
        self.desk.buffer = buffer;
        // The companions leave, so that `closed` is the last of it and the counters are whole.
        while !cell.companions.close() {
            cell.reader.wait(u64::MAX, &self.desk.shared.clock);
        }
        self.tell_closed();
    }

    fn set_read_timeout(&mut self, until: u64) {
        let Some(socket) = self.cell.socket.get() else { return };
        let wanted = timeout(until, self.desk.shared.clock.exact());
        if !fits(self.read_timeout, wanted) {
            match socket.set_read_timeout(wanted) {
                Ok(()) => self.read_timeout = wanted,
                Err(error) => log_timeout(&error),
            }
        }
    }

    /// Nothing is read, which would report a reset: the socket is asked for its error.
    fn look_for_fault(&mut self) {
        let Some(Ok(Some(error))) = self.cell.socket.get().map(|socket| socket.take_error()) else {
            return;
        };
        let mut member = lock(&self.cell.member);
        member.conn.handle_write_failed(error, &mut self.desk.shared.chunks);
    }

    /// Reads once, and acts on the result. True when only the next read is left to do.
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(socket) = self.stream() else { return false };
        let result = io::Read::read(&mut { socket }, buffer);
        let shared = &mut self.desk.shared;
        shared.metrics.reads += 1;
        shared.stopping = self.hub.is_stopping();
        let mut member = self.lock_after_read();
        match result {
            Ok(count) if count > 0 => {
                self.desk.shared.metrics.bytes_in += count as u64;
                return self.take_in(member, &mut buffer[..count]);
            }
            // The read side may have been shut by ourselves, to wake this thread: no FIN then.
            _ if member.conn.flags().any(Flags::ENDED) => {}
            Ok(_) if member.conn.flags().any(Flags::PAUSED) => {
                member.conn.handle_ready(Flags::FIN_TOLD);
            }
            Ok(_) => member.conn.handle_fin(),
            Err(error) if is_early(&error) => {}
            Err(error) => {
                log::debug!(target: "lariat::read", "{}: {error}", member.conn.peer());
                member.conn.handle_read_failed(error, &mut self.desk.shared.chunks);
            }
        }
        false
    }

    /// Locks the connection when a callback may run: what a companion has begun comes first.
    #[inline(always)]
    fn lock_after_read(&mut self) -> MutexGuard<'a, Member> {
        let cell = self.cell;
        loop {
            cell.reader_waits.store(true, Ordering::Release);
            let mut member = lock(&cell.member);
            cell.reader_waits.store(false, Ordering::Release);
            if cell.has_requests() {
                self.take_requests(&mut member);
            }
            if !member.applying || member.conn.flags().any(Flags::ENDED) {
                return member;
            }
            drop(member);
            cell.reader.wait(u64::MAX, &self.desk.shared.clock);
        }
    }

    /// Shows what was read, or keeps it where something else comes first.
    #[inline(always)]
    fn take_in(&mut self, mut member: MutexGuard<'a, Member>, shown: &mut [u8]) -> bool {
        let count = shown.len();
        if !goes_on(&member.conn) && !shows_now(&member.conn) {
            if member.conn.flags().none(Flags::ENDED) {
                let now = self.desk.shared.clock.exact();
                member.conn.handle_read(count, count, now);
                member.conn.handle_wire(shown, &mut self.desk.shared.chunks, now);
            }
            return false;
        }
        let shown = &*shown;
        // A clock reading for each message is worth a tenth of all of it.
        let now = match member.conn.counts_silence() {
            true => self.desk.shared.clock.exact(),
            false => member.conn.last_active(),
        };
        member.conn.handle_read(count, count, now);
        member.conn.handle_shown(count);
        // The order is watched in debug builds, as on the reactor. No callback is timed: one that
        // is slow here is slow alone.
        let watched = cfg!(debug_assertions);
        let Some(consumed) = self.call(&mut member, |called| called.data::<false>(shown, watched))
        else {
            return false;
        };
        let shared = &mut self.desk.shared;
        let straight = (consumed.left | consumed.need) == 0
            && goes_on(&member.conn)
            && shared.effects.is_empty()
            && member.timers.next().is_none();
        match shared.output.slice(shown) {
            Some([]) if straight => {
                drop(member);
                self.desk.published.publish_message(&self.desk.shared.metrics);
                return true;
            }
            Some(bytes) if straight => {
                let sent = match &self.stream {
                    Some(socket) => retry(|| system::send(socket, bytes)),
                    None => Err(io::ErrorKind::NotConnected.into()),
                };
                let whole = bytes.len();
                if matches!(sent, Ok(sent) if sent == whole) {
                    match member.conn.counts_silence() {
                        // The callback may have been slow.
                        true => member.conn.handle_sent_at(whole, shared.clock.exact()),
                        false => member.conn.handle_sent_directly(whole),
                    }
                    drop(member);
                    shared.metrics.writes += 1;
                    shared.metrics.bytes_out += whole as u64;
                    shared.output.clear();
                    self.desk.published.publish_message(&self.desk.shared.metrics);
                    return true;
                }
                self.settle(member, Shown::Direct(shown, consumed), Callback::Data, Some(sent));
            }
            _ => self.settle(member, Shown::Direct(shown, consumed), Callback::Data, None),
        }
        false
    }
}

/// Whether the connection is open and has nothing due, so that its thread may read on.
#[inline(always)]
fn goes_on(conn: &Connection) -> bool {
    conn.is_straight()
}

/// Whether what was read can be shown where it is, whatever else there is to be done.
fn shows_now(conn: &Connection) -> bool {
    let kept = Flags::PAUSED | Flags::HELD | Flags::DATA_DUE | Flags::OPENED_DUE | Flags::EOF_DUE;
    conn.flags().none(kept | Flags::ENDED) && conn.shows_directly()
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::blocking::tests::rig::{Quiet, hub};
    use crate::endpoint::Endpoint;
    use crate::limits::{DriverLimits, Limits};

    /// A thread that did not listen behind a connect would have a companion started for each call.
    #[test]
    fn a_thread_listens_again_as_soon_as_its_connect_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (hub, _) = hub(DriverLimits::default());
        let mut desk = Desk::new(&hub);
        for listens in [true, false] {
            let listener = listens.then(|| listener.try_clone().unwrap());
            let id = lock(&hub.ids).reserve();
            // To nobody: a port of which only the kernel knows.
            let to = if listens { addr } else { ([127, 0, 0, 1], 1).into() };
            let to = Endpoint::from(to);
            let conn = Connection::connecting(id, to, Arc::new(Limits::default()), 0);
            let cell = Cell::new(id, conn, Box::new(Quiet), None);
            lock(&hub.state).pool.busy += 1;
            let mut worker = Worker::new(&hub, &cell, &mut desk, Role::Reader);
            worker.connect(&Dial { to, options: SocketOptions::default() });
            assert!(!cell.reader.is_away() && cell.reader.call());
            let member = lock(&cell.member);
            assert!(!member.connecting);
            assert_eq!(member.conn.flags().any(Flags::ENDED), !listens);
            assert_eq!(cell.socket.get().is_some(), listens);
            drop(listener);
        }
    }
}
