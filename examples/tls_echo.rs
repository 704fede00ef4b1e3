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
use std::path::PathBuf;

use lariat::blocking::Blocking;
use lariat::capture::Capture;
use lariat::reactor::Reactor;
use lariat::tls::{Identity, Roots, ServerConfig, Tls, TlsSession};
use lariat::{CloseReason, Context, Driver, Input, Outcome, Protocol};
use lexopt::prelude::*;

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
            println!(
                "{peer}: {:?}, {}, {known} certificates",
                session.version(),
                session.cipher_suite()
            );
        }
        Ok(())
    }

    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
        cx.write(input);
        input.consume_all();
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        println!("{}: {reason}", cx.peer_addr());
    }
}

struct Options {
    addr: String,
    files: Option<(PathBuf, PathBuf)>,
    client_ca: Option<PathBuf>,
    capture: Option<PathBuf>,
    blocking: bool,
}

fn options() -> Result<Options, lexopt::Error> {
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
            Short('a') | Long("addr") => options.addr = parser.value()?.string()?,
            Long("cert") => cert = Some(PathBuf::from(parser.value()?)),
            Long("key") => key = Some(PathBuf::from(parser.value()?)),
            Long("client-ca") => options.client_ca = Some(PathBuf::from(parser.value()?)),
            Long("capture") => options.capture = Some(PathBuf::from(parser.value()?)),
            Long("driver") => options.blocking = parser.value()? == "blocking",
            Short('h') | Long("help") => {
                println!(
                    "tls_echo [--addr ADDR] [--cert FILE --key FILE] [--client-ca FILE] \
                     [--capture FILE] [--driver reactor|blocking]"
                );
                std::process::exit(0);
            }
            other => return Err(other.unexpected()),
        }
    }
    options.files = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("--cert and --key go together".into()),
    };
    Ok(options)
}

/// A certificate for localhost that is its own authority, and where clients find it.
fn self_signed() -> Result<(Identity, PathBuf), Box<dyn Error>> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let path = std::env::temp_dir().join("lariat-tls-echo.pem");
    std::fs::write(&path, made.cert.pem())?;
    let key = made.key_pair.serialize_pem();
    Ok((Identity::from_pem(made.cert.pem().as_bytes(), key.as_bytes())?, path))
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let (identity, trust) = match &options.files {
        Some((cert, key)) => (Identity::from_files(cert, key)?, cert.clone()),
        None => self_signed()?,
    };
    let config = match &options.client_ca {
        Some(file) => ServerConfig::mutual(identity, &Roots::from_file(file)?)?,
        None => ServerConfig::new(identity),
    };
    if options.blocking {
        let mut driver = Blocking::new();
        driver.stop_on_signals()?;
        run(driver, &options, &config, "tls, blocking, a thread per connection", &trust)
    } else {
        let mut driver = Reactor::new()?;
        driver.stop_on_signals()?;
        run(driver, &options, &config, "tls, reactor, 1 thread", &trust)
    }
}

fn run(
    mut driver: impl Driver,
    options: &Options,
    config: &ServerConfig,
    how: &str,
    trust: &std::path::Path,
) -> Result<(), Box<dyn Error>> {
    let config = config.clone();
    let capture = options.capture.as_ref().map(Capture::create).transpose()?;
    let captures = capture.clone();
    let make = move |_: &_| Some(Tls::server(&config, Echo { capture: captures.clone() }));
    let listener = driver.control().listen(options.addr.as_str(), make)?;
    for addr in driver.addresses(listener) {
        println!("listening on {addr} ({how}); trust {}", trust.display());
    }
    let report = driver.run()?;
    println!("stopped: {report}");
    if let Some(capture) = capture {
        println!("{}", capture.finish()?);
    }
    Ok(())
}
