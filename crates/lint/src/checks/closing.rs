//! Which directions a policy closes, and whether that was meant.

use sluice_policy::{
    PolicyKind,
    rule::{Action, RuleSubject, Tier},
};
use sluice_types::Direction;

use crate::{
    report::Report,
    rules::{
        DEFAULT_DENY_WITHOUT_RULES, DENY_ONLY_ISOLATES, DIRECTION_NOT_IN_POLICY_TYPES, OTHER_DIRECTION_OPEN,
    },
    scene::{Placed, Policy, Scene},
    written::{Spec, Written},
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        for spec in policy.specs() {
            for direction in Direction::ALL {
                deny_only(scene, policy, &spec, direction, report);
            }
            without_rules(policy, &spec, report);
        }
        other_direction(scene, policy, report);
        policy_types(policy, report);
    }
}

fn deny_only(
    scene: &Scene<'_>,
    policy: &Policy<'_>,
    spec: &Spec<'_>,
    direction: Direction,
    report: &mut Report,
) {
    let mut own = policy.rules_of(spec).filter(|placed| placed.rule.direction == direction);
    let denies = |placed: &Placed<'_, '_>| placed.rule.action == Action::Deny && placed.rule.default_deny;
    let Some(deny) = own.find(denies) else { return };
    // Whoever has a list of what is allowed knows that the direction is closed, even if the list is empty.
    let allows = |other: &Placed<'_, '_>| {
        let same = other.rule.direction == direction && other.rule.tier == Tier::Normal;
        same && other.rule.action == Action::Allow
    };
    let others: Vec<Placed<'_, '_>> = scene.rules_near(&deny).filter(allows).collect();
    let mut pods = scene.pods_of(&deny).peekable();
    let has_pods = pods.peek().is_some();
    let for_each = pods.all(|pod| others.iter().any(|other| other.rule.subject.matches(&pod.labels)));
    if others.iter().any(|other| other.holds_for_all_of(&deny)) || (has_pods && for_each) {
        return;
    }
    let list = direction.as_str();
    let message =
        format!("{list} has deny rules only, which close it: with nothing allowed, everything is denied");
    let everybody = if direction == Direction::Ingress { "fromEntities" } else { "toEntities" };
    let help = format!(
        "Add `enableDefaultDeny: {{{list}: false}}` if the rest shall pass, or say what is allowed, for example \
         `{list}: [{{{everybody}: [all]}}]`."
    );
    report.add(&DENY_ONLY_ISOLATES, &policy.at(format!("{}.{list}Deny", spec.path)), message, help);
}

fn without_rules(policy: &Policy<'_>, spec: &Spec<'_>, report: &mut Report) {
    let asked = spec.rule.enable_default_deny.unwrap_or_default();
    for (direction, asked) in [(Direction::Ingress, asked.ingress), (Direction::Egress, asked.egress)] {
        let has_rules = policy.rules_of(spec).any(|placed| placed.rule.direction == direction);
        if asked == Some(true) && !has_rules {
            let list = direction.as_str();
            let message = format!("this does not close {list}: only rules do, and there is none");
            let peers = if direction == Direction::Ingress { "fromEndpoints" } else { "toEndpoints" };
            let help = format!("To close the direction, add a rule for nobody: `{list}: [{{{peers}: []}}]`.");
            let at = policy.at(format!("{}.enableDefaultDeny.{list}", spec.path));
            report.add(&DEFAULT_DENY_WITHOUT_RULES, &at, message, help);
        }
    }
}

fn other_direction(scene: &Scene<'_>, policy: &Policy<'_>, report: &mut Report) {
    if policy.name.kind == PolicyKind::Kcnp {
        return;
    }
    let closes = |direction| {
        policy.placed().find(|placed| placed.rule.direction == direction && placed.rule.default_deny)
    };
    let (closed, open) = match Direction::ALL.map(closes) {
        [Some(ingress), None] => (ingress, Direction::Egress),
        [None, Some(egress)] => (egress, Direction::Ingress),
        [None, None] | [Some(_), Some(_)] => return,
    };
    let closed_by_others = scene.rules_near(&closed).any(|other| {
        let same = other.rule.direction == open && other.rule.default_deny;
        same && other.holds_for_all_of(&closed)
    });
    if closed_by_others || matches!(closed.rule.subject, RuleSubject::Node(_)) {
        return;
    }
    let open = open.as_str();
    let message = format!(
        "{} of these pods is closed, and no policy closes their {open}",
        closed.rule.direction.as_str()
    );
    let help =
        format!("The two directions are closed one by one: add {open} rules, or leave it open on purpose.");
    report.add(&OTHER_DIRECTION_OPEN, &policy.at("metadata.name"), message, help);
}

fn policy_types(policy: &Policy<'_>, report: &mut Report) {
    let Written::Kubernetes(Some(spec)) = policy.written else { return };
    let Some(types) = spec.policy_types.as_deref().filter(|types| !types.is_empty()) else { return };
    let used = [
        ("Ingress", "ingress", spec.ingress.as_ref().is_some_and(|rules| !rules.is_empty())),
        ("Egress", "egress", spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
    ];
    for (name, field, _) in
        used.into_iter().filter(|(name, _, used)| *used && !types.iter().any(|own| own == name))
    {
        let message = format!("policyTypes does not name {name}, so these rules mean nothing");
        let help = format!("Add `{name}` to `policyTypes`, or remove `{field}`.");
        report.add(&DIRECTION_NOT_IN_POLICY_TYPES, &policy.at(format!("spec.{field}")), message, help);
    }
}
