//! `ClusterNetworkPolicy`: what administrators decide before and after everybody else.

use sluice_types::{Direction, Protocol};

use super::scene::{Scene, errors_with, labels};
use crate::{
    Asked, Config, Enforcement, Outcome, Query,
    l7::{HttpRequest, Request},
    requests::RequestJudge,
};

const EVERYBODY: &str = "subject: {namespaces: {}}";
const FROM_PAY: &str = "from: [{namespaces: {matchLabels: {team: b}}}]";
const FROM_ALL: &str = "from: [{namespaces: {}}]";

fn scene() -> Scene {
    Scene::shop_with(Config::complete())
}

fn spec(tier: &str, priority: u32, rest: &str) -> String {
    format!("{{tier: {tier}, priority: {priority}, {EVERYBODY}, {rest}}}")
}

const ALLOW_ALL: &str =
    "{endpointSelector: {}, ingress: [{fromEntities: [all]}], egress: [{toEntities: [all]}]}";
const DENY_ALL: &str = "{endpointSelector: {}, ingressDeny: [{fromEntities: [all]}]}";

/// Semantics 12 and worked compilation 8: accept beats the deny of others, and pass leaves it to them.
#[test]
fn administrators_come_first() {
    for (action, others, want) in [
        ("Accept", DENY_ALL, "allow"),
        ("Deny", ALLOW_ALL, "deny"),
        ("Pass", DENY_ALL, "deny"),
        ("Pass", ALLOW_ALL, "allow"),
    ] {
        let mut scene = scene();
        scene.cnp("p", others);
        scene.kcnp("a", &spec("Admin", 10, &format!("ingress: [{{action: {action}, {FROM_PAY}}}]")));
        scene.check(&format!("pay/db -> shop/backend TCP/80 ICMP/8: {want}"));
        let rest = if others == DENY_ALL { "deny" } else { "allow" };
        scene.check(&format!("shop/db -> shop/backend TCP/80: {rest}"));
    }
}

#[test]
fn administrators_never_isolate() {
    let mut scene = scene();
    scene.kcnp("a", &spec("Admin", 10, &format!("ingress: [{{action: Accept, {FROM_PAY}}}]")));
    scene.kcnp("b", &spec("Baseline", 10, &format!("ingress: [{{action: Accept, {FROM_PAY}}}]")));
    scene.check(
        "shop/db -> shop/backend TCP/80: allow
         192.0.2.1 -> shop/backend TCP/80: allow",
    );
}

#[test]
fn the_first_rule_counts_and_of_equals_the_denial() {
    let one = |action: &str| format!("{{action: {action}, {FROM_PAY}}}");
    let cases = [
        ("the first rule", vec![(10, vec!["Accept", "Deny"])], "allow"),
        ("the first rule", vec![(10, vec!["Deny", "Accept"])], "deny"),
        ("a pass hides what comes later", vec![(10, vec!["Pass", "Deny"])], "allow"),
        ("the lower number", vec![(10, vec!["Deny"]), (9, vec!["Accept"])], "allow"),
        ("0 is the first", vec![(0, vec!["Deny"]), (1, vec!["Accept"])], "deny"),
        ("1000 is the last", vec![(1000, vec!["Deny"]), (999, vec!["Accept"])], "allow"),
        ("of equals the denial", vec![(10, vec!["Accept"]), (10, vec!["Deny"])], "deny"),
        (
            "of equals accept over pass",
            vec![(10, vec!["Pass"]), (10, vec!["Accept"]), (11, vec!["Deny"])],
            "allow",
        ),
        (
            "the last of 25 comes before the next priority",
            vec![(10, [["Pass"; 24].as_slice(), &["Deny"]].concat()), (11, vec!["Accept"])],
            "allow",
        ),
    ];
    for (name, policies, want) in cases {
        let mut scene = scene();
        for (nth, (priority, actions)) in policies.iter().enumerate() {
            let rules: Vec<String> = actions.iter().map(|action| one(action)).collect();
            scene.kcnp(
                &format!("p{nth}"),
                &spec("Admin", *priority, &format!("ingress: [{}]", rules.join(", "))),
            );
        }
        let got = scene.send("pay/db", "shop/backend", "TCP/80");
        assert_eq!(format!("{got:?}").to_lowercase(), want, "{name}");
    }
}

