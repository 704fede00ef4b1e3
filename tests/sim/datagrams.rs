//! Datagrams in a made-up network: what a test's own socket sees, queues that fill up, calls that
//! fail, and a flood beside streams.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lariat::sim::{Call, DatagramSocket, Fault, Faults, Link, Sim};
use lariat::{
    CloseKind, CloseReason, ConnId, Datagram, DatagramContext, DatagramOptions, DatagramProtocol,
    DropPolicy, Endpoint, ErrorKind, Interface, Limits, Op, Outcome, Timer,
};

use crate::kit::{Echo, ms, serve_with, stream};
use crate::node::{Log, Node, echo};

fn with(change: impl FnOnce(&mut DatagramOptions)) -> DatagramOptions {
    let mut options = DatagramOptions::default();
    change(&mut options);
    options
}

/// Binds `node` to an address of its own.
fn bind(sim: &mut Sim, who: &str, options: DatagramOptions, node: Node, log: &Log) -> ConnId {
    sim.bind_with("10.0.0.1:0", options, node.under(who, log)).unwrap()
}

fn addr_of(sim: &Sim, id: ConnId) -> Endpoint {
    sim.bound_addr(id).unwrap()
}

fn texts(socket: &DatagramSocket) -> Vec<String> {
    let received = socket.take_received().into_iter();
    received.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
}

#[test]
fn a_tests_own_socket_sends_and_receives() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let id = bind(&mut sim, "echo", with(|_| {}), echo(2), &log);
    let client = sim.datagram_socket("10.0.0.2:0").unwrap();
    client.send_to(b"one", addr_of(&sim, id));
    client.send_to(b"", addr_of(&sim, id));
    let addr = addr_of(&sim, id);
    sim.run().unwrap();
    sim.run_for(ms(1)).unwrap();
    let received = client.take_received();
    assert_eq!(received, [(addr, b"one".to_vec().into()), (addr, Vec::new().into())]);
    assert!(client.take_received().is_empty());
    assert_eq!(log.of("echo").last().unwrap(), "closed finished by us");
    let error = sim.datagram_socket(client.local_addr()).unwrap_err();
    assert_eq!((error.kind(), error.op()), (ErrorKind::AddressInUse, Op::Bind));
}

