//! A stream of frames, or nearly one, in every framing and cut anywhere.
//!
//! What is found is what a decoder finds that has all bytes at once and no state; it does not
//! depend on how they arrived. A payload that can be written is found again, and one that cannot
//! leaves nothing.

use std::cell::RefCell;
use std::rc::Rc;

use lariat::framing::{
    Delimited, FixedSize, FrameError, FrameHandler, Framed, Framing, LengthPrefixed, Lines,
};
use lariat::sim::Probe;
use lariat::{Context, Outcome};

use crate::Script;

/// Runs one script.
///
/// # Panics
///
/// When a rule is broken.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let max = script.pick(&[0, 1, 2, 3, 7, 100, 127, 128, 255, 256, 300, 1000]);
    match script.below(12) {
        0 | 1 => try_out(script, &Form::Lines, max, Lines::new().with_max(max)),
        2 => try_out(script, &Form::Lines, max, Lines::new().with_max(max).crlf()),
        3 | 4 => {
            let delimiter = script.pick(&[&b"\0"[..], b"ab", b"aab", b"\r\n\r\n", b"aaaa"]);
            let framing = Delimited::new(delimiter).with_max(max);
            try_out(script, &Form::Delimited(delimiter), max, framing);
        }
        5 => {
            let size = max.max(1);
            try_out(script, &Form::Size(size), size, FixedSize::new(size));
        }
        6 => {
            let framing = LengthPrefixed::varint().with_max(max);
            try_out(script, &Form::Varint, max, framing);
        }
        _ => {
            let (width, big, framing) = script.pick(&[
                (1, true, LengthPrefixed::u8()),
                (2, true, LengthPrefixed::u16_be()),
                (2, false, LengthPrefixed::u16_le()),
                (4, true, LengthPrefixed::u32_be()),
                (4, false, LengthPrefixed::u32_le()),
                (8, true, LengthPrefixed::u64_be()),
                (8, false, LengthPrefixed::u64_le()),
            ]);
            try_out(script, &Form::Length { width, big }, max, framing.with_max(max));
        }
    }
}

/// A framing, as its documentation describes it.
enum Form {
    Lines,
    Delimited(&'static [u8]),
    Size(usize),
    Length { width: usize, big: bool },
    Varint,
}

/// What becomes of a stream: its frames, and how it ends.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Decoded {
    frames: Vec<Vec<u8>>,
    error: Option<FrameError>,
    /// What never became whole.
    rest: Vec<u8>,
}

