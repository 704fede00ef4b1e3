//! Where to listen, and where to connect.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::endpoint::{Endpoint, UnixName};
use crate::error::{Error, ErrorKind, Op, Result};

/// An address to listen on or to connect to: an endpoint, or text that stands for one or more.
///
/// ```
/// use lariat::Address;
/// assert_eq!(Address::from("127.0.0.1:7000").to_string(), "127.0.0.1:7000");
/// assert!(matches!(Address::from("localhost:7000"), Address::Name(_)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// One endpoint, usually an IP address and a port.
    Endpoint(Endpoint),
    /// `host:port`. A connect looks the name up on a thread of its own, and tries IPv6 and IPv4
    /// addresses by turns. `serve`, `listen` and `bind` look it up where they are called, before a
    /// driver runs; while it runs, `listen` and `bind` of [`Control`](crate::Control) take no name,
    /// and [`Handle::listen`](crate::Handle::listen) looks it up on a thread of its own.
    Name(String),
    /// The path of a Unix socket.
    Path(PathBuf),
    /// Several endpoints, for instance the result of an earlier lookup. A connect tries them in
    /// this order.
    Several(Vec<Endpoint>),
}

impl Address {
    /// Where a connect goes. Nothing is looked up.
    pub(crate) fn targets(&self) -> io::Result<Targets> {
        let error = match self {
            Address::Endpoint(endpoint) => return Ok(Targets::One(*endpoint)),
            Address::Path(path) => {
                return UnixName::from_pathname(path).map(|name| Targets::One(name.into()));
            }
            Address::Several(endpoints) => match endpoints[..] {
                [] => "there is no address to connect to".to_owned(),
                [one] => return Ok(Targets::One(one)),
                _ => return Ok(Targets::Several(endpoints.iter().copied().collect())),
            },
            Address::Name(name) => match (Scoped::of(name), host_and_port(name)) {
                (Some(scoped), _) => scoped.wrong(),
                (None, Ok((host, port))) => {
                    return Ok(Targets::Name { host: host.to_owned(), port });
                }
                (None, Err(wrong)) => wrong.to_owned(),
            },
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// Whether it is a name, which has to be looked up.
    pub(crate) fn is_looked_up(&self) -> bool {
        matches!(self.targets(), Ok(Targets::Name { .. }))
    }

    /// The endpoints it stands for. A name is looked up, which may block.
    pub(crate) fn resolve(&self, op: Op) -> Result<Vec<Endpoint>> {
        let invalid = |detail: String| {
            Error::new(ErrorKind::InvalidAddress, op).with_addr(self).with_detail(detail)
        };
        match self {
            Address::Endpoint(addr) => Ok(vec![*addr]),
            Address::Path(path) => match UnixName::from_pathname(path) {
                Ok(name) => Ok(vec![name.into()]),
                Err(error) => Err(invalid(error.to_string())),
            },
            Address::Several(addrs) if addrs.is_empty() => Err(invalid("there is none".into())),
            Address::Several(addrs) => Ok(addrs.clone()),
            Address::Name(name) => {
                if let Some(scoped) = Scoped::of(name) {
                    let hint = "`ip link` and `ifconfig` print the names of the interfaces";
                    return Err(invalid(scoped.wrong()).with_hint(hint));
                }
                let found = name.to_socket_addrs();
                let found = found.map_err(|error| invalid(error.to_string()))?;
                let mut addrs: Vec<Endpoint> = Vec::new();
                for addr in found.map(Endpoint::from) {
                    if !addrs.contains(&addr) {
                        addrs.push(addr);
                    }
                }
                if addrs.is_empty() {
                    Err(invalid("it stands for nothing".into()))
                } else {
                    Ok(addrs)
                }
            }
        }
    }
}

/// Where a connect goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    One(Endpoint),
    /// At least two, in the order in which they are tried.
    Several(VecDeque<Endpoint>),
    /// A name, which has to be looked up.
    Name {
        host: String,
        port: u16,
    },
}

/// An error of a connect to `addr`, which it names.
pub(crate) fn named(addr: &impl fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{addr}: {error}"))
}

/// How long an address has a connect for itself before the next one is tried as well: the
/// "Connection Attempt Delay" of RFC 8305, section 5.
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The longest name that is looked up, in bytes: the most that DNS can carry (RFC 1035, section
/// 2.3.4).
const NAME_MAX: usize = 253;

/// The parts of `host:port`, or what is wrong with it.
fn host_and_port(text: &str) -> std::result::Result<(&str, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port")?;
    let port = port.parse().map_err(|_| "the port is not a number up to 65535")?;
    if host.is_empty() {
        return Err("there is no host");
    }
    if host.contains(':') {
        return Err("an IPv6 address with a port stands in brackets");
    }
    if host.len() > NAME_MAX {
        return Err("the name is longer than 253 bytes");
    }
    if host.contains('\0') {
        return Err("the name has a NUL byte");
    }
    Ok((host, port))
}

/// The addresses that a lookup has found in the order in which a connect tries them: IPv6 and IPv4
/// by turns, IPv6 first (RFC 8305, section 4), each address once. It is an error when there is
/// none.
pub(crate) fn in_order(found: Vec<SocketAddr>) -> io::Result<VecDeque<Endpoint>> {
    let (mut six, mut four) = (VecDeque::new(), VecDeque::new());
    for addr in found {
        let family = if addr.is_ipv6() { &mut six } else { &mut four };
        if !family.contains(&addr) {
            family.push_back(addr);
        }
    }
    let mut order = VecDeque::new();
    while !six.is_empty() || !four.is_empty() {
        order.extend(six.pop_front().map(Endpoint::from));
        order.extend(four.pop_front().map(Endpoint::from));
    }
    if order.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(order)
}

/// `[fe80::1%eth0]:7000`: an IPv6 address with the name of a network interface, which std does not
/// parse.
struct Scoped<'a> {
    /// With the name behind it.
    host: &'a str,
    ip: Ipv6Addr,
    interface: &'a str,
    port: u16,
}

impl Scoped<'_> {
    fn of(text: &str) -> Option<Scoped<'_>> {
        let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
        let (ip, interface) = host.split_once('%')?;
        Some(Scoped { host, ip: ip.parse().ok()?, interface, port: port.parse().ok()? })
    }

    /// The system knows the number of the interface. Nothing is looked up in a network for that.
    fn socket_addr(&self) -> Option<SocketAddr> {
        (self.host, self.port).to_socket_addrs().ok()?.next()
    }

    /// What is wrong with one for which the system has no number.
    fn wrong(&self) -> String {
        if self.ip.is_unicast_link_local() {
            format!("there is no network interface \"{}\"", self.interface)
        } else {
            "only a link-local address takes a network interface".to_owned()
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Endpoint(addr) => addr.fmt(f),
            Address::Path(path) => path.display().fmt(f),
            Address::Name(name) => name.fmt(f),
            Address::Several(addrs) => f.debug_list().entries(addrs).finish(),
        }
    }
}

