//! Policies for nodes: what must still get through to a node, and out of it.

use std::collections::BTreeSet;

use sluice_policy::{EndpointPolicy, Query, rule::RuleSubject};
use sluice_types::{Direction, Identity, Label, Labels, Protocol, Source, Verdict};

use super::system::is_audited;
use crate::{
    report::{At, Report},
    rules::{NODE_LOCKED_OUT, NODE_POLICY_UNTESTED},
    scene::{Engine, Placed, Scene, example_of},
};

const SSH: u16 = 22;
const KUBELET: u16 = 10_250;
const API_SERVER: [u16; 2] = [6_443, 443];
/// Labels of nodes that run the API server.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    let is_node = |placed: &Placed<'_, '_>| matches!(placed.rule.subject, RuleSubject::Node(_));
    if !scene.rules().any(|placed| is_node(&placed)) {
        return;
    }
    let untested: Vec<Placed<'_, '_>> =
        scene.rules().filter(|placed| is_node(placed) && !is_audited(placed.policy)).collect();
    let mut told = BTreeSet::new();
    for placed in &untested {
        if told.insert(&placed.policy.name) {
            let message = "a mistake in a policy for nodes cuts off the node, and you with it";
            let help = "Run the agent in audit mode first (`--audit`), and look at what it would deny \
                        (`sluice monitor`).";
            report.add(&NODE_POLICY_UNTESTED, &placed.policy.at("metadata.name"), message, help);
        }
    }
    let mut engine = Engine::new(scene);
    for labels in nodes(scene, &untested) {
        look_at(&mut engine, labels, &untested, report);
    }
}

/// The nodes that policies are for: those of the documents, or one made for each subject.
fn nodes(scene: &Scene<'_>, rules: &[Placed<'_, '_>]) -> BTreeSet<Labels> {
    let own = |node: &&sluice_api::Node| -> Labels {
        let labels = node.metadata.labels.iter().flatten();
        let labels = labels.map(|(key, value)| Label::new(Source::Node, key, value));
        labels.chain([Label::reserved("host")]).collect()
    };
    let known: Vec<Labels> = scene.nodes.iter().map(own).collect();
    let mut found = BTreeSet::new();
    for placed in rules {
        let selected: Vec<&Labels> =
            known.iter().filter(|labels| placed.rule.subject.matches(labels)).collect();
        if selected.is_empty() {
            found.extend(example_of(&placed.rule.subject));
        }
        found.extend(selected.into_iter().cloned());
    }
    found
}

fn look_at(engine: &mut Engine, labels: Labels, rules: &[Placed<'_, '_>], report: &mut Report) {
    let subject = engine.subject(labels);
    let policy = engine.repository.resolve(&subject);
    let blame = |direction: Direction| {
        let mut own = rules.iter().filter(|placed| placed.rule.subject.matches(&subject.labels));
        own.find(|placed| placed.rule.direction == direction)
    };
    if policy.ingress.enforced
        && let Some(placed) = blame(Direction::Ingress)
    {
        let at = node_selector(placed);
        ingress(engine, &policy, is_control_plane(&subject.labels, rules), &at, report);
    }
    if policy.egress.enforced
        && let Some(placed) = blame(Direction::Egress)
        && !API_SERVER.iter().any(|port| passes(&policy, Direction::Egress, Identity::KUBE_APISERVER, *port))
    {
        let message = "the node cannot reach the API server: its kubelet, and this agent, lose it";
        let help =
            "Allow `toEntities: [kube-apiserver]` on port 6443, and what else the node needs: names, images.";
        report.add(&NODE_LOCKED_OUT, &node_selector(placed), message, help);
    }
}

fn ingress(
    engine: &Engine,
    policy: &EndpointPolicy,
    is_control_plane: bool,
    at: &At<'_>,
    report: &mut Report,
) {
    let from =
        |peers: &[Identity], port| peers.iter().any(|peer| passes(policy, Direction::Ingress, *peer, port));
    let everybody: Vec<Identity> = engine.everybody().filter(|peer| *peer != Identity::HOST).collect();
    if !from(&everybody, SSH) {
        let message = "nobody can reach the node by SSH (22/TCP) any more";
        let help = "Allow port 22 from where you administer nodes, for example `fromCIDR: [10.50.0.0/24]`.";
        report.add(&NODE_LOCKED_OUT, at, message, help);
    }
    if !from(&[Identity::KUBE_APISERVER, Identity::REMOTE_NODE], KUBELET) {
        let message = "the API server cannot reach the kubelet (10250/TCP): no logs, no exec, no metrics";
        let help = "Allow port 10250 with `fromEntities: [kube-apiserver, remote-node]`.";
        report.add(&NODE_LOCKED_OUT, at, message, help);
    }
    if is_control_plane && !API_SERVER.iter().any(|port| from(&[Identity::REMOTE_NODE], *port)) {
        let message = "other nodes cannot reach the API server on this node (6443/TCP)";
        let help = "Allow port 6443 with `fromEntities: [cluster]`, and for people from where they work.";
        report.add(&NODE_LOCKED_OUT, at, message, help);
    }
}

fn passes(policy: &EndpointPolicy, direction: Direction, peer: Identity, port: u16) -> bool {
    let query = Query { direction, peer, protocol: Protocol::Tcp, port: Some(port) };
    match policy.map_state.decide(&query).verdict {
        Verdict::Allow | Verdict::Redirect(_) => true,
        Verdict::Deny(_) | Verdict::Audit(_) => false,
    }
}

/// Whether a node may run the API server: its labels say so, or a policy is for every node.
fn is_control_plane(labels: &Labels, rules: &[Placed<'_, '_>]) -> bool {
    let for_all = rules.iter().any(|placed| match &placed.rule.subject {
        RuleSubject::Node(selector) => selector.requirements().next().is_none(),
        RuleSubject::Endpoints(_) => false,
    });
    for_all || labels.iter().any(|label| CONTROL_PLANE.contains(&label.key.as_str()))
}

fn node_selector<'a>(placed: &Placed<'_, 'a>) -> At<'a> {
    let path = crate::scene::rule_path(placed.rule);
    let spec = path.split('.').next().unwrap_or("spec");
    placed.policy.at(format!("{spec}.nodeSelector"))
}
