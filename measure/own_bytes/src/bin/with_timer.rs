//! An echo in which every connection has set a timer: on lariat's reactor, or with `--threads` on
//! its blocking driver, where each connection then has a companion thread beside its own.
//!
//! `with_timer PORT` and `with_timer --threads PORT` listen on 127.0.0.1:PORT until they are ended
//! by a signal.
#![forbid(unsafe_code)]

use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{Context, DriverLimits, Input, Outcome, Protocol, Timer};

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
    let addr = format!("127.0.0.1:{}", std::env::args().next_back().unwrap_or_default());
    if !std::env::args().any(|argument| argument == "--threads") {
        return lariat::reactor::serve(addr.as_str(), || Echo);
    }
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_secs(1);
    let mut driver = Blocking::with_limits(limits)?;
    driver.listen(addr.as_str(), |_| Some(Echo))?;
    driver.stop_on_signals()?;
    driver.run()?;
    Ok(())
}
