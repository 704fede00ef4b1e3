//! The client side: one request, one reply. For health checks, tests and the like.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::body::{Body, Piece};
use super::fault::Fault;
use super::framing::decimal;
use super::header::{Header, InvalidHeader, is_token};
use super::request::Length;
use super::response::{put_hex, put_length};
use super::rules::{DEFAULT, FIELDS_MAX};
use super::{Status, head, target};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::timer::Timer;

const DEADLINE: Timer = Timer::reserved(2);

/// A request to be sent on a connection of its own, and its reply awaited.
///
/// ```no_run
/// use std::time::Duration;
/// use lariat::http::Ask;
/// use lariat::reactor::Reactor;
///
/// let ask = Ask::get("localhost:8080", "/health").unwrap().within(Duration::from_secs(2));
/// let protocol = ask.then(|cx, reply| {
///     match reply {
///         Ok(reply) => println!("{}: {} bytes", reply.status(), reply.body().len()),
///         Err(error) => println!("no reply: {error}"),
///     }
///     cx.driver().shutdown();
/// });
/// let mut reactor = Reactor::new()?;
/// reactor.connect(([127, 0, 0, 1], 8080), protocol);
/// reactor.run()?;
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ask {
    /// The request line and all headers but those of the framing.
    head: Vec<u8>,
    is_head: bool,
    body: Bytes,
    chunked: bool,
    deadline: Duration,
    reply_max: usize,
}

impl Ask {
    /// A GET of `target` (`/path?query`) from `host`, a name or address and perhaps a port.
    ///
    /// # Errors
    ///
    /// Host or target have a character that they cannot have.
    pub fn get(host: &str, target: &str) -> Result<Ask, InvalidHeader> {
        Ask::new("GET", host, target)
    }

