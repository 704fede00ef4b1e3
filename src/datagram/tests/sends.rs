//! What leaves at once, what waits, and what becomes of it.

use libc::{EACCES, EAGAIN, ECONNREFUSED, EHOSTUNREACH, EIO, EMSGSIZE, ENOBUFS};

use super::*;
use crate::clock::TICK;
use crate::endpoint::UnixName;
use crate::episode::tests::kept::lines_of;
use crate::error::ErrorKind;
use crate::metrics::Metrics;
use crate::reason::{By, CloseKind};

/// What was counted: calls, datagrams that left, that were refused, that were dropped.
fn counted(metrics: &Metrics) -> [u64; 4] {
    let Metrics { writes, datagrams_out, datagrams_refused, datagrams_dropped, .. } = *metrics;
    [writes, datagrams_out, datagrams_refused, datagrams_dropped]
}

fn connected(options: &mut DatagramOptions) {
    options.connect = Some(port(5));
}

fn named(name: &str) -> Endpoint {
    UnixName::from_pathname(name).unwrap().into()
}

/// Sends each of `texts`, which the system takes or which waits.
fn send(state: &mut State, socket: &Planned, metrics: &mut Metrics, texts: &[&str], now: u64) {
    let to = (!socket.unix && state.options().connect.is_none()).then(|| port(1));
    for text in texts {
        state.send(socket, metrics, text.as_bytes(), to.as_ref(), now).unwrap();
    }
}

