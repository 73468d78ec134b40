//! Whose policy a change touches.

use std::collections::BTreeSet;

use sluice_types::Labels;

use crate::rule::RuleSubject;

/// The subjects of the rules that a change touches.
#[must_use = "the policy of the endpoints it affects must be resolved again"]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changed {
    subjects: BTreeSet<RuleSubject>,
}

impl Changed {
    /// Whether nobody's policy changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether the policy of the endpoint with these labels may have changed.
    #[must_use]
    pub fn affects(&self, labels: &Labels) -> bool {
        self.subjects.iter().any(|subject| subject.matches(labels))
    }

    /// Adds what another change touches.
    pub fn merge(&mut self, other: Self) {
        self.subjects.extend(other.subjects);
    }

    pub(super) fn add(&mut self, subject: RuleSubject) {
        self.subjects.insert(subject);
    }
}

impl FromIterator<RuleSubject> for Changed {
    fn from_iter<T: IntoIterator<Item = RuleSubject>>(subjects: T) -> Self {
        Self { subjects: subjects.into_iter().collect() }
    }
}
