//! Which identities each selector matches, kept up to date as both come and go.
//!
//! Inverted indices make a change cost what it changes: a new identity is compared only with the selectors that ask
//! for one of its labels or whose prefix contains its own, and a new selector only with the identities that have what
//! it asks for. Selectors that are confined to a namespace stand in the index of that namespace: an app of the same
//! name is in every namespace of many clusters. Knows nothing of rules; the repository alone uses it.

mod identity_set;
mod index;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use sluice_types::{Identity, Label, Labels};

pub use identity_set::IdentitySet;
use index::{Anchor, Index};

use crate::{
    config::Config,
    labels::{CLUSTER, NAMESPACE, is_pod},
    selector::{LabelSelector, Requirement, Selector, most_specific_prefixes},
};

/// A selector's place in the cache.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SelectorId(u32);

/// Selectors, identities, and who matches whom.
#[derive(Debug, Default)]
pub(crate) struct SelectorCache {
    cidr_match_nodes: bool,
    cidr_match_pods: bool,
    last_id: u32,
    ids: HashMap<Selector, SelectorId>,
    selectors: HashMap<SelectorId, Cached>,
    /// Selectors by what they ask for, those first that are confined to a namespace.
    confined: HashMap<Box<str>, Index<BTreeSet<SelectorId>>>,
    wanted: Index<BTreeSet<SelectorId>>,
    /// Selectors that ask for nothing that an identity must have.
    unanchored: BTreeSet<SelectorId>,
    cidr_selectors: JointPrefixMap<IpNet, BTreeSet<SelectorId>>,
    identities: HashMap<Identity, Labels>,
    /// The labels of identities, each once, with how many have it.
    labels: HashMap<Arc<Label>, usize>,
    /// Identities by what they have.
    owned: Index<IdentitySet>,
    cidr_identities: JointPrefixMap<IpNet, BTreeSet<Identity>>,
    /// How many selectors name a prefix, as such or as a hole.
    prefixes: BTreeMap<IpNet, usize>,
}

#[derive(Debug)]
struct Cached {
    selector: Selector,
    users: usize,
    matches: IdentitySet,
}

