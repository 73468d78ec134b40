//! Identities of prefixes that policies name: one node-local number for each prefix.
//!
//! Labels of a prefix name every known prefix around it, so they change when a wider one appears; the number
//! stays. A prefix that no policy names any more keeps its number for a grace period (the kernel still maps
//! addresses to it), then leaves the ipcache, then the engine.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sluice_policy::labels::cidr_labels;
use sluice_types::{Identity, Labels};

use super::IdentitiesExhausted;

#[derive(Debug)]
struct Entry {
    identity: Identity,
    labels: Labels,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Named,
    /// No policy names it since then.
    Idle(Instant),
    /// It is being taken out of the ipcache.
    Leaving,
}

/// What [`PrefixIdentities::follow`] found out of date in the policy engine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PrefixChanges {
    /// Prefixes the ipcache must map from now on, once the policy maps know their identity.
    pub map: Vec<(IpNet, Identity)>,
    /// Identities whose labels are new or changed.
    pub label: Vec<(Identity, Labels)>,
    /// Prefixes for which no number is left.
    pub refused: Vec<IpNet>,
}

/// The table of prefixes.
#[derive(Debug)]
pub(crate) struct PrefixIdentities {
    first: u32,
    last: u32,
    cursor: u32,
    by_prefix: BTreeMap<IpNet, Entry>,
    numbers: BTreeMap<Identity, IpNet>,
}

impl PrefixIdentities {
    /// An empty table over the node-local scope.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::with_range(Identity::LOCAL_MIN, Identity::LOCAL_MAX)
    }

    /// An empty table over `first..=last`.
    #[must_use]
    pub(crate) fn with_range(first: Identity, last: Identity) -> Self {
        let (first, last) = (first.as_u32(), last.as_u32());
        Self { first, last, cursor: first, by_prefix: BTreeMap::new(), numbers: BTreeMap::new() }
    }

    /// Takes over what the kernel's ipcache says, as idle since `now`. A number that is taken or out of range is
    /// refused with `false`.
    pub(crate) fn restore(&mut self, prefix: IpNet, identity: Identity, now: Instant) -> bool {
        let prefix = prefix.trunc();
        let in_range = (self.first..=self.last).contains(&identity.as_u32());
        if !in_range || self.numbers.contains_key(&identity) || self.by_prefix.contains_key(&prefix) {
            return false;
        }
        self.numbers.insert(identity, prefix);
        self.by_prefix.insert(prefix, Entry { identity, labels: Labels::new(), stage: Stage::Idle(now) });
        self.cursor = self.cursor.max(identity.as_u32().saturating_add(1));
        true
    }

    /// Makes the table name exactly `wanted`; what is not wanted any more becomes idle.
    pub(crate) fn follow(&mut self, wanted: &BTreeSet<IpNet>, now: Instant) -> PrefixChanges {
        let wanted: BTreeSet<IpNet> = wanted.iter().map(IpNet::trunc).collect();
        let mut changes = PrefixChanges::default();
        for (prefix, entry) in &mut self.by_prefix {
            if wanted.contains(prefix) {
                if entry.stage != Stage::Named {
                    changes.map.push((*prefix, entry.identity));
                }
                entry.stage = Stage::Named;
            } else if entry.stage == Stage::Named {
                entry.stage = Stage::Idle(now);
            }
        }
        for prefix in wanted {
            if self.by_prefix.contains_key(&prefix) {
                continue;
            }
            let Ok(identity) = self.free_number() else {
                changes.refused.push(prefix);
                continue;
            };
            self.numbers.insert(identity, prefix);
            self.by_prefix.insert(prefix, Entry { identity, labels: Labels::new(), stage: Stage::Named });
            changes.map.push((prefix, identity));
        }
        self.relabel(&mut changes);
        changes
    }

    fn relabel(&mut self, changes: &mut PrefixChanges) {
        let known: HashSet<IpNet> = self.by_prefix.keys().copied().collect();
        for (prefix, entry) in &mut self.by_prefix {
            let labels = cidr_labels(*prefix, &covering(*prefix, &known));
            if labels != entry.labels {
                entry.labels = labels.clone();
                changes.label.push((entry.identity, labels));
            }
        }
    }

    fn free_number(&mut self) -> Result<Identity, IdentitiesExhausted> {
        let (after, before) = (self.cursor..=self.last, self.first..self.cursor);
        let raw = after.chain(before).find(|raw| !self.numbers.contains_key(&Identity::new(*raw))).ok_or(
            IdentitiesExhausted { count: self.last - self.first + 1, first: Identity::new(self.first) },
        )?;
        self.cursor = raw.saturating_add(1);
        Ok(Identity::new(raw))
    }

    /// Prefixes that have been idle for `grace`; they are leaving from now on and must go out of the ipcache.
    pub(crate) fn expire(&mut self, now: Instant, grace: Duration) -> Vec<(IpNet, Identity)> {
        let mut leaving = Vec::new();
        for (prefix, entry) in &mut self.by_prefix {
            if matches!(entry.stage, Stage::Idle(since) if now.duration_since(since) >= grace) {
                entry.stage = Stage::Leaving;
                leaving.push((*prefix, entry.identity));
            }
        }
        leaving
    }

    /// When the next idle prefix will have been idle for `grace`.
    #[must_use]
    pub(crate) fn next_expiry(&self, grace: Duration) -> Option<Instant> {
        self.by_prefix
            .values()
            .filter_map(|entry| if let Stage::Idle(since) = entry.stage { Some(since + grace) } else { None })
            .min()
    }

    /// Identities that are leaving.
    #[must_use]
    pub(crate) fn leaving(&self) -> Vec<(IpNet, Identity)> {
        let leaving = |entry: &Entry| entry.stage == Stage::Leaving;
        self.by_prefix.iter().filter(|(_, entry)| leaving(entry)).map(|(net, e)| (*net, e.identity)).collect()
    }

    /// The ipcache does not map `prefix` any more: its number is free once the engine has forgotten it. The
    /// prefixes inside lose a label; the changes say which.
    pub(crate) fn forget(&mut self, prefix: &IpNet) -> PrefixChanges {
        let mut changes = PrefixChanges::default();
        if let Some(entry) = self.by_prefix.remove(prefix) {
            self.numbers.remove(&entry.identity);
            self.relabel(&mut changes);
        }
        changes
    }

    /// All prefixes with their identities and labels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IpNet, Identity, &Labels)> {
        self.by_prefix.iter().map(|(prefix, entry)| (prefix, entry.identity, &entry.labels))
    }
}

