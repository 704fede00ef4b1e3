//! The server side: requests in, one after the other, answers out.

use std::error::Error as StdError;
use std::fmt;

use super::body::Piece;
use super::fault::Fault;
use super::handler::Handler;
use super::limits::{DEFAULT, ValidLimits};
use super::watch::{DEADLINE, Passed, Phase, Watch};
use super::{Length, Request, Response, Status, head};
use crate::note::Note;
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::CloseReason;
use crate::timer::Timer;

/// HTTP/1.1 and HTTP/1.0 on a connection that was accepted: a [`Protocol`] around a [`Handler`].
///
/// ```no_run
/// use lariat::http::{Handler, Header, Http, Request, Response, Status};
/// use lariat::{Context, Outcome};
///
/// struct Hello;
///
/// impl Handler for Hello {
///     fn request(
///         &mut self,
///         cx: &mut Context<'_>,
///         request: &Request<'_>,
///         response: &mut Response,
///     ) -> Outcome {
///         match (request.method(), request.path()) {
///             ("GET" | "HEAD", "/") => {
///                 response.send(cx, Status::OK, &[Header::TEXT], b"hello\n");
///             }
///             _ => response.send(cx, Status::NOT_FOUND, &[Header::TEXT], b"not here\n"),
///         }
///         Ok(())
///     }
/// }
///
/// fn main() -> lariat::Result<()> {
///     lariat::reactor::serve("127.0.0.1:8080", || Http::new(Hello))
/// }
/// ```
pub struct Http<H> {
    handler: H,
    response: Response,
    watch: Watch,
    /// Bytes of an incomplete head that were searched for its end.
    looked: u32,
    /// Empty lines that were skipped since the last request.
    empty_lines: u8,
}

/// More empty lines before a request are part of its head, which has a deadline.
const EMPTY_LINES_MAX: u8 = 16;

/// What remains of the input when everything that can be taken now was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing, or what waits for an answer or for the end of a pause.
    None,
    /// The beginning of something that is not whole: it waits for more.
    Partial,
    /// Requests that wait for room in the output, or for the turns of others.
    PutOff,
}

/// Why a callback of the handler or the reading of a request ends the connection.
enum End {
    Fault(Fault),
    Handler(Box<dyn StdError + Send + Sync>),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Fault(fault)
    }
}

impl From<Box<dyn StdError + Send + Sync>> for End {
    fn from(error: Box<dyn StdError + Send + Sync>) -> End {
        End::Handler(error)
    }
}

impl<H: Handler> Http<H> {
    /// HTTP by the default [`Limits`](super::Limits).
    pub fn new(handler: H) -> Http<H> {
        Http::made(handler, None)
    }

    /// HTTP by other limits, checked by [`Limits::validate`](super::Limits::validate). All
    /// connections share them.
    pub fn with_limits(handler: H, limits: &ValidLimits) -> Http<H> {
        Http::made(handler, Some(limits.clone()))
    }

    fn made(handler: H, limits: Option<ValidLimits>) -> Http<H> {
        Http {
            handler,
            response: Response::new(limits),
            watch: Watch::new(),
            looked: 0,
            empty_lines: 0,
        }
    }

    /// Takes as many requests and pieces of bodies as can be taken now.
    #[inline]
    fn take(&mut self, cx: &mut Context<'_>, rest: &mut &[u8], last: bool) -> Result<Rest, End> {
        let mut taken = 0;
        // When a handler closes its connection, it gets no more requests.
        while !self.response.is_over() && !cx.is_ending() {
            if self.response.is_idle() {
                if rest.is_empty() {
                    break;
                }
                if matches!(rest.first(), Some(b'\r' | b'\n')) && self.skip_empty_lines(rest) {
                    break;
                }
                if cx.is_congested() || taken >= self.response.limits().pipeline_max {
                    return Ok(put_off(cx));
                }
                taken += 1;
                if !self.take_head(cx, rest, last)? {
                    return Ok(Rest::Partial);
                }
            } else if !self.response.body.is_whole() {
                if cx.is_paused() && !self.response.is_finished() {
                    break;
                }
                if !self.take_body(cx, rest)? {
                    return Ok(if rest.is_empty() { Rest::None } else { Rest::Partial });
                }
            } else {
                // The next request waits, and so does the client.
                if !rest.is_empty() {
                    cx.pause_reading();
                }
                break;
            }
        }
        Ok(Rest::None)
    }

