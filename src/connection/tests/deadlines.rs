//! Deadlines: never early, always reached, and what they mean in each state.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Connection, Expired, Flags};
use super::filters::Counts;
use super::rig::{Answer, MILLISECOND, Rig, Wish, small_limits};
use super::toy::Toy;
use crate::buffer::ChunkPool;
use crate::endpoint::Endpoint;
use crate::id::Ids;
use crate::limits::Limits;
use crate::reason::{By, Cause, CloseKind, Deadline};

fn without_idle() -> Limits {
    Limits { idle: None, ..small_limits() }
}

/// Milliseconds from now until `closed` is due.
fn time_to_end(rig: &mut Rig) -> u64 {
    let began = rig.now;
    rig.settle_to_the_end();
    (rig.now - began) / MILLISECOND
}

fn within(took: u64, least: u64) {
    assert!((least..=least + 2).contains(&took), "{took} ms instead of {least}");
}

#[test]
fn a_connect_that_is_never_answered_times_out() {
    let mut rig = Rig::connecting(small_limits());
    within(time_to_end(&mut rig), 50);
    assert_eq!(rig.kind(), Some(CloseKind::TimedOut(Deadline::Connect)));
    assert_eq!(rig.reason.unwrap().by(), By::Runtime);
}

#[test]
fn an_idle_connection_closes_in_order_and_a_byte_either_way_puts_it_off() {
    let mut rig = Rig::accepted(small_limits());
    rig.advance(60 * MILLISECOND);
    rig.peer_sends(1);
    rig.settle();
    rig.advance(60 * MILLISECOND);
    rig.other_writes(1, false, None);
    rig.send_for_others();
    rig.advance(60 * MILLISECOND);
    rig.plan.push_back(Answer { write: 1, ..Answer::default() });
    rig.note();
    rig.settle();
    rig.advance(88 * MILLISECOND);
    assert!(!rig.is(Flags::CLOSING), "a byte was sent 88 ms ago");
    rig.advance(4 * MILLISECOND);
    assert!(rig.kernel.fin_sent);
    rig.settle_to_the_end();
    assert_eq!(rig.kind(), Some(CloseKind::TimedOut(Deadline::Idle)));
}

#[test]
fn unsent_bytes_that_make_no_progress_time_out_and_progress_puts_it_off() {
    let mut rig = Rig::accepted(without_idle());
    rig.kernel.room = 0;
    rig.other_writes(20, false, None);
    rig.send_for_others();
    rig.advance(25 * MILLISECOND);
    rig.peer_reads(1);
    rig.settle();
    within(time_to_end(&mut rig), 30);
    assert_eq!(rig.kind(), Some(CloseKind::TimedOut(Deadline::Write)));
    assert!(rig.is(Flags::RESET));
    assert_eq!(rig.reason.unwrap().unsent(), 19);
}

#[test]
fn a_close_that_cannot_flush_times_out_whatever_trickles() {
    let mut rig = Rig::accepted(without_idle());
    rig.kernel.room = 0;
    rig.plan.push_back(Answer { write: 20, wishes: vec![Wish::Close], ..Answer::default() });
    rig.peer_sends(1);
    rig.settle();
    let began = rig.now;
    while rig.reason.is_none() {
        rig.advance(MILLISECOND);
        rig.kernel.room = usize::from(rig.now / MILLISECOND % 5 == 0);
        rig.event(Flags::WRITABLE);
        rig.settle();
    }
    within((rig.now - began) / MILLISECOND, 60);
    assert_eq!(rig.kind(), Some(CloseKind::TimedOut(Deadline::Close)));
}

#[test]
fn an_error_that_cannot_be_flushed_in_time_stays_the_reason() {
    let mut rig = Rig::accepted(without_idle());
    rig.kernel.room = 0;
    let failure = Some(super::rig::Failure::Err);
    rig.plan.push_back(Answer { write: 20, failure, ..Answer::default() });
    rig.peer_sends(1);
    rig.settle();
    within(time_to_end(&mut rig), 30);
    assert_eq!(rig.kind(), Some(CloseKind::Protocol));
    assert!(rig.is(Flags::RESET));
}

#[test]
fn lingering_lasts_while_the_peer_sends_and_no_longer_than_in_all() {
    let mut rig = Rig::accepted(without_idle());
    rig.other_wishes(Wish::Close);
    within(time_to_end(&mut rig), 10);

    let mut rig = Rig::accepted(without_idle());
    rig.other_wishes(Wish::Close);
    let began = rig.now;
    while rig.reason.is_none() {
        rig.peer_sends(1);
        rig.settle();
        rig.advance(MILLISECOND);
        rig.settle();
    }
    within((rig.now - began) / MILLISECOND, 25);
    assert_eq!(rig.kind(), Some(CloseKind::Finished));
}

