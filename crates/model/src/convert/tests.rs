use std::{fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};
use sluice_api::{CiliumNetworkPolicy, NetworkPolicy, Object, read_manifests, read_trees};
use sluice_policy::{Config, parse};

use super::{to_cilium, to_kubernetes};
use crate::{Cluster, compare, meet};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// All policies of the project's tests and examples.
fn policies() -> Vec<Object> {
    fn read(folder: &Path, found: &mut Vec<Object>) {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                read(&path, found);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                let text = fs::read_to_string(&path).unwrap();
                let inside = read_trees(&text).into_iter().filter_map(Result::ok);
                let inside = inside.flat_map(|tree| tree.objects("objects", None).into_iter().flatten());
                let all = read_manifests(&text).into_iter().chain(inside);
                found.extend(all.filter_map(|manifest| manifest.content.ok()));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["conformance/policy-tests", "docs/examples"] {
        read(&Path::new(ROOT).join(folder), &mut found);
    }
    found.retain(|object| parse::object(object, &Config::complete()).is_some_and(|(_, rules)| rules.is_ok()));
    found
}

fn cluster(object: &Object) -> Cluster {
    let mut cluster = Cluster::new(Config::complete());
    cluster.apply(object).unwrap_or_else(|errors| panic!("{errors:?}: {:#}", object.to_value()));
    cluster
}

/// The two do the same to everybody.
fn assert_same(before: &Object, after: &Object) {
    let (mut old, mut new) = (cluster(before), cluster(after));
    let met = meet(&mut old, &mut new);
    let mut difference = compare(&old.judges(), &new.judges(), &met.names).unwrap();
    // Who isolates has another kind now.
    difference.isolation.iter_mut().for_each(|change| change.by.clear());
    assert!(difference.is_empty(), "{difference:#?}\n{:#}\n{:#}", before.to_value(), after.to_value());
}

fn boxed(policy: CiliumNetworkPolicy) -> Object {
    Object::CiliumNetworkPolicy(Box::new(policy))
}

#[test]
fn every_network_policy_can_be_said_in_ciliums_words_and_back() {
    let mut converted = 0;
    for object in policies() {
        let Object::NetworkPolicy(policy) = &object else { continue };
        let other = to_cilium(policy).unwrap_or_else(|error| panic!("{error}: {:#}", object.to_value()));
        assert_same(&object, &boxed(other.clone()));
        let again: NetworkPolicy = to_kubernetes(&other).unwrap();
        assert_same(&object, &Object::NetworkPolicy(Box::new(again)));
        converted += 1;
    }
    assert!(converted >= 15, "{converted}");
}

#[test]
fn what_a_network_policy_can_say_stays_the_same_and_the_rest_is_refused() {
    let (mut converted, mut refused) = (0, 0);
    for object in policies() {
        let Object::CiliumNetworkPolicy(policy) = &object else { continue };
        match to_kubernetes(policy) {
            Ok(other) => {
                assert_same(&object, &Object::NetworkPolicy(Box::new(other)));
                converted += 1;
            }
            Err(error) => {
                assert!(error.path.starts_with("spec"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(converted >= 20 && refused >= 40, "{converted} converted, {refused} refused");
}

#[test]
fn what_cannot_be_said_is_named() {
    let cases = [
        ("endpointSelector: {}, ingress: [{fromEntities: [world]}]", "spec.ingress[0].fromEntities[0]"),
        ("endpointSelector: {}, ingress: [{}], ingressDeny: [{}]", "spec.ingressDeny"),
        ("endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.b}]}]", "spec.egress[0].toFQDNs"),
        (
            "endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]",
            "spec.ingress[0].toPorts[0].rules",
        ),
        (
            "endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: a}}, ingress: [{}]",
            "spec.endpointSelector.matchLabels[io.cilium.k8s.policy.serviceaccount]",
        ),
        (
            "endpointSelector: {}, ingress: [{fromCIDRSet: [{cidrGroupRef: g}]}]",
            "spec.ingress[0].fromCIDRSet[0].cidrGroupRef",
        ),
        (
            "endpointSelector: {}, ingress: [{}], enableDefaultDeny: {ingress: false}",
            "spec.enableDefaultDeny.ingress",
        ),
        (
            "endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '0'}]}]}]",
            "spec.ingress[0].toPorts[0].ports[0]",
        ),
    ];
    for (spec, path) in cases {
        let text = format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
        );
        let Object::CiliumNetworkPolicy(policy) = read_manifests(&text).remove(0).content.unwrap() else {
            panic!("{text}")
        };
        assert_eq!(to_kubernetes(&policy).unwrap_err().path, path, "{spec}");
    }
}

/// Every combination of few peers, ports and types.
#[test]
fn combinations() {
    let peers = [
        "",
        "from: [], ",
        "from: [{podSelector: {}}], ",
        "from: [{podSelector: {matchLabels: {app: a}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ",
        "from: [{namespaceSelector: {}}], ",
        "from: [{namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a]}]}}], ",
        "from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}], ",
        "from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: n}}}], ",
    ];
    let ports = [
        "",
        "ports: []",
        "ports: [{port: 80}]",
        "ports: [{protocol: UDP}]",
        "ports: [{port: 80, endPort: 90, protocol: SCTP}, {port: web}]",
    ];
    let types =
        ["", "policyTypes: [Ingress], ", "policyTypes: [Egress], ", "policyTypes: [Ingress, Egress], "];
    for (peer, port) in peers.iter().flat_map(|peer| ports.map(|port| (*peer, port))) {
        for types in types {
            let egress = peer.replace("from:", "to:");
            let text = format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: n}}, spec: \
                 {{podSelector: {{matchLabels: {{app: s}}}}, {types}ingress: [{{{peer}{port}}}], egress: [{{{egress}{port}}}]}}}}"
            );
            let object = read_manifests(&text).remove(0).content.unwrap();
            let Object::NetworkPolicy(policy) = &object else { panic!("{text}") };
            let other = to_cilium(policy).unwrap();
            assert_same(&object, &boxed(other.clone()));
            assert_same(&object, &Object::NetworkPolicy(Box::new(to_kubernetes(&other).unwrap())));
        }
    }
}

