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
    lariat::reactor::serve("127.0.0.1:7000", || Echo)
}
