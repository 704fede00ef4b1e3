//! Opening sockets that listen or connect, and taking over sockets that are open; with their
//! options.

use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

#[cfg(feature = "fd")]
use super::Pair;
use super::unix::{self, SocketFile};
use super::waiting::Waiting;
use super::{Datagrams, device, reset_on_close, retry};
use crate::datagram::{DatagramOptions, DatagramSocket, Opened};
#[cfg(feature = "fd")]
use crate::descriptors::Descriptors;
use crate::endpoint::{Endpoint, UnixName};
use crate::error::{check_scope, rejected};
use crate::options::{Dial, Keepalive, ListenOptions, SocketOptions};
#[cfg(feature = "fd")]
use crate::protocol::AdoptedDescriptors;
use crate::protocol::{AdoptedListener, Bound, Sockets};
use crate::reason::is_late;

/// A listening, nonblocking socket.
///
/// The options of streams are set here once: accepted sockets inherit them, which saves a call or
/// more for each.
fn listen(addr: Endpoint, options: &ListenOptions) -> io::Result<Listener> {
    let socket = open(addr)?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    set_options(SockRef::from(&socket), addr, &options.socket())?;
    let Endpoint::Ip(ip) = addr else {
        refuse("reuse_port", options.reuse_port)?;
        let name = addr.unix().ok_or(io::ErrorKind::InvalidInput)?;
        let file = unix::bind(&socket, name, options.mode)?;
        socket.listen(backlog)?;
        return Ok(Listener::new(Listens::Unix(socket.into()), file));
    };
    refuse("mode", options.mode.is_some())?;
    if ip.is_ipv6() {
        socket.set_only_v6(options.v6_only).map_err(rejected("v6_only"))?;
    }
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(rejected("reuse_port"))?;
    }
    socket.bind(&ip.into())?;
    socket.listen(backlog)?;
    Ok(Listener::new(Listens::Tcp(socket.into()), None))
}

/// An option that this kind of socket does not have is an error, where it is asked for.
pub(super) fn refuse(option: &'static str, asked_for: bool) -> io::Result<()> {
    if !asked_for {
        return Ok(());
    }
    let sentence = "this kind of socket does not have it";
    Err(rejected(option)(io::Error::new(io::ErrorKind::Unsupported, sentence)))
}

/// A listening socket of the system.
pub(crate) struct Listener {
    /// Dropped first, so that the file is removed before the socket.
    pub(crate) file: Option<SocketFile>,
    /// Where a thread waits, if it may not sleep in `accept`. None on the reactor.
    waiting: Option<Waiting>,
    pub(crate) socket: Listens,
    /// What accepted streams are given, if they do not inherit it: those that a socket had waiting
    /// before it was adopted.
    pub(crate) gives: Option<SocketOptions>,
}

/// A socket that listens, as its family has it.
pub(crate) enum Listens {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[cfg_attr(all(test, lariat_model), expect(dead_code, reason = "the model has its own"))]
impl Listener {
    /// Accepts. It sleeps where no thread waits beside the socket, and nobody else has it.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Endpoint)> {
        let (stream, peer) = match &self.socket {
            Listens::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                (Socket::from(stream), peer.into())
            }
            Listens::Unix(socket) => {
                let (stream, peer) = socket.accept()?;
                (Socket::from(stream), UnixName::from(&peer).into())
            }
        };
        if INHERITED && self.waiting.is_some() {
            stream.set_nonblocking(false)?;
        }
        give(&stream, peer, self.gives.as_ref());
        Ok((stream, peer))
    }

    /// Repeats `accept` until it finds something or fails. Once the listener is `stopped` it is not
    /// called, so that the clients are left to others. One that a thread sleeps in is called all
    /// the same: it has been shut down, and fails.
    pub(crate) fn wait_for<T>(
        &self,
        mut accept: impl FnMut() -> io::Result<T>,
        stopped: &AtomicBool,
    ) -> io::Result<T> {
        match &self.waiting {
            Some(waiting) => waiting.wait_for(accept, stopped),
            None => accept(),
        }
    }

    /// Wakes the thread that waits for a client, and every one that comes later. The caller has set
    /// `stopped`.
    pub(crate) fn wake(&self) {
        // First: the thread may take its time, and the path be listened at again at once.
        if let Some(file) = &self.file {
            file.remove();
        }
        if let Some(waiting) = &self.waiting {
            return waiting.wake();
        }
        if let Err(error) = SockRef::from(&self.socket).shutdown(Shutdown::Both) {
            log::error!(target: "lariat::socket", "cannot wake a thread: {error}");
        }
    }
}

