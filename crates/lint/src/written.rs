//! Policies as they are written: the entries of Cilium rules in one shape for both directions.
//!
//! The engine's rules say what is meant; some mistakes can only be seen in what stands there.

use sluice_api::{
    LabelSelector,
    cilium::{CidrRule, FqdnSelector, PolicyRule, PortRule, ServiceSelector},
    cluster_network_policy::ClusterNetworkPolicySpec,
    network_policy::NetworkPolicySpec,
};
use sluice_policy::rule::Action;
use sluice_types::Direction;

/// A policy as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Written<'a> {
    /// `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`.
    Cilium { spec: Option<&'a PolicyRule>, specs: &'a [PolicyRule] },
    /// `NetworkPolicy`.
    Kubernetes(Option<&'a NetworkPolicySpec>),
    /// `ClusterNetworkPolicy`.
    Administrator(&'a ClusterNetworkPolicySpec),
}

/// One element of `spec` and `specs`.
#[derive(Clone, Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) path: String,
    pub(crate) rule: &'a PolicyRule,
}

/// A list of peers as written; absent and empty differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers<'a, T> {
    pub(crate) field: &'static str,
    pub(crate) list: Option<&'a [T]>,
}

impl<'a, T> Peers<'a, T> {
    fn new(field: &'static str, list: Option<&'a Vec<T>>) -> Self {
        Self { field, list: list.map(Vec::as_slice) }
    }

    /// The elements with their places below `path`.
    pub(crate) fn items(&self, path: &str) -> impl Iterator<Item = (String, &'a T)> {
        let list = format!("{path}.{}", self.field);
        self.list
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(move |(nth, item)| (format!("{list}[{nth}]"), item))
    }
}

/// One entry of `ingress`, `egress`, `ingressDeny` or `egressDeny`.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// `spec.ingress[0]`.
    pub(crate) path: String,
    pub(crate) direction: Direction,
    pub(crate) action: Action,
    pub(crate) endpoints: Peers<'a, LabelSelector>,
    pub(crate) requires: Peers<'a, LabelSelector>,
    pub(crate) cidr: Peers<'a, String>,
    pub(crate) cidr_set: Peers<'a, CidrRule>,
    pub(crate) entities: Peers<'a, String>,
    pub(crate) nodes: Peers<'a, LabelSelector>,
    pub(crate) services: Peers<'a, ServiceSelector>,
    pub(crate) names: Peers<'a, FqdnSelector>,
    /// How many elements `fromGroups` or `toGroups` has, if it is there.
    pub(crate) groups: Option<usize>,
    pub(crate) to_ports: Option<&'a [PortRule]>,
    pub(crate) has_icmps: bool,
}

impl<'a> Entry<'a> {
    /// The field and length of every kind of peers that is there.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let groups = if self.direction == Direction::Ingress { "fromGroups" } else { "toGroups" };
        [
            (self.endpoints.field, self.endpoints.list.map(<[_]>::len)),
            (self.cidr.field, self.cidr.list.map(<[_]>::len)),
            (self.cidr_set.field, self.cidr_set.list.map(<[_]>::len)),
            (self.entities.field, self.entities.list.map(<[_]>::len)),
            (self.nodes.field, self.nodes.list.map(<[_]>::len)),
            (self.services.field, self.services.list.map(<[_]>::len)),
            (self.names.field, self.names.list.map(<[_]>::len)),
            (groups, self.groups),
        ]
        .into_iter()
        .filter_map(|(field, length)| Some((field, length?)))
    }

    /// The port rules with their places.
    pub(crate) fn port_rules(&self) -> impl Iterator<Item = (String, &'a PortRule)> {
        let list = format!("{}.toPorts", self.path);
        let rules = self.to_ports.unwrap_or_default().iter().enumerate();
        rules.map(move |(nth, rule)| (format!("{list}[{nth}]"), rule))
    }
}

impl<'a> Written<'a> {
    /// The rules of a Cilium policy; none of other kinds.
    pub(crate) fn specs(self) -> Vec<Spec<'a>> {
        let Self::Cilium { spec, specs } = self else { return Vec::new() };
        let one = spec.map(|rule| Spec { path: "spec".to_owned(), rule });
        let several = specs.iter().enumerate();
        let several = several.map(|(nth, rule)| Spec { path: format!("specs[{nth}]"), rule });
        one.into_iter().chain(several).collect()
    }

    /// The entries of a Cilium policy; none of other kinds.
    pub(crate) fn entries(self) -> Vec<Entry<'a>> {
        self.specs().into_iter().flat_map(|spec| entries(&spec)).collect()
    }
}

fn entries<'a>(spec: &Spec<'a>) -> Vec<Entry<'a>> {
    let rule = spec.rule;
    let mut all = Vec::new();
    let ingress =
        [("ingress", Action::Allow, &rule.ingress), ("ingressDeny", Action::Deny, &rule.ingress_deny)];
    for (list, action, entries) in ingress {
        for (nth, entry) in entries.iter().flatten().enumerate() {
            all.push(Entry {
                path: format!("{}.{list}[{nth}]", spec.path),
                direction: Direction::Ingress,
                action,
                endpoints: Peers::new("fromEndpoints", entry.from_endpoints.as_ref()),
                requires: Peers::new("fromRequires", entry.from_requires.as_ref()),
                cidr: Peers::new("fromCIDR", entry.from_cidr.as_ref()),
                cidr_set: Peers::new("fromCIDRSet", entry.from_cidr_set.as_ref()),
                entities: Peers::new("fromEntities", entry.from_entities.as_ref()),
                nodes: Peers::new("fromNodes", entry.from_nodes.as_ref()),
                services: Peers::new("toServices", None),
                names: Peers::new("toFQDNs", None),
                groups: entry.from_groups.as_ref().map(Vec::len),
                to_ports: entry.to_ports.as_deref(),
                has_icmps: entry.icmps.as_ref().is_some_and(|list| !list.is_empty()),
            });
        }
    }
    let egress = [("egress", Action::Allow, &rule.egress), ("egressDeny", Action::Deny, &rule.egress_deny)];
    for (list, action, entries) in egress {
        for (nth, entry) in entries.iter().flatten().enumerate() {
            all.push(Entry {
                path: format!("{}.{list}[{nth}]", spec.path),
                direction: Direction::Egress,
                action,
                endpoints: Peers::new("toEndpoints", entry.to_endpoints.as_ref()),
                requires: Peers::new("toRequires", entry.to_requires.as_ref()),
                cidr: Peers::new("toCIDR", entry.to_cidr.as_ref()),
                cidr_set: Peers::new("toCIDRSet", entry.to_cidr_set.as_ref()),
                entities: Peers::new("toEntities", entry.to_entities.as_ref()),
                nodes: Peers::new("toNodes", entry.to_nodes.as_ref()),
                services: Peers::new("toServices", entry.to_services.as_ref()),
                names: Peers::new("toFQDNs", entry.to_fqdns.as_ref()),
                groups: entry.to_groups.as_ref().map(Vec::len),
                to_ports: entry.to_ports.as_deref(),
                has_icmps: entry.icmps.as_ref().is_some_and(|list| !list.is_empty()),
            });
        }
    }
    all
}
