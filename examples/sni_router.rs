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
                    let tunnel = Tunnel::to(target);
                    Choice::take(tunnel.on_end(move |_, summary| eprintln!("{name}: {summary}")))
                }
                None => refuse(format!("no target has the name {name}")),
            }
        }
    })
}

fn refuse(why: String) -> Choice {
    eprintln!("{why}");
    Choice::refuse(why)
}

const USAGE: &str = "usage: sni_router LISTEN NAME=TARGET ..; the name * is for all others";

/// `LISTEN NAME=TARGET ..`
fn arguments() -> Option<(String, Routes)> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().filter(|listen| !listen.starts_with('-'))?;
    let routes = arguments.map(|route| {
        let (name, target) = route.split_once('=')?;
        Some((name.to_ascii_lowercase(), target.to_owned()))
    });
    let routes: BTreeMap<_, _> = routes.collect::<Option<_>>()?;
    let listen = if listen.starts_with(':') { format!("127.0.0.1{listen}") } else { listen };
    (!routes.is_empty()).then(|| (listen, Arc::new(routes)))
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "-h" || argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some((listen, routes)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    env_logger::init();
    match run(&listen, routes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: &str, routes: Routes) -> lariat::Result<()> {
    // Ctrl-C lets connections finish for 5 s.
    let mut limits = DriverLimits::default();
    limits.drain = Duration::from_secs(5);
    let mut reactor = Reactor::with_limits(limits)?;
    reactor.stop_on_signals()?;
    let listener = reactor.listen(listen, move |_| Some(route(&routes)))?;
    for addr in reactor.addresses(listener) {
        println!("listening on {addr} (tls by name, reactor, 1 thread)");
    }
    eprintln!("stopped: {}", reactor.run()?);
    Ok(())
}
