//! Rules against rules: those that decide nothing, and those that a stronger one contradicts.

use std::collections::{BTreeSet, HashSet};

use sluice_policy::{
    Rule,
    rule::{Action, PortRule, Ports, Tier},
};

use crate::{
    cover::{
        PortSet, has_effects, open_ports, peers_cover, refuses_nothing, requests_cover, select_nobody,
        subject_covers,
    },
    report::Report,
    rules::{RULE_IS_SHADOWED, RULE_IS_VOID},
    scene::{Placed, Scene},
};

type Rules<'s, 'a> = Vec<Placed<'s, 'a>>;

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    let all: Rules<'_, '_> = scene.rules().collect();
    let config = &scene.options.config;
    // What `requires` adds to peers is not in the rules themselves; and where prefixes also select pods or nodes, they
    // are no longer parts of the world.
    let hidden = all.iter().any(|placed| !placed.rule.requires.is_empty());
    if hidden || config.cidr_match_nodes || config.cidr_match_pods {
        return;
    }
    // Rules that were found, by where they are in memory.
    let mut gone: HashSet<*const Rule> = HashSet::new();
    // A rule that decides nothing is no reason for others, so those that count first are looked at first.
    let mut in_order: Rules<'_, '_> =
        all.iter().filter(|placed| is_comparable(placed.rule)).copied().collect();
    in_order.sort_by_key(|placed| (placed.rule.tier, placed.rule.priority));
    for placed in in_order {
        let is_left = |rule: &Rule| !gone.contains(&std::ptr::from_ref(rule));
        if contradiction(scene, &placed, is_left, report) {
            gone.insert(placed.rule);
        }
    }
    // Whatever is found may be removed together with everything found before. So what was found is no reason any
    // more, and of two rules that say the same the later one is found. One rule as the reason is easier to follow
    // than several, so those are looked for first.
    for several in [false, true] {
        for placed in all.iter().rev().filter(|placed| is_comparable(placed.rule)) {
            let is_left = |rule: &Rule| !gone.contains(&std::ptr::from_ref(rule));
            if let Some(reasons) = reasons(scene, placed, several, is_left).filter(|_| is_left(placed.rule)) {
                shadowed(&reasons, placed, report);
                gone.insert(placed.rule);
            }
        }
    }
}

/// Whether all that a rule is about can be seen in it, and its author can remove it: what follows from domain names
/// goes with these.
fn is_comparable(rule: &Rule) -> bool {
    let follows = rule.tier != Tier::Normal && rule.path.ends_with(".domainNames");
    !follows && !select_nobody(&rule.peers) && rule.ports.rules().all(|ports| ports.service.is_none())
}

/// Reports a rule that stronger ones contradict in all it says.
fn contradiction(
    scene: &Scene<'_>,
    placed: &Placed<'_, '_>,
    is_left: impl Fn(&Rule) -> bool,
    report: &mut Report,
) -> bool {
    let own = placed.rule;
    let left: Rules<'_, '_> = scene.rules_near(placed).filter(|other| is_left(other.rule)).collect();
    let is_stronger = |other: &&Placed<'_, '_>| {
        is_about_all_of(other.rule, own)
            && contradicts(other.rule, own)
            && (own.tier == other.rule.tier || is_certain(other.rule, &left))
    };
    let strong: Rules<'_, '_> = left.iter().filter(is_stronger).copied().collect();
    let is_void = plain(&strong).covers(&PortSet::of(&own.ports));
    if is_void {
        void(&strong, placed, report);
    }
    is_void
}

/// Whether an administrator's rule decides all it is about: none that comes before it might say something else.
fn is_certain(rule: &Rule, left: &[Placed<'_, '_>]) -> bool {
    !left.iter().any(|other| {
        let other = other.rule;
        let before = other.tier == rule.tier && other.priority <= rule.priority;
        before && other.direction == rule.direction && other.action != rule.action
    })
}

/// Whether `other` is for everybody whom `own` selects, and for all of its peers.
fn is_about_all_of(other: &Rule, own: &Rule) -> bool {
    other.direction == own.direction
        && subject_covers(&other.subject, &own.subject)
        && peers_cover(&other.peers, &own.peers)
}

/// Whether what `other` says counts before what `own` says, and is something else.
fn contradicts(other: &Rule, own: &Rule) -> bool {
    let before = (other.tier, other.priority) < (own.tier, own.priority);
    match (other.tier, own.tier) {
        (Tier::Normal, Tier::Normal) => other.action == Action::Deny && own.action == Action::Allow,
        (Tier::Admin, Tier::Normal) => {
            let opposite = [(Action::Deny, Action::Allow), (Action::Allow, Action::Deny)];
            opposite.contains(&(other.action, own.action))
        }
        (Tier::Admin, Tier::Admin) | (Tier::Baseline, Tier::Baseline) => before && other.action != own.action,
        (Tier::Admin | Tier::Normal | Tier::Baseline | Tier::Default, _) => false,
    }
}

