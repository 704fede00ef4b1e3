//! The threads of a datagram socket: its own sleeps in the socket and shows what comes; a
//! companion, which is started by the first timer, deadline or request, waits for those.
//!
//! Both do whatever is due when they have the state. Before a silence ends, and before timers, what
//! has come is shown; a flood of datagrams puts them off for no more than a socket may have
//! waiting. Sending over UDP sleeps until the system has room, which it soon has. What a Unix
//! socket sends waits in the socket's own queue, as its receiver may never have room, and so does
//! what an adopted one sends, which never sleeps.

use std::sync::Arc;
use std::{iter, mem};

use super::effects::{self, Author};
use super::hub::{Desk, Hub};
use super::outlet::{Inside, Outlet};
use super::system::{self, Datagrams};
use crate::datagram::{
    Called, Datagram, DatagramSocket, Due, NoSocket, Phase, Read, Received, Round, State,
};
use crate::guard::{drop_guarded, guarded};
use crate::handle::Post;
use crate::protocol::{TimerOwner, drop_protocol};
use crate::reason::{By, CloseKind, ConnectFailure};
use crate::sync::atomic::Ordering;
use crate::timer::Timers;

/// How long what is due waits at a time for the thread that receives.
const MILLISECOND: u64 = 1_000_000;

/// Receives until the end, on this thread, and tells `closed`.
pub(super) fn receive(hub: &Arc<Hub>, desk: &mut Desk, outlet: &Arc<Outlet>) {
    let mut keeper = Keeper { hub, outlet, desk };
    let mut inside = outlet.take();
    let kept = inside.state.options().datagram_max;
    // One byte more than is kept shows that a datagram was longer.
    let mut buffer = vec![0; kept + 1];
    let mut failing = false;
    loop {
        keeper.advance(&mut inside);
        let Some(socket) = inside.socket.clone().filter(|_| !is_over(&inside.state)) else { break };
        // One that is closing has no pause of its own.
        let retry = failing.then(|| hub.clock.exact() + MILLISECOND);
        let paused_until = inside.state.paused_until().or(retry);
        failing = false;
        match outlet.give_back(inside) {
            Ok(hires) => keeper.hire(hires),
            Err(back) => {
                inside = back;
                continue;
            }
        }
        if let Some(until) = paused_until {
            outlet.pause(&hub.clock, until);
        }
        let received = socket.receive(&mut buffer);
        drop(socket);
        inside = outlet.take();
        if is_over(&inside.state) {
            break;
        }
        if !inside.state.may_call() {
            // It is closing, and waits for what is to leave.
            failing = received.is_err();
            continue;
        }
        let now = keeper.desk.shared.clock.exact();
        let read = inside.state.handle_read(&received, &mut keeper.desk.shared.metrics, now);
        if let (Read::Datagram { truncated }, Ok(received)) = (read, received) {
            let Received { len, from, to, ecn, .. } = received;
            let bytes = &buffer[..len.min(kept)];
            keeper.call(&mut inside, |called| {
                called.datagram(&Datagram { bytes, from, to, ecn, truncated });
            });
        }
    }
    outlet.give_back_ended(inside);
    keeper.tell_closed();
}

/// Does what is due until the end is decided.
pub(super) fn accompany(hub: &Arc<Hub>, desk: &mut Desk, outlet: &Arc<Outlet>) {
    let mut keeper = Keeper { hub, outlet, desk };
    while let Some(mut inside) = outlet.take_when_due(&hub.clock) {
        loop {
            keeper.advance(&mut inside);
            if is_over(&inside.state) {
                outlet.give_back_ended(inside);
                break;
            }
            match outlet.give_back(inside) {
                Ok(_) => break,
                Err(back) => inside = back,
            }
        }
    }
    outlet.leave();
}

fn is_over(state: &State) -> bool {
    state.phase() == Phase::Ended
}

/// The socket, unless more has been received already: what came together is answered together.
fn answering(inside: &Inside) -> Option<Arc<Datagrams>> {
    inside.socket.clone().filter(|socket| !socket.has_more())
}

/// What waits for a datagram that is to be shown first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PutOff {
    /// The end of a silence.
    end: bool,
    timers: bool,
}

/// One thread with a socket.
struct Keeper<'a> {
    hub: &'a Arc<Hub>,
    outlet: &'a Arc<Outlet>,
    desk: &'a mut Desk,
}

