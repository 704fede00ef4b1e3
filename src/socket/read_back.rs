//! The options of real sockets as the system tells them, for tests of the drivers that have some.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use socket2::{SockRef, Socket};

use crate::driver::Driver;
use crate::endpoint::Endpoint;
use crate::error::ErrorKind;
use crate::options::{ConnectOptions, Keepalive, ListenOptions};
use crate::protocol::{Context, Input, Outcome, Protocol};
use crate::reason::{CloseKind, CloseReason, ConnectFailure};

/// Linux doubles the size of a buffer that it is given, for its own bookkeeping.
const FACTOR: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

/// The interface of the loopback addresses, where a socket can be bound to one.
const DEVICE: Option<&str> = if cfg!(target_os = "linux") { Some("lo") } else { None };

/// Every option of streams on `make`'s drivers, accepted and outgoing.
pub(crate) fn every_option_is_read_back<D: Driver>(make: impl Fn() -> D) {
    let ends = |listen, connect| ends(&mut make(), listen, connect);
    let (listen, connect) = (ListenOptions::default(), ConnectOptions::default());
    let (accepted, outgoing) = ends(listen.clone(), connect.clone());
    assert!(accepted.nodelay && outgoing.nodelay, "on by default");
    assert_eq!((accepted.keepalive, outgoing.keepalive), (None, None), "off by default");

    let without = ListenOptions { nodelay: false, ..listen.clone() };
    let (accepted, outgoing) = ends(without, connect.clone());
    assert_eq!((accepted.nodelay, outgoing.nodelay), (false, true));
    let without = ConnectOptions { nodelay: false, ..connect.clone() };
    let (accepted, outgoing) = ends(listen.clone(), without);
    assert_eq!((accepted.nodelay, outgoing.nodelay), (true, false));

    // The least that is taken, and a mixture.
    let least = keepalive(1, 1, 1);
    let other = keepalive(70, 7, 3);
    let (accepted, outgoing) = ends(
        ListenOptions { keepalive: Some(least), ..listen.clone() },
        ConnectOptions { keepalive: Some(other), ..connect.clone() },
    );
    assert_eq!((accepted.keepalive, outgoing.keepalive), (Some(least), Some(other)));

    let (accepted, outgoing) = ends(
        ListenOptions { send_buffer: Some(20_000), receive_buffer: Some(30_000), ..listen },
        ConnectOptions { send_buffer: Some(40_000), receive_buffer: Some(50_000), ..connect },
    );
    assert_eq!(accepted.buffers, (20_000 * FACTOR, 30_000 * FACTOR));
    assert_eq!(outgoing.buffers, (40_000 * FACTOR, 50_000 * FACTOR));
    packets_are_marked(&make);
}

/// The interface that sockets are bound to: inherited by what is accepted.
#[cfg(target_os = "linux")]
pub(crate) fn a_socket_is_bound_to_its_device<D: Driver>(make: impl Fn() -> D) {
    let (listen, connect) = (ListenOptions::default(), ConnectOptions::default());
    let (accepted, outgoing) = ends(&mut make(), listen.clone(), connect.clone());
    assert_eq!((accepted.device, outgoing.device), (None, None), "any by default");
    let lo = Some("lo".to_owned());
    let bound = ListenOptions { device: lo.clone(), ..listen.clone() };
    let (accepted, outgoing) = ends(&mut make(), bound, connect.clone());
    assert_eq!((accepted.device, outgoing.device), (lo.clone(), None));
    let bound = ConnectOptions { device: lo.clone(), ..connect.clone() };
    let (accepted, outgoing) = ends(&mut make(), listen.clone(), bound);
    assert_eq!((accepted.device, outgoing.device), (None, lo));

    let none = Some("lariat-none".to_owned());
    let sentence = "the system rejects the option device: there is no network interface \
                    lariat-none";
    let mut driver = make();
    let options = ListenOptions { device: none.clone(), ..listen };
    let error = driver.control().listen_with(any(), options, |_| None::<Ending>).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidLimits);
    assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:0: {sentence}"));
    let (told, hears) = channel();
    let options = ConnectOptions { device: none, ..connect };
    driver.control().connect_with(([127, 0, 0, 1], 9), options, Ending(told)).unwrap();
    driver.run().unwrap();
    let options = CloseKind::Connect(ConnectFailure::Options);
    assert_eq!(hears.recv().unwrap(), (options, sentence.to_owned()));
}

