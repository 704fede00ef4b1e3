//! Receives that fail because the system lacks memory or descriptors: the socket pauses, as long as
//! a listener does whose accepts fail, and goes on.

use std::io;

use crate::admission::{AcceptError, next_pause};
use crate::episode::Episode;
use crate::id::ConnId;

/// A lack that is not over. Times are nanoseconds of the driver's clock.
#[derive(Debug)]
pub(super) struct Lack {
    /// The length of the last pause.
    pause: u64,
    /// When the pause ends; None behind it.
    until: Option<u64>,
    episode: Episode,
}

impl Default for Lack {
    fn default() -> Lack {
        Lack { pause: 0, until: None, episode: Episode::new("receives without a resource") }
    }
}

impl Lack {
    /// Whether a call has failed for a lack: the next one would fail as well.
    pub(super) fn is_told_by(error: &io::Error) -> bool {
        AcceptError::of(error) == AcceptError::Exhausted
    }

    /// A receive has failed. The pause ends when its time is over, and at `end`, if that is to
    /// come: before a socket ends for its silence, it looks once more.
    pub(super) fn note(&mut self, id: ConnId, error: &io::Error, now: u64, end: u64) {
        if let Some(earlier) = self.episode.note(now) {
            log::warn!(
                target: "lariat::datagram", "{id}: cannot receive: {error}; it pauses{earlier}",
            );
            self.pause = 0;
        }
        self.pause = next_pause(self.pause);
        let until = now.saturating_add(self.pause);
        self.until = Some(if end > now { until.min(end) } else { until });
    }

    pub(super) fn until(&self) -> Option<u64> {
        self.until
    }

    /// Time has passed.
    pub(super) fn resume(&mut self, now: u64) {
        self.until = self.until.filter(|until| *until > now);
    }

    /// A datagram has come. True when no receive has failed for a while: it is over.
    pub(super) fn end(&mut self, id: ConnId, now: u64) -> bool {
        self.until = None;
        let Some(count) = self.episode.end(now) else { return false };
        log::info!(
            target: "lariat::datagram", "{id}: receiving again after {count} failed receives",
        );
        true
    }
}
