//! How far the answer to a request is, and the facts about the request that decide how it ends.

use super::Status;
use super::body::Body;
use super::request::{Length, Request, Version};
use super::response::Response;

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

/// Facts about the present request.
pub(super) const HEAD: u8 = 1;
pub(super) const HTTP10: u8 = 1 << 1;
/// The connection is to be kept.
pub(super) const KEEP: u8 = 1 << 2;
/// The client waits for `100 Continue`.
pub(super) const EXPECTS: u8 = 1 << 3;
/// The client asked for an upgrade.
pub(super) const UPGRADES: u8 = 1 << 4;
/// The body is to be collected.
pub(super) const COLLECTS: u8 = 1 << 5;
/// A mistake of the handler has been logged.
const WARNED: u8 = 1 << 6;
/// The client asked for a tunnel.
pub(super) const CONNECT: u8 = 1 << 7;

impl Response {
    /// A request has arrived.
    #[inline]
    pub(super) fn begin(&mut self, request: &Request<'_>) {
        self.body = Body::new(request.length);
        self.number = self.number.wrapping_add(1);
        self.in_parts = false;
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

    #[inline(always)]
    pub(super) fn collects(&self) -> bool {
        self.facts & COLLECTS != 0
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

    #[inline(always)]
    pub(super) fn may_begin(&mut self, what: &str, status: Status) -> bool {
        let right = self.stage == Stage::Due && !status.is_informational();
        if !right {
            self.misused(what);
        }
        right
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
