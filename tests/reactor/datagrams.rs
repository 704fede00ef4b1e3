//! Datagrams on the loopback interface: what the kernel says of a socket, calls per datagram, and a
//! flood beside a stream.

use std::cell::Cell;
use std::net::UdpSocket;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::reactor::Reactor;
use lariat::{Datagram, DatagramContext, DatagramOptions, DatagramProtocol, Note, Outcome};

use crate::common::{self, PATIENCE, drive, finish, turns_in};
use crate::node::{Log, Node, echo};

fn with(change: impl FnOnce(&mut DatagramOptions)) -> DatagramOptions {
    let mut options = DatagramOptions::default();
    change(&mut options);
    options
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_datagram_costs_two_calls_and_a_batch_one_more() {
    let mut reactor = Reactor::new().unwrap();
    let id = reactor.bind("127.0.0.1:0", echo(usize::MAX)).unwrap();
    let addr = reactor.bound_addr(id).unwrap();
    drive(&mut reactor, |reactor| reactor.metrics().reads > 0);
    let (client, mut buffer) = (client(), [0; 100]);
    for count in [1, 10, 63] {
        let before = reactor.metrics();
        for number in 0..count {
            client.send_to(&[number], addr).unwrap();
        }
        let sent = u64::from(count);
        drive(&mut reactor, |reactor| reactor.metrics().reads - before.reads > sent);
        let after = reactor.metrics();
        assert_eq!(after.reads - before.reads, sent + 1, "one finds that nothing more is there");
        assert_eq!(after.writes - before.writes, sent);
        for number in 0..count {
            assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, number));
        }
    }
    finish(reactor);
}

#[test]
fn d5_a_thousand_datagrams_to_a_closed_port_end_nothing() {
    let deserted = client();
    let addr = deserted.local_addr().unwrap();
    drop(deserted);
    let (mut reactor, log) = (Reactor::new().unwrap(), Log::default());
    let node = Node::new().opened(|cx| Ok(cx.send(b"?")?)).refused(|cx| Ok(cx.send(b"?")?));
    let options = with(|o| o.connect = Some(addr.into()));
    let id = reactor.bind_with("127.0.0.1:0", options, node.under("node", &log)).unwrap();
    drive(&mut reactor, |reactor| reactor.metrics().datagrams_refused >= 1000);
    let own = reactor.bound_addr(id).unwrap();
    // It is as good as new for a peer that comes late.
    let late = UdpSocket::bind(addr).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    let before = reactor.metrics();
    late.send_to(b"here", own).unwrap();
    drive(&mut reactor, |reactor| reactor.metrics().datagrams_in > before.datagrams_in);
    assert!(log.of("node").iter().all(|line| !line.starts_with("closed")));
    reactor.control().peer(id).close();
    drive(&mut reactor, Reactor::is_over);
    let metrics = reactor.metrics();
    assert!(metrics.datagrams_out <= metrics.datagrams_refused + 2, "each is told: {metrics:?}");
}

#[test]
fn d9_a_flood_of_datagrams_does_not_keep_a_stream_waiting() {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let mut reactor = Reactor::new().unwrap();
    let id = reactor.bind("127.0.0.1:0", echo(usize::MAX)).unwrap();
    let to = reactor.bound_addr(id).unwrap();
    let addr = common::listen(&mut reactor, || common::Echo);
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ends, counts) = (Arc::clone(&over), Arc::clone(&sent));
    let flooder = std::thread::spawn(move || {
        let socket = client();
        while !ends.load(Ordering::Relaxed) {
            let taken = socket.send_to(&[7; 1000], to).is_ok();
            counts.fetch_add(u64::from(taken), Ordering::Relaxed);
        }
    });
    drive(&mut reactor, |reactor| reactor.metrics().datagrams_in > 500);
    let before = reactor.metrics().datagrams_in;
    let pinger = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut longest, mut buffer) = (Duration::ZERO, [0; 4]);
        let (begun, mut pings) = (sent.load(Ordering::Relaxed), 0);
        // As long as the flood goes on.
        while pings < 100 || sent.load(Ordering::Relaxed) < begun + 10_000 {
            let begun = Instant::now();
            stream.write_all(b"ping").unwrap();
            stream.read_exact(&mut buffer).unwrap();
            longest = longest.max(begun.elapsed());
            pings += 1;
        }
        over.store(true, Ordering::Relaxed);
        longest
    });
    let longest = common::join(&mut reactor, pinger);
    common::join(&mut reactor, flooder);
    assert!(reactor.metrics().datagrams_in > before, "the flood went on");
    assert!(longest < Duration::from_secs(5), "a ping took {longest:?}");
    finish(reactor);
}

#[test]
fn an_idle_socket_costs_no_turns() {
    let mut reactor = Reactor::new().unwrap();
    reactor.bind("127.0.0.1:0", Node::new()).unwrap();
    drive(&mut reactor, |reactor| reactor.metrics().reads > 0);
    let turns = turns_in(&mut reactor, Duration::from_millis(100));
    assert!(turns <= 2, "{turns} turns with nothing to do");
    finish(reactor);
}

#[test]
fn a_protocol_that_may_not_leave_its_thread_is_bound_as_well() {
    struct Local(Rc<Cell<u32>>);
    impl DatagramProtocol for Local {
        fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
            Ok(())
        }
        fn notified(&mut self, cx: &mut DatagramContext<'_>, note: Note) -> Outcome {
            self.0.set(note.downcast().unwrap());
            cx.close();
            Ok(())
        }
    }
    let (mut reactor, seen) = (Reactor::new().unwrap(), Rc::new(Cell::new(0)));
    let id = reactor.bind("127.0.0.1:0", Box::new(Local(Rc::clone(&seen)))).unwrap();
    reactor.handle().notify(id, Note::new(7u32)).unwrap();
    reactor.run().unwrap();
    assert_eq!(seen.get(), 7);
}

#[test]
fn a_protocol_that_panics_as_it_is_dropped_is_counted() {
    struct Bomb;
    impl DatagramProtocol for Bomb {
        fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
            cx.close();
            Ok(())
        }
        fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
            Ok(())
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("planned");
        }
    }
    let mut reactor = Reactor::new().unwrap();
    reactor.bind("127.0.0.1:0", Bomb).unwrap();
    reactor.run().unwrap();
    assert_eq!(reactor.metrics().panics, 1);
    let mut reactor = Reactor::new().unwrap();
    reactor.bind("127.0.0.1:0", Bomb).unwrap();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    drop(reactor);
}
