//! The system beneath the simulator's loop: sockets of a simulated network.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ends::Ends;
use super::network::{Edge, Network};
use super::wakes::Watch;
use crate::clock::nanos;
use crate::datagram::{DatagramOptions, DatagramSocket, Interface, Opened, Received};
use crate::endpoint::Endpoint;
use crate::event_loop::{EventSink, Listener, Stream, System};
use crate::id::ConnId;
use crate::options::{Dial, ListenOptions};
use crate::protocol::{Bound, Close, SocketInfo, Sockets};
use crate::reason::CloseReason;
use crate::socket::retry;

pub(super) type Shared = Rc<RefCell<Network>>;

pub(super) struct SimSystem {
    pub(super) network: Shared,
    pub(super) start: Instant,
    pub(super) shown: Arc<AtomicU64>,
    pub(super) woken: Arc<AtomicBool>,
    /// The time that no poll goes beyond: the end of `run_for`.
    pub(super) bound: Option<u64>,
    pub(super) ends: Ends,
    pub(super) watch: Watch,
}

pub(super) struct SimStream {
    network: Shared,
    end: usize,
    local: Endpoint,
}

/// The driver's end of a stream that is no socket, on its way to the loop.
pub(super) struct PipeEnd(pub(super) usize);

#[derive(Clone)]
pub(super) struct SimListener {
    network: Shared,
    addr: Endpoint,
    /// Until a callback closes it; then another listener may have the address.
    open: Rc<Cell<bool>>,
}

impl System for SimSystem {
    type Stream = SimStream;
    type Listener = SimListener;
    type Datagrams = SimDatagrams;

    const CHECKED: bool = true;

    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.shown.load(Ordering::Relaxed))
    }

    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl EventSink) -> io::Result<()> {
        let now = self.network.borrow().now();
        let woken = self.woken.swap(false, Ordering::AcqRel);
        let until = match timeout {
            _ if woken => Some(now),
            // To the millisecond, as the reactor's system waits.
            Some(timeout) => {
                let wait = nanos(timeout).div_ceil(1_000_000).saturating_mul(1_000_000);
                Some(now.saturating_add(wait))
            }
            None => None,
        };
        self.judge_wait(until)?;
        let until = match self.bound {
            Some(bound) => Some(until.map_or(bound, |until| until.min(bound))),
            None => until,
        };
        let result = self.network.borrow_mut().poll(until, self.bound);
        let edges = result.inspect_err(|_| self.woken.store(woken, Ordering::Release))?;
        if woken {
            sink.wake();
        }
        for edge in edges {
            match edge {
                Edge::Connection(id, flags) => sink.connection(id, flags),
                Edge::Listener(number) => sink.listener(number),
            }
        }
        Ok(())
    }

    fn sockets(&self) -> Box<dyn Sockets> {
        Box::new(SimSockets(Rc::clone(&self.network)))
    }

    fn adopt(&mut self, socket: Box<dyn Any>) -> Option<SimListener> {
        socket.downcast().ok().map(|listener| *listener)
    }

    fn adopt_stream(&mut self, stream: Box<dyn Any + Send>, id: ConnId) -> io::Result<SimStream> {
        let end = stream.downcast::<PipeEnd>();
        let PipeEnd(end) = *end.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        self.network.borrow_mut().count(end);
        let network = Rc::clone(&self.network);
        let mut stream = SimStream { network, end, local: Endpoint::Other };
        self.register_stream(&mut stream, id)?;
        Ok(stream)
    }

    fn adopt_datagrams(&mut self, socket: Box<dyn Any>, id: ConnId) -> io::Result<SimDatagrams> {
        let socket = socket.downcast::<SimDatagrams>();
        let socket = *socket.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        self.network.borrow_mut().register_post(socket.post, id)?;
        self.ends.begun(id, socket.local_addr()?);
        Ok(socket)
    }

    fn connect(&mut self, dial: &Dial) -> io::Result<SimStream> {
        let (addr, from) = (dial.to, dial.options.bind);
        let end = retry(|| self.network.borrow_mut().connect(addr, from))?;
        let local = self.network.borrow().endpoints[end].local;
        Ok(SimStream { network: Rc::clone(&self.network), end, local })
    }

    fn register_listener(&mut self, listener: &mut SimListener, token: u32) -> io::Result<()> {
        if listener.open.get() {
            self.network.borrow_mut().register_listener(listener.addr, token);
        }
        Ok(())
    }

    fn register_stream(&mut self, stream: &mut SimStream, id: ConnId) -> io::Result<()> {
        self.network.borrow_mut().register(stream.end, id)?;
        self.ends.begun(id, stream.local);
        Ok(())
    }

    fn deregister_stream(&mut self, _: &mut SimStream) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn accept_with_reserve(
        &mut self,
        listener: &mut SimListener,
    ) -> io::Result<(SimStream, Endpoint)> {
        listener.accept_with(1)
    }

    fn restore_reserve(&mut self) -> bool {
        self.network.borrow().has_descriptor()
    }

    fn ended(&mut self, id: ConnId, peer: Endpoint, reason: &CloseReason) {
        self.ends.ended(id, peer, reason);
    }
}

