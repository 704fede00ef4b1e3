//! IPv6, both families on one socket, groups, and ports that are shared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lariat::{DatagramOptions, DriverLimits, ErrorKind, Interface, Note, Op};

use crate::datagrams::{close, group, with};
use crate::kit::{Stage, on_sockets, with_datagrams as everywhere};
use crate::node::{Node, echo};

const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// Binds `node` there, and returns the port.
fn port_of(
    stage: &mut Stage<'_>,
    who: &str,
    at: &str,
    options: DatagramOptions,
    node: Node,
) -> u16 {
    let id = stage.bind_at(who, at, options, node);
    stage.driver.bound_addr(id).unwrap().port().unwrap()
}

/// Sends `text` to there, and closes once it is answered.
fn asks(text: &'static str, to: SocketAddr) -> Node {
    Node::new().opened(move |cx| Ok(cx.send_to(text.as_bytes(), to)?)).datagram(
        move |cx, datagram| {
            assert_eq!((&datagram[..], datagram.from()), (text.as_bytes(), to.into()));
            close(cx)
        },
    )
}

#[test]
fn d7_d8_an_ipv6_datagram_may_be_empty_and_20_bytes_longer() {
    everywhere(|stage| {
        let port = port_of(stage, "server", "[::1]:0", with(|_| {}), echo(2));
        let to = (Ipv6Addr::LOCALHOST, port);
        // In one piece it does not pass the loopback interface.
        let longest = if stage.has_offload() { 65_536 - 48 } else { 65_527 };
        let client = Node::new()
            .opened(move |cx| {
                let error = cx.send_to(&vec![7; longest + 1], to).unwrap_err();
                assert_eq!((error.kind(), error.op()), (ErrorKind::TooLarge, Op::Send));
                cx.send_to(b"", to)?;
                Ok(cx.send_to(&vec![7; longest], to)?)
            })
            .datagram(|cx, datagram| if datagram.is_empty() { Ok(()) } else { close(cx) });
        stage.bind_at("client", V6, with(|_| {}), client);
        stage.run();
        let long = format!("datagram of {longest} bytes");
        let lines = ["opened", "datagram of 0 bytes", &long, "closed finished by us"];
        stage.expect_node("server", &lines);
        stage.expect_node("client", &lines);
    });
}

#[test]
fn d5_a_refusal_over_ipv6_is_told() {
    everywhere(|stage| {
        let nobody = (Ipv6Addr::LOCALHOST, 1);
        let client = Node::new().opened(|cx| Ok(cx.send(b"?")?)).refused(close);
        stage.bind_at("client", V6, with(|o| o.connect = Some(nobody.into())), client);
        stage.run();
        stage.expect_node("client", &["opened", "refused", "closed finished by us"]);
    });
}

#[test]
fn d4_a_socket_on_all_addresses_serves_both_families_if_it_is_to() {
    on_sockets(DriverLimits::default(), |stage| {
        let both = with(|o| o.v6_only = false);
        let port = port_of(stage, "both", "[::]:0", both, echo(2));
        // Each is answered from where it has asked: an IPv4 peer has its IPv4 address.
        stage.bind_at(
            "four",
            "127.0.0.1:0",
            with(|_| {}),
            asks("v4", ([127, 0, 0, 1], port).into()),
        );
        stage.bind_at("six", V6, with(|_| {}), asks("v6", (Ipv6Addr::LOCALHOST, port).into()));
        // And else it leaves IPv4 to another socket.
        let closes = || Node::new().opened(close);
        let port = port_of(stage, "only six", "[::]:0", with(|_| {}), closes());
        stage.bind_at("only four", (Ipv4Addr::UNSPECIFIED, port), with(|_| {}), closes());
        stage.run();
        for who in ["four", "six"] {
            stage.expect_node(who, &["opened", "datagram of 2 bytes", "closed finished by us"]);
        }
    });
}

#[test]
fn several_sockets_share_a_port_if_all_of_them_say_so() {
    type Change = fn(&mut DatagramOptions);
    let ways: [Change; 2] = [|o| o.reuse_port = true, |o| o.reuse_address = true];
    for set in ways {
        everywhere(|stage| {
            let closes = || Node::new().opened(close);
            let port = port_of(stage, "first", "127.0.0.1:0", with(set), closes());
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            stage.bind_at("second", addr, with(set), closes());
            let error = stage.driver.control().bind(addr, Node::new()).unwrap_err();
            assert_eq!((error.kind(), error.op()), (ErrorKind::AddressInUse, Op::Bind));
            let port = port_of(stage, "alone", "127.0.0.1:0", with(|_| {}), closes());
            let alone = SocketAddr::from(([127, 0, 0, 1], port));
            let error =
                stage.driver.control().bind_with(alone, with(set), Node::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddressInUse);
            stage.run();
        });
    }
}

/// An interface with a link-local IPv6 address, and so with groups: the loopback has none.
fn multicast_index() -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let line = table.lines().find(|line| line.starts_with("fe80"))?;
    u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()
}

#[test]
fn an_ipv6_group_is_heard_from_joining_to_leaving() {
    let Some(interface) = multicast_index() else { return eprintln!("skipped: no IPv6 network") };
    // Of this scope nothing leaves the machine.
    let [.., high, low] = group().octets();
    let group = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, high.into(), low.into());
    everywhere(|stage| {
        let speaker = Node::new().notified(move |cx, note| {
            let port: u16 = note.downcast().unwrap();
            cx.send_to(b"all", (group, port))?;
            close(cx)
        });
        let options = with(|o| o.multicast_interface = Interface::Index(interface));
        let speaker = stage.bind_at("speaker", "[::]:0", options, speaker);
        let member = Node::new()
            .opened(move |cx| {
                let error = cx.leave(group, interface).unwrap_err();
                assert_eq!((error.kind(), error.op()), (ErrorKind::AddressUnavailable, Op::Leave));
                cx.join(group, interface)?;
                let port = cx.local_addr().unwrap().port().unwrap();
                cx.peer(speaker).notify(Note::new(port));
                Ok(())
            })
            .datagram(move |cx, _| {
                cx.leave(group, interface)?;
                close(cx)
            });
        stage.bind_at("member", "[::]:0", with(|_| {}), member);
        stage.run();
        let lines = ["opened", "datagram of 3 bytes", "closed finished by us"];
        stage.expect_node("member", &lines);
    });
}
