//! The remote of a driver: requests from other threads.

mod mailbox;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Address, IntoAddress};
use crate::error::{Error, Op, Result};
use crate::guard::GuardedBytes;
use crate::id::{ConnId, ListenerId};
use crate::metrics::Metrics;
use crate::note::Note;
use crate::options::{ConnectOptions, ListenOptions};
use crate::protocol::{Content, Control, Incoming, Protocol};
use crate::refused::Refused;

pub(crate) use mailbox::{Mail, Mailbox};

/// Reaches a driver from any thread, its own included. [`metrics`](Handle::metrics) may wait for
/// the next turn; every other call returns at once.
///
/// Requests of one thread to one connection are carried out in order, and so are its closures, as
/// which [`connect`](Handle::connect), [`listen`](Handle::listen) and
/// [`stop_listening`](Handle::stop_listening) count. On the blocking driver each connection has a
/// thread of its own: requests to different connections may overtake one another, and so may
/// closures and requests to connections. [`shutdown`](Handle::shutdown) and
/// [`abort`](Handle::abort) overtake everything that waits.
///
/// A request is refused when [`DriverLimits::posts_max`](crate::DriverLimits::posts_max) \[1024\]
/// are waiting or the driver has ended; the error then gives back what the request carried.
/// `shutdown` and `abort` are never refused. A request for a connection that has ended does nothing
/// and is counted in [`Metrics::stale`](crate::Metrics::stale). Requests that a driver has not
/// carried out when it ends are dropped.
///
/// ```
/// use std::sync::mpsc;
/// use lariat::reactor::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// reactor.keep_running(true);
/// let handle = reactor.handle();
/// let thread = std::thread::spawn(move || {
///     let (sender, receiver) = mpsc::channel();
///     handle.call(move |control| sender.send(control.metrics().open).unwrap()).unwrap();
///     assert_eq!(receiver.recv().unwrap(), 0);
///     handle.shutdown();
/// });
/// let report = reactor.run()?;
/// thread.join().unwrap();
/// assert_eq!(report.aborted(), 0);
/// # Ok::<(), lariat::Error>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    remote: Arc<dyn Remote>,
}

/// What a driver offers to its handles.
pub(crate) trait Remote: Send + Sync {
    /// Queues what `make` returns; `make` is called only if the request is accepted.
    fn post(&self, make: &mut dyn FnMut() -> Option<Post>) -> Result<()>;
    fn abort(&self, id: ConnId);
    fn shutdown(&self);
    fn metrics(&self) -> Metrics;
    fn is_ended(&self) -> bool;
}

impl Handle {
    pub(crate) fn new(remote: Arc<dyn Remote>) -> Handle {
        Handle { remote }
    }

    /// Posts what `make` makes of `payload`, or gives `payload` back.
    fn post<T>(
        &self,
        payload: T,
        make: impl FnOnce(T) -> Post,
    ) -> std::result::Result<(), Refused<T>> {
        let mut waiting = Some((payload, make));
        let result = self.remote.post(&mut || waiting.take().map(|(payload, make)| make(payload)));
        match (result, waiting) {
            (Err(error), Some((payload, _))) => Err(Refused { error, payload }),
            _ => Ok(()),
        }
    }

    // ---- one connection ----------------------------------------------------------------------

