//! The only place that reads clocks.

use std::time::{Instant, SystemTime};

use crate::event::Now;

/// The time now.
#[must_use]
pub(crate) fn now() -> Now {
    let (instant, wall) = now_and_wall();
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant, unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
}

/// The monotonic clock and the wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the edge at which clocks are read")]
pub(crate) fn now_and_wall() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}
