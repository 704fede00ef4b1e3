//! What is due: the order of callbacks, what comes in the next round, notes, timers.

use super::*;
use crate::metrics::Metrics;
use crate::reason::{By, CloseKind};
use crate::timer::Timers;

/// What a round brings, by the first letters of its callbacks.
fn round(state: &mut State, mut between: impl FnMut(&mut State, &Due)) -> String {
    let (mut round, mut text) = (Round::default(), String::new());
    while let Some(due) = state.poll_due(&mut round) {
        text += match &due {
            Due::Opened => "O",
            Due::Stopping => "S",
            Due::Drained => "D",
            Due::Refused(_) => "R",
            Due::Notified(_) => "N",
        };
        between(state, &due);
        assert!(text.len() < 100, "a round has no end");
    }
    text
}

fn refuse(state: &mut State, ports: impl IntoIterator<Item = u16>) {
    for to in ports {
        state.note_refused(1, Some(&port(to)), &mut Metrics::default());
    }
}

fn notify(state: &mut State, count: usize) {
    for _ in 0..count {
        assert!(state.handle_note(Note::new(())).is_ok());
    }
}

#[test]
fn what_is_due_comes_in_the_order_of_the_contract_and_once() {
    let mut state = fresh(|_| {});
    notify(&mut state, 3);
    refuse(&mut state, [1, 2]);
    state.drained_due = true;
    state.handle_shutdown();
    assert!(state.has_due());
    assert_eq!(round(&mut state, |_, _| ()), "OSDRRNNN");
    assert!(!state.has_due());
    assert_eq!(round(&mut state, |_, _| ()), "");
    // Each alone is due as well.
    type Event = fn(&mut State);
    let events: [(Event, &str); 4] = [
        (State::handle_shutdown, "S"),
        (|state| state.drained_due = true, "D"),
        (|state| refuse(state, [1]), "R"),
        (|state| notify(state, 1), "N"),
    ];
    for (event, text) in events {
        event(&mut state);
        assert!(state.has_due() && state.has_work(), "{text}");
        assert_eq!(round(&mut state, |_, _| ()), text);
        assert!(!state.has_due(), "{text}");
    }
}

#[test]
fn what_callbacks_bring_about_again_waits_for_the_next_round() {
    let mut state = open(|_| {});
    state.drained_due = true;
    refuse(&mut state, [1, 2]);
    notify(&mut state, 2);
    let again = |state: &mut State, due: &Due| match due {
        Due::Drained => state.drained_due = true,
        Due::Refused(to) => refuse(state, to.and_then(|to| to.port())),
        Due::Notified(_) => notify(state, 1),
        _ => {}
    };
    for _ in 0..3 {
        assert_eq!(round(&mut state, again), "DRRNN");
        assert!(state.has_due());
    }
    assert_eq!(round(&mut state, |_, _| ()), "DRRNN");
    assert!(!state.has_due());
}

#[test]
fn each_receiver_that_was_refused_is_shown_once_and_up_to_64_of_them() {
    for (ports, shown) in [(63, 63), (64, 64), (65, 64)] {
        let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
        for to in (0..ports).chain(0..ports) {
            state.note_refused(2, Some(&port(to)), &mut metrics);
        }
        state.note_refused(0, Some(&port(9000)), &mut metrics);
        assert_eq!(metrics.datagrams_refused, 4 * u64::from(ports), "all are counted");
        let mut of = Vec::new();
        round(&mut state, |_, due| {
            if let Due::Refused(to) = due {
                of.push(to.and_then(|to| to.port()).unwrap());
            }
        });
        assert_eq!(of, (0..shown).collect::<Vec<u16>>());
    }
    let mut connected = open(|o| o.connect = Some(port(5)));
    connected.note_refused(1, None, &mut Metrics::default());
    let due = connected.poll_due(&mut Round::default());
    assert!(matches!(due, Some(Due::Refused(Some(to))) if to == port(5)), "it is the peer");
}