#[test]
fn the_same_seed_is_the_same_run_with_every_fault() {
    let run = |seed| {
        let (mut sim, log) = (Sim::new(seed), Log::default());
        sim.set_faults(Faults::harsh());
        let id = bind(&mut sim, "echo", with(|o| o.datagram_max = 7), Node::new(), &log);
        let client = sim.datagram_socket("10.0.0.2:0").unwrap();
        for count in 0..60 {
            client.send_to(&stream(0, count % 12), addr_of(&sim, id));
        }
        sim.run().unwrap();
        format!("{:?} {:?}", log.of("echo"), sim.now())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

// ---- queues -------------------------------------------------------------------------------------

/// A link on which the system has room for two datagrams of 100 bytes.
fn narrow() -> Link {
    let mut link = Link::default();
    (link.window, link.bandwidth) = (200, Some(100_000));
    link
}

/// Sends ten numbered datagrams of 100 bytes.
fn send_ten(cx: &mut DatagramContext<'_>, to: Endpoint) -> Outcome {
    for number in 0..10 {
        cx.send_to(&[number; 100], to)?;
    }
    Ok(())
}

/// Sends ten numbered datagrams of 100 bytes at once to a test's socket. Returns what arrived.
fn crowd(options: DatagramOptions, drains: u64) -> (Vec<u8>, Vec<String>, lariat::Metrics) {
    let (mut sim, log) = (Sim::new(1), Log::default());
    sim.set_link(narrow());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    let mut left = drains;
    let node = Node::new()
        .opened(move |cx| {
            for number in 0..10 {
                assert_eq!(cx.is_congested(), number > 2);
                cx.send_to(&[number; 100], to)?;
            }
            assert_eq!(cx.unsent(), 800 - 100 * cx.dropped() as usize);
            let (own, unsent) = (cx.id(), cx.unsent());
            cx.driver().set_timer(ms(0), move |driver| {
                assert_eq!(driver.peer(own).unsent(), unsent);
                assert_eq!(driver.metrics().buffered, unsent as u64);
            });
            Ok(())
        })
        .drained(move |cx| {
            left -= 1;
            if left == 0 {
                cx.close();
            }
            Ok(())
        });
    bind(&mut sim, "node", options, node, &log);
    sim.run().unwrap();
    sim.run_for(ms(100)).unwrap();
    let arrived = sink.take_received().into_iter().map(|(_, bytes)| bytes[0]).collect();
    (arrived, log.of("node"), sim.metrics())
}

#[test]
fn d7_datagrams_wait_for_the_system_in_their_order_and_drained_follows() {
    let (arrived, lines, metrics) = crowd(with(|_| {}), 1);
    assert_eq!(arrived, (0..10).collect::<Vec<u8>>());
    assert_eq!(lines, ["opened", "drained", "closed finished by us"]);
    assert_eq!((metrics.datagrams_out, metrics.datagrams_dropped), (10, 0));
    assert_eq!(metrics.buffered, 0);
}

#[test]
fn d7_what_does_not_fit_into_the_queue_is_dropped_by_the_policy_and_counted() {
    for (policy, room, kept) in [
        (DropPolicy::Newest, 3 * 164, vec![0, 1, 2, 3, 4]),
        (DropPolicy::Newest, 3 * 164 - 1, vec![0, 1, 2, 3]),
        (DropPolicy::Newest, 8 * 164, (0..10).collect()),
        (DropPolicy::Oldest, 3 * 164, vec![0, 1, 7, 8, 9]),
        (DropPolicy::Oldest, 3 * 164 - 1, vec![0, 1, 8, 9]),
    ] {
        let options = with(|o| (o.drop_policy, o.output_max) = (policy, room));
        let (arrived, lines, metrics) = crowd(options, 1);
        assert_eq!(arrived, kept, "{policy:?} with {room}");
        assert_eq!(lines, ["opened", "drained", "closed finished by us"]);
        assert_eq!(metrics.datagrams_dropped, 10 - kept.len() as u64);
    }
}

#[test]
fn a_turn_sends_as_many_of_those_that_wait_as_it_may() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    sim.script(Call::Write, 0, Fault::Error(libc::EAGAIN));
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    let node = Node::new()
        .opened(move |cx| {
            for number in 0..10 {
                cx.send_to(&[number], to)?;
            }
            Ok(())
        })
        .drained(|cx| {
            cx.close();
            Ok(())
        });
    bind(&mut sim, "node", with(|o| o.datagrams_max = 3), node, &log);
    let (mut most, mut before) = (0, 0);
    sim.run_until(|sim| {
        let now = sim.metrics().datagrams_out;
        most = most.max(now - before);
        before = now;
        false
    })
    .unwrap();
    assert_eq!((most, before), (3, 10));
    sim.run_for(ms(1)).unwrap();
    assert_eq!(sink.take_received().len(), 10);
}

#[test]
fn closing_waits_for_datagrams_to_leave_until_its_deadline() {
    for (deadline, kind, arrived) in [
        (ms(1000), CloseKind::Finished, 10),
        (ms(2), CloseKind::TimedOut(lariat::Deadline::Close), 5),
    ] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        sim.set_link(narrow());
        let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
        let to = sink.local_addr();
        let node = Node::new()
            .opened(move |cx| {
                send_ten(cx, to)?;
                cx.close();
                Ok(())
            })
            .closed(move |_, reason| {
                assert_eq!(reason.kind(), kind);
                assert_eq!(reason.unsent(), 1000 - reason.bytes_out());
            });
        bind(&mut sim, "node", with(|o| o.close_deadline = deadline), node, &log);
        sim.run().unwrap();
        sim.run_for(ms(100)).unwrap();
        let count = sink.take_received().len();
        assert_eq!((count, sim.metrics().datagrams_dropped), (arrived, 10 - arrived as u64));
        assert_eq!(log.of("node").len(), 2, "no drained on the way: {:?}", log.of("node"));
    }
}

#[test]
fn the_deadline_of_a_close_counts_from_the_close_and_what_came_before_is_counted() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    sim.set_link(narrow());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    let node = Node::new()
        .datagram(move |cx, _| {
            send_ten(cx, to)?;
            cx.close();
            Ok(())
        })
        .closed(|_, reason| {
            assert_eq!(reason.kind(), CloseKind::Finished);
            assert_eq!((reason.bytes_in(), reason.bytes_out()), (4, 1000));
            assert!(reason.age() >= ms(5008) && reason.age() < ms(5010), "{:?}", reason.age());
        });
    let id = bind(&mut sim, "node", with(|o| o.close_deadline = ms(1000)), node, &log);
    sim.run_for(ms(5000)).unwrap();
    sink.send_to(b"late", addr_of(&sim, id));
    sim.run().unwrap();
    assert_eq!(log.of("node"), ["opened", "datagram of 4 bytes", "closed finished by us"]);
}

