//! Unix sockets of datagrams of the operating system.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::datagrams::set_buffers;
use super::opening::refuse;
use super::unix::{self, SocketFile};
use super::{NO_SIGNAL, retry};
use crate::datagram::{DatagramOptions, DatagramSocket, Interface, Received, check_family};
use crate::endpoint::{Endpoint, UnixName};

/// A Unix socket of datagrams. On every driver a call that sends returns at once: the receiver may
/// never have room.
#[derive(Debug)]
pub(crate) struct UnixDatagrams {
    /// Dropped first, so that the file is removed before the socket.
    _file: Option<SocketFile>,
    socket: UnixDatagram,
    name: UnixName,
    /// The peer that it was to be connected to, if that has a name.
    peer: Option<SockAddr>,
}

impl UnixDatagrams {
    pub(super) fn open(
        name: UnixName,
        options: &DatagramOptions,
        nonblocking: bool,
    ) -> io::Result<UnixDatagrams> {
        refuse("reuse_port", options.reuse_port)?;
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_nonblocking(nonblocking)?;
        let file = if name.is_unnamed() {
            refuse("mode", options.mode.is_some())?;
            None
        } else {
            unix::bind(&socket, name, options.mode)?
        };
        UnixDatagrams::of(socket, name, None, file, options)
    }

    /// A socket with its options, connected where these say so, if it is not connected.
    pub(super) fn of(
        socket: Socket,
        name: UnixName,
        peer: Option<Endpoint>,
        file: Option<SocketFile>,
        options: &DatagramOptions,
    ) -> io::Result<UnixDatagrams> {
        refuse("broadcast", options.broadcast)?;
        refuse("ttl", options.ttl.is_some())?;
        refuse("tos", options.tos.is_some())?;
        refuse("offload", options.offload)?;
        refuse("multicast_ttl", options.multicast_ttl.is_some())?;
        refuse("multicast_loop", !options.multicast_loop)?;
        refuse("multicast_interface", options.multicast_interface != Interface::Any)?;
        set_buffers(&socket, options)?;
        let peer = match options.connect {
            Some(peer) => Some(connect(&socket, &peer)?),
            None => peer.and_then(|peer| peer.to_sock_addr().ok()),
        };
        Ok(UnixDatagrams { _file: file, socket: socket.into(), name, peer })
    }

    /// The call of the thread that sleeps returns, with an empty datagram.
    pub(super) fn wake(&self) {
        let woken = SockRef::from(&self.socket).shutdown(Shutdown::Read);
        if woken.is_err() && !self.name.is_unnamed() {
            // Where only a connected one can be shut down, a datagram to itself does.
            if let Ok(own) = Endpoint::Unix(self.name).to_sock_addr() {
                let _ = self.send_now(&[], Some(&own));
            }
        }
    }

    fn send_now(&self, bytes: &[u8], to: Option<&SockAddr>) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let flags = NO_SIGNAL | libc::MSG_DONTWAIT;
        let sent = retry(|| match to {
            Some(to) => socket.send_to_with_flags(bytes, to, flags),
            None => socket.send_with_flags(bytes, flags),
        });
        sent.map(|_| ())
    }
}

fn connect(socket: &Socket, peer: &Endpoint) -> io::Result<SockAddr> {
    check_family(true, peer)?;
    let to = peer.to_sock_addr()?;
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot connect to {peer}: {error}"))
    };
    socket.connect(&to).map_err(named)?;
    Ok(to)
}

impl DatagramSocket for UnixDatagrams {
    fn local_addr(&self) -> io::Result<Endpoint> {
        SockRef::from(&self.socket).local_addr().map(|addr| Endpoint::from(&addr))
    }

    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()> {
        let to = match to {
            Some(to) => {
                check_family(true, to)?;
                Some(to.to_sock_addr()?)
            }
            None => None,
        };
        let mut sent = self.send_now(bytes, to.as_ref());
        let gone = |error: &io::Error| {
            let kind = error.kind();
            kind == io::ErrorKind::ConnectionRefused || kind == io::ErrorKind::NotConnected
        };
        if let (None, Some(peer), true) = (&to, &self.peer, sent.as_ref().is_err_and(gone)) {
            // Another socket may have the name by now.
            sent = retry(|| SockRef::from(&self.socket).connect(peer));
            sent = sent.and_then(|()| self.send_now(bytes, None));
        }
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => io::Error::from_raw_os_error(libc::ECONNREFUSED),
            _ => error,
        })
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let (len, from) = retry(|| self.socket.recv_from(buffer))?;
        let to = (!self.name.is_unnamed()).then_some(Endpoint::Unix(self.name));
        let from = UnixName::from(&from).into();
        Ok(Received { len, from, to, ecn: None, calls: 1 })
    }

    fn set_member(&self, _: IpAddr, _: Interface, _: bool) -> io::Result<()> {
        let sentence = "a Unix socket has no groups";
        Err(io::Error::new(io::ErrorKind::Unsupported, sentence))
    }

    fn is_unix(&self) -> bool {
        true
    }
}

impl AsFd for UnixDatagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
