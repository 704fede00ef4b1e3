//! The remote of a driver: what other threads may ask of it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Op, Result};
use crate::id::ConnId;

/// Reaches a driver from any thread, and from its own. Nothing here blocks.
///
/// ```
/// use lariat::reactor::Reactor;
/// let mut reactor = Reactor::new()?;
/// reactor.keep_running(true);
/// let handle = reactor.handle();
/// let thread = std::thread::spawn(move || handle.shutdown());
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
    fn shutdown(&self);
    fn close(&self, id: ConnId) -> Result<()>;
    fn abort(&self, id: ConnId);
    fn is_ended(&self) -> bool;
}

impl Handle {
    pub(crate) fn new(remote: Arc<dyn Remote>) -> Handle {
        Handle { remote }
    }

    /// Shuts the driver down: no more newcomers, every connection is told
    /// [`stopping`](crate::Protocol::stopping), and what is left after
    /// [`DriverLimits::drain`](crate::DriverLimits::drain) \[30 s\] is aborted. Never refused;
    /// calling it again does nothing.
    pub fn shutdown(&self) {
        self.remote.shutdown();
    }

    /// Closes a connection in order, as [`Context::close`](crate::Context::close) does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] when [`DriverLimits::posts_max`](crate::DriverLimits::posts_max)
    /// requests are waiting, [`ErrorKind::Stopped`] when the driver has ended.
    pub fn close(&self, id: ConnId) -> Result<()> {
        self.remote.close(id)
    }

    /// Ends a connection at once, as [`Context::abort`](crate::Context::abort) does. Never refused.
    pub fn abort(&self, id: ConnId) {
        self.remote.abort(id);
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

/// A request of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Post {
    Close(ConnId),
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
#[derive(Debug, Default)]
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

    fn post(&self, post: Post) -> Result<()> {
        let mut inside = self.lock();
        if inside.ended {
            return Err(Error::new(ErrorKind::Stopped, Op::Post));
        }
        if inside.posts.len() >= self.posts_max {
            return Err(Error::new(ErrorKind::Full, Op::Post));
        }
        inside.posts.push_back(post);
        drop(inside);
        self.wake();
        Ok(())
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
        inside.posts.clear();
        inside.aborts.clear();
    }
}

impl Remote for Mailbox {
    fn shutdown(&self) {
        self.lock().shutdown = true;
        self.wake();
    }

    fn close(&self, id: ConnId) -> Result<()> {
        self.post(Post::Close(id))
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
        assert_eq!(mail.posts, (0..5).map(|n| Post::Close(id(n))).collect::<Vec<_>>());
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
