//! What the running callback writes to its own connection: a range of the input, or a cork.

use crate::connection::{Connection, Flags};
use crate::guard::GuardedBytes;

/// Above this capacity the cork is freed after use.
const CORK_KEPT: usize = 256 * 1024;
/// The same for a thread that has one connection.
const CORK_KEPT_BY_ONE: usize = 64 * 1024;
/// Shared bytes below this length are cheaper to copy than to keep.
const COPIED_BELOW: usize = 4 * 1024;

/// The output of the running callback for its own connection.
///
/// While it is one range of the shown input, only the range is remembered, and the bytes leave from
/// the read buffer. Anything else goes, in order, to the cork, one buffer for the whole driver.
/// Large `Bytes` are not copied; they keep their place in the order.
#[derive(Debug)]
pub(crate) struct Output {
    /// The range: `len` bytes of the input from `start`.
    start: usize,
    len: usize,
    /// Bytes that are not in the range; then `len` is 0.
    rest: usize,
    cork: Vec<u8>,
    pieces: Vec<(usize, GuardedBytes)>,
    cork_kept: usize,
}

impl Default for Output {
    fn default() -> Output {
        let (cork, pieces) = (Vec::new(), Vec::new());
        Output { start: 0, len: 0, rest: 0, cork, pieces, cork_kept: CORK_KEPT }
    }
}

