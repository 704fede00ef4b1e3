//! Output: order, marks, flow control, congestion.

use super::super::Flags;
use super::rig::{Answer, MILLISECOND, Rig, Wish, small_limits};
use crate::clock::nanos;
use crate::grammar::Callback;
use crate::reason::CloseKind;

fn write(write: usize) -> Answer {
    Answer { write, ..Answer::default() }
}

fn blocked() -> Rig {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig
}

#[test]
fn output_leaves_in_the_order_it_was_written_whoever_wrote_it() {
    let mut rig = blocked();
    rig.plan.extend([write(10), Answer { shared: true, ..write(7) }, write(3)]);
    for _ in 0..3 {
        rig.peer_sends(1);
        rig.settle();
        rig.other_writes(2, false, None);
    }
    assert_eq!(rig.conn.unsent(), 26);
    rig.peer_reads(5);
    rig.settle();
    assert_eq!(rig.conn.unsent(), 21);
    rig.peer_reads(100);
    rig.settle();
    assert_eq!((rig.conn.unsent(), rig.kernel.sent.len()), (0, 26));
    assert_eq!(rig.kernel.sent, rig.model.written);
}

#[test]
fn more_than_output_max_ends_with_output_full_and_counts_what_was_lost() {
    let mut rig = blocked();
    rig.plan.extend([write(200), write(1)]);
    rig.peer_sends(1);
    rig.settle();
    assert!(!rig.is(Flags::ENDED), "exactly output_max is kept");
    rig.note();
    rig.settle();
    assert_eq!(rig.kind(), Some(CloseKind::OutputFull));
    assert_eq!(rig.reason.unwrap().unsent(), 201);
}

#[test]
fn congestion_is_strictly_above_the_high_mark_and_drained_at_the_low_one() {
    let mut rig = blocked();
    rig.plan.push_back(write(32));
    rig.note();
    rig.settle();
    assert!(!rig.conn.is_congested());
    rig.other_writes(1, false, None);
    assert!(rig.conn.is_congested());
    rig.peer_reads(24);
    rig.settle();
    assert!(rig.conn.is_congested(), "9 bytes are above the low mark");
    rig.peer_reads(1);
    rig.settle();
    assert!(!rig.conn.is_congested());
    assert_eq!(rig.calls.iter().filter(|call| **call == Callback::Drained).count(), 1);
}

#[test]
fn drained_follows_also_when_the_output_left_at_once() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(write(33));
    rig.peer_sends(1);
    rig.settle();
    assert_eq!(rig.calls, [Callback::Opened, Callback::Data, Callback::Drained]);
}

#[test]
fn drained_waits_when_output_has_grown_again() {
    let mut rig = blocked();
    rig.other_writes(40, false, None);
    rig.kernel.room = 35;
    rig.event(Flags::WRITABLE);
    rig.send_for_others();
    rig.other_writes(20, false, None);
    rig.settle();
    assert!(!rig.calls.contains(&Callback::Drained));
    rig.peer_reads(100);
    rig.settle();
    assert_eq!(rig.calls.iter().filter(|call| **call == Callback::Drained).count(), 1);
}

#[test]
fn an_answer_above_the_high_mark_stops_reading_until_the_low_one() {
    let mut rig = blocked();
    rig.plan.extend([write(20), write(13), write(5)]);
    for _ in 0..3 {
        rig.peer_sends(1);
        rig.settle();
    }
    assert!(rig.is(Flags::HELD));
    assert_eq!(rig.shown.len(), 2, "33 bytes were caused by two reads");
    rig.peer_reads(24);
    rig.settle();
    assert!(rig.is(Flags::HELD), "9 are left");
    rig.peer_reads(1);
    rig.settle();
    assert!(!rig.is(Flags::HELD));
    assert_eq!(rig.shown.len(), 3);
}

#[test]
fn output_on_its_own_initiative_never_stops_reading() {
    let mut rig = blocked();
    rig.plan.push_back(write(150));
    rig.note();
    rig.settle();
    rig.peer_sends(1);
    rig.settle();
    assert!(!rig.is(Flags::HELD));
    assert_eq!(rig.shown.len(), 1);
}

