//! Notes for a protocol that does not exist yet.

use crate::note::Note;
use crate::protocol::Context;

/// What a protocol keeps that will be replaced as soon as its peer has said enough: notes are for
/// the protocol behind it, and wait for that one as they wait for `opened`.
#[derive(Default)]
pub(super) struct EarlyNotes(Vec<Note>);

impl EarlyNotes {
    /// Keeps a note, unless [`Limits::notes_max`](crate::Limits::notes_max) wait already.
    pub(super) fn keep(&mut self, cx: &Context<'_>, note: Note) {
        if self.0.len() < cx.limits().notes_max {
            self.0.push(note);
        } else {
            log::debug!(target: "lariat::dispatch", "a note too many for {} is dropped", cx.id());
        }
    }

    /// Sends them to the protocol that takes over when this callback has returned.
    pub(super) fn pass_on(&mut self, cx: &mut Context<'_>) {
        let id = cx.id();
        for note in self.0.drain(..) {
            cx.peer(id).notify(note);
        }
    }
}
