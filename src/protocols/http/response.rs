//! The answer to a request: written as it is made, framed by the library.

use std::fmt;

use bytes::Bytes;

use super::Status;
use super::body::Body;
use super::header::Header;
use super::limits::{DEFAULT, Limits, ValidLimits};
use super::stage::{COLLECTS, Stage};
use crate::protocol::Context;

/// Bodies up to this length are written together with their head, longer ones by themselves.
const COMPOSED_MAX: usize = 4096;

/// The answer to the present request of a connection. Every callback of a handler gets it. The
/// handler may answer in the same callback, in a later one, or in parts.
///
/// There are three ways. [`send`](Response::send) answers at once. [`start`](Response::start) or
/// [`start_sized`](Response::start_sized), then [`write`](Response::write), then
/// [`finish`](Response::finish) stream. [`upgrade`](Response::upgrade) and
/// [`tunnel`](Response::tunnel) hand the connection over. A call that does not fit the present
/// state (a second answer, bytes past the announced length) is dropped and logged once per request.
///
/// Where HTTP has no body, none is sent: to `HEAD`, with 204, 205 and 304, and with 2xx to
/// `CONNECT`.
///
/// Do not write to the connection by [`Context::write`]: those bytes would stand between answers.
pub struct Response {
    pub(super) limits: Option<ValidLimits>,
    /// The request's body.
    pub(super) body: Body,
    /// Bytes of a sized answer that are missing.
    pub(super) left: u64,
    /// The body as far as it is collected.
    pub(super) collected: Option<Vec<u8>>,
    pub(super) number: u32,
    /// The body goes to the handler in parts: it is too late to collect it.
    pub(super) in_parts: bool,
    pub(super) stage: Stage,
    pub(super) facts: u8,
}

impl Response {
    pub(super) fn new(limits: Option<ValidLimits>) -> Response {
        Response {
            limits,
            body: Body::NONE,
            left: 0,
            collected: None,
            number: 0,
            in_parts: false,
            stage: Stage::Idle,
            facts: 0,
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        self.limits.as_deref().unwrap_or(&DEFAULT)
    }

    /// Whether a request waits for its answer to begin.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.stage == Stage::Due
    }

    /// Whether an answer has begun and is not finished.
    pub fn is_streaming(&self) -> bool {
        matches!(self.stage, Stage::Sized | Stage::Chunked | Stage::UntilClose | Stage::Bodiless)
    }

    /// Whether the present request has been answered, or there is none.
    #[inline]
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Idle | Stage::Over)
    }

    /// The number of the present request on its connection, from 1. A late answer can compare it to
    /// find out whether its request is still the present one. It wraps at 2^32.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Closes the connection after this answer, and says so in the head if that is not sent yet. It
    /// does nothing between requests: [`Context::close`] does.
    pub fn close_after(&mut self) {
        self.keep_no_longer();
    }

    /// Collects the body of this request: [`Handler::collected`](super::Handler::collected) gets
    /// the whole body instead of its parts. Above [`Limits::collect_max`] \[1 MiB\] the request is
    /// answered 413. Call it in [`Handler::request`](super::Handler::request), before an answer
    /// begins; after that the body goes to the handler in parts.
    pub fn collect(&mut self) {
        if self.stage != Stage::Due {
            return self.misused("collect: the answer has begun");
        }
        if self.in_parts {
            return self.misused("collect: the body is on its way in parts");
        }
        self.facts |= COLLECTS;
    }

    /// Sends the whole answer: status, headers, `content-length` and `body`. A body above
    /// [`Limits::output_max`](crate::Limits::output_max) \[8 MiB\] does not fit the queue and ends
    /// the connection with [`OutputFull`](crate::CloseKind::OutputFull): stream such a body as the
    /// client takes it.
    ///
    /// ```
    /// use lariat::http::{Handler, Header, Request, Response, Status};
    /// use lariat::{Context, Outcome};
    ///
    /// struct Hello;
    /// impl Handler for Hello {
    ///     fn request(
    ///         &mut self,
    ///         cx: &mut Context<'_>,
    ///         request: &Request<'_>,
    ///         response: &mut Response,
    ///     ) -> Outcome {
    ///         match request.path() {
    ///             "/" => response.send(cx, Status::OK, &[Header::TEXT], b"hello\n"),
    ///             _ => response.send(cx, Status::NOT_FOUND, &[Header::TEXT], b"not here\n"),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        status: Status,
        headers: &[Header<'_>],
        body: impl AsRef<[u8]>,
    ) {
        if !self.may_begin("send", status) {
            return;
        }
        self.give_up_body();
        let body = body.as_ref();
        let (framing, follows) = self.framing(status, Some(body.len() as u64));
        let sent = if follows { body } else { &[] };
        let together = if sent.len() <= COMPOSED_MAX { sent } else { &[] };
        self.head(cx, status, headers, framing, together);
        if sent.len() > COMPOSED_MAX {
            cx.write(sent);
        }
        self.stage = Stage::Done;
    }

    /// Sends the whole answer like [`send`](Response::send), without copying a large body.
    pub fn send_bytes(
        &mut self,
        cx: &mut Context<'_>,
        status: Status,
        headers: &[Header<'_>],
        body: impl Into<Bytes>,
    ) {
        let body = body.into();
        if !self.may_begin("send_bytes", status) {
            return;
        }
        self.give_up_body();
        let (framing, follows) = self.framing(status, Some(body.len() as u64));
        self.head(cx, status, headers, framing, &[]);
        if follows {
            cx.write_bytes(body);
        }
        self.stage = Stage::Done;
    }

    /// The library's own answer to a request that cannot be served.
    #[cold]
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, status: Status) {
        if self.stage == Stage::Idle {
            // The request is not known: every client must understand the answer.
            self.facts = 0;
        }
        self.stage = Stage::Due;
        self.keep_no_longer();
        let body = format!("{status}\n");
        self.send(cx, status, &[Header::TEXT], body);
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("number", &self.number)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
