//! The test's own ends of simulated connections.

use std::fmt;
use std::rc::Rc;

use super::ByteText;
use super::network::Raw;
use super::system::Shared;
use crate::endpoint::Endpoint;

/// One end of a simulated connection that the test itself holds: a client, or a server's side. It
/// does exactly what the test calls.
///
/// It sends as fast as the window allows. It reads everything at once, until
/// [`stop_reading`](Socket::stop_reading). Time passes only while the simulator runs.
///
/// ```
/// use lariat::sim::Sim;
/// use std::time::Duration;
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         cx.write(input);
/// #         input.consume(input.len());
/// #         Ok(())
/// #     }
/// # }
/// let mut sim = Sim::new(1);
/// let listener = sim.listen("127.0.0.1:7000", |_| Some(Echo))?;
/// let client = sim.dial(sim.addresses(listener)[0]);
/// client.send(b"hello");
/// sim.run_for(Duration::from_millis(1))?;
/// assert_eq!(client.take_received(), b"hello");
/// # Ok::<(), lariat::Error>(())
/// ```
pub struct Socket {
    pub(super) network: Shared,
    pub(super) end: usize,
}

impl Socket {
    pub(super) fn dial(network: &Shared, addr: Endpoint) -> Socket {
        let key = network.borrow().choices.new_key();
        let end = network.borrow_mut().start_connect(addr, None, Some(Raw::default()), key);
        Socket { network: Rc::clone(network), end }
    }

    /// Sends `bytes`, now or as soon as the window allows.
    pub fn send(&self, bytes: &[u8]) {
        self.network.borrow_mut().queue_raw(self.end, bytes);
    }

    /// Sends FIN after what is queued.
    pub fn finish(&self) {
        self.network.borrow_mut().finish_raw(self.end);
    }

    /// Resets the connection, after what is under way.
    pub fn reset(&self) {
        let mut network = self.network.borrow_mut();
        network.reset_on_close(self.end);
        network.close(self.end);
    }

    /// Closes the socket: FIN after what was sent, or a reset when bytes are unread. Dropping it
    /// does the same.
    pub fn close(&self) {
        self.network.borrow_mut().close_raw(self.end);
    }

    /// The host disappears: no FIN, no reset, no answer from now on.
    pub fn vanish(&self) {
        let mut network = self.network.borrow_mut();
        network.note_deed(self.end, "vanishes");
        network.vanish(self.end);
    }

    /// Stops reading: the window fills up.
    pub fn stop_reading(&self) {
        self.set_stopped(true);
    }

    /// Reads everything again.
    pub fn resume_reading(&self) {
        self.set_stopped(false);
        self.network.borrow_mut().receive_raw(self.end);
    }

    fn set_stopped(&self, stopped: bool) {
        let mut network = self.network.borrow_mut();
        let Some(raw) = &mut network.endpoints[self.end].raw else { return };
        if std::mem::replace(&mut raw.stopped, stopped) != stopped {
            network.note_deed(self.end, if stopped { "stops reading" } else { "reads again" });
        }
    }

    /// Reads at most `count` of the bytes that have arrived while reading was stopped.
    pub fn read(&self, count: usize) {
        self.network.borrow_mut().read_raw(self.end, count);
    }

    /// The bytes read since the last call.
    pub fn take_received(&self) -> ByteText {
        let mut network = self.network.borrow_mut();
        let raw = network.endpoints[self.end].raw.as_mut();
        raw.map(|raw| std::mem::take(&mut raw.received)).unwrap_or_default().into()
    }

    /// Whether the other side's FIN has arrived.
    pub fn is_finished(&self) -> bool {
        self.network.borrow().is_finished(self.end)
    }

    /// Whether the connection was reset.
    pub fn is_reset(&self) -> bool {
        self.network.borrow().endpoints[self.end].raw.as_ref().is_some_and(|raw| raw.was_reset)
    }

    /// The address of this end.
    pub fn local_addr(&self) -> Endpoint {
        self.network.borrow().endpoints[self.end].local
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> Endpoint {
        self.network.borrow().endpoints[self.end].remote
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.borrow_mut().close_raw(self.end);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("local", &self.local_addr())
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

/// A listening socket that the test itself holds, for protocols that connect.
pub struct Acceptor {
    pub(super) network: Shared,
    pub(super) addr: Endpoint,
}

impl Acceptor {
    /// The address.
    pub fn local_addr(&self) -> Endpoint {
        self.addr
    }

    /// Accepts the next waiting connection, if there is one.
    pub fn accept(&self) -> Option<Socket> {
        let mut network = self.network.borrow_mut();
        let end = network.take_newcomer(self.addr)?;
        network.adopt_raw(end);
        drop(network);
        Some(Socket { network: Rc::clone(&self.network), end })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.network.borrow_mut().close_listener(self.addr);
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("addr", &self.addr).finish_non_exhaustive()
    }
}
