//! What every driver offers, so that a program or a test can be written once for all of them.

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::handle::Handle;
use crate::id::{ConnId, ListenerId};
use crate::metrics::Metrics;
use crate::options::{ConnectOptions, ListenOptions};
use crate::protocol::{BoxedFactory, Protocol};

/// A driver: what moves bytes and time for protocols. Object-safe; its bounds are the strictest of
/// all drivers, whose own methods are looser.
///
/// ```
/// use lariat::{BoxedFactory, Context, Driver, Input, ListenOptions, Outcome, Protocol};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         cx.write(input);
///         input.consume(input.len());
///         Ok(())
///     }
/// }
///
/// fn listens(driver: &mut dyn Driver) -> lariat::Result<()> {
///     let factory: BoxedFactory = Box::new(|_| Some(Box::new(Echo)));
///     let addr = "127.0.0.1:0".into();
///     let listener = driver.listen_boxed(addr, ListenOptions::default(), factory)?;
///     assert_ne!(driver.addresses(listener)[0].port(), Some(0));
///     Ok(())
/// }
///
/// listens(&mut lariat::reactor::Reactor::new()?)?;
/// listens(&mut lariat::sim::Sim::new(1))?;
/// # Ok::<(), lariat::Error>(())
/// ```
pub trait Driver {
    /// Listens on `addr`.
    ///
    /// # Errors
    ///
    /// The address cannot be used, or the options contradict one another;
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) once the driver has been shut down.
    fn listen_boxed(
        &mut self,
        addr: Address,
        options: ListenOptions,
        factory: BoxedFactory,
    ) -> Result<ListenerId>;

    /// Connects to `addr`, as [`Control::connect`](crate::Control::connect) does; a failure is told
    /// to the protocol by `closed`.
    ///
    /// # Errors
    ///
    /// The options cannot work: see [`ConnectOptions`].
    fn connect_boxed(
        &mut self,
        addr: Address,
        options: ConnectOptions,
        protocol: Box<dyn Protocol + Send>,
    ) -> Result<ConnId>;

    /// The real addresses of a listener; none once it has stopped.
    fn addresses(&self, listener: ListenerId) -> Vec<Endpoint>;

    /// Runs until shutdown, or until nothing is left that could ever happen.
    ///
    /// # Errors
    ///
    /// Waiting for events failed.
    fn run(&mut self) -> Result<Report>;

    /// A remote for other threads.
    fn handle(&self) -> Handle;

    /// The driver's counters.
    fn metrics(&self) -> Metrics;

    /// Whether an idle driver goes on running, for handles to give it work \[off\].
    fn keep_running(&mut self, keep: bool);

    /// Lets SIGINT and SIGTERM shut the driver down; a second signal ends the process at once, with
    /// the status 130 or 143. The signals stay taken over when the driver is gone.
    ///
    /// # Errors
    ///
    /// The system did not let the signals be taken over;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in the simulator, which has none.
    #[cfg(feature = "signals")]
    fn stop_on_signals(&mut self) -> Result<()>;
}

/// What `run` leaves behind: how shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub(crate) drained: u64,
    pub(crate) aborted: u64,
    pub(crate) unsent: u64,
}

impl Report {
    /// Connections that finished by themselves after shutdown had begun.
    pub fn drained(&self) -> u64 {
        self.drained
    }

    /// Connections that were aborted when the time to drain was over.
    pub fn aborted(&self) -> u64 {
        self.aborted
    }

    /// Bytes that these connections could not send.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} drained, {} aborted, {} bytes unsent",
            self.drained, self.aborted, self.unsent
        )
    }
}
