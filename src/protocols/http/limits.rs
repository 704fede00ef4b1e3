//! The bounds, deadlines and leniencies of an HTTP connection.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Op, Result};

const KIB: usize = 1024;

/// The most headers that a head may be allowed.
pub(super) const FIELDS_MAX: usize = 128;

/// Every bound, deadline and switch of [`Http`](super::Http).
///
/// [`validate`](Limits::validate) checks them once; then any number of connections shares them. The
/// bounds of [`lariat::Limits`](crate::Limits) hold as well: a head must also fit into `input_max`,
/// and `idle` counts between requests too.
///
/// ```no_run
/// use lariat::http::{self, Http};
/// # use lariat::http::{Handler, Request, Response};
/// # use lariat::{Context, Outcome};
/// # struct Hello;
/// # impl Handler for Hello {
/// #     fn request(&mut self, _: &mut Context<'_>, _: &Request<'_>, _: &mut Response) -> Outcome {
/// #         Ok(())
/// #     }
/// # }
///
/// fn main() -> lariat::Result<()> {
///     let mut limits = http::Limits::default();
///     limits.collect_max = 64 * 1024;
///     limits.strict_targets = true;
///     let limits = limits.validate()?;
///     lariat::reactor::serve("127.0.0.1:8080", move || Http::with_limits(Hello, &limits))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request line, including its line break \[8 KiB\]; more is answered 414.
    pub line_max: usize,
    /// Bytes of a head \[32 KiB\]; more is answered 431.
    pub head_max: usize,
    /// Headers of a request \[100, at most 128\]; more is answered 431.
    pub fields_max: usize,
    /// Bytes of the line before a chunk, including extensions and line break \[256\]; more is
    /// answered 400.
    pub chunk_line_max: usize,
    /// Bytes of all chunk extensions of a body together \[16 KiB\]; more is answered 400.
    pub extensions_max: usize,
    /// Bytes of the trailers after a chunked body, including the final empty line \[8 KiB\]; more
    /// is answered 431.
    pub trailers_max: usize,
    /// Requests of one connection that are answered in a row before other connections have their
    /// turn \[64\]. The next request of a connection waits, unread, until the present one is
    /// answered.
    pub pipeline_max: usize,
    /// Bytes of a body that is [collected](super::Response::collect) \[1 MiB\]; more is answered
    /// 413. A streamed body has no bound.
    pub collect_max: usize,
    /// Bytes of an unwanted body that are read and dropped to keep the connection \[256 KiB\],
    /// including the lines between chunks. With more to come, the connection closes after the
    /// answer. Each body counts by itself.
    pub discard_max: u64,

    /// Time for a head, from its first byte, and for the first byte of a new connection \[10 s\];
    /// then 408, or a close if no byte has come.
    pub head: Duration,
    /// Time from an answer to the first byte of the next request \[60 s\]; then the connection
    /// closes. A shorter [`idle`](crate::Limits::idle) of the connection holds instead.
    pub keep_alive: Duration,
    /// Time for a body before [`body_rate`](Limits::body_rate) counts \[10 s\].
    pub body_grace: Duration,
    /// Bytes per second that a body must bring on average after that \[1 KiB\]; else 408. After a
    /// `body_grace` in which the rate was kept, another one begins: fast bytes earlier do not
    /// excuse silence later. Time in a pause or in flow control does not count against the client.
    pub body_rate: u32,
    /// Time for a whole body \[off\]; then 408.
    pub body_total: Option<Duration>,
    /// Time from a whole request to the beginning of its answer \[60 s\]; then 503.
    pub answer: Duration,

    /// Whether `CONNECT` reaches the handler, which may open a [tunnel](super::Response::tunnel)
    /// \[off\]; otherwise it is answered 501.
    pub connect: bool,
    /// Strictness: a target has characters of RFC 3986 only \[off\]; another one is answered 400.
    /// When off, a target may also have ``" < > \ ^ ` { | }`` and bytes above 0x7F, as browsers and
    /// curl send them.
    pub strict_targets: bool,
    /// Leniency: lines of a head and of a chunk may end in LF alone \[off\].
    pub bare_lf: bool,
    /// Leniency: a request with both `transfer-encoding` and `content-length` is read as chunked,
    /// and the connection closes after it \[off\].
    pub both_lengths: bool,
    /// Leniency: several `content-length` of the same value count as one \[off\].
    pub equal_lengths: bool,
    /// Leniency: an HTTP/1.1 request may lack `host` \[off\].
    pub missing_host: bool,
}

