//! What a loop asks of the system beneath it: mio on the reactor, a simulated network in the
//! simulator.
//!
//! The loop itself is the same for both, so that a defect found in the simulator is one of the
//! reactor.

use std::any::Any;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use crate::connection::Flags;
use crate::datagram::DatagramSocket;
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::options::Dial;
use crate::protocol::{SocketInfo, Sockets};
use crate::reason::CloseReason;

/// Takes events.
pub(crate) trait EventSink {
    /// The readiness of a connection has changed to `ready`, as far as the system reports it.
    fn connection(&mut self, id: ConnId, ready: Flags);
    /// A connection waits at the listening socket with this number.
    fn listener(&mut self, number: u32);
    /// Another thread has posted, or a signal has come.
    fn wake(&mut self);
}

/// A system of sockets and time.
pub(crate) trait System {
    type Stream: Stream;
    type Listener: Listener<Stream = Self::Stream>;
    type Datagrams: DatagramSocket;

    /// Whether the order of `data` is checked.
    const CHECKED: bool;

    /// The time right now.
    fn now(&self) -> Instant;

    /// Waits for events, at most for `timeout`, and passes each to `sink`. Readiness is reported
    /// once per change (edge-triggered); spurious events are allowed. An interrupted wait ends
    /// early.
    fn poll(&mut self, timeout: Option<Duration>, sink: &mut impl EventSink) -> io::Result<()>;

    /// What opens and prepares the sockets that [`System::adopt`] takes over.
    fn sockets(&self) -> Box<dyn Sockets>;

    /// Takes a listening socket over; None for a socket that another system made.
    fn adopt(&mut self, socket: Box<dyn Any>) -> Option<Self::Listener>;

    /// Takes a connected stream over that [`Sockets::adopt_stream`] has prepared, and registers it.
    fn adopt_stream(&mut self, stream: Box<dyn Any + Send>, id: ConnId)
    -> io::Result<Self::Stream>;

    /// Takes a socket of datagrams over, which [`Sockets::bind`] has opened, and registers it.
    fn adopt_datagrams(&mut self, socket: Box<dyn Any>, id: ConnId) -> io::Result<Self::Datagrams>;

    /// Closes a socket of datagrams. Nothing is reported of it any more, also where it stays open
    /// elsewhere.
    fn close_datagrams(&mut self, socket: Self::Datagrams) {
        drop(socket);
    }

    /// A nonblocking socket whose connect has begun.
    fn connect(&mut self, dial: &Dial) -> io::Result<Self::Stream>;

    fn register_listener(&mut self, listener: &mut Self::Listener, token: u32) -> io::Result<()>;

    /// Registers both directions, once.
    fn register_stream(&mut self, stream: &mut Self::Stream, id: ConnId) -> io::Result<()>;

    /// Reports nothing of a stream any more, which stays open elsewhere.
    fn deregister_stream(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// A stream is about to be closed. One that is open elsewhere is reported no more.
    fn forget_stream(&mut self, _stream: &Self::Stream, _id: ConnId) {}

    /// Accepts with the descriptor that is kept in reserve.
    fn accept_with_reserve(
        &mut self,
        listener: &mut Self::Listener,
    ) -> io::Result<(Self::Stream, Endpoint)>;

    /// Takes a descriptor into reserve again; false when none is free.
    fn restore_reserve(&mut self) -> bool;

    /// A connection has ended, and `closed` has run. For the simulator, which records it.
    fn ended(&mut self, _id: ConnId, _peer: Endpoint, _reason: &CloseReason) {}
}

/// A nonblocking stream socket. Its calls never return EINTR.
pub(crate) trait Stream: SocketInfo {
    /// What the straight path of a message reads and writes.
    type Straight: Stream;

    /// None for a stream that is always served beside that path.
    fn straight(&mut self) -> Option<&mut Self::Straight>;

    /// Whether the stream is a socket: its error is one of both directions.
    fn is_socket(&self) -> bool {
        true
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    fn shutdown_write(&mut self) -> io::Result<()>;
    /// The error that the socket holds; reading it clears it.
    fn take_error(&mut self) -> io::Result<Option<io::Error>>;
    /// Whether the socket is connected: the error says why not.
    fn check_connected(&mut self) -> io::Result<()>;
    /// Makes the coming close a reset, where the system allows.
    fn reset_on_close(&mut self);
    fn as_info(&self) -> &dyn SocketInfo;
}

/// A nonblocking listening socket.
pub(crate) trait Listener {
    type Stream;

    fn accept(&mut self) -> io::Result<(Self::Stream, Endpoint)>;
}