/// The baseline holds only where nobody isolates the pod.
#[test]
fn the_baseline_comes_last() {
    let mut scene = scene();
    scene.kcnp(
        "base",
        &spec(
            "Baseline",
            10,
            &format!("ingress: [{{action: Accept, {FROM_PAY}}}, {{action: Deny, {FROM_ALL}}}]"),
        ),
    );
    scene.check(
        "pay/db -> shop/backend TCP/80: allow
         shop/db -> shop/backend TCP/80: deny
         192.0.2.1 -> shop/backend TCP/80: allow",
    );
    scene.cnp("p", "{endpointSelector: {matchLabels: {app: backend}}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]}");
    scene.check(
        "pay/db -> shop/backend TCP/80: default
         shop/db -> shop/backend TCP/80: allow
         shop/db -> shop/frontend TCP/80: deny",
    );
    // An allow rule that does not isolate comes before it, and leaves the rest to it.
    scene.cnp(
        "p",
        "{endpointSelector: {matchLabels: {app: backend}}, enableDefaultDeny: {ingress: false}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]}",
    );
    scene.check(
        "shop/db -> shop/backend TCP/80: allow
         shop/frontend -> shop/backend TCP/80: deny
         pay/db -> shop/backend TCP/80: allow",
    );
}

/// After the baseline nothing is left to pass to but the default.
#[test]
fn a_baseline_may_pass_to_the_default() {
    let rest = format!("ingress: [{{action: Pass, {FROM_PAY}}}, {{action: Deny, {FROM_ALL}}}]");
    for (enforcement, want) in [(Enforcement::Default, "allow"), (Enforcement::Always, "deny")] {
        let mut scene = Scene::shop_with(Config { enforcement, ..Config::complete() });
        scene.kcnp("base", &spec("Baseline", 10, &rest));
        let policy = scene.repository.resolve(scene.subject("shop/backend"));
        let peer = scene.identity("pay/db");
        let query = Query { direction: Direction::Ingress, peer, protocol: Protocol::Tcp, port: Some(80) };
        let outcome = match policy.judge(&query, None).0 {
            Outcome::Allow => "allow",
            Outcome::Deny(_) => "deny",
            other @ (Outcome::Refuse | Outcome::Audit | Outcome::Depends) => panic!("{other:?}"),
        };
        assert_eq!(outcome, want, "{enforcement:?}");
    }
}

#[test]
fn subjects() {
    for (subject, shop, pay) in [
        ("namespaces: {}", "deny", "deny"),
        ("namespaces: {matchLabels: {team: a}}", "deny", "allow"),
        ("pods: {podSelector: {matchLabels: {app: backend}}}", "deny", "deny"),
        ("pods: {podSelector: {matchLabels: {app: web}}}", "allow", "allow"),
        (
            "pods: {namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: backend}}}",
            "allow",
            "deny",
        ),
        (
            "pods: {namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [b]}]}, podSelector: {}}",
            "deny",
            "allow",
        ),
    ] {
        let mut scene = scene();
        scene.kcnp("a", &format!("{{tier: Admin, priority: 1, subject: {{{subject}}}, ingress: [{{action: Deny, {FROM_ALL}}}]}}"));
        scene.check(&format!(
            "pay/db -> shop/backend TCP/80: {shop}
             shop/db -> pay/backend TCP/80: {pay}
             192.0.2.1 -> shop/backend TCP/80: allow"
        ));
    }
}

