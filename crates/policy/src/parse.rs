//! From objects as users write them to rules: everything is checked here.
//!
//! One error refuses the whole object, and all errors are reported at once. What is part of the language but not of
//! this version is refused by its name, never left out: leaving out a restriction would widen the policy. Never
//! looks at identities or other policies; the agent and the command call it.

mod cidr;
mod cidr_group;
mod cilium;
mod cluster;
mod entity;
mod entry;
mod icmp;
mod kubernetes;
mod l7;
mod peers;
mod pod;
mod ports;
mod reason;
mod selectors;
mod service;

use std::fmt;

use sluice_api as api;

pub use cidr_group::cidr_group;
pub use pod::named_ports;
pub use reason::Reason;
pub(crate) use selectors::namespace_requirement;
pub use service::{endpoint_slice, service};

use reason::Words;

use crate::{
    config::Config,
    rule::{PolicyKind, PolicyRef, Rule, Tier},
};

/// What is wrong with an object, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ParseError {
    /// `spec.ingress[0].toPorts[1]`.
    pub path: String,
    /// What is wrong there.
    pub reason: Reason,
}

/// The rules of a `CiliumNetworkPolicy`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn cilium_network_policy(
    policy: &api::CiliumNetworkPolicy,
    config: &Config,
) -> Result<Vec<Rule>, Vec<ParseError>> {
    let scope = cilium::Scope::Namespace(namespace_of(&policy.metadata));
    policy_rules(&policy.metadata, |report| {
        cilium::rules(policy.spec.as_ref(), policy.specs.as_deref(), scope, config, report)
    })
}

/// The rules of a `CiliumClusterwideNetworkPolicy`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn cilium_clusterwide_network_policy(
    policy: &api::CiliumClusterwideNetworkPolicy,
    config: &Config,
) -> Result<Vec<Rule>, Vec<ParseError>> {
    policy_rules(&policy.metadata, |report| {
        cilium::rules(policy.spec.as_ref(), policy.specs.as_deref(), cilium::Scope::Cluster, config, report)
    })
}

/// The rules of a Kubernetes `NetworkPolicy`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn network_policy(policy: &api::NetworkPolicy, config: &Config) -> Result<Vec<Rule>, Vec<ParseError>> {
    policy_rules(&policy.metadata, |report| {
        kubernetes::rules(policy.spec.as_ref(), namespace_of(&policy.metadata), config, report)
    })
}

/// The rules of a Kubernetes `ClusterNetworkPolicy`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the document.
pub fn cluster_network_policy(
    policy: &api::ClusterNetworkPolicy,
    config: &Config,
) -> Result<Vec<Rule>, Vec<ParseError>> {
    policy_rules(&policy.metadata, |report| cluster::rules(&policy.spec, config, report))
}

/// A policy's name, and its rules or what is wrong with it.
pub type Parsed = (PolicyRef, Result<Vec<Rule>, Vec<ParseError>>);

/// The name and the rules of an object, if it is a policy.
#[must_use]
pub fn object(object: &api::Object, config: &Config) -> Option<Parsed> {
    match object {
        api::Object::CiliumNetworkPolicy(policy) => {
            Some((PolicyRef::from(&**policy), cilium_network_policy(policy, config)))
        }
        api::Object::CiliumClusterwideNetworkPolicy(policy) => {
            Some((PolicyRef::from(&**policy), cilium_clusterwide_network_policy(policy, config)))
        }
        api::Object::NetworkPolicy(policy) => {
            Some((PolicyRef::from(&**policy), network_policy(policy, config)))
        }
        api::Object::ClusterNetworkPolicy(policy) => {
            Some((PolicyRef::from(&**policy), cluster_network_policy(policy, config)))
        }
        api::Object::CiliumCidrGroup(_)
        | api::Object::Pod(_)
        | api::Object::Namespace(_)
        | api::Object::Node(_)
        | api::Object::Service(_)
        | api::Object::EndpointSlice(_)
        | api::Object::Secret(_)
        | api::Object::Ignored => None,
    }
}

