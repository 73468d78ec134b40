//! Rules about requests: for whom they hold, and what makes them void.

use sluice_policy::{
    Rule,
    l7::{HttpRule, KafkaRule, L7Rules, Parser, Pattern},
    labels::{CLUSTER, NAMESPACE},
    rule::{Action, PortRule, Ports, RuleSubject, Tier, Traffic},
    selector::LabelSelector,
};
use sluice_types::Direction;

use crate::{
    cover::{Peer, PortSet, has_effects, open_ports, peers_of, refuses_nothing, subjects_meet},
    report::Report,
    rules::{HTTP_ON_TLS_PORT, L7_FILTERS_NOTHING, L7_VOIDED, L7_WITHOUT_PEER},
    scene::{Placed, Policy, Scene, rule_path},
};

/// Ports on which one expects TLS.
const TLS_PORTS: [u16; 4] = [443, 6443, 8443, 9443];

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for policy in &scene.policies {
        without_peer(policy, report);
        for placed in policy.placed() {
            for ports in placed.rule.ports.rules() {
                if let Some(requests) = ports.l7.as_deref() {
                    voided(scene, placed, ports, requests, report);
                    on_tls_port(placed, ports, requests, report);
                    filters_nothing(placed, ports, requests, report);
                }
            }
        }
    }
}

/// Where the requests of an element stand.
fn path_of(rule: &Rule, ports: &PortRule) -> String {
    let field = if matches!(ports.l7.as_deref(), Some(L7Rules::Tls(_))) { "serverNames" } else { "rules" };
    format!("{}.{}.{field}", rule_path(rule), ports.path)
}

fn without_peer(policy: &Policy<'_>, report: &mut Report) {
    for entry in policy.entries().iter().filter(|entry| entry.action == Action::Allow) {
        let Some(Placed { rule, .. }) = policy.rule_of(entry) else { continue };
        let requests = rule.ports.rules().find(|ports| ports.l7.is_some());
        let (Some(ports), true) = (requests, entry.kinds().next().is_none() && entry.requires.list.is_none())
        else {
            continue;
        };
        let (message, field) = match entry.direction {
            Direction::Ingress => {
                ("anybody may send these requests, from outside of the cluster too", "fromEndpoints")
            }
            Direction::Egress => {
                ("these requests may be sent to anybody, outside of the cluster too", "toEndpoints")
            }
        };
        let help = format!(
            "Say who is meant, with `{field}` or another list of peers; `{}: [all]` says that \
                            everybody is.",
            entry.entities.field
        );
        report.add(&L7_WITHOUT_PEER, &policy.at(path_of(rule, ports)), message, help);
    }
}

fn voided(
    scene: &Scene<'_>,
    placed: Placed<'_, '_>,
    ports: &PortRule,
    requests: &L7Rules,
    report: &mut Report,
) {
    let rule = placed.rule;
    if rule.tier != Tier::Normal || has_effects(requests) {
        return;
    }
    let at = placed.policy.at(path_of(rule, ports));
    if refuses_nothing(rule) {
        let message =
            "with default deny switched off these rules refuse nothing: requests they do not name pass too";
        let help = "Leave default deny on for this direction, or remove the rules about requests.";
        report.add(&L7_VOIDED, &at, message, help);
        return;
    }
    let own = PortSet::of_traffic(&ports.traffic);
    for other in scene.rules_near(&placed) {
        let same = other.rule.direction == rule.direction && other.rule.tier == Tier::Normal;
        if !same || other.rule.action != Action::Allow || !subjects_meet(&other.rule.subject, &rule.subject) {
            continue;
        }
        let plain = if requests.parser() == Parser::Dns {
            exact_ports(&other.rule.ports)
        } else {
            open_ports(other.rule)
        };
        let Some(whose) = meeting(other.rule, rule).filter(|_| plain.meets(&own)) else { continue };
        let message =
            format!("requests of {whose} all pass: another rule allows the port without naming requests");
        let help = "Rules add up, so one without requests allows them all. Give it the same `rules`, other peers or \
                    other ports, or remove it.";
        let who = format!("{} allows them", other.name());
        report.add(&L7_VOIDED, &at, message, help).also(&other.at(), who);
    }
}

/// The ports that plain elements name one by one: beside rules about questions only these count.
fn exact_ports(ports: &Ports) -> PortSet {
    let plain = ports.rules().filter(|element| element.l7.is_none() && element.service.is_none());
    let single: Vec<Traffic> = plain
        .flat_map(|element| &element.traffic)
        .filter(|traffic| match traffic {
            Traffic::Ports(_, range) => range.bounds().start() == range.bounds().end(),
            Traffic::NamedPort(..) => true,
            Traffic::Protocol(_) | Traffic::Icmp(..) => false,
        })
        .cloned()
        .collect();
    PortSet::of_traffic(&single)
}

