//! Opening sockets that listen or connect, and taking over sockets that are open; with their
//! options.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::reset_on_close;
use crate::endpoint::Endpoint;
use crate::error::rejected;
use crate::options::{Dial, Keepalive, ListenOptions, SocketOptions};
use crate::protocol::{Bound, Sockets};

/// A listening, nonblocking TCP socket.
///
/// The options of streams are set here once: accepted sockets inherit them, which saves a call or
/// more for each.
fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = open(addr)?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6_only).map_err(rejected("v6_only"))?;
    }
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(rejected("reuse_port"))?;
    }
    set_options(SockRef::from(&socket), &options.socket())?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A listening socket of the system.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// What accepted streams are given, if they do not inherit it: those that a socket had waiting
    /// before it was adopted.
    pub(crate) gives: Option<SocketOptions>,
}

impl Listener {
    /// Accepts, where accepting sleeps.
    #[cfg_attr(all(test, lariat_model), expect(dead_code, reason = "the model has its own"))]
    pub(crate) fn accept(&self) -> io::Result<(TcpStream, Endpoint)> {
        let (stream, peer) = self.socket.accept()?;
        give(&stream, self.gives.as_ref());
        Ok((stream, peer.into()))
    }
}

/// Gives an accepted stream the options that it has not inherited.
#[inline]
pub(crate) fn give(stream: &TcpStream, options: Option<&SocketOptions>) {
    if let Some(options) = options {
        if let Err(error) = set_options(SockRef::from(stream), options) {
            // The listening socket has taken all of them, so that this stream has failed already.
            log::debug!(target: "lariat::socket", "{error}");
        }
    }
}

/// The sockets of the system.
pub(crate) struct SystemSockets {
    /// Whether calls return at once where they would sleep.
    pub(crate) nonblocking: bool,
}

impl Sockets for SystemSockets {
    fn listen(&self, addr: Endpoint, options: &ListenOptions) -> io::Result<Bound> {
        let socket = listen(addr.need_ip()?, options)?;
        if !self.nonblocking {
            socket.set_nonblocking(false)?;
        }
        let addr = socket.local_addr()?.into();
        Ok(Bound { addr, socket: Box::new(Listener { socket, gives: None }), close: None })
    }

    fn adopt_listener(&self, socket: TcpListener, options: &ListenOptions) -> io::Result<Bound> {
        let addr = socket.local_addr().map_err(not_tcp)?.into();
        let shown = SockRef::from(&socket);
        if !listens(&shown)? {
            let sentence = "the socket does not listen";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        set_options(shown, &options.socket())?;
        self.prepare(SockRef::from(&socket))?;
        let gives = Some(options.socket());
        Ok(Bound { addr, socket: Box::new(Listener { socket, gives }), close: None })
    }

    fn adopt_stream(&self, socket: &TcpStream, options: &SocketOptions) -> io::Result<Endpoint> {
        let peer = socket.peer_addr().map_err(not_tcp)?.into();
        set_options(SockRef::from(socket), options)?;
        self.prepare(SockRef::from(socket))?;
        Ok(peer)
    }
}

impl SystemSockets {
    /// Makes a socket sleep as this driver expects it, whatever it was set to before.
    fn prepare(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_nonblocking(self.nonblocking)?;
        if !self.nonblocking {
            socket.set_read_timeout(None)?;
            socket.set_write_timeout(None)?;
        }
        Ok(())
    }
}

/// What a socket that is to be adopted lacks, in words.
fn not_tcp(error: io::Error) -> io::Error {
    let sentence = match error.kind() {
        io::ErrorKind::NotConnected => "the stream is not connected",
        io::ErrorKind::InvalidInput => "it is no TCP socket",
        _ => return error,
    };
    io::Error::new(error.kind(), sentence)
}

/// Whether a socket listens, as far as the system tells.
fn listens(socket: &SockRef<'_>) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    return socket.is_listener();
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let _ = socket;
        Ok(true)
    }
}

