//! A TCP proxy: it listens on one address and relays each client to another one.
//!
//! ```text
//! $ cargo run --release --example proxy -- -v :8000 127.0.0.1:8080
//! listening on 127.0.0.1:8000 (tcp, reactor, 1 thread)
//! $ curl http://127.0.0.1:8000/                        # in a second terminal
//! ```
//!
//! With `-v` a line on standard error says, when a client has gone, how many bytes went each way,
//! and how both connections ended; without it there is such a line only for what went wrong. All of
//! the work is `lariat::tunnel::Tunnel`; this is the command line around it. `--announce v2` tells
//! the target who the client is, and `--accept-proxy` hears it from a balancer in front, by the
//! PROXY protocol.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use lariat::blocking::Blocking;
use lariat::proxy_protocol::{AcceptProxy, Header, Version};
use lariat::reactor::Reactor;
use lariat::tunnel::{End, Summary, Tunnel};
use lariat::{CloseKind, Control, Driver, DriverLimits, Incoming, ListenerId};
use lexopt::prelude::*;

const HELP: &str = "\
proxy: relays each client to another address

usage: proxy [options] LISTEN TARGET

LISTEN and TARGET are HOST:PORT, [::1]:PORT, :PORT (local) or unix:PATH; port 0
of LISTEN takes a free one.

      --announce V    tell the target who the client is: v1 or v2 of PROXY [off]
      --accept-proxy  hear from a balancer in front who the client is [off]
  -d, --driver NAME   reactor or blocking [reactor]
  -v, --verbose       print each end with its reason [those that went wrong]
  -q, --quiet         print the ready line and errors only
  -h, --help          print this
  -V, --version       print the version

Ctrl-C lets connections finish for 5 s; a second one ends at once.

curl http://127.0.0.1:8000/";

/// A line on standard output. `println!` would panic when that is closed.
fn say(line: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// A line on standard error, dropped where that is closed: `eprintln!` would panic.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

struct Options {
    addrs: [String; 2],
    announce: Option<Version>,
    accept_proxy: bool,
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
    let (mut addrs, mut announce) = (Vec::new(), None);
    let (mut accept_proxy, mut blocking) = (false, false);
    let (mut verbose, mut quiet) = (false, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("announce") => {
                announce = Some(match parser.value()?.string()?.as_str() {
                    "v1" => Version::V1,
                    "v2" => Version::V2,
                    other => return Err(format!("--announce {other}: v1 or v2").into()),
                });
            }
            Long("accept-proxy") => accept_proxy = true,
            Short('d') | Long("driver") => {
                blocking = match parser.value()?.string()?.as_str() {
                    "reactor" => false,
                    "blocking" => true,
                    other => return Err(format!("--driver {other}: reactor or blocking").into()),
                };
            }
            Short('v') | Long("verbose") => verbose = true,
            Short('q') | Long("quiet") => quiet = true,
            Short('h') | Long("help") => return Ok(Asked::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Asked::Print(format!("proxy (lariat {})", env!("CARGO_PKG_VERSION"))));
            }
            Value(addr) => addrs.push(address(&addr.string()?)?),
            other => return Err(other.unexpected()),
        }
    }
    if verbose && quiet {
        return Err("--verbose and --quiet contradict one another".into());
    }
    let addrs = <[String; 2]>::try_from(addrs).map_err(|_| "LISTEN and TARGET are needed")?;
    Ok(Asked::Serve(Options { addrs, announce, accept_proxy, blocking, verbose, quiet }))
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
    let done = match options() {
        Ok(Asked::Serve(options)) => run(&options),
        Ok(Asked::Print(text)) => say(format_args!("{text}")).map_err(Into::into),
        Err(error) => {
            tell(format_args!("proxy: {error} (try --help)"));
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

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let mut limits = match options.blocking {
        true => DriverLimits::blocking(),
        false => DriverLimits::default(),
    };
    limits.drain = std::time::Duration::from_secs(5);
    let (mut driver, how): (Box<dyn Driver>, _) = match options.blocking {
        true => (Box::new(Blocking::with_limits(limits)?), "blocking, two threads per connection"),
        false => (Box::new(Reactor::with_limits(limits)?), "reactor, 1 thread"),
    };
    driver.stop_on_signals()?;
    let listener = listen(&mut driver.control(), options)?;
    for addr in driver.addresses(listener) {
        let kind = if addr.unix().is_some() { "unix" } else { "tcp" };
        say(format_args!("listening on {addr} ({kind}, {how})"))?;
    }
    let report = driver.run()?;
    if !options.quiet {
        tell(format_args!("stopped: {report}"));
    }
    Ok(())
}

/// Whether both connections have ended in order.
fn went_well(summary: &Summary) -> bool {
    let finished = |end: &End| end.reason().kind() == CloseKind::Finished;
    finished(summary.client()) && summary.target().is_some_and(finished)
}

fn listen(control: &mut Control<'_>, options: &Options) -> lariat::Result<ListenerId> {
    let [addr, target] = options.addrs.clone();
    let (announce, verbose, quiet) = (options.announce, options.verbose, options.quiet);
    let factory = move |incoming: &Incoming| {
        let mut tunnel = Tunnel::to(&target);
        if let Some(version) = announce {
            // What a balancer in front has said is passed on.
            tunnel = tunnel.announce_as(Header::of(incoming), version);
        }
        if !quiet {
            tunnel = tunnel.on_end(move |_, summary| {
                if verbose || !went_well(summary) {
                    tell(format_args!("{summary}"));
                }
            });
        }
        Some(tunnel)
    };
    match options.accept_proxy {
        // Only the balancer may reach the address that it is started with.
        true => control.listen(addr, AcceptProxy::trusting(|_| true).factory(factory)),
        false => control.listen(addr, factory),
    }
}
