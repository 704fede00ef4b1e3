//! The trait that a user of the protocol implements.

use super::{Request, Response};
use crate::note::Note;
use crate::protocol::{Context, Outcome};
use crate::reason::CloseReason;
use crate::timer::Timer;

/// Answers the requests of one connection: one value per connection, run by [`Http`](super::Http).
///
/// Requests come one after the other. The next one is not looked at before the present one is read
/// and answered. So answers are in order, and every callback's [`Response`] is that of the present
/// request.
///
/// An `Err` from a callback answers 500 if no answer has begun, and closes the connection with
/// reason [`Protocol`](crate::CloseKind::Protocol). A panic resets this connection and no other. If
/// an answer has not begun [`Limits::answer`](super::Limits::answer) \[60 s\] after its request was
/// whole, 503 is sent instead and the connection closes. A request that cannot be served at all
/// never reaches the handler: it is answered with its status, and the connection closes with reason
/// [`Refused`](crate::CloseKind::Refused). A started answer has no deadline of its own:
/// [`Limits::write_stall`](crate::Limits::write_stall) and [`Limits::idle`](crate::Limits::idle)
/// hold.
///
/// ```
/// use std::time::Duration;
/// use lariat::http::{Handler, Header, Request, Response, Status};
/// use lariat::{Context, Outcome, Timer};
///
/// /// Answers every request a second later.
/// struct Slow;
///
/// const ANSWER: Timer = Timer::new(1);
///
/// impl Handler for Slow {
///     fn request(
///         &mut self,
///         cx: &mut Context<'_>,
///         _: &Request<'_>,
///         _: &mut Response,
///     ) -> Outcome {
///         cx.set_timer(ANSWER, Duration::from_secs(1));
///         Ok(())
///     }
///
///     fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
///         response.send(cx, Status::OK, &[Header::TEXT], b"sorry\n");
///         Ok(())
///     }
/// }
/// ```
pub trait Handler {
    /// The connection can be used.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// The head of a request has arrived. Answer now or later, or collect or stream its body first.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome;

    /// A part of the body. Not called once the request has been answered: the rest is dropped.
    /// [`Context::pause_reading`] holds the rest back until [`Context::resume_reading`], or until
    /// the request is answered. The default drops the part.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        let _ = (cx, part, response);
        Ok(())
    }

    /// The request is whole, with or without a body, and its answer is not finished.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        let _ = (cx, response);
        Ok(())
    }

    /// The request is whole, and this is its body. Runs after [`Response::collect`], instead of
    /// [`body`](Handler::body) and [`complete`](Handler::complete).
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        let _ = (cx, body, response);
        Ok(())
    }

    /// Congested output has drained: more may be written. Not called between requests.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn drained(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        let _ = (cx, response);
        Ok(())
    }

    /// A timer of the handler fired. The default does nothing.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer, response: &mut Response) -> Outcome {
        let _ = (cx, timer, response);
        Ok(())
    }

    /// A note has come from another connection or thread.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn notified(&mut self, cx: &mut Context<'_>, note: Note, response: &mut Response) -> Outcome {
        let _ = (cx, note, response);
        Ok(())
    }

    /// The driver is being shut down while a request is not answered: an endless stream should
    /// [finish](Response::finish) now. The connection closes after the answer.
    ///
    /// # Errors
    ///
    /// Answers 500 and closes.
    fn stopping(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        let _ = (cx, response);
        Ok(())
    }

    /// The connection has ended. After an [upgrade](Response::upgrade) or a
    /// [tunnel](Response::tunnel) the next protocol hears of that, and this handler does not.
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let _ = (cx, reason);
    }
}
