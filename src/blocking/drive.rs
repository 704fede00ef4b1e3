//! The one place that drives a connection's state on: output, FIN, the end, what it holds. Each
//! thread that has changed a connection does so, under its lock, and none of it sleeps.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

use super::bell::lock;
use super::cell::{Cell, Member, Signal};
use super::hub::Hub;
use super::system;
use crate::connection::{Flags, Step, Steps};
use crate::id::ConnId;
use crate::protocol::{Callback, Part, Shared};
use crate::socket::retry;

/// Slices that one call sends. A chunk is 64 KiB, so that a call takes up to 1 MiB.
const SLICES: usize = 16;

/// What concerns other connections, and so waits until the lock has been given up.
#[must_use]
#[derive(Default)]
pub(super) struct After {
    /// Connections that the queue no longer holds.
    released: Vec<ConnId>,
    /// Queues that held the connection, which is over.
    unheld: Vec<ConnId>,
    /// The connection that has to end its lingering, as there are too many.
    cut: Option<ConnId>,
}

impl After {
    pub(super) fn is_empty(&self) -> bool {
        self.released.is_empty() && self.unheld.is_empty() && self.cut.is_none()
    }

    /// Does it; `of` is the connection that was driven on. No lock is held.
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
    /// Drives the connection on, as far as it goes without a callback and without sleeping.
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
                Step::Settled => break,
            }
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
        after
    }
}

/// Holds `writer` until the queue of `queue` has drained. No lock is held.
///
/// The writer is held first, and entered then: a queue that drains in between releases only those
/// that it knows. So it is looked at once more.
pub(super) fn hold(hub: &Arc<Hub>, writer: &Cell, queue: &Cell) {
    if !lock(&writer.member).conn.handle_held(queue.id) {
        return;
    }
    let mut member = lock(&queue.member);
    member.conn.handle_holds(writer.id);
    let released = member.conn.poll_released();
    drop(member);
    After { released, ..After::default() }.carry_out(queue.id, hub);
}

/// Sends what is queued, until it is all gone, the socket takes no more, or the budget is used up.
pub(super) fn flush(cell: &Cell, member: &mut Member, shared: &mut Shared, now: u64) {
    let mut budget = member.conn.limits().write_budget;
    while budget > 0 && member.conn.has_output() {
        let Some(socket) = cell.socket.get() else { break };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = member.conn.poll_output(&mut slices, budget, &mut shared.chunks, now);
        let wanted: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            break;
        }
        let result = retry(|| match &slices[..count] {
            [one] => system::send(socket, one),
            many => system::send_vectored(socket, many),
        });
        let sent = note_sent(cell, member, shared, result, wanted);
        if sent > 0 {
            member.conn.handle_sent(sent, &mut shared.chunks, now);
        }
        budget -= sent;
        member.conn.handle_flushed();
    }
    member.conn.handle_flushed();
}

/// Counts an attempt to send `wanted` bytes. Returns how many have gone.
fn note_sent(
    cell: &Cell,
    member: &mut Member,
    shared: &mut Shared,
    result: io::Result<usize>,
    wanted: usize,
) -> usize {
    shared.metrics.writes += 1;
    match result {
        Ok(sent) => {
            shared.metrics.bytes_out += sent as u64;
            if sent < wanted {
                member.conn.handle_write_blocked();
            }
            sent
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            member.conn.handle_write_blocked();
            0
        }
        Err(error) => {
            log::debug!(target: "lariat::send", "{}: {error}", member.conn.peer());
            fail(cell, member, shared, error);
            0
        }
    }
}

/// A write has failed. What has arrived is read first; nothing more can come, and the thread that
/// reads must not wait for it.
pub(super) fn fail(cell: &Cell, member: &mut Member, shared: &mut Shared, error: io::Error) {
    member.conn.handle_write_failed(error, &mut shared.chunks);
    cell.wake(Shutdown::Read);
}

/// Sends what a callback wrote to its own connection; what the socket does not take is queued.
/// `first` is how the first attempt went, if that was made already.
pub(super) fn send_own(
    cell: &Cell,
    member: &mut Member,
    shared: &mut Shared,
    shown: &[u8],
    callback: Callback,
    first: Option<io::Result<usize>>,
) {
    let whole = shared.output.len();
    if whole == 0 {
        return;
    }
    let now = shared.clock.exact();
    shared.output.tap(shown, &mut member.conn, now);
    let lost = Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::ENDED | Flags::BROKEN;
    if member.conn.flags().any(lost) || member.conn.has_panicked() {
        return member.conn.lose_output(whole);
    }
    let slice = shared.output.slice(shown).filter(|_| member.conn.sends_directly());
    let mut sent = 0;
    if let (Some(bytes), Some(socket)) = (slice, cell.socket.get()) {
        let result = first.unwrap_or_else(|| retry(|| system::send(socket, bytes)));
        sent = note_sent(cell, member, shared, result, whole);
        member.conn.handle_sent_at(sent, now);
    }
    if sent < whole {
        queue_own(member, shared, shown, sent, now);
    }
    flush(cell, member, shared, now);
    if callback.answers_input() && member.conn.handle_caused(whole) {
        member.conn.hold_itself();
    }
}

/// Queues what a callback wrote to its own connection, without its first `skip` bytes.
fn queue_own(member: &mut Member, shared: &mut Shared, shown: &[u8], mut skip: usize, now: u64) {
    let Shared { output, chunks, .. } = shared;
    output.for_each(shown, |part| {
        let whole = match &part {
            Part::Copied(bytes) => bytes.len(),
            Part::Shared(bytes) => bytes.len(),
        };
        let skipped = skip.min(whole);
        skip -= skipped;
        match part {
            Part::Copied(bytes) => member.conn.queue(&bytes[skipped..], chunks, now),
            Part::Shared(bytes) => member.conn.queue_shared(bytes.slice_from(skipped), now),
        };
    });
}

/// Shuts the socket's write side.
fn send_fin(cell: &Cell, member: &mut Member, shared: &mut Shared, now: u64) {
    let result = cell.socket.get().map_or(Ok(()), |socket| socket.shutdown(Shutdown::Write));
    member.conn.handle_fin_sent(now);
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
            fail(cell, member, shared, error);
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
    if let (Some(socket), true) = (cell.socket.get(), member.conn.flags().any(Flags::RESET)) {
        system::reset_on_close(socket);
    }
    cell.wake(if member.writing { Shutdown::Both } else { Shutdown::Read });
}
