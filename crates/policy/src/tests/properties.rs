//! Random clusters and policies: the engine against the oracle, and laws that hold for all policies.

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use sluice_api::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, IntOrString, LabelSelector,
    LabelSelectorRequirement, Metadata, NetworkPolicy, Object,
    cilium::{
        CidrRule, DefaultDeny, EgressRule, IcmpField, IcmpRule, IngressRule, PolicyRule, Port, PortRule,
    },
    network_policy::{
        IpBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
};
use sluice_types::{Direction, DropReason, Protocol, Verdict};

use super::{
    oracle::{Packet, Peer, Pod, World},
    scene::{Outcome, Scene, parse_object},
};
use crate::{Config, Enforcement, Query};

const PODS: &[Pod] = &[
    Pod { name: "a/web", labels: &[("app", "web")], ports: &[("http", Protocol::Tcp, 80)] },
    Pod { name: "a/db", labels: &[("app", "db"), ("tier", "t")], ports: &[] },
    Pod { name: "b/web", labels: &[("app", "web"), ("tier", "t")], ports: &[("http", Protocol::Tcp, 8080)] },
    Pod {
        name: "b/odd",
        labels: &[("tier", "u")],
        ports: &[("http", Protocol::Udp, 80), ("dns", Protocol::Udp, 53), ("dns", Protocol::Udp, 54)],
    },
];
const ADDRESSES: [&str; 7] =
    ["10.0.0.1", "10.1.0.1", "10.1.1.1", "192.0.2.1", "fd00::1", "fd00:1::1", "2001:db8::1"];
const RESERVED: [&str; 4] = ["host", "remote-node", "health", "unmanaged"];
const TRAFFIC: [(Protocol, u16); 12] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Tcp, 8080),
    (Protocol::Tcp, 65535),
    (Protocol::Udp, 80),
    (Protocol::Udp, 53),
    (Protocol::Sctp, 80),
    (Protocol::Icmp, 8),
    (Protocol::Icmp, 0),
    (Protocol::Icmpv6, 128),
    (Protocol::Icmpv6, 8),
    (Protocol::Other(47), 0),
];
/// Prefixes with prefixes inside them, to be used as holes.
const PREFIXES: [(&str, &[&str]); 8] = [
    ("0.0.0.0/0", &["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"]),
    ("10.0.0.0/8", &["10.1.0.0/16", "10.0.0.0/9", "10.1.1.0/24"]),
    ("10.1.0.0/16", &["10.1.1.0/24", "10.1.1.1/32"]),
    ("10.1.1.0/24", &["10.1.1.1/32"]),
    ("10.1.1.1/32", &[]),
    ("::/0", &["fd00::/8", "2001:db8::/32"]),
    ("fd00::/8", &["fd00:1::/32"]),
    ("fd00:1::/32", &["fd00:1::1/128"]),
];
const ENTITIES: [&str; 9] =
    ["all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "health", "none"];

fn namespaces() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    BTreeMap::from([("a", vec![("team", "x")]), ("b", vec![("team", "y"), ("zone", "z")])])
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// The values that pods have under a key, so that selectors hit about as often as they miss.
fn values_of(key: &str) -> Vec<&'static str> {
    if key.starts_with("reserved:") {
        vec![""]
    } else if key.ends_with("app") {
        vec!["web", "db", "nobody"]
    } else if key.ends_with("tier") {
        vec!["t", "u"]
    } else if key.ends_with("namespace") {
        vec!["a", "b"]
    } else {
        vec!["x", "y", "z"]
    }
}

fn expression(keys: &'static [&'static str]) -> impl Strategy<Value = LabelSelectorRequirement> {
    select(keys).prop_flat_map(|key| {
        let known = values_of(key);
        let values = subsequence(known.clone(), 1..=known.len());
        (0..4usize, values).prop_map(move |(operator, values)| LabelSelectorRequirement {
            key: key.to_owned(),
            operator: ["In", "NotIn", "Exists", "DoesNotExist"][operator].to_owned(),
            values: (operator < 2).then(|| words(&values)),
        })
    })
}

