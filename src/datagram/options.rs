//! How to bind a socket of datagrams: its bounds, and its options.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};

/// How to bind a socket of datagrams.
///
/// ```
/// use lariat::DatagramOptions;
///
/// let mut options = DatagramOptions::default();
/// options.datagram_max = 1_500;
/// options.broadcast = true;
/// assert!(options.validate().is_ok());
/// ```
///
/// The simulator looks at the bounds, at `connect` and at `broadcast` alone: the others have no
/// meaning there. `mode` is for a Unix socket at a path; `broadcast`, `reuse_port`, `ttl`, `tos`,
/// `offload` and those of multicast are for UDP. Where one is asked for that the kind of socket
/// does not have, binding is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramOptions {
    /// Bytes of a datagram that are kept \[65,535, which is more than any of UDP can have\], at
    /// most 1 MiB. A longer one is shown cut short, with
    /// [`Datagram::is_truncated`](crate::Datagram::is_truncated).
    pub datagram_max: usize,
    /// Bytes of datagrams that wait because the system has no room for them \[256 KiB\]; each
    /// counts 64 bytes more than it has, one to the name of a Unix socket 256. What does not fit is
    /// dropped, and counted in [`Metrics::datagrams_dropped`](crate::Metrics::datagrams_dropped).
    /// No meaning for UDP on blocking threads, where sending waits.
    ///
    /// A Unix socket has no room for a datagram whose receiver does not read. Those to other
    /// receivers pass it. The system does not say when there is room, so it is tried again: after
    /// 1 ms, doubling to 100 ms.
    pub output_max: usize,
    /// What is dropped when `output_max` is reached \[[`DropPolicy::Newest`]\].
    pub drop_policy: DropPolicy,
    /// Datagrams read from the socket, and sent from its queue, in one turn before others have
    /// theirs \[64\]; fewer once 256 KiB have been read. No meaning on blocking threads.
    pub datagrams_max: usize,
    /// Notes that may wait for the socket \[64\]; one more is refused.
    pub notes_max: usize,
    /// Time without a datagram in either direction after which the socket ends \[off\]. It counts
    /// from the end of a callback that took long.
    pub idle: Option<Duration>,
    /// Time for waiting datagrams to leave once the socket is being closed \[1 s\].
    pub close_deadline: Duration,
    /// The peer: datagrams of others are not delivered, [`send`](crate::DatagramContext::send)
    /// sends to it, and its refusals are reported \[none\]. A Unix socket whose peer has gone is
    /// connected again by the next `send`, if another socket has the name by then.
    pub connect: Option<Endpoint>,
    /// Permissions of the file of a Unix socket, as for `chmod` \[what the umask leaves\]. On
    /// Linux the file never has more; elsewhere it has more for a moment.
    pub mode: Option<u32>,
    /// Many UDP datagrams a call, and several that the system takes apart and joins (GSO and GRO);
    /// also [`Datagram::ecn`](crate::Datagram::ecn), and [`Datagram::to`](crate::Datagram::to) on
    /// all addresses. Needs the feature `udp-offload`, by quinn-udp \[off\].
    ///
    /// The callbacks are the same. Datagrams that are equally long and go to one receiver leave
    /// together: the first at once, those behind it when the socket's turn is over or something
    /// else is sent. What the system then does not take is dropped and counted. No datagram is
    /// split up on its way: one that is too long for a network is
    /// [`TooLarge`](crate::ErrorKind::TooLarge), where it otherwise leaves in fragments.
    ///
    /// A socket of the reactor has 2 MiB of address space for it; as much of that is resident as
    /// has been used. On blocking threads it is 64 KiB: there a call receives one datagram, or
    /// those that the system has joined.
    pub offload: bool,
    /// SO_BROADCAST: datagrams may be sent to a broadcast address \[off\].
    pub broadcast: bool,
    /// SO_REUSEADDR: on Linux, several sockets that all set it share one port, as receivers of the
    /// same multicast group do \[off\].
    pub reuse_address: bool,
    /// SO_REUSEPORT: several sockets share one port, and the system spreads senders over them
    /// \[off\].
    pub reuse_port: bool,
    /// For IPv6 addresses, whether IPv4 is left to another socket \[on\]. Off, a socket on `[::]`
    /// serves both, and an IPv4 peer has its IPv4 address.
    pub v6_only: bool,
    /// SO_SNDBUF, in bytes: what the kernel keeps of the output \[the system's choice\]. The system
    /// changes it within bounds of its own: Linux doubles it, and silently caps it
    /// (`net.core.wmem_max`).
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF, in bytes: what the kernel keeps of the input; what does not fit is lost \[the
    /// system's choice\]. The system changes it as it does the other.
    pub receive_buffer: Option<usize>,
    /// IP_TTL or IPV6_UNICAST_HOPS: routers that a datagram may pass \[the system's choice\].
    pub ttl: Option<u8>,
    /// IP_TOS or IPV6_TCLASS: what routers see of the datagrams' importance, and in the lower two
    /// bits [`Ecn`](crate::Ecn) \[0\].
    pub tos: Option<u8>,
    /// IP_MULTICAST_TTL or IPV6_MULTICAST_HOPS: the same for datagrams to a group \[the system's
    /// choice: 1\].
    pub multicast_ttl: Option<u8>,
    /// IP_MULTICAST_LOOP or IPV6_MULTICAST_LOOP: whether members on this machine hear what is sent
    /// to a group from here \[on\].
    pub multicast_loop: bool,
    /// IP_MULTICAST_IF or IPV6_MULTICAST_IF: the interface from which datagrams to a group leave
    /// \[the system's choice\].
    pub multicast_interface: Interface,
}

