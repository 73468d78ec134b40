//! Deny rules that cut the kubelet's probes, which come from the node.

use std::collections::BTreeSet;

use sluice_policy::{
    labels::reserved_labels,
    rule::{Action, RuleSubject, Tier},
};
use sluice_types::{Direction, Identity, Protocol};

use super::system::is_audited;
use crate::{
    cover::{Peer, PortSet, peers_of},
    report::Report,
    rules::PROBES_CUT,
    scene::{Placed, Scene},
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for placed in scene.rules() {
        let rule = placed.rule;
        let denies = rule.action == Action::Deny && rule.tier != Tier::Baseline && !is_audited(placed.policy);
        let pods = matches!(rule.subject, RuleSubject::Endpoints(_));
        if denies && pods && rule.direction == Direction::Ingress && means_the_node(placed) {
            cut(scene, placed, report);
        }
    }
}

fn means_the_node(placed: Placed<'_, '_>) -> bool {
    let node = reserved_labels(Identity::HOST);
    peers_of(&placed.rule.peers).is_none_or(|peers| {
        peers.iter().any(|peer| match peer {
            Peer::Labels(labels) => labels.matches(&node),
            Peer::Prefix(_) | Peer::Group(_) | Peer::Service(_) => false,
        })
    })
}

fn cut(scene: &Scene<'_>, placed: Placed<'_, '_>, report: &mut Report) {
    let denied = PortSet::of(&placed.rule.ports);
    let listening: BTreeSet<u16> = scene
        .pods_of(&placed)
        .flat_map(|pod| pod.tcp_ports.iter().copied())
        .filter(|port| denied.has_port(Protocol::Tcp, *port))
        .collect();
    let what = if denied.is_all_of(Protocol::Tcp) {
        "on every port".to_owned()
    } else if listening.is_empty() {
        return;
    } else {
        let ports: Vec<String> = listening.iter().map(u16::to_string).collect();
        format!("on {}, where the pods listen", ports.join(", "))
    };
    let message =
        format!("this also denies the node {what}: probes fail and the pods are restarted for ever");
    let help = "Probes need no rule unless one denies the node. Name the peers that are meant: `world`, \
                `remote-node` or labels instead of `all`, `cluster`, `host` or nobody in particular.";
    report.add(&PROBES_CUT, &placed.at(), message, help);
}
