//! Input: what is shown, when, and what waits.

use std::io::ErrorKind;

use super::super::{Due, Flags, Round};
use super::rig::{Answer, Failure, MILLISECOND, Rig, Wish, small_limits};
use crate::grammar::Callback;
use crate::note::Note;
use crate::reason::CloseKind;

fn keep(keep: usize) -> Answer {
    Answer { keep, ..Answer::default() }
}

fn need(need: usize) -> Answer {
    Answer { keep: usize::MAX, need, ..Answer::default() }
}

fn wish(wish: Wish) -> Answer {
    Answer { wishes: vec![wish], ..Answer::default() }
}

fn lengths(rig: &Rig) -> Vec<usize> {
    rig.shown.iter().map(Vec::len).collect()
}

#[test]
fn data_runs_again_until_it_consumes_nothing() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([keep(4), keep(2), keep(2)]);
    rig.peer_sends(5);
    rig.settle();
    assert_eq!(lengths(&rig), [5, 4, 2], "the third call consumed nothing");
    rig.plan.extend([keep(1), keep(1)]);
    rig.peer_sends(3);
    rig.settle();
    rig.peer_sends(1);
    rig.settle();
    assert_eq!(lengths(&rig), [5, 4, 2, 5, 1, 2], "what was left is shown with what follows");
}

#[test]
fn data_runs_once_in_a_round_and_again_in_the_next() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([keep(2), keep(1)]);
    rig.peer_sends(3);
    rig.serve();
    assert_eq!(lengths(&rig), [3]);
    rig.serve();
    assert_eq!(lengths(&rig), [3, 2]);
    rig.serve();
    assert_eq!(lengths(&rig), [3, 2, 1]);
    assert!(!rig.conn.has_work());
}

#[test]
fn data_that_asked_for_more_or_paused_does_not_run_again_by_itself() {
    for answer in [Answer { need: 3, ..keep(2) }, Answer { keep: 2, ..wish(Wish::Pause) }] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.push_back(answer);
        rig.peer_sends(4);
        rig.settle();
        assert_eq!(lengths(&rig), [4]);
    }
    // This is no more than there is.
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { need: 2, ..keep(2) });
    rig.peer_sends(4);
    rig.settle();
    assert_eq!(lengths(&rig), [4, 2]);
}

#[test]
fn input_left_while_output_is_congested_is_shown_after_drained_and_before_eof() {
    for finishes in [false, true] {
        let mut rig = Rig::accepted(small_limits());
        rig.kernel.room = 10;
        rig.plan.extend([Answer { write: 50, ..keep(2) }, keep(2)]);
        rig.peer_sends(4);
        rig.settle();
        if finishes {
            rig.peer_finishes();
            rig.settle();
        }
        assert_eq!(lengths(&rig), [4], "held, with {} unsent", rig.conn.unsent());
        rig.peer_reads(100);
        rig.settle();
        use Callback::{Closed, Data, Drained, Eof, Opened};
        // After `drained` it consumed nothing, uncongested: that ends the series.
        let expected = [Opened, Data, Drained, Data, Eof, Closed];
        assert_eq!(rig.calls, expected[..if finishes { 6 } else { 4 }]);
        assert_eq!(lengths(&rig)[..2], [4, 2]);
    }
}

#[test]
fn input_left_while_congested_is_shown_again_also_when_nothing_holds_the_connection() {
    let mut rig = Rig::accepted(small_limits());
    // The socket takes all of it at once: nothing is ever queued.
    rig.plan.extend([Answer { write: 40, ..keep(1000) }, Answer::default(), keep(1)]);
    rig.peer_sends(3);
    rig.peer_finishes();
    rig.settle();
    use Callback::{Closed, Data, Drained, Eof, Opened};
    assert_eq!(rig.calls, [Opened, Data, Drained, Data, Data, Eof, Closed]);
    assert_eq!(lengths(&rig), [3, 3, 1, 0]);
}

#[test]
fn a_connection_that_breaks_shows_what_was_left_while_congested() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 10;
    rig.plan.push_back(Answer { write: 50, ..keep(1000) });
    rig.peer_sends(3);
    rig.settle();
    rig.peer_resets();
    rig.settle();
    assert_eq!(lengths(&rig), [3, 3]);
    assert_eq!(rig.kind(), Some(CloseKind::Reset));
}

