//! Objects that rules refer to by name: Services and groups of prefixes.
//!
//! A rule keeps the name; whom it stands for is looked up here and follows every change of the object. A name that
//! stands for nothing selects nobody. The repository owns the one set of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use sluice_types::{Identity, Labels, Protocol};

use crate::{
    parse::namespace_requirement,
    rule::{Peers, PrefixPeer, PrefixSource, ServicePeer, WhichServices},
    selector::{CidrSelector, LabelSelector, Selector},
};

/// Names a Service.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceName {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a Service stands for now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// Its labels, source `k8s`.
    pub labels: Labels,
    /// What its pods must have; `None` when its backends are given by address.
    pub selector: Option<LabelSelector>,
    /// Its own addresses, before translation.
    pub cluster_ips: Vec<IpAddr>,
    /// Its own ports, before translation.
    pub ports: Vec<ServicePort>,
    /// Where it leads.
    pub backends: Vec<Backend>,
}

/// A port of a Service, or what it leads to at a backend: the two belong together by name and protocol.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServicePort {
    /// Its name; empty when the Service has one port only.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// One address a Service leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// The address.
    pub address: IpAddr,
    /// Who has it, if that is a pod of the cluster.
    pub identity: Option<Identity>,
    /// The ports after translation.
    pub ports: Vec<ServicePort>,
}

/// That a subject is behind a Service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Membership {
    /// The Service.
    pub service: ServiceName,
    /// The subject's ports that it leads to.
    pub ports: Vec<ServicePort>,
}

/// A named list of prefixes (`CiliumCIDRGroup`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CidrGroup {
    /// Its labels, source `k8s`.
    pub labels: Labels,
    /// The prefixes, without host bits.
    pub prefixes: BTreeSet<IpNet>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Referents {
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) groups: BTreeMap<String, CidrGroup>,
}

impl Referents {
    /// The selectors that these peers come to now; `None` if they are no names.
    pub(crate) fn expand(&self, peers: &Peers, cluster: &str) -> Option<Vec<Selector>> {
        match peers {
            Peers::Any | Peers::Select(_) | Peers::Endpoints(_) => None,
            Peers::Prefixes(peers) => Some(peers.iter().flat_map(|peer| self.prefixes(peer)).collect()),
            Peers::Services(peers) => {
                let named = peers.iter().flat_map(|peer| self.named(peer));
                Some(named.flat_map(|(name, service)| backends(name, service, cluster)).collect())
            }
        }
    }

    fn prefixes(&self, peer: &PrefixPeer) -> Vec<Selector> {
        let of_groups = |wanted: &dyn Fn(&str, &CidrGroup) -> bool| {
            let groups = self.groups.iter().filter(|(name, group)| wanted(name, group));
            groups.flat_map(|(_, group)| group.prefixes.iter().copied()).collect::<BTreeSet<IpNet>>()
        };
        let prefixes = match &peer.source {
            PrefixSource::Prefix(prefix) => BTreeSet::from([*prefix]),
            PrefixSource::Group(name) => of_groups(&|own, _| own == name),
            PrefixSource::Groups(selector) => of_groups(&|_, group| selector.matches(&group.labels)),
        };
        let selector = |prefix: IpNet| {
            // A hole that holds the whole prefix stays in the list, and nothing of the prefix is left.
            let touches = |hole: &&IpNet| prefix.contains(*hole) || hole.contains(&prefix);
            let except = peer.except.iter().filter(touches).copied().collect();
            Selector::Cidr(CidrSelector { prefix, except })
        };
        prefixes.into_iter().map(selector).collect()
    }

    fn named<'a>(&'a self, peer: &'a ServicePeer) -> impl Iterator<Item = (&'a ServiceName, &'a Service)> {
        self.services.iter().filter(|(name, service)| means(peer, name, &service.labels))
    }
}

/// Whether a reference means the Service of this name and with these labels.
pub(crate) fn means(peer: &ServicePeer, name: &ServiceName, labels: &Labels) -> bool {
    let here = peer.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace);
    here && match &peer.which {
        WhichServices::Named(wanted) => *wanted == name.name,
        WhichServices::Labelled(selector) => selector.matches(labels),
    }
}

/// Whom a Service leads to: the pods it selects, or its addresses if it selects none. An address of a pod does not
/// select that pod (`pkg/policy/k8s/service.go`).
fn backends(name: &ServiceName, service: &Service, cluster: &str) -> Vec<Selector> {
    match &service.selector {
        Some(selector) => {
            let mut selector = selector.clone();
            selector.extend(namespace_requirement(&name.namespace, cluster));
            vec![Selector::Labels(selector)]
        }
        None => {
            let address = |backend: &Backend| Selector::prefix(backend.address.into());
            service.backends.iter().map(address).collect()
        }
    }
}
