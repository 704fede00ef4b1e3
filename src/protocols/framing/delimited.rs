//! Frames that end with a delimiter, and those that are all of one size.

use super::{Found, FrameError, Framing, Head};
use crate::protocol::Input;

/// The default maximum of a line or delimited frame.
const MAX: usize = 64 * 1024;

/// Lines: a frame is what precedes `\n`, without a `\r` before it. What [`write`](Framing::write)
/// writes ends with `\n`.
///
/// ```
/// use lariat::framing::{Found, Framing, Lines};
/// let mut lines = Lines::new();
/// assert_eq!(lines.find(b"one\r\ntwo"), Ok(Found::Frame { payload: 0..3, len: 5 }));
/// assert_eq!(lines.find(b"two"), Ok(Found::More(4)));
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    max: usize,
    crlf: bool,
    /// Bytes that were searched without a result.
    searched: usize,
}

impl Lines {
    /// Lines of at most 64 KiB, without their ends.
    pub const fn new() -> Lines {
        Lines { max: MAX, crlf: false, searched: 0 }
    }

    /// Lines of at most `max` bytes, without their ends.
    #[must_use]
    pub const fn with_max(self, max: usize) -> Lines {
        Lines { max, ..self }
    }

    /// Writes lines that end with `\r\n`, as SMTP and IRC require. Reading accepts both ends in any
    /// case.
    #[must_use]
    pub const fn crlf(self) -> Lines {
        Lines { crlf: true, ..self }
    }
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::new()
    }
}

impl Framing for Lines {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        let Some(at) = bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
            // The last byte may be the `\r` of an end.
            let line = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            self.searched = bytes.len();
            return within(line.len(), self.max).map(|_| Found::More(bytes.len() + 1));
        };
        let end = self.searched + at;
        self.searched = 0;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]).len();
        within(line, self.max).map(|_| Found::Frame { payload: 0..line, len: end + 1 })
    }

    fn head(&self, payload: &[u8]) -> Result<Head, FrameError> {
        within(payload.len(), self.max)?;
        // A reader takes a `\r` at the end for a part of the delimiter.
        if payload.contains(&b'\n') || payload.last() == Some(&b'\r') {
            return Err(FrameError::InvalidPayload);
        }
        Ok(Head::default())
    }

    fn tail(&self) -> &[u8] {
        if self.crlf { b"\r\n" } else { b"\n" }
    }
}

impl<'a> Input<'a> {
    /// Consumes the next line of at most `max` bytes, and returns it without its end, `\n` or
    /// `\r\n`. None: it is not whole, and `data` runs again when more has arrived. For protocols
    /// that are not [`Framed`](super::Framed). Each call looks at the whole of what has come of a
    /// line, so keep `max` at a few KiB, or use [`Lines`], which looks at each byte once.
    ///
    /// ```
    /// use lariat::{Context, Input, Outcome, Protocol};
    ///
    /// struct Shout;
    /// impl Protocol for Shout {
    ///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         while !cx.is_congested() {
    ///             let Some(line) = input.line(1024)? else { break };
    ///             cx.write(&line.to_ascii_uppercase());
    ///             cx.write(b"\n");
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// let mut probe = lariat::sim::Probe::new(Shout);
    /// probe.receive(b"one\r\ntwo\nth");
    /// assert_eq!(probe.sent(), b"ONE\nTWO\n");
    /// ```
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`].
    pub fn line(&mut self, max: usize) -> Result<Option<&'a [u8]>, FrameError> {
        let bytes = self.shown();
        match Lines::new().with_max(max).find(bytes)? {
            Found::Frame { payload, len } => {
                self.consume(len);
                Ok(Some(&bytes[payload]))
            }
            Found::More(count) => {
                self.need(count);
                Ok(None)
            }
        }
    }
}

fn within(len: usize, max: usize) -> Result<(), FrameError> {
    if len > max { Err(FrameError::TooLong(max)) } else { Ok(()) }
}

/// Frames that end with a delimiter of one or more bytes, which is not a part of the payload.
///
/// ```
/// use lariat::framing::{Delimited, Found, Framing};
/// let mut records = Delimited::new(b"\0");
/// assert_eq!(records.find(b"one\0two"), Ok(Found::Frame { payload: 0..3, len: 4 }));
/// ```
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Box<[u8]>,
    max: usize,
    /// Where a delimiter may begin at the earliest.
    searched: usize,
}