/// Peers that both rules are certain to mean, in words.
fn meeting(plain: &Rule, asking: &Rule) -> Option<String> {
    let (plain, asking) = (peers_of(&plain.peers), peers_of(&asking.peers));
    match (plain, asking) {
        (None, None) => Some("everybody".to_owned()),
        (Some(peers), None) | (None, Some(peers)) => peers.first().map(Peer::describe),
        (Some(plain), Some(asking)) => plain.iter().find_map(|one| {
            let narrower = |other: &Peer<'_>| {
                if one.covers(other) {
                    Some(other.describe())
                } else {
                    other.covers(one).then(|| one.describe())
                }
            };
            asking.iter().find_map(narrower)
        }),
    }
}

fn on_tls_port(placed: Placed<'_, '_>, ports: &PortRule, requests: &L7Rules, report: &mut Report) {
    if requests.parser() != Parser::Http {
        return;
    }
    let number = ports.traffic.iter().find_map(|traffic| match traffic {
        Traffic::Ports(_, range) => {
            let port = *range.bounds().start();
            (port == *range.bounds().end() && TLS_PORTS.contains(&port)).then_some(port)
        }
        Traffic::Protocol(_) | Traffic::NamedPort(..) | Traffic::Icmp(..) => None,
    });
    if let Some(port) = number {
        let message =
            format!("port {port} usually carries TLS, in which no HTTP request can be read: it is refused");
        let help = "Where TLS is spoken, allow names with `serverNames`, or name requests on the port behind whoever \
                    ends TLS. If the port speaks plain HTTP, silence this.";
        report.add(&HTTP_ON_TLS_PORT, &placed.policy.at(path_of(placed.rule, ports)), message, help);
    }
}

fn filters_nothing(placed: Placed<'_, '_>, ports: &PortRule, requests: &L7Rules, report: &mut Report) {
    let lets_all_pass = match requests {
        L7Rules::Http(rules) => rules.iter().any(names_every_request),
        L7Rules::Kafka(rules) => rules.iter().any(names_every_message),
        // `*` in DNS rules is how names are learnt.
        L7Rules::Dns(_) | L7Rules::Tls(_) => false,
    };
    let at = placed.policy.at(path_of(placed.rule, ports));
    if lets_all_pass {
        let message = "one of these lets every request pass: all of the traffic takes the way through a proxy for nothing";
        let help = "Remove `rules` to allow the port, or name the requests that may pass. To watch requests on \
                    purpose, silence this.";
        report.add(&L7_FILTERS_NOTHING, &at, message, help);
    } else if matches!(requests.parser(), Parser::Http | Parser::Kafka) && is_everywhere(placed.rule) {
        let message =
            "everything that these pods exchange on the port goes through a proxy, which costs time and CPU";
        let help = "Look at requests where it matters: select the pods and peers at a border, such as those that are \
                    reached from outside.";
        report.add(&L7_FILTERS_NOTHING, &at, message, help);
    }
}

fn names_every_request(rule: &HttpRule) -> bool {
    let open = |pattern: &Option<Pattern>| {
        pattern.as_ref().is_none_or(|pattern| matches!(pattern.as_str(), ".*" | "/.*" | "^.*$" | "^/.*$"))
    };
    open(&rule.method) && open(&rule.path) && open(&rule.host) && rule.headers.is_empty() && !rule.grpc
}

const fn names_every_message(rule: &KafkaRule) -> bool {
    rule.kinds.is_none() && rule.api_version.is_none() && rule.client_id.is_none() && rule.topic.is_none()
}

/// Whether a rule is for all pods of a namespace or of the cluster, and for peers that are not told apart.
fn is_everywhere(rule: &Rule) -> bool {
    let RuleSubject::Endpoints(subject) = &rule.subject else { return false };
    let unspecific = |selector: &LabelSelector| {
        let place = |key: &str| key == NAMESPACE || key == CLUSTER;
        selector.requirements().all(|requirement| {
            place(&requirement.key().key) || requirement.key().source == sluice_types::Source::Reserved
        })
    };
    let peers = peers_of(&rule.peers);
    unspecific(subject)
        && peers.is_none_or(|peers| {
            peers.iter().any(|peer| match peer {
                Peer::Labels(labels) => unspecific(labels),
                Peer::Prefix(prefix) => prefix.prefix.prefix_len() == 0,
                Peer::Group(_) | Peer::Service(_) => false,
            })
        })
}