#[test]
fn what_waits_is_sent_after_an_error_and_dropped_after_a_panic() {
    crate::quiet_planned_panics();
    for (panics, kind, arrived) in
        [(false, CloseKind::Protocol, 10), (true, CloseKind::Panicked, 2)]
    {
        let (mut sim, log) = (Sim::new(1), Log::default());
        sim.set_link(narrow());
        let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
        let to = sink.local_addr();
        let node = Node::new()
            .opened(move |cx| {
                send_ten(cx, to)?;
                cx.set_timer(Timer::new(1), Duration::ZERO);
                Ok(())
            })
            .timeout(move |_, _| match panics {
                true => std::panic::panic_any("planned"),
                false => Err("enough".into()),
            })
            .closed(move |_, reason| assert_eq!(reason.kind(), kind));
        bind(&mut sim, "node", with(|_| {}), node, &log);
        sim.run().unwrap();
        sim.run_for(ms(100)).unwrap();
        let count = sink.take_received().len();
        assert_eq!((count, sim.metrics().datagrams_dropped), (arrived, 10 - arrived as u64));
        assert_eq!(log.of("node").len(), 3, "no drained on the way: {:?}", log.of("node"));
    }
}

#[test]
fn an_abort_drops_what_waits() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    sim.set_link(narrow());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    let node = Node::new().opened(move |cx| {
        send_ten(cx, to)?;
        cx.abort();
        Ok(())
    });
    let node = node.closed(|_, reason| assert_eq!(reason.unsent(), 800));
    bind(&mut sim, "node", with(|_| {}), node, &log);
    sim.run().unwrap();
    assert_eq!(log.of("node"), ["opened", "closed aborted by us"]);
    let metrics = sim.metrics();
    assert_eq!((metrics.datagrams_dropped, metrics.buffered), (8, 0));
}

// ---- calls that fail ----------------------------------------------------------------------------

#[test]
fn d7_an_error_of_the_system_is_told_to_the_sender_and_the_socket_goes_on() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    for (nth, errno) in
        [libc::EMSGSIZE, libc::EACCES, libc::ENOMEM, libc::EHOSTUNREACH].into_iter().enumerate()
    {
        sim.script(Call::Write, nth as u64, Fault::Error(errno));
    }
    let node = Node::new().opened(move |cx| {
        let kinds: Vec<_> = (0..4).map(|_| cx.send_to(b"lost", to).unwrap_err().kind()).collect();
        let (large, denied) = (ErrorKind::TooLarge, ErrorKind::PermissionDenied);
        assert_eq!(kinds, [large, denied, ErrorKind::Exhausted, ErrorKind::Other]);
        cx.send_to(b"sent", to)?;
        cx.close();
        Ok(())
    });
    bind(&mut sim, "node", with(|_| {}), node, &log);
    sim.run().unwrap();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(texts(&sink), ["sent"]);
    assert_eq!(log.of("node"), ["opened", "closed finished by us"]);
    assert_eq!(sim.metrics().datagrams_refused, 0, "of no earlier datagram");
}

#[test]
fn d5_whatever_the_network_reports_of_a_datagram_the_next_one_leaves_and_the_socket_goes_on() {
    let reports = [
        libc::EACCES,
        libc::ECONNREFUSED,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EMSGSIZE,
        libc::ENETUNREACH,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::EPROTO,
    ];
    for errno in reports {
        let (mut sim, log) = (Sim::new(1), Log::default());
        let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
        // Of more of them than reads may fail in a row, the last is told to a send.
        for nth in 0..100 {
            sim.script(Call::Read, nth, Fault::Error(errno));
        }
        sim.script(Call::Write, 0, Fault::Error(errno));
        let node = Node::new().opened(|cx| Ok(cx.send(b"sent")?));
        let options = with(|o| o.connect = Some(sink.local_addr()));
        let id = bind(&mut sim, "node", options, node, &log);
        sim.run_for(ms(100)).unwrap();
        assert_eq!(texts(&sink), ["sent"], "{errno}");
        assert_eq!(sim.metrics().datagrams_refused, 101, "{errno}");
        let lines = log.of("node");
        let refused = lines.iter().filter(|line| *line == "refused").count();
        // Those of one turn are one call.
        assert!(lines.len() == refused + 1 && refused > 0, "{errno}: {lines:?}");
        sim.handle().close(id).unwrap();
        sim.run().unwrap();
        assert_eq!(log.of("node").last().unwrap(), "closed finished by us", "{errno}");
    }
}

