//! The system beneath the reactor: mio.
//!
//! A stream is registered once, for both directions, edge-triggered; dropping it removes it from
//! the poll. In between it is a plain nonblocking socket, of whatever family: mio has a type for
//! each family, and adds a layer to every read and write that the compiler does not always see
//! through.

use std::any::Any;
use std::collections::BTreeSet;
use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token as MioToken, Waker};
use socket2::Socket;

use crate::connection::Flags;
use crate::endpoint::Endpoint;
use crate::event_loop::{EventSink, Listener, Stream, System};
use crate::id::ConnId;
use crate::options::Dial;
use crate::protocol::{SocketInfo, Sockets};
#[cfg(feature = "fd")]
use crate::socket::Pair;
use crate::socket::{self, NO_SIGNAL, Reserve, SystemSockets, retry};

use super::listening::{Listening, MioSockets};
#[cfg(feature = "fd")]
pub(super) use super::stream::MioStream;
#[cfg(feature = "fd")]
use super::stream::Other;
/// With the feature `fd` a stream may be something else.
#[cfg(not(feature = "fd"))]
pub(super) use socket2::Socket as MioStream;

/// The upper half of a token is a connection's generation, which is never 0. If it is 0, the lower
/// half is one of these, or a listener's number.
const WAKE: usize = u32::MAX as usize;
#[cfg(feature = "signals")]
const SIGNALS: usize = WAKE - 1;

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "lariat needs a 64-bit target: a token holds a slot and a generation of 32 bits each"
);

pub(super) struct MioSystem {
    poll: Poll,
    events: Events,
    reserve: Reserve,
    spin: Option<Duration>,
    /// For what stops being watched by itself: listeners that were adopted, and streams that are no
    /// sockets.
    registry: Option<Rc<Registry>>,
    /// Streams that were adopted. The poll would go on watching them when they are closed here, as
    /// long as another descriptor leads to the same open file.
    adopted: BTreeSet<ConnId>,
    #[cfg(feature = "signals")]
    signals: Option<crate::signals::Watch<Signals>>,
}

#[cfg(feature = "signals")]
struct Signals {
    signals: signal_hook_mio::v1_0::Signals,
    handle: crate::handle::Handle,
}

impl MioSystem {
    pub(super) fn new(events_max: usize, spin: Option<Duration>) -> io::Result<MioSystem> {
        Ok(MioSystem {
            poll: Poll::new()?,
            events: Events::with_capacity(events_max),
            reserve: Reserve::new(),
            spin,
            registry: None,
            adopted: BTreeSet::new(),
            #[cfg(feature = "signals")]
            signals: None,
        })
    }

    pub(super) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), MioToken(WAKE))
    }

    #[cfg(feature = "signals")]
    pub(super) fn watch_signals(&mut self, handle: crate::handle::Handle) -> io::Result<()> {
        let watch = crate::signals::Watch::begin(|| {
            let mut signals = signal_hook_mio::v1_0::Signals::new(crate::signals::STOPPING)?;
            self.poll.registry().register(&mut signals, MioToken(SIGNALS), Interest::READABLE)?;
            Ok(Signals { signals, handle })
        })?;
        self.signals = Some(watch);
        Ok(())
    }

    /// Stops watching for signals once the driver has ended.
    #[cfg(feature = "signals")]
    pub(super) fn end_watch(&mut self) {
        if self.signals.as_ref().is_some_and(|watch| watch.handlers.handle.is_ended()) {
            self.signals = None;
        }
    }

    fn shared_registry(&mut self) -> io::Result<Rc<Registry>> {
        if self.registry.is_none() {
            self.registry = Some(Rc::new(self.poll.registry().try_clone()?));
        }
        self.registry.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Stops watching a socket that is about to be closed, and may be open elsewhere.
    fn forget(&self, socket: BorrowedFd<'_>) {
        // One that has been detached is not watched any more.
        let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
    }

    #[inline(always)]
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if let Some(spin) = self.spin {
            return self.spin_wait(spin, timeout);
        }
        self.poll.poll(&mut self.events, timeout)
    }

    /// Waits without sleeping for a while, then asleep.
    #[cold]
    fn spin_wait(&mut self, spin: Duration, timeout: Option<Duration>) -> io::Result<()> {
        let (spin, timeout) = shares(spin, timeout);
        // None: so far away that it never comes.
        let until = Instant::now().checked_add(spin);
        loop {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(());
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return self.poll.poll(&mut self.events, timeout);
            }
            std::hint::spin_loop();
        }
    }
}

/// How long a wait spins, and how long it then sleeps.
fn shares(spin: Duration, timeout: Option<Duration>) -> (Duration, Option<Duration>) {
    let spin = timeout.map_or(spin, |timeout| timeout.min(spin));
    (spin, timeout.map(|timeout| timeout - spin))
}

impl AsFd for MioSystem {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

/// Nearly every event is readable and writable: the rest is handled apart.
#[inline(always)]
fn flags_of(event: &Event) -> Flags {
    let ready =
        Flags::READABLE.when(event.is_readable()) | Flags::WRITABLE.when(event.is_writable());
    if event.is_read_closed() || event.is_error() { ready | rare_flags_of(event) } else { ready }
}

#[cold]
fn rare_flags_of(event: &Event) -> Flags {
    let (closed, faulty) = (event.is_read_closed(), event.is_error());
    (Flags::READABLE | Flags::HUNG).when(closed)
        | Flags::FAULTY.when(faulty)
        | Flags::FIN_TOLD.when(closed & !faulty)
}

impl System for MioSystem {
    type Stream = MioStream;
    type Listener = Listening;
    type Datagrams = socket::Datagrams;

    const CHECKED: bool = cfg!(debug_assertions);

