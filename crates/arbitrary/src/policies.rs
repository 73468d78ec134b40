//! Random policies.

mod cluster;

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use sluice_api::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, ClusterNetworkPolicy, IntOrString, LabelSelector,
    LabelSelectorRequirement, Metadata, NetworkPolicy,
    cilium::{
        CidrRule, DefaultDeny, DnsRule, EgressRule, FqdnSelector, GrpcRule, HttpRule, IcmpField, IcmpRule,
        IngressRule, K8sService, K8sServiceSelector, KafkaRule, L7Rules, PolicyRule, Port, PortRule,
        ServiceSelector,
    },
    network_policy::{
        IpBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
};

use crate::{ADDRESSES, Policy};

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
    } else if key.ends_with("disk") || key == "zone" || key == "node:zone" {
        vec!["a", "b", "z", "ssd"]
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
    "reserved:remote-node",
];
const NODE_KEYS: &[&str] = &["zone", "disk", "node:zone"];
const PLAIN_KEYS: &[&str] = &["app", "tier"];
const NAMESPACE_KEYS: &[&str] = &["team", "zone"];

fn number(port: &str, quoted: bool) -> IntOrString {
    match port.parse() {
        Ok(number) if !quoted => IntOrString::Int(number),
        _ => IntOrString::String(port.to_owned()),
    }
}

/// Ports, perhaps behind a Service.
fn plain_ports() -> impl Strategy<Value = PortRule> {
    let port = prop_oneof![
        4 => select(vec![("80", None), ("81", None), ("8080", None), ("0", None), ("53", None)]),
        3 => select(vec![
            ("79", Some(100)), ("1", Some(65_535)), ("80", Some(81)), ("8000", Some(65_535)), ("80", Some(80))
        ]),
        2 => select(vec![("http", None), ("dns", None), ("web", None), ("nothing", None)]),
    ];
    let protocol = select(vec![None, Some("ANY"), Some("TCP"), Some("TCP"), Some("UDP"), Some("SCTP")]);
    let port = (port, protocol, any::<bool>()).prop_map(|((port, end_port), protocol, quoted)| Port {
        port: Some(number(port, quoted)),
        end_port,
        protocol: protocol.map(str::to_owned),
    });
    let service = option::weighted(0.2, select(vec!["a/api", "b/api", "b/odd", "a/nobody"]));
    (option::weighted(0.9, vec(port, 0..3)), service).prop_map(|(ports, service)| PortRule {
        ports,
        service: service.map(str::to_owned),
        ..PortRule::default()
    })
}

/// Ports with rules about requests. Mostly each protocol has its own port, and sometimes two meet.
fn ports_with_requests(dns: bool) -> impl Strategy<Value = PortRule> {
    let tcp = |port: &'static str, end_port: Option<i64>| Port {
        port: Some(number(port, false)),
        end_port,
        protocol: Some("TCP".to_owned()),
    };
    let any = |port: &'static str, protocol: Option<&'static str>| Port {
        port: Some(number(port, false)),
        end_port: None,
        protocol: protocol.map(str::to_owned),
    };
    let http_ports = select(vec![
        tcp("80", None),
        tcp("80", None),
        tcp("79", Some(100)),
        tcp("http", None),
        tcp("8080", None),
    ]);
    let kafka_ports =
        select(vec![tcp("9092", None), tcp("9092", None), tcp("9000", Some(9_100)), tcp("81", None)]);
    let tls_ports = select(vec![tcp("100", None), tcp("100", None), tcp("81", None), tcp("65535", None)]);
    let dns_ports = select(vec![
        any("53", None),
        any("53", Some("UDP")),
        any("dns", Some("UDP")),
        any("53", Some("TCP")),
    ]);
    let http = (http_ports, vec(http(), 0..3), vec(grpc(), 0..2)).prop_map(|(port, http, grpc)| PortRule {
        ports: Some(vec![port]),
        rules: Some(L7Rules { http: Some(http), grpc: Some(grpc), ..L7Rules::default() }),
        ..PortRule::default()
    });
    let kafka = (kafka_ports, vec(kafka(), 1..3)).prop_map(|(port, kafka)| PortRule {
        ports: Some(vec![port]),
        rules: Some(L7Rules { kafka: Some(kafka), ..L7Rules::default() }),
        ..PortRule::default()
    });
    let names = vec(select(vec!["api.example.com", "*.example.com", "**.example.com", "*"]), 1..3);
    let tls = (tls_ports, names).prop_map(|(port, names)| PortRule {
        ports: Some(vec![port]),
        server_names: Some(words(&names)),
        ..PortRule::default()
    });
    let dns_rule =
        name().prop_map(|name| DnsRule { match_name: name.match_name, match_pattern: name.match_pattern });
    let queries = (dns_ports, vec(dns_rule, 1..3)).prop_map(|(port, dns)| PortRule {
        ports: Some(vec![port]),
        rules: Some(L7Rules { dns: Some(dns), ..L7Rules::default() }),
        ..PortRule::default()
    });
    prop_oneof![
        4 => http,
        2 => kafka,
        1 => tls,
        if dns { 4 } else { 0 } => queries,
    ]
}

