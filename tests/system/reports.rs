//! What routers report of datagrams that they do not pass on (ICMP), to a connected socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lariat::{
    CloseKind, CloseReason, Datagram, DatagramContext, DatagramOptions, DatagramProtocol,
    DriverLimits, Endpoint, Outcome, Timer,
};

use crate::kit::*;

/// A router of its own, in a network of its own, between this one and networks where nobody is: to
/// two of them it lets nothing pass, and the way to the third is narrow. It ends with the process
/// that this shell becomes.
const ROUTER: &str = "ip link add v0 type veth peer name v1 \
     && { setpriv --pdeathsig KILL unshare -n sleep 600 >/dev/null 2>&1 & } && P=$! \
     && while [ \"$(readlink /proc/$P/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; \
     do sleep 0.01; done \
     && ip link set v1 netns $P && nsenter -t $P -n sh -ec ' \
     ip link set lo up; ip link set v1 up; \
     sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.icmp.ratelimit=0; \
     sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0; \
     ip address add fd00:1::1/64 dev v1 nodad; ip address add 10.1.0.1/24 dev v1; \
     ip route add prohibit fd00:2::/64; ip route add prohibit 10.2.0.0/24; \
     ip link add narrow mtu 1280 type veth peer name far; \
     ip link set far up; ip link set narrow up; \
     ip address add fd00:3::1/64 dev narrow nodad' \
     && ip link set v0 up \
     && ip address add fd00:1::2/64 dev v0 nodad && ip address add 10.1.0.2/24 dev v0 \
     && ip route add default via fd00:1::1 && ip route add default via 10.1.0.1";

/// The time after which it is asked again: a router may lose a report.
const AGAIN: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Facts {
    refused: u64,
    /// What sends have returned once a report has come: the way is known by then.
    errors: Vec<String>,
    end: Option<CloseReason>,
}

/// Sends `first` and then, at each report, one byte, until as many have come as it waits for.
struct Asks {
    first: usize,
    reports: u64,
    facts: Arc<Mutex<Facts>>,
}

impl Asks {
    fn ask(&mut self, cx: &mut DatagramContext<'_>, len: usize) {
        let mut facts = self.facts.lock().unwrap();
        if let Err(error) = cx.send(&vec![0; len]) {
            if facts.refused > 0 {
                facts.errors.push(error.to_string());
            }
        }
        cx.set_timer(Timer::new(1), AGAIN);
    }
}

impl DatagramProtocol for Asks {
    fn opened(&mut self, cx: &mut DatagramContext<'_>) -> Outcome {
        self.ask(cx, self.first);
        Ok(())
    }

    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        unreachable!("nobody answers")
    }

    fn refused(&mut self, cx: &mut DatagramContext<'_>, to: Option<Endpoint>) -> Outcome {
        assert_eq!(to, cx.peer_addr());
        let count = {
            let mut facts = self.facts.lock().unwrap();
            facts.refused += 1;
            facts.refused
        };
        // Behind the last report it can still send.
        self.ask(cx, 1);
        if count == self.reports {
            cx.close();
        }
        Ok(())
    }

    fn timeout(&mut self, cx: &mut DatagramContext<'_>, _: Timer) -> Outcome {
        self.ask(cx, self.first);
        Ok(())
    }

    fn closed(&mut self, _: &mut DatagramContext<'_>, reason: &CloseReason) {
        self.facts.lock().unwrap().end = Some(reason.clone());
    }
}

/// A socket that is connected to `peer` hears of so many reports, of which the first is about a
/// datagram of `first` bytes.
#[track_caller]
fn hears(name: &str, peer: &str, first: usize, reports: u64) {
    let facts = Arc::<Mutex<Facts>>::default();
    let mut driver = driver(name, DriverLimits::default());
    let mut options = DatagramOptions::default();
    let peer: std::net::SocketAddr = peer.parse().unwrap();
    options.connect = Some(peer.into());
    let from = if peer.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let asks = Asks { first, reports, facts: Arc::clone(&facts) };
    driver.control().bind_with(from, options, asks).unwrap();
    driver.run().unwrap();
    let facts = facts.lock().unwrap();
    let end = facts.end.as_ref().unwrap();
    assert_eq!(end.kind(), CloseKind::Finished, "{peer}: {end}");
    assert_eq!((facts.refused, facts.errors.as_slice()), (reports, &[][..]), "{peer}");
    assert!(driver.metrics().datagrams_refused >= reports, "{peer}");
}

#[test]
fn d5_what_routers_report_is_told_as_refused_however_often_and_the_socket_goes_on() {
    const NAME: &str = "reports::d5_what_routers_report_is_told_as_refused_however_often_and_the_\
                        socket_goes_on";
    let Some(name) = part() else {
        return DRIVERS.iter().for_each(|name| in_a_network(ROUTER, NAME, name));
    };
    // Administratively prohibited: EACCES, more of them than reads may fail in a row.
    hears(&name, "[fd00:2::9]:7", 1, 150);
    // Over IPv4 that is EHOSTUNREACH. A router says it one time per second, and five at first.
    hears(&name, "10.2.0.9:7", 1, 3);
    // Too long for the path: EMSGSIZE, once, and the next ones leave in pieces.
    hears(&name, "[fd00:3::9]:7", 1400, 1);
}
