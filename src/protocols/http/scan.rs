//! The parts of a head, found in one pass that accepts nothing that RFC 9112 does not: nothing has
//! to be checked again afterwards. Tests compare it with httparse, which forgives more.

use super::header::is_token;

/// The parts of a head, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) is_http10: bool,
    /// The lines of all headers, their line breaks included.
    pub(super) fields: &'a [u8],
    /// The length of the whole head, from the first byte given.
    pub(super) length: usize,
}

/// Why there are no [`Parts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// More bytes are needed, and all so far are valid.
    Partial,
    /// A byte that is not allowed at its place.
    Malformed,
    /// The version is not that of HTTP/1.0 or HTTP/1.1.
    Version,
    TooMany,
}

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
const STRICT_TARGET: u8 = 8;

/// The classes of each byte.
const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        if is_token(byte) {
            table[at] |= TOKEN;
        }
        if is_in_target(byte) {
            table[at] |= TARGET;
        }
        if is_in_strict_target(byte) {
            table[at] |= STRICT_TARGET;
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7F) {
            table[at] |= VALUE;
        }
        at += 1;
    }
    table
};

/// What browsers and curl send: everything but space, control bytes and `#`, which begins a
/// fragment.
const fn is_in_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7F && byte != b'#'
}

/// `pchar`, `/` and `?` of RFC 3986, and the brackets around an address.
const fn is_in_strict_target(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
        || matches!(byte, b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'/' | b'?' | b'%')
        || matches!(byte, b'[' | b']')
}

/// The parts of the syntax that limits can choose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    pub(super) bare_lf: bool,
    pub(super) strict_targets: bool,
}

/// How many of the first bytes are of this class.
#[inline(always)]
fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0).unwrap_or(bytes.len())
}

/// How many of the first bytes may be part of a value: eight at a time while none is a control
/// byte.
#[inline(always)]
fn value_run(bytes: &[u8]) -> usize {
    let mut whole = 0;
    for eight in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        const EACH: u64 = 0x0101_0101_0101_0101;
        let below_space = word.wrapping_sub(EACH * 0x20) & !word;
        let delete = word ^ (EACH * 0x7F);
        let is_delete = delete.wrapping_sub(EACH) & !delete;
        if (below_space | is_delete) & (EACH * 0x80) != 0 {
            break;
        }
        whole += 8;
    }
    whole + run(&bytes[whole..], VALUE)
}

/// Finds the parts of the head at the beginning of `bytes`; `take` gets the name and the value of
/// each header.
///
/// # Errors
///
/// There is no whole head, or `take` returned an error.
#[inline(always)]
pub(super) fn scan<'a, E: From<Lack>>(
    bytes: &'a [u8],
    fields_max: usize,
    form: Form,
    mut take: impl FnMut(&'a [u8], &'a [u8], bool) -> Result<(), E>,
) -> Result<Parts<'a>, E> {
    let mut start = 0;
    // Empty lines before a request are skipped.
    while let Some(b'\r' | b'\n') = bytes.get(start) {
        start += line_break(&bytes[start..], form)?;
    }
    let rest = &bytes[start..];
    // The most common method is recognised at once.
    let end = if rest.starts_with(b"GET ") { 3 } else { run(rest, TOKEN) };
    let (method, rest) = rest.split_at(end);
    let rest = expect(rest, b' ', !method.is_empty())?;
    let end = if form.strict_targets { run(rest, STRICT_TARGET) } else { run(rest, TARGET) };
    let (target, rest) = rest.split_at(end);
    let rest = expect(rest, b' ', !target.is_empty())?;
    let Some((version, rest)) = rest.split_first_chunk::<8>() else {
        let ended = rest.contains(&b'\n');
        return Err(if ended { Lack::Version } else { Lack::Partial }.into());
    };
    let is_http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Lack::Version.into()),
    };
    if !matches!(rest.first(), None | Some(b'\r' | b'\n')) {
        return Err(Lack::Version.into());
    }
    let fields = &rest[line_break(rest, form)?..];
    let mut rest = fields;
    let mut count = 0;
    loop {
        match rest.first() {
            None => return Err(Lack::Partial.into()),
            Some(b'\r' | b'\n') => break,
            Some(_) if count == fields_max => return Err(Lack::TooMany.into()),
            Some(_) => count += 1,
        }
        let (name, behind) = rest.split_at(run(rest, TOKEN));
        let behind = expect(behind, b':', !name.is_empty())?;
        let (value, behind) = behind.split_at(value_run(behind));
        rest = &behind[line_break(behind, form)?..];
        take(name, trim(value), is_http10)?;
    }
    let end = line_break(rest, form)?;
    let field_bytes = fields.len() - rest.len();
    let length = bytes.len() - rest.len() + end;
    Ok(Parts { method, target, is_http10, fields: &fields[..field_bytes], length })
}

