//! What the library writes of an answer: its head, the framing of its body, `100 Continue`.

use super::Status;
use super::digits::put_length;
use super::header::Header;
use super::response::Response;
use super::stage::{CONNECT, EXPECTS, HEAD, HTTP10, KEEP, Stage};
use crate::date::{DATE_LINE, OK_LINE};
use crate::protocol::Context;

/// How a head says where the body after it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// It does not: there is no body, or the body ends with the connection.
    Nothing,
    Length(u64),
    Chunked,
}

impl Response {
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
}

/// Whether this status turns the connection into a tunnel: what follows its head is no longer HTTP.
fn accepts_tunnel(facts: u8, status: Status) -> bool {
    facts & CONNECT != 0 && status.is_success()
}