#[test]
fn a_connection_that_breaks_shows_what_was_left_also_when_nothing_holds_it() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 10;
    rig.plan.extend([Answer { write: 50, ..Answer::default() }, keep(1000)]);
    rig.note();
    rig.settle();
    rig.peer_sends(3);
    rig.settle();
    assert!(rig.is(Flags::LEFT) && !rig.is(Flags::HELD));
    let mut next = Rig::accepted(small_limits());
    next.conn.flags = rig.conn.flags();
    next.conn.handle_replaced();
    assert!(!next.is(Flags::LEFT), "another protocol has left nothing yet");
    rig.conn.handle_read_failed(ErrorKind::ConnectionReset.into(), &mut rig.chunks);
    assert!(rig.is(Flags::DATA_DUE) && rig.is(Flags::BROKEN) && !rig.is(Flags::LEFT));
}

#[test]
fn need_keeps_data_back_until_enough_has_come() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(need(6));
    for _ in 0..7 {
        rig.peer_sends(1);
        rig.settle();
    }
    assert_eq!(lengths(&rig), [1, 6, 1]);
}

#[test]
fn need_of_what_is_there_already_does_not_show_it_again_by_itself() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(need(2));
    rig.peer_sends(4);
    rig.settle();
    assert_eq!(lengths(&rig), [4]);
    rig.peer_sends(1);
    rig.settle();
    assert_eq!(lengths(&rig), [4, 5]);
}

#[test]
fn fin_before_the_needed_bytes_shows_what_is_there_once_and_then_eof() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([need(10), need(10), Answer { keep: 6, ..wish(Wish::Close) }]);
    rig.peer_sends(3);
    rig.settle();
    rig.peer_sends(3);
    rig.peer_finishes();
    rig.settle();
    assert_eq!(lengths(&rig), [3, 6, 6]);
    assert_eq!(rig.calls[1..4], [Callback::Data, Callback::Data, Callback::Eof]);
    assert_eq!(rig.kind(), Some(CloseKind::Finished));
    assert_eq!(rig.reason.unwrap().unread(), 6, "what `eof` leaves is lost");
}

#[test]
fn need_above_input_max_ends_with_input_full() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(need(101));
    rig.peer_sends(1);
    rig.settle_to_the_end();
    assert_eq!(rig.kind(), Some(CloseKind::InputFull));
}

#[test]
fn consuming_nothing_of_input_max_ends_with_input_full_and_one_byte_less_does_not() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([keep(99), keep(99), keep(1000)]);
    rig.peer_sends(90);
    rig.settle();
    rig.peer_sends(9);
    rig.settle();
    assert!(rig.is(Flags::OPENED) && !rig.is(Flags::CLOSING));
    rig.peer_sends(1);
    rig.settle_to_the_end();
    assert_eq!(lengths(&rig), [90, 99, 100]);
    assert_eq!(rig.kind(), Some(CloseKind::InputFull));
}

#[test]
fn data_runs_again_while_it_moves_on_and_input_max_is_unread() {
    let mut rig = Rig::accepted(small_limits());
    // It asks each time for the most that may be unread.
    let asks = |left| Answer { need: 100, ..keep(left) };
    rig.plan.extend([keep(96), asks(130), asks(120), asks(110), asks(100), asks(90)]);
    rig.peer_sends(96);
    rig.settle();
    rig.peer_sends(60);
    rig.settle();
    assert_eq!(lengths(&rig), [96, 156, 130, 120, 110, 100]);
    assert_eq!(rig.conn.queues().unwrap().unread.len(), 90);
}

#[test]
fn a_panic_with_a_full_input_is_a_panic() {
    for failure in [Failure::Err, Failure::Panic] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.extend([keep(90), Answer { failure: Some(failure), ..keep(1000) }]);
        rig.peer_sends(90);
        rig.settle();
        rig.peer_sends(20);
        rig.settle_to_the_end();
        let kind = match failure {
            Failure::Err => CloseKind::Protocol,
            Failure::Panic => CloseKind::Panicked,
        };
        assert_eq!(rig.kind(), Some(kind));
    }
}

