//! Which address belongs to whom: what the kernel's ipcache should hold, and what it holds.
//!
//! Several parts may claim an address: an endpoint, the node itself, a prefix named by a policy. The most specific
//! kind of claim wins. Pure; `state` asks for the difference and reports back what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use sluice_ebpf_common::IpcacheEntry;
use sluice_types::Identity;

use crate::event::Answer;

/// Who claims an address; an earlier one wins over a later one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Claim {
    /// The node has the address itself.
    Node,
    /// An endpoint of this node.
    Endpoint,
    /// A policy names the prefix.
    Prefix,
}

/// What must be written, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct IpcacheChanges {
    /// New or changed entries.
    pub set: Vec<(IpNet, IpcacheEntry)>,
    /// Entries to remove.
    pub remove: Vec<IpNet>,
}

/// The wanted and the written ipcache.
#[derive(Debug, Default)]
pub(crate) struct Ipcache {
    claims: BTreeMap<IpNet, BTreeMap<Claim, IpcacheEntry>>,
    written: BTreeMap<IpNet, IpcacheEntry>,
    /// How many written entries name an identity.
    uses: HashMap<u32, usize>,
    dirty: BTreeSet<IpNet>,
}

impl Ipcache {
    /// Takes over what the kernel holds. Nothing of it is wanted yet, so all of it is up for comparison.
    pub(crate) fn restore(&mut self, written: impl IntoIterator<Item = (IpNet, IpcacheEntry)>) {
        for (prefix, entry) in written {
            self.note(prefix, Some(entry));
            self.dirty.insert(prefix);
        }
    }

    /// `claim` says that `prefix` belongs to `entry`.
    pub(crate) fn set(&mut self, prefix: IpNet, claim: Claim, entry: IpcacheEntry) {
        if self.claims.entry(prefix).or_default().insert(claim, entry) != Some(entry) {
            self.dirty.insert(prefix);
        }
    }

    /// `claim` says nothing about `prefix` any more.
    pub(crate) fn clear(&mut self, prefix: IpNet, claim: Claim) {
        if let Some(claims) = self.claims.get_mut(&prefix) {
            claims.remove(&claim);
            if claims.is_empty() {
                self.claims.remove(&prefix);
            }
            self.dirty.insert(prefix);
        }
    }

    /// Who claims `prefix`, and what the winner says.
    #[must_use]
    pub(crate) fn claimed(&self, prefix: &IpNet) -> Option<(Claim, IpcacheEntry)> {
        self.claims.get(prefix)?.first_key_value().map(|(claim, entry)| (*claim, *entry))
    }

    /// Whether there is something to write.
    #[must_use]
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What to write to make the kernel's entries the wanted ones. Each change is handed out once: the caller
    /// reports it with [`Ipcache::note`] or [`Ipcache::failed`].
    pub(crate) fn take_changes(&mut self) -> IpcacheChanges {
        let mut changes = IpcacheChanges::default();
        for prefix in std::mem::take(&mut self.dirty) {
            match (self.claimed(&prefix), self.written.get(&prefix)) {
                (Some((_, wanted)), written) if written != Some(&wanted) => {
                    changes.set.push((prefix, wanted))
                }
                (None, Some(_)) => changes.remove.push(prefix),
                _ => {}
            }
        }
        changes
    }

    /// The kernel now holds `entry` for `prefix`.
    pub(crate) fn note(&mut self, prefix: IpNet, entry: Option<IpcacheEntry>) {
        let before = match entry {
            Some(entry) => {
                *self.uses.entry(entry.identity).or_default() += 1;
                self.written.insert(prefix, entry)
            }
            None => self.written.remove(&prefix),
        };
        if let Some(before) = before
            && let Some(uses) = self.uses.get_mut(&before.identity)
        {
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&before.identity);
            }
        }
    }

    /// Writing `prefix` failed: it stays to be done.
    pub(crate) fn failed(&mut self, prefix: IpNet) {
        self.dirty.insert(prefix);
    }

    /// What the kernel holds for `prefix`.
    #[must_use]
    pub(crate) fn written(&self, prefix: &IpNet) -> Option<IpcacheEntry> {
        self.written.get(prefix).copied()
    }

    /// How many entries each of the kernel's maps holds.
    #[must_use]
    pub(crate) fn levels(&self) -> Answer {
        let count = |is_ipv4: bool, is_exact: bool| {
            let matches = |prefix: &&IpNet| {
                prefix.addr().is_ipv4() == is_ipv4
                    && (prefix.prefix_len() == prefix.max_prefix_len()) == is_exact
            };
            self.written.keys().filter(matches).count()
        };
        Answer::MapLevels {
            addresses4: count(true, true),
            addresses6: count(false, true),
            prefixes4: count(true, false),
            prefixes6: count(false, false),
        }
    }

    /// How many entries in the kernel name `identity`.
    #[must_use]
    pub(crate) fn uses(&self, identity: Identity) -> usize {
        self.uses.get(&identity.as_u32()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn entry(identity: u32) -> IpcacheEntry {
        IpcacheEntry { identity, ..IpcacheEntry::default() }
    }

    fn write(cache: &mut Ipcache) -> IpcacheChanges {
        let changes = cache.take_changes();
        for (prefix, entry) in &changes.set {
            cache.note(*prefix, Some(*entry));
        }
        for prefix in &changes.remove {
            cache.note(*prefix, None);
        }
        changes
    }

    #[test]
    fn the_stronger_claim_wins_and_the_weaker_comes_back() {
        let mut cache = Ipcache::default();
        let address = net("10.0.0.2/32");
        cache.set(address, Claim::Prefix, entry(100));
        cache.set(address, Claim::Endpoint, entry(256));
        assert_eq!(write(&mut cache).set, [(address, entry(256))]);
        assert_eq!(cache.uses(Identity::new(256)), 1);
        cache.clear(address, Claim::Endpoint);
        assert_eq!(write(&mut cache).set, [(address, entry(100))]);
        assert_eq!(cache.uses(Identity::new(256)), 0);
        cache.clear(address, Claim::Prefix);
        assert_eq!(write(&mut cache), IpcacheChanges { set: vec![], remove: vec![address] });
        assert_eq!(write(&mut cache), IpcacheChanges::default());
    }

    #[test]
    fn restart_compares_instead_of_flushing() {
        let mut cache = Ipcache::default();
        let (same, gone, moved) = (net("10.0.0.2/32"), net("10.0.0.3/32"), net("10.0.0.4/32"));
        cache.restore([(same, entry(1)), (gone, entry(2)), (moved, entry(3))]);
        cache.set(same, Claim::Endpoint, entry(1));
        cache.set(moved, Claim::Endpoint, entry(4));
        let changes = write(&mut cache);
        assert_eq!(changes, IpcacheChanges { set: vec![(moved, entry(4))], remove: vec![gone] });
    }

    #[test]
    fn a_failed_write_is_tried_again() {
        let mut cache = Ipcache::default();
        cache.set(net("10.0.0.0/8"), Claim::Prefix, entry(5));
        let first = cache.take_changes();
        assert!(!cache.is_dirty());
        cache.failed(net("10.0.0.0/8"));
        assert_eq!(cache.take_changes(), first);
    }
}
