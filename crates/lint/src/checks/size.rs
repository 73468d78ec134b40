//! How much a policy asks of a node: map entries and identities.

use std::collections::{BTreeMap, BTreeSet};

use sluice_policy::{
    EndpointPolicy, PolicyRef, Rule,
    rule::{Peers, Ports, Traffic},
    selector::Selector,
};
use sluice_types::{Identity, Labels};

use crate::{
    report::{At, Report},
    rules::{IDENTITY_PER_POD, MAP_OVER_BUDGET},
    scene::{Engine, Pod, Scene, example_of},
};

/// From how many pods of a namespace on it is worth looking at what tells them apart.
const PODS_MIN: usize = 20;

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    map(scene, report);
    identities(scene, report);
}

fn map(scene: &Scene<'_>, report: &mut Report) {
    if scene.policies.is_empty() {
        return;
    }
    let budget = scene.options.map_budget;
    let subjects = subjects(scene);
    // Telling an engine everything is worth it only where there may be something to find.
    let peers =
        scene.identities().len() + scene.rules().map(|placed| named_prefixes(placed.rule)).sum::<usize>();
    let large: Vec<Labels> = subjects
        .into_iter()
        .filter(|(_, rules)| rules.iter().map(|rule| entries_max(rule, peers)).sum::<usize>() > budget)
        .map(|(labels, _)| labels)
        .collect();
    if large.is_empty() {
        return;
    }
    let mut engine = Engine::new(scene);
    // The largest one for each policy that has most part in it.
    let mut worst: BTreeMap<PolicyRef, (usize, usize, Labels)> = BTreeMap::new();
    for labels in large {
        let subject = engine.subject(labels.clone());
        let policy = engine.repository.resolve(&subject);
        let entries = policy.map_state.entries.len() + policy.map_state.admin.len();
        if entries <= budget {
            continue;
        }
        let Some((name, own)) = largest_part(&engine, &policy) else { continue };
        let known = worst.entry(name).or_insert_with(|| (entries, own, labels.clone()));
        if known.0 < entries {
            *known = (entries, own, labels);
        }
    }
    for policy in &scene.policies {
        let Some((entries, own, labels)) = worst.get(&policy.name) else { continue };
        let who = scene.pods.iter().find(|pod| pod.labels == *labels).map_or_else(
            || "an endpoint that it selects".to_owned(),
            |pod| format!("the pod {}", pod.full_name()),
        );
        let message = format!(
            "the policy of {who} needs {entries} map entries, {own} of them for this; the budget is {budget}"
        );
        let help = "Entries are peers times blocks of ports. Name ranges that begin and end at powers of two, wider \
                    prefixes, or labels that many peers share; leave out ports that need not be told apart.";
        report.add(&MAP_OVER_BUDGET, &policy.at("metadata.name"), message, help);
    }
}

/// Whom policies select, with the rules for them: every pod, and somebody made for each subject without pods.
fn subjects<'s>(scene: &'s Scene<'_>) -> BTreeMap<Labels, Vec<&'s Rule>> {
    let mut found: BTreeMap<Labels, Vec<&Rule>> = BTreeMap::new();
    for placed in scene.rules() {
        let mut pods: BTreeSet<Labels> = scene.pods_of(&placed).map(|pod| pod.labels.clone()).collect();
        if pods.is_empty() {
            pods.extend(example_of(&placed.rule.subject));
        }
        for labels in pods {
            found.entry(labels).or_default().push(placed.rule);
        }
    }
    // Those made from one subject may be selected by others too.
    for (labels, rules) in found.iter_mut().filter(|(labels, _)| !scene.identities().contains(labels)) {
        *rules =
            scene.rules().map(|placed| placed.rule).filter(|rule| rule.subject.matches(labels)).collect();
    }
    found
}

/// How many prefixes a rule names, each of which is a peer of its own.
fn named_prefixes(rule: &Rule) -> usize {
    let named = |selector: &Selector| match selector {
        Selector::Cidr(cidr) => 1 + cidr.except.len(),
        Selector::Labels(_) => 1,
    };
    match &rule.peers {
        Peers::Select(selectors) => selectors.iter().map(named).sum(),
        Peers::Prefixes(prefixes) => prefixes.iter().map(|peer| 1 + peer.except.len()).sum(),
        Peers::Any | Peers::Endpoints(_) | Peers::Services(_) => 0,
    }
}

/// The most entries that a rule can need where there are so many peers beside the reserved ones.
fn entries_max(rule: &Rule, peers: usize) -> usize {
    let peers = if rule.peers == Peers::Any { 1 } else { peers + Identity::reserved().count() };
    let blocks = |traffic: &Traffic| match traffic {
        Traffic::Ports(_, range) => range.blocks().count(),
        Traffic::Protocol(_) | Traffic::Icmp(..) => 1,
        // Peers may give the name to different ports, but hardly each to many.
        Traffic::NamedPort(..) => peers,
    };
    let blocks = match &rule.ports {
        Ports::Any => 1,
        Ports::Select(elements) => elements.iter().flat_map(|element| &element.traffic).map(blocks).sum(),
    };
    peers * blocks
}

/// The policy with the most entries, and how many it has.
fn largest_part(engine: &Engine, policy: &EndpointPolicy) -> Option<(PolicyRef, usize)> {
    let mut parts: BTreeMap<&PolicyRef, usize> = BTreeMap::new();
    let entries = policy.map_state.entries.values().chain(policy.map_state.admin.values());
    for origin in entries.filter_map(|entry| engine.repository.rule(entry.rule)) {
        *parts.entry(&origin.policy).or_default() += 1;
    }
    let largest = parts.into_iter().max_by_key(|(_, entries)| *entries);
    largest.map(|(name, entries)| (name.clone(), entries))
}

fn identities(scene: &Scene<'_>, report: &mut Report) {
    let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in &scene.pods {
        by_namespace.entry(&pod.namespace).or_default().push(pod);
    }
    for (namespace, pods) in by_namespace.into_iter().filter(|(_, pods)| pods.len() >= PODS_MIN) {
        let Some((pod, key)) = telling_apart(&pods) else { continue };
        let message = format!(
            "{key} has another value on each of the {} pods of {namespace}: each is an identity of its own",
            pods.len()
        );
        let help = "Every identity takes its place in the maps of every node. Keep what is different on every pod in \
                    an annotation, or leave the label out of identities.";
        let document = scene
            .documents
            .iter()
            .find(|document| document.manifest.kind == "Pod" && document.manifest.name == pod.name);
        if let Some(document) = document {
            let at = At::new(document, format!("metadata.labels[{key}]"));
            report.add(&IDENTITY_PER_POD, &at, message, help);
        }
    }
}

/// A label of identities that no two pods share.
fn telling_apart<'p>(pods: &[&'p Pod]) -> Option<(&'p Pod, &'p str)> {
    let first = *pods.first()?;
    let key = first.own.keys().find(|key| {
        let of = |pod: &&'p Pod| pod.labels.value(&sluice_types::Source::K8s, key);
        let values: BTreeSet<&str> = pods.iter().filter_map(of).collect();
        values.len() == pods.len()
    })?;
    Some((first, key))
}
