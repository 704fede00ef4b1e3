//! The synchronous driver: a thread per connection, blocking sockets of std.
//!
//! The same protocols as on the [`reactor`](crate::reactor), the same limits, the same reasons.
//! What differs is what a connection costs: a thread, and a second one (its *companion*) once it
//! has set a timer, or others write or send notes to it. [`serve`] is a whole server in a line.

mod accept;
mod cell;
mod companion;
mod effects;
mod hub;
mod reading;
mod sending;
mod turn;
mod worker;

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Instant, SystemTime};

use crate::address::IntoAddress;
use crate::clock::{Clock, Readings};
use crate::connection::Connection;
use crate::driver::{BoxedFactory, Driver, ListenOptions, Report};
use crate::error::{Error, Op, Result};
use crate::handle::Handle;
use crate::id::{ConnId, ListenerId};
use crate::limits::{DriverLimits, Limits};
use crate::metrics::Metrics;
use crate::protocol::{Incoming, Protocol};
use crate::reason::{By, CloseKind, ConnectFailure};
use crate::socket;

use accept::Acceptor;
use cell::Cell;
use hub::{Entered, Hub, HubRemote, Presence, Socket, lock};

/// Connections that a blocking driver has at most, unless told otherwise: each costs a thread.
const CONNECTIONS_MAX: usize = 256;

/// Serves `factory`'s protocols on `addr`, a thread for each connection, until Ctrl-C or SIGTERM
/// (feature `signals`), which drain. A second signal ends the process at once.
///
/// ```no_run
/// # use lariat::{Context, Input, Outcome, Protocol};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
/// #         cx.write(input);
/// #         input.consume(input.len());
/// #         Ok(())
/// #     }
/// # }
/// fn main() -> lariat::Result<()> {
///     lariat::blocking::serve("127.0.0.1:7000", || Echo)
/// }
/// ```
///
/// # Errors
///
/// The address cannot be listened on.
pub fn serve<P: Protocol + Send + 'static>(
    addr: impl IntoAddress,
    factory: impl Fn() -> P + Send + Sync + 'static,
) -> Result<()> {
    let mut driver = Blocking::new();
    let listener = driver.listen(addr, move |_| Some(factory()))?;
    #[cfg(feature = "signals")]
    driver.stop_on_signals()?;
    for addr in driver.addresses(listener) {
        log::info!(target: "lariat::blocking", "listening on {addr}");
    }
    let report = driver.run()?;
    log::info!(target: "lariat::blocking", "stopped: {report}");
    Ok(())
}

/// The blocking driver. [`run`](Blocking::run) starts its threads and waits for them.
pub struct Blocking {
    hub: Arc<Hub>,
    serial: bool,
    /// What waits for `run`.
    acceptors: Vec<Acceptor>,
    connects: Vec<Prepared>,
}

/// An outgoing connection that waits for `run`.
struct Prepared {
    id: ConnId,
    addr: SocketAddr,
    limits: Arc<Limits>,
    protocol: Box<dyn Protocol + Send>,
}

impl Default for Blocking {
    fn default() -> Blocking {
        Blocking::new()
    }
}

impl Blocking {
    /// A driver with the default [`DriverLimits`], but at most 256 connections.
    pub fn new() -> Blocking {
        let connections_max = CONNECTIONS_MAX;
        Blocking::build(DriverLimits { connections_max, ..DriverLimits::default() })
    }

    /// A driver with its own limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits).
    pub fn with_limits(limits: DriverLimits) -> Result<Blocking> {
        limits.validate()?;
        Ok(Blocking::build(limits))
    }

    fn build(limits: DriverLimits) -> Blocking {
        let clock = Clock::system(Readings { monotonic: Instant::now, wall: SystemTime::now });
        Blocking {
            hub: Arc::new(Hub::new(clock, limits)),
            serial: false,
            acceptors: Vec::new(),
            connects: Vec::new(),
        }
    }

    /// Whether accepted connections are served one after another, on the thread that accepts them,
    /// as Python's `TCPServer` does \[off\]. Outgoing connections have threads of their own.
    pub fn serial(&mut self, serial: bool) {
        self.serial = serial;
    }

