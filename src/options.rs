//! How to connect and how to listen: limits of the connections, options of the sockets.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::limits::Limits;

/// How to listen. Accepted connections get the listener's limits and options.
///
/// ```
/// use std::time::Duration;
/// use lariat::{Keepalive, ListenOptions};
///
/// let mut options = ListenOptions::default();
/// options.limits.idle = Some(Duration::from_secs(60));
/// options.backlog = 128;
/// options.keepalive = Some(Keepalive::default());
/// ```
///
/// The simulator uses `limits`, `backlog` and `v6_only` only: the others have no meaning there. For
/// a Unix socket `v6_only` and `nodelay` have no meaning, and `reuse_port`, `keepalive`,
/// `device`, `ttl` and `tos` are errors; for an IP address `mode` is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// The limits of each accepted connection.
    pub limits: Limits,
    /// Connections that wait in the kernel to be accepted \[1024\]. The system may silently lower
    /// it (Linux: to `net.core.somaxconn`).
    pub backlog: u32,
    /// SO_REUSEPORT: several sockets share one port \[off\], if each of them asks for it and they
    /// are of one user. On Linux the system spreads connections over them; the [module
    /// `reactor`](crate::reactor) shows a server on several cores.
    pub reuse_port: bool,
    /// For IPv6 addresses: whether the listener takes IPv6 only \[on\]. When off, a listener on
    /// `[::]` serves both families, and an IPv4 peer has its IPv4 address.
    pub v6_only: bool,
    /// The permission bits of a Unix socket's file (`chmod(2)`), for instance `0o660` \[what the
    /// process' umask leaves\]. They are set before anybody can connect.
    pub mode: Option<u32>,
    /// TCP_NODELAY: small writes leave at once \[on\].
    pub nodelay: bool,
    /// SO_KEEPALIVE: the system asks a silent peer whether it is still there \[off\].
    pub keepalive: Option<Keepalive>,
    /// SO_SNDBUF, in bytes: how much output the kernel keeps \[the system's choice\]. The system
    /// adjusts it: Linux doubles it and silently caps it (`net.core.wmem_max`).
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF, in bytes: how much input the kernel keeps \[the system's choice\]. The system
    /// adjusts it as it does `send_buffer`.
    pub receive_buffer: Option<usize>,
    /// SO_BINDTODEVICE: the network interface, such as `eth0`, by which packets come and go,
    /// whatever the routes say \[any\]. Linux and Android only; an error elsewhere, for a name that
    /// no interface has, and for a Unix socket. Linux before 5.7 wants the capability CAP_NET_RAW
    /// for it.
    pub device: Option<String>,
    /// IP_TTL or IPV6_UNICAST_HOPS: routers that a packet may pass, at least 1 \[the system's
    /// choice\]. An error for a Unix socket.
    pub ttl: Option<u8>,
    /// IP_TOS or IPV6_TCLASS: the class of a packet, for routers that tell classes apart; 0xB8 is
    /// expedited forwarding \[0\]. The system sets the two lowest bits itself. An error for a Unix
    /// socket.
    pub tos: Option<u8>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            limits: Limits::default(),
            backlog: 1024,
            reuse_port: false,
            v6_only: true,
            mode: None,
            nodelay: true,
            keepalive: None,
            send_buffer: None,
            receive_buffer: None,
            device: None,
            ttl: None,
            tos: None,
        }
    }
}

impl From<Limits> for ListenOptions {
    fn from(limits: Limits) -> ListenOptions {
        ListenOptions { limits, ..ListenOptions::default() }
    }
}

impl ListenOptions {
    /// The options of accepted sockets.
    pub(crate) fn socket(&self) -> SocketOptions {
        SocketOptions {
            bind: None,
            nodelay: self.nodelay,
            keepalive: self.keepalive,
            send_buffer: self.send_buffer,
            receive_buffer: self.receive_buffer,
            device: self.device.as_deref().map(Device::named),
            ttl: self.ttl,
            tos: self.tos,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.limits.validate()?;
        self.socket().validate()
    }
}

/// How to connect.
///
/// ```
/// use std::time::Duration;
/// use lariat::ConnectOptions;
///
/// let mut options = ConnectOptions::default();
/// options.limits.connect = Duration::from_secs(3);
/// options.bind = Some(([127, 0, 0, 2], 0).into());
/// ```
///
/// The simulator uses `limits` and `bind` only; the other options have no meaning there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The limits of the connection.
    pub limits: Limits,
    /// The local address to connect from \[the system's choice\]. Port 0 picks a free port. A given
    /// port works also while an earlier connection from it is in TIME_WAIT (SO_REUSEADDR).
    pub bind: Option<Endpoint>,
    /// TCP_NODELAY: small writes leave at once \[on\].
    pub nodelay: bool,
    /// SO_KEEPALIVE: the system asks a silent peer whether it is still there \[off\].
    pub keepalive: Option<Keepalive>,
    /// SO_SNDBUF, in bytes \[the system's choice\]; see [`ListenOptions::send_buffer`].
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF, in bytes \[the system's choice\]; see [`ListenOptions::receive_buffer`].
    pub receive_buffer: Option<usize>,
    /// SO_BINDTODEVICE: the network interface to connect by \[any\]; see
    /// [`ListenOptions::device`].
    pub device: Option<String>,
    /// IP_TTL or IPV6_UNICAST_HOPS \[the system's choice\]; see [`ListenOptions::ttl`].
    pub ttl: Option<u8>,
    /// IP_TOS or IPV6_TCLASS \[0\]; see [`ListenOptions::tos`].
    pub tos: Option<u8>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            limits: Limits::default(),
            bind: None,
            nodelay: true,
            keepalive: None,
            send_buffer: None,
            receive_buffer: None,
            device: None,
            ttl: None,
            tos: None,
        }
    }
}

