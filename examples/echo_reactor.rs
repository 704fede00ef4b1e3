//! An echo server on the reactor: every byte that comes is sent back, to thousands of clients at
//! once, on one thread or on several.
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
//! Ctrl-C stops it: it accepts no more, connections may finish for 5 s, and a summary says how
//! it went. With `-v` each connection that ends says why, with `--stats 1s` the counters are
//! printed every second; `--help` has the rest. What all examples share (the command line, the
//! ready line, the summary) is in `common/`.
//!
//! `--udp` serves datagrams instead: `printf hello | nc -u -w1 127.0.0.1 7000`.
//!
//! `--tls-self-signed`, or `--tls-cert` and `--tls-key`, serve the same over TLS.
//!
//! `--threads 4` runs four reactors, each on a thread of its own, and the system spreads the
//! clients over them. Each has its share of `--max-conns`, or 10,000 connections without it.
//!
//! With `--driver blocking` the same protocol runs on threads, and what one sees from outside is
//! the same but for the ready line.

mod common;

use std::process::ExitCode;

use lariat::{
    CloseReason, Context, Datagram, DatagramContext, DatagramOptions, DatagramProtocol, Input,
    ListenOptions, Outcome, Protocol,
};

use common::{DriverKind, Options, Program};

struct Echo;

impl Protocol for Echo {
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume(input.len());
        Ok(())
    }
}

/// The same for datagrams, with `--udp`.
impl DatagramProtocol for Echo {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        // One peer that cannot be answered must not end the socket for all others.
        if let Err(error) = cx.send_to(datagram, datagram.from()) {
            log::debug!("{error}");
        }
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

/// The same for datagrams: the close of the socket is printed.
#[derive(Default)]
struct TellingSocket {
    addr: String,
}

impl DatagramProtocol for TellingSocket {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        // In `closed` it has none any more.
        self.addr = cx.local_addr().map_or_else(String::new, |addr| addr.to_string());
        Ok(())
    }

    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        Echo.datagram(cx, datagram)
    }

    fn closed(&mut self, _: &mut DatagramContext<'_>, reason: &CloseReason) {
        common::tell(format_args!("closed {}: {reason}", self.addr));
    }
}

const PROGRAM: Program = Program {
    name: "echo_reactor",
    about: "sends every byte back, to all clients at once",
    addr: "127.0.0.1:7000",
    try_this: r"printf 'hello\n' | nc -q1 127.0.0.1 7000",
    drivers: &[DriverKind::Reactor, DriverKind::Blocking],
    threads: "a thread per connection",
    idle_timeout: None,
    scales: true,
    udp: true,
    tls: Some(&[]),
    counted: None,
};

fn main() -> ExitCode {
    common::main(&PROGRAM, |options| match (options.udp, options.verbose) {
        (true, true) => serve_datagrams(options, TellingSocket::default),
        (true, false) => serve_datagrams(options, || Echo),
        (false, true) => serve(options, || Telling),
        (false, false) => serve(options, || Echo),
    })
}

/// The same for both drivers: a protocol that is `Send` runs on threads as well.
fn serve<P: Protocol + Send + 'static>(options: &Options, make: fn() -> P) -> common::Result {
    let mut how = ListenOptions::default();
    how.limits.idle = options.idle_timeout;
    common::serve(options, |driver, addr, shares| {
        let mut how = how.clone();
        how.reuse_port = shares;
        common::listen(driver, addr, &how, options, move |_| Some(make()))
    })
}

fn serve_datagrams<P: DatagramProtocol + Send + 'static>(
    options: &Options,
    make: fn() -> P,
) -> common::Result {
    let mut how = DatagramOptions::default();
    how.idle = options.idle_timeout;
    common::serve(options, |driver, addr, shares| {
        let mut how = how.clone();
        how.reuse_port = shares;
        Ok(driver.control().bind_with(addr, how, make())?)
    })
}
