//! Selectors: whom they can match at all, whom they match now, and what is often taken for something else.

mod nobody;

use std::collections::BTreeMap;

use sluice_api::{LabelSelector as WrittenSelector, network_policy::NetworkPolicyPeer};
use sluice_policy::{
    PolicyKind,
    labels::{CLUSTER, NAMESPACE, NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT, pod_labels},
    rule::{Action, Peers, RuleSubject},
    selector::{LabelKey, LabelSelector, Selector},
};
use sluice_types::{Direction, Source};

use crate::{
    cover::contradiction,
    report::{At, Report},
    rules::{
        EMPTY_PEER_IS_OWN_NAMESPACE, LABEL_NEVER_ON_A_POD, NAMESPACE_OF_SUBJECT_IGNORED,
        PEERS_ARE_ALTERNATIVES, SELECTOR_CONTRADICTS_ITSELF,
    },
    scene::{Policy, Scene, rule_path},
    written::Written,
};

/// A selector of pods, where it stands and what it means.
#[derive(Clone, Debug)]
struct Placed<'s, 'a> {
    at: At<'a>,
    selector: &'s LabelSelector,
    is_subject: bool,
}

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        let selectors = selectors(policy);
        for placed in &selectors {
            if let Some(key) = contradiction(placed.selector) {
                let message =
                    format!("no pod can ever match: what is asked of {} cannot all hold", shown(key));
                let help = "Expressions must all hold; alternatives are values of one `In`, or elements of the list.";
                report.add(&SELECTOR_CONTRADICTS_ITSELF, &placed.at, message, help);
            } else if !never_on_a_pod(placed, report) {
                nobody::check(scene, policy, placed, report);
            }
        }
        namespace_ignored(policy, report);
        empty_destination(policy, report);
        alternatives(policy, report);
    }
}

/// The selectors of pods, subjects first.
fn selectors<'s, 'a>(policy: &'s Policy<'a>) -> Vec<Placed<'s, 'a>> {
    let mut found = Vec::new();
    let mut subject = |at: At<'a>, subject: Option<&'s RuleSubject>| {
        if let Some(RuleSubject::Endpoints(selector)) = subject {
            found.push(Placed { at, selector, is_subject: true });
        }
    };
    match policy.written {
        Written::Cilium { .. } => {
            for spec in policy.specs() {
                let inside = format!("{}.", spec.path);
                let rule = policy.rules.iter().find(|rule| rule_path(rule).starts_with(&inside));
                subject(policy.at(format!("{}.endpointSelector", spec.path)), rule.map(|rule| &rule.subject));
            }
        }
        Written::Kubernetes(_) => {
            subject(policy.at("spec.podSelector"), policy.rules.first().map(|rule| &rule.subject));
        }
        Written::Administrator(_) => {
            subject(policy.at("spec.subject"), policy.rules.first().map(|rule| &rule.subject));
        }
    }
    found.extend(policy.rules.iter().flat_map(|rule| peers(policy, rule)));
    found
}

fn peers<'s, 'a>(policy: &'s Policy<'a>, rule: &'s sluice_policy::Rule) -> Vec<Placed<'s, 'a>> {
    let path = rule_path(rule);
    let labels: Vec<(usize, &LabelSelector)> = match &rule.peers {
        Peers::Endpoints(selectors) => selectors.iter().enumerate().collect(),
        Peers::Select(selectors) => {
            let labels = selectors.iter().enumerate().filter_map(|(nth, selector)| match selector {
                Selector::Labels(labels) => Some((nth, labels)),
                Selector::Cidr(_) => None,
            });
            labels.collect()
        }
        Peers::Any | Peers::Prefixes(_) | Peers::Services(_) => Vec::new(),
    };
    let place = |nth: usize| {
        let field = match (policy.written, rule.direction) {
            (Written::Cilium { .. }, Direction::Ingress) => format!(".fromEndpoints[{nth}]"),
            (Written::Cilium { .. }, Direction::Egress) => format!(".toEndpoints[{nth}]"),
            (Written::Kubernetes(_), Direction::Ingress) => format!(".from[{nth}]"),
            (Written::Kubernetes(_), Direction::Egress) => format!(".to[{nth}]"),
            // One peer may be several selectors here.
            (Written::Administrator(_), _) => String::new(),
        };
        policy.at(format!("{path}{field}"))
    };
    let is_pods =
        |selector: &LabelSelector| selector.looks_at(|key| key.key == NAMESPACE || key.key == CLUSTER);
    let of_pods = labels.into_iter().filter(|(_, selector)| is_pods(selector));
    of_pods.map(|(nth, selector)| Placed { at: place(nth), selector, is_subject: false }).collect()
}

/// The key as users write it.
fn shown(key: &LabelKey) -> String {
    match key.source {
        Source::Any | Source::K8s => {
            key.key.strip_prefix(NAMESPACE_LABEL_PREFIX).unwrap_or(&key.key).to_owned()
        }
        Source::Reserved
        | Source::Cidr
        | Source::Fqdn
        | Source::CidrGroup
        | Source::Node
        | Source::Container
        | Source::Unspec
        | Source::Other(_) => key.to_string(),
    }
}