impl From<Limits> for ConnectOptions {
    fn from(limits: Limits) -> ConnectOptions {
        ConnectOptions { limits, ..ConnectOptions::default() }
    }
}

impl ConnectOptions {
    /// The options of the socket.
    pub(crate) fn socket(&self) -> SocketOptions {
        SocketOptions {
            bind: self.bind,
            nodelay: self.nodelay,
            keepalive: self.keepalive,
            send_buffer: self.send_buffer,
            receive_buffer: self.receive_buffer,
            device: self.device.as_deref().map(Device::named),
            ttl: self.ttl,
            tos: self.tos,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.limits.validate()?;
        self.socket().validate()
    }
}

/// How the system probes a silent peer, for connections that may be idle for long.
///
/// The default detects a vanished peer after two minutes of silence:
///
/// ```
/// let keepalive = lariat::Keepalive::default();
/// assert_eq!((keepalive.idle.as_secs(), keepalive.interval.as_secs()), (60, 10));
/// assert_eq!(keepalive.count, 6);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// The silence before the first probe \[60 s\], in whole seconds, at least one; a fraction is
    /// dropped. Linux takes at most 32,767 s.
    pub idle: Duration,
    /// The time between two probes \[10 s\], in whole seconds, at least one. Linux takes at most
    /// 32,767 s.
    pub interval: Duration,
    /// Probes without an answer after which the connection is broken \[6\]. Linux takes at most
    /// 127.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 6 }
    }
}

/// The options of one stream's socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) bind: Option<Endpoint>,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) device: Option<Device>,
    pub(crate) ttl: Option<u8>,
    pub(crate) tos: Option<u8>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        ConnectOptions::default().socket()
    }
}

impl SocketOptions {
    /// Rejects what no system takes, and what a system might silently read as another value.
    fn validate(&self) -> Result<()> {
        let fault =
            |what: &str| Err(Error::new(ErrorKind::InvalidLimits, Op::Limits).with_detail(what));
        if let Some(Keepalive { idle, interval, count }) = self.keepalive {
            if idle < Duration::from_secs(1) {
                return fault("keepalive.idle must be at least a second");
            }
            if interval < Duration::from_secs(1) {
                return fault("keepalive.interval must be at least a second");
            }
            if count == 0 {
                return fault("keepalive.count must be at least 1");
            }
        }
        let fits = |size: Option<usize>| size.is_none_or(|s| s > 0 && i32::try_from(s).is_ok());
        if !fits(self.send_buffer) {
            return fault("send_buffer must be at least 1 byte and less than 2 GiB");
        }
        if !fits(self.receive_buffer) {
            return fault("receive_buffer must be at least 1 byte and less than 2 GiB");
        }
        if self.device.is_some_and(|device| !device.is_name()) {
            return fault("device must be the name of an interface, of 1 to 15 bytes");
        }
        if self.ttl == Some(0) {
            return fault("ttl must be at least 1");
        }
        Ok(())
    }
}

/// The name of a network interface, in place, so that options can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Of the name as it was given.
    len: usize,
    bytes: [u8; Device::MAX],
}

impl Device {
    /// The longest name that a system has (IFNAMSIZ, with a zero byte).
    const MAX: usize = 15;

    fn named(name: &str) -> Device {
        let mut bytes = [0; Device::MAX];
        let fits = name.len().min(Device::MAX);
        bytes[..fits].copy_from_slice(&name.as_bytes()[..fits]);
        Device { len: name.len(), bytes }
    }

    /// Whether an interface can have this name.
    fn is_name(&self) -> bool {
        (1..=Device::MAX).contains(&self.len) && !self.bytes().contains(&0)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(Device::MAX)]
    }
}

