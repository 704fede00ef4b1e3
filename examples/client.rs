//! A client: it sends standard input, or the words of its command line, and prints the answer.
//!
//! ```text
//! $ cargo run --release --example client -- localhost:7000 hello   # beside echo_reactor
//! hello
//! $ cargo run --release --example client -- localhost:1 hello; echo $?
//! client: localhost:1: nobody listens there
//!   [::1]:1: Connection refused (os error 111)
//!   127.0.0.1:1: Connection refused (os error 111)
//! 3
//! ```
//!
//! The exit code says what happened: 0 the answer is whole, 3 refused, 4 unreachable, 5 too late,
//! 6 no such name, 1 anything else, 2 a wrong command line. Names are looked up on another thread,
//! and several addresses are tried one after the other, 250 ms apart.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use lariat::{
    AddressErrors, CloseKind, CloseReason, ConnectFailure, ConnectOptions, Context, Input, Outcome,
    Protocol, blocking, reactor,
};

const HELP: &str = "\
client: sends, and prints the answer

usage: client [options] HOST:PORT|unix:PATH [WORD..]

Without a WORD it sends standard input.

  -d, --driver NAME   reactor or blocking [reactor]
  -t, --timeout S     seconds for the connect, and for silence [10]
  -h, --help          print this";

/// Sends `request`, finishes, and prints what comes.
struct Client {
    request: Vec<u8>,
}

impl Protocol for Client {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.write_bytes(std::mem::take(&mut self.request));
        cx.shutdown_write();
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        let mut output = std::io::stdout().lock();
        output.write_all(input)?;
        output.flush()?;
        input.consume_all();
        Ok(())
    }
}

/// What became of it, as a sentence and as an exit code.
fn judge(kind: CloseKind) -> (&'static str, u8) {
    match kind {
        CloseKind::Finished => ("the answer is whole", 0),
        CloseKind::Connect(ConnectFailure::Refused) => ("nobody listens there", 3),
        CloseKind::Connect(ConnectFailure::Unreachable) => ("no route leads there", 4),
        CloseKind::TimedOut(_) => ("no answer in time", 5),
        CloseKind::Connect(ConnectFailure::Name) => ("no address was found", 6),
        _ => ("the connection failed", 1),
    }
}

fn report(addr: &str, reason: &CloseReason) -> ExitCode {
    let (sentence, code) = judge(reason.kind());
    if code > 0 {
        eprintln!("client: {addr}: {sentence}");
        match reason.error().map(|error| (error, error.downcast_ref::<AddressErrors>())) {
            Some((_, Some(errors))) => {
                errors.iter().for_each(|(addr, error)| eprintln!("  {addr}: {error}"));
            }
            Some((error, None)) => eprintln!("  {error}"),
            None => eprintln!("  {reason}"),
        }
    }
    ExitCode::from(code)
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    use lexopt::prelude::*;
    let (mut words, mut threads, mut timeout) = (Vec::new(), false, Duration::from_secs(10));
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('d') | Long("driver") => {
                threads = match parser.value()?.string()?.as_str() {
                    "reactor" => false,
                    "blocking" => true,
                    other => return Err(format!("--driver {other}: reactor or blocking").into()),
                };
            }
            Short('t') | Long("timeout") => {
                timeout = Duration::from_secs(parser.value()?.parse::<u32>()?.max(1).into());
            }
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if words.is_empty() {
        return Err("where to? HOST:PORT or unix:PATH is missing".into());
    }
    let addr = words.remove(0);
    let mut request = Vec::new();
    if words.is_empty() {
        std::io::stdin().read_to_end(&mut request)?;
    } else {
        request = (words.join(" ") + "\n").into_bytes();
    }
    let mut options = ConnectOptions::default();
    (options.limits.connect, options.limits.idle) = (timeout, Some(timeout));
    options.limits.output_max = options.limits.output_max.max(request.len());
    let client = Client { request };
    let (_, reason) = match threads {
        false => reactor::connect_with(addr.as_str(), options, client)?,
        true => blocking::connect_with(addr.as_str(), options, client)?,
    };
    Ok(report(&addr, &reason))
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("client: {error}");
        ExitCode::from(2)
    })
}