#[test]
fn destinations() {
    let mut scene = scene();
    scene.endpoint("edge", labels(&["reserved:remote-node", "node:zone=b"]), &[]);
    scene.kcnp(
        "a",
        &spec("Admin", 1, "egress: [
            {action: Deny, to: [{networks: [10.0.0.0/8, 2001:db8::/32]}, {nodes: {matchLabels: {zone: b}}}]},
            {action: Deny, to: [{pods: {namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}}]}]"),
    );
    for (peer, want) in [
        ("10.1.2.3", Outcome::Deny(sluice_types::DropReason::PolicyDeny)),
        ("2001:db8::1", Outcome::Deny(sluice_types::DropReason::PolicyDeny)),
        ("192.0.2.1", Outcome::Allow),
        ("edge", Outcome::Deny(sluice_types::DropReason::PolicyDeny)),
        ("remote-node", Outcome::Allow),
        ("host", Outcome::Allow),
        ("pay/db", Outcome::Deny(sluice_types::DropReason::PolicyDeny)),
        ("shop/db", Outcome::Allow),
    ] {
        let policy = scene.repository.resolve(scene.subject("shop/backend"));
        let query = Query {
            direction: Direction::Egress,
            peer: scene.identity(peer),
            protocol: Protocol::Tcp,
            port: Some(80),
        };
        assert_eq!(policy.judge(&query, None).0, want, "{peer}");
    }
}

#[test]
fn every_node_is_a_node_the_local_one_too() {
    let mut scene = scene();
    scene.kcnp("a", &spec("Admin", 1, "egress: [{action: Deny, to: [{nodes: {}}]}]"));
    scene.check(
        "shop/backend -> host TCP/80: deny
         shop/backend -> remote-node TCP/80: deny
         shop/backend -> pay/db TCP/80: allow",
    );
}

#[test]
fn protocols() {
    for (protocols, denied, allowed) in [
        ("[{tcp: {}}]", "TCP/1 TCP/65535", "UDP/1 ICMP/8"),
        ("[{tcp: {destinationPort: {number: 80}}}]", "TCP/80", "TCP/81 UDP/80"),
        (
            "[{udp: {destinationPort: {range: {start: 80, end: 90}}}}]",
            "UDP/80 UDP/85 UDP/90",
            "UDP/79 UDP/91 TCP/80",
        ),
        ("[{sctp: {}}, {tcp: {destinationPort: {number: 1}}}]", "SCTP/9 TCP/1", "TCP/2"),
        ("[{destinationNamedPort: http}]", "TCP/8080", "TCP/80 UDP/8080"),
    ] {
        let mut scene = scene();
        scene.pod("shop/backend", &[("app", "backend")], &[("http", Protocol::Tcp, 8080)]);
        scene.kcnp(
            "in",
            &spec("Admin", 1, &format!("ingress: [{{action: Deny, {FROM_PAY}, protocols: {protocols}}}]")),
        );
        scene.kcnp("out", &spec("Admin", 2, &format!("egress: [{{action: Deny, to: [{{namespaces: {{matchLabels: {{team: a}}}}}}], protocols: {protocols}}}]")));
        scene.check(&format!(
            "pay/db -> shop/backend {denied}: deny
             pay/db -> shop/backend {allowed}: allow"
        ));
    }
}