#[test]
fn a_waiting_datagram_that_the_system_does_not_take_makes_room_for_the_next() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    sim.script(Call::Write, 0, Fault::Error(libc::EAGAIN));
    sim.script(Call::Write, 1, Fault::Error(libc::ENOMEM));
    let node = Node::new()
        .opened(move |cx| {
            cx.send_to(b"one", to)?;
            Ok(cx.send_to(b"two", to)?)
        })
        .drained(|cx| {
            assert_eq!(cx.dropped(), 1);
            cx.close();
            Ok(())
        });
    bind(&mut sim, "node", with(|_| {}), node, &log);
    sim.run().unwrap();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(texts(&sink), ["two"]);
    assert_eq!(log.of("node"), ["opened", "drained", "closed finished by us"]);
}

#[test]
fn d7_where_no_event_tells_of_room_what_waits_is_tried_again_ever_more_seldom() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let to = sink.local_addr();
    for nth in 0..10 {
        sim.script(Call::Write, nth, Fault::Error(libc::ENOBUFS));
    }
    let node = Node::new()
        .opened(move |cx| {
            cx.send_to(b"one", to)?;
            cx.send_to(b"two", to)?;
            assert_eq!((cx.unsent(), cx.dropped()), (6, 0));
            Ok(())
        })
        .drained(|cx| {
            // After 1, 2, 4 .. 64 ms, and then 100 ms each.
            let waited = 127 + 3 * 100;
            assert!((ms(waited)..ms(waited + 20)).contains(&cx.age()), "{:?}", cx.age());
            cx.close();
            Ok(())
        });
    bind(&mut sim, "node", with(|_| {}), node, &log);
    sim.run().unwrap();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(texts(&sink), ["one", "two"]);
    assert_eq!(log.of("node"), ["opened", "drained", "closed finished by us"]);
    // A turn for each try, and a few for the rest.
    assert!(sim.metrics().turns < 30, "{:?}", sim.metrics());
}

#[test]
fn d7_a_unix_socket_that_is_full_for_one_receiver_costs_few_turns_and_no_idle_end() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let stuck = lariat::UnixName::from_pathname("/stuck").unwrap();
    // It never reads: it has no turns.
    for nth in 0..1_000 {
        sim.script(Call::Read, nth, Fault::Error(libc::EAGAIN));
    }
    sim.bind_with(stuck, with(|_| {}), Node::new().under("stuck", &log)).unwrap();
    let node = Node::new().opened(move |cx| {
        for _ in 0..20 {
            cx.send_to(b"12345", stuck)?;
        }
        assert_eq!((cx.unsent(), cx.dropped()), (50, 0));
        Ok(())
    });
    let idle = with(|o| o.idle = Some(ms(5000)));
    let path = lariat::UnixName::from_pathname("/node").unwrap();
    sim.bind_with(path, idle, node.under("node", &log)).unwrap();
    sim.run_for(ms(200)).unwrap();
    let before = sim.metrics();
    sim.run_for(ms(1000)).unwrap();
    let after = sim.metrics();
    assert!(after.turns - before.turns <= 25, "{}", after.turns - before.turns);
    assert!(after.writes - before.writes <= 11, "{}", after.writes - before.writes);
    assert_eq!(after.buffered, 50);
    sim.run_for(ms(5000)).unwrap();
    assert_eq!(log.of("node").last().unwrap(), "closed timed out (idle) by the runtime");
    assert_eq!(sim.metrics().datagrams_dropped, 10);
}

#[test]
fn a_connected_unix_socket_is_told_of_room_by_an_event() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let name = |name| lariat::UnixName::from_pathname(name).unwrap();
    sim.bind_with(name("/sink"), with(|_| {}), Node::new().under("sink", &log)).unwrap();
    let node = Node::new()
        .opened(|cx| {
            (0..15).try_for_each(|_| cx.send(b"x"))?;
            assert!(cx.is_congested());
            Ok(())
        })
        .drained(|cx| {
            assert!(cx.age() < ms(1), "{:?}", cx.age());
            cx.close();
            Ok(())
        });
    let options = with(|o| o.connect = Some(name("/sink").into()));
    sim.bind_with(name("/node"), options, node.under("node", &log)).unwrap();
    sim.run_for(ms(10)).unwrap();
    assert_eq!(log.of("node"), ["opened", "drained", "closed finished by us"]);
    assert_eq!(log.of("sink").len(), 16);
}

