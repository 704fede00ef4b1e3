//! The one reading of the real clock. No run depends on it: virtual time only has to begin
//! somewhere, and a reduction has to end.

use std::time::Instant;

pub(super) fn real_now() -> Instant {
    Instant::now()
}
