//! Binding: the socket is open at once, also for a callback, and a driver's when that has returned.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{DatagramOptions, DatagramProtocol};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::id::ConnId;
use crate::protocol::{Binder, Effect, Shared, adopts_no_more, not_adopted};
use crate::refused::Refused;

/// A socket of datagrams that no driver receives from yet.
pub(crate) struct Opened {
    pub(crate) addr: Endpoint,
    /// The peer of a socket that was connected before.
    pub(crate) peer: Option<Endpoint>,
    /// Only the driver that made it knows its type.
    pub(crate) socket: Box<dyn Any>,
}

/// A protocol on its way to a socket: some may go to another thread, some may not.
pub(crate) enum Boxed {
    Anywhere(Box<dyn DatagramProtocol + Send>),
    Here(Box<dyn DatagramProtocol>),
}

impl Boxed {
    /// The protocol, to be used on this thread.
    pub(crate) fn here(self) -> Box<dyn DatagramProtocol> {
        match self {
            Boxed::Anywhere(protocol) => protocol,
            Boxed::Here(protocol) => protocol,
        }
    }
}

/// A socket that a driver is to take over.
pub(crate) struct Bound {
    pub(crate) id: ConnId,
    pub(crate) socket: Box<dyn Any>,
    pub(crate) options: Arc<DatagramOptions>,
    pub(crate) protocol: Boxed,
}

impl Binder {
    /// Opens one socket, on the first of the addresses that can be bound.
    fn bind(&self, addr: &Address, options: &DatagramOptions) -> Result<Opened> {
        options.validate()?;
        let mut failed = None;
        for addr in addr.resolve(Op::Bind)? {
            match self.sockets.bind(addr, options) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    let error = Error::from_io(Op::Bind, error).with_addr(addr);
                    failed.get_or_insert(error.at_path(addr.unix().is_some()));
                }
            }
        }
        let none = || Error::new(ErrorKind::InvalidAddress, Op::Bind).with_addr(addr);
        Err(failed.unwrap_or_else(none))
    }
}

impl Shared {
    /// Opens a socket, which the driver takes over when the callback has returned.
    pub(crate) fn bind(
        &mut self,
        addr: &Address,
        options: DatagramOptions,
        protocol: Boxed,
    ) -> Result<ConnId> {
        if self.stopping {
            return Err(Error::new(ErrorKind::Stopped, Op::Bind).with_addr(addr));
        }
        self.refuse_lookup(addr, Op::Bind)?;
        let in_place = self.in_place(Op::Bind, |binder| binder.bind(addr, &options));
        let opened = in_place.map_err(|error| match error.kind() {
            ErrorKind::Limit => error.with_addr(addr),
            _ => error,
        })?;
        Ok(self.take_over(opened, options, protocol))
    }

    /// Prepares a socket of the system, which the driver takes over when the callback has returned.
    pub(crate) fn adopt_datagrams(
        &mut self,
        socket: OwnedFd,
        options: DatagramOptions,
        protocol: Boxed,
    ) -> Result<ConnId, Refused<OwnedFd>> {
        // Given back where the driver does not take the socket.
        let kept = match socket.try_clone() {
            Ok(kept) => kept,
            Err(error) => {
                return Err(Refused { error: Error::from_io(Op::Adopt, error), payload: socket });
            }
        };
        let ready = match self.stopping {
            true => Err(adopts_no_more()),
            false => options.validate(),
        };
        let opened = ready.and_then(|()| {
            self.in_place(Op::Adopt, |binder| {
                binder.sockets.adopt_datagrams(socket, &options).map_err(not_adopted)
            })
        });
        match opened {
            Ok(opened) => Ok(self.take_over(opened, options, protocol)),
            Err(error) => Err(Refused { error, payload: kept }),
        }
    }

    fn take_over(
        &mut self,
        opened: Opened,
        mut options: DatagramOptions,
        protocol: Boxed,
    ) -> ConnId {
        let Opened { addr, peer, socket } = opened;
        options.connect = options.connect.or(peer);
        let id = self.ids.reserve();
        self.binder.listeners.enter_bound(id, addr);
        let bound = Bound { id, socket, options: Arc::new(options), protocol };
        self.effects.list.push(Effect::Bind(Box::new(bound)));
        id
    }

    /// Opens a socket where there is a place for it. It has the place until it is closed.
    fn in_place(&self, op: Op, open: impl FnOnce(&Binder) -> Result<Opened>) -> Result<Opened> {
        let taken = || self.metrics.open + self.binder.listeners.bound_count();
        let free = match &self.common {
            Some(common) => common.take_place(),
            None => taken() < self.places,
        };
        if !free {
            return Err(Error::new(ErrorKind::Limit, op));
        }
        let opened = open(&self.binder);
        if let (Err(_), Some(common)) = (&opened, &self.common) {
            common.give_place();
        }
        opened
    }
}
