//! All rules and identities of the node, and the policy of each endpoint that follows from them.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use sluice_types::{Identity, Labels, RuleId};

use crate::{
    config::Config,
    map_state::MapState,
    rule::{NamedPort, PolicyRef, Rule, RuleOrigin, RuleSubject, Subject},
};

/// What a change touches: whose policy must be resolved again.
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
}

/// How one direction of an endpoint is judged, for reports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DirectionState {
    /// Whether rules are looked at.
    pub enforced: bool,
    /// Whether denials are only reported.
    pub audit: bool,
    /// The policies that close the direction except for what rules allow.
    pub isolated_by: Vec<PolicyRef>,
}

/// The policy of one endpoint.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EndpointPolicy {
    /// What the kernel's policy map must hold.
    pub map_state: Arc<MapState>,
    /// The revision of the repository it was resolved from.
    pub revision: u64,
    /// How ingress is judged.
    pub ingress: DirectionState,
    /// How egress is judged.
    pub egress: DirectionState,
}

/// All rules and identities of the node.
#[derive(Debug, Default)]
pub struct Repository {
    config: Config,
    revision: u64,
}

impl Repository {
    /// A repository without rules or identities.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, revision: 1 }
    }

    /// The options it was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Puts the rules of a policy in the place of those it had.
    pub fn upsert(&mut self, _policy: PolicyRef, _rules: Vec<Rule>) -> Changed {
        self.revision += 1;
        Changed::default()
    }

    /// Takes a policy out.
    pub fn remove(&mut self, _policy: &PolicyRef) -> Changed {
        self.revision += 1;
        Changed::default()
    }

    /// Counts the changes of rules.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes an identity known, or gives it other labels.
    pub fn set_identity(&mut self, _identity: Identity, _labels: Labels) -> Changed {
        Changed::default()
    }

    /// Forgets an identity.
    pub fn remove_identity(&mut self, _identity: Identity) -> Changed {
        Changed::default()
    }

    /// Says which names the pod `owner` (`namespace/name`) gives to its ports.
    pub fn set_named_ports(&mut self, _owner: &str, _identity: Identity, _ports: Vec<NamedPort>) -> Changed {
        Changed::default()
    }

    /// Forgets the port names of a pod.
    pub fn remove_named_ports(&mut self, _owner: &str) -> Changed {
        Changed::default()
    }

    /// Every prefix and hole that a rule names. Each needs an identity and its place in the ipcache.
    #[must_use]
    pub fn prefixes(&self) -> BTreeSet<IpNet> {
        BTreeSet::new()
    }

    /// The policy of an endpoint. Endpoints that are equal as subjects share one.
    #[must_use]
    pub fn resolve(&self, _subject: &Subject) -> Arc<EndpointPolicy> {
        Arc::new(EndpointPolicy { revision: self.revision, ..EndpointPolicy::default() })
    }

    /// Where the rule with this number comes from.
    #[must_use]
    pub fn rule(&self, _id: RuleId) -> Option<&RuleOrigin> {
        None
    }
}