/// The defaults.
pub(super) static DEFAULT: Limits = Limits {
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
    connect: false,
    strict_targets: false,
    bare_lf: false,
    both_lengths: false,
    equal_lengths: false,
    missing_host: false,
};

impl Default for Limits {
    fn default() -> Limits {
        DEFAULT.clone()
    }
}

impl Limits {
    /// Checks that these limits can work, for any number of connections at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`] names the field: `head_max` outside of 16 bytes to 16 MiB,
    /// `line_max` outside of 16 bytes to `head_max`, `fields_max` outside of 1 to 128,
    /// `chunk_line_max` outside of 3 bytes to 64 KiB, `extensions_max` above 1 GiB, `trailers_max`
    /// outside of 2 bytes to 64 KiB, a `pipeline_max` or `body_rate` of 0, a time shorter than a
    /// millisecond.
    pub fn validate(self) -> Result<ValidLimits> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        let within = [
            (self.head_max, 16, 16 * KIB * KIB, "head_max must be from 16 bytes to 16 MiB"),
            (self.line_max, 16, self.head_max, "line_max must be from 16 bytes to head_max"),
            (self.fields_max, 1, FIELDS_MAX, "fields_max must be from 1 to 128"),
            (self.chunk_line_max, 3, 64 * KIB, "chunk_line_max must be from 3 bytes to 64 KiB"),
            (self.extensions_max, 0, 1 << 30, "extensions_max must be at most 1 GiB"),
            (self.trailers_max, 2, 64 * KIB, "trailers_max must be from 2 bytes to 64 KiB"),
            (self.pipeline_max, 1, usize::MAX, "pipeline_max must be at least 1"),
            (self.body_rate as usize, 1, usize::MAX, "body_rate must be at least 1 byte a second"),
        ];
        for (value, least, most, sentence) in within {
            if !(least..=most).contains(&value) {
                return fault(sentence);
            }
        }
        let times = [
            (Some(self.head), "head must be at least 1 ms"),
            (Some(self.keep_alive), "keep_alive must be at least 1 ms"),
            (Some(self.body_grace), "body_grace must be at least 1 ms"),
            (self.body_total, "body_total must be at least 1 ms; None turns it off"),
            (Some(self.answer), "answer must be at least 1 ms"),
        ];
        for (time, sentence) in times {
            if time.is_some_and(|time| time < Duration::from_millis(1)) {
                return fault(sentence);
            }
        }
        Ok(ValidLimits(Arc::new(self)))
    }
}

/// [`Limits`] that [`Limits::validate`] has checked, read-only. A clone shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidLimits(Arc<Limits>);

impl Deref for ValidLimits {
    type Target = Limits;

    #[inline(always)]
    fn deref(&self) -> &Limits {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = KIB * KIB;
    const MS: Duration = Duration::from_millis(1);

    fn sentence(change: impl FnOnce(&mut Limits)) -> String {
        let mut limits = Limits::default();
        change(&mut limits);
        match limits.validate() {
            Ok(_) => String::new(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidLimits);
                error.to_string()
            }
        }
    }

    /// A field is refused by its name at each of `wrong`, and taken at each of `right`.
    #[track_caller]
    fn check<T: Copy + std::fmt::Debug>(
        field: &str,
        set: fn(&mut Limits, T),
        wrong: &[T],
        right: &[T],
    ) {
        for value in wrong {
            let sentence = sentence(|limits| set(limits, *value));
            let begins = format!("these limits cannot work: {field} must be ");
            assert!(sentence.starts_with(&begins), "{field} = {value:?}: {sentence:?}");
        }
        for value in right {
            assert_eq!(sentence(|limits| set(limits, *value)), "", "{field} = {value:?}");
        }
    }

