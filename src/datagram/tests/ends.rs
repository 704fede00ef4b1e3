//! What reading counts, and how a socket ends: by requests, failures and deadlines.

use std::time::Duration;

use super::*;
use crate::clock::TICK;
use crate::episode::tests::kept::lines_of;
use crate::metrics::Metrics;
use crate::reason::{By, Cause, CloseKind, CloseReason, Deadline};

fn received(len: usize, calls: u64) -> io::Result<Received> {
    Ok(Received { len, from: port(1), to: None, ecn: None, calls })
}

fn failed(errno: i32) -> io::Result<Received> {
    Err(io::Error::from_raw_os_error(errno))
}

fn idle(state: Duration) -> impl FnOnce(&mut DatagramOptions) {
    move |options| options.idle = Some(state)
}

/// How it ends, without its error.
fn end_of(state: &State, now: u64) -> (By, CloseKind) {
    let reason = state.decided(now).unwrap();
    (reason.by(), reason.kind())
}

#[test]
fn a_read_counts_its_calls_and_what_is_kept_of_what_came() {
    let (mut state, mut metrics) = (open(|o| o.datagram_max = 10), Metrics::default());
    for (len, calls, truncated) in [(0, 1, false), (9, 0, false), (10, 3, false), (11, 1, true)] {
        let read = state.handle_read(&received(len, calls), &mut metrics, 20);
        assert_eq!(read, Read::Datagram { truncated }, "{len} bytes");
    }
    assert_eq!((metrics.reads, metrics.bytes_in, metrics.datagrams_in), (5, 29, 4));
    assert_eq!((metrics.datagrams_truncated, metrics.datagrams_refused), (1, 0));
    // What brings none is a call as well.
    assert_eq!(state.handle_read(&failed(libc::ECONNREFUSED), &mut metrics, 20), Read::Told);
    assert_eq!((metrics.reads, metrics.datagrams_refused), (6, 1));
    assert!(state.may_read());
    assert_eq!(state.handle_read(&failed(libc::EBADF), &mut metrics, 20), Read::Told);
    assert!(metrics.reads == 7 && state.may_read());
    assert_eq!(state.handle_read(&failed(libc::EAGAIN), &mut metrics, 20), Read::Nothing);
    assert!(metrics.reads == 8 && !state.may_read());
    assert_eq!((metrics.datagrams_in, metrics.datagrams_refused), (4, 1));
    state.end(By::Us, CloseKind::Aborted, None);
    let reason = state.decided(1_007).unwrap();
    assert_eq!((reason.bytes_in(), reason.bytes_out()), (29, 0));
    assert_eq!((reason.age(), state.since()), (Duration::from_nanos(1_000), 7));
}

#[test]
fn reads_that_fail_64_times_in_a_row_end_it_and_each_is_a_line_in_the_log() {
    let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
    let name = state.id().to_string();
    let (lines, ()) = lines_of(|| {
        for _ in 0..63 {
            state.handle_read(&failed(libc::EIO), &mut metrics, 20);
        }
        // Neither of these is such a failure, and one that comes is the end of the row.
        state.handle_read(&failed(libc::ECONNREFUSED), &mut metrics, 20);
        state.handle_read(&failed(libc::EAGAIN), &mut metrics, 20);
        assert_eq!(state.phase(), Phase::Open);
        state.handle_read(&received(1, 1), &mut metrics, 20);
        for _ in 0..63 {
            state.handle_read(&failed(libc::EIO), &mut metrics, 20);
        }
        assert_eq!(state.phase(), Phase::Open);
        state.handle_read(&failed(libc::EIO), &mut metrics, 20);
    });
    let line = format!("{name}: cannot receive: {}", io::Error::from_raw_os_error(libc::EIO));
    assert_eq!(lines, vec![(log::Level::Debug, line); 127]);
    assert_eq!(state.phase(), Phase::Ended);
    assert_eq!(end_of(&state, 20), (By::Runtime, CloseKind::SystemError));
    let error = state.decided(20).unwrap().error().unwrap().to_string();
    assert_eq!(error, io::Error::from_raw_os_error(libc::EIO).to_string());
}