/// What a socket drops when no more datagrams may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropPolicy {
    /// The one that is sent last (the default).
    Newest,
    /// Those that have waited longest, until it fits: for what is worth nothing when it is old.
    Oldest,
}

/// A network interface, for multicast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interface {
    /// The system's choice.
    #[default]
    Any,
    /// The interface that has this address. For IPv4 groups.
    Addr(Ipv4Addr),
    /// The interface with this index, which `ip link` shows. For IPv6 groups, and where the system
    /// can do it, to join and leave IPv4 groups.
    Index(u32),
}

impl From<Ipv4Addr> for Interface {
    fn from(addr: Ipv4Addr) -> Interface {
        Interface::Addr(addr)
    }
}

impl From<u32> for Interface {
    fn from(index: u32) -> Interface {
        Interface::Index(index)
    }
}

impl Default for DatagramOptions {
    fn default() -> DatagramOptions {
        DatagramOptions {
            datagram_max: 65_535,
            output_max: 256 * 1024,
            drop_policy: DropPolicy::Newest,
            datagrams_max: 64,
            notes_max: 64,
            idle: None,
            close_deadline: Duration::from_secs(1),
            connect: None,
            mode: None,
            offload: false,
            broadcast: false,
            reuse_address: false,
            reuse_port: false,
            v6_only: true,
            send_buffer: None,
            receive_buffer: None,
            ttl: None,
            tos: None,
            multicast_ttl: None,
            multicast_loop: true,
            multicast_interface: Interface::Any,
        }
    }
}

impl DatagramOptions {
    /// Tells whether these bounds can work, and whether there may be a system that takes the
    /// options.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidLimits`] names the field when `datagram_max`, `output_max` or
    /// `datagrams_max` is 0, `datagram_max` is above 1 MiB, `idle` or `ttl` is zero, or a buffer is
    /// 0 or 2 GiB or more.
    pub fn validate(&self) -> Result<()> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        if self.datagram_max == 0 || self.datagram_max > 1024 * 1024 {
            return fault("datagram_max must be at least 1 byte and at most 1 MiB");
        }
        if self.output_max == 0 {
            return fault("output_max must be at least 1 byte");
        }
        if self.datagrams_max == 0 {
            return fault("datagrams_max must be at least 1");
        }
        if self.idle == Some(Duration::ZERO) {
            return fault("idle must be longer than zero; None turns it off");
        }
        if self.ttl == Some(0) {
            return fault("ttl must be at least 1");
        }
        let fits = |size: Option<usize>| size.is_none_or(|s| s > 0 && i32::try_from(s).is_ok());
        if !fits(self.send_buffer) {
            return fault("send_buffer must be at least 1 byte and less than 2 GiB");
        }
        if !fits(self.receive_buffer) {
            return fault("receive_buffer must be at least 1 byte and less than 2 GiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_by_an_address_or_a_number() {
        let addr = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(Interface::from(addr), Interface::Addr(addr));
        assert_eq!(Interface::from(3), Interface::Index(3));
        assert_eq!(Interface::default(), Interface::Any);
    }

    #[test]
    fn a_value_that_cannot_work_is_an_error_that_names_the_option() {
        let most = i32::MAX as usize;
        type Change = fn(&mut DatagramOptions, usize);
        let cases: [(&str, Change, &[usize], &[usize]); 7] = [
            ("datagram_max", |o, v| o.datagram_max = v, &[1, 1 << 20], &[0, (1 << 20) + 1]),
            ("output_max", |o, v| o.output_max = v, &[1, usize::MAX], &[0]),
            ("datagrams_max", |o, v| o.datagrams_max = v, &[1], &[0]),
            ("idle", |o, v| o.idle = Some(Duration::from_nanos(v as u64)), &[1], &[0]),
            ("ttl", |o, v| o.ttl = Some(v as u8), &[1, 255], &[0]),
            ("send_buffer", |o, v| o.send_buffer = Some(v), &[1, most], &[0, most + 1]),
            ("receive_buffer", |o, v| o.receive_buffer = Some(v), &[1, most], &[0, most + 1]),
        ];
        for (option, change, good, bad) in cases {
            let judged = |value| {
                let mut options = DatagramOptions::default();
                change(&mut options, value);
                options.validate()
            };
            for value in good {
                judged(*value).unwrap();
            }
            for value in bad {
                let error = judged(*value).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidLimits);
                let begins = format!("these limits cannot work: {option} must ");
                assert!(error.to_string().starts_with(&begins), "{error}");
            }
        }
    }
}