#[test]
fn a_close_after_a_half_close_lingers_from_the_close_on() {
    let mut rig = Rig::accepted(without_idle());
    rig.other_wishes(Wish::Finish);
    assert!(rig.kernel.fin_sent);
    rig.advance(500 * MILLISECOND);
    rig.other_wishes(Wish::Close);
    rig.settle();
    assert!(rig.reason.is_none(), "the peer may still be reading the last reply");
    within(time_to_end(&mut rig), 10);
    assert_eq!(rig.kind(), Some(CloseKind::Finished));
}

#[test]
fn time_without_a_limit_never_ends_and_never_wraps() {
    let forever = Duration::MAX;
    let limits = Limits { connect: forever, close_deadline: forever, ..small_limits() };
    let peer = ([127, 0, 0, 1], 7000).into();
    let id = Ids::default().reserve();
    let mut conn = Connection::connecting(id, peer, Arc::new(limits), u64::MAX / 2);
    assert_eq!(conn.poll_deadline(), u64::MAX);
    assert_eq!(conn.handle_deadline(u64::MAX - 1, &mut ChunkPool::default()), Expired::Nothing);
}

#[test]
fn an_ended_connection_has_no_deadline() {
    let mut rig = Rig::accepted(small_limits());
    rig.other_wishes(Wish::Abort);
    assert_eq!(rig.conn.poll_deadline(), u64::MAX);
}

/// An accepted connection whose `opened` has run.
fn bare(limits: Limits) -> Connection {
    let peer = ([127, 0, 0, 1], 7000).into();
    let id = Ids::default().reserve();
    let mut conn = Connection::accepted(id, None, peer, Arc::new(limits), NOW);
    conn.flags.clear(Flags::OPENED_DUE);
    conn.flags.set(Flags::OPENED);
    conn
}

const NOW: u64 = 1000 * MILLISECOND;

/// Asserts that the next deadline is `millis` after `from`, is not due a nanosecond sooner, and is
/// this one then.
#[track_caller]
fn expires(mut conn: Connection, from: u64, millis: u64, kind: CloseKind) {
    // The tick may lag by a millisecond.
    let at = from + (millis + 1) * MILLISECOND;
    let mut pool = ChunkPool::default();
    assert_eq!(conn.poll_deadline(), at, "{kind:?}");
    assert_eq!(conn.handle_deadline(at - 1, &mut pool), Expired::Nothing, "{kind:?}");
    assert_eq!(conn.handle_deadline(at, &mut pool), Expired::Something, "{kind:?}");
    assert_eq!(conn.decided(at).map(|reason| reason.kind()), Some(kind));
    assert_eq!(conn.unsent(), 0, "{kind:?}");
    for deadline in [Deadline::Connect, Deadline::Handshake, Deadline::Write, Deadline::Idle] {
        let is = kind == CloseKind::TimedOut(deadline);
        assert_eq!(conn.has_timed_out(deadline), is, "{kind:?}, {deadline:?}");
    }
}

#[test]
fn each_deadline_holds_to_the_nanosecond() {
    let pool = &mut ChunkPool::default();
    let timed_out = CloseKind::TimedOut;
    let peer = ([127, 0, 0, 1], 7000).into();
    let (id, limits) = (Ids::default().reserve(), Arc::new(small_limits()));
    let conn = Connection::connecting(id, peer, limits, NOW);
    assert_eq!(conn.since(), NOW);
    expires(conn, NOW, 50, timed_out(Deadline::Connect));

    let conn = bare(small_limits());
    assert_eq!((conn.since(), conn.last_active()), (NOW, NOW));
    expires(conn, NOW, 90, timed_out(Deadline::Idle));

    let later = NOW + 7 * MILLISECOND;
    let mut conn = bare(small_limits());
    conn.handle_read(1, 1, later);
    assert_eq!(conn.last_active(), later);
    expires(conn, later, 90, timed_out(Deadline::Idle));

    let mut conn = bare(small_limits());
    conn.handle_filter(Box::new(Toy::new(0, false)), false, pool, later);
    expires(conn, later, 40, timed_out(Deadline::Handshake));

    // A filter that is open at once: silence counts from there.
    let mut conn = bare(small_limits());
    conn.handle_filter(Box::<Counts>::default(), false, pool, later);
    conn.flags.clear(Flags::OPENED_DUE);
    expires(conn, later, 90, timed_out(Deadline::Idle));

    let mut conn = bare(small_limits());
    conn.queue(&[1; 9], pool, later);
    expires(conn, later, 30, timed_out(Deadline::Write));
}

