//! Opening sockets: to listen, to connect, with their options.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::error::rejected;
use crate::options::{Dial, Keepalive, ListenOptions, SocketOptions};

/// A listening, nonblocking TCP socket.
///
/// The options of streams are set here once: accepted sockets inherit them, which saves a call or
/// more for each.
pub(crate) fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
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

/// A nonblocking socket whose connect has begun.
pub(crate) fn start_connect(dial: &Dial) -> io::Result<TcpStream> {
    let (socket, to) = prepare(dial)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// A blocking socket that is connected; waits for that, at most for `timeout`.
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
    Ok(socket.into())
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
pub(crate) fn set_options(socket: SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
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
