//! Which parts of which rules a flow met: what a test suite never meets is not tested.

use std::collections::BTreeMap;

use sluice_policy::{PolicyRef, Rule, rule::PortRule};

use crate::{Cluster, Trace};

/// One part of a policy that a test can meet: a rule, or one element of its rules about requests.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RulePart {
    /// The policy.
    pub policy: PolicyRef,
    /// Where in it, `ingress[0]` or `ingress[0].http[1]`; `ingress[0].toPorts[1].http[0]` if the rule has several
    /// elements of `toPorts`.
    pub rule: String,
}

/// The parts of every policy.
#[derive(Debug, Default)]
pub(crate) struct RuleParts {
    policies: BTreeMap<PolicyRef, Parts>,
}

/// The parts of one policy.
#[derive(Debug, Default)]
struct Parts {
    /// In the order of the document.
    all: Vec<String>,
    /// The name that a part has here, by the name that the engine gives it.
    shown: BTreeMap<String, String>,
}

impl RuleParts {
    pub(crate) fn set(&mut self, policy: &PolicyRef, rules: &[Rule]) {
        let mut parts = Parts::default();
        for rule in rules {
            parts.add(rule);
        }
        self.policies.insert(policy.clone(), parts);
    }

    pub(crate) fn remove(&mut self, policy: &PolicyRef) {
        self.policies.remove(policy);
    }
}

impl Parts {
    fn add(&mut self, rule: &Rule) {
        let ports: Vec<&PortRule> = rule.ports.rules().collect();
        let only = ports.len() == 1;
        if ports.is_empty() || ports.iter().any(|ports| ports.l7.is_none()) {
            self.all.push(rule.path.clone());
        }
        for ports in ports {
            for part in ports.l7.iter().flat_map(|rules| rules.parts()) {
                let full = format!("{}.{}.{part}", rule.path, ports.path);
                let shown = if only { format!("{}.{part}", rule.path) } else { full.clone() };
                self.all.push(shown.clone());
                self.shown.insert(full, shown);
            }
        }
    }
}

impl Cluster {
    /// Every part of every policy, in order.
    pub fn rule_parts(&self) -> impl Iterator<Item = RulePart> {
        self.parts.policies.iter().flat_map(|(policy, parts)| {
            parts.all.iter().map(|rule| RulePart { policy: policy.clone(), rule: rule.clone() })
        })
    }

    /// The parts that decided about a flow, or that name the request in it.
    #[must_use]
    pub fn hits(&self, trace: &Trace) -> Vec<RulePart> {
        let mut hits = Vec::new();
        for side in trace.sides() {
            let parts = side.explanation.request.iter().flat_map(|request| &request.parts);
            let requests: Vec<RulePart> = parts
                .filter_map(|(rule, part)| {
                    let origin = self.repository.rule(*rule)?;
                    Some(self.part(&origin.policy, &format!("{}.{part}", origin.path)))
                })
                .collect();
            if requests.is_empty() {
                let rule = side.explanation.rule.as_ref();
                hits.extend(rule.map(|rule| self.part(&rule.policy, &rule.path)));
            }
            hits.extend(requests);
        }
        hits
    }

    /// A part by the name that the engine gives it.
    fn part(&self, policy: &PolicyRef, engine: &str) -> RulePart {
        let shown = self.parts.policies.get(policy).and_then(|parts| parts.shown.get(engine));
        RulePart { policy: policy.clone(), rule: shown.map_or(engine, String::as_str).to_owned() }
    }
}
