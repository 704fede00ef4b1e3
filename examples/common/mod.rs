//! What the examples have in common: the command line, the ready line, the summary.
//!
//! Nothing of it is needed to use lariat; `echo_reactor.rs` and `echo_blocking.rs` show where the
//! library is called.

mod options;
mod running;
mod secure;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use lariat::{Metrics, Report};

pub(crate) use options::{DriverKind, Options, Program};
use options::{Parsed, parse};
#[allow(unused_imports)] // Each example needs some of them.
pub(crate) use running::{metrics, run, serve};
#[allow(unused_imports)] // Not every example has TLS.
pub(crate) use secure::listen;

pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// Why an example ends early.
pub(crate) enum Failure {
    /// It could not do its work.
    Error(lariat::Error),
    /// An address could not be looked up, a file not be read, or standard output not be written.
    Sentence(String),
    /// Standard output is closed: no reason to say anything.
    NobodyReads,
}

impl From<lariat::Error> for Failure {
    fn from(error: lariat::Error) -> Failure {
        Failure::Error(error)
    }
}

/// Reads the command line, sets up the log, and turns how `run` went into the status of the
/// process: 0, 1 when the work failed, 2 when the command line is wrong.
pub(crate) fn main(program: &Program, run: impl FnOnce(&Options) -> Result) -> ExitCode {
    let result = match parse(program, lexopt::Parser::from_env()) {
        Ok(Parsed::Text(text)) => say(format_args!("{text}")),
        Ok(Parsed::Options(mut options)) => {
            start_log(&options);
            let ready = options.prepare_tls(program).and_then(|()| options.resolve());
            ready.and_then(|()| run(&options))
        }
        Err(sentence) => {
            tell(format_args!("{}: {sentence} (try --help)", program.name));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) | Err(Failure::NobodyReads) => return ExitCode::SUCCESS,
        // The Debug form of the error, as `main` would print it: the sentence, and a hint.
        Err(Failure::Error(error)) => tell(format_args!("Error: {error:?}")),
        Err(Failure::Sentence(sentence)) => tell(format_args!("Error: {sentence}")),
    }
    ExitCode::FAILURE
}

/// The log of the library and its warnings go to standard error. `RUST_LOG` has the last word.
fn start_log(options: &Options) {
    let level = if options.quiet { log::LevelFilter::Error } else { log::LevelFilter::Warn };
    env_logger::Builder::new().filter_level(level).parse_default_env().init();
}

/// A line for people, on standard error; dropped where that is closed.
pub(crate) fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A line on standard output. `println!` would panic when it is closed.
fn say(line: fmt::Arguments<'_>) -> Result {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::NobodyReads),
        Err(error) => Err(Failure::Sentence(format!("cannot write to standard output: {error}"))),
    }
}

/// The one line of standard output: it tells people and scripts where to connect to.
fn ready(addr: lariat::Endpoint, options: &Options) -> Result {
    let kind = match addr.unix() {
        Some(_) if options.udp => "unix datagrams",
        Some(_) => "unix",
        None if options.udp => "udp",
        None if options.tls.are_given() => "tls",
        None => "tcp",
    };
    say(format_args!("listening on {addr} ({kind}, {})", options.how))
}

/// What there is to say at the end.
fn summary(options: &Options, metrics: &Metrics, report: &Report) {
    if options.quiet {
        return;
    }
    if options.udp {
        return tell(format_args!(
            "stopped after {:.1} s: {} datagrams in, {} out, {} dropped; {} bytes in, {} bytes out",
            metrics.age.as_secs_f64(),
            metrics.datagrams_in,
            metrics.datagrams_out,
            metrics.datagrams_dropped,
            metrics.bytes_in,
            metrics.bytes_out,
        ));
    }
    tell(format_args!(
        "stopped after {:.1} s: {} connections, {} refused; {} bytes in, {} bytes out; {report}",
        metrics.age.as_secs_f64(),
        metrics.accepted,
        metrics.refused,
        metrics.bytes_in,
        metrics.bytes_out,
    ));
}