/// What names are accepted for is asked of the cluster's name servers through the proxy; queries for others are as
/// free or closed as they were.
#[test]
fn names() {
    let mut scene = scene();
    scene.learn("203.0.113.5", &["a.b.example.com"]);
    scene.learn("203.0.113.6", &["example.com"]);
    scene.learn("203.0.113.7", &["api.example.org"]);
    scene.kcnp("a", &spec("Admin", 1, "egress: [{action: Accept, to: [{domainNames: ['*.example.com', api.example.org]}], protocols: [{tcp: {}}]},
        {action: Deny, to: [{networks: [203.0.113.0/24]}]}]"));
    scene.check(
        "shop/backend -> 203.0.113.5 TCP/443: allow
         shop/backend -> 203.0.113.5 UDP/443: deny
         shop/backend -> 203.0.113.6 TCP/443: deny
         shop/backend -> 203.0.113.7 TCP/443: allow",
    );
    let ask = |scene: &Scene, name: &str| {
        let policy = scene.repository.resolve(scene.subject("shop/backend"));
        let peer = scene.identity("kube-system/dns");
        let query = Query { direction: Direction::Egress, peer, protocol: Protocol::Udp, port: Some(53) };
        let request = Request::Dns(name);
        policy.judge(&query, Some(Asked { request: &request, secrets: &() })).0
    };
    let closed = "{endpointSelector: {}, egress: [{}]}";
    let open = "{endpointSelector: {}, egress: [{toEntities: [all]}]}";
    let some = "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}],
        toPorts: [{ports: [{port: 53}], rules: {dns: [{matchName: own.example}]}}]}]}";
    for (name, policy, own, other) in [
        ("nobody isolates", None, Outcome::Allow, Outcome::Allow),
        ("nothing is allowed", Some(closed), Outcome::Refuse, Outcome::Refuse),
        ("everything is allowed", Some(open), Outcome::Allow, Outcome::Allow),
        ("another name is allowed", Some(some), Outcome::Allow, Outcome::Refuse),
    ] {
        if let Some(policy) = policy {
            scene.cnp("p", policy);
        }
        assert_eq!(ask(&scene, "x.y.example.com."), Outcome::Allow, "{name}");
        assert_eq!(ask(&scene, "own.example."), own, "{name}");
        assert_eq!(ask(&scene, "other.example."), other, "{name}");
    }
}

/// A pass of the baseline ends it for names as well: with nobody to decide after it, queries go where they like.
#[test]
fn names_behind_a_pass_of_the_baseline() {
    let mut scene = scene();
    let to_all = "to: [{namespaces: {}}]";
    let egress = format!(
        "egress: [{{action: Accept, to: [{{domainNames: [api.example.com]}}]}}, {{action: Pass, {to_all}}}, {{action: Deny, {to_all}}}]"
    );
    scene.kcnp("a", &spec("Baseline", 1, &egress));
    let ask = |scene: &Scene, name: &str| {
        let policy = scene.repository.resolve(scene.subject("shop/backend"));
        let peer = scene.identity("kube-system/dns");
        let query = Query { direction: Direction::Egress, peer, protocol: Protocol::Udp, port: Some(53) };
        policy.judge(&query, Some(Asked { request: &Request::Dns(name), secrets: &() })).0
    };
    assert_eq!(ask(&scene, "api.example.com."), Outcome::Allow);
    assert_eq!(ask(&scene, "other.example."), Outcome::Allow, "as before the policy");
}

/// Where an administrator has requests looked into, policies in audit mode have no part in it, whoever looks.
#[test]
fn administrators_requests_are_not_reported() {
    let mut scene = scene();
    scene.kcnp("a", &spec("Admin", 1, "egress: [{action: Accept, to: [{domainNames: [a.com]}]}]"));
    let staged = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, \
        metadata: {name: p, namespace: shop, annotations: {sluice.dev/audit: 'true'}}, \
        spec: {endpointSelector: {}, egress: [{}]}}";
    scene.apply(staged);
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    let peer = scene.identity("kube-system/dns");
    let query = Query { direction: Direction::Egress, peer, protocol: Protocol::Tcp, port: Some(53) };
    let http = HttpRequest { method: "GET", path: "/", authority: "a", headers: &[] };
    let asked = Asked { request: &Request::Http(http), secrets: &() };
    assert_eq!(policy.judge(&query, Some(asked)).0, Outcome::Allow);
    let judge = RequestJudge::new(&policy.requests, Some(&policy.staged_requests), false, &query);
    assert_eq!(judge.judge(&http, &()).0, Outcome::Allow);
}

