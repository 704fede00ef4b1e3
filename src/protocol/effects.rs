//! What a callback wished for, in the order it did.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Protocol;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;

/// Above this capacity the cork is given back after use.
const CORK_KEPT: usize = 256 * 1024;
/// Shared bytes below this length are cheaper copied than kept.
const COPIED_BELOW: usize = 4 * 1024;

/// The output of the running callback for its own connection.
///
/// As long as it is one range of the input being shown, only the range is remembered and the bytes
/// leave from the read buffer. Anything else goes, in order, to the cork, one buffer for the whole
/// driver. Large `Bytes` stay what they are, at their place in the cork.
#[derive(Debug, Default)]
pub(crate) struct Output {
    range: Range<usize>,
    cork: Vec<u8>,
    pieces: Vec<(usize, Bytes)>,
    shared_len: usize,
}

/// A part of the output, in order.
pub(crate) enum Part<'a> {
    Copied(&'a [u8]),
    Shared(&'a Bytes),
}

impl Output {
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.range.len() + self.cork.len() + self.shared_len
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `bytes`, which may lie in `shown`.
    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: &[u8], shown: &[u8]) {
        // Two address comparisons tell whether the slice lies in the input.
        let at = (bytes.as_ptr() as usize).wrapping_sub(shown.as_ptr() as usize);
        if at <= shown.len()
            && bytes.len() <= shown.len() - at
            && self.cork.is_empty()
            && self.shared_len == 0
        {
            if self.range.is_empty() {
                self.range = at..at + bytes.len();
                return;
            }
            if self.range.end == at {
                self.range.end += bytes.len();
                return;
            }
        }
        self.push_copy(bytes, shown);
    }

    fn push_copy(&mut self, bytes: &[u8], shown: &[u8]) {
        self.cork_range(shown);
        self.cork.extend_from_slice(bytes);
    }

    fn cork_range(&mut self, shown: &[u8]) {
        if !self.range.is_empty() {
            self.cork.extend_from_slice(&shown[self.range.clone()]);
            self.range = 0..0;
        }
    }

    pub(crate) fn push_shared(&mut self, bytes: Bytes, shown: &[u8]) {
        if bytes.len() < COPIED_BELOW {
            return self.push_copy(&bytes, shown);
        }
        self.cork_range(shown);
        self.shared_len += bytes.len();
        self.pieces.push((self.cork.len(), bytes));
    }

    /// The output as one slice, unless it has shared pieces.
    #[inline(always)]
    pub(crate) fn slice<'a>(&'a self, shown: &'a [u8]) -> Option<&'a [u8]> {
        if self.shared_len > 0 {
            return None;
        }
        if self.cork.is_empty() {
            // The range was checked against the same input when it was remembered.
            return Some(shown.get(self.range.clone()).unwrap_or(&[]));
        }
        Some(&self.cork)
    }

    /// The output in order, whatever it is made of.
    pub(crate) fn for_each(&self, shown: &[u8], mut take: impl FnMut(Part<'_>)) {
        if !self.range.is_empty() {
            return take(Part::Copied(&shown[self.range.clone()]));
        }
        let mut from = 0;
        for (at, bytes) in &self.pieces {
            if from < *at {
                take(Part::Copied(&self.cork[from..*at]));
            }
            take(Part::Shared(bytes));
            from = *at;
        }
        if from < self.cork.len() {
            take(Part::Copied(&self.cork[from..]));
        }
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.range = 0..0;
        if !self.cork.is_empty() || self.shared_len > 0 {
            self.clear_cork();
        }
    }

    #[inline(always)]
    fn clear_cork(&mut self) {
        self.cork.clear();
        if self.shared_len > 0 || self.cork.capacity() > CORK_KEPT {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&mut self) {
        self.pieces.clear();
        self.shared_len = 0;
        self.cork.shrink_to(CORK_KEPT);
    }
}

/// Bytes for another connection.
#[derive(Debug)]
pub(crate) enum Content {
    /// A range of [`Effects::bytes`].
    Copied(Range<usize>),
    Shared(Bytes),
}

/// A wish that concerns anything but the own connection.
pub(crate) enum Effect {
    Write {
        to: ConnId,
        content: Content,
        caused: bool,
    },
    ShutdownWrite(ConnId),
    Close(ConnId),
    Abort(ConnId),
    Notify {
        to: ConnId,
        note: Note,
    },
    Connect {
        id: ConnId,
        addr: SocketAddr,
        limits: Option<Arc<Limits>>,
        protocol: Box<dyn Protocol>,
    },
    StopListening(ListenerId),
    Stop,
}

/// The protocol that is to take over.
pub(crate) struct Successor {
    pub(crate) protocol: Box<dyn Protocol>,
    /// Whether unread input is fed to its filter.
    pub(crate) feed: bool,
}

/// The wishes of one callback, or of code outside of callbacks, in order.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) list: Vec<Effect>,
    /// The bytes that the list's writes have copied.
    pub(crate) bytes: Vec<u8>,
    pub(crate) successor: Option<Successor>,
}

impl Effects {
    /// Whether anything is to be applied. The last protocol put to replace another counts too.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.successor.is_none()
    }

    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Content {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Content::Copied(from..self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(output: &Output, shown: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        output.for_each(shown, |part| match part {
            Part::Copied(bytes) => whole.extend_from_slice(bytes),
            Part::Shared(bytes) => whole.extend_from_slice(bytes),
        });
        if let Some(slice) = output.slice(shown) {
            assert_eq!(slice, whole);
        }
        assert_eq!(output.len(), whole.len());
        whole
    }

    #[test]
    fn adjacent_slices_of_the_input_stay_one_range() {
        let shown = b"one two three".to_vec();
        let mut output = Output::default();
        output.push(&shown[..4], &shown);
        output.push(&shown[4..8], &shown);
        assert!(output.cork.is_empty());
        assert_eq!(all(&output, &shown), b"one two ");
    }

    #[test]
    fn anything_else_is_copied_and_order_holds() {
        let shown = b"one two three".to_vec();
        let mut output = Output::default();
        output.push(&shown[4..8], &shown);
        output.push(b"x", &shown);
        output.push(&shown[..4], &shown);
        output.push_shared(Bytes::from(vec![b'B'; COPIED_BELOW]), &shown);
        output.push(b"y", &shown);
        output.push_shared(Bytes::from_static(b"small"), &shown);
        let mut expected = b"two xone ".to_vec();
        expected.extend(vec![b'B'; COPIED_BELOW]);
        expected.extend(b"ysmall");
        assert_eq!(all(&output, &shown), expected);
        output.clear();
        assert!(output.is_empty() && output.pieces.is_empty());
        assert_eq!(all(&output, &shown), b"");
    }

    #[test]
    fn a_range_out_of_order_is_not_mistaken_for_an_extension() {
        let shown = b"abcdef".to_vec();
        let mut output = Output::default();
        output.push(&shown[2..4], &shown);
        output.push(&shown[0..2], &shown);
        assert_eq!(all(&output, &shown), b"cdab");
    }

    #[test]
    fn an_empty_slice_changes_nothing() {
        let shown = b"abc".to_vec();
        let mut output = Output::default();
        output.push(&[], &shown);
        output.push(&shown[1..1], &shown);
        assert!(output.is_empty());
        output.push(&shown[..2], &shown);
        output.push(&[], &shown);
        assert_eq!(all(&output, &shown), b"ab");
    }

    #[test]
    fn a_large_cork_is_given_back() {
        let mut output = Output::default();
        output.push(&vec![0; 4 * CORK_KEPT], &[]);
        output.clear();
        assert!(output.cork.capacity() <= CORK_KEPT);
    }
}
