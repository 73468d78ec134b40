//! A set of identities that takes little more room than its numbers.

use std::fmt;

use sluice_types::Identity;

/// Identities, sorted.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct IdentitySet(Vec<Identity>);

impl IdentitySet {
    /// Whether the identity is one of them.
    #[must_use]
    pub fn contains(&self, identity: Identity) -> bool {
        self.0.binary_search(&identity).is_ok()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Identity> {
        self.0.iter().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one. There are many small sets, so what they reserve beyond their content counts.
    pub(super) fn insert(&mut self, identity: Identity) {
        if let Err(place) = self.0.binary_search(&identity) {
            if self.0.len() == self.0.capacity() {
                self.0.reserve_exact(self.0.len() / 8 + 1);
            }
            self.0.insert(place, identity);
        }
    }

    pub(super) fn remove(&mut self, identity: Identity) {
        if let Ok(place) = self.0.binary_search(&identity) {
            self.0.remove(place);
            if self.0.len() < self.0.capacity() / 2 {
                self.0.shrink_to_fit();
            }
        }
    }
}

impl FromIterator<Identity> for IdentitySet {
    fn from_iter<T: IntoIterator<Item = Identity>>(identities: T) -> Self {
        let mut all: Vec<Identity> = identities.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        all.shrink_to_fit();
        Self(all)
    }
}

impl fmt::Debug for IdentitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0..40u32), 0..200)) {
            let (mut set, mut want) = (IdentitySet::default(), BTreeSet::new());
            for (insert, number) in steps {
                let identity = Identity::new(number);
                if insert {
                    set.insert(identity);
                    want.insert(identity);
                } else {
                    set.remove(identity);
                    want.remove(&identity);
                }
                prop_assert_eq!(set.contains(identity), insert);
                prop_assert!(set.iter().eq(want.iter().copied()) && set.len() == want.len());
            }
            prop_assert_eq!(want.into_iter().rev().collect::<IdentitySet>(), set);
        }
    }
}
