//! The address of one end of a socket.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use socket2::SockAddr;

/// The longest path that a socket can have: the system ends it with a zero byte.
const SUN_PATH_MAX: usize =
    if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// The address of a socket or of its peer. An [`Address`](crate::Address) is what a program asks
/// for; every endpoint converts into one.
///
/// An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, the peer of a listener that serves both
/// families) is stored as the IPv4 address.
///
/// Nearly every endpoint is an IP address with a port. So an endpoint compares with a
/// [`SocketAddr`], prints like one, and functions of std accept it in its place:
///
/// ```
/// use std::net::SocketAddr;
/// use lariat::Endpoint;
///
/// let addr: SocketAddr = "127.0.0.1:7000".parse().unwrap();
/// let endpoint = Endpoint::from(addr);
/// assert_eq!(endpoint, addr);
/// assert_eq!(endpoint.port(), Some(7000));
/// assert_eq!(endpoint.to_string(), "127.0.0.1:7000");
///
/// let mapped: SocketAddr = "[::ffff:127.0.0.1]:7000".parse().unwrap();
/// assert_eq!(Endpoint::from(mapped), endpoint);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The name of a Unix socket.
    Unix(UnixName),
    /// Anything else: an address family without a variant here, or the peer of a connect to a name,
    /// which a running driver does not look up.
    Other,
}

impl Endpoint {
    /// The IP address and the port; None for anything but [`Endpoint::Ip`].
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Ip(addr) => Some(*addr),
            _ => None,
        }
    }

    /// The IP address; None for anything but [`Endpoint::Ip`].
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip())
    }

    /// The port; None for anything but [`Endpoint::Ip`].
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|addr| addr.port())
    }

    /// The name of a Unix socket; None for anything but [`Endpoint::Unix`].
    pub fn unix(&self) -> Option<UnixName> {
        match self {
            Endpoint::Unix(name) => Some(*name),
            _ => None,
        }
    }

    /// The address as a call of the system takes it.
    pub(crate) fn to_sock_addr(self) -> io::Result<SockAddr> {
        match self {
            Endpoint::Ip(addr) => Ok(addr.into()),
            Endpoint::Unix(name) => name.to_sock_addr(),
            Endpoint::Other => Err(no_name()),
        }
    }

    /// The IP address and the port, or an error for a call that takes nothing else.
    pub(crate) fn need_ip(&self) -> io::Result<SocketAddr> {
        let other = || io::Error::new(io::ErrorKind::Unsupported, "it is no IP address");
        self.socket_addr().ok_or_else(other)
    }
}

fn no_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "there is no name to use")
}

