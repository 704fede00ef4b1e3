//! What comes next for a connection: which callback is due, and which step follows. The order of
//! both is defined here only, for loop, threads and tests.

use super::{Connection, Flags};
use crate::buffer::ChunkPool;
use crate::note::Note;

/// A callback that is due. Handing it out clears the mark.
#[derive(Debug)]
pub(crate) enum Due {
    Opened,
    Stopping,
    Drained,
    Notified(Note),
    Data,
    Eof,
}

/// How far one round of due callbacks has come.
///
/// A round runs each callback at most once, in the order of the contract, and the notes that waited
/// when their turn came. What a callback makes due waits for the next round, so that a loop serves
/// every other connection first.
#[derive(Default)]
pub(crate) struct Round {
    stage: Stage,
    /// Notes that are left of those that waited.
    notes: Option<usize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Opened,
    Stopping,
    Drained,
    Notified,
    Data,
    Eof,
    Over,
}

/// What a driver does next for a connection to which anything has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send what waits, as far as the socket takes it.
    Flush,
    /// Shut the socket's write side, then call [`Connection::handle_fin_sent`].
    Fin,
    /// The connection waits for nothing but the peer's FIN: it no longer counts as open.
    Linger,
    /// No thread may use the socket any more: then call [`Connection::handle_detached`].
    Detach,
    /// The end is decided: close the socket, with a reset if `RESET` is set.
    Close,
    /// Nothing, until something else happens.
    Settled,
}

/// How far the steps after one event have come.
#[derive(Default)]
pub(crate) struct Steps {
    /// Whether the callback before them was `stopping`.
    stopping: bool,
    flushed: bool,
}

impl Steps {
    /// The steps after a callback; `stopping` says whether it was `stopping`.
    pub(crate) fn after(stopping: bool) -> Steps {
        Steps { stopping, ..Steps::default() }
    }
}

impl Connection {
    /// Whether a callback is due that may run now.
    pub(crate) fn has_due(&self) -> bool {
        let flags = self.flags;
        if flags.any(Flags::UNCALLABLE) {
            return false;
        }
        if flags.none(Flags::OPENED) {
            return flags.any(Flags::OPENED_DUE);
        }
        flags.any(Flags::STOPPING_DUE | Flags::DRAINED_DUE | Flags::NOTES_DUE)
            || self.is_data_due()
            || self.is_eof_due()
    }

    fn is_data_due(&self) -> bool {
        self.flags.any(Flags::DATA_DUE) && self.flags.none(Flags::PAUSED | Flags::HELD)
    }

    /// `eof` waits for data that is to be shown first, and for data that the protocol left while
    /// its output was congested.
    fn is_eof_due(&self) -> bool {
        let first = Flags::PAUSED | Flags::HELD | Flags::DATA_DUE | Flags::LEFT;
        self.flags.any(Flags::EOF_DUE) && self.flags.none(first)
    }

    /// The next callback that is due in this round.
    pub(crate) fn poll_due(&mut self, round: &mut Round) -> Option<Due> {
        loop {
            let flags = self.flags;
            if flags.any(Flags::UNCALLABLE) {
                return None;
            }
            // `opened` comes once and first, also for a protocol that takes over.
            if round.stage != Stage::Opened && flags.none(Flags::OPENED) {
                return None;
            }
            match round.stage {
                Stage::Opened => {
                    round.stage = Stage::Stopping;
                    if flags.any(Flags::OPENED_DUE) && flags.none(Flags::OPENED) {
                        self.flags.clear(Flags::OPENED_DUE);
                        self.flags.set(Flags::OPENED);
                        return Some(Due::Opened);
                    }
                }
                Stage::Stopping => {
                    round.stage = Stage::Drained;
                    if flags.any(Flags::STOPPING_DUE) {
                        self.flags.clear(Flags::STOPPING_DUE);
                        return Some(Due::Stopping);
                    }
                }
                Stage::Drained => {
                    round.stage = Stage::Notified;
                    if flags.any(Flags::DRAINED_DUE) && self.poll_drained() {
                        return Some(Due::Drained);
                    }
                }
                Stage::Notified => match self.poll_note(round) {
                    Some(note) => return Some(Due::Notified(note)),
                    None => round.stage = Stage::Data,
                },
                Stage::Data => {
                    round.stage = Stage::Eof;
                    if self.is_data_due() {
                        self.flags.clear(Flags::DATA_DUE);
                        return Some(Due::Data);
                    }
                }
                Stage::Eof => {
                    round.stage = Stage::Over;
                    if self.is_eof_due() {
                        self.flags.clear(Flags::EOF_DUE);
                        self.flags.set(Flags::EOF_DONE);
                        return Some(Due::Eof);
                    }
                }
                Stage::Over => return None,
            }
        }
    }

    /// The next note of this round; those that came later wait for the next one.
    fn poll_note(&mut self, round: &mut Round) -> Option<Note> {
        if self.flags.none(Flags::NOTES_DUE) {
            return None;
        }
        let queues = self.get_queues()?;
        let left = round.notes.get_or_insert(queues.notes.len());
        *left = left.checked_sub(1)?;
        let (note, counts) = queues.notes.pop_front()?;
        queues.notes_counted -= usize::from(counts);
        if queues.notes.is_empty() {
            self.flags.clear(Flags::NOTES_DUE);
        }
        Some(note)
    }

    /// The next step after anything has happened to the connection: requests of its callbacks are
    /// applied first, then follow output, FIN and the end.
    pub(crate) fn poll_step(&mut self, steps: &mut Steps, pool: &mut ChunkPool, tick: u64) -> Step {
        loop {
            self.handle_wishes(pool, tick, steps.stopping);
            self.poll_broken_end();
            if self.poll_fin(pool, tick) {
                // The close of the socket says the same when the peer's FIN is there already.
                if self.flags.any(Flags::CLOSING) && self.flags.any(Flags::PEER_FIN) {
                    self.handle_fin_sent(tick);
                } else {
                    return Step::Fin;
                }
            } else if self.has_output() && !steps.flushed {
                // A filter's last words stand between the output and the FIN.
                steps.flushed = true;
                return Step::Flush;
            } else if !self.poll_finished() {
                break;
            }
        }
        if self.is_detaching() {
            return Step::Detach;
        }
        if self.is_lingering() && self.flags.none(Flags::LINGERING) {
            self.flags.set(Flags::LINGERING);
            return Step::Linger;
        }
        if self.flags.any(Flags::ENDED) && self.flags.none(Flags::COUNTED_OUT) {
            self.flags.set(Flags::COUNTED_OUT);
            return Step::Close;
        }
        Step::Settled
    }
}
