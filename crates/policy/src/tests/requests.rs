//! Rules about requests: which connections a proxy sees, and what it lets pass.

use sluice_types::{Direction, Protocol};

use super::scene::{Scene, errors_with};
use crate::{
    Asked, Config, Outcome, Query,
    l7::{HttpRequest, KafkaRequest, Request, kafka::api_key},
};

fn scene() -> Scene {
    Scene::shop_with(Config::complete())
}

/// What happens to `METHOD /path` from `peer` to a port of `shop/backend`.
fn http(scene: &Scene, peer: &str, port: u16, line: &str) -> String {
    let (method, path) = line.split_once(' ').unwrap();
    let headers: &[(&str, &[u8])] =
        if method == "CALL" { &[("content-type", b"application/grpc")] } else { &[] };
    let method = if method == "CALL" { "POST" } else { method };
    ask(scene, peer, port, &Request::Http(HttpRequest { method, path, authority: "backend", headers }))
}

fn ask(scene: &Scene, peer: &str, port: u16, request: &Request<'_>) -> String {
    let subject = scene.subject("shop/backend");
    let policy = scene.repository.resolve(subject);
    let query = Query {
        direction: Direction::Ingress,
        peer: scene.identity(peer),
        protocol: Protocol::Tcp,
        port: Some(port),
    };
    let asked = Asked { request, secrets: &() };
    let explanation = scene.repository.explain(subject, &policy, &query, Some(asked));
    match explanation.outcome {
        Outcome::Allow => "allow",
        Outcome::Deny(_) => "deny",
        Outcome::Refuse => "refuse",
        Outcome::Audit => "audit",
        Outcome::Depends => "depends",
    }
    .to_owned()
}

fn check(scene: &Scene, cases: &[(&str, u16, &str, &str)]) {
    for (peer, port, line, want) in cases {
        assert_eq!(http(scene, peer, *port, line), *want, "{peer} {port} {line}");
    }
}

const HTTP: &str = "{endpointSelector: {matchLabels: {app: backend}}, ingress: [
    {fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 80, protocol: TCP}], rules: {http: [
        {method: GET, path: '/api/.*'}, {method: POST, path: /api/orders}]}}]}]}";

#[test]
fn requests_that_a_rule_names_pass() {
    let mut scene = scene();
    scene.cnp("p", HTTP);
    check(
        &scene,
        &[
            ("shop/frontend", 80, "GET /api/x", "allow"),
            ("shop/frontend", 80, "POST /api/orders", "allow"),
            ("shop/frontend", 80, "POST /api/x", "refuse"),
            ("shop/frontend", 80, "DELETE /api/x", "refuse"),
            ("shop/frontend", 81, "GET /api/x", "deny"),
            ("pay/db", 80, "GET /api/x", "deny"),
            // Whoever probes is let in by a rule without requests.
            ("host", 80, "DELETE /anything", "allow"),
        ],
    );
}

#[test]
fn a_plain_rule_for_the_same_traffic_lets_everything_pass() {
    let plain = [
        ("the same port", "{fromEndpoints: [{}], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}"),
        ("a range", "{fromEndpoints: [{}], toPorts: [{ports: [{port: 79, endPort: 90, protocol: TCP}]}]}"),
        ("every port", "{fromEndpoints: [{}]}"),
        ("every peer", "{toPorts: [{ports: [{port: 80, protocol: TCP}]}]}"),
    ];
    for (name, entry) in plain {
        let mut scene = scene();
        scene.cnp("p", HTTP);
        scene.cnp("q", &format!("{{endpointSelector: {{}}, ingress: [{entry}]}}"));
        assert_eq!(http(&scene, "shop/frontend", 80, "DELETE /x"), "allow", "{name}");
    }
    let mut scene = scene();
    scene.cnp("p", HTTP);
    scene.cnp("q", "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 81, protocol: TCP}]}]}]}");
    assert_eq!(http(&scene, "shop/frontend", 80, "DELETE /x"), "refuse");
}

#[test]
fn rules_add_up_and_denials_win() {
    let mut scene = scene();
    scene.cnp("p", HTTP);
    scene.cnp(
        "q",
        "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 1, endPort: 1000, protocol: TCP}], rules: {http: [
            {method: DELETE}]}}]}]}",
    );
    check(
        &scene,
        &[
            ("shop/frontend", 80, "DELETE /x", "allow"),
            ("shop/frontend", 80, "GET /api/x", "allow"),
            ("shop/frontend", 80, "PUT /api/x", "refuse"),
            ("pay/db", 80, "GET /api/x", "refuse"),
            ("pay/db", 999, "DELETE /x", "allow"),
        ],
    );
    scene.cnp(
        "r",
        "{endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [{port: 50, endPort: 90, protocol: TCP}]}]}]}",
    );
    check(&scene, &[("shop/frontend", 80, "GET /api/x", "deny"), ("pay/db", 999, "DELETE /x", "allow")]);
}

