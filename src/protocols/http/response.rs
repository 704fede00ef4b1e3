//! The answer to a request: written as it is made, framed by the library.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Status;
use super::body::Body;
use super::header::{Header, is_token};
use super::request::{Length, Request, Version};
use super::rules::{DEFAULT, Rules};
use super::upgrade::UpgradeRefused;
use crate::date::{DATE_LINE, OK_LINE};
use crate::protocol::{Context, Protocol};

/// Bodies up to this length are put behind their head; longer ones are written by themselves.
const COMPOSED_MAX: usize = 4096;

/// How far an answer is, and how its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No request waits for one.
    Idle,
    /// Not begun.
    Due,
    /// `left` bytes are missing.
    Sized,
    Chunked,
    /// HTTP/1.0 without a length: until the connection ends.
    UntilClose,
    /// To HEAD, or with a status that has none: what is written to it is dropped.
    Bodiless,
    Done,
    /// The connection is given up or belongs to another protocol.
    Over,
}

/// Facts about the present request.
const HEAD: u8 = 1;
const HTTP10: u8 = 1 << 1;
/// The connection is to be kept.
const KEEP: u8 = 1 << 2;
/// The client waits for `100 Continue`.
const EXPECTS: u8 = 1 << 3;
/// The client asked for an upgrade.
const UPGRADES: u8 = 1 << 4;
/// The body is to be collected.
const COLLECTS: u8 = 1 << 5;
/// A mistake of the handler has been logged.
const WARNED: u8 = 1 << 6;

/// The answer to the request that a connection is at. A handler is given it in every callback; it
/// may answer in the same callback, in a later one, or bit by bit.
///
/// Three ways: [`send`](Response::send) answers at once; [`start`](Response::start) or
/// [`start_sized`](Response::start_sized), then [`write`](Response::write), then
/// [`finish`](Response::finish) stream; [`upgrade`](Response::upgrade) hands the connection over.
/// What does not fit the present state (a second answer, bytes past the announced length) is
/// dropped and logged once per request.
///
/// Do not write to the connection by [`Context::write`]: those bytes would stand between answers.
pub struct Response {
    pub(super) rules: Option<Arc<Rules>>,
    /// The request's body.
    pub(super) body: Body,
    /// Bytes of a sized answer that are missing.
    left: u64,
    /// The body as far as it is collected.
    pub(super) collected: Option<Vec<u8>>,
    number: u32,
    stage: Stage,
    facts: u8,
}

impl Response {
    pub(super) fn new(rules: Option<Arc<Rules>>) -> Response {
        Response {
            rules,
            body: Body::NONE,
            left: 0,
            collected: None,
            number: 0,
            stage: Stage::Idle,
            facts: 0,
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        self.rules.as_deref().unwrap_or(&DEFAULT)
    }

    /// A request has come.
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

    /// The exchange is over: whether the connection is kept.
    #[inline]
    pub(super) fn end(&mut self) -> bool {
        self.stage = Stage::Idle;
        self.collected = None;
        self.facts & KEEP != 0
    }

    /// Whether the connection is kept behind this exchange.
    #[inline(always)]
    pub(super) fn keeps(&self) -> bool {
        self.facts & KEEP != 0
    }

    /// The library's own answer to what cannot be served.
    #[cold]
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, status: Status) {
        if self.stage == Stage::Idle {
            // What was asked is not known: the answer is to be understood by anybody.
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

    /// Nothing more is to come after this exchange.
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

    /// The number of the present request on its connection, from 1: a late answer can tell by it
    /// whether it still concerns anybody. It wraps at 2^32.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Closes the connection behind this answer, and says so in its head if that is still to come.
    pub fn close_after(&mut self) {
        self.keep_no_longer();
    }

    /// Collects the body of this request: [`Handler::collected`](super::Handler::collected) gets
    /// the whole of it in place of the pieces. Above [`Rules::collect_max`] \[1 MiB\] the request
    /// is answered 413. To be called in [`Handler::request`](super::Handler::request).
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

    /// Sends the whole answer: status, headers, `content-length` and `body`. To `HEAD` and with
    /// 204, 205 or 304 the body is left out. A body above
    /// [`Limits::output_max`](crate::Limits::output_max) \[8 MiB\] does not fit the queue and ends
    /// the connection: such are streamed, as the client takes them.
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
        let body = if status == Status::RESET_CONTENT { &[] } else { body.as_ref() };
        if !self.may_begin("send", status) {
            return;
        }
        self.give_up_body();
        let sent = if self.facts & HEAD != 0 || status.has_no_body() { &[][..] } else { body };
        let together = if sent.len() <= COMPOSED_MAX { sent } else { &[] };
        self.head(cx, status, headers, Some(body.len() as u64), together);
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
        self.head(cx, status, headers, Some(body.len() as u64), &[]);
        if self.facts & HEAD == 0 && !status.has_no_body() {
            cx.write_bytes(body);
        }
        self.stage = Stage::Done;
    }

    /// Begins an answer whose length is not known: chunked, and to HTTP/1.0 until the connection
    /// ends.
    pub fn start(&mut self, cx: &mut Context<'_>, status: Status, headers: &[Header<'_>]) {
        if !self.may_begin("start", status) {
            return;
        }
        self.give_up_held_back();
        let stage = match (self.facts & HTTP10 != 0, self.has_no_body(status)) {
            (_, true) => Stage::Bodiless,
            (true, _) => Stage::UntilClose,
            (false, _) => Stage::Chunked,
        };
        if stage == Stage::UntilClose {
            self.keep_no_longer();
        }
        self.head(cx, status, headers, None, &[]);
        self.stage = stage;
    }

