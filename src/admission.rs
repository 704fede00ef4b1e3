//! When a driver accepts: its places, and the pace after accepts that fail.
//!
//! Plain data that both accept paths use: the loop for each of its sockets, the blocking driver for
//! each of its accepting threads. Times are nanoseconds of the driver's clock.

mod clients;

use std::collections::VecDeque;
use std::io;

use crate::endpoint::Endpoint;
use crate::episode::{Episode, OVER};
use crate::id::ConnId;
use crate::limits::{DriverLimits, Overload};

use clients::Clients;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;
/// The pause after a failed accept: from the first to the second, doubling.
const PAUSE_FIRST: u64 = 10 * MILLISECOND;
const PAUSE_MAX: u64 = SECOND;
/// This many failures in a row, each of one connection, are the socket's.
const ROW_MAX: u32 = 64;

/// The meaning of a failed accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// No connection waits.
    Empty,
    /// It concerns one connection alone: the next may be fine.
    Next,
    /// No descriptor or no memory: the next would fail as well.
    Exhausted,
    /// The socket does not listen, or no longer: the next would fail as well.
    Broken,
}

impl AcceptError {
    /// accept(2): errors already pending on the new connection are handed over as errors of accept.
    /// Only a lack of resources, and a socket that cannot listen, concern the listener; no error
    /// ends the driver.
    pub(crate) fn of(error: &io::Error) -> AcceptError {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                AcceptError::Exhausted
            }
            Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                AcceptError::Broken
            }
            _ if error.kind() == io::ErrorKind::WouldBlock => AcceptError::Empty,
            _ => AcceptError::Next,
        }
    }
}

/// The length of the pause after a failure, where the last pause had the length `last`; 0 for none.
pub(crate) fn next_pause(last: u64) -> u64 {
    (last * 2).clamp(PAUSE_FIRST, PAUSE_MAX)
}

/// Whether one more connection may be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    /// All are taken: connections wait in the kernel's queue.
    Wait,
    /// All are taken: connections are accepted and turned away.
    Shed,
}

/// The consequence of a failed accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Accept again at once.
    Again,
    /// No connection waits.
    Empty,
    /// Accept again when [`Admission::next_try`] says so.
    Wait,
}

/// The accepts of one driver.
#[derive(Debug)]
pub(crate) struct Admission {
    places: u64,
    overload: Overload,
    clients: Clients,
    failures: Failures,
    /// Descriptors of this driver that have been released.
    released: u64,
    lacks: Episode,
    faults: Episode,
    unwatched: Episode,
}

/// The accepts of one socket.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Failures since the last success that concerned one connection each.
    row: u32,
    /// The length of the last pause; 0 when none is remembered.
    pause: u64,
    /// When an accept last made the socket pause.
    failed: u64,
    waits: Option<Waits>,
    /// [`Admission::released`] when an accept last lacked a resource.
    released: u64,
    /// The time of an accept that was counted as failing before it ends; if it fails, it counts
    /// once.
    expected: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Until then, or until a descriptor is released.
    ForRelease(u64),
    Until(u64),
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new(&DriverLimits::default())
    }
}

impl Admission {
    pub(crate) fn new(limits: &DriverLimits) -> Admission {
        Admission {
            places: limits.connections_max as u64,
            overload: limits.overload,
            clients: Clients::new(limits.connections_per_address),
            failures: Failures::default(),
            released: 0,
            lacks: Episode::new("accepts without a resource"),
            faults: Episode::new("accepts that fail"),
            unwatched: Episode::new("connections that cannot be watched"),
        }
    }

    /// Whether there is a place beside `open` connections.
    pub(crate) fn place(&self, open: u64) -> Place {
        match self.overload {
            _ if open < self.places => Place::Free,
            Overload::Pause => Place::Wait,
            Overload::Shed => Place::Shed,
        }
    }

    /// Whether one more accepted connection of this peer may be open.
    pub(crate) fn admit(&mut self, peer: Endpoint, now: u64) -> bool {
        self.clients.admit(peer, now)
    }

