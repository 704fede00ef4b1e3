//! An echo server for datagrams, with little around it: `echo_reactor --udp` has the options.
//!
//! ```text
//! $ cargo run --release --example udp_echo
//! listening on 127.0.0.1:7000 (udp, reactor, 1 thread)
//!
//! $ printf 'hello' | nc -u -w1 127.0.0.1 7000
//! hello
//! ```
//!
//! An address such as `unix:echo.sock` is that of a Unix socket. Ctrl-C stops it, and it prints its
//! counters.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use lariat::reactor::Reactor;
use lariat::{Datagram, DatagramContext, DatagramProtocol, ErrorKind, Outcome};

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        // An `Err` of this callback would close the socket: one peer must not end all others.
        if let Err(error) = cx.send_to(datagram, datagram.from()) {
            tell(format_args!("{error}"));
        }
        Ok(())
    }
}

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn serve(addr: &str) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let echo = reactor.bind(addr, Echo)?;
    #[cfg(feature = "signals")]
    reactor.stop_on_signals()?;
    if let Some(addr) = reactor.bound_addr(echo) {
        let kind = if addr.unix().is_some() { "unix datagrams" } else { "udp" };
        writeln!(io::stdout(), "listening on {addr} ({kind}, reactor, 1 thread)")?;
    }
    reactor.run()?;
    tell(format_args!("{}", reactor.metrics()));
    Ok(())
}

// ---- the command line --------------------------------------------------------------------------

const HELP: &str = "\
udp_echo: sends every datagram back

usage: udp_echo [ADDR]

ADDR is HOST:PORT, with 0 for a free port, or unix:PATH [127.0.0.1:7000].
-h, --help prints this, -V, --version the version. Ctrl-C stops it.

printf hello | nc -u -w1 127.0.0.1 7000";

fn main() -> ExitCode {
    let usage = |sentence: &dyn fmt::Display| {
        tell(format_args!("udp_echo: {sentence} (try --help)"));
        ExitCode::from(2)
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["-h" | "--help"] => writeln!(io::stdout(), "{HELP}").map_err(Into::into),
        ["-V" | "--version"] => {
            let version = env!("CARGO_PKG_VERSION");
            writeln!(io::stdout(), "udp_echo (lariat {version})").map_err(Into::into)
        }
        [] => serve("127.0.0.1:7000"),
        [addr] if !addr.starts_with('-') => serve(addr),
        [option, ..] if option.starts_with('-') => {
            return usage(&format_args!("invalid option '{option}'"));
        }
        _ => return usage(&"there is one ADDR at most"),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match (error.downcast_ref::<lariat::Error>(), error.downcast_ref::<io::Error>()) {
        (Some(error), _) if error.kind() == ErrorKind::InvalidAddress => return usage(error),
        // The Debug form of lariat's own has a hint behind the sentence.
        (Some(error), _) => tell(format_args!("Error: {error:?}")),
        // Nobody reads standard output: a quiet end. `println!` would panic.
        (_, Some(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        _ => tell(format_args!("Error: {error}")),
    }
    ExitCode::FAILURE
}
