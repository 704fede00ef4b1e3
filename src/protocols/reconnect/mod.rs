//! One outgoing connection that is kept: when it ends, or cannot be made, it is made again.
//!
//! [`Reconnect`] says where to, how long to wait and when to give up. Its
//! [`start`](Reconnect::start) connects at once, with a protocol that a factory makes for each
//! attempt, and returns a [`Keeper`], which stops it.
//!
//! ```
//! use std::time::Duration;
//! use lariat::reconnect::Reconnect;
//! use lariat::{Context, Input, Outcome, Protocol, sim::Sim};
//!
//! /// Says hello on each connection.
//! struct Client;
//!
//! impl Protocol for Client {
//!     fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
//!         cx.write(b"hello");
//!         Ok(())
//!     }
//!     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
//!         input.consume_all();
//!         Ok(())
//!     }
//! }
//!
//! let mut sim = Sim::new(1);
//! let keeper = Reconnect::to("10.0.0.1:7000")
//!     .on_end(|_, ended| println!("{ended}")) // attempt 1: connect refused by the peer; ..
//!     .start(&mut sim.control(), |_| Client)?;
//! sim.run_for(Duration::from_secs(60))?;
//! // The server comes up, a minute late.
//! let server = sim.acceptor("10.0.0.1:7000")?;
//! sim.run_for(Duration::from_secs(31))?;
//! assert_eq!(server.accept().unwrap().take_received(), b"hello");
//! keeper.stop(&mut sim.control());
//! # assert!(keeper.is_over());
//! # Ok::<(), lariat::Error>(())
//! ```
//!
//! # How long it waits
//!
//! The delay before each attempt is drawn by chance, evenly from nothing up to a bound ("full
//! jitter"), so that the clients of a server that has failed do not come back all at once. The
//! bound is [`Backoff::first`] \[500 ms\] after the first failure, doubles with each further one,
//! and stays at [`Backoff::cap`] \[30 s\]. A connection that has been open for
//! [`Backoff::healthy`] \[10 s\] sets the count of failures back: the bound after its end is that
//! of a first failure. One that opens and ends sooner counts as a failure. The random numbers are
//! the driver's; in the simulator they come from the seed, and the delays take virtual time.
//!
//! # What counts as an end
//!
//! Every end of the connection is followed by another attempt, also one in order:
//! [`Reconnect::until`] says which are not. A connect goes the way of any other: the name is looked
//! up again each time, all its addresses are tried, and
//! [`Limits::connect`](crate::Limits::connect) \[30 s\] is for each attempt. A protocol that
//! [replaces](crate::Context::replace) another is kept as well.
//!
//! # Shutdown
//!
//! A driver that is being shut down makes no further attempt, and does not wait for the end of a
//! delay. Without a shutdown, a delay keeps the driver running, as a timer of the driver does.

mod backoff;
mod keeping;
mod kept;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, IntoAddress};
use crate::error::Result;
use crate::id::ConnId;
use crate::options::ConnectOptions;
use crate::protocol::{Control, Protocol};
use crate::reason::CloseReason;

pub use backoff::Backoff;

use keeping::{Code, Keeping};

/// A connection to be kept: where to, and how. See the [module](self).
pub struct Reconnect {
    addr: Address,
    options: ConnectOptions,
    backoff: Backoff,
    until: Option<Until>,
    on_end: Option<OnEnd>,
}

/// Whether an end is the last one.
type Until = Box<dyn FnMut(&CloseReason) -> bool + Send>;

type OnEnd = Box<dyn FnMut(&mut Control<'_>, &Ended<'_>) + Send>;

impl Reconnect {
    /// A connection to `addr`: anything that [`Control::connect`] takes.
    pub fn to(addr: impl IntoAddress) -> Reconnect {
        Reconnect {
            addr: addr.into_address(),
            options: ConnectOptions::default(),
            backoff: Backoff::default(),
            until: None,
            on_end: None,
        }
    }

    /// Connects with these options.
    pub fn with_options(mut self, options: ConnectOptions) -> Reconnect {
        self.options = options;
        self
    }

    /// Waits so long before an attempt, and gives up after so many.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lariat::reconnect::{Backoff, Reconnect};
    ///
    /// let mut backoff = Backoff::default();
    /// backoff.cap = Duration::from_secs(5);
    /// backoff.failures_max = Some(10);
    /// let reconnect = Reconnect::to("db.internal:7000").with_backoff(backoff);
    /// ```
    pub fn with_backoff(mut self, backoff: Backoff) -> Reconnect {
        self.backoff = backoff;
        self
    }

    /// Makes no further attempt after an end of which `last` is true \[every end is followed by
    /// an attempt\].
    ///
    /// ```
    /// use lariat::{CloseKind, reconnect::Reconnect};
    /// let once = Reconnect::to("localhost:7000").until(|end| end.kind() == CloseKind::Finished);
    /// ```
    pub fn until(mut self, last: impl FnMut(&CloseReason) -> bool + Send + 'static) -> Reconnect {
        self.until = Some(Box::new(last));
        self
    }