impl Keeper<'_> {
    fn hire(&self, hires: bool) {
        if hires {
            self.hub.accompany_outlet(self.outlet);
        }
    }

    /// Does everything that is due now. What becomes due meanwhile waits for the next time.
    fn advance(&mut self, inside: &mut Inside) {
        self.desk.shared.metrics.turns += 1;
        self.desk.shared.stopping = self.hub.is_stopping();
        let now = self.desk.shared.clock.exact();
        self.take_requests(inside);
        inside.state.handle_retry(now);
        if let Some(socket) = answering(inside) {
            inside.state.flush(&*socket, &mut self.desk.shared.metrics, now);
        }
        let put_off = self.put_off(inside, now);
        if !put_off.end && inside.state.handle_deadline(now) {
            self.desk.shared.metrics.timers += 1;
        }
        self.settle(inside);
        let mut round = Round::default();
        while let Some(due) = inside.state.poll_due(&mut round) {
            self.call(inside, |called| match due {
                Due::Opened => called.opened(),
                Due::Stopping => called.stopping(),
                Due::Drained => called.drained(),
                Due::Refused(to) => called.refused(to),
                Due::Notified(note) => called.notified(note),
            });
        }
        // Those set meanwhile wait for the next time, also those without a delay.
        let pop = || if put_off.timers { None } else { inside.timers.pop_due(now) };
        for (owner, key) in iter::from_fn(pop).collect::<Vec<_>>() {
            let TimerOwner::Protocol(_, timer) = owner else { continue };
            if inside.state.has_timer(timer, key) {
                inside.state.take_timer(timer);
                self.desk.shared.metrics.timers += 1;
                self.call(inside, |called| called.timeout(timer));
            }
        }
        if let Some(socket) = answering(inside) {
            inside.state.send_train(&*socket, &mut self.desk.shared.metrics, now);
        }
        self.settle(inside);
        self.desk.publish();
    }

    /// What of that which is due has to wait: something has come that its thread has not shown yet,
    /// because of a callback, or because the process was stopped.
    fn put_off(&mut self, inside: &mut Inside, now: u64) -> PutOff {
        let timer = inside.timers.next().is_some_and(|next| next <= now);
        let end = inside.state.is_overdue(now);
        if inside.state.phase() != Phase::Open || !(timer || end) {
            inside.state.note_waiting(false);
            return PutOff::default();
        }
        // While the system lacks memory nothing can be shown.
        let receives = inside.state.paused_until().is_none();
        let waits = self.outlet.is_awaited() || (receives && self.has_datagram(inside, now));
        let timers = inside.state.note_waiting(waits);
        let put_off = PutOff { end: end && waits, timers: timer && timers };
        if put_off.end || put_off.timers {
            inside.put_off = now + MILLISECOND;
        }
        put_off
    }

    fn has_datagram(&mut self, inside: &mut Inside, now: u64) -> bool {
        let Some(socket) = &inside.socket else { return false };
        system::has_datagram(socket).unwrap_or_else(|error| {
            inside.state.handle_read(&Err(error), &mut self.desk.shared.metrics, now);
            false
        })
    }

    /// Applies what others have asked for.
    fn take_requests(&mut self, inside: &mut Inside) {
        let requests = self.outlet.take_requests();
        self.hub.count_taken(requests.posts.len());
        if requests.abort {
            // It overtakes what waits.
            inside.state.want_abort();
            self.settle(inside);
        }
        for post in requests.posts {
            match post {
                Post::Notify { note, .. } => {
                    if let Err(refused) = inside.state.handle_note(note) {
                        self.desk.shared.metrics.refused_notes += 1;
                        drop_guarded(refused);
                    }
                }
                Post::Close(_) => {
                    inside.state.want_close();
                    self.settle(inside);
                }
                // There is nothing of it here that could be written to, or finished. Bytes guard
                // their own drop.
                _ => self.desk.shared.metrics.stale += 1,
            }
        }
        if requests.stop {
            inside.state.handle_shutdown();
        }
        if requests.end && requests.stop {
            // There is no time to drain. `stopping` runs first all the same.
            self.outlet.ask_first(|requests| requests.end = true);
        } else if requests.end {
            inside.state.end(By::Runtime, CloseKind::Shutdown, None);
        }
        if requests.alone {
            let fresh = inside.state.phase() == Phase::Fresh;
            let exhausted = CloseKind::Connect(ConnectFailure::Exhausted);
            let kind = if fresh { exhausted } else { CloseKind::Aborted };
            inside.state.end(By::Runtime, kind, None);
        }
    }

    /// Runs one callback, to which the timers of the socket are lent, and applies what it asks for.
    fn call(&mut self, inside: &mut Inside, call: impl FnOnce(Called<'_>)) {
        let Inside { state, protocol, timers, socket, .. } = inside;
        let Some(protocol) = protocol else { return };
        let socket: &dyn DatagramSocket = match socket {
            Some(socket) => &**socket,
            None => &NoSocket,
        };
        let shared = &mut self.desk.shared;
        mem::swap(&mut shared.timers, timers);
        call(Called { shared: &mut *shared, state, protocol: &mut **protocol, socket });
        mem::swap(&mut shared.timers, timers);
        self.settle(inside);
    }

    /// Effects first, then the requests for the socket itself.
    fn settle(&mut self, inside: &mut Inside) {
        let shared = &mut self.desk.shared;
        if !shared.effects.is_empty() {
            effects::apply(&mut Author { hub: self.hub, shared, cell: None }, &[]);
        }
        let now = self.desk.shared.clock.exact();
        inside.state.handle_wishes(&mut self.desk.shared.metrics, now);
        if let Some((_, unsent)) = inside.state.poll_unsent() {
            self.outlet.unsent.store(unsent, Ordering::Relaxed);
        }
        if inside.state.phase() >= Phase::Closing {
            inside.timers = Timers::default();
        }
    }

    /// Tells the protocol that its socket has ended, and removes it. The descriptor is released
    /// before.
    fn tell_closed(&mut self) {
        let (hub, id) = (self.hub, self.outlet.id);
        let (mut inside, posts) = self.outlet.close();
        inside.socket = None;
        hub.listeners.remove_bound(id);
        hub.give_place();
        let Some(reason) = inside.state.decided(hub.clock.exact()) else { return };
        // The error in the reason is the user's, also in how it is displayed and dropped.
        let _ = guarded(|| log::debug!(target: "lariat::close", "{id}: {reason}"));
        self.call(&mut inside, |called| called.closed(&reason));
        self.desk.shared.metrics.closes.count(reason.kind());
        drop_protocol(inside.protocol.take(), &mut self.desk.shared.metrics);
        drop_guarded(inside);
        self.desk.publish();
        hub.leave_outlet(id, reason.unsent());
        drop_guarded(reason);
        hub.drop_posts(posts);
    }
}