#[test]
fn of_a_stall_and_the_time_for_a_close_the_one_that_has_passed_is_the_reason() {
    // The close is begun at `NOW` and has 60 ms; a stall has 30 ms from the last progress.
    for (progress, at, kind) in [
        (20, 51, Deadline::Write),
        (29, 60, Deadline::Write),
        (30, 61, Deadline::Close),
        (31, 61, Deadline::Close),
    ] {
        let pool = &mut ChunkPool::default();
        let mut conn = bare(without_idle());
        conn.queue(&[1; 9], pool, NOW);
        conn.want_close();
        conn.handle_wishes(pool, NOW, false);
        conn.handle_sent(1, pool, NOW + progress * MILLISECOND);
        let due = NOW + at * MILLISECOND;
        assert_eq!(conn.poll_deadline(), due, "{progress}");
        assert_eq!(conn.handle_deadline(due - 1, pool), Expired::Nothing, "{progress}");
        assert_eq!(conn.handle_deadline(due, pool), Expired::Something, "{progress}");
        let found = conn.decided(due).map(|reason| reason.kind());
        assert_eq!(found, Some(CloseKind::TimedOut(kind)), "{progress}");
    }
    // A nanosecond before the time for the close, a stall is a stall.
    let pool = &mut ChunkPool::default();
    let mut conn = bare(without_idle());
    conn.queue(&[1; 9], pool, NOW);
    conn.want_close();
    conn.handle_wishes(pool, NOW, false);
    let due = NOW + 61 * MILLISECOND;
    conn.handle_deadline(due - 1, pool);
    assert!(conn.has_timed_out(Deadline::Write) && !conn.has_timed_out(Deadline::Close));
}

#[test]
fn a_deadline_is_untried_while_what_would_put_it_off_may_wait_at_the_socket() {
    let pool = &mut ChunkPool::default();
    let due = NOW + 91 * MILLISECOND;
    let mut conn = bare(small_limits());
    assert!(!conn.is_untried(due), "nothing is known to wait");
    conn.handle_ready(Flags::READABLE);
    assert!(!conn.is_untried(due - 1) && conn.is_untried(due));
    conn.want_pause();
    assert!(!conn.is_untried(due), "paused, it is not read");
    conn.want_resume();
    conn.handle_read(1, 1, due);
    assert!(!conn.is_untried(due), "it was read since");

    let mut conn = bare(small_limits());
    conn.handle_ready(Flags::READABLE);
    let since = [NOW - 1, NOW, NOW + 1].map(|time| conn.has_input_since(time));
    assert_eq!(since, [false, false, true], "it was looked at just then");

    // A stall: room that was not tried.
    let due = NOW + 31 * MILLISECOND;
    let mut conn = bare(without_idle());
    conn.queue(&[1; 9], pool, NOW);
    assert!(!conn.is_untried(due - 1) && conn.is_untried(due));
    conn.handle_write_blocked();
    assert!(!conn.is_untried(due));

    // What was queued when the deadline passed is none of what it waited for.
    let mut conn = bare(small_limits());
    let due = conn.poll_deadline();
    conn.queue(&[1; 9], pool, due - 1);
    assert!(conn.is_untried(due));
    let mut conn = bare(small_limits());
    conn.queue(&[1; 9], pool, due);
    assert!(conn.has_output() && !conn.is_untried(due));

    let due = NOW + 31 * MILLISECOND;
    // A close has its time however much still comes, but for a stall on the way.
    let mut conn = bare(without_idle());
    conn.want_close();
    conn.handle_wishes(pool, NOW, false);
    conn.handle_fin_sent(NOW);
    conn.handle_ready(Flags::READABLE);
    assert!(conn.poll_deadline() <= due && !conn.is_untried(due));
    // But a silence while it lingers ends by what comes.
    let (silence, all) = (NOW + 11 * MILLISECOND, NOW + 26 * MILLISECOND);
    assert!(!conn.is_untried(silence - 1) && conn.is_untried(silence));
    assert!(conn.is_untried(all - 1) && !conn.is_untried(all), "linger_total");
    let short = Limits { close_deadline: Duration::from_millis(15), ..without_idle() };
    for fin_sent in [false, true] {
        let mut conn = bare(short.clone());
        conn.want_close();
        conn.handle_wishes(pool, NOW, false);
        if fin_sent {
            conn.handle_fin_sent(NOW);
        }
        conn.handle_ready(Flags::READABLE);
        let end = NOW + 16 * MILLISECOND;
        assert_eq!(conn.is_untried(end - 1), fin_sent);
        assert!(!conn.is_untried(end), "close_deadline");
    }
}