    /// Listens on `addr`. `factory` makes a protocol for each newcomer; None refuses it. Newcomers
    /// are accepted once [`run`](Blocking::run) runs.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on; nothing is left open.
    pub fn listen<P: Protocol + Send + 'static>(
        &mut self,
        addr: impl IntoAddress,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        self.listen_with(addr, ListenOptions::default(), factory)
    }

    /// Listens with options.
    ///
    /// # Errors
    ///
    /// As [`listen`](Blocking::listen), and
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits).
    pub fn listen_with<P: Protocol + Send + 'static>(
        &mut self,
        addr: impl IntoAddress,
        options: ListenOptions,
        factory: impl Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        options.limits.validate()?;
        let addrs = addr.into_address().resolve()?;
        let mut sockets = Vec::new();
        for addr in addrs {
            let failed = |error| Error::from_io(Op::Listen, error).with_addr(addr);
            let listener = socket::listen(addr, &options).map_err(failed)?;
            listener.set_nonblocking(false).map_err(failed)?;
            sockets.push(Arc::new(Socket::new(listener)));
        }
        let id = self.hub.add_listener(sockets.clone());
        let factory: Arc<BoxedFactory> = Arc::new(Box::new(move |incoming| {
            Some(Box::new(factory(incoming)?) as Box<dyn Protocol + Send>)
        }));
        let limits = Arc::new(options.limits);
        for socket in sockets {
            let (factory, limits) = (Arc::clone(&factory), Arc::clone(&limits));
            self.acceptors.push(Acceptor { id, socket, factory, limits });
        }
        Ok(id)
    }

    /// The real addresses of a listener; none once it has stopped.
    pub fn addresses(&self, listener: ListenerId) -> Vec<SocketAddr> {
        self.hub.addresses(listener)
    }

    /// Closes a listener. Its connections stay.
    pub fn stop_listening(&mut self, listener: ListenerId) {
        self.hub.stop_listening(listener);
        self.acceptors.retain(|acceptor| acceptor.id != listener);
    }

    /// Connects to `addr`, on a thread of its own, once [`run`](Blocking::run) runs. A failure is
    /// told to `protocol` by [`closed`](Protocol::closed) alone.
    pub fn connect(
        &mut self,
        addr: SocketAddr,
        protocol: impl Protocol + Send + 'static,
    ) -> ConnId {
        self.prepare_connect(addr, Limits::default(), Box::new(protocol))
    }

    /// Connects with limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`](crate::ErrorKind::InvalidLimits).
    pub fn connect_with(
        &mut self,
        addr: SocketAddr,
        limits: Limits,
        protocol: impl Protocol + Send + 'static,
    ) -> Result<ConnId> {
        limits.validate()?;
        Ok(self.prepare_connect(addr, limits, Box::new(protocol)))
    }

    fn prepare_connect(
        &mut self,
        addr: SocketAddr,
        limits: Limits,
        protocol: Box<dyn Protocol + Send>,
    ) -> ConnId {
        let id = lock(&self.hub.ids).reserve();
        self.connects.push(Prepared { id, addr, limits: Arc::new(limits), protocol });
        id
    }

    /// Runs until [shutdown](Handle::shutdown), or until no listener and no connection is left.
    ///
    /// # Errors
    ///
    /// A thread for a listener could not be started.
    pub fn run(&mut self) -> Result<Report> {
        let hub = &self.hub;
        // All are entered before the first of them runs: their number decides which are too many.
        let connects = mem::take(&mut self.connects).into_iter();
        let entered: Vec<(Arc<Cell>, SocketAddr)> = connects
            .map(|Prepared { id, addr, limits, protocol }| {
                (enter_connect(hub, id, addr, limits, protocol), addr)
            })
            .collect();
        for (cell, addr) in entered {
            run_connect(hub, cell, addr);
        }
        for acceptor in self.acceptors.drain(..) {
            if let Err(error) = acceptor.start(&self.hub, self.serial) {
                self.hub.shutdown();
                self.hub.drain();
                return Err(error);
            }
        }
        self.hub.wait_until_over();
        if self.hub.is_stopping() { Ok(self.hub.drain()) } else { Ok(Report::default()) }
    }

    /// A remote for other threads.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::new(HubRemote(Arc::clone(&self.hub))))
    }

    /// The counters.
    pub fn metrics(&self) -> Metrics {
        self.hub.metrics()
    }

    /// Whether an idle driver goes on running, for handles to give it work \[off\].
    pub fn keep_running(&mut self, keep: bool) {
        lock(&self.hub.state).keep_running = keep;
    }

    /// Lets SIGINT and SIGTERM shut the driver down; a second signal ends the process at once, with
    /// the status 130 or 143.
    ///
    /// # Errors
    ///
    /// The system did not let the signals be taken over, or gave no thread to wait for them.
    #[cfg(feature = "signals")]
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let failed = |error| Error::from_io(Op::Signals, error);
        crate::signals::end_at_the_second().map_err(failed)?;
        let handle = self.handle();
        crate::signals::wait_on_a_thread(move || handle.shutdown()).map_err(failed)
    }
}

