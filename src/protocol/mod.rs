//! The contract between a driver and the code of its user.
//!
//! A [`Protocol`] is one value per connection. Its callbacks get a [`Context`], through which they
//! ask for things: bytes to be written, the connection to be closed, a timer to be set. No callback
//! runs inside another; requests take effect when the callback has returned.

mod adopt;
mod blame;
mod closures;
mod context;
mod control;
mod effects;
mod forward;
mod input;
mod internal;
mod listen;
mod lookup;
mod offload;
mod output;
mod peer;
mod replacement;
mod report;
mod shared;
mod socket_info;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(feature = "peer-credentials")]
use crate::credentials::PeerCredentials;
use crate::endpoint::Endpoint;
use crate::filter::Filter;
use crate::id::ListenerId;
use crate::note::Note;
use crate::reason::CloseReason;
use crate::timer::Timer;

pub(crate) use crate::grammar::Callback;
pub(crate) use adopt::{Adopted, adopts_no_more, not_adopted};
pub use closures::TimerId;
pub(crate) use closures::{Closure, Closures, SendClosure};
pub use context::Context;
pub use control::Control;
pub(crate) use effects::{Boxed, Content, Effect, Effects, Outgoing, RaceEvent, Successor};
pub use forward::Callbacks;
pub use input::Input;
#[cfg(feature = "fd")]
pub(crate) use listen::AdoptedDescriptors;
pub(crate) use listen::BoxedFactory;
pub(crate) use listen::{AdoptedListener, Binder, Bound, Close, Listeners, Sockets, stopped};
pub(crate) use offload::{Home, Workplace};
pub(crate) use output::{Output, Part};
pub(crate) use peer::Backlogs;
pub use peer::Peer;
pub use replacement::Replacement;
pub(crate) use report::{drop_protocol, guarded_name, report_error, report_panic};
pub(crate) use shared::{Common, Shared, TimerOwner, Watched};
pub(crate) use socket_info::{NoSocket, SocketInfo};
#[cfg(test)]
pub(crate) use tests::{Alike, made_up};
pub use writer::Writer;

/// What a callback returns. `?` converts every error that is `Send + Sync + 'static`, and strings:
///
/// ```
/// use lariat::{Context, Outcome};
///
/// fn answer(cx: &mut Context<'_>, line: &[u8]) -> Outcome {
///     let number: u32 = std::str::from_utf8(line)?.parse()?;
///     let double = number.checked_mul(2).ok_or("the number is too large")?;
///     writeln!(cx, "{double}")?;
///     Ok(())
/// }
/// ```
///
/// An `Err` closes the connection in order (flush, FIN, linger): the peer still reads what was
/// written before. The reason is [`CloseKind::Protocol`](crate::CloseKind::Protocol).
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a connection does: one value per connection, the same on every driver.
///
/// The order of callbacks: [`opened`](Protocol::opened) first and once; then
/// [`data`](Protocol::data) any number of times; [`eof`](Protocol::eof) at most once, and no `data`
/// after it; [`drained`](Protocol::drained) once each time the output became congested;
/// [`closed`](Protocol::closed) last and exactly once, also after a panic. A connect that fails
/// runs `closed` alone.
///
/// ```
/// use lariat::{Context, Input, Outcome, Protocol};
///
/// /// Answers every byte with the same byte.
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         cx.write(input);
///         input.consume(input.len());
///         Ok(())
///     }
/// }
/// ```
pub trait Protocol {
    /// The connection can be used. Runs first, once; with a [`Filter`], when the filter is open.
    /// The default does nothing.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// Shows all unread bytes.
    ///
    /// Bytes that are not consumed stay unread. They are shown again when more arrive; in the next
    /// turn if this call consumed something and did not ask for more with [`Input::need`]; and
    /// after [`drained`](Protocol::drained) if they were left while the output was congested.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome;

