//! The contract between a driver and the code of its user.
//!
//! A [`Protocol`] is one value per connection. Its callbacks get a [`Context`], through which they
//! wish for things: bytes to be written, the connection to be closed, a timer to be set. No
//! callback runs inside another; wishes take effect when the callback has returned.

mod adopt;
mod blame;
mod closures;
mod context;
mod control;
mod effects;
mod forward;
mod input;
mod listen;
mod output;
mod peer;
mod replacement;
mod shared;
mod writer;

use crate::endpoint::Endpoint;
use crate::filter::Filter;
use crate::id::ListenerId;
use crate::note::Note;
use crate::reason::CloseReason;
use crate::timer::Timer;

pub(crate) use crate::grammar::Callback;
pub(crate) use adopt::{Adopted, adopts_no_more};
pub use closures::TimerId;
pub(crate) use closures::{Closure, Closures, SendClosure};
pub use context::Context;
pub(crate) use context::{NoSocket, SocketInfo};
pub use control::Control;
pub(crate) use effects::{Boxed, Content, Effect, Effects, Outgoing, Successor};
pub use forward::Callbacks;
pub use input::Input;
pub(crate) use listen::BoxedFactory;
pub(crate) use listen::{Binder, Bound, Close, Listeners, Sockets, stopped};
pub(crate) use output::{Output, Part};
pub(crate) use peer::Backlogs;
pub use peer::Peer;
pub use replacement::Replacement;
pub(crate) use shared::{Common, Shared, TimerOwner, Watched};
pub use writer::Writer;

/// What a callback returns. `?` works on any error, also on a `&str` or a `String`.
///
/// An `Err` closes the connection in order (flush, FIN, linger), so that the peer still reads what
/// was written before; the reason is [`CloseKind::Protocol`](crate::CloseKind::Protocol).
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a connection does: one value per connection, the same on every driver.
///
/// The order of callbacks: [`opened`](Protocol::opened) first and once; then
/// [`data`](Protocol::data) any number of times and [`eof`](Protocol::eof) at most once, no `data`
/// after it; [`drained`](Protocol::drained) once for every time the output became congested;
/// [`closed`](Protocol::closed) last and exactly once, also after a panic. A connect that fails
/// gives `closed` alone.
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
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// Unread bytes exist: all of them are shown.
    ///
    /// What is not consumed stays unread. It is shown again when more arrives; in the next turn if
    /// this call consumed something and did not ask for more with [`Input::need`]; and after
    /// [`drained`](Protocol::drained) if it was left while the output was congested.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome;

    /// The peer has finished sending; `rest` is what was never consumed, and is lost afterwards.
    /// The default closes. Runs at most once, and no `data` after it. Input that was left while the
    /// output was congested is shown to `data` first.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn eof(&mut self, cx: &mut Context<'_>, rest: &mut Input<'_>) -> Outcome {
        let _ = rest;
        cx.close();
        Ok(())
    }

    /// Output that was congested has drained to the low mark: more may be written.
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
    /// # Errors
    ///
    /// Closes the connection.
    fn timeout(&mut self, cx: &mut Context<'_>, timer: Timer) -> Outcome {
        let _ = timer;
        cx.close();
        Ok(())
    }

    /// A note has come from another connection or thread.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
        let _ = (cx, note);
        Ok(())
    }

    /// The connection has ended. Runs last and exactly once; what it writes to its own connection
    /// is dropped.
    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        let _ = (cx, reason);
    }

    /// The driver is being shut down. Runs once per open connection; the default closes. A
    /// connection that stays open is aborted when
    /// [`DriverLimits::drain`](crate::DriverLimits::drain) is over.
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

    /// The filter that this protocol wants under its connection: asked for once, before `opened`.
    /// None (the default) keeps what the connection has.
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

/// A newcomer, shown to the factory that may refuse it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Incoming {
    pub(crate) peer: Endpoint,
    pub(crate) listener: ListenerId,
}

impl Incoming {
    /// The newcomer's address.
    pub fn peer(&self) -> Endpoint {
        self.peer
    }

    /// The listener it came to.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }
}
