//! The state of a connection as one word, so that each question of the hot path is one test.

use std::ops::BitOr;

/// A set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(u64);

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);

    // The socket, as the driver reports it. Readiness is edge-triggered: it is remembered here
    // until a call finds nothing more.
    /// A read may find something.
    pub(crate) const READABLE: Flags = Flags(1);
    /// A write may be taken.
    pub(crate) const WRITABLE: Flags = Flags(1 << 1);
    /// The peer has hung up: a short read does not mean that nothing follows.
    pub(crate) const HUNG: Flags = Flags(1 << 2);
    /// The system reported an error; a call will return it.
    pub(crate) const FAULTY: Flags = Flags(1 << 3);

    // The life of the connection.
    /// The connect is under way.
    pub(crate) const CONNECTING: Flags = Flags(1 << 4);
    /// The filter is not open.
    pub(crate) const HANDSHAKING: Flags = Flags(1 << 5);
    /// `close` has taken effect: flushing, then lingering; input is discarded.
    pub(crate) const CLOSING: Flags = Flags(1 << 6);
    /// The end of the peer's bytes has been read.
    pub(crate) const PEER_FIN: Flags = Flags(1 << 7);
    /// A write failed: what already arrived is delivered, then the connection ends.
    pub(crate) const BROKEN: Flags = Flags(1 << 8);
    /// The end is decided, only `closed` is missing.
    pub(crate) const ENDED: Flags = Flags(1 << 9);

    // Why input waits.
    /// The protocol paused reading.
    pub(crate) const PAUSED: Flags = Flags(1 << 10);
    /// Flow control holds the connection.
    pub(crate) const HELD: Flags = Flags(1 << 11);

    // What is in the connection's rare part.
    /// Unsent output waits.
    pub(crate) const QUEUED: Flags = Flags(1 << 12);
    /// Unread input waits.
    pub(crate) const UNREAD: Flags = Flags(1 << 13);
    /// The protocol asked for more bytes before the next `data`.
    pub(crate) const NEEDY: Flags = Flags(1 << 14);
    /// A filter is present.
    pub(crate) const FILTERED: Flags = Flags(1 << 15);

    // Requests of a callback.
    pub(crate) const CLOSE_WANTED: Flags = Flags(1 << 16);
    pub(crate) const ABORT_WANTED: Flags = Flags(1 << 17);
    pub(crate) const FIN_WANTED: Flags = Flags(1 << 18);
    /// More output than `output_max` was written.
    pub(crate) const OVERFLOW: Flags = Flags(1 << 19);
    /// Unsent output went above the high mark and `drained` has not run since.
    pub(crate) const CONGESTED: Flags = Flags(1 << 20);
    /// The callback failed: the end is already stored.
    pub(crate) const FAILED: Flags = Flags(1 << 21);

    // Callbacks that are due.
    pub(crate) const OPENED_DUE: Flags = Flags(1 << 22);
    pub(crate) const DATA_DUE: Flags = Flags(1 << 23);
    pub(crate) const EOF_DUE: Flags = Flags(1 << 24);
    pub(crate) const DRAINED_DUE: Flags = Flags(1 << 25);
    pub(crate) const NOTES_DUE: Flags = Flags(1 << 26);
    pub(crate) const STOPPING_DUE: Flags = Flags(1 << 27);

    /// The system has reported the peer's FIN, though no read may have found it.
    pub(crate) const FIN_TOLD: Flags = Flags(1 << 45);
    /// The limits were changed: the deadlines may be others.
    pub(crate) const LIMITS_CHANGED: Flags = Flags(1 << 29);
    /// In a list of connections that have something to do.
    pub(crate) const LISTED: Flags = Flags(1 << 28);
    /// A tap sees the bytes that arrive and leave.
    pub(crate) const TAPPED: Flags = Flags(1 << 31);
    /// It moved much when it was last served: others come first.
    pub(crate) const BULK: Flags = Flags(1 << 30);

    // Everything below is off the hot path.
    /// `opened` has run.
    pub(crate) const OPENED: Flags = Flags(1 << 32);
    /// `eof` has run.
    pub(crate) const EOF_DONE: Flags = Flags(1 << 33);
    /// `closed` has run.
    pub(crate) const CLOSED: Flags = Flags(1 << 34);
    /// Our FIN is on its way.
    pub(crate) const FIN_SENT: Flags = Flags(1 << 35);
    /// The filter has ended its direction.
    pub(crate) const FILTER_FINISHED: Flags = Flags(1 << 36);
    /// The end is a reset, where the system allows.
    pub(crate) const RESET: Flags = Flags(1 << 37);
    /// A protocol took over from another one: what was queued then leaves past a new filter.
    pub(crate) const REPLACED: Flags = Flags(1 << 38);
    /// In the list of connections that others queued output for.
    pub(crate) const DIRTY: Flags = Flags(1 << 39);
    /// Counted among the lingering.
    pub(crate) const LINGERING: Flags = Flags(1 << 40);
    /// No longer counted as open or lingering.
    pub(crate) const COUNTED_OUT: Flags = Flags(1 << 42);
    /// The connect was asked for while the driver was stopping.
    pub(crate) const LATE: Flags = Flags(1 << 43);
    /// The metrics count it as paused, and as held.
    pub(crate) const COUNTED_PAUSED: Flags = Flags(1 << 46);
    pub(crate) const COUNTED_HELD: Flags = Flags(1 << 47);
    /// The metrics know of its handshake.
    pub(crate) const COUNTED_HANDSHAKE: Flags = Flags(1 << 48);
    /// The socket is to leave the driver: no callback but `closed` runs.
    pub(crate) const DETACHING: Flags = Flags(1 << 41);
    /// The stream is no socket: its close has no FIN of the peer to wait for.
    pub(crate) const NO_SOCKET: Flags = Flags(1 << 49);
    /// The driver has made the connection, by a connect.
    pub(crate) const DIALLED: Flags = Flags(1 << 51);
    /// Notes wait for the next protocol.
    pub(crate) const NOTES_DEFERRED: Flags = Flags(1 << 50);
    /// `data` left input while output was congested: it is shown again after `drained`.
    pub(crate) const LEFT: Flags = Flags(1 << 44);

    /// States in which no callback but `closed` runs.
    pub(crate) const UNCALLABLE: Flags = Flags(
        Self::CLOSING.0
            | Self::ENDED.0
            | Self::CONNECTING.0
            | Self::HANDSHAKING.0
            | Self::DETACHING.0,
    );

    /// Reading goes on when `READABLE` is the only one of these that is set.
    pub(crate) const READ_GATE: Flags = Flags(
        Self::READABLE.0
            | Self::CONNECTING.0
            | Self::PEER_FIN.0
            | Self::ENDED.0
            | Self::PAUSED.0
            | Self::HELD.0
            | Self::OPENED_DUE.0
            | Self::DATA_DUE.0
            | Self::EOF_DUE.0,
    );
    /// A connection enters the ready list to read when `READABLE` is the only one of these that is
    /// set.
    pub(crate) const LISTING_GATE: Flags =
        Flags(Self::READ_GATE.0 | Self::LISTED.0 | Self::BULK.0 | Self::HANDSHAKING.0);
    /// Without any of these, what was read is shown straight from the read buffer.
    pub(crate) const NOT_DIRECT: Flags = Flags(
        Self::UNREAD.0
            | Self::NEEDY.0
            | Self::FILTERED.0
            | Self::CLOSING.0
            | Self::BROKEN.0
            | Self::TAPPED.0
            | Self::HANDSHAKING.0,
    );
    /// After a callback: when `WRITABLE` is the only one of these that is set, only sending is
    /// left. With `READABLE`, more may follow, and the connection has to be listed again.
    pub(crate) const SETTLED_GATE: Flags = Flags(
        Self::WRITABLE.0
            | Self::READABLE.0
            | Self::TAPPED.0
            | Self::CLOSE_WANTED.0
            | Self::ABORT_WANTED.0
            | Self::FIN_WANTED.0
            | Self::OVERFLOW.0
            | Self::CONGESTED.0
            | Self::FAILED.0
            | Self::QUEUED.0
            | Self::PAUSED.0
            | Self::FILTERED.0
            | Self::LIMITS_CHANGED.0,
    );
    /// With any of these, a turn has more to do for the connection than to read.
    pub(crate) const ATTENTION: Flags = Flags(
        Self::FAULTY.0
            | Self::CONNECTING.0
            | Self::CLOSING.0
            | Self::BROKEN.0
            | Self::ENDED.0
            | Self::QUEUED.0
            | Self::OPENED_DUE.0
            | Self::DATA_DUE.0
            | Self::EOF_DUE.0
            | Self::DRAINED_DUE.0
            | Self::NOTES_DUE.0
            | Self::STOPPING_DUE.0,
    );
    /// When only `READABLE` and `WRITABLE` of these are set, the connection is open and nothing is
    /// due or unusual: input can be shown, output be sent, and the next read follow.
    pub(crate) const STRAIGHT_GATE: Flags =
        Flags(Self::READ_GATE.0 | Self::NOT_DIRECT.0 | Self::SETTLED_GATE.0 | Self::ATTENTION.0);
    /// Own writes are refused with any of these.
    pub(crate) const NO_WRITES: Flags = Flags(
        Self::CLOSE_WANTED.0
            | Self::ABORT_WANTED.0
            | Self::FIN_WANTED.0
            | Self::CLOSING.0
            | Self::ENDED.0
            | Self::OVERFLOW.0,
    );
    /// Due callbacks, which closing cancels.
    pub(crate) const DUE: Flags = Flags(
        Self::OPENED_DUE.0
            | Self::DATA_DUE.0
            | Self::EOF_DUE.0
            | Self::DRAINED_DUE.0
            | Self::NOTES_DUE.0
            | Self::STOPPING_DUE.0,
    );

    /// These flags if `set`, else none.
    #[inline(always)]
    pub(crate) fn when(self, set: bool) -> Flags {
        Flags(self.0 * u64::from(set))
    }

    #[inline(always)]
    pub(crate) fn any(self, of: Flags) -> bool {
        self.0 & of.0 != 0
    }

    #[inline(always)]
    pub(crate) fn none(self, of: Flags) -> bool {
        self.0 & of.0 == 0
    }

    /// Whether of the flags of `gate` exactly those of `open` are set.
    #[inline(always)]
    pub(crate) fn passes(self, gate: Flags, open: Flags) -> bool {
        self.0 & gate.0 == open.0
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, flags: Flags) {
        self.0 |= flags.0;
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self, flags: Flags) {
        self.0 &= !flags.0;
    }
}
