//! DNS names: `toFQDNs`, the questions that must be asked first, and patterns of names.

use sluice_policy::{
    Rule,
    l7::{DnsRule, FqdnSelector, L7Rules},
    rule::{Action, RuleSubject, Tier},
};
use sluice_types::{Direction, Protocol};

use crate::{
    cover::{Peer, PortSet, peers_of, select_nobody},
    report::Report,
    rules::{
        DNS_ONLY_OVER_UDP, EGRESS_WITHOUT_DNS, FQDN_IN_CLUSTER, FQDN_OF_A_CDN, FQDN_PATTERN_TOO_WIDE,
        FQDN_WITHOUT_DNS_RULE,
    },
    scene::{Placed, Policy, Scene, rule_path},
    written::Entry,
};

pub(super) const DNS_PORT: u16 = 53;
/// Where names of the cluster end.
const CLUSTER_DOMAINS: [&str; 2] = [".cluster.local", ".svc"];
/// Domains of networks whose names lead to other addresses every few minutes.
const CDN_DOMAINS: [&str; 13] = [
    "akamaiedge.net",
    "akamaized.net",
    "amazonaws.com",
    "azureedge.net",
    "azurefd.net",
    "b-cdn.net",
    "cloudflare.net",
    "cloudfront.net",
    "edgekey.net",
    "fastly.net",
    "fastlylb.net",
    "googleapis.com",
    "googleusercontent.com",
];

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        for entry in policy.entries() {
            if let Some(placed) = policy.rule_of(&entry).filter(|_| entry.names.list.is_some()) {
                without_dns_rule(scene, placed, &entry, report);
                names(policy, &entry, report);
            }
        }
        only_over_udp(scene, policy, report);
        egress_without_dns(scene, policy, report);
    }
}

/// The names of an entry with their places.
fn selectors(entry: &Entry<'_>) -> Vec<(String, FqdnSelector)> {
    let read = |(path, written): (String, &sluice_api::cilium::FqdnSelector)| {
        let (field, name) = match (&written.match_name, &written.match_pattern) {
            (Some(name), _) => ("matchName", FqdnSelector::name(name)),
            (None, Some(pattern)) => ("matchPattern", FqdnSelector::pattern(pattern)),
            (None, None) => return None,
        };
        Some((format!("{path}.{field}"), name.ok()?))
    };
    entry.names.items(&entry.path).filter_map(read).collect()
}

fn without_dns_rule(scene: &Scene<'_>, rule: Placed<'_, '_>, entry: &Entry<'_>, report: &mut Report) {
    let names = selectors(entry);
    let asking: Vec<Placed<'_, '_>> = scene
        .rules_near(&rule)
        .filter(|other| allows_out(other.rule) && dns_rules(other.rule).next().is_some())
        .filter(|other| other.holds_for_all_of(&rule))
        .collect();
    if names.is_empty() {
        return;
    }
    if asking.is_empty() {
        let message =
            "no DNS rule lets these pods ask for names, so no address is ever learnt and nothing matches";
        let help = "Allow port 53 to the name servers with `rules.dns`, in this policy or another one for the same \
                    pods: addresses are learnt from the answers that the proxy sees.";
        let at = rule.policy.at(format!("{}.{}", entry.path, entry.names.field));
        let finding = report.add(&FQDN_WITHOUT_DNS_RULE, &at, message, help);
        let plain =
            scene.rules_near(&rule).find(|other| allows_dns(other.rule) && other.holds_for_all_of(&rule));
        if let Some(plain) = plain {
            finding.also(&plain.at(), format!("{} opens port 53 without `rules.dns`", plain.name()));
        }
        return;
    }
    for (path, name) in names {
        let sample = sample(&name);
        let rules = asking.iter().flat_map(|other| dns_rules(other.rule));
        if rules.into_iter().all(|rule| rule.check(&sample).is_err()) {
            let message = if sample == name.as_str() {
                format!("no DNS rule lets these pods ask for {sample}, so its addresses are never learnt")
            } else {
                let name = name.as_str();
                format!("{name} means names that no DNS rule lets these pods ask for, such as {sample}")
            };
            let help = format!("Add the name to `rules.dns`: `{}: \"{}\"`.", field_of(&name), name.as_str());
            let finding = report.add(&FQDN_WITHOUT_DNS_RULE, &rule.policy.at(path), message, help);
            for other in &asking {
                finding.also(&other.at(), format!("{} names the questions that pass", other.name()));
            }
        }
    }
}