/// What routers see, in both families, and of peers of IPv4 on a listener of IPv6.
fn packets_are_marked<D: Driver>(make: impl Fn() -> D) {
    let (v4, v6) = (SocketAddr::from(([127, 0, 0, 1], 0)), "[::1]:0".parse().unwrap());
    let default = ends(&mut make(), ListenOptions::default(), ConnectOptions::default()).0;
    for (addr, both) in [(v4, false), (v6, false), ("[::]:0".parse().unwrap(), true)] {
        for (ttl, tos) in [(Some(1), Some(0xB8)), (Some(255), None), (None, Some(0x20))] {
            let listen = ListenOptions { ttl, tos, v6_only: !both, ..ListenOptions::default() };
            let (other_ttl, other_tos) = (ttl.map(|ttl| ttl / 2 + 1), tos.map(|tos| tos / 2));
            let connect = ConnectOptions::default();
            let connect = ConnectOptions { ttl: other_ttl, tos: other_tos, ..connect };
            let (accepted, outgoing) = ends_at(&mut make(), addr, listen, connect);
            // An accepted socket of the third case is one of IPv6 with a peer of IPv4.
            let expected = |ttl: Option<u8>, tos: Option<u8>| {
                (ttl.map_or(default.packets.0, u32::from), tos.map_or(0, u32::from))
            };
            assert_eq!(accepted.packets, expected(ttl, tos), "accepted at {addr}");
            assert_eq!(outgoing.packets, expected(other_ttl, other_tos), "outgoing to {addr}");
        }
    }
}

/// What is adopted is given its options as well: a stream, and the connections of a listener, those
/// that wait in its queue and those to come.
pub(crate) fn what_is_adopted_is_given_its_options<D: Driver>(make: impl Fn() -> D) {
    let keepalive = Some(keepalive(70, 7, 3));
    for nodelay in [true, false] {
        let mut driver = make();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let waiting = TcpStream::connect(addr).unwrap();
        waiting.set_nodelay(!nodelay).unwrap();
        let (told, hears_stream) = channel();
        let options = ConnectOptions {
            nodelay,
            keepalive,
            send_buffer: Some(40_000),
            receive_buffer: Some(50_000),
            ttl: Some(33),
            tos: Some(0x20),
            device: DEVICE.map(str::to_owned),
            ..ConnectOptions::default()
        };
        let telling = Telling { told, stops: false };
        driver.control().adopt_stream(waiting, options, telling).unwrap();

        let (told, hears_listener) = channel();
        let accepted = AtomicUsize::new(0);
        let factory = move |_: &_| {
            let stops = accepted.fetch_add(1, Ordering::Relaxed) == 1;
            Some(Telling { told: told.clone(), stops })
        };
        let options = ListenOptions {
            nodelay,
            keepalive,
            send_buffer: Some(20_000),
            receive_buffer: Some(30_000),
            ttl: Some(44),
            tos: Some(0xB8),
            device: DEVICE.map(str::to_owned),
            ..ListenOptions::default()
        };
        driver.control().adopt_listener(socket, options, factory).unwrap();
        let (told, _unheard) = channel();
        let later = Telling { told, stops: false };
        driver.control().connect(addr, later);
        driver.run().unwrap();

        let told =
            [&hears_stream, &hears_listener, &hears_listener].map(|told| told.recv().unwrap());
        let stream = ((40_000 * FACTOR, 50_000 * FACTOR), (33, 0x20));
        let accepted = ((20_000 * FACTOR, 30_000 * FACTOR), (44, 0xB8));
        for (told, expected) in told.iter().zip([stream, accepted, accepted]) {
            assert_eq!((told.nodelay, told.keepalive), (nodelay, keepalive));
            assert_eq!((told.buffers, told.packets), expected);
            #[cfg(target_os = "linux")]
            assert_eq!(told.device.as_deref(), DEVICE);
        }
    }
}