    /// The peer has finished sending. `rest` is what was never consumed; it is lost afterwards.
    /// Runs at most once, and no `data` runs after it. Input that was left while the output was
    /// congested is shown to `data` first. The default closes.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        let _ = rest;
        cx.close();
        Ok(())
    }

    /// Congested output has drained to the low mark: more may be written. The default does nothing.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// A timer fired, never early. The default closes.
    ///
    /// Input that had come by then is shown first, also where the process was stopped or busy until
    /// now: a timer that `data` cancels or sets again does not fire although its bytes were there.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        let _ = timer;
        cx.close();
        Ok(())
    }

    /// A note has come from another connection or thread. The default ignores it.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let _ = (cx, note);
        Ok(())
    }

    /// The connection has ended. Runs last and exactly once. What it writes to its own connection
    /// is dropped. The default does nothing.
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let _ = (cx, reason);
    }

    /// The driver is being shut down. Runs once per open connection. A connection that stays open
    /// is aborted when [`DriverLimits::drain`](crate::DriverLimits::drain) is over. The default
    /// closes.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn stopping(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.close();
        Ok(())
    }

    /// The name for logs and warnings; by default the name of the type.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// The filter that this protocol wants under its connection. Asked for once, before `opened`.
    /// None (the default) keeps the filter that the connection has.
    fn filter(&mut self) -> Option<Box<dyn Filter>> {
        None
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    crate::forward_protocol! {
        self => (**self);
        pass: opened data eof drained timeout notified closed stopping name filter;
        own:;
    }
}

/// A new connection, shown to the factory, which may refuse it.
///
/// ```
/// use lariat::{Incoming, reactor::Reactor};
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
/// # }
/// /// Serves clients that reach the server by its loopback address only.
/// fn only_local(incoming: &Incoming) -> Option<Echo> {
///     incoming.local_addr()?.ip()?.is_loopback().then_some(Echo)
/// }
///
/// Reactor::new()?.listen("0.0.0.0:0", only_local)?;
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Incoming {
    peer: Endpoint,
    local: Option<Endpoint>,
    listener: ListenerId,
    via: Option<Endpoint>,
    #[cfg(feature = "peer-credentials")]
    credentials: Option<PeerCredentials>,
}

impl Incoming {
    /// `bound` is the address of the listening socket. The system is asked for the local address
    /// only if a client may have connected to any of several.
    pub(crate) fn new(
        peer: Endpoint,
        listener: ListenerId,
        bound: Endpoint,
        socket: &dyn SocketInfo,
    ) -> Incoming {
        let any = bound.ip().is_some_and(|ip| ip.is_unspecified());
        let local = if any { socket.local_addr().ok() } else { Some(bound) };
        Incoming {
            peer,
            local,
            listener,
            via: None,
            #[cfg(feature = "peer-credentials")]
            credentials: peer.unix().and_then(|_| socket.peer_credentials()),
        }
    }

    /// The same connection, of a client that its peer has announced.
    pub(crate) fn announced(&self, client: Endpoint, destination: Endpoint) -> Incoming {
        Incoming { peer: client, local: Some(destination), via: Some(self.peer), ..*self }
    }

    /// The address of the client; behind a balancer that announces it
    /// ([`proxy_protocol`](crate::proxy_protocol)), the one that was announced.
    pub fn peer(&self) -> Endpoint {
        self.peer
    }

    /// The local address that the client connected to. For a listener on all addresses, such as
    /// `0.0.0.0:80`, it is the one of this connection (`getsockname(2)`), and None if the client
    /// has gone already and the system does not tell it any more.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.local
    }

    /// The balancer that has announced the client and passes its bytes on; None for a client that
    /// has connected itself. [`local_addr`](Incoming::local_addr) is then the announced address to
    /// which the client connected.
    pub fn via(&self) -> Option<Endpoint> {
        self.via
    }

    /// The process that has connected to a Unix socket; see
    /// [`Context::peer_credentials`](crate::Context::peer_credentials). Behind a balancer, it is
    /// the balancer.
    #[cfg(feature = "peer-credentials")]
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.credentials
    }

    /// The listener that accepted the connection.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }
}
