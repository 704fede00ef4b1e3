//! Output over a made-up socket, which takes as much of each call as is planned.

use std::collections::VecDeque;
use std::sync::Arc;

use log::Level;

use super::*;
use crate::connection::Round;
use crate::endpoint::Endpoint;
use crate::episode::tests::kept::lines_of;
use crate::filter::{Filter, FilterResult, Progress};
use crate::guard::GuardedBytes;
use crate::id::Ids;
use crate::limits::Limits;
use crate::protocol::made_up;
use crate::reason::{By, CloseKind};

/// Takes so many bytes of each call, or answers with an error of the system. Behind the plan it
/// takes everything.
#[derive(Default)]
struct Wire {
    plan: VecDeque<Result<usize, i32>>,
    taken: Vec<u8>,
    /// How many bytes each call had.
    calls: Vec<usize>,
}

impl Wire {
    fn new(plan: &[Result<usize, i32>]) -> Wire {
        Wire { plan: plan.to_vec().into(), ..Wire::default() }
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.calls.push(whole.len());
        match self.plan.pop_front().unwrap_or(Ok(usize::MAX)) {
            Ok(most) => {
                let count = whole.len().min(most);
                self.taken.extend_from_slice(&whole[..count]);
                Ok(count)
            }
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Each clear byte is so many on the wire.
struct Times(usize);

impl Filter for Times {
    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }
    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend(clear.iter().flat_map(|byte| std::iter::repeat_n(*byte, self.0)));
        Ok(Progress::Open)
    }
}

struct Rig {
    conn: Connection,
    shared: Shared,
    wire: Wire,
}

impl Rig {
    /// An open connection with a high mark of 10 bytes and a low one of 4.
    fn new(plan: &[Result<usize, i32>]) -> Rig {
        let limits = Limits { high_mark: 10, low_mark: 4, ..Limits::default() };
        let peer = Endpoint::from(([10, 0, 0, 1], 80));
        let id = Ids::default().reserve();
        let mut conn = Connection::accepted(id, None, peer, Arc::new(limits), 0);
        assert!(conn.poll_due(&mut Round::default()).is_some());
        Rig { conn, shared: made_up().0, wire: Wire::new(plan) }
    }

    fn filtered(times: usize, plan: &[Result<usize, i32>]) -> Rig {
        let mut rig = Rig::new(plan);
        rig.conn.handle_filter(Box::new(Times(times)), false, &mut rig.shared.chunks, 0);
        rig
    }

    /// What a callback has written, at 9 ns.
    fn send(&mut self, bytes: &[u8], callback: Callback, most: usize) -> usize {
        self.shared.output.push(bytes, b"");
        let Rig { conn, shared, wire } = self;
        let sent = send_own(conn, shared, b"", callback, 9, most, &mut |slices| wire.send(slices));
        self.shared.output.clear();
        sent
    }

    fn flush(&mut self, most: usize) -> usize {
        let Rig { conn, shared, wire } = self;
        flush(conn, shared, 9, most, &mut |slices| wire.send(slices))
    }

    fn has(&self, flags: Flags) -> bool {
        self.conn.flags().any(flags)
    }

