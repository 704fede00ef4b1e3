//! Ready protocols: what a user could have written, on the public contract.

#[cfg(feature = "auth")]
pub mod auth;
pub mod capture;
pub mod datagram_peers;
pub mod framing;
#[cfg(feature = "http")]
pub mod http;
pub mod proxy_protocol;
pub mod reconnect;
pub mod sniff;
#[cfg(any(feature = "auth", feature = "tls"))]
mod stacked;
#[cfg(feature = "tls")]
pub mod tls;
pub mod tunnel;