    /// Queues a copy of `bytes` for a connection. If the connection then has more than
    /// [`Limits::output_max`](crate::Limits::output_max) unsent, it ends with
    /// [`OutputFull`](crate::CloseKind::OutputFull).
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped).
    pub fn write(&self, id: ConnId, bytes: &[u8]) -> Result<()> {
        self.write_bytes(id, Bytes::copy_from_slice(bytes)).map_err(Error::from)
    }

    /// Queues `bytes` for a connection as [`write`](Handle::write) does, without copying.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped), with the bytes.
    pub fn write_bytes(
        &self,
        id: ConnId,
        bytes: impl Into<Bytes>,
    ) -> std::result::Result<(), Refused<Bytes>> {
        self.post(bytes.into(), |bytes| Post::Write {
            to: id,
            content: Content::Shared(GuardedBytes::new(bytes)),
        })
    }

    /// Sends a note to a connection. [`Protocol::notified`] receives it, after `opened`.
    ///
    /// ```
    /// # use lariat::{Context, Input, Note, Outcome, Protocol, sim::Sim};
    /// struct Printer;
    /// impl Protocol for Printer {
    ///     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    ///     fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
    ///         cx.write(note.downcast::<String>().unwrap_or_default().as_bytes());
    ///         cx.close();
    ///         Ok(())
    ///     }
    /// }
    /// let mut sim = Sim::new(1);
    /// let addr = "10.0.0.1:80";
    /// let acceptor = sim.acceptor(addr)?;
    /// let id = sim.connect(addr, Printer);
    /// sim.handle().notify(id, Note::new("from afar".to_owned()))?;
    /// sim.run_for(std::time::Duration::from_secs(1))?;
    /// let client = acceptor.accept().unwrap();
    /// assert_eq!(client.take_received(), b"from afar");
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped), with the note. A
    /// connection that has [`Limits::notes_max`](crate::Limits::notes_max) \[64\] notes waiting
    /// drops a further one and counts it in
    /// [`Metrics::refused_notes`](crate::Metrics::refused_notes).
    pub fn notify(&self, id: ConnId, note: Note) -> std::result::Result<(), Refused<Note>> {
        self.post(note, |note| Post::Notify { to: id, note })
    }

    /// Finishes sending on a connection, as
    /// [`Context::shutdown_write`](crate::Context::shutdown_write) does.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped).
    pub fn shutdown_write(&self, id: ConnId) -> Result<()> {
        self.post(id, Post::ShutdownWrite).map_err(Error::from)
    }

    /// Closes a connection in order, as [`Context::close`](crate::Context::close) does.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped).
    pub fn close(&self, id: ConnId) -> Result<()> {
        self.post(id, Post::Close).map_err(Error::from)
    }

    /// Aborts a connection, as [`Context::abort`](crate::Context::abort) does, ahead of all
    /// requests that wait for it. The driver does so in its next turn; on blocking threads, when
    /// the callback that runs has returned. Never refused.
    pub fn abort(&self, id: ConnId) {
        self.remote.abort(id);
    }

    // ---- the driver --------------------------------------------------------------------------

    /// Connects to `addr`, as [`Control::connect`] does. The protocol gets its id from
    /// [`Context::id`](crate::Context::id).
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped), with the
    /// protocol.
    pub fn connect<P: Protocol + Send + 'static>(
        &self,
        addr: impl IntoAddress,
        protocol: P,
    ) -> std::result::Result<(), Refused<P>> {
        self.connect_with(addr, ConnectOptions::default(), protocol)
    }

    /// Connects with options.
    ///
    /// # Errors
    ///
    /// [`InvalidLimits`](crate::ErrorKind::InvalidLimits),
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped), with the
    /// protocol.
    pub fn connect_with<P: Protocol + Send + 'static>(
        &self,
        addr: impl IntoAddress,
        options: ConnectOptions,
        protocol: P,
    ) -> std::result::Result<(), Refused<P>> {
        if let Err(error) = options.validate() {
            return Err(Refused { error, payload: protocol });
        }
        let addr = addr.into_address();
        self.post(protocol, |protocol| {
            Post::Call(Box::new(move |control| {
                if let Err(error) = control.connect_with(&addr, options, protocol) {
                    log::error!(target: "lariat::connect", "{addr}: {error}");
                }
            }))
        })
    }

    /// Listens on `addr`, as [`Control::listen`] does. `done` runs on the driver's thread with the
    /// result: the listener, whose addresses [`Control::addresses`] knows, or the error.
    ///
    /// A name is looked up by the system, on a thread of the driver's: neither the caller nor the
    /// driver waits for it.
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// # }
    /// use lariat::reactor::Reactor;
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.handle().listen("127.0.0.1:0", |_| Some(Echo), |control, listener| {
    ///     println!("{:?}", control.addresses(listener.unwrap()));
    ///     control.shutdown();
    /// })?;
    /// reactor.keep_running(true);
    /// reactor.run()?;
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The text is no address, or [`Full`](crate::ErrorKind::Full) or
    /// [`Stopped`](crate::ErrorKind::Stopped), with the factory. `done` gets the error of a name
    /// that cannot be looked up.
    pub fn listen<P, F>(
        &self,
        addr: impl IntoAddress,
        factory: F,
        done: impl FnOnce(&mut Control<'_>, Result<ListenerId>) + Send + 'static,
    ) -> std::result::Result<(), Refused<F>>
    where
        P: Protocol + Send + 'static,
        F: Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    {
        self.listen_with(addr, ListenOptions::default(), factory, done)
    }

    /// Listens with options.
    ///
    /// # Errors
    ///
    /// As [`listen`](Handle::listen). Options that are not valid are an error given to `done`.
    pub fn listen_with<P, F>(
        &self,
        addr: impl IntoAddress,
        options: ListenOptions,
        factory: F,
        done: impl FnOnce(&mut Control<'_>, Result<ListenerId>) + Send + 'static,
    ) -> std::result::Result<(), Refused<F>>
    where
        P: Protocol + Send + 'static,
        F: Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    {
        let addr = addr.into_address();
        if addr.is_looked_up() {
            return self.post(factory, |factory| {
                Post::Call(Box::new(move |control| {
                    control.shared_mut().resolve_away(addr, Op::Listen, move |control, found| {
                        let listener = found.and_then(|addrs| {
                            control.listen_with(Address::Several(addrs), options, factory)
                        });
                        done(control, listener);
                    });
                }))
            });
        }
        let addrs = match addr.resolve(Op::Listen) {
            Ok(addrs) => Address::Several(addrs),
            Err(error) => return Err(Refused { error, payload: factory }),
        };
        self.post(factory, |factory| {
            Post::Call(Box::new(move |control| {
                let listener = control.listen_with(addrs, options, factory);
                done(control, listener);
            }))
        })
    }

    /// Closes a listener, as [`Control::stop_listening`] does: clients are refused from then on.
    /// Its connections stay.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped).
    pub fn stop_listening(&self, listener: ListenerId) -> Result<()> {
        self.call(move |control| control.stop_listening(listener)).map_err(Error::from)
    }

    /// Runs `code` on the driver's thread, outside of callbacks. On the blocking driver that is the
    /// thread that called [`run`](crate::blocking::Blocking::run). A panic in `code` is logged and
    /// counted.
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped), with the
    /// closure.
    pub fn call<F: FnOnce(&mut Control<'_>) + Send + 'static>(
        &self,
        code: F,
    ) -> std::result::Result<(), Refused<F>> {
        self.post(code, |code| Post::Call(Box::new(code)))
    }

    /// Runs `job`, which may block or compute for long, on another thread, as
    /// [`Control::offload`] does. [`notified`](crate::Protocol::notified) of `to`, a connection or
    /// a datagram socket, gets the result, as a note that holds a `Result<T, JobError>`. It is
    /// counted in [`Limits::notes_max`](crate::Limits::notes_max) as any note of others is. The job
    /// runs also when `to` has ended, and its result is then counted in
    /// [`Metrics::stale`](crate::Metrics::stale).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use lariat::sim::Sim;
    /// use lariat::{Context, Input, JobError, Note, Outcome, Protocol};
    ///
    /// struct Waits;
    ///
    /// impl Protocol for Waits {
    ///     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
    ///         Ok(())
    ///     }
    ///     fn notified(&mut self, cx: &mut Context<'_>, note: Note) -> Outcome {
    ///         if let Ok(answer) = note.downcast::<Result<u64, JobError>>() {
    ///             cx.write(answer?.to_string().as_bytes());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(1);
    /// let listener = sim.listen("10.0.0.1:80", |_| Some(Waits))?;
    /// let addr = sim.addresses(listener)[0];
    /// let client = sim.connect(addr, Waits);
    /// sim.handle().offload(client, || 6_u64 * 7)?;
    /// sim.run_for(Duration::from_secs(1))?;
    /// assert_eq!(sim.metrics().bytes_out, 2);
    /// # Ok::<(), lariat::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Full`](crate::ErrorKind::Full) or [`Stopped`](crate::ErrorKind::Stopped): the job is
    /// dropped. What goes wrong later is in the note: [`JobError`](crate::JobError) where too many
    /// jobs wait \[1,024\], at the deadline \[30 s\], or for a panic.
    pub fn offload<T: Send + 'static>(
        &self,
        to: ConnId,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<()> {
        let ask = move |control: &mut Control<'_>| {
            control.offload(job, move |control, result| {
                control.peer(to).notify(Note::new(result));
            });
        };
        self.call(ask).map_err(Error::from)
    }

    /// Shuts the driver down: it accepts no more connections, calls
    /// [`stopping`](crate::Protocol::stopping) on each open one, and aborts what is left after
    /// [`DriverLimits::drain`](crate::DriverLimits::drain) \[30 s\]. Never refused; a second call
    /// does nothing.
    pub fn shutdown(&self) {
        self.remote.shutdown();
    }

    /// The driver's counters.
    ///
    /// A running reactor or simulator publishes them in its next turn, and this call waits for
    /// that. One that is not running published them when `run` or `turn` returned. On blocking
    /// threads the call does not wait.
    ///
    /// Code that a reactor or simulator calls, such as a callback, never waits here: it gets the
    /// counters that were published last. Use [`Control::metrics`] for the current counters of its
    /// own driver.
    ///
    /// ```
    /// use lariat::reactor::Reactor;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let handle = reactor.handle();
    /// reactor.keep_running(true);
    /// let watching = std::thread::spawn(move || {
    ///     while handle.metrics().turns < 10 {}
    ///     handle.shutdown();
    /// });
    /// reactor.run()?;
    /// watching.join().unwrap();
    /// # Ok::<(), lariat::Error>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        self.remote.metrics()
    }

    /// Whether the driver has ended: further requests have no effect.
    pub fn is_ended(&self) -> bool {
        self.remote.is_ended()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("is_ended", &self.is_ended()).finish()
    }
}

/// A request of another thread.
pub(crate) enum Post {
    /// Never [`Content::Shown`]: the shown input does not travel along.
    Write {
        to: ConnId,
        content: Content,
    },
    ShutdownWrite(ConnId),
    Close(ConnId),
    Notify {
        to: ConnId,
        note: Note,
    },
    Call(Box<dyn FnOnce(&mut Control<'_>) + Send>),
}
