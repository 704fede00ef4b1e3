//! An echo server on the reactor: every byte that comes is sent back, to thousands of clients at
//! once, on one thread.
//!
//! It shows the whole of a server: a protocol (the ten lines of `Echo`), a listener, limits, and an
//! orderly end. Run it, and talk to it from a second terminal:
//!
//! ```text
//! $ cargo run --release --example echo_reactor
//! listening on 127.0.0.1:7000 (tcp, reactor, 1 thread)
//!
//! $ printf 'hello\n' | nc -q1 127.0.0.1 7000
//! hello
//! ```
//!
//! Ctrl-C stops it: newcomers are refused, connections may finish for 5 s, and a summary says how
//! it went. With `-v` each connection that ends says why, with `--stats 1s` the counters are
//! printed every second; `--help` has the rest. What all examples share (the command line, the
//! ready line, the summary) is in `common/`.

mod common;
#[path = "common/turning.rs"]
mod turning;

use std::process::ExitCode;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{CloseReason, Context, DriverLimits, Input, ListenOptions, Outcome, Protocol};

use common::{Options, Program};

/// How long connections may go on after the first Ctrl-C.
const DRAIN: Duration = Duration::from_secs(5);

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume(input.len());
        Ok(())
    }
}

/// `Echo` with `-v`: each close is told.
struct Telling;

impl Protocol for Telling {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        Echo.data(cx, input)
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        common::tell(format_args!("closed {}: {reason}", cx.peer_addr()));
    }
}

const PROGRAM: Program = Program {
    name: "echo_reactor",
    about: "sends every byte back, to all clients at once, on one thread",
    addr: "127.0.0.1:7000",
    try_this: r"printf 'hello\n' | nc -q1 127.0.0.1 7000",
    connections_max: 10_000,
    has_stats: true,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, |options| {
        if options.verbose { serve(options, || Telling) } else { serve(options, || Echo) }
    })
}

fn serve<P: Protocol + 'static>(options: &Options, make: fn() -> P) -> common::Result {
    let mut limits = DriverLimits::default();
    limits.drain = DRAIN;
    if let Some(most) = options.connections_max {
        limits.connections_max = most;
    }
    let mut reactor = Reactor::with_limits(limits)?;
    let mut listeners = Vec::new();
    for addrs in &options.addrs {
        let mut how = ListenOptions::default();
        how.limits.idle = options.idle_timeout;
        listeners.push(reactor.listen_with(&**addrs, how, move |_| Some(make()))?);
    }
    // Only now: until here, Ctrl-C ends the process as it does any other.
    #[cfg(feature = "signals")]
    reactor.stop_on_signals()?;
    for listener in listeners {
        for addr in reactor.addresses(listener) {
            common::ready(addr, "tcp, reactor, 1 thread")?;
        }
    }
    let report = turning::run(&mut reactor, options)?;
    common::summary(options, &reactor.metrics(), &report);
    Ok(())
}
