//! Sockets of datagrams of the operating system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};

use super::opening::refuse;
use super::retry;
use super::unix_datagrams::UnixDatagrams;
use super::waiting::Waiting;
use crate::datagram::{DatagramOptions, DatagramSocket, Interface, Received, check_family};
use crate::endpoint::Endpoint;
use crate::error::{check_scope, rejected};

/// A bound socket of datagrams.
#[derive(Debug)]
pub(crate) struct Datagrams {
    kind: Kind,
    /// Others may have it as well.
    adopted: bool,
    /// Where a thread waits for an adopted socket. A call that sleeps in the socket itself can only
    /// be woken by what its other owners notice as well.
    waiting: Option<Box<Waiting>>,
    /// No thread is to sleep any more, and an empty datagram may be none.
    woken: AtomicBool,
}

/// A socket, as its family has it.
#[derive(Debug)]
enum Kind {
    Udp(Udp),
    Unix(UnixDatagrams),
}

/// A bound UDP socket.
#[derive(Debug)]
struct Udp {
    socket: UdpSocket,
    v6: bool,
    /// Where all that comes was sent to, if that is one address.
    own: Option<Endpoint>,
    /// Whether a call that receives sleeps.
    sleeps: bool,
    #[cfg(feature = "udp-offload")]
    offload: Option<Box<super::offload::Offload>>,
}

impl Datagrams {
    pub(crate) fn open(
        addr: Endpoint,
        options: &DatagramOptions,
        nonblocking: bool,
    ) -> io::Result<Datagrams> {
        let kind = match addr {
            Endpoint::Ip(addr) => Kind::Udp(Udp::open(addr, options, nonblocking)?),
            Endpoint::Unix(name) => Kind::Unix(UnixDatagrams::open(name, options, nonblocking)?),
            Endpoint::Other => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Datagrams::of(kind, false))
    }

    /// Takes over a socket that other code has bound, or not bound. It is connected where the
    /// options say so. Another process may have it as well: with every driver it is nonblocking
    /// from now on, and with threads (not `nonblocking`) these wait beside it.
    pub(super) fn adopt(
        socket: OwnedFd,
        addr: Endpoint,
        peer: Option<Endpoint>,
        options: &DatagramOptions,
        nonblocking: bool,
    ) -> io::Result<Datagrams> {
        refuse("mode", options.mode.is_some())?;
        let socket = Socket::from(socket);
        let kind = match addr {
            Endpoint::Ip(addr) => {
                set_options(&socket, addr.is_ipv6(), options)?;
                Kind::Udp(Udp::of(socket, addr.is_ipv6(), options, true)?)
            }
            Endpoint::Unix(name) => {
                Kind::Unix(UnixDatagrams::of(socket, name, peer, None, options)?)
            }
            Endpoint::Other => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut adopted = Datagrams::of(kind, true);
        if !nonblocking {
            adopted.waiting = Some(Box::new(Waiting::new(adopted.as_fd())?));
        }
        SockRef::from(&adopted).set_nonblocking(true)?;
        Ok(adopted)
    }

    fn of(kind: Kind, adopted: bool) -> Datagrams {
        Datagrams { kind, adopted, waiting: None, woken: AtomicBool::new(false) }
    }

    pub(crate) fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Wakes the thread that sleeps in [`DatagramSocket::receive`], and every one that comes later.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        match (&self.waiting, &self.kind) {
            (Some(waiting), _) => waiting.wake(),
            (None, Kind::Udp(socket)) => socket.wake(),
            (None, Kind::Unix(socket)) => socket.wake(),
        }
    }

    fn as_socket(&self) -> &dyn DatagramSocket {
        match &self.kind {
            Kind::Udp(socket) => socket,
            Kind::Unix(socket) => socket,
        }
    }

    /// Threads get no event that tells when an adopted socket has room: it is tried again.
    fn sent(&self, sent: io::Result<()>) -> io::Result<()> {
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock if self.waiting.is_some() => {
                io::Error::from_raw_os_error(libc::ENOBUFS)
            }
            _ => error,
        })
    }
}