/// A denial in audit mode of a peer whose requests the rules in force look into: nobody asked about the packets, so the
/// requests that pass are reported.
#[test]
fn requests_of_peers_that_would_be_denied_are_reported() {
    let mut scene = scene();
    let ports = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /a}]}}]";
    scene.cnp("p", &format!("{{endpointSelector: {{}}, egress: [{{{ports}}}]}}"));
    let staged = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, \
        metadata: {name: q, namespace: shop, annotations: {sluice.dev/audit: 'true'}}, \
        spec: {endpointSelector: {}, egressDeny: [{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system}}]}]}}";
    scene.apply(staged);
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    let peer = scene.identity("kube-system/dns");
    let query = Query { direction: Direction::Egress, peer, protocol: Protocol::Tcp, port: Some(80) };
    let judge = RequestJudge::new(&policy.requests, Some(&policy.staged_requests), false, &query);
    for (path, outcome) in [("/a", Outcome::Audit), ("/b", Outcome::Refuse)] {
        let http = HttpRequest { method: "GET", path, authority: "a", headers: &[] };
        let asked = Asked { request: &Request::Http(http), secrets: &() };
        assert_eq!(policy.judge(&query, Some(asked)).0, outcome, "{path}");
        assert_eq!(judge.judge(&http, &()).0, outcome, "{path}");
    }
}

/// Two protocols on one port, in audit mode, beside a rule in force that reads one of them: everything would be denied.
#[test]
fn requests_under_a_conflict_in_audit_mode_are_reported() {
    let mut scene = scene();
    let port = "ports: [{port: '443', protocol: TCP}]";
    scene.cnp(
        "p",
        &format!("{{endpointSelector: {{}}, egress: [{{toPorts: [{{{port}, rules: {{http: [{{}}]}}}}]}}]}}"),
    );
    scene.apply(&format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: q, namespace: shop, \
         annotations: {{sluice.dev/audit: 'true'}}}}, \
         spec: {{endpointSelector: {{}}, egress: [{{toPorts: [{{{port}, serverNames: [a.com]}}]}}]}}}}"
    ));
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    let peer = scene.identity("kube-system/dns");
    let query = Query { direction: Direction::Egress, peer, protocol: Protocol::Tcp, port: Some(443) };
    let judge = RequestJudge::new(&policy.requests, Some(&policy.staged_requests), false, &query);
    let http = HttpRequest { method: "GET", path: "/", authority: "a", headers: &[] };
    let asked = Asked { request: &Request::Http(http), secrets: &() };
    assert_eq!(policy.judge(&query, Some(asked)).0, Outcome::Audit);
    assert_eq!(judge.judge(&http, &()).0, Outcome::Audit);
}

#[test]
fn what_is_refused() {
    let many = |one: &str| vec![one; 26].join(", ");
    let to = "to: [{namespaces: {}}]";
    let cases = [
        (spec("Middle", 1, "ingress: []"), "spec.tier: \"Middle\" is none of Admin, Baseline"),
        (spec("Admin", 1001, "ingress: []"), "spec.priority: priority 1001 is not in 0 to 1000"),
        (spec("Admin", 1, "ingress: []").replace("priority: 1", "priority: -1"), "priority -1 is not in"),
        (
            "{tier: Admin, priority: 1, subject: {}}".to_owned(),
            "spec.subject: exactly one of namespaces, pods must be given",
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}".to_owned(),
            "spec.subject: exactly one",
        ),
        (rule("to: []"), "spec.egress[0].to: must not be empty"),
        (
            rule("to: [{}]"),
            "spec.egress[0].to[0]: exactly one of namespaces, pods, nodes, networks, domainNames",
        ),
        (rule("to: [{namespaces: {}, nodes: {}}]"), "to[0]: exactly one"),
        (rule(&format!("to: [{}]", many("{namespaces: {}}"))), "egress[0].to: too many peers, the max is 25"),
        (rule("to: [{networks: [10.0.0.1]}]"), "to[0].networks[0]: \"10.0.0.1\" is no prefix"),
        (rule("to: [{networks: []}]"), "to[0].networks: must not be empty"),
        (rule("to: [{domainNames: ['a.*.com']}]"), "domainNames[0]: invalid character '*'"),
        (rule("to: [{domainNames: ['*.*.com']}]"), "domainNames[0]: invalid character '*'"),
        (
            rule("to: [{domainNames: ['a.com']}]").replace("Accept", "Deny"),
            "domainNames: only a rule with action Accept",
        ),
        (
            rule("to: [{domainNames: ['a.com']}]").replace("Accept", "Pass"),
            "domainNames: only a rule with action Accept",
        ),
        (rule(to).replace("Accept", "Allow"), "egress[0].action: \"Allow\" is none of Accept, Deny, Pass"),
        (rule(&format!("{to}, name: {}", "n".repeat(101))), "egress[0].name: must be at most 100"),
        (
            spec("Admin", 1, &format!("ingress: [{}]", many("{action: Deny, from: [{namespaces: {}}]}"))),
            "spec.ingress: too many rules",
        ),
        (spec("Admin", 1, "ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}]}]"), "networks"),
    ];
    refuse(&cases);
}

