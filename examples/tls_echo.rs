//! An echo over TLS: encryption in transit, and a certificate that says who the server is.
//!
//! ```text
//! $ cargo run --release --example tls_echo -- -v
//! listening on 127.0.0.1:7443 (tls, reactor, 1 thread); trust /tmp/lariat-tls-echo.pem
//! $ openssl s_client -quiet -verify_return_error -CAfile /tmp/lariat-tls-echo.pem \
//!       -connect 127.0.0.1:7443 -servername localhost
//! ```
//!
//! Without `--cert` and `--key` it makes a certificate for localhost that it has signed itself, and
//! says where a client finds it. `--client-ca FILE` asks clients for a certificate of their own
//! (mutual TLS); `--driver blocking` runs the same on threads. With `-v` each session and each
//! close is printed. `--capture FILE` writes the clear bytes of all connections to a file for
//! Wireshark or tshark.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lariat::blocking::Blocking;
use lariat::capture::Capture;
use lariat::reactor::Reactor;
use lariat::tls::{Identity, Roots, ServerConfig, Tls, TlsSession};
use lariat::{CloseReason, Context, Driver, DriverLimits, Input, Outcome, Protocol};
use lexopt::prelude::*;

const HELP: &str = "\
tls_echo: answers every byte with the same byte, over TLS

usage: tls_echo [options]

  -a, --addr ADDR       where to listen; :0 takes a free port [127.0.0.1:7443]
      --cert FILE       its certificate, and those that lead to its authority
                        [one that it makes for localhost]
      --key FILE        the key of the certificate
      --client-ca FILE  ask clients for a certificate of these authorities
      --capture FILE    write the clear bytes of all connections, for Wireshark
  -d, --driver NAME     reactor or blocking [reactor]
  -v, --verbose         print each session, and each close with its reason
  -q, --quiet           print the ready line and errors only
  -h, --help            print this
  -V, --version         print the version

Ctrl-C lets connections finish for 5 s; a second one ends at once.

openssl s_client -quiet -CAfile /tmp/lariat-tls-echo.pem -connect 127.0.0.1:7443";

/// A line on standard output. `println!` would panic when that is closed.
fn say(line: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Answers every byte with the same byte, and says with `-v` who has come and gone.
struct Echo {
    capture: Option<Capture>,
    tells: bool,
}

impl Protocol for Echo {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let peer = cx.peer_addr();
        if let Some(capture) = &self.capture {
            cx.set_tap(capture.tap());
        }
        if let Some(session) = cx.session::<TlsSession>().filter(|_| self.tells) {
            let known = session.peer_certificates().len();
            let (version, suite) = (session.version(), session.cipher_suite());
            tell(format_args!("{peer}: {version:?}, {suite}, {known} certificates"));
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        if self.tells {
            tell(format_args!("closed {}: {reason}", cx.peer_addr()));
        }
    }
}

struct Options {
    addr: String,
    files: Option<(PathBuf, PathBuf)>,
    client_ca: Option<PathBuf>,
    capture: Option<PathBuf>,
    blocking: bool,
    verbose: bool,
    quiet: bool,
}

/// What the command line asks for.
enum Asked {
    Serve(Options),
    Print(String),
}

fn options() -> Result<Asked, lexopt::Error> {
    let mut options = Options {
        addr: "127.0.0.1:7443".to_owned(),
        files: None,
        client_ca: None,
        capture: None,
        blocking: false,
        verbose: false,
        quiet: false,
    };
    let (mut cert, mut key) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('a') | Long("addr") => options.addr = address(&parser.value()?.string()?)?,
            Long("cert") => cert = Some(PathBuf::from(parser.value()?)),
            Long("key") => key = Some(PathBuf::from(parser.value()?)),
            Long("client-ca") => options.client_ca = Some(PathBuf::from(parser.value()?)),
            Long("capture") => options.capture = Some(PathBuf::from(parser.value()?)),
            Short('d') | Long("driver") => {
                options.blocking = match parser.value()?.string()?.as_str() {
                    "reactor" => false,
                    "blocking" => true,
                    other => return Err(format!("--driver {other}: reactor or blocking").into()),
                };
            }
            Short('v') | Long("verbose") => options.verbose = true,
            Short('q') | Long("quiet") => options.quiet = true,
            Short('h') | Long("help") => return Ok(Asked::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Asked::Print(format!("tls_echo (lariat {version})")));
            }
            other => return Err(other.unexpected()),
        }
    }
    options.files = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("--cert and --key go together".into()),
    };
    match options.verbose && options.quiet {
        true => Err("--verbose and --quiet contradict one another".into()),
        false => Ok(Asked::Serve(options)),
    }
}

