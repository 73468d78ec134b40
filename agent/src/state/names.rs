//! Who is who, for reports of packets: kept beside the state and published when it changed.

use std::sync::Arc;

use sluice_flow::PolicyOrigin;
use sluice_policy::{EndpointPolicy, Repository};
use sluice_types::{EndpointId, Identity, Labels, RuleId};

use crate::observe::{EndpointName, Names};

/// Rules that are remembered after they are gone, so that late reports name them. Beyond this all are forgotten
/// and learnt anew.
const RULES_MAX: usize = 200_000;

/// The names as they are, and whether somebody must be told.
#[derive(Debug, Default)]
pub(crate) struct NamesCache {
    names: Names,
    is_changed: bool,
}

impl NamesCache {
    /// `identity` stands for `labels`, or for nothing any more.
    pub(super) fn identity(&mut self, identity: Identity, labels: Option<&Labels>) {
        self.is_changed = true;
        let identities = Arc::make_mut(&mut self.names.identities);
        match labels {
            Some(labels) => identities.insert(identity, Arc::new(labels.clone())),
            None => identities.remove(&identity),
        };
    }

    /// The endpoint `id` is called `name`, or there is none any more.
    pub(super) fn endpoint(&mut self, id: EndpointId, name: Option<EndpointName>) {
        let endpoints = Arc::make_mut(&mut self.names.endpoints);
        match name {
            Some(name) if endpoints.get(&id.as_u16()).is_some_and(|known| **known == name) => return,
            Some(name) => endpoints.insert(id.as_u16(), Arc::new(name)),
            None => endpoints.remove(&id.as_u16()),
        };
        self.is_changed = true;
    }

    /// The rules of a policy can be reported from now on.
    pub(super) fn policy(&mut self, policy: &EndpointPolicy, repository: &Repository) {
        let mut last = RuleId::NONE;
        for rule in policy.map_state.entries.values().map(|entry| entry.rule) {
            if rule == last || rule == RuleId::NONE || self.names.rules.contains_key(&rule) {
                continue;
            }
            last = rule;
            if let Some(origin) = repository.rule(rule) {
                let origin = PolicyOrigin { policy: origin.policy.to_string(), rule: origin.path.clone() };
                let rules = Arc::make_mut(&mut self.names.rules);
                if rules.len() >= RULES_MAX {
                    rules.clear();
                }
                rules.insert(rule, origin);
                self.is_changed = true;
            }
        }
    }

    /// The names, if they changed since the last call.
    pub(super) fn publish(&mut self) -> Option<Arc<Names>> {
        std::mem::take(&mut self.is_changed).then(|| Arc::new(self.names.clone()))
    }
}
