//! Standard input and output as a connection, relayed to one of the network.
//!
//! ```text
//! $ cargo run --release --example nc -- -l 127.0.0.1:7000 | cat > received
//! $ cat file | cargo run --release --example nc -- 127.0.0.1:7000     # in a second terminal
//! ```
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lariat::{
    CloseKind, CloseReason, ConnId, Context, Descriptors, Driver, Input, Limits, Outcome, Protocol,
};

const HELP: &str = "\
nc: relays standard input and output to a connection

usage: nc [-l] [--blocking] ADDR

ADDR is HOST:PORT or unix:PATH; -l waits there for one client, instead of
connecting. --blocking runs it on threads. -h, --help prints this, -V, --version
the version. Standard input and output have to be pipes or a terminal, because a
regular file is always ready: cat FILE | nc ADDR | cat > ANSWER

echo hello | nc 127.0.0.1:7000";

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether this is the error of a standard output that is closed. It makes a quiet end.
fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

static FAILED: AtomicBool = AtomicBool::new(false);

/// One end. What it receives goes to the other end.
#[derive(Default)]
struct End {
    other: Option<ConnId>,
    /// That of the network takes the standard input and output when it opens.
    stdio: Option<Arc<Mutex<Option<Descriptors>>>>,
}

impl Protocol for End {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if let Some(stdio) = self.stdio.as_ref().and_then(|stdio| stdio.lock().ok()?.take()) {
            let other = End { other: Some(cx.id()), stdio: None };
            self.other = Some(cx.driver().adopt_descriptors(stdio, Limits::default(), other)?);
        }
        if let Some(listener) = cx.listener() {
            cx.driver().stop_listening(listener);
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.peer(self.other.ok_or("another client is served")?).write(input);
        input.consume_all();
        Ok(())
    }

    fn eof(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        let other = self.other.ok_or("another client is served")?;
        match self.stdio {
            // The answer is whole. When it is written, that is the end.
            Some(_) => cx.peer(other).close(),
            None => cx.peer(other).shutdown_write(),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let in_order = matches!(reason.kind(), CloseKind::Finished | CloseKind::Shutdown);
        let unread = self.stdio.is_none()
            && reason.error().and_then(|error| error.downcast_ref()).is_some_and(is_closed);
        if !in_order && !unread && reason.kind() != CloseKind::Aborted {
            let error = reason.error().map_or_else(|| reason.to_string(), ToString::to_string);
            tell(format_args!("nc: {error}"));
            FAILED.store(true, Ordering::Relaxed);
        }
        match self.other {
            Some(other) if in_order => cx.peer(other).close(),
            Some(other) => cx.peer(other).abort(),
            None => {}
        }
    }
}

/// What the command line asks for.
enum Asked {
    Relay { addr: String, listens: bool, blocking: bool },
    Print(String),
}

fn arguments() -> Result<Asked, String> {
    let (mut addrs, mut listens, mut blocking) = (Vec::new(), false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "-l" => listens = true,
            "--blocking" => blocking = true,
            "-h" | "--help" => return Ok(Asked::Print(HELP.to_owned())),
            "-V" | "--version" => {
                return Ok(Asked::Print(format!("nc (lariat {})", env!("CARGO_PKG_VERSION"))));
            }
            option if option.starts_with('-') => return Err(format!("invalid option '{option}'")),
            _ => addrs.push(argument),
        }
    }
    let [addr] = <[String; 1]>::try_from(addrs).map_err(|_| "one ADDR is needed")?;
    let has_port = addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match has_port || addr.strip_prefix("unix:").is_some_and(|path| !path.is_empty()) {
        true => Ok(Asked::Relay { addr, listens, blocking }),
        false => Err(format!("{addr}: not an address; one looks like 127.0.0.1:80 or unix:PATH")),
    }
}

fn main() -> ExitCode {
    let done = match arguments() {
        Ok(Asked::Relay { addr, listens, blocking }) => relay(&addr, listens, blocking),
        Ok(Asked::Print(text)) => match writeln!(io::stdout(), "{text}") {
            Err(error) if !is_closed(&error) => {
                tell(format_args!("nc: {error}"));
                return ExitCode::FAILURE;
            }
            _ => return ExitCode::SUCCESS,
        },
        Err(sentence) => {
            tell(format_args!("nc: {sentence} (try --help)"));
            return ExitCode::from(2);
        }
    };
    if let Err(error) = done {
        // The Debug form has a hint behind the sentence.
        tell(format_args!("Error: {error:?}"));
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::from(FAILED.load(Ordering::Relaxed)))
}

fn relay(addr: &str, listens: bool, blocking: bool) -> lariat::Result<()> {
    let mut driver: Box<dyn Driver> = match blocking {
        true => Box::new(lariat::blocking::Blocking::new()),
        false => Box::new(lariat::reactor::Reactor::new()?),
    };
    // A signal gives a terminal its flags back.
    driver.stop_on_signals()?;
    let stdio = Descriptors::stdio().expect("standard input and output");
    let stdio = Some(Arc::new(Mutex::new(Some(stdio))));
    if listens {
        let make = move |_: &_| Some(End { other: None, stdio: stdio.clone() });
        let listener = driver.control().listen(addr, make)?;
        tell(format_args!("listening on {}", driver.addresses(listener)[0]));
    } else {
        driver.control().connect(addr, End { other: None, stdio });
    }
    driver.run()?;
    Ok(())
}
