//! Requests of a callback beyond its own connection, in order.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::listen::{Bound, BoxedFactory};
use super::output::place_in;
use super::{Adopted, Protocol};
use crate::address::Address;
use crate::connection::Written;
use crate::datagram;
use crate::endpoint::Endpoint;
use crate::guard::GuardedBytes;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::options::SocketOptions;

/// Above this capacity the buffer of copied bytes is freed after use.
const BYTES_KEPT: usize = 256 * 1024;

/// Bytes for another connection.
#[derive(Debug)]
pub(crate) enum Content {
    /// A range of the input that is shown.
    Shown(Range<usize>),
    /// A range of [`Effects::bytes`].
    Copied(Range<usize>),
    Shared(GuardedBytes),
    /// More bytes than the receiver may have unsent: they are not kept.
    TooMany(usize),
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Shown(range) | Content::Copied(range) => range.len(),
            Content::Shared(bytes) => bytes.len(),
            Content::TooMany(count) => *count,
        }
    }

    /// The bytes that a connection takes in. `shown` is the input of the callback, and `bytes`
    /// holds what its writes have copied.
    pub(crate) fn written<'a>(self, shown: &'a [u8], bytes: &'a [u8]) -> Written<'a> {
        match self {
            Content::Shown(range) => Written::Copied(&shown[range]),
            Content::Copied(range) => Written::Copied(&bytes[range]),
            Content::Shared(bytes) => Written::Shared(bytes),
            Content::TooMany(count) => Written::TooMany(count),
        }
    }
}

/// A protocol on its way to a connection; only some may go to another thread.
pub(crate) enum Boxed {
    Anywhere(Box<dyn Protocol + Send>),
    Here(Box<dyn Protocol>),
}

impl Boxed {
    /// The protocol, to be used on this thread.
    pub(crate) fn here(self) -> Box<dyn Protocol> {
        match self {
            Boxed::Anywhere(protocol) => protocol,
            Boxed::Here(protocol) => protocol,
        }
    }
}

/// A request that concerns anything but the own connection.
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
    /// The result of a job, for the connection that asked for it: never refused.
    Deliver {
        to: ConnId,
        job: u64,
        note: Note,
    },
    /// In a box: an effect should be no larger than a write to another connection.
    Connect(Box<Outgoing<Boxed>>),
    /// Something has happened to a connect that tries several addresses.
    Race(ConnId, Box<RaceEvent>),
    Adopt(Box<Adopted<Boxed>>),
    Bind(Box<datagram::Bound>),
    Listen {
        id: ListenerId,
        sockets: Vec<Bound>,
        limits: Arc<Limits>,
        factory: BoxedFactory,
    },
    StopListening(ListenerId),
    Stop,
    /// For the own connection, applied after all others; the last one counts.
    Replace(Successor),
}

/// A requested connect.
pub(crate) struct Outgoing<P> {
    pub(crate) id: ConnId,
    pub(crate) addr: Address,
    pub(crate) limits: Arc<Limits>,
    pub(crate) options: SocketOptions,
    pub(crate) protocol: P,
}

impl<P> Outgoing<P> {
    /// The same connect for the protocol in another form.
    pub(crate) fn map<Q>(self, change: impl FnOnce(P) -> Q) -> Outgoing<Q> {
        let Outgoing { id, addr, limits, options, protocol } = self;
        Outgoing { id, addr, limits, options, protocol: change(protocol) }
    }
}

/// What happens to a connect that has several addresses, besides the sockets' events.
pub(crate) enum RaceEvent {
    /// The lookup of its name, which was this job, is over.
    Found(u64, io::Result<VecDeque<Endpoint>>),
    /// The last address has had its time alone.
    Next,
}

/// The protocol that is to take over.
pub(crate) struct Successor {
    pub(crate) protocol: Boxed,
    /// Whether unread input is fed to its filter.
    pub(crate) feed: bool,
}

/// Requests of one callback beyond its own connection, or of code outside of callbacks, in order.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) list: Vec<Effect>,
    /// The bytes that the list's writes have copied.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of all writes in the list, and for each receiver once they are many.
    written: usize,
    sums: BTreeMap<ConnId, usize>,
}

/// Effects on their way: the list, and the bytes that its writes have copied.
pub(crate) type Taken = (Vec<Effect>, Vec<u8>);

impl Effects {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the running callback wants another protocol to take over.
    pub(crate) fn has_successor(&self) -> bool {
        self.list.iter().any(|effect| matches!(effect, Effect::Replace(_)))
    }

    /// Takes out the protocols that the running callback wants to take over; the last one counts.
    pub(crate) fn take_successors(&mut self) -> Vec<Successor> {
        if !self.has_successor() {
            return Vec::new();
        }
        let mut successors = Vec::new();
        for effect in mem::take(&mut self.list) {
            match effect {
                Effect::Replace(successor) => successors.push(successor),
                other => self.list.push(other),
            }
        }
        successors
    }

    /// Adds a write of `bytes`, which may lie in `shown`. No connection may have more than `most`
    /// bytes unsent.
    pub(crate) fn write(
        &mut self,
        to: ConnId,
        bytes: &[u8],
        shown: &[u8],
        caused: bool,
        most: usize,
    ) {
        let content = if !self.admits(to, bytes.len(), most) {
            Content::TooMany(bytes.len())
        } else if let Some(at) = place_in(bytes, shown) {
            Content::Shown(at..at + bytes.len())
        } else {
            let from = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            Content::Copied(from..self.bytes.len())
        };
        self.list.push(Effect::Write { to, content, caused });
    }