    /// Empty lines before a request are not a request yet: some clients send one after a body.
    /// Their number is bounded, so that they cannot keep a connection open for ever. True when
    /// nothing else is there.
    #[cold]
    #[inline(never)]
    fn skip_empty_lines(&mut self, rest: &mut &[u8]) -> bool {
        while self.empty_lines < EMPTY_LINES_MAX {
            let bare = self.response.limits().bare_lf;
            *rest = match *rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\n', rest @ ..] if bare => rest,
                _ => break,
            };
            self.empty_lines += 1;
            self.looked = 0;
        }
        rest.is_empty()
    }

    /// Takes a head and calls the handler. False when it is not whole.
    #[inline]
    fn take_head(
        &mut self,
        cx: &mut Context<'_>,
        rest: &mut &[u8],
        last: bool,
    ) -> Result<bool, End> {
        let found = head::parse(rest, last, &mut self.looked, self.response.limits())?;
        let Some((request, length)) = found else { return Ok(false) };
        *rest = &rest[length..];
        self.looked = 0;
        self.empty_lines = 0;
        self.watch.end_head();
        self.response.begin(&request);
        if request.is_connect {
            self.begin_connect(&request)?;
        }
        self.handler.request(cx, &request, &mut self.response)?;
        if self.response.body.is_whole() {
            self.end_of_request(cx)?;
        } else {
            self.begin_body(cx, rest)?;
        }
        Ok(true)
    }

    /// The client asks for a tunnel.
    #[cold]
    fn begin_connect(&mut self, request: &Request<'_>) -> Result<(), Fault> {
        if !self.response.limits().connect {
            return Err(Fault::new(Status::NOT_IMPLEMENTED, "CONNECT, which is not allowed"));
        }
        if request.length != Length::None {
            // It could belong to the request or to the tunnel.
            return Err(Fault::bad("a CONNECT with a body"));
        }
        self.response.begin_connect();
        Ok(())
    }

    /// A body follows: it is collected, streamed or dropped, and may have to be asked for.
    fn begin_body(&mut self, cx: &mut Context<'_>, rest: &[u8]) -> Result<(), End> {
        self.watch.begin_body();
        if self.response.collects() && !self.response.is_finished() {
            let most = self.response.limits().collect_max as u64;
            if self.response.body.left().is_some_and(|left| left > most) {
                return Err(TOO_LARGE.into());
            }
            self.response.collected = Some(Vec::new());
        } else {
            self.response.in_parts = true;
        }
        if self.response.is_finished() && !self.response.keeps() {
            // Answered, and the rest is not worth reading: lingering drops it.
            self.end_of_exchange(cx);
            return Ok(());
        }
        self.response.invite_body(cx, !rest.is_empty());
        Ok(())
    }

    /// Takes one piece of a body. False when there is none now.
    fn take_body(&mut self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Result<bool, End> {
        let unwanted = self.response.is_finished();
        if unwanted {
            self.watch.drop_body();
        }
        let before = rest.len();
        let Response { body, limits, collected, .. } = &mut self.response;
        let limits = limits.as_deref().unwrap_or(&DEFAULT);
        let piece = body.advance(rest, limits)?;
        self.watch.receive(before - rest.len());
        match piece {
            Piece::More => return Ok(false),
            Piece::Data(_) if unwanted => {
                if self.watch.dropped() > limits.discard_max {
                    self.response.keep_no_longer();
                    self.end_of_exchange(cx);
                }
            }
            Piece::Data(data) => match collected {
                Some(collected) => {
                    if collected.len() + data.len() > limits.collect_max {
                        return Err(TOO_LARGE.into());
                    }
                    collected.extend_from_slice(data);
                }
                None => {
                    self.handler.body(cx, data, &mut self.response)?;
                    if self.response.is_finished() && !self.response.keeps() {
                        self.end_of_exchange(cx);
                    }
                }
            },
            Piece::End => {}
        }
        if self.response.body.is_whole() && !self.response.is_over() {
            self.end_of_request(cx)?;
        }
        Ok(true)
    }

    /// The request is whole.
    #[inline(always)]
    fn end_of_request(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if !self.response.is_finished() {
            if self.response.collects() {
                let body = self.response.collected.take().unwrap_or_default();
                self.handler.collected(cx, &body, &mut self.response)?;
            } else {
                self.handler.complete(cx, &mut self.response)?;
            }
        }
        self.end_if_finished(cx);
        Ok(())
    }

    /// Ends the exchange when both request and answer are whole; the next request may come then.
    #[inline(always)]
    fn end_if_finished(&mut self, cx: &mut Context<'_>) {
        if self.response.is_finished() && self.response.body.is_whole() {
            self.end_of_exchange(cx);
        }
    }

    #[inline(always)]
    fn end_of_exchange(&mut self, cx: &mut Context<'_>) {
        if self.response.is_over() || self.response.is_idle() {
            return;
        }
        if !self.response.end() {
            return self.end_of_connection(cx);
        }
        // A pause lasts as long as the exchange it was for.
        if cx.is_paused() {
            cx.resume_reading();
        }
    }

    /// The last exchange is over: in order, unless it has opened a tunnel.
    #[cold]
    #[inline(never)]
    fn end_of_connection(&mut self, cx: &mut Context<'_>) {
        let tunnel = self.response.asks_for_tunnel() && cx.is_replaced();
        self.response.give_up();
        if !tunnel {
            cx.close();
        }
    }

    /// After any callback: deadlines, and the end that the callback may have brought.
    #[inline]
    fn settle(&mut self, cx: &mut Context<'_>, result: Result<Rest, End>) -> Outcome {
        let (rest, outcome) = match result {
            Ok(rest) => (rest, Ok(())),
            Err(end) => (Rest::None, self.give_up(cx, end)),
        };
        if cx.is_paused() && self.response.is_done() {
            // The pause was for the sake of the answer: the rest of the body is to be skipped.
            cx.resume_reading();
        }
        let phase = if self.response.is_over() {
            Phase::Own
        } else if self.response.is_idle() {
            match rest {
                Rest::None => Phase::Idle,
                Rest::Partial if !cx.is_paused() => Phase::Head,
                _ => Phase::Own,
            }
        } else if !self.response.body.is_whole() {
            Phase::Body
        } else if self.response.is_due() {
            Phase::Answer
        } else {
            Phase::Own
        };
        self.watch.turn_to(phase, cx, &self.response);
        outcome
    }

    /// After a callback of the handler that is not about input.
    fn settle_call(&mut self, cx: &mut Context<'_>, outcome: Outcome) -> Outcome {
        let result = outcome.map_err(End::Handler);
        if result.is_ok() {
            if self.response.is_finished() && !self.response.keeps() {
                // The rest of the request is not worth waiting for.
                self.end_of_exchange(cx);
            }
            self.end_if_finished(cx);
        }
        // A head that has begun before is still expected.
        let rest = if self.looked > 0 { Rest::Partial } else { Rest::None };
        self.settle(cx, result.map(|()| rest))
    }

    /// Sends the client the fault, if an answer is still possible, and closes.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self, cx: &mut Context<'_>, end: End) -> Outcome {
        let answers = self.response.is_idle() || self.response.is_due();
        let outcome = match end {
            End::Fault(fault) => {
                log::debug!(
                    target: "lariat::http",
                    "{} of {}: {}, answered {}",
                    if self.response.is_idle() { "a head" } else { "a request" },
                    cx.peer_addr(),
                    fault.why,
                    fault.status,
                );
                if answers {
                    self.response.refuse(cx, fault.status);
                }
                cx.refuse(fault.status.code(), fault.why);
                Ok(())
            }
            End::Handler(error) => {
                if self.response.is_due() {
                    self.response.refuse(cx, Status::INTERNAL_SERVER_ERROR);
                }
                Err(error)
            }
        };
        if self.response.ends_with_connection() {
            // An orderly end would say that the answer was whole.
            cx.end_by_reset();
        }
        self.response.give_up();
        outcome
    }
}

