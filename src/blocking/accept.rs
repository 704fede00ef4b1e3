//! A thread per listening socket, which waits for clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::bell::lock;
use super::cell::Cell;
use super::hub::{Desk, Hub, State};
use super::listening::{Listening, Socket};
use super::pool::Job;
use super::system::{self, Stream};
use crate::admission::{AcceptError, Pace, Place};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, Op, Result};
use crate::guard::{drop_guarded, guarded};
use crate::id::{ConnId, ListenerId};
use crate::limits::Limits;
use crate::protocol::{BoxedFactory, Incoming, Protocol};
use crate::socket::{Reserve, retry};
use crate::sync::atomic::Ordering;

/// What a listening thread needs.
pub(super) struct Acceptor {
    pub(super) id: ListenerId,
    pub(super) socket: Arc<Socket>,
    pub(super) factory: Arc<BoxedFactory>,
    pub(super) limits: Arc<Limits>,
}

impl Acceptor {
    pub(super) fn start(self, hub: &Arc<Hub>) -> Result<()> {
        hub.acceptor_started();
        let serial = hub.serial.load(Ordering::Relaxed);
        let owned = Arc::clone(hub);
        // If no thread starts, this drops the last reference.
        let factory = Arc::clone(&self.factory);
        let started = hub.thread(format!("lariat {}", self.id)).spawn(move || {
            self.accept_all(&owned, serial);
            drop_guarded(self);
            owned.acceptor_ended();
        });
        drop_guarded(factory);
        if started.is_err() {
            hub.acceptor_ended();
        }
        started.map(drop).map_err(|error| Error::from_io(Op::Start, error))
    }

    fn accept_all(&self, hub: &Arc<Hub>, serial: bool) {
        let mut desk = serial.then(|| Desk::new(hub));
        let mut reserve = Reserve::new();
        let mut pace = Pace::default();
        while hub.wait_to_accept(&self.socket, &mut pace) {
            let accept = || match self.accept() {
                Err(error) if AcceptError::of(&error) == AcceptError::Exhausted => {
                    self.accept_exhausted(hub, &mut reserve, &mut pace, error)
                }
                other => other,
            };
            match self.socket.wait_for_client(accept) {
                Ok((stream, peer)) => self.take_in(hub, &mut pace, stream, peer, desk.as_mut()),
                Err(_) if self.socket.is_stopped() => return,
                Err(error) => hub.note_failed(&mut pace, &error),
            }
        }
    }

    /// A client that was accepted. Nobody else can serve it: it is taken in also when the listener
    /// has been stopped meanwhile.
    fn take_in(
        &self,
        hub: &Arc<Hub>,
        pace: &mut Pace,
        stream: Stream,
        peer: Endpoint,
        here: Option<&mut Desk>,
    ) {
        match hub.claim(pace, peer) {
            Some(id) => self.admit(hub, id, stream, peer, here),
            None => hub.count(|metrics| metrics.refused += 1),
        }
    }

    fn accept(&self) -> io::Result<(Stream, Endpoint)> {
        retry(|| system::accept(&self.socket.listener))
    }

    /// A resource is lacking, which the system reports also when no connection waits. The next
    /// connection is accepted with the reserve. It is admitted if the reserve can be restored,
    /// otherwise turned away. If none waits, nothing has failed.
    fn accept_exhausted(
        &self,
        hub: &Hub,
        reserve: &mut Reserve,
        pace: &mut Pace,
        error: io::Error,
    ) -> io::Result<(Stream, Endpoint)> {
        reserve.free();
        let accepted = self.accept();
        lock(&hub.state).admission.note_lack(pace);
        if reserve.restore() {
            hub.count(|metrics| metrics.accept_errors += u64::from(accepted.is_ok()));
            return accepted;
        }
        hub.count(|metrics| metrics.refused += u64::from(accepted.is_ok()));
        drop(accepted);
        reserve.restore();
        Err(error)
    }

