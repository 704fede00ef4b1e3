//! The pages that the tests ask for, and a handler for those that need other ones.

use std::time::Duration;

use lariat::http::{Handler, Header, Request, Response, Status};
use lariat::{Context, Outcome, Timer};

use crate::plain::Echo;

const LATE: Timer = Timer::new(7);

/// `/` and anything longer answers `ok`, a body with its length.
#[derive(Default)]
pub(crate) struct Site;

impl Handler for Site {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        let text = &[Header::TEXT];
        match request.path() {
            "/missing" => response.send(cx, Status::NOT_FOUND, text, b"not here\n"),
            "/early" => response.send(cx, Status::OK, text, b"early\n"),
            "/early/bytes" => response.send_bytes(cx, Status::OK, text, "early\n"),
            "/early/chunks" => {
                response.start(cx, Status::OK, text);
                response.write(cx, "early\n");
                response.finish(cx);
            }
            "/early/sized" => {
                response.start_sized(cx, Status::OK, text, 6);
                response.write(cx, "early\n");
                response.finish(cx);
            }
            "/late" => cx.set_timer(LATE, Duration::from_millis(20)),
            "/never" => {}
            "/204" => response.send(cx, Status::NO_CONTENT, &[], b"dropped"),
            "/205" => response.send(cx, Status::RESET_CONTENT, &[], b"dropped"),
            "/bytes" => response.send_bytes(cx, Status::OK, text, &[b'b'; 6000][..]),
            "/304" => response.send(cx, Status::NOT_MODIFIED, &[], b"dropped"),
            "/hints" => {
                let link = Header::literal("link", "</style.css>; rel=preload");
                response.inform(cx, Status::EARLY_HINTS, &[link]);
                response.send(cx, Status::OK, text, b"hinted\n");
            }
            "/chunks" => {
                response.start(cx, Status::OK, text);
                response.write(cx, b"one ");
                response.write(cx, b"");
                response.write(cx, b"two");
                response.finish(cx);
            }
            "/upgrade" => {
                if response.upgrade(cx, "echo", &[], Echo).is_err() {
                    response.send(cx, Status::UPGRADE_REQUIRED, text, b"upgrade to echo\n");
                }
            }
            "/echo" => {
                let length = match request.length() {
                    lariat::http::Length::Known(length) => Some(length),
                    lariat::http::Length::None => Some(0),
                    lariat::http::Length::Unknown => None,
                };
                match length {
                    Some(length) => response.start_sized(cx, Status::OK, text, length),
                    None => response.start(cx, Status::OK, text),
                }
            }
            _ => response.collect(),
        }
        Ok(())
    }

    fn body(&mut self, cx: &mut Context<'_>, part: &[u8], response: &mut Response) -> Outcome {
        if response.is_streaming() {
            response.write(cx, part);
        }
        Ok(())
    }

    fn complete(&mut self, cx: &mut Context<'_>, response: &mut Response) -> Outcome {
        if response.is_streaming() {
            response.finish(cx);
        }
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        let text = if body.is_empty() { "ok\n".into() } else { format!("{} bytes\n", body.len()) };
        response.send(cx, Status::OK, &[Header::TEXT], text);
        Ok(())
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        response.send(cx, Status::ACCEPTED, &[Header::TEXT], b"late\n");
        Ok(())
    }
}

/// A handler made of a closure.
pub(crate) struct On<F>(F);

/// Answers every request by `answer`.
pub(crate) fn on<F>(answer: F) -> On<F>
where
    F: FnMut(&mut Context<'_>, &Request<'_>, &mut Response) -> Outcome,
{
    On(answer)
}

impl<F: FnMut(&mut Context<'_>, &Request<'_>, &mut Response) -> Outcome> Handler for On<F> {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        (self.0)(cx, request, response)
    }
}
