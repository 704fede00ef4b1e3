//! Datagram sockets of the standard library that a driver takes over and others have as well.

use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use lariat::{DatagramContext, DatagramOptions, DriverLimits, Timer};
use socket2::Socket;

use crate::kit::on_sockets;
use crate::node::{Log, Node};
use crate::unix::Place;

/// A socket that others are to have as well, and one that is connected to it. The first one is
/// connected to the other where that is asked for.
fn datagram_sockets(is_unix: bool, connected: bool) -> (Socket, Socket) {
    if !is_unix {
        let [kept, peer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        peer.connect(kept.local_addr().unwrap()).unwrap();
        if connected {
            kept.connect(peer.local_addr().unwrap()).unwrap();
        }
        return (kept.into(), peer.into());
    }
    let (kept, peer) = if connected {
        UnixDatagram::pair().unwrap()
    } else {
        let (place, peer) = (Place::new(), UnixDatagram::unbound().unwrap());
        let kept = UnixDatagram::bind(&place.0).unwrap();
        peer.connect(&place.0).unwrap();
        (kept, peer)
    };
    (OwnedFd::from(kept).into(), OwnedFd::from(peer).into())
}

/// Whether `kept` receives what its peer sends, and waits where there is nothing.
#[track_caller]
fn is_whole(mut kept: &Socket, mut peer: &Socket) {
    let mut buffer = [0; 20];
    assert!(kept.nonblocking().unwrap(), "the one thing that an adoption leaves behind");
    kept.set_nonblocking(false).unwrap();
    kept.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert_eq!(peer.write(b"for another").unwrap(), 11);
    assert_eq!(kept.read(&mut buffer).unwrap(), 11);
    assert_eq!(kept.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_datagram_socket_that_another_has_as_well_is_whole_when_it_has_ended() {
    type End = fn(&mut DatagramContext<'_>);
    let ends: [End; 3] = [|cx| cx.close(), |cx| cx.abort(), |cx| cx.driver().shutdown()];
    for (is_unix, connected) in [(false, false), (false, true), (true, false), (true, true)] {
        let (kept, peer) = datagram_sockets(is_unix, connected);
        for end in ends {
            // One driver after the other has the same socket.
            on_sockets(DriverLimits::default(), |stage| {
                assert_eq!((&peer).write(b"in").unwrap(), 2);
                // On threads its own thread sleeps by then.
                let later = |cx: &mut DatagramContext<'_>| {
                    cx.set_timer(Timer::new(1), Duration::from_millis(5));
                    Ok(())
                };
                let node = Node::new().datagram(move |cx, _| later(cx)).timeout(move |cx, _| {
                    end(cx);
                    Ok(())
                });
                let (one, node) = (kept.try_clone().unwrap(), node.under("node", &stage.log));
                let options = DatagramOptions::default();
                stage.driver.control().adopt_datagrams(one, options, node).unwrap();
                stage.run();
                let lines = stage.log.of("node");
                stage.check(lines[1] == "datagram of 2 bytes", &format!("{lines:?}"));
                stage.check(lines.last().unwrap().starts_with("closed "), "it has ended");
                let reads = stage.driver.metrics().reads;
                stage.check(reads < 10, &format!("it slept between the reads: {reads}"));
                is_whole(&kept, &peer);
            });
            let timeout = kept.read_timeout().unwrap();
            assert!(timeout.is_some_and(|time| time < Duration::from_secs(1)), "it is another's");
        }
    }
}

/// Takes one datagram, and has the next of `left` take the same socket over once it has ended.
fn takes_one(socket: Arc<Socket>, left: usize, log: Log) -> Node {
    let close = |cx: &mut DatagramContext<'_>| {
        cx.close();
        Ok(())
    };
    let name = format!("node {left}");
    let node = Node::new().datagram(move |cx, _| close(cx)).under(&name, &log);
    node.closed(move |cx, _| {
        if left > 1 {
            let one = socket.try_clone().unwrap();
            let next = takes_one(Arc::clone(&socket), left - 1, log.clone());
            cx.driver().adopt_datagrams(one, DatagramOptions::default(), next).unwrap();
        }
    })
}

#[test]
fn a_driver_takes_over_again_what_it_has_had_and_what_waits_there_is_not_lost() {
    for is_unix in [false, true] {
        on_sockets(DriverLimits::default(), |stage| {
            let (kept, mut peer) = datagram_sockets(is_unix, false);
            for bytes in [&b"one"[..], b"two", b"three", b"four"] {
                assert_eq!(peer.write(bytes).unwrap(), bytes.len());
            }
            let (one, kept) = (kept.try_clone().unwrap(), Arc::new(kept));
            let node = takes_one(Arc::clone(&kept), 3, stage.log.clone());
            let options = DatagramOptions::default();
            stage.driver.control().adopt_datagrams(one, options, node).unwrap();
            stage.run();
            for (left, bytes) in [(3, 3), (2, 3), (1, 5)] {
                let datagram = format!("datagram of {bytes} bytes");
                let lines = ["opened", &datagram, "closed finished by us"];
                stage.expect_node(&format!("node {left}"), &lines);
            }
            assert_eq!((&*kept).read(&mut [0; 20]).unwrap(), 4);
            is_whole(&kept, &peer);
        });
    }
}
