//! CRC32c, the checksum of version 2 (RFC 4960, appendix B).

/// The polynomial 0x1EDC6F41 with its bits in the other order.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = if rest & 1 == 1 { rest >> 1 ^ POLYNOMIAL } else { rest >> 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
}

/// The sum of the bytes that were added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Crc32c {
        Crc32c(u32::MAX)
    }
}

impl Crc32c {
    pub(super) fn add(self, bytes: &[u8]) -> Crc32c {
        Crc32c(
            bytes
                .iter()
                .fold(self.0, |rest, byte| TABLE[usize::from(rest as u8 ^ byte)] ^ rest >> 8),
        )
    }

    pub(super) fn sum(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_that_the_standards_print() {
        let sum = |bytes: &[u8]| Crc32c::default().add(bytes).sum();
        assert_eq!(sum(b"123456789"), 0xE306_9283);
        // RFC 3720, B.4, where they stand in the other byte order.
        assert_eq!(sum(&[0; 32]), 0xAA36_918A_u32.swap_bytes());
        assert_eq!(sum(&[0xFF; 32]), 0x43AB_A862_u32.swap_bytes());
        let parts = Crc32c::default().add(b"1234").add(b"").add(b"56789");
        assert_eq!(parts.sum(), sum(b"123456789"));
    }
}
