//! What the cluster on paper adds to the engine: names, identities, both ends, coverage.

use std::collections::BTreeMap;

use sluice_api::read_manifests;
use sluice_policy::{Config, NamedPort, PolicyKind, PolicyRef, ServiceName};
use sluice_types::{Direction, Identity, Protocol};

use crate::{
    Cluster, Flow, FlowPort, FlowRequest, HttpCall, KafkaCall, Participant, ServiceError, TraceError, Who,
    Word,
};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: pay, labels: {app: web}}
---
apiVersion: v1
kind: Node
metadata: {name: cp, labels: {role: control-plane}}
status: {addresses: [{type: InternalIP, address: 172.16.0.1}]}
";

/// Tells the cluster about all objects of a text, which must be good.
pub(crate) fn apply(cluster: &mut Cluster, text: &str) {
    for manifest in read_manifests(text) {
        cluster.apply(&manifest.content.unwrap()).unwrap();
    }
}

fn cluster(config: Config, policies: &str) -> Cluster {
    let mut cluster = Cluster::new(config);
    for text in [SHOP, policies] {
        apply(&mut cluster, text);
    }
    cluster
}

fn shop(policies: &str) -> Cluster {
    cluster(Config::complete(), policies)
}

fn cnp(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

fn tcp(from: &str, to: &str, port: u16) -> Flow {
    Flow {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: Protocol::Tcp,
        port: FlowPort::Number(port),
        request: None,
    }
}

fn get(path: &str) -> FlowRequest {
    FlowRequest::Http(HttpCall { method: "GET".into(), path: path.into(), ..HttpCall::default() })
}

#[track_caller]
fn word(cluster: &mut Cluster, flow: &Flow) -> (Word, Option<Direction>) {
    let flow =
        Flow { from: cluster.end(&flow.from).unwrap(), to: cluster.end(&flow.to).unwrap(), ..flow.clone() };
    let trace = cluster.trace(&flow).unwrap();
    (trace.word(), trace.at())
}

#[test]
fn both_ends_judge() {
    let mut cluster = shop(
        &(cnp(
            "in",
            "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]}",
        ) + &cnp(
            "out",
            "{endpointSelector: {matchLabels: {app: web}}, egress: [{toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '1'}]}]}]}",
        )),
    );
    assert_eq!(word(&mut cluster, &tcp("shop/web", "shop/db", 1)), (Word::Allow, None));
    assert_eq!(word(&mut cluster, &tcp("shop/web", "shop/db", 2)), (Word::Deny, Some(Direction::Egress)));
    assert_eq!(word(&mut cluster, &tcp("pay/web", "shop/db", 1)), (Word::Deny, Some(Direction::Ingress)));
    let denied = cluster.trace(&tcp("shop/web", "shop/db", 2)).unwrap();
    assert_eq!(denied.by().iter().map(ToString::to_string).collect::<Vec<_>>(), ["cnp/shop/out"]);
    assert_eq!(denied.ingress.unwrap().word, Word::Allow, "the other side is judged too");
    let allowed = cluster.trace(&tcp("shop/web", "shop/db", 1)).unwrap();
    assert_eq!(
        allowed.by().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["cnp/shop/out", "cnp/shop/in"]
    );
}

#[test]
fn ends_by_description() {
    let mut cluster = shop(&cnp(
        "out",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [
            {toCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.128/25]}]}, {toEntities: [kube-apiserver]},
            {toFQDNs: [{matchPattern: '*.example.com'}]}, {toEndpoints: [{matchLabels: {app: db, tier: x}}]},
            {toNodes: [{matchLabels: {role: control-plane}}]}]}",
    ));
    let cases = [
        ("192.0.2.1", Word::Allow),
        ("192.0.2.200", Word::Deny),
        ("kube-apiserver", Word::Allow),
        ("reserved:kube-apiserver", Word::Allow),
        ("world", Word::Deny),
        ("api.example.com", Word::Allow),
        ("api.example.org", Word::Deny),
        ("app=db,tier=x,io.kubernetes.pod.namespace=shop", Word::Allow),
        ("k8s:app=db,k8s:tier=x,k8s:io.kubernetes.pod.namespace=pay", Word::Deny),
        ("cp", Word::Allow),
        ("172.16.0.1", Word::Allow),
        ("host", Word::Deny),
        ("10.0.0.1", Word::Allow),
    ];
    for (to, want) in cases {
        assert_eq!(word(&mut cluster, &tcp("shop/web", to, 443)).0, want, "{to}");
    }
    for unknown in ["shop/nobody", "nobody", "", "="] {
        assert!(cluster.end(unknown).is_err(), "{unknown:?}");
    }
    assert_eq!(cluster.end("weeb").unwrap_err().known.len(), 6);
    assert_eq!(cluster.end("shop/we").unwrap_err().known, ["pay/web", "shop/web"]);
}

