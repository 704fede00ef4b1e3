//! Protocols that need no explanation.

#![allow(dead_code)]

use lariat::{Context, Input, Outcome, Protocol};

/// Answers every byte with the same byte.
pub(crate) struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }
}

/// Takes everything and says nothing.
pub(crate) struct Sink;

impl Protocol for Sink {
    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        input.consume_all();
        Ok(())
    }
}
