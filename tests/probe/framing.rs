//! Frames: found whole, byte by byte and in every split, and written so that they are found again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lariat::framing::{
    Delimited, FixedSize, Found, FrameError, FrameHandler, Framed, Framing, LengthPrefixed, Lines,
};
use lariat::sim::{Probe, Sim, every_split};
use lariat::{CloseKind, Context, Input, Limits, Outcome, Protocol, Timer};

/// Answers each frame with the same frame, and the end with what was left of one.
struct Echo<F>(F);

impl<F: Framing> FrameHandler for Echo<F> {
    fn frame(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Outcome {
        self.0.write(cx, payload)?;
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &[u8]) -> Outcome {
        cx.write(b"<");
        cx.write(rest);
        cx.close();
        Ok(())
    }
}

fn echo<F: Framing + Clone + 'static>(framing: F) -> Framed<F, Echo<F>> {
    Framed::new(framing.clone(), Echo(framing))
}

/// Feeds `bytes` whole, byte by byte and in every split; what is sent back must be `expected`.
#[track_caller]
fn echoes<F: Framing + Clone + 'static>(framing: F, bytes: &[u8], expected: &[u8]) {
    every_split(|| echo(framing.clone()), bytes);
    let mut whole = Probe::new(echo(framing.clone()));
    whole.receive(bytes);
    assert_eq!(whole.sent(), expected);
    let mut slow = Probe::new(echo(framing));
    for byte in bytes {
        slow.receive(&[*byte]);
    }
    assert_eq!(slow.sent(), expected);
}

/// The error that ends a connection on which `bytes` arrive, whole and byte by byte.
#[track_caller]
fn fails<F: Framing + Clone + 'static>(framing: F, bytes: &[u8], error: FrameError) {
    for step in [bytes.len(), 1] {
        let mut probe = Probe::new(echo(framing.clone()));
        for part in bytes.chunks(step) {
            probe.receive(part);
        }
        let reason = probe.closed().expect("the connection has ended");
        assert_eq!(reason.kind(), CloseKind::Protocol, "in steps of {step}");
        let found = reason.error().unwrap().downcast_ref::<FrameError>();
        assert_eq!(found, Some(&error), "in steps of {step}");
    }
}

// ---- lines and delimiters -----------------------------------------------------------------------

#[test]
fn lines_end_with_lf_or_crlf_and_may_be_empty() {
    echoes(Lines::new(), b"one\ntwo\r\n\n\r\nthree", b"one\ntwo\n\n\n");
    echoes(Lines::new().crlf(), b"one\ntwo\r\n", b"one\r\ntwo\r\n");
    // Only the last `\r` belongs to the end.
    echoes(Lines::new(), b"a\rb\r\r\n", b"");
}

#[test]
fn the_longest_line_is_the_maximum_without_its_end() {
    for max in [0, 1, 5] {
        let fits = vec![b'x'; max];
        echoes(
            Lines::new().with_max(max),
            &[&fits[..], b"\r\n"].concat(),
            &[&fits[..], b"\n"].concat(),
        );
        let over = vec![b'x'; max + 1];
        fails(Lines::new().with_max(max), &[&over[..], b"\r\n"].concat(), FrameError::TooLong(max));
        // It is known before the end comes.
        fails(Lines::new().with_max(max), &[&over[..], b"y"].concat(), FrameError::TooLong(max));
    }
    let mut lines = Lines::new();
    assert_eq!(lines.find(&[b'x'; 65_536]), Ok(Found::More(65_537)));
    let mut lines = Lines::new();
    assert_eq!(lines.find(&[b'x'; 65_537]), Err(FrameError::TooLong(65_536)));
}

#[test]
fn a_line_that_would_be_read_as_another_is_not_written() {
    for payload in [&b"a\nb"[..], b"\n", b"a\r"] {
        assert_eq!(Lines::new().encode(payload), Err(FrameError::InvalidPayload));
    }
    assert_eq!(Lines::new().encode(b"a\rb").unwrap(), b"a\rb\n");
    let long = vec![b'x'; 6];
    assert_eq!(Lines::new().with_max(5).encode(&long), Err(FrameError::TooLong(5)));
    assert_eq!(Lines::new().with_max(6).encode(&long).unwrap(), b"xxxxxx\n");
}

