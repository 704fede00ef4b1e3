//! The fuzzer's bytes as a program.

/// Reads choices from bytes, front to back. When they are used up, every choice is the first one:
/// so a script ends in the least that can happen, and cutting bytes off makes it smaller.
#[derive(Debug)]
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    /// A script of these bytes.
    pub fn new(bytes: &[u8]) -> Script {
        Script { bytes: bytes.to_vec(), at: 0 }
    }

    /// Whether all bytes have been read.
    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next byte; 0 behind the end.
    pub fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// The next eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number below `bound`, of one byte: at most 255.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// One of `from`.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A length: mostly short, sometimes long, never above `most`.
    pub fn length(&mut self, most: usize) -> usize {
        let byte = usize::from(self.byte());
        let length = match byte {
            0..200 => byte,
            200..240 => (byte - 199) * 300,
            _ => (byte - 239) * 9_000,
        };
        length.min(most)
    }
}