#[test]
fn a_report_about_an_earlier_datagram_is_counted_and_this_one_is_tried_again() {
    type Case = (&'static [i32], Option<ErrorKind>, [u64; 4], usize);
    let cases: [Case; 10] = [
        (&[0], None, [1, 1, 0, 0], 0),
        (&[ECONNREFUSED, 0], None, [2, 1, 1, 0], 0),
        (&[EHOSTUNREACH, ECONNREFUSED, 0], None, [3, 1, 2, 0], 0),
        (&[ECONNREFUSED, ECONNREFUSED, EAGAIN], None, [3, 0, 2, 0], 5),
        (&[ECONNREFUSED; 4], Some(ErrorKind::Other), [3, 0, 3, 0], 0),
        // Of these it is not known that this datagram was not the cause.
        (&[EHOSTUNREACH; 4], Some(ErrorKind::Other), [3, 0, 0, 0], 0),
        (&[EMSGSIZE; 4], Some(ErrorKind::TooLarge), [3, 0, 0, 0], 0),
        (&[EACCES; 4], Some(ErrorKind::PermissionDenied), [3, 0, 0, 0], 0),
        (&[ECONNREFUSED, EACCES, EACCES], Some(ErrorKind::PermissionDenied), [3, 0, 1, 0], 0),
        (&[EAGAIN], None, [1, 0, 0, 0], 5),
    ];
    for (answers, error, counts, waits) in cases {
        let (socket, mut metrics) = (Planned::new(answers), Metrics::default());
        let mut state = open(connected);
        let sent = state.send(&socket, &mut metrics, b"bytes", None, 7);
        assert_eq!(sent.err().map(|error| error.kind()), error, "{answers:?}");
        assert_eq!((counted(&metrics), state.unsent()), (counts, waits), "{answers:?}");
        assert_eq!(metrics.bytes_out, 5 * counts[1], "{answers:?}");
        assert_eq!(state.has_due(), counts[2] > 0, "{answers:?}");
    }
}

#[test]
fn d5_every_error_of_icmp_is_a_report_to_a_send_that_succeeds_when_it_is_repeated() {
    for errno in REPORTS {
        let (socket, mut metrics) = (Planned::new(&[*errno]), Metrics::default());
        let mut state = open(connected);
        state.send(&socket, &mut metrics, b"bytes", None, 7).unwrap();
        assert_eq!(counted(&metrics), [2, 1, 1, 0], "{errno}");
        let due = state.poll_due(&mut Round::default());
        assert!(matches!(due, Some(Due::Refused(Some(to))) if to == port(5)), "{errno}");
        // Those that leave together.
        let (socket, mut metrics) = (Planned::with_trains(&[0, *errno]), Metrics::default());
        let mut state = open(connected);
        send(&mut state, &socket, &mut metrics, &["abc", "def", "ghi"], 7);
        state.send_train(&socket, &mut metrics, 9);
        assert_eq!(counted(&metrics), [3, 3, 1, 0], "{errno}");
        // Without a peer there is no such report: the datagram itself cannot be sent.
        let (socket, mut metrics) = (Planned::new(&[*errno]), Metrics::default());
        assert!(open(|_| {}).send(&socket, &mut metrics, b"bytes", Some(&port(1)), 7).is_err());
        assert_eq!(counted(&metrics), [1, 0, 0, 0], "{errno}");
    }
}

#[test]
fn d7_an_error_that_comes_at_every_try_is_the_datagrams_own_and_no_report() {
    for errno in REPORTS.iter().filter(|errno| **errno != ECONNREFUSED) {
        let (socket, mut metrics) = (Planned::new(&[*errno; 3]), Metrics::default());
        let mut state = open(connected);
        assert!(state.send(&socket, &mut metrics, b"bytes", None, 7).is_err(), "{errno}");
        assert_eq!((counted(&metrics), state.has_due()), ([3, 0, 0, 0], false), "{errno}");
        state.send(&socket, &mut metrics, b"bytes", None, 7).unwrap();
        assert_eq!(counted(&metrics), [4, 1, 0, 0], "{errno}");
        // Of those that leave together each is tried alone, and dropped.
        let answers = [&[0][..], &[*errno; 9]].concat();
        let (socket, mut metrics) = (Planned::with_trains(&answers), Metrics::default());
        let mut state = open(connected);
        send(&mut state, &socket, &mut metrics, &["abc", "def", "ghi"], 7);
        state.send_train(&socket, &mut metrics, 9);
        assert_eq!((counted(&metrics), state.has_due()), ([10, 1, 0, 2], false), "{errno}");
    }
}

#[test]
fn a_unix_socket_hears_at_once_that_its_receiver_is_gone() {
    for connect in [None, Some(named("/gone"))] {
        let (socket, mut metrics) = (Planned::unix(&[ECONNREFUSED, EIO]), Metrics::default());
        let mut state = open(|o| o.connect = connect);
        let to = connect.is_none().then(|| named("/gone"));
        state.send(&socket, &mut metrics, b"bytes", to.as_ref(), 7).unwrap();
        assert_eq!((counted(&metrics), state.unsent()), ([1, 0, 1, 0], 0));
        let due = state.poll_due(&mut Round::default());
        assert!(matches!(due, Some(Due::Refused(Some(to))) if to == named("/gone")));
        assert!(state.send(&socket, &mut metrics, b"bytes", to.as_ref(), 7).is_err());
    }
}

#[test]
fn what_is_sent_once_it_is_being_closed_is_refused_and_counted() {
    let ends: [fn(&mut State); 4] = [
        State::want_close,
        State::want_abort,
        |state| state.phase = Phase::Closing,
        |state| state.end(By::Us, CloseKind::Aborted, None),
    ];
    for end in ends {
        let (socket, mut metrics) = (Planned::new(&[]), Metrics::default());
        let mut state = open(|_| {});
        end(&mut state);
        for _ in 0..2 {
            let error = state.send(&socket, &mut metrics, b"bytes", Some(&port(1)), 7);
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSocket);
            assert!(error.to_string().ends_with("the socket is closed"), "{error}");
        }
        state.end(By::Us, CloseKind::Aborted, None);
        assert_eq!((metrics.refused_bytes, state.decided(8).unwrap().refused()), (10, 10));
        assert!(socket.calls().is_empty());
    }
    let (socket, mut metrics) = (Planned::new(&[]), Metrics::default());
    fresh(|_| {}).send(&socket, &mut metrics, b"early", Some(&port(1)), 7).unwrap();
    assert_eq!((socket.calls(), metrics.refused_bytes), (vec!["early to 1".to_owned()], 0));
}

