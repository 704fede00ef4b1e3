//! Where the requests of other threads wait for a loop.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::PoisonError;

use super::{Post, Remote};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::guard::drop_guarded;
use crate::id::ConnId;
use crate::metrics::Metrics;
use crate::protocol::{Home, SendClosure};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Requests of other threads, for a loop to take.
///
/// Many posts make one wake-up: only the first one after the loop has looked wakes it.
pub(crate) struct Mailbox {
    inside: Mutex<Inside>,
    /// The counters have been given, or the loop has stopped running.
    given: Condvar,
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
    /// Whether the loop's thread is in the loop, and will look for mail.
    running: bool,
    counters: Counters,
}

/// The counters of the loop, for other threads.
#[derive(Default)]
struct Counters {
    last: Metrics,
    /// How often the loop has given them.
    given: u64,
    asked: bool,
    /// How many threads wait for them. If none does, none is notified: a notification is a system
    /// call also then.
    waiting: usize,
}

thread_local! {
    /// Whether this thread is in a loop: two loops that wait for one another would wait for ever.
    static IN_A_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// What a loop takes out of its mailbox.
#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) posts: VecDeque<Post>,
    pub(crate) aborts: BTreeSet<ConnId>,
    pub(crate) shutdown: bool,
    /// Whether a thread waits for the counters.
    pub(crate) counters: bool,
}

/// For as long as it lives, the loop's thread is in the loop.
pub(crate) struct Running<'a> {
    mailbox: &'a Mailbox,
    was_in_a_loop: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        IN_A_LOOP.set(self.was_in_a_loop);
        let mut inside = self.mailbox.lock();
        inside.running = false;
        self.mailbox.wake_waiting(inside);
    }
}

impl Mailbox {
    pub(crate) fn new(posts_max: usize, wake: Box<dyn Fn() + Send + Sync>) -> Mailbox {
        let (inside, given) = (Mutex::default(), Condvar::new());
        Mailbox { inside, given, posted: AtomicBool::new(false), posts_max, wake }
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
            counters: std::mem::take(&mut inside.counters.asked),
        }
    }

    /// The loop's thread enters the loop. Threads that wait for the counters wake when it leaves.
    pub(crate) fn run(&self) -> Running<'_> {
        self.lock().running = true;
        Running { mailbox: self, was_in_a_loop: IN_A_LOOP.replace(true) }
    }

    /// Gives the counters to the threads that wait for them.
    pub(crate) fn give(&self, metrics: Metrics) {
        let mut inside = self.lock();
        inside.counters.last = metrics;
        inside.counters.given += 1;
        self.wake_waiting(inside);
    }

    fn wake_waiting(&self, inside: MutexGuard<'_, Inside>) {
        let waiting = inside.counters.waiting > 0;
        drop(inside);
        if waiting {
            self.given.notify_all();
        }
    }

    /// What waits for the loop to look, in words.
    pub(crate) fn waiting(&self) -> Option<String> {
        let inside = self.lock();
        let Inside { posts, aborts, shutdown, ended, counters, .. } = &*inside;
        let counts =
            [posts.len(), aborts.len(), usize::from(*shutdown), usize::from(counters.asked)];
        let [posts, aborts, shutdown, asked] = counts;
        (!ended && counts != [0; 4]).then(|| {
            format!("{posts} posts, {aborts} aborts, {shutdown} shutdown, {asked} questions wait")
        })
    }

    /// Refuses every request from now on.
    pub(crate) fn end(&self) {
        let mut inside = self.lock();
        inside.ended = true;
        inside.aborts.clear();
        let posts = std::mem::take(&mut inside.posts);
        // Dropping the user's payload may call this very mailbox.
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

    fn metrics(&self) -> Metrics {
        let mut inside = self.lock();
        if inside.running && !IN_A_LOOP.get() {
            let given = inside.counters.given;
            inside.counters.asked = true;
            self.wake();
            inside.counters.waiting += 1;
            while inside.running && inside.counters.given == given {
                inside = self.given.wait(inside).unwrap_or_else(PoisonError::into_inner);
            }
            inside.counters.waiting -= 1;
        }
        inside.counters.last.clone()
    }

    fn is_ended(&self) -> bool {
        self.lock().ended
    }
}

impl Home for Mailbox {
    fn bring(&self, closure: SendClosure) {
        let mut inside = self.lock();
        if inside.ended {
            drop(inside);
            drop_guarded(closure);
            return;
        }
        inside.posts.push_back(Post::Call(closure));
        drop(inside);
        self.wake();
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::handle::Handle;
    use crate::note::Note;

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

    /// A thread asks for the counters, and has its request in the mailbox.
    fn ask(mailbox: &Arc<Mailbox>) -> impl FnOnce() -> u64 + use<> {
        let (handle, (tell, told)) = (Handle::new(mailbox.clone()), mpsc::channel());
        std::thread::spawn(move || tell.send(handle.metrics().turns));
        while !mailbox.has_mail() {
            std::thread::yield_now();
        }
        move || told.recv_timeout(Duration::from_secs(60)).expect("nobody wakes it")
    }

    #[test]
    fn counters_are_asked_of_a_loop_that_runs_and_of_no_other() {
        let (mailbox, wakes) = mailbox(1);
        let handle = Handle::new(mailbox.clone());
        assert_eq!(handle.metrics().turns, 0);
        assert_eq!(wakes.load(Ordering::Relaxed), 0, "nobody is there to answer");
        let running = mailbox.run();
        assert_eq!(handle.metrics().turns, 0, "a loop does not wait for itself");
        let asked = ask(&mailbox);
        assert!(mailbox.take().counters && !mailbox.take().counters);
        let counters = |turns| Metrics { turns, ..Metrics::default() };
        mailbox.give(counters(1));
        assert_eq!(asked(), 1);
        // A loop that leaves without a look at its mail.
        let asked = ask(&mailbox);
        mailbox.give(counters(2));
        drop(running);
        assert_eq!(asked(), 2);
        assert_eq!(handle.metrics().turns, 2);
        assert_eq!(mailbox.lock().counters.waiting, 0, "nobody waits any more");
    }

    #[test]
    fn a_loop_that_panics_leaves_nobody_waiting() {
        let (mailbox, _) = mailbox(1);
        let running = mailbox.run();
        let asked = ask(&mailbox);
        drop(running);
        assert_eq!(asked(), 0);
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
