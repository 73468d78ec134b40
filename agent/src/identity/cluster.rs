//! Identities of pods: one number (256 to 65,535) for each set of labels, the same after a restart.
//!
//! A set of labels that no endpoint has any more goes through three stages: `idle` (still known to the policy
//! engine and the kernel, for a grace period), `retired` (unknown to both, but the number still waits for the
//! same labels), and forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluice_types::{Identity, Labels};

use super::IdentitiesExhausted;

/// How many retired label sets keep their number.
const RETIRED_MAX: usize = 8192;

/// One row of the table as it is stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct IdentityRecord {
    /// The number.
    pub id: Identity,
    /// What it stands for.
    pub labels: Labels,
}

#[derive(Debug)]
struct Entry {
    labels: Labels,
    references: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Used,
    Idle(Instant),
    Retired(u64),
}

/// The table of pods' identities.
#[derive(Debug)]
pub(crate) struct ClusterIdentities {
    first: u32,
    last: u32,
    cursor: u32,
    by_labels: HashMap<Labels, Identity>,
    entries: BTreeMap<Identity, Entry>,
    /// Retired numbers, the oldest first.
    retired: BTreeSet<(u64, Identity)>,
    retirements: u64,
    /// Numbers that the kernel still holds with a meaning nobody remembers.
    blocked: BTreeSet<Identity>,
}

/// What [`ClusterIdentities::acquire`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Acquired {
    /// The number.
    pub identity: Identity,
    /// Whether the policy engine does not know it (any more).
    pub is_new: bool,
}

impl ClusterIdentities {
    /// An empty table over the numbers of the cluster scope.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::with_range(Identity::CLUSTER_MIN, Identity::CLUSTER_MAX)
    }

    /// An empty table over `first..=last`.
    #[must_use]
    pub(crate) fn with_range(first: Identity, last: Identity) -> Self {
        Self {
            first: first.as_u32(),
            last: last.as_u32(),
            cursor: first.as_u32(),
            by_labels: HashMap::new(),
            entries: BTreeMap::new(),
            retired: BTreeSet::new(),
            retirements: 0,
            blocked: BTreeSet::new(),
        }
    }

    /// Takes over a stored row, as retired. A row whose number or labels are taken is refused with `false`.
    pub(crate) fn restore(&mut self, record: &IdentityRecord) -> bool {
        let in_range = (self.first..=self.last).contains(&record.id.as_u32());
        let known = self.by_labels.get(&record.labels);
        if known == Some(&record.id) {
            return true;
        }
        if !in_range || known.is_some() || self.entries.contains_key(&record.id) {
            return false;
        }
        self.blocked.remove(&record.id);
        self.insert(record.id, &record.labels, 0, Stage::Used);
        self.retire(record.id);
        self.cursor = self.cursor.max(record.id.as_u32().saturating_add(1));
        true
    }

    /// Keeps a number from being given out: the kernel holds it, and what it meant is lost.
    pub(crate) fn block(&mut self, identity: Identity) {
        if !self.entries.contains_key(&identity) {
            self.blocked.insert(identity);
        }
    }

    /// Gives blocked numbers free: the kernel's maps hold none of them any more.
    pub(crate) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    /// One more endpoint has these labels.
    ///
    /// # Errors
    /// Every number is in use.
    pub(crate) fn acquire(&mut self, labels: &Labels) -> Result<Acquired, IdentitiesExhausted> {
        if let Some(identity) = self.by_labels.get(labels).copied() {
            return Ok(self.reuse(identity));
        }
        let identity = self.free_number()?;
        self.insert(identity, labels, 1, Stage::Used);
        self.cursor = identity.as_u32().saturating_add(1);
        Ok(Acquired { identity, is_new: true })
    }

    fn reuse(&mut self, identity: Identity) -> Acquired {
        let Some(entry) = self.entries.get_mut(&identity) else { return Acquired { identity, is_new: true } };
        entry.references += 1;
        let before = std::mem::replace(&mut entry.stage, Stage::Used);
        if let Stage::Retired(at) = before {
            self.retired.remove(&(at, identity));
        }
        Acquired { identity, is_new: matches!(before, Stage::Retired(_)) }
    }

    fn insert(&mut self, identity: Identity, labels: &Labels, references: usize, stage: Stage) {
        self.by_labels.insert(labels.clone(), identity);
        self.entries.insert(identity, Entry { labels: labels.clone(), references, stage });
    }

    fn free_number(&mut self) -> Result<Identity, IdentitiesExhausted> {
        let count = self.last - self.first + 1;
        if self.entries.len() + self.blocked.len() < count as usize {
            let (before, after) = (self.first..self.cursor.max(self.first), self.cursor..=self.last);
            let free = |raw: &u32| {
                let identity = Identity::new(*raw);
                !self.entries.contains_key(&identity) && !self.blocked.contains(&identity)
            };
            if let Some(raw) = after.chain(before).find(free) {
                return Ok(Identity::new(raw));
            }
        }
        self.forget_oldest().ok_or(IdentitiesExhausted { count, first: Identity::new(self.first) })
    }

    fn forget_oldest(&mut self) -> Option<Identity> {
        let (_, identity) = self.retired.pop_first()?;
        if let Some(entry) = self.entries.remove(&identity) {
            self.by_labels.remove(&entry.labels);
        }
        Some(identity)
    }

    /// One endpoint less has this identity. With the last one it becomes idle.
    pub(crate) fn release(&mut self, identity: Identity, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.references = entry.references.saturating_sub(1);
            if entry.references == 0 && entry.stage == Stage::Used {
                entry.stage = Stage::Idle(now);
            }
        }
    }

    /// Identities that have been idle for at least `grace`.
    #[must_use]
    pub(crate) fn expired(&self, now: Instant, grace: Duration) -> Vec<Identity> {
        let expired =
            |entry: &Entry| matches!(entry.stage, Stage::Idle(since) if now.duration_since(since) >= grace);
        self.entries.iter().filter(|(_, entry)| expired(entry)).map(|(id, _)| *id).collect()
    }

    /// When the next idle identity will have been idle for `grace`.
    #[must_use]
    pub(crate) fn next_expiry(&self, grace: Duration) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| if let Stage::Idle(since) = entry.stage { Some(since + grace) } else { None })
            .min()
    }

    /// The engine and the kernel do not know it any more; the number still waits for the same labels.
    pub(crate) fn retire(&mut self, identity: Identity) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        if entry.references > 0 || matches!(entry.stage, Stage::Retired(_)) {
            return;
        }
        self.retirements += 1;
        entry.stage = Stage::Retired(self.retirements);
        self.retired.insert((self.retirements, identity));
        while self.retired.len() > RETIRED_MAX {
            self.forget_oldest();
        }
    }

    /// What a number that is in the engine stands for, with the number of endpoints that have it.
    #[must_use]
    pub(crate) fn labels_of(&self, identity: Identity) -> Option<&Labels> {
        self.entries.get(&identity).map(|entry| &entry.labels)
    }

    /// Identities in the engine, with labels and the number of endpoints.
    pub(crate) fn active(&self) -> impl Iterator<Item = (Identity, &Labels, usize)> {
        self.entries
            .iter()
            .filter(|(_, entry)| !matches!(entry.stage, Stage::Retired(_)))
            .map(|(id, entry)| (*id, &entry.labels, entry.references))
    }

    /// What must be stored: every number that has a meaning.
    #[must_use]
    pub(crate) fn records(&self) -> Vec<IdentityRecord> {
        let mut rows: Vec<_> = self.entries.iter().collect();
        // Retired ones first and in their order, so that restoring keeps that order.
        rows.sort_by_key(|(id, entry)| match entry.stage {
            Stage::Retired(at) => (at, **id),
            Stage::Used | Stage::Idle(_) => (u64::MAX, **id),
        });
        rows.into_iter().map(|(id, entry)| IdentityRecord { id: *id, labels: entry.labels.clone() }).collect()
    }
}

