//! A second thread of a connection, for what must not wait until its own thread returns from the
//! socket: timers, requests of others, and output that waits for room while the other reads.

use std::sync::Arc;

use super::bell::lock;
use super::cell::Cell;
use super::hub::{Desk, Hub};
use super::worker::{Next, Role, Worker};

/// Does what is due until the end is decided; the connection's own thread runs `closed`.
pub(super) fn accompany(hub: &Arc<Hub>, desk: &mut Desk, cell: &Arc<Cell>) {
    let mut worker = Worker::new(hub, cell, desk, Role::Companion);
    loop {
        match worker.advance() {
            Next::End => break,
            Next::Write { byte } => {
                worker.sleep_for_room(byte);
                if !cell.companions.come_back() {
                    cell.reader.call();
                    return;
                }
            }
            Next::Wait { until } | Next::Read { until, .. } => {
                cell.companions.wait(until, &worker.desk.shared.clock);
            }
        }
    }
    let away = lock(&cell.member).connecting;
    if away {
        // A connect cannot be woken: no other thread would run `closed`.
        worker.tell_closed();
    }
    cell.companions.leave();
    cell.reader.call();
}
