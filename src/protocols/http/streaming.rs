//! An answer in parts: a head, then the body as it is made, then its end.

use super::digits::put_hex;
use super::encoding::Framing;
use super::response::Response;
use super::stage::{EXPECTS, HTTP10, Stage};
use super::{Header, Status};
use crate::protocol::Context;

impl Response {
    /// Begins an answer of unknown length: chunked; for HTTP/1.0 until the connection ends.
    pub fn start(&mut self, cx: &mut Context<'_>, status: Status, headers: &[Header<'_>]) {
        if !self.may_begin("start", status) {
            return;
        }
        self.give_up_held_back();
        let (framing, follows) = self.framing(status, None);
        let stage = match framing {
            _ if !follows => Stage::Bodiless,
            Framing::Chunked => Stage::Chunked,
            _ => Stage::UntilClose,
        };
        if stage == Stage::UntilClose {
            self.keep_no_longer();
        }
        self.head(cx, status, headers, framing, &[]);
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
        let (framing, follows) = self.framing(status, Some(length));
        self.head(cx, status, headers, framing, &[]);
        self.left = length;
        self.stage = if follows { Stage::Sized } else { Stage::Bodiless };
    }

    /// Writes a part of the body of a started answer. While [`is_congested`](Context::is_congested)
    /// is true, a producer stops until [`Handler::drained`](super::Handler::drained). Writes from
    /// [`Handler::body`](super::Handler::body) hold back their own input without that.
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

    /// Ends a started answer. An answer shorter than announced closes the connection, because
    /// nothing else can tell the client.
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

    /// Sends an informational answer before the final one: `103 Early Hints`, `102 Processing`. To
    /// an HTTP/1.0 client nothing is sent, because HTTP/1.0 has no such answers.
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

    /// Before the client was asked for its body: it may never send the body, and nothing can
    /// follow.
    fn give_up_held_back(&mut self) {
        if self.facts & EXPECTS != 0 {
            self.keep_no_longer();
        }
    }
}
