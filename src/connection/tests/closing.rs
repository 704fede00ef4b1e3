//! The end: the state table of a connection, one sentence for each way through it.

use std::io::ErrorKind;
use std::sync::Arc;

use super::super::{Due, Flags, Round};
use super::rig::{Answer, Failure, Rig, Wish, small_limits};
use crate::grammar::Callback;
use crate::reason::{By, Cause, CloseKind, ConnectFailure};

fn wish(wish: Wish) -> Answer {
    Answer { wishes: vec![wish], ..Answer::default() }
}

fn failing(failure: Failure) -> Answer {
    Answer { failure: Some(failure), write: 5, ..Answer::default() }
}

/// A connection whose protocol has done this in `data`.
fn after(answer: Answer) -> Rig {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(answer);
    rig.peer_sends(1);
    rig.settle();
    rig
}

fn by_and_kind(rig: &Rig) -> (By, CloseKind) {
    let reason = rig.reason.as_ref().expect("`closed` has run");
    (reason.by(), reason.kind())
}

#[test]
fn close_flushes_sends_fin_and_waits_for_the_peers() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.plan.push_back(Answer { write: 20, ..wish(Wish::Close) });
    rig.peer_sends(1);
    rig.settle();
    assert!(!rig.kernel.fin_sent, "20 bytes stand before it");
    rig.peer_reads(20);
    rig.settle();
    assert!(rig.kernel.fin_sent && rig.reason.is_none());
    rig.peer_sends(50);
    rig.settle();
    assert_eq!(rig.shown.len(), 1, "what comes after is thrown away");
    rig.peer_finishes();
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Finished));
    assert_eq!(rig.reason.unwrap().unread(), 50);
}

#[test]
fn close_after_the_peers_fin_does_not_linger() {
    let mut rig = Rig::accepted(small_limits());
    rig.peer_sends(1);
    rig.peer_finishes();
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Finished));
    assert!(rig.reason.unwrap().peer_finished());
}

#[test]
fn closing_ends_with_lingering_when_the_peer_stays_silent() {
    let mut rig = after(wish(Wish::Close));
    rig.settle_to_the_end();
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Finished));
}

#[test]
fn calling_an_end_twice_is_calling_it_once() {
    for wish in [Wish::Close, Wish::Abort, Wish::Finish] {
        let mut rig = after(Answer { wishes: vec![wish, wish], ..Answer::default() });
        rig.other_wishes(wish);
        rig.peer_finishes();
        rig.settle();
        assert!(rig.reason.is_some());
    }
}

#[test]
fn abort_drops_what_is_queued_and_resets() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 3;
    rig.plan.extend([Answer { write: 20, ..Answer::default() }, wish(Wish::Abort)]);
    rig.peer_sends(1);
    rig.settle();
    rig.note();
    rig.settle();
    assert!(rig.is(Flags::RESET));
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Aborted));
    assert_eq!(rig.reason.unwrap().unsent(), 17);
}

#[test]
fn half_close_first_by_us_then_by_the_peer() {
    let mut rig = after(Answer { write: 4, ..wish(Wish::Finish) });
    assert!(rig.kernel.fin_sent && rig.reason.is_none());
    rig.peer_sends(9);
    rig.settle();
    assert_eq!(rig.shown.len(), 2, "input goes on");
    rig.plan.push_back(Answer::default());
    rig.peer_finishes();
    rig.settle();
    assert_eq!(rig.calls[3..], [Callback::Eof, Callback::Closed], "both directions have ended");
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Finished));
}

#[test]
fn half_close_first_by_the_peer_then_by_us() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([Answer::default(), Answer::default()]);
    rig.peer_sends(1);
    rig.peer_finishes();
    rig.settle();
    assert!(rig.reason.is_none(), "`eof` did not close");
    assert!(!rig.conn.has_work(), "half open, and nothing to do");
    rig.other_writes(30, false, None);
    rig.send_for_others();
    rig.other_wishes(Wish::Finish);
    rig.settle();
    assert_eq!(rig.kernel.sent.len(), 30);
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Finished));
}

#[test]
fn fin_after_a_half_close_waits_while_reading_is_paused() {
    let mut rig = after(Answer { wishes: vec![Wish::Finish, Wish::Pause], ..Answer::default() });
    rig.peer_finishes();
    rig.settle();
    assert!(rig.reason.is_none());
    rig.note();
    rig.plan.push_back(wish(Wish::Resume));
    rig.settle();
    assert_eq!(by_and_kind(&rig).1, CloseKind::Finished);
}