#[test]
fn the_time_for_a_close_begins_with_what_closes() {
    let pool = &mut ChunkPool::default();
    let mut conn = bare(small_limits());
    let idle = conn.poll_deadline();
    assert_eq!(conn.handle_deadline(idle, pool), Expired::Something);
    assert_eq!(conn.poll_deadline(), idle + 61 * MILLISECOND, "without another call");
    let mut conn = bare(small_limits());
    conn.want_close();
    conn.handle_wishes(pool, NOW + 5 * MILLISECOND, false);
    assert_eq!(conn.poll_deadline(), NOW + 66 * MILLISECOND);
    let mut conn = bare(small_limits());
    conn.handle_failure(CloseKind::Protocol, Cause::new(std::io::Error::other("no")));
    conn.handle_wishes(pool, NOW + 5 * MILLISECOND, false);
    assert_eq!(conn.poll_deadline(), NOW + 66 * MILLISECOND);
    // It does not begin again.
    conn.handle_wishes(pool, NOW + 9 * MILLISECOND, false);
    assert_eq!(conn.poll_deadline(), NOW + 66 * MILLISECOND);
}

#[test]
fn silence_counts_from_the_change_of_the_limits_and_never_from_before_the_last_byte() {
    for (millis, from) in [(7, NOW + 7 * MILLISECOND), (0, NOW)] {
        let pool = &mut ChunkPool::default();
        let mut conn = bare(Limits { idle: None, ..small_limits() });
        conn.put_limits(Arc::new(small_limits()));
        conn.handle_wishes(pool, NOW + millis * MILLISECOND, false);
        assert_eq!(conn.last_active(), from);
        expires(conn, from, 90, CloseKind::TimedOut(Deadline::Idle));
    }
    let mut conn = bare(small_limits());
    conn.put_limits(Arc::new(small_limits()));
    // A byte may have moved by a later clock than that of the tick.
    conn.handle_wishes(&mut ChunkPool::default(), NOW - 5 * MILLISECOND, false);
    assert_eq!(conn.last_active(), NOW);
    conn.handle_wishes(&mut ChunkPool::default(), NOW + MILLISECOND, false);
    assert_eq!(conn.last_active(), NOW, "once");
}

#[test]
fn lingering_begins_with_the_fin_and_lasts_from_byte_to_byte() {
    let pool = &mut ChunkPool::default();
    let at = |millis: u64| NOW + millis * MILLISECOND;
    let mut conn = bare(without_idle());
    conn.queue(&[1; 9], pool, NOW);
    conn.want_close();
    conn.handle_wishes(pool, NOW, false);
    conn.handle_sent(9, pool, at(20));
    conn.handle_flushed();
    conn.handle_fin_sent(at(20));
    // 10 ms of silence, 25 ms in all, 60 ms from the close.
    assert_eq!(conn.poll_deadline(), at(20 + 10 + 1));
    conn.handle_wire(&mut [1; 4], pool, at(29));
    assert_eq!(conn.poll_deadline(), at(29 + 10 + 1));
    conn.handle_wire(&mut [1; 4], pool, at(38));
    assert_eq!(conn.poll_deadline(), at(20 + 25 + 1));
    assert_eq!(conn.handle_deadline(at(46), pool), Expired::Something);
    let reason = conn.poll_closed(at(46)).unwrap();
    assert_eq!((reason.kind(), reason.unread()), (CloseKind::Finished, 8));
    // A FIN that is late has what is left of the time for the close.
    let mut conn = bare(without_idle());
    conn.want_close();
    conn.handle_wishes(pool, NOW, false);
    conn.handle_fin_sent(at(55));
    assert_eq!(conn.poll_deadline(), at(61));
}