    #[test]
    fn each_size_that_cannot_work_is_named_and_its_bounds_can() {
        check("head_max", |l, n| l.head_max = n, &[0, 15, 16 * MIB + 1], &[8 * KIB, 16 * MIB]);
        let smallest = |l: &mut Limits, n| (l.head_max, l.line_max) = (n, n);
        check("head_max", smallest, &[15], &[16]);
        check("line_max", |l, n| l.line_max = n, &[0, 15, 32 * KIB + 1], &[16, 32 * KIB]);
        check("fields_max", |l, n| l.fields_max = n, &[0, 129], &[1, 128]);
        check("chunk_line_max", |l, n| l.chunk_line_max = n, &[2, 64 * KIB + 1], &[3, 64 * KIB]);
        check("extensions_max", |l, n| l.extensions_max = n, &[(1 << 30) + 1], &[0, 1 << 30]);
        check("trailers_max", |l, n| l.trailers_max = n, &[1, 64 * KIB + 1], &[2, 64 * KIB]);
        check("pipeline_max", |l, n| l.pipeline_max = n, &[0], &[1, usize::MAX]);
        check("body_rate", |l, n| l.body_rate = n, &[0], &[1, u32::MAX]);
        check("collect_max", |l, n| l.collect_max = n, &[], &[0, usize::MAX]);
        check("discard_max", |l, n| l.discard_max = n, &[], &[0, u64::MAX]);
    }

    #[test]
    fn each_time_that_cannot_work_is_named_and_a_millisecond_can() {
        let wrong = [Duration::ZERO, MS - Duration::from_nanos(1)];
        let right = [MS, Duration::MAX];
        check("head", |l, time| l.head = time, &wrong, &right);
        check("keep_alive", |l, time| l.keep_alive = time, &wrong, &right);
        check("body_grace", |l, time| l.body_grace = time, &wrong, &right);
        check("body_total", |l, time| l.body_total = Some(time), &wrong, &right);
        check("answer", |l, time| l.answer = time, &wrong, &right);
    }

    #[test]
    fn the_error_of_each_bound_has_its_numbers() {
        let told = |change: fn(&mut Limits)| {
            let sentence = sentence(change);
            sentence.strip_prefix("these limits cannot work: ").unwrap().to_owned()
        };
        let zero = Duration::ZERO;
        let sentences = [
            (told(|l| l.head_max = 0), "head_max must be from 16 bytes to 16 MiB"),
            (told(|l| l.line_max = 0), "line_max must be from 16 bytes to head_max"),
            (told(|l| l.fields_max = 0), "fields_max must be from 1 to 128"),
            (told(|l| l.chunk_line_max = 0), "chunk_line_max must be from 3 bytes to 64 KiB"),
            (told(|l| l.extensions_max = 1 << 31), "extensions_max must be at most 1 GiB"),
            (told(|l| l.trailers_max = 0), "trailers_max must be from 2 bytes to 64 KiB"),
            (told(|l| l.pipeline_max = 0), "pipeline_max must be at least 1"),
            (told(|l| l.body_rate = 0), "body_rate must be at least 1 byte a second"),
        ];
        for (told, sentence) in sentences {
            assert_eq!(told, sentence);
        }
        let mut limits = Limits::default();
        (limits.head, limits.body_total) = (MS, Some(zero));
        let error = limits.validate().unwrap_err().to_string();
        assert!(error.ends_with(": body_total must be at least 1 ms; None turns it off"));
    }

    #[test]
    fn valid_limits_are_the_ones_that_were_checked_and_their_clones_share_them() {
        let mut limits = Limits::default();
        limits.clone().validate().unwrap();
        limits.collect_max = 7;
        let valid = limits.clone().validate().unwrap();
        assert_eq!(*valid, limits);
        assert!(std::ptr::eq(&*valid, &*valid.clone()));
    }
}