/// A connect as the system is asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    pub(crate) to: Endpoint,
    pub(crate) options: SocketOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What both kinds of options say of one change of what they have in common.
    fn judged(change: impl Fn(&mut SocketOptions)) -> [Option<String>; 2] {
        let mut socket = SocketOptions::default();
        change(&mut socket);
        let SocketOptions { keepalive, send_buffer, receive_buffer, ttl, device, .. } = socket;
        let device = device.map(|device| {
            let name = String::from_utf8_lossy(device.bytes());
            format!("{name:x<width$}", width = device.len)
        });
        let mut connect = ConnectOptions { keepalive, send_buffer, ..ConnectOptions::default() };
        (connect.receive_buffer, connect.ttl, connect.device) = (receive_buffer, ttl, device);
        let mut listen = ListenOptions { keepalive, send_buffer, ..ListenOptions::default() };
        (listen.receive_buffer, listen.ttl) = (receive_buffer, ttl);
        listen.device.clone_from(&connect.device);
        [connect.validate(), listen.validate()].map(|result| {
            let error = result.err()?;
            assert_eq!(error.kind(), ErrorKind::InvalidLimits);
            Some(error.to_string())
        })
    }

    fn keepalive(idle: u64, interval: u64, count: u32) -> Keepalive {
        let (idle, interval) = (Duration::from_millis(idle), Duration::from_millis(interval));
        Keepalive { idle, interval, count }
    }

    #[test]
    fn a_value_that_no_system_takes_is_an_error_that_names_the_option() {
        let most = i32::MAX as usize;
        type Change = Box<dyn Fn(&mut SocketOptions)>;
        let cases: [(Change, &str); 11] = [
            (Box::new(|s| s.device = Some(Device::named(""))), "device"),
            (Box::new(|s| s.device = Some(Device::named("sixteen_bytes_xx"))), "device"),
            (Box::new(|s| s.device = Some(Device::named("zero\0byte"))), "device"),
            (Box::new(|s| s.ttl = Some(0)), "ttl"),
            (Box::new(|s| s.keepalive = Some(keepalive(999, 1000, 1))), "keepalive.idle"),
            (Box::new(|s| s.keepalive = Some(keepalive(1000, 999, 1))), "keepalive.interval"),
            (Box::new(|s| s.keepalive = Some(keepalive(1000, 1000, 0))), "keepalive.count"),
            (Box::new(|s| s.send_buffer = Some(0)), "send_buffer"),
            (Box::new(move |s| s.send_buffer = Some(most + 1)), "send_buffer"),
            (Box::new(|s| s.receive_buffer = Some(0)), "receive_buffer"),
            (Box::new(move |s| s.receive_buffer = Some(most + 1)), "receive_buffer"),
        ];
        for (change, option) in cases {
            for sentence in judged(change) {
                let sentence = sentence.unwrap();
                assert!(sentence.starts_with(&format!("these limits cannot work: {option} ")));
            }
        }
        assert_eq!(judged(|s| s.keepalive = Some(keepalive(1000, 1000, 1))), [None, None]);
        assert_eq!(judged(|s| s.ttl = Some(1)), [None, None]);
        let longest = Some(Device::named("fifteen_bytes_x"));
        assert_eq!(judged(|s| s.device = longest), [None, None]);
        assert_eq!(judged(|s| s.send_buffer = Some(1)), [None, None]);
        assert_eq!(judged(|s| s.receive_buffer = Some(most)), [None, None]);
    }

    #[test]
    fn the_name_of_an_interface_is_kept_whole_up_to_the_longest_that_there_is() {
        let name = "sixteen_bytes_xx";
        for len in 0..=16 {
            let device = Device::named(&name[..len]);
            assert_eq!(device.bytes(), &name.as_bytes()[..len.min(15)]);
            assert_eq!(device.is_name(), (1..16).contains(&len), "{len} bytes");
        }
    }

    #[test]
    fn options_of_limits_have_those_limits_and_nothing_else_changed() {
        let limits = Limits { notes_max: 3, ..Limits::default() };
        let connect = ConnectOptions::from(limits.clone());
        assert_eq!((connect.limits.notes_max, connect.nodelay), (3, true));
        let listen = ListenOptions::from(limits);
        assert_eq!((listen.limits.notes_max, listen.backlog, listen.v6_only), (3, 1024, true));
        assert!(
            ListenOptions::from(Limits { read_budget: 0, ..Limits::default() }).validate().is_err()
        );
        assert!(
            ConnectOptions::from(Limits { read_budget: 0, ..Limits::default() })
                .validate()
                .is_err()
        );
    }
}