fn selector(keys: &'static [&'static str]) -> impl Strategy<Value = LabelSelector> {
    let label = select(keys).prop_flat_map(|key| (Just(key), select(values_of(key))));
    let expressions = option::weighted(0.3, vec(expression(keys), 0..3));
    (option::weighted(0.4, label), expressions).prop_map(|(label, match_expressions)| LabelSelector {
        match_labels: label.map(|(key, value)| BTreeMap::from([(key.to_owned(), value.to_owned())])),
        match_expressions,
    })
}

const SUBJECT_KEYS: &[&str] = &["app", "k8s:tier", "any:app", "tier"];
const PEER_KEYS: &[&str] = &[
    "app",
    "k8s:tier",
    "any:app",
    "container:app",
    "k8s:io.kubernetes.pod.namespace",
    "io.kubernetes.pod.namespace",
    "io.cilium.k8s.namespace.labels.team",
    "reserved:host",
    "reserved:world",
    "reserved:init",
];
const PLAIN_KEYS: &[&str] = &["app", "tier"];
const NAMESPACE_KEYS: &[&str] = &["team", "zone"];

fn ports() -> impl Strategy<Value = PortRule> {
    let port = prop_oneof![
        4 => select(vec![("80", None), ("81", None), ("8080", None), ("0", None), ("53", None)]),
        3 => select(vec![("79", Some(100)), ("1", Some(65_535)), ("80", Some(81)), ("8000", Some(65_535)), ("80", Some(80))]),
        2 => select(vec![("http", None), ("dns", None), ("nothing", None)]),
    ];
    let protocol = select(vec![None, Some("ANY"), Some("TCP"), Some("TCP"), Some("UDP"), Some("SCTP")]);
    let port = (port, protocol, any::<bool>()).prop_map(|((port, end_port), protocol, quoted)| Port {
        port: Some(match port.parse() {
            Ok(number) if !quoted => IntOrString::Int(number),
            _ => IntOrString::String(port.to_owned()),
        }),
        end_port,
        protocol: protocol.map(str::to_owned),
    });
    option::weighted(0.9, vec(port, 0..3)).prop_map(|ports| PortRule { ports, ..PortRule::default() })
}

fn icmp() -> impl Strategy<Value = IcmpRule> {
    let field = (select(vec![0, 8, 128]), select(vec![None, Some("IPv4"), Some("IPv6")])).prop_map(
        |(kind, family)| IcmpField { family: family.map(str::to_owned), kind: IntOrString::Int(kind) },
    );
    option::weighted(0.9, vec(field, 0..3)).prop_map(|fields| IcmpRule { fields })
}

fn cidr_rule() -> impl Strategy<Value = CidrRule> {
    select(PREFIXES.to_vec()).prop_flat_map(|(cidr, inside)| {
        let holes = subsequence(inside.to_vec(), 0..=inside.len());
        option::of(holes).prop_map(move |holes| CidrRule {
            cidr: Some(cidr.to_owned()),
            except: holes.map(|holes| words(&holes)),
            ..CidrRule::default()
        })
    })
}

fn prefix() -> impl Strategy<Value = String> {
    let addresses = ADDRESSES.into_iter();
    select(PREFIXES.iter().map(|(prefix, _)| *prefix).chain(addresses).collect::<Vec<_>>())
        .prop_map(str::to_owned)
}

fn to_ports() -> impl Strategy<Value = (Option<Vec<PortRule>>, Option<Vec<IcmpRule>>)> {
    prop_oneof![
        3 => Just((None, None)),
        1 => Just((Some(vec![]), Some(vec![]))),
        5 => vec(ports(), 1..3).prop_map(|ports| (Some(ports), None)),
        2 => vec(icmp(), 1..3).prop_map(|icmps| (None, Some(icmps))),
    ]
}

