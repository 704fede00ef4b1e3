//! Echo on the reactor.
use lariat::{Context, Input, Outcome, Protocol};

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume(input.len());
        Ok(())
    }
}

fn main() -> lariat::Result<()> {
    let addr = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    lariat::reactor::serve(addr, || Echo)
}
