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
//!
//! With `--tls` it verifies the server's certificate by the authorities of the system, or by those
//! in a file. What is wrong with it has codes of its own: 7 an authority that is not trusted, 8 a
//! certificate for another name, 9 expired, 10 not valid yet, 11 not fit in another way. With 12
//! there is no session at all.
//!
//! ```text
//! $ cargo run --release --example client -- --tls --ca cert.pem localhost:7443 hello   # tls_echo
//! hello
//! $ cargo run --release --example client -- --tls localhost:7443 hello; echo $?
//! client: localhost:7443: the server is not to be trusted
//!   the peer's certificate is not issued by a trusted authority
//! 7
//! ```

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::reconnect::Reconnect;
use lariat::tls::rustls::{self, CertificateError};
use lariat::tls::{ClientConfig, Roots, Tls, TlsError};
use lariat::{
    AddressErrors, CloseKind, CloseReason, ConnectFailure, ConnectOptions, Context, Driver,
    ErrorKind, FilterFailure, Input, Outcome, Protocol, blocking, reactor,
};

const HELP: &str = "\
client: sends, and prints the answer

usage: client [options] HOST:PORT|unix:PATH [WORD..]

Without a WORD it sends standard input.

      --tls           speak TLS, and verify that the server is HOST
      --ca FILE       trust the authorities in FILE [those of the system]
  -d, --driver NAME   reactor or blocking [reactor]
  -t, --timeout S     seconds for the connect, and for silence [10]
  -r, --reconnect     try again until an answer begins, after growing delays
  -h, --help          print this
  -V, --version       print the version

client localhost:7000 hello";

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

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
        let mut output = io::stdout().lock();
        output.write_all(input)?;
        output.flush()?;
        input.consume_all();
        Ok(())
    }
}

/// What became of it, as a sentence and as an exit code.
fn judge(reason: &CloseReason) -> (&'static str, u8) {
    if let Some(error) = reason.error().and_then(|error| error.downcast_ref::<TlsError>()) {
        return judge_session(error);
    }
    let error = reason.error().and_then(|error| error.downcast_ref::<io::Error>());
    match reason.kind() {
        CloseKind::Finished => ("the answer is whole", 0),
        CloseKind::Protocol if error.is_some_and(is_closed) => ("nobody reads the answer", 0),
        CloseKind::Connect(ConnectFailure::Refused) => ("nobody listens there", 3),
        CloseKind::Connect(ConnectFailure::Unreachable) => ("no route leads there", 4),
        CloseKind::TimedOut(_) => ("no answer in time", 5),
        CloseKind::Connect(ConnectFailure::Name) => ("no address was found", 6),
        CloseKind::Filter(FilterFailure::Truncated) => ("the answer is cut short", 1),
        _ => ("the connection failed", 1),
    }
}

/// Whether this is the error of a standard output that is closed. It makes a quiet end.
fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Why there is no session, or not any more. The error itself says more.
fn judge_session(error: &TlsError) -> (&'static str, u8) {
    use CertificateError as Certificate;
    let error = error.source().and_then(|source| source.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(problem)) = error else {
        return ("there is no session", 12);
    };
    let code = match problem {
        Certificate::UnknownIssuer => 7,
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => 8,
        Certificate::Expired | Certificate::ExpiredContext { .. } => 9,
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => 10,
        _ => 11,
    };
    ("the server is not to be trusted", code)
}

fn report(addr: &str, reason: &CloseReason) -> ExitCode {
    let (sentence, code) = judge(reason);
    if code > 0 {
        tell(format_args!("client: {addr}: {sentence}"));
        match reason.error().map(|error| (error, error.downcast_ref::<AddressErrors>())) {
            Some((_, Some(errors))) => {
                errors.iter().for_each(|(addr, error)| tell(format_args!("  {addr}: {error}")));
            }
            Some((error, None)) => tell(format_args!("  {error}")),
            None => tell(format_args!("  {reason}")),
        }
    }
    ExitCode::from(code)
}

/// How the server is reached.
struct Exchange<'a> {
    /// On the blocking driver, not on the reactor.
    threads: bool,
    /// Again, until an answer begins.
    persists: bool,
    addr: &'a str,
    options: ConnectOptions,
}

impl Exchange<'_> {
    /// Says why the last connection ended.
    fn run<P: Protocol + Send + 'static>(
        self,
        client: impl Fn() -> P + Send + 'static,
    ) -> lariat::Result<CloseReason> {
        let Exchange { threads, addr, options, .. } = self;
        match (threads, self.persists) {
            (false, false) => Ok(reactor::connect_with(addr, options, client())?.1),
            (true, false) => Ok(blocking::connect_with(addr, options, client())?.1),
            (false, true) => persist(&mut reactor::Reactor::new()?, addr, options, client),
            (true, true) => persist(&mut blocking::Blocking::new(), addr, options, client),
        }
    }
}

