//! The cluster: what was said about it, and the engine that has been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use sluice_api::{Object, Pod};
use sluice_policy::{
    Config, ParseError, PolicyRef, Repository, Rule, ServiceName, ServiceTable, Subject,
    labels::reserved_labels, parse,
};
use sluice_types::{Identity, Labels};

use crate::{
    coverage::RuleParts,
    participant::{Participant, Who},
    secrets::SecretValues,
};

/// A participant as the engine knows it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) participant: Participant,
    pub(crate) identity: Identity,
    /// By which Services know it.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: Labels,
    pub(crate) subject: Option<Subject>,
}

/// A cluster on paper. Everything may be said in any order; what follows from it is worked out when it is asked for.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: Config,
    pub(crate) repository: Repository,
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The namespaces whose pods are in audit mode.
    pub(crate) audited: BTreeSet<String>,
    pub(crate) participants: BTreeMap<String, Participant>,
    pub(crate) services: ServiceTable,
    /// Services of which something changed since the engine was told.
    pub(crate) touched_services: BTreeSet<ServiceName>,
    /// The pods that Services know of.
    pub(crate) behind_services: BTreeSet<String>,
    pub(crate) secrets: SecretValues,
    pub(crate) parts: RuleParts,
    /// Policies as they were said.
    pub(crate) policies: BTreeMap<PolicyRef, Object>,
    /// Everybody with identity and labels; empty while something is not worked out.
    pub(crate) known: BTreeMap<String, Known>,
    pub(crate) is_settled: bool,
    pub(crate) identities: BTreeMap<Labels, Identity>,
    /// The next free number of each range, by the range's first.
    pub(crate) next_identity: BTreeMap<Identity, Identity>,
    pub(crate) prefixes: BTreeMap<IpNet, Identity>,
}

