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
//! sleeps in `accept`. Above 256 connections newcomers wait; `--max-conns` sets another bound.
//! Ctrl-C stops it: newcomers are refused, connections may finish for 5 s, and a summary says how
//! it went. With `-v` each connection that ends says why; `--help` has the rest.

mod common;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::{
    CloseReason, Context, DriverLimits, Handle, Input, ListenOptions, Outcome, Protocol, Report,
};

use common::{Options, Program};

/// How long connections may go on after the first Ctrl-C.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections at a time, unless told otherwise: each costs a thread.
const CONNECTIONS_MAX: usize = 256;

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
    name: "echo_blocking",
    about: "sends every byte back, with a thread for each client",
    addr: "127.0.0.1:7000",
    try_this: r"printf 'hello\n' | nc -q1 127.0.0.1 7000",
    connections_max: CONNECTIONS_MAX,
    // The thread that could print them waits for the others in `run`.
    has_stats: false,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, |options| {
        if options.verbose { serve(options, || Telling) } else { serve(options, || Echo) }
    })
}

fn serve<P: Protocol + Send + 'static>(options: &Options, make: fn() -> P) -> common::Result {
    let mut limits = DriverLimits::default();
    limits.drain = DRAIN;
    limits.connections_max = options.connections_max.unwrap_or(CONNECTIONS_MAX);
    let mut driver = Blocking::with_limits(limits)?;
    let mut listeners = Vec::new();
    for addrs in &options.addrs {
        let mut how = ListenOptions::default();
        how.limits.idle = options.idle_timeout;
        listeners.push(driver.listen_with(&**addrs, how, move |_| Some(make()))?);
    }
    // Only now: until here, Ctrl-C ends the process as it does any other.
    #[cfg(feature = "signals")]
    driver.stop_on_signals()?;
    for listener in listeners {
        for addr in driver.addresses(listener) {
            common::ready(addr, "tcp, blocking, a thread per connection")?;
        }
    }
    let report = run(&mut driver, options.duration)?;
    common::summary(options, &driver.metrics(), &report);
    Ok(())
}

/// Runs until a signal, or until `duration` is over: a thread of its own keeps the time.
fn run(driver: &mut Blocking, duration: Option<Duration>) -> lariat::Result<Report> {
    let Some(duration) = duration else { return driver.run() };
    let handle: Handle = driver.handle();
    let (over, waits) = mpsc::channel::<()>();
    let timer = thread::spawn(move || {
        if waits.recv_timeout(duration) == Err(mpsc::RecvTimeoutError::Timeout) {
            handle.shutdown();
        }
    });
    let report = driver.run();
    drop(over);
    // It has nothing to panic about.
    let _ = timer.join();
    report
}
