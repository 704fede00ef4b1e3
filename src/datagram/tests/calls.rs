//! Callbacks: each is counted, timed after a slow turn, and named in the log when it fails.

use std::sync::atomic::Ordering;

use super::*;
use crate::episode::tests::kept::lines_of;
use crate::protocol::{Alike, Shared, made_up};
use crate::random::Random;
use crate::reason::{By, CloseKind};
use log::Level;

impl DatagramProtocol for Alike {
    fn opened(&mut self, _: &mut DatagramContext<'_>) -> Outcome {
        self.act()
    }
    fn datagram(&mut self, _: &mut DatagramContext<'_>, datagram: &Datagram<'_>) -> Outcome {
        assert_eq!(**datagram, *b"bytes");
        self.act()
    }
    fn refused(&mut self, _: &mut DatagramContext<'_>, to: Option<Endpoint>) -> Outcome {
        assert_eq!(to, Some(port(3)));
        self.act()
    }
    fn drained(&mut self, _: &mut DatagramContext<'_>) -> Outcome {
        self.act()
    }
    fn timeout(&mut self, _: &mut DatagramContext<'_>, timer: Timer) -> Outcome {
        assert_eq!(timer, Timer::new(4));
        self.act()
    }
    fn notified(&mut self, _: &mut DatagramContext<'_>, note: Note) -> Outcome {
        assert!(note.is::<u8>());
        self.act()
    }
    fn stopping(&mut self, _: &mut DatagramContext<'_>) -> Outcome {
        self.act()
    }
    fn closed(&mut self, _: &mut DatagramContext<'_>, reason: &CloseReason) {
        assert_eq!(reason.kind(), CloseKind::Aborted);
        let _ = self.act();
    }
    fn name(&self) -> &str {
        "Alike"
    }
}

fn closed(called: Called<'_>) {
    let mut other = fresh(|_| {});
    other.end(By::Us, CloseKind::Aborted, None);
    called.closed(&other.decided(9).unwrap());
}

