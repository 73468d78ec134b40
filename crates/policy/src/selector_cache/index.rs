//! Sets by label. Sources are left out, they are compared afterwards.

use std::collections::{BTreeSet, HashMap};

use sluice_types::Identity;

use super::{IdentitySet, SelectorId};

/// Sets by key and value, and by key alone.
#[derive(Debug)]
pub(super) struct Index<S> {
    keys: HashMap<Box<str>, Values<S>>,
}

#[derive(Debug)]
struct Values<S> {
    by_value: HashMap<Box<str>, S>,
    by_key: S,
}

/// The requirement under which a selector stands in the index: whoever matches fulfils it.
pub(super) enum Anchor<'a> {
    Values(&'a str, &'a BTreeSet<String>),
    Key(&'a str),
}

impl<'a> Anchor<'a> {
    pub(super) const fn key(&self) -> &'a str {
        match self {
            Self::Values(key, _) | Self::Key(key) => key,
        }
    }
}

impl<S> Default for Index<S> {
    fn default() -> Self {
        Self { keys: HashMap::new() }
    }
}

impl<S: Default> Index<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What stands under a label, by value and by key.
    pub(super) fn get(&self, key: &str, value: &str) -> [Option<&S>; 2] {
        match self.keys.get(key) {
            Some(values) => [values.by_value.get(value), Some(&values.by_key)],
            None => [None, None],
        }
    }

    /// The set under a key and value, to be added to.
    pub(super) fn at_value(&mut self, key: &str, value: &str) -> &mut S {
        self.at_key(key).by_value.entry(value.into()).or_default()
    }

    fn at_key(&mut self, key: &str) -> &mut Values<S> {
        let empty = || Values { by_value: HashMap::new(), by_key: S::default() };
        self.keys.entry(key.into()).or_insert_with(empty)
    }
}

impl Index<BTreeSet<SelectorId>> {
    pub(super) fn add(&mut self, anchor: &Anchor<'_>, id: SelectorId) {
        match anchor {
            Anchor::Values(key, values) => {
                for value in *values {
                    self.at_value(key, value).insert(id);
                }
            }
            Anchor::Key(key) => {
                self.at_key(key).by_key.insert(id);
            }
        }
    }

    pub(super) fn remove(&mut self, anchor: &Anchor<'_>, id: SelectorId) {
        let Some(place) = self.keys.get_mut(anchor.key()) else { return };
        match anchor {
            Anchor::Values(_, values) => {
                for value in *values {
                    if let Some(set) = place.by_value.get_mut(&**value) {
                        set.remove(&id);
                        if set.is_empty() {
                            place.by_value.remove(&**value);
                        }
                    }
                }
            }
            Anchor::Key(_) => {
                place.by_key.remove(&id);
            }
        }
        if place.by_value.is_empty() && place.by_key.is_empty() {
            self.keys.remove(anchor.key());
        }
    }
}

/// Identities stand under values only; those with a key are those with any value of it.
impl Index<IdentitySet> {
    pub(super) fn at<'a>(&'a self, anchor: &Anchor<'_>) -> impl Iterator<Item = &'a IdentitySet> {
        let place = self.keys.get(anchor.key());
        let sets: Vec<&IdentitySet> = match (place, anchor) {
            (None, _) => Vec::new(),
            (Some(place), Anchor::Values(_, values)) => {
                values.iter().filter_map(|value| place.by_value.get(&**value)).collect()
            }
            (Some(place), Anchor::Key(_)) => place.by_value.values().collect(),
        };
        sets.into_iter()
    }

    pub(super) fn remove_value(&mut self, key: &str, value: &str, identity: Identity) {
        let Some(place) = self.keys.get_mut(key) else { return };
        let Some(set) = place.by_value.get_mut(value) else { return };
        set.remove(identity);
        if set.is_empty() {
            place.by_value.remove(value);
            if place.by_value.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}
