//! Which identities each selector matches, kept up to date as both come and go.
//!
//! Inverted indices make a change cost what it changes: a new identity is compared only with the selectors that ask
//! for one of its labels or whose prefix contains its own, and a new selector only with the identities that have what
//! it asks for. Knows nothing of rules; the repository alone uses it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use sluice_types::{Identity, Labels};

use crate::{
    config::Config,
    labels::{NAMESPACE, is_pod},
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
    /// Selectors by what they ask for.
    wanted: Index<SelectorId>,
    /// Selectors that ask for nothing that an identity must have.
    unanchored: BTreeSet<SelectorId>,
    cidr_selectors: JointPrefixMap<IpNet, BTreeSet<SelectorId>>,
    identities: HashMap<Identity, Known>,
    /// Identities by what they have.
    owned: Index<Identity>,
    cidr_identities: JointPrefixMap<IpNet, BTreeSet<Identity>>,
    /// How many selectors name a prefix, as such or as a hole.
    prefixes: BTreeMap<IpNet, usize>,
}

#[derive(Debug)]
struct Cached {
    selector: Selector,
    users: usize,
    matches: BTreeSet<Identity>,
}

#[derive(Debug)]
struct Known {
    labels: Labels,
    /// What prefix selectors look at; empty if none may match.
    prefixes: Vec<IpNet>,
}

/// Something by label: by key and value, and by key alone. Sources are left out, they are compared afterwards.
#[derive(Debug)]
struct Index<T> {
    by_value: HashMap<(String, String), BTreeSet<T>>,
    by_key: HashMap<String, BTreeSet<T>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { by_value: HashMap::new(), by_key: HashMap::new() }
    }
}

