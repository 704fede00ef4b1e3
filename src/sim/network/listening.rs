//! Listening sockets, which accept from an address or, as the system's do, from all addresses.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Network;
use crate::endpoint::{Endpoint, UnixName};
use crate::sim::choices::Kind;
use crate::sim::faults::Call;

/// A listening socket.
pub(in crate::sim) struct Listening {
    number: Option<u32>,
    backlog_max: usize,
    backlog: VecDeque<usize>,
    /// Accepts IPv4 as well: it listens on `[::]`, and `v6_only` is off.
    dual: bool,
    /// Held by the test: the driver does not hear of new connections.
    raw: bool,
}

impl Listening {
    pub(super) fn is_full(&self) -> bool {
        self.backlog.len() >= self.backlog_max
    }

    /// Queues a new connection; returns the socket's number if its driver is to hear of it.
    pub(super) fn take_in(&mut self, end: usize) -> Option<u32> {
        self.backlog.push_back(end);
        self.number.filter(|_| !self.raw)
    }

    /// Whether a connection to some address could be for this socket at `addr` and for `other`.
    fn overlaps(&self, addr: Endpoint, other: &Listening, other_addr: Endpoint) -> bool {
        let (Some(ip), Some(other_ip)) = (addr.ip(), other_addr.ip()) else {
            return addr == other_addr;
        };
        let families = ip.is_ipv4() == other_ip.is_ipv4() || self.dual || other.dual;
        let any = ip.is_unspecified() || other_ip.is_unspecified();
        addr.port() == other_addr.port() && families && (any || ip == other_ip)
    }
}

/// The unspecified address stands for this host (`ip(7)`).
pub(super) fn this_host(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    }
}

/// Where a connect to `addr` goes.
pub(super) fn destination(addr: Endpoint) -> Endpoint {
    addr.socket_addr().map_or(addr, |addr| this_host(addr).into())
}

/// Where a connect to `remote` comes from, if its local address is not chosen. The port is not
/// known yet.
pub(super) fn source(remote: Endpoint) -> Endpoint {
    match remote.ip() {
        Some(IpAddr::V4(_)) => (Ipv4Addr::LOCALHOST, 0).into(),
        Some(ip) => (ip, 0).into(),
        None => Endpoint::Unix(UnixName::unnamed()),
    }
}

/// The error of a connect to an address at which nobody listens. The file of a Unix socket is gone
/// with its listener.
pub(super) fn nobody(remote: Endpoint) -> i32 {
    let path = remote.unix().is_some_and(|name| name.as_pathname().is_some());
    if path { libc::ENOENT } else { libc::ECONNREFUSED }
}

impl Network {
    /// The socket that a connection to `addr` is for.
    pub(super) fn find_listener(&mut self, addr: Endpoint) -> Option<&mut Listening> {
        let key = match (addr.ip(), addr.port()) {
            (Some(ip), Some(port)) if !self.listeners.contains_key(&addr) => {
                let v4 = Endpoint::from((Ipv4Addr::UNSPECIFIED, port));
                let v6 = Endpoint::from((Ipv6Addr::UNSPECIFIED, port));
                if ip.is_ipv4() && self.listeners.contains_key(&v4) {
                    v4
                } else {
                    let dual = self.listeners.get(&v6)?.dual;
                    (ip.is_ipv6() || dual).then_some(v6)?
                }
            }
            _ => addr,
        };
        self.listeners.get_mut(&key)
    }

    pub(in crate::sim) fn listen(
        &mut self,
        mut addr: Endpoint,
        backlog: usize,
        v6_only: bool,
        raw: bool,
    ) -> io::Result<Endpoint> {
        if addr.port() == Some(0) {
            addr = self.with_port(addr);
        }
        let any = addr.ip().is_some_and(|ip| ip.is_ipv6() && ip.is_unspecified());
        let dual = any && !v6_only;
        let listening = Listening {
            number: None,
            backlog_max: backlog.max(1),
            backlog: VecDeque::new(),
            dual,
            raw,
        };
        if self.listeners.iter().any(|(other, l)| listening.overlaps(addr, l, *other)) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        self.listeners.insert(addr, listening);
        Ok(addr)
    }

    pub(in crate::sim) fn register_listener(&mut self, addr: Endpoint, number: u32) {
        if let Some(listener) = self.listeners.get_mut(&addr) {
            listener.number = Some(number);
        }
    }

    pub(in crate::sim) fn close_listener(&mut self, addr: Endpoint) {
        let Some(listener) = self.listeners.remove(&addr) else { return };
        for end in listener.backlog {
            self.endpoints[end].reset_on_close = true;
            self.close(end);
        }
    }

    /// The accept of a driver, with its faults, and with this many descriptors in reserve.
    pub(in crate::sim) fn accept(&mut self, addr: Endpoint, reserve: usize) -> io::Result<usize> {
        self.fault(Call::Accept, None)?;
        // As on Linux: the descriptor is looked for before the connection.
        if self.descriptors >= self.descriptors_max.saturating_add(reserve) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let waiting = self.listeners.get(&addr).is_some_and(|l| !l.backlog.is_empty());
        if !waiting {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lacking = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let fleeting = [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EPERM];
        if let Some(way) = self.roll(None, Kind::AcceptErrors, 8) {
            let way = way as usize;
            if way < 4 {
                return Err(io::Error::from_raw_os_error(lacking[way]));
            }
            if let Some(end) = self.take_newcomer(addr) {
                // The connection itself has failed: it is gone from the queue.
                self.endpoints[end].reset_on_close = true;
                self.close(end);
            }
            return Err(io::Error::from_raw_os_error(fleeting[way - 4]));
        }
        self.take_newcomer(addr).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Whether a descriptor is left for the reserve.
    pub(in crate::sim) fn has_descriptor(&self) -> bool {
        self.descriptors <= self.descriptors_max
    }

    pub(in crate::sim) fn take_newcomer(&mut self, addr: Endpoint) -> Option<usize> {
        let end = self.listeners.get_mut(&addr)?.backlog.pop_front()?;
        self.count(end);
        Some(end)
    }
}