/// The namespace an object lives in: `default` when it names none, as for every client of the API server.
fn namespace_of(metadata: &api::Metadata) -> &str {
    metadata.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

impl From<&api::CiliumNetworkPolicy> for PolicyRef {
    fn from(policy: &api::CiliumNetworkPolicy) -> Self {
        Self::new(PolicyKind::Cnp, namespace_of(&policy.metadata), &policy.metadata.name)
    }
}

impl From<&api::CiliumClusterwideNetworkPolicy> for PolicyRef {
    fn from(policy: &api::CiliumClusterwideNetworkPolicy) -> Self {
        Self::new(PolicyKind::Ccnp, "", &policy.metadata.name)
    }
}

impl From<&api::NetworkPolicy> for PolicyRef {
    fn from(policy: &api::NetworkPolicy) -> Self {
        Self::new(PolicyKind::Knp, namespace_of(&policy.metadata), &policy.metadata.name)
    }
}

impl From<&api::ClusterNetworkPolicy> for PolicyRef {
    fn from(policy: &api::ClusterNetworkPolicy) -> Self {
        Self::new(PolicyKind::Kcnp, "", &policy.metadata.name)
    }
}

/// The annotation of a policy, or of a namespace for its pods, whose denials are only to be reported: `"true"`.
pub const AUDIT_ANNOTATION: &str = "sluice.dev/audit";

/// The rules of any kind of policy: what its metadata says beside them is read here.
fn policy_rules(
    metadata: &api::Metadata,
    rules: impl FnOnce(&mut Report) -> Vec<Rule>,
) -> Result<Vec<Rule>, Vec<ParseError>> {
    collect(|report| {
        check_name(metadata, report);
        let rules = rules(report);
        audited(rules, metadata, report)
    })
}

fn check_name(metadata: &api::Metadata, report: &mut Report) {
    if metadata.name.is_empty() {
        report.refuse(&Path::root("metadata.name"), Reason::Required);
    }
}

/// The rules of a policy, in audit mode if its annotation asks for it.
fn audited(mut rules: Vec<Rule>, metadata: &api::Metadata, report: &mut Report) -> Vec<Rule> {
    let path = Path::root("metadata.annotations").index_by(AUDIT_ANNOTATION);
    let asked = report.accept(&path, asks_for_audit(metadata)).unwrap_or_default();
    if !asked {
        return rules;
    }
    if rules.iter().any(|rule| matches!(rule.tier, Tier::Admin | Tier::Baseline)) {
        report.refuse(&path, Reason::AuditOfTier);
    }
    rules.iter_mut().for_each(|rule| rule.audit = true);
    rules
}

/// Whether the pods of a namespace are in audit mode.
///
/// # Errors
/// The annotation says neither `true` nor `false`.
pub fn namespace_audit(namespace: &api::Namespace) -> Result<bool, Vec<ParseError>> {
    let path = Path::root("metadata.annotations").index_by(AUDIT_ANNOTATION);
    collect(|report| report.accept(&path, asks_for_audit(&namespace.metadata)).unwrap_or_default())
}

/// Whether the annotation asks for audit mode. Of any value but `true` and `false` nobody knows what was wanted, and a
/// guess could enforce too early or let everything pass.
fn asks_for_audit(metadata: &api::Metadata) -> Result<bool, Reason> {
    match metadata.annotations.as_ref().and_then(|own| own.get(AUDIT_ANNOTATION)).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Reason::NoneOf { found: other.to_owned(), known: AUDIT_VALUES }),
    }
}

const AUDIT_VALUES: Words = Words(&["true", "false"]);

fn collect<T>(parse: impl FnOnce(&mut Report) -> T) -> Result<T, Vec<ParseError>> {
    let mut report = Report::default();
    let parsed = parse(&mut report);
    if report.errors.is_empty() { Ok(parsed) } else { Err(report.errors) }
}

/// Gathers what is wrong.
#[derive(Debug, Default)]
struct Report {
    errors: Vec<ParseError>,
}

impl Report {
    fn refuse(&mut self, path: &Path, reason: Reason) {
        self.errors.push(ParseError { path: path.0.clone(), reason });
    }

    /// The value, or a note of why there is none.
    fn accept<T>(&mut self, path: &Path, result: Result<T, Reason>) -> Option<T> {
        result.map_err(|reason| self.refuse(path, reason)).ok()
    }
}

/// A place in an object.
#[derive(Clone, Debug)]
struct Path(String);

impl Path {
    fn root(field: &str) -> Self {
        Self(field.to_owned())
    }

    fn field(&self, field: &str) -> Self {
        Self(format!("{}.{field}", self.0))
    }

    fn index(&self, nth: usize) -> Self {
        Self(format!("{}[{nth}]", self.0))
    }

    fn index_by(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The part of this path behind `parent`, `toPorts[0]`.
    fn below(&self, parent: &Self) -> String {
        let rest = self.0.strip_prefix(&parent.0).unwrap_or(&self.0);
        rest.strip_prefix('.').unwrap_or(rest).to_owned()
    }

    /// The elements of a list with their places.
    fn items<'a, T>(&self, list: Option<&'a [T]>) -> impl Iterator<Item = (Self, &'a T)> {
        list.unwrap_or_default().iter().enumerate().map(|(nth, item)| (self.index(nth), item))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