#[test]
fn a_delimiter_of_several_bytes_is_found_wherever_it_is_cut() {
    echoes(Delimited::new(b"\0"), b"one\0\0two\0three", b"one\0\0two\0");
    echoes(Delimited::new(b"aab"), b"xaaab12aab", b"xaaab12aab");
    echoes(Delimited::new(b"--"), b"a-b--c---d--", b"a-b--c---d--");
}

#[test]
fn the_longest_delimited_frame_is_the_maximum_without_its_delimiter() {
    for max in [0, 1, 5] {
        let framing = || Delimited::new(b"--").with_max(max);
        let fits = [&vec![b'x'; max][..], b"--"].concat();
        echoes(framing(), &fits, &fits);
        let over = [&vec![b'x'; max + 1][..], b"--"].concat();
        fails(framing(), &over, FrameError::TooLong(max));
    }
    let mut framing = Delimited::new(b"\0");
    assert_eq!(framing.find(&[1; 65_536]), Ok(Found::More(65_537)));
    assert_eq!(framing.find(&[1; 65_537]), Err(FrameError::TooLong(65_536)));
}

#[test]
fn a_payload_with_the_delimiter_in_it_is_not_written() {
    let framing = Delimited::new(b"--");
    for payload in [&b"a--b"[..], b"--", b"a-"] {
        assert_eq!(framing.encode(payload), Err(FrameError::InvalidPayload), "{payload:?}");
    }
    assert_eq!(framing.encode(b"-a").unwrap(), b"-a--");
}

#[test]
#[should_panic(expected = "at least one byte")]
fn an_empty_delimiter_panics() {
    Delimited::new(b"");
}

#[test]
fn frames_of_a_fixed_size_follow_each_other() {
    echoes(FixedSize::new(1), b"abc", b"abc");
    echoes(FixedSize::new(3), b"abcdefgh", b"abcdef");
    assert_eq!(FixedSize::new(3).encode(b"ab"), Err(FrameError::InvalidPayload));
    assert_eq!(FixedSize::new(3).encode(b"abcd"), Err(FrameError::InvalidPayload));
}

// ---- lengths ------------------------------------------------------------------------------------

fn all_lengths() -> [LengthPrefixed; 8] {
    [
        LengthPrefixed::u8(),
        LengthPrefixed::u16_be(),
        LengthPrefixed::u16_le(),
        LengthPrefixed::u32_be(),
        LengthPrefixed::u32_le(),
        LengthPrefixed::u64_be(),
        LengthPrefixed::u64_le(),
        LengthPrefixed::varint(),
    ]
}

#[test]
fn what_is_encoded_is_found_again_in_every_form_of_length() {
    for framing in all_lengths() {
        let mut bytes = Vec::new();
        for size in [0, 1, 127, 128, 255] {
            bytes.extend(framing.encode(&vec![size as u8; size]).unwrap());
        }
        let mut expected = bytes.clone();
        let unfinished = framing.encode(b"never whole").unwrap();
        bytes.extend(&unfinished[..unfinished.len() - 1]);
        let mut probe = Probe::new(echo(framing));
        probe.receive(&bytes);
        probe.finish();
        expected.push(b'<');
        expected.extend(&unfinished[..unfinished.len() - 1]);
        assert_eq!(probe.sent(), expected, "{framing:?}");
        echoes(framing, &framing.encode(b"abc").unwrap(), &framing.encode(b"abc").unwrap());
    }
}

#[test]
fn a_length_has_its_bytes_in_their_order() {
    let cases: [(LengthPrefixed, &[u8]); 8] = [
        (LengthPrefixed::u8(), &[200]),
        (LengthPrefixed::u16_be(), &[0, 200]),
        (LengthPrefixed::u16_le(), &[200, 0]),
        (LengthPrefixed::u32_be(), &[0, 0, 0, 200]),
        (LengthPrefixed::u32_le(), &[200, 0, 0, 0]),
        (LengthPrefixed::u64_be(), &[0, 0, 0, 0, 0, 0, 0, 200]),
        (LengthPrefixed::u64_le(), &[200, 0, 0, 0, 0, 0, 0, 0]),
        (LengthPrefixed::varint(), &[0xC8, 0x01]),
    ];
    for (framing, head) in cases {
        assert_eq!(&framing.encode(&[1; 200]).unwrap()[..head.len()], head, "{framing:?}");
    }
}