#[test]
fn an_address_learnt_for_a_name_is_still_in_its_prefix() {
    let mut cluster = shop(&cnp(
        "out",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toFQDNs: [{matchName: api.stripe.com}]}],
          egressDeny: [{toCIDR: [198.51.100.0/24]}]}",
    ));
    for (name, address) in [("good", "192.0.2.10"), ("bad", "198.51.100.7")] {
        let outside = Participant::outside(name, address.parse().unwrap());
        cluster.add(Participant { names: vec!["api.stripe.com".to_owned()], ..outside });
    }
    assert_eq!(word(&mut cluster, &tcp("shop/web", "good", 443)).0, Word::Allow);
    assert_eq!(word(&mut cluster, &tcp("shop/web", "bad", 443)).0, Word::Deny);
    assert_eq!(word(&mut cluster, &tcp("shop/web", "192.0.2.11", 443)).0, Word::Deny);
}

#[test]
fn requests_and_their_parts() {
    let policy = cnp(
        "in",
        "{endpointSelector: {matchLabels: {app: db}}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules:
            {http: [{method: GET, path: /a}, {method: GET, path: /b}]}}]}, {toPorts: [{ports: [{port: '90'}]}]}]}",
    );
    let mut cluster = shop(&policy);
    let ask = |cluster: &mut Cluster, path: &str| {
        let flow = Flow { request: Some(get(path)), ..tcp("shop/web", "shop/db", 80) };
        let trace = cluster.trace(&flow).unwrap();
        let hits: Vec<String> = cluster.hits(&trace).into_iter().map(|hit| hit.rule).collect();
        (trace.word(), hits)
    };
    assert_eq!(ask(&mut cluster, "/b"), (Word::Allow, vec!["ingress[0].http[1]".to_owned()]));
    assert_eq!(ask(&mut cluster, "/c"), (Word::L7Deny, Vec::new()));
    let open = cluster.trace(&tcp("shop/web", "shop/db", 80)).unwrap();
    assert_eq!((open.word(), open.is_proxied()), (Word::Allow, true));
    let parts: Vec<String> = cluster.rule_parts().map(|part| part.rule).collect();
    assert_eq!(parts, ["ingress[0].http[0]", "ingress[0].http[1]", "ingress[1]"]);

    let mut audited = cluster_in_audit(&policy);
    assert_eq!(ask(&mut audited, "/c").0, Word::Audit);
}

fn cluster_in_audit(policies: &str) -> Cluster {
    cluster(Config { audit: true, ..Config::complete() }, policies)
}

#[test]
fn several_port_rules_are_told_apart() {
    let mut cluster = shop(&cnp(
        "in",
        "{endpointSelector: {matchLabels: {app: db}}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}]},
            {ports: [{port: '9092', protocol: TCP}], rules: {kafka: [{role: produce, topic: orders}]}}]}]}",
    ));
    let parts: Vec<String> = cluster.rule_parts().map(|part| part.rule).collect();
    assert_eq!(parts, ["ingress[0]", "ingress[0].toPorts[1].kafka[0]"]);
    let call = |topic: &str| {
        FlowRequest::Kafka(KafkaCall {
            topics: vec![topic.to_owned()],
            api_version: 9,
            ..KafkaCall::default()
        })
    };
    for (topic, want, hits) in [("orders", Word::Allow, 1), ("other", Word::L7Deny, 0)] {
        let flow = Flow { request: Some(call(topic)), ..tcp("shop/web", "shop/db", 9092) };
        let trace = cluster.trace(&flow).unwrap();
        assert_eq!((trace.word(), cluster.hits(&trace).len()), (want, hits), "{topic}");
    }
}

#[test]
fn a_dns_query_is_refused_in_its_own_word() {
    let mut cluster = shop(&cnp(
        "out",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toEndpoints: [{matchLabels: {app: db}}],
            toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchPattern: '*.example.com'}]}}]}]}",
    ));
    for (name, want) in [("a.example.com", Word::Allow), ("a.example.org", Word::DnsRefused)] {
        let flow = Flow {
            protocol: Protocol::Udp,
            request: Some(FlowRequest::Dns(name.to_owned())),
            ..tcp("shop/web", "shop/db", 53)
        };
        assert_eq!(cluster.trace(&flow).unwrap().word(), want, "{name}");
    }
}

#[test]
fn the_senders_proxy_changes_headers_before_the_receiver_looks() {
    let mut cluster = shop(
        &(cnp(
            "out",
            "{endpointSelector: {matchLabels: {app: web}}, egress: [{toPorts: [{ports: [{port: '80', protocol: TCP}],
            rules: {http: [{headerMatches: [{name: x-token, value: s, mismatch: REPLACE}]}]}}]}]}",
        ) + &cnp(
            "in",
            "{endpointSelector: {matchLabels: {app: db}}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}],
            rules: {http: [{headers: ['X-Token: s']}]}}]}]}",
        )),
    );
    let mut call = HttpCall { method: "GET".into(), path: "/".into(), ..HttpCall::default() };
    call.headers.push(("X-Token".to_owned(), "wrong".to_owned()));
    let flow = Flow { request: Some(FlowRequest::Http(call)), ..tcp("shop/web", "shop/db", 80) };
    assert_eq!(cluster.trace(&flow).unwrap().word(), Word::Allow);
    let direct = Flow { from: "pay/web".to_owned(), ..flow };
    assert_eq!(cluster.trace(&direct).unwrap().word(), Word::L7Deny);
}