/// The requirement under which a selector stands in the index: whoever matches fulfils it.
enum Anchor<'a> {
    Values(&'a str, &'a BTreeSet<String>),
    Key(&'a str),
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
    pub(crate) fn matches(&self, id: SelectorId) -> Option<&BTreeSet<Identity>> {
        self.selectors.get(&id).map(|cached| &cached.matches)
    }

    /// Makes an identity known, or gives it other labels. Says which selectors it now matches or no longer does.
    pub(crate) fn set_identity(&mut self, identity: Identity, labels: Labels) -> BTreeSet<SelectorId> {
        if self.identities.get(&identity).is_some_and(|known| known.labels == labels) {
            return BTreeSet::new();
        }
        let before = self.forget(identity);
        let prefixes = if self.has_address(&labels) { most_specific_prefixes(&labels) } else { Vec::new() };
        let after = self.find_selectors(&labels, &prefixes);
        for label in labels.iter() {
            self.owned.add(&label.key, &label.value, identity);
        }
        for prefix in &prefixes {
            self.cidr_identities.entry(*prefix).or_default().insert(identity);
        }
        for id in &after {
            if let Some(cached) = self.selectors.get_mut(id) {
                cached.matches.insert(identity);
            }
        }
        self.identities.insert(identity, Known { labels, prefixes });
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
        self.identities.get(&identity).map(|known| &known.labels)
    }

    /// Every prefix that a selector names, as such or as a hole, except those of length 0: they are the world.
    pub(crate) fn prefixes(&self) -> BTreeSet<IpNet> {
        self.prefixes.keys().filter(|prefix| prefix.prefix_len() > 0).copied().collect()
    }

    /// Every selector, how many use it, and whom it matches.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Selector, usize, &BTreeSet<Identity>)> {
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
        let Some(known) = self.identities.remove(&identity) else { return BTreeSet::new() };
        for label in known.labels.iter() {
            self.owned.remove(&label.key, &label.value, identity);
        }
        for prefix in &known.prefixes {
            remove_from_trie(&mut self.cidr_identities, prefix, identity);
        }
        let matched = self.find_selectors(&known.labels, &known.prefixes);
        for id in &matched {
            if let Some(cached) = self.selectors.get_mut(id) {
                cached.matches.remove(&identity);
            }
        }
        matched
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
        let by_label = labels.iter().flat_map(|label| self.wanted.get(&label.key, &label.value));
        let candidates: BTreeSet<SelectorId> =
            by_label.flatten().flatten().chain(&self.unanchored).copied().collect();
        let mut found: BTreeSet<SelectorId> = candidates
            .into_iter()
            .filter(|id| match self.selectors.get(id).map(|cached| &cached.selector) {
                Some(Selector::Labels(selector)) => selector.matches(labels),
                Some(Selector::Cidr(_)) | None => false,
            })
            .collect();
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
    fn find_identities(&self, selector: &Selector) -> BTreeSet<Identity> {
        match selector {
            Selector::Labels(selector) => match self.smallest(selector) {
                Some(candidates) => candidates
                    .into_iter()
                    .filter(|identity| {
                        self.identities.get(identity).is_some_and(|known| selector.matches(&known.labels))
                    })
                    .collect(),
                None => self
                    .identities
                    .iter()
                    .filter(|(_, known)| selector.matches(&known.labels))
                    .map(|(identity, _)| *identity)
                    .collect(),
            },
            Selector::Cidr(selector) => self
                .cidr_identities
                .children(&selector.prefix)
                .filter(|(prefix, _)| selector.covers(prefix))
                .flat_map(|(_, identities)| identities.iter().copied())
                .collect(),
        }
    }

    /// The fewest identities among which all that match must be.
    fn smallest(&self, selector: &LabelSelector) -> Option<BTreeSet<Identity>> {
        let size = |anchor: &Anchor<'_>| self.owned.at(anchor).map(BTreeSet::len).sum::<usize>();
        let anchor = anchors(selector).min_by_key(size)?;
        Some(self.owned.at(&anchor).flatten().copied().collect())
    }

    fn index_selector(&mut self, id: SelectorId, selector: &Selector) {
        match selector {
            Selector::Labels(selector) => match best_anchor(selector) {
                Some(Anchor::Values(key, values)) => {
                    for value in values {
                        self.wanted.add_value(key, value, id);
                    }
                }
                Some(Anchor::Key(key)) => self.wanted.add_key(key, id),
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
            Selector::Labels(selector) => match best_anchor(selector) {
                Some(Anchor::Values(key, values)) => {
                    for value in values {
                        self.wanted.remove_value(key, value, id);
                    }
                }
                Some(Anchor::Key(key)) => self.wanted.remove_key(key, id),
                None => {
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

/// Whether every pod has this label: the cluster's is the least telling, then the namespace's.
fn is_common(key: &str) -> u8 {
    match key {
        crate::labels::CLUSTER => 2,
        NAMESPACE => 1,
        _ => 0,
    }
}

fn remove_from_trie<T: Ord>(trie: &mut JointPrefixMap<IpNet, BTreeSet<T>>, prefix: &IpNet, item: T) {
    let Some(set) = trie.get_mut(prefix) else { return };
    set.remove(&item);
    if set.is_empty() {
        trie.remove(prefix);
    }
}

impl<T: Copy + Ord> Index<T> {
    /// What stands under the label, by value and by key.
    fn get(&self, key: &str, value: &str) -> [Option<&BTreeSet<T>>; 2] {
        let by_value = self.by_value.get(&(key.to_owned(), value.to_owned()));
        [by_value, self.by_key.get(key)]
    }

    fn at<'a>(&'a self, anchor: &Anchor<'a>) -> impl Iterator<Item = &'a BTreeSet<T>> {
        let (values, key) = match anchor {
            Anchor::Values(key, values) => (Some((*key, *values)), None),
            Anchor::Key(key) => (None, Some(*key)),
        };
        let by_value = values.into_iter().flat_map(move |(key, values)| {
            values.iter().filter_map(move |value| self.by_value.get(&(key.to_owned(), value.clone())))
        });
        by_value.chain(key.into_iter().filter_map(|key| self.by_key.get(key)))
    }

    fn add(&mut self, key: &str, value: &str, item: T) {
        self.add_value(key, value, item);
        self.add_key(key, item);
    }

    fn remove(&mut self, key: &str, value: &str, item: T) {
        self.remove_value(key, value, item);
        self.remove_key(key, item);
    }

    fn add_value(&mut self, key: &str, value: &str, item: T) {
        self.by_value.entry((key.to_owned(), value.to_owned())).or_default().insert(item);
    }

    fn add_key(&mut self, key: &str, item: T) {
        self.by_key.entry(key.to_owned()).or_default().insert(item);
    }

    fn remove_value(&mut self, key: &str, value: &str, item: T) {
        let place = (key.to_owned(), value.to_owned());
        if let Some(set) = self.by_value.get_mut(&place) {
            set.remove(&item);
            if set.is_empty() {
                self.by_value.remove(&place);
            }
        }
    }

    fn remove_key(&mut self, key: &str, item: T) {
        if let Some(set) = self.by_key.get_mut(key) {
            set.remove(&item);
            if set.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
