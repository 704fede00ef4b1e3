//! What drives a reactor until something holds.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{DriverLimits, Limits, ListenOptions, ListenerId, Protocol, Report};

use crate::leaks::{all_have_ended, nothing_is_left};
pub(crate) use crate::patience::PATIENCE;
pub(crate) use crate::plain::{Echo, Sink};
pub(crate) use crate::sockets::*;
pub(crate) use crate::trail::{Step, Trail, Watched};

/// The reactor's read buffer: what one read can add to a queue.
pub(crate) const READ_BUFFER: usize = 256 * KIB;

/// Turns until `done` holds.
#[track_caller]
pub(crate) fn drive(reactor: &mut Reactor, mut done: impl FnMut(&Reactor) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(reactor) {
        assert!(Instant::now() < deadline, "not done in {PATIENCE:?}: {:?}", reactor.metrics());
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
}

/// Turns until the thread has ended.
#[track_caller]
pub(crate) fn join<T>(reactor: &mut Reactor, thread: JoinHandle<T>) -> T {
    drive(reactor, |_| thread.is_finished());
    thread.join().unwrap()
}

/// Turns until every connection that ever was has been told `closed`, and looks for leaks.
#[track_caller]
pub(crate) fn settle(reactor: &mut Reactor) {
    drive(reactor, |reactor| all_have_ended(&reactor.metrics()));
    nothing_is_left(&reactor.metrics(), "the reactor");
}

/// Shuts the reactor down, as the end of a test: nothing may be left behind.
#[track_caller]
pub(crate) fn finish(mut reactor: Reactor) -> Report {
    reactor.handle().shutdown();
    drive(&mut reactor, Reactor::is_over);
    settle(&mut reactor);
    reactor.run().unwrap()
}

/// How many turns the reactor takes in `time` when it is left alone: a loop that spins takes
/// thousands.
pub(crate) fn turns_in(reactor: &mut Reactor, time: Duration) -> u64 {
    let before = reactor.metrics().turns;
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|t| !t.is_zero()) {
        reactor.turn(Some(left)).unwrap();
    }
    reactor.metrics().turns - before
}

pub(crate) fn listen<P: Protocol + 'static>(
    reactor: &mut Reactor,
    mut make: impl FnMut() -> P + 'static,
) -> SocketAddr {
    let listener = reactor.listen("127.0.0.1:0", move |_| Some(make())).unwrap();
    reactor.addresses(listener)[0].socket_addr().unwrap()
}

pub(crate) fn listen_with<P: Protocol + 'static>(
    reactor: &mut Reactor,
    change: impl FnOnce(&mut Limits),
    mut make: impl FnMut() -> P + 'static,
) -> (ListenerId, SocketAddr) {
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let listener = reactor.listen_with("127.0.0.1:0", options, move |_| Some(make())).unwrap();
    (listener, reactor.addresses(listener)[0].socket_addr().unwrap())
}

pub(crate) fn reactor_with(change: impl FnOnce(&mut DriverLimits)) -> Reactor {
    let mut limits = DriverLimits::default();
    change(&mut limits);
    Reactor::with_limits(limits).unwrap()
}

/// Listens with one protocol value, which is watched; further newcomers are refused.
pub(crate) fn listen_once<P: Protocol + 'static>(
    reactor: &mut Reactor,
    change: impl FnOnce(&mut Limits),
    protocol: P,
) -> (SocketAddr, Trail) {
    let trail = Trail::default();
    let mut options = ListenOptions::default();
    change(&mut options.limits);
    let mut watched = Some(Watched(protocol, trail.clone()));
    let listener = reactor.listen_with("127.0.0.1:0", options, move |_| watched.take()).unwrap();
    (reactor.addresses(listener)[0].socket_addr().unwrap(), trail)
}