#[test]
fn a_rule_that_does_not_isolate_refuses_nothing() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, ingress: [
            {toPorts: [{ports: [{port: 80, protocol: TCP}], rules: {http: [{method: GET}]}}]}]}",
    );
    check(&scene, &[("pay/db", 80, "DELETE /x", "allow"), ("pay/db", 81, "GET /", "allow")]);
}

#[test]
fn grpc_in_both_forms() {
    let mut scene = scene();
    let rules = "rules: {grpc: [{serviceName: a.S, methodName: M}], http: [{method: POST, path: /a.S/N}]}";
    scene.cnp(
        "p",
        &format!("{{endpointSelector: {{}}, ingress: [{{toPorts: [{{ports: [{{port: 80, protocol: TCP}}], {rules}}}]}}]}}"),
    );
    check(
        &scene,
        &[
            ("pay/db", 80, "CALL /a.S/M", "allow"),
            ("pay/db", 80, "POST /a.S/M", "refuse"),
            ("pay/db", 80, "CALL /a.S/N", "allow"),
            ("pay/db", 80, "CALL /a.S/O", "refuse"),
        ],
    );
}

#[test]
fn kafka() {
    let mut scene = scene();
    scene.cnp(
        "p",
        "{endpointSelector: {}, ingress: [
            {fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 9092, protocol: TCP}],
                rules: {kafka: [{role: produce, topic: orders}]}}]},
            {fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: 9092, protocol: TCP}],
                rules: {kafka: [{apiKey: produce, topic: audit}]}}]}]}",
    );
    let send = |key: &str, topics: &[&str]| {
        let api_key = api_key(key).unwrap();
        let request = KafkaRequest { api_key, api_version: 9, client_id: None, topics, unknown_topics: 0 };
        ask(&scene, "shop/frontend", 9092, &Request::Kafka(request))
    };
    assert_eq!(send("produce", &["orders"]), "allow");
    assert_eq!(send("produce", &["orders", "audit"]), "allow", "two rules, one topic each");
    assert_eq!(send("produce", &["orders", "payments"]), "refuse");
    assert_eq!(send("fetch", &["orders"]), "refuse");
    assert_eq!(http(&scene, "shop/frontend", 9092, "GET /"), "refuse", "another protocol");
}

#[test]
fn for_dns_only_rules_of_the_same_port_count() {
    let query = |scene: &Scene, name: &str| {
        let subject = scene.subject("shop/backend");
        let policy = scene.repository.resolve(subject);
        let peer = scene.identity("pay/db");
        let query = Query { direction: Direction::Egress, peer, protocol: Protocol::Udp, port: Some(53) };
        let request = Request::Dns(name);
        policy.judge(&query, Some(Asked { request: &request, secrets: &() })).0 == Outcome::Allow
    };
    let dns = "{toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: pay}}], toPorts: [
        {ports: [{port: 53, protocol: ANY}], rules: {dns: [{matchPattern: '*.example.com'}]}}]}";
    let spec = |more: &str| format!("{{endpointSelector: {{}}, egress: [{dns}{more}]}}");
    for (name, more, other_names) in [
        ("alone", "", false),
        ("beside a rule for all ports", ", {toEntities: [all]}", false),
        ("beside a range", ", {toPorts: [{ports: [{port: 50, endPort: 60, protocol: UDP}]}]}", false),
        ("beside a rule for the port", ", {toPorts: [{ports: [{port: 53, protocol: UDP}]}]}", true),
    ] {
        let mut scene = scene();
        scene.cnp("p", &spec(more));
        assert!(query(&scene, "a.example.com."), "{name}");
        assert_eq!(query(&scene, "example.org"), other_names, "{name}");
    }
}

#[test]
fn two_protocols_on_one_port_close_it() {
    let rules = |selector: &str, port: &str, rules: &str| {
        format!(
            "{{endpointSelector: {{}}, ingress: [{{{selector}toPorts: [{{ports: [{{{port}, protocol: TCP}}], rules: {rules}}}]}}]}}"
        )
    };
    let mut scene = scene();
    scene.cnp("http", &rules("", "port: 80, endPort: 100", "{http: [{}]}"));
    scene.cnp(
        "kafka",
        &rules("fromEndpoints: [{matchLabels: {app: frontend}}], ", "port: 90", "{kafka: [{}]}"),
    );
    check(
        &scene,
        &[
            ("shop/frontend", 90, "GET /", "deny"),
            ("shop/frontend", 80, "GET /", "allow"),
            ("shop/frontend", 91, "GET /", "allow"),
            ("pay/db", 90, "GET /", "allow"),
        ],
    );
    let policy = scene.repository.resolve(scene.subject("shop/backend"));
    let [conflict] = policy.conflicts.as_slice() else { panic!("{:?}", policy.conflicts) };
    let named = |id| scene.repository.rule(id).unwrap().to_string();
    assert_eq!(
        (named(conflict.one), named(conflict.other)),
        ("cnp/shop/http ingress[0]".to_owned(), "cnp/shop/kafka ingress[0]".to_owned())
    );
}