/// Lists of one to three of these.
fn some(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    subsequence(of, 1..=3).prop_map(|chosen| format!("[{}]", chosen.join(", ")))
}

/// A field with one of these values, or without it, or with none in it.
fn field(name: &'static str, value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    prop_oneof![
        1 => Just(String::new()),
        1 => Just(format!("{name}: [], ")),
        6 => value.prop_map(move |value| format!("{name}: {value}, ")),
    ]
    .boxed()
}

fn kubernetes_rule(peers: &'static str) -> impl Strategy<Value = String> {
    const PEERS: &[&str] = &[
        "{podSelector: {}}",
        "{podSelector: {matchLabels: {app: a}}}",
        "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a, b]}]}}",
        "{namespaceSelector: {}}",
        "{namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchLabels: {app: b}}}",
        "{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}",
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}",
        "{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 169.254.169.254/32]}}",
        "{ipBlock: {cidr: 10.1.0.0/16}}",
        "{ipBlock: {cidr: 'fd00::/8', except: ['fd00:1::/32']}}",
    ];
    const PORTS: &[&str] = &[
        "{port: 80}",
        "{protocol: UDP}",
        "{protocol: UDP, port: 53}",
        "{port: web}",
        "{port: 8000, endPort: 8100}",
        "{protocol: SCTP, port: 7}",
    ];
    (field(peers, some(PEERS)), field("ports", some(PORTS)))
        .prop_map(|(peers, ports)| format!("{{{}}}", format!("{peers}{ports}").trim_end_matches(", ")))
}