#[test]
fn d5_every_error_of_icmp_that_a_read_finds_is_a_refusal_and_the_socket_goes_on() {
    for errno in REPORTS {
        let (mut state, mut metrics) = (open(|o| o.connect = Some(port(5))), Metrics::default());
        for count in 1..=200 {
            assert_eq!(state.handle_read(&failed(*errno), &mut metrics, 20), Read::Told);
            assert_eq!((state.phase(), metrics.datagrams_refused), (Phase::Open, count));
            let due = state.poll_due(&mut Round::default());
            assert!(matches!(due, Some(Due::Refused(Some(to))) if to == port(5)), "{errno}");
        }
        assert!(state.may_read() && state.decided(20).is_none(), "{errno}");
    }
}

/// A socket with two datagrams of 5 and 3 bytes that wait, and a note.
fn with_output(notes: &Arc<()>, metrics: &mut Metrics) -> State {
    let full = Planned::new(&[libc::ENOBUFS]);
    let mut state = open(|o| o.close_deadline = Duration::from_millis(9));
    for bytes in [&b"waits"[..], b"too"] {
        state.send(&full, metrics, bytes, Some(&port(1)), 7).unwrap();
    }
    assert!(state.handle_note(note(notes)).is_ok());
    assert_eq!(state.deadline_at(), 7 + MILLISECOND, "it tries again");
    state
}

fn cause() -> Cause {
    Cause::new("enough")
}

#[test]
fn what_ends_it_sends_what_waits_or_drops_it() {
    type Ask = fn(&mut State);
    let requests: [(&str, Ask, bool, (By, CloseKind)); 10] = [
        ("close", State::want_close, false, (By::Us, CloseKind::Finished)),
        (
            "error",
            |s| s.handle_failure(CloseKind::Protocol, cause()),
            false,
            (By::Us, CloseKind::Protocol),
        ),
        ("abort", State::want_abort, true, (By::Us, CloseKind::Aborted)),
        (
            "panic",
            |s| s.handle_failure(CloseKind::Panicked, cause()),
            true,
            (By::Us, CloseKind::Panicked),
        ),
        (
            "end",
            |s| s.end(By::Runtime, CloseKind::Shutdown, None),
            true,
            (By::Runtime, CloseKind::Shutdown),
        ),
        (
            "abort behind a close",
            |s| {
                s.want_close();
                s.want_abort();
            },
            true,
            (By::Us, CloseKind::Aborted),
        ),
        (
            "error behind an abort",
            |s| {
                s.want_abort();
                s.handle_failure(CloseKind::Protocol, cause());
            },
            true,
            (By::Us, CloseKind::Aborted),
        ),
        (
            "panic behind an abort",
            |s| {
                s.want_abort();
                s.handle_failure(CloseKind::Panicked, cause());
            },
            true,
            (By::Us, CloseKind::Panicked),
        ),
        (
            "abort behind an error that is being closed for",
            |s| {
                s.handle_failure(CloseKind::Protocol, cause());
                s.handle_wishes(&mut Metrics::default(), 49);
                s.want_abort();
            },
            true,
            (By::Us, CloseKind::Protocol),
        ),
        (
            "error behind a close",
            |s| {
                s.want_close();
                s.handle_failure(CloseKind::Protocol, cause());
                s.handle_failure(CloseKind::Panicked, cause());
            },
            false,
            (By::Us, CloseKind::Protocol),
        ),
    ];
    for (what, ask, at_once, end) in requests {
        let (notes, mut metrics) = (Arc::new(()), Metrics::default());
        let mut state = with_output(&notes, &mut metrics);
        ask(&mut state);
        state.handle_wishes(&mut metrics, 50);
        assert_eq!(end_of(&state, 50), end, "{what}");
        assert_eq!(left(&notes), 0, "{what}");
        let reason = state.decided(50).unwrap();
        if at_once {
            assert_eq!((state.phase(), state.deadline_at()), (Phase::Ended, u64::MAX), "{what}");
            assert_eq!((reason.unsent(), state.unsent()), (8, 0), "{what}");
            assert_eq!((metrics.datagrams_dropped, state.dropped()), (2, 2), "{what}");
            continue;
        }
        assert_eq!((state.phase(), reason.unsent()), (Phase::Closing, 0), "{what}");
        assert_eq!((metrics.datagrams_dropped, state.unsent()), (0, 8), "{what}");
        // A request that comes again, later, changes neither reason nor deadline.
        state.want_close();
        state.handle_wishes(&mut metrics, 60);
        assert_eq!(end_of(&state, 60), end, "{what}");
        state.handle_retry(7 + MILLISECOND);
        state.flush(&Planned::new(&[libc::EAGAIN]), &mut metrics, 7 + MILLISECOND);
        assert_eq!(state.deadline_at(), 50 + 9 * MILLISECOND + TICK, "{what}");
        state.handle_ready(false, true);
        state.flush(&Planned::new(&[]), &mut metrics, 70);
        state.handle_wishes(&mut metrics, 70);
        assert_eq!((state.phase(), state.deadline_at()), (Phase::Ended, u64::MAX), "{what}");
        assert_eq!((metrics.datagrams_out, metrics.datagrams_dropped), (2, 0), "{what}");
        assert_eq!((end_of(&state, 70), state.decided(70).unwrap().bytes_out()), (end, 8));
    }
}