    /// An accepted connection, which has a place: the factory decides.
    fn admit(
        &self,
        hub: &Arc<Hub>,
        id: ConnId,
        stream: Stream,
        peer: Endpoint,
        here: Option<&mut Desk>,
    ) {
        let Some(protocol) = self.make(hub, &stream, peer) else {
            hub.count(|metrics| metrics.refused += 1);
            return hub.unclaim(id);
        };
        let limits = Arc::clone(&self.limits);
        hub.outputs.note(&limits);
        let conn = Connection::accepted(id, Some(self.id), peer, limits, hub.clock.exact());
        let cell = Cell::new(id, conn, protocol, Some(stream));
        hub.enter_claimed(&cell);
        match here {
            Some(desk) => hub.serve_here(desk, cell),
            None => hub.begin(Job::Serve(cell)),
        }
    }

    fn make(&self, hub: &Hub, stream: &Stream, peer: Endpoint) -> Option<Box<dyn Protocol + Send>> {
        let incoming = Incoming::new(peer, self.id, self.socket.addr, stream);
        guarded(|| (self.factory)(&incoming)).unwrap_or_else(|panic| {
            log::error!(target: "lariat::accept", "a factory panicked: {panic}");
            hub.count(|metrics| metrics.panics += 1);
            None
        })
    }
}

impl Hub {
    /// Waits until `socket` may accept; false when it has stopped.
    fn wait_to_accept(&self, socket: &Socket, pace: &mut Pace) -> bool {
        let mut state = lock(&self.state);
        while !socket.is_stopped() {
            if self.place(&state) == Place::Wait {
                state = self.stand_in_line(state, None);
                continue;
            }
            if !state.admission.may_wait(pace) {
                return true;
            }
            let now = self.clock.exact();
            let next = state.admission.next_try(pace, now);
            if next <= now {
                state.admission.expect_failure(pace, now);
                return true;
            }
            state = self.stand_in_line(state, Some(Duration::from_nanos(next - now)));
        }
        false
    }

    /// Whether there is a place for one more connection, and a thread.
    fn place(&self, state: &State) -> Place {
        let threads = self.serial.load(Ordering::Relaxed) || state.pool.has_room();
        if threads { state.place() } else { state.admission.place(u64::MAX) }
    }

    /// Takes a place and a thread for an accepted connection, which counts from now on under the id
    /// that it gets. None when it has to be refused.
    ///
    /// Several listeners and outgoing connections compete for places, so a place seen free before
    /// an accept may be taken after it: where connections wait for a place, this one waits too, as
    /// long as the driver has time.
    fn claim(&self, pace: &mut Pace, peer: Endpoint) -> Option<ConnId> {
        let mut state = lock(&self.state);
        let now = self.clock.exact();
        state.admission.note_accepted(pace, now);
        loop {
            match self.place(&state) {
                _ if state.drain_over => return None,
                Place::Free => break,
                Place::Wait => {}
                Place::Shed => return None,
            }
            state = self.stand_in_line(state, None);
        }
        if !state.admission.admit(peer, now) {
            return None;
        }
        let id = lock(&self.ids).reserve();
        state.admission.enter(id, peer);
        state.open += 1;
        state.pool.claim();
        Some(id)
    }

    /// Gives the place, the thread and the id back.
    fn unclaim(&self, id: ConnId) {
        self.release(id);
        let mut state = lock(&self.state);
        state.admission.leave(id);
        state.open -= 1;
        state.pool.unclaim();
        self.tell_acceptors(&state);
    }

    fn note_failed(&self, pace: &mut Pace, error: &io::Error) {
        let mut state = lock(&self.state);
        state.metrics.accept_errors += 1;
        state.admission.note_failed(pace, error, self.clock.exact());
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Instant, SystemTime};

    use super::super::system;
    use super::*;
    use crate::clock::{Clock, Readings};
    use crate::limits::{DriverLimits, Overload};
    use crate::options::ListenOptions;
    use crate::sync::atomic::AtomicU64;

    fn hub() -> Arc<Hub> {
        let readings = Readings { monotonic: Instant::now, wall: SystemTime::now };
        Arc::new(Hub::new(Clock::system(readings), DriverLimits::default(), |_, _, _| ()))
    }

