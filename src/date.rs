//! The `date` header of HTTP, formatted once a second and not once an answer.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

use crate::clock::{Clock, nanos};

/// The bytes before the date in [`DateLine::line`].
const OK: &[u8; 15] = b"HTTP/1.1 200 OK";
/// The length of the line with the date: a line break, the header, a line break.
pub(crate) const DATE_LINE: usize = 2 + 6 + 29 + 2;
/// The same with the status line of most answers before it.
pub(crate) const OK_LINE: usize = OK.len() + DATE_LINE;

const SECOND: u64 = 1_000_000_000;
/// The last second of the year 9999: the format has four digits for it.
const LAST_SECOND: u64 = 253_402_300_799;

/// The header line of the present second, with the line breaks before and after it, preceded by the
/// status line of most answers.
pub(crate) struct DateLine {
    text: [u8; OK_LINE],
    /// The time at which the wall clock is asked again.
    until: u64,
}

impl Default for DateLine {
    fn default() -> DateLine {
        DateLine { text: *b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n", until: 0 }
    }
}

impl DateLine {
    /// The lines of the present second. The wall clock is read once a second: `now` may be a
    /// millisecond behind it, and a jump of it shows at the next second.
    #[inline(always)]
    pub(crate) fn line(&mut self, now: u64, clock: &Clock) -> &[u8; OK_LINE] {
        if now >= self.until {
            self.renew(now, clock.wall());
        }
        &self.text
    }

    #[cold]
    fn renew(&mut self, now: u64, wall: SystemTime) {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST_SECOND);
        let left = SECOND - nanos(since) % SECOND;
        self.until = now.saturating_add(left);
        let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
        // Its 29 bytes fit: the year was bounded above.
        let mut place = &mut self.text[OK.len() + 8..OK_LINE - 2];
        let written = write!(place, "{date}");
        debug_assert!(written.is_ok() && place.is_empty(), "a date has 29 bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    fn line_at(seconds: u64) -> String {
        let mut date = DateLine::default();
        date.renew(0, UNIX_EPOCH + Duration::from_secs(seconds));
        String::from_utf8(date.text[OK.len()..].to_vec()).unwrap()
    }

    #[test]
    fn a_date_is_written_as_rfc_9110_wants_it() {
        assert_eq!(line_at(784_111_777), "\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert_eq!(line_at(0), "\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    }

    #[test]
    fn a_clock_beyond_the_year_9999_or_before_1970_is_held_at_the_end() {
        assert_eq!(line_at(LAST_SECOND + 5), "\r\ndate: Fri, 31 Dec 9999 23:59:59 GMT\r\n");
        let mut date = DateLine::default();
        date.renew(0, UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(date.text, DateLine::default().text);
    }

    #[test]
    fn the_wall_clock_is_asked_again_when_its_second_is_over() {
        let mut date = DateLine::default();
        date.renew(7_000_000, UNIX_EPOCH + Duration::from_millis(5_400));
        assert_eq!(date.until, 607_000_000);
    }

    #[test]
    fn the_line_is_that_of_the_second_in_which_it_is_asked_for() {
        let now = Arc::new(AtomicU64::new(0));
        let began = UNIX_EPOCH + Duration::from_millis(1_400);
        let clock = Clock::virtual_at(Arc::clone(&now), Instant::now(), began);
        let mut date = DateLine::default();
        let mut second = |at: u64| {
            now.store(at, Ordering::Relaxed);
            let line = String::from_utf8(date.line(at, &clock).to_vec()).unwrap();
            line.split(':').nth(3).unwrap()[..2].parse::<u32>().unwrap()
        };
        let seconds = [0, 599_999_999, 600_000_000, 1_599_999_999, 1_600_000_000].map(&mut second);
        assert_eq!(seconds, [1, 1, 2, 2, 3]);
    }
}