    /// The accepted connection `id` is open.
    pub(crate) fn enter(&mut self, id: ConnId, peer: Endpoint) {
        self.clients.enter(id, peer);
    }

    /// A connection is no longer open: it lingers or has ended. Nothing happens if it was not
    /// entered.
    pub(crate) fn leave(&mut self, id: ConnId) {
        self.clients.leave(id);
    }

    /// A descriptor of this driver has been released: an accept that lacked one is tried sooner.
    pub(crate) fn note_released(&mut self) {
        self.released += 1;
    }

    /// An accept has failed for lack of a resource. A later release may mend that; an earlier one
    /// has gone into the reserve.
    pub(crate) fn note_lack(&self, pace: &mut Pace) {
        pace.released = self.released;
    }

    /// An accept has succeeded. The failures are over only when none has happened for a while:
    /// while descriptors come and go, the pause keeps its length and the log stays quiet.
    pub(crate) fn note_accepted(&mut self, pace: &mut Pace, now: u64) {
        self.forget_expected(pace);
        pace.row = 0;
        pace.waits = None;
        if pace.pause > 0 && now.saturating_sub(pace.failed) >= OVER {
            pace.pause = 0;
        }
        let ended = [self.lacks.end(now), self.faults.end(now)];
        let failed: u64 = ended.into_iter().flatten().sum();
        if failed > 0 {
            log::info!(target: "lariat::accept", "accepting again after {failed} failed accepts");
        }
    }

    /// An accepted connection could not be watched, and is refused.
    pub(crate) fn note_unwatched(&mut self, peer: Endpoint, error: &io::Error, now: u64) {
        if let Some(earlier) = self.unwatched.note(now) {
            log::warn!(
                target: "lariat::accept", "cannot watch the connection of {peer}: {error}{earlier}",
            );
        }
    }

    /// An accepted connection is watched.
    pub(crate) fn note_watched(&mut self, now: u64) {
        if let Some(count) = self.unwatched.end(now) {
            log::info!(
                target: "lariat::accept", "connections are watched again; {count} were refused",
            );
        }
    }

    /// An accept has failed; if it lacked a resource, with the reserve too.
    pub(crate) fn note_failed(&mut self, pace: &mut Pace, error: &io::Error, now: u64) -> Answer {
        self.forget_expected(pace);
        pace.waits = None;
        match AcceptError::of(error) {
            AcceptError::Empty => {
                pace.row = 0;
                return Answer::Empty;
            }
            AcceptError::Next if pace.row < ROW_MAX - 1 => {
                pace.row += 1;
                log::debug!(target: "lariat::accept", "{error}");
                return Answer::Again;
            }
            AcceptError::Next => {
                if let Some(earlier) = self.faults.note(now) {
                    log::warn!(
                        target: "lariat::accept",
                        "{error} {ROW_MAX} times in a row; the listener pauses{earlier}",
                    );
                }
            }
            AcceptError::Broken => {
                if let Some(earlier) = self.faults.note(now) {
                    log::warn!(
                        target: "lariat::accept", "a listener cannot accept: {error}{earlier}",
                    );
                }
            }
            AcceptError::Exhausted => {
                if let Some(earlier) = self.lacks.note(now) {
                    log::warn!(
                        target: "lariat::accept",
                        "{error}; connections are turned away or wait for a resource{earlier}",
                    );
                }
            }
        }
        self.failures.note(now);
        pace.failed = now;
        pace.pause = next_pause(pace.pause);
        let until = now.saturating_add(pace.pause);
        pace.waits = Some(match AcceptError::of(error) {
            AcceptError::Exhausted => Waits::ForRelease(until),
            _ => Waits::Until(until),
        });
        Answer::Wait
    }

    /// Whether the socket may have to wait: saves a reading of the clock.
    pub(crate) fn may_wait(&self, pace: &Pace) -> bool {
        pace.waits.is_some() || self.failures.0.len() == FAILURES_MAX
    }