#[test]
fn notes_wait_up_to_their_bound_and_for_no_socket_that_closes() {
    for most in [0, 1, 3] {
        let mut state = open(|o| o.notes_max = most);
        let taken = (0..5).filter(|_| state.handle_note(Note::new(())).is_ok()).count();
        assert_eq!(taken, most);
        assert_eq!(round(&mut state, |_, _| ()), "N".repeat(most));
        assert_eq!(state.handle_note(Note::new(())).is_ok(), most > 0);
    }
    assert!(fresh(|_| {}).handle_note(Note::new(())).is_ok());
    let full = Planned::new(&[libc::EAGAIN]);
    for (waits, phase) in [(true, Phase::Closing), (false, Phase::Ended)] {
        let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
        let notes = Arc::new(());
        (0..2).for_each(|_| assert!(state.handle_note(note(&notes)).is_ok()));
        if waits {
            state.send(&full, &mut metrics, b"waits", Some(&port(1)), 7).unwrap();
        }
        state.want_close();
        assert_eq!(left(&notes), 2);
        state.handle_wishes(&mut metrics, 8);
        assert_eq!((state.phase(), left(&notes)), (phase, 0));
        let refused = state.handle_note(note(&notes));
        assert!(refused.is_err(), "{phase:?}");
        assert_eq!(round(&mut state, |_, _| ()), "");
    }
}

#[test]
fn in_each_phase_it_has_the_work_of_that_phase() {
    let full = Planned::new(&[libc::EAGAIN]);
    let mut state = fresh(|_| {});
    assert!(state.has_due() && state.has_work() && !state.may_read() && !state.may_call());
    state.poll_due(&mut Round::default());
    assert!(!state.has_due() && state.has_work() && state.may_read() && state.may_call());
    let nothing = Err(io::ErrorKind::WouldBlock.into());
    assert_eq!(state.handle_read(&nothing, &mut Metrics::default(), 7), Read::Nothing);
    assert!(!state.has_work() && !state.may_read());
    state.handle_ready(true, false);
    assert!(state.has_work() && state.may_read());
    let mut metrics = Metrics::default();
    state.send(&full, &mut metrics, b"waits", Some(&port(1)), 7).unwrap();
    assert!(!state.has_output_to_move() && state.is_congested());
    state.want_close();
    state.handle_wishes(&mut metrics, 8);
    state.handle_shutdown();
    assert_eq!(state.phase(), Phase::Closing);
    assert!(!state.has_due() && !state.has_work() && !state.may_read() && !state.may_call());
    state.handle_ready(false, true);
    assert!(state.has_work() && state.has_output_to_move());
    state.end(By::Us, CloseKind::Aborted, None);
    state.handle_wishes(&mut metrics, 9);
    assert!(state.has_due() && state.has_work() && !state.may_read() && !state.may_call());
    assert!(!state.has_output_to_move() && state.poll_due(&mut Round::default()).is_none());
}

#[test]
fn a_timer_is_one_of_its_name_and_of_its_last_setting() {
    let (mut timers, mut state) = (Timers::default(), open(|_| {}));
    let [one, two, three] = [1, 2, 3].map(|at| timers.arm(at, ()));
    let (first, second) = (Timer::new(1), Timer::new(2));
    assert_eq!(state.put_timer(first, one), None);
    assert_eq!(state.put_timer(second, two), None);
    assert!(state.has_timer(first, one) && state.has_timer(second, two));
    assert!(!state.has_timer(first, two) && !state.has_timer(second, one));
    assert_eq!(state.put_timer(first, three), Some(one));
    assert!(state.has_timer(first, three) && !state.has_timer(first, one));
    #[cfg(debug_assertions)]
    assert_eq!(state.timers_len(), 2);
    state.put_deadline(Some(one));
    assert_eq!(state.deadline_key(), Some(one));
    #[cfg(debug_assertions)]
    assert_eq!(state.timers_len(), 3);
    assert_eq!((state.take_timer(second), state.take_timer(second)), (Some(two), None));
    assert!(!state.has_timer(second, two));
    assert_eq!(state.take_timers(), [(first, three)]);
    assert!(!state.has_timer(first, three) && state.take_timers().is_empty());
    state.put_deadline(None);
    assert_eq!(state.deadline_key(), None);
    #[cfg(debug_assertions)]
    assert_eq!(state.timers_len(), 0);
}

#[test]
fn unsent_bytes_are_reported_when_they_change() {
    let full = Planned::new(&[libc::EAGAIN]);
    let (mut state, mut metrics) = (open(|_| {}), Metrics::default());
    assert_eq!(state.poll_unsent(), None);
    state.send(&full, &mut metrics, b"waits", Some(&port(1)), 7).unwrap();
    assert_eq!((state.poll_unsent(), state.poll_unsent()), (Some((0, 5)), None));
    state.send(&full, &mut metrics, b"too", Some(&port(1)), 7).unwrap();
    assert_eq!((state.unsent(), state.poll_unsent()), (8, Some((5, 8))));
    state.handle_ready(false, true);
    state.flush(&Planned::new(&[]), &mut metrics, 8);
    assert_eq!((state.poll_unsent(), state.poll_unsent()), (Some((8, 0)), None));
}
