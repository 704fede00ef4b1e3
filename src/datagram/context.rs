//! What a callback of a datagram socket may do.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use super::{DatagramSocket, Interface, Phase, State};
use crate::endpoint::Endpoint;
use crate::error::{Error, Op, Result};
use crate::id::ConnId;
use crate::protocol::{Control, Peer, Shared, TimerOwner};
use crate::timer::Timer;

/// A datagram that has come: its bytes, and where they came from.
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) from: Endpoint,
    pub(crate) to: Option<Endpoint>,
    pub(crate) ecn: Option<Ecn>,
    pub(crate) truncated: bool,
}

/// What a router may have marked a datagram with: Explicit Congestion Notification, RFC 3168.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// Its sender understands such marks.
    Ect0,
    /// The same; by RFC 9331 for low latency.
    Ect1,
    /// A router on its way is congested.
    Ce,
}

impl Datagram<'_> {
    /// Who sent it. A Unix socket that is bound to no name is
    /// [unnamed](crate::UnixName::is_unnamed), and cannot be answered.
    pub fn from(&self) -> Endpoint {
        self.from
    }

    /// The local address that it was sent to.
    ///
    /// A socket that is bound to one address or name gets what is sent there, and nothing else, so
    /// this is known. A socket on all addresses (`0.0.0.0` or `[::]`) has to be told: that is so in
    /// the simulator, and with [`DatagramOptions::offload`](crate::DatagramOptions::offload). Else
    /// it is None, because std and mio do not read what the system has to say of it. It is None
    /// for a Unix socket without a name, too.
    pub fn to(&self) -> Option<Endpoint> {
        self.to
    }

    /// The mark for congestion. None where there is none, and where the system is not asked: it is
    /// with [`DatagramOptions::offload`](crate::DatagramOptions::offload).
    pub fn ecn(&self) -> Option<Ecn> {
        self.ecn
    }

    /// Whether it was longer than [`DatagramOptions::datagram_max`](crate::DatagramOptions), so
    /// that its end is lost.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}

impl Deref for Datagram<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("ecn", &self.ecn)
            .field("len", &self.bytes.len())
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// Lent to each callback of a datagram socket: the socket, and ways to reach everything else.
///
/// A datagram is handed to the system at once, so that the call can return its error. Everything
/// else takes effect when the callback has returned.
pub struct DatagramContext<'a> {
    pub(crate) shared: &'a mut Shared,
    pub(crate) state: &'a mut State,
    pub(crate) socket: &'a dyn DatagramSocket,
}

