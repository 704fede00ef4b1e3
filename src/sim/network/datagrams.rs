//! Sockets of datagrams, and what becomes of a datagram on its way: it may be lost, come twice or
//! late, or find no socket.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use slab::Slab;

use super::listening::{destination, nobody};
use super::{Edge, Event, Network};
use crate::clock::nanos;
use crate::connection::Flags;
use crate::datagram::{DatagramOptions, Received, check_family};
use crate::endpoint::Endpoint;
use crate::id::ConnId;
use crate::sim::choices::{Kind, Owner, Source};
use crate::sim::faults::Call;
use crate::sim::log::What;

/// How much later a datagram comes that is overtaken: less than this.
const DETOUR: u64 = 5 * super::MILLISECOND;

/// The longest datagram of a Unix socket, and how many wait for one that does not read: as Linux
/// has it by default.
const UNIX_BYTES_MAX: usize = 212_960;
const UNIX_WAITING_MAX: usize = 10;

/// A bound socket.
pub(in crate::sim) struct Post {
    pub(in crate::sim) local: Endpoint,
    peer: Option<Endpoint>,
    broadcast: bool,
    /// Whether another socket that says so as well may have its address.
    shares: bool,
    groups: BTreeSet<IpAddr>,
    token: Option<ConnId>,
    arrived: VecDeque<Arrived>,
    arrived_bytes: usize,
    /// What it has sent that is still on its way: the system's room for output is the window.
    under_way: usize,
    last_arrival: u64,
    write_blocked: bool,
    error: Option<i32>,
    closed: bool,
    source: Source,
    /// Held by the test: it receives at once.
    raw: bool,
    pub(in crate::sim) received: Vec<(Endpoint, Vec<u8>)>,
}

/// A datagram that waits to be read.
struct Arrived {
    from: Endpoint,
    to: Endpoint,
    bytes: Vec<u8>,
}

/// A datagram on its way, or the word that it did not arrive.
struct Flight {
    from: usize,
    to: Endpoint,
    bytes: Vec<u8>,
    refused: bool,
}

/// All sockets of datagrams, and all datagrams on their way.
#[derive(Default)]
pub(in crate::sim) struct Posts {
    pub(in crate::sim) all: Vec<Post>,
    flights: Slab<Flight>,
}

impl Network {
    // ---- what sockets can do -----------------------------------------------------------------

    /// Binds a socket of the driver's, or of the test's.
    pub(in crate::sim) fn bind(
        &mut self,
        mut local: Endpoint,
        options: &DatagramOptions,
        raw: bool,
    ) -> io::Result<usize> {
        let errno = |errno| Err(io::Error::from_raw_os_error(errno));
        if !raw && self.descriptors >= self.descriptors_max {
            return errno(libc::EMFILE);
        }
        if local.port() == Some(0) {
            local = self.with_port(local);
        }
        let unnamed = local.unix().is_some_and(|name| name.is_unnamed());
        let shares = options.reuse_port || options.reuse_address;
        let shared = |post: &Post| shares && post.shares;
        let taken = |post: &Post| !post.closed && post.local == local && !shared(post);
        if !unnamed && self.posts.all.iter().any(taken) {
            return errno(libc::EADDRINUSE);
        }
        if let (Some(_), Some(peer)) = (local.unix(), &options.connect) {
            check_family(true, peer)?;
            if self.posts_at(peer, &local).is_empty() {
                return errno(nobody(*peer));
            }
        }
        let key = if raw {
            self.choices.new_key()
        } else {
            self.descriptors += 1;
            self.tape.borrow_mut().connect_key(&mut self.source)
        };
        self.posts.all.push(Post {
            local,
            peer: options.connect,
            broadcast: options.broadcast,
            shares,
            groups: BTreeSet::new(),
            token: None,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            under_way: 0,
            last_arrival: 0,
            write_blocked: false,
            error: None,
            closed: false,
            source: Source::new(Owner::Bound(key)),
            raw,
            received: Vec::new(),
        });
        Ok(self.posts.all.len() - 1)
    }

