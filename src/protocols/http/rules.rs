//! What an HTTP connection may cost, and what it forgives.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Op, Result};

const KIB: usize = 1024;

/// The most headers that a head may be allowed.
pub(super) const FIELDS_MAX: usize = 128;

/// Every bound, deadline and leniency of [`Http`](super::Http).
///
/// The bounds of [`Limits`](crate::Limits) hold as well: a head must also fit into `input_max`.
///
/// ```
/// use std::sync::Arc;
/// use lariat::http::{Handler, Http, Rules};
///
/// fn protocol<H: Handler>(handler: H) -> lariat::Result<Http<H>> {
///     let mut rules = Rules::default();
///     rules.collect_max = 64 * 1024;
///     rules.bare_lf = true;
///     Http::with_rules(handler, Arc::new(rules))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Bytes of a request line, its line break included \[8 KiB\]; more is answered 414.
    pub line_max: usize,
    /// Bytes of a head \[32 KiB\]; more is answered 431.
    pub head_max: usize,
    /// Headers of a request \[100, at most 128\]; more is answered 431.
    pub fields_max: usize,
    /// Bytes of the line before a chunk, its extensions and line break included \[256\]; more is
    /// answered 400.
    pub chunk_line_max: usize,
    /// Bytes that all chunk extensions of a body may have together \[16 KiB\]; more is answered
    /// 400.
    pub extensions_max: usize,
    /// Bytes of the trailers behind a chunked body \[8 KiB\]; more is answered 431.
    pub trailers_max: usize,
    /// Requests of one connection that are answered in one go, before others have their turn
    /// \[64\]. The next request of a connection waits, unread, until this one is answered.
    pub pipeline_max: usize,
    /// Bytes of a body that is [collected](super::Response::collect) \[1 MiB\]; more is answered
    /// 413. A streamed body has no bound.
    pub collect_max: usize,
    /// Bytes of a body nobody wanted that are read and thrown away to keep the connection
    /// \[256 KiB\]. With more to come, it is closed.
    pub discard_max: u64,

    /// Time for a head, from its first byte, and for the first byte of a fresh connection \[10 s\];
    /// then 408, or a close if nothing has come.
    pub head: Duration,
    /// Time from an answer to the first byte of the next request \[60 s\]; then the connection is
    /// closed.
    pub keep_alive: Duration,
    /// Time for a body before [`body_rate`](Rules::body_rate) counts \[10 s\].
    pub body_grace: Duration,
    /// Bytes a second that a body must bring on average after that \[1 KiB\]; else 408. What came
    /// faster buys no silence later: whoever has kept the rate is given `body_grace` anew. What a
    /// pause or flow control keeps away is not counted against the client.
    pub body_rate: u32,
    /// Time for a whole body \[off\]; then 408.
    pub body_total: Option<Duration>,
    /// Time from a whole request to the beginning of its answer \[60 s\]; then 503.
    pub answer: Duration,

    /// Leniency: a head's and a chunk's lines may end in LF alone \[off\].
    pub bare_lf: bool,
    /// Leniency: a request with both `transfer-encoding` and `content-length` is read as chunked,
    /// and the connection closed behind it \[off\].
    pub both_lengths: bool,
    /// Leniency: several `content-length` of the same value count as one \[off\].
    pub equal_lengths: bool,
    /// Leniency: a request of HTTP/1.1 may lack `host` \[off\].
    pub missing_host: bool,
    /// Leniency: a target may have the characters that RFC 3986 leaves out, but for space and
    /// control characters \[off\].
    pub odd_targets: bool,
}

/// What holds without rules of one's own.
pub(super) static DEFAULT: Rules = Rules {
    line_max: 8 * KIB,
    head_max: 32 * KIB,
    fields_max: 100,
    chunk_line_max: 256,
    extensions_max: 16 * KIB,
    trailers_max: 8 * KIB,
    pipeline_max: 64,
    collect_max: 1024 * KIB,
    discard_max: 256 * KIB as u64,
    head: Duration::from_secs(10),
    keep_alive: Duration::from_secs(60),
    body_grace: Duration::from_secs(10),
    body_rate: 1024,
    body_total: None,
    answer: Duration::from_secs(60),
    bare_lf: false,
    both_lengths: false,
    equal_lengths: false,
    missing_host: false,
    odd_targets: false,
};

impl Default for Rules {
    fn default() -> Rules {
        DEFAULT.clone()
    }
}

impl Rules {
    /// Tells whether these bounds can work together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`] names the field: a maximum that is 0, `line_max` above
    /// `head_max`, `head_max` above 16 MiB, `fields_max` above 128, `chunk_line_max` or
    /// `trailers_max` above 64 KiB, a deadline or rate of 0.
    pub fn validate(&self) -> Result<()> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        let within = [
            (self.line_max, 16, self.head_max, "line_max must be from 16 to head_max"),
            (self.head_max, 16, 16 * KIB * KIB, "head_max must be at most 16 MiB"),
            (self.fields_max, 1, FIELDS_MAX, "fields_max must be from 1 to 128"),
            (self.chunk_line_max, 3, 64 * KIB, "chunk_line_max must be from 3 to 65536"),
            (self.extensions_max, 0, 1 << 30, "extensions_max must be at most 2^30"),
            (self.trailers_max, 2, 64 * KIB, "trailers_max must be from 2 to 65536"),
            (self.pipeline_max, 1, usize::MAX, "pipeline_max must be at least 1"),
            (self.body_rate as usize, 1, usize::MAX, "body_rate must be at least 1"),
        ];
        for (value, least, most, sentence) in within {
            if !(least..=most).contains(&value) {
                return fault(sentence);
            }
        }
        let times = [
            (self.head, "head must be longer than zero"),
            (self.keep_alive, "keep_alive must be longer than zero"),
            (self.answer, "answer must be longer than zero"),
        ];
        for (time, sentence) in times {
            if time.is_zero() {
                return fault(sentence);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_bound_that_cannot_work_is_named() {
        Rules::default().validate().unwrap();
        type Change = fn(&mut Rules);
        let cases: [(Change, &str); 7] = [
            (|r| r.line_max = r.head_max + 1, "line_max"),
            (|r| r.head_max = usize::MAX, "head_max"),
            (|r| r.fields_max = 0, "fields_max"),
            (|r| r.chunk_line_max = 2, "chunk_line_max"),
            (|r| r.pipeline_max = 0, "pipeline_max"),
            (|r| r.body_rate = 0, "body_rate"),
            (|r| r.answer = Duration::ZERO, "answer"),
        ];
        for (change, field) in cases {
            let mut rules = Rules::default();
            change(&mut rules);
            let error = rules.validate().unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
