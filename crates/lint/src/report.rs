//! Gathers findings, gives each its place, and leaves out those that an object silences.

use std::collections::BTreeSet;

use sluice_api::{Kind, Metadata, Object};
use sluice_policy::{PolicyKind, PolicyRef};

use crate::{Document, IGNORE, finding::Finding, finding::Related, rules::Rule};

/// A place in a document.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub(crate) document: &'a Document,
    /// `spec.ingress[0]`; empty for the object as a whole.
    pub(crate) path: String,
}

impl<'a> At<'a> {
    pub(crate) fn new(document: &'a Document, path: impl Into<String>) -> Self {
        Self { document, path: path.into() }
    }
}

/// All findings so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding; the caller may still change it.
    pub(crate) fn add(
        &mut self,
        rule: &Rule,
        at: &At<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> &mut Finding {
        let place = at.document.manifest.place(&at.path);
        let finding = Finding {
            code: rule.code,
            name: rule.name,
            severity: rule.severity,
            file: at.document.file.clone(),
            line: place.line,
            column: place.column,
            object: object_name(at.document),
            path: at.path.clone(),
            message: message.into(),
            help: help.into(),
            related: Vec::new(),
        };
        self.findings.push(finding);
        // Just pushed.
        let last = self.findings.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "the finding was pushed a line above")]
        &mut self.findings[last]
    }

    /// What is left, in the order of files and places, each thing once.
    pub(crate) fn finish(mut self, documents: &[Document]) -> Vec<Finding> {
        let silenced: BTreeSet<(String, String, String)> = documents
            .iter()
            .flat_map(|document| {
                let name = object_name(document);
                let codes = ignored(document).into_iter();
                codes.map(move |code| (document.file.clone(), name.clone(), code))
            })
            .collect();
        self.findings.retain(|finding| {
            let key = (finding.file.clone(), finding.object.clone(), finding.code.to_owned());
            !silenced.contains(&key)
        });
        // Files stay in the order in which they were given.
        let order = |finding: &Finding| documents.iter().position(|document| document.file == finding.file);
        self.findings.sort_by_cached_key(|finding| {
            let place = (order(finding), finding.line, finding.column);
            (place, finding.code, finding.path.clone(), finding.message.clone())
        });
        self.findings.dedup();
        self.findings
    }
}

impl Finding {
    /// Adds a place that has to do with it.
    pub(crate) fn also(&mut self, at: &At<'_>, message: impl Into<String>) -> &mut Self {
        let place = at.document.manifest.place(&at.path);
        self.related.push(Related {
            file: at.document.file.clone(),
            line: place.line,
            column: place.column,
            message: message.into(),
        });
        self
    }
}

/// The codes that an object silences for itself.
pub(crate) fn ignored(document: &Document) -> Vec<String> {
    let listed = metadata(document).and_then(|metadata| metadata.annotations.as_ref()?.get(IGNORE));
    let codes = listed.map(String::as_str).unwrap_or_default().split(',');
    codes.map(str::trim).filter(|code| !code.is_empty()).map(str::to_owned).collect()
}

/// What an object says about itself; none if it could not be read or means nothing to us.
pub(crate) fn metadata(document: &Document) -> Option<&Metadata> {
    Some(match document.manifest.content.as_ref().ok()? {
        Object::CiliumNetworkPolicy(object) => &object.metadata,
        Object::CiliumClusterwideNetworkPolicy(object) => &object.metadata,
        Object::CiliumCidrGroup(object) => &object.metadata,
        Object::NetworkPolicy(object) => &object.metadata,
        Object::ClusterNetworkPolicy(object) => &object.metadata,
        Object::Pod(object) => &object.metadata,
        Object::Namespace(object) => &object.metadata,
        Object::Node(object) => &object.metadata,
        Object::Service(object) => &object.metadata,
        Object::EndpointSlice(object) => &object.metadata,
        Object::Secret(object) => &object.metadata,
        Object::Ignored => return None,
    })
}

/// The name of a policy, if the document is one, or was meant to be.
pub(crate) fn policy_name(document: &Document) -> Option<PolicyRef> {
    let manifest = &document.manifest;
    let (group, _) = manifest.api_version.rsplit_once('/').unwrap_or_default();
    let namespace = manifest.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let (kind, namespace) = match Kind::find(group, &manifest.kind)? {
        Kind::CiliumNetworkPolicy => (PolicyKind::Cnp, namespace),
        Kind::CiliumClusterwideNetworkPolicy => (PolicyKind::Ccnp, ""),
        Kind::NetworkPolicy => (PolicyKind::Knp, namespace),
        Kind::ClusterNetworkPolicy => (PolicyKind::Kcnp, ""),
        Kind::CiliumCidrGroup
        | Kind::Pod
        | Kind::Namespace
        | Kind::Node
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Secret => return None,
    };
    Some(PolicyRef::new(kind, namespace, &manifest.name))
}

/// `cnp/shop/web`, or `Pod/shop/web` for what is no policy.
pub(crate) fn object_name(document: &Document) -> String {
    if let Some(policy) = policy_name(document) {
        return policy.to_string();
    }
    let manifest = &document.manifest;
    let parts = [manifest.kind.as_str(), manifest.namespace.as_deref().unwrap_or_default(), &manifest.name];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}
