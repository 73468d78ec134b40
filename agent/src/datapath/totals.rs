//! What the kernel counted of all packets since this agent began: numbers that never fall.
//!
//! The kernel counts by endpoint, keeps counting while there is no agent, and forgets an endpoint with its id. Sums over
//! what it has at a moment would fall, and whoever computes rates would take that for a new beginning.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_ebpf_common::{CounterKey, Counters};
use sluice_ebpf_loader::LoaderError;
use sluice_ebpf_loader::counters::CountersReader;
use sluice_types::{Direction, DropReason, EndpointId};

/// What happened to packets, and in which direction; no reason: they were forwarded.
pub(crate) type Fate = (Option<DropReason>, Direction);

/// The kernel's counters, and what is no longer among them.
#[derive(Debug)]
pub(crate) struct Totals {
    counters: CountersReader,
    ledger: Mutex<Ledger>,
}

/// What has to be added to the kernel's numbers, and taken from them.
#[derive(Debug, Default)]
struct Ledger {
    forgotten: Sums,
    before: Sums,
}

type Sums = BTreeMap<Fate, Counters>;

impl Totals {
    /// Nothing has been counted so far.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn begin(counters: CountersReader) -> Result<Self, LoaderError> {
        let before = sums(&counters.dump()?);
        let ledger = Mutex::new(Ledger { forgotten: Sums::new(), before });
        Ok(Self { counters, ledger })
    }

    /// The sums over all endpoints.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn read(&self) -> Result<Sums, LoaderError> {
        // Held while the kernel is asked: what is forgotten meanwhile would be counted twice, or not at all.
        let ledger = self.lock();
        Ok(ledger.since_begin(sums(&self.counters.dump()?)))
    }

    /// Forgets the counters of an endpoint, before its id is given to another.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn forget(&self, endpoint: EndpointId) -> Result<(), LoaderError> {
        let mut ledger = self.lock();
        let mut all = self.counters.dump()?;
        all.retain(|(key, _)| key.endpoint == endpoint.as_u16());
        self.counters.forget(endpoint)?;
        add(&mut ledger.forgotten, &sums(&all));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn since_begin(&self, mut now: Sums) -> Sums {
        add(&mut now, &self.forgotten);
        for (fate, before) in &self.before {
            if let Some(sum) = now.get_mut(fate) {
                sum.packets = sum.packets.saturating_sub(before.packets);
                sum.bytes = sum.bytes.saturating_sub(before.bytes);
            }
        }
        now
    }
}

fn sums(rows: &[(CounterKey, Counters)]) -> Sums {
    let mut sums = Sums::new();
    for (key, counters) in rows {
        let is_egress = key.direction == Direction::Egress as u8;
        let direction = if is_egress { Direction::Egress } else { Direction::Ingress };
        // A reason that this agent has no name for is of a newer program.
        let reason = DropReason::from_number(key.reason);
        if key.reason == 0 || reason.is_some() {
            add(&mut sums, &Sums::from([((reason, direction), *counters)]));
        }
    }
    sums
}

fn add(to: &mut Sums, more: &Sums) {
    for (fate, counters) in more {
        let sum = to.entry(*fate).or_default();
        sum.packets += counters.packets;
        sum.bytes += counters.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(endpoint: u16, reason: u8, direction: Direction, packets: u64) -> (CounterKey, Counters) {
        let key = CounterKey { endpoint, reason, direction: direction as u8 };
        (key, Counters { packets, bytes: packets * 100 })
    }

    #[test]
    fn sums_are_over_endpoints() {
        let denied = DropReason::PolicyDenied;
        let sums = sums(&[
            row(1, 0, Direction::Ingress, 1),
            row(2, 0, Direction::Ingress, 2),
            row(2, 0, Direction::Egress, 4),
            row(2, denied.number(), Direction::Egress, 8),
            row(3, denied.number(), Direction::Egress, 16),
        ]);
        let packets: Vec<_> = sums.iter().map(|(fate, counters)| (*fate, counters.packets)).collect();
        let wanted = [
            ((None, Direction::Ingress), 3),
            ((None, Direction::Egress), 4),
            ((Some(denied), Direction::Egress), 24),
        ];
        assert_eq!(packets, wanted);
    }

    /// An endpoint that goes takes nothing along, and what was counted before the begin is not counted.
    #[test]
    fn numbers_never_fall() {
        let fate = (None, Direction::Ingress);
        let row = |endpoint, packets| row(endpoint, 0, Direction::Ingress, packets);
        let mut ledger = Ledger { before: sums(&[row(1, 10), row(2, 5)]), ..Ledger::default() };
        let read =
            |ledger: &Ledger, rows: &[(CounterKey, Counters)]| ledger.since_begin(sums(rows))[&fate].packets;
        assert_eq!(read(&ledger, &[row(1, 10), row(2, 5)]), 0);
        assert_eq!(read(&ledger, &[row(1, 13), row(2, 5)]), 3);
        add(&mut ledger.forgotten, &sums(&[row(1, 13)]));
        assert_eq!(read(&ledger, &[row(2, 6)]), 4);
        assert_eq!(read(&ledger, &[row(1, 1), row(2, 6)]), 5, "its id is another's");
    }
}