/// The bounds that Linux has for keepalive: at them, and one above.
#[cfg(target_os = "linux")]
pub(crate) fn what_the_system_rejects_is_named<D: Driver>(make: impl Fn() -> D) {
    let most = keepalive(32_767, 32_767, 127);
    let (listen, connect) = (ListenOptions::default(), ConnectOptions::default());
    let (accepted, outgoing) = ends(
        &mut make(),
        ListenOptions { keepalive: Some(most), ..listen.clone() },
        ConnectOptions { keepalive: Some(most), ..connect.clone() },
    );
    assert_eq!((accepted.keepalive, outgoing.keepalive), (Some(most), Some(most)));

    let too_much = [
        (keepalive(32_768, 1, 1), "keepalive.idle"),
        (keepalive(1, 32_768, 1), "keepalive.interval"),
        (keepalive(1, 1, 128), "keepalive.count"),
    ];
    for (keepalive, option) in too_much {
        let mut driver = make();
        let options = ListenOptions { keepalive: Some(keepalive), ..listen.clone() };
        let error = driver.control().listen_with(any(), options, |_| None::<Ending>).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidLimits);
        let sentence = format!("the system rejects the option {option}: Invalid argument");
        let whole = format!("cannot listen on 127.0.0.1:0: {sentence}");
        assert!(error.to_string().starts_with(&whole), "{error}");

        let (told, hears) = channel();
        let options = ConnectOptions { keepalive: Some(keepalive), ..connect.clone() };
        driver.control().connect_with(([127, 0, 0, 1], 9), options, Ending(told)).unwrap();
        driver.run().unwrap();
        let (kind, error) = hears.recv().unwrap();
        assert_eq!(kind, CloseKind::Connect(ConnectFailure::Options));
        assert!(error.starts_with(&sentence), "{error}");
    }
}

/// The local address of outgoing connections.
#[cfg(target_os = "linux")]
pub(crate) fn a_connect_leaves_from_the_address_it_is_bound_to<D: Driver>(make: impl Fn() -> D) {
    let from = |from: Endpoint| {
        let connect = ConnectOptions { bind: Some(from), ..ConnectOptions::default() };
        let (accepted, outgoing) = ends(&mut make(), ListenOptions::default(), connect);
        assert_eq!(outgoing.local, accepted.peer);
        outgoing.local
    };
    let free = from(([127, 0, 0, 7], 0).into());
    assert_eq!(free.ip(), Some([127, 0, 0, 7].into()));
    let named = ([127, 0, 0, 8], free.port().unwrap()).into();
    assert_eq!(from(named), named);
    // The earlier connection still waits in the system to be forgotten: the client closed first.
    assert_eq!(from(named), named);

    let (told, hears) = channel();
    let mut driver = make();
    // An address of documents, which no machine has.
    let bind = Some(([192, 0, 2, 1], 0).into());
    let options = ConnectOptions { bind, ..ConnectOptions::default() };
    driver.control().connect_with(([127, 0, 0, 1], 9), options, Ending(told)).unwrap();
    driver.run().unwrap();
    let (kind, error) = hears.recv().unwrap();
    assert_eq!(kind, CloseKind::Connect(ConnectFailure::AddressUnavailable));
    assert!(error.starts_with("cannot connect from 192.0.2.1:0: "), "{error}");
}

fn keepalive(idle: u64, interval: u64, count: u32) -> Keepalive {
    let (idle, interval) = (Duration::from_secs(idle), Duration::from_secs(interval));
    let mut keepalive = Keepalive::default();
    (keepalive.idle, keepalive.interval, keepalive.count) = (idle, interval, count);
    keepalive
}