impl Listener {
    fn new(socket: Listens, file: Option<SocketFile>) -> Listener {
        Listener { file, waiting: None, socket, gives: None }
    }
}

/// Whether a shutdown of a listening socket wakes a thread out of its `accept`. The system that
/// `interposed/` makes up has none.
const WOKEN_BY_SHUTDOWN: bool = cfg!(all(target_os = "linux", not(snare)));

/// Whether accepted streams may be nonblocking because their listener is.
const INHERITED: bool = cfg!(not(target_os = "linux"));

impl AsFd for Listens {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listens::Tcp(socket) => socket.as_fd(),
            Listens::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Gives an accepted stream the options that it has not inherited.
#[inline]
pub(crate) fn give(stream: &Socket, peer: Endpoint, options: Option<&SocketOptions>) {
    if let Some(options) = options {
        if let Err(error) = set_options(SockRef::from(stream), peer, options) {
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
        let mut listener = listen(addr, options)?;
        let socket = SockRef::from(&listener.socket);
        let addr = Endpoint::from(&socket.local_addr()?);
        if !self.nonblocking {
            // On Linux a shutdown of the socket wakes the thread that sleeps in its accept.
            if WOKEN_BY_SHUTDOWN {
                socket.set_nonblocking(false)?;
            } else {
                listener.waiting = Some(Waiting::new(listener.socket.as_fd())?);
            }
        }
        Ok(Bound { addr, socket: Box::new(listener), close: None })
    }

    fn bind(&self, addr: Endpoint, options: &DatagramOptions) -> io::Result<Opened> {
        let socket = Datagrams::open(addr, options, self.nonblocking)?;
        Ok(Opened { addr: socket.local_addr()?, peer: None, socket: Box::new(socket) })
    }

    fn adopt_datagrams(&self, socket: OwnedFd, options: &DatagramOptions) -> io::Result<Opened> {
        let shown = SockRef::from(&socket);
        let addr = socket_addr(&shown, shown.local_addr(), Type::DGRAM)?;
        if addr == Endpoint::Other {
            return invalid("it is neither a UDP nor a Unix socket");
        }
        let peer = shown.peer_addr().ok().map(|peer| Endpoint::from(&peer));
        let socket = Datagrams::adopt(socket, addr, peer, options, self.nonblocking)?;
        Ok(Opened { addr, peer, socket: Box::new(socket) })
    }

    fn adopt_listener(&self, socket: OwnedFd, options: &ListenOptions) -> AdoptedListener {
        let (addr, waiting) = match self.prepare_listener(&socket, options) {
            Ok(prepared) => prepared,
            Err(error) => return Err((error, socket)),
        };
        let gives = Some(options.socket());
        let socket = match addr {
            Endpoint::Unix(_) => Listens::Unix(socket.into()),
            _ => Listens::Tcp(socket.into()),
        };
        let listener = Listener { file: None, waiting, socket, gives };
        Ok(Bound { addr, socket: Box::new(listener), close: None })
    }

    fn adopt_stream(&self, socket: &OwnedFd, options: &SocketOptions) -> io::Result<Endpoint> {
        let shown = SockRef::from(socket);
        let peer = socket_addr(&shown, shown.peer_addr(), Type::STREAM)?;
        set_options(SockRef::from(socket), peer, options)?;
        self.prepare(shown)?;
        Ok(peer)
    }

    #[cfg(feature = "fd")]
    fn adopt_descriptors(&self, from: Descriptors) -> AdoptedDescriptors {
        Ok(Box::new(Pair::new(from, !self.nonblocking)?))
    }
}

/// The address of a socket that is to be adopted, if it is of the kind.
fn socket_addr(
    socket: &SockRef<'_>,
    addr: io::Result<SockAddr>,
    kind: Type,
) -> io::Result<Endpoint> {
    match socket.r#type() {
        Ok(found) if found == kind => {}
        Ok(_) if kind == Type::STREAM => return invalid("it is no stream"),
        Ok(_) => return invalid("it is no datagram socket"),
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            return invalid("it is no socket");
        }
        Err(error) => return Err(error),
    }
    match addr {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => match listens(socket) {
            Ok(true) if TELLS_LISTENERS => invalid("it listens; adopt_listener takes it"),
            _ => Err(io::Error::new(error.kind(), "the stream is not connected")),
        },
        addr => Ok(Endpoint::from(&addr?)),
    }
}

