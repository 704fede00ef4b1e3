//! An echo server on blocking threads: every byte that comes is sent back, and each client has a
//! thread that sleeps in `read` while there is nothing to do.
//!
//! It shows that the protocol is the one of `echo_reactor.rs`, to the letter; only the driver is
//! another, and so is what a connection costs. Run it, and talk to it from a second terminal:
//!
//! ```text
//! $ cargo run --release --example echo_blocking
//! listening on 127.0.0.1:7000 (tcp, blocking, a thread per connection)
//!
//! $ printf 'hello\n' | nc -q1 127.0.0.1 7000
//! hello
//! ```
//!
//! While a client is connected, `ps -T -C echo_blocking` lists its thread beside the one that
//! sleeps in `accept`. Above 256 connections clients wait; `--max-conns` sets another bound.
//! Ctrl-C stops it: it accepts no more, connections may finish for 5 s, and a summary says how
//! it went. With `-v` each connection that ends says why; `--help` has the rest.

mod common;

use std::process::ExitCode;

use lariat::blocking::Blocking;
use lariat::{CloseReason, Context, Input, ListenOptions, Outcome, Protocol};

use common::{DriverKind, Options, Program};

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume(input.len());
        Ok(())
    }
}

/// `Echo` with `-v`: each close is printed.
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
    name: "echo_blocking",
    about: "sends every byte back, with a thread for each client",
    addr: "127.0.0.1:7000",
    try_this: r"printf 'hello\n' | nc -q1 127.0.0.1 7000",
    drivers: &[DriverKind::Blocking],
    threads: "a thread per connection",
    idle_timeout: None,
    scales: false,
    udp: false,
    tls: None,
    counted: None,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, |options| {
        if options.verbose { serve(options, || Telling) } else { serve(options, || Echo) }
    })
}

fn serve<P: Protocol + Send + 'static>(options: &Options, make: fn() -> P) -> common::Result {
    let mut driver = Blocking::with_limits(options.driver_limits())?;
    let mut listeners = Vec::new();
    for addr in &options.addrs {
        let mut how = ListenOptions::default();
        how.limits.idle = options.idle_timeout;
        listeners.push(driver.listen_with(addr, how, move |_| Some(make()))?);
    }
    common::run(&mut driver, &listeners, options)
}
