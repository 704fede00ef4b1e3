//! A filter under the queues.

use super::super::Flags;
use super::rig::{Answer, MILLISECOND, Rig, Wish, small_limits};
use super::toy::{HELLO, NONSENSE, UNSPEAKABLE, encode, end};
use crate::filter::{Filter, FilterResult, Progress};
use crate::grammar::Callback;
use crate::guard::GuardedBytes;
use crate::reason::{CloseKind, Deadline, FilterFailure};

fn open() -> Rig {
    let mut rig = Rig::filtered(small_limits(), 0);
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    assert_eq!(rig.calls, [Callback::Opened]);
    rig
}

fn failure(failure: FilterFailure) -> Option<CloseKind> {
    Some(CloseKind::Filter(failure))
}

#[test]
fn opened_and_what_was_queued_wait_for_the_filter() {
    let mut rig = Rig::filtered(small_limits(), 0);
    rig.other_writes(10, false, None);
    rig.settle();
    assert_eq!((rig.calls.len(), rig.kernel.sent.as_slice()), (0, &[HELLO][..]));
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    assert_eq!(rig.calls, [Callback::Opened]);
    assert_eq!(rig.sent_clear(), (rig.model.written.clone(), false));
}

#[test]
fn clear_bytes_come_out_however_the_wire_is_cut() {
    let mut rig = open();
    for byte in encode(b"clear") {
        rig.kernel.arrived.push_back(byte);
        rig.event(Flags::READABLE);
        rig.settle();
    }
    assert_eq!(rig.shown.concat(), b"clear");
    assert_eq!(rig.conn.bytes_in(), 5);
}

#[test]
fn the_filters_end_is_sent_before_the_fin() {
    let mut rig = open();
    rig.plan.push_back(Answer { write: 9, wishes: vec![Wish::Close], ..Answer::default() });
    rig.peer_sends(1);
    rig.settle();
    assert!(rig.kernel.fin_sent);
    assert_eq!(rig.sent_clear(), (rig.model.written.clone(), true));
}

#[test]
fn the_peers_end_inside_the_filter_is_its_fin() {
    let mut rig = open();
    rig.peer_sends(3);
    rig.peer_sends_wire(&end());
    rig.settle();
    assert_eq!(rig.calls[1..], [Callback::Data, Callback::Eof, Callback::Closed]);
    assert_eq!(rig.kind(), Some(CloseKind::Finished));
}

#[test]
fn a_fin_without_the_filters_end_is_a_truncation() {
    let mut rig = open();
    rig.peer_sends(3);
    rig.peer_finishes();
    rig.settle();
    assert_eq!(rig.calls[1..], [Callback::Data, Callback::Closed], "`eof` would be a lie");
    assert_eq!(rig.kind(), failure(FilterFailure::Truncated));
}

#[test]
fn a_handshake_that_never_ends_times_out_and_its_output_is_lost() {
    let mut rig = Rig::filtered(small_limits(), 0);
    rig.other_writes(10, false, None);
    rig.settle_to_the_end();
    assert_eq!(rig.kind(), Some(CloseKind::TimedOut(Deadline::Handshake)));
    assert_eq!(rig.reason.unwrap().unsent(), 10);
}

#[test]
fn time_for_the_handshake_is_not_time_that_output_has_stalled() {
    let mut rig = Rig::filtered(small_limits(), 0);
    rig.kernel.room = 0;
    rig.other_writes(10, false, None);
    rig.advance(35 * MILLISECOND);
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    rig.advance(25 * MILLISECOND);
    assert!(!rig.is(Flags::ENDED), "the output could leave for 25 ms only");
}

#[test]
fn what_a_filter_answers_holds_the_peer_above_the_high_mark() {
    let mut rig = Rig::filtered(small_limits(), 16);
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    rig.kernel.room = 0;
    rig.peer_sends(1);
    rig.settle();
    assert!(!rig.is(Flags::HELD), "{} unsent", rig.conn.unsent());
    while rig.conn.unsent() <= rig.conn.limits().high_mark {
        rig.peer_sends(1);
        rig.settle();
    }
    assert!(rig.is(Flags::HELD));
    rig.peer_reads(1000);
    rig.settle();
    assert!(!rig.is(Flags::HELD));
}

#[test]
fn a_filter_that_fails_to_read_says_its_last_words_and_is_left_alone() {
    let mut rig = open();
    rig.kernel.room = 0;
    rig.other_writes(10, false, None);
    rig.peer_sends_wire(&[NONSENSE]);
    rig.settle();
    rig.peer_reads(1000);
    rig.settle();
    assert!(rig.kernel.fin_sent);
    rig.settle_to_the_end();
    assert_eq!(rig.kind(), failure(FilterFailure::Failed));
}

#[test]
fn a_filter_that_fails_to_write_gets_nothing_more_to_write() {
    let mut rig = open();
    let tick = rig.tick();
    rig.conn.queue_shared(GuardedBytes::new(vec![UNSPEAKABLE]), tick);
    rig.conn.queue_shared(GuardedBytes::new(vec![1; 4]), tick);
    rig.model.written.extend([UNSPEAKABLE, 1, 1, 1, 1]);
    rig.send_for_others();
    rig.settle_to_the_end();
    assert_eq!(rig.kind(), failure(FilterFailure::Failed));
}

#[test]
fn a_filter_that_panics_resets_the_connection() {
    let mut rig = Rig::accepted(small_limits());
    rig.put_filter(true, false);
    rig.peer_sends_wire(&[HELLO]);
    rig.model.kind = Some(CloseKind::Panicked);
    rig.serve();
    assert!(rig.is(Flags::RESET));
    rig.settle();
    assert_eq!(rig.kind(), Some(CloseKind::Panicked));
}

