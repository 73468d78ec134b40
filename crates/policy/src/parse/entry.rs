//! One entry of a Cilium rule, whichever direction and action it is for.
//!
//! The two directions have the same fields under different names; this is the one shape that the checks see.

use sluice_api::{
    LabelSelector,
    cilium::{
        Authentication, CidrRule, EgressRule, FqdnSelector, IcmpRule, IngressRule, PortRule, ServiceSelector,
    },
};

/// A list as written; absent and empty differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a, T> {
    pub(super) name: &'static str,
    pub(super) list: Option<&'a [T]>,
}

impl<'a, T> Field<'a, T> {
    fn new(name: &'static str, list: Option<&'a Vec<T>>) -> Self {
        Self { name, list: list.map(Vec::as_slice) }
    }

    pub(super) fn kind(&self) -> Kind {
        Kind { name: self.name, length: self.list.map(<[T]>::len) }
    }
}

/// A kind of peers: its name, and how many there are if the field is there at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) length: Option<usize>,
}

impl Kind {
    fn new<T>(name: &'static str, list: Option<&Vec<T>>) -> Self {
        Self { name, length: list.map(Vec::len) }
    }

    pub(super) fn is_used(&self) -> bool {
        self.length.is_some_and(|length| length > 0)
    }
}

/// One entry of `ingress`, `egress`, `ingressDeny` or `egressDeny`.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) endpoints: Field<'a, LabelSelector>,
    pub(super) requires: Field<'a, LabelSelector>,
    pub(super) cidr: Field<'a, String>,
    pub(super) cidr_set: Field<'a, CidrRule>,
    pub(super) entities: Field<'a, String>,
    pub(super) nodes: Field<'a, LabelSelector>,
    /// Only for egress.
    pub(super) services: Field<'a, ServiceSelector>,
    /// Only for egress, and only to allow.
    pub(super) names: Field<'a, FqdnSelector>,
    /// What a cloud provider knows. Nobody here asks it, so these are refused.
    pub(super) groups: Kind,
    pub(super) to_ports: Option<&'a [PortRule]>,
    pub(super) icmps: Option<&'a [IcmpRule]>,
    pub(super) authentication: Option<&'a Authentication>,
}

impl Entry<'_> {
    /// Every kind of peers. Requirements are none: they grant nothing.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        [
            self.endpoints.kind(),
            self.cidr.kind(),
            self.cidr_set.kind(),
            self.entities.kind(),
            self.nodes.kind(),
            self.services.kind(),
            self.names.kind(),
            self.groups,
        ]
        .into_iter()
    }
}

impl<'a> From<&'a IngressRule> for Entry<'a> {
    fn from(rule: &'a IngressRule) -> Self {
        Self {
            endpoints: Field::new("fromEndpoints", rule.from_endpoints.as_ref()),
            requires: Field::new("fromRequires", rule.from_requires.as_ref()),
            cidr: Field::new("fromCIDR", rule.from_cidr.as_ref()),
            cidr_set: Field::new("fromCIDRSet", rule.from_cidr_set.as_ref()),
            entities: Field::new("fromEntities", rule.from_entities.as_ref()),
            nodes: Field::new("fromNodes", rule.from_nodes.as_ref()),
            services: Field::new("toServices", None),
            names: Field::new("toFQDNs", None),
            groups: Kind::new("fromGroups", rule.from_groups.as_ref()),
            to_ports: rule.to_ports.as_deref(),
            icmps: rule.icmps.as_deref(),
            authentication: rule.authentication.as_ref(),
        }
    }
}

impl<'a> From<&'a EgressRule> for Entry<'a> {
    fn from(rule: &'a EgressRule) -> Self {
        Self {
            endpoints: Field::new("toEndpoints", rule.to_endpoints.as_ref()),
            requires: Field::new("toRequires", rule.to_requires.as_ref()),
            cidr: Field::new("toCIDR", rule.to_cidr.as_ref()),
            cidr_set: Field::new("toCIDRSet", rule.to_cidr_set.as_ref()),
            entities: Field::new("toEntities", rule.to_entities.as_ref()),
            nodes: Field::new("toNodes", rule.to_nodes.as_ref()),
            services: Field::new("toServices", rule.to_services.as_ref()),
            names: Field::new("toFQDNs", rule.to_fqdns.as_ref()),
            groups: Kind::new("toGroups", rule.to_groups.as_ref()),
            to_ports: rule.to_ports.as_deref(),
            icmps: rule.icmps.as_deref(),
            authentication: rule.authentication.as_ref(),
        }
    }
}
