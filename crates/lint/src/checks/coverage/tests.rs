//! What is found to be unnecessary is unnecessary: the engine decides the same without it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sluice_policy::{
    EndpointPolicy, Outcome, Query,
    l7::{HttpRequest, Request},
    rule::Peers,
};
use sluice_types::{Direction, Identity, Protocol};

use crate::{
    Document, Finding, Options, lint,
    report::Report,
    rules::{RULE_IS_SHADOWED, RULE_IS_VOID},
    scene::{Engine, Scene, rule_path},
    tests::{documents, found},
};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: a, tier: web}}
spec: {}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: b}}
spec: {}
---
apiVersion: v1
kind: Pod
metadata: {name: c, namespace: pay, labels: {app: a}}
spec: {}
";
const SUBJECTS: [&str; 4] = [
    "{}",
    "{matchLabels: {app: a}}",
    "{matchExpressions: [{key: app, operator: In, values: [a, b]}]}",
    "{matchExpressions: [{key: tier, operator: Exists}]}",
];
const PEERS: [&str; 12] = [
    "",
    "Endpoints: [{}]",
    "Endpoints: []",
    "Endpoints: [{matchLabels: {app: a}}]",
    "Endpoints: [{matchLabels: {app: a, tier: web}}]",
    "Endpoints: [{matchLabels: {app: a}}, {matchLabels: {app: b}}]",
    "Endpoints: [{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]}]",
    "Entities: [world]",
    "Entities: [cluster]",
    "Entities: [all]",
    "CIDR: [198.51.100.0/24]",
    "CIDRSet: [{cidr: 198.51.0.0/16, except: [198.51.101.0/24]}]",
];
const PORTS: [&str; 8] = [
    "",
    "[{port: '80', protocol: TCP}]",
    "[{port: '80'}]",
    "[{port: '64', endPort: 127, protocol: TCP}]",
    "[{port: '0', protocol: TCP}]",
    "[{port: '80', protocol: TCP}, {port: '53', protocol: UDP}]",
    "[{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}",
    "[{port: '80', protocol: TCP}], rules: {http: [{method: GET}, {method: POST}]}",
];

#[derive(Clone, Debug)]
struct Written {
    subject: usize,
    direction: bool,
    deny: bool,
    open: bool,
    peers: usize,
    ports: usize,
}

fn written() -> impl Strategy<Value = Written> {
    let deny = prop::bool::weighted(0.25);
    let open = prop::bool::weighted(0.2);
    (0..SUBJECTS.len(), any::<bool>(), deny, open, 0..PEERS.len(), 0..PORTS.len()).prop_map(
        |(subject, direction, deny, open, peers, ports)| Written {
            subject,
            direction,
            deny,
            open,
            peers,
            ports,
        },
    )
}

fn policy(nth: usize, written: &Written) -> String {
    let Written { subject, direction, deny, open, peers, ports } = written;
    // Deny rules have no requests.
    let ports = if *deny && *ports > 5 { 1 } else { *ports };
    let (list, to) = if *direction { ("ingress", "from") } else { ("egress", "to") };
    let deny = if *deny { "Deny" } else { "" };
    let peers = match PEERS[*peers] {
        "" => String::new(),
        peers => format!("{to}{peers}"),
    };
    let ports = match PORTS[ports] {
        "" => String::new(),
        ports => format!("toPorts: [{{ports: {ports}}}]"),
    };
    let comma = if peers.is_empty() || ports.is_empty() { "" } else { ", " };
    let default_deny = if *open { format!("enableDefaultDeny: {{{list}: false}}, ") } else { String::new() };
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{nth}, namespace: shop}}\n\
         spec: {{endpointSelector: {}, {default_deny}{list}{deny}: [{{{peers}{comma}{ports}}}]}}\n",
        SUBJECTS[*subject]
    )
}

const ADMIN_SUBJECTS: [&str; 3] =
    ["{namespaces: {}}", "{pods: {podSelector: {matchLabels: {app: a}}}}", "{pods: {podSelector: {}}}"];
const ADMIN_PEERS: [&str; 4] = [
    "{namespaces: {}}",
    "{pods: {podSelector: {matchLabels: {app: a}}}}",
    "{pods: {podSelector: {matchLabels: {app: a, tier: web}}}}",
    "{namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}",
];
const ADMIN_PORTS: [&str; 4] = [
    "",
    ", protocols: [{tcp: {}}]",
    ", protocols: [{tcp: {destinationPort: {number: 80}}}]",
    ", protocols: [{tcp: {destinationPort: {range: {start: 64, end: 127}}}}, {udp: {}}]",
];

/// Tier, priority, subject, and rules: action, peers, ports.
type Administered = (bool, u8, usize, Vec<(usize, usize, usize)>);

fn administered() -> impl Strategy<Value = Administered> {
    let rule = (0..3_usize, 0..ADMIN_PEERS.len(), 0..ADMIN_PORTS.len());
    (any::<bool>(), 0..3_u8, 0..ADMIN_SUBJECTS.len(), prop::collection::vec(rule, 1..4))
}

fn admin_policy(nth: usize, (tier, priority, subject, rules): &Administered) -> String {
    let tier = if *tier { "Admin" } else { "Baseline" };
    let rules: Vec<String> = rules
        .iter()
        .map(|(action, peers, ports)| {
            let action = ["Accept", "Deny", "Pass"][*action];
            format!("{{action: {action}, from: [{}]{}}}", ADMIN_PEERS[*peers], ADMIN_PORTS[*ports])
        })
        .collect();
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: k{nth}}}\n\
         spec: {{tier: {tier}, priority: {priority}, subject: {}, ingress: [{}]}}\n",
        ADMIN_SUBJECTS[*subject],
        rules.join(", ")
    )
}

