//! The semantics written down a second time, slowly: no rules, no selectors, no identities, no map.
//!
//! Objects are read as the API has them, and every packet is judged by going through all of them. Addresses are
//! compared as addresses. Nothing of the engine is used but its configuration.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use sluice_api::{
    IntOrString, LabelSelector, Object,
    cilium::{CidrRule, EgressRule, IcmpRule, IngressRule, PolicyRule, PortRule},
    network_policy::{NetworkPolicyPeer, NetworkPolicyPort},
};
use sluice_types::{Direction, Protocol};

use super::scene::Outcome;
use crate::{Config, Enforcement};

/// A pod as its author wrote it.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: &'static str,
    pub(super) labels: &'static [(&'static str, &'static str)],
    pub(super) ports: &'static [(&'static str, Protocol, u16)],
}

impl Pod {
    fn namespace(&self) -> &str {
        self.name.split_once('/').unwrap().0
    }

    /// The number behind a name, unless the pod uses the name twice.
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let found: Vec<u16> = self
            .ports
            .iter()
            .filter(|(own, its, _)| *own == name && *its == protocol)
            .map(|(_, _, number)| *number)
            .collect();
        if let [number] = found.as_slice() { Some(*number) } else { None }
    }
}

/// Who may stand on the other side.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    Pod(Pod),
    /// `host`, `remote-node`, `health`, `unmanaged`, `ingress`, `init`.
    Reserved(&'static str),
    Address(IpAddr),
}

/// Everything a verdict depends on.
pub(super) struct World<'a> {
    pub(super) config: &'a Config,
    pub(super) namespace_labels: &'a BTreeMap<&'static str, Vec<(&'static str, &'static str)>>,
    pub(super) policies: &'a [Object],
}

/// A packet as the subject sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) subject: &'a Pod,
    pub(super) direction: Direction,
    pub(super) peer: &'a Peer,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// What the policies say about one packet.
#[derive(Default)]
struct Findings {
    rules: bool,
    closed: bool,
    allowed: bool,
    denied: bool,
}