#[test]
fn what_a_filter_says_after_the_fin_is_not_sent() {
    let mut rig = Rig::filtered(small_limits(), 2);
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    rig.other_wishes(Wish::Finish);
    rig.settle();
    assert!(rig.kernel.fin_sent);
    rig.peer_sends(5);
    rig.settle();
    assert_eq!((rig.shown.concat().len(), rig.conn.unsent()), (5, 0));
    assert_eq!(rig.conn.wire_len(), 0, "and not kept");
    rig.peer_sends_wire(&end());
    rig.settle();
    assert_eq!(rig.kind(), Some(CloseKind::Finished));
}

#[test]
fn unread_input_meets_a_new_filter_only_where_that_was_asked_for() {
    for feed in [false, true] {
        let mut rig = Rig::accepted(small_limits());
        let wishes = vec![Wish::ReplaceFiltered(feed)];
        rig.plan.push_back(Answer { keep: 3, wishes, ..Answer::default() });
        rig.peer_sends_wire(&[b'!', HELLO, encode(b"x")[0], encode(b"x")[1]]);
        rig.settle();
        if feed {
            assert_eq!(rig.shown, [vec![b'!', HELLO, 1, encode(b"x")[1]], vec![b'x']]);
            assert_eq!(rig.conn.bytes_in(), 2, "`!` in the clear, and `x` through the filter");
        } else {
            rig.settle_to_the_end();
            assert_eq!(rig.kind(), failure(FilterFailure::UnreadInput));
        }
    }
}

#[test]
fn a_second_filter_is_refused() {
    let mut rig = open();
    let wishes = vec![Wish::ReplaceFiltered(true)];
    rig.plan.push_back(Answer { wishes, ..Answer::default() });
    rig.peer_sends(1);
    rig.settle_to_the_end();
    assert_eq!(rig.kind(), failure(FilterFailure::Second));
}

/// Lets bytes through before it is open, which the third byte makes it.
#[derive(Default)]
struct Early(usize);

impl Filter for Early {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Handshaking)
    }

    fn receive(&mut self, bytes: &mut [u8], clear: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        clear.extend_from_slice(bytes);
        self.0 += bytes.len();
        Ok(if self.0 < 3 { Progress::Handshaking } else { Progress::Open })
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend(clear);
        Ok(Progress::Open)
    }

    fn ends_with_stream(&self) -> bool {
        true
    }
}

#[test]
fn what_a_filter_lets_through_early_waits_for_opened_and_does_not_stop_the_handshake() {
    let mut rig = Rig::accepted(small_limits());
    let tick = rig.tick();
    rig.conn.handle_replaced();
    rig.conn.handle_filter(Box::new(Early::default()), false, &mut rig.chunks, tick);
    for byte in [1, 2, 3] {
        assert!(rig.shown.is_empty());
        rig.event(Flags::READABLE);
        assert!(rig.conn.may_read());
        rig.conn.handle_wire(&mut [byte], &mut rig.chunks, tick);
        rig.model.received.push(byte);
        rig.settle();
    }
    assert_eq!(rig.shown, [vec![1, 2, 3]]);
}

/// Takes the peer's FIN for its proper end, also before it is open.
struct Credulous;

impl Filter for Credulous {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Handshaking)
    }

    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Handshaking)
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Handshaking)
    }

    fn ends_with_stream(&self) -> bool {
        true
    }
}

#[test]
fn a_fin_within_the_handshake_is_a_truncation_whatever_the_filter_thinks() {
    let mut rig = Rig::accepted(small_limits());
    let tick = rig.tick();
    rig.conn.handle_filter(Box::new(Credulous), false, &mut rig.chunks, tick);
    rig.model.kind = failure(FilterFailure::Truncated);
    rig.kernel.fin = true;
    rig.event(Flags::READABLE | Flags::HUNG);
    rig.serve();
    rig.settle();
    assert_eq!(rig.kind(), failure(FilterFailure::Truncated));
}

#[test]
fn a_filter_is_given_16_kib_at_a_time_while_less_than_64_kib_are_on_the_wire() {
    let mut limits = small_limits();
    limits.output_max = 100_000;
    let mut rig = Rig::filtered(limits, 0);
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    rig.other_writes(60_000, false, None);
    assert_eq!((next_wire(&mut rig), rig.conn.bytes_out()), (65_536, 32_768));
    assert_eq!(next_wire(&mut rig), 65_536, "as long as there is so much on the wire");
    let tick = rig.tick();
    rig.conn.handle_sent(1, &mut rig.chunks, tick);
    assert_eq!((next_wire(&mut rig), rig.conn.bytes_out()), (65_535 + 32_768, 49_152));
}

/// Bytes that the filter has ready for the socket.
fn next_wire(rig: &mut Rig) -> usize {
    let mut slices = [std::io::IoSlice::new(&[]); 3];
    let tick = rig.tick();
    let count = rig.conn.poll_output(&mut slices, usize::MAX, &mut rig.chunks, tick);
    assert!(count <= 1 && (count == 1) != slices[0].is_empty());
    slices[0].len()
}

#[test]
fn a_filter_with_nothing_to_say_gives_the_socket_nothing() {
    assert_eq!(next_wire(&mut open()), 0);
}

#[test]
fn wire_bytes_that_an_abort_drops_are_counted_without_those_that_have_left() {
    let mut rig = open();
    rig.kernel.room = 3;
    rig.other_writes(20, false, None);
    rig.send_for_others();
    let left = rig.conn.unsent();
    let whole = encode(&rig.model.written).len();
    assert_eq!(left, whole - 3);
    rig.other_wishes(Wish::Abort);
    rig.settle();
    assert_eq!(rig.reason.unwrap().unsent(), left as u64);
}
