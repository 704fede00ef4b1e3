//! Listening sockets. They are opened and closed at once, also by callbacks; connections are
//! accepted once the driver has taken the socket over.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Incoming, Protocol};
use crate::address::Address;
use crate::datagram::{DatagramOptions, Opened};
#[cfg(feature = "fd")]
use crate::descriptors::Descriptors;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::id::{ConnId, ListenerId};
use crate::options::{ListenOptions, SocketOptions};

/// A factory as every driver can take it: called for each incoming connection, None refuses it.
pub(crate) type BoxedFactory =
    Box<dyn Fn(&Incoming) -> Option<Box<dyn Protocol + Send>> + Send + Sync>;

/// Boxes a factory for [`Binder::listen`]'s sockets.
pub(crate) fn boxed<P: Protocol + Send + 'static>(
    factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
) -> BoxedFactory {
    Box::new(move |incoming| Some(Box::new(factory(incoming)?) as Box<dyn Protocol + Send>))
}

/// A listening socket that no driver accepts from yet.
pub(crate) struct Bound {
    pub(crate) addr: Endpoint,
    /// Only the driver that made it knows its type.
    pub(crate) socket: Box<dyn Any>,
    /// None where any thread may stop a listener: then [`Common`](super::Common) closes it.
    pub(crate) close: Option<Close>,
}

/// Closes a socket at once, so that its address is free, no matter which thread has it by then.
pub(crate) type Close = Box<dyn FnOnce()>;

/// Sockets as a driver has them.
pub(crate) trait Sockets {
    /// Opens a listening socket.
    fn listen(&self, addr: Endpoint, options: &ListenOptions) -> io::Result<Bound>;

    /// Prepares a listening socket of the system.
    fn adopt_listener(&self, socket: OwnedFd, _: &ListenOptions) -> AdoptedListener {
        Err((no_sockets(), socket))
    }

    /// Prepares descriptors that are no socket.
    #[cfg(feature = "fd")]
    fn adopt_descriptors(&self, from: Descriptors) -> AdoptedDescriptors {
        Err((no_sockets(), from))
    }

    /// Opens a socket of datagrams.
    fn bind(&self, _: Endpoint, _: &DatagramOptions) -> io::Result<Opened> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this driver has no sockets of datagrams"))
    }

    /// Prepares a socket of datagrams of the system.
    fn adopt_datagrams(&self, _: OwnedFd, _: &DatagramOptions) -> io::Result<Opened> {
        Err(no_sockets())
    }

    /// Prepares a stream of the system and returns its peer.
    fn adopt_stream(&self, _: &OwnedFd, _: &SocketOptions) -> io::Result<Endpoint> {
        Err(no_sockets())
    }
}

/// A socket that a driver is to adopt, or the error with the socket.
pub(crate) type AdoptedListener = Result<Bound, (io::Error, OwnedFd)>;

/// Descriptors that are prepared, or the error with the descriptors.
#[cfg(feature = "fd")]
pub(crate) type AdoptedDescriptors = Result<Box<dyn Any + Send>, (io::Error, Descriptors)>;

fn no_sockets() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this driver has no sockets of the system")
}

/// Opens listening sockets for a driver and its callbacks, and prepares sockets that it adopts.
pub(crate) struct Binder {
    pub(crate) sockets: Box<dyn Sockets>,
    pub(crate) listeners: Listeners,
    closes: Vec<(ListenerId, Close)>,
}

impl Binder {
    pub(crate) fn new(listeners: Listeners, sockets: Box<dyn Sockets>) -> Binder {
        Binder { sockets, listeners, closes: Vec::new() }
    }

    /// Opens a socket for each address that `addr` stands for: for all that exist on this machine,
    /// or for none.
    pub(crate) fn listen(
        &mut self,
        addr: &Address,
        options: &ListenOptions,
    ) -> Result<(ListenerId, Vec<Bound>)> {
        options.validate()?;
        let addrs = addr.resolve(Op::Listen)?;
        let mut sockets = Vec::new();
        let mut failed = None;
        for addr in &addrs {
            match self.sockets.listen(*addr, options) {
                Ok(socket) => sockets.push(socket),
                // One of several addresses of a name may not exist here, for instance when IPv6 is
                // off.
                Err(error) if addrs.len() > 1 && is_absent(&error) => failed = Some((addr, error)),
                Err(error) => {
                    let error = Error::from_io(Op::Listen, error).with_addr(addr);
                    return Err(error.at_path(addr.unix().is_some()));
                }
            }
        }
        if let (true, Some((addr, error))) = (sockets.is_empty(), failed) {
            return Err(Error::from_io(Op::Listen, error).with_addr(addr));
        }
        Ok((self.enter(&mut sockets), sockets))
    }

