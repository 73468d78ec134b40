//! Prefixes, and denials that leave something open.

use std::collections::BTreeSet;

use ipnet::IpNet;
use sluice_policy::{
    PolicyKind, Rule,
    rule::{Action, Peers, PrefixSource, Tier},
    selector::{CidrSelector, Selector},
};
use sluice_types::{Direction, Protocol};

use crate::{
    cover::{Peer, PortSet, peers_of, subjects_meet},
    report::Report,
    rules::{DENY_LEAVES_PROTOCOLS, EXCEPT_ALLOWED_ELSEWHERE, PREFIX_OF_PODS},
    scene::{Placed, Scene, rule_path},
    written::Written,
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for placed in scene.rules() {
        except_allowed(scene, placed, report);
        prefix_of_pods(scene, placed, report);
        leaves_protocols(placed, report);
    }
}

/// The prefixes of a rule with their places.
fn prefixes(placed: Placed<'_, '_>) -> Vec<(String, CidrSelector)> {
    let path = rule_path(placed.rule);
    let ingress = placed.rule.direction == Direction::Ingress;
    let is_cilium = matches!(placed.policy.written, Written::Cilium { .. });
    let of_kubernetes = if ingress { "from" } else { "to" };
    match &placed.rule.peers {
        Peers::Prefixes(peers) => {
            let list = if ingress { "fromCIDRSet" } else { "toCIDRSet" };
            let known = peers.iter().enumerate().filter_map(|(nth, peer)| match peer.source {
                PrefixSource::Prefix(prefix) => {
                    let selector = CidrSelector { prefix, except: peer.except.clone() };
                    Some((format!("{path}.{list}[{nth}]"), selector))
                }
                PrefixSource::Group(_) | PrefixSource::Groups(_) => None,
            });
            known.collect()
        }
        Peers::Select(selectors) => {
            let list = match (is_cilium, ingress) {
                (true, true) => "fromCIDR",
                (true, false) => "toCIDR",
                (false, _) => of_kubernetes,
            };
            let known = selectors.iter().enumerate().filter_map(|(nth, selector)| match selector {
                Selector::Cidr(cidr) => Some((format!("{path}.{list}[{nth}]"), cidr.clone())),
                Selector::Labels(_) => None,
            });
            known.collect()
        }
        Peers::Any | Peers::Endpoints(_) | Peers::Services(_) => Vec::new(),
    }
}

fn except_allowed(scene: &Scene<'_>, placed: Placed<'_, '_>, report: &mut Report) {
    let rule = placed.rule;
    if rule.action != Action::Allow || rule.tier != Tier::Normal {
        return;
    }
    for (path, selector) in prefixes(placed) {
        for hole in &selector.except {
            let opens = |other: &Placed<'_, '_>| {
                let own = Peer::Prefix(std::borrow::Cow::Borrowed(&selector));
                allows_hole(other.rule, rule, hole, &own)
            };
            let Some(other) = scene.rules_near(&placed).find(opens) else { continue };
            let field = if path.contains(".from[") || path.contains(".to[") { ".ipBlock" } else { "" };
            let at = placed.policy.at(format!("{path}{field}.except"));
            let message =
                format!("{hole} is left out here and allowed elsewhere: an exception does not deny");
            let deny = if rule.direction == Direction::Ingress { "ingressDeny" } else { "egressDeny" };
            let help =
                format!("To close it for good, deny it with `{deny}`; else make the other rule narrower.");
            report
                .add(&EXCEPT_ALLOWED_ELSEWHERE, &at, message, help)
                .also(&other.at(), format!("{} allows it", other.name()));
        }
    }
}

/// Whether `other` allows some of a hole of `rule`, for somebody and on some port of both.
fn allows_hole(other: &Rule, rule: &Rule, hole: &IpNet, own: &Peer<'_>) -> bool {
    let same =
        other.direction == rule.direction && other.action == Action::Allow && other.tier == Tier::Normal;
    let meet = || {
        subjects_meet(&other.subject, &rule.subject)
            && PortSet::of(&other.ports).meets(&PortSet::of(&rule.ports))
    };
    let hole = CidrSelector { prefix: *hole, except: BTreeSet::new() };
    let hole = Peer::Prefix(std::borrow::Cow::Owned(hole));
    let opens = || match peers_of(&other.peers) {
        None => true,
        Some(peers) => peers.iter().any(|peer| peer != own && (peer.covers(&hole) || hole.covers(peer))),
    };
    same && meet() && opens()
}

fn prefix_of_pods(scene: &Scene<'_>, placed: Placed<'_, '_>, report: &mut Report) {
    // Prefixes of administrators' policies select pods too.
    if scene.options.config.cidr_match_pods || placed.policy.name.kind == PolicyKind::Kcnp {
        return;
    }
    for (path, selector) in prefixes(placed) {
        let Some(whose) = inside_the_cluster(scene, &selector.prefix) else { continue };
        let message = format!("{} is {whose}: prefixes never select pods", selector.prefix);
        let help = "Select pods by their labels, and Services by `toServices` or by the labels of their pods: policy \
                    sees a pod, not its address, and a Service's address is translated first.";
        report.add(&PREFIX_OF_PODS, &placed.policy.at(path), message, help);
    }
}

/// What a prefix is, if all of it is inside the cluster.
fn inside_the_cluster(scene: &Scene<'_>, prefix: &IpNet) -> Option<String> {
    let pod_prefixes = scene.nodes.iter().flat_map(|node| {
        let listed = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
        listed.into_iter().flatten().filter_map(move |text| Some((node, text.parse::<IpNet>().ok()?)))
    });
    if let Some((node, own)) = pod_prefixes.into_iter().find(|(_, own)| own.contains(prefix)) {
        return Some(format!("inside {own}, the prefix of the pods of node {}", node.metadata.name));
    }
    if prefix.prefix_len() != prefix.max_prefix_len() {
        return None;
    }
    let address = prefix.addr();
    if let Some(pod) = scene.pods.iter().find(|pod| pod.addresses.contains(&address)) {
        return Some(format!("the address of the pod {}", pod.full_name()));
    }
    let service = scene.services.iter().find(|(_, service)| {
        let own = service.spec.cluster_ip.iter().chain(service.spec.cluster_ips.iter().flatten());
        own.into_iter().any(|text| text.parse() == Ok(address))
    });
    service.map(|(name, _)| format!("the address of the Service {name}"))
}

fn leaves_protocols(placed: Placed<'_, '_>, report: &mut Report) {
    let ports = PortSet::of(&placed.rule.ports);
    if placed.rule.action != Action::Deny || ports.is_all() {
        return;
    }
    let (denied, left) = match [Protocol::Tcp, Protocol::Udp].map(|protocol| ports.is_all_of(protocol)) {
        [true, false] => ("TCP", "UDP"),
        [false, true] => ("UDP", "TCP"),
        [true, true] | [false, false] => return,
    };
    let list = match placed.policy.written {
        Written::Cilium { .. } => "toPorts",
        Written::Kubernetes(_) | Written::Administrator(_) => "protocols",
    };
    let message = format!("every port of {denied} is denied, and {left} and ICMP are not");
    let help = format!("To deny everything, leave out `{list}`: a rule without ports is for all protocols.");
    let at = placed.policy.at(format!("{}.{list}", rule_path(placed.rule)));
    report.add(&DENY_LEAVES_PROTOCOLS, &at, message, help);
}
