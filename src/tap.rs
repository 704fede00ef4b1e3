//! A tap sees the clear bytes of a connection, for capture. It is neither a filter nor a protocol.

use std::fmt;
use std::time::SystemTime;

use crate::endpoint::Endpoint;
use crate::id::{ConnId, ListenerId};
use crate::reason::CloseReason;

/// The connection that a [`Tap`] sees, and the time of the call.
#[derive(Clone, Copy)]
pub struct Tapped {
    pub(crate) id: ConnId,
    pub(crate) listener: Option<ListenerId>,
    pub(crate) local: Option<Endpoint>,
    pub(crate) peer: Endpoint,
    pub(crate) time: SystemTime,
}

impl Tapped {
    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The listener that accepted the connection; None for an outgoing or adopted one.
    pub fn listener(&self) -> Option<ListenerId> {
        self.listener
    }

    /// The local address when the tap was set; None if the system did not give it.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.local
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> Endpoint {
        self.peer
    }

    /// The time by the driver's clock, which is virtual in the simulator; to the millisecond on the
    /// reactor. It never goes back.
    pub fn time(&self) -> SystemTime {
        self.time
    }
}

impl fmt::Debug for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} at {:?}", self.id, self.peer, self.time)
    }
}

/// Sees the clear bytes of both directions of one connection. Set it with
/// [`Context::set_tap`](crate::Context::set_tap).
///
/// A tap lies above a [`Filter`](crate::Filter), so it sees what the protocol sees. It stays when
/// another protocol takes over. It sees bytes in order: received ones when they arrive, sent ones
/// when they are written, also by other connections and by handles. A call must not block: it runs
/// on the thread of the connection or of the writer. A panic ends the connection with
/// [`CloseKind::Panicked`](crate::CloseKind::Panicked).
///
/// ```
/// use lariat::{Context, Input, Outcome, Protocol, Tap, Tapped};
///
/// struct Print;
///
/// impl Tap for Print {
///     fn received(&mut self, at: &Tapped, bytes: &[u8]) {
///         println!("{at:?}: {} bytes received", bytes.len());
///     }
///
///     fn sent(&mut self, at: &Tapped, bytes: &[u8]) {
///         println!("{at:?}: {} bytes sent", bytes.len());
///     }
/// }
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
///         cx.set_tap(Print);
///         Ok(())
///     }
///
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         cx.write(input);
///         input.consume_all();
///         Ok(())
///     }
/// }
/// ```
///
/// [`capture`](crate::capture) has one that writes files for Wireshark and tshark.
///
/// A tapped connection takes a longer path through the library; other connections pay nothing.
pub trait Tap: Send {
    /// Bytes have arrived from the peer.
    fn received(&mut self, at: &Tapped, bytes: &[u8]);

    /// Bytes were written to the peer. They may still wait in the queue.
    fn sent(&mut self, at: &Tapped, bytes: &[u8]);

    /// The connection has ended; the protocol's `closed` comes next. The default does nothing.
    fn closed(&mut self, at: &Tapped, reason: &CloseReason) {
        let _ = (at, reason);
    }
}