#[test]
fn protocols_that_are_refused() {
    let to = "to: [{namespaces: {}}]";
    let cases = [
        (rule(&format!("{to}, protocols: []")), "egress[0].protocols: must not be empty"),
        (
            rule(&format!("{to}, protocols: [{{}}]")),
            "protocols[0]: exactly one of tcp, udp, sctp, destinationNamedPort",
        ),
        (
            rule(&format!("{to}, protocols: [{{tcp: {{destinationPort: {{}}}}}}]")),
            "destinationPort: exactly one of number, range",
        ),
        (
            rule(&format!("{to}, protocols: [{{tcp: {{destinationPort: {{number: 0}}}}}}]")),
            "number: port 0 is not in 1 to 65535",
        ),
        (
            rule(&format!("{to}, protocols: [{{tcp: {{destinationPort: {{number: 65536}}}}}}]")),
            "port 65536 is not in",
        ),
        (
            rule(&format!(
                "{to}, protocols: [{{tcp: {{destinationPort: {{range: {{start: 80, end: 80}}}}}}}}]"
            )),
            "range: the end 80 of the range must be above its start 80",
        ),
        (
            rule("to: [{nodes: {}}], protocols: [{destinationNamedPort: http}]"),
            "only pods give names to ports",
        ),
    ];
    refuse(&cases);
}

/// One rule for egress.
fn rule(rest: &str) -> String {
    spec("Admin", 1, &format!("egress: [{{action: Accept, {rest}}}]"))
}

fn refuse(cases: &[(String, &str)]) {
    for (spec, want) in cases {
        let found = errors_with("ClusterNetworkPolicy", spec, &Config::complete());
        assert!(found.iter().any(|error| error.contains(want)), "{spec}\n{found:?}");
    }
}

#[test]
fn what_needs_an_option() {
    let nodes = spec("Admin", 1, "egress: [{action: Deny, to: [{nodes: {}}]}]");
    let names = spec("Admin", 1, "egress: [{action: Accept, to: [{domainNames: [a.com]}]}]");
    let off = Config { admin_tiers: false, ..Config::complete() };
    assert_eq!(
        errors_with("ClusterNetworkPolicy", &nodes, &off),
        ["spec: needs the option enable-k8s-cluster-network-policy, which is off"]
    );
    let no_labels = Config { node_selector_labels: false, ..Config::complete() };
    assert_eq!(
        errors_with("ClusterNetworkPolicy", &nodes, &no_labels),
        ["spec.egress[0].to[0].nodes: needs the option enable-node-selector-labels, which is off"]
    );
    let no_proxy = Config { proxies: crate::Proxies::default(), ..Config::complete() };
    assert_eq!(
        errors_with("ClusterNetworkPolicy", &names, &no_proxy),
        ["spec.egress[0].to[0].domainNames: not supported yet by this version"]
    );
}
