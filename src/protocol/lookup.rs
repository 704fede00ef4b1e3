//! Lookups of names, away from the driver.

use std::io;
use std::sync::Arc;

use super::{Control, Effect, RaceEvent, Shared};
use crate::address::{Address, in_order, named};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::jobs::{JobError, Lane};

impl Shared {
    /// Has the name of a connect looked up. The addresses come as an [`Effect::Race`].
    pub(crate) fn look_up(&mut self, conn: &mut Connection, host: String, port: u16) {
        let id = conn.id();
        let (job, wanted) = conn.begin_job();
        let resolver = Arc::clone(&self.workplace.resolver);
        let name = format!("{host}:{port}");
        let deadline = self.offload(
            Lane::Lookups,
            Some(wanted),
            move || resolver.resolve(&host, port),
            move |control, found| {
                let found = found.unwrap_or_else(|error| Err(failed(error)));
                let found = found.and_then(in_order).map_err(|error| named(&name, &error));
                let event = Box::new(RaceEvent::Found(job, found));
                control.shared_mut().effects.list.push(Effect::Race(id, event));
            },
        );
        conn.put_job(job, deadline.0);
    }
}

impl Shared {
    /// Refuses to look a name up on this thread, where that would hold the driver up.
    pub(crate) fn refuse_lookup(&self, addr: &Address, op: Op) -> Result<()> {
        if !self.running || !addr.is_looked_up() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Unsupported, op).with_addr(addr);
        let error = error.with_detail("a running driver does not wait for the lookup of a name");
        Err(error.with_hint(match op {
            Op::Listen => "give an IP address, or use Handle::listen, which looks the name up",
            _ => "give an IP address; Control::offload can look a name up",
        }))
    }

    /// Looks a name up on another thread, by the system, and has `then` run on the driver's.
    pub(crate) fn resolve_away(
        &mut self,
        addr: Address,
        op: Op,
        then: impl FnOnce(&mut Control<'_>, Result<Vec<Endpoint>>) + Send + 'static,
    ) {
        let name = addr.to_string();
        self.offload(
            Lane::Lookups,
            None,
            move || addr.resolve(op),
            move |control, found| {
                let late = |error| Err(Error::from_io(op, failed(error)).with_addr(name));
                then(control, found.unwrap_or_else(late));
            },
        );
    }
}

/// Why a lookup has no result.
fn failed(error: JobError) -> io::Error {
    match error {
        JobError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "the lookup took too long"),
        JobError::Full => io::Error::other("too many lookups are waiting"),
        JobError::Panicked => io::Error::other("the lookup panicked"),
    }
}