/// Enters an outgoing connection; its thread is started by [`run_connect`].
fn enter_connect(
    hub: &Arc<Hub>,
    id: ConnId,
    addr: SocketAddr,
    limits: Arc<Limits>,
    protocol: Box<dyn Protocol + Send>,
) -> Arc<Cell> {
    let conn = Connection::connecting(id, addr, limits, hub.clock.exact());
    let cell = Cell::new(id, conn, protocol, None);
    hub.count(|metrics| metrics.connects += 1);
    match hub.enter_connect(&cell) {
        Entered::Welcome => {}
        Entered::TooMany => {
            let limit = CloseKind::Connect(ConnectFailure::Limit);
            lock(&cell.member).conn.end(By::Runtime, limit, None);
        }
        Entered::Late => lock(&cell.member).conn.handle_late(),
    }
    cell
}

/// Starts the thread of an outgoing connection.
fn run_connect(hub: &Arc<Hub>, cell: Arc<Cell>, addr: SocketAddr) {
    start_thread(hub, cell, move |hub, cell| reading::run_connect(hub, cell, addr));
}

/// Starts the thread of a connection; without a thread there is no connection.
fn start_thread(
    hub: &Arc<Hub>,
    cell: Arc<Cell>,
    run: impl FnOnce(&Arc<Hub>, &Arc<Cell>) + Send + 'static,
) {
    let owned = Arc::clone(hub);
    let presence = Presence::new(hub);
    let name = format!("lariat {}", cell.id);
    // In a place of its own, so that it is still there if the thread could not be started.
    let place = Arc::new(Mutex::new(Some(cell)));
    let taken = Arc::clone(&place);
    let started = thread::Builder::new().name(name).spawn(move || {
        if let Some(cell) = lock(&taken).take() {
            run(&owned, &cell);
        }
        drop(presence);
    });
    let Err(error) = started else { return };
    log::error!(target: "lariat::blocking", "cannot start a thread: {error}");
    let Some(cell) = lock(&place).take() else { return };
    let mut member = lock(&cell.member);
    member.connecting = false;
    let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
    member.conn.end(By::Runtime, exhausted, Some(Arc::new(error)));
    drop(member);
    reading::run(hub, &cell);
}

impl Driver for Blocking {
    fn listen_boxed(
        &mut self,
        addr: SocketAddr,
        options: ListenOptions,
        factory: BoxedFactory,
    ) -> Result<ListenerId> {
        self.listen_with(addr, options, move |incoming| factory(incoming))
    }

    fn connect_boxed(
        &mut self,
        addr: SocketAddr,
        limits: Limits,
        protocol: Box<dyn Protocol + Send>,
    ) -> Result<ConnId> {
        self.connect_with(addr, limits, protocol)
    }

    fn addresses(&self, listener: ListenerId) -> Vec<SocketAddr> {
        Blocking::addresses(self, listener)
    }

    fn run(&mut self) -> Result<Report> {
        Blocking::run(self)
    }

    fn handle(&self) -> Handle {
        Blocking::handle(self)
    }

    fn metrics(&self) -> Metrics {
        Blocking::metrics(self)
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}
