//! Sockets of the operating system: options, calls that std lacks, and what errors mean.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::endpoint::Endpoint;
use crate::protocol::{ListenOptions, SocketInfo};

impl SocketInfo for TcpStream {
    fn local_addr(&self) -> io::Result<Endpoint> {
        TcpStream::local_addr(self).map(Endpoint::from)
    }
}

/// A listening, nonblocking TCP socket.
///
/// TCP_NODELAY is set here once: accepted sockets inherit it, which saves a call for each.
pub(crate) fn listen(addr: Endpoint, options: &ListenOptions) -> io::Result<TcpListener> {
    let addr = addr.need_ip()?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(options.nodelay)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Sends several slices with one call. `write_vectored` of std is `writev`, which raises SIGPIPE.
pub(crate) fn send_vectored(socket: &impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(socket).send_vectored_with_flags(slices, NO_SIGNAL)
}

#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: i32 = libc::MSG_NOSIGNAL;
/// Apple's systems have a socket option instead, which std sets on every socket.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: i32 = 0;

/// Makes the close of `socket` a reset. Where that fails it is an ordinary close.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        log::debug!(target: "lariat::socket", "cannot make a close a reset: {error}");
    }
}

/// Repeats a call that a signal interrupted.
#[inline(always)]
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A descriptor kept so that one connection can be accepted when none is left.
#[derive(Debug)]
pub(crate) struct Reserve(Option<File>);

impl Reserve {
    pub(crate) fn new() -> Reserve {
        Reserve(open_reserve())
    }

    /// Gives the descriptor up, for the next call that needs one.
    pub(crate) fn free(&mut self) {
        self.0 = None;
    }

    /// Takes a descriptor back; false when there is none.
    pub(crate) fn restore(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = open_reserve();
        }
        self.0.is_some()
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn accepted_sockets_inherit_nodelay() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen(addr.into(), &ListenOptions::default()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn retry_hides_interruptions_and_nothing_else() {
        let mut left = 3;
        let result = retry(|| {
            left -= 1;
            if left > 0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(7) }
        });
        assert_eq!(result.unwrap(), 7);
        let blocked: io::Result<()> = retry(|| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