/// Whether `other` decides what both are about, and as `own` would.
fn decides_the_same_way(other: &Rule, own: &Rule) -> bool {
    let told_apart = own.log.is_some() && own.log != other.log;
    let in_time = other.tier == Tier::Normal || other.priority <= own.priority;
    other.tier == own.tier && other.action == own.action && in_time && !told_apart
}

/// The rules because of which a rule is not needed: one of them, or several together.
fn reasons<'s, 'a>(
    scene: &'s Scene<'a>,
    placed: &Placed<'s, 'a>,
    several: bool,
    is_left: impl Fn(&Rule) -> bool,
) -> Option<Rules<'s, 'a>> {
    let own = placed.rule;
    let says_the_same = |other: &Placed<'_, '_>| {
        is_left(other.rule)
            && !other.is(placed)
            && is_about_all_of(other.rule, own)
            && decides_the_same_way(other.rule, own)
    };
    let candidates: Rules<'s, 'a> = scene.rules_near(placed).filter(says_the_same).collect();
    let enough = |rules: &[Placed<'s, 'a>]| {
        let closes = !own.default_deny || rules.iter().any(|other| other.rule.default_deny);
        !rules.is_empty() && closes && say_everything(rules, own)
    };
    if several {
        return Some(candidates).filter(|candidates| enough(candidates));
    }
    candidates.into_iter().map(|one| vec![one]).find(|one| enough(one))
}

/// What elements that let all requests pass are about, together.
fn plain(rules: &[Placed<'_, '_>]) -> PortSet {
    let mut all = PortSet::default();
    for placed in rules {
        all.merge(open_ports(placed.rule));
    }
    all
}

/// Whether each element of a rule is said by `others`: traffic by their elements without conditions, requests by
/// elements that name the same ones. Requests that are void because of a plain element have a finding of their own.
fn say_everything(others: &[Placed<'_, '_>], own: &Rule) -> bool {
    let open = plain(others);
    let Ports::Select(elements) = &own.ports else { return open.is_all() };
    elements.iter().all(|element| match &element.l7 {
        Some(requests) if !refuses_nothing(own) => {
            let mut theirs = others.iter().flat_map(|other| other.rule.ports.rules());
            !has_effects(requests) && theirs.any(|other| asks_for(other, element))
        }
        // Rules about requests keep the proxy in the way, which others would not.
        Some(_) => false,
        None => open.covers(&PortSet::of_traffic(&element.traffic)),
    })
}

/// Whether one element names all requests of another on all of its ports.
fn asks_for(wide: &PortRule, narrow: &PortRule) -> bool {
    let (Some(wide_requests), Some(requests)) = (&wide.l7, &narrow.l7) else { return false };
    wide.service.is_none()
        && PortSet::of_traffic(&wide.traffic).covers(&PortSet::of_traffic(&narrow.traffic))
        && requests_cover(wide_requests, requests)
}

fn names(others: &[Placed<'_, '_>]) -> String {
    let names: BTreeSet<String> = others.iter().map(Placed::name).collect();
    names.into_iter().collect::<Vec<_>>().join(" and ")
}

fn void(strong: &[Placed<'_, '_>], placed: &Placed<'_, '_>, report: &mut Report) {
    let says = |rule: &Rule| match rule.action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Pass => "pass on",
    };
    let theirs: BTreeSet<&str> = strong.iter().map(|other| says(other.rule)).collect();
    let theirs = theirs.into_iter().collect::<Vec<_>>().join(" or ");
    let own = says(placed.rule);
    let message = format!("this can never {own} anything: rules that count first {theirs} all of it");
    let help = match placed.rule.tier {
        Tier::Normal => {
            "Deny rules win over allow rules, however narrow those are, and administrators' rules over both. To let \
             something through, take it out of what is denied, or close the direction and allow what may pass."
        }
        Tier::Admin | Tier::Baseline | Tier::Default => {
            "The first rule that matches counts: give this one an earlier place."
        }
    };
    let finding = report.add(&RULE_IS_VOID, &placed.at(), message, help);
    for other in strong {
        finding.also(&other.at(), format!("{} counts first", other.name()));
    }
}

fn shadowed(same: &[Placed<'_, '_>], placed: &Placed<'_, '_>, report: &mut Report) {
    let verb = if same.len() == 1 { "does" } else { "do" };
    let message = format!("this decides nothing that {} {verb} not decide the same way", names(same));
    let help = "Remove it, or make the wider rule narrower if this one was meant to be the limit.";
    let finding = report.add(&RULE_IS_SHADOWED, &placed.at(), message, help);
    for other in same {
        finding.also(&other.at(), format!("{} says it already", other.name()));
    }
}

#[cfg(test)]
mod tests;
