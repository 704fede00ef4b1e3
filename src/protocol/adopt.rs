//! Sockets of the standard library, and what is none, that a driver takes over.

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::listen::{Binder, Bound, BoxedFactory};
use super::{Boxed, Effect, Shared};
#[cfg(feature = "fd")]
use super::{Control, Protocol};
#[cfg(feature = "fd")]
use crate::descriptors::Descriptors;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result, is_rejected};
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::options::{ConnectOptions, ListenOptions};
use crate::refused::Refused;

/// A connected stream that a driver is to take over.
pub(crate) struct Adopted<P> {
    pub(crate) id: ConnId,
    pub(crate) peer: Endpoint,
    pub(crate) limits: Arc<Limits>,
    /// Only the driver that prepared it knows its type.
    pub(crate) socket: Box<dyn Any + Send>,
    pub(crate) protocol: P,
}

impl<P> Adopted<P> {
    /// The same stream for the protocol in another form.
    pub(crate) fn map<Q>(self, change: impl FnOnce(P) -> Q) -> Adopted<Q> {
        let Adopted { id, peer, limits, socket, protocol } = self;
        Adopted { id, peer, limits, socket, protocol: change(protocol) }
    }
}

impl Binder {
    /// Prepares a stream for the driver and returns its peer.
    pub(crate) fn adopt_stream(
        &self,
        socket: &OwnedFd,
        options: &ConnectOptions,
    ) -> Result<Endpoint> {
        options.validate()?;
        let adopted = self.sockets.adopt_stream(socket, &options.socket());
        adopted.map_err(not_adopted)
    }

    /// Prepares a listening socket for the driver.
    pub(crate) fn adopt_listener(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> Result<(ListenerId, Vec<Bound>), Refused<OwnedFd>> {
        if let Err(error) = options.validate() {
            return Err(Refused { error, payload: socket });
        }
        match self.sockets.adopt_listener(socket, options) {
            Ok(bound) => {
                let mut bound = vec![bound];
                Ok((self.enter(&mut bound), bound))
            }
            Err((error, payload)) => Err(Refused { error: not_adopted(error), payload }),
        }
    }
}

pub(crate) fn not_adopted(error: io::Error) -> Error {
    let kind = match error.kind() {
        _ if is_rejected(&error) => return Error::from_io(Op::Adopt, error),
        io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput => ErrorKind::InvalidSocket,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => return Error::from_io(Op::Adopt, error),
    };
    let sentence = error.to_string();
    Error::from_io(Op::Adopt, error).with_kind(kind).with_detail(sentence)
}

/// The error for a socket that a stopping driver is asked to adopt.
pub(crate) fn adopts_no_more() -> Error {
    Error::new(ErrorKind::Stopped, Op::Adopt)
}

#[cfg(feature = "fd")]
impl Control<'_> {
    /// Takes over descriptors that are no socket: pipes, a terminal, the standard input and output
    /// of a child. See [`Descriptors`] for an example, and for what is different from a socket.
    /// `opened` runs after the callback has returned; bytes that are there already are read.
    /// [`Limits::linger_idle`] and [`Limits::linger_total`] have no meaning.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for a regular file, a directory, a device that is always ready,
    /// and in the simulator, which has [`Sim::pipe`](crate::sim::Sim::pipe);
    /// [`ErrorKind::InvalidLimits`]; [`ErrorKind::Exhausted`] when no descriptor is left;
    /// [`ErrorKind::Stopped`] once the driver is being shut down. [`Refused::into_payload`] gives
    /// the descriptors back as they were.
    pub fn adopt_descriptors(
        &mut self,
        descriptors: Descriptors,
        limits: Limits,
        protocol: impl Protocol + Send + 'static,
    ) -> Result<ConnId, Refused<Descriptors>> {
        let protocol = Boxed::Anywhere(Box::new(protocol));
        self.shared_mut().adopt_descriptors(descriptors, limits, protocol)
    }

