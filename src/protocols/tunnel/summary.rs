//! How a tunnel went.

use std::error::Error;
use std::fmt;

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::reason::CloseReason;

/// How a tunnel went: what was relayed, and how each connection ended.
///
/// `Display` is a line for a log:
///
/// ```text
/// 10.0.0.9:40312 to 127.0.0.1:8080: 78 bytes to the target, 1024 to the client; client: finished
/// by us, target: finished by us
/// ```
#[derive(Clone, Debug)]
pub struct Summary {
    addr: Address,
    client: End,
    target: Option<End>,
}

impl Summary {
    pub(super) fn new(addr: Address, client: End, target: Option<End>) -> Summary {
        Summary { addr, client, target }
    }

    /// What the tunnel was to connect to.
    pub fn target_addr(&self) -> &Address {
        &self.addr
    }

    /// The connection to the client.
    pub fn client(&self) -> &End {
        &self.client
    }

    /// The connection to the target, or the attempt at it; None where there was none: the client's
    /// connection ended before it had opened, or the limits or options of the tunnel cannot work.
    pub fn target(&self) -> Option<&End> {
        self.target.as_ref()
    }

    /// Bytes that were relayed to the target: those that its kernel socket has taken.
    pub fn to_target(&self) -> u64 {
        self.target.as_ref().map_or(0, End::sent)
    }

    /// Bytes that were relayed to the client: those that its kernel socket has taken.
    pub fn to_client(&self) -> u64 {
        self.client.sent()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { addr, client, target } = self;
        write!(
            f,
            "{} to {addr}: {} bytes to the target, {} to the client; client: {}",
            client.peer,
            self.to_target(),
            self.to_client(),
            End::sentence(client),
        )?;
        match target {
            Some(target) => write!(f, ", target: {}", End::sentence(target)),
            None => Ok(()),
        }
    }
}

/// One connection of a tunnel that has ended.
#[derive(Clone, Debug)]
pub struct End {
    peer: Endpoint,
    reason: CloseReason,
    received: u64,
    sent: u64,
}

impl End {
    pub(super) fn new(peer: Endpoint, reason: &CloseReason, received: u64, sent: u64) -> End {
        End { peer, reason: reason.clone(), received, sent }
    }

    /// The address of its peer.
    pub fn peer_addr(&self) -> Endpoint {
        self.peer
    }

    /// Why it ended.
    pub fn reason(&self) -> &CloseReason {
        &self.reason
    }

    /// Bytes that came from its peer and were taken for the other connection.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of the other connection that were handed to its kernel socket.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Who ended it, how, and with which error.
    fn sentence(&self) -> impl fmt::Display + '_ {
        struct Sentence<'a>(&'a CloseReason);
        impl fmt::Display for Sentence<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} by {}", self.0.kind(), self.0.by())?;
                self.0.error().map_or(Ok(()), |error| write!(f, " ({error})"))
            }
        }
        Sentence(&self.reason)
    }
}

/// The target of a tunnel could not be connected to: the error of the client's connection.
///
/// ```text
/// 127.0.0.1:8080 was not reached: connect refused
/// ```
#[derive(Clone, Debug)]
pub struct ConnectError {
    target: Address,
    reason: CloseReason,
}

impl ConnectError {
    pub(super) fn new(target: Address, reason: CloseReason) -> ConnectError {
        ConnectError { target, reason }
    }

    /// What was to be connected to.
    pub fn target(&self) -> &Address {
        &self.target
    }

    /// How the connect ended.
    pub fn reason(&self) -> &CloseReason {
        &self.reason
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not reached: {}", self.target, self.reason.kind())
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.error().map(|error| error as &(dyn Error + 'static))
    }
}