#[test]
fn a_paused_connection_reads_nothing_and_goes_on_where_it_stopped() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { keep: 4, ..wish(Wish::Pause) });
    rig.peer_sends(10);
    rig.settle();
    rig.peer_sends(10);
    rig.peer_finishes();
    rig.settle();
    assert_eq!(rig.kernel.arrived.len(), 10, "reading has stopped");
    assert!(rig.conn.peer_finished(), "but the hang-up shows");
    rig.note();
    rig.plan.push_back(wish(Wish::Resume));
    rig.settle();
    assert_eq!(lengths(&rig), [10, 4, 10, 0]);
    assert_eq!(rig.kind(), Some(CloseKind::Finished));
}

#[test]
fn a_pause_taken_back_in_the_same_data_shows_nothing_again() {
    for before in [0, 3] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.push_back(keep(before));
        rig.peer_sends(3);
        rig.settle();
        let wishes = vec![Wish::Pause, Wish::Resume];
        rig.plan.push_back(Answer { wishes, ..keep(1000) });
        for _ in 0..2 {
            rig.peer_sends(4);
            rig.settle();
        }
        assert_eq!(lengths(&rig), [3, 4 + before, 8 + before]);
    }
}

#[test]
fn a_held_connection_goes_on_when_the_last_queue_lets_it_go() {
    let mut rig = Rig::accepted(small_limits());
    let (one, two) = (rig.other(0), rig.other(1));
    assert!(rig.hold(one) && rig.hold(two));
    assert!(!rig.hold(one), "held already");
    rig.peer_sends(3);
    rig.settle();
    rig.release(one);
    rig.settle();
    assert_eq!(lengths(&rig), [] as [usize; 0]);
    rig.release(two);
    rig.settle();
    assert_eq!(lengths(&rig), [3]);
}

#[test]
fn notes_wait_for_opened_and_are_bounded() {
    let mut rig = Rig::connecting(small_limits());
    assert_eq!([rig.note(), rig.note(), rig.note(), rig.note()], [true, true, true, false]);
    rig.settle();
    assert_eq!(rig.calls, []);
    rig.event(Flags::WRITABLE);
    rig.settle();
    use Callback::{Notified, Opened};
    assert_eq!(rig.calls, [Opened, Notified, Notified, Notified]);
    assert!(rig.note());
}

#[test]
fn a_fin_that_comes_in_one_event_with_the_connect_is_not_lost() {
    let mut rig = Rig::connecting(small_limits());
    rig.kernel.arrived.extend([3, 6]);
    rig.kernel.fin = true;
    rig.event(Flags::READABLE | Flags::WRITABLE | Flags::HUNG);
    rig.settle();
    assert_eq!(rig.calls, [Callback::Opened, Callback::Data, Callback::Eof, Callback::Closed]);
}

#[test]
fn the_next_protocol_is_opened_then_shown_what_is_unread_and_the_fin() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { keep: 4, ..wish(Wish::Replace) });
    rig.peer_sends(10);
    rig.peer_finishes();
    rig.settle();
    use Callback::{Closed, Data, Eof, Opened};
    assert_eq!(rig.calls, [Opened, Data, Opened, Data, Eof, Closed]);
    assert_eq!(lengths(&rig), [10, 4, 0]);
}

#[test]
fn a_protocol_that_takes_over_in_eof_is_told_of_the_end_anew() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([keep(2), keep(2), Answer { keep: 2, ..wish(Wish::Replace) }]);
    rig.peer_sends(3);
    rig.peer_finishes();
    rig.settle();
    use Callback::{Closed, Data, Eof, Opened};
    assert_eq!(rig.calls, [Opened, Data, Data, Eof, Opened, Data, Eof, Closed]);
    assert_eq!(lengths(&rig), [3, 2, 2, 2, 0]);
}

#[test]
fn what_was_needed_once_is_not_needed_again() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.extend([need(6), keep(2), keep(2)]);
    for count in [1, 5, 1] {
        rig.peer_sends(count);
        rig.settle();
    }
    assert_eq!(lengths(&rig), [1, 6, 2, 3], "2 bytes wait for any more, and not for 6");
}

