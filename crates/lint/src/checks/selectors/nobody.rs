//! Selectors that match none of the pods of the documents, with what was probably meant.

use std::collections::BTreeSet;

use sluice_api::nearest;
use sluice_policy::{
    PolicyKind,
    labels::{CLUSTER, NAMESPACE, NAMESPACE_LABEL_PREFIX},
    selector::{LabelKey, LabelSelector, Requirement},
};
use sluice_types::{Labels, Source};

use super::{Placed, shown};
use crate::{
    report::{At, Report},
    rules::{PEER_SELECTS_NOTHING, Rule, SUBJECT_SELECTS_NOTHING},
    scene::{Pod, Policy, Scene},
};

/// How many known values are listed.
const LISTED_MAX: usize = 5;

pub(super) fn check(scene: &Scene<'_>, policy: &Policy<'_>, placed: &Placed<'_, '_>, report: &mut Report) {
    let selector = placed.selector;
    if scene.pods.is_empty() || !is_about_pods_here(selector, scene) {
        return;
    }
    let rule = if placed.is_subject { &SUBJECT_SELECTS_NOTHING } else { &PEER_SELECTS_NOTHING };
    let scope: Vec<&Pod> = match namespaces(selector) {
        Some(namespaces) if !namespaces.iter().any(|name| scene.knows_pods_of(name)) => {
            unknown_namespace(scene, placed, rule, &namespaces, report);
            return;
        }
        Some(namespaces) => {
            scene.pods.iter().filter(|pod| namespaces.contains(pod.namespace.as_str())).collect()
        }
        None => scene.pods.iter().collect(),
    };
    if scope.iter().any(|pod| selector.matches(&pod.labels)) {
        return;
    }
    let asked: Vec<&Requirement> =
        selector.requirements().filter(|requirement| !is_place(requirement.key())).collect();
    if asked.is_empty() {
        return;
    }
    let missing = asked.iter().find(|asked| !scope.iter().any(|pod| asked.matches(&pod.labels)));
    let place = match namespaces(selector) {
        Some(names) => format!(" of {}", names.into_iter().collect::<Vec<_>>().join(" or ")),
        None => String::new(),
    };
    let (message, help) = match missing {
        Some(requirement) => (
            format!("no pod{place} has {}", in_words(requirement)),
            suggestion(requirement, &scope).unwrap_or_else(|| "Compare with the labels of the pods.".to_owned()),
        ),
        None => (
            format!("no pod{place} has all of these labels at once"),
            "Each of them is there, but on different pods: use several elements of the list, or values of one `In`."
                .to_owned(),
        ),
    };
    let help = if placed.is_subject { help } else { elsewhere(scene, policy, selector).unwrap_or(help) };
    let at = missing.map_or_else(|| placed.at.clone(), |requirement| at_label(&placed.at, requirement.key()));
    report.add(rule, &at, message, help);
}

/// Where a label of a selector stands, or else the selector.
fn at_label<'a>(selector: &At<'a>, key: &LabelKey) -> At<'a> {
    let manifest = &selector.document.manifest;
    let name = key.key.strip_prefix(NAMESPACE_LABEL_PREFIX).unwrap_or(&key.key);
    for inside in ["", ".podSelector", ".namespaceSelector", ".pods.podSelector"] {
        let labels = format!("{}{inside}.matchLabels", selector.path);
        for written in [name.to_owned(), key.key.clone(), key.to_string()] {
            let path = format!("{labels}[{written}]");
            // What is not there has the place of what is around it.
            if manifest.place(&path) != manifest.place(&labels) {
                return At::new(selector.document, path);
            }
        }
    }
    selector.clone()
}

/// Whether only pods of this cluster can be meant.
fn is_about_pods_here(selector: &LabelSelector, scene: &Scene<'_>) -> bool {
    let foreign = selector.looks_at(|key| !matches!(key.source, Source::Any | Source::K8s));
    let here: Labels =
        [sluice_types::Label::k8s(CLUSTER, &*scene.options.config.cluster_name)].into_iter().collect();
    let other_cluster = selector
        .requirements()
        .any(|requirement| requirement.key().key == CLUSTER && !requirement.matches(&here));
    !foreign && !other_cluster
}

/// The namespaces that a selector is confined to; `None` if it names none.
fn namespaces(selector: &LabelSelector) -> Option<BTreeSet<&str>> {
    selector.requirements().find_map(|requirement| match requirement {
        Requirement::In(key, values) if key.key == NAMESPACE => {
            Some(values.iter().map(String::as_str).collect())
        }
        Requirement::In(..)
        | Requirement::NotIn(..)
        | Requirement::Exists(_)
        | Requirement::DoesNotExist(_) => None,
    })
}