impl DatagramContext<'_> {
    // ---- who and when ------------------------------------------------------------------------

    /// The socket's id: notes, closes and aborts reach it as they reach a connection.
    pub fn id(&self) -> ConnId {
        self.state.id()
    }

    /// The local address, asked from the system; None once the socket is gone.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.socket.local_addr().ok()
    }

    /// The peer that it is connected to.
    pub fn peer_addr(&self) -> Option<Endpoint> {
        self.state.options().connect
    }

    /// The time right now; virtual in the simulator.
    pub fn now(&self) -> Instant {
        self.shared.clock.instant()
    }

    /// Time since it was bound.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.shared.clock.exact().saturating_sub(self.state.since()))
    }

    /// A pseudo-random number from the driver; the same for the same seed in the simulator. Not for
    /// secrets.
    pub fn random(&mut self) -> u64 {
        self.shared.random.next()
    }

    // ---- sending -----------------------------------------------------------------------------

    /// Sends a datagram to `to`. It may be empty.
    ///
    /// `Ok` says that the system has taken it, or that it waits for the system to have room: within
    /// [`DatagramOptions::output_max`](crate::DatagramOptions::output_max) \[256 KiB\], beyond
    /// which datagrams are dropped and counted. Nothing says that it arrives. On blocking threads
    /// the call itself waits for room, unless it is a Unix socket. With
    /// [`DatagramOptions::offload`](crate::DatagramOptions::offload) it may also wait for others.
    ///
    /// ```
    /// use lariat::{Datagram, DatagramContext, DatagramProtocol, ErrorKind, Outcome};
    ///
    /// /// Sends twice as much back, or nothing where that is too long.
    /// struct Doubling;
    /// impl DatagramProtocol for Doubling {
    ///     fn datagram(&mut self, cx: &mut DatagramContext<'_>, it: &Datagram<'_>) -> Outcome {
    ///         match cx.send_to(&[&it[..], &it[..]].concat(), it.from()) {
    ///             Err(error) if error.kind() == ErrorKind::TooLarge => {
    ///                 Ok(cx.send_to(b"", it.from())?)
    ///             }
    ///             other => Ok(other?),
    ///         }
    ///     }
    /// }
    /// # let _ = Doubling;
    /// ```
    ///
    /// # Errors
    ///
    /// [`TooLarge`](crate::ErrorKind::TooLarge) above 65,507 bytes (65,527 on IPv6), or above what
    /// the system sends as one datagram;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for a broadcast address without
    /// [`DatagramOptions::broadcast`](crate::DatagramOptions::broadcast);
    /// [`InvalidSocket`](crate::ErrorKind::InvalidSocket) once the socket is being closed;
    /// whatever else the system says. The socket goes on.
    pub fn send_to(&mut self, bytes: &[u8], to: impl Into<Endpoint>) -> Result<()> {
        self.send_anywhere(bytes, Some(&to.into()))
    }

    /// Sends a datagram to the peer that the socket is [connected
    /// to](crate::DatagramOptions::connect).
    ///
    /// # Errors
    ///
    /// As [`send_to`](DatagramContext::send_to); an error of the system for a socket that is not
    /// connected.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_anywhere(bytes, None)
    }

    fn send_anywhere(&mut self, bytes: &[u8], to: Option<&Endpoint>) -> Result<()> {
        let now = self.shared.clock.recent();
        let Shared { metrics, .. } = &mut *self.shared;
        self.state.send(self.socket, metrics, bytes, to, now)
    }

    /// Bytes of datagrams that wait because the system has no room for them.
    pub fn unsent(&self) -> usize {
        self.state.unsent()
    }

    /// Whether datagrams wait because the system has no room for them.
    /// [`drained`](crate::DatagramProtocol::drained) follows once none does.
    pub fn is_congested(&self) -> bool {
        self.state.is_congested()
    }

    /// Datagrams of this socket that were dropped since it was bound, because too many waited or
    /// because the system did not take them later on.
    pub fn dropped(&self) -> u64 {
        self.state.dropped()
    }

    // ---- multicast ---------------------------------------------------------------------------

    /// Joins a multicast group: datagrams to it and the socket's port are delivered from now on.
    ///
    /// ```no_run
    /// use std::net::Ipv4Addr;
    /// use lariat::{Datagram, DatagramContext, DatagramProtocol, Interface, Outcome};
    ///
    /// struct Discovery;
    /// impl DatagramProtocol for Discovery {
    ///     fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
    ///         cx.join(Ipv4Addr::new(224, 0, 0, 251), Interface::Any)?;
    ///         Ok(())
    ///     }
    ///     fn datagram(&mut self, _: &mut DatagramContext<'_>, it: &Datagram<'_>) -> Outcome {
    ///         println!("{} bytes from {}", it.len(), it.from());
    ///         Ok(())
    ///     }
    /// }
    /// # let _ = Discovery;
    /// ```
    ///
    /// # Errors
    ///
    /// The address is no group, or the socket is of the other family;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for an interface that is named in a way that
    /// the system does not know for this family.
    pub fn join(&mut self, group: impl Into<IpAddr>, on: impl Into<Interface>) -> Result<()> {
        self.set_member(group.into(), on.into(), true)
    }

    /// Leaves a multicast group, on the interface on which it was joined.
    ///
    /// # Errors
    ///
    /// As [`join`](DatagramContext::join), and the socket is not a member.
    pub fn leave(&mut self, group: impl Into<IpAddr>, on: impl Into<Interface>) -> Result<()> {
        self.set_member(group.into(), on.into(), false)
    }

    fn set_member(&mut self, group: IpAddr, on: Interface, member: bool) -> Result<()> {
        let op = if member { Op::Join } else { Op::Leave };
        let set = self.socket.set_member(group, on, member);
        set.map_err(|error| Error::from_io(op, error).with_addr(group))
    }

    // ---- timers ------------------------------------------------------------------------------

    /// Sets `timer` to fire after `delay`, or again if it is set. It never fires early; zero fires
    /// in the next turn, a delay too long to count never.
    pub fn set_timer(&mut self, timer: Timer, delay: Duration) {
        if self.state.phase() >= Phase::Closing {
            return;
        }
        let deadline = self.shared.deadline_after(delay);
        let key = self.shared.timers.arm(deadline, TimerOwner::Protocol(self.state.id(), timer));
        if let Some(old) = self.state.put_timer(timer, key) {
            self.shared.timers.cancel(old);
        }
    }

    /// Cancels `timer`; false when it was not set.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        self.state.take_timer(timer).is_some_and(|key| self.shared.timers.cancel(key))
    }

    // ---- the end and others ------------------------------------------------------------------

    /// Closes the socket: nothing more is delivered but `closed`. Datagrams that wait are sent
    /// within [`DatagramOptions::close_deadline`](crate::DatagramOptions::close_deadline) \[1 s\].
    /// Calling it again does nothing.
    pub fn close(&mut self) {
        self.state.want_close();
    }

    /// Closes the socket at once: datagrams that wait are dropped.
    pub fn abort(&mut self) {
        self.state.want_abort();
    }

    /// A connection of the same driver, or another datagram socket: to send it a note, or to end
    /// it. Only a connection can be written to.
    pub fn peer(&mut self, id: ConnId) -> Peer<'_> {
        Peer::from_outside(id, self.shared)
    }

    /// What can be asked of the driver: connects, listeners, other sockets, timers that outlive
    /// this socket, counters, shutdown.
    pub fn driver(&mut self) -> Control<'_> {
        Control::new(self.shared)
    }
}

impl fmt::Debug for DatagramContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramContext")
            .field("id", &self.id())
            .field("local", &self.local_addr())
            .finish_non_exhaustive()
    }
}