    /// Calls `code` each time a connection has ended or could not be made, after `closed` of its
    /// protocol: with the reason, and the delay before the next attempt.
    pub fn on_end(
        mut self,
        code: impl FnMut(&mut Control<'_>, &Ended<'_>) + Send + 'static,
    ) -> Reconnect {
        self.on_end = Some(Box::new(code));
        self
    }

    /// Connects, with the protocol that `make` returns, and from then on again after each end.
    ///
    /// `control` is that of any driver: of [`Driver::control`](crate::Driver::control) before it
    /// runs, of a callback ([`Context::driver`](crate::Context::driver)) or of a closure
    /// ([`Handle::call`](crate::Handle::call)).
    ///
    /// `make` runs on the driver's thread, before each attempt. A panic in `make`, or in the code
    /// of [`until`](Reconnect::until) or [`on_end`](Reconnect::on_end), ends the attempts; one in
    /// the protocol does not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits) for options or a [`Backoff`]
    /// that cannot work.
    pub fn start<P: Protocol + Send + 'static>(
        self,
        control: &mut Control<'_>,
        mut make: impl FnMut(&Attempt) -> P + Send + 'static,
    ) -> Result<Keeper> {
        let Reconnect { addr, options, backoff, until, on_end } = self;
        options.validate()?;
        backoff.validate()?;
        let make =
            Box::new(move |attempt: &Attempt| Box::new(make(attempt)) as Box<dyn Protocol + Send>);
        let keeping = Arc::new(Keeping::new(addr, options, backoff, Code { make, until, on_end }));
        keeping.connect(control);
        Ok(Keeper(keeping))
    }
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("addr", &self.addr)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

/// The remote of a connection that is kept. Clones reach the same one, from any thread; dropping
/// them all changes nothing.
///
/// Its driver's [`Control`] is needed to stop it. Another thread sends a closure:
///
/// ```
/// use lariat::{Handle, reconnect::Keeper};
///
/// fn stop(handle: &Handle, keeper: Keeper) -> lariat::Result<()> {
///     handle.call(move |control| keeper.stop(control))?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Keeper(Arc<Keeping>);

impl Keeper {
    /// Makes no further attempt. A connection that is open is closed in order, and one that is
    /// being made is cancelled; [`on_end`](Reconnect::on_end) is still called for it. A delay is
    /// over at once, without a call. A second call does nothing.
    ///
    /// `control` must be of the driver on which the connection is.
    pub fn stop(&self, control: &mut Control<'_>) {
        self.0.stop(control);
    }

    /// Connects to `addr` from the next attempt on. The connection of now, and the delay of now,
    /// stay as they are.
    pub fn set_addr(&self, addr: impl IntoAddress) {
        self.0.put_addr(addr.into_address());
    }

    /// The connection of now, open or being made; None during a delay and when it is over.
    pub fn conn(&self) -> Option<ConnId> {
        self.0.conn()
    }

    /// Whether no further attempt will be made: it was stopped, has given up, or the driver was
    /// shut down when the connection ended. The last connection may still be closing.
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("conn", &self.conn()).finish_non_exhaustive()
    }
}

/// An attempt that is about to be made, for the factory of its protocol.
#[derive(Clone, Debug)]
pub struct Attempt {
    number: u64,
    failures: u32,
    last: Option<CloseReason>,
}

impl Attempt {
    /// The number of the attempt, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Failures before it, since the last connection that was [healthy](Backoff::healthy). The end
    /// of that one counts.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the attempt before this one failed, or its connection ended; None for the first.
    pub fn last(&self) -> Option<&CloseReason> {
        self.last.as_ref()
    }
}

/// An attempt that has failed, or whose connection has ended, for [`Reconnect::on_end`].
///
/// `Display` is a line for a log:
///
/// ```text
/// attempt 3: connect refused by the peer (Connection refused (os error 111)); next in 0.412 s
/// attempt 7: shut down by the runtime; the last
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    attempt: u64,
    failures: u32,
    reason: &'a CloseReason,
    delay: Option<Duration>,
}

impl Ended<'_> {
    /// The number of the attempt, from 1.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Failures in a row, this end included: 1 after a connection that was
    /// [healthy](Backoff::healthy).
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why it ended.
    pub fn reason(&self) -> &CloseReason {
        self.reason
    }

    /// The delay before the next attempt; None if there will be none.
    pub fn delay(&self) -> Option<Duration> {
        self.delay
    }
}

impl fmt::Display for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { attempt, reason, delay, .. } = self;
        write!(f, "attempt {attempt}: {} by {}", reason.kind(), reason.by())?;
        if let Some(error) = reason.error() {
            write!(f, " ({error})")?;
        }
        match delay {
            Some(delay) => write!(f, "; next in {:.3} s", delay.as_secs_f64()),
            None => f.write_str("; the last"),
        }
    }
}