    fn socket() -> Socket {
        let addr = ([127, 0, 0, 1], 0).into();
        let bound = system::sockets().listen(addr, &ListenOptions::default()).unwrap();
        Socket::new(bound.addr, *bound.socket.downcast().unwrap())
    }

    /// A socket that another has as well.
    fn adopted() -> (Socket, TcpListener) {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let given = kept.try_clone().unwrap().into();
        let bound = system::sockets().adopt_listener(given, &ListenOptions::default());
        let bound = bound.unwrap_or_else(|(error, _)| panic!("{error}"));
        assert!(socket2::SockRef::from(&kept).nonblocking().unwrap());
        (Socket::new(bound.addr, *bound.socket.downcast().unwrap()), kept)
    }

    /// A socket for which nothing is left.
    fn exhausted(hub: &Hub) -> Pace {
        let mut pace = Pace::default();
        lock(&hub.state).admission.note_lack(&mut pace);
        hub.note_failed(&mut pace, &io::Error::from_raw_os_error(libc::EMFILE));
        pace
    }

    fn waits(hub: &Hub, pace: &Pace) -> bool {
        let now = hub.clock.exact();
        lock(&hub.state).admission.next_try(pace, now) > 0
    }

    #[test]
    fn a1_a_thread_that_is_done_releases_a_descriptor() {
        let hub = hub();
        let pace = exhausted(&hub);
        lock(&hub.state).pool.busy = 1;
        assert!(waits(&hub, &pace));
        assert!(hub.wait_for_job(true).is_none());
        assert!(!waits(&hub, &pace));
    }

    #[test]
    fn a1_a_datagram_socket_that_gives_its_place_back_releases_a_descriptor() {
        let hub = hub();
        let pace = exhausted(&hub);
        assert!(hub.take_place() && waits(&hub, &pace));
        hub.give_place();
        assert!(!waits(&hub, &pace));
        assert_eq!(lock(&hub.state).bound, 0);
    }

    #[test]
    fn a1_a_listener_that_stops_releases_a_descriptor() {
        let hub = hub();
        let pace = exhausted(&hub);
        hub.acceptor_started();
        assert!(waits(&hub, &pace));
        hub.acceptor_ended();
        assert!(!waits(&hub, &pace));
    }

    #[test]
    fn a1_what_is_tried_after_a_pause_counts_before_it_fails() {
        let hub = hub();
        let mut paces: Vec<Pace> = (0..4).map(|_| exhausted(&hub)).collect();
        hub.note_released();
        assert!(paces.iter().all(|pace| !waits(&hub, pace)));
        let socket = socket();
        assert!(hub.wait_to_accept(&socket, &mut paces[0]));
        // With the fifth of a second, there is a gap before the next.
        assert!(waits(&hub, &paces[1]));
    }

    #[test]
    fn a_refused_connection_gives_its_id_back() {
        let hub = hub();
        let claim = || hub.claim(&mut Pace::default(), Endpoint::Other).unwrap();
        let first = claim();
        hub.unclaim(first);
        assert!(!lock(&hub.ids).is_current(first));
        assert_eq!(claim().slot(), first.slot());
        assert_eq!(lock(&hub.state).open, 1);
    }

    /// A hub with one place, which is taken.
    fn full(overload: Overload) -> Arc<Hub> {
        let limits = DriverLimits {
            connections_max: 1,
            overload,
            drain: Duration::ZERO,
            ..DriverLimits::default()
        };
        let readings = Readings { monotonic: Instant::now, wall: SystemTime::now };
        let hub = Arc::new(Hub::new(Clock::system(readings), limits, |_, _, _| ()));
        lock(&hub.state).open = 1;
        hub
    }