/// A part of the output, in order.
pub(crate) enum Part<'a> {
    Copied(&'a [u8]),
    Shared(&'a GuardedBytes),
}

/// The place of `bytes` in `shown`, by two address comparisons.
#[inline(always)]
pub(super) fn place_in(bytes: &[u8], shown: &[u8]) -> Option<usize> {
    let at = (bytes.as_ptr() as usize).wrapping_sub(shown.as_ptr() as usize);
    (at <= shown.len() && bytes.len() <= shown.len() - at).then_some(at)
}

impl Output {
    /// The output of a thread, which has one connection: there are as many corks as connections,
    /// also while those are idle.
    pub(crate) fn of_one_connection() -> Output {
        Output { cork_kept: CORK_KEPT_BY_ONE, ..Output::default() }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len + self.rest
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `bytes`, which may lie in `shown`, when nothing was written before.
    #[inline(always)]
    pub(crate) fn push_first(&mut self, bytes: &[u8], shown: &[u8]) {
        match place_in(bytes, shown) {
            Some(at) => {
                self.start = at;
                self.len = bytes.len();
            }
            None => self.push_copy(bytes),
        }
    }

    #[inline(never)]
    fn push_copy(&mut self, bytes: &[u8]) {
        self.cork.extend_from_slice(bytes);
        self.rest += bytes.len();
    }

    /// Adds `bytes`, which may lie in `shown`.
    pub(crate) fn push(&mut self, bytes: &[u8], shown: &[u8]) {
        if self.is_empty() {
            self.push_first(bytes, shown);
        } else if self.rest == 0 && place_in(bytes, shown) == Some(self.start + self.len) {
            self.len += bytes.len();
        } else {
            self.cork_range(shown);
            self.push_copy(bytes);
        }
    }

    fn cork_range(&mut self, shown: &[u8]) {
        if self.len > 0 {
            self.cork.extend_from_slice(self.range(shown));
            self.rest = self.len;
            self.len = 0;
        }
    }

    /// Lets `write` append to the cork, after everything else. Returns how many bytes it added.
    #[cfg(feature = "http")]
    #[inline(always)]
    pub(crate) fn compose(&mut self, shown: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.cork_range(shown);
        let before = self.cork.len();
        write(&mut self.cork);
        let added = self.cork.len() - before;
        self.rest += added;
        added
    }

    /// Removes the last `count` bytes that were composed.
    #[cfg(feature = "http")]
    pub(crate) fn take_back(&mut self, count: usize) {
        self.cork.truncate(self.cork.len() - count);
        self.rest -= count;
    }

    pub(crate) fn push_shared(&mut self, bytes: GuardedBytes, shown: &[u8]) {
        if bytes.len() < COPIED_BELOW {
            return self.push(&bytes, shown);
        }
        self.cork_range(shown);
        self.rest += bytes.len();
        self.pieces.push((self.cork.len(), bytes));
    }

    /// The range, which is not empty: it was checked against the same input when it was remembered.
    /// An empty range may be a leftover of a longer input.
    #[inline(always)]
    fn range<'a>(&self, shown: &'a [u8]) -> &'a [u8] {
        &shown[self.start..self.start + self.len]
    }

    /// The output as one slice, unless it has shared pieces.
    #[inline(always)]
    pub(crate) fn slice<'a>(&'a self, shown: &'a [u8]) -> Option<&'a [u8]> {
        if self.rest == 0 {
            // An empty range may be one of an earlier input, and lie outside of this one.
            return Some(if self.len == 0 { &[] } else { self.range(shown) });
        }
        self.pieces.is_empty().then_some(&self.cork[..])
    }

    /// The output in order, whatever it is made of.
    pub(crate) fn for_each(&self, shown: &[u8], mut take: impl FnMut(Part<'_>)) {
        if self.len > 0 {
            return take(Part::Copied(self.range(shown)));
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

    /// Shows the output to the tap of `conn`, if it has one.
    pub(crate) fn tap(&self, shown: &[u8], conn: &mut Connection, tick: u64) {
        if conn.flags().any(Flags::TAPPED) {
            self.for_each(shown, |part| match part {
                Part::Copied(bytes) => conn.tap_sent(bytes, tick),
                Part::Shared(bytes) => conn.tap_sent(bytes, tick),
            });
        }
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        if self.rest > 0 {
            self.cork.clear();
            // Less than this is never shared, and never makes the cork grow much.
            if self.rest >= COPIED_BELOW {
                self.give_back();
            }
            self.rest = 0;
        }
    }

    #[inline(never)]
    fn give_back(&mut self) {
        self.pieces.clear();
        self.cork.shrink_to(self.cork_kept);
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
        assert_eq!(output.rest, 0);
        assert_eq!(all(&output, &shown), b"one two ");
    }

    #[test]
    fn an_empty_output_is_empty_whatever_is_shown() {
        let shown = b"one two three".to_vec();
        let mut output = Output::default();
        output.push(&shown[8..], &shown);
        output.clear();
        assert_eq!(all(&output, b"short"), b"");
        output.push(&shown[8..8], &shown);
        assert_eq!(all(&output, b"short"), b"");
    }

    #[test]
    fn anything_else_is_copied_and_order_holds() {
        let shown = b"one two three".to_vec();
        let mut output = Output::default();
        output.push(&shown[4..8], &shown);
        output.push(b"x", &shown);
        output.push(&shown[..4], &shown);
        output.push_shared(GuardedBytes::new(vec![b'B'; COPIED_BELOW]), &shown);
        output.push(b"y", &shown);
        output.push_shared(GuardedBytes::new(&b"small"[..]), &shown);
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
    fn where_a_range_was_means_nothing_to_a_shorter_input() {
        let (longer, shorter) = (b"abcdef".to_vec(), b"a".to_vec());
        let mut output = Output::default();
        output.push(&longer[4..], &longer);
        output.clear();
        assert_eq!(all(&output, &shorter), b"");
        output.push(&longer[5..5], &longer);
        assert_eq!(all(&output, &shorter), b"");
    }

    #[test]
    fn bytes_that_reach_beyond_the_input_are_no_range_of_it() {
        let whole = b"abcdefgh".to_vec();
        let shown = &whole[..4];
        let mut output = Output::default();
        output.push(&whole[2..6], shown);
        output.push(&whole[4..6], shown);
        assert_eq!(all(&output, shown), b"cdefef");
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
    fn shared_bytes_are_kept_from_4_kib_on_and_a_cork_up_to_256_kib() {
        let mut output = Output::default();
        output.push_shared(GuardedBytes::new(vec![1; 4_095]), &[]);
        assert_eq!((output.pieces.len(), output.cork.len()), (0, 4_095));
        output.push_shared(GuardedBytes::new(vec![2; 4_096]), &[]);
        assert_eq!((output.pieces.len(), output.cork.len()), (1, 4_095));
        output.push(&[3; 200_000], &[]);
        output.clear();
        assert!((200_000..=262_144).contains(&output.cork.capacity()));
    }

    #[test]
    fn a_large_cork_is_given_back() {
        let mut output = Output::default();
        output.push(&vec![0; 4 * CORK_KEPT], &[]);
        output.clear();
        assert!(output.cork.capacity() <= CORK_KEPT);
        let mut output = Output::of_one_connection();
        for (len, kept) in [(60_000, 60_000), (65_537, 65_536)] {
            output.push(&vec![0; len], &[]);
            output.clear();
            assert_eq!(output.cork.capacity(), kept);
        }
    }
}