    /// When the socket may be tried; in the past when it need not wait.
    pub(crate) fn next_try(&self, pace: &Pace, now: u64) -> u64 {
        match pace.waits {
            None => self.failures.bound(now),
            Some(Waits::ForRelease(_)) if pace.released != self.released => self.failures.next(now),
            Some(Waits::ForRelease(until) | Waits::Until(until)) => {
                self.failures.next(now).max(until)
            }
        }
    }

    /// A thread begins an accept after a pause. It counts as one that fails until it succeeds:
    /// several threads may begin one at a time.
    pub(crate) fn expect_failure(&mut self, pace: &mut Pace, now: u64) {
        if pace.waits.is_some() {
            self.forget_expected(pace);
            self.failures.note(now);
            pace.expected = Some(now);
        }
    }

    fn forget_expected(&mut self, pace: &mut Pace) {
        if let Some(expected) = pace.expected.take() {
            self.failures.forget(expected);
        }
    }
}

/// Accepts that may fail in any second. At first a released descriptor ends a pause at once. After
/// a few failures the gap to the last one is kept, so that the remaining tries last for the whole
/// second while descriptors come and go.
const FAILURES_MAX: usize = 20;
const FEW: usize = 5;
const GAP: u64 = 60 * MILLISECOND;

/// When accepts of a driver have recently made it pause.
#[derive(Debug, Default)]
struct Failures(VecDeque<u64>);