impl DatagramSocket for Datagrams {
    fn local_addr(&self) -> io::Result<Endpoint> {
        self.as_socket().local_addr()
    }

    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()> {
        self.sent(self.as_socket().send(bytes, to))
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut receive = || self.as_socket().receive(buffer);
        let received = match &self.waiting {
            Some(waiting) => waiting.wait_for(receive, &self.woken)?,
            None => receive()?,
        };
        if received.len == 0 && self.woken.load(Ordering::Acquire) {
            // It looks like an empty datagram, and is none.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(received)
    }

    fn set_member(&self, group: IpAddr, interface: Interface, member: bool) -> io::Result<()> {
        self.as_socket().set_member(group, interface, member)
    }

    fn segments_max(&self) -> usize {
        self.as_socket().segments_max()
    }

    fn send_many(&self, bytes: &[u8], size: usize, to: Option<&Endpoint>) -> io::Result<()> {
        self.sent(self.as_socket().send_many(bytes, size, to))
    }

    fn has_more(&self) -> bool {
        self.as_socket().has_more()
    }

    fn is_unix(&self) -> bool {
        self.as_socket().is_unix()
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Udp(socket) => socket.socket.as_fd(),
            Kind::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Udp {
    fn open(addr: SocketAddr, options: &DatagramOptions, nonblocking: bool) -> io::Result<Udp> {
        refuse("mode", options.mode.is_some())?;
        check_scope(&addr)?;
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(nonblocking)?;
        if addr.is_ipv6() {
            socket.set_only_v6(options.v6_only).map_err(rejected("v6_only"))?;
        }
        if options.reuse_address {
            socket.set_reuse_address(true).map_err(rejected("reuse_address"))?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true).map_err(rejected("reuse_port"))?;
        }
        set_options(&socket, addr.is_ipv6(), options)?;
        socket.bind(&addr.into())?;
        Udp::of(socket, addr.is_ipv6(), options, nonblocking)
    }

    /// A bound socket with its options, connected where these say so.
    fn of(
        socket: Socket,
        v6: bool,
        options: &DatagramOptions,
        nonblocking: bool,
    ) -> io::Result<Udp> {
        #[cfg(not(feature = "udp-offload"))]
        refuse_offload(options, nonblocking)?;
        let mut udp = Udp {
            socket: socket.into(),
            v6,
            own: None,
            sleeps: !nonblocking,
            #[cfg(feature = "udp-offload")]
            offload: None,
        };
        if let Some(peer) = options.connect {
            check_family(false, &peer)?;
            let peer = udp.of_family(peer.need_ip()?);
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("cannot connect to {peer}: {error}"))
            };
            udp.socket.connect(peer).map_err(named)?;
        }
        let local = udp.socket.local_addr()?;
        udp.own = (!local.ip().is_unspecified()).then(|| local.into());
        #[cfg(feature = "udp-offload")]
        if options.offload {
            let offload = super::offload::Offload::new(&udp.socket, options, nonblocking);
            udp.offload = Some(Box::new(offload.map_err(rejected("offload"))?));
        }
        Ok(udp)
    }

    /// Sleeps in a call of its own. Where the thread is woken, Linux returns a datagram without a
    /// sender, and `recv_from` of std then looks at an address that nobody has written: it may
    /// panic.
    fn receive_asleep(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let from = retry(|| SockRef::from(&self.socket).peek_sender())?;
        let from = from.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        let len = retry(|| self.socket.recv(buffer))?;
        Ok(Received { len, from: from.into(), to: self.own, ecn: None, calls: 2 })
    }

    fn wake(&self) {
        // Linux says that the socket is not connected, and wakes the thread all the same.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Read);
        if cfg!(not(target_os = "linux")) {
            // Elsewhere a datagram to itself does.
            if let Ok(mut own) = self.socket.local_addr() {
                match own.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => own.set_ip(Ipv4Addr::LOCALHOST.into()),
                    IpAddr::V6(ip) if ip.is_unspecified() => own.set_ip(Ipv6Addr::LOCALHOST.into()),
                    _ => {}
                }
                let _ = self.socket.send_to(&[], own);
            }
        }
    }

    /// An IPv4 address as a socket of both families takes it.
    fn of_family(&self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V4(v4) if self.v6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            other => other,
        }
    }
}