fn http() -> impl Strategy<Value = HttpRule> {
    let text = |list: Vec<&'static str>| option::weighted(0.5, select(list).prop_map(str::to_owned));
    let headers = option::weighted(
        0.3,
        vec(select(vec!["X-Token", "X-Token: a", "x-token: a,b", "X-Token: .*", "Other"]), 1..3),
    );
    let method = text(vec!["GET", "POST", "G.*", "get"]);
    let path = text(vec!["/a", "/a.*", "/.*", "/", "/s.S/M"]);
    (method, path, text(vec!["web", "web.*", "db"]), headers).prop_map(|(method, path, host, headers)| {
        HttpRule {
            method,
            path,
            host,
            headers: headers.map(|headers| words(&headers)),
            ..HttpRule::default()
        }
    })
}

fn grpc() -> impl Strategy<Value = GrpcRule> {
    let name = |list: Vec<&'static str>| option::of(select(list).prop_map(str::to_owned));
    (name(vec!["s.S", "sxS"]), name(vec!["M", "N"]))
        .prop_map(|(service_name, method_name)| GrpcRule { service_name, method_name })
}

fn kafka() -> impl Strategy<Value = KafkaRule> {
    let kind = select(vec![
        (None, None),
        (Some("produce"), None),
        (Some("consume"), None),
        (None, Some("produce")),
        (None, Some("createtopics")),
    ]);
    let text = |list: Vec<&'static str>| option::weighted(0.4, select(list).prop_map(str::to_owned));
    let version =
        option::weighted(0.2, select(vec![IntOrString::Int(9), IntOrString::String("3".to_owned())]));
    (kind, version, text(vec!["c", "d"]), text(vec!["t", "u", "v"])).prop_map(
        |((role, api_key), api_version, client_id, topic)| KafkaRule {
            role: role.map(str::to_owned),
            api_key: api_key.map(str::to_owned),
            api_version,
            client_id,
            topic,
        },
    )
}

/// A DNS name or pattern in the form that stands for itself.
fn name() -> impl Strategy<Value = FqdnSelector> {
    let exact = select(vec!["api.example.com", "example.com", "nothing.example"]);
    let pattern =
        select(vec!["*.example.com", "**.example.com", "a*.com", "*", "*example.com", "ap*.example.*"]);
    prop_oneof![
        exact.prop_map(|name| FqdnSelector { match_name: Some(name.to_owned()), match_pattern: None }),
        pattern.prop_map(|name| FqdnSelector { match_name: None, match_pattern: Some(name.to_owned()) }),
    ]
}

fn service() -> impl Strategy<Value = ServiceSelector> {
    let namespace = || option::of(select(vec!["a", "b", ""]).prop_map(str::to_owned));
    let named =
        (select(vec!["api", "odd", "nobody"]), namespace()).prop_map(|(name, namespace)| ServiceSelector {
            k8s_service: Some(K8sService { service_name: Some(name.to_owned()), namespace }),
            ..ServiceSelector::default()
        });
    let labels = select(vec![("team", "x"), ("team", "y"), ("team", "z")]);
    let labelled =
        (option::weighted(0.8, labels), namespace()).prop_map(|(label, namespace)| ServiceSelector {
            k8s_service_selector: Some(K8sServiceSelector {
                selector: LabelSelector {
                    match_labels: label
                        .map(|(key, value)| BTreeMap::from([(key.to_owned(), value.to_owned())])),
                    match_expressions: None,
                },
                namespace,
            }),
            ..ServiceSelector::default()
        });
    prop_oneof![named, labelled]
}

