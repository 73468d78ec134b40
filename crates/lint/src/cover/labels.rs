//! Implication between label selectors.

use std::collections::{BTreeMap, BTreeSet};

use sluice_policy::selector::{LabelKey, LabelSelector, Requirement};
use sluice_types::Source;

/// Whether all that `narrow` selects is selected by `wide`: each requirement of `wide` follows from one of `narrow`.
pub(crate) fn implies(narrow: &LabelSelector, wide: &LabelSelector) -> bool {
    wide.requirements().all(|wanted| narrow.requirements().any(|given| follows(given, wanted)))
}

/// Whether `wanted` holds wherever `given` does.
fn follows(given: &Requirement, wanted: &Requirement) -> bool {
    let (own, its) = (given.key(), wanted.key());
    if own.key != its.key {
        return false;
    }
    // A label of one source is one of any source; where no source has it, none in particular has.
    let narrower = its.source.accepts(&own.source);
    let wider = own.source.accepts(&its.source);
    match (given, wanted) {
        (Requirement::In(_, values), Requirement::In(_, wanted)) => narrower && values.is_subset(wanted),
        (Requirement::In(..) | Requirement::Exists(_), Requirement::Exists(_)) => narrower,
        // Only where a key cannot have a second value.
        (Requirement::In(_, values), Requirement::NotIn(_, refused)) => {
            own == its && own.source != Source::Any && values.is_disjoint(refused)
        }
        (Requirement::NotIn(_, refused), Requirement::NotIn(_, wanted)) => wider && wanted.is_subset(refused),
        (Requirement::DoesNotExist(_), Requirement::NotIn(..) | Requirement::DoesNotExist(_)) => wider,
        (Requirement::In(..), Requirement::DoesNotExist(_))
        | (
            Requirement::NotIn(..),
            Requirement::In(..) | Requirement::Exists(_) | Requirement::DoesNotExist(_),
        )
        | (
            Requirement::Exists(_),
            Requirement::In(..) | Requirement::NotIn(..) | Requirement::DoesNotExist(_),
        )
        | (Requirement::DoesNotExist(_), Requirement::In(..) | Requirement::Exists(_)) => false,
    }
}

/// The key because of which nobody can match, if there is one: what is required of it cannot all hold.
///
/// Only Kubernetes' labels are looked at, of which a pod has one value each. A key without a source means these too:
/// nobody else gives labels to pods.
pub(crate) fn contradiction(selector: &LabelSelector) -> Option<&LabelKey> {
    let mut by_key: BTreeMap<&str, Vec<&Requirement>> = BTreeMap::new();
    for requirement in selector.requirements() {
        if matches!(requirement.key().source, Source::Any | Source::K8s) {
            by_key.entry(&requirement.key().key).or_default().push(requirement);
        }
    }
    let mut keys = by_key.into_values();
    keys.find(|requirements| contradict(requirements)).and_then(|all| all.first().map(|first| first.key()))
}

fn contradict(requirements: &[&Requirement]) -> bool {
    let mut allowed: Option<BTreeSet<&String>> = None;
    let (mut present, mut absent) = (false, false);
    let mut refused = BTreeSet::new();
    for requirement in requirements {
        match requirement {
            Requirement::In(_, values) => {
                present = true;
                let values: BTreeSet<&String> = values.iter().collect();
                allowed = Some(match allowed {
                    Some(before) => before.intersection(&values).copied().collect(),
                    None => values,
                });
            }
            Requirement::NotIn(_, values) => refused.extend(values),
            Requirement::Exists(_) => present = true,
            Requirement::DoesNotExist(_) => absent = true,
        }
    }
    (present && absent) || allowed.is_some_and(|allowed| allowed.is_subset(&refused))
}
