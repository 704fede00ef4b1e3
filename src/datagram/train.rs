//! Equal datagrams to one receiver, which leave with one call where the system can do that.

use crate::endpoint::Endpoint;

/// The bytes of all of them: what an IPv4 datagram can carry.
const BYTES_MAX: usize = 65_507;

/// What follows a datagram that the system has taken. It keeps its buffer.
#[derive(Debug, Default)]
pub(super) struct Train {
    to: Option<Endpoint>,
    size: usize,
    /// Whether one more may follow.
    open: bool,
    pub(super) count: usize,
    bytes: Vec<u8>,
}

impl Train {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The size of each but the last, which may be shorter.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn to(&self) -> Option<&Endpoint> {
        self.to.as_ref()
    }

    /// A datagram of this size has left. Of empty ones the system makes no train.
    pub(super) fn begin(&mut self, size: usize, to: Option<&Endpoint>) {
        self.to = to.copied();
        self.size = size;
        self.open = size > 0;
    }

    /// Takes a datagram in, of which there may be `most`; false for one that does not follow.
    pub(super) fn take(&mut self, bytes: &[u8], to: Option<&Endpoint>, most: usize) -> bool {
        let fits = !bytes.is_empty() && bytes.len() <= self.size;
        let room = self.count < most && self.bytes.len() + bytes.len() <= BYTES_MAX;
        if !(self.open && fits && room) || self.to() != to {
            return false;
        }
        self.open = bytes.len() == self.size;
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// Nothing follows any more, and nothing waits. Returns how many did.
    pub(super) fn clear(&mut self) -> u64 {
        self.open = false;
        self.bytes.clear();
        std::mem::take(&mut self.count) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Endpoint {
        ([127, 0, 0, 1], port).into()
    }

    fn train(size: usize) -> Train {
        let mut train = Train::default();
        train.begin(size, Some(&to(1)));
        train
    }

    #[test]
    fn equal_datagrams_to_one_receiver_follow_and_a_shorter_one_is_the_last() {
        let mut train = train(3);
        assert!(!train.take(b"abc", Some(&to(2)), 64) && !train.take(b"abc", None, 64));
        assert!(!train.take(b"abcd", Some(&to(1)), 64) && !train.take(b"", Some(&to(1)), 64));
        assert!(train.take(b"abc", Some(&to(1)), 64) && train.take(b"de", Some(&to(1)), 64));
        assert!(!train.take(b"fg", Some(&to(1)), 64), "the last one was shorter");
        assert_eq!((train.bytes(), train.size(), train.count), (&b"abcde"[..], 3, 2));
        assert_eq!((train.clear(), train.is_empty(), train.bytes().len()), (2, true, 0));
        assert!(!train.take(b"abc", Some(&to(1)), 64), "it has to begin again");
    }

    #[test]
    fn there_are_as_many_as_the_system_takes_and_not_more_bytes_than_a_datagram() {
        let mut few = train(1);
        assert_eq!((0..5).filter(|_| few.take(b"x", Some(&to(1)), 3)).count(), 3);
        let mut long = train(BYTES_MAX / 2);
        let half = vec![7; BYTES_MAX / 2];
        assert!(long.take(&half, Some(&to(1)), 64) && long.take(&half, Some(&to(1)), 64));
        assert!(long.take(b"x", Some(&to(1)), 64), "at the bound");
        let mut long = train(BYTES_MAX / 2);
        assert!(long.take(&half, Some(&to(1)), 64) && long.take(&half, Some(&to(1)), 64));
        assert!(!long.take(b"xx", Some(&to(1)), 64), "one byte above");
    }

    #[test]
    fn nothing_follows_an_empty_datagram() {
        assert!(!train(0).take(b"", Some(&to(1)), 64));
        assert!(!Train::default().take(b"", None, 64));
    }
}