#[test]
fn d5_only_a_connected_socket_is_told_that_nobody_has_the_port() {
    for connected in [false, true] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        let nobody: Endpoint = SocketAddr::from(([10, 0, 0, 2], 7)).into();
        let node = Node::new().opened(move |cx| Ok(cx.send_to(b"x", nobody)?));
        bind(&mut sim, "node", with(|o| o.connect = connected.then_some(nobody)), node, &log);
        sim.run_for(ms(100)).unwrap();
        let lines: &[&str] = if connected { &["opened", "refused"] } else { &["opened"] };
        assert_eq!(log.of("node"), lines);
    }
}

#[test]
fn d5_a_refusal_that_never_ends_is_told_to_the_sender() {
    for (failing, sent) in [(2, true), (3, false)] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        let peer = sim.datagram_socket("10.0.0.2:0").unwrap();
        for nth in 0..failing {
            sim.script(Call::Write, nth, Fault::Error(libc::ECONNREFUSED));
        }
        let node = Node::new()
            .opened(move |cx| {
                assert_eq!(cx.send(b"again").is_ok(), sent);
                Ok(())
            })
            .refused(|cx| {
                cx.close();
                Ok(())
            });
        let options = with(|o| o.connect = Some(peer.local_addr()));
        bind(&mut sim, "node", options, node, &log);
        sim.run().unwrap();
        sim.run_for(ms(1)).unwrap();
        assert_eq!(peer.take_received().len(), usize::from(sent));
        assert_eq!(log.of("node"), ["opened", "refused", "closed finished by us"]);
        assert_eq!(sim.metrics().datagrams_refused, failing);
    }
}

#[test]
fn reads_that_fail_for_no_known_reason_end_the_socket_after_64_in_a_row() {
    for (failing, ends) in [(63, false), (64, true)] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        for nth in 0..failing {
            sim.script(Call::Read, nth, Fault::Error(libc::EIO));
        }
        let node = Node::new().datagram(|cx, _| {
            cx.close();
            Ok(())
        });
        let id = bind(&mut sim, "node", with(|_| {}), node, &log);
        let addr = addr_of(&sim, id);
        let client = sim.datagram_socket("10.0.0.2:0").unwrap();
        sim.run_for(ms(1)).unwrap();
        client.send_to(b"hello", addr);
        sim.run().unwrap();
        let last = log.of("node").pop().unwrap();
        let system = "closed system error by the runtime";
        assert_eq!(last, if ends { system } else { "closed finished by us" });
    }
}

#[test]
fn reads_that_fail_are_in_a_row_only_if_no_datagram_comes_between() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    // The read after the first of them finds nothing yet, and the next one the datagram.
    for nth in (0..40).chain(42..82) {
        sim.script(Call::Read, nth, Fault::Error(libc::EIO));
    }
    let id = bind(&mut sim, "node", with(|_| {}), Node::new(), &log);
    let client = sim.datagram_socket("10.0.0.2:0").unwrap();
    client.send_to(b"between", addr_of(&sim, id));
    sim.run_for(ms(10)).unwrap();
    client.send_to(b"behind", addr_of(&sim, id));
    sim.run_for(ms(10)).unwrap();
    assert_eq!(log.of("node"), ["opened", "datagram of 7 bytes", "datagram of 6 bytes"]);
}

#[test]
fn a3_receives_that_lack_a_resource_pause_for_longer_and_longer_and_end_no_socket() {
    for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        for nth in 0..100 {
            sim.script(Call::Read, nth, Fault::Error(errno));
        }
        let node = Node::new().datagram(|cx, _| {
            cx.close();
            Ok(())
        });
        let id = bind(&mut sim, "node", with(|_| {}), node, &log);
        sim.datagram_socket("10.0.0.2:0").unwrap().send_to(b"hello", addr_of(&sim, id));
        // The pauses are 10, 20 and 40 ms long.
        for (time, reads) in [(9, 1), (3, 2), (17, 2), (3, 3), (37, 3), (4, 4)] {
            sim.run_for(ms(time)).unwrap();
            assert_eq!(sim.metrics().reads, reads);
        }
        let begun = sim.now();
        sim.run().unwrap();
        assert_eq!(log.of("node"), ["opened", "datagram of 5 bytes", "closed finished by us"]);
        assert_eq!(sim.metrics().reads, 101);
        // The next ones double up to a second.
        let pauses = ms(80 + 160 + 320 + 640 + 93 * 1000);
        let took = sim.now() - begun;
        assert!(took > pauses - ms(10) && took < pauses + ms(200), "{took:?}");
    }
}

