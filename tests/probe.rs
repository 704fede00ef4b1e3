//! The tools for users' own protocols: `Probe`, `every_split`, `check`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lariat::sim::{Probe, check, every_split};
use lariat::{
    By, CloseKind, CloseReason, Context, Deadline, Filter, FilterFailure, Input, Note, Outcome,
    Protocol, Timer,
};

#[path = "shared/toy.rs"]
mod toy;

use toy::{ALERT, Toy};

// ---- protocols to try the tools on -------------------------------------------------------------

/// A mistake that protocols written by hand have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Takes what arrives for a whole message.
    Hasty,
    /// Looks for one message per `data` and forgets that there may be more.
    OneAtATime,
    /// Cannot tell an end that is split.
    SplitEnd,
    /// Forgets the rest of the input behind a message.
    Forgetful,
    /// Closes with a reason that depends on the cut.
    Touchy,
}

/// Answers each line with its length. A line `quit` closes.
struct Lines(Bug);

impl Protocol for Lines {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        if self.0 == Bug::Hasty {
            cx.write(format!("{}\n", input.len()).as_bytes());
            input.consume_all();
            return Ok(());
        }
        while let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") {
            if &input[..end] == b"quit" {
                cx.close();
                return Ok(());
            }
            cx.write(format!("{end}\n").as_bytes());
            match self.0 {
                Bug::Forgetful => input.consume_all(),
                _ => input.consume(end + 2),
            }
            if self.0 == Bug::OneAtATime {
                break;
            }
        }
        if self.0 == Bug::SplitEnd && input.ends_with(b"\r") {
            input.consume_all();
        }
        if self.0 == Bug::Touchy && !input.is_empty() {
            return Err("half a line".into());
        }
        Ok(())
    }
}

/// Answers each frame, two bytes of length and as many more, with its last byte.
struct Frames(Bug);

impl Protocol for Frames {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        loop {
            let Some(head) = input.first_chunk::<2>() else {
                if self.0 == Bug::SplitEnd && input.len() == 1 {
                    input.consume(1);
                }
                input.need(2);
                return Ok(());
            };
            let length = usize::from(u16::from_be_bytes(*head));
            if self.0 == Bug::Hasty {
                // Takes the frame for whole.
                let end = input.len().min(2 + length);
                cx.write(&input[end - 1..end]);
                input.consume(end);
                continue;
            }
            if input.len() < 2 + length {
                input.need(2 + length);
                return Ok(());
            }
            if let Some(last) = input[2..2 + length].last() {
                cx.write(&[*last]);
            }
            match self.0 {
                Bug::Forgetful => input.consume_all(),
                _ => input.consume(2 + length),
            }
            if self.0 == Bug::OneAtATime {
                return Ok(());
            }
        }
    }
}

const LINES: &[u8] = b"one\r\n\r\na longer line\r\nquit\r\nnever read";
const FRAMES: &[u8] = b"\x00\x03abc\x00\x00\x00\x01x\x00\x05vwxyz\x00\x09cut";

// ---- every_split -------------------------------------------------------------------------------

#[test]
fn every_split_is_content_with_protocols_that_do_not_care_how_input_is_cut() {
    every_split(|| Lines(Bug::None), LINES);
    every_split(|| Frames(Bug::None), FRAMES);
    every_split(|| Lines(Bug::None), b"");
    every_split(|| Lines(Bug::None), b"\n");
}

#[test]
fn a_protocol_that_takes_one_message_for_each_data_is_shown_the_next_one() {
    every_split(|| Lines(Bug::OneAtATime), LINES);
    every_split(|| Frames(Bug::OneAtATime), FRAMES);
}

#[test]
fn every_split_finds_the_usual_bugs_of_line_protocols() {
    for bug in [Bug::Hasty, Bug::SplitEnd, Bug::Forgetful, Bug::Touchy] {
        let found = catch_unwind(|| every_split(|| Lines(bug), LINES)).is_err();
        assert!(found, "{bug:?} was not found");
    }
}