impl Failures {
    fn note(&mut self, now: u64) {
        if self.0.len() == FAILURES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    fn forget(&mut self, noted: u64) {
        if let Some(at) = self.0.iter().position(|at| *at == noted) {
            self.0.remove(at);
        }
    }

    /// When the next one may fail at all.
    fn bound(&self, now: u64) -> u64 {
        match self.0.front() {
            Some(oldest) if self.recent(now) == FAILURES_MAX => oldest.saturating_add(SECOND),
            _ => 0,
        }
    }

    /// When the next one may fail after another.
    fn next(&self, now: u64) -> u64 {
        match self.0.back() {
            Some(last) if self.recent(now) >= FEW => self.bound(now).max(last.saturating_add(GAP)),
            _ => 0,
        }
    }

    fn recent(&self, now: u64) -> usize {
        self.0.iter().filter(|at| at.saturating_add(SECOND) > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    fn admission() -> Admission {
        Admission::new(&DriverLimits::default())
    }

    /// Tries `pace` at `now`, if it may be; whether it was tried.
    fn fails(admission: &mut Admission, pace: &mut Pace, errno: i32, now: u64) -> bool {
        let tried = admission.next_try(pace, now) <= now;
        if tried {
            admission.note_lack(pace);
            assert_eq!(admission.note_failed(pace, &error(errno), now), Answer::Wait);
        }
        tried
    }

    /// When `pace` is tried in `span`, to the millisecond, if all of it fails.
    fn tries(
        admission: &mut Admission,
        pace: &mut Pace,
        errno: i32,
        span: std::ops::Range<u64>,
    ) -> Vec<u64> {
        let times = span.map(|at| at * MILLISECOND);
        let tried = times.filter(|now| fails(admission, pace, errno, *now));
        tried.map(|at| at / MILLISECOND).collect()
    }

    #[test]
    fn a1_a2_a3_each_accept_error_is_of_its_kind() {
        let of = |errno| AcceptError::of(&error(errno));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(of(errno), AcceptError::Exhausted);
        }
        assert_eq!(of(libc::EAGAIN), AcceptError::Empty);
        for errno in [libc::EINVAL, libc::EBADF, libc::ENOTSOCK, libc::EOPNOTSUPP] {
            assert_eq!(of(errno), AcceptError::Broken);
        }
        let single = [
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
            libc::EPERM,
            libc::ENOSYS,
            libc::ETIMEDOUT,
        ];
        for errno in single {
            assert_eq!(of(errno), AcceptError::Next);
        }
    }

    #[test]
    fn a_place_is_free_below_the_maximum_and_above_it_overload_decides() {
        let mut limits = DriverLimits { connections_max: 2, ..DriverLimits::default() };
        for (overload, above) in [(Overload::Pause, Place::Wait), (Overload::Shed, Place::Shed)] {
            limits.overload = overload;
            let admission = Admission::new(&limits);
            let places = [1, 2, 3].map(|open| admission.place(open));
            assert_eq!(places, [Place::Free, above, above]);
        }
    }

    #[test]
    fn a1_a_lack_pauses_from_10_ms_doubling_to_1_s() {
        for errno in [libc::EMFILE, libc::EINVAL] {
            let (mut admission, mut pace) = (admission(), Pace::default());
            let tried = tries(&mut admission, &mut pace, errno, 0..4300);
            assert_eq!(tried, [0, 10, 30, 70, 150, 310, 630, 1270, 2270, 3270, 4270]);
        }
    }

    #[test]
    fn a1_a_pause_and_the_gap_between_tries_are_exact_and_end_in_the_nanosecond() {
        let (mut admission, mut pace) = (admission(), Pace::default());
        assert!(!admission.may_wait(&pace), "nothing has failed");
        for round in 0..10u64 {
            let now = round * 10 * SECOND;
            assert!(fails(&mut admission, &mut pace, libc::EINVAL, now));
            assert!(admission.may_wait(&pace));
            let paused = (PAUSE_FIRST << round).min(SECOND);
            assert_eq!(admission.next_try(&pace, now), now + paused);
        }
        let mut admission = Admission::new(&DriverLimits::default());
        let (first, gone) = (7 * SECOND, Pace::default());
        for number in 0..FAILURES_MAX as u64 {
            assert!(!admission.may_wait(&gone), "{number} have failed");
            assert_eq!(admission.next_try(&gone, first), 0, "{number} have failed");
            admission.note_failed(&mut Pace::default(), &error(libc::EINVAL), first + number);
        }
        // Another socket waits only where as many have failed as may.
        assert!(admission.may_wait(&gone));
        assert_eq!(admission.next_try(&gone, first + SECOND - 1), first + SECOND);
        assert_eq!(admission.next_try(&gone, first + SECOND), 0);
        // One that was released keeps the gap to the last that failed.
        let mut admission = Admission::new(&DriverLimits::default());
        let mut pace = Pace::default();
        for number in 0..FEW as u64 {
            admission.note_failed(&mut pace, &error(libc::EMFILE), first + number);
            admission.note_released();
            let gap = if number + 1 < FEW as u64 { 0 } else { first + number + GAP };
            assert_eq!(admission.next_try(&pace, first + number), gap, "{number} have failed");
        }
    }

    #[test]
    fn a1_a_pause_is_remembered_until_nothing_has_failed_for_a_while() {
        for (later, next) in [(OVER - 1, 2 * PAUSE_FIRST), (OVER, PAUSE_FIRST)] {
            let (mut admission, mut pace) = (admission(), Pace::default());
            let failed = 3 * SECOND;
            assert!(fails(&mut admission, &mut pace, libc::EINVAL, failed));
            admission.note_accepted(&mut pace, failed + later);
            assert!(fails(&mut admission, &mut pace, libc::EINVAL, failed + later));
            assert_eq!(admission.next_try(&pace, failed + later), failed + later + next);
        }
    }

    #[test]
    fn a1_a_released_descriptor_ends_the_pause_of_a_lack_and_of_nothing_else() {
        for (errno, ends) in [(libc::ENFILE, true), (libc::EINVAL, false)] {
            let (mut admission, mut pace) = (admission(), Pace::default());
            tries(&mut admission, &mut pace, errno, 0..2000);
            assert!(admission.next_try(&pace, 2000 * MILLISECOND) > 2000 * MILLISECOND);
            admission.note_released();
            assert_eq!(admission.next_try(&pace, 2000 * MILLISECOND) == 0, ends);
        }
        // One that was released before the lack was seen has gone into the reserve.
        let (mut admission, mut pace) = (admission(), Pace::default());
        admission.note_released();
        assert!(fails(&mut admission, &mut pace, libc::EMFILE, 0));
        assert_eq!(admission.next_try(&pace, 0), PAUSE_FIRST);
    }

    #[test]
    fn a1_at_most_20_accepts_fail_in_any_second_also_over_many_sockets() {
        let mut admission = admission();
        let mut paces: Vec<Pace> = (0..50).map(|_| Pace::default()).collect();
        let mut failed = Vec::new();
        for now in (0..5 * SECOND).step_by(MILLISECOND as usize) {
            // A descriptor comes and goes, and each time somewhere else.
            admission.note_released();
            let tried = paces.iter_mut().find(|pace| admission.next_try(pace, now) <= now);
            if let Some(pace) = tried {
                assert!(fails(&mut admission, pace, libc::EMFILE, now));
                failed.push(now);
            }
        }
        for (at, first) in failed.iter().enumerate() {
            let second = failed[at..].iter().take_while(|at| **at < first + SECOND).count();
            assert!(second <= FAILURES_MAX, "{second} within a second");
        }
        // Nor are there far fewer: what is released is used soon.
        assert!(failed.len() >= 80, "{}", failed.len());
    }

    #[test]
    fn a1_an_accept_that_was_expected_to_fail_counts_once_if_it_does_and_else_not_at_all() {
        let (mut admission, mut pace) = (admission(), Pace::default());
        assert!(fails(&mut admission, &mut pace, libc::EMFILE, 0));
        for round in 1..100 {
            let now = round * 10 * SECOND;
            admission.expect_failure(&mut pace, now);
            admission.expect_failure(&mut pace, now + 1);
            assert_eq!(admission.failures.recent(now + 1), 1);
            if round % 2 == 0 {
                admission.note_accepted(&mut pace, now + 2);
            } else {
                admission.note_failed(&mut pace, &error(libc::EMFILE), now + 2);
            }
            let failed = usize::from(round % 2 == 1);
            assert_eq!(admission.failures.recent(now + 2), failed);
            // Without a pause nothing is expected.
            if failed == 0 {
                admission.expect_failure(&mut pace, now + 3);
                assert_eq!(admission.failures.recent(now + 3), 0);
                assert!(fails(&mut admission, &mut pace, libc::EMFILE, now + 4));
            }
        }
    }

    #[test]
    fn a2_a9_63_failures_in_a_row_are_the_connections_and_the_64th_is_the_sockets() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::ECONNABORTED] {
            let (mut admission, mut pace) = (admission(), Pace::default());
            for _ in 0..63 {
                let answer = admission.note_failed(&mut pace, &error(errno), 0);
                assert_eq!((answer, admission.next_try(&pace, 0)), (Answer::Again, 0));
            }
            // Then one at a time, ever more seldom.
            let tried = tries(&mut admission, &mut pace, errno, 0..2300);
            assert_eq!(tried, [0, 10, 30, 70, 150, 310, 630, 1270, 2270]);
        }
    }

