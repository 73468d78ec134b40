//! The tables of an endpoint while they are filled.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use sluice_types::{Direction, Identity, RuleId};

use crate::{
    map_state::{Entry, EntryVerdict, Key, L4Match},
    precedence::{Rank, is_admin, precedence},
    requests::{RequestTable, Says, Slot},
    rule::{Priority, Tier},
};

pub(super) type Entries = BTreeMap<Key, Entry>;

/// What one rule does, wherever it applies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling {
    pub(super) precedence: u32,
    pub(super) verdict: EntryVerdict,
    pub(super) rule: RuleId,
}

impl Ruling {
    /// A ruling of no rule in particular.
    pub(super) const fn new(tier: Tier, priority: Priority, rank: Rank, verdict: EntryVerdict) -> Self {
        Self { precedence: precedence(tier, priority, rank), verdict, rule: RuleId::NONE }
    }

    pub(super) const fn entry(&self) -> Entry {
        Entry { precedence: self.precedence, verdict: self.verdict, rule: self.rule }
    }

    pub(super) const fn slot(&self, says: Says, exact: bool) -> Slot {
        Slot { precedence: self.precedence, rule: self.rule, exact, says }
    }

    const fn is_admin(&self) -> bool {
        is_admin(self.precedence)
    }
}

/// Both planes for packets, and the table for requests.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) entries: Entries,
    pub(super) admin: Entries,
    pub(super) requests: RequestTable,
    /// What is not in the planes yet: sorting all of it at once is faster than looking for each place.
    pending: Vec<(Key, Entry)>,
    pending_admin: Vec<(Key, Entry)>,
}

impl Tables {
    pub(super) fn new(entries: Entries, admin: Entries, requests: RequestTable) -> Self {
        Self { entries, admin, requests, ..Self::default() }
    }

    /// Writes down what a ruling means for the traffic of `key`; `exact` if a rule names this one port.
    pub(super) fn put(&mut self, key: Key, ruling: &Ruling, says: Option<Says>, exact: bool) {
        let plane = if ruling.is_admin() { &mut self.pending_admin } else { &mut self.pending };
        plane.push((key, ruling.entry()));
        if let Some(says) = says {
            self.requests.put(key, ruling.slot(says, exact));
        }
    }

    /// Brings what was written down into the planes.
    pub(super) fn settle(&mut self) {
        settle(&mut self.entries, std::mem::take(&mut self.pending));
        settle(&mut self.admin, std::mem::take(&mut self.pending_admin));
    }

    /// Takes out everything that names this peer.
    pub(super) fn remove_peer(&mut self, peer: Identity) {
        remove_peer(&mut self.entries, peer);
        remove_peer(&mut self.admin, peer);
        self.requests.remove_peer(peer);
    }
}

/// Of two rules for one key the higher precedence stays; between equals the first, in the order of the policies.
fn settle(entries: &mut Entries, mut pending: Vec<(Key, Entry)>) {
    if entries.is_empty() {
        pending
            .sort_by(|(one, entry), (other, its)| one.cmp(other).then(its.precedence.cmp(&entry.precedence)));
        pending.dedup_by(|(next, _), (kept, _)| next == kept);
        *entries = pending.into_iter().collect();
        return;
    }
    for (key, entry) in pending {
        match entries.entry(key) {
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
            }
            btree_map::Entry::Occupied(mut place) if entry.precedence > place.get().precedence => {
                place.insert(entry);
            }
            btree_map::Entry::Occupied(_) => {}
        }
    }
}

/// Removes the keys of one peer from a sorted table.
pub(crate) fn remove_peer<T>(entries: &mut BTreeMap<Key, T>, peer: Identity) {
    for direction in Direction::ALL {
        let first = Key { direction, peer: Some(peer), l4: L4Match::Any };
        let from_here = entries.range((Bound::Included(first), Bound::Unbounded));
        let own = from_here.take_while(|(key, _)| key.direction == direction && key.peer == Some(peer));
        let gone: Vec<Key> = own.map(|(key, _)| *key).collect();
        for key in gone {
            entries.remove(&key);
        }
    }
}
