//! Adopted sockets whose open file others have as well: the poll forgets each when it is closed.

use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lariat::reactor::Reactor;
use lariat::{
    CloseKind, ConnectOptions, Context, DatagramOptions, Input, ListenOptions, Outcome, Protocol,
};

use crate::common::*;
use crate::node::{Log, Node};

/// Ends as soon as it is open.
struct Leaves {
    detaches: bool,
}

impl Protocol for Leaves {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.detaches {
            cx.detach()?;
        } else {
            cx.abort();
        }
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

/// Nothing wakes the reactor, whatever `happens` elsewhere.
#[track_caller]
fn hears_nothing(reactor: &mut Reactor, happens: impl FnOnce()) {
    let before = reactor.metrics().events;
    happens();
    reactor.turn(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(reactor.metrics().events, before);
}

#[test]
fn a_listener_that_was_stopped_is_forgotten_and_can_be_adopted_again() {
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = kept.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    for round in 1..=3 {
        let (again, options) = (kept.try_clone().unwrap(), ListenOptions::default());
        let id = reactor.adopt_listener(again, options, |_| Some(Sink)).unwrap();
        drop(client(addr));
        drive(&mut reactor, |reactor| reactor.metrics().accepted == round);
        settle(&mut reactor);
        reactor.control().stop_listening(id);
        reactor.turn(Some(Duration::ZERO)).unwrap();
        hears_nothing(&mut reactor, || drop(TcpStream::connect(addr).unwrap()));
        kept.set_nonblocking(false).unwrap();
        kept.accept().unwrap();
    }
    finish(reactor);
}

#[test]
fn a_stream_that_has_ended_is_forgotten_and_can_be_adopted_again() {
    let mut reactor = Reactor::new().unwrap();
    for detaches in [false, true] {
        let (kept, mut peer) = UnixStream::pair().unwrap();
        for _ in 0..3 {
            let trail = Trail::default();
            let protocol = Watched(Leaves { detaches }, trail.clone());
            let (again, options) = (kept.try_clone().unwrap(), ConnectOptions::default());
            reactor.control().adopt_stream(again, options, protocol).unwrap();
            drive(&mut reactor, |_| trail.is_closed());
            let kind = if detaches { CloseKind::Detached } else { CloseKind::Aborted };
            assert_eq!(trail.kind(), kind);
            hears_nothing(&mut reactor, || peer.write_all(b"x").unwrap());
        }
    }
    finish(reactor);
}

#[test]
fn a_socket_of_datagrams_that_has_ended_is_forgotten_and_can_be_adopted_again() {
    let mut reactor = Reactor::new().unwrap();
    let kept = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (peer, log) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Log::default());
    for round in 1..=3 {
        let node = Node::new().opened(|cx| {
            cx.close();
            Ok(())
        });
        let (again, options) = (kept.try_clone().unwrap(), DatagramOptions::default());
        reactor.control().adopt_datagrams(again, options, node.under("node", &log)).unwrap();
        drive(&mut reactor, |reactor| reactor.metrics().closes.total() == round);
        assert_eq!(reactor.metrics().closes.finished, round);
        hears_nothing(&mut reactor, || {
            peer.send_to(b"x", kept.local_addr().unwrap()).unwrap();
        });
    }
    finish(reactor);
}

#[test]
fn a_socket_of_datagrams_that_comes_too_late_is_forgotten() {
    let mut reactor = Reactor::new().unwrap();
    let kept = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (peer, log) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Log::default());
    let again = kept.try_clone().unwrap();
    let node = Node::new().under("node", &log);
    let mut control = reactor.control();
    control.shutdown();
    control.adopt_datagrams(again, DatagramOptions::default(), node).unwrap();
    drop(control);
    drive(&mut reactor, Reactor::is_over);
    hears_nothing(&mut reactor, || {
        peer.send_to(b"x", kept.local_addr().unwrap()).unwrap();
    });
}
