//! One datagram socket of the blocking driver: what its threads share.

use std::mem;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::bell::lock;
use super::system::Datagrams;
use crate::clock::Clock;
use crate::datagram::{DatagramProtocol, State};
use crate::handle::Post;
use crate::id::ConnId;
use crate::protocol::TimerOwner;
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::timer::Timers;

/// A datagram socket and its protocol.
///
/// Its state is in one place at a time: here, or with the thread that has taken it, which calls the
/// protocol and applies what that asks for. So no lock is held while user code runs, and no two
/// callbacks run at once.
pub(super) struct Outlet {
    pub(super) id: ConnId,
    /// To wake the thread that sleeps in it.
    socket: Weak<Datagrams>,
    table: Mutex<Table>,
    changed: Condvar,
    /// Bytes that wait because the system has no room for them.
    pub(super) unsent: AtomicUsize,
}

/// What a thread takes to do something for the socket.
pub(super) struct Inside {
    pub(super) state: State,
    pub(super) protocol: Option<Box<dyn DatagramProtocol + Send>>,
    pub(super) timers: Timers<TimerOwner>,
    /// None once the end is decided.
    pub(super) socket: Option<Arc<Datagrams>>,
    /// Until then what is due waits for the thread that receives: see `put_off` in `datagrams.rs`.
    pub(super) put_off: u64,
}

struct Table {
    /// None while a thread has it.
    inside: Option<Box<Inside>>,
    requests: Requests,
    /// Whether its own thread has begun: what is asked before waits for that.
    begun: bool,
    /// Whether its own thread waits for the state, perhaps with what it has received.
    awaited: bool,
    /// Whether a companion is there, and when it looks in any case.
    companion: bool,
    looks_at: u64,
    /// When something is due without a notification.
    due: u64,
    /// The socket is gone: no request is taken any more.
    over: bool,
}

/// What others have asked for since a thread last looked.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) posts: Vec<Post>,
    pub(super) abort: bool,
    /// Shutdown has begun.
    pub(super) stop: bool,
    /// The time to drain is over.
    pub(super) end: bool,
    /// No companion could be started: what waits for one would wait for ever.
    pub(super) alone: bool,
}

impl Requests {
    fn is_empty(&self) -> bool {
        self.posts.is_empty() && !(self.abort || self.stop || self.end || self.alone)
    }
}

impl Inside {
    pub(super) fn new(
        state: State,
        protocol: Option<Box<dyn DatagramProtocol + Send>>,
        socket: Option<Arc<Datagrams>>,
    ) -> Inside {
        Inside { state, protocol, timers: Timers::default(), socket, put_off: 0 }
    }

    /// When something is due without a notification. `u64::MAX` is never.
    fn due(&self) -> u64 {
        if self.state.has_due() || self.state.has_output_to_move() {
            return 0;
        }
        let timer = self.timers.next().unwrap_or(u64::MAX);
        timer.min(self.state.deadline_at()).max(self.put_off)
    }
}

impl Outlet {
    pub(super) fn new(id: ConnId, inside: Inside) -> Arc<Outlet> {
        let socket = inside.socket.as_ref().map(Arc::downgrade).unwrap_or_default();
        let table = Table {
            inside: Some(Box::new(inside)),
            requests: Requests::default(),
            begun: false,
            awaited: false,
            companion: false,
            looks_at: 0,
            due: u64::MAX,
            over: false,
        };
        let (table, changed) = (Mutex::new(table), Condvar::new());
        Arc::new(Outlet { id, socket, table, changed, unsent: AtomicUsize::new(0) })
    }

    // ---- requests ----------------------------------------------------------------------------

    /// Leaves a request. It comes back when the socket is gone. True when a companion has to be
    /// started, which is counted.
    pub(super) fn deliver(&self, post: Post) -> Result<bool, Post> {
        let mut table = lock(&self.table);
        if table.over {
            return Err(post);
        }
        table.requests.posts.push(post);
        Ok(self.asked(&mut table))
    }

    /// What was asked before its threads have begun, which will look.
    pub(super) fn ask_first(&self, ask: impl FnOnce(&mut Requests)) {
        ask(&mut lock(&self.table).requests);
    }

    /// Leaves what is never refused. True when a companion has to be started.
    #[must_use]
    pub(super) fn ask(&self, ask: impl FnOnce(&mut Requests)) -> bool {
        let mut table = lock(&self.table);
        ask(&mut table.requests);
        self.asked(&mut table)
    }