#[test]
fn where_nothing_waits_every_end_is_at_once() {
    type Ask = fn(&mut State);
    let requests: [Ask; 4] = [
        State::want_close,
        State::want_abort,
        |s| s.handle_failure(CloseKind::Protocol, cause()),
        |s| s.handle_failure(CloseKind::Panicked, cause()),
    ];
    for ask in requests {
        let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
        state.handle_wishes(&mut metrics, 8);
        assert!(state.phase() == Phase::Open && state.decided(8).is_none());
        ask(&mut state);
        assert_eq!(state.phase(), Phase::Open, "its requests come first");
        state.handle_wishes(&mut metrics, 8);
        assert_eq!((state.phase(), metrics.datagrams_dropped), (Phase::Ended, 0));
    }
}

#[test]
fn a_deadline_is_due_at_its_time_and_not_before() {
    let ms = Duration::from_millis;
    // Idle, and what puts it off.
    let (mut state, mut metrics) = (open(idle(ms(5))), Metrics::default());
    assert_eq!(state.deadline_at(), 7 + 5 * MILLISECOND + TICK);
    state.handle_read(&received(0, 1), &mut metrics, 100);
    assert_eq!(state.deadline_at(), 100 + 5 * MILLISECOND + TICK);
    state.send(&Planned::new(&[]), &mut metrics, b"", Some(&port(1)), 200).unwrap();
    let at = 200 + 5 * MILLISECOND + TICK;
    assert_eq!(state.deadline_at(), at);
    assert!(!state.is_overdue(at - 1) && !state.handle_deadline(at - 1));
    assert_eq!(state.phase(), Phase::Open);
    assert!(state.is_overdue(at) && state.is_overdue(at + 1) && state.handle_deadline(at));
    assert_eq!(state.phase(), Phase::Ended);
    assert_eq!(end_of(&state, at), (By::Runtime, CloseKind::TimedOut(Deadline::Idle)));
    assert!(!state.is_overdue(u64::MAX) && !state.handle_deadline(u64::MAX), "once");
    // The end of closing, which takes the place of the first reason.
    let mut state = with_output(&Arc::new(()), &mut metrics);
    state.want_close();
    state.handle_wishes(&mut metrics, 50);
    let at = 50 + 9 * MILLISECOND + TICK;
    assert!(!state.handle_deadline(at - 1) && state.handle_deadline(at));
    assert_eq!(end_of(&state, at), (By::Runtime, CloseKind::TimedOut(Deadline::Close)));
    state.handle_wishes(&mut metrics, at);
    assert_eq!(state.decided(at).as_ref().map(CloseReason::unsent), Some(8));
    // Neither before it has opened, nor without a limit.
    for mut state in [fresh(idle(ms(5))), open(|_| {})] {
        assert_eq!(state.deadline_at(), u64::MAX);
        assert!(!state.handle_deadline(u64::MAX - 1));
    }
}