fn ingress() -> impl Strategy<Value = IngressRule> {
    let peers = prop_oneof![
        2 => Just(IngressRule::default()),
        6 => vec(selector(PEER_KEYS), 0..3)
            .prop_map(|list| IngressRule { from_endpoints: Some(list), ..IngressRule::default() }),
        2 => vec(prefix(), 0..3).prop_map(|list| IngressRule { from_cidr: Some(list), ..IngressRule::default() }),
        3 => vec(cidr_rule(), 0..3)
            .prop_map(|list| IngressRule { from_cidr_set: Some(list), ..IngressRule::default() }),
        2 => vec(select(ENTITIES.to_vec()), 0..3)
            .prop_map(|list| IngressRule { from_entities: Some(words(&list)), ..IngressRule::default() }),
    ];
    let requires = option::weighted(0.1, vec(selector(PEER_KEYS), 0..2));
    (peers, requires, to_ports()).prop_map(|(peers, from_requires, (to_ports, icmps))| IngressRule {
        from_requires,
        to_ports,
        icmps,
        ..peers
    })
}

/// The same for the other direction.
fn egress() -> impl Strategy<Value = EgressRule> {
    ingress().prop_map(|rule| EgressRule {
        to_endpoints: rule.from_endpoints,
        to_requires: rule.from_requires,
        to_cidr: rule.from_cidr,
        to_cidr_set: rule.from_cidr_set,
        to_entities: rule.from_entities,
        to_ports: rule.to_ports,
        icmps: rule.icmps,
        ..EgressRule::default()
    })
}

fn policy_rule() -> impl Strategy<Value = PolicyRule> {
    let flag = || option::weighted(0.3, any::<bool>());
    let lists = (
        option::weighted(0.6, vec(ingress(), 0..3)),
        option::weighted(0.6, vec(ingress(), 0..3)),
        option::weighted(0.6, vec(egress(), 0..3)),
        option::weighted(0.6, vec(egress(), 0..3)),
    );
    (selector(SUBJECT_KEYS), lists, flag(), flag()).prop_map(|(subject, lists, for_ingress, for_egress)| {
        let (mut ingress, ingress_deny, egress, egress_deny) = lists;
        let empty = ingress.iter().flatten().count() + ingress_deny.iter().flatten().count() == 0
            && egress.iter().flatten().count() + egress_deny.iter().flatten().count() == 0;
        if empty {
            ingress = Some(vec![IngressRule::default()]);
        }
        PolicyRule {
            endpoint_selector: Some(subject),
            ingress,
            ingress_deny,
            egress,
            egress_deny,
            enable_default_deny: Some(DefaultDeny { ingress: for_ingress, egress: for_egress }),
            ..PolicyRule::default()
        }
    })
}

fn kubernetes_peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let block = cidr_rule().prop_map(|rule| NetworkPolicyPeer {
        ip_block: Some(IpBlock { cidr: rule.cidr.unwrap(), except: rule.except }),
        ..NetworkPolicyPeer::default()
    });
    let pods = (option::of(selector(PLAIN_KEYS)), option::of(selector(NAMESPACE_KEYS))).prop_map(
        |(pod_selector, namespace_selector)| NetworkPolicyPeer {
            pod_selector: pod_selector.or_else(|| namespace_selector.is_none().then(LabelSelector::default)),
            namespace_selector,
            ip_block: None,
        },
    );
    prop_oneof![block, pods]
}

