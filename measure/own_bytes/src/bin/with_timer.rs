//! An echo on lariat's reactor in which every connection has set a timer.
//!
//! `with_timer PORT` listens on 127.0.0.1:PORT until it is ended by a signal.
#![forbid(unsafe_code)]

use std::time::Duration;

use lariat::{Context, Input, Outcome, Protocol, Timer};

/// Longer than any measurement.
const LATER: Duration = Duration::from_secs(3600);

struct Echo;

impl Protocol for Echo {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.set_timer(Timer::new(0), LATER);
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume(input.len());
        Ok(())
    }
}

fn main() -> lariat::Result<()> {
    let port = std::env::args().next_back().unwrap_or_default();
    lariat::reactor::serve(format!("127.0.0.1:{port}").as_str(), || Echo)
}