fn invalid<T>(sentence: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}

impl SystemSockets {
    /// Others may have the socket as well, and whether it sleeps is the same for all of them: it is
    /// nonblocking on every driver, and threads wait beside it.
    fn prepare_listener(
        &self,
        socket: &OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(Endpoint, Option<Waiting>)> {
        let shown = SockRef::from(socket);
        let addr = socket_addr(&shown, shown.local_addr(), Type::STREAM)?;
        if addr == Endpoint::Other {
            return invalid("it is neither a TCP nor a Unix socket");
        }
        if !listens(&shown)? {
            return invalid("the socket does not listen");
        }
        // First: it may fail where nothing is wrong with the socket, which then is as it was.
        let waiting = if self.nonblocking { None } else { Some(Waiting::new(socket.as_fd())?) };
        set_options(SockRef::from(socket), addr, &options.socket())?;
        shown.set_nonblocking(true)?;
        self.clear_timeouts(&shown)?;
        Ok((addr, waiting))
    }

    /// Makes a socket sleep as this driver expects it, whatever it was set to before.
    fn prepare(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_nonblocking(self.nonblocking)?;
        self.clear_timeouts(&socket)
    }

    /// Threads set the time-outs of streams, and expect none before. Accepted ones inherit them.
    fn clear_timeouts(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if !self.nonblocking {
            socket.set_read_timeout(None)?;
            socket.set_write_timeout(None)?;
        }
        Ok(())
    }
}

/// Whether the system tells which sockets listen.
const TELLS_LISTENERS: bool =
    cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));

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
pub(crate) fn start_connect(dial: &Dial) -> io::Result<Socket> {
    let (socket, to) = prepare(dial)?;
    match socket.connect(&to) {
        Ok(()) => Ok(socket),
        // Also an interrupted connect goes on.
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EINTR) => Ok(socket),
            Some(libc::EAGAIN) if to.is_unix() => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "as many connections as the listener's backlog wait already",
            )),
            _ => Err(error),
        },
    }
}

/// A blocking socket that is connected; waits for that, at most for `timeout`.
#[cfg_attr(all(test, lariat_model), expect(dead_code, reason = "the model has its own"))]
pub(crate) fn connect(dial: &Dial, timeout: Duration) -> io::Result<Socket> {
    let (socket, to) = prepare(dial)?;
    // socket2 drops the fraction of a millisecond that is left, and a deadline is never early.
    let timeout = timeout.saturating_add(Duration::from_millis(1));
    if to.is_unix() {
        connect_unix(&socket, &to, timeout)?;
        return Ok(socket);
    }
    if let Err(error) = socket.connect_timeout(&to, timeout) {
        // One that has succeeded while the process was stopped is no less connected.
        if !is_late(&error) || socket.peer_addr().is_err() {
            return Err(error);
        }
    }
    check_over(&socket)?;
    Ok(socket)
}

/// Whether a socket is connected whose connect is over. A peer that has reset it since has left
/// the error that a loop finds.
fn check_over(socket: &Socket) -> io::Result<()> {
    match check_connected(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            let error = socket.take_error()?;
            Err(error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ECONNRESET)))
        }
        other => other,
    }
}

/// Waits in `connect` itself for a place in the listener's queue: a Unix socket that does not sleep
/// gets no event when one is free.
fn connect_unix(socket: &Socket, to: &SockAddr, timeout: Duration) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(timeout))?;
    retry(|| socket.connect(to)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    socket.set_write_timeout(None)
}

/// Whether `stream` is connected: the error says why not.
///
/// Where nobody listens at a port that the system may choose for a client as well, it may choose
/// that one, and the client is connected to itself. That is no connection. The port is given back
/// at once, so that a server can have it.
pub(crate) fn check_connected(stream: &Socket) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    let place = |addr: &SockAddr| addr.as_socket().map(|addr| (addr.ip(), addr.port()));
    if !peer.is_unix() && place(&peer) == place(&stream.local_addr()?) {
        reset_on_close(stream);
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(())
}

