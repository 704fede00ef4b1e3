//! An echo on lariat's reactor in which every connection has a filter that changes nothing.
//!
//! `with_filter PORT` listens on 127.0.0.1:PORT until it is ended by a signal.
#![forbid(unsafe_code)]

use lariat::{Context, Filter, FilterResult, Input, Outcome, Progress, Protocol};

struct Identity;

impl Filter for Identity {
    fn receive(
        &mut self,
        bytes: &mut [u8],
        clear: &mut Vec<u8>,
        _wire: &mut Vec<u8>,
    ) -> FilterResult {
        clear.extend_from_slice(bytes);
        Ok(Progress::Open)
    }

    fn send(&mut self, clear: &[u8], wire: &mut Vec<u8>) -> FilterResult {
        wire.extend_from_slice(clear);
        Ok(Progress::Open)
    }

    fn ends_with_stream(&self) -> bool {
        true
    }
}

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume(input.len());
        Ok(())
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(Box::new(Identity))
    }
}

fn main() -> lariat::Result<()> {
    let port = std::env::args().next_back().unwrap_or_default();
    lariat::reactor::serve(format!("127.0.0.1:{port}").as_str(), || Echo)
}
