//! An echo over TLS: encryption in transit, and a certificate that says who the server is.
//!
//! ```text
//! $ cargo run --release --example tls_echo
//! listening on 127.0.0.1:7443 (tls, reactor, 1 thread); trust /tmp/lariat-tls-echo.pem
//! $ openssl s_client -quiet -verify_return_error -CAfile /tmp/lariat-tls-echo.pem \
//!       -connect 127.0.0.1:7443 -servername localhost
//! ```
//!
//! Without `--cert` and `--key` it makes a certificate for localhost that it has signed itself, and
//! says where a client finds it. `--client-ca FILE` asks clients for a certificate of their own
//! (mutual TLS); `--driver blocking` runs the same on threads. `--capture FILE` writes the clear
//! bytes of all connections to a file for Wireshark or tshark.

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
      --cert FILE       its certificate and those that lead to its authority [one that it makes]
      --key FILE        the key of the certificate
      --client-ca FILE  ask clients for a certificate of one of these authorities
      --capture FILE    write the clear bytes of all connections, for Wireshark
  -d, --driver NAME     reactor or blocking [reactor]
  -h, --help            print this
  -V, --version         print the version

Ctrl-C lets connections finish for 5 s; a second one ends at once.

openssl s_client -quiet -CAfile /tmp/lariat-tls-echo.pem -connect 127.0.0.1:7443";

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Answers every byte with the same byte, and says who has come and gone.
struct Echo {
    capture: Option<Capture>,
}

impl Protocol for Echo {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let peer = cx.peer_addr();
        if let Some(capture) = &self.capture {
            cx.set_tap(capture.tap());
        }
        if let Some(session) = cx.session::<TlsSession>() {
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
        tell(format_args!("{}: {reason}", cx.peer_addr()));
    }
}

struct Options {
    addr: String,
    files: Option<(PathBuf, PathBuf)>,
    client_ca: Option<PathBuf>,
    capture: Option<PathBuf>,
    blocking: bool,
}

/// Reads the command line; None when there is nothing to do but what has been printed.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        addr: "127.0.0.1:7443".to_owned(),
        files: None,
        client_ca: None,
        capture: None,
        blocking: false,
    };
    let (mut cert, mut key) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('a') | Long("addr") => {
                let addr = parser.value()?.string()?;
                let local = addr.starts_with(':');
                options.addr = if local { format!("127.0.0.1{addr}") } else { addr };
            }
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
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            Short('V') | Long("version") => {
                println!("tls_echo (lariat {})", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    options.files = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("--cert and --key go together".into()),
    };
    Ok(Some(options))
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
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("tls_echo: {error} (try --help)"));
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The Debug form of lariat's own has a hint behind the sentence.
            match error.downcast_ref::<lariat::Error>() {
                Some(error) => tell(format_args!("Error: {error:?}")),
                None => tell(format_args!("Error: {error}")),
            }
            ExitCode::FAILURE
        }
    }
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
    let captures = capture.clone();
    let make = move |_: &_| Some(Tls::server(&config, Echo { capture: captures.clone() }));
    let listener = driver.control().listen(options.addr.as_str(), make)?;
    for addr in driver.addresses(listener) {
        writeln!(io::stdout(), "listening on {addr} (tls, {how}); trust {}", trust.display())?;
    }
    tell(format_args!("stopped: {}", driver.run()?));
    if let Some(capture) = capture {
        tell(format_args!("{}", capture.finish()?));
    }
    Ok(())
}