/// Everything that `listen`, `serve` and `connect` accept as an address: a socket address, an IP
/// address with a port, the path of a Unix socket, or text such as `127.0.0.1:7000`, `[::1]:7000`,
/// `localhost:7000`, `[fe80::1%eth0]:7000` with the interface of a link-local address,
/// `unix:/run/echo.sock` and, for an abstract name of Linux, `unix:@echo`. Port 0 picks a free
/// port.
///
/// ```
/// use std::path::Path;
/// use lariat::Address;
/// assert_eq!(Address::from("unix:/run/echo.sock"), Address::from(Path::new("/run/echo.sock")));
/// ```
///
/// Sealed: more types may follow.
pub trait IntoAddress: sealed::Sealed {
    /// The address.
    fn into_address(self) -> Address;
}

mod sealed {
    pub trait Sealed {}
}

impl<T: Into<Address>> sealed::Sealed for T {}

impl<T: Into<Address>> IntoAddress for T {
    fn into_address(self) -> Address {
        self.into()
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Address {
        if let Some(name) = text.strip_prefix("unix:") {
            let named = name.strip_prefix('@').and_then(|n| UnixName::from_abstract_name(n).ok());
            return named.map_or_else(|| Address::from(Path::new(name)), Address::from);
        }
        let addr = text.parse::<SocketAddr>().ok();
        let addr = addr.or_else(|| Scoped::of(text)?.socket_addr());
        addr.map_or_else(|| Address::Name(text.to_owned()), Address::from)
    }
}

impl From<String> for Address {
    fn from(text: String) -> Address {
        Address::from(text.as_str())
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Address {
        Address::from(text.as_str())
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        Address::Path(path.to_owned())
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Path(path)
    }
}

impl From<&PathBuf> for Address {
    fn from(path: &PathBuf) -> Address {
        Address::from(path.as_path())
    }
}

/// Each of these converts into an endpoint.
macro_rules! from_socket_address {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Address {
            fn from(addr: $kind) -> Address {
                Address::Endpoint(SocketAddr::from(addr).into())
            }
        }
    )*};
}

from_socket_address!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16),
    ([u8; 4], u16)
);

impl From<Endpoint> for Address {
    fn from(endpoint: Endpoint) -> Address {
        Address::Endpoint(endpoint)
    }
}

impl From<&Endpoint> for Address {
    fn from(endpoint: &Endpoint) -> Address {
        Address::Endpoint(*endpoint)
    }
}