/// Sets the options that matter after binding as well. The error names the option.
fn set_options(socket: &Socket, v6: bool, options: &DatagramOptions) -> io::Result<()> {
    if options.broadcast {
        socket.set_broadcast(true).map_err(rejected("broadcast"))?;
    }
    set_buffers(socket, options)?;
    if let Some(ttl) = options.ttl.map(u32::from) {
        let set = if v6 { socket.set_unicast_hops_v6(ttl) } else { socket.set_ttl_v4(ttl) };
        set.map_err(rejected("ttl"))?;
    }
    if let Some(tos) = options.tos.map(u32::from) {
        let set = if v6 { socket.set_tclass_v6(tos) } else { socket.set_tos_v4(tos) };
        set.map_err(rejected("tos"))?;
    }
    if let Some(ttl) = options.multicast_ttl.map(u32::from) {
        let set =
            if v6 { socket.set_multicast_hops_v6(ttl) } else { socket.set_multicast_ttl_v4(ttl) };
        set.map_err(rejected("multicast_ttl"))?;
    }
    if !options.multicast_loop {
        let set = if v6 {
            socket.set_multicast_loop_v6(false)
        } else {
            socket.set_multicast_loop_v4(false)
        };
        set.map_err(rejected("multicast_loop"))?;
    }
    let set = match (options.multicast_interface, v6) {
        (Interface::Any, _) => Ok(()),
        (Interface::Addr(addr), false) => socket.set_multicast_if_v4(&addr),
        (Interface::Index(index), true) => socket.set_multicast_if_v6(index),
        _ => Err(unsupported()),
    };
    set.map_err(rejected("multicast_interface"))
}

/// The sizes of both buffers, which every kind of socket has.
pub(super) fn set_buffers(socket: &Socket, options: &DatagramOptions) -> io::Result<()> {
    if let Some(size) = options.send_buffer {
        socket.set_send_buffer_size(size).map_err(rejected("send_buffer"))?;
    }
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size).map_err(rejected("receive_buffer"))?;
    }
    Ok(())
}

#[cfg(not(feature = "udp-offload"))]
fn refuse_offload(options: &DatagramOptions, _nonblocking: bool) -> io::Result<()> {
    if !options.offload {
        return Ok(());
    }
    let sentence = "lariat was built without its feature udp-offload";
    Err(rejected("offload")(io::Error::new(io::ErrorKind::Unsupported, sentence)))
}

fn unsupported() -> io::Error {
    let sentence = "an interface cannot be named like this for the address family";
    io::Error::new(io::ErrorKind::Unsupported, sentence)
}

impl DatagramSocket for Udp {
    fn local_addr(&self) -> io::Result<Endpoint> {
        self.socket.local_addr().map(Endpoint::from)
    }

    fn send(&self, bytes: &[u8], to: Option<&Endpoint>) -> io::Result<()> {
        let sent = match to {
            Some(to) => {
                check_family(false, to)?;
                let to = self.of_family(to.need_ip()?);
                retry(|| self.socket.send_to(bytes, to))
            }
            None => retry(|| self.socket.send(bytes)),
        };
        sent.map(|_| ())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        #[cfg(feature = "udp-offload")]
        if let Some(offload) = &self.offload {
            return offload.receive(&self.socket, buffer);
        }
        if self.sleeps {
            return self.receive_asleep(buffer);
        }
        let (len, from) = retry(|| self.socket.recv_from(buffer))?;
        Ok(Received { len, from: from.into(), to: self.own, ecn: None, calls: 1 })
    }

    #[cfg(feature = "udp-offload")]
    fn segments_max(&self) -> usize {
        self.offload.as_ref().map_or(1, |offload| offload.segments_max())
    }

    #[cfg(feature = "udp-offload")]
    fn send_many(&self, bytes: &[u8], size: usize, to: Option<&Endpoint>) -> io::Result<()> {
        let Some(offload) = &self.offload else { return Err(io::ErrorKind::Unsupported.into()) };
        let to = match to {
            Some(to) => self.of_family(to.need_ip()?),
            None => self.socket.peer_addr()?,
        };
        offload.send_many(&self.socket, bytes, size, to)
    }

    #[cfg(feature = "udp-offload")]
    fn has_more(&self) -> bool {
        self.offload.as_ref().is_some_and(|offload| offload.has_more())
    }

