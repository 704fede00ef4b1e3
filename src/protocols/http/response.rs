//! The answer to a request: written as it is made, framed by the library.

use std::fmt;

use bytes::Bytes;

use super::Status;
use super::body::Body;
use super::digits::put_length;
use super::header::Header;
use super::limits::{DEFAULT, Limits, ValidLimits};
use super::request::{Length, Request, Version};
use crate::date::{DATE_LINE, OK_LINE};
use crate::protocol::Context;

/// Bodies up to this length are written together with their head, longer ones by themselves.
const COMPOSED_MAX: usize = 4096;

/// How far an answer is, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No request waits for an answer.
    Idle,
    /// The answer has not begun.
    Due,
    /// `left` bytes are missing.
    Sized,
    Chunked,
    /// HTTP/1.0 without a length: until the connection ends.
    UntilClose,
    /// To HEAD, or with a status that has no body: writes are dropped.
    Bodiless,
    Done,
    /// The connection is given up or belongs to another protocol.
    Over,
}

/// How a head says where the body after it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// It does not: there is no body, or the body ends with the connection.
    Nothing,
    Length(u64),
    Chunked,
}

/// Facts about the present request.
const HEAD: u8 = 1;
pub(super) const HTTP10: u8 = 1 << 1;
/// The connection is to be kept.
const KEEP: u8 = 1 << 2;
/// The client waits for `100 Continue`.
pub(super) const EXPECTS: u8 = 1 << 3;
/// The client asked for an upgrade.
pub(super) const UPGRADES: u8 = 1 << 4;
/// The body is to be collected.
const COLLECTS: u8 = 1 << 5;
/// A mistake of the handler has been logged.
const WARNED: u8 = 1 << 6;
/// The client asked for a tunnel.
pub(super) const CONNECT: u8 = 1 << 7;

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
    number: u32,
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
            stage: Stage::Idle,
            facts: 0,
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        self.limits.as_deref().unwrap_or(&DEFAULT)
    }

    /// A request has arrived.
    #[inline]
    pub(super) fn begin(&mut self, request: &Request<'_>) {
        self.body = Body::new(request.length);
        self.number = self.number.wrapping_add(1);
        self.stage = Stage::Due;
        let fact = |holds: bool, fact: u8| if holds { fact } else { 0 };
        self.facts = fact(request.method == "HEAD", HEAD)
            | fact(request.version == Version::Http10, HTTP10)
            | fact(request.keep, KEEP)
            | fact(request.expects && request.length != Length::None, EXPECTS)
            | fact(request.upgrades, UPGRADES);
    }

    /// The request is for a tunnel. After any other answer than one that opens it, the following
    /// bytes may or may not be a request.
    pub(super) fn begin_connect(&mut self) {
        self.facts |= CONNECT;
        self.facts &= !UPGRADES;
        self.keep_no_longer();
    }

    pub(super) fn asks_for_tunnel(&self) -> bool {
        self.facts & CONNECT != 0
    }

    /// The exchange is over: whether the connection is kept.
    #[inline]
    pub(super) fn end(&mut self) -> bool {
        self.stage = Stage::Idle;
        self.collected = None;
        self.facts & KEEP != 0
    }

    /// Whether the connection is kept after this exchange.
    #[inline(always)]
    pub(super) fn keeps(&self) -> bool {
        self.facts & KEEP != 0
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

    pub(super) fn give_up(&mut self) {
        self.stage = Stage::Over;
        self.collected = None;
    }

    /// Nothing may follow this exchange.
    pub(super) fn keep_no_longer(&mut self) {
        self.facts &= !KEEP;
    }

    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    #[inline(always)]
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Whether the present request is answered, and not yet read to its end.
    #[inline(always)]
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether the answer ends with the connection.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.stage == Stage::UntilClose
    }

    // ---- for handlers ------------------------------------------------------------------------

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

    /// Closes the connection after this answer, and says so in the head if that is not sent yet.
    pub fn close_after(&mut self) {
        self.keep_no_longer();
    }

    /// Collects the body of this request: [`Handler::collected`](super::Handler::collected) gets
    /// the whole body instead of its parts. Above [`Limits::collect_max`] \[1 MiB\] the request is
    /// answered 413. Call it in [`Handler::request`](super::Handler::request).
    pub fn collect(&mut self) {
        if self.stage != Stage::Due {
            return self.misused("collect: the answer has begun");
        }
        self.facts |= COLLECTS;
    }

    #[inline(always)]
    pub(super) fn collects(&self) -> bool {
        self.facts & COLLECTS != 0
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

    // ---- inside ------------------------------------------------------------------------------

    /// Asks for the body that the client holds back, unless an answer has begun or bytes of the
    /// body are there.
    pub(super) fn invite_body(&mut self, cx: &mut Context<'_>, here: bool) {
        if self.facts & EXPECTS != 0 {
            self.facts &= !EXPECTS;
            if !here && self.stage == Stage::Due {
                cx.write(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
    }

    /// The answer is given before the request is whole. If the rest of the body may never come, or
    /// is too much to drop, the connection cannot be kept.
    #[inline(always)]
    pub(super) fn give_up_body(&mut self) {
        if !self.body.is_whole() {
            let much = self.body.left().is_some_and(|left| left > self.limits().discard_max);
            if much || self.facts & EXPECTS != 0 {
                self.keep_no_longer();
            }
        }
    }

    /// The framing of an answer with this status, and whether a body may follow its head. `length`
    /// is None if it is not known.
    #[inline(always)]
    pub(super) fn framing(&self, status: Status, length: Option<u64>) -> (Framing, bool) {
        let framing = match length {
            Some(length) => Framing::Length(length),
            None if self.facts & HTTP10 != 0 => Framing::Nothing,
            None => Framing::Chunked,
        };
        let bodiless = status.has_no_body() || status == Status::RESET_CONTENT;
        if self.facts & (HEAD | CONNECT) != 0 || bodiless {
            return self.framing_of_none(status, framing);
        }
        (framing, true)
    }

    /// The same for an answer without a body, whatever body was given.
    #[inline(never)]
    fn framing_of_none(&self, status: Status, framing: Framing) -> (Framing, bool) {
        if status.has_no_body() || accepts_tunnel(self.facts, status) {
            (Framing::Nothing, false)
        } else if status == Status::RESET_CONTENT {
            (Framing::Length(0), false)
        } else {
            (framing, self.facts & HEAD == 0)
        }
    }

    #[inline(always)]
    pub(super) fn may_begin(&mut self, what: &str, status: Status) -> bool {
        let right = self.stage == Stage::Due && !status.is_informational();
        if !right {
            self.misused(what);
        }
        right
    }

    /// Writes a head, and `body` after it.
    #[inline]
    pub(super) fn head(
        &mut self,
        cx: &mut Context<'_>,
        status: Status,
        headers: &[Header<'_>],
        framing: Framing,
        body: &[u8],
    ) {
        if cx.is_stopping() {
            self.keep_no_longer();
        }
        let facts = self.facts;
        cx.compose(|out, date| {
            out.reserve(256 + body.len());
            if status == Status::OK {
                out.extend_from_slice(date);
            } else {
                status.put(out);
                out.extend_from_slice(&date[OK_LINE - DATE_LINE..]);
            }
            headers.iter().for_each(|header| header.put(out));
            if facts & (KEEP | HTTP10) != KEEP {
                out.extend_from_slice(match facts & KEEP {
                    0 if accepts_tunnel(facts, status) => b"",
                    0 => b"connection: close\r\n",
                    _ => b"connection: keep-alive\r\n",
                });
            }
            match framing {
                Framing::Length(length) => put_length(out, length),
                Framing::Nothing => out.extend_from_slice(b"\r\n"),
                Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
            }
            out.extend_from_slice(body);
        });
    }

    #[cold]
    pub(super) fn misused(&mut self, what: &str) {
        if self.facts & WARNED == 0 {
            self.facts |= WARNED;
            log::warn!(
                target: "lariat::http",
                "an answer was misused, which is dropped: {what} (answer {:?})",
                self.stage,
            );
        }
    }
}

/// Whether this status turns the connection into a tunnel: what follows its head is no longer HTTP.
fn accepts_tunnel(facts: u8, status: Status) -> bool {
    facts & CONNECT != 0 && status.is_success()
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("number", &self.number)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