    /// Takes descriptors over like [`adopt_descriptors`](Control::adopt_descriptors); `protocol`
    /// need not be `Send`. On the blocking driver it ends as in
    /// [`connect_local`](Control::connect_local).
    ///
    /// # Errors
    ///
    /// As [`adopt_descriptors`](Control::adopt_descriptors).
    pub fn adopt_descriptors_local(
        &mut self,
        descriptors: Descriptors,
        limits: Limits,
        protocol: impl Protocol + 'static,
    ) -> Result<ConnId, Refused<Descriptors>> {
        let protocol = Boxed::Here(Box::new(protocol));
        self.shared_mut().adopt_descriptors(descriptors, limits, protocol)
    }
}

#[cfg(feature = "fd")]
impl Shared {
    fn adopt_descriptors(
        &mut self,
        descriptors: Descriptors,
        limits: Limits,
        protocol: Boxed,
    ) -> Result<ConnId, Refused<Descriptors>> {
        let ready = match self.stopping {
            true => Err(adopts_no_more()),
            false => limits.validate(),
        };
        if let Err(error) = ready {
            return Err(Refused { error, payload: descriptors });
        }
        let socket = match self.binder.sockets.adopt_descriptors(descriptors) {
            Ok(socket) => socket,
            Err((error, payload)) => return Err(Refused { error: not_adopted(error), payload }),
        };
        Ok(self.take_prepared(socket, limits, protocol))
    }

    /// Hands a stream over that a driver has made, and that is no socket.
    pub(crate) fn adopt_prepared(
        &mut self,
        socket: Box<dyn Any + Send>,
        limits: Limits,
        protocol: Boxed,
    ) -> Result<ConnId> {
        if self.stopping {
            return Err(adopts_no_more());
        }
        Ok(self.take_prepared(socket, limits, protocol))
    }

    fn take_prepared(
        &mut self,
        socket: Box<dyn Any + Send>,
        limits: Limits,
        protocol: Boxed,
    ) -> ConnId {
        self.outputs.note(&limits);
        let (id, limits, peer) = (self.ids.reserve(), Arc::new(limits), Endpoint::Other);
        let adopted = Adopted { id, peer, limits, socket, protocol };
        self.effects.list.push(Effect::Adopt(Box::new(adopted)));
        id
    }
}

impl Shared {
    /// Hands a stream over; the driver takes it when the callback has returned.
    pub(crate) fn adopt_stream(
        &mut self,
        socket: OwnedFd,
        options: ConnectOptions,
        protocol: Boxed,
    ) -> Result<ConnId, Refused<OwnedFd>> {
        let adopted = match self.stopping {
            true => Err(adopts_no_more()),
            false => self.binder.adopt_stream(&socket, &options),
        };
        let peer = match adopted {
            Ok(peer) => peer,
            Err(error) => return Err(Refused { error, payload: socket }),
        };
        // What is written to it before it exists is bounded by these.
        self.outputs.note(&options.limits);
        let (id, limits) = (self.ids.reserve(), Arc::new(options.limits));
        let adopted = Adopted { id, peer, limits, socket: Box::new(socket), protocol };
        self.effects.list.push(Effect::Adopt(Box::new(adopted)));
        Ok(id)
    }

    /// Hands a listening socket over; the driver takes it when the callback has returned.
    pub(crate) fn adopt_listener(
        &mut self,
        socket: OwnedFd,
        options: ListenOptions,
        factory: BoxedFactory,
    ) -> Result<ListenerId, Refused<OwnedFd>> {
        if self.stopping {
            return Err(Refused { error: adopts_no_more(), payload: socket });
        }
        let (id, sockets) = self.binder.adopt_listener(socket, &options)?;
        let limits = Arc::new(options.limits);
        self.effects.list.push(Effect::Listen { id, sockets, limits, factory });
        Ok(id)
    }
}
