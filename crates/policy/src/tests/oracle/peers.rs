//! Whom a policy means.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_api::{
    LabelSelector,
    cilium::{CidrRule, FqdnSelector, PolicyRule, ServiceSelector},
};
use sluice_types::Direction;

use sluice_arbitrary::{Pod, Policy, Svc};

use super::{Entry, Packet, Peer, World};

impl World<'_> {
    /// Whether an entry means a peer; which for the address of a Service is whoever is behind it.
    pub(super) fn entry_peers(
        &self,
        entry: &Entry<'_>,
        namespace: Option<&str>,
        packet: Packet<'_>,
        peer: &Peer,
        deny: bool,
    ) -> bool {
        let no_kind = entry.endpoints.is_none()
            && entry.cidr.is_none()
            && entry.cidr_set.is_none()
            && entry.entities.is_none()
            && entry.nodes.is_none()
            && entry.services.is_none()
            && entry.names.is_none();
        if no_kind {
            let has_ports = entry.ports.is_some_and(|list| !list.is_empty());
            let has_icmp = entry.icmps.is_some_and(|list| !list.is_empty());
            let requires = entry.requires.is_some_and(|list| !list.is_empty());
            return (has_ports || has_icmp) && !requires;
        }
        let endpoints = entry.endpoints.unwrap_or_default().iter().any(|selector| {
            self.selects_peer(selector, namespace, peer) && self.fulfils_requirements(packet, peer, deny)
        });
        let cidr = entry.cidr.unwrap_or_default().iter().any(|prefix| is_inside(prefix, peer));
        let cidr_set = entry.cidr_set.unwrap_or_default().iter().any(|set| self.cidr_set(set, peer));
        let entities = entry.entities.unwrap_or_default().iter().any(|entity| is_entity(entity, peer));
        let nodes = entry.nodes.unwrap_or_default().iter().any(|selector| is_node(selector, peer, false));
        let services = entry.services.unwrap_or_default().iter().any(|service| self.is_behind(service, peer));
        let names = entry.names.unwrap_or_default().iter().any(|name| self.has_name(name, peer));
        endpoints || cidr || cidr_set || entities || nodes || services || names
    }

    fn cidr_set(&self, set: &CidrRule, peer: &Peer) -> bool {
        let mut prefixes: Vec<&str> = set.cidr.as_deref().into_iter().collect();
        for group in self.groups {
            let by_name = set.cidr_group_ref.as_deref() == Some(group.name);
            let by_labels = set
                .cidr_group_selector
                .as_ref()
                .is_some_and(|selector| fits(selector, |key| value_of(group.labels, key)));
            if by_name || by_labels {
                prefixes.extend(group.prefixes);
            }
        }
        prefixes.iter().any(|prefix| is_inside(prefix, peer))
            && !set.except.iter().flatten().any(|hole| is_inside(hole, peer))
    }

    fn is_behind(&self, wanted: &ServiceSelector, peer: &Peer) -> bool {
        self.services.iter().any(|service| {
            let (namespace, name) = service.name.split_once('/').unwrap();
            let here = |wanted: &Option<String>| {
                wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == namespace)
            };
            let meant = match (&wanted.k8s_service_selector, &wanted.k8s_service) {
                (Some(labels), _) => {
                    here(&labels.namespace) && fits(&labels.selector, |key| value_of(service.labels, key))
                }
                (None, Some(named)) => here(&named.namespace) && named.service_name.as_deref() == Some(name),
                (None, None) => panic!("{wanted:?}"),
            };
            meant && leads_to(service, namespace, peer)
        })
    }

    fn has_name(&self, wanted: &FqdnSelector, peer: &Peer) -> bool {
        let pattern = wanted.match_name.as_deref().or(wanted.match_pattern.as_deref()).unwrap();
        self.is_known_as(pattern, peer)
    }

    /// Whether an address was learnt for a name that fits a pattern.
    pub(super) fn is_known_as(&self, pattern: &str, peer: &Peer) -> bool {
        let Peer::Address(address) = peer else { return false };
        let known = self.names.iter().filter(|(text, _)| text.parse() == Ok(*address));
        known.flat_map(|(_, names)| *names).any(|name| is_name(pattern, name))
    }

    /// Whether the peer fulfils what every rule of the subject in this direction requires of endpoints.
    fn fulfils_requirements(&self, packet: Packet<'_>, peer: &Peer, deny: bool) -> bool {
        self.policies.iter().all(|policy| {
            let (namespace, rules) = match policy {
                Policy::Cnp(policy) => (policy.metadata.namespace.as_deref(), &policy.spec),
                Policy::Ccnp(policy) => (None, &policy.spec),
                Policy::Knp(_) | Policy::Kcnp(_) => return true,
            };
            rules.iter().filter(|rule| self.is_subject(rule, namespace, packet)).all(|rule| {
                let required = required(rule, packet.direction, deny);
                required.iter().all(|selector| self.selects_peer(selector, namespace, peer))
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
    pub(super) fn selects(&self, selector: &LabelSelector, peer: &Peer, prefix: &str) -> bool {
        fits(selector, |key| self.value(peer, &format!("{prefix}{key}")))
    }

    /// The value a peer has under a key as written in a selector.
    fn value(&self, peer: &Peer, key: &str) -> Option<String> {
        if let Some(name) = key.strip_prefix("reserved:") {
            let has = match peer {
                Peer::Reserved(own) => *own == name,
                Peer::Node(_) => name == "remote-node",
                Peer::Address(IpAddr::V4(_)) => name == "world" || name == "world-ipv4",
                Peer::Address(IpAddr::V6(_)) => name == "world" || name == "world-ipv6",
                Peer::Pod(_) => false,
            };
            return has.then(String::new);
        }
        let pod = match peer {
            Peer::Pod(pod) => pod,
            Peer::Node(labels) => {
                let bare = key.trim_start_matches("any:").trim_start_matches("node:");
                return value_of(labels, bare);
            }
            Peer::Reserved(_) | Peer::Address(_) => return None,
        };
        if key.starts_with("container:") {
            return None;
        }
        let key = key.trim_start_matches("k8s:").trim_start_matches("any:");
        if key == "io.kubernetes.pod.namespace" {
            return Some(pod.namespace().to_owned());
        }
        match key.strip_prefix("io.cilium.k8s.namespace.labels.") {
            Some(key) => value_of(&self.namespace_labels[pod.namespace()], key),
            None => value_of(pod.labels, key),
        }
    }

    /// The pod or address that stands behind a Service.
    pub(super) fn backend(&self, name: &str) -> Peer {
        let pod = self.pods.iter().find(|pod| pod.name == name);
        pod.map_or_else(|| Peer::Address(name.parse().unwrap()), |pod: &Pod| Peer::Pod(pod.clone()))
    }
}

fn required(rule: &PolicyRule, direction: Direction, deny: bool) -> Vec<&LabelSelector> {
    let ingress = if deny { &rule.ingress_deny } else { &rule.ingress };
    let egress = if deny { &rule.egress_deny } else { &rule.egress };
    match direction {
        Direction::Ingress => {
            ingress.iter().flatten().flat_map(|entry| entry.from_requires.iter().flatten()).collect()
        }
        Direction::Egress => {
            egress.iter().flatten().flat_map(|entry| entry.to_requires.iter().flatten()).collect()
        }
    }
}

fn leads_to(service: &Svc, namespace: &str, peer: &Peer) -> bool {
    match (service.selector, peer) {
        (Some((key, value)), Peer::Pod(pod)) => {
            pod.namespace() == namespace && value_of(pod.labels, key).as_deref() == Some(value)
        }
        (None, Peer::Address(address)) => service.behind.iter().any(|text| text.parse() == Ok(*address)),
        (Some(_) | None, _) => false,
    }
}

fn value_of(labels: &[(&str, &str)], key: &str) -> Option<String> {
    labels.iter().find(|(own, _)| *own == key).map(|(_, value)| (*value).to_owned())
}

/// Whether a selector fits what `value` says.
pub(super) fn fits(selector: &LabelSelector, value: impl Fn(&str) -> Option<String>) -> bool {
    let has = |key: &str, values: &[String]| value(key).is_some_and(|found| values.contains(&found));
    let labels =
        selector.match_labels.iter().flatten().all(|(key, value)| has(key, std::slice::from_ref(value)));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let values = expression.values.clone().unwrap_or_default();
        match expression.operator.as_str() {
            "In" => has(&expression.key, &values),
            "NotIn" => !has(&expression.key, &values),
            "Exists" => value(&expression.key).is_some(),
            "DoesNotExist" => value(&expression.key).is_none(),
            other => panic!("{other}"),
        }
    });
    labels && expressions
}

/// Whether a selector means a node: another one, or `local` allowing this one as well.
pub(super) fn is_node(selector: &LabelSelector, peer: &Peer, local: bool) -> bool {
    let labels: &[(&str, &str)] = match peer {
        Peer::Node(labels) => labels,
        Peer::Reserved("remote-node") => &[],
        Peer::Reserved("host") if local => &[],
        Peer::Pod(_) | Peer::Reserved(_) | Peer::Address(_) => return false,
    };
    fits(selector, |key| value_of(labels, key.rsplit_once(':').map_or(key, |(_, bare)| bare)))
}

pub(super) fn is_inside(prefix: &str, peer: &Peer) -> bool {
    let Peer::Address(address) = peer else { return false };
    let net: IpNet = prefix.parse().unwrap_or_else(|_| IpNet::from(prefix.parse::<IpAddr>().unwrap()));
    net.contains(address)
}

fn is_entity(entity: &str, peer: &Peer) -> bool {
    match (entity, peer) {
        ("all", _) => true,
        ("world", Peer::Address(_)) => true,
        ("world-ipv4", Peer::Address(address)) => address.is_ipv4(),
        ("world-ipv6", Peer::Address(address)) => address.is_ipv6(),
        ("cluster" | "cluster-mesh", Peer::Pod(_) | Peer::Reserved(_) | Peer::Node(_)) => true,
        ("remote-node", Peer::Node(_)) => true,
        (name, Peer::Reserved(own)) => name == *own,
        _ => false,
    }
}

/// Whether a name fits a name or pattern, both in lower case and without dot at the end.
pub(super) fn is_name(pattern: &str, name: &str) -> bool {
    if pattern.bytes().all(|byte| byte == b'*') {
        return true;
    }
    if let Some(rest) = pattern.strip_prefix("**.") {
        // Everything before some dot, at least one label.
        return name.match_indices('.').any(|(at, _)| at > 0 && is_name(rest, name.split_at(at + 1).1));
    }
    glob(pattern.as_bytes(), name.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob(&pattern[1..], text)
                || text.first().is_some_and(|byte| *byte != b'.') && glob(pattern, &text[1..])
        }
        (Some(wanted), Some(found)) => wanted == found && glob(&pattern[1..], &text[1..]),
        (Some(_), None) | (None, Some(_)) => false,
    }
}
