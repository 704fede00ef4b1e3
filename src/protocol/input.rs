//! Unread bytes, as a callback sees them.

use std::ops::Deref;

use bytes::{Buf, Bytes};

/// The unread bytes of a connection, all of them.
///
/// It derefs to `[u8]`. [Consumed](Input::consume) bytes are gone; the rest stays with the
/// connection and is shown again, as [`Protocol::data`](crate::Protocol::data) says.
/// `cx.write(input)` sends from the read buffer without a copy.
///
/// ```
/// use lariat::{Context, Input, Outcome, Protocol};
///
/// /// Frames of a length byte and that many bytes.
/// struct Frames;
///
/// impl Protocol for Frames {
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         while let Some(&length) = input.first() {
///             let frame = 1 + usize::from(length);
///             if input.len() < frame {
///                 input.need(frame);
///                 break;
///             }
///             cx.write(&input[..frame]);
///             input.consume(frame);
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    need: usize,
}

impl<'a> Input<'a> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, need: 0 }
    }

    /// Marks the first `count` bytes as done.
    ///
    /// # Panics
    ///
    /// When fewer bytes are unread.
    #[inline(always)]
    #[track_caller]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.bytes.len(), "consumed more bytes than are unread");
        self.bytes = &self.bytes[count..];
    }

    /// Marks all bytes as done.
    #[inline(always)]
    pub fn consume_all(&mut self) {
        self.bytes = &self.bytes[self.bytes.len()..];
    }

    /// Consumes the first `count` bytes and returns a copy of them.
    ///
    /// # Panics
    ///
    /// When fewer bytes are unread.
    #[track_caller]
    pub fn split_to(&mut self, count: usize) -> Bytes {
        assert!(count <= self.bytes.len(), "split off more bytes than are unread");
        let split = Bytes::copy_from_slice(&self.bytes[..count]);
        self.consume(count);
        split
    }

    /// Consumes all bytes and returns a copy of them.
    pub fn split_all(&mut self) -> Bytes {
        self.split_to(self.bytes.len())
    }

    /// Keeps `data` away until `count` bytes are unread or FIN has come. Holds until the next
    /// `data`; where so many are left unread already, it keeps nothing away. Without it, a peer
    /// that sends single bytes makes a protocol scan the same beginning again and again.
    ///
    /// A `count` above [`Limits::input_max`](crate::Limits::input_max) ends the connection with
    /// [`InputFull`](crate::CloseKind::InputFull).
    pub fn need(&mut self, count: usize) {
        self.need = count;
    }

    /// The unread bytes, for as long as they are shown: `consume` does not end the borrow.
    #[inline(always)]
    pub(crate) fn shown(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    #[inline(always)]
    pub(crate) fn needed(&self) -> usize {
        self.need
    }
}

impl Deref for Input<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Input<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl Buf for Input<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumed_bytes_are_gone_and_the_rest_stays() {
        let mut input = Input::new(b"abcdef");
        input.consume(2);
        assert_eq!(&*input, b"cdef");
        assert_eq!(input.split_to(1), &b"c"[..]);
        assert_eq!(input.get_u8(), b'd');
        assert_eq!(input.split_all(), &b"ef"[..]);
        assert!(input.is_empty());
        input.consume_all();
    }

    #[test]
    #[should_panic(expected = "consumed more bytes than are unread")]
    fn consuming_more_than_there_is_panics() {
        Input::new(b"ab").consume(3);
    }
}
