//! Which socket of the made-up network a connection is for, as Linux decides it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use lariat::sim::Sim;
use lariat::{
    Context, ErrorKind, Incoming, Input, ListenOptions, ListenerId, Outcome, PeerCredentials,
    Protocol,
};

use crate::kit::{Echo, ms};

const PORT: u16 = 7000;

fn listen(sim: &mut Sim, ip: &str, v6_only: bool) -> lariat::Result<ListenerId> {
    let mut options = ListenOptions::default();
    options.v6_only = v6_only;
    let addr = SocketAddr::new(ip.parse().unwrap(), PORT);
    sim.listen_with(addr, options, |_: &Incoming| Some(Echo))
}

/// Whether a client that connects to `ip` is served.
fn served(sim: &mut Sim, ip: &str) -> bool {
    let client = sim.dial(SocketAddr::new(ip.parse().unwrap(), PORT));
    client.send(b"ping");
    sim.run_for(ms(10)).unwrap();
    client.take_received() == b"ping"
}

#[test]
fn a_listener_on_all_addresses_of_a_family_serves_each_of_them_and_no_other_family() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "0.0.0.0", true).unwrap();
    assert!(served(&mut sim, "127.0.0.1"));
    assert!(served(&mut sim, "10.1.2.3"));
    assert!(served(&mut sim, "0.0.0.0"));
    assert!(!served(&mut sim, "::1"));
    let mut sim = Sim::new(1);
    listen(&mut sim, "::", true).unwrap();
    assert!(served(&mut sim, "::1"));
    assert!(served(&mut sim, "::"));
    assert!(served(&mut sim, "fd00::9"));
    assert!(!served(&mut sim, "127.0.0.1"));
}

#[test]
fn a_listener_that_is_not_for_ipv6_only_serves_ipv4_as_well() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "::", false).unwrap();
    assert!(served(&mut sim, "::1"));
    assert!(served(&mut sim, "127.0.0.1"));
    // The option means something only where the address is the unspecified one.
    let mut sim = Sim::new(1);
    listen(&mut sim, "::1", false).unwrap();
    assert!(served(&mut sim, "::1"));
    assert!(!served(&mut sim, "127.0.0.1"));
}

#[test]
fn addresses_that_overlap_are_in_use() {
    for (first, first_only, second, second_only, free) in [
        ("127.0.0.1", true, "127.0.0.1", true, false),
        ("127.0.0.1", true, "127.0.0.2", true, true),
        ("0.0.0.0", true, "127.0.0.1", true, false),
        ("127.0.0.1", true, "0.0.0.0", true, false),
        ("0.0.0.0", true, "::", true, true),
        ("0.0.0.0", true, "::", false, false),
        ("::", false, "127.0.0.1", true, false),
        ("::", true, "127.0.0.1", true, true),
        ("::1", false, "127.0.0.1", true, true),
        ("::", true, "::1", true, false),
    ] {
        let mut sim = Sim::new(1);
        listen(&mut sim, first, first_only).unwrap();
        let result = listen(&mut sim, second, second_only);
        let found = result.as_ref().map(|_| ()).map_err(lariat::Error::kind);
        let expected = if free { Ok(()) } else { Err(ErrorKind::AddressInUse) };
        assert_eq!(found, expected, "{first} {first_only}, then {second} {second_only}");
    }
}

/// What each end of a Unix stream is told, for a client of another user.
#[test]
fn each_end_of_a_unix_stream_is_told_what_the_process_of_the_other_announces() {
    let (client, server) = (PeerCredentials::new(7, 1001, 1002), PeerCredentials::new(8, 0, 3));
    let mut sim = Sim::new(1);
    let told = Rc::new(Cell::new(None));
    let tells = Rc::clone(&told);
    let listen = move |incoming: &Incoming| {
        tells.set(incoming.peer_credentials());
        Some(Echo)
    };
    sim.listen("unix:@server", listen).unwrap();
    sim.set_credentials(client);
    let socket = sim.dial("unix:@server");
    // What is set while the handshake is on its way is for later streams.
    sim.set_credentials(server);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(told.get(), Some(client));
    socket.finish();
    sim.run_for(ms(10)).unwrap();
}

#[test]
fn both_ends_of_a_unix_stream_announce_the_process_of_the_time_when_it_was_dialled() {
    let (then, later) = (PeerCredentials::new(7, 1001, 1002), PeerCredentials::new(8, 0, 3));
    let mut sim = Sim::new(1);
    sim.listen("unix:@server", |_| Some(Echo)).unwrap();
    let told = Rc::new(Cell::new(None));
    sim.set_credentials(then);
    sim.control().connect_local("unix:@server", Asks(Rc::clone(&told)));
    sim.run_for(Duration::ZERO).unwrap();
    sim.set_credentials(later);
    sim.run_for(ms(10)).unwrap();
    assert_eq!(told.get(), Some(then));
}

/// Notes which process is at the other end.
struct Asks(Rc<Cell<Option<PeerCredentials>>>);

impl Protocol for Asks {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.set(cx.peer_credentials());
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}