    /// Begins an answer whose body has `length` bytes.
    pub fn start_sized(
        &mut self,
        cx: &mut Context<'_>,
        status: Status,
        headers: &[Header<'_>],
        length: u64,
    ) {
        if !self.may_begin("start_sized", status) {
            return;
        }
        self.give_up_held_back();
        self.head(cx, status, headers, Some(length), &[]);
        self.left = length;
        self.stage = if self.has_no_body(status) { Stage::Bodiless } else { Stage::Sized };
    }

    /// Writes a part of the body of a started answer. While
    /// [`is_congested`](Context::is_congested), a producer stops until
    /// [`Handler::drained`](super::Handler::drained); what is written from
    /// [`Handler::body`](super::Handler::body) holds its own input back without that.
    pub fn write(&mut self, cx: &mut Context<'_>, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match self.stage {
            Stage::Chunked if bytes.is_empty() => {}
            Stage::Chunked => {
                cx.compose(|out, _| {
                    put_hex(out, bytes.len());
                    out.extend_from_slice(b"\r\n");
                    out.extend_from_slice(bytes);
                    out.extend_from_slice(b"\r\n");
                });
            }
            Stage::Sized => {
                let fits = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= fits as u64;
                cx.write(&bytes[..fits]);
                if fits < bytes.len() {
                    self.misused("write: more bytes than start_sized had announced");
                }
            }
            Stage::UntilClose => cx.write(bytes),
            Stage::Bodiless => {}
            _ => self.misused("write: no answer was started"),
        }
    }

    /// Ends a started answer. One that is shorter than announced closes the connection, which is
    /// all that can still tell the client.
    pub fn finish(&mut self, cx: &mut Context<'_>) {
        match self.stage {
            Stage::Chunked => cx.write(b"0\r\n\r\n"),
            Stage::Sized if self.left > 0 => {
                self.keep_no_longer();
                self.misused("finish: fewer bytes than start_sized had announced");
            }
            Stage::Sized | Stage::UntilClose | Stage::Bodiless => {}
            _ => return self.misused("finish: no answer was started"),
        }
        self.give_up_body();
        self.stage = Stage::Done;
    }