/// Anything that has the form of an address; `:PORT` is one of this machine.
fn address(text: &str) -> Result<String, String> {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match has_port || text.strip_prefix("unix:").is_some_and(|path| !path.is_empty()) {
        true if text.starts_with(':') => Ok(format!("127.0.0.1{text}")),
        true => Ok(text.to_owned()),
        false => Err(format!("{text}: not an address; one looks like 127.0.0.1:80 or unix:PATH")),
    }
}

/// A certificate for localhost that is its own authority, and where clients find it.
fn self_signed() -> Result<(Identity, PathBuf), Box<dyn Error>> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let path = std::env::temp_dir().join("lariat-tls-echo.pem");
    std::fs::write(&path, made.cert.pem())
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let key = made.key_pair.serialize_pem();
    Ok((Identity::from_pem(made.cert.pem().as_bytes(), key.as_bytes())?, path))
}

fn main() -> ExitCode {
    let done = match options() {
        Ok(Asked::Serve(options)) => serve(&options),
        Ok(Asked::Print(text)) => say(format_args!("{text}")).map_err(Into::into),
        Err(error) => {
            tell(format_args!("tls_echo: {error} (try --help)"));
            return ExitCode::from(2);
        }
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match (error.downcast_ref::<lariat::Error>(), error.downcast_ref::<io::Error>()) {
        // The Debug form of lariat's own has a hint behind the sentence.
        (Some(error), _) => tell(format_args!("Error: {error:?}")),
        // Nobody reads standard output.
        (_, Some(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        _ => tell(format_args!("Error: {error}")),
    }
    ExitCode::FAILURE
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let (identity, trust) = match &options.files {
        Some((cert, key)) => (Identity::from_files(cert, key)?, cert.clone()),
        None => self_signed()?,
    };
    let config = match &options.client_ca {
        Some(file) => ServerConfig::mutual(identity, &Roots::from_file(file)?)?,
        None => ServerConfig::new(identity),
    };
    let mut limits = match options.blocking {
        true => DriverLimits::blocking(),
        false => DriverLimits::default(),
    };
    limits.drain = Duration::from_secs(5);
    let (mut driver, how): (Box<dyn Driver>, _) = match options.blocking {
        true => (Box::new(Blocking::with_limits(limits)?), "blocking, a thread per connection"),
        false => (Box::new(Reactor::with_limits(limits)?), "reactor, 1 thread"),
    };
    driver.stop_on_signals()?;
    let capture = options.capture.as_ref().map(Capture::create).transpose()?;
    let (captures, tells) = (capture.clone(), options.verbose);
    let make = move |_: &_| Some(Tls::server(&config, Echo { capture: captures.clone(), tells }));
    let listener = driver.control().listen(options.addr.as_str(), make)?;
    for addr in driver.addresses(listener) {
        say(format_args!("listening on {addr} (tls, {how}); trust {}", trust.display()))?;
    }
    let report = driver.run()?;
    let written = capture.as_ref().map(Capture::finish).transpose()?;
    if !options.quiet {
        tell(format_args!("stopped: {report}"));
        written.iter().for_each(|file| tell(format_args!("{file}")));
    }
    Ok(())
}
