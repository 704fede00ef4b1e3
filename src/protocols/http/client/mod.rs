//! The client side: one request, one response. For health checks and tests.

mod request;
mod response;

use std::fmt;

use bytes::Bytes;

use super::Status;
use super::body::{Body, Piece};
use super::framing::decimal;
use super::limits::{DEFAULT, FIELDS_MAX};
use super::request::Length;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::timer::Timer;

pub use request::{ClientRequest, InvalidRequest};
pub use response::{ClientError, ClientResponse};

const DEADLINE: Timer = Timer::reserved(0);

type Done = Box<dyn FnOnce(&mut Context<'_>, Result<ClientResponse, ClientError>) + Send>;

/// The protocol of [`ClientRequest::then`]: it sends one request and reads one response.
pub struct Client {
    request: ClientRequest,
    /// What is still to be written of the body, and after it.
    unwritten: Bytes,
    end: &'static [u8],
    /// Bytes of an incomplete head that were searched for its end.
    looked: usize,
    /// Some once the response's head has arrived.
    response: Option<ClientResponse>,
    body: Body,
    /// The end of the connection ends the body.
    until_end: bool,
    done: Option<Done>,
}

impl Client {
    fn new(request: ClientRequest, done: Done) -> Client {
        Client {
            request,
            unwritten: Bytes::new(),
            end: b"",
            looked: 0,
            response: None,
            body: Body::NONE,
            until_end: false,
            done: Some(done),
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>, result: Result<ClientResponse, ClientError>) {
        if let Some(done) = self.done.take() {
            done(cx, result);
        }
    }

    /// Writes as much of the body as the output may hold. The rest waits for `drained`.
    fn write_body(&mut self, cx: &mut Context<'_>) {
        while !cx.is_congested() {
            if self.unwritten.is_empty() {
                return cx.write(std::mem::take(&mut self.end));
            }
            let room = cx.limits().output_max.saturating_sub(cx.unsent()).max(1);
            let count = room.min(self.unwritten.len());
            cx.write_bytes(self.unwritten.split_to(count));
        }
    }

    /// Takes what has arrived; true when the response is whole.
    fn take(&mut self, rest: &mut &[u8]) -> Result<bool, ClientError> {
        while self.response.is_none() {
            if !self.take_head(rest)? {
                return Ok(false);
            }
        }
        let Some(response) = &mut self.response else { return Ok(false) };
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
            if response.body.len() + data.len() > self.request.body_max {
                return Err(ClientError::BodyTooLarge);
            }
            response.body.extend_from_slice(data);
            if self.until_end {
                return Ok(false);
            }
        }
    }

    /// Takes a head; true when it was whole. Informational responses are skipped.
    fn take_head(&mut self, rest: &mut &[u8]) -> Result<bool, ClientError> {
        let window = &rest[..rest.len().min(DEFAULT.head_max)];
        let full = window.len() == DEFAULT.head_max;
        // Only the end of a line can end a head: single bytes must not cost a parse each.
        let fresh = &window[self.looked.min(window.len())..];
        if !full && !fresh.contains(&b'\n') {
            self.looked = window.len();
            return Ok(false);
        }
        self.looked = window.len();
        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut found = httparse::Response::new(&mut slots);
        let length = match found.parse(window) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if full => return Err(ClientError::HeadTooLarge),
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(httparse::Error::TooManyHeaders) => return Err(ClientError::HeadTooLarge),
            Err(_) => return Err(ClientError::Malformed("its head cannot be parsed")),
        };
        let Some(status) = found.code.and_then(Status::new) else {
            return Err(ClientError::Malformed("its status is none"));
        };
        *rest = &rest[length..];
        self.looked = 0;
        if status == Status::SWITCHING_PROTOCOLS {
            return Err(ClientError::Malformed("an upgrade that was not asked for"));
        }
        if status.is_informational() {
            return Ok(true);
        }
        self.frame(status, found.headers)?;
        let headers = found.headers.iter();
        let headers = headers.map(|h| (h.name.to_owned(), Bytes::copy_from_slice(h.value)));
        let headers = headers.collect();
        self.response = Some(ClientResponse { status, headers, body: Vec::new() });
        Ok(true)
    }

    /// Where the body ends. RFC 9112, section 6.3.
    fn frame(
        &mut self,
        status: Status,
        headers: &[httparse::Header<'_>],
    ) -> Result<(), ClientError> {
        let (mut length, mut chunked) = (None, false);
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let number =
                    decimal(header.value).filter(|number| length.unwrap_or(*number) == *number);
                let Some(number) = number else {
                    return Err(ClientError::Malformed("its content-length is not one number"));
                };
                length = Some(number);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ClientError::Malformed("its transfer coding is not chunked alone"));
                }
                chunked = true;
            }
        }
        if self.request.is_head || status.has_no_body() {
            return Ok(());
        }
        self.body = Body::new(match (length, chunked) {
            (Some(_), true) => return Err(ClientError::Malformed("it has both lengths")),
            (Some(length), _) if length > self.request.body_max as u64 => {
                return Err(ClientError::BodyTooLarge);
            }
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

impl Protocol for Client {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(DEADLINE, self.request.timeout);
        let (head, body, end) = self.request.take_message();
        cx.write(&head);
        (self.unwritten, self.end) = (body, end);
        self.write_body(cx);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut rest = input.shown();
        let result = self.take(&mut rest);
        input.consume(input.len() - rest.len());
        match result {
            Ok(false) => {
                if !rest.is_empty() {
                    // Without this the input would be shown again before more of it has arrived.
                    input.need(rest.len() + 1);
                }
                return Ok(());
            }
            Ok(true) => {
                if let Some(response) = self.response.take() {
                    self.finish(cx, Ok(response));
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
            if let Some(response) = self.response.take() {
                self.finish(cx, Ok(response));
            }
        }
        // Without a response, `closed` gives the reason.
        cx.close();
        Ok(())
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.write_body(cx);
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer) -> Outcome {
        self.finish(cx, Err(ClientError::TimedOut));
        cx.abort();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.finish(cx, Err(ClientError::Ended(reason.clone())));
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("request", &self.request).finish_non_exhaustive()
    }
}