type Call = fn(Called<'_>);

/// All callbacks, by their names.
const ALL: [(&str, Call); 8] = [
    ("opened", |called| called.opened()),
    ("datagram", |called| {
        let (from, to) = (port(1), None);
        let datagram = Datagram { bytes: b"bytes", from, to, ecn: None, truncated: false };
        called.datagram(&datagram);
    }),
    ("refused", |called| called.refused(Some(port(3)))),
    ("drained", |called| called.drained()),
    ("timeout", |called| called.timeout(Timer::new(4))),
    ("notified", |called| called.notified(Note::new(5_u8))),
    ("stopping", |called| called.stopping()),
    ("closed", closed),
];

/// Has nothing but what it must have.
struct Bare;

impl DatagramProtocol for Bare {
    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_protocol_in_a_box_is_called_as_it_would_be_without() {
    for (name, call) in ALL {
        let (mut shared, now) = made_up();
        let mut state = open(|_| {});
        let alike = Alike { now: Arc::clone(&now), takes: 3, fails: None };
        let mut protocol: Box<dyn DatagramProtocol> = Box::new(alike);
        assert_eq!(DatagramProtocol::name(&protocol), "Alike");
        let (lent, socket) = (&mut shared, Planned::new(&[]));
        call(Called { shared: lent, state: &mut state, protocol: &mut protocol, socket: &socket });
        assert_eq!(now.load(Ordering::Relaxed), 3, "{name}");
    }
}

#[test]
fn by_default_a_timer_and_the_stop_of_the_driver_close_a_socket_and_nothing_else_does() {
    assert_eq!(Bare.name(), std::any::type_name::<Bare>());
    for (name, call) in ALL {
        let (mut shared, _) = made_up();
        let mut state = open(|_| {});
        let (lent, socket) = (&mut shared, Planned::new(&[]));
        call(Called { shared: lent, state: &mut state, protocol: &mut Bare, socket: &socket });
        assert_eq!(state.close_wanted, ["timeout", "stopping"].contains(&name), "{name}");
        assert!(!state.abort_wanted && state.decided(9).is_none(), "{name}");
    }
}

#[test]
fn chance_comes_from_the_driver() {
    let (mut shared, _) = made_up();
    let (mut state, socket) = (open(|_| {}), Planned::new(&[]));
    let mut cx = DatagramContext { shared: &mut shared, state: &mut state, socket: &socket };
    let mut random = Random::new(1);
    for _ in 0..3 {
        assert_eq!(cx.random(), random.next());
    }
}

/// Runs a callback that takes so long and fails so, on a driver whose turns were slow or not.
fn run(call: Call, turns: u32, takes: u64, fails: Option<bool>) -> (Shared, State) {
    let (mut shared, now) = made_up();
    now.store(100 * MILLISECOND, Ordering::Relaxed);
    (shared.blame.turns, shared.blame.limit) = (turns, 5 * MILLISECOND);
    let mut state = open(|_| {});
    let socket = Planned::new(&[]);
    let mut protocol = Alike { now, takes, fails };
    let (shared_now, protocol) = (&mut shared, &mut protocol);
    call(Called { shared: shared_now, state: &mut state, protocol, socket: &socket });
    (shared, state)
}

#[test]
fn every_callback_is_counted_and_after_a_slow_turn_a_slow_one_is_named() {
    for (name, call) in ALL {
        for (turns, takes, slow) in [
            (0, 5 * MILLISECOND + 1, false),
            (1, 5 * MILLISECOND - 1, false),
            (1, 5 * MILLISECOND, false),
            (1, 5 * MILLISECOND + 1, true),
            (1000, 7 * MILLISECOND, true),
        ] {
            let (lines, (shared, _)) = lines_of(|| run(call, turns, takes, None));
            let metrics = &shared.metrics;
            assert_eq!((metrics.callbacks, metrics.panics), (1, 0), "{name}");
            assert_eq!(metrics.slow_callbacks, u64::from(slow), "{name} {turns} {takes}");
            let line = format!(
                "{name} of Alike for 10.0.0.1:80 took {} ms and kept every other connection \
                 waiting",
                takes / MILLISECOND
            );
            let expected = if slow { vec![(Level::Warn, line)] } else { Vec::new() };
            assert_eq!(lines, expected, "{name} {turns} {takes}");
        }
    }
}

#[test]
fn a_callback_that_fails_or_panics_is_named_with_what_it_says_and_ends_its_socket() {
    for (name, call) in ALL {
        let (lines, (shared, state)) = lines_of(|| run(call, 0, 0, Some(false)));
        assert_eq!((shared.metrics.callbacks, shared.metrics.panics), (1, 0), "{name}");
        if name == "closed" {
            assert!(lines.is_empty(), "it cannot fail");
        } else {
            let line = format!("{name} of Alike for {} failed: enough", state.id());
            assert_eq!(lines, [(Level::Debug, line)]);
            let reason = state.decided(9).unwrap();
            assert_eq!((reason.by(), reason.kind()), (By::Us, CloseKind::Protocol), "{name}");
            assert_eq!(reason.error().unwrap().to_string(), "enough");
        }
        let (lines, (shared, state)) = lines_of(|| run(call, 0, 0, Some(true)));
        assert_eq!((shared.metrics.callbacks, shared.metrics.panics), (1, 1), "{name}");
        let line = format!("{name} of Alike for {} panicked: planned", state.id());
        assert_eq!(lines, [(Level::Error, line)]);
        let reason = state.decided(9).unwrap();
        assert_eq!((reason.by(), reason.kind()), (By::Us, CloseKind::Panicked), "{name}");
    }
}

#[test]
fn a_slow_callback_of_a_socket_that_is_gone_has_no_address() {
    let (mut shared, now) = made_up();
    (shared.blame.turns, shared.blame.limit) = (1, 1);
    let mut state = open(|_| {});
    let mut protocol = Alike { now, takes: 2 * MILLISECOND, fails: None };
    let (lines, ()) = lines_of(|| {
        let (shared, state, protocol) = (&mut shared, &mut state, &mut protocol);
        closed(Called { shared, state, protocol, socket: &NoSocket });
    });
    let none = Endpoint::Other;
    assert!(lines[0].1.starts_with(&format!("closed of Alike for {none} took 2 ms")), "{lines:?}");
    // What it is asked for is that it is closed.
    let gone = io::ErrorKind::NotConnected;
    assert_eq!(NoSocket.local_addr().unwrap_err().kind(), gone);
    assert_eq!(NoSocket.send(b"x", None).unwrap_err().kind(), gone);
    let group = IpAddr::from([224, 0, 0, 9]);
    assert_eq!(NoSocket.set_member(group, Interface::Any, true).unwrap_err().kind(), gone);
    assert!(NoSocket.receive(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
    assert_eq!(NoSocket.send_many(b"xx", 1, None).unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(
        (NoSocket.segments_max(), NoSocket.has_more(), NoSocket.is_unix()),
        (1, false, false)
    );
}