    pub(in crate::sim) fn register_post(&mut self, post: usize, token: ConnId) -> io::Result<()> {
        self.fault(Call::Register, None)?;
        self.posts.all[post].token = Some(token);
        Ok(())
    }

    pub(in crate::sim) fn close_post(&mut self, post: usize) {
        let (raw, closed) = (self.posts.all[post].raw, self.posts.all[post].closed);
        if !closed && !raw {
            self.descriptors -= 1;
        }
        let post = &mut self.posts.all[post];
        post.closed = true;
        post.token = None;
        post.arrived.clear();
    }

    pub(in crate::sim) fn receive_from(
        &mut self,
        post: usize,
        buffer: &mut [u8],
    ) -> io::Result<Received> {
        self.datagram_fault(Call::Read, post)?;
        let reader = &mut self.posts.all[post];
        if let Some(errno) = reader.error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let Some(Arrived { from, to, bytes }) = reader.arrived.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        reader.arrived_bytes -= bytes.len();
        let local = reader.local;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        if local.unix().is_some() {
            self.tell_of_room(local);
        }
        let named = to.unix().is_none_or(|name| !name.is_unnamed());
        Ok(Received { len, from, to: named.then_some(to), ecn: None, calls: 1 })
    }

    /// A Unix socket has read: of those that wait for room, the connected ones hear of it.
    fn tell_of_room(&mut self, reader: Endpoint) {
        for post in 0..self.posts.all.len() {
            let sender = &self.posts.all[post];
            if sender.write_blocked && sender.peer == Some(reader) {
                self.tell_post(post, Flags::WRITABLE);
            }
        }
    }