    /// A thread with a client that has been accepted, which waits for a place. It says whether the
    /// client got one.
    fn claiming(hub: &Arc<Hub>) -> std::sync::mpsc::Receiver<bool> {
        let (tell, told) = std::sync::mpsc::channel();
        let claiming = Arc::clone(hub);
        let thread = std::thread::spawn(move || {
            let claimed = claiming.claim(&mut Pace::default(), Endpoint::Other);
            let _ = tell.send(claimed.is_some());
        });
        while lock(&hub.state).in_line() == 0 {
            assert!(!thread.is_finished(), "it does not wait");
            std::thread::yield_now();
        }
        told
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_client_that_was_accepted_gets_the_next_place_although_its_listener_stops() {
        let hub = full(Overload::Pause);
        lock(&hub.state).draining = true;
        let told = claiming(&hub);
        lock(&hub.state).open = 0;
        hub.note_released();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
        assert_eq!(lock(&hub.state).open, 1);
    }

    #[test]
    fn a_client_that_waits_for_a_place_is_turned_away_when_the_drain_is_over() {
        let hub = full(Overload::Pause);
        let told = claiming(&hub);
        // The place is not given back.
        super::super::runner::Runner::new(&hub).drain();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(false));
        // One that comes too late for its end gets a free one no more.
        lock(&hub.state).open = 0;
        assert_eq!(hub.claim(&mut Pace::default(), Endpoint::Other), None);
        assert_eq!(lock(&hub.state).open, 0);
    }

    #[test]
    fn a_client_above_the_limit_does_not_wait_where_the_driver_sheds() {
        let hub = full(Overload::Shed);
        assert_eq!(hub.claim(&mut Pace::default(), Endpoint::Other), None);
    }

    /// What accepts from a socket, and counts the clients that it asks about. It refuses them.
    fn acceptor(socket: Socket) -> (Acceptor, Arc<AtomicU64>) {
        let asked = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&asked);
        let factory: BoxedFactory = Box::new(move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
            None
        });
        let (id, factory, limits) = (ListenerId::new(0), Arc::new(factory), Arc::default());
        (Acceptor { id, socket: Arc::new(socket), factory, limits }, asked)
    }

    #[test]
    fn a_client_that_was_accepted_before_the_stop_is_taken_in() {
        let hub = hub();
        let (socket, kept) = adopted();
        let (acceptor, asked) = acceptor(socket);
        let _client = TcpStream::connect(kept.local_addr().unwrap()).unwrap();
        let (stream, peer) = acceptor.socket.wait_for_client(|| acceptor.accept()).unwrap();
        acceptor.socket.stop();
        acceptor.take_in(&hub, &mut Pace::default(), stream, peer, None);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // Its thread accepts no other one.
        let other = TcpStream::connect(kept.local_addr().unwrap()).unwrap();
        acceptor.accept_all(&hub, false);
        kept.set_nonblocking(false).unwrap();
        assert_eq!(kept.accept().unwrap().1, other.local_addr().unwrap());
        let metrics = hub.metrics();
        assert_eq!((metrics.refused, metrics.accept_errors), (1, 0));
    }

    #[test]
    fn whenever_the_stop_comes_each_client_is_taken_in_or_left_in_the_queue() {
        const CLIENTS: u64 = 60;
        for moment in 0..60 {
            let (socket, kept) = adopted();
            let addr = kept.local_addr().unwrap();
            let _clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(addr)).collect();
            let (acceptor, asked) = acceptor(socket);
            let (hub, socket) = (hub(), Arc::clone(&acceptor.socket));
            let thread = std::thread::spawn(move || acceptor.accept_all(&hub, false));
            while asked.load(Ordering::Relaxed) < CLIENTS / 4 {
                std::hint::spin_loop();
            }
            // The thread goes on meanwhile: each time a little further.
            (0..moment * 10).for_each(|_| std::hint::spin_loop());
            socket.stop();
            thread.join().unwrap();
            let (asked, mut left) = (asked.load(Ordering::Relaxed), 0);
            let deadline = Instant::now() + PATIENCE;
            while asked + left < CLIENTS {
                left += u64::from(kept.accept().is_ok());
                assert!(Instant::now() < deadline, "of {CLIENTS} clients {asked} and {left}");
            }
            assert!(kept.accept().is_err());
        }
    }

    #[test]
    fn a1_a_shared_listener_without_a_client_fails_no_accept_while_descriptors_lack() {
        let hub = hub();
        let (socket, _kept) = adopted();
        let (acceptor, _) = acceptor(socket);
        let (mut reserve, lack) = (Reserve::new(), io::Error::from_raw_os_error(libc::EMFILE));
        let tried = acceptor.accept_exhausted(&hub, &mut reserve, &mut Pace::default(), lack);
        assert_eq!(tried.map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let metrics = hub.metrics();
        assert_eq!((metrics.refused, metrics.accept_errors), (0, 0));
    }

    static READINGS: AtomicU64 = AtomicU64::new(0);

    /// A clock that counts its readings, an hour after it has been read first.
    fn counted() -> Instant {
        let earlier = READINGS.fetch_add(1, Ordering::Relaxed);
        Instant::now() + Duration::from_secs(if earlier > 0 { 3600 } else { 0 })
    }

    #[test]
    fn a1_the_thread_of_a_listener_sleeps_until_the_next_try() {
        let readings = Readings { monotonic: counted, wall: SystemTime::now };
        let hub =
            Arc::new(Hub::new(Clock::system(readings), DriverLimits::default(), |_, _, _| ()));
        let socket = socket();
        let mut pace = exhausted(&hub);
        let next = lock(&hub.state).admission.next_try(&pace, hub.clock.exact());
        let (tell, told) = std::sync::mpsc::channel();
        let owned = Arc::clone(&hub);
        std::thread::spawn(move || {
            let _ = tell.send(owned.wait_to_accept(&socket, &mut pace));
        });
        let tries = told.recv_timeout(Duration::from_secs(60));
        assert_eq!(tries, Ok(true), "it sleeps on after the pause");
        assert!(hub.clock.exact() >= next, "it does not wait for the pause to pass");
        let readings = READINGS.load(Ordering::Relaxed);
        assert!(readings < 100, "it looks {readings} times instead of sleeping");
    }
}

