//! What `DatagramOptions::offload` adds, and what it must not change: each of these runs with it
//! and without.

use std::net::IpAddr;
use std::time::Duration;

use lariat::{DriverLimits, Ecn, Timer, UnixName};

use crate::datagrams::{close, deserted, with};
use crate::kit::{on_sockets, with_datagrams as everywhere};
use crate::node::Node;

#[test]
fn a_socket_on_all_addresses_is_told_where_a_datagram_was_sent_to() {
    for (any, one) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        everywhere(|stage| {
            let (knows, ip) = (stage.knows_destinations(), one.parse::<IpAddr>().unwrap());
            let server = Node::new().datagram(move |cx, datagram| {
                let port = cx.local_addr().unwrap().port().unwrap();
                assert_eq!(datagram.to(), knows.then_some((ip, port).into()));
                close(cx)
            });
            let id = stage.bind_at("server", any, with(|_| {}), server);
            let port = stage.driver.bound_addr(id).unwrap().port().unwrap();
            let client = Node::new().opened(move |cx| {
                cx.send_to(b"there", (ip, port))?;
                close(cx)
            });
            let own = if ip.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            stage.bind_at("client", own, with(|_| {}), client);
            stage.run();
            let lines = ["opened", "datagram of 5 bytes", "closed finished by us"];
            stage.expect_node("server", &lines);
        });
    }
}

#[test]
fn a_mark_for_congestion_is_told_with_offload_and_makes_no_difference_without() {
    for (bits, mark) in
        [(0b00, None), (0b10, Some(Ecn::Ect0)), (0b01, Some(Ecn::Ect1)), (0b11, Some(Ecn::Ce))]
    {
        for (addr, importance) in [("127.0.0.1:0", 0), ("[::1]:0", 0xB8), ("127.0.0.1:0", 0xB8)] {
            everywhere(|stage| {
                let expected = mark.filter(|_| stage.has_offload());
                let mut left = 5;
                let server = Node::new().datagram(move |cx, datagram| {
                    assert_eq!(datagram.ecn(), expected);
                    left -= 1;
                    if left == 0 { close(cx) } else { Ok(()) }
                });
                let id = stage.bind_at("server", addr, with(|_| {}), server);
                let to = stage.driver.bound_addr(id).unwrap();
                let client = Node::new().opened(move |cx| {
                    (0..5).try_for_each(|_| cx.send_to(b"equally long", to))?;
                    close(cx)
                });
                let options = with(|o| o.tos = Some(importance | bits));
                stage.bind_at("client", addr, options, client);
                stage.run();
                assert_eq!(stage.log.of("server").len(), 7);
            });
        }
    }
}

#[test]
fn every_byte_is_counted_once_however_many_datagrams_a_call_sends() {
    everywhere(|stage| {
        let mut left = 7;
        let server = Node::new().datagram(move |cx, _| {
            left -= 1;
            if left == 0 { close(cx) } else { Ok(()) }
        });
        let (_, to) = stage.bind(
            "server",
            server.closed(|_, reason| {
                assert_eq!((reason.bytes_in(), reason.bytes_out()), (630, 0));
            }),
        );
        let client = Node::new().opened(move |cx| {
            (0..6).try_for_each(|_| cx.send_to(&[7; 100], to))?;
            cx.send_to(&[7; 30], to)?;
            close(cx)
        });
        let client = client.closed(|_, reason| {
            assert_eq!((reason.bytes_in(), reason.bytes_out(), reason.unsent()), (0, 630, 0));
        });
        stage.bind("client", client);
        stage.run();
        stage.expect_node("client", &["opened", "closed finished by us"]);
        assert_eq!(stage.log.of("server").len(), 9);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.bytes_in, metrics.bytes_out), (630, 630));
        assert_eq!((metrics.datagrams_in, metrics.datagrams_out), (7, 7));
    });
}

/// Lengths that end a train of equal datagrams, or do not begin one.
const LENGTHS: [usize; 16] = [100, 100, 100, 50, 100, 0, 0, 7, 7, 7, 7, 8, 8, 0, 8, 8];