#[test]
fn the_node_is_judged_by_its_own_labels() {
    let policy = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: host}
spec: {nodeSelector: {matchLabels: {role: cp}}, ingress: [{fromEntities: [cluster]}]}
";
    let mut cluster = shop(policy);
    for (name, role) in [("cp-host", "cp"), ("worker-host", "worker")] {
        let labels = BTreeMap::from([("role".to_owned(), role.to_owned())]);
        cluster.add(Participant::new(name, Who::Host(labels)));
    }
    assert_eq!(word(&mut cluster, &tcp("192.0.2.1", "cp-host", 22)).0, Word::Deny);
    assert_eq!(word(&mut cluster, &tcp("shop/web", "cp-host", 22)).0, Word::Allow);
    assert_eq!(word(&mut cluster, &tcp("192.0.2.1", "worker-host", 22)).0, Word::Allow);
    let mut open = self::cluster(Config { host_firewall: false, ..Config::complete() }, "");
    open.add(Participant::new("h", Who::Host(BTreeMap::new())));
    assert!(open.trace(&tcp("shop/web", "h", 22)).unwrap().ingress.is_none());
}

#[test]
fn probes_and_own_addresses_pass() {
    let mut cluster = shop(&cnp(
        "closed",
        "{endpointSelector: {}, ingress: [{fromEndpoints: []}], egress: [{toEndpoints: []}]}",
    ));
    assert_eq!(word(&mut cluster, &tcp("host", "shop/web", 8080)).0, Word::Allow);
    assert_eq!(word(&mut cluster, &tcp("shop/web", "shop/web", 8080)).0, Word::Allow);
    assert_eq!(word(&mut cluster, &tcp("shop/web", "10.0.0.1", 8080)).0, Word::Allow, "by address as well");
}

#[test]
fn named_ports_are_the_receivers() {
    let mut cluster = shop("");
    let named =
        |name: &str, to: &str| Flow { port: FlowPort::Named(name.to_owned()), ..tcp("pay/web", to, 0) };
    assert_eq!(cluster.trace(&named("HTTP", "shop/web")).unwrap().port, 8080);
    let error = cluster.trace(&named("https", "shop/web")).unwrap_err();
    assert_eq!(error.to_string(), "shop/web has no TCP port named \"https\"; it has http");
    assert!(matches!(cluster.trace(&named("http", "shop/db")), Err(TraceError::Port { .. })));
}

#[test]
fn what_is_replaced_is_gone() {
    let mut cluster = shop(&cnp(
        "in",
        "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]}",
    ));
    assert_eq!(word(&mut cluster, &tcp("shop/web", "shop/db", 1)).0, Word::Allow);
    let labels = BTreeMap::from([("app".to_owned(), "other".to_owned())]);
    let port = NamedPort { name: "x".to_owned(), protocol: Protocol::Tcp, port: 7 };
    cluster.add(Participant { ports: vec![port], ..Participant::pod("shop", "web", labels, "default") });
    assert_eq!(word(&mut cluster, &tcp("shop/web", "shop/db", 1)).0, Word::Deny);
    let identity = cluster.trace(&tcp("shop/web", "shop/db", 1)).unwrap().identities.0;
    assert_eq!(cluster.who_has(identity).len(), 1);
    assert!(cluster.who_has(Identity::new(300)).is_empty());
    cluster.remove_policy(&PolicyRef::new(PolicyKind::Cnp, "shop", "in"));
    assert_eq!(word(&mut cluster, &tcp("shop/web", "shop/db", 1)).0, Word::Allow);
}

#[test]
fn a_service_leads_to_its_pods_and_to_addresses() {
    let service = |name: &str, selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{selector} ports: [{{name: web, port: 80, targetPort: http}}]}}\n---\n"
        )
    };
    let slice = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: out-1, namespace: shop, labels: {kubernetes.io/service-name: out}}
addressType: IPv4
ports: [{name: web, port: 8443, protocol: TCP}]
endpoints: [{addresses: [192.0.2.8]}]
";
    let mut cluster = shop(&(service("web", "selector: {app: web},") + &service("out", "") + slice));
    let name = |name: &str| ServiceName { namespace: "shop".to_owned(), name: name.to_owned() };
    let mut ask = |service: &str, port: FlowPort| cluster.backends(&name(service), Protocol::Tcp, &port);
    let web = Ok(vec![("shop/web".to_owned(), 8080)]);
    assert_eq!(ask("web", FlowPort::Number(80)), web);
    assert_eq!(ask("web", FlowPort::Named("web".to_owned())), web);
    assert_eq!(ask("out", FlowPort::Number(80)), Ok(vec![("192.0.2.8".to_owned(), 8443)]));
    let shown = |result: Result<Vec<(String, u16)>, ServiceError>| result.unwrap_err().to_string();
    assert_eq!(
        shown(ask("web", FlowPort::Number(81))),
        "the Service shop/web has no TCP port 81; it has 80/TCP"
    );
    assert_eq!(shown(ask("none", FlowPort::Number(80))), "there is no Service shop/none");
}