/// What the system tells of a socket.
impl From<&SockAddr> for Endpoint {
    fn from(addr: &SockAddr) -> Endpoint {
        if let Some(addr) = addr.as_socket() {
            return Endpoint::from(addr);
        }
        match addr.is_unix() {
            true => Endpoint::Unix(UnixName::of(addr)),
            false => Endpoint::Other,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(mut addr: SocketAddr) -> Endpoint {
        if addr.is_ipv6() {
            addr.set_ip(addr.ip().to_canonical());
        }
        Endpoint::Ip(addr)
    }
}

impl From<SocketAddrV4> for Endpoint {
    fn from(addr: SocketAddrV4) -> Endpoint {
        Endpoint::Ip(addr.into())
    }
}

impl From<SocketAddrV6> for Endpoint {
    fn from(addr: SocketAddrV6) -> Endpoint {
        Endpoint::from(SocketAddr::from(addr))
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Endpoint {
    fn from(addr: (I, u16)) -> Endpoint {
        Endpoint::from(SocketAddr::from(addr))
    }
}

impl From<UnixName> for Endpoint {
    fn from(name: UnixName) -> Endpoint {
        Endpoint::Unix(name)
    }
}

impl PartialEq<SocketAddr> for Endpoint {
    fn eq(&self, addr: &SocketAddr) -> bool {
        *self == Endpoint::from(*addr)
    }
}

impl PartialEq<Endpoint> for SocketAddr {
    fn eq(&self, endpoint: &Endpoint) -> bool {
        endpoint == self
    }
}

/// For functions of std: `TcpStream::connect(endpoint)`. An endpoint that is no IP address is an
/// error of the kind [`Unsupported`](io::ErrorKind::Unsupported).
impl ToSocketAddrs for Endpoint {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(Some(self.need_ip()?).into_iter())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(addr) => addr.fmt(f),
            Endpoint::Unix(name) => name.fmt(f),
            Endpoint::Other => f.pad("an unknown address"),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a Unix socket: a path, an abstract name (Linux), or none, as most clients have.
///
/// ```
/// use std::os::unix::net::SocketAddr;
/// use lariat::UnixName;
///
/// let name = UnixName::from(&SocketAddr::from_pathname("/run/echo.sock").unwrap());
/// assert_eq!(name.as_pathname(), Some("/run/echo.sock".as_ref()));
/// assert_eq!(name.to_string(), "/run/echo.sock");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixName {
    kind: UnixKind,
    len: u8,
    /// In place, so that an endpoint can be copied; zeros after `len`.
    bytes: [u8; UnixName::MAX],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum UnixKind {
    Unnamed,
    Path,
    Abstract,
}

impl UnixName {
    /// The longest name that any system has.
    const MAX: usize = 108;

    fn new(kind: UnixKind, name: &[u8]) -> UnixName {
        let mut bytes = [0; UnixName::MAX];
        let len = name.len().min(UnixName::MAX);
        bytes[..len].copy_from_slice(&name[..len]);
        UnixName { kind, len: len as u8, bytes }
    }

    /// The name of a socket at `path`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the path is empty, has a zero byte or is
    /// longer than the system takes: 107 bytes on Linux.
    ///
    /// ```
    /// use lariat::UnixName;
    /// let name = UnixName::from_pathname("/run/echo.sock").unwrap();
    /// assert_eq!(name.to_string(), "/run/echo.sock");
    /// assert!(UnixName::from_pathname("x".repeat(200)).is_err());
    /// ```
    pub fn from_pathname(path: impl AsRef<Path>) -> io::Result<UnixName> {
        let path = path.as_ref().as_os_str().as_bytes();
        let invalid = |sentence| Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        if path.is_empty() {
            return invalid("the path is empty".to_owned());
        }
        if path.contains(&0) {
            return invalid("the path has a zero byte".to_owned());
        }
        if path.len() > SUN_PATH_MAX {
            let len = path.len();
            return invalid(format!("the path has {len} bytes, and {SUN_PATH_MAX} are the most"));
        }
        Ok(UnixName::new(UnixKind::Path, path))
    }

    /// An abstract name, which is no file and is gone with its socket (`unix(7)`; Linux only).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is empty or longer than 107 bytes, and
    /// [`Unsupported`](io::ErrorKind::Unsupported) where the system has no such names.
    pub fn from_abstract_name(name: impl AsRef<[u8]>) -> io::Result<UnixName> {
        let name = name.as_ref();
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            let sentence = "this system has no abstract names";
            return Err(io::Error::new(io::ErrorKind::Unsupported, sentence));
        }
        if name.is_empty() || name.len() > SUN_PATH_MAX {
            let sentence = format!("an abstract name has 1 to {SUN_PATH_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        Ok(UnixName::new(UnixKind::Abstract, name))
    }

    /// No name, as most clients have. A Unix datagram socket can be
    /// [bound](crate::Control::bind) to it, which leaves it without a name.
    pub fn unnamed() -> UnixName {
        UnixName::new(UnixKind::Unnamed, &[])
    }

    fn of(addr: &SockAddr) -> UnixName {
        if let Some(path) = addr.as_pathname() {
            return UnixName::new(UnixKind::Path, path.as_os_str().as_bytes());
        }
        match addr.as_abstract_namespace() {
            Some(name) => UnixName::new(UnixKind::Abstract, name),
            None => UnixName::unnamed(),
        }
    }

    fn to_sock_addr(self) -> io::Result<SockAddr> {
        match self.kind {
            UnixKind::Path => SockAddr::unix(OsStr::from_bytes(self.bytes())),
            UnixKind::Abstract => {
                // A zero byte at its start is what makes it abstract.
                let name = [&[0], self.bytes()].concat();
                SockAddr::unix(OsStr::from_bytes(&name))
            }
            UnixKind::Unnamed => Err(no_name()),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether the socket has no name.
    pub fn is_unnamed(&self) -> bool {
        self.kind == UnixKind::Unnamed
    }

    /// The path that it is bound to.
    pub fn as_pathname(&self) -> Option<&Path> {
        (self.kind == UnixKind::Path).then(|| Path::new(OsStr::from_bytes(self.bytes())))
    }

    /// The abstract name, without the zero byte at its start.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        (self.kind == UnixKind::Abstract).then(|| self.bytes())
    }
}

impl From<&std::os::unix::net::SocketAddr> for UnixName {
    fn from(addr: &std::os::unix::net::SocketAddr) -> UnixName {
        if let Some(path) = addr.as_pathname() {
            return UnixName::new(UnixKind::Path, path.as_os_str().as_bytes());
        }
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            if let Some(name) = addr.as_abstract_name() {
                return UnixName::new(UnixKind::Abstract, name);
            }
        }
        UnixName::unnamed()
    }
}

/// A path as it is, an abstract name after an `@`, `(unnamed)` for none.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            UnixKind::Unnamed => f.pad("(unnamed)"),
            UnixKind::Path => f.pad(&String::from_utf8_lossy(self.bytes())),
            UnixKind::Abstract => f.pad(&format!("@{}", self.bytes().escape_ascii())),
        }
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An endpoint to be kept with each connection, in 16 bytes: IPv4 in place, the larger ones in a
/// box.
pub(crate) enum SmallEndpoint {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Unix(Box<UnixName>),
    Other,
}

impl SmallEndpoint {
    pub(crate) fn get(&self) -> Endpoint {
        match self {
            SmallEndpoint::V4(addr) => Endpoint::Ip(SocketAddr::V4(*addr)),
            SmallEndpoint::V6(addr) => Endpoint::Ip(SocketAddr::V6(**addr)),
            SmallEndpoint::Unix(name) => Endpoint::Unix(**name),
            SmallEndpoint::Other => Endpoint::Other,
        }
    }
}

impl From<Endpoint> for SmallEndpoint {
    fn from(endpoint: Endpoint) -> SmallEndpoint {
        match endpoint {
            Endpoint::Ip(SocketAddr::V4(addr)) => SmallEndpoint::V4(addr),
            Endpoint::Ip(SocketAddr::V6(addr)) => SmallEndpoint::V6(Box::new(addr)),
            Endpoint::Unix(name) => SmallEndpoint::Unix(Box::new(name)),
            Endpoint::Other => SmallEndpoint::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::SocketAddr as UnixAddr;

    fn ip(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ip_endpoint_is_printed_and_compared_as_its_socket_address() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%3]:7"] {
            let endpoint = Endpoint::from(ip(text));
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(format!("{endpoint:?} {endpoint:>30}"), format!("{text} {text:>30}"));
            assert!(endpoint == ip(text) && ip(text) == endpoint && endpoint != ip("[::]:1"));
            assert_eq!(endpoint.socket_addr(), Some(ip(text)));
            assert_eq!(
                (endpoint.ip(), endpoint.port()),
                (Some(ip(text).ip()), Some(ip(text).port()))
            );
            assert_eq!(endpoint.to_socket_addrs().unwrap().collect::<Vec<_>>(), [ip(text)]);
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_it_stands_for() {
        let mapped = Endpoint::from(ip("[::ffff:192.0.2.1]:80"));
        assert_eq!(mapped.to_string(), "192.0.2.1:80");
        assert_eq!(mapped, ip("[::ffff:192.0.2.1]:80"));
        assert_eq!(mapped, ip("192.0.2.1:80"));
        // What is only compatible stays IPv6, and so does any other address.
        assert_eq!(Endpoint::from(ip("[::192.0.2.1]:80")).to_string(), "[::c000:201]:80");
    }

    #[test]
    fn what_is_no_ip_address_has_no_port_and_is_refused_by_std() {
        let unnamed = Endpoint::Unix(UnixName::new(UnixKind::Unnamed, &[]));
        for endpoint in [Endpoint::Other, unnamed] {
            assert_eq!(
                (endpoint.ip(), endpoint.port(), endpoint.socket_addr()),
                (None, None, None)
            );
            assert!(endpoint != ip("127.0.0.1:1"));
            let error = std::net::TcpStream::connect(endpoint).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        assert_eq!(format!("{} {unnamed}", Endpoint::Other), "an unknown address (unnamed)");
    }

    #[test]
    fn a_unix_name_keeps_its_kind_and_every_byte() {
        let longest = format!("/{}", "x".repeat(106));
        for path in ["/run/a.sock", longest.as_str()] {
            let name = UnixName::from(&UnixAddr::from_pathname(path).unwrap());
            assert_eq!(name.as_pathname(), Some(Path::new(path)));
            assert!(!name.is_unnamed() && name.as_abstract_name().is_none());
            assert_eq!(Endpoint::from(name).to_string(), path);
            assert_eq!(Endpoint::from(name).unix(), Some(name));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_is_as_long_as_the_system_takes_and_no_longer() {
        let long = |count: usize| vec![b'x'; count];
        for (count, good) in
            [(0, false), (1, true), (SUN_PATH_MAX, true), (SUN_PATH_MAX + 1, false)]
        {
            let path = String::from_utf8(long(count)).unwrap();
            let found = UnixName::from_pathname(&path);
            assert_eq!(found.is_ok(), good, "a path of {count} bytes");
            assert!(found.is_ok_and(|name| name.to_string() == path) == good);
            if cfg!(target_os = "linux") {
                let found = UnixName::from_abstract_name(long(count));
                assert_eq!(found.is_ok(), good, "an abstract name of {count} bytes");
                assert!(
                    found.is_ok_and(|name| name.as_abstract_name() == Some(&long(count))) == good
                );
            }
        }
        // The system may report a path that fills its place.
        let full = UnixName::new(UnixKind::Path, &long(UnixName::MAX));
        assert_eq!(full.to_string().len(), 108);
    }

    #[test]
    fn an_abstract_name_is_no_path_and_none_is_unnamed() {
        use std::os::linux::net::SocketAddrExt;
        let name = UnixName::from(&UnixAddr::from_abstract_name(b"a\0b").unwrap());
        assert_eq!(name.as_abstract_name(), Some(&b"a\0b"[..]));
        assert!(name.as_pathname().is_none() && !name.is_unnamed());
        assert_eq!(name.to_string(), "@a\\x00b");
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let unnamed = UnixName::from(&one.local_addr().unwrap());
        assert!(unnamed.is_unnamed() && unnamed.as_pathname().is_none());
    }

    #[test]
    fn a_small_endpoint_is_the_same_endpoint_in_16_bytes() {
        let unix = UnixName::new(UnixKind::Path, b"/run/a.sock");
        let all = [
            ip("192.0.2.1:80").into(),
            ip("[fe80::1%3]:7").into(),
            Endpoint::Unix(unix),
            Endpoint::Other,
        ];
        for endpoint in all {
            assert_eq!(SmallEndpoint::from(endpoint).get(), endpoint);
        }
        assert!(size_of::<SmallEndpoint>() <= 16);
    }
}