/// The prefixes of `known` around `prefix`: at most one for each length.
fn covering(prefix: IpNet, known: &HashSet<IpNet>) -> BTreeSet<IpNet> {
    std::iter::successors(prefix.supernet(), IpNet::supernet).filter(|wider| known.contains(wider)).collect()
}

impl Default for PrefixIdentities {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        Instant::now()
    }

    #[test]
    fn a_wider_prefix_relabels_and_keeps_numbers() {
        let now = start();
        let mut table = PrefixIdentities::new();
        let first = table.follow(&nets(&["10.1.0.0/16"]), now);
        assert_eq!(first.map, [("10.1.0.0/16".parse().unwrap(), Identity::LOCAL_MIN)]);
        let second = table.follow(&nets(&["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"]), now);
        assert_eq!(second.map.len(), 2);
        let relabelled: Vec<_> =
            second.label.iter().map(|(id, labels)| (id.as_u32(), labels.to_string())).collect();
        assert_eq!(relabelled.len(), 3);
        assert!(relabelled.contains(&(
            Identity::LOCAL_MIN.as_u32(),
            "reserved:world,reserved:world-ipv4,cidr:10.0.0.0/8,cidr:10.1.0.0/16".into()
        )));
        assert_eq!(
            table.follow(&nets(&["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"]), now),
            PrefixChanges::default()
        );
    }

    #[test]
    fn leaves_after_the_grace_and_comes_back() {
        let now = start();
        let mut table = PrefixIdentities::new();
        table.follow(&nets(&["10.0.0.0/8", "10.1.0.0/16"]), now);
        assert_eq!(table.follow(&nets(&["10.1.0.0/16"]), now), PrefixChanges::default());
        assert_eq!(table.next_expiry(GRACE), Some(now + GRACE));
        assert_eq!(table.expire(now + GRACE / 2, GRACE), []);
        let leaving = table.expire(now + GRACE, GRACE);
        assert_eq!(leaving.len(), 1);
        let back = table.follow(&nets(&["10.0.0.0/8", "10.1.0.0/16"]), now);
        assert_eq!(back.map, leaving, "named again while leaving: mapped again, same number");
        table.follow(&nets(&["10.1.0.0/16"]), now);
        let (prefix, _) = table.expire(now + GRACE, GRACE)[0];
        assert_eq!(table.leaving().len(), 1);
        let changes = table.forget(&prefix);
        assert_eq!(changes.label.len(), 1, "the /16 loses cidr:10.0.0.0/8");
        assert_eq!(table.iter().count(), 1);
    }

    #[test]
    fn restored_numbers_are_kept_and_space_ends() {
        let now = start();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let mut table = PrefixIdentities::with_range(Identity::new(10), Identity::new(11));
        assert!(table.restore(net("10.0.0.0/8"), Identity::new(11), now));
        assert!(!table.restore(net("11.0.0.0/8"), Identity::new(11), now));
        assert!(!table.restore(net("11.0.0.0/8"), Identity::new(12), now));
        let changes = table.follow(&nets(&["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"]), now);
        assert_eq!(
            changes.map,
            [(net("10.0.0.0/8"), Identity::new(11)), (net("11.0.0.0/8"), Identity::new(10))]
        );
        assert_eq!(changes.refused, [net("12.0.0.0/8")]);
    }
}
