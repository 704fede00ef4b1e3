//! Filters that are odd: silent ones, some that panic, and one that counts.

use std::sync::{Arc, Mutex};

use super::super::{Flags, Step, Steps};
use super::rig::{Rig, Wish, small_limits};
use super::toy::{HELLO, NONSENSE};
use crate::buffer::{ByteQueue, ChunkPool};
use crate::filter::{Filter, FilterResult, Progress};
use crate::guard::GuardedBytes;
use crate::reason::{By, CloseKind, FilterFailure};

fn open() -> Rig {
    let mut rig = Rig::filtered(small_limits(), 0);
    rig.peer_sends_wire(&[HELLO]);
    rig.settle();
    rig
}

fn failure(failure: FilterFailure) -> Option<CloseKind> {
    Some(CloseKind::Filter(failure))
}

/// Writes each clear byte once, and notes how many it is given at a time.
#[derive(Default)]
pub(super) struct Counts(Arc<Mutex<Vec<usize>>>);

impl Filter for Counts {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn receive(&mut self, bytes: &mut [u8], clear: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        clear.extend_from_slice(bytes);
        Ok(Progress::Open)
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        self.0.lock().unwrap().push(clear.len());
        wire.extend_from_slice(clear);
        Ok(Progress::Open)
    }
}

#[test]
fn a_filter_is_given_a_slice_in_steps_of_16_kib_up_to_64_kib_on_the_wire() {
    const STEP: usize = 16_384;
    let clear = vec![7; 6 * STEP];
    // What is on the wire already, and the steps that follow.
    let cases: [(usize, &[usize]); 5] = [
        (0, &[STEP, STEP, STEP, STEP]),
        (1, &[STEP, STEP, STEP, STEP]),
        (3 * STEP, &[STEP]),
        (4 * STEP - 1, &[STEP]),
        (4 * STEP, &[]),
    ];
    for (before, steps) in cases {
        let (told, mut pool) = (Arc::new(Mutex::new(Vec::new())), ChunkPool::default());
        let mut rig = Rig::accepted(small_limits());
        let (filter, tick) = (Box::new(Counts(Arc::clone(&told))), rig.tick());
        rig.conn.handle_filter(filter, false, &mut pool, tick);
        assert!(rig.conn.filters_directly());
        if before > 0 {
            rig.conn.queue_shared(GuardedBytes::new(vec![7; before]), tick);
            assert!(!rig.conn.filters_directly(), "what is queued comes first");
            let mut slices = [std::io::IoSlice::new(&[]); 1];
            rig.conn.poll_output(&mut slices, usize::MAX, &mut pool, tick);
        }
        assert_eq!((rig.conn.unsent(), rig.conn.bytes_out()), (before, before as u64));
        told.lock().unwrap().clear();
        let given = rig.conn.filter_output(&clear, &mut pool, tick);
        assert_eq!((&told.lock().unwrap()[..], given), (steps, steps.iter().sum()), "{before}");
        assert_eq!(rig.conn.unsent(), before + given);
        assert_eq!(rig.conn.bytes_out(), (before + given) as u64);
    }
    // What is shorter than a step, or a little longer than some.
    for (length, steps) in [
        (0, &[][..]),
        (1, &[1]),
        (STEP - 1, &[STEP - 1]),
        (STEP, &[STEP]),
        (STEP + 1, &[STEP, 1]),
        (2 * STEP + 1, &[STEP, STEP, 1]),
    ] {
        let (told, mut pool) = (Arc::new(Mutex::new(Vec::new())), ChunkPool::default());
        let mut rig = Rig::accepted(small_limits());
        let (filter, tick) = (Box::new(Counts(Arc::clone(&told))), rig.tick());
        rig.conn.handle_filter(filter, false, &mut pool, tick);
        assert_eq!(rig.conn.filter_output(&clear[..length], &mut pool, tick), length);
        assert_eq!(told.lock().unwrap()[..], *steps);
    }
}

#[test]
fn no_slice_goes_to_a_filter_before_it_is_open_or_after_its_end() {
    let mut pool = ChunkPool::default();
    let mut rig = Rig::filtered(small_limits(), 0);
    let tick = rig.tick();
    assert!(!rig.conn.filters_directly());
    assert_eq!(rig.conn.filter_output(&[1; 10], &mut pool, tick), 0);
    let mut rig = open();
    assert!(rig.conn.filters_directly());
    rig.other_wishes(Wish::Finish);
    rig.settle();
    assert!(!rig.conn.filters_directly());
    assert_eq!(rig.conn.filter_output(&[1; 10], &mut pool, tick), 0);
    assert!(!Rig::accepted(small_limits()).conn.filters_directly(), "there is none");
}