    #[inline(always)]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[inline(always)]
    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl EventSink) -> io::Result<()> {
        match self.wait(timeout) {
            Ok(()) => {}
            // The turn goes on without events: the caller checks its deadlines and waits again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let MioToken(token) = event.token();
            if let Some(id) = ConnId::from_bits(token as u64) {
                sink.connection(id, flags_of(event));
                continue;
            }
            match token {
                WAKE => sink.wake(),
                #[cfg(feature = "signals")]
                SIGNALS => {
                    if let Some(watch) = &mut self.signals {
                        if watch.handlers.signals.pending().next().is_some() {
                            watch.handlers.handle.shutdown();
                        }
                    }
                    sink.wake();
                }
                listener => sink.listener(listener as u32),
            }
        }
        Ok(())
    }

    fn sockets(&self) -> Box<dyn Sockets> {
        Box::new(MioSockets(SystemSockets { nonblocking: true }))
    }

    fn adopt(&mut self, socket: Box<dyn Any>) -> Option<Listening> {
        socket.downcast().ok().map(|listener| *listener)
    }

    fn adopt_stream(&mut self, stream: Box<dyn Any + Send>, id: ConnId) -> io::Result<MioStream> {
        let mut stream = match stream.downcast::<OwnedFd>() {
            Ok(socket) => stream_of(Socket::from(*socket)),
            #[cfg(feature = "fd")]
            Err(other) => {
                let pair = other.downcast::<Pair>();
                let pair = *pair.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
                MioStream::Other(Box::new(Other::new(pair, self.shared_registry()?)))
            }
            #[cfg(not(feature = "fd"))]
            Err(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.register_stream(&mut stream, id)?;
        if stream.is_socket() {
            self.adopted.insert(id);
        }
        Ok(stream)
    }

    fn adopt_datagrams(
        &mut self,
        socket: Box<dyn Any>,
        id: ConnId,
    ) -> io::Result<socket::Datagrams> {
        let socket = socket.downcast::<socket::Datagrams>();
        let socket = *socket.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = MioToken(id.bits() as usize);
        let fd = socket.as_fd().as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), token, both)?;
        Ok(socket)
    }

    fn close_datagrams(&mut self, socket: socket::Datagrams) {
        if socket.is_adopted() {
            self.forget(socket.as_fd());
        }
    }

    fn connect(&mut self, dial: &Dial) -> io::Result<MioStream> {
        socket::start_connect(dial).map(stream_of)
    }

    fn register_listener(&mut self, listener: &mut Listening, token: u32) -> io::Result<()> {
        let shared = match listener.is_adopted() {
            true => Some(self.shared_registry()?),
            false => None,
        };
        listener.register(self.poll.registry(), shared, MioToken(token as usize))
    }

    fn register_stream(&mut self, stream: &mut MioStream, id: ConnId) -> io::Result<()> {
        let token = MioToken(id.bits() as usize);
        #[cfg(feature = "fd")]
        return stream.register(self.poll.registry(), token);
        #[cfg(not(feature = "fd"))]
        register(stream, self.poll.registry(), token)
    }

    fn deregister_stream(&mut self, stream: &mut MioStream) -> io::Result<()> {
        #[cfg(feature = "fd")]
        return stream.deregister(self.poll.registry());
        #[cfg(not(feature = "fd"))]
        self.poll.registry().deregister(&mut SourceFd(&stream.as_raw_fd()))
    }

    fn forget_stream(&mut self, stream: &MioStream, id: ConnId) {
        let adopted = !self.adopted.is_empty() && self.adopted.remove(&id);
        if let Some(socket) = stream.as_info().descriptor().filter(|_| adopted) {
            self.forget(socket);
        }
    }

    fn accept_with_reserve(
        &mut self,
        listener: &mut Listening,
    ) -> io::Result<(MioStream, Endpoint)> {
        self.reserve.free();
        Listener::accept(listener)
    }

    fn restore_reserve(&mut self) -> bool {
        self.reserve.restore()
    }
}

#[cfg(feature = "fd")]
#[inline(always)]
pub(super) fn stream_of(socket: Socket) -> MioStream {
    MioStream::Socket(socket)
}

#[cfg(not(feature = "fd"))]
#[inline(always)]
pub(super) fn stream_of(socket: Socket) -> MioStream {
    socket
}

/// Registers both directions.
pub(super) fn register(socket: &Socket, registry: &Registry, token: MioToken) -> io::Result<()> {
    let both = Interest::READABLE | Interest::WRITABLE;
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, both)
}

impl Stream for Socket {
    type Straight = Socket;

    #[inline(always)]
    fn straight(&mut self) -> Option<&mut Socket> {
        Some(self)
    }

    #[inline(always)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| Read::read(self, buffer))
    }

    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| self.send_with_flags(bytes, NO_SIGNAL))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| socket::send_vectored(self, slices))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match Socket::shutdown(self, Shutdown::Write) {
            // The peer has reset: a read will report it.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        Socket::take_error(self)
    }

    fn check_connected(&mut self) -> io::Result<()> {
        socket::check_connected(self)
    }

    fn reset_on_close(&mut self) {
        socket::reset_on_close(self);
    }

    fn as_info(&self) -> &dyn SocketInfo {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_spins_lasts_no_longer_than_one_that_sleeps() {
        let [none, short, long] = [0, 3, 10].map(Duration::from_millis);
        assert_eq!(shares(short, None), (short, None));
        assert_eq!(shares(short, Some(long)), (short, Some(long - short)));
        assert_eq!(shares(long, Some(long)), (long, Some(none)));
        assert_eq!(shares(long, Some(short)), (short, Some(none)));
        assert_eq!(shares(long, Some(none)), (none, Some(none)));
    }
}
