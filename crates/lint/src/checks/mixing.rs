//! Policies beside each other: kinds that are mixed, orders that are left open, protocols that exclude each other.

use std::collections::{BTreeMap, BTreeSet};

use sluice_policy::{
    PolicyKind, Rule,
    rule::{RuleSubject, Tier},
};

use crate::{
    cover::{PortSet, peers_cover, select_nobody, subjects_meet},
    report::{At, Report},
    rules::{CONFLICTING_PROTOCOLS, EQUAL_PRIORITY, MIXED_POLICY_KINDS},
    scene::{Placed, Policy, Scene, rule_path},
    written::Written,
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    mixed(scene, report);
    equal_priority(scene, report);
    conflicts(scene, report);
}

/// NetworkPolicy and CiliumNetworkPolicy that are about the same pods.
fn mixed(scene: &Scene<'_>, report: &mut Report) {
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for knp in scene.policies.iter().filter(|policy| policy.name.kind == PolicyKind::Knp) {
        let meets = |cnp: &&Policy<'_>| {
            cnp.name.kind == PolicyKind::Cnp
                && knp
                    .rules
                    .iter()
                    .any(|one| cnp.rules.iter().any(|other| subjects_meet(&one.subject, &other.subject)))
        };
        let Some(cnp) = scene.policies.iter().find(meets) else { continue };
        if told.insert(&knp.name.namespace) {
            let message =
                format!("the same pods have a NetworkPolicy and a CiliumNetworkPolicy ({})", cnp.name);
            let help = "What either allows passes. Keep to one kind in a namespace: `sluice policy convert --to \
                        cilium` rewrites a NetworkPolicy exactly.";
            report
                .add(&MIXED_POLICY_KINDS, &knp.at("kind"), message, help)
                .also(&cnp.at("kind"), cnp.name.to_string());
        }
    }
}

/// Administrators' policies whose order the API leaves open.
fn equal_priority(scene: &Scene<'_>, report: &mut Report) {
    let mut seen: BTreeMap<(Tier, u32), Vec<&Policy<'_>>> = BTreeMap::new();
    for policy in scene.policies.iter().filter(|policy| policy.name.kind == PolicyKind::Kcnp) {
        let Some(first) = policy.rules.first() else { continue };
        let Written::Administrator(spec) = policy.written else { continue };
        let key = (first.tier, u32::try_from(spec.priority).unwrap_or_default());
        let contradicts = |other: &&&Policy<'_>| {
            policy.rules.iter().any(|one| other.rules.iter().any(|two| disagree(one, two)))
        };
        if let Some(other) = seen.entry(key).or_default().iter().find(contradicts) {
            let message = format!(
                "{} has the same priority and says something else about the same traffic",
                other.name
            );
            let help = "Which of the two counts is not defined. Give them different priorities.";
            report
                .add(&EQUAL_PRIORITY, &policy.at("spec.priority"), message, help)
                .also(&other.at("spec.priority"), other.name.to_string());
        }
        seen.entry(key).or_default().push(policy);
    }
}

/// Whether two rules are certain to be about some traffic of both, and do something else with it.
fn disagree(one: &Rule, other: &Rule) -> bool {
    one.direction == other.direction
        && one.action != other.action
        && subjects_meet(&one.subject, &other.subject)
        && (peers_cover(&one.peers, &other.peers) || peers_cover(&other.peers, &one.peers))
        && PortSet::of(&one.ports).meets(&PortSet::of(&other.ports))
}

/// Rules that expect different protocols on one port.
fn conflicts(scene: &Scene<'_>, report: &mut Report) {
    let mut told: Vec<Placed<'_, '_>> = Vec::new();
    for one in scene.rules().filter(is_asking) {
        for other in scene.rules_near(&one).filter(is_asking) {
            let known = told.iter().any(|earlier| earlier.is(&other));
            let Some((at, what)) = conflict(&one, &other).filter(|_| !known) else { continue };
            let message = format!("{what} on one port: the endpoint closes it");
            let help =
                "Only one protocol can be looked into on a port. Use different ports, or one of the two.";
            report
                .add(&CONFLICTING_PROTOCOLS, &at, message, help)
                .also(&one.at(), format!("{} expects the other protocol", one.name()));
        }
        told.push(one);
    }
}

/// Whether a rule lets some requests of pods pass.
fn is_asking(placed: &Placed<'_, '_>) -> bool {
    let rule = placed.rule;
    matches!(rule.subject, RuleSubject::Endpoints(_))
        && rule.tier == Tier::Normal
        && !select_nobody(&rule.peers)
        && rule.ports.rules().any(|ports| ports.l7.is_some())
}

/// Where the second rule expects another protocol than the first, and which two these are.
fn conflict<'a>(one: &Placed<'_, '_>, other: &Placed<'_, 'a>) -> Option<(At<'a>, String)> {
    let meet = one.rule.direction == other.rule.direction
        && subjects_meet(&one.rule.subject, &other.rule.subject)
        && (peers_cover(&one.rule.peers, &other.rule.peers)
            || peers_cover(&other.rule.peers, &one.rule.peers));
    if !meet {
        return None;
    }
    let seconds = || other.rule.ports.rules();
    let mut pairs = one.rule.ports.rules().flat_map(|first| seconds().map(move |second| (first, second)));
    pairs.find_map(|(first, second)| {
        let (here, there) = (first.l7.as_ref()?.parser(), second.l7.as_ref()?.parser());
        let ports = PortSet::of_traffic(&first.traffic);
        let clash = here != there && ports.meets(&PortSet::of_traffic(&second.traffic));
        let path = format!("{}.{}", rule_path(other.rule), second.path);
        let what = format!("{} and {} are expected", here.as_str(), there.as_str());
        clash.then(|| (other.policy.at(path), what))
    })
}