#[test]
fn caused_bytes_leave_with_the_queue_whose_they_are_part() {
    let mut rig = blocked();
    let writer = rig.other(0);
    rig.other_writes(30, false, None);
    rig.other_writes(20, false, Some(writer));
    assert_eq!(rig.holds, [], "20 caused bytes are below the mark, whatever else is queued");
    rig.other_writes(13, false, Some(writer));
    assert_eq!(rig.holds, [writer]);
    rig.peer_reads(50);
    rig.settle();
    assert_eq!(rig.holds, [writer], "13 of at most 33 are left");
    rig.peer_reads(5);
    rig.settle();
    assert_eq!(rig.holds, []);
}

#[test]
fn writers_are_let_go_when_the_queue_they_wait_for_begins_to_close_or_breaks() {
    for end in 0..3 {
        let mut rig = blocked();
        let writer = rig.other(0);
        rig.other_writes(40, false, Some(writer));
        assert_eq!(rig.holds, [writer]);
        match end {
            0 => rig.other_wishes(Wish::Close),
            1 => rig.other_wishes(Wish::Abort),
            _ => rig.peer_resets(),
        }
        rig.settle();
        assert_eq!(rig.holds, [], "nothing more is taken, so there is nothing to wait for");
    }
}

#[test]
fn writes_after_close_and_half_close_are_refused_and_counted() {
    for wish in [Wish::Close, Wish::Finish] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.push_back(Answer { wishes: vec![wish], ..write(5) });
        rig.peer_sends(1);
        rig.settle();
        rig.other_writes(9, false, None);
        rig.peer_finishes();
        rig.settle();
        let reason = rig.reason.unwrap();
        assert_eq!((reason.bytes_out(), reason.refused()), (5, 9));
    }
}

#[test]
fn the_rare_part_goes_back_when_nothing_is_in_it() {
    let mut rig = blocked();
    let keeps = Answer { keep: 3, ..write(0) };
    rig.plan.extend([write(20), keeps.clone(), keeps]);
    rig.peer_sends(1);
    rig.settle();
    rig.peer_sends(5);
    rig.settle();
    rig.peer_reads(20);
    rig.settle();
    assert!(rig.conn.rare().is_some(), "3 bytes are unread");
    rig.peer_sends(1);
    rig.settle();
    rig.send_for_others();
    assert!(rig.conn.rare().is_none());
}

#[test]
fn bytes_that_leave_past_the_queue_count_as_sent() {
    let mut rig = blocked();
    assert!(rig.conn.sends_directly());
    rig.conn.handle_sent_directly(5);
    rig.conn.handle_sent_at(2, rig.tick());
    assert_eq!(rig.conn.bytes_out(), 7);
    assert!(rig.conn.rare().is_none(), "nothing is queued");
    rig.other_writes(3, false, None);
    assert!(!rig.conn.sends_directly(), "they come first");
}

#[test]
fn only_bytes_that_leave_put_deadlines_off() {
    let mut rig = Rig::accepted(small_limits());
    let (idle, later) = (rig.conn.poll_deadline(), rig.tick() + 5 * MILLISECOND);
    rig.conn.handle_sent_at(0, later);
    assert_eq!(rig.conn.poll_deadline(), idle);
    rig.conn.handle_sent_at(1, later);
    assert_eq!(rig.conn.poll_deadline(), idle + 5 * MILLISECOND);
    let mut rig = blocked();
    rig.other_writes(3, false, None);
    let stall = rig.conn.poll_deadline();
    rig.now = later;
    rig.other_writes(3, false, None);
    assert_eq!(rig.conn.poll_deadline(), stall, "nothing has left");
    rig.conn.handle_sent(1, &mut rig.chunks, later);
    assert_eq!(rig.conn.poll_deadline(), stall + 5 * MILLISECOND);
}