#[test]
fn a_note_that_comes_while_notes_are_delivered_waits_for_the_next_round() {
    let mut rig = Rig::accepted(small_limits());
    assert!(rig.note() && rig.note());
    let mut round = Round::default();
    let mut told = Vec::new();
    while let Some(due) = rig.conn.poll_due(&mut round) {
        assert!(matches!(due, Due::Notified(_)) && told.len() < 5);
        told.push(rig.conn.queues().map_or(0, |queues| queues.notes.len()));
        assert!(rig.note(), "there is room for it");
    }
    assert_eq!(told, [1, 1], "two in this round, however many came");
    assert!(rig.conn.has_due());
    let mut round = Round::default();
    let next = std::iter::from_fn(|| rig.conn.poll_due(&mut round)).count();
    assert_eq!(next, 2);
    assert!(!rig.conn.has_due());
}

#[test]
fn who_waits_for_output_to_leave_is_read_behind_it() {
    let mut rig = Rig::accepted(small_limits());
    assert!(!rig.conn.reads_behind_output());
    let other = rig.other(0);
    assert!(rig.hold(other));
    assert!(!rig.conn.reads_behind_output(), "another queue holds it");
    rig.conn.hold_itself();
    assert!(rig.conn.reads_behind_output());
    let id = rig.conn.id();
    rig.release(id);
    assert!(!rig.conn.reads_behind_output());
    rig.release(other);
    for fin in [Flags::PEER_FIN, Flags::FIN_TOLD] {
        let mut rig = Rig::accepted(small_limits());
        rig.conn.flags.set(fin);
        assert!(rig.conn.reads_behind_output() && rig.conn.peer_finished());
    }
}

#[test]
fn events_of_the_sockets_that_lost_a_race_say_nothing_of_the_one_that_won() {
    let mut rig = Rig::connecting(small_limits());
    rig.event(Flags::FIN_TOLD | Flags::FAULTY);
    assert!(rig.conn.peer_finished());
    let (peer, tick) = (([127, 0, 0, 2], 7).into(), rig.tick() + MILLISECOND);
    rig.conn.handle_race_won(peer, tick);
    assert!(!rig.conn.peer_finished() && !rig.is(Flags::FAULTY | Flags::CONNECTING));
    assert_eq!((rig.conn.peer(), rig.conn.last_active()), (peer, tick));
    // It is looked at in any case.
    assert!(rig.is(Flags::READABLE) && rig.is(Flags::HUNG) && rig.is(Flags::WRITABLE));
    assert!(rig.is(Flags::OPENED_DUE));
}

#[test]
fn who_is_let_go_is_shown_again_what_is_unread() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(keep(3));
    rig.peer_sends(3);
    rig.settle();
    let other = rig.other(0);
    rig.hold(other);
    rig.settle();
    assert_eq!(lengths(&rig), [3]);
    rig.release(other);
    rig.settle();
    assert_eq!(lengths(&rig), [3, 3]);
}

#[test]
fn what_the_last_protocol_needed_is_nothing_to_the_next() {
    let mut rig = Rig::accepted(small_limits());
    rig.plan.push_back(Answer { need: 5, ..Answer::default() });
    rig.peer_sends(1);
    rig.settle();
    assert!(rig.is(Flags::NEEDY));
    rig.plan.push_back(wish(Wish::Replace));
    rig.note();
    rig.settle();
    let tick = rig.tick();
    rig.conn.handle_wire(&mut [9], &mut rig.chunks, tick);
    assert!(rig.is(Flags::DATA_DUE) && !rig.is(Flags::NEEDY));
}

#[test]
fn an_eof_that_leaves_nothing_leaves_no_box_and_no_buffer() {
    for left in [0, 2] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.extend([keep(2), keep(left)]);
        rig.peer_sends(2);
        rig.settle();
        rig.peer_finishes();
        let before = rig.chunks.len();
        rig.settle();
        assert_eq!(rig.calls.last(), Some(&Callback::Eof));
        assert_eq!(rig.chunks.len(), before + 1, "the buffer is the pool's");
        assert_eq!(rig.conn.rare().is_some(), left > 0, "{left} bytes are to be counted");
    }
}