    /// A request with any method.
    ///
    /// # Errors
    ///
    /// Method, host or target have a character that they cannot have.
    pub fn new(method: &str, host: &str, target: &str) -> Result<Ask, InvalidHeader> {
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(InvalidHeader::new("the method is not a token"));
        }
        if !target::is_authority(host.as_bytes()) {
            return Err(InvalidHeader::new("the host is none"));
        }
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
        // As a server would look at it.
        let whole = [&head[..], b"\r\n"].concat();
        let seen = match head::parse(&whole, true, &mut 0, &DEFAULT) {
            Ok(Some((request, length))) if length == whole.len() => Some(request.target()),
            _ => None,
        };
        // The same target, and not one that brings headers or another request along.
        if seen != Some(target) {
            return Err(InvalidHeader::new("the target is none for this method"));
        }
        Ok(Ask {
            head,
            is_head: method == "HEAD",
            body: Bytes::new(),
            chunked: false,
            deadline: Duration::from_secs(30),
            reply_max: DEFAULT.collect_max,
        })
    }

    /// Adds a header.
    pub fn header(mut self, header: Header<'_>) -> Ask {
        header.put(&mut self.head);
        self
    }

    /// Gives it a body, sent with its length.
    pub fn body(self, body: impl Into<Bytes>) -> Ask {
        Ask { body: body.into(), chunked: false, ..self }
    }

    /// Gives it a body, sent as a chunk.
    pub fn chunked_body(self, body: impl Into<Bytes>) -> Ask {
        Ask { body: body.into(), chunked: true, ..self }
    }

    /// The time from the opened connection to the whole reply \[30 s\]. For the connect itself
    /// there is [`Limits::connect`](crate::Limits::connect).
    pub fn within(self, deadline: Duration) -> Ask {
        Ask { deadline, ..self }
    }

    /// Bytes that the body of the reply may have \[1 MiB\].
    pub fn reply_max(self, reply_max: usize) -> Ask {
        Ask { reply_max, ..self }
    }

    /// The protocol that asks, for `connect` on any driver. `done` is called exactly once, with the
    /// reply or with why there is none; the connection is closed then.
    pub fn then(
        self,
        done: impl FnOnce(&mut Context<'_>, Result<Reply, NoReply>) + Send + 'static,
    ) -> Asking {
        Asking {
            ask: self,
            reply: None,
            body: Body::NONE,
            until_end: false,
            done: Some(Box::new(done)),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"connection: close\r\n");
        if self.chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            if !self.body.is_empty() {
                put_hex(out, self.body.len());
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(&self.body);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        } else if self.body.is_empty() {
            out.extend_from_slice(b"\r\n");
        } else {
            put_length(out, self.body.len() as u64);
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    status: Status,
    headers: Vec<(String, Bytes)>,
    body: Vec<u8>,
}

impl Reply {
    /// The status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The value of the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers, in the order they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Why there is no [`Reply`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NoReply {
    /// The connection could not be made, or ended before the reply was whole.
    Ended(CloseReason),
    /// The reply was not whole in time.
    TimedOut,
    /// What came is no HTTP, or a reply whose end cannot be told for certain.
    Malformed(&'static str),
    /// The reply is longer than [`Ask::reply_max`].
    TooLarge,
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoReply::Ended(reason) => write!(f, "the connection ended first: {reason}"),
            NoReply::TimedOut => f.write_str("the reply did not come in time"),
            NoReply::Malformed(why) => write!(f, "what came is no reply: {why}"),
            NoReply::TooLarge => f.write_str("the reply is too large"),
        }
    }
}

impl std::error::Error for NoReply {}

type Done = Box<dyn FnOnce(&mut Context<'_>, Result<Reply, NoReply>) + Send>;

/// The protocol of [`Ask::then`].
pub struct Asking {
    ask: Ask,
    /// Some once its head has come.
    reply: Option<Reply>,
    body: Body,
    /// The end of the connection is that of the body.
    until_end: bool,
    done: Option<Done>,
}

impl Asking {
    fn finish(&mut self, cx: &mut Context<'_>, result: Result<Reply, NoReply>) {
        if let Some(done) = self.done.take() {
            done(cx, result);
        }
    }

    /// Takes what has come; true when the reply is whole.
    fn take(&mut self, rest: &mut &[u8]) -> Result<bool, NoReply> {
        while self.reply.is_none() {
            if !self.take_head(rest)? {
                return Ok(false);
            }
        }
        let Some(reply) = &mut self.reply else { return Ok(false) };
        loop {
            let data = if self.until_end {
                std::mem::take(rest)
            } else {
                match self.body.advance(rest, &DEFAULT)? {
                    Piece::Data(data) => data,
                    Piece::More => return Ok(false),
                    Piece::End => return Ok(true),
                }
            };
            if reply.body.len() + data.len() > self.ask.reply_max {
                return Err(NoReply::TooLarge);
            }
            reply.body.extend_from_slice(data);
            if self.until_end {
                return Ok(false);
            }
        }
    }

    /// Takes a head; true when it was whole. Informational ones are read over.
    fn take_head(&mut self, rest: &mut &[u8]) -> Result<bool, NoReply> {
        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut found = httparse::Response::new(&mut slots);
        let window = &rest[..rest.len().min(DEFAULT.head_max)];
        let Ok(parsed) = found.parse(window) else {
            return Err(NoReply::Malformed("its head cannot be parsed"));
        };
        let httparse::Status::Complete(length) = parsed else {
            let full = window.len() == DEFAULT.head_max;
            return if full { Err(NoReply::TooLarge) } else { Ok(false) };
        };
        let Some(status) = found.code.and_then(Status::new) else {
            return Err(NoReply::Malformed("its status is none"));
        };
        *rest = &rest[length..];
        if status == Status::SWITCHING_PROTOCOLS {
            return Err(NoReply::Malformed("an upgrade that was not asked for"));
        }
        if status.is_informational() {
            return Ok(true);
        }
        self.frame(status, found.headers)?;
        let headers = found.headers.iter();
        let headers = headers.map(|h| (h.name.to_owned(), Bytes::copy_from_slice(h.value)));
        self.reply = Some(Reply { status, headers: headers.collect(), body: Vec::new() });
        Ok(true)
    }

    /// Where the body ends. RFC 9112, section 6.3.
    fn frame(&mut self, status: Status, headers: &[httparse::Header<'_>]) -> Result<(), NoReply> {
        let (mut length, mut chunked) = (None, false);
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let number =
                    decimal(header.value).filter(|number| length.unwrap_or(*number) == *number);
                let Some(number) = number else {
                    return Err(NoReply::Malformed("its content-length is not one number"));
                };
                length = Some(number);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(NoReply::Malformed("its transfer coding is not chunked alone"));
                }
                chunked = true;
            }
        }
        if self.ask.is_head || status.has_no_body() {
            return Ok(());
        }
        self.body = Body::new(match (length, chunked) {
            (Some(_), true) => return Err(NoReply::Malformed("it has both lengths")),
            (Some(0), _) => Length::None,
            (Some(length), _) => Length::Known(length),
            (None, true) => Length::Unknown,
            (None, false) => {
                self.until_end = true;
                Length::None
            }
        });
        Ok(())
    }
}

impl From<Fault> for NoReply {
    fn from(fault: Fault) -> NoReply {
        NoReply::Malformed(fault.why)
    }
}

impl Protocol for Asking {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(DEADLINE, self.ask.deadline);
        let mut head = Vec::new();
        self.ask.put(&mut head);
        cx.write(&head);
        if !self.ask.chunked {
            cx.write_bytes(std::mem::take(&mut self.ask.body));
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut rest = input.shown();
        let result = self.take(&mut rest);
        input.consume(input.len() - rest.len());
        match result {
            Ok(false) => return Ok(()),
            Ok(true) => {
                if let Some(reply) = self.reply.take() {
                    self.finish(cx, Ok(reply));
                }
            }
            Err(error) => self.finish(cx, Err(error)),
        }
        input.consume_all();
        cx.close();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        if self.until_end {
            if let Some(reply) = self.reply.take() {
                self.finish(cx, Ok(reply));
            }
        }
        // Without a reply, `closed` tells why.
        cx.close();
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.finish(cx, Err(NoReply::TimedOut));
        cx.abort();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.finish(cx, Err(NoReply::Ended(reason.clone())));
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("ask", &self.ask).finish_non_exhaustive()
    }
}
