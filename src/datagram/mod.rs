//! Datagram sockets: one protocol value per socket, which gets each datagram with its sender.
//!
//! This is the same on every driver: [`State`] decides what is due, [`Called`] is the only caller
//! of a [`DatagramProtocol`], and [`DatagramSocket`] is what a driver's own sockets can do. Unlike
//! bytes of a stream, a datagram goes to the system within the call that sends it. The system takes
//! it whole or not at all, so the call can return the error.

mod bind;
mod call;
mod context;
mod control;
mod lack;
mod options;
mod queue;
mod sending;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod train;

use crate::endpoint::Endpoint;
use crate::note::Note;
use crate::protocol::Outcome;
use crate::reason::CloseReason;
use crate::timer::Timer;

pub(crate) use bind::{Bound, Boxed, Opened};
pub(crate) use call::Called;
pub use context::{Datagram, DatagramContext, Ecn};
pub use options::{DatagramOptions, DropPolicy, Interface};
pub(crate) use socket::{DatagramSocket, NoSocket, Received, check_family};
pub(crate) use state::{Due, Phase, Read, Round, State};

/// The protocol of a datagram socket, UDP or Unix: one value per socket, the same on every driver.
///
/// The order of callbacks: [`opened`](DatagramProtocol::opened) first and once, the others as
/// things happen, [`closed`](DatagramProtocol::closed) last and exactly once, also after a panic.
/// For a socket that is closed before it has opened, `closed` is the only callback.
///
/// Over UDP datagrams may be lost, come twice, or overtake one another. Between Unix sockets of one
/// machine they do none of that. Nothing that a peer or the network does ends a socket. Where the
/// system lacks the memory to receive, the socket pauses for 10 ms, then longer and longer, up to a
/// second, and goes on.
///
/// ```
/// use lariat::{Datagram, DatagramContext, DatagramProtocol, Outcome};
///
/// /// Sends every datagram back to where it came from.
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
///         if let Err(error) = cx.send_to(datagram, datagram.from()) {
///             eprintln!("{error}");
///         }
///         Ok(())
///     }
/// }
///
/// let mut reactor = lariat::reactor::Reactor::new()?;
/// let echo = reactor.bind("127.0.0.1:0", Echo)?;
/// println!("bound to {}", reactor.bound_addr(echo).unwrap());
/// # Ok::<(), lariat::Error>(())
/// ```
pub trait DatagramProtocol {
    /// The socket can be used. Runs first, once.
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// A datagram has come. It may be empty.
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome;

    /// A datagram to `to` did not arrive, because nobody is there. The socket stays open.
    ///
    /// For UDP it is the network that reports this of an earlier datagram (ICMP): no socket has the
    /// port, no route leads there, a router forbids it, or the datagram is too long for the path.
    /// Systems tell it to connected sockets only, and `to` is then the peer: see
    /// [`DatagramOptions::connect`]. A system keeps one such report at a time, so one call may
    /// stand for several datagrams.
    ///
    /// For a Unix socket there is no file at the path, or no socket behind it any more, or the
    /// receiver reads no longer. One call per receiver may stand for several datagrams. At most 64
    /// receivers are remembered until the callback runs; all are counted in
    /// [`Metrics::datagrams_refused`](crate::Metrics::datagrams_refused).
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn refused(&mut self, cx: &mut DatagramContext<'_>, to: Option<Endpoint>) -> Outcome {
        let _ = (cx, to);
        Ok(())
    }

    /// All datagrams that had to wait for the system have been sent, or dropped: see
    /// [`DatagramContext::is_congested`].
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn drained(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// A timer fired, never early. The default closes.
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn timeout(&mut self, cx: &mut DatagramContext<'_>, timer: Timer) -> Outcome {
        let _ = timer;
        cx.close();
        Ok(())
    }

    /// A note has come from a connection, another socket or another thread.
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn notified(&mut self, cx: &mut DatagramContext<'_>, note: Note) -> Outcome {
        let _ = (cx, note);
        Ok(())
    }

    /// The driver is being shut down. Runs once; the default closes. A socket that stays open is
    /// closed when [`DriverLimits::drain`](crate::DriverLimits::drain) is over.
    ///
    /// # Errors
    ///
    /// Closes the socket.
    fn stopping(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        cx.close();
        Ok(())
    }

    /// The socket has ended. Runs last and exactly once; nothing can be sent any more.
    fn closed(&mut self, cx: &mut DatagramContext<'_>, reason: &CloseReason) {
        let _ = (cx, reason);
    }

    /// The name for logs and warnings; by default the name of the type.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }
}

impl<P: DatagramProtocol + ?Sized> DatagramProtocol for Box<P> {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        (**self).opened(cx)
    }

    fn datagram(&mut self, cx: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        (**self).datagram(cx, datagram)
    }

    fn refused(&mut self, cx: &mut DatagramContext<'_>, to: Option<Endpoint>) -> Outcome {
        (**self).refused(cx, to)
    }

    fn drained(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        (**self).drained(cx)
    }

    fn timeout(&mut self, cx: &mut DatagramContext<'_>, timer: Timer) -> Outcome {
        (**self).timeout(cx, timer)
    }

    fn notified(&mut self, cx: &mut DatagramContext<'_>, note: Note) -> Outcome {
        (**self).notified(cx, note)
    }

    fn stopping(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        (**self).stopping(cx)
    }

    fn closed(&mut self, cx: &mut DatagramContext<'_>, reason: &CloseReason) {
        (**self).closed(cx, reason);
    }

    fn name(&self) -> &str {
        (**self).name()
    }
}