/// Tries again until an answer begins.
fn persist<P: Protocol + Send + 'static>(
    driver: &mut dyn Driver,
    addr: &str,
    options: ConnectOptions,
    client: impl Fn() -> P + Send + 'static,
) -> lariat::Result<CloseReason> {
    let last = Arc::new(Mutex::new(None));
    let told = Arc::clone(&last);
    let reconnect = Reconnect::to(addr)
        .with_options(options)
        .until(|end| {
            // A server that is not to be trusted will not be by waiting.
            matches!(end.kind(), CloseKind::Finished | CloseKind::Filter(_)) || end.bytes_in() > 0
        })
        .on_end(move |_, ended| match ended.delay() {
            Some(_) => tell(format_args!("client: {ended}")),
            None => *told.lock().unwrap() = Some(ended.reason().clone()),
        });
    reconnect.start(&mut driver.control(), move |_| client())?;
    driver.run()?;
    let last = last.lock().unwrap().take();
    Ok(last.expect("without signals, only an end ends it"))
}

/// What was asked for.
struct Options {
    addr: String,
    /// None: what standard input says.
    words: Option<String>,
    timeout: Duration,
    threads: bool,
    persists: bool,
    tls: bool,
    authorities: Option<OsString>,
}

/// What the command line asks for.
enum Asked {
    Send(Options),
    Print(String),
}

fn options() -> Result<Asked, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut words, mut timeout) = (Vec::new(), Duration::from_secs(10));
    let (mut threads, mut persists) = (false, false);
    let (mut tls, mut authorities) = (false, None);
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
            Long("tls") => tls = true,
            Long("ca") => authorities = Some(parser.value()?),
            Short('t') | Long("timeout") => {
                timeout = Duration::from_secs(parser.value()?.parse::<u32>()?.max(1).into());
            }
            Short('r') | Long("reconnect") => persists = true,
            Short('h') | Long("help") => return Ok(Asked::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Asked::Print(format!("client (lariat {})", env!("CARGO_PKG_VERSION"))));
            }
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if authorities.is_some() && !tls {
        return Err("--ca goes with --tls".into());
    }
    if words.is_empty() {
        return Err("where to? HOST:PORT or unix:PATH is missing".into());
    }
    let addr = words.remove(0);
    if tls && addr.starts_with("unix:") {
        return Err("--tls needs HOST:PORT, for it is HOST that the certificate names".into());
    }
    let words = (!words.is_empty()).then(|| words.join(" "));
    Ok(Asked::Send(Options { addr, words, timeout, threads, persists, tls, authorities }))
}

fn run(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let Options { addr, words, timeout, threads, persists, tls, authorities } = options;
    let mut request = Vec::new();
    match words {
        Some(words) => request = (words + "\n").into_bytes(),
        None => drop(io::stdin().read_to_end(&mut request)?),
    }
    let mut options = ConnectOptions::default();
    (options.limits.connect, options.limits.idle) = (timeout, Some(timeout));
    options.limits.output_max = options.limits.output_max.max(request.len());
    let exchange = Exchange { threads, persists, addr: &addr, options };
    let client = move || Client { request: request.clone() };
    if !tls {
        return Ok(report(&addr, &exchange.run(client)?));
    }
    let roots = match authorities {
        Some(file) => Roots::from_file(file)?,
        None => Roots::system()?,
    };
    let host = addr.rsplit_once(':').map_or(addr.as_str(), |(host, _)| host);
    let (host, config) = (host.trim_matches(['[', ']']).to_owned(), ClientConfig::new(&roots));
    Tls::client(&config, &host, client())?;
    let client = move || Tls::client(&config, &host, client()).expect("it was made before");
    Ok(report(&addr, &exchange.run(client)?))
}

fn main() -> ExitCode {
    let usage = |error: &dyn Error| {
        tell(format_args!("client: {error} (try --help)"));
        ExitCode::from(2)
    };
    let done = match options() {
        Ok(Asked::Send(options)) => run(options),
        Ok(Asked::Print(text)) => match writeln!(io::stdout(), "{text}") {
            Err(error) if !is_closed(&error) => Err(error.into()),
            _ => return ExitCode::SUCCESS,
        },
        Err(error) => return usage(&error),
    };
    done.unwrap_or_else(|error| match error.downcast_ref::<lariat::Error>() {
        Some(error) if error.kind() == ErrorKind::InvalidAddress => usage(error),
        _ => {
            tell(format_args!("client: {error}"));
            ExitCode::FAILURE
        }
    })
}