#[test]
fn conflicts_are_listed_in_the_order_of_policies_whichever_came_first() {
    let port = |rules: &str| {
        format!(
            "{{endpointSelector: {{}}, ingress: [{{toPorts: [{{ports: [{{port: 80, protocol: TCP}}], rules: {rules}}}]}}]}}"
        )
    };
    let policies = [("a", "{http: [{}]}"), ("b", "{kafka: [{}]}"), ("c", "{http: [{method: GET}]}")];
    let listed = |order: [usize; 3]| {
        let mut scene = scene();
        for (name, rules) in order.map(|nth| policies[nth]) {
            scene.cnp(name, &port(rules));
        }
        let policy = scene.repository.resolve(scene.subject("shop/backend"));
        let named = |id| scene.repository.rule(id).unwrap().policy.name.clone();
        policy.conflicts.iter().map(|own| (named(own.one), named(own.other))).collect::<Vec<_>>()
    };
    let wanted = [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "b".to_owned())];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        assert_eq!(listed(order), wanted, "{order:?}");
    }
}

#[test]
fn names_of_peers_and_handshakes() {
    let mut scene = scene();
    scene.also("192.0.2.1/32", "fqdn:*.example.com");
    scene.cnp(
        "p",
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: '**.Example.com.'}, {matchPattern: '*.example.com'}],
            toPorts: [{ports: [{port: 443, protocol: TCP}]}]}]}",
    );
    scene.check(
        "shop/backend -> 192.0.2.1 TCP/443: allow
         shop/backend -> 192.0.2.1 TCP/80: default
         shop/backend -> 192.0.2.2 TCP/443: default",
    );
    let mut tls = Scene::shop_with(Config::complete());
    tls.cnp(
        "p",
        "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 443, protocol: TCP}], serverNames: ['*.example.com']}]}]}",
    );
    for (name, want) in [(Some("a.example.com"), "allow"), (Some("example.com"), "refuse"), (None, "refuse")]
    {
        assert_eq!(ask(&tls, "pay/db", 443, &Request::Tls(name)), want, "{name:?}");
    }
}

const TCP: &str = "{port: 80, protocol: TCP}";

fn ports(ports: &str, rest: &str) -> String {
    format!("{{toPorts: [{{ports: [{ports}], {rest}}}]}}")
}

/// Each case: the list of the rule, its entry, and what the error must say.
fn refused(cases: &[(&str, String, &str)]) {
    for (list, entry, want) in cases {
        let spec = format!("{{endpointSelector: {{}}, {list}: [{entry}]}}");
        let found = errors_with("CiliumNetworkPolicy", &spec, &Config::complete());
        assert!(found.iter().any(|error| error.contains(want)), "{spec}\n{found:?}");
    }
}

#[test]
fn where_requests_cannot_be_looked_at() {
    refused(&[
        (
            "egress",
            ports(TCP, "rules: {http: [{}], dns: [{matchName: a}]}"),
            "multiple L7 protocol rule types",
        ),
        ("egress", ports("{port: 80}", "rules: {http: [{}]}"), "can only apply to TCP (not ANY)"),
        ("egress", ports("{port: 80, protocol: UDP}", "rules: {kafka: [{}]}"), "can only apply to TCP"),
        (
            "egress",
            ports("{port: 0, protocol: TCP}", "rules: {http: [{}]}"),
            "can not be used when a port is 0",
        ),
        (
            "ingress",
            ports("{port: 53}", "rules: {dns: [{matchName: a}]}"),
            "DNS is not supported on ingress yet",
        ),
        (
            "egress",
            ports("{port: 53, endPort: 60}", "rules: {dns: [{matchName: a}]}"),
            "DNS rules need single ports",
        ),
        ("egress", ports("{port: 0}", "rules: {dns: [{matchName: a}]}"), "DNS rules need single ports"),
        (
            "egress",
            ports("{port: 53}", "rules: {dns: [{}]}"),
            "rules.dns[0].matchName: a name must not be empty",
        ),
        (
            "egress",
            ports("{port: 53}", "rules: {dns: [{matchPattern: 'a b'}]}"),
            "dns[0].matchPattern: invalid",
        ),
        ("egress", ports("{port: 53}", "rules: {dns: [{matchName: '*.a'}]}"), "dns[0].matchName: invalid"),
    ]);
}

