//! The open connections of each client, where their number is bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::endpoint::Endpoint;
use crate::episode::Episode;
use crate::id::ConnId;

/// The address by which a client is counted. A host with IPv6 usually has all addresses of a
/// network of 64 bits, so they are one client. Link-local addresses are of one network on every
/// link, so each of them is a client.
fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(addr) if !addr.is_unicast_link_local() => {
            Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64).into()
        }
        addr => addr,
    }
}

/// Nothing is counted where there is no bound.
#[derive(Debug)]
pub(super) struct Clients {
    most: Option<u64>,
    /// The client of each open connection: by the time it ends, its peer may have another address,
    /// which a balancer has announced.
    by_id: BTreeMap<ConnId, IpAddr>,
    open: BTreeMap<IpAddr, u64>,
    refused: Episode,
}

impl Clients {
    pub(super) fn new(most: Option<usize>) -> Clients {
        Clients {
            most: most.map(|most| most as u64),
            by_id: BTreeMap::new(),
            open: BTreeMap::new(),
            refused: Episode::new("clients with too many connections"),
        }
    }

    /// Whether one more connection of this peer may be open. The first refusal is logged.
    pub(super) fn admit(&mut self, peer: Endpoint, now: u64) -> bool {
        let Some((most, ip)) = self.most.zip(peer.ip()) else { return true };
        let open = self.open.get(&client(ip)).copied().unwrap_or_default();
        if open < most {
            return true;
        }
        if let Some(earlier) = self.refused.note(now) {
            log::warn!(
                target: "lariat::accept",
                "a connection of {ip} is refused: it has {open}, which is connections_per_address\
                 {earlier}",
            );
        }
        false
    }

    /// The connection `id` of this peer is open.
    pub(super) fn enter(&mut self, id: ConnId, peer: Endpoint) {
        let (Some(_), Some(ip)) = (self.most, peer.ip()) else { return };
        let client = client(ip);
        self.by_id.insert(id, client);
        *self.open.entry(client).or_default() += 1;
    }

    /// The connection `id` is no longer open; nothing happens if it has not been entered.
    pub(super) fn leave(&mut self, id: ConnId) {
        let Some(client) = self.by_id.remove(&id) else { return };
        if let Some(open) = self.open.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn peer(ip: &str) -> Endpoint {
        SocketAddr::new(ip.parse().unwrap(), 1).into()
    }

    fn ids(count: usize) -> Vec<ConnId> {
        let mut ids = crate::id::Ids::default();
        (0..count).map(|_| ids.reserve()).collect()
    }

    #[test]
    fn addresses_of_one_client_are_one_and_others_are_not() {
        let same = [
            ["192.0.2.1", "::ffff:192.0.2.1"],
            ["2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff"],
            ["fe80::1", "fe80::1"],
        ];
        let other = [
            ["192.0.2.1", "192.0.2.2"],
            ["2001:db8::1", "2001:db8:0:1::1"],
            ["fe80::1", "fe80::2"],
            ["127.0.0.1", "::1"],
        ];
        let client = |ip: &str| client(ip.parse().unwrap());
        assert!(same.iter().all(|[one, two]| client(one) == client(two)));
        assert!(other.iter().all(|[one, two]| client(one) != client(two)));
    }

    #[test]
    fn each_client_has_its_own_count_which_falls_once_for_each_connection_that_leaves() {
        let ids = ids(3);
        let mut clients = Clients::new(Some(2));
        for _round in 0..2 {
            assert!(clients.admit(peer("192.0.2.1"), 0));
            clients.enter(ids[0], peer("192.0.2.1"));
            assert!(clients.admit(peer("192.0.2.1"), 0));
            clients.enter(ids[1], peer("192.0.2.1"));
            assert!(!clients.admit(peer("192.0.2.1"), 0));
            assert!(clients.admit(peer("192.0.2.2"), 0), "another client");
            assert!(clients.admit(Endpoint::Other, 0), "it has no address");
            clients.leave(ids[2]);
            assert!(!clients.admit(peer("192.0.2.1"), 0), "that one was not counted");
            clients.leave(ids[0]);
            clients.leave(ids[0]);
            clients.enter(ids[2], peer("192.0.2.1"));
            assert!(!clients.admit(peer("192.0.2.1"), 0), "one left twice, and one came");
            clients.leave(ids[1]);
            clients.leave(ids[2]);
        }
        assert!(
            clients.by_id.is_empty() && clients.open.is_empty(),
            "nothing is kept: {clients:?}"
        );
    }

    #[test]
    fn without_a_bound_nothing_is_counted() {
        let mut clients = Clients::new(None);
        clients.enter(ids(1)[0], peer("192.0.2.1"));
        assert!(clients.admit(peer("192.0.2.1"), 0) && clients.by_id.is_empty());
    }
}