    fn set_member(&self, group: IpAddr, interface: Interface, member: bool) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        match (group, interface) {
            (IpAddr::V4(group), Interface::Any | Interface::Addr(_)) => {
                let on = match interface {
                    Interface::Addr(addr) => addr,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                match member {
                    true => socket.join_multicast_v4(&group, &on),
                    false => socket.leave_multicast_v4(&group, &on),
                }
            }
            (IpAddr::V4(group), Interface::Index(index)) => {
                let on = InterfaceIndexOrAddress::Index(index);
                match member {
                    true => socket.join_multicast_v4_n(&group, &on),
                    false => socket.leave_multicast_v4_n(&group, &on),
                }
            }
            (IpAddr::V6(_), Interface::Addr(_)) => Err(unsupported()),
            (IpAddr::V6(group), _) => {
                let on = if let Interface::Index(index) = interface { index } else { 0 };
                match member {
                    true => socket.join_multicast_v6(&group, on),
                    false => socket.leave_multicast_v6(&group, on),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::endpoint::UnixName;

    /// Linux doubles the size of a buffer that it is given, for its own bookkeeping.
    const FACTOR: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

    fn open(v6: bool, change: impl FnOnce(&mut DatagramOptions)) -> io::Result<Udp> {
        let mut options = DatagramOptions::default();
        change(&mut options);
        let ip: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        Udp::open((ip, 0).into(), &options, true)
    }

    #[test]
    fn a_peer_that_is_no_ip_address_is_an_error() {
        let named = UnixName::from_pathname("/peer").unwrap();
        for peer in [Endpoint::from(named), Endpoint::Other] {
            let error = open(false, |o| o.connect = Some(peer)).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), "it is no IP address");
        }
    }

    /// A Unix socket has none of these.
    #[test]
    fn an_option_that_the_system_rejects_is_named() {
        let (socket, _other) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        type Change = fn(&mut DatagramOptions);
        let options: [(&str, Change); 4] = [
            ("ttl", |o| o.ttl = Some(1)),
            ("tos", |o| o.tos = Some(1)),
            ("multicast_ttl", |o| o.multicast_ttl = Some(1)),
            ("multicast_loop", |o| o.multicast_loop = false),
        ];
        for v6 in [false, true] {
            let rejects = |change: &dyn Fn(&mut DatagramOptions)| {
                let mut options = DatagramOptions::default();
                change(&mut options);
                set_options(&socket, v6, &options).err().map(|error| error.to_string())
            };
            assert_eq!(rejects(&|_| {}), None);
            let interface = |o: &mut DatagramOptions| {
                let addr = Interface::Addr(Ipv4Addr::LOCALHOST);
                o.multicast_interface = if v6 { Interface::Index(1) } else { addr };
            };
            let options = options.iter().map(|(name, change)| (*name, change as &dyn Fn(&mut _)));
            for (name, change) in options.chain([("multicast_interface", &interface as _)]) {
                let sentence = rejects(change).unwrap();
                let start = format!("the system rejects the option {name}: ");
                assert!(sentence.starts_with(&start), "{sentence}");
            }
        }
    }

    #[test]
    fn every_option_is_read_back() {
        for v6 in [false, true] {
            let with = |change: fn(&mut DatagramOptions)| open(v6, change).unwrap().socket;
            let plain = with(|_| {});
            let shown = SockRef::from(&plain);
            assert!(shown.nonblocking().unwrap());
            assert!(!shown.broadcast().unwrap() && !shown.reuse_address().unwrap());
            assert!(!shown.reuse_port().unwrap());
            let set = with(|o| (o.broadcast, o.reuse_address, o.reuse_port) = (true, true, true));
            let shown = SockRef::from(&set);
            assert!(shown.broadcast().unwrap() && shown.reuse_address().unwrap());
            assert!(shown.reuse_port().unwrap());
            let set = with(|o| (o.send_buffer, o.receive_buffer) = (Some(20_000), Some(30_000)));
            let shown = SockRef::from(&set);
            assert_eq!(shown.send_buffer_size().unwrap(), 20_000 * FACTOR);
            assert_eq!(shown.recv_buffer_size().unwrap(), 30_000 * FACTOR);
            for (ttl, group_ttl) in [(1, 255), (255, 0)] {
                let set = |o: &mut DatagramOptions| {
                    (o.ttl, o.multicast_ttl) = (Some(ttl), Some(group_ttl));
                };
                let socket = open(v6, set).unwrap().socket;
                let shown = SockRef::from(&socket);
                let (unicast, multicast) = if v6 {
                    (shown.unicast_hops_v6().unwrap(), shown.multicast_hops_v6().unwrap())
                } else {
                    (shown.ttl_v4().unwrap(), shown.multicast_ttl_v4().unwrap())
                };
                assert_eq!((unicast, multicast), (u32::from(ttl), u32::from(group_ttl)));
            }
            let loops = |socket: &UdpSocket| {
                let shown = SockRef::from(socket);
                let looped = if v6 { shown.multicast_loop_v6() } else { shown.multicast_loop_v4() };
                looped.unwrap()
            };
            assert!(loops(&plain) && !loops(&with(|o| o.multicast_loop = false)));
        }
        let lo = open(false, |o| o.multicast_interface = Interface::Addr(Ipv4Addr::LOCALHOST));
        let lo = lo.unwrap().socket;
        assert_eq!(SockRef::from(&lo).multicast_if_v4().unwrap(), Ipv4Addr::LOCALHOST);
        let lo = open(true, |o| o.multicast_interface = Interface::Index(1)).unwrap().socket;
        assert_eq!(SockRef::from(&lo).multicast_if_v6().unwrap(), 1);
        for only in [true, false] {
            // Linux says so of every socket that is bound to one address.
            let options = DatagramOptions { v6_only: only, ..DatagramOptions::default() };
            let any = (Ipv6Addr::UNSPECIFIED, 0).into();
            let socket = Udp::open(any, &options, true).unwrap().socket;
            assert_eq!(SockRef::from(&socket).only_v6().unwrap(), only);
        }
    }

    #[test]
    fn an_option_that_the_system_does_not_take_is_named() {
        for (v6, interface) in [
            (false, Interface::Index(1)),
            (true, Interface::Addr(Ipv4Addr::LOCALHOST)),
            (false, Interface::Addr(Ipv4Addr::new(203, 0, 113, 1))),
        ] {
            let error = open(v6, |o| o.multicast_interface = interface).unwrap_err();
            let sentence = "the system rejects the option multicast_interface: ";
            assert!(error.to_string().starts_with(sentence), "{error}");
        }
    }

    #[test]
    fn a_peer_of_the_other_family_is_named_in_the_error() {
        let peer = SocketAddr::from((Ipv6Addr::LOCALHOST, 7));
        let error = open(false, |o| o.connect = Some(peer.into())).unwrap_err();
        assert!(error.to_string().starts_with("cannot connect to [::1]:7: "), "{error}");
    }

    fn adopted(socket: impl Into<OwnedFd>, addr: Endpoint) -> Datagrams {
        Datagrams::adopt(socket.into(), addr, None, &DatagramOptions::default(), false).unwrap()
    }

    #[test]
    fn a_thread_that_is_woken_receives_no_datagram_and_does_not_panic() {
        let of_v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let addrs = [([127, 0, 0, 1], 0).into(), of_v6.into(), UnixName::unnamed().into()];
        let open = |addr| Datagrams::open(addr, &DatagramOptions::default(), false).unwrap();
        let mut sockets = Vec::from(addrs.map(open));
        let udp = UdpSocket::bind(of_v6).unwrap();
        udp.send_to(b"for another", udp.local_addr().unwrap()).unwrap();
        let kept = udp.try_clone().unwrap();
        sockets.push(adopted(udp, of_v6.into()));
        sockets.push(adopted(UnixDatagram::unbound().unwrap(), UnixName::unnamed().into()));
        for socket in sockets {
            socket.wake();
            for rest in [0_u8, 2, 10] {
                // What the stack holds from before must not matter.
                let before = std::hint::black_box([rest; 4096]);
                assert!(socket.receive(&mut [0; 10]).is_err(), "{}", before[0]);
            }
        }
        assert_eq!(kept.recv(&mut [0; 20]).unwrap(), 11, "it is left to others");
    }

    #[test]
    fn an_adopted_socket_without_room_is_tried_again_as_no_event_tells_of_any() {
        let (one, _other) = UnixDatagram::pair().unwrap();
        let socket = adopted(one, UnixName::unnamed().into());
        let mut sends = (0..100_000).map(|_| socket.send(b"x", None));
        let error = sends.find_map(Result::err).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn a_blocking_driver_gets_a_socket_that_sleeps() {
        let addr = (Ipv4Addr::LOCALHOST, 0).into();
        let socket = Udp::open(addr, &DatagramOptions::default(), false).unwrap().socket;
        assert!(!SockRef::from(&socket).nonblocking().unwrap());
    }
}
