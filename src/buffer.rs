//! Bytes that wait: unread input and unsent output.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::guard::GuardedBytes;

/// Copied output is kept in chunks of at most this many bytes, so that a queue frees memory while
/// it drains.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait in a pool, together at most 1 MiB.
const POOLED_MAX: usize = 16;
/// Buffers larger than a chunk that wait in a pool, and the largest of them: a filter's output for
/// one read needs one.
const LARGE_MAX: usize = 2;
const LARGE: usize = 512 * 1024;

/// Emptied buffers, shared by all connections of a loop.
#[derive(Debug)]
pub(crate) struct ChunkPool {
    chunks: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    chunks_max: usize,
    large_max: usize,
}

impl Default for ChunkPool {
    fn default() -> ChunkPool {
        let (chunks, large) = (Vec::new(), Vec::new());
        ChunkPool { chunks, large, chunks_max: POOLED_MAX, large_max: LARGE_MAX }
    }
}

impl ChunkPool {
    /// The pool of a thread, which has one connection: there are as many pools as connections, also
    /// while those are idle.
    pub(crate) fn of_one_connection() -> ChunkPool {
        ChunkPool { chunks_max: 1, large_max: 0, ..ChunkPool::default() }
    }

    fn take(&mut self) -> Vec<u8> {
        self.chunks.pop().unwrap_or_default()
    }

    /// A buffer for `count` bytes: of any capacity, and empty.
    fn take_for(&mut self, count: usize) -> Vec<u8> {
        if count > CHUNK { self.large.pop().unwrap_or_default() } else { self.take() }
    }

    /// How many buffers wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.chunks.len() + self.large.len()
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        // Small ones too: a relay of small messages needs them, and they grow where more is queued.
        let (place, most) = match buffer.capacity() {
            0 => return,
            1..=CHUNK => (&mut self.chunks, self.chunks_max),
            _ => (&mut self.large, self.large_max),
        };
        if place.len() < most && buffer.capacity() <= LARGE {
            buffer.clear();
            place.push(buffer);
        }
    }
}

#[derive(Debug)]
enum Chunk {
    Copied { bytes: Vec<u8>, sent: usize },
    Shared(GuardedBytes),
}

impl Chunk {
    fn unsent(&self) -> &[u8] {
        match self {
            Chunk::Copied { bytes, sent } => &bytes[*sent..],
            Chunk::Shared(bytes) => bytes,
        }
    }
}

/// Unsent output, first in, first out.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    len: usize,
}

impl SendQueue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `bytes` to the end.
    pub(crate) fn push(&mut self, mut bytes: &[u8], pool: &mut ChunkPool) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = match self.chunks.back() {
                Some(Chunk::Copied { bytes, .. }) => CHUNK.saturating_sub(bytes.len()),
                _ => 0,
            };
            if room == 0 {
                self.chunks.push_back(Chunk::Copied { bytes: pool.take(), sent: 0 });
                continue;
            }
            if let Some(Chunk::Copied { bytes: tail, .. }) = self.chunks.back_mut() {
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                let len = tail.len() + now.len();
                if len > tail.capacity() {
                    // Doubling, but never beyond a chunk: a larger one could not be pooled.
                    let capacity = (2 * tail.capacity()).clamp(len, CHUNK);
                    tail.reserve_exact(capacity - tail.len());
                }
                tail.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Puts `bytes` at the end without copying.
    pub(crate) fn push_shared(&mut self, bytes: GuardedBytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.chunks.push_back(Chunk::Shared(bytes));
        }
    }

    /// The first bytes, as many as lie together.
    pub(crate) fn front(&self) -> &[u8] {
        self.chunks.front().map_or(&[], Chunk::unsent)
    }

    /// Fills `slices` with the first bytes, at most `most` of them, and says how many slices.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], mut most: usize) -> usize {
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let bytes = chunk.unsent();
            let bytes = &bytes[..bytes.len().min(most)];
            if bytes.is_empty() {
                break;
            }
            *slice = IoSlice::new(bytes);
            most -= bytes.len();
            count += 1;
        }
        count
    }

    /// Drops the first `count` bytes: they have been sent.
    pub(crate) fn advance(&mut self, mut count: usize, pool: &mut ChunkPool) {
        debug_assert!(count <= self.len, "more sent than was queued");
        count = count.min(self.len);
        self.len -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            let unsent = chunk.unsent().len();
            if count < unsent {
                match chunk {
                    Chunk::Copied { sent, .. } => *sent += count,
                    Chunk::Shared(bytes) => bytes.advance(count),
                }
                return;
            }
            count -= unsent;
            match self.chunks.pop_front() {
                Some(Chunk::Copied { bytes, .. }) => pool.give(bytes),
                Some(Chunk::Shared(_)) | None => {}
            }
        }
    }

    /// Takes all bytes out, in order.
    pub(crate) fn take_all(&mut self, pool: &mut ChunkPool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        while !self.is_empty() {
            bytes.extend_from_slice(self.front());
            self.advance(self.front().len(), pool);
        }
        bytes
    }

    /// Drops everything and returns its length.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) -> usize {
        let dropped = self.len;
        self.advance(dropped, pool);
        dropped
    }
}

