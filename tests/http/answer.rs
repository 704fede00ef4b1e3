//! Reads what a server sent, as strictly as a client could.

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        let first = found.next();
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        first.map(|(_, value)| value.as_str())
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// Takes one answer from the beginning of `rest`; None when it is not whole. `head` says that the
/// request was HEAD, `ended` that nothing more comes.
pub(crate) fn take(rest: &mut &[u8], head: bool, ended: bool) -> Option<Answer> {
    let end = rest.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&rest[..end]).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap();
    let (status, reason) = line.strip_prefix("HTTP/1.1 ").unwrap().split_once(' ').unwrap();
    let status: u16 = status.parse().unwrap();
    assert!(!reason.contains(char::is_control));
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            assert!(!value.contains(char::is_control), "{line:?}");
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    let behind = &rest[end + 4..];
    let informational = status < 200;
    if !informational || status == 101 {
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
    }
    let length = answer.header("content-length");
    let length: Option<usize> = length.map(|length| length.parse().unwrap());
    let chunked = answer.header("transfer-encoding").map(|coding| coding == "chunked");
    assert!(length.is_none() || chunked.is_none(), "both lengths in {answer:?}");
    let none = informational || status == 204 || status == 304;
    assert!(!none || (length.is_none() && chunked.is_none()), "a length in {answer:?}");
    assert!(status != 205 || length == Some(0), "205 with a body: {answer:?}");
    let (body, used) = match (length, chunked) {
        _ if none || head => (Vec::new(), 0),
        (Some(length), _) => (behind.get(..length)?.to_vec(), length),
        (None, Some(true)) => dechunk(behind)?,
        _ if ended => (behind.to_vec(), behind.len()),
        _ => return None,
    };
    answer.body = body;
    *rest = &behind[used..];
    Some(answer)
}

fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at += line + 2;
        let chunk = bytes.get(at..at + size + 2)?;
        assert!(chunk.ends_with(b"\r\n"));
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// All answers in `bytes`, to requests that were not HEAD, and what is left behind the last.
pub(crate) fn all(bytes: &[u8]) -> (Vec<Answer>, &[u8]) {
    let mut rest = bytes;
    let mut answers: Vec<Answer> = Vec::new();
    while let Some(answer) = take(&mut rest, false, true) {
        answers.push(answer);
    }
    (answers, rest)
}

/// The one answer in `bytes`.
#[track_caller]
pub(crate) fn only(bytes: &[u8]) -> Answer {
    let (mut answers, rest) = all(bytes);
    assert_eq!((answers.len(), rest), (1, &b""[..]), "{}", bytes.escape_ascii());
    answers.remove(0)
}