fn cilium_rule(
    pods: &'static str,
    prefixes: &'static str,
    sets: &'static str,
) -> impl Strategy<Value = String> {
    const PODS: &[&str] = &[
        "{}",
        "{matchLabels: {app: a}}",
        "{matchLabels: {'k8s:app': a, 'k8s:io.kubernetes.pod.namespace': other}}",
        "{matchLabels: {io.cilium.k8s.namespace.labels.team: x}}",
        "{matchExpressions: [{key: app, operator: In, values: [a, b]}]}",
        "{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]}",
    ];
    const PREFIXES: &[&str] = &["10.0.0.0/8", "10.1.2.3", "'fd00::/8'"];
    const SETS: &[&str] = &[
        "{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}",
        "{cidr: 10.1.0.0/16, except: [10.1.0.0/16]}",
        "{cidr: 10.2.0.0/16}",
    ];
    const PORTS: &[&str] = &[
        "{ports: [{port: '80', protocol: TCP}]}",
        "{ports: [{port: '53'}]}",
        "{ports: [{port: web, protocol: TCP}, {port: '8000', endPort: 8100, protocol: UDP}]}",
        "{ports: [{port: '0', protocol: UDP}]}",
    ];
    let peers = prop_oneof![
        Just(String::new()),
        field(pods, some(PODS)),
        field(prefixes, some(PREFIXES)),
        field(sets, some(SETS)),
    ];
    (peers, field("toPorts", some(PORTS)))
        .prop_map(|(peers, ports)| format!("{{{}}}", format!("{peers}{ports}").trim_end_matches(", ")))
}

/// Rules of both directions and the subject, of either language.
fn rules(
    rule: impl Strategy<Value = String>,
    other: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    let all = |rules: Vec<String>| rules.join(", ");
    (vec(rule, 0..3), vec(other, 0..3))
        .prop_map(move |(ingress, egress)| format!("ingress: [{}], egress: [{}]", all(ingress), all(egress)))
}

fn read(kind: &str, spec: &str) -> Object {
    let version = if kind == "NetworkPolicy" { "networking.k8s.io/v1" } else { "cilium.io/v2" };
    let text = format!(
        "{{apiVersion: {version}, kind: {kind}, metadata: {{name: p, namespace: n}}, spec: {{{spec}}}}}"
    );
    read_manifests(&text).remove(0).content.unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn is_accepted(object: &Object) -> bool {
    parse::object(object, &Config::complete()).is_some_and(|(_, rules)| rules.is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_network_policies_stay_the_same(
        types in select(&["", "policyTypes: [Ingress], ", "policyTypes: [Egress, Ingress], "]),
        rules in rules(kubernetes_rule("from"), kubernetes_rule("to")),
    ) {
        let object = read("NetworkPolicy", &format!("podSelector: {{matchLabels: {{app: s}}}}, {types}{rules}"));
        prop_assert!(is_accepted(&object), "{:#}", object.to_value());
        let Object::NetworkPolicy(policy) = &object else { unreachable!() };
        let other = to_cilium(policy).unwrap();
        assert_same(&object, &boxed(other.clone()));
        assert_same(&object, &Object::NetworkPolicy(Box::new(to_kubernetes(&other).unwrap())));
    }

    #[test]
    fn random_cilium_policies_stay_the_same_or_are_refused(
        deny in select(&["", "enableDefaultDeny: {ingress: true}, ", "enableDefaultDeny: {egress: false}, "]),
        rules in rules(
            cilium_rule("fromEndpoints", "fromCIDR", "fromCIDRSet"),
            cilium_rule("toEndpoints", "toCIDR", "toCIDRSet"),
        ),
    ) {
        let object = read("CiliumNetworkPolicy", &format!("endpointSelector: {{}}, {deny}{rules}"));
        prop_assume!(is_accepted(&object));
        let Object::CiliumNetworkPolicy(policy) = &object else { unreachable!() };
        match to_kubernetes(policy) {
            Ok(other) => assert_same(&object, &Object::NetworkPolicy(Box::new(other))),
            Err(error) => prop_assert!(error.path.starts_with("spec"), "{error}"),
        }
    }
}