fn kubernetes_port() -> impl Strategy<Value = NetworkPolicyPort> {
    let number = |number| Some(IntOrString::Int(number));
    let name = |name: &str| Some(IntOrString::String(name.to_owned()));
    let port = select(vec![
        (None, None),
        (number(80), None),
        (number(53), None),
        (number(79), Some(8_080)),
        (number(1), Some(65_535)),
        (name("http"), None),
        (name("dns"), None),
    ]);
    let protocol = select(vec![None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    (port, protocol).prop_map(|((port, end_port), protocol)| NetworkPolicyPort {
        protocol: protocol.map(str::to_owned),
        port,
        end_port,
    })
}

fn kubernetes_spec() -> impl Strategy<Value = NetworkPolicySpec> {
    let rule = || (option::of(vec(kubernetes_peer(), 0..3)), option::of(vec(kubernetes_port(), 0..3)));
    let types = option::of(subsequence(vec!["Ingress", "Egress"], 0..=2));
    let lists = (option::of(vec(rule(), 0..3)), option::of(vec(rule(), 0..3)));
    (option::of(selector(PLAIN_KEYS)), types, lists).prop_map(|(pod_selector, types, (ingress, egress))| {
        let ingress = ingress.map(|rules| {
            rules.into_iter().map(|(from, ports)| NetworkPolicyIngressRule { from, ports }).collect()
        });
        let egress = egress.map(|rules| {
            rules.into_iter().map(|(to, ports)| NetworkPolicyEgressRule { to, ports }).collect()
        });
        NetworkPolicySpec { pod_selector, policy_types: types.map(|types| words(&types)), ingress, egress }
    })
}

fn metadata(nth: usize, namespace: Option<&str>) -> Metadata {
    Metadata { name: format!("p{nth}"), namespace: namespace.map(str::to_owned), ..Metadata::default() }
}

fn policy(nth: usize) -> impl Strategy<Value = Object> {
    let namespace = || select(vec!["a", "b"]);
    prop_oneof![
        4 => (namespace(), policy_rule()).prop_map(move |(namespace, rule)| {
            Object::CiliumNetworkPolicy(Box::new(CiliumNetworkPolicy {
                metadata: metadata(nth, Some(namespace)), spec: Some(rule), ..Default::default()
            }))
        }),
        2 => policy_rule().prop_map(move |rule| {
            Object::CiliumClusterwideNetworkPolicy(Box::new(CiliumClusterwideNetworkPolicy {
                metadata: metadata(nth, None), spec: Some(rule), ..Default::default()
            }))
        }),
        3 => (namespace(), kubernetes_spec()).prop_map(move |(namespace, spec)| {
            Object::NetworkPolicy(Box::new(NetworkPolicy {
                metadata: metadata(nth, Some(namespace)), spec: Some(spec), ..Default::default()
            }))
        }),
    ]
}

fn policies() -> impl Strategy<Value = Vec<Object>> {
    (1..6usize).prop_flat_map(|count| (0..count).map(|nth| policy(nth).boxed()).collect::<Vec<_>>())
}

fn config() -> impl Strategy<Value = Config> {
    let enforcement = prop_oneof![
        6 => Just(Enforcement::Default),
        2 => Just(Enforcement::Always),
        1 => Just(Enforcement::Never),
    ];
    (enforcement, prop::bool::weighted(0.8)).prop_map(|(enforcement, allow_localhost)| Config {
        enforcement,
        allow_localhost,
        ..Config::default()
    })
}

fn cast() -> Vec<(String, Peer)> {
    let pods = PODS.iter().map(|pod| (pod.name.to_owned(), Peer::Pod(pod.clone())));
    let reserved = RESERVED.into_iter().map(|name| (name.to_owned(), Peer::Reserved(name)));
    let addresses = ADDRESSES.into_iter().map(|text| (text.to_owned(), Peer::Address(text.parse().unwrap())));
    pods.chain(reserved).chain(addresses).collect()
}

fn add_pods(scene: &mut Scene) {
    for (namespace, labels) in namespaces() {
        scene.namespace(namespace, &labels);
    }
    for pod in PODS {
        scene.pod(pod.name, pod.labels, pod.ports);
    }
}

fn put(scene: &mut Scene, policy: &Object) {
    let (name, rules) = parse_object(policy.clone(), scene.repository.config());
    let rules = rules.unwrap_or_else(|errors| panic!("{errors:?}: {policy:?}"));
    drop(scene.repository.upsert(name, rules));
}

/// Every packet that can be sent between the cast, with what the engine says about it.
fn answers(scene: &Scene) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for pod in PODS {
        let policy = scene.repository.resolve(scene.subject(pod.name));
        for (name, _) in cast() {
            let peer = scene.identity(&name);
            for direction in Direction::ALL {
                for (protocol, port) in TRAFFIC {
                    let query = Query { direction, peer, protocol, port: Some(port) };
                    outcomes.push(match policy.map_state.decide(&query).verdict {
                        Verdict::Allow => Outcome::Allow,
                        Verdict::Deny(DropReason::PolicyDeny) => Outcome::Deny,
                        Verdict::Deny(DropReason::PolicyDenied) => Outcome::Default,
                        other @ (Verdict::Deny(_) | Verdict::Audit(_) | Verdict::Redirect(_)) => {
                            panic!("{other:?}")
                        }
                    });
                }
            }
        }
    }
    outcomes
}

/// The same packets, judged by the oracle.
fn expected(world: &World<'_>) -> Vec<(String, Outcome)> {
    let mut outcomes = Vec::new();
    for subject in PODS {
        for (name, peer) in &cast() {
            for direction in Direction::ALL {
                for (protocol, port) in TRAFFIC {
                    let packet = Packet { subject, direction, peer, protocol, port };
                    let text = format!("{} {direction} {name} {protocol}/{port}", subject.name);
                    outcomes.push((text, world.judge(packet)));
                }
            }
        }
    }
    outcomes
}

/// What a deny rule requires narrows other deny rules: the law about them holds without.
fn drop_requirements_of_deny_rules(policy: &mut Object) {
    let rules = match policy {
        Object::CiliumNetworkPolicy(policy) => &mut policy.spec,
        Object::CiliumClusterwideNetworkPolicy(policy) => &mut policy.spec,
        Object::NetworkPolicy(_)
        | Object::CiliumCidrGroup(_)
        | Object::ClusterNetworkPolicy(_)
        | Object::Pod(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Secret(_)
        | Object::Ignored => return,
    };
    if let Some(rule) = rules {
        rule.ingress_deny.iter_mut().flatten().for_each(|entry| entry.from_requires = None);
        rule.egress_deny.iter_mut().flatten().for_each(|entry| entry.to_requires = None);
    }
}

fn compare(scene: &Scene, config: &Config, policies: &[Object]) {
    let world = World { config, namespace_labels: &namespaces(), policies };
    for (got, (packet, want)) in answers(scene).into_iter().zip(expected(&world)) {
        assert_eq!(got, want, "{packet}");
    }
}

/// The random policies decide both ways, or the comparison with the oracle would show nothing.
#[test]
fn random_policies_are_worth_comparing() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut counts = [0usize; 3];
    for _ in 0..50 {
        let policies = policies().new_tree(&mut runner).unwrap().current();
        let mut scene = Scene::new(Config::default());
        add_pods(&mut scene);
        for policy in &policies {
            put(&mut scene, policy);
        }
        scene.sync_prefixes();
        for outcome in answers(&scene) {
            match outcome {
                Outcome::Allow => counts[0] += 1,
                Outcome::Deny => counts[1] += 1,
                Outcome::Default => counts[2] += 1,
                Outcome::Audit => panic!("nothing is audited"),
            }
        }
    }
    let all: usize = counts.iter().sum();
    assert!(counts.iter().all(|count| *count * 50 > all), "{counts:?}");
}

proptest! {
    // 1,000 cases of 4 subjects, 15 peers, 12 kinds of traffic and 2 directions: 1,440,000 verdicts.
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_oracle(config in config(), policies in policies()) {
        let mut scene = Scene::new(config.clone());
        add_pods(&mut scene);
        for policy in &policies {
            put(&mut scene, policy);
        }
        scene.sync_prefixes();
        compare(&scene, &config, &policies);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pods first or policies first, policies in another order, some replaced, some removed again, and everything
    /// resolved in between so that what is resolved later is patched: the outcome is the same.
    #[test]
    fn neither_order_nor_history_matters(
        config in config(),
        policies in policies(),
        others in policies(),
        rotation in 0..6usize,
    ) {
        let mut scene = Scene::new(config.clone());
        for policy in &others {
            put(&mut scene, policy);
        }
        scene.namespace("a", &[]);
        scene.pod("a/web", &[("app", "db")], &[("http", Protocol::Tcp, 81)]);
        let early = scene.repository.resolve(scene.subject("a/web"));
        add_pods(&mut scene);
        scene.sync_prefixes();
        let mut held = vec![early];
        for nth in 0..policies.len() {
            put(&mut scene, &policies[(nth + rotation) % policies.len()]);
            held.extend(PODS.iter().map(|pod| scene.repository.resolve(scene.subject(pod.name))));
            if nth % 2 == 0 {
                scene.sync_prefixes();
                held.extend(PODS.iter().map(|pod| scene.repository.resolve(scene.subject(pod.name))));
            }
        }
        let wanted: Vec<_> =
            policies.iter().map(|policy| parse_object(policy.clone(), &config).0).collect();
        for policy in &others {
            let (name, _) = parse_object(policy.clone(), &config);
            if !wanted.contains(&name) {
                drop(scene.repository.remove(&name));
            }
        }
        scene.sync_prefixes();
        compare(&scene, &config, &policies);

        // A repository that never saw anything else says the same, entry by entry.
        let mut fresh = Scene::new(config);
        add_pods(&mut fresh);
        for policy in &policies {
            put(&mut fresh, policy);
        }
        fresh.sync_prefixes();
        prop_assert_eq!(fresh.repository.selectors().count(), scene.repository.selectors().count());
        for pod in PODS {
            let old = scene.repository.resolve(scene.subject(pod.name));
            let new = fresh.repository.resolve(fresh.subject(pod.name));
            prop_assert_eq!(old.map_state.entries.len(), new.map_state.entries.len());
            prop_assert_eq!(&old.ingress, &new.ingress);
            prop_assert_eq!(&old.egress, &new.egress);
        }
    }

    /// One more deny rule never lets anything pass that was denied by a rule, and denies whatever it matches.
    #[test]
    fn deny_beats_allow(mut policies in policies(), entry in ingress(), default_deny in any::<bool>()) {
        policies.iter_mut().for_each(drop_requirements_of_deny_rules);
        let config = Config::default();
        let deny = Object::CiliumClusterwideNetworkPolicy(Box::new(CiliumClusterwideNetworkPolicy {
            metadata: metadata(99, None),
            spec: Some(PolicyRule {
                endpoint_selector: Some(LabelSelector::default()),
                ingress_deny: Some(vec![IngressRule { from_requires: None, ..entry }]),
                enable_default_deny: Some(DefaultDeny { ingress: Some(default_deny), egress: None }),
                ..PolicyRule::default()
            }),
            ..Default::default()
        }));
        let run = |policies: &[&Object]| {
            let mut scene = Scene::new(config.clone());
            add_pods(&mut scene);
            for policy in policies {
                put(&mut scene, policy);
            }
            scene.sync_prefixes();
            answers(&scene)
        };
        let alone = run(&[&deny]);
        let before = run(&policies.iter().collect::<Vec<_>>());
        let after = run(&policies.iter().chain([&deny]).collect::<Vec<_>>());
        for ((alone, before), after) in alone.into_iter().zip(before).zip(after) {
            if alone == Outcome::Deny {
                prop_assert_eq!(after, Outcome::Deny);
            }
            if before == Outcome::Deny {
                prop_assert_eq!(after, Outcome::Deny);
            }
            if after == Outcome::Allow {
                prop_assert_eq!(before, Outcome::Allow);
            }
        }
    }
}