#[test]
fn a_stall_is_judged_by_the_thread_that_sleeps_in_the_write_alone() {
    let mut rig = blocked();
    rig.other_writes(3, false, None);
    rig.conn.handle_write_blocked();
    assert!(rig.conn.is_stuck() && !rig.conn.has_output());
    let stall = rig.conn.poll_deadline();
    assert_eq!(rig.conn.poll_deadline_beside(false), stall);
    assert!(rig.conn.poll_deadline_beside(true) > stall, "nothing but silence");
    rig.conn.want_close();
    rig.conn.handle_wishes(&mut rig.chunks, rig.now, false);
    let closing = rig.now + nanos(rig.conn.limits().close_deadline) + MILLISECOND;
    assert_eq!(rig.conn.poll_deadline_beside(true), closing);
    rig.conn.handle_ready(Flags::WRITABLE);
    assert!(rig.conn.has_output() && !rig.conn.is_stuck());
}

#[test]
fn bytes_that_left_while_their_queue_was_dropped_are_not_unsent() {
    let mut rig = blocked();
    rig.other_writes(10, false, None);
    rig.conn.want_abort();
    rig.conn.handle_wishes(&mut rig.chunks, rig.now, false);
    rig.conn.handle_sent_late(4);
    let reason = rig.conn.poll_closed(rig.now).unwrap();
    assert_eq!((reason.unsent(), reason.bytes_out()), (6, 4));
}

#[test]
fn nothing_written_is_nothing_queued_and_nothing_lost() {
    let mut rig = blocked();
    rig.conn.lose_output(0);
    assert!(rig.conn.rare().is_none());
    assert!(rig.conn.queue(b"", &mut rig.chunks, rig.now));
    assert!(!rig.is(Flags::QUEUED));
}

#[test]
fn a_stall_of_what_was_written_before_the_connect_counts_from_the_connect() {
    let mut rig = Rig::connecting(small_limits());
    rig.other_writes(3, false, None);
    let later = rig.tick() + 20 * MILLISECOND;
    rig.conn.handle_connected(later);
    rig.conn.flags.clear(Flags::OPENED_DUE);
    let stall = nanos(rig.conn.limits().write_stall) + MILLISECOND;
    assert_eq!(rig.conn.poll_deadline(), later + stall);
}

#[test]
fn a_list_of_writers_that_are_let_go_is_used_again() {
    let mut rig = blocked();
    let (one, two) = (rig.other(0), rig.other(1));
    rig.conn.handle_holds(one);
    let mut released = rig.conn.poll_released();
    assert_eq!((&released[..], rig.conn.poll_released()), (&[one][..], Vec::new()));
    let room = released.capacity();
    released.clear();
    rig.conn.put_holders(released);
    let holders = &rig.conn.queues().unwrap().holders;
    assert!(holders.is_empty() && holders.capacity() == room);
    rig.conn.handle_holds(two);
    rig.conn.put_holders(vec![]);
    assert_eq!(rig.conn.poll_released(), [two], "it was not forgotten");
}

#[test]
fn nothing_is_caused_of_what_was_dropped() {
    let mut rig = blocked();
    let writer = rig.other(0);
    rig.other_writes(40, false, Some(writer));
    assert_eq!(rig.conn.queues().unwrap().caused, 40);
    rig.conn.want_abort();
    rig.conn.handle_wishes(&mut rig.chunks, rig.now, false);
    assert_eq!((rig.conn.queues().unwrap().caused, rig.conn.unsent()), (0, 0));
    assert!(!rig.is(Flags::QUEUED), "nothing waits");
}

#[test]
fn a_connection_is_marked_once_as_having_output_of_others() {
    let mut rig = blocked();
    let changes = [true, true, false, false, true].map(|dirty| {
        let changed = rig.conn.handle_dirty(dirty);
        (changed, rig.is(Flags::DIRTY))
    });
    assert_eq!(changes, [(true, true), (false, true), (true, false), (false, false), (true, true)]);
}

#[test]
fn a_congestion_that_lasts_is_that_of_the_next_protocol_as_well() {
    for (unsent, congested) in [(32, false), (33, true)] {
        let mut rig = blocked();
        rig.other_writes(33, false, None);
        assert!(rig.conn.is_congested());
        rig.peer_reads(33 - unsent);
        rig.send_for_others();
        assert!(rig.conn.is_congested() && rig.conn.unsent() == unsent);
        rig.conn.handle_replaced();
        assert_eq!(rig.conn.is_congested(), congested, "{unsent} unsent");
    }
}
