//! The engine with everything the documents say, for what only it can answer.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use sluice_policy::{
    Repository, Subject,
    l7::FqdnSelector,
    labels::{cidr_labels, reserved_labels},
    rule::RuleSubject,
    selector::{LabelSelector, Requirement},
};
use sluice_types::{Identity, Label, Labels, Source};

use super::Scene;

/// The engine, and the number of each set of labels.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) repository: Repository,
    identities: BTreeMap<Labels, Identity>,
}

impl Engine {
    /// Tells an engine all policies, pods, prefixes and names.
    ///
    /// Services are left out: what is behind them is hardly ever in the documents.
    pub(crate) fn new(scene: &Scene<'_>) -> Self {
        let mut engine =
            Self { repository: Repository::new(scene.options.config.clone()), identities: BTreeMap::new() };
        for (identity, _) in Identity::reserved() {
            drop(engine.repository.set_identity(identity, reserved_labels(identity)));
        }
        for policy in &scene.policies {
            drop(engine.repository.upsert(policy.name.clone(), policy.rules.clone()));
        }
        for pod in &scene.pods {
            let identity = engine.identity(pod.labels.clone(), Identity::CLUSTER_MIN);
            drop(engine.repository.set_named_ports(&pod.full_name(), identity, pod.named_ports.clone()));
        }
        let known: BTreeSet<IpNet> = engine.repository.prefixes();
        for prefix in &known {
            engine.identity(cidr_labels(*prefix, &known), Identity::LOCAL_MIN);
        }
        let names: BTreeSet<Label> = engine
            .repository
            .selectors()
            .filter_map(|view| Some(FqdnSelector::of_selector(view.selector)?.label()))
            .collect();
        for name in names {
            // One address for each of them; how many answers bring cannot be known.
            engine.identity([name, Label::reserved("world")].into_iter().collect(), Identity::LOCAL_MIN);
        }
        engine
    }

    /// Somebody with these labels, as an endpoint.
    pub(crate) fn subject(&mut self, labels: Labels) -> Subject {
        let own = Identity::reserved()
            .find(|(identity, name)| labels.has_reserved(name) && *identity == Identity::HOST)
            .map(|(identity, _)| identity);
        let identity = own.unwrap_or_else(|| self.identity(labels.clone(), Identity::CLUSTER_MIN));
        Subject { identity, labels, named_ports: Vec::new(), services: Vec::new(), audit: false }
    }

    /// Everybody who is known.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = Identity> {
        Identity::reserved().map(|(identity, _)| identity).chain(self.identities.values().copied())
    }

    fn identity(&mut self, labels: Labels, first: Identity) -> Identity {
        // Ranges are far wider than documents are long.
        let used = self.identities.values().filter(|known| known.scope() == first.scope()).count();
        let next = first.as_u32().saturating_add(u32::try_from(used).unwrap_or(u32::MAX));
        let identity = *self.identities.entry(labels.clone()).or_insert_with(|| Identity::new(next));
        drop(self.repository.set_identity(identity, labels));
        identity
    }
}

/// Labels that a subject selects, made from what it asks for; `None` if that is not enough.
pub(crate) fn example_of(subject: &RuleSubject) -> Option<Labels> {
    let (selector, own, source) = match subject {
        RuleSubject::Endpoints(selector) => (selector, None, Source::K8s),
        RuleSubject::Node(selector) => (selector, Some(Label::reserved("host")), Source::Node),
    };
    let labels: Labels = own.into_iter().chain(asked_for(selector, &source)).collect();
    subject.matches(&labels).then_some(labels)
}

fn asked_for(selector: &LabelSelector, source: &Source) -> Vec<Label> {
    let label = |requirement: &Requirement| {
        let value = match requirement {
            Requirement::In(_, values) => values.first()?.clone(),
            Requirement::Exists(_) => String::new(),
            Requirement::NotIn(..) | Requirement::DoesNotExist(_) => return None,
        };
        let key = requirement.key();
        let source = if key.source == Source::Any { source.clone() } else { key.source.clone() };
        Some(Label::new(source, &*key.key, value))
    };
    selector.requirements().filter_map(label).collect()
}
