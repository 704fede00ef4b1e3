//! Bytes that a failing test can print.

use std::fmt::{self, Write};
use std::ops::Deref;

use bytes::Bytes;

/// Bytes for a test to compare and print: a `[u8]` whose `Debug` is text.
///
/// Bytes that are not text are escaped. Of more than 400 bytes the first 200 and the last 100 are
/// shown, with the length; `{:#?}` shows all. It compares with slices, arrays, vectors and strings,
/// from both sides.
///
/// ```
/// use lariat::sim::ByteText;
/// let text = ByteText::from(b"GET /\r\n\x00\xFF".to_vec());
/// assert_eq!(format!("{text:?}"), r#""GET /\r\n\x00\xFF""#);
/// assert_eq!(text, b"GET /\r\n\x00\xFF");
/// assert!(text.starts_with(b"GET") && text != "GET");
/// let long = ByteText::from(vec![b'a'; 5000]);
/// assert!(format!("{long:?}").ends_with("aaa\" (5000 bytes)"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteText(Vec<u8>);

impl ByteText {
    /// The most bytes that are shown whole.
    const WHOLE: usize = 400;
    const FIRST: usize = 200;
    const LAST: usize = 100;

    /// The bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for ByteText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = &self.0[..];
        if bytes.len() <= ByteText::WHOLE || f.alternate() {
            return write_quoted(f, bytes);
        }
        write_quoted(f, &bytes[..ByteText::FIRST])?;
        f.write_str(" .. ")?;
        write_quoted(f, &bytes[bytes.len() - ByteText::LAST..])?;
        write!(f, " ({} bytes)", bytes.len())
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_char('"')?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' | '\r' | '\t' | '\\' | '"' => write!(f, "{}", c.escape_default())?,
                '\0'..='\x1F' | '\x7F' => write!(f, "\\x{:02X}", u32::from(c))?,
                '\'' => f.write_char(c)?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02X}")?;
        }
    }
    f.write_char('"')
}

impl Deref for ByteText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ByteText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for ByteText {
    fn from(bytes: Vec<u8>) -> ByteText {
        ByteText(bytes)
    }
}

impl From<&[u8]> for ByteText {
    fn from(bytes: &[u8]) -> ByteText {
        ByteText(bytes.to_vec())
    }
}

impl From<ByteText> for Vec<u8> {
    fn from(text: ByteText) -> Vec<u8> {
        text.0
    }
}

impl Extend<u8> for ByteText {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

impl IntoIterator for ByteText {
    type Item = u8;
    type IntoIter = std::vec::IntoIter<u8>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ByteText {
    type Item = &'a u8;
    type IntoIter = std::slice::Iter<'a, u8>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Comparisons from both sides with every type that holds bytes.
macro_rules! compares {
    ($([$($length:tt)*] $other:ty),* $(,)?) => { $(
        impl<$($length)*> PartialEq<$other> for ByteText {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                &self.0[..] == other
            }
        }

        impl<$($length)*> PartialEq<ByteText> for $other {
            fn eq(&self, other: &ByteText) -> bool {
                other == self
            }
        }
    )* };
}

compares!(
    [] [u8], [] &[u8], [const N: usize] [u8; N], [const N: usize] &[u8; N],
    [] Vec<u8>, [] Bytes, [] str, [] &str, [] String,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        format!("{:?}", ByteText::from(bytes))
    }

    #[test]
    fn text_is_shown_as_it_is_and_everything_else_escaped() {
        assert_eq!(shown(b""), r#""""#);
        assert_eq!(shown(b"it's \"so\"\t\\"), r#""it's \"so\"\t\\""#);
        assert_eq!(shown("gr\u{fc}n \u{200b}".as_bytes()), "\"gr\u{fc}n \\u{200b}\"");
        assert_eq!(shown(b"\x00\x1f\x7f\x80\xff"), r#""\x00\x1F\x7F\x80\xFF""#);
        // An incomplete character is not text.
        assert_eq!(shown(b"a\xC3"), r#""a\xC3""#);
    }

    #[test]
    fn more_than_400_bytes_are_shortened_unless_all_are_asked_for() {
        let whole = vec![b'x'; 400];
        assert_eq!(shown(&whole).len(), 402);
        let mut long = vec![b'x'; 401];
        long[0] = b'<';
        long[400] = b'>';
        let expected = format!("\"<{}\" .. \"{}>\" (401 bytes)", "x".repeat(199), "x".repeat(99));
        assert_eq!(shown(&long), expected);
        assert_eq!(format!("{:#?}", ByteText::from(long)).len(), 403);
    }

    #[test]
    fn it_compares_with_whatever_holds_bytes_from_both_sides() {
        fn both<T: ?Sized + PartialEq<ByteText>>(same: &T, other: &T)
        where
            ByteText: PartialEq<T>,
        {
            let text = ByteText::from(&b"abc"[..]);
            assert!(text == *same);
            assert!(*same == text);
            assert!(text != *other);
            assert!(*other != text);
        }
        both(b"abc", b"abd");
        both(&b"abc", &b"abd");
        both(&b"abc"[..], &b""[..]);
        both(&&b"abc"[..], &&b"abcd"[..]);
        both(&b"abc".to_vec(), &b"ab".to_vec());
        both(&Bytes::from_static(b"abc"), &Bytes::new());
        both("abc", "ABC");
        both(&"abc", &"");
        both(&"abc".to_owned(), &"abc ".to_owned());
    }

    #[test]
    fn it_collects_and_gives_back_bytes() {
        let mut text = ByteText::default();
        text.extend(ByteText::from(vec![1, 2]));
        text.extend([3]);
        assert_eq!((&text).into_iter().sum::<u8>(), 6);
        assert_eq!(text.as_ref(), [1, 2, 3]);
        assert_eq!(text.len(), 3);
        assert_eq!(Vec::from(text.clone()), text.into_vec());
    }
}