impl Hub {
    // ---- listeners ---------------------------------------------------------------------------

    /// Enters a listener; false when the driver stops, or it was stopped since it was made.
    pub(super) fn add_listener(&self, id: ListenerId, sockets: Vec<Arc<Socket>>) -> bool {
        // Under the lock: a stop looks at the list after it has said so.
        let mut state = lock(&self.state);
        if self.is_stopping() || !self.listeners.has(id) {
            self.listeners.remove(id);
            return false;
        }
        state.listeners.push(Listening { id, sockets });
        true
    }

    pub(super) fn stop_listening(&self, id: ListenerId) {
        let mut state = lock(&self.state);
        let at = state.listeners.iter().position(|l| l.id == id);
        let gone = at.map(|at| state.listeners.remove(at));
        // Under the lock, and before the listener is said to be gone: a callback that finds it gone
        // may listen at its address. No acceptor is between looking and waiting for room.
        gone.iter().flat_map(|gone| &gone.sockets).for_each(|socket| socket.stop());
        self.listeners.remove(id);
        if gone.is_none() {
            return;
        }
        self.tell_acceptors(&state);
        self.tell_runner(&state);
        drop(state);
        drop(gone);
    }

    pub(super) fn stop_all_listening(&self) {
        let listeners: Vec<ListenerId> = lock(&self.state).listeners.iter().map(|l| l.id).collect();
        for id in listeners {
            self.stop_listening(id);
        }
    }

    pub(super) fn acceptor_started(&self) {
        lock(&self.state).pool.acceptors += 1;
    }

    pub(super) fn acceptor_ended(&self) {
        let mut state = lock(&self.state);
        state.pool.acceptors -= 1;
        self.tell_runner(&state);
        drop(state);
        self.note_released();
    }

    /// A descriptor has been released, and not by the thread of a connection.
    pub(super) fn note_released(&self) {
        let mut state = lock(&self.state);
        state.admission.note_released();
        self.tell_acceptors(&state);
    }
}
