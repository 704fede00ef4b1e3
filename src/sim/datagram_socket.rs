//! The test's own sockets of datagrams.

use std::fmt;
use std::rc::Rc;

use super::system::Shared;
use super::{ByteText, Sim, address};
use crate::address::IntoAddress;
use crate::datagram::DatagramOptions;
use crate::endpoint::Endpoint;
use crate::error::{Error, Op, Result};

/// A simulated datagram socket that the test itself holds. It receives at once whatever arrives.
/// Time passes only while the simulator runs.
///
/// ```
/// use std::time::Duration;
/// use lariat::sim::Sim;
///
/// let mut sim = Sim::new(1);
/// let one = sim.datagram_socket("10.0.0.1:0")?;
/// let two = sim.datagram_socket("10.0.0.2:7")?;
/// one.send_to(b"hello", two.local_addr());
/// sim.run_for(Duration::from_millis(1))?;
/// assert_eq!(two.take_received(), [(one.local_addr(), b"hello".to_vec().into())]);
/// # Ok::<(), lariat::Error>(())
/// ```
pub struct DatagramSocket {
    network: Shared,
    post: usize,
}

impl Sim {
    /// Binds a datagram socket of the test's own. It may send to a broadcast address.
    ///
    /// # Errors
    ///
    /// The address is in use, or is a name.
    pub fn datagram_socket(&self, addr: impl IntoAddress) -> Result<DatagramSocket> {
        let addr = address(addr)?;
        let options = DatagramOptions { broadcast: true, ..DatagramOptions::default() };
        let mut network = self.network.borrow_mut();
        let bound = network.bind(addr, &options, true);
        drop(network);
        let post = bound.map_err(|error| Error::from_io(Op::Bind, error).with_addr(addr))?;
        Ok(DatagramSocket { network: Rc::clone(&self.network), post })
    }
}

impl DatagramSocket {
    /// Sends a datagram.
    ///
    /// # Panics
    ///
    /// The simulated system does not take it: it is too long, `to` is of another family, more is
    /// under way than [`Link::window`](super::Link::window), or no Unix socket `to` is there.
    pub fn send_to(&self, bytes: &[u8], to: impl Into<Endpoint>) {
        let to: Endpoint = to.into();
        let send = || self.network.borrow_mut().send_from(self.post, bytes, Some(&to));
        if let Err(error) = crate::socket::retry(send) {
            panic!("cannot send {} bytes to {to}: {error}", bytes.len());
        }
    }

    /// What has come since the last call, with its senders, in the order of arrival.
    pub fn take_received(&self) -> Vec<(Endpoint, ByteText)> {
        let received = std::mem::take(&mut self.network.borrow_mut().posts.all[self.post].received);
        received.into_iter().map(|(from, bytes)| (from, bytes.into())).collect()
    }

    /// The address of this socket.
    pub fn local_addr(&self) -> Endpoint {
        self.network.borrow().posts.all[self.post].local
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        self.network.borrow_mut().close_post(self.post);
    }
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}