#[test]
fn what_no_datagram_can_carry_is_an_error_and_no_call() {
    let six: Endpoint = ([0, 0, 0, 0, 0, 0, 0, 1], 1).into();
    for (to, most) in [(port(1), 65_507), (six, 65_527)] {
        for connect in [None, Some(to)] {
            let to = connect.is_none().then_some(to);
            for (count, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
                let (socket, mut metrics) = (Planned::new(&[]), Metrics::default());
                let mut state = open(|o| o.connect = connect);
                let sent = state.send(&socket, &mut metrics, &vec![b'x'; count], to.as_ref(), 7);
                assert_eq!(sent.err().map(|e| e.kind()), (!fits).then_some(ErrorKind::TooLarge));
                assert_eq!(socket.calls().len(), usize::from(fits));
            }
        }
    }
    let (socket, mut metrics) = (Planned::unix(&[]), Metrics::default());
    open(|_| {}).send(&socket, &mut metrics, &[b'x'; 100_000], Some(&named("/a")), 7).unwrap();
}

// ---- several in one call ------------------------------------------------------------------------

#[test]
fn those_that_follow_leave_together_or_each_alone() {
    let text = ["abc", "def", "ghi", "jk"];
    let together = ["abc to 1", "def+ghi+jk to 1"];
    let alone = ["def to 1", "ghi to 1", "jk to 1"];
    for (answers, calls, counts, waits) in [
        (&[][..], &together[..], [2, 4, 0, 0], 0),
        (&[0, EIO], &[&together[..], &alone].concat(), [5, 4, 0, 0], 0),
        // The error of each that cannot be sent has no caller any more.
        (&[0, EIO, EIO, 0, EIO], &[&together[..], &alone].concat(), [5, 2, 0, 2], 0),
        (&[0, EAGAIN], &together, [2, 1, 0, 0], 8),
        (&[0, EIO, 0, EAGAIN], &[&together[..], &alone[..2]].concat(), [4, 2, 0, 0], 5),
        (&[0, ECONNREFUSED], &[&together[..], &alone].concat(), [5, 4, 0, 0], 0),
    ] {
        let (socket, mut metrics) = (Planned::with_trains(answers), Metrics::default());
        let mut state = open(|_| {});
        send(&mut state, &socket, &mut metrics, &text, 7);
        assert!(state.has_output_to_move());
        state.send_train(&socket, &mut metrics, 9);
        assert_eq!(socket.calls(), calls, "{answers:?}");
        assert_eq!((counted(&metrics), state.unsent()), (counts, waits), "{answers:?}");
        assert!(!state.has_output_to_move());
        state.end(By::Us, CloseKind::Aborted, None);
        let left = 11 - waits as u64 - 3 * u64::from(counts[3] == 2) - 2 * (counts[3] / 2);
        assert_eq!((metrics.bytes_out, state.decided(9).unwrap().bytes_out()), (left, left));
    }
}

#[test]
fn a_report_about_earlier_ones_is_counted_before_those_that_follow_leave() {
    for (answers, calls, counts, waits) in [
        (&[0, ECONNREFUSED, 0][..], 3, [3, 3, 1, 0], 0),
        (&[0, ECONNREFUSED, EHOSTUNREACH, 0], 4, [4, 3, 2, 0], 0),
        // What every try has found may be the datagrams' own, but for the first two.
        (&[0, ECONNREFUSED, ECONNREFUSED, EHOSTUNREACH], 6, [6, 3, 2, 0], 0),
        (&[0, ECONNREFUSED, EIO], 5, [5, 3, 1, 0], 0),
        (&[0, ECONNREFUSED, EAGAIN], 3, [3, 1, 1, 0], 6),
    ] {
        let (socket, mut metrics) = (Planned::with_trains(answers), Metrics::default());
        let mut state = open(connected);
        send(&mut state, &socket, &mut metrics, &["abc", "def", "ghi"], 7);
        state.send_train(&socket, &mut metrics, 9);
        assert_eq!(socket.calls().len(), calls, "{answers:?}");
        assert_eq!((counted(&metrics), state.unsent()), (counts, waits), "{answers:?}");
    }
}

