//! Whose policy a change touches.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    ptr,
    sync::Arc,
};

use sluice_types::{Labels, Source};

use super::InstalledRule;
use crate::{labels::NAMESPACE, rule::RuleSubject};

/// The subjects of the rules that a change touches.
#[must_use = "the policy of the endpoints it affects must be resolved again"]
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Those that are confined to one namespace.
    within: HashMap<Arc<str>, HashSet<Touched>>,
    anywhere: HashSet<Touched>,
}

/// A subject, told from others by where it is: comparing what it says would cost more than asking twice.
#[derive(Clone, Debug)]
struct Touched(Arc<RuleSubject>);

impl PartialEq for Touched {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Touched {}

impl Hash for Touched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::hash(Arc::as_ptr(&self.0), state);
    }
}

impl Changed {
    /// Whether nobody's policy changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.within.is_empty() && self.anywhere.is_empty()
    }

    /// Whether the policy of the endpoint with these labels may have changed.
    #[must_use]
    pub fn affects(&self, labels: &Labels) -> bool {
        let home = labels.value(&Source::K8s, NAMESPACE).and_then(|namespace| self.within.get(namespace));
        let subjects = home.into_iter().flatten().chain(&self.anywhere);
        subjects.into_iter().any(|subject| subject.0.matches(labels))
    }

    /// Adds what another change touches.
    pub fn merge(&mut self, other: Self) {
        for (namespace, subjects) in other.within {
            self.within.entry(namespace).or_default().extend(subjects);
        }
        self.anywhere.extend(other.anywhere);
    }

    pub(super) fn add(&mut self, rule: &InstalledRule) {
        let subject = Touched(Arc::clone(&rule.subject));
        match &rule.home {
            Some(namespace) => self.within.entry(Arc::clone(namespace)).or_default().insert(subject),
            None => self.anywhere.insert(subject),
        };
    }
}

impl<'a> FromIterator<&'a InstalledRule> for Changed {
    fn from_iter<T: IntoIterator<Item = &'a InstalledRule>>(rules: T) -> Self {
        let mut changed = Self::default();
        rules.into_iter().for_each(|rule| changed.add(rule));
        changed
    }
}