#[test]
fn a3_a_socket_that_pauses_looks_once_more_before_its_silence_has_lasted_too_long() {
    for (failing, shown) in [(4, true), (5, false)] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        // At 0, 10, 30 and 70 ms, and when it would end: the pause would last until 150 ms.
        for nth in 0..failing {
            sim.script(Call::Read, nth, Fault::Error(libc::ENOMEM));
        }
        let options = with(|o| o.idle = Some(ms(100)));
        let id = bind(&mut sim, "node", options, Node::new(), &log);
        sim.datagram_socket("10.0.0.2:0").unwrap().send_to(b"hello", addr_of(&sim, id));
        let begun = sim.now();
        sim.run().unwrap();
        let took = sim.now() - begun;
        let lines = log.of("node");
        assert_eq!(lines.last().unwrap(), "closed timed out (idle) by the runtime");
        assert_eq!(lines.contains(&"datagram of 5 bytes".to_owned()), shown, "{lines:?}");
        let end = if shown { ms(200) } else { ms(100) };
        assert!(took >= end && took < end + ms(10), "{took:?}");
    }
}

#[test]
fn a_socket_that_only_sends_is_idle_from_its_last_datagram_on() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let sink = sim.datagram_socket("10.0.0.2:0").unwrap();
    let (to, mut left) = (sink.local_addr(), 5);
    let node = Node::new().opened(|cx| {
        cx.set_timer(Timer::new(1), ms(150));
        Ok(())
    });
    let node = node.timeout(move |cx, timer| {
        cx.send_to(b"here", to)?;
        left -= 1;
        if left > 0 {
            cx.set_timer(timer, ms(150));
        }
        Ok(())
    });
    bind(&mut sim, "node", with(|o| o.idle = Some(ms(200))), node, &log);
    sim.run().unwrap();
    assert_eq!(texts(&sink).len(), 5);
    assert_eq!(log.of("node").last().unwrap(), "closed timed out (idle) by the runtime");
    assert!((ms(950)..ms(1000)).contains(&sim.now()), "{:?}", sim.now());
}

#[test]
fn a_socket_that_cannot_be_watched_is_told_so() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    sim.script(Call::Register, 0, Fault::Error(libc::ENOSPC));
    let id = bind(&mut sim, "node", with(|_| {}), Node::new(), &log);
    let addr = addr_of(&sim, id);
    sim.run().unwrap();
    assert_eq!(log.of("node"), ["closed connect failed, no descriptor left by the runtime"]);
    assert_eq!((sim.bound_addr(id), sim.metrics().bound), (None, 0));
    sim.bind(addr, Node::new()).unwrap();
}

#[test]
fn without_a_descriptor_bind_says_so() {
    let mut sim = Sim::new(1);
    sim.set_descriptors_max(1);
    let first = sim.bind("10.0.0.1:0", Node::new()).unwrap();
    let error = sim.bind("10.0.0.1:0", Node::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    sim.control().peer(first).close();
    sim.run().unwrap();
    sim.bind("10.0.0.1:0", Node::new()).unwrap();
}

#[test]
fn what_is_bound_as_the_driver_stops_is_told_so() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    sim.control().shutdown();
    let id = bind(&mut sim, "node", with(|_| {}), Node::new(), &log);
    sim.run().unwrap();
    assert_eq!(log.of("node"), ["closed shut down by the runtime"]);
    assert_eq!(sim.bound_addr(id), None);
}

// ---- fairness -----------------------------------------------------------------------------------

#[test]
fn d9_a_turn_reads_as_many_datagrams_of_a_socket_as_it_may() {
    for most in [1, 10, 64] {
        let (mut sim, log) = (Sim::new(1), Log::default());
        let id = bind(&mut sim, "node", with(|o| o.datagrams_max = most), Node::new(), &log);
        let client = sim.datagram_socket("10.0.0.2:0").unwrap();
        sim.run_for(ms(1)).unwrap();
        for _ in 0..200 {
            client.send_to(b"flood", addr_of(&sim, id));
        }
        let (mut before, mut seen) = (0, 0);
        sim.run_until(|sim| {
            let now = sim.metrics().datagrams_in;
            seen = seen.max(now - before);
            before = now;
            now == 200
        })
        .unwrap();
        assert_eq!(seen, most as u64);
        sim.control().peer(id).close();
        sim.run().unwrap();
    }
}