#[test]
fn one_that_follows_alone_leaves_as_any_other_and_the_next_turn_begins_again() {
    let (socket, mut metrics) = (Planned::with_trains(&[]), Metrics::default());
    let mut state = open(|o| o.idle = Some(std::time::Duration::from_nanos(10)));
    send(&mut state, &socket, &mut metrics, &["abc", "def"], 7);
    assert_eq!(socket.calls(), ["abc to 1"]);
    state.send_train(&socket, &mut metrics, 9);
    assert_eq!((socket.calls(), state.deadline_at()), (vec!["def to 1".to_owned()], 19 + TICK));
    send(&mut state, &socket, &mut metrics, &["ghi", "jkl", "mno"], 11);
    assert_eq!(socket.calls(), ["ghi to 1"]);
    state.send_train(&socket, &mut metrics, 12);
    assert_eq!((socket.calls(), state.deadline_at()), (vec!["jkl+mno to 1".to_owned()], 22 + TICK));
    // Nothing has followed the last one: the turn that has passed ends that.
    send(&mut state, &socket, &mut metrics, &["pqr"], 13);
    state.send_train(&socket, &mut metrics, 13);
    send(&mut state, &socket, &mut metrics, &["stu"], 14);
    assert_eq!(socket.calls(), ["pqr to 1", "stu to 1"]);
    // One that is longer is behind those that follow.
    send(&mut state, &socket, &mut metrics, &["vwx", "longer"], 15);
    assert_eq!(socket.calls(), ["vwx to 1", "longer to 1"]);
}

#[test]
fn what_is_not_sent_is_a_line_in_the_log() {
    let (socket, mut metrics) = (Planned::with_trains(&[0, EIO, EIO]), Metrics::default());
    let mut state = open(|_| {});
    let (lines, ()) = lines_of(|| {
        send(&mut state, &socket, &mut metrics, &["abc", "def", "ghi"], 7);
        state.send_train(&socket, &mut metrics, 9);
    });
    let (name, error) = (state.id(), io::Error::from_raw_os_error(EIO));
    let debug = |what: &str| (log::Level::Debug, format!("{name}: {what}: {error}"));
    assert_eq!(lines, [debug("not together"), debug("not sent")]);
}

// ---- what waits ---------------------------------------------------------------------------------

/// A socket with these that wait, which the system has room for from now on.
fn waiting(texts: &[&str], most: usize, metrics: &mut Metrics) -> State {
    let mut state = open(|o| o.datagrams_max = most);
    send(&mut state, &Planned::new(&[EAGAIN]), metrics, texts, 7);
    assert!(state.is_congested() && !state.has_output_to_move());
    state.handle_ready(false, true);
    state
}

#[test]
fn a_turn_sends_as_many_as_it_may_and_the_next_goes_on() {
    for (count, most, turns) in [(2, 3, 1), (3, 3, 1), (4, 3, 2), (7, 3, 3), (2, 1, 2)] {
        let mut metrics = Metrics::default();
        let texts = ["a", "b", "c", "d", "e", "f", "g"];
        let mut state = waiting(&texts[..count], most, &mut metrics);
        let socket = Planned::new(&[]);
        let mut sent = Vec::new();
        for turn in 1..=turns {
            assert!(!state.drained_due && state.has_output_to_move());
            state.flush(&socket, &mut metrics, 9);
            let calls = socket.calls();
            assert!(calls.len() == most || turn == turns, "{calls:?}");
            sent.extend(calls);
        }
        assert!(state.drained_due && !state.has_output_to_move() && state.writable);
        assert_eq!(sent, texts[..count].iter().map(|t| format!("{t} to 1")).collect::<Vec<_>>());
    }
}

#[test]
fn what_the_system_has_no_room_for_keeps_its_place_and_what_fails_makes_room() {
    let mut metrics = Metrics::default();
    let mut state = waiting(&["a", "b", "c", "d"], 64, &mut metrics);
    let socket = Planned::new(&[0, EIO, EAGAIN]);
    state.flush(&socket, &mut metrics, 9);
    assert_eq!(socket.calls(), ["a to 1", "b to 1", "c to 1"]);
    assert!(!state.has_output_to_move() && !state.drained_due && state.unsent() == 2);
    assert_eq!((metrics.datagrams_dropped, state.deadline_at()), (1, u64::MAX));
    state.flush(&socket, &mut metrics, 10);
    assert!(socket.calls().is_empty(), "an event tells of room");
    state.handle_ready(false, true);
    state.flush(&socket, &mut metrics, 11);
    assert_eq!(socket.calls(), ["c to 1", "d to 1"]);
    assert!(state.drained_due);
    // What is lost last drains it as well.
    let mut state = waiting(&["a"], 64, &mut metrics);
    state.flush(&Planned::new(&[EIO]), &mut metrics, 12);
    assert!(state.drained_due && state.dropped() == 1);
}