#[test]
fn http_rules_that_are_refused() {
    refused(&[
        (
            "ingress",
            ports(TCP, "rules: {http: [{path: '('}]}"),
            "http[0].path: invalid regex: unclosed group",
        ),
        ("ingress", ports(TCP, "rules: {http: [{host: '(?=a)'}]}"), "http[0].host: invalid regex"),
        (
            "ingress",
            ports(TCP, "rules: {http: [{headers: ['A:b']}]}"),
            "headers[0]: \"A:b\" is no header name",
        ),
        (
            "ingress",
            ports(TCP, "rules: {http: [{headerMatches: [{name: A, mismatch: log}]}]}"),
            "mismatch: \"log\" is none of LOG, ADD, DELETE, REPLACE",
        ),
        (
            "ingress",
            ports(TCP, "rules: {http: [{headers: ['A:  b']}]}"),
            "headers[0]: \" b\" is no header value",
        ),
        (
            "ingress",
            ports(
                TCP,
                "rules: {http: [{headerMatches: [{name: A, value: \"b\\r\\nC: d\", mismatch: ADD}]}]}",
            ),
            "headerMatches[0].value: \"b\\r\\nC: d\" is no header value",
        ),
        (
            "ingress",
            ports(
                TCP,
                "rules: {http: [{headerMatches: [{name: Transfer-Encoding, value: a, mismatch: REPLACE}]}]}",
            ),
            "headerMatches[0].name: header Transfer-Encoding frames or routes the request",
        ),
        (
            "ingress",
            ports(TCP, "rules: {grpc: [{serviceName: ''}]}"),
            "grpc[0].serviceName: \"\" is no gRPC name",
        ),
        (
            "ingress",
            ports(TCP, "rules: {grpc: [{methodName: a/b}]}"),
            "grpc[0].methodName: \"a/b\" is no gRPC name",
        ),
    ]);
}

#[test]
fn kafka_tls_and_names_that_are_refused() {
    refused(&[
        (
            "ingress",
            ports(TCP, "rules: {kafka: [{role: produce, apiKey: fetch}]}"),
            "cannot set both Role and APIKey",
        ),
        ("ingress", ports(TCP, "rules: {kafka: [{role: admin}]}"), "invalid Kafka Role"),
        ("ingress", ports(TCP, "rules: {kafka: [{apiKey: eat}]}"), "invalid Kafka APIKey"),
        ("ingress", ports(TCP, "rules: {kafka: [{apiVersion: '-1'}]}"), "invalid Kafka APIVersion"),
        ("ingress", ports(TCP, "rules: {kafka: [{topic: 'a b'}]}"), "invalid Kafka topic"),
        ("ingress", ports(TCP, "serverNames: ['']"), "serverNames[0]: a name must not be empty"),
        (
            "ingress",
            ports(TCP, "serverNames: [a], rules: {http: [{}]}"),
            "cannot stand together without terminatingTLS",
        ),
        ("ingress", ports(TCP, "terminatingTLS: {}"), "terminatingTLS.secret: is required"),
        ("ingress", ports(TCP, "terminatingTLS: {secret: {name: a}}"), "terminatingTLS: not supported"),
        (
            "ingress",
            ports(TCP, "listener: {envoyConfig: {name: a}, name: b}"),
            "a listener is not supported on ingress",
        ),
        (
            "egress",
            ports(TCP, "listener: {envoyConfig: {name: a}, name: b, priority: 101}"),
            "not in 0 to 100",
        ),
        (
            "egress",
            "{toFQDNs: [{matchName: a, matchPattern: b}]}".to_owned(),
            "only one of MatchName or MatchPattern",
        ),
        ("egress", "{toFQDNs: [{}]}".to_owned(), "toFQDNs[0].matchName: a name must not be empty"),
        ("ingressDeny", ports(TCP, "rules: {http: [{}]}"), "a deny rule cannot have this field"),
        ("ingressDeny", ports(TCP, "serverNames: [a]"), "a deny rule cannot have this field"),
    ]);
    let node = "{nodeSelector: {}, ingress: [{toPorts: [{ports: [{port: 80, protocol: TCP}], rules: {http: [{}]}}]}]}";
    let found = errors_with("CiliumClusterwideNetworkPolicy", node, &Config::complete());
    assert!(found[0].contains("a rule for nodes cannot have this field"), "{found:?}");
}