impl World<'_> {
    pub(super) fn judge(&self, packet: Packet<'_>) -> Outcome {
        if self.config.enforcement == Enforcement::Never {
            return Outcome::Allow;
        }
        let mut found = Findings::default();
        for policy in self.policies {
            match policy {
                Object::CiliumNetworkPolicy(policy) => {
                    let namespace = policy.metadata.namespace.as_deref();
                    let all = policy.spec.iter().chain(policy.specs.iter().flatten());
                    all.for_each(|rule| self.cilium_rule(rule, namespace, packet, &mut found));
                }
                Object::CiliumClusterwideNetworkPolicy(policy) => {
                    let all = policy.spec.iter().chain(policy.specs.iter().flatten());
                    all.for_each(|rule| self.cilium_rule(rule, None, packet, &mut found));
                }
                Object::NetworkPolicy(policy) => self.kubernetes(policy, packet, &mut found),
                Object::CiliumCidrGroup(_)
                | Object::ClusterNetworkPolicy(_)
                | Object::Pod(_)
                | Object::Namespace(_)
                | Object::Node(_)
                | Object::Service(_)
                | Object::EndpointSlice(_)
                | Object::Secret(_)
                | Object::Ignored => panic!("{policy:?}"),
            }
        }
        let always = self.config.enforcement == Enforcement::Always;
        let from_node = packet.direction == Direction::Ingress
            && matches!(packet.peer, Peer::Reserved("host"))
            && self.config.allow_localhost
            && found.rules;
        if found.denied {
            Outcome::Deny
        } else if found.allowed || from_node || !(found.closed || always) {
            Outcome::Allow
        } else {
            Outcome::Default
        }
    }

    fn cilium_rule(
        &self,
        rule: &PolicyRule,
        namespace: Option<&str>,
        packet: Packet<'_>,
        found: &mut Findings,
    ) {
        let selector = rule.endpoint_selector.as_ref().unwrap();
        if namespace.is_some_and(|namespace| namespace != packet.subject.namespace()) {
            return;
        }
        if !self.selects(selector, &Peer::Pod(packet.subject.clone()), "") {
            return;
        }
        let asked = rule.enable_default_deny.unwrap_or_default();
        match packet.direction {
            Direction::Ingress => {
                let allow = rule.ingress.iter().flatten().map(Entry::ingress).collect::<Vec<_>>();
                let deny = rule.ingress_deny.iter().flatten().map(Entry::ingress).collect::<Vec<_>>();
                self.entries(&allow, &deny, asked.ingress, namespace, packet, found);
            }
            Direction::Egress => {
                let allow = rule.egress.iter().flatten().map(Entry::egress).collect::<Vec<_>>();
                let deny = rule.egress_deny.iter().flatten().map(Entry::egress).collect::<Vec<_>>();
                self.entries(&allow, &deny, asked.egress, namespace, packet, found);
            }
        }
    }

    fn entries(
        &self,
        allow: &[Entry<'_>],
        deny: &[Entry<'_>],
        default_deny: Option<bool>,
        namespace: Option<&str>,
        packet: Packet<'_>,
        found: &mut Findings,
    ) {
        if allow.is_empty() && deny.is_empty() {
            return;
        }
        found.rules = true;
        found.closed |= default_deny.unwrap_or(true);
        let matched = |entry: &&Entry<'_>, deny: bool| {
            self.entry_peers(entry, namespace, packet, deny) && self.entry_ports(entry, packet)
        };
        found.allowed |= allow.iter().any(|entry| matched(&entry, false));
        found.denied |= deny.iter().any(|entry| matched(&entry, true));
    }

    fn entry_peers(
        &self,
        entry: &Entry<'_>,
        namespace: Option<&str>,
        packet: Packet<'_>,
        deny: bool,
    ) -> bool {
        let peer = packet.peer;
        let no_kind = entry.endpoints.is_none()
            && entry.cidr.is_none()
            && entry.cidr_set.is_none()
            && entry.entities.is_none();
        if no_kind {
            let has_ports = entry.ports.is_some_and(|list| !list.is_empty());
            let has_icmp = entry.icmps.is_some_and(|list| !list.is_empty());
            let requires = entry.requires.is_some_and(|list| !list.is_empty());
            return (has_ports || has_icmp) && !requires;
        }
        let endpoints = entry.endpoints.unwrap_or_default().iter().any(|selector| {
            self.selects_peer(selector, namespace, peer) && self.fulfils_requirements(packet, deny)
        });
        let inside = |prefix: &str| match peer {
            Peer::Address(address) => network(prefix).contains(address),
            Peer::Pod(_) | Peer::Reserved(_) => false,
        };
        let cidr = entry.cidr.unwrap_or_default().iter().any(|prefix| inside(prefix));
        let cidr_set = entry.cidr_set.unwrap_or_default().iter().any(|set| {
            inside(set.cidr.as_deref().unwrap()) && !set.except.iter().flatten().any(|hole| inside(hole))
        });
        let entities = entry.entities.unwrap_or_default().iter().any(|entity| is_entity(entity, peer));
        endpoints || cidr || cidr_set || entities
    }

    /// Whether the peer fulfils what every rule of the subject in this direction requires of endpoints.
    fn fulfils_requirements(&self, packet: Packet<'_>, deny: bool) -> bool {
        self.policies.iter().all(|policy| {
            let (namespace, rules) = match policy {
                Object::CiliumNetworkPolicy(policy) => (policy.metadata.namespace.as_deref(), &policy.spec),
                Object::CiliumClusterwideNetworkPolicy(policy) => (None, &policy.spec),
                Object::NetworkPolicy(_)
                | Object::CiliumCidrGroup(_)
                | Object::ClusterNetworkPolicy(_)
                | Object::Pod(_)
                | Object::Namespace(_)
                | Object::Node(_)
                | Object::Service(_)
                | Object::EndpointSlice(_)
                | Object::Secret(_)
                | Object::Ignored => {
                    return true;
                }
            };
            rules.iter().all(|rule| {
                let selected = namespace.is_none_or(|namespace| namespace == packet.subject.namespace())
                    && self.selects(
                        rule.endpoint_selector.as_ref().unwrap(),
                        &Peer::Pod(packet.subject.clone()),
                        "",
                    );
                let mut required: Vec<&LabelSelector> = Vec::new();
                match (packet.direction, deny) {
                    (Direction::Ingress, false) => {
                        required.extend(
                            rule.ingress
                                .iter()
                                .flatten()
                                .flat_map(|entry| entry.from_requires.iter().flatten()),
                        );
                    }
                    (Direction::Ingress, true) => {
                        required.extend(
                            rule.ingress_deny
                                .iter()
                                .flatten()
                                .flat_map(|entry| entry.from_requires.iter().flatten()),
                        );
                    }
                    (Direction::Egress, false) => {
                        required.extend(
                            rule.egress.iter().flatten().flat_map(|entry| entry.to_requires.iter().flatten()),
                        );
                    }
                    (Direction::Egress, true) => {
                        required.extend(
                            rule.egress_deny
                                .iter()
                                .flatten()
                                .flat_map(|entry| entry.to_requires.iter().flatten()),
                        );
                    }
                }
                !selected
                    || required.iter().all(|selector| self.selects_peer(selector, namespace, packet.peer))
            })
        })
    }

    /// A peer of a Cilium rule, looked for where such peers are looked for.
    fn selects_peer(&self, selector: &LabelSelector, namespace: Option<&str>, peer: &Peer) -> bool {
        let keys = || {
            let labels = selector.match_labels.iter().flat_map(|labels| labels.keys());
            labels.chain(selector.match_expressions.iter().flatten().map(|expression| &expression.key))
        };
        let in_scope = if keys().any(|key| key.starts_with("reserved:")) {
            true
        } else {
            let Peer::Pod(pod) = peer else { return false };
            let bare = |key: &String| key.trim_start_matches("k8s:").trim_start_matches("any:").to_owned();
            let elsewhere = keys().any(|key| {
                let key = bare(key);
                key == "io.kubernetes.pod.namespace" || key.starts_with("io.cilium.k8s.namespace.labels.")
            });
            elsewhere || namespace.is_none_or(|namespace| namespace == pod.namespace())
        };
        in_scope && self.selects(selector, peer, "")
    }

    /// Whether labels match; `prefix` stands before every key.
    fn selects(&self, selector: &LabelSelector, peer: &Peer, prefix: &str) -> bool {
        let has = |key: &str, values: &[String]| {
            let found = self.value(peer, &format!("{prefix}{key}"));
            found.is_some_and(|found| values.contains(&found))
        };
        let labels =
            selector.match_labels.iter().flatten().all(|(key, value)| has(key, std::slice::from_ref(value)));
        let expressions = selector.match_expressions.iter().flatten().all(|expression| {
            let values = expression.values.clone().unwrap_or_default();
            match expression.operator.as_str() {
                "In" => has(&expression.key, &values),
                "NotIn" => !has(&expression.key, &values),
                "Exists" => self.value(peer, &format!("{prefix}{}", expression.key)).is_some(),
                "DoesNotExist" => self.value(peer, &format!("{prefix}{}", expression.key)).is_none(),
                other => panic!("{other}"),
            }
        });
        labels && expressions
    }

    /// The value a peer has under a key as written in a selector.
    fn value(&self, peer: &Peer, key: &str) -> Option<String> {
        if let Some(name) = key.strip_prefix("reserved:") {
            let has = match peer {
                Peer::Reserved(own) => *own == name,
                Peer::Address(IpAddr::V4(_)) => name == "world" || name == "world-ipv4",
                Peer::Address(IpAddr::V6(_)) => name == "world" || name == "world-ipv6",
                Peer::Pod(_) => false,
            };
            return has.then(String::new);
        }
        let Peer::Pod(pod) = peer else { return None };
        if key.starts_with("container:") {
            return None;
        }
        let key = key.trim_start_matches("k8s:").trim_start_matches("any:");
        if key == "io.kubernetes.pod.namespace" {
            return Some(pod.namespace().to_owned());
        }
        let find = |labels: &[(&str, &str)], key: &str| {
            labels.iter().find(|(own, _)| *own == key).map(|(_, value)| (*value).to_owned())
        };
        match key.strip_prefix("io.cilium.k8s.namespace.labels.") {
            Some(key) => find(&self.namespace_labels[pod.namespace()], key),
            None => find(pod.labels, key),
        }
    }

    fn entry_ports(&self, entry: &Entry<'_>, packet: Packet<'_>) -> bool {
        let ports = entry.ports.unwrap_or_default();
        let icmps = entry.icmps.unwrap_or_default();
        if ports.is_empty() && icmps.is_empty() {
            return true;
        }
        let by_port = ports.iter().flat_map(|rule| rule.ports.iter().flatten()).any(|port| {
            let protocol = match port.protocol.as_deref() {
                None | Some("ANY") => packet.protocol.has_ports(),
                Some(name) => protocol(name) == packet.protocol,
            };
            let number = match port.port.as_ref().unwrap() {
                IntOrString::Int(number) => i32::try_from(*number).ok(),
                IntOrString::String(text) => match text.parse::<i32>() {
                    Ok(number) => Some(number),
                    Err(_) => self.named(text, packet).map(i32::from),
                },
            };
            let last = port.end_port.and_then(|last| i32::try_from(last).ok());
            let is_name =
                matches!(port.port, Some(IntOrString::String(ref text)) if text.parse::<i32>().is_err());
            let in_range = match (number, last) {
                (None, _) => false,
                (Some(0), _) if !is_name => true,
                (Some(first), Some(last)) if !is_name && last > 0 => {
                    (first..=last).contains(&i32::from(packet.port))
                }
                (Some(first), _) => first == i32::from(packet.port),
            };
            protocol && in_range
        });
        let by_icmp = icmps.iter().flat_map(|rule| rule.fields.iter().flatten()).any(|field| {
            let protocol = match field.family.as_deref() {
                None | Some("IPv4") => Protocol::Icmp,
                Some(_) => Protocol::Icmpv6,
            };
            let IntOrString::Int(kind) = field.kind else { panic!("{field:?}") };
            protocol == packet.protocol && kind == i64::from(packet.port)
        });
        by_port || by_icmp
    }

    /// The number the receiving side gives to a port's name.
    fn named(&self, name: &str, packet: Packet<'_>) -> Option<u16> {
        match (packet.direction, packet.peer) {
            (Direction::Ingress, _) => packet.subject.port(name, packet.protocol),
            (Direction::Egress, Peer::Pod(pod)) => pod.port(name, packet.protocol),
            (Direction::Egress, _) => None,
        }
    }

    fn kubernetes(&self, policy: &sluice_api::NetworkPolicy, packet: Packet<'_>, found: &mut Findings) {
        let namespace = policy.metadata.namespace.as_deref().unwrap();
        let spec = policy.spec.as_ref().unwrap();
        let subject = Peer::Pod(packet.subject.clone());
        let selected = spec.pod_selector.as_ref().is_none_or(|selector| self.selects(selector, &subject, ""));
        if packet.subject.namespace() != namespace || !selected {
            return;
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let isolates = match packet.direction {
            Direction::Ingress => types.is_empty() || types.iter().any(|name| name == "Ingress"),
            Direction::Egress if types.is_empty() => {
                spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
            }
            Direction::Egress => types.iter().any(|name| name == "Egress"),
        };
        if !isolates {
            return;
        }
        found.rules = true;
        found.closed = true;
        let one = |peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>| {
            let peers = peers.map(Vec::as_slice).unwrap_or_default();
            let ports = ports.map(Vec::as_slice).unwrap_or_default();
            (peers.is_empty() || peers.iter().any(|peer| self.kubernetes_peer(peer, namespace, packet.peer)))
                && (ports.is_empty() || ports.iter().any(|port| self.kubernetes_port(port, packet)))
        };
        found.allowed |= match packet.direction {
            Direction::Ingress => {
                spec.ingress.iter().flatten().any(|rule| one(rule.from.as_ref(), rule.ports.as_ref()))
            }
            Direction::Egress => {
                spec.egress.iter().flatten().any(|rule| one(rule.to.as_ref(), rule.ports.as_ref()))
            }
        };
    }

    fn kubernetes_peer(&self, written: &NetworkPolicyPeer, namespace: &str, peer: &Peer) -> bool {
        if let Some(block) = &written.ip_block {
            let Peer::Address(address) = peer else { return false };
            let inside = |text: &String| network(text).contains(address);
            return inside(&block.cidr) && !block.except.iter().flatten().any(inside);
        }
        let Peer::Pod(pod) = peer else { return false };
        let there = match &written.namespace_selector {
            Some(selector) => self.selects(selector, peer, "io.cilium.k8s.namespace.labels."),
            None => pod.namespace() == namespace,
        };
        there && written.pod_selector.as_ref().is_none_or(|selector| self.selects(selector, peer, ""))
    }

    fn kubernetes_port(&self, written: &NetworkPolicyPort, packet: Packet<'_>) -> bool {
        if protocol(written.protocol.as_deref().unwrap_or("TCP")) != packet.protocol {
            return false;
        }
        let port = i64::from(packet.port);
        match (&written.port, written.end_port) {
            (None, _) => true,
            (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
            (Some(IntOrString::Int(number)), None) => *number == port,
            (Some(IntOrString::String(name)), _) => self.named(name, packet).map(i64::from) == Some(port),
        }
    }
}

/// One entry, whichever direction it is for.
struct Entry<'a> {
    endpoints: Option<&'a [LabelSelector]>,
    requires: Option<&'a [LabelSelector]>,
    cidr: Option<&'a [String]>,
    cidr_set: Option<&'a [CidrRule]>,
    entities: Option<&'a [String]>,
    ports: Option<&'a [PortRule]>,
    icmps: Option<&'a [IcmpRule]>,
}

impl<'a> Entry<'a> {
    fn ingress(rule: &'a IngressRule) -> Self {
        Self {
            endpoints: rule.from_endpoints.as_deref(),
            requires: rule.from_requires.as_deref(),
            cidr: rule.from_cidr.as_deref(),
            cidr_set: rule.from_cidr_set.as_deref(),
            entities: rule.from_entities.as_deref(),
            ports: rule.to_ports.as_deref(),
            icmps: rule.icmps.as_deref(),
        }
    }

    fn egress(rule: &'a EgressRule) -> Self {
        Self {
            endpoints: rule.to_endpoints.as_deref(),
            requires: rule.to_requires.as_deref(),
            cidr: rule.to_cidr.as_deref(),
            cidr_set: rule.to_cidr_set.as_deref(),
            entities: rule.to_entities.as_deref(),
            ports: rule.to_ports.as_deref(),
            icmps: rule.icmps.as_deref(),
        }
    }
}

fn network(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap()))
}

fn protocol(name: &str) -> Protocol {
    match name {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => panic!("{other}"),
    }
}

fn is_entity(entity: &str, peer: &Peer) -> bool {
    match (entity, peer) {
        ("all", _) => true,
        ("world", Peer::Address(_)) => true,
        ("world-ipv4", Peer::Address(address)) => address.is_ipv4(),
        ("world-ipv6", Peer::Address(address)) => address.is_ipv6(),
        ("cluster" | "cluster-mesh", Peer::Pod(_) | Peer::Reserved(_)) => true,
        (name, Peer::Reserved(own)) => name == *own,
        _ => false,
    }
}
