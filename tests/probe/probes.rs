//! `Probe`: one protocol, its input and its time.

use std::time::Duration;

use lariat::sim::Probe;
use lariat::{
    By, CloseKind, Context, Deadline, FilterFailure, Input, Note, Outcome, Protocol, Timer,
};

use crate::protocols::{Bug, Lines, filtered};
use crate::toy::{ALERT, Toy};

#[test]
fn a_probe_shows_what_was_sent_since_the_last_look() {
    let mut probe = Probe::new(Lines(Bug::None));
    assert_eq!(probe.sent(), b"");
    probe.receive(b"one\r\nt");
    assert_eq!(probe.sent(), b"3\n");
    probe.receive(b"wo\r");
    assert_eq!(probe.sent(), b"");
    probe.receive(b"\nthree\r\n");
    assert_eq!(probe.sent(), b"3\n5\n");
    assert!(probe.closed().is_none() && !probe.is_finished());
}

#[test]
fn what_was_sent_is_shown_as_text() {
    let mut probe = Probe::new(Lines(Bug::None));
    probe.receive(b"one\r\n");
    let sent = probe.sent();
    assert_eq!(format!("{sent:?}"), r#""3\n""#);
    assert_eq!(sent.into_vec(), b"3\n");
}

#[test]
fn a_probe_tells_why_the_connection_ended() {
    let mut probe = Probe::new(Lines(Bug::None));
    probe.receive(b"quit\r\n");
    assert!(probe.is_finished());
    let reason = probe.closed().expect("it is decided, although it lingers for the peer's end");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Us));
    assert!(!reason.peer_finished());
    probe.finish();
    let reason = probe.closed().expect("both have finished");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Us));
    assert_eq!((reason.bytes_in(), reason.peer_finished()), (6, true));

    let mut probe = Probe::new(Lines(Bug::Touchy));
    probe.receive(b"half");
    for _ in 0..2 {
        let reason = probe.closed().expect("the error decides");
        assert_eq!((reason.kind(), reason.by()), (CloseKind::Protocol, By::Us));
        assert_eq!(reason.error().unwrap().to_string(), "half a line");
        // The same once it has lingered for long enough.
        probe.advance(Duration::from_secs(3));
    }
}

#[test]
fn a_probe_can_finish_reset_and_hang_up() {
    let mut probe = Probe::new(Lines(Bug::None));
    probe.receive(b"left over");
    probe.finish();
    let reason = probe.closed().unwrap();
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Peer));
    assert_eq!(reason.unread(), 9);
    assert!(reason.peer_finished());

    let mut probe = Probe::new(Lines(Bug::None));
    probe.receive(b"one\r\n");
    probe.reset();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Reset);

    let mut probe = Probe::new(Lines(Bug::None));
    probe.hang_up();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Finished);
    assert_eq!(probe.sent(), b"");
    assert!(probe.is_finished());
    // Nothing of this has an effect any more.
    probe.receive(b"one\r\n");
    probe.finish();
    probe.reset();
    probe.shutdown();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Finished);
}

/// Counts seconds aloud.
struct Clock(u8);

impl Protocol for Clock {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_secs(1));
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.0 += 1;
        cx.write(&[b'0' + self.0]);
        cx.set_timer(timer, Duration::from_secs(1));
        Ok(())
    }
    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.0 = note.downcast::<u8>().map_err(|_| "not a number")?;
        cx.write(b"set ");
        Ok(())
    }
    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write(b"bye");
        cx.close();
        Ok(())
    }
}

#[test]
fn time_passes_for_a_probe_only_when_it_is_told_to() {
    let mut probe = Probe::new(Clock(0));
    std::thread::yield_now();
    probe.receive(b"x");
    assert_eq!(probe.sent(), b"");
    probe.advance(Duration::from_millis(999));
    assert_eq!(probe.sent(), b"");
    probe.advance(Duration::from_millis(2));
    assert_eq!(probe.sent(), b"1");
    probe.advance(Duration::from_secs(3));
    assert_eq!(probe.sent(), b"234");
}

#[test]
fn a_probe_delivers_notes_and_the_shutdown() {
    let mut probe = Probe::new(Clock(0));
    probe.notify(Note::new(6u8));
    assert_eq!(probe.sent(), b"set ");
    probe.advance(Duration::from_millis(1_001));
    assert_eq!(probe.sent(), b"7");
    probe.shutdown();
    assert_eq!(probe.sent(), b"bye");
    probe.finish();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Shutdown);

    let mut probe = Probe::new(Clock(0));
    probe.notify(Note::new("no number"));
    probe.finish();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Protocol);
}

#[test]
fn large_input_and_output_pass_a_probe_whole() {
    struct Echo;
    impl Protocol for Echo {
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            cx.write(input);
            input.consume_all();
            Ok(())
        }
    }
    let whole: Vec<u8> = (0..3_000_000u32).map(|at| (at / 7) as u8).collect();
    let mut probe = Probe::new(Echo);
    probe.receive(&whole);
    assert_eq!(probe.sent(), whole);
}

#[test]
fn a_probe_of_a_filtered_protocol_speaks_the_wires_language() {
    let mut probe = Probe::new(filtered());
    probe.receive(&Toy::hello(9));
    assert_eq!(probe.sent(), b"OLEH");
    let mut wire = Vec::new();
    Toy::encode(9, b"one\r\n", &mut wire);
    probe.receive(&wire);
    let mut answer = Vec::new();
    Toy::encode(9, b"3\n", &mut answer);
    assert_eq!(probe.sent(), answer);
    probe.finish();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Filter(FilterFailure::Truncated));

    let mut probe = Probe::new(filtered());
    probe.receive(b"garbage");
    assert_eq!(probe.sent(), ALERT);
    probe.finish();
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Filter(FilterFailure::Failed));

    let mut probe = Probe::new(filtered());
    probe.receive(b"HE");
    probe.advance(Duration::from_secs(11));
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::TimedOut(Deadline::Handshake));
}

#[test]
fn a_probe_tells_why_a_connection_ended_whose_protocol_was_replaced() {
    struct Leads;
    impl Protocol for Leads {
        fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.replace(Lines(Bug::None));
            Ok(())
        }
    }
    let mut probe = Probe::new(Leads);
    probe.receive(b"quit\r\n");
    probe.finish();
    probe.advance(Duration::from_secs(60));
    let reason = probe.closed().expect("its end is over, and known");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Us));
}

#[test]
fn of_several_connections_a_probe_tells_of_its_own() {
    /// Connects to where nobody is, and stays.
    struct Calls;
    struct Alone;
    impl Protocol for Alone {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
    }
    impl Protocol for Calls {
        fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
            cx.driver().connect("127.0.0.1:9", Alone);
            Ok(())
        }
        fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            input.consume_all();
            cx.abort();
            Ok(())
        }
    }
    let mut probe = Probe::new(Calls);
    probe.advance(Duration::from_secs(60));
    assert!(probe.closed().is_none());
    probe.receive(b"!");
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Aborted);
}