#[test]
fn every_split_finds_the_usual_bugs_of_framed_protocols() {
    for bug in [Bug::Hasty, Bug::SplitEnd, Bug::Forgetful] {
        let found = catch_unwind(|| every_split(|| Frames(bug), FRAMES)).is_err();
        assert!(found, "{bug:?} was not found");
    }
}

#[test]
fn every_split_names_the_cut_and_both_answers() {
    let panic = catch_unwind(|| every_split(|| Lines(Bug::Hasty), b"ab\r\n")).unwrap_err();
    let message = panic.downcast_ref::<String>().expect("a message");
    for part in ["byte by byte", "[1, 2, 3]", r"4\n", r"1\n1\n1\n1\n", "finished"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[test]
fn every_split_compares_reasons_as_well_as_bytes() {
    /// Says nothing; fails when its first `data` is short.
    struct Silent(bool);
    impl Protocol for Silent {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            if !std::mem::replace(&mut self.0, true) && input.len() < 3 {
                return Err("too short".into());
            }
            input.consume_all();
            Ok(())
        }
    }
    assert!(catch_unwind(|| every_split(|| Silent(false), b"abcdef")).is_err());
}

#[test]
fn every_split_gives_a_protocol_time_to_answer_after_the_end() {
    /// Answers half a minute later.
    struct Slow(Vec<u8>);
    impl Protocol for Slow {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            self.0.extend_from_slice(input);
            input.consume_all();
            Ok(())
        }
        fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            cx.set_timer(Timer::new(1), Duration::from_secs(30));
            Ok(())
        }
        fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
            cx.write(&self.0);
            cx.close();
            Ok(())
        }
    }
    every_split(|| Slow(Vec::new()), b"some input");
}

// ---- Probe -------------------------------------------------------------------------------------

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
fn a_probe_tells_why_the_connection_ended() {
    let mut probe = Probe::new(Lines(Bug::None));
    probe.receive(b"quit\r\n");
    assert!(probe.is_finished());
    assert!(probe.closed().is_none(), "it lingers for the peer's end");
    probe.finish();
    let reason = probe.closed().expect("both have finished");
    assert_eq!((reason.kind(), reason.by()), (CloseKind::Finished, By::Us));
    assert_eq!(reason.bytes_in(), 6);

    let mut probe = Probe::new(Lines(Bug::Touchy));
    probe.receive(b"half");
    probe.advance(Duration::from_secs(3));
    let reason = probe.closed().expect("it has lingered for long enough");
    assert_eq!(reason.kind(), CloseKind::Protocol);
    assert_eq!(reason.error().unwrap().to_string(), "half a line");
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

/// Answers under a filter.
struct Filtered(Option<Toy>, Lines);

impl Protocol for Filtered {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.1.data(cx, input)
    }
    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        self.0.take().map(|toy| Box::new(toy) as Box<dyn Filter>)
    }
}

fn filtered() -> Filtered {
    Filtered(Some(Toy::server()), Lines(Bug::None))
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
fn every_split_cuts_the_wire_of_a_filtered_protocol_too() {
    let mut wire = Toy::hello(3);
    Toy::encode(3, LINES, &mut wire);
    wire.push(0);
    every_split(filtered, &wire);
    // Also where the stream is cut off, or is none.
    every_split(filtered, &wire[..wire.len() - 4]);
    every_split(filtered, b"HELP me");
}

// ---- check -------------------------------------------------------------------------------------

#[test]
fn check_runs_each_seed_in_a_simulator_of_its_own_and_lets_a_failure_through() {
    struct Silent;
    impl Protocol for Silent {
        fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<'_>, _: &CloseReason) {}
    }
    if std::env::var_os("LARIAT_SEED").is_some() || std::env::var_os("LARIAT_SEEDS").is_some() {
        return;
    }
    let mut seeds = Vec::new();
    check(3..6, |sim| {
        assert_eq!(sim.metrics().turns, 0);
        sim.listen("127.0.0.1:7000", |_| Some(Silent)).unwrap();
        seeds.push(sim.seed());
    });
    assert_eq!(seeds, [3, 4, 5]);
    let failed = catch_unwind(AssertUnwindSafe(|| check(0..9, |sim| assert!(sim.seed() < 4))));
    assert!(failed.is_err());
}