/// Writes nothing, shows nothing, and panics in its drop where that is asked for.
struct Mute {
    ends: bool,
    panics: bool,
}

impl Filter for Mute {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn ends_with_stream(&self) -> bool {
        self.ends
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        assert!(!self.panics || std::thread::panicking(), "the filter cannot be dropped");
    }
}

#[test]
fn a_filter_that_makes_nothing_of_what_it_is_given_keeps_no_buffer() {
    let mut rig = Rig::accepted(small_limits());
    let (mut pool, tick) = (ChunkPool::default(), rig.tick());
    // Three buffers that have been used.
    let mut queues: [ByteQueue; 3] = Default::default();
    queues.iter_mut().for_each(|queue| queue.push(b"used", &mut pool));
    for mut queue in queues {
        queue.clear(&mut pool);
    }
    assert_eq!(pool.len(), 3);
    rig.conn.handle_filter(Box::new(Mute { ends: true, panics: false }), false, &mut pool, tick);
    assert_eq!(pool.len(), 3, "after its start");
    rig.conn.handle_wire(&mut [1; 10], &mut pool, tick);
    assert_eq!(pool.len(), 3, "after input");
    assert_eq!(rig.conn.filter_output(&[1; 10], &mut pool, tick), 10);
    assert_eq!(pool.len(), 3, "after output");
    rig.conn.want_fin();
    let mut steps = Steps::after(false);
    assert_eq!(rig.conn.poll_step(&mut steps, &mut pool, tick), Step::Fin);
    assert_eq!(pool.len(), 3, "after its end");
}

#[test]
fn a_filter_that_is_refused_may_panic_in_its_drop() {
    for second in [false, true] {
        let mut rig = if second { open() } else { Rig::accepted(small_limits()) };
        let tick = rig.tick();
        if !second {
            rig.conn.handle_wire(&mut [1], &mut rig.chunks, tick);
        }
        let filter = Box::new(Mute { ends: true, panics: true });
        rig.conn.handle_filter(filter, second, &mut rig.chunks, tick);
        let kind = rig.conn.decided(tick).map(|reason| reason.kind());
        let why = if second { FilterFailure::Second } else { FilterFailure::UnreadInput };
        assert_eq!(kind, failure(why));
    }
}

#[test]
fn who_cuts_a_filters_stream_has_finished_nevertheless() {
    for ends in [false, true] {
        let mut rig = Rig::accepted(small_limits());
        let tick = rig.tick();
        let filter = Box::new(Mute { ends, panics: false });
        rig.conn.handle_filter(filter, false, &mut rig.chunks, tick);
        rig.conn.handle_ready(Flags::READABLE);
        rig.conn.handle_fin();
        assert!(rig.conn.peer_finished());
        let cut = rig.conn.decided(tick).map(|reason| (reason.kind(), reason.peer_finished()));
        let truncated = CloseKind::Filter(FilterFailure::Truncated);
        assert_eq!(cut, (!ends).then_some((truncated, true)));
    }
}

#[test]
fn what_an_earlier_protocol_wrote_leaves_past_the_filter_and_is_counted_once() {
    let mut rig = Rig::accepted(small_limits());
    rig.kernel.room = 0;
    rig.other_writes(5, false, None);
    rig.send_for_others();
    let tick = rig.tick();
    rig.conn.handle_replaced();
    let filter = Box::new(Mute { ends: true, panics: false });
    rig.conn.handle_filter(filter, false, &mut rig.chunks, tick);
    assert_eq!((rig.conn.unsent(), rig.conn.bytes_out()), (5, 5));
    rig.conn.handle_sent(5, &mut rig.chunks, tick);
    rig.conn.handle_flushed();
    assert_eq!((rig.conn.unsent(), rig.conn.bytes_out()), (0, 5));
}

/// Makes a connection call its filter.
type Call = fn(&mut Rig, u64);

/// Panics in the call of this name.
struct Panics(&'static str);

impl Panics {
    fn call(&self, name: &str) -> FilterResult {
        assert_ne!(self.0, name, "as it was asked to");
        Ok(Progress::Open)
    }
}

impl Filter for Panics {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        self.call("start")
    }

    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        self.call("receive")
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> FilterResult {
        self.call("send")
    }

    fn finish(&mut self, _: &mut Vec<u8>) {
        let _ = self.call("finish");
    }

    fn ends_with_stream(&self) -> bool {
        self.call("ends_with_stream").is_ok()
    }
}

