//! `every_split`: an answer may not depend on how its input is cut.

use std::panic::catch_unwind;
use std::time::Duration;

use lariat::sim::every_split;
use lariat::{Context, Input, Outcome, Protocol, Timer};

use crate::protocols::{Bug, FRAMES, Frames, LINES, Lines, filtered};
use crate::toy::Toy;

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
    let expected = r#"the answer depends on how the input is cut (byte by byte: [1, 2, 3])
 whole: finished, "4\n" before FIN, "" after it
   cut: finished, "1\n1\n1\n1\n" before FIN, "" after it"#;
    assert_eq!(message, expected);
}

#[test]
fn every_split_finds_an_answer_that_comes_only_at_fin() {
    // At the end of it all the same bytes have been sent: only when differs.
    let found = catch_unwind(|| every_split(|| Lines(Bug::Late), b"one\r\ntw"));
    let panic = found.expect_err("found");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains(r#"whole: finished, "" before FIN, "3\n" after it"#), "{message}");
}

#[test]
fn every_split_shows_the_first_places_of_many() {
    let panic = catch_unwind(|| every_split(|| Lines(Bug::Hasty), &[b'x'; 40])).unwrap_err();
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("14, 15, 16] and 23 more)"), "{message}");
}

#[test]
fn every_split_finds_a_protocol_that_fails_at_one_cut_in_two_alone() {
    /// Fails when its input comes as so many bytes and then all others at once.
    struct FailsAt(usize, Vec<usize>);
    impl Protocol for FailsAt {
        fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
            self.1.push(input.len());
            input.consume_all();
            match self.1[..] {
                [first, rest] if first == self.0 && first + rest == 12 => Err("planned".into()),
                _ => Ok(()),
            }
        }
    }
    for place in 1..12 {
        let split = || every_split(|| FailsAt(place, Vec::new()), &[b'x'; 12]);
        let panic = catch_unwind(split).expect_err("found");
        let message = panic.downcast_ref::<String>().expect("a message");
        assert!(message.contains(&format!("(in two: [{place}])")), "{message}");
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

/// Hands its connection over as soon as something has come.
struct Leads;

/// Says nothing, and fails where a line is not whole.
struct Fussy;

impl Protocol for Leads {
    fn data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        cx.replace(Fussy);
        Ok(())
    }
}

impl Protocol for Fussy {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        match input.ends_with(b"\n") {
            true => input.consume_all(),
            false => return Err("not a line".into()),
        }
        Ok(())
    }
}

#[test]
fn every_split_finds_another_end_of_a_protocol_that_has_taken_over() {
    let found = catch_unwind(|| every_split(|| Leads, b"ab\n"));
    let panic = found.expect_err("found");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("whole: finished, \"\" before FIN"), "{message}");
    assert!(message.contains("cut: protocol error, \"\" before FIN"), "{message}");
}