    /// A thread that has the state looks before it gives that back; else a companion has to.
    fn asked(&self, table: &mut Table) -> bool {
        self.changed.notify_all();
        let idle = table.begun && table.inside.is_some();
        let hires = idle && !table.companion && !table.over;
        table.companion |= hires;
        hires
    }

    /// The companion that was to be started could not be.
    pub(super) fn stay_alone(&self) {
        let mut table = lock(&self.table);
        table.companion = false;
        table.requests.alone = true;
        drop(table);
        self.changed.notify_all();
        if let Some(socket) = self.socket.upgrade() {
            socket.wake();
        }
    }

    // ---- the state ---------------------------------------------------------------------------

    /// Takes the state, for the socket's own thread: waits until no other has it.
    pub(super) fn take(&self) -> Box<Inside> {
        let mut table = lock(&self.table);
        table.begun = true;
        loop {
            if let Some(inside) = table.inside.take() {
                table.awaited = false;
                return inside;
            }
            table.awaited = true;
            table = self.wait(table, None);
        }
    }

    /// Whether the socket's own thread waits for the state.
    pub(super) fn is_awaited(&self) -> bool {
        lock(&self.table).awaited
    }

    /// Takes the state for a companion once something is due. None when the socket has ended.
    pub(super) fn take_when_due(&self, clock: &Clock) -> Option<Box<Inside>> {
        let mut table = lock(&self.table);
        loop {
            if table.over {
                return None;
            }
            let due = if table.requests.is_empty() { table.due } else { 0 };
            let left = due.saturating_sub(clock.exact());
            match table.inside.take() {
                Some(inside) if left == 0 => return Some(inside),
                other => table.inside = other,
            }
            let most = table.inside.is_some() && due < u64::MAX;
            table.looks_at = if most { due } else { u64::MAX };
            let most = most.then(|| Duration::from_nanos(left));
            table = self.wait(table, most);
            table.looks_at = 0;
        }
    }