#[test]
fn d9_a_flood_of_datagrams_leaves_streams_their_turns() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let mut link = Link::default();
    link.window = 64 * 1024 * 1024;
    sim.set_link(link);
    let limits = |_: &mut Limits| {};
    let addr = serve_with(&mut sim, limits, || Echo);
    let sockets: Vec<Endpoint> = (0..4)
        .map(|_| {
            let id = bind(&mut sim, "node", with(|_| {}), Node::new(), &log);
            addr_of(&sim, id)
        })
        .collect();
    let flooder = sim.datagram_socket("10.0.0.2:0").unwrap();
    let (pinger, bulk) = (sim.dial(addr), sim.dial(addr));
    sim.run_for(ms(1)).unwrap();
    // More at once than several turns may move.
    for _ in 0..100 {
        for to in &sockets {
            flooder.send_to(&[7; 60_000], *to);
        }
    }
    bulk.send(&stream(0, 1 << 20));
    pinger.send(b"ping");
    let (mut before, mut most, mut turns) = (sim.metrics(), 0, 0);
    let (mut pong, mut bulk_done) = (None, None);
    sim.run_until(|sim| {
        let now = sim.metrics();
        let moved = now.bytes_in + now.bytes_out - before.bytes_in - before.bytes_out;
        most = most.max(moved);
        turns += u64::from(moved > 0);
        before = now.clone();
        // Time stands still while there is work: what is answered shows in what was written.
        if pong.is_none() && now.bytes_out > 0 {
            pong = Some(turns);
        }
        if bulk_done.is_none() && now.bytes_out >= 1 << 20 {
            bulk_done = Some(turns);
        }
        before.datagrams_in == 400
    })
    .unwrap();
    assert!(turns > 10, "the flood takes {turns} turns");
    // The turn's 2 MiB, and what each of six may move beyond: one datagram, or one budget.
    assert!(most <= 3 << 20, "{most} bytes in one turn");
    assert!(pong.is_some_and(|at| at <= 3), "the ping waits until turn {pong:?}");
    assert!(bulk_done.is_some_and(|at| at < turns), "the transfer waits for the flood");
}

#[test]
fn a_socket_that_waits_for_nothing_costs_no_turns() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    bind(&mut sim, "node", with(|_| {}), Node::new(), &log);
    sim.run_for(ms(10)).unwrap();
    let before = sim.metrics().turns;
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert!(sim.metrics().turns - before <= 1);
}

#[test]
fn a_refusal_that_is_answered_at_once_leaves_others_their_turns() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let nobody = SocketAddr::from(([10, 0, 0, 9], 9));
    let stubborn = Node::new().opened(|cx| Ok(cx.send(b"?")?)).refused(|cx| Ok(cx.send(b"?")?));
    bind(&mut sim, "stubborn", with(|o| o.connect = Some(nobody.into())), stubborn, &log);
    let mut ticks = 0;
    let calm = Node::new()
        .opened(|cx| {
            cx.set_timer(Timer::new(1), ms(1));
            Ok(())
        })
        .timeout(move |cx, timer| {
            ticks += 1;
            if ticks == 10 {
                cx.driver().shutdown();
            }
            cx.set_timer(timer, ms(1));
            Ok(())
        });
    bind(&mut sim, "calm", with(|_| {}), calm, &log);
    sim.run().unwrap();
    assert_eq!(log.of("calm").last().unwrap(), "closed finished by us");
}

#[test]
fn a_group_has_members_of_its_own_family() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let node = Node::new().opened(|cx| {
        let group = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
        assert!(cx.join(group, Interface::Any).is_err());
        cx.close();
        Ok(())
    });
    bind(&mut sim, "node", with(|_| {}), node, &log);
    sim.run().unwrap();
}

#[test]
fn d9_all_datagrams_of_a_turn_count_towards_its_bytes() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let mut link = Link::default();
    link.window = 64 * 1024 * 1024;
    sim.set_link(link);
    let flooder = sim.datagram_socket("10.0.0.2:0").unwrap();
    let ids: Vec<ConnId> =
        (0..16).map(|_| bind(&mut sim, "node", with(|_| {}), Node::new(), &log)).collect();
    sim.run_for(ms(1)).unwrap();
    for _ in 0..10 {
        for id in &ids {
            flooder.send_to(&[7; 50_000], addr_of(&sim, *id));
        }
    }
    let (mut before, mut most) = (0, 0);
    sim.run_until(|sim| {
        let now = sim.metrics();
        most = most.max(now.bytes_in - before);
        before = now.bytes_in;
        now.datagrams_in == 160
    })
    .unwrap();
    // The turn's 2 MiB and what the last socket moves beyond, then one datagram for each other.
    let bound = 2 * 1024 * 1024 + 256 * 1024 + 16 * 50_000;
    assert!((2 * 1024 * 1024..=bound).contains(&most), "{most} bytes in one turn");
}

