//! With `--http`: the page of `http_hello`, with the same ways to wait and to work.

use std::thread;
use std::time::Duration;

use lariat::http::{Handler, Header, Request, Response, Status};
use lariat::{Context, Note, Outcome, Timer};

use crate::game::{Waiting, waited, work};

pub(crate) const HELLO: &[u8] = b"Hello from lariat.\n";
const LATER: Timer = Timer::new(1);
/// No request may wait or work longer.
const MICROS_MAX: u64 = 1_000_000;

/// One connection: HTTP has no state of ours between two requests.
pub(crate) struct Hello {
    waiting: Waiting,
}

impl Hello {
    pub(crate) fn new(waiting: Waiting) -> Hello {
        Hello { waiting }
    }
}

fn say_hello(cx: &mut Context<'_>, response: &mut Response) -> Outcome {
    response.send(cx, Status::OK, &[Header::TEXT], HELLO);
    Ok(())
}

impl Handler for Hello {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        let Some((verb, micros)) = request.query().and_then(|query| query.split_once('=')) else {
            return say_hello(cx, response);
        };
        let time = Duration::from_micros(micros.parse::<u64>()?.min(MICROS_MAX));
        match (verb, self.waiting) {
            ("wait", Waiting::Sleep) => thread::sleep(time),
            ("wait", Waiting::Timer) => {
                cx.set_timer(LATER, time);
                return Ok(());
            }
            ("wait", Waiting::Offload) => {
                cx.offload(move || thread::sleep(time));
                return Ok(());
            }
            _ => work(time),
        }
        say_hello(cx, response)
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Timer, response: &mut Response) -> Outcome {
        say_hello(cx, response)
    }

    fn notified(&mut self, cx: &mut Context<'_>, note: Note, response: &mut Response) -> Outcome {
        waited(note)?;
        say_hello(cx, response)
    }
}
