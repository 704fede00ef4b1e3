//! A router for TLS: it reads the name that a client asks for, and relays the connection to the
//! target of that name, without a key or a certificate of its own.
//!
//! ```text
//! $ cargo run --release --example sni_router -- :8443 localhost=127.0.0.1:7443 '*=10.0.0.9:443'
//! listening on 127.0.0.1:8443 (tls by name, reactor, 1 thread)
//! $ openssl s_client -quiet -CAfile /tmp/lariat-tls-echo.pem \
//!       -connect 127.0.0.1:8443 -servername localhost      # in a second terminal, beside tls_echo
//! ```
//!
//! `lariat::sniff` looks at the first bytes and consumes nothing; the `Tunnel` that takes over
//! sends them on, so the target sees what the client has sent from its first byte on.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lariat::DriverLimits;
use lariat::reactor::Reactor;
use lariat::sniff::{self, Choice, Seen, Sniff};
use lariat::tunnel::Tunnel;

/// Targets by name; that of `*` is for all other names, and for clients that ask for none.
type Routes = Arc<BTreeMap<String, String>>;

fn route(routes: &Routes) -> Sniff {
    let routes = Arc::clone(routes);
    Sniff::new(move |bytes| match sniff::tls(bytes) {
        Seen::More(count) => Choice::More(count),
        Seen::No => refuse("a client does not speak TLS".to_owned()),
        Seen::Yes(hello) => {
            let name = hello.server_name().unwrap_or("*");
            match routes.get(name).or_else(|| routes.get("*")) {
                Some(target) => {
                    let name = name.to_owned();
                    Choice::take(Tunnel::to(target).on_end(move |_, summary| {
                        tell(format_args!("{name}: {summary}"));
                    }))
                }
                None => refuse(format!("no target has the name {name}")),
            }
        }
    })
}

fn refuse(why: String) -> Choice {
    tell(format_args!("{why}"));
    Choice::refuse(why)
}

/// A line on standard output. `println!` would panic when that is closed.
fn say(line: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

const HELP: &str = "\
sni_router: relays each client of TLS to the target of the name that it asks for

usage: sni_router LISTEN NAME=TARGET ..

LISTEN and TARGET are HOST:PORT, [::1]:PORT, :PORT (local) or unix:PATH; port 0
of LISTEN takes a free one. The NAME * is for all others, and for no name.
-h, --help prints this, -V, --version the version. Each end is told on stderr.

Ctrl-C lets connections finish for 5 s; a second one ends at once.

openssl s_client -quiet -connect 127.0.0.1:8443 -servername localhost";

/// What the command line asks for.
enum Asked {
    Serve(String, Routes),
    Print(String),
}

fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let listen = match arguments.next().as_deref() {
        None => return Err("LISTEN and NAME=TARGET are needed".to_owned()),
        Some("-h" | "--help") => return Ok(Asked::Print(HELP.to_owned())),
        Some("-V" | "--version") => {
            return Ok(Asked::Print(format!("sni_router (lariat {})", env!("CARGO_PKG_VERSION"))));
        }
        Some(option) if option.starts_with('-') => {
            return Err(format!("invalid option '{option}'"));
        }
        Some(listen) => address(listen)?,
    };
    let routes = arguments.map(|route| {
        let (name, target) = route.split_once('=').ok_or(format!("{route}: not NAME=TARGET"))?;
        Ok((name.to_ascii_lowercase(), address(target)?))
    });
    let routes: BTreeMap<_, _> = routes.collect::<Result<_, String>>()?;
    match routes.is_empty() {
        true => Err("no NAME=TARGET is given".to_owned()),
        false => Ok(Asked::Serve(listen, Arc::new(routes))),
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

fn main() -> ExitCode {
    let done = match arguments(std::env::args().skip(1)) {
        Ok(Asked::Serve(listen, routes)) => run(&listen, routes),
        Ok(Asked::Print(text)) => say(format_args!("{text}")).map_err(Into::into),
        Err(sentence) => {
            tell(format_args!("sni_router: {sentence} (try --help)"));
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

fn run(listen: &str, routes: Routes) -> Result<(), Box<dyn Error>> {
    env_logger::init();
    // Ctrl-C lets connections finish for 5 s.
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_secs(5);
    let mut reactor = Reactor::with_limits(limits)?;
    reactor.stop_on_signals()?;
    let listener = reactor.listen(listen, move |_| Some(route(&routes)))?;
    for addr in reactor.addresses(listener) {
        say(format_args!("listening on {addr} (tls by name, reactor, 1 thread)"))?;
    }
    tell(format_args!("stopped: {}", reactor.run()?));
    Ok(())
}
