//! What has happened comes before what has not: whether a deadline or a timer that is due has to
//! wait for input, or for room for output, of which no thread has told yet.

use super::cell::Member;
use super::drive::flush;
use super::system::{self, Stream};
use super::timeouts::Look;
use super::worker::{MILLISECOND, Role, Worker};
use crate::connection::Flags;

/// A deadline noticed later than this was slept through, by a process that was stopped.
const LATE: u64 = 50 * MILLISECOND;
/// How long a thread waits for another to report what has moved a deadline: a reader that has
/// input, an attempt to connect that has succeeded.
pub(super) const PATIENCE: u64 = 3000 * MILLISECOND;

impl Worker<'_> {
    /// Whether what has happened at the socket puts the deadline off, which has passed only because
    /// no thread has seen to it: room for output, input that waits.
    pub(super) fn is_put_off(&mut self, member: &mut Member, deadline: u64, now: u64) -> bool {
        let Some(socket) = self.cell.socket.get() else { return false };
        if member.conn.is_stuck() && !member.writing && now > deadline.saturating_add(LATE) {
            // Where nothing has slept through it, the system has said that there is no room.
            member.conn.handle_ready(Flags::WRITABLE);
            flush(self.cell, member, &mut self.desk.shared, now);
            if member.conn.poll_deadline_beside(member.writing) > now {
                return true;
            }
        }
        // Input puts off no stall of output. A thread that lingers sleeps in its read, which is a
        // look at the socket.
        let stalls = member.conn.poll_deadline_beside(true) > now;
        if stalls || !member.conn.may_read() || member.conn.flags().any(Flags::CLOSING) {
            return false;
        }
        let first = self.looked.note(deadline, now, member.conn.bytes_in());
        match self.role {
            // Once: what is read then either moves the deadline, or it was not waited for.
            Role::Reader => first && self.has_input(&socket, member),
            Role::Companion => {
                let until = self.looked.since.saturating_add(PATIENCE);
                self.is_input_coming(&socket, member, now < until, self.looked.bytes_in)
            }
        }
    }

    /// Whether the reader is about to bring input, as far as a companion can see. What waits in the
    /// socket it takes next, unless it has brought some since the companion first looked, when it
    /// had `bytes_in`. A reader that is away may have read it already: it comes by itself, unless
    /// it sleeps; that is given some time.
    fn is_input_coming(
        &mut self,
        socket: &Stream,
        member: &mut Member,
        patient: bool,
        bytes_in: u64,
    ) -> bool {
        let waits = member.conn.bytes_in() == bytes_in && self.has_input(socket, member);
        waits || (patient && self.cell.reader.is_away())
    }

    /// Whether a read would find something. An error that is found instead breaks the connection:
    /// no read will find it again.
    fn has_input(&mut self, socket: &Stream, member: &mut Member) -> bool {
        system::has_input(socket).unwrap_or_else(|error| {
            member.conn.handle_read_failed(error, &mut self.desk.shared.chunks);
            true
        })
    }

    /// Whether the timer that was due at `at` waits for input which had come by then: the reader is
    /// about to take it, or has taken it and not come to its lock. That is given as much time as
    /// the timer is late already, so that one on time stays so. A reader that sleeps for room
    /// takes none.
    pub(super) fn is_input_first(&mut self, member: &mut Member, at: u64, now: u64) -> bool {
        let Some(socket) = self.cell.socket.get() else { return false };
        let reads = member.conn.may_read() && !member.reader_writes;
        if !reads || member.conn.flags().any(Flags::CLOSING) {
            return false;
        }
        self.looked_for_timer.note(at, now, member.conn.bytes_in());
        let Look { since, bytes_in, .. } = self.looked_for_timer;
        let patience = since.saturating_sub(at).min(PATIENCE);
        self.is_input_coming(&socket, member, now < since.saturating_add(patience), bytes_in)
    }
}