    /// Gives a listener its id.
    pub(crate) fn enter(&mut self, sockets: &mut [Bound]) -> ListenerId {
        let id = self.listeners.enter(sockets);
        let closes = sockets.iter_mut().filter_map(|socket| socket.close.take());
        self.closes.extend(closes.map(|close| (id, close)));
        id
    }

    /// Closes the sockets of a listener and forgets it.
    pub(crate) fn close(&mut self, id: ListenerId) {
        self.listeners.remove(id);
        let all = mem::take(&mut self.closes).into_iter();
        let (stopped, kept): (Vec<_>, Vec<_>) = all.partition(|(of, _)| *of == id);
        self.closes = kept;
        stopped.into_iter().for_each(|(_, close)| close());
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// The error of a stopping driver that is asked to listen.
pub(crate) fn stopped(addr: &Address) -> Error {
    Error::new(ErrorKind::Stopped, Op::Listen).with_addr(addr)
}

/// The listeners and datagram sockets of a driver, and their addresses.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    next: u32,
    open: Vec<(ListenerId, Vec<Endpoint>)>,
    /// Sockets of datagrams.
    bound: BTreeMap<ConnId, Endpoint>,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a listener its id. Ids are never reused.
    fn enter(&self, sockets: &[Bound]) -> ListenerId {
        let mut known = self.lock();
        let id = ListenerId::new(known.next);
        known.next += 1;
        known.open.push((id, sockets.iter().map(|socket| socket.addr).collect()));
        id
    }

    /// A socket of datagrams is bound to this address.
    pub(crate) fn enter_bound(&self, id: ConnId, addr: Endpoint) {
        self.lock().bound.insert(id, addr);
    }

    /// A socket of datagrams is closed.
    pub(crate) fn remove_bound(&self, id: ConnId) {
        self.lock().bound.remove(&id);
    }

    /// How many sockets of datagrams are open.
    pub(crate) fn bound_count(&self) -> u64 {
        self.lock().bound.len() as u64
    }

    /// The address of a socket of datagrams; None once it is closed.
    pub(crate) fn bound_addr(&self, id: ConnId) -> Option<Endpoint> {
        self.lock().bound.get(&id).copied()
    }

    /// Forgets a listener; false when it had been stopped before.
    pub(crate) fn remove(&self, id: ListenerId) -> bool {
        let mut known = self.lock();
        let before = known.open.len();
        known.open.retain(|(open, _)| *open != id);
        known.open.len() < before
    }

    pub(crate) fn has(&self, id: ListenerId) -> bool {
        self.lock().open.iter().any(|(open, _)| *open == id)
    }

    /// The addresses of a listener; none once it has stopped.
    pub(crate) fn addresses(&self, id: ListenerId) -> Vec<Endpoint> {
        let known = self.lock();
        let found = known.open.iter().find(|(open, _)| *open == id);
        found.map_or_else(Vec::new, |(_, addresses)| addresses.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    /// Refuses some ports with this error.
    struct Refusing(&'static [u16], i32);

    impl Sockets for Refusing {
        fn listen(&self, addr: Endpoint, _: &ListenOptions) -> io::Result<Bound> {
            let Refusing(refused, errno) = self;
            if refused.contains(&addr.port().unwrap()) {
                return Err(io::Error::from_raw_os_error(*errno));
            }
            Ok(Bound { addr, socket: Box::new(()), close: None })
        }
    }

    fn binder(refused: &'static [u16], errno: i32) -> Binder {
        Binder::new(Listeners::default(), Box::new(Refusing(refused, errno)))
    }

    fn several(ports: &[u16]) -> Address {
        ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect::<Vec<SocketAddr>>().into()
    }

    #[test]
    fn addresses_that_do_not_exist_here_are_left_out_unless_none_does() {
        let options = ListenOptions::default();
        let mut some = binder(&[2], libc::EADDRNOTAVAIL);
        let (id, sockets) = some.listen(&several(&[1, 2, 3]), &options).unwrap();
        assert_eq!(sockets.len(), 2);
        assert_eq!(some.listeners.addresses(id).len(), 2);
        assert!(some.listen(&several(&[2]), &options).is_err());
        assert!(binder(&[1, 2], libc::EAFNOSUPPORT).listen(&several(&[1, 2]), &options).is_err());
    }

    #[test]
    fn an_address_in_use_refuses_all_of_them() {
        let options = ListenOptions::default();
        let error = binder(&[2], libc::EADDRINUSE).listen(&several(&[1, 2]), &options);
        let error = error.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert_eq!(error.addr(), Some("127.0.0.1:2"));
    }

    #[test]
    fn an_id_is_never_given_out_twice() {
        let listeners = Listeners::default();
        let first = listeners.enter(&[]);
        assert!(listeners.has(first) && listeners.remove(first) && !listeners.remove(first));
        assert!(listeners.enter(&[]) != first && listeners.addresses(first).is_empty());
    }
}