/// What follows `byte`; `named` says that something stood before it.
#[inline(always)]
fn expect(bytes: &[u8], byte: u8, named: bool) -> Result<&[u8], Lack> {
    match bytes.split_first() {
        Some((first, behind)) if *first == byte && named => Ok(behind),
        None => Err(Lack::Partial),
        Some(_) => Err(Lack::Malformed),
    }
}

/// The length of the line break that must stand here.
#[inline(always)]
fn line_break(bytes: &[u8], form: Form) -> Result<usize, Lack> {
    match bytes {
        [b'\r', b'\n', ..] => Ok(2),
        [] | [b'\r'] => Err(Lack::Partial),
        [b'\n', ..] if form.bare_lf => Ok(1),
        _ => Err(Lack::Malformed),
    }
}

/// A value without the white space around it.
#[inline(always)]
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', behind @ ..] = value {
        value = behind;
    }
    while let [before @ .., b' ' | b'\t'] = value {
        value = before;
    }
    value
}

/// The headers in the scanned lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldLines<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for FieldLines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], trim(&line[colon + 1..])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = (Vec<u8>, Vec<u8>, bool, Vec<(Vec<u8>, Vec<u8>)>, usize);

    fn ours(bytes: &[u8], form: Form) -> Result<Found, Lack> {
        let mut headers = Vec::new();
        let parts = scan(bytes, 100, form, |name, value, _| {
            headers.push((name.to_vec(), value.to_vec()));
            Ok::<(), Lack>(())
        })?;
        let again = FieldLines(parts.fields).map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(again.collect::<Vec<_>>(), headers);
        let (method, target) = (parts.method.to_vec(), parts.target.to_vec());
        Ok((method, target, parts.is_http10, headers, parts.length))
    }

    fn theirs(bytes: &[u8]) -> Result<Found, Lack> {
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut slots);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Err(Lack::Partial),
            Err(httparse::Error::TooManyHeaders) => return Err(Lack::TooMany),
            Err(httparse::Error::Version) => return Err(Lack::Version),
            Err(_) => return Err(Lack::Malformed),
        };
        let headers = request.headers.iter();
        let headers = headers.map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
        let method = request.method.unwrap_or_default().as_bytes().to_vec();
        let target = request.path.unwrap_or_default().as_bytes().to_vec();
        Ok((method, target, request.version == Some(0), headers, length))
    }

    /// What is accepted here, httparse accepts too, with the same meaning. What httparse accepts
    /// and is refused here has one of the things that httparse forgives.
    fn agree(bytes: &[u8]) {
        let told = || bytes.escape_ascii().to_string();
        for strict_targets in [false, true] {
            let allowed = if strict_targets { is_in_strict_target } else { is_in_target };
            match (ours(bytes, Form { bare_lf: false, strict_targets }), theirs(bytes)) {
                (Ok(ours), Err(_)) if std::str::from_utf8(&ours.1).is_err() => {
                    // To httparse a target is text: with other bytes in their place it agrees.
                    assert!(!strict_targets, "{}", told());
                    agree(
                        &bytes
                            .iter()
                            .map(|b| if b.is_ascii() { *b } else { b'a' })
                            .collect::<Vec<_>>(),
                    );
                }
                (Ok(ours), theirs) => assert_eq!(Ok(ours), theirs, "{}", told()),
                (Err(_), Ok((_, target, ..))) => {
                    let bare = bytes
                        .iter()
                        .enumerate()
                        .any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'));
                    let odd = !target.iter().all(|byte| allowed(*byte));
                    assert!(bare || odd, "refused for nothing: {}", told());
                }
                (Err(_), Err(_)) => {}
            }
            let bare = Form { bare_lf: true, strict_targets };
            if let (Ok(ours), Ok(theirs)) = (ours(bytes, bare), theirs(bytes)) {
                assert_eq!(ours, theirs, "{}", told());
            }
        }
    }

    /// Pieces of heads, valid and invalid.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let fixed = prop::sample::select(vec![
            "GET ",
            "POST",
            " ",
            "/",
            "/a?b=c%20",
            " HTTP/1.1",
            " HTTP/1.0",
            "HTTP/1.2",
            "\r\n",
            "\r\n\r\n",
            "\n",
            "\r",
            "Host: x",
            "A:b",
            ": ",
            ":",
            "\t",
            "\0",
            "\x7f",
            "é",
            "#",
            "{",
            "/{a}|^`\"<>\\",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            " folded",
            "aaaaaaaaaaaaaaaaaaaa",
        ]);
        prop_oneof![
            8 => fixed.prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ]
    }

    proptest! {
        #[test]
        fn heads_of_any_pieces_are_understood_as_httparse_does(
            pieces in prop::collection::vec(piece(), 0..20)
        ) {
            agree(&pieces.concat());
        }

        #[test]
        fn heads_with_one_byte_changed_are_understood_as_httparse_does(
            at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()
        ) {
            let mut head = b"GET /path?query HTTP/1.1\r\nHost: example.org:80\r\n\
                Accept: text/html, */*;q=0.8\r\nX-Empty:\r\nX-Spaces:  a b \t\r\n\r\n".to_vec();
            let at = at.index(head.len());
            head[at] = byte;
            agree(&head);
            agree(&head[..cut.index(head.len())]);
        }
    }

    #[test]
    fn a_target_ends_at_what_could_be_its_end_and_nowhere_else() {
        for byte in 0..=255u8 {
            let head = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\n\r\n"].concat();
            let strict = Form { strict_targets: true, ..Form::default() };
            let (lax, strict) = (ours(&head, Form::default()), ours(&head, strict));
            let right = matches!(byte, b'!'..=b'~' | 0x80..) && byte != b'#';
            assert_eq!(lax.is_ok(), right, "{byte:#x}");
            let odd = br##""<>\^`{|}"##.contains(&byte) || byte >= 0x80;
            assert_eq!(strict.is_ok(), right && !odd, "{byte:#x}, strictly");
            if let Ok((_, target, ..)) = lax {
                assert_eq!(target, [b'/', b'a', byte, b'b']);
            }
        }
    }

    #[test]
    fn long_values_are_scanned_eight_bytes_at_a_time_and_no_control_byte_slips_through() {
        // What stands around it decides what a carry does.
        for around in [b'a', b' ', b'!', b'~', b'@', b'\t', 0x80, 0x9F, 0xA0, 0xFE, 0xFF] {
            for (at, byte) in (0..40).flat_map(|at| (0..=255u8).map(move |byte| (at, byte))) {
                let mut value = vec![around; 40];
                value[at] = byte;
                let fine = byte == b'\t' || (byte >= b' ' && byte != 0x7F);
                assert_eq!(value_run(&value), if fine { 40 } else { at }, "{byte} at {at}");
            }
        }
    }
}
