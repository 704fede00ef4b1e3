//! The remote of a driver: what other threads may ask of it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::address::{Address, IntoAddress};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::guard::drop_guarded;
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::note::Note;
use crate::protocol::{Control, Incoming, ListenOptions, Protocol};

/// Reaches a driver from any thread, and from its own. Nothing here blocks, but for a name that
/// [`listen`](Handle::listen) has to look up.
///
/// What one thread asks of one connection is carried out in its order, and so are its closures, as
/// which [`connect`](Handle::connect), [`listen`](Handle::listen) and
/// [`stop_listening`](Handle::stop_listening) count. On the blocking driver, where each connection
/// has a thread of its own, requests to different connections, and closures and requests to
/// connections, may overtake one another. [`shutdown`](Handle::shutdown) and
/// [`abort`](Handle::abort) stand outside of any order.
///
/// Requests that are refused, because
/// [`DriverLimits::posts_max`](crate::DriverLimits::posts_max) \[1024\] are waiting or the driver
/// has ended, give back what they were to carry; `shutdown` and `abort` are never refused. A
/// request for a connection that has ended does nothing and is counted in
/// [`Metrics::stale`](crate::Metrics::stale). What a driver has not carried out when it ends is
/// dropped.
///
/// ```
/// use std::sync::mpsc;
/// use lariat::reactor::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// reactor.keep_running(true);
/// let handle = reactor.handle();
/// let thread = std::thread::spawn(move || {
///     let (tell, told) = mpsc::channel();
///     handle.call(move |control| tell.send(control.metrics().open).unwrap()).unwrap();
///     assert_eq!(told.recv().unwrap(), 0);
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
    /// Queues what `make` makes, which is asked for only if it is taken.
    fn post(&self, make: &mut dyn FnMut() -> Option<Post>) -> Result<()>;
    fn abort(&self, id: ConnId);
    fn shutdown(&self);
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

    /// Queues a copy of `bytes` for a connection. It never waits: a receiver over
    /// [`Limits::output_max`] ends with [`OutputFull`](crate::CloseKind::OutputFull).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`].
    pub fn write(&self, id: ConnId, bytes: &[u8]) -> Result<()> {
        self.write_bytes(id, Bytes::copy_from_slice(bytes)).map_err(Error::from)
    }

    /// Queues `bytes` for a connection as [`write`](Handle::write) does, without copying.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`], with the bytes.
    pub fn write_bytes(
        &self,
        id: ConnId,
        bytes: impl Into<Bytes>,
    ) -> std::result::Result<(), Refused<Bytes>> {
        self.post(bytes.into(), |bytes| Post::Write { to: id, bytes })
    }

    /// Sends a note to a connection, received by [`Protocol::notified`], not before `opened`.
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
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`], with the note. Beyond
    /// [`Limits::notes_max`] \[64\] waiting ones the connection drops it, counted in
    /// [`Metrics::refused_notes`](crate::Metrics::refused_notes).
    pub fn notify(&self, id: ConnId, note: Note) -> std::result::Result<(), Refused<Note>> {
        self.post(note, |note| Post::Notify { to: id, note })
    }

    /// Finishes sending on a connection, as
    /// [`Context::shutdown_write`](crate::Context::shutdown_write) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`].
    pub fn shutdown_write(&self, id: ConnId) -> Result<()> {
        self.post(id, Post::ShutdownWrite).map_err(Error::from)
    }

    /// Closes a connection in order, as [`Context::close`](crate::Context::close) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`].
    pub fn close(&self, id: ConnId) -> Result<()> {
        self.post(id, Post::Close).map_err(Error::from)
    }

    /// Ends a connection at once, as [`Context::abort`](crate::Context::abort) does. Never refused.
    pub fn abort(&self, id: ConnId) {
        self.remote.abort(id);
    }

    // ---- the driver --------------------------------------------------------------------------

    /// Connects to `addr`, as [`Control::connect`] does. The protocol learns its id from
    /// [`Context::id`](crate::Context::id).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`], with the protocol.
    pub fn connect<P: Protocol + Send + 'static>(
        &self,
        addr: impl IntoAddress,
        protocol: P,
    ) -> std::result::Result<(), Refused<P>> {
        self.connect_with(addr, Limits::default(), protocol)
    }

    /// Connects with limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`], [`ErrorKind::Full`] or [`ErrorKind::Stopped`], with the
    /// protocol.
    pub fn connect_with<P: Protocol + Send + 'static>(
        &self,
        addr: impl IntoAddress,
        limits: Limits,
        protocol: P,
    ) -> std::result::Result<(), Refused<P>> {
        if let Err(error) = limits.validate() {
            return Err(Refused { error, payload: protocol });
        }
        let addr = addr.into_address();
        self.post(protocol, |protocol| {
            Post::Call(Box::new(move |control| {
                if let Err(error) = control.connect_with(&addr, limits, protocol) {
                    log::error!(target: "lariat::connect", "{addr}: {error}");
                }
            }))
        })
    }

    /// Listens on `addr`. What came of it is told to `told`, on the driver's thread: the listener,
    /// whose addresses [`Control::addresses`] knows, or why not.
    ///
    /// A name is looked up by this thread, which may take a while; an address is not.
    ///
    /// # Errors
    ///
    /// The name stands for nothing, or [`ErrorKind::Full`] or [`ErrorKind::Stopped`], with the
    /// factory.
    pub fn listen<P, F>(
        &self,
        addr: impl IntoAddress,
        options: ListenOptions,
        factory: F,
        told: impl FnOnce(&mut Control<'_>, Result<ListenerId>) + Send + 'static,
    ) -> std::result::Result<(), Refused<F>>
    where
        P: Protocol + Send + 'static,
        F: Fn(&Incoming) -> Option<P> + Send + Sync + 'static,
    {
        let addrs = match addr.into_address().resolve(Op::Listen) {
            Ok(addrs) => Address::Several(addrs),
            Err(error) => return Err(Refused { error, payload: factory }),
        };
        self.post(factory, |factory| {
            Post::Call(Box::new(move |control| {
                let listener = control.listen_with(addrs, options, factory);
                told(control, listener);
            }))
        })
    }

    /// Closes a listener: newcomers are refused, its connections stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`].
    pub fn stop_listening(&self, listener: ListenerId) -> Result<()> {
        self.call(move |control| control.stop_listening(listener)).map_err(Error::from)
    }

    /// Runs `code` on the driver's thread, outside of callbacks: on the blocking driver on the one
    /// that called [`run`](crate::blocking::Blocking::run). A panic in it is logged and counted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Stopped`], with the closure.
    pub fn call<F: FnOnce(&mut Control<'_>) + Send + 'static>(
        &self,
        code: F,
    ) -> std::result::Result<(), Refused<F>> {
        self.post(code, |code| Post::Call(Box::new(code)))
    }

    /// Shuts the driver down: no more newcomers, every connection is told
    /// [`stopping`](crate::Protocol::stopping), and what is left after
    /// [`DriverLimits::drain`](crate::DriverLimits::drain) \[30 s\] is aborted. Never refused;
    /// calling it again does nothing.
    pub fn shutdown(&self) {
        self.remote.shutdown();
    }

    /// Whether the driver has ended: nothing asked of it has an effect any more.
    pub fn is_ended(&self) -> bool {
        self.remote.is_ended()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("is_ended", &self.is_ended()).finish()
    }
}

/// A request that a driver did not take, with what it was to carry. `?` makes an [`Error`] of it,
/// in a callback as well as in a function that returns [`Result`]; what it carried is dropped then.
///
/// ```
/// use lariat::{ConnId, Context, Handle, Input, Note, Outcome, Protocol};
///
/// /// Tells others of what comes in.
/// struct Teller {
///     others: Handle,
///     to: ConnId,
/// }
///
/// impl Protocol for Teller {
///     fn data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> Outcome {
///         self.others.notify(self.to, Note::new(input.split_all()))?;
///         Ok(())
///     }
/// }
///
/// fn greet(others: &Handle, to: ConnId) -> lariat::Result<()> {
///     others.notify(to, Note::new("hello"))?;
///     others.call(|control| control.shutdown())?;
///     Ok(())
/// }
/// ```
///
/// The payload of one that matters is taken back:
///
/// ```
/// use lariat::{ErrorKind, sim::Sim};
/// let sim = Sim::new(1);
/// let handle = sim.handle();
/// drop(sim);
/// let text = "precious".to_owned();
/// let refused = handle.call(move |_| println!("{text}")).unwrap_err();
/// assert_eq!(refused.error().kind(), ErrorKind::Stopped);
/// let mut elsewhere = Sim::new(2);
/// refused.into_payload()(&mut elsewhere.control());
/// ```
pub struct Refused<T> {
    error: Error,
    payload: T,
}

impl<T> Refused<T> {
    /// Why.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What the request was to carry.
    pub fn into_payload(self) -> T {
        self.payload
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<T> From<Refused<T>> for Error {
    fn from(refused: Refused<T>) -> Error {
        refused.error
    }
}

// Were it an error itself, `?` in a callback would take only what may be shared between threads,
// which notes, closures and protocols need not be.
impl<T> From<Refused<T>> for Box<dyn std::error::Error + Send + Sync> {
    fn from(refused: Refused<T>) -> Self {
        Box::new(refused.error)
    }
}

impl<T> From<Refused<T>> for Box<dyn std::error::Error> {
    fn from(refused: Refused<T>) -> Self {
        Box::new(refused.error)
    }
}

/// A request of another thread.
pub(crate) enum Post {
    Write { to: ConnId, bytes: Bytes },
    ShutdownWrite(ConnId),
    Close(ConnId),
    Notify { to: ConnId, note: Note },
    Call(Box<dyn FnOnce(&mut Control<'_>) + Send>),
}

/// Where a loop finds what other threads ask of it.
///
/// Many posts make one wake-up: only the first after the loop has looked wakes it.
pub(crate) struct Mailbox {
    inside: Mutex<Inside>,
    posted: AtomicBool,
    posts_max: usize,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Inside {
    posts: VecDeque<Post>,
    aborts: BTreeSet<ConnId>,
    shutdown: bool,
    ended: bool,
}

/// What a loop takes out of its mailbox.
#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) posts: VecDeque<Post>,
    pub(crate) aborts: BTreeSet<ConnId>,
    pub(crate) shutdown: bool,
}

impl Mailbox {
    pub(crate) fn new(posts_max: usize, wake: Box<dyn Fn() + Send + Sync>) -> Mailbox {
        Mailbox { inside: Mutex::default(), posted: AtomicBool::new(false), posts_max, wake }
    }

    /// A thread that panicked while it held the lock has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Whether anything was posted since the last look. One load, so that a turn can afford it.
    #[inline(always)]
    pub(crate) fn has_mail(&self) -> bool {
        self.posted.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Mail {
        // The mark goes first: what is posted from here on wakes the loop again.
        self.posted.store(false, Ordering::Release);
        let mut inside = self.lock();
        Mail {
            posts: std::mem::take(&mut inside.posts),
            aborts: std::mem::take(&mut inside.aborts),
            shutdown: std::mem::take(&mut inside.shutdown),
        }
    }

    /// From now on nothing is taken.
    pub(crate) fn end(&self) {
        let mut inside = self.lock();
        inside.ended = true;
        inside.aborts.clear();
        let posts = std::mem::take(&mut inside.posts);
        // What they carry is the user's, whose drop may ask something of this very mailbox.
        drop(inside);
        for post in posts {
            drop_guarded(post);
        }
    }
}

impl Remote for Mailbox {
    fn shutdown(&self) {
        self.lock().shutdown = true;
        self.wake();
    }

    fn post(&self, make: &mut dyn FnMut() -> Option<Post>) -> Result<()> {
        let mut inside = self.lock();
        if inside.ended {
            return Err(Error::new(ErrorKind::Stopped, Op::Post));
        }
        if inside.posts.len() >= self.posts_max {
            return Err(Error::new(ErrorKind::Full, Op::Post));
        }
        inside.posts.extend(make());
        drop(inside);
        self.wake();
        Ok(())
    }

    fn abort(&self, id: ConnId) {
        let mut inside = self.lock();
        if !inside.ended {
            inside.aborts.insert(id);
            drop(inside);
            self.wake();
        }
    }

    fn is_ended(&self) -> bool {
        self.lock().ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn mailbox(posts_max: usize) -> (Arc<Mailbox>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (Arc::new(Mailbox::new(posts_max, wake)), wakes)
    }

    fn id(bits: u64) -> ConnId {
        ConnId::from_bits(1 << 32 | bits).unwrap()
    }

    fn closes(mail: &Mail) -> Vec<ConnId> {
        mail.posts
            .iter()
            .map(|post| match post {
                Post::Close(id) => *id,
                _ => panic!("another post"),
            })
            .collect()
    }

    #[test]
    fn many_posts_wake_the_loop_once() {
        let (mailbox, wakes) = mailbox(10);
        let handle = Handle::new(mailbox.clone());
        for n in 0..5 {
            handle.close(id(n)).unwrap();
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert!(mailbox.has_mail());
        let mail = mailbox.take();
        assert_eq!(closes(&mail), (0..5).map(id).collect::<Vec<_>>());
        assert!(!mailbox.has_mail());
        handle.close(id(9)).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_mailbox_refuses_posts_but_never_shutdown_or_abort() {
        let (mailbox, _) = mailbox(1);
        let handle = Handle::new(mailbox.clone());
        handle.close(id(1)).unwrap();
        assert_eq!(handle.close(id(2)).unwrap_err().kind(), ErrorKind::Full);
        handle.abort(id(3));
        handle.shutdown();
        let mail = mailbox.take();
        assert!(mail.shutdown && mail.aborts.contains(&id(3)) && mail.posts.len() == 1);
    }

    #[test]
    fn what_is_refused_comes_back() {
        let (mailbox, _) = mailbox(1);
        let handle = Handle::new(mailbox.clone());
        handle.write_bytes(id(1), "taken").unwrap();
        let refused = handle.write_bytes(id(1), "not taken").unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::Full);
        assert_eq!(refused.into_payload(), "not taken");
        let refused = handle.notify(id(1), Note::new(7u8)).unwrap_err();
        assert_eq!(refused.into_payload().downcast::<u8>().unwrap(), 7);
        let text = "moved".to_owned();
        let refused = handle.call(move |_| drop(text)).unwrap_err();
        assert_eq!(refused.to_string(), "cannot reach the driver: its queue is full");
        mailbox.take();
        handle.call(refused.into_payload()).unwrap();
    }

    #[test]
    fn a_post_whose_drop_posts_does_not_hold_up_the_end() {
        struct Poster(Handle);
        impl Drop for Poster {
            fn drop(&mut self) {
                assert_eq!(self.0.close(id(1)).unwrap_err().kind(), ErrorKind::Stopped);
            }
        }
        let (mailbox, _) = mailbox(1);
        let handle = Handle::new(mailbox.clone());
        let poster = Poster(handle.clone());
        handle.call(move |_| drop(poster)).unwrap();
        mailbox.end();
        assert!(handle.is_ended());
    }

    #[test]
    fn an_ended_driver_says_so() {
        let (mailbox, wakes) = mailbox(1);
        let handle = Handle::new(mailbox.clone());
        mailbox.end();
        assert!(handle.is_ended());
        assert_eq!(handle.close(id(1)).unwrap_err().kind(), ErrorKind::Stopped);
        handle.abort(id(1));
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn c5_a_poisoned_lock_does_not_stop_the_handle() {
        let (mailbox, _) = mailbox(4);
        let poisoner = mailbox.clone();
        let result = std::thread::spawn(move || {
            let _guard = poisoner.inside.lock();
            panic!("poison");
        })
        .join();
        assert!(result.is_err());
        Handle::new(mailbox.clone()).close(id(1)).unwrap();
        assert_eq!(mailbox.take().posts.len(), 1);
    }
}