#[test]
fn a_length_above_the_maximum_is_an_error_before_its_bytes_come() {
    for framing in all_lengths() {
        let framing = framing.with_max(5);
        echoes(framing, &framing.encode(&[9; 5]).unwrap(), &framing.encode(&[9; 5]).unwrap());
        let head = &framing.with_max(6).encode(&[9; 6]).unwrap();
        fails(framing, &head[..head.len() - 6], FrameError::TooLong(5));
        assert_eq!(framing.encode(&[9; 6]), Err(FrameError::TooLong(5)));
    }
    let mut framing = LengthPrefixed::u32_be();
    assert_eq!(framing.find(&983_040_u32.to_be_bytes()), Ok(Found::More(983_044)));
    assert_eq!(framing.find(&983_041_u32.to_be_bytes()), Err(FrameError::TooLong(983_040)));
    assert_eq!(framing.find(&[255; 8]), Err(FrameError::TooLong(983_040)));
    let mut widest = LengthPrefixed::u64_be().with_max(usize::MAX);
    assert_eq!(widest.find(&[255; 8]), Ok(Found::More(usize::MAX)), "nothing overflows");
}

#[test]
fn a_payload_that_its_length_cannot_tell_is_not_written() {
    let byte = LengthPrefixed::u8();
    assert!(byte.encode(&[0; 255]).is_ok());
    assert_eq!(byte.encode(&[0; 256]), Err(FrameError::TooLong(255)));
    let two = LengthPrefixed::u16_be();
    assert!(two.encode(&[0; 65_535]).is_ok());
    assert_eq!(two.encode(&[0; 65_536]), Err(FrameError::TooLong(65_535)));
}

#[test]
fn a_varint_has_ten_bytes_at_most_and_64_bits() {
    let mut varint = LengthPrefixed::varint().with_max(usize::MAX);
    let most = [[0xFF; 9].as_slice(), &[0x01]].concat();
    assert_eq!(varint.find(&most), Ok(Found::More(usize::MAX)));
    let over = [[0xFF; 9].as_slice(), &[0x02]].concat();
    assert_eq!(varint.find(&over), Err(FrameError::InvalidLength));
    let endless = [0x80; 10];
    assert_eq!(varint.find(&endless), Err(FrameError::InvalidLength));
    assert_eq!(varint.find(&endless[..9]), Ok(Found::More(10)));
    // Longer than it needs to be is no error.
    assert_eq!(varint.find(&[0x81, 0x80, 0x00, 7]), Ok(Found::Frame { payload: 3..4, len: 4 }));
}

#[test]
fn a_varint_is_written_in_as_few_bytes_as_it_needs() {
    let head = |len| LengthPrefixed::varint().head(&vec![0; len]).unwrap().to_vec();
    assert_eq!(head(0), [0]);
    assert_eq!(head(127), [127]);
    assert_eq!(head(128), [0x80, 1]);
    assert_eq!(head(16_383), [0xFF, 0x7F]);
    assert_eq!(head(16_384), [0x80, 0x80, 1]);
}

/// Counts how often it is asked.
struct Counted(LengthPrefixed, Rc<Cell<u32>>);

impl Framing for Counted {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        self.1.set(self.1.get() + 1);
        self.0.find(bytes)
    }
}

#[test]
fn a_frame_that_arrives_byte_by_byte_is_looked_at_three_times() {
    let count = Rc::default();
    let framing = Counted(LengthPrefixed::u32_be(), Rc::clone(&count));
    let mut probe = Probe::new(Framed::new(framing, Echo(LengthPrefixed::u32_be())));
    let frame = LengthPrefixed::u32_be().encode(&[7; 500]).unwrap();
    for byte in &frame {
        probe.receive(&[*byte]);
    }
    assert_eq!(probe.sent(), frame);
    assert_eq!(count.get(), 3, "for the length, for the payload, and whole");
}