    #[test]
    fn a9_a_success_or_an_empty_queue_ends_the_row() {
        let (mut admission, mut pace) = (admission(), Pace::default());
        for round in 0..10 {
            for _ in 0..63 {
                let answer = admission.note_failed(&mut pace, &error(libc::EPROTO), 0);
                assert_eq!(answer, Answer::Again);
            }
            if round % 2 == 0 {
                admission.note_accepted(&mut pace, 0);
            } else {
                let empty = admission.note_failed(&mut pace, &error(libc::EAGAIN), 0);
                assert_eq!((empty, admission.next_try(&pace, 0)), (Answer::Empty, 0));
            }
        }
    }

    #[test]
    fn a_pause_keeps_its_length_until_none_has_failed_for_2_s() {
        for (calm, pause) in [(OVER - 1, 2 * PAUSE_FIRST), (OVER, PAUSE_FIRST)] {
            let (mut admission, mut pace) = (admission(), Pace::default());
            assert!(fails(&mut admission, &mut pace, libc::ENOMEM, 0));
            admission.note_accepted(&mut pace, PAUSE_FIRST);
            assert_eq!(admission.next_try(&pace, PAUSE_FIRST), 0);
            admission.note_accepted(&mut pace, calm);
            assert!(fails(&mut admission, &mut pace, libc::ENOMEM, calm));
            assert_eq!(admission.next_try(&pace, calm), calm + pause);
        }
    }
}