#[test]
fn a_shutdown_asks_who_is_open_and_closes_who_is_not() {
    // What a connection is, and whether it is asked.
    let cases = [
        (Flags::OPENED, true),
        (Flags::OPENED_DUE, true),
        (Flags::OPENED | Flags::OPENED_DUE, true),
        (Flags::NONE, false),
        (Flags::OPENED | Flags::CONNECTING, false),
        (Flags::OPENED_DUE | Flags::HANDSHAKING, false),
        (Flags::OPENED | Flags::HANDSHAKING, false),
        (Flags::CONNECTING, false),
        (Flags::HANDSHAKING, false),
    ];
    for (flags, asked) in cases {
        let mut rig = Rig::accepted(small_limits());
        rig.conn.flags = flags;
        rig.conn.handle_shutdown();
        assert_eq!(rig.is(Flags::STOPPING_DUE), asked, "{flags:?}");
        assert_eq!(rig.conn.decided(rig.now).is_some(), !asked, "{flags:?}");
    }
    for flags in [Flags::CLOSING, Flags::ENDED] {
        let mut rig = Rig::accepted(small_limits());
        rig.conn.flags.set(flags);
        rig.conn.handle_shutdown();
        assert!(!rig.is(Flags::STOPPING_DUE), "{flags:?}");
    }
}

#[test]
#[should_panic(expected = "lariat called data where the order forbids it")]
fn a_callback_out_of_order_is_noticed() {
    let mut rig = Rig::accepted(small_limits());
    rig.conn.handle_grammar(Callback::Closed);
    rig.conn.handle_grammar(Callback::Data);
}

#[test]
fn a_pause_that_is_over_shows_what_is_enough_and_nothing_that_is_not() {
    for (need, shown) in [(0, &[4, 4][..]), (3, &[4, 4]), (4, &[4, 4]), (5, &[4])] {
        let mut rig = Rig::accepted(small_limits());
        rig.plan.push_back(Answer { need, keep: 4, ..wish(Wish::Pause) });
        rig.peer_sends(4);
        rig.settle();
        rig.plan.push_back(wish(Wish::Resume));
        rig.note();
        rig.settle();
        assert_eq!(lengths(&rig), shown, "of {need}");
    }
}

#[test]
fn who_has_consumed_everything_gets_its_eof_although_output_is_congested() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 10;
    rig.plan.push_back(Answer { write: 50, ..Answer::default() });
    rig.note();
    rig.settle();
    rig.peer_sends(3);
    rig.settle();
    assert!(rig.conn.is_congested() && !rig.is(Flags::LEFT));
    rig.plan.push_back(Answer::default());
    rig.peer_finishes();
    rig.settle();
    assert_eq!(rig.calls[1..], [Callback::Notified, Callback::Data, Callback::Eof]);
}

#[test]
fn callbacks_may_run_between_opened_and_the_end() {
    let mut rig = Rig::accepted(small_limits());
    let open = rig.conn.flags();
    assert!(rig.conn.may_call());
    rig.conn.flags = Flags::NONE;
    assert!(!rig.conn.may_call());
    for flags in [Flags::CLOSING, Flags::ENDED, Flags::OPENED_DUE, Flags::DETACHING] {
        rig.conn.flags = open | flags;
        assert!(!rig.conn.may_call(), "{flags:?}");
        rig.conn.flags = flags;
        assert!(!rig.conn.may_call(), "{flags:?}");
    }
}

#[test]
fn results_of_jobs_take_no_place_from_notes() {
    let limits = small_limits();
    let most = limits.notes_max;
    let mut rig = Rig::accepted(limits);
    let mut round = Round::default();
    while rig.conn.poll_due(&mut round).is_some() {}
    for _ in 0..2 {
        // One result in front of the notes and one behind them; each note gives its place back.
        assert!(rig.conn.handle_result(Note::new(0u8)).is_ok());
        for number in 0..most {
            assert!(rig.conn.handle_note(Note::new(number)).is_ok(), "{number} of {most}");
        }
        assert!(rig.conn.handle_note(Note::new(0u8)).is_err());
        assert!(rig.conn.handle_result(Note::new(0u8)).is_ok());
        let mut round = Round::default();
        let told = std::iter::from_fn(|| rig.conn.poll_due(&mut round)).count();
        assert_eq!(told, most + 2);
    }
}
