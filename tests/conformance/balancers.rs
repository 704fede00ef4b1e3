//! Behind a balancer: the announced client, by a tunnel and by hand, and who may announce one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::proxy_protocol::{
    AcceptProxy, Header, HeaderError, Networks, Others, SendProxy, Version,
};
use lariat::tunnel::Tunnel;
use lariat::{Endpoint, Incoming, Protocol};

use crate::kit::{Last, Play, Stage, data, everywhere, says, says_all};

const VERSIONS: [Version; 3] = [Version::V1, Version::V2, Version::V2Checked];

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Incoming, Endpoint)>>>);

/// Stops the listener, whose one client is here.
fn last<P: Protocol>(protocol: P, incoming: &Incoming) -> Last<P> {
    Last::new(protocol, incoming)
}

/// Listens for one balancer. What is behind the header is under the name `target`, says what it
/// hears, and notes who its client is.
fn target(stage: &mut Stage<'_>, accept: AcceptProxy) -> (SocketAddr, Seen) {
    let (trace, seen) = (stage.trace.clone(), Seen::default());
    let sees = seen.clone();
    let inner = move |incoming: &Incoming| {
        let (incoming, sees) = (*incoming, sees.clone());
        let play = Play::new()
            .opened(move |cx| {
                sees.0.lock().unwrap().push((incoming, cx.peer_addr()));
                Ok(())
            })
            .data(|cx, input| {
                cx.write(input);
                input.consume_all();
                Ok(())
            });
        Some(last(trace.wrap("target", play), &incoming))
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = stage.driver.control().listen(addr, accept.factory(inner)).unwrap();
    (stage.driver.addresses(listener)[0].socket_addr().unwrap(), seen)
}

fn loopback() -> AcceptProxy {
    Networks::new(["127.0.0.0/8"]).unwrap().into()
}

#[test]
fn a_tunnel_announces_its_client_to_the_target() {
    for version in VERSIONS {
        everywhere(|stage| {
            let (target, seen) = target(stage, loopback());
            let trace = stage.trace.clone();
            let counted: Arc<Mutex<Option<(u64, u64)>>> = Arc::default();
            let counts = Arc::clone(&counted);
            let factory = move |incoming: &Incoming| {
                let counts = Arc::clone(&counts);
                let tunnel = Tunnel::to(target).announce(version).on_end(move |_, summary| {
                    let relayed = (summary.to_target(), summary.to_client());
                    *counts.lock().unwrap() = Some(relayed);
                });
                Some(last(trace.wrap("near", tunnel), incoming))
            };
            let addr = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = stage.driver.control().listen(addr, factory).unwrap();
            let proxy = stage.driver.addresses(listener)[0];
            let local: Arc<Mutex<Option<Endpoint>>> = Arc::default();
            let notes = Arc::clone(&local);
            let client = Play::new().opened(move |cx| {
                *notes.lock().unwrap() = cx.local_addr();
                cx.write(b"hello");
                cx.shutdown_write();
                Ok(())
            });
            stage.connect("client", proxy, client);
            stage.run();
            stage.expect(
                "client",
                &["opened", &data(b"hello"), "eof", "closed finished by the peer"],
            );
            let client = local.lock().unwrap().unwrap();
            let (incoming, peer) = seen.0.lock().unwrap()[0];
            assert_eq!((incoming.peer(), peer), (client, client));
            assert_eq!(incoming.local_addr(), Some(proxy));
            let via = incoming.via().unwrap();
            stage.check(via != client && via.ip() == client.ip(), "the tunnel is between");
            assert_eq!(*counted.lock().unwrap(), Some((5, 5)), "the header is not counted");
        });
    }
}

#[test]
fn a_client_sends_a_header_of_its_own() {
    let client: Endpoint = SocketAddr::from(([203, 0, 113, 9], 40_312)).into();
    let server: Endpoint = SocketAddr::from(([192, 0, 2, 1], 443)).into();
    for (header, announced) in [(Header::proxied(client, server), true), (Header::unknown(), false)]
    {
        everywhere(|stage| {
            let (target, seen) = target(stage, loopback());
            let play = stage.trace.wrap("client", says_all(b"hello"));
            stage.driver.control().connect(target, SendProxy::new(&header, Version::V2, play));
            stage.run();
            stage.expect(
                "client",
                &["opened", &data(b"hello"), "eof", "closed finished by the peer"],
            );
            let (incoming, peer) = seen.0.lock().unwrap()[0];
            assert_eq!(incoming.peer(), peer);
            assert_eq!(incoming.via().is_some(), announced);
            match announced {
                true => assert_eq!((peer, incoming.local_addr()), (client, Some(server))),
                false => assert_eq!(incoming.local_addr().unwrap(), target),
            }
        });
    }
}

#[test]
fn a_client_whose_connect_fails_hears_of_it_though_it_was_to_send_a_header() {
    everywhere(|stage| {
        let nowhere = stage.deserted();
        let play = stage.trace.wrap("client", says_all(b"hello"));
        let client = SendProxy::new(&Header::local(), Version::V2, play);
        stage.driver.control().connect(nowhere, client);
        stage.run();
        stage.expect("client", &["closed connect refused by the peer"]);
    });
}

#[test]
fn a_peer_that_is_not_trusted_is_turned_away_or_served_as_it_is() {
    everywhere(|stage| {
        let nobody = || Networks::new(["192.0.2.0/24"]).unwrap();
        let (strict, refused) = target(stage, nobody().into());
        let direct = AcceptProxy::from(nobody()).others(Others::Serve);
        let (open, seen) = target(stage, direct);
        let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n";
        // Nobody stops the strict listener, which refuses its client before a protocol is made.
        let left = Arc::new(AtomicUsize::new(2));
        for (who, addr) in [("refused", strict), ("served", open)] {
            let left = Arc::clone(&left);
            let client = says_all(header).closed(move |cx, _| {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    cx.driver().shutdown();
                }
            });
            stage.connect(who, addr, client);
        }
        stage.run();
        stage.expect("served", &["opened", &data(header), "eof", "closed finished by the peer"]);
        assert!(refused.0.lock().unwrap().is_empty());
        let ended = stage.trace.of("refused");
        let quiet = !ended.iter().any(|line| line.starts_with("data"));
        stage.check(quiet && ended.len() >= 2, "nothing was said to the one that is refused");
        assert_eq!(stage.driver.metrics().refused, 1);
        let (incoming, peer) = seen.0.lock().unwrap()[0];
        assert_eq!((incoming.via(), incoming.peer()), (None, peer));
    });
}

