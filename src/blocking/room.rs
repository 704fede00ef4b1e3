//! Output that the socket has no room for: one thread of the connection sleeps in a write of the
//! first byte.

use std::io;

use super::bell::lock;
use super::cell::Member;
use super::system;
use super::timeouts::{fits, is_early, log_timeout, timeout};
use super::worker::{Next, Role, Worker};
use crate::connection::Flags;

impl Worker<'_> {
    /// Takes the first byte of the queue, to sleep in a write of it until `until`. Nothing
    /// overtakes it: as long as it is queued, others only add to the queue.
    pub(super) fn go_writing(&mut self, member: &mut Member, until: u64, now: u64) -> Option<Next> {
        let socket = self.cell.socket.get()?;
        let mut slices = [io::IoSlice::new(&[])];
        let count = member.conn.poll_output(&mut slices, 1, &mut self.desk.shared.chunks, now);
        let byte = slices[..count].first().and_then(|slice| slice.first().copied());
        let Some(byte) = byte else {
            // A filter has made nothing of it.
            member.conn.handle_flushed();
            return None;
        };
        let wanted = timeout(until, now);
        if !fits(member.write_timeout, wanted) {
            match socket.set_write_timeout(wanted) {
                Ok(()) => member.write_timeout = wanted,
                Err(error) => log_timeout(&error),
            }
        }
        let bell = match self.role {
            Role::Reader => &self.cell.reader,
            Role::Companion => &self.cell.companions,
        };
        member.writing = bell.go_away();
        member.reader_writes = member.writing && self.role == Role::Reader;
        member.writing.then_some(Next::Write { byte })
    }

    /// Sleeps until the socket has taken the byte.
    pub(super) fn sleep_for_room(&mut self, byte: u8) {
        let Some(socket) = self.cell.socket.get() else { return };
        let result = system::write(&socket, &[byte]);
        let mut member = lock(&self.cell.member);
        let shared = &mut self.desk.shared;
        let now = shared.clock.exact();
        member.writing = false;
        member.reader_writes = false;
        self.changed = true;
        let over = member.conn.flags().any(Flags::ENDED | Flags::BROKEN);
        shared.metrics.writes += 1;
        shared.metrics.bytes_out += result.as_ref().map_or(0, |sent| *sent as u64);
        match result {
            // It has been dropped from the queue meanwhile.
            Ok(sent) if over => member.conn.handle_sent_late(sent),
            Ok(0) => {}
            Ok(sent) => {
                member.conn.handle_sent(sent, &mut shared.chunks, now);
                member.conn.handle_flushed();
                member.conn.handle_ready(Flags::WRITABLE);
            }
            Err(error) if is_early(&error) => {}
            Err(error) => member.conn.handle_write_failed(error, &mut shared.chunks),
        }
    }
}
