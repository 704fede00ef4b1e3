//! What the connections send: one pseudo-random byte stream each, without generating it again.
//!
//! A table of random bytes is made once. Connection `n` sends the table from a start of its own,
//! over and over. Sending and checking are then a slice and a comparison, which keeps the load
//! generator cheaper than the servers it measures.

/// Bytes until a stream repeats. A prime: no message or buffer size divides it, so bytes that were
/// lost, doubled or moved by whole messages or buffers do not compare equal.
const PERIOD: usize = 1_048_573;

/// The table goes on past its period, so that every slice up to this length is in one piece.
pub const LONGEST: usize = 512 * 1024;

/// Distance between the starts of two connections; also a prime, so the starts all differ.
const STRIDE: usize = 104_729;

pub struct Streams {
    table: Vec<u8>,
}

impl Streams {
    pub fn new() -> Streams {
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut table = Vec::with_capacity(PERIOD + LONGEST);
        table.resize_with(PERIOD, || {
            // xorshift64*: short, and its top bits are good enough to tell bytes apart.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        });
        table.extend_from_within(..LONGEST);
        Streams { table }
    }

    /// At most `most` bytes of the stream of `connection`, from `position` on; never empty unless
    /// `most` is 0.
    pub fn at(&self, connection: usize, position: u64, most: u64) -> &[u8] {
        let start = (connection % PERIOD) * STRIDE % PERIOD;
        let from = (start as u64 + position % PERIOD as u64) as usize % PERIOD;
        let length = most.min(LONGEST as u64) as usize;
        &self.table[from..from + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_read_in_pieces_is_the_stream_read_at_once() {
        let streams = Streams::new();
        let whole = streams.at(7, PERIOD as u64 - 100, 300).to_vec();
        let mut pieces = Vec::new();
        for i in 0..30 {
            pieces.extend_from_slice(streams.at(7, PERIOD as u64 - 100 + i * 10, 10));
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn connections_send_different_bytes() {
        let streams = Streams::new();
        let first: std::collections::HashSet<_> =
            (0..10_000).map(|n| streams.at(n, 0, 16).to_vec()).collect();
        assert_eq!(first.len(), 10_000);
    }

    #[test]
    fn a_whole_buffer_too_early_or_too_late_is_noticed() {
        let streams = Streams::new();
        for shift in [64, 4096, 16 * 1024, 64 * 1024, 256 * 1024, 1 << 20, 16 << 20] {
            assert_ne!(streams.at(3, 5, 32), streams.at(3, 5 + shift, 32), "moved by {shift}");
        }
    }
}