/// A socket of datagrams.
pub(super) struct SimDatagrams {
    network: Shared,
    post: usize,
}

impl DatagramSocket for SimDatagrams {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(self.network.borrow().posts.all[self.post].local)
    }

    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()> {
        retry(|| self.network.borrow_mut().send_from(self.post, bytes, to))
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        retry(|| self.network.borrow_mut().receive_from(self.post, buffer))
    }

    fn is_unix(&self) -> bool {
        self.network.borrow().posts.all[self.post].local.unix().is_some()
    }

    fn set_member(&self, group: IpAddr, _: Interface, member: bool) -> io::Result<()> {
        self.network.borrow_mut().set_member(self.post, group, member)
    }
}

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        self.network.borrow_mut().close_post(self.post);
    }
}

struct SimSockets(Shared);

impl Sockets for SimSockets {
    fn bind(&self, addr: Endpoint, options: &DatagramOptions) -> io::Result<Opened> {
        let SimSockets(network) = self;
        let post = network.borrow_mut().bind(addr, options, false)?;
        let socket = SimDatagrams { network: Rc::clone(network), post };
        Ok(Opened { addr: socket.local_addr()?, peer: None, socket: Box::new(socket) })
    }

    fn listen(&self, addr: Endpoint, options: &ListenOptions) -> io::Result<Bound> {
        let SimSockets(network) = self;
        let addr =
            network.borrow_mut().listen(addr, options.backlog as usize, options.v6_only, false)?;
        let open = Rc::new(Cell::new(true));
        let listener = SimListener { network: Rc::clone(network), addr, open };
        let closed = listener.clone();
        let close: Close = Box::new(move || closed.close());
        Ok(Bound { addr, socket: Box::new(listener), close: Some(close) })
    }
}

impl SocketInfo for SimStream {
    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(self.local)
    }

    #[cfg(feature = "peer-credentials")]
    fn peer_credentials(&self) -> Option<crate::credentials::PeerCredentials> {
        self.network.borrow().peer_credentials(self.end)
    }
}

impl Stream for SimStream {
    type Straight = SimStream;

    fn straight(&mut self) -> Option<&mut SimStream> {
        Some(self)
    }

    fn is_socket(&self) -> bool {
        !self.network.borrow().endpoints[self.end].no_socket
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| self.network.borrow_mut().read(self.end, buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| self.network.borrow_mut().write(self.end, &[bytes]))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
        retry(|| self.network.borrow_mut().write(self.end, &slices))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.network.borrow_mut().shutdown_write(self.end);
        Ok(())
    }

    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        Ok(self.network.borrow_mut().take_error(self.end))
    }

    fn check_connected(&mut self) -> io::Result<()> {
        self.network.borrow().check_connected(self.end)
    }

    fn reset_on_close(&mut self) {
        self.network.borrow_mut().reset_on_close(self.end);
    }

    fn as_info(&self) -> &dyn SocketInfo {
        self
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.network.borrow_mut().close(self.end);
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    fn accept(&mut self) -> io::Result<(SimStream, Endpoint)> {
        self.accept_with(0)
    }
}

impl SimListener {
    /// Accepts, with this many descriptors in reserve.
    fn accept_with(&self, reserve: usize) -> io::Result<(SimStream, Endpoint)> {
        if !self.open.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let end = retry(|| self.network.borrow_mut().accept(self.addr, reserve))?;
        Ok(self.stream(end))
    }

    fn close(&self) {
        if self.open.replace(false) {
            self.network.borrow_mut().close_listener(self.addr);
        }
    }

    fn stream(&self, end: usize) -> (SimStream, Endpoint) {
        let network = self.network.borrow();
        let (local, remote) = (network.endpoints[end].local, network.endpoints[end].remote);
        (SimStream { network: Rc::clone(&self.network), end, local }, remote)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.close();
    }
}
