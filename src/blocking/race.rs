//! The state of a connect with several addresses: what has been tried, and what came of it.

use std::collections::VecDeque;
use std::io;

use super::system::Stream;
use crate::address::{ATTEMPT_DELAY, Targets};
use crate::clock::nanos;
use crate::endpoint::Endpoint;
use crate::options::SocketOptions;
use crate::reason::AddressErrors;

/// Attempts of one connect that may be under way at a time.
const ATTEMPTS_MAX: usize = 3;

/// What a connect is asked for.
pub(super) struct Start {
    pub(super) targets: Targets,
    pub(super) options: SocketOptions,
}

/// A connect that has not chosen its socket.
pub(super) struct Race {
    pub(super) options: SocketOptions,
    /// Addresses that have not been tried.
    waiting: VecDeque<Endpoint>,
    /// Attempts that have not answered.
    running: Vec<Endpoint>,
    failed: AddressErrors,
    /// Answers that the connection's own thread has not seen.
    answers: Vec<(Endpoint, io::Result<Stream>)>,
    /// Whether the addresses are still being looked up.
    looking_up: bool,
    /// When the next address is tried.
    next: u64,
}

impl Race {
    pub(super) fn new(options: SocketOptions, waiting: VecDeque<Endpoint>) -> Race {
        let looking_up = waiting.is_empty();
        Race {
            options,
            waiting,
            running: Vec::new(),
            failed: AddressErrors::default(),
            answers: Vec::new(),
            looking_up,
            next: 0,
        }
    }

    pub(super) fn answer(&mut self, addr: Endpoint, result: io::Result<Stream>) {
        self.answers.push((addr, result));
    }

    /// Takes in the answers. Returns the first socket that is connected.
    pub(super) fn judge(&mut self) -> Option<(Endpoint, Stream)> {
        for (addr, result) in self.answers.drain(..) {
            self.running.retain(|running| *running != addr);
            match result {
                Ok(stream) => return Some((addr, stream)),
                Err(error) => {
                    log::debug!(target: "lariat::connect", "{addr}: {error}");
                    self.failed.push(addr, error);
                    // The next address does not wait for its time.
                    self.next = 0;
                }
            }
        }
        None
    }

    /// Whether an attempt has not answered.
    pub(super) fn is_under_way(&self) -> bool {
        !self.running.is_empty()
    }

    pub(super) fn is_lost(&self) -> bool {
        !self.looking_up && self.waiting.is_empty() && self.running.is_empty()
    }

    /// The address to try at `now`.
    pub(super) fn take_next(&mut self, now: u64) -> Option<Endpoint> {
        if self.running.len() >= ATTEMPTS_MAX || now < self.next {
            return None;
        }
        let to = self.waiting.pop_front()?;
        self.running.push(to);
        self.next = now.saturating_add(nanos(ATTEMPT_DELAY));
        Some(to)
    }

    /// When there is something to do without an answer.
    pub(super) fn next(&self) -> u64 {
        let tries = !self.waiting.is_empty() && self.running.len() < ATTEMPTS_MAX;
        if tries { self.next } else { u64::MAX }
    }

    /// Why a connect failed that was still waiting for answers; None while it had no address.
    pub(super) fn into_errors(self) -> Option<AddressErrors> {
        if self.looking_up {
            return None;
        }
        let mut failed = self.failed;
        failed.push_late(self.running, self.waiting);
        Some(failed)
    }

    /// The lookup is over.
    pub(super) fn found(&mut self, found: VecDeque<Endpoint>) {
        self.looking_up = false;
        self.waiting = found;
    }

    /// Why every attempt has failed.
    pub(super) fn take_errors(&mut self) -> AddressErrors {
        std::mem::take(&mut self.failed)
    }
}

// A stream is one of the model's there.
#[cfg(all(test, not(lariat_model)))]
mod tests {
    use super::*;

    fn addr(port: u16) -> Endpoint {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn as_many_attempts_are_under_way_as_there_may_be_and_none_is_waited_for_beyond() {
        let mut race = Race::new(SocketOptions::default(), (1..=5).map(addr).collect());
        let delay = nanos(ATTEMPT_DELAY);
        for number in 0..3 {
            let now = u64::from(number) * delay;
            assert_eq!(race.next(), now);
            assert_eq!(race.take_next(now), Some(addr(number + 1)));
            assert_eq!(race.take_next(now), None, "each has its time alone");
        }
        let late = 10 * delay;
        assert_eq!((race.next(), race.take_next(late)), (u64::MAX, None));
        // One that is refused makes room, and the next does not wait.
        race.answer(addr(2), Err(io::ErrorKind::ConnectionRefused.into()));
        assert!(race.judge().is_none() && !race.is_lost());
        assert_eq!((race.next(), race.take_next(late)), (0, Some(addr(4))));
        assert_eq!((race.next(), race.take_next(late)), (u64::MAX, None));
    }

    #[test]
    fn a_race_is_lost_when_all_have_failed_and_not_while_it_looks_up() {
        let mut race = Race::new(SocketOptions::default(), VecDeque::new());
        assert!(!race.is_lost() && race.next() == u64::MAX);
        race.found([addr(1)].into());
        assert!(!race.is_lost() && race.take_next(0) == Some(addr(1)) && !race.is_lost());
        race.answer(addr(1), Err(io::ErrorKind::TimedOut.into()));
        assert!(race.judge().is_none() && race.is_lost());
        // A lookup that has found nothing is over as well.
        let mut race = Race::new(SocketOptions::default(), VecDeque::new());
        race.found(VecDeque::new());
        assert!(race.is_lost() && race.into_errors().is_some());
    }
}