impl Default for ClusterIdentities {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_types::Label;

    const GRACE: Duration = Duration::from_secs(5);

    fn labels(value: &str) -> Labels {
        [Label::k8s("app", value)].into_iter().collect()
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        Instant::now()
    }

    #[test]
    fn same_labels_same_number_until_forgotten() {
        let now = start();
        let mut table = ClusterIdentities::new();
        let first = table.acquire(&labels("a")).unwrap();
        assert_eq!(first, Acquired { identity: Identity::new(256), is_new: true });
        assert_eq!(
            table.acquire(&labels("a")).unwrap(),
            Acquired { identity: first.identity, is_new: false }
        );
        assert_eq!(table.acquire(&labels("b")).unwrap().identity, Identity::new(257));

        table.release(first.identity, now);
        assert_eq!(table.next_expiry(GRACE), None, "one endpoint still has it");
        table.release(first.identity, now);
        assert_eq!(table.expired(now + GRACE / 2, GRACE), []);
        assert_eq!(table.expired(now + GRACE, GRACE), [first.identity]);
        assert!(!table.acquire(&labels("a")).unwrap().is_new, "back before its grace ended");

        table.release(first.identity, now);
        table.retire(first.identity);
        assert_eq!(table.active().count(), 1);
        assert_eq!(table.acquire(&labels("a")).unwrap(), Acquired { identity: first.identity, is_new: true });
    }

    #[test]
    fn exhaustion_recycles_only_retired_numbers() {
        let now = start();
        let mut table = ClusterIdentities::with_range(Identity::new(256), Identity::new(259));
        for name in ["a", "b", "c"] {
            table.acquire(&labels(name)).unwrap();
        }
        table.block(Identity::new(259));
        let error = table.acquire(&labels("d")).unwrap_err();
        assert_eq!(error.to_string(), "no security identity is left: all 4 numbers from 256 on are in use");
        table.release(Identity::new(257), now);
        assert!(table.acquire(&labels("d")).is_err(), "idle is not free");
        table.retire(Identity::new(257));
        assert_eq!(table.acquire(&labels("d")).unwrap().identity, Identity::new(257));
        assert!(table.acquire(&labels("b")).is_err());
        table.unblock_all();
        assert_eq!(table.acquire(&labels("b")).unwrap().identity, Identity::new(259));
    }

    #[test]
    fn restart_keeps_numbers_and_refuses_contradictions() {
        let mut table = ClusterIdentities::new();
        for name in ["a", "b", "c"] {
            table.acquire(&labels(name)).unwrap();
        }
        let mut restored = ClusterIdentities::new();
        for record in table.records() {
            assert!(restored.restore(&record));
        }
        assert_eq!(restored.acquire(&labels("c")).unwrap().identity, Identity::new(258));
        assert_eq!(restored.acquire(&labels("z")).unwrap().identity, Identity::new(259));
        let record = |id, name| IdentityRecord { id: Identity::new(id), labels: labels(name) };
        assert!(!restored.restore(&record(256, "other")), "the number is taken");
        assert!(!restored.restore(&record(900, "a")), "the labels have another number");
        assert!(!restored.restore(&record(9, "world")), "outside the scope");
    }
}