    pub(in crate::sim) fn send_from(
        &mut self,
        post: usize,
        bytes: &[u8],
        to: Option<&Endpoint>,
    ) -> io::Result<()> {
        if let Err(error) = self.datagram_fault(Call::Write, post) {
            if error.kind() == io::ErrorKind::WouldBlock {
                // The network has room by itself, a little later.
                self.posts.all[post].write_blocked = true;
                let at = self.now + 1 + self.delay_of_post(post);
                self.events.arm(at, Event::PostReady(post, Flags::WRITABLE));
            }
            return Err(error);
        }
        let sender = &mut self.posts.all[post];
        if let Some(errno) = sender.error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let errno = |errno| Err(io::Error::from_raw_os_error(errno));
        let is_unix = sender.local.unix().is_some();
        let Some(to) = to.copied().or(sender.peer) else {
            return errno(if is_unix { libc::ENOTCONN } else { libc::EDESTADDRREQ });
        };
        check_family(is_unix, &to)?;
        if is_unix {
            return self.hand_over(post, bytes, to);
        }
        if to.port() == Some(0) {
            return errno(libc::EINVAL);
        }
        if is_v4(&to) != is_v4(&sender.local) {
            return errno(libc::EAFNOSUPPORT);
        }
        if bytes.len() > if is_v4(&to) { 65_507 } else { 65_527 } {
            return errno(libc::EMSGSIZE);
        }
        if is_broadcast(&to) && !sender.broadcast {
            return errno(libc::EACCES);
        }
        if sender.under_way > 0 && sender.under_way + bytes.len() > self.link.window {
            sender.write_blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.dispatch(post, bytes, to);
        Ok(())
    }

    /// Between Unix sockets nothing is on its way: the receiver has it, or the call fails.
    fn hand_over(&mut self, from: usize, bytes: &[u8], to: Endpoint) -> io::Result<()> {
        let errno = |errno| Err(io::Error::from_raw_os_error(errno));
        let local = self.posts.all[from].local;
        if bytes.len() > UNIX_BYTES_MAX {
            return errno(libc::EMSGSIZE);
        }
        let bound = |post: &Post| !post.closed && post.local == to;
        let Some(at) = self.posts.all.iter().position(bound) else {
            return errno(libc::ECONNREFUSED);
        };
        let receiver = &self.posts.all[at];
        if receiver.peer.is_some_and(|peer| peer != local) {
            return errno(libc::EPERM);
        }
        if !receiver.raw && receiver.arrived.len() >= UNIX_WAITING_MAX {
            self.posts.all[from].write_blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.arrive_at_post(at, (local, to), bytes);
        Ok(())
    }

    pub(in crate::sim) fn set_member(
        &mut self,
        post: usize,
        group: IpAddr,
        member: bool,
    ) -> io::Result<()> {
        let post = &mut self.posts.all[post];
        if post.local.unix().is_some() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        if !group.is_multicast() || group.is_ipv4() != is_v4(&post.local) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let changed = if member { post.groups.insert(group) } else { post.groups.remove(&group) };
        let errno = if member { libc::EADDRINUSE } else { libc::EADDRNOTAVAIL };
        if changed { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
    }

    // ---- on the way --------------------------------------------------------------------------

    /// Sends a datagram on its way, unless it is lost at once.
    fn dispatch(&mut self, from: usize, bytes: &[u8], to: Endpoint) {
        if self.datagram_roll(from, Kind::Losses, 1).is_some() {
            return;
        }
        self.fly(from, bytes, to);
        if self.datagram_roll(from, Kind::Duplicates, 1).is_some() {
            self.fly(from, bytes, to);
        }
    }

    fn fly(&mut self, from: usize, bytes: &[u8], to: Endpoint) {
        let delay = self.delay_of_post(from);
        let detour = self.datagram_roll(from, Kind::Reorders, DETOUR);
        let refused = self.datagram_roll(from, Kind::Refusals, 1).is_some();
        let sending =
            self.link.bandwidth.map_or(0, |rate| bytes.len() as u64 * 1_000_000_000 / rate.max(1));
        let sender = &mut self.posts.all[from];
        sender.under_way += bytes.len();
        let earliest = self.now + nanos(self.link.latency) + delay;
        let arrival = match detour {
            // Those behind it do not wait for it.
            Some(detour) => earliest.max(sender.last_arrival) + sending + 1 + detour,
            None => {
                sender.last_arrival = earliest.max(sender.last_arrival) + sending;
                sender.last_arrival
            }
        };
        let flight = Flight { from, to, bytes: bytes.to_vec(), refused };
        let number = self.posts.flights.insert(flight);
        self.events.arm(arrival, Event::Land(number));
    }

    /// A datagram arrives, or the word that it was refused.
    pub(super) fn land(&mut self, number: usize) {
        let flight = self.posts.flights.remove(number);
        let Flight { from, to, bytes, refused } = flight;
        let sender = &mut self.posts.all[from];
        sender.under_way -= bytes.len();
        if sender.write_blocked {
            let at = self.now + self.delay_of_post(from);
            self.events.arm(at, Event::PostReady(from, Flags::WRITABLE));
        }
        let source = self.source_addr(from);
        let found = if refused { Vec::new() } else { self.posts_at(&to, &source) };
        if found.is_empty() {
            return self.refuse(from, to);
        }
        for post in found {
            self.arrive_at_post(post, (source, destination(to)), &bytes);
        }
    }

    fn arrive_at_post(&mut self, at: usize, (from, to): (Endpoint, Endpoint), bytes: &[u8]) {
        let window = self.link.window;
        let post = &mut self.posts.all[at];
        let local = post.local;
        if post.raw {
            post.received.push((from, bytes.to_vec()));
        } else if local.unix().is_none()
            && post.arrived_bytes + bytes.len() > window
            && !post.arrived.is_empty()
        {
            // It is lost without a report.
            return self.note(What::Fault(format!("{local} has no room for a datagram")));
        } else {
            post.arrived_bytes += bytes.len();
            post.arrived.push_back(Arrived { from, to, bytes: bytes.to_vec() });
        }
        self.note(What::Datagram(from, local, bytes.len()));
        self.tell_post(at, Flags::READABLE);
    }

    /// No socket has the port. Only a connected socket hears of it, and only of its peer.
    fn refuse(&mut self, from: usize, to: Endpoint) {
        let sender = &self.posts.all[from];
        let unicast = !is_broadcast(&to) && !is_group(&to);
        if unicast && sender.peer == Some(to) && !sender.closed {
            let at = self.now + nanos(self.link.latency);
            self.events.arm(at, Event::Refused(from));
        }
    }

    pub(super) fn hear_refusal(&mut self, post: usize) {
        let (local, peer) = (self.posts.all[post].local, self.posts.all[post].peer);
        if let Some(peer) = peer {
            self.note(What::Refused(peer, local));
        }
        self.posts.all[post].error = Some(libc::ECONNREFUSED);
        self.tell_post(post, Flags::FAULTY | Flags::WRITABLE);
    }

    /// Where a datagram of this socket seems to come from.
    pub(in crate::sim) fn source_addr(&self, post: usize) -> Endpoint {
        destination(self.posts.all[post].local)
    }

    /// The sockets that a datagram to `to` reaches.
    fn posts_at(&self, to: &Endpoint, from: &Endpoint) -> Vec<usize> {
        let to = destination(*to);
        let many = is_broadcast(&to) || is_group(&to);
        let hears = |post: &Post| {
            let place = match to.ip() {
                Some(ip) if ip.is_multicast() => post.groups.contains(&ip),
                _ => true,
            };
            let any = post.local.ip().is_some_and(|ip| ip.is_unspecified());
            let bound = any && is_v4(&post.local) == is_v4(&to) && post.local.port() == to.port();
            !post.closed
                && (post.local == to || bound)
                && place
                && post.peer.is_none_or(|peer| peer == *from)
        };
        let all = self.posts.all.iter().enumerate();
        let mut found: Vec<usize> = all.filter(|(_, post)| hears(post)).map(|(at, _)| at).collect();
        if !many && found.len() > 1 {
            // The closest match has it, alone: connected, then bound to the very address.
            let posts = &self.posts.all;
            found.sort_by_key(|at| (posts[*at].peer.is_none(), posts[*at].local != to));
            found.truncate(1);
        }
        found
    }

    // ---- events and faults -------------------------------------------------------------------

    fn tell_post(&mut self, post: usize, flags: Flags) {
        if self.posts.all[post].token.is_some() {
            let delay = self.delay_of_post(post);
            self.events.arm(self.now + delay, Event::PostReady(post, flags));
        }
    }

    pub(super) fn post_edge(&mut self, post: usize, flags: Flags) {
        let post = &mut self.posts.all[post];
        if flags.any(Flags::WRITABLE) {
            post.write_blocked = false;
        }
        if let (Some(id), false) = (post.token, post.closed) {
            self.edges.push_back(Edge::Connection(id, flags));
        }
    }

    /// The tokens of all sockets that the driver has.
    pub(super) fn post_tokens(&self) -> impl Iterator<Item = ConnId> {
        self.posts.all.iter().filter_map(|post| post.token)
    }

    fn datagram_fault(&mut self, call: Call, post: usize) -> io::Result<()> {
        let number = self.enter_call(call);
        if let Some(result) = self.scripted(call, number) {
            return result.map(|_| ());
        }
        if self.datagram_roll(post, Kind::Interrupts, 1).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        Ok(())
    }

    fn delay_of_post(&mut self, post: usize) -> u64 {
        self.datagram_roll(post, Kind::Delays, super::chance::DELAY).unwrap_or(0)
    }

    fn datagram_roll(&mut self, post: usize, kind: Kind, ways: u64) -> Option<u64> {
        let of_thousand = self.faults.of(kind);
        let source = &mut self.posts.all[post].source;
        let way = self.tape.borrow_mut().fault(source, kind, of_thousand, ways)?;
        if self.log.is_some() {
            let place = format!(" at {}", self.posts.all[post].local);
            self.note_fault(kind, way, &place);
        }
        Some(way)
    }
}

fn is_v4(addr: &Endpoint) -> bool {
    addr.ip().is_some_and(|ip| ip.is_ipv4())
}

/// Everybody's, or everybody's on the loopback interface.
fn is_broadcast(addr: &Endpoint) -> bool {
    let loopback = Ipv4Addr::new(127, 255, 255, 255);
    let all = [Ipv4Addr::BROADCAST, loopback].map(IpAddr::V4);
    addr.ip().is_some_and(|ip| all.contains(&ip))
}

fn is_group(addr: &Endpoint) -> bool {
    addr.ip().is_some_and(|ip| ip.is_multicast())
}
