//! Framing: a stream of bytes as a sequence of messages.
//!
//! TCP and Unix streams have no borders between messages: what one end writes at once may arrive in
//! pieces, or together with the next. A [`Framing`] says where a message ends, [`Framed`] is the
//! protocol around it, and a [`FrameHandler`] gets whole messages, however they arrived.
//!
//! | framing | a frame is | longest, by default |
//! | --- | --- | --- |
//! | [`Lines`] | a line, ended by `\n` or `\r\n` | 64 KiB |
//! | [`Delimited`] | everything up to a delimiter of your own | 64 KiB |
//! | [`LengthPrefixed`] | a length of 1, 2, 4 or 8 bytes or a varint, and as many bytes | 960 KiB |
//! | [`FixedSize`] | a fixed number of bytes | |
//!
//! All are linear in their input, also when it arrives one byte at a time. A frame longer than the
//! maximum ends the connection with [`FrameError::TooLong`]. The maximum has to be less than
//! [`Limits::input_max`](crate::Limits::input_max) \[1 MiB\], which bounds what waits for the rest
//! of its frame. For a format of your own implement [`Framing`].
//!
//! ```
//! use lariat::framing::{FrameHandler, Framed, Framing, Lines};
//! use lariat::{Context, Outcome};
//!
//! /// Answers each line with its length.
//! struct Lengths;
//!
//! impl FrameHandler for Lengths {
//!     fn frame(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
//!         Lines::new().write(cx, line.len().to_string().as_bytes())?;
//!         Ok(())
//!     }
//! }
//!
//! lariat::sim::every_split(|| Framed::new(Lines::new(), Lengths), b"one\r\nthree\nhalf");
//! let mut probe = lariat::sim::Probe::new(Framed::new(Lines::new(), Lengths));
//! probe.receive(b"one\r\nthree\nhalf");
//! assert_eq!(probe.sent(), b"3\n5\n");
//! ```

mod delimited;
mod length;

use std::error::Error;
use std::fmt;
use std::ops::Range;

use crate::note::Note;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::timer::Timer;

pub use delimited::{Delimited, FixedSize, Lines};
pub use length::LengthPrefixed;

/// Where frames begin and end.
///
/// A value belongs to one connection. It may keep what it has found out about the arriving frame,
/// so that it need not look at the same bytes again. [`write`](Framing::write) does not use that:
/// any value with the same settings works.
///
/// Your own format needs [`find`](Framing::find). It needs [`head`](Framing::head) and
/// [`tail`](Framing::tail) too if frames are written:
///
/// ```
/// use lariat::framing::{Found, FrameError, Framing, Head};
///
/// /// A length in decimal digits, a colon, the payload and a comma, such as `5:hello,`.
/// #[derive(Clone)]
/// struct Netstrings;
///
/// impl Framing for Netstrings {
///     fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
///         let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
///         match bytes.get(digits) {
///             _ if digits > 5 => return Err(FrameError::TooLong(99_999)),
///             None => return Ok(Found::More(bytes.len() + 1)),
///             Some(b':') if digits > 0 => {}
///             Some(_) => return Err(FrameError::InvalidLength),
///         }
///         let add = |sum, digit: &u8| sum * 10 + usize::from(digit - b'0');
///         let length = bytes[..digits].iter().fold(0, add);
///         let from = digits + 1;
///         let to = from + length;
///         match bytes.get(to) {
///             None => Ok(Found::More(to + 1)),
///             Some(b',') => Ok(Found::Frame { payload: from..to, len: to + 1 }),
///             Some(_) => Err(FrameError::InvalidLength),
///         }
///     }
///
///     fn head(&self, payload: &[u8]) -> Result<Head, FrameError> {
///         match payload.len() {
///             length @ ..100_000 => Ok(Head::new(format!("{length}:").as_bytes())),
///             _ => Err(FrameError::TooLong(99_999)),
///         }
///     }
///
///     fn tail(&self) -> &[u8] {
///         b","
///     }
/// }
///
/// assert_eq!(Netstrings.find(b"5:hello,0:,"), Ok(Found::Frame { payload: 2..7, len: 8 }));
/// assert_eq!(Netstrings.find(b"5:he"), Ok(Found::More(8)));
/// assert_eq!(Netstrings.encode(b"hello").unwrap(), b"5:hello,");
/// ```
pub trait Framing {
    /// Looks for a whole frame at the beginning of `bytes`.
    ///
    /// Until a frame is found, `bytes` begins at the same frame as in the call before and has more
    /// bytes. Then it begins after that frame.
    ///
    /// # Errors
    ///
    /// The bytes are no frame, or one that is too long.
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError>;

    /// The bytes before `payload` in its frame. The default is none.
    ///
    /// # Errors
    ///
    /// The payload cannot be a frame.
    fn head(&self, payload: &[u8]) -> Result<Head, FrameError> {
        let _ = payload;
        Ok(Head::default())
    }