impl Cluster {
    /// An empty cluster.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut repository = Repository::new(config.clone());
        for (identity, _) in Identity::reserved() {
            drop(repository.set_identity(identity, reserved_labels(identity)));
        }
        Self {
            config,
            repository,
            namespaces: BTreeMap::new(),
            audited: BTreeSet::new(),
            participants: BTreeMap::new(),
            services: ServiceTable::default(),
            touched_services: BTreeSet::new(),
            behind_services: BTreeSet::new(),
            secrets: SecretValues::default(),
            parts: RuleParts::default(),
            policies: BTreeMap::new(),
            known: BTreeMap::new(),
            is_settled: false,
            identities: BTreeMap::new(),
            next_identity: BTreeMap::new(),
            prefixes: BTreeMap::new(),
        }
    }

    /// The options it was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Adds an object, or puts it in the place of the one of its name. Objects that say nothing about traffic are
    /// left out.
    ///
    /// # Errors
    /// Everything that is wrong with the object; what was there before then stays.
    pub fn apply(&mut self, object: &Object) -> Result<(), Vec<ParseError>> {
        self.is_settled = false;
        if let Some((policy, rules)) = parse::object(object, &self.config) {
            let rules = rules?;
            self.policies.insert(policy.clone(), object.clone());
            self.set_policy(policy, rules);
            return Ok(());
        }
        match object {
            Object::Pod(pod) => self.apply_pod(pod),
            Object::Namespace(namespace) => {
                let name = &namespace.metadata.name;
                if parse::namespace_audit(namespace)? {
                    self.audited.insert(name.clone());
                } else {
                    self.audited.remove(name);
                }
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                self.namespaces.entry(namespace.metadata.name.clone()).or_default().extend(labels);
            }
            Object::Node(node) => self.apply_node(node),
            Object::Service(service) => {
                let touched = self.services.set_service(parse::service(service)?);
                self.touched_services.extend(touched);
            }
            Object::EndpointSlice(slice) => {
                let name = (namespace_of(&slice.metadata), slice.metadata.name.clone());
                let touched = self.services.set_slice(name, parse::endpoint_slice(slice)?);
                self.touched_services.extend(touched);
            }
            Object::CiliumCidrGroup(group) => {
                let prefixes = parse::cidr_group(group)?;
                drop(self.repository.set_cidr_group(&group.metadata.name, prefixes));
            }
            Object::Secret(secret) => self.secrets.insert(secret),
            Object::CiliumNetworkPolicy(_)
            | Object::CiliumClusterwideNetworkPolicy(_)
            | Object::NetworkPolicy(_)
            | Object::ClusterNetworkPolicy(_)
            | Object::Ignored => {}
        }
        Ok(())
    }

    /// Takes a policy out.
    pub fn remove_policy(&mut self, policy: &PolicyRef) {
        drop(self.repository.remove(policy));
        self.parts.remove(policy);
        self.policies.remove(policy);
        self.is_settled = false;
    }

    /// Gives a namespace these labels beside those it has.
    pub fn label_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        self.namespaces.entry(name.to_owned()).or_default().extend(labels.clone());
        self.is_settled = false;
    }

    /// Adds somebody, or puts it in the place of the one of its name.
    pub fn add(&mut self, participant: Participant) {
        self.participants.insert(participant.name.clone(), participant);
        self.is_settled = false;
    }

    /// Says that somebody is in audit mode, or is not whatever its namespace and the cluster say.
    pub fn set_audit(&mut self, name: &str, audit: bool) {
        if let Some(participant) = self.participants.get_mut(name) {
            participant.audit = Some(audit);
            self.is_settled = false;
        }
    }

    /// Everybody, by name.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.participants.values()
    }

    /// The rules of every policy, as the engine was told them.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (PolicyRef, Vec<Rule>)> {
        let read = self.policies.values().filter_map(|object| parse::object(object, &self.config));
        read.filter_map(|(policy, rules)| Some((policy, rules.ok()?)))
    }

    /// The engine, for reports: policies in force, selectors, names that stand for nothing.
    pub fn repository(&mut self) -> &Repository {
        self.settle();
        &self.repository
    }

    /// Who has this identity, by name.
    pub fn who_has(&mut self, identity: Identity) -> Vec<&Participant> {
        self.settle();
        self.known
            .values()
            .filter(|known| known.identity == identity)
            .map(|known| &known.participant)
            .collect()
    }

    /// The labels that policies see of somebody.
    pub fn labels(&mut self, name: &str) -> Option<&Labels> {
        self.settle();
        self.known.get(name).map(|known| &known.labels)
    }

    /// The identity by which somebody is judged.
    pub fn identity(&mut self, name: &str) -> Option<Identity> {
        self.settle();
        self.known.get(name).map(|known| known.identity)
    }

    /// The prefixes that rules name, with the identity of the addresses that no longer one covers.
    pub fn prefixes(&mut self) -> impl Iterator<Item = (IpNet, Identity)> {
        self.settle();
        self.prefixes.iter().map(|(prefix, identity)| (*prefix, *identity))
    }

    /// Somebody as the engine judges it; none if policies cannot select it.
    pub fn subject(&mut self, name: &str) -> Option<&Subject> {
        self.settle();
        self.known.get(name)?.subject.as_ref()
    }

    fn set_policy(&mut self, policy: PolicyRef, rules: Vec<Rule>) {
        self.parts.set(&policy, &rules);
        drop(self.repository.upsert(policy, rules));
    }

    fn apply_pod(&mut self, pod: &Pod) {
        let namespace = namespace_of(&pod.metadata);
        self.namespaces.entry(namespace.clone()).or_default();
        let addresses = pod.status.iter().flat_map(|status| {
            let more = status.pod_ips.iter().flatten().map(|own| &own.ip);
            status.pod_ip.iter().chain(more)
        });
        let addresses: BTreeSet<_> = addresses.filter_map(|text| text.parse().ok()).collect();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let account = pod.spec.service_account_name.as_deref().filter(|name| !name.is_empty());
        let who = Participant::pod(&namespace, &pod.metadata.name, labels, account.unwrap_or("default"));
        self.add(Participant {
            addresses: addresses.into_iter().collect(),
            ports: parse::named_ports(&pod.spec),
            ..who
        });
    }

    /// A node of the cluster; from a pod's view another one than its own.
    fn apply_node(&mut self, node: &sluice_api::Node) {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let who = Who::Reserved { identity: Identity::REMOTE_NODE, labels };
        self.add(Participant {
            addresses: addresses.filter_map(|own| own.address.parse().ok()).collect(),
            ..Participant::new(node.metadata.name.clone(), who)
        });
    }
}

/// The namespace of an object: `default` when it names none.
pub(crate) fn namespace_of(metadata: &sluice_api::Metadata) -> String {
    let named = metadata.namespace.as_deref().filter(|name| !name.is_empty());
    named.unwrap_or("default").to_owned()
}
