//! Names of a simulated network.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::Sim;
use crate::resolver::Resolver;

/// The names that a simulation knows.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl Names {
    pub(super) fn set(&self, host: &str, addrs: &[IpAddr]) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if addrs.is_empty() {
            names.remove(host);
        } else {
            names.insert(host.to_owned(), addrs.to_vec());
        }
    }
}

impl Sim {
    /// Gives a name its addresses, for connects of the driver; the port is that of the connect.
    /// Without addresses the name exists no longer. A lookup takes a millisecond, and up to 20 ms
    /// more with [`Faults::delays`](crate::sim::Faults::delays).
    ///
    /// ```
    /// # use lariat::{Context, Input, Outcome, Protocol, sim::Sim};
    /// # struct Quiet;
    /// # impl Protocol for Quiet {
    /// #     fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome { Ok(()) }
    /// # }
    /// let mut sim = Sim::new(1);
    /// sim.add_name("db.internal", &["10.0.0.7".parse().unwrap()]);
    /// let acceptor = sim.acceptor("10.0.0.7:5432")?;
    /// sim.connect("db.internal:5432", Quiet);
    /// sim.run_for(std::time::Duration::from_secs(1))?;
    /// assert!(acceptor.accept().is_some());
    /// # Ok::<(), lariat::Error>(())
    /// ```
    pub fn add_name(&mut self, host: &str, addrs: &[IpAddr]) {
        self.names.set(host, addrs);
    }

    /// What looks up the names of connects from now on, in place of [`add_name`](Sim::add_name). It
    /// runs on this thread, and must not block.
    pub fn set_resolver(&mut self, resolver: impl Resolver) {
        self.inner.shared.workplace.resolver = Arc::new(resolver);
    }
}

impl Resolver for Names {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(host) {
            Some(addrs) => Ok(addrs.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
        }
    }
}
