//! A lariat server that answers every message with as many bytes of its own.
//!
//! An echo writes a slice of its input, which lariat sends straight from the read buffer. This
//! server writes from a constant instead, so its answers take the way through the reactor's output
//! buffer, as the answers of most real protocols do. The load generator checks for the same byte
//! with `--replies own`.
//!
//! `own_bytes PORT` listens on 127.0.0.1:PORT until it is ended by a signal.
#![forbid(unsafe_code)]

use lariat::{Context, Input, Outcome, Protocol};

/// The answer is cut from this; a longer message gets all of it.
static ANSWER: [u8; 64 * 1024] = [b'o'; 64 * 1024];

struct OwnBytes;

impl Protocol for OwnBytes {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(ANSWER.get(..input.len()).unwrap_or(&ANSWER));
        input.consume(input.len());
        Ok(())
    }
}

fn main() -> lariat::Result<()> {
    let port = std::env::args().next_back().unwrap_or_default();
    lariat::reactor::serve(format!("127.0.0.1:{port}").as_str(), || OwnBytes)
}