    /// Adds a write of shared bytes.
    pub(crate) fn write_shared(
        &mut self,
        to: ConnId,
        bytes: GuardedBytes,
        caused: bool,
        most: usize,
    ) {
        let content = if self.admits(to, bytes.len(), most) {
            Content::Shared(bytes)
        } else {
            Content::TooMany(bytes.len())
        };
        self.list.push(Effect::Write { to, content, caused });
    }

    /// Whether `count` more bytes for `to` may be kept. Sums per receiver are made only when the
    /// whole list has more bytes than one receiver may take, which is rare.
    fn admits(&mut self, to: ConnId, count: usize, most: usize) -> bool {
        self.written = self.written.saturating_add(count);
        if self.written <= most {
            return true;
        }
        if self.sums.is_empty() {
            for effect in &self.list {
                if let Effect::Write { to, content, .. } = effect {
                    *self.sums.entry(*to).or_default() += content.len();
                }
            }
        }
        let sum = self.sums.entry(to).or_default();
        let fits = count <= most.saturating_sub(*sum);
        *sum = sum.saturating_add(count);
        fits
    }

    /// Bytes that the writes in the list have for a connection.
    pub(super) fn written_to(&self, id: ConnId) -> usize {
        let count = |effect: &Effect| match effect {
            Effect::Write { to, content, .. } if *to == id => content.len(),
            _ => 0,
        };
        self.list.iter().map(count).sum()
    }

    /// Takes everything out, to be applied; [`Effects::put_back`] returns the allocations.
    pub(crate) fn take(&mut self) -> Taken {
        self.written = 0;
        self.sums.clear();
        (mem::take(&mut self.list), mem::take(&mut self.bytes))
    }

    pub(crate) fn put_back(&mut self, (list, mut bytes): Taken) {
        bytes.clear();
        bytes.shrink_to(BYTES_KEPT);
        self.list = list;
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ids;

    #[test]
    fn writes_for_one_connection_are_kept_up_to_what_it_may_have_unsent() {
        let mut ids = Ids::default();
        let (one, two) = (ids.reserve(), ids.reserve());
        let mut effects = Effects::default();
        for (to, count) in [(one, 60), (two, 60), (one, 40), (one, 1), (two, 41), (two, 40)] {
            effects.write(to, &vec![7; count], b"", true, 100);
        }
        let kept: Vec<bool> = effects
            .list
            .iter()
            .map(|effect| match effect {
                Effect::Write { content, .. } => !matches!(content, Content::TooMany(_)),
                _ => false,
            })
            .collect();
        assert_eq!(kept, [true, true, true, false, false, false]);
        assert_eq!(effects.bytes.len(), 160);
        effects.take();
        effects.write_shared(one, GuardedBytes::new(&[1; 100][..]), true, 100);
        effects.write_shared(one, GuardedBytes::new(&[1; 1][..]), true, 100);
        assert!(matches!(&effects.list[0], Effect::Write { content: Content::Shared(_), .. }));
        assert!(matches!(&effects.list[1], Effect::Write { content: Content::TooMany(1), .. }));
        // What was written by one callback counts for no later one.
        effects.take();
        for to in [two, one] {
            effects.write(to, &[7; 60], b"", true, 100);
        }
        assert_eq!(effects.bytes.len(), 120, "both are kept");
    }

    #[test]
    fn a_slice_of_what_is_shown_is_not_copied() {
        let to = Ids::default().reserve();
        let shown = b"one two".to_vec();
        let mut effects = Effects::default();
        effects.write(to, &shown[4..], &shown, true, 100);
        effects.write(to, b"three", &shown, true, 100);
        assert_eq!(effects.bytes, b"three");
        let ranges: Vec<_> = effects
            .list
            .iter()
            .filter_map(|effect| match effect {
                Effect::Write { content: Content::Shown(range), .. } => Some(range.clone()),
                _ => None,
            })
            .collect();
        assert_eq!((ranges.len(), ranges[0].clone()), (1, 4..7));
    }

    #[test]
    fn what_was_allocated_is_used_again_and_the_bytes_of_many_writes_are_given_back() {
        let to = Ids::default().reserve();
        for (count, kept) in [
            (1000, 1000),
            (BYTES_KEPT, BYTES_KEPT),
            (BYTES_KEPT + 1, BYTES_KEPT),
            (4 * BYTES_KEPT, BYTES_KEPT),
        ] {
            let mut effects = Effects::default();
            for _ in 0..2 {
                effects.write(to, &vec![0; count], b"", false, usize::MAX);
                let before = effects.list.capacity();
                let (mut list, bytes) = effects.take();
                assert_eq!((effects.list.capacity(), effects.bytes.capacity()), (0, 0));
                list.clear();
                effects.put_back((list, bytes));
                assert!(effects.is_empty() && effects.bytes.is_empty());
                assert_eq!((effects.list.capacity(), effects.bytes.capacity()), (before, kept));
            }
        }
    }

    #[test]
    fn what_was_taken_counts_no_longer_for_whom_it_was() {
        let mut ids = Ids::default();
        let (one, two) = (ids.reserve(), ids.reserve());
        let mut effects = Effects::default();
        for _ in 0..3 {
            // Beyond what one may take in all: from then on each has a sum.
            for (to, count, fits) in
                [(one, 60, true), (two, 60, true), (one, 40, true), (one, 1, false)]
            {
                effects.write(to, &vec![7; count], b"", true, 100);
                let last = effects.list.last();
                let kept =
                    !matches!(last, Some(Effect::Write { content: Content::TooMany(_), .. }));
                assert_eq!(kept, fits);
            }
            assert_eq!((effects.written_to(one), effects.written_to(two)), (101, 60));
            effects.take();
            assert_eq!((effects.written_to(one), effects.written_to(two)), (0, 0));
        }
    }
}
