//! Proposals allow what was denied, and nothing else.

use serde_json::Value;
use sluice_policy::{Config, Enforcement};
use sluice_types::{Direction, Protocol};

use super::{Change, Opened, Step};
use crate::{Cluster, Flow, FlowPort, FlowRequest, HttpCall, KafkaCall, Word, tests::apply};

const CLUSTER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db, tier: data}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: shop}
spec: {serviceAccountName: batch, containers: []}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: pay, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: pay, labels: {app: api}}
";

const POLICIES: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts:
    - ports: [{port: '5432', protocol: TCP}]
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: /a}]}
  - fromEndpoints: [{matchLabels: {app: api, k8s:io.kubernetes.pod.namespace: pay}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: pay}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
  egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}], ports: [{port: 5432}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: bare, namespace: shop}
spec:
  endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: batch}}
  ingress: [{fromEndpoints: []}]
  egress:
  - toEndpoints: [{matchLabels: {app: db}}]
    toPorts: [{ports: [{port: '9092', protocol: TCP}], rules: {kafka: [{role: consume, topic: a}]}}]
  - toCIDR: [192.0.2.0/24]
    toPorts: [{ports: [{port: '53', protocol: UDP}], rules: {dns: [{matchPattern: '*.example.org'}]}}]
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: no-telnet}
spec:
  endpointSelector: {matchLabels: {app: db}}
  enableDefaultDeny: {ingress: false}
  ingressDeny: [{toPorts: [{ports: [{port: '23', protocol: TCP}]}]}]
";

const ENDS: [&str; 6] = ["shop/web", "shop/db", "shop/bare", "shop/job", "pay/web", "pay/api"];

fn cluster(config: Config) -> Cluster {
    let mut cluster = Cluster::new(config);
    for text in [CLUSTER, POLICIES] {
        apply(&mut cluster, text);
    }
    cluster
}

fn tcp(from: &str, to: &str, port: u16) -> Flow {
    let port = FlowPort::Number(port);
    Flow { from: from.to_owned(), to: to.to_owned(), protocol: Protocol::Tcp, port, request: None }
}

fn http(from: &str, to: &str, port: u16, method: &str, path: &str) -> Flow {
    let call = HttpCall { method: method.into(), path: path.into(), ..HttpCall::default() };
    Flow { request: Some(FlowRequest::Http(call)), ..tcp(from, to, port) }
}

/// Does what a change says, as somebody with an editor would.
fn follow(cluster: &mut Cluster, change: &Change) {
    match &change.step {
        Step::Create { object, .. } => apply(cluster, &object.to_string()),
        Step::Extend { policy, list, element } => {
            let mut object = cluster.policies[policy].to_value();
            let mut at = &mut object;
            for word in list.split(['.', '[', ']']).filter(|word| !word.is_empty()) {
                at = match word.parse::<usize>() {
                    Ok(nth) => &mut at[nth],
                    Err(_) => &mut at[word],
                };
            }
            let Value::Array(list) = at else { panic!("{list} is no list") };
            list.push(element.clone());
            apply(cluster, &object.to_string());
        }
        Step::Except(_) | Step::Nothing => panic!("{change:?} cannot be followed"),
    }
}

/// Every verdict between everybody on a few ports, with and without requests.
fn picture(cluster: &mut Cluster) -> Vec<(Flow, Word)> {
    let mut all = Vec::new();
    for from in ENDS {
        for to in ENDS {
            for port in [23, 80, 443, 5432, 9092] {
                all.push(tcp(from, to, port));
                // Where rules read Kafka, HTTP cannot be let through beside it.
                if port != 9092 {
                    all.push(http(from, to, port, "GET", "/a"));
                    all.push(http(from, to, port, "DELETE", "/a"));
                }
            }
        }
    }
    all.into_iter().map(|flow| (flow.clone(), cluster.trace(&flow).unwrap().word())).collect()
}