#[test]
fn a_reset_shows_what_had_arrived_before_it_ends_the_connection() {
    let mut rig = Rig::accepted(small_limits());
    rig.peer_sends(150);
    rig.peer_resets();
    rig.settle();
    assert_eq!(rig.shown.iter().map(Vec::len).sum::<usize>(), 150);
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
    assert_eq!(rig.reason.unwrap().unread(), 0);
}

#[test]
fn a_reset_while_paused_ends_at_once_with_what_was_unread() {
    let mut rig = after(Answer { keep: 1, ..wish(Wish::Pause) });
    rig.peer_sends(9);
    rig.peer_resets();
    rig.settle();
    assert_eq!(rig.shown.len(), 1);
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
    assert_eq!(rig.reason.unwrap().unread(), 1, "9 more were never read");
}

#[test]
fn a_reset_while_held_shows_what_had_arrived_up_to_input_max() {
    for (arrived, shown, unread) in
        [(90, 90, 0), (99, 99, 0), (100, 100, 0), (101, 96, 5), (300, 96, 96)]
    {
        let mut rig = Rig::accepted(small_limits());
        rig.hold(rig.other(0));
        rig.peer_sends(arrived);
        rig.peer_resets();
        rig.settle();
        assert_eq!(rig.shown.iter().map(Vec::len).sum::<usize>(), shown);
        assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
        assert_eq!(rig.reason.unwrap().unread(), unread);
    }
}

#[test]
fn a_reset_shows_unread_bytes_that_flow_control_kept_back() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.plan.push_back(Answer { write: 40, keep: 5, ..Answer::default() });
    rig.peer_sends(20);
    rig.settle();
    assert!(rig.is(Flags::HELD));
    rig.peer_resets();
    rig.settle();
    assert_eq!(rig.shown[1].len(), 5);
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
}

#[test]
fn a_failed_write_ends_only_after_what_had_arrived_was_shown() {
    let mut rig = Rig::accepted(small_limits());
    rig.peer_sends(20);
    rig.kernel.reset = true;
    rig.other_writes(5, false, None);
    rig.send_for_others();
    assert!(rig.is(Flags::BROKEN));
    rig.settle();
    assert_eq!(rig.shown.len(), 1);
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
    assert_eq!(rig.reason.unwrap().unsent(), 5);
}

#[test]
fn what_the_last_data_leaves_counts_as_unread_when_its_answer_cannot_leave() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { write: 1, keep: 3, ..wish(Wish::Pause) });
    rig.peer_sends(5);
    rig.kernel.reset = true;
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
    assert_eq!(rig.reason.unwrap().unread(), 3);
}

#[test]
fn what_a_broken_connection_writes_is_lost_and_counted() {
    let mut rig = Rig::accepted(small_limits());
    rig.peer_sends(20);
    rig.kernel.reset = true;
    rig.plan.push_back(Answer { write: 7, ..Answer::default() });
    rig.other_writes(5, false, None);
    rig.send_for_others();
    rig.settle();
    assert_eq!(rig.reason.unwrap().unsent(), 12);
}

#[test]
fn close_in_the_last_words_of_a_broken_connection_leaves_the_reason() {
    let mut rig = Rig::accepted(small_limits());
    rig.peer_sends(20);
    rig.kernel.reset = true;
    rig.plan.push_back(wish(Wish::Close));
    rig.other_writes(5, false, None);
    rig.send_for_others();
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
}

#[test]
fn an_error_closes_in_order_and_what_was_written_leaves_first() {
    let mut rig = after(failing(Failure::Err));
    assert_eq!(rig.kernel.sent.len(), 5);
    assert!(rig.kernel.fin_sent && !rig.is(Flags::RESET));
    rig.settle_to_the_end();
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Protocol));
    assert!(rig.reason.unwrap().error().is_some());
}

#[test]
fn a_panic_resets_and_drops_its_own_writes() {
    let rig = after(failing(Failure::Panic));
    assert!(rig.is(Flags::RESET));
    assert_eq!(rig.kernel.sent.len(), 0);
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Panicked));
    assert_eq!(rig.reason.unwrap().unsent(), 5);
}

#[test]
fn a_reset_while_closing_after_an_error_leaves_the_error_as_the_reason() {
    let mut rig = after(failing(Failure::Err));
    rig.peer_resets();
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Protocol));
}

