//! What a test has of its own outside of the driver: the other ends of connections.

use std::rc::Rc;

#[cfg(feature = "fd")]
use super::system::PipeEnd;
use super::{Acceptor, Sim, Socket, address};
use crate::address::IntoAddress;
use crate::error::{Error, Op, Result};
#[cfg(feature = "fd")]
use crate::limits::Limits;
#[cfg(feature = "fd")]
use crate::protocol::{Boxed, Protocol};

/// The other ends of connections.
impl Sim {
    /// What Unix streams made from now on announce as their process, at both ends \[pid 1000, uid
    /// 1000, gid 1000\]. A client of another user is one that is dialled after this.
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// use lariat::{PeerCredentials, sim::Sim};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// # }
    ///
    /// let mut sim = Sim::new(1);
    /// sim.listen("unix:@private", |client| {
    ///     (client.peer_credentials()?.uid() == 1000).then_some(Echo)
    /// })?;
    /// sim.set_credentials(PeerCredentials::new(7, 1001, 1001));
    /// let stranger = sim.dial("unix:@private");
    /// sim.run_for(std::time::Duration::from_secs(1))?;
    /// assert!(stranger.is_finished());
    /// # Ok::<(), lariat::Error>(())
    /// ```
    #[cfg(feature = "peer-credentials")]
    pub fn set_credentials(&mut self, credentials: crate::credentials::PeerCredentials) {
        self.network.borrow_mut().credentials = credentials;
    }

    /// Connects an end of the test's own to `addr`.
    ///
    /// # Panics
    ///
    /// `addr` is a name to look up, an invalid path, or an empty list.
    pub fn dial(&self, addr: impl IntoAddress) -> Socket {
        match address(addr) {
            Ok(addr) => Socket::dial(&self.network, addr),
            Err(error) => panic!("{error}"),
        }
    }

    /// A stream that is no socket, as of pipes or a terminal, for `protocol`; the test has its
    /// other end. Its addresses are [`Endpoint::Other`](crate::Endpoint::Other), a close does not
    /// wait for the other end, and nothing resets it: a [`Socket::reset`] is a close.
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
    /// #         cx.write(input);
    /// #         input.consume_all();
    /// #         Ok(())
    /// #     }
    /// # }
    /// use lariat::{Limits, sim::Sim};
    ///
    /// let mut sim = Sim::new(1);
    /// let terminal = sim.pipe(Limits::default(), Echo)?;
    /// terminal.send(b"hello");
    /// terminal.finish();
    /// // Not `run`, which would return when the stream has ended: the answer is on its way then.
    /// sim.run_for(std::time::Duration::from_secs(1))?;
    /// assert_eq!(terminal.take_received(), b"hello");
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits);
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) once the driver is being shut down.
    #[cfg(feature = "fd")]
    pub fn pipe(&mut self, limits: Limits, protocol: impl Protocol + 'static) -> Result<Socket> {
        limits.validate()?;
        let (here, end) = self.network.borrow_mut().open_pipe();
        let protocol = Boxed::Here(Box::new(protocol));
        let socket = Box::new(PipeEnd(here));
        self.inner.shared.adopt_prepared(socket, limits, protocol)?;
        Ok(Socket { network: Rc::clone(&self.network), end })
    }

    /// Listens with a socket of the test's own, for protocols that connect.
    ///
    /// # Errors
    ///
    /// The address is in use, is a name to look up, an invalid path, or an empty list.
    pub fn acceptor(&self, addr: impl IntoAddress) -> Result<Acceptor> {
        let addr = address(addr)?;
        let addr = self
            .network
            .borrow_mut()
            .listen(addr, 1024, true, true)
            .map_err(|error| Error::from_io(Op::Listen, error).with_addr(addr))?;
        Ok(Acceptor { network: Rc::clone(&self.network), addr })
    }
}
