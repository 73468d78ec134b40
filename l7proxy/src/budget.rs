//! How many records may go to the agent: a rate, with a second's worth at once.
//!
//! Half of that second is kept for records that say more than that all was well, so that a flood of good requests does not
//! hide the one that was denied.

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND_NS: u64 = 1_000_000_000;

/// How much a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weight {
    /// That a request passed and was answered.
    Common,
    /// That one was denied, would have been, or failed.
    Telling,
}

/// What is left of the rate. One number: the moment up to which everything has been given away.
#[derive(Debug)]
pub struct Budget {
    interval_ns: u64,
    given_until_ns: AtomicU64,
}

impl Budget {
    /// So many in a second; none is as one.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { interval_ns: SECOND_NS / u64::from(per_second.max(1)), given_until_ns: AtomicU64::new(0) }
    }

    /// Whether another one may go, so long after the begin. If so, it has gone.
    pub fn take(&self, now_ns: u64, weight: Weight) -> bool {
        let ahead = match weight {
            Weight::Common => (SECOND_NS / 2).max(self.interval_ns),
            Weight::Telling => SECOND_NS,
        };
        let limit = now_ns.saturating_add(ahead);
        let give = |until: u64| {
            let until = until.max(now_ns).saturating_add(self.interval_ns);
            (until <= limit).then_some(until)
        };
        self.given_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND_NS: u64 = 1_000_000;

    /// How many of `count` go at one moment.
    fn go(budget: &Budget, now_ns: u64, weight: Weight, count: usize) -> usize {
        (0..count).filter(|_| budget.take(now_ns, weight)).count()
    }

    #[test]
    fn a_flood_of_common_records_leaves_room_for_telling_ones() {
        let budget = Budget::new(1_000);
        assert_eq!(go(&budget, 0, Weight::Common, 10_000), 500);
        assert_eq!(go(&budget, 0, Weight::Telling, 10_000), 500);
        assert_eq!(go(&budget, 0, Weight::Telling, 1), 0);
        // A tenth of a second gives a tenth of the rate, which telling ones get first.
        let now = 100 * MILLISECOND_NS;
        assert_eq!(go(&budget, now, Weight::Common, 10_000), 0);
        assert_eq!(go(&budget, now, Weight::Telling, 10_000), 100);
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept() {
        for weight in [Weight::Common, Weight::Telling] {
            let budget = Budget::new(1_000);
            let gone: usize = (0..10_000).map(|ms| go(&budget, ms * MILLISECOND_NS, weight, 5)).sum();
            assert!((10_000..=11_000).contains(&gone), "{weight:?}: {gone}");
        }
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let budget = Budget::new(10);
        let hour = 3_600 * SECOND_NS;
        assert_eq!(go(&budget, hour, Weight::Telling, 100), 10);
        assert_eq!(go(&budget, hour + SECOND_NS, Weight::Telling, 100), 10);
    }

    #[test]
    fn small_and_large_rates() {
        for rate in [0, 1] {
            let slow = Budget::new(rate);
            assert_eq!(go(&slow, 0, Weight::Common, 3), 1, "{rate}");
            assert_eq!(go(&slow, SECOND_NS, Weight::Common, 3), 1, "{rate}");
        }
        let fast = Budget::new(u32::MAX);
        assert_eq!(go(&fast, 0, Weight::Common, 100_000), 100_000);
    }
}