// The model check gives these locks to threads of its own only.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use std::io::{self, ErrorKind};
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::blocking::tests::rig::hub;
    use crate::datagram::{DatagramOptions, Interface};
    use crate::endpoint::Endpoint;
    use crate::id::Ids;
    use crate::limits::DriverLimits;
    use crate::metrics::Metrics;
    use crate::timer::Timer;

    fn opened() -> (Inside, UdpSocket) {
        opened_with(false)
    }

    /// An open socket that may be idle for 5 ns, and another one that it is connected to.
    fn opened_with(offload: bool) -> (Inside, UdpSocket) {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = DatagramOptions {
            idle: Some(Duration::from_nanos(5)),
            connect: Some(peer.local_addr().unwrap().into()),
            offload,
            ..DatagramOptions::default()
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        // A call that may not sleep brings all that has come.
        let socket = Datagrams::open(addr.into(), &options, offload).unwrap();
        peer.connect(socket.local_addr().unwrap().socket_addr().unwrap()).unwrap();
        let id = Ids::default().reserve();
        let mut state = State::new(id, Arc::new(options), 0);
        while state.poll_due(&mut Round::default()).is_some() {}
        (Inside::new(state, None, Some(Arc::new(socket))), peer)
    }

    /// Whether the end is put off at `now`, as a thread finds that has the state.
    fn is_put_off(inside: Inside, now: u64) -> (bool, Box<Inside>, Metrics) {
        let (put_off, inside, metrics) = put_off(inside, now);
        assert!(!put_off.timers);
        (put_off.end, inside, metrics)
    }

    fn put_off(inside: Inside, now: u64) -> (PutOff, Box<Inside>, Metrics) {
        let (hub, _) = hub(DriverLimits::default());
        let outlet = Outlet::new(inside.state.id(), inside);
        let (mut desk, mut inside) = (Desk::new(&hub), outlet.take());
        let mut keeper = Keeper { hub: &hub, outlet: &outlet, desk: &mut desk };
        let put_off = keeper.put_off(&mut inside, now);
        let waits = put_off != PutOff::default();
        assert_eq!(inside.put_off, if waits { now + 1_000_000 } else { 0 });
        (put_off, inside, desk.shared.metrics.clone())
    }

    #[test]
    fn the_end_of_a_silence_is_put_off_while_a_datagram_waits() {
        let (inside, peer) = opened();
        let end = inside.state.deadline_at();
        peer.send(b"").unwrap();
        assert!(is_put_off(inside, end).0, "also one without a byte");
        let (inside, peer) = opened();
        peer.send(b"!").unwrap();
        assert!(!is_put_off(inside, end - 1).0, "it is not due");
        assert!(!is_put_off(opened().0, end).0, "nothing waits");
    }

    #[cfg(feature = "udp-offload")]
    #[test]
    fn the_end_of_a_silence_is_put_off_while_a_datagram_is_left_of_those_that_came_by_one_call() {
        let (inside, peer) = opened_with(true);
        let end = inside.state.deadline_at();
        let socket = inside.socket.clone().unwrap();
        peer.send(b"one").unwrap();
        peer.send(b"two").unwrap();
        assert_eq!(socket.receive(&mut [0; 9]).unwrap().calls, 1);
        let (put_off, mut inside, _) = is_put_off(inside, end);
        assert!(put_off);
        assert_eq!(socket.receive(&mut [0; 9]).unwrap().calls, 0, "it has been here");
        inside.put_off = 0;
        assert!(!is_put_off(*inside, end).0, "that was the last one");
    }

    #[test]
    fn timers_are_put_off_while_a_datagram_waits_but_not_for_ever() {
        let (mut inside, peer) = opened();
        let timer = Timer::new(1);
        let owner = TimerOwner::Protocol(inside.state.id(), timer);
        let key = inside.timers.arm(3, owner);
        inside.state.put_timer(timer, key);
        assert_eq!(put_off(inside, 3).0, PutOff::default(), "nothing waits");
        let (mut inside, peer_of_next) = opened();
        let key = inside.timers.arm(3, owner);
        inside.state.put_timer(timer, key);
        drop(peer);
        peer_of_next.send(b"!").unwrap();
        let (nothing, mut inside, _) = put_off(inside, 2);
        assert_eq!(nothing, PutOff::default(), "it is not due");
        let timers = PutOff { end: false, timers: true };
        let from = Endpoint::from(peer_of_next.local_addr().unwrap());
        for shown in 0..1024 {
            let (waits, back, mut metrics) = put_off(*inside, 3);
            assert_eq!(waits, timers, "{shown}");
            inside = back;
            inside.put_off = 0;
            let shown = Received { len: 1, from, to: None, ecn: None, calls: 1 };
            inside.state.handle_read(&Ok(shown), &mut metrics, 0);
        }
        let (waits, mut inside, _) = put_off(*inside, 3);
        assert_eq!(waits, PutOff::default(), "a flood");
        // It was cancelled. The next one waits again.
        inside.timers = Timers::default();
        let (nothing, mut inside, _) = put_off(*inside, 3);
        assert_eq!(nothing, PutOff::default());
        let key = inside.timers.arm(3, owner);
        inside.state.put_timer(timer, key);
        let (waits, mut inside, mut metrics) = put_off(*inside, 3);
        assert_eq!(waits, timers);
        inside.put_off = 0;
        // While the system lacks memory nothing can be shown, and nothing is put off.
        let lack = Err(io::Error::from_raw_os_error(libc::ENOMEM));
        inside.state.handle_read(&lack, &mut metrics, 3);
        assert!(inside.state.paused_until().is_some());
        let (nothing, mut inside, _) = put_off(*inside, 3);
        assert_eq!(nothing, PutOff::default());
        inside.state.handle_retry(u64::MAX - 1);
        // The end of a silence waits for as long as it takes.
        let end = inside.state.deadline_at();
        inside.timers = Timers::default();
        let (waits, inside, _) = put_off(*inside, end);
        assert_eq!(waits, PutOff { end: true, timers: false });
        drop(inside);
    }

    #[test]
    fn the_end_of_a_close_is_never_put_off() {
        let (mut inside, peer) = opened();
        peer.send(b"!").unwrap();
        let mut metrics = Metrics::default();
        inside.state.send(&Full, &mut metrics, b"queued", None, 0).unwrap();
        inside.state.want_close();
        inside.state.handle_wishes(&mut metrics, 0);
        assert_eq!(inside.state.phase(), Phase::Closing);
        let end = inside.state.deadline_at();
        assert!(inside.state.is_overdue(u64::MAX), "{end}");
        assert!(!is_put_off(inside, u64::MAX - 1_000_000).0);
    }

    #[test]
    fn a_refusal_that_the_look_finds_in_place_of_a_datagram_is_told() {
        let (inside, peer) = opened();
        let end = inside.state.deadline_at();
        drop(peer);
        let socket = inside.socket.clone().unwrap();
        socket.send(b"nobody", None).unwrap();
        // Over the loopback interface the answer is there when the send is over.
        let (put_off, mut inside, metrics) = is_put_off(inside, end);
        assert!(!put_off);
        assert_eq!(metrics.datagrams_refused, 1);
        assert!(matches!(inside.state.poll_due(&mut Round::default()), Some(Due::Refused(_))));
    }

    /// A socket without room.
    struct Full;

    impl DatagramSocket for Full {
        fn local_addr(&self) -> io::Result<Endpoint> {
            Err(ErrorKind::NotConnected.into())
        }
        fn send(&self, _: &[u8], _: Option<&Endpoint>) -> io::Result<()> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn receive(&self, _: &mut [u8]) -> io::Result<Received> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn set_member(&self, _: IpAddr, _: Interface, _: bool) -> io::Result<()> {
            Err(ErrorKind::Unsupported.into())
        }
    }
}