impl SelectorCache {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            cidr_match_nodes: config.cidr_match_nodes,
            cidr_match_pods: config.cidr_match_pods,
            ..Self::default()
        }
    }

    /// Counts one more user of a selector.
    pub(crate) fn acquire(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.ids.get(selector).copied() {
            if let Some(cached) = self.selectors.get_mut(&id) {
                cached.users += 1;
            }
            return id;
        }
        let id = self.next_id();
        let matches = self.find_identities(selector);
        self.index_selector(id, selector);
        self.ids.insert(selector.clone(), id);
        self.selectors.insert(id, Cached { selector: selector.clone(), users: 1, matches });
        id
    }

    /// Counts one user less; the last one takes the selector with it.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(cached) = self.selectors.get_mut(&id) else { return };
        cached.users -= 1;
        if cached.users > 0 {
            return;
        }
        if let Some(cached) = self.selectors.remove(&id) {
            self.ids.remove(&cached.selector);
            self.unindex_selector(id, &cached.selector);
        }
    }

    /// The identities a selector matches.
    pub(crate) fn matches(&self, id: SelectorId) -> Option<&IdentitySet> {
        self.selectors.get(&id).map(|cached| &cached.matches)
    }

    /// Makes an identity known, or gives it other labels. Says which selectors it now matches or no longer does.
    pub(crate) fn set_identity(&mut self, identity: Identity, labels: Labels) -> BTreeSet<SelectorId> {
        if self.identities.get(&identity) == Some(&labels) {
            return BTreeSet::new();
        }
        let before = self.forget(identity);
        let labels = labels.share(|label| intern(&mut self.labels, label));
        let prefixes = self.prefixes_of(&labels);
        let after = self.find_selectors(&labels, &prefixes);
        for label in labels.iter().filter(|label| is_indexed(label)) {
            self.owned.at_value(&label.key, &label.value).insert(identity);
        }
        for prefix in &prefixes {
            self.cidr_identities.entry(*prefix).or_default().insert(identity);
        }
        for id in &after {
            if let Some(cached) = self.selectors.get_mut(id) {
                cached.matches.insert(identity);
            }
        }
        self.identities.insert(identity, labels);
        before.symmetric_difference(&after).copied().collect()
    }

    /// Forgets an identity. Says which selectors it matched.
    pub(crate) fn remove_identity(&mut self, identity: Identity) -> BTreeSet<SelectorId> {
        self.forget(identity)
    }

    /// The selector with this number.
    pub(crate) fn selector(&self, id: SelectorId) -> Option<&Selector> {
        self.selectors.get(&id).map(|cached| &cached.selector)
    }

    /// The labels of an identity, if it is known.
    pub(crate) fn labels(&self, identity: Identity) -> Option<&Labels> {
        self.identities.get(&identity)
    }

    /// Every prefix that a selector names, as such or as a hole, except those of length 0: they are the world.
    pub(crate) fn prefixes(&self) -> BTreeSet<IpNet> {
        self.prefixes.keys().filter(|prefix| prefix.prefix_len() > 0).copied().collect()
    }

    /// Every selector, how many use it, and whom it matches.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Selector, usize, &IdentitySet)> {
        self.selectors.values().map(|cached| (&cached.selector, cached.users, &cached.matches))
    }

    fn next_id(&mut self) -> SelectorId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = SelectorId(self.last_id);
            if !self.selectors.contains_key(&id) {
                return id;
            }
        }
    }

    fn forget(&mut self, identity: Identity) -> BTreeSet<SelectorId> {
        let Some(labels) = self.identities.remove(&identity) else { return BTreeSet::new() };
        let prefixes = self.prefixes_of(&labels);
        for label in labels.iter() {
            if is_indexed(label) {
                self.owned.remove_value(&label.key, &label.value, identity);
            }
            release(&mut self.labels, label);
        }
        for prefix in &prefixes {
            remove_from_trie(&mut self.cidr_identities, prefix, identity);
        }
        let matched = self.find_selectors(&labels, &prefixes);
        for id in &matched {
            if let Some(cached) = self.selectors.get_mut(id) {
                cached.matches.remove(identity);
            }
        }
        matched
    }

    /// What prefix selectors look at; nothing if none may match.
    fn prefixes_of(&self, labels: &Labels) -> Vec<IpNet> {
        if self.has_address(labels) { most_specific_prefixes(labels) } else { Vec::new() }
    }

    /// Prefix selectors mean addresses outside of the cluster, and others only where the options say so.
    fn has_address(&self, labels: &Labels) -> bool {
        let any = |names: &[&str]| names.iter().any(|name| labels.has_reserved(name));
        any(&["world", "world-ipv4", "world-ipv6"])
            || self.cidr_match_nodes && any(&["host", "remote-node"])
            || self.cidr_match_pods && is_pod(labels)
    }

    /// The selectors that match these labels.
    fn find_selectors(&self, labels: &Labels, prefixes: &[IpNet]) -> BTreeSet<SelectorId> {
        let namespaces = labels.iter().filter(|label| label.key == NAMESPACE);
        let confined = namespaces.filter_map(|namespace| self.confined.get(&*namespace.value));
        let indices = confined.chain([&self.wanted]);
        let candidates =
            indices.flat_map(|index| labels.iter().flat_map(|label| index.get(&label.key, &label.value)));
        let mut found: BTreeSet<SelectorId> = BTreeSet::new();
        for id in candidates.flatten().flatten().chain(&self.unanchored) {
            match self.selectors.get(id).map(|cached| &cached.selector) {
                Some(Selector::Labels(selector)) if selector.matches(labels) => {
                    found.insert(*id);
                }
                Some(Selector::Labels(_) | Selector::Cidr(_)) | None => {}
            }
        }
        for prefix in prefixes {
            let around = self.cidr_selectors.cover_values(prefix).flatten().copied();
            found.extend(around.filter(|id| match self.selectors.get(id).map(|cached| &cached.selector) {
                Some(Selector::Cidr(selector)) => selector.covers(prefix),
                Some(Selector::Labels(_)) | None => false,
            }));
        }
        found
    }

    /// The identities that match a selector.
    fn find_identities(&self, selector: &Selector) -> IdentitySet {
        match selector {
            Selector::Labels(selector) => match self.smallest(selector) {
                Some(anchor) => {
                    let candidates = self.owned.at(&anchor).flat_map(IdentitySet::iter);
                    let known = |identity: &Identity| {
                        self.identities.get(identity).is_some_and(|labels| selector.matches(labels))
                    };
                    candidates.filter(known).collect()
                }
                None => {
                    let matching = self.identities.iter().filter(|(_, labels)| selector.matches(labels));
                    matching.map(|(identity, _)| *identity).collect()
                }
            },
            Selector::Cidr(selector) => self
                .cidr_identities
                .children(&selector.prefix)
                .filter(|(prefix, _)| selector.covers(prefix))
                .flat_map(|(_, identities)| identities.iter().copied())
                .collect(),
        }
    }

    /// Where the fewest identities stand among which all that match must be.
    fn smallest<'a>(&self, selector: &'a LabelSelector) -> Option<Anchor<'a>> {
        let size = |anchor: &Anchor<'_>| self.owned.at(anchor).map(IdentitySet::len).sum::<usize>();
        anchors(selector).filter(|anchor| anchor.key() != CLUSTER).min_by_key(size)
    }

    fn index_selector(&mut self, id: SelectorId, selector: &Selector) {
        match selector {
            Selector::Labels(selector) => match best_anchor(selector) {
                Some(anchor) => {
                    let index = match home(selector) {
                        Some(namespace) => self.confined.entry(namespace.into()).or_default(),
                        None => &mut self.wanted,
                    };
                    index.add(&anchor, id);
                }
                None => {
                    self.unanchored.insert(id);
                }
            },
            Selector::Cidr(selector) => {
                self.cidr_selectors.entry(selector.prefix).or_default().insert(id);
                for prefix in selector.except.iter().chain([&selector.prefix]) {
                    *self.prefixes.entry(*prefix).or_default() += 1;
                }
            }
        }
    }

    fn unindex_selector(&mut self, id: SelectorId, selector: &Selector) {
        match selector {
            Selector::Labels(selector) => match (best_anchor(selector), home(selector)) {
                (Some(anchor), Some(namespace)) => {
                    let Some(index) = self.confined.get_mut(namespace) else { return };
                    index.remove(&anchor, id);
                    if index.is_empty() {
                        self.confined.remove(namespace);
                    }
                }
                (Some(anchor), None) => self.wanted.remove(&anchor, id),
                (None, _) => {
                    self.unanchored.remove(&id);
                }
            },
            Selector::Cidr(selector) => {
                remove_from_trie(&mut self.cidr_selectors, &selector.prefix, id);
                for prefix in selector.except.iter().chain([&selector.prefix]) {
                    self.release_prefix(prefix);
                }
            }
        }
    }

    fn release_prefix(&mut self, prefix: &IpNet) {
        if let Some(users) = self.prefixes.get_mut(prefix) {
            *users -= 1;
            if *users == 0 {
                self.prefixes.remove(prefix);
            }
        }
    }
}

