//! Connects in a network of a test's own.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lariat::{
    By, CloseKind, ConnectFailure, ConnectOptions, Context, DriverLimits, ErrorKind, Handle, Input,
    Outcome, Protocol, blocking, reactor,
};

use crate::kit::*;

/// Counts how often it was opened.
struct Opens(Arc<AtomicUsize>);

impl Protocol for Opens {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.fetch_add(1, Ordering::Relaxed);
        cx.close();
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn d11_nobody_is_connected_to_itself() {
    let Some(driver) = part() else {
        let name = "connecting::d11_nobody_is_connected_to_itself";
        let range = "sysctl -qw net.ipv4.ip_local_port_range='40000 40019'";
        for driver in DRIVERS {
            in_a_network(range, name, driver);
        }
        return;
    };
    let connect = match driver.as_str() {
        "reactor" => |opens| reactor::connect(DEAD, opens).unwrap().1,
        _ => |opens| blocking::connect(DEAD, opens).unwrap().1,
    };
    // Nobody listens there, and the system may choose it for a client.
    const DEAD: &str = "127.0.0.1:40006";
    let opened = Arc::new(AtomicUsize::new(0));
    for round in 0..300 {
        let reason = connect(Opens(Arc::clone(&opened)));
        let refused = CloseKind::Connect(ConnectFailure::Refused);
        assert_eq!(reason.kind(), refused, "in round {round}: {reason}");
    }
    assert_eq!(opened.load(Ordering::Relaxed), 0);
    // The port is free for whoever is to listen there.
    TcpListener::bind(DEAD).unwrap();
}

#[test]
fn d11_a_client_bound_to_the_address_that_it_connects_to_is_refused() {
    for connect in [reactor::connect_with, blocking::connect_with] {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut options = ConnectOptions::default();
        options.bind = Some(free.into());
        let opened = Arc::new(AtomicUsize::new(0));
        let reason = connect(free, options, Opens(Arc::clone(&opened))).unwrap().1;
        let refused = CloseKind::Connect(ConnectFailure::Refused);
        assert_eq!((reason.kind(), opened.load(Ordering::Relaxed)), (refused, 0));
    }
}

/// Shuts a driver down when it is dropped, also by a client that fails.
pub(crate) struct Stops(pub(crate) Handle);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

#[test]
fn a_link_local_address_is_one_of_its_interface() {
    let Some(name) = part() else {
        let name = "connecting::a_link_local_address_is_one_of_its_interface";
        // The way to the address is there a moment later than the address.
        let setup = "ip -6 address add fe80::78/64 dev lo nodad && for try in $(seq 500); do \
                     ip -6 route get fe80::78 oif lo 2>&1 | grep -q ^local && break; \
                     sleep 0.01; done";
        for driver in DRIVERS {
            in_a_network(setup, name, driver);
        }
        return;
    };
    let mut driver = driver(&name, DriverLimits::default());
    let listener = driver.control().listen("[fe80::78%lo]:0", |_| Some(Echo)).unwrap();
    let addr = driver.addresses(listener)[0];
    let handle = driver.handle();
    let clients = std::thread::spawn(move || {
        let _stops = Stops(handle);
        let opened = Arc::new(AtomicUsize::new(0));
        // The address of the listener says the interface as a number.
        for addr in [format!("[fe80::78%lo]:{}", addr.port().unwrap()), addr.to_string()] {
            let opens = Opens(Arc::clone(&opened));
            let (_, reason) = match name.as_str() {
                "reactor" => reactor::connect(addr.as_str(), opens).unwrap(),
                _ => blocking::connect(addr.as_str(), opens).unwrap(),
            };
            assert_eq!(reason.kind(), CloseKind::Finished, "{addr}");
        }
        opened.load(Ordering::Relaxed)
    });
    driver.run().unwrap();
    assert_eq!(clients.join().unwrap(), 2);
}

#[test]
fn a_link_local_address_without_its_interface_is_refused_in_plain_words() {
    let wrong = "a link-local address needs its network interface";
    for name in DRIVERS {
        let mut driver = driver(name, DriverLimits::default());
        let error = driver.control().listen("[fe80::78]:1", |_| Some(Echo)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        assert_eq!(error.to_string(), format!("cannot listen on [fe80::78]:1: {wrong}"));
        let hint = "hint: name the interface as in [fe80::1%eth0]:7000";
        assert_eq!(format!("{error:?}"), format!("{error}\n{hint}"));
    }
    for connect in [reactor::connect, blocking::connect] {
        let reason = connect("[fe80::78]:1", Opens(Arc::default())).unwrap().1;
        let unavailable = CloseKind::Connect(ConnectFailure::AddressUnavailable);
        assert_eq!((reason.kind(), reason.by()), (unavailable, By::Runtime));
        assert_eq!(reason.error().unwrap().to_string(), wrong);
    }
}
