//! What rules refer to by name: Services, groups of prefixes, named ports.

use std::collections::BTreeSet;

use sluice_api::nearest;
use sluice_policy::{
    ServiceName,
    rule::{Peers, PrefixSource, ServicePeer, Traffic, WhichServices},
};
use sluice_types::{Direction, Protocol};

use crate::{
    cover::{Peer, peers_of},
    report::Report,
    rules::{UNKNOWN_CIDR_GROUP, UNKNOWN_PORT_NAME, UNKNOWN_SERVICE},
    scene::{Placed, Pod, Scene, rule_path},
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for placed in scene.rules() {
        services(scene, placed, report);
        groups(scene, placed, report);
        port_names(scene, placed, report);
    }
}

fn services(scene: &Scene<'_>, placed: Placed<'_, '_>, report: &mut Report) {
    let path = rule_path(placed.rule);
    let by_port = placed.rule.ports.rules().filter_map(|ports| {
        let at = format!("{path}.{}.service", ports.path);
        Some((at, ports.service.clone()?))
    });
    let by_peer = match &placed.rule.peers {
        Peers::Services(services) => services.iter().enumerate().filter_map(named).collect(),
        Peers::Any | Peers::Select(_) | Peers::Endpoints(_) | Peers::Prefixes(_) => Vec::new(),
    };
    let by_peer =
        by_peer.into_iter().map(|(nth, name)| (format!("{path}.toServices[{nth}].k8sService"), name));
    for (at, name) in by_port.chain(by_peer) {
        if scene.services.contains_key(&name) {
            continue;
        }
        let here = || scene.services.keys().filter(|known| known.namespace == name.namespace);
        let known: Vec<&str> = here().map(|known| known.name.as_str()).collect();
        let elsewhere = scene.services.keys().find(|known| known.name == name.name);
        let help = match (nearest(&name.name, &known), elsewhere) {
            (Some(meant), _) => format!("Did you mean `{meant}`?"),
            (None, Some(other)) => {
                format!("There is one of that name in {}: write `{other}`.", other.namespace)
            }
            (None, None) if !known.is_empty() => {
                format!("The Services of {} are {}.", name.namespace, known.join(", "))
            }
            // The documents say nothing about that namespace.
            (None, None) => continue,
        };
        let message = format!("there is no Service {name}, so this matches nothing");
        report.add(&UNKNOWN_SERVICE, &placed.policy.at(at), message, help);
    }
}

fn named((nth, peer): (usize, &ServicePeer)) -> Option<(usize, ServiceName)> {
    match (&peer.namespace, &peer.which) {
        (Some(namespace), WhichServices::Named(name)) => {
            Some((nth, ServiceName { namespace: namespace.clone(), name: name.clone() }))
        }
        (None, WhichServices::Named(_)) | (_, WhichServices::Labelled(_)) => None,
    }
}

fn groups(scene: &Scene<'_>, placed: Placed<'_, '_>, report: &mut Report) {
    let Peers::Prefixes(peers) = &placed.rule.peers else { return };
    let list = if placed.rule.direction == Direction::Ingress { "fromCIDRSet" } else { "toCIDRSet" };
    for (nth, peer) in peers.iter().enumerate() {
        let PrefixSource::Group(name) = &peer.source else { continue };
        if scene.groups.is_empty() || scene.groups.contains_key(name.as_str()) {
            continue;
        }
        let known: Vec<&str> = scene.groups.keys().copied().collect();
        let help = match nearest(name, &known) {
            Some(meant) => format!("Did you mean `{meant}`?"),
            None => format!("The groups are {}.", known.join(", ")),
        };
        let at = placed.policy.at(format!("{}.{list}[{nth}].cidrGroupRef", rule_path(placed.rule)));
        let message = format!("there is no CiliumCIDRGroup {name}, so this matches nothing");
        report.add(&UNKNOWN_CIDR_GROUP, &at, message, help);
    }
}

fn port_names(scene: &Scene<'_>, placed: Placed<'_, '_>, report: &mut Report) {
    let mut traffic = placed.rule.ports.rules().flat_map(|ports| &ports.traffic);
    if !traffic.any(|traffic| name_of(traffic).is_some()) {
        return;
    }
    let receivers = receivers(scene, placed);
    if receivers.is_empty() {
        return;
    }
    for ports in placed.rule.ports.rules() {
        let names: BTreeSet<&str> = ports.traffic.iter().filter_map(name_of).map(|(_, name)| name).collect();
        for name in names {
            let asked = || ports.traffic.iter().filter_map(name_of).filter(|(_, own)| *own == name);
            let has = |protocol: Protocol| {
                let mut named = receivers.iter().flat_map(|pod| &pod.named_ports);
                named.any(|port| port.name == name && port.protocol == protocol)
            };
            if asked().any(|(protocol, _)| has(protocol)) {
                continue;
            }
            let known: BTreeSet<&str> =
                receivers.iter().flat_map(|pod| &pod.named_ports).map(|port| port.name.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            let help = match nearest(name, &known) {
                Some(same) if same == name => {
                    "The pods have a port of that name, but of another protocol.".to_owned()
                }
                Some(meant) => format!("Did you mean `{meant}`?"),
                None if known.is_empty() => "Their containers name no ports: use the number.".to_owned(),
                None => format!("Their ports are {}.", known.join(", ")),
            };
            let at = placed.policy.at(format!("{}.{}", rule_path(placed.rule), ports.path));
            let message =
                format!("none of the receiving pods has a port named {name}, so this matches nothing");
            report.add(&UNKNOWN_PORT_NAME, &at, message, help);
        }
    }
}

fn name_of(traffic: &Traffic) -> Option<(Protocol, &str)> {
    match traffic {
        Traffic::NamedPort(protocol, name) => Some((*protocol, name)),
        Traffic::Protocol(_) | Traffic::Ports(..) | Traffic::Icmp(..) => None,
    }
}

/// The pods whose port names count: the selected ones for ingress, the peers for egress.
fn receivers<'s>(scene: &'s Scene<'_>, placed: Placed<'_, '_>) -> Vec<&'s Pod> {
    let rule = placed.rule;
    match rule.direction {
        Direction::Ingress => scene.pods_of(&placed).collect(),
        Direction::Egress => {
            let peers = peers_of(&rule.peers);
            let is_meant = |pod: &&Pod| match &peers {
                None => true,
                Some(peers) => peers.iter().any(|peer| match peer {
                    Peer::Labels(labels) => labels.matches(&pod.labels),
                    Peer::Prefix(_) | Peer::Group(_) | Peer::Service(_) => false,
                }),
            };
            scene.pods.iter().filter(is_meant).collect()
        }
    }
}