impl Delimited {
    /// Frames of at most 64 KiB, without their delimiters.
    ///
    /// # Panics
    ///
    /// When the delimiter is empty.
    pub fn new(delimiter: impl AsRef<[u8]>) -> Delimited {
        let delimiter: Box<[u8]> = delimiter.as_ref().into();
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        Delimited { delimiter, max: MAX, searched: 0 }
    }

    /// Frames of at most `max` bytes, without their delimiters.
    #[must_use]
    pub fn with_max(self, max: usize) -> Delimited {
        Delimited { max, ..self }
    }

    /// Where the first delimiter begins, and else where one that is not whole could begin.
    fn search(&self, bytes: &[u8]) -> Result<usize, usize> {
        let (first, width) = (self.delimiter[0], self.delimiter.len());
        let mut at = self.searched;
        while at + width <= bytes.len() {
            match bytes[at..bytes.len() - width + 1].iter().position(|byte| *byte == first) {
                None => break,
                Some(more) if bytes[at + more..].starts_with(&self.delimiter) => {
                    return Ok(at + more);
                }
                Some(more) => at += more + 1,
            }
        }
        Err(self.searched.max((bytes.len() + 1).saturating_sub(width)))
    }
}

impl Framing for Delimited {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        match self.search(bytes) {
            Ok(end) => {
                self.searched = 0;
                within(end, self.max)?;
                Ok(Found::Frame { payload: 0..end, len: end + self.delimiter.len() })
            }
            Err(searched) => {
                self.searched = searched;
                within(searched, self.max)?;
                Ok(Found::More(bytes.len() + 1))
            }
        }
    }

    fn head(&self, payload: &[u8]) -> Result<Head, FrameError> {
        within(payload.len(), self.max)?;
        // A delimiter may also begin in the payload and end in the delimiter itself.
        let whole = [payload, &self.delimiter].concat();
        let fresh = Delimited { searched: 0, ..self.clone() };
        match fresh.search(&whole) {
            Ok(at) if at == payload.len() => Ok(Head::default()),
            _ => Err(FrameError::InvalidPayload),
        }
    }

    fn tail(&self) -> &[u8] {
        &self.delimiter
    }
}

/// Frames that all have the same number of bytes.
///
/// ```
/// use lariat::framing::{FixedSize, Found, Framing};
/// let mut blocks = FixedSize::new(4);
/// assert_eq!(blocks.find(b"onetwo"), Ok(Found::Frame { payload: 0..4, len: 4 }));
/// assert_eq!(blocks.find(b"wo"), Ok(Found::More(4)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FixedSize {
    size: usize,
}

impl FixedSize {
    /// Frames of `size` bytes, which have to be fewer than
    /// [`Limits::input_max`](crate::Limits::input_max) \[1 MiB\].
    ///
    /// # Panics
    ///
    /// When `size` is 0.
    pub const fn new(size: usize) -> FixedSize {
        assert!(size > 0, "a frame has at least one byte");
        FixedSize { size }
    }
}

impl Framing for FixedSize {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        let size = self.size;
        if bytes.len() < size {
            return Ok(Found::More(size));
        }
        Ok(Found::Frame { payload: 0..size, len: size })
    }

    fn head(&self, payload: &[u8]) -> Result<Head, FrameError> {
        if payload.len() == self.size {
            Ok(Head::default())
        } else {
            Err(FrameError::InvalidPayload)
        }
    }
}
