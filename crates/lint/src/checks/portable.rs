//! What Cilium would refuse or understand differently. The facts are those of its release 1.20.

use sluice_api::{IntOrString, cilium::PortRule};
use sluice_policy::{PolicyKind, parse::AUDIT_ANNOTATION as AUDIT, rule::Action};
use sluice_types::Direction;

use super::{patterns, system::is_audited};
use crate::{
    finding::Severity,
    report::{At, Report},
    rules::{DIFFERENT_ELSEWHERE, REFUSED_ELSEWHERE},
    scene::{Policy, Scene},
    written::Entry,
};

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    let portable = scene.options.portable;
    for policy in &scene.policies {
        let mut refused = Refused { report, portable };
        for entry in policy.entries() {
            peers(policy, &entry, &mut refused);
            for (path, ports) in entry.port_rules() {
                port_rule(policy, &path, ports, &mut refused);
            }
        }
        if portable {
            different(policy, report);
        }
    }
}

/// Takes what would be refused: a hint, or more if the policies shall go elsewhere.
struct Refused<'r> {
    report: &'r mut Report,
    portable: bool,
}

impl Refused<'_> {
    fn add(&mut self, at: &At<'_>, message: &str, help: &str) {
        let finding = self.report.add(&REFUSED_ELSEWHERE, at, message, help);
        if self.portable {
            finding.severity = Severity::Warning;
        }
    }
}

fn peers(policy: &Policy<'_>, entry: &Entry<'_>, refused: &mut Refused<'_>) {
    if entry.requires.list.is_some_and(|list| !list.is_empty()) {
        let message = format!("Cilium has no {} since 1.19", entry.requires.field);
        let help = format!("Put the labels into each selector of `{}`.", entry.endpoints.field);
        refused.add(&policy.at(format!("{}.{}", entry.path, entry.requires.field)), &message, &help);
    }
    if entry.action == Action::Deny && entry.services.list.is_some_and(|list| !list.is_empty()) {
        let message = "Cilium takes this and does not apply it: alone it denies nothing, with ports it denies everybody";
        let help = "Deny the pods behind the Service by their labels, with `toEndpoints`.";
        refused.add(&policy.at(format!("{}.toServices", entry.path)), message, help);
    }
    for (path, name) in entry.entities.items(&entry.path) {
        if matches!(name.as_str(), "world-ipv4" | "world-ipv6") {
            let message = format!("the schema of Cilium's policies does not have {name}");
            let prefix = if name == "world-ipv4" { "0.0.0.0/0" } else { "::/0" };
            let list = if entry.direction == Direction::Ingress { "fromCIDR" } else { "toCIDR" };
            refused.add(
                &policy.at(path),
                &message,
                &format!("Write `{list}: [\"{prefix}\"]`, which is the same."),
            );
        }
    }
}

fn port_rule(policy: &Policy<'_>, path: &str, ports: &PortRule, refused: &mut Refused<'_>) {
    if ports.service.is_some() {
        let help = "Elsewhere, select the pods behind the Service by their labels.";
        refused.add(&policy.at(format!("{path}.service")), "`service` is an addition of sluice", help);
    }
    for (nth, port) in ports.ports.iter().flatten().enumerate() {
        if let Some(IntOrString::Int(number)) = port.port {
            let message = "Cilium's schema wants the port as text, and refuses a number";
            let at = policy.at(format!("{path}.ports[{nth}].port"));
            refused.add(&at, message, &format!("Put it in quotes: `\"{number}\"`."));
        }
    }
    let Some(rules) = &ports.rules else { return };
    if rules.grpc.as_ref().is_some_and(|list| !list.is_empty()) {
        let help = "Elsewhere, write HTTP rules: `{method: POST, path: /package\\.Service/Method}`.";
        refused.add(&policy.at(format!("{path}.rules.grpc")), "`grpc` is an addition of sluice", help);
    }
    if rules.kafka.as_ref().is_some_and(|list| !list.is_empty()) {
        let help = "Elsewhere, only the port can be allowed, and the broker must tell topics apart.";
        refused.add(&policy.at(format!("{path}.rules.kafka")), "Cilium has no Kafka rules since 1.20", help);
    }
}

fn different(policy: &Policy<'_>, report: &mut Report) {
    for entry in policy.entries() {
        opens_elsewhere(policy, &entry, report);
        if entry.nodes.list.is_some_and(|list| !list.is_empty()) {
            let message =
                "Cilium refuses the policy unless the agent runs with `enable-node-selector-labels`";
            let help = "Set the option there, or use `remote-node` in the list of entities.";
            let at = policy.at(format!("{}.{}", entry.path, entry.nodes.field));
            report.add(&DIFFERENT_ELSEWHERE, &at, message, help);
        }
    }
    for (path, rule) in patterns::http_rules(policy) {
        for (nth, line) in rule.headers.iter().flatten().enumerate() {
            if line.split_once(' ').is_some_and(|(_, value)| value == patterns::ANY_VALUE) {
                let message = "for Cilium this header must be the two characters `.*`, which no request has";
                let help = "Write the name alone: that is any value everywhere.";
                report.add(&DIFFERENT_ELSEWHERE, &policy.at(format!("{path}.headers[{nth}]")), message, help);
            }
        }
    }
    if is_audited(policy) {
        let message = "Cilium does not know this annotation and enforces the policy";
        let help = "There, audit mode belongs to the agent (`policy-audit-mode`) or to an endpoint.";
        report.add(&DIFFERENT_ELSEWHERE, &policy.at(format!("metadata.annotations[{AUDIT}]")), message, help);
    }
    if policy.specs().iter().any(|spec| spec.rule.node_selector.is_some()) {
        let message = "Cilium ignores policies for nodes unless the agent runs with `enable-host-firewall`";
        report.add(&DIFFERENT_ELSEWHERE, &policy.at("spec.nodeSelector"), message, "Set the option there.");
    }
    if policy.name.kind == PolicyKind::Kcnp {
        let message = "Cilium reads this kind from 1.20 on, with `enable-k8s-cluster-network-policy`";
        report.add(&DIFFERENT_ELSEWHERE, &policy.at("kind"), message, "Set the option there.");
    }
}

/// Lists that select nobody here and, next to ports, everybody in Cilium 1.20.
fn opens_elsewhere(policy: &Policy<'_>, entry: &Entry<'_>, report: &mut Report) {
    let with_ports = entry.to_ports.is_some_and(|ports| !ports.is_empty());
    let groups = if entry.direction == Direction::Ingress { "fromGroups" } else { "toGroups" };
    let open = [entry.names.field, groups, entry.services.field];
    let empty = entry.kinds().find(|(field, length)| *length == 0 && open.contains(field));
    if let (Some((field, _)), true) = (empty, with_ports && entry.action == Action::Allow) {
        let message = format!(
            "an empty {field} is nobody here, and everybody for Cilium 1.20: the ports are open to all"
        );
        let help = format!("Never leave `{field}` empty: remove the whole rule.");
        let at = policy.at(format!("{}.{field}", entry.path));
        report.add(&DIFFERENT_ELSEWHERE, &at, message, help).severity = Severity::Error;
    } else if entry.services.list.is_some_and(|list| !list.is_empty())
        && with_ports
        && entry.action == Action::Allow
    {
        let message = "while the Service does not exist this is nobody here, and everybody for Cilium 1.20";
        let help = "Select the pods behind the Service by their labels, with `toEndpoints`.";
        report.add(&DIFFERENT_ELSEWHERE, &policy.at(format!("{}.toServices", entry.path)), message, help);
    }
}
