//! An event-loop networking runtime built directly on mio, for people who write low-level servers.
//!
//! A [`Protocol`] is one value per connection. Its callbacks get bytes and events, and ask for
//! things through a [`Context`]. The same protocol runs on three drivers: [`reactor`], one thread
//! and readiness for very many connections; [`blocking`], a thread per connection; and [`sim`], a
//! deterministic simulator with a virtual clock and faults from a seed.
//!
//! ```no_run
//! use lariat::{Context, Input, Outcome, Protocol};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         cx.write(input);
//!         input.consume(input.len());
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> lariat::Result<()> {
//!     lariat::reactor::serve("127.0.0.1:7000", || Echo)
//! }
//! ```
//!
//! | for | see |
//! | --- | --- |
//! | learning it, from a blocking socket on; *en español* | [`guide`], [`guide::es`] |
//! | the callbacks | [`Protocol`] |
//! | what a callback may do | [`Context`], [`Input`], [`Peer`] |
//! | running it | [`reactor::serve`], [`reactor::Reactor`] |
//! | the same on threads | [`blocking::serve`], [`blocking::Blocking`] |
//! | testing it | [`sim::Probe`], [`sim::every_split`], [`sim::Sim`], [`sim::check`] |
//! | datagrams | [`DatagramProtocol`], [`DatagramContext`] |
//! | bounds | [`Limits`], [`DriverLimits`], [`ListenOptions`], [`ConnectOptions`] |
//! | why a connection ended | [`CloseReason`], [`CloseKind`] |
//! | other threads | [`Handle`], [`Control`] |
//! | a client that connects again, with growing delays | [`reconnect`] |
//! | a whole client in one call | [`reactor::connect`], [`blocking::connect`] |
//! | encryption and the like | [`Filter`] |
//! | lines, delimiters, length prefixes | [`framing`] |
//! | a relay of two connections, for proxies | [`tunnel`] |
//! | the client behind a balancer | [`proxy_protocol`] |
//! | several protocols on one port | [`sniff`] |
//! | clear bytes as a file for Wireshark | [`capture`] |
//! | datagrams with a value per peer | [`datagram_peers`] |
//! | HTTP/1.1 | `lariat::http`, with the feature `http` |
//! | TLS | `lariat::tls`, with the feature `tls` |
//! | sockets taken over, and given away | [`Control::adopt_stream`], [`Context::detach`] |
//! | pipes, terminals, a child's stdio | `Descriptors`, with the feature `fd` |
//! | sockets for another process | `lariat::hand_over`, with the feature `hand-over` |
//! | who is behind a Unix stream | `PeerCredentials`, with the feature `peer-credentials` |
//! | a token instead of certificates | `lariat::auth`, with the feature `auth` |
//! | tokio, mio, asyncio, Twisted | [`coming_from`] |
//!
//! # Guarantees
//!
//! - Callbacks never run inside one another, and their order is fixed: see [`Protocol`].
//! - `closed` runs exactly once for every connection, with a [`CloseReason`], unless the driver is
//!   dropped. A close in order does not lose the last reply to a reset of this side.
//! - Every queue that a peer can fill has a bound, and every wait for a peer has a deadline; all
//!   are on by default except [`Limits::idle`]. [`CloseKind`] says which bound ended a connection.
//!   An echo, a relay and a proxy are bounded without any code: see [`Peer::write`].
//! - A turn of the reactor serves interactive connections first. Those that move 16 KiB or more at
//!   a time follow, at most 64 of them and about 2 MiB, before the next poll.
//! - A panic in a callback ends its connection and no other.
//! - No `unsafe` code; a write to a closed socket raises no SIGPIPE.
//!
//! Two ends that both write only in answer to input, with more under way than the kernels hold,
//! block each other, as they would without lariat; [`Limits::write_stall`] ends that.
//!
//! # Logs
//!
//! lariat logs through the crate [`log`](https://docs.rs/log), with targets such as
//! `lariat::close`: every end at debug, slow callbacks and late writes at warn, panics of callbacks
//! at error.

#[cfg(windows)]
compile_error!("lariat has not been tested on Windows and does not claim to work there");

mod address;
mod admission;
pub mod blocking;
mod buffer;
mod client;
mod clock;
pub mod coming_from;
mod connection;
#[cfg(feature = "peer-credentials")]
mod credentials;
mod datagram;
#[cfg(feature = "http")]
mod date;
#[cfg(feature = "fd")]
mod descriptors;
mod detached;
mod dispatch;
mod driver;
mod endpoint;
mod episode;
mod error;
mod event_loop;
mod filter;
mod grammar;
mod guard;
pub mod guide;
#[cfg(feature = "hand-over")]
pub mod hand_over;
mod handle;
mod id;
mod jobs;
mod limits;
mod metrics;
mod note;
mod options;
mod protocol;
mod protocols;
mod random;
pub mod reactor;
mod reason;
mod refused;
mod resolver;
mod sending;
#[cfg(feature = "signals")]
mod signals;
pub mod sim;
mod socket;
mod sync;
mod tap;
mod timer;

pub use address::{Address, IntoAddress};
pub use clock::WallClock;
#[cfg(feature = "peer-credentials")]
pub use credentials::PeerCredentials;
pub use datagram::{
    Datagram, DatagramContext, DatagramOptions, DatagramProtocol, DropPolicy, Ecn, Interface,
};
#[cfg(feature = "fd")]
pub use descriptors::Descriptors;
pub use detached::Detached;
pub use driver::{Driver, Report};
pub use endpoint::{Endpoint, UnixName};
pub use error::{Error, ErrorKind, Op, Result};
pub use filter::{Filter, FilterResult, Progress};
pub use handle::Handle;
pub use id::{ConnId, ListenerId};
pub use jobs::JobError;
pub use limits::{DriverLimits, JobLimits, Limits, Overload};
pub use metrics::{Closes, Metrics};
pub use note::Note;
pub use options::{ConnectOptions, Keepalive, ListenOptions};
pub use protocol::{
    Context, Control, Incoming, Input, Outcome, Peer, Protocol, Replacement, TimerId, Writer,
};
#[cfg(feature = "auth")]
pub use protocols::auth;
pub use protocols::capture;
pub use protocols::datagram_peers;
pub use protocols::framing;
#[cfg(feature = "http")]
pub use protocols::http;
pub use protocols::proxy_protocol;
pub use protocols::reconnect;
pub use protocols::sniff;
#[cfg(feature = "tls")]
pub use protocols::tls;
pub use protocols::tunnel;
pub use reason::{
    AddressErrors, By, CloseKind, CloseReason, ConnectFailure, Deadline, FilterFailure,
};
pub use refused::Refused;
pub use resolver::Resolver;
pub use tap::{Tap, Tapped};
pub use timer::Timer;

/// Bytes that are shared instead of copied, of the crate [`bytes`].
pub use bytes::Bytes;

#[doc(hidden)]
pub use protocol::Callbacks;
