//! TLS 1.2 and 1.3 under any protocol, by [rustls]: encryption in transit, and certificates that
//! tell each end who the other is. Needs the feature `tls`.
//!
//! [`Tls`] wraps a protocol and puts a [`Filter`] under its connection. `opened` runs when the
//! handshake is over; what is written before waits for it. [`Limits::handshake`] \[10 s\] bounds
//! the handshake. What other connections and handles write to the connection is encrypted as well.
//! Marks and bounds count clear bytes, as without TLS.
//!
//! ```
//! use lariat::tls::{Identity, ServerConfig, Tls};
//! # use lariat::{Context, Input, Outcome, Protocol};
//! # struct Echo;
//! # impl Protocol for Echo {
//! #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//! #         cx.write(input);
//! #         input.consume_all();
//! #         Ok(())
//! #     }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
//! # let (chain, key) = (made.cert.pem(), made.key_pair.serialize_pem());
//! let config = ServerConfig::new(Identity::from_pem(chain.as_bytes(), key.as_bytes())?);
//! let mut reactor = lariat::reactor::Reactor::new()?;
//! reactor.listen("127.0.0.1:0", move |_| Some(Tls::server(&config, Echo)))?;
//! # Ok(())
//! # }
//! ```
//!
//! How a connection ends:
//!
//! - `close` sends a close_notify behind the output, then FIN. A FIN of the peer without its
//!   close_notify is [`FilterFailure::Truncated`](crate::FilterFailure::Truncated): what has
//!   arrived may be a part of what was sent.
//! - Bytes that are no TLS, and a peer whose certificate does not pass, are
//!   [`FilterFailure::Failed`](crate::FilterFailure::Failed). The peer is sent an alert, and
//!   [`CloseReason::error`](crate::CloseReason::error) is a [`TlsError`] that says what is wrong.
//! - `shutdown_write` sends close_notify and FIN; a peer that speaks TLS 1.3 may go on sending.
//!
//! **STARTTLS.** A protocol that has agreed on TLS in clear replaces itself. What it has written
//! leaves in clear before the handshake. Bytes that have arrived behind the agreement end the
//! connection with [`FilterFailure::UnreadInput`](crate::FilterFailure::UnreadInput), because an
//! attacker on the way may have put them there. An end whose protocol allows them gives them to TLS
//! with [`Replacement::feed_unread`](crate::Replacement::feed_unread); no protocol is ever shown
//! them.
//!
//! ```
//! use lariat::framing::{FrameHandler, Framed, Lines};
//! use lariat::tls::{ServerConfig, Tls};
//! use lariat::{Context, Outcome};
//!
//! /// A line in clear, and the same handler under TLS.
//! struct Mail(ServerConfig);
//!
//! impl FrameHandler for Mail {
//!     fn frame(&mut self, cx: &mut Context<'_>, line: &[u8]) -> Outcome {
//!         if line == b"STARTTLS" {
//!             cx.write(b"220 go ahead\r\n");
//!             let next = Framed::new(Lines::new(), Mail(self.0.clone()));
//!             cx.replace(Tls::server(&self.0, next));
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A client does the same with [`Tls::client`] when the server has agreed.
//!
//! **Time.** Certificates are judged by the clock of the driver ([`DriverTime`]). In the simulator
//! that is virtual time, which begins at a date of your choice:
//! [`Sim::set_wall_clock`](crate::sim::Sim::set_wall_clock).
//!
//! **Cryptography** is ring's. With the feature `tls-aws-lc-rs` it is that of aws-lc-rs, whose
//! build needs a C compiler. The choice is explicit: the default of the process is neither used nor
//! set.
//!
//! What has no method here is set in a configuration of rustls itself, which
//! [`ServerConfig::from`] and [`ClientConfig::from`] take. There is no switch here that turns
//! verification off.
//!
//! [`Limits::handshake`]: crate::Limits::handshake
//! [`Filter`]: crate::Filter

mod config;
mod error;
mod filter;
mod identity;
mod session;
mod time;

use std::sync::Arc;

pub use ::rustls;
use rustls::pki_types::ServerName;

use crate::filter::Filter;
use crate::protocol::Protocol;
use crate::protocols::stacked::alone;

pub use config::{ClientConfig, ServerConfig};
pub use error::TlsError;
pub use identity::{Identity, Roots};
pub use session::{TlsSession, TlsVersion};
pub use time::DriverTime;

use filter::TlsFilter;

/// A protocol over TLS.
///
/// The protocol inside must not have a filter of its own: a connection has one, and fails before it
/// opens if two are asked for.
///
/// The peer's certificate, the protocol agreed on and the like are in
/// [`Context::session::<TlsSession>()`](crate::Context::session) from `opened` on.
#[derive(Debug)]
pub struct Tls<P> {
    inner: P,
    side: Side,
}

/// Which end of the session this is, and what it is to be like.
#[derive(Clone, Debug)]
enum Side {
    Server(Arc<rustls::ServerConfig>),
    Client(Arc<rustls::ClientConfig>, ServerName<'static>),
}

impl<P> Tls<P> {
    /// The server's end of a session.
    pub fn server(config: &ServerConfig, inner: P) -> Tls<P> {
        Tls { inner, side: Side::Server(config.shared()) }
    }

    /// The client's end of a session with the server `name`, a host name or an IP address: its
    /// certificate has to be for that name.
    ///
    /// # Errors
    ///
    /// `name` is neither.
    ///
    /// ```
    /// use lariat::tls::{ClientConfig, Roots, Tls};
    /// # struct Inner;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    /// # let pem = made.cert.pem();
    /// let config = ClientConfig::new(&Roots::from_pem(pem.as_bytes())?);
    /// let client = Tls::client(&config, "localhost", Inner)?;
    /// assert!(Tls::client(&config, "not a name", Inner).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn client(config: &ClientConfig, name: &str, inner: P) -> Result<Tls<P>, TlsError> {
        let named = ServerName::try_from(name.to_owned()).map_err(|error| {
            TlsError::new(format!("{name:?} is neither a host name nor an IP address"), error)
        })?;
        Ok(Tls { inner, side: Side::Client(config.shared(), named) })
    }

    /// The wrapped protocol.
    pub fn get_ref(&self) -> &P {
        &self.inner
    }
}

impl<P: Protocol> Protocol for Tls<P> {
    crate::forward_protocol! {
        self => self.inner;
        pass: opened data eof drained timeout notified closed stopping name;
        own: filter;
    }

    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        Some(alone(TlsFilter::new(self.side.clone()), &mut self.inner))
    }
}