/// Contiguous bytes with a cursor at the first: unread input, and a filter's output for the wire.
///
/// Consumed bytes are not moved at once: the space before the first byte is reclaimed when it is at
/// least as large as the rest, so that the cost per byte stays constant and the memory within twice
/// the rest. An empty queue owns no buffer: the pool has it.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl ByteQueue {
    // User code that appends may also have removed bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, bytes: &[u8], pool: &mut ChunkPool) {
        if !bytes.is_empty() {
            self.tail(bytes.len(), pool).extend_from_slice(bytes);
        }
    }

    /// The buffer to which about `more` bytes are appended. [`ByteQueue::trim`] follows where it
    /// may be that none were.
    pub(crate) fn tail(&mut self, more: usize, pool: &mut ChunkPool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take_for(more);
        } else if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start.min(self.bytes.len()));
            self.start = 0;
        }
        &mut self.bytes
    }

    pub(crate) fn consume(&mut self, count: usize, pool: &mut ChunkPool) {
        self.start = (self.start + count).min(self.bytes.len());
        self.trim(pool);
    }

    /// Gives the buffer back if nothing is in it.
    pub(crate) fn trim(&mut self, pool: &mut ChunkPool) {
        if self.is_empty() {
            self.clear(pool);
        }
    }

    /// Drops everything and returns its length.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) -> usize {
        let dropped = self.len();
        pool.give(std::mem::take(&mut self.bytes));
        self.start = 0;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(queue: &SendQueue) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = queue.gather(&mut slices, usize::MAX);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn gather_stops_at_the_number_of_bytes_asked_for() {
        let mut queue = SendQueue::default();
        queue.push(b"abcdef", &mut ChunkPool::default());
        queue.push_shared(GuardedBytes::new(&b"ghi"[..]));
        let mut slices = [IoSlice::new(&[]); 4];
        let count = queue.gather(&mut slices, 7);
        assert_eq!(count, 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"abcdef"[..], &b"g"[..]));
    }

    #[test]
    fn a_drained_queue_gives_its_chunks_to_the_pool_and_keeps_none() {
        let mut pool = ChunkPool::default();
        let mut queue = SendQueue::default();
        queue.push(&vec![1; 3 * CHUNK], &mut pool);
        assert_eq!(queue.clear(&mut pool), 3 * CHUNK);
        assert_eq!((queue.chunks.len(), pool.chunks.len()), (0, 3));
        queue.push(&vec![1; 2 * CHUNK], &mut pool);
        assert_eq!(pool.chunks.len(), 1);
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = ChunkPool::default();
        let mut queue = SendQueue::default();
        queue.push(&vec![1; 40 * CHUNK], &mut pool);
        queue.clear(&mut pool);
        assert_eq!(pool.chunks.len(), POOLED_MAX);
    }

    #[test]
    fn the_pool_of_one_connection_keeps_one_chunk_and_nothing_larger() {
        let (mut pool, mut queue) = (ChunkPool::of_one_connection(), SendQueue::default());
        queue.push(&vec![1; 3 * CHUNK], &mut pool);
        queue.clear(&mut pool);
        let mut unread = ByteQueue::default();
        unread.push(&vec![7; 2 * CHUNK], &mut pool);
        unread.clear(&mut pool);
        assert_eq!((pool.chunks.len(), pool.large.len()), (1, 0));
    }

    #[test]
    fn a_chunk_grows_by_doubling_and_ends_at_64_kib() {
        let mut pool = ChunkPool::default();
        let mut queue = SendQueue::default();
        let capacity = |queue: &SendQueue| match queue.chunks.back() {
            Some(Chunk::Copied { bytes, .. }) => bytes.capacity(),
            _ => 0,
        };
        let mut sizes = std::collections::BTreeSet::new();
        for _ in 0..60_000 {
            queue.push(b"x", &mut pool);
            sizes.insert(capacity(&queue));
        }
        assert!(sizes.len() <= 17, "{} sizes of one chunk: {sizes:?}", sizes.len());
        let mut queue = SendQueue::default();
        queue.push(&[1; 40_000], &mut pool);
        assert_eq!(capacity(&queue), 40_000);
        queue.push(&[2; 30_000], &mut pool);
        assert_eq!((queue.chunks.len(), queue.front().len()), (2, 65_536));
        queue.advance(1, &mut pool);
        assert_eq!(queue.front().len(), 65_535);
        queue.advance(65_535, &mut pool);
        // The full one is in the pool, and large enough for what it was made for.
        assert_eq!(pool.chunks.iter().map(Vec::capacity).collect::<Vec<_>>(), [65_536]);
        let mut queue = SendQueue::default();
        queue.push(&[3; 65_536], &mut pool);
        assert_eq!((pool.chunks.len(), capacity(&queue)), (0, 65_536));
        pool.give(Vec::with_capacity(64));
        let mut queue = SendQueue::default();
        queue.push(&[4; 64], &mut pool);
        assert_eq!(capacity(&queue), 64, "what fits does not grow");
    }

    #[test]
    fn consumed_bytes_are_moved_over_once_they_are_half() {
        let (mut pool, mut queue) = (ChunkPool::default(), ByteQueue::default());
        queue.push(&[7; 100], &mut pool);
        queue.consume(49, &mut pool);
        queue.push(&[8; 10], &mut pool);
        assert_eq!((queue.start, queue.bytes.len()), (49, 110));
        queue.consume(6, &mut pool);
        queue.push(&[9; 10], &mut pool);
        assert_eq!((queue.start, queue.bytes.len()), (0, 65));
    }

    #[test]
    fn a_queue_that_never_empties_holds_at_most_twice_of_what_is_left() {
        let (mut pool, mut queue) = (ChunkPool::default(), ByteQueue::default());
        queue.push(&[1; 5_000], &mut pool);
        for _ in 0..1_000 {
            queue.push(&[2; 4_000], &mut pool);
            queue.consume(4_000, &mut pool);
            assert_eq!(queue.len(), 5_000);
        }
        assert!(queue.bytes.capacity() <= 32_768, "{}", queue.bytes.capacity());
    }

    #[test]
    fn an_empty_queue_owns_no_buffer_and_the_pool_keeps_two_large_ones() {
        let (mut pool, mut queue) = (ChunkPool::default(), ByteQueue::default());
        queue.push(b"abc", &mut pool);
        queue.consume(3, &mut pool);
        assert_eq!((queue.bytes.capacity(), pool.chunks.len()), (0, 1));
        queue.push(b"", &mut pool);
        assert_eq!((queue.bytes.capacity(), pool.chunks.len()), (0, 1));
        queue.tail(1, &mut pool);
        assert_eq!(pool.chunks.len(), 0);
        queue.trim(&mut pool);
        assert_eq!(pool.chunks.len(), 1);
        for (count, large, chunks) in
            [(CHUNK, 0, 1), (CHUNK + 1, 1, 1), (LARGE, 1, 1), (LARGE + 1, 1, 1)]
        {
            let mut queue = ByteQueue::default();
            pool.large.clear();
            queue.push(&vec![7; count], &mut pool);
            assert_eq!(queue.clear(&mut pool), count);
            let large = if count > LARGE { 0 } else { large };
            assert_eq!((pool.large.len(), pool.chunks.len()), (large, chunks), "{count} bytes");
        }
        let mut queues: Vec<ByteQueue> = Vec::new();
        queues.resize_with(3, ByteQueue::default);
        for queue in &mut queues {
            queue.push(&vec![7; 2 * CHUNK], &mut pool);
        }
        for queue in &mut queues {
            queue.clear(&mut pool);
        }
        assert_eq!(pool.large.len(), LARGE_MAX);
    }

    #[test]
    fn bytes_that_were_removed_behind_the_cursor_do_no_harm() {
        let (mut pool, mut queue) = (ChunkPool::default(), ByteQueue::default());
        queue.push(&[1; 10], &mut pool);
        queue.consume(4, &mut pool);
        queue.tail(0, &mut pool).truncate(2);
        assert_eq!((queue.len(), queue.as_slice()), (0, &[][..]));
        queue.tail(3, &mut pool).extend_from_slice(b"xyz");
        assert_eq!(queue.as_slice(), b"xyz");
    }

    proptest! {
        #[test]
        fn a_queue_keeps_every_byte_in_order(
            calls in prop::collection::vec((0u8..3, 0usize..200_000), 1..40)
        ) {
            let (mut pool, mut queue) = (ChunkPool::default(), SendQueue::default());
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (call, size) in calls {
                match call {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..size)
                            .map(|_| { next = next.wrapping_add(31); next })
                            .collect();
                        model.extend(&bytes);
                        if call == 0 {
                            queue.push(&bytes, &mut pool);
                        } else {
                            queue.push_shared(GuardedBytes::new(bytes));
                        }
                    }
                    _ => {
                        let size = size.min(queue.len());
                        model.drain(..size);
                        queue.advance(size, &mut pool);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                let front = queue.front().to_vec();
                prop_assert!(model.iter().zip(&front).all(|(a, b)| a == b));
            }
            if queue.chunks.len() <= 64 {
                prop_assert_eq!(all(&queue), Vec::from(model));
            }
        }

        #[test]
        fn a_byte_queue_agrees_with_a_list(
            calls in prop::collection::vec((any::<bool>(), 0usize..5_000), 1..60)
        ) {
            let (mut pool, mut unread) = (ChunkPool::default(), ByteQueue::default());
            let mut model: Vec<u8> = Vec::new();
            for (number, (push, size)) in calls.into_iter().enumerate() {
                if push {
                    let bytes = vec![number as u8; size];
                    unread.push(&bytes, &mut pool);
                    model.extend(bytes);
                } else {
                    let size = size.min(model.len());
                    unread.consume(size, &mut pool);
                    model.drain(..size);
                }
                prop_assert_eq!(unread.as_slice(), &model[..]);
                prop_assert!(!model.is_empty() || unread.bytes.capacity() == 0);
            }
        }
    }
}
