//! What the library's own protocols ask of a context, beyond what a user's may.

use super::context::refuse;
use super::{Context, Shared};
use crate::connection::Flags;
use crate::date::OK_LINE;

impl Context<'_> {
    /// Writes what `write` appends, without a copy of its own. `write` is also told the status line
    /// of 200 and a `date` header, to the line break behind it.
    #[inline]
    pub(crate) fn compose(&mut self, write: impl FnOnce(&mut Vec<u8>, &[u8; OK_LINE])) {
        let Shared { output, clock, date, .. } = &mut *self.shared;
        let line = date.line(clock.recent(), clock);
        let count = output.compose(self.shown, |cork| write(cork, line));
        let refused = self.conn.flags().any(Flags::NO_WRITES);
        if refused || !self.conn.check_marks(self.shared.output.len()) {
            self.shared.output.take_back(count);
            if refused {
                refuse(self.shared, self.conn, count);
            } else {
                self.conn.want_overflow();
                self.conn.lose_output(count);
            }
        }
    }

    /// Whether the callback has wished for an end of its connection.
    #[inline(always)]
    pub(crate) fn is_ending(&self) -> bool {
        self.conn.flags().any(Flags::CLOSE_WANTED | Flags::ABORT_WANTED | Flags::OVERFLOW)
    }

    /// Whether flow control keeps input away for now.
    pub(crate) fn is_held(&self) -> bool {
        self.conn.flags().any(Flags::HELD)
    }
}