impl From<UnixName> for Address {
    fn from(name: UnixName) -> Address {
        Address::Endpoint(name.into())
    }
}

impl<T: Copy + Into<Endpoint>> From<&[T]> for Address {
    fn from(addrs: &[T]) -> Address {
        Address::Several(addrs.iter().map(|addr| (*addr).into()).collect())
    }
}

impl<T: Into<Endpoint>> From<Vec<T>> for Address {
    fn from(addrs: Vec<T>) -> Address {
        Address::Several(addrs.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Endpoint>, const N: usize> From<[T; N]> for Address {
    fn from(addrs: [T; N]) -> Address {
        Address::Several(addrs.into_iter().map(Into::into).collect())
    }
}

impl<T: Copy + Into<Endpoint>, const N: usize> From<&[T; N]> for Address {
    fn from(addrs: &[T; N]) -> Address {
        Address::from(&addrs[..])
    }
}

impl From<&SocketAddr> for Address {
    fn from(addr: &SocketAddr) -> Address {
        Address::from(*addr)
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Address {
        match host.parse::<IpAddr>() {
            Ok(ip) => Address::from((ip, port)),
            // With an interface.
            Err(_) if host.contains(':') => Address::from(format!("[{host}]:{port}")),
            Err(_) => Address::Name(format!("{host}:{port}")),
        }
    }
}

impl From<(String, u16)> for Address {
    fn from((host, port): (String, u16)) -> Address {
        Address::from((host.as_str(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_text_of_unix_is_an_abstract_name_only_where_it_can_be_one() {
        let name = |name: &str| Address::from(UnixName::from_abstract_name(name).unwrap());
        let longest = "x".repeat(SUN_NAME_MAX);
        assert_eq!(Address::from("unix:@echo"), name("echo"));
        assert_eq!(Address::from("unix:@@"), name("@"));
        assert_eq!(Address::from(format!("unix:@{longest}")), name(&longest));
        // What is no name is a path, whose error says what is wrong.
        for path in ["", "@", "echo", "/run/@echo", &format!("@{longest}x")] {
            assert_eq!(Address::from(format!("unix:{path}")), Address::Path(path.into()), "{path}");
        }
        assert!(Address::from("unix:").targets().is_err());
        assert!(Address::from(format!("unix:@{longest}x")).targets().is_err());
    }

    /// The most bytes of a name, with one before it that makes it abstract.
    #[cfg(target_os = "linux")]
    const SUN_NAME_MAX: usize = 107;

    #[test]
    fn every_form_of_an_address_is_taken() {
        let expected = Address::from(SocketAddr::from(([127, 0, 0, 1], 7000)));
        let forms = [
            "127.0.0.1:7000".into_address(),
            String::from("127.0.0.1:7000").into_address(),
            (Ipv4Addr::LOCALHOST, 7000).into_address(),
            ([127, 0, 0, 1], 7000).into_address(),
            ("127.0.0.1", 7000).into_address(),
            expected.clone().into_address(),
        ];
        assert!(forms.iter().all(|form| *form == expected));
        assert_eq!(("::1", 5).into_address().to_string(), "[::1]:5");
        let one: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let several = Address::Several(vec![one.into(), one.into()]);
        assert_eq!(vec![one, one].into_address(), several);
        assert_eq!([one, one].into_address(), several);
        assert_eq!((&[one, one]).into_address(), several);
        assert_eq!(("localhost".to_owned(), 5).into_address(), ("localhost", 5).into_address());
    }

    #[test]
    fn an_address_is_resolved_to_each_of_its_endpoints_once_or_to_an_error() {
        let one: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let ends = vec![one.into(), Endpoint::from(SocketAddr::from(([127, 0, 0, 2], 1)))];
        assert_eq!(Address::from(one).resolve(Op::Listen).unwrap(), ends[..1]);
        assert_eq!(Address::Several(ends.clone()).resolve(Op::Listen).unwrap(), ends);
        let error = Address::Several(Vec::new()).resolve(Op::Listen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        assert!(error.to_string().ends_with("there is none"), "{error}");
        let found = Address::from("localhost:7000").resolve(Op::Listen).unwrap();
        assert!(!found.is_empty() && found.iter().all(|end| end.port() == Some(7000)));
        for (at, end) in found.iter().enumerate() {
            assert!(!found[..at].contains(end), "{found:?}");
        }
    }

    #[test]
    fn an_interface_is_taken_by_its_name_and_by_its_number() {
        let scope = |address: Address| match address {
            Address::Endpoint(Endpoint::Ip(SocketAddr::V6(addr))) => {
                assert_eq!((addr.ip().to_string().as_str(), addr.port()), ("fe80::78", 7000));
                addr.scope_id()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(scope("[fe80::78%7]:7000".into()), 7);
        assert_eq!(scope("[fe80::78]:7000".into()), 0);
        assert_eq!(scope(("fe80::78", 7000).into()), 0);
        let loopback = if cfg!(target_os = "linux") { "lo" } else { "lo0" };
        let named = scope(format!("[fe80::78%{loopback}]:7000").into());
        assert!(named > 0);
        assert_eq!(scope((format!("fe80::78%{loopback}"), 7000).into()), named);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named_in_the_error() {
        let cases = [
            ("[fe80::78%nowhere]:1", "there is no network interface \"nowhere\""),
            ("[fe80::78%]:1", "there is no network interface \"\""),
            ("[2001:db8::1%nowhere]:1", "only a link-local address takes a network interface"),
        ];
        for (text, wrong) in cases {
            let error = Address::from(text).resolve(Op::Listen).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidAddress);
            assert_eq!(error.to_string(), format!("cannot listen on {text}: {wrong}"));
            assert!(format!("{error:?}").contains("\nhint: `ip link`"), "{error:?}");
            let error = Address::from(text).targets().unwrap_err();
            assert_eq!(error.to_string(), wrong);
        }
        // Near to it, and a name all the same.
        for text in ["[fe80::78%lo]", "fe80::78%lo:1", "[x%lo]:1", "[fe80::78%lo]:65536"] {
            assert!(Scoped::of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_connect_goes_to_one_address_to_several_in_their_order_or_to_a_name() {
        let one: Endpoint = ([127, 0, 0, 1], 1).into();
        let two: Endpoint = (Ipv6Addr::LOCALHOST, 2).into();
        assert_eq!(Address::from(one).targets().unwrap(), Targets::One(one));
        assert_eq!(Address::from([two]).targets().unwrap(), Targets::One(two));
        let several = Targets::Several([one, two].into());
        assert_eq!(Address::from([one, two]).targets().unwrap(), several);
        let named = |host: &str, port| Targets::Name { host: host.to_owned(), port };
        assert_eq!(Address::from("a.b:0").targets().unwrap(), named("a.b", 0));
        assert_eq!(Address::from(("db", 65_535)).targets().unwrap(), named("db", 65_535));
        let longest = "n".repeat(NAME_MAX);
        assert_eq!(Address::from((&*longest, 1)).targets().unwrap(), named(&longest, 1));
    }

    #[test]
    fn what_cannot_be_looked_up_says_why() {
        let too_long = format!("{}:1", "n".repeat(NAME_MAX + 1));
        let cases = [
            ("nonsense", "there is no port"),
            ("", "there is no port"),
            (":1", "there is no host"),
            ("host:", "the port is not a number up to 65535"),
            ("host:65536", "the port is not a number up to 65535"),
            ("host:-1", "the port is not a number up to 65535"),
            ("::1:80:x:1", "an IPv6 address with a port stands in brackets"),
            ("a\0b:1", "the name has a NUL byte"),
            (&too_long, "the name is longer than 253 bytes"),
        ];
        for (text, wrong) in cases {
            let error = Address::Name(text.to_owned()).targets().unwrap_err();
            assert_eq!(error.to_string(), wrong);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        let none = Address::Several(Vec::new()).targets().unwrap_err();
        assert_eq!(none.to_string(), "there is no address to connect to");
    }

    #[test]
    fn the_families_take_turns_and_each_address_comes_once() {
        let order = |found: &[&str]| -> Vec<String> {
            let found = found.iter().map(|addr| addr.parse().unwrap()).collect();
            in_order(found).unwrap().iter().map(Endpoint::to_string).collect()
        };
        let found = ["1.0.0.1:1", "1.0.0.2:1", "[2::1]:1", "1.0.0.1:1", "[2::2]:1", "[2::3]:1"];
        let expected = ["[2::1]:1", "1.0.0.1:1", "[2::2]:1", "1.0.0.2:1", "[2::3]:1"];
        assert_eq!(order(&found), expected);
        assert_eq!(order(&["1.0.0.2:1", "1.0.0.1:1"]), ["1.0.0.2:1", "1.0.0.1:1"]);
        let none = in_order(Vec::new()).unwrap_err();
        assert_eq!(none.to_string(), "the name has no address");
    }

    #[test]
    fn an_address_that_is_none_is_named_in_the_error() {
        let error = Address::from("nonsense").resolve(Op::Listen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidAddress);
        assert!(error.to_string().starts_with("cannot listen on nonsense: "), "{error}");
        assert_eq!(Address::from("127.0.0.1:0").resolve(Op::Listen).unwrap().len(), 1);
    }
}
