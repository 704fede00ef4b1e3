//! Whether what is due has to wait until the socket was tried: what has happened comes first.

use super::{Connection, Flags};

impl Connection {
    /// Whether input may wait at the socket which nobody has looked at since `time`.
    pub(crate) fn has_input_since(&self, time: u64) -> bool {
        self.may_read() && self.active < time
    }

    /// Whether the deadline that has passed by `now` has to wait until the socket was tried. Those
    /// of a close are for all of it, however much still comes.
    pub(crate) fn is_untried(&self, now: u64) -> bool {
        let deadline = self.poll_deadline();
        if deadline > now {
            return false;
        }
        let input = self.flags.none(Flags::CLOSING) && self.has_input_since(deadline);
        input || (self.has_output() && self.progress() < deadline)
    }
}