// ---- input without a layer ----------------------------------------------------------------------

/// Answers each line of at most three bytes with its bytes between brackets.
struct Plain;

impl Protocol for Plain {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while let Some(line) = input.line(3)? {
            cx.write(&[b"[", line, b"]"].concat());
        }
        Ok(())
    }
}

#[test]
fn a_line_of_input_is_consumed_with_its_end() {
    every_split(|| Plain, b"one\r\n\ntwo\nth");
    let mut probe = Probe::new(Plain);
    probe.receive(b"one\r\n\ntwo\nth");
    assert_eq!(probe.sent(), b"[one][][two]");
    probe.receive(b"re\r");
    assert!(probe.closed().is_some(), "it is longer than three bytes");
    let mut probe = Probe::new(Plain);
    probe.receive(b"one\r");
    assert!(probe.closed().is_none(), "the last byte may belong to the end");
    probe.receive(b"\n");
    assert_eq!(probe.sent(), b"[one]");
}

// ---- the protocol -------------------------------------------------------------------------------

#[test]
fn what_never_became_whole_is_shown_at_the_end() {
    let mut probe = Probe::new(echo(Lines::new()));
    probe.receive(b"whole\npart");
    probe.finish();
    assert_eq!(probe.sent(), b"whole\n<part");
    assert_eq!(probe.closed().unwrap().kind(), CloseKind::Finished);
}

/// Answers each line with a lot.
struct Talkative;