fn try_out(mut script: Script, form: &Form, max: usize, framing: impl Framing + Clone + 'static) {
    let stream = stream(&mut script, form, max, &framing);
    if std::env::var_os("LARIAT_TELL").is_some() {
        eprintln!("at most {max}: {}", stream.escape_ascii());
    }
    let expected = form.decode(&stream, max);
    let whole = found(framing.clone(), std::iter::once(&stream[..]));
    assert_eq!(whole, expected, "all at once");
    assert_eq!(found(framing.clone(), stream.chunks(1)), expected, "byte by byte");
    let mut cuts: Vec<usize> = (0..4).map(|_| script.below(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
    assert_eq!(found(framing, parts.into_iter()), expected, "cut at {cuts:?}");
}

/// Frames, most of them good, with some bytes changed, and the beginning of another.
fn stream(script: &mut Script, form: &Form, max: usize, framing: &impl Framing) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..script.below(6) {
        let length = match (form, script.below(5)) {
            (Form::Size(size), 1..) => *size,
            (_, 0) => max,
            (_, 1) => max + 1,
            _ => script.below(max + 1),
        };
        let letters = script.pick(&[&b"ab"[..], b"\r\n\0", b"x", b"a"]);
        let payload: Vec<u8> = (0..length).map(|_| script.pick(letters)).collect();
        match framing.encode(&payload) {
            Ok(frame) => {
                let again = form.decode(&frame, max);
                assert_eq!(again.frames, [&payload[..]], "what is written is found again");
                assert!(again.error.is_none() && again.rest.is_empty());
                stream.extend(frame);
            }
            Err(error) => assert!(!form.takes(&payload, max), "{error} for {payload:?}"),
        }
    }
    for _ in 0..script.below(3) {
        let at = script.below(stream.len());
        if let Some(byte) = stream.get_mut(at) {
            *byte = script.byte();
        }
    }
    stream.extend((0..script.below(16)).map(|_| script.byte()));
    stream
}

impl Form {
    /// Whether a payload can be a frame.
    fn takes(&self, payload: &[u8], max: usize) -> bool {
        let fits = payload.len() <= max;
        match self {
            Form::Lines => fits && !payload.contains(&b'\n') && payload.last() != Some(&b'\r'),
            Form::Delimited(delimiter) => {
                let whole = [payload, delimiter].concat();
                let first = whole.windows(delimiter.len()).position(|part| part == *delimiter);
                fits && first == Some(payload.len())
            }
            Form::Size(size) => payload.len() == *size,
            Form::Length { width, .. } => {
                fits && (*width == 8 || payload.len() >> (8 * width) == 0)
            }
            Form::Varint => fits,
        }
    }

    /// The frames of a whole stream, found by the shortest code that finds them.
    fn decode(&self, mut stream: &[u8], max: usize) -> Decoded {
        let mut decoded = Decoded::default();
        loop {
            if stream.is_empty() {
                return decoded;
            }
            match self.first(stream, max) {
                Ok(Some((payload, len))) => {
                    decoded.frames.push(payload.to_vec());
                    stream = &stream[len..];
                }
                Ok(None) => {
                    decoded.rest = stream.to_vec();
                    return decoded;
                }
                Err(error) => {
                    decoded.error = Some(error);
                    return decoded;
                }
            }
        }
    }

    /// The first frame, and how long it is in all.
    fn first<'a>(
        &self,
        stream: &'a [u8],
        max: usize,
    ) -> Result<Option<(&'a [u8], usize)>, FrameError> {
        let within = |len: usize| if len > max { Err(FrameError::TooLong(max)) } else { Ok(()) };
        match self {
            Form::Lines => {
                let end = stream.iter().position(|byte| *byte == b'\n');
                let line = &stream[..end.unwrap_or(stream.len())];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                within(line.len())?;
                Ok(end.map(|end| (line, end + 1)))
            }
            Form::Delimited(delimiter) => {
                let width = delimiter.len();
                let end = stream.windows(width).position(|part| part == *delimiter);
                // What may still be the beginning of a delimiter is no payload yet.
                within(end.unwrap_or((stream.len() + 1).saturating_sub(width)))?;
                Ok(end.map(|end| (&stream[..end], end + width)))
            }
            Form::Size(size) => Ok(stream.get(..*size).map(|frame| (frame, *size))),
            Form::Length { width, big } => {
                let Some(prefix) = stream.get(..*width) else { return Ok(None) };
                let mut wide = [0; 16];
                for (at, byte) in prefix.iter().enumerate() {
                    wide[if *big { width - 1 - at } else { at }] = *byte;
                }
                let length = usize::try_from(u128::from_le_bytes(wide)).unwrap_or(usize::MAX);
                within(length)?;
                let frame = stream.get(*width..width + length);
                Ok(frame.map(|payload| (payload, width + length)))
            }
            Form::Varint => {
                let Some(last) = stream.iter().take(10).position(|byte| byte & 0x80 == 0) else {
                    let invalid = stream.len() >= 10;
                    return if invalid { Err(FrameError::InvalidLength) } else { Ok(None) };
                };
                let add = |sum: u128, byte: &u8| sum << 7 | u128::from(byte & 0x7F);
                let length = stream[..=last].iter().rev().fold(0, add);
                if length > u128::from(u64::MAX) {
                    return Err(FrameError::InvalidLength);
                }
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                within(length)?;
                let from = last + 1;
                let frame = stream.get(from..from + length);
                Ok(frame.map(|payload| (payload, from + length)))
            }
        }
    }
}

/// Keeps what it is shown.
struct Keeps(Rc<RefCell<Decoded>>);

impl FrameHandler for Keeps {
    fn frame(&mut self, _: &mut Context<'_>, payload: &[u8]) -> Outcome {
        self.0.borrow_mut().frames.push(payload.to_vec());
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &[u8]) -> Outcome {
        self.0.borrow_mut().rest = rest.to_vec();
        cx.close();
        Ok(())
    }
}

/// What lariat finds when the stream arrives in these parts.
fn found<'a>(framing: impl Framing + 'static, parts: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let decoded: Rc<RefCell<Decoded>> = Rc::default();
    let mut probe = Probe::new(Framed::new(framing, Keeps(Rc::clone(&decoded))));
    for part in parts {
        if probe.closed().is_none() {
            probe.receive(part);
        }
    }
    if probe.closed().is_none() {
        probe.finish();
    }
    let reason = probe.closed().expect("it ends with the stream");
    let error = reason.error().and_then(|error| error.downcast_ref::<FrameError>());
    decoded.borrow_mut().error = error.copied();
    decoded.take()
}
