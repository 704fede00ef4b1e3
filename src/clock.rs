//! Time, as a driver provides it: read once at each end of a turn, exactly where a callback asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The tick lags by less than this: deadlines counted from a tick are rounded up by it.
pub(crate) const TICK: u64 = 1_000_000;

/// The readings of the system's clocks, passed in by the drivers that have them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readings {
    pub(crate) monotonic: fn() -> Instant,
    pub(crate) wall: fn() -> SystemTime,
}

/// A driver's clock. Times are nanoseconds since the driver's start.
///
/// The *tick* is the time of the last reading, rounded down to a millisecond. It is recomputed only
/// when a reading lies beyond it, because a subtraction and a division at every turn would cost
/// more than all the comparisons together. It lags by less than a millisecond and so never makes a
/// deadline early.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    start: Instant,
    next_tick: Instant,
    tick: u64,
    /// Whether a loop updates the tick.
    kept: bool,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System(Readings),
    Virtual { now: Arc<AtomicU64>, wall_start: SystemTime },
}

impl Source {
    fn wall(&self) -> SystemTime {
        match self {
            Source::System(readings) => (readings.wall)(),
            Source::Virtual { now, wall_start } => {
                *wall_start + Duration::from_nanos(now.load(Ordering::Relaxed))
            }
        }
    }
}

/// The wall clock of a driver: the system's, or the virtual one of the simulator. Clones show the
/// same time. A filter gets it with [`Filter::set_clock`](crate::Filter::set_clock).
#[derive(Clone, Debug)]
pub struct WallClock(Source);

impl WallClock {
    /// The date and time right now. It may jump.
    pub fn now(&self) -> SystemTime {
        self.0.wall()
    }

    /// Whether it is the simulator's.
    pub fn is_virtual(&self) -> bool {
        matches!(self.0, Source::Virtual { .. })
    }
}

impl Clock {
    pub(crate) fn system(readings: Readings) -> Clock {
        let start = (readings.monotonic)();
        Clock {
            start,
            next_tick: start + Duration::from_millis(1),
            tick: 0,
            kept: true,
            source: Source::System(readings),
        }
    }

    /// A clock that shows `now`, which its owner moves; its wall clock starts at `wall_start`.
    pub(crate) fn virtual_at(now: Arc<AtomicU64>, start: Instant, wall_start: SystemTime) -> Clock {
        Clock {
            start,
            next_tick: start + Duration::from_millis(1),
            tick: 0,
            kept: true,
            source: Source::Virtual { now, wall_start },
        }
    }

    /// The same clock for a driver without turns: no loop updates the tick.
    pub(crate) fn unkept(self) -> Clock {
        Clock { kept: false, ..self }
    }

    /// Updates the tick: the time is `now`.
    #[inline(always)]
    pub(crate) fn update(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.move_tick(now);
        }
    }

    #[inline(never)]
    fn move_tick(&mut self, now: Instant) {
        let since = nanos(now.saturating_duration_since(self.start));
        self.tick = since - since % TICK;
        self.next_tick = self.start + Duration::from_nanos(self.tick + TICK);
    }

    /// The last reading, rounded down to a millisecond.
    #[inline]
    pub(crate) fn tick(&self) -> u64 {
        self.tick
    }

    /// The time to a millisecond: the tick, where a loop updates it.
    #[inline(always)]
    pub(crate) fn recent(&self) -> u64 {
        if self.kept { self.tick } else { self.exact() }
    }

    /// The time right now.
    pub(crate) fn exact(&self) -> u64 {
        match &self.source {
            Source::System(readings) => {
                nanos((readings.monotonic)().saturating_duration_since(self.start))
            }
            Source::Virtual { now, .. } => now.load(Ordering::Relaxed),
        }
    }

    /// The time right now, as the standard library's type.
    pub(crate) fn instant(&self) -> Instant {
        match &self.source {
            Source::System(readings) => (readings.monotonic)(),
            Source::Virtual { now, .. } => {
                self.start + Duration::from_nanos(now.load(Ordering::Relaxed))
            }
        }
    }

    /// The standard library's form of a time of this clock, if it can hold it.
    pub(crate) fn at(&self, time: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_nanos(time))
    }

    pub(crate) fn wall(&self) -> SystemTime {
        self.source.wall()
    }

    /// The wall clock for others to keep.
    pub(crate) fn wall_clock(&self) -> WallClock {
        WallClock(self.source.clone())
    }

    /// Sets a virtual wall clock: it shows `time` now. A system's clock stays as it is.
    pub(crate) fn set_wall(&mut self, time: SystemTime) {
        if let Source::Virtual { now, wall_start } = &mut self.source {
            let since = Duration::from_nanos(now.load(Ordering::Relaxed));
            *wall_start = time.checked_sub(since).unwrap_or(time);
        }
    }
}

/// A duration in nanoseconds; one too long to count never ends.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virtual_clock() -> (Clock, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(0));
        (Clock::virtual_at(Arc::clone(&now), Instant::now(), SystemTime::UNIX_EPOCH), now)
    }

    #[test]
    fn the_tick_lags_by_less_than_a_millisecond_and_never_leads() {
        let (mut clock, now) = virtual_clock();
        for step in [1, 999_998, 1, 1, 5 * TICK, 300, TICK - 1] {
            now.store(now.load(Ordering::Relaxed) + step, Ordering::Relaxed);
            clock.update(clock.instant());
            assert!(clock.tick() <= clock.exact());
            assert!(clock.exact() - clock.tick() < TICK);
        }
    }

    #[test]
    fn c9_the_tick_does_not_go_back_with_a_clock_that_does() {
        let (mut clock, now) = virtual_clock();
        now.store(5 * TICK, Ordering::Relaxed);
        clock.update(clock.instant());
        now.store(TICK, Ordering::Relaxed);
        clock.update(clock.instant());
        assert_eq!(clock.tick(), 5 * TICK);
    }

    #[test]
    fn a_virtual_wall_clock_is_set_and_goes_on_and_those_that_were_lent_keep_theirs() {
        let (mut clock, now) = virtual_clock();
        let lent = clock.wall_clock();
        now.store(5_000_000_000, Ordering::Relaxed);
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        clock.set_wall(date);
        let set = clock.wall_clock();
        assert_eq!((clock.wall(), set.now()), (date, date));
        now.store(7_000_000_000, Ordering::Relaxed);
        assert_eq!(set.now(), date + Duration::from_secs(2));
        assert_eq!(lent.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        assert!(set.is_virtual());
    }

    #[test]
    fn c6_the_longest_duration_never_ends() {
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert_eq!(nanos(Duration::from_secs(u64::MAX / 10)), u64::MAX);
        assert_eq!(nanos(Duration::ZERO), 0);
    }
}
