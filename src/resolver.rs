//! How names become addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// Looks names up for the connects of a driver. It runs on threads of its own, at most
/// [`DriverLimits::lookups`](crate::DriverLimits::lookups), so it may block; in the simulator it
/// runs on the simulator's thread and must not.
///
/// The default asks the system (`getaddrinfo`, which reads `/etc/hosts` and asks DNS). A closure is
/// a resolver as well:
///
/// ```
/// use std::net::SocketAddr;
/// use lariat::reactor::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// reactor.set_resolver(|host: &str, port: u16| match host {
///     "db.internal" => Ok(vec![SocketAddr::from(([10, 0, 0, 7], port))]),
///     _ => Err(std::io::Error::other("this program talks to db.internal only")),
/// });
/// # Ok::<(), lariat::Error>(())
/// ```
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `host`, each with `port`. Their order counts within each family: a connect
    /// tries IPv6 and IPv4 by turns, IPv6 first.
    ///
    /// `host` is neither empty nor longer than 253 bytes, and has no NUL byte.
    ///
    /// # Errors
    ///
    /// There is no such name, or it cannot be looked up now. The connect then ends with
    /// [`ConnectFailure::Name`](crate::ConnectFailure::Name); so it does when no address is
    /// returned.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

impl<F> Resolver for F
where
    F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
{
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self(host, port)
    }
}

/// The lookup of the system.
pub(crate) struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}