fn icmp() -> impl Strategy<Value = IcmpRule> {
    let field = (select(vec![0, 8, 128]), select(vec![None, Some("IPv4"), Some("IPv6")])).prop_map(
        |(kind, family)| IcmpField { family: family.map(str::to_owned), kind: IntOrString::Int(kind) },
    );
    option::weighted(0.9, vec(field, 0..3)).prop_map(|fields| IcmpRule { fields })
}

fn plain_cidr_rule() -> impl Strategy<Value = CidrRule> {
    select(PREFIXES.to_vec()).prop_flat_map(|(cidr, inside)| {
        let holes = subsequence(inside.to_vec(), 0..=inside.len());
        option::of(holes).prop_map(move |holes| CidrRule {
            cidr: Some(cidr.to_owned()),
            except: holes.map(|holes| words(&holes)),
            ..CidrRule::default()
        })
    })
}

/// Prefixes by themselves or by the name or labels of their group.
fn cidr_rule() -> impl Strategy<Value = CidrRule> {
    let holes =
        || option::of(vec(select(vec!["10.1.0.0/16", "10.0.0.0/8", "192.0.2.1/32", "fd00:1::/32"]), 0..3));
    let by_name = (select(vec!["g", "h", "i", "j"]), holes()).prop_map(|(name, holes)| CidrRule {
        cidr_group_ref: Some(name.to_owned()),
        except: holes.map(|holes| words(&holes)),
        ..CidrRule::default()
    });
    let labels = select(vec![("kind", "x"), ("more", "y"), ("kind", "z")]);
    let by_labels = (labels, holes()).prop_map(|((key, value), holes)| CidrRule {
        cidr_group_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            match_expressions: None,
        }),
        except: holes.map(|holes| words(&holes)),
        ..CidrRule::default()
    });
    prop_oneof![3 => plain_cidr_rule(), 1 => by_name, 1 => by_labels]
}

fn prefix() -> impl Strategy<Value = String> {
    let addresses = ADDRESSES.into_iter();
    select(PREFIXES.iter().map(|(prefix, _)| *prefix).chain(addresses).collect::<Vec<_>>())
        .prop_map(str::to_owned)
}

type L4 = (Option<Vec<PortRule>>, Option<Vec<IcmpRule>>);

/// `allow`: what may not stand in a deny rule may be there; `egress`: as well as what may not stand in ingress.
fn to_ports(allow: bool, egress: bool) -> impl Strategy<Value = L4> {
    let ports = prop_oneof![
        2 => plain_ports(),
        if allow { 5 } else { 0 } => ports_with_requests(egress),
    ];
    prop_oneof![
        3 => Just((None, None)),
        1 => Just((Some(vec![]), Some(vec![]))),
        9 => vec(ports, 1..3).prop_map(|ports| (Some(ports), None)),
        2 => vec(icmp(), 1..3).prop_map(|icmps| (None, Some(icmps))),
    ]
}

/// An entry for ingress; `allow`: with what may not stand in a deny rule. Nobody reads DNS queries there.
pub fn ingress(allow: bool) -> impl Strategy<Value = IngressRule> {
    entry(allow, false)
}

fn entry(allow: bool, egress: bool) -> impl Strategy<Value = IngressRule> {
    let peers = prop_oneof![
        5 => Just(IngressRule::default()),
        6 => vec(selector(PEER_KEYS), 0..3)
            .prop_map(|list| IngressRule { from_endpoints: Some(list), ..IngressRule::default() }),
        2 => vec(prefix(), 0..3).prop_map(|list| IngressRule { from_cidr: Some(list), ..IngressRule::default() }),
        3 => vec(cidr_rule(), 0..3)
            .prop_map(|list| IngressRule { from_cidr_set: Some(list), ..IngressRule::default() }),
        3 => vec(select(ENTITIES.to_vec()), 0..3)
            .prop_map(|list| IngressRule { from_entities: Some(words(&list)), ..IngressRule::default() }),
        1 => vec(selector(NODE_KEYS), 0..3)
            .prop_map(|list| IngressRule { from_nodes: Some(list), ..IngressRule::default() }),
    ];
    let requires = option::weighted(0.1, vec(selector(PEER_KEYS), 0..2));
    (peers, requires, to_ports(allow, egress)).prop_map(|(peers, from_requires, (to_ports, icmps))| {
        IngressRule { from_requires, to_ports, icmps, ..peers }
    })
}

