//! The lookup of a name for a connect.

use std::io;
use std::sync::Arc;

use super::{Effect, RaceEvent, Shared};
use crate::address::{in_order, named};
use crate::connection::Connection;
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

/// Why a lookup has no result.
fn failed(error: JobError) -> io::Error {
    match error {
        JobError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "the lookup took too long"),
        JobError::Full => io::Error::other("too many lookups are waiting"),
        JobError::Panicked => io::Error::other("the lookup panicked"),
    }
}