impl FrameHandler for Talkative {
    fn frame(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Outcome {
        cx.write(&[payload[0]; 100_000]);
        Ok(())
    }
}

#[test]
fn answers_that_congest_the_output_keep_the_other_frames_away_until_it_has_drained() {
    let mut limits = Limits::default();
    limits.output_max = 150_000;
    let mut sim = Sim::new(1);
    let factory = |_: &_| Some(Framed::new(Lines::new(), Talkative));
    let listener = sim.listen_with("127.0.0.1:1", limits.into(), factory).unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    client.send(b"a\nb\nc\nd\ne\n");
    client.finish();
    sim.run_for(Duration::from_secs(5)).unwrap();
    let answers = client.take_received();
    assert_eq!(answers.len(), 500_000);
    let firsts: Vec<u8> = answers.chunks(100_000).map(|answer| answer[0]).collect();
    assert_eq!(firsts, b"abcde");
}

/// Does what a line tells it.
struct Obeys;

impl FrameHandler for Obeys {
    fn frame(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Outcome {
        match payload {
            b"pause" => {
                cx.pause_reading();
                cx.set_timer(Timer::new(1), Duration::from_secs(1));
            }
            b"close" => cx.close(),
            b"abort" => cx.abort(),
            b"raw" => drop(cx.replace(Raw)),
            b"wrong" => return Err("a wrong line".into()),
            other => cx.write(other),
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        cx.resume_reading();
        Ok(())
    }
}

/// Echoes bytes as they are.
struct Raw;

impl Protocol for Raw {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

#[test]
fn a_frame_that_pauses_closes_or_replaces_is_the_last_that_is_shown() {
    let probe = |bytes: &[u8]| {
        let mut probe = Probe::new(Framed::new(Lines::new(), Obeys));
        probe.receive(bytes);
        probe
    };
    let mut paused = probe(b"one\npause\ntwo\nthree\n");
    assert_eq!(paused.sent(), b"one");
    paused.advance(Duration::from_secs(1));
    assert_eq!(paused.sent(), b"twothree");
    for end in ["close", "abort", "wrong"] {
        let mut ended = probe(format!("one\n{end}\ntwo\n").as_bytes());
        assert!(!ended.sent().ends_with(b"two"), "{end}");
    }
    assert_eq!(probe(b"raw\ntwo\nth").sent(), b"two\nth");
}

/// Finds a frame of no bytes, as a decoder with a mistake in it does, and gives up at last.
#[derive(Clone)]
struct Nothing(u32);

impl Framing for Nothing {
    fn find(&mut self, _: &[u8]) -> Result<Found, FrameError> {
        self.0 += 1;
        match self.0 {
            0..1_000 => Ok(Found::Frame { payload: 0..0, len: 0 }),
            _ => Err(FrameError::InvalidLength),
        }
    }
}

#[test]
fn a_framing_that_finds_frames_of_no_bytes_ends_its_connection_and_hangs_nobody() {
    let mut sim = Sim::new(1);
    let listener = sim.listen("127.0.0.1:1", |_| Some(echo(Nothing(0)))).unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    client.send(b"x");
    sim.run_for(Duration::from_secs(1)).unwrap();
    let metrics = sim.metrics();
    assert_eq!((metrics.open, metrics.panics), (0, 1));
}

/// Asks for fewer bytes than there are.
#[derive(Clone)]
struct Modest;

impl Framing for Modest {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        match bytes.len() {
            4.. => Ok(Found::Frame { payload: 0..4, len: 4 }),
            _ => Ok(Found::More(1)),
        }
    }
}

#[test]
fn a_framing_that_asks_for_less_than_there_is_is_asked_again_when_more_has_come() {
    echoes(Modest, b"onetwo12345", b"onetwo12");
}

/// A framing that says no more than where frames end, and a handler that says no more than what it
/// does with one: it sets a timer.
struct Least;

impl Framing for Least {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        FixedSize::new(1).find(bytes)
    }
}

impl FrameHandler for Least {
    fn frame(&mut self, cx: &mut Context<'_>, _: &[u8]) -> Outcome {
        cx.set_timer(Timer::new(1), Duration::from_secs(1));
        Ok(())
    }
}

#[test]
fn a_framing_adds_nothing_to_a_payload_unless_it_says_so() {
    assert_eq!(Least.encode(b"abc").unwrap(), b"abc");
    assert_eq!(&*Least.head(b"abc").unwrap(), b"");
    assert_eq!(Least.tail(), b"");
    assert_eq!(Lines::default().encode(b"abc").unwrap(), b"abc\n");
}

#[test]
fn a_handler_that_says_no_more_closes_at_a_timer_at_the_end_and_at_shutdown() {
    let probe = || Probe::new(Framed::new(Least, Least));
    let mut timed = probe();
    timed.receive(b"x");
    assert!(timed.closed().is_none());
    timed.advance(Duration::from_secs(1));
    assert_eq!(timed.closed().unwrap().kind(), CloseKind::Finished);
    let mut finished = probe();
    finished.finish();
    assert_eq!(finished.closed().unwrap().kind(), CloseKind::Finished);
    let mut sim = Sim::new(1);
    sim.listen("10.0.0.1:1", |_| Some(Framed::new(Least, Least))).unwrap();
    let _client = sim.dial("10.0.0.1:1");
    sim.run_for(Duration::from_millis(100)).unwrap();
    sim.control().shutdown();
    let report = sim.run().unwrap();
    assert_eq!((report.drained(), report.aborted()), (1, 0));
}

#[test]
fn what_was_searched_is_not_searched_again() {
    // The bytes of a frame do not change between two calls. Here they do: nobody looks.
    let mut lines = Lines::new();
    assert_eq!(lines.find(b"0123456789"), Ok(Found::More(11)));
    assert_eq!(lines.find(b"0\n23456789a"), Ok(Found::More(12)));
    assert_eq!(lines.find(b"0\n23456789a\n"), Ok(Found::Frame { payload: 0..11, len: 12 }));
    assert_eq!(lines.find(b"0\n"), Ok(Found::Frame { payload: 0..1, len: 2 }), "the next line");
    let mut records = Delimited::new(b"--");
    assert_eq!(records.find(b"0123456789"), Ok(Found::More(11)));
    assert_eq!(records.find(b"0--3456789a"), Ok(Found::More(12)));
    assert_eq!(records.find(b"0--3456789a--"), Ok(Found::Frame { payload: 0..11, len: 13 }));
    assert_eq!(records.find(b"0--"), Ok(Found::Frame { payload: 0..1, len: 3 }), "the next one");
}
