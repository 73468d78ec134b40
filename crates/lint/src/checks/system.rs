//! Namespaces and pods that the cluster itself depends on.

use sluice_policy::{
    PolicyKind, Rule,
    labels::{CLUSTER, NAMESPACE},
    rule::{Action, RuleSubject, Tier, Traffic},
};
use sluice_types::{Direction, Protocol};

use super::names::DNS_PORT;
use crate::{
    cover::{PortSet, select_nobody},
    report::Report,
    rules::{CLUSTERWIDE_CLOSES_EVERYTHING, NAME_SERVER_CLOSED, SYSTEM_NAMESPACE_CLOSED},
    scene::{Policy, Scene},
};

/// Namespaces without which the cluster or everybody's way into it stops working, by their usual names.
const SYSTEM_NAMESPACES: [&str; 19] = [
    "calico-system",
    "cert-manager",
    "cilium",
    "contour",
    "envoy-gateway-system",
    "gateway-system",
    "gatekeeper-system",
    "haproxy-controller",
    "ingress",
    "ingress-nginx",
    "istio-ingress",
    "istio-system",
    "kong",
    "kube-system",
    "metallb-system",
    "monitoring",
    "nginx-ingress",
    "projectcontour",
    "traefik",
];

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in scene.policies.iter().filter(|policy| !is_audited(policy)) {
        match policy.name.kind {
            PolicyKind::Cnp | PolicyKind::Knp => namespace_closed(policy, report),
            PolicyKind::Ccnp => everything_closed(scene, policy, report),
            PolicyKind::Kcnp => {}
        }
    }
    name_servers(scene, report);
}

/// Whether a policy only reports what it would deny.
pub(super) fn is_audited(policy: &Policy<'_>) -> bool {
    policy.rules.iter().any(|rule| rule.audit)
}

/// A rule that closes a direction for all pods of where it may select them.
fn closing_for_all<'p>(policy: &'p Policy<'_>) -> Option<&'p Rule> {
    let for_all = |rule: &&Rule| {
        let RuleSubject::Endpoints(selector) = &rule.subject else { return false };
        selector
            .requirements()
            .all(|requirement| [NAMESPACE, CLUSTER].contains(&requirement.key().key.as_str()))
    };
    policy.rules.iter().filter(|rule| rule.default_deny && rule.tier == Tier::Normal).find(for_all)
}

/// Where the subject of a rule stands.
fn subject_path(policy: &Policy<'_>, rule: &Rule) -> String {
    let path = crate::scene::rule_path(rule);
    let spec = policy.specs().into_iter().find(|spec| path.starts_with(&format!("{}.", spec.path)));
    spec.map_or_else(|| "spec.podSelector".to_owned(), |spec| format!("{}.endpointSelector", spec.path))
}

fn namespace_closed(policy: &Policy<'_>, report: &mut Report) {
    let namespace = policy.name.namespace.as_str();
    let Some(rule) = closing_for_all(policy).filter(|_| SYSTEM_NAMESPACES.contains(&namespace)) else {
        return;
    };
    let message = format!(
        "{} of every pod of {namespace} is closed, which the cluster depends on",
        rule.direction.as_str()
    );
    let help = "Select single workloads instead, last of all namespaces, and watch them in audit mode first \
                (annotation `sluice.dev/audit`).";
    report.add(&SYSTEM_NAMESPACE_CLOSED, &policy.at(subject_path(policy, rule)), message, help);
}

fn everything_closed(scene: &Scene<'_>, policy: &Policy<'_>, report: &mut Report) {
    let Some(rule) = closing_for_all(policy) else { return };
    if !scene.name_servers.iter().any(|server| rule.subject.matches(server)) {
        return;
    }
    let direction = rule.direction.as_str();
    let message =
        format!("{direction} of every pod of the cluster is closed, kube-system and ingress among them");
    let help = format!(
        "Leave system namespaces out (`matchExpressions: [{{key: {NAMESPACE}, operator: NotIn, values: [kube-system]}}]`), \
         or add `enableDefaultDeny: {{{direction}: false}}` if the policy shall only add to others."
    );
    report.add(&CLUSTERWIDE_CLOSES_EVERYTHING, &policy.at(subject_path(policy, rule)), message, help);
}

/// Name servers whose ingress is closed without any rule that lets questions in.
fn name_servers(scene: &Scene<'_>, report: &mut Report) {
    for server in &scene.name_servers {
        let rules = || {
            let of_server = scene.rules().filter(|placed| !is_audited(placed.policy));
            of_server.filter(|placed| {
                placed.rule.direction == Direction::Ingress && placed.rule.subject.matches(server)
            })
        };
        let Some(closing) = rules().find(|placed| placed.rule.default_deny) else { continue };
        if !rules().any(|placed| lets_questions_in(placed.rule)) {
            let message = "the cluster's name servers are closed for questions, so no pod can resolve a name";
            let help = "Let port 53, UDP and TCP, in from all pods, for example `fromEntities: [cluster]`.";
            report.add(&NAME_SERVER_CLOSED, &closing.at(), message, help);
            return;
        }
    }
}

fn lets_questions_in(rule: &Rule) -> bool {
    let by_name = rule.ports.rules().flat_map(|ports| &ports.traffic).any(|traffic| match traffic {
        Traffic::NamedPort(Protocol::Udp, name) => name == "dns",
        Traffic::NamedPort(..) | Traffic::Protocol(_) | Traffic::Ports(..) | Traffic::Icmp(..) => false,
    });
    let open = by_name || PortSet::of(&rule.ports).has_port(Protocol::Udp, DNS_PORT);
    rule.action == Action::Allow && open && !select_nobody(&rule.peers)
}
