//! A TCP proxy: it listens on one address and relays each client to another one.
//!
//! ```text
//! $ cargo run --release --example proxy -- :8000 127.0.0.1:8080
//! listening on 127.0.0.1:8000 (tcp, reactor, 1 thread)
//! $ curl http://127.0.0.1:8000/                        # in a second terminal
//! ```
//!
//! When a client has gone, a line on standard error says how many bytes went each way, and how both
//! connections ended. All of the work is `lariat::tunnel::Tunnel`; this is the command line around
//! it. `--announce v2` tells the target who the client is, and `--accept-proxy` hears it from a
//! balancer in front, by the PROXY protocol.

use std::process::ExitCode;

use lariat::blocking::Blocking;
use lariat::proxy_protocol::{AcceptProxy, Header, Version};
use lariat::reactor::Reactor;
use lariat::tunnel::Tunnel;
use lariat::{Control, Driver, DriverLimits, Incoming, ListenerId};
use lexopt::prelude::*;

const HELP: &str = "\
proxy: relays each client to another address

usage: proxy [options] LISTEN TARGET

LISTEN and TARGET are HOST:PORT, [::1]:PORT, :PORT for 127.0.0.1:PORT or unix:PATH;
port 0 of LISTEN takes a free one.

      --announce V    tell the target who the client is: v1 or v2 of PROXY [off]
      --accept-proxy  hear from a balancer in front who the client is [off]
  -d, --driver NAME   reactor or blocking [reactor]
  -q, --quiet         print the ready line and errors only
  -h, --help          print this
  -V, --version       print the version

Ctrl-C lets connections finish for 5 s; a second one ends at once.

curl http://127.0.0.1:8000/";

struct Options {
    addrs: [String; 2],
    announce: Option<Version>,
    accept_proxy: bool,
    blocking: bool,
    quiet: bool,
}

/// Reads the command line; None when there is nothing to do but what has been printed.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let (mut addrs, mut announce) = (Vec::new(), None);
    let (mut accept_proxy, mut blocking, mut quiet) = (false, false, false);
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
            Short('q') | Long("quiet") => quiet = true,
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            Short('V') | Long("version") => {
                println!("proxy (lariat {})", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Value(addr) => addrs.push(addr.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let local =
        |addr: String| if addr.starts_with(':') { format!("127.0.0.1{addr}") } else { addr };
    let addrs = <[String; 2]>::try_from(addrs).map_err(|_| "LISTEN and TARGET are needed")?;
    Ok(Some(Options { addrs: addrs.map(local), announce, accept_proxy, blocking, quiet }))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error} (try --help)");
            return ExitCode::from(2);
        }
    };
    env_logger::init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> lariat::Result<()> {
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
        println!("listening on {addr} ({kind}, {how})");
    }
    let report = driver.run()?;
    if !options.quiet {
        eprintln!("stopped: {report}");
    }
    Ok(())
}

fn listen(control: &mut Control<'_>, options: &Options) -> lariat::Result<ListenerId> {
    let [addr, target] = options.addrs.clone();
    let (announce, quiet) = (options.announce, options.quiet);
    let factory = move |incoming: &Incoming| {
        let mut tunnel = Tunnel::to(&target);
        if let Some(version) = announce {
            // What a balancer in front has said is passed on.
            tunnel = tunnel.announce_as(Header::of(incoming), version);
        }
        if !quiet {
            tunnel = tunnel.on_end(|_, summary| eprintln!("{summary}"));
        }
        Some(tunnel)
    };
    match options.accept_proxy {
        // Only the balancer may reach the address that it is started with.
        true => control.listen(addr, AcceptProxy::trusting(|_| true).factory(factory)),
        false => control.listen(addr, factory),
    }
}