    /// The bytes after the payload in each frame. The default is none.
    fn tail(&self) -> &[u8] {
        &[]
    }

    /// Writes `payload` as a frame to the connection of the callback.
    ///
    /// # Errors
    ///
    /// The payload cannot be a frame: it is too long, or has the delimiter in it. Nothing is
    /// written then.
    fn write(&self, cx: &mut Context<'_>, payload: &[u8]) -> Result<(), FrameError> {
        let head = self.head(payload)?;
        cx.write(&head);
        cx.write(payload);
        cx.write(self.tail());
        Ok(())
    }

    /// The whole frame of `payload`, for a write to another connection, or from another thread.
    ///
    /// # Errors
    ///
    /// As [`write`](Framing::write).
    ///
    /// ```
    /// use lariat::framing::{Framing, LengthPrefixed};
    /// assert_eq!(LengthPrefixed::u16_be().encode(b"abc").unwrap(), b"\x00\x03abc");
    /// ```
    fn encode(&self, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
        Ok([&self.head(payload)?, payload, self.tail()].concat())
    }
}

/// What a [`Framing`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole frame.
    Frame {
        /// Where in the bytes its payload lies.
        payload: Range<usize>,
        /// Bytes of the whole frame, from the first one on: at least as many as the payload's end,
        /// and at least one. [`Framed`] panics at a frame of 0 bytes.
        len: usize,
    },
    /// A frame is not whole yet: at least this many bytes, counted from its first one, are needed.
    More(usize),
}

/// The bytes before the payload of a frame: up to 10.
///
/// ```
/// use lariat::framing::Head;
/// assert_eq!(&*Head::new(&[1, 2]), &[1, 2]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; 10],
    len: u8,
}

impl Head {
    /// These bytes.
    ///
    /// # Panics
    ///
    /// For more than 10.
    pub fn new(bytes: &[u8]) -> Head {
        let mut head = Head { bytes: [0; 10], len: bytes.len() as u8 };
        head.bytes[..bytes.len()].copy_from_slice(bytes);
        head
    }
}

impl std::ops::Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// It is longer than the maximum, which is this many bytes.
    TooLong(usize),
    /// Its length is written in a way that the format does not have.
    InvalidLength,
    /// A payload that is to be written has the delimiter in it, or not the fixed size.
    InvalidPayload,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong(max) => write!(f, "a frame is longer than {max} bytes"),
            FrameError::InvalidLength => f.write_str("the length of a frame is invalid"),
            FrameError::InvalidPayload => f.write_str("the payload does not fit into a frame"),
        }
    }
}

impl Error for FrameError {}

/// The callbacks of [`Protocol`] with whole frames instead of bytes, run by [`Framed`].
/// All but [`frame`](FrameHandler::frame) have the defaults of [`Protocol`].
pub trait FrameHandler {
    /// A frame has arrived. Frames that wait while the output is congested are shown once it has
    /// drained.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn frame(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Outcome;

    /// The connection is open.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// The peer has finished sending. `rest` is the beginning of a frame that never became whole,
    /// and empty if all were. The default closes.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn eof(&mut self, cx: &mut Context<'_>, rest: &[u8]) -> Outcome {
        let _ = rest;
        cx.close();
        Ok(())
    }

    /// Output that was congested has drained.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// A timer is due. The default closes.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        let _ = timer;
        cx.close();
        Ok(())
    }

    /// A note has come.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let _ = (cx, note);
        Ok(())
    }

    /// The driver shuts down. The default closes.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.close();
        Ok(())
    }

    /// The connection has ended.
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let _ = (cx, reason);
    }
}

/// The protocol of a [`FrameHandler`] under a [`Framing`].
#[derive(Debug)]
pub struct Framed<F, H> {
    framing: F,
    handler: H,
}

impl<F: Framing, H: FrameHandler> Framed<F, H> {
    /// `handler` gets the frames that `framing` finds.
    pub fn new(framing: F, handler: H) -> Framed<F, H> {
        Framed { framing, handler }
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The handler.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Shows whole frames until one asks for a pause or an end, or answers congest the output. The
    /// rest is left, and shown again when that is over.
    fn show(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        while !input.is_empty() && cx.takes_input() {
            let bytes = input.shown();
            match self.framing.find(bytes)? {
                Found::Frame { payload, len } => {
                    // It would be found for ever, and the driver would run nothing else.
                    assert!(len > 0, "a Framing has found a frame of no bytes");
                    input.consume(len);
                    self.handler.frame(cx, &bytes[payload])?;
                }
                Found::More(count) => {
                    input.need(count);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl<F: Framing, H: FrameHandler> Protocol for Framed<F, H> {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.handler.opened(cx)
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        self.show(cx, input)
    }

    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        self.handler.eof(cx, rest)
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.handler.drained(cx)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        self.handler.timeout(cx, timer)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        self.handler.notified(cx, note)
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.handler.stopping(cx)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.handler.closed(cx, reason);
    }
}
