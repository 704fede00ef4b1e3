//! Numbers in the framing of messages.

/// Appends the header with the length, and the end of the head.
#[inline]
pub(super) fn put_length(out: &mut Vec<u8>, length: u64) {
    const NAME: &[u8; 16] = b"content-length: ";
    const END: &[u8; 4] = b"\r\n\r\n";
    // From the last digit, as digits are computed; then appended at once.
    let mut text = [0; NAME.len() + 20 + END.len()];
    let mut at = text.len() - END.len();
    text[at..].copy_from_slice(END);
    let mut rest = length;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    at -= NAME.len();
    text[at..at + NAME.len()].copy_from_slice(NAME);
    out.extend_from_slice(&text[at..]);
}

/// Appends a number in hexadecimal.
pub(super) fn put_hex(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[number >> (4 * digit) & 15]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 40, u64::MAX] {
            let mut out = Vec::new();
            put_length(&mut out, number);
            assert_eq!(out, format!("content-length: {number}\r\n\r\n").as_bytes());
            out.clear();
            put_hex(&mut out, number as usize);
            assert_eq!(out, format!("{number:x}").as_bytes());
        }
    }
}