#[test]
fn equal_and_unequal_datagrams_to_several_receivers_arrive_whole_and_in_order() {
    everywhere(|stage| {
        let server = || {
            let mut number = 0;
            Node::new().datagram(move |cx, datagram| {
                let at = number % LENGTHS.len();
                assert_eq!(datagram.len(), LENGTHS[at]);
                assert!(datagram.iter().all(|byte| usize::from(*byte) == number % 251));
                number += 1;
                if number == 10 * LENGTHS.len() { close(cx) } else { Ok(()) }
            })
        };
        let (_, one) = stage.bind("one", server());
        let (_, two) = stage.bind("two", server());
        let mut rounds = 0;
        let client = Node::new()
            .opened(|cx| {
                cx.set_timer(Timer::new(1), Duration::from_millis(1));
                Ok(())
            })
            .timeout(move |cx, timer| {
                let first = rounds * LENGTHS.len();
                for (at, length) in LENGTHS.into_iter().enumerate() {
                    let bytes = vec![((first + at) % 251) as u8; length];
                    // By turns, and in a row.
                    cx.send_to(&bytes, one)?;
                    if rounds % 2 == 0 {
                        cx.send_to(&bytes, two)?;
                    }
                }
                for (at, length) in LENGTHS.into_iter().enumerate().filter(|_| rounds % 2 == 1) {
                    cx.send_to(&vec![((first + at) % 251) as u8; length], two)?;
                }
                assert_eq!((cx.unsent(), cx.is_congested()), (0, false));
                rounds += 1;
                if rounds == 10 {
                    return close(cx);
                }
                cx.set_timer(timer, Duration::from_millis(1));
                Ok(())
            });
        stage.bind("client", client);
        stage.run();
        let mut expected = vec!["opened".to_owned()];
        expected.extend(LENGTHS.iter().cycle().take(160).map(|n| format!("datagram of {n} bytes")));
        expected.push("closed finished by us".to_owned());
        stage.expect_node("one", &expected);
        stage.expect_node("two", &expected);
        let metrics = stage.driver.metrics();
        assert_eq!((metrics.datagrams_out, metrics.datagrams_in), (320, 320));
        let all = 20 * LENGTHS.iter().sum::<usize>() as u64;
        assert_eq!((metrics.bytes_out, metrics.bytes_in), (all, all));
        assert_eq!(metrics.datagrams_dropped, 0);
    });
}

#[test]
fn a_datagram_that_came_with_the_last_one_puts_the_end_of_a_silence_off() {
    // A timer of a busy machine is not so late.
    const IDLE: Duration = Duration::from_millis(200);
    everywhere(|stage| {
        let mut number = 0;
        let server = Node::new().datagram(move |_, _| {
            number += 1;
            if number == 1 {
                std::thread::sleep(IDLE + IDLE / 2);
            }
            Ok(())
        });
        let (_, addr) = stage.bind_with("server", with(|o| o.idle = Some(IDLE)), server);
        let client = Node::new().opened(move |cx| {
            // With offload they leave, and come, by one call.
            cx.send_to(b"one", addr)?;
            cx.send_to(b"two", addr)?;
            close(cx)
        });
        stage.bind("client", client);
        stage.run();
        let lines = ["opened", "datagram of 3 bytes", "datagram of 3 bytes"];
        let end = "closed timed out (idle) by the runtime";
        stage.expect_node("server", &[&lines[..], &[end]].concat());
    });
}

#[test]
fn an_abort_drops_what_was_to_leave_together_and_counts_it() {
    everywhere(|stage| {
        let server = Node::new().datagram(|cx, _| close(cx));
        let (_, addr) = stage.bind("server", server);
        let client = Node::new()
            .opened(move |cx| {
                (0..5).try_for_each(|_| cx.send_to(b"12345", addr))?;
                cx.abort();
                Ok(())
            })
            .closed(|_, reason| assert_eq!(reason.bytes_out() + reason.unsent(), 25));
        stage.bind("client", client);
        stage.run();
        let metrics = stage.driver.metrics();
        assert_eq!(metrics.datagrams_out + metrics.datagrams_dropped, 5);
        let alone = if stage.has_offload() { 1 } else { 5 };
        assert_eq!(metrics.datagrams_out, alone);
    });
}

#[test]
fn d5_those_that_leave_together_are_refused_like_any_other() {
    everywhere(|stage| {
        let client = Node::new()
            .opened(|cx| {
                for _ in 0..5 {
                    cx.send(b"anybody?")?;
                }
                Ok(())
            })
            .refused(|cx| {
                cx.set_timer(Timer::new(1), Duration::from_millis(20));
                Ok(())
            })
            .timeout(|cx, _| close(cx));
        stage.bind_with("client", with(|o| o.connect = Some(deserted().into())), client);
        stage.run();
        let lines = stage.log.of("client");
        assert_eq!(lines[..2], ["opened", "refused"]);
        assert_eq!(lines.last().unwrap(), "closed finished by us");
        assert_eq!(stage.driver.metrics().datagrams_dropped, 0);
    });
}

#[test]
fn an_option_of_udp_that_cannot_be_set_is_named() {
    on_sockets(DriverLimits::default(), |stage| {
        let options = with(|o| o.offload = true);
        let path = UnixName::unnamed();
        let error = stage.driver.control().bind_with(path, options, Node::new()).unwrap_err();
        assert!(error.to_string().contains("offload"), "{error}");
        let options = with(|o| o.tos = Some(1));
        let error = stage.driver.control().bind_with(path, options, Node::new()).unwrap_err();
        assert!(error.to_string().contains("tos"), "{error}");
        stage.run();
    });
}
