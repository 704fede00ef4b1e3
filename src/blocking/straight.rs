//! The straight path of a message: read, call, send, and read again, as nothing else is due.
//!
//! Whoever goes it skips [`Worker::advance`], and so may only go it while a look there would find
//! nothing: no flag but those of an open connection, no timer, no wish but to write. What another
//! thread changes meanwhile is that thread's to see to, or the companion's, as if this one slept in
//! `read` already. The read time-out stays what it is, which is never too long: the only deadline
//! that runs meanwhile is that of an idle connection, and each message moves it away.

use std::io;
use std::mem;
use std::sync::Arc;

use super::cell::{Cell, Member};
use super::hub::lock;
use super::system::TcpStream;
use super::worker::{Worker, is_timeout};
use crate::connection::{Connection, Flags};
use crate::protocol::Callback;
use crate::socket::retry;
use crate::sync::MutexGuard;

impl Worker {
    /// Reads once, and does what follows from it. True when nothing is left but to read again.
    #[inline]
    pub(super) fn read(&mut self, cell: &Arc<Cell>, buffer: &mut [u8]) -> bool {
        let Some(socket) = cell.socket.get() else { return false };
        if cell.is_asked() {
            return false;
        }
        self.shared.metrics.reads += 1;
        let result = retry(|| io::Read::read(&mut { socket }, buffer));
        self.shared.stopping = self.hub.is_stopping();
        let mut member = self.lock_after_read(cell);
        match result {
            Ok(count) if count > 0 => {
                self.shared.metrics.bytes_in += count as u64;
                return self.take_in(cell, socket, member, &mut buffer[..count]);
            }
            // The read side may have been shut by ourselves, to wake this thread: no FIN then.
            _ if member.conn.flags().any(Flags::ENDED) => {}
            Ok(_) => member.conn.handle_fin(),
            Err(error) if is_timeout(&error) => {}
            Err(error) => {
                member.conn.handle_read_failed(error, &mut self.shared.chunks);
            }
        }
        false
    }

    /// Shows what was read, or keeps it where something else comes first.
    #[inline(always)]
    fn take_in(
        &mut self,
        cell: &Cell,
        socket: &TcpStream,
        mut member: MutexGuard<'_, Member>,
        shown: &mut [u8],
    ) -> bool {
        let count = shown.len();
        if !goes_on(&member.conn) && !shows_now(&member.conn) {
            if member.conn.flags().none(Flags::ENDED) {
                let now = self.shared.clock.exact();
                member.conn.handle_read(count, count, now);
                member.conn.handle_wire(shown, &mut self.shared.chunks, now);
            }
            return false;
        }
        let shown = &*shown;
        // A clock reading for each message is worth a tenth of all of it.
        let now = match member.conn.counts_silence() {
            true => self.shared.clock.exact(),
            false => member.conn.last_active(),
        };
        member.conn.handle_read(count, count, now);
        member.conn.handle_shown(count);
        // The order is watched in debug builds, as on the reactor. No callback is timed: whoever is
        // slow here is slow alone.
        let watched = cfg!(debug_assertions);
        let Some(consumed) = self.call(&mut member, |called| called.data::<false>(shown, watched))
        else {
            return false;
        };
        if (consumed.left | consumed.need) == 0 && self.is_straight(&member) {
            return self.answer(cell, socket, member, shown);
        }
        self.settle(member, shown, Callback::Data, |conn, _, chunks| {
            if (consumed.left | consumed.need) != 0 {
                conn.handle_left(shown, consumed, chunks);
            }
        });
        false
    }

    /// Whether nothing is to be done after a callback but to send what it wrote.
    #[inline(always)]
    fn is_straight(&self, member: &Member) -> bool {
        goes_on(&member.conn) && self.shared.effects.is_empty() && member.timers.next().is_none()
    }

    /// Sends what a callback wrote from where it is, without the lock.
    #[inline(always)]
    fn answer(
        &mut self,
        cell: &Cell,
        socket: &TcpStream,
        mut member: MutexGuard<'_, Member>,
        shown: &[u8],
    ) -> bool {
        let Some(bytes) = self.shared.output.slice(shown) else {
            self.settle(member, shown, Callback::Data, |_, _, _| {});
            return false;
        };
        if bytes.is_empty() {
            drop(member);
            self.publish_message();
            return true;
        }
        let Ok(writer) = cell.writer.try_lock() else {
            self.settle(member, shown, Callback::Data, |_, _, _| {});
            return false;
        };
        member.writing = true;
        drop(member);
        if cell.is_asked() {
            self.hub.carry_mail(cell);
        }
        let count = bytes.len();
        let result = retry(|| io::Write::write(&mut { socket }, bytes));
        if matches!(result, Ok(sent) if sent == count) {
            self.shared.metrics.writes += 1;
            self.shared.metrics.bytes_out += count as u64;
            self.shared.output.clear();
            self.publish_message();
            let straight = self.note_answer(cell, count);
            drop(writer);
            if straight {
                return true;
            }
        } else {
            let output = mem::take(&mut self.shared.output);
            let result = self.count_write(result);
            self.send_directly(cell, &output, shown, Some(result));
            drop(writer);
            self.shared.output = output;
            self.shared.output.clear();
        }
        self.ring_other();
        false
    }

    /// The whole answer has left. True when nobody has asked for anything else meanwhile.
    #[inline(always)]
    fn note_answer(&self, cell: &Cell, sent: usize) -> bool {
        let mut member = lock(&cell.member);
        member.writing = false;
        let straight = goes_on(&member.conn);
        if straight && !member.conn.counts_silence() {
            member.conn.handle_sent_directly(sent);
        } else {
            // The write may have slept, and so have moved the deadlines.
            member.conn.handle_sent_ahead(sent, self.shared.clock.exact());
            member.conn.handle_flushed();
        }
        straight
    }
}

/// Whether the connection is open and has nothing due, so that its thread may read on.
#[inline(always)]
fn goes_on(conn: &Connection) -> bool {
    conn.flags().passes(Flags::STRAIGHT_GATE, Flags::READABLE | Flags::WRITABLE)
}

/// Whether what was read can be shown where it is, whatever else there is to be done.
fn shows_now(conn: &Connection) -> bool {
    let kept = Flags::PAUSED | Flags::HELD | Flags::DATA_DUE | Flags::OPENED_DUE | Flags::EOF_DUE;
    conn.flags().none(kept | Flags::ENDED) && conn.shows_directly()
}
