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
//! and several addresses are tried one after the other, 250 ms apart. `--reconnect` tries again,
//! after delays that grow, until an answer begins.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::reconnect::Reconnect;
use lariat::{
    AddressErrors, CloseKind, CloseReason, ConnectFailure, ConnectOptions, Context, Driver, Input,
    Outcome, Protocol, blocking, reactor,
};

const HELP: &str = "\
client: sends, and prints the answer

usage: client [options] HOST:PORT|unix:PATH [WORD..]

Without a WORD it sends standard input.

  -d, --driver NAME   reactor or blocking [reactor]
  -t, --timeout S     seconds for the connect, and for silence [10]
  -r, --reconnect     try again until an answer begins, after growing delays
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

/// Tries again until an answer begins, and says why the last attempt ended.
fn persist(
    driver: &mut dyn Driver,
    addr: &str,
    options: ConnectOptions,
    request: Vec<u8>,
) -> lariat::Result<CloseReason> {
    let last = Arc::new(Mutex::new(None));
    let told = Arc::clone(&last);
    let reconnect = Reconnect::to(addr)
        .with_options(options)
        .until(|end| end.kind() == CloseKind::Finished || end.bytes_in() > 0)
        .on_end(move |_, ended| match ended.delay() {
            Some(_) => eprintln!("client: {ended}"),
            None => *told.lock().unwrap() = Some(ended.reason().clone()),
        });
    reconnect.start(&mut driver.control(), move |_| Client { request: request.clone() })?;
    driver.run()?;
    let last = last.lock().unwrap().take();
    Ok(last.expect("without signals, only an end ends it"))
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
    let (mut words, mut threads, mut persists) = (Vec::new(), false, false);
    let mut timeout = Duration::from_secs(10);
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
            Short('r') | Long("reconnect") => persists = true,
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
    let (to, client) = (addr.as_str(), || Client { request: request.clone() });
    let reason = match (threads, persists) {
        (false, false) => reactor::connect_with(to, options, client())?.1,
        (true, false) => blocking::connect_with(to, options, client())?.1,
        (false, true) => persist(&mut reactor::Reactor::new()?, to, options, request)?,
        (true, true) => persist(&mut blocking::Blocking::new(), to, options, request)?,
    };
    Ok(report(&addr, &reason))
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("client: {error}");
        ExitCode::from(2)
    })
}
