//! Frames that begin with their length.

use super::{Found, FrameError, Framing, Head};

/// The default maximum of a frame: 1 MiB less 64 KiB, so that a whole frame and the bytes read
/// after it stay below `input_max`.
const MAX: usize = 960 * 1024;

/// Frames that begin with the length of their payload.
///
/// The length does not count its own bytes. `varint` is the one of Protocol Buffers (unsigned
/// LEB128): seven bits a byte, the lowest first, at most ten bytes; it may be written longer than
/// it needs to be.
///
/// ```
/// use lariat::framing::{Found, Framing, LengthPrefixed};
/// let mut frames = LengthPrefixed::u16_be();
/// assert_eq!(frames.find(b"\x00\x03abcde"), Ok(Found::Frame { payload: 2..5, len: 5 }));
/// assert_eq!(frames.find(b"\x00\x03a"), Ok(Found::More(5)));
/// assert_eq!(LengthPrefixed::varint().encode(&[7; 300]).unwrap()[..2], [0xAC, 0x02]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefixed {
    kind: Kind,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// This many bytes, the highest first or the lowest.
    Fixed {
        width: usize,
        big: bool,
    },
    Varint,
}

impl LengthPrefixed {
    const fn new(kind: Kind) -> LengthPrefixed {
        LengthPrefixed { kind, max: MAX }
    }

    /// A length of one byte.
    pub const fn u8() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 1, big: true })
    }

    /// A length of two bytes, the high one first (network byte order).
    pub const fn u16_be() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 2, big: true })
    }

    /// A length of two bytes, the low one first.
    pub const fn u16_le() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 2, big: false })
    }

    /// A length of four bytes, the highest first (network byte order).
    pub const fn u32_be() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 4, big: true })
    }

    /// A length of four bytes, the lowest first.
    pub const fn u32_le() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 4, big: false })
    }

    /// A length of eight bytes, the highest first (network byte order).
    pub const fn u64_be() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 8, big: true })
    }

    /// A length of eight bytes, the lowest first.
    pub const fn u64_le() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Fixed { width: 8, big: false })
    }

    /// A length of one to ten bytes, as Protocol Buffers have it.
    pub const fn varint() -> LengthPrefixed {
        LengthPrefixed::new(Kind::Varint)
    }

    /// Payloads of at most `max` bytes \[960 KiB\]. With more than
    /// [`Limits::input_max`](crate::Limits::input_max) \[1 MiB\] has room for, a connection ends
    /// with [`InputFull`](crate::CloseKind::InputFull).
    #[must_use]
    pub const fn with_max(self, max: usize) -> LengthPrefixed {
        LengthPrefixed { max, ..self }
    }

    /// The length that `bytes` begin with, and how many bytes it takes; None if it is not whole.
    fn parse(&self, bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
        match self.kind {
            Kind::Fixed { width, big } => {
                let Some(prefix) = bytes.get(..width) else { return Ok(None) };
                let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
                let length =
                    if big { prefix.iter().fold(0, add) } else { prefix.iter().rev().fold(0, add) };
                Ok(Some((length, width)))
            }
            Kind::Varint => {
                let mut length = 0_u64;
                for (at, byte) in bytes.iter().take(10).enumerate() {
                    let bits = u64::from(byte & 0x7F);
                    // Only one bit of the tenth byte fits.
                    if at == 9 && *byte > 1 {
                        return Err(FrameError::InvalidLength);
                    }
                    length |= bits << (7 * at);
                    if *byte & 0x80 == 0 {
                        return Ok(Some((length, at + 1)));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Framing for LengthPrefixed {
    fn find(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        let Some((length, width)) = self.parse(bytes)? else {
            return Ok(Found::More(match self.kind {
                Kind::Fixed { width, .. } => width,
                Kind::Varint => bytes.len() + 1,
            }));
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.max {
            return Err(FrameError::TooLong(self.max));
        }
        let len = width.saturating_add(length);
        if bytes.len() < len {
            return Ok(Found::More(len));
        }
        Ok(Found::Frame { payload: width..len, len })
    }

    fn head(&self, payload: &[u8]) -> Result<Head, FrameError> {
        let length = payload.len() as u64;
        let most = match self.kind {
            Kind::Fixed { width: 8, .. } | Kind::Varint => u64::MAX,
            Kind::Fixed { width, .. } => (1 << (8 * width)) - 1,
        };
        let most = most.min(self.max as u64);
        if length > most {
            return Err(FrameError::TooLong(most as usize));
        }
        Ok(match self.kind {
            Kind::Fixed { width, big: true } => Head::new(&length.to_be_bytes()[8 - width..]),
            Kind::Fixed { width, big: false } => Head::new(&length.to_le_bytes()[..width]),
            Kind::Varint => {
                let (mut bytes, mut len, mut left) = ([0; 10], 0, length);
                while left > 0x7F {
                    bytes[len] = left as u8 | 0x80;
                    left >>= 7;
                    len += 1;
                }
                bytes[len] = left as u8;
                Head::new(&bytes[..=len])
            }
        })
    }
}