#[test]
fn a_reset_while_closing_in_order_is_a_reset() {
    let mut rig = after(wish(Wish::Close));
    rig.peer_resets();
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
}

#[test]
fn whatever_cancels_a_connect_under_way_it_was_cancelled() {
    let cancelled = CloseKind::Connect(ConnectFailure::Cancelled);
    for wish in [Wish::Close, Wish::Abort] {
        let mut rig = Rig::connecting(small_limits());
        rig.other_writes(5, false, None);
        rig.other_wishes(wish);
        rig.settle();
        assert_eq!(by_and_kind(&rig), (By::Us, cancelled));
        assert_eq!(rig.calls, [Callback::Closed], "`opened` never ran");
        assert_eq!(rig.reason.unwrap().unsent(), 5);
    }
    let mut rig = Rig::connecting(small_limits());
    rig.stop();
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Runtime, cancelled));
}

#[test]
fn a_refused_connect_is_told_without_opened() {
    let mut rig = Rig::connecting(small_limits());
    rig.peer_resets();
    rig.settle();
    assert_eq!(rig.kind(), Some(CloseKind::Connect(ConnectFailure::Refused)));
    assert_eq!(rig.calls, [Callback::Closed]);
}

#[test]
fn shutdown_asks_an_open_connection_and_names_itself_when_it_closes() {
    let mut rig = Rig::accepted(small_limits());
    rig.stop();
    rig.settle();
    assert_eq!(rig.calls, [Callback::Opened, Callback::Stopping]);
    rig.settle_to_the_end();
    assert_eq!(by_and_kind(&rig), (By::Runtime, CloseKind::Shutdown));
}

#[test]
fn the_end_of_the_drain_resets_who_is_open_or_cannot_flush_its_close() {
    let open = Rig::accepted(small_limits());
    let mut closing = Rig::accepted(small_limits());
    closing.kernel.room = 0;
    closing.plan.push_back(Answer { write: 20, ..wish(Wish::Close) });
    closing.peer_sends(1);
    closing.settle();
    for mut rig in [open, closing] {
        rig.end_drain();
        rig.settle();
        assert!(rig.is(Flags::RESET));
        assert_eq!(by_and_kind(&rig), (By::Runtime, CloseKind::Shutdown));
    }
}

#[test]
fn the_end_of_the_drain_leaves_the_reason_of_an_error_that_cannot_be_flushed() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.plan.push_back(failing(Failure::Err));
    rig.peer_sends(1);
    rig.settle();
    rig.end_drain();
    rig.settle();
    assert!(rig.is(Flags::RESET));
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Protocol));
}

#[test]
fn the_end_of_the_drain_cuts_lingering_without_a_reset() {
    let mut rig = after(wish(Wish::Close));
    rig.end_drain();
    rig.settle();
    assert!(!rig.is(Flags::RESET));
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Finished));
}

#[test]
fn a_failed_write_while_closing_after_an_error_ends_at_once_with_the_error() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.plan.push_back(failing(Failure::Err));
    rig.peer_sends(1);
    rig.settle();
    rig.peer_sends(40);
    rig.kernel.reset = true;
    rig.peer_reads(1);
    rig.send_for_others();
    assert!(rig.is(Flags::ENDED) && !rig.is(Flags::BROKEN), "nobody would be shown the 40 bytes");
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Protocol));
}

#[test]
fn cutting_lingering_short_ends_it_with_the_reason_it_had() {
    let mut rig = after(wish(Wish::Close));
    rig.conn.handle_linger_cut();
    rig.finish(false);
    rig.settle();
    assert_eq!(by_and_kind(&rig), (By::Us, CloseKind::Finished));
}

#[test]
fn only_who_has_closed_and_sent_its_fin_lingers() {
    let mut rig = after(wish(Wish::Finish));
    assert!(rig.kernel.fin_sent && !rig.conn.is_lingering(), "half-closed");
    rig.conn.handle_linger_cut();
    assert!(!rig.is(Flags::ENDED));
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.plan.push_back(Answer { write: 9, ..wish(Wish::Close) });
    rig.peer_sends(1);
    rig.settle();
    assert!(!rig.conn.is_lingering(), "9 bytes are to be sent");
    rig.peer_reads(9);
    rig.settle();
    assert!(rig.conn.is_lingering());
    rig.peer_finishes();
    rig.serve();
    assert!(!rig.conn.is_lingering(), "over");
}