/// Whether a key says where a pod is, not what it is.
fn is_place(key: &LabelKey) -> bool {
    key.key == NAMESPACE || key.key == CLUSTER
}

fn unknown_namespace(
    scene: &Scene<'_>,
    placed: &Placed<'_, '_>,
    rule: &Rule,
    names: &BTreeSet<&str>,
    report: &mut Report,
) {
    let known: Vec<&str> = scene.namespaces.keys().map(String::as_str).collect();
    let unknown = names.iter().filter(|name| !known.contains(name));
    // The documents need not hold all namespaces, so only what looks like a slip is told.
    let slip = unknown.filter_map(|name| Some((name, nearest(name, &known)?))).next();
    if let (Some((name, meant)), false) = (slip, placed.is_subject) {
        let message = format!("there is no namespace {name}");
        report.add(rule, &placed.at, message, format!("Did you mean `{meant}`?"));
    }
}

fn in_words(requirement: &Requirement) -> String {
    let key = shown(requirement.key());
    let values = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(" or ");
    let whose =
        if requirement.key().key.starts_with(NAMESPACE_LABEL_PREFIX) { " on its namespace" } else { "" };
    match requirement {
        Requirement::In(_, wanted) => format!("{key}={}{whose}", values(wanted)),
        Requirement::NotIn(_, refused) => format!("{key} other than {}{whose}", values(refused)),
        Requirement::Exists(_) => format!("the label {key}{whose}"),
        Requirement::DoesNotExist(_) => format!("no label {key}{whose}"),
    }
}

/// What the pods have instead.
fn suggestion(requirement: &Requirement, scope: &[&Pod]) -> Option<String> {
    let key = &requirement.key().key;
    let labels = || scope.iter().flat_map(|pod| pod.labels.iter());
    let values: BTreeSet<&str> =
        labels().filter(|label| label.key == *key).map(|label| label.value.as_str()).collect();
    let listed = |words: &BTreeSet<&str>| {
        let shown: Vec<String> = words.iter().take(LISTED_MAX).map(|word| format!("`{word}`")).collect();
        let more = if words.len() > LISTED_MAX { " and others" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    match requirement {
        Requirement::In(_, wanted) if !values.is_empty() => {
            let candidates: Vec<&str> = values.iter().copied().collect();
            let key = shown(requirement.key());
            match wanted.iter().find_map(|value| nearest(value, &candidates)) {
                Some(value) => Some(format!("Did you mean `{key}: {value}`?")),
                None => Some(format!("The values of {key} are {}.", listed(&values))),
            }
        }
        Requirement::In(..) | Requirement::Exists(_) => {
            let is_of_namespace = key.starts_with(NAMESPACE_LABEL_PREFIX);
            let keys: BTreeSet<&str> = labels()
                .filter(|label| label.key.starts_with(NAMESPACE_LABEL_PREFIX) == is_of_namespace)
                .map(|label| label.key.strip_prefix(NAMESPACE_LABEL_PREFIX).unwrap_or(&label.key))
                .filter(|key| !key.starts_with("io.cilium.") && *key != NAMESPACE)
                .collect();
            let wanted = key.strip_prefix(NAMESPACE_LABEL_PREFIX).unwrap_or(key);
            let candidates: Vec<&str> = keys.iter().copied().collect();
            match nearest(wanted, &candidates) {
                Some(meant) => Some(format!("Did you mean the label `{meant}`?")),
                None if keys.is_empty() => None,
                None => Some(format!("The labels there are {}.", listed(&keys))),
            }
        }
        Requirement::NotIn(..) | Requirement::DoesNotExist(_) => None,
    }
}

/// Where the pods are that a peer selector means, if they are in another namespace than the policy.
fn elsewhere(scene: &Scene<'_>, policy: &Policy<'_>, selector: &LabelSelector) -> Option<String> {
    let own = &policy.name.namespace;
    let is_own = namespaces(selector).is_some_and(|names| names.len() == 1 && names.contains(own.as_str()));
    let anywhere: LabelSelector =
        selector.requirements().filter(|requirement| requirement.key().key != NAMESPACE).cloned().collect();
    let found: BTreeSet<&str> = scene
        .pods
        .iter()
        .filter(|pod| anywhere.matches(&pod.labels))
        .map(|pod| pod.namespace.as_str())
        .collect();
    let namespace = found.first().filter(|_| is_own)?;
    Some(match policy.name.kind {
        PolicyKind::Knp => format!(
            "Such pods are in {namespace}: a podSelector alone means this namespace. Add \
             `namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}` to the same element."
        ),
        PolicyKind::Cnp | PolicyKind::Ccnp | PolicyKind::Kcnp => {
            format!("Such pods are in {namespace}: add `k8s:{NAMESPACE}: {namespace}` to the selector.")
        }
    })
}
