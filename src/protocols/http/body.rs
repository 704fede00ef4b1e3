//! The body of a request on its way in: finds its end, and keeps no byte of it. RFC 9112, sections
//! 6 and 7.

use super::Status;
use super::fault::Fault;
use super::header::is_token;
use super::limits::Limits;
use super::request::Length;

/// What comes next in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: the body is whole, or there was none.
    Nothing,
    /// `left` bytes, and then nothing.
    Rest,
    /// The line with the size of a chunk.
    Size,
    /// `left` bytes of a chunk.
    Chunk,
    /// The line break after a chunk.
    Break,
    /// A line of the trailers, or the empty line after them.
    Trailer,
}

/// The state of a body that is being received.
#[derive(Debug)]
pub(super) struct Body {
    next: Next,
    /// Bytes of trailers so far: at most 64 KiB.
    trailers: u32,
    /// Bytes of chunk extensions so far.
    extensions: u32,
    left: u64,
}

/// What [`Body::advance`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    /// The next piece is not whole.
    More,
    End,
}

impl Body {
    pub(super) const NONE: Body = Body { next: Next::Nothing, trailers: 0, extensions: 0, left: 0 };

    #[inline]
    pub(super) fn new(length: Length) -> Body {
        match length {
            Length::None => Body::NONE,
            Length::Known(left) => Body { next: Next::Rest, left, ..Body::NONE },
            Length::Unknown => Body { next: Next::Size, ..Body::NONE },
        }
    }

    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        self.next == Next::Nothing
    }

    /// Bytes still to come; None while that is not known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.next {
            Next::Nothing => Some(0),
            Next::Rest => Some(self.left),
            _ => None,
        }
    }

    /// Takes the next piece from the beginning of `rest`.
    pub(super) fn advance<'a>(
        &mut self,
        rest: &mut &'a [u8],
        limits: &Limits,
    ) -> Result<Piece<'a>, Fault> {
        loop {
            match self.next {
                Next::Nothing => return Ok(Piece::End),
                Next::Rest | Next::Chunk if rest.is_empty() => return Ok(Piece::More),
                Next::Rest | Next::Chunk => return Ok(Piece::Data(self.take_data(rest))),
                Next::Break => match rest.split_first_chunk() {
                    Some((b"\r\n", behind)) => {
                        *rest = behind;
                        self.next = Next::Size;
                    }
                    None if matches!(*rest, [] | [b'\r']) => return Ok(Piece::More),
                    _ if limits.bare_lf && rest[0] == b'\n' => {
                        *rest = &rest[1..];
                        self.next = Next::Size;
                    }
                    _ => return Err(Fault::bad("a chunk that is longer than its size")),
                },
                Next::Size => match line(rest, limits.chunk_line_max, limits)? {
                    None if rest.len() < limits.chunk_line_max => return Ok(Piece::More),
                    None => return Err(Fault::bad("a chunk line that is too long")),
                    Some(line) => self.take_size(line, limits)?,
                },
                Next::Trailer => {
                    let most = limits.trailers_max.saturating_sub(self.trailers as usize);
                    let before = rest.len();
                    match line(rest, most, limits)? {
                        None if rest.len() < most => return Ok(Piece::More),
                        None => {
                            let why = "trailers that are too long";
                            return Err(Fault::new(Status::HEADERS_TOO_LARGE, why));
                        }
                        Some([]) => self.next = Next::Nothing,
                        Some(line) => {
                            self.trailers += (before - rest.len()) as u32;
                            check_trailer(line)?;
                        }
                    }
                }
            }
        }
    }

    fn take_data<'a>(&mut self, rest: &mut &'a [u8]) -> &'a [u8] {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
        let (data, behind) = rest.split_at(count);
        *rest = behind;
        self.left -= count as u64;
        if self.left == 0 {
            self.next = if self.next == Next::Rest { Next::Nothing } else { Next::Break };
        }
        data
    }

    fn take_size(&mut self, line: &[u8], limits: &Limits) -> Result<(), Fault> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        // Sixteen digits fill a u64.
        if !(1..=16).contains(&digits) {
            return Err(Fault::bad("a chunk size that is no number, or too large"));
        }
        let size = size.iter().fold(0u64, |size, byte| {
            let digit = char::from(*byte).to_digit(16).unwrap_or_default();
            size << 4 | u64::from(digit)
        });
        if !extension.is_empty() {
            self.take_extension(extension, limits)?;
        }
        self.left = size;
        self.next = if size == 0 { Next::Trailer } else { Next::Chunk };
        Ok(())
    }

    /// The extension is not used; it only has to be well-formed.
    fn take_extension(&mut self, extension: &[u8], limits: &Limits) -> Result<(), Fault> {
        self.extensions += extension.len() as u32;
        if self.extensions as usize > limits.extensions_max {
            return Err(Fault::bad("chunk extensions without end"));
        }
        let begins = extension.trim_ascii_start().first() == Some(&b';');
        if !begins || extension.iter().any(|byte| is_control(*byte)) {
            return Err(Fault::bad("a chunk extension that is none"));
        }
        Ok(())
    }
}

fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7F
}

/// Takes a line of at most `most` bytes, its line break included, from the beginning of `rest` and
/// returns it without the line break; None if no line is whole.
fn line<'a>(rest: &mut &'a [u8], most: usize, limits: &Limits) -> Result<Option<&'a [u8]>, Fault> {
    let window = &rest[..rest.len().min(most)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    *rest = &rest[end + 1..];
    match window[..end].strip_suffix(b"\r") {
        Some(line) => Ok(Some(line)),
        None if limits.bare_lf => Ok(Some(&window[..end])),
        None => Err(Fault::bad("a line of a chunked body ends in LF alone")),
    }
}

