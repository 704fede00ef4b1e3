//! The PROXY protocol, versions 1 and 2: a load balancer says in front of each connection whose it
//! is. [The specification](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt) is
//! haproxy's.
//!
//! A server behind a balancer sees the balancer as its client. With this protocol the balancer
//! sends a header before everything else, also before TLS, with the addresses of the real client.
//! [`AcceptProxy`] reads it and hands the connection to the protocol behind it, for which
//! [`Context::peer_addr`](crate::Context::peer_addr) and [`Incoming::peer`] are those of the real
//! client; [`Incoming::via`] is the balancer.
//!
//! ```
//! use lariat::proxy_protocol::{AcceptProxy, Networks};
//! use lariat::{Context, Input, Outcome, Protocol, sim::Sim};
//!
//! struct Greeter;
//! impl Protocol for Greeter {
//!     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         write!(cx, "hello, {}\n", cx.peer_addr())?;
//!         input.consume_all();
//!         Ok(())
//!     }
//! }
//!
//! let balancers = Networks::new(["127.0.0.0/8", "::1"])?;
//! let accept = AcceptProxy::from(balancers);
//! let mut sim = Sim::new(1);
//! let listener = sim.listen("127.0.0.1:80", accept.factory(|_| Some(Greeter)))?;
//! let balancer = sim.dial(sim.addresses(listener)[0]);
//! balancer.send(b"PROXY TCP4 203.0.113.9 192.0.2.1 40312 80\r\nhello");
//! sim.run_for(std::time::Duration::from_secs(1))?;
//! assert_eq!(balancer.take_received(), b"hello, 203.0.113.9:40312\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Anything that is no valid header, or too long a one, ends the connection with
//! [`CloseKind::Protocol`](crate::CloseKind::Protocol) and a [`HeaderError`]; one that does not
//! come in time, with `TimedOut(Handshake)`. Nothing is guessed: a listener expects the header on
//! every connection of a trusted peer, and never looks for one on another.
//!
//! The other side is [`SendProxy`], for a client, and
//! [`Tunnel::announce`](crate::tunnel::Tunnel::announce), for a balancer.
//!
//! [`Incoming::peer`]: crate::Incoming::peer
//! [`Incoming::via`]: crate::Incoming::via

mod accept;
mod binary;
mod checksum;
mod header;
mod networks;
mod send;
mod text;

pub use accept::{AcceptProxy, Others, Receiving};
pub(super) use header::{Beginning, begins};
pub use header::{Header, HeaderError, Parsed, Version};
pub use networks::{InvalidNetwork, Networks};
pub use send::SendProxy;
