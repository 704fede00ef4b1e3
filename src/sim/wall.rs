//! The date in the simulator.

use std::time::{Duration, SystemTime};

use super::Sim;

/// 2026-01-01 00:00:00 UTC: a date that certificates made for tests are valid at.
pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

impl Sim {
    /// Sets the date: it is `time` now, and goes on with virtual time. A simulator begins at
    /// 2026-01-01 00:00:00 UTC, the same in each run.
    ///
    /// It is what [`Control::wall_clock`](crate::Control::wall_clock) shows, what certificates are
    /// judged by under TLS, and what is in the `date` of an HTTP answer. Sessions of TLS that have
    /// begun keep the date that they have.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// let mut sim = lariat::sim::Sim::new(1);
    /// let day = Duration::from_secs(24 * 3600);
    /// let date = sim.control().wall_clock() + 365 * day;
    /// sim.set_wall_clock(date);
    /// sim.run_for(day).unwrap();
    /// assert_eq!(sim.control().wall_clock(), date + day);
    /// ```
    pub fn set_wall_clock(&mut self, time: SystemTime) {
        self.inner.shared.clock.set_wall(time);
    }
}