/// An entry for egress: the same, and what only egress has.
fn egress(allow: bool) -> impl Strategy<Value = EgressRule> {
    let services =
        vec(service(), 0..3).prop_map(|list| EgressRule { to_services: Some(list), ..EgressRule::default() });
    let names =
        vec(name(), 0..3).prop_map(|list| EgressRule { to_fqdns: Some(list), ..EgressRule::default() });
    let peers = prop_oneof![
        2 => services.boxed(),
        if allow { 2 } else { 0 } => names.boxed(),
    ];
    let special = (peers, to_ports(allow, true)).prop_map(|(peers, (to_ports, icmps))| EgressRule {
        to_ports,
        icmps,
        ..peers
    });
    let common = entry(allow, true).prop_map(|rule| EgressRule {
        to_endpoints: rule.from_endpoints,
        to_requires: rule.from_requires,
        to_cidr: rule.from_cidr,
        to_cidr_set: rule.from_cidr_set,
        to_entities: rule.from_entities,
        to_nodes: rule.from_nodes,
        to_ports: rule.to_ports,
        icmps: rule.icmps,
        ..EgressRule::default()
    });
    prop_oneof![8 => common, 2 => special, 1 => behind_a_service()]
}

/// Peers that are some of those behind a Service.
fn behind_a_service() -> impl Strategy<Value = EgressRule> {
    let label = select(vec![("app", "web"), ("app", "db"), ("tier", "t"), ("any:app", "web")]);
    let port = select(vec!["80", "81", "8080", "0", "web", "http"]);
    let service = select(vec!["a/api", "b/api", "b/odd"]);
    (vec(label, 1..3), port, service).prop_map(|(labels, port, service)| {
        let selector = |(key, value): (&str, &str)| LabelSelector {
            match_labels: Some(BTreeMap::from([
                (key.to_owned(), value.to_owned()),
                ("k8s:io.kubernetes.pod.namespace".to_owned(), service.split_at(1).0.to_owned()),
            ])),
            match_expressions: None,
        };
        let port = Port { port: Some(number(port, true)), end_port: None, protocol: Some("TCP".to_owned()) };
        EgressRule {
            to_endpoints: Some(labels.into_iter().map(selector).collect()),
            to_ports: Some(vec![PortRule {
                ports: Some(vec![port]),
                service: Some(service.to_owned()),
                ..PortRule::default()
            }]),
            ..EgressRule::default()
        }
    })
}

fn policy_rule() -> impl Strategy<Value = PolicyRule> {
    let flag = || option::weighted(0.3, any::<bool>());
    let lists = (
        option::weighted(0.8, vec(ingress(true), 0..3)),
        option::weighted(0.8, vec(ingress(false), 0..3)),
        option::weighted(0.8, vec(egress(true), 0..3)),
        option::weighted(0.8, vec(egress(false), 0..3)),
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
    let block = plain_cidr_rule().prop_map(|rule| NetworkPolicyPeer {
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

/// Of the policy `p` and its number.
#[must_use]
pub fn metadata(nth: usize, namespace: Option<&str>) -> Metadata {
    Metadata { name: format!("p{nth}"), namespace: namespace.map(str::to_owned), ..Metadata::default() }
}

fn policy(nth: usize) -> impl Strategy<Value = Policy> {
    let namespace = || select(vec!["a", "b"]);
    prop_oneof![
        4 => (namespace(), policy_rule()).prop_map(move |(namespace, rule)| Policy::Cnp(CiliumNetworkPolicy {
            metadata: metadata(nth, Some(namespace)), spec: Some(rule), ..Default::default()
        })),
        2 => policy_rule().prop_map(move |rule| Policy::Ccnp(CiliumClusterwideNetworkPolicy {
            metadata: metadata(nth, None), spec: Some(rule), ..Default::default()
        })),
        3 => (namespace(), kubernetes_spec()).prop_map(move |(namespace, spec)| Policy::Knp(NetworkPolicy {
            metadata: metadata(nth, Some(namespace)), spec: Some(spec), ..Default::default()
        })),
        3 => cluster::spec().prop_map(move |spec| Policy::Kcnp(ClusterNetworkPolicy {
            metadata: metadata(nth, None), spec, ..Default::default()
        })),
    ]
}

/// Two to eight policies of all kinds, each of which the engine takes. Some are in audit mode.
pub fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let one = |nth| {
        (policy(nth), prop::bool::weighted(0.2))
            .prop_map(|(policy, staged)| if staged { policy.staged() } else { policy })
    };
    (2..9usize).prop_flat_map(move |count| (0..count).map(|nth| one(nth).boxed()).collect::<Vec<_>>())
}