#[test]
fn the_next_protocol_has_the_idle_limit_of_the_limits_from_its_own_beginning_on() {
    let pool = &mut ChunkPool::default();
    let mut conn = bare(small_limits());
    conn.put_idle(None);
    conn.handle_wishes(pool, NOW, false);
    assert_eq!(conn.poll_deadline(), u64::MAX);
    // While silence had no limit, the times of its bytes were not kept.
    let later = NOW + 500 * MILLISECOND;
    conn.handle_replaced();
    conn.flags.clear(Flags::OPENED_DUE);
    conn.handle_wishes(pool, later, false);
    expires(conn, later, 90, CloseKind::TimedOut(Deadline::Idle));
    // With the same limit as before, silence goes on.
    let mut conn = bare(small_limits());
    conn.handle_replaced();
    conn.flags.clear(Flags::OPENED_DUE);
    conn.handle_wishes(pool, NOW + MILLISECOND, false);
    expires(conn, NOW, 90, CloseKind::TimedOut(Deadline::Idle));
}

#[test]
fn the_handshake_that_a_connection_begins_with_is_part_of_its_connect() {
    // The connect has 50 ms, a handshake 40.
    let limits = || Arc::new(without_idle());
    let (id, peer) = (Ids::default().reserve(), Endpoint::Other);
    let begin = |conn: &mut Connection, took: u64| {
        let now = NOW + took * MILLISECOND;
        conn.handle_filter(Box::new(Toy::new(0, false)), false, &mut ChunkPool::default(), now);
        assert!(conn.flags().any(Flags::HANDSHAKING));
    };
    for (took, end, deadline) in [
        (5, 46, Deadline::Handshake),
        (10, 51, Deadline::Handshake),
        (11, 51, Deadline::Connect),
        (49, 51, Deadline::Connect),
    ] {
        let mut conn = Connection::connecting(id, peer, limits(), NOW);
        conn.handle_connected(NOW + took * MILLISECOND);
        begin(&mut conn, took);
        let due = NOW + end * MILLISECOND;
        assert_eq!(conn.poll_deadline(), due, "{took} ms for the connect");
        let pool = &mut ChunkPool::default();
        assert_eq!(conn.handle_deadline(due - 1, pool), Expired::Nothing);
        // It may be noticed when both have passed.
        assert_eq!(conn.handle_deadline(due + 100 * MILLISECOND, pool), Expired::Something);
        assert!(conn.has_timed_out(deadline), "{took} ms for the connect");
        assert!(conn.flags().any(Flags::RESET));
    }
    // A connection that was accepted, and a filter that comes later, have no such limit.
    let mut conn = Connection::accepted(id, None, peer, limits(), NOW);
    begin(&mut conn, 30);
    assert_eq!(conn.poll_deadline(), NOW + 71 * MILLISECOND);
    let mut conn = Connection::connecting(id, peer, limits(), NOW);
    conn.handle_connected(NOW);
    conn.handle_replaced();
    begin(&mut conn, 30);
    assert_eq!(conn.poll_deadline(), NOW + 71 * MILLISECOND);
}

#[test]
fn no_deadline_counts_from_earlier_than_what_has_its_stamp_may_have_happened() {
    type Begin = fn(&mut Connection, &mut ChunkPool);
    let close: Begin = |conn, pool| {
        conn.want_close();
        conn.handle_wishes(pool, NOW, false);
    };
    let begins: [(&str, Limits, u64, Begin); 6] = [
        ("idle", small_limits(), 91, |_, _| ()),
        ("stall", without_idle(), 31, |conn, pool| assert!(conn.queue(&[1; 9], pool, NOW))),
        ("handshake", without_idle(), 41, |conn, pool| {
            conn.handle_filter(Box::new(Toy::new(0, false)), false, pool, NOW);
        }),
        ("close", without_idle(), 61, close),
        ("linger_idle", without_idle(), 11, |conn, pool| {
            conn.want_close();
            conn.handle_wishes(pool, NOW, false);
            conn.handle_fin_sent(NOW);
        }),
        (
            "linger_total",
            Limits { linger_idle: Duration::from_secs(9), ..without_idle() },
            26,
            |conn, pool| {
                conn.want_close();
                conn.handle_wishes(pool, NOW, false);
                conn.handle_fin_sent(NOW);
            },
        ),
    ];
    for (name, limits, after, begin) in begins {
        let mut conn = bare(limits);
        begin(&mut conn, &mut ChunkPool::default());
        assert_eq!(conn.poll_deadline(), NOW + after * MILLISECOND, "{name}");
        conn.handle_stamps(|stamp| stamp);
        assert_eq!(conn.poll_deadline(), NOW + after * MILLISECOND, "{name}");
        conn.handle_stamps(|stamp| if stamp == NOW { NOW + 500 * MILLISECOND } else { stamp });
        assert_eq!(conn.poll_deadline(), NOW + (500 + after) * MILLISECOND, "{name}");
    }
}
