//! Where objects come from, and the typed form in which they reach the state.
//!
//! A source hands out only objects that are good as a whole (policies already parsed into rules); of an object whose
//! newest version is refused, the last good one stays, and the refusal is reported beside it.

pub(crate) mod directory;
mod document;

use std::collections::BTreeMap;
use std::fmt;

use sluice_client::model::{PolicyApplied, Problem};
use sluice_policy::services::ObjectName;
use sluice_policy::{CidrGroup, DeclaredService, NamedPort, PolicyRef, Rule, ServiceName, Slice};

use crate::event::{Refusal, Ticket};

/// Names an object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum ObjectKey {
    /// Namespace and name.
    Pod(String, String),
    /// Name.
    Namespace(String),
    /// A policy.
    Policy(PolicyRef),
    /// A Service.
    Service(ServiceName),
    /// Namespace and name.
    EndpointSlice(ObjectName),
    /// Name.
    CidrGroup(String),
    /// Namespace and name.
    Secret(ObjectName),
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "pod/{namespace}/{name}"),
            Self::Namespace(name) => write!(f, "namespace/{name}"),
            Self::Policy(reference) => reference.fmt(f),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::EndpointSlice((namespace, name)) => write!(f, "endpointslice/{namespace}/{name}"),
            Self::CidrGroup(name) => write!(f, "cidrgroup/{name}"),
            Self::Secret((namespace, name)) => write!(f, "secret/{namespace}/{name}"),
        }
    }
}

/// An object that is in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    /// A pod.
    Pod(PodObject),
    /// A namespace.
    Namespace(NamespaceObject),
    /// A policy.
    Policy(PolicyObject),
    /// A Service.
    Service(ServiceObject),
    /// Some of the addresses behind a Service.
    EndpointSlice(SliceObject),
    /// Prefixes.
    CidrGroup(GroupObject),
    /// What headers are compared with.
    Secret(SecretObject),
}

impl Object {
    /// Its name.
    #[must_use]
    pub(crate) fn key(&self) -> ObjectKey {
        match self {
            Self::Pod(pod) => ObjectKey::Pod(pod.namespace.clone(), pod.name.clone()),
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
            Self::Policy(policy) => ObjectKey::Policy(policy.reference.clone()),
            Self::Service(service) => ObjectKey::Service(service.declared.name.clone()),
            Self::EndpointSlice(slice) => ObjectKey::EndpointSlice(slice.name.clone()),
            Self::CidrGroup(group) => ObjectKey::CidrGroup(group.name.clone()),
            Self::Secret(secret) => ObjectKey::Secret(secret.name.clone()),
        }
    }
}

/// What matters of a pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PodObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, if the manifest has one.
    pub uid: Option<String>,
    /// Its own labels, all of them.
    pub labels: BTreeMap<String, String>,
    /// What it runs as.
    pub service_account: String,
    /// The names of its ports.
    pub ports: Vec<NamedPort>,
    /// As users write it.
    pub object: serde_json::Value,
}

/// What matters of a namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NamespaceObject {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its pods are in audit mode.
    pub audit: bool,
    /// As users write it.
    pub object: serde_json::Value,
}

/// A Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServiceObject {
    /// What its author says of it.
    pub declared: DeclaredService,
    /// As users write it.
    pub object: serde_json::Value,
}

/// Some of the addresses behind a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SliceObject {
    /// Namespace and name.
    pub name: ObjectName,
    /// What is in it.
    pub slice: Slice,
    /// As users write it.
    pub object: serde_json::Value,
}

/// A group of prefixes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct GroupObject {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub group: CidrGroup,
    /// As users write it.
    pub object: serde_json::Value,
}

/// A Secret. Nobody is shown it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SecretObject {
    /// Namespace and name.
    pub name: ObjectName,
    /// What is in it.
    pub secret: sluice_api::Secret,
}

/// A policy that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyObject {
    /// Its name.
    pub reference: PolicyRef,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// As users write it.
    pub object: serde_json::Value,
    /// File and line.
    pub origin: String,
}

/// An object whose newest version is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RefusedObject {
    /// File and line.
    pub origin: String,
    /// What is wrong, with line, column and field as far as they are known.
    pub reason: String,
}

impl fmt::Display for RefusedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.reason)
    }
}

/// What changed since the last time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SourceChanges {
    /// New and changed objects.
    pub set: Vec<Object>,
    /// Objects that are gone.
    pub removed: Vec<ObjectKey>,
    /// All objects whose newest version is refused.
    pub refused: BTreeMap<ObjectKey, RefusedObject>,
    /// All that is wrong with the source.
    pub problems: Vec<Problem>,
    /// Requests that these changes carry out.
    pub answers: Vec<(Ticket, Result<PolicyApplied, Refusal>)>,
}

/// The good objects of a text, for tests.
#[cfg(test)]
pub(crate) fn read_documents(text: &str, config: &sluice_policy::Config) -> Vec<Object> {
    let documents = document::read(text, "test.yaml", config);
    documents.into_iter().map(|document| document.content.unwrap().object).collect()
}