#[test]
fn without_room_over_udp_no_other_receiver_is_tried() {
    let (socket, mut metrics) = (Planned::new(&[EAGAIN]), Metrics::default());
    let mut state = open(|_| {});
    for to in [1, 2] {
        state.send(&socket, &mut metrics, b"x", Some(&port(to)), 7).unwrap();
    }
    assert_eq!(socket.calls(), ["x to 1"]);
    state.handle_ready(false, true);
    socket.answers.borrow_mut().push_back(EAGAIN);
    state.flush(&socket, &mut metrics, 9);
    assert_eq!((socket.calls(), state.unsent()), (vec!["x to 1".to_owned()], 2));
}

#[test]
fn where_no_event_tells_of_room_it_is_tried_again_ever_more_seldom() {
    for (socket, errno, retries) in [
        (Planned::new(&[]), EAGAIN, false),
        (Planned::new(&[]), ENOBUFS, true),
        (Planned::unix(&[]), EAGAIN, true),
        (Planned::unix(&[]), ENOBUFS, true),
    ] {
        socket.answers.borrow_mut().extend([errno; 10]);
        let to = if socket.unix { named("/a") } else { port(1) };
        let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
        for _ in 0..2 {
            state.send(&socket, &mut metrics, b"x", Some(&to), 7).unwrap();
        }
        if !retries {
            assert_eq!(state.deadline_at(), u64::MAX);
            continue;
        }
        let mut now = 7;
        for delay in [1, 2, 4, 8, 16, 32, 64, 100, 100].map(|ms| ms * MILLISECOND) {
            assert_eq!(state.deadline_at(), now + delay);
            state.handle_retry(now + delay - 1);
            assert!(!state.has_output_to_move(), "before its time");
            now += delay;
            state.handle_retry(now);
            assert!(state.has_output_to_move() && state.deadline_at() == u64::MAX);
            state.flush(&socket, &mut metrics, now);
        }
        // A flush at its time is that try. One that succeeds begins again with the shortest.
        now += 100 * MILLISECOND;
        socket.answers.borrow_mut().extend([0, errno]);
        state.handle_ready(false, true);
        state.flush(&socket, &mut metrics, now);
        assert_eq!((state.unsent(), state.deadline_at()), (1, now + MILLISECOND));
        state.handle_retry(now + MILLISECOND);
        state.flush(&socket, &mut metrics, now + MILLISECOND);
        assert_eq!((state.unsent(), state.deadline_at()), (0, u64::MAX));
    }
}

#[test]
fn of_unix_receivers_without_room_each_is_tried_once_and_the_others_go_on() {
    let (socket, mut metrics) = (Planned::unix(&[EAGAIN, EAGAIN]), Metrics::default());
    let mut state = open(|_| {});
    let mut push = |state: &mut State, text: &str, to: &str| {
        state.send(&socket, &mut metrics, text.as_bytes(), Some(&named(to)), 7).unwrap();
    };
    for (text, to) in [("1", "/a"), ("2", "/b"), ("3", "/a"), ("4", "/b"), ("5", "/c")] {
        push(&mut state, text, to);
    }
    assert_eq!(socket.calls(), ["1 to /a", "2 to /b", "5 to /c"], "another does not wait");
    socket.answers.borrow_mut().extend([EAGAIN, 0, 0]);
    state.handle_retry(u64::MAX - 1);
    state.flush(&socket, &mut metrics, 9);
    assert_eq!(socket.calls(), ["1 to /a", "2 to /b", "4 to /b"]);
    assert!(state.unsent() == 2 && !state.drained_due);
    // A connected one has one receiver.
    let socket = Planned::unix(&[EAGAIN, EAGAIN]);
    let mut state = open(|o| o.connect = Some(named("/a")));
    send(&mut state, &socket, &mut metrics, &["1", "2"], 7);
    state.handle_retry(u64::MAX - 1);
    state.flush(&socket, &mut metrics, 9);
    assert_eq!(socket.calls(), ["1", "1"]);
}