#[test]
fn a_wrong_header_is_the_reason_of_the_end() {
    everywhere(|stage| {
        let found: Arc<Mutex<Option<HeaderError>>> = Arc::default();
        let finds = Arc::clone(&found);
        let accept = loopback().factory(|_: &Incoming| Some(Play::new()));
        let trace = stage.trace.clone();
        let factory = move |incoming: &Incoming| {
            let receiving = Noting(accept(incoming)?, Arc::clone(&finds));
            Some(last(trace.wrap("target", receiving), incoming))
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = stage.driver.control().listen(addr, factory).unwrap();
        let addr = stage.driver.addresses(listener)[0];
        stage.connect("client", addr, says_all(b"PROXY TCP4 nonsense\r\n"));
        stage.run();
        stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
        assert_eq!(*found.lock().unwrap(), Some(HeaderError::InvalidLine));
    });
}

/// Notes with which error the receiver of a header ends.
struct Noting<P>(P, Arc<Mutex<Option<HeaderError>>>);

impl<P: Protocol> Protocol for Noting<P> {
    lariat::forward_protocol! {
        self => self.0;
        pass: opened data eof drained timeout notified stopping name filter;
        own: closed;
    }

    fn closed(&mut self, cx: &mut lariat::Context<'_>, reason: &lariat::CloseReason) {
        let error = reason.error().and_then(|error| error.downcast_ref());
        *self.1.lock().unwrap() = error.copied();
        self.0.closed(cx, reason);
    }
}

#[test]
fn a_local_protocol_may_be_behind_a_header() {
    // Where one thread is the whole driver.
    let factory = || {
        let shared = std::rc::Rc::new(std::cell::Cell::new(0));
        loopback().factory_local(move |_: &Incoming| Some(Local(std::rc::Rc::clone(&shared))))
    };
    let header = b"PROXY UNKNOWN\r\nhello";
    let mut sim = lariat::sim::Sim::new(1);
    let listener = sim.listen("127.0.0.1:0", factory()).unwrap();
    let client = sim.dial(sim.addresses(listener)[0]);
    client.send(header);
    client.finish();
    sim.run().unwrap();
    assert_eq!(client.take_received(), b"1");
    let mut reactor = lariat::reactor::Reactor::new().unwrap();
    let listener = reactor.listen("127.0.0.1:0", factory()).unwrap();
    let addr = reactor.addresses(listener)[0];
    let trace = lariat::sim::Trace::new();
    let stop = Play::new()
        .opened(|cx| {
            cx.write(b"PROXY UNKNOWN\r\nhello");
            cx.shutdown_write();
            Ok(())
        })
        .closed(|cx, _| cx.driver().shutdown());
    reactor.control().connect(addr, trace.wrap("client", stop));
    reactor.run().unwrap();
    assert!(trace.of("client").contains(&data(b"1")), "{trace:?}");
}

/// Says how many of its kind have been served.
struct Local(std::rc::Rc<std::cell::Cell<u32>>);

impl Protocol for Local {
    fn opened(&mut self, cx: &mut lariat::Context<'_>) -> lariat::Outcome {
        self.0.set(self.0.get() + 1);
        write!(cx, "{}", self.0.get())?;
        Ok(())
    }

    fn data(
        &mut self,
        _: &mut lariat::Context<'_>,
        input: &mut lariat::Input<'_>,
    ) -> lariat::Outcome {
        input.consume_all();
        Ok(())
    }
}

#[test]
fn a_tunnel_writes_its_header_in_the_version_that_was_asked_for() {
    let [client, server] = ["203.0.113.9:40312", "192.0.2.1:443"].map(|text| {
        let addr: SocketAddr = text.parse().unwrap();
        Endpoint::from(addr)
    });
    let header = Header::proxied(client, server);
    for version in VERSIONS {
        let expected = header.encode(version);
        everywhere(|stage| {
            let received: Arc<Mutex<Vec<u8>>> = Arc::default();
            let keeps = Arc::clone(&received);
            let target = stage.serve("target", move || {
                let keeps = Arc::clone(&keeps);
                Play::new().data(move |_, input| {
                    keeps.lock().unwrap().extend(&**input);
                    input.consume_all();
                    Ok(())
                })
            });
            let factory = move |incoming: &Incoming| {
                Some(last(Tunnel::to(target).announce_as(header, version), incoming))
            };
            let addr = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = stage.driver.control().listen(addr, factory).unwrap();
            let proxy = stage.driver.addresses(listener)[0];
            stage.connect("client", proxy, says_all(b""));
            stage.run();
            assert_eq!(*received.lock().unwrap(), expected, "{version:?}");
        });
    }
}

/// Three hops: the balancer in front announces a client, and the tunnel between passes that on, to
/// a target that sees the tunnel's own host nowhere in it.
#[test]
fn what_a_balancer_has_announced_is_passed_on_with_both_addresses() {
    let client: Endpoint = SocketAddr::from(([203, 0, 113, 9], 40_312)).into();
    let server: Endpoint = "[2001:db8::1]:443".parse::<SocketAddr>().unwrap().into();
    for version in VERSIONS {
        everywhere(|stage| {
            let (target, seen) = target(stage, loopback());
            let trace = stage.trace.clone();
            let factory = loopback().factory(move |incoming: &Incoming| {
                let header = Header::of(incoming);
                let tunnel = Tunnel::to(target).announce_as(header, version);
                Some(last(trace.wrap("near", tunnel), incoming))
            });
            let addr = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = stage.driver.control().listen(addr, factory).unwrap();
            let proxy = stage.driver.addresses(listener)[0];
            let play = stage.trace.wrap("client", says_all(b"hello"));
            let header = Header::proxied(client, server);
            stage.driver.control().connect(proxy, SendProxy::new(&header, Version::V2, play));
            stage.run();
            let echoed = data(b"hello");
            stage.expect("client", &["opened", &echoed, "eof", "closed finished by the peer"]);
            let (incoming, peer) = seen.0.lock().unwrap()[0];
            assert_eq!((incoming.peer(), peer), (client, client));
            assert_eq!(incoming.local_addr(), Some(server));
            assert!(incoming.via().unwrap().ip().unwrap().is_loopback());
        });
    }
}

#[test]
fn a_balancer_whose_header_is_never_whole_is_closed_at_the_deadline() {
    for words in [&b""[..], b"PROXY TCP4 1", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C"] {
        everywhere(|stage| {
            let accept = loopback().deadline(Duration::from_millis(50));
            let factory = accept.factory(|_: &Incoming| Some(Play::new()));
            let trace = stage.trace.clone();
            let factory = move |incoming: &Incoming| {
                Some(last(trace.wrap("target", factory(incoming)?), incoming))
            };
            let addr = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = stage.driver.control().listen(addr, factory).unwrap();
            let addr = stage.driver.addresses(listener)[0];
            stage.connect("client", addr, says(words));
            stage.run();
            stage.expect("client", &["opened", "eof", "closed finished by the peer"]);
            let ended = stage.trace.of("target");
            let late = Some("closed timed out (handshake) by the runtime");
            stage.check(ended.last().map(String::as_str) == late, "why it ended");
        });
    }
}