/// Everything that the engine says about a small cluster.
fn decisions(scene: &Scene<'_>, engine: &mut Engine) -> Vec<(Outcome, bool)> {
    let mut all = Vec::new();
    for pod in &scene.pods {
        let subject = engine.subject(pod.labels.clone());
        let policy = engine.repository.resolve(&subject);
        for peer in engine.everybody().collect::<BTreeSet<Identity>>() {
            for direction in Direction::ALL {
                for (protocol, port) in [
                    (Protocol::Tcp, 80),
                    (Protocol::Tcp, 64),
                    (Protocol::Tcp, 128),
                    (Protocol::Udp, 80),
                    (Protocol::Udp, 53),
                    (Protocol::Sctp, 80),
                    (Protocol::Icmp, 8),
                ] {
                    let query = Query { direction, peer, protocol, port: Some(port) };
                    all.extend(["GET", "POST", "PUT"].map(|method| outcome(&policy, &query, method)));
                }
            }
        }
    }
    all
}

fn outcome(policy: &EndpointPolicy, query: &Query, method: &str) -> (Outcome, bool) {
    let request = Request::Http(HttpRequest { method, path: "/", authority: "a", headers: &[] });
    let asked = sluice_policy::Asked { request: &request, secrets: &() };
    let (outcome, _, _) = policy.judge(query, Some(asked));
    let closed = !policy.direction(query.direction).isolated_by.is_empty();
    (outcome, closed)
}

/// Takes what was found out of the engine, and asks again.
fn without(scene: &Scene<'_>, findings: &[Finding], code: &str, keep_closed: bool) -> Engine {
    let mut engine = Engine::new(scene);
    for policy in &scene.policies {
        let name = policy.name.to_string();
        let is_found = |path: &str| {
            findings.iter().any(|found| found.code == code && found.object == name && found.path == path)
        };
        let mut rules = policy.rules.clone();
        if keep_closed {
            rules
                .iter_mut()
                .filter(|rule| is_found(&rule_path(rule)))
                .for_each(|rule| rule.peers = Peers::Select(Vec::new()));
        } else {
            rules.retain(|rule| !is_found(&rule_path(rule)));
        }
        drop(engine.repository.upsert(policy.name.clone(), rules));
    }
    engine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_is_found_can_go(policies in prop::collection::vec(written(), 2..7)) {
        let text: String = policies.iter().enumerate().map(|(nth, written)| policy(nth, written)).collect();
        let (shadowed, void) = changes(&text);
        prop_assert!(!shadowed, "shadowed rules go: {}", text);
        prop_assert!(!void, "void rules are for nobody: {}", text);
    }

    #[test]
    fn what_is_found_of_administrators_can_go(
        policies in prop::collection::vec(written(), 0..4),
        administered in prop::collection::vec(administered(), 1..4),
    ) {
        let mut text: String = policies.iter().enumerate().map(|(nth, written)| policy(nth, written)).collect();
        text.extend(administered.iter().enumerate().map(|(nth, written)| admin_policy(nth, written)));
        let (shadowed, void) = changes(&text);
        prop_assert!(!shadowed, "shadowed rules go: {}", text);
        prop_assert!(!void, "void rules are for nobody: {}", text);
    }
}

/// Whether something is decided in another way without what is found: without shadowed rules, without void ones.
fn changes(text: &str) -> (bool, bool) {
    let documents: Vec<Document> = documents("p.yaml", &format!("{PODS}{text}"));
    let options = Options::default();
    let findings = lint(&documents, &options);
    let scene = Scene::new(&documents, &options, &mut Report::default());
    assert!(findings.iter().all(|finding| !["SL070", "SL071"].contains(&finding.code)), "{findings:#?}");
    let before = decisions(&scene, &mut Engine::new(&scene));
    let shadowed = decisions(&scene, &mut without(&scene, &findings, RULE_IS_SHADOWED.code, false));
    let void = decisions(&scene, &mut without(&scene, &findings, RULE_IS_VOID.code, true));
    (before != shadowed, before != void)
}

/// The random policies do get findings.
#[test]
fn the_property_sees_findings() {
    let text: String = [
        Written { subject: 0, direction: true, deny: false, open: false, peers: 9, ports: 3 },
        Written { subject: 1, direction: true, deny: false, open: false, peers: 4, ports: 1 },
        Written { subject: 0, direction: false, deny: true, open: false, peers: 7, ports: 0 },
        Written { subject: 3, direction: false, deny: false, open: false, peers: 10, ports: 2 },
    ]
    .iter()
    .enumerate()
    .map(|(nth, written)| policy(nth, written))
    .collect();
    let found = found(&format!("{PODS}{text}"), &Options::default());
    for code in [RULE_IS_SHADOWED.code, RULE_IS_VOID.code] {
        assert!(found.iter().any(|line| line.contains(code)), "{code}: {found:#?}");
    }
}

#[test]
fn the_property_of_administrators_sees_findings() {
    let rules = vec![(0, 0, 1), (1, 1, 2), (0, 2, 2)];
    let found = found(&format!("{PODS}{}", admin_policy(0, &(true, 0, 0, rules))), &Options::default());
    for (code, path) in [(RULE_IS_VOID.code, "never deny"), (RULE_IS_SHADOWED.code, "kcnp/k0 ingress[0]")] {
        assert!(found.iter().any(|line| line.contains(code) && line.contains(path)), "{code}: {found:#?}");
    }
}