fn field_of(name: &FqdnSelector) -> &'static str {
    if name.as_str().contains('*') { "matchPattern" } else { "matchName" }
}

/// A name that the pattern means; the pattern itself if it means one name only.
fn sample(pattern: &FqdnSelector) -> String {
    match pattern.as_str() {
        "*" => "any.name".to_owned(),
        text => match text.strip_prefix("**.") {
            Some(rest) => format!("a.b.{}", rest.replace('*', "any")),
            None => text.replace('*', "any"),
        },
    }
}

fn allows_out(rule: &Rule) -> bool {
    rule.direction == Direction::Egress && rule.action == Action::Allow && !select_nobody(&rule.peers)
}

fn dns_rules(rule: &Rule) -> impl Iterator<Item = &DnsRule> {
    let requests = rule.ports.rules().filter_map(|ports| ports.l7.as_deref());
    requests.flat_map(|requests| match requests {
        L7Rules::Dns(rules) => rules.as_slice(),
        L7Rules::Http(_) | L7Rules::Kafka(_) | L7Rules::Tls(_) => &[],
    })
}

fn names(policy: &Policy<'_>, entry: &Entry<'_>, report: &mut Report) {
    for (path, name) in selectors(entry) {
        let text = name.as_str();
        let at = policy.at(path);
        if CLUSTER_DOMAINS.iter().any(|domain| text.ends_with(domain)) {
            let message = format!("{text} is a name of the cluster: toFQDNs never selects pods or Services");
            let help = "Use `toEndpoints` with the pods' labels, or `toServices`.";
            report.add(&FQDN_IN_CLUSTER, &at, message, help);
        } else if let Some(what) = too_wide(text) {
            let message = format!("the pattern {text} {what}");
            let help = "Write the domain in full, with a dot behind the star: `*.example.com` is one label before the \
                        domain, `**.example.com` any number of them. Neither is the domain itself.";
            report.add(&FQDN_PATTERN_TOO_WIDE, &at, message, help);
        }
        let of_cdn = CDN_DOMAINS.iter().find(|domain| text.ends_with(&format!(".{domain}")));
        if let Some(domain) = of_cdn.filter(|_| !text.contains('*')) {
            let message =
                format!("addresses of {domain} change often, and a client that keeps an old one is cut off");
            let help = "Let a pattern cover the neighbours that answers lead to, raise the least time that answers \
                        are kept (`tofqdns-min-ttl`), and make the client ask again.";
            report.add(&FQDN_OF_A_CDN, &at, message, help);
        }
    }
}

/// What is wrong with a pattern that leaves open whose name it is.
fn too_wide(pattern: &str) -> Option<String> {
    if pattern == "*" {
        return Some("means every name there is".to_owned());
    }
    let labels: Vec<&str> = pattern.strip_prefix("**.").unwrap_or(pattern).split('.').collect();
    let owner: Vec<&str> = labels.iter().rev().take(2).copied().collect();
    let is_open = owner.len() < 2 || owner.iter().any(|label| label.contains('*'));
    let has_star = pattern.contains('*');
    (has_star && is_open).then(|| {
        let foreign = pattern.replace("**.", "a.").replace('*', "somebody-elses-");
        let foreign = foreign.replace("-.", ".");
        format!("also means names of other owners, such as {foreign}")
    })
}

/// Whether it opens port 53 by number.
fn allows_dns(rule: &Rule) -> bool {
    let ports = PortSet::of(&rule.ports);
    let open = [Protocol::Udp, Protocol::Tcp].iter().any(|protocol| ports.has_port(*protocol, DNS_PORT));
    allows_out(rule) && open && !ports.is_all()
}