    /// Bytes that left, as the driver and the connection count them; and calls.
    fn counted(&self) -> (u64, u64, u64) {
        let metrics = &self.shared.metrics;
        (metrics.bytes_out, self.conn.bytes_out(), metrics.writes)
    }
}

const ALL: usize = usize::MAX;

#[test]
fn what_a_callback_wrote_leaves_from_where_it_is_and_the_rest_is_queued() {
    // The plan; the most; what has left; whether the socket takes more.
    type Case = (&'static [Result<usize, i32>], usize, usize, bool);
    let cases: [Case; 7] = [
        (&[], ALL, 6, true),
        (&[], 6, 6, true),
        (&[], 5, 5, true),
        (&[], 7, 6, true),
        (&[Ok(5)], ALL, 5, false),
        (&[Ok(2)], 3, 2, false),
        (&[Err(libc::EAGAIN)], ALL, 0, false),
    ];
    for (plan, most, sent, room) in cases {
        let mut rig = Rig::new(plan);
        assert_eq!(rig.send(b"abcdef", Callback::Timeout, most), sent, "{plan:?} of {most}");
        assert_eq!(rig.wire.calls, [most.min(6)]);
        assert_eq!(rig.counted(), (sent as u64, sent as u64, 1), "{plan:?} of {most}");
        assert_eq!((rig.conn.unsent(), rig.has(Flags::WRITABLE)), (6 - sent, room));
        assert_eq!(rig.conn.has_output(), room && sent < 6);
        // The rest leaves in its order, behind what is written meanwhile nothing.
        assert_eq!(rig.send(b"gh", Callback::Timeout, ALL), if room { 8 - sent } else { 0 });
        rig.conn.handle_ready(Flags::WRITABLE);
        rig.flush(ALL);
        assert_eq!((&rig.wire.taken[..], rig.conn.unsent()), (&b"abcdefgh"[..], 0));
        assert_eq!(rig.counted().0, 8);
        assert!(!rig.conn.has_output() && !rig.has(Flags::QUEUED));
    }
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.send(b"", Callback::Timeout, ALL), 0);
    assert!(rig.wire.calls.is_empty(), "of nothing there is no call");
}

#[test]
fn shared_pieces_keep_their_place_behind_what_was_sent_of_them() {
    let large: Vec<u8> = (0..10_000).map(|n| n as u8).collect();
    for first in [0, 1, 2, 3, 5_000, 10_002, 10_003, 10_004, 20_000, 20_006] {
        let plan = [Ok(first), Err(libc::EAGAIN)];
        let mut rig = Rig::new(&plan);
        let whole = [b"ab", &large[..], b"cd", &large[..], b"ef"].concat();
        for part in [&b"ab"[..], &large, b"cd", &large, b"ef"] {
            match part.len() {
                2 => rig.shared.output.push(part, b""),
                _ => rig.shared.output.push_shared(GuardedBytes::new(part.to_vec()), b""),
            }
        }
        let sent = rig.send(b"", Callback::Timeout, ALL);
        assert_eq!((sent, rig.conn.unsent()), (first, 20_006 - first));
        rig.conn.handle_ready(Flags::WRITABLE);
        rig.wire.plan.clear();
        rig.flush(ALL);
        assert!(rig.wire.taken == whole, "{first} first");
    }
}

#[test]
fn a_flush_sends_as_much_as_it_may_and_stops_where_the_socket_does() {
    for (plan, most, sent, calls) in [
        (&[][..], ALL, 30, 1),
        (&[], 30, 30, 1),
        (&[], 29, 29, 1),
        (&[], 0, 0, 0),
        (&[Ok(10)], ALL, 10, 1),
        (&[Err(libc::EAGAIN)], ALL, 0, 1),
    ] {
        let mut rig = Rig::new(&[Err(libc::EAGAIN)]);
        rig.send(&[7; 30], Callback::Timeout, ALL);
        rig.conn.handle_ready(Flags::WRITABLE);
        (rig.wire.plan, rig.wire.calls) = (plan.to_vec().into(), Vec::new());
        let before = rig.counted();
        assert_eq!(rig.flush(most), sent, "{plan:?} of {most}");
        assert_eq!((rig.wire.calls.len(), rig.conn.unsent()), (calls, 30 - sent));
        assert_eq!(rig.counted(), (sent as u64, sent as u64, before.2 + calls as u64));
        // A bound of its own is none of the socket's.
        assert_eq!(rig.has(Flags::WRITABLE), plan.is_empty());
    }
    // More slices than one call takes.
    let mut rig = Rig::new(&[Err(libc::EAGAIN)]);
    for _ in 0..40 {
        rig.shared.output.push_shared(GuardedBytes::new(vec![7; 5_000]), b"");
    }
    rig.send(b"", Callback::Timeout, ALL);
    rig.conn.handle_ready(Flags::WRITABLE);
    assert_eq!((rig.flush(ALL), rig.conn.unsent()), (200_000, 0));
    assert_eq!(rig.wire.calls[1..], [80_000, 80_000, 40_000]);
}

#[test]
fn an_error_of_the_socket_is_a_line_in_the_log_and_breaks_the_connection() {
    for queued in [false, true] {
        let mut rig = Rig::new(&[Err(if queued { libc::EAGAIN } else { libc::ECONNRESET })]);
        let (lines, ()) = lines_of(|| {
            rig.send(b"abcdef", Callback::Timeout, ALL);
            if queued {
                rig.conn.handle_ready(Flags::WRITABLE);
                rig.wire.plan.push_back(Err(libc::ECONNRESET));
                assert_eq!(rig.flush(ALL), 0);
            }
        });
        let error = io::Error::from_raw_os_error(libc::ECONNRESET);
        assert_eq!(lines, [(Level::Debug, format!("10.0.0.1:80: {error}"))]);
        assert!(rig.has(Flags::BROKEN) && rig.conn.unsent() == 0);
        let reason = rig.conn.decided(9).unwrap();
        assert_eq!((reason.by(), reason.kind(), reason.unsent()), (By::Peer, CloseKind::Reset, 6));
        // From now on nothing is sent.
        assert_eq!(rig.send(b"gh", Callback::Timeout, ALL), 0);
        assert_eq!(rig.wire.calls.len(), 1 + usize::from(queued));
        assert_eq!(rig.conn.decided(9).unwrap().unsent(), 8);
    }
}

#[test]
fn what_a_callback_wrote_that_aborts_or_panics_is_lost() {
    let ends: [fn(&mut Connection); 4] = [
        |conn| conn.want_abort(),
        |conn| conn.handle_failure(CloseKind::Panicked, crate::reason::Cause::new("planned")),
        |conn| conn.end(By::Us, CloseKind::Finished, None),
        |conn| conn.break_off(By::Peer, CloseKind::Reset, None),
    ];
    for end in ends {
        let mut rig = Rig::new(&[]);
        end(&mut rig.conn);
        assert_eq!(rig.send(b"abcdef", Callback::Timeout, ALL), 0);
        assert!(rig.wire.calls.is_empty() && rig.conn.unsent() == 0);
        rig.conn.end(By::Us, CloseKind::Aborted, None);
        assert_eq!(rig.conn.poll_closed(9).unwrap().unsent(), 6);
    }
    let mut rig = Rig::new(&[]);
    rig.conn.handle_failure(CloseKind::Protocol, crate::reason::Cause::new("enough"));
    assert_eq!(rig.send(b"abcdef", Callback::Timeout, ALL), 6, "an error's own words leave");
}

#[test]
fn a_writer_of_too_many_answers_holds_itself() {
    use Callback::{Data, Drained, Eof, Notified, Opened, Timeout};
    for (callback, answers) in [
        (Data, true),
        (Eof, true),
        (Opened, false),
        (Drained, false),
        (Timeout, false),
        (Notified, false),
    ] {
        for (count, above) in [(10, false), (11, true)] {
            let mut rig = Rig::new(&[Err(libc::EAGAIN)]);
            rig.send(&vec![7; count], callback, ALL);
            assert_eq!(rig.has(Flags::HELD), answers && above, "{callback:?} of {count}");
            // What is queued first counts with what follows.
            rig.send(&[7], callback, ALL);
            assert_eq!(rig.has(Flags::HELD), answers, "{callback:?} of {count}");
            // What has left no longer does.
            rig.conn.handle_ready(Flags::WRITABLE);
            rig.flush(count + 1 - 5);
            assert!(rig.conn.poll_released().is_empty());
            rig.flush(1);
            assert_eq!(rig.conn.poll_released().len(), usize::from(answers));
        }
        // The first attempt leaves nothing to wait for.
        let mut rig = Rig::new(&[Ok(11)]);
        rig.send(&[7; 21], callback, ALL);
        assert!(!rig.has(Flags::HELD), "{callback:?}");
    }
}

#[test]
fn output_drains_at_the_low_mark_in_whatever_way_it_leaves() {
    for (sent, drained) in [(6, false), (7, true), (11, true)] {
        let mut rig = Rig::new(&[Err(libc::EAGAIN)]);
        assert!(rig.conn.check_marks(11) && rig.conn.is_congested());
        rig.send(&[7; 11], Callback::Timeout, ALL);
        assert!(!rig.has(Flags::DRAINED_DUE));
        rig.conn.handle_ready(Flags::WRITABLE);
        rig.wire.plan.push_back(Ok(sent));
        rig.flush(ALL);
        assert_eq!(rig.has(Flags::DRAINED_DUE), drained, "{sent} of 11");
    }
    // At once.
    let mut rig = Rig::new(&[]);
    assert!(rig.conn.check_marks(11));
    rig.send(&[7; 11], Callback::Timeout, ALL);
    assert!(rig.has(Flags::DRAINED_DUE));
}

// ---- through a filter ---------------------------------------------------------------------------

#[test]
fn a_filter_is_given_more_as_the_socket_takes_and_the_rest_waits() {
    let large = 120_000;
    for (plan, most, sent, calls) in [
        (&[][..], ALL, 2 * large, true),
        (&[], 100_000, 100_000, false),
        (&[], 2 * large, 2 * large, true),
        (&[Ok(10), Err(libc::EAGAIN)], ALL, 10, false),
        (&[Err(libc::EAGAIN)], ALL, 0, false),
    ] {
        let mut rig = Rig::filtered(2, plan);
        let bytes: Vec<u8> = (0..large).map(|n| n as u8).collect();
        let twice: Vec<u8> = bytes.iter().flat_map(|byte| [*byte; 2]).collect();
        assert_eq!(rig.send(&bytes, Callback::Timeout, most), sent, "{plan:?} of {most}");
        assert_eq!(rig.shared.metrics.bytes_out, sent as u64);
        assert_eq!(rig.conn.unsent() == 0, calls);
        rig.wire.plan.clear();
        rig.conn.handle_ready(Flags::WRITABLE);
        assert_eq!(rig.flush(ALL), 2 * large - sent);
        assert!(rig.wire.taken == twice, "{plan:?} of {most}");
        assert_eq!((rig.conn.unsent(), rig.conn.bytes_out()), (0, large as u64));
        // What is written later has its place behind.
        assert_eq!(rig.send(b"xy", Callback::Timeout, ALL), 4);
        assert_eq!(rig.wire.taken[2 * large..], *b"xxyy");
    }
}

#[test]
fn what_a_filter_keeps_to_itself_waits_for_nothing() {
    // At once, and from the queue.
    for waits in [false, true] {
        let plan: &[_] = if waits { &[Err(libc::EAGAIN)] } else { &[] };
        let mut rig = Rig::new(plan);
        if waits {
            rig.send(b"first", Callback::Timeout, ALL);
            assert!(rig.conn.check_marks(20));
            rig.send(&[7; 20], Callback::Timeout, ALL);
        } else {
            assert!(rig.conn.check_marks(20));
        }
        rig.conn.handle_filter(Box::new(Times(0)), false, &mut rig.shared.chunks, 0);
        if !waits {
            rig.send(&[7; 20], Callback::Timeout, ALL);
        }
        rig.conn.handle_ready(Flags::WRITABLE);
        rig.flush(ALL);
        assert_eq!(rig.conn.unsent(), 0);
        assert!(!rig.has(Flags::QUEUED) && !rig.conn.has_output(), "waits: {waits}");
        assert!(rig.has(Flags::DRAINED_DUE), "waits: {waits}");
        assert_eq!(rig.wire.taken, b"");
    }
}

#[test]
fn where_nothing_more_may_leave_no_call_is_made_and_everything_is_queued() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.send(b"abc", Callback::Timeout, 0), 0);
    assert_eq!((rig.wire.calls.len(), rig.counted()), (0, (0, 0, 0)));
    assert!(rig.conn.has_output());
    assert_eq!((rig.flush(ALL), &rig.wire.taken[..]), (3, &b"abc"[..]));
}