#[test]
fn what_is_proposed_allows_the_flow_and_nothing_else() {
    let mut checked = 0;
    for enforcement in [Enforcement::Default, Enforcement::Always] {
        let config = || Config { enforcement, ..Config::complete() };
        let before = picture(&mut cluster(config()));
        for (flow, word) in &before {
            let port = |number| flow.port == FlowPort::Number(number);
            // A port that a rule denies cannot be opened.
            if word.passes() || port(23) && flow.to == "shop/db" {
                continue;
            }
            let mut cluster = cluster(config());
            let changes = cluster.changes(flow).unwrap();
            assert_eq!(picture(&mut cluster), before, "trying leaves no trace");
            for change in &changes {
                follow(&mut cluster, change);
            }
            let trace = cluster.trace(flow).unwrap();
            assert_eq!(trace.word(), Word::Allow, "{flow:?}\n{changes:#?}");
            let told: Vec<&Opened> = changes.iter().flat_map(|change| &change.opens).collect();
            let is_bare = |name: &str| name == "shop/bare";
            assert!(told.is_empty() || is_bare(&flow.from) || is_bare(&flow.to), "{flow:?}\n{changes:#?}");
            let meant = |other: &Flow| {
                let from = other.from == flow.from || told.iter().any(|told| told.from == other.from);
                let to = other.to == flow.to || told.iter().any(|told| told.to == other.to);
                from && to && other.port == flow.port
            };
            for ((other, before), (_, after)) in before.iter().zip(picture(&mut cluster)) {
                let only_opens = !before.passes() && meant(other);
                assert!(
                    *before == after || only_opens,
                    "{flow:?} also changes {other:?} from {before} to {after}\n{changes:#?}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} were denied");
}

#[track_caller]
fn only(cluster: &mut Cluster, flow: &Flow) -> Change {
    let mut changes = cluster.changes(flow).unwrap();
    assert_eq!(changes.len(), 1, "{changes:#?}");
    changes.remove(0)
}

#[track_caller]
fn extends(flow: &Flow, wanted: &str, added: Value) {
    let change = cluster(Config::complete()).changes(flow).unwrap().remove(0);
    let Step::Extend { policy, list, element } = change.step else { panic!("{change:#?}") };
    assert_eq!((format!("{policy} {list}"), element), (wanted.to_owned(), added));
}

#[test]
fn a_rule_that_almost_fits_is_extended() {
    extends(
        &http("shop/web", "shop/db", 80, "DELETE", "/admin"),
        "cnp/shop/db spec.ingress[0].toPorts[1].rules.http",
        serde_json::json!({ "method": "DELETE", "path": "/admin" }),
    );
    extends(
        &tcp("shop/web", "shop/db", 443),
        "cnp/shop/db spec.ingress[0].toPorts",
        serde_json::json!({ "ports": [{ "port": "443", "protocol": "TCP" }] }),
    );
    extends(
        &tcp("pay/web", "pay/api", 443),
        "knp/pay/api spec.ingress[0].ports",
        serde_json::json!({ "protocol": "TCP", "port": 443 }),
    );
    let produce = KafkaCall { api_version: 9, topics: vec!["b".to_owned()], ..KafkaCall::default() };
    extends(
        &Flow { request: Some(FlowRequest::Kafka(produce)), ..tcp("shop/job", "shop/db", 9092) },
        "cnp/shop/bare spec.egress[0].toPorts[0].rules.kafka",
        serde_json::json!({ "apiKey": "produce", "topic": "b" }),
    );
}

#[test]
fn the_peer_of_a_rule_for_several_ports_gets_a_policy_of_its_own() {
    let change = only(&mut cluster(Config::complete()), &tcp("pay/web", "shop/db", 5432));
    let Step::Create { object, .. } = change.step else { panic!("{change:#?}") };
    assert_eq!(
        object,
        serde_json::json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": { "name": "allow-web-to-db-5432-ingress", "namespace": "shop" },
            "spec": {
                "endpointSelector": { "matchLabels": { "app": "db", "tier": "data" } },
                "ingress": [{
                    "fromEndpoints": [{ "matchLabels": { "app": "web", "k8s:io.kubernetes.pod.namespace": "pay" } }],
                    "toPorts": [{ "ports": [{ "port": "5432", "protocol": "TCP" }] }],
                }],
            },
        })
    );
}

#[test]
fn what_a_rule_denies_nothing_can_allow() {
    let mut cluster = cluster(Config::complete());
    let change = only(&mut cluster, &tcp("shop/web", "shop/db", 23));
    let Step::Except(rule) = change.step else { panic!("{change:#?}") };
    assert_eq!(rule.to_string(), "ccnp/no-telnet ingressDeny[0]");
    assert!(cluster.changes(&tcp("shop/web", "shop/db", 5432)).unwrap().is_empty(), "it passes already");
}

#[test]
fn peers_outside_of_the_cluster() {
    for (to, field, element) in [
        ("198.51.100.7", "toCIDR", serde_json::json!(["198.51.100.7/32"])),
        ("2001:db8::7", "toCIDR", serde_json::json!(["2001:db8::7/128"])),
        ("api.example.com", "toFQDNs", serde_json::json!([{ "matchName": "api.example.com" }])),
        ("kube-apiserver", "toEntities", serde_json::json!(["kube-apiserver"])),
        ("world", "toEntities", serde_json::json!(["world"])),
    ] {
        let mut cluster = cluster(Config::complete());
        let end = cluster.end(to).unwrap();
        let change = only(&mut cluster, &tcp("shop/job", &end, 443));
        assert_eq!(change.direction, Direction::Egress);
        let Step::Create { object, .. } = &change.step else { panic!("{change:#?}") };
        assert_eq!(object.pointer(&format!("/spec/egress/0/{field}")), Some(&element), "{object}");
        follow(&mut cluster, &change);
        assert_eq!(cluster.trace(&tcp("shop/job", &end, 443)).unwrap().word(), Word::Allow, "{to}");
    }
}

#[test]
fn a_wide_entity_says_what_else_it_opens() {
    let mut cluster = cluster(Config::complete());
    cluster.end("198.51.100.7").unwrap();
    cluster.end("world").unwrap();
    let change = only(&mut cluster, &tcp("shop/job", "world", 443));
    let opened: Vec<String> = change.opens.iter().map(ToString::to_string).collect();
    assert_eq!(opened, ["shop/job -> 198.51.100.7 443/TCP"]);
}

#[test]
fn one_port_is_read_by_one_proxy() {
    let mut cluster = cluster(Config::complete());
    let changes = cluster.changes(&http("shop/job", "shop/db", 9092, "GET", "/")).unwrap();
    assert_eq!(changes[0].step, Step::Nothing, "its requests are Kafka's");
}

/// Enforced, it would close what policies in audit mode only report.
#[test]
fn beside_a_policy_in_audit_mode_a_proposal_is_in_audit_mode_too() {
    let mut cluster = Cluster::new(Config::complete());
    let policy = "
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: tried, namespace: pay, annotations: {sluice.dev/audit: 'true'}}
spec: {endpointSelector: {matchLabels: {app: api}}, ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]}
";
    apply(&mut cluster, &format!("{CLUSTER}{policy}"));
    let before = picture(&mut cluster);
    let flow = tcp("shop/db", "pay/api", 80);
    assert_eq!(cluster.trace(&flow).unwrap().word(), Word::Audit);
    let change = only(&mut cluster, &flow);
    let Step::Create { object, .. } = &change.step else { panic!("{change:?}") };
    assert_eq!(object["metadata"]["annotations"]["sluice.dev/audit"], "true");
    follow(&mut cluster, &change);
    assert_eq!(cluster.trace(&flow).unwrap().word(), Word::Allow);
    for ((flow, was), (_, is)) in before.into_iter().zip(picture(&mut cluster)) {
        assert!(was.passes() && is.passes(), "{flow:?}: {was:?}, then {is:?}");
    }
}