/// Whether a selector asks for a label that no pod can have.
fn never_on_a_pod(placed: &Placed<'_, '_>, report: &mut Report) -> bool {
    let keys = placed.selector.requirements().map(|requirement| requirement.key());
    let Some(key) = keys.into_iter().find(|key| !can_be_on_a_pod(key)) else { return false };
    let message = format!("{} is no part of what pods are told apart by, so it is never there", shown(key));
    let help = match key.source {
        Source::Any | Source::K8s => {
            "Labels that change without a change of the workload are left out of identities; use a label of the \
             workload itself, such as `app`."
        }
        Source::Reserved
        | Source::Cidr
        | Source::Fqdn
        | Source::CidrGroup
        | Source::Node
        | Source::Container
        | Source::Unspec
        | Source::Other(_) => {
            "Labels of pods have the source `k8s`; write the key alone or with `k8s:` in front."
        }
    };
    report.add(&LABEL_NEVER_ON_A_POD, &placed.at, message, help);
    true
}

fn can_be_on_a_pod(key: &LabelKey) -> bool {
    match key.source {
        Source::Any | Source::K8s => {
            let ours = [NAMESPACE, CLUSTER, SERVICE_ACCOUNT].contains(&key.key.as_str());
            let of_namespace = key.key.starts_with(NAMESPACE_LABEL_PREFIX);
            // The engine knows which labels count.
            let own = BTreeMap::from([(key.key.clone(), "any".to_owned())]);
            let kept = || {
                pod_labels(&own, "any", &BTreeMap::new(), "", "any").value(&Source::K8s, &key.key).is_some()
            };
            ours || of_namespace || kept()
        }
        // Other things than pods have these.
        Source::Reserved | Source::Cidr | Source::Fqdn | Source::CidrGroup => true,
        Source::Node | Source::Container | Source::Unspec | Source::Other(_) => false,
    }
}

fn namespace_ignored(policy: &Policy<'_>, report: &mut Report) {
    if policy.name.kind != PolicyKind::Cnp {
        return;
    }
    for spec in policy.specs() {
        let labels = spec.rule.endpoint_selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
        for (written, value) in labels.into_iter().flatten() {
            let key = LabelKey::parse(written);
            let is_namespace = matches!(key.source, Source::Any | Source::K8s) && key.key == NAMESPACE;
            if is_namespace && *value != policy.name.namespace {
                let at = policy.at(format!("{}.endpointSelector.matchLabels[{written}]", spec.path));
                let own = &policy.name.namespace;
                let message =
                    format!("the policy applies to pods of {own}, not of {value}: the namespace gives way");
                let help =
                    format!("Set `metadata.namespace: {value}`, or use a CiliumClusterwideNetworkPolicy.");
                report.add(&NAMESPACE_OF_SUBJECT_IGNORED, &at, message, help);
            }
        }
    }
}

fn empty_destination(policy: &Policy<'_>, report: &mut Report) {
    if policy.name.kind != PolicyKind::Cnp {
        return;
    }
    for entry in policy.entries() {
        let wanted = entry.direction == Direction::Egress && entry.action == Action::Allow;
        for (path, _) in
            entry.endpoints.items(&entry.path).filter(|(_, selector)| wanted && is_empty(selector))
        {
            let own = &policy.name.namespace;
            let message = format!("an empty selector means every pod of {own}, not every destination");
            let help = "For everything write `toEntities: [all]`; for every pod of the cluster \
                        `matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]`.";
            report.add(&EMPTY_PEER_IS_OWN_NAMESPACE, &policy.at(path), message, help);
        }
    }
}

fn is_empty(selector: &WrittenSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn alternatives(policy: &Policy<'_>, report: &mut Report) {
    let Written::Kubernetes(Some(spec)) = policy.written else { return };
    let ingress = spec.ingress.iter().flatten().map(|rule| rule.from.as_deref());
    let egress = spec.egress.iter().flatten().map(|rule| rule.to.as_deref());
    let lists = ingress.enumerate().map(|(nth, peers)| (format!("spec.ingress[{nth}].from"), peers));
    let lists = lists.chain(egress.enumerate().map(|(nth, peers)| (format!("spec.egress[{nth}].to"), peers)));
    for (path, peers) in lists {
        let peers = peers.unwrap_or_default();
        let only_namespaces =
            |peer: &NetworkPolicyPeer| peer.namespace_selector.is_some() && peer.pod_selector.is_none();
        let only_pods =
            |peer: &NetworkPolicyPeer| peer.pod_selector.is_some() && peer.namespace_selector.is_none();
        let split = peers.windows(2).position(|pair| {
            let (one, other) = (pair.first(), pair.last());
            let both = |first: &dyn Fn(&NetworkPolicyPeer) -> bool,
                        second: &dyn Fn(&NetworkPolicyPeer) -> bool| {
                one.is_some_and(first) && other.is_some_and(second)
            };
            both(&only_namespaces, &only_pods) || both(&only_pods, &only_namespaces)
        });
        if let Some(nth) = split {
            let message =
                "these are two peers: every pod of those namespaces, and such pods of this namespace";
            let help = "To mean such pods in those namespaces, write both selectors in one element: without the dash \
                        before the second.";
            report.add(&PEERS_ARE_ALTERNATIVES, &policy.at(format!("{path}[{}]", nth + 1)), message, help);
        }
    }
}