/// A nonblocking socket whose connect has begun.
pub(crate) fn start_connect(dial: &Dial) -> io::Result<TcpStream> {
    let (socket, to) = prepare(dial)?;
    match socket.connect(&to.into()) {
        Ok(()) => Ok(socket.into()),
        // Also an interrupted connect goes on.
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EINTR) => Ok(socket.into()),
            _ => Err(error),
        },
    }
}

/// A blocking socket that is connected; waits for that, at most for `timeout`.
#[cfg_attr(all(test, lariat_model), expect(dead_code, reason = "the model has its own"))]
pub(crate) fn connect(dial: &Dial, timeout: Duration) -> io::Result<TcpStream> {
    let (socket, to) = prepare(dial)?;
    // socket2 drops the fraction of a millisecond that is left, and a deadline is never early.
    let timeout = timeout.saturating_add(Duration::from_millis(1));
    if let Err(error) = socket.connect_timeout(&to.into(), timeout) {
        // One that has succeeded while the process was stopped is no less connected.
        let late = error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
        if !late || socket.peer_addr().is_err() {
            return Err(error);
        }
    }
    let stream = socket.into();
    check_connected(&stream)?;
    Ok(stream)
}

/// Whether `stream` is connected: the error says why not.
///
/// Where nobody listens at a port that the system may choose for a client as well, it may choose
/// that one, and the client is connected to itself. That is no connection. The port is given back
/// at once, so that a server can have it.
pub(crate) fn check_connected(stream: &TcpStream) -> io::Result<()> {
    let place = |addr: SocketAddr| (addr.ip(), addr.port());
    if place(stream.peer_addr()?) == place(stream.local_addr()?) {
        reset_on_close(stream);
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(())
}

/// A nonblocking socket with its options, and where it is to connect to.
fn prepare(dial: &Dial) -> io::Result<(Socket, SocketAddr)> {
    let to = dial.to.need_ip()?;
    let socket = open(to)?;
    set_options(SockRef::from(&socket), &dial.options)?;
    if let Some(from) = dial.options.bind {
        let from = from.need_ip()?;
        if from.port() != 0 {
            socket.set_reuse_address(true)?;
        }
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot connect from {from}: {error}"))
        };
        socket.bind(&from.into()).map_err(named)?;
    }
    Ok((socket, to))
}

/// A nonblocking TCP socket of the family of `addr`.
fn open(addr: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(addr);
    #[cfg(not(target_vendor = "apple"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP));
    #[cfg(target_vendor = "apple")]
    {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Sets the options of a stream, or those that the streams of a listener inherit. The error names
/// the option.
fn set_options(socket: SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay).map_err(rejected("nodelay"))?;
    if let Some(Keepalive { idle, interval, count }) = options.keepalive {
        // One after the other: only so is it known which of them is rejected.
        let all = TcpKeepalive::new();
        socket
            .set_tcp_keepalive(&all.clone().with_time(idle))
            .map_err(rejected("keepalive.idle"))?;
        let interval = all.clone().with_interval(interval);
        socket.set_tcp_keepalive(&interval).map_err(rejected("keepalive.interval"))?;
        let count = all.with_retries(count);
        socket.set_tcp_keepalive(&count).map_err(rejected("keepalive.count"))?;
    }
    if let Some(size) = options.send_buffer {
        socket.set_send_buffer_size(size).map_err(rejected("send_buffer"))?;
    }
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size).map_err(rejected("receive_buffer"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_a_client_that_is_connected_to_itself_was_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let addr = socket.local_addr().unwrap();
        socket.connect(&addr).unwrap();
        let stream = TcpStream::from(socket);
        let error = check_connected(&stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // Its port is free at once: no trace of it is left to wait for.
        drop(stream);
        TcpListener::bind(addr.as_socket().unwrap()).unwrap();
    }

    #[test]
    fn d11_a_client_on_the_same_host_or_the_same_port_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        check_connected(&TcpStream::connect(addr).unwrap()).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], addr.port())).into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        check_connected(&TcpStream::from(socket)).unwrap();
    }

    #[test]
    fn a_socket_without_a_peer_is_not_connected() {
        let socket = TcpStream::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        assert_eq!(check_connected(&socket).unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}
