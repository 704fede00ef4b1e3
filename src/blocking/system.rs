//! What this driver's threads need of the system: sockets that they sleep in, and the time. The
//! model check replaces them by simulated ones.

#[cfg(all(test, lariat_model))]
pub(super) use super::model::net::{
    Listener, TcpStream as Stream, accept, adopted, connect, has_input, now, reset_on_close, send,
    send_vectored, sockets, threads_max, wait_for_client, wake_accept, write,
};
#[cfg(all(test, lariat_model))]
pub(super) use super::model::udp::{Datagrams, has_datagram};
#[cfg(not(all(test, lariat_model)))]
pub(super) use real::{
    Datagrams, Listener, Stream, accept, adopted, connect, has_datagram, has_input, now,
    reset_on_close, send, send_vectored, sockets, threads_max, wait_for_client, wake_accept, write,
};

#[cfg(not(all(test, lariat_model)))]
mod real {
    use std::any::Any;
    use std::io;
    #[cfg(feature = "fd")]
    use std::io::IoSlice;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use socket2::{SockRef, Socket};

    use crate::datagram::DatagramSocket;
    use crate::endpoint::Endpoint;
    use crate::options::Dial;
    use crate::protocol::Sockets;
    use crate::socket::SystemSockets;

    use super::super::calls::has_input as socket_has_input;
    #[cfg(not(feature = "fd"))]
    pub(crate) use super::super::calls::{has_input, send, send_vectored, write};
    #[cfg(feature = "fd")]
    pub(crate) use super::super::stream::Stream;
    #[cfg(not(feature = "fd"))]
    pub(crate) use crate::socket::reset_on_close;
    pub(crate) use crate::socket::{Datagrams, Listener};
    #[cfg(not(feature = "fd"))]
    pub(crate) use socket2::Socket as Stream;

    #[cfg(feature = "fd")]
    fn stream_of(socket: Socket) -> Stream {
        Stream::Socket(socket)
    }

    #[cfg(not(feature = "fd"))]
    fn stream_of(socket: Socket) -> Stream {
        socket
    }

    #[inline(always)]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Sockets that threads sleep in.
    pub(crate) fn sockets() -> Box<dyn Sockets> {
        Box::new(SystemSockets { nonblocking: false })
    }

    /// A stream that was opened elsewhere, and has been prepared.
    pub(crate) fn adopted(stream: Box<dyn Any + Send>) -> Option<Stream> {
        match stream.downcast::<OwnedFd>() {
            Ok(socket) => Some(stream_of(Socket::from(*socket))),
            #[cfg(feature = "fd")]
            Err(other) => {
                let other = super::super::stream::Other::new(*other.downcast().ok()?)?;
                Some(Stream::Other(Box::new(other)))
            }
            #[cfg(not(feature = "fd"))]
            Err(_) => None,
        }
    }

    /// Connects, and sleeps until that has succeeded or failed.
    pub(crate) fn connect(dial: &Dial, timeout: Duration) -> io::Result<Stream> {
        crate::socket::connect(dial, timeout).map(stream_of)
    }

    /// Accepts. It sleeps where [`wait_for_client`] does not.
    pub(crate) fn accept(listener: &Listener) -> io::Result<(Stream, Endpoint)> {
        listener.accept().map(|(stream, peer)| (stream_of(stream), peer))
    }

    /// Repeats `accept` until it finds a client or fails, and sleeps meanwhile, in the call or
    /// beside the socket. A thread that is woken for the stop gets an error.
    pub(crate) fn wait_for_client<T>(
        listener: &Listener,
        accept: impl FnMut() -> io::Result<T>,
        stopped: &AtomicBool,
    ) -> io::Result<T> {
        listener.wait_for(accept, stopped)
    }

    /// Wakes a thread out of [`wait_for_client`], for good.
    pub(crate) fn wake_accept(listener: &Listener) {
        listener.wake();
    }

    // A stream that may be no socket knows its ways itself.

    #[cfg(feature = "fd")]
    pub(crate) fn write(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
        stream.write(bytes)
    }

    #[cfg(feature = "fd")]
    #[inline(always)]
    pub(crate) fn send(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
        stream.send(bytes)
    }

    #[cfg(feature = "fd")]
    pub(crate) fn send_vectored(stream: &Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        stream.send_vectored(slices)
    }

    #[cfg(feature = "fd")]
    pub(crate) fn has_input(stream: &Stream) -> io::Result<bool> {
        stream.has_input()
    }

    /// Whether a receive would find something. An error is one of the socket, which the system
    /// tells once.
    pub(crate) fn has_datagram(socket: &Datagrams) -> io::Result<bool> {
        if socket.has_more() {
            return Ok(true);
        }
        socket_has_input(&SockRef::from(socket))
    }

    #[cfg(feature = "fd")]
    pub(crate) fn reset_on_close(stream: &Stream) {
        stream.reset_on_close();
    }

    /// How many threads the system bears: each takes four of a process's maps. A quarter of them is
    /// left to everything else.
    pub(crate) fn threads_max() -> usize {
        let read = |path| {
            let text: io::Result<String> = std::fs::read_to_string(path);
            text.ok().and_then(|text| text.trim().parse::<usize>().ok())
        };
        let maps = read("/proc/sys/vm/max_map_count").map(|maps| maps / 4);
        let threads = read("/proc/sys/kernel/threads-max");
        let most = maps.into_iter().chain(threads).min();
        most.map_or(usize::MAX, |most| most / 4 * 3)
    }
}