#[test]
fn a_close_that_is_cut_has_not_finished_and_any_other_reason_stays() {
    type Cut = fn(&mut State);
    let cuts: [(Cut, (By, CloseKind)); 3] = [
        (State::want_abort, (By::Us, CloseKind::Aborted)),
        (|s| s.end(By::Runtime, CloseKind::Shutdown, None), (By::Runtime, CloseKind::Shutdown)),
        (
            |s| assert!(s.handle_deadline(50 + 9_000_000 + TICK)),
            (By::Runtime, CloseKind::TimedOut(Deadline::Close)),
        ),
    ];
    for (cut, end) in cuts {
        for failed in [false, true] {
            let (notes, mut metrics) = (Arc::new(()), Metrics::default());
            let mut state = with_output(&notes, &mut metrics);
            if failed {
                state.handle_failure(CloseKind::Protocol, cause());
            } else {
                state.want_close();
            }
            state.handle_wishes(&mut metrics, 50);
            assert_eq!(state.phase(), Phase::Closing);
            cut(&mut state);
            state.handle_wishes(&mut metrics, 60);
            let end = if failed { (By::Us, CloseKind::Protocol) } else { end };
            assert_eq!((state.phase(), end_of(&state, 60)), (Phase::Ended, end));
            assert_eq!(state.decided(60).unwrap().unsent(), 8);
        }
    }
}

#[test]
fn timers_wait_for_datagrams_that_wait_but_for_no_flood() {
    let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
    assert!(!state.note_waiting(false) && state.note_waiting(true));
    for shown in 1..=1024 {
        state.handle_read(&received(1, 1), &mut metrics, 20);
        assert_eq!(state.note_waiting(true), shown < 1024, "{shown}");
    }
    assert!(!state.note_waiting(true), "once more");
    // Everything has been shown, whether or not a timer was due then.
    state.handle_read(&failed(libc::EAGAIN), &mut metrics, 20);
    assert!(state.note_waiting(true));
    for _ in 0..1024 {
        state.handle_read(&received(1, 1), &mut metrics, 20);
    }
    assert!(!state.note_waiting(true));
    // The flood is over.
    assert!(!state.note_waiting(false) && state.note_waiting(true));
    state.want_close();
    state.handle_wishes(&mut metrics, 20);
    assert!(!state.note_waiting(true), "it shows nothing any more");
}

#[test]
fn a_silence_and_a_close_count_from_when_their_stamp_may_be_at_the_latest() {
    let later = |stamp: u64| stamp + 1_000_000_000;
    let mut state = open(idle(Duration::from_millis(9)));
    let end = state.deadline_at();
    state.handle_stamps(later);
    assert_eq!(state.deadline_at(), later(end));
    let (notes, mut metrics) = (Arc::new(()), Metrics::default());
    let mut state = with_output(&notes, &mut metrics);
    state.want_close();
    state.handle_wishes(&mut metrics, 50);
    state.handle_stamps(later);
    assert!(!state.is_overdue(later(50 + 9_000_000 + TICK) - 1));
    assert!(state.is_overdue(later(50 + 9_000_000 + TICK)));
}
