//! Numbers that are handed out: endpoint ids in turn, revisions and generations upwards for ever.

use std::collections::BTreeSet;

use sluice_types::EndpointId;

use crate::effect::NumbersRecord;

/// How many numbers are set aside on disk at once.
const STEP: u32 = 1 << 16;

/// Endpoint ids, in turn, so that one comes back as late as possible.
#[derive(Debug, Default)]
pub(crate) struct EndpointIds {
    last: u16,
    taken: BTreeSet<EndpointId>,
}

impl EndpointIds {
    /// The next free id; none if all are taken.
    pub(crate) fn take(&mut self) -> Option<EndpointId> {
        let after = self.last.saturating_add(1)..EndpointId::TABLE_LEN;
        let id = after
            .chain(1..EndpointId::TABLE_LEN)
            .filter_map(EndpointId::new)
            .find(|id| !self.taken.contains(id))?;
        self.adopt(id);
        Some(id)
    }

    /// `id` is taken.
    pub(crate) fn adopt(&mut self, id: EndpointId) {
        self.taken.insert(id);
        self.last = id.as_u16();
    }

    /// `id` is free.
    pub(crate) fn free(&mut self, id: EndpointId) {
        self.taken.remove(&id);
    }
}

/// Numbers that are never used twice, not even across restarts.
#[derive(Debug)]
pub(crate) struct Numbers {
    revision: u32,
    generation: u32,
    stored: NumbersRecord,
}

impl Numbers {
    /// Goes on where `stored` says, or above `seen`, which the kernel has.
    #[must_use]
    pub(crate) fn restore(stored: NumbersRecord, seen: NumbersRecord) -> Self {
        // Connection entries may hold numbers somewhat above those that endpoints still have.
        let next = |stored: u32, seen: u32| if stored > seen { stored } else { seen.saturating_add(STEP) };
        Self {
            revision: next(stored.revision, seen.revision),
            generation: next(stored.generation, seen.generation),
            stored,
        }
    }

    /// A revision nothing in the kernel has; never 0.
    pub(crate) fn revision(&mut self) -> u32 {
        self.revision = self.revision.wrapping_add(1).max(1);
        self.revision
    }

    /// A generation nothing in the kernel has; never 0.
    pub(crate) fn generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    /// What must be stored before the numbers given out so far are used; none if that is stored already.
    pub(crate) fn take_unstored(&mut self) -> Option<NumbersRecord> {
        let reached = |given: u32, stored: u32| given > stored || stored - given > STEP;
        if !reached(self.revision, self.stored.revision) && !reached(self.generation, self.stored.generation)
        {
            return None;
        }
        self.stored = NumbersRecord {
            revision: self.revision.saturating_add(STEP),
            generation: self.generation.saturating_add(STEP),
        };
        Some(self.stored)
    }

    /// Storing failed: it stays to be done.
    pub(crate) fn not_stored(&mut self) {
        self.stored = NumbersRecord::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_in_turn_and_run_out() {
        let mut ids = EndpointIds::default();
        assert_eq!(ids.take().map(EndpointId::as_u16), Some(1));
        assert_eq!(ids.take().map(EndpointId::as_u16), Some(2));
        ids.free(EndpointId::new(1).unwrap());
        assert_eq!(ids.take().map(EndpointId::as_u16), Some(3), "1 comes back last");
        for _ in 0..4093 {
            assert!(ids.take().is_some());
        }
        assert_eq!(ids.take(), None);
        ids.free(EndpointId::new(77).unwrap());
        assert_eq!(ids.take().map(EndpointId::as_u16), Some(77));
    }

    #[test]
    fn numbers_never_come_twice() {
        let mut numbers = Numbers::restore(NumbersRecord::default(), NumbersRecord::default());
        assert_eq!((numbers.revision(), numbers.generation()), (STEP + 1, STEP + 1));
        let stored = numbers.take_unstored().unwrap();
        assert_eq!(numbers.take_unstored(), None);
        let mut last = 0;
        for _ in 0..=STEP {
            last = numbers.revision();
        }
        assert!(numbers.take_unstored().is_some(), "the step is used up");
        let mut after = Numbers::restore(stored, NumbersRecord { revision: last, generation: 9 });
        assert!(after.revision() > last, "what the kernel has counts too");
        assert!(after.generation() > STEP);
        after.not_stored();
        assert!(after.take_unstored().is_some());
    }
}
