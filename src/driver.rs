//! What every driver offers, so that a program or a test can be written once for all of them.

use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::handle::Handle;
use crate::id::{ConnId, ListenerId};
use crate::metrics::Metrics;
use crate::protocol::Control;
use crate::resolver::Resolver;

use sealed::Sealed;

/// A driver moves bytes and time for protocols. A program or a test that takes a `&mut dyn Driver`
/// runs on each of them: [`Reactor`](crate::reactor::Reactor),
/// [`Blocking`](crate::blocking::Blocking) and [`Sim`](crate::sim::Sim). There are no others.
///
/// ```
/// use lariat::{Context, Driver, Input, Outcome, Protocol};
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
///     let listener = driver.control().listen("127.0.0.1:0", |_| Some(Echo))?;
///     assert_ne!(driver.addresses(listener)[0].port(), Some(0));
///     Ok(())
/// }
///
/// listens(&mut lariat::reactor::Reactor::new()?)?;
/// listens(&mut lariat::blocking::Blocking::new())?;
/// listens(&mut lariat::sim::Sim::new(1))?;
/// # Ok::<(), lariat::Error>(())
/// ```
pub trait Driver: Sealed {
    /// The driver outside of `run`, mainly for listeners, connects and timers. Requests take effect
    /// when it runs.
    fn control(&mut self) -> Control<'_>;

    /// The real addresses of a listener; none once it has stopped.
    fn addresses(&self, listener: ListenerId) -> Vec<Endpoint>;

    /// The real address of a datagram socket, which [`Control::bind`] has bound; None once it is
    /// closed.
    fn bound_addr(&self, id: ConnId) -> Option<Endpoint>;

    /// Runs until shutdown, or until nothing is left to do: no listener, no connection, no timer of
    /// the driver, no request of a handle.
    ///
    /// # Errors
    ///
    /// Waiting for events failed.
    fn run(&mut self) -> Result<Report>;

    /// A remote for other threads.
    fn handle(&self) -> Handle;

    /// The driver's counters.
    fn metrics(&self) -> Metrics;

    /// Whether a driver with nothing to do goes on running and waits for handles \[off\].
    fn keep_running(&mut self, keep: bool);

    /// What looks up the names of connects from now on \[the system; in the simulator, the names of
    /// [`Sim::add_name`](crate::sim::Sim::add_name)\].
    fn set_resolver(&mut self, resolver: Box<dyn Resolver>);

    /// Lets SIGINT and SIGTERM shut the driver down. A second signal ends the process at once, with
    /// the status 130 or 143. When no driver is left to shut down, the next signal ends the process
    /// too. A driver that starts later gets a first signal of its own.
    ///
    /// # Errors
    ///
    /// The system did not let the program handle the signals.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in the simulator, which has no
    /// signals, and without the feature `signals`.
    fn stop_on_signals(&mut self) -> Result<()>;
}

/// Why signals cannot be taken over.
#[cfg(not(feature = "signals"))]
pub(crate) fn without_signals() -> Result<()> {
    let error =
        crate::error::Error::new(crate::error::ErrorKind::Unsupported, crate::error::Op::Signals);
    Err(error.with_detail("lariat was built without the feature `signals`"))
}

/// Keeps other crates from implementing [`Driver`], so that it can grow.
pub(crate) mod sealed {
    pub trait Sealed {}
}

/// What `run` returns: how shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub(crate) drained: u64,
    pub(crate) aborted: u64,
    pub(crate) unsent: u64,
}

impl Report {
    /// Connections and datagram sockets that finished by themselves after shutdown had begun.
    pub fn drained(&self) -> u64 {
        self.drained
    }

    /// Connections and datagram sockets that were aborted when the drain time was over.
    pub fn aborted(&self) -> u64 {
        self.aborted
    }

    /// Bytes that these connections could not send.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }
}

/// Adds the report of another driver: for a server that runs several, as one
/// [`Reactor`](crate::reactor::Reactor) per core.
impl std::ops::AddAssign<&Report> for Report {
    fn add_assign(&mut self, other: &Report) {
        let Report { drained, aborted, unsent } = other;
        self.drained += drained;
        self.aborted += aborted;
        self.unsent += unsent;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_sentence() {
        let report = Report { drained: 3, aborted: 2, unsent: 10 };
        assert_eq!(report.to_string(), "3 drained, 2 aborted, 10 bytes unsent");
    }

    #[test]
    fn reports_of_several_drivers_are_added() {
        let mut sum = Report { drained: 3, aborted: 2, unsent: 10 };
        sum += &Report { drained: 40, aborted: 50, unsent: 600 };
        assert_eq!(sum, Report { drained: 43, aborted: 52, unsent: 610 });
    }
}