#[test]
fn a_note_that_waits_when_both_directions_have_ended_is_told_before_the_end() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer::default());
    rig.peer_finishes();
    rig.settle();
    assert!(rig.note());
    rig.other_wishes(Wish::Finish);
    assert!(rig.kernel.fin_sent && !rig.is(Flags::ENDED));
    rig.settle();
    assert_eq!(rig.calls[1..], [Callback::Eof, Callback::Notified, Callback::Closed]);
}

#[test]
fn no_callback_but_closed_runs_once_closing_has_begun() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.plan.push_back(Answer { write: 50, keep: 5, ..wish(Wish::Close) });
    rig.peer_sends(10);
    rig.settle();
    assert!(!rig.note(), "notes are refused");
    rig.stop();
    rig.peer_sends(10);
    rig.peer_reads(100);
    rig.peer_finishes();
    rig.settle();
    assert_eq!(rig.calls, [Callback::Opened, Callback::Data, Callback::Closed]);
}

#[test]
fn what_the_system_reports_is_looked_at_unless_the_connect_is_not_over() {
    let mut rig = Rig::accepted(small_limits());
    rig.event(Flags::FAULTY);
    rig.conn.handle_fault_seen();
    assert!(rig.is(Flags::READABLE) && rig.is(Flags::HUNG) && !rig.is(Flags::FAULTY));
    let mut rig = Rig::connecting(small_limits());
    rig.event(Flags::FAULTY);
    rig.conn.handle_fault_seen();
    assert!(!rig.is(Flags::READABLE | Flags::HUNG | Flags::FAULTY));
}

#[test]
fn a_reset_shows_once_more_what_was_unread_when_flow_control_began() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { keep: 3, ..Answer::default() });
    rig.peer_sends(3);
    rig.settle();
    rig.hold(rig.other(0));
    rig.peer_resets();
    rig.settle();
    assert_eq!(rig.shown.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(by_and_kind(&rig), (By::Peer, CloseKind::Reset));
    assert_eq!(rig.reason.unwrap().unread(), 0);
}

#[test]
fn a_failed_read_ends_only_who_has_nothing_to_be_shown() {
    for due in [false, true] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.push_back(Answer { keep: 3, ..Answer::default() });
        rig.peer_sends(3);
        rig.settle();
        if due {
            let other = rig.other(0);
            rig.hold(other);
            rig.release(other);
        }
        assert_eq!(rig.is(Flags::DATA_DUE), due);
        rig.conn.handle_read_failed(ErrorKind::ConnectionReset.into(), &mut rig.chunks);
        assert_eq!((rig.is(Flags::BROKEN), rig.is(Flags::ENDED)), (due, !due));
        let reason = rig.conn.decided(rig.now).unwrap();
        assert_eq!((reason.by(), reason.kind()), (By::Peer, CloseKind::Reset));
    }
}

#[test]
fn who_breaks_after_a_fin_is_shown_the_rest_and_no_eof() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { keep: 3, ..Answer::default() });
    rig.peer_sends(3);
    rig.settle();
    rig.hold(rig.other(0));
    rig.conn.handle_fin();
    rig.conn.handle_write_failed(ErrorKind::BrokenPipe.into(), &mut rig.chunks);
    assert!(rig.is(Flags::BROKEN) && rig.is(Flags::DATA_DUE) && !rig.is(Flags::EOF_DUE));
    assert!(!rig.is(Flags::CONGESTED | Flags::DRAINED_DUE));
    let mut round = Round::default();
    assert!(matches!(rig.conn.poll_due(&mut round), Some(Due::Data)));
    assert!(rig.conn.poll_due(&mut round).is_none());
}

#[test]
fn the_error_of_a_callback_is_dropped_with_the_reason_and_nowhere_else() {
    #[derive(Debug)]
    struct Counted {
        _count: Arc<()>,
    }
    impl std::fmt::Display for Counted {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("counted")
        }
    }
    impl std::error::Error for Counted {}

    let count = Arc::new(());
    let mut rig = Rig::accepted(small_limits());
    let cause = Cause::new(Counted { _count: Arc::clone(&count) });
    rig.conn.handle_failure(CloseKind::Panicked, cause);
    rig.conn.handle_wishes(&mut rig.chunks, rig.now, false);
    let reason = rig.conn.poll_closed(rig.now).unwrap();
    assert_eq!(reason.error().unwrap().to_string(), "counted");
    drop(reason);
    assert_eq!(Arc::strong_count(&count), 1);
    assert!(rig.conn.poll_closed(rig.now).is_none(), "once");
}
