//! Another connection, as a callback or a closure reaches it.

use std::fmt;

use bytes::Bytes;

use super::writer::{admit, refuse};
use super::{Effect, Output, Shared};
use crate::connection::{Connection, Flags};
use crate::guard::GuardedBytes;
use crate::id::ConnId;
use crate::note::Note;

/// Another connection of the same driver. If it has ended, every request has no effect and is
/// counted in [`Metrics::stale`](crate::Metrics::stale).
pub struct Peer<'a> {
    pub(super) id: ConnId,
    /// Whether writes answer input, so that the writer can be held.
    pub(super) caused: bool,
    pub(super) shared: &'a mut Shared,
    /// The shown input: slices of it need no copy until they are queued.
    pub(super) shown: &'a [u8],
    /// The connection, if the callback writes to its own.
    pub(super) own: Option<&'a mut Connection>,
}

impl<'a> Peer<'a> {
    /// As code that answers no input of a connection reaches it.
    pub(crate) fn from_outside(id: ConnId, shared: &'a mut Shared) -> Peer<'a> {
        Peer { id, caused: false, shared, shown: &[], own: None }
    }
}

impl Peer<'_> {
    /// Whether the connection exists: its `closed` has not run. It may be closing; writes are then
    /// dropped and counted.
    pub fn is_open(&self) -> bool {
        self.shared.ids.is_current(self.id)
    }

    /// Bytes written to it and not yet taken by the kernel, with those of this callback: for a
    /// producer that has others to choose from. On blocking threads, what other threads do at the
    /// same time may be missing.
    ///
    /// ```
    /// # use lariat::{ConnId, Context};
    /// /// Gives a job to the connection with the least to send.
    /// fn assign(cx: &mut Context<'_>, workers: &[ConnId], job: &[u8]) {
    ///     if let Some(least) = workers.iter().min_by_key(|id| cx.peer(**id).unsent()) {
    ///         cx.peer(*least).write(job);
    ///     }
    /// }
    /// ```
    pub fn unsent(&self) -> usize {
        match &self.own {
            Some(conn) => conn.unsent() + self.shared.output.len(),
            None => self.shared.unsent(self.id) + self.shared.effects.written_to(self.id),
        }
    }

    /// Queues a copy of `bytes`. In `data` and `eof`, a receiver that has more than its high mark
    /// unsent of what input has caused holds the writer: the writer is not read until no more than
    /// the low mark of that is left. This bounds a relay.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.own.is_some() {
            return self.write_own(bytes.len(), |output, shown| output.push(bytes, shown));
        }
        let Shared { effects, outputs, .. } = &mut *self.shared;
        effects.write(self.id, bytes, self.shown, self.caused, outputs.get());
    }

    /// Queues `bytes` as [`write`](Peer::write) does, without copying.
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.write_guarded(GuardedBytes::new(bytes));
    }

    fn write_guarded(&mut self, bytes: GuardedBytes) {
        if self.own.is_some() {
            return self.write_own(bytes.len(), |output, shown| output.push_shared(bytes, shown));
        }
        let Shared { effects, outputs, .. } = &mut *self.shared;
        effects.write_shared(self.id, bytes, self.caused, outputs.get());
    }

    /// Queues `bytes` without copying and never holds the writer: for broadcast. A receiver that
    /// then has more than [`Limits::output_max`](crate::Limits::output_max) \[8 MiB\] unsent ends
    /// with [`OutputFull`](crate::CloseKind::OutputFull).
    pub fn push(&mut self, bytes: impl Into<Bytes>) {
        self.push_guarded(GuardedBytes::new(bytes));
    }

    pub(super) fn push_guarded(&mut self, bytes: GuardedBytes) {
        self.caused = false;
        self.write_guarded(bytes);
    }

    /// A write to the own connection by its id keeps its place among the callback's other writes.
    fn write_own(&mut self, count: usize, write: impl FnOnce(&mut Output, &[u8])) {
        let Some(conn) = &mut self.own else { return };
        if conn.flags().any(Flags::NO_WRITES) {
            refuse(self.shared, conn, count);
        } else if admit(self.shared, conn, count) {
            write(&mut self.shared.output, self.shown);
        }
    }

    /// Finishes sending on that connection, as
    /// [`Context::shutdown_write`](crate::Context::shutdown_write) does.
    pub fn shutdown_write(&mut self) {
        self.shared.effects.list.push(Effect::ShutdownWrite(self.id));
    }

    /// Closes that connection in order, as [`Context::close`](crate::Context::close) does. Its
    /// `closed` runs in a later turn.
    pub fn close(&mut self) {
        self.shared.effects.list.push(Effect::Close(self.id));
    }

    /// Aborts that connection, as [`Context::abort`](crate::Context::abort) does. Its `closed` runs
    /// in a later turn.
    pub fn abort(&mut self) {
        self.shared.effects.list.push(Effect::Abort(self.id));
    }

    /// Sends a note. [`Protocol::notified`](crate::Protocol::notified) receives it in a later turn,
    /// after `opened`. A connection that has [`Limits::notes_max`](crate::Limits::notes_max) \[64\]
    /// notes waiting drops a further one and counts it in
    /// [`Metrics::refused_notes`](crate::Metrics::refused_notes).
    pub fn notify(&mut self, note: Note) {
        self.shared.effects.list.push(Effect::Notify { to: self.id, note });
    }
}

impl fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The unsent bytes of the connections of a loop, by slot. It is as long as the highest slot of
/// those that have had any, so that idle ones cost nothing.
#[derive(Default)]
pub(crate) struct Backlogs(Vec<usize>);

impl Backlogs {
    pub(super) fn set(&mut self, id: ConnId, unsent: usize) {
        let slot = id.slot();
        if slot >= self.0.len() {
            self.0.resize(slot + 1, 0);
        }
        self.0[slot] = unsent;
    }

    pub(super) fn get(&self, id: ConnId) -> usize {
        self.0.get(id.slot()).copied().unwrap_or(0)
    }
}