    fn wait<'a>(
        &self,
        table: MutexGuard<'a, Table>,
        most: Option<Duration>,
    ) -> MutexGuard<'a, Table> {
        match most {
            None => self.changed.wait(table).unwrap_or_else(PoisonError::into_inner),
            Some(most) => {
                let woken = self.changed.wait_timeout(table, most);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// The socket's own thread waits until then, or until it would be woken out of the socket.
    pub(super) fn pause(&self, clock: &Clock, until: u64) {
        let mut table = lock(&self.table);
        while !table.over && !table.requests.alone {
            let left = until.saturating_sub(clock.exact());
            if left == 0 {
                break;
            }
            table = self.wait(table, Some(Duration::from_nanos(left)));
        }
    }

    /// Takes what has been asked for so far.
    pub(super) fn take_requests(&self) -> Requests {
        mem::take(&mut lock(&self.table).requests)
    }

    /// Gives the state back. It comes back at once when something was asked for meanwhile.
    /// `Ok(true)`: a companion has to be started, which is counted.
    pub(super) fn give_back(&self, inside: Box<Inside>) -> Result<bool, Box<Inside>> {
        let mut table = lock(&self.table);
        if !table.requests.is_empty() {
            return Err(inside);
        }
        table.due = inside.due();
        table.inside = Some(inside);
        let hires = table.due < u64::MAX && !table.companion;
        table.companion |= hires;
        // A companion that sleeps for longer has to look; so has a thread that waits for the state.
        if table.due < table.looks_at || table.looks_at == 0 {
            self.changed.notify_all();
        }
        Ok(hires)
    }

    /// Gives the state back for the last time: the end is decided, and every thread wakes up.
    pub(super) fn give_back_ended(&self, inside: Box<Inside>) {
        let mut table = lock(&self.table);
        if let Some(socket) = &inside.socket {
            socket.wake();
        }
        table.over = true;
        table.inside = Some(inside);
        self.changed.notify_all();
    }

    /// The companion leaves.
    pub(super) fn leave(&self) {
        lock(&self.table).companion = false;
        self.changed.notify_all();
    }

    /// Waits until no companion is left, and takes the state and the requests that are left: from
    /// now on no request is taken.
    pub(super) fn close(&self) -> (Box<Inside>, Vec<Post>) {
        let mut table = lock(&self.table);
        table.over = true;
        self.changed.notify_all();
        loop {
            if !table.companion {
                if let Some(inside) = table.inside.take() {
                    return (inside, mem::take(&mut table.requests.posts));
                }
            }
            table = self.wait(table, None);
        }
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::sync::mpsc;
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::clock::Readings;
    use crate::datagram::{DatagramOptions, Round};
    use crate::id::Ids;

    fn outlet() -> (Arc<Outlet>, Box<Inside>) {
        let id = Ids::default().reserve();
        let state = State::new(id, Arc::new(DatagramOptions::default()), 0);
        let inside = Inside::new(state, None, None);
        let outlet = Outlet::new(id, inside);
        let inside = outlet.take();
        (outlet, inside)
    }

    #[test]
    fn of_several_requests_for_a_socket_that_sleeps_the_first_starts_a_companion() {
        let (outlet, inside) = outlet();
        let stop = || outlet.ask(|requests| requests.stop = true);
        assert!(!stop(), "the thread that has the state looks for itself");
        let Err(inside) = outlet.give_back(inside) else { panic!("it was asked for something") };
        assert!(outlet.take_requests().stop);
        assert!(matches!(outlet.give_back(inside), Ok(true)), "`opened` is due");
        assert!(!stop(), "that has a companion started");
        outlet.leave();
        assert!(stop());
        assert!(!stop() && matches!(outlet.deliver(Post::Close(outlet.id)), Ok(false)));
        outlet.leave();
        assert!(stop(), "the companion has left");
        outlet.stay_alone();
        assert!(outlet.take_requests().alone);
        assert!(stop(), "there was none");
    }

    #[test]
    fn an_end_that_is_put_off_is_due_when_that_is_over() {
        let (_, mut inside) = outlet();
        let options = DatagramOptions { idle: Some(Duration::from_nanos(5)), ..Default::default() };
        inside.state = State::new(inside.state.id(), Arc::new(options), 0);
        while inside.state.poll_due(&mut Round::default()).is_some() {}
        let end = inside.state.deadline_at();
        for (put_off, due) in [(0, end), (end, end), (end + 1, end + 1)] {
            inside.put_off = put_off;
            assert_eq!(inside.due(), due);
        }
    }

    #[test]
    fn a_socket_is_awaited_while_its_thread_waits_for_what_another_has() {
        let (outlet, inside) = outlet();
        assert!(!outlet.is_awaited());
        let waiting = std::thread::spawn({
            let outlet = Arc::clone(&outlet);
            move || outlet.take()
        });
        while !outlet.is_awaited() {
            assert!(!waiting.is_finished(), "it did not wait");
            std::thread::yield_now();
        }
        assert!(outlet.give_back(inside).is_ok());
        waiting.join().unwrap();
        assert!(!outlet.is_awaited());
    }

    #[test]
    fn a_pause_lasts_until_its_time_and_no_longer_than_the_socket_is_slept_in() {
        let clock = Clock::system(Readings { monotonic: Instant::now, wall: SystemTime::now });
        let (outlet, _inside) = outlet();
        let until = clock.exact() + 5_000_000;
        outlet.pause(&clock, until);
        assert!(clock.exact() >= until);
        outlet.pause(&clock, until);
        type Wake = fn(&Outlet, Box<Inside>);
        let wakes: [Wake; 2] =
            [Outlet::give_back_ended, |outlet: &Outlet, _: Box<Inside>| outlet.stay_alone()];
        for wake in wakes {
            let (outlet, inside) = self::outlet();
            let (tell, told) = mpsc::channel();
            let (pausing, clock) = (Arc::clone(&outlet), clock.clone());
            std::thread::spawn(move || {
                pausing.pause(&clock, u64::MAX - 1);
                tell.send(()).unwrap();
            });
            // Neither a notification nor a request is the end.
            outlet.ask_first(|requests| requests.stop = true);
            outlet.changed.notify_all();
            told.recv_timeout(Duration::from_millis(5)).unwrap_err();
            wake(&outlet, inside);
            told.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }

    #[test]
    fn a_socket_that_is_gone_takes_no_request_and_gives_back_what_it_has() {
        let (outlet, inside) = outlet();
        assert!(outlet.deliver(Post::Close(outlet.id)).is_ok());
        outlet.give_back_ended(inside);
        let (_, posts) = outlet.close();
        assert_eq!(posts.len(), 1);
        assert!(outlet.deliver(Post::Close(outlet.id)).is_err());
        // One that never had a thread.
        let state = State::new(outlet.id, Arc::new(DatagramOptions::default()), 0);
        let inside = Inside::new(state, None, None);
        let outlet = Outlet::new(outlet.id, inside);
        outlet.close();
        assert!(outlet.deliver(Post::Close(outlet.id)).is_err());
    }
}
