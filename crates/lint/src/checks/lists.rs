//! Empty lists and empty rules, which mean all in one place and nothing in another.

use sluice_api::cilium::{L7Rules, PortRule};
use sluice_policy::rule::Action;

use crate::{
    report::Report,
    rules::{EMPTY_LIST_RESTRICTS_NOTHING, EMPTY_LIST_SELECTS_NOTHING, EMPTY_RULE_ALLOWS_NOTHING},
    scene::{Policy, Scene},
    written::{Entry, Written},
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        for entry in policy.entries() {
            empty_rule(policy, &entry, report);
            peers(policy, &entry, report);
            ports(policy, &entry, report);
        }
        kubernetes(policy, report);
    }
}

fn has_traffic(entry: &Entry<'_>) -> bool {
    entry.has_icmps || entry.to_ports.is_some_and(|ports| !ports.is_empty())
}

fn empty_rule(policy: &Policy<'_>, entry: &Entry<'_>, report: &mut Report) {
    let says_nothing = entry.kinds().next().is_none() && entry.requires.list.is_none() && !has_traffic(entry);
    if says_nothing && entry.action == Action::Allow {
        let message = "an empty rule allows nothing here; in a NetworkPolicy it would allow everything";
        let help = format!(
            "If the direction shall be closed, say so: `{}: []`. If everything shall pass: `{}: [all]`.",
            entry.endpoints.field, entry.entities.field
        );
        report.add(&EMPTY_RULE_ALLOWS_NOTHING, &policy.at(&*entry.path), message, help);
    }
}

fn peers(policy: &Policy<'_>, entry: &Entry<'_>, report: &mut Report) {
    let Some((field, _)) = entry.kinds().next() else { return };
    let selects_nobody = entry.kinds().all(|(_, length)| length == 0);
    // Alone and to allow, this is the usual way to close a direction.
    let void = has_traffic(entry) || entry.action == Action::Deny;
    if selects_nobody && void {
        let message = format!("{field} is empty, which is nobody, so the rest of the rule means nothing");
        let help = format!("Name the peers, or leave out `{field}` if everybody is meant.");
        let at = policy.at(format!("{}.{field}", entry.path));
        report.add(&EMPTY_LIST_SELECTS_NOTHING, &at, message, help);
    }
}

fn ports(policy: &Policy<'_>, entry: &Entry<'_>, report: &mut Report) {
    let has_peers = entry.kinds().any(|(_, length)| length > 0);
    if entry.to_ports.is_some_and(<[PortRule]>::is_empty) && has_peers {
        let (message, help) = match entry.action {
            Action::Deny => {
                ("an empty toPorts is every port and protocol, ICMP too", "Leave it out if that is meant.")
            }
            Action::Allow | Action::Pass => (
                "an empty toPorts is no restriction: every port and protocol is allowed, ICMP too",
                "Name the ports, or leave it out if that is meant.",
            ),
        };
        let at = policy.at(format!("{}.toPorts", entry.path));
        report.add(&EMPTY_LIST_RESTRICTS_NOTHING, &at, message, help);
    }
    for (path, rule) in entry.port_rules() {
        if rule.ports.as_ref().is_none_or(Vec::is_empty) {
            let message = "no port is named, so the element means nothing";
            let help = "Name the ports. All ports of TCP are `{port: \"0\", protocol: TCP}`; without `toPorts` \
                        everything is meant.";
            report.add(&EMPTY_LIST_SELECTS_NOTHING, &policy.at(path), message, help);
        } else if rule.rules.as_ref().is_some_and(names_no_request) {
            let message = "the list of requests is empty, which is no restriction: all of them pass, unseen";
            let help =
                "Name the requests that may pass. `- {}` hands everything to the proxy and lets it pass.";
            report.add(&EMPTY_LIST_RESTRICTS_NOTHING, &policy.at(format!("{path}.rules")), message, help);
        }
    }
}

fn names_no_request(rules: &L7Rules) -> bool {
    let lengths = [
        rules.http.as_ref().map(Vec::len),
        rules.grpc.as_ref().map(Vec::len),
        rules.kafka.as_ref().map(Vec::len),
        rules.dns.as_ref().map(Vec::len),
        rules.l7.as_ref().map(Vec::len),
    ];
    lengths.iter().flatten().sum::<usize>() == 0 && rules.l7proto.is_none()
}

fn kubernetes(policy: &Policy<'_>, report: &mut Report) {
    let Written::Kubernetes(Some(spec)) = policy.written else { return };
    let ingress = spec.ingress.iter().flatten().enumerate().map(|(nth, rule)| {
        (
            format!("spec.ingress[{nth}]"),
            "from",
            rule.from.as_ref().map(Vec::len),
            rule.ports.as_ref().map(Vec::len),
        )
    });
    let egress = spec.egress.iter().flatten().enumerate().map(|(nth, rule)| {
        (
            format!("spec.egress[{nth}]"),
            "to",
            rule.to.as_ref().map(Vec::len),
            rule.ports.as_ref().map(Vec::len),
        )
    });
    for (path, field, peers, ports) in ingress.chain(egress) {
        let all =
            [(field, peers, "everybody, inside and outside of the cluster"), ("ports", ports, "every port")];
        for (field, _, what) in all.into_iter().filter(|(_, length, _)| *length == Some(0)) {
            let message = format!("an empty `{field}` is no restriction: it means {what}");
            let help = format!(
                "Name what is meant, or leave out `{field}` if that is meant. To close a direction, \
                                leave out the rule."
            );
            report.add(&EMPTY_LIST_RESTRICTS_NOTHING, &policy.at(format!("{path}.{field}")), message, help);
        }
    }
}