/// The requirements that an identity fulfils only by having something.
fn anchors(selector: &LabelSelector) -> impl Iterator<Item = Anchor<'_>> {
    selector.requirements().filter_map(|requirement| match requirement {
        Requirement::In(key, values) => Some(Anchor::Values(&key.key, values)),
        Requirement::Exists(key) => Some(Anchor::Key(&key.key)),
        Requirement::NotIn(..) | Requirement::DoesNotExist(_) => None,
    })
}

/// The anchor that few identities share. It depends on the selector alone, so that it is found again on removal:
/// values before keys, and what the author wrote before what confines every selector.
fn best_anchor(selector: &LabelSelector) -> Option<Anchor<'_>> {
    anchors(selector).min_by_key(|anchor| match anchor {
        Anchor::Values(key, values) => (is_common(key), 0, values.len()),
        Anchor::Key(key) => (is_common(key), 1, 0),
    })
}

/// The one namespace in which a selector can match anything.
fn home(selector: &LabelSelector) -> Option<&str> {
    selector.requirements().find_map(|requirement| match requirement {
        Requirement::In(key, values) if key.key == NAMESPACE && values.len() == 1 => {
            values.first().map(String::as_str)
        }
        Requirement::In(..)
        | Requirement::NotIn(..)
        | Requirement::Exists(_)
        | Requirement::DoesNotExist(_) => None,
    })
}

/// Whether every pod has this label: the cluster's is the least telling, then the namespace's.
fn is_common(key: &str) -> u8 {
    match key {
        CLUSTER => 2,
        NAMESPACE => 1,
        _ => 0,
    }
}

/// Whether identities are found by this label. The cluster's would list all of them.
fn is_indexed(label: &Label) -> bool {
    label.key != CLUSTER
}

/// The one copy of a label, which has one user more now.
fn intern(known: &mut HashMap<Arc<Label>, usize>, label: &Arc<Label>) -> Arc<Label> {
    let label = Arc::clone(known.get_key_value(&**label).map_or(label, |(own, _)| own));
    *known.entry(Arc::clone(&label)).or_default() += 1;
    label
}

fn release(known: &mut HashMap<Arc<Label>, usize>, label: &Label) {
    if let Some(users) = known.get_mut(label) {
        *users -= 1;
        if *users == 0 {
            known.remove(label);
        }
    }
}

fn remove_from_trie<T: Ord>(trie: &mut JointPrefixMap<IpNet, BTreeSet<T>>, prefix: &IpNet, item: T) {
    let Some(set) = trie.get_mut(prefix) else { return };
    set.remove(&item);
    if set.is_empty() {
        trie.remove(prefix);
    }
}

#[cfg(test)]
mod tests;
