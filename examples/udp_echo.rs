//! An echo server for datagrams, with nothing around it: `echo_reactor --udp` has the options.
//!
//! ```text
//! $ cargo run --release --example udp_echo
//! bound to 127.0.0.1:7000
//!
//! $ printf 'hello' | nc -u -w1 127.0.0.1 7000
//! hello
//! ```
//!
//! An address such as `unix:echo.sock` is that of a Unix socket. Ctrl-C stops it, and it prints its
//! counters.

use lariat::reactor::Reactor;
use lariat::{Datagram, DatagramContext, DatagramProtocol, Outcome};

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        // An `Err` of this callback would close the socket: one peer must not end all others.
        if let Err(error) = cx.send_to(datagram, datagram.from()) {
            eprintln!("{error}");
        }
        Ok(())
    }
}

fn main() -> lariat::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".to_owned());
    let mut reactor = Reactor::new()?;
    let echo = reactor.bind(addr, Echo)?;
    #[cfg(feature = "signals")]
    reactor.stop_on_signals()?;
    if let Some(addr) = reactor.bound_addr(echo) {
        println!("bound to {addr}");
    }
    reactor.run()?;
    eprintln!("{}", reactor.metrics());
    Ok(())
}
