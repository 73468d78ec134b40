//! What two versions of a cluster's policies do differently: who reaches whom, on which ports, and who is closed.
//!
//! Both clusters must hold the same participants ([`crate::meet`]); all ports are compared, not samples.

use std::collections::BTreeSet;

use sluice_policy::{DirectionState, EndpointPolicy, PolicyRef};
use sluice_types::Direction;

use crate::{
    end::UnknownEnd,
    matrix::Group,
    reach::{Judges, Passage, Reach, Span},
};

/// A span of ports to which something else happens now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpanChange {
    /// The ports, with what happens now.
    pub span: Span,
    /// What happened before.
    pub before: Passage,
}

/// How a change is felt.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Felt {
    /// Something passes that did not.
    Opened,
    /// Something does not pass that did.
    Closed,
    /// It passed and passes, but a proxy judges its requests now, or by other rules, or does so no longer.
    Requests,
    /// It passes in audit mode instead of by a rule, or the other way around.
    Audit,
}

impl SpanChange {
    /// How it is felt.
    #[must_use]
    pub const fn felt(&self) -> Felt {
        match (&self.before, &self.span.passage) {
            (Passage::Closed, _) => Felt::Opened,
            (_, Passage::Closed) => Felt::Closed,
            (Passage::Requests(_), _) | (_, Passage::Requests(_)) => Felt::Requests,
            (Passage::Open | Passage::Audited, Passage::Open | Passage::Audited) => Felt::Audit,
        }
    }
}

/// What is different between two groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairChange {
    /// Who sends.
    pub from: Group,
    /// Who receives.
    pub to: Group,
    /// The ports; never empty.
    pub spans: Vec<SpanChange>,
}

/// Somebody became closed except for what rules allow, or is so no longer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IsolationChange {
    /// Who.
    pub subject: Group,
    /// In which direction.
    pub direction: Direction,
    /// Whether it is closed now.
    pub isolated: bool,
    /// The policies that close it, or that closed it before.
    pub by: Vec<PolicyRef>,
}

/// Everything that is different.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Comparison {
    /// Who is closed.
    pub isolation: Vec<IsolationChange>,
    /// What passes.
    pub pairs: Vec<PairChange>,
}

impl Comparison {
    /// Whether nothing is different.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.isolation.is_empty() && self.pairs.is_empty()
    }
}

/// Compares what happens between these, by name.
///
/// # Errors
/// Nobody is called that in one of the clusters.
pub fn compare(old: &Judges<'_>, new: &Judges<'_>, names: &[String]) -> Result<Comparison, UnknownEnd> {
    let groups = common_groups(old, new, names);
    let mut comparison = Comparison::default();
    for group in &groups {
        let policies = [old, new].map(|judges| judges.policy(group.first()));
        if let [Some(before), Some(after)] = policies {
            comparison.isolation.extend(isolation(group, before, after));
        }
    }
    for from in &groups {
        for to in &groups {
            let is_judged = |group: &Group| old.policy(group.first()).or(new.policy(group.first())).is_some();
            if !is_judged(from) && !is_judged(to) {
                continue;
            }
            // Of one group two different members are asked; a single one always reaches itself.
            let receiver = if from == to { to.members.get(1) } else { to.members.first() };
            let Some(receiver) = receiver else { continue };
            let spans = differences(&old.reach(from.first(), receiver)?, &new.reach(from.first(), receiver)?);
            if !spans.is_empty() {
                comparison.pairs.push(PairChange { from: from.clone(), to: to.clone(), spans });
            }
        }
    }
    Ok(comparison)
}

/// Those who are alike before and after.
fn common_groups(old: &Judges<'_>, new: &Judges<'_>, names: &[String]) -> Vec<Group> {
    old.groups(names).iter().flat_map(|group| new.groups(&group.members)).collect()
}

fn isolation(group: &Group, before: &EndpointPolicy, after: &EndpointPolicy) -> Vec<IsolationChange> {
    let sides = [
        (Direction::Ingress, &before.ingress, &after.ingress),
        (Direction::Egress, &before.egress, &after.egress),
    ];
    let is_closed = |state: &DirectionState| !state.isolated_by.is_empty();
    let changed = sides.into_iter().filter(|(_, before, after)| is_closed(before) != is_closed(after));
    changed
        .map(|(direction, before, after)| IsolationChange {
            subject: group.clone(),
            direction,
            isolated: is_closed(after),
            by: if is_closed(after) { after.isolated_by.clone() } else { before.isolated_by.clone() },
        })
        .collect()
}

/// Where two differ, in spans as wide as they can be.
fn differences(before: &Reach, after: &Reach) -> Vec<SpanChange> {
    let starts: BTreeSet<_> =
        before.spans().iter().chain(after.spans()).map(|span| (span.protocol, span.first)).collect();
    let lasts: BTreeSet<_> =
        before.spans().iter().chain(after.spans()).map(|span| (span.protocol, span.last)).collect();
    let mut found: Vec<SpanChange> = Vec::new();
    // Both cover every protocol without gaps, so there are as many ends as beginnings, in the same order.
    for ((protocol, first), (_, last)) in starts.into_iter().zip(lasts) {
        let (was, is) = (before.at(protocol, first), after.at(protocol, first));
        if was == is {
            continue;
        }
        let adjoins = |known: &&mut SpanChange| {
            known.span.protocol == protocol
                && known.span.last.checked_add(1) == Some(first)
                && known.before == *was
                && known.span.passage == *is
        };
        match found.last_mut().filter(adjoins) {
            Some(known) => known.span.last = last,
            None => found.push(SpanChange {
                span: Span { protocol, first, last, passage: is.clone() },
                before: was.clone(),
            }),
        }
    }
    found
}

#[cfg(test)]
mod tests;