/// A nonblocking socket with its options, and where it is to connect to.
fn prepare(dial: &Dial) -> io::Result<(Socket, SockAddr)> {
    let to = dial.to.to_sock_addr()?;
    let socket = open(dial.to)?;
    set_options(SockRef::from(&socket), dial.to, &dial.options)?;
    if let Some(from) = dial.options.bind {
        if from.port().is_some_and(|port| port != 0) {
            socket.set_reuse_address(true)?;
        }
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot connect from {from}: {error}"))
        };
        socket.bind(&from.to_sock_addr()?).map_err(named)?;
    }
    Ok((socket, to))
}

/// A nonblocking stream socket of the family of `addr`.
pub(super) fn open(addr: Endpoint) -> io::Result<Socket> {
    let (domain, protocol) = match addr {
        Endpoint::Ip(addr) => {
            check_scope(&addr)?;
            (Domain::for_address(addr), Some(Protocol::TCP))
        }
        _ => (Domain::UNIX, None),
    };
    #[cfg(not(target_vendor = "apple"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), protocol);
    #[cfg(target_vendor = "apple")]
    {
        let socket = Socket::new(domain, Type::STREAM, protocol)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Sets the options of a stream, or those that the streams of a listener inherit. The error names
/// the option. Of the options of TCP a Unix socket never delays a write, and has no `keepalive`,
/// no `device`, no `ttl` and no `tos`.
fn set_options(socket: SockRef<'_>, addr: Endpoint, options: &SocketOptions) -> io::Result<()> {
    if let Endpoint::Ip(_) = addr {
        socket.set_tcp_nodelay(options.nodelay).map_err(rejected("nodelay"))?;
    } else {
        refuse("keepalive", options.keepalive.is_some())?;
        refuse("device", options.device.is_some())?;
        refuse("ttl", options.ttl.is_some())?;
        refuse("tos", options.tos.is_some())?;
    }
    if let Some(device) = options.device {
        device::bind(&socket, device).map_err(rejected("device"))?;
    }
    set_packet_options(&socket, addr, options)?;
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

/// Sets what routers see. A socket of IPv6 may serve peers of IPv4 as well, for which the options
/// of that family count; where it does not, the system may reject those.
fn set_packet_options(
    socket: &SockRef<'_>,
    addr: Endpoint,
    options: &SocketOptions,
) -> io::Result<()> {
    let v6 = addr.ip().is_some_and(|ip| ip.is_ipv6());
    if let Some(ttl) = options.ttl.map(u32::from) {
        let of_v4 = socket.set_ttl_v4(ttl);
        let set = if v6 { socket.set_unicast_hops_v6(ttl) } else { of_v4 };
        set.map_err(rejected("ttl"))?;
    }
    if let Some(tos) = options.tos.map(u32::from) {
        let of_v4 = socket.set_tos_v4(tos);
        let set = if v6 { socket.set_tclass_v6(tos) } else { of_v4 };
        set.map_err(rejected("tos"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpStream};

    #[test]
    fn d11_a_client_that_is_connected_to_itself_was_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let addr = socket.local_addr().unwrap();
        socket.connect(&addr).unwrap();
        let error = check_connected(&socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // Its port is free at once: no trace of it is left to wait for.
        drop(socket);
        TcpListener::bind(addr.as_socket().unwrap()).unwrap();
    }

    #[test]
    fn d11_a_client_on_the_same_host_or_the_same_port_is_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        check_connected(&TcpStream::connect(addr).unwrap().into()).unwrap();
        // Another test may have the port of the one, on all addresses: then the next one will do.
        let (addr, socket, _listener) = std::iter::repeat_with(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let same = SocketAddr::from(([127, 0, 0, 2], addr.port()));
            socket.bind(&same.into()).ok().map(|()| (addr, socket, listener))
        })
        .take(100)
        .flatten()
        .next()
        .unwrap();
        socket.connect(&addr.into()).unwrap();
        check_connected(&socket).unwrap();
    }

    #[test]
    fn a_client_that_was_reset_as_soon_as_it_was_connected_is_told_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Socket::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        check_over(&client).unwrap();
        let (server, _) = listener.accept().unwrap();
        reset_on_close(&server);
        drop(server);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while client.peer_addr().is_ok() {
            assert!(std::time::Instant::now() < deadline, "the reset does not come");
            std::thread::yield_now();
        }
        // Also where another has taken the error.
        for _ in 0..2 {
            let error = check_over(&client).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        }
    }

    #[test]
    fn a_socket_without_a_peer_is_not_connected() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert_eq!(check_connected(&socket).unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}
