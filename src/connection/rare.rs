//! State that few connections have at a time, and the pool of boxes it lies in.

use std::collections::VecDeque;

use super::ending::End;
use super::filtering::Filtered;
use super::jobs::Jobs;
use super::tapping::Tapping;
use super::timers::Armed;
use super::{Connection, Flags};
use crate::buffer::{ByteQueue, SendQueue};
use crate::id::ConnId;
use crate::metrics::Metrics;
use crate::note::Note;

/// State that few connections have at a time. Each large part is in a box of its own, so that a
/// connection with a timer does not pay for the queues of a busy one.
#[derive(Default)]
pub(crate) struct Rare {
    pub(super) queues: Option<Box<Queues>>,
    pub(super) timers: Armed,
    pub(super) filtered: Option<Box<Filtered>>,
    pub(super) tap: Option<Box<Tapping>>,
    pub(super) end: Option<Box<End>>,
    pub(super) jobs: Option<Box<Jobs>>,
    /// When the present phase (connecting, handshake, closing) began.
    pub(super) phase: u64,
    /// The unsent bytes that the metrics count.
    buffered: usize,
}

/// Bytes and notes that wait.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) unread: ByteQueue,
    pub(crate) queue: SendQueue,
    /// With whether it counts towards `notes_max`, as results of jobs do not.
    pub(super) notes: VecDeque<(Note, bool)>,
    /// How many of them count.
    pub(super) notes_counted: usize,
    /// Unsent bytes that input caused, at most what is unsent.
    pub(crate) caused: usize,
    /// The tick of the last progress in sending.
    pub(super) progress: u64,
    /// Connections whose queues hold this one.
    pub(crate) holding: Vec<ConnId>,
    /// Connections that this one's queue holds.
    pub(crate) holders: Vec<ConnId>,
}

/// What the gauges of a driver count of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) unsent: usize,
    pub(crate) paused: bool,
    pub(crate) held: bool,
    pub(crate) handshaking: bool,
}

impl Queues {
    fn is_vacant(&self) -> bool {
        self.unread.is_empty()
            && self.queue.is_empty()
            && self.notes.is_empty()
            && self.holding.is_empty()
            && self.holders.is_empty()
    }
}

impl Rare {
    fn is_vacant(&self) -> bool {
        self.queues.is_none()
            && self.timers.is_empty()
            && self.filtered.is_none()
            && self.tap.is_none()
            && self.end.is_none()
            && self.jobs.is_none()
            && self.buffered == 0
    }
}

/// Empty boxes, shared by the connections of a loop so that a short write costs no allocation.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is kept")]
pub(crate) struct RarePool {
    rares: Vec<Box<Rare>>,
    queues: Vec<Box<Queues>>,
}

impl RarePool {
    /// Boxes of each kind.
    const MAX: usize = 64;
}

impl Connection {
    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(Box::default)
    }

    pub(crate) fn queues(&self) -> Option<&Queues> {
        self.rare()?.queues.as_deref()
    }

    pub(super) fn get_queues(&mut self) -> Option<&mut Queues> {
        self.rare.as_mut()?.queues.as_deref_mut()
    }

    pub(super) fn queues_mut(&mut self) -> &mut Queues {
        self.rare_mut().queues.get_or_insert_with(Box::default)
    }

    /// The tick of the last progress in sending.
    pub(super) fn progress(&self) -> u64 {
        self.queues().map_or(0, |queues| queues.progress)
    }

    pub(super) fn filtered(&self) -> Option<&Filtered> {
        self.rare()?.filtered.as_deref()
    }

    pub(super) fn get_filtered(&mut self) -> Option<&mut Filtered> {
        self.rare.as_mut()?.filtered.as_deref_mut()
    }

    /// Takes an empty box from the pool, if this connection has none and is about to need it.
    pub(crate) fn borrow_rare(&mut self, pool: &mut RarePool) {
        if self.rare.is_none() {
            self.rare = pool.rares.pop();
        }
    }

    /// Takes empty queues from the pool, if this connection has none and is about to need them.
    pub(crate) fn borrow_queues(&mut self, pool: &mut RarePool) {
        self.borrow_rare(pool);
        let rare = self.rare_mut();
        if rare.queues.is_none() {
            rare.queues = pool.queues.pop();
        }
    }

    /// Gives back what is empty, whatever else the connection has.
    pub(crate) fn return_rare(&mut self, pool: &mut RarePool) {
        let Some(rare) = self.rare.as_mut() else { return };
        let unsent = self.flags.any(Flags::QUEUED);
        if let Some(queues) = rare.queues.take_if(|queues| !unsent && queues.is_vacant()) {
            if pool.queues.len() < RarePool::MAX {
                pool.queues.push(queues);
            }
        }
        // A job that has just begun has no deadline yet, but it runs in no turn of the loop.
        rare.jobs.take_if(|jobs| jobs.is_vacant());
        let busy = Flags::CLOSING | Flags::ENDED | Flags::CONNECTING | Flags::HANDSHAKING;
        if self.flags.none(busy) && rare.is_vacant() {
            if let Some(rare) = self.rare.take() {
                if pool.rares.len() < RarePool::MAX {
                    pool.rares.push(rare);
                }
            }
        }
    }

    /// What the gauges count of it; nothing, once its end has been carried out.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            unsent: self.unsent(),
            paused: self.flags.any(Flags::PAUSED),
            held: self.flags.any(Flags::HELD),
            handshaking: self.is_handshaking(),
        }
    }

    /// Whether the handshake of a filter goes on. Closing ends one that is not over.
    fn is_handshaking(&self) -> bool {
        self.flags.any(Flags::HANDSHAKING) && self.flags.none(Flags::CLOSING | Flags::ENDED)
    }

    /// Counts a handshake that is over; the flag says that it has begun. True when it has begun or
    /// ended since the last call.
    pub(crate) fn count_handshake(&mut self, metrics: &mut Metrics) -> bool {
        let now = self.is_handshaking();
        if now == self.flags.any(Flags::COUNTED_HANDSHAKE) {
            return false;
        }
        if now {
            self.flags.set(Flags::COUNTED_HANDSHAKE);
            return true;
        }
        self.flags.clear(Flags::COUNTED_HANDSHAKE);
        match self.flags.any(Flags::HANDSHAKING) {
            true => metrics.failed_handshakes += 1,
            false => metrics.handshakes += 1,
        }
        true
    }

    /// Brings the gauges of the metrics up to date. Returns the unsent bytes if they have changed.
    pub(crate) fn account(&mut self, metrics: &mut Metrics) -> Option<usize> {
        let now = self.gauges();
        self.count_flag(now.paused, Flags::COUNTED_PAUSED, &mut metrics.paused);
        self.count_flag(now.held, Flags::COUNTED_HELD, &mut metrics.held);
        if self.count_handshake(metrics) {
            match now.handshaking {
                true => metrics.handshaking += 1,
                false => metrics.handshaking -= 1,
            }
        }
        let before = self.rare().map_or(0, |rare| rare.buffered);
        if now.unsent == before {
            return None;
        }
        metrics.buffered = metrics.buffered - before as u64 + now.unsent as u64;
        self.rare_mut().buffered = now.unsent;
        Some(now.unsent)
    }

    /// Brings one gauge up to date; `counted` says whether this connection is in it.
    fn count_flag(&mut self, now: bool, counted: Flags, gauge: &mut u64) {
        if now == self.flags.any(counted) {
            return;
        }
        if now {
            *gauge += 1;
            self.flags.set(counted);
        } else {
            *gauge -= 1;
            self.flags.clear(counted);
        }
    }
}