fn any() -> crate::address::Address {
    SocketAddr::from(([127, 0, 0, 1], 0)).into()
}

/// The options of the socket of one end of a connection.
#[derive(Debug)]
struct Told {
    nodelay: bool,
    keepalive: Option<Keepalive>,
    /// Of the output, of the input.
    buffers: (usize, usize),
    /// TTL or hop limit, TOS or traffic class.
    packets: (u32, u32),
    /// The interface that it is bound to.
    #[cfg(target_os = "linux")]
    device: Option<String>,
    local: Endpoint,
    peer: Endpoint,
}

impl Told {
    fn of(socket: &Socket) -> Told {
        let keepalive = socket.keepalive().unwrap().then(|| Keepalive {
            idle: socket.tcp_keepalive_time().unwrap(),
            interval: socket.tcp_keepalive_interval().unwrap(),
            count: socket.tcp_keepalive_retries().unwrap(),
        });
        let v6 = Endpoint::from(&socket.peer_addr().unwrap()).ip().is_some_and(|ip| ip.is_ipv6());
        let packets = match v6 {
            true => (socket.unicast_hops_v6().unwrap(), socket.tclass_v6().unwrap()),
            false => (socket.ttl_v4().unwrap(), socket.tos_v4().unwrap()),
        };
        Told {
            #[cfg(target_os = "linux")]
            device: socket.device().unwrap().map(|name| String::from_utf8(name).unwrap()),
            packets,
            nodelay: socket.tcp_nodelay().unwrap(),
            keepalive,
            buffers: (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap()),
            local: Endpoint::from(&socket.local_addr().unwrap()),
            peer: Endpoint::from(&socket.peer_addr().unwrap()),
        }
    }
}

/// Makes one connection; returns the options of its accepted and its outgoing end.
#[track_caller]
fn ends(driver: &mut dyn Driver, listen: ListenOptions, connect: ConnectOptions) -> (Told, Told) {
    ends_at(driver, SocketAddr::from(([127, 0, 0, 1], 0)), listen, connect)
}

/// The same with a listener at `at`. One of all addresses is connected to by IPv4.
#[track_caller]
fn ends_at(
    driver: &mut dyn Driver,
    at: SocketAddr,
    listen: ListenOptions,
    connect: ConnectOptions,
) -> (Told, Told) {
    let (accepted, hears_accepted) = channel();
    let factory = move |_: &_| Some(Telling { told: accepted.clone(), stops: true });
    let listener = driver.control().listen_with(at, listen, factory).unwrap();
    let mut addr = driver.addresses(listener)[0].socket_addr().unwrap();
    if at.ip().is_unspecified() {
        addr.set_ip([127, 0, 0, 1].into());
    }
    let (outgoing, hears_outgoing) = channel();
    driver.control().connect_with(addr, connect, Telling { told: outgoing, stops: false }).unwrap();
    driver.run().unwrap();
    (hears_accepted.recv().unwrap(), hears_outgoing.recv().unwrap())
}

/// Tells of its socket. The outgoing end closes first, and none is left to wait for if it fails.
struct Telling {
    told: Sender<Told>,
    /// Whether its listener is to stop.
    stops: bool,
}

impl Protocol for Telling {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        // Nobody may want to know.
        let _ = self.told.send(Told::of(&SockRef::from(&cx.descriptor().unwrap())));
        match cx.listener() {
            Some(listener) if self.stops => cx.driver().stop_listening(listener),
            Some(_) => {}
            None => cx.close(),
        }
        Ok(())
    }

    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_>, reason: &CloseReason) {
        if let CloseKind::Connect(_) = reason.kind() {
            cx.driver().shutdown();
        }
    }
}

/// Tells of its end.
#[cfg(target_os = "linux")]
struct Ending(Sender<(CloseKind, String)>);

#[cfg(target_os = "linux")]
impl Protocol for Ending {
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_>, reason: &CloseReason) {
        let error = reason.error().map(ToString::to_string).unwrap_or_default();
        self.0.send((reason.kind(), error)).unwrap();
    }
}