#[test]
fn a_filter_may_panic_in_each_of_its_calls() {
    for call in ["start", "receive", "send", "finish", "ends_with_stream", "none"] {
        let mut rig = Rig::accepted(small_limits());
        let tick = rig.tick();
        rig.conn.handle_filter(Box::new(Panics(call)), false, &mut rig.chunks, tick);
        let kind = |rig: &Rig| rig.conn.decided(tick).map(|reason| (reason.by(), reason.kind()));
        let mut calls: Vec<(&str, Call)> = vec![
            ("start", |_, _| ()),
            ("receive", |rig, tick| rig.conn.handle_wire(&mut [1], &mut rig.chunks, tick)),
            ("send", |rig, tick| {
                rig.conn.filter_output(&[1], &mut rig.chunks, tick);
            }),
        ];
        if call == "finish" {
            calls.push(("finish", |rig, tick| {
                rig.conn.want_fin();
                rig.conn.poll_step(&mut Steps::after(false), &mut rig.chunks, tick);
            }));
        } else {
            calls.push(("ends_with_stream", |rig, _| rig.conn.handle_fin()));
        }
        for (name, makes) in calls {
            assert!(kind(&rig).is_none() || name == "start", "before {name}");
            makes(&mut rig, tick);
            if name == call {
                assert_eq!(kind(&rig), Some((By::Us, CloseKind::Panicked)), "in {call}");
                assert!(rig.is(Flags::RESET) && rig.is(Flags::ENDED), "in {call}");
                break;
            }
        }
        assert_eq!(kind(&rig).is_none(), call == "none", "{call}");
    }
}

#[test]
fn what_waits_for_a_filter_that_never_opens_or_fails_is_counted_as_unsent() {
    for wire in [None, Some(NONSENSE)] {
        let mut rig = Rig::filtered(small_limits(), 0);
        rig.other_writes(10, false, None);
        match wire {
            None => rig.other_wishes(Wish::Close),
            Some(byte) => rig.peer_sends_wire(&[byte]),
        }
        rig.settle();
        assert!(rig.kernel.fin_sent, "{wire:?}");
        rig.settle_to_the_end();
        assert_eq!(rig.reason.unwrap().unsent(), 10, "{wire:?}");
    }
}

/// Has its proper end in the first byte it is given, of either side, and not in the stream's.
struct Ends;

impl Filter for Ends {
    fn start(&mut self, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::Open)
    }

    fn receive(&mut self, _: &mut [u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> FilterResult {
        Ok(Progress::PeerFinished)
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend_from_slice(clear);
        Ok(Progress::PeerFinished)
    }
}

#[test]
fn a_fin_behind_the_proper_end_of_a_filter_cuts_nothing() {
    for proper in [true, false] {
        let mut rig = Rig::accepted(small_limits());
        let tick = rig.tick();
        rig.conn.handle_filter(Box::new(Ends), false, &mut rig.chunks, tick);
        if proper {
            rig.conn.handle_wire(&mut [1], &mut rig.chunks, tick);
            assert!(rig.is(Flags::EOF_DUE) && rig.conn.peer_finished());
        }
        rig.conn.handle_fin();
        assert_eq!(rig.conn.decided(tick).is_none(), proper);
    }
}

#[test]
fn what_is_fed_to_a_filter_leaves_no_buffer_behind() {
    let mut rig = Rig::accepted(small_limits());
    let tick = rig.tick();
    rig.conn.handle_wire(&mut [1; 10], &mut rig.chunks, tick);
    let before = rig.chunks.len();
    let filter = Box::new(Mute { ends: true, panics: false });
    rig.conn.handle_filter(filter, true, &mut rig.chunks, tick);
    assert_eq!((rig.chunks.len(), rig.conn.bytes_in()), (before + 1, 0));
}

#[test]
fn a_filter_that_answers_nothing_is_not_held_for_what_others_wrote() {
    let mut rig = open();
    rig.kernel.room = 0;
    let writer = rig.other(0);
    rig.other_writes(40, false, Some(writer));
    assert_eq!(rig.holds, [writer]);
    rig.peer_sends(1);
    rig.settle();
    assert!(!rig.is(Flags::HELD) && rig.shown.len() == 1);
}

#[test]
fn what_a_filter_says_of_its_peer_counts_until_the_connection_closes() {
    for closing in [false, true] {
        let mut rig = Rig::accepted(small_limits());
        let tick = rig.tick();
        rig.conn.handle_filter(Box::new(Ends), false, &mut rig.chunks, tick);
        rig.conn.queue(&[1; 5], &mut rig.chunks, tick);
        if closing {
            rig.conn.want_close();
            rig.conn.handle_wishes(&mut rig.chunks, tick, false);
        }
        rig.conn.fill_wire(&mut rig.chunks, tick);
        assert_eq!(rig.conn.wire_len(), 5);
        assert_eq!((rig.conn.peer_finished(), rig.is(Flags::EOF_DUE)), (!closing, !closing));
    }
}
