//! Identities for everybody, as the agent gives them out: by label set, and by prefix for addresses outside.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use sluice_policy::{
    Subject,
    l7::FqdnSelector,
    labels::{NAMESPACE, cidr_labels, pod_labels, reserved_labels},
};
use sluice_types::{Identity, Label, Labels, Source};

use crate::{
    cluster::{Cluster, Known},
    participant::{Participant, Who, node_labels},
    services::addresses,
};

/// How often identities and Services are worked out against each other: what a Service brings settles in two.
const ROUNDS_MAX: usize = 3;
/// The first number for nodes that have labels of their own.
const NODE_MIN: Identity = Identity::new(0x0200_0001);

impl Cluster {
    /// Works out what follows from everything that was said.
    pub(crate) fn settle(&mut self) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        for name in std::mem::take(&mut self.known).keys() {
            drop(self.repository.remove_named_ports(name));
        }
        // Services lead to identities, may bring prefixes of their own, and those may change identities once more.
        for _ in 0..ROUNDS_MAX {
            let prefixes = self.repository.prefixes();
            self.settle_prefixes(&prefixes);
            self.settle_participants(&prefixes);
            self.settle_services();
            if self.repository.prefixes() == prefixes {
                break;
            }
        }
        self.forget_unused();
        self.settle_subjects();
    }

    fn settle_participants(&mut self, prefixes: &BTreeSet<IpNet>) {
        let everybody: Vec<Participant> = self.participants.values().cloned().collect();
        for (place, participant) in everybody.into_iter().enumerate() {
            let labels = self.labels_of(&participant, prefixes);
            let identity = self.identity_of(&participant, &labels);
            if !matches!(participant.who, Who::Host(_)) {
                drop(self.repository.set_identity(identity, labels.clone()));
            }
            let ports = participant.ports.clone();
            drop(self.repository.set_named_ports(&participant.name, identity, ports));
            let addresses = addresses(&participant.addresses, place);
            let known = Known { identity, addresses, labels, subject: None, participant };
            self.known.insert(known.participant.name.clone(), known);
        }
    }

    /// The node that takes part in a flow is the local one, and its labels are those of the host.
    pub(crate) fn host_is(&mut self, labels: &Labels) {
        drop(self.repository.set_identity(Identity::HOST, labels.clone()));
    }

    /// An identity for each prefix that a rule names: those outside whom nobody mentioned are there as well.
    fn settle_prefixes(&mut self, prefixes: &BTreeSet<IpNet>) {
        let gone: Vec<IpNet> =
            self.prefixes.keys().filter(|prefix| !prefixes.contains(prefix)).copied().collect();
        for prefix in gone {
            if let Some(identity) = self.prefixes.remove(&prefix) {
                drop(self.repository.remove_identity(identity));
            }
        }
        for prefix in prefixes {
            let labels = cidr_labels(*prefix, prefixes);
            let identity = self.number(&labels, Identity::LOCAL_MIN);
            self.prefixes.insert(*prefix, identity);
            drop(self.repository.set_identity(identity, labels));
        }
    }

    fn labels_of(&self, participant: &Participant, prefixes: &BTreeSet<IpNet>) -> Labels {
        let mut labels = match &participant.who {
            Who::Pod { namespace, labels, service_account } => {
                let of_namespace = self.namespaces.get(namespace).cloned().unwrap_or_default();
                pod_labels(labels, namespace, &of_namespace, service_account, &self.config.cluster_name)
            }
            Who::Labelled(labels) | Who::Seen(labels) => labels.clone(),
            Who::Outside => match participant.addresses.first() {
                Some(address) => cidr_labels((*address).into(), prefixes),
                None => reserved_labels(Identity::WORLD),
            },
            Who::Host(labels) => {
                reserved_labels(Identity::HOST).iter().cloned().chain(node_labels(labels)).collect()
            }
            Who::Reserved { identity, labels } => {
                reserved_labels(*identity).iter().cloned().chain(node_labels(labels)).collect()
            }
        };
        labels.extend(participant.also.iter().map(|name| Label::reserved(name.as_str())));
        labels.extend(self.name_labels(participant));
        let matched = match &participant.who {
            Who::Pod { .. } | Who::Labelled(_) => self.config.cidr_match_pods,
            Who::Host(_) | Who::Reserved { .. } => self.config.cidr_match_nodes,
            Who::Seen(_) | Who::Outside => false,
        };
        if matched {
            labels.extend(participant.addresses.iter().flat_map(|address| covering(*address, prefixes)));
        }
        labels
    }

    /// A label for every rule about DNS names that means one of the names of an address.
    fn name_labels(&self, participant: &Participant) -> Vec<Label> {
        let wanted = self.repository.selectors().filter_map(|view| FqdnSelector::of_selector(view.selector));
        let means = |wanted: &FqdnSelector| participant.names.iter().any(|name| wanted.matches(name));
        wanted.filter(means).map(|wanted| wanted.label()).collect()
    }

    fn identity_of(&mut self, participant: &Participant, labels: &Labels) -> Identity {
        match &participant.who {
            Who::Host(_) => Identity::HOST,
            Who::Reserved { identity, .. } if *labels == reserved_labels(*identity) => *identity,
            Who::Reserved { .. } => self.number(labels, NODE_MIN),
            Who::Pod { .. } | Who::Labelled(_) => self.number(labels, Identity::CLUSTER_MIN),
            Who::Seen(_) | Who::Outside => self.number(labels, Identity::LOCAL_MIN),
        }
    }

    /// The number of a label set; a new one of the range that begins with `first` if it has none.
    fn number(&mut self, labels: &Labels, first: Identity) -> Identity {
        if let Some(known) = self.identities.get(labels) {
            return *known;
        }
        let next = self.next_identity.entry(first).or_insert(first);
        let identity = *next;
        *next = Identity::new(identity.as_u32() + 1);
        self.identities.insert(labels.clone(), identity);
        identity
    }

    /// Label sets that nobody has any more are unknown to the engine.
    fn forget_unused(&mut self) {
        let used: BTreeSet<Identity> =
            self.known.values().map(|known| known.identity).chain(self.prefixes.values().copied()).collect();
        let unused: Vec<Identity> =
            self.identities.values().filter(|identity| !used.contains(identity)).copied().collect();
        for identity in unused {
            drop(self.repository.remove_identity(identity));
        }
    }

    fn settle_subjects(&mut self) {
        let host_firewall = self.config.host_firewall;
        let is_audited = |namespace: &str| self.audited.contains(namespace);
        for known in self.known.values_mut().filter(|known| known.participant.is_judged(host_firewall)) {
            known.subject = Some(Subject {
                identity: known.identity,
                labels: known.labels.clone(),
                named_ports: known.participant.ports.clone(),
                services: self.repository.memberships(&known.addresses),
                audit: known.participant.audit.unwrap_or_else(|| {
                    let namespace = known.labels.value(&Source::K8s, NAMESPACE);
                    self.config.audit || namespace.is_some_and(is_audited)
                }),
            });
        }
    }
}

/// The labels of the prefixes that cover an address.
fn covering(address: IpAddr, prefixes: &BTreeSet<IpNet>) -> impl Iterator<Item = Label> {
    let covering = prefixes.iter().filter(move |prefix| prefix.contains(&address));
    let own = IpNet::from(address);
    covering.copied().chain([own]).map(|prefix| Label::new(Source::Cidr, prefix.to_string(), ""))
}
