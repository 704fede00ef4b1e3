//! Output on its way to a socket: what a callback wrote, and what is queued. Drivers differ in how
//! they send and in how much is fair; the order of bytes is the same.

use std::io::{self, ErrorKind, IoSlice};

use crate::connection::{Connection, Flags};
use crate::protocol::{Callback, Part, Shared};

#[cfg(test)]
mod tests;

/// Slices that one call sends. A chunk is 64 KiB, so that a call takes up to 1 MiB.
const SLICES: usize = 16;

/// Sends slices without sleeping. Counted and repeated after a signal elsewhere.
pub(crate) type Sends<'a> = &'a mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>;

/// An attempt to send from where the bytes are: how many were offered, and its result.
pub(crate) type Attempt = (usize, io::Result<usize>);

/// Sends at most `most` bytes of the output that the last callback wrote to its own connection,
/// after what was queued; queues the rest. Returns how many bytes were sent.
pub(crate) fn send_own(
    conn: &mut Connection,
    shared: &mut Shared,
    shown: &[u8],
    callback: Callback,
    now: u64,
    most: usize,
    sends: Sends<'_>,
) -> usize {
    let whole = shared.output.len();
    if whole == 0 {
        return 0;
    }
    shared.output.tap(shown, conn, now);
    let lost = Flags::ABORT_WANTED | Flags::OVERFLOW | Flags::ENDED | Flags::BROKEN;
    if conn.flags().any(lost) || conn.has_panicked() {
        conn.lose_output(whole);
        return 0;
    }
    if let Some(bytes) = shared.output.slice(shown) {
        if most > 0 && conn.sends_directly() {
            let bytes = &bytes[..whole.min(most)];
            let result = sends(&[IoSlice::new(bytes)]);
            let attempt = (bytes.len(), result);
            shared.metrics.writes += 1;
            return send_rest(conn, shared, shown, callback, now, attempt);
        }
    }
    let mut given = 0;
    let mut sent = 0;
    // The filter takes as much as the wire may hold, and more once the socket has taken that.
    while given < whole && conn.filters_directly() {
        let Some(bytes) = shared.output.slice(shown) else { break };
        given += conn.filter_output(&bytes[given..], &mut shared.chunks, now);
        sent += flush(conn, shared, now, most - sent, sends);
        if conn.unsent() > 0 {
            break;
        }
    }
    if given < whole {
        queue_output(conn, shared, shown, given, now);
        sent += flush(conn, shared, now, most - sent, sends);
    }
    note_caused(conn, whole, callback);
    sent
}

/// After an attempt to send the output from where it is: counts what was sent and queues the rest.
#[inline(never)]
pub(crate) fn send_rest(
    conn: &mut Connection,
    shared: &mut Shared,
    shown: &[u8],
    callback: Callback,
    now: u64,
    (offered, result): Attempt,
) -> usize {
    let whole = shared.output.len();
    let sent = count(conn, shared, offered, result);
    conn.handle_sent_at(sent, now);
    if sent < whole {
        queue_output(conn, shared, shown, sent, now);
    }
    note_caused(conn, whole, callback);
    sent
}

/// Sends queued output until all is sent, the socket takes no more, or `most` bytes were sent.
/// Returns how many were.
pub(crate) fn flush(
    conn: &mut Connection,
    shared: &mut Shared,
    now: u64,
    most: usize,
    sends: Sends<'_>,
) -> usize {
    let mut left = most;
    while left > 0 && conn.has_output() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = conn.poll_output(&mut slices, left, &mut shared.chunks, now);
        let wanted: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            break;
        }
        let result = sends(&slices[..filled]);
        shared.metrics.writes += 1;
        let sent = count(conn, shared, wanted, result);
        if sent > 0 {
            conn.handle_sent(sent, &mut shared.chunks, now);
        }
        left -= sent;
        conn.handle_flushed();
    }
    conn.handle_flushed();
    most - left
}

/// Counts the result of sending `wanted` bytes.
fn count(
    conn: &mut Connection,
    shared: &mut Shared,
    wanted: usize,
    result: io::Result<usize>,
) -> usize {
    match result {
        Ok(sent) => {
            shared.metrics.bytes_out += sent as u64;
            if sent < wanted {
                conn.handle_write_blocked();
            }
            sent
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            conn.handle_write_blocked();
            0
        }
        Err(error) => {
            log::debug!(target: "lariat::send", "{}: {error}", conn.peer());
            conn.handle_write_failed(error, &mut shared.chunks);
            0
        }
    }
}

/// Queues the output without its first `skip` bytes.
fn queue_output(
    conn: &mut Connection,
    shared: &mut Shared,
    shown: &[u8],
    mut skip: usize,
    now: u64,
) {
    let Shared { output, chunks, rares, .. } = shared;
    conn.borrow_queues(rares);
    output.for_each(shown, |part| {
        let whole = match &part {
            Part::Copied(bytes) => bytes.len(),
            Part::Shared(bytes) => bytes.len(),
        };
        let skipped = skip.min(whole);
        skip -= skipped;
        match part {
            Part::Copied(bytes) => conn.queue(&bytes[skipped..], chunks, now),
            Part::Shared(bytes) => conn.queue_shared(bytes.slice_from(skipped), now),
        };
    });
}

/// Flow control for the connection's own queue, to which a callback has written `count` bytes.
fn note_caused(conn: &mut Connection, count: usize, callback: Callback) {
    conn.handle_flushed();
    if callback.answers_input() && conn.handle_caused(count) {
        conn.hold_itself();
    }
}
