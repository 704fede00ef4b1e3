//! The second thread of a connection, for what must not wait until the first comes out of `read`.

use std::io;
use std::sync::Arc;

use super::cell::Cell;
use super::hub::{Hub, Presence, lock};
use super::worker::{Next, Role, Worker};
use crate::sync::thread;

/// Starts the companion of `cell`.
pub(super) fn start(hub: &Arc<Hub>, cell: &Arc<Cell>) -> io::Result<()> {
    let (hub, cell) = (Arc::clone(hub), Arc::clone(cell));
    let presence = Presence::new(&hub);
    let name = format!("lariat {} companion", cell.id);
    let started = thread::Builder::new().name(name).spawn(move || {
        Worker::new(&hub, &cell, Role::Companion).accompany();
        cell.companion_gone();
        drop(cell);
        drop(presence);
    });
    if let Err(error) = &started {
        log::error!(target: "lariat::blocking", "cannot start a companion thread: {error}");
    }
    started.map(drop)
}

impl Worker {
    /// Does what is due until the end is decided, and wakes the reading thread, which tells
    /// `closed`.
    fn accompany(mut self) {
        let cell = Arc::clone(&self.cell);
        loop {
            match self.advance() {
                Next::End => break,
                Next::OtherFirst => cell.companion.wait(None),
                Next::Read(timeout) | Next::Wait(timeout) => cell.companion.wait(timeout),
            }
        }
        let away = lock(&cell.member).connecting;
        if away {
            // A connect cannot be woken: nobody else would tell.
            self.tell_closed();
        } else {
            self.wake_sleepers();
        }
    }
}
