//! Deadlines: never early, always reached, and what they mean in each state.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Connection, Expired, Flags};
use super::rig::{Answer, MILLISECOND, Rig, Wish, small_limits};
use crate::buffer::ChunkPool;
use crate::id::Ids;
use crate::limits::Limits;
use crate::reason::{By, CloseKind, Deadline};

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
