//! Which parts of the policies the tests met.

use std::collections::BTreeMap;

use serde::Serialize;
use sluice_api::Manifest;
use sluice_model::{Cluster, RulePart};
use sluice_policy::{PolicyKind, PolicyRef};

/// How often the tests met one part of a policy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Coverage {
    /// `NAMESPACE/NAME`, or the name of a clusterwide policy; with the kind in front where it is needed to tell two
    /// policies apart.
    pub policy: String,
    /// Where in it: `ingress[0]`, `ingress[0].http[1]`.
    pub rule: String,
    /// By how many tests.
    pub hits: usize,
    /// The file of the policy, for people.
    #[serde(skip)]
    pub file: String,
    /// The line of the policy, for people.
    #[serde(skip)]
    pub line: u32,
}

/// In which file each policy stands, and on which line.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    places: BTreeMap<PolicyRef, (String, u32)>,
}

impl Origins {
    pub(crate) fn add(&mut self, file: &str, manifest: &Manifest) {
        if let Some(policy) = policy_of(manifest) {
            self.places.insert(policy, (file.to_owned(), manifest.line));
        }
    }
}

/// The policy that an object is.
fn policy_of(manifest: &Manifest) -> Option<PolicyRef> {
    let object = manifest.content.as_ref().ok()?;
    let (kind, is_clusterwide) = match object {
        sluice_api::Object::CiliumNetworkPolicy(_) => (PolicyKind::Cnp, false),
        sluice_api::Object::NetworkPolicy(_) => (PolicyKind::Knp, false),
        sluice_api::Object::CiliumClusterwideNetworkPolicy(_) => (PolicyKind::Ccnp, true),
        sluice_api::Object::ClusterNetworkPolicy(_) => (PolicyKind::Kcnp, true),
        sluice_api::Object::Pod(_)
        | sluice_api::Object::Namespace(_)
        | sluice_api::Object::Node(_)
        | sluice_api::Object::Service(_)
        | sluice_api::Object::EndpointSlice(_)
        | sluice_api::Object::CiliumCidrGroup(_)
        | sluice_api::Object::Secret(_)
        | sluice_api::Object::Ignored => return None,
    };
    let namespace = manifest.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    Some(PolicyRef::new(kind, if is_clusterwide { "" } else { namespace }, &manifest.name))
}

/// Hits of every part of every policy document. A document that several test files use is counted once.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    parts: BTreeMap<Origin, Vec<(String, usize)>>,
}

/// A policy document.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Origin {
    file: String,
    line: u32,
    policy: PolicyRef,
}

impl Counter {
    /// Makes the parts of a cluster's policies known.
    pub(crate) fn expect(&mut self, cluster: &Cluster, origins: &Origins) {
        for part in cluster.rule_parts() {
            let parts = self.parts.entry(origin(&part, origins)).or_default();
            if !parts.iter().any(|(rule, _)| *rule == part.rule) {
                parts.push((part.rule, 0));
            }
        }
    }

    pub(crate) fn hit(&mut self, part: &RulePart, origins: &Origins) {
        let parts = self.parts.get_mut(&origin(part, origins));
        let own = parts.and_then(|parts| parts.iter_mut().find(|(rule, _)| *rule == part.rule));
        if let Some((_, hits)) = own {
            *hits += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (origin, parts) in other.parts {
            let own = self.parts.entry(origin).or_default();
            for (rule, hits) in parts {
                match own.iter_mut().find(|(known, _)| *known == rule) {
                    Some((_, sum)) => *sum += hits,
                    None => own.push((rule, hits)),
                }
            }
        }
    }

    /// A row for each part.
    pub(crate) fn rows(&self) -> Vec<Coverage> {
        let mut rows = Vec::new();
        for (origin, parts) in &self.parts {
            let policy = shown(&origin.policy, self.parts.keys().map(|other| &other.policy));
            rows.extend(parts.iter().map(|(rule, hits)| Coverage {
                policy: policy.clone(),
                rule: rule.clone(),
                hits: *hits,
                file: origin.file.clone(),
                line: origin.line,
            }));
        }
        rows
    }
}

fn origin(part: &RulePart, origins: &Origins) -> Origin {
    let (file, line) = origins.places.get(&part.policy).cloned().unwrap_or_default();
    Origin { file, line, policy: part.policy.clone() }
}

/// A policy's name in reports: without its kind, unless another kind has a policy of this name as well.
pub(crate) fn shown<'a>(policy: &PolicyRef, mut all: impl Iterator<Item = &'a PolicyRef>) -> String {
    let is_twin = |other: &PolicyRef| (&other.namespace, &other.name) == (&policy.namespace, &policy.name);
    if all.any(|other| other.kind != policy.kind && is_twin(other)) {
        return policy.to_string();
    }
    bare(policy)
}

/// `NAMESPACE/NAME`, or the name alone.
pub(crate) fn bare(policy: &PolicyRef) -> String {
    if policy.namespace.is_empty() {
        return policy.name.clone();
    }
    format!("{}/{}", policy.namespace, policy.name)
}

/// Whether `text` names the policy, with its kind in front or without.
pub(crate) fn names(text: &str, policy: &PolicyRef) -> bool {
    let bare = bare(policy);
    let Some(kind) = text.strip_suffix(&bare) else { return false };
    let in_full = match policy.kind {
        PolicyKind::Cnp => "ciliumnetworkpolicy",
        PolicyKind::Ccnp => "ciliumclusterwidenetworkpolicy",
        PolicyKind::Knp => "networkpolicy",
        PolicyKind::Kcnp => "clusternetworkpolicy",
    };
    match kind.strip_suffix('/') {
        None => kind.is_empty(),
        Some(kind) => [policy.kind.as_str(), in_full].contains(&kind.to_ascii_lowercase().as_str()),
    }
}
