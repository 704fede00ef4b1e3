//! A connection that is handed over to another protocol, by an upgrade or as a tunnel.

use std::fmt;

use super::encoding::Framing;
use super::header::is_token;
use super::response::Response;
use super::stage::{CONNECT, Stage, UPGRADES};
use super::{Header, Status};
use crate::date::{DATE_LINE, OK_LINE};
use crate::protocol::{Context, Protocol};

/// Why [`Response::upgrade`] or [`Response::tunnel`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverRefused {
    why: &'static str,
}

impl fmt::Display for HandoverRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot hand the connection over: {}", self.why)
    }
}

impl std::error::Error for HandoverRefused {}

/// `protocol-name [ "/" protocol-version ]`, both of them tokens (RFC 9110, 7.8).
fn is_protocol(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_token);
    match text.split_once('/') {
        Some((name, version)) => is_word(name) && is_word(version),
        None => is_word(text),
    }
}

fn refused(why: &'static str) -> Result<(), HandoverRefused> {
    Err(HandoverRefused { why })
}

impl Response {
    /// Answers 101 and hands the connection over to `next`. `protocol` is the name for the
    /// `upgrade` header, `websocket` or `name/version`. `next` first sees the bytes that the client
    /// has already sent.
    ///
    /// # Errors
    ///
    /// The client did not [ask](super::Request::upgrade) for an upgrade, its body is not whole, the
    /// request is answered already, or `protocol` is not a protocol name. Nothing is sent, and
    /// `next` is dropped.
    pub fn upgrade(
        &mut self,
        cx: &mut Context<'_>,
        protocol: &str,
        headers: &[Header<'_>],
        next: impl Protocol + Send + 'static,
    ) -> Result<(), HandoverRefused> {
        self.switch(cx, protocol, headers)?;
        cx.replace(next);
        Ok(())
    }

    /// Upgrades like [`upgrade`](Response::upgrade); `next` need not be `Send`.
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
    ) -> Result<(), HandoverRefused> {
        self.switch(cx, protocol, headers)?;
        cx.replace_local(next);
        Ok(())
    }

    /// Answers `CONNECT` with 200 and hands the connection over to `next`, which first sees
    /// the bytes after the request. The answer has neither length nor body.
    ///
    /// `CONNECT` reaches a handler only with [`Limits::connect`](super::Limits::connect). A proxy
    /// connects to [`Request::host`](super::Request::host) first. When a note says that this
    /// connection is open, the proxy opens the tunnel; otherwise it [sends](Response::send) 502.
    ///
    /// After any other answer than 2xx the connection closes, because the following bytes may or
    /// may not be a request. A 2xx that is sent in another way, without
    /// [`Context::replace`](crate::Context::replace) in the same callback, is a tunnel that ends at
    /// once.
    ///
    /// ```
    /// use lariat::http::{Handler, Header, Request, Response, Status};
    /// use lariat::{Context, Input, Outcome, Protocol};
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    ///         cx.write(input);
    ///         input.consume_all();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// struct Proxy;
    /// impl Handler for Proxy {
    ///     fn request(
    ///         &mut self,
    ///         cx: &mut Context<'_>,
    ///         request: &Request<'_>,
    ///         response: &mut Response,
    ///     ) -> Outcome {
    ///         match (request.method(), request.host()) {
    ///             ("CONNECT", Some("echo:7")) => response.tunnel(cx, &[], Echo)?,
    ///             _ => response.send(cx, Status::FORBIDDEN, &[Header::TEXT], "only echo:7\n"),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The request is not `CONNECT`, or answered already. Nothing is sent, and `next` is dropped.
    pub fn tunnel(
        &mut self,
        cx: &mut Context<'_>,
        headers: &[Header<'_>],
        next: impl Protocol + Send + 'static,
    ) -> Result<(), HandoverRefused> {
        self.open_tunnel(cx, headers)?;
        cx.replace(next);
        Ok(())
    }

    /// Opens a tunnel like [`tunnel`](Response::tunnel); `next` need not be `Send`.
    ///
    /// # Errors
    ///
    /// As [`tunnel`](Response::tunnel).
    pub fn tunnel_local(
        &mut self,
        cx: &mut Context<'_>,
        headers: &[Header<'_>],
        next: impl Protocol + 'static,
    ) -> Result<(), HandoverRefused> {
        self.open_tunnel(cx, headers)?;
        cx.replace_local(next);
        Ok(())
    }

    fn switch(
        &mut self,
        cx: &mut Context<'_>,
        protocol: &str,
        headers: &[Header<'_>],
    ) -> Result<(), HandoverRefused> {
        if self.stage != Stage::Due {
            return refused("no request waits for an answer");
        }
        if self.facts & UPGRADES == 0 {
            return refused("the client did not ask for an upgrade");
        }
        if !self.body.is_whole() {
            return refused("the body of the request is not whole");
        }
        if !is_protocol(protocol) {
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
        self.give_up();
        Ok(())
    }

    fn open_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        headers: &[Header<'_>],
    ) -> Result<(), HandoverRefused> {
        if self.stage != Stage::Due {
            return refused("no request waits for an answer");
        }
        if self.facts & CONNECT == 0 {
            return refused("the client did not ask for a tunnel");
        }
        self.head(cx, Status::OK, headers, Framing::Nothing, &[]);
        self.give_up();
        Ok(())
    }
}