/// The next request has to wait. For the turns of others the driver shows it again; for room in the
/// output it stays with the client.
#[cold]
fn put_off(cx: &mut Context<'_>) -> Rest {
    if cx.is_congested() {
        cx.pause_reading();
    }
    Rest::PutOff
}

const TOO_LARGE: Fault = Fault::new(Status::CONTENT_TOO_LARGE, "a body too large to collect");

impl<H: Handler> Protocol for Http<H> {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let outcome = self.handler.opened(cx);
        // After it, because new limits would remove this deadline.
        self.watch.open(cx, self.response.limits());
        outcome
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut rest = input.shown();
        let result = self.take(cx, &mut rest, false);
        input.consume(input.len() - rest.len());
        if let Ok(Rest::Partial) = result {
            // Without this the input would be shown again before more of it has arrived.
            input.need(rest.len() + 1);
        }
        self.settle(cx, result)
    }

    fn eof(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut rest = input.shown();
        let mut result = self.take(cx, &mut rest, true);
        if result.is_ok() && !self.response.is_over() {
            if self.response.is_idle() {
                self.response.give_up();
                cx.close();
            } else if self.response.body.is_whole() {
                // The client has finished sending only; it may wait for the answer.
                self.response.keep_no_longer();
            } else if self.response.is_finished() {
                self.response.keep_no_longer();
                self.end_of_exchange(cx);
            } else {
                result = Err(Fault::bad("the connection ended within a body").into());
            }
        }
        self.settle(cx, result.map(|_| Rest::None))
    }

    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.response.is_idle() {
            // Requests may have waited for room.
            cx.resume_reading();
            return Ok(());
        }
        self.watch.end_congestion();
        let outcome = self.handler.drained(cx, &mut self.response);
        self.settle_call(cx, outcome)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        if timer != DEADLINE {
            let outcome = self.handler.timeout(cx, timer, &mut self.response);
            return self.settle_call(cx, outcome);
        }
        let (status, why) = match self.watch.expire(cx, self.response.limits()) {
            Passed::Nothing => return Ok(()),
            Passed::Head => (Status::REQUEST_TIMEOUT, "a head that did not come in time"),
            Passed::Body => (Status::REQUEST_TIMEOUT, "a body that did not come in time"),
            Passed::Answer => {
                log::warn!(
                    target: "lariat::http",
                    "the handler {} has not answered {} in time",
                    std::any::type_name::<H>(),
                    cx.peer_addr(),
                );
                (Status::SERVICE_UNAVAILABLE, "no answer of the handler in time")
            }
        };
        self.settle(cx, Err(Fault::new(status, why).into()))
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let outcome = self.handler.notified(cx, note, &mut self.response);
        self.settle_call(cx, outcome)
    }

    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.response.is_idle() {
            self.response.give_up();
            cx.close();
            return Ok(());
        }
        self.response.keep_no_longer();
        // Answered already, while the rest of its body is dropped: there is nothing to finish.
        let outcome = match self.response.is_finished() {
            true => Ok(()),
            false => self.handler.stopping(cx, &mut self.response),
        };
        self.settle_call(cx, outcome)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        self.response.give_up();
        self.handler.closed(cx, reason);
    }

    fn name(&self) -> &str {
        std::any::type_name::<H>()
    }
}

impl<H> fmt::Debug for Http<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("response", &self.response).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_holds_little() {
        assert!(size_of::<Http<()>>() <= 112, "{} bytes", size_of::<Http<()>>());
    }
}