/// Trailers are dropped, after a check of their form.
fn check_trailer(line: &[u8]) -> Result<(), Fault> {
    let name = line.iter().take_while(|byte| is_token(**byte)).count();
    let right = name > 0
        && line.get(name) == Some(&b':')
        && !line[name + 1..].iter().any(|byte| is_control(*byte));
    if right { Ok(()) } else { Err(Fault::bad("a trailer that is none")) }
}

#[cfg(test)]
mod tests {
    use super::super::limits::DEFAULT;
    use super::*;

    /// The data of a chunked body that arrives in pieces of `step` bytes, and the rest after it.
    fn read(bytes: &[u8], step: usize, limits: &Limits) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut body = Body::new(Length::Unknown);
        let (mut data, mut from, mut to) = (Vec::new(), 0, 0);
        while to < bytes.len() {
            to = (to + step).min(bytes.len());
            let mut rest = &bytes[from..to];
            loop {
                match body.advance(&mut rest, limits).map_err(|fault| fault.status.code())? {
                    Piece::Data(part) => data.extend_from_slice(part),
                    Piece::More => break,
                    Piece::End => return Ok((data, bytes.len() - (to - rest.len()), true)),
                }
            }
            from = to - rest.len();
        }
        Ok((data, 0, false))
    }

    #[test]
    fn a_chunked_body_is_read_however_it_arrives() {
        let bytes = b"5\r\nhello\r\n1;a=b\r\n \r\nA\r\nworld12345\r\n0\r\nX: y\r\n\r\nGET";
        for step in 1..bytes.len() + 1 {
            let (data, left, whole) = read(bytes, step, &DEFAULT).unwrap();
            assert_eq!((&data[..], left, whole), (&b"hello world12345"[..], 3, true));
        }
    }

    #[test]
    fn h4_chunks_that_readers_could_disagree_about_are_refused() {
        let wrong: [&[u8]; 16] = [
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r\n0\n\r\n",
            b"5\r\nhello\r\n0\r\n\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;\0\r\nhello\r\n0\r\n\r\n",
            b"5 x\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
            b"5\r\nhello\r\n0\r\n: y\r\n\r\n",
            b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        ];
        for bytes in wrong {
            for step in 1..bytes.len() {
                let found = read(bytes, step, &DEFAULT);
                assert_eq!(found, Err(400), "{:?} by {step}", bytes.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn h4_extensions_and_trailers_have_an_end() {
        let endless: Vec<u8> = b"1;abcdefgh\r\nx\r\n".repeat(2000);
        assert_eq!(read(&endless, 4096, &DEFAULT), Err(400));
        let long = [b"1;".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(read(&long, 7, &DEFAULT), Err(400));
        let trailers = [b"0\r\n".as_slice(), &b"X: y\r\n".repeat(2000)].concat();
        assert_eq!(read(&trailers, 4096, &DEFAULT), Err(431));
    }

    #[test]
    fn h4_a_line_that_has_no_end_is_refused_at_its_bound_and_not_a_byte_later() {
        let mut limits = DEFAULT.clone();
        (limits.chunk_line_max, limits.trailers_max) = (20, 30);
        let chunk_line = [b"3;".as_slice(), &[b'a'; 30]].concat();
        let trailer = [b"0\r\nA: ".as_slice(), &[b'a'; 40]].concat();
        let second = [b"0\r\nA: b\r\nB: ".as_slice(), &[b'a'; 40]].concat();
        // The line with the size of the last chunk does not count as trailers.
        for (bytes, bound, status) in
            [(chunk_line, 20, 400), (trailer, 3 + 30, 431), (second, 3 + 30, 431)]
        {
            for step in [1, bound] {
                let shown = bytes.escape_ascii();
                let found = read(&bytes[..bound - 1], step, &limits);
                assert_eq!(found, Ok((Vec::new(), 0, false)), "{shown} by {step}");
                let found = read(&bytes[..bound], step, &limits);
                assert_eq!(found, Err(status), "{shown} by {step}");
            }
        }
    }

    #[test]
    fn a_wrong_byte_behind_a_chunk_is_refused_at_once_and_a_bare_lf_where_it_is_allowed_taken() {
        let lenient = Limits { bare_lf: true, ..DEFAULT.clone() };
        // What stands behind the chunk so far, and whether that is wrong, strictly and leniently.
        let cases = [
            (&b""[..], false, false),
            (b"\r", false, false),
            (b"\r\n", false, false),
            (b"\n", true, false),
            (b"x", true, true),
            (b"\rx", true, true),
            (b"0", true, true),
        ];
        for (behind, strictly, leniently) in cases {
            for (limits, wrong) in [(&DEFAULT, strictly), (&lenient, leniently)] {
                let found = read(&[b"1\r\na", behind].concat(), 1, limits);
                let expected = if wrong { Err(400) } else { Ok((b"a".to_vec(), 0, false)) };
                assert_eq!(found, expected, "{}", behind.escape_ascii());
            }
        }
        let bytes = b"5\nhello\n1\r\n!\r\n0\nA: b\n\nrest";
        for step in 1..=bytes.len() {
            let (data, left, whole) = read(bytes, step, &lenient).unwrap();
            assert_eq!((&data[..], whole), (&b"hello!"[..], true));
            assert!(left <= 4, "by {step}");
        }
    }

    #[test]
    fn the_largest_chunk_size_is_taken() {
        let mut body = Body::new(Length::Unknown);
        let mut rest = &b"FFFFFFFFFFFFFFFF\r\nabc"[..];
        assert_eq!(body.advance(&mut rest, &DEFAULT), Ok(Piece::Data(b"abc")));
        assert_eq!(body.left, u64::MAX - 3);
    }
}