fn only_over_udp(scene: &Scene<'_>, policy: &Policy<'_>, report: &mut Report) {
    let over = |rule: &Rule, protocol| PortSet::of(&rule.ports).has_port(protocol, DNS_PORT);
    let names_port = |placed: &Placed<'_, '_>| {
        let rule = placed.rule;
        let is_wide = PortSet::of(&rule.ports).is_all_of(Protocol::Udp);
        let allows = allows_out(rule) && rule.tier == Tier::Normal && !is_wide;
        allows && over(rule, Protocol::Udp) && !over(rule, Protocol::Tcp)
    };
    let Some(placed) = policy.placed().find(names_port) else { return };
    let elsewhere = scene.rules_near(&placed).any(|other| {
        allows_out(other.rule) && over(other.rule, Protocol::Tcp) && other.holds_for_all_of(&placed)
    });
    if !elsewhere {
        let message =
            "questions may be asked over UDP only; long answers are truncated and asked for again over TCP";
        let help = "Add `{port: \"53\", protocol: TCP}`, or write `protocol: ANY`.";
        let list = if policy.specs().is_empty() { "ports" } else { "toPorts" };
        let at = policy.at(format!("{}.{list}", rule_path(placed.rule)));
        report.add(&DNS_ONLY_OVER_UDP, &at, message, help);
    }
}

fn egress_without_dns(scene: &Scene<'_>, policy: &Policy<'_>, report: &mut Report) {
    let needs_names = |placed: &Placed<'_, '_>| {
        let rule = placed.rule;
        allows_out(rule) && rule.default_deny && rule.tier == Tier::Normal && peers_need_names(rule)
    };
    let Some(placed) = policy.placed().find(needs_names) else { return };
    // What is missed for toFQDNs has a rule of its own.
    let has_names = policy.entries().iter().any(|entry| entry.names.list.is_some());
    let is_pods = matches!(placed.rule.subject, RuleSubject::Endpoints(_));
    let may_ask = |other: Placed<'_, '_>| could_ask(scene, other.rule) && other.holds_for_all_of(&placed);
    if is_pods && !has_names && !scene.rules_near(&placed).any(may_ask) {
        let message = "egress of these pods is closed, and no rule lets them ask the name servers";
        let help = "Allow port 53, UDP and TCP, to `k8s-app: kube-dns` in `kube-system`, in this policy or in one for \
                    all pods.";
        report.add(&EGRESS_WITHOUT_DNS, &placed.at(), message, help);
    }
}

/// Whether one reaches such peers by name: pods, Services, the world. Prefixes are reached by address.
fn peers_need_names(rule: &Rule) -> bool {
    let Some(peers) = peers_of(&rule.peers) else { return true };
    peers.iter().any(|peer| match peer {
        Peer::Labels(labels) => !labels.looks_at(|key| {
            let by_address = ["host", "remote-node", "kube-apiserver", "health", "init"];
            key.source == sluice_types::Source::Reserved && by_address.contains(&key.key.as_str())
        }),
        Peer::Service(_) => true,
        Peer::Prefix(_) | Peer::Group(_) => false,
    })
}

/// Whether a rule may be the one that opens the name servers: it names port 53, or it opens everything towards
/// somebody who may be one.
fn could_ask(scene: &Scene<'_>, rule: &Rule) -> bool {
    if !allows_out(rule) {
        return false;
    }
    let ports = PortSet::of(&rule.ports);
    let named = rule.ports.rules().flat_map(|ports| &ports.traffic);
    let mut named = named.filter_map(|traffic| match traffic {
        sluice_policy::rule::Traffic::NamedPort(_, name) => Some(name.as_str()),
        sluice_policy::rule::Traffic::Protocol(_)
        | sluice_policy::rule::Traffic::Ports(..)
        | sluice_policy::rule::Traffic::Icmp(..) => None,
    });
    let names_port = ports.has_port(Protocol::Udp, DNS_PORT) && !ports.is_all_of(Protocol::Udp);
    if names_port || named.any(|name| name == "dns") {
        return true;
    }
    let open = ports.has_port(Protocol::Udp, DNS_PORT);
    open && peers_of(&rule.peers).is_none_or(|peers| {
        peers.iter().any(|peer| match peer {
            Peer::Labels(labels) => scene.name_servers.iter().any(|server| labels.matches(server)),
            // The resolver may be behind any address.
            Peer::Prefix(_) | Peer::Group(_) | Peer::Service(_) => true,
        })
    })
}
