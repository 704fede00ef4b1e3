//! Datagram sockets of a driver, as callbacks, closures and code outside of `run` ask for them.

use std::os::fd::OwnedFd;

use super::{Boxed, DatagramOptions, DatagramProtocol};
use crate::address::IntoAddress;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::id::ConnId;
use crate::protocol::Control;
use crate::refused::Refused;

/// Datagram sockets.
impl Control<'_> {
    /// Binds a datagram socket to `addr`: a UDP socket, or a Unix socket at a path or an abstract
    /// name. It is open when this returns: [`bound_addr`](Control::bound_addr) has the port that 0
    /// stood for. Callbacks of `protocol` run from the next turn on. A name is looked up as in
    /// [`listen`](Control::listen), before the driver runs; of several addresses the first that can
    /// be bound is used.
    ///
    /// A path that a socket has left behind which is gone is used again: that is asked for first.
    /// The file is removed with the socket, if it is still its own. With
    /// [`UnixName::unnamed`](crate::UnixName::unnamed) a Unix socket has no name: it can send, and
    /// nobody can answer.
    ///
    /// The id works like that of a connection: [`peer(id)`](Control::peer) and
    /// [`Handle`](crate::Handle) send notes to the socket, close it and abort it. Bytes that are
    /// *written* to it by id are dropped and counted in [`Metrics::stale`](crate::Metrics::stale),
    /// because a datagram needs an address: send a note, and let the protocol send the datagram.
    ///
    /// ```
    /// use lariat::{Datagram, DatagramContext, DatagramProtocol, Outcome, sim::Sim};
    ///
    /// struct Echo;
    /// impl DatagramProtocol for Echo {
    ///     fn datagram(&mut self, cx: &mut DatagramContext<'_>, it: &Datagram<'_>) -> Outcome {
    ///         cx.send_to(it, it.from())?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(1);
    /// let echo = sim.control().bind("10.0.0.1:7", Echo)?;
    /// let client = sim.datagram_socket("10.0.0.2:0")?;
    /// client.send_to(b"hello", sim.bound_addr(echo).unwrap());
    /// sim.run_for(std::time::Duration::from_secs(1))?;
    /// assert_eq!(client.take_received()[0].1, b"hello");
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the driver is being shut down; nothing is left open.
    /// [`ErrorKind::Unsupported`] for a name while the driver runs; [`ErrorKind::Limit`] when
    /// [`DriverLimits::connections_max`] is reached.
    ///
    /// [`DriverLimits::connections_max`]: crate::DriverLimits::connections_max
    pub fn bind(
        &mut self,
        addr: impl IntoAddress,
        protocol: impl DatagramProtocol + Send + 'static,
    ) -> Result<ConnId> {
        self.bind_with(addr, DatagramOptions::default(), protocol)
    }

    /// Binds like [`bind`](Control::bind), with options.
    ///
    /// # Errors
    ///
    /// As [`bind`](Control::bind); the peer to connect to cannot be reached; and
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits), also for an option that the
    /// system rejects.
    pub fn bind_with(
        &mut self,
        addr: impl IntoAddress,
        options: DatagramOptions,
        protocol: impl DatagramProtocol + Send + 'static,
    ) -> Result<ConnId> {
        let protocol = Boxed::Anywhere(Box::new(protocol));
        self.shared_mut().bind(&addr.into_address(), options, protocol)
    }

    /// Binds like [`bind_with`](Control::bind_with), with a protocol that may not leave this
    /// thread.
    ///
    /// # Errors
    ///
    /// As [`bind_with`](Control::bind_with); [`ErrorKind::Unsupported`] on the blocking driver,
    /// where another thread would call it.
    pub fn bind_local_with(
        &mut self,
        addr: impl IntoAddress,
        options: DatagramOptions,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<ConnId> {
        let addr = addr.into_address();
        if self.shared().common.is_some() {
            let error = Error::new(ErrorKind::Unsupported, Op::Bind).with_addr(addr);
            return Err(error.with_detail("another thread would call the protocol"));
        }
        self.shared_mut().bind(&addr, options, Boxed::Here(Box::new(protocol)))
    }

    /// Takes over a datagram socket that other code or another process has opened: a `UdpSocket`, a
    /// `UnixDatagram`, one of a socketpair, or the `OwnedFd` of any of them. From then on it is
    /// like one that was bound here. It need not be nonblocking.
    ///
    /// The options are set, and it is connected where they say so.
    /// [`v6_only`](DatagramOptions::v6_only), [`reuse_address`](DatagramOptions::reuse_address) and
    /// [`reuse_port`](DatagramOptions::reuse_port) are for binding, and ignored. The file of a Unix
    /// socket stays when the socket is closed.
    ///
    /// **Other owners.** A clone of the socket, or another process, may have it as well, and goes
    /// on with it when it has ended here. Each datagram comes to one of its owners; what this
    /// driver has received by then, and not shown, is lost. Two things stay: the options that were
    /// set, and O_NONBLOCK, which every driver sets. It counts for all owners and is not taken
    /// back, because the calls of another driver would sleep. To sleep in the socket afterwards,
    /// call `set_nonblocking(false)`.
    ///
    /// On the blocking driver an adopted socket costs two descriptors more. What the system has no
    /// room for waits in the queue of the socket ([`DatagramOptions::output_max`]), for UDP too.
    ///
    /// ```
    /// # use lariat::{Datagram, DatagramContext, DatagramProtocol, Outcome};
    /// # struct Echo;
    /// # impl DatagramProtocol for Echo {
    /// #     fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
    /// #         Ok(())
    /// #     }
    /// # }
    /// use lariat::{DatagramOptions, reactor::Reactor};
    ///
    /// let (one, _two) = std::os::unix::net::UnixDatagram::pair().unwrap();
    /// let mut reactor = Reactor::new()?;
    /// reactor.control().adopt_datagrams(one, DatagramOptions::default(), Echo)?;
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSocket`] for what is no datagram socket of UDP or Unix;
    /// [`ErrorKind::InvalidLimits`] for options that cannot work, or that the system rejects;
    /// [`ErrorKind::Limit`] when there are too many connections and sockets;
    /// [`ErrorKind::Stopped`] once the driver is being shut down; [`ErrorKind::Unsupported`] in the
    /// simulator. [`Refused::into_payload`] gives the socket back; `protocol` is dropped.
    pub fn adopt_datagrams(
        &mut self,
        socket: impl Into<OwnedFd>,
        options: DatagramOptions,
        protocol: impl DatagramProtocol + Send + 'static,
    ) -> Result<ConnId, Refused<OwnedFd>> {
        let protocol = Boxed::Anywhere(Box::new(protocol));
        self.shared_mut().adopt_datagrams(socket.into(), options, protocol)
    }

    /// The real address of a datagram socket; None once it is closed.
    pub fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        self.shared().binder.listeners.bound_addr(id)
    }
}
