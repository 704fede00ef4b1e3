//! Names of a simulated network.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

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

impl Resolver for Names {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(host) {
            Some(addrs) => Ok(addrs.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
        }
    }
}