#[test]
fn c17_a_datagram_that_came_while_the_process_was_stopped_puts_the_idle_deadline_off() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let id = bind(&mut sim, "node", with(|o| o.idle = Some(ms(200))), Node::new(), &log);
    let client = sim.datagram_socket("10.0.0.2:0").unwrap();
    sim.run_for(ms(100)).unwrap();
    client.send_to(b"in time", addr_of(&sim, id));
    sim.stop_for(ms(400));
    sim.run_for(ms(150)).unwrap();
    assert_eq!(log.of("node"), ["opened", "datagram of 7 bytes"]);
    sim.run_for(ms(100)).unwrap();
    assert_eq!(log.of("node").last().unwrap(), "closed timed out (idle) by the runtime");
}

/// Notes when its datagram came, and when it ended.
struct Timed(Rc<Cell<[Option<Instant>; 2]>>);

impl DatagramProtocol for Timed {
    fn datagram(&mut self, cx: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        self.0.set([Some(cx.now()), None]);
        Ok(())
    }
    fn closed(&mut self, cx: &mut DatagramContext<'_>, _: &CloseReason) {
        self.0.set([self.0.get()[0], Some(cx.now())]);
    }
}

#[test]
fn the_idle_deadline_of_a_socket_is_never_early() {
    for micros in [0, 1, 500, 999] {
        let mut sim = Sim::new(1);
        let times = Rc::<Cell<[Option<Instant>; 2]>>::default();
        let options = with(|o| o.idle = Some(ms(200)));
        let id = sim.bind_with("10.0.0.1:7", options, Timed(Rc::clone(&times))).unwrap();
        let client = sim.datagram_socket("10.0.0.2:0").unwrap();
        sim.run_for(Duration::from_micros(micros)).unwrap();
        client.send_to(b"here", addr_of(&sim, id));
        // Something else wakes the loop again and again.
        for _ in 0..3_000 {
            sim.run_for(Duration::from_micros(100)).unwrap();
        }
        let [Some(came), Some(ended)] = times.get() else { panic!("it did not come or end") };
        let silence = ended - came;
        assert!((ms(200)..=ms(202)).contains(&silence), "{silence:?} after {micros} us");
    }
}

#[test]
fn a_socket_that_is_closed_leaves_no_timer_behind() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let node = Node::new().opened(|cx| {
        cx.set_timer(Timer::new(1), Duration::from_secs(10));
        cx.close();
        Ok(())
    });
    bind(&mut sim, "node", with(|_| {}), node, &log);
    sim.keep_running(true);
    sim.run_for(Duration::from_secs(20)).unwrap();
    assert_eq!(log.of("node"), ["opened", "closed finished by us"]);
    assert_eq!(sim.metrics().stale, 0, "nothing was due for a socket that is gone");
}

#[test]
fn of_sockets_that_share_an_address_the_connected_one_hears_its_peer() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    let client = sim.datagram_socket("10.0.0.2:0").unwrap();
    let stranger = sim.datagram_socket("10.0.0.3:0").unwrap();
    let any = bind(&mut sim, "any", with(|o| o.reuse_address = true), Node::new(), &log);
    let addr = addr_of(&sim, any);
    let connected = with(|o| {
        o.reuse_address = true;
        o.connect = Some(client.local_addr());
    });
    sim.bind_with(addr, connected, Node::new().under("connected", &log)).unwrap();
    client.send_to(b"peer", addr);
    stranger.send_to(b"other", addr);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(log.of("connected"), ["opened", "datagram of 4 bytes"]);
    assert_eq!(log.of("any"), ["opened", "datagram of 5 bytes"]);
}

#[test]
fn a_group_that_nobody_has_joined_refuses_nothing() {
    let (mut sim, log) = (Sim::new(1), Log::default());
    // The last is an address at which nobody is.
    for (peer, lines) in [
        ("239.1.2.3:7", &["opened"][..]),
        ("255.255.255.255:7", &["opened"]),
        ("10.0.0.9:7", &["opened", "refused"]),
    ] {
        let options = with(|o| {
            o.connect = Some(peer.parse::<SocketAddr>().unwrap().into());
            o.broadcast = true;
        });
        let node = Node::new().opened(|cx| {
            cx.send(b"is anybody there?")?;
            Ok(())
        });
        bind(&mut sim, peer, options, node, &log);
        sim.run_for(ms(5)).unwrap();
        assert_eq!(log.of(peer), lines);
    }
}