    /// Sends an informational answer ahead of the final one: `103 Early Hints`, `102 Processing`.
    /// HTTP/1.0 does not know them: nothing is sent.
    pub fn inform(&mut self, cx: &mut Context<'_>, status: Status, headers: &[Header<'_>]) {
        if self.stage != Stage::Due || !status.is_informational() || status.code() == 101 {
            return self.misused("inform: not before a final answer, or not 1xx");
        }
        if self.facts & HTTP10 != 0 {
            return;
        }
        if status == Status::CONTINUE {
            self.facts &= !EXPECTS;
        }
        cx.compose(|out, _| {
            status.put(out);
            out.extend_from_slice(b"\r\n");
            headers.iter().for_each(|header| header.put(out));
            out.extend_from_slice(b"\r\n");
        });
    }

    /// Answers 101 and lets `next` take the connection over; `protocol` is the name for the
    /// `upgrade` header. Bytes that the client has sent already are the first that `next` is shown.
    ///
    /// # Errors
    ///
    /// The client did not [ask](Request::upgrade) for an upgrade, its body is not whole, the
    /// request is answered already, or `protocol` is no name. Nothing is sent, and `next` is
    /// dropped.
    pub fn upgrade(
        &mut self,
        cx: &mut Context<'_>,
        protocol: &str,
        headers: &[Header<'_>],
        next: impl Protocol + Send + 'static,
    ) -> Result<(), UpgradeRefused> {
        self.switch(cx, protocol, headers)?;
        cx.replace(next);
        Ok(())
    }

    /// Upgrades like [`upgrade`](Response::upgrade), to a protocol that may not leave this thread.
    ///
    /// # Errors
    ///
    /// As [`upgrade`](Response::upgrade).
    pub fn upgrade_local(
        &mut self,
        cx: &mut Context<'_>,
        protocol: &str,
        headers: &[Header<'_>],
        next: impl Protocol + 'static,
    ) -> Result<(), UpgradeRefused> {
        self.switch(cx, protocol, headers)?;
        cx.replace_local(next);
        Ok(())
    }

    fn switch(
        &mut self,
        cx: &mut Context<'_>,
        protocol: &str,
        headers: &[Header<'_>],
    ) -> Result<(), UpgradeRefused> {
        let refused = |why| Err(UpgradeRefused { why });
        if self.stage != Stage::Due {
            return refused("no request waits for an answer");
        }
        if self.facts & UPGRADES == 0 {
            return refused("the client did not ask for an upgrade");
        }
        if !self.body.is_whole() {
            return refused("the body of the request is not whole");
        }
        let named = |byte: u8| is_token(byte) || byte == b'/';
        if protocol.is_empty() || !protocol.bytes().all(named) {
            return refused("the name of the protocol is none");
        }
        cx.compose(|out, date| {
            Status::SWITCHING_PROTOCOLS.put(out);
            out.extend_from_slice(&date[OK_LINE - DATE_LINE..]);
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
            out.extend_from_slice(protocol.as_bytes());
            out.extend_from_slice(b"\r\n");
            headers.iter().for_each(|header| header.put(out));
            out.extend_from_slice(b"\r\n");
        });
        self.stage = Stage::Over;
        Ok(())
    }

    // ---- inside ------------------------------------------------------------------------------

    /// Before the client was asked for its body: it may never send that, and nothing can follow.
    fn give_up_held_back(&mut self) {
        if self.facts & EXPECTS != 0 {
            self.keep_no_longer();
        }
    }

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

    /// The answer is given before the request is whole. Where the rest of the body may never come,
    /// or is too much to throw away, the connection cannot be kept.
    #[inline(always)]
    fn give_up_body(&mut self) {
        if !self.body.is_whole() {
            let much = self.body.left().is_some_and(|left| left > self.rules().discard_max);
            if much || self.facts & EXPECTS != 0 {
                self.keep_no_longer();
            }
        }
    }

    #[inline(always)]
    fn has_no_body(&self, status: Status) -> bool {
        self.facts & HEAD != 0 || status.has_no_body()
    }

    #[inline(always)]
    fn may_begin(&mut self, what: &str, status: Status) -> bool {
        let right = self.stage == Stage::Due && !status.is_informational();
        if !right {
            self.misused(what);
        }
        right
    }

    /// Writes a head, and `body` behind it. `length` is None where it is not known.
    #[inline]
    fn head(
        &mut self,
        cx: &mut Context<'_>,
        status: Status,
        headers: &[Header<'_>],
        length: Option<u64>,
        body: &[u8],
    ) {
        if cx.driver().is_stopping() {
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
                    0 => b"connection: close\r\n",
                    _ => b"connection: keep-alive\r\n",
                });
            }
            match length {
                _ if status.has_no_body() => out.extend_from_slice(b"\r\n"),
                Some(length) => put_length(out, length),
                None if facts & HTTP10 != 0 => out.extend_from_slice(b"\r\n"),
                None => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
            }
            out.extend_from_slice(body);
        });
    }

    #[cold]
    fn misused(&mut self, what: &str) {
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

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("number", &self.number)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// Appends the header with the length, and the end of the head.
#[inline]
pub(super) fn put_length(out: &mut Vec<u8>, length: u64) {
    const NAME: &[u8; 16] = b"content-length: ";
    const END: &[u8; 4] = b"\r\n\r\n";
    // From its end, as digits come; then all at once.
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
